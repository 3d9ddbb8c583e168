//! Sends a scene's datagrams over loopback at the times at which its exporters would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use weir_traffic::Scene;

/// Exporters that are sending.
pub(super) struct Exporters {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// The loopback address from which an exporter sends.
pub(super) fn address_of(index: usize) -> IpAddr {
    let last = u8::try_from(11 + index).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

pub(super) fn start(scene: Scene, to: SocketAddr) -> anyhow::Result<Exporters> {
    let sockets: Vec<UdpSocket> = (0..scene.exporters.len())
        .map(|index| UdpSocket::bind((address_of(index), 0)).context("an exporter's socket"))
        .collect::<anyhow::Result<_>>()?;
    let (stop, stopped) = bounded(1);
    let thread = std::thread::Builder::new().name("exporters".to_owned()).spawn(move || {
        let start = Instant::now();
        for datagram in scene.stream(crate::daemon::now()) {
            let due = start + Duration::from_micros(datagram.at_us);
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() && stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if let Some(socket) = sockets.get(datagram.exporter) {
                // Loopback drops when the receiver is slow, as a network would.
                let _ = socket.send_to(&datagram.payload, to);
            }
        }
    })?;
    Ok(Exporters { stop, thread })
}

impl Exporters {
    pub(super) fn stop(self) {
        // Either may have ended by itself.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
