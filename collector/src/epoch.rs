//! One life of an exporter's domain, from a start to the next.
//!
//! A restarted router reuses the numbers of its templates for other things: read by the old ones, its
//! records are nonsense. That it has restarted shows in its uptime (version 9) or in its sequence
//! (IPFIX), which begin anew. One datagram is no proof, and what it says governs itself only: its data
//! waits. When nothing but the new life has been heard for a while, the old one is over. When both go on,
//! two senders share the address and the domain.

use weir_model::Millis;

/// How far an uptime may be from what it should be, beside a thousandth of the time passed.
/// Milliseconds.
const UPTIME_APART_MS: u64 = 60_000;
/// How far back a sequence may lie to be that of an overtaken datagram.
const MAX_BEHIND: u32 = 4096;
/// Datagrams that go on where the last left off, without which a counter is no counter.
const PROOF: u8 = 3;
/// A new life is believed after so many datagrams ...
const RESTART_DATAGRAMS: u8 = 3;
/// ... over so long, with none of the old life among them. Milliseconds.
const RESTART_MS: u64 = 2000;

/// What a header says of where its sender stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Milliseconds since it started.
    Uptime(u32),
    /// Records sent before this message.
    Sequence(u32),
}

/// What a message is, by its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Of the life that is known.
    Known,
    /// Of another one, that began at this time: what is older tells nothing of its data.
    Doubtful(Millis),
    /// Of a new life, that began at this time: what is older is to be forgotten.
    Restarted(Millis),
}

/// One life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Epoch {
    /// Uptime or sequence, as of `at`.
    value: u32,
    at: Millis,
    began: Millis,
    /// Datagrams that went on where the last left off.
    hits: u8,
}

/// The lives of one domain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epochs {
    current: Option<Epoch>,
    other: Option<Epoch>,
    /// Both go on: nothing can be told by them.
    shared: bool,
}

impl Epochs {
    /// Where an earlier run left off.
    pub(crate) fn restored(value: u32, at: Millis) -> Self {
        let epoch = Epoch { value, at, began: at, hits: PROOF };
        Self { current: Some(epoch), ..Self::default() }
    }

    /// Where the present life stands, for the next run; none if nothing is certain.
    pub(crate) fn standing(&self) -> Option<(u32, Millis)> {
        let proven = self.current.filter(|epoch| epoch.hits >= PROOF && !self.shared)?;
        Some((proven.value, proven.at))
    }

    /// Takes note of a message.
    #[inline]
    pub(crate) fn heard(&mut self, mark: Mark, now: Millis) -> Heard {
        if let Some(current) = &mut self.current
            && self.other.is_none()
            && current.goes_on(mark, now)
        {
            return Heard::Known;
        }
        self.weigh(mark, now)
    }

    #[cold]
    fn weigh(&mut self, mark: Mark, now: Millis) -> Heard {
        if self.shared {
            return Heard::Known;
        }
        let Some(current) = self.current.as_mut().filter(|current| current.hits >= PROOF) else {
            // Nothing has been proven yet that could have ended.
            let went_on = self.current.as_mut().is_some_and(|current| current.goes_on(mark, now));
            if !went_on {
                self.current = Some(Epoch::new(mark, now));
            }
            return Heard::Known;
        };
        if current.goes_on(mark, now) {
            if let Some(other) = self.other {
                let both = other.hits >= RESTART_DATAGRAMS;
                self.shared = both;
                if both || now.since(other.at) > UPTIME_APART_MS {
                    self.other = None;
                }
            }
            return Heard::Known;
        }
        let last_known = current.at;
        let other = self.other.get_or_insert_with(|| Epoch::new(mark, now));
        if other.at < now && !other.goes_on(mark, now) {
            *other = Epoch::new(mark, now);
        }
        let other = *other;
        let long = now.since(other.began) >= RESTART_MS && last_known <= other.began;
        if other.hits >= RESTART_DATAGRAMS && long {
            *self = Self { current: Some(other), other: None, shared: false };
            return Heard::Restarted(other.began);
        }
        Heard::Doubtful(other.began)
    }
}

impl Epoch {
    fn new(mark: Mark, now: Millis) -> Self {
        let value = match mark {
            Mark::Uptime(value) | Mark::Sequence(value) => value,
        };
        Self { value, at: now, began: now, hits: 0 }
    }

    /// Whether a message goes on where this life stands, which then stands there.
    #[inline]
    fn goes_on(&mut self, mark: Mark, now: Millis) -> bool {
        let (goes_on, moved, value) = match mark {
            Mark::Uptime(uptime) => {
                let passed = now.since(self.at);
                // Both wrap every 49.7 days.
                let expected = self.value.wrapping_add(low(passed));
                let apart = uptime.wrapping_sub(expected);
                let apart = u64::from(apart.min(apart.wrapping_neg()));
                (apart <= UPTIME_APART_MS + passed / 1000, uptime != self.value, uptime)
            }
            Mark::Sequence(sequence) => {
                let ahead = sequence.wrapping_sub(self.value);
                // Losses take it ahead; an overtaken datagram does not turn it back.
                let onward = ahead <= u32::MAX / 2;
                let overtaken = ahead > u32::MAX - MAX_BEHIND;
                let moved = onward && ahead > 0;
                (onward || overtaken, moved, if onward { sequence } else { self.value })
            }
        };
        if goes_on {
            (self.value, self.at) = (value, now);
            if moved {
                self.hits = self.hits.saturating_add(1);
            }
        }
        goes_on
    }
}

/// The low 32 bits of a time.
fn low(ms: u64) -> u32 {
    u32::try_from(ms & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn run(marks: impl IntoIterator<Item = (u64, Mark)>) -> Vec<Heard> {
        let mut epochs = Epochs::default();
        marks.into_iter().map(|(ms, mark)| epochs.heard(mark, NOW + ms)).collect()
    }

    #[test]
    fn a_restart_is_believed_when_only_the_new_life_is_heard() {
        let uptime = |n: u64| {
            let up = if n < 10 { 3_000_000_000 + n * 1000 } else { n * 1000 };
            (n * 1000, Mark::Uptime(u32::try_from(up).unwrap()))
        };
        let began = NOW + 10_000;
        let heard = run((0..15).map(uptime));
        assert!(heard[..10].iter().all(|heard| *heard == Heard::Known));
        assert_eq!(heard[10..13], [Heard::Doubtful(began); 3]);
        assert_eq!(heard[13..], [Heard::Restarted(began), Heard::Known]);
        let sequence = |n: u64| {
            let sequence = if n < 10 { 500_000 + n * 20 } else { (n - 10) * 20 };
            let sequence = u32::try_from(sequence).unwrap();
            (n * 1000, Mark::Sequence(sequence))
        };
        let heard = run((0..15).map(sequence));
        assert_eq!(heard[10..], run((0..15).map(uptime))[10..]);
    }

    #[test]
    fn a_forged_header_is_doubtful_and_nothing_else_is() {
        let mut epochs = Epochs::default();
        for n in 0..1000_u64 {
            let now = NOW + n * 100;
            let up = u32::try_from(10_000_000 + n * 100).unwrap();
            assert_eq!(epochs.heard(Mark::Uptime(up), now), Heard::Known, "{n}");
            if n > 10 && n % 7 == 0 {
                let forged = Mark::Uptime(u32::try_from(n * 7919 % 1000).unwrap());
                let heard = epochs.heard(forged, now + 50);
                assert!(heard == Heard::Known || matches!(heard, Heard::Doubtful(_)), "{n}");
            }
        }
    }

    #[test]
    fn two_senders_that_both_go_on_are_not_one_that_restarts() {
        let mut epochs = Epochs::default();
        let mut heard = Vec::new();
        for n in 0..50_u64 {
            let now = NOW + n * 1000;
            for start in [90_000_000, 1_000_000] {
                let up = u32::try_from(start + n * 1000).unwrap();
                heard.push(epochs.heard(Mark::Uptime(up), now));
            }
        }
        assert!(heard[12..].iter().all(|heard| *heard == Heard::Known), "{heard:?}");
        assert!(!heard.iter().any(|heard| matches!(heard, Heard::Restarted(_))));
    }

    #[test]
    fn what_does_not_count_tells_nothing() {
        // No uptime at all; a sequence that stands still or counts datagrams; losses; an outage.
        let still = run((0..100).map(|n| (n * 90_000, Mark::Uptime(0))));
        assert!(still.iter().all(|heard| *heard == Heard::Known));
        let zero = run((0..100).map(|n| (n * 1000, Mark::Sequence(0))));
        assert!(zero.iter().all(|heard| *heard == Heard::Known));
        let datagrams = run((0..100).map(|n| {
            let n32 = u32::try_from(n).unwrap();
            (n * 1000, Mark::Sequence(n32))
        }));
        assert!(datagrams.iter().all(|heard| *heard == Heard::Known));
        let lossy = run((0..100).map(|n| {
            let sequence = u32::try_from(n * n * 1000).unwrap();
            (n * 60_000, Mark::Sequence(sequence))
        }));
        assert!(lossy.iter().all(|heard| *heard == Heard::Known));
        let wrapping =
            run((0..100)
                .map(|n| (n * 86_400_000, Mark::Uptime(low(4_000_000_000 + n * 86_400_000)))));
        assert!(wrapping.iter().all(|heard| *heard == Heard::Known));
    }
}
