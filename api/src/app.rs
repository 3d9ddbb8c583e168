//! What every handler sees: the way to the core, to the store, and who may ask.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use weir_model::Millis;
use weir_store::audit::AuditEntry;
use weir_store::{Change, Store, StoreError};

use crate::access::Principal;
use crate::access::backoff::Backoff;
use crate::access::password::Passwords;
use crate::access::secret;
use crate::limit::Limit;
use crate::live::Hub;
use crate::problem::Problem;
use crate::server::Peer;
use crate::{Config, Handles};

/// Connections that read; one more writes.
const READERS: usize = 2;

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

/// Connections to the state file: one that writes, some that read at the same time.
#[derive(Clone, Debug)]
pub struct Records {
    writer: Arc<Mutex<Store>>,
    readers: Vec<Arc<Mutex<Store>>>,
    /// Folder for copies that a backup makes.
    scratch: std::path::PathBuf,
    /// The history file beside the state file.
    pub(crate) history: Option<std::path::PathBuf>,
}

impl Records {
    /// Opens the state file once more, beside whoever else has it open.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let readers = (0..READERS)
            .map(|_| Ok(Arc::new(Mutex::new(Store::open(path)?))))
            .collect::<Result<_, StoreError>>()?;
        let scratch = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(Self {
            writer: Arc::new(Mutex::new(Store::open(path)?)),
            readers,
            scratch: scratch.unwrap_or_else(|| Path::new(".")).to_owned(),
            history: Some(path.with_file_name("history.db")),
        })
    }

    /// Accounts and notes that are gone with the process.
    ///
    /// # Errors
    /// As [`Store::in_memory`].
    pub fn in_memory() -> Result<Self, StoreError> {
        let only = Arc::new(Mutex::new(Store::in_memory()?));
        Ok(Self {
            writer: Arc::clone(&only),
            readers: vec![only],
            scratch: std::env::temp_dir(),
            history: None,
        })
    }
}

/// State of the router. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) handles: Handles,
    pub(crate) records: Records,
    pub(crate) clock: Clock,
    pub(crate) passwords: Passwords,
    pub(crate) backoff: Backoff,
    pub(crate) limit: Limit,
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
                config,
                handles,
                records,
                clock,
                passwords: Passwords::default(),
                backoff: Backoff::default(),
                limit: Limit::default(),
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
        let writer = self.inner.records.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let code = (writer.owners()? == 0).then(secret::code);
        drop(writer);
        self.inner.setup_code.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&code);
        Ok(code)
    }

    pub(crate) fn now(&self) -> Millis {
        (self.inner.clock.0)()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.inner.handles.ready.load(Ordering::Acquire)
    }

    /// Whether the browser speaks TLS, to weir or to a named proxy in front of it.
    pub(crate) fn secure(&self, peer: &Peer, headers: &HeaderMap) -> bool {
        let behind = peer
            .address
            .is_some_and(|address| self.inner.config.trusted_proxies.contains(&address));
        let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        peer.tls || (behind && proto == Some("https"))
    }

    /// Reads the store, off the runtime's own threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let readers = self.inner.records.readers.clone();
        blocking(move || {
            // The first that is free; the last is waited for.
            for reader in &readers[..readers.len() - 1] {
                if let Ok(store) = reader.try_lock() {
                    return work(&store);
                }
            }
            let last = &readers[readers.len() - 1];
            work(&last.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
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
        let writer = Arc::clone(&self.inner.records.writer);
        blocking(move || {
            let mut store = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = store.change(work)?;
            then(&changed);
            drop(store);
            Ok(changed)
        })
        .await
    }

    /// Works on the writing connection itself, for backups.
    pub(crate) async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let records = self.inner.records.clone();
        blocking(move || {
            let store = records.writer.lock().unwrap_or_else(PoisonError::into_inner);
            work(&store, &records.scratch)
        })
        .await
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
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Problem::internal("the store")),
    }
}
