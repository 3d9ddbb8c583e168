//! The BGP thread: one current-thread runtime for all sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{mpsc, watch};
use tracing::error;
use weir_bgp::config::Config;
use weir_bgp::guard::Admitted;
use weir_bgp::rpki::Table;
use weir_bgp::speaker::{self, Desk, Listening, PeerMemory, Prepared, Speaker, Stop};
use weir_mitigator::Checkpoint;
use weir_model::{Incident, Mitigation, Observed};

use super::channels::Control;
use super::spawn as spawn_thread;

/// Reports that may wait for the core before a session is held up.
const REPORTS_MAX: usize = 1024;

/// Configurations that may wait for the speaker, which takes them at once.
const CHANGES_MAX: usize = 16;

/// A measure in force for so long has been taken by the peers that have it, milliseconds.
const PROOF_MS: u64 = 10_000;

/// What the thread is given.
pub(crate) struct Parts {
    pub(crate) desired: watch::Receiver<Admitted>,
    pub(crate) control: Sender<Control>,
    pub(crate) stopping: watch::Receiver<Stop>,
    pub(crate) desk: Desk,
    pub(crate) memory: BTreeMap<String, PeerMemory>,
    /// Where what the RPKI cache says is kept.
    pub(crate) origins: watch::Sender<Table>,
}

/// What the last run had found out about peers: what it concluded, and what they had on the wire.
pub(crate) fn memory(
    incidents: &[Incident],
    learned: Option<&Checkpoint>,
) -> BTreeMap<String, PeerMemory> {
    let mut peers: BTreeMap<String, PeerMemory> = BTreeMap::new();
    let by_hand = learned.iter().flat_map(|learned| &learned.manual);
    // What was on the wire for a moment when weir was killed may be why it was not for longer.
    let of_incidents = incidents.iter().flat_map(|incident| {
        let stood = move |m: &&Mitigation| incident.verdict.at.since(m.since) >= PROOF_MS;
        incident.mitigations.iter().filter(stood)
    });
    for mitigation in by_hand.chain(of_incidents) {
        for peer in &mitigation.peers {
            let known = peers.entry(peer.clone()).or_default();
            known.proven.push(mitigation.measure.clone());
        }
    }
    for (peer, standing) in learned.iter().flat_map(|learned| &learned.peers) {
        peers.entry(peer.clone()).or_default().standing = standing.clone();
    }
    peers
}

/// The way to the running thread.
#[derive(Debug)]
pub(crate) struct Bgp {
    changes: mpsc::Sender<Prepared>,
    listening: Listening,
    /// For tests of single peers.
    configured: Arc<ArcSwapOption<Config>>,
}

/// Another configuration with what it needs.
pub(crate) struct Ready {
    config: Option<Config>,
    prepared: Prepared,
    listening: Option<Listening>,
}

impl Bgp {
    /// Checks, reads passwords and binds.
    pub(crate) fn prepare(&self, config: Option<&Config>, check: bool) -> anyhow::Result<Ready> {
        let mut config = config.cloned();
        if let Some(config) = config.as_mut().filter(|_| check) {
            config.listen = self.listening.asked();
        }
        let (prepared, listening) = Prepared::new(config.clone(), &self.listening)?;
        Ok(Ready { config, prepared, listening })
    }

    /// Also when nothing has changed but what a password file holds.
    pub(crate) fn put_in_force(&mut self, ready: Ready) {
        let Ready { config, prepared, listening } = ready;
        self.configured.store(config.map(Arc::new));
        if let Some(listening) = listening {
            self.listening = listening;
        }
        if self.changes.try_send(prepared).is_err() {
            error!("the BGP thread does not take what has changed: restart weir");
        }
    }
}

pub(crate) fn spawn(
    config: Option<&Config>,
    configured: Arc<ArcSwapOption<Config>>,
    parts: Parts,
    failed: &Sender<String>,
) -> anyhow::Result<(Bgp, JoinHandle<()>)> {
    let Parts { desired, control, stopping, desk, memory, origins } = parts;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("bgp runtime")?;
    let (first, listening) = Prepared::new(config.cloned(), &Listening::default())?;
    configured.store(config.cloned().map(Arc::new));
    let (changes, changed) = mpsc::channel(CHANGES_MAX);
    let failed_too = failed.clone();
    let thread = spawn_thread("bgp", failed, move || {
        let (observed, reports) = mpsc::channel(REPORTS_MAX);
        let mut stopped = stopping.clone();
        let outcome = runtime.block_on(async move {
            let forward = tokio::spawn(forward(reports, control));
            let farewell = async move {
                let asked = stopped.wait_for(|stop| *stop != Stop::Run).await.is_ok();
                if asked {
                    tokio::time::sleep(speaker::FAREWELL).await;
                }
            };
            let speaker = Speaker::new(first).with_changes(changed).with_desk(desk);
            let speaker = speaker.with_memory(memory).with_origins(origins);
            let outcome = tokio::select! {
                outcome = speaker.run(desired, observed, stopping) => outcome,
                () = farewell => Ok(()),
            };
            forward.abort();
            outcome
        });
        if let Err(error) = outcome {
            error!(%error, "the BGP speaker stopped");
            let _ = failed_too.try_send("bgp".to_owned());
        }
    })?;
    let listening = listening.unwrap_or_default();
    Ok((Bgp { changes, listening, configured }, thread))
}

/// Carries reports to the core, waiting while it is busy without holding up keepalives.
async fn forward(mut reports: mpsc::Receiver<Observed>, control: Sender<Control>) {
    while let Some(observed) = reports.recv().await {
        let mut message = Control::Observed(Box::new(observed));
        loop {
            match control.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
