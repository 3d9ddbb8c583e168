//! What passes the interfaces of uplinks is counted, whatever tells of it and whether or not the addresses are
//! protected.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::*;
use weir_collector::{ExporterConfig, Shard};

/// Octets in and out, by interface.
fn counts(shard: &Shard) -> Vec<(u32, u64, u64)> {
    let exporters = shard.exporters();
    exporters[0].links.iter().map(|link| (link.index, link.in_bytes, link.out_bytes)).collect()
}

fn counting(interfaces: &[u32]) -> Shard {
    let mut config = config();
    config.exporters[0].counted_interfaces = interfaces.to_vec();
    shard(&config)
}

#[test]
fn every_protocol_tells_what_links_carry() {
    // NetFlow v5, ten packets of 1000 octets in all, one of a hundred sampled; to nobody that is protected.
    let mut shard = counting(&[7, 9]);
    let mut record = v5_record([198, 51, 100, 1], [192, 0, 2, 99], 80, 0, 0);
    record[13] = 7;
    record[15] = 3;
    records(&mut shard, &v5(1000, 100, 0, &[record.clone(), record]), NOW);
    assert_eq!(counts(&shard), [(7, 200_000, 0), (9, 0, 0)]);

    let mut shard = counting(&[9]);
    let fields = iana(&[(8, 4), (12, 4), (1, 8), (2, 8), (10, 4), (14, 4)]);
    let flow = bytes().raw(&[198, 51, 100, 1]).raw(&[203, 0, 113, 7]).u64(5000).u64(5).u32(3);
    let sets = [set(2, &template(256, &fields)), set(256, &flow.u32(9).0)];
    records(&mut shard, &ipfix(0, 1, &sets), NOW);
    assert_eq!(counts(&shard), [(9, 0, 5000)]);

    // In by interface 1, out by 2, one packet of a thousand.
    let mut shard = counting(&[1, 2]);
    let packet = ipv4(17, [198, 51, 100, 1], [203, 0, 113, 7], &udp(53, 80, &[0; 72]));
    let header = raw_header(1, 118, &ethernet(0x0800, &packet));
    records(&mut shard, &sflow(1, &[flow_sample(1, 1000, 1000, &[header])]), NOW);
    assert_eq!(counts(&shard), [(1, 100_000, 0), (2, 0, 100_000)]);
}

#[test]
fn counting_begins_and_ends_with_the_settings() {
    let mut shard = counting(&[]);
    let mut record = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 80, 0, 0);
    record[13] = 7;
    let datagram = |sequence| v5(1000, 0, sequence, std::slice::from_ref(&record));
    records(&mut shard, &datagram(0), NOW);
    assert_eq!(counts(&shard), []);
    let mut exporter = ExporterConfig::new("192.0.2.0/24".parse().unwrap());
    exporter.counted_interfaces = vec![7];
    shard.set_exporters(std::slice::from_ref(&exporter));
    records(&mut shard, &datagram(1), NOW);
    exporter.counted_interfaces = vec![7, 8];
    shard.set_exporters(std::slice::from_ref(&exporter));
    records(&mut shard, &datagram(2), NOW);
    assert_eq!(counts(&shard), [(7, 2000, 0), (8, 0, 0)]);
}
