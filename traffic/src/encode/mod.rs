//! Datagrams as exporters write them: sFlow v5, NetFlow v5 and v9, IPFIX.
//!
//! Writers append to a buffer and keep no state but sequence numbers; the caches and samplers that
//! decide what is written live in [`crate::exporter`].

pub mod frame;
pub mod netflow_v5;
pub mod sflow;
pub mod template;

use std::net::IpAddr;

use weir_model::Fragment;

pub(crate) use crate::rng::low32_of as low32;

/// A flow record's content, before any encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same family.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// TCP control bits, or-ed.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Packets looked at.
    pub packets: u64,
    /// Their layer-3 octets.
    pub bytes: u64,
    /// Shortest packet, layer-3 octets.
    pub length_min: u16,
    /// Longest packet, layer-3 octets.
    pub length_max: u16,
    /// Smallest time to live.
    pub ttl_min: u8,
    /// Largest time to live.
    pub ttl_max: u8,
    /// Fragmentation of its packets.
    pub fragment: Fragment,
    /// First packet, milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// Last packet, milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// Interface of entry.
    pub input_if: u32,
    /// Interface of exit.
    pub output_if: u32,
}

impl Flow {
    /// Cisco's habit of writing an ICMP flow's type and code where others have the destination port.
    pub const fn icmp_as_port(&self) -> u16 {
        self.icmp_type as u16 * 256 + self.icmp_code as u16
    }

    /// The destination port field of NetFlow v5 and v9.
    pub const fn dst_port_field(&self) -> u16 {
        if self.protocol == 1 || self.protocol == 58 { self.icmp_as_port() } else { self.dst_port }
    }
}

/// Appends numbers in network order.
pub(crate) trait Put {
    fn put8(&mut self, value: u8);
    fn put16(&mut self, value: u16);
    fn put32(&mut self, value: u32);
    fn put64(&mut self, value: u64);
    fn put_ip(&mut self, address: IpAddr);
    /// Overwrites two octets written before.
    fn patch16(&mut self, at: usize, value: usize);
}

impl Put for Vec<u8> {
    fn put8(&mut self, value: u8) {
        self.push(value);
    }
    fn put16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_ip(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => self.extend_from_slice(&a.octets()),
        }
    }
    fn patch16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).unwrap_or(u16::MAX);
        self[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

/// A length or count that fits its 32-bit field because datagrams are small.
pub(crate) fn len32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The Internet checksum (RFC 1071) of a sequence of octets, odd ones padded with zero.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
