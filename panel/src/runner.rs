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
use weir_model::{Millis, PrefixSet, Service};

use crate::client::{Client, Timeouts};
use crate::config::{Config, PanelConfig};
use crate::games::Games;
use crate::keycheck;
use crate::listing::Listing;
use crate::mapping::{Names, names_of};
use crate::snapshot::PanelSnapshot;
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
        Self { panels, services }
    }
}

/// Synchronises every panel until told to stop, or until nobody can tell any more. Calls
/// `on_update` whenever something changed.
///
/// # Errors
/// In words, when the configuration cannot be used or a thread cannot be started.
pub fn run(
    setup: &Setup,
    commands: &Receiver<Command>,
    mut on_update: impl FnMut(Update),
) -> Result<(), String> {
    let games = setup.config.check().map_err(|e| e.to_string())?;
    let (report_to, reports) = bounded(REPORTS_MAX);
    let mut workers = Vec::new();
    let mut panels = Vec::new();
    for (i, panel) in setup.config.panels.iter().enumerate() {
        let (to, from) = bounded(16);
        let worker = Worker::new(setup, panel, games.clone(), i)?;
        let report_to = report_to.clone();
        std::thread::Builder::new()
            .name(format!("panel/{}", panel.name))
            .spawn(move || worker.run(&from, &report_to))
            .map_err(|e| format!("panel {}: {e}", panel.name))?;
        workers.push((panel.name.clone(), to));
        panels.push(PanelState { name: panel.name.clone(), ..PanelState::default() });
    }
    loop {
        select! {
            recv(commands) -> command => match command {
                Err(_) | Ok(Command::Stop) => break,
                Ok(command) => tell(&workers, &command),
            },
            recv(reports) -> report => {
                let Ok((i, state)): Result<(usize, PanelState), _> = report else { break };
                if panels[i] != state {
                    panels[i] = state;
                    on_update(Update::merge(panels.clone()));
                }
            },
        }
    }
    for (_, to) in &workers {
        let _ = to.try_send(Command::Stop);
    }
    Ok(())
}

/// A full queue means that enough hints are waiting already.
fn tell(workers: &[(String, Sender<Command>)], command: &Command) {
    for (name, to) in workers {
        let meant = match command {
            Command::Hint(None) | Command::Stop => true,
            Command::Hint(Some(panel)) | Command::Accept(panel) => panel == name,
        };
        if meant && to.try_send(command.clone()).is_err() {
            tracing::debug!(panel = %name, "panel is busy, command dropped");
        }
    }
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
    client: Client,
    sync: Sync,
    clock: Clock,
    names: Names,
    names_asked: Option<Instant>,
    snapshot: Option<Arc<PanelSnapshot>>,
    key_writes: Option<Vec<String>>,
}

impl Worker {
    fn new(setup: &Setup, panel: &PanelConfig, games: Games, index: usize) -> Result<Self, String> {
        let key = panel.read_key().map_err(|why| format!("panel {}: {why}", panel.name))?;
        let clock = Clock::start();
        let seed = clock.wall.0 ^ (index as u64) << 48;
        Ok(Self {
            index,
            sync: Sync::new(panel, &key.0, seed),
            client: Client::new(&panel.url, key, setup.timeouts),
            panel: panel.clone(),
            games,
            protected: setup.protected.clone(),
            kept: setup.state.as_ref().map(|dir| dir.join(format!("panel-{}.json", panel.name))),
            clock,
            names: Names::default(),
            names_asked: None,
            snapshot: None,
            key_writes: None,
        })
    }

    fn run(mut self, commands: &Receiver<Command>, reports: &Sender<(usize, PanelState)>) {
        let last_good = self.kept.as_deref().and_then(read_kept);
        let mut wake = self.take(Event::Start(last_good));
        loop {
            self.names_again();
            if reports.send((self.index, self.state())).is_err() {
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

    /// Works an event off, with every request it leads to; says when to wake up.
    fn take(&mut self, event: Event) -> Millis {
        let mut wake = self.clock.now() + 60_000;
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.sync.step(event, self.clock.now()) {
                match action {
                    Action::WakeAt(at) => wake = at,
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
        wake
    }

    fn apply(&mut self, listing: &Arc<Listing>) {
        if let Some(path) = &self.kept
            && let Err(error) = keep(path, listing)
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

    fn state(&self) -> PanelState {
        let mut status = self.sync.status().clone();
        status.key_writes = self.key_writes.clone().unwrap_or_default();
        let alarms = status.alarms(self.clock.now(), self.panel.interval.ms);
        PanelState {
            name: self.panel.name.clone(),
            status,
            alarms,
            snapshot: self.snapshot.clone(),
        }
    }
}

/// Writes a listing beside its place and moves it there, so that a crash leaves the old one.
///
/// # Errors
/// As the file system says.
pub fn keep(path: &Path, listing: &Listing) -> std::io::Result<()> {
    let beside = path.with_extension("json.new");
    let file = private(&beside)?;
    let mut writer = std::io::BufWriter::new(file);
    serde_json::to_writer(&mut writer, listing)?;
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
