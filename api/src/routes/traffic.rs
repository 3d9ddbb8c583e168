//! `/api/v1/traffic`: everything towards what is protected, second by second.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use weir_model::Millis;

use super::hosts::ask;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Params, Problem};
use crate::{Question, Traffic};

/// Busiest hosts shown.
pub(crate) const TOP: usize = 20;

/// Which seconds.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// Only seconds after this, milliseconds since 1970; all of the last five minutes when absent.
    after: Option<Millis>,
}

/// Shows the last five minutes of all traffic, second by second, and the busiest hosts.
#[utoipa::path(get, path = "/api/v1/traffic", tag = "hosts", params(Since),
    responses((status = 200, description = "The traffic", body = Traffic)))]
pub(crate) async fn traffic(
    _who: Allowed<needs::ReadStatus>,
    State(app): State<App>,
    Params(since): Params<Since>,
) -> Result<Json<Traffic>, Problem> {
    let after = since.after.unwrap_or_default();
    Ok(Json(ask(&app, |reply| Question::Traffic { after, hosts: TOP, reply }).await?))
}
