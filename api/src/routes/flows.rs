//! `/api/v1/flows/query`: passed on to `weir-flows`, which keeps to limits of its own.

use std::io;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use weir_model::{FlowAnswer, FlowQuery, QUESTION};

use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::problem::{Form, Problem};

/// Longest answer, octets: 10,000 groups with time series have some 30 million.
const ANSWER_MAX: u32 = 64 << 20;

/// Longer than `weir-flows` lets a question take, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(25);

/// What `weir-flows` says of a question that it does not answer.
#[derive(Deserialize)]
struct Refused {
    error: Why,
}

#[derive(Deserialize)]
struct Why {
    kind: String,
    text: String,
}

/// Asks the archive of flow records.
#[utoipa::path(post, path = "/api/v1/flows/query", tag = "flows", request_body = FlowQuery,
    responses((status = 200, description = "The answer", body = FlowAnswer)))]
pub(crate) async fn query(
    _who: Allowed<needs::ReadFlows>,
    State(app): State<App>,
    Form(query): Form<FlowQuery>,
) -> Result<Response, Problem> {
    let socket = &app.inner.handles.flows;
    if socket.as_os_str().is_empty() {
        let what = "no archive: flows.socket is empty in the configuration";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, what));
    }
    let absent = |_| {
        Problem::busy(&format!(
            "weir-flows does not answer at {} (systemctl enable --now weir-flows)",
            socket.display()
        ))
    };
    let question = serde_json::to_vec(&query).map_err(|_| Problem::internal("the question"))?;
    let mut stream = UnixStream::connect(socket).await.map_err(absent)?;
    // When whoever asks goes, this ends with them, and weir-flows sees its connection end.
    let answer = tokio::time::timeout(PATIENCE, ask(&mut stream, &question)).await;
    let answer = answer.map_err(|_| Problem::busy("weir-flows takes too long"))?.map_err(absent)?;
    if answer.starts_with(br#"{"error""#) {
        let Ok(Refused { error }) = serde_json::from_slice(&answer) else {
            return Err(Problem::internal("weir-flows"));
        };
        return Err(match error.kind.as_str() {
            "busy" => Problem::busy(&error.text),
            "wrong" | "limit" => Problem::invalid(error.text),
            _ => Problem::new(StatusCode::BAD_GATEWAY, error.text),
        });
    }
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], answer).into_response())
}

async fn ask(stream: &mut UnixStream, question: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[QUESTION]).await?;
    stream.write_all(&len.to_le_bytes()).await?;
    stream.write_all(question).await?;
    let len = stream.read_u32_le().await?;
    if len > ANSWER_MAX {
        return Err(io::Error::other("an answer that is too long"));
    }
    let mut answer = Vec::new();
    stream.take(len.into()).read_to_end(&mut answer).await?;
    if answer.len() == len as usize { Ok(answer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
