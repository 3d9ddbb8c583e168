//! Attack behaviours. Ports and sizes are those that published measurements of the vectors name;
//! how many, how fast and in which form is drawn.

mod answered;
mod flood;
mod reflection;

use weir_model::Family;

use super::crowd::Crowd;
use super::draw::Draw;
use crate::source::{Locals, Rate};

/// What an attack is made of.
#[derive(Debug)]
pub(crate) struct Assault<'a> {
    pub(crate) draw: &'a Draw,
    /// Where it goes.
    pub(crate) target: Locals,
    /// Packets a second over time.
    pub(crate) rate: Rate,
    /// Ports that the target uses: protocol and port.
    pub(crate) ports: Vec<(u8, u16)>,
    /// Packets a second that the target's own traffic has, to imitate it.
    pub(crate) imitated: Vec<Crowd>,
    pub(crate) crowds: Vec<Crowd>,
    pub(crate) families: Vec<Family>,
    pub(crate) inseparable: bool,
    pub(crate) notes: Vec<String>,
}

impl Assault<'_> {
    pub(crate) fn add(&mut self, crowd: Crowd) {
        self.crowds.push(crowd);
    }

    pub(crate) fn names(&mut self, families: &[Family]) {
        self.families.extend_from_slice(families);
    }

    /// A port of the target of this protocol, declared or not.
    pub(crate) fn port(&self, protocol: u8, otherwise: &[u16]) -> u16 {
        let used: Vec<u16> = self.ports.iter().filter(|p| p.0 == protocol).map(|p| p.1).collect();
        if used.is_empty() || self.draw.chance(0.15) {
            self.draw.pick(otherwise)
        } else {
            self.draw.pick(&used)
        }
    }

    /// Share that a host can answer of what it gets.
    pub(crate) fn bears(&self, most: f64) -> f64 {
        (self.draw.wide(20_000.0, 300_000.0) / self.rate.highest().max(1.0)).min(most)
    }
}

/// A kind of attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) id: &'static str,
    /// From so many packets a second on it is one: below, it harms nobody.
    pub(crate) least: f64,
    /// And at most.
    pub(crate) most: f64,
    /// Mean layer-3 octets of a packet, about.
    pub(crate) octets: f64,
    /// It can go over all of a prefix.
    pub(crate) carpet: bool,
    pub(crate) build: fn(&mut Assault<'_>),
}

const fn kind(
    id: &'static str,
    (least, most): (f64, f64),
    octets: f64,
    carpet: bool,
    build: fn(&mut Assault<'_>),
) -> Kind {
    Kind { id, least, most, octets, carpet, build }
}

/// All kinds.
pub(crate) const KINDS: &[Kind] = &[
    kind("reflection", (26_000.0, 900_000.0), 700.0, true, reflection::amplification),
    kind("reflection", (26_000.0, 900_000.0), 700.0, true, reflection::amplification),
    kind("mixed-reflection", (26_000.0, 900_000.0), 700.0, true, reflection::mixed),
    kind("syn-ack-reflection", (7_000.0, 600_000.0), 48.0, true, reflection::syn_ack),
    kind("middlebox-reflection", (26_000.0, 400_000.0), 700.0, false, reflection::middlebox),
    kind("water-torture", (26_000.0, 120_000.0), 80.0, false, reflection::water_torture),
    kind("syn-flood", (5_000.0, 1_500_000.0), 46.0, true, flood::syn),
    kind("syn-flood", (5_000.0, 1_500_000.0), 46.0, false, flood::syn),
    kind("tcp-flags-flood", (26_000.0, 1_000_000.0), 44.0, false, flood::flags),
    kind("udp-flood", (26_000.0, 900_000.0), 600.0, true, flood::udp_port),
    kind("udp-random-ports", (26_000.0, 900_000.0), 700.0, true, flood::udp_random),
    kind("fragment-flood", (6_000.0, 700_000.0), 1200.0, true, flood::fragments),
    kind("icmp-flood", (6_000.0, 500_000.0), 500.0, true, flood::icmp),
    kind("other-protocol-flood", (16_000.0, 500_000.0), 500.0, false, flood::other),
    kind("few-senders", (26_000.0, 400_000.0), 1000.0, false, flood::few),
    kind("imitation", (26_000.0, 400_000.0), 300.0, false, flood::imitation),
    kind("a2s-flood", (26_000.0, 400_000.0), 53.0, false, answered::a2s),
    kind("quic-initial-flood", (26_000.0, 400_000.0), 1250.0, false, answered::quic),
    kind("dns-query-flood", (26_000.0, 400_000.0), 80.0, false, answered::dns),
    kind("sip-flood", (26_000.0, 200_000.0), 450.0, false, answered::sip),
    kind("connection-flood", (26_000.0, 250_000.0), 60.0, false, answered::connections),
    kind("http-flood", (26_000.0, 250_000.0), 300.0, false, answered::http),
    kind("bot-joins", (26_000.0, 200_000.0), 120.0, false, answered::joins),
];
