//! Agents on nodes, for people.

use std::fmt::Write as _;

use weir_agent::controller::{Node, State};
use weir_agent::protocol::RuleState;
use weir_model::Millis;

/// A node without word for so long is shown as away: it reports every ten seconds at least.
const AWAY_SECS: u64 = 30;

/// One line a node, and one a rule that is not in force.
pub fn table(state: &State, now: Millis) -> String {
    if state.nodes.is_empty() {
        return "no node has joined yet; create a token: weir agents --token\n".to_owned();
    }
    let mut text = format!(
        "{:<20} {:<8} {:<6} {:<12} {:>8} {:>7} {:>7}  {}\n",
        "NODE", "AGENT", "STATE", "LEVEL", "VERSION", "RULES", "NOT", "ADDRESSES"
    );
    for (name, node) in &state.nodes {
        let seen = node.last_seen.map(|at| now.since(at) / 1000);
        let alive = if seen.is_some_and(|s| s < AWAY_SECS) { "up" } else { "away" };
        let report = node.report.as_ref();
        let rules = report.map(|r| r.rules.as_slice()).unwrap_or_default();
        let applied = rules.iter().filter(|r| r.state == RuleState::Applied).count();
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        let version = match report {
            Some(r) if (r.epoch, r.version) == (state.epoch_of(node), node.version) => "current",
            Some(_) => "behind",
            None => "none",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<20} {:<8} {alive:<6} {:<12} {version:>8} {applied:>7} {:>7}  {}",
            report.map_or("-", |r| r.agent.as_str()),
            report.map_or("-", |r| r.level.as_str()),
            rules.len() - applied,
            addresses.join(" ")
        );
        for trouble in troubles(node) {
            let _ = writeln!(text, "  {trouble}");
        }
        for rule in rules.iter().filter(|r| r.state != RuleState::Applied) {
            let _ = writeln!(
                text,
                "  {} {:?}: {}",
                rule.id,
                rule.state,
                rule.why.as_deref().unwrap_or("-")
            );
        }
    }
    text
}

/// Clocks that differ by more are told of, seconds.
const SKEW_SECS_MAX: u64 = 5;

/// What is wrong with a node as a whole, in a sentence each.
pub fn troubles(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(report) = &node.report {
        if let Some(why) = &report.not_taken {
            found.push(format!("takes no rules: {why}"));
        }
        let secs = report.skew_ms.unsigned_abs() / 1000;
        if secs > SKEW_SECS_MAX {
            let way = if report.skew_ms > 0 { "ahead" } else { "behind" };
            found.push(format!("its clock is {secs} s {way}; times are counted from this one's"));
        }
    }
    let withheld = node.withheld.iter();
    found.extend(withheld.map(|w| format!("does not get {}: {}", w.address, w.why)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_how_to_begin() {
        assert!(table(&State::default(), Millis(0)).contains("--token"));
    }
}
