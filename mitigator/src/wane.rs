//! The life of an incident once its attack is no longer seen. What a router filters is often
//! invisible, so an end is only believed step by step: hold, a gentler step, hold again, nothing,
//! and a last look with the incident still open.

use std::sync::Arc;

use weir_bgp::guard::route;
use weir_model::{
    Action, Filter, IncidentState, Measure, Millis, Mitigation, MitigationState, Phase, Rung,
    Verdict,
};

use crate::Mitigator;
use crate::entry::{Entry, Life, same_rule};
use crate::ledger::is_live;
use crate::plan::{Planned, rate_limit_bytes};

impl Mitigator {
    pub(crate) fn ended(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        if entry.life != Life::Alive {
            return;
        }
        let incident = Arc::make_mut(&mut entry.incident);
        // The numbers of the last living verdict are the ones worth keeping.
        incident.verdict.phase = Phase::Ended;
        incident.verdict.at = verdict.at;
        incident.verdict.peak = verdict.peak;
        self.ledger.record(&mut entry.incident, "end", "the attack is over".into(), now);
        self.subside(entry, now);
    }

    /// The attack is no longer seen: hold what is in force, or close.
    pub(crate) fn subside(&mut self, entry: &mut Entry, now: Millis) {
        let moot = |m: &Mitigation| m.state == MitigationState::Proposed;
        self.end(entry, moot, MitigationState::Withdrawn, "the attack is over", now);
        match entry.rung() {
            Some(rung) => {
                self.remember(entry, rung, now);
                self.hold_on(entry, rung, now);
            }
            None => self.close(entry, now),
        }
    }

    fn hold_on(&mut self, entry: &mut Entry, rung: Rung, now: Millis) {
        let hold = self.config.hold_ms(rung, entry.strikes).max(self.config.step_ms());
        let until = now + hold;
        entry.life = Life::Holding { until };
    }

    fn remember(&mut self, entry: &Entry, rung: Rung, now: Millis) {
        // A black hole is never where a new attack begins.
        let flowspec = rung.filters();
        let target = entry.incident.verdict.target;
        self.memory.defended(target, entry.strikes, flowspec.then_some(rung), now);
    }

    /// The hold is over: one step gentler, or nothing and a last look.
    pub(crate) fn step_down(&mut self, entry: &mut Entry, now: Millis) {
        match entry.rung() {
            Some(Rung::Drop) => {
                let gentler: Vec<Planned> =
                    entry.live().filter_map(|m| self.as_rate_limit(entry, m)).collect();
                entry.gentler = Some((Rung::RateLimit, gentler));
                self.fall_back(entry, "stepped down", now);
            }
            Some(Rung::Redirect | Rung::Divert | Rung::Rtbh | Rung::Scrub) => {
                self.fall_back(entry, "stepped down", now);
            }
            Some(Rung::Mark | Rung::RateLimit) | None => self.let_go(entry, now),
        }
    }

    pub(crate) fn as_rate_limit(&self, entry: &Entry, m: &Mitigation) -> Option<Planned> {
        let Measure::FlowSpec(filter) = &m.measure else { return None };
        let known = entry.measured.get(&m.id);
        // After a restart only the verdict remembers what the match carries in normal times.
        let named = || {
            let candidates = &entry.incident.verdict.candidates;
            let same = candidates.iter().find(|c| c.packets == filter.packets);
            same.map_or(0.0, |c| c.normal_bytes_per_sec.max(0.0))
        };
        let normal = known.map_or_else(named, |p| p.normal_bytes_per_sec);
        let action = Action::RateLimit { bytes_per_sec: rate_limit_bytes(&self.config, normal) };
        let measure = Measure::FlowSpec(Filter { packets: filter.packets.clone(), action });
        Some(Planned {
            measure,
            coverage: known.map_or(0.0, |p| p.coverage),
            collateral: known.map_or(0.0, |p| p.collateral),
            normal_bytes_per_sec: normal,
        })
    }

    /// Goes back to the last FlowSpec rules, where the ladder, the guard and operators still allow
    /// them; otherwise lets go of everything.
    pub(crate) fn fall_back(&mut self, entry: &mut Entry, why: &str, now: Millis) {
        let waning = entry.life != Life::Alive;
        let usable = |rung: Rung, p: &Planned, entry: &Entry| {
            let route = route(&p.measure);
            self.config.step_of(rung).is_some()
                && entry.policy.forbids(rung).is_none()
                && self.guard.judge_measure(&p.measure).is_ok()
                && !entry.banned.contains(&route)
                && !self.memory.is_harmful(&route, now)
        };
        let gentler = entry.gentler.take().map(|(rung, mut list)| {
            list.retain(|p| usable(rung, p, entry));
            (rung, list)
        });
        let Some((rung, list)) = gentler.filter(|(_, list)| !list.is_empty()) else {
            if waning {
                self.let_go(entry, now);
            }
            return;
        };
        // What was in force may be in force in a gentler form; what was only simulated stays so.
        let in_force = entry.live().any(|m| m.state == MitigationState::Active);
        let state = if in_force { MitigationState::Active } else { MitigationState::Simulated };
        self.ledger.record(&mut entry.incident, "step-down", format!("to {rung}: {why}"), now);
        let replaced = |m: &Mitigation| !list.iter().any(|p| same_rule(&m.measure, &p.measure));
        self.end(entry, replaced, MitigationState::Withdrawn, why, now);
        for planned in &list {
            if !entry.live().any(|m| same_rule(&m.measure, &planned.measure)) {
                self.put(entry, planned, rung, state, why, now);
            }
        }
        entry.from_step = self.config.step_of(rung).unwrap_or(0);
        entry.pushed = false;
        entry.watch = None;
        entry.generation_at = Some(now);
        entry.gentler = Some((rung, list));
        self.show_rung(entry);
        // What stayed beside the harder step was to end with it.
        self.renew(entry, now);
        if waning {
            self.hold_on(entry, rung, now);
        }
    }

    /// Withdraws everything and takes a last look: a filtered attack shows itself only now.
    fn let_go(&mut self, entry: &mut Entry, now: Millis) {
        if let Some(rung) = entry.rung() {
            self.remember(entry, rung, now);
        }
        self.end(entry, |_| true, MitigationState::Withdrawn, "the attack is over", now);
        entry.life = Life::Probing { until: now + self.config.probe_secs.saturating_mul(1000) };
        entry.watch = None;
    }

    pub(crate) fn close(&mut self, entry: &mut Entry, now: Millis) {
        self.end(entry, |_| true, MitigationState::Withdrawn, "the incident is over", now);
        entry.life = Life::Closed;
        entry.watch = None;
        entry.held_at = None;
        let incident = Arc::make_mut(&mut entry.incident);
        incident.state = IncidentState::Closed;
        incident.closed = Some(now);
        incident.held = false;
        self.ledger.note(&mut entry.incident, "closed", "closed".into(), now);
    }

    /// What time alone brings about.
    pub(crate) fn tick(&mut self, now: Millis) {
        self.memory.tick(&self.config, now);
        // Nothing below looks at other incidents.
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.values_mut().filter(|e| e.life != Life::Closed) {
            self.tick_one(entry, now);
        }
        self.entries = entries;
    }

    fn tick_one(&mut self, entry: &mut Entry, now: Millis) {
        self.clamp(entry, now);
        let expired = |m: &Mitigation| m.expires <= now;
        self.end(entry, expired, MitigationState::Withdrawn, "expired", now);
        if entry.incident.held {
            self.keep_held(entry, now);
            return;
        }
        match entry.life {
            Life::Alive if now.since(entry.last_alive) >= self.config.ttl_ms() => {
                let text = format!("no verdict for {} s", self.config.ttl_secs);
                self.ledger.record(&mut entry.incident, "lapse", text, now);
                self.close(entry, now);
            }
            Life::Holding { until } if now >= until => self.step_down(entry, now),
            Life::Holding { until } => {
                let expires = (now + self.config.ttl_ms()).min(until + 1000);
                self.renew_to(entry, now, expires);
            }
            Life::Probing { until } if now >= until => self.close(entry, now),
            Life::Probing { .. } | Life::Alive | Life::Closed => {}
        }
    }

    /// An operator's hold keeps an incident where it stands, but not for ever.
    fn keep_held(&mut self, entry: &mut Entry, now: Millis) {
        let held_at = *entry.held_at.get_or_insert(now);
        entry.held_at = Some(held_at.min(now));
        if now.since(held_at) >= self.config.hold_max_secs.saturating_mul(1000) {
            Arc::make_mut(&mut entry.incident).held = false;
            entry.held_at = None;
            let text = format!("held for {} s", self.config.hold_max_secs);
            self.ledger.record(&mut entry.incident, "release", text, now);
        } else {
            self.renew(entry, now);
        }
    }

    /// A clock that was set back must not keep anything in force longer than its time.
    fn clamp(&mut self, entry: &mut Entry, now: Millis) {
        let latest = now + self.config.ttl_ms();
        if entry.live().any(|m| m.expires > latest) {
            let incident = Arc::make_mut(&mut entry.incident);
            for m in incident.mitigations.iter_mut().filter(|m| is_live(m)) {
                m.expires = m.expires.min(latest);
            }
            self.ledger.changed.insert(incident.id);
            self.ledger.dirty = true;
        }
        entry.last_alive = entry.last_alive.min(now);
        entry.generation_at = entry.generation_at.map(|at| at.min(now));
        let hold = entry.rung().map_or(0, |rung| self.config.hold_ms(rung, entry.strikes));
        let hold = hold.max(self.config.step_ms());
        let probe = self.config.probe_secs.saturating_mul(1000);
        match &mut entry.life {
            Life::Holding { until } => *until = (*until).min(now + hold),
            Life::Probing { until } => *until = (*until).min(now + probe),
            Life::Alive | Life::Closed => {}
        }
    }
}
