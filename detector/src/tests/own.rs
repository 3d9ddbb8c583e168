//! Metrics of an operator's own.

use weir_model::{
    Fragment, Learning, Metric, OwnMetric, Pattern, PolicyGroup, Threshold, tcp_flags,
};

use super::*;
use crate::evidence::matching::means;
use crate::watch::packets::Packet;

const HOST: &str = "203.0.113.7";

fn sip(threshold: Threshold) -> OwnMetric {
    OwnMetric {
        name: "sip".to_owned(),
        packets: "udp dst port 5060".parse().unwrap(),
        direction: Direction::Inbound,
        packets_per_sec: Some(threshold),
        bits_per_sec: None,
        groups: Vec::new(),
    }
}

fn fixed() -> OwnMetric {
    sip(Threshold::Fixed(5000.0))
}

/// A flood of requests, from anywhere.
fn request(i: u32) -> Sample {
    let mixed = i.wrapping_mul(2_654_435_761);
    let mut request = sample(mixed, 1024 + (mixed % 50_000) as u16, 17, 5060, 440);
    request.record.sampling = 100;
    request
}

impl World {
    fn measure(&mut self, metrics: &[OwnMetric]) {
        let inventory = Arc::new(self.inventory.as_ref().clone().measuring(metrics));
        self.detector.set_inventory(Arc::clone(&inventory));
        self.inventory = inventory;
    }

    /// Some 9,000 requests a second beside the players.
    fn ring(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.players();
            let slot = (self.slot % 1_000_000) as u32;
            self.send(9, |i| request(slot * 9 + i));
            self.tick();
        }
    }

    /// Rows of metrics of one's own: name, level, threshold, source.
    fn own_rows(&self) -> Vec<(String, f64, f64, &'static str)> {
        let view = self.detector.host_view(HOST.parse().unwrap()).unwrap();
        let rows = view.baselines.into_iter();
        rows.filter_map(|b| Some((b.own?.name, b.level, b.threshold, b.source))).collect()
    }
}

#[test]
fn a_metric_of_ones_own_is_crossed_named_and_met_within_its_match() {
    for shards in [1, 3] {
        let mut world = World::new(shards);
        world.measure(&[fixed()]);
        world.play(400);
        assert_eq!(world.said, []);
        world.ring(10);
        let opened = world.opened();
        assert_eq!(opened.len(), 1, "{:?}", world.said);
        let reason = &opened[0].reason;
        assert_eq!((reason.metric, reason.name()), (Metric::Own, "sip"));
        assert_eq!((reason.threshold, reason.unit()), (5000.0, Metric::PacketsPerSec));
        let own = reason.own.as_ref().unwrap().packets.towards(opened[0].target);
        let all = world.said.iter().flat_map(|v| &v.candidates);
        let mut rules = 0;
        for rule in all.map(|c| &c.packets) {
            assert_eq!(own.meet(rule).as_ref(), Some(rule), "not broader than {own}");
            rules += 1;
        }
        assert!(rules > 0 && opened[0].separable, "{:?}", opened[0]);
        assert!(opened[0].summary.contains("; sip: "), "{}", opened[0].summary);
        // What exceeds is of that alone: the players are no part of it.
        let last = world.said.last().unwrap();
        assert!((7000.0..11_000.0).contains(&last.excess.packets_per_sec), "{last:?}");
        assert_eq!(last.vectors[0].dst_ports, [5060]);
        world.play(60);
        assert_eq!(world.said.last().unwrap().phase, Phase::Ended);
        assert!(world.said.iter().all(|v| v.reason.name() == "sip"));
    }
}

#[test]
fn without_the_metric_or_outside_its_groups_there_is_nothing_to_tell() {
    let alarms = |metrics: &[OwnMetric], group: Option<PolicyGroup>| {
        let mut world = World::new(1);
        if let Some(group) = group {
            let inventory = world.inventory.as_ref().clone().grouped(vec![group]);
            world.inventory = Arc::new(inventory);
        }
        world.measure(metrics);
        world.play(400);
        world.ring(10);
        !world.opened().is_empty()
    };
    let group = |net: &str, learning| {
        Some(PolicyGroup {
            name: "voice".to_owned(),
            prefixes: FromIterator::from_iter([net.parse().unwrap()]),
            learning,
            ..PolicyGroup::default()
        })
    };
    let of_voice = |threshold| OwnMetric { groups: vec!["voice".to_owned()], ..sip(threshold) };
    let fixed = Threshold::Fixed(5000.0);
    assert!(!alarms(&[], None));
    assert!(alarms(&[sip(fixed)], None));
    assert!(!alarms(&[sip(Threshold::Fixed(12_000.0))], None), "not crossed");
    assert!(!alarms(&[sip(Threshold::Off)], None), "only measured");
    assert!(!alarms(&[of_voice(fixed)], None), "there is no such group");
    assert!(!alarms(&[of_voice(fixed)], group("203.0.113.64/26", None)), "not in it");
    assert!(alarms(&[of_voice(fixed)], group("203.0.113.0/28", None)));
    // The least of what is learned is that of ports, unless it is set.
    let floor =
        |floor| Threshold::Within(weir_model::Bounds { floor: Some(floor), ..Default::default() });
    assert!(!alarms(&[sip(Threshold::Auto)], None), "below 10,000");
    assert!(alarms(&[sip(floor(2000.0))], None));
    let watched = || group("203.0.113.0/28", Some(Learning::ObserveOnly));
    assert!(!alarms(&[sip(floor(2000.0))], watched()), "learned and only observed");
    assert!(alarms(&[sip(fixed)], watched()), "only observed, but set");
}

#[test]
fn what_is_normal_is_learned_and_kept() {
    let mut world = World::new(1);
    let game = OwnMetric {
        name: "game".to_owned(),
        packets: "udp dst port 28015".parse().unwrap(),
        bits_per_sec: Some(Threshold::Off),
        ..sip(Threshold::Auto)
    };
    world.measure(std::slice::from_ref(&game));
    world.play(700);
    let rows = world.own_rows();
    assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["game", "game"]);
    assert!((9_500.0..11_000.0).contains(&rows[0].1), "{rows:?}");
    assert!((rows[0].2 - 3.0 * rows[0].1).abs() < 1.0 && rows[0].3 == "baseline", "{rows:?}");
    assert!(rows[1].3 == "metric-off" && rows[1].1 > 1e6, "{rows:?}");
    // Over a restart, in which another metric is put before it.
    let checkpoint = world.detector.checkpoint();
    let restart = |metrics: &[OwnMetric]| {
        let mut again = World::new(1);
        again.slot = world.slot;
        again.inventory = Arc::new(again.inventory.as_ref().clone().measuring(metrics));
        again.detector = Detector::new(Config::default(), Arc::clone(&again.inventory));
        again.detector.restore(checkpoint.clone(), Millis::from_slot(again.slot));
        again
    };
    let mut again = restart(&[fixed(), game.clone()]);
    again.play(2);
    assert_eq!(again.own_rows()[0], rows[0]);
    // The same name of other packets learns anew; and is not taken for having been silent.
    let other = OwnMetric { packets: "udp src port 40000-49000".parse().unwrap(), ..game.clone() };
    let mut again = restart(&[other]);
    again.play(60);
    let row = &again.own_rows()[0];
    assert!(row.2 == 50_000.0 && row.3 == "cold-start", "{row:?}");
    // Put in force while weir runs: what is the same stays, what is new learns, what is gone is gone.
    world.measure(&[fixed(), game.clone()]);
    world.play(1);
    assert_eq!(world.own_rows()[0].0, "game");
    assert_eq!(world.own_rows()[0].1, rows[0].1);
    let late = OwnMetric { name: "late".to_owned(), ..game };
    world.measure(&[late]);
    world.play(60);
    let row = &world.own_rows()[0];
    assert!(row.0 == "late" && row.2 == 50_000.0, "{row:?}");
    assert_eq!(world.said, []);
    world.measure(&[]);
    assert_eq!(world.own_rows(), []);
}

#[test]
fn what_others_counted_is_not_taken_for_it() {
    let mut world = World::new(1);
    world.measure(&[fixed()]);
    world.play(400);
    // The numbers of slices on their way when other metrics were put in force are those of the old ones.
    let known = Arc::clone(&world.inventory);
    let web = OwnMetric { packets: "udp dst port 443".parse().unwrap(), ..fixed() };
    world.detector.set_inventory(Arc::new(known.as_ref().clone().measuring(&[web])));
    world.ring(10);
    assert_eq!(world.opened().len(), 0, "{:?}", world.said);
}

#[test]
fn an_incident_goes_on_after_a_restart_within_its_match() {
    let mut world = World::new(1);
    world.measure(&[fixed()]);
    world.play(400);
    world.ring(5);
    let said = world.said.last().unwrap().clone();
    let resumed = crate::verdict::incident::Active::resumed(&said, &Config::default());
    assert_eq!(resumed.own, said.reason.own);
    assert_eq!(resumed.alarm.index, crate::watch::metric::PACKETS);
}

#[test]
fn what_a_host_sends_can_be_measured() {
    let mut world = World::new(1);
    let sent = OwnMetric {
        name: "spam".to_owned(),
        packets: "tcp dst port 25 tcp-flags SYN/SYN+ACK".parse().unwrap(),
        direction: Direction::Outbound,
        ..sip(Threshold::Fixed(1500.0))
    };
    world.measure(&[sent]);
    world.play(400);
    for slot in 0..100_u32 {
        world.players();
        world.send(slot % 2, |_| {
            let mut syn = syn(slot);
            std::mem::swap(&mut syn.record.src, &mut syn.record.dst);
            syn.record.dst_port = 25;
            syn
        });
        world.tick();
    }
    let opened = world.opened();
    assert_eq!(opened.len(), 1, "{:?}", world.said);
    assert_eq!((opened[0].reason.name(), opened[0].direction), ("spam", Direction::Outbound));
    assert_eq!(opened[0].candidates, []);
}

/// A number below `n`, and the next seed.
fn draw(seed: &mut u64, n: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % n
}

fn any_record(seed: &mut u64) -> FlowRecord {
    let mut pick = |of: &[u64]| of[draw(seed, of.len() as u64) as usize];
    let packets = pick(&[1, 1, 2, 7]);
    let length = pick(&[20, 39, 40, 60, 440, 1000, 1499, 1500]) as u16;
    let spread = pick(&[0, 0, 20]) as u16;
    FlowRecord {
        src: IpAddr::from([198, 51, 100, pick(&[0, 1, 127, 128, 200]) as u8]),
        dst: HOST.parse().unwrap(),
        src_port: pick(&[0, 53, 123, 1024, 5060, 65_535]) as u16,
        dst_port: pick(&[0, 53, 5059, 5060, 5061, 65_535]) as u16,
        protocol: pick(&[1, 6, 17, 17, 47, 58, 132, 255]) as u8,
        tcp_flags: pick(&[0, 2, 18, 16, 4, 20, 41, 255]) as u8,
        tcp_flags_said: true,
        icmp_type: pick(&[0, 3, 8]) as u8,
        icmp_code: pick(&[0, 1]) as u8,
        ttl: pick(&[0, 60]) as u8,
        fragment: [Fragment::None, Fragment::None, Fragment::First, Fragment::Later]
            [pick(&[0, 1, 2, 3]) as usize],
        length_min: length,
        length_max: length + spread,
        packets,
        bytes: packets * u64::from(length) + pick(&[0, 1]),
        ..FlowRecord::EMPTY
    }
}

fn any_pattern(seed: &mut u64) -> Option<Pattern> {
    let parts = [
        ["", "udp", "tcp", "icmp", "proto 6,17", "proto 1,58"],
        ["", "dport 5060", "dport 5060-5061,53", "dport 0", "dport 1-65535", ""],
        ["", "", "sport 53", "sport 1024-65535", "sport 123,53", ""],
        ["", "", "length 40", "length 1000-1500", "length 0-60,440", ""],
        ["", "", "tcp-flags SYN/SYN+ACK", "tcp-flags RST,SYN+ACK", "tcp-flags none/SYN", ""],
        ["", "", "icmp-type 8", "icmp-type 0,3 icmp-code 1", "", ""],
        ["", "", "src 198.51.100.0/25", "src 198.51.100.200", "src 2001:db8::/32", ""],
        ["", "", "fragment", "not-fragment", "first-fragment", ""],
    ];
    let words: Vec<&str> = parts.iter().map(|of| of[draw(seed, 6) as usize]).collect();
    words.join(" ").parse().ok()
}

#[test]
fn a_pattern_made_ready_means_what_it_says() {
    let (mut seed, mut held, mut patterns) = (1, 0, 0);
    for _ in 0..4000 {
        let Some(pattern) = any_pattern(&mut seed) else { continue };
        patterns += 1;
        let (ready, m) =
            (pattern.compile(), pattern.towards(IpNet::from(HOST.parse::<IpAddr>().unwrap())));
        for _ in 0..50 {
            let record = any_record(&mut seed);
            let packet = Packet::new(&Sample { record, weight: 1 }, 7, Direction::Inbound);
            assert_eq!(ready.holds(&record), means(&m, &packet), "{pattern}: {record:?}");
            held += u32::from(ready.holds(&record));
        }
    }
    assert!(patterns > 500 && held > 1000, "{patterns} {held}");
    assert_eq!(tcp_flags::SYN, 2);
}
