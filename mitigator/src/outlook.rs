//! What comes next about an incident by itself, for people who watch a clock.

use weir_model::{IncidentId, Outlook, OutlookKind, Rung};

use crate::Mitigator;
use crate::entry::{Entry, Life};

impl Mitigator {
    /// What comes next about an open incident unless the attack or an operator changes it.
    pub fn outlook(&self, id: IncidentId) -> Option<Outlook> {
        let entry = self.entries.get(&id).filter(|e| !e.incident.held)?;
        let (kind, at) = match entry.life {
            Life::Alive => return self.judgement(entry),
            Life::Holding { until } => match entry.rung() {
                Some(Rung::Mark | Rung::RateLimit) | None => (OutlookKind::Withdraw, until),
                Some(_) => (OutlookKind::StepDown, until),
            },
            Life::Probing { until } => (OutlookKind::Close, until),
            Life::Closed => return None,
        };
        Some(Outlook { kind, at })
    }

    fn judgement(&self, entry: &Entry) -> Option<Outlook> {
        let watch = entry.watch.filter(|watch| !watch.settled)?;
        let lag = self.memory.lag_ms(&entry.incident.verdict.reason.exporters);
        let wait = self.config.feedback_ms(entry.rung()).saturating_add(lag);
        Some(Outlook { kind: OutlookKind::Judge, at: watch.on_wire? + wait })
    }
}
