//! Sockets and the clock: receives datagrams into shards and hands sealed slices on.
//!
//! One thread for each [`Receiver`]. It takes no lock, and allocates nothing once warm, but for the batches of
//! a [`Tap`] that somebody listens to; a slow sink is the sink's to handle.

mod replicate;
mod spread;
mod tcp;
mod tls;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag, SockType,
    SockaddrStorage, bind as bind_socket, recvmmsg, recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use thiserror::Error;
use weir_model::{ExporterStatus, Inventory, Millis, Slice};

use crate::checkpoint::Checkpoint;
use crate::config::{Config, ExporterConfig, TlsConfig};
use crate::error::DecodeErrorKind;
use crate::registry::Registry;
use crate::shard::{Counters, Shard};
use crate::tap::Tap;
use replicate::Replicas;
use spread::Spread;
use tcp::Tcp;

/// Datagrams taken from the kernel at once.
const BATCH: usize = 32;
/// Longest datagram read; sFlow and NetFlow stay below 9,000 octets, IPFIX may use all of UDP.
const DATAGRAM: usize = 65_536;
/// From one buffer's start to the next. A power of two would have all of them begin in the same few
/// sets of the processor's caches, which hold less than one batch: each datagram would be fetched anew
/// after the kernel has just written it. 25 lines further, beginnings of 1,600 octets lie side by side.
const STRIDE: usize = DATAGRAM + 1600;

/// How long a receiver waits for a datagram before it looks at the clock, milliseconds: a quarter
/// of a slice.
const TIMEOUT_MS: u8 = 25;
/// Slots between two checkpoints: a minute.
const CHECKPOINT_SLOTS: u64 = 600;

/// Why a listener could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {transport} {address}: {source}")]
pub struct BindError {
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// The listener.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Takes what a receiver hands on. Called on the receiver's thread: must not block.
pub trait SliceSink {
    /// Takes a sealed slice and gives back one to be filled again.
    fn slice(&mut self, slice: Box<Slice>) -> Box<Slice>;

    /// Takes the state of the exporters and the counters, about once a second.
    fn health(&mut self, exporters: Vec<ExporterStatus>, counters: Counters);

    /// Takes what must outlive a restart, about once a minute and at the end. Several shards'
    /// checkpoints are put together by [`Checkpoint::merge`].
    fn checkpoint(&mut self, _checkpoint: Checkpoint) {}
}

/// One bound socket and its shard.
#[derive(Debug)]
pub struct Receiver {
    socket: Socket,
    local: SocketAddr,
    shard: Shard,
    inventory: Option<(Arc<SharedInventory>, u64)>,
    exporters: Option<(Arc<SharedExporters>, u64)>,
    /// With the version last looked at, and the last order carried out.
    forgets: Option<(Arc<Forgets>, u64, u64)>,
    early: bool,
    workers: u32,
    replicas: Replicas,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp(Tcp),
}

/// Something that changes while receivers run: looked at once a slice.
#[derive(Debug, Default)]
pub struct Shared<T> {
    version: AtomicU64,
    value: Mutex<Arc<T>>,
}

/// What is protected.
pub type SharedInventory = Shared<Inventory>;

/// Who may send.
pub type SharedExporters = Shared<Vec<ExporterConfig>>;

/// Senders that are to be forgotten, as operators ask for it.
#[derive(Debug, Default)]
pub struct Forgets(Shared<VecDeque<(u64, IpAddr)>>);

impl Forgets {
    /// Orders that wait for the slowest receiver; it looks ten times a second.
    const ORDERS_MAX: usize = 64;

    /// Has every receiver forget what it learned of a sender.
    pub fn forget(&self, address: IpAddr) {
        let next = |orders: &VecDeque<(u64, IpAddr)>| orders.back().map_or(1, |(last, _)| last + 1);
        self.0.change(|orders| {
            let order = (next(orders), address);
            orders.push_back(order);
            if orders.len() > Self::ORDERS_MAX {
                orders.pop_front();
            }
        });
    }
}

impl<T: Clone> Shared<T> {
    fn change(&self, change: impl FnOnce(&mut T)) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut value));
        drop(value);
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl<T> Shared<T> {
    /// Begins with this one.
    pub fn new(value: Arc<T>) -> Self {
        Self { version: AtomicU64::new(0), value: Mutex::new(value) }
    }

    /// Has every receiver that follows take this one from its next slice on.
    pub fn set(&self, value: Arc<T>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The present one.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn newer_than(&self, seen: &mut u64) -> Option<Arc<T>> {
        let version = self.version.load(Ordering::Acquire);
        if version == *seen {
            return None;
        }
        *seen = version;
        Some(self.current())
    }
}

/// Opens every listener of `config`, with `sockets_per_listener` sockets each. A wildcard IPv6
/// listener becomes an IPv4 one on a machine without IPv6. Port 0 takes a free port, the same for
/// all sockets of that listener.
///
/// # Errors
/// The first listener that cannot be opened, with the system's reason.
pub fn bind(
    config: &Config,
    inventory: &Arc<Inventory>,
    registry: &Arc<Registry>,
) -> Result<Vec<Receiver>, BindError> {
    let mut receivers = Vec::new();
    for listener in &config.listen {
        let mut address = *listener;
        for _ in 0..config.sockets_per_listener.max(1) {
            let failed = |source| BindError { transport: "udp", address, source };
            let (socket, early) = open(address, config).map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            let number = u16::try_from(receivers.len()).unwrap_or(u16::MAX);
            let mut shard = Shard::new(number, config, Arc::clone(inventory), Arc::clone(registry));
            let counters = shard.counters_mut();
            counters.receive_buffer_asked = config.receive_buffer_bytes;
            counters.receive_buffer_given = receive_buffer(&socket);
            let socket = Socket::Udp(socket);
            receivers.push(Receiver {
                socket,
                local,
                shard,
                inventory: None,
                exporters: None,
                forgets: None,
                early,
                workers: config.workers_per_socket,
                replicas: Replicas::open(&config.replicate),
            });
            address = local;
        }
    }
    let plain = config.listen_tcp.iter().map(|listener| (*listener, "tcp"));
    let with_tls = config.listen_tls.iter().map(|listener| (*listener, "tls"));
    for (listener, transport) in plain.chain(with_tls) {
        let failed = |source| BindError { transport, address: listener, source };
        let tls = (transport == "tls").then(|| match &config.tls {
            Some(config) => tls::server(config),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "collector.tls is not set")),
        });
        let tls = tls.transpose().map_err(failed)?;
        let tcp = Tcp::bind(listener, tls).map_err(failed)?;
        let local = tcp.local_addr().map_err(failed)?;
        let number = u16::try_from(receivers.len()).unwrap_or(u16::MAX);
        let shard = Shard::new(number, config, Arc::clone(inventory), Arc::clone(registry));
        let socket = Socket::Tcp(tcp);
        receivers.push(Receiver {
            socket,
            local,
            shard,
            inventory: None,
            exporters: None,
            forgets: None,
            early: false,
            workers: 0,
            replicas: Replicas::default(),
        });
    }
    Ok(receivers)
}

/// Whether IPFIX over TLS could be spoken with these files.
///
/// # Errors
/// With the name of the first file that cannot be used.
pub fn check_tls(config: &TlsConfig) -> io::Result<()> {
    tls::server(config).map(drop)
}

/// The socket, and whether this machine does not have its address yet.
fn open(address: SocketAddr, config: &Config) -> io::Result<(UdpSocket, bool)> {
    match open_one(address, config) {
        Err(error)
            if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
                && matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
                ) =>
        {
            let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            open_one(SocketAddr::new(any, address.port()), config)
        }
        result => result,
    }
}

fn open_one(address: SocketAddr, config: &Config) -> io::Result<(UdpSocket, bool)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd: OwnedFd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if config.sockets_per_listener > 1 {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    let wanted = usize::try_from(config.receive_buffer_bytes).unwrap_or(usize::MAX);
    // Beyond rmem_max needs a capability; without it the kernel gives what it may.
    if setsockopt(&fd, sockopt::RcvBufForce, &wanted).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &wanted)?;
    }
    setsockopt(&fd, sockopt::RxqOvfl, &1)?;
    let timeout = TimeVal::milliseconds(i64::from(TIMEOUT_MS));
    setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
    let (storage, number) = (SockaddrStorage::from(address), fd.as_raw_fd());
    let early = match bind_socket(number, &storage) {
        // At boot weir may be up before its interfaces are: it hears them as soon as they have the address.
        Err(Errno::EADDRNOTAVAIL) if !address.ip().is_unspecified() => {
            setsockopt(&fd, sockopt::IpFreebind, &true)?;
            bind_socket(number, &storage)?;
            true
        }
        other => other.map(|()| false)?,
    };
    Ok((UdpSocket::from(fd), early))
}

/// What the kernel gave, in the unit it was asked in: it doubles the number for its own needs
/// (socket(7)).
fn receive_buffer(socket: &UdpSocket) -> u64 {
    nix::sys::socket::getsockopt(socket, sockopt::RcvBuf).map_or(0, |n| n as u64 / 2)
}

impl Receiver {
    /// Where it listens; the port is the real one if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether this machine does not have the address yet: what comes there is heard as soon as it has.
    pub const fn is_early(&self) -> bool {
        self.early
    }

    /// Gives the shard what an earlier run had learned.
    pub fn restore(&mut self, checkpoint: &Arc<Checkpoint>) {
        self.shard.restore(Arc::clone(checkpoint));
    }

    /// Protects what `shared` says from now on, as it changes.
    pub fn follow(&mut self, shared: &Arc<SharedInventory>) {
        // A version that none has: the first look takes what is there.
        self.inventory = Some((Arc::clone(shared), u64::MAX));
    }

    /// Listens to whom `shared` names from now on, as it changes.
    pub fn heed(&mut self, shared: &Arc<SharedExporters>) {
        self.exporters = Some((Arc::clone(shared), u64::MAX));
    }

    /// Forgets whom `forgets` names from now on.
    pub fn obey(&mut self, forgets: &Arc<Forgets>) {
        self.forgets = Some((Arc::clone(forgets), u64::MAX, 0));
    }

    /// Shows every record that is accepted to a tap, too.
    pub fn tap(&mut self, tap: &Tap) {
        self.shard.tap(tap.clone());
    }

    /// Receives until `stop` is set, then hands over the last slice.
    pub fn run(mut self, mut sink: impl SliceSink, stop: &AtomicBool) {
        let batch = if matches!(self.socket, Socket::Udp(_)) { BATCH } else { 0 };
        let mut buffers = vec![0_u8; batch * STRIDE];
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut control = nix::cmsg_space!(u32);
        // Without its workers the receiver adds up itself: slower, and nothing is lost but speed.
        let mut spread = match self.workers {
            0 => None,
            workers => Spread::start(&mut self.shard, workers).ok(),
        };
        let mut clock = Clock::new();
        let mut slot = clock.now().slot();
        let mut slice: Box<Slice> = Box::default();
        while !stop.load(Ordering::Relaxed) {
            self.receive(&mut buffers, &mut headers, &mut clock);
            let now = clock.now();
            if let Some(spread) = &mut spread {
                spread.forward(&mut self.shard, now, false);
                if let Some(whole) = spread.collect(&mut self.shard, false) {
                    slice = sink.slice(whole);
                }
            }
            if now.slot() > slot {
                self.shard.flush_tap();
                self.count_drops(&mut buffers, &mut control, now);
                self.renew_inventory(spread.as_ref());
                slice = self.seal(now, now.slot() - 1, slice, spread.as_mut(), &mut sink);
                if now.slot() / 10 > slot / 10 {
                    sink.health(self.shard.exporters(), self.shard.counters());
                }
                if now.slot() / CHECKPOINT_SLOTS > slot / CHECKPOINT_SLOTS {
                    sink.checkpoint(self.shard.checkpoint());
                }
                slot = now.slot();
            }
        }
        self.shard.flush_tap();
        slice = self.seal(clock.now(), slot, slice, spread.as_mut(), &mut sink);
        if let Some(mut spread) = spread {
            if let Some(last) = spread.collect(&mut self.shard, true) {
                slice = last;
            }
            sink.slice(slice);
            spread.stop();
        }
        sink.health(self.shard.exporters(), self.shard.counters());
        sink.checkpoint(self.shard.checkpoint());
    }

    fn renew_inventory(&mut self, spread: Option<&Spread>) {
        if let Some((shared, seen)) = &mut self.inventory
            && let Some(inventory) = shared.newer_than(seen)
        {
            if let Some(spread) = spread {
                spread.set_inventory(&inventory);
            }
            self.shard.set_inventory(inventory);
        }
        if let Some((shared, seen)) = &mut self.exporters
            && let Some(exporters) = shared.newer_than(seen)
        {
            self.shard.set_exporters(&exporters);
        }
        if let Some((forgets, seen, done)) = &mut self.forgets
            && let Some(orders) = forgets.0.newer_than(seen)
        {
            for (order, address) in orders.iter() {
                if order > done {
                    self.shard.forget_sender(*address);
                    *done = *order;
                }
            }
        }
    }

    /// Ends a slot and hands its slice on, or has the workers end it: then it is handed on when all
    /// parts have come, at the end of the next slot at the latest.
    fn seal(
        &mut self,
        now: Millis,
        slot: u64,
        mut slice: Box<Slice>,
        spread: Option<&mut Spread>,
        sink: &mut impl SliceSink,
    ) -> Box<Slice> {
        let Some(spread) = spread else {
            self.shard.seal(slot, &mut slice);
            return sink.slice(slice);
        };
        if let Some(whole) = spread.collect(&mut self.shard, true) {
            slice = sink.slice(whole);
        }
        self.shard.seal(slot, &mut slice);
        spread.seal(&mut self.shard, now, slice);
        Box::default()
    }

    /// Takes in one batch, or waits for the first datagram until the timeout.
    fn receive(
        &mut self,
        buffers: &mut [u8],
        headers: &mut MultiHeaders<SockaddrStorage>,
        clock: &mut Clock,
    ) {
        let socket = match &mut self.socket {
            Socket::Udp(socket) => socket,
            Socket::Tcp(tcp) => {
                tcp.receive(&mut self.shard, || clock.now(), TIMEOUT_MS);
                return;
            }
        };
        let mut rest = buffers.chunks_exact_mut(STRIDE);
        let mut vectors: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(rest.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_WAITFORONE;
        let fd = socket.as_raw_fd();
        // An error is a timeout, a signal, or a bounced packet of somebody's: nothing to do.
        let Ok(messages) = recvmmsg(fd, headers, vectors.iter_mut(), flags, None) else { return };
        let now = clock.now();
        for message in messages {
            let Some(from) = message.address.as_ref().and_then(address) else { continue };
            let payload = message.iovs().next().unwrap_or_default();
            take_in(&mut self.shard, &mut self.replicas, from, payload, now);
        }
        let counters = self.shard.counters_mut();
        counters.replicated = self.replicas.sent;
        counters.replicate_drops = self.replicas.dropped;
    }

    /// Reads the kernel's count of drops, which comes with a datagram. Once a slot: asking with
    /// every datagram costs more than the datagram.
    fn count_drops(&mut self, buffers: &mut [u8], control: &mut [u8], now: Millis) {
        let Socket::Udp(socket) = &self.socket else { return };
        let mut vector = [IoSliceMut::new(&mut buffers[..DATAGRAM])];
        let fd = socket.as_raw_fd();
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut vector, Some(control), MsgFlags::MSG_DONTWAIT);
        let Ok(message) = message else { return };
        if let Ok(mut list) = message.cmsgs()
            && let Some(ControlMessageOwned::RxqOvfl(drops)) = list.next()
        {
            // 32 bits that wrap.
            let counters = self.shard.counters_mut();
            let seen = u32::try_from(counters.socket_drops & u64::from(u32::MAX)).unwrap_or(0);
            counters.socket_drops += u64::from(drops.wrapping_sub(seen));
        }
        let Some(from) = message.address.as_ref().and_then(address) else { return };
        let len = message.bytes;
        take_in(&mut self.shard, &mut self.replicas, from, &buffers[..len], now);
    }
}

/// Has the shard read a datagram. A panic is a mistake of weir's that one datagram must not turn into
/// an outage: it is contained, counted, and the datagram kept for whoever looks into it.
fn take_in(
    shard: &mut Shard,
    replicas: &mut Replicas,
    from: SocketAddr,
    payload: &[u8],
    now: Millis,
) {
    // Errors are counted by exporter and kind.
    let read = AssertUnwindSafe(|| shard.datagram(from, payload, now).map_err(|error| error.kind));
    let refused = match catch_unwind(read) {
        Ok(result) => {
            use DecodeErrorKind::{TooManyExporters, Unlisted};
            matches!(result, Err(Unlisted | TooManyExporters))
        }
        Err(_) => {
            shard.failed_on(payload);
            false
        }
    };
    if !refused {
        replicas.send(payload);
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || storage.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
    let v6 = || storage.as_sockaddr_in6().map(|a| SocketAddr::V6(SocketAddrV6::from(*a)));
    v4().or_else(v6)
}

/// The wall clock, never going back: when it is set back, time here runs at nine tenths of its
/// speed until it has been caught up, so that slots keep rising.
#[derive(Debug)]
struct Clock {
    last: Duration,
    at: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { last: wall(), at: Instant::now() }
    }

    fn now(&mut self) -> Millis {
        let (wall, at) = (wall(), Instant::now());
        self.last = step(self.last, at.duration_since(self.at), wall);
        self.at = at;
        Millis(u64::try_from(self.last.as_millis()).unwrap_or(u64::MAX))
    }
}

fn step(last: Duration, elapsed: Duration, wall: Duration) -> Duration {
    wall.max(last + elapsed * 9 / 10)
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_slows_down_but_goes_on() {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        let set_back = step(hour * 2, second, hour);
        assert_eq!(set_back, hour * 2 + Duration::from_millis(900));
        assert_eq!(step(hour, second, hour * 2), hour * 2);
        assert_eq!(step(hour, second, hour + second), hour + second);
    }
}
