//! What a router's software can take of FlowSpec.

use serde::{Deserialize, Serialize};

/// A peer's software by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Anything that the standards allow.
    #[default]
    Generic,
}

impl Profile {
    /// FlowSpec rules that the peer holds at most.
    pub const fn max_rules(self) -> usize {
        match self {
            Self::Generic => 10_000,
        }
    }
}
