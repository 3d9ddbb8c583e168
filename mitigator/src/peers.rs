//! Who can have a measure, and who is only away.
//!
//! What a peer can be given at all is known beforehand, from the configuration and from what it
//! said of itself when its session last came up. Whether its session is up says nothing about what
//! it takes: a peer that is away has refused nothing, and gets what is wanted when it returns.

use std::collections::{BTreeMap, BTreeSet};

use weir_bgp::guard::route;
use weir_bgp::reach::{KnownPeer, Reach};
use weir_bgp::wire::{Families, Family};
use weir_model::{AGENT_PEER, Action, Measure, Millis, PeerStanding, PeerState, PeerStatus};

/// Peers remembered; more than any appliance has.
pub(crate) const PEERS_MAX: usize = 1024;

#[derive(Clone, Debug, Default)]
struct Peer {
    up: bool,
    /// Since when it is up or away; unknown before its first report.
    since: Millis,
    /// What the configuration says of it.
    reach: Option<Reach>,
    /// The families of its last session.
    spoken: Option<Families>,
    /// What was concluded about it, as it reports.
    standing: PeerStanding,
    /// Routes that it is not sent for now.
    banned: BTreeSet<Measure>,
}

impl Peer {
    fn carries(&self, measure: &Measure) -> Result<(), String> {
        let family = match &self.reach {
            Some(reach) => reach.route(measure)?.map(|key| key.family()),
            None => family_of(measure),
        };
        if !self.banned.is_empty() && self.banned.contains(&route(measure)) {
            return Err("not sent for now, because of how sessions ended".to_owned());
        }
        match (family, self.spoken) {
            (Some(family), Some(spoken)) if !spoken.contains(family) => {
                Err(format!("the peer does not speak {family}"))
            }
            _ => Ok(()),
        }
    }
}

/// Routers and daemons, by name; nodes and scrubbing services are not among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    known: BTreeMap<String, Peer>,
    /// Nodes with an agent take rules, too, whatever routers can do.
    nodes: bool,
}

impl Peers {
    /// Takes the configured ones in; what those that stay have reported still counts. Names those that can be
    /// given something else than before, and those that are gone.
    pub(crate) fn configure(&mut self, peers: Vec<KnownPeer>, nodes: bool) -> BTreeSet<String> {
        self.nodes = nodes;
        let mut before = std::mem::take(&mut self.known);
        let mut others = BTreeSet::new();
        for KnownPeer { name, reach } in peers.into_iter().take(PEERS_MAX) {
            let mut peer = before.remove(&name).unwrap_or_default();
            if peer.reach.replace(reach) != peer.reach {
                others.insert(name.clone());
            }
            self.known.insert(name, peer);
        }
        others.extend(before.into_keys());
        others
    }

    /// What was concluded about peers, where it is anything.
    pub(crate) fn standings(&self) -> BTreeMap<String, PeerStanding> {
        let doubted = self.known.iter().filter(|(_, peer)| !peer.standing.is_clear());
        doubted.map(|(name, peer)| (name.clone(), peer.standing.clone())).collect()
    }

    /// Takes back what an earlier run concluded about the configured peers, until they report.
    pub(crate) fn restore(&mut self, standings: &BTreeMap<String, PeerStanding>) {
        for (name, standing) in standings {
            if let Some(peer) = self.known.get_mut(name) {
                peer.conclude(standing);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.known.len()
    }

    /// A peer reports its state.
    pub(crate) fn heard(&mut self, status: &PeerStatus) {
        if self.known.len() >= PEERS_MAX && !self.known.contains_key(&status.name) {
            return;
        }
        let peer = self.known.entry(status.name.clone()).or_default();
        peer.up = status.state == PeerState::Established;
        peer.conclude(&status.standing);
        peer.since = status.since;
        if peer.up {
            let spoken: Families =
                status.families.iter().filter_map(|f| Family::named(f)).collect();
            peer.spoken = (!spoken.is_empty()).then_some(spoken);
        }
    }

    /// Rules that the roomiest router holds; `None` where no router takes any, and where nodes take rules, too: of
    /// these nothing is left out. A router with less room leaves out by itself what is worth least.
    pub(crate) fn rules_room(&self) -> Option<usize> {
        let rooms = self.known.values().filter_map(Peer::rules_room);
        rooms.max().filter(|room| *room > 0 && !self.nodes)
    }

    /// Whether anybody can have the measure, whoever is away.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) fn carry(&self, measure: &Measure) -> Result<(), String> {
        // A node cuts what comes to it, and sends nothing another way.
        let cuts = matches!(measure, Measure::FlowSpec(f)
            if !matches!(f.action, Action::Redirect(_) | Action::Mark { .. }));
        let unknown = self.known.values().all(|peer| peer.reach.is_none());
        if unknown || matches!(measure, Measure::Scrub(_)) || (self.nodes && cuts) {
            return Ok(());
        }
        let mut why = None;
        for (name, peer) in &self.known {
            match peer.carries(measure) {
                Ok(()) => return Ok(()),
                Err(reason) => drop(why.get_or_insert_with(|| format!("{name}: {reason}"))),
            }
        }
        match family_of(measure) {
            Some(family) if self.known.values().all(|peer| !peer.offers(family)) => {
                Err(format!("no peer carries {family}"))
            }
            _ => Err(format!("no peer takes it; {}", why.unwrap_or_default())),
        }
    }

    /// Whether somebody who can have a rule cannot have the black hole: what comes in there, the rule has to go
    /// on cutting.
    pub(crate) fn parts(&self, rule: &Measure, hole: &Measure) -> bool {
        let split = |peer: &Peer| {
            peer.reach.is_some() && peer.carries(rule).is_ok() && peer.carries(hole).is_err()
        };
        self.known.values().any(split)
    }

    /// Peers that can have the measure and neither have it nor said no, by `has` and `refused`. One
    /// that is away is waited for until `patience_ms` have passed since it left or since the
    /// measure was decided at `from`, whichever is later.
    pub(crate) fn awaited<'a>(
        &'a self,
        measure: &'a Measure,
        from: Millis,
        patience_ms: Option<u64>,
        now: Millis,
        settled: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let routers = !matches!(measure, Measure::Scrub(_));
        self.known
            .iter()
            .filter(move |(name, _)| routers && !settled(name))
            .filter(move |(_, peer)| {
                let waited = now.since(from.max(peer.since));
                peer.up || patience_ms.is_none_or(|patience| waited < patience)
            })
            .filter(|(_, peer)| peer.carries(measure).is_ok())
            .map(|(name, _)| name.as_str())
    }
}

impl Peer {
    fn conclude(&mut self, standing: &PeerStanding) {
        if self.standing != *standing {
            self.standing = standing.clone();
            self.banned = standing.banned.iter().map(|doubt| route(&doubt.measure)).collect();
        }
    }

    /// Rules that it holds, by its configuration and by what it said; `None` where it takes none.
    fn rules_room(&self) -> Option<usize> {
        let reach = self.reach.as_ref()?;
        let families = [Family::Ipv4FlowSpec, Family::Ipv6FlowSpec];
        let learned = families.into_iter().filter(|family| self.offers(*family)).map(|family| {
            let limits = self.standing.limits.iter().filter(|l| l.family == family.id());
            let routes = limits.map(|l| usize::try_from(l.routes).unwrap_or(usize::MAX)).min();
            routes.unwrap_or(usize::MAX)
        });
        let learned = learned.reduce(usize::saturating_add)?;
        Some(learned.min(reach.capabilities.max_rules))
    }

    fn offers(&self, family: Family) -> bool {
        self.reach.as_ref().is_none_or(|reach| reach.families.contains(family))
            && self.spoken.is_none_or(|spoken| spoken.contains(family))
    }
}

/// The family that carries a measure; `None` for those that BGP does not carry.
const fn family_of(measure: &Measure) -> Option<Family> {
    use weir_model::IpNet::{V4, V6};
    Some(match measure {
        Measure::Blackhole(V4(_)) | Measure::Divert(V4(_)) => Family::Ipv4Unicast,
        Measure::Blackhole(V6(_)) | Measure::Divert(V6(_)) => Family::Ipv6Unicast,
        Measure::FlowSpec(filter) => match filter.packets.dst {
            V4(_) => Family::Ipv4FlowSpec,
            V6(_) => Family::Ipv6FlowSpec,
        },
        Measure::Scrub(_) => return None,
    })
}

/// A node drops what routers have let through and reported: their exports do not show what it does, so nothing
/// is concluded from them. A black hole because a node's rule "has no effect" would finish the attack.
pub(crate) fn is_agent(peer: &str) -> bool {
    peer.starts_with(AGENT_PEER)
}
