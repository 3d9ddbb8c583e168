//! The order of rules: that of FlowSpec (RFC 8955 §5.1), so that a node and a router given the same rules
//! apply the same one to a packet.

use std::cmp::Ordering;

use ipnet::IpNet;
use weir_model::{FragmentMatch, Match, Range};

use super::Rule;

/// Sorts rules by [`flowspec_order`], then by identifier.
pub fn sort(rules: &mut [Rule]) {
    rules.sort_by(|a, b| flowspec_order(&a.packets, &b.packets).then_with(|| a.id.cmp(&b.id)));
}

/// Which of two matches comes first: component by component in the order of their types; one that has the
/// lower type comes first; of prefixes, the longer one where one holds the other; else octets decide.
pub fn flowspec_order(a: &Match, b: &Match) -> Ordering {
    prefix(a.dst, b.dst)
        .then_with(|| match (a.src, b.src) {
            (Some(a), Some(b)) => prefix(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        })
        .then_with(|| component(&singles(&a.protocols), &singles(&b.protocols)))
        .then_with(|| component(&ranges(&a.dst_ports), &ranges(&b.dst_ports)))
        .then_with(|| component(&ranges(&a.src_ports), &ranges(&b.src_ports)))
        .then_with(|| component(&singles(&a.icmp_types), &singles(&b.icmp_types)))
        .then_with(|| component(&singles(&a.icmp_codes), &singles(&b.icmp_codes)))
        .then_with(|| component(&flags(a), &flags(b)))
        .then_with(|| component(&ranges(&a.lengths), &ranges(&b.lengths)))
        .then_with(|| component(&singles(&a.dscps), &singles(&b.dscps)))
        .then_with(|| component(&fragment(a.fragment), &fragment(b.fragment)))
}

fn prefix(a: IpNet, b: IpNet) -> Ordering {
    if a.contains(&b) || b.contains(&a) {
        b.prefix_len().cmp(&a.prefix_len())
    } else {
        a.addr().cmp(&b.addr())
    }
}

/// Absent (empty) comes last; else as octet strings, where a longer one with the same beginning comes first.
fn component(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    match (a.is_empty(), b.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a[..common].cmp(&b[..common]).then_with(|| b.len().cmp(&a.len())),
    }
}

const END: u8 = 0x80;
const AND: u8 = 0x40;
const TWO_OCTETS: u8 = 0x10;
const GREATER_EQUAL: u8 = 0x03;
const LESS_EQUAL: u8 = 0x05;
const EQUAL: u8 = 0x01;

/// Numeric operators and values (RFC 8955 §4.2.1.1) in the shortest form.
fn ranges(list: &[Range]) -> Vec<u8> {
    let mut out = Vec::new();
    let push = |out: &mut Vec<u8>, operator: u8, value: u16| match u8::try_from(value) {
        Ok(octet) => out.extend([operator, octet]),
        Err(_) => {
            out.push(operator | TWO_OCTETS);
            out.extend(value.to_be_bytes());
        }
    };
    for (i, range) in list.iter().enumerate() {
        let end = if i + 1 == list.len() { END } else { 0 };
        if range.from == range.to {
            push(&mut out, EQUAL | end, range.from);
        } else {
            push(&mut out, GREATER_EQUAL, range.from);
            push(&mut out, LESS_EQUAL | AND | end, range.to);
        }
    }
    out
}

fn singles(list: &[u8]) -> Vec<u8> {
    let list: Vec<Range> = list.iter().map(|v| Range::exact(u16::from(*v))).collect();
    ranges(&list)
}

/// Bits that must be on, then bits that must be off: sorts as the announcement would without fixing its form.
fn flags(m: &Match) -> Vec<u8> {
    m.tcp_flags.iter().flat_map(|f| [f.set, f.mask & !f.set]).collect()
}

const fn fragment(f: Option<FragmentMatch>) -> [u8; 1] {
    // One octet each keeps absent last by sorting it above all that are present.
    match f {
        Some(FragmentMatch::NotFragment) => [0],
        Some(FragmentMatch::IsFragment) => [2],
        Some(FragmentMatch::First) => [4],
        Some(FragmentMatch::Last) => [8],
        None => [0xff],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(dst: &str, change: impl FnOnce(&mut Match)) -> Match {
        let mut m = Match::to(dst.parse().unwrap());
        change(&mut m);
        m
    }

    #[test]
    fn longer_prefixes_and_present_components_come_first() {
        let check = |a: &Match, b: &Match| {
            assert_eq!(flowspec_order(a, b), Ordering::Less, "{a} | {b}");
            assert_eq!(flowspec_order(b, a), Ordering::Greater, "{b} | {a}");
        };
        let any = m("203.0.113.7/32", |_| ());
        let udp = m("203.0.113.7/32", |m| m.protocols = vec![17]);
        let dns = m("203.0.113.7/32", |m| {
            m.protocols = vec![17];
            m.src_ports = vec![Range::exact(53)];
        });
        check(&any, &m("203.0.113.0/24", |_| ()));
        check(&m("198.51.100.1/32", |_| ()), &any);
        check(&udp, &any);
        check(&dns, &udp);
        check(&m("203.0.113.7/32", |m| m.src = Some("192.0.2.0/24".parse().unwrap())), &udp);
        check(&m("203.0.113.7/32", |m| m.fragment = Some(FragmentMatch::IsFragment)), &any);
    }
}
