//! Dashboards and alerts name metrics that weir has, and Prometheus' own tool accepts them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_api::Metrics;
use weir_api::metrics::FAMILIES;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// Every word that looks like one of weir's metrics.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|word| word.starts_with("weir_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[test]
fn every_metric_named_exists_and_nearly_every_metric_is_shown() {
    let read = |name: &str| std::fs::read_to_string(folder().join(name)).unwrap();
    let (board, alerts) = (read("grafana.json"), read("alerts.yml"));
    serde_json::from_str::<serde_json::Value>(&board).unwrap();
    let mut known: BTreeSet<String> =
        FAMILIES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    known.insert("weir_core_verdict_seconds".to_owned());
    for text in [&board, &alerts, &read("alerts.test.yml")] {
        for name in named(text) {
            assert!(known.contains(&name), "{name} is no metric of weir");
        }
    }
    for essential in
        ["weir_core_verdict_seconds", "weir_bgp_peer_state", "weir_collector_lost_total"]
    {
        assert!(named(&board).contains(essential), "{essential}");
    }
}

#[test]
fn promtool_accepts_metrics_and_rules() {
    let Ok(version) = Command::new("promtool").arg("--version").output() else {
        // Reported like any test that needs what is not installed.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skip: promtool_accepts_metrics_and_rules: promtool");
        return;
    };
    assert!(version.status.success());
    let run = |arguments: &[&str]| {
        let out = Command::new("promtool").args(arguments).current_dir(folder()).output().unwrap();
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success(), "{arguments:?}: {text}");
    };
    run(&["check", "rules", "alerts.yml"]);
    run(&["test", "rules", "alerts.test.yml"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let metrics = Metrics::new();
    metrics.datagrams.with_label_values(&["edge1"]).inc();
    metrics.build_info.with_label_values(&["0.1.0"]).set(1.0);
    std::fs::write(file.path(), metrics.render()).unwrap();
    let out = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(file.path()).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
