//! Whole stories in virtual time, small ones.

#![expect(clippy::cast_possible_truncation, reason = "made-up numbers")]

mod allowed;
mod answered;
mod blind;
mod carpet;
mod crowd;
mod foreknown;
mod groups;
mod life;
mod operator;
mod ordinary;
mod own;
mod totals;
mod vanished;
mod waited;

use std::net::IpAddr;
use std::sync::Arc;

use weir_model::{
    Class, ClassVolume, Direction, Family, FlowRecord, HostSlice, Inventory, IpNet, MetricSlice,
    Millis, Phase, Sample, Service, ServiceSlice, Slice, Verdict,
};

use crate::watch::packets::tests::sample;
use crate::{Config, Detector};

const START: u64 = 1_795_000_000;

/// A detector with a clock and a tiny collector: records in, slices out.
struct World {
    detector: Detector,
    inventory: Arc<Inventory>,
    slot: u64,
    records: Vec<FlowRecord>,
    said: Vec<Verdict>,
    shards: u16,
    /// Slots by which the watermark lags.
    lag: u64,
}

fn service(protocol: u8, port: u16) -> Service {
    Service {
        address: "203.0.113.7".parse().unwrap(),
        protocol,
        port,
        name: "lobby".into(),
        game: "minecraft".into(),
    }
}

impl World {
    fn new(shards: u16) -> Self {
        let nets: Vec<IpNet> =
            vec!["203.0.113.0/24".parse().unwrap(), "2001:db8:113::/48".parse().unwrap()];
        let services = vec![service(6, 25_565), service(17, 28_015)];
        let inventory = Arc::new(Inventory::new(nets.into(), Vec::<IpNet>::new().into(), services));
        Self {
            detector: Detector::new(Config::default(), Arc::clone(&inventory)),
            inventory,
            slot: START * 10,
            records: Vec::new(),
            said: Vec::new(),
            shards,
            lag: 5,
        }
    }

    /// One packet of each of `n` sources, sampled 1:1000.
    fn send(&mut self, n: u32, make: impl Fn(u32) -> Sample) {
        self.records.extend((0..n).map(|i| make(i).record));
    }

    fn tick(&mut self) {
        let records = std::mem::take(&mut self.records);
        for shard in (0..self.shards).rev() {
            let mut slice = Slice {
                metrics_key: self.inventory.metrics.key(),
                shard,
                slot: self.slot,
                watermark: Millis::from_slot(self.slot.saturating_sub(self.lag)),
                ..Slice::default()
            };
            for (i, record) in records.iter().enumerate() {
                if i % usize::from(self.shards) == usize::from(shard) {
                    self.account(&mut slice, record);
                }
            }
            self.detector.slice(&slice);
        }
        self.slot += 1;
        self.detector.advance(Millis::from_slot(self.slot), &mut self.said);
    }

    fn account(&self, slice: &mut Slice, record: &FlowRecord) {
        for (host, way) in [(record.dst, Direction::Inbound), (record.src, Direction::Outbound)] {
            self.account_own(slice, record, host, way);
        }
        if self.inventory.protected.contains(record.src) {
            let host = match slice.hosts.iter_mut().find(|h| h.host == record.src) {
                Some(host) => host,
                None => {
                    slice.hosts.push(HostSlice::empty(record.src, slice.slot));
                    slice.hosts.last_mut().unwrap()
                }
            };
            host.outbound.add(ClassVolume {
                packets: record.scaled_packets(),
                bytes: record.scaled_bytes(),
            });
            slice.samples.push(Sample { record: *record, weight: 1 });
            return;
        }
        let host = match slice.hosts.iter_mut().find(|h| h.host == record.dst) {
            Some(host) => host,
            None => {
                slice.hosts.push(HostSlice::empty(record.dst, slice.slot));
                slice.hosts.last_mut().unwrap()
            }
        };
        let volume = ClassVolume { packets: record.scaled_packets(), bytes: record.scaled_bytes() };
        let variance = record.scaled_packets() * u64::from(record.sampling);
        host.inbound[Class::of(record) as usize].add(volume);
        host.variance += variance;
        if self.inventory.service(record.dst, record.protocol, record.dst_port).is_some() {
            slice.services.push(ServiceSlice {
                host: record.dst,
                protocol: record.protocol,
                port: record.dst_port,
                slot: slice.slot,
                inbound: volume,
                outbound: ClassVolume::default(),
                variance,
                sources: 0,
            });
        }
        slice.samples.push(Sample { record: *record, weight: 1 });
    }

    fn account_own(&self, slice: &mut Slice, record: &FlowRecord, host: IpAddr, way: Direction) {
        let patterns = self.inventory.metrics.compile(way);
        for (bit, _) in patterns.into_iter().filter(|(_, pattern)| pattern.holds(record)) {
            let (packets, bytes) = (record.scaled_packets(), record.scaled_bytes());
            slice.metrics.push(MetricSlice {
                host,
                metric: bit.trailing_zeros() as u8,
                slot: slice.slot,
                volume: ClassVolume { packets, bytes },
                variance: packets * u64::from(record.sampling),
            });
        }
    }

    /// `seconds` of players: ten sampled packets a second of varying length on the game port.
    fn play(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.players();
            self.tick();
        }
    }

    fn players(&mut self) {
        let slot = self.slot as u32;
        self.send(1, |_| player(slot));
    }

    fn opened(&self) -> Vec<&Verdict> {
        self.said.iter().filter(|v| v.phase == Phase::Opened).collect()
    }
}

fn player(i: u32) -> Sample {
    let mixed = i.wrapping_mul(2_654_435_761) >> 7;
    sample(
        0x0a00_0000 + i % 40,
        40_000 + (mixed % 9000) as u16,
        17,
        28_015,
        50 + (mixed % 300) as u16,
    )
}

fn syn(i: u32) -> Sample {
    let mut s = sample(i.wrapping_mul(2_654_435_761), 1024 + (i % 60_000) as u16, 6, 25_565, 40);
    s.record.tcp_flags = 2;
    s
}

#[test]
fn players_never_alarm() {
    let mut world = World::new(1);
    world.play(400);
    assert_eq!(world.said, []);
}

#[test]
fn a_syn_flood_is_named_cut_and_ended() {
    let mut world = World::new(1);
    world.play(400);
    let from = world.slot;
    for t in 0..100_u32 {
        world.players();
        world.send(20, |i| syn(t * 20 + i));
        world.tick();
    }
    let opened = world.opened();
    assert_eq!(opened.len(), 1, "{:?}", world.said);
    let first = opened[0];
    assert!(first.at.slot() - from <= 3, "{}", first.at.slot() - from);
    assert_eq!(first.family, Family::SynFlood);
    assert_eq!(first.vectors[0].subtype, "syn-flood");
    assert!(first.separable && first.confidence >= 70 && first.evidence_groups >= 2, "{first:?}");
    assert_eq!(
        first.candidates[0].packets.to_string(),
        "dst 203.0.113.7/32 proto 6 tcp-flags SYN/SYN+ACK length 40"
    );
    assert!(first.candidates[0].collateral <= 0.01);
    assert!(first.summary.starts_with("SYN flood, "), "{}", first.summary);
    let told = "sources to 203.0.113.7:25565 (minecraft, server 'lobby'), packets of 40 bytes; ";
    assert!(first.summary.contains(told), "{}", first.summary);
    assert!(!first.summary.contains("spoofed"), "after a tenth of a second few are seen");
    let later = &world.said[5].summary;
    assert!(later.contains(&format!("00 spoofed {told}")), "{later}");
    let count = world.said.len();
    assert!((9..=14).contains(&count), "about one a second: {count}");
    let end = world.slot;
    world.play(60);
    let last = world.said.last().unwrap();
    assert_eq!(last.phase, Phase::Ended);
    assert!((300..340).contains(&(last.at.slot() - end)), "{}", last.at.slot() - end);
    assert!(world.said.iter().all(|v| v.incident == last.incident));
}

#[test]
fn reflections_are_told_at_once_even_on_a_cold_start() {
    let mut world = World::new(1);
    for t in 0..20_u32 {
        world.players();
        world.send(10, |i| sample(t * 10 + i % 300, 123, 17, 28_015, 468));
        world.tick();
    }
    let opened = world.opened();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].family, Family::UdpFlood);
    assert_eq!(opened[0].vectors[0].subtype, "ntp-amplification");
    assert!(opened[0].separable, "{:?}", opened[0]);
    assert!(opened[0].candidates[0].packets.to_string().contains("sport 123"));
    let told = " sources to 203.0.113.7:28015 (minecraft, server 'lobby'), packets of 468 bytes; ";
    assert!(opened[0].summary.contains(told), "{}", opened[0].summary);
    assert!(!opened[0].summary.contains("spoofed"), "reflectors are real");
}

#[test]
fn more_of_the_same_players_is_no_reason_to_filter() {
    let mut world = World::new(1);
    world.play(900);
    for t in 0..600_u32 {
        world.send(6, |i| player(t * 6 + i + 77_777));
        world.tick();
    }
    for verdict in &world.said {
        assert!(!verdict.separable && verdict.confidence < 70, "{verdict:?}");
    }
}

#[test]
fn one_shard_or_eight_say_the_same() {
    let story = |shards| {
        let mut world = World::new(shards);
        world.play(100);
        for t in 0..50_u32 {
            world.players();
            world.send(30, |i| syn(t * 30 + i));
            world.send(5, |i| {
                let mut s = player(t * 5 + i);
                s.record.dst = IpAddr::from([203, 0, 113, 9]);
                s
            });
            world.tick();
        }
        world.play(40);
        assert!(!world.said.is_empty());
        world.said
    };
    assert_eq!(story(1), story(8));
}

#[test]
fn an_open_incident_goes_on_after_a_restart_and_ends() {
    let mut world = World::new(1);
    world.play(400);
    for t in 0..20_u32 {
        world.send(20, |i| syn(t * 20 + i));
        world.tick();
    }
    let verdict = world.said.last().unwrap().clone();
    let incident = Arc::new(weir_model::Incident {
        group: None,
        id: verdict.incident,
        state: weir_model::IncidentState::Open,
        opened: verdict.at,
        closed: None,
        verdict: verdict.clone(),
        rung: None,
        reached: None,
        held: false,
        mitigations: Vec::new(),
        timeline: Vec::new(),
    });
    let mut next = World::new(1);
    next.slot = world.slot + 20;
    next.detector.resume(&[incident]);
    for t in 0..20_u32 {
        next.send(20, |i| syn(t * 20 + i));
        next.tick();
    }
    assert!(next.said.iter().all(|v| v.incident == verdict.incident && v.phase == Phase::Ongoing));
    assert!(!next.said.is_empty());
    next.play(45);
    assert_eq!(next.said.last().unwrap().phase, Phase::Ended);
}

#[test]
fn a_checkpoint_brings_baselines_back() {
    let mut world = World::new(1);
    world.play(400);
    let host = "203.0.113.7".parse().unwrap();
    let before = world.detector.host_view(host).unwrap();
    assert!(before.watched && !before.learning);
    let mut next = World::new(1);
    next.detector.restore(world.detector.checkpoint(), Millis::from_slot(world.slot));
    let after = next.detector.host_view(host).unwrap();
    assert!(!after.learning);
    assert_eq!(before.baselines[0].level, after.baselines[0].level);
    // What is normal for its service and its prefix comes back as well.
    let level = |world: &World| {
        let key = (world.detector.table.get(host), 17, 28_015);
        let prefix = world.detector.prefixes[&"203.0.113.0/24".parse().unwrap()];
        let prefix = world.detector.warm[prefix as usize].as_ref().unwrap();
        let service = &world.detector.services[&key];
        [&service.series, &prefix.series].map(|s| s.level(crate::watch::metric::PACKETS))
    };
    assert_eq!(level(&world), level(&next));
    assert!(level(&next).iter().all(|level| *level > 5000.0), "{:?}", level(&next));
}

#[test]
fn players_beside_a_flood_are_kept_though_their_packets_are_alike() {
    // One player's flow, sixteen packets a slot that differ in nothing: they must not share one fate.
    let host: IpAddr = "203.0.113.7".parse().unwrap();
    let kept: Vec<u32> = (0..24)
        .map(|seed: u32| {
            let mut world = World::new(1);
            world.play(60);
            for slot in 0..20 {
                world.send(16, |_| sample(9, 40_000 + seed as u16, 17, 28_015, 128));
                let first = seed * 100_000 + slot * 1000;
                world.send(400, |i| sample(first + i, 123, 17, 4000, 468));
                world.tick();
            }
            let warm = world.detector.warm_of(IpNet::from(host)).expect("a busy host");
            let now = warm.profile.latest(world.slot, 20);
            now.iter().filter(|p| p.dst_port == 28_015).count() as u32
        })
        .collect();
    // About a twenty-second part of all is kept: of 320 packets, 15 in the mean.
    let mean = f64::from(kept.iter().sum::<u32>()) / 24.0;
    assert!((12.0..18.0).contains(&mean), "{kept:?}");
    assert!(kept.iter().all(|n| (3..=30).contains(n)), "{kept:?}");
}

/// A second of each twenty in which a service is busy is normal for it, though it is silent before
/// that second is closed.
#[test]
fn bursts_of_a_service_that_falls_silent_become_normal() {
    let mut world = World::new(1);
    for second in 0..700_u32 {
        for slot in 0..10 {
            if second % 20 == 0 {
                world.send(3, |i| player(second * 100 + slot * 10 + i));
            }
            world.tick();
        }
    }
    assert_eq!(world.said, []);
    let key = (world.detector.table.get("203.0.113.7".parse().unwrap()), 17, 28_015);
    let level = world.detector.services[&key].series.level(crate::watch::metric::PACKETS);
    assert!((25_000.0..35_000.0).contains(&level), "{level}");
}

/// A busy service whose thresholds are far away: strangers in great numbers give a flood away.
#[test]
fn strangers_beside_many_players_are_an_alarm() {
    let mut world = World::new(1);
    world.detector.config.floors.new_sources_per_sec = 30.0;
    let busy = |world: &mut World, slot: u32| world.send(4, |i| player(slot * 4 + i));
    for slot in 0..4000 {
        busy(&mut world, slot);
        world.tick();
    }
    assert!(world.said.is_empty());
    let host: IpAddr = "203.0.113.7".parse().unwrap();
    let view = world.detector.host_view(host).unwrap();
    let of = |metric| view.baselines.iter().find(|b| b.metric == metric).unwrap();
    assert!(of(weir_model::Metric::PacketsPerSec).threshold > 110_000.0);
    assert!(of(weir_model::Metric::SourcesPerSec).level < 5.0, "forty players come back");
    // Twice as many packets more, each from another address.
    let flood = |i: u32| sample(i.wrapping_mul(2_654_435_761), 999, 17, 28_015, 700);
    let from = world.slot;
    for slot in 4000..4100 {
        busy(&mut world, slot);
        world.send(6, |i| flood(slot * 6 + i));
        world.tick();
    }
    let opened = world.opened();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].reason.metric, weir_model::Metric::SourcesPerSec);
    assert!(opened[0].separable);
    assert!(opened[0].at.slot() - from <= 30, "{}", opened[0].at.slot() - from);
    // They go on, with small packets, and are strangers no more: it is not over for that.
    let known = |i: u32| sample((i % 60).wrapping_mul(2_654_435_761), 999, 17, 28_015, 60);
    for slot in 4100..4700 {
        busy(&mut world, slot);
        world.send(6, |i| known(slot * 6 + i));
        world.tick();
    }
    assert!(world.said.iter().all(|v| v.phase != Phase::Ended));
}

#[test]
fn how_players_fare_is_told_after_the_attack_too() {
    let mut world = World::new(1);
    world.play(400);
    let target = IpNet::from("203.0.113.7".parse::<IpAddr>().unwrap());
    for t in 0..50_u32 {
        world.players();
        world.send(20, |i| syn(t * 20 + i));
        world.tick();
    }
    world.play(45);
    assert_eq!(world.said.last().unwrap().phase, Phase::Ended);
    let normal = world.detector.legitimate(target).expect("its normal is known");
    assert!(normal.now.bits_per_sec >= 0.5 * normal.normal.bits_per_sec, "{normal:?}");
    // Ten packets a second, one in a thousand seen.
    assert!((5.0..20.0).contains(&normal.expected_samples), "{normal:?}");
    for _ in 0..50 {
        world.tick();
    }
    let silent = world.detector.legitimate(target).unwrap();
    assert_eq!(silent.now.bits_per_sec, 0.0, "nothing arrives, and nothing says so");
    assert!((5.0..20.0).contains(&silent.expected_samples), "{silent:?}");
    // Of a host just met nothing is known.
    assert_eq!(world.detector.legitimate("203.0.113.8/32".parse().unwrap()), None);
}
