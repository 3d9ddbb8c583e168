//! NetFlow version 5: a header of 24 octets and up to 30 records of 48, all fixed.
//!
//! ```text
//! header  0 version  2 count  4 uptime ms  8 unix s  12 unix ns  16 sequence  20 engine  22 sampling
//! record  0 src  4 dst  8 next hop  12 in  14 out  16 packets  20 octets  24 first  28 last
//!         32 sport  34 dport  36 pad  37 flags  38 protocol  39 tos  40 AS  44 masks  46 pad
//! ```

use std::net::{IpAddr, Ipv4Addr};

use weir_model::{FlowProtocol, FlowRecord, Forwarding, Fragment, Millis};

use super::{Context, LAG_EVERY, Visit, average_length, split_icmp};
use crate::bounds::Claim;
use crate::domain::DomainKey;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::read::{be16, be32};
use crate::time::Cut;

const HEADER: usize = 24;
const RECORD: usize = 48;

/// Decodes a whole datagram. A header count that lies costs nothing but the count: records are
/// read as far as the datagram goes.
pub(crate) fn decode<V: Visit>(cx: &mut Context<'_, V>, payload: &[u8]) -> Result<(), DecodeError> {
    let Some(header) = payload.first_chunk::<HEADER>() else {
        return Err(DecodeError::new(DecodeErrorKind::ShortHeader, payload.len()));
    };
    cx.exporter.protocol = Some(FlowProtocol::NetflowV5);
    let claimed = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let uptime = be32(header, 4).unwrap_or(0);
    let sequence = be32(header, 16).unwrap_or(0);
    let engine = u32::from(be16(header, 20).unwrap_or(0));
    let unix_ms = u64::from(be32(header, 8).unwrap_or(0)) * 1000
        + u64::from(be32(header, 12).unwrap_or(0)) / 1_000_000;
    let (sampling, source) = cx.exporter.sampling.v5(be16(header, 22).unwrap_or(0));
    cx.applied(sampling, source);
    cx.speaks(DomainKey::new(5, engine), Some(unix_ms));
    let flows = cx.tally.flows;

    let (records, tail) = payload[HEADER..].as_chunks::<RECORD>();
    let records = &records[..records.len().min(claimed)];
    if cx.exporter.takes_all() {
        for run in records.chunks(LAG_EVERY) {
            let mut start = cx.now;
            let mut admitted = 0;
            for record in run {
                if let Some(began) = flow::<V, true>(record, uptime, sampling, cx) {
                    start = began;
                    admitted += 1;
                }
            }
            cx.admitted(admitted, start);
        }
    } else {
        for record in records {
            flow::<V, false>(record, uptime, sampling, cx);
        }
    }
    let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
    cx.data_records(records.len());
    cx.exporter.sequence(cx.domain, sequence, count);
    cx.was_good(flows);
    if records.len() < claimed {
        let at = HEADER + records.len() * RECORD + tail.len();
        return Err(DecodeError::new(DecodeErrorKind::Truncated, at));
    }
    Ok(())
}

/// Hands one record on and says when it began, if it counts. `ALL`: every record counts, as it is; the caller takes
/// note of runs of records then.
#[inline]
fn flow<V: Visit, const ALL: bool>(
    r: &[u8; RECORD],
    uptime: u32,
    sampling: u32,
    cx: &mut Context<'_, V>,
) -> Option<Millis> {
    let long = |at: usize| u32::from_be_bytes([r[at], r[at + 1], r[at + 2], r[at + 3]]);
    let short = |at: usize| u16::from_be_bytes([r[at], r[at + 1]]);
    let (start, end) = cx.event_by_uptime(uptime, long(24), long(28));
    let (input_if, output_if) = (u32::from(short(12)), u32::from(short(14)));
    let overhead = if ALL { 0 } else { cx.exporter.overhead };
    let packets = u64::from(long(16));
    let bytes = u64::from(long(20)).saturating_sub(packets * overhead);
    let claim = |cut: Cut| {
        let duration_ms = Some(end.since(start).max(cut.lasted_ms));
        Claim { packets, bytes, sampling, duration_ms, whole_packets: true }
    };
    if !cx.possible((packets, bytes), sampling, input_if, claim) {
        return None;
    }
    let (packets, bytes) = (cx.cut.count(packets), cx.cut.count(bytes));
    if ALL {
        cx.lasted(start, end);
    } else if !cx.admit(input_if, output_if, start, end) {
        return None;
    } else {
        let carried = bytes.saturating_mul(u64::from(sampling));
        cx.carried(input_if, output_if, carried, || Forwarding::Unknown);
    }
    let exporter = cx.exporter.id;
    cx.visit.make(|| {
        let length = average_length(packets, bytes);
        let mut record = FlowRecord {
            src: IpAddr::V4(Ipv4Addr::from_bits(long(0))),
            dst: IpAddr::V4(Ipv4Addr::from_bits(long(4))),
            src_port: short(32),
            dst_port: short(34),
            protocol: r[38],
            tcp_flags: if r[38] == 6 { r[37] } else { 0 },
            tcp_flags_said: r[38] == 6,
            icmp_type: 0,
            icmp_code: 0,
            ttl: 0,
            fragment: Fragment::None,
            forwarding: Forwarding::Unknown,
            length_min: length,
            length_max: length,
            packets,
            bytes,
            sampling,
            start,
            end,
            input_if,
            output_if,
            exporter,
            waited: false,
        };
        split_icmp(&mut record);
        record
    });
    Some(start)
}
