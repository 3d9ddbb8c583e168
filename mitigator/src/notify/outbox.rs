//! Deliveries: what waits, what is under way, what became of it.

use std::collections::{BTreeMap, VecDeque};

use weir_model::{Decision, Incident, IpNet, Millis};

use super::webhook::{WebhookConfig, payload};
use super::{DeliveryId, Outcome, Request, TRIES_MAX, TRY_TIMEOUT_MS, back_off_ms};

/// Deliveries that wait or are under way; beyond this the oldest waiting one is dropped and
/// counted.
pub const DELIVERIES_MAX: usize = 1024;

/// Entries of the delivery log.
pub const LOG_MAX: usize = 256;

/// What a test message is about.
const TEST: &str = "test";

/// Requests under way to one receiver at once: a slow one must not hold up the others.
const UNDER_WAY_MAX: usize = 4;

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Its number.
    pub id: DeliveryId,
    /// To whom.
    pub to: String,
    /// What about.
    pub event: String,
    /// When it was queued.
    pub queued: Millis,
    /// When it ended.
    pub ended: Millis,
    /// Tries made.
    pub tries: u32,
    /// How the last one ended.
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
struct Delivery {
    hook: usize,
    event: String,
    body: Vec<u8>,
    queued: Millis,
    tries: u32,
    due: Millis,
    /// When the present try counts as failed.
    under_way: Option<Millis>,
}

/// The deliveries of all webhooks.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    hooks: Vec<WebhookConfig>,
    waiting: BTreeMap<DeliveryId, Delivery>,
    log: VecDeque<DeliveryRecord>,
    last: u64,
    dropped: u64,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(hooks: Vec<WebhookConfig>) -> Self {
        Self { hooks, ..Self::default() }
    }

    /// Puts other webhooks in the place of those known. What waits for one that is gone or switched off
    /// is dropped, and the log says so; what waits for a changed one goes where it is now.
    pub fn set_hooks(&mut self, hooks: Vec<WebhookConfig>, now: Millis) {
        let before = std::mem::replace(&mut self.hooks, hooks);
        let place = |delivery: &Delivery| {
            let is_it = |hook: &WebhookConfig| hook.name == before[delivery.hook].name;
            let place = self.hooks.iter().position(is_it)?;
            (self.hooks[place].enabled || delivery.event == TEST).then_some(place)
        };
        let mut gone = Vec::new();
        for (id, delivery) in &mut self.waiting {
            match place(delivery) {
                Some(place) => delivery.hook = place,
                None => gone.push((*id, before[delivery.hook].name.clone())),
            }
        }
        for (id, to) in gone {
            if let Some(delivery) = self.waiting.remove(&id) {
                let outcome = Outcome::Failed("the webhook was removed or switched off".into());
                self.note(id, delivery, to, outcome, now);
            }
        }
    }

    /// Queues a decision for whoever wants it.
    pub fn decision(&mut self, decision: &Decision, incident: Option<&Incident>, now: Millis) {
        for hook in 0..self.hooks.len() {
            if self.hooks[hook].wants(&decision.action) {
                self.queue(hook, decision, incident, now);
            }
        }
    }

    /// Queues a test message to one webhook; `None` when there is none of that name.
    pub fn test(&mut self, name: &str, now: Millis) -> Option<DeliveryId> {
        let hook = self.hooks.iter().position(|h| h.name == name)?;
        let decision = Decision {
            at: now,
            incident: None,
            target: IpNet::V4(weir_model::Ipv4Net::default()),
            action: TEST.into(),
            detail: "a test call".into(),
            reason: None,
        };
        Some(self.queue(hook, &decision, None, now))
    }

    fn queue(
        &mut self,
        hook: usize,
        decision: &Decision,
        incident: Option<&Incident>,
        now: Millis,
    ) -> DeliveryId {
        if self.waiting.len() >= DELIVERIES_MAX
            && let Some(oldest) =
                self.waiting.iter().find(|(_, d)| d.under_way.is_none()).map(|(id, _)| *id)
        {
            self.waiting.remove(&oldest);
            self.dropped = self.dropped.saturating_add(1);
        }
        self.last = self.last.saturating_add(1);
        let id = DeliveryId(self.last);
        let body = payload(id, decision, incident);
        let event = decision.action.clone();
        let delivery =
            Delivery { hook, event, body, queued: now, tries: 0, due: now, under_way: None };
        self.waiting.insert(id, delivery);
        id
    }

    /// Requests to make now. Each is made once; its outcome is reported with [`Outbox::done`].
    pub fn due(&mut self, now: Millis) -> Vec<Request> {
        self.time_out(now);
        let mut under_way = vec![0usize; self.hooks.len()];
        for delivery in self.waiting.values().filter(|d| d.under_way.is_some()) {
            under_way[delivery.hook] += 1;
        }
        let mut requests = Vec::new();
        for (id, delivery) in &mut self.waiting {
            let busy = &mut under_way[delivery.hook];
            if delivery.under_way.is_some() || delivery.due > now || *busy >= UNDER_WAY_MAX {
                continue;
            }
            *busy += 1;
            delivery.tries += 1;
            delivery.under_way = Some(now + TRY_TIMEOUT_MS);
            let hook = &self.hooks[delivery.hook];
            requests.push(hook.request(*id, &delivery.event, delivery.body.clone()));
        }
        requests
    }

    fn time_out(&mut self, now: Millis) {
        let late = |d: &Delivery| d.under_way.is_some_and(|until| until <= now);
        let late: Vec<DeliveryId> =
            self.waiting.iter().filter(|(_, d)| late(d)).map(|(id, _)| *id).collect();
        for id in late {
            self.done(id, Outcome::Failed("no answer in time".into()), now);
        }
    }

    /// Takes in what became of a try; answers that come after its time are ignored.
    pub fn done(&mut self, id: DeliveryId, outcome: Outcome, now: Millis) {
        let Some(delivery) = self.waiting.get_mut(&id) else { return };
        if delivery.under_way.take().is_none() {
            return;
        }
        if !outcome.is_success() && outcome.is_passing() && delivery.tries < TRIES_MAX {
            delivery.due = now + back_off_ms(delivery.tries);
            return;
        }
        let Some(delivery) = self.waiting.remove(&id) else { return };
        let to = self.hooks[delivery.hook].name.clone();
        self.note(id, delivery, to, outcome, now);
    }

    fn note(
        &mut self,
        id: DeliveryId,
        delivery: Delivery,
        to: String,
        outcome: Outcome,
        now: Millis,
    ) {
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(DeliveryRecord {
            id,
            to,
            event: delivery.event,
            queued: delivery.queued,
            ended: now,
            tries: delivery.tries,
            outcome,
        });
    }

    /// When there is next something to do, if anything waits.
    pub fn next_due(&self) -> Option<Millis> {
        self.waiting.values().map(|d| d.under_way.unwrap_or(d.due)).min()
    }

    /// What became of the last deliveries, oldest first.
    pub fn log(&self) -> impl DoubleEndedIterator<Item = &DeliveryRecord> {
        self.log.iter()
    }

    /// Deliveries that wait or are under way.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Deliveries dropped because too many waited, since the start.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use weir_bgp::config::Secret;

    use super::super::{SIGNATURE_HEADER, signature};
    use super::*;

    fn hook(name: &str, events: &[&str]) -> WebhookConfig {
        WebhookConfig {
            name: name.into(),
            url: "https://example.net/hook".into(),
            enabled: true,
            secret: Some(Secret::new("hunter2".into())),
            secret_file: None,
            events: events.iter().map(|e| (*e).to_owned()).collect(),
            headers: [("Authorization".to_owned(), "Bearer x".to_owned())].into_iter().collect(),
        }
    }

    fn decision(action: &str) -> Decision {
        Decision {
            at: Millis::from_secs(1_795_168_965),
            incident: None,
            target: "203.0.113.7/32".parse().unwrap(),
            action: action.into(),
            detail: "flowspec \"x\"".into(),
            reason: None,
        }
    }

    #[test]
    fn a_message_is_signed_over_its_octets() {
        let mut outbox = Outbox::new(vec![hook("ops", &["announce"]), hook("all", &[])]);
        outbox.decision(&decision("open"), None, Millis(5));
        outbox.decision(&decision("announce"), None, Millis(5));
        let requests = outbox.due(Millis(5));
        let to: Vec<&str> = requests.iter().map(|r| r.to.as_str()).collect();
        assert_eq!(to, ["all", "ops", "all"]);
        let request = &requests[1];
        let header = |name: &str| {
            request.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap()
        };
        assert_eq!(header(SIGNATURE_HEADER), signature(b"hunter2", &request.body));
        assert_eq!(header("X-Weir-Event"), "announce");
        assert_eq!(header("Authorization"), "Bearer x");
        assert!(!format!("{request:?}").contains("Bearer"), "credentials stay out of logs");
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["target"], "203.0.113.7/32");
        assert_eq!(body["at"], "2026-11-20T10:02:45.000Z");
        assert_eq!(body["detail"], "flowspec \"x\"");
    }

    #[test]
    fn a_failing_receiver_is_tried_four_times_with_growing_waits() {
        let mut outbox = Outbox::new(vec![hook("ops", &[])]);
        outbox.decision(&decision("open"), None, Millis(0));
        let mut tried = Vec::new();
        for second in 0..120 {
            let now = Millis::from_secs(second);
            for request in outbox.due(now) {
                tried.push(second);
                outbox.done(request.id, Outcome::Status(503), now);
            }
        }
        assert_eq!(tried, [0, 2, 10, 42]);
        let record = outbox.log().next().unwrap();
        assert_eq!((record.tries, &record.outcome), (4, &Outcome::Status(503)));
        assert_eq!(outbox.next_due(), None);
    }

    #[test]
    fn a_receiver_that_refuses_is_not_asked_again() {
        let mut outbox = Outbox::new(vec![hook("ops", &[])]);
        let id = outbox.test("ops", Millis(0)).unwrap();
        assert_eq!(outbox.test("nobody", Millis(0)), None);
        assert_eq!(outbox.due(Millis(0))[0].id, id);
        outbox.done(id, Outcome::Status(404), Millis(1));
        outbox.done(id, Outcome::Status(200), Millis(2));
        let outcomes: Vec<_> = outbox.log().map(|r| r.outcome.clone()).collect();
        assert_eq!(outcomes, [Outcome::Status(404)]);
    }

    #[test]
    fn a_try_without_an_answer_fails_after_its_time() {
        let mut outbox = Outbox::new(vec![hook("ops", &[])]);
        outbox.test("ops", Millis(0));
        assert_eq!(outbox.due(Millis(0)).len(), 1);
        assert_eq!(outbox.due(Millis(29_999)).len(), 0, "one try at a time");
        assert_eq!(outbox.due(Millis(30_000)).len(), 0);
        assert_eq!(outbox.due(Millis(32_000)).len(), 1);
    }

    #[test]
    fn webhooks_come_change_and_go_while_messages_wait() {
        let mut outbox = Outbox::new(vec![hook("a", &[]), hook("b", &[]), hook("c", &[])]);
        outbox.decision(&decision("open"), None, Millis(0));
        let mut moved = hook("c", &[]);
        moved.url = "https://example.net/elsewhere".into();
        let off = WebhookConfig { enabled: false, ..hook("b", &[]) };
        outbox.set_hooks(vec![moved, off, hook("d", &[])], Millis(1));
        let due = outbox.due(Millis(1));
        assert_eq!(due.len(), 1, "a is gone, b is off, d came later");
        assert_eq!((&*due[0].to, &*due[0].url), ("c", "https://example.net/elsewhere"));
        let gone: Vec<&str> = outbox.log().map(|r| r.to.as_str()).collect();
        assert_eq!(gone, ["a", "b"]);
        outbox.decision(&decision("open"), None, Millis(2));
        assert_eq!(outbox.due(Millis(2)).len(), 2, "c and d");
        assert!(outbox.test("b", Millis(3)).is_some(), "one that is off can be tried");
        assert_eq!(outbox.due(Millis(3))[0].to, "b");
        // An answer for what is gone comes late and changes nothing.
        outbox.set_hooks(Vec::new(), Millis(4));
        outbox.done(due[0].id, Outcome::Status(200), Millis(5));
        assert_eq!((outbox.waiting(), outbox.log().count()), (0, 6));
    }

    #[test]
    fn what_waits_and_the_log_are_bounded_and_a_slow_receiver_gets_few_at_once() {
        let mut outbox = Outbox::new(vec![hook("ops", &[])]);
        for _ in 0..5000 {
            outbox.decision(&decision("open"), None, Millis(0));
        }
        assert_eq!(outbox.due(Millis(0)).len(), UNDER_WAY_MAX);
        assert_eq!(outbox.dropped(), 5000 - DELIVERIES_MAX as u64);
        for second in 0..10_000 {
            let now = Millis::from_secs(second);
            for request in outbox.due(now) {
                outbox.done(request.id, Outcome::Status(200), now);
            }
        }
        assert_eq!(outbox.log().count(), LOG_MAX);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let check = |change: fn(&mut WebhookConfig)| {
            let mut hook = hook("ops", &[]);
            change(&mut hook);
            assert!(hook.check().is_err(), "{hook:?}");
        };
        assert_eq!(hook("ops", &["announce", "roll-back"]).check(), Ok(()));
        check(|h| h.name = " ".into());
        check(|h| h.url = "ftp://example.net".into());
        check(|h| h.url = "https://example.net/ x".into());
        check(|h| h.events = vec!["explode".into()]);
        check(|h| drop(h.headers.insert("X-Weir-Signature".into(), "forged".into())));
        check(|h| drop(h.headers.insert("A".into(), "b\r\nC: d".into())));
    }
}
