//! A limited number of places, such as connections, and who holds how many of them.
//!
//! When all are taken, a newcomer gets the place of a stranger: the one that has been quiet for longest, of
//! the client that holds most. So nobody is kept out by others who come early and in numbers. Who has proven
//! who they are keeps their place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Connections that have lost their place and are not yet closed, at most: descriptors beyond the places.
pub const LEAVING_MAX: usize = 16;

/// Places of which one client holds at most so many. Clones share them.
#[derive(Clone, Debug)]
pub struct Places {
    max: usize,
    client_max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// The next number: of a place, and of when it was last heard of.
    next: u64,
    places: HashMap<u64, Holder>,
    by_client: HashMap<IpAddr, Client>,
    /// Clients that strangers' places could be taken from, by how many they are.
    heaviest: BTreeSet<(usize, IpAddr)>,
    /// Strangers, the one that was quiet for longest first: its place, and its client.
    quiet: BTreeMap<u64, (u64, IpAddr)>,
    kept: usize,
    kept_max: usize,
    leaving: usize,
}

#[derive(Debug, Default)]
struct Client {
    all: usize,
    /// Strangers among them, the one that was quiet for longest first.
    quiet: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Holder {
    client: IpAddr,
    /// When it was last heard of; none for whoever keeps their place.
    heard: Option<u64>,
    lost: bool,
    waker: Option<Waker>,
}

/// One place; given back when it is dropped.
#[derive(Debug)]
pub struct Place(Seat);

/// A place, for those who use it without holding it.
#[derive(Clone, Debug)]
pub struct Seat {
    number: u64,
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
    /// So many in all, and so many for one client. Three quarters may be kept by those who have proven who
    /// they are.
    pub fn new(max: usize, client_max: usize) -> Self {
        let held = Held { kept_max: max - max / 4, ..Held::default() };
        Self { max, client_max, held: Arc::new(Mutex::new(held)) }
    }

    /// Takes a place for a client, if need be from a stranger, who then has [`Place::lost`] it. `None` when
    /// there is none for it.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let client = client_of(address);
        let mut held = lock(&self.held);
        if !held.make_room(client, self.max, self.client_max) {
            return None;
        }
        let number = held.number();
        held.by_client.entry(client).or_default().all += 1;
        held.places.insert(number, Holder { client, heard: None, lost: false, waker: None });
        held.listen_to(number);
        Some(Place(Seat { number, held: Arc::clone(&self.held) }))
    }
}

impl Held {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sees to it that there is a place; says whether there is.
    fn make_room(&mut self, client: IpAddr, max: usize, client_max: usize) -> bool {
        let own = self.by_client.get(&client);
        let (own, strangers) = own.map_or((0, 0), |own| (own.all, own.quiet.len()));
        let quietest_of = |client: &IpAddr| {
            self.by_client.get(client)?.quiet.first_key_value().map(|(_, number)| *number)
        };
        let from = if own >= client_max {
            quietest_of(&client)
        } else if self.places.len() - self.leaving < max {
            return true;
        } else {
            match self.heaviest.last() {
                Some((most, heaviest)) if *most > strangers + 1 => quietest_of(heaviest),
                // One each: whoever has none yet is let in for a moment.
                _ if strangers == 0 => self.quiet.first_key_value().map(|(_, (number, _))| *number),
                _ => None,
            }
        };
        let Some(from) = from.filter(|_| self.leaving < LEAVING_MAX) else { return false };
        self.forget(from);
        self.leaving += 1;
        if let Some(holder) = self.places.get_mut(&from) {
            holder.lost = true;
            if let Some(waker) = holder.waker.take() {
                waker.wake();
            }
        }
        true
    }

    /// It was heard of now: of all strangers, it has been quiet for the shortest.
    fn listen_to(&mut self, number: u64) {
        let heard = self.number();
        let Some(holder) = self.places.get_mut(&number) else { return };
        let (client, before) = (holder.client, holder.heard.replace(heard));
        let Some(known) = self.by_client.get_mut(&client) else { return };
        let weight = known.quiet.len();
        if let Some(before) = before {
            known.quiet.remove(&before);
            self.quiet.remove(&before);
        }
        known.quiet.insert(heard, number);
        let weighs = known.quiet.len();
        self.quiet.insert(heard, (number, client));
        self.weigh(client, weight, weighs);
    }

    fn weigh(&mut self, client: IpAddr, before: usize, now: usize) {
        if before != now {
            self.heaviest.remove(&(before, client));
            if now > 0 {
                self.heaviest.insert((now, client));
            }
        }
    }

    /// It is no stranger any more.
    fn acquaint(&mut self, number: u64) {
        let Some(holder) = self.places.get_mut(&number) else { return };
        let client = holder.client;
        let Some(heard) = holder.heard.take() else { return };
        self.quiet.remove(&heard);
        let Some(known) = self.by_client.get_mut(&client) else { return };
        let weight = known.quiet.len();
        known.quiet.remove(&heard);
        let weighs = known.quiet.len();
        self.weigh(client, weight, weighs);
    }

    /// It counts no more.
    fn forget(&mut self, number: u64) {
        let Some(holder) = self.places.get(&number) else { return };
        let client = holder.client;
        if holder.heard.is_none() {
            self.kept = self.kept.saturating_sub(1);
        }
        self.acquaint(number);
        if let Some(known) = self.by_client.get_mut(&client) {
            known.all = known.all.saturating_sub(1);
            if known.all == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

impl Place {
    /// What a request may hold of it.
    pub fn seat(&self) -> Seat {
        self.0.clone()
    }

    /// Resolves when somebody else has got the place: what it is for is to end at once.
    pub async fn lost(&self) {
        poll_fn(|context| {
            let mut held = lock(&self.0.held);
            match held.places.get_mut(&self.0.number) {
                Some(holder) if !holder.lost => {
                    holder.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

impl Seat {
    /// Something was heard from whoever has it.
    pub fn heard(&self) {
        let mut held = lock(&self.held);
        let stranger = held.places.get(&self.number).is_some_and(|holder| holder.heard.is_some());
        if stranger {
            held.listen_to(self.number);
        }
    }

    /// Whoever has it has proven who they are, and keeps it while there is room for strangers.
    pub fn keep(&self) {
        let mut held = lock(&self.held);
        let stranger = held.places.get(&self.number).is_some_and(|holder| holder.heard.is_some());
        if stranger && held.kept < held.kept_max {
            held.kept += 1;
            held.acquaint(self.number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.0.held);
        let lost = held.places.get(&self.0.number).is_some_and(|holder| holder.lost);
        if lost {
            held.leaving = held.leaving.saturating_sub(1);
        } else {
            held.forget(self.0.number);
        }
        held.places.remove(&self.0.number);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_lost(place: &Place) -> bool {
        pin!(place.lost()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_client_is_an_address_or_a_64() {
        let places = Places::new(9, 2);
        let take = |text: &str| {
            let place = places.take(address(text)).unwrap();
            place.seat().keep();
            place
        };
        let held = [take("192.0.2.1"), take("::ffff:192.0.2.1")];
        assert!(places.take(address("192.0.2.1")).is_none());
        let other = [take("2001:db8::1"), take("2001:db8::ffff:2")];
        assert!(places.take(address("2001:db8::3")).is_none());
        let last = take("2001:db8:0:1::1");
        drop(held);
        assert!(places.take(address("192.0.2.1")).is_some(), "given back");
        drop((other, last));
        let held = lock(&places.held);
        assert!(held.places.is_empty() && held.by_client.is_empty() && held.heaviest.is_empty());
        assert!(held.quiet.is_empty() && held.kept == 0 && held.leaving == 0);
    }

    #[test]
    fn who_comes_with_less_gets_the_quietest_place_of_who_has_most() {
        let places = Places::new(8, 4);
        let take = |text: &str| places.take(address(text));
        let first: Vec<Place> = (0..4).map(|_| take("192.0.2.1").unwrap()).collect();
        let second: Vec<Place> = (0..4).map(|_| take("192.0.2.2").unwrap()).collect();
        first[0].seat().heard();
        second[0].seat().heard();
        let lost = |of: &[Place]| of.iter().map(is_lost).collect::<Vec<_>>();
        let newcomer = take("198.51.100.1").unwrap();
        // Of two that hold as much, one.
        assert_eq!(
            (lost(&first), lost(&second)),
            (vec![false; 4], vec![false, true, false, false])
        );
        let again = take("198.51.100.1").unwrap();
        assert_eq!(lost(&first), [false, true, false, false]);
        // Three, three and two: nobody has two more than whoever comes.
        assert!(take("198.51.100.1").is_none());
        assert!(!is_lost(&newcomer) && !is_lost(&again));
        // At its own limit a client gives up its own.
        let places = Places::new(8, 2);
        let own = [
            places.take(address("192.0.2.1")).unwrap(),
            places.take(address("192.0.2.1")).unwrap(),
        ];
        let third = places.take(address("192.0.2.1")).unwrap();
        assert!(is_lost(&own[0]) && !is_lost(&own[1]) && !is_lost(&third));
    }

    #[test]
    fn one_each_makes_room_for_a_newcomer_and_the_known_stay() {
        let places = Places::new(4, 4);
        let take = |n: u8| places.take(IpAddr::from([192, 0, 2, n]));
        let all: Vec<Place> = (0..4).map(|n| take(n).unwrap()).collect();
        all.iter().for_each(|place| place.seat().keep());
        let newcomer = take(9).unwrap();
        assert_eq!(all.iter().map(is_lost).collect::<Vec<_>>(), [false, false, false, true]);
        assert!(take(9).is_none(), "for its first place only");
        drop(newcomer);
        drop(all);
        assert_eq!(lock(&places.held).kept, 0);
    }

    #[test]
    fn those_that_have_not_left_yet_are_few() {
        let places = Places::new(100, 100);
        let heavy: Vec<Place> =
            (0..100).map(|_| places.take(address("192.0.2.1")).unwrap()).collect();
        let taken: Vec<Place> =
            (0..100).filter_map(|n: u8| places.take(IpAddr::from([198, 51, 100, n]))).collect();
        assert_eq!(taken.len(), LEAVING_MAX);
        drop(heavy);
        assert!(places.take(address("192.0.2.1")).is_some());
    }
}
