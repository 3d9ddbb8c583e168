//! One sentence per verdict, for people.

use std::fmt::Write as _;

use weir_model::{Direction, Inventory, Service, Verdict};

use crate::signature;

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

/// The sentence: what, how much, from whom, to what, against what, and what would be done.
pub(crate) fn sentence(v: &Verdict, inventory: &Inventory) -> String {
    let titled = |subtype: &str| signature::find(subtype).map(|s| s.title);
    let what = match v.vectors.as_slice() {
        [] => v.family.title().to_owned(),
        [one] => titled(&one.subtype).unwrap_or_else(|| v.family.title()).to_owned(),
        [first, ..] if first.share >= 0.8 => {
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
        ", {}pps and {}bit/s",
        short(v.rate.packets_per_sec),
        short(v.rate.bits_per_sec)
    );
    if v.sources >= 1.0 {
        let _ = write!(text, " from about {}sources", short(round2(v.sources)));
    }
    let way = if v.direction == Direction::Inbound { "to" } else { "sent by" };
    let _ = write!(text, " {way} {}", target(v, inventory));
    let unit = |x: f64| match v.reason.metric {
        weir_model::Metric::BitsPerSec => format!("{}bit/s", short(x)),
        weir_model::Metric::SourcesPerSec => format!("{}new sources/s", short(x)),
        _ => format!("{}pps", short(x)),
    };
    let normal = if v.reason.baseline > 0.0 {
        format!("normally up to {}", unit(v.reason.baseline))
    } else {
        "normally next to nothing".to_owned()
    };
    let _ = write!(
        text,
        "; {normal}, threshold {}, seen {} over {} s in {:.0} samples",
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
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(378_123.0), "378 k");
        assert_eq!(short(1_250_000.0), "1.2 M");
        assert_eq!(short(2100.0), "2100 ");
        assert_eq!(round2(23_617.0), 24_000.0);
        assert_eq!(seconds(300), "0.3");
        assert_eq!(seconds(3000), "3");
    }
}
