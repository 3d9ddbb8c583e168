//! Takes records in: to the open log, and from closed logs to sealed files.
//!
//! ```text
//! feeds -> Archive::take -> log/17.log      each minute, or after a million records:
//!          (thread `log`)        \-> thread `seal`: log/16.log -> ...-16.parquet
//! ```

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use weir_model::{ArchiveState, ArchivedFlow};

use crate::catalog::{Catalog, Entry, Keep};
use crate::file;
use crate::log::{self, FRAME_MAX, Log};
use crate::thin::{Load, Thin};

/// A log is closed after so long.
const LOG_TIME: Duration = Duration::from_secs(60);
/// Records after which a log is closed: they are sorted in memory, some 150 octets each.
pub const LOG_ROWS: u64 = 1 << 20;
/// How often a file that the disk refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a log that cannot be read is tried before it stays as it is until the next start.
const READS_MAX: u32 = 3;
/// How often old files are looked for when nothing is sealed.
const BOUND_EVERY: Duration = Duration::from_secs(10);

/// What everybody may look at while records come in.
#[derive(Debug)]
pub struct Shared {
    /// The files.
    pub catalog: Catalog,
    taken: AtomicU64,
    lost: AtomicU64,
    thinned: AtomicU64,
    keep_one_in: AtomicU32,
    waiting: AtomicUsize,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// Of the files in a catalog.
    pub fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            taken: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            thinned: AtomicU64::new(0),
            keep_one_in: AtomicU32::new(1),
            waiting: AtomicUsize::new(0),
            trouble: Mutex::new(None),
        }
    }

    /// How the archive is.
    pub fn state(&self) -> ArchiveState {
        let entries = self.catalog.now();
        ArchiveState {
            since: entries.iter().find_map(|entry| entry.ends).map(|(first, _)| first),
            files: entries.len() as u64,
            octets: self.catalog.octets(),
            taken: self.taken.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            thinned: self.thinned.load(Ordering::Relaxed),
            keep_one_in: self.keep_one_in.load(Ordering::Relaxed),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Takes note of records that were lost on the way here.
    pub fn lose(&self, records: u64) {
        // The number is somebody else's word.
        let more = |lost: u64| Some(lost.saturating_add(records));
        let _ = self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn refused(&self, what: &str, error: &io::Error) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            error!(%error, what, "archive: write failed");
        }
        *trouble = Some(format!("{what}: {error}"));
    }

    fn takes(&self) {
        let had = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if had.is_some() {
            info!("the disk of the archive takes records again");
        }
    }
}

/// The open log.
#[derive(Debug)]
struct Open {
    log: Log,
    entry: Arc<Entry>,
    since: Instant,
    rows: u64,
}

/// Writes the log.
#[derive(Debug)]
pub struct Archive {
    shared: Arc<Shared>,
    open: Option<Open>,
    close: Option<Sender<Arc<Entry>>>,
    sealer: Option<JoinHandle<()>>,
    thin: Thin,
    hash: RandomState,
    second: Instant,
    busy: Duration,
    lost_before: u64,
}

impl Archive {
    /// Goes on with what an earlier run left: its logs are sealed first.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(shared: &Arc<Shared>, keep: Keep) -> io::Result<Self> {
        let (close, closed) = channel();
        for log in shared.catalog.now().into_iter().filter(|entry| entry.is_log()) {
            shared.waiting.fetch_add(1, Ordering::Relaxed);
            // The receiver stands below.
            let _ = close.send(log);
        }
        let own = Arc::clone(shared);
        let sealer = std::thread::Builder::new()
            .name("seal".to_owned())
            .spawn(move || seal_all(&own, &keep, &closed))?;
        Ok(Self {
            shared: Arc::clone(shared),
            open: None,
            close: Some(close),
            sealer: Some(sealer),
            thin: Thin::default(),
            hash: RandomState::new(),
            second: Instant::now(),
            busy: Duration::ZERO,
            lost_before: 0,
        })
    }

    /// Writes records in their wire form down. What the disk refuses is lost, and counted.
    pub fn take(&mut self, records: &[u8]) {
        let kept = self.thinned(records);
        let began = Instant::now();
        for part in kept.chunks(FRAME_MAX / ArchivedFlow::OCTETS * ArchivedFlow::OCTETS) {
            let count = (part.len() / ArchivedFlow::OCTETS) as u64;
            match self.append(part, count) {
                Ok(()) => {
                    self.shared.taken.fetch_add(count, Ordering::Relaxed);
                    self.shared.takes();
                }
                Err(error) => {
                    self.shared.lose(count);
                    self.shared.refused("log", &error);
                    if error.kind() == io::ErrorKind::StorageFull {
                        self.shared.catalog.give_up_oldest();
                    }
                    self.leave_broken();
                }
            }
        }
        self.busy += began.elapsed();
    }

    /// What is kept of records: all, or by a keyed hash some, so that nobody can choose which.
    fn thinned<'a>(&self, records: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        let keep_one_in = u64::from(self.thin.keep_one_in());
        let whole = records.len() / ArchivedFlow::OCTETS * ArchivedFlow::OCTETS;
        if keep_one_in == 1 {
            return records[..whole].into();
        }
        let keeps = |wire: &&[u8]| self.hash.hash_one(*wire).is_multiple_of(keep_one_in);
        let all = records.chunks_exact(ArchivedFlow::OCTETS);
        let kept: Vec<u8> = all.filter(keeps).flatten().copied().collect();
        let left_out = (whole - kept.len()) / ArchivedFlow::OCTETS;
        self.shared.thinned.fetch_add(left_out as u64, Ordering::Relaxed);
        kept.into()
    }

    fn append(&mut self, records: &[u8], count: u64) -> io::Result<()> {
        let thinned = self.thin.keep_one_in();
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let (number, path) = self.shared.catalog.next_log();
                let log = Log::create(&path)?;
                let entry = self.shared.catalog.add(Entry::new(path, number, None, 0));
                none.insert(Open { log, entry, since: Instant::now(), rows: 0 })
            }
        };
        open.log.append(thinned, records)?;
        open.rows += count;
        open.entry.octets.store(open.log.len(), Ordering::Relaxed);
        if open.rows >= LOG_ROWS {
            self.close();
        }
        Ok(())
    }

    /// Does what is due. To be called a few times a second.
    pub fn tick(&mut self) {
        let elapsed = self.second.elapsed();
        if elapsed < Duration::from_secs(1) {
            return;
        }
        let began = Instant::now();
        if let Some(open) = &mut self.open
            && let Err(error) = open.log.sync()
        {
            self.shared.refused("log", &error);
            self.leave_broken();
        }
        if self.open.as_ref().is_some_and(|open| open.since.elapsed() >= LOG_TIME) {
            self.close();
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let before = self.thin.keep_one_in();
        self.thin.second(Load {
            busy: (self.busy + began.elapsed()).as_secs_f64() / elapsed.as_secs_f64(),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            lost: lost.saturating_sub(self.lost_before),
        });
        let now = self.thin.keep_one_in();
        if now > before {
            warn!(keep_one_in = now, "overload: keeping 1 in {now} flow records");
        } else if now < before {
            info!(keep_one_in = now, "keeping 1 in {now} flow records");
        }
        self.shared.keep_one_in.store(now, Ordering::Relaxed);
        self.lost_before = lost;
        self.busy = Duration::ZERO;
        self.second = Instant::now();
    }

    /// Closes a log that can take no more: what stands in it is sealed, the next record begins another.
    fn leave_broken(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.log.is_broken()) {
            self.close();
        }
    }

    /// Closes the log, so that it is sealed.
    pub fn close(&mut self) {
        if let (Some(open), Some(close)) = (self.open.take(), &self.close) {
            self.shared.waiting.fetch_add(1, Ordering::Relaxed);
            // A sealer that is gone has said why; its logs are sealed at the next start.
            let _ = close.send(open.entry);
        }
    }

    /// Closes the log and waits until everything is sealed, or the disk refuses.
    pub fn stop(mut self) {
        if let Some(open) = &mut self.open {
            // Sealed below, or at the next start.
            let _ = open.log.sync();
        }
        self.close();
        self.close = None;
        if let Some(sealer) = self.sealer.take() {
            let _ = sealer.join();
        }
    }
}

fn seal_all(shared: &Shared, keep: &Keep, closed: &Receiver<Arc<Entry>>) {
    let (mut waiting, mut refused) = (VecDeque::new(), false);
    loop {
        let patience = match (waiting.is_empty(), refused) {
            (true, _) => BOUND_EVERY,
            (false, true) => AGAIN,
            (false, false) => Duration::ZERO,
        };
        match closed.recv_timeout(patience) {
            Ok(log) => waiting.push_back((log, 0)),
            Err(RecvTimeoutError::Timeout) => {}
            // What the disk refuses now is for the next run.
            Err(RecvTimeoutError::Disconnected) if waiting.is_empty() || refused => return,
            Err(RecvTimeoutError::Disconnected) => {}
        }
        if let Some((log, reads)) = waiting.pop_front() {
            refused = match seal(shared, &log) {
                Ok(()) => {
                    shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    false
                }
                // Its own fault: the others are sealed meanwhile, and queries read of it what can be read.
                Err(Refusal::Log(error)) => {
                    if reads + 1 < READS_MAX {
                        waiting.push_back((log, reads + 1));
                    } else {
                        error!(%error, path = %log.path.display(), "a log cannot be read: it stays as it is until the next start");
                        shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    waiting.iter().all(|(_, reads)| *reads > 0)
                }
                Err(Refusal::Disk(error)) => {
                    waiting.push_front((log, reads));
                    shared.refused("file", &error);
                    let full = error.kind() == io::ErrorKind::StorageFull;
                    !(full && shared.catalog.give_up_oldest())
                }
            };
        }
        shared.catalog.bound(keep, now_ms());
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Why a log is not sealed.
#[derive(Debug)]
enum Refusal {
    /// It cannot be read.
    Log(io::Error),
    /// The disk takes no file.
    Disk(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

fn seal(shared: &Shared, log: &Arc<Entry>) -> Result<(), Refusal> {
    let mut flows = Vec::new();
    let read = log::read(&log.path, |frame| {
        flows.extend_from_slice(frame);
        Ok(())
    });
    match read {
        // It was too old and went.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            shared.catalog.sealed(log, None);
            return Ok(());
        }
        other => other.map_err(Refusal::Log)?,
    }
    let ends = flows.iter().map(|flow| flow.end);
    let (Some(first), Some(last)) = (ends.clone().min(), ends.max()) else {
        shared.catalog.sealed(log, None);
        return Ok(());
    };
    let path = shared.catalog.place(log.number, (first, last))?;
    let temporary = path.with_extension("tmp");
    let written = file::write(&temporary, &mut flows).and_then(|()| {
        fs::rename(&temporary, &path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    });
    if let Err(error) = written {
        // What stays of it is cleared away at the next start.
        let _ = fs::remove_file(&temporary);
        return Err(error.into());
    }
    let octets = fs::metadata(&path)?.len();
    let entry = Entry::new(path.clone(), log.number, Some((first, last)), octets);
    if !shared.catalog.sealed(log, Some(entry)) {
        fs::remove_file(&path)?;
    }
    Ok(())
}
