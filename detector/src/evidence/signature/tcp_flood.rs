//! TCP flood.
//!
//! TCP of no more particular kind.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "tcp-flood",
    title: "TCP flood",
    family: Family::TcpFlood,
    packets: Packets::Protocol(6),
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: false,
};
