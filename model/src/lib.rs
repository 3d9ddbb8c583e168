//! The words of weir: plain data shared by every crate.
//!
//! No I/O, no clock, no thread, no randomness. Data flows one way through these types:
//! datagram -> [`FlowRecord`] -> [`Slice`] -> [`Verdict`] -> [`Mitigation`] -> [`DesiredState`].
//! What flows back are reports ([`Observed`]) and commands ([`Command`]); both are inputs of the
//! same core. Read [`Slice`] and [`DesiredState`] first.

mod account;
mod allow;
mod archive;
mod evidence;
mod exporter;
mod flow;
mod host;
mod incident;
mod inventory;
mod matches;
mod mitigation;
mod own;
mod panel;
mod pattern;
mod places;
mod policies;
mod policy;
mod prefetch;
mod prefix_set;
mod probe;
mod request;
#[cfg(feature = "schema")]
mod schema;
mod secret;
mod sign;
mod slice;
mod snapshot;
mod time;
mod total;
mod uplink;
mod verdict;
mod webhook;

pub use account::{Role, UnknownRole};
pub use allow::{
    ALLOW_LISTS_MAX, ALLOW_PREFIXES_MAX, AllowAlarms, AllowList, AllowLists, AllowName,
    AllowNameError, FarEnd, changed_share,
};
pub use archive::{
    ArchiveState, ArchivedFlow, FlowAnswer, FlowGroup, FlowOrder, FlowPoint, FlowQuery, FlowSums,
    QUESTION, RECORDS, address_of, bits_of,
};
pub use evidence::{Bin, Evidence, Histogram};
pub use exporter::{
    DropCount, ExporterId, ExporterStatus, ExporterTrouble, FlowProtocol, InterfaceRole,
    InterfaceStatus, SamplingSource,
};
pub use flow::{Direction, FlowRecord, Forwarding, Fragment, tcp_flags};
pub use host::{HostBaseline, HostBaselines, HostRate};
pub use incident::{Decision, Incident, IncidentState, Outlook, OutlookKind, TimelineEntry};
pub use inventory::{
    Expected, ExpectedTraffic, HostGroup, Infrastructure, Inventory, Part, Policy, Service,
};
pub use matches::{
    Action, Filter, FlagMatch, FlagsError, FragmentMatch, Match, PORT_PROTOCOLS, PROTOCOLS, Range,
    Redirect, RedirectError,
};
pub use mitigation::{
    DesiredState, Measure, Mitigation, MitigationId, MitigationState, Originator, Rung,
};
pub use own::{OWN_METRICS_MAX, OwnMetric, OwnMetrics, check_own};
pub use panel::{PanelNode, PanelOrder, PanelPort, PanelServer, PanelStatus};
pub use pattern::{Compiled, Pattern, PatternError};
pub use places::{LEAVING_MAX, Place, Places, Seat, client_of};
pub use policies::{PARENTS_MAX, Policies, PolicyValues, Said, TEMPLATES_MAX, Totalled};
pub use policy::{
    Bounds, HostClass, Inbound, LABEL_MAX, Learning, Least, MULTIPLIERS, Outbound, PolicyGroup,
    THRESHOLDS, TOTALS, TOTALS_MAX, Threshold, TotalLimits, TotalThresholds, is_multiplier,
};
pub use prefetch::prefetch;
pub use prefix_set::PrefixSet;
pub use probe::{PeerProbe, ProbeOpen, ProbeStage};
pub use request::{
    DeliveryId, Outcome, Request, TRIES_MAX, TRY_TIMEOUT_MS, back_off_ms, is_header, is_url,
};
pub use secret::{Address, Hidden, Secret, origin};
pub use sign::{SIGNATURE_HEADER, signature};
pub use slice::{
    Class, ClassVolume, Expectation, FINE_SLOTS, HostSlice, LongFlow, MetricSlice, Sample,
    ServiceSlice, Slice,
};
pub use snapshot::{
    AGENT_PEER, BaselineChange, BfdState, BfdStatus, Command, CommandError, DryRun, Intake,
    KeptBack, LadderStep, Mode, Observed, PeerLimit, PeerRoutes, PeerStanding, PeerState,
    PeerStatus, RouteDoubt, RpkiState, Snapshot, Spared, Stance, Unlisted,
};
pub use time::{Millis, SLICE_MS};
pub use total::{Absence, GroupTotal, TotalMeasure};
pub use uplink::{Condition, ConditionKind, Conditions, LinkCount, UplinkStatus};
pub use verdict::{
    Candidate, Family, Goodput, Hold, IncidentId, Metric, OwnMeasure, Phase, Rate, Reason,
    TopEntry, Vector, Verdict,
};
pub use webhook::{ACTIONS, WebhookConfig, WebhookError};

/// Re-exported so that every crate speaks of the same prefix type.
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
