//! The generic webhook: version 1 of its message, and the request that carries it.

use serde::Serialize;
use weir_model::{
    Decision, DeliveryId, Family, Incident, IncidentId, Millis, Rate, Reason, Request, Rung,
    SIGNATURE_HEADER, WebhookConfig, signature,
};

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

/// What a webhook is told of a decision.
pub(crate) fn message(id: DeliveryId, decision: &Decision, incident: Option<&Incident>) -> String {
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
    serde_json::to_string(&payload).unwrap_or_default()
}

/// The request that carries a message to a webhook.
pub(crate) fn request(hook: &WebhookConfig, id: DeliveryId, event: &str, body: String) -> Request {
    let body = body.into_bytes();
    let mut headers = vec![
        ("Content-Type".to_owned(), "application/json".to_owned()),
        ("X-Weir-Event".to_owned(), event.to_owned()),
        ("X-Weir-Delivery".to_owned(), id.to_string()),
    ];
    if let Some(secret) = &hook.secret {
        headers.push((SIGNATURE_HEADER.to_owned(), signature(secret.expose().as_bytes(), &body)));
    }
    headers.extend(hook.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    let (to, url) = (hook.name.clone(), hook.url.expose().to_owned());
    Request { id, to, method: "POST", url, headers, body }
}

#[cfg(test)]
mod tests {
    use weir_model::Secret;

    use super::*;

    #[test]
    fn a_message_is_signed_over_its_octets() {
        let hook = WebhookConfig {
            name: "ops".into(),
            url: "https://example.net/hook".into(),
            enabled: true,
            secret: Some(Secret::new("hunter2")),
            secret_file: None,
            events: Vec::new(),
            headers: [("Authorization".to_owned(), "Bearer x".to_owned())].into_iter().collect(),
        };
        let decision = Decision {
            at: Millis::from_secs(1_795_168_965),
            incident: None,
            target: "203.0.113.7/32".parse().unwrap(),
            action: "announce".into(),
            detail: "flowspec \"x\"".into(),
            reason: None,
        };
        let id = DeliveryId(7);
        let request = request(&hook, id, "announce", message(id, &decision, None));
        let header = |name: &str| {
            request.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap()
        };
        assert_eq!(header(SIGNATURE_HEADER), signature(b"hunter2", &request.body));
        assert_eq!(header("X-Weir-Event"), "announce");
        assert_eq!(header("X-Weir-Delivery"), "7");
        assert_eq!(header("Authorization"), "Bearer x");
        assert!(!format!("{request:?}").contains("Bearer"), "credentials stay out of logs");
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["target"], "203.0.113.7/32");
        assert_eq!(body["at"], "2026-11-20T10:02:45.000Z");
        assert_eq!(body["detail"], "flowspec \"x\"");
        assert_eq!(body["delivery"], 7);
    }
}
