//! Records by column, tests on them, and what bounds of columns say about a test.

use weir_model::{ArchivedFlow, address_of, bits_of};

use crate::filter::{Computed, Filter};

/// A column of the archive, in the order of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// First packet, milliseconds.
    Start,
    /// Last packet, milliseconds.
    End,
    /// Who exported it.
    Exporter,
    /// Interface of entry.
    InIf,
    /// Interface of exit.
    OutIf,
    /// Source address.
    Src,
    /// Destination address.
    Dst,
    /// Source port.
    SrcPort,
    /// Destination port.
    DstPort,
    /// IP protocol.
    Protocol,
    /// TCP control bits.
    TcpFlags,
    /// What the router did.
    Forwarding,
    /// Octets as exported.
    Octets,
    /// Packets as exported.
    Packets,
    /// Sampling rate.
    Sampling,
    /// Thinning by the archive.
    Thinned,
}

impl Column {
    /// How many there are.
    pub const COUNT: usize = 16;

    /// All, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Start,
        Self::End,
        Self::Exporter,
        Self::InIf,
        Self::OutIf,
        Self::Src,
        Self::Dst,
        Self::SrcPort,
        Self::DstPort,
        Self::Protocol,
        Self::TcpFlags,
        Self::Forwarding,
        Self::Octets,
        Self::Packets,
        Self::Sampling,
        Self::Thinned,
    ];

    /// Whether its values are addresses, which take 128 bits.
    pub const fn is_address(self) -> bool {
        matches!(self, Self::Exporter | Self::Src | Self::Dst)
    }

    /// Its value in a record.
    pub const fn of(self, flow: &ArchivedFlow) -> u128 {
        (match self {
            Self::Exporter => return bits_of(flow.exporter),
            Self::Src => return bits_of(flow.src),
            Self::Dst => return bits_of(flow.dst),
            Self::Start => flow.start,
            Self::End => flow.end,
            Self::InIf => flow.in_if as u64,
            Self::OutIf => flow.out_if as u64,
            Self::SrcPort => flow.src_port as u64,
            Self::DstPort => flow.dst_port as u64,
            Self::Protocol => flow.protocol as u64,
            Self::TcpFlags => flow.tcp_flags as u64,
            Self::Forwarding => flow.forwarding as u64,
            Self::Octets => flow.octets,
            Self::Packets => flow.packets,
            Self::Sampling => flow.sampling as u64,
            Self::Thinned => flow.thinned as u64,
        }) as u128
    }
}

/// The values of one column.
#[derive(Clone, Debug)]
pub enum Values {
    /// Numbers.
    Numbers(Vec<u64>),
    /// Addresses.
    Addresses(Vec<u128>),
}

impl Values {
    fn at(&self, row: usize) -> u128 {
        match self {
            Self::Numbers(values) => values.get(row).copied().unwrap_or_default().into(),
            Self::Addresses(values) => values.get(row).copied().unwrap_or_default(),
        }
    }
}

/// Some rows, with those columns that were read.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// How many rows.
    pub rows: usize,
    /// By [`Column`].
    pub values: [Option<Values>; Column::COUNT],
}

/// Least and largest value of each column, where known.
pub type Bounds = [Option<(u128, u128)>; Column::COUNT];

impl Columns {
    /// Of records, all columns.
    pub fn of(flows: &[ArchivedFlow]) -> Self {
        let column = |column: Column| {
            let values = flows.iter().map(|flow| column.of(flow));
            Some(if column.is_address() {
                Values::Addresses(values.collect())
            } else {
                Values::Numbers(values.map(|v| u64::try_from(v).unwrap_or(u64::MAX)).collect())
            })
        };
        Self { rows: flows.len(), values: Column::ALL.map(column) }
    }

    /// A value; 0 in a column that was not read.
    pub fn at(&self, column: Column, row: usize) -> u128 {
        self.values[column as usize].as_ref().map_or(0, |values| values.at(row))
    }

    /// A value of a column of numbers.
    #[expect(clippy::cast_possible_truncation, reason = "numbers have 64 bits")]
    pub fn number(&self, column: Column, row: usize) -> u64 {
        self.at(column, row) as u64
    }

    /// A record, of all columns.
    pub fn flow(&self, row: usize) -> ArchivedFlow {
        let n = |column| self.number(column, row);
        let word = |column| u32::try_from(n(column)).unwrap_or(u32::MAX);
        let short = |column| u16::try_from(n(column)).unwrap_or(u16::MAX);
        let octet = |column| u8::try_from(n(column)).unwrap_or(u8::MAX);
        ArchivedFlow {
            end: n(Column::End),
            start: n(Column::Start),
            exporter: address_of(self.at(Column::Exporter, row)),
            in_if: word(Column::InIf),
            out_if: word(Column::OutIf),
            src: address_of(self.at(Column::Src, row)),
            dst: address_of(self.at(Column::Dst, row)),
            src_port: short(Column::SrcPort),
            dst_port: short(Column::DstPort),
            protocol: octet(Column::Protocol),
            tcp_flags: octet(Column::TcpFlags),
            forwarding: octet(Column::Forwarding),
            octets: n(Column::Octets),
            packets: n(Column::Packets),
            sampling: word(Column::Sampling),
            thinned: word(Column::Thinned),
        }
    }

    /// By how much the counts of a row are multiplied.
    pub fn factor(&self, row: usize) -> u64 {
        self.number(Column::Sampling, row).saturating_mul(self.number(Column::Thinned, row))
    }

    /// Clears `fits` where a row does not fit.
    pub fn keep(&self, filter: &Filter, fits: &mut [bool]) {
        match filter {
            Filter::Any => {}
            Filter::Within(column, low, high) => match &self.values[*column as usize] {
                Some(Values::Numbers(values)) => {
                    // Beyond 64 bits there is no number.
                    let low = u64::try_from(*low).unwrap_or(u64::MAX);
                    let high = u64::try_from(*high).unwrap_or(u64::MAX);
                    for (fit, value) in fits.iter_mut().zip(values) {
                        *fit &= (low <= *value) & (*value <= high);
                    }
                }
                Some(Values::Addresses(values)) => {
                    for (fit, value) in fits.iter_mut().zip(values) {
                        *fit &= (*low <= *value) & (*value <= *high);
                    }
                }
                None => fits.fill(false),
            },
            Filter::Bits(column, bits) => {
                for (row, fit) in fits.iter_mut().enumerate() {
                    *fit &= self.at(*column, row) & bits == *bits;
                }
            }
            Filter::Computed(computed, low, high) => {
                for (row, fit) in fits.iter_mut().enumerate() {
                    if *fit {
                        *fit = (*low..=*high).contains(&self.computed(*computed, row));
                    }
                }
            }
            Filter::All(parts) => parts.iter().for_each(|part| self.keep(part, fits)),
            Filter::One(parts) => {
                let mut some = vec![false; fits.len()];
                for part in parts {
                    let mut own = fits.to_vec();
                    self.keep(part, &mut own);
                    some.iter_mut().zip(own).for_each(|(some, own)| *some |= own);
                }
                fits.copy_from_slice(&some);
            }
            Filter::Not(part) => {
                let mut own = vec![true; fits.len()];
                self.keep(part, &mut own);
                fits.iter_mut().zip(own).for_each(|(fit, own)| *fit &= !own);
            }
        }
    }

    fn computed(&self, computed: Computed, row: usize) -> u64 {
        let n = |column| self.number(column, row);
        match computed {
            Computed::Octets => n(Column::Octets).saturating_mul(self.factor(row)),
            Computed::Packets => n(Column::Packets).saturating_mul(self.factor(row)),
            Computed::Length => n(Column::Octets).checked_div(n(Column::Packets)).unwrap_or(0),
            Computed::Duration => n(Column::End).saturating_sub(n(Column::Start)),
        }
    }
}

impl Filter {
    /// Whether rows within these bounds can fit, and whether they can not fit.
    pub fn possible(&self, bounds: &Bounds) -> (bool, bool) {
        match self {
            Self::Any => (true, false),
            Self::Within(column, low, high) => match bounds[*column as usize] {
                Some((least, most)) => {
                    (least <= *high && *low <= most, !(*low <= least && most <= *high))
                }
                None => (true, true),
            },
            Self::Bits(..) | Self::Computed(..) => (true, true),
            Self::All(parts) => parts
                .iter()
                .map(|p| p.possible(bounds))
                .fold((true, false), |(fits, fails), (part_fits, part_fails)| {
                    (fits && part_fits, fails || part_fails)
                }),
            Self::One(parts) => parts
                .iter()
                .map(|p| p.possible(bounds))
                .fold((false, true), |(fits, fails), (part_fits, part_fails)| {
                    (fits || part_fits, fails && part_fails)
                }),
            Self::Not(part) => {
                let (fits, fails) = part.possible(bounds);
                (fails, fits)
            }
        }
    }
}
