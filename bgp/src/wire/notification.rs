//! NOTIFICATION: why a session ends (RFC 4271 §4.5).

use std::fmt;

use super::{Family, kind};

/// Error codes (RFC 4271 §4.5, RFC 7313, RFC 9687).
pub mod codes {
    /// Message header error.
    pub const HEADER: u8 = 1;
    /// OPEN message error.
    pub const OPEN: u8 = 2;
    /// UPDATE message error.
    pub const UPDATE: u8 = 3;
    /// Hold timer expired.
    pub const HOLD_TIMER: u8 = 4;
    /// Finite state machine error; subcodes of RFC 6608.
    pub const FSM: u8 = 5;
    /// Cease; subcodes in [`super::cease`].
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH error.
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send hold timer expired (RFC 9687).
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of Cease (RFC 4486, RFC 9003, RFC 8538).
pub mod cease {
    /// More prefixes than the peer takes.
    pub const MAX_PREFIXES: u8 = 1;
    /// Administrative shutdown; the data may say why.
    pub const SHUTDOWN: u8 = 2;
    /// The peer is no longer configured.
    pub const DECONFIGURED: u8 = 3;
    /// Administrative reset.
    pub const RESET: u8 = 4;
    /// Connection rejected.
    pub const REJECTED: u8 = 5;
    /// Other configuration change.
    pub const CONFIG_CHANGE: u8 = 6;
    /// The other of two connections is kept.
    pub const COLLISION: u8 = 7;
    /// Out of resources.
    pub const RESOURCES: u8 = 8;
    /// Hard Reset (RFC 8538): the routes go although both sides keep them over other NOTIFICATIONs.
    pub const HARD_RESET: u8 = 9;
    /// BFD found the path dead (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// The limit that came with Cease 6/1, if the peer names one (RFC 4486 §4):
/// `| AFI (2) | SAFI (1) | prefixes (4) |`.
pub fn prefix_bound(data: &[u8]) -> Option<(Family, usize)> {
    let [high, low, safi, bound @ ..] = data else { return None };
    let family = Family::of(u16::from_be_bytes([*high, *low]), *safi)?;
    let bound = u32::from_be_bytes(bound.try_into().ok()?);
    Some((family, usize::try_from(bound).ok()?))
}

/// The end of a session, with its reason. Any code decodes, also those of the future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data, at most a message long.
    pub data: Vec<u8>,
}

impl Notification {
    /// One without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// Cease with a text for the operator at the other end (RFC 9003): at most 255 octets, cut at
    /// a character's end.
    pub fn shutdown(text: &str) -> Self {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let length = u8::try_from(end).unwrap_or(u8::MAX);
        let mut data = vec![length];
        data.extend_from_slice(&text.as_bytes()[..end]);
        Self { code: codes::CEASE, subcode: cease::SHUTDOWN, data }
    }

    /// This, as a Hard Reset (RFC 8538 §3): its own code, subcode and data go into the data.
    #[must_use]
    pub fn hard(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Self { code: codes::CEASE, subcode: cease::HARD_RESET, data }
    }

    /// Code, subcode and data of the cause: of a Hard Reset, those that it carries.
    pub fn cause(&self) -> (u8, u8, &[u8]) {
        match (self.code, self.subcode, &self.data[..]) {
            (codes::CEASE, cease::HARD_RESET, [code, subcode, data @ ..]) => {
                (*code, *subcode, data)
            }
            (code, subcode, data) => (code, subcode, data),
        }
    }

    pub(super) fn read(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => {
                Self { code: *code, subcode: *subcode, data: data.to_vec() }
            }
            _ => Self::new(0, 0),
        }
    }

    /// The message.
    pub fn write(&self) -> Vec<u8> {
        let mut body = vec![self.code, self.subcode];
        let room = super::MAX_MESSAGE - super::HEADER - 2;
        body.extend_from_slice(&self.data[..self.data.len().min(room)]);
        super::frame(kind::NOTIFICATION, &body).unwrap_or_default()
    }

    /// The text that came with a shutdown (RFC 9003), control characters left out.
    fn text(&self) -> Option<String> {
        let (code, subcode, data) = self.cause();
        if code != codes::CEASE || !matches!(subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let (length, text) = data.split_first()?;
        let text = text.get(..usize::from(*length))?;
        let text: String =
            String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }
}

impl fmt::Display for Notification {
    /// `3/10 invalid network field`, and what the peer's operator says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.code, self.subcode, name(self.code, self.subcode))?;
        let (code, subcode, _) = self.cause();
        if (code, subcode) != (self.code, self.subcode) {
            write!(f, ", {code}/{subcode} {}", name(code, subcode))?;
        }
        match self.text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

const fn name(code: u8, subcode: u8) -> &'static str {
    match (code, subcode) {
        (1, 1) => "connection not synchronised",
        (1, 2) => "bad message length",
        (1, 3) => "bad message type",
        (1, _) => "message header error",
        (2, 1) => "unsupported version",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad BGP identifier",
        (2, 4) => "unsupported optional parameter",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "unsupported capability",
        (2, 11) => "role mismatch",
        (2, _) => "OPEN error",
        (3, 1) => "malformed attribute list",
        (3, 2) => "unrecognised well-known attribute",
        (3, 3) => "missing well-known attribute",
        (3, 4) => "attribute flags error",
        (3, 5) => "attribute length error",
        (3, 6) => "invalid ORIGIN",
        (3, 8) => "invalid NEXT_HOP",
        (3, 9) => "optional attribute error",
        (3, 10) => "invalid network field",
        (3, 11) => "malformed AS_PATH",
        (3, _) => "UPDATE error",
        (4, _) => "hold timer expired",
        (5, _) => "message unexpected in this state",
        (6, 1) => "maximum number of prefixes reached",
        (6, 2) => "administrative shutdown",
        (6, 3) => "peer de-configured",
        (6, 4) => "administrative reset",
        (6, 5) => "connection rejected",
        (6, 6) => "other configuration change",
        (6, 7) => "connection collision resolution",
        (6, 8) => "out of resources",
        (6, 9) => "hard reset",
        (6, 10) => "BFD down",
        (6, _) => "cease",
        (7, _) => "ROUTE-REFRESH error",
        (8, _) => "send hold timer expired",
        _ => "unknown error",
    }
}
