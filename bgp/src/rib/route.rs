//! What is put on the wire: a route, its key, and a change of it.

use weir_model::{Action, IpNet, Measure, Originator, Redirect};

use crate::flowspec::{self, Afi};
use crate::wire::Family;

/// What tells one route from another on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKey {
    /// A black-hole route, or one that diverts.
    Unicast(IpNet),
    /// A FlowSpec rule by its NLRI, with its length.
    Flow(Afi, Vec<u8>),
}

impl RouteKey {
    /// The family that carries it.
    pub const fn family(&self) -> Family {
        match self {
            Self::Unicast(IpNet::V4(_)) => Family::Ipv4Unicast,
            Self::Unicast(IpNet::V6(_)) => Family::Ipv6Unicast,
            Self::Flow(afi, _) => Family::flowspec(*afi),
        }
    }

    /// The key of a measure; `None` for those that BGP does not carry.
    ///
    /// # Errors
    /// When FlowSpec cannot say it.
    pub fn of(measure: &Measure) -> Result<Option<Self>, flowspec::EncodeError> {
        Ok(match measure {
            Measure::Blackhole(net) | Measure::Divert(net) => Some(Self::Unicast(net.trunc())),
            Measure::FlowSpec(filter) => {
                let afi = match filter.packets.dst {
                    IpNet::V4(_) => Afi::Ipv4,
                    IpNet::V6(_) => Afi::Ipv6,
                };
                Some(Self::Flow(afi, flowspec::encode(&filter.packets)?))
            }
            Measure::Scrub(_) => None,
        })
    }
}

/// A route's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it puts in force.
    pub measure: Measure,
    /// Low 32 bits of the incident's number, 0 for an operator's.
    pub incident: u32,
}

/// What is to be written next.
#[expect(clippy::large_enum_variant, reason = "made and consumed at once, never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Announce, or announce with other content.
    Announce {
        /// Which.
        key: RouteKey,
        /// What.
        route: Route,
        /// The measure that this one takes the place of.
        replaces: Option<Measure>,
    },
    /// Withdraw.
    Withdraw {
        /// Which.
        key: RouteKey,
        /// What it was.
        route: Route,
    },
    /// Everything of the family has been written.
    EndOfRib(Family),
}

/// Low 32 bits of the incident's number.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
pub(super) const fn incident_mark(originator: &Originator) -> u32 {
    match originator {
        Originator::Incident(id) => id.0 as u32,
        Originator::Operator(_) => 0,
    }
}

/// Smaller is stricter: drop, then the lower limits, then diversions.
pub(super) const fn strictness(measure: &Measure) -> (u8, u64) {
    match measure {
        Measure::FlowSpec(filter) => match filter.action {
            Action::Drop => (0, 0),
            Action::RateLimit { bytes_per_sec } => (1, bytes_per_sec),
            Action::RateLimitPackets { packets_per_sec } => (2, packets_per_sec),
            Action::Redirect(Redirect::RouteTarget { .. }) => (3, 0),
            Action::Redirect(Redirect::NextHop(_)) => (3, 1),
            Action::Redirect(Redirect::Copy(_)) => (3, 2),
            Action::Mark { .. } => (4, 0),
        },
        Measure::Blackhole(_) | Measure::Scrub(_) => (0, 0),
        Measure::Divert(_) => (3, 0),
    }
}
