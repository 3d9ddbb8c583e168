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
    MIDDLES[usize::from(log)]
}

/// Worked out once: every host's every metric asks once a second.
static MIDDLES: [f64; 256] = middles();

#[expect(clippy::cast_precision_loss, reason = "five bits, shifted")]
const fn middles() -> [f64; 256] {
    let mut all = [0.0; 256];
    let mut log = 1;
    while log < 256 {
        let (octave, step) = (log / 8, log % 8);
        // Twice (8 + step + 1/2) times two to the octave.
        all[log] = ((17 + 2 * step as u64) << octave) as f64 / 2.0 - 8.0;
        log += 1;
    }
    all
}

/// One metric's baseline.
///
/// Below the least level that moves a threshold (the floor over the multiplier) the seconds
/// themselves are of no use, and their highest stands for the percentile: most metrics of most
/// hosts never need the ring.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub(crate) struct Baseline {
    /// Last seconds, by [`to_log`]; none while all of them are low.
    ring: Option<Box<[u8; RING]>>,
    /// Seconds entered so far, at most `RING`.
    len: u16,
    /// Next place to write.
    at: u16,
    /// Highest second of this round of the ring and of the one before.
    high: [u8; 2],
    /// The percentile as last computed, with bounded growth.
    level: f32,
    /// Moving average of the seconds entered.
    mean: f32,
}

const _: () = assert!(size_of::<Baseline>() <= 24, "twelve of them for each watched host");

/// A baseline in a checkpoint, in the form that it has had since 99th percentiles were kept: `p99` follows
/// from the ring, and what is read of it is not used.
#[derive(Serialize, Deserialize)]
struct Form {
    #[serde(with = "ring_bytes")]
    ring: Option<Box<[u8; RING]>>,
    len: u16,
    at: u16,
    high: [u8; 2],
    p99: f32,
    level: f32,
    mean: f32,
}

impl From<Form> for Baseline {
    fn from(Form { ring, len, at, high, level, mean, .. }: Form) -> Self {
        Self { ring, len, at, high, level, mean }
    }
}

impl From<Baseline> for Form {
    fn from(base: Baseline) -> Self {
        let p99 = narrow(base.p99());
        let Baseline { ring, len, at, high, level, mean } = base;
        Self { ring, len, at, high, p99, level, mean }
    }
}

mod ring_bytes {
    //! serde derives arrays up to 32 elements only.
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::RING;

    type Ring = Option<Box<[u8; RING]>>;

    pub(crate) fn serialize<S: Serializer>(ring: &Ring, s: S) -> Result<S::Ok, S::Error> {
        ring.as_ref().map_or([].as_slice(), |r| r.as_slice()).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Ring, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let ring: Result<Box<[u8; RING]>, _> = bytes.into_boxed_slice().try_into();
        ring.map(Some).map_err(|_| serde::de::Error::custom("a ring of 300 bytes"))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a statistic, not an account")]
const fn narrow(value: f64) -> f32 {
    value as f32
}

impl Baseline {
    /// Enters one second that is known to be free of attacks; `low` is the most that needs no ring.
    pub(crate) fn feed(&mut self, log: u8, low: u8) {
        if self.ring.is_none() && log > low {
            self.ring = Some(Box::new([0; RING]));
        }
        let at = usize::from(self.at).min(RING - 1);
        // Of most metrics most hosts have nothing, and never had.
        if log == 0 && self.ring.is_none() && self.mean == 0.0 && self.high == [0, 0] {
            self.at = if at + 1 == RING { 0 } else { self.at + 1 };
            self.len = self.len.saturating_add(1).min(300);
            return;
        }
        if let Some(ring) = &mut self.ring {
            ring[at] = log;
        }
        self.high[0] = self.high[0].max(log);
        self.at = u16::try_from(at + 1).unwrap_or(0);
        if at + 1 == RING {
            self.at = 0;
            if self.high[0].max(self.high[1]) <= low {
                self.ring = None;
            }
            self.high = [0, self.high[0]];
        }
        self.len = self.len.saturating_add(1).min(300);
        let weight = 1.0 / f64::from(self.len);
        self.mean = narrow(self.mean() + (from_log(log) - self.mean()) * weight);
    }

    /// Whether its seconds are kept one by one.
    pub(crate) const fn has_ring(&self) -> bool {
        self.ring.is_some()
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
    pub(crate) fn mean(&self) -> f64 {
        f64::from(self.mean)
    }

    /// The percentile with bounded growth.
    pub(crate) fn level(&self) -> f64 {
        f64::from(self.level)
    }

    /// The percentile as the window has it.
    pub(crate) fn p99(&self) -> f64 {
        match &self.ring {
            Some(ring) => fourth(&ring[..usize::from(self.len).clamp(1, RING)]),
            None => from_log(self.high[0].max(self.high[1])),
        }
    }

    /// Recomputes. `free` is a level up to which growth is not bounded (the floor over the
    /// multiplier: below, the threshold does not move anyhow); `growth` the factor by which the
    /// level may have grown since the last time.
    pub(crate) fn recompute(&mut self, free: f64, growth: f64) {
        let len = usize::from(self.len);
        if len == 0 {
            return;
        }
        let p99 = self.p99();
        // While the window fills for the first time there is nothing to have grown from.
        let bound = if len < RING { f64::INFINITY } else { (self.level() * growth).max(free) };
        self.level = narrow(p99.min(bound));
    }
}

/// By nearest rank the 99th percentile of 300 values is the fourth largest. A selection among few
/// beats a sort.
fn fourth(seconds: &[u8]) -> f64 {
    let len = seconds.len();
    let rank = (len - (len * 99).div_ceil(100) + 1).clamp(1, 4);
    let mut top = [0_u8; 4];
    for &log in seconds {
        if log > top[3] {
            top[3] = log;
            let mut i = 3;
            while i > 0 && top[i] > top[i - 1] {
                top.swap(i, i - 1);
                i -= 1;
            }
        }
    }
    from_log(top[rank - 1])
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
            base.feed(to_log(if i % 100 == 0 { 50_000 } else { 1000 }), 0);
        }
        base.recompute(0.0, 1.0);
        assert!((900.0..1100.0).contains(&base.p99()), "{}", base.p99());
        base.feed(to_log(50_000), 0);
        base.recompute(0.0, 1.25);
        base.feed(to_log(50_000), 0);
        base.recompute(0.0, 1.25);
        assert!(base.p99() > 40_000.0);
        assert!(base.level() < 1600.0, "growth is bounded: {}", base.level());
    }

    #[test]
    fn low_seconds_are_kept_by_their_highest() {
        let mut base = Baseline::default();
        let low = to_log(2000);
        for i in 0..900_u64 {
            base.feed(to_log(500 + i % 7 * 100), low);
        }
        assert!(!base.has_ring());
        base.recompute(0.0, 1.0);
        assert!((1000.0..1200.0).contains(&base.p99()), "{}", base.p99());
        assert!((700.0..900.0).contains(&base.mean()), "{}", base.mean());
        base.feed(to_log(9000), low);
        assert!(base.has_ring());
        for _ in 0..900 {
            base.feed(to_log(800), low);
        }
        assert!(!base.has_ring(), "quiet again");
    }
}
