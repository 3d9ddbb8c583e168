//! Whether one match takes in another's packets: all of them, or any.

use weir_model::{FlagMatch, FragmentMatch, IpNet, Match, Range};

/// Whether every packet of `inner` is one of `outer`.
pub(crate) fn covers(outer: &Match, inner: &Match) -> bool {
    let src = match (outer.src, inner.src) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => outer.contains(&inner),
    };
    let fragment = match (outer.fragment, inner.fragment) {
        (None, _) => true,
        (Some(outer), Some(inner)) if outer == inner => true,
        (Some(FragmentMatch::IsFragment), Some(inner)) => inner != FragmentMatch::NotFragment,
        _ => false,
    };
    let flags = |inner: FlagMatch| {
        let within = |outer: &FlagMatch| {
            outer.mask & !inner.mask == 0 && inner.set & outer.mask == outer.set
        };
        outer.tcp_flags.iter().any(within)
    };
    outer.dst.contains(&inner.dst)
        && src
        && fragment
        && all_in(&outer.protocols, &inner.protocols)
        && all_in(&outer.icmp_types, &inner.icmp_types)
        && all_in(&outer.icmp_codes, &inner.icmp_codes)
        && all_in(&outer.dscps, &inner.dscps)
        && all_within(&outer.dst_ports, &inner.dst_ports)
        && all_within(&outer.src_ports, &inner.src_ports)
        && all_within(&outer.lengths, &inner.lengths)
        && (outer.tcp_flags.is_empty()
            || !inner.tcp_flags.is_empty() && inner.tcp_flags.iter().all(|f| flags(*f)))
}

/// Whether some packet may be one of both.
pub(crate) fn overlaps(a: &Match, b: &Match) -> bool {
    let nets = |a: IpNet, b: IpNet| a.contains(&b) || b.contains(&a);
    let src = match (a.src, b.src) {
        (Some(a), Some(b)) => nets(a, b),
        _ => true,
    };
    let fragment = match (a.fragment, b.fragment) {
        (Some(a), Some(b)) => {
            (a == FragmentMatch::NotFragment) == (b == FragmentMatch::NotFragment)
        }
        _ => true,
    };
    let flags = |a: &FlagMatch, b: &FlagMatch| (a.set ^ b.set) & a.mask & b.mask == 0;
    nets(a.dst, b.dst)
        && src
        && fragment
        && any_in(&a.protocols, &b.protocols)
        && any_in(&a.icmp_types, &b.icmp_types)
        && any_in(&a.icmp_codes, &b.icmp_codes)
        && any_in(&a.dscps, &b.dscps)
        && any_within(&a.dst_ports, &b.dst_ports)
        && any_within(&a.src_ports, &b.src_ports)
        && any_within(&a.lengths, &b.lengths)
        && (a.tcp_flags.is_empty()
            || b.tcp_flags.is_empty()
            || a.tcp_flags.iter().any(|a| b.tcp_flags.iter().any(|b| flags(a, b))))
}

fn all_in(outer: &[u8], inner: &[u8]) -> bool {
    outer.is_empty() || !inner.is_empty() && inner.iter().all(|value| outer.contains(value))
}

fn any_in(a: &[u8], b: &[u8]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|value| b.contains(value))
}

/// Ranges are joined where they touch, so each lies inside one of the others or in none.
fn all_within(outer: &[Range], inner: &[Range]) -> bool {
    let within = |r: &Range| outer.iter().any(|o| o.contains(r.from) && o.contains(r.to));
    outer.is_empty() || !inner.is_empty() && inner.iter().all(within)
}

fn any_within(a: &[Range], b: &[Range]) -> bool {
    let meet = |a: &Range, b: &Range| a.from <= b.to && b.from <= a.to;
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| meet(a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn match_of(change: fn(&mut Match)) -> Match {
        let mut packets = Match::to("203.0.113.7/32".parse().unwrap());
        packets.protocols = vec![17];
        packets.src_ports = vec![Range::exact(123)];
        change(&mut packets);
        packets.normalise()
    }

    #[test]
    fn a_wider_match_covers_and_a_foreign_one_does_not_even_overlap() {
        let check = |change: fn(&mut Match), expected: (bool, bool, bool)| {
            let (ntp, other) = (match_of(|_| {}), match_of(change));
            let got = (covers(&ntp, &other), covers(&other, &ntp), overlaps(&ntp, &other));
            assert_eq!(got, expected, "{other}");
            assert_eq!(overlaps(&other, &ntp), expected.2, "{other}");
        };
        check(|_| {}, (true, true, true));
        check(|m| m.lengths = vec![Range { from: 400, to: 500 }], (true, false, true));
        check(|m| m.src_ports.clear(), (false, true, true));
        check(|m| m.src_ports = vec![Range { from: 100, to: 200 }], (false, true, true));
        check(|m| m.src_ports = vec![Range::exact(53)], (false, false, false));
        check(|m| m.protocols = vec![6], (false, false, false));
        check(|m| m.dst = "203.0.113.0/24".parse().unwrap(), (false, true, true));
        check(|m| m.dst = "203.0.113.8/32".parse().unwrap(), (false, false, false));
        check(|m| m.src = "192.0.2.0/24".parse().ok(), (true, false, true));
        check(|m| m.fragment = Some(FragmentMatch::First), (true, false, true));
    }

    #[test]
    fn flags_and_fragments_are_compared_by_what_they_mean() {
        let flags = |mask: u8, set: u8| {
            let mut packets = match_of(|m| m.fragment = Some(FragmentMatch::IsFragment));
            packets.tcp_flags = vec![FlagMatch { mask, set }];
            packets
        };
        let (syn, only_syn, ack) = (flags(0x02, 0x02), flags(0x12, 0x02), flags(0x10, 0x10));
        assert!(covers(&syn, &only_syn) && !covers(&only_syn, &syn));
        assert!(overlaps(&syn, &ack) && !overlaps(&only_syn, &ack));
        let first = Match { fragment: Some(FragmentMatch::First), ..syn.clone() };
        let whole = Match { fragment: Some(FragmentMatch::NotFragment), ..syn.clone() };
        assert!(covers(&syn, &first) && !covers(&first, &syn));
        assert!(!covers(&syn, &whole) && !overlaps(&syn, &whole));
    }
}
