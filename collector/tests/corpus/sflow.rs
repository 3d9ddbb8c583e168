//! weir beside sflow-parser: the same captures, the same samples by value. The oracle cuts datagrams into
//! samples; the headers in them are read here once more, by a reader that knows Ethernet, VLAN tags,
//! IPv4, IPv6 and ports, and nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sflow_parser::models::core::{FlowData, FlowRecord as Record};
use sflow_parser::models::record_flows::HeaderProtocol;
use sflow_parser::{SampleData, parse_datagram};
use weir_model::FlowRecord;

use crate::read::{Datagram, corpus, datagrams};
use crate::{START, Set, manifest, shard};

/// Source, destination, ports, protocol, octets, interfaces, rate.
type Sample = (IpAddr, IpAddr, u16, u16, u8, u64, u32, u32, u32);
type Samples = BTreeMap<Sample, u32>;

fn ours(datagrams: &[Datagram]) -> Samples {
    let mut shard = shard(0);
    let mut samples = Samples::new();
    for datagram in datagrams {
        let now = datagram.at.unwrap_or(START);
        let _ = shard.records(datagram.from, &datagram.payload, now, |r: &FlowRecord| {
            let sample = (
                r.src,
                r.dst,
                r.src_port,
                r.dst_port,
                r.protocol,
                r.bytes,
                r.input_if,
                r.output_if,
                r.sampling,
            );
            *samples.entry(sample).or_default() += 1;
        });
    }
    samples
}

fn theirs(datagrams: &[Datagram]) -> Samples {
    let mut samples = Samples::new();
    for datagram in datagrams {
        let Ok(parsed) = parse_datagram(&datagram.payload) else { continue };
        for sample in parsed.samples {
            let interface = |format: u32, value: u32| if format == 0 { value } else { 0 };
            let (records, rate, input, output) = match sample.sample_data {
                SampleData::FlowSample(s) => (
                    s.flow_records,
                    s.sampling_rate,
                    interface(s.input.format().into(), s.input.value()),
                    interface(s.output.format().into(), s.output.value()),
                ),
                SampleData::FlowSampleExpanded(s) => (
                    s.flow_records,
                    s.sampling_rate,
                    interface(s.input.format, s.input.value),
                    interface(s.output.format, s.output.value),
                ),
                _ => continue,
            };
            let Some((src, dst, ports, protocol, bytes)) = records.iter().find_map(packet) else {
                continue;
            };
            let sample = (src, dst, ports.0, ports.1, protocol, bytes, input, output, rate);
            *samples.entry(sample).or_default() += 1;
        }
    }
    samples
}

type Packet = (IpAddr, IpAddr, (u16, u16), u8, u64);

fn packet(record: &Record) -> Option<Packet> {
    let low = |n: u32| n as u16;
    match &record.flow_data {
        FlowData::SampledHeader(h) => match h.protocol {
            HeaderProtocol::EthernetIso88023 => ethernet(&h.header),
            HeaderProtocol::Ipv4 | HeaderProtocol::Ipv6 => ip(&h.header),
            _ => None,
        },
        FlowData::SampledIpv4(p) => Some((
            p.src_ip.into(),
            p.dst_ip.into(),
            ports_of(p.protocol as u8, (low(p.src_port), low(p.dst_port))),
            p.protocol as u8,
            p.length.into(),
        )),
        FlowData::SampledIpv6(p) => Some((
            p.src_ip.into(),
            p.dst_ip.into(),
            ports_of(p.protocol as u8, (low(p.src_port), low(p.dst_port))),
            p.protocol as u8,
            p.length.into(),
        )),
        _ => None,
    }
}

fn ports_of(protocol: u8, ports: (u16, u16)) -> (u16, u16) {
    if matches!(protocol, 1 | 58) { (0, 0) } else { ports }
}

fn ethernet(frame: &[u8]) -> Option<Packet> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    match frame.get(at..at + 2)? {
        [0x08, 0x00] | [0x86, 0xdd] => ip(&frame[at + 2..]),
        _ => None,
    }
}

fn ip(packet: &[u8]) -> Option<Packet> {
    let word = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let (src, dst, protocol, length, body): (IpAddr, IpAddr, u8, u64, usize) = match packet[0] >> 4
    {
        4 => {
            let address = |at: usize| {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?))
            };
            let later = word(6)? & 0x1fff != 0;
            let body = if later { usize::MAX } else { usize::from(packet[0] & 15) * 4 };
            (address(12)?.into(), address(16)?.into(), packet[9], word(2)?.into(), body)
        }
        6 => {
            let address = |at: usize| {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?))
            };
            let length = u64::from(word(4)?) + 40;
            (address(8)?.into(), address(24)?.into(), *packet.get(6)?, length, 40)
        }
        _ => return None,
    };
    // Extension headers are beyond this reader.
    if matches!(protocol, 0 | 43 | 44 | 60) {
        return None;
    }
    let port = |at: usize| {
        let at = body.checked_add(at)?;
        Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
    };
    let ports = match protocol {
        6 | 17 | 132 => (port(0).unwrap_or(0), port(2).unwrap_or(0)),
        _ => (0, 0),
    };
    Some((src, dst, ports, protocol, length))
}

#[test]
fn samples_are_those_that_sflow_parser_reads() {
    let Some(corpus) = corpus() else { return };
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for Set { set, files, .. } in manifest(&corpus) {
        let all: Vec<Datagram> =
            files.iter().flat_map(|file| datagrams(&corpus.join(&set).join(file))).collect();
        if !all.iter().any(|datagram| datagram.payload.starts_with(&[0, 0, 0, 5])) {
            continue;
        }
        let (ours, theirs) = (ours(&all), theirs(&all));
        for (sample, count) in &theirs {
            compared += count;
            let own = ours.get(sample).copied().unwrap_or(0);
            if own < *count {
                wrong.push(format!("{set}: {own} instead of {count} of {sample:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The corpus has no more packets that this reader and the oracle both know.
    assert!(compared >= 14, "{compared}");
}
