//! What operators put in force by hand lapses by itself unless they give it more time, and is taken back
//! when it starves the players.

use std::collections::BTreeSet;

use weir_bgp::guard::route;
use weir_model::{
    CommandError, Measure, Millis, Mitigation, MitigationId, MitigationState, Verdict,
};

use crate::Mitigator;
use crate::command::canonical;
use crate::entry::{Entry, Life};
use crate::feedback::{Harm, Watch, starved};
use crate::ledger::{close, is_live};

/// Manual rules whose effect on legitimate traffic is watched at once.
const WATCHES_MAX: usize = 256;

impl Mitigator {
    /// Ends manual measures whose time is over, and forgets approvals of what has ended.
    pub(crate) fn tick_manual(&mut self, now: Millis) {
        if !self.approvals.is_empty() {
            let waiting: BTreeSet<u64> = self
                .mitigations()
                .filter(|m| m.state == MitigationState::Proposed)
                .map(|m| m.id.0)
                .collect();
            self.approvals.retain(|id, _| waiting.contains(id));
        }
        if !self.manual_watches.is_empty() {
            let live: BTreeSet<MitigationId> =
                self.manual.iter().filter(|m| is_live(m)).map(|m| m.id).collect();
            let entries = &self.entries;
            self.manual_watches
                .retain(|(id, incident), _| live.contains(id) && entries.contains_key(incident));
        }
        for m in &mut self.manual {
            if m.since > now {
                // The clock was set back: what was left of its time is not more than all of it.
                m.expires = now + m.expires.since(m.since);
                m.since = now;
                self.ledger.dirty = true;
            }
            if is_live(m) && m.expires <= now {
                close(m, MitigationState::Withdrawn, "expired", now);
                let (target, detail) = (m.measure.target(), format!("{}: expired", m.measure));
                self.ledger.record_outside(target, "withdraw", detail, None, now);
                self.ledger.dirty = true;
            }
        }
    }

    /// Gives a measure by hand another time to run, or puts another in its place under the same number.
    /// Where only the action differs, routers see one announcement and no gap.
    pub(crate) fn change(
        &mut self,
        id: MitigationId,
        measure: Option<&Measure>,
        ttl_secs: Option<u64>,
        by: &str,
        now: Millis,
    ) -> Result<MitigationId, CommandError> {
        let conflict = |why: &str| Err(CommandError::Conflict(why.to_owned()));
        let Some(old) = self.manual.iter().find(|m| m.id == id).cloned() else {
            return match self.mitigations().any(|m| m.id == id) {
                true => conflict("an incident has it: it lasts as long as that"),
                false => Err(CommandError::NotFound),
            };
        };
        if !is_live(&old) {
            return conflict("it has ended already");
        }
        let measure = measure.map_or_else(|| old.measure.clone(), canonical);
        let rung = measure.rung();
        if measure != old.measure
            && (self.needs_two_people(&measure) || self.needs_two_people(&old.measure))
        {
            return conflict("black holes need two people: add another, and withdraw this one");
        }
        let same = route(&measure);
        if self.manual.iter().any(|m| m.id != id && is_live(m) && route(&m.measure) == same) {
            return conflict("an operator has this match in force");
        }
        let expires = ttl_secs.map_or(old.expires, |secs| now + secs.saturating_mul(1000));
        let new = Mitigation {
            rung,
            expires,
            peers: if measure == old.measure { old.peers.clone() } else { Vec::new() },
            note: format!("by hand, changed by {by}, for {} s", expires.since(now) / 1000),
            measure,
            ..old.clone()
        };
        // The guard is asked about it as if it were in force already.
        let asked = Mitigation { state: MitigationState::Active, ..new.clone() };
        self.admissible(&asked, by, now)?;
        let secs = expires.since(now) / 1000;
        let detail = match old.measure == new.measure {
            true => format!("{}: {by} has it last for {secs} s more", new.measure),
            false => format!("{} instead of {} for {secs} s by {by}", new.measure, old.measure),
        };
        self.ledger.record_outside(new.measure.target(), "change", detail, None, now);
        let replaced = old.measure != new.measure;
        let measure = new.measure.clone();
        if let Some(m) = self.manual.iter_mut().find(|m| m.id == id) {
            *m = new;
        }
        if replaced {
            // What was seen of the old one says nothing of the new one.
            self.manual_watches.retain(|(of, _), _| *of != id);
            self.watch_manual(&measure, None);
        }
        self.ledger.dirty = true;
        Ok(id)
    }

    /// Attacks on the target of a manual rule show whether it does harm, from when it is on the wire.
    /// Without an attack nobody knows what was legitimate before; what is known of one that ends
    /// meanwhile is enough.
    pub(crate) fn watch_manual(&mut self, measure: &Measure, on_wire: Option<Millis>) {
        // A black hole and a diversion do not claim to spare anybody.
        let Measure::FlowSpec(filter) = measure else { return };
        let is_it = |m: &&Mitigation| m.state == MitigationState::Active && m.measure == *measure;
        let Some(id) = self.manual.iter().find(is_it).map(|m| m.id) else { return };
        let dst = filter.packets.dst;
        for entry in self.entries.values().filter(|e| e.life == Life::Alive) {
            let target = entry.incident.verdict.target;
            let key = (id, entry.incident.id);
            let concerns = dst.contains(&target) || target.contains(&dst);
            if concerns && self.manual_watches.len() < WATCHES_MAX {
                let verdict = &entry.incident.verdict;
                let new = || Watch::new(verdict, entry.legitimate, verdict.at);
                self.manual_watches.entry(key).or_insert_with(new);
            }
        }
        for (_, watch) in self.manual_watches.iter_mut().filter(|((of, _), _)| *of == id) {
            watch.on_wire = watch.on_wire.or(on_wire);
        }
    }

    /// Takes back manual rules under which legitimate traffic has collapsed.
    pub(crate) fn feel_manual(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let own = entry.incident.id;
        let mut harmful = Vec::new();
        let Self { manual_watches, memory, config, .. } = self;
        manual_watches.retain(|(id, incident), watch| {
            if *incident != own {
                return true;
            }
            match watch.harm(verdict, memory, config, now) {
                Harm::None | Harm::Suspected => true,
                Harm::Over => false,
                Harm::Sure(left) => {
                    harmful.push((*id, left));
                    false
                }
            }
        });
        for (id, left) in harmful {
            self.take_back(entry, id, left, now);
        }
    }

    fn take_back(&mut self, entry: &mut Entry, id: MitigationId, left: f64, now: Millis) {
        let Some(m) = self.manual.iter_mut().find(|m| m.id == id && is_live(m)) else { return };
        let why = starved(left);
        close(m, MitigationState::Withdrawn, &format!("rolled back: {why}"), now);
        let measure = m.measure.clone();
        let until = now + self.config.harmful_secs.saturating_mul(1000);
        self.memory.harmed(&measure, until);
        let detail = format!("{measure}: {why}");
        self.ledger.record(&mut entry.incident, "roll-back", detail, now);
        self.ledger.dirty = true;
    }
}
