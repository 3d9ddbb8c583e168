//! What survives a restart. The only crate that names the database.
//!
//! SQLite in WAL mode: one file for state, one for history. A record is acknowledged when its
//! transaction is committed; `kill -9` at any moment loses none of those. Bodies are JSON, so that
//! an operator can read them with `sqlite3`; columns beside them are what lists filter by.
//! Several connections may be open on one file: readers never wait, writers wait for each other.
//! Read [`Store`] and [`Change`] first.

pub mod accounts;
pub mod audit;
pub mod backup;
mod error;
pub mod health;
pub mod history;
mod incidents;
pub mod notes;
mod open;
mod schema;

use std::cell::Cell;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use weir_model::Millis;

pub use error::StoreError;
pub use health::Health;
pub use incidents::{IncidentFilter, PAGE_MAX, SEARCH_MAX};
pub use open::Opened;

/// An open state file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    accounts_changed: bool,
}

/// Changes that are committed together or not at all: an action and its audit entry.
#[derive(Debug)]
pub struct Change<'a> {
    transaction: Transaction<'a>,
    /// Whether an account, a session or a token was changed or ended.
    accounts: Cell<bool>,
}

impl Store {
    /// Opens or creates the file and brings its schema up to date. A new file is readable by its owner
    /// alone, for it holds password hashes.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer weir wrote the file, [`StoreError::Database`] when it cannot be
    /// opened, locked or migrated.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path)?;
        Self::prepare(Connection::open(path)?)
    }

    /// A store that is gone when dropped.
    ///
    /// # Errors
    /// [`StoreError::Database`] when SQLite cannot be initialised.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(connection: Connection) -> Result<Self, StoreError> {
        configure(&connection)?;
        schema::migrate(&connection)?;
        Ok(Self { connection, accounts_changed: false })
    }

    /// Runs `work` in one transaction, which is committed when it succeeds and undone when it does not.
    ///
    /// # Errors
    /// What `work` returns, and [`StoreError::Database`].
    pub fn change<T>(
        &mut self,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Immediate: what is read inside is still true when it is written.
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let change = Change { transaction, accounts: Cell::new(false) };
        let done = work(&change)?;
        let accounts = change.accounts.get();
        change.transaction.commit()?;
        self.accounts_changed |= accounts;
        Ok(done)
    }

    /// Whether an account, a session or a token was changed or ended by this connection since this was last
    /// asked.
    pub const fn take_accounts_changed(&mut self) -> bool {
        std::mem::replace(&mut self.accounts_changed, false)
    }

    /// Keeps a named blob, such as a checkpoint of the baselines.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn put_blob(&mut self, name: &str, at: Millis, body: &[u8]) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO blobs (name, at_ms, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body",
            params![name, to_sql(at.0), body],
        )?;
        Ok(())
    }

    /// A named blob and when it was kept.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn blob(&self, name: &str) -> Result<Option<(Millis, Vec<u8>)>, StoreError> {
        let row = self
            .connection
            .query_row("SELECT at_ms, body FROM blobs WHERE name = ?1", [name], |row| {
                // Whatever its type: a body that somebody edited is text, and to be judged by who reads it.
                let body = row.get_ref(1)?.as_bytes_or_null()?.unwrap_or_default().to_vec();
                Ok((row.get::<_, i64>(0)?, body))
            })
            .optional()?;
        Ok(row.map(|(at, body)| (Millis(from_sql(at)), body)))
    }
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a committed incident survives a power cut too; the store writes a few times a second at
    // most, so its fsync costs nothing that matters.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Creates a missing file with mode 0600; SQLite gives its side files the same. A file that is there is not
/// opened: closing it again would end the locks that this process holds on it through SQLite (POSIX has one
/// set of locks a process and file, fcntl(2)). Whoever else looked at the file then would take itself for the
/// last one, delete its log, and weir would write to a log that nobody finds again.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        return Ok(());
    }
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| StoreError::Io { what: format!("{}", path.display()), error })
}

/// SQLite integers are signed; ids and times of weir stay below 2^63 for 292 million years.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse; what is negative was not written by weir.
fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
