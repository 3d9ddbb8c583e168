//! Information elements that weir reads, and what a record makes of them.
//!
//! Numbers are those of IANA's IPFIX registry; NetFlow v9 uses the same up to 127 (RFC 3954 §8).

use crate::sampling::SamplingFields;

/// Which element a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// Of IANA's registry; in version 9 also vendors' own numbers above 0x8000.
    Iana(u16),
    /// Of a private enterprise.
    Enterprise { enterprise: u32, number: u16 },
    /// A scope type of version 9 (RFC 3954 §6.1).
    V9Scope(u16),
}

/// IANA's own enterprise number for the opposite direction of a biflow (RFC 5103 §6.1).
const REVERSE: u32 = 29305;
const JUNIPER: u32 = 2636;

/// What a field is to weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Target {
    Skip,
    Src4,
    Dst4,
    Src6,
    Dst6,
    SrcPort,
    DstPort,
    Protocol,
    TcpFlags,
    IcmpTypeCode,
    IcmpType,
    IcmpCode,
    Ttl,
    FragmentOffset,
    FragmentFlags,
    LengthMin,
    LengthMax,
    Bytes,
    TotalBytes,
    OutBytes,
    InitiatorBytes,
    Layer2Bytes,
    Packets,
    TotalPackets,
    OutPackets,
    InitiatorPackets,
    ReverseBytes,
    ReversePackets,
    ReverseTcpFlags,
    InputIf,
    OutputIf,
    Forwarding,
    JuniperProperties,
    Direction,
    EndUptime,
    StartUptime,
    StartSeconds,
    EndSeconds,
    StartMillis,
    EndMillis,
    StartNtp,
    EndNtp,
    StartDelta,
    EndDelta,
    Init,
    DurationMillis,
    DurationMicros,
    ObservedSeconds,
    ObservedMillis,
    ObservedNtp,
    FrameSection,
    FrameSize,
    IpSection,
    Sampler,
    Algorithm,
    Interval,
    PacketInterval,
    PacketSpace,
    SampleSize,
    Population,
    Probability,
    ScopeTemplate,
}

impl Target {
    /// Whether it counts octets or packets.
    pub(crate) fn is_counter(self) -> bool {
        matches!(
            self,
            Self::Bytes
                | Self::Packets
                | Self::Layer2Bytes
                | Self::ReverseBytes
                | Self::ReversePackets
        )
    }

    /// Whether it holds a part of a packet.
    pub(crate) fn is_section(self) -> bool {
        matches!(self, Self::FrameSection | Self::IpSection)
    }

    /// Whether it says at which rate packets were taken.
    pub(crate) fn is_sampling(self) -> bool {
        matches!(
            self,
            Self::Interval
                | Self::PacketInterval
                | Self::PacketSpace
                | Self::SampleSize
                | Self::Population
                | Self::Probability
        )
    }
}

/// What a field of a template is to weir.
pub(crate) fn target_of(element: Element) -> Target {
    match element {
        Element::Iana(number) => iana(number),
        Element::Enterprise { enterprise: REVERSE, number } => match number {
            1 | 85 => Target::ReverseBytes,
            2 | 86 => Target::ReversePackets,
            6 => Target::ReverseTcpFlags,
            _ => Target::Skip,
        },
        Element::Enterprise { enterprise: JUNIPER, number: 137 } => Target::JuniperProperties,
        Element::Enterprise { .. } => Target::Skip,
        Element::V9Scope(5) => Target::ScopeTemplate,
        Element::V9Scope(_) => Target::Skip,
    }
}

fn iana(number: u16) -> Target {
    match number {
        1 => Target::Bytes,
        2 => Target::Packets,
        4 => Target::Protocol,
        6 => Target::TcpFlags,
        7 => Target::SrcPort,
        8 => Target::Src4,
        10 => Target::InputIf,
        11 => Target::DstPort,
        12 => Target::Dst4,
        14 => Target::OutputIf,
        21 => Target::EndUptime,
        22 => Target::StartUptime,
        23 => Target::OutBytes,
        24 => Target::OutPackets,
        25 => Target::LengthMin,
        26 => Target::LengthMax,
        27 => Target::Src6,
        28 => Target::Dst6,
        32 | 139 => Target::IcmpTypeCode,
        34 | 50 => Target::Interval,
        48 | 302 => Target::Sampler,
        52 | 192 => Target::Ttl,
        61 => Target::Direction,
        85 => Target::TotalBytes,
        86 => Target::TotalPackets,
        88 => Target::FragmentOffset,
        89 => Target::Forwarding,
        104 | 315 => Target::FrameSection,
        145 => Target::ScopeTemplate,
        150 => Target::StartSeconds,
        151 => Target::EndSeconds,
        152 => Target::StartMillis,
        153 => Target::EndMillis,
        154 | 156 => Target::StartNtp,
        155 | 157 => Target::EndNtp,
        158 => Target::StartDelta,
        159 => Target::EndDelta,
        160 => Target::Init,
        161 => Target::DurationMillis,
        162 => Target::DurationMicros,
        176 | 178 => Target::IcmpType,
        177 | 179 => Target::IcmpCode,
        197 => Target::FragmentFlags,
        231 => Target::InitiatorBytes,
        232 => Target::ReverseBytes,
        298 => Target::InitiatorPackets,
        299 => Target::ReversePackets,
        304 => Target::Algorithm,
        305 => Target::PacketInterval,
        306 => Target::PacketSpace,
        309 => Target::SampleSize,
        310 => Target::Population,
        311 => Target::Probability,
        312 => Target::FrameSize,
        313 => Target::IpSection,
        322 => Target::ObservedSeconds,
        323 => Target::ObservedMillis,
        324 | 325 => Target::ObservedNtp,
        352 => Target::Layer2Bytes,
        _ => Target::Skip,
    }
}

/// When, as a record may say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawTime {
    pub(crate) start_uptime: Option<u32>,
    pub(crate) end_uptime: Option<u32>,
    /// Milliseconds since the epoch on the exporter's clock, 0 when not said.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Microseconds before the export.
    pub(crate) start_delta: Option<u64>,
    pub(crate) end_delta: Option<u64>,
    /// systemInitTimeMilliseconds.
    pub(crate) init: u64,
    pub(crate) duration: u64,
}

/// A record's fields, before they are weighed against each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw<'a> {
    pub(crate) src4: u32,
    pub(crate) dst4: u32,
    pub(crate) src6: u128,
    pub(crate) dst6: u128,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) reverse_bytes: u64,
    pub(crate) reverse_packets: u64,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) length_min: u16,
    pub(crate) length_max: u16,
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) reverse_tcp_flags: u8,
    pub(crate) icmp: Option<[u8; 2]>,
    pub(crate) ttl: u8,
    pub(crate) forwarding: u8,
    pub(crate) egress: bool,
    pub(crate) fragment_offset: u16,
    pub(crate) more_fragments: bool,
    pub(crate) input_if: u32,
    pub(crate) output_if: u32,
    pub(crate) time: RawTime,
    pub(crate) sampler: Option<u64>,
    pub(crate) template: Option<u16>,
    pub(crate) sampling: SamplingFields,
    pub(crate) frame: Option<&'a [u8]>,
    pub(crate) frame_size: u32,
    pub(crate) ip: Option<&'a [u8]>,
}

/// A number of any length, reduced-size encoding included (RFC 7011 §6.2); of one longer than
/// eight octets the last eight.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_be_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => bytes.iter().fold(0, |n, octet| n << 8 | u64::from(*octet)),
    }
}

#[inline]
fn low8(bytes: &[u8]) -> u8 {
    bytes.last().copied().unwrap_or(0)
}

#[inline]
fn short(bytes: &[u8]) -> u16 {
    u16::try_from(number(bytes)).unwrap_or(u16::MAX)
}

#[inline]
fn long(bytes: &[u8]) -> u32 {
    u32::try_from(number(bytes)).unwrap_or(u32::MAX)
}

/// NTP time (RFC 7011 §6.1.9): seconds since 1900 and a fraction of 32 bits.
fn ntp_ms(bytes: &[u8]) -> u64 {
    const EPOCH: u64 = 2_208_988_800;
    let value = number(bytes);
    let (secs, fraction) = (value >> 32, value & 0xffff_ffff);
    secs.saturating_sub(EPOCH) * 1000 + ((fraction * 1000) >> 32)
}

/// samplingProbability: a float of four or eight octets.
fn float(bytes: &[u8]) -> Option<f64> {
    match bytes.len() {
        4 => Some(f64::from(f32::from_be_bytes(*bytes.first_chunk()?))),
        8 => Some(f64::from_be_bytes(*bytes.first_chunk()?)),
        _ => None,
    }
}

/// Puts a field where it belongs.
#[inline]
pub(crate) fn apply<'a>(raw: &mut Raw<'a>, target: Target, bytes: &'a [u8]) {
    match target {
        Target::Skip => {}
        Target::Src4 => raw.src4 = long(bytes),
        Target::Dst4 => raw.dst4 = long(bytes),
        Target::Src6 => raw.src6 = wide(bytes),
        Target::Dst6 => raw.dst6 = wide(bytes),
        Target::SrcPort => raw.src_port = short(bytes),
        Target::DstPort => raw.dst_port = short(bytes),
        Target::Protocol => raw.protocol = low8(bytes),
        Target::TcpFlags => raw.tcp_flags = low8(bytes),
        Target::Bytes | Target::Layer2Bytes => raw.bytes = number(bytes),
        Target::Packets => raw.packets = number(bytes),
        Target::InputIf => raw.input_if = long(bytes),
        Target::OutputIf => raw.output_if = long(bytes),
        Target::EndUptime => raw.time.end_uptime = Some(long(bytes)),
        Target::StartUptime => raw.time.start_uptime = Some(long(bytes)),
        Target::StartMillis => raw.time.start = number(bytes),
        Target::EndMillis => raw.time.end = number(bytes),
        Target::Ttl => raw.ttl = low8(bytes),
        Target::LengthMin => raw.length_min = short(bytes),
        Target::LengthMax => raw.length_max = short(bytes),
        Target::Sampler => raw.sampler = Some(number(bytes)),
        Target::Direction => raw.egress = number(bytes) == 1,
        Target::Forwarding => raw.forwarding = low8(bytes),
        _ => apply_rare(raw, target, bytes),
    }
}

fn wide(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or(0, |octets| u128::from_be_bytes(*octets))
}

fn apply_rare<'a>(raw: &mut Raw<'a>, target: Target, bytes: &'a [u8]) {
    let time = &mut raw.time;
    match target {
        Target::IcmpTypeCode => raw.icmp = Some(short(bytes).to_be_bytes()),
        Target::IcmpType => raw.icmp.get_or_insert_default()[0] = low8(bytes),
        Target::IcmpCode => raw.icmp.get_or_insert_default()[1] = low8(bytes),
        Target::FragmentOffset => {
            // Some exporters send the header's word, flags and all.
            let word = short(bytes);
            raw.fragment_offset = word & 0x1fff;
            raw.more_fragments |= word & 0x2000 != 0;
        }
        Target::FragmentFlags => raw.more_fragments |= low8(bytes) & 0x20 != 0,
        Target::ReverseBytes => raw.reverse_bytes = number(bytes),
        Target::ReversePackets => raw.reverse_packets = number(bytes),
        Target::ReverseTcpFlags => raw.reverse_tcp_flags = low8(bytes),
        Target::StartSeconds | Target::ObservedSeconds => {
            time.start = number(bytes).saturating_mul(1000);
        }
        Target::EndSeconds => time.end = number(bytes).saturating_mul(1000),
        Target::ObservedMillis => time.start = number(bytes),
        Target::StartNtp | Target::ObservedNtp => time.start = ntp_ms(bytes),
        Target::EndNtp => time.end = ntp_ms(bytes),
        Target::StartDelta => time.start_delta = Some(number(bytes)),
        Target::EndDelta => time.end_delta = Some(number(bytes)),
        Target::Init => time.init = number(bytes),
        Target::DurationMillis => time.duration = number(bytes),
        Target::DurationMicros => time.duration = number(bytes) / 1000,
        Target::FrameSection => raw.frame = Some(bytes),
        Target::FrameSize => raw.frame_size = long(bytes),
        Target::IpSection => raw.ip = Some(bytes),
        Target::Algorithm => raw.sampling.algorithm = Some(number(bytes)),
        Target::Interval => raw.sampling.interval = Some(number(bytes)),
        Target::PacketInterval => raw.sampling.packet_interval = Some(number(bytes)),
        Target::PacketSpace => raw.sampling.packet_space = Some(number(bytes)),
        Target::SampleSize => raw.sampling.size = Some(number(bytes)),
        Target::Population => raw.sampling.population = Some(number(bytes)),
        Target::Probability => raw.sampling.probability = float(bytes),
        Target::ScopeTemplate => raw.template = u16::try_from(number(bytes)).ok(),
        _ => {}
    }
}
