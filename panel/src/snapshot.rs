//! One panel as weir understands it: nodes, servers, allocations with addresses and roles.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{Expected, ExpectedTraffic, HostGroup, Millis, PrefixSet, Service};

use crate::config::{Expectation, Mode, PanelConfig};
use crate::games::Games;
use crate::listing::{Allocation, Flavour, Listing, Server, ServerState};
use crate::mapping::{Mapper, Names, Unmapped, Via};
use crate::role::{Conclusion, Context, Protocols, Role, Source};

/// A panel, mapped and concluded: plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelSnapshot {
    /// The panel's name in the configuration.
    pub panel: String,
    /// Which software.
    pub flavour: Flavour,
    /// When the listing was taken.
    pub taken: Millis,
    /// Nodes by number.
    pub nodes: Vec<NodeView>,
    /// Servers by number.
    pub servers: Vec<ServerView>,
    /// Allocations by server and number.
    pub allocations: Vec<AllocationView>,
    /// Ports on the wire, sorted, without duplicates: for the inventory.
    pub services: Vec<Service>,
    /// Ports on the wire where no traffic is to be expected: suspended, installing and restoring
    /// servers. None is learnt there, and silence alarms nobody. Sorted.
    pub quiet: Vec<Endpoint>,
    /// Allocations whose address and port another server of the panel has as well.
    pub conflicts: usize,
    /// Hosts that belong together, by the panel's mode.
    pub groups: Vec<HostGroup>,
}

/// A port on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Protected address.
    pub address: IpAddr,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Port.
    pub port: u16,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Number.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Host name or address.
    pub fqdn: String,
    /// Addresses of its allocations and of its daemon on the wire, sorted.
    pub addresses: Vec<IpAddr>,
    /// Allocations with an address on the wire.
    pub mapped: usize,
    /// Allocations without.
    pub unmapped: usize,
    /// Services on the wire, one per address, protocol and port.
    pub services: usize,
    /// Ports of the panel's daemon, as the panel says.
    pub system_ports: Vec<u16>,
    /// Whether the system ports are on a protected address.
    pub system_mapped: bool,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
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
    /// Name of its owner, when owners are synchronised.
    pub customer: Option<String>,
    /// Numbers of others who may use it, when owners are synchronised.
    pub subusers: Vec<u64>,
    /// Game, for people.
    pub game: String,
    /// Identifier of the game's family; `None` when unknown.
    pub family: Option<String>,
    /// How the game was recognised.
    pub game_why: String,
}

/// An allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationView {
    /// Number.
    pub id: u64,
    /// Number of its server.
    pub server: u64,
    /// Number of its node, as far as it can be told.
    pub node: u64,
    /// Address in the panel.
    pub ip: Option<IpAddr>,
    /// Alias in the panel.
    pub alias: Option<String>,
    /// Port.
    pub port: u16,
    /// Whether it is the server's primary one.
    pub primary: bool,
    /// Whether it vanished from the panel and is held.
    pub held: bool,
    /// Addresses on the wire; empty when unmapped.
    pub addresses: Vec<IpAddr>,
    /// By what it was mapped.
    pub via: Option<Via>,
    /// Why it is unmapped.
    pub unmapped: Option<Unmapped>,
    /// What it is for.
    pub role: Conclusion,
}

impl PanelSnapshot {
    /// What is known beforehand at a minute of the week: no traffic where a server does not run, much
    /// where the operator says so.
    pub fn expected(&self, rules: &[Expectation], minute_of_week: u32) -> Vec<Expected> {
        let silent = self.quiet.iter().map(|at| Expected {
            address: at.address,
            protocol: at.protocol,
            port: at.port,
            traffic: ExpectedTraffic::Silence,
            why: "the server does not run".to_owned(),
        });
        let mut expected: Vec<Expected> = silent.collect();
        for server in &self.servers {
            let Some(rule) = rules.iter().find(|rule| rule.covers(&server.uuid, minute_of_week))
            else {
                continue;
            };
            for allocation in self.allocations.iter().filter(|a| a.server == server.id) {
                for address in &allocation.addresses {
                    for protocol in allocation.role.protocols.numbers() {
                        expected.push(Expected {
                            address: *address,
                            protocol,
                            port: allocation.port,
                            traffic: ExpectedTraffic::Surge,
                            why: rule.why.clone(),
                        });
                    }
                }
            }
        }
        expected.sort();
        // A server that does not run has no surge.
        expected.dedup_by_key(|e| (e.address, e.protocol, e.port));
        expected
    }

    /// Maps and concludes a listing.
    pub fn build(
        listing: &Listing,
        config: &PanelConfig,
        games: &Games,
        protected: &PrefixSet,
        names: &Names,
    ) -> Self {
        let mapper = Mapper { overrides: &config.overrides, protected, names };
        let mut builder = Builder {
            listing,
            mapper,
            homes: homes(listing),
            endpoints: BTreeMap::new(),
            conflicts: 0,
            nodes: nodes(listing, mapper),
        };
        let mut servers = Vec::with_capacity(listing.servers.len());
        let mut allocations = Vec::with_capacity(listing.ports());
        for server in &listing.servers {
            let context = Context {
                server,
                egg: listing.egg(server.egg),
                node: listing.node(server.node),
                rules: &config.roles,
                games,
            };
            let game = context.game();
            let view = ServerView {
                id: server.id,
                uuid: server.uuid.clone(),
                name: server.name.clone(),
                state: server.state,
                node: server.node,
                owner: server.owner,
                customer: listing.user(server.owner).map(|u| u.name.clone()),
                subusers: server.subusers.clone(),
                game: game.title(context.egg),
                family: game.family.map(|f| f.id.clone()),
                game_why: game.why.clone(),
            };
            for allocation in &server.allocations {
                let role = context.conclude(allocation, &game);
                allocations.push(builder.allocation(server, allocation, role, &view));
            }
            servers.push(view);
        }
        builder.system_ports();
        builder.finish(config, servers, allocations)
    }

    /// The server at a port on the wire.
    pub fn server_at(&self, endpoint: Endpoint) -> Option<&ServerView> {
        let allocation = self.allocations.iter().find(|a| {
            a.port == endpoint.port
                && a.addresses.contains(&endpoint.address)
                && a.role.protocols.numbers().any(|p| p == endpoint.protocol)
        })?;
        self.server(allocation.server)
    }

    /// The server with this number.
    pub fn server(&self, id: u64) -> Option<&ServerView> {
        self.servers.binary_search_by_key(&id, |s| s.id).ok().map(|i| &self.servers[i])
    }

    /// Allocations without an address on the wire.
    pub fn unmapped(&self) -> impl Iterator<Item = &AllocationView> {
        self.allocations.iter().filter(|a| a.unmapped.is_some())
    }

    /// The group of an address.
    pub fn group_of(&self, address: IpAddr) -> Option<&HostGroup> {
        self.groups.iter().find(|g| g.addresses.binary_search(&address).is_ok())
    }
}

/// What stands at a port on the wire.
struct Entry {
    service: Service,
    quiet: bool,
    node: u64,
}

struct Builder<'a> {
    listing: &'a Listing,
    mapper: Mapper<'a>,
    homes: HashMap<IpAddr, u64>,
    endpoints: BTreeMap<Endpoint, Entry>,
    conflicts: usize,
    nodes: Vec<NodeView>,
}

impl Builder<'_> {
    fn allocation(
        &mut self,
        server: &Server,
        allocation: &Allocation,
        role: Conclusion,
        view: &ServerView,
    ) -> AllocationView {
        let node = self.node_of(server, allocation);
        let mapped = self.mapper.map(allocation, self.listing.node(node));
        let (addresses, via, unmapped) = match mapped {
            Ok((addresses, via)) => (addresses, Some(via), None),
            Err(why) => (Vec::new(), None, Some(why)),
        };
        if let Ok(i) = self.nodes.binary_search_by_key(&node, |n| n.id) {
            let node = &mut self.nodes[i];
            if addresses.is_empty() {
                node.unmapped += 1;
            } else {
                node.mapped += 1;
            }
        }
        let mut conflict = false;
        for address in &addresses {
            for protocol in role.protocols.numbers() {
                let endpoint = Endpoint { address: *address, protocol, port: allocation.port };
                let entry = Entry {
                    service: service(endpoint, view, &role),
                    quiet: server.state.is_quiet(),
                    node,
                };
                conflict |= !self.add(endpoint, entry);
            }
        }
        self.conflicts += usize::from(conflict);
        AllocationView {
            id: allocation.id,
            server: server.id,
            node,
            ip: allocation.ip,
            alias: allocation.alias.clone(),
            port: allocation.port,
            primary: server.primary == Some(allocation.id),
            held: allocation.held,
            addresses,
            via,
            unmapped,
            role,
        }
    }

    /// Whether the port was free. A server that runs goes before one that does not.
    fn add(&mut self, endpoint: Endpoint, entry: Entry) -> bool {
        match self.endpoints.entry(endpoint) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(entry);
                true
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                if slot.get().quiet && !entry.quiet {
                    slot.insert(entry);
                }
                false
            }
        }
    }

    /// While a server moves, both nodes hold allocations for it and the panel does not say which
    /// is whose: an address that every other server has on one node belongs there.
    fn node_of(&self, server: &Server, allocation: &Allocation) -> u64 {
        allocation.ip.and_then(|ip| self.homes.get(&ip)).copied().unwrap_or(server.node)
    }

    /// The daemon's ports are protected on the node's own addresses, or, when its name does not
    /// lead to a protected one, on every address of its allocations.
    fn system_ports(&mut self) {
        let mut of_node: BTreeMap<u64, BTreeSet<IpAddr>> = BTreeMap::new();
        for (endpoint, entry) in &self.endpoints {
            of_node.entry(entry.node).or_default().insert(endpoint.address);
        }
        for i in 0..self.nodes.len() {
            let (id, name) = (self.nodes[i].id, self.nodes[i].name.clone());
            let games = of_node.remove(&id).unwrap_or_default();
            let own: BTreeSet<IpAddr> = self.nodes[i].addresses.iter().copied().collect();
            let system = if own.is_empty() { games.clone() } else { own.clone() };
            self.nodes[i].system_mapped = !system.is_empty();
            for address in &system {
                for port in self.nodes[i].system_ports.clone() {
                    let endpoint = Endpoint { address: *address, protocol: 6, port };
                    let service = Service {
                        address: *address,
                        protocol: 6,
                        port,
                        name: format!("node {name}"),
                        game: "Panel daemon".to_owned(),
                    };
                    // The daemon was there first: a game on its port cannot be.
                    self.endpoints.insert(endpoint, Entry { service, quiet: false, node: id });
                }
            }
            self.nodes[i].addresses = own.union(&games).copied().collect();
        }
    }

    fn finish(
        mut self,
        config: &PanelConfig,
        servers: Vec<ServerView>,
        allocations: Vec<AllocationView>,
    ) -> PanelSnapshot {
        for entry in self.endpoints.values() {
            if let Ok(i) = self.nodes.binary_search_by_key(&entry.node, |n| n.id) {
                self.nodes[i].services += 1;
            }
        }
        let groups = match config.mode {
            Mode::PerNode => self
                .nodes
                .iter()
                .map(|n| HostGroup {
                    name: format!("{}/{}", config.name, n.name),
                    addresses: n.addresses.clone(),
                })
                .collect(),
            Mode::Central => {
                let all: BTreeSet<IpAddr> =
                    self.nodes.iter().flat_map(|n| n.addresses.iter().copied()).collect();
                vec![HostGroup { name: config.name.clone(), addresses: all.into_iter().collect() }]
            }
        };
        let quiet = self.endpoints.iter().filter(|(_, e)| e.quiet).map(|(at, _)| *at).collect();
        PanelSnapshot {
            panel: config.name.clone(),
            flavour: self.listing.flavour,
            taken: self.listing.taken,
            nodes: self.nodes,
            servers,
            allocations,
            services: self.endpoints.into_values().map(|e| e.service).collect(),
            quiet,
            conflicts: self.conflicts,
            groups,
        }
    }
}

fn nodes(listing: &Listing, mapper: Mapper<'_>) -> Vec<NodeView> {
    listing
        .nodes
        .iter()
        .map(|n| {
            let mut ports = vec![n.daemon_listen, n.daemon_sftp];
            ports.extend(n.daemon_connect);
            ports.sort_unstable();
            ports.dedup();
            NodeView {
                id: n.id,
                name: n.name.clone(),
                fqdn: n.fqdn.clone(),
                addresses: mapper.node(n),
                mapped: 0,
                unmapped: 0,
                services: 0,
                system_ports: ports,
                system_mapped: false,
            }
        })
        .collect()
}

/// The node of each address that only one node's servers have. Addresses that every node has,
/// such as `0.0.0.0`, have no home.
fn homes(listing: &Listing) -> HashMap<IpAddr, u64> {
    let mut votes: HashMap<IpAddr, HashMap<u64, usize>> = HashMap::new();
    for server in &listing.servers {
        let ips: BTreeSet<IpAddr> = server.allocations.iter().filter_map(|a| a.ip).collect();
        for ip in ips {
            *votes.entry(ip).or_default().entry(server.node).or_default() += 1;
        }
    }
    votes
        .into_iter()
        .filter_map(|(ip, nodes)| {
            let (node, most) = nodes.iter().map(|(n, c)| (*n, *c)).max_by_key(|(n, c)| (*c, *n))?;
            let all: usize = nodes.values().sum();
            // A minority of one is a server on the move; more than that is no home at all.
            let clear = all == most || (most >= 2 && all - most == 1);
            (clear && !ip.is_unspecified()).then_some((ip, node))
        })
        .collect()
}

fn service(endpoint: Endpoint, server: &ServerView, role: &Conclusion) -> Service {
    let mut name = server.name.clone();
    if !matches!(role.role, Role::Game | Role::Voice | Role::Unknown) {
        name = format!("{name} ({})", role.role);
    }
    if let Some(customer) = &server.customer {
        name = format!("{name}, customer {customer}");
    }
    Service {
        address: endpoint.address,
        protocol: endpoint.protocol,
        port: endpoint.port,
        name,
        game: server.game.clone(),
    }
}

/// A suggestion that an observation makes: never applied by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// Number of the allocation.
    pub allocation: u64,
    /// What it seems to speak.
    pub protocols: Protocols,
    /// Why.
    pub why: String,
}

/// Days of observation before a suggestion is made.
pub(crate) const SUGGEST_AFTER_DAYS: u32 = 7;

impl PanelSnapshot {
    /// Suggests protocols for allocations that are open on both but were seen on one only.
    /// `seen` gives days with traffic by TCP and by UDP at a port, and the days observed.
    pub fn suggestions(&self, seen: impl Fn(IpAddr, u16) -> Observation) -> Vec<Suggestion> {
        self.allocations
            .iter()
            .filter(|a| a.role.source != Source::Operator && a.role.protocols == Protocols::BOTH)
            .filter_map(|a| {
                let all = a.addresses.iter().map(|ip| seen(*ip, a.port));
                let sum = all.fold(Observation::default(), |x, y| Observation {
                    days: x.days.max(y.days),
                    tcp_days: x.tcp_days.max(y.tcp_days),
                    udp_days: x.udp_days.max(y.udp_days),
                });
                let protocols = match (sum.tcp_days, sum.udp_days) {
                    (tcp, 0) if tcp >= SUGGEST_AFTER_DAYS => Protocols::TCP,
                    (0, udp) if udp >= SUGGEST_AFTER_DAYS => Protocols::UDP,
                    _ => return None,
                };
                let why = format!("only {protocols} was seen in {} days", sum.days);
                Some(Suggestion { allocation: a.id, protocols, why })
            })
            .collect()
    }
}

/// Days of traffic at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Days observed.
    pub days: u32,
    /// Days with established TCP traffic.
    pub tcp_days: u32,
    /// Days with UDP traffic both ways.
    pub udp_days: u32,
}

#[cfg(test)]
mod tests;
