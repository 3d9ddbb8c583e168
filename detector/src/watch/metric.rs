//! What is measured of a host and a port, and when a measurement is above a threshold for certain.

use weir_model::{Class, Direction, Metric};

use crate::config::{Config, Floors};
use crate::watch::cell::Cell;

/// Number of metrics of a host.
pub(crate) const METRICS: usize = 12;
/// Index of the first metric of what a host sends.
pub(crate) const OUTBOUND: usize = 9;

/// Metrics of a host in index order.
pub(crate) const HOST_METRICS: [Metric; METRICS] = [
    Metric::PacketsPerSec,
    Metric::BitsPerSec,
    Metric::SynsPerSec,
    Metric::UdpOffServicePerSec,
    Metric::IcmpPerSec,
    Metric::FragmentsPerSec,
    // Replies (SYN-ACK, RST) and other protocols: baseline-free in effect, since few hosts have any.
    Metric::Signature,
    Metric::Signature,
    Metric::SourcesPerSec,
    Metric::PacketsPerSec,
    Metric::BitsPerSec,
    Metric::SynsPerSec,
];

/// Which way a metric looks.
pub(crate) const fn direction(index: usize) -> Direction {
    if index < OUTBOUND { Direction::Inbound } else { Direction::Outbound }
}

/// The index of a metric in a direction.
pub(crate) fn index_of(metric: Metric, way: Direction) -> usize {
    let found = (0..METRICS).find(|i| HOST_METRICS[*i] == metric && direction(*i) == way);
    found.unwrap_or(if way == Direction::Inbound { PACKETS } else { OUTBOUND })
}

/// The index of a metric whose threshold an operator may set: `Signature` stands for several, and others
/// have none in this direction.
pub(crate) fn settable(metric: Metric, way: Direction) -> Option<usize> {
    let at = (0..METRICS).find(|i| HOST_METRICS[*i] == metric && direction(*i) == way)?;
    (metric != Metric::Signature).then_some(at)
}

/// Whether a metric counts bits.
pub(crate) const fn is_bits(index: usize) -> bool {
    index == BITS || index == OUTBOUND + BITS
}

/// Index of packets a second.
pub(crate) const PACKETS: usize = 0;
/// Index of bits a second.
pub(crate) const BITS: usize = 1;
/// Index of new sources a second.
pub(crate) const SOURCES: usize = 8;

/// Values of all metrics of a sum over a window: packets or bits, not yet per second.
pub(crate) fn values(cell: &Cell) -> [u64; METRICS] {
    let class = |c: Class| u64::from(cell.class(c));
    [
        cell.total(),
        cell.bytes.saturating_mul(8),
        class(Class::TcpSyn),
        class(Class::Udp).saturating_sub(u64::from(cell.service_udp)),
        class(Class::Icmp),
        class(Class::Fragment),
        class(Class::TcpSynAck).saturating_add(class(Class::TcpRst)),
        class(Class::Other),
        u64::from(cell.new_sources),
        u64::from(cell.out_packets),
        cell.out_bytes.saturating_mul(8),
        u64::from(cell.out_syn),
    ]
}

/// The floors in index order.
pub(crate) const fn floors(floors: &Floors) -> [f64; METRICS] {
    [
        floors.packets_per_sec,
        floors.bits_per_sec,
        floors.syns_per_sec,
        floors.udp_off_service_per_sec,
        floors.icmp_per_sec,
        floors.fragments_per_sec,
        floors.tcp_replies_per_sec,
        floors.other_per_sec,
        floors.new_sources_per_sec,
        floors.outbound_packets_per_sec,
        floors.outbound_bits_per_sec,
        floors.outbound_syns_per_sec,
    ]
}

/// One window to test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Test {
    /// Its length, milliseconds.
    pub(crate) ms: u64,
    /// How many times the threshold the rate must be, at least 1.
    pub(crate) guard: f64,
}

/// When a measured sum is certainly above a threshold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Significance {
    /// Fewest effective samples.
    pub(crate) min_samples: f64,
    /// Natural logarithm of the largest false-alarm probability.
    pub(crate) ln_tail: f64,
}

impl Significance {
    /// As an operator has set it.
    pub(crate) fn of(config: &Config) -> Self {
        Self { min_samples: config.min_samples, ln_tail: config.tail.max(1e-300).ln() }
    }

    /// Whether a true rate of `threshold` could not have shown `value` over the window.
    ///
    /// `value` and `threshold` in the same unit, `threshold` a second; `samples` is the effective
    /// number of samples behind `value`. The tail of the Poisson distribution is taken by its
    /// large-deviation bound with the first correction (Bahadur and Rao), which also holds for
    /// fractional counts.
    pub(crate) fn above(&self, value: f64, threshold: f64, samples: f64, test: Test) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "window lengths are small")]
        let limit = threshold * (test.ms as f64) / 1000.0;
        if value <= limit * test.guard || samples < self.min_samples || limit <= 0.0 {
            return value > 0.0 && limit <= 0.0 && samples >= self.min_samples;
        }
        let expected = samples * limit / value;
        ln_poisson_tail(samples, expected) < self.ln_tail
    }
}

/// Natural logarithm of P(X >= n) for a Poisson variable of mean `mu` < n, from above.
pub(crate) fn ln_poisson_tail(n: f64, mu: f64) -> f64 {
    if n <= mu {
        return 0.0;
    }
    let rate = n * (n / mu).ln() - n + mu;
    let correction = (1.0 - mu / n).ln() + 0.5 * (std::f64::consts::TAU * n).ln();
    // Close to the mean the correction is no longer valid and negative; the bound alone holds.
    -(rate + correction.max(0.0))
}

/// Effective samples behind a part of a cell: all packets have the cell's average rate.
#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
pub(crate) fn part_samples(part: u64, total: u64, variance: u64) -> f64 {
    if variance == 0 { 0.0 } else { part as f64 * total as f64 / variance as f64 }
}

/// Effective samples behind metric `index` of a cell. Octets vary from packet to packet, so that a
/// sum of octets is worth about half as many samples. What goes out is sampled like what comes in,
/// and where nothing does, one in `sampling`.
#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
pub(crate) fn samples(cell: &Cell, values: &[u64; METRICS], index: usize, sampling: f64) -> f64 {
    // Sources are counted as they are reported, whatever else each packet stands for.
    if index == SOURCES {
        return values[SOURCES] as f64;
    }
    let total = values[PACKETS];
    let rate = if total == 0 { sampling } else { cell.variance as f64 / total as f64 };
    let packets = match index {
        BITS => total,
        i if i == OUTBOUND + BITS => values[OUTBOUND],
        i => values[i],
    };
    let worth = if is_bits(index) { 0.5 } else { 1.0 };
    packets as f64 / rate.max(1.0) * worth
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Significance = Significance { min_samples: 15.0, ln_tail: -20.72 };

    #[test]
    fn the_tail_is_close_to_the_exact_one() {
        // Exact values by summation.
        let check = |n: u32, mu: f64| {
            let mut term = (-mu).exp();
            let mut tail = 0.0;
            for k in 0..n + 200 {
                if k >= n {
                    tail += term;
                }
                term *= mu / f64::from(k + 1);
            }
            let ours = ln_poisson_tail(f64::from(n), mu);
            assert!((ours - tail.ln()).abs() < 0.15, "{n} {mu}: {ours} {}", tail.ln());
        };
        check(15, 1.0);
        check(20, 4.0);
        check(60, 20.0);
        check(150, 80.0);
    }

    #[test]
    fn a_handful_of_samples_never_alarms() {
        let second = Test { ms: 1000, guard: 1.0 };
        // 14 samples of 1:1000 against 100 packets a second.
        assert!(!RULE.above(14_000.0, 100.0, 14.0, second));
        assert!(RULE.above(16_000.0, 100.0, 16.0, second));
        // Twice the threshold at 1:1000 needs more than one second.
        assert!(!RULE.above(40_000.0, 20_000.0, 40.0, second));
        assert!(RULE.above(120_000.0, 20_000.0, 120.0, Test { ms: 3000, guard: 1.0 }));
        // Unsampled, a fifth above the threshold is enough.
        assert!(RULE.above(24_000.0, 20_000.0, 24_000.0, second));
        // A part of a second needs a multiple.
        let tenth = Test { ms: 100, guard: 5.0 };
        assert!(!RULE.above(8_000.0, 20_000.0, 8_000.0, tenth));
        assert!(RULE.above(20_000.0, 20_000.0, 20.0, tenth));
    }
}
