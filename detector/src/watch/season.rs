//! What was normal at this hour in weeks past, and the highest of the last fortnight: an evening's
//! rush or a weekly event is no news.

use serde::{Deserialize, Serialize};

use crate::watch::baseline::{from_log, to_log};

const HOURS: usize = 168;
const DAYS: usize = 14;
/// Weight of the present week beside the past ones.
const NEWEST: f64 = 0.3;

/// Packets and octets a second, as logarithms ([`to_log`]).
type Pair = [u8; 2];

/// A series' memory of hours and days.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Season {
    /// By hour of the week.
    hours: Vec<Pair>,
    /// Highest hour, by day.
    days: Vec<Pair>,
    /// Hour since the epoch that is under way.
    hour: u64,
    /// Highest 99th percentile in it.
    peak: Pair,
}

fn higher(a: Pair, b: Pair) -> Pair {
    [a[0].max(b[0]), a[1].max(b[1])]
}

fn place(at: u64, len: usize) -> usize {
    usize::try_from(at % len as u64).unwrap_or(0)
}

impl Season {
    pub(crate) fn new(second: u64) -> Self {
        Self {
            hours: vec![[0; 2]; HOURS],
            days: vec![[0; 2]; DAYS],
            hour: second / 3600,
            peak: [0; 2],
        }
    }

    /// Whether a checkpoint's lengths are what they must be.
    pub(crate) fn is_sound(&self) -> bool {
        self.hours.len() == HOURS && self.days.len() == DAYS
    }

    /// Takes the present percentiles: packets and octets a second.
    pub(crate) fn note(&mut self, second: u64, now: [f64; 2]) {
        let hour = second / 3600;
        if hour > self.hour {
            self.close(hour);
        }
        self.peak = higher(self.peak, now.map(log));
    }

    fn close(&mut self, next: u64) {
        let cell = &mut self.hours[place(self.hour, HOURS)];
        for (old, peak) in cell.iter_mut().zip(self.peak) {
            *old = if *old == 0 {
                peak
            } else {
                log(from_log(*old) * (1.0 - NEWEST) + from_log(peak) * NEWEST)
            };
        }
        let (day, next_day) = (self.hour / 24, next / 24);
        let today = &mut self.days[place(day, DAYS)];
        *today = higher(*today, self.peak);
        for day in (day + 1..=next_day).take(DAYS) {
            self.days[place(day, DAYS)] = [0; 2];
        }
        self.hour = next;
        self.peak = [0; 2];
    }

    /// What was normal around this hour of the week.
    pub(crate) fn normal(&self, second: u64) -> [f64; 2] {
        let hour = second / 3600;
        let around = [hour + HOURS as u64 - 1, hour, hour + 1];
        let cells = around.map(|h| self.hours[place(h, HOURS)]);
        cells.into_iter().fold([0; 2], higher).map(from_log)
    }

    /// The highest of the last fortnight.
    pub(crate) fn highest(&self) -> [f64; 2] {
        self.days.iter().copied().fold([0; 2], higher).map(from_log)
    }
}

fn log(value: f64) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let whole = value.max(0.0) as u64;
    to_log(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_weeks_rush_is_expected_and_last_months_is_forgotten() {
        let start = 1_800_000_000 / 3600 * 3600;
        let mut season = Season::new(start);
        season.note(start + 600, [50_000.0, 1e7]);
        season.note(start + 3600, [100.0, 1e4]);
        let week = 7 * 86_400;
        assert!(season.normal(start + week)[0] > 45_000.0);
        assert!(season.normal(start + week + 3600)[0] > 45_000.0, "an hour either way");
        assert!(season.normal(start + week + 3 * 3600)[0] < 200.0);
        assert!(season.highest()[0] > 45_000.0);
        for day in 1..20 {
            season.note(start + day * 86_400, [100.0, 1e4]);
        }
        assert!(season.highest()[0] < 200.0);
        assert!(season.is_sound());
    }
}
