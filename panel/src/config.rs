//! `[[panel]]` and `[[game]]` of the configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use weir_model::Secret;

use crate::games::{GameConfig, Games, TableError};
use crate::listing::Allocation;
use crate::role::{Context, Protocols, Role};

/// Shortest time between two polls.
pub const INTERVAL_MS_MIN: u64 = 10_000;

/// Panels, and games beyond the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The operators' panels, at most 64. Where two claim the same port, the first wins.
    #[serde(rename = "panel")]
    pub panels: Vec<PanelConfig>,
    /// Games beyond the built-in ones, tried before them.
    #[serde(rename = "game")]
    pub games: Vec<GameConfig>,
}

/// One Pterodactyl or Pelican panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanelConfig {
    /// Name, unique: letters, digits, `-`, `_`.
    pub name: String,
    /// Address of the panel: `https://panel.example.net`. Plain http only on loopback.
    pub url: String,
    /// Application API key, read only: servers, nodes, allocations, eggs and nests.
    #[serde(default)]
    pub key: Option<Secret>,
    /// File that holds the key, instead of `key`.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Time between two polls: `"60s"`, at least `"10s"`.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// Whether each node is a group of its own.
    #[serde(default)]
    pub mode: Mode,
    /// Rows asked for at once, 25-500. Halved by itself while the panel is too slow for it.
    #[serde(default = "default_page_size")]
    pub page_size: u32,
    /// Share of its ports that may vanish in one poll before they are held, 0-1.
    #[serde(default = "default_hold")]
    pub hold_shrink: f64,
    /// Whether the key may read users, so that a customer's name stands in incidents and an owner
    /// can ask for a link by e-mail.
    #[serde(default)]
    pub owners: bool,
    /// Token that a Pelican webhook sends as `Authorization: Bearer`; without it no hook is taken.
    #[serde(default)]
    pub hook_token: Option<Secret>,
    /// Key that signs embeds for the panel's extension; without it none is taken.
    #[serde(default)]
    pub embed_key: Option<Secret>,
    /// Where an allocation is on the wire, against what the panel says; the first that fits.
    #[serde(default, rename = "override")]
    pub overrides: Vec<Override>,
    /// What an allocation is for, against what weir concludes; the first that fits.
    #[serde(default, rename = "role")]
    pub roles: Vec<RoleRule>,
    /// Servers of which something unusual is expected.
    #[serde(default, rename = "expect")]
    pub expectations: Vec<Expectation>,
}

/// Groups of hosts that belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each node is its own group, with its own incidents and rules.
    #[default]
    PerNode,
    /// All nodes are one group.
    Central,
}

/// Public address of allocations, if the panel does not have it; the first match applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Node, by name or number.
    pub node: String,
    /// Only allocations with this address in the panel.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// Public addresses; empty: none.
    pub addresses: Vec<IpAddr>,
}

/// Purpose of an allocation, if weir concludes the wrong one; the first match applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleRule {
    /// Name, for people.
    pub name: String,
    /// Server by UUID, or by its first eight characters.
    pub server: Option<String>,
    /// Egg by UUID, number or name.
    pub egg: Option<String>,
    /// Nest by name (Pterodactyl).
    pub nest: Option<String>,
    /// Tag of the egg (Pelican).
    pub tag: Option<String>,
    /// Node by name or number.
    pub node: Option<String>,
    /// Port number.
    pub port: Option<u16>,
    /// Sets the game: identifier of a family.
    pub game: Option<String>,
    /// Sets the role.
    pub role: Option<Role>,
    /// Sets the protocols.
    pub protocols: Option<Protocols>,
}

/// Something the operator expects of a server, so that it alarms nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Server by UUID, or by its first eight characters; `*` for all.
    pub server: String,
    /// Why, for people: `wipe`.
    pub why: String,
    /// Days of the week, Monday is 1; empty for every day.
    #[serde(default)]
    pub weekdays: Vec<u8>,
    /// Start of the window, minutes after midnight UTC, 0-1439.
    pub from_minute: u16,
    /// Length of the window, minutes, 1-1440.
    pub minutes: u16,
}

/// `[owners]`: pages for owners of servers, and the door for webhooks. A listener of its own: what
/// customers and panels reach has no route of the operators' API. It speaks plain HTTP to the
/// operator's TLS proxy on the same machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owners {
    /// Loopback address and port. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// How browsers reach it through the proxy: `https://shield.example.net`.
    pub public_url: String,
    /// Sender of e-mails.
    #[serde(default)]
    pub from: String,
    /// Program that takes an e-mail on standard input and its recipients from the headers
    /// (`sendmail -t -i`). Without it no links are sent.
    #[serde(default)]
    pub sendmail: Option<PathBuf>,
}

impl Owners {
    /// Checks what cannot be meant.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if !self.listen.ip().is_loopback() {
            return Err("owners.listen: a loopback address; a TLS proxy stands before it".into());
        }
        check_url(&self.public_url).map_err(|why| format!("owners.public_url: {why}"))?;
        if self.sendmail.is_some() && (!self.from.contains('@') || self.from.contains(['\r', '\n']))
        {
            return Err("owners.from: an address of e-mail is needed to send links".into());
        }
        Ok(())
    }
}

const fn default_interval() -> Duration {
    Duration { ms: 60_000 }
}

const fn default_page_size() -> u32 {
    200
}

const fn default_hold() -> f64 {
    0.25
}

/// Why a section cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A panel's field.
    #[error("panel {panel:?}: {why}")]
    Panel {
        /// Which panel.
        panel: String,
        /// What is wrong.
        why: String,
    },
    /// A family of `[[game]]`.
    #[error("game: {0}")]
    Game(#[from] TableError),
    /// Too many panels.
    #[error("more than 64 panels")]
    TooManyPanels,
}

impl Config {
    /// Checks every panel and game, and gives the games.
    ///
    /// # Errors
    /// The first thing that cannot be meant.
    pub fn check(&self) -> Result<Games, ConfigError> {
        if self.panels.len() > 64 {
            return Err(ConfigError::TooManyPanels);
        }
        let families = self.games.iter().map(GameConfig::family).collect::<Result<Vec<_>, _>>()?;
        let games = Games::new(families);
        for (i, panel) in self.panels.iter().enumerate() {
            let wrong = |why: String| ConfigError::Panel { panel: panel.name.clone(), why };
            panel.check(&games).map_err(wrong)?;
            if self.panels[..i].iter().any(|p| p.name == panel.name) {
                return Err(wrong("the name is used twice".into()));
            }
        }
        Ok(games)
    }
}

impl PanelConfig {
    /// A panel with default settings.
    pub fn new(name: &str, url: &str, key: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            key: Some(Secret::new(key)),
            key_file: None,
            interval: default_interval(),
            mode: Mode::default(),
            page_size: default_page_size(),
            hold_shrink: default_hold(),
            owners: false,
            hook_token: None,
            embed_key: None,
            overrides: Vec::new(),
            roles: Vec::new(),
            expectations: Vec::new(),
        }
    }

    fn check(&self, games: &Games) -> Result<(), String> {
        let name_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(name_ok) {
            return Err("the name is 1-64 letters, digits, '-' or '_'".into());
        }
        check_url(&self.url)?;
        match (&self.key, &self.key_file) {
            (Some(key), None) => check_key(key.expose())?,
            (None, Some(_)) => {}
            _ => return Err("exactly one of key and key_file is needed".into()),
        }
        if self.interval.ms < INTERVAL_MS_MIN {
            return Err("interval is at least \"10s\"".into());
        }
        if !(25..=500).contains(&self.page_size) {
            return Err("page_size is 25-500".into());
        }
        if !(0.0..=1.0).contains(&self.hold_shrink) {
            return Err("hold_shrink is 0-1".into());
        }
        for (what, secret) in [("hook_token", &self.hook_token), ("embed_key", &self.embed_key)] {
            if secret.as_ref().is_some_and(|s| s.expose().len() < 20) {
                return Err(format!("{what} is at least 20 characters"));
            }
        }
        if let Some(game) =
            self.roles.iter().filter_map(|r| r.game.as_deref()).find(|g| games.by_id(g).is_none())
        {
            return Err(format!("no game is called {game:?}"));
        }
        for e in &self.expectations {
            let days = e.weekdays.iter().all(|d| (1..=7).contains(d));
            if !days || e.from_minute > 1439 || !(1..=1440).contains(&e.minutes) {
                return Err(format!(
                    "expectation {:?}: weekdays 1-7, from_minute 0-1439, minutes 1-1440",
                    e.why
                ));
            }
        }
        Ok(())
    }

    /// The key, from the configuration or from its file.
    ///
    /// # Errors
    /// In words, without the key, when it cannot be read or cannot be one.
    pub fn read_key(&self) -> Result<Secret, String> {
        let key = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(path)) => Secret::new(read_secret(path)?),
            (None, None) => return Err("no key is set".into()),
        };
        check_key(key.expose())?;
        Ok(key)
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn check_url(url: &str) -> Result<(), String> {
    let (rest, tls) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (_, Some(rest)) => (rest, false),
        _ => return Err("url begins with https://".into()),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || url.contains(['?', '#', ' ', '\n']) {
        return Err("url is https://host[:port][/path] and no more".into());
    }
    let host = authority
        .strip_prefix('[')
        .and_then(|h| h.split(']').next())
        .unwrap_or_else(|| authority.split(':').next().unwrap_or_default());
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if tls || loopback { Ok(()) } else { Err("plain http would send the key in the clear".into()) }
}

/// A client key is told by its prefix: it acts for one person and may control servers.
fn check_key(key: &str) -> Result<(), String> {
    if key.starts_with("ptlc_") || key.starts_with("pacc_") {
        return Err("this is a client key, which can control servers and does not see all of them: make an application key that may only read".into());
    }
    if key.len() < 16 || key.len() > 256 || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the key is 16-256 visible characters".into());
    }
    Ok(())
}

impl RoleRule {
    /// Whether every selector fits; a rule with a port fits only an allocation.
    pub(crate) fn selects(&self, context: &Context<'_>, allocation: Option<&Allocation>) -> bool {
        let any_selector = self.server.is_some()
            || self.egg.is_some()
            || self.nest.is_some()
            || self.tag.is_some()
            || self.node.is_some()
            || self.port.is_some();
        let server = |s: &String| is_server(s, &context.server.uuid);
        let egg = |s: &String| {
            context.egg.is_some_and(|e| {
                e.uuid.eq_ignore_ascii_case(s)
                    || e.id.to_string() == *s
                    || e.name.eq_ignore_ascii_case(s)
            })
        };
        let nest = |s: &String| {
            context.egg.and_then(|e| e.nest.as_ref()).is_some_and(|n| n.eq_ignore_ascii_case(s))
        };
        let tag = |s: &String| {
            context.egg.is_some_and(|e| e.tags.iter().any(|t| t.eq_ignore_ascii_case(s)))
        };
        let node = |s: &String| context.node.is_some_and(|n| n.is_called(s));
        any_selector
            && self.server.as_ref().is_none_or(server)
            && self.egg.as_ref().is_none_or(egg)
            && self.nest.as_ref().is_none_or(nest)
            && self.tag.as_ref().is_none_or(tag)
            && self.node.as_ref().is_none_or(node)
            && self.port.is_none_or(|port| allocation.is_some_and(|a| a.port == port))
    }
}

impl Expectation {
    /// Whether it speaks of this server at this minute of the week; Monday 00:00 UTC is minute 0.
    pub fn covers(&self, uuid: &str, minute_of_week: u32) -> bool {
        let fits = self.server == "*" || is_server(&self.server, uuid);
        let starts = (0..7u32).filter(|day| {
            self.weekdays.is_empty() || self.weekdays.iter().any(|d| u32::from(*d) == day + 1)
        });
        let week = 7 * 1440;
        fits && starts
            .map(|day| day * 1440 + u32::from(self.from_minute))
            .any(|start| (minute_of_week + week - start) % week < u32::from(self.minutes))
    }
}

/// A server is named by its UUID or by the first eight characters of it, as the panels do.
pub(crate) fn is_server(text: &str, uuid: &str) -> bool {
    uuid.eq_ignore_ascii_case(text)
        || (text.len() == 8 && uuid.get(..8).is_some_and(|short| short.eq_ignore_ascii_case(text)))
}

/// A span of time written with its unit: `"60s"`, `"5m"`, `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    /// Milliseconds.
    pub ms: u64,
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", self.ms))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = match text[split..].trim() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 0,
        };
        text[..split]
            .parse::<u64>()
            .ok()
            .filter(|_| unit > 0)
            .and_then(|n| n.checked_mul(unit))
            .map(|ms| Self { ms })
            .ok_or_else(|| {
                serde::de::Error::custom(format!("{text:?} is no time like \"60s\" or \"5m\""))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_short_section_is_enough_and_secrets_are_never_shown() {
        let config = check(
            "[[panel]]\nname = \"main\"\nurl = \"https://panel.example.net\"\nkey = \"ptla_0123456789abcdefSECRET\"\n",
        )
        .unwrap();
        assert_eq!(config.panels[0].interval.ms, 60_000);
        assert_eq!(config.panels[0].mode, Mode::PerNode);
        assert!(!format!("{config:?}").contains("SECRET"));
        assert!(!serde_json::to_string(&config).unwrap().contains("SECRET"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        let with = |line: &str, url: &str, key: &str| {
            check(&format!("[[panel]]\nname = \"main\"\nurl = {url:?}\nkey = {key:?}\n{line}\n"))
                .unwrap_err()
        };
        let (url, key) = ("https://p.example", "ptla_0123456789abcdef");
        assert!(with("", url, "ptlc_0123456789abcdef").contains("client key"));
        assert!(with("", url, "pacc_0123456789abcdef").contains("client key"));
        assert!(with("", "http://p.example", key).contains("in the clear"));
        assert!(with("", "https://user:pw@p.example", key).contains("no more"));
        assert!(with("interval = \"1s\"", url, key).contains("10s"));
        assert!(with("interval = \"soon\"", url, key).contains("60s"));
        assert!(with("page_size = 5", url, key).contains("25-500"));
        assert!(with("key_file = \"/x\"", url, key).contains("exactly one"));
        assert!(with("hook_token = \"short\"", url, key).contains("20"));
        assert!(with("[[panel.role]]\nserver = \"x\"\ngame = \"nope\"", url, key).contains("nope"));
        assert!(with("secret = 1", url, key).contains("unknown field"));
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for url in ["http://127.0.0.1:8081", "http://[::1]:80/panel", "http://localhost"] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in ["http://127.0.0.1.example.net", "http://192.0.2.1", "ftp://x", "https://"] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_expected_window_may_cross_midnight_and_the_week() {
        let wipe = Expectation {
            server: "2b8df0a8".into(),
            why: "wipe".into(),
            weekdays: vec![7],
            from_minute: 23 * 60,
            minutes: 120,
        };
        let uuid = "2b8df0a8-36ac-463f-9c5f-dfdd575253d2";
        let sunday = 6 * 1440;
        assert!(!wipe.covers(uuid, sunday + 22 * 60));
        assert!(wipe.covers(uuid, sunday + 23 * 60));
        assert!(wipe.covers(uuid, 59), "Monday, 00:59");
        assert!(!wipe.covers(uuid, 60));
        assert!(!wipe.covers("3c9ef1b9-47bd-4740-8d60-f0ee686364e3", sunday + 23 * 60));
    }
}
