//! Who is away has refused nothing, and nothing is concluded from its absence.

use weir_bgp::config::PeerConfig;
use weir_bgp::reach::KnownPeer;
use weir_bgp::wire::Family;
use weir_model::{
    Command, CommandError, IncidentState, Measure, Mode, Observed, PeerState, PeerStatus, Verdict,
};

use super::{VICTIM, World, attack, drop_from, limit_from, net};

const UNICAST: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

fn known(name: &str, families: &[Family]) -> KnownPeer {
    let mut peer = PeerConfig::new(name, "192.0.2.1".parse().unwrap(), 64512);
    peer.families = families.to_vec();
    KnownPeer { name: name.to_owned(), reach: peer.reach() }
}

/// A world with an edge router that takes everything, and an upstream that takes black holes.
fn edge_and_upstream(seeing: bool) -> World {
    let mut world = if seeing { World::seeing() } else { World::auto() };
    let peers = vec![known("edge", &Family::ALL), known("upstream", &UNICAST)];
    world.mitigator.set_peers(peers, false);
    report(&mut world, "upstream", true, &UNICAST);
    world
}

fn report(world: &mut World, name: &str, up: bool, families: &[Family]) {
    world.mitigator.observed(&Observed::Peer(PeerStatus {
        name: name.to_owned(),
        address: "192.0.2.1".parse().unwrap(),
        asn: 64512,
        state: if up { PeerState::Established } else { PeerState::Active },
        since: world.now,
        families: families.iter().map(|f| f.id().to_owned()).collect(),
        announced: 0,
        flaps: 0,
        failures: 0,
        last_error: None,
        kept_back: 0,
        rpki: None,
        standing: weir_model::PeerStanding::default(),
        bfd: None,
    }));
}

fn wanted(world: &World) -> Vec<Measure> {
    world.mitigator.desired().mitigations.iter().map(|m| m.measure.clone()).collect()
}

fn refuse(world: &mut World, peer: &str, why: &str) {
    for measure in wanted(world) {
        let (peer, why, at) = (peer.to_owned(), why.to_owned(), world.now);
        world.mitigator.observed(&Observed::Refused { peer, measure, at, why });
    }
}

fn has(world: &mut World, peer: &str, has: bool) {
    for measure in wanted(world) {
        let (peer, at) = (peer.to_owned(), world.now);
        world.mitigator.observed(&if has {
            Observed::Announced { peer, measure, at }
        } else {
            Observed::Withdrawn { peer, measure, at }
        });
    }
}

#[test]
fn a_router_that_is_away_is_waited_for() {
    let mut world = edge_and_upstream(true);
    world.attack(1, 3000.0, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    // The upstream says no in the same moment; the edge has never been up.
    refuse(&mut world, "upstream", "family ipv4-flowspec is not configured for this peer");
    world.attack(1, 3000.0, 600);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let timeline = &world.mitigator.incidents().next().unwrap().timeline;
    assert!(timeline.iter().any(|e| e.text == "waits for edge, which does not have it"));
    // It returns, gets the rule, and has the time that any router has.
    report(&mut world, "edge", true, &Family::ALL);
    has(&mut world, "edge", true);
    world.attack(1, 3000.0, 4);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.attack(1, 3000.0, 3);
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn a_rule_that_all_who_could_have_it_refuse_is_given_up() {
    let mut world = edge_and_upstream(true);
    world.attack(1, 3000.0, 1);
    refuse(&mut world, "upstream", "family ipv4-flowspec is not configured for this peer");
    report(&mut world, "edge", true, &Family::ALL);
    refuse(&mut world, "edge", "banned");
    world.attack(1, 3000.0, 6);
    assert_ne!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn nothing_is_concluded_while_one_of_two_routers_is_away() {
    let mut world = World::seeing();
    let peers = vec![known("edge1", &Family::ALL), known("edge2", &Family::ALL)];
    world.mitigator.set_peers(peers, false);
    report(&mut world, "edge1", true, &Family::ALL);
    report(&mut world, "edge2", true, &Family::ALL);
    world.attack(1, 3000.0, 1);
    has(&mut world, "edge1", true);
    has(&mut world, "edge2", true);
    // All of the attack comes in where the session is lost.
    report(&mut world, "edge2", false, &[]);
    has(&mut world, "edge2", false);
    world.attack(1, 3000.0, 900);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let lesson = world.mitigator.checkpoint().sights["edge1"];
    assert_eq!((lesson.fell, lesson.stayed), (2, 0), "nor learned");
    report(&mut world, "edge2", true, &Family::ALL);
    has(&mut world, "edge2", true);
    world.attack(1, 3000.0, 4);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.attack(1, 3000.0, 3);
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn a_black_hole_does_not_come_because_rules_had_no_router_to_be_tried_on() {
    // The rule leaves more than fits the host: after it has shown what it can do, a black hole may
    // come. It has shown nothing yet, not even when the attack pauses and comes back.
    let mut world = edge_and_upstream(true);
    let weak = |at| Verdict {
        candidates: vec![super::candidate(123, 0.6, 0.001)],
        ..attack(1, 5000.0, at)
    };
    world.attack_as(20, weak);
    world.end(1);
    world.wait(5);
    world.attack_as(60, weak);
    assert_eq!(world.desired().len(), 1);
    assert!(!world.desired()[0].starts_with("blackhole"), "{:?}", world.desired());
    // Once the router has it, it counts as tried.
    report(&mut world, "edge", true, &Family::ALL);
    has(&mut world, "edge", true);
    world.attack_as(12, weak);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
}

#[test]
fn patience_ends_where_the_configuration_says_so() {
    let mut world = World::seeing_with(|c| c.peer_wait_secs = Some(60));
    let peers = vec![known("edge", &Family::ALL), known("upstream", &UNICAST)];
    world.mitigator.set_peers(peers, false);
    report(&mut world, "edge", false, &[]);
    report(&mut world, "upstream", true, &UNICAST);
    world.attack(1, 3000.0, 1);
    refuse(&mut world, "upstream", "family ipv4-flowspec is not configured for this peer");
    world.attack(1, 3000.0, 55);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.attack(1, 3000.0, 15);
    assert_ne!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn what_nobody_carries_is_not_tried() {
    let mut world = World::auto();
    world.mitigator.set_peers(vec![known("upstream", &UNICAST)], false);
    world.attack(1, 3000.0, 1);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")], "at once");
    let by_hand = Command::Add {
        measure: Measure::FlowSpec(weir_model::Filter {
            packets: weir_model::Match::to(net("203.0.113.9/32")),
            action: weir_model::Action::Drop,
        }),
        ttl_secs: 60,
        by: "eve".into(),
    };
    let refused = CommandError::Refused("no peer carries ipv4-flowspec".into());
    assert_eq!(world.command(&by_hand), Err(refused));
    // Where the volume does not allow a black hole, only people are told.
    let mut world = World::auto();
    world.mitigator.set_peers(vec![known("upstream", &UNICAST)], false);
    world.attack(1, 600.0, 5);
    assert_eq!(world.desired(), [""; 0]);
    assert!(world.actions().contains(&"alert".to_owned()));
    // Nodes take rules, whatever routers can do.
    let mut world = World::auto();
    world.mitigator.set_peers(vec![known("upstream", &UNICAST)], true);
    world.attack(1, 600.0, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn what_a_session_did_not_carry_counts_as_said() {
    let mut world = World::auto();
    world.mitigator.set_peers(vec![known("edge", &Family::ALL)], false);
    report(&mut world, "edge", true, &UNICAST);
    report(&mut world, "edge", false, &[]);
    world.attack(1, 3000.0, 1);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
    // The next session carries it: the next attack begins gently again.
    report(&mut world, "edge", true, &Family::ALL);
    world.end(1);
    world.wait(300);
    world.attack(2, 3000.0, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn a_refusal_is_forgotten_once_the_peer_has_it() {
    let mut world = edge_and_upstream(false);
    world.attack(1, 600.0, 1);
    report(&mut world, "edge", true, &Family::ALL);
    has(&mut world, "edge", true);
    // The edge has no room for a moment; then it has.
    refuse(&mut world, "upstream", "not configured");
    world.attack(1, 600.0, 5);
    has(&mut world, "edge", true);
    report(&mut world, "edge", false, &[]);
    has(&mut world, "edge", false);
    world.attack(1, 600.0, 60);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    assert_eq!(world.mitigator.mode(), Mode::Auto);
    let open = world.mitigator.incidents().filter(|i| i.state == IncidentState::Open);
    assert_eq!(open.count(), 1);
}
