//! A router's flow cache: packets are added up per flow until a timeout, then exported.
//!
//! What collectors suffer from is all here: a long flow is reported late and in one piece, a
//! spoofed flood makes a flow of each packet, a full cache throws out what was idle longest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use weir_model::{Fragment, tcp_flags};

use crate::encode::template::{self, Contents, SamplingStyle, Version};
use crate::encode::{Flow, netflow_v5};
use crate::exporter::{Datagram, PAYLOAD_MAX, Sampler, interfaces};
use crate::packet::Packet;
use crate::rng::Rng;

/// Which protocol a cache exports by, and how it announces its sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheVersion {
    /// NetFlow version 5: the rate is in each header; IPv6 is not exported.
    V5,
    /// NetFlow version 9.
    V9(SamplingStyle),
    /// IPFIX.
    Ipfix(SamplingStyle),
}

/// How a cache works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Protocol.
    pub version: CacheVersion,
    /// One packet in so many is looked at; 1 for all.
    pub sampling: u32,
    /// A flow that goes on is exported after so long, microseconds.
    pub active_us: u64,
    /// A flow that paused is exported after so long, microseconds.
    pub inactive_us: u64,
    /// Flows held at once; beyond, the one that is due first is exported early.
    pub flows_max: usize,
    /// A record waits at most so long for its datagram to fill, microseconds.
    pub flush_us: u64,
    /// Time from the decision to export to the wire, microseconds.
    pub lag_us: u64,
    /// Templates and options are repeated every so many microseconds.
    pub refresh_us: u64,
    /// Source id or observation domain.
    pub domain: u32,
    /// Whether records tell the shortest and longest packet and time to live (v9 and IPFIX).
    pub extremes: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            version: CacheVersion::V9(SamplingStyle::Domain),
            sampling: 1,
            active_us: 60_000_000,
            inactive_us: 15_000_000,
            flows_max: 262_144,
            flush_us: 500_000,
            lag_us: 20_000,
            refresh_us: 20_000_000,
            domain: 0,
            extremes: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    protocol: u8,
    /// Ports are hidden in later fragments, and types are ports of a kind in ICMP.
    kind: (bool, u8, u8),
}

#[derive(Debug)]
struct Entry {
    key: Key,
    flow: Flow,
    first_us: u64,
    last_us: u64,
    attack: bool,
    generation: u32,
}

/// A running cache.
#[derive(Debug)]
pub struct FlowCache {
    config: CacheConfig,
    index: usize,
    epoch_ms: u64,
    boot_ms: u64,
    sampler: Sampler,
    flows: FxHashMap<Key, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// When an entry may be due; stale ones are put back or dropped when they come up.
    due: BinaryHeap<Reverse<(u64, u32, u32)>>,
    pending: Vec<Flow>,
    pending_since_us: u64,
    pending_attack: bool,
    sequence: u32,
    refresh_due_us: u64,
    muted_until_us: u64,
}

impl FlowCache {
    /// Starts a cache, number `index` of its scene, whose clock reads `epoch_ms` at time 0.
    pub fn new(config: CacheConfig, index: usize, epoch_ms: u64, rng: Rng) -> Self {
        Self {
            config,
            index,
            epoch_ms,
            // A router that has been up for a day: uptime stamps of flows before its start do not occur.
            boot_ms: epoch_ms.saturating_sub(86_400_000),
            sampler: Sampler::new(config.sampling, rng),
            flows: FxHashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            pending: Vec::new(),
            pending_since_us: 0,
            pending_attack: false,
            sequence: 0,
            refresh_due_us: 0,
            muted_until_us: 0,
        }
    }

    /// A packet passes.
    pub fn packet(&mut self, packet: &Packet, out: &mut Vec<Datagram>) {
        self.advance(packet.at_us, out);
        let count = self.sampler.take(packet.count);
        if count == 0 || (self.config.version == CacheVersion::V5 && packet.src.is_ipv6()) {
            return;
        }
        let key = Key {
            src: packet.src,
            dst: packet.dst,
            ports: (packet.src_port, packet.dst_port),
            protocol: packet.protocol,
            kind: (packet.fragment == Fragment::Later, packet.icmp_type, packet.icmp_code),
        };
        let slot = match self.flows.get(&key) {
            Some(slot) => *slot,
            None => self.open(key, packet, out),
        };
        let entry = &mut self.entries[slot as usize];
        entry.last_us = packet.at_us;
        entry.attack |= packet.is_attack();
        let flow = &mut entry.flow;
        flow.packets += u64::from(count);
        flow.bytes += u64::from(count) * u64::from(packet.length);
        flow.tcp_flags |= packet.tcp_flags;
        flow.length_min = flow.length_min.min(packet.length);
        flow.length_max = flow.length_max.max(packet.length);
        flow.ttl_min = flow.ttl_min.min(packet.ttl);
        flow.ttl_max = flow.ttl_max.max(packet.ttl);
        if packet.protocol == 6 && packet.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            self.export(slot, packet.at_us, out);
        }
    }

    /// Sends what is due.
    pub fn advance(&mut self, now_us: u64, out: &mut Vec<Datagram>) {
        while let Some(&Reverse((due_us, slot, generation))) = self.due.peek() {
            if due_us > now_us {
                break;
            }
            self.due.pop();
            let entry = &self.entries[slot as usize];
            if entry.generation != generation {
                continue;
            }
            let true_due = self.due_of(entry);
            if true_due > due_us {
                self.due.push(Reverse((true_due, slot, generation)));
            } else {
                self.export(slot, due_us, out);
            }
        }
        let flush_due = self.pending_since_us + self.config.flush_us;
        if !self.pending.is_empty() && flush_due <= now_us {
            self.flush(flush_due, out);
        }
        if self.refresh_due_us <= now_us && self.config.version != CacheVersion::V5 {
            self.flush(now_us, out);
            self.send(now_us, Contents { templates: true, sampling: true }, out);
            self.refresh_due_us = now_us + self.config.refresh_us;
        }
    }

    /// Starts anew: the cache's content is lost, uptime and sequence numbers begin at zero.
    pub fn restart(&mut self, now_us: u64) {
        self.flows.clear();
        self.due.clear();
        self.free.clear();
        self.entries.clear();
        self.pending.clear();
        self.pending_attack = false;
        self.sequence = 0;
        self.boot_ms = self.epoch_ms + now_us / 1000;
        self.refresh_due_us = now_us;
    }

    /// Samples at another rate from now on; announced with the next refresh, as routers do.
    pub fn set_rate(&mut self, rate: u32) {
        self.sampler.set_rate(rate);
        self.refresh_due_us = 0;
    }

    /// Sends neither templates nor options until then.
    pub fn mute_templates(&mut self, until_us: u64) {
        self.muted_until_us = until_us;
        self.refresh_due_us = until_us;
    }

    /// Flows held now.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether no flow is held.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    const fn due_of(&self, entry: &Entry) -> u64 {
        let active = entry.first_us + self.config.active_us;
        let inactive = entry.last_us + self.config.inactive_us;
        if active < inactive { active } else { inactive }
    }

    fn open(&mut self, key: Key, packet: &Packet, out: &mut Vec<Datagram>) -> u32 {
        if self.flows.len() >= self.config.flows_max {
            self.evict(packet.at_us, out);
        }
        let (input_if, output_if) = interfaces(packet.direction);
        let flow = Flow {
            src: packet.src,
            dst: packet.dst,
            src_port: packet.src_port,
            dst_port: packet.dst_port,
            protocol: packet.protocol,
            tcp_flags: 0,
            icmp_type: packet.icmp_type,
            icmp_code: packet.icmp_code,
            packets: 0,
            bytes: 0,
            length_min: u16::MAX,
            length_max: 0,
            ttl_min: u8::MAX,
            ttl_max: 0,
            fragment: packet.fragment,
            first_ms: 0,
            last_ms: 0,
            input_if,
            output_if,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                key,
                flow,
                first_us: 0,
                last_us: 0,
                attack: false,
                generation: 0,
            });
            u32::try_from(self.entries.len() - 1).expect("fewer flows than 2^32")
        });
        let entry = &mut self.entries[slot as usize];
        let generation = entry.generation.wrapping_add(1);
        *entry = Entry {
            key,
            flow,
            first_us: packet.at_us,
            last_us: packet.at_us,
            attack: false,
            generation,
        };
        let due = self.due_of(&self.entries[slot as usize]);
        self.due.push(Reverse((due, slot, generation)));
        self.flows.insert(key, slot);
        slot
    }

    /// Makes room: exports the flow whose time comes first.
    fn evict(&mut self, now_us: u64, out: &mut Vec<Datagram>) {
        while let Some(Reverse((_, slot, generation))) = self.due.pop() {
            if self.entries[slot as usize].generation == generation {
                self.export(slot, now_us, out);
                return;
            }
        }
    }

    fn export(&mut self, slot: u32, at_us: u64, out: &mut Vec<Datagram>) {
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.flow.first_ms = self.epoch_ms + entry.first_us / 1000;
        entry.flow.last_ms = self.epoch_ms + entry.last_us / 1000;
        let (flow, attack) = (entry.flow, entry.attack);
        self.flows.remove(&entry.key);
        self.free.push(slot);
        if self.pending.is_empty() {
            self.pending_since_us = at_us;
        }
        self.pending.push(flow);
        self.pending_attack |= attack;
        if self.pending.len() >= self.records_max() {
            self.flush(at_us, out);
        }
    }

    /// Records that fit a datagram, whatever their family.
    fn records_max(&self) -> usize {
        match self.config.version {
            CacheVersion::V5 => netflow_v5::RECORDS_MAX,
            CacheVersion::V9(_) | CacheVersion::Ipfix(_) => {
                let ipv6 = self.pending.iter().any(|f| f.src.is_ipv6());
                (PAYLOAD_MAX - 40) / self.header(0).record_len(!ipv6)
            }
        }
    }

    fn header(&self, at_us: u64) -> template::Header {
        let (version, style) = match self.config.version {
            CacheVersion::V9(style) => (Version::V9, style),
            CacheVersion::Ipfix(style) => (Version::Ipfix, style),
            CacheVersion::V5 => (Version::V9, SamplingStyle::None),
        };
        template::Header {
            version,
            now_ms: self.epoch_ms + (at_us + self.config.lag_us) / 1000,
            boot_ms: self.boot_ms,
            sequence: self.sequence,
            domain: self.config.domain,
            sampling: self.sampler.rate(),
            style,
            extremes: self.config.extremes,
        }
    }

    fn flush(&mut self, at_us: u64, out: &mut Vec<Datagram>) {
        if !self.pending.is_empty() {
            self.send(at_us, Contents::default(), out);
        }
    }

    fn send(&mut self, at_us: u64, mut contents: Contents, out: &mut Vec<Datagram>) {
        let header = self.header(at_us);
        if at_us < self.muted_until_us {
            contents = Contents::default();
        }
        let empty = self.pending.is_empty();
        if empty && contents == Contents::default() {
            return;
        }
        let payload = if self.config.version == CacheVersion::V5 {
            let header = netflow_v5::Header {
                now_ms: header.now_ms,
                boot_ms: header.boot_ms,
                sequence: self.sequence,
                engine: 0,
                sampling: u16::try_from(header.sampling).unwrap_or(0x3fff),
            };
            let records = u32::try_from(self.pending.len()).unwrap_or(0);
            self.sequence = self.sequence.wrapping_add(records);
            netflow_v5::datagram(&header, &self.pending)
        } else {
            let (payload, step) = template::datagram(&header, contents, &self.pending);
            self.sequence = self.sequence.wrapping_add(step);
            payload
        };
        out.push(Datagram {
            at_us: at_us + self.config.lag_us,
            exporter: self.index,
            payload,
            attack: self.pending_attack,
        });
        self.pending.clear();
        self.pending_attack = false;
    }
}
