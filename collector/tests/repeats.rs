//! Two routers that see the same packets, and two that share the traffic between them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod support;

use std::net::SocketAddr;

use support::mutate::Rng;
use support::*;
use weir_collector::{Config, Shard};
use weir_model::{ExporterId, InterfaceRole, Slice};

/// One in how many packets the routers look at.
const SAMPLING: u64 = 1000;
/// Octets of each packet.
const LENGTH: u64 = 1000;
/// Flows of the ordinary traffic, each of a sample in four seconds at each router that sees it.
const FLOWS: u32 = 240;

/// Where a router hears a packet: the router's number and the interface by which it came.
type Hop = (u8, u32);

/// From the edge's uplink through the edge to the second router's link to it.
const THROUGH: [Hop; 2] = [(1, 3), (2, 7)];
/// The other way: servers are behind the second router.
const BACK: [Hop; 2] = [(2, 8), (1, 4)];

/// A flow: its ends and source port.
#[derive(Clone, Copy)]
struct Flow {
    src: [u8; 4],
    dst: [u8; 4],
    port: u16,
}

fn inbound(n: u32) -> Flow {
    let [.., a, b] = n.to_be_bytes();
    Flow { src: [198, 51, a, b], dst: [203, 0, 113, (n % 12) as u8], port: 1000 + b as u16 }
}

struct Network {
    shard: Shard,
    rng: Rng,
    second: u64,
    slice: Slice,
    sequence: u32,
    /// Octets that were sent, and that slices say came in or went out.
    sent: u64,
    counted: u64,
}

impl Network {
    fn new(config: &Config) -> Self {
        Self {
            shard: shard(config),
            rng: Rng(7),
            second: 0,
            slice: Slice::default(),
            sequence: 0,
            sent: 0,
            counted: 0,
        }
    }

    /// The samples that a hop takes of a flow in this second, four at most.
    fn samples(&mut self, flow: Flow, per_16_secs: usize) -> Vec<Vec<u8>> {
        let drawn = (0..4).filter(|_| self.rng.below(64) < per_16_secs).count();
        let record = bytes().raw(&flow.src).raw(&flow.dst).u16(flow.port).u16(30120).u8(17);
        (0..drawn).map(|_| record.clone().0).collect()
    }

    fn export(&mut self, (router, interface): Hop, flows: &[Vec<u8>]) {
        let fields = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (1, 4), (2, 4), (34, 4)];
        let define = set(2, &template(256, &iana(&fields)));
        for some in flows.chunks(40) {
            let tail = bytes().u32(interface).u32(LENGTH as u32).u32(1).u32(SAMPLING as u32).0;
            let data: Vec<u8> = some.iter().flat_map(|f| [f.as_slice(), &tail].concat()).collect();
            let now = NOW + self.second * 1000;
            let from = SocketAddr::from(([192, 0, 2, router], 2055));
            let secs = u32::try_from(now.secs()).unwrap();
            let sets = [define.clone(), set(256, &data)];
            let message = ipfix_at(secs, self.sequence, 1, &sets);
            self.sequence += some.len() as u32;
            self.shard.datagram(from, &message, now).unwrap();
        }
    }

    /// Lets a second pass in which each flow takes its path.
    fn second(&mut self, traffic: &[(Flow, &[Hop])], flood: Option<(u32, &[Hop])>) {
        let mut hops: Vec<(Hop, Vec<Vec<u8>>)> = Vec::new();
        let mut add = |hop: Hop, samples: Vec<Vec<u8>>| match hops
            .iter_mut()
            .find(|(known, _)| *known == hop)
        {
            Some((_, all)) => all.extend(samples),
            None => hops.push((hop, samples)),
        };
        for (flow, path) in traffic {
            for hop in *path {
                let samples = self.samples(*flow, 4);
                add(*hop, samples);
            }
            self.sent += SAMPLING * LENGTH / 4;
        }
        if let Some((samples, path)) = flood {
            // Every packet of a source of its own: the routers see different ones.
            for hop in path {
                for _ in 0..samples {
                    let [a, b, c, d, ..] = self.rng.next().to_be_bytes();
                    let flow = Flow { src: [a, b, c, d], dst: [203, 0, 113, 5], port: 53 };
                    let all = self.samples(flow, 64);
                    add(*hop, all[..1].to_vec());
                }
            }
            self.sent += u64::from(samples) * SAMPLING * LENGTH;
        }
        for (hop, samples) in hops {
            self.export(hop, &samples);
        }
        let slot = (NOW + self.second * 1000).slot();
        self.shard.seal(slot, &mut self.slice);
        let of = |slice: &Slice| -> u64 {
            slice.hosts.iter().map(|h| h.total().bytes + h.outbound.bytes).sum()
        };
        self.counted += of(&self.slice);
        self.second += 1;
    }

    /// What is counted of what is sent in so many seconds.
    fn share(
        &mut self,
        seconds: u64,
        traffic: &[(Flow, &[Hop])],
        flood: Option<(u32, &[Hop])>,
    ) -> f64 {
        (self.sent, self.counted) = (0, 0);
        for _ in 0..seconds {
            self.second(traffic, flood);
        }
        self.counted as f64 / self.sent as f64
    }

    /// Which exporter an interface repeats.
    fn repeats(&self, (router, interface): Hop) -> Option<ExporterId> {
        let address = SocketAddr::from(([192, 0, 2, router], 0)).ip();
        let all = self.shard.exporters();
        let exporter = all.iter().find(|e| e.address == address).unwrap();
        exporter.interfaces.iter().find(|i| i.index == interface).unwrap().repeats
    }
}

fn through() -> Vec<(Flow, &'static [Hop])> {
    (0..FLOWS).map(|n| (inbound(n), &THROUGH[..])).collect()
}

#[test]
fn a_packet_that_two_routers_report_counts_once() {
    let mut network = Network::new(&config());
    let mut traffic = through();
    for n in 0..FLOWS {
        let Flow { src, dst, port } = inbound(n);
        traffic.push((Flow { src: dst, dst: src, port: port ^ 1 }, &BACK[..]));
    }
    let at_first = network.share(60, &traffic, None);
    assert!(at_first > 1.8, "{at_first}: nothing is known of the routers yet");
    network.share(180, &traffic, None);
    let learned = network.share(120, &traffic, None);
    assert!((0.95..1.1).contains(&learned), "{learned}");
    let status = network.shard.exporters();
    assert_eq!(network.repeats(THROUGH[1]), Some(status[0].id));
    assert_eq!((network.repeats(BACK[0]), network.repeats(BACK[1])), (Some(status[0].id), None));
    // One of the two routers has what was left out, and says so.
    assert!(status.iter().map(|e| e.duplicates).sum::<u64>() > 10_000);
    let role = |router: usize, index| {
        let all = &status[router].interfaces;
        all.iter().find(|i| i.index == index).unwrap().role
    };
    assert_eq!((role(0, 3), role(0, 4)), (InterfaceRole::External, InterfaceRole::Internal));
    assert_eq!((role(1, 7), role(1, 8)), (InterfaceRole::External, InterfaceRole::Internal));
}

#[test]
fn two_edges_that_share_the_traffic_both_count() {
    let mut network = Network::new(&config());
    let traffic: Vec<(Flow, &[Hop])> =
        (0..FLOWS).map(|n| (inbound(n), &THROUGH[n as usize % 2..][..1])).collect();
    let share = network.share(400, &traffic, None);
    assert!((0.97..1.03).contains(&share), "{share}");
    assert!(network.shard.exporters().iter().all(|e| e.duplicates == 0));
}

#[test]
fn a_flood_past_the_edge_counts_at_once_and_in_full() {
    let mut network = Network::new(&config());
    let traffic = through();
    network.share(300, &traffic, None);
    assert!(network.repeats(THROUGH[1]).is_some());
    let flood = Some((1000, &THROUGH[1..]));
    let first = network.share(1, &traffic, flood);
    assert!(first > 0.9, "{first} of the first second");
    let share = network.share(20, &traffic, flood);
    assert!((0.9..1.1).contains(&share), "{share}");
}

#[test]
fn a_flood_through_both_counts_once_from_its_second_second_on() {
    let mut network = Network::new(&config());
    let traffic = through();
    network.share(300, &traffic, None);
    let flood = Some((1000, &THROUGH[..]));
    network.share(1, &traffic, flood);
    let share = network.share(30, &traffic, flood);
    assert!((0.95..1.1).contains(&share), "{share}");
}

#[test]
fn what_the_operator_calls_external_counts_before_what_was_learned() {
    let mut config = config();
    let mut second = config.exporters[0].clone();
    second.address = "192.0.2.2/32".parse().unwrap();
    second.external_interfaces = vec![7];
    config.exporters.push(second);
    let mut network = Network::new(&config);
    let traffic = through();
    network.share(300, &traffic, None);
    let share = network.share(60, &traffic, None);
    assert!((0.9..1.1).contains(&share), "{share}");
    assert_eq!(network.repeats(THROUGH[1]), None);
    assert!(network.repeats(THROUGH[0]).is_some());
}
