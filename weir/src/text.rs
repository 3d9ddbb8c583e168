//! Numbers and incidents as people read them.

use std::fmt;
use std::fmt::Write as _;

use weir_model::{Evidence, Histogram, Incident, Millis, Rate};

/// A number with a decimal prefix, to stand before a unit or alone: `1.24 G`, `378 k`, `12`.
#[derive(Clone, Copy, Debug)]
pub struct Si(pub f64);

impl fmt::Display for Si {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, prefix) = match self.0 {
            v if v >= 1e12 => (v / 1e12, " T"),
            v if v >= 1e9 => (v / 1e9, " G"),
            v if v >= 1e6 => (v / 1e6, " M"),
            v if v >= 1e3 => (v / 1e3, " k"),
            v => (v, ""),
        };
        let digits = match value {
            v if v >= 100.0 || (v.fract() == 0.0 && prefix.is_empty()) => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$}{prefix}")
    }
}

/// `1.24 Gbit/s`, `12 bit/s`.
fn unit(value: f64, unit: &str) -> String {
    let number = Si(value).to_string();
    if number.ends_with(|c: char| c.is_ascii_digit()) {
        format!("{number} {unit}")
    } else {
        format!("{number}{unit}")
    }
}

/// `1.24 Gbit/s, 378 kpkt/s`.
pub fn rate(rate: Rate) -> String {
    format!("{}, {}", unit(rate.bits_per_sec, "bit/s"), unit(rate.packets_per_sec, "pkt/s"))
}

/// An incident in a few lines: what, why, and which rules. Times are seconds since `origin`.
pub fn incident(incident: &Incident, origin: Millis) -> String {
    let verdict = &incident.verdict;
    let mut out = String::new();
    let seconds = |at: Millis| format!("{:.1} s", at.since(origin) as f64 / 1000.0);
    let closed = incident
        .closed
        .map_or_else(|| "still open".to_owned(), |at| format!("ended at {}", seconds(at)));
    // Writing to a String cannot fail.
    let _ =
        writeln!(out, "incident {} opened at {}, {closed}", incident.id, seconds(incident.opened));
    let _ = writeln!(out, "  target      {}", verdict.target);
    if let Some(group) = &incident.group {
        let _ = writeln!(out, "  group       {group}");
    }
    let _ = writeln!(out, "  family      {}", verdict.family);
    for vector in &verdict.vectors {
        let _ = writeln!(
            out,
            "  vector      {} ({}) {:.0} % of the excess",
            vector.subtype,
            vector.family,
            vector.share * 100.0
        );
    }
    let _ = writeln!(out, "  confidence  {}", verdict.confidence);
    let _ = writeln!(out, "  peak        {}", rate(verdict.peak));
    let reason = &verdict.reason;
    let _ = writeln!(
        out,
        "  why         {} {} over threshold {} (baseline {}x {}), window {} ms, {:.0} samples at 1:{:.0}",
        reason.name(),
        Si(reason.value),
        Si(reason.threshold),
        Si(reason.baseline),
        reason.multiplier,
        reason.window_ms,
        reason.samples,
        reason.sampling
    );
    let _ = writeln!(out, "  summary     {}", incident.told());
    for candidate in &verdict.candidates {
        let _ = writeln!(
            out,
            "  match       {} (covers {:.1} %, hits {:.2} % of normal traffic)",
            candidate.packets,
            candidate.coverage * 100.0,
            candidate.collateral * 100.0
        );
    }
    for mitigation in &incident.mitigations {
        let state = serde_json::to_value(mitigation.state)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let _ = writeln!(out, "  rule        {} [{state}]", mitigation.measure);
    }
    out
}

/// Shares below this are left out of histograms for people.
const SHOWN_MIN: f64 = 0.02;

/// `0x02 100 % (normal 3 %), ...`: the bins that tell something.
fn bins(histogram: &Histogram) -> String {
    let shown = histogram.bins.iter().filter(|b| b.excess.max(b.normal) >= SHOWN_MIN);
    let one = |b: &weir_model::Bin| {
        let value = match histogram.field.as_str() {
            "tcp-flags" => format!("{:#04x}", b.from),
            _ if b.from == b.to => b.from.to_string(),
            _ => format!("{}-{}", b.from, b.to),
        };
        format!("{value} {:.0} % (normal {:.0} %)", b.excess * 100.0, b.normal * 100.0)
    };
    shown.map(one).collect::<Vec<_>>().join(", ")
}

/// What an incident's verdicts rest on, in a few lines.
pub fn evidence(e: &Evidence) -> String {
    let mut out = String::new();
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let known = |share: Option<f64>| share.map_or_else(|| "not known".to_owned(), percent);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "  evidence    {} packets of the excess, {:.1} times the threshold; rules cover {}",
        e.samples,
        e.ratio,
        percent(e.coverage)
    );
    let _ = writeln!(
        out,
        "  excess      {} fits a known attack, {} of one length, {} to declared services, \
         {} from three sources, {} from sources seen before, {} with a forged TTL",
        percent(e.standalone),
        percent(e.one_length),
        percent(e.on_service),
        percent(e.top3),
        known(e.seen_before),
        known(e.ttl_odd)
    );
    let answered = e.response.map_or_else(|| "not seen".to_owned(), |r| format!("{r:.2} a packet"));
    let _ = writeln!(out, "  answers     {answered}");
    for histogram in &e.histograms {
        let _ = writeln!(out, "  {:<11} {}", histogram.field, bins(histogram));
    }
    for (name, flows) in [("before", &e.flows_before), ("during", &e.flows_during)] {
        for flow in flows {
            let _ = writeln!(out, "  {name:<11} {flow}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |value, text: &str| assert_eq!(Si(value).to_string(), text);
        check(0.0, "0");
        check(12.0, "12");
        check(1_240_000_000.0, "1.24 G");
        check(378_000.0, "378 k");
        check(23_620.0, "23.6 k");
    }

    #[test]
    fn evidence_sets_the_excess_beside_the_normal() {
        let bin = |from, to, excess, normal| weir_model::Bin { from, to, excess, normal };
        let histogram = |field: &str, bins| Histogram { field: field.to_owned(), bins };
        let words = evidence(&Evidence {
            samples: 300,
            ratio: 12.04,
            coverage: 0.99,
            histograms: vec![
                histogram("length", vec![bin(32, 63, 1.0, 0.01), bin(96, 127, 0.0, 0.015)]),
                histogram("tcp-flags", vec![bin(2, 2, 1.0, 0.03)]),
            ],
            flows_during: vec!["from 192.0.2.1 proto 6".to_owned()],
            ..Evidence::default()
        });
        assert!(words.contains("300 packets of the excess, 12.0 times the threshold"), "{words}");
        assert!(words.contains("length      32-63 100 % (normal 1 %)\n"), "{words}");
        assert!(words.contains("tcp-flags   0x02 100 % (normal 3 %)\n"), "{words}");
        assert!(words.contains("during      from 192.0.2.1 proto 6\n"), "{words}");
        assert!(words.contains("sources seen before") && words.contains("not known"), "{words}");
    }
}
