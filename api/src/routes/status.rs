//! Health, exporters, peers, mode, metrics, and the API document itself.

use std::sync::OnceLock;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::{Command, ExporterStatus, Mode, PeerProbe, PeerStatus};

use super::{Done, send};
use crate::Ask;
use crate::access::permission::{Allowed, Everybody, needs};
use crate::app::App;
use crate::live::Overview;
use crate::problem::{Form, Problem, Segment};

/// Shows the whole in a few numbers.
#[utoipa::path(get, path = "/api/v1/status", tag = "status",
    responses((status = 200, description = "The whole", body = Overview)))]
pub(crate) async fn status(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
) -> Json<Overview> {
    Json(Overview::of(&app.inner.handles.snapshot.load()))
}

/// All exporters that ever sent something.
#[derive(Serialize, ToSchema)]
#[schema(as = ExporterList)]
pub(crate) struct Exporters {
    exporters: Vec<ExporterStatus>,
}

/// Lists exporters.
#[utoipa::path(get, path = "/api/v1/exporters", tag = "status",
    responses((status = 200, description = "Exporters", body = Exporters)))]
pub(crate) async fn exporters(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
) -> Json<Exporters> {
    Json(Exporters { exporters: app.inner.handles.snapshot.load().exporters.clone() })
}

/// All configured BGP peers.
#[derive(Serialize, ToSchema)]
#[schema(as = PeerList)]
pub(crate) struct Peers {
    peers: Vec<PeerStatus>,
}

/// Lists BGP peers.
#[utoipa::path(get, path = "/api/v1/peers", tag = "status",
    responses((status = 200, description = "Peers", body = Peers)))]
pub(crate) async fn peers(_who: Allowed<needs::ReadStatus>, State(app): State<App>) -> Json<Peers> {
    Json(Peers { peers: app.inner.handles.snapshot.load().peers.clone() })
}

/// Tests a BGP peer: whether it can be reached, what it says of itself, which families a session would
/// carry, and what to look at. Takes up to 17 seconds. Nothing is announced; a session that is up is not
/// touched.
#[utoipa::path(post, path = "/api/v1/peers/{name}/test", tag = "status",
    params(("name" = String, Path, description = "The peer's name")),
    responses((status = 200, description = "What was found", body = PeerProbe)))]
pub(crate) async fn probe(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<PeerProbe>, Problem> {
    let entry = app.entry(&who.principal, "peer.test", name.clone());
    app.audit(entry).await?;
    let found = super::ask(&app, |reply| Ask::ProbePeer { name, reply }).await?;
    found.map(Json).ok_or_else(|| Problem::missing("peer"))
}

/// How far weir acts by itself.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ModeSetting)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModeBody {
    mode: Mode,
}

/// Shows how far weir acts by itself.
#[utoipa::path(get, path = "/api/v1/mode", tag = "status",
    responses((status = 200, description = "The mode", body = ModeBody)))]
pub(crate) async fn mode(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
) -> Json<ModeBody> {
    Json(ModeBody { mode: app.inner.handles.snapshot.load().mode })
}

/// Changes how far weir acts by itself, until the next start.
#[utoipa::path(post, path = "/api/v1/mode", tag = "status", request_body = ModeBody,
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn set_mode(
    who: Allowed<needs::SetMode>,
    State(app): State<App>,
    Form(body): Form<ModeBody>,
) -> Result<Json<Done>, Problem> {
    let command = Command::SetMode { mode: body.mode, by: who.principal.name.clone() };
    send(&app, &who.principal, "mode.set", "mode".to_owned(), command).await.map(Json)
}

/// The process answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Says that the process answers.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, description = "It does", body = Health)))]
pub(crate) async fn healthz(_who: Allowed<Everybody>) -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether listeners are bound and the store is open.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not yet")))]
pub(crate) async fn readyz(
    _who: Allowed<Everybody>,
    State(app): State<App>,
) -> Result<Json<Health>, Problem> {
    if app.is_ready() {
        Ok(Json(Health { status: "ready" }))
    } else {
        Err(Problem::busy("listeners or store are not ready yet"))
    }
}

/// Shows metrics in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(
    _who: Allowed<needs::ReadMetrics>,
    State(app): State<App>,
) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.inner.handles.metrics.render())
}

/// Shows this document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", body = Object,
        content_type = "application/json")))]
pub(crate) async fn document(_who: Allowed<Everybody>) -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(crate::document).as_str();
    ([(header::CONTENT_TYPE, "application/json")], text)
}
