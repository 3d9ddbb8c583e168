//! `[agents]`: the appliance's side of the node agents.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use weir_model::IpNet;

use crate::controller::Common;

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0; 8], 8443)),
            allow: Vec::new(),
            sampling: 0,
            bouncers: Vec::new(),
        }
    }
}

impl Config {
    /// What every node gets.
    pub fn common(&self) -> Common {
        Common { allow: self.allow.clone(), blocked: Vec::new(), sampling: self.sampling }
    }
}
