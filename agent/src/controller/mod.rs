//! The appliance's side: which nodes there are, who they are, what each is to have.
//!
//! Pure: time and secrets are arguments, the state is data that its owner stores. Versions never fall: a state
//! from a backup that meets a node which is ahead of it starts a new epoch.

mod handover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::{Direction, IpNet, Match, Millis, Mitigation};

pub use self::handover::{AWAY_MS, HandOver, Policy, Situation};

use crate::protocol::{
    Block, Body, Envelope, Event, Join, Joined, Lease, Refused, Report, RuleReport, RuleState,
    Signer, Snapshot, Stamp, fingerprint, hex, unhex,
};
use crate::rules::{self, NodeAction, Rule};

/// How long a node's rules hold without word from the appliance.
pub const LEASE_MS: u64 = 120_000;

/// How often leases are renewed.
pub const RENEW_MS: u64 = 20_000;

/// How long the rule of a test stands.
const TEST_MS: u64 = 15_000;

/// Most nodes.
pub const NODES_MAX: usize = 10_000;

/// Bearers remembered after another machine took their node's name, so that their agents can be told.
const REVOKED_MAX: usize = 1000;

/// Most join tokens that wait to be used.
pub const TOKENS_MAX: usize = 1000;

/// Sources remembered after they were let in again, so that bouncers hear of it.
const UNBLOCKED_MAX: usize = 10_000;

/// Refusals remembered of each node.
const REFUSED_MAX: usize = 256;

/// Most addresses of a node that count.
pub const ADDRESSES_MAX: usize = 4096;

/// Addresses remembered that a node says it has and does not get.
const WITHHELD_MAX: usize = 64;

/// Incidents remembered of which a node was told: it may send packets of these.
const TOLD_MAX: usize = 32;

/// How far ahead of the appliance's clock an epoch may be before it is no epoch, seconds: epochs begin at the
/// clock's time, and clocks have been years ahead.
const EPOCH_AHEAD_SECS: u64 = 10 * 366 * 86_400;

/// How long a rule that a node refused is not tried again.
const REFUSED_MS: u64 = 600_000;

/// Abilities that put rules in force.
const ENFORCERS: [&str; 2] = ["nft", "iptables"];

/// Events kept of each node.
const EVENTS_MAX: usize = 200;

/// Where the rule of a test points: documentation addresses (RFC 5737), so that no packet ever meets it.
const TEST_TARGET: &str = "192.0.2.1/32";

/// Why a node may not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Unknown, used or too old.
    #[error("the token is unknown, used or too old")]
    Token,
    /// There are [`NODES_MAX`] already.
    #[error("there are {NODES_MAX} nodes already")]
    Full,
    /// The name is empty, too long or has other characters than letters, digits, dots and dashes.
    #[error("a name has up to 64 letters, digits, dots and dashes")]
    Name,
    /// The token is for another name.
    #[error("the token is for a node of another name")]
    NotThisName,
    /// Another machine has this name and is up.
    #[error(
        "a node of this name is up: give this machine another name with --name, or take the other's place with \
         --replace"
    )]
    Up,
}

/// Why a bearer is no node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It never was, or the node has left.
    #[error("no such node")]
    Unknown,
    /// Another machine has joined under the node's name.
    #[error(
        "another machine has joined under this node's name and taken its place: join again under a name of its own"
    )]
    Replaced,
}

/// Who holds a bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node.
    pub node: String,
    /// SHA-256 of the bearer, to see later whether it still holds.
    pub bearer: String,
}

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
    pub told: VecDeque<weir_model::IncidentId>,
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
    pub services: Vec<crate::protocol::Service>,
    /// Sources kept out.
    pub blocked: Vec<Block>,
    /// One in how many packets is sampled; 0: none.
    pub sampling: u32,
    /// The incident under way there.
    pub incident: Option<weir_model::IncidentId>,
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

/// What is kept of a node whose name another machine has taken.
fn replaced(before: &Node, now: Millis) -> Event {
    let seen = before.last_seen.map_or_else(
        || "it had never reported".to_owned(),
        |at| format!("it last reported {} s ago", now.since(at) / 1000),
    );
    let text = format!("this machine took the place of another of the same name: {seen}");
    Event { at: now, kind: "replaced".to_owned(), text }
}

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

    /// Takes note of a join token made by the caller, for one use.
    pub fn add_token(&mut self, secret: &str, ticket: Ticket, now: Millis) {
        self.state.tokens.retain(|_, kept| kept.until > now);
        while self.state.tokens.len() >= TOKENS_MAX {
            self.state.tokens.pop_first();
        }
        self.state.tokens.insert(fingerprint(secret.as_bytes()), ticket);
    }

    /// Lets a node in. A node of the same name that is away is replaced, which is how a machine is set up again;
    /// one that is up only when that is asked for: clones of one image bear one name, and the second would
    /// disarm the first. `bearer` is a fresh secret.
    ///
    /// # Errors
    /// Why not.
    pub fn join(&mut self, join: &Join, bearer: &str, now: Millis) -> Result<Joined, JoinError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if join.name.is_empty() || join.name.len() > 64 || !join.name.chars().all(plain) {
            return Err(JoinError::Name);
        }
        let token = fingerprint(join.token.as_bytes());
        let ticket = self.state.tokens.get(&token).filter(|ticket| ticket.until > now);
        let ticket = ticket.cloned().ok_or(JoinError::Token)?;
        if ticket.name.as_ref().is_some_and(|name| *name != join.name) {
            return Err(JoinError::NotThisName);
        }
        let before = self.state.nodes.get(&join.name);
        if before.is_some_and(|n| n.is_up(now)) && !join.replace {
            return Err(JoinError::Up);
        }
        if self.state.nodes.len() >= NODES_MAX && before.is_none() {
            return Err(JoinError::Full);
        }
        let version = before.map_or(1, |n| n.version + 1);
        let events = before.map(|n| replaced(n, now)).into_iter().collect();
        // Used only now: who is refused for a name tries again with the same token.
        self.state.tokens.remove(&token);
        if let Some(before) = before {
            self.state.revoked.push_back(before.bearer.clone());
            let surplus = self.state.revoked.len().saturating_sub(REVOKED_MAX);
            self.state.revoked.drain(..surplus);
        }
        let granted = !ticket.addresses.is_empty();
        let node = Node {
            bearer: fingerprint(bearer.as_bytes()),
            addresses: Vec::new(),
            granted: ticket.addresses,
            claimed: Vec::new(),
            withheld: Vec::new(),
            epoch: 0,
            told: VecDeque::new(),
            joined: now,
            version,
            wanted: Wanted::default(),
            last_seen: None,
            report: None,
            events,
            test: None,
            refused: BTreeMap::new(),
        };
        self.state.nodes.insert(join.name.clone(), node);
        self.settle(&join.name, &join.addresses, now);
        if granted {
            // What the operator gives to this node is no other's any more.
            for name in self.state.nodes.keys().cloned().collect::<Vec<_>>() {
                let claimed = self.state.nodes.get(&name).map(|n| n.claimed.clone());
                self.settle(&name, &claimed.unwrap_or_default(), now);
            }
        }
        Ok(Joined {
            node: join.name.clone(),
            bearer: bearer.to_owned(),
            signing_key: self.signer.public_key(),
        })
    }

    /// Forgets a node. Its rules lapse with their lease.
    pub fn leave(&mut self, node: &str) -> bool {
        self.state.nodes.remove(node).is_some()
    }

    /// The node that holds this bearer token.
    ///
    /// # Errors
    /// [`Stranger`] when none does.
    pub fn authenticate(&self, bearer: &str) -> Result<Caller, Stranger> {
        // Hashes are compared, so the time it takes says nothing about the token.
        let bearer = fingerprint(bearer.as_bytes());
        match self.state.nodes.iter().find(|(_, n)| n.bearer == bearer) {
            Some((node, _)) => Ok(Caller { node: node.clone(), bearer }),
            None if self.state.revoked.contains(&bearer) => Err(Stranger::Replaced),
            None => Err(Stranger::Unknown),
        }
    }

    /// Whether a caller's bearer is still its node's.
    pub fn holds(&self, caller: &Caller) -> bool {
        self.state.nodes.get(&caller.node).is_some_and(|n| n.bearer == caller.bearer)
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

    /// Works out which of the addresses that a node says it has are its own, and takes note of what changed:
    /// those that the operator named with its token; without such a word, those that are no other node's.
    /// Returns whether anything is new.
    fn settle(&mut self, name: &str, claimed: &[IpAddr], now: Millis) -> bool {
        let mut claimed = claimed.to_vec();
        claimed.sort_unstable();
        claimed.dedup();
        let surplus = claimed.len().saturating_sub(ADDRESSES_MAX);
        claimed.truncate(ADDRESSES_MAX);
        let Some(node) = self.state.nodes.get(name) else { return false };
        let mut own = Vec::new();
        let mut withheld = Vec::new();
        for address in &claimed {
            let why = if !node.granted.is_empty() {
                (!node.owns(*address)).then(|| "its token names other addresses".to_owned())
            } else {
                self.holder(*address, name, now).map(|other| format!("node {other} has it"))
            };
            match why {
                None => own.push(*address),
                Some(why) if withheld.len() < WITHHELD_MAX && !is_private(*address) => {
                    withheld.push(Withheld { address: *address, why });
                }
                Some(_) => (),
            }
        }
        let Some(node) = self.state.nodes.get_mut(name) else { return false };
        let mut said = Vec::new();
        let joining = node.claimed.is_empty();
        let list = |found: Vec<&IpAddr>| {
            let more = found.len().saturating_sub(8);
            let names: Vec<String> = found.into_iter().take(8).map(ToString::to_string).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", names.join(", "))
        };
        let new: Vec<&IpAddr> = own.iter().filter(|a| !node.addresses.contains(a)).collect();
        let gone: Vec<&IpAddr> = node.addresses.iter().filter(|a| !own.contains(a)).collect();
        if !joining && !new.is_empty() {
            said.push(format!("it has {} now", list(new)));
        }
        if !gone.is_empty() {
            said.push(format!("it no longer has {}", list(gone)));
        }
        for w in withheld.iter().filter(|w| !node.withheld.contains(w)) {
            said.push(format!("it says that it has {}, and does not get it: {}", w.address, w.why));
        }
        if surplus > 0 && node.claimed != claimed {
            said.push(format!(
                "it has {surplus} addresses more than the {ADDRESSES_MAX} that count"
            ));
        }
        let changed = node.addresses != own || node.withheld != withheld;
        node.addresses = own;
        node.withheld = withheld;
        node.claimed = claimed;
        for text in said {
            node.events.push(Event { at: now, kind: "addresses".to_owned(), text });
        }
        let surplus = node.events.len().saturating_sub(EVENTS_MAX);
        node.events.drain(..surplus);
        changed
    }

    /// The node other than one that has an address: by the operator's word, or because it had it first and is up.
    fn holder(&self, address: IpAddr, except: &str, now: Millis) -> Option<&str> {
        let others = self.state.nodes.iter().filter(|(name, _)| *name != except);
        let has = |n: &Node| n.addresses.contains(&address) && n.is_up(now) && !is_private(address);
        others.into_iter().find(|(_, n)| n.owns(address) || has(n)).map(|(name, _)| name.as_str())
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

/// Addresses that many nodes have, each its own: nobody's claim to them excludes another's.
const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            a.is_private()
                || a.is_link_local()
                || a.is_loopback()
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_unique_local() || a.is_unicast_link_local() || a.is_loopback(),
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
