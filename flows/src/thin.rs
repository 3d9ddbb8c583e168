//! How much is left out when more comes than can be kept: a state machine, fed once a second.

/// At most one in so many is kept.
pub const THINNED_MAX: u32 = 1024;
/// Quiet seconds before more is kept again.
const CALM_SECS: u32 = 10;
/// Logs that wait to be sealed before records are left out.
const WAITING_MAX: usize = 3;

/// What a second was like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Share of it in which the log was being written.
    pub busy: f64,
    /// Closed logs that wait to be sealed.
    pub waiting: usize,
    /// Records lost before they came here.
    pub lost: u64,
}

/// The state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thin {
    keep_one_in: u32,
    calm: u32,
}

impl Default for Thin {
    fn default() -> Self {
        Self { keep_one_in: 1, calm: 0 }
    }
}

impl Thin {
    /// One in how many records is kept: a power of two.
    pub const fn keep_one_in(self) -> u32 {
        self.keep_one_in
    }

    /// A second has passed.
    pub fn second(&mut self, load: Load) {
        if load.busy > 0.8 || load.waiting > WAITING_MAX || load.lost > 0 {
            self.keep_one_in = (self.keep_one_in * 2).min(THINNED_MAX);
            self.calm = 0;
        } else if load.busy < 0.3 && load.waiting <= 1 {
            self.calm += 1;
            if self.calm >= CALM_SECS {
                self.keep_one_in = (self.keep_one_in / 2).max(1);
                self.calm = 0;
            }
        } else {
            self.calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_thins_at_once_and_recovers_slowly() {
        let mut thin = Thin::default();
        let slow = Load { busy: 0.9, ..Load::default() };
        for expected in [2, 4, 8] {
            thin.second(slow);
            assert_eq!(thin.keep_one_in(), expected);
        }
        (0..9).for_each(|_| thin.second(Load::default()));
        assert_eq!(thin.keep_one_in(), 8);
        thin.second(Load::default());
        assert_eq!(thin.keep_one_in(), 4);
        // Neither slow nor idle: as it is.
        (0..100).for_each(|_| thin.second(Load { busy: 0.5, ..Load::default() }));
        assert_eq!(thin.keep_one_in(), 4);
        for load in [Load { waiting: 4, ..Load::default() }, Load { lost: 1, ..Load::default() }] {
            thin.second(load);
        }
        assert_eq!(thin.keep_one_in(), 16);
        (0..100).for_each(|_| thin.second(slow));
        assert_eq!(thin.keep_one_in(), THINNED_MAX);
    }
}
