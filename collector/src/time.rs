//! When a flow's packets passed, on weir's clock.
//!
//! Exporters' clocks are not trusted: an age taken from the exporter's own uptime needs no clock,
//! and absolute times are shifted by the skew seen between export and arrival.

use weir_model::Millis;

/// Longest flow taken as it is; a longer one counts as having lasted this long. Milliseconds.
pub(crate) const MAX_DURATION_MS: u64 = 300_000;
/// Largest plausible age of a flow's end; beyond it the exporter's clock is broken. Milliseconds.
pub(crate) const MAX_AGE_MS: u64 = 3_600_000;
/// The same when only the record says so, and its header says otherwise. Milliseconds.
const MAX_AGE_UNCONFIRMED_MS: i64 = 300_000;
/// How far ahead of its own header a record may be, which is cut to the second. Milliseconds.
const AHEAD_MS: i64 = 2000;

/// What a record says about its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowTime {
    /// Relative to the export: milliseconds since the end, and how long it lasted.
    Age { end: u64, duration: u64 },
    /// On the exporter's clock, milliseconds since the epoch.
    Absolute { start: u64, end: u64 },
}

/// `now - then` on a 32-bit millisecond counter that wraps every 49.7 days. A `then` slightly in
/// the future, as some exporters send, is 0.
#[inline]
pub(crate) fn uptime_age(now: u32, then: u32) -> u64 {
    let age = now.wrapping_sub(then);
    // The upper half is "in the future".
    if age > u32::MAX / 2 { 0 } else { u64::from(age) }
}

/// A domain's clock against ours, learned from the export times in its headers.
///
/// Header times are whole seconds in NetFlow v9 and IPFIX, so a reading is up to a second low; of those
/// within a second of the median the highest is right to within the network's delay. A median, so that
/// no single header, and no minority of them, says what the time is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// The last readings, in a ring; the oldest is at `next`.
    readings: [i64; READINGS],
    len: usize,
    next: usize,
    last: Millis,
    skew: i64,
}

/// Readings remembered of a clock.
const READINGS: usize = 15;
/// Once there are as many, one is taken so often, so that a burst is not a majority. Milliseconds.
const READING_EVERY_MS: u64 = 500;
/// A header's time is cut to the second.
const WHOLE_SECOND_MS: i64 = 1000;
/// A header this much further from the median than whole seconds explain has a clock of its own.
/// Milliseconds.
const APART_MS: i64 = 500;

impl Clock {
    /// Takes note of a header that says `unix_ms` and arrived at `now`.
    #[inline]
    pub(crate) fn exported(&mut self, unix_ms: u64, now: Millis) {
        if self.len < READINGS || now.since(self.last) >= READING_EVERY_MS {
            self.read(signed(unix_ms).saturating_sub(signed(now.0)), now);
        }
    }

    fn read(&mut self, reading: i64, now: Millis) {
        self.readings[self.next] = reading;
        self.next = (self.next + 1) % READINGS;
        self.len = (self.len + 1).min(READINGS);
        self.last = now;
        let mut sorted = self.readings;
        let sorted = &mut sorted[..self.len];
        sorted.sort_unstable();
        let median = sorted[(self.len - 1) / 2];
        let near = |reading: &&i64| **reading <= median.saturating_add(WHOLE_SECOND_MS);
        self.skew = sorted.iter().rev().find(near).copied().unwrap_or(median);
    }

    /// The domain's clock minus ours, milliseconds; 0 before the first reading.
    pub(crate) fn skew_ms(&self) -> i64 {
        self.skew
    }

    /// By how much the absolute times of a message are corrected. One that says another time than the
    /// median of its domain's is read by its own header: its record times are of the same clock, and
    /// nobody else's are touched by it. A header in whole seconds is up to a second low: a reading
    /// that this explains is a clock that is right, and correcting it would move each record by another
    /// fraction of a second, so that those of one flow leave gaps or overlap.
    #[inline]
    pub(crate) fn correction(&self, unix_ms: u64, now: Millis) -> i64 {
        let own = signed(unix_ms).saturating_sub(signed(now.0));
        let apart = own.saturating_sub(self.skew);
        let agrees = (-WHOLE_SECOND_MS - APART_MS..=APART_MS).contains(&apart);
        let skew = if agrees { self.skew } else { own };
        if (-WHOLE_SECOND_MS..=0).contains(&skew) { 0 } else { skew }
    }
}

/// What of a flow's volume is told: of one that is cut off the octets go with the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// How long it lasted in all, milliseconds; 0 when nothing is cut off.
    pub(crate) lasted_ms: u64,
}

impl Cut {
    #[inline]
    pub(crate) fn of(duration: u64) -> Self {
        Self { lasted_ms: if duration > MAX_DURATION_MS { duration } else { 0 } }
    }

    /// What is left of a count, at least 1 of what was not 0.
    #[inline]
    pub(crate) fn count(self, all: u64) -> u64 {
        if self.lasted_ms == 0 {
            return all;
        }
        let left = u128::from(all) * u128::from(MAX_DURATION_MS) / u128::from(self.lasted_ms);
        u64::try_from(left).unwrap_or(u64::MAX).max(all.min(1))
    }
}

/// First and last packet on our clock, never after `now`, of a message whose clock is off by
/// `correction`. Tells also whether the times had to be given up because they cannot be: the record then
/// counts at its arrival.
#[inline]
pub(crate) fn event(time: FlowTime, correction: i64, now: Millis) -> (Millis, Millis, bool, Cut) {
    let (age, duration) = match time {
        FlowTime::Age { end, duration } => ((end <= MAX_AGE_MS).then_some(end), duration),
        FlowTime::Absolute { start, end } => {
            (absolute_age(end, correction, now), end.saturating_sub(start))
        }
    };
    let end = now - age.unwrap_or(0);
    (end - duration.min(MAX_DURATION_MS), end, age.is_none(), Cut::of(duration))
}

/// How long ago a time on a corrected clock was. A header may be of another clock than the records are
/// (a dead battery beside a running NTP): then the records' own time is tried as it is.
#[inline]
fn absolute_age(at: u64, correction: i64, now: Millis) -> Option<u64> {
    let age = |correction: i64| signed(now.0).saturating_sub(signed(at).saturating_sub(correction));
    let corrected = age(correction);
    if let Ok(age @ 0..=MAX_AGE_MS) = u64::try_from(corrected) {
        return Some(age);
    }
    if (-AHEAD_MS..0).contains(&corrected) {
        return Some(0);
    }
    let as_it_is = age(0);
    (-AHEAD_MS..=MAX_AGE_UNCONFIRMED_MS).contains(&as_it_is).then(|| as_it_is.max(0).unsigned_abs())
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// An exporter's cache timeouts, 0 when not known. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// After this long a running flow is told of.
    pub(crate) active_ms: u32,
    /// After this long a silent flow is told of.
    pub(crate) inactive_ms: u32,
}

impl Timeouts {
    /// How long after its end a record may come of a flow that did not end. Milliseconds.
    pub(crate) const PROMPT_MS: u64 = 3000;
}

/// An exporter's timeouts: as its options say (IE 36, 37), else as its long flows show. No record is
/// longer than the active timeout, and flows that last are as long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LearnedTimeouts {
    said: Timeouts,
    /// The two longest records of this period, and of the one before: one alone may be a mistake
    /// of the exporter's.
    longest: [u32; 2],
    before: [u32; 2],
    period_end: Millis,
}

/// A timeout that no record reaches any more is forgotten after this long, at most twice over.
/// Milliseconds.
const TIMEOUT_PERIOD_MS: u64 = 600_000;

impl LearnedTimeouts {
    /// Takes note of a record's duration, milliseconds; tells the timeouts if that changes them.
    pub(crate) fn lasted(&mut self, duration: u64, now: Millis) -> Option<Timeouts> {
        let before = self.known();
        if now >= self.period_end {
            self.before = std::mem::take(&mut self.longest);
            self.period_end = now + TIMEOUT_PERIOD_MS;
        }
        let duration = u32::try_from(duration).unwrap_or(u32::MAX);
        if duration > self.longest[0] {
            self.longest = [duration, self.longest[0]];
        } else {
            self.longest[1] = self.longest[1].max(duration);
        }
        self.changed(before)
    }

    /// Takes note of what an option says, seconds; 0 for nothing.
    pub(crate) fn said(&mut self, active_secs: u64, inactive_secs: u64) -> Option<Timeouts> {
        let before = self.known();
        let ms = |secs: u64| u32::try_from(secs.min(MAX_DURATION_MS / 1000) * 1000).unwrap_or(0);
        if active_secs > 0 {
            self.said.active_ms = ms(active_secs);
        }
        if inactive_secs > 0 {
            self.said.inactive_ms = ms(inactive_secs);
        }
        self.changed(before)
    }

    pub(crate) fn known(&self) -> Timeouts {
        if self.said.active_ms > 0 {
            return self.said;
        }
        let of = |longest: [u32; 2]| if longest[1] > 0 { longest[1] } else { longest[0] };
        Timeouts { active_ms: of(self.longest).max(of(self.before)), ..self.said }
    }

    fn changed(&self, before: Timeouts) -> Option<Timeouts> {
        let now = self.known();
        (now != before).then_some(now)
    }
}

/// Export lag of one exporter: how long after a flow's first packet its record arrived.
///
/// A histogram with a bucket for each doubling and four steps between; halved once a minute so
/// that a changed timeout shows within minutes.
#[derive(Clone, Debug)]
pub(crate) struct Lag {
    counts: [u32; Self::BUCKETS],
    total: u32,
    next_decay: Millis,
}

impl Default for Lag {
    fn default() -> Self {
        Self { counts: [0; Self::BUCKETS], total: 0, next_decay: Millis(0) }
    }
}

impl Lag {
    const BUCKETS: usize = 80;

    /// Takes note of one record's lag in milliseconds.
    pub(crate) fn add(&mut self, lag_ms: u64) {
        let bucket = Self::bucket(lag_ms);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.total = self.total.saturating_add(1);
    }

    /// Forgets half of what is older than a minute.
    pub(crate) fn decay(&mut self, now: Millis) {
        if now < self.next_decay && self.total < u32::MAX / 2 {
            return;
        }
        let first = self.next_decay == Millis(0);
        self.next_decay = now + 60_000;
        if first {
            return;
        }
        for count in &mut self.counts {
            *count /= 2;
        }
        self.total = self.counts.iter().sum();
    }

    /// The lag that `percent` of the records stay within, rounded up to the bucket's end.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let wanted = (u64::from(self.total) * percent).div_ceil(100);
        if wanted == 0 {
            return 0;
        }
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Self::upper(bucket);
            }
        }
        0
    }

    fn bucket(lag_ms: u64) -> usize {
        if lag_ms < 8 {
            return 0;
        }
        let log = lag_ms.ilog2();
        let quarter = (lag_ms >> (log - 2)) & 3;
        let bucket = (log - 3) * 4 + u32::try_from(quarter).unwrap_or(0) + 1;
        usize::try_from(bucket).unwrap_or(usize::MAX).min(Self::BUCKETS - 1)
    }

    fn upper(bucket: usize) -> u64 {
        if bucket == 0 {
            return 0;
        }
        let step = bucket - 1;
        let (log, quarter) = (step / 4 + 3, step % 4);
        (5 + quarter as u64) << (log - 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_wraps_and_tolerates_the_near_future() {
        assert_eq!(uptime_age(1000, 400), 600);
        assert_eq!(uptime_age(100, u32::MAX - 99), 200);
        assert_eq!(uptime_age(1000, 1010), 0);
    }

    #[test]
    fn a_skewed_clock_is_corrected_by_its_best_reading() {
        let mut clock = Clock::default();
        let now = Millis(1_000_000_000);
        // One hour ahead; headers in whole seconds.
        let header = |at: Millis| (at.0 + 3_600_000) / 1000 * 1000;
        for ms in 0..30 {
            let at = now + ms * 500;
            clock.exported(header(at), at);
        }
        assert_eq!(clock.skew_ms(), 3_600_000);
        let at = now + 15_300;
        let end = at.0 - 1000 + 3_600_000;
        let time = FlowTime::Absolute { start: end - 500, end };
        let correction = clock.correction(header(at), at);
        assert_eq!(event(time, correction, at), (at - 1500, at - 1000, false, Cut::default()));
    }

    #[test]
    fn one_header_in_three_that_lies_moves_no_other() {
        for lie in [-1_800_000_i64, -5000, 5000, 600_000, 1_800_000, i64::MAX / 4] {
            let mut clock = Clock::default();
            for n in 0..100_u64 {
                let at = Millis(1_700_000_000_000) + n * 333;
                let honest = at.0 / 1000 * 1000;
                if n % 3 == 0 {
                    clock.exported(honest.saturating_add_signed(lie), at);
                } else {
                    clock.exported(honest, at);
                }
                assert_eq!(clock.correction(honest, at), 0, "{lie} {n}");
            }
            assert!(clock.skew_ms().abs() <= 1000, "{lie}: {}", clock.skew_ms());
        }
    }

    #[test]
    fn a_broken_clock_counts_as_arrival_and_long_flows_are_clipped() {
        let now = Millis(1_700_000_000_000);
        let age = FlowTime::Age { end: 4_000_000, duration: 9_000_000 };
        let cut = Cut { lasted_ms: 9_000_000 };
        assert_eq!(event(age, 0, now), (now - 300_000, now, true, cut));
        assert_eq!((cut.count(9000), cut.count(1), cut.count(0)), (300, 1, 0));
        let whole = Cut::default();
        // Neither by its header nor by our clock.
        let end = now.0 - 7_200_000;
        assert_eq!(event(FlowTime::Absolute { start: end, end }, 0, now), (now, now, true, whole));
        let end = now.0 + 7_200_000;
        assert_eq!(event(FlowTime::Absolute { start: end, end }, 0, now), (now, now, true, whole));
        // The header is of 1970, the records are right.
        let time = FlowTime::Absolute { start: now.0 - 800, end: now.0 - 500 };
        let correction = Clock::default().correction(0, now);
        assert_eq!(event(time, correction, now), (now - 800, now - 500, false, whole));
    }

    #[test]
    fn lag_percentiles_bound_what_was_seen() {
        let mut lag = Lag::default();
        for ms in 1..=1000 {
            lag.add(ms);
        }
        let p99 = lag.percentile(99);
        assert!((990..=1280).contains(&p99), "{p99}");
        let p50 = lag.percentile(50);
        assert!((500..=640).contains(&p50), "{p50}");
        for ms in [0, 7, 8, 9, 100, 65_000, 300_000, 10_000_000_000] {
            let bucket = Lag::bucket(ms);
            assert!(ms < 8 || bucket == Lag::BUCKETS - 1 || Lag::upper(bucket) >= ms, "{ms}");
        }
    }
}
