//! The speaker: drives each peer's state machine over TCP and keeps its routes as desired.
//!
//! ```text
//! admitted (watch, latest wins) -> one task per peer <--> TCP
//! stop     (watch)             -->        |
//! orders   (mpsc, 4)           -->        |
//! listener task -- accepted --> (mpsc, 4) |
//!                                         +--> observed (mpsc, bounded by its maker)
//! ```
//! A peer's task owns its sockets, machine and table; nothing is shared. It never waits for the
//! core: reports queue up, and while they do, no further route is written, but the session lives.

mod announce;
mod connection;
mod desk;
mod listener;
mod origin;
mod peer;
mod probe;
mod sockopt;
mod standing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use weir_model::{Millis, Observed};

use crate::adapter;
use crate::config::{Config, ConfigError};
use crate::guard::Admitted;
use crate::rpki;
use listener::Route as ListenerRoute;
use origin::OriginCheck;
use peer::PeerTask;

pub use desk::{Desk, Orders, desk};
pub use probe::{PROBE_MAX, blank as blank_probe, probe};
pub use standing::PeerMemory;

/// How long a stop may last: withdrawals, last words, and daemons that are slow to answer.
pub const FAREWELL: Duration = adapter::FAREWELL.saturating_add(Duration::from_secs(2));

/// Connections accepted for one peer and not yet looked at.
const ACCEPTED_MAX: usize = 4;

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
    config: Config,
    listener: Option<TcpListener>,
    orders: Orders,
    memory: BTreeMap<String, PeerMemory>,
}

impl Speaker {
    /// Checks the configuration and binds the listening socket.
    ///
    /// # Errors
    /// [`SpeakerError::Config`], [`SpeakerError::Password`], [`SpeakerError::Bind`].
    pub async fn bind(mut config: Config) -> Result<Self, SpeakerError> {
        config.validate()?;
        listener::read_passwords(&mut config)?;
        let listener = match config.listen {
            None => None,
            Some(address) => Some(
                listener::bind(address, &config)
                    .map_err(|source| SpeakerError::Bind { address, source })?,
            ),
        };
        Ok(Self { config, listener, orders: Orders::default(), memory: BTreeMap::new() })
    }

    /// Takes orders from a desk.
    #[must_use]
    pub fn with_orders(self, orders: Orders) -> Self {
        Self { orders, ..self }
    }

    /// Takes back what an earlier run had found out about peers, by name.
    #[must_use]
    pub fn with_memory(self, memory: BTreeMap<String, PeerMemory>) -> Self {
        Self { memory, ..self }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Runs until stopped.
    ///
    /// Nothing but what passed the guard comes in. End-of-RIB is sent only once the first
    /// admitted state is there, one with a generation above 0: an earlier one would make peers
    /// drop what they kept over a restart.
    ///
    /// # Errors
    /// [`SpeakerError::Task`].
    pub async fn run(
        mut self,
        desired: watch::Receiver<Admitted>,
        observed: mpsc::Sender<Observed>,
        mut stop: watch::Receiver<Stop>,
    ) -> Result<(), SpeakerError> {
        let mut peers = JoinSet::new();
        let mut helpers = JoinSet::new();
        let mut routes = Vec::new();
        let origins = self.config.rpki.as_ref().map(|rpki| {
            let (table, origins) = watch::channel(rpki::Table::default());
            helpers.spawn(rpki::run(rpki.cache, table));
            (origins, rpki.origin_as.unwrap_or(self.config.local_as))
        });
        for (index, peer) in self.config.peers.iter().enumerate() {
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            routes.push(ListenerRoute::new(peer, sender));
            let task = PeerTask::new(
                &self.config,
                index,
                &self.memory.remove(&peer.name).unwrap_or_default(),
                peer::Ends {
                    origin: origins
                        .as_ref()
                        .map(|(table, asn)| OriginCheck::new(table.clone(), *asn, peer.rpki)),
                    accepted,
                    orders: self.orders.of(&peer.name),
                    desired: desired.clone(),
                    observed: observed.clone(),
                    stop: stop.clone(),
                },
            );
            peers.spawn(task.run());
        }
        for adapter in self.config.adapters {
            let (desired, observed) = (desired.clone(), observed.clone());
            peers.spawn(adapter::run(adapter, desired, observed, stop.clone()));
        }
        if let Some(listener) = self.listener {
            helpers.spawn(listener::accept(listener, routes));
        }
        let mut result = Ok(());
        if peers.is_empty() {
            // Nobody to speak to: wait to be stopped.
            let _ = stop.wait_for(|s| *s != Stop::Run).await;
        }
        while let Some(ended) = peers.join_next().await {
            if ended.is_err() {
                result = Err(SpeakerError::Task);
            }
        }
        helpers.shutdown().await;
        result
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
    Speaker::bind(config).await?.run(desired, observed, stop).await
}

/// The wall clock, for reports.
pub(crate) fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
