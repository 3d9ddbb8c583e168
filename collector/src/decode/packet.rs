//! Packet headers: from sFlow samples, IPFIX header sections and captures.
//!
//! A header may be cut anywhere. What is cut off is left at zero; a packet without a whole IP
//! header is no packet. Headers are read straight into the record they become: a sample costs less
//! to decode than to copy about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use weir_model::{FlowRecord, Fragment, PrefixSet};

use crate::config::Tunnel;
use crate::read::{be16, be32, be128};

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkType {
    /// Ethernet (pcap 1; sFlow header protocol 1).
    Ethernet,
    /// An IPv4 or IPv6 header (pcap 12, 101, 228, 229; sFlow 11, 12).
    Ip,
    /// Linux "cooked" capture v1 (pcap 113).
    LinuxSll,
    /// Linux "cooked" capture v2 (pcap 276).
    LinuxSll2,
    /// BSD loopback: an address family in the capturing machine's octet order (pcap 0, 108).
    Null,
    /// PPP, with or without HDLC framing (pcap 9; sFlow 7 and 14).
    Ppp,
    /// An MPLS label stack (sFlow 13).
    Mpls,
    /// IEEE 802.11 data frames (pcap 105; sFlow 15).
    Ieee80211,
}

impl LinkType {
    /// The link type of a pcap file's number.
    pub const fn from_pcap(number: u32) -> Option<Self> {
        match number {
            0 | 108 => Some(Self::Null),
            1 => Some(Self::Ethernet),
            9 | 50 => Some(Self::Ppp),
            12 | 14 | 101 | 228 | 229 => Some(Self::Ip),
            105 => Some(Self::Ieee80211),
            113 => Some(Self::LinuxSll),
            276 => Some(Self::LinuxSll2),
            _ => None,
        }
    }
}

/// Tags, labels and tunnels passed through at most, so that no header can hold the decoder long.
const MAX_LAYERS: u32 = 16;

mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const QINQ: u16 = 0x88a8;
    pub(super) const QINQ_OLD: u16 = 0x9100;
    pub(super) const QINQ_OLD_2: u16 = 0x9200;
    pub(super) const QINQ_OLD_3: u16 = 0x9300;
    /// IEEE 802.1ah.
    pub(super) const PBB: u16 = 0x88e7;
    pub(super) const MPLS: u16 = 0x8847;
    pub(super) const MPLS_MULTICAST: u16 = 0x8848;
    pub(super) const PPPOE: u16 = 0x8864;
    pub(super) const TEB: u16 = 0x6558;
}

/// Which header of a tunnelled packet counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) tunnel: Tunnel,
    pub(crate) protected: &'a PrefixSet,
}

impl View<'_> {
    /// Whether the inside of a packet to `outer` counts. Never that of one to a protected host: it is that
    /// host which gets it, whatever is written inside.
    #[inline]
    pub(crate) fn looks_inside(self, outer: IpAddr) -> bool {
        self.tunnel == Tunnel::Inner && !self.protected.contains(outer)
    }
}

/// Whether a packet's transport header was in reach, or is absent by nature.
pub(crate) type Complete = bool;

/// Reads a frame of `wire_len` octets, of which `frame` was captured, into `out`: addresses, ports
/// and what else the headers say. `None` when there is no IP packet in it.
#[inline]
pub(crate) fn parse(
    link: LinkType,
    frame: &[u8],
    wire_len: u32,
    view: View<'_>,
    out: &mut FlowRecord,
) -> Option<Complete> {
    let walk = Walk { whole: frame.len(), wire_len, view, layers: 0 };
    if link == LinkType::Ethernet && be16(frame, 12) == Some(ethertype::IPV4) {
        // By far the most: no tag, IPv4.
        return walk.ipv4(frame.get(14..)?, out);
    }
    walk.frame(link, frame, out)
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    whole: usize,
    wire_len: u32,
    view: View<'a>,
    layers: u32,
}

impl Walk<'_> {
    fn deeper(self) -> Option<Self> {
        (self.layers < MAX_LAYERS).then_some(Self { layers: self.layers + 1, ..self })
    }

    #[inline(never)]
    fn frame(self, link: LinkType, frame: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        match link {
            LinkType::Ethernet => self.ethernet(frame, out),
            LinkType::Ip => self.ip(frame, out),
            LinkType::LinuxSll => self.ether_type(be16(frame, 14)?, frame.get(16..)?, out),
            LinkType::LinuxSll2 => self.ether_type(be16(frame, 0)?, frame.get(20..)?, out),
            LinkType::Null => self.ip(frame.get(4..)?, out),
            LinkType::Ppp => self.ppp(frame, out),
            LinkType::Mpls => self.mpls(frame, out),
            LinkType::Ieee80211 => self.ieee80211(frame, out),
        }
    }

    /// Octets on the wire from the beginning of `rest` on.
    fn wire_left(&self, rest: &[u8]) -> u32 {
        let passed = u32::try_from(self.whole - rest.len()).unwrap_or(u32::MAX);
        self.wire_len.saturating_sub(passed)
    }

    fn ethernet(self, frame: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        self.deeper()?.ether_type(be16(frame, 12)?, frame.get(14..)?, out)
    }

    fn ether_type(self, kind: u16, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let next = self.deeper()?;
        match kind {
            ethertype::IPV4 | ethertype::IPV6 => next.ip(rest, out),
            ethertype::VLAN
            | ethertype::QINQ
            | ethertype::QINQ_OLD
            | ethertype::QINQ_OLD_2
            | ethertype::QINQ_OLD_3 => next.ether_type(be16(rest, 2)?, rest.get(4..)?, out),
            // The service tag of a provider backbone, and the customer's frame.
            ethertype::PBB => next.ethernet(rest.get(4..)?, out),
            ethertype::MPLS | ethertype::MPLS_MULTICAST => next.mpls(rest, out),
            ethertype::PPPOE => next.ppp(rest.get(6..)?, out),
            ethertype::TEB => next.ethernet(rest, out),
            // A length, not a type: LLC with SNAP (IEEE 802.3).
            0..=1500 => next.llc(rest, out),
            _ => None,
        }
    }

    fn llc(self, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        match rest.first_chunk::<3>()? {
            [0xaa, 0xaa, 0x03] => self.deeper()?.ether_type(be16(rest, 6)?, rest.get(8..)?, out),
            [0x06, 0x06, 0x03] => self.ip(rest.get(3..)?, out),
            _ => None,
        }
    }

    fn ppp(self, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let rest = rest.strip_prefix(&[0xff, 0x03]).unwrap_or(rest);
        // The protocol may be compressed to one octet, which is then odd (RFC 1661 §6.5).
        let (protocol, rest) = match rest.first()? {
            first if first & 1 == 1 => (u16::from(*first), rest.get(1..)?),
            _ => (be16(rest, 0)?, rest.get(2..)?),
        };
        match protocol {
            0x0021 | 0x0057 => self.deeper()?.ip(rest, out),
            0x0281 => self.deeper()?.mpls(rest, out),
            _ => None,
        }
    }

    fn mpls(self, mut rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        for _ in 0..MAX_LAYERS {
            let label = be32(rest, 0)?;
            rest = rest.get(4..)?;
            if label & 0x100 != 0 {
                return self.deeper()?.below_mpls(rest, out);
            }
        }
        None
    }

    /// Nothing says what is under the last label: an IP version, a pseudowire's control word (its
    /// first four bits are 0, RFC 4385) or an Ethernet header at once. An Ethernet header whose
    /// address begins with 4 or 6 looks like IP: the IP header must fit to be believed.
    fn below_mpls(self, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        match rest.first()? >> 4 {
            4 | 6 if self.looks_like_ip(rest) => self.ip(rest, out),
            0 => {
                let after = rest.get(4..)?;
                match self.ethernet(after, out) {
                    None => self.ethernet(rest, out),
                    found => found,
                }
            }
            _ => self.ethernet(rest, out),
        }
    }

    fn looks_like_ip(&self, rest: &[u8]) -> bool {
        // A frame said to be no longer than what was captured of it was cut, and says nothing.
        let told = usize::try_from(self.wire_len).is_ok_and(|wire| wire > self.whole);
        let left = if told { self.wire_left(rest) } else { u32::MAX };
        match rest.first().map(|b| b >> 4) {
            Some(4) => {
                let header = u32::from(rest[0] & 15) * 4;
                be16(rest, 2).is_some_and(|total| {
                    header >= 20 && u32::from(total) >= header && u32::from(total) <= left
                })
            }
            Some(6) => be16(rest, 4).is_some_and(|payload| u32::from(payload) + 40 <= left),
            _ => false,
        }
    }

    /// Data frames only, with the QoS and four-address forms (IEEE 802.11 §9.2.4.1).
    fn ieee80211(self, frame: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let control = frame.first_chunk::<2>()?;
        let (kind, subtype) = (control[0] >> 2 & 3, control[0] >> 4);
        // Data without "no data" bit and not encrypted.
        if kind != 2 || subtype & 4 != 0 || control[1] & 0x40 != 0 {
            return None;
        }
        let addresses = if control[1] & 3 == 3 { 30 } else { 24 };
        let qos = if subtype & 8 != 0 { 2 } else { 0 };
        self.llc(frame.get(addresses + qos..)?, out)
    }

    fn ip(self, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        match rest.first()? >> 4 {
            4 => self.ipv4(rest, out),
            6 => self.ipv6(rest, out),
            _ => None,
        }
    }

    #[inline]
    fn ipv4(self, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let header = rest.first_chunk::<20>()?;
        let header_len = usize::from(header[0] & 15) * 4;
        if header_len < 20 {
            return None;
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let (more, offset) = (flags & 0x2000 != 0, flags & 0x1fff);
        out.src = IpAddr::V4(Ipv4Addr::new(header[12], header[13], header[14], header[15]));
        out.dst = IpAddr::V4(Ipv4Addr::new(header[16], header[17], header[18], header[19]));
        out.protocol = header[9];
        out.ttl = header[8];
        out.fragment = fragment(more, offset);
        self.length(u16::from_be_bytes([header[2], header[3]]), rest, out);
        Some(self.transport(rest.get(header_len..), out))
    }

    /// The length an IP header states, unless it is absent (segmentation offload). What the agent says of
    /// the frame's length is wrong with some (Juniper states that of the sampled header), and no router
    /// forwards a packet that is shorter than its header says (RFC 1812 §5.2.2).
    #[inline]
    fn length(&self, stated: u16, rest: &[u8], out: &mut FlowRecord) {
        let length = match stated {
            0 => u16::try_from(self.wire_left(rest)).unwrap_or(u16::MAX),
            stated => stated,
        };
        (out.length_min, out.length_max) = (length, length);
        out.bytes = u64::from(length);
    }

    fn ipv6(self, rest: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let header = rest.first_chunk::<40>()?;
        let payload = u16::from_be_bytes([header[4], header[5]]);
        let stated = if payload == 0 { 0 } else { payload.saturating_add(40) };
        out.src = IpAddr::V6(Ipv6Addr::from_bits(be128(header, 8)?));
        out.dst = IpAddr::V6(Ipv6Addr::from_bits(be128(header, 24)?));
        out.ttl = header[7];
        self.length(stated, rest, out);
        let (next, fragment, body) = extension_headers(header[6], rest.get(40..));
        (out.protocol, out.fragment) = (next, fragment);
        Some(self.transport(body, out))
    }

    /// Fills in what the transport header says, or goes into a tunnel.
    #[inline]
    fn transport(self, body: Option<&[u8]>, out: &mut FlowRecord) -> Complete {
        (out.src_port, out.dst_port, out.tcp_flags) = (0, 0, 0);
        out.tcp_flags_said = false;
        if out.fragment == Fragment::Later {
            return true;
        }
        let body = body.unwrap_or_default();
        let complete = match out.protocol {
            6 => {
                out.tcp_flags = body.get(13).copied().unwrap_or(0);
                out.tcp_flags_said = body.len() > 13;
                ports(body, out) && body.len() > 13
            }
            17 | 33 | 132 | 136 => ports(body, out),
            1 | 58 => body.first_chunk().is_some_and(|[kind, code]| {
                (out.icmp_type, out.icmp_code) = (*kind, *code);
                true
            }),
            _ => true,
        };
        if carries(out) && self.view.looks_inside(out.dst) {
            let mut inner = *out;
            if let Some(complete) = self.inner(body, &mut inner) {
                *out = inner;
                return complete;
            }
        }
        complete
    }

    #[inline(never)]
    fn inner(self, body: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let next = self.deeper()?;
        match out.protocol {
            4 | 41 => next.ip(body, out),
            143 => next.ethernet(body, out),
            47 => next.gre(body, out),
            137 => next.mpls(body, out),
            17 => match out.dst_port {
                // VXLAN (RFC 7348) and its old Linux port.
                4789 | 8472 => next.ethernet(body.get(16..)?, out),
                // Geneve (RFC 8926 §3.4): options counted in four octets.
                6081 => {
                    let options = usize::from(body.get(8)? & 0x3f) * 4;
                    next.ether_type(be16(body, 10)?, body.get(16 + options..)?, out)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// GRE, versions 0 and 1 (RFC 2784, 2890, 2637).
    fn gre(self, body: &[u8], out: &mut FlowRecord) -> Option<Complete> {
        let flags = be16(body, 0)?;
        let word = |bit: u16| if flags & bit != 0 { 4 } else { 0 };
        if flags & 7 == 1 {
            let header = 8 + word(0x1000) + word(0x0080);
            return self.ppp(body.get(header..)?, out);
        }
        let header = 4 + word(0x8000) + word(0x2000) + word(0x1000);
        self.ether_type(be16(body, 2)?, body.get(header..)?, out)
    }
}

/// Whether a packet may be a tunnel's, by protocol and port: see [`Walk::inner`].
#[inline]
const fn carries(packet: &FlowRecord) -> bool {
    match packet.protocol {
        4 | 41 | 47 | 137 | 143 => true,
        17 => matches!(packet.dst_port, 4789 | 6081 | 8472),
        _ => false,
    }
}

#[inline]
fn ports(body: &[u8], out: &mut FlowRecord) -> Complete {
    let Some([a, b, c, d]) = body.first_chunk() else { return false };
    out.src_port = u16::from_be_bytes([*a, *b]);
    out.dst_port = u16::from_be_bytes([*c, *d]);
    true
}

#[inline]
const fn fragment(more: bool, offset: u16) -> Fragment {
    match (more, offset) {
        (_, 1..) => Fragment::Later,
        (true, 0) => Fragment::First,
        (false, 0) => Fragment::None,
    }
}

/// Passes over IPv6 extension headers (RFC 8200 §4), the routing header of SRv6 included.
fn extension_headers(mut next: u8, mut rest: Option<&[u8]>) -> (u8, Fragment, Option<&[u8]>) {
    let mut seen = Fragment::None;
    for _ in 0..MAX_LAYERS {
        let Some(body) = rest else { break };
        let Some([following, len]) = body.first_chunk::<2>() else { break };
        let skip = match next {
            // Hop-by-hop, routing, destination, mobility, HIP, shim6: in units of eight octets.
            0 | 43 | 60 | 135 | 139 | 140 => usize::from(*len) * 8 + 8,
            // Authentication: in units of four, less two (RFC 4302 §2.2).
            51 => usize::from(*len) * 4 + 8,
            44 => {
                let Some(word) = be16(body, 2) else { break };
                seen = fragment(word & 1 != 0, word >> 3);
                8
            }
            _ => break,
        };
        next = *following;
        rest = body.get(skip..);
        if seen == Fragment::Later {
            break;
        }
    }
    (next, seen, rest)
}
