//! Sockets: dialling, listening, and who may call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use super::{SpeakerError, sockopt};
use weir_model::Secret;

use crate::config::{Config, PeerConfig};

/// Calls that the kernel holds for us.
const BACKLOG: i32 = 64;

/// Where calls from an address go.
#[derive(Clone, Debug)]
pub(super) struct Route {
    address: IpAddr,
    passive: bool,
    ttl_security: bool,
    accepted: mpsc::Sender<TcpStream>,
}

impl Route {
    pub(super) fn new(peer: &PeerConfig, accepted: mpsc::Sender<TcpStream>) -> Self {
        Self {
            address: peer.address.to_canonical(),
            passive: peer.passive,
            ttl_security: peer.ttl_security,
            accepted,
        }
    }

    /// Whether there is still a task at the other end.
    pub(super) fn is_open(&self) -> bool {
        !self.accepted.is_closed()
    }
}

/// Puts the content of password files in the place of passwords.
pub(super) fn read_passwords(config: &mut Config) -> Result<(), SpeakerError> {
    for peer in &mut config.peers {
        let Some(file) = &peer.password_file else { continue };
        let text = std::fs::read_to_string(file)
            .map_err(|source| SpeakerError::Password { peer: peer.name.clone(), source })?;
        peer.password = Some(Secret::new(text.trim().to_owned()));
    }
    Ok(())
}

/// Binds the listening socket. Keys and TTL are set before a peer can call: a connection that
/// comes in earlier would be without them. `before` is the socket whose place it takes, if one
/// listens.
pub(super) fn bind(
    address: SocketAddr,
    config: &Config,
    before: Option<&std::net::TcpListener>,
) -> io::Result<std::net::TcpListener> {
    // One of the two may hold the other's address: both are needed for a moment, and by nobody else.
    let before = before.map(SockRef::from);
    let share = |on| before.as_ref().map_or(Ok(()), |before| before.set_reuse_port(on));
    share(true)?;
    let bound = open(address, config, before.is_some());
    share(false)?;
    bound
}

fn open(address: SocketAddr, config: &Config, beside: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    sign(&socket.as_fd(), address.is_ipv6(), &[], &config.peers)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(beside)?;
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            match address {
                SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
                SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
            socket.bind(&address.into())?;
            tracing::warn!(%address, "this machine has no such address yet; peers are awaited there");
        }
        other => other?,
    }
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

/// Has a listening socket know the keys of these peers, and forget those of peers that were there
/// `before` and are not now.
pub(super) fn sign(
    socket: &impl AsFd,
    ipv6: bool,
    before: &[PeerConfig],
    peers: &[PeerConfig],
) -> io::Result<()> {
    let reachable = |peer: &&PeerConfig| ipv6 || peer.address.is_ipv4();
    for peer in peers.iter().filter(reachable) {
        if let Some(key) = &peer.password {
            sockopt::md5(socket.as_fd(), ipv6, peer.address, key)?;
        }
        if peer.ttl_security {
            sockopt::send_ttl_max(socket.as_fd(), ipv6)?;
        }
    }
    let signed = |address| peers.iter().any(|p| p.address == address && p.password.is_some());
    for peer in before.iter().filter(reachable) {
        if peer.password.is_some() && !signed(peer.address) {
            // An empty key takes the address off the kernel's list.
            sockopt::md5(socket.as_fd(), ipv6, peer.address, &Secret::new(""))?;
        }
    }
    Ok(())
}

/// Hands calls of configured peers to their tasks; others are closed at once.
pub(super) async fn accept(listener: TcpListener, routes: watch::Receiver<Vec<Route>>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let routes = routes.borrow();
                let address = from.ip().to_canonical();
                let of_address = || routes.iter().filter(|r| r.address == address);
                match of_address().find(|r| r.passive).or_else(|| of_address().next()) {
                    Some(route) if route.ttl_security && guard(&stream, from).is_err() => {
                        tracing::warn!(%from, "cannot set the minimum TTL; connection closed");
                    }
                    // A full queue means that the peer calls faster than it can be answered.
                    Some(route) => drop(route.accepted.try_send(stream)),
                    None => tracing::debug!(%from, "connection from an address that is no peer"),
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "cannot accept BGP connections");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

/// The kernel's own check of the handshake's TTL comes too early for one peer among others; from
/// here on it counts.
fn guard(stream: &TcpStream, from: SocketAddr) -> io::Result<()> {
    sockopt::receive_ttl_max(stream.as_fd(), from.is_ipv6())
}

/// Dials a peer.
pub(super) async fn dial(peer: PeerConfig) -> io::Result<TcpStream> {
    let ipv6 = peer.address.is_ipv6();
    let socket = if ipv6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if let Some(key) = &peer.password {
        sockopt::md5(socket.as_fd(), ipv6, peer.address, key)?;
    }
    if peer.ttl_security {
        sockopt::send_ttl_max(socket.as_fd(), ipv6)?;
        sockopt::receive_ttl_max(socket.as_fd(), ipv6)?;
    }
    if let Some(local) = peer.local_address {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(SocketAddr::new(peer.address, peer.port)).await
}
