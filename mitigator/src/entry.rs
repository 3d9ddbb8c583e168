//! One incident as the mitigator keeps it, and the rules by which its measures change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_bgp::guard::route;
use weir_model::{
    Action, Incident, IncidentState, IpNet, Match, Measure, Millis, Mitigation, MitigationId,
    MitigationState, Policy, Rung, Verdict,
};

use crate::config::{Config, RungConfig};
use crate::feedback::{Level, Watch};
use crate::ledger::is_live;
use crate::overlap::{covers, overlaps};
use crate::peers::is_agent;
use crate::plan::{Plan, Planned};

/// Where the attack stands for the mitigator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Verdicts say that it goes on.
    Alive,
    /// The detector sees its end; measures stay until then.
    Holding {
        /// When to step down.
        until: Millis,
    },
    /// Everything has been withdrawn; the attack would come back to an open incident.
    Probing {
        /// When to believe in peace.
        until: Millis,
    },
    /// Over, for the record only.
    Closed,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) incident: Arc<Incident>,
    pub(crate) life: Life,
    /// Steps of the ladder below this index have been found too weak.
    pub(crate) from_step: usize,
    /// Steps from this index on are closed: an operator withdrew a measure of the one before, and
    /// weir does not answer that with a harder one.
    pub(crate) end_step: Option<usize>,
    /// What groups say of the target.
    pub(crate) policy: Policy,
    /// Never-touch prefixes for which this attack has been counted.
    pub(crate) spared: BTreeSet<IpNet>,
    /// When the set of rules last changed.
    pub(crate) generation_at: Option<Millis>,
    /// How the players fare, by the verdicts on the living attack.
    pub(crate) legitimate: Level,
    /// What that change did, as seen so far.
    pub(crate) watch: Option<Watch>,
    /// Whether the traffic fell, unexplained by discards, while measures were on the wire.
    pub(crate) fell: bool,
    /// Whether the present step was reached because traffic had not fallen.
    pub(crate) pushed: bool,
    /// The last FlowSpec rules and their step: what a harder step falls back to.
    pub(crate) gentler: Option<(Rung, Vec<Planned>)>,
    /// How many attacks in a row this is on the same target, after the first.
    pub(crate) strikes: u32,
    /// When an operator took hold of it.
    pub(crate) held_at: Option<Millis>,
    /// Last verdict that said the attack lives.
    pub(crate) last_alive: Millis,
    /// Routes not to be used again in this incident.
    pub(crate) banned: BTreeSet<Measure>,
    /// Routes that once cut next to nothing: not used again in this incident unless the detector
    /// says that they match the attack by now.
    pub(crate) useless: BTreeSet<Measure>,
    /// Peers that refused a measure, and why.
    pub(crate) refusers: BTreeMap<Measure, BTreeMap<String, String>>,
    /// The peer that is waited for, as last noted.
    pub(crate) awaited: Option<String>,
    /// Whether a rule was found to cut what the target answers.
    pub(crate) wanted: bool,
    /// Matches that the verdicts on the present generation hold back for a while yet.
    pub(crate) held_back: BTreeSet<Match>,
    /// What the detector measured of each mitigation when it was chosen.
    pub(crate) measured: BTreeMap<MitigationId, Planned>,
    /// When the last mere alert was recorded, and its text.
    pub(crate) alerted: Option<(Millis, String)>,
}

impl Entry {
    pub(crate) fn new(verdict: &Verdict, now: Millis) -> Self {
        let incident = Incident {
            id: verdict.incident,
            state: IncidentState::Open,
            group: None,
            opened: verdict.at,
            closed: None,
            verdict: verdict.clone(),
            rung: None,
            reached: None,
            held: false,
            mitigations: Vec::new(),
            timeline: Vec::new(),
        };
        Self::of(Arc::new(incident), now)
    }

    pub(crate) fn of(incident: Arc<Incident>, now: Millis) -> Self {
        let open = incident.state == IncidentState::Open;
        Self {
            incident,
            life: if open { Life::Alive } else { Life::Closed },
            from_step: 0,
            end_step: None,
            policy: Policy::default(),
            spared: BTreeSet::new(),
            generation_at: None,
            legitimate: Level::default(),
            watch: None,
            fell: false,
            pushed: false,
            gentler: None,
            strikes: 0,
            held_at: None,
            last_alive: now,
            banned: BTreeSet::new(),
            useless: BTreeSet::new(),
            refusers: BTreeMap::new(),
            awaited: None,
            wanted: false,
            held_back: BTreeSet::new(),
            measured: BTreeMap::new(),
            alerted: None,
        }
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Mitigation> {
        self.incident.mitigations.iter().filter(|m| is_live(m))
    }

    /// The watch, if this measure is one of those watched.
    pub(crate) fn watched(&mut self, measure: &Measure) -> Option<&mut Watch> {
        let from = self.watch?.from;
        let young = |m: &Mitigation| m.state == MitigationState::Active && m.since >= from;
        let is_it = self.live().any(|m| m.measure == *measure && young(m));
        self.watch.as_mut().filter(|_| is_it)
    }

    /// Whether a router has one of the rules in force.
    pub(crate) fn is_on_wire(&self) -> bool {
        self.live().any(|m| m.peers.iter().any(|peer| !is_agent(peer)))
    }

    pub(crate) fn has_live(&self) -> bool {
        self.live().next().is_some()
    }

    /// The step in force: the one that came last, and of those in force rather than those that
    /// wait for approval.
    pub(crate) fn rung(&self) -> Option<Rung> {
        let waits = |m: &Mitigation| m.state == MitigationState::Proposed;
        self.live().max_by_key(|m| (!waits(m), m.since, m.id)).map(|m| m.rung)
    }

    /// An operator does not want this measure in this incident.
    pub(crate) fn veto(&mut self, config: &Config, measure: &Measure, rung: Rung) {
        self.banned.insert(route(measure));
        if let Some(step) = config.step_of(rung) {
            self.close_from(step + 1);
        }
    }

    /// An operator has left this step for a gentler one.
    pub(crate) fn close_above(&mut self, config: &Config, left: Rung) {
        if let Some(step) = config.step_of(left).filter(|step| *step > 0) {
            self.close_from(step);
        }
    }

    fn close_from(&mut self, step: usize) {
        self.end_step = Some(self.end_step.map_or(step, |end| end.min(step)));
    }

    /// The ladder has other steps now: what was found too weak and what was closed stays so.
    pub(crate) fn climb(&mut self, before: &[RungConfig], after: &[RungConfig]) {
        let place = |rung: Rung| after.iter().position(|step| step.rung == rung);
        let left = before.get(self.from_step).and_then(|step| place(step.rung));
        self.from_step = left.unwrap_or(0);
        self.end_step = self.end_step.map(|end| {
            let (open, closed) = before.split_at(end.min(before.len()));
            let last = open.iter().filter_map(|step| place(step.rung)).max();
            let first = closed.iter().filter_map(|step| place(step.rung)).min();
            let end = last.map_or(0, |last| last + 1);
            first.map_or(end, |first| first.min(end))
        });
    }

    /// Whether the plan asks for nothing that is not there already.
    pub(crate) fn satisfies(&self, plan: &Plan) -> bool {
        plan.measures.iter().all(|p| self.live().any(|m| same_rule(&m.measure, &p.measure)))
    }

    /// Whether the plan has a rule for which this generation has been waiting.
    pub(crate) fn awaits(&self, plan: &Plan) -> bool {
        plan.measures.iter().any(
            |p| matches!(&p.measure, Measure::FlowSpec(f) if self.held_back.contains(&f.packets)),
        )
    }

    /// Share of the present excess that the rules in force surely match, by the verdict's own
    /// candidates, 0-1.
    pub(crate) fn coverage_now(&self, verdict: &Verdict) -> f64 {
        self.matched(verdict, covers)
    }

    /// Share of the present excess that the rules in force can match at most, 0-1.
    pub(crate) fn coverage_max(&self, verdict: &Verdict) -> f64 {
        self.matched(verdict, overlaps)
    }

    /// Share of the excess that the rules in force matched when they were chosen, 0-1; all of it where nobody
    /// knows any more (after a restart).
    pub(crate) fn promised(&self) -> f64 {
        let of = |m: &Mitigation| self.measured.get(&m.id).map_or(1.0, |p| p.coverage);
        self.live().map(of).sum::<f64>().min(1.0)
    }

    fn matched(&self, verdict: &Verdict, meets: impl Fn(&Match, &Match) -> bool) -> f64 {
        let is_met = |packets: &Match| {
            self.live().any(|m| match &m.measure {
                Measure::FlowSpec(filter) => meets(&filter.packets, packets),
                Measure::Blackhole(_) | Measure::Scrub(_) | Measure::Divert(_) => true,
            })
        };
        let met = verdict.candidates.iter().filter(|c| is_met(&c.packets));
        met.map(|c| c.coverage).sum::<f64>().min(1.0)
    }

    /// Whether less than half of the excess is left since the rules last changed.
    pub(crate) fn has_fallen(&self, verdict: &Verdict) -> bool {
        self.watch.is_some_and(|watch| watch.has_fallen(verdict))
    }

    /// Share of normal traffic that the rules in force hit, by what was measured when they were
    /// chosen; unknown ones (after a restart) count as the whole allowance.
    pub(crate) fn collateral(&self, unknown: f64) -> f64 {
        self.live().map(|m| self.measured.get(&m.id).map_or(unknown, |p| p.collateral)).sum()
    }
}

/// Whether two measures do the same, rate limits within a factor of two: a baseline that breathes
/// is no reason to touch a router.
pub(crate) fn same_rule(a: &Measure, b: &Measure) -> bool {
    match (a, b) {
        (Measure::FlowSpec(a), Measure::FlowSpec(b)) => {
            a.packets == b.packets
                && match (a.action, b.action) {
                    (
                        Action::RateLimit { bytes_per_sec: x },
                        Action::RateLimit { bytes_per_sec: y },
                    ) => x <= y.saturating_mul(2) && y <= x.saturating_mul(2),
                    (x, y) => x == y,
                }
        }
        (a, b) => a == b,
    }
}
