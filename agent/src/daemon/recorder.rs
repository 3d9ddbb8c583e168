//! Packets of incidents: kept, written down, sent when the appliance can be reached.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use weir_model::IncidentId;

use super::look;
use super::uplink::{self, Word};
use crate::config::{Config, Identity, write_private};
use crate::eyes::history::{self, Kept, Question};
use crate::eyes::ring::Seen;

/// Captures that may wait for the appliance.
const WAITING_MAX: usize = 8;

/// Tries to send one, and the longest wait between two.
const TRIES: u32 = 60;
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Keeps the last packets and records incidents.
#[derive(Debug)]
pub(super) struct Recorder {
    config: Config,
    identity: Identity,
    /// The task that knows the last packets.
    history: Option<mpsc::Sender<Question>>,
}

impl Recorder {
    pub(super) fn new(config: &Config, identity: &Identity, able: bool) -> Self {
        let history = (able && config.history).then(|| follow(config)).flatten();
        Self { config: config.clone(), identity: identity.clone(), history }
    }

    /// Records the packets to some addresses, behind those that came last.
    pub(super) fn record(
        &self,
        incident: IncidentId,
        targets: Vec<IpAddr>,
        words: mpsc::Sender<Word>,
    ) {
        let (config, identity) = (self.config.clone(), self.identity.clone());
        let history = self.history.clone();
        tokio::spawn(async move {
            let before = last_packets(history).await;
            let comment = format!("weir incident {incident} on {}", identity.node);
            let text = match look::record(&config, &targets, before, &comment).await {
                Ok(None) => "no packet came".to_owned(),
                Ok(Some(file)) => {
                    // Sent all the same when it cannot be written, but not after a restart.
                    let path = keep(&config.state, incident, &file);
                    send(&identity, incident, &file, path.as_deref()).await
                }
                Err(error) => format!("not possible: {error}"),
            };
            // The daemon has ended: nobody is left to know.
            let _ = words.send(Word::Captured(format!("incident {incident}: {text}"))).await;
        });
    }

    /// Sends what an earlier run could not.
    pub(super) fn send_left_over(&self, words: &mpsc::Sender<Word>) {
        for (incident, path) in waiting(&self.config.state) {
            let (identity, words) = (self.identity.clone(), words.clone());
            tokio::spawn(async move {
                let Ok(file) = std::fs::read(&path) else { return };
                let text = send(&identity, incident, &file, Some(&path)).await;
                let _ = words.send(Word::Captured(format!("incident {incident}: {text}"))).await;
            });
        }
    }
}

/// Starts the task that knows the last packets of the first interface.
fn follow(config: &Config) -> Option<mpsc::Sender<Question>> {
    let name = look::interfaces(config).into_iter().next()?;
    let number = nix::net::if_::if_nametoindex(name.as_str()).ok()?;
    let (questions, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(error) = history::follow(number, asked).await {
            warn!(%error, interface = name, "the last packets are not known");
        }
    });
    Some(questions)
}

async fn last_packets(history: Option<mpsc::Sender<Question>>) -> (Vec<Kept>, Seen) {
    let nothing = (Vec::new(), Seen::default());
    let Some(history) = history else { return nothing };
    let (question, answer) = oneshot::channel();
    if history.send(question).await.is_err() {
        return nothing;
    }
    answer.await.unwrap_or(nothing)
}

fn folder(state: &Path) -> PathBuf {
    state.join("captures")
}

/// Captures that wait, oldest first: identifiers rise with time.
fn waiting(state: &Path) -> Vec<(IncidentId, PathBuf)> {
    let entries = std::fs::read_dir(folder(state)).into_iter().flatten().flatten();
    let mut found: Vec<(IncidentId, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let name = path.file_name()?.to_str()?.strip_suffix(".pcapng")?;
            Some((name.parse().ok()?, path))
        })
        .collect();
    found.sort();
    found
}

fn keep(state: &Path, incident: IncidentId, file: &[u8]) -> Option<PathBuf> {
    let path = folder(state).join(format!("{incident}.pcapng"));
    let kept = std::fs::create_dir_all(folder(state)).and_then(|()| write_private(&path, file));
    if let Err(error) = kept {
        warn!(%error, "cannot keep a capture");
        return None;
    }
    let all = waiting(state);
    for (_, old) in all.iter().take(all.len().saturating_sub(WAITING_MAX)) {
        let _ = std::fs::remove_file(old);
    }
    Some(path)
}

/// Sends a capture, again and again while the appliance cannot be reached; what came of it.
async fn send(
    identity: &Identity,
    incident: IncidentId,
    file: &[u8],
    kept: Option<&Path>,
) -> String {
    let octets = file.len();
    let mut wait = Duration::from_secs(2);
    let mut tried = 0;
    loop {
        tried += 1;
        let sent = async {
            let mut client = uplink::client(identity)?;
            uplink::send_capture(&mut client, &incident.to_string(), file).await
        };
        match sent.await {
            Ok(()) => {
                if let Some(path) = kept {
                    let _ = std::fs::remove_file(path);
                }
                return format!("{octets} octets sent");
            }
            Err(error) if tried >= TRIES => {
                return format!("{octets} octets could not be sent: {error}");
            }
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_wait_in_order_and_the_oldest_make_room() {
        let state = tempfile::tempdir().unwrap();
        for n in 0..20 {
            assert!(keep(state.path(), IncidentId(1000 + n), b"x").is_some());
        }
        let left: Vec<u64> = waiting(state.path()).iter().map(|(id, _)| id.0).collect();
        assert_eq!(left, (1012..1020).collect::<Vec<_>>());
    }
}
