//! What is stored of nodes, and what each is to have.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{IncidentId, IpNet, Millis, Mitigation};

use super::AWAY_MS;
use crate::protocol::{Block, Event, Report, RuleReport, RuleState, Service};
use crate::rules::Rule;

/// A join token that waits to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TicketForm")]
pub struct Ticket {
    /// Until when.
    pub until: Millis,
    /// The only name that may be joined under; any when absent.
    pub name: Option<String>,
    /// What the operator says the node's addresses are; nothing is said when empty.
    pub addresses: Vec<IpNet>,
}

impl Ticket {
    /// A token for any name, of which nothing more is said.
    pub const fn until(until: Millis) -> Self {
        Self { until, name: None, addresses: Vec::new() }
    }
}

/// As stored: tokens of old are nothing but their end.
#[derive(Deserialize)]
#[serde(untagged)]
enum TicketForm {
    Until(Millis),
    Whole {
        until: Millis,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        addresses: Vec<IpNet>,
    },
}

impl From<TicketForm> for Ticket {
    fn from(form: TicketForm) -> Self {
        match form {
            TicketForm::Until(until) => Self::until(until),
            TicketForm::Whole { until, name, addresses } => Self { until, name, addresses },
        }
    }
}

/// An address that a node says it has and does not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// The address.
    pub address: IpAddr,
    /// Why, for people.
    pub why: String,
}

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Signing key, PKCS #8 in hexadecimal.
    pub signing_key: String,
    /// Epoch of versions.
    pub epoch: u64,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Join tokens by SHA-256 of each.
    pub tokens: BTreeMap<String, Ticket>,
    /// SHA-256 of bearers whose node's name another machine has taken, the latest last.
    #[serde(default)]
    pub revoked: VecDeque<String>,
}

/// A node as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// SHA-256 of its bearer token.
    pub bearer: String,
    /// Addresses that count as its own: what it says it has, less what is another's.
    pub addresses: Vec<IpAddr>,
    /// What the operator said its addresses are, with the token; nothing was said when empty.
    #[serde(default)]
    pub granted: Vec<IpNet>,
    /// Addresses that it last said it has.
    #[serde(default)]
    pub claimed: Vec<IpAddr>,
    /// Addresses of these that it does not get.
    #[serde(default)]
    pub withheld: Vec<Withheld>,
    /// Raised when this node is ahead of the stored state; the state's own epoch holds when that is higher.
    #[serde(default)]
    pub epoch: u64,
    /// Incidents of which it was told, the latest last.
    #[serde(default)]
    pub told: VecDeque<IncidentId>,
    /// When it joined.
    pub joined: Millis,
    /// Version of what it is to have.
    pub version: u64,
    /// What it is to have; its end is set anew with each envelope.
    pub wanted: Wanted,
    /// When it last said something.
    #[serde(default)]
    pub last_seen: Option<Millis>,
    /// What it last said.
    #[serde(default)]
    pub report: Option<Report>,
    /// What happened there, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// A test's rule and its end.
    #[serde(default)]
    pub test: Option<Rule>,
    /// Rules in the place of a measure that the node refused, and until when they are not tried again.
    #[serde(default)]
    pub refused: BTreeMap<String, Millis>,
}

/// The content of a node's snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// Rules, in order.
    pub rules: Vec<Rule>,
    /// Sources that no rule touches.
    pub allow: Vec<IpNet>,
    /// Its services.
    pub services: Vec<Service>,
    /// Sources kept out.
    pub blocked: Vec<Block>,
    /// One in how many packets is sampled; 0: none.
    pub sampling: u32,
    /// The incident under way there.
    pub incident: Option<IncidentId>,
    /// Addresses under attack.
    #[serde(default)]
    pub targets: Vec<IpAddr>,
}

impl State {
    /// The epoch in which a node's versions count.
    pub fn epoch_of(&self, node: &Node) -> u64 {
        self.epoch.max(node.epoch)
    }
}

impl Node {
    /// Whether the operator said that an address is this node's. Only then is anything left undone elsewhere
    /// because this node does it: whoever runs a node can say that an address is his.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.granted.iter().any(|net| net.contains(&address))
    }

    /// What the node says of a mitigation's rule, or of what it was given in that rule's place. What it was not
    /// given it cannot have.
    pub fn rule_report(&self, mitigation: &Mitigation) -> Option<&RuleReport> {
        let told = rule_report(self.report.as_ref()?, mitigation)?;
        self.wanted.rules.iter().any(|rule| rule.id == told.id).then_some(told)
    }

    /// Whether an agent stands behind it: it has spoken lately, or has joined and is about to.
    pub fn is_up(&self, now: Millis) -> bool {
        now.since(self.last_seen.unwrap_or(self.joined)) < AWAY_MS
    }
}

/// How a mitigation's rule is called on nodes.
pub fn rule_id(mitigation: &Mitigation) -> String {
    format!("m{}", mitigation.id)
}

/// What a node reports of a mitigation's rule, or of what it has in that rule's place.
pub fn rule_report<'a>(report: &'a Report, mitigation: &Mitigation) -> Option<&'a RuleReport> {
    let id = rule_id(mitigation);
    let is_it = |r: &&RuleReport| {
        r.id.strip_prefix(&id).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let of_it = || report.rules.iter().filter(is_it);
    of_it().find(|r| r.state == RuleState::Applied).or_else(|| of_it().next())
}
