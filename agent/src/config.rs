//! The node's own settings: what the appliance cannot overrule.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_model::IpNet;

use crate::enforcer::Backend;

/// Where the configuration is looked for.
pub const PATH: &str = "/etc/weir-agent/config.toml";

/// Whether new rules wait for this host's administrator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apply {
    /// Rules take effect when they arrive.
    #[default]
    Auto,
    /// Rules wait for `weir-agent rules --apply`.
    Staged,
}

/// Whether players are learned. It needs conntrack, which slows a host that does without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learn {
    /// Where conntrack is in use anyway.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of the identity, the last snapshot and unsent events.
    pub state: PathBuf,
    /// Folder of the local socket.
    pub run: PathBuf,
    /// Whether new rules wait for this host's administrator.
    pub apply: Apply,
    /// Sources that no rule ever touches, beside the appliance and whoever has an SSH session.
    pub management: Vec<IpNet>,
    /// Port of this host's SSH server.
    pub ssh_port: u16,
    /// What puts rules in force.
    pub backend: Backend,
    /// Queue what servers send above an outbound limit in octets (tc) instead of dropping it.
    pub shape: bool,
    /// Docker's socket, for whose packets are whose; none: the agent does without. Who may use it is root in all
    /// but name.
    pub docker: Option<PathBuf>,
    /// Packets a second that one game server's container may send; above it for some seconds it is held to it
    /// for five minutes. None: only the appliance decides.
    pub egress_limit: Option<u64>,
    /// Keep the last thousand packets that came in, for the capture of an incident.
    pub history: bool,
    /// Whether players are learned.
    pub learn: Learn,
    /// Interfaces whose packets are sampled; none: those of the default routes.
    pub interfaces: Vec<String>,
    /// Where samples go; none: UDP port 6343 of the appliance.
    pub collector: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/weir-agent".into(),
            run: "/run/weir-agent".into(),
            apply: Apply::Auto,
            management: Vec::new(),
            ssh_port: 22,
            backend: Backend::Auto,
            shape: false,
            docker: None,
            egress_limit: None,
            history: true,
            learn: Learn::Auto,
            interfaces: Vec::new(),
            collector: None,
        }
    }
}

impl Config {
    /// Reads a file; without a name [`PATH`], which may be absent.
    ///
    /// # Errors
    /// When a named file cannot be read, or what is there is not a configuration.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?,
            None => std::fs::read_to_string(PATH).unwrap_or_default(),
        };
        let name = path.unwrap_or_else(|| Path::new(PATH)).display();
        toml::from_str(&text).map_err(|e| anyhow::anyhow!("{name}: {e}"))
    }
}

/// There is no identity: to try again without one is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}: join first: weir-agent join URL TOKEN", path.display())]
pub struct NotJoined {
    path: PathBuf,
    error: std::io::Error,
}

/// Who this node is, as agreed when it joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The appliance, `https://host:port`.
    pub url: String,
    /// SHA-256 of the appliance's authority certificate, hexadecimal.
    pub authority: String,
    /// The node's name.
    pub node: String,
    /// Its bearer token.
    pub bearer: String,
    /// The key that documents are signed with, hexadecimal.
    pub signing_key: String,
}

impl Identity {
    /// Reads it from the state folder.
    ///
    /// # Errors
    /// When the node has not joined.
    pub fn load(state: &Path) -> anyhow::Result<Self> {
        let path = state.join("identity.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| NotJoined { path: path.clone(), error })?;
        serde_json::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
    }

    /// Whether it could be written.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(state: &Path) -> anyhow::Result<()> {
        let path = state.join("probe");
        let tried = std::fs::create_dir_all(state).and_then(|()| write_private(&path, b""));
        tried.map_err(|e| {
            anyhow::anyhow!("{}: {e}: the identity must be kept here", state.display())
        })?;
        std::fs::remove_file(&path)?;
        Ok(())
    }

    /// Writes it, readable by this user only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, state: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(state)?;
        write_private(
            &state.join("identity.json"),
            serde_json::to_string_pretty(self)?.as_bytes(),
        )?;
        Ok(())
    }
}

/// Writes a file that only this user may read, whole or not at all.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, octets: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(octets)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

/// A join token: `weir1.<secret>.<fingerprint of the appliance's authority>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The one-time secret.
    pub secret: String,
    /// SHA-256 of the authority certificate, hexadecimal.
    pub authority: String,
}

impl Token {
    /// Reads a token; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let (mark, secret, authority) = (parts.next()?, parts.next()?, parts.next()?);
        let hexadecimal = |t: &str| t.chars().all(|c| c.is_ascii_hexdigit());
        let good = mark == "weir1"
            && parts.next().is_none()
            && secret.len() >= 32
            && hexadecimal(secret)
            && authority.len() == 64
            && hexadecimal(authority);
        good.then(|| Self { secret: secret.to_owned(), authority: authority.to_owned() })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "weir1.{}.{}", self.secret, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_halves_do_not() {
        let token = Token { secret: "a".repeat(32), authority: "0".repeat(64) };
        assert_eq!(Token::parse(&token.to_string()), Some(token.clone()));
        for text in ["", "weir1.a.b", &token.to_string()[..90], &format!("{token}.x")] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_configuration_is_the_default_and_a_wrong_word_is_refused() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
        assert!(toml::from_str::<Config>("managment = []").is_err());
    }
}
