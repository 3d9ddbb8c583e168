//! The documents.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::{IncidentId, IpNet, Millis};

use super::Stamp;
use crate::enforcer::Count;
use crate::rules::{RULES_MAX, Rule};

/// What an envelope holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Everything that the node is to have.
    Snapshot(Snapshot),
    /// The snapshot in force holds for longer.
    Lease(Lease),
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.stamp() == other.stamp()
    }
}

impl Body {
    /// What names the document.
    pub const fn stamp(&self) -> &Stamp {
        match self {
            Self::Snapshot(s) => &s.stamp,
            Self::Lease(l) => &l.stamp,
        }
    }
}

/// The snapshot in force holds for longer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Version renewed and its new end.
    pub stamp: Stamp,
}

/// A service on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// The address that players know, before any NAT.
    pub address: IpAddr,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Port.
    pub port: u16,
}

/// A source that is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    /// The address or prefix.
    pub source: IpNet,
    /// Until when, on the appliance's clock.
    pub until: Millis,
}

/// Everything that a node is to have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose it is, how new, how long it holds.
    pub stamp: Stamp,
    /// Rules, in the order in which they apply. Read one by one with [`read_rules`]: one that this agent does
    /// not understand costs only itself.
    #[serde(default)]
    pub rules: Vec<Box<RawValue>>,
    /// Sources that no rule touches.
    #[serde(default)]
    pub allow: Vec<IpNet>,
    /// Services of this node.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Sources kept out.
    #[serde(default)]
    pub blocked: Vec<Block>,
    /// One in how many packets is sampled for sFlow; 0: none.
    #[serde(default)]
    pub sampling: u32,
    /// The incident under way on this node, if any: its packets are kept.
    #[serde(default)]
    pub incident: Option<IncidentId>,
    /// Addresses under attack in it.
    #[serde(default)]
    pub targets: Vec<IpAddr>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            stamp: Stamp {
                node: String::new(),
                epoch: 0,
                version: 0,
                issued_at: Millis(0),
                not_after: Millis(0),
            },
            rules: Vec::new(),
            allow: Vec::new(),
            services: Vec::new(),
            blocked: Vec::new(),
            sampling: 0,
            incident: None,
            targets: Vec::new(),
        }
    }
}

/// A rule that could not be read or makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule {
    /// Its identifier, or its place in the list when it has none.
    pub id: String,
    /// Why.
    pub why: String,
}

/// Names of the components of a match that this agent knows: a component it does not know would make the rule
/// wider than meant, so the rule is refused.
const COMPONENTS: [&str; 11] = [
    "dst",
    "src",
    "protocols",
    "dst_ports",
    "src_ports",
    "icmp_types",
    "icmp_codes",
    "tcp_flags",
    "lengths",
    "dscps",
    "fragment",
];

/// Reads the rules of a snapshot: those that can be used, in order, and the others.
pub fn read_rules(rules: &[Box<RawValue>]) -> (Vec<Rule>, Vec<BadRule>) {
    let mut good: Vec<Rule> = Vec::new();
    let mut bad = Vec::new();
    for (place, raw) in rules.iter().enumerate() {
        let name = || {
            let value: Option<serde_json::Value> = serde_json::from_str(raw.get()).ok();
            let id = value.as_ref().and_then(|v| v["id"].as_str()).map(str::to_owned);
            id.unwrap_or_else(|| format!("#{place}"))
        };
        if place >= RULES_MAX {
            bad.push(BadRule { id: name(), why: format!("more than {RULES_MAX} rules") });
            continue;
        }
        match read_rule(raw.get()) {
            Ok(rule) if good.iter().any(|r| r.id == rule.id) => {
                bad.push(BadRule { id: rule.id, why: "the identifier is there already".into() });
            }
            Ok(rule) => good.push(rule),
            Err(why) => bad.push(BadRule { id: name(), why }),
        }
    }
    (good, bad)
}

fn read_rule(text: &str) -> Result<Rule, String> {
    #[derive(Deserialize)]
    struct Components {
        packets: serde_json::Map<String, serde_json::Value>,
    }
    let rule: Rule = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let Components { packets } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if let Some(unknown) = packets.keys().find(|k| !COMPONENTS.contains(&k.as_str())) {
        return Err(format!("this agent does not know the component {unknown}"));
    }
    rule.check().map_err(|e| e.to_string())?;
    Ok(Rule { packets: rule.packets.normalise(), ..rule })
}

/// A node wants to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// The one-time token.
    pub token: String,
    /// What the node calls itself.
    pub name: String,
    /// Version of the agent.
    pub agent: String,
    /// Addresses of the node's interfaces.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// This machine is to take the place of the one that has this name and is up.
    #[serde(default)]
    pub replace: bool,
}

/// A node has joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Its name from now on.
    pub node: String,
    /// Its bearer token.
    pub bearer: String,
    /// The key that documents are signed with, in hexadecimal.
    pub signing_key: String,
}

/// How a rule fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleState {
    /// In force.
    Applied,
    /// Waits for the node's own administrator.
    Staged,
    /// Not possible here; the text says why.
    Refused,
    /// Taken out by the node because the service stopped answering.
    RolledBack,
}

/// One rule's fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// The rule.
    pub id: String,
    /// How it fares.
    pub state: RuleState,
    /// Why, when it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Discarded by it.
    #[serde(default)]
    pub dropped: Count,
    /// Met it and passed.
    #[serde(default)]
    pub passed: Count,
}

/// One service's traffic since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// The service.
    #[serde(flatten)]
    pub service: Service,
    /// Came in, before any rule.
    pub received: Count,
    /// Went out.
    pub answered: Count,
}

/// The node's own health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStats {
    /// Entries in the connection table.
    pub conntrack: u64,
    /// Entries it can hold; 0 when there is none.
    pub conntrack_max: u64,
    /// Packets that the kernel had no time for, since boot.
    pub softnet_dropped: u64,
    /// Share of the last 10 s in which some task waited for the processor, percent.
    pub cpu_pressure: f64,
    /// The same for memory, percent.
    pub memory_pressure: f64,
    /// The same for disks, percent.
    pub io_pressure: f64,
    /// Octets received by all interfaces but loopback, since boot.
    pub rx_bytes: u64,
    /// Packets received by all interfaces but loopback, since boot.
    pub rx_packets: u64,
    /// Octets sent by all interfaces but loopback, since boot.
    pub tx_bytes: u64,
    /// Packets sent by all interfaces but loopback, since boot.
    pub tx_packets: u64,
}

/// Something that happened on the node; kept on disk while the appliance cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, on the node's clock.
    pub at: Millis,
    /// What, as a closed word: `level`, `rollback`, `repaired`, `refused`, `capture`, `lapsed`, ...
    pub kind: String,
    /// In a sentence.
    pub text: String,
}

/// What a node tells the appliance: after each version, and every few seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The node.
    pub node: String,
    /// Version of the agent.
    pub agent: String,
    /// When, on the node's clock.
    pub at: Millis,
    /// Epoch of the snapshot in force.
    pub epoch: u64,
    /// Version of the snapshot in force.
    pub version: u64,
    /// Addresses of the node's interfaces; empty from an agent that does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The node's clock minus the appliance's, milliseconds; 0 when they agree.
    #[serde(default)]
    pub skew_ms: i64,
    /// Why the last document was not taken; `None` when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_taken: Option<String>,
    /// Milliseconds from the snapshot's arrival to its being in force; 0 when it is not new.
    #[serde(default)]
    pub apply_ms: u64,
    /// Level of defence: `normal`, `elevated`, `constrained`, `emergency`.
    pub level: String,
    /// What this agent is able to do here: `nft`, `capture`, `sample`, ...
    pub abilities: Vec<String>,
    /// Other programs there that write firewall rules, in a sentence each.
    #[serde(default)]
    pub neighbours: Vec<String>,
    /// Rules and their fate.
    #[serde(default)]
    pub rules: Vec<RuleReport>,
    /// Services and their traffic.
    #[serde(default)]
    pub services: Vec<ServiceStats>,
    /// Game servers in containers and what they send.
    #[serde(default)]
    pub containers: Vec<crate::contain::ContainerStats>,
    /// The node's own health.
    #[serde(default)]
    pub stats: NodeStats,
    /// What happened since the last report that got through.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Asks the appliance for a synthetic rule with this name, to prove the way there and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}

/// Most of each list of a report, and octets of each of its texts: what a node says is kept and shown, and a node
/// may be anybody's.
const LIST_MAX: usize = 2 * RULES_MAX;
const EVENTS_MAX: usize = 200;
const TEXT_MAX: usize = 512;

impl Report {
    /// Cuts what is longer than any agent's report.
    pub fn cut(&mut self) {
        let text = |text: &mut String| {
            let end = (0..=TEXT_MAX.min(text.len())).rfind(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
        };
        for word in [&mut self.node, &mut self.agent, &mut self.level] {
            text(word);
        }
        for list in [&mut self.abilities, &mut self.neighbours] {
            list.truncate(64);
            list.iter_mut().for_each(text);
        }
        self.rules.truncate(LIST_MAX);
        for rule in &mut self.rules {
            text(&mut rule.id);
            rule.why.iter_mut().for_each(text);
        }
        self.services.truncate(LIST_MAX);
        self.containers.truncate(LIST_MAX);
        self.events.truncate(EVENTS_MAX);
        for event in &mut self.events {
            text(&mut event.kind);
            text(&mut event.text);
        }
        self.not_taken.iter_mut().for_each(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::{FlagMatch, FragmentMatch, Match, Range};

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn one_rule_that_is_not_understood_costs_only_itself() {
        let rules = [
            raw(r#"{"id":"a","packets":{"dst":"203.0.113.7/32"},"action":"drop"}"#),
            raw(
                r#"{"id":"b","packets":{"dst":"203.0.113.7/32","flow_label":[1]},"action":"drop"}"#,
            ),
            raw(r#"{"id":"c","packets":{"dst":"203.0.113.7/32"},"action":"explode"}"#),
            raw(r#"{"id":"a","packets":{"dst":"203.0.113.8/32"},"action":"drop"}"#),
            raw(
                r#"{"id":"d","packets":{"dst":"203.0.113.7/32"},"action":{"rate-packets":{"packets_per_sec":9}},"expires":5}"#,
            ),
            raw(r#"[1]"#),
        ];
        let (good, bad) = read_rules(&rules);
        assert_eq!(good.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(bad.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["b", "c", "a", "#5"]);
        assert!(bad[0].why.contains("flow_label"), "{}", bad[0].why);
    }

    #[test]
    fn every_component_of_the_model_is_known() {
        let mut m = Match::to("203.0.113.7/32".parse().unwrap());
        m.src = Some("192.0.2.0/24".parse().unwrap());
        m.protocols = vec![6];
        m.dst_ports = vec![Range::exact(1)];
        m.src_ports = vec![Range::exact(1)];
        m.icmp_types = vec![1];
        m.icmp_codes = vec![1];
        m.tcp_flags = vec![FlagMatch { mask: 1, set: 1 }];
        m.lengths = vec![Range::exact(1)];
        m.dscps = vec![1];
        m.fragment = Some(FragmentMatch::First);
        let value = serde_json::to_value(&m).unwrap();
        let mut known: Vec<&str> = COMPONENTS.to_vec();
        known.sort_unstable();
        let written: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(written, known);
    }
}
