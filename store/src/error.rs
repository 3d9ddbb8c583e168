//! Why the store cannot do what it was asked.

/// A failure of the state file.
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
}
