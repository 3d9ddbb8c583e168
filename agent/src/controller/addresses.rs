//! Which addresses are a node's own.

use std::net::IpAddr;

use weir_model::Millis;

use super::{Controller, EVENTS_MAX, Node, Withheld};
use crate::protocol::Event;

/// Most addresses of a node that count.
pub const ADDRESSES_MAX: usize = 4096;

/// Addresses remembered that a node says it has and does not get.
const WITHHELD_MAX: usize = 64;

impl Controller {
    /// Works out which of the addresses that a node says it has are its own, and takes note of what changed:
    /// those that the operator named with its token; without such a word, those that are no other node's.
    /// Returns whether anything is new.
    pub(super) fn settle(&mut self, name: &str, claimed: &[IpAddr], now: Millis) -> bool {
        let mut claimed = claimed.to_vec();
        claimed.sort_unstable();
        claimed.dedup();
        let surplus = claimed.len().saturating_sub(ADDRESSES_MAX);
        claimed.truncate(ADDRESSES_MAX);
        let Some(node) = self.state.nodes.get(name) else { return false };
        let mut own = Vec::new();
        let mut withheld = Vec::new();
        for address in &claimed {
            let why = if !node.granted.is_empty() {
                (!node.owns(*address)).then(|| "its token names other addresses".to_owned())
            } else {
                self.holder(*address, name, now).map(|other| format!("node {other} has it"))
            };
            match why {
                None => own.push(*address),
                Some(why) if withheld.len() < WITHHELD_MAX && !is_private(*address) => {
                    withheld.push(Withheld { address: *address, why });
                }
                Some(_) => (),
            }
        }
        let Some(node) = self.state.nodes.get_mut(name) else { return false };
        let mut said = Vec::new();
        let joining = node.claimed.is_empty();
        let list = |found: Vec<&IpAddr>| {
            let more = found.len().saturating_sub(8);
            let names: Vec<String> = found.into_iter().take(8).map(ToString::to_string).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", names.join(", "))
        };
        let new: Vec<&IpAddr> = own.iter().filter(|a| !node.addresses.contains(a)).collect();
        let gone: Vec<&IpAddr> = node.addresses.iter().filter(|a| !own.contains(a)).collect();
        if !joining && !new.is_empty() {
            said.push(format!("it has {} now", list(new)));
        }
        if !gone.is_empty() {
            said.push(format!("it no longer has {}", list(gone)));
        }
        for w in withheld.iter().filter(|w| !node.withheld.contains(w)) {
            said.push(format!("it says that it has {}, and does not get it: {}", w.address, w.why));
        }
        if surplus > 0 && node.claimed != claimed {
            said.push(format!(
                "it has {surplus} addresses more than the {ADDRESSES_MAX} that count"
            ));
        }
        let changed = node.addresses != own || node.withheld != withheld;
        node.addresses = own;
        node.withheld = withheld;
        node.claimed = claimed;
        for text in said {
            node.events.push(Event { at: now, kind: "addresses".to_owned(), text });
        }
        let surplus = node.events.len().saturating_sub(EVENTS_MAX);
        node.events.drain(..surplus);
        changed
    }

    /// The node other than one that has an address: by the operator's word, or because it had it first and is up.
    fn holder(&self, address: IpAddr, except: &str, now: Millis) -> Option<&str> {
        let others = self.state.nodes.iter().filter(|(name, _)| *name != except);
        let has = |n: &Node| n.addresses.contains(&address) && n.is_up(now) && !is_private(address);
        others.into_iter().find(|(_, n)| n.owns(address) || has(n)).map(|(name, _)| name.as_str())
    }
}

/// Addresses that many nodes have, each its own: nobody's claim to them excludes another's.
const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            a.is_private()
                || a.is_link_local()
                || a.is_loopback()
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_unique_local() || a.is_unicast_link_local() || a.is_loopback(),
    }
}
