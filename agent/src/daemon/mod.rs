//! The running agent: one thread, one owner of everything that changes.
//!
//! ```text
//! appliance --stream--> listen --Word--> +--------+ --Program--> nft
//! appliance <--report-- report <-Report- | daemon | <--Change--- kernel (somebody touched the table)
//! command line <------> local --Ask----> +--------+ <--counters- netlink, /proc, once a second
//! ```

mod desired;
mod local;
mod look;
mod uplink;

pub use local::{Ask, Status, ask, path as socket_path};

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};
use weir_model::{IncidentId, IpNet, Millis};

use self::desired::{Desired, Local, Taken};
use self::look::Sight;
use self::uplink::Word;
use crate::config::{Apply, Config, Identity, Learn, write_private};
use crate::enforcer::Applied;
use crate::enforcer::nft::{Nft, TABLE};
use crate::levels::Levels;
use crate::link::EventRing;
use crate::netlink::{Change, Watch};
use crate::protocol::{Body, Envelope, Event, Report, RuleReport, RuleState, Verifier};
use crate::safety::{Rollback, ssh_peers};

/// Own transactions remembered, to tell them from others'.
const PROCESSES_MAX: usize = 32;

/// Repairs in a row before the agent concludes that another program fights it and waits for the next second.
const REPAIRS_MAX: u32 = 5;

/// Seconds between reports while nothing is in force.
const REPORT_SECS: u64 = 10;

/// Events in one report.
const EVENTS_PER_REPORT: usize = 200;

/// How long a test waits for its rule.
const TEST_WAIT: Duration = Duration::from_secs(10);

/// Milliseconds since the epoch.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A test under way.
struct Test {
    rule: String,
    since: Instant,
    reply: oneshot::Sender<Status>,
}

struct Daemon {
    config: Config,
    identity: Identity,
    nft: Option<Nft>,
    abilities: Vec<String>,
    missing: Vec<String>,
    desired: Desired,
    applied: Applied,
    processes: VecDeque<u32>,
    repairs: u32,
    ring: EventRing,
    levels: Levels,
    rollback: Rollback,
    sight: Sight,
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
    seconds: u64,
    sampler: Option<(u32, tokio::task::JoinHandle<()>)>,
    /// The incident whose packets were kept last.
    captured: Option<IncidentId>,
    words: mpsc::Sender<Word>,
}

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
    let mut watch = match daemon.nft {
        Some(_) => Some(Watch::open(TABLE)?),
        None => None,
    };
    daemon.restore();
    tokio::spawn(local::serve(listener, asked_tx));
    let listen = uplink::listen(uplink::client(&daemon.identity)?, etag_rx, words_tx.clone());
    tokio::spawn(listen);
    tokio::spawn(uplink::report(uplink::client(&daemon.identity)?, reports_rx, words_tx));
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    notify("READY=1");
    info!(node = %daemon.identity.node, abilities = ?daemon.abilities, "ready");
    loop {
        tokio::select! {
            word = words.recv() => {
                let Some(word) = word else { break };
                daemon.word(word);
            }
            change = next_change(&mut watch) => daemon.changed(change),
            ask = asked.recv() => {
                let Some((ask, reply)) = ask else { break };
                daemon.asked(&ask, reply);
            }
            _ = tick.tick() => daemon.second(),
            _ = stop.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    notify("STOPPING=1");
    // Rules stay until their lease ends: a restart of the agent is no reason to let an attack in.
    info!("stopped; rules in force end with their lease");
    Ok(())
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
        let nft = if limited {
            missing.push("rules: limited mode".to_owned());
            None
        } else {
            match Nft::open() {
                Ok(nft) => {
                    abilities.push("nft".to_owned());
                    Some(nft)
                }
                Err(error) => {
                    missing.push(format!("rules: {error}: needs CAP_NET_ADMIN"));
                    None
                }
            }
        };
        let verifier = Verifier::new(&identity.signing_key, &identity.node, None)?;
        let desired = Desired::new(verifier, config.apply == Apply::Staged);
        let ring = EventRing::open(&config.state);
        Ok(Self {
            config,
            identity,
            nft,
            abilities,
            missing,
            desired,
            applied: Applied::default(),
            processes: VecDeque::new(),
            repairs: 0,
            ring,
            levels: Levels::default(),
            rollback: Rollback::default(),
            sight: Sight::default(),
            link: Some("not yet".to_owned()),
            etag,
            reports,
            sending: None,
            report_due: false,
            apply_ms: 0,
            test: None,
            test_asked: None,
            appliance: Vec::new(),
            seconds: 0,
            sampler: None,
            captured: None,
            words,
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
        let text = std::fs::read_to_string(self.config.state.join("snapshot.json"));
        let envelope = text.ok().and_then(|t| serde_json::from_str::<Envelope>(&t).ok());
        if let Some(envelope) = envelope
            && let Err(error) = self.desired.take(&envelope, now())
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
        match self.desired.take(envelope, now()) {
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
                if let Some(nft) = &mut self.nft {
                    if let Err(error) = nft.renew(&program, now()) {
                        self.event("refused", format!("the lease could not be prolonged: {error}"));
                    }
                    self.remember_process();
                }
            }
            Err(error) => self.event("refused", format!("a document was refused: {error}")),
        }
    }

    fn local(&self) -> Local {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut management = self.config.management.clone();
        management.extend(&self.appliance);
        management.extend(ssh_peers(&read("/proc/net/tcp"), self.config.ssh_port));
        management.extend(ssh_peers(&read("/proc/net/tcp6"), self.config.ssh_port));
        let tracked = || read("/proc/sys/net/netfilter/nf_conntrack_count");
        let learn = match self.config.learn {
            Learn::On => true,
            Learn::Off => false,
            Learn::Auto => tracked().trim().parse::<u64>().is_ok_and(|n| n > 0),
        };
        let now = now();
        let out = self.desired.snapshot().rules.iter().filter_map(|raw| {
            let rule: crate::rules::Rule = serde_json::from_str(raw.get()).ok()?;
            self.rollback.is_out(&rule.id, now).then_some(rule.id)
        });
        Local { management, learn, level: self.levels.level(), out: out.collect() }
    }

    fn program(&self) -> crate::enforcer::Program {
        self.desired.program(&self.local(), now())
    }

    /// Makes the kernel have what is wanted.
    fn put_in_force(&mut self, repair: bool) {
        let program = self.program();
        self.sight.program = program.clone();
        let Some(nft) = &mut self.nft else {
            let refuse = |r: &crate::rules::Rule| crate::enforcer::Refusal {
                rule: r.id.clone(),
                why: "this agent may not change rules".to_owned(),
            };
            let refused = program.rules.iter().map(refuse).collect();
            self.applied = Applied { rules: Vec::new(), refused };
            return;
        };
        let outcome = nft.apply(&program, now(), repair);
        self.remember_process();
        match outcome {
            Ok(applied) => {
                self.rollback.in_force(&applied.rules, now());
                for refusal in &applied.refused {
                    if !self.applied.refused.contains(refusal) {
                        self.event("refused", format!("rule {}: {}", refusal.rule, refusal.why));
                    }
                }
                self.applied = applied;
            }
            Err(error) => self.event("refused", format!("nothing could be applied: {error}")),
        }
    }

    fn remember_process(&mut self) {
        if let Some(process) = self.nft.as_ref().and_then(Nft::last_process) {
            self.processes.push_back(process);
            if self.processes.len() > PROCESSES_MAX {
                self.processes.pop_front();
            }
        }
    }

    /// Somebody touched the table: put everything back, unless it was this agent itself.
    fn changed(&mut self, change: Change) {
        if change.by.is_some_and(|by| self.processes.contains(&by)) {
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

    /// Once a second.
    fn second(&mut self) {
        self.seconds += 1;
        notify("WATCHDOG=1");
        if self.repairs > REPAIRS_MAX {
            self.put_in_force(true);
            self.event("repaired", "another program keeps changing the table".to_owned());
        }
        self.repairs = 0;
        let now = now();
        let busy = !self.applied.rules.is_empty();
        if let Some(nft) = &mut self.nft {
            self.sight.count(nft, busy);
        }
        self.sight.health(self.seconds, busy);
        let pressure = self.sight.pressure(busy);
        let before = self.levels.level();
        if let Some(step) = self.levels.look(&pressure, now) {
            self.event("level", format!("{} to {}: {}", step.from, step.to, step.why));
            let constrained = crate::levels::Level::Constrained;
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
        self.lapse(now);
        if self.test.as_ref().is_some_and(|t| t.since.elapsed() > TEST_WAIT) {
            self.finish_test();
        }
        let due = if busy { 1 } else { REPORT_SECS };
        self.report_due |= self.seconds.is_multiple_of(due);
        self.send_report();
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

    fn rule_reports(&self) -> Vec<RuleReport> {
        let mut reports = Vec::new();
        let mut add = |id: &str, state, why: Option<String>| {
            let count = self.sight.rules.iter().find(|c| c.rule == id);
            reports.push(RuleReport {
                id: id.to_owned(),
                state,
                why,
                dropped: count.map(|c| c.dropped).unwrap_or_default(),
                passed: count.map(|c| c.passed).unwrap_or_default(),
            });
        };
        for id in &self.applied.rules {
            add(id, RuleState::Applied, None);
        }
        for refusal in &self.applied.refused {
            add(&refusal.rule, RuleState::Refused, Some(refusal.why.clone()));
        }
        for bad in &self.desired.bad {
            add(&bad.id, RuleState::Refused, Some(bad.why.clone()));
        }
        for rule in self.desired.waiting() {
            add(&rule.id, RuleState::Staged, Some("waits for weir-agent rules --apply".to_owned()));
        }
        for id in self.local().out {
            add(&id, RuleState::RolledBack, Some("the service stopped answering".to_owned()));
        }
        reports
    }

    fn send_report(&mut self) {
        if !self.report_due || self.sending.is_some() || self.link.is_some() {
            return;
        }
        let events = self.ring.oldest(EVENTS_PER_REPORT);
        let count = events.len();
        let stamp = self.desired.stamp();
        let report = Report {
            node: self.identity.node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            at: now(),
            epoch: stamp.epoch,
            version: stamp.version,
            apply_ms: std::mem::take(&mut self.apply_ms),
            level: self.levels.level().id().to_owned(),
            abilities: self.abilities.clone(),
            rules: self.rule_reports(),
            services: self.sight.service_stats(),
            stats: self.sight.stats,
            events,
            test: self.test_asked.take(),
        };
        if self.reports.try_send(Box::new(report)).is_ok() {
            self.sending = Some(count);
            self.report_due = false;
        }
    }

    fn status(&mut self, answer: Option<String>) -> Status {
        let stamp = self.desired.stamp().clone();
        Status {
            node: self.identity.node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            appliance: self.identity.url.clone(),
            link: self.link.clone(),
            version: (stamp.epoch, stamp.version),
            lease_secs: self.desired.lease_until().since(now()) / 1000,
            level: self.levels.level().id().to_owned(),
            abilities: self.abilities.clone(),
            missing: self.missing.clone(),
            paused: self.desired.paused,
            rules: self.rule_reports(),
            services: self.sight.service_stats(),
            learned: self.nft.as_mut().and_then(|n| n.learned().ok()).unwrap_or(0),
            stats: self.sight.stats,
            unsent: self.ring.oldest(usize::MAX).len(),
            answer,
        }
    }

    fn asked(&mut self, ask: &Ask, reply: oneshot::Sender<Status>) {
        match ask {
            Ask::Status => (),
            Ask::Apply => {
                self.desired.approve();
                self.put_in_force(false);
                self.report_due = true;
            }
            Ask::Flush | Ask::Resume => {
                self.desired.paused = *ask == Ask::Flush;
                self.put_in_force(false);
                let word = if self.desired.paused { "flushed" } else { "resumed" };
                self.event("flush", format!("rules were {word} by this host's administrator"));
            }
            Ask::Test => {
                let rule = format!("test-{}", now().0);
                self.test_asked = Some(rule.clone());
                self.test = Some(Test { rule, since: Instant::now(), reply });
                self.report_due = true;
                self.send_report();
                return;
            }
        }
        // Who hung up gets no answer.
        let _ = reply.send(self.status(None));
        self.send_report();
    }

    /// Answers a test whose rule has arrived, or whose time is over.
    fn finish_test(&mut self) {
        let Some(test) = self.test.take() else { return };
        let took = test.since.elapsed();
        let answer = if self.applied.rules.contains(&test.rule) {
            format!("the rule was in force after {} ms", took.as_millis())
        } else if took > TEST_WAIT {
            let link = self.link.as_deref().unwrap_or("connected");
            format!("no rule came within {} s (link: {link})", TEST_WAIT.as_secs())
        } else {
            self.test = Some(test);
            return;
        };
        let status = self.status(Some(answer));
        let _ = test.reply.send(status);
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

    /// Keeps the beginning of an incident that is new, and sends it.
    fn record(&mut self) {
        let Some(incident) = self.desired.snapshot().incident else { return };
        if self.captured >= Some(incident) {
            return;
        }
        self.captured = Some(incident);
        let hosts = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        let targets = self.sight.program.rules.iter().map(|r| r.packets.dst).filter(hosts);
        let targets: Vec<std::net::IpAddr> = targets.map(|net| net.addr()).collect();
        let (config, identity) = (self.config.clone(), self.identity.clone());
        let words = self.words.clone();
        tokio::spawn(async move {
            let comment = format!("weir incident {incident} on {}", identity.node);
            let text = match look::record(&config, &targets, &comment).await {
                Ok(None) => "no packet came".to_owned(),
                Ok(Some(file)) => {
                    let octets = file.len();
                    let sent = async {
                        let mut client = uplink::client(&identity)?;
                        uplink::send_capture(&mut client, &incident.to_string(), file).await
                    };
                    match sent.await {
                        Ok(()) => format!("{octets} octets sent"),
                        Err(error) => format!("{octets} octets could not be sent: {error}"),
                    }
                }
                Err(error) => format!("not possible: {error}"),
            };
            // The daemon has ended: nobody is left to know.
            let _ = words.send(Word::Captured(format!("incident {incident}: {text}"))).await;
        });
    }
}
