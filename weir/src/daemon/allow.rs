//! Reads allow lists: a thread that asks the desk what is due, reads it, and tells the desk.
//!
//! What a list said last is kept beside the state file, so that a start without network has it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::watch;
use tracing::{info, warn};
use weir_api::Metrics;
use weir_api::allow::{AllowStatus, Refusal};
use weir_bgp::rpki::Table;
use weir_config::{AllowSource, Config};
use weir_model::{AllowName, Millis, PrefixSet};
use weir_panel::client::{Reach, Sender as Http, Timeouts};

use super::inventory::{Desk, State};
use super::{metrics, now, spawn as spawn_thread};
use crate::allow::{Kept, Outcome, Shelf, parse};

/// Largest list that is read, octets: as many prefixes as there may be, each on a long line.
const OCTETS_MAX: u64 = 4 << 20;

/// How long the reading of one list may take.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(20) };

/// How long after a start the RPKI cache may take to say anything.
const RPKI_PATIENCE: Duration = Duration::from_secs(60);

/// How often one looks for what is due.
const LOOK: Duration = Duration::from_secs(1);

/// Where lists are kept; nowhere when the store is in memory.
pub(crate) fn folder(config: &Config) -> Option<PathBuf> {
    let store = &config.store.path;
    let kept = store.as_os_str() != ":memory:";
    kept.then(|| store.parent().unwrap_or_else(|| Path::new(".")).join("allow"))
}

/// The lists of a configuration as the last run left them.
pub(crate) fn open(config: &Config) -> Shelf {
    let mut kept = BTreeMap::new();
    for list in &config.protect.allow {
        let Some(path) = folder(config).map(|folder| folder.join(file_of(list.name))) else {
            continue;
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                warn!(path = %path.display(), %error, "what was kept of an allow list cannot be read");
                continue;
            }
        };
        match serde_json::from_str::<Kept>(&text) {
            Ok(own) => drop(kept.insert(list.name, own)),
            Err(error) => {
                warn!(path = %path.display(), %error, "what was kept of an allow list is damaged");
            }
        }
    }
    Shelf::new(&config.protect.allow, kept, now())
}

fn file_of(name: AllowName) -> String {
    format!("{name}.json")
}

/// Writes what is kept of a list whole or not at all.
fn keep(folder: Option<&Path>, name: AllowName, kept: Option<&Kept>) {
    let (Some(folder), Some(kept)) = (folder, kept) else { return };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let (path, new) = (folder.join(file_of(name)), folder.join(format!("{name}.new")));
        std::fs::write(&new, serde_json::to_vec(kept)?)?;
        std::fs::rename(new, path)
    };
    if let Err(error) = write() {
        warn!(list = %name, %error, "an allow list is not kept over a restart");
    }
}

/// The thread that reads.
#[derive(Debug)]
pub(crate) struct Reader {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Ends it, without waiting for a source that does not answer.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.is_finished() {
            // It ended before it was told to, which was said elsewhere.
            let _ = self.thread.join();
        }
    }
}

/// Starts the thread.
/// `origins` is what the RPKI cache says, for lists of autonomous systems.
pub(crate) fn spawn(
    desk: Arc<Desk>,
    origins: watch::Receiver<Table>,
    failed: &Sender<String>,
) -> anyhow::Result<Reader> {
    let (stop, stopped) = bounded(0);
    let thread = spawn_thread("allow", failed, move || run(&desk, &origins, &stopped))?;
    Ok(Reader { stop, thread })
}

fn run(desk: &Desk, origins: &watch::Receiver<Table>, stopped: &Receiver<()>) {
    let (http, began) = (Http::new(TIMEOUTS, Reach::File), Instant::now());
    loop {
        for (name, source) in desk.allow_due() {
            // A cache that has just been asked says it in a moment: that is no failure to warn of.
            let early = began.elapsed() < RPKI_PATIENCE && origins.borrow().is_empty();
            if early && matches!(source, AllowSource::Origins(_)) {
                continue;
            }
            let said = read(&http, origins, &source);
            desk.allow_read(name, &source, said);
        }
        if stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn read(
    http: &Http,
    origins: &watch::Receiver<Table>,
    source: &AllowSource,
) -> Result<PrefixSet, String> {
    match source {
        AllowSource::Urls(urls) => {
            let mut all = Vec::new();
            for url in urls {
                all.extend(list(&http.fetch(url, OCTETS_MAX)?)?.iter());
            }
            Ok(all.into())
        }
        AllowSource::File(path) => {
            let mut body = Vec::new();
            let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
            let length = file.take(OCTETS_MAX + 1).read_to_end(&mut body);
            match length.map_err(|error| error.to_string())? as u64 {
                0..=OCTETS_MAX => list(&body),
                _ => Err(format!("it is longer than {OCTETS_MAX} octets")),
            }
        }
        AllowSource::Origins(asns) => origins.borrow().originated(asns),
    }
}

fn list(body: &[u8]) -> Result<PrefixSet, String> {
    parse(std::str::from_utf8(body).map_err(|_| "it is no text".to_owned())?)
}

impl Desk {
    fn allow_due(&self) -> Vec<(AllowName, AllowSource)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).shelf.due(now())
    }

    fn allow_read(&self, name: AllowName, source: &AllowSource, said: Result<PrefixSet, String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.shelf.status(now());
        match state.shelf.read(name, source, said, now()) {
            Outcome::Failed => {
                // Once for each reason: a source that is down is down for hours.
                let known = before.iter().find(|list| list.name == name.as_str());
                let new = state.shelf.status(now()).into_iter().find(|l| l.name == name.as_str());
                if let Some(new) = new.filter(|new| known.is_none_or(|k| k.error != new.error)) {
                    warn!(list = %name, error = %new.error, "an allow list cannot be read: it stays as it was");
                }
            }
            Outcome::Waits => {
                warn!(
                    list = %name,
                    "an allow list has changed by more than a fifth: `weir allow show {name}`, then approve or reject"
                );
            }
            Outcome::Taken => info!(list = %name, "an allow list has changed"),
            Outcome::Same => {}
        }
        self.shelve(&mut state, name);
    }

    /// Keeps what is known of a list, and puts it in force.
    fn shelve(&self, state: &mut State, name: AllowName) {
        keep(self.kept_lists.as_deref(), name, state.shelf.kept(name));
        self.allow_changed(state);
        self.renew(state);
    }

    /// Makes the lists in force anew; what is protected is to be renewed afterwards.
    pub(super) fn allow_changed(&self, state: &mut State) {
        let made = state.shelf.in_force(&state.file.protect.allow);
        if made != *state.allow {
            state.allow = Arc::new(made);
        }
        measure(&self.metrics, &state.shelf.status(now()));
    }

    fn allow_order(
        &self,
        name: &str,
        order: impl FnOnce(&mut Shelf) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        order(&mut state.shelf)?;
        if let Ok(name) = name.parse() {
            self.shelve(&mut state, name);
        }
        Ok(())
    }
}

impl weir_api::allow::Desk for Desk {
    fn lists(&self) -> Vec<AllowStatus> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).shelf.status(now())
    }

    fn approve(&self, name: &str) -> Result<(), Refusal> {
        self.allow_order(name, |shelf| shelf.approve(name))
    }

    fn reject(&self, name: &str) -> Result<(), Refusal> {
        self.allow_order(name, |shelf| shelf.reject(name))
    }

    fn refresh(&self, name: &str) -> Result<(), Refusal> {
        self.allow_order(name, |shelf| shelf.refresh(name))
    }
}

/// Tells how it stands with each list, from the start.
pub(super) fn measure(metrics: &Metrics, lists: &[AllowStatus]) {
    metrics.allow_prefixes.reset();
    metrics.allow_pending.reset();
    metrics.allow_read.reset();
    for list in lists {
        let label = [list.name.as_str()];
        let count = i64::try_from(list.prefixes).unwrap_or(i64::MAX);
        metrics.allow_prefixes.with_label_values(&label).set(count);
        metrics.allow_pending.with_label_values(&label).set(i64::from(list.pending.is_some()));
        if !list.source.is_empty() {
            let read = list.read.unwrap_or(Millis(0));
            metrics.allow_read.with_label_values(&label).set(metrics::seconds(read));
            Metrics::raise(&metrics.allow_failures, &label, list.failures);
        }
    }
}
