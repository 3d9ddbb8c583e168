//! Bidirectional Forwarding Detection towards BGP peers on the same link (RFC 5880, RFC 5881): a router that
//! is dead, or a path that is, is noticed within a second and not after the hold time.
//!
//! [`packet`] and [`session`] are pure: octets, events and `now` in, packets and states out. [`hub`] runs all
//! sessions on a thread of its own, so that no arithmetic of weir's delays a packet that a router waits for.
//!
//! Single hop, asynchronous mode, no authentication: packets with another TTL than 255 are dropped in the
//! kernel (RFC 5881 §5), and what has crossed no router was sent on the link. No echo, no demand mode of our own;
//! a peer that asks for demand mode gets it.

mod hub;
mod packet;
mod session;

use serde::{Deserialize, Serialize};

pub(crate) use hub::{Hub, Status};
pub use packet::{Diagnostic, Packet, State};
pub use session::{Change, Session};

/// BFD with a BGP peer, under `[bgp.peer.bfd]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How often weir sends, milliseconds, 50-10000, unless the peer asks for less.
    #[serde(default = "default_interval")]
    pub min_tx_ms: u16,
    /// How often the peer may send, milliseconds, 50-10000.
    #[serde(default = "default_interval")]
    pub min_rx_ms: u16,
    /// Packets of weir that the peer may miss before it takes weir for dead, 2-50. How many of the peer's weir
    /// may miss is the peer's to say.
    #[serde(default = "default_multiplier")]
    pub multiplier: u8,
}

const fn default_interval() -> u16 {
    300
}

const fn default_multiplier() -> u8 {
    3
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_tx_ms: default_interval(),
            min_rx_ms: default_interval(),
            multiplier: default_multiplier(),
        }
    }
}

impl Config {
    /// What the types cannot check.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        for (name, ms) in [("min_tx_ms", self.min_tx_ms), ("min_rx_ms", self.min_rx_ms)] {
            if !(50..=10_000).contains(&ms) {
                return Err(("bfd", format!("{name} must be 50-10000")));
            }
        }
        if !(2..=50).contains(&self.multiplier) {
            return Err(("bfd", "multiplier must be 2-50".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
