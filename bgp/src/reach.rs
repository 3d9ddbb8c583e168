//! What a peer can be given at all: its families, and what its software takes of a rule.
//!
//! Known beforehand from the configuration, so that nobody has to try a measure to learn that it
//! cannot be had.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{IpNet, Measure, Rung};

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
    /// Where it diverts to.
    pub divert: Hops,
    /// Steps of the ladder that it takes.
    pub steps: Vec<Rung>,
    /// Lengths of the black holes that it takes.
    pub black_holes: Lengths,
    /// Unicast routes, black holes and diversions together, that it takes from weir at most.
    pub max_routes: usize,
}

/// Shortest and longest prefixes, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Of IPv4.
    pub v4: (u8, u8),
    /// Of IPv6.
    pub v6: (u8, u8),
}

impl Lengths {
    /// Whatever there is.
    pub const ALL: Self = Self { v4: (0, 32), v6: (0, 128) };

    const fn of(self, net: IpNet) -> (u8, u8) {
        match net {
            IpNet::V4(_) => self.v4,
            IpNet::V6(_) => self.v6,
        }
    }
}

/// Next hops of diversions; a family without one is not diverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// Of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Hops {
    /// None: the peer diverts nothing.
    pub const NONE: Self = Self { v4: None, v6: None };

    /// The next hop of a prefix.
    pub fn of(self, net: IpNet) -> Option<IpAddr> {
        match net {
            IpNet::V4(_) => self.v4.map(Into::into),
            IpNet::V6(_) => self.v6.map(Into::into),
        }
    }
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
    /// A peer that takes every step.
    pub fn new(families: Families, capabilities: Capabilities) -> Self {
        Self {
            families,
            capabilities,
            divert: Hops::NONE,
            steps: Rung::ALL.to_vec(),
            black_holes: Lengths::ALL,
            max_routes: usize::MAX,
        }
    }

    /// The route that a measure becomes; `None` for those that BGP does not carry.
    ///
    /// # Errors
    /// Why this peer cannot have it, for people, to be read after "refused: ".
    pub fn route(&self, measure: &Measure) -> Result<Option<RouteKey>, String> {
        // Not carried by BGP, and so no peer's to refuse.
        if matches!(measure, Measure::Scrub(_)) {
            return Ok(None);
        }
        let step = measure.rung();
        if !self.steps.contains(&step) {
            return Err(format!("the peer does not take {step} (bgp.peer.steps, role)"));
        }
        if let Measure::Blackhole(net) = measure {
            let (from, to) = self.black_holes.of(*net);
            if !(from..=to).contains(&net.prefix_len()) {
                return Err(format!("the peer takes black holes of /{from} to /{to}"));
            }
        }
        if let Measure::FlowSpec(filter) = measure {
            self.capabilities.check(filter).map_err(|error| format!("the peer {error}"))?;
        }
        if let Measure::Divert(net) = measure {
            let hop = self.divert.of(*net).ok_or("the peer does not divert (bgp.peer.divert)")?;
            if net.contains(&hop) {
                // What comes back from there would be sent there again.
                return Err(format!("its next hop {hop} lies in the prefix itself"));
            }
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
