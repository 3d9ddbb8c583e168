//! From the fields of a NetFlow v9 or IPFIX record to flows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{FlowRecord, Forwarding, Fragment, Millis};

use super::packet::{self, LinkType};
use super::{Context, Visit, average_length, split_icmp};
use crate::bounds::Claim;
use crate::connections::{TEARDOWN, Told, UPDATE};
use crate::domain::DomainKey;
use crate::exporter::ETHERNET_HEADER;
use crate::fields::{BIFLOW, Fields, PAYLOAD, Raw, SECTION, Slot, TIMES, ntp_ms};
use crate::time::{Cut, FlowTime, uptime_age};

/// The message a record came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Export {
    pub(super) domain: DomainKey,
    /// Milliseconds since the exporter's start; version 9 only.
    pub(super) uptime: Option<u32>,
    /// Export time on the exporter's clock, milliseconds since the epoch.
    pub(super) unix_ms: u64,
}

/// Largest usual packet, for records that count octets and not packets: the packets are then at
/// least the octets by this.
const FULL_PACKET: u64 = 1500;

/// Hands on the one or two flows of a record. Records that count nothing (a firewall's "session
/// created", a NAT event) are no traffic.
#[inline]
pub(super) fn flows<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    raw: &Raw,
    record: &[u8],
    sampling: u32,
) {
    if raw.slots() & (SECTION | BIFLOW | Slot::Event.bit()) != 0 {
        rare_flows(cx, export, raw, record, sampling);
    } else {
        plain_flow(cx, export, raw, sampling);
    }
}

/// Hands on the flow of a record with neither.
#[inline]
pub(super) fn plain_flow<V: Visit, F: Fields>(
    cx: &mut Context<'_, V>,
    export: &Export,
    raw: &F,
    sampling: u32,
) {
    let (packets, bytes) = counts(raw, cx.exporter.overhead);
    let (Some((src, dst)), 1..) = (addresses(raw), packets) else {
        cx.not_traffic();
        return;
    };
    let (input_if, output_if) = (raw.u32(Slot::InputIf), raw.u32(Slot::OutputIf));
    if raw.has(Slot::Direction) && repeated(cx, input_if, raw.u64(Slot::Direction)) {
        cx.duplicate();
        return;
    }
    let (start, end) = times(cx, export, raw);
    let told = (packets, bytes);
    let claim = |cut: Cut| claim(raw, told, sampling, end.since(start).max(cut.lasted_ms));
    if !cx.possible(told, sampling, input_if, claim) || !cx.admit(input_if, output_if, start, end) {
        return;
    }
    let (packets, bytes) = (cx.cut.count(packets), cx.cut.count(bytes));
    let carried = bytes.saturating_mul(u64::from(sampling));
    cx.carried(input_if, output_if, carried, || forwarding(raw));
    let exporter = cx.exporter.id;
    cx.visit.make(|| {
        let mut flow = FlowRecord {
            packets,
            bytes,
            sampling,
            start,
            end,
            input_if,
            output_if,
            exporter,
            ..described(raw, src, dst, average_length(packets, bytes))
        };
        if matches!(flow.protocol, 1 | 58) {
            icmp(&mut flow, raw);
        }
        flow
    });
}

/// Records with a part of a packet in them, or with counters of both directions.
fn rare_flows<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    raw: &Raw,
    record: &[u8],
    sampling: u32,
) {
    if raw.has(Slot::Event) && raw.slots() & PAYLOAD != 0 {
        return connection(cx, raw, sampling);
    }
    // A record with addresses and counters needs no packet's: that is of the first one.
    let (packets, bytes) = counts(raw, cx.exporter.overhead);
    let told = (packets > 0 && bytes > 0) || raw.slots() & BIFLOW != 0;
    let fields = || from_fields(raw, cx.exporter.overhead);
    let whole = if told { fields() } else { None };
    let Some(mut flow) = whole.or_else(|| from_section(cx, raw, record)).or_else(fields) else {
        cx.not_traffic();
        return;
    };
    if raw.has(Slot::Direction) && repeated(cx, flow.input_if, raw.u64(Slot::Direction)) {
        cx.duplicate();
        return;
    }
    (flow.start, flow.end) = times(cx, export, raw);
    flow.sampling = sampling;
    flow.exporter = cx.exporter.id;
    let answered = raw.u64(Slot::ReverseBytes) > 0 || raw.u64(Slot::ReversePackets) > 0;
    let reverse = answered.then(|| reversed(&flow, raw));
    for mut flow in [(flow.packets > 0).then_some(flow), reverse].into_iter().flatten() {
        let counts = (flow.packets, flow.bytes);
        let lasted = flow.end.since(flow.start);
        let claim = |cut: Cut| claim(raw, counts, sampling, lasted.max(cut.lasted_ms));
        (flow.packets, flow.bytes) = (cx.cut.count(flow.packets), cx.cut.count(flow.bytes));
        if cx.possible(counts, sampling, flow.input_if, claim) {
            cx.record(&flow);
        }
    }
    if flow.packets == 0 && !answered {
        cx.not_traffic();
    }
}

/// A record's volume, to be judged whether it can be.
#[inline]
fn claim(
    raw: &impl Fields,
    (packets, bytes): (u64, u64),
    sampling: u32,
    duration_ms: u64,
) -> Claim {
    let timed = raw.slots() & TIMES != 0;
    let whole_packets = raw.slots() & PAYLOAD == 0;
    Claim { packets, bytes, sampling, duration_ms: timed.then_some(duration_ms), whole_packets }
}

/// What a firewall says of a connection (Cisco, "ASA NetFlow Implementation Guide"): updates tell what
/// passed since the last one, the teardown what passed in all. Of a teardown counts what updates have not
/// told. Events without volume (created, denied) are no traffic.
fn connection<V: Visit>(cx: &mut Context<'_, V>, raw: &Raw, sampling: u32) {
    let Some(mut flow) = from_fields(raw, 0) else { return cx.not_traffic() };
    let event = [Slot::EventMillis, Slot::EndMillis].map(|slot| raw.u64(slot));
    let end = event.into_iter().find(|at| *at > 0).unwrap_or(0);
    let volume = [raw.u64(Slot::Bytes), raw.u64(Slot::ReverseBytes)];
    let packets = [raw.u64(Slot::Packets), raw.u64(Slot::ReversePackets)];
    let key = (cx.exporter.domains.at(cx.domain).serial, raw.u32(Slot::Connection));
    let begun = raw.u64(Slot::StartMillis);
    let told = Told { volume, packets, end };
    let (told, since) = match raw.u8(Slot::Event) {
        UPDATE => cx.exporter.connections.update(key, told),
        TEARDOWN => cx.exporter.connections.teardown(key, told),
        _ => (told, 0),
    };
    let start = if since > 0 { since } else { begun };
    let start = if start > 0 { start.min(end) } else { end };
    (flow.start, flow.end) = match end {
        0 => cx.event(FlowTime::Age { end: 0, duration: 0 }),
        end => cx.event(FlowTime::Absolute { start, end }),
    };
    (flow.sampling, flow.exporter) = (sampling, cx.exporter.id);
    let back = FlowRecord {
        src: flow.dst,
        dst: flow.src,
        src_port: flow.dst_port,
        dst_port: flow.src_port,
        input_if: flow.output_if,
        output_if: flow.input_if,
        tcp_flags: 0,
        tcp_flags_said: false,
        ..flow
    };
    let mut any = false;
    for (mut flow, side) in [(flow, 0), (back, 1)] {
        (flow.packets, flow.bytes) = (told.packets[side], told.volume[side]);
        if flow.packets == 0 {
            flow.packets = flow.bytes.div_ceil(FULL_PACKET);
        }
        if flow.packets == 0 {
            continue;
        }
        any = true;
        let length = average_length(flow.packets, flow.bytes);
        (flow.length_min, flow.length_max) = (length, length);
        let (packets, bytes) = (flow.packets, flow.bytes);
        let lasted = flow.end.since(flow.start);
        let claim = |cut: Cut| {
            let duration_ms = Some(lasted.max(cut.lasted_ms));
            Claim { packets, bytes, sampling, duration_ms, whole_packets: false }
        };
        (flow.packets, flow.bytes) = (cx.cut.count(flow.packets), cx.cut.count(flow.bytes));
        if cx.possible((packets, bytes), sampling, flow.input_if, claim) {
            cx.record(&flow);
        }
    }
    if !any {
        cx.not_traffic();
    }
}

/// Whether a record tells of packets that were sampled before. flowDirection (61): 0 is ingress, 1
/// egress.
#[inline]
fn repeated<V: Visit>(cx: &mut Context<'_, V>, input_if: u32, direction: u64) -> bool {
    if direction == 1 {
        let domain = cx.exporter.domains.at(cx.domain).serial;
        return cx.exporter.roles.seen_at_ingress(domain, input_if, cx.now);
    }
    let domain = cx.exporter.domains.at(cx.domain).serial;
    cx.exporter.roles.ingress(domain, input_if, cx.now);
    false
}

/// Everything but time, rate and exporter.
fn from_fields(raw: &Raw, overhead: u64) -> Option<FlowRecord> {
    let (src, dst) = addresses(raw)?;
    let (packets, bytes) = counts(raw, overhead);
    let mut flow = FlowRecord {
        packets,
        bytes,
        input_if: raw.u32(Slot::InputIf),
        output_if: raw.u32(Slot::OutputIf),
        ..described(raw, src, dst, average_length(packets, bytes))
    };
    if matches!(flow.protocol, 1 | 58) {
        icmp(&mut flow, raw);
    }
    Some(flow)
}

/// What a record says of its packets' headers. A call would write the record once to copy it after.
#[inline(always)]
fn described(raw: &impl Fields, src: IpAddr, dst: IpAddr, average: u16) -> FlowRecord {
    let or_average = |slot| if raw.has(slot) { raw.u16(slot) } else { average };
    let protocol = raw.u8(Slot::Protocol);
    FlowRecord {
        src,
        dst,
        src_port: raw.u16(Slot::SrcPort),
        dst_port: raw.u16(Slot::DstPort),
        protocol,
        tcp_flags: if protocol == 6 { raw.u8(Slot::TcpFlags) } else { 0 },
        tcp_flags_said: protocol == 6 && raw.has(Slot::TcpFlags),
        ttl: raw.u8(Slot::Ttl),
        fragment: fragment(raw),
        forwarding: forwarding(raw),
        length_min: or_average(Slot::LengthMin),
        length_max: or_average(Slot::LengthMax),
        ..FlowRecord::EMPTY
    }
}

/// Type and code from their own fields, else from the destination port.
fn icmp(flow: &mut FlowRecord, raw: &impl Fields) {
    if raw.has(Slot::IcmpTypeCode) {
        flow.dst_port = raw.u16(Slot::IcmpTypeCode);
    } else if raw.has(Slot::IcmpType) {
        flow.dst_port = u16::from_be_bytes([raw.u8(Slot::IcmpType), raw.u8(Slot::IcmpCode)]);
    }
    split_icmp(flow);
}

/// Some routers have both families in one template and fill in one: the other is zero.
#[inline]
pub(super) fn addresses(raw: &impl Fields) -> Option<(IpAddr, IpAddr)> {
    let (src, dst) = (raw.u32(Slot::Src4), raw.u32(Slot::Dst4));
    if src != 0 || dst != 0 {
        return Some((IpAddr::V4(Ipv4Addr::from_bits(src)), IpAddr::V4(Ipv4Addr::from_bits(dst))));
    }
    let src = raw.u128(Slot::Src6High, Slot::Src6Low);
    let dst = raw.u128(Slot::Dst6High, Slot::Dst6Low);
    let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
    (src != 0 || dst != 0).then(|| (address(src), address(dst)))
}

/// Counters at the egress beside others.
const OUT: u64 = Slot::OutBytes.bit() | Slot::OutPackets.bit();

#[inline]
fn counts(raw: &impl Fields, overhead: u64) -> (u64, u64) {
    // One of the two is 0: a template's octets are settled to one field.
    let mut bytes = raw.u64(Slot::Bytes) | raw.u64(Slot::Layer2Bytes);
    let mut packets = raw.u64(Slot::Packets);
    if raw.slots() & OUT != 0 && bytes == 0 && packets == 0 {
        // Counted at the egress, in a template for both.
        (packets, bytes) = (raw.u64(Slot::OutPackets), raw.u64(Slot::OutBytes));
    }
    if packets == 0 && !raw.has(Slot::Packets) {
        packets = bytes.div_ceil(FULL_PACKET);
    }
    // Octets without a packet are a rounding of the exporter's: there was at least one.
    let packets = if packets == 0 && bytes > 0 { 1 } else { packets };
    let overhead = if raw.has(Slot::Layer2Bytes) { ETHERNET_HEADER } else { overhead };
    (packets, bytes.saturating_sub(packets.saturating_mul(overhead)))
}

#[inline]
fn fragment(raw: &impl Fields) -> Fragment {
    const SAYS: u64 = Slot::FragmentOffset.bit() | Slot::FragmentFlags.bit();
    if raw.slots() & SAYS == 0 {
        return Fragment::None;
    }
    // Some exporters send the header's word, flags and all.
    let word = raw.u16(Slot::FragmentOffset);
    let more = word & 0x2000 != 0 || raw.u8(Slot::FragmentFlags) & 0x20 != 0;
    match (word & 0x1fff, more) {
        (1.., _) => Fragment::Later,
        (0, true) => Fragment::First,
        (0, false) => Fragment::None,
    }
}

/// forwardingStatus: two bits of status, six of reason (RFC 7270 §4.12). Juniper's inline monitoring
/// says it by commonPropertiesId instead (Junos, "Resiliency Exception Reporting"): six bits of kind,
/// 2 being the exception code, and ten of value, 0 being none.
#[inline]
fn forwarding(raw: &impl Fields) -> Forwarding {
    const SAYS: u64 = Slot::Forwarding.bit() | Slot::JuniperProperties.bit();
    if raw.slots() & SAYS == 0 {
        return Forwarding::Unknown;
    }
    if raw.has(Slot::JuniperProperties) {
        let value = raw.u16(Slot::JuniperProperties);
        return match (value >> 10, value & 0x3ff) {
            (2, 0) => Forwarding::Forwarded,
            (2, _) => Forwarding::Dropped,
            _ => Forwarding::Unknown,
        };
    }
    match raw.u8(Slot::Forwarding) >> 6 {
        1 | 3 => Forwarding::Forwarded,
        2 => Forwarding::Dropped,
        _ => Forwarding::Unknown,
    }
}

/// A record that carries the beginning of a packet: dataLinkFrameSection, ipHeaderPacketSection.
fn from_section<V: Visit>(cx: &Context<'_, V>, raw: &Raw, record: &[u8]) -> Option<FlowRecord> {
    let frame = raw.section(Slot::FrameSection, record).map(|frame| (LinkType::Ethernet, frame));
    let ip = || raw.section(Slot::IpSection, record).map(|packet| (LinkType::Ip, packet));
    let (link, section) = frame.or_else(ip)?;
    let wire = if raw.has(Slot::FrameSize) { raw.u32(Slot::FrameSize) } else { u32::MAX };
    let mut flow = FlowRecord::EMPTY;
    packet::parse(link, section, wire, cx.view, &mut flow)?;
    let (packets, bytes) = counts(raw, cx.exporter.overhead);
    flow.packets = packets.max(1);
    flow.bytes = if bytes > 0 { bytes } else { flow.bytes.saturating_mul(flow.packets) };
    flow.forwarding = forwarding(raw);
    flow.input_if = raw.u32(Slot::InputIf);
    flow.output_if = raw.u32(Slot::OutputIf);
    Some(flow)
}

/// The opposite direction of a biflow.
fn reversed(flow: &FlowRecord, raw: &Raw) -> FlowRecord {
    let bytes = raw.u64(Slot::ReverseBytes);
    let packets = match raw.u64(Slot::ReversePackets) {
        0 => bytes.div_ceil(FULL_PACKET),
        packets => packets,
    };
    let length = average_length(packets, bytes);
    FlowRecord {
        src: flow.dst,
        dst: flow.src,
        src_port: flow.dst_port,
        dst_port: flow.src_port,
        tcp_flags: if flow.protocol == 6 { raw.u8(Slot::ReverseTcpFlags) } else { 0 },
        tcp_flags_said: flow.protocol == 6 && raw.has(Slot::ReverseTcpFlags),
        length_min: length,
        length_max: length,
        packets,
        bytes,
        input_if: flow.output_if,
        output_if: flow.input_if,
        ..*flow
    }
}

/// First and last packet, by the most exact of the ways in which a record says its time.
#[inline]
fn times<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    raw: &impl Fields,
) -> (Millis, Millis) {
    if raw.has(Slot::EndUptime) {
        let last = raw.u32(Slot::EndUptime);
        let first = if raw.has(Slot::StartUptime) { raw.u32(Slot::StartUptime) } else { last };
        if let Some(uptime) = export.uptime {
            return cx.event_by_uptime(uptime, first, last);
        }
        let duration = uptime_age(last, first);
        if let (start @ 1.., end @ 1..) = (raw.u64(Slot::StartMillis), raw.u64(Slot::EndMillis))
            && raw.u64(Slot::Init) == 0
            && cx.exporter.domains.at(cx.domain).init_ms == 0
        {
            // Nothing says when the uptime began.
            return cx.event(FlowTime::Absolute { start, end });
        }
        let init_ms = cx.exporter.domains.at(cx.domain).init_ms;
        let time = ipfix_uptime(export, raw, init_ms, last, duration);
        return cx.event(time);
    }
    let (start, end) = (raw.u64(Slot::StartMillis), raw.u64(Slot::EndMillis));
    if start > 0 && end > 0 {
        return cx.event(FlowTime::Absolute { start, end });
    }
    let time = rare_time(export, raw);
    cx.event(time)
}

/// IPFIX headers have no uptime: systemInitTimeMilliseconds, of the record or of an option, must
/// say when it began. Without it only the duration is known.
fn ipfix_uptime(
    export: &Export,
    raw: &impl Fields,
    init_ms: u64,
    last: u32,
    duration: u64,
) -> FlowTime {
    let own = raw.u64(Slot::Init);
    let init = if own > 0 { own } else { init_ms };
    if init == 0 {
        return FlowTime::Age { end: 0, duration };
    }
    // The uptime wraps: the last wrap before the export is meant.
    let uptime = export.unix_ms.saturating_sub(init) & u64::from(u32::MAX);
    let age = uptime_age(u32::try_from(uptime).unwrap_or(0), last);
    let end = export.unix_ms.saturating_sub(age);
    FlowTime::Absolute { start: end.saturating_sub(duration), end }
}

fn rare_time(export: &Export, raw: &impl Fields) -> FlowTime {
    let first = |millis, ntp, seconds| match (raw.u64(millis), raw.u64(ntp), raw.u64(seconds)) {
        (0, 0, seconds) => seconds.saturating_mul(1000),
        (0, ntp, _) => ntp_ms(ntp),
        (millis, ..) => millis,
    };
    let start = first(Slot::StartMillis, Slot::StartNtp, Slot::StartSeconds);
    let end = first(Slot::EndMillis, Slot::EndNtp, Slot::EndSeconds);
    let duration = match raw.u64(Slot::DurationMillis) {
        0 => raw.u64(Slot::DurationMicros) / 1000,
        ms => ms,
    };
    let event = raw.u64(Slot::EventMillis);
    match (start, end) {
        (0, 0) if event > 0 => {
            return FlowTime::Absolute { start: event.saturating_sub(duration), end: event };
        }
        (0, 0) => {}
        (0, end) => return FlowTime::Absolute { start: end.saturating_sub(duration), end },
        (start, 0) => {
            return FlowTime::Absolute { start, end: start.saturating_add(duration) };
        }
        (start, end) => return FlowTime::Absolute { start, end },
    }
    let (start, end) = (raw.get(Slot::StartDelta), raw.get(Slot::EndDelta));
    if let Some(before) = end.or(start) {
        let end = export.unix_ms.saturating_sub(before / 1000);
        let start = start.map_or(end, |us| export.unix_ms.saturating_sub(us / 1000));
        return FlowTime::Absolute { start: start.min(end), end };
    }
    FlowTime::Age { end: 0, duration }
}
