//! NTP amplification.
//!
//! Mode 7 `monlist` and mode 6 answers; an ordinary answer is 76 octets, so the average must be
//! above 90. A monlist answer is 468.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "ntp-amplification",
    title: "NTP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[123]),
    length_min: 90,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
