//! Hosts that weir has just met, and services of which something is known beforehand.

use weir_model::{Expected, ExpectedTraffic, Metric};

use super::*;
use crate::watch::metric::PACKETS;

const GAME: u16 = 28_015;

impl World {
    /// Says what is known of the game port from now on.
    fn foretell(&mut self, traffic: Option<ExpectedTraffic>) {
        let expected = traffic.map(|traffic| Expected {
            address: "203.0.113.7".parse().unwrap(),
            protocol: 17,
            port: GAME,
            traffic,
            why: "a test".to_owned(),
        });
        let inventory = self.inventory.as_ref().clone();
        let inventory = Arc::new(inventory.with(Vec::new(), expected.into_iter().collect()));
        self.detector.set_inventory(Arc::clone(&inventory));
        self.inventory = inventory;
    }

    /// So many slots of `players` and `attackers` thousand packets a second, ten times each.
    fn mix(&mut self, slots: u32, players: u32, attackers: u32, attack: impl Fn(u32) -> Sample) {
        for t in 0..slots {
            self.send(players, |i| player(t * players + i + 77_777));
            self.send(attackers, |i| attack(t * attackers + i));
            self.tick();
        }
    }

    /// A packet every ten seconds.
    fn nearly_empty(&mut self, seconds: u32) {
        for t in 0..seconds * 10 {
            if t % 100 == 0 {
                self.players();
            }
            self.tick();
        }
    }

    /// Packets a second that are normal for the game port.
    fn game_mean(&self) -> f64 {
        let host = self.detector.table.get("203.0.113.7".parse().unwrap());
        self.detector.services[&(host, 17, GAME)].series.mean(PACKETS)
    }
}

fn ntp(i: u32, port: u16) -> Sample {
    sample(i % 300, 123, 17, port, 468)
}

#[test]
fn what_needs_no_baseline_is_told_of_a_host_just_met() {
    for port in [GAME, 4000] {
        let mut world = World::new(1);
        world.play(5);
        // 20,000 packets a second: less than any threshold of a new host.
        world.mix(110, 0, 2, |i| ntp(i, port));
        let opened = world.opened();
        assert_eq!(opened.len(), 1, "port {port}: {:?}", world.said);
        assert_eq!(opened[0].vectors[0].subtype, "ntp-amplification");
        assert!(opened[0].separable && opened[0].confidence >= 70, "{:?}", opened[0]);
    }
}

#[test]
fn what_may_be_normal_for_a_host_just_met_is_no_attack() {
    let mut world = World::new(1);
    world.mix(200, 1, 2, |i| sample(i, 30_000 + (i % 999) as u16, 17, 4000, 300));
    world.mix(200, 3, 0, |i| ntp(i, 4000));
    assert_eq!(world.said, []);
}

#[test]
fn a_rush_that_was_foretold_is_no_alarm_and_hides_no_amplification() {
    let rush = |foretold: Option<ExpectedTraffic>| {
        let mut world = World::new(1);
        world.play(400);
        world.foretell(foretold);
        // Eight times as many as usual, and people who were never there.
        world.mix(300, 0, 8, |i| {
            let mut crowd = player(i + 77_777);
            crowd.record.src =
                (0x0a01_0000 + i.wrapping_mul(2_654_435_761) % 4000).to_be_bytes().into();
            crowd
        });
        world
    };
    assert!(!rush(None).said.is_empty(), "a rush is an alarm, though inseparable");
    let mut world = rush(Some(ExpectedTraffic::Surge));
    assert_eq!(world.said, []);
    world.mix(50, 3, 8, |i| ntp(i, GAME));
    assert_eq!(world.opened().len(), 1);
    let last = world.said.last().unwrap();
    assert_eq!(last.vectors[0].subtype, "ntp-amplification");
    assert!(last.separable && last.confidence >= 70, "{last:?}");
    assert!(last.candidates[0].packets.to_string().contains("sport 123"), "{last:?}");
    assert!(last.candidates[0].collateral <= 0.01);
}

#[test]
fn nothing_is_learned_from_a_server_that_does_not_run() {
    let mut world = World::new(1);
    world.play(400);
    let usual = world.game_mean();
    assert!((9_000.0..11_000.0).contains(&usual), "{usual}");
    world.foretell(Some(ExpectedTraffic::Silence));
    world.nearly_empty(400);
    assert_eq!(world.game_mean(), usual);
    world.foretell(None);
    world.nearly_empty(400);
    assert!(world.game_mean() < usual / 2.0, "a server that runs and has few players is quiet");
}

#[test]
fn what_comes_to_a_server_that_does_not_run_is_unexpected_and_missed_by_nobody() {
    let flood = |foretold: Option<ExpectedTraffic>| {
        let mut world = World::new(1);
        world.play(400);
        world.foretell(foretold);
        // Half a minute without players, then 30,000 packets a second of one length.
        for _ in 0..300 {
            world.tick();
        }
        world.mix(100, 0, 3, |i| sample(i, 30_000 + (i % 999) as u16, 17, GAME, 900));
        world
    };
    let off_service = |v: &&Verdict| v.reason.metric == Metric::UdpOffServicePerSec;
    assert!(!flood(None).opened().iter().any(off_service));
    let world = flood(Some(ExpectedTraffic::Silence));
    let opened = world.opened();
    assert_eq!(opened.len(), 1, "{:?}", world.said);
    assert_eq!(opened[0].reason.metric, Metric::UdpOffServicePerSec);
    let normal = opened[0].legitimate.unwrap().normal;
    assert!(normal.packets_per_sec < 500.0, "{normal:?}");
}
