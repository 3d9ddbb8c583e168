//! Accepted datagrams once more, to other collectors: most routers have room for one export target.
//!
//! Each is sent unchanged from weir's own address, by the thread that received it, without waiting: what
//! the kernel has no room for is dropped and counted. A target that is away costs one system call a
//! datagram and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::ReplicateConfig;

/// The targets of one receiver.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// Where to, and by which socket; none where the machine has no such addresses.
    targets: Vec<(SocketAddr, Option<UdpSocket>)>,
    /// Datagrams sent, each to each target.
    pub(super) sent: u64,
    /// Datagrams that a target was not sent.
    pub(super) dropped: u64,
}

impl Replicas {
    /// Opens a socket for each target. Not connected: a network that comes up later is none to wait for.
    pub(super) fn open(targets: &[ReplicateConfig]) -> Self {
        let open = |to: SocketAddr| {
            let any = match to {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            let socket = UdpSocket::bind(any).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        let targets = targets.iter().map(|target| (target.to, open(target.to))).collect();
        Self { targets, ..Self::default() }
    }

    /// Sends a datagram to each.
    pub(super) fn send(&mut self, payload: &[u8]) {
        for (to, socket) in &self.targets {
            if socket.as_ref().is_some_and(|socket| socket.send_to(payload, to).is_ok()) {
                self.sent = self.sent.wrapping_add(1);
            } else {
                self.dropped = self.dropped.wrapping_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_gets_what_was_sent_and_one_that_is_away_costs_nothing() {
        let [one, two] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let targets = [one.local_addr().unwrap(), gone, two.local_addr().unwrap()];
        let mut replicas = Replicas::open(&targets.map(|to| ReplicateConfig { to }));
        for n in 0..5_u8 {
            replicas.send(&[n; 40]);
        }
        for target in [one, two] {
            for n in 0..5_u8 {
                let mut got = [0; 100];
                let len = target.recv(&mut got).unwrap();
                assert_eq!(got[..len], [n; 40]);
            }
        }
        assert_eq!((replicas.sent, replicas.dropped), (15, 0));
    }
}
