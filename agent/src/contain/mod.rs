//! Containers of game servers: whose packets are whose, who attacks others, and holding that one back.
//!
//! An address of a bridge belongs to a server only until it restarts: after a restart of Docker two servers may
//! have swapped theirs. So everything here is remembered by server, and rules are written for the address that
//! the server has now.

pub mod docker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use weir_model::{Direction, IpNet, Millis};

use crate::enforcer::{Count, Egress, Program};
use crate::rules::{NodeAction, Rule, host, sent_by};

/// Most containers on a node.
pub const CONTAINERS_MAX: usize = 512;

/// Share of what all servers of an address send that makes one of them the culprit.
const CULPRIT_SHARE: f64 = 0.8;

/// Looks in a row above the limit before a server is held back.
const OVER_LOOKS: u32 = 3;

/// How long a server is held back after it was above the limit last, milliseconds.
const HELD_MS: u64 = 300_000;

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The host's address; unspecified: all of them.
    pub address: IpAddr,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// The host's port.
    pub port: u16,
}

/// A running container of a game server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Docker's identifier.
    pub id: String,
    /// The server's: what the panel calls it.
    pub server: String,
    /// Published ports, sorted.
    pub ports: Vec<Port>,
    /// Addresses on bridges, sorted.
    pub addresses: Vec<IpAddr>,
    /// Number of the host's end of its link, when the agent may know.
    pub veth: Option<u32>,
}

/// What a report says of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// The server.
    pub server: String,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Addresses on bridges.
    pub addresses: Vec<IpAddr>,
    /// Number of the host's end of its link.
    #[serde(default)]
    pub veth: Option<u32>,
    /// Sent since the agent knows the container.
    pub sent: Count,
    /// Sent in the last second or so, packets a second.
    pub packets_per_sec: f64,
    /// Different destinations in ten seconds.
    pub destinations: u32,
    /// Share of the last 10 s in which some task of it waited for processor, memory and disk, percent.
    pub pressure: [f64; 3],
    /// Held back at present.
    pub limited: bool,
}

/// A server that was found sending too much.
#[derive(Clone, Debug, PartialEq)]
pub struct Caught {
    /// The server.
    pub server: String,
    /// What it sent, packets a second.
    pub packets_per_sec: f64,
}

/// What is known of the containers.
#[derive(Clone, Debug, Default)]
pub struct Containers {
    list: Vec<Container>,
    egress: BTreeMap<IpAddr, Egress>,
    rates: BTreeMap<IpAddr, f64>,
    looked: Option<Millis>,
    over: BTreeMap<String, u32>,
    held: BTreeMap<String, Millis>,
    /// Who attacks, by the address that others see.
    culprits: BTreeMap<IpAddr, String>,
}

impl Containers {
    /// Takes another list. Counts of addresses that changed hands begin anew.
    pub fn set(&mut self, list: Vec<Container>) {
        let owner = |list: &[Container], a: &IpAddr| {
            list.iter().find(|c| c.addresses.contains(a)).map(|c| c.id.clone())
        };
        let moved = |a: &IpAddr| owner(&self.list, a) != owner(&list, a);
        let gone: Vec<IpAddr> = self.egress.keys().copied().filter(moved).collect();
        for address in gone {
            self.egress.remove(&address);
            self.rates.remove(&address);
        }
        self.over.retain(|server, _| list.iter().any(|c| c.server == *server));
        self.list = list;
    }

    /// Addresses whose packets are to be counted.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> =
            self.list.iter().flat_map(|c| c.addresses.iter().copied()).collect();
        all.into_iter().collect()
    }

    /// Takes a look at what containers sent. With a limit in packets a second, returns who has been above it for
    /// some looks and is held back from now on.
    pub fn look(&mut self, egress: &[Egress], limit: Option<u64>, now: Millis) -> Vec<Caught> {
        let millis = now.since(self.looked.replace(now).unwrap_or(now)).max(1000);
        for e in egress {
            let before = self.egress.insert(e.address, *e);
            let sent = before.map_or(0, |b| e.sent.packets.saturating_sub(b.sent.packets));
            #[expect(clippy::cast_precision_loss, reason = "packets of a few seconds")]
            self.rates.insert(e.address, sent as f64 * 1000.0 / millis as f64);
        }
        self.held.retain(|_, until| *until > now);
        let Some(limit) = limit else { return Vec::new() };
        #[expect(clippy::cast_precision_loss, reason = "packet rates are far below 2^52")]
        let limit = limit as f64;
        let mut caught = Vec::new();
        for container in &self.list {
            let rate = self.rate(container);
            let looks = self.over.entry(container.server.clone()).or_default();
            *looks = if rate > limit { *looks + 1 } else { 0 };
            if *looks >= OVER_LOOKS {
                let until = now + HELD_MS;
                if self.held.insert(container.server.clone(), until).is_none() {
                    caught.push(Caught { server: container.server.clone(), packets_per_sec: rate });
                }
            }
        }
        caught
    }

    /// Whether someone is to be watched each second.
    pub fn is_busy(&self) -> bool {
        !self.held.is_empty() || self.over.values().any(|looks| *looks > 0)
    }

    fn rate(&self, container: &Container) -> f64 {
        container.addresses.iter().filter_map(|a| self.rates.get(a)).sum()
    }

    /// Completes a program: what is counted, who is held back here, and for limits of an address that several
    /// servers share the one that they are meant for.
    pub fn complete(&mut self, program: &mut Program, limit: Option<u64>) {
        program.containers = self.addresses();
        let outbound = |r: &&Rule| r.direction == Direction::Outbound;
        let sources: BTreeSet<IpAddr> =
            program.rules.iter().filter(outbound).filter_map(|r| host(r.packets.src?)).collect();
        self.culprits.retain(|source, _| sources.contains(source));
        for source in sources {
            if let Some(server) = self.culprit(source) {
                self.culprits.insert(source, server);
            }
        }
        for rule in program.rules.iter_mut().filter(|r| r.direction == Direction::Outbound) {
            let server = rule.packets.src.and_then(host).and_then(|s| self.culprits.get(&s));
            let Some(container) = server.and_then(|s| self.list.iter().find(|c| c.server == *s))
            else {
                continue;
            };
            let v4 = rule.packets.dst.addr().is_ipv4();
            if let Some(address) = container.addresses.iter().find(|a| a.is_ipv4() == v4) {
                rule.packets.src = Some(IpNet::from(*address));
            }
        }
        if let Some(limit) = limit {
            program.rules.extend(self.held_rules(limit));
        }
    }

    /// The server that sends nearly all of what leaves with an address.
    fn culprit(&self, source: IpAddr) -> Option<String> {
        let here = |c: &&Container| {
            c.ports.iter().any(|p| {
                p.address == source
                    || (p.address.is_unspecified() && p.address.is_ipv4() == source.is_ipv4())
            })
        };
        if let Some(known) = self.culprits.get(&source) {
            return Some(known.clone());
        }
        let servers: Vec<(&Container, f64)> =
            self.list.iter().filter(here).map(|c| (c, self.rate(c))).collect();
        let total: f64 = servers.iter().map(|(_, rate)| rate).sum();
        let (most, rate) = servers.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        (total > 0.0 && rate >= CULPRIT_SHARE * total).then(|| most.server.clone())
    }

    fn held_rules(&self, limit: u64) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (server, until) in &self.held {
            let Some(container) = self.list.iter().find(|c| c.server == *server) else { continue };
            for address in &container.addresses {
                let v = if address.is_ipv4() { 4 } else { 6 };
                let rule = Rule {
                    id: format!("egress{v}.{}", server.chars().take(36).collect::<String>()),
                    direction: Direction::Outbound,
                    packets: sent_by(IpNet::from(*address)),
                    action: NodeAction::RatePackets { packets_per_sec: limit.max(1) },
                    spare_learned: false,
                    expires: Some(*until),
                };
                if rule.check().is_ok() {
                    rules.push(rule);
                }
            }
        }
        rules
    }

    /// What a report says.
    pub fn stats(&self) -> Vec<ContainerStats> {
        let stats = |c: &Container| {
            let mut sent = Count::default();
            let mut destinations = 0;
            for e in c.addresses.iter().filter_map(|a| self.egress.get(a)) {
                sent.packets += e.sent.packets;
                sent.bytes += e.sent.bytes;
                destinations += e.destinations;
            }
            ContainerStats {
                server: c.server.clone(),
                ports: c.ports.clone(),
                addresses: c.addresses.clone(),
                veth: c.veth,
                sent,
                packets_per_sec: self.rate(c),
                destinations,
                pressure: pressure(Path::new("/sys/fs/cgroup"), &c.id),
                limited: self.held.contains_key(&c.server)
                    || self.culprits.values().any(|s| *s == c.server),
            }
        };
        self.list.iter().map(stats).collect()
    }
}

/// Pressure on a container's processor, memory and disk, from its control group; 0 where that is not known.
fn pressure(root: &Path, id: &str) -> [f64; 3] {
    // As systemd and as Docker itself name the group.
    let folders = [format!("system.slice/docker-{id}.scope"), format!("docker/{id}")];
    ["cpu", "memory", "io"].map(|what| {
        let read = |folder: &String| {
            std::fs::read_to_string(root.join(folder).join(format!("{what}.pressure"))).ok()
        };
        folders.iter().find_map(read).map_or(0.0, |text| crate::eyes::host::pressure(&text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_795_000_000_000);
    const NODE: &str = "198.51.100.2";

    fn container(server: &str, address: &str, port: u16) -> Container {
        Container {
            id: format!("id-{server}"),
            server: server.into(),
            ports: vec![Port { address: NODE.parse().unwrap(), protocol: 17, port }],
            addresses: vec![address.parse().unwrap()],
            veth: None,
        }
    }

    fn sent(address: &str, packets: u64) -> Egress {
        let sent = Count { packets, bytes: packets * 60 };
        Egress { address: address.parse().unwrap(), sent, destinations: 1 }
    }

    fn limit_of_the_node() -> Program {
        let packets = sent_by(IpNet::from(NODE.parse::<IpAddr>().unwrap()));
        let rule = Rule {
            id: "i5.out".into(),
            direction: Direction::Outbound,
            packets,
            action: NodeAction::RatePackets { packets_per_sec: 1000 },
            spare_learned: false,
            expires: None,
        };
        Program { rules: vec![rule], ..Program::default() }
    }

    fn source(containers: &mut Containers) -> String {
        let mut program = limit_of_the_node();
        containers.complete(&mut program, None);
        program.rules[0].packets.src.unwrap().addr().to_string()
    }

    #[test]
    fn a_limit_follows_the_server_and_not_its_address() {
        let mut containers = Containers::default();
        assert_eq!(source(&mut containers), NODE, "nobody is known");
        containers.set(vec![container("a", "172.18.0.2", 1), container("b", "172.18.0.3", 2)]);
        containers.look(&[sent("172.18.0.2", 10), sent("172.18.0.3", 10)], None, NOW);
        assert_eq!(source(&mut containers), NODE, "nobody stands out");
        let later = NOW + 1000;
        containers.look(&[sent("172.18.0.2", 20_010), sent("172.18.0.3", 60)], None, later);
        assert_eq!(source(&mut containers), "172.18.0.2");
        containers.set(vec![container("a", "172.18.0.3", 1), container("b", "172.18.0.2", 2)]);
        assert_eq!(source(&mut containers), "172.18.0.3", "they have swapped addresses");
        containers.set(vec![container("b", "172.18.0.2", 2)]);
        assert_eq!(source(&mut containers), NODE, "the culprit is gone");
        let mut none = Program::default();
        containers.complete(&mut none, None);
        assert_eq!(none.containers, containers.addresses());
    }

    #[test]
    fn a_server_above_the_hosts_own_limit_is_held_back_for_a_time() {
        let mut containers = Containers::default();
        containers.set(vec![container("a", "172.18.0.2", 1), container("b", "172.18.0.3", 2)]);
        let mut caught = Vec::new();
        for n in 0..5 {
            let egress = [sent("172.18.0.2", n * 9000), sent("172.18.0.3", n * 100)];
            caught.extend(containers.look(&egress, Some(5000), NOW + n * 1000));
        }
        assert_eq!(caught, [Caught { server: "a".into(), packets_per_sec: 9000.0 }]);
        let mut program = Program::default();
        containers.complete(&mut program, Some(5000));
        assert_eq!(program.rules.len(), 1);
        assert_eq!(program.rules[0].packets.src.unwrap().to_string(), "172.18.0.2/32");
        assert_eq!(program.rules[0].check(), Ok(()));
        assert!(containers.stats()[0].limited && !containers.stats()[1].limited);
        let egress = [sent("172.18.0.2", 36_000)];
        containers.look(&egress, Some(5000), NOW + 5000 + HELD_MS);
        let mut program = Program::default();
        containers.complete(&mut program, Some(5000));
        assert_eq!(program.rules, []);
    }

    #[test]
    fn pressure_is_read_from_either_kind_of_group() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(pressure(root.path(), "abc"), [0.0; 3]);
        let folder = root.path().join("docker/abc");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("cpu.pressure"), "some avg10=12.50 avg60=1 avg300=1 total=1\n")
            .unwrap();
        assert_eq!(pressure(root.path(), "abc"), [12.5, 0.0, 0.0]);
    }
}
