//! One in N packets, chosen in the kernel by a classic BPF filter: the others cost no copy and no wake-up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::{UdpSocket, UnixDatagram};

use super::sflow::{Counters, HEADER_MAX, SAMPLES_MAX, Sample, datagram, frame_length};

/// How long a sample may wait for company in its datagram.
const LINGER: Duration = Duration::from_millis(100);

/// Most interfaces that are sampled.
const INTERFACES_MAX: usize = 32;

/// Samples packets of some interfaces and sends them as sFlow.
#[derive(Debug)]
pub struct Sampler {
    /// A packet socket: tokio waits for any datagram socket alike.
    packets: UnixDatagram,
    out: UdpSocket,
    agent: IpAddr,
    rate: u32,
    interface: u32,
    started: Instant,
    counters: Counters,
}

impl Sampler {
    /// Begins to sample one in `rate` packets that come in by the interfaces with these numbers. Needs
    /// CAP_NET_RAW.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn start(interfaces: &[u32], rate: u32, collector: SocketAddr) -> io::Result<Self> {
        let interfaces = &interfaces[..interfaces.len().min(INTERFACES_MAX)];
        let packets = packet_socket(&filter(interfaces, rate.max(1)))?;
        let any: SocketAddr = if collector.is_ipv4() {
            SocketAddr::from(([0, 0, 0, 0], 0))
        } else {
            SocketAddr::from(([0u16; 8], 0))
        };
        let out = UdpSocket::bind(any).await?;
        out.connect(collector).await?;
        let agent = out.local_addr()?.ip();
        Ok(Self {
            packets,
            out,
            agent,
            rate: rate.max(1),
            interface: interfaces.first().copied().unwrap_or(0),
            started: Instant::now(),
            counters: Counters::default(),
        })
    }

    /// What was counted so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Samples until the socket fails.
    ///
    /// # Errors
    /// What the kernel says of the packet socket; a collector that is away costs samples only.
    pub async fn run(&mut self) -> io::Result<()> {
        let mut buffer = [0; HEADER_MAX];
        let mut waiting: Vec<Sample> = Vec::with_capacity(SAMPLES_MAX);
        loop {
            let next = self.packets.recv(&mut buffer);
            let length = if waiting.is_empty() {
                next.await?
            } else {
                match tokio::time::timeout(LINGER, next).await {
                    Ok(length) => length?,
                    Err(_) => {
                        self.send(&mut waiting).await;
                        continue;
                    }
                }
            };
            let header = buffer.get(..length).unwrap_or_default();
            if let Some(frame_length) = frame_length(header) {
                let header = header.to_vec();
                waiting.push(Sample { input: self.interface, header, frame_length });
            }
            if waiting.len() == SAMPLES_MAX {
                self.send(&mut waiting).await;
            }
        }
    }

    async fn send(&mut self, waiting: &mut Vec<Sample>) {
        let uptime = u32::try_from(self.started.elapsed().as_millis() & 0xffff_ffff).unwrap_or(0);
        let out = datagram(self.agent, uptime, self.rate, waiting, &mut self.counters);
        waiting.clear();
        // UDP: what is lost is lost, and the next datagram's sequence number says so.
        let _ = self.out.send(&out).await;
    }
}

/// Octets that may wait to be read: a few thousand packets.
const BUFFER: usize = 4 << 20;

/// Every protocol.
const ETH_P_ALL: u16 = 3;

/// A socket on all interfaces that takes what a filter lets through.
///
/// # Errors
/// What the kernel says; CAP_NET_RAW is needed.
pub(super) fn packet_socket(filter: &[SockFilter]) -> io::Result<UnixDatagram> {
    let every = Protocol::from(i32::from(ETH_P_ALL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    // A node under attack is late now and then. Beyond the system's limit with CAP_NET_ADMIN only.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    drain(&socket);
    UnixDatagram::from_std(StdDatagram::from(std::os::fd::OwnedFd::from(socket)))
}

/// Packets that came in between the socket and its filter.
fn drain(socket: &Socket) {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 16];
    for _ in 0..10_000 {
        if socket.recv(&mut buffer).is_err() {
            return;
        }
    }
}

/// The filter: one of the interfaces, and a random number divisible by the rate (`SKF_AD_RANDOM`); takes the
/// first [`HEADER_MAX`] octets.
pub(crate) fn filter(interfaces: &[u32], rate: u32) -> Vec<SockFilter> {
    const LOAD_WORD: u16 = 0x20;
    const MODULO: u16 = 0x94;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ANCILLARY: u32 = 0xffff_f000;
    const PACKET_TYPE: u32 = ANCILLARY + 4;
    const INTERFACE: u32 = ANCILLARY + 8;
    const RANDOM: u32 = ANCILLARY + 56;
    const OUTGOING: u32 = 4;
    let op = |code, k, jt, jf| SockFilter::new(code, jt, jf, k);
    let mut program = vec![
        op(LOAD_WORD, PACKET_TYPE, 0, 0),
        op(JUMP_EQUAL, OUTGOING, 0, 1),
        op(RETURN, 0, 0, 0),
        op(LOAD_WORD, INTERFACE, 0, 0),
    ];
    for (i, interface) in interfaces.iter().enumerate() {
        let to_sample = u8::try_from(interfaces.len() - i).unwrap_or(u8::MAX);
        program.push(op(JUMP_EQUAL, *interface, to_sample, 0));
    }
    program.extend([
        op(RETURN, 0, 0, 0),
        op(LOAD_WORD, RANDOM, 0, 0),
        op(MODULO, rate, 0, 0),
        op(JUMP_EQUAL, 0, 1, 0),
        op(RETURN, 0, 0, 0),
        op(RETURN, u32::try_from(HEADER_MAX).unwrap_or(0), 0, 0),
    ]);
    program
}
