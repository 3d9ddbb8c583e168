//! Tells others: webhooks hear of decisions, scrubbing services of what to divert.
//!
//! [`Letters`] and [`Scrubbers`] say what is due; this thread keeps their time, and a few threads a
//! receiver send, so that a receiver that does not answer holds up nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};
use weir_api::{Channel as Shown, Channels, Dead, Deliveries, Delivery, Metrics, Muted};
use weir_bgp::guard::Admitted;
use weir_config::Config;
use weir_mitigator::scrub::Scrubbers;
use weir_model::{
    Decision, DeliveryId, Incident, IncidentState, Measure, Millis, Mitigation, Outcome, Secret,
    Snapshot, WebhookConfig,
};
use weir_notify::{Channel, Desk as Letters, Job, KeptDesk, Mute, Reply, Seen};
use weir_panel::client::{Reach, Sender as HttpSender, Timeouts};

use super::channels::Control;
use super::store_thread::Work;
use super::{now, spawn as spawn_thread};
use crate::core::SNAPSHOT_INCIDENTS_MAX;

/// How long a stop waits for messages that are on their way.
const FAREWELL: Duration = Duration::from_secs(5);

/// Batches of decisions that may wait for this thread.
pub(crate) const WAITING_MAX: usize = 256;

/// Threads that send to one receiver.
const SENDERS: usize = 4;

/// How long one try may take: below the time after which it counts as failed.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(20) };

/// How often what is still to be told is written down at most, milliseconds.
const KEEP_MS: u64 = 250;

/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(1);

/// A decision and the incident it belongs to.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) decision: Decision,
    pub(crate) incident: Option<Arc<Incident>>,
}

/// What this thread is told.
#[derive(Debug)]
pub(crate) enum Notice {
    Decisions(Vec<News>),
    /// Other channels are set beside the configuration file's.
    Channels(Vec<WebhookConfig>),
    /// The configuration file names others.
    Own(Box<Told>),
    /// Look at the desired state.
    Nudge,
    Log(oneshot::Sender<Deliveries>),
    Who(oneshot::Sender<Channels>),
    Resend {
        delivery: u64,
        reply: oneshot::Sender<bool>,
    },
    Mute {
        mute: Muted,
        reply: oneshot::Sender<bool>,
    },
    Test {
        hook: String,
        reply: oneshot::Sender<Option<u64>>,
    },
    /// Send what is due and end; withdraw what is diverted first, or leave it.
    Stop {
        withdraw: bool,
    },
}

/// Whom the configuration file names, with what it needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    hooks: Vec<WebhookConfig>,
    channels: Vec<Channel>,
    node: String,
    dashboard: String,
    allow_loopback: bool,
}

/// The core's end.
#[derive(Clone, Debug)]
pub(crate) struct Notify {
    out: Sender<Notice>,
    /// Whether the configuration file names webhooks.
    hooks: Arc<AtomicBool>,
    /// Whether an operator has set channels.
    channels: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Notify {
    /// Whether anybody wants to hear of decisions.
    pub(crate) fn has_hooks(&self) -> bool {
        self.hooks.load(Ordering::Relaxed) || self.channels.load(Ordering::Relaxed)
    }

    /// Puts other channels in force beside the configuration file's.
    pub(crate) fn channels(&self, channels: Vec<WebhookConfig>) {
        self.channels.store(!channels.is_empty(), Ordering::Relaxed);
        if self.out.send_timeout(Notice::Channels(channels), FAREWELL).is_err() {
            warn!("who tells others does not take the channels; a restart does");
        }
    }

    /// Puts others of the configuration file in force, keys and all.
    pub(crate) fn own(&self, told: Told) {
        self.hooks.store(!told.hooks.is_empty(), Ordering::Relaxed);
        if self.out.send_timeout(Notice::Own(Box::new(told)), FAREWELL).is_err() {
            warn!("who tells others does not take the webhooks; a restart does");
        }
    }

    pub(crate) fn decisions(&self, news: Vec<News>) {
        if self.out.try_send(Notice::Decisions(news)).is_err() {
            self.metrics.notify_requests.with_label_values(&["*", "dropped"]).inc();
        }
    }

    pub(crate) fn nudge(&self) {
        // Full: this thread looks at the desired state with whatever it does next.
        let _ = self.out.try_send(Notice::Nudge);
    }

    /// Asks something; a full queue drops the question, which its asker sees as 503.
    pub(crate) fn ask(&self, notice: Notice) {
        let _ = self.out.try_send(notice);
    }

    /// The last word, which is waited for.
    pub(crate) fn stop(&self, withdraw: bool) {
        let _ = self.out.send_timeout(Notice::Stop { withdraw }, FAREWELL);
    }
}

/// Reads the keys that stand in files: whom the file names, and the scrubbing services.
pub(crate) fn with_secrets(config: &Config) -> anyhow::Result<(Told, weir_mitigator::Config)> {
    let notify = &config.notify;
    let channels = notify.open().map_err(|why| anyhow::anyhow!("notify.{why}"))?;
    let mut config = config.mitigator.clone();
    let hooks = config.webhooks.iter_mut().map(|h| (&h.name, &mut h.secret, &h.secret_file));
    let services = config.scrubbers.iter_mut().map(|s| (&s.name, &mut s.secret, &s.secret_file));
    for (name, secret, file) in hooks.chain(services) {
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{name}: secret_file {}", path.display()))?;
            *secret = Some(Secret::new(text.trim()));
        }
    }
    let told = Told {
        hooks: std::mem::take(&mut config.webhooks),
        channels,
        node: notify.node.clone(),
        dashboard: notify.dashboard.clone(),
        allow_loopback: notify.allow_loopback,
    };
    Ok((told, config))
}

/// A request on its way back.
struct Done {
    to: String,
    id: DeliveryId,
    reply: Reply,
}

/// The threads that send, by receiver.
struct Senders {
    client: HttpSender,
    /// For what was set while weir runs.
    away: HttpSender,
    queues: BTreeMap<String, Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    answered: Sender<Done>,
    done: Receiver<Done>,
    /// Requests handed out and not yet answered.
    out: usize,
    failed: Sender<String>,
}

impl Senders {
    fn new(failed: &Sender<String>) -> Self {
        let (answered, done) = unbounded();
        Self {
            client: HttpSender::new(TIMEOUTS, Reach::File),
            away: HttpSender::new(TIMEOUTS, Reach::Away),
            queues: BTreeMap::new(),
            threads: Vec::new(),
            answered,
            done,
            out: 0,
            failed: failed.clone(),
        }
    }

    /// Starts what sends to those new here, and ends what sends to others once it has.
    /// `away` are those that must not lie on this machine.
    fn follow(&mut self, names: &BTreeSet<String>, away: &BTreeSet<String>) -> anyhow::Result<()> {
        self.queues.retain(|name, _| names.contains(name));
        self.threads.retain(|thread| !thread.is_finished());
        for name in names {
            if self.queues.contains_key(name) {
                continue;
            }
            // Bounded by its user: so many under way a webhook, one a diverted prefix.
            let (queue, requests) = unbounded();
            for number in 0..SENDERS {
                let (requests, answered) = (Receiver::clone(&requests), self.answered.clone());
                let client = if away.contains(name) { &self.away } else { &self.client };
                let client = client.clone();
                let label = format!("notify/{number}");
                self.threads.push(spawn_thread(&label, &self.failed, move || {
                    send_all(&client, &requests, &answered);
                })?);
            }
            self.queues.insert(name.to_owned(), queue);
        }
        Ok(())
    }

    fn send(&mut self, job: Job) {
        if let Some(queue) = self.queues.get(job.to())
            && queue.send(job).is_ok()
        {
            self.out += 1;
        }
    }
}

fn send_all(client: &HttpSender, jobs: &Receiver<Job>, answered: &Sender<Done>) {
    for job in jobs {
        let reply = match &job {
            Job::Http(r) => match client.send(r.method, &r.url, &r.headers, &r.body) {
                Ok(answer) => Reply {
                    outcome: Outcome::Status(answer.status),
                    passing: None,
                    retry_after: answer.retry_after,
                    body: answer.body,
                },
                Err(why) => Outcome::Failed(why).into(),
            },
            Job::Mail(mail) => mail.send(),
            Job::Syslog(line) => line.send(),
        };
        let (to, id) = (job.to().to_owned(), job.id());
        if answered.send(Done { to, id, reply }).is_err() {
            return;
        }
    }
}

struct Thread {
    /// The configuration file's.
    own: Told,
    /// Those set beside them.
    set: Vec<WebhookConfig>,
    letters: Letters,
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// The snapshot that was last looked at.
    looked: Millis,
    /// When the state file was last given what is still to be told.
    kept: Millis,
    /// Where it is kept.
    store: Sender<Work>,
    scrubbers: Scrubbers,
    /// Names of the scrubbing services: all other receivers are webhooks.
    services: Vec<String>,
    senders: Senders,
    notices: Receiver<Notice>,
    desired: watch::Receiver<Admitted>,
    control: Sender<Control>,
    metrics: Arc<Metrics>,
}

/// What the thread is given.
pub(crate) struct Parts {
    pub(crate) desired: watch::Receiver<Admitted>,
    pub(crate) control: Sender<Control>,
    pub(crate) metrics: Arc<Metrics>,
    /// Prefixes that the last run may have left diverted.
    pub(crate) diverted: Vec<Mitigation>,
    /// What the last run had still to tell.
    pub(crate) letters: KeptDesk,
    /// Where this is kept.
    pub(crate) store: Sender<Work>,
    /// Which incidents there are.
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
}

/// Starts the thread; without receivers it only answers that there are none.
pub(crate) fn spawn(
    config: &Config,
    channels: &[WebhookConfig],
    parts: Parts,
    failed: &Sender<String>,
) -> anyhow::Result<(Notify, JoinHandle<()>)> {
    let (told, config) = with_secrets(config)?;
    let services: Vec<String> = config.scrubbers.iter().map(|s| s.name.clone()).collect();
    let (out, notices) = bounded(WAITING_MAX);
    let notify = Notify {
        out,
        hooks: Arc::new(AtomicBool::new(!told.hooks.is_empty())),
        channels: Arc::new(AtomicBool::new(!channels.is_empty())),
        metrics: Arc::clone(&parts.metrics),
    };
    let mut scrubbers = Scrubbers::new(config.scrubbers);
    let is_scrub = |m: &&Mitigation| matches!(m.measure, Measure::Scrub(_));
    scrubbers.resume(parts.diverted.iter().filter(is_scrub), now());
    let mut letters = Letters::default();
    letters.restore(parts.letters);
    let mut thread = Thread {
        own: told,
        set: channels.to_vec(),
        letters,
        snapshot: parts.snapshot,
        looked: Millis(0),
        kept: Millis(0),
        store: parts.store,
        scrubbers,
        services,
        senders: Senders::new(failed),
        notices,
        desired: parts.desired,
        control: parts.control,
        metrics: parts.metrics,
    };
    thread.receivers()?;
    let thread = spawn_thread("notify", failed, move || thread.run())?;
    Ok((notify, thread))
}

impl Thread {
    fn run(mut self) {
        loop {
            self.turn(now());
            let wait = self.wait(now());
            select! {
                recv(self.notices) -> notice => match notice {
                    Ok(Notice::Stop { withdraw }) => return self.farewell(withdraw),
                    Err(_) => return,
                    Ok(notice) => self.notice(notice),
                },
                recv(self.senders.done) -> done => if let Ok(done) = done {
                    self.done(&done);
                },
                default(wait) => {}
            }
        }
    }

    /// Takes in the desired state, and sends what is due.
    fn turn(&mut self, at: Millis) {
        if self.desired.has_changed().unwrap_or(false) {
            let desired = self.desired.borrow_and_update().clone();
            self.scrubbers.desired(&desired, at);
        }
        self.observe(at);
        self.send_due(at);
        if at.since(self.kept) >= KEEP_MS {
            self.keep(at);
        }
    }

    fn send_due(&mut self, at: Millis) {
        let scrub = self.scrubbers.due(at).into_iter().map(Job::Http);
        let due = self.letters.due(at).into_iter().chain(scrub);
        due.for_each(|job| self.senders.send(job));
    }

    /// Looks at which incidents there are, where that is new. What was missed while weir did not run is seen
    /// here, too: conversations end when their incidents have.
    fn observe(&mut self, at: Millis) {
        let snapshot = self.snapshot.load();
        if snapshot.at <= self.looked {
            return;
        }
        self.looked = snapshot.at;
        let open = snapshot.incidents.iter().filter(|i| i.state == IncidentState::Open).count();
        let seen = Seen {
            incidents: &snapshot.incidents,
            whole: snapshot.incidents.len() < SNAPSHOT_INCIDENTS_MAX || open == 0,
            at: snapshot.at,
            inventory: &snapshot.inventory,
            conditions: &snapshot.conditions,
        };
        self.letters.observe(&seen, at);
    }

    /// Gives the state file what is still to be told, if that has changed. A store that is slow is asked again.
    fn keep(&mut self, at: Millis) {
        let Some(letters) = self.letters.changed() else { return };
        self.kept = at;
        let body = serde_json::to_vec(&letters).unwrap_or_default();
        if self.store.try_send(Work::Letters(at, body)).is_err() {
            self.letters.keep_again();
        }
    }

    /// Tells the configuration file's and those set beside them from now on.
    fn receivers(&mut self) -> anyhow::Result<()> {
        let hooks: Vec<WebhookConfig> = self.own.hooks.iter().chain(&self.set).cloned().collect();
        let channels = self.own.channels.clone();
        let names = hooks.iter().map(|hook| &hook.name).chain(&self.services);
        let names = names.chain(channels.iter().map(|channel| &channel.config.name));
        let names: BTreeSet<String> = names.cloned().collect();
        for gone in self.senders.queues.keys().filter(|known| !names.contains(*known)) {
            for outcome in ["taken", "failed"] {
                // Names come and go; what is counted of one that is gone would stay for ever.
                let _ = self.metrics.notify_requests.remove_label_values(&[gone, outcome]);
            }
        }
        for name in &names {
            for outcome in ["taken", "failed"] {
                let _ = self.metrics.notify_requests.with_label_values(&[name.as_str(), outcome]);
            }
        }
        let set = self.set.iter().map(|hook| hook.name.clone());
        let away = set.filter(|_| !self.own.allow_loopback).collect();
        self.senders.follow(&names, &away)?;
        self.letters.introduce(&self.own.node, &self.own.dashboard);
        self.letters.set_receivers(hooks, channels, now());
        Ok(())
    }

    fn wait(&self, at: Millis) -> Duration {
        let next = self.letters.next_due().into_iter().chain(self.scrubbers.next_due()).min();
        let wait = next.map_or(IDLE, |next| Duration::from_millis(next.since(at)));
        wait.clamp(Duration::from_millis(5), IDLE)
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Decisions(list) => {
                for News { decision, incident } in list {
                    let meant = incident.as_ref().and_then(|incident| {
                        let inventory = &self.snapshot.load().inventory;
                        weir_notify::meant(inventory, incident.verdict.target)
                    });
                    let incident = incident.as_deref();
                    self.letters.decision(&decision, incident, meant.as_deref(), now());
                }
            }
            Notice::Channels(channels) => {
                self.set = channels;
                self.renew();
            }
            Notice::Own(told) => {
                // Who may reach what may have changed: those set while weir runs start anew.
                if told.allow_loopback != self.own.allow_loopback {
                    self.set.iter().for_each(|h| drop(self.senders.queues.remove(&h.name)));
                }
                self.own = *told;
                self.renew();
            }
            Notice::Who(reply) => {
                let _ = reply.send(self.who());
            }
            Notice::Resend { delivery, reply } => {
                let _ = reply.send(self.letters.resend(DeliveryId(delivery), now()));
            }
            Notice::Mute { mute: Muted { channel, group, until, by }, reply } => {
                let _ = reply.send(self.letters.mute(Mute { channel, group, until, by }, now()));
            }
            Notice::Test { hook, reply } => {
                let id = self.letters.test(&hook, now());
                // The asker may have hung up.
                let _ = reply.send(id.map(|id| id.0));
            }
            Notice::Log(reply) => {
                let _ = reply.send(self.log());
            }
            Notice::Nudge | Notice::Stop { .. } => {}
        }
    }

    fn renew(&mut self) {
        if let Err(error) = self.receivers() {
            error!(%error, "no thread for a channel");
        }
    }

    fn log(&self) -> Deliveries {
        let deliveries = self.letters.outbox().log().rev().map(|record| Delivery {
            id: record.id.0,
            to: record.to.clone(),
            event: record.event.clone(),
            queued: record.queued,
            ended: record.ended,
            tries: record.tries,
            taken: record.taken,
            outcome: record.outcome.to_string(),
            said: record.said.clone(),
        });
        Deliveries {
            deliveries: deliveries.collect(),
            waiting: self.letters.outbox().waiting(None),
            dropped: self.letters.outbox().dropped(),
            stuck: self.scrubbers.stuck().map(|(name, net)| format!("{name}: {net}")).collect(),
        }
    }

    fn who(&self) -> Channels {
        let hooks = self.letters.hooks().map(|h| (&h.name, "webhook", h.enabled));
        let channels = self.letters.channels().map(|channel| {
            (&channel.config.name, channel.service.name.as_str(), channel.config.enabled)
        });
        let outbox = self.letters.outbox();
        let shown = hooks.chain(channels).map(|(name, service, enabled)| {
            let line = outbox.line(name);
            Shown {
                name: name.clone(),
                service: service.to_owned(),
                enabled,
                waiting: outbox.waiting(Some(name)),
                conversations: self.letters.talks(name),
                failures: line.failures,
                until: Some(line.until).filter(|until| *until > now()),
                trouble: line.trouble,
            }
        });
        let mut channels: Vec<Shown> = shown.collect();
        channels.sort_by(|a, b| a.name.cmp(&b.name));
        let dead = outbox.dead().rev().map(|dead| Dead {
            id: dead.letter.id.0,
            to: dead.letter.to.clone(),
            event: dead.letter.event.clone(),
            at: dead.at,
            tries: dead.letter.tries,
            why: dead.why.clone(),
        });
        let mutes = self.letters.mutes().iter().map(|mute| Muted {
            channel: mute.channel.clone(),
            group: mute.group.clone(),
            until: mute.until,
            by: mute.by.clone(),
        });
        Channels { channels, dead: dead.collect(), mutes: mutes.collect() }
    }

    fn done(&mut self, Done { to, id, reply }: &Done) {
        let outcome = &reply.outcome;
        self.senders.out = self.senders.out.saturating_sub(1);
        let answer =
            if self.services.contains(to) { None } else { self.letters.done(*id, reply, now()) };
        // A service may say with status 200 that it did not take something.
        let taken = outcome.is_success() && answer.as_ref().is_none_or(|a| a.passing.is_none());
        let label = if taken { "taken" } else { "failed" };
        self.metrics.notify_requests.with_label_values(&[to.as_str(), label]).inc();
        if !taken {
            let said = answer.map(|answer| answer.said.chars().take(200).collect::<String>());
            warn!(to, %outcome, said, "a request was not taken");
        }
        if self.services.contains(to)
            && let Some(observed) = self.scrubbers.done(*id, outcome, now())
        {
            info!(to, ?observed, "scrubbing");
            // Fails only when the core is gone, which ends the process, or stopping.
            let _ = self.control.send_timeout(Control::Observed(Box::new(observed)), IDLE);
        }
    }

    /// Sends what waits; what is diverted comes back, unless it is to stay. Not for ever: a receiver
    /// that does not answer does not hold up the stop.
    fn farewell(mut self, withdraw: bool) {
        let end = now() + u64::try_from(FAREWELL.as_millis()).unwrap_or(u64::MAX);
        if withdraw {
            self.scrubbers.desired(&Admitted::default(), now());
        }
        loop {
            self.send_due(now());
            let settled = !withdraw || self.scrubbers.next_due().is_none();
            if (self.senders.out == 0 && settled) || now() >= end {
                break;
            }
            if let Ok(done) = self.senders.done.recv_timeout(Duration::from_millis(100)) {
                self.done(&done);
            }
        }
        // What has not gone out is told after the next start.
        self.keep(now());
        if self.senders.out > 0 || self.scrubbers.next_due().is_some() && withdraw {
            warn!(requests = self.senders.out, "not everybody has answered");
            return;
        }
        self.senders.queues.clear();
        super::join("notify", self.senders.threads);
    }
}
