//! Octets -> rule.

use super::{
    Afi, BitField, BitTerm, Component, MAX_BODY_RECEIVED, Nlri, NumericField, NumericTerm, Prefix,
};

/// What is wrong with received octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end within a component, or before the length they announce.
    #[error("rule is cut short")]
    Truncated,
    /// Octets after the rule.
    #[error("octets follow the rule")]
    Trailing,
    /// No component at all.
    #[error("rule is empty")]
    Empty,
    /// A component type not known here: the rule cannot be understood (RFC 8955 §4.2).
    #[error("unknown component type {0}")]
    Component(u8),
    /// Component types not strictly ascending.
    #[error("component type {0} is out of order")]
    Order(u8),
    /// A prefix longer than an address, or an offset not before its end.
    #[error("prefix length {0} is out of range")]
    Prefix(u8),
    /// A value in more octets than the component has.
    #[error("value of component type {0} is too wide")]
    Width(u8),
    /// A fragment or TCP bit that must be 0.
    #[error("component type {0} has a reserved bit")]
    Reserved(u8),
}

/// Cursor over octets that never reads past them.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn octet(&mut self) -> Result<u8, DecodeError> {
        self.take(1).map(|b| b[0])
    }
}

/// The rule in `octets`, which hold one NLRI with its length and nothing else.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(afi: Afi, octets: &[u8]) -> Result<Nlri, DecodeError> {
    let mut reader = Reader(octets);
    let body = body(&mut reader)?;
    if !reader.0.is_empty() {
        return Err(DecodeError::Trailing);
    }
    components(afi, body)
}

/// The rules in `octets`, one after the other. A rule that cannot be read loses only itself; the
/// list ends where a length lies.
pub fn decode_all(
    afi: Afi,
    octets: &[u8],
) -> impl Iterator<Item = (&[u8], Result<Nlri, DecodeError>)> {
    let mut reader = Reader(octets);
    std::iter::from_fn(move || {
        if reader.0.is_empty() {
            return None;
        }
        let start = reader.0;
        match body(&mut reader) {
            Ok(body) => {
                let whole = &start[..start.len() - reader.0.len()];
                Some((whole, components(afi, body)))
            }
            Err(error) => {
                reader.0 = &[];
                Some((start, Err(error)))
            }
        }
    })
}

/// Strips the length (RFC 8955 §4.1): one octet below 0xf0, else two with the top nibble cleared.
fn body<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let first = reader.octet()?;
    let len = if first < 0xf0 {
        usize::from(first)
    } else {
        usize::from(first & 0x0f) << 8 | usize::from(reader.octet()?)
    };
    debug_assert!(len <= MAX_BODY_RECEIVED);
    reader.take(len)
}

fn components(afi: Afi, body: &[u8]) -> Result<Nlri, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Empty);
    }
    let mut reader = Reader(body);
    let mut components = Vec::with_capacity(4);
    let mut last = 0;
    while !reader.0.is_empty() {
        let code = reader.octet()?;
        if code <= last {
            return Err(DecodeError::Order(code));
        }
        last = code;
        components.push(component(afi, code, &mut reader)?);
    }
    Ok(Nlri { afi, components })
}

fn component(afi: Afi, code: u8, reader: &mut Reader<'_>) -> Result<Component, DecodeError> {
    let numeric_field = match code {
        1 => return prefix(afi, reader).map(Component::Destination),
        2 => return prefix(afi, reader).map(Component::Source),
        9 => return bits(afi, BitField::TcpFlags, reader),
        12 => return bits(afi, BitField::Fragment, reader),
        3 => NumericField::Protocol,
        4 => NumericField::Port,
        5 => NumericField::DstPort,
        6 => NumericField::SrcPort,
        7 => NumericField::IcmpType,
        8 => NumericField::IcmpCode,
        10 => NumericField::Length,
        11 => NumericField::Dscp,
        13 if afi == Afi::Ipv6 => NumericField::FlowLabel,
        _ => return Err(DecodeError::Component(code)),
    };
    numeric(numeric_field, reader)
}

/// Bits 0..len of 128, from the left.
pub(super) const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
}

/// ```text
/// IPv4: | length (1) | prefix (variable) |
/// IPv6: | length (1) | offset (1) | pattern (variable), bits offset..length, left-aligned |
/// ```
fn prefix(afi: Afi, reader: &mut Reader<'_>) -> Result<Prefix, DecodeError> {
    let len = reader.octet()?;
    let offset = if afi == Afi::Ipv6 { reader.octet()? } else { 0 };
    if len > afi.max_prefix_len() || (offset >= len && offset != 0) {
        return Err(DecodeError::Prefix(len));
    }
    let pattern_bits = len - offset;
    let pattern = reader.take(usize::from(pattern_bits.div_ceil(8)))?;
    let mut octets = [0; 16];
    octets[..pattern.len()].copy_from_slice(pattern);
    // Trailing bits are irrelevant (RFC 4271 §4.3): cleared, so that equal rules compare equal.
    let bits = (u128::from_be_bytes(octets) & mask(pattern_bits)) >> offset;
    Ok(Prefix { bits, len, offset })
}

/// ```text
///   0   1   2   3   4   5   6   7
/// +---+---+---+---+---+---+---+---+
/// | e | a |  len  | 0 |lt |gt |eq |   numeric operator (RFC 8955 §4.2.1.1)
/// | e | a |  len  | 0 | 0 |not| m |   bitmask operator (RFC 8955 §4.2.1.2)
/// +---+---+---+---+---+---+---+---+
/// ```
fn operand(code: u8, widest: usize, reader: &mut Reader<'_>) -> Result<(u8, u64), DecodeError> {
    let op = reader.octet()?;
    let size = 1_usize << (op >> 4 & 3);
    let octets = reader.take(size)?;
    if size > widest {
        return Err(DecodeError::Width(code));
    }
    Ok((op, octets.iter().fold(0, |v, o| v << 8 | u64::from(*o))))
}

fn numeric(field: NumericField, reader: &mut Reader<'_>) -> Result<Component, DecodeError> {
    let code = field as u8;
    // Ports and lengths SHOULD take 1 or 2 octets, the label 1, 2 or 4; the rest MUST take 1.
    let widest = match field {
        NumericField::FlowLabel => 4,
        NumericField::Port
        | NumericField::DstPort
        | NumericField::SrcPort
        | NumericField::Length => 2,
        _ => 1,
    };
    let mut terms = Vec::new();
    loop {
        let (op, value) = operand(code, widest, reader)?;
        terms.push(NumericTerm {
            // On the first operator AND must be treated as unset.
            and: op & 0x40 != 0 && !terms.is_empty(),
            lt: op & 4 != 0,
            gt: op & 2 != 0,
            eq: op & 1 != 0,
            value,
        });
        if op & 0x80 != 0 {
            return Ok(Component::Numeric(field, terms));
        }
    }
}

fn bits(afi: Afi, field: BitField, reader: &mut Reader<'_>) -> Result<Component, DecodeError> {
    let code = field as u8;
    let (widest, allowed) = match (field, afi) {
        (BitField::TcpFlags, _) => (2, 0x0fff),
        (BitField::Fragment, Afi::Ipv4) => (1, 0x0f),
        (BitField::Fragment, Afi::Ipv6) => (1, 0x0e),
    };
    let mut terms = Vec::new();
    loop {
        let (op, value) = operand(code, widest, reader)?;
        if value & !allowed != 0 {
            return Err(DecodeError::Reserved(code));
        }
        terms.push(BitTerm {
            and: op & 0x40 != 0 && !terms.is_empty(),
            not: op & 2 != 0,
            all: op & 1 != 0,
            value: u16::try_from(value).map_err(|_| DecodeError::Width(code))?,
        });
        if op & 0x80 != 0 {
            return Ok(Component::Bits(field, terms));
        }
    }
}
