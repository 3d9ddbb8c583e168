//! What threads say to each other, and what happens when they are slow.
//!
//! | channel | kind | when full |
//! |---|---|---|
//! | rx -> core: slices | bounded, [`SLICES_MAX`] a shard and [`WAITING_MAX`] | the oldest is dropped and counted |
//! | others -> core: [`Control`] | bounded, [`CONTROL_MAX`] | commands: 503; actuators wait; health is skipped |
//! | core -> bgp: `Admitted` | watch, the latest wins | cannot fill |
//! | core -> notify: news | bounded, [`super::notify::WAITING_MAX`] | the news is dropped and counted |
//! | rx -> flows: batches of records | bounded, 256 of 512 | the batch is dropped and counted |
//! | core -> store | bounded | core waits a few milliseconds, then counts and keeps the newest; a measure is written before it is announced |

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;
use weir_api::Request;
use weir_collector::Counters;
use weir_collector::socket::SliceSink;
use weir_mitigator::RungConfig;
use weir_model::{
    Command, CommandError, DryRun, ExporterStatus, HostBaselines, HostSlice, Inventory, Observed,
    Slice,
};

use crate::core::Tuning;

/// Slices that may wait for the core, per shard: three seconds.
pub(crate) const SLICES_MAX: usize = 30;

/// Octets of slices that may wait for the core. A slice of a flood to a quarter of a million hosts has
/// sixty million: three seconds of these would take as much as everything else three times over.
pub(crate) const WAITING_MAX: usize = 128 << 20;

/// Spare slices kept a shard: one to fill while one is judged, and one more.
const SPARES: usize = 3;

/// A spare with more room than this, of which the last use took less than a quarter, is given back.
const SPARE_MAX: usize = 8 << 20;

/// Control messages that may wait for the core.
pub(crate) const CONTROL_MAX: usize = 1024;

/// Everything but slices that reaches the core.
#[derive(Debug)]
pub(crate) enum Control {
    /// An operator asks.
    Request(Box<Request>),
    /// An actuator reports.
    Observed(Box<Observed>),
    /// A shard reports, about once a second.
    Health { shard: u16, exporters: Vec<ExporterStatus>, counters: Box<Counters> },
    /// What a shard must remember over a restart, about once a minute.
    Learned(u16, Box<weir_collector::Checkpoint>),
    /// What is protected has changed.
    Inventory(Arc<Inventory>),
    /// The ladder has changed.
    Ladder(Vec<RungConfig>),
    /// The configuration file was read again.
    Tuned(Box<Tuning>),
    /// Someone asks for a host's baselines.
    Baselines { host: IpAddr, reply: oneshot::Sender<Option<HostBaselines>> },
    /// Someone asks what a command would change.
    DryRun { command: Box<Command>, reply: oneshot::Sender<Result<DryRun, CommandError>> },
    /// The receive threads have ended: judge what is left and stop.
    Stop,
}

/// The queue of sealed slices: a ring that forgets the oldest.
#[derive(Clone, Debug)]
pub(crate) struct SliceQueue {
    tx: Sender<Box<Slice>>,
    pub(crate) rx: Receiver<Box<Slice>>,
    spare_tx: Sender<Box<Slice>>,
    spare_rx: Receiver<Box<Slice>>,
    lost: Arc<AtomicU64>,
    /// Octets of the slices in the queue.
    waiting: Arc<AtomicUsize>,
}

/// Octets of what a slice says.
fn octets(slice: &Slice) -> usize {
    size_of_val(slice.hosts.as_slice())
        + size_of_val(slice.services.as_slice())
        + size_of_val(slice.long_flows.as_slice())
        + size_of_val(slice.expected.as_slice())
        + size_of_val(slice.waited.as_slice())
        + size_of_val(slice.samples.as_slice())
}

impl SliceQueue {
    pub(crate) fn new(shards: usize) -> Self {
        let capacity = SLICES_MAX * shards.max(1);
        let (tx, rx) = bounded(capacity);
        let (spare_tx, spare_rx) = bounded(SPARES * shards.max(1));
        Self { tx, rx, spare_tx, spare_rx, lost: Arc::default(), waiting: Arc::default() }
    }

    /// The core has taken a slice from the queue.
    pub(crate) fn taken(&self, slice: &Slice) {
        self.waiting.fetch_sub(octets(slice), Ordering::Relaxed);
    }

    /// A slice the core is done with.
    pub(crate) fn recycle(&self, slice: Box<Slice>) {
        let room = slice.hosts.capacity() * size_of::<HostSlice>();
        if room > SPARE_MAX && slice.hosts.len() < slice.hosts.capacity() / 4 {
            // What a flood has made large.
            return;
        }
        // Full: there are enough spares, this one is freed.
        let _ = self.spare_tx.try_send(slice);
    }

    /// Slices dropped because the core was slow.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// One shard's end.
    pub(crate) fn sink(&self, shard: u16, control: Sender<Control>) -> Sink {
        Sink { shard, queue: self.clone(), control, lost_since: 0 }
    }
}

/// Where a receive thread puts its slices.
#[derive(Debug)]
pub(crate) struct Sink {
    shard: u16,
    queue: SliceQueue,
    control: Sender<Control>,
    lost_since: u32,
}

impl SliceSink for Sink {
    fn slice(&mut self, mut slice: Box<Slice>) -> Box<Slice> {
        slice.lost_slices = self.lost_since;
        self.lost_since = 0;
        let own = octets(&slice);
        while self.queue.waiting.load(Ordering::Relaxed) + own > WAITING_MAX && self.drop_oldest() {
        }
        self.queue.waiting.fetch_add(own, Ordering::Relaxed);
        while let Err(TrySendError::Full(back)) = self.queue.tx.try_send(slice) {
            slice = back;
            self.drop_oldest();
        }
        self.queue.spare_rx.try_recv().unwrap_or_default()
    }

    fn health(&mut self, exporters: Vec<ExporterStatus>, counters: Counters) {
        // Full: the next report says the same and more.
        let counters = Box::new(counters);
        let _ = self.control.try_send(Control::Health { shard: self.shard, exporters, counters });
    }

    fn checkpoint(&mut self, checkpoint: weir_collector::Checkpoint) {
        // Full: the next one says the same and more.
        let _ = self.control.try_send(Control::Learned(self.shard, Box::new(checkpoint)));
    }
}

impl Sink {
    /// Makes room for a new slice; says whether there was one to drop.
    fn drop_oldest(&mut self) -> bool {
        let Ok(oldest) = self.queue.rx.try_recv() else { return false };
        self.queue.taken(&oldest);
        self.queue.lost.fetch_add(1, Ordering::Relaxed);
        self.lost_since += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_slices_wait_in_bounded_memory() {
        let queue = SliceQueue::new(1);
        let (control, _keep) = bounded(1);
        let mut sink = queue.sink(0, control);
        let host = HostSlice::empty([10, 0, 0, 1].into(), 0);
        let large = |slot| Box::new(Slice { slot, hosts: vec![host; 200_000], ..Slice::default() });
        let fit = (WAITING_MAX / octets(&large(0))) as u64;
        assert!((2..SLICES_MAX as u64).contains(&fit));
        for slot in 0..fit + 2 {
            sink.slice(large(slot));
        }
        assert_eq!((queue.lost(), queue.rx.len() as u64), (2, fit));
        // One that is too large by itself takes the place of all.
        sink.slice(Box::new(Slice { hosts: vec![host; 1_000_000], ..Slice::default() }));
        assert_eq!(queue.rx.len(), 1);
        let last = queue.rx.recv().unwrap();
        queue.taken(&last);
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
        // Large room is kept while it is used, and given back when not.
        queue.recycle(last);
        let mut spare = sink.slice(Box::default());
        assert!(spare.hosts.capacity() >= 1_000_000);
        spare.hosts.clear();
        queue.recycle(spare);
        assert_eq!(sink.slice(Box::default()).hosts.capacity(), 0);
    }

    #[test]
    fn a_slow_core_loses_the_oldest_slices_and_they_are_counted() {
        let queue = SliceQueue::new(1);
        let (control, _keep) = bounded(1);
        let mut sink = queue.sink(0, control);
        for slot in 0..SLICES_MAX as u64 + 3 {
            sink.slice(Box::new(Slice { slot, ..Slice::default() }));
        }
        assert_eq!(queue.lost(), 3);
        assert_eq!(queue.rx.recv().unwrap().slot, 3);
    }
}
