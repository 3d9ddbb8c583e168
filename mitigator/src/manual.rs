//! What operators put in force by hand lapses by itself, and is taken back when it starves the players.

use std::collections::BTreeSet;

use weir_model::{Measure, Millis, MitigationId, MitigationState, Verdict};

use crate::Mitigator;
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

    /// Attacks on the target of a manual rule show whether it does harm, from when it is on the wire.
    /// Without an attack nobody knows what was legitimate before; what is known of one that ends
    /// meanwhile is enough.
    pub(crate) fn watch_manual(&mut self, measure: &Measure, on_wire: Option<Millis>) {
        // A black hole and a diversion do not claim to spare anybody.
        let Measure::FlowSpec(filter) = measure else { return };
        let is_it = |m: &&weir_model::Mitigation| {
            m.state == MitigationState::Active && m.measure == *measure
        };
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
