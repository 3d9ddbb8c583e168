//! A population of packets: who talks to whom, how much, in what shapes. Games, backups and floods
//! are all values of one type, so that a new kind of traffic is data and not code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_model::{Direction, Fragment};

use crate::packet::{Origin, Packet};
use crate::rng::{Rng, low32_of, low64_of, mix, whole};

/// Microseconds in a second.
pub const SECOND_US: u64 = 1_000_000;

/// Packets per second over time: straight lines between knots, zero outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    knots: Vec<(u64, f64)>,
}

impl Rate {
    /// The same rate from `from_secs` to `to_secs`.
    pub fn steady(from_secs: f64, to_secs: f64, packets_per_sec: f64) -> Self {
        Self::through(&[(from_secs, packets_per_sec), (to_secs, packets_per_sec)])
    }

    /// Through points of (second, packets per second) in order of time; two points at the same
    /// second make a step.
    pub fn through(points: &[(f64, f64)]) -> Self {
        let knots = points.iter().map(|(t, pps)| (whole(t * SECOND_US as f64), *pps)).collect();
        Self { knots }
    }

    /// `on_secs` at a rate, repeated each `period_secs`.
    pub fn pulses(
        from: f64,
        to: f64,
        period_secs: f64,
        on_secs: f64,
        packets_per_sec: f64,
    ) -> Self {
        let mut points = Vec::new();
        let mut start = from;
        while start < to {
            let end = (start + on_secs).min(to);
            points.extend([
                (start, 0.0),
                (start, packets_per_sec),
                (end, packets_per_sec),
                (end, 0.0),
            ]);
            start += period_secs;
        }
        Self::through(&points)
    }

    /// From one rate to another by a constant factor a second.
    pub fn geometric(from_secs: f64, to_secs: f64, from_pps: f64, to_pps: f64) -> Self {
        let steps = 60;
        let points: Vec<(f64, f64)> = (0..=steps)
            .map(|i| {
                let share = f64::from(i) / f64::from(steps);
                (
                    from_secs + share * (to_secs - from_secs),
                    from_pps * (to_pps / from_pps).powf(share),
                )
            })
            .collect();
        Self::through(&points)
    }

    /// And then, in a straight line, to a rate at a time.
    #[must_use]
    pub fn then(mut self, secs: f64, packets_per_sec: f64) -> Self {
        self.knots.push((whole(secs * SECOND_US as f64), packets_per_sec));
        self
    }

    /// All of it multiplied.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        for knot in &mut self.knots {
            knot.1 *= factor;
        }
        self
    }

    /// The highest it ever is.
    pub fn highest(&self) -> f64 {
        self.knots.iter().map(|k| k.1).fold(0.0, f64::max)
    }

    /// Packets per second at an instant.
    pub fn at(&self, at_us: u64) -> f64 {
        let next = self.knots.partition_point(|k| k.0 <= at_us);
        let (Some(before), Some(after)) =
            (next.checked_sub(1).and_then(|i| self.knots.get(i)), self.knots.get(next))
        else {
            return 0.0;
        };
        let share = (at_us - before.0) as f64 / (after.0 - before.0).max(1) as f64;
        before.1 + share * (after.1 - before.1)
    }
}

/// The far ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Peers {
    /// Sessions that come and go: each sends this many packets a second and lasts this long, so
    /// their number follows the rate. Address and port stay for the session.
    Sessions {
        /// Packets per second of one session.
        packets_per_sec: f64,
        /// Length of a session, seconds.
        secs: f64,
        /// Players come back: addresses are drawn from so many.
        population: u32,
    },
    /// This many senders, each with one address and one port of its own.
    Hosts(u32),
    /// A random address and port for each packet.
    Spoofed,
    /// Given addresses, evenly.
    List(Vec<IpAddr>),
}

/// The near ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Locals {
    /// Given addresses, evenly.
    List(Vec<IpAddr>),
    /// Any address of a prefix, evenly.
    Net(IpNet),
}

/// A port.
#[derive(Clone, Debug, PartialEq)]
pub enum Port {
    /// None: 0.
    None,
    /// Always this.
    Fixed(u16),
    /// One of these, evenly.
    OneOf(Vec<u16>),
    /// Random for each packet, within these bounds.
    Random(u16, u16),
    /// An ephemeral port that belongs to the far end's session.
    Session,
}

/// One shape of packet; a source mixes several.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Share of the source's packets, relative to the other variants.
    pub weight: f64,
    /// IP protocol.
    pub protocol: u8,
    /// Far end's port.
    pub remote: Port,
    /// Near end's port.
    pub local: Port,
    /// Layer-3 octets, evenly between the two.
    pub length: (u16, u16),
    /// TCP control bits.
    pub tcp_flags: u8,
    /// ICMP type and code.
    pub icmp: (u8, u8),
    /// Fragmentation.
    pub fragment: Fragment,
    /// Time to live on arrival; a session keeps its own value between the two.
    pub ttl: (u8, u8),
}

impl Variant {
    /// UDP between ports.
    pub const fn udp(remote: Port, local: Port, length: (u16, u16)) -> Self {
        Self {
            weight: 1.0,
            protocol: 17,
            remote,
            local,
            length,
            tcp_flags: 0,
            icmp: (0, 0),
            fragment: Fragment::None,
            ttl: (44, 122),
        }
    }

    /// TCP between ports.
    pub fn tcp(remote: Port, local: Port, length: (u16, u16), tcp_flags: u8) -> Self {
        Self { protocol: 6, tcp_flags, ..Self::udp(remote, local, length) }
    }

    /// ICMP.
    pub fn icmp(kind: u8, code: u8, length: (u16, u16)) -> Self {
        Self { protocol: 1, icmp: (kind, code), ..Self::udp(Port::None, Port::None, length) }
    }

    /// A later fragment of `protocol`.
    pub fn later_fragment(protocol: u8, length: (u16, u16)) -> Self {
        Self { protocol, fragment: Fragment::Later, ..Self::udp(Port::None, Port::None, length) }
    }

    /// Another weight.
    #[must_use]
    pub const fn weighing(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Another range of times to live.
    #[must_use]
    pub const fn with_ttl(mut self, from: u8, to: u8) -> Self {
        self.ttl = (from, to);
        self
    }
}

/// One population of packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What it is, for people.
    pub name: String,
    /// Why it is there.
    pub origin: Origin,
    /// Which way its packets go.
    pub direction: Direction,
    /// How many.
    pub rate: Rate,
    /// Size of the random swing of the rate from one second to the next, relative: 0.1 = 10 %.
    pub swing: f64,
    /// Far ends.
    pub peers: Peers,
    /// Near ends.
    pub locals: Locals,
    /// Shapes of packet, not empty.
    pub variants: Vec<Variant>,
    /// Equal packets at once, 0 for as many as the scene draws. A whole train comes from one
    /// far end.
    pub train: u32,
    /// The peers' seed: sources with the same seed have the same far ends, as the two directions
    /// of one service do.
    pub peers_seed: u64,
}

impl Source {
    /// Inbound benign traffic without swing; the rest as given.
    pub fn new(
        name: &str,
        rate: Rate,
        peers: Peers,
        locals: Locals,
        variants: Vec<Variant>,
    ) -> Self {
        let peers_seed = name.bytes().fold(0x5eed, |seed, b| mix(seed ^ u64::from(b)));
        Self {
            name: name.to_owned(),
            origin: Origin::Benign,
            direction: Direction::Inbound,
            rate,
            swing: 0.0,
            peers,
            locals,
            variants,
            train: 0,
            peers_seed,
        }
    }

    /// As part of an attack.
    #[must_use]
    pub const fn attack(mut self, index: u16) -> Self {
        self.origin = Origin::Attack(index);
        self
    }

    /// With a random swing.
    #[must_use]
    pub const fn swinging(mut self, swing: f64) -> Self {
        self.swing = swing;
        self
    }

    /// The way back: the same ends, another rate and other shapes.
    #[must_use]
    pub fn answered(&self, factor: f64, variants: Vec<Variant>) -> Self {
        let peers = match &self.peers {
            Peers::Sessions { packets_per_sec, secs, population } => Peers::Sessions {
                packets_per_sec: packets_per_sec * factor,
                secs: *secs,
                population: *population,
            },
            other => other.clone(),
        };
        Self {
            name: format!("{} answers", self.name),
            direction: Direction::Outbound,
            rate: self.rate.clone().times(factor),
            peers,
            variants,
            ..self.clone()
        }
    }
}

/// A source at work: the source, its own chance, its weights added up.
#[derive(Debug)]
pub(crate) struct Emitter<'a> {
    source: &'a Source,
    rng: Rng,
    cumulative: Vec<f64>,
    seed: u64,
    train: u32,
}

/// One far end: address, ephemeral port and a number to keep further properties by.
struct Peer {
    address: IpAddr,
    port: u16,
    identity: u64,
}

impl<'a> Emitter<'a> {
    /// Prepares `source`, the `index`th of its scene.
    pub(crate) fn new(source: &'a Source, scene_seed: u64, index: usize, train: u32) -> Self {
        let mut sum = 0.0;
        let cumulative = source
            .variants
            .iter()
            .map(|v| {
                sum += v.weight;
                sum
            })
            .collect();
        Self {
            source,
            rng: Rng::stream(scene_seed, index as u64),
            cumulative,
            seed: mix(scene_seed ^ source.peers_seed),
            train: if source.train == 0 { train } else { source.train }.max(1),
        }
    }

    /// Appends the packets of `[from_us, from_us + len_us)`, in no order.
    pub(crate) fn emit(&mut self, from_us: u64, len_us: u64, out: &mut Vec<Packet>) {
        if self.source.variants.is_empty() {
            return;
        }
        // The tick is drawn at its highest rate and thinned to the rate of each instant, so that
        // a flood's first packet comes when the truth says and not a tick before.
        let rate = |at| self.source.rate.at(at);
        let ends = [rate(from_us), rate(from_us + len_us / 2), rate(from_us + len_us - 1)];
        let highest = ends.into_iter().fold(0.0, f64::max);
        if highest <= 0.0 {
            return;
        }
        let level = ends == [highest; 3];
        let mean = highest * self.swing(from_us) * len_us as f64
            / SECOND_US as f64
            / f64::from(self.train);
        let count = self.rng.poisson(mean);
        for _ in 0..count {
            let at = from_us + whole(self.rng.unit() * len_us as f64);
            let now = if level { highest } else { self.source.rate.at(at) };
            if level || self.rng.unit() * highest < now {
                let packet = self.packet(at, now);
                out.push(packet);
            }
        }
    }

    /// The swing of a second, the same for each of its parts.
    fn swing(&self, at_us: u64) -> f64 {
        if self.source.swing == 0.0 {
            return 1.0;
        }
        let mut rng = Rng::stream(self.seed, at_us / SECOND_US);
        (1.0 + self.source.swing * rng.normal()).clamp(0.1, 3.0)
    }

    fn packet(&mut self, at_us: u64, rate: f64) -> Packet {
        let source = self.source;
        let local = self.local();
        let peer = self.peer(at_us, rate, local);
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let draw = self.rng.unit() * total;
        let pick = self.cumulative.partition_point(|c| *c <= draw).min(source.variants.len() - 1);
        let variant = &source.variants[pick];
        let remote_port = port(&variant.remote, &peer, &mut self.rng);
        let local_port = port(&variant.local, &peer, &mut self.rng);
        let span = u64::from(variant.ttl.1.saturating_sub(variant.ttl.0)) + 1;
        let ttl = variant.ttl.0 + u8::try_from(mix(peer.identity) % span).unwrap_or(0);
        let length = self.rng.between(variant.length.0, variant.length.1);
        let inbound = source.direction == Direction::Inbound;
        Packet {
            at_us,
            count: self.train,
            src: if inbound { peer.address } else { local },
            dst: if inbound { local } else { peer.address },
            src_port: if inbound { remote_port } else { local_port },
            dst_port: if inbound { local_port } else { remote_port },
            protocol: if variant.protocol == 1 && local.is_ipv6() { 58 } else { variant.protocol },
            tcp_flags: variant.tcp_flags,
            icmp_type: variant.icmp.0,
            icmp_code: variant.icmp.1,
            length: if local.is_ipv6() { length.saturating_add(20) } else { length },
            ttl: if inbound { ttl } else { 64 },
            fragment: variant.fragment,
            direction: source.direction,
            origin: source.origin,
        }
    }

    fn local(&mut self) -> IpAddr {
        match &self.source.locals {
            Locals::List(list) => {
                let limit = u32::try_from(list.len()).unwrap_or(u32::MAX);
                list[self.rng.below(limit) as usize]
            }
            Locals::Net(net) => within(*net, self.rng.bits()),
        }
    }

    fn peer(&mut self, at_us: u64, rate: f64, local: IpAddr) -> Peer {
        let ipv6 = local.is_ipv6();
        match &self.source.peers {
            Peers::Spoofed => {
                let identity = self.rng.bits();
                Peer { address: public(identity, ipv6), port: ephemeral(identity), identity }
            }
            Peers::Hosts(count) => {
                let identity = mix(self.seed ^ u64::from(self.rng.below((*count).max(1))));
                Peer { address: public(identity, ipv6), port: ephemeral(identity), identity }
            }
            Peers::List(list) => {
                let limit = u32::try_from(list.len()).unwrap_or(u32::MAX);
                let address = list[self.rng.below(limit) as usize];
                let identity = mix(self.seed ^ hash_of(address));
                Peer { address, port: ephemeral(identity), identity }
            }
            Peers::Sessions { packets_per_sec, secs, population } => {
                let now = whole((rate / packets_per_sec).ceil()).max(1);
                let slot = u64::from(self.rng.below(low32_of(now)));
                // A slot's sessions follow each other; the offset keeps the slots out of step.
                let length = whole(secs * SECOND_US as f64).max(1);
                let offset = mix(self.seed ^ slot) % length;
                let generation = (at_us + offset) / length;
                let identity = mix(self.seed ^ (slot << 32) ^ generation ^ hash_of(local));
                let member = mix(self.seed ^ (identity % u64::from((*population).max(1))));
                Peer { address: public(member, ipv6), port: ephemeral(identity), identity }
            }
        }
    }
}

fn port(port: &Port, peer: &Peer, rng: &mut Rng) -> u16 {
    match port {
        Port::None => 0,
        Port::Fixed(value) => *value,
        Port::OneOf(values) => {
            let limit = u32::try_from(values.len()).unwrap_or(u32::MAX);
            values.get(rng.below(limit) as usize).copied().unwrap_or(0)
        }
        Port::Random(from, to) => rng.between(*from, *to),
        Port::Session => peer.port,
    }
}

fn hash_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(a) => mix(u64::from(u32::from(a))),
        IpAddr::V6(a) => {
            let bits = u128::from(a);
            mix(low64_of(bits >> 64) ^ mix(low64_of(bits)))
        }
    }
}

/// An ephemeral port that belongs to an identity.
fn ephemeral(identity: u64) -> u16 {
    1024 + u16::try_from(mix(identity ^ 0x7070) % 64_000).unwrap_or(0)
}

/// An address of a prefix.
pub(crate) fn within(net: IpNet, bits: u64) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let host = u64::from(u32::MAX).checked_shr(u32::from(net.prefix_len())).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(net.network()) | low32_of(bits & host)))
        }
        IpNet::V6(net) => {
            let host = u128::MAX.checked_shr(u32::from(net.prefix_len())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | (u128::from(bits) & host)))
        }
    }
}

/// An address out in the world: unicast, not private, not one of the documentation prefixes that
/// scenes protect.
pub(crate) fn public(identity: u64, ipv6: bool) -> IpAddr {
    if ipv6 {
        let high = 0x2a00_0000_0000_0000 | (mix(identity) & 0x00ff_ffff_ffff_0000);
        return IpAddr::V6(Ipv6Addr::from(u128::from(high) << 64 | u128::from(mix(identity ^ 6))));
    }
    let mut bits = mix(identity ^ 4);
    loop {
        let address = Ipv4Addr::from(low32_of(bits));
        let [a, b, ..] = address.octets();
        let reserved = matches!(a, 0 | 10 | 127 | 224..)
            || (a == 100 && (64..128).contains(&b))
            || (a == 169 && b == 254)
            || (a == 172 && (16..32).contains(&b))
            || (a == 192 && (b == 0 || b == 168))
            || (a == 198 && (18..20).contains(&b))
            || address.is_documentation();
        if !reserved {
            return IpAddr::V4(address);
        }
        bits = mix(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_run_through_their_points() {
        let rate = Rate::through(&[(1.0, 10.0), (3.0, 30.0), (3.0, 5.0), (4.0, 5.0)]);
        let check = |second: f64, pps: f64| {
            assert!((rate.at(whole(second * 1e6)) - pps).abs() < 1e-6, "{second}");
        };
        check(0.5, 0.0);
        check(1.0, 10.0);
        check(2.0, 20.0);
        check(3.5, 5.0);
        check(4.5, 0.0);
        let pulses = Rate::pulses(10.0, 100.0, 60.0, 5.0, 100.0);
        assert!(pulses.at(12 * SECOND_US) > 99.0 && pulses.at(20 * SECOND_US) == 0.0);
        assert!(pulses.at(72 * SECOND_US) > 99.0);
    }

    #[test]
    fn sessions_keep_their_ends_and_follow_the_rate() {
        let source = Source::new(
            "players",
            Rate::steady(0.0, 10.0, 300.0),
            Peers::Sessions { packets_per_sec: 20.0, secs: 600.0, population: 100_000 },
            Locals::List(vec!["203.0.113.7".parse().unwrap()]),
            vec![Variant::udp(Port::Session, Port::Fixed(28015), (60, 120))],
        );
        let mut emitter = Emitter::new(&source, 1, 0, 1);
        let mut packets = Vec::new();
        for second in 0..10 {
            emitter.emit(second * SECOND_US, SECOND_US, &mut packets);
        }
        assert!((2700..3300).contains(&packets.len()), "{}", packets.len());
        let mut ends: Vec<_> = packets.iter().map(|p| (p.src, p.src_port)).collect();
        ends.sort_unstable();
        ends.dedup();
        assert!((15..=17).contains(&ends.len()), "{} sessions", ends.len());
        assert!(packets.iter().all(|p| p.dst_port == 28015 && (60..=120).contains(&p.length)));
    }
}
