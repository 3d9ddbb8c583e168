//! sFlow data sources: what an agent says of a port, and the sampling rate that follows from it.
//!
//! An agent under load drops samples, precisely in a flood, while its sample pool goes on counting
//! packets. The true rate is the change of the pool over the samples received: that covers the
//! agent's drops and lost datagrams alike. Between two samples the pool grows by a random number
//! (geometric, with the rate as its mean), so the header's rate is believed until the pool is
//! further from it than chance allows.

use rustc_hash::FxHashMap;
use weir_model::{InterfaceStatus, Millis, SamplingSource};

use crate::sampling::{FIRST_MAX, JUMP, MAX_RATE, Resolved};

/// Most data sources remembered for one exporter.
const MAX_SOURCES: usize = 4096;
/// A judgement on the pool is made after so many samples ...
const WINDOW_SAMPLES: u32 = 256;
/// ... or after so long, milliseconds, if there were at least [`MIN_SAMPLES`].
const WINDOW_MS: u64 = 2000;
const MIN_SAMPLES: u32 = 16;
/// Standard deviations beyond which the pool is believed instead of the header.
const SIGMAS: f64 = 4.0;
/// A rate by the pool is believed when it has stood for so long, milliseconds ...
const STANDING_MS: u64 = 5000;
/// ... and is at most so many times the header's.
const MOST_TIMES: f64 = 64.0;
/// Another rate than the usual one is the usual one after so many samples ...
const UNUSUAL_SAMPLES: u32 = 8;
/// ... and so long. Milliseconds.
const UNUSUAL_MS: u64 = 10_000;
/// A pool that has gone back, or jumps by half its range, has been reset.
const RESET: u32 = u32::MAX / 2;
/// Counters contradict samples when they have for so long, milliseconds ...
const DIFFER_MS: u64 = 120_000;
/// ... with so many samples between two of them.
const MIN_COMPARED: u32 = 100;
/// Octets of a frame that are no part of the IP packet: Ethernet header and check sequence.
const FRAME_OVERHEAD: u64 = 18;

/// Which data source: the sub-agent by its serial number, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    pub(crate) stream: u32,
    /// The source's class and index in one, so that the key travels in two registers.
    port: u64,
}

impl SourceKey {
    pub(crate) fn new(stream: u32, class: u32, index: u32) -> Self {
        Self { stream, port: u64::from(class) << 32 | u64::from(index) }
    }

    /// The index of the interface that it is, if it is one: class 0.
    pub(crate) fn interface(self) -> Option<u32> {
        u32::try_from(self.port).ok()
    }

    /// Whether it is the interface of that index: class 0.
    #[inline]
    pub(crate) fn is_interface(self, index: u32) -> bool {
        self.port == u64::from(index)
    }
}

/// What a flow sample says of its source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) rate: u32,
    pub(crate) pool: u32,
    /// Which life of the agent it is of: pools begin anew with each, wherever they stood.
    pub(crate) life: u32,
}

/// What a counter sample says of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceCounters {
    pub(crate) index: u32,
    pub(crate) speed_bps: u64,
    pub(crate) in_octets: u64,
}

#[derive(Clone, Debug, Default)]
struct Source {
    /// The pool of the last sample; none before the first.
    last_pool: Option<u32>,
    life: u32,
    /// The rate that its samples usually state, 0 when not known yet; and another one that they state,
    /// since when, and how often. A sample's own rate counts unless it is far above the usual one.
    usual: u32,
    other: u32,
    other_since: Millis,
    others: u32,
    /// Since the window began.
    packets: u64,
    samples: u32,
    began: Millis,
    /// The rate by the pool, once it has differed from the header's for certain and for long enough.
    by_pool: Option<u32>,
    /// The rate by the pool in the last window, and since when it has been about that.
    candidate: Option<(u32, Millis)>,
    /// Frame octets of received packets by the samples since the last counters.
    sampled_octets: u64,
    counters: Option<(InterfaceCounters, Millis)>,
    status: Option<InterfaceStatus>,
    /// Samples of received packets since the last counters.
    received: u32,
    /// Since when its counters have said something else than its samples.
    differs: Option<(Millis, bool)>,
}

/// The data sources of one exporter.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    sources: Vec<Source>,
    index: FxHashMap<SourceKey, usize>,
    /// The one last looked at: an agent's samples come in runs of one port.
    last: Option<(SourceKey, usize)>,
    /// Speeds of interfaces, bits a second.
    speeds: FxHashMap<u32, u64>,
}

impl Sources {
    /// The rate of a sample, `None` when neither header nor pool says.
    #[inline]
    pub(crate) fn rate(&mut self, key: SourceKey, said: Pool, now: Millis) -> Option<Resolved> {
        let Some(index) = self.find(key) else {
            // The first sample is what later ones are measured from.
            if let Some(source) = self.entry(key, Some(said.pool), now) {
                source.life = said.life;
            }
            return stated(said.rate.min(FIRST_MAX));
        };
        let source = &mut self.sources[index];
        let said = if said.rate == source.usual && source.other == 0 {
            said
        } else {
            Pool { rate: source.unusual(said.rate, now), ..said }
        };
        let header = stated(said.rate);
        if source.life != said.life {
            source.begin_anew(now);
            (source.last_pool, source.life) = (None, said.life);
        }
        let Some(last) = source.last_pool.replace(said.pool) else { return header };
        let grown = said.pool.wrapping_sub(last);
        if grown > RESET {
            source.begin_anew(now);
            return header;
        }
        source.packets += u64::from(grown);
        source.samples += 1;
        let due = now.since(source.began) >= WINDOW_MS && source.samples >= MIN_SAMPLES;
        if source.samples >= WINDOW_SAMPLES || due {
            source.judge(said.rate, now);
        }
        source.by_pool.map(|rate| (rate, SamplingSource::Pool)).or(header)
    }

    /// Adds a sampled packet of `octets` at layer 3 that the source's own port received.
    #[inline]
    pub(crate) fn received(&mut self, key: SourceKey, octets: u64, rate: u32) {
        if let Some(index) = self.find(key) {
            let source = &mut self.sources[index];
            let frame = octets.saturating_add(FRAME_OVERHEAD);
            let scaled = frame.saturating_mul(u64::from(rate));
            source.sampled_octets = source.sampled_octets.saturating_add(scaled);
            source.received = source.received.saturating_add(1);
        }
    }

    /// Takes note of a port's counters and compares them with the samples since the last ones.
    pub(crate) fn counters(&mut self, key: SourceKey, counters: InterfaceCounters, now: Millis) {
        if counters.speed_bps > 0
            && (self.speeds.len() < MAX_SOURCES || self.speeds.contains_key(&counters.index))
        {
            self.speeds.insert(counters.index, counters.speed_bps);
        }
        let Some(source) = self.entry(key, None, now) else { return };
        if let Some((before, at)) = source.counters.replace((counters, now)) {
            let counted = counters.in_octets.checked_sub(before.in_octets);
            if let (Some(counted), elapsed @ 1..) = (counted, now.since(at)) {
                let bps = |octets: u64| octets.saturating_mul(8000) / elapsed;
                let differs = differ(counted, source.sampled_octets, source.received);
                source.differs = differs.then(|| {
                    let since = source.differs.map_or(at, |(since, _)| since);
                    (since, now.since(since) >= DIFFER_MS)
                });
                source.status = Some(InterfaceStatus {
                    index: counters.index,
                    speed_bps: counters.speed_bps,
                    counted_in_bps: bps(counted),
                    sampled_in_bps: bps(source.sampled_octets),
                    ..InterfaceStatus::default()
                });
            }
        }
        (source.sampled_octets, source.received) = (0, 0);
    }

    /// Whether the counters of some port have contradicted its samples for minutes.
    pub(crate) fn differ(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.differs, Some((_, true))))
    }

    /// Speed of an interface by its counters, bits a second; 0 when not known.
    #[cold]
    pub(crate) fn speed_bps(&self, index: u32) -> u64 {
        self.speeds.get(&index).copied().unwrap_or(0)
    }

    /// The ports with counters, by index.
    pub(crate) fn interfaces(&self) -> Vec<InterfaceStatus> {
        let mut out: Vec<_> =
            self.sources.iter().filter_map(|source| source.status.clone()).collect();
        out.sort_by_key(|status| status.index);
        out
    }

    #[inline]
    fn find(&mut self, key: SourceKey) -> Option<usize> {
        if let Some((last, index)) = self.last
            && last == key
        {
            return Some(index);
        }
        let index = *self.index.get(&key)?;
        self.last = Some((key, index));
        Some(index)
    }

    fn entry(&mut self, key: SourceKey, pool: Option<u32>, now: Millis) -> Option<&mut Source> {
        let index = match self.find(key) {
            Some(index) => index,
            None if self.sources.len() >= MAX_SOURCES => return None,
            None => {
                self.sources.push(Source { last_pool: pool, began: now, ..Source::default() });
                self.index.insert(key, self.sources.len() - 1);
                self.sources.len() - 1
            }
        };
        self.sources.get_mut(index)
    }
}

#[inline]
fn stated(rate: u32) -> Option<Resolved> {
    (rate > 0).then_some((rate, SamplingSource::Record))
}

/// Whether a port's counters tell of something else than its samples, by more than chance: by a half at
/// the least. Below some hundred samples nothing can be said.
fn differ(counted: u64, sampled: u64, samples: u32) -> bool {
    let least_rate = sampled / u64::from(samples.max(1));
    // What so many samples should have been, had the counters and the rate been right.
    let expected = counted.checked_div(least_rate).unwrap_or(0);
    let enough = samples >= MIN_COMPARED || expected >= u64::from(MIN_COMPARED);
    enough && (counted / 3 * 2 > sampled || sampled / 3 * 2 > counted)
}

impl Source {
    fn begin_anew(&mut self, now: Millis) {
        (self.packets, self.samples, self.began) = (0, 0, now);
        (self.by_pool, self.candidate) = (None, None);
    }

    /// What counts of a rate that is not the usual one. It becomes the usual one when it has been stated for
    /// a while and no other; until then it is that sample's own word, within bounds.
    #[cold]
    fn unusual(&mut self, rate: u32, now: Millis) -> u32 {
        if rate == 0 {
            // No word at all, and none that a usual one could be taken from.
            return 0;
        }
        if rate == self.usual || rate != self.other {
            (self.other, self.other_since, self.others) = (rate, now, 0);
        }
        if rate == self.usual {
            self.other = 0;
            return rate;
        }
        self.others += 1;
        if self.others >= UNUSUAL_SAMPLES && now.since(self.other_since) >= UNUSUAL_MS {
            (self.usual, self.other, self.others) = (rate, 0, 0);
            return rate;
        }
        match self.usual {
            0 => rate.min(FIRST_MAX),
            usual => rate.min(usual.saturating_mul(JUMP)),
        }
    }

    /// Ends a window: a rate by the pool that is further from the header's than chance allows is
    /// believed when it is within reason and has stood for a while.
    #[cold]
    fn judge(&mut self, header: u32, now: Millis) {
        let rate = derived(header, self.packets, self.samples);
        let since = match (rate, self.candidate) {
            (Some(rate), Some((before, since))) if rate / 2 <= before && before / 2 <= rate => {
                since
            }
            _ => self.began,
        };
        self.candidate = rate.map(|rate| (rate, since));
        self.by_pool = rate.filter(|_| now.since(since) >= STANDING_MS);
        (self.packets, self.samples, self.began) = (0, 0, now);
    }
}

/// The rate by the pool if it is too far from the header's to be chance, and can be true: an agent
/// drops samples, it does not make any up, so that the true rate is never below the header's; and one
/// far above it is a pool that counts something else, or was set anew.
fn derived(header: u32, packets: u64, samples: u32) -> Option<u32> {
    let by_pool = u32::try_from(packets / u64::from(samples.max(1))).unwrap_or(u32::MAX);
    if by_pool == 0 || by_pool > MAX_RATE {
        // The agent does not count its pool.
        return None;
    }
    if header == 0 {
        return Some(by_pool);
    }
    let times = f64::from(by_pool) / f64::from(header);
    let certain = times - 1.0 > SIGMAS / f64::from(samples).sqrt();
    (certain && times <= MOST_TIMES).then_some(by_pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SourceKey = SourceKey { stream: 1, port: 3 };
    const NOW: Millis = Millis(1_700_000_000_000);

    #[test]
    fn the_header_is_believed_while_the_pool_agrees() {
        let mut sources = Sources::default();
        let mut rate = None;
        for n in 0..2000_u32 {
            // The pool wraps on the way, and grows by 1000 give or take.
            let pool = (u32::MAX - 500_000).wrapping_add(n * 1000 + n % 7 * 100);
            rate = sources.rate(KEY, Pool { rate: 1000, pool, life: 0 }, NOW + u64::from(n));
        }
        assert_eq!(rate, Some((1000, SamplingSource::Record)));
    }

    #[test]
    fn a_rate_far_above_the_usual_one_counts_once_it_stands() {
        let mut sources = Sources::default();
        let mut say = |rate: u32, secs: u64| {
            let pool = Pool { rate, pool: 0, life: 0 };
            sources.rate(KEY, pool, NOW + secs * 1000).map(|(rate, _)| rate)
        };
        // Nothing is known: what no router is set to is not believed at once.
        assert_eq!(say(10_000_000, 0), Some(FIRST_MAX));
        for secs in 1..100 {
            assert_eq!(say(1000, secs), Some(1000));
        }
        // Single forged ones, in steps and by the dozen.
        for forged in [16_000, 256_000, 4_000_000, 10_000_000] {
            assert!(say(forged, 100) <= Some(16_000));
        }
        for n in 0..100 {
            assert_eq!(say(10_000_000, 100 + n), Some(16_000));
            assert_eq!(say(1000, 100 + n), Some(1000));
        }
        // The agent is set to another rate.
        for n in 0..30 {
            assert_eq!(say(100_000, 200 + n), Some(if n < 10 { 16_000 } else { 100_000 }), "{n}");
        }
        // A lower one is at once what it says.
        assert_eq!(say(10, 300), Some(10));
    }

    #[test]
    fn an_agent_that_drops_samples_is_scaled_by_its_pool() {
        let mut sources = Sources::default();
        let mut rate = None;
        for n in 0..300_u32 {
            let pool = n.wrapping_mul(20_000);
            let now = NOW + u64::from(n) * 25;
            rate = sources.rate(KEY, Pool { rate: 1000, pool, life: 0 }, now);
            let standing = n < 180;
            assert!(!standing || rate == Some((1000, SamplingSource::Record)), "{n}");
        }
        assert_eq!(rate, Some((20_000, SamplingSource::Pool)));
        // A restart of the agent: back to the header until there is evidence.
        rate = sources.rate(KEY, Pool { rate: 1000, pool: 3, life: 0 }, NOW + 7600);
        assert_eq!(rate, Some((1000, SamplingSource::Record)));
    }

    /// What a sample says after 20 seconds, ten a second, when the pool grows so much with each.
    fn settled(rate: u32, grows: u32) -> Option<Resolved> {
        let mut sources = Sources::default();
        let mut last = None;
        for n in 0..200_u32 {
            let pool = n.wrapping_mul(grows).wrapping_add(3_000_000_000);
            last = sources.rate(KEY, Pool { rate, pool, life: 0 }, NOW + u64::from(n) * 100);
        }
        last
    }

    #[test]
    fn a_pool_that_cannot_be_is_not_believed() {
        let header = Some((1000, SamplingSource::Record));
        // It counts samples, or drops that no agent has.
        assert_eq!(settled(1000, 1), header);
        assert_eq!(settled(1000, 500), header);
        assert_eq!(settled(1000, 9_000_000), header);
        assert_eq!(settled(1000, 60_000), Some((60_000, SamplingSource::Pool)));
        assert_eq!(settled(0, 500), Some((500, SamplingSource::Pool)));
        assert_eq!(settled(0, 20_000_000), None);
    }

    #[test]
    fn counters_before_the_first_sample_are_no_pool() {
        let mut sources = Sources::default();
        let counters = InterfaceCounters { index: 3, speed_bps: 0, in_octets: 0 };
        sources.counters(KEY, counters, NOW);
        for n in 0..600_u32 {
            let pool = 900_000_000 + n * 1000;
            let rate =
                sources.rate(KEY, Pool { rate: 1000, pool, life: 0 }, NOW + u64::from(n) * 100);
            assert_eq!(rate, Some((1000, SamplingSource::Record)));
        }
    }

    #[test]
    fn one_jump_of_a_pool_is_no_rate() {
        let mut sources = Sources::default();
        for n in 0..600_u32 {
            // Set anew on the way, by less than half its range.
            let pool = if n < 300 { 3_000_000_000 + n * 1000 } else { n * 1000 };
            let rate =
                sources.rate(KEY, Pool { rate: 1000, pool, life: 0 }, NOW + u64::from(n) * 100);
            assert_eq!(rate, Some((1000, SamplingSource::Record)), "{n}");
        }
    }

    #[test]
    fn a_pool_that_stands_still_says_nothing() {
        let mut sources = Sources::default();
        for n in 0..300 {
            let rate = sources.rate(KEY, Pool { rate: 512, pool: 0, life: 0 }, NOW + n);
            assert_eq!(rate, Some((512, SamplingSource::Record)));
        }
        assert_eq!(sources.rate(KEY, Pool { rate: 0, pool: 0, life: 0 }, NOW), None);
    }

    #[test]
    fn counters_check_the_samples() {
        let mut sources = Sources::default();
        let at = |in_octets| InterfaceCounters { index: 3, speed_bps: 10_000_000_000, in_octets };
        sources.counters(KEY, at(1_000_000), NOW);
        for _ in 0..10 {
            sources.received(KEY, 982, 1000);
        }
        sources.counters(KEY, at(11_000_000), NOW + 10_000);
        let expected = InterfaceStatus {
            index: 3,
            speed_bps: 10_000_000_000,
            counted_in_bps: 8_000_000,
            sampled_in_bps: 8_000_000,
            ..InterfaceStatus::default()
        };
        assert_eq!(sources.interfaces(), [expected]);
    }

    #[test]
    fn a_sample_without_a_rate_lifts_no_bound() {
        let mut sources = Sources::default();
        let mut rate = |rate: u32, secs: u64| {
            sources.rate(KEY, Pool { rate, pool: 0, life: 0 }, NOW + secs * 1000)
        };
        for secs in 0..300 {
            rate(100, secs);
        }
        rate(0, 301);
        assert_eq!(rate(60_000, 302), Some((1600, SamplingSource::Record)));
    }
}
