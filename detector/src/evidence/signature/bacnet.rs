//! BACnet amplification.
//!
//! Building automation: ReadPropertyMultiple answers.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "bacnet-amplification",
    title: "BACnet amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[47808]),
    length_min: 28,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
