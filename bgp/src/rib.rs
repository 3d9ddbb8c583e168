//! What a peer is to have and what it has (Adj-RIB-Out), and the changes between the two.
//!
//! Pure: the desired state in, one change at a time out, as fast as the session takes them. A rule
//! that changes twice before it is written is written once. Announcements go before withdrawals,
//! so that a measure that replaces another leaves no gap; only a full peer is relieved first.
//! What the peer has no room for, by its profile or by what it said itself, is what is worth least.

mod limit;
mod trial;

use std::collections::{BTreeMap, BTreeSet};

use weir_model::{Action, IpNet, Measure, Millis, Mitigation, Originator, Redirect};

pub use limit::Limit;
pub use trial::{Blame, Sentence};

use crate::flowspec::{self, Afi};
use crate::reach::Reach;
use crate::wire::{Families, Family};
use limit::Limits;
use trial::{Class, Trials};

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
    /// What the peer does not get for some time, because of how sessions ended.
    pub banned: Vec<Refusal>,
    /// What it has no room for, as it said.
    pub left_out: Vec<Refusal>,
    /// Why the session ended is known, and will not end the next one.
    pub understood: bool,
}

/// What was concluded of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What it puts in force; the last form of it that was wanted.
    pub measure: Measure,
    /// Why, since when, until when.
    pub sentence: Sentence,
}

/// What was concluded about a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Routes tried apart or held back.
    pub suspected: Vec<Doubt>,
    /// Routes not sent.
    pub banned: Vec<Doubt>,
    /// Limits that it stated or showed.
    pub limits: Vec<Limit>,
}

/// One peer's routes.
#[derive(Debug)]
pub struct AdjRibOut {
    reach: Reach,
    loaded: bool,
    /// The desired measures that BGP carries, sorted: what the next desired state is compared
    /// with, so that only what changed is encoded.
    measures: BTreeMap<Measure, Wanted>,
    wanted: BTreeMap<RouteKey, Vec<Measure>>,
    sent: BTreeMap<RouteKey, Route>,
    /// Routes on the wire by family.
    sent_of: [usize; 4],
    /// To be announced, by class.
    announce: [BTreeSet<RouteKey>; 3],
    withdraw: BTreeSet<RouteKey>,
    session: Option<Families>,
    end_of_rib: Families,
    trials: Trials,
    limits: Limits,
    /// What there is no room for, and why.
    left_out: BTreeMap<RouteKey, String>,
    /// Whether what is wanted or allowed has changed since there was room for it all.
    crowded: bool,
    /// Measures of routes with a ban, which may no longer be wanted.
    doubted: BTreeMap<RouteKey, Measure>,
    /// Rises with whatever may change what is kept back or concluded.
    version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    incident: u32,
    key: Option<RouteKey>,
    worth: Worth,
    /// Why the peer can never have it.
    unsupported: Option<String>,
}

/// What a route is worth where there is no room for all: an operator's before an incident's, what
/// cuts more before what cuts less, older before younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    by_hand: bool,
    bits_per_sec: u64,
    since: std::cmp::Reverse<Millis>,
}

impl Worth {
    const fn of(m: &Mitigation) -> Self {
        Self {
            by_hand: matches!(m.originator, Originator::Operator(_)),
            bits_per_sec: m.worth,
            since: std::cmp::Reverse(m.since),
        }
    }
}

impl AdjRibOut {
    /// An empty table for a peer that can be given what `reach` says.
    pub const fn new(reach: Reach) -> Self {
        Self {
            reach,
            loaded: false,
            measures: BTreeMap::new(),
            wanted: BTreeMap::new(),
            sent: BTreeMap::new(),
            sent_of: [0; 4],
            announce: [const { BTreeSet::new() }; 3],
            withdraw: BTreeSet::new(),
            session: None,
            end_of_rib: Families::ALL,
            trials: Trials::new(),
            limits: Limits::new(),
            left_out: BTreeMap::new(),
            crowded: false,
            doubted: BTreeMap::new(),
            version: 0,
        }
    }

    /// Takes the desired state, sorted by measure without duplicates. Returns what is newly
    /// wanted and cannot be had.
    pub fn want(&mut self, mitigations: &[Mitigation]) -> Vec<Refusal> {
        self.loaded = true;
        self.version += 1;
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
            let worth = Worth::of(mitigation);
            match self.measures.get_mut(&mitigation.measure) {
                Some(known) if known.incident == incident && known.worth == worth => {}
                Some(known) => {
                    (known.incident, known.worth) = (incident, worth);
                    self.crowded |= !self.left_out.is_empty();
                    if let Some(key) = known.key.clone() {
                        self.compare(&key);
                    }
                }
                None => refusals.extend(self.add(mitigation)),
            }
        }
        refusals.extend(self.make_room());
        refusals
    }

    fn add(&mut self, mitigation: &Mitigation) -> Option<Refusal> {
        let measure = &mitigation.measure;
        let refuse = |why: String| Some(Refusal { measure: measure.clone(), why });
        let route = self.reach.route(measure);
        let unsupported = route.as_ref().err().cloned();
        let (key, refusal) = match route {
            Err(why) => (None, refuse(why)),
            Ok(None) => (None, None),
            Ok(Some(key)) => {
                let family = key.family();
                let refusal = if self.session.is_some_and(|s| !s.contains(family)) {
                    refuse(format!("the peer does not speak {family}"))
                } else if self.trials.is_banned(&key) {
                    refuse(self.why_banned(&key))
                } else {
                    None
                };
                (Some(key), refusal)
            }
        };
        let incident = incident_mark(&mitigation.originator);
        let worth = Worth::of(mitigation);
        let wanted = Wanted { incident, key: key.clone(), worth, unsupported };
        self.measures.insert(measure.clone(), wanted);
        if let Some(key) = key {
            let same = self.wanted.entry(key.clone()).or_default();
            same.push(measure.clone());
            same.sort_by_key(strictness);
            self.crowded = true;
            self.compare(&key);
        }
        refusal
    }

    fn why_banned(&self, key: &RouteKey) -> String {
        let ban = self.trials.banned().find(|(banned, _)| *banned == key);
        ban.map_or_else(String::new, |(_, sentence)| format!("not sent for now: {}", sentence.why))
    }

    fn unwant(&mut self, measure: &Measure) {
        let Some(Wanted { key: Some(key), .. }) = self.measures.remove(measure) else { return };
        if let Some(same) = self.wanted.get_mut(&key) {
            same.retain(|m| m != measure);
            if same.is_empty() {
                self.wanted.remove(&key);
                self.trials.forget(&key);
                self.crowded |= !self.left_out.is_empty();
                self.left_out.remove(&key);
            }
        }
        self.compare(&key);
    }

    /// Leaves out what is worth least where there is no room for all. Returns what is newly left
    /// out.
    fn make_room(&mut self) -> Vec<Refusal> {
        if !std::mem::take(&mut self.crowded) {
            return Vec::new();
        }
        let mut left_out = BTreeMap::new();
        for family in Family::ALL {
            let allowed = self.limits.allowed(family);
            if allowed < usize::MAX {
                let why = format!("the peer takes {allowed} routes of {family} at most");
                self.rank(|key| key.family() == family, allowed, &why, &mut left_out);
            }
        }
        let rules = self.reach.capabilities.max_rules;
        let why = format!("the peer holds {rules} rules at most");
        self.rank(|key| matches!(key, RouteKey::Flow(..)), rules, &why, &mut left_out);
        let before = std::mem::replace(&mut self.left_out, left_out);
        let mut refusals = Vec::new();
        let now_out = self.left_out.keys().filter(|key| !before.contains_key(key));
        let again = before.keys().filter(|key| !self.left_out.contains_key(key));
        let changed: Vec<RouteKey> = now_out.clone().chain(again).cloned().collect();
        for key in now_out {
            let why = &self.left_out[key];
            let measures = self.wanted.get(key).into_iter().flatten();
            refusals.extend(measures.map(|m| Refusal { measure: m.clone(), why: why.clone() }));
        }
        for key in changed {
            self.compare(&key);
        }
        refusals
    }

    /// Keeps the `room` most useful of the routes that `which` names. Of equals, what is on the
    /// wire stays there.
    fn rank(
        &self,
        which: impl Fn(&RouteKey) -> bool,
        room: usize,
        why: &str,
        left_out: &mut BTreeMap<RouteKey, String>,
    ) {
        let rivals = self.wanted.keys().filter(|key| {
            let spoken = self.session.is_none_or(|s| s.contains(key.family()));
            spoken && which(key) && !left_out.contains_key(*key) && !self.trials.is_withheld(key)
        });
        let mut rivals: Vec<&RouteKey> = rivals.collect();
        if rivals.len() <= room {
            return;
        }
        rivals.sort_by_cached_key(|key| {
            let measures = self.wanted.get(*key).into_iter().flatten();
            let worth = measures.filter_map(|m| Some(self.measures.get(m)?.worth)).max();
            let rough = worth.map(|w| (w.by_hand, w.bits_per_sec.checked_ilog2()));
            let sent = self.sent.contains_key(*key);
            // Who is worth about as much as what is on the wire does not drive it out.
            std::cmp::Reverse((rough, sent, worth))
        });
        left_out.extend(rivals.drain(room..).map(|key| (key.clone(), why.to_owned())));
    }

    /// The route wanted under a key. Of two measures for the same packets, which overlap while
    /// one takes the other's place, the stricter one.
    fn route(&self, key: &RouteKey) -> Option<Route> {
        if self.trials.is_withheld(key) || self.left_out.contains_key(key) {
            return None;
        }
        let measure = self.wanted.get(key)?.first()?;
        let incident = self.measures.get(measure).map_or(0, |w| w.incident);
        Some(Route { measure: measure.clone(), incident })
    }

    /// Everything wanted, whatever the session: for daemons that are told the whole.
    pub fn routes(&self) -> impl Iterator<Item = (RouteKey, Route)> + '_ {
        self.wanted.keys().filter_map(|key| Some((key.clone(), self.route(key)?)))
    }

    /// Puts a key where it belongs: to be announced, to be withdrawn, or neither.
    fn compare(&mut self, key: &RouteKey) {
        for class in &mut self.announce {
            class.remove(key);
        }
        self.withdraw.remove(key);
        if !self.session.is_some_and(|s| s.contains(key.family())) {
            return;
        }
        match (self.route(key), self.sent.get(key)) {
            (Some(route), sent) if sent != Some(&route) => {
                let class = self.trials.class(key, &route.measure);
                self.announce[class as usize].insert(key.clone());
            }
            (None, Some(_)) => {
                self.withdraw.insert(key.clone());
            }
            _ => {}
        }
    }

    /// Conclusions have changed: everything is put where it belongs.
    fn compare_all(&mut self) {
        let keys: Vec<RouteKey> = self.wanted.keys().cloned().collect();
        for key in keys {
            self.compare(&key);
        }
    }

    /// The session is up with these families: everything is to be written. Returns what the peer
    /// does not speak.
    pub fn up(&mut self, now: Millis, families: Families) -> Vec<Refusal> {
        self.reset();
        self.version += 1;
        self.session = Some(families);
        self.end_of_rib = families;
        self.trials.up(now);
        let mut refusals = Vec::new();
        for (key, measures) in &self.wanted {
            let family = key.family();
            if !families.contains(family) {
                refusals.extend(measures.iter().map(|measure| Refusal {
                    measure: measure.clone(),
                    why: format!("the peer does not speak {family}"),
                }));
            }
        }
        self.crowded = true;
        self.make_room();
        self.compare_all();
        refusals
    }

    /// The session is gone, and with it what was written. `data` is what came with the peer's
    /// NOTIFICATION.
    pub fn down(&mut self, now: Millis, blame: Blame, data: &[u8]) -> Ended {
        self.version += 1;
        let (sent, fresh) = (self.sent_of, self.trials.fresh_families());
        let gone = self.reset();
        self.limits.down();
        let mut ended = Ended { gone, ..Ended::default() };
        if blame == Blame::TooMuch {
            self.trials.down(now, Blame::Nothing, &[]);
            ended.understood = self.limits.exceeded(now, sent, fresh, data);
            self.crowded = true;
            ended.left_out = self.make_room();
        } else if let Some(key) = self.trials.down(now, blame, data) {
            ended.banned = self.sentenced(&key);
            ended.understood = true;
        }
        ended
    }

    fn sentenced(&mut self, key: &RouteKey) -> Vec<Refusal> {
        let why = self.why_banned(key);
        let measures = self.wanted.get(key).cloned().unwrap_or_default();
        if let Some(measure) = measures.first() {
            self.doubted.insert(key.clone(), measure.clone());
        }
        self.crowded = true;
        measures.into_iter().map(|measure| Refusal { measure, why: why.clone() }).collect()
    }

    fn reset(&mut self) -> Vec<Measure> {
        self.session = None;
        for class in &mut self.announce {
            class.clear();
        }
        self.withdraw.clear();
        self.sent_of = [0; 4];
        std::mem::take(&mut self.sent).into_values().map(|r| r.measure).collect()
    }

    /// Lets time pass; `flushed` when everything written has left weir. Returns what is newly
    /// refused.
    pub fn tick(&mut self, now: Millis, flushed: bool) -> Vec<Refusal> {
        let before = self.trials.banned().count();
        let mut changed = !self.trials.tick(now).is_empty();
        if self.session.is_some() && flushed {
            changed |= self.trials.prove(now);
            if self.limits.lives(now, self.sent_of) {
                self.crowded = true;
                self.version += 1;
            }
        }
        let mut refusals = Vec::new();
        if changed {
            self.version += 1;
            if self.trials.banned().count() > before {
                let new: Vec<RouteKey> = self
                    .trials
                    .banned()
                    .filter(|(_, ban)| ban.since == now)
                    .map(|(key, _)| key.clone())
                    .collect();
                refusals.extend(new.iter().flat_map(|key| self.sentenced(key)));
            }
            self.crowded = true;
        }
        refusals.extend(self.make_room());
        if changed {
            self.compare_all();
        }
        refusals
    }

    /// When to call [`Self::tick`] again.
    pub fn deadline(&self) -> Option<Millis> {
        let up = self.session.is_some();
        let limits = self.limits.deadline().filter(|_| up);
        self.trials.deadline(up).into_iter().chain(limits).min()
    }

    /// Another number whenever [`Self::standing`] or [`Self::kept_back`] may say something else.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What was concluded about the peer.
    pub fn standing(&self) -> Standing {
        let measure = |key: &RouteKey| {
            let wanted = self.wanted.get(key).and_then(|list| list.first());
            wanted.or_else(|| self.doubted.get(key)).cloned()
        };
        let doubt =
            |key: &RouteKey, sentence: Sentence| Some(Doubt { measure: measure(key)?, sentence });
        Standing {
            suspected: self.trials.suspected().filter_map(|(k, s)| doubt(k, s)).collect(),
            banned: self.trials.banned().filter_map(|(k, s)| doubt(k, s.clone())).collect(),
            limits: self.limits.in_force().collect(),
        }
    }

    /// Takes back what an earlier run had concluded, and what the peer is known to have taken.
    pub fn restore(&mut self, now: Millis, standing: Standing, proven: &[Measure]) {
        for measure in proven {
            if let Ok(Some(key)) = RouteKey::of(measure) {
                self.trials.remember(now, key, measure);
            }
        }
        for Doubt { measure, sentence } in standing.banned {
            if let Ok(Some(key)) = RouteKey::of(&measure) {
                self.doubted.insert(key.clone(), measure);
                self.trials.restore_ban(key, sentence);
            }
        }
        for Doubt { measure, sentence } in standing.suspected {
            if let Ok(Some(key)) = RouteKey::of(&measure) {
                self.doubted.insert(key.clone(), measure);
                self.trials.restore_suspicion(key, sentence.since);
            }
        }
        for limit in standing.limits {
            self.limits.restore(limit.family, limit.routes, limit.said, limit.since);
        }
        self.crowded = true;
    }

    /// An operator wants a route sent again, whatever was concluded; all routes and limits where
    /// none is named. Says whether anything was.
    pub fn lift(&mut self, measure: Option<&Measure>) -> bool {
        let lifted = match measure {
            Some(measure) => {
                RouteKey::of(measure).ok().flatten().is_some_and(|key| self.trials.lift(&key))
            }
            None => {
                let doubts = self.trials.banned().map(|(key, _)| key.clone());
                let doubts: Vec<RouteKey> =
                    doubts.chain(self.trials.suspected().map(|(key, _)| key.clone())).collect();
                let limited = self.limits.in_force().next().is_some();
                self.limits = Limits::new();
                doubts.iter().filter(|key| self.trials.lift(key)).count() > 0 || limited
            }
        };
        self.crowded = true;
        self.version += 1;
        self.make_room();
        self.compare_all();
        lifted
    }

    /// The peer wants a family once more (RFC 2918).
    pub fn refresh(&mut self, family: Family) {
        let again = self.sent.iter().filter(|(k, _)| k.family() == family);
        let again = again.filter(|(k, _)| self.route(k).is_some());
        let again: Vec<(RouteKey, Class)> =
            again.map(|(k, route)| (k.clone(), self.trials.class(k, &route.measure))).collect();
        for (key, class) in again {
            self.announce[class as usize].insert(key);
        }
        if self.session.is_some_and(|s| s.contains(family)) {
            self.end_of_rib.insert(family);
        }
    }

    /// Gives up everything, to be withdrawn.
    pub fn clear(&mut self) {
        self.measures.clear();
        self.wanted.clear();
        for class in &mut self.announce {
            class.clear();
        }
        self.withdraw = self.sent.keys().cloned().collect();
    }

    /// The next change, taken as written.
    pub fn next_change(&mut self, now: Millis) -> Option<Change> {
        self.session?;
        let next = self.announceable(now);
        if (next.is_none() || self.is_full())
            && let Some(key) = self.withdraw.pop_first()
            && let Some(route) = self.sent.remove(&key)
        {
            self.sent_of[key.family() as usize] -= 1;
            return Some(Change::Withdraw { key, route });
        }
        if let Some((class, key)) = next
            && let Some(change) = self.announce_now(now, class, key)
        {
            return Some(change);
        }
        if !self.loaded {
            return None;
        }
        let family = self.end_of_rib.iter().next()?;
        self.end_of_rib.remove(family);
        Some(Change::EndOfRib(family))
    }

    /// Whether what is to be withdrawn keeps something else from the wire.
    fn is_full(&self) -> bool {
        let full = |f: Family| self.sent_of[f as usize] >= self.limits.allowed(f);
        self.flows_sent() >= self.reach.capabilities.max_rules || Family::ALL.into_iter().any(full)
    }

    const fn flows_sent(&self) -> usize {
        self.sent_of[Family::Ipv4FlowSpec as usize] + self.sent_of[Family::Ipv6FlowSpec as usize]
    }

    /// The first route that may be announced now: what is sure first, what is accused last.
    fn announceable(&self, now: Millis) -> Option<(Class, RouteKey)> {
        [Class::Sure, Class::New, Class::Accused].into_iter().find_map(|class| {
            let waiting = &self.announce[class as usize];
            if waiting.is_empty() || !self.trials.may_write(now, class) {
                return None;
            }
            let mut waiting = waiting.iter().filter(|key| self.trials.is_due(key));
            waiting.find(|key| self.fits(key)).map(|key| (class, key.clone()))
        })
    }

    /// Whether there is room for a route by now.
    fn fits(&self, key: &RouteKey) -> bool {
        let family = key.family();
        let flows = matches!(key, RouteKey::Unicast(_))
            || self.flows_sent() < self.reach.capabilities.max_rules;
        let room = flows && self.sent_of[family as usize] < self.limits.allowed(family);
        room || self.sent.contains_key(key)
    }

    fn announce_now(&mut self, now: Millis, class: Class, key: RouteKey) -> Option<Change> {
        self.announce[class as usize].remove(&key);
        let route = self.route(&key)?;
        self.trials.wrote(now, &key, &route.measure);
        let before = self.sent.insert(key.clone(), route.clone());
        if before.is_none() {
            self.sent_of[key.family() as usize] += 1;
        }
        let replaces = before.map(|r| r.measure).filter(|m| *m != route.measure);
        Some(Change::Announce { key, route, replaces })
    }

    /// Whether there is anything that the peer is to have.
    pub fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Routes on the wire.
    pub fn announced(&self) -> usize {
        self.sent.len()
    }

    /// What is on the wire: Adj-RIB-Out.
    pub fn on_wire(&self) -> impl Iterator<Item = &Measure> {
        self.sent.values().map(|route| &route.measure)
    }

    /// What is wanted and not on the wire, and why not; nothing when it is only on its way.
    pub fn kept_back(&self) -> impl Iterator<Item = (&Measure, String)> {
        self.measures.iter().filter_map(|(measure, wanted)| {
            if let Some(why) = &wanted.unsupported {
                return Some((measure, why.clone()));
            }
            let key = wanted.key.as_ref()?;
            let family = key.family();
            let why = if self.session.is_some_and(|s| !s.contains(family)) {
                format!("the peer does not speak {family}")
            } else if self.trials.is_banned(key) {
                self.why_banned(key)
            } else {
                self.left_out.get(key)?.clone()
            };
            Some((measure, why))
        })
    }

    /// Whether nothing is left that can be written.
    pub fn is_settled(&self, now: Millis) -> bool {
        self.withdraw.is_empty() && self.announceable(now).is_none()
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
