//! Memory: none is taken after warm-up, and never more than a stated bound.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(unsafe_code, reason = "an allocator that counts must implement GlobalAlloc")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use support::*;
use weir_collector::{Config, ExporterConfig, Registry, Shard};
use weir_model::{Inventory, Slice};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// Counts what each thread takes and gives back.
struct Counting;

fn count(calls: u64, octets: i64) {
    // A thread that is ending has no counters any more.
    let _ = CALLS.try_with(|c| c.set(c.get() + calls));
    let _ = LIVE.try_with(|l| l.set(l.get() + octets));
}

fn size(layout: Layout) -> i64 {
    i64::try_from(layout.size()).unwrap_or(i64::MAX)
}

// SAFETY: everything is handed on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, size(layout));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -size(layout));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets that `f` leaves allocated.
fn held<T>(f: impl FnOnce() -> T) -> (T, i64) {
    let before = LIVE.with(Cell::get);
    let value = f();
    (value, LIVE.with(Cell::get) - before)
}

/// One datagram of every kind, templates and options with the data.
fn mixture() -> Vec<Vec<u8>> {
    let v5_records: Vec<_> =
        (0..30).map(|n| v5_record([198, 51, 100, n], [203, 0, 113, n], 30120, 900, 950)).collect();
    let base = [(8, 4), (12, 4), (4, 1), (1, 4), (2, 4)];
    let record =
        |n: u8| bytes().raw(&[198, 51, 100, n]).raw(&[203, 0, 113, n]).u8(17).u32(1000).u32(10).0;
    let data: Vec<u8> = (0..20).flat_map(record).collect();
    let options = options_template(300, 1, &iana(&[(302, 2), (304, 1), (309, 4), (310, 4)]));
    let option = bytes().u16(1).u8(3).u32(1).u32(100).0;
    let varying = [&base[..], &[(96, 65535)]].concat();
    let named: Vec<u8> = (0..20).flat_map(|n| bytes().raw(&record(n)).u8(2).u16(7).0).collect();
    let sets = [
        set(2, &template(256, &iana(&base))),
        set(3, &options),
        set(300, &option),
        set(256, &data),
        set(2, &template(257, &iana(&varying))),
        set(257, &named),
        set(999, &data),
    ];
    let v9_sets = [set(0, &template(256, &iana(&base))), set(256, &data)];
    let packet = |n| ipv4(17, [198, 51, 100, n], [203, 0, 113, n], &udp(53, 9, &[0; 40]));
    let samples: Vec<_> = (0..7)
        .map(|n| {
            let header = raw_header(1, 120, &ethernet(0x0800, &packet(n)));
            flow_sample(u32::from(n), 100, u32::from(n) * 100, &[header])
        })
        .collect();
    let six = ethernet(0x86dd, &ipv6(17, 1, 2, &udp(1, 2, &[])));
    let six = flow_sample(9, 100, 900, &[raw_header(1, 66, &six)]);
    vec![
        v5(1000, 100, 1, &v5_records),
        v9(1000, 1, 1, &v9_sets),
        ipfix(1, 1, &sets),
        sflow(1, &samples),
        sflow(2, &[six]),
        vec![0, 5, 0],
    ]
}

#[test]
fn nothing_is_allocated_after_warm_up() {
    let mut shard = shard(&config());
    let datagrams = mixture();
    // Two slices on their way while a third one fills.
    let mut slices = [Slice::default(), Slice::default()];
    let mut round = |shard: &mut Shard, slot: u64| {
        let now = NOW + slot * 100;
        for _ in 0..10 {
            for datagram in &datagrams {
                let _ = shard.datagram(router(), datagram, now);
            }
        }
        shard.seal(now.slot(), &mut slices[usize::try_from(slot % 2).unwrap()]);
    };
    for slot in 0..700 {
        round(&mut shard, slot);
    }
    let before = CALLS.with(Cell::get);
    for slot in 700..800 {
        round(&mut shard, slot);
    }
    // The test parses the router's address for each datagram, which takes nothing.
    assert_eq!(CALLS.with(Cell::get) - before, 0);
    assert!(shard.counters().flows > 1_000_000 / 100);
}

fn million() -> Arc<Inventory> {
    let net: ipnet::IpNet = "10.0.0.0/12".parse().unwrap();
    Arc::new(Inventory::new([net].into_iter().collect(), Default::default(), vec![]))
}

/// A version 5 datagram to thirty of a million hosts.
fn to_hosts(from: u32) -> Vec<u8> {
    let records: Vec<_> = (from..from + 30)
        .map(|n| v5_record([198, 51, 100, 1], (0x0a00_0000 + n).to_be_bytes(), 1, 1000, 1000))
        .collect();
    v5(1000, 1, from, &records)
}

#[test]
fn a_million_idle_hosts_take_sixteen_octets_each() {
    let config = config();
    let (_shard, octets) = held(|| Shard::new(0, &config, million(), Arc::default()));
    assert!(octets < 17 << 20, "{octets}");
}

#[test]
fn a_flood_to_a_million_hosts_stays_within_bounds() {
    let mut shard = Shard::new(0, &config(), million(), Arc::default());
    let mut slice = Slice::default();
    let ((), octets) = held(|| {
        for _ in 0..3 {
            for n in 0..(1 << 20) / 30 {
                shard.datagram(router(), &to_hosts(n * 30), NOW).unwrap();
            }
            shard.seal(NOW.slot(), &mut slice);
        }
    });
    assert_eq!(slice.hosts.len(), Config::default().max_hosts_per_slice);
    assert!(shard.counters().hosts_over_limit > 1_000_000);
    // Two slices of 262,144 hosts, and 16,384 samples each.
    assert!(octets < 130 << 20, "{octets}");
}

#[test]
fn a_flood_of_random_ipv6_hosts_is_added_up_by_network() {
    let mut config = config();
    config.max_ipv6_hosts_per_slice = 1000;
    let mut shard = shard(&config);
    let mut slice = Slice::default();
    let fields = [(27, 16), (28, 16), (1, 4), (2, 4)];
    let define = ipfix(0, 1, &[set(2, &template(256, &iana(&fields)))]);
    shard.datagram(router(), &define, NOW).unwrap();
    let sent = 100_000_u32;
    for n in 0..sent {
        let mut host = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        host[12..].copy_from_slice(&(n + 1).to_be_bytes());
        let record = bytes().raw(&[1; 16]).raw(&host).u32(100).u32(1).0;
        shard.datagram(router(), &ipfix(n, 1, &[set(256, &record)]), NOW).unwrap();
    }
    shard.seal(NOW.slot(), &mut slice);
    assert_eq!(slice.hosts.len(), 1001);
    let packets: u64 = slice.hosts.iter().map(|h| h.total().packets).sum();
    assert_eq!(packets, u64::from(sent));
    let network = "2001:db8:1::".parse::<std::net::IpAddr>().unwrap();
    assert!(slice.hosts.iter().any(|h| h.host == network && h.total().packets == 99_000));
}

#[test]
fn hostile_templates_and_data_without_them_stay_within_bounds() {
    let mut shard = shard(&config());
    let wide = iana(&[(96, 1); 300]);
    let datagrams: Vec<_> = (0..2000_u16)
        .map(|n| ipfix(0, u32::from(n % 100), &[set(2, &template(256 + n, &wide))]))
        .chain((0..500).map(|n| ipfix(0, n, &[set(60_000, &[7; 1000])])))
        .collect();
    let ((), octets) = held(|| {
        for datagram in &datagrams {
            shard.datagram(router(), datagram, NOW).unwrap();
        }
    });
    assert!(octets < 8 << 20, "{octets}");
    // None of them was ever used: the oldest gave way.
    assert!(shard.exporters()[0].templates < 1000);
}

#[test]
fn hostile_templates_of_many_exporters_share_a_bound() {
    let mut shard = shard(&config());
    let wide = iana(&[(96, 1); 300]);
    let define = |id: u16| ipfix(0, 1, &[set(2, &template(id, &wide))]);
    let datagrams: Vec<_> = (0..800).map(|n| define(256 + n)).collect();
    let send = |shard: &mut Shard, exporter: u8| {
        let from = std::net::SocketAddr::from(([192, 0, 2, exporter], 1));
        datagrams.iter().for_each(|datagram| shard.datagram(from, datagram, NOW).unwrap());
        shard.exporters().last().unwrap().templates
    };
    // Each by itself may have nearly as much as it sends.
    let ((), octets) = held(|| {
        for exporter in 1..=250 {
            send(&mut shard, exporter);
        }
    });
    assert!(octets < 120 << 20, "{octets}");
    assert_eq!(send(&mut shard, 251), 0, "there is no room left");
    // What one gives back, another may have.
    let withdraw = ipfix(0, 1, &[set(2, &template(2, &[]))]);
    shard.datagram("192.0.2.1:1".parse().unwrap(), &withdraw, NOW).unwrap();
    assert!(send(&mut shard, 252) > 700);
}

#[test]
fn spoofed_senders_take_nothing() {
    let mut shard = shard(&config());
    let datagram = to_hosts(0);
    let _ = shard.datagram("198.51.100.1:1".parse().unwrap(), &datagram, NOW);
    let ((), octets) = held(|| {
        for n in 0..200_000_u32 {
            let from = (std::net::Ipv4Addr::from(0xc633_0000 + n), 1);
            let _ = shard.datagram(from.into(), &datagram, NOW);
        }
    });
    assert!(octets < 8192, "{octets}");
    assert_eq!(shard.counters().unlisted_senders.len(), 32);
}

#[test]
fn exporters_are_bounded() {
    let everybody = ExporterConfig::new("0.0.0.0/0".parse().unwrap());
    let config = Config { exporters: vec![everybody], max_exporters: 10, ..Config::default() };
    let registry = Arc::new(Registry::default());
    let mut shard = Shard::new(0, &config, inventory(), registry);
    for n in 0..100_u32 {
        let from = (std::net::Ipv4Addr::from(n + 1), 1);
        let _ = shard.datagram(from.into(), &to_hosts(0), NOW);
    }
    assert_eq!(shard.exporters().len(), 10);
}
