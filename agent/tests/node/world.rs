//! Attacker -- node -- container: the node forwards the service's port to the container, as Docker does.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};
use weir_model::Millis;

use crate::lab::Lab;
use crate::packet::Packet;

pub(crate) const PORT: u16 = 27015;

/// The node's address that players know.
pub(crate) const NODE4: &str = "198.51.100.2";
pub(crate) const NODE6: &str = "fd00:1::2";
/// A player.
pub(crate) const PLAYER4: &str = "198.51.100.9";
pub(crate) const PLAYER6: &str = "fd00:1::9";

pub(crate) struct World {
    pub(crate) outside: Lab,
    pub(crate) node: Lab,
    pub(crate) container: Lab,
    stop: Arc<AtomicBool>,
    echoes: Vec<std::thread::JoinHandle<()>>,
    /// What reached the game server from others than players.
    pub(crate) attack_received: Arc<AtomicU64>,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis(u64::try_from(since.as_millis()).unwrap())
}

/// Runs something on a thread inside a namespace. Sockets made there stay there wherever they are used.
pub(crate) fn inside<T: Send>(lab: &Lab, work: impl FnOnce() -> T + Send) -> T {
    within(&format!("/run/netns/{}", lab.namespace()), work)
}

/// The same by the path of the namespace.
pub(crate) fn within<T: Send>(path: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let enter = move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(enter).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl World {
    pub(crate) fn new(test: &str) -> Option<Self> {
        let outside = Lab::new(test, &["ip", "nft", "sysctl"])?;
        let node = Lab::new(test, &[])?;
        let container = Lab::new(test, &[])?;
        let pair = |a: &Lab, name_a: &str, b: &Lab, name_b: &str| {
            a.run(&[
                "ip",
                "link",
                "add",
                name_a,
                "type",
                "veth",
                "peer",
                "name",
                name_b,
                "netns",
                b.namespace(),
            ]);
        };
        pair(&outside, "va0", &node, "vn0");
        pair(&container, "vc0", &node, "vethc0");
        for line in [
            "ip addr add 198.51.100.1/24 dev va0",
            "ip addr add 198.51.100.9/24 dev va0",
            "ip addr add fd00:1::1/64 dev va0 nodad",
            "ip addr add fd00:1::9/64 dev va0 nodad",
            "ip link set va0 up",
        ] {
            outside.run(&words(line));
        }
        for line in [
            "ip link add br0 type bridge",
            "ip link set vethc0 master br0",
            "ip addr add 198.51.100.2/24 dev vn0",
            "ip addr add fd00:1::2/64 dev vn0 nodad",
            "ip addr add 172.18.0.1/16 dev br0",
            "ip addr add fd00:2::1/64 dev br0 nodad",
            "ip link set vn0 up",
            "ip link set vethc0 up",
            "ip link set br0 up",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            "ip route add default via 198.51.100.1",
            "ip -6 route add default via fd00:1::1",
        ] {
            node.run(&words(line));
        }
        for line in [
            "ip addr add 172.18.0.2/16 dev vc0",
            "ip addr add fd00:2::2/64 dev vc0 nodad",
            "ip link set vc0 up",
            "ip route add default via 172.18.0.1",
            "ip -6 route add default via fd00:2::1",
        ] {
            container.run(&words(line));
        }
        node.run(&["nft", NAT]);
        let mut world = Self {
            outside,
            node,
            container,
            stop: Arc::default(),
            echoes: Vec::new(),
            attack_received: Arc::default(),
        };
        world.serve("0.0.0.0", "198.51.100.9");
        world.serve("::", "fd00:1::9");
        for (node, player) in [(NODE4, PLAYER4), (NODE6, PLAYER6)] {
            // Neighbours must find each other first.
            let socket = world.player(player);
            world.node.wait_for("the way to the game server", 10, |_| {
                (Self::play(&socket, node, 3) == 3).then_some(())
            });
        }
        Some(world)
    }

    /// A game server that answers whatever comes and counts what is not the player's.
    fn serve(&mut self, bind: &str, player: &str) {
        let at = SocketAddr::new(ip(bind), PORT);
        let socket = inside(&self.container, || {
            let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None).unwrap();
            if at.is_ipv6() {
                socket.set_only_v6(true).unwrap();
            }
            socket.set_recv_buffer_size(8 << 20).unwrap();
            socket.bind(&at.into()).unwrap();
            UdpSocket::from(socket)
        });
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (stop, attack, player) = (self.stop.clone(), self.attack_received.clone(), ip(player));
        self.echoes.push(std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                if from.ip() == player {
                    let _ = socket.send_to(&buffer[..length], from);
                } else {
                    attack.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }

    /// The player's socket.
    pub(crate) fn player(&self, address: &str) -> UdpSocket {
        let at = SocketAddr::new(ip(address), 0);
        let socket = inside(&self.outside, || UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    /// Asks the game server `count` times; how often it answered.
    pub(crate) fn play(socket: &UdpSocket, server: &str, count: u32) -> u32 {
        let mut answers = 0;
        let mut buffer = [0; 64];
        for _ in 0..count {
            socket.send_to(b"ping", SocketAddr::new(ip(server), PORT)).unwrap();
            answers += u32::from(socket.recv(&mut buffer).is_ok());
        }
        answers
    }

    /// A socket for packets of one's own making.
    pub(crate) fn raw(&self, v4: bool) -> Socket {
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        inside(&self.outside, || {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap();
            socket.set_send_buffer_size(4 << 20).unwrap();
            socket
        })
    }

    /// Sends `count` packets spread over `over`; `make` gives the n-th.
    pub(crate) fn flood(&self, count: u32, over: Duration, make: impl Fn(u32) -> Packet) {
        let socket = self.raw(make(0).dst.is_ipv4());
        let start = Instant::now();
        for n in 0..count {
            let packet = make(n);
            let to = socket2::SockAddr::from(SocketAddr::new(packet.dst, 0));
            let _ = socket.send_to(&packet.bytes(), &to);
            while start.elapsed() < over.mul_f64(f64::from(n) / f64::from(count)) {
                std::hint::spin_loop();
            }
        }
    }

    /// What reached the game server from the attacker, once nothing more comes.
    pub(crate) fn settled(&self) -> u64 {
        let mut last = self.attack_received.load(Ordering::Relaxed);
        let mut same_since = Instant::now();
        self.node.wait_for("the last packet", 10, |_| {
            let now = self.attack_received.load(Ordering::Relaxed);
            if now != last {
                last = now;
                same_since = Instant::now();
            }
            (same_since.elapsed() > Duration::from_millis(150)).then_some(now)
        })
    }

    /// The same, forgetting it.
    pub(crate) fn take_settled(&self) -> u64 {
        let count = self.settled();
        self.attack_received.store(0, Ordering::Relaxed);
        count
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for echo in self.echoes.drain(..) {
            let _ = echo.join();
        }
    }
}

pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

const NAT: &str = "
table ip nat {
 chain pre { type nat hook prerouting priority -100; ip daddr 198.51.100.2 udp dport 27015 dnat to 172.18.0.2; \
   ip daddr 198.51.100.2 tcp dport 25565 dnat to 172.18.0.2; }
 chain out { type nat hook output priority -100; ip daddr 198.51.100.2 udp dport 27015 dnat to 172.18.0.2; \
   ip daddr 198.51.100.2 tcp dport 25565 dnat to 172.18.0.2; }
}
table ip6 nat {
 chain pre { type nat hook prerouting priority -100; ip6 daddr fd00:1::2 udp dport 27015 dnat to fd00:2::2; }
}
";
