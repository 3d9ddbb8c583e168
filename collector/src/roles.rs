//! Interface roles: each packet counts once, where it crosses the network's edge.
//!
//! A packet that two routers, or the ingress and the egress of one router, have sampled comes in
//! two records. Where the operator names the external interfaces, only records that touch one of
//! these count. Where a router samples both directions and says so, a record made at the egress is
//! a duplicate when the interface it came in by samples at the ingress. What two routers report
//! without either being said is found where records are added up: `accumulate::repeats`.

use rustc_hash::FxHashMap;
use weir_model::Millis;

/// Most interfaces remembered for one exporter.
const MAX_INTERFACES: usize = 4096;
/// An interface that has not sampled at the ingress for longer is not expected to. Milliseconds.
const MEMORY_MS: u64 = 60_000;

/// What is known of one exporter's interfaces.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    /// Named by the operator, sorted; empty when not said.
    external: Vec<u32>,
    /// When each interface last sampled at the ingress, by domain: indexes are those of its device.
    ingress: FxHashMap<(u32, u32), Millis>,
    /// The last entry made, so that a run of records of one interface is looked up once.
    last: ((u32, u32), Millis),
    /// When room was last made.
    swept: Millis,
}

impl Roles {
    pub(crate) fn new(external: &[u32]) -> Self {
        let mut external = external.to_vec();
        external.sort_unstable();
        Self { external, ..Self::default() }
    }

    /// The operator names others.
    pub(crate) fn set_external(&mut self, external: &[u32]) {
        external.clone_into(&mut self.external);
        self.external.sort_unstable();
    }

    /// Those that the operator has named, sorted.
    pub(crate) fn external(&self) -> &[u32] {
        &self.external
    }

    /// Whether every record counts, whatever its interfaces.
    #[inline]
    pub(crate) fn all_count(&self) -> bool {
        self.external.is_empty()
    }

    /// Whether a record between these interfaces counts. Interface 0 is "not said".
    #[inline]
    pub(crate) fn counts(&self, input: u32, output: u32) -> bool {
        self.all_count() || (input == 0 && output == 0) || self.touches(input, output)
    }

    fn touches(&self, input: u32, output: u32) -> bool {
        [input, output].iter().any(|index| self.external.binary_search(index).is_ok())
    }

    /// Takes note of a record made at the ingress.
    #[inline]
    pub(crate) fn ingress(&mut self, domain: u32, input: u32, now: Millis) {
        if self.last != ((domain, input), now) && input != 0 {
            self.remember((domain, input), now);
        }
    }

    fn remember(&mut self, interface: (u32, u32), now: Millis) {
        self.last = (interface, now);
        if self.ingress.len() < MAX_INTERFACES || self.ingress.contains_key(&interface) {
            self.ingress.insert(interface, now);
        } else if now.since(self.swept) >= MEMORY_MS {
            // Those that have fallen silent are not expected any more, and make room.
            self.swept = now;
            self.ingress.retain(|_, at| now.since(*at) < MEMORY_MS);
        }
    }

    /// Whether packets that came in by `input` are being sampled there.
    pub(crate) fn seen_at_ingress(&self, domain: u32, input: u32, now: Millis) -> bool {
        self.ingress.get(&(domain, input)).is_some_and(|at| now.since(*at) < MEMORY_MS)
    }
}
