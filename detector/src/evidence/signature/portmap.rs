//! Portmapper amplification.
//!
//! RPC program lists.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "portmap-amplification",
    title: "Portmapper amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[111]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
