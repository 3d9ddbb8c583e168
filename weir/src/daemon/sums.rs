//! Packets and octets of every host in one second. The core adds each busy host ten times a second:
//! a table of single hosts would miss the cache each time, so neighbours share a page.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use rustc_hash::{FxBuildHasher, FxHashMap};
use weir_model::{HostSlice, prefetch};

/// Hosts of a page: a /24.
const PAGE: usize = 256;
/// Pages at most, 4 KB each: hosts of further networks are kept one by one.
const PAGES_MAX: usize = 4096;
/// Packets and octets.
type Sum = (u64, u64);

/// Sums by host.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pages: Vec<(u32, Box<[Sum; PAGE]>)>,
    /// Where a network's page is.
    by_network: FxHashMap<u32, usize>,
    others: HashMap<IpAddr, Sum, FxBuildHasher>,
}

impl Sums {
    /// Hosts looked up together, so that their cache misses overlap.
    pub(crate) const GROUP: usize = 32;

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.others.is_empty()
    }

    /// Adds what was seen towards [`Self::GROUP`] hosts at most; what routers discarded arrived at the
    /// border all the same.
    pub(crate) fn add(&mut self, group: &[HostSlice]) {
        let mut places = [None; Self::GROUP];
        for (place, host) in places.iter_mut().zip(group) {
            *place = self.place(host.host);
            if let Some((page, at)) = *place {
                prefetch(&self.pages[page].1[at]);
            }
        }
        for (place, host) in places.iter().zip(group) {
            let total = host.total();
            let packets = total.packets.saturating_add(host.dropped.packets);
            let bytes = total.bytes.saturating_add(host.dropped.bytes);
            let sum = match *place {
                Some((page, at)) => &mut self.pages[page].1[at],
                None => self.others.entry(host.host).or_default(),
            };
            *sum = (sum.0.saturating_add(packets), sum.1.saturating_add(bytes));
        }
    }

    /// The page of a host, made while there is room, and its place in it.
    fn place(&mut self, host: IpAddr) -> Option<(usize, usize)> {
        let IpAddr::V4(host) = host else { return None };
        let [a, b, c, last] = host.octets();
        let network = u32::from_be_bytes([a, b, c, 0]);
        let page = match self.by_network.get(&network) {
            Some(page) => *page,
            None if self.pages.len() >= PAGES_MAX => return None,
            None => {
                self.by_network.insert(network, self.pages.len());
                self.pages.push((network, Box::new([(0, 0); PAGE])));
                self.pages.len() - 1
            }
        };
        Some((page, usize::from(last)))
    }

    /// All hosts that carried something.
    pub(crate) fn carried(&self) -> impl Iterator<Item = (IpAddr, Sum)> {
        let paged = self.pages.iter().flat_map(|(network, page)| {
            (*network..).zip(page.iter()).map(|(host, sum)| (Ipv4Addr::from(host).into(), *sum))
        });
        let others = self.others.iter().map(|(host, sum)| (*host, *sum));
        paged.chain(others).filter(|(_, sum)| *sum != (0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::{Class, ClassVolume};

    fn seen(host: IpAddr, packets: u64) -> HostSlice {
        let mut slice = HostSlice::empty(host, 10);
        slice.inbound[Class::Udp as usize] = ClassVolume { packets, bytes: packets * 100 };
        slice.dropped = ClassVolume { packets: 1, bytes: 50 };
        slice
    }

    #[test]
    fn every_host_has_its_own_sum_whether_or_not_there_is_a_page() {
        let mut sums = Sums::default();
        assert!(sums.is_empty());
        let networks = u32::try_from(PAGES_MAX).unwrap() + 10;
        let v4 = (0..networks).map(|n| IpAddr::V4((0x0a00_0007 + (n << 8)).into()));
        let v6 = (0..5_u128).map(|n| IpAddr::V6((0x2001_0db8 << 96 | n).into()));
        let hosts: Vec<HostSlice> = v4.chain(v6).zip(1..).map(|(h, n)| seen(h, n)).collect();
        for group in hosts.chunks(Sums::GROUP).chain(hosts.chunks(Sums::GROUP)) {
            sums.add(group);
        }
        let mut found: Vec<_> = sums.carried().collect();
        found.sort_unstable();
        let mut wanted: Vec<_> = hosts
            .iter()
            .map(|slice| (slice.host, slice.total()))
            .map(|(host, total)| (host, (2 * (total.packets + 1), 2 * (total.bytes + 50))))
            .collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        assert_eq!(sums.pages.len(), PAGES_MAX);
    }
}
