//! `[agents]`: the appliance's side of the node agents.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use weir_model::IpNet;

use crate::controller::{Common, HandOver, Policy};

/// `[agents]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP address on which nodes are awaited.
    pub listen: SocketAddr,
    /// Sources that no node's rule ever touches, such as the operator's own networks.
    pub allow: Vec<IpNet>,
    /// One in how many packets each node samples and sends as sFlow; 0: none, because routers export already.
    pub sampling: u32,
    /// API keys with which programs such as CrowdSec's bouncers read `/v1/decisions/stream`, as SHA-256 in
    /// hexadecimal: `printf %s KEY | sha256sum`.
    pub bouncers: Vec<String>,
    /// Who gets a FlowSpec rule for a host with an agent first: `before` (the node, routers some seconds later),
    /// `beside` (both at once) or `instead` (the node alone). Black holes, scrubbing and what operators put in
    /// force by hand go to routers at once in any case.
    pub hand_over: HandOver,
    /// How long routers wait with `before`, seconds, 1-600.
    pub wait_secs: u64,
    /// Above this many bits a second towards a host routers get its rules at once: more than its link bears.
    pub link_bits_per_sec: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0; 8], 8443)),
            allow: Vec::new(),
            sampling: 0,
            bouncers: Vec::new(),
            hand_over: HandOver::Beside,
            wait_secs: 5,
            link_bits_per_sec: 1_000_000_000,
        }
    }
}

impl Config {
    /// What every node gets.
    pub fn common(&self) -> Common {
        Common { allow: self.allow.clone(), blocked: Vec::new(), sampling: self.sampling }
    }

    /// Who gets what when.
    pub const fn policy(&self) -> Policy {
        Policy {
            hand_over: self.hand_over,
            wait_ms: self.wait_secs.saturating_mul(1000),
            link_bits_per_sec: self.link_bits_per_sec,
        }
    }
}
