//! What the detector's memory goes to, tier by tier.

use serde::{Deserialize, Serialize};

use crate::Detector;
use crate::watch::baseline::RING;
use crate::watch::host::{Idle, Warm};
use crate::watch::intake::Service;
use crate::watch::metric::METRICS;
use crate::watch::own::Own;
use crate::watch::season::Season;
use crate::watch::series::{Kind, Series};
use crate::watch::totals::Total;

/// Octets in use, and what by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Hosts known, and the octets of what is kept of every one of them: a cache line each, and the
    /// way from addresses to them.
    pub hosts: usize,
    /// Octets for all hosts.
    pub hosts_bytes: usize,
    /// Hosts and prefixes watched in detail.
    pub warm: usize,
    /// Octets for their windows and baselines.
    pub warm_bytes: usize,
    /// Octets for the packets kept of them as evidence.
    pub evidence_bytes: usize,
    /// Declared services seen.
    pub services: usize,
    /// Octets for their windows and baselines.
    pub services_bytes: usize,
}

impl Memory {
    /// All of it.
    pub const fn total(&self) -> usize {
        self.hosts_bytes + self.warm_bytes + self.evidence_bytes + self.services_bytes
    }
}

impl Series {
    /// Octets on the heap.
    fn heap(&self) -> usize {
        let rings = self.baselines.iter().filter(|b| b.has_ring()).count() * RING;
        let season = if self.season.is_some() { size_of::<Season>() + 2 * (168 + 14) } else { 0 };
        let fixed = self.fixed.capacity() * size_of::<(usize, f64)>();
        self.window.heap() + rings + season + fixed + self.waiting.len() * METRICS
    }
}

impl Detector {
    /// What memory goes to. Walks over everything: not for every slot.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            hosts: self.idle.len(),
            hosts_bytes: self.idle.capacity() * size_of::<Idle>() + self.table.heap(),
            services: self.services.len(),
            ..Memory::default()
        };
        for warm in self.warm.iter().flatten() {
            memory.warm += usize::from(warm.series.kind != Kind::Service);
            memory.warm_bytes += size_of::<Warm>() + warm.series.heap();
            let own = warm.own.iter().map(|own| size_of::<Own>() + own.series.heap());
            memory.warm_bytes += own.sum::<usize>();
            memory.evidence_bytes += warm.profile.heap() + warm.sent.heap();
            let familiar = usize::from(warm.familiar.is_some());
            memory.evidence_bytes += familiar * size_of::<crate::watch::familiar::Familiar>();
        }
        let totals = self.totals.list.iter().map(|total| size_of::<Total>() + total.series.heap());
        memory.warm_bytes += totals.sum::<usize>();
        memory.warm_bytes += self.warm.capacity() * size_of::<usize>();
        for service in self.services.values() {
            memory.services_bytes += size_of::<Service>() + service.series.heap();
        }
        memory
    }
}
