//! weir beside its oracles, one decoder at a time: what an oracle reads without complaint, weir reads
//! too. Shared by the tests, which damage datagrams by a seed, and the targets in `fuzz/`.

use netflow_parser::{NetflowPacket, NetflowParser};
use serde_json::Value;
use sflow_parser::{SampleData, parse_datagram};
use weir_collector::Config;
use weir_collector::inspect::{Inspector, Summary};
use weir_model::Millis;

const NOW: Millis = Millis(1_700_000_000_000);

fn ours(datagrams: &[&[u8]]) -> Summary {
    let mut inspector = Inspector::new(&Config::default(), false);
    let from = "192.0.2.1:2055".parse().unwrap();
    for datagram in datagrams {
        inspector.datagram(from, datagram, NOW, |_| {});
    }
    inspector.summary()
}

/// As many records as netflow_parser reads of a whole version 5 datagram.
pub fn netflow_v5(datagram: &[u8]) {
    if !datagram.starts_with(&[0, 5]) {
        return;
    }
    let ours = ours(&[datagram]);
    let result = NetflowParser::default().parse_bytes(datagram);
    if let ([NetflowPacket::V5(packet)], None) = (&result.packets[..], &result.error) {
        assert_eq!(ours.data_records, packet.flowsets.len() as u64, "{datagram:02x?}");
    }
}

/// As many samples as sflow-parser reads of a whole datagram.
pub fn sflow(datagram: &[u8]) {
    // The oracle takes as much memory as a length field says: not for short datagrams.
    if !datagram.starts_with(&[0, 0, 0, 5]) || datagram.len() > 2000 {
        return;
    }
    let ours = ours(&[datagram]);
    let Ok(parsed) = parse_datagram(datagram) else { return };
    let count = |wanted: fn(&SampleData) -> bool| {
        parsed.samples.iter().filter(|s| wanted(&s.sample_data)).count() as u64
    };
    let flow =
        |s: &SampleData| matches!(s, SampleData::FlowSample(_) | SampleData::FlowSampleExpanded(_));
    let counter = |s: &SampleData| {
        matches!(s, SampleData::CountersSample(_) | SampleData::CountersSampleExpanded(_))
    };
    let theirs = (count(flow), count(counter));
    assert_eq!((ours.flow_samples, ours.counter_samples), theirs, "{datagram:02x?}");
}

/// At least as many data records as netflow_parser reads of version 9 datagrams of which it
/// complains about none.
pub fn netflow_v9(datagrams: &[&[u8]]) {
    let domain = |datagram: &&[u8]| datagram.get(16..20).map(<[u8]>::to_vec);
    if datagrams.iter().all(|datagram| datagram.starts_with(&[0, 9])) {
        templated(datagrams, datagrams.iter().map(domain).collect());
    }
}

/// As [`netflow_v9`], for IPFIX.
pub fn ipfix(datagrams: &[&[u8]]) {
    if datagrams.iter().all(|datagram| datagram.starts_with(&[0, 10])) {
        templated(datagrams, datagrams.iter().flat_map(|datagram| domains(datagram)).collect());
    }
}

/// The observation domains of the messages in a datagram.
fn domains(datagram: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (mut domains, mut rest) = (Vec::new(), datagram);
    while let Some([0, 10, high, low]) = rest.first_chunk::<4>() {
        domains.push(rest.get(12..16).map(<[u8]>::to_vec));
        let len = usize::from(u16::from_be_bytes([*high, *low])).max(16);
        rest = rest.get(len..).unwrap_or_default();
    }
    domains
}

/// The oracle has one table of templates for all domains: only datagrams of one domain compare.
fn templated(datagrams: &[&[u8]], mut domains: Vec<Option<Vec<u8>>>) {
    domains.dedup();
    if domains.len() != 1 {
        return;
    }
    let ours = ours(datagrams);
    let mut parser = NetflowParser::default();
    let mut theirs = 0;
    for datagram in datagrams {
        let result = parser.parse_bytes(datagram);
        if result.error.is_some() {
            return;
        }
        theirs += data_records(&serde_json::to_value(&result.packets).unwrap_or_default());
    }
    assert!(ours.data_records >= theirs, "{} of {theirs}: {datagrams:02x?}", ours.data_records);
}

/// Counts the records of data sets wherever they are in the oracle's output.
fn data_records(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(data_records).sum(),
        Value::Object(object) => object
            .iter()
            .map(|(name, inner)| match inner.get("fields").and_then(Value::as_array) {
                // A record without fields is one that the oracle could not read.
                Some(records) if name == "Data" => {
                    records.iter().filter(|r| r.as_array().is_some_and(|r| !r.is_empty())).count()
                        as u64
                }
                _ => data_records(inner),
            })
            .sum(),
        _ => 0,
    }
}
