//! Positive signs of attack: what no wanted traffic looks like, however much there is of it.
//!
//! Volume alone is no sign. Where nothing is known of a target yet, and where exporters show only what
//! comes in, weir acts on these and on nothing else.

use weir_model::Fragment;

use crate::evidence::answers::Answers;
use crate::watch::hash::FastMap;
use crate::watch::packets::Packet;

/// What speaks for an attack by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// SYNs without options, or flags that no implementation sends.
    Malformed,
    /// Large answers from a service that many reflectors offer and the target never asked.
    Reflection,
    /// TTLs that no path leaves.
    ForgedTtl,
    /// So many networks that the senders must be forged.
    Forged,
    /// UDP between random ports.
    Scattered,
    /// A protocol that only tunnels and routing use, from many networks.
    OddProtocol,
    /// Parts of packets of which the firsts are missing, from many networks.
    Fragments,
    /// Answers to SYNs that the target did not send.
    Unasked,
    /// TCP segments of connections that the target has no part in.
    Foreign,
    /// ICMP.
    Icmp,
}

/// Source ports of services that reflect, and that hosts do not use in the ordinary way of business. Not
/// among them: DNS, SNMP, QUIC, STUN, IPsec and games, whose answers are somebody's wanted traffic.
const REFLECTORS: [u16; 26] = [
    17, 19, 69, 111, 123, 137, 138, 177, 389, 427, 520, 623, 1434, 1900, 3283, 3389, 3702, 5093,
    5353, 5683, 10_001, 11_211, 30_718, 32_414, 37_810, 47_808,
];
/// Those of them that are polled in some trades: boot servers, directories, management of servers, caches,
/// building automation, sensors.
const POLLED: [u16; 7] = [69, 111, 389, 623, 5683, 11_211, 47_808];
/// Smallest average length of what is reflected, octets: an answer to a real question about the
/// time has 76.
const REFLECTED_MIN: f64 = 200.0;
/// Share of the traffic that must show a sign.
const MOST: f64 = 0.8;
/// Networks that send a reflection, or a protocol that few use.
const NETWORKS_MIN: usize = 5;
const NETWORKS_MANY: usize = 30;
/// Networks from which senders must be forged.
const NETWORKS_FORGED: f64 = 10_000.0;
/// Networks beyond which nobody's tunnels come from.
const NETWORKS_HUB: f64 = 3_000.0;
/// Networks of SYN-ACKs that nobody asked for.
const NETWORKS_UNASKED: f64 = 300.0;
/// Flows between random ports, and the largest share of one port.
const FLOWS_SCATTERED: f64 = 3_000.0;
const PORT_SHARE_MAX: f64 = 0.15;
/// Largest share of one port among those that are scanned.
const SCANNED_MAX: f64 = 0.4;
/// Ports of one target beyond which no service is meant: conferences have a port for each participant.
const PORTS_ANY: f64 = 200.0;
/// Share with impossible TTLs from which senders are forged.
const TTL_ODD_MIN: f64 = 0.25;
/// Fewest packets by which anything is told.
const PACKETS_MIN: usize = 12;
/// Largest number of pairs (99 %) where none was seen, after Poisson: `-ln 0.01`.
const NO_PAIR: f64 = 4.6;

/// The sign that some packets towards one target show, if any. `single`: the target is one host.
pub(crate) fn sign(packets: &[&Packet], answers: &Answers, single: bool) -> Option<Sign> {
    if packets.len() < PACKETS_MIN {
        return None;
    }
    let total: f64 = packets.iter().map(|p| weight(p)).sum::<f64>().max(1.0);
    let share = |holds: &dyn Fn(&Packet) -> bool| share_of(packets, total, holds);
    let tcp = share(&|p| p.protocol == 6 && p.fragment != Fragment::Later);
    if tcp >= MOST {
        return of_tcp(packets, total, single);
    }
    if share(&Packet::is_icmp) >= MOST {
        return Some(Sign::Icmp);
    }
    let networks = networks(packets);
    if share(&|p| p.fragment == Fragment::Later) >= MOST {
        return (networks >= NETWORKS_MANY).then_some(Sign::Fragments);
    }
    if share(&|p| !matches!(p.protocol, 6 | 17) && !p.is_icmp()) >= MOST {
        // A hub has hundreds of tunnels; whether it answers in them is what tells, where that is seen.
        let hub = !answers.visible && distinct(packets) < NETWORKS_HUB;
        return (networks >= NETWORKS_MANY && !hub).then_some(Sign::OddProtocol);
    }
    if reflection(packets, answers, total) && networks >= NETWORKS_MIN {
        return Some(Sign::Reflection);
    }
    if forged_ttl(packets) {
        return Some(Sign::ForgedTtl);
    }
    if single && forged(packets) {
        return Some(Sign::Forged);
    }
    (share(&|p| p.protocol == 17) >= MOST && scattered(packets)).then_some(Sign::Scattered)
}

fn of_tcp(packets: &[&Packet], total: f64, single: bool) -> Option<Sign> {
    let share = |holds: &dyn Fn(&Packet) -> bool| share_of(packets, total, holds);
    // IPv6 adds 20 octets to the header of IPv4.
    let bare = |p: &Packet| {
        let least = if p.src >> 32 == 0xffff { 40 } else { 60 };
        p.is_syn() && p.length_max <= least
    };
    // A segment that does not hold its own header.
    let cut_off = |p: &Packet| p.fragment == Fragment::None && p.lacks_header();
    let odd = |p: &Packet| {
        let flags = p.tcp_flags & 0x3f;
        p.length_max > 0 && (flags & 0x03 == 0x03 || flags & 0x06 == 0x06 || flags & 0x39 == 0x29)
    };
    if share(&bare) >= MOST || share(&odd) >= MOST || share(&cut_off) >= MOST {
        return Some(Sign::Malformed);
    }
    if forged_ttl(packets) {
        return Some(Sign::ForgedTtl);
    }
    let unasked = |p: &Packet| p.tcp_flags & 0x12 == 0x12 && p.src_port < 1024;
    if share(&unasked) >= MOST && network_estimate(packets) >= NETWORKS_UNASKED {
        return Some(Sign::Unasked);
    }
    // A busy web server's visitors are as many networks: established traffic is no sign.
    let opening = |p: &Packet| !p.may_be_established();
    (single && share(&opening) >= MOST && forged(packets)).then_some(Sign::Forged)
}

/// Whether hosts do not use the service of this UDP port in the ordinary way of business.
pub(crate) fn is_reflector(port: u16) -> bool {
    REFLECTORS.contains(&port)
}

/// Whether a fifth or more of these packets come from services that somebody may poll.
pub(crate) fn are_polled(packets: &[&Packet]) -> bool {
    let total: f64 = packets.iter().map(|p| weight(p)).sum();
    share_of(packets, total.max(1.0), &|p| POLLED.contains(&p.src_port)) >= 1.0 - MOST
}

/// Share of the packets of which something holds.
fn share_of(packets: &[&Packet], total: f64, holds: &dyn Fn(&Packet) -> bool) -> f64 {
    packets.iter().filter(|p| holds(p)).map(|p| weight(p)).sum::<f64>() / total
}

fn weight(p: &Packet) -> f64 {
    f64::from(p.packets)
}

/// Distinct networks among the packets themselves.
pub(crate) fn networks(packets: &[&Packet]) -> usize {
    let mut seen: Vec<u128> = packets.iter().map(|p| p.src_prefix()).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len()
}

/// Estimated number of networks that send, from how many were seen once and twice (Chao 1984).
fn network_estimate(packets: &[&Packet]) -> f64 {
    let mut seen: Vec<u128> = packets.iter().map(|p| p.src_prefix()).collect();
    seen.sort_unstable();
    let (mut distinct, mut once, mut twice) = (0.0, 0.0, 0.0);
    for run in seen.chunk_by(|a, b| a == b) {
        distinct += 1.0;
        match run.len() {
            1 => once += 1.0,
            2 => twice += 1.0,
            _ => {}
        }
    }
    distinct + once * (once - 1.0_f64).max(0.0) / (2.0 * (twice + 1.0))
}

/// Whether the packets must come from thousands of networks: so few pairs of one network among them.
pub(crate) fn forged(packets: &[&Packet]) -> bool {
    distinct(packets) >= NETWORKS_FORGED
}

/// Networks from which the packets come at least.
fn distinct(packets: &[&Packet]) -> f64 {
    at_least(packets.iter().map(|p| p.src_prefix()))
}

/// How many different ones there are at least (99 %) in the population from which these were drawn, from how
/// few pairs of the same there are among them.
fn at_least(drawn: impl Iterator<Item = u128>) -> f64 {
    let mut by: FastMap<u128, f64> = FastMap::default();
    let mut n = 0.0;
    for one in drawn {
        *by.entry(one).or_default() += 1.0;
        n += 1.0;
    }
    let pairs: f64 = by.values().map(|n| n * (n - 1.0) / 2.0).sum();
    // Upper 99 % bound of a Poisson count.
    let bound = pairs + NO_PAIR.max(2.33 * pairs.sqrt() + 2.7);
    n * n / 2.0 / bound
}

/// Whether these packets are SYNs to one port after another, so few of them, in so many seconds, that the target
/// bears them: scanning, which opens connections where nobody listens. Of `backlog` SYNs a second to one port a
/// service would suffer, of `load` packets a second any host.
pub(crate) fn is_scanning(packets: &[&Packet], secs: f64, backlog: f64, load: f64) -> bool {
    if packets.len() < PACKETS_MIN || !packets.iter().all(|p| p.is_syn()) || forged(packets) {
        return false;
    }
    let mut by: FastMap<u16, f64> = FastMap::default();
    for p in packets {
        *by.entry(p.dst_port).or_default() += weight(p);
    }
    let total: f64 = by.values().sum();
    let most = by.values().copied().fold(0.0, f64::max);
    most <= SCANNED_MAX * total && most < backlog * secs && total < load * secs
}

fn reflection(packets: &[&Packet], answers: &Answers, total: f64) -> bool {
    let from = |p: &&&Packet| {
        p.protocol == 17
            && (is_reflector(p.src_port) || p.fragment == Fragment::Later)
            && answers.asked(17, p.src_port) == 0
    };
    let (mut hit, mut bytes, mut count) = (0.0, 0.0, 0.0);
    for p in packets.iter().filter(from) {
        hit += weight(p);
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        let octets = p.bytes as f64;
        bytes += octets;
        count += weight(p);
    }
    hit >= MOST * total && bytes / f64::max(count, 1.0) >= REFLECTED_MIN
}

fn forged_ttl(packets: &[&Packet]) -> bool {
    let (mut odd, mut all) = (0.0, 0.0);
    for p in packets.iter().filter(|p| p.ttl > 0) {
        all += weight(p);
        odd += if crate::evidence::exhibit::TTL_ODD.contains(&p.ttl) { weight(p) } else { 0.0 };
    }
    all > 0.0 && odd >= TTL_ODD_MIN * all
}

/// Whether these packets go to any ports of the target, so that no service can be meant.
pub(crate) fn to_any_port(packets: &[&Packet]) -> bool {
    at_least(packets.iter().map(|p| u128::from(p.dst_port))) >= PORTS_ANY
}

/// Whether no port has much of these packets.
fn spread(packets: &[&Packet], port: fn(&Packet) -> u16) -> bool {
    let mut by: FastMap<u16, f64> = FastMap::default();
    for p in packets {
        *by.entry(port(p)).or_default() += 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "bounded by the size of the sample")]
    let n = packets.len() as f64;
    by.values().copied().fold(0.0, f64::max) <= PORT_SHARE_MAX * n
}

fn scattered(packets: &[&Packet]) -> bool {
    // That hardly two packets are of one flow must be sure: a few hundred calls look like that, too, where
    // one packet in a thousand is seen.
    let spread = spread(packets, |p| p.src_port) && spread(packets, |p| p.dst_port);
    // A flow of its own for each packet, as sources of their own are estimated.
    let flow = |p: &Packet| {
        let ports = u128::from(p.src_port) << 16 | u128::from(p.dst_port);
        Packet { src: p.src ^ ports << 96, ..*p }
    };
    let flows: Vec<Packet> = packets.iter().map(|p| flow(p)).collect();
    spread && at_least(flows.iter().map(|p| p.src)) >= FLOWS_SCATTERED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};
    use weir_model::{Direction, Sample};

    fn told(n: u32, make: impl Fn(u32) -> Sample) -> Option<Sign> {
        let packets: Vec<Packet> = (0..n).map(|i| inbound(&make(i), 1)).collect();
        sign(&packets.iter().collect::<Vec<_>>(), &Answers::default(), true)
    }

    fn anybody(i: u32) -> u32 {
        i.wrapping_mul(2_654_435_761)
    }

    #[test]
    fn attacks_that_need_no_baseline_show_a_sign() {
        let syn = |i: u32| {
            let mut s = sample(anybody(i), 999, 6, 25_565, 40);
            s.record.tcp_flags = 2;
            s
        };
        assert_eq!(told(60, syn), Some(Sign::Malformed));
        assert_eq!(told(60, |i| sample(anybody(i), 123, 17, 4000, 468)), Some(Sign::Reflection));
        assert_eq!(told(380, |i| sample(anybody(i), 4000, 17, 28_015, 90)), Some(Sign::Forged));
        let ttl = |i: u32| {
            let mut s = sample(i, 4000, 17, 28_015, 90);
            s.record.ttl = 150;
            s
        };
        assert_eq!(told(60, ttl), Some(Sign::ForgedTtl));
        assert_eq!(told(200, |i| sample(anybody(i), 0, 47, 0, 500)), Some(Sign::OddProtocol));
    }

    #[test]
    fn ordinary_traffic_shows_none() {
        // Players of four hundred networks, a backup through a tunnel, a poller, a resolver.
        assert_eq!(told(300, |i| sample(anybody(i) % 400 * 256, 4000, 17, 28_015, 90)), None);
        assert_eq!(told(300, |_| sample(7, 51_820, 17, 51_820, 1420)), None);
        assert_eq!(told(300, |i| sample(i % 3, 0, 47, 0, 1400)), None);
        // A hub of five hundred tunnels, of which the other direction is not seen.
        assert_eq!(told(300, |i| sample(anybody(i) % 500 * 256, 0, 47, 0, 1400)), None);
        assert_eq!(told(300, |i| sample(i % 60 * 256, 161, 17, 40_000, 400)), None);
        assert_eq!(told(380, |i| sample(anybody(i), 53, 17, 40_000, 300)), Some(Sign::Forged));
        // Many visitors of a web server.
        assert_eq!(told(300, |i| sample(anybody(i), 40_000, 6, 443, 900)), None);
    }

    #[test]
    fn scanning_is_syns_to_many_ports_that_are_no_load() {
        let scanned = |n: u32, ports: u16, secs: f64| {
            let syn = |i: u32| {
                let port = 20 + u16::try_from(i % u32::from(ports)).unwrap();
                let mut s = sample(anybody(i) % 900 * 256, 999, 6, port, 40);
                s.record.tcp_flags = 2;
                inbound(&s, 1)
            };
            let packets: Vec<Packet> = (0..n).map(syn).collect();
            is_scanning(&packets.iter().collect::<Vec<_>>(), secs, 3_000.0, 20_000.0)
        };
        // One packet of a thousand is seen: 3,500 a second over nine ports.
        assert!(scanned(35, 9, 10.0));
        // To one port a backlog fills, and of so many packets a host notices.
        assert!(!scanned(35, 1, 10.0));
        assert!(!scanned(35, 2, 10.0));
        assert!(!scanned(250, 9, 10.0));
        assert!(!scanned(80, 5, 5.0));
        // Too few to tell.
        assert!(!scanned(10, 9, 10.0));
    }

    #[test]
    fn visitors_whose_flags_are_not_said_are_not_forged() {
        let visitor = |said: bool| {
            move |i: u32| {
                let mut s = sample(anybody(i), 40_000, 6, 443, 900);
                (s.record.tcp_flags, s.record.tcp_flags_said) = (0, said);
                s
            }
        };
        assert_eq!(told(380, visitor(false)), None);
        assert_eq!(told(380, visitor(true)), Some(Sign::Forged));
    }

    #[test]
    fn random_ports_are_a_sign_only_where_hardly_two_packets_are_of_one_flow() {
        let flow = |i: u32| {
            sample(anybody(i), (i * 7919 % 60_000) as u16, 17, (i * 104_729 % 60_000) as u16, 200)
        };
        // Of so few packets, a few hundred calls look like as many thousand flows.
        assert_eq!(told(80, flow), None);
        assert_eq!(told(200, flow), Some(Sign::Scattered));
        assert_eq!(told(200, |i| flow(i % 340)), Some(Sign::Scattered));
        assert_eq!(told(380, |i| flow(anybody(i) % 100)), None);
    }

    #[test]
    fn a_segment_without_room_for_its_header_is_malformed() {
        assert_eq!(told(60, |i| sample(i % 2 * 256, 4000, 6, 8080, 28)), Some(Sign::Malformed));
        assert_eq!(told(60, |i| sample(i % 2 * 256, 4000, 6, 8080, 40)), None);
    }

    #[test]
    fn what_the_target_asked_for_is_no_reflection() {
        let packets: Vec<Packet> =
            (0..60).map(|i| inbound(&sample(i * 256, 123, 17, 4000, 468), 1)).collect();
        let mut query = sample(0, 4000, 17, 123, 76);
        std::mem::swap(&mut query.record.src, &mut query.record.dst);
        let asked =
            Answers::new(vec![Packet::new(&query, 1, Direction::Outbound)], Vec::new(), true);
        let all: Vec<&Packet> = packets.iter().collect();
        assert_eq!(sign(&all, &Answers::default(), true), Some(Sign::Reflection));
        assert_eq!(sign(&all, &asked, true), None);
    }
}
