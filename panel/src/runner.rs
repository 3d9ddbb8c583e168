//! Threads and clocks around [`Sync`]: one thread per panel, so that a slow one delays no other.
//!
//! ```text
//!   panel threads --Report--> run() --Update--> caller
//!        ^                      ^
//!        +------- Command ------+---- caller (webhook, operator, stop)
//! ```
//! A thread that waits for a panel's answer when everything stops is left to end with its request;
//! it owns a socket and channel ends, nothing that could be lost.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use serde::{Deserialize, Serialize};
use weir_model::{Expected, HostGroup, Millis, PrefixSet, Secret, Service};

use crate::client::{Client, Timeouts};
use crate::config::{Config, Mode, PanelConfig};
use crate::games::{GameConfig, Games};
use crate::keycheck;
use crate::listing::Listing;
use crate::mapping::{Names, names_of};
use crate::snapshot::{AllocationView, NodeView, PanelSnapshot};
use crate::sync::{Action, Event, Status, Sync};

/// Names are asked for again after this long.
const NAMES_MAX_AGE: Duration = Duration::from_secs(300);
/// One round of asking for names ends after this long; the rest keep what they had.
const NAMES_TIME_MAX: Duration = Duration::from_secs(10);
/// Reports are few: one per pass and panel.
const REPORTS_MAX: usize = 64;
/// Largest kept listing read back, octets.
const KEPT_MAX: u64 = 256 << 20;

/// Everything a runner needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Panels and games, already checked.
    pub config: Config,
    /// Prefixes in which addresses count.
    pub protected: PrefixSet,
    /// Folder for the last good listings; none are kept without it.
    pub state: Option<PathBuf>,
    /// How long panels may take.
    pub timeouts: Timeouts,
}

/// What a running synchronisation is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Poll soon: this panel, or all.
    Hint(Option<String>),
    /// The held ports of this panel are gone.
    Accept(String),
    /// End.
    Stop,
}

/// What is known of all panels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Panels, in the order of the configuration.
    pub panels: Vec<PanelState>,
    /// Service ports of all panels, sorted, without duplicates; the first panel wins.
    pub services: Vec<Service>,
    /// Hosts that belong together, by each panel's mode.
    pub groups: Vec<HostGroup>,
    /// What is known beforehand at this moment.
    pub expected: Vec<Expected>,
}

/// What is known of one panel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PanelState {
    /// Name.
    pub name: String,
    /// How its synchronisation stands.
    pub status: Status,
    /// What an operator should look at.
    pub alarms: Vec<String>,
    /// The panel as mapped; `None` before the first listing.
    pub snapshot: Option<Arc<PanelSnapshot>>,
    /// What is known beforehand at this moment: servers that do not run, and windows of the operator.
    pub expected: Vec<Expected>,
}

/// A panel in short, for `weir panel status`: kept beside the listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name.
    pub name: String,
    /// Address.
    pub url: String,
    /// Mode.
    pub mode: Mode,
    /// When this was written.
    pub at: Millis,
    /// How its synchronisation stands.
    pub status: Status,
    /// What an operator should look at.
    pub alarms: Vec<String>,
    /// Nodes with their counts.
    pub nodes: Vec<NodeView>,
    /// Ports on the wire.
    pub services: usize,
    /// Allocations that share a port with another server.
    pub conflicts: usize,
    /// Unmapped allocations, the first [`UNMAPPED_SHOWN_MAX`].
    pub unmapped: Vec<AllocationView>,
}

/// Most unmapped allocations that a summary names; the counts per node are complete.
pub const UNMAPPED_SHOWN_MAX: usize = 200;

/// Where the summary of a panel is kept.
pub fn summary_path(state: &Path, panel: &str) -> PathBuf {
    state.join(format!("panel-{panel}.status.json"))
}

/// Where the last good listing of a panel is kept.
pub fn listing_path(state: &Path, panel: &str) -> PathBuf {
    state.join(format!("panel-{panel}.json"))
}

impl Update {
    fn merge(panels: Vec<PanelState>) -> Self {
        let mut services: Vec<Service> = Vec::new();
        let mut taken = BTreeSet::new();
        for panel in &panels {
            for service in panel.snapshot.iter().flat_map(|s| &s.services) {
                if taken.insert((service.address, service.protocol, service.port)) {
                    services.push(service.clone());
                }
            }
        }
        services.sort();
        let snapshots = panels.iter().filter_map(|panel| panel.snapshot.as_ref());
        let groups = snapshots.flat_map(|snapshot| &snapshot.groups).cloned().collect();
        let expected = panels.iter().flat_map(|panel| &panel.expected).cloned().collect();
        Self { panels, services, groups, expected }
    }
}

/// Synchronises every panel until told to stop, or until nobody can tell any more. Calls
/// `on_update` whenever something changed. Follows what comes out of `setups`: a panel of which
/// nothing changed goes on, and what is known of one that stays counts until it is read anew.
///
/// # Errors
/// In words, when the configuration cannot be used or a thread cannot be started.
pub fn run(
    setup: &Setup,
    setups: &Receiver<Setup>,
    commands: &Receiver<Command>,
    mut on_update: impl FnMut(Update),
) -> Result<(), String> {
    let (report_to, reports) = bounded(REPORTS_MAX);
    let mut workers = Workers { all: Vec::new(), next: 0, report_to };
    workers.follow(setup)?;
    loop {
        select! {
            recv(setups) -> next => match next {
                Err(_) => break,
                Ok(next) => {
                    if let Err(why) = workers.follow(&next) {
                        tracing::error!(why, "panels do not follow the file");
                    }
                    on_update(workers.update());
                }
            },
            recv(commands) -> command => match command {
                Err(_) | Ok(Command::Stop) => break,
                Ok(command) => workers.tell(&command),
            },
            recv(reports) -> report => {
                let Ok((number, state)): Result<(usize, PanelState), _> = report else { break };
                // One that was ended may still have had something to say.
                let of = workers.all.iter_mut().find(|worker| worker.number == number);
                if let Some(worker) = of.filter(|worker| worker.state != state) {
                    worker.state = state;
                    on_update(workers.update());
                }
            },
        }
    }
    workers.tell(&Command::Stop);
    Ok(())
}

/// A panel's thread as its conductor sees it.
struct Running {
    /// By which its reports are told from those of others.
    number: usize,
    panel: PanelConfig,
    key: Secret,
    games: Vec<GameConfig>,
    protected: PrefixSet,
    to: Sender<Command>,
    state: PanelState,
}

struct Workers {
    /// In the order of the configuration.
    all: Vec<Running>,
    next: usize,
    report_to: Sender<(usize, PanelState)>,
}

impl Workers {
    /// Starts and ends threads, so that those run that the setup names.
    fn follow(&mut self, setup: &Setup) -> Result<(), String> {
        let games = setup.config.check().map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        for panel in &setup.config.panels {
            let key = panel.read_key().map_err(|why| format!("panel {}: {why}", panel.name))?;
            all.push((panel, key));
        }
        let mut before = std::mem::take(&mut self.all);
        for (panel, key) in all {
            let known = before.iter().position(|own| own.panel.name == panel.name);
            let known = known.map(|at| before.remove(at));
            let same = known.as_ref().is_some_and(|own| {
                (&own.panel, &own.key, &own.games, &own.protected)
                    == (panel, &key, &setup.config.games, &setup.protected)
            });
            match known {
                Some(own) if same => self.all.push(own),
                known => {
                    if let Some(own) = &known {
                        let _ = own.to.try_send(Command::Stop);
                    }
                    // Of another panel nothing is known yet.
                    let known = known.filter(|own| own.panel.url == panel.url).map(|own| own.state);
                    self.start(setup, panel, key, games.clone(), known)?;
                }
            }
        }
        for gone in before {
            let _ = gone.to.try_send(Command::Stop);
        }
        Ok(())
    }

    fn start(
        &mut self,
        setup: &Setup,
        panel: &PanelConfig,
        key: Secret,
        games: Games,
        known: Option<PanelState>,
    ) -> Result<(), String> {
        let (to, from) = bounded(16);
        let number = self.next;
        self.next += 1;
        let mut worker = Worker::new(setup, panel, key.clone(), games, number);
        worker.snapshot = known.as_ref().and_then(|known| known.snapshot.clone());
        let report_to = self.report_to.clone();
        std::thread::Builder::new()
            .name(format!("panel/{}", panel.name))
            .spawn(move || worker.run(&from, &report_to))
            .map_err(|e| format!("panel {}: {e}", panel.name))?;
        let state = known
            .unwrap_or_else(|| PanelState { name: panel.name.clone(), ..PanelState::default() });
        let (panel, protected) = (panel.clone(), setup.protected.clone());
        let games = setup.config.games.clone();
        self.all.push(Running { number, panel, key, games, protected, to, state });
        Ok(())
    }

    /// A full queue means that enough hints are waiting already.
    fn tell(&self, command: &Command) {
        for Running { panel, to, .. } in &self.all {
            let meant = match command {
                Command::Hint(None) | Command::Stop => true,
                Command::Hint(Some(name)) | Command::Accept(name) => *name == panel.name,
            };
            if meant && to.try_send(command.clone()).is_err() {
                tracing::debug!(panel = %panel.name, "panel is busy, command dropped");
            }
        }
    }

    fn update(&self) -> Update {
        Update::merge(self.all.iter().map(|worker| worker.state.clone()).collect())
    }
}

/// Reads one panel once, for a look at it before or beside the daemon: keeps nothing, and says what
/// the panel would be. Waits where the panel asks to, up to `patience`.
///
/// # Errors
/// In words, when the configuration or the key cannot be used.
pub fn once(
    setup: &Setup,
    panel: &PanelConfig,
    patience: Duration,
) -> Result<(PanelState, Option<Arc<Listing>>), String> {
    let games = setup.config.check().map_err(|e| e.to_string())?;
    let alone = Setup { state: None, ..setup.clone() };
    let key = panel.read_key().map_err(|why| format!("panel {}: {why}", panel.name))?;
    let mut worker = Worker::new(&alone, panel, key, games, 0);
    let begin = worker.clock.now();
    let mut wake = worker.take(Event::Start(None));
    let unfinished = |worker: &Worker| {
        let status = worker.sync.status();
        status.passes == 0 && status.failures == 0
    };
    while unfinished(&worker)
        && wake.since(begin) <= u64::try_from(patience.as_millis()).unwrap_or(0)
    {
        let left = wake.since(worker.clock.now());
        // A channel that fires at an instant: the only wait without a sleep.
        let _ = crossbeam_channel::after(Duration::from_millis(left)).recv();
        wake = worker.take(Event::Wake);
    }
    Ok((worker.state(), worker.sync.listing().cloned()))
}

/// Wall-clock time that never runs backwards: the clock at the start and what passed since.
#[derive(Clone, Copy, Debug)]
struct Clock {
    wall: Millis,
    started: Instant,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Self { wall: Millis(ms), started: Instant::now() }
    }

    fn now(&self) -> Millis {
        self.wall + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

struct Worker {
    index: usize,
    panel: PanelConfig,
    games: Games,
    protected: PrefixSet,
    kept: Option<PathBuf>,
    summary: Option<PathBuf>,
    client: Client,
    sync: Sync,
    clock: Clock,
    wake: Millis,
    names: Names,
    names_asked: Option<Instant>,
    snapshot: Option<Arc<PanelSnapshot>>,
    key_writes: Option<Vec<String>>,
}

impl Worker {
    fn new(setup: &Setup, panel: &PanelConfig, key: Secret, games: Games, index: usize) -> Self {
        let clock = Clock::start();
        let seed = clock.wall.0 ^ (index as u64) << 48;
        Self {
            index,
            sync: Sync::new(panel, key.expose(), seed),
            client: Client::new(&panel.url, key, setup.timeouts),
            wake: clock.wall,
            panel: panel.clone(),
            games,
            protected: setup.protected.clone(),
            kept: setup.state.as_ref().map(|dir| listing_path(dir, &panel.name)),
            summary: setup.state.as_ref().map(|dir| summary_path(dir, &panel.name)),
            clock,
            names: Names::default(),
            names_asked: None,
            snapshot: None,
            key_writes: None,
        }
    }

    fn run(mut self, commands: &Receiver<Command>, reports: &Sender<(usize, PanelState)>) {
        let last_good = self.kept.as_deref().and_then(read_kept);
        let mut wake = self.take(Event::Start(last_good));
        loop {
            self.names_again();
            let state = self.state();
            self.write_summary(&state);
            if reports.send((self.index, state)).is_err() {
                return;
            }
            let left = Duration::from_millis(wake.0.saturating_sub(self.clock.now().0));
            let event = match commands.recv_timeout(left.min(NAMES_MAX_AGE)) {
                Ok(Command::Hint(_)) => Event::Hint,
                Ok(Command::Accept(_)) => Event::Accept,
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => Event::Wake,
            };
            wake = self.take(event);
        }
    }

    /// Works an event off, with every request it leads to; says when to wake up. An event that asks for no
    /// other time leaves the one before in force.
    fn take(&mut self, event: Event) -> Millis {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.sync.step(event, self.clock.now()) {
                match action {
                    Action::WakeAt(at) => self.wake = at,
                    Action::Apply(listing) => self.apply(&listing),
                    Action::Get { request, path } => {
                        events.push(match self.client.get(&path) {
                            Ok(reply) => Event::Reply { request, reply },
                            Err(failure) => Event::NoReply { request, failure },
                        });
                    }
                }
            }
        }
        if self.key_writes.is_none() && self.sync.status().passes > 0 {
            self.key_writes = Some(keycheck::writes(&self.client));
        }
        self.wake
    }

    fn apply(&mut self, listing: &Arc<Listing>) {
        if let Some(path) = &self.kept
            && let Err(error) = keep(path, listing.as_ref())
        {
            tracing::warn!(panel = %self.panel.name, %error, "the last good listing was not kept");
        }
        self.ask_names(listing);
        self.build(listing);
    }

    fn build(&mut self, listing: &Listing) {
        let snapshot =
            PanelSnapshot::build(listing, &self.panel, &self.games, &self.protected, &self.names);
        self.snapshot = Some(Arc::new(snapshot));
    }

    /// Names change without the panel: they are asked for again now and then.
    fn names_again(&mut self) {
        let due = self.names_asked.is_some_and(|at| at.elapsed() >= NAMES_MAX_AGE);
        if let Some(listing) = self.sync.listing().cloned().filter(|_| due) {
            let before = self.names.clone();
            self.ask_names(&listing);
            if self.names != before {
                self.build(&listing);
            }
        }
    }

    /// A name that cannot be resolved now keeps what it led to.
    fn ask_names(&mut self, listing: &Listing) {
        let wanted = names_of(listing);
        self.names.keep(&wanted);
        let started = Instant::now();
        for name in &wanted {
            if started.elapsed() >= NAMES_TIME_MAX {
                tracing::warn!(panel = %self.panel.name, "names take too long to resolve");
                break;
            }
            if let Ok(found) = (name.as_str(), 0).to_socket_addrs() {
                let addresses: Vec<IpAddr> = found.map(|a| a.ip().to_canonical()).collect();
                self.names.set(name, addresses);
            }
        }
        self.names_asked = Some(Instant::now());
    }

    fn write_summary(&self, state: &PanelState) {
        let Some(path) = &self.summary else { return };
        let snapshot = state.snapshot.as_deref();
        let summary = Summary {
            name: state.name.clone(),
            url: self.panel.url.clone(),
            mode: self.panel.mode,
            at: self.clock.now(),
            status: state.status.clone(),
            alarms: state.alarms.clone(),
            nodes: snapshot.map(|s| s.nodes.clone()).unwrap_or_default(),
            services: snapshot.map_or(0, |s| s.services.len()),
            conflicts: snapshot.map_or(0, |s| s.conflicts),
            unmapped: snapshot
                .map(|s| s.unmapped().take(UNMAPPED_SHOWN_MAX).cloned().collect())
                .unwrap_or_default(),
        };
        if let Err(error) = keep(path, &summary) {
            tracing::warn!(panel = %self.panel.name, %error, "the summary was not written");
        }
    }

    fn state(&self) -> PanelState {
        let mut status = self.sync.status().clone();
        status.key_writes = self.key_writes.clone().unwrap_or_default();
        let alarms = status.alarms(self.clock.now(), self.panel.interval.ms);
        PanelState {
            name: self.panel.name.clone(),
            status,
            alarms,
            expected: self.snapshot.as_ref().map(|s| self.expected(s)).unwrap_or_default(),
            snapshot: self.snapshot.clone(),
        }
    }

    /// Looked at with every report, which is at least once an interval.
    fn expected(&self, snapshot: &PanelSnapshot) -> Vec<Expected> {
        snapshot.expected(&self.panel.expectations, minute_of_week(self.clock.now()))
    }
}

/// Monday 00:00 UTC is minute 0; the first of January 1970 was a Thursday.
fn minute_of_week(now: Millis) -> u32 {
    let minutes = now.0 / 60_000 + 3 * 1440;
    u32::try_from(minutes % (7 * 1440)).unwrap_or(0)
}

/// Writes a value beside its place and moves it there, so that a crash leaves the old one.
///
/// # Errors
/// As the file system says.
pub fn keep<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let beside = path.with_extension("json.new");
    let file = private(&beside)?;
    let mut writer = std::io::BufWriter::new(file);
    serde_json::to_writer(&mut writer, value)?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Names of customers and their servers are nobody else's business.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The listing kept by an earlier run; `None` when there is none or it cannot be read.
pub fn read_kept(path: &Path) -> Option<Arc<Listing>> {
    let file = std::fs::File::open(path).ok()?;
    if file.metadata().ok()?.len() > KEPT_MAX {
        return None;
    }
    match serde_json::from_reader(std::io::BufReader::new(file)) {
        Ok(listing) => Some(Arc::new(listing)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the kept listing is unreadable");
            None
        }
    }
}
