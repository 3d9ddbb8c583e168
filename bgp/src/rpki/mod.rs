//! Whether the operator may originate a prefix: RPKI through RTR (RFC 8210, RFC 6811).
//!
//! A mitigation for a prefix that somebody else is the origin of is a mistake of configuration,
//! and refused. A /32 under a ROA for a /24 is invalid by its length only: that is the nature of
//! black-hole routes (RFC 9319 §5), and is said but not refused. Without a cache, or with one that
//! has not been heard for longer than it allows, nothing is known and nothing is refused.
//!
//! The protocol is our own code: it is nine message types, and the crate that has it brings a
//! cryptographic library in C for parts that a router never uses.

mod client;
mod pdu;
mod session;
mod table;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use client::run;
pub use pdu::{Pdu, PduError, Reader};
pub use session::{Input, Output, Session};
pub use table::{Table, Validity, Vrp};

/// Section `[bgp.rpki]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An RTR cache: address and port, 323 as a rule.
    pub cache: SocketAddr,
    /// The AS that originates the protected prefixes; `bgp.local_as` unless set.
    #[serde(default)]
    pub origin_as: Option<u32>,
}

/// What is done with a measure whose destination somebody else is the origin of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// It is not announced to the peer.
    #[default]
    Refuse,
    /// It is announced, and a warning logged.
    Warn,
}

#[cfg(test)]
mod tests;
