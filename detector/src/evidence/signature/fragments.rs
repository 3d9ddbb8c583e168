//! Fragment flood.
//!
//! Fragments after the first: they carry no ports. Fragments of an amplification's large answers
//! are put to that vector when their sources are the same.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "fragment-flood",
    title: "fragment flood",
    family: Family::FragmentFlood,
    packets: Packets::Fragments,
    length_min: 0,
    length_max: u16::MAX,
    sources_min: 1,
    standalone: true,
};
