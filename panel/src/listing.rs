//! What a panel says, reduced to what weir needs: plain data without any secret.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::Millis;

/// Which software a panel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// Pterodactyl 1.11 and later: eggs lie in nests.
    Pterodactyl,
    /// Pelican: eggs are a flat list.
    Pelican,
}

/// One complete pass over a panel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Which software.
    pub flavour: Flavour,
    /// When the pass ended.
    pub taken: Millis,
    /// Nodes by number.
    pub nodes: Vec<Node>,
    /// Eggs by number; empty when the key may not read them.
    pub eggs: Vec<Egg>,
    /// Servers by number.
    pub servers: Vec<Server>,
    /// Customers by number; empty unless owners are synchronised.
    pub users: Vec<User>,
}

/// A machine that runs the panel's daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Number.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Host name or address of the daemon.
    pub fqdn: String,
    /// Port of the daemon.
    pub daemon_listen: u16,
    /// Port of the daemon's SFTP.
    pub daemon_sftp: u16,
    /// Port of the daemon as clients reach it, when it differs (Pelican behind a proxy).
    pub daemon_connect: Option<u16>,
    /// Whether a proxy stands before the daemon.
    pub behind_proxy: bool,
}

impl Node {
    /// Whether the operator means this node: by name or number.
    pub fn is_called(&self, text: &str) -> bool {
        self.name.eq_ignore_ascii_case(text) || self.id.to_string() == text
    }
}

/// The kind of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egg {
    /// Number.
    pub id: u64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Name of the nest (Pterodactyl).
    pub nest: Option<String>,
    /// Features (Pelican).
    pub features: Vec<String>,
    /// Tags (Pelican).
    pub tags: Vec<String>,
    /// Program of the start command, without arguments.
    pub program: String,
    /// Tag of the image.
    pub image_tag: String,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Number.
    pub id: u64,
    /// User name. The e-mail address is not kept.
    pub name: String,
}

/// Whether a server's ports are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    /// Runs, or may be started by its owner at any time.
    #[default]
    Normal,
    /// Stopped by the operator: keeps its ports, nothing listens.
    Suspended,
    /// Being installed, or failed to: ports are reserved, nothing listens.
    Installing,
    /// A backup is being restored.
    Restoring,
    /// A word weir does not know: treated as normal.
    Other,
}

impl ServerState {
    /// Whether no traffic is to be expected, so that none is learnt and its absence alarms nobody.
    pub const fn is_quiet(self) -> bool {
        matches!(self, Self::Suspended | Self::Installing | Self::Restoring)
    }
}

/// A game server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Number.
    pub id: u64,
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// State.
    pub state: ServerState,
    /// Number of its node.
    pub node: u64,
    /// Number of its owner.
    pub owner: u64,
    /// Numbers of other users who may use it; empty unless owners are synchronised.
    pub subusers: Vec<u64>,
    /// Number of its egg.
    pub egg: u64,
    /// Number of its primary allocation.
    pub primary: Option<u64>,
    /// Program of the start command, without arguments.
    pub program: String,
    /// Tag of the image.
    pub image_tag: String,
    /// Variables whose name speaks of a port and whose value is one.
    pub port_variables: Vec<(String, u16)>,
    /// Its allocations by number.
    pub allocations: Vec<Allocation>,
}

/// An address and port that a server may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Number.
    pub id: u64,
    /// Address as the node binds it; `None` when the panel's text is no address.
    pub ip: Option<IpAddr>,
    /// What players are told instead: a name or an address.
    pub alias: Option<String>,
    /// Port, 1-65535.
    pub port: u16,
    /// Whether the last pass did not show it any more, but it is held.
    #[serde(default)]
    pub held: bool,
}

impl Listing {
    /// How many allocations all servers have.
    pub fn ports(&self) -> usize {
        self.servers.iter().map(|s| s.allocations.len()).sum()
    }

    /// Whether both say the same, apart from when.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.flavour == other.flavour
            && self.nodes == other.nodes
            && self.eggs == other.eggs
            && self.servers == other.servers
            && self.users == other.users
    }

    /// What `new` changes, one line a port, sorted: `+ lobby 203.0.113.7:25565`.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let ports = |listing: &Self| -> BTreeSet<String> {
            let of = |s: &Server| -> Vec<String> {
                s.allocations
                    .iter()
                    .map(|a| {
                        let ip = a.ip.map_or_else(|| "?".to_owned(), |ip| ip.to_string());
                        let quiet = if s.state.is_quiet() { " (quiet)" } else { "" };
                        format!("{} {ip}:{}{quiet} on node {}", s.name, a.port, s.node)
                    })
                    .collect()
            };
            listing.servers.iter().flat_map(of).collect()
        };
        let (before, after) = (ports(self), ports(new));
        let gone = before.difference(&after).map(|line| format!("- {line}"));
        let came = after.difference(&before).map(|line| format!("+ {line}"));
        gone.chain(came).collect()
    }

    /// The node with this number.
    pub fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.binary_search_by_key(&id, |n| n.id).ok().map(|i| &self.nodes[i])
    }

    /// The egg with this number.
    pub fn egg(&self, id: u64) -> Option<&Egg> {
        self.eggs.binary_search_by_key(&id, |e| e.id).ok().map(|i| &self.eggs[i])
    }

    /// The customer with this number.
    pub fn user(&self, id: u64) -> Option<&User> {
        self.users.binary_search_by_key(&id, |u| u.id).ok().map(|i| &self.users[i])
    }
}
