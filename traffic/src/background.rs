//! Ordinary traffic of a game hosting network, as models. Rates and sizes are round figures of the
//! kinds of traffic, not measurements of anyone's servers.

use std::net::IpAddr;

use weir_model::{Service, tcp_flags};

use crate::source::{Locals, Peers, Port, Rate, Source, Variant};

/// What a server on a protected address offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Game {
    /// Minecraft Java edition: TCP 25565.
    Minecraft,
    /// Rust: UDP 28015.
    Rust,
    /// Source engine games: UDP 27015.
    Source,
    /// FiveM: UDP and TCP 30120.
    FiveM,
    /// TeamSpeak voice: UDP 9987.
    TeamSpeak,
    /// Web: TCP 443 and 80.
    Web,
    /// DNS resolver or server: UDP and TCP 53.
    Dns,
}

impl Game {
    /// Name as panels give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minecraft => "minecraft",
            Self::Rust => "rust",
            Self::Source => "source",
            Self::FiveM => "fivem",
            Self::TeamSpeak => "teamspeak",
            Self::Web => "web",
            Self::Dns => "dns",
        }
    }

    /// Protocols and ports, the main one first.
    pub const fn ports(self) -> &'static [(u8, u16)] {
        match self {
            Self::Minecraft => &[(6, 25565)],
            Self::Rust => &[(17, 28015)],
            Self::Source => &[(17, 27015)],
            Self::FiveM => &[(17, 30120), (6, 30120)],
            Self::TeamSpeak => &[(17, 9987)],
            Self::Web => &[(6, 443), (6, 80)],
            Self::Dns => &[(17, 53), (6, 53)],
        }
    }

    /// Packets that one player sends in a second.
    pub const fn player_packets_per_sec(self) -> f64 {
        match self {
            Self::Minecraft => 12.0,
            Self::Rust => 25.0,
            Self::Source => 30.0,
            Self::FiveM => 30.0,
            Self::TeamSpeak => 15.0,
            Self::Web => 20.0,
            Self::Dns => 2.0,
        }
    }

    /// Declares the game's ports at an address.
    pub fn services(self, address: IpAddr, name: &str) -> Vec<Service> {
        let service = |&(protocol, port): &(u8, u16)| Service {
            address,
            protocol,
            port,
            name: name.to_owned(),
            game: self.name().to_owned(),
        };
        self.ports().iter().map(service).collect()
    }
}

const ACK: u8 = tcp_flags::ACK;
const PUSH: u8 = tcp_flags::ACK | tcp_flags::PSH;
const SYN: u8 = tcp_flags::SYN;
const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;
const FIN: u8 = tcp_flags::FIN | tcp_flags::ACK;

/// Shares of packets by length: weight, shortest, longest.
type Sizes = &'static [(f64, u16, u16)];

/// Both directions of a TCP service: what clients send and what the server sends, as (weight,
/// shortest, longest) of data segments.
fn tcp_shapes(port: u16, sizes: Sizes, toward_server: bool) -> Vec<Variant> {
    let shape = |length, flags| Variant::tcp(Port::Session, Port::Fixed(port), length, flags);
    let mut shapes: Vec<Variant> = sizes
        .iter()
        .map(|(weight, from, to)| {
            shape((*from, *to), if *to > 60 { PUSH } else { ACK }).weighing(*weight)
        })
        .collect();
    if toward_server {
        // Options of real systems: 52 Windows, 60 Linux and Android, 64 Apple; 40 never occurs.
        shapes.push(shape((52, 52), SYN).weighing(0.004));
        shapes.push(shape((60, 60), SYN).weighing(0.004));
        shapes.push(shape((64, 64), SYN).weighing(0.002));
    } else {
        shapes.push(shape((52, 60), SYN_ACK).weighing(0.009));
    }
    shapes.push(shape((40, 52), FIN).weighing(0.008));
    shapes.push(shape((40, 40), tcp_flags::RST).weighing(0.002));
    shapes
}

/// Both directions of one server's traffic with players that number `players` over time: a rate of
/// players, not packets.
pub fn server(game: Game, address: IpAddr, players: &Rate) -> Vec<Source> {
    let each = game.player_packets_per_sec();
    let (protocol, port) = game.ports()[0];
    let (toward, back, answers): (Sizes, Sizes, f64) = match game {
        Game::Minecraft => (
            &[(0.45, 40, 52), (0.4, 58, 90), (0.15, 91, 300)],
            &[(0.5, 60, 300), (0.3, 301, 1000), (0.2, 1400, 1500)],
            1.6,
        ),
        Game::Rust => (
            &[(0.2, 42, 60), (0.6, 61, 140), (0.2, 141, 420)],
            &[(0.3, 60, 200), (0.5, 201, 700), (0.2, 701, 1350)],
            1.5,
        ),
        Game::Source => (&[(0.3, 53, 80), (0.7, 81, 160)], &[(0.6, 90, 300), (0.4, 301, 900)], 1.1),
        Game::FiveM => (
            &[(0.35, 45, 80), (0.5, 81, 220), (0.15, 221, 600)],
            &[(0.4, 60, 250), (0.4, 251, 800), (0.2, 801, 1250)],
            1.4,
        ),
        Game::TeamSpeak => (&[(0.2, 43, 60), (0.8, 120, 190)], &[(1.0, 120, 200)], 3.0),
        Game::Web => (&[(0.7, 40, 52), (0.3, 200, 900)], &[(0.2, 40, 52), (0.8, 1300, 1500)], 1.8),
        Game::Dns => (&[(1.0, 56, 90)], &[(0.6, 90, 250), (0.4, 251, 900)], 1.0),
    };
    let shapes = |sizes: Sizes, toward_server| {
        if protocol == 6 {
            return tcp_shapes(port, sizes, toward_server);
        }
        sizes
            .iter()
            .map(|(weight, from, to)| {
                Variant::udp(Port::Session, Port::Fixed(port), (*from, *to)).weighing(*weight)
            })
            .collect()
    };
    let secs = if matches!(game, Game::Web | Game::Dns) { 20.0 } else { 1800.0 };
    let inbound = Source::new(
        &format!("{} {address}", game.name()),
        players.clone().times(each),
        Peers::Sessions { packets_per_sec: each, secs, population: 20_000 },
        Locals::List(vec![address]),
        shapes(toward, true),
    )
    .swinging(0.04);
    let outbound = inbound.answered(answers, shapes(back, false));
    let mut sources = vec![inbound, outbound];
    if game == Game::FiveM {
        sources.extend(fivem_downloads(address, players));
    }
    sources
}

/// FiveM clients fetch resources over TCP on the same port.
fn fivem_downloads(address: IpAddr, players: &Rate) -> Vec<Source> {
    let inbound = Source::new(
        &format!("fivem downloads {address}"),
        players.clone().times(0.6),
        Peers::Sessions { packets_per_sec: 20.0, secs: 60.0, population: 20_000 },
        Locals::List(vec![address]),
        tcp_shapes(30120, &[(0.8, 40, 52), (0.2, 200, 600)], true),
    );
    let outbound =
        inbound.answered(1.8, tcp_shapes(30120, &[(0.1, 40, 52), (0.9, 1300, 1500)], false));
    vec![inbound, outbound]
}

/// Scanners of the whole Internet, touching every address of some hosts.
pub fn scan_noise(hosts: Vec<IpAddr>, from: f64, to: f64, packets_per_sec: f64) -> Source {
    let ports = vec![22, 23, 80, 443, 445, 3389, 5060, 8080, 8443];
    Source::new(
        "scan noise",
        Rate::steady(from, to, packets_per_sec),
        Peers::Hosts(3000),
        Locals::List(hosts),
        vec![
            Variant::tcp(Port::Session, Port::OneOf(ports), (40, 44), SYN).weighing(0.7),
            Variant::udp(Port::Session, Port::OneOf(vec![53, 123, 161, 1900, 5060]), (29, 80))
                .weighing(0.2),
            Variant::icmp(8, 0, (28, 84)).weighing(0.1),
        ],
    )
}

/// One TCP transfer towards a host: a few long connections from one address.
pub fn transfer(
    name: &str,
    from_host: IpAddr,
    to_host: IpAddr,
    remote_port: u16,
    rate: Rate,
) -> Vec<Source> {
    let inbound = Source::new(
        name,
        rate,
        Peers::List(vec![from_host]),
        Locals::List(vec![to_host]),
        vec![
            Variant::tcp(Port::Fixed(remote_port), Port::Session, (1500, 1500), ACK).weighing(0.93),
            Variant::tcp(Port::Fixed(remote_port), Port::Session, (1500, 1500), PUSH)
                .weighing(0.05),
            Variant::tcp(Port::Fixed(remote_port), Port::Session, (60, 900), PUSH).weighing(0.02),
        ],
    );
    let acks = vec![Variant::tcp(Port::Fixed(remote_port), Port::Session, (40, 52), ACK)];
    let outbound = inbound.answered(0.5, acks);
    vec![inbound, outbound]
}
