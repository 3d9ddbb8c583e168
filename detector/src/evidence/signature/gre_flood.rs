//! GRE flood.
//!
//! GRE carrying forged packets, as the Mirai family sends it.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "gre-flood",
    title: "GRE flood",
    family: Family::Unknown,
    packets: Packets::Protocol(47),
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
