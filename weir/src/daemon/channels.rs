//! What threads say to each other, and what happens when they are slow.
//!
//! | channel | kind | when full |
//! |---|---|---|
//! | rx -> core: slices | bounded, [`SLICES_MAX`] a shard | the oldest is dropped and counted |
//! | others -> core: [`Control`] | bounded, [`CONTROL_MAX`] | commands: 503; actuators wait; health is skipped |
//! | core -> bgp: `Admitted` | watch, the latest wins | cannot fill |
//! | core -> notify: news | bounded, [`super::notify::WAITING_MAX`] | the news is dropped and counted |
//! | core -> store | bounded | core waits a few milliseconds, then counts and keeps the newest; a measure is written before it is announced |

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;
use weir_api::Request;
use weir_collector::Counters;
use weir_collector::socket::SliceSink;
use weir_model::{
    Command, CommandError, DryRun, ExporterStatus, HostBaselines, Inventory, Observed, Slice,
};

/// Slices that may wait for the core, per shard: three seconds.
pub(crate) const SLICES_MAX: usize = 30;

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
    Learned(Box<weir_collector::Checkpoint>),
    /// What is protected has changed.
    Inventory(Arc<Inventory>),
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
}

impl SliceQueue {
    pub(crate) fn new(shards: usize) -> Self {
        let capacity = SLICES_MAX * shards.max(1);
        let (tx, rx) = bounded(capacity);
        let (spare_tx, spare_rx) = bounded(capacity);
        Self { tx, rx, spare_tx, spare_rx, lost: Arc::default() }
    }

    /// A slice the core is done with.
    pub(crate) fn recycle(&self, slice: Box<Slice>) {
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
        while let Err(TrySendError::Full(back)) = self.queue.tx.try_send(slice) {
            slice = back;
            if self.queue.rx.try_recv().is_ok() {
                self.queue.lost.fetch_add(1, Ordering::Relaxed);
                self.lost_since += 1;
            }
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
        let _ = self.control.try_send(Control::Learned(Box::new(checkpoint)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
