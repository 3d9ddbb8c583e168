//! Errors as RFC 9457 problem details.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use weir_model::CommandError;

/// An error answer.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
}

#[derive(Serialize)]
struct Body<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body))
            .into_response()
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "no such incident or mitigation")
            }
            CommandError::Conflict(why) => Self::new(StatusCode::CONFLICT, why),
            CommandError::Refused(why) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, why),
        }
    }
}

pub(crate) async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such resource")
}
