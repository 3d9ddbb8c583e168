//! Which route made the peer end the session, so that it is not sent to it again.
//!
//! A router that dislikes one rule resets the session (RFC 7606 leaves it the choice where the
//! NLRI cannot be read), and would do so after each reconnection. A route is *proven* once the
//! session outlived it by [`PROOF_MS`]. When a session ends for an UPDATE, the routes that are not
//! proven are suspects: a single one is banned; of several, batches are tried until the guilty
//! one is alone, which takes a reset for each factor of sixteen. Once it is found the batches
//! grow again. A connection that breaks without
//! a word proves nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weir_model::{Measure, Millis};

use super::RouteKey;

/// A session that lives so long after a route was written takes no offence at it, milliseconds.
const PROOF_MS: u64 = 5_000;

/// How long a route stays banned, milliseconds: a router's software is not mended in an hour.
const BAN_MS: u64 = 24 * 3_600_000;

/// Banned routes remembered for one peer; the oldest ban goes first.
const BANS_MAX: usize = 1024;

/// Batches that the suspects are tried in.
const BATCHES: usize = 16;

/// What the end of a session says about the routes written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nothing.
    Nothing,
    /// The connection broke without a word.
    Silent,
    /// The peer named an error in an UPDATE; the octets it sent along may hold the culprit.
    Update,
}

#[derive(Debug)]
pub(super) struct Trials {
    proven: BTreeMap<RouteKey, Measure>,
    /// Written and not proven, oldest first.
    suspects: VecDeque<(Millis, RouteKey, Measure)>,
    /// Suspects at a time; all while there is no suspicion.
    batch: usize,
    /// One of these is guilty, and none of them proven yet.
    accused: BTreeSet<RouteKey>,
    banned: BTreeMap<RouteKey, Millis>,
}

impl Trials {
    pub(super) const fn new() -> Self {
        Self {
            proven: BTreeMap::new(),
            suspects: VecDeque::new(),
            batch: usize::MAX,
            accused: BTreeSet::new(),
            banned: BTreeMap::new(),
        }
    }

    pub(super) fn may_write(&self, key: &RouteKey, measure: &Measure) -> bool {
        self.suspects.len() < self.batch || self.is_proven(key, measure)
    }

    fn is_proven(&self, key: &RouteKey, measure: &Measure) -> bool {
        self.proven.get(key).is_some_and(|m| m == measure)
    }

    pub(super) fn wrote(&mut self, now: Millis, key: &RouteKey, measure: &Measure) {
        if !self.is_proven(key, measure) {
            self.proven.remove(key);
            self.suspects.push_back((now, key.clone(), measure.clone()));
        }
    }

    /// The route is no longer wanted: nothing is to be remembered of it but a ban.
    pub(super) fn forget(&mut self, key: &RouteKey) {
        self.proven.remove(key);
        self.accused.remove(key);
    }

    /// Everything written so far has left weir and the session lives.
    pub(super) fn prove(&mut self, now: Millis) {
        while let Some((at, ..)) = self.suspects.front()
            && now.since(*at) >= PROOF_MS
            && let Some((_, key, measure)) = self.suspects.pop_front()
        {
            self.accused.remove(&key);
            self.proven.insert(key, measure);
            if self.suspects.is_empty() && self.accused.is_empty() {
                self.batch = self.batch.saturating_mul(2);
            }
        }
        if let Some((key, at)) = self.banned.iter().min_by_key(|(_, at)| **at)
            && now.since(*at) >= BAN_MS
        {
            let key = key.clone();
            self.banned.remove(&key);
        }
    }

    /// When the next route will be proven: while there is suspicion, others wait for it.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let (at, ..) = self.suspects.front()?;
        Some(*at + PROOF_MS)
    }

    /// Nothing is left to try.
    pub(super) fn acquit(&mut self) {
        if self.suspects.is_empty() {
            self.batch = usize::MAX;
        }
    }

    pub(super) fn is_banned(&self, key: &RouteKey) -> bool {
        self.banned.contains_key(key)
    }

    /// The session is gone. Returns the route found guilty.
    pub(super) fn down(&mut self, now: Millis, blame: Blame, data: &[u8]) -> Option<RouteKey> {
        let mut suspects: Vec<RouteKey> = self.suspects.drain(..).map(|(_, key, _)| key).collect();
        suspects.sort();
        suspects.dedup();
        // A connection that breaks without a word may have any cause.
        if blame != Blame::Update || suspects.is_empty() {
            return None;
        }
        let named = suspects.iter().find(|k| names(data, k)).cloned();
        let culprit = match (named, &suspects[..]) {
            (Some(key), _) => Some(key),
            (None, [key]) => Some(key.clone()),
            _ => None,
        };
        if let Some(key) = culprit {
            self.accused.clear();
            self.ban(now, key.clone());
            return Some(key);
        }
        if !suspects.is_empty() {
            self.batch = suspects.len().div_ceil(BATCHES);
            self.accused = suspects.into_iter().collect();
        }
        None
    }

    fn ban(&mut self, now: Millis, key: RouteKey) {
        if self.banned.len() >= BANS_MAX
            && let Some(oldest) =
                self.banned.iter().min_by_key(|(_, at)| **at).map(|(k, _)| k.clone())
        {
            self.banned.remove(&oldest);
        }
        self.banned.insert(key, now);
    }
}

/// Whether the octets that came with a NOTIFICATION hold this very rule.
fn names(data: &[u8], key: &RouteKey) -> bool {
    match key {
        RouteKey::Flow(_, nlri) => data.windows(nlri.len()).any(|w| w == nlri),
        RouteKey::Unicast(_) => false,
    }
}
