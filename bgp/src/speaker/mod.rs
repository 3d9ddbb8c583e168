//! The speaker: drives each peer's state machine over TCP and keeps its routes as desired.
//!
//! ```text
//! admitted (watch, latest wins) -> one task per peer <--> TCP
//! policy   (watch)             -->        |
//! word     (watch)             -->        |
//! orders   (mpsc, 4)           -->        |
//! listener task -- accepted --> (mpsc, 4) |
//!                                         +--> observed (mpsc, bounded by its maker)
//! changes  (mpsc) ----------> the speaker: tasks begin, end, or are told another policy
//! ```
//! A peer's task owns its sockets, machine and table; nothing is shared. It never waits for the
//! core: reports queue up, and while they do, no further route is written, but the session lives.

mod announce;
mod connection;
mod desk;
mod listener;
mod origin;
mod peer;
mod prepared;
mod probe;
mod running;
mod sockopt;
mod standing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use weir_model::{Millis, Observed};

use crate::adapter;
use crate::config::{Config, ConfigError};
use crate::guard::Admitted;
use crate::rpki::Table;
use running::Running;

pub use desk::Desk;
pub use prepared::{Listening, Prepared};
pub use probe::{PROBE_MAX, blank as blank_probe, probe};
pub use standing::PeerMemory;

/// How long a stop may last: withdrawals, last words, and daemons that are slow to answer.
pub const FAREWELL: Duration = adapter::FAREWELL.saturating_add(Duration::from_secs(2));

/// How the speaker is to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Run.
    #[default]
    Run,
    /// Close the sessions without NOTIFICATION: peers with graceful restart keep the routes.
    Hold,
    /// Withdraw every route, then close with Cease.
    Withdraw,
}

/// How a single task is to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Word {
    /// Run.
    #[default]
    Run,
    /// weir stops.
    Stop(Stop),
    /// The peer is no longer configured: withdraw everything.
    Gone,
    /// Another task follows with another session: the peer is to keep the routes meanwhile, if it
    /// can.
    Anew,
    /// Another task follows, whose session is with somebody else: withdraw everything.
    Instead,
}

impl Word {
    /// Whether nothing of weir's is to stay.
    pub(crate) const fn withdraws(self) -> bool {
        matches!(self, Self::Stop(Stop::Withdraw) | Self::Gone | Self::Instead)
    }
}

/// Why the speaker does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// The configuration contradicts itself.
    #[error("bgp: {0}")]
    Config(#[from] ConfigError),
    /// The address to listen on is not to be had.
    #[error("bgp: cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A password file cannot be read.
    #[error("bgp: peer \"{peer}\": password_file: {source}")]
    Password {
        /// Whose.
        peer: String,
        /// Why.
        source: std::io::Error,
    },
    /// A peer's task panicked: a fault of weir.
    #[error("bgp: the task of a peer ended unexpectedly")]
    Task,
}

/// A speaker that is bound but does not run yet.
#[derive(Debug)]
pub struct Speaker {
    first: Prepared,
    changes: Option<mpsc::Receiver<Prepared>>,
    desk: Desk,
    memory: BTreeMap<String, PeerMemory>,
    origins: watch::Sender<Table>,
}

impl Speaker {
    /// One that begins with this configuration.
    pub fn new(first: Prepared) -> Self {
        let (desk, memory) = (Desk::default(), BTreeMap::new());
        Self { first, changes: None, desk, memory, origins: watch::Sender::default() }
    }

    /// Checks the configuration and binds the listening socket.
    ///
    /// # Errors
    /// [`SpeakerError::Config`], [`SpeakerError::Password`], [`SpeakerError::Bind`].
    pub fn bind(config: Config) -> Result<Self, SpeakerError> {
        Prepared::new(Some(config), &Listening::default()).map(|(first, _)| Self::new(first))
    }

    /// Follows other configurations while it runs.
    #[must_use]
    pub fn with_changes(self, changes: mpsc::Receiver<Prepared>) -> Self {
        Self { changes: Some(changes), ..self }
    }

    /// Takes orders from a desk.
    #[must_use]
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk, ..self }
    }

    /// Takes back what an earlier run had found out about peers, by name.
    #[must_use]
    pub fn with_memory(self, memory: BTreeMap<String, PeerMemory>) -> Self {
        Self { memory, ..self }
    }

    /// Keeps here what the RPKI cache says, for others who want to know.
    #[must_use]
    pub fn with_origins(self, origins: watch::Sender<Table>) -> Self {
        Self { origins, ..self }
    }

    /// Runs until stopped.
    ///
    /// Nothing but what passed the guard comes in. End-of-RIB is sent only once the first
    /// admitted state is there, one with a generation above 0: an earlier one would make peers
    /// drop what they kept over a restart.
    ///
    /// # Errors
    /// [`SpeakerError::Task`], and [`SpeakerError::Bind`] when the socket cannot be used.
    pub async fn run(
        self,
        desired: watch::Receiver<Admitted>,
        observed: mpsc::Sender<Observed>,
        stop: watch::Receiver<Stop>,
    ) -> Result<(), SpeakerError> {
        let Self { first, changes, desk, memory, origins } = self;
        let mut running = Running::new(desired, observed, desk, memory, origins);
        running.change(first);
        running.run(changes, stop).await
    }
}

/// Binds and runs a speaker; see [`Speaker`].
///
/// # Errors
/// See [`Speaker::bind`] and [`Speaker::run`].
pub async fn run(
    config: Config,
    desired: watch::Receiver<Admitted>,
    observed: mpsc::Sender<Observed>,
    stop: watch::Receiver<Stop>,
) -> Result<(), SpeakerError> {
    Speaker::bind(config)?.run(desired, observed, stop).await
}

/// The wall clock, for reports.
pub(crate) fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
