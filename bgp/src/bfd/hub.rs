//! All sessions on one thread: sockets, clock and numbers.
//!
//! ```text
//! the speaker -- watch, keep (mpsc) - --> this thread <--> UDP 3784
//!                                            |
//!                    status (watch, latest) <-+--> one peer's task
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use weir_model::{BfdState, BfdStatus};

use super::packet::{Diagnostic, Packet, State};
use super::{Change, Config, Session};
use crate::speaker::wall;

/// Where control packets of a single hop go (RFC 5881 §4).
const PORT: u16 = 3784;

/// Ports that they come from (RFC 5881 §4).
const FROM: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Free ports tried before it is left to the next packet.
const TRIES: u16 = 16;

/// How long a socket that cannot be opened is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// Packets taken before what is due is sent.
const AT_ONCE: usize = 64;

/// Class selector 6, as routing protocols have it: on a full link these packets go first where routers heed it.
const TOS: u32 = 0xc0;

/// What a peer's task is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// What people are shown; `None` where BFD is not asked for.
    pub(crate) shown: Option<BfdStatus>,
    /// How often the path was found dead, and why last: states may change faster than they are looked at.
    pub(crate) lost: u64,
    pub(crate) why: Option<Diagnostic>,
}

enum Order {
    Watch { peer: IpAddr, local: Option<IpAddr>, config: Config, told: watch::Sender<Status> },
    Keep(Vec<IpAddr>),
}

/// The thread's handle: it ends, and says so to every peer, when the handle is gone.
pub(crate) struct Hub {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Hub {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has no thread for it.
    pub(crate) fn start(seed: u64) -> io::Result<Self> {
        let (orders, taken) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(Loop::new(seed).run(taken));
        let thread = std::thread::Builder::new().name("bfd".into()).spawn(run)?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Keeps a session with this peer as configured; one that is there goes on.
    pub(crate) fn watch(
        &self,
        peer: IpAddr,
        local: Option<IpAddr>,
        config: Config,
        told: watch::Sender<Status>,
    ) {
        // A thread that is gone tells nothing: the BGP session goes on by its hold time.
        let _ = self.orders.send(Order::Watch { peer, local, config, told });
    }

    /// Ends the sessions with all other peers, and says so to them.
    pub(crate) fn keep(&self, peers: Vec<IpAddr>) {
        let _ = self.orders.send(Order::Keep(peers));
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        self.orders = closed;
        if let Some(thread) = self.thread.take() {
            // It sends a packet to each peer and ends.
            let _ = thread.join();
        }
    }
}

/// A session with what belongs to it.
struct Watched {
    session: Session,
    config: Config,
    local: Option<IpAddr>,
    socket: Option<UdpSocket>,
    /// When the socket may be opened again.
    retry: Option<Instant>,
    told: watch::Sender<Status>,
    status: Status,
}

struct Loop {
    started: Instant,
    watched: BTreeMap<IpAddr, Watched>,
    /// By address family, IPv4 first.
    receivers: [Receiver; 2],
    numbers: u32,
    seed: u64,
}

#[derive(Default)]
struct Receiver {
    socket: Option<UdpSocket>,
    retry: Option<Instant>,
    error: Option<String>,
}

impl Loop {
    fn new(seed: u64) -> Self {
        let numbers = u32::try_from(seed & 0x00ff_ffff).unwrap_or(1);
        Self {
            started: Instant::now(),
            watched: BTreeMap::new(),
            receivers: [Receiver::default(), Receiver::default()],
            numbers,
            seed,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut octets = [0; 128];
        loop {
            self.open();
            let at = tokio::time::Instant::from_std(self.deadline());
            let [v4, v6] = &self.receivers;
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => break,
                },
                () = readable(v4.socket.as_ref()) => self.receive(0, &mut octets),
                () = readable(v6.socket.as_ref()) => self.receive(1, &mut octets),
                () = tokio::time::sleep_until(at) => {}
            }
            self.tick();
        }
        for watched in self.watched.values_mut() {
            watched.end();
        }
    }

    fn deadline(&self) -> Instant {
        let sessions = self.watched.values().filter_map(|w| w.session.deadline());
        let at = sessions.map(|us| self.started + Duration::from_micros(us)).min();
        let soon = Instant::now() + RETRY;
        at.map_or(soon, |at| at.min(soon))
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Watch { peer, local, config, told } => {
                let now = self.now();
                if let Some(watched) = self.watched.get_mut(&peer)
                    && watched.local == local
                {
                    if watched.config != config {
                        watched.session.set(&config);
                        watched.config = config;
                    }
                    watched.told = told;
                    watched.tell(true);
                    return;
                }
                self.forget(peer);
                self.numbers = self.numbers.wrapping_add(1).max(1);
                let seed = self.seed ^ u64::from(self.numbers) << 20;
                let session = Session::new(&config, self.numbers, seed, now);
                let status = Status { shown: Some(shown(State::Down)), ..Status::default() };
                let mut watched =
                    Watched { session, config, local, socket: None, retry: None, told, status };
                watched.tell(true);
                self.watched.insert(peer, watched);
            }
            Order::Keep(peers) => {
                let gone = self.watched.keys().filter(|peer| !peers.contains(peer));
                for peer in gone.copied().collect::<Vec<_>>() {
                    self.forget(peer);
                }
            }
        }
    }

    fn forget(&mut self, peer: IpAddr) {
        if let Some(mut watched) = self.watched.remove(&peer) {
            watched.end();
            watched.status.shown = None;
            watched.tell(true);
        }
    }

    /// Opens the sockets that are wanted, and closes those that are not.
    fn open(&mut self) {
        for (of, receiver) in self.receivers.iter_mut().enumerate() {
            let wanted = self.watched.keys().any(|peer| usize::from(peer.is_ipv6()) == of);
            let waits = receiver.retry.is_some_and(|at| Instant::now() < at);
            if !wanted {
                *receiver = Receiver::default();
            } else if receiver.socket.is_none() && !waits {
                match listen(of == 1) {
                    Ok(socket) => {
                        *receiver = Receiver { socket: Some(socket), ..Receiver::default() };
                    }
                    Err(error) => {
                        let why = format!("port {PORT}: {error}");
                        if receiver.error.as_ref() != Some(&why) {
                            tracing::warn!(port = PORT, %error, "BFD packets cannot be received");
                        }
                        receiver.retry = Some(Instant::now() + RETRY);
                        receiver.error = Some(why);
                    }
                }
            }
            let of_family = |(peer, _): &(&IpAddr, &mut Watched)| usize::from(peer.is_ipv6()) == of;
            for (_, watched) in self.watched.iter_mut().filter(of_family) {
                if watched.status.shown.as_ref().is_some_and(|s| s.error != receiver.error) {
                    watched.fault(receiver.error.clone());
                }
            }
        }
    }

    fn receive(&mut self, of: usize, octets: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let Some(socket) = &self.receivers[of].socket else { return };
            let Ok((length, from)) = socket.try_recv_from(octets) else { return };
            let Some(packet) = octets.get(..length).and_then(Packet::read) else { continue };
            let now = self.now();
            if let Some(watched) = self.watched.get_mut(&from.ip().to_canonical()) {
                let mut out = Vec::new();
                let change = watched.session.handle(now, &packet, &mut out);
                watched.take(change, from.ip(), &out);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for (peer, watched) in &mut self.watched {
            if watched.session.deadline().is_some_and(|at| at <= now) {
                let mut out = Vec::new();
                let change = watched.session.tick(now, &mut out);
                watched.take(change, *peer, &out);
            }
        }
    }
}

impl Watched {
    /// Sends, and tells of what changed.
    fn take(&mut self, change: Option<Change>, peer: IpAddr, out: &[Packet]) {
        for packet in out {
            self.send(peer, packet);
        }
        let mut news = false;
        match change {
            Some(Change::Up) => tracing::info!(%peer, "BFD session up"),
            Some(Change::Lost(why)) => {
                tracing::warn!(%peer, %why, "BFD session down");
                self.status.lost += 1;
                self.status.why = Some(why);
            }
            Some(Change::AdminDown) => {
                tracing::info!(%peer, "BFD session down: the peer's operator took it down");
            }
            None => {}
        }
        let state = told(self.session.state());
        let detection = self.session.detection().map(|us| us / 1000);
        if let Some(shown) = &mut self.status.shown {
            if shown.state != state {
                *shown = BfdStatus { state, since: wall(), ..shown.clone() };
                news = true;
            }
            if shown.detection_ms != detection {
                shown.detection_ms = detection;
                news = true;
            }
            if change.is_some() {
                shown.lost = self.status.lost;
                shown.diagnostic = match self.session.diagnostic() {
                    Diagnostic::NONE => None,
                    why => Some(why.to_string()),
                };
                news = true;
            }
        }
        self.tell(news);
    }

    fn tell(&mut self, news: bool) {
        if news {
            self.told.send_replace(self.status.clone());
        }
    }

    fn fault(&mut self, error: Option<String>) {
        if let Some(shown) = &mut self.status.shown {
            shown.error = error;
        }
        self.tell(true);
    }

    /// A packet that does not go is one that the peer misses.
    fn send(&mut self, peer: IpAddr, packet: &Packet) {
        if self.socket.is_none() && self.retry.is_none_or(|at| at <= Instant::now()) {
            match dial(peer, self.local, self.session.number()) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    tracing::debug!(%peer, %error, "BFD packets cannot be sent");
                    self.retry = Some(Instant::now() + RETRY);
                }
            }
        }
        if let Some(socket) = &self.socket {
            // Also an ICMP error of an earlier one.
            let _ = socket.try_send(&packet.write());
        }
    }

    fn end(&mut self) {
        let last = self.session.end();
        if let Some(socket) = &self.socket {
            let _ = socket.try_send(&last.write());
        }
    }
}

const fn told(state: State) -> BfdState {
    match state {
        State::AdminDown | State::Down => BfdState::Down,
        State::Init => BfdState::Init,
        State::Up => BfdState::Up,
    }
}

fn shown(state: State) -> BfdStatus {
    BfdStatus {
        state: told(state),
        since: wall(),
        detection_ms: None,
        lost: 0,
        diagnostic: None,
        error: None,
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

/// Lets packets with TTL or hop limit 255 through and no others: nobody beyond the link can send them, nor fill the
/// socket's buffer (RFC 5881 §5, RFC 5082).
fn crossed_no_router(ipv6: bool) -> [SockFilter; 4] {
    /// Where the network header begins, to a classic filter (`SKF_NET_OFF`).
    const NET: u32 = 0xfff0_0000;
    let ttl = if ipv6 { 7 } else { 8 };
    [
        // ld b [NET + ttl]; jeq #255, 0, 1; ret #65535; ret #0
        SockFilter::new(0x30, 0, 0, NET + ttl),
        SockFilter::new(0x15, 0, 1, 255),
        SockFilter::new(0x06, 0, 0, 0xffff),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

fn socket(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if ipv6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn listen(ipv6: bool) -> io::Result<UdpSocket> {
    let socket = socket(ipv6)?;
    socket.attach_filter(&crossed_no_router(ipv6))?;
    socket.bind(&SocketAddr::new(nobody(ipv6), PORT).into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that sends to one peer. `number` spreads the ports that are tried.
fn dial(peer: IpAddr, local: Option<IpAddr>, number: u32) -> io::Result<UdpSocket> {
    let ipv6 = peer.is_ipv6();
    let socket = socket(ipv6)?;
    if ipv6 {
        socket.set_unicast_hops_v6(255)?;
        socket.set_tclass_v6(TOS)?;
    } else {
        socket.set_ttl_v4(255)?;
        socket.set_tos_v4(TOS)?;
    }
    let local = local.unwrap_or_else(|| nobody(ipv6));
    let first = u16::try_from(number % 16_384).unwrap_or(0);
    let mut bound = Err(io::ErrorKind::AddrInUse.into());
    for n in 0..TRIES {
        let port = FROM.start() + (first + n * 61) % 16_384;
        bound = socket.bind(&SocketAddr::new(local, port).into());
        if bound.as_ref().err().is_none_or(|e| e.kind() != io::ErrorKind::AddrInUse) {
            break;
        }
    }
    bound?;
    socket.connect(&SocketAddr::new(peer, PORT).into())?;
    UdpSocket::from_std(socket.into())
}

fn nobody(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}
