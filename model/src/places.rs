//! A limited number of places, such as connections, and who holds how many of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places of which one client holds at most so many. Clones share them.
#[derive(Clone, Debug)]
pub struct Places {
    max: usize,
    client_max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    client: IpAddr,
    held: Arc<Mutex<Held>>,
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who counts as one: an IPv4 address, or the /64 of an IPv6 address, for whoever has one such address has
/// all of them.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl Places {
    /// So many in all, and so many for one client.
    pub fn new(max: usize, client_max: usize) -> Self {
        Self { max, client_max, held: Arc::default() }
    }

    /// Takes a place for a client; `None` when there is none for it.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let client = client_of(address);
        let mut held = lock(&self.held);
        let own = held.by_client.get(&client).copied().unwrap_or_default();
        if held.all >= self.max || own >= self.client_max {
            return None;
        }
        held.all += 1;
        held.by_client.insert(client, own + 1);
        Some(Place { client, held: Arc::clone(&self.held) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        held.all = held.all.saturating_sub(1);
        let own = held.by_client.get(&self.client).copied().unwrap_or_default();
        if own > 1 {
            held.by_client.insert(self.client, own - 1);
        } else {
            held.by_client.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_64() {
        let places = Places::new(5, 2);
        let take = |text: &str| places.take(text.parse().unwrap());
        let held = [take("192.0.2.1"), take("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some) && take("192.0.2.1").is_none());
        let other = [take("2001:db8::1"), take("2001:db8::ffff:2")];
        assert!(other.iter().all(Option::is_some) && take("2001:db8::3").is_none());
        let last = take("2001:db8:0:1::1");
        assert!(last.is_some() && take("198.51.100.1").is_none(), "all are taken");
        drop(held);
        assert!(take("192.0.2.1").is_some(), "given back");
        drop((other, last));
        let held = lock(&places.held);
        assert_eq!((held.all, held.by_client.len()), (0, 0));
    }
}
