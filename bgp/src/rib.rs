//! What a peer is to have and what it has (Adj-RIB-Out), and the changes between the two.
//!
//! Pure: the desired state in, one change at a time out, as fast as the session takes them. A rule
//! that changes twice before it is written is written once. Announcements go before withdrawals,
//! so that a measure that replaces another leaves no gap; only a full peer is relieved first.

mod trial;

use std::collections::{BTreeMap, BTreeSet};

use weir_model::{Action, IpNet, Measure, Millis, Mitigation, Originator, Redirect};

pub use trial::Blame;

use crate::flowspec::{self, Afi};
use crate::profile::Capabilities;
use crate::wire::{Families, Family};
use trial::Trials;

/// What tells one route from another on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKey {
    /// A black-hole route.
    Unicast(IpNet),
    /// A FlowSpec rule by its NLRI, with its length.
    Flow(Afi, Vec<u8>),
}

impl RouteKey {
    /// The family that carries it.
    pub const fn family(&self) -> Family {
        match self {
            Self::Unicast(IpNet::V4(_)) => Family::Ipv4Unicast,
            Self::Unicast(IpNet::V6(_)) => Family::Ipv6Unicast,
            Self::Flow(afi, _) => Family::flowspec(*afi),
        }
    }

    /// The key of a measure; `None` for those that BGP does not carry.
    ///
    /// # Errors
    /// When FlowSpec cannot say it.
    pub fn of(measure: &Measure) -> Result<Option<Self>, flowspec::EncodeError> {
        Ok(match measure {
            Measure::Blackhole(net) => Some(Self::Unicast(net.trunc())),
            Measure::FlowSpec(filter) => {
                let afi = match filter.packets.dst {
                    IpNet::V4(_) => Afi::Ipv4,
                    IpNet::V6(_) => Afi::Ipv6,
                };
                Some(Self::Flow(afi, flowspec::encode(&filter.packets)?))
            }
            Measure::Scrub(_) => None,
        })
    }
}

/// A route's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it puts in force.
    pub measure: Measure,
    /// Low 32 bits of the incident's number, 0 for an operator's.
    pub incident: u32,
}

/// What is to be written next.
#[expect(clippy::large_enum_variant, reason = "made and consumed at once, never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Announce, or announce with other content.
    Announce {
        /// Which.
        key: RouteKey,
        /// What.
        route: Route,
        /// The measure that this one takes the place of.
        replaces: Option<Measure>,
    },
    /// Withdraw.
    Withdraw {
        /// Which.
        key: RouteKey,
        /// What it was.
        route: Route,
    },
    /// Everything of the family has been written.
    EndOfRib(Family),
}

/// A measure that the peer does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub measure: Measure,
    /// Why, for people.
    pub why: String,
}

/// What the end of a session means for the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What was on the wire and is gone with the session.
    pub gone: Vec<Measure>,
    /// What the peer does not get again, because it ended the session over it.
    pub banned: Vec<Refusal>,
}

/// Said of a banned route.
const BANNED: &str = "the peer ended the session over this route; it is not sent again for a day";

/// One peer's routes.
#[derive(Debug)]
pub struct AdjRibOut {
    families: Families,
    capabilities: Capabilities,
    loaded: bool,
    /// The desired measures that BGP carries, sorted: what the next desired state is compared
    /// with, so that only what changed is encoded.
    measures: BTreeMap<Measure, Wanted>,
    wanted: BTreeMap<RouteKey, Vec<Measure>>,
    sent: BTreeMap<RouteKey, Route>,
    flows_sent: usize,
    announce: BTreeSet<RouteKey>,
    withdraw: BTreeSet<RouteKey>,
    session: Option<Families>,
    end_of_rib: Families,
    trials: Trials,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    incident: u32,
    key: Option<RouteKey>,
}

impl AdjRibOut {
    /// An empty table for a peer that is offered `families` and takes what `capabilities` say.
    pub const fn new(families: Families, capabilities: Capabilities) -> Self {
        Self {
            families,
            capabilities,
            loaded: false,
            measures: BTreeMap::new(),
            wanted: BTreeMap::new(),
            sent: BTreeMap::new(),
            flows_sent: 0,
            announce: BTreeSet::new(),
            withdraw: BTreeSet::new(),
            session: None,
            end_of_rib: Families::ALL,
            trials: Trials::new(),
        }
    }

    /// Takes the desired state, sorted by measure without duplicates. Returns what is newly
    /// wanted and cannot be had.
    pub fn want(&mut self, mitigations: &[Mitigation]) -> Vec<Refusal> {
        self.loaded = true;
        let mut refusals = Vec::new();
        let mut gone: Vec<Measure> = Vec::new();
        let mut next = mitigations.iter().map(|m| &m.measure).peekable();
        for old in self.measures.keys() {
            while next.next_if(|m| *m < old).is_some() {}
            if next.next_if(|m| *m == old).is_none() {
                gone.push(old.clone());
            }
        }
        for measure in gone {
            self.unwant(&measure);
        }
        for mitigation in mitigations {
            let incident = incident_mark(&mitigation.originator);
            match self.measures.get_mut(&mitigation.measure) {
                Some(known) if known.incident == incident => {}
                Some(known) => {
                    known.incident = incident;
                    if let Some(key) = known.key.clone() {
                        self.compare(&key);
                    }
                }
                None => refusals.extend(self.add(&mitigation.measure, incident)),
            }
        }
        refusals
    }

    fn add(&mut self, measure: &Measure, incident: u32) -> Option<Refusal> {
        let refuse = |why: String| Some(Refusal { measure: measure.clone(), why });
        let unsupported = match measure {
            Measure::FlowSpec(filter) => self.capabilities.check(filter).err(),
            Measure::Blackhole(_) | Measure::Scrub(_) => None,
        };
        let (key, refusal) = match RouteKey::of(measure) {
            Err(error) => (None, refuse(error.to_string())),
            Ok(_) if let Some(error) = unsupported => (None, refuse(format!("the peer {error}"))),
            Ok(None) => (None, None),
            Ok(Some(key)) => {
                let family = key.family();
                if !self.families.contains(family) {
                    (None, refuse(format!("family {family} is not configured for this peer")))
                } else if self.session.is_some_and(|s| !s.contains(family)) {
                    (Some(key), refuse(format!("the peer does not speak {family}")))
                } else if self.trials.is_banned(&key) {
                    (Some(key), refuse(BANNED.to_owned()))
                } else if self.is_full_for(&key) {
                    // It stays wanted, and is announced when there is room.
                    let why =
                        format!("the peer holds {} rules at most", self.capabilities.max_rules);
                    (Some(key), refuse(why))
                } else {
                    (Some(key), None)
                }
            }
        };
        self.measures.insert(measure.clone(), Wanted { incident, key: key.clone() });
        if let Some(key) = key {
            let same = self.wanted.entry(key.clone()).or_default();
            same.push(measure.clone());
            same.sort_by_key(strictness);
            self.compare(&key);
        }
        refusal
    }

    fn is_full_for(&self, key: &RouteKey) -> bool {
        let is_flow = |k: &RouteKey| matches!(k, RouteKey::Flow(..));
        is_flow(key)
            && !self.wanted.contains_key(key)
            && self.wanted.len() >= self.capabilities.max_rules
            && self.wanted.keys().filter(|k| is_flow(k)).count() >= self.capabilities.max_rules
    }

    fn unwant(&mut self, measure: &Measure) {
        let Some(Wanted { key: Some(key), .. }) = self.measures.remove(measure) else { return };
        if let Some(same) = self.wanted.get_mut(&key) {
            same.retain(|m| m != measure);
            if same.is_empty() {
                self.wanted.remove(&key);
                self.trials.forget(&key);
            }
        }
        self.compare(&key);
    }

    /// The route wanted under a key. Of two measures for the same packets, which overlap while
    /// one takes the other's place, the stricter one.
    fn route(&self, key: &RouteKey) -> Option<Route> {
        let measure = self.wanted.get(key)?.first().filter(|_| !self.trials.is_banned(key))?;
        let incident = self.measures.get(measure).map_or(0, |w| w.incident);
        Some(Route { measure: measure.clone(), incident })
    }

    /// Everything wanted, whatever the session: for daemons that are told the whole.
    pub fn routes(&self) -> impl Iterator<Item = (RouteKey, Route)> + '_ {
        self.wanted
            .keys()
            .filter_map(|key| Some((key.clone(), self.route(key)?)))
            .take(self.capabilities.max_rules)
    }

    /// Puts a key where it belongs: to be announced, to be withdrawn, or neither.
    fn compare(&mut self, key: &RouteKey) {
        self.announce.remove(key);
        self.withdraw.remove(key);
        if !self.session.is_some_and(|s| s.contains(key.family())) {
            return;
        }
        match (self.route(key), self.sent.get(key)) {
            (Some(route), sent) if sent != Some(&route) => {
                self.announce.insert(key.clone());
            }
            (None, Some(_)) => {
                self.withdraw.insert(key.clone());
            }
            _ => {}
        }
    }

    /// The session is up with these families: everything is to be written. Returns what the peer
    /// does not speak.
    pub fn up(&mut self, families: Families) -> Vec<Refusal> {
        self.reset();
        self.session = Some(families);
        self.end_of_rib = families;
        let mut refusals = Vec::new();
        for (key, measures) in &self.wanted {
            let family = key.family();
            if !families.contains(family) {
                refusals.extend(measures.iter().map(|measure| Refusal {
                    measure: measure.clone(),
                    why: format!("the peer does not speak {family}"),
                }));
            } else if !self.trials.is_banned(key) {
                self.announce.insert(key.clone());
            }
        }
        refusals
    }

    /// The session is gone, and with it what was written. `data` is what came with the peer's
    /// NOTIFICATION.
    pub fn down(&mut self, now: Millis, blame: Blame, data: &[u8]) -> Ended {
        let gone = self.reset();
        let banned = self.trials.down(now, blame, data).into_iter().flat_map(|key| {
            let measures = self.wanted.get(&key).cloned().unwrap_or_default();
            measures.into_iter().map(|measure| Refusal { measure, why: BANNED.to_owned() })
        });
        Ended { gone, banned: banned.collect() }
    }

    fn reset(&mut self) -> Vec<Measure> {
        self.session = None;
        self.announce.clear();
        self.withdraw.clear();
        self.flows_sent = 0;
        std::mem::take(&mut self.sent).into_values().map(|r| r.measure).collect()
    }

    /// Everything written has left weir, and the session lives: what is old enough is proven.
    pub fn prove(&mut self, now: Millis) {
        self.trials.prove(now);
        if self.announce.is_empty() {
            self.trials.acquit();
        }
    }

    /// When to call [`Self::prove`] again, while routes wait for that.
    pub fn deadline(&self) -> Option<Millis> {
        self.session?;
        if self.announce.is_empty() { None } else { self.trials.deadline() }
    }

    /// The peer wants a family once more (RFC 2918).
    pub fn refresh(&mut self, family: Family) {
        let again =
            self.sent.keys().filter(|k| k.family() == family && self.wanted.contains_key(k));
        self.announce.extend(again.cloned());
        if self.session.is_some_and(|s| s.contains(family)) {
            self.end_of_rib.insert(family);
        }
    }

    /// Gives up everything, to be withdrawn.
    pub fn clear(&mut self) {
        self.measures.clear();
        self.wanted.clear();
        self.announce.clear();
        self.withdraw = self.sent.keys().cloned().collect();
    }

    /// The next change, taken as written.
    pub fn next_change(&mut self, now: Millis) -> Option<Change> {
        self.session?;
        let full = self.flows_sent >= self.capabilities.max_rules;
        if (full || self.announce.is_empty())
            && let Some(key) = self.withdraw.pop_first()
            && let Some(route) = self.sent.remove(&key)
        {
            self.flows_sent -= usize::from(matches!(key, RouteKey::Flow(..)));
            return Some(Change::Withdraw { key, route });
        }
        if let Some(change) = self.next_announcement(now) {
            return Some(change);
        }
        if !self.loaded {
            return None;
        }
        let family = self.end_of_rib.iter().next()?;
        self.end_of_rib.remove(family);
        Some(Change::EndOfRib(family))
    }

    /// The first route to announce; one that would be a rule too many stays where it is.
    fn next_announcement(&mut self, now: Millis) -> Option<Change> {
        let key = self.announce.iter().find(|k| self.fits(k))?.clone();
        self.announce.remove(&key);
        let route = self.route(&key)?;
        self.trials.wrote(now, &key, &route.measure);
        let before = self.sent.insert(key.clone(), route.clone());
        if before.is_none() && matches!(key, RouteKey::Flow(..)) {
            self.flows_sent += 1;
        }
        let replaces = before.map(|r| r.measure).filter(|m| *m != route.measure);
        Some(Change::Announce { key, route, replaces })
    }

    /// Whether a route may be written now: there is room for it, and it is not to wait until
    /// those before it are proven.
    fn fits(&self, key: &RouteKey) -> bool {
        let room = matches!(key, RouteKey::Unicast(_))
            || self.flows_sent < self.capabilities.max_rules
            || self.sent.contains_key(key);
        let measure = self.wanted.get(key).and_then(|list| list.first());
        room && measure.is_some_and(|m| self.trials.may_write(key, m))
    }

    /// Whether there is anything that the peer is to have.
    pub fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Routes on the wire.
    pub fn announced(&self) -> usize {
        self.sent.len()
    }

    /// Whether nothing is left that can be written.
    pub fn is_settled(&self) -> bool {
        self.withdraw.is_empty() && !self.announce.iter().any(|k| self.fits(k))
    }
}

/// Low 32 bits of the incident's number.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
const fn incident_mark(originator: &Originator) -> u32 {
    match originator {
        Originator::Incident(id) => id.0 as u32,
        Originator::Operator(_) => 0,
    }
}

/// Smaller is stricter: drop, then the lower limits, then diversions.
const fn strictness(measure: &Measure) -> (u8, u64) {
    match measure {
        Measure::FlowSpec(filter) => match filter.action {
            Action::Drop => (0, 0),
            Action::RateLimit { bytes_per_sec } => (1, bytes_per_sec),
            Action::RateLimitPackets { packets_per_sec } => (2, packets_per_sec),
            Action::Redirect(Redirect::RouteTarget { .. }) => (3, 0),
            Action::Redirect(Redirect::NextHop(_)) => (3, 1),
        },
        Measure::Blackhole(_) | Measure::Scrub(_) => (0, 0),
    }
}

#[cfg(test)]
mod tests;
