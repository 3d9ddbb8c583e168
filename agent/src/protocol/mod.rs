//! What appliance and node say to each other.
//!
//! ```text
//! node      -> POST /v1/agents/join     Join -> Joined
//! node      -> GET  /v1/agents/stream   SSE: one Envelope an event (a Snapshot at first and on change, a Lease else)
//! node      -> GET  /v1/agents/state    the same by polling, If-None-Match "<epoch>.<version>"
//! node      -> POST /v1/agents/report   Report
//! ```
//! The node dials, so it may stand behind NAT. Snapshots are whole: a missed one costs nothing.

mod envelope;
mod wire;

pub use envelope::{
    Envelope, PAYLOAD_MAX, Refused, Signer, Stamp, Verifier, fingerprint, hex, unhex,
};
pub use wire::{
    BadRule, Block, Body, Event, Join, Joined, Lease, NodeStats, Report, RuleReport, RuleState,
    Service, ServiceStats, Snapshot, read_rules,
};
