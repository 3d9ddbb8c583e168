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

/// Whether `frame` is a fragment of a UDP datagram: exporters that fill more than a packet send these.
pub fn is_fragment(link: u32, frame: &[u8]) -> bool {
    fragment(link, frame).is_some()
}

/// A piece of a UDP datagram, as IP cut it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    /// What all pieces of one datagram share.
    pub(super) of: (IpAddr, IpAddr, u32),
    /// Where in the datagram it begins, octets.
    pub(super) offset: usize,
    /// Octets that it had on the wire.
    pub(super) length: usize,
    /// Whether others follow.
    pub(super) more: bool,
    /// As much of it as was captured.
    pub(super) data: &'a [u8],
}

/// The piece of a UDP datagram in `frame`; none for whole datagrams and for anything else.
pub(super) fn fragment(link: u32, frame: &[u8]) -> Option<Fragment<'_>> {
    let packet = packet(link, frame)?;
    match packet.first()? >> 4 {
        // RFC 791 §3.1: identification, flags and offset at 4 to 7.
        4 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let bits = be16(packet, 6)?;
            if header < 20 || *packet.get(9)? != 17 || bits & 0x3fff == 0 {
                return None;
            }
            let length = usize::from(be16(packet, 2)?).checked_sub(header)?;
            Some(Fragment {
                of: (v4(packet, 12)?, v4(packet, 16)?, be16(packet, 4)?.into()),
                offset: usize::from(bits & 0x1fff) * 8,
                length,
                more: bits & 0x2000 != 0,
                data: packet.get(header..packet.len().min(header + length))?,
            })
        }
        // RFC 8200 §4.5: a header of 8 octets.
        6 if *packet.get(6)? == 44 && *packet.get(40)? == 17 => {
            let bits = be16(packet, 42)?;
            let length = usize::from(be16(packet, 4)?).checked_sub(8)?;
            let id = u32::from(be16(packet, 44)?) << 16 | u32::from(be16(packet, 46)?);
            Some(Fragment {
                of: (v6(packet, 8)?, v6(packet, 24)?, id),
                offset: usize::from(bits & 0xfff8),
                length,
                more: bits & 1 != 0,
                data: packet.get(48..packet.len().min(48 + length))?,
            })
        }
        _ => None,
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
    udp(v4(packet, 12)?, v4(packet, 16)?, packet.get(header..)?)
}

fn v4(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn v6(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)))
}

/// Exporters send no extension headers; a datagram behind one is not taken.
fn ipv6(packet: &[u8]) -> Option<Datagram<'_>> {
    if *packet.get(6)? != 17 {
        return None;
    }
    udp(v6(packet, 8)?, v6(packet, 24)?, packet.get(40..)?)
}

pub(super) fn udp(from: IpAddr, to: IpAddr, segment: &[u8]) -> Option<Datagram<'_>> {
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
