//! Why the store cannot do what it was asked.

/// A failure of the state or history file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("state file: {0}")]
    Database(#[from] rusqlite::Error),
    /// A record could not be written as JSON or read back.
    #[error("record in the state file: {0}")]
    Encode(#[from] serde_json::Error),
    /// A newer weir wrote the file.
    #[error(
        "the state file has schema {found}, this weir knows up to {known}: use the newer weir or restore a backup"
    )]
    Newer {
        /// Schema version of the file.
        found: i64,
        /// Newest schema version this build knows.
        known: i64,
    },
    /// The record changed since it was read, or a name is taken.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A backup that is damaged, incomplete or no backup at all.
    #[error("backup: {0}")]
    Backup(String),
    /// The state file could not be opened; what is known of it is read, and nothing is written.
    #[error("the state file cannot be opened: {0}")]
    Unopened(String),
    /// A file could not be read or written.
    #[error("{what}: {error}")]
    Io {
        /// Which file, and what was tried.
        what: String,
        /// Why.
        error: std::io::Error,
    },
}

impl StoreError {
    /// Whether the disk or the database refused, rather than a rule of weir's: what is tried again later
    /// may succeed.
    pub const fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Io { .. } | Self::Unopened(_))
    }
}
