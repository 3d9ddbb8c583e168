//! Many targets at once.

use std::collections::BTreeSet;

use super::*;

/// Hosts attacked, each in a network of its own.
const HOSTS: u32 = 150;

fn world(shards: u16) -> World {
    let nets: Vec<IpNet> = vec!["10.0.0.0/16".parse().unwrap()];
    let inventory = Arc::new(Inventory::new(nets.into(), Vec::<IpNet>::new().into(), Vec::new()));
    let detector = Detector::new(Config::default(), Arc::clone(&inventory));
    World { detector, inventory, ..World::new(shards) }
}

/// Answers of many time servers to every host, for some slots; the targets found so far after each slot.
fn flood(world: &mut World, slots: u32) -> Vec<usize> {
    let mut found: BTreeSet<IpNet> = BTreeSet::new();
    (0..slots)
        .map(|slot| {
            for host in 0..HOSTS {
                world.send(20, |i| {
                    let mut packet = sample(slot * 1000 + i * 7, 123, 17, 4000, 468);
                    packet.record.dst = IpAddr::from((0x0a00_0007 + (host << 8)).to_be_bytes());
                    packet
                });
            }
            world.tick();
            found.extend(world.said.drain(..).map(|verdict| verdict.target));
            found.len()
        })
        .collect()
}

#[test]
fn targets_beyond_what_one_slot_may_look_at_take_turns() {
    let mut world = world(1);
    let found = flood(&mut world, 15);
    let looked_in_one = found.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(looked_in_one <= 64, "{found:?}");
    assert!(world.detector.counters().alarms_deferred > 0);
    assert_eq!(*found.last().unwrap(), HOSTS as usize, "{found:?}");
}

#[test]
fn what_was_put_off_is_looked_at_though_no_more_comes_in() {
    let mut world = world(1);
    let during = *flood(&mut world, 3).last().unwrap();
    let mut after: BTreeSet<IpNet> = BTreeSet::new();
    for _ in 0..12 {
        world.tick();
        after.extend(world.said.drain(..).map(|verdict| verdict.target));
    }
    assert!(during < HOSTS as usize, "{during}");
    assert_eq!(after.len(), HOSTS as usize, "each is found, or told of again");
}

#[test]
fn everybody_is_new_to_a_host_just_met() {
    let nets: Vec<IpNet> = vec!["203.0.113.0/24".parse().unwrap()];
    let server = Service { protocol: 17, port: 123, ..service(17, 123) };
    let inventory = Arc::new(Inventory::new(nets.into(), Vec::<IpNet>::new().into(), vec![server]));
    let detector = Detector::new(Config::default(), Arc::clone(&inventory));
    let mut world = World { detector, inventory, ..World::new(1) };
    // A time server's clients, every packet of them reported.
    for slot in 0..300_u32 {
        world.send(290, |i| {
            let mut asked = sample(slot * 1000 + i, 40_000, 17, 123, 76);
            asked.record.sampling = 1;
            asked
        });
        world.tick();
    }
    assert_eq!((world.said.len(), world.detector.counters().alarms), (0, 0));
}

#[test]
fn turns_do_not_depend_on_shards() {
    assert_eq!(flood(&mut world(1), 10), flood(&mut world(8), 10));
}
