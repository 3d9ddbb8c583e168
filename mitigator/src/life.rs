//! The life of an incident while its attack goes on: verdicts open it, and each one is weighed
//! against what is in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_bgp::guard::route;
use weir_model::{
    Hold, IncidentId, IncidentState, IpNet, Match, Measure, Millis, Mitigation, MitigationState,
    Mode, Phase, Rung, Verdict,
};

use crate::Mitigator;
use crate::config::Visibility;
use crate::entry::{Entry, Life};
use crate::feedback::{Effect, InForce, Watch, starved};
use crate::plan::{Plan, Situation, fits_host, plan};

/// A mere alert is recorded again after so long, even when its reason reads differently each time.
const ALERT_AGAIN_MS: u64 = 60_000;

/// Who has not got a measure after so long is worth a line.
const SOON_MS: u64 = 2000;

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
        match verdict.phase {
            Phase::Ended => self.ended(&mut entry, verdict, now),
            Phase::Blind => self.cannot_see(&mut entry, verdict, now),
            Phase::Opened | Phase::Ongoing => self.goes_on(&mut entry, verdict, now),
        }
        self.entries.insert(verdict.incident, entry);
    }

    /// Enters an incident, in the place of the oldest closed one when all are taken, or of one
    /// that is only alerted about when there is something to do about this one. `None` otherwise.
    fn open(&mut self, verdict: &Verdict, now: Millis) -> Option<Entry> {
        let mut entry = Entry::new(verdict, now);
        self.enrol(&mut entry);
        while self.entries.len() >= self.config.max_incidents.max(1) {
            let worth = |e: &Entry| {
                let open = e.incident.state == IncidentState::Open;
                let moves = e.has_live() || !self.may_change(e, now);
                (open, moves || e.incident.held || !e.banned.is_empty(), e.incident.id)
            };
            let least = self.entries.values().map(worth).min();
            let gives_way = match least {
                Some((false, _, id)) => Some(id),
                Some((true, false, id)) => {
                    self.plan_for(&entry, verdict, now).step.is_some().then_some(id)
                }
                _ => None,
            };
            let Some(id) = gives_way else {
                self.overflowed = self.overflowed.saturating_add(1);
                return None;
            };
            self.entries.remove(&id);
            self.ledger.changed.remove(&id);
        }
        self.ledger.record(&mut entry.incident, "open", verdict.summary.clone(), now);
        let (strikes, rung) = self.memory.strikes(&self.config, verdict.target, now);
        if strikes > 0 {
            entry.strikes = strikes;
            entry.from_step = rung.and_then(|rung| self.config.step_of(rung)).unwrap_or(0);
            let text = format!("attack {} in a row on this target", strikes + 1);
            self.ledger.note(&mut entry.incident, "repeat", text, now);
        }
        Some(entry)
    }

    /// The exporters that told of the attack are silent. What is in force stays, nothing harder follows,
    /// and no measure is judged by what nobody sees.
    fn cannot_see(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let newly = entry.incident.verdict.phase != Phase::Blind;
        self.take_in(entry, verdict, now);
        if newly {
            let names = verdict.reason.exporters.join(", ");
            let text = format!("no flow data from {names}: what is in force stays");
            self.ledger.record(&mut entry.incident, "blind", text, now);
        }
        entry.last_alive = now;
        entry.watch = None;
        self.renew(entry, now);
    }

    fn goes_on(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        self.feel_manual(entry, verdict, now);
        let seen_again = entry.incident.verdict.phase == Phase::Blind;
        self.take_in(entry, verdict, now);
        if seen_again && entry.live().any(|m| !m.peers.is_empty()) {
            let youngest = entry.live().map(|m| m.since).max();
            entry.watch = youngest.map(|from| Watch::again(verdict, from, now));
        }
        self.count_spared(entry, verdict, now);
        entry.legitimate.take(verdict);
        entry.last_alive = now;
        if entry.life != Life::Alive {
            entry.watch = None;
            if matches!(entry.life, Life::Probing { .. }) {
                entry.strikes = entry.strikes.saturating_add(1);
                if std::mem::take(&mut entry.fell) {
                    // Out of sight as long as it was filtered, in sight as soon as it is not.
                    self.memory.saw(&verdict.reason.exporters, Visibility::AfterFilter);
                }
            } else if entry.live().any(|m| !m.peers.is_empty()) {
                let youngest = entry.live().map(|m| m.since).max();
                entry.watch = youngest.map(|from| Watch::again(verdict, from, now));
            }
            entry.life = Life::Alive;
            let text = "the attack is back".to_owned();
            self.ledger.note(&mut entry.incident, "returned", text, now);
        }
        if entry.incident.held {
            self.renew(entry, now);
            return;
        }
        self.weigh_all_refusals(entry, now);
        self.spare_wanted(entry, verdict, now);
        let effect = self.feel(entry, verdict, now);
        let plan = self.plan_for(entry, verdict, now);
        if plan.step.is_none() {
            self.alert(entry, &plan, now);
        } else if self.is_worthwhile(entry, &plan, verdict, now) {
            self.follow(entry, &plan, verdict, now);
            entry.held_back = held_back(verdict);
        } else if let Effect::TooWeak(gone) = effect
            && self.may_change(entry, now)
        {
            self.push(entry, verdict, gone, now);
        }
        self.renew(entry, now);
        self.take_over(entry, now);
    }

    /// Withdraws rules that are now known to cut what the target answers, and does not use them again in
    /// this incident.
    fn spare_wanted(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let wanted: Vec<Match> = verdict
            .candidates
            .iter()
            .filter(|c| c.hold.is_some_and(Hold::is_wanted))
            .map(|c| c.packets.clone().normalise())
            .collect();
        let is_it = |m: &Mitigation| {
            m.state == MitigationState::Active
                && matches!(&m.measure, Measure::FlowSpec(f) if wanted.contains(&f.packets))
        };
        let hit: Vec<Measure> =
            entry.live().filter(|m| is_it(m)).map(|m| route(&m.measure)).collect();
        if hit.is_empty() {
            return;
        }
        entry.banned.extend(hit);
        entry.wanted = true;
        let why = Hold::Answered.why();
        self.ledger.record(&mut entry.incident, "roll-back", why.to_owned(), now);
        self.end(entry, is_it, MitigationState::Withdrawn, &format!("rolled back: {why}"), now);
        entry.watch = None;
    }

    /// Keeps the verdict as the incident's, says when its family changes, reopens what was closed.
    fn take_in(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let before = entry.incident.verdict.family;
        let incident = Arc::make_mut(&mut entry.incident);
        incident.verdict = verdict.clone();
        incident.state = IncidentState::Open;
        incident.closed = None;
        self.ledger.changed.insert(incident.id);
        if before != verdict.family {
            let text = format!("{before}, now {}", verdict.family);
            self.ledger.note(&mut entry.incident, "classified", text, now);
        }
    }

    /// The plan from the present step on; where that leaves nothing and nothing is in force, from
    /// the first step.
    pub(crate) fn plan_for(&self, entry: &Entry, verdict: &Verdict, now: Millis) -> Plan {
        let in_force = entry.rung().and_then(|rung| self.config.step_of(rung));
        let from_step = entry.from_step.max(in_force.unwrap_or(0));
        let mut plan = self.plan_from(entry, verdict, from_step, None, now);
        if plan.step.is_none() && in_force.is_none() && from_step > 0 {
            plan = self.plan_from(entry, verdict, 0, None, now);
        }
        // While people make up their minds, weir does by itself what it may.
        let two = plan.measures.iter().any(|p| self.needs_two_people(&p.measure));
        let waits = plan.step.map(|(_, rung)| rung).filter(|_| two);
        let in_force = entry.live().any(|m| m.state == MitigationState::Active);
        if waits.is_some() && self.mode_for(entry) == Mode::Auto && !in_force {
            let meanwhile = self.plan_from(entry, verdict, 0, waits, now);
            if meanwhile.step.is_some() {
                return meanwhile;
            }
        }
        plan
    }

    pub(crate) fn plan_from(
        &self,
        entry: &Entry,
        verdict: &Verdict,
        from_step: usize,
        without: Option<Rung>,
        now: Millis,
    ) -> Plan {
        let is_banned = |measure: &Measure| {
            let route = route(measure);
            entry.banned.contains(&route) || self.memory.is_harmful(&route, now)
        };
        let is_useless = |measure: &Measure| entry.useless.contains(&route(measure));
        let situation = Situation {
            config: &self.config,
            guard: &self.guard,
            from_step,
            end_step: entry.end_step,
            policy: &entry.policy,
            rules_tried: self.rules_tried(entry, now),
            without,
            wanted: entry.wanted,
            diverted: entry.rung().is_some_and(|rung| {
                // An operator who goes on from there has decided.
                matches!(rung, Rung::Redirect | Rung::Divert)
                    && self.config.step_of(rung).is_some_and(|step| from_step <= step)
            }),
            others_bits_per_sec: &|| self.others_bits_per_sec(entry.incident.id),
            links: &self.links,
            is_banned: &is_banned,
            is_useless: &is_useless,
            no_room: self.has_no_room(entry, now),
            carry: &|measure| self.peers.carry(measure),
        };
        plan(verdict, &situation)
    }

    /// Whether rules that cut or mark are in force for long enough to show what they can do.
    fn rules_tried(&self, entry: &Entry, now: Millis) -> bool {
        let is_tried = |m: &Mitigation| m.rung.filters() || m.rung == Rung::Mark;
        let rules = entry.live().any(|m| is_tried(m) && m.state != MitigationState::Proposed);
        let since = match entry.watch {
            _ if self.mode_for(entry) == Mode::Observe => entry.generation_at,
            Some(watch) => watch.on_wire.zip(watch.whole).map(|(wire, whole)| wire.max(whole)),
            // What no router has cannot have shown what it can do.
            None => entry.generation_at.filter(|_| entry.is_on_wire()),
        };
        let feedback = self.config.feedback_secs.saturating_mul(1000);
        rules && since.is_some_and(|since| now.since(since) >= feedback)
    }

    /// What other open inbound incidents put on the links now.
    fn others_bits_per_sec(&self, but: IncidentId) -> f64 {
        self.entries
            .values()
            .filter(|e| e.life == Life::Alive && e.incident.id != but)
            .map(|e| e.incident.verdict.rate.bits_per_sec)
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
        if entry.awaits(plan) {
            return true;
        }
        let same_step = entry.rung() == plan.step.map(|(_, rung)| rung);
        // What the rules cut is no longer in the excess: of the rest, the detector can only name
        // leftovers, and chasing them would let the attack back in.
        let enough = same_step
            && ((entry.has_fallen(verdict) && self.is_bearable(verdict))
                || entry.coverage_now(verdict) + WORTHWHILE >= plan.coverage());
        !enough && self.may_change(entry, now)
    }

    /// Whether the host can take what arrives now.
    fn is_bearable(&self, verdict: &Verdict) -> bool {
        fits_host(verdict, &self.config, verdict.rate.bits_per_sec)
    }

    /// One generation of rules per incident and `step_secs`.
    pub(crate) fn may_change(&self, entry: &Entry, now: Millis) -> bool {
        entry.generation_at.is_none_or(|at| now.since(at) >= self.config.step_ms())
    }

    /// Looks at what the measures in force have done, and takes back what did harm or nothing.
    fn feel(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) -> Effect {
        let Some(mut watch) = entry.watch else { return Effect::Unknown };
        self.attend(entry, &mut watch, now);
        let rung = entry.rung();
        let matched_max = entry.coverage_max(verdict);
        let in_force = InForce { matched_max, promised: entry.promised(), rung };
        let effect = watch.judge(verdict, in_force, &self.memory, &self.config, now);
        // What is diverted vanishes or stays in sight whichever way exporters look, what is marked stays.
        if rung.is_some_and(|rung| rung.filters() || rung == Rung::Rtbh)
            && let Some(seen) = watch.lesson(verdict, effect, entry.coverage_now(verdict))
        {
            self.memory.saw(&verdict.reason.exporters, seen);
        }
        let newly = !watch.settled;
        match effect {
            Effect::Unknown => {}
            Effect::Works if newly => {
                watch.settled = true;
                entry.fell = !watch.is_told(verdict);
                let text = format!("{:.0} Mbit/s left", verdict.excess.bits_per_sec / 1e6);
                self.ledger.note(&mut entry.incident, "works", text, now);
            }
            Effect::Unseen if newly => {
                watch.settled = true;
                let text = match rung {
                    Some(rung) if rung.diverts() => "a router goes on seeing what it diverts",
                    _ => "the exporters may sample before the filter and report no discards",
                };
                self.ledger.note(&mut entry.incident, "unseen", text.into(), now);
            }
            Effect::Works | Effect::Unseen | Effect::TooWeak(_) => {}
            Effect::Harmful(left) => {
                self.roll_back(entry, &starved(left), true, now);
                return effect;
            }
            Effect::Useless(gone) => {
                let why = format!("cuts {:.0} % of the excess", gone * 100.0);
                self.roll_back(entry, &why, false, now);
                return effect;
            }
        }
        entry.watch = Some(watch);
        effect
    }

    /// Whether everybody who could have the youngest measures has them or said no.
    fn attend(&mut self, entry: &mut Entry, watch: &mut Watch, now: Millis) {
        let missing = self.missing(entry, watch.from, now);
        watch.whole = if missing.is_none() { watch.whole.or(Some(now)) } else { None };
        // A peer gets what is wanted within a second of its return; who is up is not worth a line.
        if missing != entry.awaited && entry.generation_at.is_none_or(|at| now.since(at) >= SOON_MS)
        {
            if let Some(peer) = &missing {
                let text = format!("waits for {peer}, which does not have it");
                self.ledger.note(&mut entry.incident, "waits", text, now);
            }
            entry.awaited = missing;
        }
    }

    /// Withdraws the youngest generation. Harmful ones are not used again for a day, useless ones
    /// not in this incident; the next best follows when the next generation is due.
    pub(crate) fn roll_back(&mut self, entry: &mut Entry, why: &str, harmful: bool, now: Millis) {
        let youngest = entry.watch.map_or(now, |watch| watch.from);
        let is_it = |m: &Mitigation| m.state == MitigationState::Active && m.since >= youngest;
        let measures: Vec<Measure> =
            entry.live().filter(|m| is_it(m)).map(|m| m.measure.clone()).collect();
        for measure in measures {
            if harmful {
                let until = now + self.config.harmful_secs.saturating_mul(1000);
                self.memory.harmed(&measure, until);
                entry.banned.insert(route(&measure));
            } else {
                entry.useless.insert(route(&measure));
            }
        }
        self.ledger.record(&mut entry.incident, "roll-back", why.to_owned(), now);
        let note = format!("rolled back: {why}");
        self.end(entry, is_it, MitigationState::Withdrawn, &note, now);
        entry.watch = None;
    }

    /// The traffic has not fallen though the best rules of this step are in force: the next step.
    fn push(&mut self, entry: &mut Entry, verdict: &Verdict, gone: f64, now: Millis) {
        let Some(rung) = entry.rung() else { return };
        if rung == Rung::Rtbh {
            self.doubt(entry, verdict, now);
            return;
        }
        let Some(step) = self.config.step_of(rung) else { return };
        let plan = self.plan_from(entry, verdict, step + 1, None, now);
        if let Some((index, _)) = plan.step {
            let text = format!("{:.0} % of the excess is gone, {rung} is not enough", gone * 100.0);
            self.ledger.note(&mut entry.incident, "too-weak", text, now);
            self.follow(entry, &plan, verdict, now);
            entry.from_step = index;
            entry.pushed = true;
        } else if let Some(watch) = &mut entry.watch
            && !std::mem::replace(&mut watch.settled, true)
        {
            self.ledger.record(&mut entry.incident, "stay", plan.why, now);
        }
    }

    /// Not even a black hole shows in the reports: then the exporters look before the filter, and
    /// what led here was no proof against the gentler step. Back to it.
    fn doubt(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let settled = entry.watch.as_mut().is_none_or(|w| std::mem::replace(&mut w.settled, true));
        if settled {
            return;
        }
        self.memory.was_wrong(&verdict.reason.exporters);
        if entry.pushed && entry.gentler.is_some() {
            entry.banned.insert(Measure::Blackhole(verdict.target));
            let why = "not even the black hole shows: the exporters sample before the filter";
            self.fall_back(entry, why, now);
        }
    }

    /// An attack that returns under a new number takes over from the incident that still held its
    /// rules.
    fn take_over(&mut self, entry: &Entry, now: Millis) {
        if !entry.has_live() {
            return;
        }
        for id in self.waning(entry.incident.verdict.target, entry.incident.id) {
            let Some(mut old) = self.entries.remove(&id) else { continue };
            let text = format!("goes on as {}", entry.incident.id);
            self.ledger.note(&mut old.incident, "returned", text, now);
            self.close(&mut old, now);
            self.entries.insert(id, old);
        }
    }

    /// Incidents on a target whose attack seemed over.
    pub(crate) fn waning(&self, target: IpNet, but: IncidentId) -> Vec<IncidentId> {
        self.entries
            .values()
            .filter(|e| matches!(e.life, Life::Holding { .. } | Life::Probing { .. }))
            .filter(|e| e.incident.id != but && e.incident.verdict.target == target)
            .map(|e| e.incident.id)
            .collect()
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
}

/// Matches that are held back until more is known of them.
fn held_back(verdict: &Verdict) -> BTreeSet<Match> {
    let soon = |hold: Hold| matches!(hold, Hold::Undecided | Hold::OneLook);
    let waiting = verdict.candidates.iter().filter(|c| c.hold.is_some_and(soon));
    waiting.map(|c| c.packets.clone().normalise()).collect()
}
