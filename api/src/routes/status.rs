//! Health, exporters, peers, mode, metrics, and the API document itself.

use std::sync::OnceLock;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::{Command, ExporterStatus, Mode, PeerProbe, PeerRoutes, PeerStatus, Stance};
use weir_store::health::Part;

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
    Json(Overview::of(&app.inner.handles.snapshot.load(), app.troubles()))
}

/// All exporters that are listed or ever sent something.
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

/// Shows what a BGP peer has on the wire (Adj-RIB-Out), what is kept from it and why, and what was
/// concluded about it: routes suspected or banned, since when, until when, and limits.
#[utoipa::path(get, path = "/api/v1/peers/{name}", tag = "status",
    params(("name" = String, Path, description = "The peer's name")),
    responses((status = 200, description = "What it has", body = PeerRoutes)))]
pub(crate) async fn peer(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<PeerRoutes>, Problem> {
    let found = super::ask(&app, |reply| Ask::ShowPeer { name, reply }).await?;
    found.map(Json).ok_or_else(|| Problem::missing("peer"))
}

/// Which routes to send again.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lift {
    /// The route's number, as the peer's page names it; every route, and every limit, when absent.
    #[serde(default)]
    route: Option<String>,
}

/// Forgets what was concluded of a BGP peer's route, so that it is sent again at once.
#[utoipa::path(post, path = "/api/v1/peers/{name}/lift", tag = "status", request_body = Lift,
    params(("name" = String, Path, description = "The peer's name")),
    responses((status = 200, description = "Done", body = Done),
        (status = 404, description = "No such peer, or nothing is held against such a route")))]
pub(crate) async fn lift(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Form(body): Form<Lift>,
) -> Result<Json<Done>, Problem> {
    let what = body.route.as_deref().unwrap_or("everything");
    let entry = app.entry(&who.principal, "peer.lift", format!("{name} {what}"));
    app.audit(entry).await?;
    let route = body.route;
    let lifted = super::ask(&app, |reply| Ask::LiftPeer { name, route, reply }).await?;
    match lifted {
        None => Err(Problem::missing("peer")),
        Some(false) => Err(Problem::missing("suspected or banned route at this peer")),
        Some(true) => Ok(Json(Done { mitigation: None, recorded: true })),
    }
}

/// Forgets what was learned of an exporter: templates, sampling rates, clocks and interfaces, of all agents
/// behind its address. Records that come before the next template wait for it.
#[utoipa::path(post, path = "/api/v1/exporters/{name}/forget", tag = "status",
    params(("name" = String, Path, description = "The exporter's name or address")),
    responses((status = 200, description = "Done", body = Done),
        (status = 404, description = "No such exporter")))]
pub(crate) async fn forget(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Done>, Problem> {
    let snapshot = app.inner.handles.snapshot.load();
    let is_it = |e: &&ExporterStatus| e.name == name || e.address.to_string() == name;
    let found = snapshot.exporters.iter().find(is_it).map(|exporter| exporter.address);
    let address = found.ok_or_else(|| Problem::missing("exporter"))?;
    let entry = app.entry(&who.principal, "exporter.forget", format!("{name} {address}"));
    app.audit(entry).await?;
    super::ask(&app, |reply| Ask::ForgetExporter { address, reply }).await?;
    Ok(Json(Done { mitigation: None, recorded: true }))
}

/// How far weir acts by itself.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ModeSetting)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModeBody {
    mode: Mode,
}

/// How far weir acts by itself, and who says so.
#[derive(Serialize, ToSchema)]
#[schema(as = ModeState)]
pub(crate) struct ModeState {
    mode: Mode,
    /// What a person said about it, as far as it outranks the configuration file.
    stance: Option<Stance>,
}

/// Shows how far weir acts by itself.
#[utoipa::path(get, path = "/api/v1/mode", tag = "status",
    responses((status = 200, description = "The mode", body = ModeState)))]
pub(crate) async fn mode(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
) -> Json<ModeState> {
    let snapshot = app.inner.handles.snapshot.load();
    Json(ModeState { mode: snapshot.mode, stance: snapshot.stance.clone() })
}

/// Lets the configuration file decide again how far weir acts by itself; lifts the brake.
#[utoipa::path(delete, path = "/api/v1/mode", tag = "status",
    responses((status = 200, description = "Done", body = Done)))]
pub(crate) async fn follow_file(
    who: Allowed<needs::SetMode>,
    State(app): State<App>,
) -> Result<Json<Done>, Problem> {
    let command = Command::FollowFile { by: who.principal.name.clone() };
    send(&app, &who.principal, "mode.follow-file", "mode".to_owned(), command).await.map(Json)
}

/// Changes how far weir acts by itself: also after a restart, until the configuration file says something
/// else. What goes further than observing lifts the brake.
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

/// weir is ready, and what it is ready without.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    status: &'static str,
    /// Exporters that sent something lately.
    exporters_ok: usize,
    /// Exporters that did not, those that never sent anything included.
    exporters_silent: usize,
    /// BGP sessions that are up.
    peers_up: usize,
    /// BGP sessions configured.
    peers: usize,
}

/// Says whether listeners are bound, the store is open and takes what it is given, and how many exporters and
/// BGP peers are there. Weir goes on watching and mitigating without the store.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Ready", body = Ready),
        (status = 503, description = "Not yet, or the store fails: the detail says which")))]
pub(crate) async fn readyz(
    _who: Allowed<Everybody>,
    State(app): State<App>,
) -> Result<Json<Ready>, Problem> {
    if !app.is_ready() {
        return Err(Problem::busy("listeners or store are not ready yet"));
    }
    let troubles = app.troubles();
    if troubles.is_empty() {
        let Overview { exporters_ok, exporters_silent, peers_up, peers, .. } =
            Overview::of(&app.inner.handles.snapshot.load(), Vec::new());
        return Ok(Json(Ready {
            status: "ready",
            exporters_ok,
            exporters_silent,
            peers_up,
            peers,
        }));
    }
    let parts: Vec<String> = troubles
        .iter()
        .map(|trouble| format!("{}: {}", trouble.part.id(), trouble.error))
        .collect();
    Err(Problem::busy(&format!("weir runs, but its store fails: {}", parts.join("; "))))
}

/// Shows metrics in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(
    _who: Allowed<needs::ReadMetrics>,
    State(app): State<App>,
) -> impl IntoResponse {
    let metrics = &app.inner.handles.metrics;
    let troubles = app.troubles();
    for part in Part::ALL {
        let trouble = troubles.iter().find(|trouble| trouble.part == part);
        metrics.store_failing.with_label_values(&[part.id()]).set(trouble.is_some().into());
        let waiting = trouble.map_or(0, |trouble| trouble.waiting);
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        metrics.store_waiting.with_label_values(&[part.id()]).set(waiting);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
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
