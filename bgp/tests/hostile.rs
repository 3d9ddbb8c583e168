//! Hostile octets in every decoder of what a peer can send: no panic, no lie about lengths.
//!
//! Messages that real speakers send are mutated by a seeded generator, so that a failure can be
//! repeated. `WEIR_EXECUTIONS` sets how many; each runs every decoder that fits the message.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use weir_bgp::flowspec::{self, Afi, TrafficAction};
use weir_bgp::rib::RouteKey;
use weir_bgp::wire::{
    self, Attributes, Families, Family, Framer, Message, Notification, OpenSettings, ReceivedUpdate,
};
use weir_model::{Action, Filter, FlagMatch, FragmentMatch, Match, Measure, Range};

const EXECUTIONS: u64 = 200_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (n.max(1) as u64)).unwrap()
    }

    fn octet(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// One of each message, and UPDATEs of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let open = OpenSettings {
        asn: 4_200_000_010,
        hold_secs: 90,
        id: [10, 0, 0, 1].into(),
        families: Families::ALL,
        restart_secs: Some(120),
        restarting: true,
        long_lived_secs: Some(3600),
    };
    let attributes = Attributes {
        prepend: Some(4_200_000_010),
        communities: vec![0xffff_029a, 0xffff_ff01],
        extended: vec![[0x80, 6, 0, 0, 0x4c, 0xee, 0x6b, 0x28]],
        extended6: vec![[0; 20]],
        large: vec![wire::LargeCommunity { asn: 1, first: 2, second: 3 }],
        ..Attributes::default()
    };
    let mut packets = Match::to("203.0.113.7/32".parse().unwrap());
    packets.src = Some("198.51.96.0/19".parse().unwrap());
    packets.protocols = vec![6, 17];
    packets.dst_ports = vec![Range::exact(25565), Range { from: 27000, to: 27050 }];
    packets.tcp_flags = vec![FlagMatch { mask: 0x12, set: 2 }];
    packets.lengths = vec![Range { from: 100, to: 65535 }];
    packets.dscps = vec![46];
    packets.fragment = Some(FragmentMatch::NotFragment);
    let nlri4 = flowspec::encode(&packets).unwrap();
    packets.dst = "2001:db8::7/128".parse().unwrap();
    packets.src = Some("2001:db8:ff00::/40".parse().unwrap());
    let nlri6 = flowspec::encode(&packets).unwrap();
    let net4 = "203.0.113.7/32".parse().unwrap();
    let net6 = "2001:db8::7/128".parse().unwrap();
    let mut seeds = vec![
        open.write().unwrap(),
        wire::keepalive().to_vec(),
        wire::route_refresh(Family::Ipv6FlowSpec),
        Notification::shutdown("maintenance").write(),
        wire::announce_unicast(net4, [192, 0, 2, 1].into(), &attributes).unwrap(),
        wire::announce_unicast(net6, "100::1".parse().unwrap(), &attributes).unwrap(),
        wire::withdraw_unicast(net4).unwrap(),
        wire::withdraw_unicast(net6).unwrap(),
        wire::announce_flow(Afi::Ipv4, &nlri4, &attributes).unwrap(),
        wire::announce_flow(Afi::Ipv6, &nlri6, &attributes).unwrap(),
        wire::withdraw_flow(Afi::Ipv4, &[nlri4.clone(), nlri4].concat()).unwrap(),
        wire::withdraw_flow(Afi::Ipv6, &nlri6).unwrap(),
    ];
    seeds.extend(Family::ALL.map(|f| wire::end_of_rib(f).unwrap()));
    seeds
}

fn mutate(random: &mut Random, octets: &mut Vec<u8>) {
    for _ in 0..=random.below(6) {
        let at = random.below(octets.len());
        match random.below(7) {
            0 => octets[at] ^= 1 << random.below(8),
            1 => octets[at] = random.octet(),
            2 => octets[at] = [0, 1, 0x7f, 0x80, 0xf0, 0xff][random.below(6)],
            3 => octets.truncate(at.max(1)),
            4 => octets.insert(at, random.octet()),
            5 => drop(octets.remove(at)),
            _ => {
                let end = (at + random.below(16)).min(octets.len());
                let copy = octets[at..end].to_vec();
                octets.splice(at..at, copy);
            }
        }
        if octets.is_empty() {
            octets.push(random.octet());
        }
    }
    // Most of the time with a header that lets the body be read.
    if octets.len() >= 19 && octets.len() <= 4096 && random.below(4) > 0 {
        octets[..16].fill(0xff);
        let length = u16::try_from(octets.len()).unwrap();
        octets[16..18].copy_from_slice(&length.to_be_bytes());
    }
}

fn read_rules(afi: Afi, octets: &[u8]) {
    for (whole, rule) in flowspec::decode_all(afi, octets) {
        let Ok(rule) = rule else { continue };
        assert!(!rule.to_string().is_empty());
        // What is sent decodes to the same again, and never grows beyond one length octet.
        if let Ok(sent) = flowspec::encode_nlri(&rule) {
            assert!(sent.len() <= flowspec::MAX_BODY + 1);
            assert_eq!(flowspec::decode(afi, &sent).as_ref(), Ok(&rule), "{whole:02x?}");
        }
        if let Ok(packets) = Match::try_from(&rule) {
            let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
            let _ = RouteKey::of(&measure);
        }
    }
}

fn read(octets: &[u8], step: usize) {
    let mut framer = Framer::default();
    for part in octets.chunks(step) {
        framer.push(part);
        loop {
            match framer.next_message() {
                Ok(Some(Message::Update(body))) => {
                    let Ok(update) = ReceivedUpdate::read(&body) else { continue };
                    let _ = update.end_of_rib();
                    for community in &update.extended {
                        let _ = TrafficAction::decode(*community).map(TrafficAction::to_action);
                    }
                    for mp in [update.reach, update.unreach].into_iter().flatten() {
                        let _ = mp.nets6();
                        read_rules(Afi::Ipv4, mp.nlri);
                        read_rules(Afi::Ipv6, mp.nlri);
                    }
                }
                Ok(Some(Message::Notification(notification))) => {
                    let _ = notification.to_string();
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(answer) => {
                    let answer = answer.write();
                    assert!((21..=4096).contains(&answer.len()));
                    return;
                }
            }
        }
    }
}

#[test]
fn no_octets_of_a_peer_do_harm() {
    let executions =
        std::env::var("WEIR_EXECUTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(EXECUTIONS);
    let seeds = seeds();
    for n in 0..executions {
        let mut random = Random(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut octets = seeds[random.below(seeds.len())].clone();
        mutate(&mut random, &mut octets);
        let step = 1 + random.below(octets.len());
        read(&octets, step);
        // The rules without the frame around them, which the frame's own checks would hide.
        let skip = random.below(octets.len());
        read_rules(if n % 2 == 0 { Afi::Ipv4 } else { Afi::Ipv6 }, &octets[skip..]);
    }
}
