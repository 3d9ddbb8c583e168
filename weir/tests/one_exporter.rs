//! One exporter's absurdity never hides another's truth: from the datagram to the incident.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

use std::net::SocketAddr;

use weir::replay::Player;
use weir_collector::ExporterConfig;
use weir_config::Config;
use weir_model::Millis;

const START: Millis = Millis(1_700_000_000_000);
const FIELDS: [(u16, u16); 9] =
    [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8)];
const GOOD: &str = "192.0.2.1:2000";
const ROGUE: &str = "192.0.2.2:2000";

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &(body.len() as u16 + 4).to_be_bytes(), body].concat()
}

fn define() -> Vec<u8> {
    let mut body = [256_u16.to_be_bytes(), (FIELDS.len() as u16).to_be_bytes()].concat();
    for (number, len) in FIELDS {
        body.extend(number.to_be_bytes());
        body.extend(len.to_be_bytes());
    }
    set(2, &body)
}

/// IPFIX whose header says `now`, `off` milliseconds off.
fn message(now: Millis, off: i64, domain: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    let secs = (now.0.saturating_add_signed(off) / 1000) as u32;
    let mut out = [10_u16.to_be_bytes(), (body.len() as u16 + 16).to_be_bytes()].concat();
    for word in [secs, 0, domain] {
        out.extend(word.to_be_bytes());
    }
    [out, body].concat()
}

/// A flow to 203.0.113.7 that ended just now.
fn flow(src: u32, ports: (u16, u16), octets: u64, packets: u64, now: Millis) -> Vec<u8> {
    let mut out = [src.to_be_bytes(), [203, 0, 113, 7]].concat();
    out.extend(ports.0.to_be_bytes());
    out.extend(ports.1.to_be_bytes());
    out.push(17);
    for value in [octets, packets, now.0 - 150, now.0 - 50] {
        out.extend(value.to_be_bytes());
    }
    out
}

/// Answers of NTP servers, 200,000 a second of 468 octets, for one slot of 50 ms.
fn attack(turn: u32, now: Millis) -> Vec<u8> {
    let one = |n: u32| {
        let mixed = (turn * 100 + n).wrapping_mul(0x9e37_79b1);
        let port = 1024 + (mixed >> 16) as u16 % 60_000;
        flow(0x0b00_0000 + mixed % 200, (123, port), 46_800, 100, now)
    };
    set(256, &(0..100).flat_map(one).collect::<Vec<_>>())
}

/// How many milliseconds after its beginning the attack is an incident, when `meanwhile` happens each 50 ms.
fn delay(mut meanwhile: impl FnMut(&mut Player, u32)) -> Option<u64> {
    let mut config = Config::default();
    config.protect.prefixes = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    config.collector.exporters = vec![ExporterConfig::new("192.0.2.0/24".parse().unwrap())];
    let mut player = Player::new(&config, START);
    let from = |text: &str| text.parse::<SocketAddr>().unwrap();
    player.datagram(from(GOOD), &message(START, 0, 1, &[define()]));
    player.datagram(from(ROGUE), &message(START, 0, 1, &[define()]));
    let begins = START + 10_000;
    for turn in 1..500 {
        let now = START + u64::from(turn) * 50;
        player.until(now);
        meanwhile(&mut player, turn);
        if now >= begins {
            player.datagram(from(GOOD), &message(now, 0, 1, &[attack(turn, now)]));
        }
    }
    let outcome = player.finish();
    let incident = outcome.incidents.first()?;
    assert!(incident.opened >= begins, "{}", weir::text::incident(incident, START));
    assert_eq!(incident.verdict.target.to_string(), "203.0.113.7/32");
    Some(incident.opened.since(begins))
}

#[test]
fn impossible_records_hide_no_attack() {
    let control = delay(|_, _| {}).expect("an incident");
    for (octets, packets) in [(u64::MAX, u64::MAX), (1 << 63, 1 << 40), (1 << 50, 1 << 40)] {
        for from in [GOOD, ROGUE] {
            let found = delay(|player, _| {
                let now = player.now();
                let record = flow(0xc633_6407, (1, 4000), octets, packets, now);
                let datagram = message(now, 0, 1, &[set(256, &record)]);
                player.datagram(from.parse().unwrap(), &datagram);
            });
            assert_eq!(found, Some(control), "{octets} octets from {from}");
        }
    }
}

#[test]
fn a_header_from_the_future_hides_no_attack() {
    let control = delay(|_, _| {}).expect("an incident");
    // A stranger's domain, the good one's own, and a line card ten minutes fast that has records.
    for (domain, off, records) in
        [(99, 1_800_000, false), (1, 1_800_000, false), (2, 600_000, true)]
    {
        let found = delay(|player, turn| {
            let now = player.now();
            let theirs = now + u64::try_from(off).unwrap();
            let mut sets = Vec::new();
            if records {
                sets = vec![define(), set(256, &flow(0xc633_6409, (1, 2), 100, 1, theirs))];
            }
            if turn % 3 == 0 {
                player.datagram(GOOD.parse().unwrap(), &message(now, off, domain, &sets));
            }
        });
        assert_eq!(found, Some(control), "domain {domain}");
    }
}
