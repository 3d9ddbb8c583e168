//! Sockets: dialling, listening, and who may call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::{SpeakerError, sockopt};
use weir_model::Secret;

use crate::config::{Config, PeerConfig};

/// Calls that the kernel holds for us.
const BACKLOG: u32 = 64;

/// Where calls from an address go.
#[derive(Debug)]
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
/// comes in earlier would be without them.
pub(super) fn bind(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let ipv6 = address.is_ipv6();
    for peer in config.peers.iter().filter(|p| ipv6 || p.address.is_ipv4()) {
        if let Some(key) = &peer.password {
            sockopt::md5(socket.as_fd(), ipv6, peer.address, key)?;
        }
        if peer.ttl_security {
            sockopt::send_ttl_max(socket.as_fd(), ipv6)?;
        }
    }
    socket.set_reuseaddr(true)?;
    match socket.bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            sockopt::freebind(socket.as_fd(), ipv6)?;
            socket.bind(address)?;
            tracing::warn!(%address, "this machine has no such address yet; peers are awaited there");
        }
        other => other?,
    }
    socket.listen(BACKLOG)
}

/// Hands calls of configured peers to their tasks; others are closed at once.
pub(super) async fn accept(listener: TcpListener, routes: Vec<Route>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
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
