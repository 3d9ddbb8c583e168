//! What the exporters write, read back by parsers that are not weir's: every packet that passed is
//! in the totals, once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr};

use netflow_parser::variable_versions::{ipfix, v9};
use netflow_parser::{DataNumber, FieldValue, NetflowPacket, NetflowParser};
use sflow_parser::models::core::{FlowData, SampleData};
use weir_model::{Fragment, Millis};
use weir_traffic::encode::template::SamplingStyle;
use weir_traffic::exporter::{
    AgentConfig, CacheConfig, CacheVersion, Exporter, ExporterSpec, Kind,
};
use weir_traffic::{Datagram, Rng, SECOND_US, Scene};

/// Packets and octets.
type Totals = (u64, u64);

/// Plays the demonstration's first seconds through one exporter; returns its datagrams and what
/// passed it, per protocol number.
fn play(kind: Kind, seconds: u64, ipv6: bool) -> (Vec<Datagram>, Totals) {
    let spec = ExporterSpec {
        name: "router".to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        kind,
        clock_skew_ms: 0,
        faults: Vec::new(),
        inbound_only: false,
    };
    let mut scene = Scene::demo(5);
    scene.exporters.clear();
    let epoch = Millis::from_secs(1_800_000_000);
    let mut exporter = Exporter::new(&spec, 0, epoch, &mut Rng::new(9));
    let mut stream = scene.stream(epoch);
    let (mut out, mut none) = (Vec::new(), std::collections::VecDeque::new());
    let mut totals = (0, 0);
    exporter.advance(0, &mut out);
    while stream.now_us() < seconds * SECOND_US && stream.tick(&mut none) {
        for packet in stream.packets() {
            if packet.src.is_ipv4() || ipv6 {
                totals.0 += u64::from(packet.count);
                totals.1 += u64::from(packet.count) * u64::from(packet.length);
            }
            exporter.packet(packet, &mut out);
        }
        exporter.advance(stream.now_us(), &mut out);
    }
    exporter.advance((seconds + 100) * SECOND_US, &mut out);
    (out, totals)
}

const fn number(value: &FieldValue) -> u64 {
    match value {
        FieldValue::DataNumber(DataNumber::U32(n)) => *n as u64,
        FieldValue::DataNumber(DataNumber::U64(n)) => *n,
        _ => 0,
    }
}

/// Sums what netflow_parser reads; the counters are the third and fourth field of a record.
fn read(datagrams: &[Datagram]) -> (Totals, usize) {
    let mut parser = NetflowParser::default();
    let (mut totals, mut options) = ((0, 0), 0);
    let mut add = |packets, bytes| {
        totals.0 += packets;
        totals.1 += bytes;
    };
    for datagram in datagrams {
        let result = parser.parse_bytes(&datagram.payload);
        assert!(result.error.is_none(), "{:?}", result.error);
        for packet in result.packets {
            match packet {
                NetflowPacket::V5(message) => {
                    assert_eq!(usize::from(message.header.count), message.flowsets.len());
                    for flow in message.flowsets {
                        add(u64::from(flow.d_pkts), u64::from(flow.d_octets));
                    }
                }
                NetflowPacket::V9(message) => {
                    for set in message.flowsets {
                        match set.body {
                            v9::FlowSetBody::Data(data) => {
                                data.fields
                                    .iter()
                                    .for_each(|r| add(number(&r[2].1), number(&r[3].1)));
                            }
                            v9::FlowSetBody::OptionsData(_) => options += 1,
                            v9::FlowSetBody::NoTemplate(_) => panic!("data before its template"),
                            _ => {}
                        }
                    }
                }
                NetflowPacket::IPFix(message) => {
                    for set in message.flowsets {
                        match set.body {
                            ipfix::FlowSetBody::Data(data) => {
                                data.fields
                                    .iter()
                                    .for_each(|r| add(number(&r[2].1), number(&r[3].1)));
                            }
                            ipfix::FlowSetBody::OptionsData(_) => options += 1,
                            ipfix::FlowSetBody::NoTemplate(_) => panic!("data before its template"),
                            _ => {}
                        }
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    (totals, options)
}

#[test]
fn unsampled_caches_account_for_every_packet() {
    for version in [
        CacheVersion::V5,
        CacheVersion::V9(SamplingStyle::None),
        CacheVersion::V9(SamplingStyle::Sampler),
        CacheVersion::Ipfix(SamplingStyle::Domain),
        CacheVersion::Ipfix(SamplingStyle::Selector),
    ] {
        let config = CacheConfig {
            version,
            active_us: 2 * SECOND_US,
            inactive_us: SECOND_US,
            flows_max: 2000,
            ..CacheConfig::default()
        };
        let (datagrams, passed) = play(Kind::Cache(config), 5, version != CacheVersion::V5);
        let (totals, options) = read(&datagrams);
        assert_eq!(totals, passed, "{version:?}");
        let announced =
            !matches!(version, CacheVersion::V5 | CacheVersion::V9(SamplingStyle::None));
        assert_eq!(options > 0, announced, "{version:?}");
        assert!(datagrams.iter().all(|d| d.payload.len() <= 1472), "{version:?}");
    }
}

#[test]
fn sampled_caches_are_right_within_the_sampling_error() {
    let config = CacheConfig { sampling: 100, active_us: SECOND_US, ..CacheConfig::default() };
    let (datagrams, passed) = play(Kind::Cache(config), 10, true);
    let ((packets, _), _) = read(&datagrams);
    let ratio = packets as f64 * 100.0 / passed.0 as f64;
    assert!((ratio - 1.0).abs() < 4.0 / (packets as f64).sqrt(), "{ratio}");
}

#[test]
fn sflow_samples_carry_the_packets_headers() {
    let (datagrams, passed) = play(Kind::Sflow(AgentConfig::default()), 12, true);
    let mut samples = 0u64;
    let mut pools = [0u32; 2];
    let mut sequence = 0;
    for datagram in &datagrams {
        let read = sflow_parser::parsers::parse_datagram(&datagram.payload).unwrap();
        sequence += 1;
        assert_eq!(read.sequence_number, sequence);
        for sample in read.samples {
            let SampleData::FlowSample(flow) = sample.sample_data else { continue };
            samples += 1;
            assert_eq!(flow.sampling_rate, 1000);
            pools[flow.source_id.index() as usize - 1] = flow.sample_pool;
            let FlowData::SampledHeader(header) = &flow.flow_records[0].flow_data else {
                panic!("no raw header")
            };
            let ether = &header.header[12..14];
            assert!(ether == [8, 0] || ether == [0x86, 0xdd]);
            if ether == [8, 0] {
                let length = u32::from(u16::from_be_bytes([header.header[16], header.header[17]]));
                assert_eq!(header.frame_length, (length + 14).max(60) + 4);
            }
        }
    }
    let ratio = samples as f64 * 1000.0 / passed.0 as f64;
    assert!((ratio - 1.0).abs() < 4.0 / (samples as f64).sqrt(), "{ratio}");
    // The last sample of each source was taken shortly before the end.
    let seen = u64::from(pools[0]) + u64::from(pools[1]);
    assert!(seen <= passed.0 && seen + 20_000 > passed.0, "{seen} of {}", passed.0);
}

#[test]
fn a_fragment_hides_its_ports_from_the_router() {
    let mut scene = Scene::demo(5);
    for source in &mut scene.sources {
        for variant in &mut source.variants {
            variant.fragment = Fragment::Later;
            variant.remote = weir_traffic::Port::None;
            variant.local = weir_traffic::Port::None;
        }
    }
    let datagram = scene.stream(Millis(0)).find(|d| d.exporter == 0).unwrap();
    let read = sflow_parser::parsers::parse_datagram(&datagram.payload).unwrap();
    let SampleData::FlowSample(flow) = &read.samples[0].sample_data else { panic!("no sample") };
    let FlowData::SampledHeader(header) = &flow.flow_records[0].flow_data else {
        panic!("no raw header")
    };
    let offset = u16::from_be_bytes([header.header[20], header.header[21]]) & 0x1fff;
    assert!(header.header[12] == 8 && offset > 0 || header.header[12] == 0x86);
}
