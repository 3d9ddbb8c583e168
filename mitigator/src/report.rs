//! What actuators report back.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_bgp::guard::route;
use weir_model::{
    AGENT_PEER, IncidentId, Measure, Millis, Mitigation, MitigationState, Observed, PeerState,
};

use crate::Mitigator;
use crate::entry::Entry;
use crate::feedback::Watch;
use crate::ledger::is_live;

/// Peers remembered; more than any appliance has.
pub(crate) const PEERS_MAX: usize = 1024;

/// A router whose session was lost may let everything through until it is back, and no harder step
/// would reach it either: for so long nothing is concluded from traffic that is there again.
const GONE_MS: u64 = 120_000;

/// Peers and whether their session is up.
pub(crate) type Peers = BTreeMap<String, bool>;

impl Mitigator {
    /// Takes in what an actuator saw.
    pub fn observed(&mut self, observed: &Observed) {
        match observed {
            Observed::Peer(status) => {
                let known = self.peers.contains_key(&status.name);
                if known || self.peers.len() < PEERS_MAX {
                    let up = status.state == PeerState::Established;
                    self.peers.insert(status.name.clone(), up);
                }
            }
            Observed::Announced { peer, measure, at } => {
                let text = format!("{peer} has it: {measure}");
                self.on_wire(measure, peer, true, ("announced", text), *at);
                if !is_agent(peer) {
                    self.start_watch(measure, *at);
                    self.watch_manual(measure, Some(*at));
                }
            }
            Observed::Withdrawn { peer, measure, at } => {
                let text = format!("gone from {peer}: {measure}");
                self.on_wire(measure, peer, false, ("withdrawn", text), *at);
                if !is_agent(peer) {
                    self.pause_watch(measure, *at);
                }
            }
            Observed::Refused { peer, measure, at, why } => {
                let text = format!("{peer} refuses {measure}: {why}");
                self.on_wire(measure, peer, false, ("refused", text), *at);
                self.refused(measure, peer, why, *at);
            }
        }
    }

    /// Notes at every mitigation with this measure whether a peer has it.
    fn on_wire(
        &mut self,
        measure: &Measure,
        peer: &str,
        has: bool,
        (kind, text): (&str, String),
        now: Millis,
    ) {
        for m in self.manual.iter_mut().filter(|m| m.measure == *measure) {
            set_peer(m, peer, has);
        }
        for entry in self.entries.values_mut().filter(|e| may_concern(e, measure)) {
            let concerns = |m: &Mitigation| {
                m.measure == *measure
                    && (is_live(m) || m.peers.iter().any(|p| p == peer))
                    && m.state != MitigationState::Simulated
            };
            if !entry.incident.mitigations.iter().any(concerns) {
                continue;
            }
            let incident = Arc::make_mut(&mut entry.incident);
            for m in incident.mitigations.iter_mut().filter(|m| concerns(m)) {
                set_peer(m, peer, has);
                if m.is_in_force() {
                    incident.reached = incident.reached.max(Some(m.rung));
                }
            }
            self.ledger.note(&mut entry.incident, kind, text.clone(), now);
        }
    }

    /// From now on the traffic shows what the youngest measures do.
    fn start_watch(&mut self, measure: &Measure, at: Millis) {
        self.watches(measure, |watch| {
            if watch.on_wire.is_none_or(|since| since > at) {
                watch.on_wire = Some(at);
            }
        });
    }

    /// A peer has lost what is still wanted.
    fn pause_watch(&mut self, measure: &Measure, at: Millis) {
        self.watches(measure, |watch| watch.on_wire = watch.on_wire.map(|_| at + GONE_MS));
    }

    /// Every watch over this measure.
    fn watches(&mut self, measure: &Measure, change: impl Fn(&mut Watch)) {
        for entry in self.entries.values_mut().filter(|e| may_concern(e, measure)) {
            let Some(watch) = entry.watch else { continue };
            let is_it = entry.live().any(|m| {
                m.measure == *measure && m.state == MitigationState::Active && m.since >= watch.from
            });
            if let Some(watch) = entry.watch.as_mut().filter(|_| is_it) {
                change(watch);
            }
        }
    }

    /// A measure that no peer takes is not in force anywhere: give it up, so that the next
    /// verdict chooses the next best.
    fn refused(&mut self, measure: &Measure, peer: &str, why: &str, now: Millis) {
        let ids: Vec<IncidentId> = self
            .entries
            .values()
            .filter(|e| may_concern(e, measure))
            .filter(|e| {
                e.live().any(|m| m.measure == *measure && m.state == MitigationState::Active)
            })
            .map(|e| e.incident.id)
            .collect();
        for id in ids {
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            let refusers = entry.refusers.entry(measure.clone()).or_default();
            refusers.insert(peer.to_owned());
            let number = refusers.len();
            let refused = |name: &String| refusers.contains(name);
            let all_refuse = match measure {
                Measure::Scrub(_) => number >= self.config.scrubbers.len(),
                _ => self.peers.iter().all(|(name, up)| !up || refused(name)),
            };
            let nobody = all_refuse
                && entry.live().filter(|m| m.measure == *measure).all(|m| m.peers.is_empty());
            if nobody {
                self.give_up(&mut entry, measure, why, now);
            }
            self.entries.insert(id, entry);
        }
    }

    fn give_up(&mut self, entry: &mut Entry, measure: &Measure, why: &str, now: Millis) {
        entry.banned.insert(route(measure));
        entry.refusers.remove(measure);
        let is_it = |m: &Mitigation| m.measure == *measure;
        let note = format!("no peer takes it: {why}");
        self.end(entry, is_it, MitigationState::Refused, &note, now);
    }
}

/// Whether a measure can be one of this incident's: they all lie inside its target. With ten
/// thousand rules, each report would otherwise look at all of them.
fn may_concern(entry: &Entry, measure: &Measure) -> bool {
    entry.incident.verdict.target.contains(&measure.target())
}

/// A node drops what routers have let through and reported: their exports do not show what it does, so nothing
/// is concluded from them. A black hole because a node's rule "has no effect" would finish the attack.
fn is_agent(peer: &str) -> bool {
    peer.starts_with(AGENT_PEER)
}

fn set_peer(m: &mut Mitigation, peer: &str, has: bool) {
    match m.peers.binary_search_by(|p| p.as_str().cmp(peer)) {
        Ok(at) if !has => drop(m.peers.remove(at)),
        Err(at) if has && m.peers.len() < PEERS_MAX => m.peers.insert(at, peer.to_owned()),
        _ => {}
    }
}
