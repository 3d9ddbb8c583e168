//! WS-Discovery amplification.
//!
//! SOAP answers of cameras and printers, 600 octets and above.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "wsd-amplification",
    title: "WS-Discovery amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[3702]),
    length_min: 200,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
