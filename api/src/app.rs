//! What every handler sees: the way to the core, to the store, and who may ask.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use tokio::sync::Semaphore;
use weir_model::Millis;
use weir_store::audit::AuditEntry;
use weir_store::health::{Part, Trouble};
use weir_store::{Change, Store, StoreError};

use crate::access::Principal;
use crate::access::backoff::Backoff;
use crate::access::known::Known;
use crate::access::password::Passwords;
use crate::access::secret;
use crate::answers::Answers;
use crate::journal::{self, Journal};
use crate::limit::Limit;
use crate::live::Hub;
use crate::problem::Problem;
use crate::records::Records;
use crate::server::Peer;
use crate::{Config, Handles};

/// Changes that may wait for a state file that is slow; one more is answered 503. Each holds a thread, and
/// threads must be left for reading who asks.
const CHANGES_WAITING: usize = 64;

/// How long whoever asks waits until what is not about them is noted.
const NOTE_PATIENCE: Duration = Duration::from_millis(100);

/// How long finding out who asks may take: then what was known before counts.
const WHO_PATIENCE: Duration = Duration::from_secs(2);

/// Where the time comes from: the system, or a test.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// A clock that a test turns.
    pub fn new(now: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The system's clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// State of the router. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    config: ArcSwap<Config>,
    pub(crate) handles: Handles,
    pub(crate) records: Records,
    pub(crate) clock: Clock,
    pub(crate) passwords: Passwords,
    pub(crate) backoff: Backoff,
    pub(crate) known: Known,
    pub(crate) limit: Limit,
    pub(crate) journal: Journal,
    pub(crate) answers: Answers,
    changes: Arc<Semaphore>,
    notes: Arc<Semaphore>,
    pub(crate) live: Arc<Hub>,
    /// What makes the first account, as long as there is none.
    pub(crate) setup_code: Mutex<Option<String>>,
}

impl App {
    /// Everything the API needs.
    pub fn new(config: Config, handles: Handles, records: Records, clock: Clock) -> Self {
        let live = Arc::new(Hub::new(clock.0()));
        Self {
            inner: Arc::new(Inner {
                config: ArcSwap::from_pointee(config),
                handles,
                records,
                clock,
                passwords: Passwords::default(),
                backoff: Backoff::default(),
                known: Known::default(),
                limit: Limit::default(),
                journal: Journal::default(),
                answers: Answers::default(),
                changes: Arc::new(Semaphore::new(CHANGES_WAITING)),
                notes: Arc::new(Semaphore::new(1)),
                live,
                setup_code: Mutex::new(None),
            }),
        }
    }

    /// When there is no owner yet: the code that makes the first one, new with every start. It is for the
    /// log alone, which only who runs this machine can read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn setup_code(&self) -> Result<Option<String>, StoreError> {
        // Who is read from a file that cannot be written is not necessarily everybody: nobody is made owner then.
        let first = self.inner.records.with(|store| Ok(store.owners()? == 0))?;
        let code = (first && !self.inner.records.stands_in()).then(secret::code);
        self.inner.setup_code.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&code);
        Ok(code)
    }

    /// What is configured at present.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.inner.config.load_full()
    }

    /// The configuration file was read again. Listeners are not touched: see [`crate::server::Next`].
    pub fn set_config(&self, config: Config) {
        self.inner.config.store(Arc::new(config));
    }

    pub(crate) fn now(&self) -> Millis {
        (self.inner.clock.0)()
    }

    /// What does not take what it is given, by part.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        self.inner.handles.health.troubles(self.now())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.inner.handles.ready.load(Ordering::Acquire)
    }

    /// Whether the browser speaks TLS, to weir or to a named proxy in front of it.
    pub(crate) fn secure(&self, peer: &Peer, headers: &HeaderMap) -> bool {
        let behind =
            peer.address.is_some_and(|address| self.config().trusted_proxies.contains(&address));
        let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        peer.tls || (behind && proto == Some("https"))
    }

    /// Reads the store, off the runtime's own threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let app = self.clone();
        blocking(move || app.inner.records.read(work)).await
    }

    /// Changes the store in one transaction.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.change_then(work, |_| {}).await
    }

    /// Changes the store in one transaction and does what follows from it before anybody else may change
    /// it: what follows is in the order of the changes, and is done also when whoever asked has gone.
    pub(crate) async fn change_then<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Problem> {
        let app = self.clone();
        let place = Arc::clone(&self.inner.changes).try_acquire_owned();
        let place = place.map_err(|_| Problem::busy("too many changes wait for the state file"))?;
        blocking(move || {
            let changed = app.inner.records.write(|store| {
                let changed = store.change(work)?;
                if store.take_accounts_changed() {
                    app.inner.known.forget();
                }
                then(&changed);
                Ok(changed)
            });
            drop(place);
            changed
        })
        .await
    }

    /// Changes what is good to know and nothing depends on, such as when a session was last used: whoever
    /// asks goes on when the state file is slow or refuses.
    pub(crate) async fn note(
        &self,
        work: impl FnOnce(&Change<'_>) -> Result<(), StoreError> + Send + 'static,
    ) {
        // One at a time: what waits for a state file that is slow must not stand before what matters.
        let Ok(only) = Arc::clone(&self.inner.notes).try_acquire_owned() else { return };
        let app = self.clone();
        let noted = tokio::spawn(async move {
            let done = app.change(work).await;
            drop(only);
            done.is_ok()
        });
        let _ = tokio::time::timeout(NOTE_PATIENCE, noted).await;
    }

    /// Reads who asks; not for longer than they can wait.
    pub(crate) async fn read_who<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let slow = |_| Problem::busy("the state file is slow: who asks is not known yet");
        tokio::time::timeout(WHO_PATIENCE, self.read(work)).await.map_err(slow)?
    }

    /// Works on a connection of its own, for backups: nobody waits for it, however long it takes.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let app = self.clone();
        blocking(move || app.inner.records.aside(work)).await
    }

    /// An audit entry about what someone does.
    pub(crate) fn entry(
        &self,
        who: &Principal,
        action: &str,
        target: impl Into<String>,
    ) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            who: who.name.clone(),
            via: who.via.id().to_owned(),
            address: who.address.clone(),
            action: action.to_owned(),
            target: target.into(),
            before: None,
            after: None,
        }
    }

    /// Records something that changes nothing in the store itself.
    pub(crate) async fn audit(&self, entry: AuditEntry) -> Result<(), Problem> {
        self.change(move |change| change.audit(&entry)).await.map(drop)
    }

    /// Records what has been done already. Says whether the state file has it; when not, it waits in memory
    /// and is written later.
    pub(crate) async fn record(&self, entry: AuditEntry) -> bool {
        let told = self.inner.journal.push(entry);
        self.write_journal();
        matches!(tokio::time::timeout(journal::PATIENCE, told).await, Ok(Ok(())))
    }

    /// Has what waits to be recorded written, unless that is under way.
    fn write_journal(&self) {
        let inner = Arc::clone(&self.inner);
        if !inner.journal.take_turn() {
            return;
        }
        drop(tokio::task::spawn_blocking(move || {
            let (now, health) = ((inner.clock.0)(), &inner.handles.health);
            health.begins(Part::Audit, now);
            // A file that cannot be opened is tried here, too: the turn must end in any case.
            let written = inner.records.write(|store| Ok(inner.journal.write(store, now)));
            match written.unwrap_or_else(|error| Err(inner.journal.refused(error))) {
                Ok(()) => health.takes(Part::Audit),
                Err(error) => {
                    let waiting = inner.journal.waiting();
                    tracing::error!(%error, waiting, "the audit log cannot be written; entries wait");
                    health.refuses(Part::Audit, now, &error, waiting);
                }
            }
        }));
    }

    /// Tries again to write what waits, once a second.
    pub(crate) async fn keep_journal(self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            self.write_journal();
            if self.inner.records.stands_in() {
                let inner = Arc::clone(&self.inner);
                // Tried again in a second.
                let _ = tokio::task::spawn_blocking(move || inner.records.write(|_| Ok(()))).await;
            }
        }
    }

    /// Writes what waits a last time, as far as that is quick.
    pub(crate) async fn close_journal(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while self.inner.journal.waiting() > 0 && tokio::time::Instant::now() < deadline {
            self.write_journal();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let left = self.inner.journal.waiting();
        if left > 0 {
            tracing::error!(left, "audit entries were never written: the state file refuses them");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Problem::internal("the store")),
    }
}
