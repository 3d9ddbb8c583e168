//! ACK flood.
//!
//! ACKs outside any connection, to exhaust state tables.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "ack-flood",
    title: "ACK flood",
    family: Family::TcpFlood,
    packets: Packets::TcpFlags { mask: 0x16, set: 0x10 },
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: false,
};
