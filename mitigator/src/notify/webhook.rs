//! One webhook: whom it tells what, and what it says.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weir_bgp::config::Secret;
use weir_model::{Decision, Family, Incident, IncidentId, Millis, Rate, Reason, Rung};

use super::{Address, DeliveryId, Hidden, Request, SIGNATURE_HEADER, is_header, is_url, signature};

/// Every kind of decision there is: what a webhook can ask for, and the `action` of the log.
pub const ACTIONS: [&str; 21] = [
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
    "hold",
    "release",
    "approve",
    "mode",
    "panic",
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
    Template(String, super::TemplateError),
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

    pub(crate) fn wants(&self, action: &str) -> bool {
        let wanted = self.events.is_empty() || self.events.iter().any(|e| e == action);
        self.enabled && wanted
    }

    /// The request that carries a body to this receiver.
    pub(crate) fn request(&self, id: DeliveryId, event: &str, body: Vec<u8>) -> Request {
        let mut headers = vec![
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("X-Weir-Event".to_owned(), event.to_owned()),
            ("X-Weir-Delivery".to_owned(), id.to_string()),
        ];
        if let Some(secret) = &self.secret {
            let signed = signature(secret.expose().as_bytes(), &body);
            headers.push((SIGNATURE_HEADER.to_owned(), signed));
        }
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let (to, url) = (self.name.clone(), self.url.expose().to_owned());
        Request { id, to, method: "POST", url, headers, body }
    }
}

/// The message: version 1 of its form.
#[derive(Debug, Serialize)]
struct Payload<'a> {
    version: u8,
    delivery: u64,
    event: &'a str,
    at: String,
    at_ms: Millis,
    target: String,
    detail: &'a str,
    incident: Option<About>,
    reason: Option<&'a Reason>,
}

#[derive(Debug, Serialize)]
struct About {
    id: IncidentId,
    opened: Millis,
    closed: Option<Millis>,
    family: Family,
    confidence: u8,
    rate: Rate,
    peak: Rate,
    rung: Option<Rung>,
    summary: String,
}

pub(crate) fn payload(id: DeliveryId, decision: &Decision, incident: Option<&Incident>) -> Vec<u8> {
    let payload = Payload {
        version: 1,
        delivery: id.0,
        event: &decision.action,
        at: decision.at.to_string(),
        at_ms: decision.at,
        target: decision.target.to_string(),
        detail: &decision.detail,
        incident: incident.map(|incident| About {
            id: incident.id,
            opened: incident.opened,
            closed: incident.closed,
            family: incident.verdict.family,
            confidence: incident.verdict.confidence,
            rate: incident.verdict.rate,
            peak: incident.verdict.peak,
            rung: incident.rung,
            summary: incident.told(),
        }),
        reason: decision.reason.as_ref(),
    };
    // Only maps with keys that are no strings fail to serialise, and there are none.
    serde_json::to_vec(&payload).unwrap_or_default()
}
