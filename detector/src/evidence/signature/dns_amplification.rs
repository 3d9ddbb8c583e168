//! DNS amplification.
//!
//! Large answers from open resolvers; ordinary answers are mostly below 300 octets.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "dns-amplification",
    title: "DNS amplification",
    family: Family::DnsFlood,
    packets: Packets::AnswersFrom(&[53]),
    length_min: 300,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
