//! Plex amplification.
//!
//! Plex media servers' discovery answers.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "plex-amplification",
    title: "Plex amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[32410, 32414]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
