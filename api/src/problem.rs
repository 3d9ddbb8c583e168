//! Errors as RFC 9457 problem details, for every request that fails, whoever notices.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_model::CommandError;
use weir_store::StoreError;

/// An error answer.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    retry_after_secs: Option<u64>,
}

/// Why a request failed (RFC 9457).
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body {
    /// The status in words.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What exactly, for people.
    pub(crate) detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after_secs: None }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(crate) fn missing(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no such {what}"))
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(crate) fn busy(detail: &str) -> Self {
        Self { retry_after_secs: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    pub(crate) fn too_many(detail: &str, retry_after_secs: u64) -> Self {
        Self {
            retry_after_secs: Some(retry_after_secs),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// Our fault; the log says more than the answer.
    pub(crate) fn internal(what: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{what} failed; the log says why"))
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound => Self::missing("incident, mitigation or protected host"),
            CommandError::Conflict(why) => Self::new(StatusCode::CONFLICT, why),
            CommandError::Refused(why) => Self::invalid(why),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(why) => Self::new(StatusCode::CONFLICT, why),
            error if error.is_of_the_disk() => {
                tracing::error!(%error, "the store refused");
                Self::busy(&format!(
                    "{error}; nothing was changed. withdraw, withdraw-all, hold and a step down in mode \
                     work without it"
                ))
            }
            other => {
                tracing::error!(error = %other, "the store refused");
                Self::internal("the store")
            }
        }
    }
}

/// A JSON body whose rejection is a problem.
#[derive(Debug)]
pub(crate) struct Form<T>(pub(crate) T);

impl<T: for<'de> Deserialize<'de>, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(json_problem(&rejection)),
        }
    }
}

/// Octets of a large body at most.
const LARGE_MAX: usize = 4 << 20;

/// The same, larger: for handlers whose callers have shown before that they may change settings.
#[derive(Debug)]
pub(crate) struct Large<T>(pub(crate) T);

impl<T: for<'de> Deserialize<'de>, S: Send + Sync> FromRequest<S> for Large<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Problem> {
        let limit = axum::extract::DefaultBodyLimit::max(LARGE_MAX);
        limit.apply(&mut request);
        Form::from_request(request, state).await.map(|Form(value)| Self(value))
    }
}

fn json_problem(rejection: &JsonRejection) -> Problem {
    Problem::new(rejection.status(), rejection.body_text())
}

/// A query string whose rejection is a problem.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: for<'de> Deserialize<'de> + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(query_problem(&rejection)),
        }
    }
}

fn query_problem(rejection: &QueryRejection) -> Problem {
    Problem::new(rejection.status(), rejection.body_text())
}

/// One segment of the path, parsed; what does not parse names nothing.
#[derive(Debug)]
pub(crate) struct Segment<T>(pub(crate) T);

impl<T: std::str::FromStr + Send, S: Send + Sync> FromRequestParts<S> for Segment<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let text = text.map_err(|_| Problem::missing("resource"))?;
        text.0.parse().map(Self).map_err(|_| Problem::missing("resource"))
    }
}

pub(crate) async fn not_found() -> Problem {
    Problem::missing("resource")
}

pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource does not take this method")
}
