//! NetFlow v9 and IPFIX: what real captures at hand do not show.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap, reason = "a test may panic")]

mod support;

use support::*;
use weir_collector::Shard;
use weir_model::{FlowRecord, Forwarding, Fragment, Millis, SamplingSource};

const SRC: [u8; 4] = [198, 51, 100, 1];
const DST: [u8; 4] = [203, 0, 113, 7];

/// Addresses, protocol 17, 1000 octets, 10 packets: what every record below begins with.
const BASE: [(u16, u16); 5] = [(8, 4), (12, 4), (4, 1), (1, 4), (2, 4)];

fn base() -> Bytes {
    bytes().raw(&SRC).raw(&DST).u8(17).u32(1000).u32(10)
}

/// The flows of one IPFIX record of these fields after [`BASE`].
fn flows_of(fields: &[Spec], values: &[u8]) -> Vec<FlowRecord> {
    let mut shard = shard(&config());
    let all = [iana(&BASE), fields.to_vec()].concat();
    let sets = [set(2, &template(256, &all)), set(256, &base().raw(values).0)];
    records(&mut shard, &ipfix(0, 1, &sets), NOW)
}

fn flow_of(fields: &[(u16, u16)], values: Bytes) -> FlowRecord {
    let flows = flows_of(&iana(fields), &values.0);
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows[0]
}

fn sampling(shard: &Shard) -> (u32, SamplingSource) {
    let status = &shard.exporters()[0];
    (status.sampling, status.sampling_source)
}

#[test]
fn counters_are_chosen_by_precision() {
    let of = |fields: &[(u16, u16)], values: Bytes| {
        let mut shard = shard(&config());
        let all = [&[(8, 4), (12, 4), (4, 1)], fields].concat();
        let values = bytes().raw(&SRC).raw(&DST).u8(6).raw(&values.0).0;
        let sets = [set(2, &template(256, &iana(&all))), set(256, &values)];
        let flows = records(&mut shard, &ipfix(0, 1, &sets), NOW);
        flows.iter().map(|f| (f.packets, f.bytes)).collect::<Vec<_>>()
    };
    // 85/86 beside 1/2, whichever comes first; out counters and totals when alone.
    let both = [(85, 4), (86, 4), (1, 4), (2, 4)];
    assert_eq!(of(&both, bytes().u32(9).u32(9).u32(500).u32(5)), [(5, 500)]);
    assert_eq!(of(&[(85, 8), (86, 8)], bytes().u64(500).u64(5)), [(5, 500)]);
    assert_eq!(of(&[(23, 4), (24, 4)], bytes().u32(500).u32(5)), [(5, 500)]);
    // Reduced sizes.
    assert_eq!(of(&[(1, 3), (2, 1)], bytes().raw(&[0, 1, 244]).u8(5)), [(5, 500)]);
    // Layer-2 octets become layer-3 octets.
    assert_eq!(of(&[(352, 4), (2, 4)], bytes().u32(500 + 5 * 14).u32(5)), [(5, 500)]);
    // Octets without packets: at least this many.
    assert_eq!(of(&[(1, 4)], bytes().u32(3001)), [(3, 3001)]);
    // A firewall's event record counts nothing.
    assert_eq!(of(&[(233, 1)], bytes().u8(1)), []);
    assert_eq!(of(&[(230, 1), (1, 4), (2, 4)], bytes().u8(1).u32(0).u32(0)), []);
    // Initiator and responder: two flows, or one if nobody answered.
    let initiator = [(231, 4), (232, 4), (298, 4), (299, 4)];
    let answered = bytes().u32(500).u32(9000).u32(5).u32(7);
    assert_eq!(of(&initiator, answered), [(5, 500), (7, 9000)]);
    assert_eq!(of(&initiator, bytes().u32(500).u32(0).u32(5).u32(0)), [(5, 500)]);
}

#[test]
fn a_biflow_is_two_flows() {
    let fields = [(7, 2, 0), (11, 2, 0), (10, 4, 0), (14, 4, 0), (1, 4, 29305), (2, 4, 29305)];
    let values = bytes().u16(5000).u16(53).u32(1).u32(2).u32(4000).u32(20).0;
    let flows = flows_of(&fields, &values);
    let [there, back] = flows.as_slice() else { panic!("{flows:?}") };
    assert_eq!((there.bytes, there.packets, there.src_port), (1000, 10, 5000));
    assert_eq!((back.src, back.dst), (there.dst, there.src));
    assert_eq!((back.src_port, back.dst_port), (53, 5000));
    assert_eq!((back.bytes, back.packets, back.length_max), (4000, 20, 200));
    assert_eq!((back.input_if, back.output_if), (2, 1));
}

#[test]
fn one_of_two_families_is_zero() {
    let address = |n| [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let fields = [(27, 16), (28, 16), (8, 4), (12, 4), (1, 4), (2, 4)];
    let both = bytes().raw(&address(1)).raw(&address(2)).u32(0).u32(0).u32(40).u32(1);
    let v4 = bytes().raw(&[0; 32]).raw(&SRC).raw(&DST).u32(40).u32(1);
    let data = [both.0, v4.0].concat();
    let sets = [set(2, &template(256, &iana(&fields))), set(256, &data)];
    let flows = records(&mut shard(&config()), &ipfix(0, 1, &sets), NOW);
    let dst: Vec<_> = flows.iter().map(|f| f.dst.to_string()).collect();
    assert_eq!(dst, ["2001:db8:1::2", "203.0.113.7"]);
}

#[test]
fn small_fields_mean_what_they_mean() {
    let ttl = flow_of(&[(52, 1), (25, 2), (26, 2)], bytes().u8(57).u16(40).u16(1400));
    assert_eq!((ttl.ttl, ttl.length_min, ttl.length_max), (57, 40, 1400));
    assert_eq!(flow_of(&[(192, 1)], bytes().u8(3)).ttl, 3);
    assert_eq!(flow_of(&[(53, 1)], bytes().u8(4)).ttl, 4);
    assert_eq!(flow_of(&[(52, 1), (53, 1)], bytes().u8(5).u8(6)).ttl, 5);
    assert_eq!(flow_of(&[], bytes()).length_max, 100);
    let check = |status, wanted| {
        assert_eq!(flow_of(&[(89, 1)], bytes().u8(status)).forwarding, wanted);
    };
    check(0, Forwarding::Unknown);
    check(64, Forwarding::Forwarded);
    check(130, Forwarding::Dropped);
    // Four octets, as RFC 7270 allows.
    assert_eq!(flow_of(&[(89, 4)], bytes().u32(130)).forwarding, Forwarding::Dropped);
    // Juniper's exception code: kind 2, value 0 or not; another kind says nothing.
    let juniper = |value| flows_of(&[(137, 2, 2636)], &bytes().u16(value).0)[0].forwarding;
    assert_eq!(juniper(2 << 10), Forwarding::Forwarded);
    assert_eq!(juniper(2 << 10 | 7), Forwarding::Dropped);
    assert_eq!(juniper(1 << 10 | 7), Forwarding::Unknown);
    let fragment = |fields: &[(u16, u16)], values| flow_of(fields, values).fragment;
    assert_eq!(fragment(&[(88, 2)], bytes().u16(185)), Fragment::Later);
    assert_eq!(fragment(&[(88, 2), (197, 1)], bytes().u16(0).u8(0x20)), Fragment::First);
    assert_eq!(fragment(&[(88, 2)], bytes().u16(0)), Fragment::None);
    // An identification alone is no fragment: every packet has one.
    assert_eq!(fragment(&[(54, 4)], bytes().u32(77)), Fragment::None);
}

#[test]
fn icmp_type_and_code_stand_in_many_places() {
    let of = |fields: &[(u16, u16)], values: Bytes| {
        let all = [&[(8, 4), (12, 4), (4, 1), (2, 4), (1, 4)], fields].concat();
        let values = bytes().raw(&SRC).raw(&DST).u8(1).u32(1).u32(84).raw(&values.0).0;
        let sets = [set(2, &template(256, &iana(&all))), set(256, &values)];
        let flow = records(&mut shard(&config()), &ipfix(0, 1, &sets), NOW)[0];
        (flow.icmp_type, flow.icmp_code, flow.src_port, flow.dst_port)
    };
    assert_eq!(of(&[(32, 2)], bytes().u16(0x0301)), (3, 1, 0, 0));
    assert_eq!(of(&[(7, 2), (11, 2)], bytes().u16(0).u16(0x0800)), (8, 0, 0, 0));
    assert_eq!(of(&[(176, 1), (177, 1)], bytes().u8(11).u8(1)), (11, 1, 0, 0));
    assert_eq!(of(&[(11, 2), (139, 2)], bytes().u16(0).u16(0x8000)), (128, 0, 0, 0));
}

#[test]
fn times_of_every_kind() {
    let check = |fields: &[(u16, u16)], values: Bytes, start: i64, end: i64| {
        let flow = flow_of(fields, values);
        let ago = |at: Millis| at.0 as i64 - NOW.0 as i64;
        assert_eq!((ago(flow.start), ago(flow.end)), (start, end), "{fields:?}");
    };
    let now = NOW.0;
    check(&[(152, 8), (153, 8)], bytes().u64(now - 900).u64(now - 400), -900, -400);
    check(&[(150, 4), (151, 4)], bytes().u32(1_699_999_990).u32(1_699_999_995), -10_000, -5000);
    let ntp = |ms: u64| ((ms / 1000 + 2_208_988_800) << 32) + ((ms % 1000) << 32) / 1000 + 1;
    check(&[(156, 8), (157, 8)], bytes().u64(ntp(now - 250)).u64(ntp(now - 250)), -250, -250);
    check(&[(154, 8), (155, 8)], bytes().u64(ntp(now - 900)).u64(ntp(now - 250)), -900, -250);
    check(&[(158, 4), (159, 4)], bytes().u32(3_000_000).u32(1_000_000), -3000, -1000);
    check(&[(153, 8), (161, 4)], bytes().u64(now - 100).u32(2000), -2100, -100);
    check(&[(323, 8)], bytes().u64(now - 70), -70, -70);
    // Uptime with its beginning, which has wrapped once.
    let init = now - (1 << 32) - 5000;
    check(&[(160, 8), (22, 4), (21, 4)], bytes().u64(init).u32(2000).u32(4000), -3000, -1000);
    // Uptime alone: only the duration is known.
    check(&[(22, 4), (21, 4)], bytes().u32(2000).u32(4000), -2000, 0);
    // No time at all, a time in the future, an absurd one.
    check(&[], bytes(), 0, 0);
    check(&[(152, 8), (153, 8)], bytes().u64(now).u64(now + 5000), -5000, 0);
    check(&[(150, 4), (151, 4)], bytes().u32(86_400).u32(86_400), 0, 0);
}

#[test]
fn v9_uptime_wraps_between_flow_and_export() {
    let fields = [&BASE[..], &[(22, 4), (21, 4)]].concat();
    let record = base().u32(u32::MAX - 2999).u32(u32::MAX - 999).0;
    let sets = [set(0, &template(256, &iana(&fields))), set(256, &record)];
    let flow = records(&mut shard(&config()), &v9(1000, 1, 1, &sets), NOW)[0];
    assert_eq!((flow.start, flow.end), (NOW - 4000, NOW - 2000));
}

#[test]
fn v5_uptime_wraps_between_flow_and_export() {
    let record = v5_record(SRC, DST, 80, u32::MAX - 2999, u32::MAX - 999);
    let flow = records(&mut shard(&config()), &v5(1000, 0, 1, &[record]), NOW)[0];
    assert_eq!((flow.start, flow.end), (NOW - 4000, NOW - 2000));
}

#[test]
fn an_exporter_with_a_wrong_clock_is_set_right() {
    let mut shard = shard(&config());
    let fields = [&BASE[..], &[(152, 8), (153, 8)]].concat();
    let define = set(2, &template(256, &iana(&fields)));
    shard.datagram(router(), &ipfix_at(1_600_000_000, 0, 1, &[define]), NOW).unwrap();
    let record = base().u64(1_599_999_999_000).u64(1_599_999_999_500).0;
    let data = ipfix_at(1_600_000_000, 0, 1, &[set(256, &record)]);
    let flow = records(&mut shard, &data, NOW)[0];
    assert_eq!((flow.start, flow.end), (NOW - 1000, NOW - 500));
    assert_eq!(shard.exporters()[0].clock_skew_ms, -100_000_000_000);
}

#[test]
fn sections_are_packets() {
    let packet = ipv4(17, SRC, DST, &udp(53, 30120, &[7; 900]));
    let of = |fields: &[(u16, u16)], values: Bytes| {
        let sets = [set(2, &template(256, &iana(fields))), set(256, &values.0)];
        records(&mut shard(&config()), &ipfix(0, 1, &sets), NOW)
    };
    let check = |flows: Vec<FlowRecord>| {
        let [flow] = flows.as_slice() else { panic!("{flows:?}") };
        let ports = (flow.src_port, flow.dst_port);
        assert_eq!((ports, flow.packets, flow.bytes), ((53, 30120), 1, 928));
    };
    // 313, fixed; 315, with the one-octet and the three-octet form of its length; v9's 104.
    check(of(&[(313, 64)], bytes().raw(&packet[..64])));
    let frame = ethernet(0x0800, &packet);
    check(of(&[(315, 65535)], bytes().u8(100).raw(&frame[..100])));
    check(of(&[(315, 65535)], bytes().u8(255).u16(300).raw(&frame[..300])));
    check(of(&[(10, 4), (312, 2), (315, 128)], bytes().u32(1).u16(942).raw(&frame[..128])));
    check(of(&[(104, 128)], bytes().raw(&frame[..128])));
    // A pseudowire's Ethernet under MPLS, with and without a control word.
    let pseudowire = |word: &[u8]| {
        let inner = ethernet(0x0800, &packet);
        ethernet(0x8847, &bytes().u32(0x0006_4140).raw(word).raw(&inner).0)
    };
    for word in [&[][..], &[0; 4][..]] {
        let frame = pseudowire(word);
        check(of(&[(315, 65535)], bytes().u8(120).raw(&frame[..120])));
    }
}

#[test]
fn lengths_that_vary_may_be_nothing_at_all() {
    let fields = [&[(96, 65535)], &BASE[..], &[(83, 65535)]].concat();
    let record = |name: &[u8]| {
        let len = u8::try_from(name.len()).unwrap();
        bytes().u8(len).raw(name).raw(&base().0).u8(0).0
    };
    let data = [record(b""), record(b"game"), record(b"")].concat();
    let sets = [set(2, &template(256, &iana(&fields))), set(256, &data)];
    assert_eq!(records(&mut shard(&config()), &ipfix(0, 1, &sets), NOW).len(), 3);
}

#[test]
fn v9_has_vendors_numbers_lengths_that_vary_and_fields_of_no_length() {
    // Numbers beyond 0x8000 carry no enterprise in version 9 (Cisco ASA, Palo Alto); a length of
    // 65535 means what it does in IPFIX (H3C); a field may have no length at all.
    let of = |fields: &[(u16, u16)], values: Bytes| {
        let all = [fields, &BASE[..]].concat();
        let sets = [set(0, &template(256, &iana(&all))), set(256, &values.raw(&base().0).0)];
        records(&mut shard(&config()), &v9(1, 1, 1, &sets), NOW)
    };
    for flows in [
        of(&[(33_000, 4), (0xffff, 2)], bytes().u32(7).u16(7)),
        of(&[(82, 65_535), (83, 65_535)], bytes().u8(2).u16(7).u8(0)),
        of(&[(82, 0), (8, 0)], bytes()),
    ] {
        let [flow] = flows.as_slice() else { panic!("{flows:?}") };
        assert_eq!((flow.dst.to_string(), flow.bytes), ("203.0.113.7".to_owned(), 1000));
    }
}

#[test]
fn enterprises_fields_of_any_length_are_passed_over() {
    let fields = [(1, 65_535, 9), (8, 4, 9), (12, 65_535, 35_632)];
    let values = bytes().u8(255).u16(300).raw(&[1; 300]).u32(1).u8(3).raw(b"abc").0;
    let flows = flows_of(&fields, &values);
    assert_eq!((flows.len(), flows[0].bytes), (1, 1000));
}

#[test]
fn a_message_length_that_lies_costs_no_good_set() {
    let sets = [set(2, &template(256, &iana(&BASE))), set(256, &base().0)];
    for stated in [0_u16, 15, 2000] {
        let mut datagram = ipfix(0, 1, &sets);
        datagram[2..4].copy_from_slice(&stated.to_be_bytes());
        let mut shard = shard(&config());
        assert_eq!(records(&mut shard, &datagram, NOW).len(), 1, "{stated}");
        assert_eq!(shard.exporters()[0].decode_errors, 1, "{stated}");
    }
}

#[test]
fn only_what_is_bad_is_lost() {
    let mut shard = shard(&config());
    let good = || set(256, &base().0);
    let overrun = set(257, &bytes().raw(&base().0).u8(200).0);
    let varying = [&BASE[..], &[(96, 65535)]].concat();
    let sets = [
        set(2, &template(256, &iana(&BASE))),
        set(2, &template(257, &iana(&varying))),
        // A template with more fields than its set holds.
        set(2, &bytes().u16(258).u16(100).u32(0x0001_0004).0),
        set(300, &[1; 16]),
        overrun,
        set(77, &[0; 8]),
        good(),
    ];
    assert_eq!(records(&mut shard, &ipfix(0, 1, &sets), NOW).len(), 1);
    let counters = shard.counters();
    assert_eq!((counters.unknown_templates, counters.errors.iter().sum::<u64>()), (1, 2));

    // Several messages in one datagram, the first with a damaged set; zeros to the end.
    let damaged = ipfix(0, 1, &[good(), vec![1, 0, 0, 1]]);
    let two = [damaged, ipfix(0, 1, &[good(), good()]), vec![0; 40]].concat();
    assert_eq!(records(&mut shard, &two, NOW).len(), 3);

    // A header count that lies, and a zero-filled tail, in version 9.
    let fields = set(0, &template(256, &iana(&BASE)));
    let mut lies = v9(1, 1, 1, &[fields, good(), good()]);
    lies[3] = 1;
    lies.extend([0; 100]);
    assert_eq!(records(&mut shard, &lies, NOW).len(), 2);
}

#[test]
fn templates_change_and_are_taken_back() {
    let mut shard = shard(&config());
    let wide = [&BASE[..], &[(7, 2)]].concat();
    let define = |fields: &[(u16, u16)]| ipfix(0, 1, &[set(2, &template(256, &iana(fields)))]);
    let data = |body: &[u8]| ipfix(0, 1, &[set(256, body)]);
    records(&mut shard, &define(&BASE), NOW);
    assert_eq!(records(&mut shard, &data(&base().0), NOW).len(), 1);
    records(&mut shard, &define(&wide), NOW);
    assert_eq!(records(&mut shard, &data(&base().u16(443).0), NOW)[0].src_port, 443);
    assert_eq!(shard.exporters()[0].templates, 1);
    // Of another domain, and of another kind: not this one.
    records(&mut shard, &ipfix(0, 2, &[set(2, &template(2, &[]))]), NOW);
    records(&mut shard, &ipfix(0, 1, &[set(3, &template(3, &[]))]), NOW);
    assert_eq!(shard.exporters()[0].templates, 1);
    records(&mut shard, &ipfix(0, 1, &[set(2, &template(256, &[]))]), NOW);
    assert_eq!(shard.exporters()[0].templates, 0);
    assert_eq!(records(&mut shard, &data(&base().0), NOW), []);
    // All at once.
    records(&mut shard, &define(&BASE), NOW);
    records(&mut shard, &ipfix(0, 1, &[set(2, &template(2, &[]))]), NOW);
    assert_eq!(shard.exporters()[0].templates, 0);
}

/// An IPFIX message, with the arguments of a version 9 one.
fn ipfix_v9(_uptime: u32, sequence: u32, domain: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    ipfix(sequence, domain, sets)
}

#[test]
fn padding_of_a_template_set_takes_nothing_back() {
    // Zeros, and the number that takes back all of the other kind.
    for padding in [&[0; 4][..], &[0; 3], &[0; 12], &[0, 3, 0, 0], &[0, 9, 0, 0]] {
        let mut shard = shard(&config());
        let padded = [template(256, &iana(&BASE)), padding.to_vec()].concat();
        let sets = [set(2, &padded), set(256, &base().0)];
        assert_eq!(records(&mut shard, &ipfix(0, 1, &sets), NOW).len(), 1, "{padding:?}");
        let zeros = padding.iter().all(|octet| *octet == 0);
        assert_eq!(shard.exporters()[0].decode_errors, u64::from(!zeros), "{padding:?}");
    }
    let mut shard = shard(&config());
    let options = v9_options_template(300, &iana(&[(1, 4)]), &iana(&[(34, 4)]));
    let padded = [options, vec![0; 4]].concat();
    records(&mut shard, &v9(1, 1, 1, &[set(1, &padded)]), NOW);
    assert_eq!((shard.exporters()[0].templates, shard.exporters()[0].decode_errors), (1, 0));
}

#[test]
fn a_template_with_a_number_of_no_data_set_costs_itself_only() {
    for (set_id, data) in [(0, v9 as fn(u32, u32, u32, &[Vec<u8>]) -> Vec<u8>), (2, ipfix_v9)] {
        let mut shard = shard(&config());
        let many = [template(7, &iana(&BASE)), template(256, &iana(&BASE))].concat();
        let sets = [set(set_id, &many), set(256, &base().0)];
        assert_eq!(records(&mut shard, &data(1, 1, 1, &sets), NOW).len(), 1);
        assert_eq!(shard.exporters()[0].decode_errors, 1);
    }
}

#[test]
fn the_same_number_in_two_domains_or_of_two_exporters_is_two_templates() {
    let mut shard = shard(&config());
    let wide = [&[(7, 2)], &BASE[..]].concat();
    let one = [set(2, &template(256, &iana(&BASE))), set(256, &base().0)];
    let two = [set(2, &template(256, &iana(&wide))), set(256, &bytes().u16(9).raw(&base().0).0)];
    assert_eq!(records(&mut shard, &ipfix(0, 1, &one), NOW).len(), 1);
    assert_eq!(records(&mut shard, &ipfix(0, 2, &two), NOW)[0].src_port, 9);
    let other = "192.0.2.2:50000".parse().unwrap();
    let mut seen = 0;
    shard.records(other, &ipfix(0, 1, &one[1..]), NOW, |_| seen += 1).unwrap();
    assert_eq!((seen, shard.counters().unknown_templates), (0, 1));
    // The sender's port does not matter.
    let moved = "192.0.2.1:9".parse().unwrap();
    shard.records(moved, &ipfix(0, 1, &one[1..]), NOW, |_| seen += 1).unwrap();
    assert_eq!(seen, 1);
}

/// The fields of an options template and the octets of a record.
type Told<'a> = (&'a [(u16, u16)], Vec<u8>);

/// Options and data of an IPFIX exporter: sampling of a record that names `sampler`.
fn resolved(options: &[Told<'_>], record: Option<u8>) -> (u32, SamplingSource) {
    let mut shard = shard(&config());
    let mut sets = Vec::new();
    for (index, (fields, values)) in options.iter().enumerate() {
        let id = 300 + u16::try_from(index).unwrap();
        sets.push(set(3, &options_template(id, 1, &iana(fields))));
        sets.push(set(id, values));
    }
    let mut fields = BASE.to_vec();
    let mut values = base();
    if let Some(sampler) = record {
        fields.push((48, 1));
        values = values.u8(sampler);
    }
    sets.push(set(2, &template(256, &iana(&fields))));
    sets.push(set(256, &values.0));
    records(&mut shard, &ipfix(0, 1, &sets), NOW);
    sampling(&shard)
}

#[test]
fn sampling_by_sampler_template_and_domain() {
    let samplers: [Told<'_>; 2] = [
        (&[(302, 8), (304, 1), (305, 4), (306, 4)], bytes().u64(1).u8(1).u32(1).u32(99).0),
        (&[(302, 8), (304, 1), (309, 4), (310, 4)], bytes().u64(2).u8(3).u32(2).u32(1000).0),
    ];
    assert_eq!(resolved(&samplers, Some(1)), (100, SamplingSource::Sampler));
    assert_eq!(resolved(&samplers, Some(2)), (500, SamplingSource::Sampler));
    // No sampler named and two that differ: nobody can tell.
    assert_eq!(resolved(&samplers, None), (1, SamplingSource::Unknown));
    assert_eq!(resolved(&samplers[..1], None), (100, SamplingSource::Sampler));
    let of_template: [Told<'_>; 2] = [
        (&[(145, 2), (304, 2), (305, 4), (306, 4)], bytes().u16(256).u16(1).u32(1).u32(9).0),
        (&[(145, 2), (304, 2), (305, 4), (306, 4)], bytes().u16(999).u16(1).u32(1).u32(4).0),
    ];
    assert_eq!(resolved(&of_template, None), (10, SamplingSource::Template));
    let of_domain: [Told<'_>; 1] = [(&[(149, 4), (34, 4)], bytes().u32(1).u32(64).0)];
    assert_eq!(resolved(&of_domain, Some(7)), (64, SamplingSource::Domain));
}

#[test]
fn version_9_has_a_scope_type_for_templates() {
    let mut shard = shard(&config());
    let options = v9_options_template(300, &iana(&[(5, 2)]), &iana(&[(34, 4)]));
    let sets = [
        set(0, &template(256, &iana(&BASE))),
        set(1, &options),
        set(300, &bytes().u16(256).u32(20).0),
        set(300, &bytes().u16(257).u32(30).0),
        set(256, &base().0),
    ];
    assert_eq!(records(&mut shard, &v9(1, 1, 1, &sets), NOW)[0].sampling, 20);
    assert_eq!(sampling(&shard).1, SamplingSource::Template);
}

#[test]
fn a_rate_holds_for_the_exporters_other_ports_and_domains() {
    let mut shard = shard(&config());
    let option = options_template(300, 1, &iana(&[(149, 4), (34, 4)]));
    let told = [set(3, &option), set(300, &bytes().u32(9).u32(512).0)];
    let other_port = "192.0.2.1:40000".parse().unwrap();
    shard.records(other_port, &ipfix(0, 9, &told), NOW, |_| {}).unwrap();
    let sets = [set(2, &template(256, &iana(&BASE))), set(256, &base().0)];
    assert_eq!(records(&mut shard, &ipfix(0, 1, &sets), NOW)[0].sampling, 512);
    // Two domains that differ: neither holds for a third.
    let told = [set(3, &option), set(300, &bytes().u32(8).u32(64).0)];
    shard.records(other_port, &ipfix(0, 8, &told), NOW, |_| {}).unwrap();
    assert_eq!(records(&mut shard, &ipfix(1, 1, &sets), NOW)[0].sampling, 1);
    assert_eq!(sampling(&shard).1, SamplingSource::Unknown);
}

#[test]
fn sampling_in_the_record_and_by_the_operator() {
    let mut config = config();
    let of = |config: &_, fields: &[(u16, u16)], values: Bytes| {
        let mut shard = shard(config);
        let all = [&BASE[..], fields].concat();
        let sets = [set(2, &template(256, &iana(&all))), set(256, &base().raw(&values.0).0)];
        let flows = records(&mut shard, &ipfix(0, 1, &sets), NOW);
        assert_eq!(flows[0].sampling, sampling(&shard).0);
        sampling(&shard)
    };
    assert_eq!(of(&config, &[(34, 4)], bytes().u32(128)), (128, SamplingSource::Record));
    assert_eq!(of(&config, &[(34, 4)], bytes().u32(0x0100_0000)), (1, SamplingSource::Record));
    assert_eq!(of(&config, &[], bytes()), (1, SamplingSource::Unknown));
    config.exporters[0].default_sampling = Some(50);
    assert_eq!(of(&config, &[], bytes()), (50, SamplingSource::Default));
    assert_eq!(of(&config, &[(34, 4)], bytes().u32(128)), (128, SamplingSource::Record));
    config.exporters[0].sampling = Some(7);
    assert_eq!(of(&config, &[(34, 4)], bytes().u32(128)), (7, SamplingSource::Operator));
}

#[test]
fn what_ingress_and_egress_both_saw_counts_once() {
    let mut shard = shard(&config());
    let fields = [&BASE[..], &[(10, 4), (14, 4), (61, 1)]].concat();
    let sets = |direction: u8, input| {
        let record = base().u32(input).u32(9).u8(direction).0;
        [set(2, &template(256, &iana(&fields))), set(256, &record)]
    };
    let mut count =
        |direction, input, at| records(&mut shard, &ipfix(0, 1, &sets(direction, input)), at).len();
    assert_eq!(count(1, 4, NOW), 1, "egress alone");
    assert_eq!(count(0, 4, NOW), 1);
    assert_eq!(count(1, 4, NOW), 0, "sampled at its ingress already");
    assert_eq!(count(1, 5, NOW), 1, "came in where nothing is sampled");
    assert_eq!(count(1, 4, NOW + 61_000), 1, "ingress has stopped sampling");
    assert_eq!(shard.counters().duplicates, 1);
}

#[test]
fn with_external_interfaces_only_the_edge_counts() {
    let mut config = config();
    config.exporters[0].external_interfaces = vec![7, 3];
    let mut shard = shard(&config);
    let fields = [&BASE[..], &[(10, 4), (14, 4)]].concat();
    let mut count = |input, output| {
        let record = base().u32(input).u32(output).0;
        let sets = [set(2, &template(256, &iana(&fields))), set(256, &record)];
        records(&mut shard, &ipfix(0, 1, &sets), NOW).len()
    };
    assert_eq!([count(3, 1), count(1, 7), count(1, 2), count(0, 0)], [1, 1, 0, 1]);
}

#[test]
fn gaps_count_records_in_ipfix_and_datagrams_in_v9() {
    let lost = |shard: &Shard| shard.exporters()[0].lost;
    let mut shard = shard(&config());
    let define = set(2, &template(256, &iana(&BASE)));
    let data = || set(256, &[base().0, base().0].concat());
    records(&mut shard, &ipfix(0, 1, &[define, data()]), NOW);
    records(&mut shard, &ipfix(2, 1, &[data()]), NOW);
    assert_eq!(lost(&shard), 0);
    records(&mut shard, &ipfix(10, 1, &[data()]), NOW);
    assert_eq!(lost(&shard), 6);
    // An older one overtaken on the way was not lost after all.
    records(&mut shard, &ipfix(4, 1, &[data()]), NOW);
    assert_eq!(lost(&shard), 4);
    records(&mut shard, &ipfix(12, 1, &[data()]), NOW);
    assert_eq!(lost(&shard), 4);
    records(&mut shard, &v9(1, 100, 1, &[]), NOW);
    records(&mut shard, &v9(1, 101, 1, &[]), NOW);
    records(&mut shard, &v9(1, 104, 1, &[]), NOW);
    assert_eq!(lost(&shard), 6);
    // A restart is no loss, near or far.
    let mut follow = |from: u32| {
        for sequence in from..from + 10 {
            records(&mut shard, &v9(1, sequence, 1, &[]), NOW);
        }
        lost(&shard)
    };
    assert_eq!(follow(50_000_000), 6);
    assert_eq!(follow(0), 6);
    assert!(follow(1) <= 6);
}

#[test]
fn data_before_its_template_counts_at_its_own_time() {
    let mut shard = shard(&config());
    let mut slice = weir_model::Slice::default();
    let data = ipfix(0, 1, &[set(256, &base().0)]);
    shard.datagram(router(), &data, NOW).unwrap();
    shard.seal(NOW.slot(), &mut slice);
    assert!(slice.hosts.is_empty());
    let later = NOW + 20_000;
    let define = ipfix(1, 1, &[set(2, &template(256, &iana(&BASE)))]);
    shard.datagram(router(), &define, later).unwrap();
    shard.seal(later.slot(), &mut slice);
    assert_eq!(slice.hosts.len(), 1);
    assert!(slice.hosts[0].slot.abs_diff(NOW.slot()) <= 10);
    // It is no evidence, and says of whom it speaks and until when.
    assert!(slice.samples.is_empty());
    let [(host, until)] = slice.waited[..] else { panic!("{:?}", slice.waited) };
    assert_eq!(host, slice.hosts[0].host);
    assert!(until <= NOW && until.since(NOW) == 0);
    // What comes at once is news.
    shard.datagram(router(), &ipfix(2, 1, &[set(256, &base().0)]), later).unwrap();
    shard.seal(later.slot() + 1, &mut slice);
    assert_eq!((slice.hosts.len(), slice.samples.len(), slice.waited.len()), (1, 1, 0));
}

#[test]
fn an_exporter_that_counts_frames_is_brought_down_to_packets() {
    let mut config = config();
    config.exporters[0].counts_frames = true;
    let mut shard = shard(&config);
    let record = v5_record(SRC, DST, 80, 5, 5);
    let flow = records(&mut shard, &v5(5, 0, 1, &[record]), NOW)[0];
    assert_eq!((flow.packets, flow.bytes, flow.length_max), (10, 860, 86));
    let sets = [set(2, &template(256, &iana(&BASE))), set(256, &base().0)];
    let flow = records(&mut shard, &ipfix(0, 1, &sets), NOW)[0];
    assert_eq!((flow.packets, flow.bytes), (10, 860));
}

#[test]
fn an_exporter_is_told_by_what_it_did() {
    let mut shard = shard(&config());
    let event = template(257, &iana(&[(8, 4), (12, 4), (233, 1)]));
    let sets = [
        set(2, &event),
        set(257, &bytes().raw(&SRC).raw(&DST).u8(1).0),
        set(300, &[1; 16]),
        set(2, &bytes().u16(258).u16(100).u32(0x0001_0004).0),
    ];
    shard.datagram(router(), &ipfix(0, 1, &sets), NOW).unwrap();
    let up = 1_000_000;
    let flow = |end: u32, length: u32| v5_record(SRC, DST, 80, up - end - length, up - end);
    for (end, length) in [(100, 10_000), (200, 10_000), (300, 9000)] {
        shard.datagram(router(), &v5(up, 0, 1, &[flow(end, length)]), NOW).unwrap();
    }
    let status = &shard.exporters()[0];
    let drops: Vec<_> = status.drops.iter().map(|d| (d.reason.as_str(), d.count)).collect();
    assert_eq!(drops, [("bad-template", 1), ("unknown-template", 1), ("not-traffic", 1)]);
    assert_eq!(status.active_timeout_ms, 10_000);
    assert!((10_000..13_000).contains(&status.lag_ms), "{}", status.lag_ms);
    assert!(status.lag_p50_ms <= status.lag_ms && status.lag_p50_ms > 0);
}
