//! Telling others: signed webhooks about decisions, and requests to scrubbing services.
//!
//! Nothing here sends anything. [`Outbox`] and [`Scrubbers`] are state machines that say which
//! [`Request`] is due and are told the [`Outcome`]; retries, back-off, limits and the log of
//! deliveries are theirs. The sender needs an HTTP client and nothing else.

mod hidden;
mod outbox;
mod scrub;
mod sign;
mod template;
mod webhook;

pub use hidden::{Address, Hidden};
pub use outbox::{DELIVERIES_MAX, DeliveryRecord, LOG_MAX, Outbox};
pub use scrub::{SCRUB_TEMPLATES, ScrubTemplate, ScrubberConfig, Scrubbers};
pub use sign::{SIGNATURE_HEADER, signature};
pub use template::{RequestTemplate, TemplateError};
pub use webhook::{ACTIONS, WebhookConfig, WebhookError};

use std::fmt;

/// Tries of one request: the first and three retries.
pub const TRIES_MAX: u32 = 4;

/// A try that nobody reported on for so long counts as failed, milliseconds.
pub const TRY_TIMEOUT_MS: u64 = 30_000;

/// Wait before the retry that follows so many tries: 2, 8, 32 seconds.
pub(crate) const fn back_off_ms(tries: u32) -> u64 {
    match tries {
        0 | 1 => 2000,
        2 => 8000,
        _ => 32_000,
    }
}

/// Number of a delivery, unique for the life of the process and rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub u64);

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
            .field("url", &hidden::origin(&self.url))
            .field("headers", &headers)
            .field("body", &self.body.len())
            .finish()
    }
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
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
pub(crate) fn is_header(name: &str, value: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty()
        && name.bytes().all(token)
        && value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b))
}

pub(crate) fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| (0x21..0x7f).contains(&b)))
}
