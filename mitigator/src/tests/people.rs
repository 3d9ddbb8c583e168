//! Two people for a black hole, and what waits meanwhile.

use weir_model::{
    Action, Command, CommandError, Filter, IncidentId, Match, Measure, MitigationId,
    MitigationState, Mode, Verdict,
};

use super::{World, attack, drop_from, limit_from, net};

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
fn a_rule_that_comes_to_a_black_hole_needs_another_person_too() {
    let mut world = World::new(|c| c.two_person_rtbh = true);
    let mut packets = Match::to(net("203.0.113.10/32"));
    let add = |packets: &Match, action| Command::Add {
        measure: Measure::FlowSpec(Filter { packets: packets.clone(), action }),
        ttl_secs: 600,
        by: "eve".into(),
    };
    let drop = add(&packets, Action::Drop);
    let id = MitigationId(world.command(&drop).unwrap().unwrap());
    assert_eq!(world.desired(), [""; 0]);
    assert!(matches!(world.command(&approve(id, "eve")), Err(CommandError::Conflict(_))));
    packets.protocols = vec![1, 6, 17];
    world.command(&add(&packets, Action::RateLimit { bytes_per_sec: 9 })).unwrap();
    assert_eq!(world.desired(), [""; 0], "nor does its spelling matter");
    packets.protocols = vec![17];
    world.command(&add(&packets, Action::Drop)).unwrap();
    assert_eq!(world.desired().len(), 1, "what leaves a service alive needs one");
    world.command(&approve(id, "mallory")).unwrap();
    assert_eq!(world.desired().len(), 2);
}

#[test]
fn in_approve_mode_a_harder_step_waits_beside_the_approved_one() {
    let mut world = World::seeing_with(|c| c.mode = Mode::Approve);
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
    assert_eq!(world.desired(), [drop_from(123)]);
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

const EVE: &str = "eve";

fn skip(id: u64) -> Command {
    Command::Skip { incident: IncidentId(id), by: EVE.into() }
}

fn step_down(id: u64) -> Command {
    Command::StepDown { incident: IncidentId(id), by: EVE.into() }
}

#[test]
fn skipping_goes_on_to_the_next_step_that_is_allowed() {
    let mut world = World::auto();
    assert_eq!(world.command(&skip(1)), Err(CommandError::NotFound));
    world.attack(1, 600.0, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.command(&skip(1)).unwrap();
    assert_eq!(world.desired(), [drop_from(123)]);
    // Too small for a black hole: the guard rails of the ladder hold for people, too.
    assert!(matches!(world.command(&skip(1)), Err(CommandError::Conflict(_))));
    world.attack(1, 600.0, 30);
    assert_eq!(world.desired(), [drop_from(123)]);
    assert!(world.actions().contains(&"skip".to_owned()));
    world.end(1);
    assert!(matches!(world.command(&skip(1)), Err(CommandError::Conflict(_))));
}

#[test]
fn skipping_what_is_proposed_proposes_the_next_step() {
    let mut world = World::new(|c| c.mode = Mode::Approve);
    world.attack(1, 600.0, 1);
    world.command(&skip(1)).unwrap();
    let proposed = world.of(MitigationState::Proposed);
    assert_eq!(proposed.len(), 1);
    assert_eq!(proposed[0].measure.to_string(), drop_from(123));
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn stepping_down_stays_below_the_step_left_even_over_a_restart() {
    let mut world = World::seeing();
    for _ in 0..13 {
        world.attack(1, 3000.0, 1);
        world.announce_all();
    }
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
    world.command(&step_down(1)).unwrap();
    assert_eq!(world.desired(), [drop_from(123)]);
    for _ in 0..60 {
        world.attack(1, 3000.0, 1);
        world.announce_all();
    }
    assert_eq!(world.desired(), [drop_from(123)], "and does not climb again");
    world.restart(|_| {});
    for _ in 0..30 {
        world.attack(1, 3000.0, 1);
        world.announce_all();
    }
    assert_eq!(world.desired(), [drop_from(123)]);
    world.command(&step_down(1)).unwrap();
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    assert!(matches!(world.command(&step_down(1)), Err(CommandError::Conflict(_))));
    // Who skips opens what was closed.
    world.command(&skip(1)).unwrap();
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn stepping_down_from_a_first_black_hole_leaves_the_rules_or_nothing() {
    let mut world = World::new(|c| c.link_limit_bits_per_sec = Some(10_000_000));
    world.attack(1, 3000.0, 1);
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
    world.command(&step_down(1)).unwrap();
    let desired = world.desired();
    assert!(desired == [drop_from(123)] || desired == [limit_from(123, 300_000)], "{desired:?}");
    let mut world = World::new(|c| c.rtbh_when_inseparable = true);
    let flood = |at| Verdict { separable: false, ..attack(1, 3000.0, at) };
    world.attack_as(1, flood);
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
    world.command(&step_down(1)).unwrap();
    assert_eq!(world.desired(), [""; 0]);
    world.attack_as(60, flood);
    assert_eq!(world.desired(), [""; 0], "and does not come back");
}

#[test]
fn after_the_end_a_person_may_step_down_sooner() {
    let mut world = World::auto();
    world.attack(1, 600.0, 1);
    world.command(&skip(1)).unwrap();
    world.end(1);
    world.command(&step_down(1)).unwrap();
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.command(&step_down(1)).unwrap();
    assert_eq!(world.desired(), [""; 0]);
    assert!(matches!(world.command(&step_down(1)), Err(CommandError::Conflict(_))));
}

#[test]
fn a_dry_run_of_a_step_shows_both_sides_and_changes_nothing() {
    let mut world = World::auto();
    world.attack(1, 600.0, 1);
    let run = world.mitigator.dry_run(&skip(1), world.now).unwrap();
    let text = |list: &[Measure]| list.iter().map(Measure::to_string).collect::<Vec<_>>();
    assert_eq!(text(&run.adds), [drop_from(123)]);
    assert_eq!(text(&run.removes), [limit_from(123, 300_000)]);
    assert_eq!(run.normal_share, Some(0.001));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let run = world.mitigator.dry_run(&step_down(1), world.now);
    assert!(matches!(run, Err(CommandError::Conflict(_))));
}
