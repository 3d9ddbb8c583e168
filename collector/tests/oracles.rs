//! Damaged datagrams read by weir and by its oracles: see `support/oracles.rs`. A few thousand of each
//! protocol here; `WEIR_FUZZ_SECS` searches for so many seconds a decoder, from another seed.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "a search tells how far it went")]

mod support;

use std::time::{Duration, Instant};

use support::mutate::{Rng, mutate, seeds};
use support::oracles;

fn search(name: &str, version: [u8; 2], mut check: impl FnMut(&[&[u8]])) {
    let secs = std::env::var("WEIR_FUZZ_SECS").ok().and_then(|secs| secs.parse::<u64>().ok());
    let seeds: Vec<_> = seeds().into_iter().filter(|seed| seed.starts_with(&version)).collect();
    let seed = secs.map_or(0, |_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs()
    });
    let (mut rng, begin) = (Rng(seed), Instant::now());
    let mut runs = 0_u64;
    while secs.map_or(runs < 3000, |secs| begin.elapsed() < Duration::from_secs(secs)) {
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        // Templates that one brings are used by the next.
        for _ in 0..=rng.below(3) {
            let mut datagram = seeds[rng.below(seeds.len())].clone();
            if rng.below(4) > 0 {
                mutate(&mut rng, &mut datagram);
            }
            datagrams.push(datagram);
        }
        check(&datagrams.iter().map(Vec::as_slice).collect::<Vec<_>>());
        runs += 1;
    }
    println!("{name}: {runs} runs from seed {seed}");
}

#[test]
fn netflow_v5_is_read_as_by_its_oracle() {
    search("netflow-v5", [0, 5], |datagrams| oracles::netflow_v5(datagrams[0]));
}

#[test]
fn netflow_v9_is_read_as_by_its_oracle() {
    search("netflow-v9", [0, 9], oracles::netflow_v9);
}

#[test]
fn ipfix_is_read_as_by_its_oracle() {
    search("ipfix", [0, 10], oracles::ipfix);
}

#[test]
fn sflow_is_read_as_by_its_oracle() {
    search("sflow", [0, 0], |datagrams| oracles::sflow(datagrams[0]));
}
