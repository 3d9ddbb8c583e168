//! The running agent: one thread, one owner of everything that changes.
//!
//! ```text
//! appliance --stream--> listen --Word--> +--------+ --Program--> nft
//! appliance <--report-- report <-Report- | daemon | <--Change--- kernel (somebody touched the table)
//! command line <------> local --Ask----> +--------+ <--counters- netlink, /proc, once a second
//! ```

mod desired;
mod force;
mod local;
mod look;
mod recorder;
mod say;
mod uplink;

pub use local::{Ask, Status, ask, path as socket_path};

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use weir_model::{IncidentId, IpNet, Millis};

use self::desired::{Desired, Taken};
use self::look::Sight;
use self::recorder::Recorder;
use self::say::Test;
use self::uplink::Word;
use crate::config::{Apply, Config, Identity, write_private};
use crate::contain::{Containers, docker};
use crate::enforcer::nft::TABLE;
use crate::enforcer::shaper::Shaper;
use crate::enforcer::{Applied, EnforceError, Enforcer};
use crate::levels::{Level, Levels};
use crate::link::EventRing;
use crate::netlink::{Change, Watch};
use crate::protocol::{Body, Envelope, Event, Report, Verifier};
use crate::safety::Rollback;

/// Repairs in a row before the agent concludes that another program fights it and waits for the next second.
const REPAIRS_MAX: u32 = 5;

/// Longest time between reports while nothing is in force.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Between two looks while something goes on.
const BUSY_PACE: Duration = Duration::from_secs(1);

/// Between two looks while nothing does.
const IDLE_PACE: Duration = Duration::from_secs(5);

/// Where it is written down how services fare in calm.
const CALM: &str = "calm.json";

/// Events in one report.
const EVENTS_PER_REPORT: usize = 200;

/// Milliseconds since the epoch.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

struct Daemon {
    config: Config,
    identity: Identity,
    enforcer: Option<Box<dyn Enforcer>>,
    /// Shapes what it can express of what servers send, where that is configured.
    shaper: Option<Shaper>,
    abilities: Vec<String>,
    missing: Vec<String>,
    /// Other programs that write firewall rules here.
    neighbours: Vec<String>,
    desired: Desired,
    applied: Applied,
    repairs: u32,
    ring: EventRing,
    levels: Levels,
    rollback: Rollback,
    sight: Sight,
    containers: Containers,
    link: Option<String>,
    etag: watch::Sender<String>,
    reports: mpsc::Sender<Box<Report>>,
    /// Events in the report under way; `None` when there is none.
    sending: Option<usize>,
    report_due: bool,
    apply_ms: u64,
    test: Option<Test>,
    test_asked: Option<String>,
    appliance: Vec<IpNet>,
    /// When the last report was handed over.
    reported: Instant,
    sampler: Option<(u32, tokio::task::JoinHandle<()>)>,
    /// The incident whose packets were kept last.
    captured: Option<IncidentId>,
    recorder: Recorder,
    words: mpsc::Sender<Word>,
    /// Beginning of the clock that nobody sets.
    started: Instant,
    /// Why the last document was not taken.
    not_taken: Option<String>,
    /// The administrator has left: since when.
    leaving: Option<tokio::time::Instant>,
}

/// What a command line that waits for an answer may take to read it.
const LEAVE_GRACE: Duration = Duration::from_millis(200);

/// Runs until it is told to stop by a signal. `limited`: without any privilege, counters of /proc only.
///
/// # Errors
/// When the node has not joined, or the local socket cannot be made.
pub async fn run(config: Config, limited: bool) -> anyhow::Result<()> {
    let identity = Identity::load(&config.state)?;
    let (words_tx, mut words) = mpsc::channel(64);
    let (asked_tx, mut asked) = mpsc::channel(8);
    let (etag, etag_rx) = watch::channel("\"0.0\"".to_owned());
    let (reports, reports_rx) = mpsc::channel(1);
    std::fs::create_dir_all(&config.run).context("run folder")?;
    let socket = local::path(&config.run);
    // Left by a run that was killed.
    let _ = std::fs::remove_file(&socket);
    let listener =
        tokio::net::UnixListener::bind(&socket).with_context(|| format!("{}", socket.display()))?;
    let mut daemon = Daemon::new(config, identity, limited, etag, reports, words_tx.clone())?;
    daemon.find_appliance().await;
    let tells = daemon.enforcer.as_ref().is_some_and(|e| e.is_told());
    let mut watch = if tells { Some(Watch::open(TABLE)?) } else { None };
    daemon.restore();
    daemon.recorder.send_left_over(&words_tx);
    tokio::spawn(local::serve(listener, asked_tx));
    if let Some(socket) = daemon.config.docker.clone() {
        tokio::spawn(containers(socket, words_tx.clone()));
    }
    let listen = uplink::listen(uplink::client(&daemon.identity)?, etag_rx, words_tx.clone());
    tokio::spawn(listen);
    tokio::spawn(uplink::report(uplink::client(&daemon.identity)?, reports_rx, words_tx));
    let mut looked = tokio::time::Instant::now();
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    notify("READY=1");
    info!(node = %daemon.identity.node, abilities = ?daemon.abilities, "ready");
    loop {
        tokio::select! {
            word = words.recv() => {
                let Some(word) = word else { break };
                daemon.word(word);
            }
            change = next_change(&mut watch) => daemon.changed(&change),
            ask = asked.recv() => {
                let Some((ask, reply)) = ask else { break };
                daemon.asked(&ask, reply);
            }
            () = tokio::time::sleep_until(looked + daemon.pace()) => {
                looked = tokio::time::Instant::now();
                daemon.look();
            }
            () = left(daemon.leaving) => {
                notify("STOPPING=1");
                info!("left the appliance; nothing of it is in force any more");
                return Ok(());
            }
            _ = stop.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    notify("STOPPING=1");
    daemon.keep_calm();
    // Rules stay until their lease ends: a restart of the agent is no reason to let an attack in.
    info!("stopped; rules in force end with their lease");
    Ok(())
}

/// Passes on which containers there are.
async fn containers(socket: std::path::PathBuf, words: mpsc::Sender<Word>) {
    let (tell, mut told) = mpsc::channel(1);
    tokio::spawn(docker::watch(socket, tell));
    while let Some(list) = told.recv().await {
        if words.send(Word::Containers(list)).await.is_err() {
            return;
        }
    }
}

/// Waits until whoever asked to leave has had the answer.
async fn left(since: Option<tokio::time::Instant>) {
    match since {
        Some(since) => tokio::time::sleep_until(since + LEAVE_GRACE).await,
        None => std::future::pending().await,
    }
}

async fn next_change(watch: &mut Option<Watch>) -> Change {
    match watch {
        Some(watch) => match watch.next().await {
            Ok(change) => change,
            Err(error) => {
                warn!(%error, "cannot watch nftables");
                std::future::pending().await
            }
        },
        None => std::future::pending().await,
    }
}

/// Tells the service manager, when there is one.
fn notify(state: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
    {
        // Without a service manager nobody is to be told.
        let _ = socket.send_to(state.as_bytes(), Path::new(&path));
    }
}

impl Daemon {
    fn new(
        config: Config,
        identity: Identity,
        limited: bool,
        etag: watch::Sender<String>,
        reports: mpsc::Sender<Box<Report>>,
        words: mpsc::Sender<Word>,
    ) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        let mut abilities = vec!["counters".to_owned()];
        let (enforcer, shaper) = if limited {
            missing.push("rules: limited mode".to_owned());
            (None, None)
        } else {
            force::open_enforcer(&config, &mut abilities, &mut missing)
        };
        let eyes = !limited && look::may_capture();
        if eyes {
            abilities.extend(["sample".to_owned(), "capture".to_owned()]);
        } else {
            missing.push("samples and captures: CAP_NET_RAW is needed".to_owned());
        }
        let recorder = Recorder::new(&config, &identity, eyes);
        let verifier = Verifier::new(&identity.signing_key, &identity.node, None)?;
        let desired = Desired::new(verifier, config.apply == Apply::Staged);
        let ring = EventRing::open(&config.state);
        Ok(Self {
            config,
            identity,
            enforcer,
            shaper,
            abilities,
            missing,
            neighbours: crate::doctor::neighbours(Path::new("/")),
            desired,
            applied: Applied::default(),
            repairs: 0,
            ring,
            levels: Levels::default(),
            rollback: Rollback::default(),
            sight: Sight::default(),
            containers: Containers::default(),
            link: Some("not yet".to_owned()),
            etag,
            reports,
            sending: None,
            report_due: false,
            apply_ms: 0,
            test: None,
            test_asked: None,
            appliance: Vec::new(),
            reported: Instant::now(),
            sampler: None,
            captured: None,
            recorder,
            words,
            started: Instant::now(),
            not_taken: None,
            leaving: None,
        })
    }

    /// The appliance's addresses belong to the management set: what is cut off cannot be corrected.
    async fn find_appliance(&mut self) {
        let Ok(url) = crate::link::Url::parse(&self.identity.url) else { return };
        if let Ok(found) = tokio::net::lookup_host(&url.authority).await {
            self.appliance = found.map(|a| IpNet::from(a.ip())).collect();
        }
    }

    /// The last snapshot, when its lease still holds: a reboot under attack comes up defended.
    fn restore(&mut self) {
        self.rollback.restore(&self.config.state.join(CALM), now());
        let path = self.config.state.join("snapshot.json");
        let text = std::fs::read_to_string(&path);
        let envelope = text.ok().and_then(|t| serde_json::from_str::<Envelope>(&t).ok());
        // Written when it came.
        let received = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        let received = received.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let received = received.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        if let Some(envelope) = envelope
            && let Err(error) = self.desired.take_kept(&envelope, Millis(received), now())
        {
            // Its version still counts: nothing older may be taken.
            info!(%error, "the last snapshot is not used");
            self.floor(&envelope);
        }
        self.put_in_force(false);
    }

    /// A lapsed snapshot of the disk still says which versions are old.
    fn floor(&mut self, envelope: &Envelope) {
        let Ok(body) = serde_json::from_str::<Body>(&envelope.payload) else { return };
        let stamp = Some(body.stamp().clone());
        if let Ok(verifier) = Verifier::new(&self.identity.signing_key, &self.identity.node, stamp)
        {
            self.desired = Desired::new(verifier, self.config.apply == Apply::Staged);
        }
    }

    fn word(&mut self, word: Word) {
        match word {
            Word::Link(Ok(())) => {
                self.link = None;
                self.report_due = true;
            }
            Word::Link(Err(why)) => self.link = Some(why),
            Word::Document(envelope) => self.document(&envelope),
            Word::Captured(text) => self.event("capture", text),
            Word::Containers(list) => {
                self.containers.set(list);
                self.put_in_force(false);
                self.report_due = true;
            }
            Word::Reported(good) => {
                let sent = self.sending.take().unwrap_or(0);
                if good && let Err(error) = self.ring.forget(sent) {
                    warn!(%error, "cannot write events");
                }
            }
        }
        self.send_report();
    }

    fn document(&mut self, envelope: &Envelope) {
        let arrived = Instant::now();
        let steady = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let taken = self.desired.take(envelope, now(), Millis(steady));
        self.not_taken = taken.as_ref().err().map(ToString::to_string);
        match taken {
            Ok(Taken::New) => {
                let path = self.config.state.join("snapshot.json");
                self.put_in_force(false);
                self.apply_ms = u64::try_from(arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
                let text = serde_json::to_vec(envelope).unwrap_or_default();
                if let Err(error) = write_private(&path, &text) {
                    warn!(%error, "cannot keep the snapshot");
                }
                let stamp = self.desired.stamp();
                info!(
                    version = stamp.version,
                    rules = self.applied.rules.len(),
                    refused = self.applied.refused.len(),
                    milliseconds = self.apply_ms,
                    "snapshot in force"
                );
                self.etag.send_replace(self.desired.etag());
                self.report_due = true;
                self.sampling();
                self.record();
                self.finish_test();
            }
            Ok(Taken::Renewed) => {
                if self.applied.rules.is_empty() {
                    return;
                }
                let program = self.program();
                if let Some(enforcer) = &mut self.enforcer
                    && let Err(error) = enforcer.renew(&program, now())
                {
                    self.event("refused", format!("the lease could not be prolonged: {error}"));
                }
            }
            Err(error) => self.event("refused", format!("a document was refused: {error}")),
        }
    }

    /// Somebody touched the table: put everything back, unless it was this agent itself.
    fn changed(&mut self, change: &Change) {
        if self.leaving.is_some() || self.enforcer.as_mut().is_some_and(|e| e.made(change)) {
            return;
        }
        self.repairs += 1;
        if self.repairs > REPAIRS_MAX {
            return;
        }
        self.put_in_force(true);
        let by = change.by.map_or_else(|| "somebody".to_owned(), |by| format!("process {by}"));
        self.event("repaired", format!("{by} changed table {TABLE}; it is as wanted again"));
        self.report_due = true;
        self.send_report();
    }

    fn event(&mut self, kind: &str, text: String) {
        warn!(kind, "{text}");
        let event = Event { at: now(), kind: kind.to_owned(), text };
        if let Err(error) = self.ring.push(event) {
            warn!(%error, "cannot write events");
        }
        self.report_due = true;
    }

    /// How long until the next look: each one wakes a processor, so while nothing is in force there are few.
    fn pace(&self) -> Duration {
        let quiet = self.applied.rules.is_empty()
            && self.test.is_none()
            && self.repairs == 0
            && !self.report_due
            && !self.containers.is_busy()
            && self.levels.level() == Level::Normal;
        if quiet { IDLE_PACE } else { BUSY_PACE }
    }

    /// Looks at counters and health, once a second or so.
    fn look(&mut self) {
        notify("WATCHDOG=1");
        if self.leaving.is_some() {
            return;
        }
        if self.repairs > REPAIRS_MAX {
            self.put_in_force(true);
            self.event("repaired", "another program keeps changing the table".to_owned());
        }
        self.repairs = 0;
        let now = now();
        let busy = !self.applied.rules.is_empty();
        let counted = self.enforcer.as_mut().map_or(Ok(()), |e| self.sight.count(e.as_mut(), busy));
        if let Err(EnforceError::Gone) = counted {
            self.put_in_force(true);
            self.event("repaired", "another program had removed the rules".to_owned());
        }
        self.held_back();
        self.sight.health();
        let pressure = self.sight.pressure(busy);
        let before = self.levels.level();
        if let Some(step) = self.levels.look(&pressure, now) {
            self.event("level", format!("{} to {}: {}", step.from, step.to, step.why));
            let constrained = Level::Constrained;
            if (before >= constrained) != (step.to >= constrained) {
                self.put_in_force(false);
            }
        }
        let out =
            self.rollback.look(&self.sight.program, &self.sight.services, &self.sight.rules, now);
        if !out.is_empty() {
            self.put_in_force(false);
            for rule in out {
                self.event("rollback", format!("rule {} is taken out: {}", rule.rule, rule.why));
            }
        }
        if self.rollback.is_due(now) {
            self.keep_calm();
        }
        self.lapse(now);
        if self.test.as_ref().is_some_and(Test::is_over) {
            self.finish_test();
        }
        self.report_due |= busy || self.reported.elapsed() >= REPORT_EVERY;
        if !self.keeps_time() && !self.sight.program.blocked.is_empty() {
            self.put_in_force(false);
        }
        self.send_report();
    }

    /// Writes down how services fare in calm, for the time after a restart.
    fn keep_calm(&mut self) {
        if let Err(error) = self.rollback.keep(&self.config.state.join(CALM), now()) {
            warn!(%error, "cannot keep how services fare in calm");
        }
    }

    /// Takes everything of weir's out and puts the host's own settings back.
    fn leave(&mut self) {
        self.desired.paused = true;
        self.leaving = Some(tokio::time::Instant::now());
        if let Some((_, task)) = self.sampler.take() {
            task.abort();
        }
        let shaped = self.shaper.as_mut().map_or(Ok(()), |s| s.apply(&[]).map(drop));
        let cleared = self.enforcer.as_mut().map_or(Ok(()), |e| e.clear());
        if let Err(error) = shaped.and(cleared) {
            warn!(%error, "not everything could be taken out");
        }
        self.applied = Applied::default();
        self.sight = Sight::default();
    }

    /// Looks at what containers send.
    fn held_back(&mut self) {
        let limit = self.config.egress_limit;
        let caught = self.containers.look(&self.sight.egress, limit, now());
        if caught.is_empty() {
            return;
        }
        self.put_in_force(false);
        for c in caught {
            let limit = limit.unwrap_or_default();
            let text =
                format!("{} sends {:.0} packets/s: held to {limit}", c.server, c.packets_per_sec);
            self.event("egress", text);
        }
    }

    /// Whether the backend ends what has an end by itself.
    fn keeps_time(&self) -> bool {
        self.enforcer.as_ref().is_none_or(|e| e.keeps_time())
    }

    /// What the kernel let lapse is cleared away.
    fn lapse(&mut self, now: Millis) {
        let gone = |r: &crate::rules::Rule| r.expires.is_some_and(|e| e <= now);
        let lease_over = self.sight.program.lease_until <= now
            && self.sight.program.rules.iter().any(|r| r.expires.is_some());
        if lease_over {
            self.event("lapsed", "no word from the appliance: leased rules have ended".to_owned());
        }
        if lease_over || self.sight.program.rules.iter().any(gone) {
            self.put_in_force(false);
        }
    }

    /// Starts, stops or changes sampling as the snapshot says.
    fn sampling(&mut self) {
        let rate = self.desired.snapshot().sampling;
        if self.sampler.as_ref().map_or(0, |(r, _)| *r) == rate {
            return;
        }
        if let Some((_, task)) = self.sampler.take() {
            task.abort();
        }
        if rate == 0 {
            return;
        }
        let config = self.config.clone();
        let appliance = self.appliance.first().map(|net| net.addr());
        let task = tokio::spawn(async move {
            if let Err(error) = look::sample(&config, appliance, rate).await {
                warn!(%error, "no sampling");
            }
        });
        self.sampler = Some((rate, task));
    }

    /// Keeps the packets of an incident that is new, and sends them.
    fn record(&mut self) {
        let snapshot = self.desired.snapshot();
        let Some(incident) = snapshot.incident else { return };
        if self.captured >= Some(incident) || self.leaving.is_some() {
            return;
        }
        self.captured = Some(incident);
        let hosts = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        let of_rules = self.sight.program.rules.iter().map(|r| r.packets.dst).filter(hosts);
        let mut targets: Vec<std::net::IpAddr> = of_rules.map(|net| net.addr()).collect();
        targets.extend(&snapshot.targets);
        targets.sort_unstable();
        targets.dedup();
        self.recorder.record(incident, targets, self.words.clone());
    }
}
