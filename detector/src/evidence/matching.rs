//! Which packets a match holds for, as a router would see them.

use weir_model::{FlagMatch, Fragment, FragmentMatch, Match, Range};

use crate::watch::packets::{Packet, narrow};

/// Whether a match holds for a packet, of which the destination is taken for granted.
pub(crate) fn hits(m: &Match, p: &Packet) -> bool {
    let length = m.lengths.is_empty() || m.lengths.iter().any(|r| within(*r, p));
    length && but_for_length(m, p)
}

/// Whether a record is one that a match counts, by the average length of its packets.
pub(crate) fn means(m: &Match, p: &Packet) -> bool {
    let length = m.lengths.is_empty() || m.lengths.iter().any(|r| r.contains(p.length()));
    length && but_for_length(m, p)
}

fn but_for_length(m: &Match, p: &Packet) -> bool {
    let any =
        |list: &[Range], value: u16| list.is_empty() || list.iter().any(|r| r.contains(value));
    let flag = |f: &FlagMatch| p.has_flags(f.mask, f.set);
    let flags = m.tcp_flags.is_empty() || m.tcp_flags.iter().any(flag);
    let fragment = match m.fragment {
        None => true,
        Some(FragmentMatch::IsFragment | FragmentMatch::Last) => p.fragment == Fragment::Later,
        Some(FragmentMatch::First) => p.fragment == Fragment::First,
        Some(FragmentMatch::NotFragment) => p.fragment == Fragment::None,
    };
    (m.protocols.is_empty() || m.protocols.contains(&p.protocol))
        && any(&m.src_ports, p.src_port)
        && any(&m.dst_ports, p.dst_port)
        && (m.icmp_types.is_empty() || m.icmp_types.contains(&p.icmp_type))
        && (m.icmp_codes.is_empty() || m.icmp_codes.contains(&p.icmp_code))
        && m.src.is_none_or(|net| net.contains(&narrow(p.src)))
        && flags
        && fragment
}

/// Whether all packets of a record have a length of the range.
pub(crate) const fn within(range: Range, p: &Packet) -> bool {
    range.contains(p.length_min) && range.contains(p.length_max)
}
