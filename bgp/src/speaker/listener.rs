//! Sockets: dialling, listening, and who may call.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::SpeakerError;
use crate::config::{Config, PeerConfig, Secret};

/// Calls that the kernel holds for us.
const BACKLOG: u32 = 64;

/// Where calls from an address go.
#[derive(Debug)]
pub(super) struct Route {
    address: IpAddr,
    passive: bool,
    accepted: mpsc::Sender<TcpStream>,
}

impl Route {
    pub(super) fn new(peer: &PeerConfig, accepted: mpsc::Sender<TcpStream>) -> Self {
        Self { address: peer.address.to_canonical(), passive: peer.passive, accepted }
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

pub(super) fn bind(address: SocketAddr, _config: &Config) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
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

/// Dials a peer.
pub(super) async fn dial(peer: PeerConfig) -> io::Result<TcpStream> {
    let socket = match peer.address {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(local) = peer.local_address {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(SocketAddr::new(peer.address, peer.port)).await
}
