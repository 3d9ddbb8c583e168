//! How many requests an address may make: a bucket of tokens each, so that one client in a loop does not
//! take the API from the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use weir_model::{Millis, client_of};

use crate::problem::Problem;

/// Requests at once.
const BURST: u64 = 400;

/// Requests a second, sustained.
const PER_SEC: u64 = 100;

/// Addresses remembered at most.
const REMEMBERED_MAX: usize = 10_000;

/// Thousandths of a request left, and when counted.
type Bucket = (u64, Millis);

/// Requests of each address.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Limit {
    /// Counts one request.
    pub(crate) fn take(&self, address: IpAddr, now: Millis) -> Result<(), Problem> {
        const FULL: u64 = BURST * 1000;
        let refilled = |(left, at): Bucket| (left + now.since(at) * PER_SEC).min(FULL);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED_MAX {
            buckets.retain(|_, bucket| refilled(*bucket) < FULL);
            if buckets.len() >= REMEMBERED_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(client_of(address)).or_insert((FULL, now));
        let left = refilled(*bucket);
        *bucket = (left.saturating_sub(1000), now);
        if left >= 1000 { Ok(()) } else { Err(Problem::too_many("too many requests", 1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let limit = Limit::default();
        let (address, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..BURST {
            assert!(limit.take(address, Millis(0)).is_ok());
        }
        assert!(limit.take(address, Millis(0)).is_err());
        assert!(limit.take(other, Millis(0)).is_ok());
        let passed = (0..1000).filter(|_| limit.take(address, Millis(1000)).is_ok()).count();
        assert_eq!(passed, 100);
    }

    #[test]
    fn memory_is_bounded() {
        let limit = Limit::default();
        for n in 0..30_000_u32 {
            assert!(limit.take(IpAddr::from(n.to_be_bytes()), Millis(0)).is_ok());
        }
        assert!(limit.buckets.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
