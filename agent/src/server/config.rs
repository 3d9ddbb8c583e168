//! `[agents]`: the appliance's side of the node agents.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use weir_model::IpNet;

use crate::controller::{Common, HandOver, Policy};

/// `[agents]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP address on which node agents connect.
    pub listen: SocketAddr,
    /// Sources that no rule on a node ever matches, such as your own networks.
    pub allow: Vec<IpNet>,
    /// Sampling rate 1:N of the sFlow that each node sends; 0: none, because routers export
    /// already.
    pub sampling: u32,
    /// API keys with which programs such as CrowdSec's bouncers read `/v1/decisions/stream`, as SHA-256 in
    /// hexadecimal: `printf %s KEY | sha256sum`.
    pub bouncers: Vec<String>,
    /// Who gets a FlowSpec rule for a host with an agent first: `before` (the node, routers some seconds later),
    /// `beside` (both at once) or `instead` (the node alone). Black holes, scrubbing and what operators put in
    /// force by hand go to routers at once in any case.
    pub hand_over: HandOver,
    /// Seconds that routers wait with `before`, 1-600.
    pub wait_secs: u64,
    /// Above this rate of inbound traffic to a host, bits a second, routers get its rules at once:
    /// more than its link can take.
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
