//! The agents thread: nodes on one side, the core's desired state on the other.
//!
//! Nodes get what the guard admitted, and what only nodes can do about an open incident. Routers get the same
//! state less what `[agents] hand_over` leaves to a node that has it in force: a part of an admitted state, so
//! nothing gets round the guard here. What a node has in force is reported to the core under the peer name
//! `agent:<node>`.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use weir_agent::controller::{Common, Policy, Situation};
use weir_agent::protocol::RuleState;
use weir_agent::server::Server;
use weir_api::Metrics;
use weir_bgp::guard::Admitted;
use weir_collector::socket::SharedInventory;
use weir_config::Config;
use weir_model::{
    AGENT_PEER, Incident, IncidentState, Inventory, LadderStep, Measure, Mode, Observed,
    Originator, Snapshot,
};

use super::channels::Control;
use super::views::{self, Slot, View};
use super::{now, spawn as spawn_thread};

/// Configurations that may wait for the thread, which takes them at once.
const CHANGES_MAX: usize = 16;

/// How often nodes' last reports are written down.
const SAVE: Duration = Duration::from_secs(10);

/// How often monitoring's numbers of nodes are made anew: more often than anybody scrapes them.
const MEASURE: Duration = Duration::from_secs(5);

/// How often incidents are looked at, and routers' turn to get what was left to nodes.
const LOOK: Duration = Duration::from_millis(500);

/// The running thread.
pub(crate) struct Agents {
    pub(crate) way: Way,
    pub(crate) thread: JoinHandle<()>,
}

/// What the thread is given.
pub(crate) struct Parts {
    pub(crate) inventory: Arc<SharedInventory>,
    pub(crate) desired: watch::Receiver<Admitted>,
    /// What is left for routers.
    pub(crate) routers: watch::Sender<Admitted>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) control: Sender<Control>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) metrics: Arc<Metrics>,
}

/// How the listener follows the configuration file.
#[derive(Debug)]
pub(crate) struct Way {
    changes: mpsc::Sender<Option<Setup>>,
    slot: Arc<Slot>,
    /// As configured, and the socket, when nodes are awaited.
    listening: Option<(SocketAddr, TcpListener)>,
}

/// `[agents]`, and what goes with it.
struct Setup {
    common: Common,
    policy: Policy,
    bouncers: Vec<String>,
    /// From when on an incident is worth acting on.
    confidence: u8,
    view: Arc<View>,
    /// Another socket, and how many connections it may hold.
    socket: Option<(TcpListener, usize)>,
}

/// Another configuration with what it needs.
pub(crate) struct Ready {
    setup: Option<Setup>,
    listening: Option<(SocketAddr, TcpListener)>,
}

impl Way {
    /// The agents' socket, as bound, when agents are awaited.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().and_then(|(_, socket)| socket.local_addr().ok())
    }

    /// Opens the state of nodes, and binds another address beside the present one.
    pub(crate) fn prepare(&self, config: &Config, check: bool) -> anyhow::Result<Ready> {
        let Some(agents) = config.agents.as_ref().filter(|_| !check) else {
            return Ok(Ready { setup: None, listening: None });
        };
        let view = match self.slot.view() {
            Some(view) => Arc::clone(view),
            None => open(&super::agents_folder(config))?,
        };
        let (mut socket, mut listening) = (None, None);
        let before = self.listening.as_ref();
        if before.is_none_or(|(asked, _)| *asked != agents.listen) {
            let bound = weir_api::server::bind(agents.listen, before.map(|(_, socket)| socket))
                .and_then(|socket| Ok((socket.try_clone()?, socket)));
            let (kept, new) = bound.with_context(|| format!("agents.listen {}", agents.listen))?;
            socket = Some((new, super::descriptors::shares(config).agents));
            listening = Some((agents.listen, kept));
        }
        let setup = Setup {
            common: agents.common(),
            policy: agents.policy(),
            bouncers: agents.bouncers.clone(),
            confidence: config.mitigator.rate_limit_confidence,
            view,
            socket,
        };
        Ok(Ready { setup: Some(setup), listening })
    }

    /// Nodes that are connected stay so, unless none are awaited any more.
    pub(crate) fn put_in_force(&mut self, ready: Ready) {
        let Ready { setup, listening } = ready;
        match &setup {
            Some(setup) => self.slot.open(&setup.view),
            None => {
                self.slot.close();
                self.listening = None;
            }
        }
        if let Some((asked, socket)) = listening {
            if let (Ok(address), Some(view)) = (socket.local_addr(), self.slot.view()) {
                view.set_port(address.port());
                info!(%address, "awaiting agents");
            }
            self.listening = Some((asked, socket));
        }
        if self.changes.try_send(setup).is_err() {
            error!("the agents' thread does not take what has changed: restart weir");
        }
    }
}

/// Opens the state of nodes.
fn open(folder: &Path) -> anyhow::Result<Arc<View>> {
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    Ok(Arc::new(View::new(Server::open(folder, now())?)))
}

/// Starts the thread, also while no agents are awaited: what is desired goes through it to routers.
pub(crate) fn spawn(
    config: &Config,
    slot: Arc<Slot>,
    parts: Parts,
    failed: &Sender<String>,
) -> anyhow::Result<Agents> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("agents runtime")?;
    let (changes, changed) = mpsc::channel(CHANGES_MAX);
    let mut way = Way { changes, slot, listening: None };
    let first = way.prepare(config, false)?;
    way.put_in_force(first);
    let thread = spawn_thread("agents", failed, move || {
        runtime.block_on(keep(parts, changed));
        // A stream that a node holds open does not hold up the stop.
        runtime.shutdown_background();
    })?;
    Ok(Agents { way, thread })
}

/// Nodes that are awaited.
struct Serving {
    server: Arc<Server>,
    common: Common,
    policy: Policy,
    confidence: u8,
    stop: watch::Sender<bool>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    reports: watch::Receiver<u64>,
    has: BTreeSet<(String, Measure)>,
    shown: BTreeSet<String>,
}

impl Serving {
    /// Goes on as it is configured now.
    fn follow(before: Option<Self>, setup: Setup) -> Self {
        let Setup { common, policy, bouncers, confidence, view, socket } = setup;
        let server = Arc::clone(view.server());
        server.set_bouncers(&bouncers);
        let mut serving = match before {
            Some(serving) => Self { common, policy, confidence, ..serving },
            None => Self {
                reports: server.reports(),
                server,
                common,
                policy,
                confidence,
                stop: watch::Sender::new(false),
                accepting: None,
                has: BTreeSet::new(),
                shown: BTreeSet::new(),
            },
        };
        match socket.map(|(s, places)| Ok((tokio::net::TcpListener::from_std(s)?, places))) {
            None => {}
            Some(Ok((listener, places))) => {
                if let Some(accepting) = serving.accepting.take() {
                    // Connections are tasks of their own.
                    accepting.abort();
                }
                let server = Arc::clone(&serving.server);
                let stop = serving.stop.subscribe();
                let accepting = server.serve_at_most(places, listener, stop);
                serving.accepting = Some(tokio::spawn(accepting));
            }
            Some(Err(error)) => {
                let error: std::io::Error = error;
                error!(%error, "agents are awaited where they were");
            }
        }
        serving
    }

    /// What nodes have in force, as far as it changed; all of it is gone with them.
    fn observe(&mut self, admitted: &Admitted, control: &Sender<Control>) {
        for observed in observe(&self.server, admitted, &mut self.has) {
            // A core that is busy hears of it with the next report.
            if control.try_send(Control::Observed(Box::new(observed))).is_err() {
                self.has.clear();
            }
        }
    }

    /// Nodes are not awaited any more, and keep nothing of what they were told.
    fn end(self, control: &Sender<Control>) {
        self.stop.send_replace(true);
        let at = now();
        for (peer, measure) in self.has {
            let gone = Observed::Withdrawn { peer, measure, at };
            // Full: nobody is told, and the measure ends by itself.
            let _ = control.try_send(Control::Observed(Box::new(gone)));
        }
    }
}

/// Carries what is desired to routers and nodes, and what nodes have to the core. While no nodes are awaited it
/// goes on after the word to stop until the core has ended, so that routers get its last decisions, too.
async fn keep(parts: Parts, mut changes: mpsc::Receiver<Option<Setup>>) {
    let (mut desired, mut stopping) = (parts.desired.clone(), parts.stopping.clone());
    let mut serving: Option<Serving> = None;
    let mut stopped = false;
    let mut measure = tokio::time::interval(MEASURE);
    let mut save = tokio::time::interval(SAVE);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What is configured counts before anything is handed over.
    if let Ok(Some(setup)) = changes.try_recv() {
        serving = Some(Serving::follow(None, setup));
    }
    let mut admitted = desired.borrow_and_update().clone();
    parts.hand_over(serving.as_ref(), &admitted);
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop), if !stopped => {
                if let Some(serving) = serving {
                    serving.stop.send_replace(true);
                    if let Some(accepting) = serving.accepting {
                        let _ = accepting.await;
                    }
                    return;
                }
                stopped = true;
            }
            outcome = desired.changed() => {
                if outcome.is_err() {
                    return;
                }
                admitted = desired.borrow_and_update().clone();
                parts.hand_over(serving.as_ref(), &admitted);
            }
            Some(next) = changes.recv(), if !stopped => {
                serving = match next {
                    Some(setup) => Some(Serving::follow(serving, setup)),
                    None => {
                        if let Some(serving) = serving {
                            serving.end(&parts.control);
                        }
                        None
                    }
                };
                parts.hand_over(serving.as_ref(), &admitted);
            }
            // Panels change services, time brings routers their turn, verdicts go on.
            _ = look.tick(), if serving.is_some() => parts.hand_over(serving.as_ref(), &admitted),
            _ = measure.tick(), if serving.is_some() => if let Some(serving) = &mut serving {
                views::measure(&parts.metrics, &serving.server, &mut serving.shown);
            },
            () = reported(serving.as_mut()) => if let Some(serving) = &mut serving {
                serving.observe(&admitted, &parts.control);
            },
            _ = save.tick(), if serving.is_some() => if let Some(serving) = &serving
                && let Err(error) = serving.server.save()
            {
                warn!(%error, "cannot keep the state of nodes");
            },
        }
    }
}

/// A node reports; none ever does where none are awaited.
async fn reported(serving: Option<&mut Serving>) {
    if let Some(serving) = serving
        && serving.reports.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

impl Parts {
    /// Gives routers and nodes theirs, routers first: they wait for nothing that a node does with its disk.
    fn hand_over(&self, serving: Option<&Serving>, admitted: &Admitted) {
        let to_routers = |next: Admitted| {
            self.routers.send_if_modified(|present| {
                let new = *present != next;
                *present = next;
                new
            });
        };
        let Some(Serving { server, common, policy, confidence, .. }) = serving else {
            return to_routers(admitted.clone());
        };
        let snapshot = self.snapshot.load();
        let inventory = self.inventory.current();
        let at = now();
        {
            let controller = server.controller();
            to_routers(admitted.only(|m| {
                let incident = match m.originator {
                    Originator::Incident(id) => snapshot.incidents.iter().find(|i| i.id == id),
                    Originator::Operator(_) => None,
                };
                let verdict = incident.map(|i| &i.verdict);
                !policy.holds_back(m, verdict, controller.defends(m, at), at)
            }));
        }
        let open = |i: &&Arc<Incident>| is_for_nodes(i, &inventory, &snapshot.ladder, *confidence);
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
}

/// What the guard and the ladder ask of a measure, asked of an incident: nodes act on it without one.
fn is_for_nodes(
    incident: &Incident,
    inventory: &Inventory,
    ladder: &[LadderStep],
    confidence: u8,
) -> bool {
    let verdict = &incident.verdict;
    let loud = ladder.first().is_none_or(|step| step.allows(verdict));
    incident.state == IncidentState::Open
        && loud
        && verdict.confidence >= confidence
        && inventory.protected.covering_net(verdict.target).is_some()
        && !inventory.never_touch.overlaps(verdict.target)
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
