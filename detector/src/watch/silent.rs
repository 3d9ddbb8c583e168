//! Exporters that have fallen silent: of what they carried nothing is known, so that nothing is concluded
//! from it. No incident ends, no baseline follows, and no measure is said to work.

use weir_model::{ExporterStatus, Millis};

use crate::watch::packets::Packet;

/// Silence of an exporter, beyond the lag of its exports, from which it is blind, milliseconds.
const SILENT_MS: u64 = 5_000;
/// How long silence is waited out, milliseconds: an exporter that does not come back within half an hour
/// has been taken out of service, and people have been told.
const WAITED_MS: u64 = 1_800_000;
/// How long an exporter must have been heard before an incident for its silence to mean anything,
/// milliseconds: one that came with the attack, on a link that carries nothing else, may go with it.
const KNOWN_MS: u64 = 60_000;
/// Share of the traffic that an exporter must have carried to count.
const CARRIED_MIN: f64 = 0.2;

/// What is known of an exporter's speaking.
#[derive(Clone, Copy, Debug)]
struct Spoke {
    first: Millis,
    last: Millis,
    lag_ms: u64,
}

/// When exporters spoke first and last, by their number.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    spoke: Vec<Option<Spoke>>,
}

impl Liveness {
    /// Takes up a report; several shards tell of the same exporter.
    pub(crate) fn take(&mut self, exporters: &[ExporterStatus]) {
        for exporter in exporters {
            let at = usize::from(exporter.id.0);
            if self.spoke.len() <= at {
                self.spoke.resize(at + 1, None);
            }
            let seen = exporter.last_seen;
            let spoke = self.spoke[at].get_or_insert(Spoke { first: seen, last: seen, lag_ms: 0 });
            spoke.first = spoke.first.min(seen);
            spoke.last = spoke.last.max(seen);
            spoke.lag_ms = spoke.lag_ms.max(exporter.lag_ms);
        }
    }

    /// Whether an exporter that was heard well before `begun` has been silent for longer than it ever is,
    /// and may still come back. One that nobody reports on is not known to be silent.
    pub(crate) fn is_silent(&self, exporter: u16, begun: Millis, now: Millis) -> bool {
        let spoke = self.spoke.get(usize::from(exporter)).copied().flatten();
        spoke.is_some_and(|Spoke { first, last, lag_ms }| {
            let silence = now.since(last);
            first + KNOWN_MS <= begun
                && silence >= SILENT_MS + lag_ms.min(90_000)
                && silence < WAITED_MS
        })
    }

    /// The same of one whose traffic is part of everyday life.
    pub(crate) fn fell_silent(&self, exporter: u16, now: Millis) -> bool {
        let last = self.spoke.get(usize::from(exporter)).copied().flatten().map(|s| s.last);
        last.is_some_and(|last| self.is_silent(exporter, last, now))
    }
}

impl Liveness {
    /// Whether any exporter whose traffic is part of everyday life has fallen silent.
    pub(crate) fn any_fell_silent(&self, now: Millis) -> bool {
        (0..=u16::MAX).take(self.spoke.len()).any(|exporter| self.fell_silent(exporter, now))
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
