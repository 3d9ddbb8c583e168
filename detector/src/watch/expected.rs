//! What live long flows are expected to carry in the seconds that just passed: for readings only.
//! Alarms, ends and baselines go by what was exported.

use weir_model::Expectation;

/// Seconds kept: a reading is of the newest full one.
const SECONDS: usize = 8;

/// Expected volume of the newest seconds. Signed, so that the order of additions never shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    newest: u64,
    /// Packets and octets towards the host, packets and octets from it.
    ring: [[i64; 4]; SECONDS],
}

impl Expected {
    pub(crate) fn note(&mut self, expectation: &Expectation) {
        for (second, volume) in expectation.by_second() {
            self.forward(second);
            if second + SECONDS as u64 <= self.newest {
                continue;
            }
            let at = if expectation.outbound { 2 } else { 0 };
            for (index, number) in [(at, volume.packets), (at + 1, volume.bytes)] {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                let sum = &mut self.ring[place(second)][index];
                let more = if expectation.settled { -number } else { number };
                *sum = sum.saturating_add(more);
            }
        }
    }

    /// Packets and bits towards the host in a second, packets and bits from it.
    pub(crate) fn second(&self, second: u64) -> [u64; 4] {
        if second > self.newest || second + SECONDS as u64 <= self.newest {
            return [0; 4];
        }
        let [packets, bytes, out_packets, out_bytes] =
            self.ring[place(second)].map(|number| u64::try_from(number).unwrap_or(0));
        [packets, bytes.saturating_mul(8), out_packets, out_bytes.saturating_mul(8)]
    }

    fn forward(&mut self, second: u64) {
        let steps = second.saturating_sub(self.newest).min(SECONDS as u64);
        for back in 0..steps {
            self.ring[place(second - back)] = [0; 4];
        }
        self.newest = self.newest.max(second);
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use weir_model::{ClassVolume, Millis};

    use super::*;

    #[test]
    fn what_is_settled_is_no_longer_expected() {
        let mut expected = Expected::default();
        let mut note = |start: u64, end: u64, bytes: u64, settled| {
            expected.note(&Expectation {
                host: [192, 0, 2, 1].into(),
                outbound: false,
                settled,
                start: Millis::from_secs(start),
                end: Millis::from_secs(end),
                volume: ClassVolume { packets: 0, bytes },
            });
            [start, end - 1].map(|second| expected.second(second)[1] / 8)
        };
        assert_eq!(note(100, 104, 400, false), [100, 100]);
        assert_eq!(note(103, 105, 200, false), [200, 100]);
        assert_eq!(note(100, 104, 400, true), [0, 100]);
        assert_eq!(note(112, 113, 5, false), [5, 5]);
        assert_eq!(expected.second(104), [0; 4]);
    }
}
