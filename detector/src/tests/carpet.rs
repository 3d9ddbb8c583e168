//! Attacks on whole prefixes, and what they leave behind.

use super::*;

fn world(net: &str) -> World {
    let nets: Vec<IpNet> = vec![net.parse().unwrap()];
    let inventory = Arc::new(Inventory::new(nets.into(), Vec::<IpNet>::new().into(), Vec::new()));
    let detector = Detector::new(Config::default(), Arc::clone(&inventory));
    World { detector, inventory, ..World::new(1) }
}

/// Answers of time servers to the `host`th address of 198.18.0.0.
fn ntp(i: u32, host: u32) -> Sample {
    let mut s = sample(i % 900 * 77, 123, 17, 4000, 468);
    s.record.dst = IpAddr::from((0xc612_0000 + host).to_be_bytes());
    s
}

/// A customer of each /24 who is always there.
fn customers(world: &mut World, seconds: u32) {
    for t in 0..seconds * 10 {
        usual(world, t);
        world.tick();
    }
}

fn usual(world: &mut World, t: u32) {
    world.send(4, |i| {
        let mut s = player(t * 4 + i);
        s.record.dst = IpAddr::from((0xc612_0005 + (t * 4 + i) % 16 * 256).to_be_bytes());
        s
    });
}

#[test]
fn a_carpet_that_shows_in_no_slash_24_is_found_in_the_prefix_around() {
    let mut world = world("198.18.0.0/20");
    customers(&mut world, 400);
    for t in 0..100_u32 {
        usual(&mut world, t);
        world.send(25, |i| ntp(t * 25 + i, (t * 25 + i).wrapping_mul(2_654_435_761) >> 20));
        world.tick();
    }
    let targets: Vec<String> = world.opened().iter().map(|v| v.target.to_string()).collect();
    assert_eq!(targets, ["198.18.0.0/20"], "{:?}", world.said.first());
    let rule = &world.said.last().unwrap().candidates[0];
    assert_eq!(rule.packets.dst.to_string(), "198.18.0.0/20");
    assert_eq!(rule.hold, None);
    assert_eq!(rule.parts.len(), 16);
}

#[test]
fn of_a_prefix_around_a_carpet_those_parts_are_told_that_it_goes_to() {
    let mut world = world("198.18.0.0/20");
    customers(&mut world, 400);
    for t in 0..100_u32 {
        usual(&mut world, t);
        // 198.18.2.0/23 and 198.18.9.0/24, in turn.
        let part = |n: u32| [2, 3, 9][n as usize % 3] << 8;
        world.send(25, |i| {
            let n = t * 25 + i;
            ntp(n, part(n) + (n.wrapping_mul(2_654_435_761) >> 24))
        });
        world.tick();
    }
    let wide = world.said.iter().rev().find(|v| v.target.prefix_len() < 24);
    let rule = &wide.expect("an incident of the prefix around").candidates[0];
    let parts: Vec<String> = rule.parts.iter().map(ToString::to_string).collect();
    assert_eq!(parts, ["198.18.2.0/24", "198.18.3.0/24", "198.18.9.0/24"]);
}

#[test]
fn an_attack_on_a_host_is_not_the_normal_of_its_prefix() {
    let net: IpNet = "198.18.0.0/24".parse().unwrap();
    let normal = |attacked: bool| {
        let mut world = world("198.18.0.0/24");
        customers(&mut world, 400);
        for t in 0..900_u32 {
            usual(&mut world, t);
            if attacked {
                world.send(30, |i| ntp(t * 30 + i, 7));
            }
            world.tick();
        }
        customers(&mut world, 120);
        assert_eq!(world.opened().is_empty(), !attacked);
        let warm = world.detector.warm_of(net).unwrap();
        let amplified = warm.profile.normal().iter().filter(|(p, _)| p.src_port == 123).count();
        (warm.series.mean(crate::watch::metric::PACKETS), amplified)
    };
    let (quiet, none) = normal(false);
    let (after, amplified) = normal(true);
    assert_eq!((none, amplified), (0, 0));
    assert!((after - quiet).abs() < 0.15 * quiet, "{after} {quiet}");
}

#[test]
fn a_carpet_that_begins_during_an_attack_on_one_of_its_hosts_is_seen() {
    let mut world = world("198.18.0.0/24");
    customers(&mut world, 400);
    // At first the host has three times as much as the carpet will have.
    for t in 0..100_u32 {
        usual(&mut world, t);
        world.send(60, |i| ntp(t * 60 + i, 7));
        world.tick();
    }
    let begun = world.slot;
    for t in 0..300_u32 {
        usual(&mut world, t);
        world.send(2, |i| ntp(t * 2 + i, 7));
        world.send(20, |i| ntp(t * 20 + i, 8 + (t * 20 + i) % 200));
        world.tick();
    }
    let carpet = world.opened().into_iter().find(|v| v.target.prefix_len() == 24).cloned();
    let carpet = carpet.expect("an incident on the prefix");
    assert!(carpet.at.slot() - begun <= 50, "{}", carpet.at.slot() - begun);
}

#[test]
fn a_full_table_has_room_again_when_hosts_fell_silent() {
    let mut world = world("2001:db8::/32");
    let config = Config { ipv6_hosts_max: 500, ..Config::default() };
    world.detector = Detector::new(config, Arc::clone(&world.inventory));
    let to = |i: u32, host: u128| {
        let mut s = sample(i % 900 * 77, 123, 17, 4000, 468);
        s.record.dst = IpAddr::from((0x2001_0db8_u128 << 96 | host).to_be_bytes());
        s.record.src = IpAddr::from((0x2400_u128 << 112 | u128::from(i)).to_be_bytes());
        s
    };
    for t in 0..50_u32 {
        world.send(20, |i| to(i, u128::from(t * 20 + i) << 64 | 1));
        world.tick();
    }
    assert!(world.detector.counters().hosts_refused > 0);
    world.said.clear();
    for _ in 0..700 {
        world.tick();
    }
    for t in 0..30_u32 {
        world.send(60, |i| to(t * 60 + i, 0xffff_0000));
        world.tick();
    }
    let host: IpNet = "2001:db8::ffff:0/128".parse().unwrap();
    assert!(world.opened().iter().any(|v| v.target == host), "{:?}", world.said.first());
}
