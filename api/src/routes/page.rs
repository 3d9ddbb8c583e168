//! The public status page: off unless configured, the same for everybody, cacheable, and without the
//! addresses of the attacked unless the operator allows them.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use weir_model::{Direction, Incident, IncidentState, Millis, Mitigation};

use crate::access::permission::{Allowed, Everybody};
use crate::app::App;
use crate::problem::Problem;

/// Incidents shown at most.
const SHOWN_MAX: usize = 50;

/// Closed incidents are shown for so long, milliseconds.
const SHOWN_MS: u64 = 7 * 24 * 3600 * 1000;

/// An incident as customers see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicIncident {
    /// To the minute.
    opened: Millis,
    /// To the minute.
    closed: Option<Millis>,
    /// In the broad terms of a status page.
    kind: &'static str,
    /// Whether a router or node has a rule against it now.
    mitigated: bool,
    /// Where, if the operator allows it.
    target: Option<String>,
}

/// What customers see.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicStatus {
    title: String,
    /// To the minute.
    at: Millis,
    /// Attacks that go on.
    under_attack: bool,
    /// Going on, and of the last seven days, newest first.
    incidents: Vec<PublicIncident>,
}

fn minute(at: Millis) -> Millis {
    Millis(at.0 / 60_000 * 60_000)
}

/// `2026-11-20 10:02 UTC`.
fn words(at: Millis) -> String {
    let full = at.to_string();
    let (day, time) = full.split_at_checked(10).unwrap_or((&full, ""));
    format!("{day} {} UTC", time.get(1..6).unwrap_or_default())
}

fn status(app: &App) -> Result<PublicStatus, Problem> {
    let config = app.config();
    let page = &config.status_page;
    if !page.enabled {
        return Err(Problem::missing("resource"));
    }
    let snapshot = app.inner.handles.snapshot.load();
    let recent = |closed: Option<Millis>| closed.is_none_or(|at| snapshot.at.since(at) < SHOWN_MS);
    let incidents = snapshot
        .incidents
        .iter()
        .filter(|incident| recent(incident.closed) && is_aimed_here(incident))
        .take(SHOWN_MAX)
        .map(|incident| PublicIncident {
            opened: minute(incident.opened),
            closed: incident.closed.map(minute),
            kind: incident.verdict.family.title(),
            mitigated: incident.mitigations.iter().any(Mitigation::is_in_force),
            target: page.addresses.then(|| incident.verdict.target.to_string()),
        })
        .collect();
    Ok(PublicStatus {
        title: page.title.clone(),
        at: minute(snapshot.at),
        under_attack: snapshot
            .incidents
            .iter()
            .any(|i| i.state == IncidentState::Open && is_aimed_here(i)),
        incidents,
    })
}

/// What a customer's own server sends to others is no attack on those who read this page.
fn is_aimed_here(incident: &Incident) -> bool {
    incident.verdict.direction == Direction::Inbound
}

/// A page with a sheet of its own and nothing else; its title is escaped.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";

fn cached(response: Response) -> Response {
    let mut response = response;
    let policy = HeaderValue::from_static(POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    let name: HeaderName = header::CACHE_CONTROL;
    response.headers_mut().insert(name, HeaderValue::from_static("public, max-age=30"));
    response
}

/// Shows the public status as data, where the operator turned it on.
#[utoipa::path(get, path = "/status.json", tag = "status page",
    responses((status = 200, description = "The status", body = PublicStatus)))]
pub(crate) async fn data(
    _who: Allowed<Everybody>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    Ok(cached(Json(status(&app)?).into_response()))
}

/// Shows the public status as a page, where the operator turned it on.
#[utoipa::path(get, path = "/status", tag = "status page",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(crate) async fn page(
    _who: Allowed<Everybody>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let status = status(&app)?;
    let title = escape(&status.title);
    let rows: String = status
        .incidents
        .iter()
        .map(|incident| {
            let state = match (incident.closed, incident.mitigated) {
                (Some(at), _) => format!("ended {}", words(at)),
                (None, true) => "being filtered".to_owned(),
                (None, false) => "being watched".to_owned(),
            };
            format!(
                "<tr><td>{}</td><td>{}</td><td>{state}</td><td>{}</td></tr>",
                words(incident.opened),
                incident.kind,
                escape(incident.target.as_deref().unwrap_or_default())
            )
        })
        .collect();
    let word = if status.under_attack { "An attack goes on" } else { "No attack at present" };
    let body = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
         content='width=device-width'><meta http-equiv=refresh content=60><title>{title}</title>\
         <style>body{{font:16px system-ui;margin:2rem auto;max-width:50rem;padding:0 1rem}}\
         td{{padding:.3rem 1rem .3rem 0}}</style><h1>{title}</h1><p>{word} ({}).</p>\
         <table>{rows}</table></html>",
        words(status.at)
    );
    Ok(cached(Html(body).into_response()))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}
