//! What a world is made of.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use weir_model::{Direction, Family, Inventory, PrefixSet, Service};

use super::attack::{Assault, KINDS, Kind};
use super::benign::{BEHAVIOURS, Behaviour};
use super::crowd::{Crowd, Population, Step};
use super::draw::{Draw, Form, Place};
use crate::rng::{low32_of, whole};
use crate::scene::{Attack, Scene, Via};
use crate::source::{Locals, Port, Rate, SECOND_US};
use crate::suite::Feed;

/// What is played of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Ordinary things only.
    Benign,
    /// The same hosts, and an attack.
    Attack,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Benign, Self::Attack];

    /// Stable name.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Attack => "attack",
        }
    }
}

/// A world that was drawn.
#[derive(Clone, Debug)]
pub struct World {
    /// What happens in it.
    pub scene: Scene,
    /// Its seed.
    pub seed: u64,
    /// Which side of the seed.
    pub side: Side,
    /// Hosts that have behaviours.
    pub hosts: Vec<IpAddr>,
    /// What each host does and what happens, a line each.
    pub about: Vec<String>,
    /// Names of what happens: the event's behaviours and the attack's kinds.
    pub happens: Vec<String>,
}

/// Most packets a second that a feed can carry quickly: one host's, and an attack's.
const fn most(feed: Feed) -> (f64, f64) {
    if feed.sees_all() { (3_000.0, 42_000.0) } else { (300_000.0, 1_500_000.0) }
}

/// Where the protected network lies: 198.18.0.0/15 is no address of anybody's (RFC 2544).
const NETWORK: u32 = 0xc612_0000;

/// Least packets a second of an attack on a whole prefix.
const CARPET_MIN: f64 = 96_000.0;

/// Most packets of an attack, so that a world plays quickly.
const PACKETS_MAX: f64 = 40e6;

/// Seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    learned: f64,
    /// When the event begins.
    at: f64,
    /// When the attack begins, and ends at the latest.
    start: f64,
    stop: f64,
    end: f64,
}

struct Host {
    address: IpAddr,
    created: f64,
    declared: f64,
    crowds: Vec<Crowd>,
}

/// A world being drawn.
struct Drawing {
    draw: Draw,
    feed: Feed,
    side: Side,
    times: Times,
    net: Ipv4Net,
    hosts: Vec<Host>,
    services: Vec<Service>,
    background: Vec<Crowd>,
    about: Vec<String>,
    happens: Vec<String>,
    attacks: Vec<Attack>,
    /// Packets a second left for hosts, so that a world plays quickly.
    left: f64,
    /// What the uplink carries, bits a second.
    link: u64,
}

impl World {
    /// Draws the world of a seed, as `feed` shows it.
    pub fn draw(seed: u64, feed: Feed, side: Side) -> Self {
        let draw = Draw::new(seed, 0x30_41d5);
        let times = times(&draw, feed, side);
        let length = draw.pick(&[20, 21, 22, 23, 24, 24]);
        let network = NETWORK + (low32_of(draw.bits()) & 0x0001_f000);
        let net = Ipv4Net::new_assert(Ipv4Addr::from(network), length);
        let link = draw.pick(&[4, 10, 10, 10, 20, 40, 100]) * 1_000_000_000;
        let mut drawing = Drawing {
            link,
            draw,
            feed,
            side,
            times,
            net,
            hosts: Vec::new(),
            services: Vec::new(),
            background: Vec::new(),
            about: Vec::new(),
            happens: Vec::new(),
            attacks: Vec::new(),
            left: 1.6 * most(feed).0,
        };
        drawing.people_it();
        drawing.noise();
        // The event is drawn by a stream of its own, so that both sides have the same hosts.
        drawing.draw = Draw::new(seed, 0xe_7e_47);
        let events = match side {
            Side::Benign => drawing.draw.count(1, 2),
            Side::Attack => u32::from(drawing.draw.chance(0.3)),
        };
        for _ in 0..events {
            drawing.event();
        }
        if side == Side::Attack {
            drawing.draw = Draw::new(seed, 0xa77_ac4);
            drawing.assault();
        }
        drawing.finish(seed)
    }

    /// All of it in words: what is protected, who is there, what happens.
    pub fn describe(&self) -> String {
        let scene = &self.scene;
        let mut out = format!(
            "{}: learning {} s, {} s in all, uplink {} Gbit/s, {} exporters\n",
            scene.name,
            scene.learning_us / SECOND_US,
            scene.duration_us / SECOND_US,
            scene.link_bits_per_sec / 1_000_000_000,
            scene.exporters.len(),
        );
        for line in &self.about {
            let _ = writeln!(out, "  {line}");
        }
        out
    }
}

/// How long it is watched before anything is scored, and when things happen.
fn times(draw: &Draw, feed: Feed, side: Side) -> Times {
    let learned = match draw.percent() {
        1..=3 => 0.0,
        4..=20 => draw.even(60.0, 240.0).floor(),
        _ => draw.even(320.0, 420.0).floor(),
    };
    let at = learned + draw.even(8.0, 50.0);
    let mut end = (learned + draw.even(180.0, 260.0)).floor();
    let start = learned + draw.even(10.0, 45.0);
    // What a feed of every packet reports must be short to be played quickly.
    let longest = draw.wide(15.0, 120.0);
    let stop = start + if feed.sees_all() { longest.min(20.0) } else { longest };
    let after = draw.even(70.0, 100.0);
    if side == Side::Attack {
        // Its end must be seen.
        end = end.max((stop + after).ceil());
    }
    Times { learned, at, start, stop, end }
}

/// A steady level that goes up and down a little.
fn calm(draw: &Draw, from: f64, end: f64, size: f64) -> Rate {
    let (depth, period) = (draw.even(0.0, 0.35), draw.wide(40.0, 900.0));
    let phase = draw.even(0.0, std::f64::consts::TAU);
    let mut points = Vec::new();
    let mut t = from;
    if from > 0.0 {
        // Who comes to a new host comes one after the other.
        points.push((from, 0.0));
        t += draw.wide(1.0, 60.0);
    }
    while t < end {
        let wave = (phase + t / period * std::f64::consts::TAU).sin();
        points.push((t, size * (1.0 + depth * wave)));
        t += (period / 12.0).max(5.0);
    }
    points.push((end, size));
    Rate::through(&points)
}

impl Drawing {
    /// The hosts and what they do all the time.
    fn people_it(&mut self) {
        let number = self.draw.count(2, 5);
        for _ in 0..number {
            let host = self.host();
            let behaviours = self.draw.count(1, 3);
            let address = host.address;
            self.hosts.push(host);
            for _ in 0..behaviours {
                let base: Vec<&Behaviour> = BEHAVIOURS.iter().filter(|b| b.base).collect();
                let behaviour = self.draw.pick(&base);
                let (least, top) = behaviour.size;
                let top = top.min(most(self.feed).0).min(self.left);
                let size = self.draw.wide(least.min(top), top);
                self.left = (self.left - size).max(100.0);
                let index = self.hosts.len() - 1;
                let created = self.hosts[index].created;
                let level = calm(&self.draw, created, self.times.end, size);
                self.behave(index, behaviour, level, &format!("{size:.0} pkt/s"));
            }
            debug_assert_eq!(self.hosts.last().map(|h| h.address), Some(address));
        }
    }

    /// A host of the network, there from the start or created later.
    fn host(&mut self) -> Host {
        let address = loop {
            let address = if self.draw.chance(0.15) {
                let low = u16::try_from(self.draw.bits() & 0xffff).unwrap_or(1);
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, low))
            } else {
                let host = low32_of(self.draw.bits()) & u32::from(self.net.hostmask());
                IpAddr::V4(Ipv4Addr::from(u32::from(self.net.network()) | host))
            };
            if !self.hosts.iter().any(|h| h.address == address) {
                break address;
            }
        };
        let created = match self.draw.percent() {
            1..=50 => 0.0,
            51..=60 => self.draw.even(0.0, self.times.at),
            61..=66 => (self.times.at - self.draw.wide(2.0, 30.0)).max(0.0),
            _ => 0.0,
        };
        let declared = self.draw.pick(&[0.0, 0.5, 0.8, 1.0]);
        Host { address, created, declared, crowds: Vec::new() }
    }

    /// A host begins to do something.
    fn behave(&mut self, index: usize, behaviour: &Behaviour, level: Rate, how: &str) {
        let host = &self.hosts[index];
        let mut place = Place {
            draw: &self.draw,
            host: host.address,
            level,
            at: self.times.at,
            end: self.times.end,
            declared: host.declared,
            services: Vec::new(),
            crowds: Vec::new(),
            notes: Vec::new(),
        };
        (behaviour.build)(&mut place);
        let Place { services, mut crowds, notes, .. } = place;
        let address = host.address;
        self.services.extend(services.into_iter().map(|(protocol, port, game)| Service {
            address,
            protocol,
            port,
            name: format!("{game}-{address}"),
            game: game.to_owned(),
        }));
        let born = match host.created {
            0.0 => String::new(),
            at => format!(", since {at:.0} s"),
        };
        self.about.push(format!("{address}: {} {how}{born}; {}", behaviour.id, notes.join("; ")));
        self.hosts[index].crowds.append(&mut crowds);
    }

    /// Those who knock at every address.
    fn noise(&mut self) {
        if self.draw.chance(0.25) {
            return;
        }
        let rate = self.draw.wide(3.0, if self.feed.sees_all() { 60.0 } else { 600.0 });
        let scanners = self.draw.count(50, 3000);
        let scan = Crowd::new(
            "knocking",
            6,
            Locals::Net(IpNet::V4(self.net)),
            self.draw.machines(scanners),
        )
        .ports(Port::Session, Port::OneOf(vec![22, 23, 80, 443, 445, 3389, 8080]))
        .arriving(Rate::steady(0.0, self.times.end, rate))
        .between(vec![Step::to_host((0, 0), (40, 44)).flags(0x02)], Vec::new());
        self.about.push(format!("{}: scans, {rate:.0} pkt/s", self.net));
        self.background.push(scan);
    }

    /// Something ordinary begins or grows.
    fn event(&mut self) {
        let events: Vec<&Behaviour> = BEHAVIOURS.iter().filter(|b| b.event).collect();
        let behaviour = self.draw.pick(&events);
        let (least, top) = behaviour.size;
        let cap = if self.feed.sees_all() { 20_000.0 } else { most(self.feed).0 };
        let top = top.min(cap);
        let peak = self.draw.wide(least.max(200.0).min(top), top);
        let form = if behaviour.people {
            self.draw.pick(&Form::OF_PEOPLE)
        } else {
            self.draw.pick(&Form::ALL)
        };
        let before = if self.draw.chance(0.5) { 0.0 } else { peak * self.draw.wide(0.03, 0.7) };
        // On a host that is there, or on one that comes with it.
        let index = if self.draw.chance(0.8) {
            let number = low32_of(self.hosts.len() as u64);
            (low32_of(self.draw.bits() >> 32) % number) as usize
        } else {
            let mut host = self.host();
            host.created = if before > 0.0 { 0.0 } else { self.times.at };
            self.hosts.push(host);
            self.hosts.len() - 1
        };
        let start = self.hosts[index].created.min(self.times.at);
        let level = form.rate(
            &self.draw,
            behaviour.people,
            (start, self.times.at, self.times.end),
            (before, peak),
        );
        let how =
            format!("{} at {:.0} s from {before:.0} to {peak:.0} pkt/s", form.id(), self.times.at);
        self.happens.push(format!("{} ({})", behaviour.id, form.id()));
        self.behave(index, behaviour, level, &how);
    }

    /// An attack is laid over.
    fn assault(&mut self) {
        let draw = Draw::new(self.draw.bits(), 1);
        let victim = (low32_of(draw.bits() >> 32) % low32_of(self.hosts.len() as u64)) as usize;
        let number = if draw.chance(0.15) { draw.count(2, 3) } else { 1 };
        let carpet = number == 1 && !self.feed.sees_all() && draw.chance(0.15);
        let target = self.target(&draw, victim, carpet);
        let Times { start, stop, .. } = self.times;
        let own = self.hosts[victim].crowds.iter().map(|c| c.inbound_at(us(start))).sum();
        let sizes = self.sizes(&draw, number, carpet, own);
        let whole: f64 = sizes.iter().map(|s| s.1).sum();
        let stop = stop.min(start + (PACKETS_MAX / whole).max(10.0));
        let mut assault = Assault {
            target: if carpet { Locals::Net(target) } else { Locals::List(vec![target.addr()]) },
            draw: &draw,
            rate: Rate::default(),
            ports: ports(&self.hosts[victim].crowds),
            imitated: self.hosts[victim].crowds.clone(),
            crowds: Vec::new(),
            families: Vec::new(),
            inseparable: false,
            notes: Vec::new(),
        };
        let (mut inseparable, mut how) = (true, String::new());
        for (kind, pps) in sizes {
            let (form, rate) = rate_of(&draw, start, stop, pps);
            assault.rate = rate;
            assault.inseparable = false;
            (kind.build)(&mut assault);
            inseparable &= assault.inseparable;
            let plus = if how.is_empty() { "" } else { " + " };
            let _ = write!(how, "{plus}{} {form} {pps:.0} pkt/s", kind.id);
            self.happens.push(format!("{} ({form})", kind.id));
        }
        let Assault { crowds, mut families, notes, .. } = assault;
        if number > 1 {
            families.push(Family::MultiVector);
        }
        families.dedup();
        let notes = notes.join("; ");
        self.about.push(format!("{target}: ATTACK {how}, {start:.0} to {stop:.0} s; {notes}"));
        self.attacks.push(Attack {
            target,
            direction: Direction::Inbound,
            start_us: us(start),
            end_us: us(stop),
            families,
            subtypes: Vec::new(),
            inseparable,
        });
        self.background.extend(crowds.into_iter().map(|c| c.attack(0)));
    }

    /// The kinds that an attack is made of, with packets a second: from what does harm, or as much
    /// as the host's `own`, to what the link carries and a little more.
    fn sizes(&self, draw: &Draw, number: u32, carpet: bool, own: f64) -> Vec<(&'static Kind, f64)> {
        let list: Vec<&'static Kind> = KINDS.iter().filter(|k| !carpet || k.carpet).collect();
        (0..number)
            .map(|_| {
                let kind = draw.pick(&list);
                let least = if carpet { kind.least.max(CARPET_MIN) } else { kind.least.max(own) };
                let link = 1.3 * self.link as f64 / 8.0 / kind.octets;
                let top = kind.most.min(link).min(most(self.feed).1);
                (kind, draw.wide(least.min(top), top))
            })
            .collect()
    }

    /// A host, or a prefix around it.
    fn target(&self, draw: &Draw, victim: usize, carpet: bool) -> IpNet {
        let address = self.hosts[victim].address;
        match address {
            IpAddr::V4(a) if carpet => {
                let length = u8::try_from(draw.short(20, 28)).unwrap_or(24);
                let net = Ipv4Net::new_assert(a, length.max(self.net.prefix_len())).trunc();
                IpNet::V4(net)
            }
            _ => IpNet::from(address),
        }
    }

    fn finish(mut self, seed: u64) -> World {
        let Times { learned, end, .. } = self.times;
        let draw = Draw::new(seed, 0x11_4c);
        let name = format!("world-{seed}-{}-{}", self.side.id(), self.feed.id());
        let mut exporters = vec![self.feed.exporter("border-1", 1)];
        if draw.chance(0.2) {
            exporters.push(self.feed.exporter("border-2", 2));
        }
        let protected: PrefixSet =
            [IpNet::V4(self.net)].into_iter().chain("2001:db8:113::/48".parse::<IpNet>()).collect();
        self.services.sort();
        self.services
            .dedup_by(|a, b| (a.address, a.protocol, a.port) == (b.address, b.protocol, b.port));
        let hosts = self.hosts.iter().map(|h| h.address).collect();
        let crowds: Vec<Crowd> =
            self.hosts.into_iter().flat_map(|h| h.crowds).chain(self.background).collect();
        let scene = Scene {
            name,
            seed,
            inventory: Inventory::new(protected, PrefixSet::default(), self.services),
            exporters,
            via: Via::One,
            sources: Vec::new(),
            crowds,
            attacks: self.attacks,
            duration_us: us(end),
            learning_us: us(learned),
            tick_us: 50_000,
            train: self.feed.train(),
            link_bits_per_sec: self.link,
        };
        World { scene, seed, side: self.side, hosts, about: self.about, happens: self.happens }
    }
}

/// How an attack's rate goes.
fn rate_of(draw: &Draw, start: f64, stop: f64, pps: f64) -> (&'static str, Rate) {
    match draw.percent() {
        1..=5 => {
            let slow = start + (stop - start) * draw.even(0.1, 0.4);
            let points = [(start, pps * 0.02), (slow, pps * 0.05), (slow, pps), (stop, pps)];
            ("onset", Rate::through(&points))
        }
        6..=12 => {
            let top = start + (stop - start) * draw.even(0.3, 0.7);
            ("ramp", Rate::geometric(start, top, (pps / 200.0).max(50.0), pps).then(stop, pps))
        }
        13..=25 => {
            let period = draw.wide(4.0, 40.0);
            let on = period * draw.even(0.2, 0.7);
            ("pulses", Rate::pulses(start, stop, period, on, pps))
        }
        _ => ("flat", Rate::steady(start, stop, pps)),
    }
}

/// Ports that crowds use at the near end.
fn ports(crowds: &[Crowd]) -> Vec<(u8, u16)> {
    crowds
        .iter()
        .filter_map(|c| match (&c.local, &c.population) {
            (Port::Fixed(port), Population::Members { .. }) => Some((c.protocol, *port)),
            _ => None,
        })
        .collect()
}

fn us(secs: f64) -> u64 {
    whole(secs * SECOND_US as f64)
}
