//! Who may join, and whose a bearer is.

use std::collections::{BTreeMap, VecDeque};

use weir_model::Millis;

use super::{Controller, NODES_MAX, Node, Ticket, Wanted};
use crate::protocol::{Event, Join, Joined, fingerprint};

/// Bearers remembered after another machine took their node's name, so that their agents can be told.
const REVOKED_MAX: usize = 1000;

/// Most join tokens that wait to be used.
pub const TOKENS_MAX: usize = 1000;

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

/// What is kept of a node whose name another machine has taken.
fn replaced(before: &Node, now: Millis) -> Event {
    let seen = before.last_seen.map_or_else(
        || "it had never reported".to_owned(),
        |at| format!("it last reported {} s ago", now.since(at) / 1000),
    );
    let text = format!("this machine took the place of another of the same name: {seen}");
    Event { at: now, kind: "replaced".to_owned(), text }
}
impl Controller {
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
}
