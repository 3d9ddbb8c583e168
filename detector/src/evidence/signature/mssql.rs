//! MS SQL amplification.
//!
//! SQL Server browser instance lists.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "mssql-amplification",
    title: "MS SQL amplification",
    family: Family::UdpFlood,
    packets: Packets::AnswersFrom(&[1434]),
    length_min: 60,
    length_max: u16::MAX,
    sources_min: 10,
    standalone: true,
};
