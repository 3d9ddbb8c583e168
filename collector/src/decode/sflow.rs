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

use weir_model::{FlowProtocol, FlowRecord, Forwarding, Millis, SamplingSource};

use super::packet::{self, Complete, LinkType, View};
use super::{Context, Visit, split_icmp};
use crate::domain::{DomainKey, SFLOW};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::exporter::Exporter;
use crate::read::{be32, be128};
use crate::sampling::MAX_RATE;
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

/// What became of a flow sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Damaged,
    NotIp,
    Duplicate,
    Traffic,
}

/// The first words of `data`, and what follows them.
#[inline]
fn words<const N: usize>(data: &[u8]) -> Option<([u32; N], &[u8])> {
    let head = data.as_chunks::<4>().0.first_chunk::<N>()?;
    Some((head.map(u32::from_be_bytes), data.get(N * 4..)?))
}

/// The first `len` octets of `data`, and what follows them and their padding.
#[inline]
fn opaque(data: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let body = data.get(..len)?;
    let after = data.get(len.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((body, after))
}

/// A sample's or record's type and content, and what follows it.
#[inline]
fn record(data: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let ([kind, len], rest) = words(data)?;
    let (body, after) = opaque(rest, len)?;
    Some((kind, body, after))
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
    let _agent = cursor.opaque(agent_len).ok_or_else(|| short(payload.len()))?;
    let mut next = || cursor.u32().ok_or_else(|| short(payload.len()));
    let (sub_agent, sequence, uptime, count) = (next()?, next()?, next()?, next()?);
    // Agents are told apart before this: each is an exporter.
    cx.speaks(DomainKey::new(SFLOW, sub_agent), None);
    let stream = cx.exporter.domains.at(cx.domain).serial;
    cx.exporter.domains.at_mut(cx.domain).life(uptime);
    cx.exporter.sequence(cx.domain, sequence, 1);
    let flows = cx.tally.flows;
    let mut rest = payload.get(cursor.at..).unwrap_or_default();
    for _ in 0..count {
        let Some((kind, body, after)) = record(rest) else {
            let at = payload.len() - rest.len();
            return Err(DecodeError::new(DecodeErrorKind::Truncated, at));
        };
        rest = after;
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
    cx.was_good(flows);
    Ok(())
}

/// A sample's source: class and index, packed into 8 and 24 bits unless expanded.
fn source(c: &mut Cursor<'_>, stream: u32, expanded: bool) -> Option<SourceKey> {
    let word = c.u32()?;
    let (class, index) = if expanded { (word, c.u32()?) } else { (word >> 24, word & 0xff_ffff) };
    Some(SourceKey::new(stream, class, index))
}

#[inline]
fn flow_sample<V: Visit, const EXPANDED: bool>(
    cx: &mut Context<'_, V>,
    stream: u32,
    body: &[u8],
) -> Option<()> {
    // An interface is two bits of format and thirty of value, unless expanded. Format 0 is an
    // interface, 1 a reason of discard, 2 a number of interfaces.
    let interface = |word: u32| (word >> 30, word & 0x3fff_ffff);
    let life = cx.exporter.domains.at(cx.domain).life;
    let ((class, index), pool, input, output, count, rest) = if EXPANDED {
        let (w, rest) = words::<11>(body)?;
        let pool = Pool { rate: w[3], pool: w[4], life };
        ((w[1], w[2]), pool, (w[6], w[7]), (w[8], w[9]), w[10], rest)
    } else {
        let (w, rest) = words::<8>(body)?;
        let pool = Pool { rate: w[2], pool: w[3], life };
        ((w[1] >> 24, w[1] & 0xff_ffff), pool, interface(w[5]), interface(w[6]), w[7], rest)
    };
    let source = SourceKey::new(stream, class, index);
    cx.tally.flow_samples = cx.tally.flow_samples.wrapping_add(1);
    cx.data_records(1);
    let pool = if pool.rate > MAX_RATE { beyond(cx, pool) } else { pool };
    let (sampling, from) = match cx.exporter.sources.rate(source, pool, cx.now) {
        Some((rate, from)) => cx.exporter.sampling.simple(Some(rate), from),
        None => cx.exporter.sampling.simple(None, SamplingSource::Record),
    };
    let sample = FlowSample {
        sampling,
        from,
        input_if: if input.0 == 0 { input.1 } else { 0 },
        output_if: if output.0 == 0 { output.1 } else { 0 },
        dropped: output.0 == 1,
    };
    let mut seen = Seen::Damaged;
    let Context { exporter, visit, view, now, .. } = cx;
    let (exporter, view, now) = (&mut **exporter, *view, *now);
    visit.make_if(|flow| {
        *flow = FlowRecord::EMPTY;
        seen = match best_packet(view, rest, count, flow) {
            None => Seen::Damaged,
            Some(false) => Seen::NotIp,
            Some(true) => sampled(exporter, source, sample, flow, now),
        };
        seen == Seen::Traffic
    });
    match seen {
        Seen::Damaged => return None,
        Seen::NotIp => cx.not_ip(),
        Seen::Duplicate => cx.duplicate(),
        Seen::Traffic => {
            cx.applied(sampling, from);
            cx.counted(now);
        }
    }
    Some(())
}

/// A rate that no agent has: it counts as not said.
#[cold]
fn beyond<V: Visit>(cx: &mut Context<'_, V>, pool: Pool) -> Pool {
    cx.exporter.implausible(cx.now);
    Pool { rate: 0, ..pool }
}

/// What a sample says of its packet, and whether it counts.
#[inline]
fn sampled(
    exporter: &mut Exporter,
    source: SourceKey,
    sample: FlowSample,
    flow: &mut FlowRecord,
    now: Millis,
) -> Seen {
    if source.is_interface(sample.input_if) {
        exporter.sources.received(source, flow.bytes, sample.sampling);
        exporter.roles.ingress(source.stream, sample.input_if, now);
    } else if source.is_interface(sample.output_if)
        && exporter.roles.seen_at_ingress(source.stream, sample.input_if, now)
    {
        // Sampled on its way out by a port whose counterpart samples on the way in.
        return Seen::Duplicate;
    }
    if !exporter.roles.counts(sample.input_if, sample.output_if) {
        return Seen::Duplicate;
    }
    complete(exporter, sample, flow, now);
    if !exporter.links.is_empty() {
        let bytes = flow.bytes.saturating_mul(u64::from(flow.sampling));
        exporter.links.add(sample.input_if, sample.output_if, bytes, sample.dropped);
    }
    Seen::Traffic
}

/// port_name of sFlow's registry of counter records.
const PORT_NAME: u32 = 1005;

/// Counters of a port; of the many kinds of records only the generic interface counters and the port's name
/// matter.
fn counter_sample<V: Visit>(
    cx: &mut Context<'_, V>,
    stream: u32,
    expanded: bool,
    body: &[u8],
) -> Option<()> {
    cx.tally.counter_samples = cx.tally.counter_samples.wrapping_add(1);
    cx.exporter.decoded_at = cx.now;
    let mut c = Cursor { data: body, at: 0 };
    let _sequence = c.u32()?;
    let source = source(&mut c, stream, expanded)?;
    let count = c.u32()?;
    let mut rest = body.get(c.at..)?;
    for _ in 0..count {
        let (kind, body, after) = record(rest)?;
        rest = after;
        if kind == 1 {
            let mut c = Cursor { data: body, at: 0 };
            let (index, _type, speed_bps) = (c.u32()?, c.u32()?, c.u64()?);
            let (_direction, _status, in_octets) = (c.u32()?, c.u32()?, c.u64()?);
            let counters = InterfaceCounters { index, speed_bps, in_octets };
            cx.exporter.sources.counters(source, counters, cx.now);
            cx.exporter.bounds.interface(speed_bps);
        } else if kind == PORT_NAME
            && let Some(index) = source.interface()
        {
            let ([len], rest) = words(body)?;
            let (name, _) = opaque(rest, len)?;
            cx.exporter.names.told(index, name, b"");
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
    let mut flow = FlowRecord::EMPTY;
    if best_packet(cx.view, body.get(c.at..)?, records, &mut flow)? {
        cx.applied(sample.sampling, sample.from);
        complete(cx.exporter, sample, &mut flow, cx.now);
        cx.record(&flow);
    }
    Some(())
}

/// The packet that a sample's records describe: the raw header, unless it was cut before the
/// transport header (as with stacked tags on some switches) and a parsed record says more. Says
/// whether there was any; `None` when the records are damaged and held none before that.
#[inline]
fn best_packet(
    view: View<'_>,
    mut rest: &[u8],
    records: u32,
    best: &mut FlowRecord,
) -> Option<bool> {
    let mut found: Option<Complete> = None;
    for _ in 0..records {
        let Some((kind, body, after)) = record(rest) else {
            return found.map(|_| true);
        };
        rest = after;
        let more = match (kind, found) {
            (1, None) => raw_header(view, body, best),
            (3 | 4, None | Some(false)) => sampled_ip(kind, body, best),
            _ => None,
        };
        found = more.or(found);
    }
    Some(found.is_some())
}

#[inline]
fn raw_header(view: View<'_>, body: &[u8], out: &mut FlowRecord) -> Option<Complete> {
    let ([protocol, frame_length, stripped, len], rest) = words(body)?;
    let header = opaque(rest, len).map_or(rest, |(header, _)| header);
    let link = match protocol {
        1 => LinkType::Ethernet,
        7 | 14 => LinkType::Ppp,
        11 | 12 => LinkType::Ip,
        13 => LinkType::Mpls,
        15 => LinkType::Ieee80211,
        _ => return None,
    };
    // Stripped octets (usually the frame check sequence) are in frame_length but come last.
    packet::parse(link, header, frame_length.saturating_sub(stripped), view, out)
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
        tcp_flags_said: protocol == 6,
        length_min: length,
        length_max: length,
        bytes: u64::from(length),
        ..FlowRecord::EMPTY
    };
    split_icmp(out);
    Some(true)
}

/// Fills in what the headers do not say.
#[inline]
fn complete(exporter: &Exporter, sample: FlowSample, flow: &mut FlowRecord, now: Millis) {
    flow.sampling = sample.sampling;
    flow.input_if = sample.input_if;
    flow.output_if = sample.output_if;
    flow.forwarding = if sample.dropped { Forwarding::Dropped } else { Forwarding::Forwarded };
    (flow.start, flow.end) = (now, now);
    flow.exporter = exporter.id;
}
