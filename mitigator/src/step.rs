//! Steps that an operator takes on the ladder: on to the next one, or back to a gentler one.

use weir_bgp::guard::route;
use weir_model::{
    CommandError, IncidentId, Measure, Millis, Mitigation, MitigationState, Rung, Verdict,
};

use crate::Mitigator;
use crate::entry::{Entry, Life};
use crate::ledger::STEPPED_DOWN;
use crate::plan::Planned;

impl Mitigator {
    /// Leaves the step that is in force or proposed, and goes on to the next one that is allowed.
    pub(crate) fn skip(
        &mut self,
        id: IncidentId,
        by: &str,
        now: Millis,
    ) -> Result<(), CommandError> {
        self.with_entry(id, |own, entry| own.skip_in(entry, by, now))
    }

    /// Goes back one step, and takes no harder one again in this incident.
    pub(crate) fn step_back(
        &mut self,
        id: IncidentId,
        by: &str,
        now: Millis,
    ) -> Result<(), CommandError> {
        self.with_entry(id, |own, entry| own.step_back_in(entry, by, now))
    }

    fn with_entry(
        &mut self,
        id: IncidentId,
        change: impl FnOnce(&mut Self, &mut Entry) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut entry = self.entries.remove(&id).ok_or(CommandError::NotFound)?;
        let result = change(self, &mut entry);
        self.entries.insert(id, entry);
        result
    }

    fn skip_in(&mut self, entry: &mut Entry, by: &str, now: Millis) -> Result<(), CommandError> {
        if entry.life != Life::Alive {
            return Err(CommandError::Conflict("the attack is no longer seen".into()));
        }
        let is_proposed = |m: &&Mitigation| m.state == MitigationState::Proposed;
        let proposed = entry.live().filter(is_proposed).filter_map(|m| self.config.step_of(m.rung));
        let in_force = entry.rung().and_then(|rung| self.config.step_of(rung));
        let left = proposed.max().or(in_force);
        let from_step = left.map_or(0, |step| step + 1);
        let verdict = entry.incident.verdict.clone();
        // Who asks for the next step opens it, also where somebody had closed it.
        let closed = entry.end_step.take();
        let plan = self.plan_from(entry, &verdict, from_step, None, now);
        let Some((index, rung)) = plan.step else {
            entry.end_step = closed;
            let why = if plan.why.is_empty() { "there is no further step" } else { &plan.why };
            return Err(CommandError::Conflict(why.to_owned()));
        };
        self.ledger.record(&mut entry.incident, "skip", format!("on to {rung} by {by}"), now);
        let note = format!("skipped by operator {by}");
        let moot = |m: &Mitigation| m.state == MitigationState::Proposed;
        self.end(entry, moot, MitigationState::Withdrawn, &note, now);
        self.follow(entry, &plan, &verdict, now);
        entry.from_step = index;
        Ok(())
    }

    fn step_back_in(
        &mut self,
        entry: &mut Entry,
        by: &str,
        now: Millis,
    ) -> Result<(), CommandError> {
        let Some(rung) = entry.rung() else {
            return Err(CommandError::Conflict("nothing is in force".into()));
        };
        let note = format!("{STEPPED_DOWN}{by}");
        if entry.life != Life::Alive {
            self.ledger.record(&mut entry.incident, "step-down", note, now);
            self.step_down(entry, now);
            return Ok(());
        }
        let verdict = entry.incident.verdict.clone();
        self.prepare_gentler(entry, rung, &verdict, now)?;
        let is_proposed = |m: &Mitigation| m.state == MitigationState::Proposed;
        self.end(entry, is_proposed, MitigationState::Withdrawn, &note, now);
        entry.close_above(&self.config, rung);
        self.fall_back(entry, &note, now);
        if entry.rung() == Some(rung) {
            // Nothing gentler does anything: the step is left all the same, because a person says so.
            self.ledger.record(&mut entry.incident, "step-down", note.clone(), now);
            let of_step = |m: &Mitigation| m.rung == rung;
            let routes: Vec<Measure> =
                entry.live().filter(|m| of_step(m)).map(|m| route(&m.measure)).collect();
            entry.banned.extend(routes);
            self.end(entry, of_step, MitigationState::Withdrawn, &note, now);
        }
        Ok(())
    }

    /// Sees to it that [`Mitigator::fall_back`] finds what is gentler than this step.
    fn prepare_gentler(
        &self,
        entry: &mut Entry,
        rung: Rung,
        verdict: &Verdict,
        now: Millis,
    ) -> Result<(), CommandError> {
        match rung {
            Rung::Mark | Rung::RateLimit => {
                Err(CommandError::Conflict("it is the gentlest step: withdraw it instead".into()))
            }
            Rung::Drop if self.config.step_of(Rung::RateLimit).is_none() => {
                Err(CommandError::Conflict("the ladder has no gentler step".into()))
            }
            Rung::Drop => {
                let list: Vec<Planned> =
                    entry.live().filter_map(|m| self.as_rate_limit(entry, m)).collect();
                entry.gentler = Some((Rung::RateLimit, list));
                Ok(())
            }
            Rung::Redirect | Rung::Divert | Rung::Rtbh | Rung::Scrub if entry.gentler.is_some() => {
                Ok(())
            }
            Rung::Redirect | Rung::Divert | Rung::Rtbh | Rung::Scrub => {
                // It was the first step of all: what rules would do now.
                let plan = self.plan_from(entry, verdict, 0, Some(rung), now);
                if let Some((_, rung)) = plan.step.filter(|(_, rung)| rung.filters()) {
                    entry.gentler = Some((rung, plan.measures));
                }
                Ok(())
            }
        }
    }
}
