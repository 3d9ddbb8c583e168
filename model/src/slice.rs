//! What a shard hands to the core every 100 ms: destinations touched, added up, and a sample of the
//! records themselves for evidence.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{FlowRecord, Fragment, Millis, tcp_flags};

/// Slots of arrival back to which sums are told slot by slot. What passed earlier is added up by whole
/// seconds, so that a host has a bounded number of entries in a slice however late its flows are
/// exported.
pub const FINE_SLOTS: u64 = 30;

/// Kind of packet as far as volume tests tell packets apart. Each packet belongs to exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Class {
    /// TCP with SYN and without ACK.
    TcpSyn,
    /// TCP with SYN and ACK.
    TcpSynAck,
    /// TCP with RST and without SYN.
    TcpRst,
    /// Any other TCP, also where the exporter gives no flags.
    TcpOther,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// Fragments after the first, whatever the protocol.
    Fragment,
    /// Any other protocol.
    Other,
}

impl Class {
    /// Number of classes.
    pub const COUNT: usize = 8;
    /// All classes in index order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::TcpSyn,
        Self::TcpSynAck,
        Self::TcpRst,
        Self::TcpOther,
        Self::Udp,
        Self::Icmp,
        Self::Fragment,
        Self::Other,
    ];

    /// The class of a record's packets. A flow that or-ed SYN with ACK and ran on (more than one
    /// packet) is an ordinary connection seen from its first packet, not a SYN-ACK.
    pub const fn of(record: &FlowRecord) -> Self {
        if matches!(record.fragment, Fragment::Later) {
            return Self::Fragment;
        }
        match record.protocol {
            6 => {
                let flags = record.tcp_flags;
                let syn = flags & tcp_flags::SYN != 0;
                let ack = flags & tcp_flags::ACK != 0;
                if syn && !ack {
                    Self::TcpSyn
                } else if syn && record.packets <= 1 {
                    Self::TcpSynAck
                } else if !syn && flags & tcp_flags::RST != 0 {
                    Self::TcpRst
                } else {
                    Self::TcpOther
                }
            }
            17 => Self::Udp,
            1 | 58 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// Packets and octets, multiplied by the sampling rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassVolume {
    /// Packets.
    pub packets: u64,
    /// Layer-3 octets.
    pub bytes: u64,
}

impl ClassVolume {
    /// Adds, staying at the maximum on overflow.
    pub const fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// One protected host in one slot of event time.
///
/// What every record changes stands together: adding a record to a host that is not in the cache costs
/// two neighbouring cache lines, not three far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSlice {
    /// The protected address.
    pub host: IpAddr,
    /// The 100 ms slot (since the epoch) in which the packets passed the router; at most the
    /// slice's own.
    pub slot: u64,
    /// Sum over inbound records of packets x rate^2: divides the square of the packets to give
    /// the effective number of samples (see [`HostSlice::samples`]).
    pub variance: u64,
    /// Linear-counting bitmap of inbound source addresses: bit = hash mod 64.
    pub sources: u64,
    /// Towards the host, by [`Class`] index. Packets that the router reported as dropped are not
    /// in here but in `dropped`.
    pub inbound: [ClassVolume; Class::COUNT],
    /// From the host, all classes.
    pub outbound: ClassVolume,
    /// SYNs from the host: a scan or flood by it shows here.
    pub outbound_syn: u64,
    /// Towards the host, reported as already discarded by the router.
    pub dropped: ClassVolume,
}

impl HostSlice {
    /// Nothing seen yet.
    pub const fn empty(host: IpAddr, slot: u64) -> Self {
        const NONE: ClassVolume = ClassVolume { packets: 0, bytes: 0 };
        Self {
            host,
            slot,
            inbound: [NONE; Class::COUNT],
            outbound: NONE,
            outbound_syn: 0,
            dropped: NONE,
            variance: 0,
            sources: 0,
        }
    }

    /// Everything towards the host.
    pub fn total(&self) -> ClassVolume {
        self.inbound.iter().fold(ClassVolume::default(), |mut sum, v| {
            sum.add(*v);
            sum
        })
    }

    /// The number of equal samples that would give the packet estimate the same relative error:
    /// `packets^2 / variance`. At one rate N this is the number of packets sampled.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    pub fn samples(&self) -> f64 {
        if self.variance == 0 {
            return 0.0;
        }
        let packets = self.total().packets as f64;
        packets * packets / self.variance as f64
    }
}

/// One declared service port of a protected host in one slot of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSlice {
    /// The protected address.
    pub host: IpAddr,
    /// IP protocol, 6 or 17.
    pub protocol: u8,
    /// The service's port.
    pub port: u16,
    /// As in [`HostSlice::slot`].
    pub slot: u64,
    /// Towards the port.
    pub inbound: ClassVolume,
    /// From the port.
    pub outbound: ClassVolume,
    /// As in [`HostSlice::variance`], for `inbound`.
    pub variance: u64,
    /// As in [`HostSlice::sources`].
    pub sources: u64,
}

/// What a metric of an operator's own counts of one host in one slot of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSlice {
    /// The protected address.
    pub host: IpAddr,
    /// Number of the metric.
    pub metric: u8,
    /// As in [`HostSlice::slot`].
    pub slot: u64,
    /// Packets and octets that it means, in its direction.
    pub volume: ClassVolume,
    /// As in [`HostSlice::variance`], for `volume`.
    pub variance: u64,
}

/// A flow too long to stand in one slot. Its volume belongs evenly to `[start, end]`; a detector
/// that credited it to the moment of export would see one-minute exports as sixty-fold peaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongFlow {
    /// The protected address.
    pub host: IpAddr,
    /// Towards or from it.
    pub outbound: bool,
    /// Class of its packets.
    pub class: Class,
    /// IP protocol.
    pub protocol: u8,
    /// The declared service port it belongs to, 0 for none.
    pub service_port: u16,
    /// First packet.
    pub start: Millis,
    /// Last packet.
    pub end: Millis,
    /// Packets and octets, scaled.
    pub volume: ClassVolume,
    /// As in [`HostSlice::variance`].
    pub variance: u64,
    /// Numbers of the metrics of an operator's own that mean it, as bits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metrics: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(bits: &u16) -> bool {
    *bits == 0
}

impl LongFlow {
    /// Its volume and variance by second since the epoch.
    pub fn by_second(&self) -> impl Iterator<Item = (u64, ClassVolume, u64)> + use<> {
        let Self { volume, variance, .. } = *self;
        seconds_of(self.start, self.end)
            .map(move |(second, share)| (second, share.of_volume(volume), share.of(variance)))
    }
}

/// What a live flow is expected to carry until its exporter speaks of it again: a reading of the
/// present, where an exporter with an active timeout of a minute would leave a minute of silence.
/// Nothing of it has been exported, so it must not raise an alarm, end one, or become normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// The protected address.
    pub host: IpAddr,
    /// Towards or from it.
    pub outbound: bool,
    /// Takes back what was expected of this time: it has been exported by now, or did not come.
    pub settled: bool,
    /// From here ...
    pub start: Millis,
    /// ... to here, evenly.
    pub end: Millis,
    /// Packets and octets, scaled.
    pub volume: ClassVolume,
}

impl Expectation {
    /// Its volume by second since the epoch.
    pub fn by_second(&self) -> impl Iterator<Item = (u64, ClassVolume)> + use<> {
        let volume = self.volume;
        seconds_of(self.start, self.end)
            .map(move |(second, share)| (second, share.of_volume(volume)))
    }
}

/// A part of a time span, in milliseconds from its start.
#[derive(Clone, Copy, Debug)]
struct Share {
    from: u64,
    to: u64,
    of: u64,
}

impl Share {
    /// This part's share of a number; the shares of all parts add up to it.
    fn of(self, total: u64) -> u64 {
        let until = |ms: u64| u128::from(total) * u128::from(ms) / u128::from(self.of);
        u64::try_from(until(self.to) - until(self.from)).unwrap_or(u64::MAX)
    }

    fn of_volume(self, total: ClassVolume) -> ClassVolume {
        ClassVolume { packets: self.of(total.packets), bytes: self.of(total.bytes) }
    }
}

/// The seconds since the epoch that a time span touches, each with its share of it. By the
/// millisecond: by whole seconds, the second in which one record ends and the next begins would
/// count twice.
fn seconds_of(start: Millis, end: Millis) -> impl Iterator<Item = (u64, Share)> {
    let length = end.since(start).max(1);
    let last = (start + (length - 1)).secs();
    (start.secs()..=last).map(move |second| {
        let from = Millis::from_secs(second).since(start);
        let to = Millis::from_secs(second + 1).since(start).min(length);
        (second, Share { from, to, of: length })
    })
}

/// A record kept as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sample {
    /// The record itself.
    pub record: FlowRecord,
    /// How many records of the slice it stands for (1 = every record was kept).
    pub weight: u32,
}

/// What one shard saw in 100 ms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Which shard.
    pub shard: u16,
    /// The slot of arrival this slice closes.
    pub slot: u64,
    /// Nothing from before this instant is still to come: what was exported with the learned lag
    /// of the slowest exporter has arrived. Alarms may use partial sums; endings, baselines and
    /// reports wait for it.
    pub watermark: Millis,
    /// Protected hosts touched.
    pub hosts: Vec<HostSlice>,
    /// Declared service ports touched.
    pub services: Vec<ServiceSlice>,
    /// What metrics of an operator's own count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSlice>,
    /// By which metrics: [`crate::OwnMetrics::key`]. Numbers of others mean nothing here.
    #[serde(default, skip_serializing_if = "no_metrics")]
    pub metrics_key: u64,
    /// Flows that span more than a second.
    pub long_flows: Vec<LongFlow>,
    /// What live long flows are expected to carry, and what is no longer.
    #[serde(default)]
    pub expected: Vec<Expectation>,
    /// Hosts of which something was told that had waited for its template, and until when that passed. It
    /// says what is normal; no alarm may rest on it.
    #[serde(default)]
    pub waited: Vec<(IpAddr, Millis)>,
    /// A bounded sample of the records about protected hosts.
    pub samples: Vec<Sample>,
    /// Slices that were dropped before this one because the core was slow.
    pub lost_slices: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn no_metrics(key: &u64) -> bool {
    *key == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(start: u64, end: u64, bytes: u64) -> Vec<(u64, u64)> {
        let volume = ClassVolume { packets: bytes / 100, bytes };
        let expectation = Expectation {
            host: IpAddr::from([192, 0, 2, 1]),
            outbound: false,
            settled: false,
            start: Millis(start),
            end: Millis(end),
            volume,
        };
        expectation.by_second().map(|(second, volume)| (second, volume.bytes)).collect()
    }

    #[test]
    fn a_span_is_shared_out_by_the_millisecond() {
        assert_eq!(expected(500, 2500, 2000), [(0, 500), (1, 1000), (2, 500)]);
        // An end on the second does not touch it.
        assert_eq!(expected(1000, 2000, 7), [(1, 7)]);
        assert_eq!(expected(1500, 1500, 7), [(1, 7)]);
        let sum: u64 = expected(17, 60_019, 1_000_003).iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, 1_000_003);
    }
}
