//! What a shard makes of whole datagrams, from the outside.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use support::*;
use weir_collector::{DecodeErrorKind, ExporterConfig, LinkType, Shard};
use weir_model::{Class, ClassVolume, Direction, OwnMetric, OwnMetrics, Slice, Threshold};

#[test]
fn a_flow_counts_scaled_at_the_time_it_passed() {
    let mut shard = shard(&config());
    let up = 1_000_000;
    let record = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 30120, up - 1500, up - 1500);
    shard.datagram(router(), &v5(up, 100, 1, &[record]), NOW).unwrap();
    let mut slice = Slice::default();
    shard.seal(NOW.slot(), &mut slice);
    let [host] = slice.hosts.as_slice() else { panic!("{:?}", slice.hosts) };
    assert_eq!(host.slot, NOW.slot() - 15);
    let volume = ClassVolume { packets: 1000, bytes: 100_000 };
    assert_eq!(host.inbound[Class::Udp as usize], volume);
    assert_eq!(host.total(), volume);
    assert!((host.samples() - 10.0).abs() < 1e-9);
    let [service] = slice.services.as_slice() else { panic!("{:?}", slice.services) };
    assert_eq!((service.port, service.inbound), (30120, volume));
    assert_eq!(slice.samples.len(), 1);
    shard.seal(NOW.slot() + 1, &mut slice);
    assert!(slice.hosts.is_empty() && slice.services.is_empty() && slice.samples.is_empty());
}

#[test]
fn a_long_flow_is_handed_on_whole() {
    let mut shard = shard(&config());
    let up = 1_000_000;
    let record = v5_record([203, 0, 113, 9], [198, 51, 100, 1], 80, up - 60_000, up - 2000);
    shard.datagram(router(), &v5(up, 1, 1, &[record]), NOW).unwrap();
    let mut slice = Slice::default();
    shard.seal(NOW.slot(), &mut slice);
    assert!(slice.hosts.is_empty());
    let [flow] = slice.long_flows.as_slice() else { panic!("{:?}", slice.long_flows) };
    assert!(flow.outbound);
    assert_eq!((flow.start, flow.end), (NOW - 60_000, NOW - 2000));
    assert!(slice.watermark <= NOW - 59_000);
}

fn own(name: &str, packets: &str, direction: Direction) -> OwnMetric {
    OwnMetric {
        name: name.to_owned(),
        packets: packets.parse().unwrap(),
        direction,
        packets_per_sec: Some(Threshold::Auto),
        bits_per_sec: None,
        groups: Vec::new(),
    }
}

#[test]
fn metrics_of_an_operators_own_count_what_they_mean() {
    let metrics = [
        own("game", "udp dst port 30120", Direction::Inbound),
        own("dns", "udp src port 53", Direction::Inbound),
        own("web", "udp dst port 443", Direction::Inbound),
        own("out", "udp src port 53", Direction::Outbound),
    ];
    let mut shard = shard(&config());
    let known = inventory();
    let measuring = Arc::new(known.as_ref().clone().measuring(&metrics));
    shard.set_inventory(Arc::clone(&measuring));
    let up = 1_000_000;
    let game = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 30120, up - 1500, up - 1500);
    let sent = v5_record([203, 0, 113, 9], [198, 51, 100, 1], 80, up - 1500, up - 1500);
    let long = v5_record([203, 0, 113, 9], [198, 51, 100, 1], 80, up - 60_000, up - 2000);
    let records = [game.clone(), game, sent, long];
    shard.datagram(router(), &v5(up, 100, 1, &records), NOW).unwrap();
    let mut slice = Slice::default();
    shard.seal(NOW.slot(), &mut slice);
    assert_eq!(slice.metrics_key, OwnMetrics::from(metrics.to_vec()).key());
    let found: Vec<_> =
        slice.metrics.iter().map(|m| (m.host.to_string(), m.metric, m.volume.packets)).collect();
    let of = |host: &str, metric, packets| (host.to_owned(), metric, packets);
    assert_eq!(
        found,
        [of("203.0.113.7", 0, 2000), of("203.0.113.7", 1, 2000), of("203.0.113.9", 3, 1000)]
    );
    assert!(slice.metrics.iter().all(|m| m.slot == NOW.slot() - 15));
    assert_eq!(slice.metrics[0].variance, 200_000);
    assert_eq!(slice.long_flows.iter().map(|flow| flow.metrics).collect::<Vec<_>>(), [1 << 3]);
    // Others from now on: what was counted for the first ones is not theirs.
    shard.datagram(router(), &v5(up, 100, 5, &records), NOW).unwrap();
    shard.set_inventory(Arc::new(known.as_ref().clone().measuring(&metrics[3..])));
    shard.datagram(router(), &v5(up, 100, 9, &records[2..3]), NOW).unwrap();
    shard.seal(NOW.slot() + 1, &mut slice);
    assert_eq!(slice.metrics.len(), 1);
    assert_eq!((slice.metrics[0].metric, slice.metrics[0].volume.packets), (0, 1000));
    assert!(slice.long_flows.iter().all(|flow| flow.metrics == 0));
    shard.set_inventory(known);
    shard.seal(NOW.slot() + 2, &mut slice);
    assert_eq!((slice.metrics.len(), slice.metrics_key), (0, 0));
}

#[test]
fn strangers_are_counted_and_named_and_leave_no_state() {
    let mut shard = shard(&config());
    let stranger: SocketAddr = "198.51.100.9:1".parse().unwrap();
    let error = shard.datagram(stranger, &v5(1, 1, 1, &[]), NOW).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Unlisted);
    assert!(shard.exporters().is_empty());
    let counters = shard.counters();
    assert_eq!(counters.unlisted, 1);
    assert_eq!(counters.unlisted_senders[0].address, stranger.ip());
}

#[test]
fn an_exporter_may_be_added_renamed_and_taken_out_while_it_sends() {
    let mut shard = shard(&config());
    let known = config().exporters;
    let packet = |shard: &mut Shard| shard.datagram(router(), &v5(1, 100, 1, &[]), NOW).is_ok();
    shard.set_exporters(&[]);
    assert!(!packet(&mut shard) && shard.exporters().is_empty());
    shard.set_exporters(&known);
    assert!(packet(&mut shard));
    let mut renamed = ExporterConfig::new(router().ip().into());
    renamed.name = Some("core".to_owned());
    renamed.sampling = Some(7);
    shard.set_exporters(&[renamed]);
    let record = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 30120, 1, 1);
    shard.datagram(router(), &v5(1, 100, 2, &[record]), NOW).unwrap();
    let status = shard.exporters().remove(0);
    assert_eq!((status.name.as_str(), status.sampling, status.datagrams), ("core", 7, 2));
    // Gone: neither heard nor shown as silent. Back: what it counted is still there.
    shard.set_exporters(&[]);
    assert!(!packet(&mut shard) && shard.exporters().is_empty());
    shard.set_exporters(&known);
    assert!(packet(&mut shard));
    assert_eq!(shard.exporters()[0].datagrams, 3);
}

#[test]
fn records_before_the_damage_count_and_gaps_are_seen() {
    let mut shard = shard(&config());
    let record = || v5_record([198, 51, 100, 1], [203, 0, 113, 7], 1, 5, 5);
    let mut cut = v5(5, 0, 100, &[record(), record()]);
    cut.truncate(cut.len() - 1);
    let error = shard.datagram(router(), &cut, NOW).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Truncated);
    shard.datagram(router(), &v5(5, 0, 111, &[record()]), NOW).unwrap();
    let status = &shard.exporters()[0];
    assert_eq!((status.records, status.decode_errors, status.lost), (2, 1, 10));
}

#[test]
fn a_capture_packet_counts_as_one_sample() {
    let mut shard = shard(&config());
    let mut frame = vec![0; 12];
    frame.extend([0x81, 0x00, 0, 5, 0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend([
        198, 51, 100, 1, 203, 0, 113, 7, 0, 80, 0x63, 0xdd, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2,
    ]);
    shard.packet(LinkType::Ethernet, &frame, 64, 50, NOW);
    let mut slice = Slice::default();
    shard.seal(NOW.slot(), &mut slice);
    let volume = ClassVolume { packets: 50, bytes: 2300 };
    assert_eq!(slice.hosts[0].inbound[Class::TcpSyn as usize], volume);
    assert_eq!(slice.samples[0].record.ttl, 64);
    assert_eq!(shard.exporters()[0].name, "capture");
}
