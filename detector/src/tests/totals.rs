//! Totals of groups.

use weir_model::{Bounds, GroupTotal, PolicyGroup, Threshold, TotalLimits, TotalThresholds};

use super::*;

fn group(name: &str, net: &str, packets: Option<Threshold>) -> PolicyGroup {
    let inbound = TotalLimits { packets_per_sec: packets, bits_per_sec: None };
    PolicyGroup {
        name: name.to_owned(),
        prefixes: FromIterator::from_iter([net.parse().unwrap()]),
        total: packets.map(|_| TotalThresholds { inbound, ..TotalThresholds::default() }),
        ..PolicyGroup::default()
    }
}

fn at_least(floor: f64) -> Threshold {
    Threshold::Within(Bounds { floor: Some(floor), ..Bounds::default() })
}

impl World {
    pub(super) fn groups(&mut self, groups: &[PolicyGroup]) {
        let inventory = self.inventory.as_ref().clone().grouped(groups.to_vec());
        self.inventory = Arc::new(inventory);
        self.detector.set_inventory(Arc::clone(&self.inventory));
    }

    /// Some 40,000 packets a second more, a few thousand for each of sixteen hosts.
    fn spread(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.players();
            let slot = self.slot as u32;
            self.send(4, |i| {
                let mut sample = player(slot * 4 + i);
                let host = 0xcb00_7110 + (slot * 4 + i) % 16;
                sample.record.dst = std::net::Ipv4Addr::from(host).into();
                sample
            });
            self.tick();
        }
    }

    fn total(&self, name: &str) -> GroupTotal {
        self.detector.totals().into_iter().find(|total| total.group == name).unwrap()
    }

    fn above(&self, name: &str) -> Option<bool> {
        self.total(name).above
    }

    fn level(&self, name: &str) -> f64 {
        self.total(name).measures[0].level
    }
}

#[test]
fn a_total_is_above_its_threshold_though_none_of_its_hosts_is() {
    let mut world = World::new(2);
    world.groups(&[group("acme", "203.0.113.0/26", Some(Threshold::Fixed(30_000.0)))]);
    world.play(400);
    assert_eq!(world.above("acme"), Some(false));
    world.spread(20);
    let total = world.total("acme");
    assert_eq!(total.above, Some(true), "{total:?}");
    assert!((45_000.0..=55_000.0).contains(&total.measures[0].now), "{total:?}");
    assert_eq!(
        (total.measures[0].threshold, &*total.measures[0].source),
        (Some(30_000.0), "group")
    );
    assert!(
        total.text.contains("an alert only") && total.text.contains("no incident"),
        "{}",
        total.text
    );
    assert_eq!(world.said, [], "a total is no attack");
    world.play(60);
    assert_eq!((world.above("acme"), world.total("acme").text.as_str()), (Some(false), ""));
}

#[test]
fn what_is_too_much_is_learned_and_does_not_become_normal() {
    let mut world = World::new(1);
    world.groups(&[group("acme", "203.0.113.0/26", Some(at_least(15_000.0)))]);
    world.play(30);
    assert!(world.total("acme").learning);
    assert_eq!(world.total("acme").measures[0].threshold, Some(75_000.0), "nothing is known yet");
    world.play(370);
    let before = world.level("acme");
    assert_eq!(world.total("acme").measures[0].source, "baseline");
    world.spread(600);
    assert_eq!(world.above("acme"), Some(true));
    assert!(world.level("acme") < 1.2 * before, "{} after {before}", world.level("acme"));
    let off = group("acme", "203.0.113.0/26", Some(Threshold::Off));
    world.groups(&[off]);
    world.spread(5);
    let total = world.total("acme");
    assert_eq!((total.above, total.measures[0].threshold), (Some(false), None), "{total:?}");
}

#[test]
fn what_an_incident_explains_is_neither_told_again_nor_normal() {
    let mut world = World::new(1);
    world.groups(&[
        group("learned", "203.0.113.0/26", Some(at_least(15_000.0))),
        group("set", "203.0.113.0/25", Some(Threshold::Fixed(100_000.0))),
    ]);
    world.play(400);
    let before = world.level("learned");
    for t in 0..1200_u32 {
        world.players();
        world.send(20, |i| syn(t * 20 + i));
        world.tick();
    }
    assert_eq!(world.opened().len(), 1);
    assert_ne!(world.above("learned"), Some(true), "{:?}", world.total("learned"));
    let set = world.total("set");
    assert_eq!(set.above, Some(true), "who sets a threshold is told: {set:?}");
    assert!(set.text.contains("one incident of its hosts is open"), "{}", set.text);
    world.play(200);
    assert!(world.level("learned") < 1.2 * before, "{} after {before}", world.level("learned"));
}

#[test]
fn a_total_holds_those_below_it_and_every_host_once() {
    for shards in [1, 3] {
        let mut world = World::new(shards);
        let auto = Some(Threshold::Auto);
        world.groups(&[
            group("host", "203.0.113.7/32", auto),
            group("all", "203.0.113.0/24", auto),
            group("rest", "203.0.113.16/29", auto),
            // Not watched as a whole, but part of those above it.
            group("untold", "203.0.113.24/30", None),
        ]);
        world.play(60);
        world.spread(20);
        let now = |name: &str| world.total(name).measures[0].now.round();
        assert_eq!(now("host"), 10_000.0);
        assert_eq!(now("rest"), 20_000.0, "half of the sixteen");
        assert_eq!(now("all"), 50_000.0);
        assert_eq!(world.detector.totals().len(), 3);
    }
}

#[test]
fn a_total_is_known_over_a_restart_and_anew_when_it_is_of_other_prefixes() {
    let mut world = World::new(1);
    let acme = |net: &str| group("acme", net, Some(at_least(15_000.0)));
    world.groups(&[acme("203.0.113.0/26")]);
    world.play(400);
    let level = world.level("acme");
    assert!(level > 5_000.0);
    let checkpoint = world.detector.checkpoint();
    let mut again = World::new(1);
    again.slot = world.slot + 20;
    again.groups(&[acme("203.0.113.0/26")]);
    again.detector.restore(checkpoint, Millis::from_slot(again.slot));
    again.play(1);
    assert!((again.level("acme") - level).abs() < 1.0);
    assert!(!again.total("acme").learning);
    // Another threshold, another order: the same total.
    again.groups(&[
        group("other", "203.0.113.128/26", Some(Threshold::Auto)),
        acme("203.0.113.0/26"),
    ]);
    again.play(1);
    assert!(!again.total("acme").learning && again.total("other").learning);
    again.groups(&[acme("203.0.113.0/27")]);
    again.play(1);
    assert!(again.total("acme").learning);
    again.groups(&[]);
    again.play(1);
    assert_eq!(again.detector.totals(), []);
}
