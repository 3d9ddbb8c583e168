//! IPFIX (RFC 7011): messages with a header of 16 octets and their length, then sets.
//!
//! ```text
//! header  0 version 10  2 length  4 export time s  8 sequence  12 observation domain
//! ```

use weir_model::FlowProtocol;

use super::flow::Export;
use super::set::sets;
use super::{Context, Visit};
use crate::domain::DomainKey;
use crate::epoch::Mark;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::read::{be16, be32};
use crate::template::Dialect;

const HEADER: usize = 16;

/// Decodes a whole datagram, which some exporters fill with several messages. The first error is
/// told; later messages are read all the same when the length of the damaged one can be believed.
pub(crate) fn decode<V: Visit>(cx: &mut Context<'_, V>, payload: &[u8]) -> Result<(), DecodeError> {
    let mut at = 0;
    let mut first = Ok(());
    while let Some(rest) = payload.get(at..)
        && !rest.is_empty()
    {
        if at > 0 && be16(rest, 0) != Some(10) {
            // What follows is no message: padding, or a length that lies.
            let zeros = rest.iter().all(|octet| *octet == 0);
            let error = DecodeError::new(DecodeErrorKind::Truncated, at);
            return if zeros { first } else { first.and(Err(error)) };
        }
        let (len, result) = message(cx, payload, at);
        first = first.and(result);
        let Some(len) = len else { break };
        at += len;
    }
    first
}

/// Decodes one message; says how long it is, if it says so itself.
fn message<V: Visit>(
    cx: &mut Context<'_, V>,
    payload: &[u8],
    base: usize,
) -> (Option<usize>, Result<(), DecodeError>) {
    let rest = payload.get(base..).unwrap_or_default();
    let Some(header) = rest.first_chunk::<HEADER>() else {
        let at = base + rest.len();
        return (None, Err(DecodeError::new(DecodeErrorKind::ShortHeader, at)));
    };
    cx.exporter.protocol = Some(FlowProtocol::Ipfix);
    let stated = usize::from(be16(header, 2).unwrap_or(0));
    let word = |at| be32(header, at).unwrap_or(0);
    let unix_ms = u64::from(word(4)) * 1000;
    let domain = DomainKey { session: cx.session, ..DomainKey::new(10, word(12)) };
    let export = Export { domain, uptime: None, unix_ms };
    cx.speaks(domain, Some(unix_ms));
    cx.stands(Mark::Sequence(word(8)));
    let flows = cx.tally.flows;
    // A length below the header's, or beyond the datagram, is not believed.
    let believed = (HEADER..=rest.len()).contains(&stated);
    let end = if believed { stated } else { rest.len() };
    let (found, result) = sets(cx, &export, Dialect::Ipfix, payload, base + HEADER..base + end);
    if found.unread {
        cx.exporter.domains.at_mut(cx.domain).sequence_unknown();
    } else {
        cx.exporter.sequence(cx.domain, word(8), found.records);
    }
    cx.was_good(flows);
    let length = DecodeError::new(DecodeErrorKind::Truncated, base + 2);
    (believed.then_some(stated), if believed { result } else { result.and(Err(length)) })
}
