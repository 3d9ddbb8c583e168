//! Which /24s of a wider target an attack goes to: rules for the others would only do harm.

use weir_model::{IpNet, Ipv4Net, Match};

use crate::evidence::matching::hits;
use crate::watch::packets::Packet;

/// Bits of a part.
const PART: u8 = 24;
/// Packets for each part that was seen, from which one that was not has none (99 %): `-ln 0.01`.
const SEEN_MIN: f64 = 4.6;
/// Share of what goes to a part on average from which one is a part of the target.
const SHARE_MIN: f64 = 0.1;

/// The /24s of an IPv4 target to which the excess goes that a match holds for, with those known `before`. Empty
/// for narrower targets, for IPv6, of whose addresses too little is kept to tell, and of too few packets: then it is
/// all of the target.
pub(crate) fn parts(
    target: IpNet,
    m: &Match,
    excess: &[(Packet, f64)],
    before: &[IpNet],
) -> Vec<IpNet> {
    let IpNet::V4(net) = target else { return Vec::new() };
    if net.prefix_len() >= PART {
        return Vec::new();
    }
    let mut hit: Vec<(u32, f64)> =
        excess.iter().filter(|(p, _)| hits(m, p)).map(|(p, w)| (p.local >> 8, *w)).collect();
    hit.sort_by_key(|(part, _)| *part);
    let sums: Vec<(u32, f64)> = hit
        .chunk_by(|a, b| a.0 == b.0)
        .map(|run| (run[0].0, run.iter().map(|(_, w)| w).sum()))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "bounded by the size of the sample")]
    let (packets, seen) = (hit.len() as f64, sums.len() as f64);
    if packets < SEEN_MIN * seen {
        return before.to_vec();
    }
    let total: f64 = sums.iter().map(|(_, sum)| sum).sum();
    let squares: f64 = sums.iter().map(|(_, sum)| sum * sum).sum();
    // Of so many as would share it equally: those that have next to nothing do not count.
    let mean = squares / total.max(f64::MIN_POSITIVE);
    let of = |part: u32| Ipv4Net::new((part << 8).into(), PART).ok().map(IpNet::V4);
    let mut parts: Vec<IpNet> = sums
        .iter()
        .filter(|(_, sum)| *sum >= SHARE_MIN * mean)
        .filter_map(|(part, _)| of(*part))
        .chain(before.iter().copied())
        .collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};
    use std::net::IpAddr;

    fn excess(protocol: u8, hosts: &[(u32, u32)]) -> Vec<(Packet, f64)> {
        let to = |host: u32, i: u32| {
            let mut s = sample(i * 77, 4000, protocol, 4000, 468);
            s.record.dst = IpAddr::from((0xc612_0000 + host).to_be_bytes());
            (inbound(&s, 1), 1.0)
        };
        hosts.iter().flat_map(|&(host, n)| (0..n).map(move |i| to(host, i))).collect()
    }

    fn told(target: &str, packets: &[(Packet, f64)], before: &[IpNet]) -> Vec<String> {
        let target: IpNet = target.parse().unwrap();
        let m = Match { protocols: vec![17], ..Match::to(target) };
        parts(target, &m, packets, before).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_carpet_goes_to_those_slash_24s_that_carry_it() {
        let mut packets =
            excess(17, &[(0x105, 9), (0x1fe, 9), (0x207, 15), (0x340, 20), (0x700, 1)]);
        packets.extend(excess(6, &[(0x600, 30)]));
        let three = ["198.18.1.0/24", "198.18.2.0/24", "198.18.3.0/24"];
        assert_eq!(told("198.18.0.0/21", &packets, &[]), three);
        // What was attacked a moment ago still is, until the incident is over.
        let before: Vec<IpNet> = vec!["198.18.4.0/24".parse().unwrap()];
        let four = ["198.18.1.0/24", "198.18.2.0/24", "198.18.3.0/24", "198.18.4.0/24"];
        assert_eq!(told("198.18.0.0/21", &packets, &before), four);
        assert!(told("198.18.0.0/24", &packets, &[]).is_empty());
        assert!(told("2001:db8::/40", &packets, &[]).is_empty());
    }

    #[test]
    fn of_few_packets_for_each_nothing_is_told() {
        let told = |each: u32| {
            let hosts: Vec<(u32, u32)> = (0..16).map(|i| (i << 8, each + i % 4)).collect();
            told("198.18.0.0/20", &excess(17, &hosts), &[]).len()
        };
        assert_eq!((told(1), told(4)), (0, 16));
    }
}
