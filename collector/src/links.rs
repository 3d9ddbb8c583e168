//! What passes the interfaces of uplinks, by the records of their exporter.

use weir_model::LinkCount;

/// Counts of the interfaces that are counted: those of uplinks, and no others.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<LinkCount>);

impl Links {
    pub(crate) fn new(interfaces: &[u32]) -> Self {
        let mut links = Self::default();
        links.set(interfaces);
        links
    }

    /// Counts these from now on; what was counted of one that stays goes on.
    pub(crate) fn set(&mut self, interfaces: &[u32]) {
        let mut all: Vec<u32> = interfaces.to_vec();
        all.sort_unstable();
        all.dedup();
        let of = |index| {
            let known = self.at(index).map(|at| self.0[at]);
            known.unwrap_or_else(|| LinkCount { index, ..LinkCount::default() })
        };
        self.0 = all.into_iter().map(of).collect();
    }

    /// Whether there is nothing to count.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a record of so many octets, multiplied by its sampling rate. What the router dropped has filled
    /// the link that it came in by, and none that it would have gone out by.
    pub(crate) fn add(&mut self, input_if: u32, output_if: u32, bytes: u64, dropped: bool) {
        if let Some(at) = self.at(input_if) {
            self.0[at].in_bytes = self.0[at].in_bytes.wrapping_add(bytes);
        }
        if let Some(at) = self.at(output_if).filter(|_| !dropped) {
            self.0[at].out_bytes = self.0[at].out_bytes.wrapping_add(bytes);
        }
    }

    /// What was counted, by interface.
    pub(crate) fn counts(&self) -> Vec<LinkCount> {
        self.0.clone()
    }

    fn at(&self, index: u32) -> Option<usize> {
        self.0.binary_search_by_key(&index, |count| count.index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_counted_and_it_goes_on() {
        let mut links = Links::new(&[7, 3]);
        links.add(3, 9, 100, false);
        links.add(9, 3, 10, false);
        links.add(7, 3, 1, false);
        links.add(7, 3, 1000, true);
        let count = |index, in_bytes, out_bytes| LinkCount { index, in_bytes, out_bytes };
        assert_eq!(links.counts(), [count(3, 100, 11), count(7, 1001, 0)]);
        links.set(&[9, 3]);
        links.add(9, 7, 5, false);
        assert_eq!(links.counts(), [count(3, 100, 11), count(9, 5, 0)]);
        links.set(&[]);
        assert!(links.is_empty());
    }
}
