//! Several datagrams of one exporter, in a row: templates made by one are used by the next.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weir_collector::{Config, ExporterConfig, Registry, Shard};
use weir_model::{Inventory, Millis, Slice};

fuzz_target!(|data: &[u8]| {
    let exporter = ExporterConfig::new("192.0.2.1/32".parse().unwrap());
    let config = Config { exporters: vec![exporter], ..Config::default() };
    let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
    let inventory = Inventory::new(everything.into_iter().collect(), Default::default(), vec![]);
    let mut shard = Shard::new(0, &config, Arc::new(inventory), Arc::new(Registry::default()));
    let from = "192.0.2.1:2055".parse().unwrap();
    let mut now = Millis(1_700_000_000_000);
    let mut slice = Slice::default();
    // Two octets of length before each datagram.
    let mut rest = data;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (datagram, after) = after.split_at(len);
        let _ = shard.datagram(from, datagram, now);
        now = now + 37;
        rest = after;
    }
    shard.seal(now.slot(), &mut slice);
    for host in &slice.hosts {
        assert!(host.slot <= now.slot());
    }
    for flow in &slice.long_flows {
        assert!(flow.start <= flow.end && flow.end <= now);
    }
    let checkpoint = shard.checkpoint();
    let mut again = Shard::new(0, &config, Arc::default(), Arc::new(Registry::default()));
    again.restore(Arc::new(checkpoint.clone()));
    let _ = again.datagram(from, &[], now);
    assert_eq!(again.checkpoint(), checkpoint);
});
