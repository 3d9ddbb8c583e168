use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use weir_model::{Direction, Millis};

use super::attack::KINDS;
use super::benign::BEHAVIOURS;
use super::draw::{Draw, Place};
use super::*;
use crate::Packet;
use crate::case::{play, world_of};
use crate::packet::Origin;
use crate::score::score;
use crate::source::{Locals, Port, Rate, SECOND_US};
use crate::suite::Feed;

/// All packets of a world, in order of time.
fn packets(scene: &crate::Scene, until_us: u64) -> Vec<Packet> {
    let mut stream = scene.stream(Millis(0));
    let (mut all, mut none) = (Vec::new(), VecDeque::new());
    while stream.now_us() < until_us && stream.tick(&mut none) {
        none.clear();
        all.extend_from_slice(stream.packets());
    }
    all
}

/// Packets of one crowd that is played alone for some seconds.
fn alone(crowd: &Crowd, secs: u64) -> Vec<Packet> {
    let mut emitter = CrowdEmitter::new(crowd, 7, 0, 1, secs * SECOND_US);
    let mut all = Vec::new();
    for tick in 0..secs * 20 {
        emitter.emit(tick * 50_000, 50_000, &mut all);
    }
    all
}

fn host() -> IpAddr {
    "198.18.0.7".parse().unwrap()
}

#[test]
fn a_seed_gives_the_same_world_and_another_seed_another() {
    for side in Side::ALL {
        let one = World::draw(3, Feed::Sflow1000, side);
        let again = World::draw(3, Feed::Sflow1000, side);
        assert_eq!(one.describe(), again.describe());
        let until = 20 * SECOND_US;
        assert!(packets(&one.scene, until) == packets(&again.scene, until));
        assert_ne!(one.about, World::draw(4, Feed::Sflow1000, side).about);
    }
}

#[test]
fn both_sides_of_a_seed_have_the_same_hosts() {
    let benign = World::draw(5, Feed::Sflow1000, Side::Benign);
    let attack = World::draw(5, Feed::Sflow1000, Side::Attack);
    assert_eq!(benign.hosts[0], attack.hosts[0]);
    assert_eq!(benign.about[0], attack.about[0]);
    assert!(benign.scene.attacks.is_empty());
    assert_eq!(attack.scene.attacks.len(), 1);
}

/// Attack packets lie within their truth, all others are benign, all near ends are protected.
#[test]
fn truth_adds_up() {
    for seed in 1..6 {
        let world = World::draw(seed, Feed::Sflow1000, Side::Attack);
        let truth = &world.scene.attacks[0];
        let mut attack = 0u64;
        for packet in packets(&world.scene, truth.end_us + SECOND_US) {
            assert!(world.scene.inventory.protected.contains(packet.local()), "{packet:?}");
            let inbound = packet.direction == Direction::Inbound;
            if packet.origin != Origin::Benign {
                attack += u64::from(packet.count);
                assert!(inbound && truth.target.contains(&packet.dst), "{packet:?}");
                assert!((truth.start_us..=truth.end_us).contains(&packet.at_us), "{packet:?}");
            }
        }
        assert!(attack > 10_000, "seed {seed}: {attack} attack packets\n{}", world.describe());
    }
}

/// Whoever drops exactly the attack keeps all that is ordinary, in any world.
#[test]
fn the_oracle_keeps_everything() {
    for side in Side::ALL {
        let drawn = World::draw(11, Feed::Sflow1000, side);
        let world = world_of(&drawn.scene, "", Millis(0));
        let (truths, mix) = play(&drawn.scene, Millis(0), |_| Ok::<(), ()>(())).unwrap();
        let score = score(&world, &truths, &mix, &[]);
        assert!(score.goodput.oracle > 0.99, "{side:?}: {:?}", score.goodput);
        assert!(score.goodput.none <= score.goodput.oracle);
    }
}

/// What is answered goes back over the same addresses and ports, reversed, and handshakes come in
/// their order.
#[test]
fn conversations_are_answered_over_the_same_ports() {
    let draw = Draw::new(1, 1);
    let crowd = Crowd::new("web", 6, Locals::List(vec![host()]), draw.people(500.0))
        .ports(Port::Session, Port::Fixed(443))
        .arriving(Rate::steady(0.0, 10.0, 50.0))
        .between(benign::handshake(benign::Opens::Peer), Vec::new());
    let mut flows: BTreeMap<(IpAddr, u16), Vec<Packet>> = BTreeMap::new();
    for packet in alone(&crowd, 10) {
        let key = match packet.direction {
            Direction::Inbound => (packet.src, packet.src_port),
            Direction::Outbound => (packet.dst, packet.dst_port),
        };
        flows.entry(key).or_default().push(packet);
    }
    assert!((400..600).contains(&flows.len()), "{}", flows.len());
    let whole = flows.values_mut().filter(|flow| flow.len() == 3);
    let mut seen = 0;
    for flow in whole {
        flow.sort_by_key(|p| p.at_us);
        let flags: Vec<u8> = flow.iter().map(|p| p.tcp_flags).collect();
        assert_eq!(flags, [0x02, 0x12, 0x10], "{flow:?}");
        assert!(flow.iter().all(|p| p.length % 4 == 0));
        seen += 1;
    }
    assert!(seen > 380, "{seen} handshakes");
}

#[test]
fn talk_keeps_its_rates_and_its_answered_share() {
    let draw = Draw::new(2, 2);
    let crowd = Crowd::new("tunnel", 17, Locals::List(vec![host()]), draw.machines(3))
        .ports(Port::Fixed(4500), Port::Fixed(4500))
        .load(3, Rate::steady(0.0, 20.0, 1000.0), 1e6)
        .talking(
            Talk::new(1.0, vec![Shape::new(1.0, (1400, 1400))]),
            Talk::new(0.25, vec![Shape::new(1.0, (80, 80))]),
        );
    let packets = alone(&crowd, 20);
    let inbound = packets.iter().filter(|p| p.direction == Direction::Inbound).count();
    let back = packets.len() - inbound;
    assert!((19_000..21_000).contains(&inbound), "{inbound}");
    assert!((4_600..5_400).contains(&back), "{back}");
    let mut peers: Vec<IpAddr> =
        packets.iter().filter(|p| p.direction == Direction::Inbound).map(|p| p.src).collect();
    peers.sort_unstable();
    peers.dedup();
    assert_eq!(peers.len(), 3);
}

#[test]
fn people_share_networks_and_machines_do_not() {
    let draw = Draw::new(3, 3);
    let nets = |population: &Population| {
        let mut nets: Vec<[u8; 3]> = (0..400)
            .map(|n| match population.address(n, false) {
                IpAddr::V4(a) => [a.octets()[0], a.octets()[1], a.octets()[2]],
                IpAddr::V6(_) => [0; 3],
            })
            .collect();
        nets.sort_unstable();
        nets.dedup();
        nets.len()
    };
    assert!(nets(&draw.machines(400)) > 395);
    let people = Population::Members { size: 400, nets: 100, seed: 9 };
    assert!((80..=100).contains(&nets(&people)), "{}", nets(&people));
}

/// Every ordinary behaviour makes traffic of about the size asked for, none of it an attack.
#[test]
fn behaviours_are_of_the_size_asked_for() {
    for behaviour in BEHAVIOURS {
        for seed in 0..4 {
            let draw = Draw::new(seed, 99);
            let size = 400.0f64.clamp(behaviour.size.0, behaviour.size.1);
            let mut place = Place {
                draw: &draw,
                host: host(),
                level: Rate::steady(0.0, 30.0, size),
                at: 5.0,
                end: 30.0,
                declared: 0.5,
                services: Vec::new(),
                crowds: Vec::new(),
                notes: Vec::new(),
            };
            (behaviour.build)(&mut place);
            let mut ways = [0.0f64; 2];
            for crowd in &place.crowds {
                assert_eq!(crowd.origin, Origin::Benign);
                for packet in alone(crowd, 30).iter().filter(|p| p.at_us > 10 * SECOND_US) {
                    assert_eq!(packet.local(), host(), "{}", behaviour.id);
                    ways[usize::from(packet.direction == Direction::Outbound)] +=
                        f64::from(packet.count) / 20.0;
                }
            }
            let busier = ways[0].max(ways[1]);
            assert!(
                busier > size * 0.25 && busier < size * 2.5,
                "{} seed {seed}: {busier} of {size} packets a second, {:?}",
                behaviour.id,
                place.notes
            );
        }
    }
}

/// Floods that claim to be forged meet no sender twice, reflections come from fixed ports.
#[test]
fn attacks_are_what_they_claim() {
    for kind in KINDS {
        for seed in 0..3 {
            let draw = Draw::new(seed, 77);
            let mut assault = attack::Assault {
                draw: &draw,
                target: Locals::List(vec![host()]),
                rate: Rate::steady(0.0, 5.0, 2000.0),
                ports: vec![(17, 27_015), (6, 443)],
                imitated: Vec::new(),
                crowds: Vec::new(),
                families: Vec::new(),
                inseparable: false,
                notes: Vec::new(),
            };
            (kind.build)(&mut assault);
            assert!(!assault.families.is_empty(), "{}", kind.id);
            let mut inbound = 0;
            for crowd in &assault.crowds {
                let attack = crowd.clone().attack(0);
                let packets = alone(&attack, 5);
                let toward: Vec<&Packet> = packets.iter().filter(|p| p.is_attack()).collect();
                assert!(
                    packets.iter().all(|p| p.is_attack() == (p.direction == Direction::Inbound))
                );
                inbound += toward.iter().map(|p| p.count).sum::<u32>();
                if crowd.name.ends_with("-reflection") && crowd.protocol == 17 {
                    let mut ports: Vec<u16> = toward.iter().map(|p| p.src_port).collect();
                    ports.sort_unstable();
                    ports.dedup();
                    ports.retain(|p| *p != 0);
                    assert_eq!(ports.len(), 1, "{}", crowd.name);
                }
                if crowd.population == Population::Forged {
                    let mut senders: Vec<IpAddr> = toward.iter().map(|p| p.src).collect();
                    let packets = senders.len();
                    senders.sort_unstable();
                    senders.dedup();
                    assert!(senders.len() * 10 >= packets * 4, "{}", crowd.name);
                }
            }
            let rate = f64::from(inbound) / 5.0;
            assert!(
                (800.0..5000.0).contains(&rate),
                "{} seed {seed}: {rate} packets a second of 2000",
                kind.id
            );
        }
    }
}

/// A host's traffic goes on to the end of its world, on either side.
#[test]
fn nothing_ordinary_ends_before_the_world_does() {
    for side in Side::ALL {
        let world = World::draw(21, Feed::Sflow1000, side);
        let scene = &world.scene;
        let (mut before, mut last) = (0u64, 0u64);
        let mut stream = scene.stream(Millis(0));
        let mut none = VecDeque::new();
        stream.skip_to(scene.duration_us - 30 * SECOND_US);
        while stream.now_us() < scene.duration_us && stream.tick(&mut none) {
            none.clear();
            let sum = stream.packets().iter().filter(|p| !p.is_attack());
            let sum: u64 = sum.map(|p| u64::from(p.count)).sum();
            let end = stream.now_us() > scene.duration_us - 10 * SECOND_US;
            *(if end { &mut last } else { &mut before }) += sum;
        }
        assert!(last * 4 > before, "{side:?}: {before} in 20 s, {last} in the last 10 s");
    }
}

/// Answers of the host to questions of an attack: as many as it bears, over the same ports.
#[test]
fn floods_of_questions_are_answered_as_they_claim() {
    let crowd = Crowd::new("a2s", 17, Locals::List(vec![host()]), Population::Forged)
        .ports(Port::Random(1024, 65_535), Port::Fixed(27_015))
        .arriving(Rate::steady(0.0, 5.0, 1000.0))
        .between(
            vec![Step::to_host((0, 0), (53, 53)), Step::from_host((80, 900), (37, 37)).share(0.4)],
            Vec::new(),
        )
        .attack(0);
    let packets = alone(&crowd, 5);
    let asked: Vec<&Packet> = packets.iter().filter(|p| p.is_attack()).collect();
    let answers: Vec<&Packet> =
        packets.iter().filter(|p| p.direction == Direction::Outbound).collect();
    let share = answers.len() as f64 / asked.len() as f64;
    assert!((0.36..0.44).contains(&share), "{share}");
    let ends: std::collections::BTreeSet<(IpAddr, u16)> =
        asked.iter().map(|p| (p.src, p.src_port)).collect();
    assert!(answers.iter().all(|p| ends.contains(&(p.dst, p.dst_port)) && p.src_port == 27_015));
}

/// Feeds of one direction report nothing that goes out, and records without extremes are shorter.
#[test]
fn feeds_show_what_they_say() {
    for (feed, other) in
        [(Feed::Sflow1000In, Feed::Sflow1000), (Feed::IpfixPlainIn, Feed::IpfixPlain)]
    {
        let octets = |feed: Feed| {
            let mut scene = World::draw(3, feed, Side::Benign).scene;
            scene.duration_us = 30 * SECOND_US;
            scene.stream(Millis(0)).map(|d| d.payload.len()).sum::<usize>()
        };
        let (inbound, both) = (octets(feed), octets(other));
        assert!(inbound * 10 < both * 9, "{}: {inbound} of {both} octets", feed.id());
        assert_eq!(Feed::from_id(feed.id()), Some(feed));
    }
}
