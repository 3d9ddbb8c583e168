//! HTTP: what weir sees and does, to whom it may concern, and what they ask of it.
//!
//! Reads [`Snapshot`]s and the store, and sends [`Command`]s; decides nothing and knows nothing of how
//! flows are decoded or routes announced. A handler's first argument states the permission it needs, and
//! a route whose handler lacks one does not compile. Read [`App`] and [`router`] first.

mod access;
mod app;
mod config;
mod export;
mod limit;
mod live;
pub mod metrics;
pub mod panels;
mod problem;
mod routes;
pub mod server;
pub mod settings;
mod table;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;
use weir_model::{
    Command, CommandError, DryRun, HostBaselines, HostRate, IpNet, Millis, MitigationId, Snapshot,
};
use weir_store::history::{Point, Step};

pub use access::{Permission, Requirement};
pub use app::{App, Clock, Records};
pub use config::{Config, StatusPage, Tls};
pub use metrics::Metrics;
pub use table::Endpoint;

use problem::Problem;
use table::Table;

/// Commands waiting for the core at once; one more is answered 503.
pub const COMMANDS_WAITING: usize = 64;

/// Largest body taken, octets.
pub const BODY_MAX: usize = 64 * 1024;

/// How long a request may take until its answer begins, its body included.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);

/// A command and where its outcome goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Receives the outcome; may have hung up.
    pub reply: oneshot::Sender<Result<Option<MitigationId>, CommandError>>,
}

/// A question about hosts, and where its answer goes.
#[derive(Debug)]
pub enum HostRequest {
    /// The busiest hosts, busiest first.
    Busiest {
        /// How many at most.
        limit: usize,
        /// By packets; by bits otherwise.
        by_packets: bool,
        /// Inside these prefixes; empty means anywhere.
        within: Vec<IpNet>,
        /// Receives the answer.
        reply: oneshot::Sender<Vec<HostRate>>,
    },
    /// A host's baselines and thresholds.
    Baselines {
        /// The host.
        host: IpAddr,
        /// Receives the answer; `None` when the host was never seen.
        reply: oneshot::Sender<Option<HostBaselines>>,
    },
    /// A host's series, oldest first.
    Series {
        /// The host.
        host: IpAddr,
        /// Grain.
        step: Step,
        /// First instant.
        from: Millis,
        /// End, not included.
        to: Millis,
        /// Receives the answer.
        reply: oneshot::Sender<Vec<Point>>,
    },
}

/// A question to what decides and what tells others, and where its answer goes.
#[derive(Debug)]
pub enum Ask {
    /// What a command would change.
    DryRun {
        /// The command.
        command: Box<Command>,
        /// Receives the answer.
        reply: oneshot::Sender<Result<DryRun, CommandError>>,
    },
    /// What webhooks were told.
    Deliveries {
        /// Receives the answer.
        reply: oneshot::Sender<Deliveries>,
    },
    /// A test message to a webhook.
    TestHook {
        /// Its name.
        name: String,
        /// Receives the delivery's number; `None` when there is no such webhook.
        reply: oneshot::Sender<Option<u64>>,
    },
}

/// What webhooks were told, newest first.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Deliveries {
    /// Ended deliveries.
    pub deliveries: Vec<Delivery>,
    /// Deliveries that wait or are under way.
    pub waiting: usize,
    /// Deliveries dropped since the start because too many waited.
    pub dropped: u64,
    /// Scrubbing services and prefixes that they have not agreed about after all retries.
    pub stuck: Vec<String>,
}

/// One delivery.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// Its number.
    pub id: u64,
    /// To which webhook.
    pub to: String,
    /// What about.
    pub event: String,
    /// When it was queued.
    pub queued: Millis,
    /// When it ended.
    pub ended: Millis,
    /// Tries made.
    pub tries: u32,
    /// Whether the receiver took it.
    pub taken: bool,
    /// How the last try ended.
    pub outcome: String,
}

/// The API's only handles on the rest of weir.
#[derive(Clone, Debug)]
pub struct Handles {
    /// The latest snapshot, replaced whole by the core.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Request>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Whether listeners are bound and the first desired state is out.
    pub ready: Arc<AtomicBool>,
    /// Where questions about hosts go; none where nobody can answer.
    pub hosts: Option<mpsc::Sender<HostRequest>>,
    /// Game panels; none where none is configured.
    pub panels: Option<Arc<dyn panels::Desk>>,
    /// What may be set while weir runs.
    pub settings: Arc<dyn settings::Desk>,
    /// Where other questions go; none where nobody can answer.
    pub asks: Option<mpsc::Sender<Ask>>,
}

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
    let request = HttpRequest::from_parts(parts, body);
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
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
            "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
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
    let outcome = server::run(listeners, router(app), stop).await;
    follow.abort();
    housekeeping.abort();
    outcome
}

/// Forgets sessions that have ended, once an hour.
async fn sweep(app: App) {
    let mut hour = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hour.tick().await;
        let (now, config) = (app.now(), &app.inner.config);
        let idle = now - config.session_idle_secs.saturating_mul(1000);
        let created = now - config.session_max_secs.saturating_mul(1000);
        // A failure is logged where it happens; the next hour tries again.
        let _ = app.change(move |change| change.sweep_sessions(idle, created)).await;
    }
}

/// Binds the API's TCP socket.
///
/// # Errors
/// When the address is taken or not ours; the message names it.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("api {address}: {error}")))
}
