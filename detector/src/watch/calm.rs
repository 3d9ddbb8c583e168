//! A look at a second that costs little: whether it is far below every threshold.

use crate::watch::cell::{Cell, saturate};
use crate::watch::metric::{BITS, METRICS, OUTBOUND, PACKETS, SOURCES, is_bits};

/// Limits of sums below which no metric is near its threshold: most hosts need no closer look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calm {
    packets: u64,
    bytes: u64,
    new_sources: u32,
    out_packets: u32,
    out_bytes: u64,
}

impl Calm {
    /// Of thresholds, and the share of these that is near.
    pub(crate) fn of(thresholds: &[f64; METRICS], near: f64) -> Self {
        // A little less, for all that is rounded on the way.
        let near = near * 0.999;
        let least = |range: std::ops::Range<usize>| {
            let counts = range.filter(|i| !is_bits(*i) && *i != SOURCES);
            counts.map(|i| whole(thresholds[i] * near)).min().unwrap_or(0)
        };
        Self {
            packets: least(PACKETS..OUTBOUND),
            bytes: whole(thresholds[BITS] * near / 8.0),
            new_sources: saturate(whole(thresholds[SOURCES] * near)),
            out_packets: saturate(least(OUTBOUND..METRICS)),
            out_bytes: whole(thresholds[OUTBOUND + BITS] * near / 8.0),
        }
    }

    /// Whether a second is below all of them: every count of packets is one of a part of them.
    pub(crate) fn holds(&self, cell: &Cell) -> bool {
        cell.total() <= self.packets
            && cell.bytes <= self.bytes
            && cell.new_sources <= self.new_sources
            && cell.out_packets <= self.out_packets
            && cell.out_syn <= self.out_packets
            && cell.out_bytes <= self.out_bytes
    }
}

/// The whole part of a threshold.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and `as` saturates"
)]
pub(crate) const fn whole(value: f64) -> u64 {
    value as u64
}
