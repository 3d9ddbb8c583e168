//! Ordinary behaviours. Each is a kind of traffic whose particulars are drawn anew for each world;
//! sizes are round figures of such traffic, not measurements of anyone's servers.

mod captured;
mod dns;
mod games;
mod media;
mod transfer;
mod tunnels;
mod web;

use super::crowd::{Shape, Step};
use super::draw::{Draw, Place};
use weir_model::tcp_flags;

/// A kind of ordinary traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// Short name.
    pub(crate) id: &'static str,
    /// A host may have it all the time.
    pub(crate) base: bool,
    /// It may begin or grow in the middle of a world.
    pub(crate) event: bool,
    /// Those who come stay: they do not all come within an instant, and not in bursts.
    pub(crate) people: bool,
    /// Packets a second of its busier direction, at least and at most.
    pub(crate) size: (f64, f64),
    pub(crate) build: fn(&mut Place<'_>),
}

const fn both(id: &'static str, size: (f64, f64), build: fn(&mut Place<'_>)) -> Behaviour {
    Behaviour { id, base: true, event: true, people: false, size, build }
}

const fn people(id: &'static str, size: (f64, f64), build: fn(&mut Place<'_>)) -> Behaviour {
    Behaviour { people: true, ..both(id, size, build) }
}

const fn event(id: &'static str, size: (f64, f64), build: fn(&mut Place<'_>)) -> Behaviour {
    Behaviour { id, base: false, event: true, people: false, size, build }
}

/// All kinds.
pub(crate) const BEHAVIOURS: &[Behaviour] = &[
    people("game-udp", (20.0, 300_000.0), games::udp),
    people("game-tcp", (10.0, 30_000.0), games::tcp),
    people("application", (20.0, 60_000.0), captured::application),
    people("application", (20.0, 60_000.0), captured::application),
    both("server-browser", (10.0, 20_000.0), games::browser),
    people("voice", (30.0, 30_000.0), games::voice),
    both("web-tcp", (30.0, 120_000.0), web::tcp),
    both("http3", (30.0, 120_000.0), web::http3),
    both("http3-long", (100.0, 150_000.0), web::http3_long),
    people("websocket", (20.0, 20_000.0), web::websocket),
    both("mail", (5.0, 4_000.0), web::mail),
    both("crawler", (50.0, 30_000.0), web::crawler),
    both("cdn-proxy", (100.0, 100_000.0), web::proxy),
    event("login-storm", (200.0, 30_000.0), web::logins),
    event("reconnect-rush", (200.0, 60_000.0), games::reconnect),
    both("tunnel-hub", (50.0, 120_000.0), tunnels::hub),
    both("site-tunnel", (50.0, 120_000.0), tunnels::site),
    both("gre-return", (200.0, 150_000.0), tunnels::scrubbed),
    people("conference", (200.0, 120_000.0), media::conference),
    people("voip", (50.0, 40_000.0), media::voip),
    both("stream-in", (100.0, 60_000.0), media::stream),
    people("turn-relay", (100.0, 60_000.0), media::turn),
    both("dns-resolver", (20.0, 30_000.0), dns::resolver),
    both("dns-server", (20.0, 30_000.0), dns::server),
    both("time-server", (20.0, 20_000.0), dns::time_server),
    both("poller", (10.0, 20_000.0), dns::poller),
    both("pings", (1.0, 2_000.0), dns::pings),
    both("sip-registrar", (10.0, 12_000.0), dns::registrar),
    both("backup", (200.0, 90_000.0), transfer::backup),
    event("udp-transfer", (1_000.0, 90_000.0), transfer::udp),
    event("update-day", (500.0, 90_000.0), transfer::update),
    event("cache-fill", (500.0, 120_000.0), transfer::cache_fill),
    event("speed-test", (5_000.0, 120_000.0), transfer::speed_test),
    people("bittorrent", (100.0, 40_000.0), transfer::bittorrent),
    both("replication", (20.0, 20_000.0), transfer::replication),
    both("scan-noise", (5.0, 4_000.0), dns::scans),
];

const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;
const PUSH: u8 = tcp_flags::ACK | tcp_flags::PSH;
const SYN_ACK: u8 = tcp_flags::SYN | tcp_flags::ACK;
const FIN: u8 = tcp_flags::FIN | tcp_flags::ACK;

/// Who opens a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    Peer,
    Host,
}

/// A step of whoever asked, and one of whoever is asked.
impl Opens {
    pub(crate) const fn asks(self, after_us: (u32, u32), length: (u16, u16)) -> Step {
        match self {
            Self::Peer => Step::to_host(after_us, length),
            Self::Host => Step::from_host(after_us, length),
        }
    }

    pub(crate) const fn answers(self, after_us: (u32, u32), length: (u16, u16)) -> Step {
        match self {
            Self::Peer => Step::from_host(after_us, length),
            Self::Host => Step::to_host(after_us, length),
        }
    }
}

/// A round trip's half, microseconds, as seen from the edge: far for people, near for the host.
pub(crate) const FAR: (u32, u32) = (8_000, 120_000);
pub(crate) const NEAR: (u32, u32) = (100, 1_500);

/// SYN, SYN-ACK, ACK.
pub(crate) fn handshake(opens: Opens) -> Vec<Step> {
    let (first, second) = match opens {
        Opens::Peer => (NEAR, FAR),
        Opens::Host => (FAR, NEAR),
    };
    vec![
        opens.asks((0, 0), (52, 64)).flags(SYN),
        opens.answers(first, (52, 60)).flags(SYN_ACK),
        opens.asks(second, (40, 52)).flags(ACK),
    ]
}

/// FIN both ways.
pub(crate) fn goodbye(opens: Opens) -> Vec<Step> {
    let (first, second) = match opens {
        Opens::Peer => (NEAR, FAR),
        Opens::Host => (FAR, NEAR),
    };
    vec![
        opens.asks((0, 0), (40, 52)).flags(FIN),
        opens.answers(first, (40, 52)).flags(FIN),
        opens.asks(second, (40, 52)).flags(ACK),
    ]
}

/// TCP segments of these lengths: short ones are bare ACKs.
pub(crate) fn segments(shapes: Vec<Shape>) -> Vec<Shape> {
    shapes
        .into_iter()
        .map(|s| {
            let flags = if s.length.1 <= 60 { ACK } else { PUSH };
            s.flags(flags)
        })
        .collect()
}

/// Bare ACKs.
pub(crate) fn acks() -> Vec<Shape> {
    vec![Shape::new(1.0, (40, 52)).flags(ACK)]
}

/// Bulk data over TCP.
pub(crate) fn bulk(draw: &Draw) -> Vec<Shape> {
    let mss = draw.pick(&[1500, 1500, 1492, 1420, 1400]);
    vec![
        Shape::new(0.93, (mss, mss)).flags(ACK),
        Shape::new(0.05, (mss, mss)).flags(PUSH),
        Shape::new(0.02, (60, mss)).flags(PUSH),
    ]
}
