//! Agents as the API shows them.

use std::sync::Arc;

use weir_agent::protocol::RuleState;
use weir_agent::server::Server;
use weir_api::AgentView;

/// Failed rules that are named at most, a node.
const FAILURES_MAX: usize = 20;

/// Nodes with agents, by name.
pub(crate) fn agents(server: &Arc<Server>) -> Vec<AgentView> {
    let controller = server.controller();
    let state = controller.state();
    let view = |(name, node): (&String, &weir_agent::controller::Node)| {
        let report = node.report.as_ref();
        let rules = report.map(|report| report.rules.as_slice()).unwrap_or_default();
        let failed = rules.iter().filter(|rule| rule.state != RuleState::Applied);
        let failure = |rule: &weir_agent::protocol::RuleReport| {
            format!("{}: {}", rule.id, rule.why.as_deref().unwrap_or("not in force"))
        };
        AgentView {
            name: name.clone(),
            agent: report.map(|report| report.agent.clone()),
            addresses: node.addresses.clone(),
            joined: node.joined,
            last_seen: node.last_seen,
            level: report.map(|report| report.level.clone()),
            current: report.is_some_and(|r| (r.epoch, r.version) == (state.epoch, node.version)),
            rules: rules.iter().filter(|rule| rule.state == RuleState::Applied).count(),
            dropped_packets: rules.iter().map(|rule| rule.dropped.packets).sum(),
            failures: failed.take(FAILURES_MAX).map(failure).collect(),
        }
    };
    state.nodes.iter().map(view).collect()
}
