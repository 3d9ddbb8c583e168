//! Which worker adds a record up: the one that owns its protected host.

use std::net::IpAddr;

use weir_model::{ExporterId, FlowRecord, PrefixSet};

use super::hash::address_hash;
use super::ranges::Ranges;
use crate::decode::Visit;
use crate::time::Timeouts;

/// A worker's share of the protected hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) index: u32,
    pub(crate) of: u32,
}

impl Share {
    /// Whether a host is in this share.
    #[inline]
    pub(super) fn holds(self, host: IpAddr) -> bool {
        owner(host, self.of) == self.index
    }
}

#[inline]
fn owner(host: IpAddr, workers: u32) -> u32 {
    // The high half of a product spreads the hash over the workers without a division.
    let hash = address_hash(host) >> 32;
    u32::try_from((hash * u64::from(workers)) >> 32).unwrap_or(0)
}

/// Sorts records by the worker that owns their host; one between two protected hosts may go to
/// two workers, each of which adds up its own side.
#[derive(Debug)]
pub(crate) struct Router {
    ranges: Ranges,
    workers: u32,
    routed: Vec<Vec<FlowRecord>>,
    timeouts: Vec<(ExporterId, Timeouts)>,
    /// Whether the records that come have waited for their template.
    waiting: bool,
}

impl Router {
    pub(crate) fn new(protected: &PrefixSet, workers: usize) -> Self {
        let count = u32::try_from(workers).unwrap_or(u32::MAX);
        let routed = (0..workers).map(|_| Vec::new()).collect();
        Self {
            ranges: Ranges::new(protected),
            workers: count,
            routed,
            timeouts: Vec::new(),
            waiting: false,
        }
    }

    pub(crate) fn set_protected(&mut self, protected: &PrefixSet) {
        self.ranges = Ranges::new(protected);
    }

    /// What waits for one worker.
    pub(crate) fn routed(&mut self, worker: usize) -> Option<&mut Vec<FlowRecord>> {
        self.routed.get_mut(worker)
    }

    /// Timeouts learned since the last time, for every worker.
    pub(crate) fn take_timeouts(&mut self) -> Vec<(ExporterId, Timeouts)> {
        std::mem::take(&mut self.timeouts)
    }

    fn send(&mut self, worker: u32, record: &FlowRecord) {
        if let Some(routed) = self.routed.get_mut(worker as usize) {
            routed.push(FlowRecord { waited: record.waited || self.waiting, ..*record });
        }
    }
}

impl Visit for Router {
    #[inline]
    fn record(&mut self, record: &FlowRecord) {
        let of = |host| self.ranges.place(&host).map(|_| owner(host, self.workers));
        let (inbound, outbound) = (of(record.dst), of(record.src));
        if let Some(worker) = inbound {
            self.send(worker, record);
        }
        if let Some(worker) = outbound
            && inbound != outbound
        {
            self.send(worker, record);
        }
    }

    fn waited(&mut self, waited: bool) {
        self.waiting = waited;
    }

    fn timeouts(&mut self, exporter: ExporterId, timeouts: Timeouts) {
        self.timeouts.push((exporter, timeouts));
    }
}
