//! Which matches are met by all that a host gets, however they are spelled: a list that names what nearly every
//! packet has is no restriction. Judged by what a host lives on, not by how many values there are: a rule that
//! spares a hundred protocols nobody speaks spares nobody.

use ipnet::IpNet;
use weir_model::{FragmentMatch, Match, Range};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The DSCP of packets that nobody marked.
const BEST_EFFORT: u8 = 0;

/// A source as wide as this is a large part of the Internet.
const SOURCE_MIN_LEN4: u8 = 8;
const SOURCE_MIN_LEN6: u8 = 16;

/// Lengths of nearly all packets: from a bare acknowledgement up to what fits into a frame with a tunnel.
const LENGTHS: Range = Range { from: 60, to: 1400 };

const PORTS: Range = Range { from: 0, to: u16::MAX };

/// Whether no component narrows the match.
pub(super) fn matches(packets: &Match) -> bool {
    packets.src.is_none_or(is_wide)
        && names_what_hosts_speak(&packets.protocols)
        && holds_most(&packets.dst_ports, PORTS)
        && holds_most(&packets.src_ports, PORTS)
        && packets.icmp_types.is_empty()
        && packets.icmp_codes.is_empty()
        && packets.tcp_flags.iter().all(|flags| flags.mask == 0)
        && holds_most(&packets.lengths, LENGTHS)
        && (packets.dscps.is_empty() || packets.dscps.contains(&BEST_EFFORT))
        && matches!(packets.fragment, None | Some(FragmentMatch::NotFragment))
}

fn is_wide(source: IpNet) -> bool {
    let least = match source {
        IpNet::V4(_) => SOURCE_MIN_LEN4,
        IpNet::V6(_) => SOURCE_MIN_LEN6,
    };
    source.prefix_len() < least
}

fn names_what_hosts_speak(protocols: &[u8]) -> bool {
    protocols.is_empty() || protocols.contains(&TCP) && protocols.contains(&UDP)
}

/// Whether a list, joined as [`Match::normalise`] does it, holds three of four values of a range.
fn holds_most(list: &[Range], all: Range) -> bool {
    let shared = |range: &Range| {
        let (from, to) = (range.from.max(all.from), range.to.min(all.to));
        u32::from(to).checked_sub(u32::from(from)).map_or(0, |span| span + 1)
    };
    let held: u32 = list.iter().map(shared).sum();
    let values = u32::from(all.to - all.from) + 1;
    list.is_empty() || held.saturating_mul(4) >= values * 3
}
