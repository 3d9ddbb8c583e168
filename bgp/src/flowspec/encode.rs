//! Rule -> octets.

use weir_model::Match;

use super::{Afi, BitField, BitTerm, Component, MAX_BODY, Nlri, NumericTerm, Prefix};

/// Why a rule cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than [`MAX_BODY`] octets: split the lists over several rules.
    #[error("rule takes {0} octets, more than {MAX_BODY}")]
    TooLong(usize),
    /// Components out of order, doubled or with an empty list.
    #[error("components are not strictly ascending, or one is empty")]
    Malformed,
    /// A value that the component cannot hold.
    #[error("value {value} does not fit component type {component}")]
    Value {
        /// Component type.
        component: u8,
        /// The value.
        value: u64,
    },
    /// Destination and source of different families, or a component the family lacks.
    #[error("component type {0} does not belong to the rule's address family")]
    Family(u8),
    /// An IPv6 prefix with an offset: routers disagree on its meaning or reset the session.
    #[error("IPv6 prefix offset {0} is not sent")]
    Offset(u8),
    /// A TCP flag match that looks at no bit, or wants a bit it does not look at.
    #[error("TCP flag match is empty or contradicts itself")]
    Flags,
}

/// The NLRI of a match, with its length octet.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode(packets: &Match) -> Result<Vec<u8>, EncodeError> {
    encode_nlri(&Nlri::try_from(packets)?)
}

/// The NLRI of a rule, with its length octet.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_nlri(nlri: &Nlri) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0];
    let mut last = 0;
    for component in &nlri.components {
        let code = component.code();
        if code <= last {
            return Err(EncodeError::Malformed);
        }
        last = code;
        out.push(code);
        match component {
            Component::Destination(p) | Component::Source(p) => {
                prefix(nlri.afi, code, p, &mut out)?;
            }
            Component::Numeric(_, terms) => numeric(nlri.afi, code, terms, &mut out)?,
            Component::Bits(field, terms) => bits(nlri.afi, *field, terms, &mut out)?,
        }
    }
    let body = out.len() - 1;
    match u8::try_from(body) {
        Ok(_) if body == 0 => Err(EncodeError::Malformed),
        Ok(len) if body <= MAX_BODY => {
            out[0] = len;
            Ok(out)
        }
        _ => Err(EncodeError::TooLong(body)),
    }
}

fn prefix(afi: Afi, code: u8, p: &Prefix, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if p.len > afi.max_prefix_len() {
        return Err(EncodeError::Value { component: code, value: u64::from(p.len) });
    }
    if p.offset != 0 {
        return Err(EncodeError::Offset(p.offset));
    }
    out.push(p.len);
    if afi == Afi::Ipv6 {
        out.push(0);
    }
    let bits = p.bits & super::decode::mask(p.len);
    out.extend_from_slice(&bits.to_be_bytes()[..usize::from(p.len.div_ceil(8))]);
    Ok(())
}

/// Largest value of a numeric component.
const fn limit(afi: Afi, code: u8) -> Option<u64> {
    match (code, afi) {
        (3 | 7 | 8, _) => Some(0xff),
        (4..=6 | 10, _) => Some(0xffff),
        (11, _) => Some(63),
        (13, Afi::Ipv6) => Some(0x000f_ffff),
        _ => None,
    }
}

fn numeric(
    afi: Afi,
    code: u8,
    terms: &[NumericTerm],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let limit = limit(afi, code).ok_or(EncodeError::Family(code))?;
    let last = terms.len().checked_sub(1).ok_or(EncodeError::Malformed)?;
    for (i, term) in terms.iter().enumerate() {
        if term.value > limit {
            return Err(EncodeError::Value { component: code, value: term.value });
        }
        let op = operator(i == last, i > 0 && term.and)
            | u8::from(term.lt) << 2
            | u8::from(term.gt) << 1
            | u8::from(term.eq);
        value(op, term.value, out);
    }
    Ok(())
}

fn bits(
    afi: Afi,
    field: BitField,
    terms: &[BitTerm],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let allowed = match (field, afi) {
        (BitField::TcpFlags, _) => 0x0fff,
        (BitField::Fragment, Afi::Ipv4) => 0x0f,
        // RFC 8956 §3.6: the DF bit must be 0, IPv6 has none.
        (BitField::Fragment, Afi::Ipv6) => 0x0e,
    };
    let last = terms.len().checked_sub(1).ok_or(EncodeError::Malformed)?;
    for (i, term) in terms.iter().enumerate() {
        if term.value & !allowed != 0 {
            let value = u64::from(term.value);
            return Err(EncodeError::Value { component: field as u8, value });
        }
        let op =
            operator(i == last, i > 0 && term.and) | u8::from(term.not) << 1 | u8::from(term.all);
        value(op, u64::from(term.value), out);
    }
    Ok(())
}

const fn operator(last: bool, and: bool) -> u8 {
    (last as u8) << 7 | (and as u8) << 6
}

/// Operator and value in the fewest octets: 1, 2 or 4.
fn value(op: u8, value: u64, out: &mut Vec<u8>) {
    let (size, len) = match value {
        0..=0xff => (0, 1),
        0x100..=0xffff => (1, 2),
        _ => (2, 4),
    };
    out.push(op | size << 4);
    out.extend_from_slice(&value.to_be_bytes()[8 - len..]);
}
