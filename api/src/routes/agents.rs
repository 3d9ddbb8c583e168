//! `/api/v1/agents`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::AgentView;
use crate::access::permission::{Allowed, needs};
use crate::app::App;

/// Nodes with agents.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentList)]
pub(crate) struct Agents {
    /// Whether agents are awaited at all.
    configured: bool,
    /// By name.
    agents: Vec<AgentView>,
}

/// Lists nodes with agents.
#[utoipa::path(get, path = "/api/v1/agents", tag = "status",
    responses((status = 200, description = "Agents", body = Agents)))]
pub(crate) async fn agents(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
) -> Json<Agents> {
    let agents = app.inner.handles.agents.now();
    Json(Agents { configured: agents.is_some(), agents: agents.unwrap_or_default() })
}
