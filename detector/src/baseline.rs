//! What is normal: the 99th percentile of the last five minutes, bounded in growth.

use serde::{Deserialize, Serialize};

/// Seconds in the sliding window (the card's 300 samples).
pub(crate) const RING: usize = 300;
/// Seconds that wait before they may enter the ring, at most.
pub(crate) const QUARANTINE_MAX: usize = 60;

/// A number of 0 and above as one byte: eight steps an octave, so that it is off by at most 6 %.
pub(crate) fn to_log(value: u64) -> u8 {
    let v = value.saturating_add(8);
    let octave = 63 - u64::from(v.leading_zeros());
    let step = (v >> (octave - 3)) & 7;
    u8::try_from((octave - 3) * 8 + step).unwrap_or(u8::MAX)
}

/// The middle of the numbers that share a byte.
pub(crate) fn from_log(log: u8) -> f64 {
    if log == 0 {
        return 0.0;
    }
    let octave = i32::from(log / 8);
    let step = f64::from(log % 8);
    (8.0 + step + 0.5) * f64::from(octave).exp2() - 8.0
}

/// One metric's baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Last seconds, by [`to_log`].
    #[serde(with = "serde_bytes_array")]
    ring: [u8; RING],
    /// Seconds entered so far, at most `RING`.
    len: u16,
    /// Next place to write.
    at: u16,
    /// The percentile as last computed.
    p99: f64,
    /// The percentile with bounded growth.
    level: f64,
    /// Moving average of the seconds entered.
    mean: f64,
}

mod serde_bytes_array {
    //! serde derives arrays up to 32 elements only.
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::RING;

    pub(super) fn serialize<S: Serializer>(ring: &[u8; RING], s: S) -> Result<S::Ok, S::Error> {
        ring.as_slice().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; RING], D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("a ring of 300 bytes"))
    }
}

impl Default for Baseline {
    fn default() -> Self {
        Self { ring: [0; RING], len: 0, at: 0, p99: 0.0, level: 0.0, mean: 0.0 }
    }
}

impl Baseline {
    /// Enters one second that is known to be free of attacks.
    pub(crate) fn feed(&mut self, log: u8) {
        self.ring[usize::from(self.at)] = log;
        self.at = if usize::from(self.at) + 1 == RING { 0 } else { self.at + 1 };
        self.len = self.len.saturating_add(1).min(300);
        let weight = 1.0 / f64::from(self.len);
        self.mean += (from_log(log) - self.mean) * weight;
    }

    /// A baseline of so many seconds without traffic.
    pub(crate) fn quiet(seconds: u16) -> Self {
        let len = seconds.min(300);
        Self { len, at: if len == 300 { 0 } else { len }, ..Self::default() }
    }

    /// Seconds entered, at most 300.
    pub(crate) const fn len(&self) -> u16 {
        self.len
    }

    /// Average a second over about the last five minutes.
    pub(crate) const fn mean(&self) -> f64 {
        self.mean
    }

    /// The percentile with bounded growth.
    pub(crate) const fn level(&self) -> f64 {
        self.level
    }

    /// The percentile as the window has it.
    pub(crate) const fn p99(&self) -> f64 {
        self.p99
    }

    /// Recomputes. `free` is a level up to which growth is not bounded (the floor over the
    /// multiplier: below, the threshold does not move anyhow); `growth` the factor by which the
    /// level may have grown since the last time.
    pub(crate) fn recompute(&mut self, free: f64, growth: f64) {
        let len = usize::from(self.len);
        if len == 0 {
            return;
        }
        // By nearest rank the 99th percentile of 300 values is the fourth largest. A selection
        // among few beats a sort.
        let rank = (len - (len * 99).div_ceil(100) + 1).clamp(1, 4);
        let mut top = [0_u8; 4];
        for &log in &self.ring[..len] {
            if log > top[3] {
                top[3] = log;
                let mut i = 3;
                while i > 0 && top[i] > top[i - 1] {
                    top.swap(i, i - 1);
                    i -= 1;
                }
            }
        }
        self.p99 = from_log(top[rank - 1]);
        // While the window fills for the first time there is nothing to have grown from.
        let bound = if len < RING { f64::INFINITY } else { (self.level * growth).max(free) };
        self.level = self.p99.min(bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_off_by_seven_percent_at_most() {
        for value in [0_u64, 1, 5, 9, 100, 999, 20_000, 1_234_567, 10_000_000_000] {
            let back = from_log(to_log(value));
            #[expect(clippy::cast_precision_loss, reason = "test values are small")]
            let off = (back - value as f64).abs();
            assert!(off <= 1.0 + back * 0.07, "{value} -> {back}");
        }
        assert_eq!(to_log(u64::MAX), u8::MAX);
    }

    #[test]
    fn p99_is_the_fourth_largest_of_300() {
        let mut base = Baseline::default();
        for i in 0..300_u64 {
            base.feed(to_log(if i % 100 == 0 { 50_000 } else { 1000 }));
        }
        base.recompute(0.0, 1.0);
        assert!((900.0..1100.0).contains(&base.p99()), "{}", base.p99());
        base.feed(to_log(50_000));
        base.recompute(0.0, 1.25);
        base.feed(to_log(50_000));
        base.recompute(0.0, 1.25);
        assert!(base.p99() > 40_000.0);
        assert!(base.level() < 1600.0, "growth is bounded: {}", base.level());
    }
}
