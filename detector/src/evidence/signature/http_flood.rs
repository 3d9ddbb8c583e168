//! HTTP flood.
//!
//! Requests over full connections to web ports from many senders: data packets among the
//! acknowledgements, which an ACK flood lacks. Flow records do not show requests, so it stays a
//! suspicion until a server's own log confirms it.

use weir_model::Family;

use super::{Packets, Signature};

pub(super) const SIGNATURE: Signature = Signature {
    id: "http-flood",
    title: "HTTP flood (suspected)",
    family: Family::HttpFlood,
    packets: Packets::RequestsTo(&[80, 443, 8080, 8443]),
    length_min: 48,
    length_max: 700,
    sources_min: 30,
    standalone: false,
};
