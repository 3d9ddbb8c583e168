//! Ends, probes, and victims that are attacked again and again.

use weir_model::{IncidentId, IncidentState, Millis, MitigationState, Mode, OutlookKind, Verdict};

use super::{World, attack, candidate, drop_from, limit_from, net};

/// Attack `id` at 3 Gbit/s until the drop is in force.
fn drop_in_force(world: &mut World, id: u64) {
    for _ in 0..7 {
        world.attack(id, 600.0, 1);
        world.announce_all();
    }
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn after_the_end_weir_steps_down_before_it_lets_go() {
    let mut world = World::seeing();
    drop_in_force(&mut world, 1);
    world.end(1);
    world.wait(31);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.wait(30);
    assert_eq!(world.desired(), [""; 0]);
    world.wait(10);
    assert_eq!(world.mitigator.incidents().next().unwrap().state, IncidentState::Closed);
}

#[test]
fn what_comes_next_is_told_and_then_happens() {
    let mut world = World::seeing();
    let id = IncidentId(1);
    let next = |world: &World| world.mitigator.outlook(id).map(|o| (o.kind, o.at));
    assert_eq!(next(&world), None);
    world.attack(1, 600.0, 1);
    assert_eq!(next(&world), None, "nothing is judged before a peer has it");
    let on_wire = world.now;
    world.announce_all();
    assert_eq!(next(&world), Some((OutlookKind::Judge, on_wire + 5000)));
    world.attack(1, 600.0, 5);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.attack(1, 600.0, 1);
    assert_eq!(world.desired(), [drop_from(123)]);
    world.end(1);
    // Each thing told of happens at the very time, and what follows is told then.
    for (kind, left) in [
        (OutlookKind::StepDown, Some(limit_from(123, 300_000))),
        (OutlookKind::Withdraw, None),
        (OutlookKind::Close, None),
    ] {
        let (said, at) = next(&world).expect("an open incident");
        assert_eq!(said, kind);
        let before = world.desired();
        world.wait((at.since(world.now) - 100) / 1000);
        assert_eq!(world.desired(), before);
        world.wait(1);
        assert_eq!(world.desired(), Vec::from_iter(left));
    }
    assert_eq!(next(&world), None, "closed");
}

#[test]
fn a_black_hole_falls_back_to_the_rule_it_replaced() {
    let mut world = World::seeing();
    for _ in 0..13 {
        world.attack(1, 3000.0, 1);
        world.announce_all();
    }
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
    world.end(1);
    world.wait(61);
    assert_eq!(world.desired(), [drop_from(123)]);
    world.wait(30);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.wait(30);
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn an_attack_that_shows_itself_in_the_probe_is_met_at_once_and_held_longer() {
    let mut world = World::auto();
    world.attack(1, 300.0, 10);
    let holds = [30, 900, 3600, 14_400, 93_600, 93_600];
    for (i, hold) in holds.into_iter().enumerate() {
        let id = 1 + i as u64;
        world.attack(id, 300.0, 1);
        assert_eq!(world.desired().len(), 1, "attack {id} is met at once");
        world.end(id);
        let ended = world.now;
        world.wait(hold - 1);
        while !world.desired().is_empty() {
            world.wait(1);
        }
        let held = world.now.since(ended) / 1000;
        assert!((hold..=hold + 1).contains(&held), "attack {id}: held {held}, expected {hold}");
        // The next one comes back under a new number while weir still looks.
        world.wait(5);
    }
}

#[test]
fn peace_is_believed_after_a_while() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    world.end(1);
    world.wait(31 + 901);
    world.attack(2, 300.0, 3);
    world.end(2);
    world.wait(31);
    assert_eq!(world.desired(), [""; 0], "no longer a repeat victim");
}

#[test]
fn a_new_incident_takes_over_the_rules_of_one_that_is_held() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    world.end(1);
    world.wait(5);
    let before = world.mitigator.desired().mitigations.clone();
    world.attack_as(1, |at| {
        let mut v = attack(2, 300.0, at);
        v.candidates[0].normal_bytes_per_sec = 150_000.0;
        v
    });
    let after = world.mitigator.desired().mitigations.clone();
    assert_eq!(before[0].measure, after[0].measure, "the routers notice nothing");
    assert_eq!(after[0].originator, weir_model::Originator::Incident(IncidentId(2)));
    let first = world.mitigator.incidents().next().unwrap();
    assert_eq!((first.id, first.state), (IncidentId(1), IncidentState::Closed));
}

#[test]
fn a_return_below_the_old_step_still_finds_the_gentler_one() {
    let mut world = World::seeing();
    drop_in_force(&mut world, 1);
    world.end(1);
    world.wait(65);
    assert_eq!(world.desired(), [""; 0]);
    world.attack(2, 200.0, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn simulated_measures_step_down_without_ever_being_announced() {
    let mut world = World::new(|c| c.mode = Mode::Observe);
    world.attack(1, 3000.0, 10);
    world.end(1);
    for _ in 0..200 {
        world.wait(1);
        assert_eq!(world.desired(), [""; 0]);
        assert_eq!(world.of(MitigationState::Active).len(), 0);
    }
    assert_eq!(world.of(MitigationState::Simulated).len(), 0);
}

#[test]
fn a_carpet_is_met_on_its_prefix_around_what_must_not_be_touched() {
    let mut world = World::auto();
    let carpet = |at: Millis| {
        let mut v = attack(1, 5000.0, at);
        v.target = net("203.0.113.0/24");
        v.candidates = vec![candidate(123, 0.97, 0.001)];
        v.candidates[0].packets.dst = net("203.0.113.0/24");
        v
    };
    world.attack_as(3, carpet);
    let desired = world.mitigator.desired();
    assert_eq!(desired.mitigations.len(), 8, "a /24 without one host");
    assert!(
        desired.mitigations.iter().all(|m| !m.measure.target().contains(&net("203.0.113.1/32")))
    );
    // A piece that an operator does not want stays away, the others stay.
    let id = desired.mitigations[3].id;
    let withdraw = weir_model::Command::Withdraw { mitigation: id, by: "eve".into() };
    world.command(&withdraw).unwrap();
    world.attack_as(10, carpet);
    assert_eq!(world.desired().len(), 7);
    // Nobody black-holes a whole prefix, however large the attack.
    world.attack_as(60, |at| Verdict { separable: false, ..carpet(at) });
    assert!(!world.desired().iter().any(|m| m.starts_with("blackhole")));
}

#[test]
fn a_hold_ends_by_itself_after_its_longest_time() {
    let mut world = World::new(|c| c.hold_max_secs = 600);
    world.attack(1, 300.0, 3);
    let hold = weir_model::Command::Hold { incident: IncidentId(1), on: true, by: "eve".into() };
    world.command(&hold).unwrap();
    world.end(1);
    world.wait(590);
    assert_eq!(world.desired().len(), 1);
    world.wait(60);
    assert_eq!(world.desired().len(), 0);
}
