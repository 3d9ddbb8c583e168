//! The whole configuration: composes every component's section, cross-checks them, and prints what is
//! in force.
//!
//! Parsing binds nothing and reads no file but the ones it is given. Read [`Config`] and [`parse`]
//! first.

mod channels;
mod check;
mod error;
mod protect;
mod settings;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use check::Warning;
pub use error::ConfigError;
pub use protect::{GROUPS_MAX, GroupConfig, Protect, ServiceConfig, ServiceProtocol};
pub use settings::{EXCLUSIONS_MAX, Exclusion, PREFIXES_MAX, Settings};

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// Filter in the `tracing` syntax: `info`, `debug`, `info,weir_bgp=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// State file; `:memory:` keeps nothing beyond the process.
    pub path: PathBuf,
    /// Days for which closed incidents are kept, at least 1.
    pub keep_days: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self { path: PathBuf::from("/var/lib/weir/state.db"), keep_days: 400 }
    }
}

/// Everything an operator can set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The log.
    pub log: Log,
    /// What is watched and defended.
    pub protect: Protect,
    /// Where flows come from.
    pub collector: weir_collector::Config,
    /// What counts as an attack.
    pub detector: weir_detector::Config,
    /// What is done about it.
    pub mitigator: weir_mitigator::Config,
    /// What may ever be announced.
    pub guard: weir_bgp::guard::Config,
    /// To whom; without it weir announces nothing to anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<weir_bgp::config::Config>,
    /// Agents on nodes; without it none are awaited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<weir_agent::server::Config>,
    /// HTTP.
    pub api: weir_api::Config,
    /// State that survives a restart.
    pub store: Store,
    /// Game panels that say which port is whose, `[[panel]]`.
    #[serde(rename = "panel", skip_serializing_if = "Vec::is_empty")]
    pub panels: Vec<weir_panel::PanelConfig>,
    /// Pages for owners of game servers, and webhooks of panels; without it there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owners: Option<weir_panel::config::Owners>,
    /// Games beyond the built-in ones, `[[game]]`.
    #[serde(rename = "game", skip_serializing_if = "Vec::is_empty")]
    pub games: Vec<weir_panel::games::GameConfig>,
}

impl Config {
    /// The panels and the games as one section.
    pub fn panel_section(&self) -> weir_panel::Config {
        weir_panel::Config { panels: self.panels.clone(), games: self.games.clone() }
    }

    /// The BGP peers, if any.
    pub fn peers(&self) -> &[weir_bgp::config::PeerConfig] {
        self.bgp.as_ref().map_or(&[], |bgp| &bgp.peers)
    }
}

/// Parses and checks a configuration.
///
/// # Errors
/// [`ConfigError::Syntax`] with line and column, or [`ConfigError::Invalid`] with every contradiction found.
pub fn parse(text: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
    let config: Config = toml::from_str(text).map_err(Box::new)?;
    let warnings = check::check(&config)?;
    Ok((config, warnings))
}

/// Reads, parses and checks a file.
///
/// # Errors
/// As [`parse`], and [`ConfigError::Read`].
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    parse(&text)
}

/// The configuration in force, defaults included, as TOML. Secrets are left out by the sections that
/// hold them.
///
/// # Errors
/// [`ConfigError::Dump`] when a value has no TOML form.
pub fn dump(config: &Config) -> Result<String, ConfigError> {
    Ok(toml::to_string_pretty(config)?)
}

#[cfg(test)]
mod tests;
