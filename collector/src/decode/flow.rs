//! From the fields of a NetFlow v9 or IPFIX record to flows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{FlowRecord, Forwarding, Fragment};

use super::packet::{self, LinkType};
use super::{Context, Visit, average_length, sflow, split_icmp};
use crate::exporter::DomainKey;
use crate::fields::{Raw, RawTime};
use crate::template::Traits;
use crate::time::{FlowTime, uptime_age};

/// The message a record came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Export {
    pub(super) domain: DomainKey,
    /// Milliseconds since the exporter's start; version 9 only.
    pub(super) uptime: Option<u32>,
    /// Export time on the exporter's clock, milliseconds since the epoch.
    pub(super) unix_ms: u64,
}

/// Octets of an Ethernet header, to bring layer-2 counts down to layer 3.
const ETHERNET_HEADER: u64 = 14;
/// Largest usual packet, for records that count octets and not packets: the packets are then at
/// least the octets by this.
const FULL_PACKET: u64 = 1500;

/// Hands on the one or two flows of a record. Records that count nothing (a firewall's "session
/// created", a NAT event) are no traffic.
#[inline]
pub(super) fn flows<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    traits: Traits,
    raw: &Raw<'_>,
    sampling: u32,
) {
    let Some(mut record) = base(cx, raw, traits) else {
        cx.tally.not_traffic = cx.tally.not_traffic.wrapping_add(1);
        return;
    };
    (record.start, record.end) = cx.event(time(export, &raw.time, cx.exporter.init_ms));
    record.sampling = sampling;
    record.exporter = cx.exporter.id;
    let mut any = false;
    if record.packets > 0 {
        cx.record(&record);
        any = true;
    }
    if traits.biflow && (raw.reverse_bytes > 0 || raw.reverse_packets > 0) {
        cx.record(&reversed(&record, raw));
        any = true;
    }
    if !any {
        cx.tally.not_traffic = cx.tally.not_traffic.wrapping_add(1);
    }
}

/// Everything but time, rate and exporter.
#[inline]
fn base<V: Visit>(cx: &Context<'_, V>, raw: &Raw<'_>, traits: Traits) -> Option<FlowRecord> {
    if traits.section
        && let Some(record) = from_section(cx, raw)
    {
        return Some(record);
    }
    let (src, dst) = addresses(raw)?;
    let (packets, bytes) = counts(raw, traits);
    let average = average_length(packets, bytes);
    let mut record = FlowRecord {
        src,
        dst,
        src_port: raw.src_port,
        dst_port: raw.dst_port,
        protocol: raw.protocol,
        tcp_flags: if raw.protocol == 6 { raw.tcp_flags } else { 0 },
        icmp_type: 0,
        icmp_code: 0,
        ttl: raw.ttl,
        fragment: fragment(raw),
        forwarding: forwarding(raw.forwarding),
        length_min: if raw.length_min > 0 { raw.length_min } else { average },
        length_max: if raw.length_max > 0 { raw.length_max } else { average },
        packets,
        bytes,
        sampling: 1,
        start: cx.now,
        end: cx.now,
        input_if: raw.input_if,
        output_if: raw.output_if,
        exporter: cx.exporter.id,
    };
    if let Some([kind, code]) = raw.icmp.filter(|_| matches!(raw.protocol, 1 | 58)) {
        (record.icmp_type, record.icmp_code) = (kind, code);
        (record.src_port, record.dst_port) = (0, 0);
    } else {
        split_icmp(&mut record);
    }
    Some(record)
}

/// Some routers have both families in one template and fill in one: the other is zero.
#[inline]
fn addresses(raw: &Raw<'_>) -> Option<(IpAddr, IpAddr)> {
    if raw.src4 != 0 || raw.dst4 != 0 {
        let address = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
        Some((address(raw.src4), address(raw.dst4)))
    } else if raw.src6 != 0 || raw.dst6 != 0 {
        let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        Some((address(raw.src6), address(raw.dst6)))
    } else {
        None
    }
}

#[inline]
fn counts(raw: &Raw<'_>, traits: Traits) -> (u64, u64) {
    let packets = if traits.packets { raw.packets } else { raw.bytes.div_ceil(FULL_PACKET) };
    // Octets without a packet are a rounding of the exporter's: there was at least one.
    let packets = if packets == 0 && raw.bytes > 0 { 1 } else { packets };
    let bytes = if traits.layer2 {
        raw.bytes.saturating_sub(packets.saturating_mul(ETHERNET_HEADER))
    } else {
        raw.bytes
    };
    (packets, bytes)
}

const fn fragment(raw: &Raw<'_>) -> Fragment {
    match (raw.fragment_offset, raw.more_fragments) {
        (1.., _) => Fragment::Later,
        (0, true) => Fragment::First,
        (0, false) => Fragment::None,
    }
}

/// forwardingStatus: two bits of status, six of reason (RFC 7270 §4.12).
const fn forwarding(status: u8) -> Forwarding {
    match status >> 6 {
        1 | 3 => Forwarding::Forwarded,
        2 => Forwarding::Dropped,
        _ => Forwarding::Unknown,
    }
}

/// A record that carries the beginning of a packet: dataLinkFrameSection, ipHeaderPacketSection.
fn from_section<V: Visit>(cx: &Context<'_, V>, raw: &Raw<'_>) -> Option<FlowRecord> {
    let (link, section) = match (raw.frame, raw.ip) {
        (Some(frame), _) => (LinkType::Ethernet, frame),
        (None, Some(ip)) => (LinkType::Ip, ip),
        (None, None) => return None,
    };
    let wire = if raw.frame_size > 0 { raw.frame_size } else { u32::MAX };
    let packet = packet::parse(link, section, wire, cx.tunnel)?;
    let packets = raw.packets.max(1);
    let length = u64::from(packet.length);
    Some(FlowRecord {
        packets,
        bytes: packets.saturating_mul(length),
        forwarding: forwarding(raw.forwarding),
        input_if: raw.input_if,
        output_if: raw.output_if,
        ..sflow::from_packet(&packet)
    })
}

/// The opposite direction of a biflow.
fn reversed(record: &FlowRecord, raw: &Raw<'_>) -> FlowRecord {
    let packets = if raw.reverse_packets > 0 {
        raw.reverse_packets
    } else {
        raw.reverse_bytes.div_ceil(FULL_PACKET)
    };
    let length = average_length(packets, raw.reverse_bytes);
    FlowRecord {
        src: record.dst,
        dst: record.src,
        src_port: record.dst_port,
        dst_port: record.src_port,
        tcp_flags: if record.protocol == 6 { raw.reverse_tcp_flags } else { 0 },
        length_min: length,
        length_max: length,
        packets,
        bytes: raw.reverse_bytes,
        input_if: record.output_if,
        output_if: record.input_if,
        ..*record
    }
}

/// The most exact of the ways in which a record says its time.
#[inline]
fn time(export: &Export, raw: &RawTime, init_ms: u64) -> FlowTime {
    if let Some(last) = raw.end_uptime {
        let first = raw.start_uptime.unwrap_or(last);
        let duration = uptime_age(last, first);
        if let Some(uptime) = export.uptime {
            return FlowTime::Age { end: uptime_age(uptime, last), duration };
        }
        let init = if raw.init > 0 { raw.init } else { init_ms };
        if init > 0 {
            // The uptime wraps: the last wrap before the export is meant.
            let uptime = u32::try_from(export.unix_ms.saturating_sub(init) & 0xffff_ffff);
            let age = uptime_age(uptime.unwrap_or(0), last);
            let end = export.unix_ms.saturating_sub(age);
            return FlowTime::Absolute { start: end.saturating_sub(duration), end };
        }
        return FlowTime::Age { end: 0, duration };
    }
    if raw.end > 0 || raw.start > 0 {
        let end = if raw.end > 0 { raw.end } else { raw.start.saturating_add(raw.duration) };
        let start = if raw.start > 0 { raw.start } else { end.saturating_sub(raw.duration) };
        return FlowTime::Absolute { start, end };
    }
    if let Some(end) = raw.end_delta.or(raw.start_delta) {
        let start = raw.start_delta.unwrap_or(end);
        let duration = start.saturating_sub(end) / 1000;
        let end = export.unix_ms.saturating_sub(end / 1000);
        return FlowTime::Absolute { start: end.saturating_sub(duration), end };
    }
    if raw.duration > 0 {
        return FlowTime::Age { end: 0, duration: raw.duration };
    }
    FlowTime::Arrival
}
