//! Data sets that came before their template, kept for a while.
//!
//! A restarted collector waits minutes for some routers' templates. What is kept is decoded when
//! the template comes, with the time at which it arrived: late for an alarm, in time for baselines.

use std::collections::VecDeque;

use weir_model::Millis;

use crate::domain::DomainKey;

/// Data older than this when its template comes is dropped. Milliseconds.
const MAX_AGE_MS: u64 = 120_000;
/// Most sets kept, whatever their size.
const MAX_SETS: usize = 1024;

/// A data set that waits, and the message it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) domain: DomainKey,
    pub(crate) template: u16,
    pub(crate) uptime: Option<u32>,
    pub(crate) unix_ms: u64,
    pub(crate) arrived: Millis,
    len: usize,
}

/// A bounded queue of waiting sets. Its room is taken once and used again.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    sets: VecDeque<Waiting>,
    octets: VecDeque<u8>,
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
        while self.sets.len() >= MAX_SETS || self.octets.len() + body.len() > self.limit {
            let Some(oldest) = self.sets.pop_front() else { break };
            self.octets.drain(..oldest.len);
        }
        let len = body.len();
        self.sets.push_back(Waiting { domain, template, uptime, unix_ms, arrived, len });
        self.octets.extend(body);
    }

    /// Takes out the oldest set that waits for this template, its content into `body` after what
    /// is there already. Sets that have waited too long go on the way.
    pub(crate) fn take(
        &mut self,
        domain: DomainKey,
        template: u16,
        now: Millis,
        body: &mut Vec<u8>,
    ) -> Option<Waiting> {
        let mut at = 0;
        let mut index = 0;
        while let Some(set) = self.sets.get(index).copied() {
            let mine = set.domain == domain && set.template == template;
            let old = now.since(set.arrived) > MAX_AGE_MS;
            if !mine && !old {
                at += set.len;
                index += 1;
                continue;
            }
            self.sets.remove(index);
            let octets = self.octets.drain(at..at + set.len);
            if mine && !old {
                body.extend(octets);
                return Some(set);
            }
        }
        None
    }

    /// Octets kept.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len()
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
        let mut body = Vec::new();
        let set = pending.take(DOMAIN, 1, Millis(10), &mut body).unwrap();
        assert_eq!((set.arrived, body.as_slice()), (Millis(3), &[3, 3, 3][..]));
        body.clear();
        pending.take(DOMAIN, 1, Millis(10), &mut body).unwrap();
        assert_eq!(body, [5, 5, 5]);
        assert!(pending.take(DOMAIN, 1, Millis(10), &mut body).is_none());
        // Too old: gone without a word.
        assert!(pending.take(DOMAIN, 0, Millis(200_000), &mut body).is_none());
        assert_eq!(pending.octets(), 0);
    }

    #[test]
    fn a_set_larger_than_the_room_is_not_kept() {
        let mut pending = Pending::new(2);
        pending.keep(DOMAIN, 1, (None, 0), Millis(0), &[0; 3]);
        assert_eq!(pending.octets(), 0);
    }
}
