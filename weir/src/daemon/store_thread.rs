//! The store's thread: takes batches, writes them, and forgets what is too old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{error, info, warn};
use weir_api::Metrics;
use weir_config::Config;
use weir_model::{Evidence, Incident, IncidentId, Millis};
use weir_panel::owner::{Hash, Share};
use weir_store::Store;

use super::baselines::{HEAD, Piece, Written, part_name};
use super::{now, spawn as spawn_thread};

/// Batches that may wait.
const WAITING_MAX: usize = 64;

/// How often old incidents are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// What the store is asked to keep.
#[derive(Debug)]
pub(crate) enum Work {
    /// Incidents that changed; who waits for the commit is told of it.
    Incidents(Vec<Arc<Incident>>, Option<Sender<()>>),
    /// What incidents rest on.
    Evidence(Vec<(IncidentId, Evidence)>),
    /// A part of what the detector has learned; who waits for the commit is told of it.
    Baselines(Millis, Piece, Option<Sender<()>>),
    /// Templates and sampling that exporters have told.
    Templates(Millis, Box<weir_collector::Checkpoint>),
    /// Links to servers' pages that staff shared.
    Shares(Millis, Box<Shares>),
    /// What the mitigator keeps beside incidents; who waits for the commit is told of it.
    Memory(Millis, Box<weir_mitigator::Checkpoint>, Option<Sender<()>>),
}

/// Links to servers' pages that staff shared, by the hash of each.
pub(crate) type Shares = BTreeMap<Hash, Share>;

/// Names of the blobs in the state file; a new form gets a new name, and the old one is not read.
const TEMPLATES: &str = "collector-1";
const SHARES: &str = "shares-1";
/// JSON, unlike the others: rules leave out what is empty, which only a form that names its fields
/// can read back.
const MEMORY: &str = "mitigator-1";

/// What the last run had learned.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    pub(crate) baselines: Option<weir_detector::Checkpoint>,
    /// How these stand in the file.
    pub(crate) written: Written,
    pub(crate) templates: weir_collector::Checkpoint,
    pub(crate) shares: Shares,
    pub(crate) memory: Option<weir_mitigator::Checkpoint>,
}

/// Reads back what the last run had learned. What cannot be read is learned anew: weir starts.
pub(crate) fn learned(store: &Store) -> Learned {
    let (baselines, written) = baselines(store);
    Learned {
        baselines,
        written,
        templates: blob(store, TEMPLATES).unwrap_or_default(),
        shares: blob(store, SHARES).unwrap_or_default(),
        memory: body(store, MEMORY).and_then(|body| known(serde_json::from_slice(&body), MEMORY)),
    }
}

/// The head and all parts, joined, and which of them there are.
fn baselines(store: &Store) -> (Option<weir_detector::Checkpoint>, Written) {
    let read = |name: &str| body(store, name).and_then(|body| known(checkpoint(body), name));
    let mut all = read(HEAD);
    let whole = all.as_ref().is_some_and(|head| !head.is_empty());
    let mut written = Written { whole, ..Written::default() };
    for (part, there) in written.parts.iter_mut().enumerate() {
        if let Some(found) = read(&part_name(part)) {
            *there = !found.is_empty();
            all.get_or_insert_default().join(found);
        }
    }
    (all, written)
}

/// A checkpoint of before operators could set anything ends where their list begins: an empty one is
/// put behind it. Behind a list the octet is not read.
fn checkpoint(mut body: Vec<u8>) -> postcard::Result<weir_detector::Checkpoint> {
    body.push(0);
    postcard::from_bytes(&body)
}

fn blob<T: DeserializeOwned>(store: &Store, name: &str) -> Option<T> {
    body(store, name).and_then(|body| known(postcard::from_bytes(&body), name))
}

fn body(store: &Store, name: &str) -> Option<Vec<u8>> {
    match store.blob(name) {
        Ok(found) => found.map(|(_, body)| body),
        Err(error) => {
            warn!(%error, name, "a checkpoint cannot be read");
            None
        }
    }
}

fn known<T, E: std::fmt::Display>(read: Result<T, E>, name: &str) -> Option<T> {
    read.inspect_err(|error| warn!(%error, name, "a checkpoint is of another form")).ok()
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
            Ok(Work::Incidents(batch, committed)) => match store.put_incidents(&batch) {
                Ok(()) => say(committed),
                Err(error) => failed("incidents", &error),
            },
            Ok(Work::Evidence(batch)) => {
                if let Err(error) = store.put_evidence(&batch) {
                    failed("evidence", &error);
                }
            }
            Ok(Work::Memory(at, memory, committed)) => {
                let written = serde_json::to_vec(&memory)
                    .map_err(anyhow::Error::from)
                    .and_then(|body| Ok(store.put_blob(MEMORY, at, &body)?));
                match written {
                    Ok(()) => say(committed),
                    Err(error) => failed("memory", &error),
                }
            }
            Ok(Work::Baselines(at, Piece { name, checkpoint }, committed)) => {
                match put(&mut store, &name, at, checkpoint.as_ref()) {
                    Ok(()) => say(committed),
                    Err(error) => failed("baselines", &error),
                }
            }
            Ok(Work::Templates(at, checkpoint)) => {
                if let Err(error) = put(&mut store, TEMPLATES, at, checkpoint.as_ref()) {
                    failed("templates", &error);
                }
            }
            Ok(Work::Shares(at, shares)) => {
                if let Err(error) = put(&mut store, SHARES, at, shares.as_ref()) {
                    failed("shared links", &error);
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

fn say(committed: Option<Sender<()>>) {
    if let Some(committed) = committed {
        // The core may have stopped waiting.
        let _ = committed.try_send(());
    }
}

fn put<T: Serialize>(store: &mut Store, name: &str, at: Millis, value: &T) -> anyhow::Result<()> {
    store.put_blob(name, at, &postcard::to_stdvec(value)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn parts_in_the_file_are_joined_with_its_head() {
        let mut store = Store::in_memory().unwrap();
        assert!(baselines(&store).0.is_none());
        let at = |at| {
            let mut checkpoint = weir_detector::Checkpoint::default();
            checkpoint.at = Millis(at);
            checkpoint
        };
        // Killed before the first round was over: parts, and no head.
        put(&mut store, &part_name(7), Millis(1), &at(9)).unwrap();
        assert_eq!(baselines(&store).0.unwrap().at, Millis(9));
        put(&mut store, HEAD, Millis(1), &at(5)).unwrap();
        let (all, written) = baselines(&store);
        assert_eq!(all.unwrap().at, Millis(9));
        assert!(!written.whole && written.parts.iter().all(|there| !there));
    }

    #[test]
    fn baselines_of_before_operators_could_set_any_are_read() {
        let mut empty = weir_detector::Checkpoint::default();
        empty.at = Millis(7);
        let mut body = postcard::to_stdvec(&empty).unwrap();
        assert_eq!(checkpoint(body.clone()).unwrap().at, Millis(7));
        assert_eq!(body.pop(), Some(0), "the list is last");
        assert!(postcard::from_bytes::<weir_detector::Checkpoint>(&body).is_err());
        assert_eq!(checkpoint(body.clone()).unwrap().at, Millis(7));
        body.pop();
        assert!(checkpoint(body[..1].to_vec()).is_err(), "what is cut off is not made up");
    }
}
