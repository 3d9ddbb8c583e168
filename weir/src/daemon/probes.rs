//! What an operator asks of single BGP peers: what they have, and tests, one at a time. A session
//! that is up is told of, and never touched.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, oneshot};
use tracing::info;
use weir_bgp::config::{Config, PeerConfig};
use weir_bgp::speaker::{Desk, blank_probe, probe};
use weir_model::{PeerProbe, PeerRoutes, PeerState, PeerStatus, ProbeStage, Snapshot};

/// What tests need.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    config: Arc<ArcSwapOption<Config>>,
    desk: Desk,
    snapshot: Arc<ArcSwap<Snapshot>>,
    turn: Arc<Semaphore>,
}

impl Probes {
    pub(crate) fn new(
        config: Arc<ArcSwapOption<Config>>,
        desk: Desk,
        snapshot: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        Self { config, desk, snapshot, turn: Arc::new(Semaphore::new(1)) }
    }

    /// What a peer has, and what it has not and why. The asker may have hung up.
    pub(crate) fn show(&self, name: String, reply: oneshot::Sender<Option<PeerRoutes>>) {
        let desk = self.desk.clone();
        drop(tokio::spawn(async move {
            let _ = reply.send(desk.show(&name).await);
        }));
    }

    /// Forgets what was concluded of a peer's route, or of all.
    pub(crate) fn lift(
        &self,
        name: String,
        route: Option<String>,
        reply: oneshot::Sender<Option<bool>>,
    ) {
        let desk = self.desk.clone();
        drop(tokio::spawn(async move {
            let _ = reply.send(desk.lift(&name, route).await);
        }));
    }

    /// Tests a peer beside everything else. While another test runs the question is dropped, which its
    /// asker sees as 503.
    pub(crate) fn ask(&self, name: &str, reply: oneshot::Sender<Option<PeerProbe>>) {
        let known = self.config.load_full().and_then(|config| {
            let peer = config.peers.iter().find(|peer| peer.name == name)?.clone();
            Some((config, peer))
        });
        let Some((config, peer)) = known else {
            // The asker may have hung up.
            let _ = reply.send(None);
            return;
        };
        let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() else { return };
        let snapshot = self.snapshot.load();
        let status = snapshot.peers.iter().find(|status| status.name == name);
        if let Some(status) = status.filter(|status| status.state == PeerState::Established) {
            let _ = reply.send(Some(of_session(&peer, status)));
            return;
        }
        drop(tokio::spawn(async move {
            let found = probe(&config, &peer).await;
            info!(peer = peer.name, stage = ?found.stage, good = found.good, "peer tested");
            let _ = reply.send(Some(found));
            drop(turn);
        }));
    }
}

/// What the session itself shows.
fn of_session(peer: &PeerConfig, status: &PeerStatus) -> PeerProbe {
    let configured = peer.families.iter().map(|family| family.id().to_owned());
    let missing: Vec<String> = configured.filter(|f| !status.families.contains(f)).collect();
    let mut findings = vec!["the session is up; nothing was sent".to_owned()];
    if !missing.is_empty() {
        findings.push(format!(
            "it does not offer {}: what needs it does not reach this peer; switch it on there for this \
             neighbour, or take it out of bgp.peer.families",
            missing.join(", ")
        ));
    }
    PeerProbe {
        stage: ProbeStage::Established,
        good: missing.is_empty(),
        families: status.families.clone(),
        missing,
        findings,
        ..blank_probe(peer)
    }
}
