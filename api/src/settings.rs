//! Settings that change while weir runs: what they are is known to the daemon alone.

use std::fmt;

use serde_json::Value;

/// Whoever puts settings in force.
pub trait Desk: fmt::Debug + Send + Sync {
    /// Names of settings, sorted.
    fn names(&self) -> &'static [&'static str];

    /// Whether weir could run with this value; `None` lets the configuration file decide.
    ///
    /// # Errors
    /// In words.
    fn check(&self, name: &str, value: Option<&Value>) -> Result<(), String>;

    /// Puts a checked value in force, once it is stored.
    fn apply(&self, name: &str, value: Option<&Value>);
}
