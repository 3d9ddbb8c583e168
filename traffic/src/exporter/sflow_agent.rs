//! An sFlow agent: every packet counts, one in so many is sent with its header.

use std::net::IpAddr;

use weir_model::Direction;

use crate::encode::sflow::{self, FlowSample, InterfaceCounters};
use crate::encode::{frame, len32, low32};
use crate::exporter::{Datagram, EXTERNAL_IF, INTERNAL_IF, PAYLOAD_MAX, Sampler, interfaces};
use crate::packet::Packet;
use crate::rng::Rng;

/// How an agent samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// One packet in so many.
    pub rate: u32,
    /// Octets of each sampled frame that are sent; 128 is usual.
    pub header_bytes: usize,
    /// A sample waits at most so long for its datagram to fill, microseconds (at most a second by
    /// the protocol).
    pub delay_us: u64,
    /// Interface counters are sent every so many microseconds; 0 for never.
    pub counters_us: u64,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self { rate: 1000, header_bytes: 128, delay_us: 100_000, counters_us: 10_000_000 }
    }
}

/// One interface's ingress: a data source with its own pool and numbering.
#[derive(Debug)]
struct DataSource {
    sampler: Sampler,
    pool: u32,
    samples: u32,
    octets: u64,
    packets: u32,
}

/// A running agent.
#[derive(Debug)]
pub struct SflowAgent {
    config: AgentConfig,
    address: IpAddr,
    index: usize,
    boot_us: u64,
    datagrams: u32,
    counter_samples: u32,
    sources: [DataSource; 2],
    pending: Vec<FlowSample>,
    pending_len: usize,
    pending_since_us: u64,
    pending_attack: bool,
    counters_due_us: u64,
}

impl SflowAgent {
    /// Starts an agent that calls itself `address`.
    pub fn new(config: AgentConfig, address: IpAddr, index: usize, mut rng: Rng) -> Self {
        let mut source = || DataSource {
            sampler: Sampler::new(config.rate, Rng::new(rng.bits())),
            pool: 0,
            samples: 0,
            octets: 0,
            packets: 0,
        };
        Self {
            config,
            address,
            index,
            boot_us: 0,
            datagrams: 0,
            counter_samples: 0,
            sources: [source(), source()],
            pending: Vec::new(),
            pending_len: 0,
            pending_since_us: 0,
            pending_attack: false,
            counters_due_us: config.counters_us,
        }
    }

    /// A packet passes.
    pub fn packet(&mut self, packet: &Packet, out: &mut Vec<Datagram>) {
        let (input_if, output_if) = interfaces(packet.direction);
        let which = usize::from(packet.direction == Direction::Outbound);
        let source = &mut self.sources[which];
        source.pool = source.pool.wrapping_add(packet.count);
        source.packets = source.packets.wrapping_add(packet.count);
        source.octets += u64::from(packet.count) * u64::from(packet.length);
        for _ in 0..source.sampler.take(packet.count) {
            let source = &mut self.sources[which];
            source.samples = source.samples.wrapping_add(1);
            let mut header = Vec::with_capacity(self.config.header_bytes);
            frame::ethernet(&mut header, packet, self.config.header_bytes);
            let frame_length = len32(frame::ETHERNET + usize::from(packet.length)).max(60) + 4;
            let sample = FlowSample {
                sequence: source.samples,
                source: input_if,
                rate: source.sampler.rate(),
                pool: source.pool,
                drops: 0,
                input_if,
                output_if,
                frame_length,
                header,
            };
            let len = sample.len();
            if self.pending_len + len > PAYLOAD_MAX - sflow::header_len(self.address) {
                self.flush(packet.at_us, out);
            }
            if self.pending.is_empty() {
                self.pending_since_us = packet.at_us;
            }
            self.pending_len += len;
            self.pending_attack |= packet.is_attack();
            self.pending.push(sample);
        }
    }

    /// Sends what has waited long enough.
    pub fn advance(&mut self, now_us: u64, out: &mut Vec<Datagram>) {
        let due = self.pending_since_us + self.config.delay_us;
        if !self.pending.is_empty() && due <= now_us {
            self.flush(due, out);
        }
        while self.config.counters_us > 0 && self.counters_due_us <= now_us {
            let at = self.counters_due_us;
            self.counters_due_us += self.config.counters_us;
            self.send_counters(at, out);
        }
    }

    /// Starts anew: counters and uptime from zero, waiting samples gone.
    pub fn restart(&mut self, now_us: u64) {
        self.boot_us = now_us;
        self.datagrams = 0;
        self.counter_samples = 0;
        self.pending.clear();
        self.pending_len = 0;
        for source in &mut self.sources {
            source.pool = 0;
            source.samples = 0;
            source.octets = 0;
            source.packets = 0;
        }
    }

    /// Samples at another rate from now on.
    pub fn set_rate(&mut self, rate: u32) {
        for source in &mut self.sources {
            source.sampler.set_rate(rate);
        }
    }

    fn next_header(&mut self, at_us: u64) -> (u32, u32) {
        self.datagrams = self.datagrams.wrapping_add(1);
        (self.datagrams, low32(at_us.saturating_sub(self.boot_us) / 1000))
    }

    fn flush(&mut self, at_us: u64, out: &mut Vec<Datagram>) {
        if self.pending.is_empty() {
            return;
        }
        let (sequence, uptime_ms) = self.next_header(at_us);
        let payload = sflow::datagram(self.address, sequence, uptime_ms, &self.pending, &[]);
        out.push(Datagram { at_us, exporter: self.index, payload, attack: self.pending_attack });
        self.pending.clear();
        self.pending_len = 0;
        self.pending_attack = false;
    }

    fn send_counters(&mut self, at_us: u64, out: &mut Vec<Datagram>) {
        let (sequence, uptime_ms) = self.next_header(at_us);
        self.counter_samples = self.counter_samples.wrapping_add(1);
        let [inbound, outbound] = &self.sources;
        let counters = |interface, received: &DataSource, sent: &DataSource| InterfaceCounters {
            sequence: self.counter_samples,
            interface,
            speed: 100_000_000_000,
            in_octets: received.octets,
            in_packets: received.packets,
            out_octets: sent.octets,
            out_packets: sent.packets,
        };
        let payload = sflow::datagram(
            self.address,
            sequence,
            uptime_ms,
            &[],
            &[counters(EXTERNAL_IF, inbound, outbound), counters(INTERNAL_IF, outbound, inbound)],
        );
        out.push(Datagram { at_us, exporter: self.index, payload, attack: false });
    }
}
