//! weir beside netflow_parser and sflow-parser: the same captures, the same values.
//!
//! Each flow that an oracle reads must be among weir's, with its addresses, ports, protocol,
//! octets and packets. Where weir reads more, the set is listed with the oracle's fault.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netflow_parser::NetflowParser;
use serde_json::Value;
use weir_model::FlowRecord;

use crate::read::{Datagram, corpus, datagrams};
use crate::{START, Set, manifest, shard};

/// Source, destination, ports, octets, packets.
type Flow = (IpAddr, IpAddr, u16, u16, u64, u64);
type Flows = BTreeMap<Flow, u32>;

/// Sets of which weir reads more flows than netflow_parser 1.0.6, and why.
const ORACLE_LOSES: [(&str, &str); 7] = [
    ("106-ipfixv10-huawei-vrf-name", "drops records with an empty variable-length field"),
    ("tg-issue-13305", "the same"),
    ("ls-netflow-9-template-with-0-length-fields", "has no counters of the egress beside others"),
    ("ls-netflow-9-palo-alto-1-flowset-in-large-zero-filled-packet", "fails on a zero-filled tail"),
    ("tg-issue-14370", "rejects a template with a field of length 0"),
    ("ls-netflow-5-invalid-01", "rejects a datagram whose count is beyond 30"),
    ("ls-netflow-5-invalid-02", "the same"),
];

/// Sets that weir reads otherwise by intent.
const READ_OTHERWISE: [(&str, &str); 4] = [
    ("ls-netflow-9-cisco-asa", "initiator and responder are two flows, events none"),
    ("tg-ipfix-example", "biflow records are two flows"),
    ("ls-ipfix-barracuda-extended-uniflow-template-256", "counts by enterprise elements only"),
    ("ls-netflow-5-valid-01", "a file of many datagrams, of which a collector would see the first"),
];

/// Sets with records of two headers, of which weir takes the outer one as a whole; the oracle's flow has
/// the outer one's ports with the inner one's addresses.
const TWO_HEADERS: [&str; 3] = [
    "400-ipfixv10-bmp-cisco-srv6-multiple-sources",
    "403-ipfixv10-bmp-ipv6-cisco-locrib-peerdown-vrf",
    "flow-srv6-srv6",
];

/// Longest flow that weir takes as it is, milliseconds.
const LONGEST_MS: u64 = 300_000;

/// The observation domain of the large capture that has flows with addresses.
const LARGE: (&str, [u8; 4]) = ("ipfix", [0, 0, 0, 6]);

/// weir's flows, and which of them lost their beginning and its octets for having lasted too long.
fn ours(datagrams: &[Datagram]) -> (Flows, BTreeSet<(IpAddr, IpAddr, u16, u16)>) {
    let mut shard = shard(0);
    let mut flows = Flows::new();
    let mut cut = BTreeSet::new();
    for datagram in datagrams {
        let now = datagram.at.unwrap_or(START);
        let _ = shard.records(datagram.from, &datagram.payload, now, |record: &FlowRecord| {
            let ports = (record.src_port, record.dst_port);
            let flow = (record.src, record.dst, ports.0, ports.1, record.bytes, record.packets);
            if record.end.since(record.start) == LONGEST_MS {
                cut.insert((record.src, record.dst, ports.0, ports.1));
            }
            *flows.entry(flow).or_default() += 1;
        });
    }
    (flows, cut)
}

fn oracle(datagrams: &[Datagram]) -> Flows {
    // It keeps templates without their domain: a parser for each, so that they do not mix.
    let mut parsers: BTreeMap<(IpAddr, Vec<u8>), NetflowParser> = BTreeMap::new();
    let mut flows = Flows::new();
    for datagram in datagrams.iter().filter(|d| !d.payload.starts_with(&[0, 0])) {
        let domain = if datagram.payload[1] == 9 { 16..20 } else { 12..16 };
        let domain = if datagram.payload[1] == 5 { &[] } else { &datagram.payload[domain] };
        let parser = parsers.entry((datagram.from.ip(), domain.to_vec())).or_default();
        let result = parser.parse_bytes(&datagram.payload);
        visit(&serde_json::to_value(&result.packets).unwrap(), &mut flows);
    }
    flows
}

/// Finds data sets wherever they are in the oracle's output.
fn visit(value: &Value, flows: &mut Flows) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| visit(item, flows)),
        Value::Object(object) => {
            for (name, inner) in object {
                match (name.as_str(), inner.get("fields").and_then(Value::as_array)) {
                    ("Data", Some(records)) => {
                        for record in records {
                            if let Some(flow) = flow_of(record) {
                                *flows.entry(flow).or_default() += 1;
                            }
                        }
                    }
                    ("V5", _) => v5(inner, flows),
                    _ => visit(inner, flows),
                }
            }
        }
        _ => {}
    }
}

fn v5(packet: &Value, flows: &mut Flows) {
    for set in packet["flowsets"].as_array().unwrap() {
        let address = |name: &str| set[name].as_str().unwrap().parse().unwrap();
        let number = |name: &str| set[name].as_u64().unwrap();
        let icmp = number("protocol_number") == 1;
        let port = |name: &str| if icmp { 0 } else { number(name) as u16 };
        let flow = (
            address("src_addr"),
            address("dst_addr"),
            port("src_port"),
            port("dst_port"),
            number("d_octets"),
            number("d_pkts"),
        );
        *flows.entry(flow).or_default() += 1;
    }
}

/// A record of the oracle, a list of names and values, as weir would have it.
fn flow_of(record: &Value) -> Option<Flow> {
    let fields: Vec<(String, &Value)> = record
        .as_array()?
        .iter()
        .map(|field| (field[0].to_string().replace(['"', '{', '}'], ""), &field[1]))
        .collect();
    let find = |names: &[&str]| {
        names.iter().find_map(|name| {
            let wanted = |field: &str| field == *name || field == format!("IANA:{name}");
            fields.iter().find(|(field, _)| wanted(field)).map(|(_, value)| *value)
        })
    };
    let address = |names: &[&str]| {
        names.iter().find_map(|name| {
            let text = scalar(find(&[name])?)?.as_str()?.to_owned();
            text.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified())
        })
    };
    let number = |names: &[&str]| find(names).and_then(scalar).and_then(Value::as_u64);
    let (src, dst) = (
        address(&["Ipv4SrcAddr", "SourceIpv4address", "Ipv6SrcAddr", "SourceIpv6address"])?,
        address(&[
            "Ipv4DstAddr",
            "DestinationIpv4address",
            "Ipv6DstAddr",
            "DestinationIpv6address",
        ])?,
    );
    let bytes = number(&["InBytes", "OctetDeltaCount", "OctetTotalCount", "OutBytes"])?;
    let packets = number(&["InPkts", "PacketDeltaCount", "PacketTotalCount", "OutPkts"])?;
    let protocol = find(&["Protocol", "ProtocolIdentifier"]).map(Value::to_string);
    let icmp = protocol.is_some_and(|p| p.contains("Icmp"));
    let port = |names: &[&str]| {
        let port = number(names).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        if icmp { 0 } else { port }
    };
    let src_port = port(&["L4SrcPort", "SourceTransportPort"]);
    let dst_port = port(&["L4DstPort", "DestinationTransportPort"]);
    (bytes > 0 || packets > 0).then_some((src, dst, src_port, dst_port, bytes, packets.max(1)))
}

/// The number or text inside the oracle's tagged values.
fn scalar(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(object) => scalar(object.values().next()?),
        Value::Number(_) | Value::String(_) => Some(value),
        _ => None,
    }
}

#[test]
fn flows_are_those_that_netflow_parser_reads() {
    let Some(corpus) = corpus() else { return };
    let mut wrong = Vec::new();
    let mut compared = 0;
    for Set { set, files, .. } in manifest(&corpus) {
        let mut all: Vec<Datagram> =
            files.iter().flat_map(|file| datagrams(&corpus.join(&set).join(file))).collect();
        if set == LARGE.0 {
            all.retain(|datagram| datagram.payload[12..16] == LARGE.1);
            // Templates at the beginning, flows at the end; options between.
            all.drain(50..all.len() - 200);
        }
        let ((ours, cut), theirs) = (ours(&all), oracle(&all));
        if READ_OTHERWISE.iter().any(|(name, _)| *name == set) || all[0].payload[..2] == [0, 0] {
            continue;
        }
        let count = |flows: &Flows| flows.values().map(|n| u64::from(*n)).sum::<u64>();
        let missing: Vec<_> = theirs
            .iter()
            .filter(|(flow, n)| ours.get(flow).is_none_or(|o| o < n))
            .filter(|(flow, _)| !cut.contains(&(flow.0, flow.1, flow.2, flow.3)))
            .filter(|(flow, _)| {
                let volume = |other: &Flow| (other.4, other.5) == (flow.4, flow.5);
                !(TWO_HEADERS.contains(&set.as_str()) && ours.keys().any(volume))
            })
            .collect();
        if let Some(first) = missing.first() {
            wrong.push(format!("{set}: {} not ours, such as {first:?}", missing.len()));
        }
        let listed = ORACLE_LOSES.iter().any(|(name, _)| *name == set);
        if (count(&ours) > count(&theirs)) != listed {
            let (ours, theirs) = (count(&ours), count(&theirs));
            wrong.push(format!("{set}: {ours} of ours, {theirs} of the oracle's"));
        }
        compared += count(&theirs);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 2000, "{compared}");
}
