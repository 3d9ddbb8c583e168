//! The web thread: its own runtime with two workers, so that a busy API delays neither BGP nor the
//! core.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use weir_api::server::{Identity, Listeners, Next, bind_local};
use weir_api::{
    App, Ask, COMMANDS_WAITING, Clock, Config, Facts, Handles, Metrics, Question, Records, Request,
};
use weir_collector::socket::Forgets;
use weir_model::{Mode, Snapshot};
use weir_store::Health;

use super::channels::Control;
use super::inventory::Desk;
use super::notify::{Notice, Notify};
use super::probes::Probes;
use super::{now, spawn as spawn_thread};

/// How often exclusions are looked through for ended ones.
const EXPIRY: std::time::Duration = std::time::Duration::from_secs(5);

/// Other listeners that may wait for the web thread, which takes them at once.
const CHANGES_MAX: usize = 16;

/// Questions of a kind that may wait.
const QUESTIONS_WAITING: usize = 64;

/// How long what must not be turned away waits before it looks for room again.
const ROOM: std::time::Duration = std::time::Duration::from_millis(5);

/// What the API is given.
pub(crate) struct Parts {
    /// Connections over TCP at the same time.
    pub(crate) places: usize,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) health: Arc<Health>,
    pub(crate) records: Records,
    pub(crate) control: Sender<Control>,
    pub(crate) history: Sender<Question>,
    pub(crate) facts: Facts,
    pub(crate) flows: PathBuf,
    pub(crate) agents: Option<Arc<dyn weir_api::nodes::Nodes>>,
    pub(crate) panels: Option<Arc<dyn weir_api::panels::Desk>>,
    pub(crate) inventory: Arc<Desk>,
    pub(crate) notify: Notify,
    pub(crate) probes: Probes,
    pub(crate) forgets: Arc<Forgets>,
}

/// The running API.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) way: Way,
}

/// How the API follows the configuration file.
#[derive(Debug)]
pub(crate) struct Way {
    app: App,
    changes: mpsc::Sender<Next>,
    /// As configured.
    asked: SocketAddr,
    socket: TcpListener,
    /// Where weir keeps a certificate of its own.
    folder: Option<PathBuf>,
}

/// Another configuration with what it needs.
pub(crate) struct Ready {
    config: Config,
    tls: Option<Identity>,
    /// Another socket, twice: to be listened on, and to be followed by a next one.
    sockets: Option<(TcpListener, TcpListener)>,
}

impl Way {
    /// Reads the certificate, and binds another address beside the present one.
    pub(crate) fn prepare(&self, config: &Config, check: bool) -> anyhow::Result<Ready> {
        // Who only asks has no certificate made.
        let made = config.tls.cert.is_none();
        let tls = if config.uses_tls() && !(check && made) {
            let folder = self.folder.as_deref().context("api.tls needs a store on disk")?;
            Some(Identity::load(&config.tls, folder)?)
        } else {
            None
        };
        let sockets = if config.listen == self.asked || check {
            None
        } else {
            let bound = weir_api::server::bind(config.listen, Some(&self.socket))
                .and_then(|socket| Ok((socket.try_clone()?, socket)));
            Some(bound.with_context(|| format!("api.listen {}", config.listen))?)
        };
        Ok(Ready { config: config.clone(), tls, sockets })
    }

    /// Who is connected stays so.
    pub(crate) fn put_in_force(&mut self, ready: Ready) {
        let Ready { config, tls, sockets } = ready;
        self.asked = config.listen;
        self.app.set_config(config);
        let tcp = sockets.map(|(kept, socket)| {
            info!(api = ?socket.local_addr().ok(), "the API has another address");
            self.socket = kept;
            socket
        });
        if self.changes.try_send(Next { tcp, tls }).is_err() {
            error!("the web thread does not take what has changed: restart weir");
        }
    }
}

pub(crate) fn spawn(
    config: &Config,
    store: &Path,
    parts: Parts,
    mut stopping: watch::Receiver<bool>,
    failed: &Sender<String>,
) -> anyhow::Result<Web> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("web")
        .enable_io()
        .enable_time()
        .build()
        .context("web runtime")?;
    let kept = store.as_os_str() != ":memory:";
    let bound = weir_api::server::bind(config.listen, None)
        .with_context(|| format!("api.listen {}", config.listen))?;
    let socket = bound.try_clone().context("api socket")?;
    let (changes, changed) = mpsc::channel(CHANGES_MAX);
    let listen = listen(config, store, kept, (bound, parts.places, changed));
    let listeners = runtime.block_on(listen)?;
    let address = listeners.tcp.local_addr().context("api socket")?;
    let (commands, requests) = mpsc::channel(COMMANDS_WAITING);
    let (hosts, questions) = mpsc::channel(QUESTIONS_WAITING);
    let (asks, asked_for) = mpsc::channel(QUESTIONS_WAITING);
    let handles = Handles {
        snapshot: parts.snapshot,
        commands,
        metrics: parts.metrics,
        ready: parts.ready,
        health: parts.health,
        questions: Some(hosts),
        facts: Arc::new(parts.facts),
        agents: parts.agents,
        panels: parts.panels,
        settings: Arc::clone(&parts.inventory) as Arc<dyn weir_api::settings::Desk>,
        allow: Arc::clone(&parts.inventory) as Arc<dyn weir_api::allow::Desk>,
        asks: Some(asks),
        flows: parts.flows,
    };
    let app = App::new(config.clone(), handles, parts.records, Clock::new(now));
    if let Some(code) = app.setup_code()? {
        info!(code, "there is no owner yet: this code makes the first account, at /api/v1/setup");
    }
    let folder = store.parent().filter(|_| kept).map(ToOwned::to_owned);
    let way = Way { app: app.clone(), changes, asked: config.listen, socket, folder };
    let thread = spawn_thread("web", failed, move || {
        runtime.block_on(async move {
            let asked = tokio::spawn(forward(questions, parts.control.clone(), parts.history));
            let pass_on = tokio::spawn(pass_on(
                asked_for,
                parts.control.clone(),
                parts.notify,
                parts.probes,
                parts.forgets,
            ));
            let forward = tokio::spawn(carry(requests, parts.control));
            let expiry = tokio::spawn(expire(parts.inventory));
            let stop = async move {
                // An error means that the daemon is gone: stop as well.
                let _ = stopping.wait_for(|stop| *stop).await;
            };
            if let Err(error) = weir_api::serve(listeners, app, stop).await {
                error!(%error, "the API stopped");
            }
            forward.abort();
            asked.abort();
            expiry.abort();
            pass_on.abort();
        });
        // A client that holds its connection open does not hold up the stop.
        runtime.shutdown_background();
    })?;
    Ok(Web { address, thread, way })
}

async fn listen(
    config: &Config,
    store: &Path,
    kept: bool,
    (bound, places, changes): (TcpListener, usize, mpsc::Receiver<Next>),
) -> anyhow::Result<Listeners> {
    let tcp = tokio::net::TcpListener::from_std(bound)?;
    let tls = if config.uses_tls() {
        let folder = store.parent().filter(|_| kept).context("api.tls needs a store on disk")?;
        let identity = Identity::load(&config.tls, folder)?;
        let fingerprint = identity.fingerprint();
        if identity.is_new() {
            warn!(fingerprint, "made a certificate of its own: compare this when a browser asks");
        } else {
            info!(fingerprint, "certificate");
        }
        Some(identity)
    } else {
        None
    };
    let local = (!config.socket.as_os_str().is_empty()).then(|| bind_local(&config.socket));
    let local = match local {
        Some(Ok(listener)) => Some(listener),
        // Flows and routes matter more than the command line.
        Some(Err(error)) => {
            warn!(socket = %config.socket.display(), %error, "no socket for the command line");
            None
        }
        None => None,
    };
    Ok(Listeners { tcp, tls, local, places, changes: Some(changes) })
}

/// Ends exclusions whose time is over.
async fn expire(inventory: Arc<Desk>) {
    let mut tick = tokio::time::interval(EXPIRY);
    loop {
        tick.tick().await;
        inventory.tick();
    }
}

/// Carries commands to the core. A full queue drops the request, which its asker sees as 503; what only takes
/// away waits until there is room.
async fn carry(mut requests: mpsc::Receiver<Request>, control: Sender<Control>) {
    while let Some(request) = requests.recv().await {
        // Without the mode, a step down to approving is not known as one; that alone may be asked again.
        let waits = request.command.only_takes_away(Mode::Observe);
        let mut message = Control::Request(Box::new(request));
        loop {
            match control.try_send(message) {
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) if waits => message = back,
                Err(TrySendError::Full(_)) | Ok(()) => break,
            }
            tokio::time::sleep(ROOM).await;
        }
    }
}

/// Carries questions about traffic to whoever knows: baselines the core, the rest the history.
async fn forward(
    mut questions: mpsc::Receiver<Question>,
    control: Sender<Control>,
    history: Sender<Question>,
) {
    while let Some(question) = questions.recv().await {
        // A full queue drops the question, which its asker sees as 503.
        match question {
            Question::Baselines { host, reply } => {
                let _ = control.try_send(Control::Baselines { host, reply });
            }
            other => {
                let _ = history.try_send(other);
            }
        }
    }
}

/// Carries other questions: to the core what a command would change, the rest to who tells others.
async fn pass_on(
    mut asks: mpsc::Receiver<Ask>,
    control: Sender<Control>,
    notify: Notify,
    probes: Probes,
    forgets: Arc<Forgets>,
) {
    while let Some(question) = asks.recv().await {
        // A full queue drops the question, which its asker sees as 503.
        match question {
            Ask::DryRun { command, reply } => {
                let _ = control.try_send(Control::DryRun { command, reply });
            }
            Ask::ProbePeer { name, reply } => probes.ask(&name, reply),
            Ask::ShowPeer { name, reply } => probes.show(name, reply),
            Ask::LiftPeer { name, route, reply } => probes.lift(name, route, reply),
            Ask::ForgetExporter { address, reply } => {
                forgets.forget(address);
                // Whoever asked has gone: it is forgotten all the same.
                let _ = reply.send(());
            }
            Ask::Deliveries { reply } => notify.ask(Notice::Log(reply)),
            Ask::Channels { reply } => notify.ask(Notice::Who(reply)),
            Ask::Resend { delivery, reply } => notify.ask(Notice::Resend { delivery, reply }),
            Ask::Mute { mute, reply } => notify.ask(Notice::Mute { mute, reply }),
            Ask::TestHook { name, reply } => notify.ask(Notice::Test { hook: name, reply }),
        }
    }
}
