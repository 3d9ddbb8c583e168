//! What is known of a host, for people.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Direction, Metric, Millis, OwnMeasure, Rate};

/// One metric of a host: what is normal, and from where on it counts as an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostBaseline {
    /// What is measured.
    pub metric: Metric,
    /// Towards or from the host.
    pub direction: Direction,
    /// Packets or bits a second in the newest full second.
    pub now: f64,
    /// Average of the window.
    pub mean: f64,
    /// 99th percentile of the window.
    pub p99: f64,
    /// The percentile after its growth was bounded: what the multiplier applies to.
    pub level: f64,
    /// Threshold in force; where its group has it off, what it would be.
    pub threshold: f64,
    /// Where the threshold comes from: `floor`, `cold-start`, `others-of-its-kind`, `baseline`, `operator`,
    /// or its group: `group`, `group-off` or `group-observe-only` where none is in force. Of a metric of an operator's
    /// own also `metric`, set with it, and `metric-off`.
    pub source: String,
    /// Seconds in the window.
    pub seconds: u16,
    /// The metric of an operator's own, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnMeasure>,
}

/// A host's baselines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostBaselines {
    /// The host.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub host: IpAddr,
    /// Whether it is watched in detail; when not, its traffic is too little to have baselines.
    pub watched: bool,
    /// Watched since.
    pub since: Millis,
    /// Whether it is still too new for baselines of its own.
    pub learning: bool,
    /// Whether its traffic is kept out of the baselines at present.
    pub suspect: bool,
    /// Whether its baselines stand still by an operator's or its group's word.
    pub frozen: bool,
    /// Metrics with baselines and thresholds.
    pub baselines: Vec<HostBaseline>,
}

/// What a host carries now, towards it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostRate {
    /// The host.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub host: IpAddr,
    /// In the newest full second.
    pub now: Rate,
    /// In the busiest of the last 60 seconds.
    pub peak: Rate,
}
