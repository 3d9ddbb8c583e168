//! What had waited for its template.

use super::*;

const HOST: &str = "203.0.113.7";

/// Half a second of a flood that passed ten seconds ago and is told now, as news or as what has waited.
fn told_late(world: &mut World, waited: bool) {
    for slot in 0..5_u64 {
        let at = world.slot - 100 + slot;
        let host = HOST.parse().unwrap();
        let mut cell = HostSlice::empty(host, at);
        cell.inbound[Class::Udp as usize] = ClassVolume { packets: 40_000, bytes: 18_720_000 };
        cell.variance = 40_000_000;
        let mut slice = Slice {
            slot: world.slot,
            watermark: Millis::from_slot(world.slot.saturating_sub(world.lag)),
            hosts: vec![cell],
            ..Slice::default()
        };
        if waited {
            slice.waited.push((host, Millis::from_slot(at)));
        } else {
            slice.samples =
                (0..40).map(|i| sample(slot as u32 * 1000 + i * 7, 123, 17, 4000, 468)).collect();
        }
        world.detector.slice(&slice);
        world.slot += 1;
        world.detector.advance(Millis::from_slot(world.slot), &mut world.said);
    }
}

/// A host that players have been on for a while, reported with the lag of a flow cache.
fn played() -> World {
    let mut world = World { lag: 150, ..World::new(1) };
    world.play(400);
    world
}

fn of_host(world: &World) -> usize {
    let host: IpAddr = HOST.parse().unwrap();
    world.said.iter().filter(|verdict| verdict.target == IpNet::from(host)).count()
}

#[test]
fn what_had_waited_for_its_template_is_normal_and_no_alarm() {
    let mean = |world: &World| {
        let known = world.detector.host_view(HOST.parse().unwrap()).unwrap();
        known.baselines[0].mean
    };
    let mut as_news = played();
    told_late(&mut as_news, false);
    as_news.play(20);
    assert!(of_host(&as_news) > 0, "the same, told late without having waited, is an alarm");
    let mut without = played();
    without.play(60);
    let mut world = played();
    told_late(&mut world, true);
    world.play(60);
    // No alarm at all: evidence of something else might have borne one out.
    assert_eq!((of_host(&world), world.detector.counters().alarms), (0, 0));
    assert!(mean(&world) > 1.03 * mean(&without), "{} {}", mean(&world), mean(&without));
}

#[test]
fn a_flood_right_behind_it_is_found_all_the_same() {
    let mut world = played();
    told_late(&mut world, true);
    for slot in 0..15_u32 {
        world.send(60, |i| sample(slot * 1000 + i * 7, 123, 17, 4000, 468));
        world.tick();
    }
    assert!(of_host(&world) > 0);
}
