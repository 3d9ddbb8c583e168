//! Flow records as they are archived, the form in which they go there, and questions about them.
//!
//! The process that keeps the archive (`weir-flows`) is spoken to over a local socket. The first octet says what for:
//! [`RECORDS`] or [`QUESTION`].
//!
//! ```text
//! records:   'R' { length u32 | lost u64 | ArchivedFlow x n }*
//! question:  'Q' length u32 | FlowQuery as JSON  ->  length u32 | FlowAnswer, or {"error": ..}, as JSON
//! ```
//! Numbers are little-endian. A length counts what follows it.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{FlowRecord, Forwarding};

/// First octet of a connection that brings records.
pub const RECORDS: u8 = b'R';

/// First octet of a connection that asks.
pub const QUESTION: u8 = b'Q';

/// An address as 128 bits, IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2): one order for both families.
pub const fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of such bits.
pub const fn address_of(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).to_canonical()
}

/// One record as it is archived. Counts are not yet multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArchivedFlow {
    /// Last packet, milliseconds since the epoch, on weir's clock.
    pub end: u64,
    /// First packet, milliseconds since the epoch, on weir's clock.
    pub start: u64,
    /// Who exported it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub exporter: IpAddr,
    /// Interface index of entry, 0 when not said.
    pub in_if: u32,
    /// Interface index of exit, 0 when not said.
    pub out_if: u32,
    /// Source address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub src: IpAddr,
    /// Destination address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port; for ICMP 256 times the type, plus the code.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP control bits, or-ed.
    pub tcp_flags: u8,
    /// 0 not said, 1 forwarded, 2 discarded by the router.
    pub forwarding: u8,
    /// Layer-3 octets as exported.
    pub octets: u64,
    /// Packets as exported.
    pub packets: u64,
    /// One in how many packets the exporter looked at.
    pub sampling: u32,
    /// One in how many records the archive kept at that time.
    pub thinned: u32,
}

impl ArchivedFlow {
    /// Octets of the wire form.
    pub const OCTETS: usize = 100;

    /// What a record says, of an exporter.
    pub fn of(record: &FlowRecord, exporter: IpAddr) -> Self {
        let icmp = u16::from_be_bytes([record.icmp_type, record.icmp_code]);
        Self {
            end: record.end.0,
            start: record.start.0,
            exporter,
            in_if: record.input_if,
            out_if: record.output_if,
            src: record.src,
            dst: record.dst,
            src_port: record.src_port,
            dst_port: if matches!(record.protocol, 1 | 58) { icmp } else { record.dst_port },
            protocol: record.protocol,
            tcp_flags: record.tcp_flags,
            forwarding: match record.forwarding {
                Forwarding::Unknown => 0,
                Forwarding::Forwarded => 1,
                Forwarding::Dropped => 2,
            },
            octets: record.bytes,
            packets: record.packets,
            sampling: record.sampling,
            thinned: 1,
        }
    }

    /// By how much its counts are multiplied.
    pub const fn factor(&self) -> u64 {
        (self.sampling as u64).saturating_mul(self.thinned as u64)
    }

    /// Appends the wire form. How much the archive thins is not in it.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut wire = [0; Self::OCTETS];
        let mut at = 0;
        let mut field = |octets: &[u8]| {
            wire[at..at + octets.len()].copy_from_slice(octets);
            at += octets.len();
        };
        for number in [self.start, self.end, self.packets, self.octets] {
            field(&number.to_le_bytes());
        }
        for address in [self.exporter, self.src, self.dst] {
            field(&bits_of(address).to_le_bytes());
        }
        for number in [self.in_if, self.out_if, self.sampling] {
            field(&number.to_le_bytes());
        }
        field(&self.src_port.to_le_bytes());
        field(&self.dst_port.to_le_bytes());
        field(&[self.protocol, self.tcp_flags, self.forwarding, 0]);
        out.extend_from_slice(&wire);
    }

    /// Reads the wire form; nothing when there is less than one.
    pub fn read(wire: &[u8]) -> Option<Self> {
        let wire: &[u8; Self::OCTETS] = wire.get(..Self::OCTETS)?.try_into().ok()?;
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| wire[at + i]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| wire[at + i]));
        let short = |at: usize| u16::from_le_bytes([wire[at], wire[at + 1]]);
        let address =
            |at: usize| address_of(u128::from_le_bytes(std::array::from_fn(|i| wire[at + i])));
        Some(Self {
            start: long(0),
            end: long(8),
            packets: long(16),
            octets: long(24),
            exporter: address(32),
            src: address(48),
            dst: address(64),
            in_if: word(80),
            out_if: word(84),
            sampling: word(88),
            src_port: short(92),
            dst_port: short(94),
            protocol: wire[96],
            tcp_flags: wire[97],
            forwarding: wire[98],
            thinned: 1,
        })
    }
}

/// What the busiest groups are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum FlowOrder {
    /// Octets.
    #[default]
    Octets,
    /// Packets.
    Packets,
    /// Flow records.
    Records,
}

/// A question to the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowQuery {
    /// Which records: `dst net 203.0.113.0/24 and proto udp and src port 53`. All when empty.
    #[cfg_attr(feature = "schema", schema(max_length = 4096))]
    pub filter: String,
    /// Those whose last packet was at or after this, milliseconds since the epoch; an hour before `to`
    /// when absent.
    pub from: Option<u64>,
    /// Those whose last packet was before this, milliseconds since the epoch; now when absent.
    pub to: Option<u64>,
    /// Dimensions to group by, at most 4: `src`, `dst`, `src/24`, `dst/24/48`, `src-port`, `dst-port`,
    /// `proto`, `flags`, `exporter`, `in-if`, `out-if`.
    #[cfg_attr(feature = "schema", schema(max_items = 4))]
    pub by: Vec<String>,
    /// How many groups or records to show: 10 when absent, at most 10,000.
    pub top: Option<u32>,
    /// By what the groups are sorted.
    pub order: FlowOrder,
    /// Length of a step of a time series, seconds; no series when absent.
    pub every: Option<u32>,
    /// Show the records themselves, earliest first, instead of sums.
    pub records: bool,
}

/// Sums over records: counts multiplied by sampling and thinning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowSums {
    /// Layer-3 octets.
    pub octets: u64,
    /// Packets.
    pub packets: u64,
    /// Flow records, those that thinning left out not included.
    pub records: u64,
}

impl FlowSums {
    /// Adds another sum.
    pub const fn add(&mut self, other: Self) {
        self.octets = self.octets.saturating_add(other.octets);
        self.packets = self.packets.saturating_add(other.packets);
        self.records = self.records.saturating_add(other.records);
    }
}

/// One step of a time series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowPoint {
    /// Its beginning, milliseconds since the epoch.
    pub at: u64,
    /// What it carried.
    #[serde(flatten)]
    pub sums: FlowSums,
}

/// One group of records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowGroup {
    /// Its values, in the order of the question's dimensions.
    pub key: Vec<String>,
    /// What it carried.
    #[serde(flatten)]
    pub sums: FlowSums,
    /// Its time series, steps without records left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<FlowPoint>,
    /// The rate below which 95 % of the steps are, in bits per second, steps without records included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_bits_per_sec: Option<f64>,
}

/// How the archive is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArchiveState {
    /// Last packet of the oldest record, milliseconds since the epoch; absent when there is none.
    pub since: Option<u64>,
    /// Files.
    pub files: u64,
    /// Octets on disk, the open log included.
    pub octets: u64,
    /// Records taken in since the process began.
    pub taken: u64,
    /// Records that weir or the archive had no room for, since then.
    pub lost: u64,
    /// Records left out by thinning, since then.
    pub thinned: u64,
    /// One in how many records is kept now.
    pub keep_one_in: u32,
    /// What the disk refused last; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What the archive answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowAnswer {
    /// Beginning of the time looked at, milliseconds since the epoch.
    pub from: u64,
    /// Its end, exclusive.
    pub to: u64,
    /// What all records that fit carried.
    pub total: FlowSums,
    /// The largest groups; one without dimensions.
    pub groups: Vec<FlowGroup>,
    /// How many groups there are.
    pub groups_all: u64,
    /// The records, when they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<ArchivedFlow>,
    /// Largest thinning among the records that fit: sums are estimates when it is above 1.
    pub thinned: u32,
    /// Records looked at.
    pub looked_at: u64,
    /// Files of this time that could not be read: the answer lacks what they hold.
    #[serde(default)]
    pub unread: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// How the archive is.
    pub archive: ArchiveState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_wire() {
        let record = FlowRecord {
            src: "2001:db8::1".parse().unwrap(),
            dst: "203.0.113.7".parse().unwrap(),
            protocol: 1,
            icmp_type: 3,
            icmp_code: 4,
            bytes: u64::MAX,
            sampling: 4000,
            forwarding: Forwarding::Dropped,
            ..FlowRecord::EMPTY
        };
        let flow = ArchivedFlow::of(&record, "192.0.2.1".parse().unwrap());
        let mut wire = Vec::new();
        flow.put(&mut wire);
        assert_eq!(wire.len(), ArchivedFlow::OCTETS);
        assert_eq!(ArchivedFlow::read(&wire), Some(flow));
        assert_eq!((flow.dst_port, flow.forwarding), (0x0304, 2));
        assert_eq!(ArchivedFlow::read(&wire[1..]), None);
    }
}
