//! sFlow version 5 (sflow.org, sFlow Version 5, July 2004), XDR: everything in units of four octets.
//!
//! ```text
//! datagram  version 5, address type, agent, sub-agent, sequence, uptime ms, samples
//! sample    type (enterprise << 12 | format), length, body
//! flow      sequence, source, rate, pool, drops, input, output, records
//! expanded  sequence, source class, source index, rate, pool, drops,
//!           input format, input, output format, output, records
//! record    type, length, body
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{FlowProtocol, FlowRecord, Forwarding, Fragment, SamplingSource};

use super::packet::{self, LinkType, Packet};
use super::{Context, Visit};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::read::{be32, be128};

/// A position in XDR data.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn u32(&mut self) -> Option<u32> {
        let value = be32(self.data, self.at)?;
        self.at += 4;
        Some(value)
    }

    /// `len` octets, and past the padding that follows them.
    fn opaque(&mut self, len: u32) -> Option<&'a [u8]> {
        let len = usize::try_from(len).ok()?;
        let end = self.at.checked_add(len)?;
        let body = self.data.get(self.at..end)?;
        self.at = end.checked_next_multiple_of(4)?;
        Some(body)
    }
}

/// A flow sample's header, in whichever form it came.
#[derive(Clone, Copy, Debug, Default)]
struct FlowSample {
    rate: u32,
    input_if: u32,
    output_if: u32,
    dropped: bool,
}

/// Decodes a whole datagram.
pub(crate) fn decode<V: Visit>(cx: &mut Context<'_, V>, payload: &[u8]) -> Result<(), DecodeError> {
    cx.exporter.protocol = Some(FlowProtocol::Sflow);
    let mut cursor = Cursor { data: payload, at: 4 };
    let short = |at| DecodeError::new(DecodeErrorKind::ShortHeader, at);
    let agent_len = match cursor.u32() {
        Some(1) => 4,
        Some(2) => 16,
        Some(_) => return Err(DecodeError::new(DecodeErrorKind::BadAddressType, 4)),
        None => return Err(short(payload.len())),
    };
    let agent = cursor.opaque(agent_len).ok_or_else(|| short(payload.len()))?;
    let mut next = || cursor.u32().ok_or_else(|| short(payload.len()));
    let (sub_agent, sequence, _uptime, count) = (next()?, next()?, next()?, next()?);
    // Streams are told apart by agent and sub-agent: several agents may share an address.
    let stream = agent.iter().fold(u64::from(sub_agent), |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    cx.exporter.sequence(5 << 8, stream, sequence, 1);
    for _ in 0..count {
        let start = cursor.at;
        let truncated = DecodeError::new(DecodeErrorKind::Truncated, start);
        let (Some(kind), Some(len)) = (cursor.u32(), cursor.u32()) else {
            return Err(truncated);
        };
        let body = cursor.opaque(len).ok_or(truncated)?;
        let sample = match kind {
            1 => flow_sample(cx, body),
            3 => expanded_flow_sample(cx, body),
            2 | 4 => {
                cx.tally.counter_samples = cx.tally.counter_samples.wrapping_add(1);
                Some(())
            }
            5 => drop_sample(cx, body),
            // A vendor's own: passed over by its length.
            _ => Some(()),
        };
        if sample.is_none() {
            cx.exporter.error(DecodeErrorKind::BadSample);
        }
    }
    Ok(())
}

fn flow_sample<V: Visit>(cx: &mut Context<'_, V>, body: &[u8]) -> Option<()> {
    let mut c = Cursor { data: body, at: 0 };
    let (_sequence, _source) = (c.u32()?, c.u32()?);
    let (rate, _pool, _drops) = (c.u32()?, c.u32()?, c.u32()?);
    let (input, output, records) = (c.u32()?, c.u32()?, c.u32()?);
    // Two bits of format, thirty of value; format 1 of an output is a reason of discard.
    let sample = FlowSample {
        rate,
        input_if: if input >> 30 == 0 { input } else { 0 },
        output_if: if output >> 30 == 0 { output } else { 0 },
        dropped: output >> 30 == 1,
    };
    records_of(cx, sample, c, records)
}

fn expanded_flow_sample<V: Visit>(cx: &mut Context<'_, V>, body: &[u8]) -> Option<()> {
    let mut c = Cursor { data: body, at: 0 };
    let (_sequence, _class, _index) = (c.u32()?, c.u32()?, c.u32()?);
    let (rate, _pool, _drops) = (c.u32()?, c.u32()?, c.u32()?);
    let (in_format, input, out_format, output) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let records = c.u32()?;
    let sample = FlowSample {
        rate,
        input_if: if in_format == 0 { input } else { 0 },
        output_if: if out_format == 0 { output } else { 0 },
        dropped: out_format == 1,
    };
    records_of(cx, sample, c, records)
}

/// A discarded packet (sFlow drops extension): every one is reported up to a rate limit, so it
/// stands for itself only.
fn drop_sample<V: Visit>(cx: &mut Context<'_, V>, body: &[u8]) -> Option<()> {
    let mut c = Cursor { data: body, at: 0 };
    let (_sequence, _class, _index, _drops) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let (input, output, _reason, records) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    cx.tally.drop_samples = cx.tally.drop_samples.wrapping_add(1);
    let sample = FlowSample { rate: 1, input_if: input, output_if: output, dropped: true };
    let packet = best_packet(cx, &mut c, records)?;
    if let Some(packet) = packet {
        emit(cx, sample, &packet);
    }
    Some(())
}

fn records_of<V: Visit>(
    cx: &mut Context<'_, V>,
    sample: FlowSample,
    mut c: Cursor<'_>,
    records: u32,
) -> Option<()> {
    cx.tally.flow_samples = cx.tally.flow_samples.wrapping_add(1);
    cx.data_records(1);
    match best_packet(cx, &mut c, records)? {
        Some(packet) => emit(cx, sample, &packet),
        None => cx.tally.not_ip = cx.tally.not_ip.wrapping_add(1),
    }
    Some(())
}

/// The packet that a sample's records describe: the raw header, unless it was cut before the
/// transport header (as with stacked tags on some switches) and a parsed record says more.
fn best_packet<V: Visit>(
    cx: &Context<'_, V>,
    c: &mut Cursor<'_>,
    records: u32,
) -> Option<Option<Packet>> {
    let mut best: Option<Packet> = None;
    let mut whole = true;
    for _ in 0..records {
        let Some((kind, body)) = record(c) else {
            whole = false;
            break;
        };
        let found = match kind {
            1 => raw_header(cx, body),
            3 => sampled_ipv4(body),
            4 => sampled_ipv6(body),
            _ => None,
        };
        if let Some(found) = found
            && best.is_none_or(|b| !b.complete && found.complete)
        {
            best = Some(found);
        }
    }
    (whole || best.is_some()).then_some(best)
}

fn record<'a>(c: &mut Cursor<'a>) -> Option<(u32, &'a [u8])> {
    let (kind, len) = (c.u32()?, c.u32()?);
    Some((kind, c.opaque(len)?))
}

fn raw_header<V: Visit>(cx: &Context<'_, V>, body: &[u8]) -> Option<Packet> {
    let mut c = Cursor { data: body, at: 0 };
    let (protocol, frame_length, stripped) = (c.u32()?, c.u32()?, c.u32()?);
    let len = c.u32()?;
    let header = c.opaque(len).unwrap_or_else(|| &body[c.at..]);
    let link = match protocol {
        1 => LinkType::Ethernet,
        7 => LinkType::Ppp,
        9 => LinkType::Ieee80211,
        11 | 12 => LinkType::Ip,
        13 => LinkType::Mpls,
        _ => return None,
    };
    // Stripped octets (usually the frame check sequence) are in frame_length but come last.
    packet::parse(link, header, frame_length.saturating_sub(stripped), cx.tunnel)
}

fn sampled_ipv4(body: &[u8]) -> Option<Packet> {
    let address = |at| Some(IpAddr::V4(Ipv4Addr::from_bits(be32(body, at)?)));
    sampled_ip(body, address(8)?, address(12)?, 16)
}

fn sampled_ipv6(body: &[u8]) -> Option<Packet> {
    let address = |at| Some(IpAddr::V6(Ipv6Addr::from_bits(be128(body, at)?)));
    sampled_ip(body, address(8)?, address(24)?, 40)
}

fn sampled_ip(body: &[u8], src: IpAddr, dst: IpAddr, ports: usize) -> Option<Packet> {
    let low16 = |at| be32(body, at).map(|n| u16::try_from(n & 0xffff).unwrap_or(0));
    let protocol = u8::try_from(be32(body, 4)? & 0xff).unwrap_or(0);
    let (src_port, dst_port) = (low16(ports)?, low16(ports + 4)?);
    let tcp_flags = u8::try_from(be32(body, ports + 8)? & 0xff).unwrap_or(0);
    let icmp = matches!(protocol, 1 | 58);
    let [icmp_type, icmp_code] = if icmp { dst_port.to_be_bytes() } else { [0, 0] };
    Some(Packet {
        src,
        dst,
        protocol,
        src_port: if icmp { 0 } else { src_port },
        dst_port: if icmp { 0 } else { dst_port },
        tcp_flags: if protocol == 6 { tcp_flags } else { 0 },
        icmp_type,
        icmp_code,
        ttl: 0,
        fragment: Fragment::None,
        length: low16(0)?,
        complete: true,
    })
}

fn emit<V: Visit>(cx: &mut Context<'_, V>, sample: FlowSample, packet: &Packet) {
    let said = (sample.rate > 0).then_some(sample.rate);
    let (sampling, source) = if sample.dropped && sample.rate == 1 {
        (1, SamplingSource::Record)
    } else {
        cx.exporter.sampling.simple(said, SamplingSource::Record)
    };
    cx.exporter.applied(sampling, source);
    let record = FlowRecord {
        sampling,
        input_if: sample.input_if,
        output_if: sample.output_if,
        forwarding: if sample.dropped { Forwarding::Dropped } else { Forwarding::Forwarded },
        start: cx.now,
        end: cx.now,
        exporter: cx.exporter.id,
        ..from_packet(packet)
    };
    cx.record(&record);
}

/// One packet as a record; times, rate, interfaces and exporter are the caller's to fill in.
pub(crate) fn from_packet(packet: &Packet) -> FlowRecord {
    FlowRecord {
        src: packet.src,
        dst: packet.dst,
        src_port: packet.src_port,
        dst_port: packet.dst_port,
        protocol: packet.protocol,
        tcp_flags: packet.tcp_flags,
        icmp_type: packet.icmp_type,
        icmp_code: packet.icmp_code,
        ttl: packet.ttl,
        fragment: packet.fragment,
        forwarding: Forwarding::Unknown,
        length_min: packet.length,
        length_max: packet.length,
        packets: 1,
        bytes: u64::from(packet.length),
        sampling: 1,
        start: weir_model::Millis(0),
        end: weir_model::Millis(0),
        input_if: 0,
        output_if: 0,
        exporter: weir_model::ExporterId(0),
    }
}
