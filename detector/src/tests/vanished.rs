//! Traffic of services and groups that vanishes.

use weir_model::{Absence, Least, PolicyGroup, TotalThresholds};

use super::*;

fn acme(service: Option<Least>, total: Option<Least>) -> PolicyGroup {
    PolicyGroup {
        name: "acme".to_owned(),
        prefixes: FromIterator::from_iter(["203.0.113.0/26".parse().unwrap()]),
        service_least_bits_per_sec: service,
        total: total
            .map(|least| TotalThresholds { least_bits_per_sec: Some(least), ..Default::default() }),
        ..PolicyGroup::default()
    }
}

impl World {
    /// Seconds in which only another port of the host is used.
    fn pause(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            let slot = self.slot as u32;
            self.send(1, |_| sample(0x0a01_0000 + slot % 40, 40_000, 17, 9987, 120));
            self.tick();
        }
    }

    /// Nothing at all comes.
    fn nothing(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.tick();
        }
    }

    fn gone(&self) -> Vec<Absence> {
        let all = self.detector.absences();
        all.into_iter().filter(|absence| absence.vanished == Some(true)).collect()
    }
}

#[test]
fn a_service_that_vanishes_is_told_though_its_host_goes_on() {
    let mut world = World::new(2);
    world.groups(&[acme(Some(Least::Auto), None)]);
    world.play(400);
    assert_eq!(world.gone(), []);
    world.pause(30);
    let gone = world.gone();
    assert_eq!(gone.len(), 1, "the other declared service never had traffic");
    assert_eq!(gone[0].subject, "service lobby, 203.0.113.7 udp 28015");
    assert!(gone[0].text.contains("5 % of what is normal (1"), "{}", gone[0].text);
    // It stays so while it is away, and is told as back for as long as people need to be told.
    world.pause(1200);
    assert_eq!(world.gone().len(), 1);
    world.play(60);
    assert_eq!(world.detector.absences().len(), 1);
    assert_eq!(world.gone(), []);
    world.play(200);
    assert_eq!(world.detector.absences(), []);
    assert_eq!(world.opened(), Vec::<&Verdict>::new(), "it is no attack");
}

#[test]
fn players_who_leave_one_by_one_are_no_alarm() {
    let mut world = World::new(1);
    world.groups(&[acme(Some(Least::Auto), Some(Least::Auto))]);
    world.play(400);
    // From ten samples a second to none within forty minutes.
    for minute in 0..40_u32 {
        for slot in 0..600_u32 {
            if (slot * 7 + minute) % 40 >= minute {
                world.players();
            }
            world.tick();
        }
        assert_eq!(world.gone(), [], "minute {minute}");
    }
}

#[test]
fn nothing_is_said_at_a_start_nor_of_what_nobody_asked_for() {
    let mut world = World::new(1);
    world.groups(&[acme(None, None)]);
    world.play(400);
    world.nothing(120);
    assert_eq!(world.detector.absences(), []);
    let mut new = World::new(1);
    new.groups(&[acme(Some(Least::Fixed(1e6)), None)]);
    new.play(100);
    new.nothing(60);
    assert_eq!(new.gone(), [], "in the first minutes");
    new.nothing(200);
    assert_eq!(new.gone().len(), 1, "the other declared service has never been used");
    new.groups(&[acme(Some(Least::Off), None)]);
    new.nothing(12);
    assert_eq!(new.detector.absences(), []);
}

#[test]
fn a_group_that_vanishes_is_told_and_its_level_is_not_forgotten() {
    let mut world = World::new(1);
    world.groups(&[acme(None, Some(Least::Auto))]);
    world.play(400);
    let told = world.detector.absences();
    assert_eq!((told.len(), told[0].vanished), (1, Some(false)));
    world.nothing(1800);
    let gone = world.gone();
    assert_eq!((gone.len(), gone[0].subject.as_str()), (1, "group acme"));
    world.play(30);
    assert_eq!(world.gone(), []);
    // A second failure is seen, too: the first has not become normal.
    world.nothing(30);
    assert_eq!(world.gone().len(), 1);
}

#[test]
fn an_attack_on_a_host_says_nothing_of_its_services() {
    let mut world = World::new(1);
    world.groups(&[acme(Some(Least::Auto), None)]);
    world.play(400);
    for t in 0..600_u32 {
        world.send(20, |i| syn(t * 20 + i));
        world.tick();
    }
    assert_eq!(world.opened().len(), 1);
    assert_eq!(world.gone(), [], "rules or a black hole may keep it off");
}
