//! Tests of BGP peers that an operator asks for, one at a time. A session that is up is told of, and never
//! touched.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};
use tracing::info;
use weir_bgp::config::{Config, PeerConfig};
use weir_bgp::speaker::{blank_probe, probe};
use weir_model::{PeerProbe, PeerState, PeerStatus, ProbeStage, Snapshot};

/// What tests need.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    config: Option<Arc<Config>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    turn: Arc<Semaphore>,
}

impl Probes {
    pub(crate) fn new(config: Option<Config>, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { config: config.map(Arc::new), snapshot, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Tests a peer beside everything else. While another test runs the question is dropped, which its
    /// asker sees as 503.
    pub(crate) fn ask(&self, name: &str, reply: oneshot::Sender<Option<PeerProbe>>) {
        let known = self.config.as_ref().and_then(|config| {
            let peer = config.peers.iter().find(|peer| peer.name == name)?;
            Some((Arc::clone(config), peer.clone()))
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
