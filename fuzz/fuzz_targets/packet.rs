//! Frames of every link type, with tunnels gone into.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weir_collector::{Config, LinkType, Registry, Shard, Tunnel};
use weir_model::Millis;

fuzz_target!(|data: &[u8]| {
    let Some(([link, wire @ ..], frame)) = data.split_first_chunk::<5>() else { return };
    let links = [0, 1, 9, 12, 105, 113, 276];
    let Some(link) = LinkType::from_pcap(links[usize::from(*link) % links.len()]) else { return };
    let config = Config { tunnel: Tunnel::Inner, ..Config::default() };
    let mut shard = Shard::new(0, &config, Arc::default(), Arc::new(Registry::default()));
    shard.packet(link, frame, u32::from_be_bytes(*wire), 1, Millis(1_700_000_000_000));
});
