//! From an allocation to the address in the flows.
//!
//! A panel often does not know the address on the wire: it binds `0.0.0.0`, or a private address
//! behind NAT. In order: the operator's word; the allocation's own address when it is protected;
//! its alias as an address; its alias as a name; the node's name when the allocation's address says
//! nothing. What maps to nothing is shown as unmapped, never dropped in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::PrefixSet;

use crate::config::Override;
use crate::listing::{Allocation, Listing, Node};

/// Most names resolved for one panel.
pub(crate) const NAMES_MAX: usize = 2_000;
/// Most addresses one allocation maps to.
pub(crate) const ADDRESSES_MAX: usize = 64;

/// What names resolve to, as far as somebody has asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<String, Vec<IpAddr>>);

impl Names {
    /// The addresses of a name; empty when unknown.
    pub fn get(&self, name: &str) -> &[IpAddr] {
        self.0.get(&normal(name)).map_or(&[], Vec::as_slice)
    }

    /// Sets the addresses of a name.
    pub fn set(&mut self, name: &str, mut addresses: Vec<IpAddr>) {
        addresses.sort();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        self.0.insert(normal(name), addresses);
    }

    /// Forgets every name that is not in `wanted`.
    pub fn keep(&mut self, wanted: &BTreeSet<String>) {
        self.0.retain(|name, _| wanted.contains(name));
    }
}

fn normal(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a text may be given to a resolver: a host name (RFC 1123 §2.1), not an address.
fn is_name(text: &str) -> bool {
    let name = normal(text);
    !name.is_empty()
        && name.len() <= 253
        && name.parse::<IpAddr>().is_err()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

/// The names worth asking for: aliases and nodes, at most [`NAMES_MAX`], sorted.
pub fn names_of(listing: &Listing) -> BTreeSet<String> {
    let nodes = listing.nodes.iter().map(|n| n.fqdn.as_str());
    let aliases = listing
        .servers
        .iter()
        .flat_map(|s| s.allocations.iter().filter_map(|a| a.alias.as_deref()));
    let mut names = BTreeSet::new();
    for name in nodes.chain(aliases).filter(|n| is_name(n)) {
        if names.len() == NAMES_MAX {
            break;
        }
        names.insert(normal(name));
    }
    names
}

/// By what an allocation was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// An override of the operator.
    Override,
    /// Its own address.
    Address,
    /// Its alias, an address.
    Alias,
    /// Its alias, a name.
    AliasName,
    /// Its node's name or address.
    Node,
}

/// Why an allocation has no address on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmapped {
    /// The operator says so.
    ByOverride,
    /// A loopback address: containers of the node among themselves.
    Internal,
    /// The panel's text is no address.
    NoAddress,
    /// A public address outside the protected prefixes.
    NotProtected,
    /// A private or unspecified address, and neither alias nor node leads to a protected one.
    NoWay,
}

impl Unmapped {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByOverride => "the operator says it is not on the wire",
            Self::Internal => "a loopback address, for containers of the node only",
            Self::NoAddress => "the panel gives no address",
            Self::NotProtected => "the address lies outside the protected prefixes",
            Self::NoWay => "neither alias nor node leads to a protected address",
        }
    }
}

/// Where allocations of one panel are on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapper<'a> {
    pub(crate) overrides: &'a [Override],
    pub(crate) protected: &'a PrefixSet,
    pub(crate) names: &'a Names,
}

impl Mapper<'_> {
    /// The addresses of an allocation, sorted, at least one; or why there is none.
    pub(crate) fn map(
        &self,
        allocation: &Allocation,
        node: Option<&Node>,
    ) -> Result<(Vec<IpAddr>, Via), Unmapped> {
        if let Some(over) = node.and_then(|n| self.override_of(n, allocation.ip)) {
            let kept = self.protected_of(&over.addresses);
            return match (over.addresses.is_empty(), kept.is_empty()) {
                (true, _) => Err(Unmapped::ByOverride),
                (false, true) => Err(Unmapped::NotProtected),
                (false, false) => Ok((kept, Via::Override)),
            };
        }
        let ip = allocation.ip;
        if let Some(ip) = ip.filter(|ip| self.protected.contains(*ip)) {
            return Ok((vec![ip], Via::Address));
        }
        if ip.is_some_and(|ip| ip.is_loopback()) {
            return Err(Unmapped::Internal);
        }
        let fits = |address: &IpAddr| {
            self.protected.contains(*address) && ip.is_none_or(|ip| same_family(ip, *address))
        };
        if let Some(alias) = &allocation.alias {
            if let Ok(address) = alias.parse::<IpAddr>() {
                if fits(&address) {
                    return Ok((vec![address], Via::Alias));
                }
            } else {
                let found: Vec<_> = self.names.get(alias).iter().copied().filter(fits).collect();
                if !found.is_empty() {
                    return Ok((found, Via::AliasName));
                }
            }
        }
        let Some(ip) = ip else { return Err(Unmapped::NoAddress) };
        if !is_local(ip) {
            return Err(Unmapped::NotProtected);
        }
        let found: Vec<_> =
            node.map(|n| self.node(n)).unwrap_or_default().into_iter().filter(fits).collect();
        if found.is_empty() { Err(Unmapped::NoWay) } else { Ok((found, Via::Node)) }
    }

    /// The protected addresses of a node itself: the operator's, or those of its name.
    pub(crate) fn node(&self, node: &Node) -> Vec<IpAddr> {
        if let Some(over) =
            self.overrides.iter().find(|o| o.ip.is_none() && node.is_called(&o.node))
        {
            return self.protected_of(&over.addresses);
        }
        match node.fqdn.parse::<IpAddr>() {
            Ok(own) => self.protected_of(&[own]),
            Err(_) => self.protected_of(self.names.get(&node.fqdn)),
        }
    }

    /// What lies outside the protected prefixes cannot be defended, whoever names it.
    fn protected_of(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut kept: Vec<IpAddr> =
            addresses.iter().copied().filter(|a| self.protected.contains(*a)).collect();
        kept.sort();
        kept.dedup();
        kept.truncate(ADDRESSES_MAX);
        kept
    }

    /// One for the address goes before one for the whole node.
    fn override_of(&self, node: &Node, ip: Option<IpAddr>) -> Option<&Override> {
        let of_node = || self.overrides.iter().filter(|o| node.is_called(&o.node));
        of_node()
            .find(|o| o.ip.is_some() && o.ip == ip)
            .or_else(|| of_node().find(|o| o.ip.is_none()))
    }
}

/// An IPv4 socket takes no IPv6 traffic; `::` takes both.
const fn same_family(bound: IpAddr, wire: IpAddr) -> bool {
    match bound {
        IpAddr::V4(_) => wire.is_ipv4(),
        IpAddr::V6(v6) => wire.is_ipv6() || v6.is_unspecified(),
    }
}

/// Addresses that never stand in a packet on the wire, so that NAT or a wildcard must be meant
/// (RFC 1918, RFC 6598 §7, RFC 4193 §3, RFC 4291 §2.5.6).
const fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_unspecified()
                || v4.is_private()
                || v4.is_link_local()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.is_unspecified() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(ip: &str, alias: Option<&str>) -> Allocation {
        Allocation {
            id: 1,
            ip: ip.parse().ok(),
            alias: alias.map(str::to_owned),
            port: 25565,
            held: false,
        }
    }

    fn node(fqdn: &str) -> Node {
        Node {
            id: 1,
            name: "fra-1".into(),
            fqdn: fqdn.into(),
            daemon_listen: 8080,
            daemon_sftp: 2022,
            daemon_connect: None,
            behind_proxy: false,
        }
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn the_order_of_the_ways_holds() {
        let protected = ["203.0.113.0/24", "2001:db8::/32"]
            .iter()
            .map(|t| t.parse().unwrap())
            .collect::<PrefixSet>();
        let mut names = Names::default();
        names.set("Play.Example.net.", ips(&["203.0.113.30", "2001:db8::30", "198.51.100.1"]));
        names.set("cdn.example.net", ips(&["198.51.100.9"]));
        names.set("node.example.net", ips(&["203.0.113.40", "2001:db8::40"]));
        let mapper = Mapper { overrides: &[], protected: &protected, names: &names };
        let check = |ip: &str, alias, fqdn: &str, expected: Result<(&[&str], Via), Unmapped>| {
            let found = mapper.map(&allocation(ip, alias), Some(&node(fqdn)));
            assert_eq!(found, expected.map(|(a, via)| (ips(a), via)), "{ip} {alias:?} {fqdn}");
        };
        let named = "node.example.net";
        check(
            "203.0.113.10",
            Some("play.example.net"),
            named,
            Ok((&["203.0.113.10"], Via::Address)),
        );
        check("10.0.0.5", Some("203.0.113.20"), named, Ok((&["203.0.113.20"], Via::Alias)));
        check("10.0.0.5", Some("play.example.net"), named, Ok((&["203.0.113.30"], Via::AliasName)));
        check("10.0.0.5", Some("cdn.example.net"), named, Ok((&["203.0.113.40"], Via::Node)));
        check("0.0.0.0", None, named, Ok((&["203.0.113.40"], Via::Node)));
        check("::", None, named, Ok((&["203.0.113.40", "2001:db8::40"], Via::Node)));
        check("fd00::1", None, named, Ok((&["2001:db8::40"], Via::Node)));
        check("100.64.0.1", None, "203.0.113.41", Ok((&["203.0.113.41"], Via::Node)));
        check("127.0.0.1", Some("203.0.113.20"), named, Err(Unmapped::Internal));
        check("198.51.100.7", None, named, Err(Unmapped::NotProtected));
        check("10.0.0.5", None, "unknown.example.net", Err(Unmapped::NoWay));
        check("what", None, named, Err(Unmapped::NoAddress));
        check(
            "what",
            Some("play.example.net"),
            named,
            Ok((&["203.0.113.30", "2001:db8::30"], Via::AliasName)),
        );
    }

    #[test]
    fn the_operator_goes_first_and_may_say_nowhere() {
        let protected = ["203.0.113.0/24".parse().unwrap()].into_iter().collect::<PrefixSet>();
        let overrides = [
            Override { node: "FRA-1".into(), ip: None, addresses: ips(&["203.0.113.99"]) },
            Override { node: "1".into(), ip: Some("10.0.0.1".parse().unwrap()), addresses: vec![] },
            Override {
                node: "1".into(),
                ip: Some("127.0.0.1".parse().unwrap()),
                addresses: ips(&["203.0.113.5"]),
            },
        ];
        let names = Names::default();
        let mapper = Mapper { overrides: &overrides, protected: &protected, names: &names };
        let map = |ip| mapper.map(&allocation(ip, None), Some(&node("x")));
        assert_eq!(map("203.0.113.10"), Ok((ips(&["203.0.113.99"]), Via::Override)));
        assert_eq!(map("10.0.0.1"), Err(Unmapped::ByOverride));
        assert_eq!(map("127.0.0.1"), Ok((ips(&["203.0.113.5"]), Via::Override)));
        assert_eq!(mapper.node(&node("x")), ips(&["203.0.113.99"]));
    }

    #[test]
    fn only_host_names_reach_a_resolver() {
        for name in ["play.example.net", "a_b.example", "localhost"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", "203.0.113.1", "::1", "a b", "x..y", "http://x", "ü.example", &"a".repeat(64)]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
