//! CoAP amplification.
//!
//! Constrained devices' resource lists.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "coap-amplification",
    title: "CoAP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[5683]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
