//! From what is wanted to what is in force.

use super::desired::Local;
use super::{Daemon, look, now};
use crate::config::{Config, Learn};
use crate::enforcer::shaper::Shaper;
use crate::enforcer::{self, Applied, Enforcer};
use crate::safety::ssh_peers;

/// The backends that the configuration asks for and this host has.
pub(super) fn open_enforcer(
    config: &Config,
    abilities: &mut Vec<String>,
    missing: &mut Vec<String>,
) -> (Option<Box<dyn Enforcer>>, Option<Shaper>) {
    let enforcer = match enforcer::open(config.backend) {
        Ok(enforcer) => {
            abilities.push(enforcer.name().to_owned());
            Some(enforcer)
        }
        Err(error) => {
            missing.push(format!("rules: {error}: needs CAP_NET_ADMIN"));
            None
        }
    };
    let uplink = look::interfaces(config).into_iter().next();
    let shaper = match uplink.filter(|_| config.shape && enforcer.is_some()).as_deref() {
        Some(uplink) => match Shaper::open(uplink) {
            Ok(shaper) => {
                abilities.push("shape".to_owned());
                Some(shaper)
            }
            Err(error) => {
                missing.push(format!("shaping: {error}"));
                None
            }
        },
        None => None,
    };
    (enforcer, shaper)
}

/// Shapes what can be shaped; which rules those are, and the program of the others.
fn shape(
    shaper: Option<&mut Shaper>,
    program: &enforcer::Program,
) -> (Vec<String>, enforcer::Program) {
    let mut rest = program.clone();
    let Some(shaper) = shaper else { return (Vec::new(), rest) };
    let wanted: Vec<&crate::rules::Rule> =
        program.rules.iter().filter(|r| Shaper::is_for(r)).collect();
    // What tc refuses, one rule or all, is policed by the main backend.
    let Ok(refused) = shaper.apply(&wanted) else { return (Vec::new(), rest) };
    let shaped = wanted.iter().map(|r| r.id.clone());
    let shaped: Vec<String> =
        shaped.filter(|id| !refused.iter().any(|refusal| refusal.rule == *id)).collect();
    rest.rules.retain(|r| !shaped.contains(&r.id));
    (shaped, rest)
}

impl Daemon {
    pub(super) fn local(&self) -> Local {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut management = self.config.management.clone();
        management.extend(&self.appliance);
        management.extend(ssh_peers(&read("/proc/net/tcp"), self.config.ssh_port));
        management.extend(ssh_peers(&read("/proc/net/tcp6"), self.config.ssh_port));
        let entries = read("/proc/sys/net/netfilter/nf_conntrack_count");
        let tracked = entries.trim().parse::<u64>().is_ok_and(|n| n > 0);
        let learn = match self.config.learn {
            Learn::On => true,
            Learn::Off => false,
            Learn::Auto => tracked,
        };
        let now = now();
        let out = self.desired.names().filter(|id| self.rollback.is_out(id, now));
        let out = out.map(str::to_owned).collect();
        Local { management, learn, tracked, level: self.levels.level(), out }
    }

    pub(super) fn program(&mut self) -> enforcer::Program {
        let mut program = self.desired.program(&self.local(), now());
        let limit = self.config.egress_limit.filter(|_| !self.desired.paused);
        self.containers.complete(&mut program, limit);
        program
    }

    /// Makes the kernel have what is wanted.
    pub(super) fn put_in_force(&mut self, repair: bool) {
        let program = self.program();
        self.sight.program = program.clone();
        let Some(enforcer) = &mut self.enforcer else {
            let refuse = |r: &crate::rules::Rule| enforcer::Refusal {
                rule: r.id.clone(),
                why: "this agent may not change rules".to_owned(),
            };
            let refused = program.rules.iter().map(refuse).collect();
            self.applied = Applied { rules: Vec::new(), refused };
            return;
        };
        let (shaped, rest) = shape(self.shaper.as_mut(), &program);
        let outcome = enforcer.apply(&rest, now(), repair);
        match outcome {
            Ok(mut applied) => {
                applied.rules.extend(shaped);
                self.rollback.in_force(&applied.rules, now());
                for refusal in &applied.refused {
                    if !self.applied.refused.contains(refusal) {
                        self.event("refused", format!("rule {}: {}", refusal.rule, refusal.why));
                    }
                }
                self.applied = applied;
            }
            Err(error) => self.event("refused", format!("nothing could be applied: {error}")),
        }
    }
}
