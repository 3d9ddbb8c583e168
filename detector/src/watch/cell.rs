//! Traffic of a host or prefix in one slot or second, and the same in half the octets.

use weir_model::{Class, HostSlice};

/// Traffic of a host or prefix in one slot or second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Inbound packets by [`Class`].
    pub(crate) packets: [u32; Class::COUNT],
    /// Inbound octets.
    pub(crate) bytes: u64,
    /// Sum of packets x rate^2, see [`HostSlice::variance`].
    pub(crate) variance: u64,
    /// Inbound UDP packets to declared service ports.
    pub(crate) service_udp: u32,
    /// Sources among the packets reported that the host has not met lately.
    pub(crate) new_sources: u32,
    /// Inbound packets that the router already discarded.
    pub(crate) dropped: u32,
    /// Octets of those.
    pub(crate) dropped_bytes: u64,
    /// Outbound packets.
    pub(crate) out_packets: u32,
    /// Outbound SYNs.
    pub(crate) out_syn: u32,
    /// Outbound octets.
    pub(crate) out_bytes: u64,
}

pub(crate) fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Cell {
    pub(crate) fn of_host(slice: &HostSlice) -> Self {
        let mut cell = Self {
            variance: slice.variance,
            dropped: saturate(slice.dropped.packets),
            dropped_bytes: slice.dropped.bytes,
            out_packets: saturate(slice.outbound.packets),
            out_syn: saturate(slice.outbound_syn),
            out_bytes: slice.outbound.bytes,
            ..Self::default()
        };
        for (mine, volume) in cell.packets.iter_mut().zip(slice.inbound) {
            *mine = saturate(volume.packets);
            cell.bytes = cell.bytes.saturating_add(volume.bytes);
        }
        cell
    }

    /// Adds, staying at the maximum on overflow: the order of additions never shows.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.packets.iter_mut().zip(other.packets) {
            *mine = mine.saturating_add(theirs);
        }
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
        self.new_sources = self.new_sources.saturating_add(other.new_sources);
        self.service_udp = self.service_udp.saturating_add(other.service_udp);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.dropped_bytes = self.dropped_bytes.saturating_add(other.dropped_bytes);
        self.out_packets = self.out_packets.saturating_add(other.out_packets);
        self.out_syn = self.out_syn.saturating_add(other.out_syn);
        self.out_bytes = self.out_bytes.saturating_add(other.out_bytes);
    }

    /// Inbound packets of all classes.
    pub(crate) fn total(&self) -> u64 {
        self.packets.iter().map(|p| u64::from(*p)).sum()
    }

    pub(crate) fn class(&self, class: Class) -> u32 {
        self.packets[class as usize]
    }
}

/// A [`Cell`] of little traffic, exactly: what most hosts carry in most seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Narrow {
    packets: [u16; Class::COUNT],
    service_udp: u16,
    new_sources: u16,
    dropped: u16,
    out_packets: u16,
    out_syn: u16,
    bytes: u32,
    variance: u32,
    dropped_bytes: u32,
    out_bytes: u32,
}

const _: () = assert!(2 * size_of::<Narrow>() == size_of::<Cell>(), "that is what it is for");

impl Narrow {
    /// The same traffic, where it is little enough.
    pub(crate) fn of(cell: &Cell) -> Option<Self> {
        let mut narrow = Self::default();
        narrow.add(cell).then_some(narrow)
    }

    /// Adds, where the sum is little enough; else nothing changes, and the answer is false.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "found to be small enough before it counts"
    )]
    #[inline]
    pub(crate) fn add(&mut self, cell: &Cell) -> bool {
        let mut sum = *self;
        // A bit above the width in any of them is one in all of them or-ed; a sum of 16 and 31 bits has 32.
        let (mut counts, mut given) = (0_u32, 0_u32);
        let mut count = |mine: &mut u16, more: u32| {
            let sum = u32::from(*mine).wrapping_add(more);
            (counts, given) = (counts | sum, given | more);
            *mine = sum as u16;
        };
        for (mine, more) in sum.packets.iter_mut().zip(cell.packets) {
            count(mine, more);
        }
        count(&mut sum.service_udp, cell.service_udp);
        count(&mut sum.new_sources, cell.new_sources);
        count(&mut sum.dropped, cell.dropped);
        count(&mut sum.out_packets, cell.out_packets);
        count(&mut sum.out_syn, cell.out_syn);
        let (mut sums, mut large) = (0_u64, 0_u64);
        let mut octets = |mine: &mut u32, more: u64| {
            let sum = u64::from(*mine).wrapping_add(more);
            (sums, large) = (sums | sum, large | more);
            *mine = sum as u32;
        };
        octets(&mut sum.bytes, cell.bytes);
        octets(&mut sum.variance, cell.variance);
        octets(&mut sum.dropped_bytes, cell.dropped_bytes);
        octets(&mut sum.out_bytes, cell.out_bytes);
        let fits = counts <= u32::from(u16::MAX)
            && sums <= u64::from(u32::MAX)
            && given >> 31 == 0
            && large >> 63 == 0;
        if fits {
            *self = sum;
        }
        fits
    }

    #[inline]
    pub(crate) fn wide(&self) -> Cell {
        let mut packets = [0; Class::COUNT];
        for (wide, narrow) in packets.iter_mut().zip(self.packets) {
            *wide = u32::from(narrow);
        }
        Cell {
            packets,
            bytes: u64::from(self.bytes),
            variance: u64::from(self.variance),
            service_udp: u32::from(self.service_udp),
            new_sources: u32::from(self.new_sources),
            dropped: u32::from(self.dropped),
            dropped_bytes: u64::from(self.dropped_bytes),
            out_packets: u32::from(self.out_packets),
            out_syn: u32::from(self.out_syn),
            out_bytes: u64::from(self.out_bytes),
        }
    }
}
