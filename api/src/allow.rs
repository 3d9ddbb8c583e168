//! What the API asks of the allow lists.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;
use weir_model::Millis;

/// One allow list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AllowStatus {
    /// Its name.
    pub name: String,
    /// Prefixes in force.
    pub prefixes: usize,
    /// The first of them, at most ten.
    pub first: Vec<String>,
    /// Protocol and ports that it is for; empty when for all.
    pub what: String,
    /// File or URL that is read, the latter by its origin; empty when the configuration has all of it.
    pub source: String,
    /// When the source was last read without an error; absent when never.
    pub read: Option<Millis>,
    /// Whether it has not been read for three times as long as it should be.
    pub stale: bool,
    /// Why the source could not be read the last time; empty when it could.
    pub error: String,
    /// Reads that failed since the start.
    pub failures: u64,
    /// A change that waits for approval.
    pub pending: Option<AllowChange>,
}

/// A change of an allow list that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AllowChange {
    /// Prefixes after it.
    pub prefixes: usize,
    /// The first of those that come, at most ten.
    pub added: Vec<String>,
    /// The first of those that go, at most ten.
    pub removed: Vec<String>,
    /// How many come.
    pub added_count: usize,
    /// How many go.
    pub removed_count: usize,
    /// Since when it waits.
    pub since: Millis,
}

/// Whoever keeps the allow lists. Answers from memory, without waiting for anybody.
pub trait Desk: fmt::Debug + Send + Sync {
    /// The lists, in the order of the configuration.
    fn lists(&self) -> Vec<AllowStatus>;

    /// Puts the change that waits in force.
    ///
    /// # Errors
    /// When there is no such list, or no change of it waits.
    fn approve(&self, name: &str) -> Result<(), Refusal>;

    /// Leaves the list as it is until its source says something else.
    ///
    /// # Errors
    /// As [`Desk::approve`].
    fn reject(&self, name: &str) -> Result<(), Refusal>;

    /// Has its source read soon.
    ///
    /// # Errors
    /// When there is no such list, or nothing is read for it.
    fn refresh(&self, name: &str) -> Result<(), Refusal>;
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such list.
    Unknown,
    /// No change of it waits.
    NothingWaits,
    /// The configuration has all of it.
    NoSource,
}
