//! A great many hosts on an ordinary day: no alarm, and memory as promised.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weir_detector::{Config, Detector};
use weir_model::{Class, ClassVolume, HostSlice, Inventory, IpNet, Millis, Slice};

const START: u64 = 18_000_000_000;
/// One packet in so many is sampled.
const RATE: u64 = 1000;

/// A reproducible source of chance.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn detector(net: &str) -> Detector {
    let nets: Vec<IpNet> = vec![net.parse().unwrap()];
    let inventory = Inventory::new(nets.into(), Vec::<IpNet>::new().into(), Vec::new());
    Detector::new(Config::default(), Arc::new(inventory))
}

fn host(i: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + i).into()
}

/// `samples` sampled packets of a host.
fn cell(i: u32, slot: u64, samples: u64) -> HostSlice {
    let mut cell = HostSlice::empty(host(i), slot);
    let packets = samples * RATE;
    cell.inbound[Class::Udp as usize] = ClassVolume { packets, bytes: packets * 300 };
    cell.outbound = ClassVolume { packets, bytes: packets * 500 };
    cell.variance = packets * RATE;
    cell
}

/// 300 idle and 1,000 busy hosts at 1:1000: what an hour of them shows. A whole day is the scenario
/// B20.
#[test]
fn an_hour_of_idle_and_busy_hosts_raises_no_alarm() {
    let mut detector = detector("10.0.0.0/20");
    let (mut chance, mut said) = (Chance(7), Vec::new());
    for slot in START..START + 36_000 {
        let mut slice = Slice { slot, watermark: Millis::from_slot(slot - 20), ..Slice::default() };
        // Packets a second: 1 for an idle host; 10, 20, ... 300 for the busy ones.
        let rates =
            (0..300_u32).map(|i| (i, 1)).chain((0..1000).map(|i| (300 + i, 10 + i % 30 * 10)));
        for (i, packets_per_sec) in rates {
            // Ten thousand times the expected samples of a slot.
            if chance.next() % 10_000 < u64::from(packets_per_sec) {
                slice.hosts.push(cell(i, slot, 1));
            }
        }
        detector.slice(&slice);
        detector.advance(Millis::from_slot(slot + 1), &mut said);
    }
    assert_eq!(detector.counters().alarms, 0);
    assert_eq!(said, []);
    assert!(detector.memory().hosts >= 1200);
}

/// A watched host costs what it must: at a million hosts of which 200,000 are watched, everything
/// together stays below 700 MB.
#[test]
fn a_watched_host_fits_its_memory() {
    const HOSTS: u32 = 2048;
    let mut detector = detector("10.0.0.0/21");
    let mut said = Vec::new();
    for slot in START..START + 1200 {
        let mut slice = Slice { slot, watermark: Millis::from_slot(slot - 20), ..Slice::default() };
        // A sample every two seconds of each: 500 packets a second.
        slice.hosts = (0..HOSTS)
            .filter(|i| u64::from(*i) % 20 == slot % 20)
            .map(|i| cell(i, slot, 1))
            .collect();
        detector.slice(&slice);
        detector.advance(Millis::from_slot(slot + 1), &mut said);
    }
    let memory = detector.memory();
    assert_eq!(memory.hosts, HOSTS as usize);
    // Eight /24 beside the hosts, and the /21 around them.
    assert_eq!(memory.warm, HOSTS as usize + 9);
    let each = (memory.warm_bytes + memory.evidence_bytes) / memory.warm;
    let quiet = memory.hosts_bytes / memory.hosts;
    assert!(each <= 2900, "{each} octets for a watched host: {memory:?}");
    assert!(quiet <= 136, "{quiet} octets for a quiet host: {memory:?}");
    assert_eq!(said, []);
}
