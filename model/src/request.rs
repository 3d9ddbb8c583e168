//! Requests that weir makes of others, and what became of them. Nothing here sends anything: state machines
//! say which [`Request`] is due and are told its [`Outcome`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::secret::origin;

/// Tries of one request: the first and three retries.
pub const TRIES_MAX: u32 = 4;

/// A try that nobody reported on for so long counts as failed, milliseconds.
pub const TRY_TIMEOUT_MS: u64 = 30_000;

/// Wait before the retry that follows so many tries: 2, 8, 32 seconds.
pub const fn back_off_ms(tries: u32) -> u64 {
    match tries {
        0 | 1 => 2000,
        2 => 8000,
        _ => 32_000,
    }
}

/// Number of a delivery, unique for the life of an installation and rising.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct DeliveryId(pub u64);

impl DeliveryId {
    /// The number after `last` for a delivery made at `now`. It begins at the clock, as the numbers of incidents
    /// do: what a restart forgets is not given out again.
    pub fn next(now: Millis, last: Self) -> Self {
        Self(now.0.max(last.0.saturating_add(1)))
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An HTTP request to make.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// To report its outcome under.
    pub id: DeliveryId,
    /// Whom it goes to, by the name in the configuration.
    pub to: String,
    /// Method.
    pub method: &'static str,
    /// Where.
    pub url: String,
    /// Headers, signature included.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl fmt::Debug for Request {
    /// Address, headers and body may hold credentials: only what cannot is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("to", &self.to)
            .field("method", &self.method)
            .field("url", &origin(&self.url))
            .field("headers", &headers)
            .field("body", &self.body.len())
            .finish()
    }
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// An answer came, with this status.
    Status(u16),
    /// None came; why.
    Failed(String),
}

impl Outcome {
    /// Whether the receiver took it.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Status(200..=299))
    }

    /// Whether another try can help: a receiver that says the request itself is wrong will say so
    /// again.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Status(status) => matches!(*status, 408 | 425 | 429 | 500..=599),
            Self::Failed(_) => true,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Whether a header may be sent: visible names and values, so that nothing can be smuggled in
/// behind a line end.
pub fn is_header(name: &str, value: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty()
        && name.bytes().all(token)
        && value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b))
}

/// Whether a text is an `http://` or `https://` address without anything that is no part of one.
pub fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| (0x21..0x7f).contains(&b)))
}
