//! One sentence per verdict, for people.

use std::fmt::Write as _;

use weir_model::{Direction, Evidence, Inventory, Service, Vector, Verdict};

use crate::evidence::signature::{self, Packets};
use crate::evidence::vectors::{Excess, Part};
use crate::watch::packets::Packet;

/// Share of the excess from which one vector stands for all, 0-1.
const MAIN: f64 = 0.8;
/// Fewest senders of which it is said that they are forged.
const SPOOFED_MIN: f64 = 1000.0;
/// Share of packets with a TTL that nobody's has from which senders are forged, 0-1.
const TTL_ODD_MIN: f64 = 0.1;
/// Spread of the TTL below which so many senders are one, bits.
const TTL_BITS_MAX: f64 = 0.1;
/// Share of a known attack in the excess from which it says what the whole is, 0-1.
const KNOWN_MIN: f64 = 0.5;
/// Share of packets shorter, and of packets longer, than the lengths that are told, 0-1.
const ODD_LENGTHS: f64 = 0.05;

/// `378 k`, `1.2 M`.
pub(crate) fn short(value: f64) -> String {
    let scaled = |v: f64, unit: &str| {
        if v < 10.0 { format!("{v:.1} {unit}") } else { format!("{v:.0} {unit}") }
    };
    match value {
        v if v >= 999.5e6 => scaled(v / 1e9, "G"),
        v if v >= 999.5e3 => scaled(v / 1e6, "M"),
        v if v >= 9999.5 => scaled(v / 1e3, "k"),
        v => format!("{v:.0} "),
    }
}

/// `24,000`: what is counted has no prefix of a unit.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + 4);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whether the senders are forged, by the numbers behind a verdict: their packets were never on the way
/// that such many senders' would have been, or are such as only forged ones are. Reflectors are real.
fn spoofed(vectors: &[Vector], way: Direction, e: &Evidence) -> bool {
    let first = vectors.first().map_or("", |first| first.subtype.as_str());
    let reflected = signature::find(first).is_some_and(|s| {
        matches!(s.packets, Packets::AnswersFrom(_)) || s.id == "syn-ack-reflection"
    });
    let ttl = e.ttl_odd.is_some_and(|share| share >= TTL_ODD_MIN)
        || e.ttl_bits.is_some_and(|bits| bits <= TTL_BITS_MAX);
    // Of SYNs, only those without options count as a known attack.
    let bare_syns = first == "syn-flood" && e.standalone >= KNOWN_MIN;
    way == Direction::Inbound && e.sources >= SPOOFED_MIN && !reflected && (ttl || bare_syns)
}

/// Between which lengths nearly all packets are of what the sentence names, octets.
pub(crate) fn lengths(parts: &[Part], excess: &Excess) -> Option<(u16, u16)> {
    match parts {
        [first, rest @ ..] if rest.is_empty() || first.share >= MAIN => nearly_all(&first.packets),
        _ => nearly_all(&excess.packets),
    }
}

fn nearly_all(packets: &[(Packet, f64)]) -> Option<(u16, u16)> {
    let mut all: Vec<(u16, f64)> = packets.iter().map(|(p, w)| (p.length(), *w)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let total: f64 = all.iter().map(|(_, w)| w).sum();
    let up_to = |share: f64| {
        let mut sum = 0.0;
        let reaches = |(_, w): &&(u16, f64)| {
            sum += w;
            sum >= total * share
        };
        all.iter().find(reaches).map(|(length, _)| *length)
    };
    Some((up_to(ODD_LENGTHS)?, up_to(1.0 - ODD_LENGTHS)?))
}

/// The sentence: what, how much, from whom, to what, against what, and what would be done. `lengths`
/// are those of nearly all packets.
pub(crate) fn sentence(
    v: &Verdict,
    numbers: &Evidence,
    lengths: Option<(u16, u16)>,
    inventory: &Inventory,
) -> String {
    let titled = |subtype: &str| signature::find(subtype).map(|s| s.title);
    let what = match v.vectors.as_slice() {
        [] => v.family.title().to_owned(),
        [one] => titled(&one.subtype).unwrap_or_else(|| v.family.title()).to_owned(),
        [first, ..] if first.share >= MAIN => {
            titled(&first.subtype).unwrap_or_else(|| v.family.title()).to_owned()
        }
        many => {
            let names: Vec<String> = many
                .iter()
                .take(3)
                .map(|m| {
                    format!("{} {:.0} %", titled(&m.subtype).unwrap_or("unknown"), m.share * 100.0)
                })
                .collect();
            format!("{} ({})", v.family.title(), names.join(", "))
        }
    };
    let mut text = what;
    if let Some(first) = text.get(..1) {
        let upper = first.to_uppercase();
        text.replace_range(..1, &upper);
    }
    let _ = write!(
        text,
        ", {}pkt/s and {}bit/s",
        short(v.rate.packets_per_sec),
        short(v.rate.bits_per_sec)
    );
    if v.sources >= 1.0 {
        let forged = if spoofed(&v.vectors, v.direction, numbers) { "spoofed " } else { "" };
        let _ = write!(text, " from about {} {forged}sources", count(round2(v.sources)));
    }
    let way = if v.direction == Direction::Inbound { "to" } else { "sent by" };
    let _ = write!(text, " {way} {}", target(v, inventory));
    match lengths {
        Some((from, to)) if from == to => {
            let _ = write!(text, ", packets of {from} bytes");
        }
        Some((from, to)) => {
            let _ = write!(text, ", packets of {from} to {to} bytes");
        }
        None => {}
    }
    let unit = |x: f64| match v.reason.unit() {
        weir_model::Metric::BitsPerSec => format!("{}bit/s", short(x)),
        weir_model::Metric::SourcesPerSec => format!("{} new sources/s", count(x)),
        _ => format!("{}pkt/s", short(x)),
    };
    let normal = if v.reason.baseline > 0.0 {
        format!("normally up to {}", unit(v.reason.baseline))
    } else {
        "normally next to nothing".to_owned()
    };
    let own = v.reason.own.as_ref().map(|own| format!("{}: ", own.name)).unwrap_or_default();
    let _ = write!(
        text,
        "; {own}{normal}, threshold {}, seen {} over {} s in {:.0} samples",
        unit(v.reason.threshold),
        unit(v.reason.value),
        seconds(v.reason.window_ms),
        v.reason.samples
    );
    let covered: f64 = v.candidates.iter().map(|c| c.coverage).sum();
    match v.candidates.len() {
        0 => text.push_str("; no rule tells it from normal traffic"),
        n => {
            let worst = v.candidates.iter().map(|c| c.collateral).fold(0.0, f64::max);
            let _ = write!(
                text,
                "; {n} rule{} {} {:.0} % of it and {:.1} % of normal traffic",
                if n == 1 { "" } else { "s" },
                if n == 1 { "hits" } else { "hit" },
                covered.min(1.0) * 100.0,
                worst * 100.0
            );
        }
    }
    text
}

/// Two significant digits: an estimate must not look like a count.
fn round2(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(1.0).log10().floor() - 1.0).max(1.0);
    (value / unit).round() * unit
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { (ms / 1000).to_string() } else { format!("0.{}", ms / 100) }
}

/// The target with its port and server, where there is one.
fn target(v: &Verdict, inventory: &Inventory) -> String {
    let port = v.vectors.first().and_then(|first| first.dst_ports.first());
    let host = v.target.addr();
    let single = v.target.prefix_len() == v.target.max_prefix_len();
    if !single {
        return v.target.to_string();
    }
    // The same port may be another service's over another protocol.
    let protocol = v
        .vectors
        .first()
        .and_then(|first| signature::find(&first.subtype))
        .and_then(|s| s.packets.protocol());
    let service = port.and_then(|port| {
        let same = |s: &&Service| protocol.is_none_or(|p| s.protocol == p) && s.port == *port;
        inventory.services_of(host).iter().find(same)
    });
    match (port, service) {
        (Some(port), Some(s)) => {
            let socket = std::net::SocketAddr::new(host, *port);
            format!("{socket} ({}, server '{}')", s.game, s.name)
        }
        (Some(port), None) if v.vectors[0].dst_ports.len() == 1 => {
            std::net::SocketAddr::new(host, *port).to_string()
        }
        _ => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{Family, Rate};

    use super::*;
    use crate::watch::packets::tests::{inbound, sample};

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(378_123.0), "378 k");
        assert_eq!(short(1_250_000.0), "1.2 M");
        assert_eq!(short(2100.0), "2100 ");
        assert_eq!(round2(23_617.0), 24_000.0);
        assert_eq!(seconds(300), "0.3");
        assert_eq!(seconds(3000), "3");
        assert_eq!(
            [1.0, 999.0, 1000.0, 24_000.0, 1_200_000.0].map(count),
            ["1", "999", "1,000", "24,000", "1,200,000"]
        );
    }

    #[test]
    fn a_few_odd_lengths_are_not_told() {
        let of = |list: &[(u16, u32)]| {
            let all = list.iter().flat_map(|(length, n)| (0..*n).map(|i| (*length, i)));
            let packets: Vec<(Packet, f64)> =
                all.map(|(length, i)| (inbound(&sample(i, 1, 17, 1, length), 1), 1.0)).collect();
            nearly_all(&packets)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(468, 20)]), Some((468, 468)));
        assert_eq!(of(&[(60, 2), (468, 96), (1400, 2)]), Some((468, 468)));
        assert_eq!(of(&[(1400, 30), (60, 70)]), Some((60, 1400)));
    }

    /// An attack of this kind from so many senders, with these numbers behind it.
    fn is_spoofed(subtype: &str, numbers: Evidence) -> bool {
        let vectors = [Vector {
            family: Family::Unknown,
            subtype: subtype.to_owned(),
            share: 1.0,
            rate: Rate::default(),
            src_ports: Vec::new(),
            dst_ports: Vec::new(),
        }];
        spoofed(&vectors, Direction::Inbound, &numbers)
    }

    #[test]
    fn only_senders_that_are_surely_forged_are_called_spoofed() {
        let many = || Evidence { sources: 20_000.0, standalone: 1.0, ..Evidence::default() };
        assert!(is_spoofed("syn-flood", many()), "SYNs without options");
        assert!(!is_spoofed("syn-flood", Evidence { standalone: 0.0, ..many() }), "with options");
        assert!(!is_spoofed("syn-flood", Evidence { sources: 300.0, ..many() }), "may be bots");
        assert!(!is_spoofed("udp-flood", many()), "nothing says so");
        assert!(is_spoofed("udp-flood", Evidence { ttl_odd: Some(0.3), ..many() }));
        assert!(is_spoofed("udp-flood", Evidence { ttl_bits: Some(0.0), ..many() }));
        assert!(!is_spoofed("udp-flood", Evidence { ttl_bits: Some(1.8), ..many() }));
        for reflected in ["ntp-amplification", "syn-ack-reflection"] {
            let numbers = Evidence { ttl_bits: Some(0.0), ..many() };
            assert!(!is_spoofed(reflected, numbers), "reflectors are real");
        }
    }
}
