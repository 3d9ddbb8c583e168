//! RST flood.
//!
//! RSTs, forged or as answers to forged packets.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "rst-flood",
    title: "RST flood",
    family: Family::TcpFlood,
    packets: Packets::TcpFlags { mask: 0x16, set: 0x04 },
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: false,
};
