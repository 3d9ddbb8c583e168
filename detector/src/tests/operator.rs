//! Operators and baselines.

use std::net::IpAddr;
use std::num::NonZeroU64;

use weir_model::{BaselineChange, CommandError, Direction, Metric, Millis};

use super::{World, player};
use crate::Config;

fn host() -> IpAddr {
    "203.0.113.7".parse().unwrap()
}

fn threshold(metric: Metric, direction: Direction, value: u64) -> BaselineChange {
    BaselineChange::Threshold { metric, direction, value: NonZeroU64::new(value) }
}

/// The threshold in force and where it comes from.
fn shown(world: &World, metric: Metric, way: Direction) -> (f64, &'static str) {
    let view = world.detector.host_view(host()).unwrap();
    let of = view.baselines.iter().find(|b| b.metric == metric && b.direction == way).unwrap();
    (of.threshold, of.source)
}

fn level(world: &World) -> f64 {
    world.detector.host_view(host()).unwrap().baselines[0].level
}

#[test]
fn other_settings_hold_at_once() {
    let mut world = World::new(1);
    world.play(400);
    let bits = |world: &World| shown(world, Metric::BitsPerSec, Direction::Inbound).0;
    let mut config = Config { quarantine_secs: 7, ..Config::default() };
    config.floors.bits_per_sec = bits(&world) * 2.0;
    let wanted = config.floors.bits_per_sec;
    world.detector.set_config(config);
    assert_eq!(bits(&world), wanted);
    // There is room for as many seconds in quarantine as before.
    world.play(60);
    assert_eq!(world.said, []);
}

#[test]
fn what_an_operator_set_outlives_a_restart_and_a_weekend() {
    let mut world = World::new(1);
    world.play(400);
    let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
    let mut change = |what| world.detector.change_baseline(host(), what);
    change(BaselineChange::Freeze).unwrap();
    change(threshold(Metric::PacketsPerSec, inbound, 77_000)).unwrap();
    change(threshold(Metric::SynsPerSec, outbound, 99)).unwrap();
    let known = level(&world);
    assert!(known > 5000.0);
    for days in [0, 3] {
        let mut next = World::new(1);
        next.slot = world.slot + days * 864_000;
        next.detector.restore(world.detector.checkpoint(), Millis::from_slot(next.slot));
        // Twice the players for as long as a window takes: the baseline does not follow.
        for slot in 0..4000_u32 {
            next.send(2, |i| player(slot * 2 + i));
            next.tick();
        }
        let view = next.detector.host_view(host()).unwrap();
        assert!(view.frozen && !view.learning, "{days}");
        assert_eq!(level(&next), known, "{days}");
        let packets = shown(&next, Metric::PacketsPerSec, inbound);
        assert_eq!(packets, (77_000.0, "operator"), "{days}");
        assert_eq!(shown(&next, Metric::SynsPerSec, outbound), (99.0, "operator"), "{days}");
        next.detector.change_baseline(host(), BaselineChange::Thaw).unwrap();
        next.detector
            .change_baseline(host(), threshold(Metric::PacketsPerSec, inbound, 0))
            .unwrap();
        next.play(20);
        assert_ne!(level(&next), known, "it learns again");
        assert_ne!(shown(&next, Metric::PacketsPerSec, inbound).1, "operator");
    }
}

#[test]
fn no_change_leaves_a_host_without_anything_normal() {
    let mut world = World::new(1);
    let change = |world: &mut World, what| world.detector.change_baseline(host(), what);
    world.play(10);
    let early = change(&mut world, BaselineChange::Freeze);
    assert!(matches!(early, Err(CommandError::Conflict(_))), "{early:?}");
    world.play(400);
    change(&mut world, BaselineChange::Freeze).unwrap();
    let frozen = change(&mut world, BaselineChange::Reset);
    assert!(matches!(frozen, Err(CommandError::Conflict(_))), "{frozen:?}");
    change(&mut world, BaselineChange::Thaw).unwrap();
    change(&mut world, BaselineChange::Reset).unwrap();
    let view = world.detector.host_view(host()).unwrap();
    assert!(view.learning && view.baselines[0].seconds == 0);
    for (metric, way) in [
        (Metric::Shape, Direction::Inbound),
        (Metric::Signature, Direction::Inbound),
        (Metric::IcmpPerSec, Direction::Outbound),
    ] {
        let refused = change(&mut world, threshold(metric, way, 1));
        assert!(matches!(refused, Err(CommandError::Refused(_))), "{metric:?} {refused:?}");
    }
    let stranger = "198.51.100.1".parse().unwrap();
    let unknown = world.detector.change_baseline(stranger, BaselineChange::Reset);
    assert_eq!(unknown, Err(CommandError::NotFound));
}
