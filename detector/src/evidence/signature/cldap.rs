//! CLDAP amplification.
//!
//! Connectionless LDAP rootDSE answers, 1,000 octets and above, often in fragments.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "cldap-amplification",
    title: "CLDAP amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[389]),
    length_min: 500,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
