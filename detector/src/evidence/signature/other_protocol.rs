//! Flood of another protocol.
//!
//! A protocol that is neither TCP, UDP, ICMP nor GRE.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "other-protocol-flood",
    title: "flood of another protocol",
    family: Family::Unknown,
    packets: Packets::Any,
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: false,
};
