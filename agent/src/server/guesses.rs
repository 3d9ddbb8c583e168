//! Who guesses at join tokens waits. A token cannot be guessed; this keeps the log, the disk and the lock of the
//! nodes from whoever tries all the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use weir_model::{Millis, client_of};

/// Wrong tokens before waiting begins: typing errors.
const FREE: u32 = 5;

/// First wait, milliseconds; it doubles with each further guess.
const WAIT_FIRST_MS: u64 = 1000;

/// Longest wait, milliseconds: a node behind the same address is not kept out for long.
const WAIT_MAX_MS: u64 = 60_000;

/// Guesses are forgotten after so long, milliseconds.
const FORGET_MS: u64 = 10 * 60_000;

/// Clients remembered at most.
const REMEMBERED_MAX: usize = 10_000;

/// Wrong tokens by client, an IPv4 address or an IPv6 /64: how many, and when last.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<IpAddr, (u32, Millis)>>);

impl Guesses {
    /// Seconds that a client is to wait, if it is.
    pub(super) fn wait_secs(&self, from: IpAddr, now: Millis) -> Option<u64> {
        let guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = guesses.get(&client_of(from)).copied()?;
        let doublings = count.checked_sub(FREE)?;
        let wait = WAIT_FIRST_MS.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX_MS);
        Some((last + wait).since(now).div_ceil(1000)).filter(|secs| *secs > 0)
    }

    /// A client guessed wrong.
    pub(super) fn wrong(&self, from: IpAddr, now: Millis) {
        let mut guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.len() >= REMEMBERED_MAX {
            guesses.retain(|_, (_, last)| now.since(*last) < FORGET_MS);
            if guesses.len() >= REMEMBERED_MAX {
                guesses.clear();
            }
        }
        let (count, last) = guesses.entry(client_of(from)).or_insert((0, now));
        if now.since(*last) >= FORGET_MS {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
    }

    /// A client joined.
    pub(super) fn right(&self, from: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&client_of(from));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_a_64_is_one_client() {
        let guesses = Guesses::default();
        let here: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        let mut now = Millis(1_000_000);
        for _ in 0..FREE - 1 {
            guesses.wrong(here, now);
            assert_eq!(guesses.wait_secs(neighbour, now), None);
        }
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            guesses.wrong(neighbour, now);
            assert_eq!(guesses.wait_secs(here, now), Some(wait));
            now = now + wait * 1000;
            assert_eq!(guesses.wait_secs(here, now), None);
        }
        guesses.wrong(here, now);
        assert_eq!(guesses.wait_secs("2001:db8:0:1::1".parse().unwrap(), now), None);
        assert_eq!(guesses.wait_secs(here, now + FORGET_MS), None);
        guesses.right(neighbour);
        assert_eq!(guesses.wait_secs(here, now), None);
    }

    #[test]
    fn guesses_from_everywhere_take_bounded_room() {
        let guesses = Guesses::default();
        for n in 0..3 * u32::try_from(REMEMBERED_MAX).unwrap() {
            guesses.wrong(std::net::Ipv4Addr::from(n).into(), Millis(1));
        }
        assert!(guesses.0.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
