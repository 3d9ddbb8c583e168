//! Cisco NetFlow version 5: fixed records of 48 octets, IPv4 only.

use std::net::IpAddr;

use crate::encode::{Flow, Put, low32};

/// Most records in a datagram.
pub const RECORDS_MAX: usize = 30;

/// What the header says besides the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// When the datagram is sent, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// When the router started, milliseconds since the Unix epoch.
    pub boot_ms: u64,
    /// Records sent before this datagram.
    pub sequence: u32,
    /// Engine number.
    pub engine: u8,
    /// One in how many packets is looked at, 1 to 16383; 1 is written as 0.
    pub sampling: u16,
}

/// One datagram of at most [`RECORDS_MAX`] flows; further ones and IPv6 flows are left out.
pub fn datagram(header: &Header, flows: &[Flow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + 48 * flows.len());
    out.put16(5);
    out.put16(0);
    out.put32(low32(header.now_ms.saturating_sub(header.boot_ms)));
    out.put32(low32(header.now_ms / 1000));
    out.put32(low32(header.now_ms % 1000 * 1_000_000));
    out.put32(header.sequence);
    out.put8(0);
    out.put8(header.engine);
    // The two high bits are the sampling mode: 1, packet interval.
    out.put16(if header.sampling <= 1 { 0 } else { 0x4000 | (header.sampling & 0x3fff) });
    let mut count = 0;
    for flow in flows.iter().take(RECORDS_MAX) {
        let (IpAddr::V4(_), IpAddr::V4(_)) = (flow.src, flow.dst) else { continue };
        record(&mut out, header, flow);
        count += 1;
    }
    out.patch16(2, count);
    out
}

fn record(out: &mut Vec<u8>, header: &Header, flow: &Flow) {
    out.put_ip(flow.src);
    out.put_ip(flow.dst);
    out.put32(0); // next hop
    out.put16(u16::try_from(flow.input_if).unwrap_or(0));
    out.put16(u16::try_from(flow.output_if).unwrap_or(0));
    out.put32(u32::try_from(flow.packets).unwrap_or(u32::MAX));
    out.put32(u32::try_from(flow.bytes).unwrap_or(u32::MAX));
    out.put32(low32(flow.first_ms.saturating_sub(header.boot_ms)));
    out.put32(low32(flow.last_ms.saturating_sub(header.boot_ms)));
    out.put16(flow.src_port);
    out.put16(flow.dst_port_field());
    out.put8(0);
    out.put8(flow.tcp_flags);
    out.put8(flow.protocol);
    out.put8(0); // type of service
    out.put16(0); // source AS
    out.put16(0); // destination AS
    out.put8(0);
    out.put8(0);
    out.put16(0);
}
