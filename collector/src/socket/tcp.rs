//! IPFIX over TCP and TLS (RFC 7011 §10.4): a stream of messages, each with its length.
//!
//! Templates belong to their connection and go with it. One thread serves all connections of a
//! listener; a peer that sends something else than IPFIX is cut off, since a stream that has lost
//! its framing cannot find it again.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind as bind_socket, listen,
    setsockopt, socket, sockopt,
};
use rustls::ServerConfig;
use weir_model::Millis;

use super::tls::{Stream, later};
use crate::read::be16;
use crate::shard::Shard;

/// Connections served at once by one listener; more are refused and counted.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// An IPFIX message is at most this long (16 bits of length).
const MESSAGE: usize = 65_536;
const HEADER: usize = 16;
/// A connection that has not agreed on keys after this long ends. Milliseconds.
const HANDSHAKE_MS: u64 = 10_000;

#[derive(Debug)]
struct Connection {
    stream: Stream,
    since: Millis,
    from: SocketAddr,
    session: u32,
    buffer: Box<[u8]>,
    filled: usize,
}

/// A listener and its connections.
#[derive(Debug)]
pub(super) struct Tcp {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    connections: Vec<Connection>,
    next_session: u32,
}

impl Tcp {
    /// Listens, for connections with TLS if it is given what that takes.
    pub(super) fn bind(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let listener = match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bind_early(address)?,
            other => other?,
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, tls, connections: Vec::new(), next_session: 1 })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for something to happen, at most `timeout_ms`, and serves it.
    pub(super) fn receive(
        &mut self,
        shard: &mut Shard,
        now: impl FnOnce() -> Millis,
        timeout_ms: u8,
    ) {
        let mut ready = [false; MAX_CONNECTIONS + 1];
        {
            // The listener first; places without a connection are not polled.
            let mut fds: [PollFd<'_>; MAX_CONNECTIONS + 1] = std::array::from_fn(|index| {
                let connection = index.checked_sub(1).and_then(|i| self.connections.get(i));
                let listener = || self.listener.as_fd();
                let fd = connection.map_or_else(listener, |c| c.stream.socket().as_fd());
                let writes = connection.is_some_and(|c| c.stream.wants_write());
                let out = if writes { PollFlags::POLLOUT } else { PollFlags::empty() };
                PollFd::new(fd, PollFlags::POLLIN | out)
            });
            let used = &mut fds[..=self.connections.len()];
            if poll(used, PollTimeout::from(timeout_ms)).is_err() {
                return;
            }
            for (ready, fd) in ready.iter_mut().zip(used) {
                *ready = fd.any().unwrap_or(true);
            }
        }
        let now = now();
        for index in (0..self.connections.len()).rev() {
            let connection = &mut self.connections[index];
            let slow =
                connection.stream.is_handshaking() && now.since(connection.since) > HANDSHAKE_MS;
            if slow || (ready[index + 1] && !connection.serve(shard, now)) {
                let gone = self.connections.swap_remove(index);
                shard.close(gone.from, gone.session);
            }
        }
        if ready[0] {
            self.accept(shard, now);
        }
    }

    fn accept(&mut self, shard: &mut Shard, now: Millis) {
        let Ok((stream, from)) = self.listener.accept() else { return };
        if !shard.welcomes(from, now) || self.connections.len() >= MAX_CONNECTIONS {
            shard.counters_mut().refused_connections += 1;
            return;
        }
        let Ok(stream) = Stream::new(stream, self.tls.as_ref()) else { return };
        let session = self.next_session;
        self.next_session = session.wrapping_add(1).max(1);
        let buffer = vec![0; MESSAGE].into_boxed_slice();
        self.connections.push(Connection { stream, since: now, from, session, buffer, filled: 0 });
    }
}

/// Listens on an address that this machine does not have yet, as at boot.
fn bind_early(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    bind_socket(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(TcpListener::from(fd))
}

impl Connection {
    /// Reads what has come and takes in the messages that are whole. `false` ends the connection.
    fn serve(&mut self, shard: &mut Shard, now: Millis) -> bool {
        // What TLS has taken in before its end still counts.
        let open = self.stream.fill().is_ok();
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return false,
                Ok(read) => self.filled += read,
                Err(error) => return open && later(&error),
            }
            if !self.take_in(shard, now) {
                return false;
            }
            // A plain socket says by itself that there is more, and the others want their turn.
            if matches!(self.stream, Stream::Plain(_)) {
                return true;
            }
        }
    }

    /// Takes in the messages that are whole. `false` when it is no IPFIX.
    fn take_in(&mut self, shard: &mut Shard, now: Millis) -> bool {
        let mut at = 0;
        while let Some(rest) = self.buffer.get(at..self.filled)
            && let (Some(version), Some(len)) = (be16(rest, 0), be16(rest, 2))
        {
            let len = usize::from(len);
            if version != 10 || len < HEADER {
                // Counts as what it is.
                let _ = shard.message(self.from, self.session, rest, now);
                return false;
            }
            let Some(message) = rest.get(..len) else { break };
            let _ = shard.message(self.from, self.session, message, now);
            at += len;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        true
    }
}
