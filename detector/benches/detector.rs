//! What detection costs: `cargo bench -p weir-detector`.
//!
//! One line per figure: name, value, unit, bar. Every record goes to another host, the worst case
//! for caches; the reference line is the same walk over the same slices without a detector.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weir_detector::{Config, Detector};
use weir_model::{
    AllowAlarms, AllowList, AllowLists, Class, ClassVolume, Direction, FarEnd, HostSlice, Inbound,
    Inventory, IpNet, MetricSlice, Millis, OwnMetric, PolicyGroup, Range, Slice, Threshold,
    TotalLimits, TotalThresholds,
};

const HOSTS: u32 = 1 << 20;
const START: u64 = 18_000_000_000;
/// Hosts touched in one slot: half a million records a second.
const TOUCHED: u32 = 50_000;

/// Nanoseconds this process has spent on a core: the machine may be shared.
fn spent() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn inventory() -> Arc<Inventory> {
    let nets: Vec<IpNet> = vec!["10.0.0.0/12".parse().expect("a prefix")];
    Arc::new(Inventory::new(nets.into(), Vec::<IpNet>::new().into(), Vec::new()))
}

fn host(i: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + i % HOSTS).into()
}

/// A slice that touches `count` hosts, scattered, with one flow of ten packets each.
fn slice(slot: u64, from: u32, count: u32) -> Slice {
    let mut slice = Slice { slot, watermark: Millis::from_slot(slot), ..Slice::default() };
    slice.hosts = (from..from + count)
        .map(|i| {
            let mut cell = HostSlice::empty(host(i.wrapping_mul(2_654_435_761)), slot);
            cell.inbound[Class::Udp as usize] = ClassVolume { packets: 10, bytes: 1000 };
            cell.variance = 10;
            cell
        })
        .collect();
    slice
}

/// Resident memory of this process, megabytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    let kb = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}

/// A million hosts known, 200,000 of them watched in detail: 500 packets a second each, sampled one
/// in a thousand, both ways, for so many slots.
fn watching(slots: u64) -> Detector {
    const WARM: u32 = 200_000;
    let mut detector = Detector::new(Config::default(), inventory());
    let mut out = Vec::new();
    let mut slot = START;
    let mut play = |slices: &mut dyn FnMut(u64) -> Vec<HostSlice>, slots: u64| {
        for _ in 0..slots {
            let watermark = Millis::from_slot(slot - 20);
            let slice = Slice { slot, watermark, hosts: slices(slot), ..Slice::default() };
            detector.slice(&slice);
            slot += 1;
            detector.advance(Millis::from_slot(slot), &mut out);
        }
    };
    let known = |slot: u64| {
        let from = u32::try_from(slot - START).unwrap_or(0) * TOUCHED;
        (from..(from + TOUCHED).min(HOSTS)).map(|i| HostSlice::empty(host(i), slot)).collect()
    };
    play(&mut { known }, u64::from(HOSTS.div_ceil(TOUCHED)));
    let busy = |slot: u64| {
        let turn = u32::try_from(slot % 20).unwrap_or(0);
        let mine = (0..WARM).filter(|i| i % 20 == turn);
        mine.map(|i| {
            let mut cell = HostSlice::empty(host(i * 5), slot);
            cell.inbound[Class::Udp as usize] = ClassVolume { packets: 1000, bytes: 300_000 };
            cell.outbound = ClassVolume { packets: 1000, bytes: 500_000 };
            cell.variance = 1_000_000;
            cell
        })
        .collect()
    };
    play(&mut { busy }, slots);
    detector
}

/// What hosts cost in memory.
fn memory() {
    let before = resident();
    let detector = watching(1200);
    let resident = resident() - before;
    let memory = detector.memory();
    let each = |bytes: usize, of: usize| bytes as f64 / of.max(1) as f64;
    println!("memory_each_host {:.0} B 136", each(memory.hosts_bytes, memory.hosts));
    println!("memory_each_watched_host {:.0} B 3000", each(memory.warm_bytes, memory.warm));
    println!(
        "memory_evidence_each_watched_host {:.0} B -",
        each(memory.evidence_bytes, memory.warm)
    );
    println!("memory_watched_hosts {} hosts -", memory.warm);
    println!("memory_accounted {:.0} MB 700", memory.total() as f64 / 1e6);
    println!("memory_resident {resident:.0} MB 700");
}

/// 10,000 groups in a tree of depth 6 over all hosts: one of a /13, then four times one in each half or
/// sixteenth of it, and /32s at the bottom. All set a threshold.
fn groups() -> Vec<PolicyGroup> {
    let mut all: Vec<PolicyGroup> = Vec::new();
    for (len, count) in [(13_u32, 1_u32), (16, 8), (20, 128), (24, 2048), (28, 4096), (32, 3719)] {
        for i in 0..count {
            let net = format!("{}/{len}", Ipv4Addr::from(0x0a00_0000 + (i << (32 - len))));
            let inbound = Inbound {
                packets_per_sec: Some(Threshold::Fixed(f64::from(100_000 + i))),
                multiplier: Some(2.0),
                ..Inbound::default()
            };
            all.push(PolicyGroup {
                name: format!("customer {len} {i}"),
                prefixes: FromIterator::from_iter([net.parse::<IpNet>().expect("a prefix")]),
                inbound: Some(Box::new(inbound)),
                ..PolicyGroup::default()
            });
        }
    }
    all
}

/// What groups cost: to find one, to put others in force, to keep them.
fn regroup() {
    let mut detector = watching(80);
    println!("groups_watched_hosts {} hosts -", detector.memory().warm);
    let before = resident();
    let start = spent();
    let grouped = inventory().as_ref().clone().grouped(groups());
    println!("groups_made_10k {:.1} ms -", (spent() - start) as f64 / 1e6);
    let grouped = Arc::new(grouped);
    let start = spent();
    let found = (0..HOSTS).filter(|i| grouped.policies.at(host(*i).into()).is_some()).count();
    let each = (spent() - start) as f64 / f64::from(HOSTS);
    assert_eq!(found, 1 << 19);
    println!("group_of_a_host {each:.0} ns -");
    let start = spent();
    detector.set_inventory(Arc::clone(&grouped));
    println!("groups_in_force_at_1m_hosts {:.0} ms 1000", (spent() - start) as f64 / 1e6);
    println!("memory_groups_10k {:.1} MB -", resident() - before);
    let depth =
        (0..grouped.policies.groups().len()).map(|at| grouped.policies.values(at).path.len()).max();
    assert_eq!(depth, Some(6));
}

/// What metrics of an operator's own cost 50,000 watched hosts that are all touched in every slot: without any,
/// and with four that mean every host's traffic.
fn own() {
    const WATCHED: u32 = 50_000;
    let patterns = ["udp", "udp dst port 5060", "udp length 60-1500", "udp src port 1024-65535"];
    let pattern = |at: usize| patterns[at % patterns.len()];
    let metric = |at: usize| OwnMetric {
        name: format!("m{at}"),
        packets: pattern(at).parse().expect("a pattern"),
        direction: Direction::Inbound,
        packets_per_sec: Some(Threshold::Auto),
        bits_per_sec: None,
        groups: Vec::new(),
    };
    for count in [0_u8, 4, 16] {
        let metrics: Vec<OwnMetric> = (0..usize::from(count)).map(metric).collect();
        let inventory = Arc::new(inventory().as_ref().clone().measuring(&metrics));
        let mut detector = Detector::new(Config::default(), Arc::clone(&inventory));
        let (mut out, mut took, mut cells) = (Vec::new(), 0, 0_u64);
        for turn in 0..60 {
            let slot = START + turn;
            let mut slice = slice(slot, 0, WATCHED);
            for host in &mut slice.hosts {
                host.inbound[Class::Udp as usize] = ClassVolume { packets: 50, bytes: 5000 };
                host.variance = 50;
            }
            slice.metrics_key = inventory.metrics.key();
            slice.metrics = (0..count)
                .flat_map(|metric| slice.hosts.iter().map(move |of| (metric, of)))
                .map(|(metric, of)| MetricSlice {
                    host: of.host,
                    metric,
                    slot,
                    volume: of.total(),
                    variance: of.variance,
                })
                .collect();
            let start = spent();
            detector.slice(&slice);
            detector.advance(Millis::from_slot(slot + 1), &mut out);
            if turn >= 30 {
                took += spent() - start;
                cells += u64::from(WATCHED);
            }
        }
        assert!(out.is_empty());
        println!("detect_watched_with_{count}_own_metrics {:.1} ns -", took as f64 / cells as f64);
        let memory = detector.memory();
        let each = memory.warm_bytes / memory.warm.max(1);
        println!("memory_watched_with_{count}_own_metrics {each} octets -");
    }
}

/// What a look-up in allow lists costs, of 5,000 prefixes in five lists, for far ends that are on none.
fn allowed() {
    let list = |at: u32| AllowList {
        name: format!("list{at}").parse().expect("a name"),
        prefixes: (0..1000_u32)
            .map(|i| format!("{}/24", Ipv4Addr::from(0x1000_0000 + at * 0x0100_0000 + (i << 9))))
            .map(|net| net.parse::<IpNet>().expect("a prefix"))
            .collect(),
        protocols: vec![6],
        ports: vec![Range::exact(443)],
        source_ports: Vec::new(),
        groups: Vec::new(),
        alarms: AllowAlarms::LeaveOut,
        waits: None,
    };
    let lists = AllowLists::from((0..5).map(list).collect::<Vec<_>>());
    assert_eq!(lists.prefixes(), 5000);
    let far = |i: u32| FarEnd {
        address: u128::from(Ipv4Addr::from(i.wrapping_mul(2_654_435_761)).to_ipv6_mapped()),
        protocol: 6,
        ports: Some((443, 40_000)),
    };
    let start = spent();
    let found = (0..1_000_000).filter(|i| lists.of(&far(*i), |_| true).is_some()).count();
    println!("allowed_far_end {:.0} ns -", (spent() - start) as f64 / 1e6);
    assert!((1..1000).contains(&found), "{found}");
}

/// What totals of groups cost 50,000 hosts that are touched in every slot: none, then 1,024 of them in a tree, all hosts being
/// of a group whose totals are six deep.
fn totals() {
    let (mut took, mut cells) = ([0_u64; 2], 0_u64);
    let mut detectors: Vec<Detector> = [false, true]
        .map(|with| {
            let mut groups = groups();
            groups.truncate(1024);
            for group in groups.iter_mut().filter(|_| with) {
                let inbound = TotalLimits {
                    packets_per_sec: Some(Threshold::Fixed(1e9)),
                    bits_per_sec: Some(Threshold::Auto),
                };
                group.total = Some(TotalThresholds { inbound, ..TotalThresholds::default() });
                group.inbound = None;
            }
            let inventory = Arc::new(inventory().as_ref().clone().grouped(groups));
            Detector::new(Config::default(), inventory)
        })
        .into();
    let mut out = Vec::new();
    for turn in 0..120 {
        let slot = START + turn;
        let slice = slice(slot, 0, TOUCHED);
        for (at, detector) in detectors.iter_mut().enumerate() {
            let start = spent();
            detector.slice(&slice);
            detector.advance(Millis::from_slot(slot + 1), &mut out);
            if turn >= 30 {
                took[at] += spent() - start;
                cells += u64::from(TOUCHED) * at as u64;
            }
        }
    }
    assert_eq!(detectors[1].totals().len(), 1024);
    let each = took.map(|took| took as f64 / cells as f64);
    println!("detect_without_totals {:.1} ns -", each[0]);
    println!("detect_with_1024_totals {:.1} ns {:.1}", each[1], 1.3 * each[0]);
}

fn main() {
    // `cargo bench -p weir-detector -- groups`: these alone; `-- own`: metrics of an operator's own alone; `-- steer`:
    // allow lists and totals.
    if std::env::args().any(|argument| argument == "steer") {
        allowed();
        return totals();
    }
    if std::env::args().any(|argument| argument == "groups") {
        return regroup();
    }
    if std::env::args().any(|argument| argument == "own") {
        return own();
    }
    let mut detector = Detector::new(Config::default(), inventory());
    let mut out = Vec::new();
    let mut slot = START;
    // All hosts become known.
    for from in (0..HOSTS).step_by(TOUCHED as usize) {
        detector.slice(&slice(slot, from, TOUCHED));
        slot += 1;
        detector.advance(Millis::from_slot(slot), &mut out);
    }
    let slices: Vec<Slice> = (0..20).map(|i| slice(0, i * TOUCHED, TOUCHED)).collect();
    let (mut cells, mut took, mut walk) = (0_u64, 0, 0);
    let mut sum = 0_u64;
    for round in 0..3 {
        for mut slice in slices.iter().cloned() {
            slice.slot = slot;
            slice.watermark = Millis::from_slot(slot);
            for host in &mut slice.hosts {
                host.slot = slot;
            }
            let start = spent();
            sum += slice.hosts.iter().map(|h| h.total().packets).sum::<u64>();
            walk += spent() - start;
            let start = spent();
            detector.slice(&slice);
            slot += 1;
            detector.advance(Millis::from_slot(slot), &mut out);
            if round > 0 {
                took += spent() - start;
                cells += u64::from(TOUCHED);
            }
        }
    }
    assert!(sum > 0 && out.is_empty());
    println!("detect_record_at_1m_hosts {:.1} ns 100", took as f64 / cells as f64);
    println!("walk_slices {:.1} ns -", walk as f64 / (cells as f64 * 1.5));
    let start = spent();
    let idle = 600;
    for _ in 0..idle {
        let empty = Slice { slot, watermark: Millis::from_slot(slot), ..Slice::default() };
        detector.slice(&empty);
        slot += 1;
        detector.advance(Millis::from_slot(slot), &mut out);
    }
    let share = (spent() - start) as f64 / 1e9 / (f64::from(idle) * 0.1);
    println!("idle_at_1m_hosts {:.3} %core 2", share * 100.0);
    drop(detector);
    memory();
    regroup();
}
