//! What a shard remembers of one exporter.

use std::net::IpAddr;

use rustc_hash::FxHashMap;
use weir_model::{ExporterId, ExporterStatus, FlowProtocol, Millis, SamplingSource};

use crate::config::{Config, ExporterConfig};
use crate::error::DecodeErrorKind;
use crate::sampling::SamplingTable;
use crate::time::{Clock, Lag};

/// Streams of sequence numbers remembered for one exporter.
const MAX_STREAMS: usize = 256;
/// A gap beyond this is a restart of the exporter, not a loss.
const MAX_GAP: u32 = 1_000_000;

/// One exporter's state in one shard.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) id: ExporterId,
    pub(crate) address: IpAddr,
    pub(crate) name: String,
    pub(crate) protocol: Option<FlowProtocol>,
    pub(crate) last_seen: Millis,
    pub(crate) datagrams: u64,
    pub(crate) records: u64,
    pub(crate) errors: [u64; DecodeErrorKind::COUNT],
    pub(crate) unknown_templates: u64,
    pub(crate) implausible_times: u64,
    pub(crate) lost: u64,
    pub(crate) sampling: SamplingTable,
    pub(crate) clock: Clock,
    pub(crate) lag: Lag,
    applied: (u32, SamplingSource),
    sequences: FxHashMap<(u16, u64), u32>,
}

impl Exporter {
    pub(crate) fn new(
        id: ExporterId,
        address: IpAddr,
        entry: Option<&ExporterConfig>,
        _config: &Config,
    ) -> Self {
        let name = entry.and_then(|e| e.name.clone()).unwrap_or_else(|| address.to_string());
        let operator = entry.and_then(|e| e.sampling);
        let fallback = entry.and_then(|e| e.default_sampling);
        Self {
            id,
            address,
            name,
            protocol: None,
            last_seen: Millis(0),
            datagrams: 0,
            records: 0,
            errors: [0; DecodeErrorKind::COUNT],
            unknown_templates: 0,
            implausible_times: 0,
            lost: 0,
            sampling: SamplingTable::new(operator, fallback),
            clock: Clock::default(),
            lag: Lag::default(),
            applied: (1, SamplingSource::Unknown),
            sequences: FxHashMap::default(),
        }
    }

    /// Counts an error of this exporter.
    pub(crate) fn error(&mut self, kind: DecodeErrorKind) {
        let count = &mut self.errors[kind as usize];
        *count = count.saturating_add(1);
    }

    /// Takes note of the sampling rate last used.
    pub(crate) fn applied(&mut self, rate: u32, source: SamplingSource) {
        self.applied = (rate, source);
    }

    /// Follows a stream of sequence numbers: this datagram carries `sequence` and the next one
    /// must carry `sequence + advance`. Version 5 and IPFIX count records, 9 and sFlow datagrams.
    pub(crate) fn sequence(&mut self, version: u16, stream: u64, sequence: u32, advance: u32) {
        let next = sequence.wrapping_add(advance);
        if self.sequences.len() >= MAX_STREAMS && !self.sequences.contains_key(&(version, stream)) {
            return;
        }
        let Some(expected) = self.sequences.insert((version, stream), next) else { return };
        let gap = sequence.wrapping_sub(expected);
        if gap > 0 && gap < MAX_GAP {
            self.lost = self.lost.saturating_add(u64::from(gap));
        } else if gap > u32::MAX - MAX_GAP {
            // An older datagram overtaken on the way: it was counted as lost when the newer one
            // came, and must not turn the expectation back.
            self.lost = self.lost.saturating_sub(u64::from(advance));
            self.sequences.insert((version, stream), expected);
        }
    }

    /// As an operator sees it.
    pub(crate) fn status(&self) -> ExporterStatus {
        ExporterStatus {
            id: self.id,
            address: self.address,
            name: self.name.clone(),
            protocol: self.protocol,
            last_seen: self.last_seen,
            datagrams: self.datagrams,
            records: self.records,
            decode_errors: self.errors.iter().sum(),
            unknown_templates: self.unknown_templates,
            lost: self.lost,
            templates: 0,
            sampling: self.applied.0,
            sampling_source: self.applied.1,
            lag_ms: self.lag.percentile(99),
            clock_skew_ms: self.clock.skew_ms(),
        }
    }
}
