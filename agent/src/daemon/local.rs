//! The local socket: what the command line asks of the running agent. One JSON line each way; the file's
//! permissions are the access control.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::protocol::{NodeStats, RuleReport, ServiceStats};

/// Longest request.
const REQUEST_MAX: u64 = 4096;

/// What the command line asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// How it stands.
    Status,
    /// Put what waits in force.
    Apply,
    /// Take everything out and keep it out.
    Flush,
    /// Undo a flush.
    Resume,
    /// Ask the appliance for a synthetic rule, and wait for it.
    Test,
    /// Take everything out, put the host's settings back, and end.
    Leave,
}

/// How the agent stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Version of the agent.
    pub agent: String,
    /// The appliance.
    pub appliance: String,
    /// `None`: connected; else why not.
    pub link: Option<String>,
    /// This host's clock minus the appliance's, milliseconds; 0 when they agree.
    #[serde(default)]
    pub skew_ms: i64,
    /// Why the appliance's last document was not taken; `None` when it was.
    #[serde(default)]
    pub not_taken: Option<String>,
    /// Epoch and version in force.
    pub version: (u64, u64),
    /// Seconds that the lease still holds.
    pub lease_secs: u64,
    /// Level of defence.
    pub level: String,
    /// What this agent is able to do here.
    pub abilities: Vec<String>,
    /// What it is not able to do, and why.
    pub missing: Vec<String>,
    /// Flushed by the administrator.
    pub paused: bool,
    /// Rules and their fate.
    pub rules: Vec<RuleReport>,
    /// Services and their traffic.
    pub services: Vec<ServiceStats>,
    /// Players remembered.
    pub learned: usize,
    /// The host's health.
    pub stats: NodeStats,
    /// Events not yet told to the appliance.
    pub unsent: usize,
    /// Answer to the question, when it is more than the state: how a test went, for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// A question and where its answer goes.
pub(super) type Asked = (Ask, oneshot::Sender<Status>);

/// Where the socket is.
pub fn path(run: &Path) -> PathBuf {
    run.join("agent.sock")
}

/// Serves the socket for ever.
pub(super) async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    while let Ok((stream, _)) = listener.accept().await {
        let asked = asked.clone();
        tokio::spawn(async move {
            // Who hangs up early gets no answer.
            let _ = answer(stream, asked).await;
        });
    }
}

async fn answer(stream: UnixStream, asked: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_MAX)).read_line(&mut line).await?;
    let ask = serde_json::from_str(&line)?;
    let (reply, status) = oneshot::channel();
    if asked.send((ask, reply)).await.is_ok()
        && let Ok(status) = status.await
    {
        write.write_all(&serde_json::to_vec(&status)?).await?;
    }
    Ok(())
}

/// Asks a running agent.
///
/// # Errors
/// When none answers.
pub async fn ask(run: &Path, ask: &Ask) -> std::io::Result<Status> {
    let mut stream = UnixStream::connect(path(run)).await?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}
