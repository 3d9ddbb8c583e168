//! `/api/v1/agents`, and the packets that nodes kept of incidents.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::{IncidentId, IpNet};

use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::nodes::{AgentDetail, AgentView, Nodes};
use crate::problem::{Problem, Segment};

/// Nodes with agents.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentList)]
pub(crate) struct Agents {
    /// Whether agents are awaited at all.
    configured: bool,
    /// By name.
    agents: Vec<AgentView>,
}

/// A join token. It is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = JoinToken)]
pub(crate) struct Made {
    /// Lets one node join.
    token: String,
    /// TCP port of the appliance on which nodes are awaited.
    port: u16,
    /// How long it may be used, seconds.
    expires_in_secs: u64,
}

/// Packets that a node kept of an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct Capture {
    /// The node.
    node: String,
    /// Size of the file, octets.
    octets: u64,
}

/// What nodes kept of an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct CaptureList {
    /// By node.
    captures: Vec<Capture>,
}

fn nodes(app: &App, what: &'static str) -> Result<Arc<dyn Nodes>, Problem> {
    let nodes = app.inner.handles.agents.clone().filter(|nodes| nodes.are_awaited());
    nodes.ok_or_else(|| Problem::missing(what))
}

/// Asks on a thread that may read files.
async fn ask<T: Send + 'static>(
    nodes: Arc<dyn Nodes>,
    question: impl FnOnce(&dyn Nodes) -> T + Send + 'static,
) -> Result<T, Problem> {
    let answer = tokio::task::spawn_blocking(move || question(nodes.as_ref())).await;
    answer.map_err(|_| Problem::internal("agents"))
}

/// Lists nodes with agents.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents",
    responses((status = 200, description = "Agents", body = Agents)))]
pub(crate) async fn agents(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
) -> Json<Agents> {
    let nodes = app.inner.handles.agents.as_ref().filter(|nodes| nodes.are_awaited());
    let agents = nodes.map(|nodes| nodes.list());
    Json(Agents { configured: agents.is_some(), agents: agents.unwrap_or_default() })
}

/// Shows a node: its rules and their fate, services, containers, health and what happened there.
#[utoipa::path(get, path = "/api/v1/agents/{name}", tag = "agents",
    params(("name" = String, Path, description = "The node's name")),
    responses((status = 200, description = "The node", body = AgentDetail)))]
pub(crate) async fn one(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<AgentDetail>, Problem> {
    let found = ask(nodes(&app, "agent")?, move |nodes| nodes.one(&name)).await?;
    found.map(Json).ok_or_else(|| Problem::missing("agent"))
}

/// For which node a join token is.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = NewJoinToken)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct For {
    /// The only name that may be joined under; any when absent.
    name: Option<String>,
    /// The node's addresses, as prefixes: routers are relieved (`hand_over`) of these alone.
    #[schema(value_type = Vec<String>)]
    addresses: Vec<IpNet>,
}

/// Makes a token with which one node may join: `weir-agent join https://HOST:PORT TOKEN`. Without a body it is for
/// any node, of whose addresses nothing is said.
#[utoipa::path(post, path = "/api/v1/agents/tokens", tag = "agents", request_body = Option<For>,
    responses((status = 201, description = "Made", body = Made)))]
pub(crate) async fn token(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    body: Bytes,
) -> Result<(StatusCode, Json<Made>), Problem> {
    let wanted = if body.is_empty() { Ok(For::default()) } else { serde_json::from_slice(&body) };
    let wanted: For = wanted.map_err(|error| Problem::invalid(error.to_string()))?;
    let nodes = nodes(&app, "section [agents]: no node is awaited")?;
    app.audit(app.entry(
        &who.principal,
        "agents.token",
        wanted.name.as_deref().unwrap_or_default(),
    ))
    .await?;
    let made =
        ask(nodes, move |nodes| nodes.token(wanted.name.as_deref(), &wanted.addresses)).await?;
    let made = made.map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
    let crate::JoinToken { token, port, expires_in_secs } = made;
    Ok((StatusCode::CREATED, Json(Made { token, port, expires_in_secs })))
}

/// Lists what nodes kept of an incident.
#[utoipa::path(get, path = "/api/v1/incidents/{id}/captures", tag = "agents",
    params(("id" = String, Path, description = "The incident's identifier")),
    responses((status = 200, description = "Captures", body = CaptureList)))]
pub(crate) async fn captures(
    _who: Allowed<needs::ReadCaptures>,
    State(app): State<App>,
    Segment(id): Segment<IncidentId>,
) -> Result<Json<CaptureList>, Problem> {
    let found = match nodes(&app, "capture") {
        Ok(nodes) => ask(nodes, move |nodes| nodes.captures(id)).await?,
        Err(_) => Vec::new(),
    };
    let captures = found.into_iter().map(|(node, octets)| Capture { node, octets }).collect();
    Ok(Json(CaptureList { captures }))
}

/// Downloads the packets that a node kept of an incident, as pcapng: the last ones before it and the first
/// ones of it.
#[utoipa::path(get, path = "/api/v1/incidents/{id}/captures/{node}", tag = "agents",
    params(("id" = String, Path, description = "The incident's identifier"),
           ("node" = String, Path, description = "The node's name")),
    responses((status = 200, description = "The packets", body = Vec<u8>,
        content_type = "application/x-pcapng")))]
pub(crate) async fn capture(
    who: Allowed<needs::ReadCaptures>,
    State(app): State<App>,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Ok(Path((id, node))) = names else { return Err(Problem::missing("capture")) };
    let id: IncidentId = id.parse().map_err(|_| Problem::missing("incident"))?;
    let of = node.clone();
    let file = ask(nodes(&app, "capture")?, move |nodes| nodes.capture(id, &of)).await?;
    let file = file.ok_or_else(|| Problem::missing("capture"))?;
    // Players' packets leave the appliance: who took them is on record.
    app.audit(app.entry(&who.principal, "captures.read", format!("{id} {node}"))).await?;
    let name = format!("attachment; filename=\"{id}-{node}.pcapng\"");
    let name = HeaderValue::from_str(&name);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-pcapng")),
        (header::CONTENT_DISPOSITION, name.unwrap_or(HeaderValue::from_static("attachment"))),
    ];
    Ok((headers, file).into_response())
}
