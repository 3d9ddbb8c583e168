//! The agents thread: nodes on one side, the core's desired state on the other.
//!
//! Nodes get what the guard admitted, beside BGP: a rule that routers have already costs a node nothing. What a
//! node has in force is reported to the core under the peer name `agent:<node>`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::Sender;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};
use weir_agent::controller::rule_report;
use weir_agent::protocol::RuleState;
use weir_agent::server::{Config, Server};
use weir_api::{AgentView, Later};
use weir_bgp::guard::Admitted;
use weir_collector::socket::SharedInventory;
use weir_model::{Measure, Observed};

use super::channels::Control;
use super::{now, spawn as spawn_thread};

/// How often nodes' last reports are written down.
const SAVE: Duration = Duration::from_secs(10);

/// The running listener.
pub(crate) struct Agents {
    /// As bound.
    pub(crate) address: SocketAddr,
    pub(crate) thread: JoinHandle<()>,
}

/// What the thread is given.
pub(crate) struct Parts {
    pub(crate) folder: PathBuf,
    pub(crate) inventory: Arc<SharedInventory>,
    pub(crate) desired: watch::Receiver<Admitted>,
    pub(crate) control: Sender<Control>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) views: Later<Vec<AgentView>>,
}

pub(crate) fn spawn(
    config: &Config,
    parts: Parts,
    failed: &Sender<String>,
) -> anyhow::Result<Agents> {
    std::fs::create_dir_all(&parts.folder)
        .with_context(|| format!("folder {}", parts.folder.display()))?;
    let server = Server::open(&parts.folder, now())?;
    server.set_bouncers(&config.bouncers);
    let shown = server.clone();
    parts.views.set(move || super::views::agents(&shown));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("agents runtime")?;
    let listener = runtime
        .block_on(TcpListener::bind(config.listen))
        .with_context(|| format!("agents.listen {}", config.listen))?;
    let address = listener.local_addr().context("agents socket")?;
    info!(%address, "awaiting agents");
    let common = config.common();
    let thread = spawn_thread("agents", failed, move || {
        runtime.block_on(async move {
            let serving = tokio::spawn(server.clone().serve(listener, parts.stopping.clone()));
            keep(&server, parts, &common).await;
            // It watches the same word.
            let _ = serving.await;
        });
        // A stream that a node holds open does not hold up the stop.
        runtime.shutdown_background();
    })?;
    Ok(Agents { address, thread })
}

/// Carries what is desired to the nodes and what they have to the core, until told to stop.
async fn keep(server: &Arc<Server>, mut parts: Parts, common: &weir_agent::controller::Common) {
    let mut reports = server.reports();
    let mut has: BTreeSet<(String, Measure)> = BTreeSet::new();
    let mut save = tokio::time::interval(SAVE);
    loop {
        let admitted = parts.desired.borrow_and_update().clone();
        // Panels change it; nodes hear of that with the next turn of this loop.
        let inventory = parts.inventory.current();
        let changed =
            server.controller().desire(admitted.mitigations(), &inventory.services, common, now());
        if !changed.is_empty()
            && let Err(error) = server.publish()
        {
            warn!(%error, "cannot keep the state of nodes");
        }
        tokio::select! {
            outcome = parts.desired.changed() => {
                if outcome.is_err() {
                    return;
                }
            }
            _ = reports.changed() => {
                for observed in observe(server, &admitted, &mut has) {
                    // A core that is busy hears of it with the next report.
                    if parts.control.try_send(Control::Observed(Box::new(observed))).is_err() {
                        has.clear();
                    }
                }
            }
            _ = save.tick() => {
                if let Err(error) = server.save() {
                    warn!(%error, "cannot keep the state of nodes");
                }
            }
            _ = parts.stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// What nodes have in force now that they had not before, and the other way round.
fn observe(
    server: &Server,
    admitted: &Admitted,
    has: &mut BTreeSet<(String, Measure)>,
) -> Vec<Observed> {
    let mut now_has = BTreeSet::new();
    for (name, node) in server.controller().nodes() {
        let Some(report) = &node.report else { continue };
        for mitigation in admitted.mitigations() {
            let applied =
                rule_report(report, mitigation).is_some_and(|r| r.state == RuleState::Applied);
            if applied {
                now_has.insert((format!("agent:{name}"), mitigation.measure.clone()));
            }
        }
    }
    let at = now();
    let announced = now_has.difference(has).cloned().map(|(peer, measure)| Observed::Announced {
        peer,
        measure,
        at,
    });
    let mut observed: Vec<Observed> = announced.collect();
    observed.extend(has.difference(&now_has).cloned().map(|(peer, measure)| Observed::Withdrawn {
        peer,
        measure,
        at,
    }));
    *has = now_has;
    observed
}
