//! The same flows over one shard or eight give the same slice.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use support::*;
use weir_collector::{Registry, Shard};
use weir_model::{HostSlice, LongFlow, Sample, ServiceSlice, Slice};

/// What slices say together, in an order of its own.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    hosts: BTreeMap<(IpAddr, u64), HostSlice>,
    services: BTreeMap<(IpAddr, u8, u16, u64), ServiceSlice>,
    long_flows: Vec<LongFlow>,
    samples: Vec<Sample>,
}

impl Sum {
    fn add(&mut self, slice: &Slice) {
        for host in &slice.hosts {
            let empty = HostSlice::empty(host.host, host.slot);
            let sum = self.hosts.entry((host.host, host.slot)).or_insert(empty);
            for (sum, own) in sum.inbound.iter_mut().zip(&host.inbound) {
                sum.add(*own);
            }
            sum.outbound.add(host.outbound);
            sum.outbound_syn += host.outbound_syn;
            sum.dropped.add(host.dropped);
            sum.variance += host.variance;
            sum.sources |= host.sources;
        }
        for service in &slice.services {
            let key = (service.host, service.protocol, service.port, service.slot);
            match self.services.get_mut(&key) {
                None => {
                    self.services.insert(key, *service);
                }
                Some(sum) => {
                    sum.inbound.add(service.inbound);
                    sum.outbound.add(service.outbound);
                    sum.variance += service.variance;
                    sum.sources |= service.sources;
                }
            }
        }
        self.long_flows.extend(&slice.long_flows);
        self.long_flows.sort_by_key(|f| (f.host, f.start, f.end, f.volume.bytes));
        self.samples.extend(&slice.samples);
        self.samples.sort();
    }
}

fn datagrams() -> Vec<(SocketAddr, Vec<u8>)> {
    let mut state = 1_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    (0..400)
        .map(|n| {
            let from = SocketAddr::from(([192, 0, 2, (n % 16) as u8], 2055));
            let records: Vec<_> = (0..20)
                .map(|_| {
                    let dst = [203, 0, 113, (next() % 16) as u8];
                    let port = [30120, 25565, 80][(next() % 3) as usize];
                    let last = 100_000 - next() % 4000;
                    let first = last - next() % 1500;
                    v5_record(next().to_be_bytes(), dst, port, first, last)
                })
                .collect();
            (from, v5(100_000, 100, n, &records))
        })
        .collect()
}

fn over(shards: usize) -> Sum {
    let registry = Arc::new(Registry::default());
    let mut all: Vec<_> = (0..shards)
        .map(|n| Shard::new(n as u16, &config(), inventory(), Arc::clone(&registry)))
        .collect();
    // Numbers of exporters follow the order in which they are first heard.
    for (from, datagram) in datagrams() {
        let IpAddr::V4(address) = from.ip() else { unreachable!() };
        let shard = usize::from(address.octets()[3]) % shards;
        all[shard].datagram(from, &datagram, NOW).unwrap();
    }
    let mut sum = Sum::default();
    for shard in &mut all {
        let mut slice = Slice::default();
        shard.seal(NOW.slot(), &mut slice);
        sum.add(&slice);
    }
    sum
}

#[test]
fn one_shard_is_eight_shards() {
    let one = over(1);
    assert_eq!(one.samples.len(), 8000);
    assert!(one.hosts.len() > 16 && !one.services.is_empty() && !one.long_flows.is_empty());
    assert_eq!(one, over(8));
}

#[test]
fn a_thinned_sample_still_stands_for_all() {
    let mut config = config();
    config.max_samples_per_slice = 1000;
    let mut shard = shard(&config);
    for (from, datagram) in datagrams() {
        shard.datagram(from, &datagram, NOW).unwrap();
    }
    let mut slice = Slice::default();
    shard.seal(NOW.slot(), &mut slice);
    assert!(slice.samples.len() <= 1000);
    let stands_for: u64 = slice.samples.iter().map(|s| u64::from(s.weight)).sum();
    assert!((7000..9000).contains(&stands_for), "{stands_for}");
}
