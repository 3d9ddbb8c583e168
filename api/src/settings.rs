//! Settings that change while weir runs: what they are is known to the daemon alone.

use std::fmt;

use serde_json::Value;

/// Whoever puts settings in force.
pub trait Desk: fmt::Debug + Send + Sync {
    /// Names of settings, sorted.
    fn names(&self) -> &'static [&'static str];

    /// Whether weir could run with this value; `None` lets the configuration file decide. Says what is
    /// probably not meant, as `weir check` does.
    ///
    /// # Errors
    /// In words.
    fn check(&self, name: &str, value: Option<&Value>) -> Result<Vec<String>, String>;

    /// What is to be kept when `given` takes the place of `before`: credentials that it leaves out stay.
    ///
    /// # Errors
    /// In words.
    fn complete(&self, name: &str, before: Option<&Value>, given: Value) -> Result<Value, String>;

    /// What may be shown of a kept value: all but credentials.
    fn shown(&self, name: &str, value: &Value) -> Value;

    /// What the audit log keeps of a value that takes the place of another: no credentials either.
    fn told(&self, name: &str, before: Option<&Value>, value: &Value) -> Value;

    /// What the configuration file says, without credentials.
    fn of_file(&self, name: &str) -> Value;

    /// The configuration in force as TOML: the file and what stands in for it, defaults included, secrets
    /// left out.
    ///
    /// # Errors
    /// In words.
    fn in_force(&self) -> Result<String, String>;

    /// Puts a checked value in force, once it is stored.
    fn apply(&self, name: &str, value: Option<&Value>);
}
