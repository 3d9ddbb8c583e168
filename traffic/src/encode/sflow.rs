//! sFlow version 5 (sFlow.org, "sFlow Version 5", July 2004): XDR, everything in 4-octet words.

use std::net::IpAddr;

use crate::encode::{Put, len32};

/// One flow sample with a raw packet header (§5.3, data format 0/1 with flow data 0/1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSample {
    /// Number of this sample within its data source.
    pub sequence: u32,
    /// Data source: interface index.
    pub source: u32,
    /// Configured rate: one in so many.
    pub rate: u32,
    /// Packets that could have been sampled so far.
    pub pool: u32,
    /// Samples the agent had to drop so far.
    pub drops: u32,
    /// Interface of entry.
    pub input_if: u32,
    /// Interface of exit.
    pub output_if: u32,
    /// Octets of the frame on the wire, frame check sequence included.
    pub frame_length: u32,
    /// First octets of the Ethernet frame.
    pub header: Vec<u8>,
}

impl FlowSample {
    /// Octets in a datagram.
    pub const fn len(&self) -> usize {
        64 + self.header.len().next_multiple_of(4)
    }

    /// Never: a sample has a header of its own.
    pub const fn is_empty(&self) -> bool {
        false
    }

    fn write(&self, out: &mut Vec<u8>) {
        let padded = self.header.len().next_multiple_of(4);
        out.put32(1); // enterprise 0, format 1: flow sample
        out.put32(len32(8 * 4 + 2 * 4 + 4 * 4 + padded));
        out.put32(self.sequence);
        out.put32(self.source & 0x00ff_ffff); // source type 0: ifIndex
        out.put32(self.rate);
        out.put32(self.pool);
        out.put32(self.drops);
        out.put32(self.input_if);
        out.put32(self.output_if);
        out.put32(1); // flow records
        out.put32(1); // enterprise 0, format 1: raw packet header
        out.put32(len32(4 * 4 + padded));
        out.put32(1); // ETHERNET-ISO88023
        out.put32(self.frame_length);
        out.put32(4); // stripped: the frame check sequence
        out.put32(len32(self.header.len()));
        out.extend_from_slice(&self.header);
        out.resize(out.len() + padded - self.header.len(), 0);
    }
}

/// Generic interface counters (§5.4, data format 0/2 with counter data 0/1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Number of this sample within its data source.
    pub sequence: u32,
    /// Interface index.
    pub interface: u32,
    /// Speed, bits per second.
    pub speed: u64,
    /// Octets received.
    pub in_octets: u64,
    /// Packets received.
    pub in_packets: u32,
    /// Octets sent.
    pub out_octets: u64,
    /// Packets sent.
    pub out_packets: u32,
}

impl InterfaceCounters {
    /// Octets in a datagram.
    pub const LEN: usize = 8 + 3 * 4 + 8 + 88;

    fn write(&self, out: &mut Vec<u8>) {
        out.put32(2); // enterprise 0, format 2: counters sample
        out.put32(len32(Self::LEN - 8));
        out.put32(self.sequence);
        out.put32(self.interface & 0x00ff_ffff);
        out.put32(1); // counter records
        out.put32(1); // generic interface counters
        out.put32(88);
        out.put32(self.interface);
        out.put32(6); // ethernetCsmacd
        out.put64(self.speed);
        out.put32(1); // full duplex
        out.put32(3); // admin up, oper up
        out.put64(self.in_octets);
        out.put32(self.in_packets);
        out.extend_from_slice(&[0; 5 * 4]); // multicast, broadcast, discards, errors, unknown
        out.put64(self.out_octets);
        out.put32(self.out_packets);
        out.extend_from_slice(&[0; 5 * 4]); // multicast, broadcast, discards, errors; promiscuous
    }
}

/// Octets before the first sample for an agent with an address of this family.
pub const fn header_len(agent: IpAddr) -> usize {
    if agent.is_ipv4() { 28 } else { 40 }
}

/// One datagram (§5): samples as given, which the caller keeps below the path's MTU.
pub fn datagram(
    agent: IpAddr,
    sequence: u32,
    uptime_ms: u32,
    flows: &[FlowSample],
    counters: &[InterfaceCounters],
) -> Vec<u8> {
    let samples = flows.iter().map(FlowSample::len).sum::<usize>();
    let mut out =
        Vec::with_capacity(header_len(agent) + samples + counters.len() * InterfaceCounters::LEN);
    out.put32(5);
    out.put32(if agent.is_ipv4() { 1 } else { 2 });
    out.put_ip(agent);
    out.put32(0); // sub-agent
    out.put32(sequence);
    out.put32(uptime_ms);
    out.put32(len32(flows.len() + counters.len()));
    for flow in flows {
        flow.write(&mut out);
    }
    for counter in counters {
        counter.write(&mut out);
    }
    out
}
