//! Data sets that came before their template, kept for a while.
//!
//! A restarted collector waits minutes for some routers' templates. What is kept is decoded when
//! the template comes, with the time at which it arrived: late for an alarm, in time for baselines.

use std::collections::{HashMap, VecDeque};

use weir_model::Millis;

use crate::domain::DomainKey;

/// Data older than this when its template comes is dropped. Milliseconds.
const MAX_AGE_MS: u64 = 120_000;
/// Most sets kept, whatever their size.
const MAX_SETS: usize = 1024;
/// A data set that waits, and the message it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) uptime: Option<u32>,
    pub(crate) unix_ms: u64,
    pub(crate) arrived: Millis,
    pub(crate) body: Vec<u8>,
    /// Told apart from the others.
    serial: u64,
}

/// Waiting sets by what they wait for, and in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Keys come from the network: the standard library's keyed hash; nothing iterates over it.
    sets: HashMap<(DomainKey, u16), VecDeque<Waiting>>,
    /// What each waits for, the oldest first; those that were taken are passed over.
    order: VecDeque<(u64, (DomainKey, u16))>,
    count: usize,
    octets: usize,
    /// The body of the last set that had to go, to be filled again.
    spare: Vec<u8>,
    next_serial: u64,
    limit: usize,
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Keeps a set; the oldest ones go when there is no room.
    pub(crate) fn keep(
        &mut self,
        domain: DomainKey,
        template: u16,
        (uptime, unix_ms): (Option<u32>, u64),
        arrived: Millis,
        body: &[u8],
    ) {
        if body.len() > self.limit {
            return;
        }
        while self.count >= MAX_SETS
            || self.order.len() >= 2 * MAX_SETS
            || self.octets + body.len() > self.limit
        {
            let Some((serial, key)) = self.order.pop_front() else { break };
            if self.sets.get(&key).and_then(VecDeque::front).is_some_and(|s| s.serial == serial) {
                self.spare = self.take_first(key).map(|set| set.body).unwrap_or_default();
            }
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.count += 1;
        self.octets += body.len();
        self.order.push_back((serial, (domain, template)));
        let mut own = std::mem::take(&mut self.spare);
        own.clear();
        own.extend(body);
        let set = Waiting { uptime, unix_ms, arrived, body: own, serial };
        self.sets.entry((domain, template)).or_default().push_back(set);
    }

    /// Takes out the oldest set that waits for this template. Sets that have waited too long go on the
    /// way.
    pub(crate) fn take(
        &mut self,
        domain: DomainKey,
        template: u16,
        now: Millis,
    ) -> Option<Waiting> {
        loop {
            let set = self.take_first((domain, template))?;
            if now.since(set.arrived) <= MAX_AGE_MS {
                return Some(set);
            }
        }
    }

    fn take_first(&mut self, key: (DomainKey, u16)) -> Option<Waiting> {
        let sets = self.sets.get_mut(&key)?;
        let set = sets.pop_front()?;
        if sets.is_empty() {
            self.sets.remove(&key);
        }
        self.count -= 1;
        self.octets -= set.body.len();
        Some(set)
    }

    /// Octets kept.
    #[cfg(test)]
    fn octets(&self) -> usize {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: DomainKey = DomainKey::new(9, 1);

    #[test]
    fn sets_come_back_in_order_and_the_oldest_give_way() {
        let mut pending = Pending::new(10);
        for n in 0..6_u8 {
            let time = (None, 0);
            pending.keep(DOMAIN, u16::from(n % 2), time, Millis(u64::from(n)), &[n; 3]);
        }
        assert_eq!(pending.octets(), 9);
        let set = pending.take(DOMAIN, 1, Millis(10)).unwrap();
        assert_eq!((set.arrived, &*set.body), (Millis(3), &[3, 3, 3][..]));
        assert_eq!(&*pending.take(DOMAIN, 1, Millis(10)).unwrap().body, &[5, 5, 5]);
        assert_eq!(pending.take(DOMAIN, 1, Millis(10)), None);
        // Too old: gone without a word.
        assert_eq!(pending.take(DOMAIN, 0, Millis(200_000)), None);
        assert_eq!(pending.octets(), 0);
    }

    #[test]
    fn a_set_larger_than_the_room_is_not_kept() {
        let mut pending = Pending::new(2);
        pending.keep(DOMAIN, 1, (None, 0), Millis(0), &[0; 3]);
        assert_eq!(pending.octets(), 0);
    }

    #[test]
    fn sets_without_end_take_no_more_than_the_room() {
        let mut pending = Pending::new(1000);
        for n in 0..100_000_u32 {
            let template = u16::try_from(n % 1500).unwrap();
            pending.keep(DOMAIN, template, (None, 0), Millis(0), &[0; 1]);
            if n % 3 == 0 {
                pending.take(DOMAIN, template, Millis(0));
            }
            assert!(pending.octets() <= 1000 && pending.order.len() <= 2 * MAX_SETS);
            assert!(pending.sets.len() <= MAX_SETS);
        }
    }
}
