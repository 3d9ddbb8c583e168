//! The life of an incident: verdicts open it, move it along the ladder and end it; time does the
//! rest.

use weir_bgp::guard::route;
use weir_model::{
    IncidentId, IncidentState, Measure, Millis, Mitigation, MitigationState, Mode, Phase, Verdict,
};

use crate::Mitigator;
use crate::entry::{Entry, Life, same_rule};
use crate::ledger::is_live;
use crate::plan::{Plan, Planned, Situation, plan};

/// A mere alert is recorded again after so long, even when its reason reads differently each time.
const ALERT_AGAIN_MS: u64 = 60_000;

/// How much more of the excess a new set of rules must cover to be worth a change, 0-1.
const WORTHWHILE: f64 = 0.1;

impl Mitigator {
    /// Takes one verdict in.
    pub fn verdict(&mut self, verdict: &Verdict, now: Millis) {
        let mut entry = match self.entries.remove(&verdict.incident) {
            Some(entry) => entry,
            None if verdict.phase == Phase::Ended => return,
            None => match self.open(verdict, now) {
                Some(entry) => entry,
                None => return,
            },
        };
        if verdict.phase == Phase::Ended {
            self.ended(&mut entry, verdict, now);
        } else {
            self.goes_on(&mut entry, verdict, now);
        }
        self.entries.insert(verdict.incident, entry);
    }

    /// Makes room for an incident and enters it; `None` when every place is taken by one that is
    /// being mitigated.
    fn open(&mut self, verdict: &Verdict, now: Millis) -> Option<Entry> {
        while self.entries.len() >= self.config.max_incidents.max(1) {
            let by_worth = |e: &Entry| {
                let open = e.incident.state == IncidentState::Open;
                (open, e.has_live(), e.incident.id)
            };
            let least = self.entries.values().min_by_key(|e| by_worth(e)).map(by_worth);
            let Some((_, false, id)) = least else {
                self.overflowed = self.overflowed.saturating_add(1);
                let detail = format!("{} incidents are open already", self.entries.len());
                let reason = Some(verdict.reason.clone());
                self.ledger.record_outside(verdict.target, "overflow", detail, reason, now);
                return None;
            };
            self.forget(id);
        }
        let mut entry = Entry::new(verdict, now);
        self.ledger.record(&mut entry.incident, "open", verdict.summary.clone(), now);
        Some(entry)
    }

    fn forget(&mut self, id: IncidentId) {
        self.entries.remove(&id);
        self.ledger.changed.remove(&id);
    }

    fn goes_on(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        self.take_in(entry, verdict, now);
        entry.last_alive = now;
        if entry.life != Life::Alive {
            entry.life = Life::Alive;
            let text = "the attack is back".to_owned();
            self.ledger.note(&mut entry.incident, "returned", text, now);
        }
        if entry.incident.held {
            self.renew(entry, now);
            return;
        }
        let plan = self.plan_for(entry, verdict);
        if plan.step.is_none() {
            self.alert(entry, &plan, now);
        } else if self.is_worthwhile(entry, &plan, verdict, now) {
            self.follow(entry, &plan, verdict, now);
        }
        self.renew(entry, now);
    }

    /// Keeps the verdict as the incident's, says when its family changes, reopens what was closed.
    fn take_in(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let before = entry.incident.verdict.family;
        let incident = std::sync::Arc::make_mut(&mut entry.incident);
        incident.verdict = verdict.clone();
        incident.state = IncidentState::Open;
        incident.closed = None;
        self.ledger.changed.insert(incident.id);
        if before != verdict.family {
            let text = format!("{before}, now {}", verdict.family);
            self.ledger.note(&mut entry.incident, "classified", text, now);
        }
    }

    pub(crate) fn plan_for(&self, entry: &Entry, verdict: &Verdict) -> Plan {
        let in_force = entry.rung().and_then(|rung| self.config.step_of(rung));
        let is_banned = |measure: &Measure| entry.banned.contains(&route(measure));
        let situation = Situation {
            config: &self.config,
            guard: &self.guard,
            from_step: entry.from_step.max(in_force.unwrap_or(0)),
            to_step: entry.to_step,
            others_bits_per_sec: self.others_bits_per_sec(entry.incident.id),
            is_banned: &is_banned,
        };
        plan(verdict, &situation)
    }

    /// What other open inbound incidents put on the links now.
    fn others_bits_per_sec(&self, but: IncidentId) -> f64 {
        self.entries
            .values()
            .filter(|e| e.life == Life::Alive && e.incident.id != but)
            .map(|e| {
                let v = &e.incident.verdict;
                (v.rate.bits_per_sec - v.discarded.bits_per_sec).max(0.0)
            })
            .sum()
    }

    /// Whether a plan is worth touching routers for.
    fn is_worthwhile(&self, entry: &Entry, plan: &Plan, verdict: &Verdict, now: Millis) -> bool {
        if entry.satisfies(plan) {
            return false;
        }
        if !entry.has_live() {
            return self.may_change(entry, now);
        }
        let same_step = entry.rung() == plan.step.map(|(_, rung)| rung);
        // What the rules cut is no longer in the excess: of the rest, the detector can only name
        // leftovers, and chasing them would let the attack back in.
        let enough = same_step
            && (entry.has_fallen(verdict)
                || entry.coverage_now(verdict) + WORTHWHILE >= plan.coverage());
        !enough && self.may_change(entry, now)
    }

    /// One generation of rules per incident and `step_secs`.
    pub(crate) fn may_change(&self, entry: &Entry, now: Millis) -> bool {
        entry.generation_at.is_none_or(|at| now.since(at) >= self.config.step_ms())
    }

    /// Puts a plan in force. What is new comes first; rules of the same step that the plan no
    /// longer names stay until they lapse, for attackers who take turns with their vectors, as
    /// long as number and collateral allow.
    fn follow(&mut self, entry: &mut Entry, plan: &Plan, verdict: &Verdict, now: Millis) {
        let Some((index, rung)) = plan.step else { return };
        let harder = entry.rung().is_some_and(|r| r != rung);
        let planned_routes: Vec<Measure> =
            plan.measures.iter().map(|p| route(&p.measure)).collect();
        let replaced = |m: &Mitigation| {
            let keeps = plan.measures.iter().any(|p| same_rule(&m.measure, &p.measure));
            !keeps && (m.rung != rung || planned_routes.contains(&route(&m.measure)))
        };
        let why = if harder { "replaced by a harder step" } else { "replaced" };
        self.end(entry, replaced, MitigationState::Withdrawn, why, now);
        self.make_room(entry, plan, now);
        if harder {
            let detail = format!("to {rung}: {}", plan.why);
            self.ledger.record(&mut entry.incident, "escalate", detail, now);
        }
        for planned in &plan.measures {
            if !entry.live().any(|m| same_rule(&m.measure, &planned.measure)) {
                self.put(entry, planned, rung, &plan.why, now);
            }
        }
        std::sync::Arc::make_mut(&mut entry.incident).rung = Some(rung);
        entry.from_step = entry.from_step.max(index);
        entry.generation_at = Some(now);
        entry.generation_excess = verdict.excess.bits_per_sec;
    }

    /// Withdraws the oldest rules beyond the number or collateral that the plan leaves room for.
    fn make_room(&mut self, entry: &mut Entry, plan: &Plan, now: Millis) {
        let config = &self.config;
        let limit = match plan.step {
            Some((_, weir_model::Rung::RateLimit)) => config.rate_limit_collateral_max,
            _ => config.drop_collateral_max,
        };
        let fresh: Vec<&Planned> = plan
            .measures
            .iter()
            .filter(|p| !entry.live().any(|m| same_rule(&m.measure, &p.measure)))
            .collect();
        let number = fresh.len();
        let collateral: f64 = fresh.iter().map(|p| p.collateral).sum();
        let rules_max = config.max_rules_per_incident.saturating_mul(2);
        loop {
            let fits = entry.live().count() + number <= rules_max
                && entry.collateral(limit) + collateral <= limit + f64::EPSILON;
            let oldest = entry
                .live()
                .filter(|m| !plan.measures.iter().any(|p| same_rule(&m.measure, &p.measure)))
                .min_by_key(|m| (m.since, m.id))
                .map(|m| m.id);
            let Some(oldest) = oldest.filter(|_| !fits) else { return };
            let gives_way = |m: &Mitigation| m.id == oldest;
            self.end(entry, gives_way, MitigationState::Withdrawn, "gave way", now);
        }
    }

    fn put(
        &mut self,
        entry: &mut Entry,
        planned: &Planned,
        rung: weir_model::Rung,
        why: &str,
        now: Millis,
    ) {
        let state = match self.mode {
            Mode::Observe => MitigationState::Simulated,
            Mode::Approve => MitigationState::Proposed,
            Mode::Auto => MitigationState::Active,
        };
        let note = format!(
            "{why}; covers {:.1} % of the excess, hits {:.2} % of normal traffic",
            planned.coverage * 100.0,
            planned.collateral * 100.0
        );
        let times = (now, now + self.config.ttl_ms());
        let what = (planned.measure.clone(), rung);
        self.ledger.open(&mut entry.incident, what, state, times, note);
        if let Some(m) = entry.incident.mitigations.last() {
            entry.measured.insert(m.id, planned.clone());
        }
    }

    /// Ends measures of an incident and forgets what was measured of them.
    pub(crate) fn end(
        &mut self,
        entry: &mut Entry,
        which: impl Fn(&Mitigation) -> bool,
        state: MitigationState,
        note: &str,
        now: Millis,
    ) -> usize {
        let ended = self.ledger.end(&mut entry.incident, which, state, note, now);
        if ended > 0 {
            let Entry { incident, measured, .. } = entry;
            measured.retain(|id, _| incident.mitigations.iter().any(|m| m.id == *id && is_live(m)));
            if !entry.has_live() {
                std::sync::Arc::make_mut(&mut entry.incident).rung = None;
            }
        }
        ended
    }

    fn alert(&mut self, entry: &mut Entry, plan: &Plan, now: Millis) {
        if entry.has_live() {
            return;
        }
        let again = entry
            .alerted
            .as_ref()
            .is_none_or(|(at, text)| now.since(*at) >= ALERT_AGAIN_MS && *text != plan.why);
        if again {
            self.ledger.record(&mut entry.incident, "alert", plan.why.clone(), now);
            entry.alerted = Some((now, plan.why.clone()));
        }
    }

    /// Gives every measure of a living attack its full time again once half of it has gone: the
    /// far end hears of it every few minutes, not every second.
    pub(crate) fn renew(&mut self, entry: &mut Entry, now: Millis) {
        let ttl = self.config.ttl_ms();
        self.renew_to(entry, now, now + ttl);
    }

    fn renew_to(&mut self, entry: &mut Entry, now: Millis, expires: Millis) {
        let half = self.config.ttl_ms() / 2;
        let due = |m: &Mitigation| is_live(m) && m.expires.since(now) < half && m.expires < expires;
        if entry.live().any(due) {
            let incident = std::sync::Arc::make_mut(&mut entry.incident);
            for m in incident.mitigations.iter_mut().filter(|m| due(m)) {
                m.expires = expires;
            }
            self.ledger.changed.insert(incident.id);
            self.ledger.dirty = true;
        }
    }

    fn ended(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        if entry.life != Life::Alive {
            return;
        }
        let incident = std::sync::Arc::make_mut(&mut entry.incident);
        // The numbers of the last living verdict are the ones worth keeping.
        incident.verdict.phase = Phase::Ended;
        incident.verdict.at = verdict.at;
        incident.verdict.peak = verdict.peak;
        self.ledger.record(&mut entry.incident, "end", "the attack is over".into(), now);
        self.subside(entry, now);
    }

    /// The attack is no longer seen: hold what is in force, or close.
    pub(crate) fn subside(&mut self, entry: &mut Entry, now: Millis) {
        match entry.rung() {
            Some(rung) => {
                let until = now + self.config.hold_ms(rung);
                entry.life = Life::Holding { until };
            }
            None => self.close(entry, now),
        }
    }

    pub(crate) fn close(&mut self, entry: &mut Entry, now: Millis) {
        self.end(entry, |_| true, MitigationState::Withdrawn, "the incident is over", now);
        entry.life = Life::Closed;
        let incident = std::sync::Arc::make_mut(&mut entry.incident);
        incident.state = IncidentState::Closed;
        incident.closed = Some(now);
        incident.held = false;
        self.ledger.note(&mut entry.incident, "closed", "closed".into(), now);
    }

    /// What time alone brings about.
    pub(crate) fn tick(&mut self, now: Millis) {
        let open: Vec<IncidentId> = self
            .entries
            .values()
            .filter(|e| e.life != Life::Closed)
            .map(|e| e.incident.id)
            .collect();
        for id in open {
            if let Some(mut entry) = self.entries.remove(&id) {
                self.tick_one(&mut entry, now);
                self.entries.insert(id, entry);
            }
        }
    }

    fn tick_one(&mut self, entry: &mut Entry, now: Millis) {
        self.clamp(entry, now);
        let expired = |m: &Mitigation| m.expires <= now;
        self.end(entry, expired, MitigationState::Withdrawn, "expired", now);
        if entry.incident.held {
            self.renew(entry, now);
            return;
        }
        match entry.life {
            Life::Alive if now.since(entry.last_alive) >= self.config.ttl_ms() => {
                let text = format!("no verdict for {} s", self.config.ttl_secs);
                self.ledger.record(&mut entry.incident, "lapse", text, now);
                self.close(entry, now);
            }
            Life::Holding { until } if now >= until => self.close(entry, now),
            Life::Holding { until } => {
                let expires = (now + self.config.ttl_ms()).min(until + 1000);
                self.renew_to(entry, now, expires);
            }
            Life::Alive | Life::Closed => {}
        }
    }

    /// A clock that was set back must not keep a measure in force longer than its time to live.
    fn clamp(&mut self, entry: &mut Entry, now: Millis) {
        let latest = now + self.config.ttl_ms();
        if entry.live().any(|m| m.expires > latest) {
            let incident = std::sync::Arc::make_mut(&mut entry.incident);
            for m in incident.mitigations.iter_mut().filter(|m| is_live(m)) {
                m.expires = m.expires.min(latest);
            }
            self.ledger.dirty = true;
        }
        entry.last_alive = entry.last_alive.min(now);
        if let Life::Holding { until } = &mut entry.life
            && let Some(rung) = entry.incident.rung
        {
            *until = (*until).min(now + self.config.hold_ms(rung));
        }
    }
}
