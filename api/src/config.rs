//! `[api]` of the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where the API listens, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP address. Beyond loopback weir uses TLS, unless proxies are configured. Port 0 picks a
    /// free port.
    pub listen: SocketAddr,
    /// Unix socket of the command line; access depends on the user and group of the caller. Empty:
    /// none.
    pub socket: PathBuf,
    /// Whether programs on this machine may read without an account, through 127.0.0.1 or ::1. Off
    /// by default: through a reverse proxy on the same machine, everybody could.
    pub loopback_readonly: bool,
    /// Reverse proxies that connect over plain HTTP and name the client in `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpAddr>,
    /// Addresses that may read `/metrics` without an account.
    pub metrics_from: Vec<IpNet>,
    /// Seconds without use after which a session ends.
    pub session_idle_secs: u64,
    /// Seconds after sign-in after which a session ends.
    pub session_max_secs: u64,
    /// TLS.
    pub tls: Tls,
    /// Public status page.
    pub status_page: StatusPage,
}

/// `[api.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Use TLS on loopback too.
    pub always: bool,
    /// Certificate chain, PEM. Without it weir creates its own on first start and logs its
    /// fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Names and addresses that weir's own certificate is valid for, beside loopback.
    pub names: Vec<String>,
}

/// `[api.status_page]`: a page for customers, off by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusPage {
    /// Whether the page exists, at `/status`.
    pub enabled: bool,
    /// Heading of the page.
    pub title: String,
    /// Whether it shows the addresses under attack.
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
