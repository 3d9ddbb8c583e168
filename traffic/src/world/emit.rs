//! A crowd at work: conversations begin, go on and end, a tick at a time.

use std::collections::VecDeque;
use std::net::IpAddr;

use weir_model::{Direction, Fragment};

use super::crowd::{Crowd, Growth, Shape, Step, Talk, ephemeral};
use crate::packet::{Origin, Packet};
use crate::rng::{Rng, low32_of, mix, whole};
use crate::source::{Locals, Port, SECOND_US, within};

/// Trains are chosen so that a crowd draws about this many a second each way: what is smaller is
/// drawn packet by packet.
const TRAINS_PER_SEC: f64 = 2500.0;
/// The same of attacks, in which the same sender twice would be a sign of what is not so.
const ATTACK_TRAINS_PER_SEC: f64 = 12_000.0;
/// What opens and closes a conversation must lie within this many ticks of its beginning.
const HORIZON_TICKS: usize = 1024;

/// One conversation.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    identity: u64,
    local: IpAddr,
    remote: IpAddr,
    local_port: u16,
    remote_port: u16,
    /// 0-1: how much it says beside the loudest.
    weight: f32,
}

/// A crowd at work.
#[derive(Debug)]
pub(crate) struct CrowdEmitter<'a> {
    crowd: &'a Crowd,
    rng: Rng,
    seed: u64,
    train: u32,
    open: Vec<Conversation>,
    /// Conversations begun so far.
    begun: u64,
    /// Where the next one stands in the population.
    turn: u64,
    started: bool,
    /// Packets of the ticks to come, the next tick's first.
    later: VecDeque<Vec<Packet>>,
    /// Nothing of an attack comes after its end.
    end_us: u64,
}

impl<'a> CrowdEmitter<'a> {
    /// Prepares a crowd, the `index`th of its scene; trains are of `train_max` packets at most.
    pub(crate) fn new(
        crowd: &'a Crowd,
        scene_seed: u64,
        index: usize,
        train_max: u32,
        end_us: u64,
    ) -> Self {
        let train = if crowd.train == 0 { train_of(crowd, train_max) } else { crowd.train };
        let mut rng = Rng::stream(scene_seed ^ 0xc0_77d5, index as u64);
        let seed = rng.bits();
        Self {
            crowd,
            turn: u64::from(rng.below(1_000_000)),
            rng,
            seed,
            train,
            open: Vec::new(),
            begun: 0,
            started: false,
            later: VecDeque::new(),
            end_us,
        }
    }

    /// Appends the packets of `[from_us, from_us + len_us)`, in no order.
    pub(crate) fn emit(&mut self, from_us: u64, len_us: u64, out: &mut Vec<Packet>) {
        if let Some(due) = self.later.pop_front() {
            out.extend(due);
        }
        let crowd = self.crowd;
        match &crowd.growth {
            Growth::Arriving(rate) => {
                let (highest, level) = highest(rate, from_us, len_us);
                if highest <= 0.0 {
                    return;
                }
                let mean = highest * self.swing(from_us) * len_us as f64 / SECOND_US as f64;
                for _ in 0..self.rng.poisson(mean / f64::from(self.train)) {
                    let at = from_us + whole(self.rng.unit() * len_us as f64);
                    if level || self.rng.unit() * highest < rate.at(at) {
                        let new = self.begin();
                        self.steps(&new, &crowd.opening, at, (from_us, len_us), out);
                    }
                }
            }
            Growth::Present { number, secs } => {
                let wanted = whole(number.at(from_us) + 0.5);
                self.come_and_go(wanted, *secs, (from_us, len_us), out);
                let each = self.open.len() as f64;
                self.talk(&crowd.inbound, Direction::Inbound, each, (from_us, len_us), out);
                self.talk(&crowd.outbound, Direction::Outbound, each, (from_us, len_us), out);
            }
            Growth::Load { number, load, secs } => {
                let load = load.at(from_us);
                let wanted = if load > 0.0 { u64::from(*number) } else { 0 };
                self.come_and_go(wanted, *secs, (from_us, len_us), out);
                self.talk(&crowd.inbound, Direction::Inbound, load, (from_us, len_us), out);
                self.talk(&crowd.outbound, Direction::Outbound, load, (from_us, len_us), out);
            }
        }
    }

    /// Brings the conversations to the number wanted, and replaces those whose time has come.
    fn come_and_go(&mut self, wanted: u64, secs: f64, tick: (u64, u64), out: &mut Vec<Packet>) {
        let crowd = self.crowd;
        let (from_us, len_us) = tick;
        let present = self.open.len() as u64;
        // Those of the first instant were there before: they do not open anew.
        let silent = !self.started && from_us == 0;
        self.started = true;
        let mean = present as f64 * len_us as f64 / SECOND_US as f64 / secs.max(0.1);
        let ended = if silent { 0 } else { self.rng.poisson(mean).min(present) };
        let gone = ended.max(present.saturating_sub(wanted));
        for _ in 0..gone {
            let at = self.rng.below(low32_of(self.open.len() as u64)) as usize;
            let last = self.open.swap_remove(at);
            let at = from_us + whole(self.rng.unit() * len_us as f64);
            self.steps(&last, &crowd.closing, at, tick, out);
        }
        for _ in self.open.len() as u64..wanted {
            let new = self.begin();
            if !silent {
                let at = from_us + whole(self.rng.unit() * len_us as f64);
                self.steps(&new, &crowd.opening, at, tick, out);
            }
            self.open.push(new);
        }
    }

    /// One direction of a tick's talk, spread over the conversations by their weight.
    fn talk(
        &mut self,
        talk: &Talk,
        way: Direction,
        times: f64,
        tick: (u64, u64),
        out: &mut Vec<Packet>,
    ) {
        let (from_us, len_us) = tick;
        if talk.shapes.is_empty() || self.open.is_empty() {
            return;
        }
        let mean = times * talk.packets_per_sec * self.swing(from_us) * len_us as f64
            / SECOND_US as f64
            / f64::from(self.train);
        let total: f64 = talk.shapes.iter().map(|s| s.weight).sum();
        for _ in 0..self.rng.poisson(mean) {
            let speaker = self.speaker();
            let mut draw = self.rng.unit() * total;
            let shape = talk
                .shapes
                .iter()
                .find(|s| {
                    draw -= s.weight;
                    draw < 0.0
                })
                .unwrap_or(&talk.shapes[0]);
            let at = from_us + whole(self.rng.unit() * len_us as f64);
            let packet = self.packet(&speaker, way, shape, None, at, self.train);
            self.place(packet, tick, out);
        }
    }

    /// A conversation, drawn by weight.
    fn speaker(&mut self) -> Conversation {
        let count = low32_of(self.open.len() as u64);
        for _ in 0..16 {
            let one = self.open[self.rng.below(count) as usize];
            if self.crowd.skew == 0.0 || self.rng.unit() < f64::from(one.weight) {
                return one;
            }
        }
        self.open[self.rng.below(count) as usize]
    }

    fn begin(&mut self) -> Conversation {
        let crowd = self.crowd;
        self.begun += 1;
        self.turn += 1;
        let local = match &crowd.locals {
            Locals::List(list) => {
                let limit = low32_of(list.len() as u64);
                list[self.rng.below(limit) as usize]
            }
            Locals::Net(net) => within(*net, self.rng.bits()),
        };
        let identity = mix(self.seed ^ self.begun);
        let number = crowd.population.pick(self.turn, identity);
        #[expect(clippy::cast_possible_truncation, reason = "a share of 1, coarse is enough")]
        let weight = if crowd.skew == 0.0 { 1.0 } else { self.rng.unit().powf(crowd.skew) as f32 };
        Conversation {
            identity,
            local,
            remote: crowd.population.address(number, local.is_ipv6()),
            local_port: self.port(&crowd.local, identity ^ 1),
            remote_port: self.port(&crowd.remote, identity),
            weight,
        }
    }

    fn port(&mut self, port: &Port, identity: u64) -> u16 {
        match port {
            Port::None => 0,
            Port::Fixed(value) => *value,
            Port::OneOf(values) => {
                let limit = low32_of(values.len() as u64);
                values.get(self.rng.below(limit) as usize).copied().unwrap_or(0)
            }
            Port::Random(from, to) => self.rng.between(*from, *to),
            Port::Session => ephemeral(identity),
        }
    }

    /// Plays steps from `at_us` on.
    fn steps(
        &mut self,
        one: &Conversation,
        steps: &[Step],
        mut at_us: u64,
        tick: (u64, u64),
        out: &mut Vec<Packet>,
    ) {
        // Of those who are always there, `train` does not stand for so many.
        let train = if matches!(self.crowd.growth, Growth::Arriving(_)) { self.train } else { 1 };
        for step in steps {
            if step.share < 1.0 && self.rng.unit() >= step.share {
                return;
            }
            let span = step.after_us.1.saturating_sub(step.after_us.0);
            at_us += u64::from(step.after_us.0) + u64::from(self.rng.below(span + 1));
            let count = u32::from(self.rng.between(step.count.0, step.count.1));
            if count == 0 {
                continue;
            }
            let packet = self.packet(
                one,
                step.direction,
                &step.shape,
                step.instead,
                at_us,
                train.saturating_mul(count),
            );
            self.place(packet, tick, out);
        }
    }

    /// Puts a packet where its time is.
    fn place(&mut self, packet: Packet, tick: (u64, u64), out: &mut Vec<Packet>) {
        let (from_us, len_us) = tick;
        if packet.is_attack() && packet.at_us > self.end_us {
            return;
        }
        let ticks = usize::try_from((packet.at_us - from_us) / len_us).unwrap_or(usize::MAX);
        if ticks == 0 {
            out.push(packet);
        } else if ticks < HORIZON_TICKS {
            while self.later.len() < ticks {
                self.later.push_back(Vec::new());
            }
            self.later[ticks - 1].push(packet);
        }
    }

    fn packet(
        &mut self,
        one: &Conversation,
        way: Direction,
        shape: &Shape,
        instead: Option<(u8, u8, u8)>,
        at_us: u64,
        count: u32,
    ) -> Packet {
        let crowd = self.crowd;
        let ipv6 = one.local.is_ipv6();
        let inbound = way == Direction::Inbound;
        let icmp = if inbound { crowd.icmp[0] } else { crowd.icmp[1] };
        let (protocol, icmp) = match (instead, crowd.protocol) {
            (Some((protocol, kind, code)), _) => (protocol, (kind, code)),
            (None, 1) => (1, icmp),
            (None, protocol) => (protocol, (0, 0)),
        };
        let (protocol, icmp) = if ipv6 { six(protocol, icmp) } else { (protocol, icmp) };
        let hidden = shape.fragment == Fragment::Later || !matches!(protocol, 6 | 17 | 132);
        let (remote_port, local_port) =
            if hidden { (0, 0) } else { (one.remote_port, one.local_port) };
        let mut length = self.rng.between(shape.length.0, shape.length.1);
        if protocol == 6 && length < 80 {
            // Headers alone: their length is counted in words of four octets.
            length &= !3;
        }
        let span = u64::from(crowd.ttl.1.saturating_sub(crowd.ttl.0)) + 1;
        let ttl = crowd.ttl.0 + u8::try_from(mix(one.identity ^ 0x77) % span).unwrap_or(0);
        // Answers to an attack are the host's own doing.
        let origin = if inbound { crowd.origin } else { Origin::Benign };
        Packet {
            at_us,
            count,
            src: if inbound { one.remote } else { one.local },
            dst: if inbound { one.local } else { one.remote },
            src_port: if inbound { remote_port } else { local_port },
            dst_port: if inbound { local_port } else { remote_port },
            protocol,
            tcp_flags: if protocol == 6 { shape.flags } else { 0 },
            icmp_type: icmp.0,
            icmp_code: icmp.1,
            length: if ipv6 { length.saturating_add(20) } else { length },
            ttl: if inbound { ttl } else { 64 },
            fragment: shape.fragment,
            direction: way,
            origin,
        }
    }

    /// The swing of a second, the same for each of its parts and for both directions.
    fn swing(&self, at_us: u64) -> f64 {
        if self.crowd.swing == 0.0 {
            return 1.0;
        }
        let mut rng = Rng::stream(self.seed, at_us / SECOND_US);
        (1.0 + self.crowd.swing * rng.normal()).clamp(0.1, 3.0)
    }
}

/// The highest rate within a tick, and whether it is the same all the time.
fn highest(rate: &crate::source::Rate, from_us: u64, len_us: u64) -> (f64, bool) {
    let ends = [from_us, from_us + len_us / 2, from_us + len_us - 1].map(|at| rate.at(at));
    let highest = ends.into_iter().fold(0.0, f64::max);
    (highest, ends == [highest; 3])
}

/// ICMP's number and types in IPv6 (RFC 4443).
const fn six(protocol: u8, icmp: (u8, u8)) -> (u8, (u8, u8)) {
    if protocol != 1 {
        return (protocol, icmp);
    }
    match icmp {
        (8, _) => (58, (128, 0)),
        (0, _) => (58, (129, 0)),
        (3, 3) => (58, (1, 4)),
        (11, _) => (58, (3, 0)),
        (kind, code) => (58, (kind, code)),
    }
}

/// How many packets the crowd sends at once, for what it is at its busiest.
fn train_of(crowd: &Crowd, train_max: u32) -> u32 {
    let busiest = crowd.highest(Direction::Inbound).max(crowd.highest(Direction::Outbound));
    let trains = match crowd.origin {
        Origin::Benign => TRAINS_PER_SEC,
        Origin::Attack(_) => ATTACK_TRAINS_PER_SEC,
    };
    low32_of(whole((busiest / trains).ceil())).clamp(1, train_max.max(1))
}
