//! From a protected address to its place in memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{IpNet, PrefixSet, prefetch};

use crate::watch::hash::FastMap;

/// No place.
pub(crate) const NONE: u32 = u32::MAX;

/// Largest number of IPv4 addresses that get a direct index (4 octets each, touched lazily).
const DENSE_MAX: u64 = 1 << 24;

/// Protected IPv4 prefixes as ranges of one dense array; everything else in a hash map.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// (first address, last address, offset), sorted.
    ranges: Vec<(u32, u32, u32)>,
    /// Place plus one, 0 for none.
    dense: Vec<u32>,
    sparse: FastMap<IpAddr, u32>,
}

impl Table {
    pub(crate) fn new(protected: &PrefixSet) -> Self {
        let mut spans: Vec<(u32, u32)> = protected
            .iter()
            .filter_map(|net| match net {
                IpNet::V4(v4) => Some((u32::from(v4.network()), u32::from(v4.broadcast()))),
                IpNet::V6(_) => None,
            })
            .collect();
        spans.sort_unstable();
        let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
        let mut used = 0_u64;
        for (from, to) in spans {
            // Prefixes either nest or are apart.
            if ranges.last().is_some_and(|last| from <= last.1) {
                continue;
            }
            let size = u64::from(to - from) + 1;
            let Ok(offset) = u32::try_from(used) else { break };
            if used + size > DENSE_MAX {
                continue;
            }
            ranges.push((from, to, offset));
            used += size;
        }
        let dense = vec![0; usize::try_from(used).unwrap_or(0)];
        Self { ranges, dense, sparse: FastMap::default() }
    }

    fn slot(&self, address: Ipv4Addr) -> Option<usize> {
        let a = u32::from(address);
        let at = match self.ranges.as_slice() {
            [only] => usize::from(a < only.0),
            ranges => ranges.partition_point(|r| r.1 < a),
        };
        let &(from, to, offset) = self.ranges.get(at)?;
        (from <= a && a <= to).then(|| (offset + (a - from)) as usize)
    }

    /// The place of an address, [`NONE`] when it has none.
    pub(crate) fn get(&self, address: IpAddr) -> u32 {
        if let IpAddr::V4(v4) = address
            && let Some(slot) = self.slot(v4)
        {
            return self.dense[slot].wrapping_sub(1);
        }
        self.sparse.get(&address).copied().unwrap_or(NONE)
    }

    /// Has an address's entry fetched.
    pub(crate) fn fetch(&self, address: IpAddr) {
        if let IpAddr::V4(v4) = address
            && let Some(slot) = self.slot(v4)
        {
            prefetch(&self.dense[slot]);
        }
    }

    /// Gives an address a place.
    pub(crate) fn set(&mut self, address: IpAddr, place: u32) {
        if let IpAddr::V4(v4) = address
            && let Some(slot) = self.slot(v4)
        {
            self.dense[slot] = place.wrapping_add(1);
        } else {
            self.sparse.insert(address, place);
        }
    }

    /// Forgets the place of an address that has no entry of the dense array.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.sparse.remove(&address);
    }

    /// Octets on the heap.
    pub(crate) fn heap(&self) -> usize {
        self.dense.capacity() * size_of::<u32>()
            + self.sparse.capacity() * (size_of::<(IpAddr, u32)>() + 1)
    }

    /// Addresses in the hash map.
    pub(crate) fn sparse_len(&self) -> usize {
        self.sparse.len()
    }

    /// Whether an address has an entry of the dense array.
    pub(crate) fn is_dense(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if self.slot(v4).is_some())
    }
}

/// The prefix in which carpet attacks on an address are added up: IPv4 /24, IPv6 /48.
pub(crate) fn carpet(address: IpAddr) -> IpNet {
    let net = match address {
        IpAddr::V4(a) => IpNet::new(Ipv4Addr::from(u32::from(a) & 0xffff_ff00).into(), 24),
        IpAddr::V6(a) => IpNet::new(Ipv6Addr::from(u128::from(a) & !0 << 80).into(), 48),
    };
    net.unwrap_or_else(|_| IpNet::from(address))
}

/// The next wider prefix in which carpet attacks are added up: four bits more, at most what is protected.
/// None where `net` is all that is protected there.
pub(crate) fn wider(net: IpNet, protected: &PrefixSet) -> Option<IpNet> {
    let whole = protected.iter().filter(|p| p.contains(&net)).map(|p| p.prefix_len()).min()?;
    let len = net.prefix_len().saturating_sub(STEP_BITS).max(whole);
    (len < net.prefix_len()).then(|| IpNet::new(net.addr(), len).map_or(net, |n| n.trunc()))
}

/// Bits between two lengths at which carpets are looked for: one over four networks of a step's sixteen
/// shows in both.
const STEP_BITS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_kinds_find_their_place() {
        let nets = ["203.0.113.0/24", "198.51.100.128/25", "2001:db8::/48", "203.0.113.64/26"];
        let set: PrefixSet = nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        let mut table = Table::new(&set);
        let all = ["203.0.113.0", "203.0.113.255", "203.0.113.65", "198.51.100.128", "2001:db8::1"];
        for (place, address) in (0..).zip(all) {
            let address = address.parse().unwrap();
            assert_eq!(table.get(address), NONE);
            table.set(address, place);
        }
        for (place, address) in (0..).zip(all) {
            assert_eq!(table.get(address.parse().unwrap()), place);
        }
        assert_eq!(table.sparse_len(), 1);
        assert_eq!(table.get("198.51.100.1".parse().unwrap()), NONE);
        assert_eq!(carpet("203.0.113.77".parse().unwrap()).to_string(), "203.0.113.0/24");
        assert_eq!(carpet("2001:db8:1:2::3".parse().unwrap()).to_string(), "2001:db8:1::/48");
    }
}
