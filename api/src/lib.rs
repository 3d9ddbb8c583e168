//! HTTP: what weir sees and does, to whom it may concern, and what they ask of it.
//!
//! Reads [`weir_model::Snapshot`]s and the store, and sends [`weir_model::Command`]s; decides nothing
//! and knows nothing of how flows are decoded or routes announced. A handler's first argument states the
//! permission it needs, and a route whose handler lacks one does not compile. Read [`App`] and
//! [`router`] first.

mod access;
pub mod allow;
mod answers;
mod app;
mod config;
mod export;
mod handles;
mod journal;
mod limit;
mod live;
pub mod metrics;
pub mod nodes;
pub mod panels;
mod problem;
mod records;
mod routes;
pub mod server;
pub mod settings;
mod table;

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};

pub use access::{Permission, Requirement};
pub use app::{App, Clock};
pub use config::{Config, StatusPage, Tls};
pub use handles::{
    Ask, Channel, Channels, Dead, Deliveries, Delivery, Facts, Handles, Muted, Question, Request,
    Traffic, TrafficSecond,
};
pub use metrics::{IntGaugeVec, Metrics};
pub use nodes::JoinToken;
pub use records::Records;
pub use table::Endpoint;

use problem::Problem;
use table::Table;

/// Commands waiting for the core at once; one more is answered 503.
pub const COMMANDS_WAITING: usize = 64;

/// Largest body taken, octets.
pub const BODY_MAX: usize = 64 * 1024;

/// How long a request may take until its answer begins, its body included.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);

/// The same of a backup, whose history may be gigabytes on a slow disk: it holds up nobody else.
pub const BACKUP_TIME: Duration = Duration::from_secs(3600);

/// Where backups are taken.
pub const BACKUP: &str = "/api/v1/backup";

/// All routes. To add one: a handler in `routes/` and its name in `table.rs`.
pub fn router(app: App) -> Router {
    let (routes, _) = Table::all().parts();
    routes
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(app.clone(), admit))
        .layer(from_fn(dress))
        .with_state(app)
}

/// The API document, OpenAPI 3.1.
///
/// # Panics
/// Never: the document is plain data.
pub fn document() -> String {
    let (_, document) = Table::all().parts();
    let mut text = document.to_pretty_json().expect("plain data has a JSON form");
    text.push('\n');
    text
}

/// Every route with what it asks for.
pub fn endpoints() -> Vec<Endpoint> {
    Table::all().endpoints
}

/// Turns away what comes too often, over an open wire, or takes too long to arrive.
async fn admit(State(app): State<App>, request: HttpRequest, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let address = access::origin::client(&parts, &app);
    let local = server::Peer::of(&parts).local.is_some();
    if let Err(problem) = access::origin::check_transport(&parts, &app) {
        return problem.into_response();
    }
    if !local && let Err(problem) = app.inner.limit.take(address, app.now()) {
        return problem.into_response();
    }
    let patience = if parts.uri.path() == BACKUP { BACKUP_TIME } else { REQUEST_TIME };
    let request = HttpRequest::from_parts(parts, body);
    match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response()
        }
    }
}

/// Headers that every answer carries.
async fn dress(request: HttpRequest, next: Next) -> Response {
    const HEADERS: [(header::HeaderName, &str); 6] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let secure = request.extensions().get::<server::Peer>().is_some_and(|peer| peer.tls);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if secure {
        // No includeSubDomains: the appliance's name says nothing about its neighbours'.
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}

/// Serves until `stop` resolves; follows the snapshots for whoever listens live.
///
/// # Errors
/// When a listener fails for good.
pub async fn serve(
    listeners: server::Listeners,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let follow = tokio::spawn(live::follow(app.clone()));
    let housekeeping = tokio::spawn(sweep(app.clone()));
    let journal = tokio::spawn(app.clone().keep_journal());
    let outcome = server::run(listeners, router(app.clone()), stop).await;
    follow.abort();
    housekeeping.abort();
    journal.abort();
    app.close_journal().await;
    outcome
}

/// Forgets sessions that have ended, once an hour.
async fn sweep(app: App) {
    let mut hour = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hour.tick().await;
        let (now, config) = (app.now(), app.config());
        let idle = now - config.session_idle_secs.saturating_mul(1000);
        let created = now - config.session_max_secs.saturating_mul(1000);
        // A failure is logged where it happens; the next hour tries again.
        let _ = app.change(move |change| change.sweep_sessions(idle, created)).await;
    }
}
