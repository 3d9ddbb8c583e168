//! Between weir's own words for packets and FlowSpec's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{FlagMatch, FragmentMatch, IpNet, Match, Range};

use super::{
    Afi, BitField, BitTerm, Component, EncodeError, Nlri, NumericField, NumericTerm, Prefix,
    fragment,
};

/// A received rule says something that [`Match`] has no words for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("component type {0} has no equal in weir's own terms")]
pub struct NotExpressible(pub u8);

impl TryFrom<&Match> for Nlri {
    type Error = EncodeError;

    fn try_from(packets: &Match) -> Result<Self, EncodeError> {
        let afi = afi_of(packets.dst);
        let mut components = vec![Component::Destination(prefix_of(packets.dst))];
        if let Some(src) = packets.src {
            if afi_of(src) != afi {
                return Err(EncodeError::Family(2));
            }
            components.push(Component::Source(prefix_of(src)));
        }
        let mut numeric = |field, terms: Vec<NumericTerm>| {
            if !terms.is_empty() {
                components.push(Component::Numeric(field, terms));
            }
        };
        numeric(NumericField::Protocol, values(&packets.protocols));
        numeric(NumericField::DstPort, ranges(&packets.dst_ports));
        numeric(NumericField::SrcPort, ranges(&packets.src_ports));
        numeric(NumericField::IcmpType, values(&packets.icmp_types));
        numeric(NumericField::IcmpCode, values(&packets.icmp_codes));
        if !packets.tcp_flags.is_empty() {
            components.push(Component::Bits(BitField::TcpFlags, flags(&packets.tcp_flags)?));
        }
        let mut numeric = |field, terms: Vec<NumericTerm>| {
            if !terms.is_empty() {
                components.push(Component::Numeric(field, terms));
            }
        };
        numeric(NumericField::Length, ranges(&packets.lengths));
        numeric(NumericField::Dscp, values(&packets.dscps));
        if let Some(wanted) = packets.fragment {
            components.push(Component::Bits(BitField::Fragment, vec![fragment_term(wanted)]));
        }
        Ok(Self { afi, components })
    }
}

const fn afi_of(net: IpNet) -> Afi {
    match net {
        IpNet::V4(_) => Afi::Ipv4,
        IpNet::V6(_) => Afi::Ipv6,
    }
}

fn prefix_of(net: IpNet) -> Prefix {
    let bits = match net.trunc().addr() {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    Prefix { bits, len: net.prefix_len(), offset: 0 }
}

fn values(list: &[u8]) -> Vec<NumericTerm> {
    list.iter()
        .map(|v| NumericTerm { and: false, lt: false, gt: false, eq: true, value: u64::from(*v) })
        .collect()
}

/// An open end is left out: the fewest operators, and routers limit the number of ranges.
fn ranges(list: &[Range]) -> Vec<NumericTerm> {
    let term = |and, lt, gt, value: u16| NumericTerm { and, lt, gt, eq: true, value: value.into() };
    let mut terms = Vec::with_capacity(list.len());
    for r in list {
        if r.from == r.to {
            terms.push(term(false, false, false, r.from));
        } else if r.from == 0 && r.to != u16::MAX {
            terms.push(term(false, true, false, r.to));
        } else {
            terms.push(term(false, false, true, r.from));
            if r.to != u16::MAX {
                terms.push(term(true, true, false, r.to));
            }
        }
    }
    terms
}

/// `set` of `mask`: all of `set` on, and none of the others that are looked at.
fn flags(list: &[FlagMatch]) -> Result<Vec<BitTerm>, EncodeError> {
    let mut terms = Vec::with_capacity(list.len() * 2);
    for wanted in list {
        let off = wanted.mask & !wanted.set;
        if wanted.mask == 0 || wanted.set & !wanted.mask != 0 {
            return Err(EncodeError::Flags);
        }
        if wanted.set != 0 {
            terms.push(BitTerm { and: false, not: false, all: true, value: wanted.set.into() });
        }
        if off != 0 {
            terms.push(BitTerm { and: wanted.set != 0, not: true, all: false, value: off.into() });
        }
    }
    Ok(terms)
}

/// `NotFragment` names both bits: the first fragment has `FIRST` on and `IS` off.
const fn fragment_term(wanted: FragmentMatch) -> BitTerm {
    let (not, all, value) = match wanted {
        FragmentMatch::IsFragment => (false, true, fragment::IS),
        FragmentMatch::NotFragment => (true, false, fragment::IS | fragment::FIRST),
        FragmentMatch::First => (false, true, fragment::FIRST),
        FragmentMatch::Last => (false, true, fragment::LAST),
    };
    BitTerm { and: false, not, all, value: value as u16 }
}

impl TryFrom<&Nlri> for Match {
    type Error = NotExpressible;

    fn try_from(nlri: &Nlri) -> Result<Self, NotExpressible> {
        let mut components = nlri.components.iter();
        let Some(Component::Destination(dst)) = components.next() else {
            return Err(NotExpressible(1));
        };
        let mut packets = Self::to(net_of(nlri.afi, dst).ok_or(NotExpressible(1))?);
        for component in components {
            let none = NotExpressible(component.code());
            match component {
                Component::Destination(_) => return Err(none),
                Component::Source(p) => {
                    packets.src = Some(net_of(nlri.afi, p).ok_or(none)?);
                }
                Component::Numeric(field, terms) => {
                    let ranges = read_ranges(terms).ok_or(none)?;
                    match field {
                        NumericField::DstPort => packets.dst_ports = ranges,
                        NumericField::SrcPort => packets.src_ports = ranges,
                        NumericField::Length => packets.lengths = ranges,
                        NumericField::Protocol => {
                            packets.protocols = read_values(&ranges).ok_or(none)?;
                        }
                        NumericField::IcmpType => {
                            packets.icmp_types = read_values(&ranges).ok_or(none)?;
                        }
                        NumericField::IcmpCode => {
                            packets.icmp_codes = read_values(&ranges).ok_or(none)?;
                        }
                        NumericField::Dscp => packets.dscps = read_values(&ranges).ok_or(none)?,
                        NumericField::Port | NumericField::FlowLabel => return Err(none),
                    }
                }
                Component::Bits(BitField::TcpFlags, terms) => {
                    packets.tcp_flags = read_flags(terms).ok_or(none)?;
                }
                Component::Bits(BitField::Fragment, terms) => {
                    packets.fragment = Some(read_fragment(terms).ok_or(none)?);
                }
            }
        }
        Ok(packets.normalise())
    }
}

fn net_of(afi: Afi, p: &Prefix) -> Option<IpNet> {
    if p.offset != 0 {
        return None;
    }
    let address = match afi {
        Afi::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(p.bits >> 96).ok()?)),
        Afi::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(p.bits)),
    };
    IpNet::new(address, p.len).ok()
}

/// Or-ed values and ranges; anything else (not-equal, contradictions) has no equal.
fn read_ranges(terms: &[NumericTerm]) -> Option<Vec<Range>> {
    let mut list = Vec::with_capacity(terms.len());
    let mut rest = terms;
    while let [first, tail @ ..] = rest {
        let (mut from, mut to) = bounds(first)?;
        rest = tail;
        while let [next, tail @ ..] = rest {
            if !next.and {
                break;
            }
            let (low, high) = bounds(next)?;
            (from, to) = (from.max(low), to.min(high));
            rest = tail;
        }
        if from > to {
            return None;
        }
        list.push(Range { from, to });
    }
    Some(list)
}

fn bounds(term: &NumericTerm) -> Option<(u16, u16)> {
    let value = u16::try_from(term.value).ok()?;
    match (term.lt, term.gt, term.eq) {
        (false, false, true) => Some((value, value)),
        (false, true, true) => Some((value, u16::MAX)),
        (false, true, false) => Some((value.checked_add(1)?, u16::MAX)),
        (true, false, true) => Some((0, value)),
        (true, false, false) => Some((0, value.checked_sub(1)?)),
        _ => None,
    }
}

fn read_values(ranges: &[Range]) -> Option<Vec<u8>> {
    let mut list = Vec::new();
    for r in ranges {
        // An open end of an 8-bit field stops at its top.
        let to = if r.to == u16::MAX { 255 } else { u8::try_from(r.to).ok()? };
        list.extend(u8::try_from(r.from).ok()?..=to);
    }
    Some(list)
}

fn read_flags(terms: &[BitTerm]) -> Option<Vec<FlagMatch>> {
    let mut list: Vec<FlagMatch> = Vec::with_capacity(terms.len());
    for term in terms {
        let value = u8::try_from(term.value).ok()?;
        let one_bit = value.count_ones() == 1;
        let found = match (term.not, term.all || one_bit) {
            (false, true) => FlagMatch { mask: value, set: value },
            (true, _) if !term.all || one_bit => FlagMatch { mask: value, set: 0 },
            _ => return None,
        };
        match list.last_mut() {
            Some(last) if term.and => {
                // A bit wanted both on and off matches nothing.
                if last.mask & found.mask & (last.set ^ found.set) != 0 {
                    return None;
                }
                *last = FlagMatch { mask: last.mask | found.mask, set: last.set | found.set };
            }
            _ => list.push(found),
        }
    }
    list.iter().all(|m| m.mask != 0).then_some(list)
}

fn read_fragment(terms: &[BitTerm]) -> Option<FragmentMatch> {
    let [term] = terms else { return None };
    [
        FragmentMatch::IsFragment,
        FragmentMatch::NotFragment,
        FragmentMatch::First,
        FragmentMatch::Last,
    ]
    .into_iter()
    .find(|wanted| {
        let known = fragment_term(*wanted);
        // With a single bit, "all" and "any" mean the same.
        known.value == term.value
            && known.not == term.not
            && (known.all == term.all || term.value.count_ones() == 1)
    })
}
