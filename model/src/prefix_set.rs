//! A set of prefixes with longest-match look-up, for tens to thousands of prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Prefixes of both families, host bits cleared, sorted, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<IpNet>", into = "Vec<IpNet>")]
pub struct PrefixSet {
    nets: Vec<IpNet>,
    /// Lengths that occur, longest first, of IPv4 and of IPv6: a set has a handful of them, and
    /// only those are worth a search.
    lengths: [Vec<u8>; 2],
}

impl PrefixSet {
    /// The prefixes, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.nets.iter().copied()
    }

    /// How many prefixes.
    pub fn len(&self) -> usize {
        self.nets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// The longest prefix that holds `address`.
    pub fn covering(&self, address: IpAddr) -> Option<IpNet> {
        self.covering_net(IpNet::from(address))
    }

    /// Whether `address` lies in one of the prefixes.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covering(address).is_some()
    }

    /// The longest prefix that holds all of `net`.
    pub fn covering_net(&self, net: IpNet) -> Option<IpNet> {
        let lengths = &self.lengths[family(net)];
        lengths.iter().filter(|len| **len <= net.prefix_len()).find_map(|len| {
            let candidate = IpNet::new(net.addr(), *len).ok()?.trunc();
            self.nets.binary_search(&candidate).is_ok().then_some(candidate)
        })
    }

    /// Whether `net` and one of the prefixes share an address.
    pub fn overlaps(&self, net: IpNet) -> bool {
        self.covering_net(net).is_some() || self.nets.iter().any(|own| net.contains(own))
    }
}

impl From<Vec<IpNet>> for PrefixSet {
    fn from(nets: Vec<IpNet>) -> Self {
        nets.into_iter().collect()
    }
}

impl From<PrefixSet> for Vec<IpNet> {
    fn from(set: PrefixSet) -> Self {
        set.nets
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<T: IntoIterator<Item = IpNet>>(iter: T) -> Self {
        let mut nets: Vec<IpNet> = iter.into_iter().map(|n| n.trunc()).collect();
        nets.sort();
        nets.dedup();
        let mut lengths = [Vec::new(), Vec::new()];
        for net in &nets {
            lengths[family(*net)].push(net.prefix_len());
        }
        for list in &mut lengths {
            list.sort_unstable_by(|a, b| b.cmp(a));
            list.dedup();
        }
        Self { nets, lengths }
    }
}

const fn family(net: IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_families_stay_apart() {
        let set: PrefixSet = ["203.0.113.0/24", "203.0.113.64/26", "2001:db8::/32"]
            .iter()
            .map(|s| s.parse::<IpNet>().unwrap())
            .collect();
        let check = |addr: &str, net: Option<&str>| {
            let found = set.covering(addr.parse().unwrap()).map(|n| n.to_string());
            assert_eq!(found.as_deref(), net, "{addr}");
        };
        check("203.0.113.7", Some("203.0.113.0/24"));
        check("203.0.113.70", Some("203.0.113.64/26"));
        check("203.0.114.1", None);
        check("2001:db8:1::1", Some("2001:db8::/32"));
        check("::ffff:203.0.113.7", None);
        assert!(set.overlaps("203.0.0.0/16".parse().unwrap()));
        assert!(!set.overlaps("198.51.100.0/24".parse().unwrap()));
        assert_eq!(set.lengths, [vec![26, 24], vec![32]]);
        // What is wider than every prefix of the set is in none.
        assert_eq!(set.covering_net("203.0.113.0/23".parse().unwrap()), None);
        let all: PrefixSet = ["0.0.0.0/0", "::/0"].iter().map(|s| s.parse().unwrap()).collect();
        assert!(all.contains("192.0.2.1".parse().unwrap()));
        assert_eq!(all.covering_net("::/0".parse().unwrap()), "::/0".parse().ok());
    }
}
