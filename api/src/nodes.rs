//! Agents on nodes, as the API sees them.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;
use weir_model::{IncidentId, IpNet, Millis};

/// A node with an agent, for people.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentView {
    /// Node.
    pub name: String,
    /// Version of the agent; none before its first report.
    pub agent: Option<String>,
    /// Addresses that the node has.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// When it joined.
    pub joined: Millis,
    /// When it last said something.
    pub last_seen: Option<Millis>,
    /// Whether that was lately.
    pub connected: bool,
    /// Level of defence: `normal`, `elevated`, `constrained` or `emergency`.
    pub level: Option<String>,
    /// Whether it has in force what it is to have.
    pub current: bool,
    /// Rules in force.
    pub rules: usize,
    /// Packets that its rules discarded.
    pub dropped_packets: u64,
    /// Rules that are not in force, and why.
    pub failures: Vec<String>,
}

/// How a rule fares on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AgentRule {
    /// Its name there: `m` and the number of the mitigation, or `i` and the incident for what only nodes do.
    pub id: String,
    /// `applied`, `staged`, `refused` or `rolled-back`; `pending` when the node has not said anything yet.
    pub state: String,
    /// Why it is not in force.
    pub why: Option<String>,
    /// Packets that it discarded.
    pub dropped_packets: u64,
    /// Octets that it discarded.
    pub dropped_bytes: u64,
    /// Packets that met it and passed.
    pub passed_packets: u64,
}

/// A service on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AgentService {
    /// Address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Port.
    pub port: u16,
    /// Packets received since the agent started, before any rule.
    pub received_packets: u64,
    /// Packets answered.
    pub answered_packets: u64,
}

/// A game server in a container.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AgentContainer {
    /// What the panel calls it.
    pub server: String,
    /// Packets sent a second.
    pub packets_per_sec: f64,
    /// Different destinations in ten seconds.
    pub destinations: u32,
    /// Share of the last 10 s in which some task of it waited for processor, memory and disk, percent.
    pub pressure: [f64; 3],
    /// Whether its sending is held back.
    pub limited: bool,
}

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AgentEvent {
    /// When, on the node's clock.
    pub at: Millis,
    /// What, as a closed word.
    pub kind: String,
    /// In a sentence.
    pub text: String,
}

/// All that is known of a node.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AgentDetail)]
pub struct AgentDetail {
    /// The node.
    pub agent: AgentView,
    /// Milliseconds that it took to put the last change in force.
    pub apply_ms: Option<u64>,
    /// What it is able to do there: `nft`, `capture`, `sample`, ...
    pub abilities: Vec<String>,
    /// Other programs there that write firewall rules, in a sentence each.
    pub neighbours: Vec<String>,
    /// Rules and their fate.
    pub rules: Vec<AgentRule>,
    /// Services and their traffic.
    pub services: Vec<AgentService>,
    /// Game servers in containers.
    pub containers: Vec<AgentContainer>,
    /// Share of the connection table in use, percent; none without one.
    pub conntrack_percent: Option<f64>,
    /// Packets that the kernel had no time for, since boot.
    pub softnet_dropped: u64,
    /// Share of the last 10 s in which some task waited for processor, memory and disk, percent.
    pub pressure: [f64; 3],
    /// What happened there, oldest first, bounded.
    pub events: Vec<AgentEvent>,
}

/// A join token as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The token.
    pub token: String,
    /// TCP port on which nodes are awaited.
    pub port: u16,
    /// How long it may be used, seconds.
    pub expires_in_secs: u64,
}

/// Nodes with agents. Calls may read files.
pub trait Nodes: Send + Sync + std::fmt::Debug {
    /// Whether nodes are awaited at all.
    fn are_awaited(&self) -> bool {
        true
    }
    /// All, by name.
    fn list(&self) -> Vec<AgentView>;
    /// One, with all that is known of it.
    fn one(&self, name: &str) -> Option<AgentDetail>;
    /// Makes a token with which one node may join: of this name and with these addresses, when they are named.
    ///
    /// # Errors
    /// Why none could be made, for people.
    fn token(&self, name: Option<&str>, addresses: &[IpNet]) -> Result<JoinToken, String>;
    /// Who kept packets of an incident, and how many octets; by name.
    fn captures(&self, incident: IncidentId) -> Vec<(String, u64)>;
    /// The packets that a node kept of an incident: pcapng.
    fn capture(&self, incident: IncidentId, node: &str) -> Option<Vec<u8>>;
}
