//! From verdicts to what is to be in force: incidents, the ladder, the ledger.
//!
//! [`Mitigator`] is a pure state machine: verdicts, commands, reports and time go in; a state that
//! passed the guard comes out. It has no clock, socket or thread, and the same inputs give
//! byte-identical outputs. It never announces anything itself and can hand out nothing unguarded:
//! [`Mitigator::advance`] yields [`Admitted`], which only the guard makes.
//!
//! Read [`Config`] and [`Mitigator`] first.

mod aftermath;
mod budget;
mod carve;
mod command;
mod config;
mod entry;
mod feedback;
mod follow;
mod ledger;
mod life;
mod links;
mod manual;
mod memory;
mod outlook;
mod overlap;
mod peers;
mod plan;
mod policy;
mod preview;
mod report;
mod room;
pub mod scrub;
mod stance;
mod step;
mod wane;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_bgp::guard::{Admitted, Guard, Refusal, by_route, sort_by_route};
use weir_model::{
    Decision, DesiredState, Direction, ExporterStatus, Incident, IncidentId, IncidentState,
    Inventory, IpNet, Millis, Mitigation, MitigationId, MitigationState, Mode,
};

pub use command::MANUAL_MAX;
pub use config::{Config, ConfigError, RungConfig, Visibility};
pub use ledger::{DECISIONS_MAX, MITIGATIONS_MAX, TIMELINE_MAX};
pub use links::{INTERFACES_MAX, Links, Told, UPLINKS_MAX, UplinkConfig};
pub use memory::{Checkpoint, EXPORTERS_MAX, HARMFUL_MAX, SPARED_MAX, Sight, VICTIMS_MAX, Victim};
pub use room::LEFT_OUT;
pub use stance::Word;
pub use weir_bgp::guard::Config as GuardConfig;

use entry::Entry;
use feedback::Watch;
use ledger::{BY_OPERATOR, EVERYTHING, Ledger, STEPPED_DOWN, close, is_live};
use memory::Memory;

/// Everything decided, and what decides.
#[derive(Clone, Debug)]
pub struct Mitigator {
    config: Config,
    mode: Mode,
    /// What a person said about it.
    word: Word,
    guard: Guard,
    entries: BTreeMap<IncidentId, Entry>,
    /// Measures put in force by hand, live and recently ended.
    manual: Vec<Mitigation>,
    /// Who approved first what needs two people, by the mitigation's number.
    approvals: BTreeMap<u64, String>,
    /// What legitimate traffic does under manual rules, as seen by an incident they concern.
    manual_watches: BTreeMap<(MitigationId, IncidentId), Watch>,
    /// When it was last asked how players fare after attacks.
    asked: Millis,
    memory: Memory,
    links: Links,
    ledger: Ledger,
    /// Peers, by the configuration and by their reports.
    peers: peers::Peers,
    /// What routers have room for.
    budget: room::Budget,
    /// What was desired last, before the guard.
    wished: DesiredState,
    /// What left last, after the guard.
    desired: Arc<DesiredState>,
    /// Whether the guard keeps something back that may pass later.
    deferred: bool,
    /// Whether groups or ladder have changed since the last turn.
    changed_policy: bool,
    overflowed: u64,
}

impl Mitigator {
    /// A mitigator that knows of no incident.
    pub fn new(config: Config, guard: GuardConfig, inventory: Arc<Inventory>) -> Self {
        let mut links = Links::default();
        links.set(&[], config.silent_exporter_secs);
        Self {
            mode: config.mode,
            word: Word::default(),
            config,
            guard: Guard::new(guard, inventory),
            entries: BTreeMap::new(),
            manual: Vec::new(),
            approvals: BTreeMap::new(),
            manual_watches: BTreeMap::new(),
            asked: Millis(0),
            memory: Memory::default(),
            links,
            ledger: Ledger::default(),
            peers: peers::Peers::default(),
            budget: room::Budget::default(),
            wished: DesiredState::default(),
            desired: Arc::default(),
            deferred: false,
            changed_policy: false,
            overflowed: 0,
        }
    }

    /// Lets time pass; call it at least once a second. Yields the state that is to be in force
    /// whenever it has changed, and once at the start.
    pub fn advance(&mut self, now: Millis) -> Option<Admitted> {
        if std::mem::take(&mut self.changed_policy) {
            self.heed(now);
        }
        self.tick(now);
        self.tick_manual(now);
        let started = self.desired.generation > 0;
        let waits = self.deferred || self.budget.is_due(now);
        if started && !self.ledger.dirty && !waits {
            return None;
        }
        // A refusal for good can make room for nothing else here: what it ends is not in force.
        self.ledger.dirty = false;
        if let Some(mitigations) = self.wanted(now) {
            self.wished.generation = self.wished.generation.saturating_add(1);
            self.wished.mitigations = mitigations;
        }
        let admitted = self.guard.admit(&self.wished, now);
        self.take_refusals(&admitted, now);
        if admitted.generation() == self.desired.generation {
            return None;
        }
        self.desired = Arc::new(DesiredState {
            generation: admitted.generation(),
            mitigations: admitted.shared(),
        });
        Some(admitted)
    }

    /// Active mitigations, one per route, an operator's before an incident's, sorted by measure, as far as
    /// routers have room; `None` when they are what was wished last.
    fn wanted(&mut self, now: Millis) -> Option<Arc<[Mitigation]>> {
        let list = self.active();
        let fitted = self.fit(&list, now);
        let wanted = match &fitted {
            None => self.differs(&list).then(|| list.into_iter().map(as_wish).collect()),
            Some(fitted) => {
                let list: Vec<&Mitigation> = fitted.list.iter().collect();
                self.differs(&list).then(|| fitted.list.clone().into())
            }
        };
        self.keep_choice(fitted, now);
        wanted
    }

    /// Ten thousand rules are looked at by reference and copied only when one of them is another.
    fn active(&self) -> Vec<&Mitigation> {
        let of_incidents = self.entries.values().flat_map(|e| &e.incident.mitigations);
        let all = self.manual.iter().chain(of_incidents);
        let active = all.filter(|m| m.state == MitigationState::Active).collect();
        // Stable: of one route, the first stays. One a route, this is the order of measures.
        let mut list: Vec<&Mitigation> = sort_by_route(active, |m| &m.measure);
        list.dedup_by(|b, a| by_route(&a.measure, &b.measure).is_eq());
        list
    }

    fn differs(&self, list: &[&Mitigation]) -> bool {
        let wished = &self.wished.mitigations;
        list.len() != wished.len()
            || !list.iter().zip(wished.iter()).all(|(m, wished)| is_same_wish(m, wished))
    }

    fn take_refusals(&mut self, admitted: &Admitted, now: Millis) {
        self.deferred = admitted.refused().iter().any(|(_, refusal)| refusal.is_passing());
        let refused: BTreeMap<_, Refusal> = admitted.refused().iter().copied().collect();
        if refused.is_empty() {
            return;
        }
        for m in &mut self.manual {
            if let Some(refusal) = refused.get(&m.id).filter(|r| !r.is_passing()) {
                close(m, MitigationState::Refused, &refusal.to_string(), now);
            }
        }
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.values_mut() {
            let of_entry = entry.live().filter_map(|m| Some((m.id, *refused.get(&m.id)?)));
            let of_entry: Vec<(MitigationId, Refusal)> = of_entry.collect();
            for (mitigation, refusal) in of_entry {
                let text = refusal.to_string();
                if refusal.is_passing() {
                    self.waits(entry, mitigation, &text, now);
                } else {
                    let is_it = |m: &Mitigation| m.id == mitigation;
                    self.end(entry, is_it, MitigationState::Refused, &text, now);
                }
            }
        }
        self.entries = entries;
    }

    /// Notes once that a cap keeps a measure back.
    fn waits(&mut self, entry: &mut Entry, id: MitigationId, text: &str, now: Millis) {
        let note = format!("waits: {text}");
        let incident = Arc::make_mut(&mut entry.incident);
        let Some(m) = incident.mitigations.iter_mut().find(|m| m.id == id) else { return };
        if m.note != note {
            m.note.clone_from(&note);
            let detail = format!("{}: {note}", m.measure);
            self.ledger.record(&mut entry.incident, "defer", detail, now);
        }
    }

    /// What is in force by the guard's last word.
    pub fn desired(&self) -> Arc<DesiredState> {
        Arc::clone(&self.desired)
    }

    /// Incidents remembered, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.entries.values().map(|e| &e.incident)
    }

    /// Every mitigation remembered: those of operators, then those of incidents, oldest first.
    pub fn mitigations(&self) -> impl Iterator<Item = &Mitigation> {
        let of_incidents = self.entries.values().flat_map(|e| &e.incident.mitigations);
        self.manual.iter().chain(of_incidents)
    }

    /// Incidents that changed since the last call, for the store.
    pub fn take_changed(&mut self) -> Vec<Arc<Incident>> {
        let changed = std::mem::take(&mut self.ledger.changed);
        changed
            .iter()
            .filter_map(|id| self.entries.get(id).map(|e| Arc::clone(&e.incident)))
            .collect()
    }

    /// Decisions since the last call, oldest first: one line of the log each.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        self.ledger.take_decisions()
    }

    /// Takes back what the store remembers, after a restart. Open incidents go on; of their
    /// measures, those that have expired are gone and the others are desired at once.
    pub fn restore(&mut self, incidents: Vec<Incident>, now: Millis) {
        for incident in incidents {
            for m in &incident.mitigations {
                self.ledger.saw_id(m.id);
            }
            let id = incident.id;
            let mut entry = Entry::of(Arc::new(incident), now);
            if entry.incident.state == IncidentState::Open {
                self.resume(&mut entry, now);
            }
            self.entries.insert(id, entry);
        }
        while self.entries.len() > self.config.max_incidents.max(1) {
            let Some((&oldest, _)) = self
                .entries
                .iter()
                .min_by_key(|(id, e)| (e.incident.state == IncidentState::Open, **id))
            else {
                break;
            };
            self.entries.remove(&oldest);
        }
        // The configuration may have changed meanwhile.
        self.changed_policy = true;
        self.ledger.dirty = true;
    }

    fn resume(&mut self, entry: &mut Entry, now: Millis) {
        let mut vetoed = Vec::new();
        let mut left = Vec::new();
        let incident = Arc::make_mut(&mut entry.incident);
        for m in &mut incident.mitigations {
            // Who has it on the wire is observed anew.
            m.peers.clear();
            let by_operator = m.note.starts_with(BY_OPERATOR) && !m.note.ends_with(EVERYTHING);
            if m.state == MitigationState::Withdrawn && by_operator {
                vetoed.push((m.measure.clone(), m.rung));
            }
            if m.state == MitigationState::Withdrawn && m.note.starts_with(STEPPED_DOWN) {
                left.push(m.rung);
            }
        }
        for rung in left {
            entry.close_above(&self.config, rung);
        }
        for (measure, rung) in vetoed {
            entry.veto(&self.config, &measure, rung);
        }
        self.enrol(entry);
        let opened = entry.incident.opened;
        // Counted before the restart, as far as that can be told.
        entry.spared =
            self.memory.spared().filter(|s| s.last >= opened).map(|s| s.prefix).collect();
        entry.last_alive = entry.incident.verdict.at.min(now);
        let mode = self.mode_for(entry);
        let expired = |m: &Mitigation| m.expires <= now;
        self.end(entry, expired, MitigationState::Withdrawn, "expired while weir was down", now);
        let foreign = |m: &Mitigation| match m.state {
            MitigationState::Active => mode == Mode::Observe,
            MitigationState::Proposed => mode != Mode::Approve,
            _ => mode != Mode::Observe,
        };
        self.end(entry, foreign, MitigationState::Withdrawn, "not in this mode", now);
        let step = entry.rung().and_then(|rung| self.config.step_of(rung));
        entry.from_step = step.unwrap_or(0);
        entry.generation_at = entry.incident.mitigations.iter().map(|m| m.since).max();
        let from = entry.live().map(|m| m.since).max();
        entry.watch = from.map(|from| Watch::resumed(&entry.incident.verdict, from));
        let target = entry.incident.verdict.target;
        entry.strikes = self.memory.strikes(&self.config, target, now).0.saturating_sub(1);
        if entry.incident.verdict.phase == weir_model::Phase::Ended {
            self.subside(entry, now);
        }
    }

    /// What is worth keeping over a restart beside the incidents.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            manual: self.manual.iter().filter(|m| is_live(m)).cloned().collect(),
            approvals: self.approvals.clone(),
            peers: self.peers.standings(),
            word: self.word.clone(),
            ..self.memory.checkpoint()
        }
    }

    /// Takes a checkpoint back, after a restart; call it before [`Mitigator::restore`]. Manual
    /// measures that have expired meanwhile stay away.
    pub fn restore_checkpoint(&mut self, checkpoint: Checkpoint, now: Millis) {
        self.memory.restore(&checkpoint);
        self.peers.restore(&checkpoint.peers);
        self.restore_word(checkpoint.word);
        self.approvals = checkpoint.approvals;
        for mut m in checkpoint.manual.into_iter().take(MANUAL_MAX) {
            self.ledger.saw_id(m.id);
            m.peers.clear();
            let known = self.manual.iter().any(|own| own.id == m.id);
            if is_live(&m) && m.expires > now && !known && !self.is_braked(m.since) {
                self.manual.push(m);
            }
        }
        self.ledger.dirty = true;
    }

    /// Learns how late exporters are: an effect cannot show before their reports do.
    pub fn exporters(&mut self, exporters: &[ExporterStatus]) {
        for status in exporters {
            self.memory.set_lag(&status.name, status.lag_ms);
        }
    }

    /// Watches these uplinks from now on.
    pub fn set_uplinks(&mut self, uplinks: &[UplinkConfig]) {
        self.links.set(uplinks, self.config.silent_exporter_secs);
    }

    /// Looks, once a second, at what exporters tell of uplinks and whether they tell anything; every exporter
    /// that is listed is among them.
    pub fn look(&mut self, told: Told<'_>, now: Millis) {
        let mut attacks: BTreeMap<String, f64> = BTreeMap::new();
        for incident in self.incidents().filter(|incident| incident.closed.is_none()) {
            let verdict = &incident.verdict;
            if verdict.direction == Direction::Inbound {
                for exporter in &verdict.reason.exporters {
                    *attacks.entry(exporter.clone()).or_default() += verdict.excess.bits_per_sec;
                }
            }
        }
        let allow = Arc::clone(&self.guard.inventory().allow);
        for (condition, begins) in self.links.look(told, &allow, &attacks, now) {
            let state = if begins { "" } else { "over: " };
            let detail = format!("{}: {state}{}", condition.subject, condition.text);
            let everywhere = IpNet::V4(weir_model::Ipv4Net::default());
            self.ledger.record_outside(everywhere, condition.kind.id(), detail, None, now);
        }
    }

    /// Uplinks and exporters, as they were last looked at.
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// Learns which peers are configured and what each can be given, before any of them has
    /// reported, or when that changes; `nodes` when nodes with an agent take rules, too. What a peer refused
    /// that can be given something else now, it has not refused.
    pub fn set_peers(&mut self, peers: Vec<weir_bgp::reach::KnownPeer>, nodes: bool) {
        let others = self.peers.configure(peers, nodes);
        if others.is_empty() {
            return;
        }
        for entry in self.entries.values_mut() {
            for refusers in entry.refusers.values_mut() {
                refusers.retain(|peer, _| !others.contains(peer));
            }
            entry.refusers.retain(|_, refusers| !refusers.is_empty());
        }
    }

    /// How far weir acts by itself at present.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Takes another inventory; what it no longer covers is withdrawn at the next
    /// [`Mitigator::advance`].
    pub fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        self.changed_policy |= self.guard.inventory().policies != inventory.policies;
        self.guard.set_inventory(inventory);
        self.ledger.dirty = true;
    }

    /// The guard, for dry runs.
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Decisions dropped because nobody took them, and incidents not entered because every place
    /// was taken: since the start.
    pub const fn losses(&self) -> (u64, u64) {
        (self.ledger.decisions_lost, self.overflowed)
    }
}

/// Which peers have a measure is a report, not a wish: it must not make the state look changed.
fn is_same_wish(m: &Mitigation, wished: &Mitigation) -> bool {
    let Mitigation {
        id,
        originator,
        measure,
        rung,
        state,
        since,
        expires,
        ended,
        peers: _,
        note,
        worth,
    } = m;
    *id == wished.id
        && *state == wished.state
        && *since == wished.since
        && *expires == wished.expires
        && *ended == wished.ended
        && *rung == wished.rung
        && *measure == wished.measure
        && *originator == wished.originator
        && *note == wished.note
        && *worth == wished.worth
}

fn as_wish(m: &Mitigation) -> Mitigation {
    Mitigation {
        id: m.id,
        originator: m.originator.clone(),
        measure: m.measure.clone(),
        rung: m.rung,
        state: m.state,
        since: m.since,
        expires: m.expires,
        ended: m.ended,
        peers: Vec::new(),
        note: m.note.clone(),
        worth: m.worth,
    }
}
