//! The appliance's listener for nodes: HTTP over TLS with an own authority.
//!
//! weir runs it on a thread of its own. Every connection is bounded in time and size, and there are at most
//! [`CONNECTIONS_MAX`] of them; whoever is no node makes room for others.

mod authority;
mod captures;
mod config;
mod guesses;
mod routes;

pub use authority::{Authority, AuthorityError};
pub use captures::{CAPTURE_MAX, Have};
pub use config::Config;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::debug;
use weir_model::{IncidentId, IpNet, Millis, Places, Seat};

use crate::config::{Token, write_private};
use crate::controller::{Controller, State, Ticket};
use crate::protocol::{fingerprint, hex};

/// Most connections at once: each node holds two.
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections of one IPv4 address or IPv6 /64 at the same time: as many nodes may stand behind one that
/// translates addresses.
const CONNECTIONS_PER_CLIENT_MAX: usize = 256;

/// How long a handshake or the head of a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a join token holds unless said otherwise, milliseconds.
pub const TOKEN_MS: u64 = 3_600_000;

/// Why the listener cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The authority could not be read or made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The stored state is none.
    #[error("{}: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Nodes, shared by the listener and the appliance's core.
#[derive(Debug)]
pub struct Server {
    controller: Mutex<Controller>,
    path: PathBuf,
    /// Held while the state is written: two writers would take each other's fresh file away.
    writing: Mutex<()>,
    tls: Arc<ServerConfig>,
    authority: String,
    /// Rises whenever some node's snapshot may be new.
    changed: watch::Sender<u64>,
    /// Rises with each report.
    reported: watch::Sender<u64>,
    /// API keys of bouncers: SHA-256 of each.
    bouncers: Mutex<Vec<String>>,
    guesses: guesses::Guesses,
}

impl Server {
    /// Opens the state in a folder, or begins one.
    ///
    /// # Errors
    /// When what is there cannot be used: nodes would not trust a new authority, so none is made in its place.
    pub fn open(folder: &Path, now: Millis) -> Result<Arc<Self>, ServerError> {
        let authority = Authority::open(folder)?;
        let path = folder.join("agents.json");
        let failed = |why: String| ServerError::State { path: path.clone(), why };
        let state = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(failed(error.to_string())),
        };
        let controller = Controller::new(state, now).map_err(|e| failed(e.to_string()))?;
        let server = Self {
            controller: Mutex::new(controller),
            tls: authority.server_config()?,
            authority: authority.fingerprint(),
            changed: watch::Sender::new(0),
            reported: watch::Sender::new(0),
            bouncers: Mutex::new(Vec::new()),
            guesses: guesses::Guesses::default(),
            path: path.clone(),
            writing: Mutex::new(()),
        };
        server.save().map_err(|e| failed(e.to_string()))?;
        Ok(Arc::new(server))
    }

    /// The nodes. Held for moments only.
    pub fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a join token for one node: of this name and with these addresses, when they are named.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn token(
        &self,
        name: Option<&str>,
        addresses: &[IpNet],
        now: Millis,
    ) -> Result<Token, ring::error::Unspecified> {
        let token = Token { secret: secret()?, authority: self.authority.clone() };
        let ticket = ticket(name, addresses, now);
        self.controller().add_token(&token.secret, ticket, now);
        // A token that is not on disk is lost with a restart, no more.
        let _ = self.save();
        Ok(token)
    }

    /// Lets programs with this key read decisions; only its SHA-256 is kept.
    pub fn add_bouncer(&self, key: &str) {
        self.set_bouncers(&[fingerprint(key.as_bytes())]);
    }

    /// Lets programs with these keys, and no others, read decisions: SHA-256 of each in hexadecimal.
    pub fn set_bouncers(&self, hashes: &[String]) {
        let mut keys = self.bouncers.lock().unwrap_or_else(PoisonError::into_inner);
        *keys = hashes.to_vec();
    }

    /// Rises with each report of a node.
    pub fn reports(&self) -> watch::Receiver<u64> {
        self.reported.subscribe()
    }

    /// Takes over a token that was offered through the folder, if there is one with this secret.
    fn take_offer(&self, secret: &str, now: Millis) {
        let path = offer(&self.path, secret);
        let text = std::fs::read_to_string(&path).ok();
        if let Some(ticket) = text.and_then(|text| serde_json::from_str(&text).ok()) {
            self.controller().add_token(secret, ticket, now);
            // Known from now on, used or not.
            let _ = self.save();
        }
        let _ = std::fs::remove_file(path);
    }

    /// The capture that a node sent of an incident, if it is still kept.
    pub fn capture(&self, node: &str, incident: IncidentId) -> Option<Vec<u8>> {
        self.controller().nodes().get(node)?;
        self.captures().read(node, incident)
    }

    /// Which nodes have sent a whole capture of an incident, and how many octets; by name.
    pub fn captures_of(&self, incident: IncidentId) -> Vec<(String, u64)> {
        let names: Vec<String> = self.controller().nodes().keys().cloned().collect();
        let captures = self.captures();
        let kept = |name: String| {
            let have = captures.have(&name, incident);
            have.whole.then_some((name, have.octets))
        };
        names.into_iter().filter_map(kept).collect()
    }

    fn captures(&self) -> captures::Captures {
        captures::Captures(self.path.with_file_name("captures"))
    }

    fn is_bouncer(&self, key: &str) -> bool {
        let keys = self.bouncers.lock().unwrap_or_else(PoisonError::into_inner);
        keys.contains(&fingerprint(key.as_bytes()))
    }

    /// Tells the streams that some node's snapshot may be new, and writes the state.
    ///
    /// # Errors
    /// When it could not be written; nodes are told all the same.
    pub fn publish(&self) -> std::io::Result<()> {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        self.save()
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn save(&self) -> std::io::Result<()> {
        // Taken first, so that the last writer writes the newest state.
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let octets = serde_json::to_vec(self.controller().state())?;
        write_private(&self.path, &octets)
    }

    /// Serves until `stop` is true.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        self.serve_at_most(CONNECTIONS_MAX, listener, stop).await;
    }

    /// As [`Self::serve`], with at most so many connections at once.
    pub async fn serve_at_most(
        self: Arc<Self>,
        places: usize,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        let places = Places::new(places.min(CONNECTIONS_MAX), CONNECTIONS_PER_CLIENT_MAX);
        let acceptor = TlsAcceptor::from(self.tls.clone());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // An error means that the daemon is gone.
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Ok((tcp, peer)) = accepted else {
                // Out of descriptors, most likely: give others time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(place) = places.take(peer.ip()) else { continue };
            let (server, acceptor, stop) = (self.clone(), acceptor.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = server.connection(tcp, peer, place.seat(), acceptor, stop) => {}
                    () = place.lost() => debug!(%peer, "no node, and others are waiting"),
                }
            });
        }
    }

    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        seat: Seat,
        acceptor: TlsAcceptor,
        stop: watch::Receiver<bool>,
    ) {
        // Small writes that nobody is to wait for.
        let _ = tcp.set_nodelay(true);
        let handshake = tokio::time::timeout(PATIENCE, acceptor.accept(tcp)).await;
        let Ok(Ok(stream)) = handshake else {
            debug!(%peer, "no handshake");
            return;
        };
        let service = hyper::service::service_fn(move |request| {
            seat.heard();
            routes::answer(self.clone(), stop.clone(), peer.ip(), seat.clone(), request)
        });
        let outcome = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = outcome {
            debug!(%peer, %error, "connection ended");
        }
    }
}

/// Makes a join token by way of the folder that a running appliance looks into: no connection to it is needed,
/// the right to write there is the access control.
///
/// # Errors
/// When there is no authority, or the folder cannot be written.
pub fn offer_token(
    folder: &Path,
    name: Option<&str>,
    addresses: &[IpNet],
    now: Millis,
) -> Result<Token, ServerError> {
    let authority = Authority::open(folder)?.fingerprint();
    let path = folder.join("agents.json");
    let failed = |why: String| ServerError::State { path: path.clone(), why };
    let secret = secret().map_err(|_| failed("no randomness".to_owned()))?;
    let ticket = serde_json::to_vec(&ticket(name, addresses, now));
    let ticket = ticket.map_err(|e| failed(e.to_string()))?;
    write_private(&offer(&path, &secret), &ticket).map_err(|e| failed(e.to_string()))?;
    Ok(Token { secret, authority })
}

fn ticket(name: Option<&str>, addresses: &[IpNet], now: Millis) -> Ticket {
    Ticket { until: now + TOKEN_MS, name: name.map(str::to_owned), addresses: addresses.to_vec() }
}

/// The nodes as last stored, without a running appliance.
///
/// # Errors
/// When the stored state is none.
pub fn stored(folder: &Path) -> Result<State, ServerError> {
    let path = folder.join("agents.json");
    let failed = |why: String| ServerError::State { path: path.clone(), why };
    let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| failed(e.to_string()))
}

/// Where a token waits: named by its hash, so that nothing of a request becomes a path.
fn offer(state: &Path, secret: &str) -> PathBuf {
    state.with_file_name(format!("join-{}.token", fingerprint(secret.as_bytes())))
}

/// 128 random bits, hexadecimal.
fn secret() -> Result<String, ring::error::Unspecified> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets)?;
    Ok(hex(&octets))
}
