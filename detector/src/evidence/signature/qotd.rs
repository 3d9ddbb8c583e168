//! QOTD amplification.
//!
//! Quote of the day (RFC 865).

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "qotd-amplification",
    title: "QOTD amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[17]),
    length_min: 40,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
