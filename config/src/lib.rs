//! The whole configuration: composes every component's section, cross-checks them, and prints what is
//! in force.
//!
//! Parsing binds nothing and reads no file but the ones it is given; [`load`] also opens the files that a
//! configuration names. Read [`Config`] and [`parse`] first.

pub mod allow;
mod allow_sets;
mod channels;
mod check;
mod error;
mod files;
mod flows;
mod infrastructure;
mod listeners;
mod locate;
mod log;
mod protect;
mod reload;
mod settings;
mod uplink;
mod upstreams;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use allow::{AllowConfig, AllowSource, PortRange};
pub use allow_sets::{AllowSet, allow_sets};
pub use check::Warning;
pub use error::{ConfigError, Fault, Place};
pub use flows::Flows;
pub use log::{Log, LogFormat};
pub use protect::{GROUP_PREFIXES_MAX, GROUPS_MAX, Protect, ServiceConfig, ServiceProtocol};
pub use reload::{Difference, Hidden, Plan, differences, needs_restart, plan};
pub use settings::{EXCLUSIONS_MAX, Exclusion, PREFIXES_MAX, Settings};

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
    /// Links out of the network, `[[uplink]]`.
    #[serde(rename = "uplink", skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<weir_mitigator::UplinkConfig>,
    /// Whom to tell of attacks.
    pub notify: weir_notify::Config,
    /// What may ever be announced.
    pub guard: weir_bgp::guard::Config,
    /// To whom; without it weir announces nothing to anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<weir_bgp::config::Config>,
    /// Agents on nodes; without it none are awaited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<weir_agent::server::Config>,
    /// The archive of flow records, a process of its own.
    pub flows: Flows,
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

    /// The exporters, with the interfaces of uplinks, whose traffic they are to count.
    pub fn exporters(&self) -> Vec<weir_collector::ExporterConfig> {
        let mut exporters = self.collector.exporters.clone();
        for exporter in &mut exporters {
            let own = self.uplinks.iter().filter(|uplink| uplink::is_of(uplink, exporter));
            exporter.counted_interfaces =
                own.flat_map(|uplink| uplink.interfaces.clone()).collect();
        }
        exporters
    }

    /// The uplinks, with exporters named as the collector names them: an address is spelled in one way.
    pub fn links(&self) -> Vec<weir_mitigator::UplinkConfig> {
        let mut uplinks = self.uplinks.clone();
        for uplink in &mut uplinks {
            if let Ok(address) = uplink.exporter.parse::<std::net::IpAddr>() {
                uplink.exporter = address.to_string();
            }
        }
        uplinks
    }

    /// What is protected, allowed and measured by the file alone.
    pub fn inventory(&self) -> weir_model::Inventory {
        let allow = allow::in_force(&self.protect.allow, &std::collections::BTreeMap::new());
        let declared = self.protect.inventory().allowing(std::sync::Arc::new(allow));
        declared.measuring(&self.detector.metrics)
    }

    /// The BGP peers, if any.
    pub fn peers(&self) -> &[weir_bgp::config::PeerConfig] {
        self.bgp.as_ref().map_or(&[], |bgp| &bgp.peers)
    }
}

/// Parses and checks a configuration.
///
/// # Errors
/// [`ConfigError::Faults`] with every contradiction found, and where.
pub fn parse(text: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
    parse_with(text, |_| Ok(String::new()))
}

/// `read` reads the file of further upstreams.
fn parse_with(
    text: &str,
    read: impl Fn(&Path) -> Result<String, String>,
) -> Result<(Config, Vec<Warning>), ConfigError> {
    let mut config: Config = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    let unknown = upstreams::take(&mut config, read);
    if !unknown.is_empty() {
        return Err(ConfigError::faults(locate::locate(text, unknown)));
    }
    match check::check(&config) {
        Ok(warnings) => Ok((config, warnings)),
        Err(errors) => Err(ConfigError::faults(locate::locate(text, errors))),
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let place = error.span().map(|span| Place::of(text, span.start));
    // One line: what the parser says of the context stands in the file.
    let what = error.message().replace('\n', " ");
    ConfigError::faults(vec![Fault { place, what }])
}

/// Reads, parses and checks a file, and opens the files that it names: what passes is what weir runs with.
///
/// # Errors
/// As [`parse`], and [`ConfigError::Read`].
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    let (config, mut warnings) =
        parse_with(&text, files::read).map_err(|error| error.of_file(path))?;
    warnings.extend(files::absent(&config));
    match files::check(&config) {
        errors if errors.is_empty() => Ok((config, warnings)),
        errors => Err(ConfigError::faults(locate::locate(&text, errors)).of_file(path)),
    }
}

/// The configuration in force, defaults included, as TOML. Secrets are left out by the sections that
/// hold them.
///
/// # Errors
/// [`ConfigError::Dump`] when a value has no TOML form.
pub fn dump(config: &Config) -> Result<String, ConfigError> {
    toml::to_string_pretty(config).map_err(ConfigError::Dump)
}

/// Reads what [`dump`] wrote, unchecked: parts of it may have been left out.
///
/// # Errors
/// [`ConfigError::Faults`] when it is no configuration.
pub fn read_dump(text: &str) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| syntax(text, &error))
}

#[cfg(test)]
mod tests;
