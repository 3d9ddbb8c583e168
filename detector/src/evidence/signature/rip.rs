//! RIPv1 amplification.
//!
//! Routing tables of old routers, up to 504 octets of payload.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "rip-amplification",
    title: "RIPv1 amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[520]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
