//! FlowSpec rules on the wire (RFC 8955, RFC 8956): own codec, because no maintained crate writes
//! them without faults that reset a router's session.
//!
//! Invariants of what [`encode()`] writes, each the answer to a router that misbehaved: components
//! strictly ascending; the first operator of a list never carries AND; the end bit on the last one
//! only; reserved bits 0; the smallest value size; IPv6 offset 0; under [`MAX_BODY`] octets, so
//! that the length is a single octet. [`decode()`] is as liberal as the RFC asks and never panics.

mod action;
mod decode;
mod encode;
mod rule;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use action::{ActionError, Community6, ExtendedCommunity, TrafficAction, communities};
pub use decode::{DecodeError, decode, decode_all};
pub use encode::{EncodeError, encode, encode_nlri};
pub use rule::NotExpressible;

/// Largest NLRI body that is sent, octets: one less than where the length takes a second octet,
/// which FRR answers with NOTIFICATION 3/9 and GoBGP drops in silence.
pub const MAX_BODY: usize = 239;

/// Largest NLRI body that is accepted, octets (RFC 8955 §4.1).
pub const MAX_BODY_RECEIVED: usize = 4095;

/// Address family of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Afi {
    /// IPv4 (AFI 1).
    Ipv4,
    /// IPv6 (AFI 2).
    Ipv6,
}

impl Afi {
    /// Longest prefix, bits.
    pub const fn max_prefix_len(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

/// A prefix component. Bits are left-aligned in 128 bits for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address's bits, left-aligned; bits before `offset` and from `len` on are 0.
    pub bits: u128,
    /// Prefix length, 0-32 or 0-128.
    pub len: u8,
    /// First bit compared, IPv6 only (RFC 8956 §3.1). Decoded, never sent.
    pub offset: u8,
}

/// Components that compare numbers (RFC 8955 §4.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum NumericField {
    /// IP protocol, or upper-layer protocol of IPv6.
    Protocol = 3,
    /// Source or destination port.
    Port = 4,
    /// Destination port.
    DstPort = 5,
    /// Source port.
    SrcPort = 6,
    /// ICMP type.
    IcmpType = 7,
    /// ICMP code.
    IcmpCode = 8,
    /// Layer-3 packet length, octets.
    Length = 10,
    /// DSCP, 0-63.
    Dscp = 11,
    /// Flow label, IPv6 only (RFC 8956 §3.7).
    FlowLabel = 13,
}

/// Components that compare bits (RFC 8955 §4.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BitField {
    /// TCP control bits, 1 or 2 octets.
    TcpFlags = 9,
    /// Fragment bits.
    Fragment = 12,
}

/// Fragment bits (RFC 8955 §4.2.2.12).
pub mod fragment {
    /// Don't fragment; IPv4 only.
    pub const DONT: u8 = 0x01;
    /// A fragment other than the first.
    pub const IS: u8 = 0x02;
    /// The first fragment.
    pub const FIRST: u8 = 0x04;
    /// The last fragment.
    pub const LAST: u8 = 0x08;
}

/// One comparison of a numeric component: true where any of `lt`, `gt`, `eq` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumericTerm {
    /// Joined to the term before by AND, else by OR.
    pub and: bool,
    /// Less than the value.
    pub lt: bool,
    /// Greater than the value.
    pub gt: bool,
    /// Equal to the value.
    pub eq: bool,
    /// What is compared with.
    pub value: u64,
}

/// One comparison of a bit component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitTerm {
    /// Joined to the term before by AND, else by OR.
    pub and: bool,
    /// The result is inverted.
    pub not: bool,
    /// All bits of the value must be on, else any.
    pub all: bool,
    /// The bits.
    pub value: u16,
}

/// One component of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Destination prefix (type 1).
    Destination(Prefix),
    /// Source prefix (type 2).
    Source(Prefix),
    /// Numbers.
    Numeric(NumericField, Vec<NumericTerm>),
    /// Bits.
    Bits(BitField, Vec<BitTerm>),
}

impl Component {
    /// The component's type on the wire.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Destination(_) => 1,
            Self::Source(_) => 2,
            Self::Numeric(field, _) => *field as u8,
            Self::Bits(field, _) => *field as u8,
        }
    }
}

/// The packets of a rule, as FlowSpec can say it: more than [`weir_model::Match`] can.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// Address family.
    pub afi: Afi,
    /// Components, strictly ascending by type.
    pub components: Vec<Component>,
}

impl fmt::Display for Nlri {
    /// Every component by its type name and terms, for logs: `dst cb007101/32 proto =17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, component) in self.components.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            match component {
                Component::Destination(p) => {
                    write!(f, "dst {:032x}/{}-{}", p.bits, p.offset, p.len)
                }
                Component::Source(p) => write!(f, "src {:032x}/{}-{}", p.bits, p.offset, p.len),
                Component::Numeric(field, terms) => {
                    write!(f, "{field:?}")?;
                    terms.iter().try_for_each(|t| {
                        let join = if t.and { "&" } else { " " };
                        let lt = if t.lt { "<" } else { "" };
                        let gt = if t.gt { ">" } else { "" };
                        let eq = if t.eq { "=" } else { "" };
                        write!(f, "{join}{lt}{gt}{eq}{}", t.value)
                    })
                }
                Component::Bits(field, terms) => {
                    write!(f, "{field:?}")?;
                    terms.iter().try_for_each(|t| {
                        let join = if t.and { "&" } else { " " };
                        let not = if t.not { "!" } else { "" };
                        let all = if t.all { "=" } else { "" };
                        write!(f, "{join}{not}{all}{:#x}", t.value)
                    })
                }
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
