//! SSDP amplification.
//!
//! UPnP discovery answers, about 300 octets each.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "ssdp-amplification",
    title: "SSDP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[1900]),
    length_min: 100,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
