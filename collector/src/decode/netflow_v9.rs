//! NetFlow version 9 (RFC 3954): a header of 20 octets, then sets.
//!
//! ```text
//! header  0 version  2 count  4 uptime ms  8 unix s  12 sequence  16 source id
//! ```

use weir_model::FlowProtocol;

use super::flow::Export;
use super::set::sets;
use super::{Context, Visit};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::exporter::DomainKey;
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
    let domain = DomainKey { version: 9, domain: word(16), session: 0 };
    let export = Export { domain, uptime: Some(word(4)), unix_ms };
    cx.exporter.clock.exported(unix_ms, cx.now);
    cx.exporter.sequence(9, u64::from(domain.domain), word(12), 1);
    sets(cx, &export, Dialect::V9, payload, HEADER..payload.len()).1
}
