//! SYN-ACK reflection.
//!
//! Servers answering SYNs forged in the victim's name, usually from 80 and 443.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "syn-ack-reflection",
    title: "SYN-ACK reflection",
    family: Family::SynFlood,
    packets: Packets::TcpFlags { mask: 0x12, set: 0x12 },
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 5,
    standalone: true,
};
