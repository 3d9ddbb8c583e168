//! Protected prefixes as sorted, disjoint ranges: is an address protected, and which number has it.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_model::PrefixSet;

/// Most protected IPv4 addresses that get a place of their own in the dense index; the others
/// share the bounded map of a slice. A /10 of 16 octets each.
const MAX_DENSE: u32 = 1 << 22;

/// Where a protected address is accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its own place in the dense index.
    Dense(u32),
    /// In the map of the slice.
    Mapped,
}

/// Look-up of protected addresses.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// First address, last address, number of the first; sorted.
    v4: Vec<(u32, u32, Option<u32>)>,
    v6: Vec<(u128, u128)>,
    dense: u32,
}

impl Ranges {
    pub(super) fn new(protected: &PrefixSet) -> Self {
        let mut v4: Vec<(u32, u32)> = Vec::new();
        let mut v6: Vec<(u128, u128)> = Vec::new();
        for net in protected.iter() {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        let mut dense = 0_u32;
        let v4 = disjoint(v4)
            .into_iter()
            .map(|(first, last)| {
                let size = u64::from(last - first) + 1;
                let base = u32::try_from(u64::from(dense) + size)
                    .ok()
                    .filter(|end| *end <= MAX_DENSE)
                    .map(|end| std::mem::replace(&mut dense, end));
                (first, last, base)
            })
            .collect();
        Self { v4, v6: disjoint(v6), dense }
    }

    /// How many addresses have a place in the dense index.
    pub(super) fn dense(&self) -> u32 {
        self.dense
    }

    /// The address with a number below [`Ranges::dense`]. Taken by reference: an address copied whole
    /// just after it was written in parts waits for its parts.
    #[inline]
    pub(super) fn place(&self, address: &IpAddr) -> Option<Place> {
        match address {
            IpAddr::V4(address) => self.place_v4(address.to_bits()),
            IpAddr::V6(address) => self.place_v6(address.to_bits()),
        }
    }

    #[inline]
    fn place_v4(&self, address: u32) -> Option<Place> {
        let (first, last, base) = match self.v4.as_slice() {
            [only] => *only,
            ranges => {
                let after = ranges.partition_point(|(first, ..)| *first <= address);
                *ranges.get(after.checked_sub(1)?)?
            }
        };
        if address < first || address > last {
            return None;
        }
        Some(base.map_or(Place::Mapped, |base| Place::Dense(base + (address - first))))
    }

    fn place_v6(&self, address: u128) -> Option<Place> {
        let after = self.v6.partition_point(|(first, _)| *first <= address);
        let (_, last) = self.v6.get(after.checked_sub(1)?)?;
        (address <= *last).then_some(Place::Mapped)
    }
}

/// Prefixes either nest or are apart: sorted by first address, a range inside the one before it
/// can go.
fn disjoint<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if out.last().is_none_or(|last| range.1 > last.1) {
            out.push(range);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_nested_prefixes_count_once() {
        let nets = ["10.0.0.0/30", "10.0.0.2/32", "192.0.2.0/31", "2001:db8::/32", "44.0.0.0/8"];
        let set = nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        let ranges = Ranges::new(&set);
        let check = |address: &str, place| {
            assert_eq!(ranges.place(&address.parse().unwrap()), place, "{address}");
        };
        assert_eq!(ranges.dense(), 6);
        check("9.255.255.255", None);
        check("10.0.0.0", Some(Place::Dense(0)));
        check("10.0.0.3", Some(Place::Dense(3)));
        check("10.0.0.4", None);
        check("192.0.2.1", Some(Place::Dense(5)));
        check("44.1.2.3", Some(Place::Mapped));
        check("2001:db8:ffff::1", Some(Place::Mapped));
        check("2001:db9::", None);
    }
}
