//! DHDiscover amplification.
//!
//! Dahua recorders' discovery service: JSON answers of about 700 octets.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "dhdiscover-amplification",
    title: "DHDiscover amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[37810]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
