//! Finds the UDP datagram in a captured frame: as much of the layers below as carries flow exports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A datagram as its receiver would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// What it carries, as far as captured.
    pub payload: &'a [u8],
}

/// Link types this reads (tcpdump.org/linktypes.html).
mod link {
    pub(super) const NULL: u32 = 0;
    pub(super) const ETHERNET: u32 = 1;
    pub(super) const RAW_OLD: u32 = 12;
    pub(super) const RAW_BSD: u32 = 14;
    pub(super) const RAW: u32 = 101;
    pub(super) const LOOP: u32 = 108;
    pub(super) const LINUX_SLL: u32 = 113;
    pub(super) const IPV4: u32 = 228;
    pub(super) const IPV6: u32 = 229;
    pub(super) const LINUX_SLL2: u32 = 276;
}

/// The UDP datagram in `frame`; none for anything else, for fragments and for cut-off headers.
pub fn datagram(link: u32, frame: &[u8]) -> Option<Datagram<'_>> {
    let packet = packet(link, frame)?;
    match packet.first()? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => None,
    }
}

/// Whether `frame` is a fragment of a UDP datagram: exporters that fill more than a packet send these,
/// and a capture's reader does not put them together as a socket does.
pub fn is_fragment(link: u32, frame: &[u8]) -> bool {
    let Some(packet) = packet(link, frame) else { return false };
    match packet.first().map(|octet| octet >> 4) {
        Some(4) => {
            let offset = be16(packet, 6).unwrap_or(0) & 0x3fff;
            packet.get(9) == Some(&17) && offset != 0
        }
        Some(6) => packet.get(6) == Some(&44) && packet.get(40) == Some(&17),
        _ => false,
    }
}

/// The IP packet in `frame`.
fn packet(link: u32, frame: &[u8]) -> Option<&[u8]> {
    match link {
        link::ETHERNET => ethernet(frame),
        link::NULL | link::LOOP => frame.get(4..),
        link::RAW | link::RAW_OLD | link::RAW_BSD | link::IPV4 | link::IPV6 => Some(frame),
        link::LINUX_SLL => frame.get(16..),
        link::LINUX_SLL2 => frame.get(20..),
        _ => None,
    }
}

/// Skips the Ethernet header and up to two VLAN tags.
fn ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    for _ in 0..3 {
        match be16(frame, at)? {
            0x8100 | 0x88a8 | 0x9100 => at += 4,
            0x0800 | 0x86dd => return frame.get(at + 2..),
            _ => return None,
        }
    }
    None
}

fn ipv4(packet: &[u8]) -> Option<Datagram<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = be16(packet, 6)? & 0x3fff;
    if header < 20 || *packet.get(9)? != 17 || fragment != 0 {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    udp(address(12)?, address(16)?, packet.get(header..)?)
}

/// Exporters send no extension headers; a datagram behind one is not taken.
fn ipv6(packet: &[u8]) -> Option<Datagram<'_>> {
    if *packet.get(6)? != 17 {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    udp(address(8)?, address(24)?, packet.get(40..)?)
}

fn udp(from: IpAddr, to: IpAddr, segment: &[u8]) -> Option<Datagram<'_>> {
    let length = usize::from(be16(segment, 4)?).max(8);
    let end = length.min(segment.len());
    Some(Datagram {
        from: SocketAddr::new(from, be16(segment, 0)?),
        to: SocketAddr::new(to, be16(segment, 2)?),
        payload: segment.get(8..end)?,
    })
}

fn be16(octets: &[u8], at: usize) -> Option<u16> {
    let pair = octets.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4_udp() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet.extend([0x08, 0x07, 0x08, 0x08, 0, 11, 0, 0, b'a', b'b', b'c', 0, 0]);
        packet
    }

    #[test]
    fn finds_the_payload_under_vlan_and_padding() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 7, 0x08, 0]);
        frame.extend(ipv4_udp());
        let found = datagram(link::ETHERNET, &frame).unwrap();
        assert_eq!(found.payload, b"abc");
        assert_eq!(found.from, "192.0.2.1:2055".parse().unwrap());
    }

    #[test]
    fn a_cut_or_foreign_frame_is_none() {
        let packet = ipv4_udp();
        for length in 0..28 {
            assert!(datagram(link::RAW, &packet[..length]).is_none(), "{length}");
        }
        let mut tcp = packet.clone();
        tcp[9] = 6;
        assert!(datagram(link::RAW, &tcp).is_none());
        assert!(!is_fragment(link::RAW, &packet));
        let mut fragment = packet;
        fragment[7] = 1;
        assert!(datagram(link::RAW, &fragment).is_none());
        assert!(is_fragment(link::RAW, &fragment));
    }
}
