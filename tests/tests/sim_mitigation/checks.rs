//! What must hold at every virtual second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_mitigator::GuardConfig;
use weir_model::{
    Incident, IncidentId, IncidentState, Inventory, IpNet, Measure, Mitigation, MitigationState,
    Mode, Originator,
};

use super::{DEFENSIBLE, Faults, World};

impl World {
    /// Rules of one incident change at most every five seconds. What a full guard keeps back may
    /// enter any time.
    pub(super) fn check_pace(&mut self, desired: &BTreeMap<Measure, Mitigation>) {
        let tight = self.guard != GuardConfig::default();
        let mut grew = BTreeSet::new();
        for (measure, m) in desired {
            if let Originator::Incident(id) = m.originator
                && m.since == self.now
                && !self.desired.contains_key(measure)
            {
                grew.insert(id);
            }
        }
        for id in grew {
            let before = self.grown.insert(id, self.now);
            let since = before.map_or(u64::MAX, |before| self.now.since(before));
            assert!(tight || since >= 5000, "{id}: rules changed twice within {since} ms");
        }
    }

    /// Where filtered traffic stays in sight, that alone never leads to a black hole: one that comes
    /// needs an attack that rules cannot cut to what fits.
    pub(super) fn check_holes(&self, desired: &BTreeMap<Measure, Mitigation>) {
        let told = self.config.link_limit_bits_per_sec.is_some();
        if !self.before_filter || !self.is_clean() || told || self.desired.is_empty() {
            return;
        }
        for (measure, m) in desired {
            let fresh = m.since == self.now && !self.desired.contains_key(measure);
            let Measure::Blackhole(net) = measure else { continue };
            let Some(front) = self.fronts.iter().find(|f| f.target == *net).filter(|_| fresh)
            else {
                continue;
            };
            let left = front.mbps * (1.0 - front.coverage);
            let enough = front.separable && front.collateral <= 0.01 && left < 800.0;
            assert!(!enough, "{measure} though rules would do: {front:?}");
        }
    }

    /// Where rules would do, no black hole comes while a router that could have one is away and has
    /// refused nothing.
    pub(super) fn check_away(&self, desired: &BTreeMap<Measure, Mitigation>) {
        let told = self.config.link_limit_bits_per_sec.is_some();
        if self.faults.operators || self.faults.lies || told {
            return;
        }
        for (measure, m) in desired {
            let fresh = m.since == self.now && !self.desired.contains_key(measure);
            let Measure::Blackhole(net) = measure else { continue };
            let Some(front) = self.fronts.iter().find(|f| f.target == *net).filter(|_| fresh)
            else {
                continue;
            };
            let left = front.mbps * (1.0 - front.coverage);
            let enough = front.separable
                && !front.harmful
                && front.collateral <= 0.01
                && front.coverage >= 0.5
                && left < 800.0;
            let away = self.peers.iter().find(|p| {
                let gone = p.down.is_some_and(|(since, _)| since < self.second);
                gone && p.takes_rules() && !p.said_no.contains(net)
            });
            if let Some(peer) = away.filter(|_| enough) {
                panic!("{measure} while {} is away: {front:?}", peer.name);
            }
        }
    }

    fn is_clean(&self) -> bool {
        !self.faults.operators && !self.faults.lies && !self.faults.peers
    }

    pub(super) fn check(&mut self) {
        let open: BTreeMap<IncidentId, Arc<Incident>> = self
            .mitigator
            .incidents()
            .filter(|i| i.state == IncidentState::Open)
            .map(|i| (i.id, Arc::clone(i)))
            .collect();
        let mut by_incident: BTreeMap<IncidentId, u32> = BTreeMap::new();
        let ttl = self.config.ttl_secs * 1000;
        for (measure, m) in &self.desired {
            check_scope(measure, &self.inventory);
            assert!(m.expires > self.now, "expired: {measure}");
            match &m.originator {
                Originator::Incident(id) => {
                    *by_incident.entry(*id).or_default() += 1;
                    assert!(open.contains_key(id), "{measure} without an open incident");
                    assert!(m.expires.since(self.now) <= ttl, "{measure} outlives its time");
                    assert_ne!(self.mitigator.mode(), Mode::Observe, "{measure} in observe mode");
                    self.check_signs_of_life(*id, &open[id], measure);
                }
                Originator::Operator(name) => assert!(!name.trim().is_empty()),
            }
        }
        assert!(self.desired.len() <= self.guard.max_total as usize);
        assert!(by_incident.values().all(|n| *n <= self.guard.max_per_incident));
        let holes = self.desired.keys().filter(|m| matches!(m, Measure::Blackhole(_))).count();
        assert!(holes <= self.guard.max_rtbh_total as usize);
        self.check_bounds();
        self.check_defence();
    }

    /// Some time after the last verdict that said the attack lives, nothing of it is left.
    pub(super) fn check_signs_of_life(
        &self,
        id: IncidentId,
        incident: &Incident,
        measure: &Measure,
    ) {
        let Some(last) = self.alive.get(&id) else { return };
        let holds: u64 = self.config.ladder.iter().map(|s| s.hold_secs.max(40)).sum();
        let hold = if incident.held { self.config.hold_max_secs } else { 0 };
        let longest = self.config.ttl_secs + holds + hold + 60;
        let since = self.now.since(*last) / 1000;
        assert!(since <= longest, "{measure} is left {since} s after {id}");
    }

    pub(super) fn check_bounds(&self) {
        let mut incidents = 0;
        for incident in self.mitigator.incidents() {
            incidents += 1;
            assert!(incident.timeline.len() <= weir_mitigator::TIMELINE_MAX);
            assert!(incident.mitigations.len() <= weir_mitigator::MITIGATIONS_MAX);
            let live = incident.mitigations.iter().filter(|m| m.ended.is_none()).count();
            assert!(incident.state == IncidentState::Open || live == 0, "a closed one has rules");
        }
        assert!(incidents <= self.config.max_incidents);
    }

    /// In a world without operators, liars and failing peers: what can be cut is being cut within
    /// a generation and a feedback.
    pub(super) fn check_defence(&mut self) {
        if !self.is_clean() {
            return;
        }
        let cut: Vec<bool> = self.fronts.iter().map(|f| self.is_cut(f)).collect();
        let targets: BTreeSet<IpNet> = self.desired.keys().map(Measure::target).collect();
        for (index, front) in self.fronts.iter_mut().enumerate() {
            let may = index < DEFENSIBLE
                && front.mbps >= 150.0
                && front.separable
                && !self.starved.contains(&(front.target, front.port))
                && front.coverage >= 0.5
                && front.confidence >= 70
                && front.collateral <= 0.01;
            let tried = targets.iter().any(|t| front.target.contains(t));
            front.undefended = if may && !cut[index] && !tried { front.undefended + 1 } else { 0 };
            assert!(front.undefended <= 16, "nothing is done for {}: {front:?}", front.target);
        }
    }

    /// All attacks stop, operators go home: in the end nothing is in force anywhere.
    pub(super) fn peace(&mut self) {
        for front in &mut self.fronts {
            front.mbps = 0.0;
            front.until = u64::MAX;
        }
        self.faults =
            Faults { operators: false, peers: false, clock: false, lies: false, kills: false };
        for _ in 0..700 {
            self.second += 1;
            self.now = self.now + 1000;
            self.detector();
            self.routers();
            self.turn();
            self.check();
            let closed = |i: &Arc<Incident>| i.state == IncidentState::Closed;
            if self.desired.is_empty() && self.mitigator.incidents().all(closed) {
                break;
            }
        }
        for _ in 0..5 {
            self.second += 1;
            self.now = self.now + 1000;
            self.routers();
            self.turn();
        }
        assert!(self.desired.is_empty(), "left for ever: {:?}", self.desired);
        assert!(self.mitigator.incidents().all(|i| i.state == IncidentState::Closed));
        for peer in self.peers.iter().filter(|p| p.is_up()) {
            assert!(peer.rib.is_empty(), "{} keeps {:?}", peer.name, peer.rib);
        }
        let live = self.mitigator.mitigations().filter(|m| m.state == MitigationState::Active);
        assert_eq!(live.count(), 0);
    }
}

/// The rules of the guard, spelled out once more.
fn check_scope(measure: &Measure, inventory: &Inventory) {
    let target = measure.target();
    assert!(inventory.protected.iter().any(|p| p.contains(&target)), "unprotected: {measure}");
    let touches = |n: IpNet| n.contains(&target) || target.contains(&n);
    assert!(!inventory.never_touch.iter().any(touches), "never touch: {measure}");
    let least = if matches!(target, IpNet::V4(_)) { 24 } else { 48 };
    assert!(target.prefix_len() >= least, "too wide: {measure}");
    if matches!(measure, Measure::Blackhole(_)) {
        assert_eq!(target.prefix_len(), target.max_prefix_len(), "too wide a hole: {measure}");
    }
}
