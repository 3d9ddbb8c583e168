//! What is answered is wanted, whatever its protocol, port and size; what is not must show it.

use weir_model::{Direction, Hold};

use super::*;

/// The packet that goes back.
pub(super) fn answer(mut sample: Sample) -> Sample {
    std::mem::swap(&mut sample.record.src, &mut sample.record.dst);
    std::mem::swap(&mut sample.record.src_port, &mut sample.record.dst_port);
    sample
}

impl World {
    /// Players who are answered.
    fn talk(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.exchange();
            self.tick();
        }
    }

    fn exchange(&mut self) {
        let slot = self.slot as u32;
        self.send(1, |_| player(slot));
        self.send(1, |_| answer(player(slot + 7)));
    }

    /// Candidates that may be announced, of all that was said.
    fn announced(&self) -> usize {
        self.said.iter().flat_map(|v| &v.candidates).filter(|c| c.hold.is_none()).count()
    }
}

/// A conference on ports that nobody declared: two hundred networks, three packets back for each.
fn participant(i: u32) -> Sample {
    let who = (crate::watch::hash::mix(7, u64::from(i)) % 200) as u32;
    sample(0x5000_0000 + who * 256, 50_000 + (who % 9) as u16, 17, 40_000 + (who % 50) as u16, 900)
}

#[test]
fn a_rush_of_those_who_are_answered_is_never_filtered() {
    let mut world = World::new(1);
    world.talk(400);
    for t in 0..300_u32 {
        world.exchange();
        world.send(15, |i| participant(t * 15 + i));
        world.send(40, |i| answer(participant(t * 31 + i * 3)));
        world.tick();
    }
    assert_eq!(world.announced(), 0, "{:?}", world.said.last());
    // Of the first tenths of a second nobody knows yet who is answered.
    let begun = world.said[0].at + 2_000;
    let sure = world.said.iter().find(|v| v.at > begun && v.confidence >= 70);
    assert_eq!(sure, None);
}

/// The same packets from anybody: forged, and nobody is answered.
fn forged(i: u32) -> Sample {
    let mut sample = participant(i);
    sample.record.src = IpAddr::from(i.wrapping_mul(2_654_435_761).to_be_bytes());
    sample
}

#[test]
fn the_same_from_senders_that_nobody_answers_is() {
    let mut world = World::new(1);
    world.talk(400);
    let from = world.slot;
    for t in 0..60_u32 {
        world.exchange();
        world.send(15, |i| forged(t * 15 + i));
        world.tick();
    }
    let first = world.said.iter().find(|v| v.candidates.iter().any(|c| c.hold.is_none()));
    let first = first.expect("a rule that may be announced");
    assert!(first.at.slot() - from <= 30, "{}", first.at.slot() - from);
    assert!(first.confidence >= 70, "{first:?}");
}

#[test]
fn where_answers_cannot_be_seen_volume_proves_nothing() {
    let flood = |make: fn(u32) -> Sample| {
        let mut world = World::new(1);
        // What goes out is never exported.
        world.play(400);
        for t in 0..100_u32 {
            world.players();
            world.send(15, |i| make(t * 15 + i));
            world.tick();
        }
        world
    };
    let rush = flood(participant);
    assert!(!rush.said.is_empty());
    let held = rush.said.iter().flat_map(|v| &v.candidates).map(|c| c.hold).collect::<Vec<_>>();
    assert!(held.iter().all(|hold| *hold == Some(Hold::OneWay)), "{held:?} {:?}", rush.said[0]);
    // A positive sign does.
    let reflection = flood(|i| sample(i % 900 * 77, 123, 17, 4000, 468));
    assert!(reflection.announced() > 0);
}

#[test]
fn a_host_just_met_is_acted_for_on_positive_signs_only() {
    let start = |make: fn(u32) -> Sample| {
        let mut world = World::new(1);
        for t in 0..300_u32 {
            world.exchange();
            world.send(70, |i| make(t * 70 + i));
            world.tick();
        }
        world
    };
    let busy = start(participant);
    assert_eq!(busy.announced(), 0, "{:?}", busy.said.first());
    let syns = start(syn);
    assert!(syns.announced() > 0, "{:?}", syns.said.first());
}

#[test]
fn a_tunnel_of_two_peers_is_no_flood_by_its_protocol() {
    let mut world = World::new(1);
    world.talk(400);
    for t in 0..200_u32 {
        world.exchange();
        world.send(30, |i| {
            let mut s = sample(0x5000_0000 + (t + i) % 2 * 256, 0, 47, 0, 1_400);
            s.record.src_port = 0;
            s
        });
        world.tick();
    }
    assert!(!world.said.is_empty());
    assert_eq!(world.announced(), 0, "{:?}", world.said.last());
}

/// One of two peers of a GRE tunnel.
fn gre(i: u32) -> Sample {
    let mut s = sample(0x5000_0000 + i % 2 * 256, 0, 47, 0, 1_400);
    s.record.src_port = 0;
    s
}

#[test]
fn an_alert_gives_way_to_the_attack_that_comes_after_it() {
    let mut world = World::new(1);
    world.talk(400);
    for t in 0..600_u32 {
        world.exchange();
        world.send(30, |i| gre(t + i));
        if t >= 300 {
            world.send(90, |i| syn(t * 90 + i));
        }
        world.tick();
    }
    let opened = world.opened();
    let subtypes: Vec<(&str, u8)> =
        opened.iter().map(|v| (v.vectors[0].subtype.as_str(), v.confidence)).collect();
    let [("gre-flood", tunnel), (_, flood)] = subtypes[..] else { panic!("{subtypes:?}") };
    assert!(tunnel < 40 && flood >= 70, "{subtypes:?}");
    let (first, second) = (opened[0].incident, opened[1].incident);
    let ended = world.said.iter().position(|v| v.incident == first && v.phase == Phase::Ended);
    let begun = world.said.iter().position(|v| v.incident == second);
    assert!(ended.is_some() && ended < begun, "{ended:?} {begun:?}");
}

#[test]
fn what_a_target_replies_to_those_who_attack_it_is_the_same_attack() {
    let query = |i: u32| {
        let mut s = forged(i);
        s.record.dst_port = 28_015;
        s
    };
    let played = |answered: bool| {
        let mut world = World::new(1);
        world.talk(400);
        for t in 0..100_u32 {
            world.exchange();
            world.send(60, |i| query(t * 60 + i));
            world.send(40, |i| {
                let mut s = answer(query(t * 7_001 + i * 3));
                s.record.src_port = if answered { 28_015 } else { (i * 1_009) as u16 | 1024 };
                s
            });
            world.tick();
        }
        world.opened().iter().filter(|v| v.direction == Direction::Outbound).count()
    };
    assert_eq!(played(true), 0);
    // A host that floods others while it is attacked is another matter.
    assert_eq!(played(false), 1);
}

#[test]
fn addresses_that_an_attack_makes_up_do_not_make_answers_invisible() {
    let mut world = World::new(1);
    world.talk(400);
    assert!(world.detector.two_way.sees(None));
    // Packets to hundreds of addresses of a /48, none of which ever answers; and some time after it.
    for slot in 0..1500_u32 {
        world.exchange();
        world.send(if slot < 500 { 100 } else { 0 }, |i| {
            let mut packet = sample(slot * 100 + i, 4000, 17, 9000, 900);
            packet.record.src = "2001:db8:ffff::1".parse().unwrap();
            let host = 0x2001_0db8_0113_0000_u128 << 64 | u128::from((slot * 100 + i) % 400);
            packet.record.dst = std::net::Ipv6Addr::from(host).into();
            packet
        });
        world.tick();
        assert!(world.detector.two_way.sees(None), "slot {slot}");
    }
}

/// A query of one length to a port that the host never served, from any of 30,000 networks.
fn query(i: u32) -> Sample {
    let who = i.wrapping_mul(2_654_435_761) % 30_000;
    sample(0x5000_0000 + who * 256, 40_000 + (who % 9_000) as u16, 17, 5_060, 53)
}

#[test]
fn a_forged_question_over_and_over_is_none_because_some_of_it_is_answered() {
    let played = |answered: u32| {
        let mut world = World::new(1);
        world.talk(400);
        for t in 0..300_u32 {
            world.exchange();
            world.send(60, |i| query(t * 60 + i));
            world.send(answered, |i| answer(query(t * 7_001 + i * 3)));
            world.tick();
        }
        let answered = |v: &&Verdict| v.candidates.iter().any(|c| c.hold == Some(Hold::Answered));
        (world.announced(), world.said.iter().filter(answered).count())
    };
    // A third, to networks that come again: no reason to hold a rule back.
    let (announced, refused) = played(20);
    assert!(announced > 0 && refused == 0, "{announced} announced, {refused} refused");
    // A service that answers nearly everybody is one, however many ask the same.
    assert_eq!(played(55).0, 0);
}

#[test]
fn a_host_first_seen_long_after_the_start_is_just_met_all_the_same() {
    let late = |mut sample: Sample| {
        sample.record.dst = "203.0.113.77".parse().unwrap();
        sample
    };
    let started = |make: fn(u32) -> Sample| {
        let mut world = World::new(1);
        world.talk(500);
        for t in 0..300_u32 {
            world.exchange();
            world.send(70, |i| late(make(t * 70 + i)));
            world.tick();
        }
        world
    };
    // A stream that nobody answers, to a server that came up a moment ago.
    let stream = started(|i| sample(0x5000_0000 + i % 7 * 256, 40_000, 17, 1_935, 1_316));
    assert_eq!(stream.announced(), 0, "{:?}", stream.said.first());
    let syns = started(syn);
    assert!(syns.announced() > 0, "{:?}", syns.said.first());
    // Nor does anybody mean a service who sends to any port, and is not answered.
    let any_port = started(|i| {
        let port = (i * 7_919 % 60_000) as u16 + 1;
        sample(0x5000_0000 + i % 400 * 256, 40_000 + (i % 90) as u16, 17, port, 900)
    });
    assert!(any_port.announced() > 0, "{:?}", any_port.said.first());
}
