//! What is kept of the evidence behind a verdict: histograms of the excess beside the normal, and a
//! few flows of either.

use weir_model::{Bin, Direction, Fragment, Histogram};

use crate::watch::packets::{Packet, narrow};

/// Most bins of a histogram.
const BINS_MAX: usize = 12;
/// Most flows shown of either kind.
const FLOWS_MAX: usize = 8;

/// Reads a field's bin off a packet: its smallest and largest value; none when the packet has no
/// such field.
type Field = fn(&Packet) -> Option<(u16, u16)>;

/// A bin and the weight of the packets in it.
type Weighed = ((u16, u16), f64);

const FIELDS: [(&str, Field); 6] = [
    ("protocol", |p| Some(exact(u16::from(p.protocol)))),
    // Steps of 32 octets keep 40 apart from the lengths of ordinary SYNs.
    ("length", |p| {
        let from = p.length() / 32 * 32;
        Some((from, from.saturating_add(31)))
    }),
    ("src-port", |p| has_ports(p).then(|| exact(p.src_port))),
    ("dst-port", |p| has_ports(p).then(|| exact(p.dst_port))),
    ("tcp-flags", |p| says_flags(p).then(|| exact(u16::from(p.tcp_flags)))),
    ("ttl", |p| (p.ttl > 0).then(|| exact(u16::from(p.ttl)))),
];

const fn exact(value: u16) -> (u16, u16) {
    (value, value)
}

const fn says_flags(p: &Packet) -> bool {
    p.protocol == 6 && p.flags_said
}

const fn has_ports(p: &Packet) -> bool {
    matches!(p.protocol, 6 | 17) && !matches!(p.fragment, Fragment::Later)
}

/// Sums of weights by bin, in order of value, and their total.
fn sums(packets: &[(Packet, f64)], field: Field) -> (Vec<Weighed>, f64) {
    let mut all: Vec<Weighed> =
        packets.iter().filter_map(|(p, w)| field(p).map(|bin| (bin, *w))).collect();
    all.sort_by_key(|a| a.0);
    let total = all.iter().map(|a| a.1).sum();
    let bins = all.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run.iter().map(|r| r.1).sum()));
    (bins.collect(), total)
}

/// Histograms of the excess, each bin beside its share of the normal.
pub(crate) fn histograms(excess: &[(Packet, f64)], normal: &[(Packet, f64)]) -> Vec<Histogram> {
    FIELDS
        .into_iter()
        .filter_map(|(name, field)| {
            let (mut now, all) = sums(excess, field);
            let (then, before) = sums(normal, field);
            now.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            now.truncate(BINS_MAX);
            now.sort_by_key(|a| a.0);
            let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
            let usual = |bin| {
                let found = then.binary_search_by_key(&bin, |a: &Weighed| a.0);
                found.map_or(0.0, |at| then[at].1)
            };
            let bins: Vec<Bin> = now
                .into_iter()
                .map(|((from, to), weight)| Bin {
                    from,
                    to,
                    excess: share(weight, all),
                    normal: share(usual((from, to)), before),
                })
                .collect();
            (!bins.is_empty()).then(|| Histogram { field: name.to_owned(), bins })
        })
        .collect()
}

/// Spread of the TTL in bits; none when the exporters do not tell it.
pub(crate) fn ttl_bits(excess: &[(Packet, f64)]) -> Option<f64> {
    let (bins, total) = sums(excess, FIELDS[5].1);
    (total > 0.0).then(|| {
        let bits = |weight: f64| {
            let share = weight / total;
            if share > 0.0 { -share * share.log2() } else { 0.0 }
        };
        bins.iter().map(|(_, weight)| bits(*weight)).sum::<f64>() + 0.0
    })
}

/// TTLs on arrival that no system leaves which begins with 64, 128 or 255 and is at most 40 hops away
/// (RFC 1700 and later practice); forged packets often have them drawn at random.
pub(crate) const TTL_ODD: std::ops::RangeInclusive<u8> = 129..=214;

/// Share of the excess with a TTL that must be forged; none when the exporters do not tell it.
pub(crate) fn ttl_odd(excess: &[(Packet, f64)]) -> Option<f64> {
    let (mut odd, mut all) = (0.0, 0.0);
    for (packet, weight) in excess.iter().filter(|(p, _)| p.ttl > 0) {
        all += weight;
        if TTL_ODD.contains(&packet.ttl) {
            odd += weight;
        }
    }
    (all > 0.0).then(|| odd / all)
}

/// Share of the excess that comes from source prefixes known from normal times; none when normal
/// times are not known.
pub(crate) fn seen_before(excess: &[(Packet, f64)], normal: &[(Packet, f64)]) -> Option<f64> {
    let mut known: Vec<u128> = normal.iter().map(|(p, _)| p.src_prefix()).collect();
    known.sort_unstable();
    known.dedup();
    let total: f64 = excess.iter().map(|(_, w)| w).sum();
    let seen: f64 = excess
        .iter()
        .filter(|(p, _)| known.binary_search(&p.src_prefix()).is_ok())
        .map(|(_, w)| w)
        .sum();
    (!known.is_empty() && total > 0.0).then(|| seen / total)
}

/// The heaviest packets, one a line, in order of their weight.
pub(crate) fn flows(packets: &[(Packet, f64)]) -> Vec<String> {
    let mut order: Vec<&(Packet, f64)> = packets.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.hash.cmp(&b.0.hash)));
    order.into_iter().take(FLOWS_MAX).map(|(p, _)| line(p)).collect()
}

fn line(p: &Packet) -> String {
    let far = match p.direction {
        Direction::Inbound => "from",
        Direction::Outbound => "to",
    };
    let mut text = format!("{far} {} proto {}", narrow(p.src), p.protocol);
    if has_ports(p) {
        text += &format!(" {} > {}", p.src_port, p.dst_port);
    }
    if p.is_icmp() {
        text += &format!(" type {} code {}", p.icmp_type, p.icmp_code);
    }
    if says_flags(p) {
        text += &format!(" flags {:#04x}", p.tcp_flags);
    }
    if p.fragment == Fragment::Later {
        text += " later fragment";
    }
    if p.ttl > 0 {
        text += &format!(" ttl {}", p.ttl);
    }
    text + &format!(" length {}, for {} packets", p.length(), p.packets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};

    #[test]
    fn histograms_set_the_excess_beside_the_normal() {
        let packets = |n: u32, port, length| -> Vec<(Packet, f64)> {
            let make = |i| inbound(&sample(0x0a00_0000 + i, port, 17, 28_015, length), 1);
            (0..n).map(|i| (make(i), 1.0)).collect()
        };
        let (mut now, normal) = (packets(30, 123, 468), packets(10, 40_000, 100));
        now.extend(packets(10, 40_000, 100));
        let all = histograms(&now, &normal);
        let of = |field: &str| all.iter().find(|h| h.field == field).unwrap().bins.clone();
        assert_eq!(of("src-port")[0], Bin { from: 123, to: 123, excess: 0.75, normal: 0.0 });
        assert_eq!(of("length")[0], Bin { from: 96, to: 127, excess: 0.25, normal: 1.0 });
        assert_eq!(of("protocol").len(), 1);
        assert!(all.iter().all(|h| h.field != "tcp-flags"));
        assert_eq!(ttl_bits(&now), Some(0.0));
        assert_eq!(ttl_odd(&now), Some(0.0));
        now[0].0.ttl = 200;
        assert_eq!(ttl_odd(&now), Some(0.025));
        assert_eq!(seen_before(&now, &normal), Some(1.0));
        assert_eq!(seen_before(&now, &[]), None);
        assert_eq!(flows(&now).len(), FLOWS_MAX);
        let first = "from 10.0.0.";
        assert!(flows(&now)[0].starts_with(first), "{:?}", flows(&now)[0]);
    }
}
