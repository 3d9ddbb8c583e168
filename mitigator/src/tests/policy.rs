//! Groups and the ladder changed while attacks go on, and what excluded prefixes keep weir from.

use std::sync::Arc;

use weir_model::{Command, MitigationState, Mode, PolicyGroup, PrefixSet, Rung, Spared, Verdict};

use super::{VICTIM, World, attack, inventory, limit_from, net};
use crate::{Config, RungConfig};

fn group(mode: Option<Mode>, never: &[Rung]) -> PolicyGroup {
    PolicyGroup {
        name: "acme".to_owned(),
        prefixes: PrefixSet::from(vec![net("203.0.113.0/28")]),
        mode,
        never: Some(never.to_vec()),
        ..PolicyGroup::default()
    }
}

impl World {
    fn groups(&mut self, groups: Vec<PolicyGroup>) {
        let inventory = inventory().as_ref().clone().grouped(groups);
        self.mitigator.set_inventory(Arc::new(inventory));
        self.mitigator.advance(self.now);
    }

    fn ladder(&mut self, rungs: &[Rung]) {
        let all = Config::default().ladder;
        let of = |rung: &Rung| -> RungConfig {
            all.iter().find(|step| step.rung == *rung).unwrap().clone()
        };
        self.mitigator.set_ladder(rungs.iter().map(of).collect());
        self.mitigator.advance(self.now);
    }

    /// An attack of which rules meet half.
    fn half(&mut self, secs: u64) {
        self.attack_as(secs, |at| {
            let mut v = attack(1, 3000.0, at);
            v.candidates[0].coverage = 0.5;
            v
        });
    }

    /// The same until it is black-holed.
    fn black_holed() -> Self {
        let mut world = Self::auto();
        world.half(1);
        world.announce_all();
        world.half(6);
        assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
        world
    }

    fn spared(&self) -> Vec<Spared> {
        self.mitigator.spared().copied().collect()
    }
}

#[test]
fn a_step_that_a_group_forbids_is_never_taken_by_itself() {
    let mut world = World::auto();
    world.groups(vec![group(None, &[Rung::Rtbh])]);
    world.half(1);
    world.announce_all();
    world.half(60);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    // A person may all the same.
    let measure = weir_model::Measure::Blackhole(net(VICTIM));
    world.command(&Command::Add { measure, ttl_secs: 60, by: "eve".into() }).unwrap();
    assert!(world.desired().contains(&format!("blackhole {VICTIM}")));
}

#[test]
fn a_black_hole_ends_when_its_group_forbids_it() {
    let mut world = World::black_holed();
    world.groups(vec![group(None, &[Rung::Rtbh])]);
    assert_eq!(world.desired(), [""; 0]);
    let ended = world.of(MitigationState::Withdrawn);
    assert!(ended.iter().any(|m| m.note == "never for group acme"), "{ended:?}");
    world.half(60);
    assert_eq!(world.desired(), [limit_from(123, 300_000)], "rules are all that is left");
    let incident = world.mitigator.incidents().next().unwrap();
    assert_eq!(incident.group.as_deref(), Some("acme"));
    assert_eq!(incident.rung, Some(Rung::RateLimit));
}

#[test]
fn a_group_of_others_changes_nothing() {
    let mut world = World::black_holed();
    let mut other = group(Some(Mode::Observe), &[Rung::Rtbh]);
    other.prefixes = PrefixSet::from(vec![net("203.0.113.128/25")]);
    world.groups(vec![other]);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
}

#[test]
fn weir_goes_no_further_than_a_group_allows() {
    let mut world = World::auto();
    world.groups(vec![group(Some(Mode::Observe), &[])]);
    world.attack(1, 300.0, 10);
    assert_eq!(world.desired(), [""; 0]);
    let simulated = world.of(MitigationState::Simulated);
    assert!(simulated[0].note.starts_with("group acme is in mode observe; "), "{simulated:?}");

    world.groups(vec![group(Some(Mode::Approve), &[])]);
    world.attack(1, 300.0, 10);
    assert_eq!(world.of(MitigationState::Simulated), []);
    let mitigation = world.of(MitigationState::Proposed)[0].id;
    world.command(&Command::Approve { mitigation, by: "eve".into() }).unwrap();
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);

    world.groups(vec![]);
    world.attack(1, 300.0, 10);
    assert_eq!(world.desired(), [limit_from(123, 300_000)], "what is approved stays");
    world.groups(vec![group(Some(Mode::Observe), &[])]);
    assert_eq!(world.desired(), [""; 0], "nothing is in force where weir only observes");
    // A group never goes further than weir itself.
    let mut world = World::new(|c| c.mode = Mode::Observe);
    world.groups(vec![group(Some(Mode::Auto), &[])]);
    world.attack(1, 300.0, 10);
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn a_groups_word_counts_after_a_restart() {
    let mut world = World::black_holed();
    let stored: Vec<_> = world.mitigator.incidents().map(|i| (**i).clone()).collect();
    let mut new = World::auto();
    new.now = world.now;
    new.mitigator.set_inventory(Arc::new(
        inventory().as_ref().clone().grouped(vec![group(None, &[Rung::Rtbh])]),
    ));
    new.mitigator.restore(stored, new.now);
    new.mitigator.advance(new.now);
    assert_eq!(new.desired(), [""; 0]);
    world.wait(1);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")], "without the group it stays");
}

#[test]
fn another_ladder_is_in_force_at_once() {
    let mut world = World::black_holed();
    world.ladder(&[Rung::RateLimit, Rung::Drop]);
    assert_eq!(world.desired(), [""; 0], "the black hole is no step any more");
    world.half(20);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.ladder(&[Rung::RateLimit, Rung::Drop, Rung::Rtbh]);
    world.announce_all();
    world.half(20);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
    let before = world.actions().len();
    world.ladder(&[Rung::RateLimit, Rung::Drop, Rung::Rtbh]);
    assert_eq!(world.actions().len(), 0, "the same ladder is no change, {before}");
}

#[test]
fn what_an_operator_closed_stays_closed_on_another_ladder() {
    let mut world = World::black_holed();
    let mitigation = world.of(MitigationState::Active)[0].id;
    world.half(1);
    let incident = weir_model::IncidentId(1);
    world.command(&Command::StepDown { incident, by: "eve".into() }).unwrap();
    assert!(!world.desired().contains(&format!("blackhole {VICTIM}")), "{mitigation:?}");
    for ladder in [
        &[Rung::Rtbh][..],
        &[Rung::RateLimit, Rung::Rtbh],
        &[Rung::Drop, Rung::RateLimit, Rung::Rtbh],
        &[Rung::Rtbh, Rung::Drop],
    ] {
        world.ladder(ladder);
        world.announce_all();
        world.half(30);
        assert!(!world.desired().contains(&format!("blackhole {VICTIM}")), "{ladder:?}");
    }
}

#[test]
fn attacks_that_an_exclusion_kept_weir_from_are_counted_once_each() {
    let excluded = |id: u64, confidence: u8| {
        move |at| Verdict { target: net("203.0.113.1/32"), confidence, ..attack(id, 300.0, at) }
    };
    let mut world = World::auto();
    world.attack(1, 300.0, 5);
    world.attack_as(5, excluded(2, 30));
    assert_eq!(world.spared(), [], "another target, and one that weir was not sure of");
    world.attack_as(5, excluded(3, 90));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let [spared] = world.spared()[..] else { panic!("{:?}", world.spared()) };
    assert_eq!((spared.prefix, spared.attacks), (net("203.0.113.1/32"), 1));
    world.restart(|_| {});
    world.attack_as(5, excluded(3, 90));
    world.attack_as(5, excluded(4, 90));
    let [spared] = world.spared()[..] else { panic!("{:?}", world.spared()) };
    assert_eq!(spared.attacks, 2, "the one of before the restart was counted");
    assert!(world.now.since(spared.last) <= 1000);
    // A carpet that takes the host in.
    world.attack_as(5, |at| Verdict { target: net("203.0.113.0/24"), ..attack(5, 300.0, at) });
    assert_eq!(world.spared()[0].attacks, 3);
}
