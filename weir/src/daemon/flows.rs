//! Sends every accepted record to `weir-flows`, when it is there. A thread of its own: what the archive does
//! not take waits in a bounded channel, and beyond it the receivers drop and count.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tracing::{info, warn};
use weir_api::Metrics;
use weir_collector::{Tap, TapState};
use weir_model::{ArchivedFlow, RECORDS};

use super::spawn as spawn_thread;

/// How often a `weir-flows` that is not there is looked for.
const AGAIN: Duration = Duration::from_secs(1);

/// How long it may take nothing before it is given up, to be looked for again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread's state.
struct Link {
    socket: PathBuf,
    stream: Option<UnixStream>,
    state: Arc<TapState>,
    metrics: Arc<Metrics>,
    frame: Vec<u8>,
    sent: u64,
    /// Losses that the archive knows of.
    told: u64,
}

/// Without a socket there is no tap.
pub(crate) fn spawn(
    socket: &Path,
    metrics: &Arc<Metrics>,
    failed: &Sender<String>,
) -> anyhow::Result<Option<(Tap, JoinHandle<()>)>> {
    if socket.as_os_str().is_empty() {
        return Ok(None);
    }
    let (tap, state, batches) = Tap::new();
    let mut link = Link {
        socket: socket.to_owned(),
        stream: None,
        state,
        metrics: Arc::clone(metrics),
        frame: Vec::new(),
        sent: 0,
        told: 0,
    };
    let thread = spawn_thread("flows", failed, move || link.run(&batches))?;
    Ok(Some((tap, thread)))
}

impl Link {
    /// Ends when the receivers are gone.
    fn run(&mut self, batches: &Receiver<Vec<ArchivedFlow>>) {
        let mut looked: Option<Instant> = None;
        loop {
            if self.stream.is_none() && looked.is_none_or(|at| at.elapsed() >= AGAIN) {
                looked = Some(Instant::now());
                self.connect();
            }
            match batches.recv_timeout(AGAIN) {
                Ok(batch) => self.send(&batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let lost = self.state.lost.load(Ordering::Relaxed);
            Metrics::raise(&self.metrics.receive_events, &["archive-records"], self.sent);
            Metrics::raise(&self.metrics.receive_events, &["archive-drops"], lost);
        }
    }

    fn connect(&mut self) {
        // Not there: it is not installed, or not started.
        let Ok(mut stream) = UnixStream::connect(&self.socket) else { return };
        let ready =
            stream.set_write_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(&[RECORDS]));
        match ready {
            Ok(()) => {
                info!(socket = %self.socket.display(), "flow records go to weir-flows");
                self.stream = Some(stream);
                self.told = self.state.lost.load(Ordering::Relaxed);
                self.state.on.store(true, Ordering::Relaxed);
            }
            Err(error) => warn!(%error, "weir-flows does not take flow records"),
        }
    }

    fn send(&mut self, batch: &[ArchivedFlow]) {
        let count = batch.len() as u64;
        let Some(stream) = &mut self.stream else {
            // Gathered before the archive went.
            self.state.lost.fetch_add(count, Ordering::Relaxed);
            return;
        };
        let lost = self.state.lost.load(Ordering::Relaxed);
        self.frame.clear();
        let written = u32::try_from(8 + batch.len() * ArchivedFlow::OCTETS)
            .map_err(io::Error::other)
            .and_then(|len| {
                self.frame.extend_from_slice(&len.to_le_bytes());
                self.frame.extend_from_slice(&(lost - self.told).to_le_bytes());
                batch.iter().for_each(|flow| flow.put(&mut self.frame));
                stream.write_all(&self.frame)
            });
        match written {
            Ok(()) => {
                self.told = lost;
                self.sent += count;
            }
            Err(error) => {
                self.state.on.store(false, Ordering::Relaxed);
                self.state.lost.fetch_add(count, Ordering::Relaxed);
                warn!(%error, "weir-flows takes flow records no more; detection goes on without it");
                self.stream = None;
            }
        }
    }
}
