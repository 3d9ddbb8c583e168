//! Steps that send traffic another way, and the one that only marks it.

use std::sync::Arc;

use weir_bgp::config::{Config as Bgp, Divert, PeerConfig};
use weir_model::{Inventory, Measure, MitigationState, Observed, Phase, Rung, Verdict};

use super::{World, attack, candidate, drop_from, limit_from, net};
use crate::{ConfigError, GuardConfig, RungConfig};

const GBPS: u64 = 1_000_000_000;

fn step(rung: Rung, above_bits_per_sec: u64) -> RungConfig {
    RungConfig { hold_secs: 10, ..RungConfig::new(rung, above_bits_per_sec) }
}

fn redirect(whole: bool) -> RungConfig {
    let to4 = "64512:9".parse().ok();
    RungConfig { to4, whole, ..step(Rung::Redirect, GBPS) }
}

/// A world with this ladder, where a peer diverts and redirection is allowed.
fn world(ladder: Vec<RungConfig>) -> World {
    let mut world = World::seeing_with(|config| config.ladder = ladder.clone());
    set_up(&mut world);
    world
}

/// The ladder of a network that diverts between rules and black holes.
pub(super) fn let_edge_divert(world: &mut World) {
    world.mitigator.config.ladder = vec![
        step(Rung::RateLimit, GBPS / 10),
        step(Rung::Drop, GBPS / 5),
        step(Rung::Divert, GBPS),
        step(Rung::Rtbh, 2 * GBPS),
    ];
    set_up(world);
}

/// A peer diverts, and redirection is allowed.
fn set_up(world: &mut World) {
    let guard = GuardConfig { allow_redirect: true, ..GuardConfig::default() };
    let config = world.mitigator.config.clone();
    world.mitigator.set_config(config, guard);
    let free = Inventory::new(vec![net("203.0.112.0/22")].into(), vec![].into(), Vec::new());
    world.mitigator.set_inventory(Arc::new(free));
    let mut bgp = Bgp::new(65010, [10, 0, 0, 1].into());
    let mut edge = PeerConfig::new("edge1", [192, 0, 2, 9].into(), 65010);
    let next_hop4 = Some([192, 0, 2, 66].into());
    edge.divert = Some(Divert {
        next_hop4,
        next_hop6: None,
        communities: vec![],
        local_pref: 300,
        no_export: false,
    });
    bgp.peers.push(edge);
    world.mitigator.set_peers(bgp.known_peers(), false);
}

fn inseparable(id: u64, target: &str, at: weir_model::Millis) -> Verdict {
    Verdict { separable: false, target: net(target), candidates: vec![], ..attack(id, 3000.0, at) }
}

#[test]
fn what_no_rule_can_tell_apart_is_diverted_with_the_prefix_around_it() {
    let mut world = world(vec![
        step(Rung::RateLimit, GBPS / 10),
        step(Rung::Divert, GBPS),
        step(Rung::Rtbh, 2 * GBPS),
    ]);
    world.attack_as(3, |at| inseparable(1, "203.0.113.7/32", at));
    assert_eq!(world.desired(), ["divert 203.0.113.0/24"]);
    assert_eq!(world.of(MitigationState::Active)[0].rung, Rung::Divert);
    // Another host of the same prefix: one route serves both.
    world.attack_as(3, |at| inseparable(2, "203.0.113.9/32", at));
    assert_eq!(world.desired(), ["divert 203.0.113.0/24"]);
    world.announce_all();
    let has =
        |world: &World| world.of(MitigationState::Active).iter().all(|m| m.peers == ["edge1"]);
    assert_eq!(world.of(MitigationState::Active).len(), 2);
    assert!(has(&world), "both incidents know who has it");
    // The one ends, the other goes on: the route stays.
    let over =
        |id, target: &str, at| Verdict { phase: Phase::Ended, ..inseparable(id, target, at) };
    let now = world.now;
    world.mitigator.verdict(&over(1, "203.0.113.7/32", now), now);
    world.attack_as(40, |at| inseparable(2, "203.0.113.9/32", at));
    assert_eq!(world.desired(), ["divert 203.0.113.0/24"]);
    let now = world.now;
    world.mitigator.verdict(&over(2, "203.0.113.9/32", now), now);
    world.wait(30);
    assert!(world.desired().is_empty(), "nothing stays after the last one's end");
}

#[test]
fn a_diversion_that_a_router_still_sees_leads_to_no_black_hole() {
    let mut world = world(vec![step(Rung::Divert, GBPS), step(Rung::Rtbh, 2 * GBPS)]);
    world.mitigator.config.rtbh_when_inseparable = true;
    world.attack_as(2, |at| inseparable(1, "203.0.113.7/32", at));
    world.announce_all();
    world.attack_as(900, |at| inseparable(1, "203.0.113.7/32", at));
    assert_eq!(world.desired(), ["divert 203.0.113.0/24"]);
    assert!(world.actions().iter().all(|action| action != "escalate"));
}

#[test]
fn a_carpet_is_diverted_in_pieces_that_the_guard_allows() {
    let mut world = world(vec![step(Rung::Divert, GBPS)]);
    world.attack_as(2, |at| inseparable(1, "203.0.112.0/23", at));
    assert_eq!(world.desired(), ["divert 203.0.112.0/24", "divert 203.0.113.0/24"]);
}

#[test]
fn what_must_not_be_touched_is_not_diverted_along() {
    let mut world = world(vec![step(Rung::Divert, GBPS), redirect(false)]);
    let spared = Inventory::new(
        vec![net("203.0.112.0/22")].into(),
        vec![net("203.0.113.200/32")].into(),
        Vec::new(),
    );
    world.mitigator.set_inventory(Arc::new(spared));
    world.attack_as(2, |at| inseparable(1, "203.0.113.7/32", at));
    assert_eq!(world.desired(), ["flowspec dst 203.0.113.7/32 redirect 64512:9"]);
}

#[test]
fn nobody_is_asked_to_divert_who_does_not() {
    let mut world = world(vec![step(Rung::Divert, GBPS)]);
    let mut bgp = Bgp::new(65010, [10, 0, 0, 1].into());
    bgp.peers.push(PeerConfig::new("edge1", [192, 0, 2, 9].into(), 65010));
    world.mitigator.set_peers(bgp.known_peers(), true);
    world.attack_as(2, |at| inseparable(1, "203.0.113.7/32", at));
    assert!(world.desired().is_empty());
    let why = world.mitigator.take_decisions().pop().unwrap().detail;
    assert!(why.contains("does not divert"), "{why}");
}

#[test]
fn a_redirect_takes_the_attack_or_the_whole_target() {
    let attack_rule = "flowspec dst 203.0.113.7/32 proto 17 sport 123 redirect 64512:9";
    let whole_rule = "flowspec dst 203.0.113.7/32 redirect 64512:9";
    let mut one = world(vec![redirect(false)]);
    one.attack(1, 3000.0, 2);
    assert_eq!(one.desired(), [attack_rule]);
    // Rules in force stay beside what takes the rest.
    let mut both = world(vec![step(Rung::RateLimit, GBPS / 10), redirect(true)]);
    both.mitigator.config.host_limit_bits_per_sec = 1;
    both.attack(1, 500.0, 2);
    assert_eq!(both.desired(), [limit_from(123, 300_000)]);
    both.attack(1, 3000.0, 10);
    assert_eq!(both.desired(), [whole_rule.to_owned(), limit_from(123, 300_000)]);
    // What has the same match takes its place.
    let mut same = world(vec![step(Rung::Drop, GBPS / 10), redirect(false)]);
    same.attack(1, 3000.0, 2);
    assert_eq!(same.desired(), [drop_from(123)]);
    let id = weir_model::IncidentId(1);
    same.command(&weir_model::Command::Skip { incident: id, by: "ann".into() }).unwrap();
    assert_eq!(same.desired(), [attack_rule]);
}

#[test]
fn a_copy_relieves_nobody_and_is_no_reason_to_stop() {
    let to4 = "192.0.2.66".parse().ok();
    let copy = RungConfig { to4, copy: true, ..step(Rung::Redirect, GBPS / 10) };
    let mut world = world(vec![copy, step(Rung::Drop, GBPS)]);
    world.attack(1, 500.0, 2);
    assert_eq!(
        world.desired(),
        ["flowspec dst 203.0.113.7/32 proto 17 sport 123 redirect copy 192.0.2.66"]
    );
    world.attack(1, 3000.0, 10);
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn a_mark_that_shows_no_effect_is_followed_by_the_next_step() {
    let mark = RungConfig { dscp: Some(8), ..step(Rung::Mark, GBPS / 10) };
    let mut world = World::new(|config| {
        config.ladder = vec![mark, step(Rung::RateLimit, GBPS / 10)];
    });
    // Of an exporter of which nobody knows which way it looks.
    let of = |at| Verdict { candidates: vec![candidate(123, 0.97, 0.001)], ..attack(1, 500.0, at) };
    world.attack_as(2, of);
    assert_eq!(world.desired(), ["flowspec dst 203.0.113.7/32 proto 17 sport 123 mark dscp 8"]);
    world.announce_all();
    world.attack_as(20, of);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn a_peer_that_withdraws_a_diverting_route_has_it_no_more() {
    let mut world = world(vec![step(Rung::Divert, GBPS)]);
    world.attack_as(2, |at| inseparable(1, "203.0.113.7/32", at));
    let measure = Measure::Divert(net("203.0.113.0/24"));
    let seen = Observed::Withdrawn { peer: "edge1".into(), measure, at: world.now };
    world.announce_all();
    assert_eq!(world.of(MitigationState::Active)[0].peers, ["edge1"]);
    world.mitigator.observed(&seen);
    assert!(world.of(MitigationState::Active)[0].peers.is_empty());
}

#[test]
fn a_step_says_what_it_needs_and_nothing_else() {
    let check = |step: RungConfig, expected: Option<&'static str>| {
        let config = crate::Config { ladder: vec![step.clone()], ..crate::Config::default() };
        assert_eq!(config.check().err(), expected.map(|why| ConfigError::Rung(step.rung, why)));
    };
    let new = |rung| step(rung, 1);
    check(RungConfig { dscp: Some(8), ..new(Rung::Mark) }, None);
    check(new(Rung::Mark), Some("mark needs dscp, 0-63"));
    check(RungConfig { dscp: Some(64), ..new(Rung::Mark) }, Some("mark needs dscp, 0-63"));
    check(RungConfig { dscp: Some(8), ..new(Rung::Drop) }, Some("dscp is for mark"));
    check(redirect(true), None);
    check(new(Rung::Redirect), Some("redirect needs to4 or to6"));
    let vrf = RungConfig { copy: true, ..redirect(false) };
    check(vrf, Some("copy needs a next hop: a VRF gets packets, not copies"));
    let misplaced = RungConfig { rung: Rung::Scrub, ..redirect(false) };
    check(misplaced, Some("to4, to6, copy and whole are for redirect"));
    check(RungConfig { len4: Some(32), ..new(Rung::Divert) }, None);
    check(RungConfig { len4: Some(7), ..new(Rung::Divert) }, Some("len4 is 8-32, len6 16-128"));
    check(RungConfig { len6: Some(48), ..new(Rung::Rtbh) }, Some("len4 and len6 are for divert"));
}

#[test]
fn a_part_that_goes_another_way_is_measured_before_a_black_hole() {
    let check = |first: RungConfig| {
        let mut world = world(vec![first, step(Rung::Rtbh, GBPS)]);
        let part =
            |at| Verdict { candidates: vec![candidate(123, 0.8, 0.0)], ..attack(1, 20_000.0, at) };
        world.attack_as(2, part);
        let desired = world.desired();
        assert!(desired.len() == 1 && desired[0].starts_with("flowspec"), "{desired:?}");
    };
    check(redirect(false));
    check(RungConfig { dscp: Some(8), ..step(Rung::Mark, GBPS) });
}
