//! HTTP: incidents, mitigations, exporters, peers and metrics.
//!
//! Reads [`Snapshot`]s and sends [`Command`]s; decides nothing and knows nothing of how flows are
//! decoded or routes announced. Read [`Handles`] and [`router`] first.

mod config;
mod guard;
pub mod metrics;
mod problem;
mod routes;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use weir_model::{Command, CommandError, MitigationId, Snapshot};

pub use config::Config;
pub use metrics::Metrics;

/// Commands waiting for the core at once; one more is answered 503.
pub const COMMANDS_WAITING: usize = 64;

/// A command and where its outcome goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Receives the outcome; may have hung up.
    pub reply: oneshot::Sender<Result<Option<MitigationId>, CommandError>>,
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
}

impl Handles {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// All routes. To add one: a handler in `routes/` and a line here.
pub fn router(handles: Handles) -> Router {
    let v1 = Router::new()
        .route("/incidents", get(routes::incidents::list))
        .route("/incidents/{id}", get(routes::incidents::one))
        .route("/incidents/{id}/hold", post(routes::incidents::hold))
        .route("/mitigations", get(routes::mitigations::list).post(routes::mitigations::add))
        .route("/mitigations/{id}/approve", post(routes::mitigations::approve))
        .route("/mitigations/{id}/withdraw", post(routes::mitigations::withdraw))
        .route("/exporters", get(routes::status::exporters))
        .route("/peers", get(routes::status::peers))
        .route("/mode", get(routes::status::mode).post(routes::status::set_mode));
    Router::new()
        .nest("/api/v1", v1)
        .route("/healthz", get(routes::status::healthz))
        .route("/readyz", get(routes::status::readyz))
        .route("/metrics", get(routes::status::metrics))
        .fallback(problem::not_found)
        .layer(axum::middleware::from_fn(guard::local_host_only))
        .layer(axum::extract::DefaultBodyLimit::max(64 * 1024))
        .with_state(handles)
}

/// Serves until `stop` resolves.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    handles: Handles,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(handles)).with_graceful_shutdown(stop).await
}

/// Binds the API's socket.
///
/// # Errors
/// When the address is taken or not ours; the message names it.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("api {address}: {error}")))
}
