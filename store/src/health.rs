//! Whether weir's files take what they are given. Writers say how it went; `/readyz`, `weir status` and
//! the metrics ask.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use weir_model::Millis;

/// A write that is under way for longer counts as a failure, milliseconds: a disk that hangs says nothing.
const SLOW_MS: u64 = 5000;

/// What is written, by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Incidents, measures and what was learned.
    State,
    /// Who did what.
    Audit,
    /// Charts of hosts.
    History,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::State, Self::Audit, Self::History];

    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Audit => "audit",
            Self::History => "history",
        }
    }
}

/// A part that does not take what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub part: Part,
    /// Since when.
    pub since: Millis,
    /// What it answered last.
    pub error: String,
    /// Records that wait in memory until it takes them.
    pub waiting: usize,
}

#[derive(Debug, Default)]
struct Standing {
    /// When the write began that is under way.
    busy: Option<Millis>,
    failing: Option<(Millis, String)>,
    waiting: usize,
}

/// How the files stand.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<BTreeMap<Part, Standing>>,
}

impl Health {
    /// A write begins.
    pub fn begins(&self, part: Part, now: Millis) {
        self.with(part, |standing| standing.busy = Some(now));
    }

    /// The last write was taken, and nothing waits.
    pub fn takes(&self, part: Part) {
        self.with(part, |standing| *standing = Standing::default());
    }

    /// The last write was refused; so many records wait for the next try.
    pub fn refuses(&self, part: Part, now: Millis, error: &dyn std::fmt::Display, waiting: usize) {
        self.with(part, |standing| {
            let since = standing.failing.take().map_or(now, |(since, _)| since);
            *standing = Standing { busy: None, failing: Some((since, error.to_string())), waiting };
        });
    }

    /// So many records wait for the next try.
    pub fn waits(&self, part: Part, waiting: usize) {
        self.with(part, |standing| standing.waiting = waiting);
    }

    /// What does not work now, by part.
    pub fn troubles(&self, now: Millis) -> Vec<Trouble> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = |(part, standing): (&Part, &Standing)| {
            let slow = standing.busy.filter(|since| now.since(*since) >= SLOW_MS);
            let slow = || slow.map(|since| (since, "a write is still under way".to_owned()));
            let (since, error) = standing.failing.clone().or_else(slow)?;
            Some(Trouble { part: *part, since, error, waiting: standing.waiting })
        };
        parts.iter().filter_map(trouble).collect()
    }

    fn with(&self, part: Part, change: impl FnOnce(&mut Standing)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(parts.entry(part).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_refuses_or_hangs_is_named_until_it_takes_something() {
        let health = Health::default();
        let named = |now| {
            let troubles = health.troubles(Millis(now));
            troubles.into_iter().map(|t| (t.part.id(), t.since.0, t.waiting)).collect::<Vec<_>>()
        };
        health.begins(Part::Audit, Millis(100));
        assert_eq!(named(100 + SLOW_MS - 1), []);
        assert_eq!(named(100 + SLOW_MS), [("audit", 100, 0)]);
        health.takes(Part::Audit);
        health.refuses(Part::State, Millis(200), &"disk full", 1);
        health.begins(Part::State, Millis(300));
        health.refuses(Part::State, Millis(300), &"disk full", 2);
        assert_eq!(named(300), [("state", 200, 2)], "since the first refusal");
        health.takes(Part::State);
        assert_eq!(named(9000), []);
    }
}
