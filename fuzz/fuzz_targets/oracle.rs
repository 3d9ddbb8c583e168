//! weir beside its oracles: where netflow_parser reads a whole version 5 datagram, or sflow-parser a
//! whole sFlow one, weir must find as many records or samples.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netflow_parser::{NetflowPacket, NetflowParser};
use sflow_parser::{SampleData, parse_datagram};
use weir_collector::Config;
use weir_collector::inspect::Inspector;
use weir_model::Millis;

fuzz_target!(|data: &[u8]| {
    let mut inspector = Inspector::new(&Config::default(), false);
    let from = "192.0.2.1:2055".parse().unwrap();
    inspector.datagram(from, data, Millis(1_700_000_000_000), |line| {
        let _ = serde_json::to_string(&line);
    });
    let ours = inspector.summary();
    match data {
        [0, 5, ..] => {
            let result = NetflowParser::default().parse_bytes(data);
            if let ([NetflowPacket::V5(packet)], None) = (&result.packets[..], &result.error) {
                assert_eq!(ours.data_records, packet.flowsets.len() as u64);
            }
        }
        // The oracle takes as much memory as a length field says: not for short datagrams.
        [0, 0, 0, 5, ..] if data.len() < 2000 => {
            let Ok(datagram) = parse_datagram(data) else { return };
            let count = |wanted: fn(&SampleData) -> bool| {
                datagram.samples.iter().filter(|s| wanted(&s.sample_data)).count() as u64
            };
            let flow = |s: &SampleData| {
                matches!(s, SampleData::FlowSample(_) | SampleData::FlowSampleExpanded(_))
            };
            let counter = |s: &SampleData| {
                matches!(s, SampleData::CountersSample(_) | SampleData::CountersSampleExpanded(_))
            };
            assert_eq!((ours.flow_samples, ours.counter_samples), (count(flow), count(counter)));
        }
        _ => {}
    }
});
