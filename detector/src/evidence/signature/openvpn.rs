//! OpenVPN amplification.
//!
//! Server resets retransmitted towards the spoofed source.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "openvpn-amplification",
    title: "OpenVPN amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[1194]),
    length_min: 28,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
