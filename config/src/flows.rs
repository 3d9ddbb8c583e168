//! `[flows]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[flows]`: the way to `weir-flows`, which keeps the flow records themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flows {
    /// Socket of `weir-flows`. weir sends it every accepted record while it listens there, and asks it what
    /// `weir flows` asks. Empty: never.
    pub socket: PathBuf,
}

impl Default for Flows {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/weir-flows/flows.sock") }
    }
}
