//! ICMP echo flood.
//!
//! Echo requests or replies.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "icmp-echo-flood",
    title: "ICMP echo flood",
    family: Family::IcmpFlood,
    packets: Packets::Icmp(&[(1, 8), (1, 0), (58, 128), (58, 129)]),
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
