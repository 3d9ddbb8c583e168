//! Who says how far weir goes: the file, or a person.

use weir_model::Stance;

use super::*;

fn set(mode: Mode) -> Command {
    Command::SetMode { mode, by: "eve".into() }
}

fn panic() -> Command {
    Command::Panic { by: "eve".into() }
}

#[test]
fn the_brake_outranks_file_restart_and_reload_until_a_person_lifts_it() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    assert_eq!(world.desired().len(), 1);
    world.command(&panic()).unwrap();
    let check = |world: &mut World, what: &str| {
        world.attack(1, 300.0, 20);
        assert_eq!(world.desired(), [""; 0], "{what}");
        let stance = world.mitigator.stance().unwrap();
        assert!(stance.brake && stance.by == "eve", "{what}: {stance:?}");
        assert_eq!(world.mitigator.mode(), Mode::Observe, "{what}");
    };
    check(&mut world, "at once");
    world.restart(|_| {});
    check(&mut world, "after a restart");
    world.restart(|config| config.mode = Mode::Approve);
    check(&mut world, "after a restart with another file");
    world.mitigator.set_file_mode(Mode::Auto, world.now);
    check(&mut world, "after a reload");
    world.command(&set(Mode::Observe)).unwrap();
    check(&mut world, "observing is what it does");
    let mut other = World { mitigator: world.mitigator.clone(), now: world.now };
    world.command(&set(Mode::Auto)).unwrap();
    assert_eq!(world.mitigator.stance(), None, "the file says the same");
    world.attack(1, 300.0, 20);
    assert_eq!(world.desired().len(), 1);
    other.command(&Command::FollowFile { by: "bob".into() }).unwrap();
    assert_eq!((other.mitigator.mode(), other.mitigator.stance()), (Mode::Auto, None));
}

#[test]
fn a_mode_set_by_a_person_stands_until_the_files_own_value_changes() {
    let mut world = World::new(|config| config.mode = Mode::Observe);
    world.command(&set(Mode::Auto)).unwrap();
    world.attack(1, 300.0, 3);
    let rule = world.desired();
    assert_eq!(rule.len(), 1);
    world.restart(|config| config.mode = Mode::Observe);
    world.wait(1);
    assert_eq!((world.desired(), world.mitigator.mode()), (rule, Mode::Auto));
    world.mitigator.set_file_mode(Mode::Observe, world.now);
    assert_eq!(world.mitigator.mode(), Mode::Auto, "the file says what it said");
    world.restart(|config| config.mode = Mode::Approve);
    assert_eq!((world.mitigator.mode(), world.mitigator.stance()), (Mode::Approve, None));
    world.command(&set(Mode::Auto)).unwrap();
    world.mitigator.set_file_mode(Mode::Observe, world.now);
    assert_eq!((world.mitigator.mode(), world.mitigator.stance()), (Mode::Observe, None));
}

#[test]
fn what_the_brake_ended_stays_away_although_the_store_never_heard_of_it() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    let measure = Measure::Blackhole("203.0.113.9/32".parse().unwrap());
    let add = Command::Add { measure, ttl_secs: 600, by: "eve".into() };
    world.command(&add).unwrap();
    world.wait(1);
    assert_eq!(world.desired().len(), 2);
    let stored: Vec<_> = world.mitigator.incidents().map(|i| (**i).clone()).collect();
    let mut kept = world.mitigator.checkpoint();
    world.command(&panic()).unwrap();
    // Only what stands beside the state file knows of it.
    kept.word = world.mitigator.word().clone();
    let mut next = World { now: world.now + 5000, ..World::auto() };
    next.mitigator.restore_checkpoint(kept, next.now);
    next.mitigator.restore(stored, next.now);
    next.wait(1);
    assert_eq!(next.desired(), [""; 0]);
    let braked = Stance {
        mode: Mode::Observe,
        brake: true,
        by: "eve".into(),
        at: next.mitigator.word().at,
        file: Mode::Auto,
    };
    assert_eq!(next.mitigator.stance(), Some(&braked));
}
