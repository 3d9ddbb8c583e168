//! What an exporter says about one flow or one sampled packet.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{ExporterId, Millis};

/// TCP control bits (RFC 9293 §3.1), the low octet.
pub mod tcp_flags {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// Where in a fragmented packet a record's packets stand.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Fragment {
    /// Not a fragment, or the exporter does not say.
    #[default]
    None,
    /// Offset 0 with more to follow: carries the ports.
    First,
    /// Offset above 0: carries no ports.
    Later,
}

/// Which way a packet crosses the protected network's edge.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Direction {
    /// Towards a protected address.
    #[default]
    Inbound,
    /// From a protected address.
    Outbound,
}

impl Direction {
    /// The other way.
    pub const fn other(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}

/// What the router did with the packets (IE 89 forwardingStatus; sFlow discard).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// The exporter does not say.
    #[default]
    Unknown,
    /// Passed on.
    Forwarded,
    /// Discarded, for instance by a rule that weir announced.
    Dropped,
}

/// How much shorter or longer than a flow's average its packets are taken to be.
const LENGTH_SPREAD: u16 = 3;
/// Longest packet on most paths, octets.
const LENGTH_USUAL: u16 = 1500;

/// One flow record or packet sample, normalised: layer-3 octets, counts not yet multiplied by the
/// sampling rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, 0 where the protocol has none or a fragment hides it.
    pub src_port: u16,
    /// Destination port, 0 where the protocol has none or a fragment hides it.
    pub dst_port: u16,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// TCP control bits seen, or-ed over the flow; 0 when not TCP or not said.
    pub tcp_flags: u8,
    /// Whether the exporter says what the control bits are: only then a 0 is a packet that has none.
    #[serde(default)]
    pub tcp_flags_said: bool,
    /// ICMP type; 0 when not ICMP.
    pub icmp_type: u8,
    /// ICMP code; 0 when not ICMP.
    pub icmp_code: u8,
    /// IP time to live or hop limit, 0 when not said.
    pub ttl: u8,
    /// Fragmentation.
    pub fragment: Fragment,
    /// What the router did with it.
    pub forwarding: Forwarding,
    /// Shortest packet, layer-3 octets; the average where the exporter does not say.
    pub length_min: u16,
    /// Longest packet, layer-3 octets; the average where the exporter does not say.
    pub length_max: u16,
    /// Packets as exported, before scaling.
    pub packets: u64,
    /// Layer-3 octets as exported, before scaling.
    pub bytes: u64,
    /// One in how many packets was looked at: at least 1.
    pub sampling: u32,
    /// First packet, on weir's clock.
    pub start: Millis,
    /// Last packet, on weir's clock.
    pub end: Millis,
    /// Interface index of entry (IE 10), 0 when not said.
    pub input_if: u32,
    /// Interface index of exit (IE 14), 0 when not said.
    pub output_if: u32,
    /// Who said so.
    pub exporter: ExporterId,
    /// Whether it waited for its template, so that it is told long after it arrived. Not written down: such a
    /// record is never kept as evidence.
    #[serde(skip)]
    pub waited: bool,
}

impl FlowRecord {
    /// One packet at no time, of nobody: what an exporter or a header does not say.
    pub const EMPTY: Self = Self {
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        src_port: 0,
        dst_port: 0,
        protocol: 0,
        tcp_flags: 0,
        tcp_flags_said: false,
        icmp_type: 0,
        icmp_code: 0,
        ttl: 0,
        fragment: Fragment::None,
        forwarding: Forwarding::Unknown,
        length_min: 0,
        length_max: 0,
        packets: 1,
        bytes: 0,
        sampling: 1,
        start: Millis(0),
        end: Millis(0),
        input_if: 0,
        output_if: 0,
        exporter: ExporterId(0),
        waited: false,
    };

    /// Packets multiplied by the sampling rate.
    pub const fn scaled_packets(&self) -> u64 {
        self.packets.saturating_mul(self.sampling as u64)
    }

    /// Octets multiplied by the sampling rate.
    pub const fn scaled_bytes(&self) -> u64 {
        self.bytes.saturating_mul(self.sampling as u64)
    }

    /// TCP control bits of a single packet, as far as the record tells: a flow's are or-ed over its packets, and
    /// with an ACK among several it is a connection, seen from its first packet to its last.
    pub const fn single_flags(&self) -> u8 {
        let connection = self.packets > 1 && self.tcp_flags & tcp_flags::ACK != 0;
        let transient = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        if connection { self.tcp_flags & !transient } else { self.tcp_flags }
    }

    /// Whether it is a part of fragmented packets. Flow records give later parts no ports and often say nothing
    /// else of them; what came in with its header (sFlow, and then with a TTL) says it itself.
    pub fn likely_fragment(&self) -> Fragment {
        let portless = self.src_port == 0 && self.dst_port == 0 && matches!(self.protocol, 6 | 17);
        if self.fragment == Fragment::None && portless && self.ttl == 0 {
            Fragment::Later
        } else {
            self.fragment
        }
    }

    /// TCP segments too short for their own header, of which nobody reads flags: neither weir nor a router.
    pub const fn lacks_tcp_header(&self) -> bool {
        let least = if self.src.is_ipv4() { 40 } else { 60 };
        let longest = self.length_range().1;
        self.protocol == 6 && longest > 0 && longest < least
    }

    /// Shortest and longest length that its packets may have, and whether that is a guess: where the exporter
    /// tells only the average, that is all that is known, unless packets of one length add up exactly.
    pub const fn length_range(&self) -> (u16, u16, bool) {
        let one = self.length_min == self.length_max && self.packets > 1;
        if !one || self.packets.saturating_mul(self.length_min as u64) == self.bytes {
            return (self.length_min, self.length_max, false);
        }
        let longest = self.length_max.saturating_mul(LENGTH_SPREAD);
        let longest = if self.length_max <= LENGTH_USUAL && longest > LENGTH_USUAL {
            LENGTH_USUAL
        } else {
            longest
        };
        let shortest = self.length_min / LENGTH_SPREAD;
        (if shortest < 20 { 20 } else { shortest }, longest, true)
    }

    /// Average layer-3 octets a packet, 0 without packets.
    pub fn length(&self) -> u16 {
        if self.packets == 0 {
            return 0;
        }
        u16::try_from(self.bytes / self.packets).unwrap_or(u16::MAX)
    }
}
