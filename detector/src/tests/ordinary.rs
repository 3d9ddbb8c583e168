//! What looks like an attack and is none: scanning, refusals, the first seconds of a busy host, what an attack
//! leaves.

use weir_model::{Direction, Hold};

use super::answered::answer;
use super::*;

/// A bare SYN of one of 900 scanners to one of nine ports.
fn probe(i: u32) -> Sample {
    let who = i.wrapping_mul(2_654_435_761) % 900;
    let port = [22, 23, 80, 443, 445, 3_389, 5_060, 8_080, 8_443][i as usize % 9];
    let mut s = sample(0x5000_0000 + who * 256, 1024 + (i % 60_000) as u16, 6, port, 40);
    s.record.tcp_flags = 2;
    s
}

#[test]
fn scanning_that_grows_is_nothing_to_act_upon_until_it_is_a_load() {
    let scanned = |a_second: u32| {
        let mut world = World::new(1);
        world.play(400);
        for t in 0..400_u32 {
            world.players();
            let (from, to) = (a_second * t / 10, a_second * (t + 1) / 10);
            world.send(to - from, |i| probe(from + i));
            world.tick();
        }
        world
    };
    let free = |world: &World| {
        world.said.iter().flat_map(|v| &v.candidates).filter(|c| c.hold.is_none()).count()
    };
    let noise = scanned(6);
    assert!(!noise.said.is_empty());
    assert_eq!(free(&noise), 0, "{:?}", noise.said.last());
    let held = |v: &Verdict| v.candidates.iter().any(|c| c.hold == Some(Hold::Scanning));
    assert!(noise.said.iter().any(held));
    assert!(noise.said.iter().all(|v| v.confidence < 40), "{:?}", noise.said.first());
    let load = scanned(40);
    assert!(free(&load) > 0, "{:?}", load.said.last());
}

/// An ACK from anybody to a port of a host where nobody listens.
fn ack(i: u32) -> Sample {
    let mut s = sample(i.wrapping_mul(2_654_435_761), 1024 + (i % 60_000) as u16, 6, 8_080, 40);
    s.record.tcp_flags = 0x10;
    s
}

#[test]
fn resets_are_no_answer_to_a_flood_and_no_attack_by_its_target() {
    let mut world = World::new(1);
    for _ in 0..4_000_u32 {
        let slot = world.slot as u32;
        world.send(1, |_| player(slot));
        world.send(1, |_| answer(player(slot + 7)));
        world.tick();
    }
    for t in 0..100_u32 {
        let slot = world.slot as u32;
        world.send(1, |_| player(slot));
        world.send(1, |_| answer(player(slot + 7)));
        world.send(60, |i| ack(t * 60 + i));
        world.send(40, |i| {
            let mut s = answer(ack(t * 60 + i));
            s.record.tcp_flags = 0x04;
            s
        });
        world.tick();
    }
    let opened: Vec<(Direction, Family)> =
        world.opened().iter().map(|v| (v.direction, v.family)).collect();
    assert_eq!(opened, [(Direction::Inbound, Family::TcpFlood)]);
    assert!(world.said.iter().any(|v| v.confidence >= 70), "{:?}", world.said.last());
}

#[test]
fn what_is_left_of_an_attack_without_its_sign_is_over() {
    // Only what comes in is exported; the host was not known before the attack.
    let mut world = World::new(1);
    let stream = |i: u32| sample(0x5000_0000 + i % 7 * 256, 40_000, 17, 443, 1_316);
    for t in 0..250_u32 {
        world
            .send(400, |i| sample((t * 400 + i).wrapping_mul(2_654_435_761), 4000, 17, 443, 1_316));
        world.send(3, |i| stream(t * 3 + i));
        world.tick();
    }
    let sure = |v: &Verdict| v.candidates.iter().any(|c| c.hold.is_none());
    assert!(world.said.iter().any(sure), "{:?}", world.said.last());
    let from = world.slot;
    for t in 0..600_u32 {
        world.send(4, |i| stream(t * 4 + i));
        world.tick();
    }
    let first = world.said[0].incident;
    let last = world.said.iter().rfind(|v| v.incident == first).unwrap();
    assert_eq!(last.phase, Phase::Ended, "{last:?}");
    let after = last.at.slot() - from;
    assert!((80..250).contains(&after), "{after}");
}
