//! Ubiquiti discovery amplification.
//!
//! Discovery answers of Ubiquiti devices.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "ubiquiti-amplification",
    title: "Ubiquiti discovery amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[10001]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
