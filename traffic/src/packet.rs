//! A packet as it crosses the edge of the protected network.

use std::net::IpAddr;

use weir_model::{Direction, Fragment};

/// What produced a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Ordinary traffic.
    Benign,
    /// The attack with this index in the scene's truth.
    Attack(u16),
}

/// One packet, or a short train of packets that differ in nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it passes the router, microseconds since the scene's start.
    pub at_us: u64,
    /// How many equal packets pass at this instant; at least 1. Scenes of millions of packets a
    /// second are drawn in trains much shorter than the sampling interval, which leaves the
    /// statistics of the samples alone.
    pub count: u32,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; 0 where the protocol has none or a fragment hides it.
    pub src_port: u16,
    /// Destination port; 0 where the protocol has none or a fragment hides it.
    pub dst_port: u16,
    /// IP protocol of the transport header.
    pub protocol: u8,
    /// TCP control bits, 0 when not TCP.
    pub tcp_flags: u8,
    /// ICMP type, 0 when not ICMP.
    pub icmp_type: u8,
    /// ICMP code, 0 when not ICMP.
    pub icmp_code: u8,
    /// Layer-3 octets, header included.
    pub length: u16,
    /// Time to live or hop limit on arrival.
    pub ttl: u8,
    /// Where in a fragmented packet it stands.
    pub fragment: Fragment,
    /// Towards or from the protected network.
    pub direction: Direction,
    /// Why it is there; exporters do not look at it.
    pub origin: Origin,
}

impl Packet {
    /// Whether it belongs to an attack.
    pub const fn is_attack(&self) -> bool {
        matches!(self.origin, Origin::Attack(_))
    }

    /// The protected side's address.
    pub const fn local(&self) -> IpAddr {
        match self.direction {
            Direction::Inbound => self.dst,
            Direction::Outbound => self.src,
        }
    }
}
