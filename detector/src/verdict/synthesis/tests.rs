//! What is asked of the search.

#![expect(clippy::cast_possible_truncation, reason = "made-up numbers")]

use super::*;
use crate::watch::packets::tests::{inbound, sample};

fn service(protocol: u8, port: u16) -> Service {
    Service {
        address: "203.0.113.7".parse().unwrap(),
        protocol,
        port,
        name: "lobby".into(),
        game: "minecraft".into(),
    }
}

fn search(excess: &[Packet], normal: &[Packet], services: &[Service]) -> Found {
    let weigh = |p: &[Packet]| p.iter().map(|p| (*p, 1.0)).collect::<Vec<_>>();
    synthesise(&Input {
        target: "203.0.113.7/32".parse().unwrap(),
        excess: &weigh(excess),
        normal: &weigh(normal),
        answered: &[],
        excused: &[],
        allow: &AllowLists::default(),
        services,
        collateral_max: 0.01,
        rules_max: 4,
        capabilities: &Capabilities::default(),
    })
}

fn text(found: &Found) -> Vec<String> {
    found.rules.iter().map(|r| r.packets.to_string()).collect()
}

#[test]
fn forged_syns_are_told_by_their_length_even_before_anybody_played() {
    let flood: Vec<Packet> = (0..200_u32)
        .map(|i| {
            let mut s = sample(i * 7919, 1024 + (i as u16 * 37), 6, 25_565, 40);
            s.record.tcp_flags = 0x02;
            inbound(&s, 5)
        })
        .collect();
    let found = search(&flood, &[], &[service(6, 25_565)]);
    assert_eq!(
        text(&found),
        ["dst 203.0.113.7/32 proto 6 dport 25565 tcp-flags SYN/SYN+ACK length 40"]
    );
    assert!(found.coverage > 0.99 && found.collateral < 0.001, "{found:?}");
}

#[test]
fn reflections_onto_a_game_port_are_told_by_their_source_ports() {
    let mut flood: Vec<Packet> = Vec::new();
    for i in 0..150_u32 {
        flood.push(inbound(&sample(i, 47_808, 17, 30_120, 60 + i as u16 % 300), 5));
        flood.push(inbound(&sample(i, 37_810, 17, 30_120, 700 + i as u16 % 30), 5));
    }
    let players: Vec<Packet> = (0..150_u32)
        .map(|i| inbound(&sample(i, 50_000 + i as u16, 17, 30_120, 60 + i as u16 * 5), 1))
        .collect();
    let found = search(&flood, &players, &[service(17, 30_120)]);
    let rules = text(&found);
    assert_eq!(rules.len(), 2, "{rules:?}");
    assert!(rules.iter().all(|r| r.contains("sport")), "{rules:?}");
    assert!(found.coverage > 0.99 && found.collateral < 0.005, "{found:?}");
}

#[test]
fn a_flood_that_looks_like_players_finds_no_rule() {
    let packet = |i: u32, slot| {
        inbound(
            &sample(
                i * 31,
                40_000 + (i * 97 % 20_000) as u16,
                17,
                28_015,
                60 + (i * 53 % 400) as u16,
            ),
            slot,
        )
    };
    let players: Vec<Packet> = (0..190).map(|i| packet(i, 1)).collect();
    let more: Vec<Packet> = (500..800).map(|i| packet(i, 9)).collect();
    let found = search(&more, &players, &[service(17, 28_015)]);
    assert!(found.coverage < 0.4, "{:?} {}", text(&found), found.coverage);
}

#[test]
fn ports_without_services_are_cut_around_them() {
    let flood: Vec<Packet> = (0..300_u32)
        .map(|i| {
            inbound(
                &sample(
                    i,
                    (i * 211 % 60_000) as u16 + 1024,
                    17,
                    (i * 7919 % 60_000) as u16 + 1,
                    40 + (i * 37 % 1400) as u16,
                ),
                5,
            )
        })
        .collect();
    let players: Vec<Packet> = (0..190_u32)
        .map(|i| inbound(&sample(i, 50_000 + i as u16, 17, 28_015, 60 + i as u16 * 3), 1))
        .collect();
    let found = search(&flood, &players, &[service(17, 28_015)]);
    assert_eq!(text(&found)[0], "dst 203.0.113.7/32 proto 17 dport 1-28014,28016-65535");
    assert!(found.coverage > 0.95, "{found:?}");
}

#[test]
fn ports_are_complemented() {
    assert_eq!(complement(vec![1, 65_535]), [Range { from: 2, to: 65_534 }]);
    assert_eq!(complement(vec![]), [Range { from: 1, to: 65_535 }]);
}

#[test]
fn a_port_of_a_target_that_is_not_known_is_named_beside_the_form_of_a_flood_and_not_for_it() {
    let answers: Vec<Packet> = (0..200_u32)
        .map(|i| {
            let mut s = sample(i * 7919, 443, 6, 873, 44 + (i % 4) as u16 * 4);
            s.record.tcp_flags = 0x12;
            inbound(&s, 5)
        })
        .collect();
    let told = text(&search(&answers, &[], &[]));
    assert!(told[0].contains("tcp-flags SYN+ACK/SYN+ACK"), "{told:?}");
}

/// A search beside an allow list of 10.9.9.0/24 at TCP 443, in which the first packets of `answered` are excused.
fn beside(excess: &[Packet], answered: &[Packet], excused: bool) -> Found {
    let weigh = |p: &[Packet]| p.iter().map(|p| (*p, 1.0)).collect::<Vec<_>>();
    let allow = AllowLists::from(vec![weir_model::AllowList {
        name: "web".parse().unwrap(),
        prefixes: FromIterator::from_iter(["10.9.9.0/25".parse().unwrap()]),
        protocols: vec![6],
        ports: vec![Range::exact(443)],
        source_ports: Vec::new(),
        groups: Vec::new(),
        alarms: weir_model::AllowAlarms::Count,
        waits: None,
    }]);
    synthesise(&Input {
        target: "203.0.113.7/32".parse().unwrap(),
        excess: &weigh(excess),
        normal: &[],
        answered: &weigh(answered),
        excused: &vec![excused; 4.min(answered.len())],
        allow: &allow,
        services: &[],
        collateral_max: 0.01,
        rules_max: 4,
        capabilities: &Capabilities { sources: true, ..Capabilities::default() },
    })
}

#[test]
fn what_a_list_excuses_counts_whole_however_little_it_is() {
    // Three in five from one port: what all have in common, proxies have as well.
    let port = |i: u32| if i % 5 < 3 { 4000 } else { 5000 + i as u16 };
    let flood: Vec<Packet> =
        (0..200_u32).map(|i| inbound(&sample(i * 7919, port(i), 6, 443, 1000), 5)).collect();
    // Four answered packets of proxies among hundreds of others that are answered.
    let proxy = |i: u32| inbound(&sample(0x0a09_0900 + i, 50_000, 6, 443, 1000), 5);
    let other = |i: u32| inbound(&sample(i * 31, 40_000 + i as u16, 17, 28_015, 90), 5);
    let answered: Vec<Packet> = (0..4).map(proxy).chain((0..500).map(other)).collect();
    let hit = |found: &Found| {
        let of = |rule: &Rule| (0..4).any(|i| hits(&rule.packets, &proxy(i)));
        found.rules.iter().any(of)
    };
    let without = beside(&flood, &answered, false);
    assert!(hit(&without) && without.coverage > 0.9, "{without:?}");
    let found = beside(&flood, &answered, true);
    let rules = text(&found);
    assert!(!rules.is_empty() && rules.iter().all(|rule| rule.contains("sport 4000")), "{rules:?}");
    assert!(!hit(&found) && found.collateral < 0.01 && found.coverage > 0.5, "{found:?}");
}

#[test]
fn a_source_on_a_list_is_not_named_but_its_neighbours_are() {
    let one = |last: u32| -> Vec<Packet> {
        (0..200_u32)
            .map(|i| {
                let length = 100 + (i * 7 % 900) as u16;
                let port = 1000 + (i * 37 % 30_000) as u16;
                inbound(&sample(0x0a09_0900 + last, port, 6, 443, length), 5)
            })
            .collect()
    };
    let sources = |flood: &[Packet]| -> Vec<String> {
        // Players of the same kind, so that only the source tells them apart.
        let players: Vec<Packet> = (0..150_u32)
            .map(|i| {
                let length = 100 + (i * 11 % 900) as u16;
                inbound(&sample(i * 65_537, 1000 + (i * 41 % 30_000) as u16, 6, 443, length), 5)
            })
            .collect();
        text(&beside(flood, &players, false))
    };
    let listed = sources(&one(7));
    assert!(listed.iter().all(|rule| !rule.contains("src")), "{listed:?}");
    let beside = sources(&one(200));
    assert!(beside.iter().any(|rule| rule.contains("src 10.9.9.128/25")), "{beside:?}");
}

#[test]
fn what_has_no_ports_is_not_told_by_them() {
    let flood = |protocol, kind| -> Vec<Packet> {
        let packet = |i: u32| {
            let mut s = sample(i * 7919, 0, protocol, 0, 1340);
            s.record.icmp_type = kind;
            inbound(&s, 5)
        };
        (0..200).map(packet).collect()
    };
    assert_eq!(
        text(&search(&flood(1, 8), &[], &[])),
        ["dst 203.0.113.7/32 proto 1 icmp-type 8 length 1340"]
    );
    // Routers find a port in TCP, UDP and their like alone: `dport 0` would match no packet of GRE.
    for protocol in [47, 50, 89] {
        let found = search(&flood(protocol, 0), &[], &[]);
        assert!(found.rules.iter().all(|r| r.packets.dst_ports.is_empty()), "{:?}", text(&found));
        assert!(found.coverage > 0.99, "{found:?}");
    }
}

#[test]
fn flags_that_no_exporter_says_are_in_no_rule() {
    let segment = |i: u32, said: bool, slot| {
        let mut s = sample(i * 7919, 1024 + (i * 37 % 60_000) as u16, 6, 8080, 40);
        (s.record.tcp_flags, s.record.tcp_flags_said) = (0, said);
        inbound(&s, slot)
    };
    let flood = |said: bool| (0..200).map(|i| segment(i, said, 5)).collect::<Vec<Packet>>();
    // Segments without any flag are told by that, but not those of which it is not known.
    let said = text(&search(&flood(true), &[], &[service(6, 8080)]));
    assert!(said.iter().any(|rule| rule.contains("tcp-flags")), "{said:?}");
    let unsaid = text(&search(&flood(false), &[], &[service(6, 8080)]));
    assert!(unsaid.iter().all(|rule| !rule.contains("tcp-flags")), "{unsaid:?}");
    // And what is normal and does not say may be what a rule names.
    let normal: Vec<Packet> = (0..150).map(|i| segment(i * 31, false, 1)).collect();
    let found = search(&flood(true), &normal, &[service(6, 8080)]);
    let named = found.rules.iter().filter(|r| !r.packets.tcp_flags.is_empty()).count();
    assert_eq!(named, 0, "{:?}", text(&found));
}
