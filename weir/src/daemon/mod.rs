//! The running appliance: threads, channels, sockets and the clock.
//!
//! | thread | owns | waits on |
//! |---|---|---|
//! | `rx/<n>` | a socket and its shard | `recvmmsg`, with a timeout at the slice's end |
//! | `core` | detector, mitigator, ledger | slices and control messages |
//! | `bgp` | sessions and timers | desired state, sockets |
//! | `agents` | nodes: what each is to have, what each reports; what is left for routers | desired state, sockets |
//! | `web` | API | sockets |
//! | `panels`, `panel/<name>` | synchronisation with game panels | their answers |
//! | `owners`, `owners/mail` | pages for owners of servers | sockets |
//! | `notify`, `notify/<n>` | webhooks and scrubbing services | news, answers, timers |
//! | `store` | the state file | its queue |
//! | `flows` | the way to `weir-flows` | batches of records |
//! | `history` | the last minutes of every host, the history file | the core's seconds, questions |
//!
//! A thread that ends before it is asked to, or panics, ends the process: a wrong mitigator is worse
//! than an absent one, and the service manager restarts weir with the state file as it was.

mod agents;
mod allow;
mod baselines;
mod bgp;
mod channels;
mod clock;
mod core_thread;
mod descriptors;
mod flows;
mod heard;
mod history;
mod inventory;
mod limited;
mod marker;
mod metrics;
mod notify;
mod owners;
mod panel_desk;
mod panels;
mod parts;
mod probes;
mod recorder;
mod reload;
mod store_thread;
mod sums;
mod surroundings;
mod totals;
mod views;
mod web;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::watch;
use tracing::{error, info, warn};
use weir_api::{Facts, Metrics, Records};
use weir_bgp::config::OnStop;
use weir_bgp::guard::Admitted;
use weir_bgp::speaker::Stop;
use weir_collector::socket::{Forgets, SharedExporters, SharedInventory};
use weir_collector::{Registry, socket};
use weir_config::Config;
use weir_model::{Millis, Snapshot};
use weir_store::history::History;
use weir_store::{Health, Opened, Store, StoreError};

use crate::Core;
use crate::core::Input;
use crate::logging::Level;
use channels::{CONTROL_MAX, Control, SliceQueue};
use core_thread::CoreThread;

pub use clock::now;
pub(crate) use recorder::Line;

/// What a start may be told beyond the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Write every input of the core to this file, for `weir replay`.
    pub record: Option<PathBuf>,
    /// The file the configuration comes from, to be read again on request; without it none is.
    pub file: Option<PathBuf>,
    /// How much is logged.
    pub level: Level,
}

/// A running appliance.
#[derive(Debug)]
pub struct Daemon {
    /// UDP sockets that take flows, as bound.
    pub flow_addresses: Vec<SocketAddr>,
    /// The API's socket, as bound.
    pub api_address: SocketAddr,
    /// The agents' socket, as bound, when agents are awaited.
    pub agents_address: Option<SocketAddr>,
    /// The owners' listener, as bound; `None` when it is not configured.
    pub owners_address: Option<SocketAddr>,
    /// The latest snapshot.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Names the thread that ended although nobody asked it to.
    pub failed: Receiver<String>,
    desk: Arc<inventory::Desk>,
    lists: allow::Reader,
    panels: panels::Panels,
    control: Sender<Control>,
    stop_receiving: Arc<AtomicBool>,
    stop_web: watch::Sender<bool>,
    stop_bgp: watch::Sender<Stop>,
    receivers: Vec<JoinHandle<()>>,
    core: JoinHandle<()>,
    bgp: JoinHandle<()>,
    web: JoinHandle<()>,
    agents: JoinHandle<()>,
    store: JoinHandle<()>,
    mode_kept: Option<JoinHandle<()>>,
    history: JoinHandle<()>,
    flows: Option<JoinHandle<()>>,
    tell: notify::Notify,
    notify: JoinHandle<()>,
}

impl Daemon {
    /// Opens the store, builds the core, binds, and starts every thread. What the last run left open
    /// is desired again before the first BGP session opens.
    ///
    /// # Errors
    /// When the store cannot be opened or an address cannot be bound; then nothing runs.
    pub fn start(config: &Config, options: &Options) -> anyhow::Result<Self> {
        let started = now();
        let shares = descriptors::shares(config);
        let opened = open_store(&config.store.path, started)?;
        let mut store = opened.store;
        let mut aside = opened.set_aside;
        if opened.stands_in.is_none() {
            aside.extend(store.set_aside_incidents(started));
        }
        let mut files = marker::Files::open(config);
        let settings = inventory::kept(config, &readable("settings", store.settings(), &mut aside));
        reload::warn_of_hidden(&settings, config);
        let (file, mut config) = (config, config.clone());
        settings.stand_in(&mut config);
        let config = &config;
        let surroundings = surroundings::look(config);
        let shelf = allow::open(config);
        let allowed = Arc::new(shelf.in_force(&config.protect.allow));
        let inventory = settings
            .inventory(&config.protect, now())
            .allowing(allowed)
            .measuring(&config.detector.metrics);
        let inventory = Arc::new(inventory::spare(inventory, config, &surroundings));
        for own in &inventory.infrastructure {
            info!(address = %own.address, part = own.part.title(), name = own.name, "never touched");
        }
        let mut core = Core::new(config, &inventory);
        let mut learned = store_thread::learned(&mut store);
        learned.heed(files.last());
        let incidents = readable("open incidents", store.open_incidents(), &mut aside);
        for line in aside {
            error!("weir starts without a part of what it kept: {line}");
        }
        let mut recorder = options.record.as_deref().map(recorder::Recorder::create).transpose()?;
        if let Some(recorder) = &mut recorder {
            let (incidents, baselines) = (incidents.clone(), learned.baselines.clone());
            let baselines = baselines.map(Box::new);
            let memory = learned.memory.clone().map(Box::new);
            // What stands in for the file is not in the file that a replay is given.
            if *inventory != file.inventory() {
                recorder.write(started, Input::Inventory(Arc::clone(&inventory)));
            }
            if config.mitigator.ladder != file.mitigator.ladder {
                recorder.write(started, Input::Ladder(config.mitigator.ladder.clone()));
            }
            recorder.write(started, Input::Restored { incidents, baselines, memory });
        }
        let of_peers = bgp::memory(&incidents, learned.memory.as_ref());
        core.restore(incidents, learned.baselines, learned.memory, started);
        say_stance(&core);

        let registry = Arc::new(Registry::default());
        let collector =
            weir_collector::Config { exporters: config.exporters(), ..config.collector.clone() };
        let mut sockets = socket::bind(&collector, &inventory, &registry)?;
        let templates = Arc::new(learned.templates);
        for receiver in &mut sockets {
            receiver.restore(&templates);
            if receiver.is_early() {
                let address = receiver.local_addr();
                warn!(%address, "this machine has no such address yet; flows are awaited there");
            }
        }
        let flow_addresses: Vec<SocketAddr> =
            sockets.iter().map(socket::Receiver::local_addr).collect();
        let shards = sockets.len();

        let metrics = Arc::new(Metrics::new());
        metrics::begin(&metrics, started);
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let snapshot = Arc::new(ArcSwap::from_pointee(core.snapshot(started)));
        let ready = Arc::new(AtomicBool::new(false));
        let health = Arc::new(Health::default());
        let (failed_tx, failed) = bounded(8);
        let (control, control_rx) = bounded(CONTROL_MAX);
        // What stands in for a file that cannot be opened is for who asks; what is to be written waits for the
        // file itself.
        let (store, records) = match opened.stands_in {
            None => (Ok(store), open_records(&config.store.path, started)?),
            Some(why) => {
                error!(why, path = %config.store.path.display(), "the state file cannot be opened; weir runs without it and tries again");
                (Err(why.clone()), Records::standing_in(&config.store.path, store, why))
            }
        };
        let (store_tx, store) = store_thread::spawn(store, config, &metrics, &health, &failed_tx)?;
        let (marker, mode_kept) = marker::spawn(files, &failed_tx)?;
        let (desired, desired_rx) = watch::channel(Admitted::default());
        let (stop_bgp, bgp_stopping) = watch::channel(Stop::Run);
        let (stop_web, web_stopping) = watch::channel(false);
        let agents_stopping = web_stopping.clone();

        let nodes = Arc::new(views::Slot::default());
        let (feed, ask, history) = history::spawn(
            open_history(&config.store.path, started)?,
            &metrics,
            &health,
            &failed_tx,
        )?;
        let in_force = Arc::clone(&inventory);
        let inventory = Arc::new(SharedInventory::new(inventory));
        let desk = Arc::new(panel_desk::Desk::new(config, store_tx.clone()));
        let diverted = core.mitigator().mitigations().cloned().collect();
        let (tell, notify) = notify::spawn(
            config,
            &settings.channels,
            notify::Parts {
                desired: desired_rx.clone(),
                control: control.clone(),
                metrics: Arc::clone(&metrics),
                diverted,
                letters: learned.letters,
                store: store_tx.clone(),
                snapshot: Arc::clone(&snapshot),
            },
            &failed_tx,
        )?;
        let exporters = Arc::new(SharedExporters::new(config.exporters().into()));
        let forgets = Arc::new(Forgets::default());
        let inventory_desk = Arc::new(inventory::Desk::new(
            file,
            settings,
            in_force,
            inventory::Parts {
                control: control.clone(),
                shared: Arc::clone(&inventory),
                exporters: Arc::clone(&exporters),
                notify: tell.clone(),
                metrics: Arc::clone(&metrics),
                snapshot: Arc::clone(&snapshot),
                path: options.file.clone(),
                level: options.level.clone(),
                surroundings,
                shelf,
                kept_lists: allow::folder(config),
            },
        ));
        let (origins, known_origins) = watch::channel(weir_bgp::rpki::Table::default());
        let lists = allow::spawn(Arc::clone(&inventory_desk), known_origins, &failed_tx)?;
        let peers_desk = weir_bgp::speaker::Desk::default();
        let peers_configured = Arc::default();
        let web = web::spawn(
            &config.api,
            &config.store.path,
            web::Parts {
                places: shares.web,
                snapshot: Arc::clone(&snapshot),
                metrics: Arc::clone(&metrics),
                ready: Arc::clone(&ready),
                health: Arc::clone(&health),
                records,
                control: control.clone(),
                history: ask,
                facts: facts(started, &flow_addresses),
                flows: config.flows.socket.clone(),
                agents: Some(Arc::clone(&nodes) as Arc<dyn weir_api::nodes::Nodes>),
                panels: Some(Arc::clone(&desk) as Arc<dyn weir_api::panels::Desk>),
                inventory: Arc::clone(&inventory_desk),
                notify: tell.clone(),
                forgets: Arc::clone(&forgets),
                probes: probes::Probes::new(
                    Arc::clone(&peers_configured),
                    peers_desk.clone(),
                    Arc::clone(&snapshot),
                ),
            },
            web_stopping,
            &failed_tx,
        )?;
        let queue = SliceQueue::new(shards);
        let core = CoreThread {
            core,
            queue: queue.clone(),
            control: control_rx,
            desired,
            store: store_tx.clone(),
            snapshot: Arc::clone(&snapshot),
            metrics: Arc::clone(&metrics),
            shards,
            recorder,
            history: feed,
            notify: tell.clone(),
            written: learned.written,
            marker,
        };
        let core = spawn("core", &failed_tx, move || core.run())?;
        // Routers get what is not left to nodes.
        let (routers, for_bgp) = watch::channel(Admitted::default());
        let (peers, bgp) = bgp::spawn(
            config.bgp.as_ref(),
            peers_configured,
            bgp::Parts {
                desired: for_bgp,
                control: control.clone(),
                stopping: bgp_stopping,
                desk: peers_desk,
                memory: of_peers,
                origins,
            },
            &failed_tx,
        )?;
        let stop_receiving = Arc::new(AtomicBool::new(false));
        let agents = agents::spawn(
            config,
            nodes,
            agents::Parts {
                inventory: Arc::clone(&inventory),
                desired: desired_rx,
                routers,
                snapshot: Arc::clone(&snapshot),
                control: control.clone(),
                stopping: agents_stopping,
                metrics: Arc::clone(&metrics),
            },
            &failed_tx,
        )?;
        let (tap, flows) = flows::spawn(&config.flows.socket, &metrics, &failed_tx)?.unzip();
        for receiver in &mut sockets {
            if let Some(tap) = &tap {
                receiver.tap(tap);
            }
            receiver.follow(&inventory);
            receiver.heed(&exporters);
            receiver.obey(&forgets);
        }
        // The thread ends with the last receiver.
        drop(tap);
        let receivers = start_receivers(sockets, &queue, &control, &stop_receiving, &failed_tx)?;
        let panels = panels::spawn(config, &inventory_desk, &metrics, &failed_tx)?;
        let mut owners = owners::Owners::new(&panels, &snapshot, learned.shares, &failed_tx);
        owners.put_in_force(owners.prepare(config, false)?)?;
        desk.open(&panels, &owners);
        let (agents_address, owners_address) = (agents.way.address(), owners.address());
        inventory_desk.follow(parts::Parts {
            bgp: peers,
            web: web.way,
            agents: agents.way,
            panels: panels.way(&metrics),
            panel_desk: desk,
            owners,
            store: store_tx,
        });
        ready.store(true, Ordering::Release);
        info!(
            api = %web.address,
            flows = ?flow_addresses,
            owners = ?owners_address,
            mode = %snapshot.load().mode,
            "ready"
        );
        Ok(Self {
            flow_addresses,
            api_address: web.address,
            agents_address,
            owners_address,
            snapshot,
            failed,
            desk: inventory_desk,
            lists,
            panels,
            control,
            stop_receiving,
            stop_web,
            stop_bgp,
            receivers,
            core,
            bgp,
            web: web.thread,
            agents: agents.thread,
            store,
            mode_kept,
            history,
            flows,
            tell,
            notify,
        })
    }

    /// What is known of the game panels.
    pub fn panels(&self) -> Arc<weir_panel::runner::Update> {
        self.panels.latest()
    }

    /// Reads the configuration file again and puts in force what can change while weir runs. What came of it
    /// stands in the log.
    pub fn reload(&self) {
        let _ = self.desk.reload(false);
    }

    /// Stops in order: commands, receivers, core, BGP, store. Waits for each.
    pub fn stop(self) {
        // Nobody listens any more when its thread has failed; the order holds all the same.
        let _ = self.stop_web.send(true);
        let parts = self.desk.leave();
        self.lists.stop();
        self.panels.stop();
        self.stop_receiving.store(true, Ordering::Release);
        join("rx", self.receivers);
        let _ = self.control.send(Control::Stop);
        join("core", [self.core]);
        let farewell = match self.desk.on_stop() {
            OnStop::Withdraw => Stop::Withdraw,
            OnStop::Hold => Stop::Hold,
        };
        let _ = self.stop_bgp.send(farewell);
        self.tell.stop(farewell == Stop::Withdraw);
        join("bgp", [self.bgp]);
        join("notify", [self.notify]);
        join("web", [self.web]);
        if let Some(parts) = parts {
            parts.owners.stop();
        }
        join("agents", [self.agents]);
        join("store", [self.store]);
        join("mode", self.mode_kept);
        join("history", [self.history]);
        join("flows", self.flows);
        info!("stopped");
    }
}

/// Where the authority of agents and the state of nodes are: beside the state file.
pub fn agents_folder(config: &Config) -> PathBuf {
    config.store.path.parent().unwrap_or_else(|| Path::new(".")).join("agents")
}

/// What the API tells of this run.
fn facts(started: Millis, flows: &[SocketAddr]) -> Facts {
    Facts { started, flow_listeners: flows.to_vec() }
}

fn open_store(path: &Path, at: Millis) -> anyhow::Result<Opened> {
    if path.as_os_str() == ":memory:" {
        let store = Store::in_memory()?;
        return Ok(Opened { store, stands_in: None, set_aside: Vec::new() });
    }
    if let Some(folder) = path.parent() {
        // One that cannot be made is said with the file's name.
        let _ = std::fs::create_dir_all(folder);
        weir_store::backup::forget_unfinished(folder);
    }
    Opened::at(path, at).with_context(|| format!("store.path {}", path.display()))
}

/// The API's own connections.
fn open_records(path: &Path, at: Millis) -> anyhow::Result<Records> {
    if path.as_os_str() == ":memory:" {
        return Ok(Records::in_memory()?);
    }
    Records::open(path).or_else(|error| {
        warn!(%error, "accounts and settings cannot be changed for now");
        let opened = Opened::at(path, at)?;
        let why = opened.stands_in.unwrap_or_else(|| error.to_string());
        Ok(Records::standing_in(path, opened.store, why))
    })
}

/// What the file says, or nothing when a part of it is damaged.
fn readable<T>(what: &str, read: Result<Vec<T>, StoreError>, aside: &mut Vec<String>) -> Vec<T> {
    read.unwrap_or_else(|error| {
        aside.push(format!("{what} cannot be read ({error}); restore a backup with weir restore"));
        Vec::new()
    })
}

/// Says at the start what a person said about the mode.
fn say_stance(core: &Core) {
    let Some(stance) = core.mitigator().stance() else { return };
    let (mode, by, at) = (stance.mode, &stance.by, stance.at);
    if stance.brake {
        warn!(
            "{mode} since the brake was set by {by} at {at}: nothing is mitigated until `weir mode auto` releases it"
        );
    } else {
        warn!(
            "mode {mode}, set by {by} at {at}, instead of {} in the configuration file",
            stance.file
        );
    }
}

/// The history stands beside the state file, so that a backup of the state stays small. Charts never keep
/// weir from starting: without a file they are kept in memory, and the file is tried again.
fn open_history(state: &Path, at: Millis) -> anyhow::Result<(History, Option<PathBuf>)> {
    if state.as_os_str() == ":memory:" {
        return Ok((History::in_memory()?, None));
    }
    let path = state.with_file_name("history.db");
    match History::open_or_begin(&path, at) {
        Ok((history, None)) => Ok((history, None)),
        Ok((history, Some(aside))) => {
            error!(path = %path.display(), aside = %aside.display(), "the history file is damaged: set aside, and begun anew");
            Ok((history, None))
        }
        Err(error) => {
            error!(%error, path = %path.display(), "the history file cannot be opened: charts are in memory for now");
            Ok((History::in_memory()?, Some(path)))
        }
    }
}

fn start_receivers(
    sockets: Vec<socket::Receiver>,
    queue: &SliceQueue,
    control: &Sender<Control>,
    stop: &Arc<AtomicBool>,
    failed: &Sender<String>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    (0_u16..)
        .zip(sockets)
        .map(|(shard, receiver)| {
            let sink = queue.sink(shard, control.clone());
            let stop = Arc::clone(stop);
            let name = format!("rx/{shard}");
            spawn(&name, failed, move || receiver.run(sink, &stop))
        })
        .collect()
}

/// Starts a thread whose end by panic is reported, never swallowed.
fn spawn(
    name: &str,
    failed: &Sender<String>,
    body: impl FnOnce() + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let failed = failed.clone();
    let label = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            if outcome.is_err() {
                error!(thread = %label, "panicked");
                // Full means that another failure ends the process already.
                let _ = failed.try_send(label);
            }
        })
        .with_context(|| format!("thread {name}"))
}

fn join(name: &str, threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            error!(thread = name, "ended by a panic");
        }
    }
}
