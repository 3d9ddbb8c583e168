//! What groups say of thresholds and learning.

use weir_model::{Inbound, Learning, PolicyGroup, Threshold};

use super::*;

impl World {
    /// Puts the host and a few around it into a group; no group at all without.
    fn group(&mut self, group: Option<PolicyGroup>) {
        let of = |group: PolicyGroup| PolicyGroup {
            name: "acme".to_owned(),
            prefixes: FromIterator::from_iter(["203.0.113.0/28".parse().unwrap()]),
            ..group
        };
        let inventory = self.inventory.as_ref().clone();
        let inventory = Arc::new(inventory.grouped(group.into_iter().map(of).collect()));
        self.detector.set_inventory(Arc::clone(&inventory));
        self.inventory = inventory;
    }

    /// Ten thousand SYNs a second to a port that is no service, beside the players.
    fn knock(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.players();
            let slot = self.slot as u32;
            self.send(1, |_| {
                let mut syn = syn(slot);
                syn.record.dst_port = 80;
                syn
            });
            self.tick();
        }
    }

    fn levels(&self) -> Vec<f64> {
        let view = self.detector.host_view("203.0.113.7".parse().unwrap()).unwrap();
        view.baselines.iter().map(|base| base.level).collect()
    }
}

fn inbound(inbound: Inbound) -> Option<PolicyGroup> {
    Some(PolicyGroup { inbound: Some(Box::new(inbound)), ..PolicyGroup::default() })
}

fn learning(learning: Learning) -> Option<PolicyGroup> {
    Some(PolicyGroup { learning: Some(learning), ..PolicyGroup::default() })
}

#[test]
fn thresholds_are_those_of_the_group() {
    let check = |group: Option<PolicyGroup>, alarms: bool, why: &str| {
        let mut world = World::new(1);
        world.group(group);
        world.play(400);
        world.knock(10);
        assert_eq!(!world.opened().is_empty(), alarms, "{why}: {:?}", world.said);
    };
    let syns = |syns| inbound(Inbound { syns_per_sec: Some(syns), ..Inbound::default() });
    check(None, true, "no group");
    check(syns(Threshold::Auto), true, "auto");
    check(inbound(Inbound { multiplier: Some(4.0), ..Inbound::default() }), false, "four times");
    check(learning(Learning::ObserveOnly), false, "only observed");
    check(learning(Learning::Frozen), true, "frozen");
    let quiet = Inbound {
        packets_per_sec: Some(Threshold::Off),
        syns_per_sec: Some(Threshold::Off),
        ..Inbound::default()
    };
    check(inbound(quiet), false, "off");
    let mut set = learning(Learning::ObserveOnly).unwrap();
    set.inbound = syns(Threshold::Fixed(2000.0)).unwrap().inbound;
    check(Some(set), true, "only observed, but set");
}

#[test]
fn another_group_counts_at_once_and_leaves_baselines_alone() {
    let mut world = World::new(1);
    world.group(inbound(Inbound { multiplier: Some(4.0), ..Inbound::default() }));
    world.play(400);
    world.knock(10);
    assert_eq!(world.said, []);
    let before = world.levels();
    world.group(None);
    assert_eq!(world.levels(), before);
    world.knock(3);
    assert_eq!(world.opened().len(), 1, "{:?}", world.said);
    // What is open ends by the thresholds it began with.
    world.group(inbound(Inbound { syns_per_sec: Some(Threshold::Off), ..Inbound::default() }));
    world.play(60);
    assert_eq!(world.said.last().unwrap().phase, Phase::Ended);
}

#[test]
fn a_frozen_group_learns_what_is_new_and_stands_still() {
    let mut world = World::new(1);
    world.group(learning(Learning::Frozen));
    world.play(400);
    let known = world.levels();
    assert!(known[0] > 5000.0, "{known:?}");
    let twice = |world: &mut World| {
        for slot in 0..4000_u32 {
            world.send(2, |i| player(slot * 2 + i));
            world.tick();
        }
    };
    twice(&mut world);
    assert_eq!(world.levels(), known);
    // A host that was quiet until now has something to stand still a little later.
    let other = "203.0.113.9";
    let level = |world: &World| {
        let view = world.detector.host_view(other.parse().unwrap());
        view.map_or((0.0, false), |view| (view.baselines[0].level, view.frozen))
    };
    for slot in 0..4000_u32 {
        world.send(1, |_| {
            let mut player = player(slot);
            player.record.dst = other.parse().unwrap();
            player
        });
        world.tick();
    }
    let (packets, frozen) = level(&world);
    assert!(packets > 5000.0 && frozen, "{packets} {frozen}");
    world.group(learning(Learning::On));
    twice(&mut world);
    assert!(world.levels()[0] > known[0] * 1.1, "{known:?} {:?}", world.levels());
}
