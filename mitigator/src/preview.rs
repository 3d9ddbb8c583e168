//! What would happen: a command carried out on a copy, and the difference.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_bgp::guard::{discards_everything, route};
use weir_model::{
    Command, CommandError, DryRun, Filter, Match, Measure, Millis, Mitigation, MitigationState,
    Range, Service, Verdict,
};

use crate::Mitigator;
use crate::entry::Life;

/// Services named in a dry run.
const SERVICES_MAX: usize = 64;

impl Mitigator {
    /// What a command would change if it were given now, with the attacks as they were last seen.
    ///
    /// # Errors
    /// As [`Mitigator::command`].
    pub fn dry_run(&self, command: &Command, now: Millis) -> Result<DryRun, CommandError> {
        let mut copy = self.clone();
        copy.advance(now);
        let before = copy.in_force();
        copy.command(command, now)?;
        let mut now = now;
        if let Command::SetMode { .. } | Command::FollowFile { .. } = command {
            // A change of mode shows with the next generation of rules.
            now = now + self.config.step_ms();
            for verdict in copy.living() {
                copy.verdict(&verdict, now);
            }
        }
        copy.advance(now);
        let after = copy.in_force();
        let adds: Vec<Measure> = after.difference(&before).cloned().collect();
        Ok(DryRun {
            normal_share: copy.normal_share(&adds),
            services: copy.services_touched(&adds),
            removes: before.difference(&after).cloned().collect(),
            adds,
        })
    }

    fn in_force(&self) -> BTreeSet<Measure> {
        self.desired.mitigations.iter().map(|m| m.measure.clone()).collect()
    }

    fn living(&self) -> Vec<Verdict> {
        let alive = self.entries.values().filter(|e| e.life == Life::Alive);
        alive.map(|e| e.incident.verdict.clone()).collect()
    }

    /// The worst share of normal traffic over the targets; unknown as soon as one is.
    fn normal_share(&self, measures: &[Measure]) -> Option<f64> {
        let mut by_target: BTreeMap<IpNet, f64> = BTreeMap::new();
        for measure in measures {
            *by_target.entry(measure.target()).or_default() += self.share_hit(measure)?;
        }
        Some(by_target.into_values().fold(0.0, f64::max).min(1.0))
    }

    /// What the detector measured for this match, here or as a candidate of a living attack.
    fn share_hit(&self, measure: &Measure) -> Option<f64> {
        match measure {
            Measure::Scrub(_) | Measure::Divert(_) => return Some(0.0),
            measure if discards_everything(measure) => return Some(1.0),
            _ => {}
        }
        let wanted = route(measure);
        self.entries.values().find_map(|entry| {
            let chosen = entry.measured.values().find(|p| route(&p.measure) == wanted);
            let candidates = &entry.incident.verdict.candidates;
            let is_it = |packets: &Match| match measure {
                Measure::FlowSpec(filter) => filter.packets == *packets,
                _ => false,
            };
            chosen
                .map(|p| p.collateral)
                .or_else(|| candidates.iter().find(|c| is_it(&c.packets)).map(|c| c.collateral))
        })
    }

    fn services_touched(&self, measures: &[Measure]) -> Vec<Service> {
        let touched = |s: &&Service| measures.iter().any(|m| may_touch(m, s));
        let services = &self.guard.inventory().services;
        services.iter().filter(touched).take(SERVICES_MAX).cloned().collect()
    }

    /// Measures that wait for approval, with what each would change.
    pub fn proposals(&self, now: Millis) -> Vec<(Mitigation, DryRun)> {
        let waiting = self.mitigations().filter(|m| m.state == MitigationState::Proposed);
        waiting
            .filter_map(|m| {
                let by = "dry run".to_owned();
                let approve = Command::Approve { mitigation: m.id, by };
                Some((m.clone(), self.dry_run(&approve, now).ok()?))
            })
            .collect()
    }
}

/// Whether a measure can hit packets of a service: only what surely cannot is left out.
fn may_touch(measure: &Measure, service: &Service) -> bool {
    let address = IpNet::from(service.address);
    match measure {
        Measure::Blackhole(net) => net.contains(&address),
        Measure::Scrub(_) | Measure::Divert(_) => false,
        Measure::FlowSpec(Filter { packets, .. }) => {
            let port = |ranges: &[Range]| {
                ranges.is_empty() || ranges.iter().any(|r| r.contains(service.port))
            };
            packets.dst.contains(&address)
                && (packets.protocols.is_empty() || packets.protocols.contains(&service.protocol))
                && port(&packets.dst_ports)
        }
    }
}
