//! A scene: a protected network, what happens to it, who reports it, and the truth about it.

mod demo;

use std::collections::VecDeque;

use ipnet::IpNet;
use weir_model::{Direction, Family, Inventory, Millis};

use crate::exporter::{Datagram, Exporter, ExporterSpec};
use crate::packet::{Origin, Packet};
use crate::rng::{Rng, mix};
use crate::source::{Emitter, SECOND_US, Source};
use crate::world::{Crowd, CrowdEmitter};

/// Which exporters see a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Each packet passes one of them, by its addresses, as with several upstreams.
    One,
    /// Each packet passes all of them, one after the other.
    All,
}

/// The truth about one attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Attack {
    /// Host or prefix under attack; the abused host when outbound.
    pub target: IpNet,
    /// Which way.
    pub direction: Direction,
    /// First packet, microseconds since the scene's start.
    pub start_us: u64,
    /// Last packet, microseconds since the scene's start.
    pub end_us: u64,
    /// Families that name it rightly, the best first.
    pub families: Vec<Family>,
    /// Subtypes that name it rightly, the best first; empty when any will do.
    pub subtypes: Vec<String>,
    /// No filter can tell it from the players: an alert without filter is the right answer.
    pub inseparable: bool,
}

/// A protected network and what happens to it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Short name: letters, digits, hyphens.
    pub name: String,
    /// Seed of all chance in it.
    pub seed: u64,
    /// What is protected.
    pub inventory: Inventory,
    /// Who reports.
    pub exporters: Vec<ExporterSpec>,
    /// Which of them see a packet.
    pub via: Via,
    /// What happens, packet by packet.
    pub sources: Vec<Source>,
    /// What happens, conversation by conversation.
    pub crowds: Vec<Crowd>,
    /// The truth; [`crate::Origin::Attack`] is an index into it.
    pub attacks: Vec<Attack>,
    /// Length, microseconds.
    pub duration_us: u64,
    /// Time in which only ordinary things happen, microseconds.
    pub learning_us: u64,
    /// Packets are drawn for so many microseconds at a time.
    pub tick_us: u64,
    /// Packets are drawn in trains of so many.
    pub train: u32,
    /// What the protected network's uplink carries, bits per second.
    pub link_bits_per_sec: u64,
}

impl Scene {
    /// All datagrams in order of time; the scene's time 0 is `epoch` on the exporters' clocks.
    pub fn stream(&self, epoch: Millis) -> Stream<'_> {
        let mut rng = Rng::stream(self.seed, u64::MAX);
        let exporters = self
            .exporters
            .iter()
            .enumerate()
            .map(|(index, spec)| Exporter::new(spec, index, epoch, &mut rng))
            .collect();
        let emitters = self
            .sources
            .iter()
            .enumerate()
            .map(|(index, source)| Emitter::new(source, self.seed, index, self.train))
            .collect();
        let crowds = self
            .crowds
            .iter()
            .enumerate()
            .map(|(index, crowd)| {
                let end_us = self.end_of(crowd);
                CrowdEmitter::new(crowd, self.seed, index, self.train, end_us)
            })
            .collect();
        Stream {
            scene: self,
            exporters,
            emitters,
            crowds,
            now_us: 0,
            packets: Vec::new(),
            unsent: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// When a crowd has said its last.
    fn end_of(&self, crowd: &Crowd) -> u64 {
        match crowd.origin {
            Origin::Benign => self.duration_us,
            Origin::Attack(index) => {
                self.attacks.get(usize::from(index)).map_or(self.duration_us, |a| a.end_us)
            }
        }
    }
}

/// A scene being played: an iterator of datagrams.
#[derive(Debug)]
pub struct Stream<'a> {
    scene: &'a Scene,
    exporters: Vec<Exporter>,
    emitters: Vec<Emitter<'a>>,
    crowds: Vec<CrowdEmitter<'a>>,
    now_us: u64,
    packets: Vec<Packet>,
    /// Datagrams made but not yet due: exporters lag.
    unsent: Vec<Datagram>,
    ready: VecDeque<Datagram>,
}

impl Stream<'_> {
    /// Plays one tick further, appending its datagrams to `out` in order of time. The packets of
    /// the tick stay in [`Stream::packets`] until the next. Returns `false` after the end.
    pub fn tick(&mut self, out: &mut VecDeque<Datagram>) -> bool {
        // Caches still hold flows at the end; a minute more lets ordinary timeouts bring them out.
        if self.now_us >= self.scene.duration_us + 60 * SECOND_US {
            return false;
        }
        self.packets.clear();
        let end_us = self.now_us + self.scene.tick_us.max(1);
        if self.now_us < self.scene.duration_us {
            for emitter in &mut self.emitters {
                emitter.emit(self.now_us, end_us - self.now_us, &mut self.packets);
            }
            for crowd in &mut self.crowds {
                crowd.emit(self.now_us, end_us - self.now_us, &mut self.packets);
            }
            // Stable, so that packets of the same microsecond keep their sources' order.
            self.packets.sort_by_key(|p| p.at_us);
        }
        let count = self.exporters.len() as u64;
        for packet in &self.packets {
            match self.scene.via {
                Via::All => {
                    for exporter in &mut self.exporters {
                        exporter.packet(packet, &mut self.unsent);
                    }
                }
                Via::One if count > 0 => {
                    let path = path_of(packet) % count;
                    let which = usize::try_from(path).unwrap_or(0);
                    self.exporters[which].packet(packet, &mut self.unsent);
                }
                Via::One => {}
            }
        }
        for exporter in &mut self.exporters {
            exporter.advance(end_us, &mut self.unsent);
        }
        self.now_us = end_us;
        self.unsent.sort_by_key(|d| d.at_us);
        let due = self.unsent.partition_point(|d| d.at_us < end_us);
        out.extend(self.unsent.drain(..due));
        true
    }

    /// Leaves out what lies before `us`: no packets, no datagrams. Flows and samples in flight stay.
    pub const fn skip_to(&mut self, us: u64) {
        if us > self.now_us {
            self.now_us = us - us % self.scene.tick_us;
        }
    }

    /// The packets of the last tick, in order of time.
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// Where the play stands, microseconds since the scene's start.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }
}

impl Iterator for Stream<'_> {
    type Item = Datagram;

    fn next(&mut self) -> Option<Datagram> {
        loop {
            if let Some(datagram) = self.ready.pop_front() {
                return Some(datagram);
            }
            let mut ready = std::mem::take(&mut self.ready);
            let more = self.tick(&mut ready);
            self.ready = ready;
            if !more && self.ready.is_empty() {
                return None;
            }
        }
    }
}

/// A number that is the same for both directions between two addresses.
fn path_of(packet: &Packet) -> u64 {
    let hash = |address| match address {
        std::net::IpAddr::V4(a) => u64::from(u32::from(a)),
        std::net::IpAddr::V6(a) => crate::rng::low64_of(u128::from(a)),
    };
    mix(mix(hash(packet.src)) ^ mix(hash(packet.dst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demonstration_is_ordered_repeatable_and_attacks_when_it_says() {
        let scene = Scene::demo(1);
        let epoch = Millis::from_secs(1_800_000_000);
        let first: Vec<Datagram> = scene.stream(epoch).collect();
        let again: Vec<Datagram> = Scene::demo(1).stream(epoch).collect();
        assert!(first == again, "the same seed gives the same octets");
        assert!(Scene::demo(2).stream(epoch).next() != first.first().cloned());
        assert!(first.is_sorted_by_key(|d| d.at_us));
        let truth = &scene.attacks[0];
        let attack = || first.iter().filter(|d| d.attack);
        let begin = attack().next().map(|d| d.at_us).unwrap();
        let end = attack().next_back().map(|d| d.at_us).unwrap();
        assert!((truth.start_us..truth.start_us + 200_000).contains(&begin), "{begin}");
        assert!((truth.end_us..truth.end_us + 3_000_000).contains(&end), "{end}");
    }

    #[test]
    fn packets_come_at_the_rates_asked_for() {
        let scene = Scene::demo(3);
        let mut stream = scene.stream(Millis(0));
        let mut out = VecDeque::new();
        let (mut attack, mut bits) = (0u64, 0u64);
        while stream.tick(&mut out) {
            let now = stream.packets().iter().filter(|p| p.is_attack());
            for packet in now {
                attack += u64::from(packet.count);
                bits += u64::from(packet.count) * u64::from(packet.length) * 8;
            }
        }
        let per_sec = bits / 12 / 1_000_000;
        assert!((3_800_000..3_880_000).contains(&attack), "{attack} attack packets");
        assert!((1150..1250).contains(&per_sec), "{per_sec} Mbit/s");
    }
}
