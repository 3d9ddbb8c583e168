//! A bounded sample of records, chosen by their content.
//!
//! A record is kept when its hash lies below a threshold; when the room is full, the threshold is
//! halved and what lies above it goes. Order and number of shards do not matter, only the
//! content does; each kept record stands for as many as the threshold says.

use weir_model::{FlowRecord, Sample};

use super::hash::record_hash;

/// Chooses evidence for one slice.
#[derive(Debug)]
pub(super) struct Reservoir {
    limit: usize,
    level: u32,
    hashes: Vec<u64>,
    kept: Vec<Sample>,
}

impl Reservoir {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), level: 0, hashes: Vec::new(), kept: Vec::new() }
    }

    /// Considers a record.
    #[inline]
    pub(super) fn offer(&mut self, record: &FlowRecord) {
        let hash = record_hash(record);
        if hash <= u64::MAX >> self.level {
            self.keep(hash, record);
        }
    }

    #[cold]
    fn shrink(&mut self) {
        self.level += 1;
        let bound = u64::MAX >> self.level;
        let mut to = 0;
        for from in 0..self.hashes.len() {
            if self.hashes[from] <= bound {
                self.hashes[to] = self.hashes[from];
                self.kept[to] = self.kept[from];
                to += 1;
            }
        }
        self.hashes.truncate(to);
        self.kept.truncate(to);
    }

    #[inline(never)]
    fn keep(&mut self, hash: u64, record: &FlowRecord) {
        // Records of equal content have equal hashes and are thinned together or not at all, so
        // the threshold can fall to nothing: give up thinning there and refuse instead.
        while self.kept.len() >= self.limit {
            if self.level >= 40 {
                return;
            }
            self.shrink();
            if hash > u64::MAX >> self.level {
                return;
            }
        }
        self.hashes.push(hash);
        self.kept.push(Sample { record: *record, weight: 1 });
    }

    /// Hands the sample over in exchange for an empty vector, and begins anew.
    pub(super) fn take(&mut self, into: &mut Vec<Sample>) {
        let weight = 1_u32.checked_shl(self.level).unwrap_or(u32::MAX);
        for sample in &mut self.kept {
            sample.weight = weight;
        }
        into.clear();
        std::mem::swap(into, &mut self.kept);
        self.hashes.clear();
        // The next slice is likely alike: begin one step lower than this one ended, so that a
        // steady flood is not collected and thrown away from scratch ten times a second.
        self.level = self.level.saturating_sub(1);
    }
}
