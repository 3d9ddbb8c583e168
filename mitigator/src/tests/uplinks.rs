//! The ladder's limit of each uplink.

use weir_model::LinkCount;

use super::feedback::status;
use super::*;
use crate::UplinkConfig;

/// Attacked for so long with 3 Gbit/s, of which rules cut nearly all, while an uplink of 4 Gbit/s carries so much.
fn attacked(world: &mut World, secs: u64, carried: u64, counted: &mut u64) {
    for _ in 0..secs {
        *counted += carried / 8;
        let mut exporter = status("edge1");
        exporter.last_seen = world.now;
        exporter.links = vec![LinkCount { index: 7, in_bytes: *counted, out_bytes: 0 }];
        let told = crate::Told { exporters: &[exporter], ..Default::default() };
        world.mitigator.look(told, world.now);
        world.attack_as(1, |at| attack(1, 3000.0, at));
    }
}

fn world(exporter: &str) -> World {
    let mut world = World::auto();
    world.mitigator.set_uplinks(&[UplinkConfig {
        name: "transit-a".to_owned(),
        exporter: exporter.to_owned(),
        interfaces: vec![7],
        capacity_bits_per_sec: 4_000_000_000,
        alarm_percent: 80.0,
        limit_percent: 95.0,
        least_bits_per_sec: None,
        inbound_bits_per_sec: None,
        outbound_bits_per_sec: None,
    }]);
    world
}

#[test]
fn rules_that_do_not_empty_a_full_uplink_are_followed_by_a_black_hole() {
    let check = |exporter: &str, carried: u64, after: &str| {
        let (mut world, mut counted) = (world(exporter), 0);
        attacked(&mut world, 2, carried, &mut counted);
        let rules = world.desired();
        assert!(
            rules.len() == 1 && rules[0].starts_with("flowspec"),
            "rules come first: {rules:?}"
        );
        world.announce_all();
        attacked(&mut world, 9, carried, &mut counted);
        let desired = world.desired();
        assert!(desired.len() == 1 && desired[0].starts_with(after), "{carried}: {desired:?}");
    };
    check("edge1", 3_900_000_000, "blackhole");
    check("edge1", 3_700_000_000, "flowspec");
    // The attack comes in elsewhere.
    check("edge2", 3_900_000_000, "flowspec");
}

#[test]
fn what_is_wrong_beside_attacks_is_a_decision() {
    let (mut world, mut counted) = (world("edge1"), 0);
    attacked(&mut world, 20, 3_900_000_000, &mut counted);
    let told = world.mitigator.take_decisions().into_iter().find(|d| d.action == "uplink-full");
    let told = told.unwrap();
    assert!(
        told.incident.is_none()
            && told.detail.starts_with("transit-a: inbound 3.9 Gbit/s of 4.0 Gbit/s (98 %)"),
        "{told:?}"
    );
}

#[test]
fn what_is_diverted_is_not_black_holed_for_a_full_uplink() {
    let (mut world, mut counted) = (world("edge1"), 0);
    divert::let_edge_divert(&mut world);
    attacked(&mut world, 2, 3_900_000_000, &mut counted);
    world.announce_all();
    for _ in 0..60 {
        attacked(&mut world, 2, 3_900_000_000, &mut counted);
        world.announce_all();
        let desired = world.desired();
        assert!(desired.iter().all(|route| !route.starts_with("blackhole")), "{desired:?}");
    }
    assert!(world.desired().contains(&"divert 203.0.113.0/24".to_owned()), "{:?}", world.desired());
}
