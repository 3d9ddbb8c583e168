//! The store's thread: takes batches, writes them, and forgets what is too old.

use std::collections::BTreeMap;
use std::path::PathBuf;
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
use weir_store::health::Part;
use weir_store::{Health, Store, StoreError};

use super::baselines::{HEAD, Piece, Written, part_name};
use super::{now, spawn as spawn_thread};

/// Batches that may wait.
const WAITING_MAX: usize = 64;

/// How often old incidents are looked for, milliseconds.
const SWEEP_MS: u64 = 3600 * 1000;

/// How long the file is left alone after it refused something.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MS: u64 = 1000;

/// After so long without a write, milliseconds, one is tried: a full disk is known before an attack.
const HEARTBEAT_MS: u64 = 10_000;

/// Incidents written in one transaction at most.
const BATCH: usize = 500;

/// Incidents that wait for a file that refuses them, at most.
const INCIDENTS_OWED_MAX: usize = 10_000;

/// Evidence that waits likewise.
const EVIDENCE_OWED_MAX: usize = 1000;

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
    /// What others are still to be told.
    Letters(Millis, Vec<u8>),
    /// For how many days closed incidents are kept from now on.
    KeepDays(u32),
}

/// Links to servers' pages that staff shared, by the hash of each.
pub(crate) type Shares = BTreeMap<Hash, Share>;

/// Names of the blobs in the state file; a new form gets a new name, and the old one is not read.
const TEMPLATES: &str = "collector-1";
const SHARES: &str = "shares-1";
/// JSON, for people who look into it; holds no credentials.
const LETTERS: &str = "notify-1";
const HEARTBEAT: &str = "heartbeat";
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
    pub(crate) letters: weir_notify::KeptDesk,
}

impl Learned {
    /// What stands beside the state file about the mode counts when it was said later than what is in it.
    pub(crate) fn heed(&mut self, word: weir_mitigator::Word) {
        let known = self.memory.as_ref().map(|memory| memory.word.clone()).unwrap_or_default();
        if word.at > known.at {
            self.memory.get_or_insert_default().word = word;
        }
    }
}

/// Reads back what the last run had learned. What cannot be read is learned anew: weir starts.
pub(crate) fn learned(store: &mut Store) -> Learned {
    let (baselines, written) = baselines(store);
    Learned {
        baselines,
        written,
        templates: blob(store, TEMPLATES).unwrap_or_default(),
        shares: blob(store, SHARES).unwrap_or_default(),
        memory: memory(store),
        letters: letters(store),
    }
}

/// What others are still to be told. What cannot be understood is not told.
fn letters(store: &Store) -> weir_notify::KeptDesk {
    let read = |body: Vec<u8>| known(serde_json::from_slice(&body), LETTERS);
    body(store, LETTERS).and_then(read).unwrap_or_default()
}

/// What the mitigator kept. When it cannot be understood it is set aside, for it holds measures by hand.
fn memory(store: &mut Store) -> Option<weir_mitigator::Checkpoint> {
    let body = body(store, MEMORY)?;
    match serde_json::from_slice(&body) {
        Ok(memory) => Some(memory),
        Err(error) => {
            let moved = store.set_aside_blob(MEMORY, &error.to_string(), now());
            error!(
                %error,
                moved = moved.is_ok(),
                "measures by hand and what was learned of attacks cannot be read; set aside in the table set_aside"
            );
            None
        }
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

/// A checkpoint of before operators could set anything, or had metrics of their own, ends where those lists
/// begin: empty ones are put behind it. Behind the lists the octets are not read.
fn checkpoint(mut body: Vec<u8>) -> postcard::Result<weir_detector::Checkpoint> {
    body.extend([0; 3]);
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

/// In milliseconds.
fn days(days: u32) -> u64 {
    u64::from(days) * 86_400_000
}

/// Without a store, the file could not be opened for that reason: it is tried again.
pub(crate) fn spawn(
    store: Result<Store, String>,
    config: &Config,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    failed: &Sender<String>,
) -> anyhow::Result<(Sender<Work>, JoinHandle<()>)> {
    let (tx, rx) = bounded(WAITING_MAX);
    let refused = store.as_ref().err().map(|why| {
        health.refuses(Part::State, now(), why, 0);
        now()
    });
    let mut writer = Writer {
        path: config.store.path.clone(),
        store: store.ok(),
        metrics: Arc::clone(metrics),
        health: Arc::clone(health),
        keep_ms: days(config.store.keep_days),
        owed: Owed::default(),
        refused,
        wrote: now(),
        swept: now(),
    };
    if writer.store.is_some() {
        // Before anybody is told that weir is ready: that a file opens does not say that it takes anything.
        writer.beat(now());
    }
    let thread = spawn_thread("store", failed, move || writer.run(&rx))?;
    Ok((tx, thread))
}

/// What the file has refused and is still to take: the newest form of each.
#[derive(Debug, Default)]
struct Owed {
    incidents: BTreeMap<IncidentId, Arc<Incident>>,
    evidence: BTreeMap<IncidentId, Evidence>,
    memory: Option<(Millis, Box<weir_mitigator::Checkpoint>)>,
    shares: Option<(Millis, Box<Shares>)>,
    letters: Option<(Millis, Vec<u8>)>,
    /// Incidents and evidence for which there was no room.
    lost: u64,
}

impl Owed {
    fn len(&self) -> usize {
        self.incidents.len()
            + self.evidence.len()
            + usize::from(self.memory.is_some())
            + usize::from(self.shares.is_some())
            + usize::from(self.letters.is_some())
    }

    /// The oldest give way.
    fn trim(&mut self) {
        while self.incidents.len() > INCIDENTS_OWED_MAX {
            self.lost += u64::from(self.incidents.pop_first().is_some());
        }
        while self.evidence.len() > EVIDENCE_OWED_MAX {
            self.lost += u64::from(self.evidence.pop_first().is_some());
        }
    }

    /// Writes what is owed, what matters most first.
    fn pay(&mut self, store: &mut Store) -> Result<(), StoreError> {
        if let Some((at, memory)) = &self.memory {
            store.put_blob(MEMORY, *at, &serde_json::to_vec(memory)?)?;
            self.memory = None;
        }
        while !self.incidents.is_empty() {
            let batch: Vec<_> = self.incidents.values().take(BATCH).cloned().collect();
            store.put_incidents(&batch)?;
            batch.iter().for_each(|incident| drop(self.incidents.remove(&incident.id)));
        }
        while let Some((id, evidence)) = self.evidence.pop_first() {
            let batch = [(id, evidence)];
            if let Err(error) = store.put_evidence(&batch) {
                self.evidence.extend(batch);
                return Err(error);
            }
        }
        if let Some((at, shares)) = &self.shares {
            put(store, SHARES, *at, shares.as_ref())?;
            self.shares = None;
        }
        if let Some((at, letters)) = &self.letters {
            store.put_blob(LETTERS, *at, letters)?;
            self.letters = None;
        }
        Ok(())
    }
}

struct Writer {
    path: PathBuf,
    /// None while it cannot be opened.
    store: Option<Store>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    keep_ms: u64,
    owed: Owed,
    /// When the file last refused something.
    refused: Option<Millis>,
    /// When the file last took something.
    wrote: Millis,
    swept: Millis,
}

impl Writer {
    fn run(&mut self, work: &Receiver<Work>) {
        loop {
            match work.recv_timeout(AGAIN) {
                Ok(work) => self.take(work),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.upkeep();
        }
        self.refused = None;
        self.settle();
        let left = self.owed.len();
        if left > 0 {
            error!(left, "records were never written: the state file refuses them");
        }
    }

    /// Who waits is told when it is written, and hung up on when it is not.
    fn take(&mut self, work: Work) {
        match work {
            Work::Incidents(batch, committed) => {
                self.owed.incidents.extend(batch.into_iter().map(|new| (new.id, new)));
                self.settle_for(committed);
            }
            Work::Evidence(batch) => {
                self.owed.evidence.extend(batch);
                self.settle();
            }
            Work::Memory(at, memory, committed) => {
                self.owed.memory = Some((at, memory));
                self.settle_for(committed);
            }
            Work::Shares(at, shares) => {
                self.owed.shares = Some((at, shares));
                self.settle();
            }
            Work::KeepDays(days) => self.keep_ms = self::days(days),
            Work::Letters(at, letters) => {
                self.owed.letters = Some((at, letters));
                self.settle();
            }
            // Written anew within minutes: what is refused is not kept in memory.
            Work::Baselines(at, Piece { name, checkpoint }, committed) => {
                if self.now_and_here(|store| put(store, &name, at, checkpoint.as_ref())) {
                    say(committed);
                }
            }
            Work::Templates(at, checkpoint) => {
                self.now_and_here(|store| put(store, TEMPLATES, at, checkpoint.as_ref()));
            }
        }
    }

    fn settle_for(&mut self, committed: Option<Sender<()>>) {
        if self.settle() {
            say(committed);
        }
    }

    /// Writes what is owed, unless the file has refused a moment ago; says whether nothing is owed any more.
    fn settle(&mut self) -> bool {
        self.owed.trim();
        if self.refused.is_some_and(|at| now().since(at) < AGAIN_MS) {
            // Only how much waits is news.
            return false;
        }
        let mut owed = std::mem::take(&mut self.owed);
        let paid = self.now_and_here(|store| owed.pay(store));
        self.owed = owed;
        if paid && self.owed.lost > 0 {
            warn!(
                lost = std::mem::take(&mut self.owed.lost),
                "too many records waited; the oldest are lost"
            );
        }
        self.report_waiting();
        paid
    }

    /// Writes something; what the file refuses is counted and told.
    fn now_and_here(&mut self, work: impl FnOnce(&mut Store) -> Result<(), StoreError>) -> bool {
        let at = now();
        if self.refused.is_some_and(|refused| at.since(refused) < AGAIN_MS) {
            return false;
        }
        self.health.begins(Part::State, at);
        match self.open().and_then(work) {
            Ok(()) => {
                self.wrote = now();
                if self.refused.take().is_some() {
                    info!("the state file takes what it is given again");
                }
                self.health.takes(Part::State);
                true
            }
            Err(error) => {
                self.metrics.store_errors.with_label_values::<&str>(&[]).inc();
                if self.refused.is_none() {
                    error!(%error, "the state file does not take what it is given; weir goes on, and tries again");
                }
                self.refused = Some(now());
                self.health.refuses(Part::State, now(), &error, self.owed.len());
                false
            }
        }
    }

    /// The file, which is opened if it is not open.
    fn open(&mut self) -> Result<&mut Store, StoreError> {
        match &mut self.store {
            Some(store) => Ok(store),
            closed => Ok(closed.insert(Store::open(&self.path)?)),
        }
    }

    /// Tries whether the file takes something.
    fn beat(&mut self, at: Millis) {
        self.now_and_here(|store| store.put_blob(HEARTBEAT, at, &[]));
    }

    fn report_waiting(&self) {
        if self.owed.len() > 0 {
            self.health.waits(Part::State, self.owed.len());
        }
    }

    /// Pays debts, forgets what is old, and finds out whether the file would take something before that matters.
    /// Also between two pieces of work: in a long attack there may be no pause.
    fn upkeep(&mut self) {
        let at = now();
        if self.owed.len() > 0 {
            self.settle();
        } else if self.refused.is_some() || at.since(self.wrote) >= HEARTBEAT_MS {
            self.beat(at);
        }
        if at.since(self.swept) >= SWEEP_MS {
            self.swept = at;
            let before = at - self.keep_ms;
            self.now_and_here(|store| {
                let gone = store.forget_before(before)?;
                if gone > 0 {
                    info!(gone, "forgot old incidents");
                }
                Ok(())
            });
        }
    }
}

fn say(committed: Option<Sender<()>>) {
    if let Some(committed) = committed {
        // The core may have stopped waiting.
        let _ = committed.try_send(());
    }
}

fn put<T: Serialize>(
    store: &mut Store,
    name: &str,
    at: Millis,
    value: &T,
) -> Result<(), StoreError> {
    match postcard::to_stdvec(value) {
        Ok(body) => store.put_blob(name, at, &body),
        Err(error) => {
            // Plain data always has a form; and trying again would not give it one.
            error!(%error, name, "a checkpoint cannot be written down");
            Ok(())
        }
    }
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

    /// A writer whose last sweep and last write are long ago.
    fn long_ago(store: Store) -> Writer {
        Writer {
            path: PathBuf::new(),
            store: Some(store),
            metrics: Arc::new(Metrics::new()),
            health: Arc::new(Health::default()),
            keep_ms: 1000,
            owed: Owed::default(),
            refused: None,
            wrote: Millis(0),
            swept: Millis(0),
        }
    }

    #[test]
    fn what_is_old_is_forgotten_also_when_there_is_always_something_to_write() {
        let (tx, rx) = bounded(1);
        // One piece of work and no pause behind it: the next that is seen is the end.
        tx.send(Work::Shares(Millis(2), Box::default())).unwrap();
        drop(tx);
        let mut writer = long_ago(Store::in_memory().unwrap());
        writer.run(&rx);
        assert!(writer.swept > Millis(0));
    }
}
