//! What can be wrong with a datagram.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What was wrong, without where.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Error,
)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum DecodeErrorKind {
    /// The sender is in no `exporters` entry.
    #[error("sender is not a configured exporter")]
    Unlisted,
    /// The table of exporters is full.
    #[error("too many exporters")]
    TooManyExporters,
    /// The datagram ends inside a header.
    #[error("datagram is shorter than its header")]
    ShortHeader,
    /// The version is none that weir reads.
    #[error("unknown version")]
    UnknownVersion,
    /// The datagram ends before what its header announces.
    #[error("datagram ends before what its header announces")]
    Truncated,
    /// A set's length is below its header's or beyond the datagram.
    #[error("set length is impossible")]
    BadSetLength,
    /// A template or options template makes no sense.
    #[error("template is damaged")]
    BadTemplate,
    /// A limit on domains or templates of one exporter is reached.
    #[error("too many templates or domains")]
    TooManyTemplates,
    /// A data record overruns its set.
    #[error("data record overruns its set")]
    BadRecord,
    /// An sFlow sample or its records overrun.
    #[error("sFlow sample is damaged")]
    BadSample,
    /// An sFlow agent address type that does not exist.
    #[error("unknown address type")]
    BadAddressType,
    /// Decoding panicked: a mistake of weir, contained.
    #[error("decoder failed")]
    Internal,
}

impl DecodeErrorKind {
    /// Number of kinds.
    pub const COUNT: usize = 12;
    /// All kinds in index order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unlisted,
        Self::TooManyExporters,
        Self::ShortHeader,
        Self::UnknownVersion,
        Self::Truncated,
        Self::BadSetLength,
        Self::BadTemplate,
        Self::TooManyTemplates,
        Self::BadRecord,
        Self::BadSample,
        Self::BadAddressType,
        Self::Internal,
    ];

    /// Stable identifier: metrics label, `weir inspect`.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::TooManyExporters => "too-many-exporters",
            Self::ShortHeader => "short-header",
            Self::UnknownVersion => "unknown-version",
            Self::Truncated => "truncated",
            Self::BadSetLength => "bad-set-length",
            Self::BadTemplate => "bad-template",
            Self::TooManyTemplates => "too-many-templates",
            Self::BadRecord => "bad-record",
            Self::BadSample => "bad-sample",
            Self::BadAddressType => "bad-address-type",
            Self::Internal => "internal",
        }
    }
}

/// What was wrong with a datagram and where. What stood before it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{kind} at octet {offset}")]
pub struct DecodeError {
    /// What.
    pub kind: DecodeErrorKind,
    /// Octets into the datagram.
    pub offset: u32,
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind, offset: usize) -> Self {
        Self { kind, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
    }
}
