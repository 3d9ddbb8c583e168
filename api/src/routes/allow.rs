//! `/api/v1/allow`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::permission::{Allowed, needs};
use crate::allow::{AllowStatus, Refusal};
use crate::app::App;
use crate::problem::{Form, Problem, Segment};

/// All allow lists.
#[derive(Serialize, ToSchema)]
#[schema(as = AllowLists)]
pub(crate) struct List {
    lists: Vec<AllowStatus>,
}

/// Lists allow lists: what is in force, when it was read, what waits for approval.
#[utoipa::path(get, path = "/api/v1/allow", tag = "settings",
    responses((status = 200, description = "Allow lists", body = List)))]
pub(crate) async fn list(_who: Allowed<needs::ReadSettings>, State(app): State<App>) -> Json<List> {
    Json(List { lists: app.inner.handles.allow.lists() })
}

/// What is to be done with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AllowOrder {
    /// Put the change that waits in force.
    Approve,
    /// Leave the list as it is until its source says something else.
    Reject,
    /// Read its source now.
    Refresh,
}

/// What is asked of an allow list.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = AllowRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    order: AllowOrder,
}

/// Approves or rejects the change of a list that waits, or has its source read.
#[utoipa::path(post, path = "/api/v1/allow/{name}", tag = "settings", request_body = Order,
    params(("name" = String, Path, description = "The list")),
    responses((status = 202, description = "Done, or under way")))]
pub(crate) async fn order(
    who: Allowed<needs::WriteSettings>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    Form(body): Form<Order>,
) -> Result<StatusCode, Problem> {
    let desk = &app.inner.handles.allow;
    let (action, outcome) = match body.order {
        AllowOrder::Approve => ("allow.approve", desk.approve(&name)),
        AllowOrder::Reject => ("allow.reject", desk.reject(&name)),
        AllowOrder::Refresh => ("allow.refresh", desk.refresh(&name)),
    };
    outcome.map_err(refused)?;
    app.audit(app.entry(&who.principal, action, name)).await?;
    Ok(StatusCode::ACCEPTED)
}

fn refused(refusal: Refusal) -> Problem {
    let conflict = |why: &str| Problem::new(StatusCode::CONFLICT, why);
    match refusal {
        Refusal::Unknown => Problem::missing("allow list"),
        Refusal::NothingWaits => conflict("no change of this list waits for approval"),
        Refusal::NoSource => conflict("this list has neither a file nor a URL"),
    }
}
