//! One decision a router: who takes a rule, who a black hole.

use weir_bgp::config::{Config as Bgp, PeerConfig};
use weir_model::{IncidentId, Millis, Rung, Verdict};

use super::{World, attack, drop_from};
use crate::RungConfig;

/// Two edges that take rules and, where `edges_take_holes`, black holes; a transit that takes black holes only.
fn world(edges_take_holes: bool) -> World {
    let mut world = World::seeing_with(|config| {
        config.ladder = vec![
            RungConfig::new(Rung::Drop, 100_000_000),
            RungConfig::new(Rung::Rtbh, 200_000_000),
        ];
    });
    let mut bgp = Bgp::new(65010, [10, 0, 0, 1].into());
    for (name, last) in [("a", 1), ("b", 2), ("c", 3)] {
        bgp.peers.push(PeerConfig::new(name, [192, 0, 2, last].into(), 65010));
    }
    if !edges_take_holes {
        for edge in &mut bgp.peers[..2] {
            edge.steps = Some(vec![Rung::Drop]);
        }
    }
    bgp.peers[2].role = Some(weir_bgp::config::Role::Transit);
    world.mitigator.set_peers(bgp.known_peers(), false);
    world
}

fn flood(at: Millis) -> Verdict {
    attack(1, 500.0, at)
}

#[test]
fn rules_stay_where_the_black_hole_does_not_reach() {
    let check = |edges_take_holes: bool, expected: &[&str]| {
        let mut world = world(edges_take_holes);
        world.attack_as(3, flood);
        assert_eq!(world.desired(), [drop_from(123)], "a rule first");
        let skip = weir_model::Command::Skip { incident: IncidentId(1), by: "ann".into() };
        world.command(&skip).unwrap();
        assert_eq!(world.desired(), expected, "{edges_take_holes}");
        // Both end with the attack.
        world.end(1);
        world.wait(400);
        assert!(world.desired().is_empty());
    };
    let (rule, hole) = (drop_from(123), "blackhole 203.0.113.7/32");
    check(true, &[hole]);
    check(false, &[&rule, hole]);
}

#[test]
fn a_step_that_no_peer_takes_is_not_planned() {
    let mut world = world(false);
    let mut bgp = Bgp::new(65010, [10, 0, 0, 1].into());
    let mut only = PeerConfig::new("up", [192, 0, 2, 9].into(), 65000);
    only.role = Some(weir_bgp::config::Role::Transit);
    only.blackhole_max_len4 = Some(24);
    bgp.peers.push(only);
    world.mitigator.peers = crate::peers::Peers::default();
    world.mitigator.set_peers(bgp.known_peers(), false);
    world.attack_as(2, flood);
    assert!(world.desired().is_empty());
    let why = world.mitigator.take_decisions().pop().unwrap().detail;
    assert!(why.contains("does not take drop") && why.contains("/0 to /24"), "{why}");
}

#[test]
fn an_approved_black_hole_leaves_the_rules_that_it_does_not_reach() {
    let mut world = world(false);
    world.attack_as(3, flood);
    world.mitigator.config.two_person_rtbh = true;
    let skip = weir_model::Command::Skip { incident: IncidentId(1), by: "ann".into() };
    world.command(&skip).unwrap();
    let proposed = world.of(weir_model::MitigationState::Proposed)[0].id;
    for by in ["ann", "bob"] {
        let approve = weir_model::Command::Approve { mitigation: proposed, by: by.into() };
        let _ = world.command(&approve);
    }
    let hole = "blackhole 203.0.113.7/32".to_owned();
    assert_eq!(world.desired(), [drop_from(123), hole]);
}
