//! Information elements that weir reads, and the slots that a record's values go to.
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

/// What a field is to weir, and the slot its value goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Slot {
    Src4,
    Dst4,
    Src6High,
    Src6Low,
    Dst6High,
    Dst6Low,
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
    Layer2Bytes,
    Packets,
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
    /// A part of a frame: place and length instead of a value.
    FrameSection,
    FrameSize,
    /// A part of an IP packet: place and length instead of a value.
    IpSection,
    Sampler,
    Algorithm,
    Interval,
    PacketInterval,
    PacketSpace,
    SampleSize,
    Population,
    /// The bits of a float.
    Probability,
    ScopeTemplate,
    ScopeDomain,
    ScopeInterface,
    ActiveTimeout,
    InactiveTimeout,
    /// What happened to a connection (Cisco NSEL), its number, and when.
    Event,
    Connection,
    EventMillis,
    /// Counters at the egress, of records that have others as well.
    OutBytes,
    OutPackets,
    /// Nothing that is read: its octets are those of the initiator, without headers (Cisco NSEL).
    Payload,
    // What follows gives way to, or becomes, one of the above when a template is compiled.
    TotalBytes,
    InitiatorBytes,
    TotalPackets,
    InitiatorPackets,
    Skip,
}

/// Slots of which a record may have several fields, of which one says something: ports by TCP's and by
/// UDP's own elements, and a list of properties.
pub(crate) const SEVERAL: u64 =
    Slot::SrcPort.bit() | Slot::DstPort.bit() | Slot::JuniperProperties.bit();

/// Number of slots.
pub(crate) const SLOTS: usize = 64;

impl Slot {
    /// Its bit in a mask of slots.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Slots that count octets or packets, or hold a part of a packet: without one of these, a record
/// tells of an event and not of traffic.
pub(crate) const TRAFFIC: u64 = Slot::Bytes.bit()
    | Slot::Layer2Bytes.bit()
    | Slot::Packets.bit()
    | Slot::ReverseBytes.bit()
    | Slot::ReversePackets.bit()
    | SECTION;
/// Slots that hold a part of a packet.
pub(crate) const SECTION: u64 = Slot::FrameSection.bit() | Slot::IpSection.bit();
/// Slots of the opposite direction's counters (RFC 5103).
pub(crate) const BIFLOW: u64 = Slot::ReverseBytes.bit() | Slot::ReversePackets.bit();
/// Slots that say when a flow was or how long it lasted.
pub(crate) const TIMES: u64 = Slot::EndUptime.bit()
    | Slot::StartSeconds.bit()
    | Slot::EndSeconds.bit()
    | Slot::StartMillis.bit()
    | Slot::EndMillis.bit()
    | Slot::EventMillis.bit()
    | Slot::StartNtp.bit()
    | Slot::EndNtp.bit()
    | Slot::StartDelta.bit()
    | Slot::EndDelta.bit()
    | Slot::DurationMillis.bit()
    | Slot::DurationMicros.bit();
/// Slots of counters that leave packets' headers out.
pub(crate) const PAYLOAD: u64 = Slot::Payload.bit();
/// Slots that say a sampling rate.
pub(crate) const SAMPLING: u64 = Slot::Interval.bit()
    | Slot::PacketInterval.bit()
    | Slot::PacketSpace.bit()
    | Slot::SampleSize.bit()
    | Slot::Population.bit()
    | Slot::Probability.bit();

/// What a field of a template is to weir.
pub(crate) fn slot_of(element: Element) -> Slot {
    match element {
        Element::Iana(number) => iana(number),
        Element::Enterprise { enterprise: REVERSE, number } => match number {
            1 | 85 => Slot::ReverseBytes,
            2 | 86 => Slot::ReversePackets,
            6 => Slot::ReverseTcpFlags,
            _ => Slot::Skip,
        },
        Element::Enterprise { enterprise: JUNIPER, number: 137 } => Slot::JuniperProperties,
        Element::Enterprise { .. } => Slot::Skip,
        Element::V9Scope(2) => Slot::ScopeInterface,
        Element::V9Scope(5) => Slot::ScopeTemplate,
        Element::V9Scope(_) => Slot::Skip,
    }
}

/// What a scope field of an options template is to weir: an option holds for what it names.
pub(crate) fn scope_of(element: Element) -> Slot {
    match element {
        Element::Iana(10 | 14 | 252 | 253) => Slot::ScopeInterface,
        Element::Iana(149) => Slot::ScopeDomain,
        _ => slot_of(element),
    }
}

fn iana(number: u16) -> Slot {
    match number {
        1 => Slot::Bytes,
        2 => Slot::Packets,
        4 => Slot::Protocol,
        6 => Slot::TcpFlags,
        7 | 180 | 182 => Slot::SrcPort,
        8 => Slot::Src4,
        10 => Slot::InputIf,
        11 | 181 | 183 => Slot::DstPort,
        12 => Slot::Dst4,
        14 => Slot::OutputIf,
        21 => Slot::EndUptime,
        22 => Slot::StartUptime,
        23 => Slot::OutBytes,
        24 => Slot::OutPackets,
        25 => Slot::LengthMin,
        26 => Slot::LengthMax,
        27 => Slot::Src6High,
        28 => Slot::Dst6High,
        32 | 139 => Slot::IcmpTypeCode,
        34 | 50 => Slot::Interval,
        36 => Slot::ActiveTimeout,
        37 => Slot::InactiveTimeout,
        48 | 302 => Slot::Sampler,
        52 | 53 | 192 => Slot::Ttl,
        61 => Slot::Direction,
        85 => Slot::TotalBytes,
        86 => Slot::TotalPackets,
        88 => Slot::FragmentOffset,
        89 => Slot::Forwarding,
        104 | 315 => Slot::FrameSection,
        145 => Slot::ScopeTemplate,
        148 => Slot::Connection,
        150 => Slot::StartSeconds,
        151 => Slot::EndSeconds,
        152 => Slot::StartMillis,
        153 => Slot::EndMillis,
        154 | 156 => Slot::StartNtp,
        155 | 157 => Slot::EndNtp,
        158 => Slot::StartDelta,
        159 => Slot::EndDelta,
        160 => Slot::Init,
        161 => Slot::DurationMillis,
        162 => Slot::DurationMicros,
        176 | 178 => Slot::IcmpType,
        177 | 179 => Slot::IcmpCode,
        197 => Slot::FragmentFlags,
        233 => Slot::Event,
        231 => Slot::InitiatorBytes,
        232 => Slot::ReverseBytes,
        298 => Slot::InitiatorPackets,
        299 => Slot::ReversePackets,
        304 => Slot::Algorithm,
        305 => Slot::PacketInterval,
        306 => Slot::PacketSpace,
        309 => Slot::SampleSize,
        310 => Slot::Population,
        311 => Slot::Probability,
        312 => Slot::FrameSize,
        313 => Slot::IpSection,
        322 => Slot::StartSeconds,
        323 => Slot::EventMillis,
        324 | 325 => Slot::StartNtp,
        352 => Slot::Layer2Bytes,
        _ => Slot::Skip,
    }
}

/// A record's values by slot. Slots that the template lacks are 0.
pub(crate) trait Fields {
    /// The slots that the template has.
    fn slots(&self) -> u64;

    /// The value of a slot.
    fn u64(&self, slot: Slot) -> u64;

    /// The value, or the largest that fits.
    #[inline]
    fn u32(&self, slot: Slot) -> u32 {
        u32::try_from(self.u64(slot)).unwrap_or(u32::MAX)
    }

    /// The value, or the largest that fits.
    #[inline]
    fn u16(&self, slot: Slot) -> u16 {
        u16::try_from(self.u64(slot)).unwrap_or(u16::MAX)
    }

    /// The last octet: some exporters send one-octet values in wider fields.
    #[inline]
    fn u8(&self, slot: Slot) -> u8 {
        self.u64(slot).to_be_bytes()[7]
    }

    #[inline]
    fn u128(&self, high: Slot, low: Slot) -> u128 {
        u128::from(self.u64(high)) << 64 | u128::from(self.u64(low))
    }

    #[inline]
    fn has(&self, slot: Slot) -> bool {
        self.slots() & slot.bit() != 0
    }

    /// The value if the template has it.
    #[inline]
    fn get(&self, slot: Slot) -> Option<u64> {
        self.has(slot).then(|| self.u64(slot))
    }

    /// What the record says about sampling.
    fn sampling(&self) -> SamplingFields {
        let float = self.get(Slot::Probability).map(|bits| match u32::try_from(bits) {
            Ok(bits) => f64::from(f32::from_bits(bits)),
            Err(_) => f64::from_bits(bits),
        });
        SamplingFields {
            interval: self.get(Slot::Interval),
            algorithm: self.get(Slot::Algorithm),
            packet_interval: self.get(Slot::PacketInterval),
            packet_space: self.get(Slot::PacketSpace),
            size: self.get(Slot::SampleSize),
            population: self.get(Slot::Population),
            probability: float,
        }
    }
}

/// A record's values, read out one by one: of records whose lengths vary, of options, and of what is
/// rare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    slots: [u64; SLOTS],
    has: u64,
}

impl Raw {
    pub(crate) fn new(has: u64) -> Self {
        Self { slots: [0; SLOTS], has }
    }

    /// Empties every slot.
    pub(crate) fn clear(&mut self) {
        self.slots = [0; SLOTS];
    }

    /// Empties some slots, by their mask.
    pub(crate) fn forget(&mut self, mask: u64) {
        for (slot, value) in self.slots.iter_mut().enumerate() {
            if mask >> slot & 1 == 1 {
                *value = 0;
            }
        }
    }

    #[inline]
    pub(crate) fn put(&mut self, slot: u8, value: u64) {
        self.slots[usize::from(slot) % SLOTS] = value;
    }

    /// Puts one of several values for one slot: of ports the one that is not 0, of Juniper's properties
    /// the exception code (kind 2, in the upper six bits) if there is one.
    #[inline]
    pub(crate) fn put_one_of(&mut self, slot: u8, value: u64) {
        let known = &mut self.slots[usize::from(slot) % SLOTS];
        let exception = |value: u64| value >> 10 & 63 == 2;
        let keep = if slot == Slot::JuniperProperties as u8 {
            exception(*known) && !exception(value)
        } else {
            *known != 0
        };
        if !keep {
            *known = value;
        }
    }

    /// The part of `record` that a section slot points to.
    pub(crate) fn section<'a>(&self, slot: Slot, record: &'a [u8]) -> Option<&'a [u8]> {
        let value = self.get(slot)?;
        let place = usize::try_from(value >> 32).ok()?;
        let len = usize::try_from(value & 0xffff_ffff).ok()?;
        record.get(place..place.checked_add(len)?).filter(|section| !section.is_empty())
    }
}

impl Fields for Raw {
    #[inline]
    fn slots(&self) -> u64 {
        self.has
    }

    #[inline]
    fn u64(&self, slot: Slot) -> u64 {
        self.slots[slot as usize]
    }
}

/// Octets loaded at once.
pub(crate) const LOAD: usize = 8;

/// Where the fields of records that are all alike are, by slot: a record is read where it lies, and
/// only what is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Octets from the record's start to the field's end, and what is left of the eight octets that
    /// end there: nothing if there is no such field.
    fields: [(u64, u16); SLOTS],
    has: u64,
}

impl Places {
    /// Nothing yet; `has` says which slots there will be.
    pub(crate) fn new(has: u64) -> Self {
        Self { fields: [(0, 0); SLOTS], has }
    }

    /// A field of `len` octets that ends at `end`. Says whether it can be read here: a number wider
    /// than its kind would have to be cut to the largest that fits.
    pub(crate) fn set(&mut self, slot: u8, end: u16, len: u8) -> bool {
        let bits = u32::from(len.min(8)) * 8;
        let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
        let slot = usize::from(slot) % SLOTS;
        self.fields[slot] = (mask, end);
        mask <= WIDTHS[slot]
    }

    /// The record that `window` holds, with the eight octets before it.
    #[inline]
    pub(crate) fn record<'a>(&'a self, window: &'a [u8]) -> Placed<'a> {
        Placed { places: self, window }
    }
}

/// The largest value of each slot.
const WIDTHS: [u64; SLOTS] = widths();

const fn widths() -> [u64; SLOTS] {
    use Slot::{
        Dst4, DstPort, EndUptime, FragmentOffset, FrameSize, IcmpTypeCode, InputIf,
        JuniperProperties, LengthMax, LengthMin, OutputIf, Src4, SrcPort, StartUptime,
    };
    let mut widths = [u64::MAX; SLOTS];
    let long = [Src4, Dst4, InputIf, OutputIf, EndUptime, StartUptime, FrameSize];
    let mut at = 0;
    while at < long.len() {
        widths[long[at] as usize] = u32::MAX as u64;
        at += 1;
    }
    let short =
        [SrcPort, DstPort, IcmpTypeCode, FragmentOffset, LengthMin, LengthMax, JuniperProperties];
    at = 0;
    while at < short.len() {
        widths[short[at] as usize] = u16::MAX as u64;
        at += 1;
    }
    widths
}

/// A record of a template whose places are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    places: &'a Places,
    window: &'a [u8],
}

impl Fields for Placed<'_> {
    #[inline]
    fn slots(&self) -> u64 {
        self.places.has
    }

    #[inline]
    fn u64(&self, slot: Slot) -> u64 {
        let (mask, end) = self.places.fields[slot as usize];
        let from = usize::from(end);
        // The eight octets that end with the field: no length needs a case of its own.
        match self.window.get(from..from + LOAD).and_then(<[u8]>::first_chunk) {
            Some(octets) => u64::from_be_bytes(*octets) & mask,
            None => 0,
        }
    }

    /// The places are those of fields that fit.
    #[inline]
    fn u32(&self, slot: Slot) -> u32 {
        u32::try_from(self.u64(slot) & u64::from(u32::MAX)).unwrap_or(0)
    }

    #[inline]
    fn u16(&self, slot: Slot) -> u16 {
        u16::try_from(self.u64(slot) & u64::from(u16::MAX)).unwrap_or(0)
    }
}

/// Where a section is, as its slot holds it.
pub(crate) fn section_place(place: usize, len: usize) -> u64 {
    (place as u64) << 32 | len as u64
}

/// A number of any length, reduced-size encoding included (RFC 7011 §6.2); of one longer than
/// eight octets the last eight.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, octet| n << 8 | u64::from(*octet))
}

/// NTP time (RFC 7011 §6.1.9), seconds since 1900 and a fraction of 32 bits, as milliseconds
/// since 1970.
pub(crate) fn ntp_ms(value: u64) -> u64 {
    const EPOCH: u64 = 2_208_988_800;
    let (secs, fraction) = (value >> 32, value & 0xffff_ffff);
    secs.saturating_sub(EPOCH) * 1000 + ((fraction * 1000) >> 32)
}
