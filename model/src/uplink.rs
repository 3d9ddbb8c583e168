//! Links out of the network, and what is wrong with them or with exporters: of no target, and no attack.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// What the records of an exporter tell of one interface, since it was first heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LinkCount {
    /// Interface index.
    pub index: u32,
    /// Layer-3 octets that came in by it, multiplied by the sampling rate.
    pub in_bytes: u64,
    /// Layer-3 octets that went out by it, likewise.
    pub out_bytes: u64,
}

/// A link out of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UplinkStatus {
    /// Its name.
    pub name: String,
    /// The exporter that tells of it.
    pub exporter: String,
    /// What it carries at most in each direction, bits a second.
    pub capacity_bits_per_sec: u64,
    /// What comes in by it, layer-3 bits a second over the last ten seconds.
    pub inbound_bits_per_sec: f64,
    /// What goes out by it, likewise.
    pub outbound_bits_per_sec: f64,
    /// Whether the exporter tells of it at present: if not, nothing is known.
    pub known: bool,
}

impl UplinkStatus {
    /// Percent of the capacity that the fuller direction takes.
    pub fn percent(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "capacities are far below 2^52")]
        let capacity = self.capacity_bits_per_sec.max(1) as f64;
        self.inbound_bits_per_sec.max(self.outbound_bits_per_sec) / capacity * 100.0
    }
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ConditionKind {
    /// An exporter sends nothing.
    ExporterSilent,
    /// An uplink, a group or a service carries nearly nothing, while exporters tell of it.
    TrafficVanished,
    /// An uplink is nearly full.
    UplinkFull,
    /// A group's total, or an uplink's, is above its threshold.
    TotalExceeded,
    /// An allow list has changed by so much that a person must approve it.
    AllowListWaits,
}

impl ConditionKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::ExporterSilent,
        Self::TrafficVanished,
        Self::UplinkFull,
        Self::TotalExceeded,
        Self::AllowListWaits,
    ];

    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::ExporterSilent => "exporter-silent",
            Self::TrafficVanished => "traffic-vanished",
            Self::UplinkFull => "uplink-full",
            Self::TotalExceeded => "total-exceeded",
            Self::AllowListWaits => "allow-list-waits",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::ExporterSilent => "Exporter is silent",
            Self::TrafficVanished => "Traffic has vanished",
            Self::UplinkFull => "Uplink is full",
            Self::TotalExceeded => "Total is above its threshold",
            Self::AllowListWaits => "Allow list waits for approval",
        }
    }
}

/// Something that is wrong beside attacks, and that people are told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Condition {
    /// What.
    pub kind: ConditionKind,
    /// With which exporter, uplink or group, by name.
    pub subject: String,
    /// Since when.
    pub since: Millis,
    /// One sentence with the numbers at its beginning.
    pub text: String,
    /// The group that it is of, whose channels are told; absent when it is of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Everything that is wrong beside attacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Conditions {
    /// What is wrong now, by kind and subject.
    pub now: Vec<Condition>,
    /// Whether weir has watched for long enough to say that nothing else is.
    pub settled: bool,
    /// Of what nothing can be said now, by kind and subject: it stays as it was told.
    #[serde(default)]
    pub unknown: Vec<(ConditionKind, String)>,
}
