//! CharGEN amplification.
//!
//! Character generator (RFC 864): random length up to 512 octets.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "chargen-amplification",
    title: "CharGEN amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[19]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
