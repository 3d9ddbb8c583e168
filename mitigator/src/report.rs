//! What actuators report back.

use std::sync::Arc;

use weir_bgp::guard::route;
use weir_bgp::rib::is_no_room;
use weir_model::{IncidentId, Measure, Millis, Mitigation, MitigationState, Observed};

use crate::Mitigator;
use crate::entry::Entry;
use crate::feedback::Watch;
use crate::ledger::is_live;
use crate::peers::{PEERS_MAX, is_agent};

impl Mitigator {
    /// Takes in what an actuator saw.
    pub fn observed(&mut self, observed: &Observed) {
        match observed {
            Observed::Peer(status) => self.peers.heard(status),
            Observed::Announced { peer, measure, at } => {
                for rule in self.budget.heard(measure, peer, true) {
                    let text = format!("{peer} has it: {rule}{}", within(&rule, measure));
                    self.on_wire(&rule, peer, true, ("announced", text), *at);
                    self.accepted(&rule, peer);
                    if !is_agent(peer) {
                        self.start_watch(&rule, *at);
                        self.watch_manual(&rule, Some(*at));
                    }
                }
            }
            Observed::Withdrawn { peer, measure, at } => {
                for rule in self.budget.heard(measure, peer, false) {
                    let text = format!("gone from {peer}: {rule}{}", within(&rule, measure));
                    self.on_wire(&rule, peer, false, ("withdrawn", text), *at);
                    if !is_agent(peer) {
                        self.pause_watch(&rule);
                    }
                }
            }
            Observed::Refused { peer, measure, at, why } => {
                for rule in self.budget.heard(measure, peer, false) {
                    let text = format!("{peer} refuses {rule}{}: {why}", within(&rule, measure));
                    self.on_wire(&rule, peer, false, ("refused", text), *at);
                }
                if self.budget.refused(measure) {
                    self.ledger.dirty = true;
                } else {
                    self.refused(measure, peer, why, *at);
                }
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

    /// A peer has lost what is still wanted. Once no router has it, the traffic shows nothing of it.
    fn pause_watch(&mut self, measure: &Measure) {
        for entry in self.entries.values_mut().filter(|e| may_concern(e, measure)) {
            let kept = entry
                .live()
                .any(|m| m.measure == *measure && m.peers.iter().any(|peer| !is_agent(peer)));
            if let Some(watch) = entry.watched(measure).filter(|_| !kept) {
                watch.on_wire = None;
            }
        }
    }

    /// Every watch over this measure.
    fn watches(&mut self, measure: &Measure, change: impl Fn(&mut Watch)) {
        for entry in self.entries.values_mut().filter(|e| may_concern(e, measure)) {
            if let Some(watch) = entry.watched(measure) {
                change(watch);
            }
        }
    }

    /// A peer that has the measure has not refused it, whatever it said before.
    fn accepted(&mut self, measure: &Measure, peer: &str) {
        for entry in self.entries.values_mut().filter(|e| may_concern(e, measure)) {
            if let Some(refusers) = entry.refusers.get_mut(measure) {
                refusers.remove(peer);
            }
        }
    }

    /// A peer said no. A measure that every peer that could have it has refused is given up, so
    /// that the next verdict chooses the next best.
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
            refusers.insert(peer.to_owned(), why.to_owned());
            self.weigh_refusals(&mut entry, measure, now);
            self.entries.insert(id, entry);
        }
    }

    /// Gives a measure up once nobody is left who could take it. Who is away is waited for.
    fn weigh_refusals(&mut self, entry: &mut Entry, measure: &Measure, now: Millis) {
        let Some(refusers) = entry.refusers.get(measure) else { return };
        let Some(why) = refusers.values().next_back().cloned() else { return };
        let is_it = |m: &&Mitigation| m.measure == *measure;
        if entry.live().filter(is_it).any(|m| !m.peers.is_empty()) {
            return;
        }
        let nobody = match measure {
            Measure::Scrub(_) => {
                self.config.scrubbers.iter().all(|own| refusers.contains_key(&own.peer()))
            }
            _ => {
                let from = entry.live().filter(is_it).map(|m| m.since).max().unwrap_or(now);
                self.awaited(entry, measure, from, now).next().is_none()
            }
        };
        // A rule for which there is no room is not a rule that does nothing: the ladder goes on only
        // where rules are of no use, and what is full may be empty soon.
        let full =
            matches!(measure, Measure::FlowSpec(_)) && refusers.values().any(|why| is_no_room(why));
        if nobody && !full {
            self.give_up(entry, measure, &why, now);
        }
    }

    /// Looks again at what some have refused: who was waited for may have been waited for long
    /// enough.
    pub(crate) fn weigh_all_refusals(&mut self, entry: &mut Entry, now: Millis) {
        if self.config.peer_wait_secs.is_none() || entry.refusers.is_empty() {
            return;
        }
        let measures: Vec<Measure> = entry.refusers.keys().cloned().collect();
        for measure in measures {
            self.weigh_refusals(entry, &measure, now);
        }
    }

    /// Peers that could have a measure of this incident and neither have it nor refused it.
    fn awaited<'a>(
        &'a self,
        entry: &'a Entry,
        measure: &'a Measure,
        from: Millis,
        now: Millis,
    ) -> impl Iterator<Item = &'a str> {
        let patience = self.config.peer_wait_secs.map(|secs| secs.saturating_mul(1000));
        self.peers.awaited(measure, from, patience, now, move |peer| {
            let refused = entry.refusers.get(measure).is_some_and(|r| r.contains_key(peer));
            let has = |m: &Mitigation| m.measure == *measure && m.peers.iter().any(|p| p == peer);
            refused || entry.live().any(has)
        })
    }

    /// The first peer that is still to get one of the youngest measures: until it has it, what the
    /// traffic does proves nothing against them.
    pub(crate) fn missing(&self, entry: &Entry, from: Millis, now: Millis) -> Option<String> {
        let young = |m: &&Mitigation| m.state == MitigationState::Active && m.since >= from;
        entry
            .live()
            .filter(young)
            .find_map(|m| self.awaited(entry, &m.measure, m.since, now).next().map(str::to_owned))
    }

    fn give_up(&mut self, entry: &mut Entry, measure: &Measure, why: &str, now: Millis) {
        entry.banned.insert(route(measure));
        entry.refusers.remove(measure);
        let is_it = |m: &Mitigation| m.measure == *measure;
        let note = format!("no peer takes it: {why}");
        self.end(entry, is_it, MitigationState::Refused, &note, now);
    }
}

/// Which entry stands for a rule, where it is another.
fn within(rule: &Measure, entry: &Measure) -> String {
    if rule == entry { String::new() } else { format!(" (as part of {entry})") }
}

/// Whether a measure can be one of this incident's: they lie inside its target, or, diversions, around it.
/// With ten thousand rules, each report would otherwise look at all of them.
fn may_concern(entry: &Entry, measure: &Measure) -> bool {
    let (target, net) = (entry.incident.verdict.target, measure.target());
    target.contains(&net) || matches!(measure, Measure::Divert(_)) && net.contains(&target)
}

fn set_peer(m: &mut Mitigation, peer: &str, has: bool) {
    match m.peers.binary_search_by(|p| p.as_str().cmp(peer)) {
        Ok(at) if !has => drop(m.peers.remove(at)),
        Err(at) if has && m.peers.len() < PEERS_MAX => m.peers.insert(at, peer.to_owned()),
        _ => {}
    }
}
