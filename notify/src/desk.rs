//! From a decision or an incident to what goes out, and back from an answer to what is left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{
    Condition, Conditions, Decision, DeliveryId, Incident, IncidentId, Inventory, IpNet, Millis,
    Outcome, Request, WebhookConfig,
};

use crate::brief::{Brief, Briefs, meant_of};
use crate::config::Channel;
use crate::mail::Mail;
use crate::message::Told;
use crate::outbox::{Answer, Kept, Outbox, Receiver};
use crate::payload::{message, request};
use crate::service::{Filling, Made, Stage, Transport};
use crate::syslog::Line as SyslogLine;
use crate::talk::{OPEN_MAX, Talk};

/// What a test message is about.
const TEST: &str = "test";

/// Numbers from here on are those of what is wrong beside attacks: no clock comes so far.
const CONDITIONS: u64 = 1 << 50;

/// Whether it is the number of something that is wrong beside attacks.
pub(crate) const fn is_condition(id: IncidentId) -> bool {
    id.0 >= CONDITIONS
}

/// Incidents known at most; beyond this new ones are counted by their conversation alone.
const BRIEFS_MAX: usize = 2000;

/// Mutes at most.
const MUTES_MAX: usize = 100;

/// A message to a channel that is older than this is not tried again, milliseconds.
const AGE_MAX_MS: u64 = 86_400_000;

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A generic webhook's message, as it is sent.
    Message(String),
    /// What a conversation has come to; put together when it goes out.
    Talk {
        /// The incident that began the conversation.
        id: IncidentId,
        /// What of it.
        stage: Stage,
    },
    /// That the channel works.
    Test,
}

/// Keeps channels quiet for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// Which channel; all when absent.
    pub channel: Option<String>,
    /// Attacks on which group; all when absent.
    pub group: Option<String>,
    /// Until when.
    pub until: Millis,
    /// Who said so.
    pub by: String,
}

impl Mute {
    fn covers(&self, channel: &str, group: &str) -> bool {
        self.channel.as_ref().is_none_or(|own| own == channel)
            && self.group.as_ref().is_none_or(|own| own == group)
    }
}

/// What the state file keeps. No credentials: those are the configuration's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KeptDesk {
    letters: Kept<Content>,
    talks: Vec<Talk>,
    briefs: Briefs,
    seen: Option<IncidentId>,
    mutes: Vec<Mute>,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// A request.
    Http(Request),
    /// A mail.
    Mail(Box<Mail>),
    /// A line for a log.
    Syslog(Box<SyslogLine>),
}

impl Job {
    /// To report its reply under.
    pub const fn id(&self) -> DeliveryId {
        match self {
            Self::Http(request) => request.id,
            Self::Mail(mail) => mail.id,
            Self::Syslog(line) => line.id,
        }
    }

    /// Whom it goes to.
    pub fn to(&self) -> &str {
        match self {
            Self::Http(request) => &request.to,
            Self::Mail(mail) => &mail.channel,
            Self::Syslog(line) => &line.channel,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What became of it.
    pub outcome: Outcome,
    /// Whether another try can help, where the outcome does not say it.
    pub passing: Option<bool>,
    /// The header Retry-After, as it stands.
    pub retry_after: Option<String>,
    /// The body, or the beginning of it.
    pub body: Vec<u8>,
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, passing: None, retry_after: None, body: Vec::new() }
    }
}

/// Incidents as the core last showed them.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Open ones, and those closed lately.
    pub incidents: &'a [Arc<Incident>],
    /// Whether no open one is missing among them.
    pub whole: bool,
    /// When they were shown.
    pub at: Millis,
    /// Whose is what.
    pub inventory: &'a Inventory,
    /// What is wrong beside attacks.
    pub conditions: &'a Conditions,
}

/// Everybody who is told something, and what they are still to be told.
#[derive(Debug, Default)]
pub struct Desk {
    node: String,
    dashboard: String,
    hooks: BTreeMap<String, WebhookConfig>,
    channels: BTreeMap<String, Channel>,
    outbox: Outbox<Content>,
    talks: Vec<Talk>,
    briefs: Briefs,
    seen: Option<IncidentId>,
    mutes: Vec<Mute>,
    /// When a conversation has next something to say.
    look: Option<Millis>,
    changed: bool,
}

impl Desk {
    /// Takes back what the last run left.
    pub fn restore(&mut self, kept: KeptDesk) {
        self.outbox.restore(kept.letters);
        self.talks = kept.talks;
        self.briefs = kept.briefs;
        self.seen = kept.seen;
        self.mutes = kept.mutes;
    }

    /// What the state file is to keep, if that has changed since this was last asked.
    pub fn changed(&mut self) -> Option<KeptDesk> {
        let letters = self.outbox.take_changed();
        if !std::mem::take(&mut self.changed) && !letters {
            return None;
        }
        Some(KeptDesk {
            letters: self.outbox.kept(),
            talks: self.talks.clone(),
            briefs: self.briefs.clone(),
            seen: self.seen,
            mutes: self.mutes.clone(),
        })
    }

    /// What was asked for the state file did not get there.
    pub const fn keep_again(&mut self) {
        self.changed = true;
    }

    /// How messages call this appliance, and where they link to.
    pub fn introduce(&mut self, node: &str, dashboard: &str) {
        let node = if node.is_empty() { "weir" } else { node };
        node.clone_into(&mut self.node);
        dashboard.trim_end_matches('/').clone_into(&mut self.dashboard);
    }

    /// Puts other webhooks and channels in the place of those known.
    pub fn set_receivers(
        &mut self,
        hooks: Vec<WebhookConfig>,
        channels: Vec<Channel>,
        now: Millis,
    ) {
        self.hooks = hooks.into_iter().map(|hook| (hook.name.clone(), hook)).collect();
        self.channels = channels.into_iter().map(|c| (c.config.name.clone(), c)).collect();
        let hooks = self.hooks.values().map(|hook| Receiver::webhook(&hook.name, hook.enabled));
        let channels = self.channels.values().map(|channel| Receiver {
            name: channel.config.name.clone(),
            enabled: channel.config.enabled,
            tries_max: u32::MAX,
            age_max_ms: AGE_MAX_MS,
            every_ms: channel.service.every_ms(),
        });
        let receivers = hooks.chain(channels).collect();
        self.outbox.set_receivers(receivers, now);
        let channels = &self.channels;
        self.talks.retain(|talk| channels.get(&talk.channel).is_some_and(|c| c.config.enabled));
        self.changed = true;
    }

    /// Queues a decision for whatever webhook wants it; with `meant` only for those named there, if there are
    /// any of them.
    pub fn decision(
        &mut self,
        decision: &Decision,
        incident: Option<&Incident>,
        meant: Option<&[String]>,
        now: Millis,
    ) {
        let meant = self.there(meant);
        let group = incident.and_then(|incident| incident.group.as_deref()).unwrap_or_default();
        for hook in self.hooks.values().filter(|hook| hook.wants(&decision.action)) {
            let meant = meant.as_ref().is_none_or(|names| names.contains(&hook.name));
            if !meant || muted(&self.mutes, &hook.name, group, now) {
                continue;
            }
            let content = |id| Content::Message(message(id, decision, incident));
            self.outbox.queue(&hook.name, &decision.action, false, content, now);
        }
    }

    /// Queues a test message; `None` when there is nobody of that name.
    pub fn test(&mut self, name: &str, now: Millis) -> Option<DeliveryId> {
        if self.channels.contains_key(name) {
            return self.outbox.queue(name, TEST, true, |_| Content::Test, now);
        }
        let decision = Decision {
            at: now,
            incident: None,
            target: IpNet::V4(weir_model::Ipv4Net::default()),
            action: TEST.into(),
            detail: "a test call".into(),
            reason: None,
        };
        let content = |id| Content::Message(message(id, &decision, None));
        self.outbox.queue(name, TEST, true, content, now)
    }

    /// Takes in which incidents there are; conversations begin, go on and end accordingly.
    pub fn observe(&mut self, seen: &Seen<'_>, now: Millis) {
        if self.channels.is_empty() {
            return;
        }
        let mut fresh = self.learn(seen, now);
        fresh.extend(self.learn_conditions(seen, now));
        let meant: BTreeMap<IncidentId, Vec<String>> = self
            .briefs
            .iter()
            .filter_map(|(id, brief)| Some((*id, self.there(brief.told.as_deref())?)))
            .collect();
        let mut places: BTreeMap<String, BTreeSet<IncidentId>> = BTreeMap::new();
        for talk in &self.talks {
            places.entry(talk.channel.clone()).or_default().extend(talk.members());
        }
        for (name, channel) in &self.channels {
            let known = places.remove(name).unwrap_or_default();
            for (id, brief) in &self.briefs {
                let lives = brief.closed.is_none() || fresh.contains(id);
                let wanted = channel.config.enabled && lives && !known.contains(id);
                let meant = meant.get(id).is_none_or(|names| names.contains(name));
                let told = wanted && meant && routed(channel, brief);
                if told && !muted(&self.mutes, name, &brief.group, now) {
                    let talks = &mut self.talks;
                    place(talks, channel, *id, now);
                    self.changed = true;
                }
            }
        }
        self.forget();
    }

    /// What is over and told to everybody is forgotten.
    fn forget(&mut self) {
        let talks = &self.talks;
        self.briefs.retain(|id, brief| brief.closed.is_none() || talks.iter().any(|t| t.has(*id)));
    }

    /// Brings briefs up to date; which of them are new.
    fn learn(&mut self, seen: &Seen<'_>, now: Millis) -> BTreeSet<IncidentId> {
        let mut fresh = BTreeSet::new();
        let last = self.seen;
        for incident in seen.incidents {
            let open = incident.closed.is_none();
            let before = self.briefs.get(&incident.id);
            // What was over before anybody was told of anything is history.
            let is_new = before.is_none() && last.is_some_and(|last| incident.id > last);
            self.seen = self.seen.max(Some(incident.id));
            if before.is_none() && !open && !is_new || before.is_some_and(|b| b.closed.is_some()) {
                continue;
            }
            if before.is_none() && self.briefs.len() >= BRIEFS_MAX {
                continue;
            }
            if before.is_none() {
                fresh.insert(incident.id);
            }
            let brief = Brief::of(incident, seen.inventory, before);
            if before != Some(&brief) {
                self.briefs.insert(incident.id, brief);
                self.changed = true;
            }
        }
        self.seen = self.seen.or(Some(IncidentId(0)));
        if seen.whole {
            let there: BTreeSet<IncidentId> = seen.incidents.iter().map(|i| i.id).collect();
            for (id, brief) in &mut self.briefs {
                let lives = brief.condition || there.contains(id);
                if brief.closed.is_none() && !lives && brief.opened < seen.at {
                    brief.closed = Some(now);
                    self.changed = true;
                }
            }
        }
        fresh
    }

    /// The named ones of whom there are any; absent when nobody is named who is there: then all are told.
    fn there(&self, named: Option<&[String]>) -> Option<Vec<String>> {
        let is_there =
            |name: &&String| self.channels.contains_key(*name) || self.hooks.contains_key(*name);
        let there: Vec<String> = named?.iter().filter(is_there).cloned().collect();
        (!there.is_empty()).then_some(there)
    }

    /// As [`Desk::learn`], of what is wrong beside attacks. One of the same kind and subject that was told
    /// of before a restart goes on.
    fn learn_conditions(&mut self, seen: &Seen<'_>, now: Millis) -> BTreeSet<IncidentId> {
        let mut fresh = BTreeSet::new();
        let is_of = |brief: &Brief, condition: &Condition| {
            brief.closed.is_none()
                && brief.family == condition.kind.id()
                && brief.target == Brief::of_condition(condition, now).target
        };
        for condition in &seen.conditions.now {
            let known = self.briefs.range(IncidentId(CONDITIONS)..);
            if known.into_iter().any(|(_, brief)| is_of(brief, condition))
                || self.briefs.len() >= BRIEFS_MAX
            {
                continue;
            }
            let last = self.briefs.last_key_value().map_or(0, |(id, _)| id.0);
            let id = IncidentId((CONDITIONS + now.0).max(last + 1));
            let mut brief = Brief::of_condition(condition, condition.since);
            brief.told = meant_of(seen.inventory, condition);
            self.briefs.insert(id, brief);
            fresh.insert(id);
            self.changed = true;
        }
        if seen.conditions.settled {
            for (_, brief) in self.briefs.range_mut(IncidentId(CONDITIONS)..) {
                let lives = seen.conditions.now.iter().any(|condition| is_of(brief, condition));
                let unknown = seen.conditions.unknown.iter().any(|(kind, subject)| {
                    brief.family == kind.id() && brief.target == Brief::subject(subject)
                });
                if brief.closed.is_none() && !lives && !unknown {
                    brief.closed = Some(now);
                    self.changed = true;
                }
            }
        }
        fresh
    }

    /// Queues what conversations have to say.
    fn speak(&mut self, now: Millis) {
        self.mutes.retain(|mute| mute.until > now);
        self.look = None;
        for talk in &mut self.talks {
            let Some(channel) = self.channels.get(&talk.channel) else { continue };
            if talk.letter.is_some_and(|id| !self.outbox.has(id)) {
                // Too many waited and it was dropped.
                talk.letter = None;
            }
            let group = self.briefs.get(&talk.id).map(|brief| brief.group.as_str());
            if muted(&self.mutes, &talk.channel, group.unwrap_or_default(), now) {
                continue;
            }
            match talk.wants(channel, &self.briefs, now) {
                Ok(stage) if !channel.config.wants(stage) => {
                    talk.pass_over(stage, &self.briefs, now);
                    self.changed = true;
                }
                Ok(stage) => {
                    let content = |_| Content::Talk { id: talk.id, stage };
                    let to = &talk.channel;
                    talk.letter = self.outbox.queue(to, stage.event(), false, content, now);
                    self.changed = true;
                }
                Err(Some(at)) => self.look = Some(self.look.map_or(at, |look| look.min(at))),
                Err(None) => {}
            }
        }
        let before = self.talks.len();
        self.talks.retain(|talk| !talk.is_over());
        if before != self.talks.len() {
            self.forget();
            self.changed = true;
        }
    }

    /// What is to be sent now. Each is sent once; what comes back is reported with [`Desk::done`].
    pub fn due(&mut self, now: Millis) -> Vec<Job> {
        for id in self.outbox.late(now) {
            self.done(id, &Outcome::Failed("no answer in time".into()).into(), now);
        }
        self.speak(now);
        let mut jobs = Vec::new();
        for due in self.outbox.due(now) {
            let made = match due.content {
                Content::Message(body) => {
                    let hook = self.hooks.get(&due.to).ok_or("it is gone");
                    hook.map(|hook| Job::Http(request(hook, due.id, &due.event, body)))
                        .map_err(str::to_owned)
                }
                Content::Talk { id, stage } => self.make(due.id, &due.to, id, stage, now),
                Content::Test => self.make_test(due.id, &due.to, now),
            };
            match made {
                Ok(job) => jobs.push(job),
                Err(why) => {
                    let reply = Reply { passing: Some(false), ..Outcome::Failed(why).into() };
                    self.done(due.id, &reply, now);
                }
            }
        }
        jobs
    }

    fn make(
        &mut self,
        letter: DeliveryId,
        to: &str,
        id: IncidentId,
        stage: Stage,
        now: Millis,
    ) -> Result<Job, String> {
        let channel = self.channels.get(to).ok_or("the channel is gone")?;
        let talk = self.talks.iter_mut().find(|talk| talk.channel == to && talk.id == id);
        let talk = talk.ok_or("the conversation is gone")?;
        talk.saying(stage, &self.briefs, now);
        self.changed = true;
        let key = talk.key(&self.node);
        let told = Told {
            stage,
            key: &key,
            sequence: talk.sequence,
            node: &self.node,
            dashboard: &self.dashboard,
            incidents: talk.briefs(&self.briefs),
            more: talk.more(),
            now,
            test: false,
        };
        let context = told.context();
        // Without what the first answer gave to remember, it can only be told anew.
        let anew = channel.service.remembers() && talk.refs.is_empty();
        let call = if anew { Stage::Open } else { stage };
        let filling = Filling { own: &channel.own, context: &context, refs: &talk.refs };
        let made = channel.service.make(call, letter, to, &filling)?;
        let severity = told.incidents.iter().map(|(_, b)| b.severity).max().unwrap_or_default();
        wrap(made, channel, letter, (&key, talk.sequence), severity, now)
    }

    fn make_test(&self, letter: DeliveryId, to: &str, now: Millis) -> Result<Job, String> {
        let channel = self.channels.get(to).ok_or("the channel is gone")?;
        let key = format!("{}/test-{letter}", self.node);
        let told = Told {
            stage: Stage::Open,
            key: &key,
            sequence: 1,
            node: &self.node,
            dashboard: &self.dashboard,
            incidents: Vec::new(),
            more: 0,
            now,
            test: true,
        };
        let refs = BTreeMap::new();
        let context = told.context();
        let filling = Filling { own: &channel.own, context: &context, refs: &refs };
        let made = channel.service.make(Stage::Open, letter, to, &filling)?;
        wrap(made, channel, letter, (&key, 1), crate::brief::Severity::Info, now)
    }

    /// Takes in what came back.
    pub fn done(&mut self, id: DeliveryId, reply: &Reply, now: Millis) -> Option<Answer> {
        let (to, content) = self.outbox.content(id)?;
        let channel = self.channels.get(&to);
        let (mut answer, refs, gone) = match (&content, channel) {
            (Content::Message(_), _) | (_, None) => {
                let retry_after = reply.retry_after.as_deref();
                let answer = Answer {
                    retry_after_ms: retry_after.and_then(|text| retry_after_ms(text, now)),
                    said: String::from_utf8_lossy(&reply.body).into_owned(),
                    ..reply.outcome.clone().into()
                };
                (answer, BTreeMap::new(), false)
            }
            (_, Some(channel)) => channel.service.understand(reply, now),
        };
        if !reply.outcome.is_success() {
            answer.passing = reply.passing.or(answer.passing);
        }
        let talk = match &content {
            Content::Talk { id, .. } => {
                self.talks.iter_mut().find(|talk| talk.channel == to && talk.id == *id)
            }
            _ => None,
        };
        if let (true, Some(talk)) = (gone, talk) {
            talk.forget();
            self.outbox.withdraw(id);
            self.changed = true;
            return Some(answer);
        }
        let ended = self.outbox.done(id, &answer, now);
        if let (Some(ended), Content::Talk { id, stage }) = (ended, content)
            && let Some(talk) =
                self.talks.iter_mut().find(|talk| talk.channel == to && talk.id == id)
        {
            // Later answers speak of edits, which have numbers of their own.
            if ended.taken && talk.refs.is_empty() {
                talk.refs = refs;
            }
            talk.said(stage, &self.briefs, now);
            self.changed = true;
        }
        Some(answer)
    }

    /// Whether the briefs say that somebody is to be told something beside what waits.
    pub fn next_due(&self) -> Option<Millis> {
        self.outbox.next_due().into_iter().chain(self.look).min()
    }

    /// The queue: what waits, what went out, what nobody took.
    pub const fn outbox(&self) -> &Outbox<Content> {
        &self.outbox
    }

    /// Channels, by name.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.values()
    }

    /// Webhooks, by name.
    pub fn hooks(&self) -> impl Iterator<Item = &WebhookConfig> {
        self.hooks.values()
    }

    /// Conversations of a channel that are not over.
    pub fn talks(&self, channel: &str) -> usize {
        self.talks.iter().filter(|talk| talk.channel == channel).count()
    }

    /// Puts a dead letter back into the queue.
    pub fn resend(&mut self, id: DeliveryId, now: Millis) -> bool {
        let letter = self.outbox.dead().find(|dead| dead.letter.id == id).map(|dead| &dead.letter);
        let Some(letter) = letter else { return false };
        if let Content::Talk { id: incident, .. } = letter.content {
            let to = letter.to.clone();
            let talk = self.talks.iter_mut().find(|t| t.channel == to && t.id == incident);
            // A conversation that is over has nothing to say any more; one letter at a time.
            let Some(talk) = talk.filter(|talk| talk.letter.is_none()) else { return false };
            talk.letter = Some(id);
        }
        self.outbox.resend(id, now)
    }

    /// What is muted.
    pub fn mutes(&self) -> &[Mute] {
        &self.mutes
    }

    /// Keeps channels quiet for a while; a mute of the same channel and group takes the place of the one before,
    /// and one that ends at once lifts it. `false` when there are too many, or no such channel.
    pub fn mute(&mut self, mute: Mute, now: Millis) -> bool {
        let there =
            |name: &String| self.channels.contains_key(name) || self.hooks.contains_key(name);
        if !mute.channel.as_ref().is_none_or(there) {
            return false;
        }
        self.mutes.retain(|own| {
            own.until > now && (&own.channel, &own.group) != (&mute.channel, &mute.group)
        });
        self.changed = true;
        if mute.until > now {
            if self.mutes.len() >= MUTES_MAX {
                return false;
            }
            self.mutes.push(mute);
        }
        true
    }
}

fn muted(mutes: &[Mute], channel: &str, group: &str, now: Millis) -> bool {
    mutes.iter().any(|mute| mute.until > now && mute.covers(channel, group))
}

/// Whether a channel is to be told of an incident.
fn routed(channel: &Channel, brief: &Brief) -> bool {
    let config = &channel.config;
    (config.groups.is_empty() || config.groups.contains(&brief.group) || brief.condition)
        && (config.families.is_empty() || config.families.contains(&brief.family))
        && brief.severity >= config.severity
}

/// Puts an incident into the conversation of its wave, or begins one.
fn place(talks: &mut Vec<Talk>, channel: &Channel, id: IncidentId, now: Millis) {
    let name = &channel.config.name;
    let group_ms = if channel.service.grouped { channel.config.group_secs * 1000 } else { 0 };
    let open = talks.iter().filter(|talk| talk.channel == *name).count();
    let kind = is_condition(id);
    let is_of = |talk: &&mut Talk| talk.channel == *name && is_condition(talk.id) == kind;
    let newest = talks.iter_mut().rev().find(is_of);
    match newest {
        Some(talk) if talk.takes(group_ms, now) || open >= OPEN_MAX => talk.join(id),
        _ => talks.push(Talk::new(name, id, now)),
    }
}

/// What is to be sent, by the service's way.
fn wrap(
    made: Made,
    channel: &Channel,
    id: DeliveryId,
    (key, sequence): (&str, u32),
    severity: crate::brief::Severity,
    now: Millis,
) -> Result<Job, String> {
    match made {
        Made::Http(request) => Ok(Job::Http(request)),
        Made::Parts(parts) if channel.service.transport == Transport::Mail => {
            Mail::new(id, channel, &parts, key, sequence).map(|mail| Job::Mail(Box::new(mail)))
        }
        Made::Parts(parts) => {
            let line = SyslogLine::new(id, channel, &parts, severity, now)?;
            Ok(Job::Syslog(Box::new(line)))
        }
    }
}

/// A header Retry-After in milliseconds from now (RFC 9110 §10.2.3): seconds, or a date.
pub(crate) fn retry_after_ms(text: &str, now: Millis) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        // Some services say fractions; a float that is too large becomes the largest number.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        return (seconds.is_finite() && seconds >= 0.0).then(|| (seconds * 1000.0).ceil() as u64);
    }
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let months =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = parts.next()?;
    let month = months.iter().position(|name| *name == month)?;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let clock: Vec<u64> = parts.next()?.split(':').filter_map(|part| part.parse().ok()).collect();
    let [h, m, s] = clock.try_into().ok()?;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let before: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let feb = if leap(year) { 29 } else { 28 };
    let days: u64 = [31, feb, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].iter().take(month).sum();
    if !(1..=31).contains(&day) || h > 23 || m > 59 || s > 60 {
        return None;
    }
    let at = Millis::from_secs((before + days + day - 1) * 86_400 + h * 3600 + m * 60 + s);
    Some(at.since(now))
}

#[cfg(test)]
mod tests;
