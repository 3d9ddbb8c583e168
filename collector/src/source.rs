//! sFlow data sources: what an agent says of a port, and the sampling rate that follows from it.
//!
//! An agent under load drops samples, precisely in a flood, while its sample pool goes on counting
//! packets. The true rate is the change of the pool over the samples received: that covers the
//! agent's drops and lost datagrams alike. Between two samples the pool grows by a random number
//! (geometric, with the rate as its mean), so the header's rate is believed until the pool is
//! further from it than chance allows.

use rustc_hash::FxHashMap;
use weir_model::{InterfaceStatus, Millis, SamplingSource};

use crate::sampling::Resolved;

/// Most data sources remembered for one exporter.
const MAX_SOURCES: usize = 4096;
/// A judgement on the pool is made after so many samples ...
const WINDOW_SAMPLES: u32 = 256;
/// ... or after so long, milliseconds, if there were at least [`MIN_SAMPLES`].
const WINDOW_MS: u64 = 2000;
const MIN_SAMPLES: u32 = 16;
/// Standard deviations beyond which the pool is believed instead of the header.
const SIGMAS: f64 = 4.0;
/// A pool that has gone back, or jumps by half its range, has been reset.
const RESET: u32 = u32::MAX / 2;
/// Octets of a frame that are no part of the IP packet: Ethernet header and check sequence.
const FRAME_OVERHEAD: u64 = 18;

/// Which data source: the agent and sub-agent by their hash, and the port of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    pub(crate) stream: u64,
    /// The source's class and index in one, so that the key travels in two registers.
    port: u64,
}

impl SourceKey {
    pub(crate) fn new(stream: u64, class: u32, index: u32) -> Self {
        Self { stream, port: u64::from(class) << 32 | u64::from(index) }
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
}

/// What a counter sample says of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceCounters {
    pub(crate) index: u32,
    pub(crate) speed_bps: u64,
    pub(crate) in_octets: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    last_pool: u32,
    /// Since the window began.
    packets: u64,
    samples: u32,
    began: Millis,
    /// The rate by the pool, when it differs from the header's for certain.
    by_pool: Option<u32>,
    /// Frame octets of received packets by the samples since the last counters.
    sampled_octets: u64,
    counters: Option<(InterfaceCounters, Millis)>,
    status: Option<InterfaceStatus>,
}

/// The data sources of one exporter.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    sources: Vec<Source>,
    index: FxHashMap<SourceKey, usize>,
    /// The one last looked at: an agent's samples come in runs of one port.
    last: Option<(SourceKey, usize)>,
}

impl Sources {
    /// The rate of a sample, `None` when neither header nor pool says.
    #[inline]
    pub(crate) fn rate(&mut self, key: SourceKey, said: Pool, now: Millis) -> Option<Resolved> {
        let header = (said.rate > 0).then_some((said.rate, SamplingSource::Record));
        let Some(index) = self.find(key) else {
            // The first sample is what later ones are measured from.
            self.entry(key, said.pool, now);
            return header;
        };
        let source = &mut self.sources[index];
        let grown = said.pool.wrapping_sub(source.last_pool);
        source.last_pool = said.pool;
        if grown > RESET {
            (source.packets, source.samples, source.began) = (0, 0, now);
            source.by_pool = None;
            return header;
        }
        source.packets += u64::from(grown);
        source.samples += 1;
        let due = now.since(source.began) >= WINDOW_MS && source.samples >= MIN_SAMPLES;
        if source.samples >= WINDOW_SAMPLES || due {
            source.by_pool = judge(said.rate, source.packets, source.samples);
            (source.packets, source.samples, source.began) = (0, 0, now);
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
        }
    }

    /// Takes note of a port's counters and compares them with the samples since the last ones.
    pub(crate) fn counters(&mut self, key: SourceKey, counters: InterfaceCounters, now: Millis) {
        let Some(source) = self.entry(key, 0, now) else { return };
        if let Some((before, at)) = source.counters.replace((counters, now)) {
            let counted = counters.in_octets.checked_sub(before.in_octets);
            if let (Some(counted), elapsed @ 1..) = (counted, now.since(at)) {
                let bps = |octets: u64| octets.saturating_mul(8000) / elapsed;
                source.status = Some(InterfaceStatus {
                    index: counters.index,
                    speed_bps: counters.speed_bps,
                    counted_in_bps: bps(counted),
                    sampled_in_bps: bps(source.sampled_octets),
                    ..InterfaceStatus::default()
                });
            }
        }
        source.sampled_octets = 0;
    }

    /// The ports with counters, by index.
    pub(crate) fn interfaces(&self) -> Vec<InterfaceStatus> {
        let mut out: Vec<_> = self.sources.iter().filter_map(|source| source.status).collect();
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

    fn entry(&mut self, key: SourceKey, pool: u32, now: Millis) -> Option<&mut Source> {
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

/// The rate by the pool if it is too far from the header's to be chance.
#[cold]
fn judge(header: u32, packets: u64, samples: u32) -> Option<u32> {
    let by_pool = u32::try_from(packets / u64::from(samples.max(1))).unwrap_or(u32::MAX);
    if by_pool == 0 {
        // The agent does not count its pool.
        return None;
    }
    let off = (f64::from(by_pool) / f64::from(header.max(1)) - 1.0).abs();
    (header == 0 || off > SIGMAS / f64::from(samples).sqrt()).then_some(by_pool)
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
            rate = sources.rate(KEY, Pool { rate: 1000, pool }, NOW + u64::from(n));
        }
        assert_eq!(rate, Some((1000, SamplingSource::Record)));
    }

    #[test]
    fn an_agent_that_drops_samples_is_scaled_by_its_pool() {
        let mut sources = Sources::default();
        let mut rate = None;
        for n in 0..300_u32 {
            let pool = n.wrapping_mul(20_000);
            rate = sources.rate(KEY, Pool { rate: 1000, pool }, NOW + u64::from(n));
        }
        assert_eq!(rate, Some((20_000, SamplingSource::Pool)));
        // A restart of the agent: back to the header until there is evidence.
        rate = sources.rate(KEY, Pool { rate: 1000, pool: 3 }, NOW + 400);
        assert_eq!(rate, Some((1000, SamplingSource::Record)));
    }

    #[test]
    fn a_pool_that_stands_still_says_nothing() {
        let mut sources = Sources::default();
        for n in 0..300 {
            let rate = sources.rate(KEY, Pool { rate: 512, pool: 0 }, NOW + n);
            assert_eq!(rate, Some((512, SamplingSource::Record)));
        }
        assert_eq!(sources.rate(KEY, Pool { rate: 0, pool: 0 }, NOW), None);
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
}
