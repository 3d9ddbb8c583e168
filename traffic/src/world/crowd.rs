//! A crowd: conversations of one kind between a host and its far ends. Unlike a
//! [`crate::Source`], which draws packets, a crowd draws conversations: each has one far end and one
//! pair of ports, opens and closes as its protocol does, and what is answered goes back over the
//! same ports reversed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{Direction, Fragment};

use crate::packet::Origin;
use crate::rng::{low32_of, mix};
use crate::source::{Locals, Port, Rate, public};

/// Who the far ends are.
#[derive(Clone, Debug, PartialEq)]
pub enum Population {
    /// So many members, living in so many networks (/24, /48): players share access networks,
    /// reflectors stand alone.
    Members {
        /// Members.
        size: u32,
        /// Networks in which they live; each member its own where as many as `size`.
        nets: u32,
        /// Populations of the same seed are the same people.
        seed: u64,
    },
    /// Any unicast address, another for each conversation: forged.
    Forged,
}

impl Population {
    /// The address of the `number`th far end.
    pub(crate) fn address(&self, number: u64, ipv6: bool) -> IpAddr {
        let (net, member) = match self {
            Self::Forged => return public(number, ipv6),
            Self::Members { size, nets, seed } => {
                let member = number % u64::from((*size).max(1));
                let net = mix(seed ^ (mix(member) % u64::from((*nets).max(1))));
                // Where each has a network of its own no two share one by chance.
                let net = if nets >= size { mix(seed ^ member) } else { net };
                (net, mix(seed ^ member ^ 0xbeef))
            }
        };
        match public(net, ipv6) {
            IpAddr::V4(a) => {
                let [a, b, c, _] = a.octets();
                let host = u8::try_from(1 + member % 254).unwrap_or(1);
                IpAddr::V4(Ipv4Addr::new(a, b, c, host))
            }
            IpAddr::V6(a) => {
                let net = u128::from(a) >> 80 << 80;
                IpAddr::V6(Ipv6Addr::from(net | (u128::from(mix(member)) << 16)))
            }
        }
    }

    /// A far end for the `count`th conversation: each member in turn, in no order that shows, so
    /// that none comes twice before all have come once.
    pub(crate) fn pick(&self, count: u64, identity: u64) -> u64 {
        match self {
            Self::Forged => identity,
            Self::Members { size, seed, .. } => {
                let size = u64::from((*size).max(1));
                (mix(*seed) % size + count) % size
            }
        }
    }
}

/// A kind of packet within a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Share of the packets of its direction, relative to the others.
    pub weight: f64,
    /// Layer-3 octets over IPv4, evenly between the two.
    pub length: (u16, u16),
    /// TCP control bits.
    pub flags: u8,
    /// Fragmentation.
    pub fragment: Fragment,
}

impl Shape {
    /// Packets of these lengths.
    pub const fn new(weight: f64, length: (u16, u16)) -> Self {
        Self { weight, length, flags: 0, fragment: Fragment::None }
    }

    /// The same with TCP control bits.
    #[must_use]
    pub const fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// The same as a fragment.
    #[must_use]
    pub const fn fragment(mut self, fragment: Fragment) -> Self {
        self.fragment = fragment;
        self
    }
}

/// Some equal packets at a fixed place in a conversation: of its opening or its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// So long after the step before, microseconds, evenly between the two.
    pub after_us: (u32, u32),
    /// Which way.
    pub direction: Direction,
    /// How many, evenly between the two.
    pub count: (u16, u16),
    /// What they look like; `weight` does not count.
    pub shape: Shape,
    /// IP protocol and ICMP type and code where not the conversation's own: a closed port answers
    /// by ICMP.
    pub instead: Option<(u8, u8, u8)>,
    /// Share of conversations that have this step; the first that is missing ends the rest.
    pub share: f64,
}

impl Step {
    /// Packets towards the host.
    pub const fn to_host(after_us: (u32, u32), length: (u16, u16)) -> Self {
        Self {
            after_us,
            direction: Direction::Inbound,
            count: (1, 1),
            shape: Shape::new(1.0, length),
            instead: None,
            share: 1.0,
        }
    }

    /// Packets from the host.
    pub const fn from_host(after_us: (u32, u32), length: (u16, u16)) -> Self {
        Self { direction: Direction::Outbound, ..Self::to_host(after_us, length) }
    }

    /// With TCP control bits.
    #[must_use]
    pub const fn flags(mut self, flags: u8) -> Self {
        self.shape.flags = flags;
        self
    }

    /// Several.
    #[must_use]
    pub const fn times(mut self, from: u16, to: u16) -> Self {
        self.count = (from, to);
        self
    }

    /// Only in a share of the conversations.
    #[must_use]
    pub const fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// As a fragment.
    #[must_use]
    pub const fn fragment(mut self, fragment: Fragment) -> Self {
        self.shape.fragment = fragment;
        self
    }

    /// Of another protocol: ICMP of this type and code.
    #[must_use]
    pub const fn icmp(mut self, kind: u8, code: u8) -> Self {
        self.instead = Some((1, kind, code));
        self
    }
}

/// One direction of what goes on once a conversation is open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Talk {
    /// Packets a second of a conversation, on average over the crowd; where the crowd grows by
    /// [`Growth::Load`], packets for each packet of the load.
    pub packets_per_sec: f64,
    /// What they look like; empty for silence.
    pub shapes: Vec<Shape>,
}

impl Talk {
    /// At this rate.
    pub const fn new(packets_per_sec: f64, shapes: Vec<Shape>) -> Self {
        Self { packets_per_sec, shapes }
    }
}

/// How many conversations there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Growth {
    /// So many at once over time; each lasts so many seconds on average and is followed by another.
    Present {
        /// Conversations at once.
        number: Rate,
        /// Mean length, seconds.
        secs: f64,
    },
    /// So many, as long as there is anything to say; how much they say together changes: tunnels,
    /// transfers. The rates of [`Talk`] are factors of it.
    Load {
        /// Conversations at once.
        number: u32,
        /// Packets a second of them all.
        load: Rate,
        /// Mean length, seconds.
        secs: f64,
    },
    /// So many new ones a second; each is its opening and nothing else.
    Arriving(Rate),
}

/// Conversations of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Crowd {
    /// What it is, for people.
    pub name: String,
    /// Why it is there. What a host answers to an attack is ordinary.
    pub origin: Origin,
    /// Near ends.
    pub locals: Locals,
    /// Far ends.
    pub population: Population,
    /// IP protocol.
    pub protocol: u8,
    /// Far end's port, kept for the conversation.
    pub remote: Port,
    /// Near end's port, kept for the conversation.
    pub local: Port,
    /// ICMP type and code towards the host and from it, where the protocol is ICMP.
    pub icmp: [(u8, u8); 2],
    /// How many.
    pub growth: Growth,
    /// What a new conversation begins with.
    pub opening: Vec<Step>,
    /// Towards the host.
    pub inbound: Talk,
    /// From the host.
    pub outbound: Talk,
    /// What a conversation that ends says at last.
    pub closing: Vec<Step>,
    /// How unequal the conversations are: 0 for equal, 2 for a few that have most of it.
    pub skew: f64,
    /// Random swing of the whole from second to second, relative.
    pub swing: f64,
    /// Time to live on arrival, of each far end its own between the two.
    pub ttl: (u8, u8),
    /// Equal packets at once; 0 for as many as the scene allows at its size.
    pub train: u32,
}

impl Crowd {
    /// Conversations of a protocol with a host; the rest as given later.
    pub fn new(name: &str, protocol: u8, locals: Locals, population: Population) -> Self {
        Self {
            name: name.to_owned(),
            origin: Origin::Benign,
            locals,
            population,
            protocol,
            remote: Port::Session,
            local: Port::None,
            icmp: [(8, 0), (0, 0)],
            growth: Growth::Arriving(Rate::default()),
            opening: Vec::new(),
            inbound: Talk::default(),
            outbound: Talk::default(),
            closing: Vec::new(),
            skew: 0.0,
            swing: 0.0,
            ttl: (44, 122),
            train: 0,
        }
    }

    /// Between these ports, the far end's first.
    #[must_use]
    pub fn ports(mut self, remote: Port, local: Port) -> Self {
        (self.remote, self.local) = (remote, local);
        self
    }

    /// With so many conversations at once, each lasting so long.
    #[must_use]
    pub fn present(mut self, number: Rate, secs: f64) -> Self {
        self.growth = Growth::Present { number, secs };
        self
    }

    /// With so many conversations that say so many packets a second together.
    #[must_use]
    pub fn load(mut self, number: u32, load: Rate, secs: f64) -> Self {
        self.growth = Growth::Load { number: number.max(1), load, secs };
        self
    }

    /// With so many new conversations a second, each being its opening.
    #[must_use]
    pub fn arriving(mut self, rate: Rate) -> Self {
        self.growth = Growth::Arriving(rate);
        self
    }

    /// Beginning and ending with these steps.
    #[must_use]
    pub fn between(mut self, opening: Vec<Step>, closing: Vec<Step>) -> Self {
        (self.opening, self.closing) = (opening, closing);
        self
    }

    /// Going on like this.
    #[must_use]
    pub fn talking(mut self, inbound: Talk, outbound: Talk) -> Self {
        (self.inbound, self.outbound) = (inbound, outbound);
        self
    }

    /// As part of an attack.
    #[must_use]
    pub const fn attack(mut self, index: u16) -> Self {
        self.origin = Origin::Attack(index);
        self
    }

    /// Packets a second towards the host at an instant, on average.
    pub fn inbound_at(&self, at_us: u64) -> f64 {
        self.times().at(at_us) * self.each(Direction::Inbound)
    }

    /// Packets a second one way at the busiest instant, on average.
    pub(crate) fn highest(&self, way: Direction) -> f64 {
        self.times().highest() * self.each(way)
    }

    const fn times(&self) -> &Rate {
        match &self.growth {
            Growth::Arriving(rate) => rate,
            Growth::Present { number, .. } => number,
            Growth::Load { load, .. } => load,
        }
    }

    /// Packets one way of a new conversation, or a second of one that is present.
    fn each(&self, way: Direction) -> f64 {
        let steps = |steps: &[Step]| {
            let (mut share, mut sum) = (1.0, 0.0);
            for step in steps {
                share *= step.share;
                if step.direction == way {
                    sum += share * (f64::from(step.count.0) + f64::from(step.count.1)) / 2.0;
                }
            }
            sum
        };
        let talk = if way == Direction::Inbound { &self.inbound } else { &self.outbound };
        let talk = if talk.shapes.is_empty() { 0.0 } else { talk.packets_per_sec };
        match &self.growth {
            Growth::Arriving(_) => steps(&self.opening),
            // What so few say to open and to close is nothing beside what they say.
            Growth::Load { .. } => talk,
            Growth::Present { secs, .. } => {
                talk + (steps(&self.opening) + steps(&self.closing)) / secs.max(0.1)
            }
        }
    }
}

/// An ephemeral port that belongs to a conversation.
pub(crate) fn ephemeral(identity: u64) -> u16 {
    // Linux's range and the one above it that most others use.
    32_768 + u16::try_from(low32_of(mix(identity ^ 0x7070)) % 32_767).unwrap_or(0)
}
