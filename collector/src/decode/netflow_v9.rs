//! NetFlow version 9 (RFC 3954): a header of 20 octets, then sets.
//!
//! ```text
//! header  0 version  2 count  4 uptime ms  8 unix s  12 sequence  16 source id
//! ```

use weir_model::FlowProtocol;

use super::flow::Export;
use super::set::sets;
use super::{Context, Visit};
use crate::domain::DomainKey;
use crate::epoch::Mark;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::read::be32;
use crate::template::Dialect;

const HEADER: usize = 20;

/// Decodes a whole datagram. The header's count of records is of no use: exporters count sets,
/// templates, or always one.
pub(crate) fn decode<V: Visit>(cx: &mut Context<'_, V>, payload: &[u8]) -> Result<(), DecodeError> {
    let Some(header) = payload.first_chunk::<HEADER>() else {
        return Err(DecodeError::new(DecodeErrorKind::ShortHeader, payload.len()));
    };
    cx.exporter.protocol = Some(FlowProtocol::NetflowV9);
    let word = |at| be32(header, at).unwrap_or(0);
    let unix_ms = u64::from(word(8)) * 1000;
    let domain = DomainKey::new(9, word(16));
    let export = Export { domain, uptime: Some(word(4)), unix_ms };
    cx.speaks(domain, Some(unix_ms));
    cx.stands(Mark::Uptime(word(4)));
    let flows = cx.tally.flows;
    let (found, result) = sets(cx, &export, Dialect::V9, payload, HEADER..payload.len());
    let records = (!found.unread).then_some(found.records);
    cx.exporter.sequence_v9(cx.domain, word(12), records);
    cx.was_good(flows);
    result
}
