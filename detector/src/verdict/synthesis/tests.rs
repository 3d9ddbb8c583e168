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
