//! What is to be in force.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Action, Filter, IncidentId, Millis};

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Rung {
    /// FlowSpec rules that set the DSCP, for a policy further on.
    Mark,
    /// FlowSpec rate limit.
    RateLimit,
    /// FlowSpec drop.
    Drop,
    /// FlowSpec rules that send packets to a filter: to a VRF or a next hop.
    Redirect,
    /// A route by which a prefix takes another way: through a filter or a scrubbing network.
    Divert,
    /// Remotely triggered black hole (RFC 5635, RFC 7999).
    Rtbh,
    /// Diversion by a scrubbing service, asked for by its API.
    Scrub,
}

impl Rung {
    /// Every step, gentlest first.
    pub const ALL: [Self; 7] = [
        Self::Mark,
        Self::RateLimit,
        Self::Drop,
        Self::Redirect,
        Self::Divert,
        Self::Rtbh,
        Self::Scrub,
    ];

    /// Whether rules of this step cut traffic where they stand.
    pub const fn filters(self) -> bool {
        matches!(self, Self::RateLimit | Self::Drop)
    }

    /// Whether traffic takes another way, to be filtered there.
    pub const fn diverts(self) -> bool {
        matches!(self, Self::Redirect | Self::Divert | Self::Scrub)
    }

    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::RateLimit => "rate-limit",
            Self::Drop => "drop",
            Self::Redirect => "redirect",
            Self::Divert => "divert",
            Self::Rtbh => "rtbh",
            Self::Scrub => "scrub",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// One thing to have in force somewhere in the network.
#[expect(clippy::large_enum_variant, reason = "nearly all are FlowSpec; boxing buys nothing")]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// A FlowSpec rule.
    FlowSpec(Filter),
    /// A black-hole route.
    Blackhole(IpNet),
    /// Traffic of a prefix sent through a scrubbing service.
    Scrub(IpNet),
    /// Traffic of a prefix sent another way: a route to those peers that divert.
    Divert(IpNet),
}

impl Measure {
    /// The step of the ladder that it belongs to.
    pub const fn rung(&self) -> Rung {
        match self {
            Self::FlowSpec(filter) => match filter.action {
                Action::Drop => Rung::Drop,
                Action::RateLimit { .. } | Action::RateLimitPackets { .. } => Rung::RateLimit,
                Action::Mark { .. } => Rung::Mark,
                Action::Redirect(_) => Rung::Redirect,
            },
            Self::Blackhole(_) => Rung::Rtbh,
            Self::Divert(_) => Rung::Divert,
            Self::Scrub(_) => Rung::Scrub,
        }
    }

    /// The destination concerned.
    pub const fn target(&self) -> IpNet {
        match self {
            Self::FlowSpec(filter) => filter.packets.dst,
            Self::Blackhole(net) | Self::Scrub(net) | Self::Divert(net) => *net,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlowSpec(filter) => write!(f, "flowspec {filter}"),
            Self::Blackhole(net) => write!(f, "blackhole {net}"),
            Self::Scrub(net) => write!(f, "scrub {net}"),
            Self::Divert(net) => write!(f, "divert {net}"),
        }
    }
}

/// Who wants a mitigation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Originator {
    /// An open incident.
    Incident(IncidentId),
    /// A named operator.
    Operator(String),
}

/// A mitigation's number, unique for the life of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MitigationId(pub u64);

impl fmt::Display for MitigationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a mitigation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum MitigationState {
    /// What weir would do, were it not in observe mode.
    Simulated,
    /// Waits for an operator's approval.
    Proposed,
    /// Desired: announced wherever a peer takes it.
    Active,
    /// No longer wanted.
    Withdrawn,
    /// Refused by the guard; the note says why.
    Refused,
}

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Mitigation {
    /// Its number.
    pub id: MitigationId,
    /// Who wants it.
    pub originator: Originator,
    /// What it is.
    pub measure: Measure,
    /// The rung it belongs to.
    pub rung: Rung,
    /// Where it stands.
    pub state: MitigationState,
    /// When it was decided.
    pub since: Millis,
    /// When it lapses unless renewed.
    pub expires: Millis,
    /// When it ended, if it has.
    pub ended: Option<Millis>,
    /// Peers that have it on the wire, by name.
    pub peers: Vec<String>,
    /// Why it stands where it stands, for people.
    pub note: String,
    /// Layer-3 bits a second that it was chosen to cut: where a peer has no room for all, what is
    /// worth most is kept. 0 where nobody measured.
    #[serde(default)]
    pub worth: u64,
}

impl Mitigation {
    /// Whether it is wanted and a router or node has it. Whatever people are told was "filtered" or "reached"
    /// rests on this and on nothing else.
    pub fn is_in_force(&self) -> bool {
        self.state == MitigationState::Active && !self.peers.is_empty()
    }
}

/// Everything that is to be in force now. Actuators observe, compare and converge on it; it names
/// states, never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Rises by one whenever the content changes.
    pub generation: u64,
    /// Active mitigations, sorted by measure, one per measure.
    pub mitigations: Arc<[Mitigation]>,
}
