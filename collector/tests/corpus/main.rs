//! Real captures: the numbers of records, as the manifest of the corpus has them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "a skip is told by name")]

mod differential;
mod read;
mod sflow;

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use weir_collector::{Config, ExporterConfig, Registry, Shard};
use weir_model::{Inventory, Millis, SamplingSource};

use read::{Datagram, corpus, datagrams};

const START: Millis = Millis(1_700_000_000_000);

#[derive(Deserialize)]
struct Set {
    set: String,
    files: Vec<String>,
    data_records: String,
    option_records: String,
    sflow_samples: String,
}

fn manifest(corpus: &Path) -> Vec<Set> {
    serde_json::from_slice(&std::fs::read(corpus.join("MANIFEST.json")).unwrap()).unwrap()
}

fn shard(max_pending_bytes: usize) -> Shard {
    let exporters =
        ["0.0.0.0/0", "::/0"].map(|net| ExporterConfig::new(net.parse().unwrap())).to_vec();
    let config = Config { exporters, max_pending_bytes, ..Config::default() };
    let protected = ["0.0.0.0/1", "128.0.0.0/1", "::/0"];
    let protected = protected.iter().map(|n| n.parse::<ipnet::IpNet>().unwrap()).collect();
    let inventory = Inventory::new(protected, Default::default(), vec![]);
    Shard::new(0, &config, Arc::new(inventory), Arc::new(Registry::default()))
}

fn decode(shard: &mut Shard, datagrams: &[Datagram]) {
    for (index, datagram) in datagrams.iter().enumerate() {
        let now = datagram.at.unwrap_or(START + index as u64);
        let _ = shard.datagram(datagram.from, &datagram.payload, now);
    }
}

/// Sets of `.dat` files have no sender: one that depends on two is told apart by its domains only.
#[test]
fn every_set_yields_the_records_of_the_manifest() {
    let Some(corpus) = corpus() else { return };
    let mut wrong = Vec::new();
    for set in manifest(&corpus) {
        let mut shard = shard(0);
        for file in &set.files {
            decode(&mut shard, &datagrams(&corpus.join(&set.set).join(file)));
        }
        let counters = shard.counters();
        let sflow = counters.flow_samples;
        let got = (counters.data_records, counters.option_records);
        let wanted = (set.data_records.parse().unwrap(), set.option_records.parse().unwrap());
        if got != wanted {
            wrong.push(format!("{}: {got:?} instead of {wanted:?}", set.set));
        }
        let got = format!("flow {sflow} ctr {}", counters.counter_samples);
        if !set.sflow_samples.is_empty() && got != set.sflow_samples {
            wrong.push(format!("{}: {got} instead of {}", set.set, set.sflow_samples));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What routers really send is possible.
#[test]
fn real_records_are_plausible() {
    let Some(corpus) = corpus() else { return };
    let mut refused = Vec::new();
    for set in manifest(&corpus) {
        let mut shard = shard(0);
        for file in &set.files {
            decode(&mut shard, &datagrams(&corpus.join(&set.set).join(file)));
        }
        let counters = shard.counters();
        // Two sets are random octets.
        if counters.implausible > 0 && !set.set.contains("invalid") {
            let Set { set, .. } = set;
            refused.push(format!("{set}: {} of {}", counters.implausible, counters.data_records));
        }
    }
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn sampling_is_what_the_routers_say() {
    let Some(corpus) = corpus() else { return };
    let check = |set: &str, file: &str, wanted: (u32, SamplingSource)| {
        let mut shard = shard(0);
        decode(&mut shard, &datagrams(&corpus.join(set).join(file)));
        let status = shard.exporters();
        let got: Vec<_> = status.iter().map(|e| (e.sampling, e.sampling_source)).collect();
        assert_eq!(got, [wanted], "{set}");
    };
    let xr = "104-ipfixv10-ipv6-cisco-sampling-option";
    check(xr, "00-traffic-00.pcap", (256, SamplingSource::Sampler));
    let silent = "102-nfv9-cisco-f2rd-pretag-sampling-reload";
    check(silent, "00-traffic-00.pcap", (1, SamplingSource::Unknown));
}

/// The capture begins in the middle of the exporter's life: data of some domains comes up to six
/// minutes before its template.
#[test]
fn data_before_its_template_is_kept_for_a_while() {
    let Some(corpus) = corpus() else { return };
    let datagrams = datagrams(&corpus.join("ipfix/00-IPFIX.pcap"));
    let count = |max_pending_bytes| {
        let mut shard = shard(max_pending_bytes);
        decode(&mut shard, &datagrams);
        shard.counters().data_records
    };
    assert_eq!(count(0), 52_894);
    let kept = count(16 << 20);
    assert!(kept > 55_000, "{kept}");
}
