//! Validated ROA payloads, and what they say of a prefix and an origin (RFC 6811).

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_model::{IpNet, PrefixSet};

/// Payloads held at most: twice what the whole Internet has (2026: about 700,000). What comes
/// beyond is counted and dropped, and the table then answers "not found" as if it had none.
const VRPS_MAX: usize = 1_500_000;

/// A validated ROA payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrp {
    /// The prefix.
    pub net: IpNet,
    /// Longest prefix under it that may be announced.
    pub max_len: u8,
    /// The AS that may.
    pub asn: u32,
}

/// What is known of a prefix and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// No payload covers the prefix.
    NotFound,
    /// A payload allows it.
    Valid,
    /// The origin is right, the prefix longer than allowed.
    TooLong,
    /// Only others may originate it.
    WrongOrigin,
}

/// The payloads of a cache.
#[derive(Clone, Debug, Default)]
pub struct Table {
    vrps: BTreeSet<Vrp>,
    overflow: bool,
    lapsed: bool,
}

impl Table {
    /// A table that was too old to be used.
    pub fn lapsed() -> Self {
        Self { lapsed: true, ..Self::default() }
    }

    /// Whether there was data, and it was too old to be used.
    pub const fn is_lapsed(&self) -> bool {
        self.lapsed
    }

    /// Adds a payload; its host bits are cleared.
    pub fn insert(&mut self, vrp: Vrp) {
        if self.vrps.len() >= VRPS_MAX {
            self.overflow = true;
            return;
        }
        self.vrps.insert(Vrp { net: vrp.net.trunc(), ..vrp });
    }

    /// Takes a payload out.
    pub fn remove(&mut self, vrp: Vrp) {
        self.vrps.remove(&Vrp { net: vrp.net.trunc(), ..vrp });
    }

    /// How many payloads.
    pub fn len(&self) -> usize {
        self.vrps.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vrps.is_empty()
    }

    /// What the payloads say of `net` announced by `origin`.
    pub fn validity(&self, net: IpNet, origin: u32) -> Validity {
        if self.overflow {
            // Half a table would call valid routes invalid.
            return Validity::NotFound;
        }
        let mut found = Validity::NotFound;
        for vrp in self.covering(net) {
            if vrp.asn == origin && origin != 0 {
                if net.prefix_len() <= vrp.max_len {
                    return Validity::Valid;
                }
                found = Validity::TooLong;
            } else if found == Validity::NotFound {
                found = Validity::WrongOrigin;
            }
        }
        found
    }

    /// Prefixes that payloads let any of these autonomous systems originate. It goes through all payloads.
    ///
    /// # Errors
    /// In words, when the table cannot say: nothing was heard yet, what was is too old, or is not all.
    pub fn originated(&self, asns: &[u32]) -> Result<PrefixSet, String> {
        let why = if self.lapsed {
            "RPKI data is too old to be used"
        } else if self.overflow {
            "the RPKI cache has more than weir holds"
        } else if self.vrps.is_empty() {
            "the RPKI cache has said nothing yet"
        } else {
            let own = self.vrps.iter().filter(|vrp| asns.contains(&vrp.asn));
            let own: Vec<IpNet> = own.map(|vrp| vrp.net).collect();
            return Ok(IpNet::aggregate(&own).into());
        };
        Err(why.to_owned())
    }

    fn covering(&self, net: IpNet) -> impl Iterator<Item = &Vrp> {
        (0..=net.prefix_len()).filter_map(move |len| truncated(net.addr(), len)).flat_map(|net| {
            let first = Vrp { net, max_len: 0, asn: 0 };
            let last = Vrp { net, max_len: u8::MAX, asn: u32::MAX };
            self.vrps.range(first..=last)
        })
    }
}

fn truncated(address: IpAddr, len: u8) -> Option<IpNet> {
    IpNet::new(address, len).ok().map(|n| n.trunc())
}
