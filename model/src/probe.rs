//! What a test of a BGP peer found.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How far a test came; each stage contains those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ProbeStage {
    /// Nothing was tried: the peer is to dial, or the session is up without a test.
    NotTried,
    /// No TCP connection came about.
    Unreachable,
    /// The TCP connection is there; no OPEN came.
    Connected,
    /// The peer's OPEN came; it has not accepted weir's.
    OpenReceived,
    /// The peer has accepted weir's OPEN: a session would come up.
    Accepted,
    /// The session is up.
    Established,
}

/// What the peer's OPEN says (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProbeOpen {
    /// Its AS number.
    pub asn: u32,
    /// Its BGP identifier.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: Ipv4Addr,
    /// The hold time it proposes, seconds.
    pub hold_secs: u16,
    /// The families it offers, of those that weir knows.
    pub families: Vec<String>,
    /// Whether it takes ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Whether it reads four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Whether it does graceful restart (RFC 4724).
    pub graceful_restart: bool,
}

/// What a test of a BGP peer found. Nothing is announced by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PeerProbe {
    /// The peer's name.
    pub name: String,
    /// Its address and port.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub to: SocketAddr,
    /// The address that it sees weir come from, once there is a connection.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub from: Option<IpAddr>,
    /// How far it came.
    pub stage: ProbeStage,
    /// Whether a session comes up that carries every configured family.
    pub good: bool,
    /// How long the TCP connection took, milliseconds.
    pub connect_ms: Option<u64>,
    /// What the peer says of itself, once it has.
    pub open: Option<ProbeOpen>,
    /// The families that both sides speak.
    pub families: Vec<String>,
    /// The families that are configured and that the peer does not offer: what needs them would not reach it.
    pub missing: Vec<String>,
    /// What was found, and what to look at, for people.
    pub findings: Vec<String>,
}
