//! Handlers, one file a resource.

pub(crate) mod incidents;
pub(crate) mod mitigations;
pub(crate) mod status;

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use weir_model::{Command, MitigationId};

use crate::problem::Problem;
use crate::{Handles, Request};

/// What a command answers.
#[derive(Serialize)]
pub(crate) struct Done {
    /// The mitigation made or changed, if the command was about one.
    mitigation: Option<MitigationId>,
}

/// Hands a command to the core and waits for its outcome.
async fn send(handles: &Handles, command: Command) -> Result<Json<Done>, Problem> {
    let (reply, outcome) = oneshot::channel();
    handles.commands.try_send(Request { command, reply }).map_err(|error| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            match error {
                TrySendError::Full(_) => "too many commands are waiting",
                TrySendError::Closed(_) => "weir is stopping",
            },
        )
    })?;
    let stopping = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "weir is stopping");
    let mitigation = outcome.await.map_err(stopping)??;
    Ok(Json(Done { mitigation }))
}
