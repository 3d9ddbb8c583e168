//! Health, exporters, peers, mode, metrics.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use weir_model::{Command, ExporterStatus, Mode, PeerStatus};

use super::{Done, send};
use crate::Handles;
use crate::guard::operator;
use crate::problem::Problem;

/// All exporters that ever sent something.
#[derive(Serialize)]
pub(crate) struct Exporters {
    exporters: Vec<ExporterStatus>,
}

pub(crate) async fn exporters(State(handles): State<Handles>) -> Json<Exporters> {
    Json(Exporters { exporters: handles.snapshot.load().exporters.clone() })
}

/// All configured BGP peers.
#[derive(Serialize)]
pub(crate) struct Peers {
    peers: Vec<PeerStatus>,
}

pub(crate) async fn peers(State(handles): State<Handles>) -> Json<Peers> {
    Json(Peers { peers: handles.snapshot.load().peers.clone() })
}

/// How far weir acts by itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModeBody {
    mode: Mode,
}

pub(crate) async fn mode(State(handles): State<Handles>) -> Json<ModeBody> {
    Json(ModeBody { mode: handles.snapshot.load().mode })
}

pub(crate) async fn set_mode(
    State(handles): State<Handles>,
    headers: HeaderMap,
    Json(body): Json<ModeBody>,
) -> Result<Json<Done>, Problem> {
    let by = operator(&headers)?;
    send(&handles, Command::SetMode { mode: body.mode, by }).await
}

/// The process answers.
#[derive(Serialize)]
pub(crate) struct Health {
    status: &'static str,
}

pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

pub(crate) async fn readyz(State(handles): State<Handles>) -> Result<Json<Health>, Problem> {
    if handles.is_ready() {
        Ok(Json(Health { status: "ready" }))
    } else {
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "listeners or store are not ready yet"))
    }
}

pub(crate) async fn metrics(State(handles): State<Handles>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handles.metrics.render())
}
