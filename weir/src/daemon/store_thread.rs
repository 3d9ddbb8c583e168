//! The store's thread: takes batches, writes them, and forgets what is too old.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{error, info};
use weir_api::Metrics;
use weir_config::Config;
use weir_model::Incident;
use weir_store::Store;

use super::{now, spawn as spawn_thread};

/// Batches that may wait.
const WAITING_MAX: usize = 64;

/// How often old incidents are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// What the store is asked to keep.
#[derive(Debug)]
pub(crate) enum Work {
    /// Incidents that changed.
    Incidents(Vec<Arc<Incident>>),
}

pub(crate) fn spawn(
    store: Store,
    config: &Config,
    metrics: &Arc<Metrics>,
    failed: &Sender<String>,
) -> anyhow::Result<(Sender<Work>, JoinHandle<()>)> {
    let (tx, rx) = bounded(WAITING_MAX);
    let metrics = Arc::clone(metrics);
    let keep_ms = u64::from(config.store.keep_days) * 86_400_000;
    let thread = spawn_thread("store", failed, move || run(store, &rx, &metrics, keep_ms))?;
    Ok((tx, thread))
}

fn run(mut store: Store, work: &Receiver<Work>, metrics: &Metrics, keep_ms: u64) {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        metrics.store_errors.with_label_values::<&str>(&[]).inc();
        error!(%error, what, "the store did not take it");
    };
    loop {
        match work.recv_timeout(SWEEP) {
            Ok(Work::Incidents(batch)) => {
                if let Err(error) = store.put_incidents(&batch) {
                    failed("incidents", &error);
                }
            }
            Err(RecvTimeoutError::Timeout) => match store.forget_before(now() - keep_ms) {
                Ok(0) => {}
                Ok(gone) => info!(gone, "forgot old incidents"),
                Err(error) => failed("sweep", &error),
            },
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
