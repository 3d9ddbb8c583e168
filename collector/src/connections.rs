//! Connections through a firewall, and what it has told of each so far.
//!
//! A firewall that updates (Cisco NSEL, flow-update) tells the octets since its last word, and when the
//! connection is torn down those of its whole life: added up, everything counts twice.

use std::collections::{HashMap, VecDeque};

/// firewallEvent (233): the connection has ended.
pub(crate) const TEARDOWN: u8 = 2;
/// firewallEvent (233): it goes on.
pub(crate) const UPDATE: u8 = 5;
/// Connections remembered of one exporter; of older ones a teardown counts in full.
const MAX_CONNECTIONS: usize = 65_536;

/// A domain's serial number, and the connection's in it.
type Key = (u32, u32);

/// What a record tells: each way octets and packets, and when, on the exporter's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) volume: [u64; 2],
    pub(crate) packets: [u64; 2],
    pub(crate) end: u64,
}

/// The connections of one exporter.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Keys come from the network: the standard library's keyed hash; nothing iterates over it.
    told: HashMap<Key, Told>,
    /// In the order in which they were first told of; those that have ended are passed over.
    order: VecDeque<Key>,
}

impl Connections {
    /// What passed since the last word, and when that was; 0 if there was none.
    pub(crate) fn update(&mut self, key: Key, told: Told) -> (Told, u64) {
        if !self.told.contains_key(&key) {
            while self.order.len() >= MAX_CONNECTIONS {
                let Some(oldest) = self.order.pop_front() else { break };
                self.told.remove(&oldest);
            }
            self.order.push_back(key);
        }
        let sum = self.told.entry(key).or_default();
        let since = std::mem::replace(&mut sum.end, told.end);
        for side in 0..2 {
            sum.volume[side] = sum.volume[side].saturating_add(told.volume[side]);
            sum.packets[side] = sum.packets[side].saturating_add(told.packets[side]);
        }
        (told, since)
    }

    /// What passed that updates have not told, and when the last of these was.
    pub(crate) fn teardown(&mut self, key: Key, mut told: Told) -> (Told, u64) {
        let Some(sum) = self.told.remove(&key) else { return (told, 0) };
        for side in 0..2 {
            told.volume[side] = told.volume[side].saturating_sub(sum.volume[side]);
            told.packets[side] = told.packets[side].saturating_sub(sum.packets[side]);
        }
        (told, sum.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(volume: u64, end: u64) -> Told {
        Told { volume: [volume, volume / 10], packets: [volume / 100, 0], end }
    }

    #[test]
    fn a_teardown_counts_what_updates_have_not_told() {
        let mut connections = Connections::default();
        assert_eq!(connections.update((1, 7), told(1000, 60)), (told(1000, 60), 0));
        assert_eq!(connections.update((1, 7), told(2000, 120)), (told(2000, 120), 60));
        // Another domain's connection of the same number is another one.
        assert_eq!(connections.teardown((2, 7), told(9000, 130)), (told(9000, 130), 0));
        assert_eq!(connections.teardown((1, 7), told(3500, 150)), (told(500, 150), 120));
        assert_eq!(connections.teardown((1, 7), told(100, 150)), (told(100, 150), 0));
    }

    #[test]
    fn connections_without_end_are_bounded() {
        let mut connections = Connections::default();
        for number in 0..200_000 {
            connections.update((1, number), told(1, 1));
            if number % 2 == 0 {
                connections.teardown((1, number), told(1, 1));
            }
        }
        assert!(connections.order.len() <= MAX_CONNECTIONS);
        assert!(connections.told.len() <= MAX_CONNECTIONS);
    }
}
