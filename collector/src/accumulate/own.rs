//! What metrics of an operator's own count of the slice being filled.

use weir_model::{
    ClassVolume, Compiled, Direction, FlowRecord, HostSlice, MetricSlice, OwnMetrics, Slice,
};

/// No entry.
const NONE: u32 = u32::MAX;

/// Patterns made ready, and the sums that they made.
#[derive(Debug)]
pub(super) struct Own {
    key: u64,
    inbound: Vec<(u16, Compiled)>,
    outbound: Vec<(u16, Compiled)>,
    sums: Vec<MetricSlice>,
    /// For each of `sums`, the same host's and slot's of another metric.
    next: Vec<u32>,
    /// For each host's entry in the slice, the newest of its `sums`.
    heads: Vec<u32>,
}

impl Own {
    pub(super) fn new(metrics: &OwnMetrics) -> Option<Box<Self>> {
        let own = || Self {
            key: metrics.key(),
            inbound: metrics.compile(Direction::Inbound),
            outbound: metrics.compile(Direction::Outbound),
            sums: Vec::new(),
            next: Vec::new(),
            heads: Vec::new(),
        };
        (!metrics.is_empty()).then(|| Box::new(own()))
    }

    pub(super) const fn key(&self) -> u64 {
        self.key
    }

    /// The metrics that mean a record, as bits.
    #[inline]
    pub(super) fn meant(&self, record: &FlowRecord, way: Direction) -> u16 {
        let patterns = match way {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let holds = |(bit, pattern): &(u16, Compiled)| if pattern.holds(record) { *bit } else { 0 };
        patterns.iter().fold(0, |bits, pattern| bits | holds(pattern))
    }

    /// Adds a record up for all metrics that mean it, where its host has the entry `at`; there are never more
    /// than `max` sums.
    #[inline]
    pub(super) fn add(
        &mut self,
        record: &FlowRecord,
        way: Direction,
        (at, host): (usize, &HostSlice),
        volume: ClassVolume,
        variance: u64,
        max: usize,
    ) {
        let mut bits = self.meant(record, way);
        while bits != 0 {
            let metric = bits.trailing_zeros().to_le_bytes()[0];
            bits &= bits - 1;
            if let Some(sum) = self.sum(metric, at, host, max) {
                sum.volume.add(volume);
                sum.variance = sum.variance.saturating_add(variance);
            }
        }
    }

    fn sum(
        &mut self,
        metric: u8,
        at: usize,
        host: &HostSlice,
        max: usize,
    ) -> Option<&mut MetricSlice> {
        if self.heads.len() <= at {
            self.heads.resize(at + 1, NONE);
        }
        let head = self.heads.get_mut(at)?;
        let mut known = *head;
        while let Some(sum) = self.sums.get(known as usize) {
            if sum.metric == metric {
                return self.sums.get_mut(known as usize);
            }
            known = self.next[known as usize];
        }
        if self.sums.len() >= max {
            return None;
        }
        self.next.push(*head);
        *head = u32::try_from(self.sums.len()).unwrap_or(NONE);
        let (host, slot, volume) = (host.host, host.slot, ClassVolume::default());
        self.sums.push(MetricSlice { host, metric, slot, volume, variance: 0 });
        self.sums.last_mut()
    }

    /// Hands over the sums, and takes an emptied vector in exchange.
    pub(super) fn seal(&mut self, slice: &mut Slice) {
        std::mem::swap(&mut slice.metrics, &mut self.sums);
        slice.metrics_key = self.key;
        self.next.clear();
        self.heads.clear();
    }
}
