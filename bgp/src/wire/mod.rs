//! BGP messages as octets (RFC 4271 §4): own framing, own reading, netgauze's writing of OPEN and
//! path attributes with every length checked before it is sent.
//!
//! Reading is our own because it must survive what routers really send: capabilities with wrong
//! lengths, extended OPEN parameters (RFC 9072), NOTIFICATION codes of tomorrow. Nothing here
//! panics or allocates by a number from the wire.

mod family;
mod notification;
mod open;
mod update;

mod received;

pub use family::{Families, Family};
pub use notification::{Notification, cease, codes, prefix_bound};
pub use open::{GracefulRestart, Open, OpenSettings};
pub use received::{MpNlri, ReceivedUpdate, UpdateError};
pub use update::{
    Attributes, LargeCommunity, WriteError, announce_flow, announce_unicast, end_of_rib,
    withdraw_flow, withdraw_unicast,
};

/// Largest message, octets; weir does not negotiate RFC 8654.
pub const MAX_MESSAGE: usize = 4096;

/// Octets of the header: marker (16), length (2), type (1).
pub const HEADER: usize = 19;

/// Message types (RFC 4271 §4.1, RFC 2918).
mod kind {
    pub(super) const OPEN: u8 = 1;
    pub(super) const UPDATE: u8 = 2;
    pub(super) const NOTIFICATION: u8 = 3;
    pub(super) const KEEPALIVE: u8 = 4;
    pub(super) const ROUTE_REFRESH: u8 = 5;
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The peer introduces itself.
    Open(Open),
    /// Routes. An announce-only session counts and drops them: the body stays as it came.
    Update(Vec<u8>),
    /// The peer ends the session.
    Notification(Notification),
    /// The peer is alive.
    Keepalive,
    /// The peer wants a family once more (RFC 2918); `None` for a family not known here.
    RouteRefresh(Option<Family>),
}

/// Cuts a byte stream into messages. Holds at most one message and one read.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    start: usize,
}

impl Framer {
    /// Adds octets from the peer.
    pub fn push(&mut self, octets: &[u8]) {
        // Shift only when there is something to gain, so that many small messages in one read
        // cost one move.
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// What to answer to a stream that cannot be followed further.
    pub fn next_message(&mut self) -> Result<Option<Message>, Notification> {
        let rest = &self.buffer[self.start..];
        let Some((header, _)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        if header[..16] != [0xff; 16] {
            return Err(Notification::new(codes::HEADER, 1));
        }
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let kind = header[18];
        let bad_length =
            || Notification { code: codes::HEADER, subcode: 2, data: vec![header[16], header[17]] };
        let smallest = match kind {
            kind::OPEN => 29,
            kind::UPDATE | kind::ROUTE_REFRESH => 23,
            kind::NOTIFICATION => 21,
            kind::KEEPALIVE => HEADER,
            _ => {
                return Err(Notification { code: codes::HEADER, subcode: 3, data: vec![kind] });
            }
        };
        if !(smallest..=MAX_MESSAGE).contains(&length)
            || (kind == kind::KEEPALIVE && length != HEADER)
        {
            return Err(bad_length());
        }
        let Some(body) = rest.get(HEADER..length) else { return Ok(None) };
        let message = read(kind, body)?;
        self.start += length;
        Ok(Some(message))
    }
}

fn read(kind: u8, body: &[u8]) -> Result<Message, Notification> {
    Ok(match kind {
        kind::OPEN => Message::Open(Open::read(body)?),
        kind::UPDATE => Message::Update(body.to_vec()),
        kind::NOTIFICATION => Message::Notification(Notification::read(body)),
        kind::ROUTE_REFRESH => {
            let family = match body {
                // Octet 2 is the subtype of RFC 7313; demarcations of a refresh that we never
                // asked for are nothing to answer.
                [afi_high, afi_low, 0, safi, ..] => {
                    Family::of(u16::from_be_bytes([*afi_high, *afi_low]), *safi)
                }
                _ => None,
            };
            Message::RouteRefresh(family)
        }
        _ => Message::Keepalive,
    })
}

/// A message from its type and body.
fn frame(kind: u8, body: &[u8]) -> Result<Vec<u8>, WriteError> {
    let length = HEADER + body.len();
    let field = u16::try_from(length).ok().filter(|_| length <= MAX_MESSAGE);
    let Some(field) = field else { return Err(WriteError::TooLong(length)) };
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&field.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    Ok(out)
}

/// A KEEPALIVE.
pub const fn keepalive() -> [u8; HEADER] {
    let mut out = [0xff; HEADER];
    out[16] = 0;
    out[17] = 19;
    out[18] = kind::KEEPALIVE;
    out
}

/// A ROUTE-REFRESH for one family (RFC 2918).
pub fn route_refresh(family: Family) -> Vec<u8> {
    let (afi, safi) = family.code();
    let [high, low] = afi.to_be_bytes();
    let mut out = keepalive().to_vec();
    out[17] = 23;
    out[18] = kind::ROUTE_REFRESH;
    out.extend_from_slice(&[high, low, 0, safi]);
    out
}

#[cfg(test)]
mod tests;
