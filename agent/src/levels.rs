//! Levels of defence: how hard pressed the node is. A pure state machine: up at once, down one step after a
//! minute in which nothing asked for the present one.

use std::fmt;

use weir_model::Millis;

/// How long a level must have been uncalled for before the next lower one.
const QUIET_MS: u64 = 60_000;

/// A level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Counting, learning, sampling.
    #[default]
    Normal,
    /// An attack, or some pressure: packets are kept, sampling is denser.
    Elevated,
    /// The node suffers: limits spare learned players whatever the rule says.
    Constrained,
    /// The node is about to fail: strangers wait.
    Emergency,
}

impl Level {
    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Constrained => "constrained",
            Self::Emergency => "emergency",
        }
    }

    const fn below(self) -> Self {
        match self {
            Self::Normal | Self::Elevated => Self::Normal,
            Self::Constrained => Self::Elevated,
            Self::Emergency => Self::Constrained,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// What is looked at, once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// The appliance has rules for this node.
    pub attack: bool,
    /// Share of the connection table in use, percent.
    pub conntrack_percent: f64,
    /// Share of time in which some task waited for a processor or for memory, the higher one, percent.
    pub waiting_percent: f64,
    /// Packets that the kernel had no time for, in the last second.
    pub softnet_dropped: u64,
}

impl Pressure {
    /// The level it asks for, and why.
    fn asks(&self) -> (Level, &'static str) {
        const PERCENT: [(Level, f64, f64); 2] =
            [(Level::Emergency, 90.0, 80.0), (Level::Constrained, 70.0, 50.0)];
        for (level, conntrack, waiting) in PERCENT {
            if self.conntrack_percent > conntrack {
                return (level, "the connection table fills up");
            }
            if self.waiting_percent > waiting {
                return (level, "tasks wait for processor or memory");
            }
        }
        if self.softnet_dropped > 0 {
            return (Level::Constrained, "the kernel has no time for some packets");
        }
        if self.attack {
            return (Level::Elevated, "an attack");
        }
        if self.waiting_percent > 20.0 {
            return (Level::Elevated, "tasks wait for processor or memory");
        }
        (Level::Normal, "quiet")
    }
}

/// A change of level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Before.
    pub from: Level,
    /// After.
    pub to: Level,
    /// Why.
    pub why: &'static str,
}

/// The present level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    level: Level,
    called_for: Millis,
}

impl Levels {
    /// The present level.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Takes one look; returns a change, which is an event for the audit.
    pub fn look(&mut self, pressure: &Pressure, now: Millis) -> Option<Step> {
        let (asked, why) = pressure.asks();
        let from = self.level;
        if asked >= self.level {
            self.called_for = now;
            self.level = asked;
        } else if now.since(self.called_for) >= QUIET_MS {
            self.called_for = now;
            self.level = self.level.below();
        }
        let why = if self.level > from { why } else { "quiet for a minute" };
        (self.level != from).then_some(Step { from, to: self.level, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_at_once_and_down_step_by_step() {
        let mut levels = Levels::default();
        let calm = Pressure::default();
        let full = Pressure { conntrack_percent: 95.0, ..calm };
        let mut now = Millis(1_000_000);
        let step = levels.look(&full, now).unwrap();
        assert_eq!((step.from, step.to), (Level::Normal, Level::Emergency));
        let mut seen = Vec::new();
        for _ in 0..300 {
            now = now + 1000;
            seen.extend(levels.look(&calm, now).map(|s| (now.secs() - 1000, s.to)));
        }
        assert_eq!(seen, [(60, Level::Constrained), (120, Level::Elevated), (180, Level::Normal)]);
    }

    #[test]
    fn each_pressure_has_its_level() {
        let calm = Pressure::default();
        let check = |pressure: Pressure, wanted| assert_eq!(pressure.asks().0, wanted);
        check(calm, Level::Normal);
        check(Pressure { attack: true, ..calm }, Level::Elevated);
        check(Pressure { waiting_percent: 21.0, ..calm }, Level::Elevated);
        check(Pressure { waiting_percent: 51.0, ..calm }, Level::Constrained);
        check(Pressure { softnet_dropped: 1, attack: true, ..calm }, Level::Constrained);
        check(Pressure { waiting_percent: 81.0, ..calm }, Level::Emergency);
    }
}
