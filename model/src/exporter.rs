//! Exporters as an operator sees them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{LinkCount, Millis};

/// An exporter's number within this run: index into the table of exporters.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExporterId(pub u16);

/// A flow export protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum FlowProtocol {
    /// Cisco NetFlow version 5.
    NetflowV5,
    /// Cisco NetFlow version 9 (RFC 3954).
    NetflowV9,
    /// IPFIX (RFC 7011).
    Ipfix,
    /// sFlow version 5.
    Sflow,
}

impl FlowProtocol {
    /// Name for metrics labels and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetflowV5 => "netflow-v5",
            Self::NetflowV9 => "netflow-v9",
            Self::Ipfix => "ipfix",
            Self::Sflow => "sflow",
        }
    }
}

/// Where an exporter's sampling rate comes from, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum SamplingSource {
    /// Set by the operator.
    Operator,
    /// Sampler table matched by sampler or selector id.
    Sampler,
    /// Option scoped to the interface.
    Interface,
    /// Option scoped to the template (IE 145).
    Template,
    /// Option of the whole observation domain (IE 34, 50).
    Domain,
    /// In the record or datagram itself.
    Record,
    /// sFlow: change of the sample pool over samples received.
    Pool,
    /// The exporter's configured default.
    Default,
    /// Nobody says: counted as 1 and flagged.
    Unknown,
}

/// One exporter's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExporterStatus {
    /// Its number in this run, the same in every shard.
    pub id: ExporterId,
    /// Its address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
    /// The sFlow agent it is, of the several that may be behind one address.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub agent: Option<IpAddr>,
    /// Its name in the configuration, else its address.
    pub name: String,
    /// What it last sent.
    pub protocol: Option<FlowProtocol>,
    /// When it last sent something.
    pub last_seen: Millis,
    /// Datagrams accepted.
    pub datagrams: u64,
    /// Flow records and packet samples decoded.
    pub records: u64,
    /// Datagrams or sets that could not be read in full.
    pub decode_errors: u64,
    /// Data sets whose template is not known yet.
    pub unknown_templates: u64,
    /// Records or datagrams missing by sequence number.
    pub lost: u64,
    /// Templates known.
    pub templates: u32,
    /// Sampling rate last applied.
    pub sampling: u32,
    /// Where that came from.
    pub sampling_source: SamplingSource,
    /// Learned export lag, 99th percentile, milliseconds.
    pub lag_ms: u64,
    /// Learned export lag, median, milliseconds.
    #[serde(default)]
    pub lag_p50_ms: u64,
    /// Active timeout of its flow cache as its options say, else as its long flows show; 0 when there
    /// were none. Milliseconds.
    #[serde(default)]
    pub active_timeout_ms: u64,
    /// Records of packets that other records had told of: not counted again.
    #[serde(default)]
    pub duplicates: u64,
    /// What was not counted as traffic, by reason, in a fixed order; reasons that never occurred are
    /// left out.
    #[serde(default)]
    pub drops: Vec<DropCount>,
    /// The rate that it lately said and that is not believed before it is said again; 0 for none.
    #[serde(default)]
    pub sampling_doubted: u32,
    /// Exporter's clock minus ours, milliseconds; of several observation domains the one furthest off.
    pub clock_skew_ms: i64,
    /// What is wrong with what it sends, in a fixed order; nothing when all is well.
    #[serde(default)]
    pub troubles: Vec<ExporterTrouble>,
    /// What is known of its interfaces, by index, at most 256; none of an exporter that is alone and
    /// tells no counters.
    #[serde(default)]
    pub interfaces: Vec<InterfaceStatus>,
    /// What passed those of its interfaces that belong to an uplink, by index.
    #[serde(default)]
    pub links: Vec<LinkCount>,
}

/// What is wrong with what an exporter sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ExporterTrouble {
    /// It sends, and nothing of it can be read.
    NothingDecoded,
    /// Its clock is more than five seconds off.
    ClockOff,
    /// Some of its records lately told of more than packets hold or interfaces carry.
    Implausible,
    /// Two of its words on its sampling rate contradict each other.
    SamplingDisputed,
    /// It lately said a rate so far from what is known that it must say it again before it counts.
    SamplingUnconfirmed,
    /// For minutes its interface counters have counted something else than its samples tell.
    CountersDiffer,
    /// Several senders share its address and the numbers of their domains and templates.
    SharedAddress,
}

impl ExporterTrouble {
    /// For a log line or a cell of a table.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NothingDecoded => "nothing can be decoded",
            Self::ClockOff => "clock is off",
            Self::Implausible => "impossible records",
            Self::SamplingDisputed => "sampling rate is disputed",
            Self::SamplingUnconfirmed => "a far-off sampling rate is not confirmed",
            Self::CountersDiffer => "interface counters and samples differ",
            Self::SharedAddress => "several senders share its address",
        }
    }
}

/// Where an interface leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum InterfaceRole {
    /// Not known yet.
    #[default]
    Unknown,
    /// Named by the operator in `external_interfaces`.
    SetExternal,
    /// Most sources of what comes in are not protected.
    External,
    /// Most sources of what comes in are protected.
    Internal,
}

/// What is known of one interface of an exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct InterfaceStatus {
    /// Interface index.
    pub index: u32,
    /// What the operator or the exporter calls it; empty when nobody does.
    #[serde(default)]
    pub name: String,
    /// What the exporter says beside its name.
    #[serde(default)]
    pub description: String,
    /// Where it leads.
    pub role: InterfaceRole,
    /// The exporter whose packets it reports once more: what that one has told is not counted again.
    pub repeats: Option<ExporterId>,
    /// Speed by its counters, bits a second; 0 when not said.
    pub speed_bps: u64,
    /// Received according to its counters, bits a second; 0 without counters.
    pub counted_in_bps: u64,
    /// Received according to the samples while those were counted, bits a second: far from the above
    /// means that the sampling rate is not what weir takes it for, or that samples are lost.
    pub sampled_in_bps: u64,
}

impl InterfaceStatus {
    /// Takes over what another look at the same interface has and this one lacks.
    pub fn add(&mut self, other: Self) {
        if self.role == InterfaceRole::Unknown || other.role == InterfaceRole::SetExternal {
            self.role = other.role;
        }
        self.repeats = self.repeats.or(other.repeats);
        for (own, others) in
            [(&mut self.name, other.name), (&mut self.description, other.description)]
        {
            if own.is_empty() {
                *own = others;
            }
        }
        if other.speed_bps > 0 || other.counted_in_bps > 0 {
            self.speed_bps = other.speed_bps;
            self.counted_in_bps = other.counted_in_bps;
            self.sampled_in_bps = other.sampled_in_bps;
        }
    }
}

/// How often something of an exporter was not counted as traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DropCount {
    /// Why: a kind of decoding error, `unknown-template`, `duplicate`, `not-ip`,
    /// `not-traffic` or `implausible`.
    pub reason: String,
    /// Datagrams, sets, samples or records, as the reason has it.
    pub count: u64,
}
