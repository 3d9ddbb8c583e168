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

use weir_model::{FlowProtocol, FlowRecord, Forwarding, SamplingSource};

use super::packet::{self, Complete, LinkType};
use super::{Context, Visit, split_icmp};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::read::{be32, be128};
use crate::source::{InterfaceCounters, Pool, SourceKey};

/// A position in XDR data.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn u32(&mut self) -> Option<u32> {
        let value = be32(self.data, self.at)?;
        self.at += 4;
        Some(value)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    /// `len` octets, and past the padding that follows them.
    #[inline]
    fn opaque(&mut self, len: u32) -> Option<&'a [u8]> {
        let len = usize::try_from(len).ok()?;
        let end = self.at.checked_add(len)?;
        let body = self.data.get(self.at..end)?;
        self.at = end.checked_next_multiple_of(4)?;
        Some(body)
    }
}

/// A flow sample's header, in whichever form it came.
#[derive(Clone, Copy, Debug)]
struct FlowSample {
    sampling: u32,
    from: SamplingSource,
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
            1 => flow_sample::<V, false>(cx, stream, body),
            3 => flow_sample::<V, true>(cx, stream, body),
            2 | 4 => counter_sample(cx, stream, kind == 4, body),
            5 => drop_sample(cx, body),
            // A vendor's own: passed over by its length.
            _ => Some(()),
        };
        if sample.is_none() {
            cx.fault(DecodeErrorKind::BadSample);
        }
    }
    Ok(())
}

/// A sample's source: class and index, packed into 8 and 24 bits unless expanded.
#[inline]
fn source(c: &mut Cursor<'_>, stream: u64, expanded: bool) -> Option<SourceKey> {
    let word = c.u32()?;
    let (class, index) = if expanded { (word, c.u32()?) } else { (word >> 24, word & 0xff_ffff) };
    Some(SourceKey { stream, class, index })
}

/// An interface of a flow sample: two bits of format and thirty of value, unless expanded. Format
/// 0 is an interface, 1 a reason of discard, 2 a number of interfaces.
#[inline]
fn interface(c: &mut Cursor<'_>, expanded: bool) -> Option<(u32, u32)> {
    let word = c.u32()?;
    Some(if expanded { (word, c.u32()?) } else { (word >> 30, word & 0x3fff_ffff) })
}

#[inline]
fn flow_sample<V: Visit, const EXPANDED: bool>(
    cx: &mut Context<'_, V>,
    stream: u64,
    body: &[u8],
) -> Option<()> {
    let mut c = Cursor { data: body, at: 0 };
    let _sequence = c.u32()?;
    let source = source(&mut c, stream, EXPANDED)?;
    let (rate, pool, _drops) = (c.u32()?, c.u32()?, c.u32()?);
    let (in_format, input) = interface(&mut c, EXPANDED)?;
    let (out_format, output) = interface(&mut c, EXPANDED)?;
    let records = c.u32()?;
    cx.tally.flow_samples = cx.tally.flow_samples.wrapping_add(1);
    cx.data_records(1);
    let (sampling, from) = match cx.exporter.sources.rate(source, Pool { rate, pool }, cx.now) {
        Some((rate, from)) => cx.exporter.sampling.simple(Some(rate), from),
        None => cx.exporter.sampling.simple(None, SamplingSource::Record),
    };
    let sample = FlowSample {
        sampling,
        from,
        input_if: if in_format == 0 { input } else { 0 },
        output_if: if out_format == 0 { output } else { 0 },
        dropped: out_format == 1,
    };
    let mut flow = packet::EMPTY;
    if !best_packet(cx, &mut c, records, &mut flow)? {
        cx.not_ip();
        return Some(());
    }
    if source.class == 0 && source.index == sample.input_if {
        cx.exporter.sources.received(source, flow.bytes, sampling);
        cx.exporter.roles.ingress(sample.input_if, cx.now);
    } else if source.class == 0
        && source.index == sample.output_if
        && cx.exporter.roles.seen_at_ingress(sample.input_if, cx.now)
    {
        // Sampled on its way out by a port whose counterpart samples on the way in.
        cx.duplicate();
        return Some(());
    }
    emit(cx, sample, &mut flow);
    Some(())
}

/// Counters of a port; of the many kinds of records only the generic interface counters matter.
fn counter_sample<V: Visit>(
    cx: &mut Context<'_, V>,
    stream: u64,
    expanded: bool,
    body: &[u8],
) -> Option<()> {
    cx.tally.counter_samples = cx.tally.counter_samples.wrapping_add(1);
    let mut c = Cursor { data: body, at: 0 };
    let _sequence = c.u32()?;
    let source = source(&mut c, stream, expanded)?;
    for _ in 0..c.u32()? {
        let (kind, body) = record(&mut c)?;
        if kind == 1 {
            let mut c = Cursor { data: body, at: 0 };
            let (index, _type, speed_bps) = (c.u32()?, c.u32()?, c.u64()?);
            let (_direction, _status, in_octets) = (c.u32()?, c.u32()?, c.u64()?);
            let counters = InterfaceCounters { index, speed_bps, in_octets };
            cx.exporter.sources.counters(source, counters, cx.now);
        }
    }
    Some(())
}

/// A discarded packet (sFlow drops extension): every one is reported up to a rate limit, so it
/// stands for itself only.
fn drop_sample<V: Visit>(cx: &mut Context<'_, V>, body: &[u8]) -> Option<()> {
    let mut c = Cursor { data: body, at: 0 };
    let (_sequence, _class, _index, _drops) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let (input, output, _reason, records) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    cx.tally.drop_samples = cx.tally.drop_samples.wrapping_add(1);
    let sample = FlowSample {
        sampling: 1,
        from: SamplingSource::Record,
        input_if: input,
        output_if: output,
        dropped: true,
    };
    let mut flow = packet::EMPTY;
    if best_packet(cx, &mut c, records, &mut flow)? {
        emit(cx, sample, &mut flow);
    }
    Some(())
}

/// The packet that a sample's records describe: the raw header, unless it was cut before the
/// transport header (as with stacked tags on some switches) and a parsed record says more. Says
/// whether there was any; `None` when the records are damaged and held none before that.
#[inline]
fn best_packet<V: Visit>(
    cx: &Context<'_, V>,
    c: &mut Cursor<'_>,
    records: u32,
    best: &mut FlowRecord,
) -> Option<bool> {
    let mut found: Option<Complete> = None;
    for _ in 0..records {
        let Some((kind, body)) = record(c) else {
            return found.map(|_| true);
        };
        let more = match (kind, found) {
            (1, None) => raw_header(cx, body, best),
            (3 | 4, None | Some(false)) => sampled_ip(kind, body, best),
            _ => None,
        };
        found = more.or(found);
    }
    Some(found.is_some())
}

#[inline]
fn record<'a>(c: &mut Cursor<'a>) -> Option<(u32, &'a [u8])> {
    let (kind, len) = (c.u32()?, c.u32()?);
    Some((kind, c.opaque(len)?))
}

#[inline]
fn raw_header<V: Visit>(
    cx: &Context<'_, V>,
    body: &[u8],
    out: &mut FlowRecord,
) -> Option<Complete> {
    let mut c = Cursor { data: body, at: 0 };
    let (protocol, frame_length, stripped) = (c.u32()?, c.u32()?, c.u32()?);
    let len = c.u32()?;
    let header = c.opaque(len).unwrap_or_else(|| &body[c.at..]);
    let link = match protocol {
        1 => LinkType::Ethernet,
        7 | 14 => LinkType::Ppp,
        11 | 12 => LinkType::Ip,
        13 => LinkType::Mpls,
        15 => LinkType::Ieee80211,
        _ => return None,
    };
    // Stripped octets (usually the frame check sequence) are in frame_length but come last.
    packet::parse(link, header, frame_length.saturating_sub(stripped), cx.tunnel, out)
}

/// sampled_ipv4 and sampled_ipv6: what an agent that parses headers itself says of them.
fn sampled_ip(kind: u32, body: &[u8], out: &mut FlowRecord) -> Option<Complete> {
    let (src, dst, ports) = if kind == 3 {
        let address = |at| Some(IpAddr::V4(Ipv4Addr::from_bits(be32(body, at)?)));
        (address(8)?, address(12)?, 16)
    } else {
        let address = |at| Some(IpAddr::V6(Ipv6Addr::from_bits(be128(body, at)?)));
        (address(8)?, address(24)?, 40)
    };
    let low16 = |at| be32(body, at).map(|n| u16::try_from(n & 0xffff).unwrap_or(0));
    let low8 = |at| be32(body, at).map(|n| u8::try_from(n & 0xff).unwrap_or(0));
    let (length, protocol) = (low16(0)?, low8(4)?);
    let (src_port, dst_port, flags) = (low16(ports)?, low16(ports + 4)?, low8(ports + 8)?);
    *out = FlowRecord {
        src,
        dst,
        src_port,
        dst_port,
        protocol,
        tcp_flags: if protocol == 6 { flags } else { 0 },
        length_min: length,
        length_max: length,
        bytes: u64::from(length),
        ..packet::EMPTY
    };
    split_icmp(out);
    Some(true)
}

#[inline]
fn emit<V: Visit>(cx: &mut Context<'_, V>, sample: FlowSample, flow: &mut FlowRecord) {
    cx.applied(sample.sampling, sample.from);
    flow.sampling = sample.sampling;
    flow.input_if = sample.input_if;
    flow.output_if = sample.output_if;
    flow.forwarding = if sample.dropped { Forwarding::Dropped } else { Forwarding::Forwarded };
    (flow.start, flow.end) = (cx.now, cx.now);
    flow.exporter = cx.exporter.id;
    cx.record(flow);
}
