//! The book-keeping of decisions: numbers, the journal, what changed since somebody last looked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ipnet::IpNet;
use weir_model::{
    Decision, Incident, IncidentId, Measure, Millis, Mitigation, MitigationId, MitigationState,
    Originator, Reason, Rung, TimelineEntry,
};

/// Entries of an incident's timeline; when full, the middle gives way, never the beginning.
pub const TIMELINE_MAX: usize = 256;
/// Entries at the start of a timeline that are never dropped.
const TIMELINE_KEPT: usize = 32;
/// Mitigations remembered per incident; the oldest ended ones give way.
pub const MITIGATIONS_MAX: usize = 128;
/// Decisions waiting for [`crate::Mitigator::take_decisions`]; the oldest give way and are counted.
pub const DECISIONS_MAX: usize = 8192;

/// How a mitigation that an operator withdrew begins its note. Read back after a restart, so that
/// it stays away.
pub(crate) const BY_OPERATOR: &str = "withdrawn by operator ";

/// End of a note by the brake: what it withdrew may come back when it is lifted.
pub(crate) const EVERYTHING: &str = " (everything)";

/// How a mitigation that an operator stepped down from begins its note; read back likewise.
pub(crate) const STEPPED_DOWN: &str = "stepped down by operator ";

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    last_id: u64,
    decisions: VecDeque<Decision>,
    pub(crate) decisions_lost: u64,
    pub(crate) changed: BTreeSet<IncidentId>,
    /// Whether what is desired must be put together anew.
    pub(crate) dirty: bool,
}

impl Ledger {
    /// The next number: unique for the life of an installation because it follows the clock, and
    /// rising when the clock stands or is set back.
    pub(crate) fn next_id(&mut self, now: Millis) -> MitigationId {
        self.last_id = now.0.max(self.last_id.saturating_add(1));
        MitigationId(self.last_id)
    }

    pub(crate) fn saw_id(&mut self, id: MitigationId) {
        self.last_id = self.last_id.max(id.0);
    }

    pub(crate) fn decide(&mut self, decision: Decision) {
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.pop_front();
            self.decisions_lost = self.decisions_lost.saturating_add(1);
        }
        self.decisions.push_back(decision);
    }

    pub(crate) fn take_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions).into()
    }

    /// A decision in an incident: into the journal and its timeline.
    pub(crate) fn record(
        &mut self,
        incident: &mut Arc<Incident>,
        action: &str,
        detail: String,
        now: Millis,
    ) {
        self.decide(Decision {
            at: now,
            incident: Some(incident.id),
            target: incident.verdict.target,
            action: action.to_owned(),
            detail: detail.clone(),
            reason: Some(incident.verdict.reason.clone()),
        });
        self.note(incident, action, detail, now);
    }

    /// A decision outside any incident.
    pub(crate) fn record_outside(
        &mut self,
        target: IpNet,
        action: &str,
        detail: String,
        reason: Option<Reason>,
        now: Millis,
    ) {
        let action = action.to_owned();
        self.decide(Decision { at: now, incident: None, target, action, detail, reason });
    }

    /// An entry of the timeline that is no decision.
    pub(crate) fn note(
        &mut self,
        incident: &mut Arc<Incident>,
        kind: &str,
        text: String,
        now: Millis,
    ) {
        self.changed.insert(incident.id);
        let timeline = &mut Arc::make_mut(incident).timeline;
        if timeline.len() >= TIMELINE_MAX {
            timeline.remove(TIMELINE_KEPT);
        }
        timeline.push(TimelineEntry { at: now, kind: kind.to_owned(), text });
    }

    /// Enters a new mitigation of an incident.
    pub(crate) fn open(
        &mut self,
        incident: &mut Arc<Incident>,
        (measure, rung): (Measure, Rung),
        state: MitigationState,
        (now, expires): (Millis, Millis),
        worth: u64,
        note: String,
    ) {
        let action = match state {
            MitigationState::Simulated => "simulate",
            MitigationState::Proposed => "propose",
            _ => "announce",
        };
        self.record(incident, action, format!("{measure}: {note}"), now);
        let id = self.next_id(now);
        let originator = Originator::Incident(incident.id);
        let list = &mut Arc::make_mut(incident).mitigations;
        if list.len() >= MITIGATIONS_MAX
            && let Some(oldest) = list.iter().position(|m| !is_live(m))
        {
            list.remove(oldest);
        }
        list.push(Mitigation {
            id,
            originator,
            measure,
            rung,
            state,
            since: now,
            expires,
            ended: None,
            peers: Vec::new(),
            note,
            worth,
        });
        self.dirty = true;
    }

    /// Ends every live mitigation of an incident that `which` names; says how many.
    pub(crate) fn end(
        &mut self,
        incident: &mut Arc<Incident>,
        which: impl Fn(&Mitigation) -> bool,
        state: MitigationState,
        note: &str,
        now: Millis,
    ) -> usize {
        let ended: Vec<Measure> = Arc::make_mut(incident)
            .mitigations
            .iter_mut()
            .filter(|m| is_live(m) && which(m))
            .map(|m| {
                close(m, state, note, now);
                m.measure.clone()
            })
            .collect();
        let action = if state == MitigationState::Refused { "refuse" } else { "withdraw" };
        for measure in &ended {
            self.record(incident, action, format!("{measure}: {note}"), now);
        }
        self.dirty |= !ended.is_empty();
        ended.len()
    }
}

/// Whether a mitigation is wanted, in whatever form the mode gives it.
pub(crate) const fn is_live(mitigation: &Mitigation) -> bool {
    matches!(
        mitigation.state,
        MitigationState::Active | MitigationState::Proposed | MitigationState::Simulated
    )
}

pub(crate) fn close(m: &mut Mitigation, state: MitigationState, note: &str, now: Millis) {
    m.state = state;
    m.ended = Some(now);
    note.clone_into(&mut m.note);
}
