//! Chance with the words in which behaviours are written.

use std::cell::RefCell;
use std::net::IpAddr;

use super::crowd::{Crowd, Population, Shape};
use crate::rng::{Rng, low32_of, whole};
use crate::source::{Locals, Rate};

/// Draws numbers for a world.
#[derive(Debug)]
pub(crate) struct Draw {
    /// Shared, so that what is drawn can be written where it is used.
    rng: RefCell<Rng>,
}

impl Draw {
    pub(crate) const fn new(seed: u64, stream: u64) -> Self {
        Self { rng: RefCell::new(Rng::stream(seed, stream)) }
    }

    /// 64 random bits.
    pub(crate) fn bits(&self) -> u64 {
        self.rng.borrow_mut().bits()
    }

    /// Evenly between two numbers.
    pub(crate) fn even(&self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.rng.borrow_mut().unit()
    }

    /// Evenly between the logarithms of two numbers: as often from 10 to 20 as from 100 to 200.
    pub(crate) fn wide(&self, from: f64, to: f64) -> f64 {
        if to <= from {
            return from;
        }
        from * (to / from).powf(self.rng.borrow_mut().unit())
    }

    /// A whole number, widely.
    pub(crate) fn count(&self, from: u32, to: u32) -> u32 {
        low32_of(whole(self.wide(f64::from(from.max(1)), f64::from(to.max(1)) + 0.99)))
    }

    /// From 1 to 100, evenly.
    pub(crate) fn percent(&self) -> u16 {
        self.rng.borrow_mut().between(1, 100)
    }

    /// A whole number, evenly.
    pub(crate) fn short(&self, from: u16, to: u16) -> u16 {
        self.rng.borrow_mut().between(from, to)
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&self, share: f64) -> bool {
        self.rng.borrow_mut().unit() < share
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<T: Copy>(&self, list: &[T]) -> T {
        list[self.rng.borrow_mut().below(low32_of(list.len() as u64)) as usize]
    }

    /// A port that no protocol owns.
    pub(crate) fn high_port(&self) -> u16 {
        self.rng.borrow_mut().between(10_000, 49_000)
    }

    /// Some lengths between two, as a mixture of one to four narrow or wide bands.
    pub(crate) fn lengths(&self, from: u16, to: u16) -> Vec<Shape> {
        let bands = self.count(1, 4);
        (0..bands)
            .map(|_| {
                let a = self.short(from, to);
                let b = if self.chance(0.3) { a } else { self.short(from, to) };
                let weight = self.even(0.2, 1.0);
                Shape::new(weight, (a.min(b), a.max(b)))
            })
            .collect()
    }

    /// People: several in each network.
    pub(crate) fn people(&self, size: f64) -> Population {
        let size = low32_of(whole(size)).max(4);
        let each = self.wide(1.3, 8.0);
        let nets = low32_of(whole(f64::from(size) / each)).max(1);
        Population::Members { size, nets, seed: self.bits() }
    }

    /// Machines that stand alone in their networks.
    pub(crate) fn machines(&self, size: u32) -> Population {
        Population::Members { size, nets: size, seed: self.bits() }
    }
}

/// How a behaviour's traffic grows from what it was to what it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// At once, then as before.
    Step,
    /// Slowly, then it stays.
    Ramp,
    /// Quickly up, slowly down.
    Surge,
    /// Up and down, again and again.
    Wave,
    /// In short bursts.
    Bursts,
}

impl Form {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Step, Self::Ramp, Self::Surge, Self::Wave, Self::Bursts];
    /// Those in which people come and go.
    pub(crate) const OF_PEOPLE: [Self; 4] = [Self::Step, Self::Ramp, Self::Surge, Self::Wave];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Ramp => "ramp",
            Self::Surge => "surge",
            Self::Wave => "wave",
            Self::Bursts => "bursts",
        }
    }

    /// From `before` until `at`, then up to `peak` in this form, to the `end`, seconds; `start` is
    /// when it begins at all. People take some seconds for what machines do at once.
    pub(crate) fn rate(
        self,
        draw: &Draw,
        people: bool,
        (start, at, end): (f64, f64, f64),
        (before, peak): (f64, f64),
    ) -> Rate {
        let mut points = vec![(start, before), (at, before)];
        let last = end - at;
        match self {
            Self::Step => {
                let down = at + last * draw.even(0.3, 1.0);
                let rise = if people { draw.wide(1.0, 15.0) } else { 0.0 };
                points.extend([(at + rise, peak), (down, peak), (down + rise, before)]);
            }
            Self::Ramp => {
                let top = at + last * draw.even(0.1, 0.8);
                points.extend([(top, peak), (end, peak)]);
            }
            Self::Surge => {
                let least = if people { 5.0 } else { 1.0 };
                let top = at + draw.wide(least, 40.0).min(last * 0.3);
                let down = top + last * draw.even(0.2, 0.6);
                points.extend([(top, peak), (down, before)]);
            }
            Self::Wave => {
                let period = draw.wide(if people { 60.0 } else { 10.0 }, 120.0);
                let mut t = at;
                while t < end {
                    let up = (1.0 - ((t - at) / period * std::f64::consts::TAU).cos()) / 2.0;
                    points.push((t, before + (peak - before) * up));
                    t += period / 12.0;
                }
            }
            Self::Bursts => {
                let period = draw.wide(4.0, 60.0);
                let on = period * draw.even(0.1, 0.6);
                let mut t = at;
                while t + on < end {
                    points.extend([(t, before), (t, peak), (t + on, peak), (t + on, before)]);
                    t += period * draw.even(0.8, 1.2);
                }
            }
        }
        // A step may be down only after the end.
        let now = points.last().map_or(before, |p| p.1);
        if points.last().is_some_and(|p| p.0 < end) {
            points.push((end, now));
        }
        Rate::through(&points)
    }
}

/// Where a behaviour is to happen, and what comes of it.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) draw: &'a Draw,
    /// On this host.
    pub(crate) host: IpAddr,
    /// Packets a second over time of the direction that has more of them.
    pub(crate) level: Rate,
    /// When the crash, storm or attack comes, and when all ends, seconds.
    pub(crate) at: f64,
    pub(crate) end: f64,
    /// Share of behaviours whose port the operator declared.
    pub(crate) declared: f64,
    /// Declared so far: protocol, port, name.
    pub(crate) services: Vec<(u8, u16, &'static str)>,
    pub(crate) crowds: Vec<Crowd>,
    /// What is particular about it.
    pub(crate) notes: Vec<String>,
}

impl Place<'_> {
    pub(crate) fn locals(&self) -> Locals {
        Locals::List(vec![self.host])
    }

    /// A crowd of this place.
    pub(crate) fn crowd(&self, name: &str, protocol: u8, population: Population) -> Crowd {
        Crowd::new(name, protocol, self.locals(), population)
    }

    /// Declares a port as a service, or not.
    pub(crate) fn declare(&mut self, protocol: u8, port: u16, name: &'static str) {
        if self.draw.chance(self.declared) {
            self.services.push((protocol, port, name));
        } else {
            self.notes.push("undeclared".to_owned());
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(crate) fn add(&mut self, crowd: Crowd) {
        self.crowds.push(crowd);
    }

    /// The busiest level.
    pub(crate) fn peak(&self) -> f64 {
        self.level.highest()
    }
}
