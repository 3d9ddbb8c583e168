//! Templates and sampling outlive a restart.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use support::*;
use weir_collector::{Checkpoint, DecodeErrorKind};
use weir_model::SamplingSource;

const FIELDS: [(u16, u16); 5] = [(8, 4), (12, 4), (1, 4), (2, 4), (48, 1)];

fn learned() -> Checkpoint {
    let mut shard = shard(&config());
    let options = v9_options_template(300, &iana(&[(1, 4)]), &iana(&[(48, 1), (50, 4)]));
    let sets = [
        set(0, &template(256, &iana(&FIELDS))),
        set(1, &options),
        set(300, &bytes().u32(0).u8(3).u32(512).0),
        set(300, &bytes().u32(0).u8(4).u32(64).0),
    ];
    shard.datagram(router(), &v9(1, 1, 7, &sets), NOW).unwrap();
    shard.checkpoint()
}

fn data() -> Vec<u8> {
    let record = bytes().raw(&[198, 51, 100, 1, 203, 0, 113, 7]).u32(100).u32(1).u8(3).0;
    v9(1, 2, 7, &[set(256, &record)])
}

#[test]
fn a_restarted_collector_reads_data_at_once() {
    let json = serde_json::to_string(&learned()).unwrap();
    let restored: Checkpoint = serde_json::from_str(&json).unwrap();
    let mut shard = shard(&config());
    shard.restore(Arc::new(restored.clone()));
    assert_eq!(shard.checkpoint(), restored, "kept until the exporter is heard");
    let flows = records(&mut shard, &data(), NOW);
    assert_eq!((flows.len(), flows[0].sampling), (1, 512));
    assert_eq!(shard.exporters()[0].sampling_source, SamplingSource::Sampler);
    let mut heard = restored;
    heard.exporters[0].heard = true;
    assert_eq!(shard.checkpoint(), heard);
}

#[test]
fn what_is_to_be_forgotten_is_forgotten_for_good() {
    let mut restored = shard(&config());
    restored.restore(Arc::new(learned()));
    let mut heard = shard(&config());
    heard.restore(Arc::new(learned()));
    assert_eq!(records(&mut heard, &data(), NOW).len(), 1);
    for mut shard in [restored, heard] {
        shard.forget_sender("198.51.100.250".parse().unwrap());
        assert_eq!(shard.checkpoint().exporters.len(), 1, "another's is kept");
        shard.forget_sender(router().ip());
        assert_eq!(shard.checkpoint(), Checkpoint::default());
        assert_eq!(shard.exporters().len(), 0);
        assert_eq!(records(&mut shard, &data(), NOW).len(), 0, "its data wait for the template");
        let definition = v9(1, 3, 7, &[set(0, &template(256, &iana(&FIELDS)))]);
        assert_eq!(records(&mut shard, &definition, NOW).len(), 1, "what had waited is read");
    }
}

#[test]
fn shards_put_together_what_they_know() {
    let mut all = learned();
    let mut other = learned();
    other.exporters[0].templates[0].domain = 8;
    other.exporters[0].sampling[0].rate = 1024;
    all.merge(other);
    let [exporter] = all.exporters.as_slice() else { panic!() };
    assert_eq!((exporter.templates.len(), exporter.sampling.len()), (3, 2));
    assert!(exporter.sampling.iter().any(|s| s.rate == 1024));
    let mut elsewhere = learned();
    elsewhere.exporters[0].address = "192.0.2.0".parse().unwrap();
    all.merge(elsewhere);
    assert_eq!(all.exporters.len(), 2);
}

#[test]
fn nonsense_in_a_checkpoint_is_passed_over() {
    let mut checkpoint = learned();
    checkpoint.exporters[0].templates[0].definition = vec![1, 0, 255, 255, 0];
    checkpoint.exporters[0].templates[1].version = 5;
    let mut shard = shard(&config());
    shard.restore(Arc::new(checkpoint));
    assert!(records(&mut shard, &data(), NOW).is_empty());
    assert_eq!(shard.counters().errors[DecodeErrorKind::BadTemplate as usize], 1);
}
