//! ICMP unreachable backscatter.
//!
//! Errors about packets that somebody sent in the victim's name; accompanies reflection attacks.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "icmp-unreachable",
    title: "ICMP unreachable backscatter",
    family: Family::IcmpFlood,
    packets: Packets::Icmp(&[(1, 3), (1, 11), (58, 1), (58, 3)]),
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
