//! From a verdict to the state that leaves: what the core spends between the detector and the wire.
//!
//! `cargo bench -p weir-mitigator`. Rows with 1, 100, 500 and 2,500 open incidents that have four
//! rules each; every verdict of the measured incident brings rules to add, so that each turn goes
//! through plan, ledger and guard. `reports` is what the core spends on a peer's report of one
//! measure. Fails when the 99th percentile with four thousand rules is above the bar.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use weir_mitigator::{Config, GuardConfig, Mitigator};
use weir_model::{
    Candidate, Direction, Family, IncidentId, Inventory, IpNet, Match, Metric, Millis, Mode,
    Observed, Phase, Range, Rate, Reason, Verdict,
};

fn verdict(id: u64, first_port: u16, at: Millis) -> Verdict {
    let target: IpNet = format!("198.51.{}.{}/32", id / 250, id % 250 + 1).parse().unwrap();
    let candidate = |port: u16| {
        let mut packets = Match::to(target);
        packets.protocols = vec![17];
        packets.src_ports = vec![Range::exact(port)];
        Candidate {
            packets,
            parts: Vec::new(),
            coverage: 0.24,
            coverage_low: 0.2,
            collateral: 0.0,
            collateral_high: 0.01,
            rate: Rate::default(),
            normal_bytes_per_sec: 10_000.0,
            hold: None,
        }
    };
    let rate = Rate { packets_per_sec: 1e5, bits_per_sec: 8e8 };
    Verdict {
        served: 0.0,
        incident: IncidentId(id),
        phase: Phase::Ongoing,
        at,
        target,
        direction: Direction::Inbound,
        family: Family::UdpFlood,
        vectors: Vec::new(),
        confidence: 95,
        evidence_groups: 3,
        separable: true,
        rate,
        peak: rate,
        excess: rate,
        discarded: Rate::default(),
        legitimate: None,
        sources: 100.0,
        reason: Reason {
            metric: Metric::BitsPerSec,
            value: 8e8,
            baseline: 1e7,
            multiplier: 3.0,
            threshold: 3e7,
            window_ms: 1000,
            samples: 100.0,
            sampling: 1000.0,
            exporters: vec!["edge1".into()],
            service: None,
            own: None,
        },
        candidates: (first_port..first_port + 4).map(candidate).collect(),
        top_sources: Vec::new(),
        summary: "UDP flood".into(),
    }
}

/// Milliseconds from verdict to admitted state, 99th percentile, up to four thousand rules.
const BAR_MS: f64 = 20.0;

fn main() {
    println!(
        "{:>9} {:>9} {:>12} {:>12} {:>12} {:>12}",
        "incidents", "measures", "p50 us", "p99 us", "idle us", "report us"
    );
    let mut worst = 0.0_f64;
    for (incidents, measured) in [(1u64, 500u16), (100, 500), (500, 500), (2500, 200)] {
        let protected = vec!["198.51.0.0/16".parse().unwrap()].into();
        let inventory = Arc::new(Inventory::new(protected, Vec::new().into(), Vec::new()));
        let config = Config { mode: Mode::Auto, max_incidents: 5000, ..Config::default() };
        let guard = GuardConfig {
            max_total: 100_000,
            max_changes_per_min: 100_000,
            ..GuardConfig::default()
        };
        let mut mitigator = Mitigator::new(config, guard, inventory);
        let mut now = Millis::from_secs(1_000_000);
        for id in 0..incidents {
            mitigator.verdict(&verdict(id, 1000, now), now);
        }
        mitigator.advance(now);
        let mut busy = Vec::new();
        for turn in 0..measured {
            now = now + 6000;
            let verdict = verdict(u64::from(turn) % incidents, 2000 + 4 * turn, now);
            let started = Instant::now();
            mitigator.verdict(&verdict, now);
            let admitted = mitigator.advance(now);
            busy.push(started.elapsed());
            assert!(admitted.is_some(), "each turn changes something");
            // The others are alive, too.
            for id in 0..incidents {
                mitigator.verdict(&self::verdict(id, 1000, now), now);
            }
            mitigator.advance(now);
            mitigator.take_decisions();
            mitigator.take_changed();
        }
        let desired = mitigator.desired();
        let started = Instant::now();
        let reports = desired.mitigations.iter().take(500);
        let number = reports.len();
        for m in reports {
            let (peer, measure) = ("edge1".to_owned(), m.measure.clone());
            mitigator.observed(&Observed::Announced { peer, measure, at: now });
        }
        let report = started.elapsed().as_secs_f64() * 1e6 / number.max(1) as f64;
        let turns = 1000;
        let started = Instant::now();
        for _ in 0..turns {
            black_box(mitigator.advance(now));
        }
        let idle = started.elapsed() / turns;
        busy.sort();
        println!(
            "{incidents:>9} {:>9} {:>12.1} {:>12.1} {:>12.2} {report:>12.2}",
            mitigator.desired().mitigations.len(),
            busy[busy.len() / 2].as_secs_f64() * 1e6,
            busy[busy.len() * 99 / 100].as_secs_f64() * 1e6,
            idle.as_secs_f64() * 1e6,
        );
        if incidents <= 500 {
            worst = worst.max(busy[busy.len() * 99 / 100].as_secs_f64() * 1e3);
        }
    }
    assert!(worst <= BAR_MS, "{worst:.1} ms is above {BAR_MS} ms");
}
