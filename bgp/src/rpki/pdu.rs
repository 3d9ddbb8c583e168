//! RTR's messages (RFC 8210 §5; version 0 of RFC 6810 is read too).
//!
//! ```text
//! | version (1) | type (1) | session or zero (2) | length (4) | ...
//! 4, 6 prefix:    flags (1) | prefix length (1) | max length (1) | 0 (1) | prefix (4, 16) | AS (4)
//! 7 end of data:  serial (4) | refresh (4) | retry (4) | expire (4)     version 0: serial only
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_model::IpNet;

use super::Vrp;

/// Version spoken; a cache may answer with a lower one.
pub(super) const VERSION: u8 = 1;

const HEADER: usize = 8;

/// Longest message that is taken, octets: error reports and router keys have no bound of their own.
const LENGTH_MAX: usize = 64 * 1024;

/// A message from a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pdu {
    /// The cache has news.
    SerialNotify {
        /// Session.
        session: u16,
        /// Serial number of the news.
        serial: u32,
    },
    /// Payloads follow.
    CacheResponse {
        /// Session.
        session: u16,
    },
    /// A payload comes or goes.
    Prefix {
        /// Comes, else goes.
        announce: bool,
        /// The payload.
        vrp: Vrp,
    },
    /// All payloads have been sent.
    EndOfData {
        /// Session.
        session: u16,
        /// Serial number reached.
        serial: u32,
        /// Seconds between queries, seconds until a retry, seconds until the data is stale.
        timing: Option<[u32; 3]>,
    },
    /// The cache cannot tell what changed: ask for everything.
    CacheReset,
    /// The cache gives up; its error code.
    ErrorReport(u16),
    /// Something that weir has no use for.
    Other,
}

/// Why the stream cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PduError {
    /// A version that weir does not speak.
    #[error("RTR version {0} is not spoken")]
    Version(u8),
    /// A length that the type cannot have.
    #[error("RTR message type {kind} with {length} octets")]
    Length {
        /// Type.
        kind: u8,
        /// Octets announced.
        length: usize,
    },
    /// A prefix that is none.
    #[error("RTR payload with an impossible prefix")]
    Prefix,
}

/// Cuts the cache's octets into messages.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    /// Adds octets.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`PduError`]: the connection is of no more use.
    pub fn next_pdu(&mut self) -> Result<Option<Pdu>, PduError> {
        let rest = &self.buffer[self.start..];
        let Some((header, _)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [version, kind, high, low, a, b, c, d] = *header;
        if version > VERSION {
            return Err(PduError::Version(version));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let fits = match kind {
            0 => length == 12,
            3 | 8 => length == HEADER,
            4 => length == 20,
            6 => length == 32,
            7 => length == 12 || (version > 0 && length == 24),
            _ => (HEADER..=LENGTH_MAX).contains(&length),
        };
        if !fits {
            return Err(PduError::Length { kind, length });
        }
        let Some(body) = rest.get(HEADER..length) else { return Ok(None) };
        let pdu = read(kind, u16::from_be_bytes([high, low]), body)?;
        self.start += length;
        Ok(Some(pdu))
    }
}

fn read(kind: u8, session: u16, body: &[u8]) -> Result<Pdu, PduError> {
    let word = |at: usize| {
        body.get(at..at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    Ok(match kind {
        0 => Pdu::SerialNotify { session, serial: word(0) },
        3 => Pdu::CacheResponse { session },
        4 => prefix(body, Ipv4Addr::from_bits(word(4)).into(), word(8))?,
        6 => {
            let octets: [u8; 16] =
                body.get(4..20).and_then(|o| o.try_into().ok()).ok_or(PduError::Prefix)?;
            prefix(body, Ipv6Addr::from(octets).into(), word(20))?
        }
        7 => {
            let timing = (body.len() == 16).then(|| [word(4), word(8), word(12)]);
            Pdu::EndOfData { session, serial: word(0), timing }
        }
        8 => Pdu::CacheReset,
        // The error's code stands where others have the session.
        10 => Pdu::ErrorReport(session),
        _ => Pdu::Other,
    })
}

fn prefix(body: &[u8], address: std::net::IpAddr, asn: u32) -> Result<Pdu, PduError> {
    let [flags, len, max_len, ..] = *body else { return Err(PduError::Prefix) };
    let net = IpNet::new(address, len).map_err(|_| PduError::Prefix)?;
    if max_len < len || max_len > net.max_prefix_len() {
        return Err(PduError::Prefix);
    }
    Ok(Pdu::Prefix { announce: flags & 1 == 1, vrp: Vrp { net: net.trunc(), max_len, asn } })
}

/// A query for everything.
pub(super) const fn reset_query(version: u8) -> [u8; 8] {
    [version, 2, 0, 0, 0, 0, 0, 8]
}

/// A query for what has changed since a serial number.
pub(super) fn serial_query(version: u8, session: u16, serial: u32) -> Vec<u8> {
    let [high, low] = session.to_be_bytes();
    let mut out = vec![version, 1, high, low, 0, 0, 0, 12];
    out.extend_from_slice(&serial.to_be_bytes());
    out
}
