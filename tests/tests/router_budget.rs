//! Two hundred attacks at once, and routers that hold 64 rules: what is saved, and how long the choice takes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "the figures that docs/mitigation.md gives")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_bgp::config::PeerConfig;
use weir_bgp::reach::KnownPeer;
use weir_mitigator::{Config, GuardConfig, Mitigator};
use weir_model::{
    Candidate, Direction, Family, Goodput, IncidentId, Inventory, IpNet, Ipv4Net, Match, Measure,
    Metric, Millis, Mode, Phase, Range, Rate, Reason, Rung, Verdict,
};

/// A host under attack: its address in 198.18.0.0/16 and its players' traffic, Mbit/s.
type Victim = (u16, f64);

fn host(number: u16) -> IpNet {
    let [high, low] = number.to_be_bytes();
    IpNet::V4(Ipv4Net::new([198, 18, high, low].into(), 32).unwrap())
}

/// NTP reflection of 2 Gbit/s.
fn verdict(id: u64, (number, players): Victim, at: Millis) -> Verdict {
    let rate = |mbps: f64| Rate { packets_per_sec: mbps * 125.0, bits_per_sec: mbps * 1e6 };
    let mut packets = Match::to(host(number));
    packets.protocols = vec![17];
    packets.src_ports = vec![Range::exact(123)];
    Verdict {
        served: 0.0,
        incident: IncidentId(id),
        phase: Phase::Ongoing,
        at,
        target: host(number),
        direction: Direction::Inbound,
        family: Family::UdpFlood,
        vectors: Vec::new(),
        confidence: 90,
        evidence_groups: 2,
        separable: true,
        rate: rate(2000.0 + players),
        peak: rate(2000.0 + players),
        excess: rate(2000.0),
        discarded: Rate::default(),
        legitimate: Some(Goodput {
            now: rate(players),
            normal: rate(players),
            expected_samples: 99.0,
        }),
        sources: 500.0,
        reason: Reason {
            metric: Metric::BitsPerSec,
            value: 2e9,
            baseline: 1e7,
            multiplier: 3.0,
            threshold: 3e7,
            window_ms: 1000,
            samples: 400.0,
            sampling: 1000.0,
            exporters: vec!["edge1".into()],
            service: None,
            own: None,
        },
        candidates: vec![Candidate {
            parts: Vec::new(),
            packets,
            coverage: 0.98,
            coverage_low: 0.95,
            collateral: 0.001,
            collateral_high: 0.005,
            rate: Rate::default(),
            normal_bytes_per_sec: 1000.0,
            hold: None,
        }],
        top_sources: Vec::new(),
        summary: "UDP flood".into(),
    }
}

fn mitigator(room: u32) -> Mitigator {
    let mut config = Config { mode: Mode::Auto, ..Config::default() };
    config.ladder.retain(|step| step.rung == Rung::Drop);
    let guard = GuardConfig { max_changes_per_min: 10_000, ..GuardConfig::default() };
    let protected = vec!["198.18.0.0/16".parse().unwrap()];
    let inventory = Inventory::new(protected.into(), Vec::new().into(), Vec::new());
    let mut mitigator = Mitigator::new(config, guard, Arc::new(inventory));
    let mut peer = PeerConfig::new("edge1", "192.0.2.1".parse().unwrap(), 64512);
    peer.max_rules = Some(room);
    let edge = KnownPeer { name: "edge1".into(), reach: peer.reach() };
    mitigator.set_peers(vec![edge], false);
    mitigator
}

/// Share of what a host's players send that comes through: the host has a link of 1 Gbit/s.
fn comes_through(protected: bool, players: f64) -> f64 {
    let attack = if protected { 40.0 } else { 2000.0 };
    (1000.0 / (attack + players)).min(1.0)
}

/// What this thread has spent on a core: the machine may be shared.
fn spent() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// What players get with `room` entries, Mbit/s in all, and the longest turn.
fn play(victims: &[Victim], room: u32) -> (f64, Duration, usize) {
    let mut mitigator = mitigator(room);
    let mut longest = Duration::ZERO;
    for second in 0..20u64 {
        let now = Millis::from_secs(1_000_000 + second);
        for (id, victim) in (1..).zip(victims) {
            mitigator.verdict(&verdict(id, *victim, now), now);
        }
        let began = spent();
        mitigator.advance(now);
        longest = longest.max(spent() - began);
    }
    let desired = mitigator.desired();
    assert!(desired.mitigations.len() <= room as usize);
    let dropped: Vec<IpNet> = desired
        .mitigations
        .iter()
        .filter(|m| matches!(m.measure, Measure::FlowSpec(_)))
        .map(|m| m.measure.target())
        .collect();
    let is_in = |number: u16| dropped.iter().any(|net| net.contains(&host(number)));
    let got = victims.iter().map(|(n, players)| players * comes_through(is_in(*n), *players));
    (got.sum(), longest, mitigator.left_out())
}

/// Two hundred hosts: carpets over whole /28s, and single ones, far apart, of which few are large and most are
/// small.
fn carpets_and_singles() -> Vec<Victim> {
    let carpets = (0..8u16).flat_map(|net| (0..16).map(move |n| (net * 1024 + n, 20.0)));
    let singles = (0..72u16).map(|i| (32_768 + i * 2, 400.0 / f64::from(i + 1)));
    carpets.chain(singles).collect()
}

#[test]
fn sixty_four_entries_save_nearly_what_no_limit_would() {
    let worlds: BTreeMap<&str, (Vec<Victim>, f64)> = [
        ("eight carpets over a /28 and 72 hosts", (carpets_and_singles(), 0.95)),
        // Nothing to share: what 64 entries can save is what the 64 largest have.
        ("200 hosts apart, the n-th a n-th of the largest", {
            ((0..200u16).map(|i| (i * 2, 400.0 / f64::from(i + 1))).collect(), 0.85)
        }),
        ("200 equal hosts apart", ((0..200u16).map(|i| (i * 2, 20.0)).collect(), 0.6)),
    ]
    .into();
    for (name, (victims, least)) in worlds {
        assert_eq!(victims.len(), 200);
        let (without, ..) = play(&victims, 8000);
        let (with, longest, left_out) = play(&victims, 64);
        let share = with / without;
        println!(
            "{name}: {:.1} % of the goodput without a limit, {left_out} left out, longest turn {longest:?}",
            share * 100.0
        );
        assert!(share >= least, "{name}: {share}");
        assert!(longest <= Duration::from_millis(50), "{name}: {longest:?}");
    }
}
