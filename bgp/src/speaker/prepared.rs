//! A configuration with all that it needs of the system: once it is there, putting it in force cannot
//! fail.

use std::net::{SocketAddr, TcpListener};

use super::{SpeakerError, listener};
use crate::config::Config;

/// A configuration that was checked, with the passwords read and the listening socket bound.
#[derive(Debug)]
pub struct Prepared {
    pub(super) config: Option<Config>,
    pub(super) listener: Listener,
}

/// What becomes of the listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// It stays as it is.
    Same,
    /// This one takes its place, or none.
    Other(Option<TcpListener>),
}

/// The listening socket in use, for whoever prepares what comes next.
#[derive(Debug, Default)]
pub struct Listening {
    /// As configured.
    asked: Option<SocketAddr>,
    socket: Option<TcpListener>,
}

impl Listening {
    /// Where peers may dial, as configured.
    pub const fn asked(&self) -> Option<SocketAddr> {
        self.asked
    }

    /// Where peers may dial, as bound.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.as_ref().and_then(|socket| socket.local_addr().ok())
    }
}

impl Prepared {
    /// Prepares a configuration, or that there is none any more, to follow on one that listens as
    /// `before` says. Nothing changes for that one yet; a new address is bound beside its own.
    /// What it leaves is to be kept in the place of `before` once it is in force.
    ///
    /// # Errors
    /// [`SpeakerError::Config`], [`SpeakerError::Password`], [`SpeakerError::Bind`].
    pub fn new(
        config: Option<Config>,
        before: &Listening,
    ) -> Result<(Self, Option<Listening>), SpeakerError> {
        let mut config = config;
        if let Some(config) = &mut config {
            config.validate()?;
            listener::read_passwords(config)?;
        }
        let asked = config.as_ref().and_then(|config| config.listen);
        if asked == before.asked {
            return Ok((Self { config, listener: Listener::Same }, None));
        }
        let Some((address, all)) = asked.zip(config.as_ref()) else {
            let listener = Listener::Other(None);
            return Ok((Self { config, listener }, Some(Listening::default())));
        };
        let bound = listener::bind(address, all, before.socket.as_ref())
            .and_then(|socket| Ok((socket.try_clone()?, socket)));
        let (kept, socket) = bound.map_err(|source| SpeakerError::Bind { address, source })?;
        let listening = Listening { asked, socket: Some(kept) };
        Ok((Self { config, listener: Listener::Other(Some(socket)) }, Some(listening)))
    }
}
