//! ISAKMP amplification.
//!
//! IKE answers and their retransmissions, from 500 and, with NAT traversal, from 4500.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "isakmp-amplification",
    title: "ISAKMP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[500, 4500]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
