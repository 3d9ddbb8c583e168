//! Section `[notify]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use weir_model::{Family, Secret};

use crate::brief::Severity;
use crate::service::{Own, Service, Services, Stage, services};

/// Channels at most: each has threads of its own.
const CHANNELS_MAX: usize = 32;

/// Longest name of a channel, octets: it stands in addresses of the API and in metrics.
const NAME_MAX: usize = 64;

/// Whom to tell of attacks, and in which words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this appliance in messages; `weir` when empty.
    pub node: String,
    /// Address of the dashboard, `https://...`: messages link to it. Without it they link nowhere.
    pub dashboard: String,
    /// Folder with files of further services, `NAME.toml`; one named like a shipped service takes its place.
    pub services: Option<PathBuf>,
    /// Whether webhooks that are set while weir runs may lie on this machine, such as a relay. Those of the
    /// configuration file always may; link-local and metadata addresses are reached by nobody.
    pub allow_loopback: bool,
    /// Whom to tell, `[[notify.channel]]`.
    #[serde(rename = "channel")]
    pub channels: Vec<ChannelConfig>,
}

/// One place where people or programs read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelConfig {
    /// Its name in logs and on the page that shows deliveries: a-z, 0-9, `-`, `_` and `.`.
    pub name: String,
    /// What it is: `discord`, `slack`, `mail`, ..., or a file of the operator's folder.
    pub service: String,
    /// Whether it is told anything; a test message reaches it all the same.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What the service needs, by name.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Credentials that the service needs, by name: a text, `{ file = "/path" }`, or `{ env = "NAME" }`.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Only attacks on these groups; on everything when empty.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Only attacks that are, or become, at least this grave: `info`, `warning`, `error` or `critical`.
    #[serde(default = "info")]
    pub severity: Severity,
    /// Only these kinds of attack, such as `udp-flood`; all when empty.
    #[serde(default)]
    pub families: Vec<String>,
    /// What it is told: `opened`, `updated`, `resolved`; all when empty.
    #[serde(default)]
    pub events: Vec<String>,
    /// Attacks that begin within so many seconds of each other share one message; 0 gives each its own.
    #[serde(default = "group_secs")]
    pub group_secs: u64,
    /// Least time between two changes of one message, seconds.
    #[serde(default = "update_secs")]
    pub update_secs: u64,
}

const fn yes() -> bool {
    true
}

const fn info() -> Severity {
    Severity::Info
}

const fn group_secs() -> u64 {
    60
}

const fn update_secs() -> u64 {
    30
}

/// Where a credential comes from. Never shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SecretSource {
    /// It stands in the configuration.
    Text(Secret),
    /// In a file; surrounding white space is left out.
    File {
        /// Its path.
        file: PathBuf,
    },
    /// In the environment.
    Env {
        /// The variable's name.
        env: String,
    },
}

impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(secret) => secret.serialize(serializer),
            Self::File { file } => serializer.collect_map([("file", file.display().to_string())]),
            Self::Env { env } => serializer.collect_map([("env", env)]),
        }
    }
}

impl SecretSource {
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(secret) => Ok(secret.expose().to_owned()),
            Self::File { file } => std::fs::read_to_string(file)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("{}: {error}", file.display())),
            Self::Env { env } => std::env::var(env)
                .map(|text| text.trim().to_owned())
                .map_err(|_| format!("the environment has no {env}")),
        }
    }
}

/// A channel with its service and everything that it needs.
#[derive(Clone, Debug)]
pub struct Channel {
    /// What the configuration says.
    pub config: ChannelConfig,
    /// What it is.
    pub service: Arc<Service>,
    /// What the service's calls are filled with.
    pub own: Own,
}

impl Config {
    /// Checks what can be told without opening a file; of the operator's folder only that channels name
    /// something.
    ///
    /// # Errors
    /// In words, beginning with the key, the first setting that makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if !self.dashboard.is_empty() && !weir_model::is_url(&self.dashboard) {
            return Err("dashboard is no http address".to_owned());
        }
        if self.channels.len() > CHANNELS_MAX {
            return Err(format!("channel: at most {CHANNELS_MAX}"));
        }
        let shipped = services(None)?;
        let mut names = BTreeSet::new();
        for channel in &self.channels {
            let told = |why: String| format!("channel \"{}\": {why}", channel.name);
            channel.check().map_err(told)?;
            if !names.insert(channel.name.as_str()) {
                return Err(told("the name is taken".to_owned()));
            }
            match shipped.get(&channel.service) {
                // The folder may put another in its place.
                Some(service) if self.services.is_none() => channel.fits(service).map_err(told)?,
                None if self.services.is_none() => {
                    let known: Vec<&str> = shipped.keys().map(String::as_str).collect();
                    let list = known.join(", ");
                    return Err(told(format!(
                        "service: there is no {:?}; there are {list}",
                        channel.service
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the services and the credentials, and puts the channels together.
    ///
    /// # Errors
    /// In words, beginning with the key, the first thing that cannot be read or does not fit.
    pub fn open(&self) -> Result<Vec<Channel>, String> {
        if self.channels.is_empty() && self.services.is_none() {
            return Ok(Vec::new());
        }
        let known: Services = services(self.services.as_deref().map(Path::new))
            .map_err(|why| format!("services: {why}"))?;
        let open = |channel: &ChannelConfig| {
            let told = |why: String| format!("channel \"{}\": {why}", channel.name);
            let service = known.get(&channel.service);
            let service = service
                .ok_or_else(|| told(format!("service: there is no {:?}", channel.service)))?;
            channel.fits(service).map_err(told)?;
            let mut own = Own::default();
            for (name, needed) in &service.values {
                if needed.secret {
                    let found = channel.secrets.get(name).map(SecretSource::read).transpose();
                    let found = found.map_err(|why| told(format!("secrets.{name}: {why}")))?;
                    if found.as_ref().is_some_and(String::is_empty) {
                        return Err(told(format!("secrets.{name} is empty")));
                    }
                    own.secrets.insert(name.clone(), found.unwrap_or_default());
                } else {
                    let value = channel.values.get(name).unwrap_or(&needed.default);
                    own.values.insert(name.clone(), value.trim_end_matches('/').to_owned());
                }
            }
            Ok(Channel { config: channel.clone(), service: Arc::clone(service), own })
        };
        self.channels.iter().map(open).collect()
    }
}

impl ChannelConfig {
    fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.bytes().all(plain) {
            return Err(format!("name: 1 to {NAME_MAX} of a-z, 0-9, -, _ and ."));
        }
        let known = |event: &&String| Stage::ALL.iter().any(|stage| stage.event() == *event);
        if let Some(event) = self.events.iter().find(|event| !known(event)) {
            return Err(format!("events: there is no {event:?}"));
        }
        let known = |family: &&String| Family::ALL.iter().any(|known| known.id() == *family);
        if let Some(family) = self.families.iter().find(|family| !known(family)) {
            return Err(format!("families: there is no {family:?}"));
        }
        if self.group_secs > 3600 || !(1..=3600).contains(&self.update_secs) {
            return Err("group_secs is 0-3600, update_secs 1-3600".to_owned());
        }
        Ok(())
    }

    /// Whether the service gets what it needs and nothing else.
    fn fits(&self, service: &Service) -> Result<(), String> {
        for (name, needed) in &service.values {
            let (there, table) = match needed.secret {
                true => (self.secrets.contains_key(name), "secrets"),
                false => (self.values.contains_key(name), "values"),
            };
            if needed.required && !there {
                return Err(format!("{table}.{name} is missing: {}", needed.about));
            }
        }
        let secret = |name: &String| service.values.get(name).map(|needed| needed.secret);
        if let Some(name) = self.values.keys().find(|name| secret(name) != Some(false)) {
            return Err(match secret(name) {
                Some(_) => format!("{name} is a credential: it stands under secrets"),
                None => format!("values.{name}: {} needs no such value", service.name),
            });
        }
        match self.secrets.keys().find(|name| secret(name) != Some(true)) {
            Some(name) => Err(format!("secrets.{name}: {} needs no such secret", service.name)),
            None => Ok(()),
        }
    }

    /// Whether it is told of this stage.
    pub fn wants(&self, stage: Stage) -> bool {
        self.events.is_empty() || self.events.iter().any(|event| event == stage.event())
    }
}
