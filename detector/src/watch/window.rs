//! Sliding windows over 100 ms slots of event time.
//!
//! ```text
//! fine   | slot | slot | ... 10 of them: windows of 0.1, 0.2, 0.3 and 1 s
//! coarse | second | second | ... 32 of them: windows of 1 to 30 s; 128 once long flows
//!                                arrived, which tell of seconds long gone
//! ```
//! Far below its thresholds a series keeps one slot and 14 seconds only: of what it then forgets
//! nothing could have made an alarm certain.
//! A sum over a window that is not over yet, or for which exports are still to come, is a lower
//! bound: it may raise an alarm, never clear one.

use weir_model::prefetch;

use crate::watch::cell::Cell;
use crate::watch::metric::Test;
use crate::watch::seconds::Seconds;

/// Slots a second.
pub(crate) const SLOTS_PER_SEC: u64 = 10;
const FINE: usize = 10;
const COARSE: usize = 32;
/// Seconds kept far below the thresholds: ten to compare shapes by, and as many as watermarks lag
/// where packets are reported at once.
const COARSE_QUIET: usize = 14;
/// Seconds kept where long flows are seen: an active timeout of 60 s, an inactive one of 15 s, and
/// the windows that end there.
const COARSE_LONG: usize = 128;

/// The last second in slots and the last half minute in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Newest slot written to.
    head: u64,
    /// Oldest second written to since the last look, for late exports.
    oldest: u64,
    /// Whether exports come late, so that more than the newest seconds must be kept.
    late: bool,
    /// The newest slot, while there is no `fine`.
    slot: Cell,
    fine: Option<Box<[Cell; FINE]>>,
    coarse: Seconds,
}

impl Window {
    pub(crate) fn new(slot: u64) -> Self {
        Self {
            head: slot,
            oldest: u64::MAX,
            late: false,
            slot: Cell::default(),
            fine: None,
            coarse: Seconds::new(COARSE_QUIET),
        }
    }

    /// Keeps slots from now on, and as many seconds as the longest window has.
    pub(crate) fn refine(&mut self) {
        if self.fine.is_some() {
            return;
        }
        let mut fine = Box::new([Cell::default(); FINE]);
        fine[fine_ring(self.head)] = self.slot;
        self.fine = Some(fine);
        if self.coarse.len() < COARSE {
            self.resize(COARSE);
        }
    }

    /// Whether slots are kept: not far from the thresholds.
    pub(crate) const fn is_fine(&self) -> bool {
        self.fine.is_some()
    }

    /// Keeps no more than is needed far below the thresholds.
    pub(crate) fn coarsen(&mut self) {
        if let Some(fine) = self.fine.take() {
            self.slot = fine[fine_ring(self.head)];
            if !self.late {
                self.resize(COARSE_QUIET);
            }
        }
    }

    /// Octets on the heap.
    pub(crate) fn heap(&self) -> usize {
        let fine = if self.fine.is_some() { FINE } else { 0 };
        fine * size_of::<Cell>() + self.coarse.heap()
    }

    fn resize(&mut self, seconds: usize) {
        let newest = self.newest();
        self.coarse.resize(seconds, newest);
    }

    /// Has the places fetched that [`Window::add`] will write.
    pub(crate) fn fetch(&self, slot: u64) {
        prefetch(self.fine.as_ref().map_or(&self.slot, |fine| &fine[fine_ring(slot)]));
        self.coarse.fetch(slot / SLOTS_PER_SEC);
    }

    /// Makes `slot` the newest one, forgetting what falls out of the rings.
    pub(crate) fn forward(&mut self, slot: u64) {
        if slot <= self.head {
            return;
        }
        if let Some(fine) = &mut self.fine {
            for s in (self.head + 1..=slot).take(FINE) {
                fine[fine_ring(s)] = Cell::default();
            }
        } else {
            self.slot = Cell::default();
        }
        let (from, to) = (self.head / SLOTS_PER_SEC, slot / SLOTS_PER_SEC);
        let len = self.coarse.len();
        for s in (from + 1..=to).take(len) {
            self.coarse.clear(s);
        }
        self.head = slot;
    }

    /// Adds to a slot; false when it is too old to matter.
    pub(crate) fn add(&mut self, slot: u64, cell: &Cell) -> bool {
        self.forward(slot);
        match &mut self.fine {
            Some(fine) if slot + FINE as u64 > self.head => fine[fine_ring(slot)].add(cell),
            None if slot == self.head => self.slot.add(cell),
            _ => {}
        }
        self.add_second(slot / SLOTS_PER_SEC, cell)
    }

    /// Adds to a second as a whole; false when it is too old to matter.
    pub(crate) fn add_second(&mut self, second: u64, cell: &Cell) -> bool {
        self.forward(second * SLOTS_PER_SEC);
        let len = self.coarse.len();
        // Noted even when refused: whether it is depends on what came first.
        self.oldest = self.oldest.min(second);
        if second + len as u64 <= self.newest() {
            return false;
        }
        self.coarse.add(second, cell);
        true
    }

    /// Makes room for the seconds of long flows.
    pub(crate) fn lengthen(&mut self) {
        self.late = true;
        if self.coarse.len() < COARSE_LONG {
            self.resize(COARSE_LONG);
        }
    }

    /// Makes room for seconds that are reported late.
    pub(crate) fn expect_late(&mut self) {
        self.late = true;
        if self.coarse.len() < COARSE {
            self.resize(COARSE);
        }
    }

    /// The second of the newest slot.
    pub(crate) const fn newest(&self) -> u64 {
        self.head / SLOTS_PER_SEC
    }

    /// Sum of the last `slots` slots, at most one second.
    pub(crate) fn last_slots(&self, slots: usize) -> Cell {
        let Some(fine) = &self.fine else { return self.slot };
        let mut sum = Cell::default();
        for back in 0..slots.min(FINE) as u64 {
            if let Some(slot) = self.head.checked_sub(back) {
                sum.add(&fine[fine_ring(slot)]);
            }
        }
        sum
    }

    /// Sum of the `seconds` seconds up to and with `last`, of which the ring may have forgotten
    /// the oldest.
    pub(crate) fn seconds(&self, last: u64, seconds: usize) -> Cell {
        let (head, len) = (self.newest(), self.coarse.len());
        let mut sum = Cell::default();
        for back in 0..seconds.min(len) as u64 {
            let Some(second) = last.checked_sub(back) else { break };
            if second <= head && second + len as u64 > head {
                sum.add(&self.coarse.get(second));
            }
        }
        sum
    }

    /// One second.
    pub(crate) fn second(&self, second: u64) -> Cell {
        self.seconds(second, 1)
    }

    /// The oldest second written to since the last [`Window::take_oldest`], the newest when none.
    pub(crate) fn oldest(&self) -> u64 {
        let kept = self.newest().saturating_sub(self.coarse.len() as u64 - 3);
        self.oldest.min(self.newest()).max(kept)
    }

    /// The same, and forgets it.
    pub(crate) fn take_oldest(&mut self) -> u64 {
        let oldest = self.oldest();
        self.oldest = u64::MAX;
        oldest
    }
}

/// The place of a slot, of which there are more than 32 bits can tell.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below the ring's length")]
const fn fine_ring(slot: u64) -> usize {
    (slot % FINE as u64) as usize
}

/// Windows shorter than a second with how many times the threshold their rate must be: in volume
/// at least half a second's worth at the threshold, so that a burst within one second that is
/// harmless by the second stays harmless.
pub(crate) const SHORT: [(usize, f64); 3] = [(1, 5.0), (2, 3.0), (3, 2.0)];

/// Lengths of the long windows, seconds. A flood that needs a little more than one of them waits for
/// the next to fill by half: steps of two keep that wait short.
pub(crate) const LONG: [usize; 7] = [1, 2, 3, 5, 10, 20, 30];

/// Calls `test` with each window that ends at the newest slot, then with each that ends at a second
/// which late exports have just filled, and the second in which it ends; stops at the first that
/// answers.
pub(crate) fn scan<T>(
    window: &Window,
    short: bool,
    mut test: impl FnMut(&Cell, Test, u64) -> Option<T>,
) -> Option<T> {
    let (newest, oldest) = (window.newest(), window.oldest());
    if short {
        for (slots, guard) in SHORT {
            let part = Test { ms: slots as u64 * 100, guard };
            let found = test(&window.last_slots(slots), part, newest);
            if found.is_some() {
                return found;
            }
        }
    }
    if let Some(found) = test(&window.last_slots(FINE), Test { ms: 1000, guard: 1.0 }, newest) {
        return Some(found);
    }
    (oldest..=newest).rev().find_map(|last| {
        LONG.iter().find_map(|&seconds| {
            let whole = Test { ms: seconds as u64 * 1000, guard: 1.0 };
            test(&window.seconds(last, seconds), whole, last)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(bytes: u64) -> Cell {
        Cell { bytes, ..Cell::default() }
    }

    #[test]
    fn windows_slide_and_forget() {
        let mut window = Window::new(1000);
        window.refine();
        for slot in 1000..1025 {
            assert!(window.add(slot, &cell(1)));
        }
        assert_eq!(window.last_slots(10).bytes, 10);
        assert_eq!(window.seconds(102, 3).bytes, 25);
        window.forward(1029);
        assert_eq!(window.last_slots(10).bytes, 5);
        window.forward(1000 + 400);
        assert_eq!(window.seconds(140, 30).bytes, 0);
    }

    #[test]
    fn late_cells_land_in_their_second_and_too_late_ones_are_refused() {
        let mut window = Window::new(10_000);
        window.expect_late();
        window.refine();
        window.add(10_000, &cell(1));
        assert!(window.add(9_900, &cell(7)));
        assert_eq!(window.second(990).bytes, 7);
        assert_eq!(window.last_slots(10).bytes, 1);
        assert_eq!(window.take_oldest(), 990);
        assert_eq!(window.take_oldest(), 1000);
        assert!(!window.add(9_600, &cell(7)));
        window.lengthen();
        assert_eq!(window.second(990).bytes, 7);
        assert!(window.add_second(900, &cell(5)));
        assert_eq!(window.seconds(990, 91).bytes, 12);
    }

    #[test]
    fn far_below_its_thresholds_a_window_keeps_little() {
        let mut window = Window::new(1000);
        for slot in 1000..1300 {
            window.add(slot, &cell(1));
        }
        let quiet = window.heap();
        assert_eq!(window.last_slots(10).bytes, 1, "the newest slot");
        assert_eq!(window.seconds(129, 10).bytes, 100);
        window.refine();
        assert!(window.heap() > 2 * quiet);
        assert_eq!(window.last_slots(3).bytes, 1);
        window.add(1300, &cell(5));
        assert_eq!(window.last_slots(2).bytes, 6);
        assert_eq!(window.seconds(129, 10).bytes, 100);
        window.coarsen();
        assert_eq!(window.heap(), quiet);
        assert_eq!((window.last_slots(2).bytes, window.seconds(129, 10).bytes), (5, 100));
    }

    #[test]
    fn order_of_additions_does_not_show() {
        let cells = [(100_u64, 3_u64), (95, 2), (120, 9), (101, 1), (70, 4)];
        let fill = |order: &[usize]| {
            let mut window = Window::new(60);
            window.refine();
            for &i in order {
                window.add(cells[i].0, &cell(cells[i].1));
            }
            (window.last_slots(10), window.seconds(12, 30))
        };
        assert_eq!(fill(&[0, 1, 2, 3, 4]), fill(&[2, 4, 1, 0, 3]));
    }
}
