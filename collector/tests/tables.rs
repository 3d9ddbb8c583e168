//! Tables that anybody can fill keep what has proven itself, and what comes costs what its octets allow.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use support::*;
use weir_collector::{Config, ExporterConfig, Registry, Shard};
use weir_model::{ExporterTrouble, Millis};

const BASE: [(u16, u16); 5] = [(8, 4), (12, 4), (4, 1), (1, 4), (2, 4)];
const TURNED: [(u16, u16); 5] = [(12, 4), (8, 4), (4, 1), (1, 4), (2, 4)];
const SRC: [u8; 4] = [198, 51, 100, 9];
const DST: [u8; 4] = [203, 0, 113, 7];

fn define(fields: &[(u16, u16)]) -> Vec<u8> {
    set(2, &template(256, &iana(fields)))
}

fn data() -> Vec<u8> {
    set(256, &bytes().raw(&SRC).raw(&DST).u8(17).u32(1000).u32(10).0)
}

#[test]
fn a_chassis_has_more_than_64_domains() {
    let mut shard = shard(&config());
    for domain in 1..=300 {
        let datagram = ipfix(0, domain, &[define(&BASE), data()]);
        assert_eq!(records(&mut shard, &datagram, NOW).len(), 1);
    }
    for domain in 1..=300 {
        assert_eq!(records(&mut shard, &ipfix(1, domain, &[data()]), NOW).len(), 1, "{domain}");
    }
}

#[test]
fn forged_domains_shut_nobody_out() {
    let config = Config { max_domains: 64, ..config() };
    let mut shard = shard(&config);
    let real = |domain| ipfix(0, domain, &[define(&BASE), data()]);
    for n in 0..12 {
        records(&mut shard, &real(5), NOW + n * 1000);
    }
    let now = NOW + 12_000;
    // Each with a template, some with records that look good.
    for domain in 1000..6000 {
        let forged =
            if domain % 2 == 0 { vec![define(&BASE)] } else { vec![define(&BASE), data()] };
        records(&mut shard, &ipfix(0, domain, &forged), now);
    }
    assert_eq!(records(&mut shard, &ipfix(0, 5, &[data()]), now).len(), 1, "it was proven");
    assert_eq!(records(&mut shard, &real(6), now).len(), 1, "a new one finds room");
    assert_eq!(records(&mut shard, &ipfix(0, 6, &[data()]), now).len(), 1);
    // The same after a restart.
    let known = shard.checkpoint();
    let mut next = support::shard(&config);
    next.restore(Arc::new(known));
    assert_eq!(records(&mut next, &ipfix(0, 5, &[data()]), now).len(), 1);
    assert_eq!(records(&mut next, &real(7), now).len(), 1);
}

#[test]
fn forged_templates_shut_nobody_out() {
    let mut shard = shard(&Config { max_templates: 100, ..config() });
    for n in 0..12 {
        records(&mut shard, &ipfix(0, 1, &[define(&BASE), data()]), NOW + n * 1000);
    }
    for id in 1000..20_000 {
        let forged = set(2, &template(id, &iana(&BASE)));
        records(&mut shard, &ipfix(0, 1, &[forged]), NOW + 12_000);
    }
    assert_eq!(records(&mut shard, &ipfix(0, 1, &[data()]), NOW + 12_000).len(), 1);
    let new = [set(2, &template(300, &iana(&BASE))), set(300, &data()[4..])];
    assert_eq!(records(&mut shard, &ipfix(0, 1, &new), NOW + 12_000).len(), 1);
}

#[test]
fn forged_senders_shut_nobody_out() {
    let fleet = ExporterConfig::new("10.0.0.0/8".parse().unwrap());
    let config = Config { exporters: vec![fleet], max_exporters: 64, ..Config::default() };
    let mut shard = Shard::new(0, &config, inventory(), Arc::new(Registry::default()));
    let record = v5_record(SRC, DST, 80, 900, 1000);
    let mut send = |address: u32, now: Millis| {
        let from = SocketAddr::from((std::net::Ipv4Addr::from(address), 1));
        let datagram = v5(1000, 0, 0, std::slice::from_ref(&record));
        let mut count = 0;
        let _ = shard.records(from, &datagram, now, |_| count += 1);
        count
    };
    let real = 0x0a00_0001;
    for n in 0..12 {
        assert_eq!(send(real, NOW + n * 1000), 1);
    }
    let now = NOW + 12_000;
    for n in 0..5000 {
        send(0x0a01_0000 + n, now);
    }
    assert_eq!(send(real, now), 1, "it was proven");
    assert_eq!(send(0x0a00_0002, now), 1, "a new one finds room");
    let known: Vec<_> = shard.exporters().iter().map(|e| e.address.to_string()).collect();
    assert!(known.contains(&"10.0.0.1".into()) && known.contains(&"10.0.0.2".into()), "{known:?}");
    assert!(known.len() <= 64);
    // What was counted of those that had to go stays counted.
    assert_eq!(shard.counters().datagrams, 5014);
}

/// A version 9 datagram of a router that has been up for `up` milliseconds at `now`.
fn v9_at(now: Millis, up: u64, sequence: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = v9(u32::try_from(up).unwrap(), sequence, 1, sets);
    datagram[8..12].copy_from_slice(&u32::try_from(now.0 / 1000).unwrap().to_be_bytes());
    datagram
}

fn v9_define(fields: &[(u16, u16)]) -> Vec<u8> {
    set(0, &template(256, &iana(fields)))
}

#[test]
fn after_a_restart_data_waits_for_its_template() {
    for restarts in [false, true] {
        let mut shard = shard(&config());
        let up = 500_000_000;
        for n in 0..20_u64 {
            let now = NOW + n * 1000;
            let sets = if n == 0 { vec![v9_define(&BASE), data()] } else { vec![data()] };
            let datagram = v9_at(now, up + n * 1000, n as u32, &sets);
            assert_eq!(records(&mut shard, &datagram, now).len(), 1);
        }
        if restarts {
            // weir does as well.
            let known = shard.checkpoint();
            shard = support::shard(&config());
            shard.restore(Arc::new(known));
        }
        // The router is back with other firmware: source and destination are the other way round.
        let back = NOW + 200_000;
        for n in 0..20_u64 {
            let now = back + n * 1000;
            let flows =
                records(&mut shard, &v9_at(now, 30_000 + n * 1000, n as u32, &[data()]), now);
            assert_eq!(flows, [], "{n}");
        }
        let now = back + 20_000;
        let flows = records(&mut shard, &v9_at(now, 50_000, 20, &[v9_define(&TURNED)]), now);
        assert_eq!(flows.len(), 20, "what has waited");
        assert!(flows.iter().all(|flow| flow.dst.to_string() == "198.51.100.9"));
        let flows = records(&mut shard, &v9_at(now, 50_000, 21, &[data()]), now);
        assert_eq!(flows[0].dst.to_string(), "198.51.100.9");
    }
}

#[test]
fn a_forged_restart_costs_nothing() {
    let mut shard = shard(&config());
    let up = 500_000_000;
    for n in 0..200_u64 {
        let now = NOW + n * 100;
        let sets = if n == 0 { vec![v9_define(&BASE), data()] } else { vec![data()] };
        let datagram = v9_at(now, up + n * 100, n as u32, &sets);
        assert_eq!(records(&mut shard, &datagram, now).len(), 1, "{n}");
        if n > 10 && n % 3 == 0 {
            records(&mut shard, &v9_at(now, 5 + n, 0, &[]), now + 50);
        }
    }
}

#[test]
fn a_template_that_is_repeated_no_longer_is_forgotten() {
    let mut shard = shard(&config());
    for n in 0..10_u64 {
        records(&mut shard, &ipfix(0, 1, &[define(&BASE)]), NOW + n * 60_000);
    }
    let last = NOW + 9 * 60_000;
    assert_eq!(records(&mut shard, &ipfix(0, 1, &[data()]), last + 3_500_000).len(), 1);
    assert_eq!(records(&mut shard, &ipfix(0, 1, &[data()]), last + 3_700_000).len(), 0);
    // One that was sent once, when a card started, is kept.
    records(&mut shard, &ipfix(0, 2, &[define(&BASE)]), NOW);
    assert_eq!(records(&mut shard, &ipfix(0, 2, &[data()]), NOW + 86_400_000).len(), 1);
}

#[test]
fn two_senders_with_one_address_are_told_apart_by_port() {
    let mut shard = shard(&config());
    let mut send = |port: u16, sets: &[Vec<u8>]| {
        let mut out = Vec::new();
        let from = SocketAddr::from(([192, 0, 2, 1], port));
        let _ = shard.records(from, &ipfix(0, 1, sets), NOW, |flow| out.push(flow.dst.to_string()));
        out
    };
    send(1001, &[define(&BASE)]);
    send(1002, &[define(&TURNED)]);
    for _ in 0..3 {
        assert_eq!(send(1001, &[data()]), ["203.0.113.7"]);
        assert_eq!(send(1002, &[data()]), ["198.51.100.9"]);
        send(1001, &[define(&BASE)]);
        assert_eq!(send(1002, &[data()]), ["198.51.100.9"]);
        send(1002, &[define(&TURNED)]);
    }
    assert!(shard.exporters()[0].troubles.contains(&ExporterTrouble::SharedAddress));
}

#[test]
fn a_router_that_changes_its_port_is_one_router() {
    let mut shard = shard(&config());
    let mut send = |port: u16, sets: &[Vec<u8>]| {
        let from = SocketAddr::from(([192, 0, 2, 1], port));
        let mut out = Vec::new();
        let _ = shard.records(from, &ipfix(0, 1, sets), NOW, |flow| out.push(flow.dst.to_string()));
        out
    };
    send(1001, &[define(&BASE), data()]);
    assert_eq!(send(1003, &[data()]), ["203.0.113.7"]);
    // A new definition from a new port holds for whatever port data comes from.
    send(1002, &[define(&TURNED)]);
    assert_eq!(send(1002, &[data()]), ["198.51.100.9"]);
    assert_eq!(send(1004, &[data()]), ["198.51.100.9"]);
    assert!(shard.exporters()[0].troubles.is_empty());
}

fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).unwrap().into()
}

/// The least time that a datagram took of some.
fn least(shard: &mut Shard, datagram: &[u8]) -> Duration {
    let once = || {
        let begin = cpu_time();
        let _ = shard.records(router(), datagram, NOW, |_| {});
        cpu_time() - begin
    };
    std::iter::repeat_with(once).take(200).min().unwrap()
}

/// Templates, samplers and waiting sets that are there already make no datagram cost more.
#[test]
fn a_datagram_costs_what_its_octets_allow() {
    let full = |count: u16| {
        let mut shard = shard(&config());
        for ids in (300..300 + count).collect::<Vec<_>>().chunks(100) {
            let all: Vec<u8> = ids.iter().flat_map(|id| template(*id, &iana(&[(4, 1)]))).collect();
            records(&mut shard, &ipfix(0, 7, &[set(2, &all)]), NOW);
        }
        let samplers = options_template(299, 1, &iana(&[(302, 4), (34, 4)]));
        records(&mut shard, &ipfix(0, 7, &[set(3, &samplers)]), NOW);
        for id in 0..u32::from(count) {
            records(&mut shard, &ipfix(0, 7, &[set(299, &bytes().u32(id + 1).u32(1000).0)]), NOW);
        }
        for id in 0..count {
            records(&mut shard, &ipfix(0, 8, &[set(10_000 + id, &[1; 8])]), NOW);
        }
        shard
    };
    let withdrawals: Vec<u8> =
        (0..340_u16).flat_map(|n| bytes().u16(60_000 + n % 100).u16(0).0).collect();
    let all_options: Vec<u8> = (0..340).flat_map(|_| bytes().u16(3).u16(0).0).collect();
    let rates = template(400, &iana(&[(2, 1), (50, 1)]));
    let datagrams = [
        ("withdrawals", vec![set(2, &withdrawals)]),
        ("withdrawals of all options", vec![set(3, &all_options)]),
        ("rates", vec![set(2, &rates), set(400, &[1, 0].repeat(650))]),
        (
            "definitions",
            vec![
                set(2, &template(9999, &iana(&[(4, 1)]))),
                set(2, &template(9999, &iana(&[(5, 1)]))),
            ],
        ),
        ("a new domain", vec![]),
    ];
    for (what, sets) in datagrams {
        let datagram = ipfix(0, 9, &sets);
        let (few, many) = (least(&mut full(4), &datagram), least(&mut full(3500), &datagram));
        let bound = few * 8 + Duration::from_micros(20);
        assert!(many < bound, "{what}: {many:?} beside {few:?}");
    }
}
