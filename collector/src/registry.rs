//! Numbers of exporters, the same in every shard.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_model::ExporterId;

use crate::accumulate::Repeats;

/// Who an exporter is: a sender, or one of several sFlow agents behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    /// The source address of its datagrams.
    pub(crate) address: IpAddr,
    /// The agent, unless it is the first one heard from there.
    pub(crate) agent: Option<IpAddr>,
}

/// Hands out one [`ExporterId`] for each exporter. Locked only when a shard meets an exporter for the
/// first time, or lets one go, so it costs the receive path nothing. Also holds what the shards learn
/// together of exporters that report the same packets.
#[derive(Debug, Default)]
pub struct Registry {
    numbers: Mutex<Numbers>,
    repeats: Arc<Repeats>,
    definition_octets: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// Keys come from the network: the standard library's keyed hash; nothing iterates over it.
    known: HashMap<Sender, Number>,
    /// The first agent heard from each sender.
    first_agents: HashMap<IpAddr, IpAddr>,
    /// Numbers that nobody has any more, the longest unused first.
    free: VecDeque<u16>,
    next: u16,
}

#[derive(Clone, Copy, Debug)]
struct Number {
    number: u16,
    /// Shards that hold it.
    held: u32,
}

impl Registry {
    /// The number of a sender for one more shard, a new one if it is the first time, none beyond `limit`
    /// exporters.
    pub(crate) fn hold(&self, sender: Sender, limit: usize) -> Option<ExporterId> {
        let mut numbers = self.lock();
        if let Some(number) = numbers.known.get_mut(&sender) {
            number.held += 1;
            return Some(ExporterId(number.number));
        }
        if numbers.known.len() >= limit {
            return None;
        }
        let number = match numbers.free.pop_front() {
            Some(number) => number,
            None => {
                let next = numbers.next.checked_add(1)?;
                std::mem::replace(&mut numbers.next, next)
            }
        };
        numbers.known.insert(sender, Number { number, held: 1 });
        if numbers.known.len() > 1 {
            self.repeats.begin();
        }
        Some(ExporterId(number))
    }

    /// A shard has forgotten a sender. When all have, somebody else may get its number.
    pub(crate) fn release(&self, sender: Sender) {
        let mut numbers = self.lock();
        let Some(number) = numbers.known.get_mut(&sender) else { return };
        number.held -= 1;
        let Number { number, held: 0 } = *number else { return };
        numbers.known.remove(&sender);
        numbers.free.push_back(number);
        if sender.agent.is_none() {
            numbers.first_agents.remove(&sender.address);
        }
        self.repeats.forget(ExporterId(number));
    }

    /// Whether `agent` is the first one heard from a sender, in any shard; the first one asked for is.
    pub(crate) fn is_first_agent(&self, address: IpAddr, agent: IpAddr) -> bool {
        let mut numbers = self.lock();
        *numbers.first_agents.entry(address).or_insert(agent) == agent
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Octets of the templates of all exporters.
    pub(crate) fn definition_octets(&self) -> &Arc<AtomicUsize> {
        &self.definition_octets
    }

    pub(crate) fn repeats(&self) -> &Arc<Repeats> {
        &self.repeats
    }
}
