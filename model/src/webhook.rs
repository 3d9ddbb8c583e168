//! Generic webhooks: whom they tell what.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::request::{is_header, is_url};
use crate::{Address, Hidden, Secret};

/// Every kind of decision there is: what a webhook can ask for, and the `action` of the log.
pub const ACTIONS: [&str; 26] = [
    "open",
    "alert",
    "simulate",
    "propose",
    "announce",
    "withdraw",
    "refuse",
    "defer",
    "escalate",
    "stay",
    "step-down",
    "skip",
    "roll-back",
    "end",
    "lapse",
    "blind",
    "hold",
    "release",
    "approve",
    "change",
    "mode",
    "panic",
    "exporter-silent",
    "traffic-vanished",
    "uplink-full",
    "test",
];

/// A receiver of signed messages about decisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Name in logs and in the delivery log.
    pub name: String,
    /// Where messages are posted, `http://` or `https://`.
    pub url: Address,
    /// Whether notifications are sent; test messages are always sent.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Signing key.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
    /// File with the signing key; surrounding white space is ignored.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Events to send; empty: all.
    #[serde(default)]
    pub events: Vec<String>,
    /// HTTP headers, such as credentials.
    #[serde(default, skip_serializing)]
    pub headers: Hidden,
}

const fn enabled() -> bool {
    true
}

/// What is wrong with a webhook or scrubber.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Two of the same name, or none.
    #[error("{0:?}: the name is empty or taken")]
    Name(String),
    /// Not an address.
    #[error("{0}: its url ({1}...) is no http address")]
    Url(String, String),
    /// No such kind of decision.
    #[error("{0}: there is no event {1:?}")]
    Event(String, String),
    /// Not a header.
    #[error("{0}: header {1:?} cannot be sent")]
    Header(String, String),
    /// A request template does not work.
    #[error("{0}: {1}")]
    Template(String, String),
}

impl WebhookConfig {
    /// Checks what can be checked without sending.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn check(&self) -> Result<(), WebhookError> {
        let name = || self.name.clone();
        if self.name.trim().is_empty() {
            return Err(WebhookError::Name(name()));
        }
        if !is_url(self.url.expose()) {
            return Err(WebhookError::Url(name(), self.url.origin()));
        }
        if let Some(event) = self.events.iter().find(|e| !ACTIONS.contains(&e.as_str())) {
            return Err(WebhookError::Event(name(), event.clone()));
        }
        let bad = self.headers.iter().find(|(header, value)| {
            let own = header.to_ascii_lowercase().starts_with("x-weir-");
            own || !is_header(header, value)
        });
        bad.map_or(Ok(()), |(header, _)| Err(WebhookError::Header(name(), header.clone())))
    }

    /// Whether it is told of such a decision.
    pub fn wants(&self, action: &str) -> bool {
        let wanted = self.events.is_empty() || self.events.iter().any(|e| e == action);
        self.enabled && wanted
    }
}
