//! What a peer can be given at all: its families, and what its software takes of a rule.
//!
//! Known beforehand from the configuration, so that nobody has to try a measure to learn that it
//! cannot be had.

use weir_model::Measure;

use crate::profile::Capabilities;
use crate::rib::RouteKey;
use crate::wire::Families;

/// What a peer can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Families that it is offered.
    pub families: Families,
    /// What it takes of FlowSpec rules.
    pub capabilities: Capabilities,
}

/// A peer, or a daemon that weir drives, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its name in the configuration.
    pub name: String,
    /// What it can be given.
    pub reach: Reach,
}

impl Reach {
    /// The route that a measure becomes; `None` for those that BGP does not carry.
    ///
    /// # Errors
    /// Why this peer cannot have it, for people, to be read after "refused: ".
    pub fn route(&self, measure: &Measure) -> Result<Option<RouteKey>, String> {
        if let Measure::FlowSpec(filter) = measure {
            self.capabilities.check(filter).map_err(|error| format!("the peer {error}"))?;
        }
        let Some(key) = RouteKey::of(measure).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let family = key.family();
        if !self.families.contains(family) {
            return Err(format!("family {family} is not configured for this peer"));
        }
        Ok(Some(key))
    }
}
