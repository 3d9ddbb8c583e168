//! Who gives way when a table is full.
//!
//! What is learned from datagrams is keyed by what their senders choose, so anybody who can forge one
//! can fill any table. Newcomers therefore queue up, and the oldest that never brought a good record
//! gives way first; what has proven itself stays. Each decision looks at a fixed number of entries.

use std::collections::VecDeque;

use weir_model::Millis;

/// Entries looked at before one gives way.
const LOOKS: usize = 8;
/// Good records this far apart are proof: forging one is not enough. Milliseconds.
const PROOF_MS: u64 = 10_000;
/// What has been silent for longer gives way, proven or not. Milliseconds.
const FORGET_MS: u64 = 6 * 3_600_000;

/// How an entry of a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is no longer there.
    Gone,
    /// It has brought good records for a while.
    Proven,
    /// It has brought some, and is given more time.
    Promising,
    /// It has brought none, or none for hours.
    Idle,
}

/// When something brought good records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tenure {
    first_good: Millis,
    last_good: Millis,
}

impl Tenure {
    /// That of something which proved itself in an earlier run, and is trusted as of `now`.
    pub(crate) fn restored(now: Millis) -> Self {
        Self { first_good: Millis(1), last_good: now }
    }

    /// It brought a good record.
    #[inline]
    pub(crate) fn good(&mut self, now: Millis) {
        if self.first_good == Millis(0) {
            self.first_good = now;
        }
        self.last_good = now.max(self.last_good);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.first_good > Millis(0)
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.is_good() && self.last_good.since(self.first_good) >= PROOF_MS
    }

    pub(crate) fn standing(&self, now: Millis) -> Standing {
        if !self.is_good() || now.since(self.last_good) > FORGET_MS {
            Standing::Idle
        } else if self.is_proven() {
            Standing::Proven
        } else if self.last_good > self.first_good {
            Standing::Promising
        } else {
            Standing::Idle
        }
    }
}

/// The entries of a table in the order in which they came, by place and serial number.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    queue: VecDeque<(u32, u32)>,
}

impl Newcomers {
    /// Something new has come to a table of `limit` places.
    pub(crate) fn add(
        &mut self,
        entry: (u32, u32),
        limit: usize,
        mut standing: impl FnMut((u32, u32)) -> Standing,
    ) {
        self.queue.push_back(entry);
        // Those that have gone make room, two for each that comes, so that the queue stays short.
        for _ in 0..2 {
            if self.queue.len() <= limit {
                break;
            }
            let Some(oldest) = self.queue.pop_front() else { break };
            if standing(oldest) != Standing::Gone {
                self.queue.push_back(oldest);
            }
        }
    }

    /// Which entry gives way; none when those looked at have all proven themselves.
    pub(crate) fn evict(
        &mut self,
        mut standing: impl FnMut((u32, u32)) -> Standing,
    ) -> Option<(u32, u32)> {
        let mut promising = None;
        for _ in 0..LOOKS.min(self.queue.len()) {
            let entry = self.queue.pop_front()?;
            match standing(entry) {
                Standing::Gone => {}
                Standing::Idle => return Some(entry),
                // Comes back when it falls silent: it is looked at again, behind all the others.
                Standing::Proven => self.queue.push_back(entry),
                Standing::Promising => {
                    self.queue.push_back(entry);
                    promising.get_or_insert(entry);
                }
            }
        }
        promising
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_brought_nothing_gives_way_and_the_proven_stay() {
        let mut newcomers = Newcomers::default();
        let standings =
            [Standing::Proven, Standing::Promising, Standing::Gone, Standing::Idle, Standing::Idle];
        let of = |(index, _): (u32, u32)| standings[index as usize];
        for index in 0..5 {
            newcomers.add((index, 0), 5, of);
        }
        assert_eq!(newcomers.evict(of), Some((3, 0)));
        assert_eq!(newcomers.evict(of), Some((4, 0)));
        // Nobody is idle any more: who is promising gives way before the proven does.
        assert_eq!(newcomers.evict(of), Some((1, 0)));
    }

    #[test]
    fn one_good_record_is_no_proof() {
        let now = Millis(1_700_000_000_000);
        let mut tenure = Tenure::default();
        assert_eq!(tenure.standing(now), Standing::Idle);
        tenure.good(now);
        assert_eq!(tenure.standing(now), Standing::Idle);
        tenure.good(now + 500);
        assert_eq!(tenure.standing(now + 500), Standing::Promising);
        tenure.good(now + PROOF_MS);
        assert_eq!(tenure.standing(now + PROOF_MS), Standing::Proven);
        assert_eq!(tenure.standing(now + PROOF_MS + FORGET_MS + 1), Standing::Idle);
    }

    #[test]
    fn a_queue_of_entries_that_come_and_go_stays_short() {
        let mut newcomers = Newcomers::default();
        for serial in 0..10_000 {
            newcomers.add((0, serial), 4, |(_, of)| {
                if of == serial { Standing::Idle } else { Standing::Gone }
            });
        }
        assert!(newcomers.queue.len() <= 12, "{}", newcomers.queue.len());
    }
}
