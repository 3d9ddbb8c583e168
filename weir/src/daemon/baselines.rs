//! What the detector has learned on its way into the state file: a hundredth at a time, in turn, so that
//! writing it down never holds the core up, however many hosts there are.

use weir_detector::{Checkpoint, Detector, PARTS};
use weir_model::Millis;

/// How long a round over all parts takes, milliseconds.
const ROUND_MS: u64 = 5 * 60 * 1000;

/// Name of the blob with what operators have set. One of an earlier version holds all hosts as well.
pub(super) const HEAD: &str = "detector-1";

/// Name of the blob of a part.
pub(super) fn part_name(part: usize) -> String {
    format!("{HEAD}/{part:02}")
}

/// A blob to be written.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(super) name: String,
    pub(super) checkpoint: Box<Checkpoint>,
}

/// What the state file holds of the detector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Parts with hosts in them.
    pub(super) parts: [bool; PARTS],
    /// Whether hosts are in the head, as an earlier version wrote it: it is overwritten only once they are all in
    /// parts.
    pub(super) whole: bool,
}

impl Default for Written {
    fn default() -> Self {
        Self { parts: [false; PARTS], whole: false }
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns {
    written: Written,
    next: usize,
    last: Millis,
    /// Whether every part of this round was taken so far.
    sound: bool,
}

impl Turns {
    pub(crate) const fn new(written: Written, at: Millis) -> Self {
        Self { written, next: 0, last: at, sound: true }
    }

    /// Puts what is due to `keep`, which says whether it was taken. Called once a slot.
    pub(crate) fn take(
        &mut self,
        detector: &Detector,
        at: Millis,
        mut keep: impl FnMut(Piece) -> bool,
    ) {
        if at.since(self.last) >= ROUND_MS / PARTS as u64 {
            self.last = at;
            self.step(detector, &mut keep);
        }
    }

    /// Puts everything to `keep`, part by part, until it refuses one: who is stopping does not wait a hundred
    /// times for a store that is stuck.
    pub(crate) fn all(&mut self, detector: &Detector, mut keep: impl FnMut(Piece) -> bool) {
        (self.next, self.sound) = (0, true);
        for _ in 0..=PARTS {
            self.step(detector, &mut keep);
            if !self.sound {
                break;
            }
        }
    }

    /// Puts to `keep` what an operator's change of a host's baselines makes necessary: its part, and then
    /// the head.
    pub(crate) fn change(
        &mut self,
        detector: &Detector,
        part: usize,
        mut keep: impl FnMut(Piece) -> bool,
    ) {
        if self.written.whole {
            self.all(detector, keep);
            return;
        }
        let checkpoint = Box::new(detector.checkpoint_part(part));
        self.written.parts[part] |= !checkpoint.is_empty();
        keep(Piece { name: part_name(part), checkpoint });
        keep(head(detector));
    }

    /// One part, or after the last one the head.
    fn step(&mut self, detector: &Detector, keep: &mut impl FnMut(Piece) -> bool) {
        let part = self.next;
        if part == PARTS {
            // What is whole there still stands for parts that were not taken.
            if self.sound || !self.written.whole {
                self.written.whole &= !keep(head(detector));
            }
            (self.next, self.sound) = (0, true);
            return;
        }
        self.next += 1;
        let checkpoint = Box::new(detector.checkpoint_part(part));
        let empty = checkpoint.is_empty();
        // An empty part is written where it replaces one that is not.
        if !empty || self.written.parts[part] {
            let taken = keep(Piece { name: part_name(part), checkpoint });
            self.sound &= taken;
            if taken {
                self.written.parts[part] = !empty;
            }
        }
    }
}

fn head(detector: &Detector) -> Piece {
    Piece { name: HEAD.to_owned(), checkpoint: Box::new(detector.checkpoint_head()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;

    use weir_detector::Config;
    use weir_model::{BaselineChange, Class, ClassVolume, HostSlice, Inventory, IpNet, Slice};

    use super::*;

    const HOSTS: u8 = 40;

    fn host(n: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, n])
    }

    /// A detector that watches all hosts, and one that knows nothing.
    fn detectors() -> [Detector; 2] {
        let net: IpNet = "203.0.113.0/24".parse().unwrap();
        let inventory =
            Arc::new(Inventory::new(vec![net].into(), Vec::<IpNet>::new().into(), Vec::new()));
        let new = || Detector::new(Config::default(), Arc::clone(&inventory));
        let mut learned = new();
        for slot in 18_000_000_000..18_000_003_200 {
            let hosts = (0..HOSTS).map(|n| {
                let mut cell = HostSlice::empty(host(n), slot);
                cell.inbound[Class::Udp as usize] = ClassVolume { packets: 50, bytes: 5000 };
                cell.variance = 50;
                cell
            });
            let watermark = Millis::from_slot(slot);
            learned.slice(&Slice { slot, watermark, hosts: hosts.collect(), ..Slice::default() });
            learned.advance(Millis::from_slot(slot + 1), &mut Vec::new());
        }
        [learned, new()]
    }

    /// What a file holds after the pieces, read back.
    fn read(file: &BTreeMap<String, Checkpoint>) -> (Checkpoint, usize) {
        let mut all = Checkpoint::default();
        let pieces = file.iter().filter(|(_, piece)| !piece.is_empty()).count();
        file.values().for_each(|piece| all.join(piece.clone()));
        (all, pieces)
    }

    fn level(detector: &Detector, n: u8) -> f64 {
        detector
            .host_view(host(n))
            .map_or(0.0, |view| view.baselines.first().map_or(0.0, |b| b.level))
    }

    #[test]
    fn a_round_writes_every_host_a_part_at_a_time() {
        let [learned, mut next] = detectors();
        let mut file = BTreeMap::new();
        let start = Millis(1_800_000_000_000);
        let mut turns = Turns::new(Written::default(), start);
        let (mut slot, mut most) = (0, 0);
        while !file.contains_key(HEAD) {
            slot += 1;
            let mut pieces = 0;
            turns.take(&learned, start + slot * 100, |Piece { name, checkpoint }| {
                pieces += 1;
                file.insert(name, *checkpoint);
                true
            });
            most = most.max(pieces);
        }
        assert_eq!((most, slot * 100), (1, ROUND_MS + ROUND_MS / PARTS as u64));
        // Parts of which no host is are not written at all.
        let (all, pieces) = read(&file);
        assert!(pieces > 20 && pieces <= usize::from(HOSTS) + 1, "{pieces}");
        next.restore(all, Millis::from_slot(18_000_003_300));
        for n in 0..HOSTS {
            assert!(level(&learned, n) > 100.0);
            assert_eq!(level(&learned, n), level(&next, n), "{n}");
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_stays_until_all_parts_are_there() {
        let [learned, _] = detectors();
        let whole = Written { whole: true, ..Written::default() };
        let mut turns = Turns::new(whole, Millis(0));
        // The store is slow: one part is left out.
        let mut names = Vec::new();
        turns.all(&learned, |piece| {
            names.push(piece.name);
            names.len() != 3
        });
        assert!(!names.contains(&HEAD.to_owned()));
        names.clear();
        turns.change(&learned, 7, |piece| {
            names.push(piece.name);
            true
        });
        assert!(names.len() > 20, "all of it: {names:?}");
        assert_eq!(names.last().unwrap(), HEAD);
        names.clear();
        turns.change(&learned, 7, |piece| {
            names.push(piece.name);
            true
        });
        assert_eq!(names, [part_name(7), HEAD.to_owned()]);
    }

    #[test]
    fn a_part_that_fell_empty_replaces_the_one_that_was_not() {
        let [learned, unknowing] = detectors();
        let mut turns = Turns::new(Written::default(), Millis(0));
        let mut file = BTreeMap::new();
        for detector in [&learned, &unknowing] {
            turns.all(detector, |Piece { name, checkpoint }| {
                file.insert(name, *checkpoint);
                true
            });
        }
        assert_eq!(read(&file).1, 0);
    }

    #[test]
    fn what_an_operator_froze_comes_back_frozen() {
        let [mut learned, mut next] = detectors();
        learned.change_baseline(host(7), BaselineChange::Freeze).unwrap();
        let mut file = BTreeMap::new();
        let mut turns = Turns::new(Written::default(), Millis(0));
        turns.change(&learned, Checkpoint::part_of(host(7)), |Piece { name, checkpoint }| {
            file.insert(name, *checkpoint);
            true
        });
        next.restore(read(&file).0, Millis::from_slot(18_000_003_300));
        assert!(next.host_view(host(7)).unwrap().frozen);
        assert_eq!(level(&learned, 7), level(&next, 7));
    }
}
