//! Exporters that have fallen silent: of what they carried nothing is known, so that nothing is concluded
//! from it. No incident ends, no baseline follows, and no measure is said to work.

use weir_model::{ExporterStatus, Millis};

use crate::evidence::Packet;

/// Silence of an exporter, beyond the lag of its exports, from which it is blind, milliseconds.
const SILENT_MS: u64 = 5_000;
/// How long silence is waited out, milliseconds: an exporter that does not come back within half an hour
/// has been taken out of service, and people have been told.
const WAITED_MS: u64 = 1_800_000;
/// Share of the traffic that an exporter must have carried to count.
const CARRIED_MIN: f64 = 0.2;

/// When exporters last spoke, by their number.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    spoke: Vec<Option<(Millis, u64)>>,
}

impl Liveness {
    /// Takes up a report; several shards tell of the same exporter.
    pub(crate) fn take(&mut self, exporters: &[ExporterStatus]) {
        for exporter in exporters {
            let at = usize::from(exporter.id.0);
            if self.spoke.len() <= at {
                self.spoke.resize(at + 1, None);
            }
            let (seen, lag) = self.spoke[at].unwrap_or_default();
            self.spoke[at] = Some((seen.max(exporter.last_seen), lag.max(exporter.lag_ms)));
        }
    }

    /// Whether an exporter has been silent for longer than it ever is, and may still come back. One that
    /// nobody reports on is not known to be silent.
    pub(crate) fn is_silent(&self, exporter: u16, now: Millis) -> bool {
        self.spoke.get(usize::from(exporter)).copied().flatten().is_some_and(|(spoke, lag)| {
            let silence = now.since(spoke);
            silence >= SILENT_MS + lag.min(90_000) && silence < WAITED_MS
        })
    }
}

/// Exporters that carry a fair share of some packets, in order of their numbers.
pub(crate) fn carriers<'p>(packets: impl Iterator<Item = &'p Packet>) -> Vec<u16> {
    let mut by: Vec<(u16, f64)> = packets.map(|p| (p.exporter, f64::from(p.packets))).collect();
    by.sort_by_key(|(exporter, _)| *exporter);
    let total: f64 = by.iter().map(|(_, packets)| packets).sum();
    by.chunk_by(|a, b| a.0 == b.0)
        .filter(|run| run.iter().map(|(_, packets)| packets).sum::<f64>() >= CARRIED_MIN * total)
        .map(|run| run[0].0)
        .collect()
}
