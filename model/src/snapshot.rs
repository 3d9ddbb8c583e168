//! What goes back: reports and commands into the core, a snapshot out of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Conditions, DesiredState, Direction, ExporterStatus, GroupTotal, Incident, IncidentId,
    Inventory, Measure, Metric, Millis, Mitigation, MitigationId, Outlook, Rung, Service,
    UplinkStatus, Verdict,
};

/// How far weir acts by itself.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Mode {
    /// Detects and says what it would do. The state in which weir is first started.
    #[default]
    Observe,
    /// Proposes; an operator approves each mitigation.
    Approve,
    /// Acts within the guard.
    Auto,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Approve => "approve",
            Self::Auto => "auto",
        })
    }
}

/// What a person said about the mode while weir runs: it outranks the configuration file, over a restart too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stance {
    /// The mode.
    pub mode: Mode,
    /// Whether it is the brake: everything was withdrawn, and weir observes until a person lifts it.
    pub brake: bool,
    /// Who said it.
    pub by: String,
    /// When.
    pub at: Millis,
    /// What the configuration file said then.
    pub file: Mode,
}

/// State of a BGP session (RFC 4271 §8.2.2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum PeerState {
    /// Not trying.
    #[default]
    Idle,
    /// Dialling.
    Connect,
    /// Waiting to be dialled, or to dial again.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received, KEEPALIVE sent.
    OpenConfirm,
    /// Up.
    Established,
}

impl PeerState {
    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        }
    }
}

/// One BGP peer's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PeerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// The session's state.
    pub state: PeerState,
    /// Since when.
    pub since: Millis,
    /// Address families that both sides speak, such as `ipv4-flowspec`.
    pub families: Vec<String>,
    /// Routes on the wire.
    pub announced: u32,
    /// Sessions lost since the start.
    pub flaps: u64,
    /// Attempts to bring the session up that failed since the start.
    #[serde(default)]
    pub failures: u64,
    /// Why the session last ended, or why it does not come up, for people.
    pub last_error: Option<String>,
    /// Measures that are wanted and kept from this peer, for whatever reason.
    #[serde(default)]
    pub kept_back: u32,
    /// What RPKI says of them, where it is asked.
    #[serde(default)]
    pub rpki: Option<RpkiState>,
    /// What was concluded about it.
    #[serde(default)]
    pub standing: PeerStanding,
    /// The BFD session with it, where one is configured.
    #[serde(default)]
    pub bfd: Option<BfdStatus>,
}

/// State of a BFD session (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum BfdState {
    /// The peer is not heard.
    Down,
    /// The peer is heard and does not hear weir yet.
    Init,
    /// Both hear each other.
    Up,
}

impl std::fmt::Display for BfdState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        })
    }
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BfdStatus {
    /// Its state.
    pub state: BfdState,
    /// Since when.
    pub since: Millis,
    /// After how long without a packet the peer is taken for dead, milliseconds; known once the peer was heard.
    pub detection_ms: Option<u64>,
    /// How often it was, since the start.
    pub lost: u64,
    /// Why the session last left `up`.
    pub diagnostic: Option<String>,
    /// Why no packets can be received.
    pub error: Option<String>,
}

/// What the RPKI cache is good for at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum RpkiState {
    /// Origins are checked.
    Checking {
        /// Measures kept back because another AS is the origin of their target.
        refused: u32,
    },
    /// There is no data yet: nothing is checked.
    NoData,
    /// The data was too old to be used: nothing is checked any more.
    Lapsed,
}

/// What weir concluded about a BGP peer from how its sessions ended. All of it ends by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PeerStanding {
    /// Routes that are tried apart, or held back for a control.
    pub suspected: Vec<RouteDoubt>,
    /// Routes that are not sent.
    pub banned: Vec<RouteDoubt>,
    /// Limits that the peer stated or showed.
    pub limits: Vec<PeerLimit>,
}

impl PeerStanding {
    /// Whether nothing is held against anything.
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }
}

/// What is held against one route at one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RouteDoubt {
    /// By what commands name it: eight hexadecimal digits.
    pub id: String,
    /// What it puts in force.
    pub measure: Measure,
    /// Why, for people.
    pub why: String,
    /// Since when.
    pub since: Millis,
    /// Until when.
    pub until: Millis,
    /// Which ban it is; 0 for a suspicion.
    pub offences: u32,
}

/// How many routes of a family a peer takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PeerLimit {
    /// Address family, such as `ipv4-flowspec`.
    pub family: String,
    /// Routes at most.
    pub routes: u32,
    /// Whether the peer named the number; else it is what it held.
    pub said: bool,
    /// When the peer last had too many.
    pub since: Millis,
    /// When it is forgotten.
    pub until: Millis,
}

/// What one BGP peer has of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PeerRoutes {
    /// The peer.
    pub peer: PeerStatus,
    /// What was written to its session (Adj-RIB-Out).
    pub announced: Vec<Measure>,
    /// What is wanted and kept from it, and why.
    pub kept_back: Vec<KeptBack>,
}

/// A measure that a peer is not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeptBack {
    /// What.
    pub measure: Measure,
    /// Why, for people.
    pub why: String,
}

/// How agents on nodes are named among peers: this and the node's name.
pub const AGENT_PEER: &str = "agent:";

/// What an actuator reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// A peer's health changed.
    Peer(PeerStatus),
    /// The measure was written to the peer's session.
    Announced {
        /// The peer's name.
        peer: String,
        /// What.
        measure: Measure,
        /// When.
        at: Millis,
    },
    /// The withdrawal was written to the peer's session, or the session and with it the route is
    /// gone.
    Withdrawn {
        /// The peer's name.
        peer: String,
        /// What.
        measure: Measure,
        /// When.
        at: Millis,
    },
    /// The peer cannot or would not take the measure.
    Refused {
        /// The peer's name.
        peer: String,
        /// What.
        measure: Measure,
        /// When.
        at: Millis,
        /// Why, for people.
        why: String,
    },
}

/// What an operator wants of a host's baselines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaselineChange {
    /// They stand still.
    Freeze,
    /// They learn again.
    Thaw,
    /// They are forgotten; the host starts cold.
    Reset,
    /// One threshold is the operator's.
    Threshold {
        /// Of what.
        metric: Metric,
        /// Towards or from the host.
        direction: Direction,
        /// Bits for a metric of bits, else packets or sources, a second; `None` leaves it to the baseline
        /// again.
        value: Option<NonZeroU64>,
    },
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Put a proposed mitigation in force.
    Approve {
        /// Which.
        mitigation: MitigationId,
        /// Who asks.
        by: String,
    },
    /// Withdraw one mitigation, and do not bring it back in this incident.
    Withdraw {
        /// Which.
        mitigation: MitigationId,
        /// Who asks.
        by: String,
    },
    /// Stay on the present rung, or let go again.
    Hold {
        /// Which incident.
        incident: IncidentId,
        /// Hold or release.
        on: bool,
        /// Who asks.
        by: String,
    },
    /// Leave the rung that is in force or proposed, and go on to the next one that is allowed.
    Skip {
        /// Which incident.
        incident: IncidentId,
        /// Who asks.
        by: String,
    },
    /// Go back one rung, and take no harder one again in this incident.
    StepDown {
        /// Which incident.
        incident: IncidentId,
        /// Who asks.
        by: String,
    },
    /// Put a measure in force by hand; it passes the same guard.
    Add {
        /// What.
        measure: Measure,
        /// For how long, seconds.
        ttl_secs: u64,
        /// Who asks.
        by: String,
    },
    /// Give a measure that was put in force by hand more or less time, or put another in its place.
    Change {
        /// Which.
        mitigation: MitigationId,
        /// What takes its place; the number stays.
        measure: Option<Measure>,
        /// From now on for how long, seconds.
        ttl_secs: Option<u64>,
        /// Who asks.
        by: String,
    },
    /// Change how far weir acts by itself.
    SetMode {
        /// The new mode.
        mode: Mode,
        /// Who asks.
        by: String,
    },
    /// Let the configuration file decide about the mode; lifts the brake.
    FollowFile {
        /// Who asks.
        by: String,
    },
    /// Withdraw everything at once and go to observe mode: the brake.
    Panic {
        /// Who asks.
        by: String,
    },
    /// Freeze, thaw, reset or override a host's baselines.
    Baseline {
        /// The host.
        host: IpAddr,
        /// What.
        change: BaselineChange,
        /// Who asks.
        by: String,
    },
}

impl Command {
    /// Whether it only takes away, in this mode: less is announced, and weir goes less far by itself. Such a
    /// command is carried out before it is written down.
    pub fn only_takes_away(&self, mode: Mode) -> bool {
        match self {
            Self::Withdraw { .. } | Self::StepDown { .. } | Self::Panic { .. } => true,
            Self::Hold { on, .. } => *on,
            Self::SetMode { mode: wanted, .. } => *wanted <= mode,
            Self::Approve { .. }
            | Self::Skip { .. }
            | Self::Add { .. }
            | Self::Change { .. }
            | Self::FollowFile { .. }
            | Self::Baseline { .. } => false,
        }
    }
}

/// What a command would change, without changing it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DryRun {
    /// Measures that would come into force.
    pub adds: Vec<Measure>,
    /// Measures that would be withdrawn.
    pub removes: Vec<Measure>,
    /// Share of the targets' normal traffic that the added measures would hit, 0-1, the worst
    /// target; `None` when nobody has measured it.
    pub normal_share: Option<f64>,
    /// Declared services that the added measures may touch, at most 64.
    pub services: Vec<Service>,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandError {
    /// No such incident, mitigation or protected host.
    NotFound,
    /// It is not in a state in which this makes sense; says which.
    Conflict(String),
    /// The guard refuses; says why.
    Refused(String),
}

/// A sender of flow datagrams that no exporter entry names: what it sends is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Unlisted {
    /// Its address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
    /// Datagrams it sent while remembered.
    pub datagrams: u64,
    /// When it last sent one.
    pub last_seen: Millis,
}

/// What is lost or refused before anything is decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Intake {
    /// Datagrams that the kernel dropped because a receive buffer was full.
    pub socket_drops: u64,
    /// Slices of 100 ms lost because the core was slow.
    pub lost_slices: u64,
    /// The last senders that no exporter entry names, by address, at most 32 a receive thread.
    pub unlisted: Vec<Unlisted>,
}

/// One step of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LadderStep {
    /// What is done on this step.
    pub rung: Rung,
    /// Allowed when the traffic towards the target reaches this many bits a second.
    pub above_bits_per_sec: u64,
    /// Also allowed from this many packets a second.
    pub above_packets_per_sec: Option<u64>,
    /// Also allowed from this many SYNs a second in a SYN flood.
    pub above_syns_per_sec: Option<u64>,
    /// How long the step is kept after the attack has ended, seconds.
    pub hold_secs: u64,
    /// Where traffic goes, or how it is marked, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

impl LadderStep {
    /// Whether this step is allowed against an attack of this volume.
    pub fn allows(&self, verdict: &Verdict) -> bool {
        let rate = verdict.rate;
        let syns: f64 = verdict
            .vectors
            .iter()
            .filter(|vector| vector.subtype == "syn-flood")
            .map(|vector| vector.rate.packets_per_sec)
            .sum();
        let reaches = |value: f64, floor: u64| {
            #[expect(clippy::cast_precision_loss, reason = "thresholds are far below 2^52")]
            let floor = floor as f64;
            value >= floor
        };
        reaches(rate.bits_per_sec, self.above_bits_per_sec)
            || self.above_packets_per_sec.is_some_and(|floor| reaches(rate.packets_per_sec, floor))
            || self.above_syns_per_sec.is_some_and(|floor| reaches(syns, floor))
    }
}

/// What a never-touch prefix has kept weir from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Spared {
    /// The prefix.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub prefix: IpNet,
    /// Attacks that weir was sure enough of to act on, and that hit it.
    pub attacks: u64,
    /// When the last of them was last seen.
    pub last: Millis,
}

/// What the core lets everybody see, made anew once a second and replaced whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// When it was made.
    pub at: Millis,
    /// Present mode.
    pub mode: Mode,
    /// What a person said about it, as far as it outranks the configuration file.
    pub stance: Option<Stance>,
    /// Open incidents and recent closed ones, newest first.
    pub incidents: Vec<Arc<Incident>>,
    /// What comes next about those of them that are open, where that is known.
    pub outlooks: BTreeMap<IncidentId, Outlook>,
    /// Mitigations of open incidents and operators, and recent ended ones, newest first.
    pub mitigations: Vec<Mitigation>,
    /// What is desired.
    pub desired: DesiredState,
    /// Exporters.
    pub exporters: Vec<ExporterStatus>,
    /// BGP peers.
    pub peers: Vec<PeerStatus>,
    /// What is protected.
    pub inventory: Arc<Inventory>,
    /// The ladder in force.
    pub ladder: Vec<LadderStep>,
    /// Never-touch prefixes that have kept weir from something, sorted.
    pub spared: Vec<Spared>,
    /// What is lost or refused at the door.
    pub intake: Intake,
    /// Links out of the network.
    pub uplinks: Vec<UplinkStatus>,
    /// What is wrong beside attacks.
    pub conditions: Conditions,
    /// What groups carry as a whole, where that is watched.
    pub totals: Vec<GroupTotal>,
}
