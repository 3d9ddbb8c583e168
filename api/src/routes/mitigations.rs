//! `/api/v1/mitigations`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use weir_model::{Command, Measure, Mitigation, MitigationId};

use super::{Done, send};
use crate::Handles;
use crate::guard::operator;
use crate::problem::Problem;

/// Mitigations, newest first.
#[derive(Serialize)]
pub(crate) struct List {
    mitigations: Vec<Mitigation>,
}

pub(crate) async fn list(State(handles): State<Handles>) -> Json<List> {
    Json(List { mitigations: handles.snapshot.load().mitigations.clone() })
}

/// A mitigation asked for by hand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Add {
    measure: Measure,
    /// For how long, seconds.
    ttl_secs: u64,
}

pub(crate) async fn add(
    State(handles): State<Handles>,
    headers: HeaderMap,
    Json(body): Json<Add>,
) -> Result<Json<Done>, Problem> {
    let by = operator(&headers)?;
    send(&handles, Command::Add { measure: body.measure, ttl_secs: body.ttl_secs, by }).await
}

pub(crate) async fn approve(
    State(handles): State<Handles>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Done>, Problem> {
    let by = operator(&headers)?;
    send(&handles, Command::Approve { mitigation: MitigationId(id), by }).await
}

pub(crate) async fn withdraw(
    State(handles): State<Handles>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Done>, Problem> {
    let by = operator(&headers)?;
    send(&handles, Command::Withdraw { mitigation: MitigationId(id), by }).await
}
