//! The newest seconds of a window as a ring: in half the octets as long as all of them carry little.

use weir_model::prefetch;

use crate::watch::cell::{Cell, Narrow};

/// Traffic second by second.
#[derive(Clone, Debug)]
pub(crate) enum Seconds {
    /// Every second carries so little that it fits.
    Narrow(Box<[Narrow]>),
    Wide(Box<[Cell]>),
}

/// The place of a second (or slot) in a ring of `len`.
#[expect(clippy::cast_possible_truncation, reason = "seconds and lengths have 32 bits")]
pub(crate) const fn ring(at: u64, len: usize) -> usize {
    // Seconds fit until 2106, and half the width divides in half the time.
    (at as u32 % len as u32) as usize
}

impl Seconds {
    pub(crate) fn new(len: usize) -> Self {
        Self::Narrow(vec![Narrow::default(); len].into_boxed_slice())
    }

    /// Seconds kept.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Narrow(all) => all.len(),
            Self::Wide(all) => all.len(),
        }
    }

    /// Octets on the heap.
    pub(crate) fn heap(&self) -> usize {
        match self {
            Self::Narrow(all) => size_of_val(&**all),
            Self::Wide(all) => size_of_val(&**all),
        }
    }

    /// Has a second's place fetched.
    #[inline]
    pub(crate) fn fetch(&self, second: u64) {
        match self {
            Self::Narrow(all) => prefetch(&all[ring(second, all.len())]),
            Self::Wide(all) => prefetch(&all[ring(second, all.len())]),
        }
    }

    /// What is kept in a second's place.
    #[inline]
    pub(crate) fn get(&self, second: u64) -> Cell {
        match self {
            Self::Narrow(all) => all[ring(second, all.len())].wide(),
            Self::Wide(all) => all[ring(second, all.len())],
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self, second: u64) {
        match self {
            Self::Narrow(all) => all[ring(second, all.len())] = Narrow::default(),
            Self::Wide(all) => all[ring(second, all.len())] = Cell::default(),
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, second: u64, cell: &Cell) {
        if let Self::Narrow(all) = self {
            if all[ring(second, all.len())].add(cell) {
                return;
            }
            self.widen();
        }
        if let Self::Wide(all) = self {
            all[ring(second, all.len())].add(cell);
        }
    }

    #[cold]
    fn widen(&mut self) {
        if let Self::Narrow(all) = self {
            *self = Self::Wide(all.iter().map(Narrow::wide).collect());
        }
    }

    /// Keeps so many seconds up to `newest`, in as few octets as they fit.
    pub(crate) fn resize(&mut self, len: usize, newest: u64) {
        let mut other = vec![Cell::default(); len];
        for back in 0..self.len().min(len) as u64 {
            if let Some(second) = newest.checked_sub(back) {
                other[ring(second, len)] = self.get(second);
            }
        }
        let narrow: Option<Box<[Narrow]>> = other.iter().map(Narrow::of).collect();
        *self = narrow.map_or_else(|| Self::Wide(other.into_boxed_slice()), Self::Narrow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_traffic_is_kept_as_exactly_as_little() {
        let few = |bytes| Cell { bytes, out_syn: 3, variance: 7, ..Cell::default() };
        for (len, much) in [
            (14, Cell { bytes: 1 << 32, ..Cell::default() }),
            (14, Cell { packets: [65_530; 8], ..Cell::default() }),
            (32, Cell { out_packets: u32::MAX, ..Cell::default() }),
            (32, Cell { out_packets: u32::MAX - 1, out_bytes: u64::MAX - 9, ..Cell::default() }),
        ] {
            let mut seconds = Seconds::new(len);
            for second in 100..114 {
                seconds.add(second, &few(second));
            }
            let little = seconds.heap();
            seconds.add(113, &much);
            seconds.add(113, &few(1));
            let mut sum = few(113);
            sum.add(&much);
            sum.add(&few(1));
            assert_eq!(seconds.get(113), sum);
            assert_eq!(seconds.get(112), few(112));
            seconds.resize(128, 113);
            assert_eq!((seconds.get(113), seconds.get(101), seconds.len()), (sum, few(101), 128));
            seconds.clear(113);
            seconds.resize(len, 113);
            assert_eq!((seconds.get(101), seconds.heap()), (few(101), little), "narrow again");
        }
    }
}
