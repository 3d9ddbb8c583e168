//! Steam query amplification.
//!
//! A2S_INFO, A2S_PLAYER and A2S_RULES answers of game servers.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "steam-amplification",
    title: "Steam query amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[27015, 27016, 27017, 27018, 27019, 27020, 26900]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
