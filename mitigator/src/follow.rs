//! Putting a plan in force: what is new, what gives way, what stays a while.

use std::sync::Arc;

use weir_bgp::guard::{discards_everything, route};
use weir_model::{Measure, Millis, Mitigation, MitigationId, MitigationState, Mode, Rung, Verdict};

use crate::Mitigator;
use crate::entry::{Entry, same_rule};
use crate::feedback::Watch;
use crate::ledger::is_live;
use crate::plan::{Plan, Planned};

impl Mitigator {
    /// Puts a plan in force. Rules of the same step that the plan no longer names stay until they
    /// lapse, for attackers who take turns with their vectors, as long as number and collateral
    /// allow. What waits for approval replaces nothing that is in force.
    pub(crate) fn follow(
        &mut self,
        entry: &mut Entry,
        plan: &Plan,
        verdict: &Verdict,
        now: Millis,
    ) {
        let Some((_, rung)) = plan.step else { return };
        let harder = entry.rung().is_some_and(|r| r != rung);
        let because = self.because(entry, plan);
        let planned: Vec<Planned> =
            plan.measures.iter().map(|p| self.as_in_force(entry, p)).collect();
        let state = self.state_for(entry, &planned);
        let routes: Vec<Measure> = planned.iter().map(|p| route(&p.measure)).collect();
        let aims: Vec<&Measure> = planned.iter().map(|p| &p.measure).collect();
        let stays_beside = |m: &&Mitigation| self.stays_beside(m, rung, &aims);
        let beside: Vec<MitigationId> = entry.live().filter(stays_beside).map(|m| m.id).collect();
        let replaced = |m: &Mitigation| {
            let keeps = planned.iter().any(|p| same_rule(&m.measure, &p.measure));
            let beside = beside.contains(&m.id);
            let stays = state == MitigationState::Proposed && m.state == MitigationState::Active;
            !keeps && !stays && !beside && (m.rung != rung || routes.contains(&route(&m.measure)))
        };
        let why = if harder { "replaced by another step" } else { "replaced" };
        self.end(entry, replaced, MitigationState::Withdrawn, why, now);
        self.make_room(entry, &planned, rung, now);
        if harder {
            let detail = format!("to {rung}: {}", plan.why);
            self.ledger.record(&mut entry.incident, "escalate", detail, now);
        }
        for planned in &planned {
            if !entry.live().any(|m| same_rule(&m.measure, &planned.measure)) {
                self.put(entry, planned, rung, state, &because, now);
            }
        }
        if rung.filters() {
            entry.gentler = Some((rung, planned));
        }
        entry.pushed = false;
        entry.generation_at = Some(now);
        entry.watch = Some(Watch::new(verdict, entry.legitimate, now));
        self.show_rung(entry);
    }

    /// Whether a rule goes on doing its part beside measures of another step: diverting takes minutes, and a
    /// black hole does not reach every router.
    pub(crate) fn stays_beside(&self, m: &Mitigation, rung: Rung, aims: &[&Measure]) -> bool {
        let apart =
            || rung == Rung::Rtbh && aims.iter().any(|aim| self.peers.parts(&m.measure, aim));
        let replaced = || aims.iter().any(|aim| route(aim) == route(&m.measure));
        m.rung.filters() && m.rung != rung && !replaced() && (rung.diverts() || apart())
    }

    /// Why, for people, and which group holds weir back.
    fn because(&self, entry: &Entry, plan: &Plan) -> String {
        match &entry.policy.mode_of {
            Some(group) if entry.policy.mode < self.mode => {
                let mode = format!("{:?}", entry.policy.mode).to_lowercase();
                format!("group {group} is in mode {mode}; {}", plan.why)
            }
            _ => plan.why.clone(),
        }
    }

    /// What the mode makes of a new measure.
    fn state_for(&self, entry: &Entry, planned: &[Planned]) -> MitigationState {
        match self.mode_for(entry) {
            Mode::Observe => MitigationState::Simulated,
            Mode::Approve => MitigationState::Proposed,
            Mode::Auto if planned.iter().any(|p| self.needs_two_people(&p.measure)) => {
                MitigationState::Proposed
            }
            Mode::Auto => MitigationState::Active,
        }
    }

    pub(crate) fn needs_two_people(&self, measure: &Measure) -> bool {
        self.config.two_person_rtbh && discards_everything(measure)
    }

    /// A rule that a waning incident on the same target holds is taken over as it is, so that the
    /// routers notice nothing.
    fn as_in_force(&self, entry: &Entry, planned: &Planned) -> Planned {
        let mut planned = planned.clone();
        for id in self.waning(entry.incident.verdict.target, entry.incident.id) {
            let old = self.entries.get(&id);
            let same = old.and_then(|e| e.live().find(|m| same_rule(&m.measure, &planned.measure)));
            if let Some(m) = same {
                planned.measure = m.measure.clone();
            }
        }
        planned
    }

    /// Withdraws the oldest rules beyond the number or collateral that the new ones leave room for.
    fn make_room(&mut self, entry: &mut Entry, planned: &[Planned], rung: Rung, now: Millis) {
        let config = &self.config;
        let limit = match rung {
            Rung::Mark | Rung::RateLimit => config.rate_limit_collateral_max,
            _ => config.drop_collateral_max,
        };
        let fresh: Vec<&Planned> = planned
            .iter()
            .filter(|p| !entry.live().any(|m| same_rule(&m.measure, &p.measure)))
            .collect();
        let number = fresh.len();
        let collateral: f64 = fresh.iter().map(|p| p.collateral).sum();
        let cap = usize::try_from(self.guard.config().max_per_incident).unwrap_or(usize::MAX);
        let rules_max = config.max_rules_per_incident.saturating_mul(2).min(cap);
        loop {
            let fits = entry.live().count() + number <= rules_max
                && entry.collateral(limit) + collateral <= limit + f64::EPSILON;
            let oldest = entry
                .live()
                .filter(|m| !planned.iter().any(|p| same_rule(&m.measure, &p.measure)))
                .filter(|m| m.rung == rung)
                .min_by_key(|m| (m.since, m.id))
                .map(|m| m.id);
            let Some(oldest) = oldest.filter(|_| !fits) else { return };
            let gives_way = |m: &Mitigation| m.id == oldest;
            self.end(entry, gives_way, MitigationState::Withdrawn, "gave way", now);
        }
    }

    pub(crate) fn put(
        &mut self,
        entry: &mut Entry,
        planned: &Planned,
        rung: Rung,
        state: MitigationState,
        why: &str,
        now: Millis,
    ) {
        let note = format!(
            "{why}; covers {:.1} % of the excess, hits {:.2} % of normal traffic",
            planned.coverage * 100.0,
            planned.collateral * 100.0
        );
        let times = (now, now + self.config.ttl_ms());
        let what = (planned.measure.clone(), rung);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0-1e15; a NaN becomes 0"
        )]
        let worth =
            (planned.coverage * entry.incident.verdict.excess.bits_per_sec).clamp(0.0, 1e15) as u64;
        self.ledger.open(&mut entry.incident, what, state, times, worth, note);
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
            let Entry { incident, measured, refusers, .. } = entry;
            let live = || incident.mitigations.iter().filter(|m| is_live(m));
            measured.retain(|id, _| live().any(|m| m.id == *id));
            refusers.retain(|measure, _| live().any(|m| m.measure == *measure));
            self.show_rung(entry);
        }
        ended
    }

    /// Writes the step in force where operators see it.
    pub(crate) fn show_rung(&mut self, entry: &mut Entry) {
        let rung = entry.rung();
        if entry.incident.rung != rung {
            Arc::make_mut(&mut entry.incident).rung = rung;
            self.ledger.changed.insert(entry.incident.id);
        }
    }

    /// Gives every measure of a living attack its full time again once half of it has gone: the
    /// far end hears of it every few minutes, not every second.
    pub(crate) fn renew(&mut self, entry: &mut Entry, now: Millis) {
        self.renew_to(entry, now, now + self.config.ttl_ms());
    }

    pub(crate) fn renew_to(&mut self, entry: &mut Entry, now: Millis, expires: Millis) {
        let half = self.config.ttl_ms() / 2;
        let due = |m: &Mitigation| is_live(m) && m.expires.since(now) < half && m.expires < expires;
        if entry.live().any(due) {
            let incident = Arc::make_mut(&mut entry.incident);
            for m in incident.mitigations.iter_mut().filter(|m| due(m)) {
                m.expires = expires;
            }
            self.ledger.changed.insert(incident.id);
            self.ledger.dirty = true;
        }
    }
}
