//! DNS query flood.
//!
//! Queries, often for random names below one domain, that reach a name server.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "dns-query-flood",
    title: "DNS query flood",
    family: Family::DnsFlood,
    packets: Packets::UdpTo(&[53]),
    length_min: 0,
    length_max: 200,
    sources_min: 1,
    standalone: false,
};
