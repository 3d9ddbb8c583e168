//! mDNS amplification.
//!
//! Multicast DNS answering unicast from outside the link.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "mdns-amplification",
    title: "mDNS amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[5353]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
