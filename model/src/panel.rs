//! Game panels as operators see them: how the synchronisation stands, and what was made of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// A panel: how its synchronisation stands, and its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PanelStatus {
    /// Name in the configuration.
    pub name: String,
    /// Address.
    pub url: String,
    /// `per-node` or `central`.
    pub mode: String,
    /// `pterodactyl` or `pelican`, once known.
    pub flavour: Option<String>,
    /// `starting`, `ok`, `down`, `refused`, `throttled` or `strange`.
    pub connection: String,
    /// What an operator should look at, in words.
    pub alarms: Vec<String>,
    /// Why the last pass failed.
    pub error: Option<String>,
    /// When the last complete pass ended.
    pub last_success: Option<Millis>,
    /// When the next pass begins.
    pub next_poll: Option<Millis>,
    /// Ports that vanished at once and are held until they return or somebody accepts.
    pub held: usize,
    /// Requests of the last complete pass.
    pub pass_requests: u32,
    /// Length of the last complete pass, milliseconds.
    pub pass_ms: u64,
    /// Requests a minute that the panel allows.
    pub rate_limit: Option<u32>,
    /// Servers.
    pub servers: usize,
    /// Allocations.
    pub allocations: usize,
    /// Allocations without an address on the wire.
    pub unmapped: usize,
    /// Ports on the wire.
    pub services: usize,
    /// Allocations that share address and port with another server.
    pub conflicts: usize,
    /// Nodes by number.
    pub nodes: Vec<PanelNode>,
}

/// A node of a panel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PanelNode {
    /// Number in the panel.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Host name or address.
    pub fqdn: String,
    /// Addresses on the wire.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// Allocations with an address on the wire.
    pub mapped: usize,
    /// Allocations without.
    pub unmapped: usize,
    /// Ports on the wire.
    pub services: usize,
    /// Ports of the panel's daemon.
    pub system_ports: Vec<u16>,
    /// Whether those are on a protected address.
    pub system_mapped: bool,
}

/// A server of a panel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PanelServer {
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// `running`, `suspended`, `installing`, ...
    pub state: String,
    /// Name of its node.
    pub node: String,
    /// Name of its owner, when owners are synchronised.
    pub customer: Option<String>,
    /// Game, for people.
    pub game: String,
    /// How the game was recognised.
    pub game_why: String,
    /// Its ports.
    pub ports: Vec<PanelPort>,
}

/// A port of a server: where it is on the wire, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PanelPort {
    /// Port.
    pub port: u16,
    /// Whether it is the server's primary one.
    pub primary: bool,
    /// Whether it vanished from the panel and is held.
    pub held: bool,
    /// Addresses on the wire; empty when unmapped.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// By what it was mapped: `override`, `address`, `alias`, `alias-name`, `node`.
    pub via: Option<String>,
    /// Why it is unmapped, in words.
    pub unmapped: Option<String>,
    /// What it is for: `game`, `query`, `rcon`, ...
    pub role: String,
    /// `tcp`, `udp` or `both`.
    pub protocols: String,
    /// How sure that is, 0-100.
    pub confidence: u8,
    /// What it rests on, in words.
    pub why: String,
}

/// What may be asked of a panel's synchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum PanelOrder {
    /// Read it soon.
    Sync,
    /// The held ports are gone for good.
    Accept,
}
