//! `/api/v1/incidents`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use weir_model::{Command, Incident, IncidentId, IncidentState};

use super::{Done, send};
use crate::Handles;
use crate::guard::operator;
use crate::problem::Problem;

/// What to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Only open or only closed ones.
    state: Option<IncidentState>,
    /// Only those whose target contains this text.
    target: Option<String>,
    /// At most so many, 1-500.
    limit: Option<usize>,
}

/// A list of incidents, newest first.
#[derive(Serialize)]
pub(crate) struct List {
    incidents: Vec<Arc<Incident>>,
}

pub(crate) async fn list(
    State(handles): State<Handles>,
    Query(filter): Query<Filter>,
) -> Json<List> {
    let snapshot = handles.snapshot.load();
    let wanted = |incident: &&Arc<Incident>| {
        filter.state.is_none_or(|state| incident.state == state)
            && filter
                .target
                .as_ref()
                .is_none_or(|text| incident.verdict.target.to_string().contains(text.as_str()))
    };
    let limit = filter.limit.unwrap_or(100).clamp(1, 500);
    let incidents = snapshot.incidents.iter().filter(wanted).take(limit).cloned().collect();
    Json(List { incidents })
}

pub(crate) async fn one(
    State(handles): State<Handles>,
    Path(id): Path<String>,
) -> Result<Json<Arc<Incident>>, Problem> {
    let id = parse(&id)?;
    let snapshot = handles.snapshot.load();
    let found = snapshot.incidents.iter().find(|incident| incident.id == id);
    found.cloned().map(Json).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such incident"))
}

/// Body of a hold request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    /// Hold or release.
    on: bool,
}

pub(crate) async fn hold(
    State(handles): State<Handles>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Hold>,
) -> Result<Json<Done>, Problem> {
    let by = operator(&headers)?;
    send(&handles, Command::Hold { incident: parse(&id)?, on: body.on, by }).await
}

fn parse(id: &str) -> Result<IncidentId, Problem> {
    id.parse().map_err(|_| Problem::new(StatusCode::NOT_FOUND, "no such incident"))
}
