//! The appliance's side: which nodes there are, who they are, what each is to have.
//!
//! Pure: time and secrets are arguments, the state is data that its owner stores. Versions never fall: a state
//! from a backup that meets a node which is ahead of it starts a new epoch.

mod addresses;
mod handover;
mod joining;
mod reports;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;
use weir_model::{IpNet, Millis, Mitigation};

pub use self::addresses::ADDRESSES_MAX;
pub use self::handover::{AWAY_MS, HandOver, Policy, Situation};
pub use self::joining::{Caller, JoinError, Stranger, TOKENS_MAX};
pub use self::state::{Node, State, Ticket, Wanted, Withheld, rule_id, rule_report};

use crate::protocol::{
    Block, Body, Envelope, Lease, Refused, RuleState, Signer, Snapshot, Stamp, hex, unhex,
};
use crate::rules::{self, NodeAction, Rule};

/// How long a node's rules hold without word from the appliance.
pub const LEASE_MS: u64 = 120_000;

/// How often leases are renewed.
pub const RENEW_MS: u64 = 20_000;

/// Most nodes.
pub const NODES_MAX: usize = 10_000;

/// Sources remembered after they were let in again, so that bouncers hear of it.
const UNBLOCKED_MAX: usize = 10_000;

/// Incidents remembered of which a node was told: it may send packets of these.
const TOLD_MAX: usize = 32;

/// Abilities that put rules in force.
const ENFORCERS: [&str; 2] = ["nft", "iptables"];

/// Events kept of each node.
const EVENTS_MAX: usize = 200;

/// What every node gets beside its own rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Common {
    /// Sources that no rule touches.
    pub allow: Vec<IpNet>,
    /// Sources kept out.
    pub blocked: Vec<Block>,
    /// One in how many packets is sampled; 0: none.
    pub sampling: u32,
}

/// Nodes and what each is to have.
#[derive(Debug)]
pub struct Controller {
    signer: Signer,
    state: State,
    /// Sources kept out everywhere.
    blocked: Vec<Block>,
    /// Sources that no longer are, the latest last, bounded.
    unblocked: VecDeque<Block>,
}

impl Controller {
    /// Goes on from a stored state, or begins.
    ///
    /// # Errors
    /// When the stored key is none, or there is no randomness for a new one.
    pub fn new(mut state: State, now: Millis) -> Result<Self, Refused> {
        let signer = if state.signing_key.is_empty() {
            let signer = Signer::generate()?;
            state.signing_key = hex(signer.pkcs8());
            state.epoch = now.secs();
            signer
        } else {
            let key = unhex(&state.signing_key);
            Signer::from_pkcs8(&key.ok_or_else(|| Refused::Form("not hexadecimal".into()))?)?
        };
        Ok(Self { signer, state, blocked: Vec::new(), unblocked: VecDeque::new() })
    }

    /// The key that nodes pin, in hexadecimal.
    pub fn public_key(&self) -> String {
        self.signer.public_key()
    }

    /// What is to be stored.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Works out what each node is to have; returns the names of those for which it is new.
    pub fn desire(&mut self, situation: &Situation<'_>, now: Millis) -> Vec<String> {
        let blocked = situation.blocked(now);
        let kept_out = |b: &Block| blocked.iter().any(|c| c.source == b.source);
        let gone = self.blocked.iter().filter(|b| b.until > now && !kept_out(b));
        self.unblocked.extend(gone.map(|b| Block { until: now, ..*b }));
        self.unblocked.retain(|b| !kept_out(b));
        let surplus = self.unblocked.len().saturating_sub(UNBLOCKED_MAX);
        self.unblocked.drain(..surplus);
        let mut changed = Vec::new();
        for (name, node) in &mut self.state.nodes {
            if node.test.as_ref().is_some_and(|t| t.expires.is_none_or(|e| e <= now)) {
                node.test = None;
            }
            let mut wanted = wanted(node, situation, &blocked, now);
            steady(&node.wanted.rules, &mut wanted.rules);
            if let Some(incident) = wanted.incident.filter(|i| !node.told.contains(i)) {
                node.told.push_back(incident);
                let surplus = node.told.len().saturating_sub(TOLD_MAX);
                node.told.drain(..surplus);
            }
            if wanted != node.wanted {
                node.wanted = wanted;
                node.version += 1;
                changed.push(name.clone());
            }
        }
        self.blocked = blocked;
        changed
    }

    /// Whether a node that is there has a measure in force, or is about to.
    pub fn defends(&self, mitigation: &Mitigation, now: Millis) -> bool {
        let Some(address) = rules::host(mitigation.measure.target()) else { return false };
        self.state.nodes.values().any(|node| {
            let here = node.last_seen.is_some_and(|at| now.since(at) < AWAY_MS);
            let Some(report) = node.report.as_ref().filter(|_| here) else { return false };
            let enforces = report.abilities.iter().any(|a| ENFORCERS.contains(&a.as_str()));
            enforces
                && node.addresses.contains(&address)
                && node.owns(address)
                && match node.rule_report(mitigation) {
                    Some(rule) => rule.state == RuleState::Applied,
                    None => handover::in_grace(mitigation, now),
                }
        })
    }

    /// The snapshot for a node, signed.
    ///
    /// # Errors
    /// [`Refused::Node`] when there is no such node.
    pub fn snapshot(&self, name: &str, now: Millis) -> Result<Envelope, Refused> {
        let node = self.node(name)?;
        let w = &node.wanted;
        let raw = |rule| serde_json::value::to_raw_value(rule);
        let rules: Result<Vec<Box<RawValue>>, _> = w.rules.iter().map(raw).collect();
        self.signer.sign(&Body::Snapshot(Snapshot {
            stamp: self.stamp(name, node, now),
            rules: rules.map_err(|e| Refused::Form(e.to_string()))?,
            allow: w.allow.clone(),
            services: w.services.clone(),
            blocked: w.blocked.clone(),
            sampling: w.sampling,
            incident: w.incident,
            targets: w.targets.clone(),
        }))
    }

    /// A longer lease for what a node has, signed.
    ///
    /// # Errors
    /// [`Refused::Node`] when there is no such node.
    pub fn lease(&self, name: &str, now: Millis) -> Result<Envelope, Refused> {
        let node = self.node(name)?;
        self.signer.sign(&Body::Lease(Lease { stamp: self.stamp(name, node, now) }))
    }

    /// Epoch and version of what a node is to have, as an entity tag.
    pub fn etag(&self, name: &str) -> Option<String> {
        let node = self.state.nodes.get(name)?;
        Some(format!("\"{}.{}\"", self.state.epoch_of(node), node.version))
    }

    /// Whether a node was told of an incident, so that its packets may be of it.
    pub fn was_told(&self, name: &str, incident: weir_model::IncidentId) -> bool {
        self.state.nodes.get(name).is_some_and(|n| n.told.contains(&incident))
    }

    /// Sources kept out everywhere, for bouncers: those blocked now, and those that were until lately.
    pub fn decisions(&self, now: Millis) -> (Vec<Block>, Vec<Block>) {
        let (blocked, lapsed) = self.blocked.iter().copied().partition(|b: &Block| b.until > now);
        let mut deleted: Vec<Block> = lapsed;
        deleted.extend(&self.unblocked);
        (blocked, deleted)
    }

    /// Nodes by name.
    pub const fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.state.nodes
    }

    fn node(&self, name: &str) -> Result<&Node, Refused> {
        self.state.nodes.get(name).ok_or_else(|| Refused::Node(name.to_owned()))
    }

    fn stamp(&self, name: &str, node: &Node, now: Millis) -> Stamp {
        Stamp {
            node: name.to_owned(),
            epoch: self.state.epoch_of(node),
            version: node.version,
            issued_at: now,
            not_after: now + LEASE_MS,
        }
    }
}

/// Keeps limits that were worked out from what is normal as they stand while the new estimate is within a factor
/// of two: it is another number each second, and each new version begins a bucket anew.
fn steady(before: &[Rule], now: &mut [Rule]) {
    for rule in now {
        let NodeAction::RatePackets { packets_per_sec: new } = rule.action else { continue };
        let is_it = |old: &&Rule| {
            old.id == rule.id && old.packets == rule.packets && old.direction == rule.direction
        };
        let Some(old) = before.iter().find(is_it) else { continue };
        let NodeAction::RatePackets { packets_per_sec: stands } = old.action else { continue };
        // A mitigation's limit is the ladder's and is what was approved.
        if rule.id.starts_with('i') && new >= stands / 2 && new <= stands.saturating_mul(2) {
            rule.action = old.action;
        }
    }
}

fn wanted(node: &Node, situation: &Situation<'_>, blocked: &[Block], now: Millis) -> Wanted {
    let refused = |id: &str| node.refused.get(id).is_some_and(|until| *until > now);
    let work = situation.work(&node.addresses, &refused, now);
    let mut rules = work.rules;
    rules.extend(node.test.clone());
    rules::sort(&mut rules);
    rules.truncate(rules::RULES_MAX);
    let own = situation.services.iter().filter(|s| node.addresses.contains(&s.address));
    let services = own.map(|s| crate::protocol::Service {
        address: s.address,
        protocol: s.protocol,
        port: s.port,
    });
    Wanted {
        rules,
        allow: situation.common.allow.clone(),
        services: services.collect(),
        blocked: blocked.to_vec(),
        sampling: situation.common.sampling,
        incident: work.incident,
        targets: work.targets,
    }
}
