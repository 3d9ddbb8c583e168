//! Exporters that fall silent.

use weir_model::{ExporterId, ExporterStatus, SamplingSource};

use super::*;

fn status(last_seen: Millis) -> ExporterStatus {
    ExporterStatus {
        id: ExporterId(0),
        address: "192.0.2.1".parse().unwrap(),
        name: "edge1".into(),
        protocol: None,
        last_seen,
        datagrams: 1,
        records: 1,
        decode_errors: 0,
        unknown_templates: 0,
        lost: 0,
        templates: 0,
        sampling: 1000,
        sampling_source: SamplingSource::Record,
        lag_ms: 0,
        lag_p50_ms: 0,
        active_timeout_ms: 0,
        duplicates: 0,
        sampling_doubted: 0,
        drops: Vec::new(),
        clock_skew_ms: 0,
        interfaces: Vec::new(),
        links: Vec::new(),
        agent: None,
        troubles: Vec::new(),
    }
}

impl World {
    fn report(&mut self, last_seen: Millis) {
        self.detector.exporters(&[status(last_seen)]);
    }
}

/// So many seconds of players, as an exporter tells of them that speaks all the time.
fn heard(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 10 {
        world.players();
        world.tick();
        world.report(Millis::from_slot(world.slot));
    }
}

fn attacked(world: &mut World) {
    for t in 0..100_u32 {
        world.players();
        world.send(20, |i| syn(t * 20 + i));
        world.tick();
        world.report(Millis::from_slot(world.slot));
    }
}

#[test]
fn an_exporter_that_came_with_the_attack_may_go_with_it() {
    let mut world = World::new(1);
    world.play(400);
    attacked(&mut world);
    let silent = world.slot;
    for _ in 0..600 {
        world.players();
        world.tick();
        world.report(Millis::from_slot(silent));
    }
    assert_eq!(world.said.last().unwrap().phase, Phase::Ended);
}

#[test]
fn an_attack_does_not_end_because_its_exporter_fell_silent() {
    let mut world = World::new(1);
    heard(&mut world, 400);
    attacked(&mut world);
    assert_eq!(world.opened().len(), 1);
    let silent = world.slot;
    for _ in 0..2400 {
        world.tick();
        world.report(Millis::from_slot(silent));
    }
    assert!(world.said.iter().all(|v| v.phase != Phase::Ended), "{:?}", world.said.last());
    let blind = world.said.iter().filter(|v| v.phase == Phase::Blind).count();
    assert!((200..=240).contains(&blind), "about one a second: {blind}");
    // It speaks again, and of nothing but players: then the attack is over.
    let back = world.slot;
    for _ in 0..400 {
        world.players();
        world.tick();
        world.report(Millis::from_slot(world.slot));
    }
    let last = world.said.last().unwrap();
    assert_eq!(last.phase, Phase::Ended);
    assert!((290..380).contains(&(last.at.slot() - back)), "{}", last.at.slot() - back);
}

#[test]
fn silence_does_not_become_normal() {
    let host = "203.0.113.7".parse().unwrap();
    let mean = |world: &World| world.detector.host_view(host).unwrap().baselines[0].mean;
    let mut world = World::new(1);
    for _ in 0..4000 {
        world.players();
        world.tick();
        world.report(Millis::from_slot(world.slot));
    }
    let (before, silent) = (mean(&world), world.slot);
    for _ in 0..3000 {
        world.tick();
        world.report(Millis::from_slot(silent));
    }
    assert!(before > 5_000.0);
    assert!((mean(&world) - before).abs() < 0.1 * before, "{} {before}", mean(&world));
}
