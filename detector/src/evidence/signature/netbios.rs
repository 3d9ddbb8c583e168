//! NetBIOS amplification.
//!
//! Name service status answers.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "netbios-amplification",
    title: "NetBIOS amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[137]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
