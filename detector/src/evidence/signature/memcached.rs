//! memcached amplification.
//!
//! Cached values sent over UDP, up to 1,400 octets a packet.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "memcached-amplification",
    title: "memcached amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[11211]),
    length_min: 500,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
