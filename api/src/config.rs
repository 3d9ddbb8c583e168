//! `[api]` of the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where the API listens, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP address. Port 0 picks a free one. Beyond loopback weir speaks TLS, unless proxies are named.
    pub listen: SocketAddr,
    /// Unix socket for the command line; who may use it is decided by the peer's user and group. Empty
    /// for none.
    pub socket: PathBuf,
    /// Whether programs on this machine may read without an account, through 127.0.0.1 or ::1. Off by
    /// default: a reverse proxy on the same machine would pass this on to everybody.
    pub loopback_readonly: bool,
    /// Reverse proxies that speak plain HTTP to weir and say in `X-Forwarded-For` who asks.
    pub trusted_proxies: Vec<IpAddr>,
    /// From where `/metrics` may be read without an account.
    pub metrics_from: Vec<IpNet>,
    /// A session ends when not used for so long, seconds.
    pub session_idle_secs: u64,
    /// A session ends so long after signing in, seconds.
    pub session_max_secs: u64,
    /// TLS.
    pub tls: Tls,
    /// What everybody may see.
    pub status_page: StatusPage,
}

/// `[api.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Speak TLS on loopback too.
    pub always: bool,
    /// Certificate chain, PEM. Without it weir makes its own on the first run and says its fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Names and addresses that weir's own certificate is for, beside this machine's loopback.
    pub names: Vec<String>,
}

/// `[api.status_page]`: a page for customers, off by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusPage {
    /// Whether there is one, at `/status`.
    pub enabled: bool,
    /// Its heading.
    pub title: String,
    /// Whether it names the addresses under attack.
    pub addresses: bool,
}

impl Default for StatusPage {
    fn default() -> Self {
        Self { enabled: false, title: "Network status".to_owned(), addresses: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            socket: PathBuf::from("/run/weir/api.sock"),
            loopback_readonly: false,
            trusted_proxies: Vec::new(),
            metrics_from: vec![
                IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST)),
                IpNet::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST)),
            ],
            session_idle_secs: 12 * 3600,
            session_max_secs: 7 * 24 * 3600,
            tls: Tls::default(),
            status_page: StatusPage::default(),
        }
    }
}

impl Config {
    /// Whether the TCP socket speaks TLS: always, but on loopback or behind named proxies.
    pub fn uses_tls(&self) -> bool {
        let plain = self.listen.ip().is_loopback() || !self.trusted_proxies.is_empty();
        self.tls.always || self.tls.cert.is_some() || !plain
    }
}
