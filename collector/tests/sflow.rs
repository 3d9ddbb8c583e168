//! sFlow samples and what packets look like inside them.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a test may panic")]

mod support;

use support::*;
use weir_collector::{Config, DecodeErrorKind, Shard, Tunnel};
use weir_model::{FlowRecord, Forwarding, Fragment, SamplingSource};

const SRC: [u8; 4] = [198, 51, 100, 1];
const DST: [u8; 4] = [203, 0, 113, 7];

fn inner() -> Vec<u8> {
    ipv4(17, SRC, DST, &udp(53, 30120, &[0; 20]))
}

/// What a sample of this raw header yields.
fn sampled(config: &Config, protocol: u32, header: &[u8]) -> Option<FlowRecord> {
    let wire = u32::try_from(header.len()).unwrap() + 4;
    let sample = flow_sample(1, 100, 100, &[raw_header(protocol, wire, header)]);
    let flows = records(&mut shard(config), &sflow(1, &[sample]), NOW);
    assert!(flows.len() <= 1);
    flows.first().copied()
}

/// As text: addresses, ports, protocol, octets.
fn text(flow: Option<FlowRecord>) -> String {
    let Some(f) = flow else { return "nothing".into() };
    format!("{}:{} > {}:{} p{} {}", f.src, f.src_port, f.dst, f.dst_port, f.protocol, f.bytes)
}

#[test]
fn headers_of_every_kind_lead_to_the_packet() {
    let check = |what: &str, protocol, header: Vec<u8>| {
        let got = text(sampled(&config(), protocol, &header));
        assert_eq!(got, "198.51.100.1:53 > 203.0.113.7:30120 p17 48", "{what}");
    };
    let ip = inner();
    let label = |bottom: u32| 0x0006_4040 | bottom << 8;
    check("ethernet", 1, ethernet(0x0800, &ip));
    check("802.1q", 1, ethernet(0x8100, &bytes().u16(5).u16(0x0800).raw(&ip).0));
    let qinq = bytes().u16(5).u16(0x8100).u16(6).u16(0x0800).raw(&ip).0;
    check("802.1ad", 1, ethernet(0x88a8, &qinq));
    check("old 802.1ad", 1, ethernet(0x9100, &qinq));
    let mpls = bytes().u32(label(0)).u32(label(1)).raw(&ip).0;
    check("mpls", 1, ethernet(0x8847, &mpls));
    check("bare mpls", 13, mpls);
    let pseudowire = bytes().u32(label(1)).raw(&ethernet(0x0800, &ip)).0;
    check("eompls", 1, ethernet(0x8847, &pseudowire));
    let worded = bytes().u32(label(1)).u32(0x0000_0007).raw(&ethernet(0x0800, &ip)).0;
    check("eompls with control word", 1, ethernet(0x8847, &worded));
    check("pppoe", 1, ethernet(0x8864, &bytes().u32(0x1100_0001).u16(50).u16(0x21).raw(&ip).0));
    check("ipv4", 11, ip.clone());
    check("ppp", 7, bytes().u16(0xff03).u16(0x21).raw(&ip).0);
    let snap = bytes().raw(&[0xaa, 0xaa, 3, 0, 0, 0]).u16(0x0800).raw(&ip).0;
    check("snap", 1, ethernet(56, &snap));
    let wifi = bytes().raw(&[0x88, 0x01]).raw(&[0; 24]).raw(&snap).0;
    check("802.11 qos data", 15, wifi);
}

#[test]
fn tunnels_show_their_outside_or_their_inside() {
    let tunnel = |protocol: u8, body: &[u8]| {
        ethernet(0x0800, &ipv4(protocol, [192, 0, 2, 8], [192, 0, 2, 9], body))
    };
    let within = |tunnel| Config { tunnel, ..config() };
    let check = |what: &str, header: &[u8]| {
        let outer = sampled(&within(Tunnel::Outer), 1, header).unwrap();
        assert_eq!(outer.dst.to_string(), "192.0.2.9", "{what}");
        let got = text(sampled(&within(Tunnel::Inner), 1, header));
        assert_eq!(got, "198.51.100.1:53 > 203.0.113.7:30120 p17 48", "{what}");
    };
    let ip = inner();
    check("ipip", &tunnel(4, &ip));
    check("gre", &tunnel(47, &bytes().u16(0).u16(0x0800).raw(&ip).0));
    let keyed = bytes().u16(0x2000).u16(0x0800).u32(77).raw(&ip).0;
    check("gre with a key", &tunnel(47, &keyed));
    let bridged = bytes().u16(0).u16(0x6558).raw(&ethernet(0x0800, &ip)).0;
    check("gre with ethernet", &tunnel(47, &bridged));
    let vxlan = bytes().u32(0x0800_0000).u32(0x100).raw(&ethernet(0x0800, &ip)).0;
    check("vxlan", &tunnel(17, &udp(40_000, 4789, &vxlan)));
    let geneve = bytes().u16(0x0100).u16(0x6558).u32(0x100).u32(0).raw(&ethernet(0x0800, &ip)).0;
    check("geneve with an option", &tunnel(17, &udp(40_000, 6081, &geneve)));
    // SRv6: a routing header and then the packet, over IPv6.
    let routing = bytes().raw(&[4, 2, 4, 0, 0, 0, 0, 0]).raw(&[0; 16]).raw(&ip).0;
    let mut srv6 = ethernet(0x86dd, &ipv6(43, 1, 2, &routing));
    // To a router, not to a protected host.
    srv6[42] = 0xff;
    assert_eq!(sampled(&within(Tunnel::Outer), 1, &srv6).unwrap().protocol, 4);
    let got = text(sampled(&within(Tunnel::Inner), 1, &srv6));
    assert_eq!(got, "198.51.100.1:53 > 203.0.113.7:30120 p17 48");
    // 6in4.
    let v6 = ipv6(17, 1, 2, &udp(1, 2, &[]));
    let got = text(sampled(&within(Tunnel::Inner), 1, &tunnel(41, &v6)));
    assert_eq!(got, "2001:db8:1::1:1 > 2001:db8:1::2:2 p17 48");
    // A tunnel whose inside was cut off still shows its outside.
    let cut = tunnel(47, &[0, 0]);
    assert_eq!(sampled(&within(Tunnel::Inner), 1, &cut).unwrap().protocol, 47);
}

#[test]
fn ipv6_extension_headers_are_passed_over() {
    let body = udp(53, 30120, &[0; 20]);
    let hop = bytes().raw(&[60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]).raw(&body).0;
    let flow = sampled(&config(), 1, &ethernet(0x86dd, &ipv6(0, 1, 2, &hop))).unwrap();
    assert_eq!((flow.protocol, flow.dst_port, flow.bytes), (17, 30120, 84));
    let fragment = |word: u16| {
        let body = bytes().raw(&[17, 0]).u16(word).u32(9).raw(&body).0;
        let flow = sampled(&config(), 12, &ipv6(44, 1, 2, &body)).unwrap();
        (flow.fragment, flow.protocol, flow.dst_port)
    };
    assert_eq!(fragment(0x0001), (Fragment::First, 17, 30120));
    assert_eq!(fragment(0x05a9), (Fragment::Later, 17, 0));
}

#[test]
fn octets_are_those_of_layer_3_whatever_the_frame() {
    let syn = |wire: u32, tail: &[u8]| {
        let tcp = bytes().u16(1000).u16(25565).u64(0).u16(0x5002).u16(0).u32(0).0;
        let frame = ethernet(0x0800, &ipv4(6, SRC, DST, &tcp));
        let header = bytes().raw(&frame).raw(tail).0;
        let sample = flow_sample(1, 1, 1, &[raw_header(1, wire, &header)]);
        let flow = records(&mut shard(&config()), &sflow(1, &[sample]), NOW)[0];
        (flow.bytes, flow.tcp_flags)
    };
    // 40 octets of IP, padded by Ethernet to 60, with a frame check sequence 64.
    assert_eq!(syn(64, &[0; 6]), (40, 2));
    assert_eq!(syn(58, &[]), (40, 2));
}

#[test]
fn a_parsed_record_helps_where_the_header_was_cut() {
    let cut = &ethernet(0x0800, &inner())[..34];
    let parsed = |dst_port: u32| {
        let head = bytes().u32(48).u32(17).raw(&SRC).raw(&DST).u32(53).u32(dst_port);
        tlv(3, &head.u32(0).u32(0).0)
    };
    let of = |records_of: &[Vec<u8>]| {
        let sample = flow_sample(1, 1, 1, records_of);
        records(&mut shard(&config()), &sflow(1, &[sample]), NOW)[0].dst_port
    };
    assert_eq!(of(&[raw_header(1, 66, cut), parsed(7)]), 7);
    assert_eq!(of(&[parsed(7), raw_header(1, 66, cut)]), 7);
    assert_eq!(of(&[raw_header(1, 66, &ethernet(0x0800, &inner())), parsed(7)]), 30120);
    assert_eq!(of(&[parsed(7)]), 7);
    assert_eq!(of(&[tlv(1001, &[0; 16]), parsed(7), tlv(1003, &[0; 8])]), 7);
}

#[test]
fn parsed_records_stand_for_a_header_that_is_absent() {
    let of = |record: Vec<u8>| {
        let sample = flow_sample(1, 10, 10, &[tlv(1001, &[0; 16]), record]);
        let flows = records(&mut shard(&config()), &sflow(1, &[sample]), NOW);
        let [flow] = flows.as_slice() else { panic!("{flows:?}") };
        (text(Some(*flow)), flow.tcp_flags, flow.icmp_type, flow.packets)
    };
    let v4 = |protocol: u32, ports: (u32, u32)| {
        let head = bytes().u32(90).u32(protocol).raw(&SRC).raw(&DST).u32(ports.0).u32(ports.1);
        tlv(3, &head.u32(0x12).u32(0).0)
    };
    let tcp = "198.51.100.1:53 > 203.0.113.7:30120 p6 90".to_owned();
    assert_eq!(of(v4(6, (53, 30120))), (tcp, 0x12, 0, 1));
    let icmp = "198.51.100.1:0 > 203.0.113.7:0 p1 90".to_owned();
    assert_eq!(of(v4(1, (0, 0x0800))), (icmp, 0, 8, 1));
    let address = |n| [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let head = bytes().u32(1200).u32(17).raw(&address(1)).raw(&address(2)).u32(53).u32(9);
    let udp = "2001:db8:1::1:53 > 2001:db8:1::2:9 p17 1200".to_owned();
    assert_eq!(of(tlv(4, &head.u32(0).u32(0).0)), (udp, 0, 0, 1));
}

#[test]
fn gaps_are_counted_in_datagrams_for_each_agent() {
    let mut shard = shard(&config());
    let sub_agent = |n: u8, sequence| {
        let mut datagram = sflow(sequence, &[]);
        datagram[15] = n;
        datagram
    };
    for (agent, sequence) in [(0, 5), (1, 900), (0, 6), (1, 903), (0, 10)] {
        shard.datagram(router(), &sub_agent(agent, sequence), NOW).unwrap();
    }
    assert_eq!(shard.exporters()[0].lost, 2 + 3);
}

fn expanded(source: u32, input: u32, output: (u32, u32), header: &[u8]) -> Vec<u8> {
    let head = bytes().u32(1).u32(0).u32(source).u32(256).u32(256).u32(0);
    let ports = head.u32(0).u32(input).u32(output.0).u32(output.1).u32(1);
    tlv(3, &ports.raw(&raw_header(1, 100, header)).0)
}

#[test]
fn interfaces_and_discards_of_both_forms() {
    let header = ethernet(0x0800, &inner());
    let of = |sample: Vec<u8>| {
        let flow = records(&mut shard(&config()), &sflow(1, &[sample]), NOW)[0];
        (flow.input_if, flow.output_if, flow.forwarding, flow.sampling)
    };
    let large = 0x4000_0001;
    assert_eq!(of(expanded(large, large, (0, 9), &header)), (large, 9, Forwarding::Forwarded, 256));
    assert_eq!(of(expanded(1, 1, (1, 258), &header)), (1, 0, Forwarding::Dropped, 256));
    assert_eq!(of(expanded(1, 1, (2, 4), &header)), (1, 0, Forwarding::Forwarded, 256));
    let record = raw_header(1, 100, &header);
    let head = bytes().u32(1).u32(3).u32(10).u32(10).u32(0).u32(3).u32(1 << 30 | 2).u32(1);
    assert_eq!(of(tlv(1, &head.raw(&record).0)), (3, 0, Forwarding::Dropped, 10));
    // A packet from the drop monitor stands for itself.
    let drop = bytes().u32(1).u32(0).u32(3).u32(0).u32(3).u32(0).u32(258).u32(1);
    assert_eq!(of(tlv(5, &drop.raw(&record).0)), (3, 0, Forwarding::Dropped, 1));
}

#[test]
fn a_switch_that_samples_both_ways_counts_once() {
    let header = ethernet(0x0800, &inner());
    let mut shard = shard(&config());
    let mut count = |source, input| {
        records(&mut shard, &sflow(1, &[expanded(source, input, (0, 9), &header)]), NOW).len()
    };
    assert_eq!(count(9, 4), 1);
    assert_eq!(count(4, 4), 1);
    assert_eq!(count(9, 4), 0);
}

#[test]
fn an_agent_that_drops_samples_is_scaled_by_its_pool() {
    let mut shard = shard(&config());
    let header = ethernet(0x0800, &inner());
    let mut scaled = 0_u64;
    for n in 0..4000_u32 {
        // Says 1:1000, delivers 1:16000, for 80 seconds.
        let sample = flow_sample(n, 1000, n * 16_000, &[raw_header(1, 100, &header)]);
        let flows = records(&mut shard, &sflow(n, &[sample]), NOW + u64::from(n) * 20);
        scaled += flows.iter().map(FlowRecord::scaled_packets).sum::<u64>();
    }
    let off = scaled as f64 / (4000.0 * 16_000.0);
    assert!((0.9..=1.01).contains(&off), "{off}");
    assert_eq!(shard.exporters()[0].sampling_source, SamplingSource::Pool);
}

#[test]
fn counters_are_read_beside_samples() {
    let counters = |octets: u64| {
        let head = bytes().u32(3).u32(6).u64(10_000_000_000).u32(1).u32(3).u64(octets);
        tlv(2, &bytes().u32(1).u32(3).u32(1).raw(&tlv(1, &head.raw(&[0; 56]).0)).0)
    };
    let expanded = |octets: u64| {
        let body = counters(octets);
        tlv(4, &bytes().u32(1).u32(0).raw(&body[12..]).0)
    };
    for form in [&counters as &dyn Fn(u64) -> Vec<u8>, &expanded] {
        let mut shard = shard(&config());
        records(&mut shard, &sflow(1, &[form(0)]), NOW);
        records(&mut shard, &sflow(2, &[form(12_500_000)]), NOW + 1000);
        let exporters = shard.exporters();
        let [port] = &exporters[0].interfaces[..] else { panic!() };
        assert_eq!((port.speed_bps, port.counted_in_bps), (10_000_000_000, 100_000_000));
        assert_eq!(shard.counters().counter_samples, 2);
    }
}

#[test]
fn only_what_is_bad_is_lost() {
    let header = ethernet(0x0800, &inner());
    let good = || flow_sample(1, 1, 1, &[raw_header(1, 100, &header)]);
    let vendor = tlv(4413 << 12 | 1, &[1; 12]);
    let broken = tlv(1, &[0; 8]);
    let odd = flow_sample(1, 1, 1, &[raw_header(99, 100, &header)]);
    let lying = flow_sample(1, 1, 1, &[bytes().u32(1).u32(0xffff_ffff).0]);
    let samples = [good(), vendor, broken, odd, lying, good()];
    let mut shard = shard(&config());
    assert_eq!(records(&mut shard, &sflow(1, &samples), NOW).len(), 2);
    let counters = shard.counters();
    assert_eq!(counters.errors[DecodeErrorKind::BadSample as usize], 2);
    assert_eq!(counters.not_ip, 1);
    // The count lies, a length lies: what came before stands.
    let mut lies = sflow(2, &[good(), good()]);
    lies[27] = 200;
    let mut seen = 0;
    let error = shard.records(router(), &lies, NOW, |_| seen += 1).unwrap_err();
    assert_eq!((error.kind, seen), (DecodeErrorKind::Truncated, 2));
    lies[4..8].copy_from_slice(&[0, 0, 0, 9]);
    let error = shard.records(router(), &lies, NOW, |_| ()).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::BadAddressType);
}

#[test]
fn the_operator_has_the_last_word_on_sampling() {
    let mut config = config();
    config.exporters[0].sampling = Some(5);
    let header = ethernet(0x0800, &inner());
    let sample = flow_sample(1, 100, 100, &[raw_header(1, 100, &header)]);
    let mut shard: Shard = shard(&config);
    assert_eq!(records(&mut shard, &sflow(1, &[sample]), NOW)[0].sampling, 5);
}
