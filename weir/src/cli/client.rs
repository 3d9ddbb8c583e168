//! HTTP over the local socket, one request at a time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use weir_api::{BACKUP, BACKUP_TIME};

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// The way to a running weir.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the weir that listens there.
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Whether a weir answers there.
    pub fn is_answered(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None)
    }

    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        self.ask_if(method, path, None, body)
    }

    /// The same of what nobody has changed since this version was read.
    pub(super) fn ask_if(
        &self,
        method: &str,
        path: &str,
        version: Option<u64>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let bytes = self.wait(async {
            let response = self.send(method, path, version, body).await?;
            Ok(response.into_body().collect().await?.to_bytes())
        })?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("weir sent an answer that is not JSON")
    }

    /// Writes an answer's body as it comes.
    pub(super) fn download(
        &self,
        path: &str,
        out: &mut impl std::io::Write,
    ) -> anyhow::Result<u64> {
        self.wait(async {
            let mut body = self.send("GET", path, None, None).await?.into_body();
            let mut written = 0_u64;
            while let Some(frame) = body.frame().await {
                if let Some(data) = frame?.data_ref() {
                    out.write_all(data)?;
                    written += u64::try_from(data.len())?;
                }
            }
            Ok(written)
        })
    }

    fn wait<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("runtime")?
            .block_on(work)
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        version: Option<u64>,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        // Longer than weir takes, so that what it says of it is heard.
        let patience = if path.starts_with(BACKUP) { BACKUP_TIME + PATIENCE } else { PATIENCE };
        let socket = self.socket.display();
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "cannot reach weir at {socket}: is the service running? (systemctl status weir)"
            )
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Its errors come out of the request, too.
        drop(tokio::spawn(connection));
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        if let Some(version) = version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        let request = request.body(Full::new(Bytes::from(text)))?;
        let response =
            tokio::time::timeout(patience, sender.send_request(request)).await.with_context(
                || format!("weir at {socket} does not answer (systemctl status weir)"),
            )??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{detail} ({status})"),
            None => bail!("{status}"),
        }
    }
}

/// A value as part of a query string.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
