//! `weir replay`: real attack captures are named rightly, and the same inputs give the same outputs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use weir::core::Input;
use weir::replay::{self, Kind, Options, Outcome, Player};
use weir::{Core, Turn};
use weir_collector::{ExporterConfig, Registry, Shard};
use weir_config::Config;
use weir_model::{
    AllowAlarms, AllowList, AllowLists, Direction, Family, Fragment, Metric, Millis, PolicyGroup,
    Rung, Slice, Threshold, TotalLimits, TotalThresholds,
};
use weir_tests::corpus;
use weir_traffic::Scene;
use weir_traffic::encode::{Flow, netflow_v5};

/// Plays a capture of raw packets as samples of 1:1000, as an operator would from the shell.
fn play(test: &str, name: &str, protect: &str) -> Option<Outcome> {
    let path = corpus::file(test, name)?;
    let mut config = Config::default();
    config.protect.prefixes = [protect.parse().unwrap()].into_iter().collect();
    let options = Options { kind: Kind::Auto, sampling: 1000, tail_secs: 120 };
    Some(replay::capture(&path, &config, &options, &mut |_| {}).unwrap())
}

fn check(test: &str, name: &str, victim: &str, families: &[Family], subtypes: &[&str]) {
    let protect = format!("{victim}/24");
    let Some(outcome) = play(test, name, &protect) else { return };
    let incident = outcome.incidents.first().expect("an incident");
    let verdict = &incident.verdict;
    let text = weir::text::incident(incident, outcome.start);
    assert_eq!(verdict.target.to_string(), format!("{victim}/32"), "{text}");
    assert!(families.contains(&verdict.family), "{text}");
    let named = verdict.vectors.iter().any(|v| subtypes.contains(&v.subtype.as_str()));
    assert!(named, "none of {subtypes:?}: {text}");
    assert!(!incident.mitigations.is_empty(), "no rule: {text}");
    for mitigation in &incident.mitigations {
        assert_eq!(mitigation.measure.target(), verdict.target, "{text}");
    }
    assert!(incident.closed.is_some(), "it ends: {text}");
}

#[test]
fn the_syn_flood_on_a_minecraft_port_is_named() {
    check(
        "the_syn_flood_on_a_minecraft_port_is_named",
        "attacks/tcp-syn-flood-spoofed-25565.pcap",
        "10.10.10.10",
        &[Family::SynFlood],
        &["syn-flood", "syn-flood-spoofed"],
    );
}

#[test]
fn the_amplification_on_a_fivem_port_is_named() {
    check(
        "the_amplification_on_a_fivem_port_is_named",
        "attacks/udp-amplification-bacnet-dhdiscover-30120.pcap",
        "10.10.10.1",
        &[Family::UdpFlood],
        &["bacnet-amplification", "dhdiscover-amplification"],
    );
}

#[test]
fn the_snmp_amplification_is_named() {
    check(
        "the_snmp_amplification_is_named",
        "attacks/udp-amplification-snmp.pcap",
        "10.10.10.10",
        &[Family::UdpFlood],
        &["snmp-amplification"],
    );
}

/// The configuration of the demonstration's network, observing.
fn demo_config(scene: &Scene) -> Config {
    let mut config = Config::default();
    config.protect.prefixes = scene.inventory.protected.clone();
    for index in 0..scene.exporters.len() {
        config.collector.exporters.push(ExporterConfig::new(exporter(index).ip().into()));
    }
    config
}

fn exporter(index: usize) -> SocketAddr {
    let last = u8::try_from(index + 1).unwrap();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 50_000)
}

const EPOCH: Millis = Millis::from_secs(1_800_000_000);

fn play_scene(scene: &Scene) -> Outcome {
    let mut player = Player::new(&demo_config(scene), EPOCH);
    for datagram in scene.stream(EPOCH) {
        player.until(EPOCH + datagram.at_ms());
        player.datagram(exporter(datagram.exporter), &datagram.payload);
    }
    player.until(EPOCH + 120_000);
    player.finish()
}

#[test]
fn the_demonstration_is_detected_in_virtual_time() {
    let scene = Scene::demo(1);
    let outcome = play_scene(&scene);
    let truth = &scene.attacks[0];
    let incident = outcome
        .incidents
        .iter()
        .find(|i| i.verdict.target == truth.target)
        .expect("an incident on the victim");
    let text = weir::text::incident(incident, EPOCH);
    assert!(truth.families.contains(&incident.verdict.family), "{text}");
    let delay = incident.opened.since(EPOCH + truth.start_us / 1000);
    assert!(delay <= 1500, "after {delay} ms: {text}");
    assert!(incident.closed.is_some(), "{text}");
    assert_eq!(outcome.incidents.len(), 1, "nothing else is under attack");
}

#[test]
fn the_same_datagrams_give_the_same_decisions() {
    let json = |seed| serde_json::to_string(&play_scene(&Scene::demo(seed))).unwrap();
    assert_eq!(json(5), json(5));
}

/// What is recorded of the core's inputs repeats its outputs octet by octet.
#[test]
fn a_recording_replays_byte_for_byte() {
    let scene = Scene::demo(9);
    let config = demo_config(&scene);
    let inventory = Arc::new(config.inventory());
    let mut shard =
        Shard::new(0, &config.collector, Arc::clone(&inventory), Arc::new(Registry::default()));
    let mut core = Core::new(&config, &inventory);
    let mut recording = Vec::new();
    let mut live = Vec::new();
    let mut slot = EPOCH.slot();
    let hard = config.mitigator.ladder.iter().find(|step| step.rung == Rung::Drop).unwrap();
    let inbound =
        TotalLimits { packets_per_sec: Some(Threshold::Fixed(1000.0)), bits_per_sec: None };
    let total = TotalThresholds { inbound, ..TotalThresholds::default() };
    let grouped = inventory.as_ref().clone().grouped(vec![PolicyGroup {
        name: "all".to_owned(),
        prefixes: config.protect.prefixes.clone(),
        never: Some(vec![Rung::Drop]),
        total: Some(total),
        ..PolicyGroup::default()
    }]);
    // From then on some of the far ends are on a list.
    let listed = AllowList {
        name: "listed".parse().unwrap(),
        prefixes: FromIterator::from_iter(["192.0.2.0/25".parse().unwrap()]),
        protocols: Vec::new(),
        ports: Vec::new(),
        source_ports: Vec::new(),
        groups: Vec::new(),
        alarms: AllowAlarms::LeaveOut,
        waits: None,
    };
    let grouped = grouped.allowing(Arc::new(AllowLists::from(vec![listed])));
    let mut feed = |core: &mut Core, at: Millis, input: Input| {
        recording.push(serde_json::to_string(&(at, &input)).unwrap());
        core.replay(input, at, &mut |turn: Turn| live.push(outputs(&turn)));
    };
    for datagram in scene.stream(EPOCH).take_while(|d| d.at_us < 25_000_000) {
        let at = EPOCH + datagram.at_ms();
        while slot < at.slot() {
            let mut slice = Slice::default();
            shard.seal(slot, &mut slice);
            slot += 1;
            let end = Millis::from_slot(slot);
            feed(&mut core, end, Input::Slice(Box::new(slice)));
            feed(&mut core, end, Input::Advance);
            // What operators change meanwhile is recorded, too.
            if end == EPOCH + 23_000 {
                feed(&mut core, end, Input::Ladder(vec![hard.clone()]));
            }
            if end == EPOCH + 24_000 {
                feed(&mut core, end, Input::Inventory(Arc::new(grouped.clone())));
            }
        }
        shard.datagram(exporter(datagram.exporter), &datagram.payload, at).unwrap();
    }
    for decided in ["open", "rate-limit is no longer a step of the ladder"] {
        assert!(live.iter().any(|turn| turn.contains(decided)), "{decided}: not decided");
    }

    let mut again = Core::new(&config, &inventory);
    let mut repeated = Vec::new();
    for line in &recording {
        let (at, input): (Millis, Input) = serde_json::from_str(line).unwrap();
        again.replay(input, at, &mut |turn: Turn| repeated.push(outputs(&turn)));
    }
    assert_eq!(live, repeated);
    // What is kept of the evidence is among it.
    assert!(live.iter().any(|turn| turn.contains("flows_during")));
}

fn outputs(turn: &Turn) -> String {
    let desired = turn.desired.as_ref().map(|d| d.mitigations().to_vec());
    serde_json::to_string(&(&turn.decisions, desired, &turn.changed, &turn.evidence)).unwrap()
}

/// 200 Mbit/s through a router with an active timeout of a minute, sampled 1:1000, as the running
/// appliance reads it: in every second after the first export, within a tenth, and no alarm.
#[test]
fn a_transfer_exported_once_a_minute_reads_true_in_every_second() {
    const BYTES_PER_SEC: u64 = 25_000_000;
    let mut config = Config::default();
    let host: IpAddr = "203.0.113.9".parse().unwrap();
    config.protect.prefixes = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    config.collector.exporters.push(ExporterConfig::new(exporter(0).ip().into()));
    let mut player = Player::new(&config, EPOCH);
    let (mut start, mut read) = (EPOCH + 250, 0);
    for minute in 0..5 {
        // The router looks for timed-out flows now and then, and sends a little later.
        let end = EPOCH + 60_250 + minute * 60_700;
        while player.now() < end + 400 {
            let next = Millis::from_secs(player.now().secs() + 1).min(end + 400);
            player.until(next);
            if minute > 0 && next.0.is_multiple_of(1000) {
                let view = player.core().detector().host_view(host).unwrap();
                let of = |way| {
                    let found = |b: &&weir_detector::BaselineView| {
                        b.metric == Metric::BitsPerSec && b.direction == way
                    };
                    view.baselines.iter().find(found).unwrap().now
                };
                let ratio = of(Direction::Inbound) / (BYTES_PER_SEC * 8) as f64;
                assert!((0.9..=1.1).contains(&ratio), "{ratio} at {}", next.since(EPOCH));
                read += 1;
            }
        }
        let bytes = BYTES_PER_SEC * end.since(start) / 1000 / 1000;
        let header = netflow_v5::Header {
            now_ms: player.now().0,
            boot_ms: EPOCH.0 - 3_600_000,
            sequence: u32::try_from(minute).unwrap(),
            engine: 0,
            sampling: 1000,
        };
        let flow = Flow {
            src: "198.51.100.1".parse().unwrap(),
            dst: host,
            src_port: 443,
            dst_port: 50_000,
            protocol: 6,
            tcp_flags: 0x18,
            icmp_type: 0,
            icmp_code: 0,
            packets: bytes / 1400,
            bytes,
            length_min: 1400,
            length_max: 1400,
            ttl_min: 57,
            ttl_max: 57,
            fragment: Fragment::None,
            first_ms: start.0,
            last_ms: end.0,
            input_if: 1,
            output_if: 2,
        };
        player.datagram(exporter(0), &netflow_v5::datagram(&header, &[flow]));
        start = end;
    }
    assert!(read >= 240, "{read} seconds");
    assert!(player.finish().incidents.is_empty());
}
