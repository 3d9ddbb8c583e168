//! What operators change while attacks go on: groups that weir goes less far for, another ladder; and
//! what excluded prefixes have kept it from.

use std::sync::Arc;

use weir_model::{
    Direction, IncidentId, IpNet, Millis, Mitigation, MitigationState, Mode, Spared, Verdict,
};

use crate::config::{Config, RungConfig};
use crate::entry::{Entry, Life};
use crate::{GuardConfig, Mitigator};

impl Mitigator {
    /// Puts another ladder in force; what is in force by a step that is gone ends at the next
    /// [`Mitigator::advance`].
    pub fn set_ladder(&mut self, ladder: Vec<RungConfig>) {
        let before = std::mem::replace(&mut self.config.ladder, ladder);
        if before == self.config.ladder {
            return;
        }
        for entry in self.entries.values_mut() {
            entry.climb(&before, &self.config.ladder);
        }
        self.changed_policy = true;
    }

    /// Puts other settings and other limits in force. Mode, ladder and scrubbing services stay: the first two
    /// have ways of their own, for operators set them too.
    pub fn set_config(&mut self, config: Config, guard: GuardConfig) {
        let before = std::mem::take(&mut self.config);
        self.config = Config {
            mode: before.mode,
            ladder: before.ladder,
            scrubbers: before.scrubbers,
            webhooks: before.webhooks,
            ..config
        };
        self.guard.set_config(guard);
        self.changed_policy = true;
        // What the guard no longer lets pass goes at the next admission.
        self.ledger.dirty = true;
    }

    /// The ladder in force.
    pub fn ladder(&self) -> &[RungConfig] {
        &self.config.ladder
    }

    /// What never-touch prefixes have kept weir from, sorted.
    pub fn spared(&self) -> impl Iterator<Item = &Spared> {
        self.memory.spared()
    }

    /// How far weir goes by itself for an incident.
    pub(crate) fn mode_for(&self, entry: &Entry) -> Mode {
        self.mode.min(entry.policy.mode)
    }

    /// Which group the target is in, and what groups say of it.
    pub(crate) fn enrol(&self, entry: &mut Entry) {
        let target = entry.incident.verdict.target;
        let inventory = self.guard.inventory();
        entry.policy = inventory.policy_of(target);
        let group = inventory.group_of(target);
        if entry.incident.group.as_deref() != group {
            Arc::make_mut(&mut entry.incident).group = group.map(str::to_owned);
        }
    }

    /// Ends what groups or ladder no longer allow; the next verdict decides afresh.
    pub(crate) fn heed(&mut self, now: Millis) {
        let ids: Vec<IncidentId> = self.entries.keys().copied().collect();
        for id in ids {
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            if entry.life != Life::Closed {
                self.heed_one(&mut entry, now);
            }
            self.entries.insert(id, entry);
        }
    }

    fn heed_one(&mut self, entry: &mut Entry, now: Millis) {
        let before = entry.policy.clone();
        self.enrol(entry);
        self.ledger.changed.insert(entry.incident.id);
        let gone: Vec<_> =
            entry.live().filter_map(|m| Some((m.id, self.no_longer(entry, &before, m)?))).collect();
        for (id, why) in &gone {
            let is_it = |m: &Mitigation| m.id == *id;
            self.end(entry, is_it, MitigationState::Withdrawn, why, now);
        }
        if !gone.is_empty() {
            entry.watch = None;
            entry.gentler = None;
            // What is left to do is not held up by the change.
            entry.generation_at = None;
        }
    }

    /// Why a measure may not stay, if so. What weir goes further for now than before is decided
    /// afresh, too: what was only simulated may be announced.
    fn no_longer(
        &self,
        entry: &Entry,
        before: &weir_model::Policy,
        m: &Mitigation,
    ) -> Option<String> {
        if self.config.step_of(m.rung).is_none() {
            return Some(format!("{} is no longer a step of the ladder", m.rung));
        }
        if let Some(group) = entry.policy.forbids(m.rung) {
            return Some(format!("never for group {group}"));
        }
        let mode = self.mode_for(entry);
        if mode == self.mode.min(before.mode) {
            return None;
        }
        let ends = m.state != MitigationState::Active || mode == Mode::Observe;
        ends.then(|| format!("its group is in mode {mode:?}").to_lowercase())
    }

    /// Counts an attack on what is never touched, once a prefix.
    pub(crate) fn count_spared(&mut self, entry: &mut Entry, verdict: &Verdict, now: Millis) {
        let never_touch = &self.guard.inventory().never_touch;
        let acts = verdict.direction == Direction::Inbound
            && verdict.confidence >= self.config.rate_limit_confidence;
        if !acts || never_touch.is_empty() || !never_touch.overlaps(verdict.target) {
            return;
        }
        let hit = |net: &IpNet| net.contains(&verdict.target) || verdict.target.contains(net);
        let hit: Vec<IpNet> = never_touch.iter().filter(hit).collect();
        for prefix in hit {
            let newly = entry.spared.insert(prefix);
            self.memory.spare(prefix, newly, now);
        }
    }
}
