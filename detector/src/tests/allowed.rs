//! Allow lists: what is answered of them is wanted, and what is forged in their name is not.

use weir_model::{AllowAlarms, AllowList, AllowLists, Direction, Match, Range};

use super::answered::answer;
use super::*;

/// A world in which a proxy's egress is 198.51.100.0/22, at TCP 443.
fn world(alarms: AllowAlarms, groups: &[&str]) -> World {
    let list = AllowList {
        name: "proxy".parse().unwrap(),
        prefixes: FromIterator::from_iter(["198.51.100.0/22".parse().unwrap()]),
        protocols: vec![6],
        ports: vec![Range::exact(443)],
        source_ports: Vec::new(),
        groups: groups.iter().map(ToString::to_string).collect(),
        alarms,
        waits: None,
    };
    let mut world = World::new(1);
    let allow = Arc::new(AllowLists::from(vec![list]));
    world.inventory = Arc::new(Inventory::clone(&world.inventory).allowing(allow));
    world.detector.set_inventory(Arc::clone(&world.inventory));
    world
}

/// A segment of one of sixty egress addresses, each with a few connections.
fn proxied(i: u32) -> Sample {
    let who = (crate::watch::hash::mix(3, u64::from(i)) % 60) as u32;
    let length = 80 + (i * 97 % 1300) as u16;
    sample(0xc633_6400 + who * 17, 30_000 + (who % 5) as u16, 6, 443, length)
}

impl World {
    /// So many tenths of a second with proxied requests that are answered.
    fn proxied(&mut self, slots: u32, each: u32) {
        for _ in 0..slots {
            self.requests(each);
            self.tick();
        }
    }

    fn requests(&mut self, each: u32) {
        let slot = (self.slot % 100_000) as u32;
        self.send(each, |i| proxied(slot * each + i));
        self.send(each, |i| answer(proxied(slot * each + i * 3)));
    }

    /// All rules that were told and may be announced.
    fn rules(&self) -> Vec<Match> {
        let all = self.said.iter().flat_map(|v| &v.candidates).filter(|c| c.hold.is_none());
        let mut all: Vec<Match> = all.map(|c| c.packets.clone()).collect();
        all.sort();
        all.dedup();
        all
    }
}

fn cut(rules: &[Match], s: &Sample) -> bool {
    let p = crate::watch::packets::Packet::new(s, 1, Direction::Inbound);
    rules.iter().any(|m| crate::evidence::matching::hits(m, &p))
}

#[test]
fn a_flood_on_the_port_of_a_proxy_is_cut_and_the_proxy_is_spared() {
    let mut world = world(AllowAlarms::Count, &[]);
    world.proxied(4000, 2);
    // Acknowledgements without a connection, on the same port, from anybody.
    let flood = |i: u32| sample(i.wrapping_mul(2_654_435_761), (i % 60_000) as u16, 6, 443, 40);
    for t in 0..100_u32 {
        world.requests(2);
        world.send(30, |i| flood(t * 30 + i));
        world.tick();
    }
    let rules = world.rules();
    assert!(!rules.is_empty(), "{:?}", world.said.last());
    assert!((0..100).all(|i| cut(&rules, &flood(i * 7))), "{rules:?}");
    assert!(!(0..200).any(|i| cut(&rules, &proxied(i))), "{rules:?}");
}

#[test]
fn forged_addresses_of_a_list_are_cut_by_what_else_they_have() {
    let mut world = world(AllowAlarms::Count, &[]);
    world.proxied(4000, 2);
    // From all over the list, and nobody is answered.
    let forged = |i: u32| {
        let src = 0xc633_6400 + (crate::watch::hash::mix(9, u64::from(i)) % 1024) as u32;
        sample(src, (i % 60_000) as u16, 6, 443, 40)
    };
    for t in 0..100_u32 {
        world.requests(2);
        world.send(30, |i| forged(t * 30 + i));
        world.tick();
    }
    let rules = world.rules();
    assert!((0..100).all(|i| cut(&rules, &forged(i * 7))), "{:?}", world.said.last());
    assert!(!(0..200).any(|i| cut(&rules, &proxied(i))), "{rules:?}");
    assert!(rules.iter().all(|m| m.src.is_none()), "{rules:?}");
}

/// What comes of a rush of proxied requests, all answered, twenty times as many as usual.
fn rush(mut world: World) -> World {
    world.proxied(4000, 2);
    world.proxied(60, 40);
    world
}

#[test]
fn a_rush_of_a_list_that_is_left_out_raises_no_alarm_for_its_groups_alone() {
    let told = |alarms, groups: &[&str], own: Option<&str>| {
        let mut world = world(alarms, groups);
        if let Some(name) = own {
            let group = weir_model::PolicyGroup {
                name: name.to_owned(),
                prefixes: FromIterator::from_iter(["203.0.113.0/25".parse().unwrap()]),
                ..weir_model::PolicyGroup::default()
            };
            world.inventory = Arc::new(Inventory::clone(&world.inventory).grouped(vec![group]));
            world.detector.set_inventory(Arc::clone(&world.inventory));
        }
        let world = rush(world);
        (world.said.len(), world.detector.counters().alarms_left_out)
    };
    let (said, left) = told(AllowAlarms::LeaveOut, &[], None);
    assert!(said == 0 && left > 0, "{said} {left}");
    assert_eq!(told(AllowAlarms::Count, &[], None).1, 0);
    let (said, left) = told(AllowAlarms::LeaveOut, &["shop"], Some("shop"));
    assert!(said == 0 && left > 0, "{said} {left}");
    assert_eq!(told(AllowAlarms::LeaveOut, &["shop"], Some("other")).1, 0);
}

#[test]
fn a_flood_beside_a_rush_that_is_left_out_is_told_by_itself_and_ends() {
    let mut world = world(AllowAlarms::LeaveOut, &[]);
    world.proxied(4000, 2);
    let flood = |i: u32| sample(i.wrapping_mul(2_654_435_761), 123, 17, 4000, 468);
    for t in 0..60_u32 {
        world.requests(20);
        world.send(20, |i| flood(t * 20 + i));
        world.tick();
    }
    let last = world.said.last().expect("an attack").clone();
    assert!((0.7..1.3).contains(&(last.excess.packets_per_sec / 200_000.0)), "{last:?}");
    assert!(last.rate.packets_per_sec > 350_000.0, "links count everything: {last:?}");
    assert_eq!(last.vectors.len(), 1, "{:?}", last.vectors);
    // The rush goes on, the attack does not.
    world.proxied(900, 20);
    assert_eq!(world.said.last().unwrap().phase, Phase::Ended, "{:?}", world.said.last());
}

#[test]
fn forged_senders_in_the_name_of_a_list_are_not_left_out() {
    let mut world = world(AllowAlarms::LeaveOut, &[]);
    world.proxied(4000, 2);
    for t in 0..60_u32 {
        world.requests(2);
        world.send(30, |i| {
            let src =
                0xc633_6400 + (crate::watch::hash::mix(9, u64::from(t * 30 + i)) % 1024) as u32;
            sample(src, ((t * 30 + i) * 7 % 60_000) as u16, 6, 443, 40)
        });
        world.tick();
    }
    assert!(!world.opened().is_empty());
    assert!(
        world.said.last().unwrap().excess.packets_per_sec > 200_000.0,
        "{:?}",
        world.said.last()
    );
}
