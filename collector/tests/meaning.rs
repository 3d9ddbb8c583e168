//! What a record means where several fields, headers or events tell of one thing: the record decides.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

mod support;

use support::*;
use weir_collector::{Config, Shard, Tunnel};
use weir_model::{ExporterTrouble, FlowRecord, Forwarding, SamplingSource};

const SRC: [u8; 4] = [198, 51, 100, 9];
const DST: [u8; 4] = [203, 0, 113, 7];
const BASE: [(u16, u16); 3] = [(8, 4), (12, 4), (4, 1)];

/// The flows of one IPFIX record.
fn flows_with(config: &Config, fields: &[(u16, u16)], record: &[u8]) -> Vec<FlowRecord> {
    let sets = [set(2, &template(256, &iana(fields))), set(256, record)];
    records(&mut shard(config), &ipfix(0, 1, &sets), NOW)
}

fn flow(fields: &[(u16, u16)], record: Bytes) -> FlowRecord {
    let all = [&BASE[..], fields].concat();
    let record = bytes().raw(&SRC).raw(&DST).u8(17).raw(&record.0).0;
    let flows = flows_with(&config(), &all, &record);
    assert_eq!(flows.len(), 1, "{fields:?}");
    flows[0]
}

#[test]
fn the_counters_that_are_not_0_count() {
    let both = [(1, 4), (2, 4), (23, 4), (24, 4)];
    let counted = |record| {
        let flow = flow(&both, record);
        (flow.packets, flow.bytes)
    };
    assert_eq!(counted(bytes().u32(0).u32(0).u32(1_400_000).u32(1000)), (1000, 1_400_000));
    assert_eq!(counted(bytes().u32(2800).u32(2).u32(1_400_000).u32(1000)), (2, 2800));
    assert_eq!(counted(bytes().u32(2800).u32(2).u32(0).u32(0)), (2, 2800));
    // At the egress alone.
    let only = flow(&[(23, 4), (24, 4)], bytes().u32(2800).u32(2));
    assert_eq!((only.packets, only.bytes), (2, 2800));
}

#[test]
fn ports_are_those_of_the_protocol() {
    let fields = [(1, 4), (2, 4), (180, 2), (181, 2), (182, 2), (183, 2)];
    let ports = |record: Bytes| {
        let flow = flow(&fields, bytes().u32(100).u32(1).raw(&record.0));
        (flow.src_port, flow.dst_port)
    };
    assert_eq!(ports(bytes().u16(53).u16(40_000).u16(0).u16(0)), (53, 40_000));
    assert_eq!(ports(bytes().u16(0).u16(0).u16(50_000).u16(443)), (50_000, 443));
    assert_eq!(ports(bytes().u64(0)), (0, 0));
    // One record's are not the next one's.
    let all = [&BASE[..], &fields].concat();
    let head = || bytes().raw(&SRC).raw(&DST).u8(17).u32(100).u32(1);
    let record = [head().u16(53).u16(4).u32(0).0, head().u64(0).0].concat();
    let flows = flows_with(&config(), &all, &record);
    assert_eq!((flows[1].src_port, flows[1].dst_port), (0, 0));
}

#[test]
fn a_section_beside_counters_is_of_one_packet() {
    let tcp = bytes().u16(40_000).u16(443).u64(0).u16(0x5002).u16(0).u32(0).0;
    let packet = ipv4(6, SRC, DST, &tcp);
    let fields = [(7, 2), (11, 2), (1, 4), (2, 4), (313, 40)];
    let record = bytes().u16(40_000).u16(443).u32(140_000).u32(100).raw(&packet);
    let all = flow(&fields, record);
    assert_eq!((all.packets, all.bytes, all.dst_port), (100, 140_000, 443));
    // Without addresses the packet tells them.
    let sets = bytes().u32(140_000).u32(100).raw(&packet).0;
    let [cut] = flows_with(&config(), &[(1, 4), (2, 4), (313, 40)], &sets)[..] else { panic!() };
    assert_eq!((cut.packets, cut.bytes, cut.dst_port), (100, 140_000, 443));
}

#[test]
fn an_absolute_time_holds_where_an_uptime_has_no_beginning() {
    let fields = [(1, 4), (2, 4), (22, 4), (21, 4), (152, 8), (153, 8)];
    let record =
        bytes().u32(100).u32(1).u32(1000).u32(2000).u64(NOW.0 - 31_000).u64(NOW.0 - 30_000);
    let flow = flow(&fields, record);
    assert_eq!((flow.start, flow.end), (NOW - 31_000, NOW - 30_000));
}

#[test]
fn the_exception_code_counts_wherever_it_stands() {
    let property = |values: &[u16]| {
        let own: Vec<Spec> = values.iter().map(|_| (137, 2, 2636)).collect();
        let fields = [iana(&BASE), iana(&[(1, 4), (2, 4)]), own].concat();
        let head = bytes().raw(&SRC).raw(&DST).u8(17).u32(100).u32(1);
        let record = values.iter().fold(head, |record, value| record.u16(*value)).0;
        let sets = [set(2, &template(256, &fields)), set(256, &record)];
        records(&mut shard(&config()), &ipfix(0, 1, &sets), NOW)[0].forwarding
    };
    let (dropped, forwarded, other) = (2 << 10 | 7, 2 << 10, 1 << 10 | 5);
    assert_eq!(property(&[other, dropped]), Forwarding::Dropped);
    assert_eq!(property(&[dropped, other]), Forwarding::Dropped);
    assert_eq!(property(&[other, 3 << 10, forwarded]), Forwarding::Forwarded);
    assert_eq!(property(&[other, other]), Forwarding::Unknown);
}

#[test]
fn of_two_headers_one_counts_as_a_whole() {
    let six = |n: u8| [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let fields = [
        (2, 8),
        (1, 8),
        (27, 16),
        (28, 16),
        (10, 4),
        (7, 2),
        (11, 2),
        (4, 1),
        (6, 2),
        (8, 4),
        (12, 4),
        (7, 2),
        (11, 2),
        (4, 1),
        (6, 2),
    ];
    let record = |outer: u8, inner: [u8; 4]| {
        let head = bytes().u64(100).u64(140_000).raw(&six(1)).raw(&six(outer)).u32(87);
        let head = head.u16(0).u16(0).u8(4).u16(0);
        head.raw(&SRC).raw(&inner).u16(53).u16(40_000).u8(17).u16(0).0
    };
    let of = |tunnel, record: &[u8]| {
        let [flow] = flows_with(&Config { tunnel, ..config() }, &fields, record)[..] else {
            panic!()
        };
        let ports = (flow.src_port, flow.dst_port);
        (flow.dst.to_string(), flow.protocol, ports, flow.bytes)
    };
    // To an address that is not protected, so that the inside may count.
    let mut away = record(9, DST);
    away[32 + 4] = 0xff;
    let outer = |text: &str| (text.to_owned(), 4, (0, 0), 140_000);
    assert_eq!(of(Tunnel::Outer, &away), outer("2001:db8:ff01::9"));
    let inner = ("203.0.113.7".to_owned(), 17, (53, 40_000), 140_000);
    assert_eq!(of(Tunnel::Inner, &away), inner);
    // The outer one is protected, or there is no inner one.
    assert_eq!(of(Tunnel::Inner, &record(9, DST)), outer("2001:db8:1::9"));
    let plain = bytes().raw(&away[..away.len() - 15]).raw(&[0; 15]).0;
    assert_eq!(of(Tunnel::Inner, &plain), outer("2001:db8:ff01::9"));
}

/// What a Cisco ASA says of connection 77: event, when, octets each way.
fn nsel(event: u8, secs: u64, forth: u32, back: u32) -> Vec<u8> {
    let began = NOW.0 - 600_000;
    let head = bytes().u32(77).raw(&DST).u16(50_000).raw(&SRC).u16(443).u8(6).u8(event);
    head.u64(began + secs * 1000).u32(forth).u32(back).u64(began).0
}

const NSEL: [(u16, u16); 11] = [
    (148, 4),
    (8, 4),
    (7, 2),
    (12, 4),
    (11, 2),
    (4, 1),
    (233, 1),
    (323, 8),
    (231, 4),
    (232, 4),
    (152, 8),
];

/// Octets to 203.0.113.7 that a firewall's events come to, and how fast the fastest of them was.
fn told(events: &[(u8, u64, u32, u32)]) -> (u64, u64) {
    let mut shard = shard(&config());
    let mut sum = 0;
    let mut fastest = 0;
    let define = set(0, &template(263, &iana(&NSEL)));
    for (sequence, (event, secs, forth, back)) in events.iter().enumerate() {
        let now = NOW - 600_000 + secs * 1000;
        let mut datagram = v9(
            1_000_000,
            sequence as u32,
            0,
            &[define.clone(), set(263, &nsel(*event, *secs, *forth, *back))],
        );
        datagram[8..12].copy_from_slice(&u32::try_from(now.0 / 1000).unwrap().to_be_bytes());
        for flow in records(&mut shard, &datagram, now) {
            if flow.dst.to_string() == "203.0.113.7" {
                sum += flow.bytes;
                fastest = fastest.max(flow.bytes * 8000 / flow.end.since(flow.start).max(1));
            }
        }
    }
    (sum, fastest)
}

#[test]
fn a_firewalls_updates_and_teardown_count_once() {
    let (created, torn) = ((1, 0, 0, 0), 450_000_000);
    let mut events = vec![created];
    events.extend((1..=10).map(|n| (5, n * 60, 900, 45_000_000)));
    events.push((2, 600, 9000, torn));
    // 450 MB in ten minutes, at 6 Mbit/s.
    assert_eq!(told(&events), (450_000_000, 6_000_000));
    // The last of it comes with the teardown.
    events.remove(10);
    assert_eq!(told(&events), (450_000_000, 6_000_000));
    // Of a teardown alone what is older than five minutes is cut off, time and octets alike.
    assert_eq!(told(&[created, (2, 600, 9000, torn)]), (225_000_000, 6_000_000));
    assert_eq!(told(&[created, (3, 10, 0, 0)]), (0, 0));
}

#[test]
fn a_flow_loses_its_octets_with_its_beginning() {
    let fields = [(1, 8), (2, 8), (152, 8), (153, 8)];
    let lasting = |secs: u64| {
        let octets = 50_000_000 / 8 * secs;
        let record = bytes().u64(octets).u64(octets / 1400);
        let flow = flow(&fields, record.u64(NOW.0 - secs * 1000).u64(NOW.0));
        flow.bytes * 8000 / flow.end.since(flow.start)
    };
    for secs in [10, 299, 300, 301, 1800, 86_400] {
        let rate = lasting(secs);
        assert!((49_999_990..=50_000_000).contains(&rate), "{secs} s: {rate}");
    }
    // Version 5 and 9 tell by uptime.
    let record = v5_record(SRC, DST, 80, 1000, 600_000 + 1000);
    let flow = records(&mut shard(&config()), &v5(601_000, 0, 0, &[record]), NOW)[0];
    assert_eq!((flow.packets, flow.bytes, flow.end.since(flow.start)), (5, 500, 300_000));
}

/// One sFlow sample of a packet of 1344 octets, of which 110 were captured.
fn sampled(
    protected: bool,
    frame_length: u32,
    stripped: u32,
    protocol: u8,
    body: &[u8],
) -> Vec<FlowRecord> {
    let dst = if protected { DST } else { [192, 0, 2, 77] };
    let mut packet = ipv4(protocol, SRC, dst, &[body, &[0; 2000]].concat()[..1324]);
    packet[2..4].copy_from_slice(&1344_u16.to_be_bytes());
    let header = &ethernet(0x0800, &packet)[..124];
    let raw = bytes().u32(1).u32(frame_length).u32(stripped).u32(124).raw(header).0;
    let sample = flow_sample(1, 1, 1, &[tlv(1, &raw)]);
    let config = Config { tunnel: Tunnel::Inner, ..config() };
    records(&mut shard(&config), &sflow(1, &[sample]), NOW)
}

#[test]
fn an_ip_header_knows_its_length() {
    for (frame_length, stripped) in [(1362, 4), (1362, 1238), (128, 4), (0, 0), (128, 1238)] {
        let flow = sampled(true, frame_length, stripped, 17, &udp(53, 9, &[]))[0];
        assert_eq!((flow.bytes, flow.length_max), (1344, 1344), "{frame_length} {stripped}");
    }
}

#[test]
fn the_inside_of_a_packet_to_a_protected_host_does_not_count() {
    let inner = ipv4(17, SRC, [203, 0, 113, 99], &udp(5, 6, &[0; 40]));
    let gre = bytes().u16(0).u16(0x0800).raw(&inner).0;
    for (protocol, body) in [(4, &inner), (47, &gre)] {
        let flow = sampled(true, 1362, 4, protocol, body)[0];
        assert_eq!((flow.dst.to_string(), flow.protocol), ("203.0.113.7".into(), protocol));
        let flow = sampled(false, 1362, 4, protocol, body)[0];
        assert_eq!((flow.dst.to_string(), flow.protocol), ("203.0.113.99".into(), 17));
    }
}

#[test]
fn provider_backbones_and_old_tags_are_passed_over() {
    let packet = ipv4(17, SRC, DST, &udp(53, 9, &[0; 40]));
    let tagged = |kind: u16| ethernet(kind, &bytes().u16(5).u16(0x0800).raw(&packet).0);
    let backbone = ethernet(0x88e7, &bytes().u32(0x10).raw(&ethernet(0x0800, &packet)).0);
    let behind_a_tag =
        ethernet(0x88a8, &bytes().u16(5).u16(0x88e7).u32(0x10).raw(&tagged(0x8100)).0);
    for frame in [tagged(0x9100), tagged(0x9200), tagged(0x9300), backbone, behind_a_tag] {
        let sample = flow_sample(1, 1, 1, &[raw_header(1, 200, &frame)]);
        let flow = records(&mut shard(&config()), &sflow(1, &[sample]), NOW)[0];
        assert_eq!((flow.dst_port, flow.bytes), (9, 68));
    }
}

/// A shard whose options say what `options` has: scopes and fields, and records, with the domain.
fn with_option(shard: &mut Shard, domain: u32, scope: (u16, u32), rate: u32) {
    let options = options_template(300, 1, &iana(&[(scope.0, 4), (34, 4)]));
    let option = bytes().u32(scope.1).u32(rate).0;
    records(shard, &ipfix(0, domain, &[set(3, &options), set(300, &option)]), NOW);
}

#[test]
fn an_option_holds_for_what_it_is_scoped_to() {
    let fields = [&BASE[..], &[(1, 4), (2, 4), (10, 4), (302, 4)]].concat();
    let rate = |shard: &mut Shard, domain, id, interface: u32, selector: u32| {
        let head = bytes().raw(&SRC).raw(&DST).u8(17).u32(1000).u32(10);
        let record = head.u32(interface).u32(selector).0;
        let sets = [set(2, &template(id, &iana(&fields))), set(id, &record)];
        records(shard, &ipfix(0, domain, &sets), NOW)[0].sampling
    };
    let mut shard = shard(&config());
    with_option(&mut shard, 1, (149, 1), 10);
    with_option(&mut shard, 1, (10, 7), 20);
    with_option(&mut shard, 1, (145, 257), 30);
    with_option(&mut shard, 1, (302, 5), 40);
    // Told in domain 1, of domain 2.
    with_option(&mut shard, 1, (149, 2), 50);
    with_option(&mut shard, 2, (302, 5), 60);
    assert_eq!(rate(&mut shard, 1, 256, 1, 0), 10);
    assert_eq!(rate(&mut shard, 1, 256, 7, 0), 20);
    assert_eq!(rate(&mut shard, 1, 257, 1, 0), 30);
    assert_eq!(rate(&mut shard, 1, 256, 1, 5), 40);
    assert_eq!(rate(&mut shard, 2, 256, 7, 0), 50);
    assert_eq!(rate(&mut shard, 2, 257, 7, 5), 60);
}

#[test]
fn a_rate_in_the_record_is_the_more_specific_word() {
    let fields = [&BASE[..], &[(1, 4), (2, 4), (34, 4)]].concat();
    let mut shard = shard(&config());
    with_option(&mut shard, 1, (149, 1), 1000);
    let mut rate = |stated: u32| {
        let record = bytes().raw(&SRC).raw(&DST).u8(17).u32(1000).u32(10).u32(stated).0;
        let sets = [set(2, &template(256, &iana(&fields))), set(256, &record)];
        let flow = records(&mut shard, &ipfix(0, 1, &sets), NOW)[0];
        let status = &shard.exporters()[0];
        let disputed = status.troubles.contains(&ExporterTrouble::SamplingDisputed);
        (flow.sampling, status.sampling_source, disputed)
    };
    assert_eq!(rate(0), (1000, SamplingSource::Domain, false));
    assert_eq!(rate(1), (1000, SamplingSource::Domain, false));
    assert_eq!(rate(1000), (1000, SamplingSource::Record, false));
    assert_eq!(rate(500), (500, SamplingSource::Record, true));
}

#[test]
fn a_sequence_of_records_is_no_loss() {
    let fields = [&BASE[..], &[(1, 4), (2, 4)]].concat();
    let define = set(0, &template(256, &iana(&fields)));
    let record = bytes().raw(&SRC).raw(&DST).u8(17).u32(1000).u32(10).0;
    // Which datagrams get lost, and how many records or datagrams are missing then.
    let lost = |by_records: bool, gone: &dyn Fn(u32) -> bool| {
        let mut shard = shard(&config());
        let mut sequence = 1000;
        for n in 0..60_u32 {
            let count = 1 + n % 5;
            let data = set(256, &record.repeat(count as usize));
            let datagram = v9(1_000_000 + n, sequence, 1, &[define.clone(), data]);
            if !gone(n) {
                records(&mut shard, &datagram, NOW);
            }
            sequence += if by_records { count } else { 1 };
        }
        shard.exporters()[0].lost
    };
    assert_eq!(lost(false, &|_| false), 0);
    assert_eq!(lost(true, &|_| false), 0);
    assert_eq!(lost(false, &|n| n == 40 || n == 41), 2);
    assert_eq!(lost(true, &|n| n == 43), 4);
}

#[test]
fn flags_that_are_not_said_are_no_packet_without_flags() {
    let counters = [(1, 4), (2, 4)];
    let flags = |protocol: u8, fields: &[(u16, u16)], said: &[u8]| {
        let all = [&BASE[..], &counters, fields].concat();
        let record = bytes().raw(&SRC).raw(&DST).u8(protocol).u32(1000).u32(10).raw(said).0;
        let flow = flows_with(&config(), &all, &record)[0];
        (flow.tcp_flags, flow.tcp_flags_said)
    };
    assert_eq!(flags(6, &[(6, 1)], &[0]), (0, true));
    assert_eq!(flags(6, &[(6, 2)], &[0, 2]), (2, true));
    assert_eq!(flags(6, &[], &[]), (0, false));
    assert_eq!(flags(17, &[(6, 1)], &[0]), (0, false));
    // A header that was cut before the flags.
    let tcp = bytes().u16(4000).u16(80).u32(1).u32(0).raw(&[0x50, 0, 0, 0, 0, 0, 0, 0]).0;
    let packet = ethernet(0x0800, &ipv4(6, SRC, DST, &tcp));
    for (kept, said) in [(packet.len(), true), (14 + 20 + 14, true), (14 + 20 + 13, false)] {
        let sample = flow_sample(1, 1000, 0, &[raw_header(1, 58, &packet[..kept])]);
        let flow = records(&mut shard(&config()), &sflow(1, &[sample]), NOW)[0];
        assert_eq!((flow.tcp_flags, flow.tcp_flags_said), (0, said), "{kept}");
    }
}

#[test]
fn interfaces_are_shown_by_name() {
    let mut config = config();
    config.exporters[0].interface_names.insert(9, "transit-b".to_owned());
    let mut shard = shard(&config);
    let shown = |shard: &Shard| -> Vec<_> {
        let exporters = shard.exporters().into_iter().flat_map(|exporter| exporter.interfaces);
        exporters.map(|port| (port.index, port.name, port.description)).collect()
    };
    let text = |index: u32, name: &str, description: &str| {
        (index, name.to_owned(), description.to_owned())
    };
    // Cisco's table: the scope is the system, the index a field.
    let fields = iana(&[(10, 4), (82, 8), (83, 12)]);
    let options = v9_options_template(300, &iana(&[(1, 4)]), &fields);
    let row = bytes().u32(0).u32(3).raw(b"Gi0/3\0\0\0").raw(b"to transit\0\0").0;
    records(&mut shard, &v9(1000, 1, 1, &[set(1, &options), set(300, &row)]), NOW);
    // RFC 7011: the scope is the interface, texts have their own lengths.
    let options = options_template(300, 1, &iana(&[(10, 4), (82, 65535)]));
    let row = bytes().u32(4).u8(8).raw(b"xe-0/0/4").0;
    records(&mut shard, &ipfix(0, 1, &[set(3, &options), set(300, &row)]), NOW);
    // sFlow's port_name of data source 5.
    let name = tlv(1005, &bytes().u32(4).raw(b"swp5").0);
    let counters = tlv(2, &bytes().u32(1).u32(5).u32(1).raw(&name).0);
    records(&mut shard, &sflow(1, &[counters]), NOW);
    let all = [
        text(3, "Gi0/3", "to transit"),
        text(4, "xe-0/0/4", ""),
        text(5, "swp5", ""),
        text(9, "transit-b", ""),
    ];
    assert_eq!(shown(&shard), all);
}

#[test]
fn one_option_does_not_multiply_an_exporters_traffic_by_a_million() {
    let fields = [&BASE[..], &[(1, 4), (2, 4)]].concat();
    let mut shard = shard(&config());
    with_option(&mut shard, 1, (149, 1), 1000);
    let rate = |shard: &mut Shard| {
        let record = bytes().raw(&SRC).raw(&DST).u8(17).u32(1000).u32(10).0;
        let sets = [set(2, &template(256, &iana(&fields))), set(256, &record)];
        let flow = records(shard, &ipfix(0, 1, &sets), NOW)[0];
        let status = &shard.exporters()[0];
        let doubted = status.troubles.contains(&ExporterTrouble::SamplingUnconfirmed);
        (flow.sampling, doubted, status.sampling_doubted)
    };
    assert_eq!(rate(&mut shard), (1000, false, 0));
    with_option(&mut shard, 1, (149, 1), 10_000_000);
    assert_eq!(rate(&mut shard), (1000, true, 10_000_000));
    // Set to another rate that routers are set to.
    with_option(&mut shard, 1, (149, 1), 4000);
    assert_eq!(rate(&mut shard).0, 4000);
}
