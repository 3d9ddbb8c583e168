//! Guessing passwords, codes and tokens is slowed down per address and per account, and never locks an
//! account for good: who knows the password gets in as soon as the wait is over, and other addresses
//! that signed in before are not slowed by a stranger's guesses at the account.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use weir_model::{Millis, client_of};

use crate::problem::Problem;

/// Failures after which waiting begins.
const FREE_FAILURES: u32 = 5;

/// First wait, milliseconds; doubles with every further failure.
const WAIT_FIRST_MS: u64 = 1000;

/// Longest wait, milliseconds.
const WAIT_MAX_MS: u64 = 15 * 60 * 1000;

/// Failures are forgotten after so long, milliseconds.
const FORGET_MS: u64 = 60 * 60 * 1000;

/// Addresses and accounts remembered at most.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// An IPv4 address or an IPv6 /64.
    Address(IpAddr),
    /// An account, from anywhere it was not signed in to.
    Account(String),
    /// An account, from an address that signed in to it before.
    Known(String, IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Millis,
}

impl Failures {
    fn wait_ms(self, now: Millis) -> u64 {
        let Some(over) = self.count.checked_sub(FREE_FAILURES) else { return 0 };
        let wait = WAIT_FIRST_MS.checked_shl(over.min(32)).unwrap_or(WAIT_MAX_MS).min(WAIT_MAX_MS);
        (self.last + wait).since(now)
    }
}

/// Recent failures.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: Mutex<HashMap<Key, Failures>>,
    /// From where which account was signed in to, and when last.
    known: Mutex<HashMap<(String, IpAddr), Millis>>,
}

impl Backoff {
    /// Whether this address may try now.
    pub(crate) fn check_address(&self, address: IpAddr, now: Millis) -> Result<(), Problem> {
        self.check(&Key::Address(client_of(address)), now)
    }

    /// Whether this address may try this account now.
    pub(crate) fn check_account(
        &self,
        address: IpAddr,
        account: &str,
        now: Millis,
    ) -> Result<(), Problem> {
        self.check_address(address, now)?;
        self.check(&self.key_of(address, account), now)
    }

    /// What an address must wait for: strangers' guesses at an account count against strangers.
    fn key_of(&self, address: IpAddr, account: &str) -> Key {
        let pair = (account.to_lowercase(), client_of(address));
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&pair);
        if known { Key::Known(pair.0, pair.1) } else { Key::Account(pair.0) }
    }

    /// An account is signed in to from here, or was.
    pub(crate) fn knows(&self, address: IpAddr, account: &str, now: Millis) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (account.to_lowercase(), client_of(address));
        if known.len() >= REMEMBERED_MAX && !known.contains_key(&pair) {
            let oldest = known.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| pair.clone());
            oldest.map(|pair| known.remove(&pair));
        }
        known.insert(pair, now);
    }

    fn check(&self, key: &Key, now: Millis) -> Result<(), Problem> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(key).map_or(0, |failures| failures.wait_ms(now)) {
            0 => Ok(()),
            wait => Err(Problem::too_many("too many failures", wait.div_ceil(1000))),
        }
    }

    /// Someone guessed wrong.
    pub(crate) fn failed(&self, address: IpAddr, account: Option<&str>, now: Millis) {
        let account = account.map(|account| self.key_of(address, account));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= REMEMBERED_MAX {
            failures.retain(|_, failures| now.since(failures.last) < FORGET_MS);
        }
        if failures.len() >= REMEMBERED_MAX {
            // Full of fresh ones: an attack from everywhere. Those that failed least are forgotten; the
            // limit on sign-ins at the same time still holds.
            failures.retain(|_, failures| failures.count > FREE_FAILURES);
            if failures.len() >= REMEMBERED_MAX {
                failures.clear();
            }
        }
        for key in [Some(Key::Address(client_of(address))), account].into_iter().flatten() {
            let entry = failures.entry(key).or_insert(Failures { count: 0, last: now });
            if now.since(entry.last) >= FORGET_MS {
                entry.count = 0;
            }
            entry.count = entry.count.saturating_add(1);
            entry.last = now;
        }
    }

    /// Someone got in.
    pub(crate) fn succeeded(&self, address: IpAddr, account: &str, now: Millis) {
        let key = self.key_of(address, account);
        self.knows(address, account, now);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&Key::Address(client_of(address)));
        // From elsewhere, others may still be guessing: their wait is not ended by this.
        if matches!(key, Key::Known(..)) {
            failures.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let backoff = Backoff::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut now = Millis(1_000_000);
        for _ in 0..FREE_FAILURES - 1 {
            backoff.failed(address, Some("Eve"), now);
            assert!(backoff.check_account(address, "eve", now).is_ok());
        }
        for wait in [1000, 2000, 4000, 8000] {
            backoff.failed(address, Some("Eve"), now);
            assert!(backoff.check_account(address, "EVE", now + (wait - 1)).is_err());
            now = now + wait;
            assert!(backoff.check_account(address, "eve", now).is_ok());
        }
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        backoff.failed(address, Some("eve"), now);
        assert!(backoff.check_account(other, "eve", now).is_err(), "the account waits everywhere");
        assert!(backoff.check_account(other, "bob", now).is_ok());
        backoff.succeeded(address, "eve", now);
        assert!(backoff.check_account(address, "eve", now).is_ok());
        assert!(backoff.check_account(other, "eve", now).is_err(), "strangers still wait");
    }

    #[test]
    fn strangers_do_not_lock_the_owner_out_from_where_he_signs_in() {
        let backoff = Backoff::default();
        let home: IpAddr = "2001:db8:1::7".parse().unwrap();
        let now = Millis(1_000_000);
        backoff.succeeded(home, "Root", now);
        for n in 0..50_u8 {
            backoff.failed(IpAddr::from([198, 51, 100, n]), Some("root"), now);
        }
        let stranger = IpAddr::from([192, 0, 2, 1]);
        assert!(backoff.check_account(stranger, "root", now).is_err());
        let neighbour: IpAddr = "2001:db8:1::8".parse().unwrap();
        assert!(backoff.check_account(home, "root", now).is_ok());
        assert!(backoff.check_account(neighbour, "ROOT", now).is_ok(), "the same /64");
        // Guesses from there count there.
        for _ in 0..FREE_FAILURES {
            backoff.failed(home, Some("root"), now);
        }
        assert!(backoff.check_account(neighbour, "root", now).is_err());
    }

    #[test]
    fn neighbours_in_a_64_share_their_failures_and_memory_is_bounded() {
        let backoff = Backoff::default();
        for n in 0..10_u16 {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
            backoff.failed(address, None, Millis(5));
        }
        let address = IpAddr::from([0x2001, 0xdb8, 0, 0, 9, 9, 9, 9]);
        assert!(backoff.check_address(address, Millis(5)).is_err());
        for n in 0..30_000_u32 {
            backoff.failed(IpAddr::from(n.to_be_bytes()), None, Millis(5));
        }
        assert!(backoff.failures.lock().unwrap().len() <= REMEMBERED_MAX + 1);
    }
}
