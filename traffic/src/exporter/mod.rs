//! Exporters imitated: packets in, datagrams with their times of sending out.

mod flow_cache;
mod sflow_agent;

use std::net::IpAddr;

use weir_model::{Direction, FlowProtocol, Millis};

pub use flow_cache::{CacheConfig, CacheVersion, FlowCache};
pub use sflow_agent::{AgentConfig, SflowAgent};

use crate::packet::Packet;
use crate::rng::Rng;

/// Interface towards the world, in every imitated router.
pub const EXTERNAL_IF: u32 = 1;
/// Interface towards the protected network.
pub const INTERNAL_IF: u32 = 2;

/// Octets of payload that fit a 1500-octet path over IPv6.
pub(crate) const PAYLOAD_MAX: usize = 1400;

/// A datagram on its way to the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// When it is sent, microseconds since the scene's start.
    pub at_us: u64,
    /// Index of the exporter that sends it.
    pub exporter: usize,
    /// UDP payload.
    pub payload: Vec<u8>,
    /// Whether a packet of an attack is reported in it.
    pub attack: bool,
}

impl Datagram {
    /// When it is sent, milliseconds since the scene's start.
    pub const fn at_ms(&self) -> u64 {
        self.at_us / 1000
    }
}

/// Where an exporter stands and how it exports.
#[derive(Clone, Debug, PartialEq)]
pub struct ExporterSpec {
    /// Name in configurations.
    pub name: String,
    /// Address its datagrams come from.
    pub address: IpAddr,
    /// How it exports.
    pub kind: Kind,
    /// Exporter's clock minus true time, milliseconds.
    pub clock_skew_ms: i64,
    /// What goes wrong with its datagrams, in order of time.
    pub faults: Vec<Fault>,
    /// It looks at what enters from the world only, as with ingress sampling on uplinks.
    pub inbound_only: bool,
}

/// How an exporter exports.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Packet samples.
    Sflow(AgentConfig),
    /// Flow records.
    Cache(CacheConfig),
}

/// A time of trouble.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Start, microseconds since the scene's start.
    pub from_us: u64,
    /// End, exclusive.
    pub to_us: u64,
    /// What happens.
    pub what: FaultKind,
}

/// What can happen to an exporter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// This share of the datagrams is lost, 0-1.
    Loss(f64),
    /// This share of the datagrams arrives twice, 0-1.
    Duplicate(f64),
    /// At the start: the exporter restarts: caches empty, counters and clocks from zero.
    Restart,
    /// From the start on: another sampling rate.
    Sampling(u32),
    /// Templates and options are not sent.
    NoTemplates,
}

impl ExporterSpec {
    /// The protocol and the port that collectors expect it at.
    pub const fn protocol(&self) -> FlowProtocol {
        match &self.kind {
            Kind::Sflow(_) => FlowProtocol::Sflow,
            Kind::Cache(cache) => match cache.version {
                CacheVersion::V5 => FlowProtocol::NetflowV5,
                CacheVersion::V9(_) => FlowProtocol::NetflowV9,
                CacheVersion::Ipfix(_) => FlowProtocol::Ipfix,
            },
        }
    }

    /// The collector's usual port for its protocol.
    pub const fn port(&self) -> u16 {
        match self.protocol() {
            FlowProtocol::Sflow => 6343,
            FlowProtocol::Ipfix => 4739,
            FlowProtocol::NetflowV5 | FlowProtocol::NetflowV9 => 2055,
        }
    }

    /// Sampling rate at the start.
    pub const fn sampling(&self) -> u32 {
        match &self.kind {
            Kind::Sflow(agent) => agent.rate,
            Kind::Cache(cache) => cache.sampling,
        }
    }
}

/// Picks packets at random, one in so many, as routers do: by counting down a random gap.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    rate: u32,
    gap: u64,
    rng: Rng,
}

impl Sampler {
    pub(crate) fn new(rate: u32, mut rng: Rng) -> Self {
        let rate = rate.max(1);
        let gap = rng.skip(rate);
        Self { rate, gap, rng }
    }

    pub(crate) const fn rate(&self) -> u32 {
        self.rate
    }

    pub(crate) fn set_rate(&mut self, rate: u32) {
        self.rate = rate.max(1);
        self.gap = self.rng.skip(self.rate);
    }

    /// How many of the next `count` packets are picked.
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        if self.rate == 1 {
            return count;
        }
        let mut left = u64::from(count);
        let mut picked = 0;
        while self.gap < left {
            left -= self.gap + 1;
            picked += 1;
            self.gap = self.rng.skip(self.rate);
        }
        self.gap -= left;
        picked
    }
}

pub(crate) const fn interfaces(direction: Direction) -> (u32, u32) {
    match direction {
        Direction::Inbound => (EXTERNAL_IF, INTERNAL_IF),
        Direction::Outbound => (INTERNAL_IF, EXTERNAL_IF),
    }
}

/// A running exporter.
#[derive(Debug)]
pub struct Exporter {
    index: usize,
    engine: Engine,
    faults: Vec<Fault>,
    next_fault: usize,
    rng: Rng,
    inbound_only: bool,
    sent: Vec<Datagram>,
}

#[derive(Debug)]
enum Engine {
    Sflow(Box<SflowAgent>),
    Cache(Box<FlowCache>),
}

impl Exporter {
    /// Starts the exporter `spec`, number `index` of its scene, whose time 0 is `epoch`.
    pub fn new(spec: &ExporterSpec, index: usize, epoch: Millis, rng: &mut Rng) -> Self {
        let epoch_ms = epoch.0.saturating_add_signed(spec.clock_skew_ms);
        let own = Rng::new(rng.bits());
        let engine = match &spec.kind {
            Kind::Sflow(config) => {
                let agent = SflowAgent::new(*config, spec.address, index, own.clone());
                Engine::Sflow(Box::new(agent))
            }
            Kind::Cache(config) => {
                Engine::Cache(Box::new(FlowCache::new(*config, index, epoch_ms, own.clone())))
            }
        };
        let mut faults = spec.faults.clone();
        faults.sort_by_key(|f| f.from_us);
        let inbound_only = spec.inbound_only;
        Self { index, engine, faults, next_fault: 0, rng: own, inbound_only, sent: Vec::new() }
    }

    /// Its number.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// A packet passes; datagrams that fill up by it are appended to `out`.
    pub fn packet(&mut self, packet: &Packet, out: &mut Vec<Datagram>) {
        if self.inbound_only && packet.direction == Direction::Outbound {
            return;
        }
        self.begin_faults(packet.at_us);
        match &mut self.engine {
            Engine::Sflow(agent) => agent.packet(packet, &mut self.sent),
            Engine::Cache(cache) => cache.packet(packet, &mut self.sent),
        }
        if !self.sent.is_empty() {
            self.deliver(out);
        }
    }

    /// Time passes: what is due until `now_us` is appended to `out`.
    pub fn advance(&mut self, now_us: u64, out: &mut Vec<Datagram>) {
        self.begin_faults(now_us);
        match &mut self.engine {
            Engine::Sflow(agent) => agent.advance(now_us, &mut self.sent),
            Engine::Cache(cache) => cache.advance(now_us, &mut self.sent),
        }
        self.deliver(out);
    }

    fn begin_faults(&mut self, now_us: u64) {
        while let Some(fault) = self.faults.get(self.next_fault).filter(|f| f.from_us <= now_us) {
            match (fault.what, &mut self.engine) {
                (FaultKind::Restart, Engine::Sflow(agent)) => agent.restart(fault.from_us),
                (FaultKind::Restart, Engine::Cache(cache)) => cache.restart(fault.from_us),
                (FaultKind::Sampling(rate), Engine::Sflow(agent)) => agent.set_rate(rate),
                (FaultKind::Sampling(rate), Engine::Cache(cache)) => cache.set_rate(rate),
                (FaultKind::NoTemplates, Engine::Cache(cache)) => {
                    cache.mute_templates(fault.to_us);
                }
                _ => {}
            }
            self.next_fault += 1;
        }
    }

    /// Passes datagrams on, less the lost ones.
    fn deliver(&mut self, out: &mut Vec<Datagram>) {
        for datagram in self.sent.drain(..) {
            let mut copies = 1;
            for fault in &self.faults {
                if fault.from_us > datagram.at_us || datagram.at_us >= fault.to_us {
                    continue;
                }
                match fault.what {
                    FaultKind::Loss(share) if self.rng.unit() < share => copies = 0,
                    FaultKind::Duplicate(share) if self.rng.unit() < share => copies *= 2,
                    _ => {}
                }
            }
            if copies == 2 {
                out.push(datagram.clone());
            }
            if copies > 0 {
                out.push(datagram);
            }
        }
    }
}
