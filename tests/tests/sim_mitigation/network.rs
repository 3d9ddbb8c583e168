//! Routers that come and go and refuse, operators who interfere, a process that is killed.

use std::sync::Arc;

use weir_mitigator::{GuardConfig, Mitigator};
use weir_model::{
    Action, Command, Filter, Incident, IncidentId, Match, Measure, MitigationId, Mode, Originator,
    Range,
};

use super::{Peer, TARGETS, World, net};

impl World {
    /// Sessions come and go; routers apply, report, refuse.
    pub(super) fn routers(&mut self) {
        let (second, now) = (self.second, self.now);
        let mut reports = Vec::new();
        for peer in &mut self.peers {
            peer.pass(second, now, self.faults.peers, &mut self.rng, &mut reports);
        }
        for report in &reports {
            self.mitigator.observed(report);
        }
    }

    pub(super) fn operator(&mut self) {
        let by = (*self.rng.pick(&["eve", "mallory", ""])).to_owned();
        let ids: Vec<MitigationId> = self.mitigator.mitigations().map(|m| m.id).collect();
        let incidents: Vec<IncidentId> = self.mitigator.incidents().map(|i| i.id).collect();
        let mitigation = if ids.is_empty() { MitigationId(7) } else { *self.rng.pick(&ids) };
        let incident =
            if incidents.is_empty() { IncidentId(7) } else { *self.rng.pick(&incidents) };
        let target = net(TARGETS[usize::try_from(self.rng.below(8)).unwrap()]);
        let command = match self.rng.below(15) {
            0..=3 => Command::Approve { mitigation, by },
            4 => Command::Withdraw { mitigation, by },
            5 | 6 => Command::Hold { incident, on: self.rng.once_in(2), by },
            7 => Command::Add { measure: Measure::Blackhole(target), ttl_secs: 40, by },
            8 => {
                let mut packets = Match::to(target);
                packets.protocols = vec![17];
                packets.src_ports = vec![Range::exact(123)];
                let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
                Command::Add { measure, ttl_secs: *self.rng.pick(&[0, 40, 1 << 60]), by }
            }
            9 | 10 => {
                let mode = *self.rng.pick(&[Mode::Observe, Mode::Approve, Mode::Auto]);
                Command::SetMode { mode, by }
            }
            11 => Command::Skip { incident, by },
            13 => Command::Add { measure: Measure::Divert(target), ttl_secs: 40, by },
            12 => Command::StepDown { incident, by },
            _ => Command::Panic { by },
        };
        // Refusals are as good an answer as any.
        let _ = self.mitigator.command(&command, self.now);
        // What an operator moves is not held to the pace of the engine.
        self.grown.clear();
    }

    /// The process dies and comes back with what the store holds. The routers keep what they have
    /// for a while (graceful restart) or drop it at once.
    pub(super) fn kill(&mut self) {
        let down = *self.rng.pick(&[0, 1, 5, 30, 200]);
        self.now = self.now + down * 1000;
        let stored: Vec<Incident> = self.stored.values().cloned().collect();
        let before = std::mem::take(&mut self.desired);
        self.mitigator =
            Mitigator::new(self.config.clone(), self.guard.clone(), Arc::clone(&self.inventory));
        let known = self.peers.iter().map(Peer::known).collect();
        self.mitigator.set_peers(known, false);
        let second = self.second;
        self.peers.iter_mut().for_each(|peer| peer.restart(second));
        self.mitigator.restore_checkpoint(self.checkpoint.clone(), self.now);
        self.mitigator.restore(stored, self.now);
        let first = self.mitigator.advance(self.now).expect("the first state always leaves");
        self.grown.clear();
        self.take(&first);
        for (measure, m) in &self.desired {
            assert!(m.expires > self.now, "came back expired: {measure}");
        }
        for (measure, m) in &before {
            let Originator::Incident(id) = m.originator else { continue };
            // What a person said of the mode outlives the process.
            let wanted = m.expires > self.now && self.mitigator.mode() != Mode::Observe;
            let room = self.guard == GuardConfig::default()
                && self.stored.len() <= self.config.max_incidents
                && self.mitigator.left_out() == 0;
            // Rules that differ in their destinations alone may share an entry where routers are full.
            let shares = |entry: &Measure| match (entry, measure) {
                (Measure::FlowSpec(entry), Measure::FlowSpec(rule)) => {
                    let packets = Match { dst: rule.packets.dst, ..entry.packets.clone() };
                    entry.packets.dst.contains(&rule.packets.dst)
                        && (entry.action, packets) == (rule.action, rule.packets.clone())
                }
                _ => false,
            };
            let stands = self.desired.contains_key(measure) || self.desired.keys().any(shares);
            assert!(!wanted || !room || stands, "{measure} of {id} was forgotten");
        }
        // The detector may have forgotten, too, and then speaks of it under a new number.
        let forgets = self.rng.once_in(3);
        for front in &mut self.fronts {
            front.undefended = 0;
            if forgets {
                front.incident = None;
            }
        }
    }
}
