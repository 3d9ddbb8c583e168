//! UPDATEs as a receiver reads them: for the built-in border router of demonstrations and tests.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::LargeCommunity;
use crate::flowspec::{Community6, ExtendedCommunity};

/// What is wrong with a received UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A length points past the end.
    #[error("UPDATE is cut short")]
    Truncated,
    /// An attribute has a length that it cannot have.
    #[error("attribute {0} has a wrong length")]
    Attribute(u8),
    /// A prefix longer than an address.
    #[error("prefix length {0} is out of range")]
    Prefix(u8),
}

/// NLRI of a family in MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760), not read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpNlri<'a> {
    /// AFI.
    pub afi: u16,
    /// SAFI.
    pub safi: u8,
    /// Next hop, empty when withdrawn.
    pub next_hop: &'a [u8],
    /// NLRI.
    pub nlri: &'a [u8],
}

/// An UPDATE, as far as weir has use for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedUpdate<'a> {
    /// IPv4 routes withdrawn.
    pub withdrawn: Vec<Ipv4Net>,
    /// IPv4 routes announced.
    pub announced: Vec<Ipv4Net>,
    /// Next hop of the IPv4 routes.
    pub next_hop: Option<Ipv4Addr>,
    /// Standard communities.
    pub communities: Vec<u32>,
    /// Extended communities.
    pub extended: Vec<ExtendedCommunity>,
    /// IPv6-address-specific extended communities.
    pub extended6: Vec<Community6>,
    /// Large communities.
    pub large: Vec<LargeCommunity>,
    /// Routes of other families announced.
    pub reach: Option<MpNlri<'a>>,
    /// Routes of other families withdrawn.
    pub unreach: Option<MpNlri<'a>>,
}

impl<'a> ReceivedUpdate<'a> {
    /// Reads the body of an UPDATE.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn read(body: &'a [u8]) -> Result<Self, UpdateError> {
        let (withdrawn, rest) = counted(body)?;
        let (mut attributes, nlri) = counted(rest)?;
        let mut update = Self { withdrawn: nets4(withdrawn)?, ..Self::default() };
        while let [flags, code, tail @ ..] = attributes {
            let (length, tail) = if flags & 0x10 == 0 {
                let (length, tail) = tail.split_first().ok_or(UpdateError::Truncated)?;
                (usize::from(*length), tail)
            } else {
                let (length, tail) = tail.split_first_chunk::<2>().ok_or(UpdateError::Truncated)?;
                (usize::from(u16::from_be_bytes(*length)), tail)
            };
            let (value, tail) = tail.split_at_checked(length).ok_or(UpdateError::Truncated)?;
            attributes = tail;
            update.attribute(*code, value)?;
        }
        if !attributes.is_empty() {
            return Err(UpdateError::Truncated);
        }
        update.announced = nets4(nlri)?;
        Ok(update)
    }

    fn attribute(&mut self, code: u8, value: &'a [u8]) -> Result<(), UpdateError> {
        let wrong = UpdateError::Attribute(code);
        match code {
            3 => {
                let octets: [u8; 4] = value.try_into().map_err(|_| wrong)?;
                self.next_hop = Some(octets.into());
            }
            8 => self.communities = items(value, wrong)?.map(u32::from_be_bytes).collect(),
            14 => self.reach = Some(reach(value).ok_or(wrong)?),
            15 => {
                let ([high, low, safi], nlri) = value.split_first_chunk::<3>().ok_or(wrong)?;
                let afi = u16::from_be_bytes([*high, *low]);
                self.unreach = Some(MpNlri { afi, safi: *safi, next_hop: &[], nlri });
            }
            16 => self.extended = items(value, wrong)?.collect(),
            25 => self.extended6 = items(value, wrong)?.collect(),
            32 => {
                self.large = items::<12>(value, wrong)?
                    .map(|o| {
                        let word =
                            |i: usize| u32::from_be_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
                        LargeCommunity { asn: word(0), first: word(4), second: word(8) }
                    })
                    .collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether this is the end-of-RIB mark of a family (RFC 4724 §2), and of which.
    pub fn end_of_rib(&self) -> Option<(u16, u8)> {
        if !self.withdrawn.is_empty() || !self.announced.is_empty() || self.reach.is_some() {
            return None;
        }
        match self.unreach {
            None => Some((1, 1)),
            Some(mp) if mp.nlri.is_empty() => Some((mp.afi, mp.safi)),
            Some(_) => None,
        }
    }
}

impl MpNlri<'_> {
    /// IPv6 prefixes of a unicast NLRI.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn nets6(&self) -> Result<Vec<Ipv6Net>, UpdateError> {
        prefixes::<16>(self.nlri)?
            .into_iter()
            .map(|(octets, len)| {
                let net = Ipv6Net::new(Ipv6Addr::from(octets), len);
                net.map(|n| n.trunc()).map_err(|_| UpdateError::Prefix(len))
            })
            .collect()
    }
}

fn nets4(octets: &[u8]) -> Result<Vec<Ipv4Net>, UpdateError> {
    prefixes::<4>(octets)?
        .into_iter()
        .map(|(octets, len)| {
            let net = Ipv4Net::new(Ipv4Addr::from(octets), len);
            net.map(|n| n.trunc()).map_err(|_| UpdateError::Prefix(len))
        })
        .collect()
}

/// `| length in bits (1) | prefix, as many octets as that takes |`, repeated.
fn prefixes<const N: usize>(mut rest: &[u8]) -> Result<Vec<([u8; N], u8)>, UpdateError> {
    let mut list = Vec::new();
    while let [len, tail @ ..] = rest {
        let octets = usize::from(len.div_ceil(8));
        if octets > N {
            return Err(UpdateError::Prefix(*len));
        }
        let (value, tail) = tail.split_at_checked(octets).ok_or(UpdateError::Truncated)?;
        rest = tail;
        let mut address = [0; N];
        address[..octets].copy_from_slice(value);
        list.push((address, *len));
    }
    Ok(list)
}

fn items<const N: usize>(
    value: &[u8],
    wrong: UpdateError,
) -> Result<impl Iterator<Item = [u8; N]>, UpdateError> {
    let (chunks, rest) = value.as_chunks::<N>();
    if rest.is_empty() { Ok(chunks.iter().copied()) } else { Err(wrong) }
}

/// `| AFI (2) | SAFI (1) | next hop's length (1) | next hop | reserved (1) | NLRI |`
fn reach(value: &[u8]) -> Option<MpNlri<'_>> {
    let ([high, low, safi, length], rest) = value.split_first_chunk::<4>()?;
    let (next_hop, rest) = rest.split_at_checked(usize::from(*length))?;
    let (_, nlri) = rest.split_first()?;
    Some(MpNlri { afi: u16::from_be_bytes([*high, *low]), safi: *safi, next_hop, nlri })
}

/// Octets behind a length of two octets, and the rest.
fn counted(octets: &[u8]) -> Result<(&[u8], &[u8]), UpdateError> {
    let (length, rest) = octets.split_first_chunk::<2>().ok_or(UpdateError::Truncated)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(UpdateError::Truncated)
}
