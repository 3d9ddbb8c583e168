//! The crate's chance: xoshiro256++ seeded by SplitMix64, so that a seed gives the same traffic on
//! every machine and in every release (a library's generator may change its stream between versions).

/// A stream of pseudo-random numbers. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

/// One step of SplitMix64: also a good mixer of keys into hashes.
pub(crate) const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The low 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
pub(crate) const fn low32_of(value: u64) -> u32 {
    value as u32
}

/// The low 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
pub(crate) const fn low64_of(value: u128) -> u64 {
    value as u64
}

/// The whole part of a non-negative number; 0 for anything below, the maximum for anything above.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is what is wanted"
)]
pub(crate) const fn whole(value: f64) -> u64 {
    value as u64
}

impl Rng {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        let a = mix(seed);
        let b = mix(a);
        let c = mix(b);
        Self { state: [a, b, c, mix(c)] }
    }

    /// Independent streams from one seed, for instance one for each source of traffic, so that
    /// adding a source leaves the others' packets as they were.
    pub const fn stream(seed: u64, stream: u64) -> Self {
        Self::new(mix(seed) ^ mix(stream).rotate_left(17))
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let c = c ^ a;
        let d = d ^ b;
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Evenly from 0 to `limit - 1`; 0 when `limit` is 0.
    pub const fn below(&mut self, limit: u32) -> u32 {
        (((self.bits() >> 32) * limit as u64) >> 32) as u32
    }

    /// Evenly from `from` to `to`, both included.
    #[expect(clippy::cast_possible_truncation, reason = "at most `to`")]
    pub const fn between(&mut self, from: u16, to: u16) -> u16 {
        let span = (to as u32).saturating_sub(from as u32) + 1;
        (from as u32 + self.below(span)) as u16
    }

    /// Evenly from 0 to just below 1.
    pub const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1: the gap between events of a Poisson process.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// How many events of a Poisson process with mean `mean`: exact below 30, by the rounded
    /// normal approximation above (off by less than 1 % of a standard deviation there).
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > 30.0 {
            return whole(mean + mean.sqrt() * self.normal() + 0.5);
        }
        let floor = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > floor {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// How many trials of probability 1/`rate` fail before the first success: the skip count of a
    /// packet sampler.
    pub fn skip(&mut self, rate: u32) -> u64 {
        if rate <= 1 {
            return 0;
        }
        whole(self.exponential() / -(-1.0 / f64::from(rate)).ln_1p())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_reference_generator() {
        // First outputs of xoshiro256++ from state 1, 2, 3, 4 (Blackman and Vigna's C code).
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| rng.bits()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn means_and_spreads_are_right() {
        let mut rng = Rng::new(7);
        for mean in [0.3, 4.0, 29.0, 300.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| rng.poisson(mean) as f64).collect();
            let average = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|d| (d - average).powi(2)).sum::<f64>() / 20_000.0;
            assert!((average / mean - 1.0).abs() < 0.03, "mean {mean}: {average}");
            assert!((variance / mean - 1.0).abs() < 0.06, "mean {mean}: variance {variance}");
        }
        let skips: f64 = (0..20_000).map(|_| rng.skip(1000) as f64).sum::<f64>() / 20_000.0;
        assert!((skips / 999.0 - 1.0).abs() < 0.03, "{skips}");
        assert_eq!(rng.skip(1), 0);
        assert!((0..1000).map(|_| rng.between(5, 7)).all(|v| (5..=7).contains(&v)));
    }
}
