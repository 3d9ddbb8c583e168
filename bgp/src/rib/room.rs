//! Who gets the room where there is not enough for all.

use std::collections::BTreeMap;

use weir_model::{Millis, Mitigation, Originator};

use super::{AdjRibOut, Refusal, RouteKey};
use crate::wire::Family;

/// How a refusal ends that has to do with room alone.
const AT_MOST: &str = " at most";

/// Whether a refusal says that the peer is full, and nothing against the measure. One that takes none at all is
/// not full.
pub fn is_no_room(why: &str) -> bool {
    why.ends_with(AT_MOST) && !why.contains(" takes 0 ")
}

/// What a route is worth where there is no room for all: an operator's before an incident's, what
/// cuts more before what cuts less, older before younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    by_hand: bool,
    bits_per_sec: u64,
    since: std::cmp::Reverse<Millis>,
}

impl Worth {
    pub(super) const fn of(m: &Mitigation) -> Self {
        Self {
            by_hand: matches!(m.originator, Originator::Operator(_)),
            bits_per_sec: m.worth,
            since: std::cmp::Reverse(m.since),
        }
    }
}
impl AdjRibOut {
    /// Leaves out what is worth least where there is no room for all. Returns what is newly left
    /// out.
    pub(super) fn make_room(&mut self) -> Vec<Refusal> {
        if !std::mem::take(&mut self.crowded) {
            return Vec::new();
        }
        let mut left_out = BTreeMap::new();
        for family in Family::ALL {
            let allowed = self.limits.allowed(family);
            if allowed < usize::MAX {
                let why = format!("the peer takes {allowed} routes of {family}{AT_MOST}");
                self.rank(|key| key.family() == family, allowed, &why, &mut left_out);
            }
        }
        let rules = self.reach.capabilities.max_rules;
        let why = format!("the peer holds {rules} rules{AT_MOST}");
        self.rank(|key| matches!(key, RouteKey::Flow(..)), rules, &why, &mut left_out);
        let routes = self.reach.max_routes;
        let why = format!("the peer takes {routes} black holes and diversions{AT_MOST}");
        self.rank(|key| matches!(key, RouteKey::Unicast(_)), routes, &why, &mut left_out);
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

    /// Whether what is to be withdrawn keeps something else from the wire.
    pub(super) fn is_full(&self) -> bool {
        let full = |f: Family| self.sent_of[f as usize] >= self.limits.allowed(f);
        self.flows_sent() >= self.reach.capabilities.max_rules
            || self.unicast_sent() >= self.reach.max_routes
            || Family::ALL.into_iter().any(full)
    }

    const fn unicast_sent(&self) -> usize {
        self.sent_of[Family::Ipv4Unicast as usize] + self.sent_of[Family::Ipv6Unicast as usize]
    }

    const fn flows_sent(&self) -> usize {
        self.sent_of[Family::Ipv4FlowSpec as usize] + self.sent_of[Family::Ipv6FlowSpec as usize]
    }

    /// Whether there is room for a route by now.
    pub(super) fn fits(&self, key: &RouteKey) -> bool {
        let family = key.family();
        let kind = match key {
            RouteKey::Unicast(_) => self.unicast_sent() < self.reach.max_routes,
            RouteKey::Flow(..) => self.flows_sent() < self.reach.capabilities.max_rules,
        };
        let room = kind && self.sent_of[family as usize] < self.limits.allowed(family);
        room || self.sent.contains_key(key)
    }
}
