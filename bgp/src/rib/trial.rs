//! What the ends of sessions say about routes, and what they do not.
//!
//! A route is *proven* once a session outlived it by [`PROOF_MS`]; what was proven once is never
//! held against it by silence. Two things are evidence:
//!
//! - the peer's own word, NOTIFICATION 3/x: what was written shortly before is *accused*. The
//!   session comes back with everything else, and the accused are tried beside it in batches, each
//!   for as long as the peer took to answer, until the guilty one is alone. It is *banned*.
//! - a pattern: [`BREAKS_MIN`] sessions in a row that broke without a word just after the same
//!   unproven routes were written. Those are held back for one session, the control. If that one
//!   breaks as well, they had nothing to do with it. If it lives, they are tried like accused ones,
//!   and banned only if the session breaks with one alone and a second control lives again.
//!
//! A ban is of one peer, ends by itself, and is longer for who offends again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weir_model::{Action, Measure, Millis, Redirect};

use super::RouteKey;
use crate::wire::Families;

/// A session that lives so long after a route was written takes no offence at it, milliseconds.
pub(super) const PROOF_MS: u64 = 5_000;

/// Shortest time after which a batch counts as taken while a culprit is looked for, milliseconds.
const SETTLE_MIN_MS: u64 = 1_000;

/// A batch counts as taken after so many times as long as the peer needed to take offence.
const SETTLE_FACTOR: u64 = 4;

/// First ban, milliseconds; it doubles for who offends again, up to the longest: a router's
/// software is not mended in an hour.
const BAN_MS: u64 = 15 * 60_000;
const BAN_MAX_MS: u64 = 24 * 3_600_000;

/// Who has not offended for so long after a ban begins anew, milliseconds.
const OFFENCES_FADE_MS: u64 = 24 * 3_600_000;

/// Suspicion that nothing was added to for so long fades, milliseconds.
const SUSPICION_MS: u64 = 3_600_000;

/// Bans remembered for one peer; the oldest goes first.
const BANS_MAX: usize = 1024;

/// Proven routes remembered for one peer, besides those on the wire.
const PROVEN_MAX: usize = 8192;

/// Batches that the accused are tried in.
const BATCHES: usize = 16;

/// Silent breaks in a row after the same routes that ask for a control.
const BREAKS_MIN: u8 = 3;

/// A break so soon after a route was written may be its doing, milliseconds: what kills a router
/// kills it as it is read.
const BREAK_MS: u64 = 2_000;

/// A control lives at least so long, milliseconds: ten times as long as a break may take, so that
/// sessions that break at random seldom live through two of them.
const CONTROL_MIN_MS: u64 = 20_000;

/// After a control has broken as well, silent breaks say nothing for so long, milliseconds.
const IMMUNE_MS: u64 = 10 * 60_000;

/// What the end of a session says about the routes written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nothing.
    Nothing,
    /// The connection broke without a word.
    Silent,
    /// The peer named an error in an UPDATE; the octets it sent along may hold the culprit.
    Update,
    /// The peer has more than it takes; the octets it sent along may say how much that is.
    TooMuch,
}

/// Why a route does not get to the peer for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// For people.
    pub why: String,
    /// Since when.
    pub since: Millis,
    /// Until when.
    pub until: Millis,
    /// Which time it is.
    pub offences: u32,
}

/// When a route may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// At once: a black hole, or proven.
    Sure,
    /// Not known yet.
    New,
    /// Accused: tried in batches.
    Accused,
}

#[derive(Debug)]
struct Written {
    at: Millis,
    key: RouteKey,
    measure: Measure,
    class: Class,
    proven: bool,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Millis,
    /// By a pattern, not by the peer's word.
    silent: bool,
    /// The higher, the less is left to suspect: these are tried first.
    tier: u32,
}

/// Routes held back to see whether a session lives without them.
#[derive(Debug)]
struct Control {
    held: BTreeSet<RouteKey>,
    /// How long the session must live.
    need_ms: u64,
    /// Since when the present session is up.
    up: Option<Millis>,
    /// The session broke with the one route alone: the second control decides.
    last: bool,
    since: Millis,
}

#[derive(Debug)]
pub(super) struct Trials {
    proven: BTreeMap<RouteKey, (Kind, Millis)>,
    /// The order in which they were proven.
    proven_order: VecDeque<(Millis, RouteKey)>,
    /// Written within the last [`PROOF_MS`], oldest first.
    fresh: VecDeque<Written>,
    /// Unproven ones among them: new, and accused.
    fresh_new: usize,
    fresh_accused: usize,
    accused: BTreeMap<RouteKey, Suspicion>,
    /// Accused ones at a time, of the highest tier.
    batch: usize,
    tier: u32,
    /// More than one is guilty: who is not in the batch that offended is not let go for it.
    several: bool,
    settle_ms: u64,
    /// When the accused last had a turn.
    turn: Millis,
    /// Offences in a row that nothing unproven explains.
    unexplained: u8,
    banned: BTreeMap<RouteKey, Sentence>,
    /// Past bans: how many, and when the last one ended.
    offences: BTreeMap<RouteKey, (u32, Millis)>,
    /// Silent breaks in a row, and the longest time to one of them.
    breaks: BTreeMap<RouteKey, u8>,
    break_ms: u64,
    immune_until: Millis,
    control: Option<Control>,
}

impl Trials {
    pub(super) const fn new() -> Self {
        Self {
            proven: BTreeMap::new(),
            proven_order: VecDeque::new(),
            fresh: VecDeque::new(),
            fresh_new: 0,
            fresh_accused: 0,
            accused: BTreeMap::new(),
            batch: usize::MAX,
            tier: 0,
            several: false,
            settle_ms: PROOF_MS,
            turn: Millis(0),
            unexplained: 0,
            banned: BTreeMap::new(),
            offences: BTreeMap::new(),
            breaks: BTreeMap::new(),
            break_ms: 0,
            immune_until: Millis(0),
            control: None,
        }
    }

    pub(super) fn class(&self, key: &RouteKey, measure: &Measure) -> Class {
        if self.accused.contains_key(key) {
            Class::Accused
        } else if matches!(key, RouteKey::Unicast(_)) || self.is_proven(key, measure) {
            Class::Sure
        } else {
            Class::New
        }
    }

    /// Whether a route of this class may be written now. New ones wait while a batch is under
    /// trial, so that an offence has few causes; a batch waits until new ones are proven, but not
    /// for ever, because there may always be new ones.
    pub(super) fn may_write(&self, now: Millis, class: Class) -> bool {
        match class {
            Class::Sure => true,
            Class::New => self.fresh_accused == 0,
            Class::Accused => {
                let waited = now.since(self.turn) >= PROOF_MS;
                self.fresh_accused < self.batch && (self.fresh_new == 0 || waited)
            }
        }
    }

    /// Whether an accused route is among those that are tried now.
    pub(super) fn is_due(&self, key: &RouteKey) -> bool {
        self.accused.get(key).is_none_or(|s| s.tier == self.tier)
    }

    /// Whether what was proven is of the same kind: another rate or target is no other route.
    fn is_proven(&self, key: &RouteKey, measure: &Measure) -> bool {
        self.proven.get(key).is_some_and(|(kind, _)| *kind == Kind::of(measure))
    }

    pub(super) fn wrote(&mut self, now: Millis, key: &RouteKey, measure: &Measure) {
        let class = self.class(key, measure);
        let proven = self.is_proven(key, measure);
        match class {
            Class::Accused => {
                self.fresh_accused += 1;
                self.turn = now;
            }
            Class::New | Class::Sure if !proven => self.fresh_new += 1,
            Class::New | Class::Sure => {}
        }
        let (key, measure) = (key.clone(), measure.clone());
        self.fresh.push_back(Written { at: now, key, measure, class, proven });
    }

    /// The route is no longer wanted.
    pub(super) fn forget(&mut self, key: &RouteKey) {
        self.accused.remove(key);
        self.rank();
        self.breaks.remove(key);
        if let Some(control) = &mut self.control {
            control.held.remove(key);
            if control.held.is_empty() {
                self.control = None;
            }
        }
    }

    /// The peer is known to have taken a route, from an earlier run.
    pub(super) fn remember(&mut self, now: Millis, key: RouteKey, measure: &Measure) {
        if self.proven_order.len() >= PROVEN_MAX
            && let Some((at, oldest)) = self.proven_order.pop_front()
            && self.proven.get(&oldest).is_some_and(|(_, proven)| *proven == at)
        {
            self.proven.remove(&oldest);
        }
        self.proven.insert(key.clone(), (Kind::of(measure), now));
        self.proven_order.push_back((now, key));
    }

    pub(super) fn is_withheld(&self, key: &RouteKey) -> bool {
        self.banned.contains_key(key) || self.control.as_ref().is_some_and(|c| c.held.contains(key))
    }

    pub(super) fn is_banned(&self, key: &RouteKey) -> bool {
        self.banned.contains_key(key)
    }

    pub(super) fn banned(&self) -> impl Iterator<Item = (&RouteKey, &Sentence)> {
        self.banned.iter()
    }

    /// Accused or held back, and why, since when, until when.
    pub(super) fn suspected(&self) -> impl Iterator<Item = (&RouteKey, Sentence)> {
        let accused = self.accused.iter().map(|(key, s)| {
            let why = if s.silent { PATTERN } else { WORD };
            (key, s.since, why)
        });
        let control = self.control.iter();
        let held = control.flat_map(|c| c.held.iter().map(|key| (key, c.since, HELD)));
        accused.chain(held).map(|(key, since, why)| {
            let until = since + SUSPICION_MS;
            (key, Sentence { why: why.to_owned(), since, until, offences: 0 })
        })
    }

    /// Takes a ban back from an earlier run.
    pub(super) fn restore_ban(&mut self, key: RouteKey, sentence: Sentence) {
        if self.banned.len() < BANS_MAX {
            self.banned.insert(key, sentence);
        }
    }

    /// Takes a suspicion back from an earlier run: it is tried apart.
    pub(super) fn restore_suspicion(&mut self, key: RouteKey, since: Millis) {
        if self.accused.len() < BANS_MAX {
            self.accused.insert(key, Suspicion { since, silent: true, tier: 1 });
            self.rank();
        }
    }

    /// An operator wants a route sent again, whatever was concluded. Says whether anything was.
    pub(super) fn lift(&mut self, key: &RouteKey) -> bool {
        let banned = self.banned.remove(key).is_some();
        let held = self.control.as_mut().is_some_and(|c| c.held.remove(key));
        if self.control.as_ref().is_some_and(|c| c.held.is_empty()) {
            self.control = None;
        }
        self.breaks.remove(key);
        self.offences.remove(key);
        let accused = self.accused.remove(key).is_some();
        self.rank();
        accused || banned || held
    }

    /// Families of what was written last.
    pub(super) fn fresh_families(&self) -> Families {
        self.fresh.iter().map(|w| w.key.family()).collect()
    }

    /// The session is up.
    pub(super) const fn up(&mut self, now: Millis) {
        self.turn = now;
        if let Some(control) = &mut self.control {
            control.up = Some(now);
        }
    }

    fn window_ms(&self) -> u64 {
        if self.accused.is_empty() { PROOF_MS } else { self.settle_ms }
    }

    /// Everything written so far has left weir and the session lives: what is old enough is
    /// proven. Says whether conclusions changed.
    pub(super) fn prove(&mut self, now: Millis) -> bool {
        let mut changed = false;
        while let Some(first) = self.fresh.front()
            && now.since(first.at) >= self.window_ms()
            && let Some(written) = self.fresh.pop_front()
        {
            self.uncount(&written);
            self.breaks.remove(&written.key);
            changed |= self.accused.remove(&written.key).is_some();
            if !written.proven {
                self.remember(now, written.key, &written.measure);
            }
        }
        self.rank();
        let lived = |c: &Control| c.up.is_some_and(|up| now.since(up) >= c.need_ms);
        if self.fresh.is_empty()
            && let Some(control) = self.control.take_if(|c| lived(c))
        {
            changed = true;
            self.conclude(now, control);
        }
        changed
    }

    /// The session lived without what was held back.
    fn conclude(&mut self, now: Millis, control: Control) {
        if control.last {
            for key in control.held {
                self.ban(now, key, "sessions break without a word with it and live without it");
            }
            return;
        }
        self.accuse(now, control.held, 0, true);
        self.settle_ms = control.need_ms.div_ceil(2).max(PROOF_MS);
    }

    /// What fades with time. Returns the routes whose ban has ended.
    pub(super) fn tick(&mut self, now: Millis) -> Vec<RouteKey> {
        self.accused.retain(|_, s| now.since(s.since) < SUSPICION_MS);
        self.rank();
        self.control.take_if(|c| now.since(c.since) >= SUSPICION_MS);
        self.offences.retain(|_, (_, ended)| now.since(*ended) < OFFENCES_FADE_MS);
        let over: Vec<RouteKey> = self
            .banned
            .iter()
            .filter(|(_, ban)| now >= ban.until)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            if let Some(ban) = self.banned.remove(key) {
                self.offences.insert(key.clone(), (ban.offences, now));
            }
        }
        over
    }

    /// When [`Self::prove`] or [`Self::tick`] has something to do.
    pub(super) fn deadline(&self, up: bool) -> Option<Millis> {
        let window = self.window_ms();
        let proof = self.fresh.front().map(|w| w.at + window).filter(|_| up);
        let control = self.control.as_ref();
        let control = control.and_then(|c| Some(c.up? + c.need_ms)).filter(|_| up);
        // New ones may come without end; then the accused get their turn all the same.
        let waits = !self.accused.is_empty() && self.fresh_new > 0;
        let turn = (up && waits).then_some(self.turn + PROOF_MS);
        let ban = self.banned.values().map(|b| b.until).min();
        [proof, control, turn, ban].into_iter().flatten().min()
    }

    /// The session is gone. Returns the route found guilty.
    pub(super) fn down(&mut self, now: Millis, blame: Blame, data: &[u8]) -> Option<RouteKey> {
        let fresh: Vec<Written> = self.fresh.drain(..).collect();
        (self.fresh_new, self.fresh_accused) = (0, 0);
        if let Some(control) = &mut self.control {
            control.up = None;
        }
        match blame {
            Blame::Nothing | Blame::TooMuch => None,
            Blame::Silent => self.broke(now, &fresh),
            Blame::Update => self.offended(now, &fresh, data),
        }
    }

    /// The peer said that something was wrong with what it was sent.
    fn offended(&mut self, now: Millis, fresh: &[Written], data: &[u8]) -> Option<RouteKey> {
        if let Some(named) = fresh.iter().find(|w| names(data, &w.key)) {
            self.convict(now, &named.key, "the peer named it as it ended the session");
            return Some(named.key.clone());
        }
        let mut suspects: Vec<&Written> = fresh.iter().filter(|w| !w.proven).collect();
        if suspects.is_empty() {
            // Its software may be another one by now: what was proven is no more, at the second
            // time.
            self.unexplained = self.unexplained.saturating_add(1);
            if self.unexplained < 2 {
                return None;
            }
            suspects = fresh.iter().collect();
        }
        self.unexplained = 0;
        // Black holes are the last to be held back: they are plain routes.
        let is_rule = |w: &&Written| matches!(w.key, RouteKey::Flow(..));
        if suspects.iter().any(is_rule) && suspects.len() > 1 {
            let unproven_holes = !suspects.iter().all(is_rule);
            suspects.retain(is_rule);
            if unproven_holes && let [only] = suspects[..] {
                // Not alone: it is tried again after the black holes.
                let key = only.key.clone();
                self.accuse(now, [key].into(), now.since(only.at), false);
                return None;
            }
        }
        let first = suspects.iter().map(|w| w.at).min()?;
        let keys: BTreeSet<RouteKey> = suspects.iter().map(|w| w.key.clone()).collect();
        for key in &keys {
            self.proven.remove(key);
        }
        if let Some(only) = keys.first().filter(|_| keys.len() == 1).cloned() {
            self.convict(now, &only, "the peer ended the session over it");
            return Some(only);
        }
        self.accuse(now, keys, now.since(first), false);
        None
    }

    /// One of these is guilty. The others that were accused are let go, unless it turned out before
    /// that one of those was guilty, too.
    fn accuse(&mut self, now: Millis, keys: BTreeSet<RouteKey>, took_ms: u64, silent: bool) {
        self.settle_ms = took_ms.saturating_mul(SETTLE_FACTOR).clamp(SETTLE_MIN_MS, PROOF_MS);
        let known = keys.iter().any(|key| self.accused.contains_key(key));
        self.several |= !known && !self.accused.is_empty();
        if !self.several {
            self.accused.clear();
        }
        let tier = self.tier.saturating_add(1);
        let suspicion = Suspicion { since: now, silent, tier };
        self.accused.extend(keys.into_iter().map(|key| (key, suspicion)));
        self.rank();
    }

    fn convict(&mut self, now: Millis, key: &RouteKey, why: &str) {
        self.accused.remove(key);
        if !self.several {
            self.accused.clear();
        }
        self.rank();
        self.ban(now, key.clone(), why);
    }

    /// Who is tried next, and how many at a time: as many until all of a tier have had their turn.
    fn rank(&mut self) {
        let Some(top) = self.accused.values().map(|s| s.tier).max() else {
            (self.batch, self.tier, self.several) = (usize::MAX, 0, false);
            self.settle_ms = PROOF_MS;
            return;
        };
        if top != self.tier {
            self.tier = top;
            let number = self.accused.values().filter(|s| s.tier == top).count();
            self.batch = number.div_ceil(BATCHES);
        }
    }

    /// The connection broke without a word.
    fn broke(&mut self, now: Millis, fresh: &[Written]) -> Option<RouteKey> {
        if self.control.take().is_some() {
            // Without them as well: they had nothing to do with it.
            self.breaks.clear();
            self.immune_until = now + IMMUNE_MS;
            return None;
        }
        if now < self.immune_until {
            return None;
        }
        let soon = |w: &&Written| !w.proven && now.since(w.at) <= BREAK_MS;
        let mut suspects: Vec<&Written> = fresh.iter().filter(soon).collect();
        let is_rule = |w: &&Written| matches!(w.key, RouteKey::Flow(..));
        if suspects.iter().any(is_rule) {
            suspects.retain(is_rule);
        }
        let first = suspects.iter().map(|w| w.at).min()?;
        let suspects: BTreeSet<RouteKey> = suspects.iter().map(|w| w.key.clone()).collect();
        let took = now.since(first);
        let tried: BTreeSet<RouteKey> = suspects
            .iter()
            .filter(|key| self.accused.get(key).is_some_and(|s| s.silent))
            .cloned()
            .collect();
        if !tried.is_empty() {
            let settle = self.settle_ms;
            if tried.len() == 1 {
                self.accused.retain(|_, s| !s.silent);
                self.rank();
                self.hold(now, tried, settle * 2, true);
            } else {
                self.accuse(now, tried, took, true);
                self.settle_ms = settle;
            }
            return None;
        }
        self.breaks.retain(|key, _| suspects.contains(key));
        if self.breaks.is_empty() {
            self.break_ms = 0;
        }
        self.break_ms = self.break_ms.max(took);
        for key in suspects {
            let times = self.breaks.entry(key).or_default();
            *times = times.saturating_add(1);
        }
        let held: BTreeSet<RouteKey> = self
            .breaks
            .iter()
            .filter(|(_, times)| **times >= BREAKS_MIN)
            .map(|(key, _)| key.clone())
            .collect();
        if !held.is_empty() {
            self.breaks.clear();
            let need = self.break_ms.saturating_mul(2).max(CONTROL_MIN_MS);
            self.hold(now, held, need, false);
        }
        None
    }

    fn hold(&mut self, now: Millis, held: BTreeSet<RouteKey>, need_ms: u64, last: bool) {
        let need_ms = need_ms.max(CONTROL_MIN_MS);
        self.control = Some(Control { held, need_ms, up: None, last, since: now });
    }

    fn ban(&mut self, now: Millis, key: RouteKey, why: &str) {
        if self.banned.len() >= BANS_MAX
            && let Some(oldest) =
                self.banned.iter().min_by_key(|(_, ban)| ban.since).map(|(k, _)| k.clone())
        {
            self.banned.remove(&oldest);
        }
        let before = self.offences.remove(&key).map_or(0, |(times, _)| times);
        let offences = before.saturating_add(1);
        let long = BAN_MS.saturating_mul(1 << before.min(16)).min(BAN_MAX_MS);
        self.proven.remove(&key);
        let why = why.to_owned();
        self.banned.insert(key, Sentence { why, since: now, until: now + long, offences });
    }

    fn uncount(&mut self, written: &Written) {
        match written.class {
            Class::Accused => self.fresh_accused -= 1,
            Class::New | Class::Sure if !written.proven => self.fresh_new -= 1,
            Class::New | Class::Sure => {}
        }
    }
}

const WORD: &str = "the peer took offence at one of several routes; it is tried apart";
const PATTERN: &str = "sessions broke without a word just after it was written; it is tried apart";
const HELD: &str = "sessions broke without a word just after it was written; it is held back to see \
                    whether a session lives without it";

/// What a route does, without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hole,
    Drop,
    Bytes,
    Packets,
    RouteTarget,
    NextHop,
    Mark,
    Divert,
}

impl Kind {
    const fn of(measure: &Measure) -> Self {
        match measure {
            Measure::Blackhole(_) | Measure::Scrub(_) => Self::Hole,
            Measure::Divert(_) => Self::Divert,
            Measure::FlowSpec(filter) => match filter.action {
                Action::Drop => Self::Drop,
                Action::RateLimit { .. } => Self::Bytes,
                Action::RateLimitPackets { .. } => Self::Packets,
                Action::Redirect(Redirect::RouteTarget { .. }) => Self::RouteTarget,
                Action::Redirect(Redirect::NextHop(_) | Redirect::Copy(_)) => Self::NextHop,
                Action::Mark { .. } => Self::Mark,
            },
        }
    }
}

/// Whether the octets that came with a NOTIFICATION hold this very rule.
fn names(data: &[u8], key: &RouteKey) -> bool {
    match key {
        RouteKey::Flow(_, nlri) => data.windows(nlri.len()).any(|w| w == nlri),
        RouteKey::Unicast(_) => false,
    }
}
