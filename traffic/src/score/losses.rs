//! What measures took from ordinary traffic, whole and by stratum: a sum hides the few packets
//! without which nobody can join.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::goodput::{Goodput, Policy};
use super::{Event, measures};
use crate::case::{CaseWorld, Truth};
use crate::mix::{Kind, Mix};

/// A part of ordinary traffic that must not be lost unseen behind the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stratum {
    /// First packets of connections: TCP SYNs, and QUIC Initials on port 443 (1,200 to 1,320
    /// octets).
    NewConnections,
    /// A declared service.
    Service {
        /// Its host.
        address: IpAddr,
        /// IP protocol.
        protocol: u8,
        /// Port.
        port: u16,
    },
    /// All else.
    Rest,
}

/// Octets that were on their way, and those that measures took of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Benign octets.
    pub octets: f64,
    /// Of these, dropped by measures.
    pub cut: f64,
}

impl Loss {
    /// Share that was dropped, 0-1.
    pub fn share(&self) -> f64 {
        if self.octets > 0.0 { self.cut / self.octets } else { 0.0 }
    }

    /// Adds another.
    pub const fn add(&mut self, other: &Self) {
        self.octets += other.octets;
        self.cut += other.cut;
    }
}

/// What measures took in one case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// All benign octets of the case.
    pub whole: Loss,
    /// While any measure stood.
    pub ruled: Loss,
    /// By stratum, in their order.
    pub strata: Vec<(Stratum, Loss)>,
}

/// The stratum of a kind of packet.
pub fn stratum(world: &CaseWorld, kind: &Kind) -> Stratum {
    let syn = kind.protocol == 6 && kind.tcp_flags & 0x12 == 0x02;
    let initial =
        kind.protocol == 17 && kind.dst_port == 443 && (1200..=1320).contains(&kind.length);
    if syn || initial {
        return Stratum::NewConnections;
    }
    let declared = world
        .services
        .iter()
        .any(|s| (s.address, s.protocol, s.port) == (kind.dst, kind.protocol, kind.dst_port));
    if declared {
        Stratum::Service { address: kind.dst, protocol: kind.protocol, port: kind.dst_port }
    } else {
        Stratum::Rest
    }
}

/// Counts what a defender's measures took.
pub fn losses(world: &CaseWorld, truths: &[Truth], mix: &Mix, events: &[Event]) -> Losses {
    let stood = measures(events, world.epoch_ms + world.seconds * 1000);
    let goodput = Goodput::new(world, mix);
    let mut losses = Losses::default();
    let mut strata: BTreeMap<Stratum, Loss> = BTreeMap::new();
    goodput.each(&Policy::Measures(&stood), truths, |kind, octets, cut, ruled| {
        let loss = Loss { octets, cut };
        losses.whole.add(&loss);
        if ruled {
            losses.ruled.add(&loss);
        }
        strata.entry(stratum(world, kind)).or_default().add(&loss);
    });
    losses.strata = strata.into_iter().collect();
    losses
}
