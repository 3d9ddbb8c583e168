//! SNMP amplification.
//!
//! GetBulk answers of agents with a public community.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "snmp-amplification",
    title: "SNMP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[161]),
    length_min: 80,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
