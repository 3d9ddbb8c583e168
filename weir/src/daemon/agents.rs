//! The agents thread: nodes on one side, the core's desired state on the other.
//!
//! Nodes get what the guard admitted, and what only nodes can do about an open incident. Routers get the same
//! state less what `[agents] hand_over` leaves to a node that has it in force: a part of an admitted state, so
//! nothing gets round the guard here. What a node has in force is reported to the core under the peer name
//! `agent:<node>`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use tokio::sync::watch;
use tracing::{info, warn};
use weir_agent::controller::{Common, Policy, Situation};
use weir_agent::protocol::RuleState;
use weir_agent::server::{Config, Server};
use weir_api::Metrics;
use weir_bgp::guard::Admitted;
use weir_collector::socket::SharedInventory;
use weir_mitigator::Config as MitigatorConfig;
use weir_model::{
    AGENT_PEER, Incident, IncidentState, Inventory, LadderStep, Measure, Mode, Observed,
    Originator, Snapshot,
};

use super::channels::Control;
use super::views::{self, View};
use super::{now, spawn as spawn_thread};

/// How often nodes' last reports are written down.
const SAVE: Duration = Duration::from_secs(10);

/// How often monitoring's numbers of nodes are made anew: more often than anybody scrapes them.
const MEASURE: Duration = Duration::from_secs(5);

/// How often incidents are looked at, and routers' turn to get what was left to nodes.
const LOOK: Duration = Duration::from_millis(500);

/// The running listener.
pub(crate) struct Agents {
    /// As bound.
    pub(crate) address: SocketAddr,
    pub(crate) thread: JoinHandle<()>,
}

/// What the thread is given.
pub(crate) struct Parts {
    pub(crate) inventory: Arc<SharedInventory>,
    pub(crate) desired: watch::Receiver<Admitted>,
    /// What is left for routers.
    pub(crate) routers: watch::Sender<Admitted>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// From when on an incident is worth acting on.
    pub(crate) mitigator: MitigatorConfig,
    pub(crate) control: Sender<Control>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Connections at the same time.
    pub(crate) places: usize,
    pub(crate) metrics: Arc<Metrics>,
}

/// Opens the state of nodes.
pub(crate) fn open(config: &Config, folder: &Path) -> anyhow::Result<Arc<View>> {
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    let server = Server::open(folder, now())?;
    server.set_bouncers(&config.bouncers);
    Ok(Arc::new(View::new(server)))
}

pub(crate) fn spawn(
    config: &Config,
    nodes: &View,
    parts: Parts,
    failed: &Sender<String>,
) -> anyhow::Result<Agents> {
    let server = Arc::clone(nodes.server());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("agents runtime")?;
    let listener = runtime
        .block_on(async { weir_api::server::listen(config.listen) })
        .with_context(|| format!("agents.listen {}", config.listen))?;
    let address = listener.local_addr().context("agents socket")?;
    // Nobody else says so: it cannot be set already.
    let _ = nodes.port.set(address.port());
    info!(%address, "awaiting agents");
    let (common, policy) = (config.common(), config.policy());
    let thread = spawn_thread("agents", failed, move || {
        runtime.block_on(async move {
            let serving = tokio::spawn(server.clone().serve_at_most(
                parts.places,
                listener,
                parts.stopping.clone(),
            ));
            keep(&server, parts, &common, policy).await;
            // It watches the same word.
            let _ = serving.await;
        });
        // A stream that a node holds open does not hold up the stop.
        runtime.shutdown_background();
    })?;
    Ok(Agents { address, thread })
}

/// Carries what is desired to the nodes and what they have to the core, until told to stop.
async fn keep(server: &Arc<Server>, parts: Parts, common: &Common, policy: Policy) {
    let (mut desired, mut stopping) = (parts.desired.clone(), parts.stopping.clone());
    let mut reports = server.reports();
    let mut has: BTreeSet<(String, Measure)> = BTreeSet::new();
    let mut shown = BTreeSet::new();
    let mut measure = tokio::time::interval(MEASURE);
    let mut save = tokio::time::interval(SAVE);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut admitted = desired.borrow_and_update().clone();
    parts.hand_over(server, &admitted, common, policy);
    loop {
        tokio::select! {
            outcome = desired.changed() => {
                if outcome.is_err() {
                    return;
                }
                admitted = desired.borrow_and_update().clone();
                parts.hand_over(server, &admitted, common, policy);
            }
            // Panels change services, time brings routers their turn, verdicts go on.
            _ = look.tick() => parts.hand_over(server, &admitted, common, policy),
            _ = measure.tick() => views::measure(&parts.metrics, server, &mut shown),
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
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

impl Parts {
    /// Gives routers and nodes theirs, routers first: they wait for nothing that a node does with its disk.
    fn hand_over(&self, server: &Server, admitted: &Admitted, common: &Common, policy: Policy) {
        let snapshot = self.snapshot.load();
        let inventory = self.inventory.current();
        let at = now();
        {
            let controller = server.controller();
            let for_routers = admitted.only(|m| {
                let incident = match m.originator {
                    Originator::Incident(id) => snapshot.incidents.iter().find(|i| i.id == id),
                    Originator::Operator(_) => None,
                };
                let verdict = incident.map(|i| &i.verdict);
                !policy.holds_back(m, verdict, controller.defends(m, at), at)
            });
            self.routers.send_if_modified(|present| {
                let new = *present != for_routers;
                *present = for_routers;
                new
            });
        }
        let open = |i: &&Arc<Incident>| self.is_for_nodes(i, &inventory, &snapshot.ladder);
        let incidents: Vec<Arc<Incident>> =
            snapshot.incidents.iter().filter(open).cloned().collect();
        let restrained =
            |i: &&Arc<Incident>| inventory.policy_of(i.verdict.target).mode != Mode::Auto;
        let restrained: Vec<_> = incidents.iter().filter(restrained).map(|i| i.id).collect();
        let situation = Situation {
            mitigations: admitted.mitigations(),
            incidents: &incidents,
            services: &inventory.services,
            common,
            alone: snapshot.mode == Mode::Auto,
            restrained: &restrained,
        };
        let changed = server.controller().desire(&situation, at);
        if !changed.is_empty()
            && let Err(error) = server.publish()
        {
            warn!(%error, "cannot keep the state of nodes");
        }
    }

    /// What the guard and the ladder ask of a measure, asked of an incident: nodes act on it without one.
    fn is_for_nodes(
        &self,
        incident: &Incident,
        inventory: &Inventory,
        ladder: &[LadderStep],
    ) -> bool {
        let verdict = &incident.verdict;
        let loud = ladder.first().is_none_or(|step| step.allows(verdict));
        incident.state == IncidentState::Open
            && loud
            && verdict.confidence >= self.mitigator.rate_limit_confidence
            && inventory.protected.covering_net(verdict.target).is_some()
            && !inventory.never_touch.overlaps(verdict.target)
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
        for mitigation in admitted.mitigations() {
            let told = node.rule_report(mitigation);
            let applied = told.is_some_and(|r| r.state == RuleState::Applied);
            if applied {
                now_has.insert((format!("{AGENT_PEER}{name}"), mitigation.measure.clone()));
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
