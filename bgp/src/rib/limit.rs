//! How many routes of a family a peer takes, learned when it says that there were too many.
//!
//! A peer that has more than it takes ends the session (Cease 6/1 or 6/8) and would do so again
//! for ever. It may name the limit (RFC 4486 §4); else it is what it held before. Where it never
//! held any, the next session begins with one route and doubles while it lives; the second time
//! that it is too much, what it held by then stays the limit: each further trial would cost every
//! route for as long as the peer keeps the session down, minutes with some.

use weir_model::Millis;

use crate::wire::{Families, Family, prefix_bound};

/// A number of routes counts as held after so long, milliseconds.
const SETTLE_MS: u64 = 1_000;

/// What was learned is forgotten after so long, milliseconds: limits are raised.
const FORGET_MS: u64 = 24 * 3_600_000;

/// What is known of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Routes that a session has held at a time.
    good: usize,
    /// Routes that may be sent, since when, and how often they have been too many.
    limit: Option<(usize, Millis)>,
    violations: u32,
    /// Fewest routes that were too many.
    bad: usize,
    /// The peer named the limit itself.
    said: bool,
    /// The number on the wire has been the same since then.
    steady: Option<(usize, Millis)>,
}

/// A limit in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of which family.
    pub family: Family,
    /// Routes at most.
    pub routes: usize,
    /// Whether the peer named the number.
    pub said: bool,
    /// When the peer last had too many.
    pub since: Millis,
    /// When it is forgotten.
    pub until: Millis,
}

#[derive(Debug, Default)]
pub(super) struct Limits([Known; 4]);

impl Limits {
    pub(super) const fn new() -> Self {
        const NONE: Known =
            Known { good: 0, limit: None, violations: 0, bad: 0, said: false, steady: None };
        Self([NONE; 4])
    }

    /// Routes of a family that may be on the wire.
    pub(super) const fn allowed(&self, family: Family) -> usize {
        match self.0[family as usize].limit {
            Some((routes, _)) => routes,
            None => usize::MAX,
        }
    }

    pub(super) fn in_force(&self) -> impl Iterator<Item = Limit> + '_ {
        Family::ALL.into_iter().filter_map(|family| {
            let known = &self.0[family as usize];
            let (routes, since) = known.limit?;
            Some(Limit { family, routes, said: known.said, since, until: since + FORGET_MS })
        })
    }

    pub(super) fn restore(&mut self, family: Family, routes: usize, said: bool, since: Millis) {
        let known = &mut self.0[family as usize];
        known.limit = Some((routes, since));
        known.said = said;
        // It is not tried again how much more there may be.
        (known.good, known.violations, known.bad) = (routes, 2, routes.saturating_add(1));
    }

    /// The session lives with so many routes of each family. Says whether a limit moved.
    pub(super) fn lives(&mut self, now: Millis, sent: [usize; 4]) -> bool {
        let mut moved = false;
        for (known, sent) in self.0.iter_mut().zip(sent) {
            if known.limit.is_some_and(|(_, since)| now.since(since) >= FORGET_MS) {
                *known = Known { good: known.good.max(sent), ..Known::default() };
                moved = true;
            }
            match known.steady {
                Some((steady, at)) if sent >= steady && steady > 0 => {
                    if now.since(at) < SETTLE_MS {
                        continue;
                    }
                    known.good = known.good.max(steady);
                    known.steady = (sent > steady).then_some((sent, now));
                    moved |= known.grow();
                }
                _ => known.steady = (sent > 0).then_some((sent, now)),
            }
        }
        moved
    }

    /// When [`Self::lives`] has something to find out.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let open = |k: &&Known| k.steady.is_some_and(|(steady, _)| steady > k.good);
        self.0.iter().filter(open).filter_map(|k| k.steady).map(|(_, at)| at + SETTLE_MS).min()
    }

    pub(super) fn down(&mut self) {
        for known in &mut self.0 {
            known.steady = None;
        }
    }

    /// The peer had too many: `sent` of each family were on the wire, those of `fresh` had been
    /// written last. Says whether anything was learned.
    pub(super) fn exceeded(
        &mut self,
        now: Millis,
        sent: [usize; 4],
        fresh: Families,
        data: &[u8],
    ) -> bool {
        if let Some((family, bound)) = prefix_bound(data)
            && bound < sent[family as usize]
        {
            let known = &mut self.0[family as usize];
            known.limit = Some((bound, now));
            known.good = known.good.min(bound);
            known.said = true;
            return true;
        }
        let over = |f: &Family| sent[*f as usize] > self.0[*f as usize].good;
        let mut guilty: Families = fresh.iter().filter(over).collect();
        if guilty.is_empty() {
            guilty = fresh;
        }
        for family in guilty.iter().filter(|f| sent[*f as usize] > 0) {
            self.0[family as usize].exceeded(now, sent[family as usize]);
        }
        guilty.iter().any(|f| sent[f as usize] > 0)
    }
}

impl Known {
    fn exceeded(&mut self, now: Millis, sent: usize) {
        self.violations = self.violations.saturating_add(1);
        self.bad = if self.bad == 0 { sent } else { self.bad.min(sent) };
        self.said = false;
        // It takes fewer than it did.
        self.good = self.good.min(self.bad - 1);
        let begin = if self.violations == 1 { 1.min(self.bad - 1) } else { 0 };
        self.limit = Some((self.good.max(begin), now));
    }

    /// Goes on to more where it is not known how many there may be.
    fn grow(&mut self) -> bool {
        let Some((routes, since)) = self.limit else { return false };
        let open = self.violations == 1 && !self.said && routes + 1 < self.bad;
        if !open || self.good < routes {
            return false;
        }
        let next = routes.saturating_mul(2).min(self.bad - 1);
        self.limit = Some((next, since));
        true
    }
}
