//! `/api/v1/deliveries` and `/api/v1/webhooks`: what others were told.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ask;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Problem, Segment};
use crate::{Ask, Deliveries};

/// Lists what webhooks were told and what became of it: the last 256, newest first.
#[utoipa::path(get, path = "/api/v1/deliveries", tag = "webhooks",
    responses((status = 200, description = "The log", body = Deliveries)))]
pub(crate) async fn list(
    _who: Allowed<needs::ReadSettings>,
    State(app): State<App>,
) -> Result<Json<Deliveries>, Problem> {
    Ok(Json(ask(&app, |reply| Ask::Deliveries { reply }).await?))
}

/// A message on its way.
#[derive(Serialize, ToSchema)]
pub(crate) struct Queued {
    /// Its number in the log.
    delivery: u64,
}

/// Sends a test message to one webhook; the log says what became of it.
#[utoipa::path(post, path = "/api/v1/webhooks/{name}/test", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 200, description = "It is on its way", body = Queued)))]
pub(crate) async fn test(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Queued>, Problem> {
    let entry = app.entry(&who.principal, "webhook.test", name.clone());
    app.audit(entry).await?;
    let delivery = ask(&app, |reply| Ask::TestHook { name, reply }).await?;
    let delivery = delivery.ok_or_else(|| Problem::missing("webhook"))?;
    Ok(Json(Queued { delivery }))
}
