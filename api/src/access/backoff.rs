//! Guessing passwords, codes and tokens is slowed down per address and per account, and never locks an
//! account for good: who knows the password gets in as soon as the wait is over, and other addresses
//! that signed in before are not slowed by a stranger's guesses at the account.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use weir_model::Millis;

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
    /// An account, from anywhere.
    Account(String),
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
}

impl Backoff {
    /// Whether this address may try now.
    pub(crate) fn check_address(&self, address: IpAddr, now: Millis) -> Result<(), Problem> {
        self.check(&Key::Address(network(address)), now)
    }

    /// Whether this address may try this account now.
    pub(crate) fn check_account(
        &self,
        address: IpAddr,
        account: &str,
        now: Millis,
    ) -> Result<(), Problem> {
        self.check_address(address, now)?;
        self.check(&Key::Account(account.to_lowercase()), now)
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
        let account = account.map(|account| Key::Account(account.to_lowercase()));
        for key in [Some(Key::Address(network(address))), account].into_iter().flatten() {
            let entry = failures.entry(key).or_insert(Failures { count: 0, last: now });
            if now.since(entry.last) >= FORGET_MS {
                entry.count = 0;
            }
            entry.count = entry.count.saturating_add(1);
            entry.last = now;
        }
    }

    /// Someone got in.
    pub(crate) fn succeeded(&self, address: IpAddr, account: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&Key::Address(network(address)));
        failures.remove(&Key::Account(account.to_lowercase()));
    }
}

/// A subscriber has a whole /64 of IPv6 to guess from.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
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
        backoff.succeeded(address, "eve");
        assert!(backoff.check_account(address, "eve", now).is_ok());
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
