//! What nodes say of themselves.

use weir_model::{Direction, IpNet, Match, Millis};

use super::{Controller, EVENTS_MAX, Node};
use crate::protocol::{Report, RuleReport, RuleState};
use crate::rules::{NodeAction, Rule};

/// How long the rule of a test stands.
pub(super) const TEST_MS: u64 = 15_000;

/// Refusals remembered of each node.
const REFUSED_MAX: usize = 256;

/// How far ahead of the appliance's clock an epoch may be before it is no epoch, seconds: epochs begin at the
/// clock's time, and clocks have been years ahead.
pub(super) const EPOCH_AHEAD_SECS: u64 = 10 * 366 * 86_400;

/// How long a rule that a node refused is not tried again.
const REFUSED_MS: u64 = 600_000;

/// Where the rule of a test points: documentation addresses (RFC 5737), so that no packet ever meets it.
const TEST_TARGET: &str = "192.0.2.1/32";

impl Controller {
    /// Takes a node's report. Returns whether the node's snapshot is new because of it.
    pub fn report(&mut self, name: &str, mut report: Report, now: Millis) -> bool {
        report.cut();
        let claimed = std::mem::take(&mut report.addresses);
        let known = self.state.nodes.get(name);
        let moved = known.is_some_and(|n| n.claimed != claimed || !n.withheld.is_empty());
        let moved = moved && !claimed.is_empty() && self.settle(name, &claimed, now);
        let epoch_now = self.state.epoch;
        let Some(node) = self.state.nodes.get_mut(name) else { return false };
        let epoch_now = epoch_now.max(node.epoch);
        node.last_seen = Some(now);
        node.events.append(&mut report.events);
        let surplus = node.events.len().saturating_sub(EVENTS_MAX);
        node.events.drain(..surplus);
        note_refusals(node, &report, now);
        let test = report.test.take();
        let possible = report.epoch <= now.secs().saturating_add(EPOCH_AHEAD_SECS);
        let ahead = possible && (report.epoch, report.version) > (epoch_now, node.version);
        let epoch = report.epoch;
        node.report = Some(report);
        // One at a time: each is a new version for this node.
        if let Some(id) = test.filter(|_| node.test.is_none()) {
            let rule = test_rule(id, now);
            if rule.check().is_ok() {
                node.test = Some(rule.clone());
                node.wanted.rules.push(rule);
                node.version += 1;
            }
        }
        if ahead {
            // This state is older than the node's: count on from an epoch that it has not seen. Of this node
            // alone: what one says of its versions is no other's business.
            node.epoch = epoch.max(now.secs()).saturating_add(1);
        }
        moved || ahead || node.test.is_some()
    }
}

/// Remembers what a node cannot do, so that it gets something else instead of the same every second.
fn note_refusals(node: &mut Node, report: &Report, now: Millis) {
    node.refused.retain(|_, until| *until > now);
    let instead = |r: &&RuleReport| r.state == RuleState::Refused && r.id.contains('.');
    for rule in report.rules.iter().filter(instead) {
        if node.refused.len() < REFUSED_MAX {
            node.refused.insert(rule.id.clone(), now + REFUSED_MS);
        }
    }
}

fn test_rule(id: String, now: Millis) -> Rule {
    let target = TEST_TARGET.parse().unwrap_or_else(|_| IpNet::V4(weir_model::Ipv4Net::default()));
    Rule {
        id,
        direction: Direction::Inbound,
        packets: Match::to(target),
        action: NodeAction::Drop,
        spare_learned: false,
        expires: Some(now + TEST_MS),
    }
}
