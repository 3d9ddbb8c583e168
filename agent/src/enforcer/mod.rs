//! What puts rules in force on this host.
//!
//! One [`Program`] describes everything wanted; a backend compares it with what is there and converges in one
//! step. A backend refuses a rule that it cannot express exactly and says why: never an approximation.

pub mod nft;

use std::net::IpAddr;

use weir_model::{IpNet, Millis};

use crate::protocol::Service;
use crate::rules::Rule;

/// Most addresses in the management set.
pub const MANAGEMENT_MAX: usize = 1024;

/// Most blocked sources.
pub const BLOCKED_MAX: usize = 200_000;

/// A source that is kept out of this host, whatever it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// The address or prefix.
    pub source: IpNet,
    /// Until when, on this host's clock.
    pub until: Millis,
}

/// Everything that is to be in force, on this host's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Snapshot it comes from: epoch and version, for comments and reports.
    pub version: (u64, u64),
    /// Rules, checked and in order. Their `expires` is on this host's clock.
    pub rules: Vec<Rule>,
    /// Until when leased rules hold unless renewed.
    pub lease_until: Millis,
    /// Sources that no rule ever touches.
    pub management: Vec<IpNet>,
    /// Services whose traffic is counted and whose players are learned.
    pub services: Vec<Service>,
    /// Sources kept out.
    pub blocked: Vec<Blocked>,
    /// Learn who talks with the services. Needs conntrack, so it is not imposed on hosts without it.
    pub learn: bool,
}

/// Why a rule is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// Why, for people.
    pub why: String,
}

/// What came of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rules in force, by identifier.
    pub rules: Vec<String>,
    /// Rules that are not.
    pub refused: Vec<Refusal>,
}

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Layer-3 octets.
    pub bytes: u64,
}

/// What a rule did so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The rule.
    pub rule: String,
    /// Discarded by it.
    pub dropped: Count,
    /// Met it and passed.
    pub passed: Count,
}

/// What a service received and answered so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// Address.
    pub address: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Port.
    pub port: u16,
    /// Came in, before any rule.
    pub received: Count,
    /// Went out.
    pub answered: Count,
}

/// Why nothing could be applied.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The tool is not there or may not be run.
    #[error("cannot run {0}: {1}")]
    Tool(&'static str, std::io::Error),
    /// The tool refused, and no single rule is to blame.
    #[error("refused: {0}")]
    Refused(String),
    /// The kernel could not be asked.
    #[error("netlink: {0}")]
    Netlink(#[from] std::io::Error),
}
