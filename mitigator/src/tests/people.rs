//! Two people for a black hole, and what waits meanwhile.

use weir_model::{Command, CommandError, Measure, MitigationId, MitigationState, Mode, Verdict};

use super::{World, attack, limit_from, net};

fn approve(id: MitigationId, by: &str) -> Command {
    Command::Approve { mitigation: id, by: by.into() }
}

#[test]
fn a_black_hole_waits_for_two_people_while_the_rule_stays() {
    let mut world = World::new(|c| c.two_person_rtbh = true);
    let verdict = |share: f64| {
        move |at| {
            let mut v = attack(1, 3000.0, at);
            v.candidates[0].coverage = share;
            v
        }
    };
    world.attack_as(3, verdict(0.97));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.announce_all();
    world.attack_as(7, verdict(0.5));
    assert_eq!(world.desired(), [limit_from(123, 300_000)], "the rule stays meanwhile");
    let id = world.of(MitigationState::Proposed)[0].id;
    assert_eq!(world.command(&approve(id, "eve")), Ok(Some(id.0)));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    assert!(matches!(world.command(&approve(id, "eve")), Err(CommandError::Conflict(_))));
    world.command(&approve(id, "mallory")).unwrap();
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
    world.attack_as(60, verdict(0.5));
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
}

#[test]
fn a_manual_black_hole_needs_another_person_even_over_a_restart() {
    let mut world = World::new(|c| c.two_person_rtbh = true);
    let measure = Measure::Blackhole(net("203.0.113.9/32"));
    let add = Command::Add { measure, ttl_secs: 600, by: "eve".into() };
    let id = MitigationId(world.command(&add).unwrap().unwrap());
    assert_eq!(world.desired(), [""; 0]);
    world.restart(|c| c.two_person_rtbh = true);
    assert!(matches!(world.command(&approve(id, "eve")), Err(CommandError::Conflict(_))));
    world.command(&approve(id, "mallory")).unwrap();
    assert_eq!(world.desired(), ["blackhole 203.0.113.9/32"]);
    world.restart(|c| c.two_person_rtbh = true);
    world.wait(1);
    assert_eq!(world.desired(), ["blackhole 203.0.113.9/32"], "manual measures survive a restart");
    world.wait(600);
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn in_approve_mode_a_harder_step_waits_beside_the_approved_one() {
    let mut world = World::new(|c| c.mode = Mode::Approve);
    world.attack(1, 3000.0, 1);
    let first = world.of(MitigationState::Proposed)[0].id;
    world.command(&approve(first, "eve")).unwrap();
    for _ in 0..7 {
        world.announce_all();
        world.attack(1, 3000.0, 1);
    }
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let harder = world.of(MitigationState::Proposed);
    assert_eq!(harder.len(), 1, "{:?}", world.actions());
    world.command(&approve(harder[0].id, "eve")).unwrap();
    assert_eq!(world.desired(), [super::drop_from(123)]);
}

#[test]
fn proposals_are_moot_when_the_attack_is_over() {
    let mut world = World::new(|c| c.mode = Mode::Approve);
    world.attack(1, 300.0, 3);
    let id = world.of(MitigationState::Proposed)[0].id;
    world.end(1);
    assert!(matches!(world.command(&approve(id, "eve")), Err(CommandError::Conflict(_))));
    assert_eq!(world.mitigator.incidents().next().unwrap().mitigations.len(), 1);
}

#[test]
fn a_proposal_follows_the_verdict_but_not_every_second() {
    let mut world = World::new(|c| c.mode = Mode::Approve);
    world.attack_as(60, |at| Verdict { separable: true, ..attack(1, 300.0, at) });
    assert_eq!(world.of(MitigationState::Proposed).len(), 1);
    assert_eq!(world.of(MitigationState::Withdrawn).len(), 0);
}
