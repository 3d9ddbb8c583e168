//! A packet's own octets, as an sFlow agent samples them and as a capture holds them.

use std::net::IpAddr;

use weir_model::Fragment;

use crate::encode::{Put, checksum, low32};
use crate::packet::Packet;
use crate::rng::mix;

/// Ethernet header octets, without tags.
pub const ETHERNET: usize = 14;

/// Appends the first `limit` octets of the Ethernet frame of `packet`: addresses made up, headers
/// true, payload zero, transport checksums zero. A frame ends with its packet: no padding.
pub fn ethernet(out: &mut Vec<u8>, packet: &Packet, limit: usize) {
    let start = out.len();
    out.extend_from_slice(&[0x02, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0x02]);
    out.put16(if packet.dst.is_ipv4() { 0x0800 } else { 0x86dd });
    ip(out, packet, usize::MAX);
    let whole = ETHERNET + usize::from(packet.length);
    out.resize(start + whole.min(limit), 0);
}

/// Appends the first `limit` octets of the IP packet itself.
pub fn ip(out: &mut Vec<u8>, packet: &Packet, limit: usize) {
    let start = out.len();
    match (packet.src, packet.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ipv4_header(out, packet),
        _ => ipv6_header(out, packet),
    }
    if packet.fragment != Fragment::Later {
        transport_header(out, packet, start);
    }
    let headers = out.len() - start;
    let length = usize::from(packet.length).max(headers);
    if limit < length {
        out.resize(start + limit, 0);
    } else if limit != usize::MAX {
        out.resize(start + length, 0);
    }
}

/// The identification that ties fragments together; made from what the parts have in common.
const fn identification(packet: &Packet) -> u32 {
    low32(mix((packet.at_us / 1000) ^ ((packet.length as u64) << 40)))
}

fn ipv4_header(out: &mut Vec<u8>, packet: &Packet) {
    let start = out.len();
    out.put8(0x45);
    out.put8(0);
    out.put16(packet.length.max(20));
    out.put16(u16::try_from(identification(packet) & 0xffff).unwrap_or(0));
    out.put16(match packet.fragment {
        Fragment::None => 0x4000,
        Fragment::First => 0x2000,
        Fragment::Later => 185, // 1480 octets on, the last part
    });
    out.put8(packet.ttl);
    out.put8(packet.protocol);
    out.put16(0);
    out.put_ip(packet.src);
    out.put_ip(packet.dst);
    let sum = checksum(&[&out[start..]]);
    out.patch16(start + 10, usize::from(sum));
}

fn ipv6_header(out: &mut Vec<u8>, packet: &Packet) {
    out.put32(0x6000_0000);
    out.put16(packet.length.saturating_sub(40));
    let next = if packet.fragment == Fragment::None { packet.protocol } else { 44 };
    out.put8(next);
    out.put8(packet.ttl);
    out.put_ip(packet.src);
    out.put_ip(packet.dst);
    if packet.fragment != Fragment::None {
        out.put8(packet.protocol);
        out.put8(0);
        // Offset in units of eight octets, the low bit says that more follow (RFC 8200 §4.5).
        out.put16(if packet.fragment == Fragment::First { 1 } else { 181 << 3 });
        out.put32(identification(packet));
    }
}

fn transport_header(out: &mut Vec<u8>, packet: &Packet, start: usize) {
    let left = usize::from(packet.length).saturating_sub(out.len() - start);
    match packet.protocol {
        6 => {
            out.put16(packet.src_port);
            out.put16(packet.dst_port);
            out.put32(low32(mix(packet.at_us)));
            out.put32(0);
            // A SYN longer than 40 octets carries options; the header says so as far as it goes.
            let words = (left / 4).clamp(5, if packet.tcp_flags & 2 == 0 { 5 } else { 10 });
            out.put8(u8::try_from(words << 4).unwrap_or(0x50));
            out.put8(packet.tcp_flags);
            out.put16(64_240);
            out.put32(0);
            // Options: no-operations.
            out.resize(out.len() + (words - 5) * 4, 1);
        }
        17 => {
            out.put16(packet.src_port);
            out.put16(packet.dst_port);
            out.put16(u16::try_from(left.max(8)).unwrap_or(u16::MAX));
            out.put16(0);
        }
        1 | 58 => {
            out.put8(packet.icmp_type);
            out.put8(packet.icmp_code);
            out.put16(0);
            out.put32(0);
        }
        47 => out.put32(0x0000_0800),
        _ => {}
    }
}
