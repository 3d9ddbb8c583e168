//! Keeps web pages out of an API that trusts loopback.
//!
//! A browser on the appliance's console may be told by a hostile page to call 127.0.0.1. Reading
//! through DNS rebinding is stopped by the `Host` check; changing anything needs the
//! `x-weir-operator` header, which a page of another origin cannot set without a CORS preflight that is
//! never answered.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::problem::Problem;

/// Header that names who asks for a change.
pub(crate) const OPERATOR: &str = "x-weir-operator";

/// Longest operator name taken, octets.
const OPERATOR_MAX: usize = 64;

pub(crate) async fn local_host_only(request: Request, next: Next) -> Response {
    if host_is_local(request.headers()) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "the Host header must name loopback")
        .into_response()
}

fn host_is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Who asks for a change.
pub(crate) fn operator(headers: &HeaderMap) -> Result<String, Problem> {
    headers
        .get(OPERATOR)
        .and_then(|v| v.to_str().ok())
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.len() <= OPERATOR_MAX)
        .map(str::to_owned)
        .ok_or_else(|| {
            Problem::new(
                StatusCode::FORBIDDEN,
                "a change needs the header x-weir-operator with your name (at most 64 octets)",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        let check = |host: &str, local| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(host_is_local(&headers), local, "{host}");
        };
        check("127.0.0.1:8080", true);
        check("[::1]:8080", true);
        check("localhost", true);
        check("evil.example:8080", false);
        check("127.0.0.1.evil.example", false);
        assert!(!host_is_local(&HeaderMap::new()));
    }
}
