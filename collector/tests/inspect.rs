//! The lines of `weir inspect`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::Value;
use support::*;
use weir_collector::Config;
use weir_collector::inspect::Inspector;

fn lines(datagrams: &[Vec<u8>], oracle: bool) -> Vec<Value> {
    let mut inspector = Inspector::new(&Config::default(), oracle);
    let mut lines = Vec::new();
    for datagram in datagrams {
        let tell = |line| lines.push(serde_json::to_value(line).unwrap());
        inspector.datagram(router(), datagram, NOW, tell);
    }
    lines.extend(inspector.finish().iter().map(|line| serde_json::to_value(line).unwrap()));
    lines
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["kind"].as_str().unwrap()).collect()
}

#[test]
fn templates_sampling_records_and_errors_are_told_in_order() {
    let options = v9_options_template(257, &iana(&[(1, 4)]), &iana(&[(48, 1), (50, 4)]));
    let data = template(256, &iana(&[(8, 4), (12, 4), (4, 1), (1, 4), (2, 4), (48, 1)]));
    let option = bytes().u32(0).u8(1).u32(500).0;
    let record = bytes().raw(&[198, 51, 100, 1, 203, 0, 113, 7, 17]).u32(1000).u32(1).u8(1).0;
    let sets = [set(0, &data), set(1, &options), set(257, &option), set(256, &record)];
    let mut datagram = v9(1000, 1, 5, &sets);
    datagram.extend([0x01, 0x05, 0, 2]);
    let lines = lines(&[datagram, v9(1000, 2, 5, &[set(300, &[0; 8])])], false);
    let expected = [
        "datagram",
        "template",
        "template",
        "sampling",
        "record",
        "error",
        "datagram",
        "unknown-template",
        "exporter",
        "summary",
    ];
    assert_eq!(kinds(&lines), expected);
    assert_eq!(lines[1]["fields"][0]["name"], "sourceIPv4Address");
    assert_eq!(lines[3]["rate"], 500);
    assert_eq!(
        (&lines[4]["sampling"], &lines[4]["sampling_source"]),
        (&500.into(), &"sampler".into())
    );
    assert_eq!(lines[5]["error"], "bad-set-length");
    let summary = serde_json::json!({
        "kind": "summary", "datagrams": 2, "data_records": 1, "option_records": 1,
        "flow_samples": 0, "counter_samples": 0, "errors": 1,
    });
    assert_eq!(lines[9], summary);
}

#[test]
fn the_oracles_have_their_say() {
    let record = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 1, 5, 5);
    let header = raw_header(1, 64, &ethernet(0x0800, &ipv4(17, [1; 4], [2; 4], &udp(1, 2, &[]))));
    let datagrams = [v5(5, 0, 1, &[record]), sflow(1, &[flow_sample(1, 1, 1, &[header])])];
    let lines = lines(&datagrams, true);
    let parsers: Vec<_> = lines.iter().filter_map(|l| l["parser"].as_str()).collect();
    assert_eq!(parsers, ["netflow_parser", "sflow-parser"]);
    assert!(lines.iter().filter(|l| l["kind"] == "oracle").all(|l| l["error"].is_null()));
}
