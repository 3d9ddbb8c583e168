//! The dashboard: a page, a script and a sheet, built from `api/ui` and part of the binary.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::access::permission::{Allowed, Everybody};
use crate::app::App;
use crate::problem::{Problem, Segment};

/// A file of the dashboard.
struct File {
    name: &'static str,
    content: &'static [u8],
    /// The same, compressed.
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// Files whose names change with their content may be kept for ever; the page that names them may not.
fn serve(name: &str, asked: &HeaderMap) -> Result<Response, Problem> {
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Problem::missing("resource"))?;
    let keep = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else if name.ends_with(".html") {
        "no-cache"
    } else {
        "public, max-age=86400"
    };
    let packed = asked
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|part| part.trim().starts_with("gzip")));
    let body = if packed { file.gzip } else { file.content };
    let mut response = (StatusCode::OK, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Shows the dashboard.
#[utoipa::path(get, path = "/", tag = "dashboard",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(crate) async fn page(
    _who: Allowed<Everybody>,
    State(_app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve("index.html", &headers)
}

/// Shows the dashboard's sign.
#[utoipa::path(get, path = "/weir.svg", tag = "dashboard",
    responses((status = 200, description = "The sign", body = String, content_type = "image/svg+xml")))]
pub(crate) async fn sign(
    _who: Allowed<Everybody>,
    State(_app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve("weir.svg", &headers)
}

/// Shows a file that the dashboard is made of.
#[utoipa::path(get, path = "/assets/{file}", tag = "dashboard",
    params(("file" = String, Path, description = "Its name")),
    responses((status = 200, description = "The file", body = String,
        content_type = "text/javascript")))]
pub(crate) async fn asset(
    _who: Allowed<Everybody>,
    State(_app): State<App>,
    Segment(file): Segment<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve(&format!("assets/{file}"), &headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that is quick over a phone in a tunnel: 100 KB take 0.8 s at 1 Mbit/s. It was 60 KB before every act
    /// that takes something away had a preview and a question, and every list an error of its own.
    const GZIP_MAX: usize = 80_000;

    #[test]
    fn all_of_it_is_small() {
        let size: usize = FILES.iter().map(|file| file.gzip.len()).sum();
        assert!(size < GZIP_MAX, "{size} octets after gzip");
    }

    #[test]
    fn the_page_names_only_files_that_are_here() {
        let page = FILES.iter().find(|file| file.name == "index.html").unwrap();
        let text = std::str::from_utf8(page.content).unwrap();
        let mut named = 0;
        for part in text.split(['"', '\'']).filter(|part| part.starts_with('/')) {
            named += 1;
            assert!(FILES.iter().any(|file| format!("/{}", file.name) == part), "{part}");
        }
        assert!(named >= 3, "script, sheet and sign");
        assert!(!text.contains("<style") && !text.contains("<script>"), "the policy forbids it");
        for file in &FILES {
            let text = String::from_utf8_lossy(file.content);
            // What a node is to type names this very host.
            let own = ["svelte.dev/", "${location.hostname}"];
            let rests = text.split("https://").skip(1);
            let foreign = rests.filter(|rest| !own.iter().any(|own| rest.starts_with(own)));
            assert_eq!(foreign.count(), 0, "{} names another origin", file.name);
        }
    }
}
