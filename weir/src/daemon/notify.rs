//! Tells others: webhooks hear of decisions, scrubbing services of what to divert.
//!
//! [`Outbox`] and [`Scrubbers`] say what is due; this thread keeps their time, and a few threads a
//! receiver send, so that a receiver that does not answer holds up nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};
use weir_api::{Deliveries, Delivery, Metrics};
use weir_bgp::config::Secret;
use weir_bgp::guard::Admitted;
use weir_mitigator::Config;
use weir_mitigator::notify::{DeliveryId, Outbox, Outcome, Request, Scrubbers, WebhookConfig};
use weir_model::{Decision, Incident, Measure, Millis, Mitigation};
use weir_panel::client::{Sender as HttpSender, Timeouts};

use super::channels::Control;
use super::{now, spawn as spawn_thread};

/// How long a stop waits for messages that are on their way.
const FAREWELL: Duration = Duration::from_secs(5);

/// Batches of decisions that may wait for this thread.
pub(crate) const WAITING_MAX: usize = 256;

/// Threads that send to one receiver.
const SENDERS: usize = 4;

/// How long one try may take: below the time after which it counts as failed.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(20) };

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
    Own(Vec<WebhookConfig>),
    /// Look at the desired state.
    Nudge,
    Log(oneshot::Sender<Deliveries>),
    Test {
        hook: String,
        reply: oneshot::Sender<Option<u64>>,
    },
    /// Send what is due and end; withdraw what is diverted first, or leave it.
    Stop {
        withdraw: bool,
    },
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

    /// Puts other webhooks of the configuration file in force, keys and all.
    pub(crate) fn own(&self, hooks: Vec<WebhookConfig>) {
        self.hooks.store(!hooks.is_empty(), Ordering::Relaxed);
        if self.out.send_timeout(Notice::Own(hooks), FAREWELL).is_err() {
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

/// Reads the keys that stand in files.
pub(crate) fn with_secrets(config: &Config) -> anyhow::Result<Config> {
    let mut config = config.clone();
    let hooks = config.webhooks.iter_mut().map(|h| (&h.name, &mut h.secret, &h.secret_file));
    let services = config.scrubbers.iter_mut().map(|s| (&s.name, &mut s.secret, &s.secret_file));
    for (name, secret, file) in hooks.chain(services) {
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{name}: secret_file {}", path.display()))?;
            *secret = Some(Secret::new(text.trim().to_owned()));
        }
    }
    Ok(config)
}

/// A request on its way back.
struct Done {
    to: String,
    id: DeliveryId,
    outcome: Outcome,
}

/// The threads that send, by receiver.
struct Senders {
    client: HttpSender,
    queues: BTreeMap<String, Sender<Request>>,
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
            client: HttpSender::new(TIMEOUTS),
            queues: BTreeMap::new(),
            threads: Vec::new(),
            answered,
            done,
            out: 0,
            failed: failed.clone(),
        }
    }

    /// Starts what sends to those new here, and ends what sends to others once it has.
    fn follow<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let names: BTreeSet<&str> = names.collect();
        self.queues.retain(|name, _| names.contains(name.as_str()));
        self.threads.retain(|thread| !thread.is_finished());
        for name in names {
            if self.queues.contains_key(name) {
                continue;
            }
            // Bounded by its user: so many under way a webhook, one a diverted prefix.
            let (queue, requests) = unbounded();
            for number in 0..SENDERS {
                let (requests, answered) = (Receiver::clone(&requests), self.answered.clone());
                let client = self.client.clone();
                let label = format!("notify/{number}");
                self.threads.push(spawn_thread(&label, &self.failed, move || {
                    send_all(&client, &requests, &answered);
                })?);
            }
            self.queues.insert(name.to_owned(), queue);
        }
        Ok(())
    }

    fn send(&mut self, request: Request) {
        if let Some(queue) = self.queues.get(&request.to)
            && queue.send(request).is_ok()
        {
            self.out += 1;
        }
    }
}

fn send_all(client: &HttpSender, requests: &Receiver<Request>, answered: &Sender<Done>) {
    for Request { id, to, method, url, headers, body } in requests {
        let outcome = match client.send(method, &url, &headers, &body) {
            Ok(status) => Outcome::Status(status),
            Err(why) => Outcome::Failed(why),
        };
        if answered.send(Done { to, id, outcome }).is_err() {
            return;
        }
    }
}

struct Thread {
    /// The configuration file's.
    own: Vec<WebhookConfig>,
    /// Those set beside them.
    set: Vec<WebhookConfig>,
    outbox: Outbox,
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
}

/// Starts the thread; without receivers it only answers that there are none.
pub(crate) fn spawn(
    config: &Config,
    channels: &[WebhookConfig],
    parts: Parts,
    failed: &Sender<String>,
) -> anyhow::Result<(Notify, JoinHandle<()>)> {
    let config = with_secrets(config)?;
    let services: Vec<String> = config.scrubbers.iter().map(|s| s.name.clone()).collect();
    let (out, notices) = bounded(WAITING_MAX);
    let notify = Notify {
        out,
        hooks: Arc::new(AtomicBool::new(!config.webhooks.is_empty())),
        channels: Arc::new(AtomicBool::new(!channels.is_empty())),
        metrics: Arc::clone(&parts.metrics),
    };
    let mut scrubbers = Scrubbers::new(config.scrubbers);
    let is_scrub = |m: &&Mitigation| matches!(m.measure, Measure::Scrub(_));
    scrubbers.resume(parts.diverted.iter().filter(is_scrub), now());
    let mut thread = Thread {
        own: config.webhooks,
        set: channels.to_vec(),
        outbox: Outbox::default(),
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
        let due = self.outbox.due(at).into_iter().chain(self.scrubbers.due(at));
        due.for_each(|request| self.senders.send(request));
    }

    /// Tells the configuration file's and those set beside them from now on.
    fn receivers(&mut self) -> anyhow::Result<()> {
        let hooks: Vec<WebhookConfig> = self.own.iter().chain(&self.set).cloned().collect();
        let names = hooks.iter().map(|hook| &hook.name).chain(&self.services);
        for gone in self.senders.queues.keys().filter(|known| !names.clone().any(|n| n == *known)) {
            for outcome in ["taken", "failed"] {
                // Names come and go; what is counted of one that is gone would stay for ever.
                let _ = self.metrics.notify_requests.remove_label_values(&[gone, outcome]);
            }
        }
        for name in names.clone() {
            for outcome in ["taken", "failed"] {
                let _ = self.metrics.notify_requests.with_label_values(&[name.as_str(), outcome]);
            }
        }
        self.senders.follow(names.map(String::as_str))?;
        self.outbox.set_hooks(hooks, now());
        Ok(())
    }

    fn wait(&self, at: Millis) -> Duration {
        let next = self.outbox.next_due().into_iter().chain(self.scrubbers.next_due()).min();
        let wait = next.map_or(IDLE, |next| Duration::from_millis(next.since(at)));
        wait.clamp(Duration::from_millis(5), IDLE)
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Decisions(list) => {
                for News { decision, incident } in list {
                    self.outbox.decision(&decision, incident.as_deref(), now());
                }
            }
            Notice::Channels(channels) => {
                self.set = channels;
                self.renew();
            }
            Notice::Own(hooks) => {
                self.own = hooks;
                self.renew();
            }
            Notice::Test { hook, reply } => {
                let id = self.outbox.test(&hook, now());
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
        let deliveries = self.outbox.log().rev().map(|record| Delivery {
            id: record.id.0,
            to: record.to.clone(),
            event: record.event.clone(),
            queued: record.queued,
            ended: record.ended,
            tries: record.tries,
            taken: record.outcome.is_success(),
            outcome: record.outcome.to_string(),
        });
        Deliveries {
            deliveries: deliveries.collect(),
            waiting: self.outbox.waiting(),
            dropped: self.outbox.dropped(),
            stuck: self.scrubbers.stuck().map(|(name, net)| format!("{name}: {net}")).collect(),
        }
    }

    fn done(&mut self, Done { to, id, outcome }: &Done) {
        self.senders.out = self.senders.out.saturating_sub(1);
        let label = if outcome.is_success() { "taken" } else { "failed" };
        self.metrics.notify_requests.with_label_values(&[to.as_str(), label]).inc();
        if !outcome.is_success() {
            warn!(to, %outcome, "a request was not taken");
        }
        if self.services.contains(to) {
            if let Some(observed) = self.scrubbers.done(*id, outcome, now()) {
                info!(to, ?observed, "scrubbing");
                // Fails only when the core is gone, which ends the process, or stopping.
                let _ = self.control.send_timeout(Control::Observed(Box::new(observed)), IDLE);
            }
        } else {
            self.outbox.done(*id, outcome.clone(), now());
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
            let due = self.outbox.due(now()).into_iter().chain(self.scrubbers.due(now()));
            due.for_each(|request| self.senders.send(request));
            let settled = !withdraw || self.scrubbers.next_due().is_none();
            if (self.senders.out == 0 && settled) || now() >= end {
                break;
            }
            if let Ok(done) = self.senders.done.recv_timeout(Duration::from_millis(100)) {
                self.done(&done);
            }
        }
        if self.senders.out > 0 || self.scrubbers.next_due().is_some() && withdraw {
            warn!(requests = self.senders.out, "not everybody has answered");
            return;
        }
        self.senders.queues.clear();
        super::join("notify", self.senders.threads);
    }
}
