//! Totals of groups: what all hosts of a group carry together, and whether that is too much.

use serde::{Deserialize, Serialize};

use crate::{Direction, Metric};

/// One threshold of a total with what is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TotalMeasure {
    /// Which way.
    pub direction: Direction,
    /// `packets_per_sec` or `bits_per_sec`.
    pub metric: Metric,
    /// Average of the last ten seconds that are known, a second.
    pub now: f64,
    /// What is normal, a second: the 99th percentile of the last minutes.
    pub level: f64,
    /// The threshold, a second; absent when it is off.
    pub threshold: Option<f64>,
    /// Where the threshold comes from: `cold-start`, `floor`, `baseline`, `group`, `group-off`,
    /// `group-observe-only`.
    pub source: String,
}

/// The total of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupTotal {
    /// The group's name.
    pub group: String,
    /// Whether its normal is still being learned.
    pub learning: bool,
    /// What is measured.
    pub measures: Vec<TotalMeasure>,
    /// Whether it is above a threshold; absent while nothing can be said, and between a threshold and well
    /// below it: then it stays as it was.
    pub above: Option<bool>,
    /// One sentence with the numbers, for people; empty while it is not above.
    pub text: String,
}

/// Traffic that is watched for having vanished: of a group, or of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// What it is of, for people.
    pub subject: String,
    /// The group whose word it is.
    pub group: String,
    /// Whether it has vanished; absent while nothing can be said: then it stays as it was.
    pub vanished: Option<bool>,
    /// One sentence with the numbers; empty while it has not.
    pub text: String,
}
