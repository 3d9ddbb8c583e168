//! Writes datagrams as exporters do. Shared by tests and benchmarks.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic")]

pub mod mutate;
pub mod oracles;

use std::net::SocketAddr;
use std::sync::Arc;

use weir_collector::{Config, ExporterConfig, Registry, Shard};
use weir_model::{FlowRecord, Inventory, Millis, Service};

/// When the tests' datagrams arrive, unless they say otherwise.
pub const NOW: Millis = Millis(1_700_000_000_000);

pub fn router() -> SocketAddr {
    "192.0.2.1:50000".parse().unwrap()
}

/// Listens to 192.0.2.0/24.
pub fn config() -> Config {
    let address = "192.0.2.0/24".parse().unwrap();
    let router = ExporterConfig::new(address);
    Config { exporters: vec![router], ..Config::default() }
}

/// Protects 203.0.113.0/24 and 2001:db8:1::/48, with a FiveM server at 203.0.113.7.
pub fn inventory() -> Arc<Inventory> {
    let protected = ["203.0.113.0/24", "2001:db8:1::/48"];
    let protected = protected.iter().map(|n| n.parse::<ipnet::IpNet>().unwrap()).collect();
    let service = Service {
        address: "203.0.113.7".parse().unwrap(),
        protocol: 17,
        port: 30120,
        name: "one".into(),
        game: "fivem".into(),
    };
    Arc::new(Inventory::new(protected, Default::default(), vec![service]))
}

pub fn shard(config: &Config) -> Shard {
    Shard::new(0, config, inventory(), Arc::new(Registry::default()))
}

/// The records of one datagram.
pub fn records(shard: &mut Shard, datagram: &[u8], now: Millis) -> Vec<FlowRecord> {
    let mut out = Vec::new();
    let _ = shard.records(router(), datagram, now, |record| out.push(*record));
    out
}

/// Big-endian octets, written one after the other.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    pub fn u16(mut self, n: u16) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }
    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }
    pub fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

pub fn bytes() -> Bytes {
    Bytes::default()
}

/// A version 5 record: UDP from port 53, ten packets, 1000 octets.
pub fn v5_record(src: [u8; 4], dst: [u8; 4], dst_port: u16, first: u32, last: u32) -> Vec<u8> {
    let head = bytes().raw(&src).raw(&dst).raw(&[0; 8]).u32(10).u32(1000).u32(first).u32(last);
    head.u16(53).u16(dst_port).raw(&[0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0]).0
}

pub fn v5(uptime: u32, sampling: u16, sequence: u32, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap();
    let head = bytes().u16(5).u16(count).u32(uptime).u32(1_700_000_000).u32(0).u32(sequence);
    head.u16(0).u16(sampling).raw(&records.concat()).0
}

/// A set or flow set.
pub fn set(id: u16, body: &[u8]) -> Vec<u8> {
    bytes().u16(id).u16(u16::try_from(body.len() + 4).unwrap()).raw(body).0
}

/// A field specifier: number, length, enterprise (0 for none).
pub type Spec = (u16, u16, u32);

pub fn iana(fields: &[(u16, u16)]) -> Vec<Spec> {
    fields.iter().map(|(number, len)| (*number, *len, 0)).collect()
}

fn specs(fields: &[Spec]) -> Vec<u8> {
    let mut out = bytes();
    for (number, len, enterprise) in fields {
        out = if *enterprise == 0 {
            out.u16(*number).u16(*len)
        } else {
            out.u16(number | 0x8000).u16(*len).u32(*enterprise)
        };
    }
    out.0
}

/// A template record.
pub fn template(id: u16, fields: &[Spec]) -> Vec<u8> {
    let count = u16::try_from(fields.len()).unwrap();
    bytes().u16(id).u16(count).raw(&specs(fields)).0
}

/// An IPFIX options template record.
pub fn options_template(id: u16, scopes: u16, fields: &[Spec]) -> Vec<u8> {
    let count = u16::try_from(fields.len()).unwrap();
    bytes().u16(id).u16(count).u16(scopes).raw(&specs(fields)).0
}

/// A version 9 options template record.
pub fn v9_options_template(id: u16, scopes: &[Spec], fields: &[Spec]) -> Vec<u8> {
    let octets = |n: usize| u16::try_from(n * 4).unwrap();
    let head = bytes().u16(id).u16(octets(scopes.len())).u16(octets(fields.len()));
    head.raw(&specs(scopes)).raw(&specs(fields)).0
}

pub fn v9(uptime: u32, sequence: u32, source: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(sets.len()).unwrap();
    let head = bytes().u16(9).u16(count).u32(uptime).u32(1_700_000_000).u32(sequence);
    head.u32(source).raw(&sets.concat()).0
}

/// An IPFIX message exported at [`NOW`].
pub fn ipfix(sequence: u32, domain: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    ipfix_at(1_700_000_000, sequence, domain, sets)
}

pub fn ipfix_at(secs: u32, sequence: u32, domain: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    let len = u16::try_from(body.len() + 16).unwrap();
    bytes().u16(10).u16(len).u32(secs).u32(sequence).u32(domain).raw(&body).0
}

/// An sFlow datagram of agent 192.0.2.1 with samples of [`sflow_sample`].
pub fn sflow(sequence: u32, samples: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(samples.len()).unwrap();
    let head = bytes().u32(5).u32(1).raw(&[192, 0, 2, 1]).u32(0).u32(sequence).u32(1000);
    head.u32(count).raw(&samples.concat()).0
}

/// A tagged, counted body, padded to four octets.
pub fn tlv(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    bytes().u32(kind).u32(u32::try_from(body.len()).unwrap()).raw(body).raw(&padding).0
}

/// A flow sample: sequence number, rate, pool, and records.
pub fn flow_sample(sequence: u32, rate: u32, pool: u32, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(records.len()).unwrap();
    let head = bytes().u32(sequence).u32(3).u32(rate).u32(pool).u32(0).u32(1).u32(2);
    tlv(1, &head.u32(count).raw(&records.concat()).0)
}

/// A raw packet header record.
pub fn raw_header(protocol: u32, wire_len: u32, header: &[u8]) -> Vec<u8> {
    let len = u32::try_from(header.len()).unwrap();
    let padding = vec![0; header.len().next_multiple_of(4) - header.len()];
    tlv(1, &bytes().u32(protocol).u32(wire_len).u32(4).u32(len).raw(header).raw(&padding).0)
}

/// An IPv4 header with `body` behind it.
pub fn ipv4(protocol: u8, src: [u8; 4], dst: [u8; 4], body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 20).unwrap();
    let head = bytes().u16(0x4500).u16(len).u32(0).u8(64).u8(protocol).u16(0);
    head.raw(&src).raw(&dst).raw(body).0
}

/// An IPv6 header with `body` behind it; addresses are 2001:db8:1::`n`.
pub fn ipv6(next: u8, src: u8, dst: u8, body: &[u8]) -> Vec<u8> {
    let address = |n| [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let len = u16::try_from(body.len()).unwrap();
    let head = bytes().u32(0x6000_0000).u16(len).u8(next).u8(64);
    head.raw(&address(src)).raw(&address(dst)).raw(body).0
}

pub fn udp(src: u16, dst: u16, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 8).unwrap();
    bytes().u16(src).u16(dst).u16(len).u16(0).raw(body).0
}

/// An Ethernet header with `body` behind it.
pub fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    bytes().raw(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]).u16(kind).raw(body).0
}
