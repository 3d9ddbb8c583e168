//! TFTP amplification.
//!
//! Data blocks retransmitted; most servers move to another port after the first block.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "tftp-amplification",
    title: "TFTP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[69]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
