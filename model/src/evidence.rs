//! What is kept of the evidence behind a verdict.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// A value or range of values, and how much of the traffic has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Bin {
    /// Smallest value.
    pub from: u16,
    /// Largest value.
    pub to: u16,
    /// Share of the excess, 0-1.
    pub excess: f64,
    /// Share of the target's normal traffic, 0-1.
    pub normal: f64,
}

/// How one field of the packets is spread, beside what is normal for the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Histogram {
    /// The field: `protocol`, `length`, `src-port`, `dst-port`, `tcp-flags` or `ttl`.
    pub field: String,
    /// The most frequent values of the excess, in order of value; at most 12.
    pub bins: Vec<Bin>,
}

/// The numbers behind a verdict. Shares are of the excess, 0-1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Evidence {
    /// When it was looked at.
    pub at: Millis,
    /// Value over threshold of the alarm.
    pub ratio: f64,
    /// Share that the best rules cover, on packets they were not fitted to.
    pub coverage: f64,
    /// Packets looked at.
    pub samples: u32,
    /// Share that fits a signature which needs no baseline.
    pub standalone: f64,
    /// Share that is TCP with ACK and without SYN.
    pub established: f64,
    /// Share to declared services.
    pub on_service: f64,
    /// Share of the most frequent length.
    pub one_length: f64,
    /// Share of the three largest sources.
    pub top3: f64,
    /// Estimated number of distinct sources.
    pub sources: f64,
    /// Packets that went back for each one in excess, as far as both ways are seen.
    pub response: Option<f64>,
    /// Share that the target answers, by who is answered (0-1); `None` when too little was seen to say.
    pub answered: Option<f64>,
    /// Share from source prefixes (/24, /48) that the target knows from normal times.
    pub seen_before: Option<f64>,
    /// Spread of the TTL on arrival, as entropy in bits: forged packets of one sender have one, or
    /// any at random; many real senders have a few around the usual initial values.
    pub ttl_bits: Option<f64>,
    /// Share with a TTL between 129 and 214 on arrival: systems begin with 64, 128 or 255, and no path
    /// has so many hops, so that such packets are forged.
    pub ttl_odd: Option<f64>,
    /// Whether the target's own normal is known.
    pub known: bool,
    /// Whether the target is the sender.
    pub outbound: bool,
    /// How the fields are spread.
    pub histograms: Vec<Histogram>,
    /// Some flows of normal times, one a line; at most 8.
    pub flows_before: Vec<String>,
    /// Some flows of the excess, one a line; at most 8.
    pub flows_during: Vec<String>,
}
