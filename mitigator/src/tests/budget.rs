//! More rules than routers hold entries.

use weir_bgp::config::PeerConfig;
use weir_bgp::reach::KnownPeer;
use weir_model::{Candidate, Goodput, Observed, Phase, Rate, Verdict};

use super::{World, attack, candidate, net};

/// Routers that hold so many rules.
fn edges(world: &mut World, rooms: &[u32]) {
    let edge = |(i, room): (usize, &u32)| {
        let mut peer = PeerConfig::new("edge", "192.0.2.1".parse().unwrap(), 64512);
        peer.max_rules = Some(*room);
        KnownPeer { name: format!("edge{}", i + 1), reach: peer.reach() }
    };
    world.mitigator.set_peers(rooms.iter().enumerate().map(edge).collect(), false);
}

/// An attack of 3 Gbit/s on 203.0.113.`host`, whose players have so many Mbit/s.
fn on(host: u64, players: f64, phase: Phase, world: &World) -> Verdict {
    let target = net(&format!("203.0.113.{host}/32"));
    let rate = |bits_per_sec| Rate { packets_per_sec: bits_per_sec / 8000.0, bits_per_sec };
    let Candidate { mut packets, coverage, collateral, .. } = candidate(123, 0.97, 0.001);
    packets.dst = target;
    let excess = 3e9 - players * 1e6;
    Verdict {
        target,
        phase,
        excess: rate(excess),
        legitimate: Some(Goodput {
            now: rate(players * 1e6),
            normal: rate(players * 1e6),
            expected_samples: 100.0,
        }),
        candidates: vec![Candidate { packets, ..candidate(123, coverage, collateral) }],
        ..attack(host, 3000.0, world.now)
    }
}

/// So many seconds of attacks on hosts whose players have so many Mbit/s each.
fn attacks(world: &mut World, hosts: &[(u64, f64)], secs: u64) {
    for _ in 0..secs {
        for (host, players) in hosts {
            let verdict = on(*host, *players, Phase::Ongoing, world);
            world.mitigator.verdict(&verdict, world.now);
        }
        world.wait(1);
    }
}

fn drops(world: &World) -> Vec<String> {
    let drop = |text: &String| text.ends_with("proto 17 sport 123 drop");
    let host = |text: String| text.split(' ').nth(2).unwrap().replace("203.0.113.", "");
    let desired = world.desired();
    assert!(desired.iter().all(drop), "{desired:?}");
    desired.into_iter().map(host).collect()
}

fn only_drops() -> World {
    World::new(|c| c.ladder.retain(|step| step.rung != weir_model::Rung::RateLimit))
}

fn note(world: &World, host: u64) -> String {
    let incident = world.mitigator.incidents().find(|i| i.id.0 == host).unwrap();
    incident.mitigations.last().unwrap().note.clone()
}

fn kinds(world: &World, host: u64) -> Vec<String> {
    let incident = world.mitigator.incidents().find(|i| i.id.0 == host).unwrap();
    incident.timeline.iter().map(|entry| entry.kind.clone()).collect()
}

#[test]
fn the_rules_that_save_most_are_in_force_and_the_others_are_said_to_be_left_out() {
    let mut world = only_drops();
    edges(&mut world, &[3, 2]);
    let hosts = [(10, 5.0), (20, 50.0), (30, 1.0), (40, 20.0), (50, 2.0)];
    attacks(&mut world, &hosts, 3);
    assert_eq!(drops(&world), ["10/32", "20/32", "40/32"], "as many as the roomiest holds");
    assert_eq!(world.mitigator.left_out(), 2);
    let text = note(&world, 50);
    assert!(text.starts_with("left out: no router holds more than 3 rules"), "{text}");
    assert!(text.contains("drop leaves"), "and why it is wanted: {text}");
    assert!(kinds(&world, 30).contains(&"defer".to_owned()));
    // Nothing harder follows, however long it takes.
    attacks(&mut world, &hosts, 60);
    assert_eq!(drops(&world), ["10/32", "20/32", "40/32"]);
    // What is wanted most of what is left gets the room of an attack that is over.
    let over = on(40, 20.0, Phase::Ended, &world);
    world.mitigator.verdict(&over, world.now);
    attacks(&mut world, &[(10, 5.0), (20, 50.0), (30, 1.0), (50, 2.0)], 60);
    assert_eq!(drops(&world), ["10/32", "20/32", "50/32"]);
    assert!(!note(&world, 50).starts_with("left out"), "{}", note(&world, 50));
    assert_eq!(kinds(&world, 50).iter().filter(|kind| *kind == "announce").count(), 2);
}

#[test]
fn what_is_left_out_stays_so_over_a_restart_and_says_it_once() {
    let mut world = only_drops();
    edges(&mut world, &[1]);
    attacks(&mut world, &[(10, 5.0), (20, 50.0)], 3);
    world.restart(|c| c.ladder.retain(|step| step.rung != weir_model::Rung::RateLimit));
    edges(&mut world, &[1]);
    attacks(&mut world, &[(10, 5.0), (20, 50.0)], 3);
    assert_eq!(drops(&world), ["20/32"]);
    assert_eq!(note(&world, 10).matches("left out").count(), 1, "{}", note(&world, 10));
}

#[test]
fn neighbours_share_an_entry_and_each_hears_who_has_it() {
    let mut world = only_drops();
    edges(&mut world, &[3]);
    let hosts = [(8, 5.0), (9, 6.0), (20, 50.0)];
    attacks(&mut world, &hosts, 2);
    world.announce_all();
    assert_eq!(drops(&world), ["8/32", "9/32", "20/32"]);
    attacks(&mut world, &[(8, 5.0), (9, 6.0), (20, 50.0), (30, 7.0)], 2);
    assert_eq!(drops(&world), ["8/31", "20/32", "30/32"]);
    world.announce_all();
    let peers = |world: &World, host: u64| {
        let incident = world.mitigator.incidents().find(|i| i.id.0 == host).unwrap();
        incident.mitigations[0].peers.clone()
    };
    // The single rules go, the shared one is there.
    for host in [8, 9] {
        let measure = world.mitigator.incidents().find(|i| i.id.0 == host).unwrap().mitigations[0]
            .measure
            .clone();
        let gone = Observed::Withdrawn { peer: "edge1".into(), measure, at: world.now };
        world.mitigator.observed(&gone);
        assert_eq!(peers(&world, host), ["edge1"]);
    }
    // A router that does not take it gets one of them alone, if there is room.
    let shared = world.mitigator.desired().mitigations[0].measure.clone();
    let (at, why) = (world.now, "no such prefix".to_owned());
    let refused = Observed::Refused { peer: "edge1".into(), measure: shared, at, why };
    world.mitigator.observed(&refused);
    world.wait(1);
    assert_eq!(drops(&world), ["9/32", "20/32", "30/32"]);
    assert_eq!(peers(&world, 9), Vec::<String>::new());
}

#[test]
fn a_peer_that_is_full_does_not_push_the_ladder() {
    let mut world = only_drops();
    edges(&mut world, &[9]);
    attacks(&mut world, &[(10, 5.0)], 1);
    let refuse = |world: &mut World, takes: u32| {
        let measure = world.mitigator.desired().mitigations[0].measure.clone();
        let (peer, at) = ("edge1".to_owned(), world.now);
        let why = format!("the peer takes {takes} routes of ipv4-flowspec at most");
        world.mitigator.observed(&Observed::Refused { peer, measure, at, why });
        attacks(world, &[(10, 5.0)], 60);
    };
    refuse(&mut world, 1);
    assert_eq!(drops(&world), ["10/32"], "still wanted, and no black hole");
    // Who takes none never has room.
    refuse(&mut world, 0);
    assert_eq!(world.desired(), ["blackhole 203.0.113.10/32"]);
}

#[test]
fn a_black_hole_for_want_of_room_needs_a_full_uplink_and_says_so() {
    let check = |carried: u64, expected: &[&str]| {
        let mut world = only_drops();
        edges(&mut world, &[1]);
        world.mitigator.set_uplinks(&[crate::UplinkConfig {
            name: "transit-a".to_owned(),
            exporter: "edge1".to_owned(),
            interfaces: vec![7],
            capacity_bits_per_sec: 4_000_000_000,
            alarm_percent: 80.0,
            limit_percent: 95.0,
            least_bits_per_sec: None,
            inbound_bits_per_sec: None,
            outbound_bits_per_sec: None,
        }]);
        for second in 1..=12 {
            let mut exporter = super::feedback::status("edge1");
            exporter.last_seen = world.now;
            let in_bytes = second * carried / 8;
            exporter.links = vec![weir_model::LinkCount { index: 7, in_bytes, out_bytes: 0 }];
            let told = crate::Told { exporters: &[exporter], ..Default::default() };
            world.mitigator.look(told, world.now);
            attacks(&mut world, &[(10, 5.0), (20, 50.0)], 1);
        }
        assert_eq!(world.desired(), expected, "{carried}");
        let decisions = world.mitigator.take_decisions();
        let escalates = decisions.iter().filter(|d| d.action == "escalate");
        let said = escalates.map(|d| d.detail.contains("routers have no room for its rules"));
        assert_eq!(said.collect::<Vec<_>>(), vec![true; expected.len() - 1], "{decisions:?}");
    };
    let rule = "flowspec dst 203.0.113.20/32 proto 17 sport 123 drop";
    check(3_700_000_000, &[rule]);
    check(3_900_000_000, &[rule, "blackhole 203.0.113.10/32"]);
}
