//! Every accepted record once more, for somebody who keeps them: in batches, over a bounded channel, and
//! without waiting. A batch for which there is no room is dropped and counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use weir_model::{ArchivedFlow, ExporterId, FlowRecord};

use crate::decode::Visit;
use crate::time::Timeouts;

/// Records of a batch.
const BATCH: usize = 512;
/// Batches that may wait, of all receivers together: 17 MB.
const WAITING: usize = 256;

/// What both ends look at.
#[derive(Debug, Default)]
pub struct TapState {
    /// Whether somebody takes records.
    pub on: AtomicBool,
    /// Records for which there was no room.
    pub lost: AtomicU64,
}

/// One receiver's end.
#[derive(Clone, Debug)]
pub struct Tap {
    state: Arc<TapState>,
    out: SyncSender<Vec<ArchivedFlow>>,
    batch: Vec<ArchivedFlow>,
    exporter: IpAddr,
}

impl Tap {
    /// A tap, to be cloned for each receiver, and the other end.
    pub fn new() -> (Self, Arc<TapState>, Receiver<Vec<ArchivedFlow>>) {
        let state = Arc::new(TapState::default());
        let (out, batches) = sync_channel(WAITING);
        let exporter = std::net::Ipv4Addr::UNSPECIFIED.into();
        let tap = Self { state: Arc::clone(&state), out, batch: Vec::new(), exporter };
        (tap, state, batches)
    }

    /// What stands in the way of records of this exporter, when somebody takes them.
    pub(crate) fn open(&mut self, exporter: IpAddr) -> Option<&mut Self> {
        self.exporter = exporter;
        self.state.on.load(Ordering::Relaxed).then_some(self)
    }

    fn push(&mut self, record: &FlowRecord) {
        if self.batch.capacity() == 0 {
            self.batch.reserve_exact(BATCH);
        }
        self.batch.push(ArchivedFlow::of(record, self.exporter));
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands on what has gathered.
    pub(crate) fn flush(&mut self) {
        let count = self.batch.len() as u64;
        if count > 0 && self.out.try_send(std::mem::take(&mut self.batch)).is_err() {
            self.state.lost.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// Shows records to the tap and to whoever they are for.
pub(crate) struct Both<'a, V> {
    pub(crate) visit: &'a mut V,
    pub(crate) tap: &'a mut Tap,
}

impl<V: Visit> Visit for Both<'_, V> {
    fn record(&mut self, record: &FlowRecord) {
        self.tap.push(record);
        self.visit.record(record);
    }

    fn make(&mut self, new: impl FnOnce() -> FlowRecord) {
        let tap = &mut *self.tap;
        self.visit.make(|| {
            let record = new();
            tap.push(&record);
            record
        });
    }

    fn make_if(&mut self, fill: impl FnOnce(&mut FlowRecord) -> bool) {
        let tap = &mut *self.tap;
        self.visit.make_if(|record| {
            let filled = fill(record);
            if filled {
                tap.push(record);
            }
            filled
        });
    }

    fn waited(&mut self, waited: bool) {
        self.visit.waited(waited);
    }

    fn timeouts(&mut self, exporter: ExporterId, timeouts: Timeouts) {
        self.visit.timeouts(exporter, timeouts);
    }
}
