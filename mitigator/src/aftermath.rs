//! When an attack is over before it is known what measures did to the players: a rule that drops
//! everything ends the attack in sight, and the players with it. Their observation goes on to its
//! verdict, for no longer than a collapse is laid at a measure's door.

use std::collections::BTreeSet;

use weir_model::{Goodput, IncidentId, IpNet, Millis, Rung, Verdict};

use crate::Mitigator;
use crate::entry::{Entry, Life};
use crate::feedback::{Harm, starved};

/// How often it is asked how players fare, as often as verdicts say it, milliseconds.
const ASK_MS: u64 = 1000;

impl Mitigator {
    /// Incidents whose attack is over while their measures are still observed, and their targets:
    /// once a second, for [`Mitigator::fares`].
    pub fn observed_after(&mut self, now: Millis) -> Vec<(IncidentId, IpNet)> {
        self.asked = self.asked.min(now);
        if now.since(self.asked) < ASK_MS {
            return Vec::new();
        }
        self.asked = now;
        self.forget_observations(now);
        let of_manual: BTreeSet<IncidentId> =
            self.manual_watches.keys().map(|(_, incident)| *incident).collect();
        self.entries
            .values()
            .filter(|e| e.life != Life::Alive)
            .filter(|e| e.watch.is_some() || of_manual.contains(&e.incident.id))
            .map(|e| (e.incident.id, e.incident.verdict.target))
            .collect()
    }

    /// Ends observations that have had their time since the attack ended.
    fn forget_observations(&mut self, now: Millis) {
        let Self { entries, manual_watches, memory, config, .. } = self;
        let is_due = |entry: &Entry| {
            let verdict = &entry.incident.verdict;
            let lag = memory.lag_ms(&verdict.reason.exporters);
            let time = config.rollback_secs.saturating_mul(1000).saturating_add(lag);
            entry.life != Life::Alive && now.since(verdict.at) > time
        };
        for entry in entries.values_mut().filter(|e| e.watch.is_some()) {
            if is_due(entry) {
                entry.watch = None;
            }
        }
        manual_watches.retain(|(_, incident), _| entries.get(incident).is_some_and(|e| !is_due(e)));
    }

    /// How legitimate traffic of a target fares after its attack: takes back what starves it.
    pub fn fares(&mut self, incident: IncidentId, legitimate: Goodput, now: Millis) {
        let Some(mut entry) = self.entries.remove(&incident) else { return };
        if entry.life != Life::Alive {
            let last = entry.incident.verdict.clone();
            let verdict = Verdict { legitimate: Some(legitimate), ..last };
            self.feel_manual(&mut entry, &verdict, now);
            if !entry.incident.held {
                self.feel_after(&mut entry, &verdict, now);
            }
        }
        self.entries.insert(incident, entry);
    }

    fn feel_after(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let spares = entry.rung().is_some_and(Rung::filters);
        let Some(watch) = entry.watch.as_mut().filter(|_| spares) else { return };
        match watch.harm(verdict, &self.memory, &self.config, now) {
            Harm::None | Harm::Suspected => {}
            Harm::Over => entry.watch = None,
            Harm::Sure(left) => self.roll_back(entry, &starved(left), true, now),
        }
    }
}
