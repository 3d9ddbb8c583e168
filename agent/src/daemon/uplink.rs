//! The two tasks that speak with the appliance: one listens to the stream, one sends reports.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use crate::config::Identity;
use crate::contain::Container;
use crate::link::{Client, Events, LinkError, Reply, Url};
use crate::protocol::{Envelope, Report};
use crate::server::Have;

/// Silence after which a stream is dead: leases come every 20 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// What the tasks tell the daemon.
#[derive(Debug)]
pub(super) enum Word {
    /// A document.
    Document(Box<Envelope>),
    /// The stream stands, or not; says why.
    Link(Result<(), String>),
    /// A report arrived, or not.
    Reported(bool),
    /// What came of a capture, for the log.
    Captured(String),
    /// Containers have come or gone.
    Containers(Vec<Container>),
}

pub(super) fn client(identity: &Identity) -> Result<Client, LinkError> {
    Client::new(Url::parse(&identity.url)?, &identity.authority, Some(identity.bearer.clone()))
}

/// Listens for ever. When there is no stream it asks, so that a proxy that breaks streams costs only time.
pub(super) async fn listen(
    mut client: Client,
    etag: watch::Receiver<String>,
    words: mpsc::Sender<Word>,
) {
    let mut backoff = Duration::from_millis(500);
    loop {
        let why = match stream(&mut client, &words, &mut backoff).await {
            Ok(()) => "the stream ended".to_owned(),
            Err(error) => error.to_string(),
        };
        info!(%why, "no stream");
        if words.send(Word::Link(Err(why))).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        let known = etag.borrow().clone();
        match poll(&mut client, &known).await {
            Ok(Some(envelope)) => {
                let _ = words.send(Word::Document(Box::new(envelope))).await;
            }
            Ok(None) => (),
            Err(error) => debug!(%error, "no state either"),
        }
    }
}

async fn stream(
    client: &mut Client,
    words: &mpsc::Sender<Word>,
    backoff: &mut Duration,
) -> Result<(), LinkError> {
    let mut body = client.stream("/v1/agents/stream").await?;
    let _ = words.send(Word::Link(Ok(()))).await;
    let mut events = Events::default();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let Some(frame) = frame.map_err(|_| LinkError::Patience)? else { return Ok(()) };
        let frame = frame.map_err(|e| LinkError::Http(e.to_string()))?;
        let Some(piece) = frame.data_ref() else { continue };
        let done =
            events.push(piece).map_err(|n| LinkError::Http(format!("{n} octets in an event")))?;
        for data in done {
            let envelope = serde_json::from_slice(&data);
            let envelope = envelope.map_err(|e| LinkError::Http(e.to_string()))?;
            *backoff = Duration::from_millis(500);
            let _ = words.send(Word::Document(Box::new(envelope))).await;
        }
    }
}

async fn poll(client: &mut Client, etag: &str) -> Result<Option<Envelope>, LinkError> {
    let reply = client.ask("GET", "/v1/agents/state", Some(etag), Vec::new()).await?;
    let document = match (reply.status, &reply.lease) {
        (200, _) => serde_json::from_slice(&reply.body),
        (304, Some(lease)) => serde_json::from_str(lease),
        (304, None) => return Ok(None),
        (status, _) => return Err(LinkError::Status(status, String::new())),
    };
    document.map(Some).map_err(|e| LinkError::Http(e.to_string()))
}

/// Sends reports one after the other.
pub(super) async fn report(
    mut client: Client,
    mut reports: mpsc::Receiver<Box<Report>>,
    words: mpsc::Sender<Word>,
) {
    while let Some(report) = reports.recv().await {
        let body = serde_json::to_vec(&report).unwrap_or_default();
        let sent = client.ask("POST", "/v1/agents/report", None, body).await;
        let good = matches!(&sent, Ok(reply) if reply.status < 300);
        if !good {
            debug!(?sent, "a report did not get through");
        }
        if words.send(Word::Reported(good)).await.is_err() {
            return;
        }
    }
}

/// Octets of one piece of a capture.
const PIECE: usize = 256 * 1024;

/// Sends the capture of an incident, going on where the last try ended.
pub(super) async fn send_capture(
    client: &mut Client,
    incident: &str,
    file: &[u8],
) -> Result<(), LinkError> {
    let path = format!("/v1/agents/capture/{incident}");
    let mut have = here(client.ask("GET", &path, None, Vec::new()).await?)?;
    while !have.whole {
        let offset = usize::try_from(have.octets).unwrap_or(usize::MAX).min(file.len());
        let piece = file.get(offset..).unwrap_or_default();
        let piece = piece.get(..PIECE.min(piece.len())).unwrap_or_default();
        let path = format!("{path}/{offset}/{}", file.len());
        let before = have;
        have = here(client.ask("PUT", &path, None, piece.to_vec()).await?)?;
        if have == before {
            return Err(LinkError::Http("the appliance has something else".to_owned()));
        }
    }
    Ok(())
}

fn here(reply: Reply) -> Result<Have, LinkError> {
    if reply.status >= 300 {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        return Err(LinkError::Status(reply.status, text));
    }
    serde_json::from_slice(&reply.body).map_err(|e| LinkError::Http(e.to_string()))
}
