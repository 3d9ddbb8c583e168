//! Cumulative sum: slow ramps, of which no single window is out of the ordinary.
//!
//! Every ten seconds the packets above the average are added up in units of their usual spread,
//! less half a unit; more than eight of them are no chance (Page 1954).

use serde::{Deserialize, Serialize};

/// Seconds added up at a time.
pub(crate) const STEP: u64 = 10;
/// Units above the average that do not count.
const SLACK: f64 = 0.5;
/// Sum from which there is an alarm.
pub(crate) const LIMIT: f64 = 8.0;
/// Sum from which the spread is no longer learned: what ramps up must not seem usual.
const LEARN_BELOW: f64 = 4.0;
/// Ordinary traffic swings by this share of its average at least.
const SWING_MIN: f64 = 0.05;
/// Weight of the newest step in the spread.
const NEWEST: f64 = 0.1;

/// The sum of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cusum {
    sum: f32,
    /// Variance of ten seconds' packets.
    spread: f32,
}

impl Cusum {
    /// Takes ten seconds: their packets, those expected, and the variance that sampling gives them.
    pub(crate) fn step(&mut self, packets: f64, expected: f64, sampled: f64) {
        let above = packets - expected;
        let spread = f64::from(self.spread).max(sampled).max((SWING_MIN * expected).powi(2));
        let sum = f64::from(self.sum) + above / spread.sqrt().max(1.0) - SLACK;
        self.sum = narrow(sum.clamp(0.0, 100.0));
        if sum < LEARN_BELOW {
            let old = f64::from(self.spread);
            self.spread = narrow(old + (above * above - old) * NEWEST);
        }
    }

    /// The sum.
    pub(crate) fn value(self) -> f64 {
        f64::from(self.sum)
    }

    /// Begins anew: what was looked at and found ordinary is ordinary.
    pub(crate) const fn restart(&mut self) {
        self.sum = 0.0;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a statistic, not an account")]
const fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_adds_up_and_swings_do_not() {
        let mut cusum = Cusum::default();
        for i in 0..200 {
            let swing = if i % 2 == 0 { 1.06 } else { 0.94 };
            cusum.step(50_000.0 * swing, 50_000.0, 50_000.0 * 64.0);
            assert!(cusum.value() < 2.0, "{i}: {}", cusum.value());
        }
        let mut steps = 0;
        while cusum.value() <= LIMIT {
            steps += 1;
            cusum.step(50_000.0 * (1.0 + 0.15 * f64::from(steps)), 50_000.0, 50_000.0 * 64.0);
        }
        assert!(steps <= 3, "{steps}");
        cusum.restart();
        assert!(cusum.value() < 0.1);
    }
}
