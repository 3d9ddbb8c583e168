//! The excess over what is normal, and the attack vectors it is made of.

use weir_model::{Family, Fragment, Match, Rate, Service, TopEntry, Vector};

use crate::evidence::exhibit::{ttl_bits, ttl_odd};
use crate::evidence::matching::means;
use crate::evidence::signature::{SIGNATURES, Signature};
use crate::watch::hash::FastMap;
use crate::watch::packets::{Packet, narrow};

/// Smallest share of the excess that is a vector of its own.
const VECTOR_MIN: f64 = 0.03;
/// Share of data packets from which acknowledgements belong to requests.
const REQUESTS_MIN: f64 = 0.1;
/// First parts for each later one from which both are one vector.
const FIRST_PARTS_MIN: f64 = 0.1;
/// Sources need to be this many times less even than equal shares before they count less.
const EVEN_ENOUGH: f64 = 5.0;
/// Share of the excess from which a second family makes an attack multi-vector.
const MULTI_MIN: f64 = 0.2;

/// Packets of the present, each with the share of it that exceeds the normal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excess {
    /// Packets and their weight: mean of their share of packets and of octets in the excess.
    pub(crate) packets: Vec<(Packet, f64)>,
    /// Of each of them, the share of its kind that is excess, 0-1.
    pub(crate) grown: Vec<f64>,
    /// Share of the present's packets that is excess, 0-1.
    pub(crate) share: f64,
    /// Share of the present's octets that is excess, 0-1.
    pub(crate) share_bytes: f64,
}

impl Excess {
    /// The same, told of a part that has these shares of all packets and octets, as shares of the whole.
    pub(crate) fn of_whole(mut self, packets: f64, bytes: f64) -> Self {
        (self.share, self.share_bytes) = (self.share * packets, self.share_bytes * bytes);
        self
    }
}

fn is_service(services: &[Service], p: &Packet) -> bool {
    services.iter().any(|s| s.protocol == p.protocol && s.port == p.local_port())
}

/// Weighs the present against the normal, bucket by bucket of [`Packet::shape`]. `now_rate` and
/// `normal_rate` are packets a second.
pub(crate) fn excess(
    now: &[Packet],
    now_rate: f64,
    normal: &[(Packet, f64)],
    normal_rate: f64,
    services: &[Service],
) -> Excess {
    let shape = |p: &Packet| p.shape(is_service(services, p));
    let now_total: f64 = now.iter().map(|p| f64::from(p.packets)).sum();
    let normal_total: f64 = normal.iter().map(|(_, w)| w).sum();
    if now_total <= 0.0 {
        return Excess::default();
    }
    let mut rates: FastMap<u64, (f64, f64)> = FastMap::default();
    for p in now {
        rates.entry(shape(p)).or_default().0 += f64::from(p.packets) / now_total * now_rate;
    }
    for (p, w) in normal {
        if let Some(rate) = rates.get_mut(&shape(p)) {
            rate.1 += w / normal_total * normal_rate;
        }
    }
    // What one sample more or less makes.
    #[expect(clippy::cast_precision_loss, reason = "bounded by the size of the sample")]
    let one = now_rate / now.len() as f64;
    let weigh = |p: &Packet| {
        rates.get(&shape(p)).map_or(1.0, |(now, normal)| {
            (1.0 - (normal + 2.0 * (normal * one).sqrt()) / now).max(0.0)
        })
    };
    let kept: Vec<(Packet, f64)> = now.iter().map(|p| (*p, weigh(p))).collect();
    let packets: f64 = kept.iter().map(|(p, w)| f64::from(p.packets) * w).sum();
    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    let octets = |p: &Packet| p.bytes as f64;
    let bytes: f64 = kept.iter().map(|(p, w)| octets(p) * w).sum();
    let now_bytes: f64 = now.iter().map(octets).sum();
    let (share, share_bytes) = (packets / now_total, bytes / now_bytes.max(1.0));
    let grown = kept.iter().map(|(_, w)| *w).filter(|w| *w > 0.0).collect();
    let packets = kept
        .into_iter()
        .filter(|(_, w)| *w > 0.0)
        .map(|(p, w)| {
            let part = f64::from(p.packets) / packets.max(1.0) + octets(&p) / bytes.max(1.0);
            (p, w * part / 2.0)
        })
        .collect();
    Excess { packets, grown, share, share_bytes }
}

/// The excess, where there is a match, of the packets that it means alone, of which `mean` a second are normal;
/// its shares are those of the whole present.
pub(crate) fn excess_of(
    own: Option<&Match>,
    now: &[Packet],
    now_rate: f64,
    normal: &[(Packet, f64)],
    mean: f64,
    services: &[Service],
) -> Excess {
    let Some(own) = own else { return excess(now, now_rate, normal, mean, services) };
    let part: Vec<Packet> = now.iter().filter(|p| means(own, p)).copied().collect();
    let normal: Vec<(Packet, f64)> =
        normal.iter().filter(|(p, _)| means(own, p)).copied().collect();
    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    let volume = |list: &[Packet]| {
        list.iter().fold((0.0, 0.0), |(n, b), p| (n + f64::from(p.packets), b + p.bytes as f64))
    };
    let (all, mine) = (volume(now), volume(&part));
    let share = (mine.0 / f64::max(all.0, 1.0), mine.1 / f64::max(all.1, 1.0));
    let mut found = excess(&part, now_rate * share.0, &normal, mean, services);
    found.share *= share.0;
    found.share_bytes *= share.1;
    found
}

/// Estimated number of distinct sources behind sampled packets: the bias-corrected lower bound of
/// Chao (1984) from how many sources were seen once and twice. Where a few sources send nearly
/// everything, as in a transfer that flow records tell of beside many small flows, it is those few.
pub(crate) fn sources<'p>(packets: impl Iterator<Item = &'p (Packet, f64)>) -> f64 {
    let mut seen: Vec<(u128, f64)> = packets.map(|(p, w)| (p.src, *w)).collect();
    seen.sort_by_key(|s| s.0);
    let total: f64 = seen.iter().map(|s| s.1).sum::<f64>().max(f64::MIN_POSITIVE);
    let (mut distinct, mut once, mut twice) = (0.0, 0.0, 0.0);
    let mut squares = 0.0;
    for run in seen.chunk_by(|a, b| a.0 == b.0) {
        distinct += 1.0;
        squares += (run.iter().map(|s| s.1).sum::<f64>() / total).powi(2);
        match run.len() {
            1 => once += 1.0,
            2 => twice += 1.0,
            _ => {}
        }
    }
    let chao = distinct + once * (once - 1.0_f64).max(0.0) / (2.0 * (twice + 1.0));
    let even = 1.0 / f64::max(squares, f64::MIN_POSITIVE) / f64::max(distinct, 1.0);
    chao * (EVEN_ENOUGH * even).min(1.0)
}

/// Distinct sources among the packets themselves.
fn seen_sources(packets: &[&(Packet, f64)]) -> u32 {
    let mut seen: Vec<u128> = packets.iter().map(|(p, _)| p.src).collect();
    seen.sort_unstable();
    seen.dedup();
    u32::try_from(seen.len()).unwrap_or(u32::MAX)
}

/// A vector with the signature it was named by.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) signature: &'static Signature,
    pub(crate) share: f64,
    pub(crate) packets: Vec<(Packet, f64)>,
}

/// Share of packets with PSH: those that end what an application sent.
fn pushed(group: &[&(Packet, f64)]) -> f64 {
    let total: f64 = group.iter().map(|(_, w)| w).sum::<f64>().max(f64::MIN_POSITIVE);
    group.iter().filter(|(p, _)| p.tcp_flags & 0x08 != 0).map(|(_, w)| w).sum::<f64>() / total
}

fn gates(signature: &Signature, group: &[&(Packet, f64)]) -> bool {
    let (packets, bytes) = group.iter().fold((0_u64, 0_u64), |(n, b), (p, _)| {
        (n + u64::from(p.packets), b.saturating_add(p.bytes))
    });
    let length = bytes / packets.max(1);
    // Of few samples few sources can be asked.
    let asked =
        signature.sources_min.min(u32::try_from(group.len().div_ceil(2)).unwrap_or(u32::MAX));
    (u64::from(signature.length_min)..=u64::from(signature.length_max)).contains(&length)
        && seen_sources(group) >= asked
        && (!matches!(signature.packets, crate::evidence::signature::Packets::RequestsTo(_))
            || pushed(group) >= REQUESTS_MIN)
}

/// Puts each packet of the excess to the first signature whose conditions hold.
pub(crate) fn parts(excess: &Excess) -> Vec<Part> {
    let total: f64 = excess.packets.iter().map(|(_, w)| w).sum();
    let mut left: Vec<(Packet, f64)> = excess.packets.clone();
    let mut parts: Vec<Part> = Vec::new();
    for signature in SIGNATURES {
        let group: Vec<&(Packet, f64)> =
            left.iter().filter(|(p, _)| signature.packets.holds(p)).collect();
        let weight: f64 = group.iter().map(|(_, w)| w).sum();
        if group.is_empty() || weight < total * VECTOR_MIN || !gates(signature, &group) {
            continue;
        }
        let (mine, rest) = left.into_iter().partition(|(p, _)| signature.packets.holds(p));
        left = rest;
        parts.push(Part { signature, share: weight / total, packets: mine });
    }
    attach_fragments(&mut parts);
    parts.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.signature.id.cmp(b.signature.id)));
    parts
}

/// Fragments belong to the vector that holds most first parts of fragmented packets, if any does.
fn attach_fragments(parts: &mut Vec<Part>) {
    let Some(at) = parts.iter().position(|p| p.signature.id == "fragment-flood") else { return };
    let first = |part: &Part| -> f64 {
        // Flow records give the average of first parts and whole answers.
        let answers =
            matches!(part.signature.packets, crate::evidence::signature::Packets::AnswersFrom(_));
        // IPv6 hosts may cut at 1280 octets, which every path carries (RFC 8200 §5).
        let long = |p: &Packet| match (answers, p.src >> 32 == 0xffff) {
            (true, _) => 1000,
            (false, true) => 1480,
            (false, false) => 1280,
        };
        let is_first = |p: &Packet| p.fragment == Fragment::First || p.length() >= long(p);
        part.packets.iter().filter(|(p, _)| p.protocol == 17 && is_first(p)).map(|(_, w)| w).sum()
    };
    let best = (0..parts.len())
        .filter(|i| *i != at)
        .map(|i| (i, first(&parts[i])))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((i, weight)) = best
        && weight > 0.0
        && weight >= FIRST_PARTS_MIN * parts[at].packets.iter().map(|(_, w)| w).sum::<f64>()
    {
        let fragments = parts[at].clone();
        parts[i].share += fragments.share;
        parts[i].packets.extend(fragments.packets);
        parts.remove(at);
    }
}

/// The family of the whole.
pub(crate) fn family(parts: &[Part]) -> Family {
    let mut shares: Vec<(Family, f64)> = Vec::new();
    // What routers and hosts say back about forged packets comes along with an attack; it is one of
    // its own only when there is nothing else.
    let main = |p: &&Part| p.signature.id != "icmp-unreachable" || p.share > 0.5;
    for part in parts.iter().filter(main) {
        match shares.iter_mut().find(|(f, _)| *f == part.signature.family) {
            Some((_, share)) => *share += part.share,
            None => shares.push((part.signature.family, part.share)),
        }
    }
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    match shares.as_slice() {
        [] => Family::Unknown,
        [_, (_, second), ..] if *second >= MULTI_MIN => Family::MultiVector,
        [(first, _), ..] => *first,
    }
}

fn ports(packets: &[(Packet, f64)], port: impl Fn(&Packet) -> u16) -> Vec<u16> {
    let mut sums: Vec<(u16, f64)> = Vec::new();
    let mut all: Vec<(u16, f64)> = packets.iter().map(|(p, w)| (port(p), *w)).collect();
    all.sort_by_key(|a| a.0);
    let total: f64 = all.iter().map(|a| a.1).sum();
    for (value, weight) in all {
        match sums.last_mut() {
            Some(last) if last.0 == value => last.1 += weight,
            _ => sums.push((value, weight)),
        }
    }
    sums.retain(|(port, weight)| *port != 0 && *weight >= total * 0.05);
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    sums.into_iter().take(8).map(|s| s.0).collect()
}

/// The parts in the words of the model; `rate` is the excess.
pub(crate) fn vectors(parts: &[Part], rate: Rate) -> Vec<Vector> {
    let all: (f64, f64) = parts.iter().fold((0.0, 0.0), |sum, part| {
        let own = volume(&part.packets);
        (sum.0 + own.0, sum.1 + own.1)
    });
    parts
        .iter()
        .map(|part| {
            let own = volume(&part.packets);
            Vector {
                family: part.signature.family,
                subtype: part.signature.id.to_owned(),
                share: part.share,
                rate: Rate {
                    packets_per_sec: rate.packets_per_sec * own.0 / all.0.max(1.0),
                    bits_per_sec: rate.bits_per_sec * own.1 / all.1.max(1.0),
                },
                src_ports: ports(&part.packets, |p| p.src_port),
                dst_ports: ports(&part.packets, |p| p.dst_port),
            }
        })
        .collect()
}

/// Packets and octets of a group.
#[expect(clippy::cast_precision_loss, reason = "a statistic")]
fn volume(packets: &[(Packet, f64)]) -> (f64, f64) {
    packets.iter().fold((0.0, 0.0), |(n, b), (p, _)| (n + f64::from(p.packets), b + p.bytes as f64))
}

/// Sources with the largest share, at most ten with at least 1 % each.
pub(crate) fn top_sources(excess: &Excess) -> Vec<TopEntry> {
    let mut all: Vec<(u128, f64)> = excess.packets.iter().map(|(p, w)| (p.src, *w)).collect();
    all.sort_by_key(|a| a.0);
    let total: f64 = all.iter().map(|a| a.1).sum::<f64>().max(f64::MIN_POSITIVE);
    let mut sums: Vec<(u128, f64)> = Vec::new();
    for (src, weight) in all {
        match sums.last_mut() {
            Some(last) if last.0 == src => last.1 += weight,
            _ => sums.push((src, weight)),
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    sums.iter()
        .take(10)
        .map(|(src, weight)| TopEntry { value: narrow(*src).to_string(), share: weight / total })
        .filter(|entry| entry.share >= 0.01)
        .collect()
}

/// How many hosts of a prefix the excess goes to; counted by heads, and by their share (the inverse
/// of the sum of squared shares: equal shares count full).
pub(crate) fn spread(excess: &Excess, part: impl Fn(&Packet) -> u32) -> (usize, f64) {
    let mut all: Vec<(u32, f64)> = excess.packets.iter().map(|(p, w)| (part(p), *w)).collect();
    all.sort_by_key(|a| a.0);
    let total: f64 = all.iter().map(|a| a.1).sum::<f64>().max(f64::MIN_POSITIVE);
    let shares = all.chunk_by(|a, b| a.0 == b.0).map(|run| {
        let weight: f64 = run.iter().map(|r| r.1).sum();
        weight / total
    });
    let (hosts, squares) = shares.fold((0, 0.0), |(n, sum), share| (n + 1, sum + share * share));
    (hosts, 1.0 / f64::max(squares, f64::MIN_POSITIVE))
}

/// What the shape of the excess says about who sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Traits {
    /// Estimated distinct sources.
    pub(crate) sources: f64,
    /// Share of the three largest sources, 0-1.
    pub(crate) top3: f64,
    /// Share that fits a signature which needs no baseline, 0-1.
    pub(crate) standalone: f64,
    /// Share that is TCP with ACK and without SYN: established or pretending to be, 0-1.
    pub(crate) established: f64,
    /// Share to declared services, 0-1.
    pub(crate) on_service: f64,
    /// Share of the most frequent length, 0-1.
    pub(crate) one_length: f64,
    /// Packets that go back for each one in excess, as far as both ways are seen.
    pub(crate) response: Option<f64>,
    /// Share from source prefixes that the host knows from normal times.
    pub(crate) seen_before: Option<f64>,
    /// Spread of the TTL in bits.
    pub(crate) ttl_bits: Option<f64>,
    /// Share with a TTL that must be forged, 0-1.
    pub(crate) ttl_odd: Option<f64>,
    /// Packets behind all this.
    pub(crate) samples: usize,
}

pub(crate) fn traits(excess: &Excess, parts: &[Part], services: &[Service]) -> Traits {
    let total: f64 = excess.packets.iter().map(|(_, w)| w).sum::<f64>().max(f64::MIN_POSITIVE);
    let share = |holds: &dyn Fn(&Packet) -> bool| {
        excess.packets.iter().filter(|(p, _)| holds(p)).map(|(_, w)| w).sum::<f64>() / total
    };
    let mut lengths: Vec<(u16, f64)> =
        excess.packets.iter().map(|(p, w)| (p.length(), *w)).collect();
    lengths.sort_by_key(|l| l.0);
    let one_length = lengths
        .chunk_by(|a, b| a.0 == b.0)
        .map(|run| run.iter().map(|l| l.1).sum::<f64>() / total)
        .fold(0.0, f64::max);
    let standalone = parts
        .iter()
        .filter(|p| p.signature.standalone)
        .map(|p| match p.signature.id {
            // Anybody sends SYNs; only forged ones have no options.
            "syn-flood" => p.share * bare_syns(&p.packets),
            _ => p.share,
        })
        .sum();
    Traits {
        sources: sources(excess.packets.iter()),
        top3: top_sources(excess).iter().take(3).map(|e| e.share).sum(),
        standalone,
        established: share(&Packet::may_be_established),
        on_service: share(&|p| is_service(services, p)),
        one_length,
        response: None,
        seen_before: None,
        ttl_bits: ttl_bits(&excess.packets),
        ttl_odd: ttl_odd(&excess.packets),
        samples: excess.packets.len(),
    }
}

/// Share of SYNs without options.
fn bare_syns(packets: &[(Packet, f64)]) -> f64 {
    let total: f64 = packets.iter().map(|(_, w)| w).sum::<f64>().max(f64::MIN_POSITIVE);
    let bare = |p: &Packet| p.length() <= 40 && p.fragment == Fragment::None;
    packets.iter().filter(|(p, _)| bare(p)).map(|(_, w)| w).sum::<f64>() / total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};

    fn packets(n: u32, make: impl Fn(u32) -> weir_model::Sample) -> Vec<Packet> {
        (0..n).map(|i| inbound(&make(i), 1)).collect()
    }

    fn weighed(packets: &[Packet]) -> Vec<(Packet, f64)> {
        packets.iter().map(|p| (*p, 1.0)).collect()
    }

    #[test]
    fn normal_traffic_is_taken_off_the_present() {
        let players = packets(100, |i| sample(i, 50_000, 17, 28_015, 100));
        let mut now = players.clone();
        now.extend(packets(300, |i| sample(i, 123, 17, 28_015, 468)));
        let normal: Vec<_> = players.iter().map(|p| (*p, 1.0)).collect();
        let excess = excess(&now, 4000.0, &normal, 1000.0, &[]);
        assert!((0.74..0.76).contains(&excess.share), "{}", excess.share);
        assert!(excess.packets.iter().all(|(p, _)| p.src_port == 123));
    }

    #[test]
    fn sources_are_estimated_beyond_those_seen() {
        let spoofed = packets(300, |i| sample(i.wrapping_mul(2_654_435_761), 1, 17, 1, 50));
        assert!(sources(weighed(&spoofed).iter()) > 10_000.0);
        let few = packets(300, |i| sample(i % 10, 1, 17, 1, 50));
        assert!((sources(weighed(&few).iter()) - 10.0).abs() < 1e-9);
        // One source sends nearly everything.
        let mut uneven = weighed(&spoofed);
        uneven[0].1 = 100_000.0;
        assert!(sources(uneven.iter()) < 1000.0);
    }

    #[test]
    fn parts_are_named() {
        let name = |now: Vec<Packet>| {
            let excess = excess(&now, 1000.0, &[], 0.0, &[]);
            let parts = parts(&excess);
            let ids: Vec<&str> = parts.iter().map(|p| p.signature.id).collect();
            (family(&parts), ids)
        };
        let ntp = |i: u32| sample(i, 123, 17, 30_120, 468);
        let syn = |i: u32| {
            let mut s = sample(i, 999, 6, 25_565, 40);
            s.record.tcp_flags = 2;
            s
        };
        let icmp = |i: u32| {
            let mut s = sample(i, 0, 1, 0, 1400);
            s.record.icmp_type = 8;
            s
        };
        assert_eq!(name(packets(50, ntp)), (Family::UdpFlood, vec!["ntp-amplification"]));
        assert_eq!(name(packets(50, syn)), (Family::SynFlood, vec!["syn-flood"]));
        assert_eq!(name(packets(50, icmp)), (Family::IcmpFlood, vec!["icmp-echo-flood"]));
        let time = |i: u32| sample(i, 123, 17, 50_000, 76);
        assert_eq!(name(packets(50, time)).1, ["udp-flood"]);
        let mut mixed = packets(50, icmp);
        mixed.extend(packets(100, ntp));
        assert_eq!(name(mixed).0, Family::MultiVector);
        assert_eq!(name(Vec::new()).0, Family::Unknown);
    }

    #[test]
    fn fragments_go_with_the_answers_they_belong_to() {
        let mut now = packets(60, |i| sample(i % 20, 53, 17, 40_000, 1500));
        now.extend(packets(60, |i| {
            let mut s = sample(i % 20, 0, 17, 0, 1500);
            s.record.fragment = Fragment::Later;
            s
        }));
        let excess = excess(&now, 1000.0, &[], 0.0, &[]);
        let parts = parts(&excess);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].signature.id, "dns-amplification");
        assert_eq!(family(&parts), Family::DnsFlood);
    }
}
