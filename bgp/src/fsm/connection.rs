//! One TCP connection to the peer, from OPEN on.

use weir_model::{Millis, PeerState};

use super::{Negotiated, OPEN_WAIT_MS};

/// How far a connection is.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// weir's OPEN is out.
    OpenSent,
    /// The peer's OPEN was good; its KEEPALIVE is awaited.
    OpenConfirm(
        /// What is agreed on.
        Negotiated,
    ),
    /// Up.
    Established {
        /// Since when.
        since: Millis,
        /// What is agreed on.
        negotiated: Negotiated,
    },
}

impl Phase {
    pub(super) const fn state(&self) -> PeerState {
        match self {
            Self::OpenSent => PeerState::OpenSent,
            Self::OpenConfirm(_) => PeerState::OpenConfirm,
            Self::Established { .. } => PeerState::Established,
        }
    }
}

/// A connection with its timers.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    /// The peer must have been heard by then.
    pub(super) hold_at: Option<Millis>,
    pub(super) hold_ms: u64,
    /// weir is heard then.
    pub(super) keepalive_at: Option<Millis>,
    pub(super) keepalive_ms: u64,
}

impl Connection {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            phase: Phase::OpenSent,
            hold_at: Some(now + OPEN_WAIT_MS),
            hold_ms: 0,
            keepalive_at: None,
            keepalive_ms: 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        self.hold_at.into_iter().chain(self.keepalive_at).min()
    }

    /// The peer was heard.
    pub(super) fn heard(&mut self, now: Millis) {
        if self.hold_ms > 0 {
            self.hold_at = Some(now + self.hold_ms);
        }
    }
}
