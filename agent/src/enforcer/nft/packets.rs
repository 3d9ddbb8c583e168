//! [`Match`] in nft's words.
//!
//! The destination is not written: the dispatch map has looked at it already. Hooked at -450 these see
//! fragments as they came; from -400 on they are put together wherever conntrack runs.

use std::fmt::{Display, Write as _};

use weir_model::{FragmentMatch, IpNet, Match, Range};

use crate::rules::PORT_PROTOCOLS;

/// Whether the addresses of a prefix are IPv4.
pub(super) const fn is_v4(net: IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// nft's name of the address family of a prefix.
pub(super) const fn family(net: IpNet) -> &'static str {
    if is_v4(net) { "ip" } else { "ip6" }
}

/// The match as alternatives: a packet is meant when one of them fits. More than one only where TCP flag
/// matches look at different bits, which one expression cannot say.
pub(super) fn alternatives(m: &Match) -> Vec<String> {
    let mut text = String::new();
    let v4 = is_v4(m.dst);
    let ip = family(m.dst);
    if let Some(src) = m.src.filter(|src| src.prefix_len() > 0) {
        push(&mut text, format_args!("{ip} saddr {src}"));
    }
    transport(&mut text, m, v4);
    if !m.lengths.is_empty() {
        push(&mut text, format_args!("meta length {}", set(&m.lengths)));
    }
    if !m.dscps.is_empty() {
        push(&mut text, format_args!("{ip} dscp {}", set(&m.dscps)));
    }
    fragments(&mut text, m.fragment, v4);
    if m.tcp_flags.is_empty() {
        return vec![text];
    }
    let with_flags = |f: &weir_model::FlagMatch| {
        let mut text = text.clone();
        push(&mut text, format_args!("tcp flags & {:#x} == {:#x}", f.mask, f.set));
        text
    };
    m.tcp_flags.iter().map(with_flags).collect()
}

fn transport(text: &mut String, m: &Match, v4: bool) {
    let ports = !m.dst_ports.is_empty() || !m.src_ports.is_empty();
    let icmp = !m.icmp_types.is_empty() || !m.icmp_codes.is_empty();
    let flags = !m.tcp_flags.is_empty();
    let icmp_number = if v4 { 1 } else { 58 };
    let with: &[u8] = match (flags, ports, icmp) {
        (true, ..) => &[6],
        (_, true, _) => &PORT_PROTOCOLS,
        (_, _, true) => &[icmp_number],
        _ => &[],
    };
    let protocols: Vec<u8> = match (with.is_empty(), m.protocols.is_empty()) {
        (true, _) => m.protocols.clone(),
        // FlowSpec's ports are those of TCP and UDP (RFC 8955 §4.2.2.4) unless the rule names others.
        (false, true) => with.iter().copied().filter(|p| [1, 6, 17, 58].contains(p)).collect(),
        (false, false) => m.protocols.iter().copied().filter(|p| with.contains(p)).collect(),
    };
    if !protocols.is_empty() {
        push(text, format_args!("meta l4proto {}", set(&protocols)));
    }
    if v4 && (ports || icmp || flags) {
        // Later fragments have no transport header, but older kernels read one there.
        push(text, format_args!("ip frag-off & 0x1fff == 0"));
    }
    let header = match protocols[..] {
        [6] => "tcp",
        [17] => "udp",
        _ => "th",
    };
    for (name, list) in [("dport", &m.dst_ports), ("sport", &m.src_ports)] {
        if !list.is_empty() {
            push(text, format_args!("{header} {name} {}", set(list)));
        }
    }
    let icmp_name = if v4 { "icmp" } else { "icmpv6" };
    for (name, list) in [("type", &m.icmp_types), ("code", &m.icmp_codes)] {
        if !list.is_empty() {
            push(text, format_args!("{icmp_name} {name} {}", set(list)));
        }
    }
}

fn fragments(text: &mut String, fragment: Option<FragmentMatch>, v4: bool) {
    use FragmentMatch::{First, IsFragment, Last, NotFragment};
    let expression = match (fragment, v4) {
        (None, _) => return,
        (Some(IsFragment), true) => "ip frag-off & 0x3fff != 0",
        (Some(NotFragment), true) => "ip frag-off & 0x3fff == 0",
        (Some(First), true) => "ip frag-off & 0x3fff == 0x2000",
        (Some(Last), true) => "ip frag-off & 0x2000 == 0 ip frag-off & 0x1fff != 0",
        (Some(IsFragment), false) => "exthdr frag exists",
        (Some(NotFragment), false) => "exthdr frag missing",
        (Some(First), false) => "frag frag-off 0 frag more-fragments 1",
        (Some(Last), false) => "frag more-fragments 0 frag frag-off != 0",
    };
    push(text, format_args!("{expression}"));
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    let space = if text.is_empty() { "" } else { " " };
    // Writing to a String cannot fail.
    let _ = write!(text, "{space}{part}");
}

/// One value, or an anonymous set of them.
fn set<T: Display>(items: &[T]) -> String {
    if let [one] = items {
        return one.to_string();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", items.join(", "))
}

/// Every port of the ranges, when they are at most `max`.
pub(super) fn single_ports(list: &[Range], max: usize) -> Option<Vec<u16>> {
    let count: usize = list.iter().map(|r| usize::from(r.to - r.from) + 1).sum();
    (count <= max).then(|| list.iter().flat_map(|r| r.from..=r.to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::FlagMatch;

    #[test]
    fn each_component_has_its_expression() {
        let check = |dst: &str, change: &dyn Fn(&mut Match), wanted: &[&str]| {
            let mut m = Match::to(dst.parse().unwrap());
            change(&mut m);
            assert_eq!(alternatives(&m), wanted, "{m}");
        };
        let (v4, v6) = ("203.0.113.7/32", "2001:db8::7/128");
        check(v4, &|_| (), &[""]);
        check(v4, &|m| m.src = Some("192.0.2.0/24".parse().unwrap()), &["ip saddr 192.0.2.0/24"]);
        check(
            v6,
            &|m| m.src = Some("2001:db8:9::/48".parse().unwrap()),
            &["ip6 saddr 2001:db8:9::/48"],
        );
        check(v4, &|m| m.protocols = vec![47, 50], &["meta l4proto { 47, 50 }"]);
        let ports =
            |m: &mut Match| m.src_ports = vec![Range::exact(53), Range { from: 100, to: 200 }];
        check(
            v4,
            &ports,
            &["meta l4proto { 6, 17 } ip frag-off & 0x1fff == 0 th sport { 53, 100-200 }"],
        );
        let udp = |m: &mut Match| {
            m.protocols = vec![17];
            m.dst_ports = vec![Range::exact(27015)];
        };
        check(v6, &udp, &["meta l4proto 17 udp dport 27015"]);
        check(
            v4,
            &|m| m.icmp_types = vec![8],
            &["meta l4proto 1 ip frag-off & 0x1fff == 0 icmp type 8"],
        );
        check(v6, &|m| m.icmp_types = vec![128], &["meta l4proto 58 icmpv6 type 128"]);
        let flags = |m: &mut Match| {
            m.tcp_flags =
                vec![FlagMatch { mask: 0x12, set: 0x02 }, FlagMatch { mask: 0x04, set: 0x04 }];
        };
        check(
            v6,
            &flags,
            &["meta l4proto 6 tcp flags & 0x12 == 0x2", "meta l4proto 6 tcp flags & 0x4 == 0x4"],
        );
        check(
            v4,
            &|m| m.lengths = vec![Range { from: 1400, to: 1500 }],
            &["meta length 1400-1500"],
        );
        check(v4, &|m| m.dscps = vec![46], &["ip dscp 46"]);
        check(
            v4,
            &|m| m.fragment = Some(FragmentMatch::First),
            &["ip frag-off & 0x3fff == 0x2000"],
        );
        check(v6, &|m| m.fragment = Some(FragmentMatch::IsFragment), &["exthdr frag exists"]);
    }

    #[test]
    fn port_lists_have_an_end() {
        assert_eq!(single_ports(&[Range { from: 1, to: 3 }], 3), Some(vec![1, 2, 3]));
        assert_eq!(single_ports(&[Range { from: 0, to: 65535 }], 64), None);
    }
}
