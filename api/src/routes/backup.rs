//! `/api/v1/backup`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use utoipa::IntoParams;
use weir_store::history::History;
use weir_store::{StoreError, backup};

use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Params, Problem};

/// Octets read from the finished backup at a time.
const CHUNK: usize = 256 * 1024;

/// What to back up.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct What {
    /// The history of hosts as well, which may be large.
    history: Option<bool>,
}

/// Takes a backup of the state, consistent while weir runs: a tar with a manifest. It holds password hashes
/// and second factors: keep it like a key.
#[utoipa::path(get, path = "/api/v1/backup", tag = "backup", params(What),
    responses((status = 200, description = "A tar archive", body = Vec<u8>,
        content_type = "application/x-tar")))]
pub(crate) async fn backup(
    who: Allowed<needs::Backup>,
    State(app): State<App>,
    Params(what): Params<What>,
) -> Result<Response, Problem> {
    let at = app.now();
    app.audit(app.entry(&who.principal, "backup.create", "state")).await?;
    let wanted = what.history.unwrap_or(false);
    let history = app.inner.records.history().filter(|path| wanted && path.exists());
    let file = app
        .aside(move |store, scratch| {
            let io = |error| StoreError::Io { what: "backup".to_owned(), error };
            // Nobody else can open it, and it is gone when the answer has been sent.
            let mut file = tempfile::tempfile_in(scratch).map_err(io)?;
            let history = history.map(|path| History::open(&path)).transpose()?;
            backup::create(
                store,
                history.as_ref(),
                scratch,
                env!("CARGO_PKG_VERSION"),
                at,
                &mut file,
            )?;
            std::io::Seek::rewind(&mut file).map_err(io)?;
            Ok(file)
        })
        .await?;
    let length = file.metadata().map(|meta| meta.len()).unwrap_or(0);
    let file = tokio::fs::File::from_std(file).take(length);
    let chunks = futures_util::stream::unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        match file.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    let name = format!("attachment; filename=\"weir-{}.tar\"", at.secs());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("attachment")),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
