//! UDP flood.
//!
//! UDP of no more particular kind.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "udp-flood",
    title: "UDP flood",
    family: Family::UdpFlood,
    packets: Packets::Protocol(17),
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: false,
};
