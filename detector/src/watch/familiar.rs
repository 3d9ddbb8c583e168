//! Sources that a host has met lately: how many a second are new to it.
//!
//! Two filters of one hash each, filled in turn for five minutes: a source is new when it is in
//! neither. Filters that fill up take strangers for acquaintances, so that the count is a lower bound;
//! in half-full ones every other new source is missed.

use crate::watch::hash::mix;

/// Bits of a filter.
const BITS: usize = 2048;
/// Seconds in which one filter is filled.
const TURN_SECS: u64 = 300;

/// The sources of one host.
#[derive(Clone, Debug)]
pub(crate) struct Familiar {
    /// The filter being filled, and the one before.
    filters: [[u64; BITS / 64]; 2],
    turn: u64,
}

impl Familiar {
    /// Nobody is known.
    pub(crate) const fn new(second: u64) -> Self {
        Self { filters: [[0; BITS / 64]; 2], turn: second / TURN_SECS }
    }

    /// Meets a source; whether it is new.
    pub(crate) fn meet(&mut self, source: u128, second: u64) -> bool {
        let turn = second / TURN_SECS;
        if turn > self.turn {
            let last = if turn == self.turn + 1 { self.filters[0] } else { [0; BITS / 64] };
            self.filters = [[0; BITS / 64], last];
            self.turn = turn;
        }
        #[expect(clippy::cast_possible_truncation, reason = "halves of an address")]
        let hash = mix((source >> 64) as u64, source as u64);
        let at = usize::try_from(hash % BITS as u64).unwrap_or(0);
        let (word, bit) = (at / 64, 1 << (at % 64));
        let known = self.filters.iter().any(|filter| filter[word] & bit != 0);
        self.filters[0][word] |= bit;
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_new_once_and_again_when_it_was_long_away() {
        let mut familiar = Familiar::new(0);
        let players = || (0..200_u128).map(|i| 0xffff_0a00_0000 + i * 7);
        let first = players().filter(|p| familiar.meet(*p, 10)).count();
        assert!((180..=200).contains(&first), "{first}");
        for second in [20, 290, 310, 890] {
            assert_eq!(players().filter(|p| familiar.meet(*p, second)).count(), 0, "{second}");
        }
        let strangers = (0..100_u128).map(|i| 0xffff_c000_0200 + i * 13);
        let new = strangers.filter(|s| familiar.meet(*s, 891)).count();
        assert!((80..=100).contains(&new), "{new}");
        let back = players().filter(|p| familiar.meet(*p, 1600)).count();
        assert!((180..=200).contains(&back), "{back}");
    }
}
