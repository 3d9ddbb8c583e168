//! Settings that change while weir runs: what they are is known to the daemon alone.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What came, or would come, of reading the configuration file again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reload {
    /// Whether nothing was put in force because only the difference was asked for.
    pub check: bool,
    /// What is put in force at once.
    pub changed: Vec<Changed>,
    /// What only a restart puts in force.
    pub needs_restart: Vec<Changed>,
    /// What the file has and weir does not, because settings made at run time stand in for it.
    pub not_in_force: Vec<Hidden>,
    /// What is announced now and is withdrawn by the change, in words.
    pub ends: Vec<String>,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

/// A setting that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changed {
    /// Its key in the file.
    pub key: String,
    /// What it was; absent when it was not there. Credentials are not shown.
    pub before: Option<String>,
    /// What it is; absent when it is gone.
    pub after: Option<String>,
    /// Why only a restart puts it in force; absent when a reload does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A setting made at run time that stands in for something of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hidden {
    /// Its name.
    pub name: String,
    /// What the file has and weir does not.
    pub missing: Vec<String>,
}

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

    /// What the file has and weir does not, because this setting stands in for it.
    fn hidden(&self, name: &str) -> Vec<String>;

    /// Reads the configuration file again and puts in force what can change while weir runs; with `check`
    /// only says what that would be. May block.
    ///
    /// # Errors
    /// In words, when the file cannot be used: then nothing has changed.
    fn reload(&self, check: bool) -> Result<Reload, String>;

    /// The configuration in force as TOML: the file and what stands in for it, defaults included, secrets
    /// left out.
    ///
    /// # Errors
    /// In words.
    fn in_force(&self) -> Result<String, String>;

    /// Puts a checked value in force, once it is stored.
    fn apply(&self, name: &str, value: Option<&Value>);
}
