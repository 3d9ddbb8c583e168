//! One socket's records added up by several threads.
//!
//! The kernel keeps a sender on one socket, so more sockets do not help when one exporter sends
//! more than a core can add up. Its templates, sequence numbers and sample pools must stay in one
//! place; adding up need not: each worker owns a share of the protected hosts, by their hash.
//!
//! ```text
//! socket -> decode -> route by host -+-> worker 0: its hosts -+-> one slice -> sink
//!                                    +-> worker 1: its hosts -+
//! ```
//! Batches of records go down bounded channels in order, and so do the ends of slots; a worker that
//! cannot keep up loses batches, which is counted, and never holds the receiver up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use weir_model::{ExporterId, FlowRecord, Inventory, Millis, Slice};

use crate::accumulate::{Accumulator, Overflow};
use crate::decode::Visit;
use crate::shard::Shard;
use crate::time::Timeouts;

/// Batches on their way to one worker at most.
const QUEUE: usize = 256;
/// Records that make it worth waking a worker.
const BATCH: usize = 512;

enum Work {
    Records { records: Vec<FlowRecord>, now: Millis },
    Timeouts(ExporterId, Timeouts),
    Seal { slot: u64, slice: Slice },
    Inventory(Arc<Inventory>),
}

struct Done {
    slice: Slice,
    overflow: Overflow,
}

struct Worker {
    work: SyncSender<Work>,
    done: Receiver<Done>,
    spare: Receiver<Vec<FlowRecord>>,
    thread: JoinHandle<()>,
    overflow: Overflow,
    sealed: Option<Slice>,
}

/// The workers of one socket.
pub(super) struct Spread {
    workers: Vec<Worker>,
    /// The slice that waits for all its parts.
    waiting: Option<Box<Slice>>,
    parts: Vec<Slice>,
}

impl Spread {
    /// Starts the workers and has the shard route its records to them.
    pub(super) fn start(shard: &mut Shard, workers: u32) -> std::io::Result<Self> {
        let start = |index| {
            let accumulator = shard.worker_accumulator(index, workers);
            let (work, inbox) = sync_channel(QUEUE);
            let (outbox, done) = sync_channel(QUEUE);
            let (empty, spare) = sync_channel(QUEUE);
            let thread = Builder::new()
                .name(format!("add/{}/{index}", shard.number()))
                .spawn(move || run(accumulator, &inbox, &outbox, &empty))?;
            Ok(Worker { work, done, spare, thread, overflow: Overflow::default(), sealed: None })
        };
        let workers: Vec<_> = (0..workers).map(start).collect::<std::io::Result<_>>()?;
        shard.route(workers.len());
        let parts = workers.iter().map(|_| Slice::default()).collect();
        Ok(Self { workers, waiting: None, parts })
    }

    /// Sends on what has been routed since the last time: all of it, or what fills a batch.
    pub(super) fn forward(&mut self, shard: &mut Shard, now: Millis, all: bool) {
        for (exporter, timeouts) in shard.take_timeouts() {
            for worker in &self.workers {
                // Lost when the queue is full: the flows of that exporter are seen in hindsight.
                let _ = worker.work.try_send(Work::Timeouts(exporter, timeouts));
            }
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let Some(routed) = shard.routed(index) else { return };
            if routed.is_empty() || (routed.len() < BATCH && !all) {
                continue;
            }
            let spare = worker.spare.try_recv().unwrap_or_default();
            let records = std::mem::replace(routed, spare);
            let count = records.len() as u64;
            if let Err(error) = worker.work.try_send(Work::Records { records, now }) {
                let (TrySendError::Full(work) | TrySendError::Disconnected(work)) = error;
                shard.counters_mut().queue_drops += count;
                if let (Work::Records { mut records, .. }, Some(routed)) =
                    (work, shard.routed(index))
                {
                    records.clear();
                    *routed = records;
                }
            }
        }
    }

    /// Has every worker protect something else.
    pub(super) fn set_inventory(&self, inventory: &Arc<Inventory>) {
        for worker in &self.workers {
            // Blocks while the queue is full: losing this would be worse than waiting.
            let _ = worker.work.send(Work::Inventory(Arc::clone(inventory)));
        }
    }

    /// Ends a slot: `slice` tells which one, and its vectors are used again.
    pub(super) fn seal(&mut self, shard: &mut Shard, now: Millis, slice: Box<Slice>) {
        let slot = slice.slot;
        self.forward(shard, now, true);
        for (worker, part) in self.workers.iter().zip(self.parts.drain(..)) {
            let _ = worker.work.send(Work::Seal { slot, slice: part });
        }
        self.waiting = Some(slice);
    }

    /// The slice of the last seal, once all parts have come; waits for them if told to.
    pub(super) fn collect(&mut self, shard: &mut Shard, wait: bool) -> Option<Box<Slice>> {
        self.waiting.as_ref()?;
        for worker in self.workers.iter_mut().filter(|worker| worker.sealed.is_none()) {
            let done = if wait { worker.done.recv().ok() } else { worker.done.try_recv().ok() };
            let done = done?;
            worker.overflow = done.overflow;
            worker.sealed = Some(done.slice);
        }
        let mut whole = self.waiting.take()?;
        let mut overflow = Overflow::default();
        for worker in &mut self.workers {
            overflow.add(worker.overflow);
            let mut part = worker.sealed.take()?;
            whole.hosts.append(&mut part.hosts);
            whole.services.append(&mut part.services);
            whole.metrics.append(&mut part.metrics);
            whole.metrics_key = part.metrics_key;
            whole.long_flows.append(&mut part.long_flows);
            whole.expected.append(&mut part.expected);
            whole.samples.append(&mut part.samples);
            self.parts.push(part);
        }
        shard.set_worker_overflow(overflow);
        Some(whole)
    }

    /// Ends the workers.
    pub(super) fn stop(self) {
        for worker in self.workers {
            drop(worker.work);
            // A worker that panicked has said so; there is nothing left to hand over.
            let _ = worker.thread.join();
        }
    }
}

impl std::fmt::Debug for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spread").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

fn run(
    mut accumulator: Accumulator,
    inbox: &Receiver<Work>,
    outbox: &SyncSender<Done>,
    empty: &SyncSender<Vec<FlowRecord>>,
) {
    for work in inbox {
        match work {
            Work::Records { mut records, now } => {
                accumulator.arrive(now);
                for record in &records {
                    accumulator.record(record);
                }
                records.clear();
                // No room: the receiver has spares enough.
                let _ = empty.try_send(records);
            }
            Work::Timeouts(exporter, timeouts) => accumulator.timeouts(exporter, timeouts),
            Work::Seal { slot, mut slice } => {
                accumulator.seal(slot, &mut slice);
                if outbox.send(Done { slice, overflow: accumulator.overflow() }).is_err() {
                    return;
                }
            }
            Work::Inventory(inventory) => accumulator.set_inventory(inventory),
        }
    }
}
