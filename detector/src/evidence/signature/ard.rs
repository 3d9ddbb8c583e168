//! Apple Remote Desktop amplification.
//!
//! ARD's net assistant answers 1,034 octets to a 32-octet request.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "ard-amplification",
    title: "Apple Remote Desktop amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[3283]),
    length_min: 100,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
