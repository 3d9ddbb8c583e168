//! Damaged datagrams: never a panic, never more than a datagram can hold, never a lasting wound.
//!
//! Seeds are datagrams of every protocol; the mutations are drawn from a fixed seed, so that a
//! failure comes back. The targets in `fuzz/` search longer and by coverage.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use support::mutate::{Rng, mutate, seeds};
use support::*;
use weir_collector::{Config, LinkType, Tunnel};
use weir_model::Slice;

#[test]
fn damaged_datagrams_do_no_harm() {
    let seeds = seeds();
    let mut rng = Rng(7);
    let mut slice = Slice::default();
    for round in 0..20 {
        let tunnel = if round % 2 == 0 { Tunnel::Outer } else { Tunnel::Inner };
        let mut shard = shard(&Config { tunnel, ..config() });
        for _ in 0..2000 {
            let mut datagram = seeds[rng.below(seeds.len())].clone();
            mutate(&mut rng, &mut datagram);
            let before = shard.counters().data_records;
            let _ = shard.datagram(router(), &datagram, NOW);
            let got = shard.counters().data_records - before;
            assert!(got <= datagram.len() as u64 + 2000, "{got} records of {}", datagram.len());
        }
        shard.seal(NOW.slot(), &mut slice);
        // A sound datagram of a domain that nobody touched is read as ever.
        let fields = [(8, 4), (12, 4), (1, 4), (2, 4)];
        let record = bytes().raw(&[198, 51, 100, 1, 203, 0, 113, 200]).u32(100).u32(1).0;
        let sound = [set(2, &template(999, &iana(&fields))), set(999, &record)];
        let other = "192.0.2.77:1".parse().unwrap();
        let mut seen = 0;
        shard.records(other, &ipfix(1, 0xdead, &sound), NOW, |_| seen += 1).unwrap();
        assert_eq!(seen, 1);
    }
}

#[test]
fn any_octets_may_be_a_packet() {
    let links = [0, 1, 9, 12, 105, 113, 276].map(|n| LinkType::from_pcap(n).unwrap());
    let mut rng = Rng(11);
    let mut shard = shard(&Config { tunnel: Tunnel::Inner, ..config() });
    let seed = ethernet(0x8847, &[&[0, 0, 1, 1][..], &ethernet(0x0800, &[0x45; 60])].concat());
    for _ in 0..50_000 {
        let mut frame = seed.clone();
        mutate(&mut rng, &mut frame);
        let wire = rng.next() as u32;
        for link in links {
            shard.packet(link, &frame, wire, 1, NOW);
        }
    }
}

/// `tests/fuzz` begins its searches with these: each target has its own form.
#[test]
fn seeds_for_the_fuzzer() {
    let own = tempfile::tempdir().unwrap();
    let told = std::env::var_os("WEIR_FUZZ_SEEDS").map(std::path::PathBuf::from);
    let folder = told.unwrap_or_else(|| own.path().to_owned());
    let put = |target: &str, number: usize, octets: &[u8]| {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(number.to_string()), octets).unwrap();
    };
    for (number, seed) in seeds().iter().enumerate() {
        let framed = bytes().u16(u16::try_from(seed.len()).unwrap()).raw(seed).0;
        put("datagram", number, &framed);
        match seed[..2] {
            [0, 5] => put("oracle_netflow_v5", number, seed),
            [0, 9] => put("oracle_netflow_v9", number, &framed),
            [0, 10] => put("oracle_ipfix", number, &framed),
            _ => put("oracle_sflow", number, seed),
        }
    }
    let packet = ethernet(0x0800, &ipv4(17, [1, 2, 3, 4], [203, 0, 113, 7], &udp(1, 2, &[0; 9])));
    put("packet", 0, &bytes().u8(1).u32(100).raw(&packet).0);
    let targets: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert_eq!(targets.len(), 6, "a seed for each target that reads datagrams: {targets:?}");
}
