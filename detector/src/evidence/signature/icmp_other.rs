//! ICMP flood.
//!
//! Any other ICMP.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "icmp-flood",
    title: "ICMP flood",
    family: Family::IcmpFlood,
    packets: Packets::Icmp(&[]),
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
