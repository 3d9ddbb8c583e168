//! What a peer is to have and what it has (Adj-RIB-Out), and the changes between the two.
//!
//! Pure: the desired state in, one change at a time out, as fast as the session takes them. A rule
//! that changes twice before it is written is written once. Announcements go before withdrawals,
//! so that a measure that replaces another leaves no gap; only a full peer is relieved first.
//! What the peer has no room for, by its profile or by what it said itself, is what is worth least.

mod limit;
mod room;
mod route;
mod standing;
mod trial;

use std::collections::{BTreeMap, BTreeSet};

use weir_model::{Measure, Millis, Mitigation};

pub use limit::Limit;
pub use room::is_no_room;
pub use route::{Change, Route, RouteKey};
pub use standing::{Doubt, Standing};
pub use trial::{Blame, Sentence};

use crate::reach::Reach;
use crate::wire::{Families, Family};
use limit::Limits;
use room::Worth;
use route::{incident_mark, strictness};
use trial::{Class, Trials};

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
    /// On the wire as wanted, and to be written once more: asked for, or in other words now.
    again: BTreeSet<RouteKey>,
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
            again: BTreeSet::new(),
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
                None => refusals.extend(self.add(&mitigation.measure, incident, worth)),
            }
        }
        refusals.extend(self.make_room());
        refusals
    }

    /// The peer can be given something else from now on; what it can have in either case is not touched.
    /// Returns what it is newly refused.
    pub fn set_reach(&mut self, reach: Reach) -> Vec<Refusal> {
        if self.reach == reach {
            return Vec::new();
        }
        self.reach = reach;
        self.version += 1;
        let moved = |(measure, known): &(&Measure, &Wanted)| match self.reach.route(measure) {
            Ok(key) => known.key != key || known.unsupported.is_some(),
            Err(why) => known.unsupported.as_ref() != Some(&why),
        };
        let moved: Vec<(Measure, Wanted)> = self
            .measures
            .iter()
            .filter(moved)
            .map(|(m, known)| (m.clone(), known.clone()))
            .collect();
        let mut refusals = Vec::new();
        for (measure, Wanted { incident, worth, .. }) in moved {
            self.unwant(&measure);
            refusals.extend(self.add(&measure, incident, worth));
        }
        // There may be more room, or less.
        self.crowded = true;
        refusals.extend(self.make_room());
        refusals
    }

    fn add(&mut self, measure: &Measure, incident: u32, worth: Worth) -> Option<Refusal> {
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
            (Some(route), sent) if sent != Some(&route) || self.again.contains(key) => {
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

    fn reset(&mut self) -> Vec<Measure> {
        self.session = None;
        for class in &mut self.announce {
            class.clear();
        }
        self.withdraw.clear();
        self.again.clear();
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

    /// The peer wants a family once more (RFC 2918).
    pub fn refresh(&mut self, family: Family) {
        self.write_again(|key, _| key.family() == family);
        if self.session.is_some_and(|s| s.contains(family)) {
            self.end_of_rib.insert(family);
        }
    }

    /// Has those routes written once more that are on the wire and that `which` names.
    pub fn write_again(&mut self, which: impl Fn(&RouteKey, &Route) -> bool) {
        let named = self.sent.iter().filter(|(key, route)| which(key, route));
        let named: Vec<RouteKey> = named.map(|(key, _)| key.clone()).collect();
        for key in named {
            self.again.insert(key.clone());
            self.compare(&key);
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
            self.again.remove(&key);
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

    fn announce_now(&mut self, now: Millis, class: Class, key: RouteKey) -> Option<Change> {
        self.announce[class as usize].remove(&key);
        self.again.remove(&key);
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

    /// Whether nothing is left that can be written.
    pub fn is_settled(&self, now: Millis) -> bool {
        self.withdraw.is_empty() && self.announceable(now).is_none()
    }
}

#[cfg(test)]
mod tests;
