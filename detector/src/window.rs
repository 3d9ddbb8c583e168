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

use weir_model::{Class, HostSlice, prefetch};

use crate::metric::Test;

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

/// Something that adds up over time.
pub(crate) trait Sum: Copy + Default {
    /// Adds, staying at the maximum on overflow: the order of additions never shows.
    fn add(&mut self, other: &Self);
}

/// Traffic of a host or prefix in one slot or second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Inbound packets by [`Class`].
    pub(crate) packets: [u32; Class::COUNT],
    /// Inbound octets.
    pub(crate) bytes: u64,
    /// Sum of packets x rate^2, see [`HostSlice::variance`].
    pub(crate) variance: u64,
    /// Inbound UDP packets to declared service ports.
    pub(crate) service_udp: u32,
    /// Sources among the packets reported that the host has not met lately.
    pub(crate) new_sources: u32,
    /// Inbound packets that the router already discarded.
    pub(crate) dropped: u32,
    /// Octets of those.
    pub(crate) dropped_bytes: u64,
    /// Outbound packets.
    pub(crate) out_packets: u32,
    /// Outbound SYNs.
    pub(crate) out_syn: u32,
    /// Outbound octets.
    pub(crate) out_bytes: u64,
}

impl Sum for Cell {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.packets.iter_mut().zip(other.packets) {
            *mine = mine.saturating_add(theirs);
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
        self.new_sources = self.new_sources.saturating_add(other.new_sources);
        self.service_udp = self.service_udp.saturating_add(other.service_udp);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.dropped_bytes = self.dropped_bytes.saturating_add(other.dropped_bytes);
        self.out_packets = self.out_packets.saturating_add(other.out_packets);
        self.out_syn = self.out_syn.saturating_add(other.out_syn);
        self.out_bytes = self.out_bytes.saturating_add(other.out_bytes);
    }
}

pub(crate) fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Cell {
    pub(crate) fn of_host(slice: &HostSlice) -> Self {
        let mut cell = Self {
            variance: slice.variance,
            dropped: saturate(slice.dropped.packets),
            dropped_bytes: slice.dropped.bytes,
            out_packets: saturate(slice.outbound.packets),
            out_syn: saturate(slice.outbound_syn),
            out_bytes: slice.outbound.bytes,
            ..Self::default()
        };
        for (mine, volume) in cell.packets.iter_mut().zip(slice.inbound) {
            *mine = saturate(volume.packets);
            cell.bytes = cell.bytes.saturating_add(volume.bytes);
        }
        cell
    }

    /// Inbound packets of all classes.
    pub(crate) fn total(&self) -> u64 {
        self.packets.iter().map(|p| u64::from(*p)).sum()
    }

    pub(crate) fn class(&self, class: Class) -> u32 {
        self.packets[class as usize]
    }
}

/// Traffic of a service port in one slot or second.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortCell {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) variance: u64,
    pub(crate) out_packets: u64,
}

#[cfg(test)]
impl Sum for PortCell {
    fn add(&mut self, other: &Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
        self.out_packets = self.out_packets.saturating_add(other.out_packets);
    }
}

/// The last second in slots and the last half minute in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Window<C> {
    /// Newest slot written to.
    head: u64,
    /// Oldest second written to since the last look, for late exports.
    oldest: u64,
    /// Whether exports come late, so that more than the newest seconds must be kept.
    late: bool,
    /// The newest slot, while there is no `fine`.
    slot: C,
    fine: Option<Box<[C; FINE]>>,
    coarse: Box<[C]>,
}

impl<C: Sum> Window<C> {
    pub(crate) fn new(slot: u64) -> Self {
        Self {
            head: slot,
            oldest: u64::MAX,
            late: false,
            slot: C::default(),
            fine: None,
            coarse: vec![C::default(); COARSE_QUIET].into_boxed_slice(),
        }
    }

    /// Keeps slots from now on, and as many seconds as the longest window has.
    pub(crate) fn refine(&mut self) {
        if self.fine.is_some() {
            return;
        }
        let mut fine = Box::new([C::default(); FINE]);
        fine[ring(self.head, FINE)] = self.slot;
        self.fine = Some(fine);
        if self.coarse.len() < COARSE {
            self.resize(COARSE);
        }
    }

    /// Keeps no more than is needed far below the thresholds.
    pub(crate) fn coarsen(&mut self) {
        if let Some(fine) = self.fine.take() {
            self.slot = fine[ring(self.head, FINE)];
            if !self.late {
                self.resize(COARSE_QUIET);
            }
        }
    }

    /// Octets on the heap.
    pub(crate) fn heap(&self) -> usize {
        let fine = if self.fine.is_some() { FINE } else { 0 };
        (fine + self.coarse.len()) * size_of::<C>()
    }

    fn resize(&mut self, seconds: usize) {
        let len = self.coarse.len();
        let mut other = vec![C::default(); seconds].into_boxed_slice();
        for back in 0..len.min(seconds) as u64 {
            if let Some(second) = self.newest().checked_sub(back) {
                other[ring(second, seconds)] = self.coarse[ring(second, len)];
            }
        }
        self.coarse = other;
    }

    /// Has the places fetched that [`Window::add`] will write.
    pub(crate) fn fetch(&self, slot: u64) {
        let len = self.coarse.len();
        prefetch(self.fine.as_ref().map_or(&self.slot, |fine| &fine[ring(slot, FINE)]));
        prefetch(&self.coarse[ring(slot / SLOTS_PER_SEC, len)]);
    }

    /// Makes `slot` the newest one, forgetting what falls out of the rings.
    pub(crate) fn forward(&mut self, slot: u64) {
        if slot <= self.head {
            return;
        }
        if let Some(fine) = &mut self.fine {
            for s in (self.head + 1..=slot).take(FINE) {
                fine[ring(s, FINE)] = C::default();
            }
        } else {
            self.slot = C::default();
        }
        let (from, to) = (self.head / SLOTS_PER_SEC, slot / SLOTS_PER_SEC);
        let len = self.coarse.len();
        for s in (from + 1..=to).take(len) {
            self.coarse[ring(s, len)] = C::default();
        }
        self.head = slot;
    }

    /// Adds to a slot; false when it is too old to matter.
    pub(crate) fn add(&mut self, slot: u64, cell: &C) -> bool {
        self.forward(slot);
        match &mut self.fine {
            Some(fine) if slot + FINE as u64 > self.head => fine[ring(slot, FINE)].add(cell),
            None if slot == self.head => self.slot.add(cell),
            _ => {}
        }
        self.add_second(slot / SLOTS_PER_SEC, cell)
    }

    /// Adds to a second as a whole; false when it is too old to matter.
    pub(crate) fn add_second(&mut self, second: u64, cell: &C) -> bool {
        self.forward(second * SLOTS_PER_SEC);
        let len = self.coarse.len();
        // Noted even when refused: whether it is depends on what came first.
        self.oldest = self.oldest.min(second);
        if second + len as u64 <= self.newest() {
            return false;
        }
        self.coarse[ring(second, len)].add(cell);
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
    pub(crate) fn last_slots(&self, slots: usize) -> C {
        let Some(fine) = &self.fine else { return self.slot };
        let mut sum = C::default();
        for back in 0..slots.min(FINE) as u64 {
            if let Some(slot) = self.head.checked_sub(back) {
                sum.add(&fine[ring(slot, FINE)]);
            }
        }
        sum
    }

    /// Sum of the `seconds` seconds up to and with `last`, of which the ring may have forgotten
    /// the oldest.
    pub(crate) fn seconds(&self, last: u64, seconds: usize) -> C {
        let (head, len) = (self.newest(), self.coarse.len());
        let mut sum = C::default();
        for back in 0..seconds.min(len) as u64 {
            let Some(second) = last.checked_sub(back) else { break };
            if second <= head && second + len as u64 > head {
                sum.add(&self.coarse[ring(second, len)]);
            }
        }
        sum
    }

    /// One second.
    pub(crate) fn second(&self, second: u64) -> C {
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

#[expect(clippy::cast_possible_truncation, reason = "the remainder is below the ring's length")]
const fn ring(at: u64, len: usize) -> usize {
    (at % len as u64) as usize
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
pub(crate) fn scan<C: Sum, T>(
    window: &Window<C>,
    short: bool,
    mut test: impl FnMut(&C, Test, u64) -> Option<T>,
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

    fn cell(packets: u64) -> PortCell {
        PortCell { packets, ..PortCell::default() }
    }

    #[test]
    fn windows_slide_and_forget() {
        let mut window = Window::new(1000);
        window.refine();
        for slot in 1000..1025 {
            assert!(window.add(slot, &cell(1)));
        }
        assert_eq!(window.last_slots(10).packets, 10);
        assert_eq!(window.seconds(102, 3).packets, 25);
        window.forward(1029);
        assert_eq!(window.last_slots(10).packets, 5);
        window.forward(1000 + 400);
        assert_eq!(window.seconds(140, 30).packets, 0);
    }

    #[test]
    fn late_cells_land_in_their_second_and_too_late_ones_are_refused() {
        let mut window = Window::new(10_000);
        window.expect_late();
        window.refine();
        window.add(10_000, &cell(1));
        assert!(window.add(9_900, &cell(7)));
        assert_eq!(window.second(990).packets, 7);
        assert_eq!(window.last_slots(10).packets, 1);
        assert_eq!(window.take_oldest(), 990);
        assert_eq!(window.take_oldest(), 1000);
        assert!(!window.add(9_600, &cell(7)));
        window.lengthen();
        assert_eq!(window.second(990).packets, 7);
        assert!(window.add_second(900, &cell(5)));
        assert_eq!(window.seconds(990, 91).packets, 12);
    }

    #[test]
    fn far_below_its_thresholds_a_window_keeps_little() {
        let mut window = Window::new(1000);
        for slot in 1000..1300 {
            window.add(slot, &cell(1));
        }
        let quiet = window.heap();
        assert_eq!(window.last_slots(10).packets, 1, "the newest slot");
        assert_eq!(window.seconds(129, 10).packets, 100);
        window.refine();
        assert!(window.heap() > 2 * quiet);
        assert_eq!(window.last_slots(3).packets, 1);
        window.add(1300, &cell(5));
        assert_eq!(window.last_slots(2).packets, 6);
        assert_eq!(window.seconds(129, 10).packets, 100);
        window.coarsen();
        assert_eq!(window.heap(), quiet);
        assert_eq!((window.last_slots(2).packets, window.seconds(129, 10).packets), (5, 100));
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
