//! TCP flood with impossible flags.
//!
//! No flags at all, or FIN with SYN, SYN with RST, FIN with PSH and URG: no TCP sends these (RFC
//! 9293).

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "tcp-odd-flags",
    title: "TCP flood with impossible flags",
    family: Family::TcpFlood,
    packets: Packets::TcpOdd,
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
