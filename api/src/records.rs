//! Connections to the state file: one that writes, some that read at the same time. While the file cannot be
//! opened, what could be read of it stands in: everybody is known, and nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use weir_store::{Store, StoreError};

/// Connections that read; one more writes.
const READERS: usize = 2;

#[derive(Debug)]
struct Connections {
    writer: Mutex<Store>,
    /// Empty where the writer reads as well.
    readers: Vec<Mutex<Store>>,
    /// Why the file is not open.
    stands_in: Option<String>,
}

impl Connections {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let readers = (0..READERS)
            .map(|_| Ok(Mutex::new(Store::open(path)?)))
            .collect::<Result<_, StoreError>>()?;
        Ok(Self { writer: Mutex::new(Store::open(path)?), readers, stands_in: None })
    }

    fn only(store: Store, stands_in: Option<String>) -> Self {
        Self { writer: Mutex::new(store), readers: Vec::new(), stands_in }
    }
}

/// Connections to the state file.
#[derive(Clone, Debug)]
pub struct Records {
    connections: Arc<ArcSwap<Connections>>,
    /// The state file; none in memory.
    path: Option<PathBuf>,
}

impl Records {
    /// Opens the state file once more, beside whoever else has it open.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::of(Connections::open(path)?, Some(path)))
    }

    /// What could be read of a file that cannot be opened, and why; it is tried again whenever something is
    /// to be changed.
    pub fn standing_in(path: &Path, store: Store, why: String) -> Self {
        Self::of(Connections::only(store, Some(why)), Some(path))
    }

    /// Accounts and notes that are gone with the process.
    ///
    /// # Errors
    /// As [`Store::in_memory`].
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self::of(Connections::only(Store::in_memory()?, None), None))
    }

    fn of(connections: Connections, path: Option<&Path>) -> Self {
        let connections = Arc::new(ArcSwap::from_pointee(connections));
        Self { connections, path: path.map(Path::to_owned) }
    }

    /// Whether the file is not open.
    pub(crate) fn stands_in(&self) -> bool {
        self.connections.load().stands_in.is_some()
    }

    /// The history file beside the state file.
    pub(crate) fn history(&self) -> Option<PathBuf> {
        self.path.as_ref().map(|path| path.with_file_name("history.db"))
    }

    /// Reads on a connection that is free; the last is waited for.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connections = self.connections.load_full();
        for reader in &connections.readers {
            if let Ok(store) = reader.try_lock() {
                return work(&store);
            }
        }
        let last = connections.readers.last().unwrap_or(&connections.writer);
        work(&last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what the writer sees.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(&self.connections.load_full().writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works on the connection that writes, once the file is open.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connections = self.connections.load_full();
        if connections.stands_in.is_some()
            && let Some(path) = &self.path
        {
            let opened = Connections::open(path);
            let opened = opened.map_err(|error| StoreError::Unopened(error.to_string()))?;
            connections = Arc::new(opened);
            self.connections.store(Arc::clone(&connections));
            tracing::info!("the state file is open: accounts and settings can be changed again");
        }
        let mut store = connections.writer.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut store)
    }

    /// Works on a connection of its own, which nobody waits for; told a folder of the same disk.
    pub(crate) fn aside<T>(
        &self,
        work: impl FnOnce(&Store, &Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(path) = &self.path else {
            return self.with(|store| work(store, &std::env::temp_dir()));
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        work(&Store::open(path)?, folder.unwrap_or_else(|| Path::new(".")))
    }
}
