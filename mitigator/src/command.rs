//! What operators ask for.

use std::sync::Arc;

use weir_bgp::guard::route;
use weir_model::{
    Command, CommandError, Filter, IncidentId, Measure, Millis, Mitigation, MitigationId,
    MitigationState, Originator,
};

use crate::Mitigator;
use crate::entry::{Entry, Life};
use crate::feedback::Watch;
use crate::ledger::{BY_OPERATOR, close, is_live};

/// Manual mitigations remembered, live and ended.
pub const MANUAL_MAX: usize = 1024;

impl Mitigator {
    /// Carries out a command. Yields the number of the mitigation that it put in force, if any.
    ///
    /// # Errors
    /// [`CommandError`]: what it names does not exist, is in no state for it, or the guard refuses.
    pub fn command(
        &mut self,
        command: &Command,
        now: Millis,
    ) -> Result<Option<MitigationId>, CommandError> {
        match command {
            Command::Approve { mitigation, by } => self.approve(*mitigation, by, now).map(Some),
            Command::Withdraw { mitigation, by } => {
                self.withdraw(*mitigation, by, now).map(|()| None)
            }
            Command::Hold { incident, on, by } => self.hold(*incident, *on, by, now).map(|()| None),
            Command::Skip { incident, by } => self.skip(*incident, by, now).map(|()| None),
            Command::StepDown { incident, by } => self.step_back(*incident, by, now).map(|()| None),
            Command::Add { measure, ttl_secs, by } => {
                self.add(measure, *ttl_secs, by, now).map(Some)
            }
            Command::Change { mitigation, measure, ttl_secs, by } => {
                self.change(*mitigation, measure.as_ref(), *ttl_secs, by, now).map(Some)
            }
            Command::SetMode { mode, by } => {
                self.set_mode(*mode, by, now);
                Ok(None)
            }
            Command::FollowFile { by } => {
                self.follow_file(by, now);
                Ok(None)
            }
            Command::Panic { by } => {
                self.panic(by, now);
                Ok(None)
            }
            Command::Baseline { .. } => {
                Err(CommandError::Refused("baselines are the detector's".to_owned()))
            }
        }
    }

    fn owner_of(&self, id: MitigationId) -> Option<IncidentId> {
        self.entries
            .values()
            .find(|e| e.incident.mitigations.iter().any(|m| m.id == id))
            .map(|e| e.incident.id)
    }

    fn approve(
        &mut self,
        id: MitigationId,
        by: &str,
        now: Millis,
    ) -> Result<MitigationId, CommandError> {
        let found = self.mitigations().find(|m| m.id == id).ok_or(CommandError::NotFound)?;
        if found.state != MitigationState::Proposed {
            return Err(CommandError::Conflict(format!("it is {:?}, not proposed", found.state)));
        }
        if let Err(refusal) = self.guard.judge(found) {
            return Err(CommandError::Refused(refusal.to_string()));
        }
        let measure = found.measure.clone();
        let complete = self.second_person(id, &measure, by)?;
        let note = if complete { "" } else { ", waits for a second person" };
        let detail = format!("{measure}: approved by {by}{note}");
        let Some(owner) = self.owner_of(id) else {
            self.ledger.record_outside(measure.target(), "approve", detail, None, now);
            if complete && let Some(m) = self.manual.iter_mut().find(|m| m.id == id) {
                m.state = MitigationState::Active;
                self.ledger.dirty = true;
            }
            return Ok(id);
        };
        let Some(mut entry) = self.entries.remove(&owner) else {
            return Err(CommandError::NotFound);
        };
        self.ledger.record(&mut entry.incident, "approve", detail, now);
        if complete {
            self.put_in_force(&mut entry, id, by, now);
        }
        self.entries.insert(owner, entry);
        Ok(id)
    }

    /// Whether enough people have approved; a black hole may need two, who are not the same.
    fn second_person(
        &mut self,
        id: MitigationId,
        measure: &Measure,
        by: &str,
    ) -> Result<bool, CommandError> {
        if !self.needs_two_people(measure) {
            return Ok(true);
        }
        match self.approvals.get(&id.0) {
            Some(first) if first == by => Err(CommandError::Conflict(format!(
                "{by} has approved it; it needs another person"
            ))),
            Some(_) => {
                self.approvals.remove(&id.0);
                Ok(true)
            }
            None => {
                self.approvals.insert(id.0, by.to_owned());
                Ok(false)
            }
        }
    }

    /// An approved measure takes the place of what was in force until now.
    fn put_in_force(&mut self, entry: &mut Entry, id: MitigationId, by: &str, now: Millis) {
        let Some(approved) = entry.incident.mitigations.iter().find(|m| m.id == id).cloned() else {
            return;
        };
        let stays = |m: &&Mitigation| self.stays_beside(m, approved.rung, &[&approved.measure]);
        let beside: Vec<MitigationId> = entry.live().filter(stays).map(|m| m.id).collect();
        let replaced = |m: &Mitigation| {
            m.id != id
                && m.state == MitigationState::Active
                && !beside.contains(&m.id)
                && (m.rung != approved.rung || route(&m.measure) == route(&approved.measure))
        };
        let why = "replaced by an approved step";
        self.end(entry, replaced, MitigationState::Withdrawn, why, now);
        let expires = now + self.config.ttl_ms();
        let incident = Arc::make_mut(&mut entry.incident);
        if let Some(m) = incident.mitigations.iter_mut().find(|m| m.id == id) {
            m.state = MitigationState::Active;
            m.expires = expires;
            m.note = format!("approved by {by}; {}", m.note);
        }
        entry.generation_at = Some(now);
        let verdict = &entry.incident.verdict;
        entry.watch = Some(Watch::new(verdict, entry.legitimate, approved.since));
        self.show_rung(entry);
        self.ledger.dirty = true;
    }

    fn withdraw(&mut self, id: MitigationId, by: &str, now: Millis) -> Result<(), CommandError> {
        let note = format!("{BY_OPERATOR}{by}");
        if let Some(m) = self.manual.iter_mut().find(|m| m.id == id) {
            if !is_live(m) {
                return Err(CommandError::Conflict("it has ended already".into()));
            }
            close(m, MitigationState::Withdrawn, &note, now);
            let (target, detail) = (m.measure.target(), format!("{}: {note}", m.measure));
            self.ledger.record_outside(target, "withdraw", detail, None, now);
            self.ledger.dirty = true;
            return Ok(());
        }
        let owner = self.owner_of(id).ok_or(CommandError::NotFound)?;
        let Some(mut entry) = self.entries.remove(&owner) else {
            return Err(CommandError::NotFound);
        };
        let found = entry.live().find(|m| m.id == id).map(|m| (m.measure.clone(), m.rung));
        let result = match found {
            None => Err(CommandError::Conflict("it has ended already".into())),
            Some((measure, rung)) => {
                entry.veto(&self.config, &measure, rung);
                let is_it = |m: &Mitigation| m.id == id;
                self.end(&mut entry, is_it, MitigationState::Withdrawn, &note, now);
                Ok(())
            }
        };
        self.entries.insert(owner, entry);
        result
    }

    fn hold(
        &mut self,
        id: IncidentId,
        on: bool,
        by: &str,
        now: Millis,
    ) -> Result<(), CommandError> {
        let entry = self.entries.get_mut(&id).ok_or(CommandError::NotFound)?;
        if entry.life == Life::Closed {
            return Err(CommandError::Conflict("the incident is closed".into()));
        }
        if entry.incident.held == on {
            let state = if on { "held" } else { "not held" };
            return Err(CommandError::Conflict(format!("it is {state} already")));
        }
        Arc::make_mut(&mut entry.incident).held = on;
        entry.held_at = on.then_some(now);
        let (action, text) = if on { ("hold", "held by") } else { ("release", "let go by") };
        self.ledger.record(&mut entry.incident, action, format!("{text} {by}"), now);
        Ok(())
    }

    fn add(
        &mut self,
        measure: &Measure,
        ttl_secs: u64,
        by: &str,
        now: Millis,
    ) -> Result<MitigationId, CommandError> {
        let measure = canonical(measure);
        let rung = measure.rung();
        let same = route(&measure);
        if self.manual.iter().any(|m| is_live(m) && route(&m.measure) == same) {
            return Err(CommandError::Conflict("an operator has this match in force".into()));
        }
        let id = self.ledger.next_id(now);
        let alone = self.needs_two_people(&measure);
        let state = if alone { MitigationState::Proposed } else { MitigationState::Active };
        let mitigation = Mitigation {
            id,
            originator: Originator::Operator(by.to_owned()),
            measure,
            rung,
            state: MitigationState::Active,
            since: now,
            expires: now + ttl_secs.saturating_mul(1000),
            ended: None,
            peers: Vec::new(),
            note: format!("by hand, for {ttl_secs} s"),
            worth: 0,
        };
        self.admissible(&mitigation, by, now)?;
        if self.manual.len() >= MANUAL_MAX {
            match self.manual.iter().position(|m| !is_live(m)) {
                Some(oldest) => drop(self.manual.remove(oldest)),
                None => return Err(CommandError::Refused("too many manual measures".into())),
            }
        }
        let detail = format!("{} for {ttl_secs} s by {by}", mitigation.measure);
        let action = if alone { "propose" } else { "announce" };
        self.ledger.record_outside(mitigation.measure.target(), action, detail, None, now);
        if alone {
            // Who asks for it is the first of the two.
            self.approvals.insert(id.0, by.to_owned());
        }
        let measure = mitigation.measure.clone();
        self.manual.push(Mitigation { state, ..mitigation });
        self.watch_manual(&measure, None);
        self.ledger.dirty = true;
        Ok(id)
    }

    /// Whether the guard would let a measure by hand pass, and anybody could have it.
    pub(crate) fn admissible(
        &mut self,
        mitigation: &Mitigation,
        by: &str,
        now: Millis,
    ) -> Result<(), CommandError> {
        if let Err(refusal) = self.guard.would_admit(&self.wished, mitigation, now) {
            let (target, text) = (mitigation.measure.target(), refusal.to_string());
            let detail = format!("{} asked for by {by}: {text}", mitigation.measure);
            self.ledger.record_outside(target, "refuse", detail, None, now);
            return Err(CommandError::Refused(text));
        }
        self.peers.carry(&mitigation.measure).map_err(CommandError::Refused)
    }

    /// One line for the whole appliance, and one in each open incident's timeline.
    pub(crate) fn note_everywhere(&mut self, action: &str, detail: &str, now: Millis) {
        let everywhere = weir_model::IpNet::V4(weir_model::Ipv4Net::default());
        self.ledger.record_outside(everywhere, action, detail.to_owned(), None, now);
        for entry in self.entries.values_mut().filter(|e| e.life != Life::Closed) {
            self.ledger.note(&mut entry.incident, action, detail.to_owned(), now);
        }
    }

    pub(crate) fn end_everywhere(
        &mut self,
        note: &str,
        now: Millis,
        which: impl Fn(&Mitigation) -> bool,
    ) {
        let ids: Vec<IncidentId> = self.entries.keys().copied().collect();
        for id in ids {
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            if self.end(&mut entry, &which, MitigationState::Withdrawn, note, now) > 0 {
                // The next verdict decides afresh, in the new mode.
                entry.from_step = 0;
                entry.watch = None;
            }
            self.entries.insert(id, entry);
        }
    }
}

/// A measure as it would be announced: lists sorted, host bits cleared.
pub(crate) fn canonical(measure: &Measure) -> Measure {
    match measure {
        Measure::FlowSpec(filter) => Measure::FlowSpec(Filter {
            packets: filter.packets.clone().normalise(),
            action: filter.action,
        }),
        Measure::Blackhole(net) => Measure::Blackhole(net.trunc()),
        Measure::Scrub(net) => Measure::Scrub(net.trunc()),
        Measure::Divert(net) => Measure::Divert(net.trunc()),
    }
}
