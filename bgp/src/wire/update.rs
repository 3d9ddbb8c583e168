//! UPDATEs that weir sends: one route each, so that a route a peer dislikes costs no other.

use std::net::{IpAddr, Ipv4Addr};

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::community::{
    Community, ExtendedCommunity as TypedExtended, LargeCommunity as TypedLarge,
    UnknownExtendedCommunity,
};
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    As2PathSegment, As4PathSegment, AsPath, AsPathSegmentType, Communities, ExtendedCommunities,
    LargeCommunities, LocalPreference, MpReach, MpUnreach, NextHop, Origin, PathAttribute,
    PathAttributeValue, UnknownAttribute,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_parse_utils::WritablePdu;
use weir_model::IpNet;

use super::open::AS_TRANS;
use super::{Family, MAX_MESSAGE, kind};
use crate::flowspec::{Afi, Community6, ExtendedCommunity};

/// Attributes of at most this many octets have a length of one octet (RFC 4271 §4.3).
const SHORT_ATTRIBUTE: usize = 255;

/// Why a message was not written: it is never sent in part or with a length that lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message would take {0} octets, more than {MAX_MESSAGE}")]
    TooLong(usize),
    /// The codec wrote another number of octets than the message's length says.
    #[error("message says {said} octets but has {wrote}")]
    Length {
        /// In the length field.
        said: usize,
        /// Written.
        wrote: usize,
    },
    /// The codec refused an attribute or a prefix.
    #[error("message cannot be encoded")]
    Codec,
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// AS number.
    pub asn: u32,
    /// First value.
    pub first: u32,
    /// Second value.
    pub second: u32,
}

/// What a route carries besides its destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// AS to put into the path; `None` within one AS, where the path is empty and LOCAL_PREF is
    /// sent instead.
    pub prepend: Option<u32>,
    /// The peer reads four-octet AS numbers (RFC 6793).
    pub as4: bool,
    /// LOCAL_PREF within one AS.
    pub local_pref: u32,
    /// Standard communities (RFC 1997).
    pub communities: Vec<u32>,
    /// Extended communities (RFC 4360).
    pub extended: Vec<ExtendedCommunity>,
    /// IPv6-address-specific extended communities (RFC 5701).
    pub extended6: Vec<Community6>,
    /// Large communities.
    pub large: Vec<LargeCommunity>,
}

fn attribute(
    optional: bool,
    transitive: bool,
    length: usize,
    value: PathAttributeValue,
) -> Result<PathAttribute, WriteError> {
    // The codec does not set the flag by itself, and then writes a length of the wrong width.
    PathAttribute::from(optional, transitive, false, length > SHORT_ATTRIBUTE, value)
        .map_err(|_| WriteError::Codec)
}

fn raw(optional_transitive: bool, code: u8, value: Vec<u8>) -> Result<PathAttribute, WriteError> {
    let length = value.len();
    let value = PathAttributeValue::UnknownAttribute(UnknownAttribute::new(code, value));
    attribute(true, optional_transitive, length, value)
}

impl Attributes {
    /// In ascending order of type (RFC 4271 §5); MP_REACH_NLRI goes before them.
    fn write(&self, next_hop: Option<Ipv4Addr>) -> Result<Vec<PathAttribute>, WriteError> {
        let mut list = vec![
            attribute(false, true, 1, PathAttributeValue::Origin(Origin::IGP))?,
            attribute(false, true, 6, PathAttributeValue::AsPath(self.as_path()))?,
        ];
        if let Some(next_hop) = next_hop {
            list.push(attribute(
                false,
                true,
                4,
                PathAttributeValue::NextHop(NextHop::new(next_hop)),
            )?);
        }
        if self.prepend.is_none() {
            let value = PathAttributeValue::LocalPreference(LocalPreference::new(self.local_pref));
            list.push(attribute(false, true, 4, value)?);
        }
        if !self.communities.is_empty() {
            let values: Vec<_> = self.communities.iter().map(|c| Community::new(*c)).collect();
            let value = PathAttributeValue::Communities(Communities::new(values));
            list.push(attribute(true, true, self.communities.len() * 4, value)?);
        }
        if !self.extended.is_empty() {
            let values: Vec<_> = self
                .extended
                .iter()
                .map(|[kind, sub, value @ ..]| {
                    TypedExtended::Unknown(UnknownExtendedCommunity::new(*kind, *sub, *value))
                })
                .collect();
            let value = PathAttributeValue::ExtendedCommunities(ExtendedCommunities::new(values));
            list.push(attribute(true, true, self.extended.len() * 8, value)?);
        }
        if let Some(asn) = self.prepend.filter(|asn| !self.as4 && u16::try_from(*asn).is_err()) {
            // AS4_PATH carries past an old speaker what AS_TRANS hides (RFC 6793 §4.2.2).
            let mut path = vec![2, 1];
            path.extend_from_slice(&asn.to_be_bytes());
            list.push(raw(true, 17, path)?);
        }
        if !self.extended6.is_empty() {
            list.push(raw(true, 25, self.extended6.concat())?);
        }
        if !self.large.is_empty() {
            let values: Vec<_> =
                self.large.iter().map(|c| TypedLarge::new(c.asn, c.first, c.second)).collect();
            let value = PathAttributeValue::LargeCommunities(LargeCommunities::new(values));
            list.push(attribute(true, true, self.large.len() * 12, value)?);
        }
        Ok(list)
    }

    fn as_path(&self) -> AsPath {
        let sequence = AsPathSegmentType::AsSequence;
        match (self.prepend, self.as4) {
            (None, true) => AsPath::As4PathSegments(Box::new([])),
            (None, false) => AsPath::As2PathSegments(Box::new([])),
            (Some(asn), true) => {
                AsPath::As4PathSegments(vec![As4PathSegment::new(sequence, vec![asn])].into())
            }
            (Some(asn), false) => {
                let asn = u16::try_from(asn).unwrap_or(AS_TRANS);
                AsPath::As2PathSegments(vec![As2PathSegment::new(sequence, vec![asn])].into())
            }
        }
    }
}

/// Writes a message and holds it against its own length field.
pub(super) fn checked(message: &BgpMessage) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::with_capacity(128);
    message.write(&mut out).map_err(|_| WriteError::Codec)?;
    if out.len() > MAX_MESSAGE {
        return Err(WriteError::TooLong(out.len()));
    }
    let said = out.get(16..18).map_or(0, |l| usize::from(l[0]) << 8 | usize::from(l[1]));
    if said != out.len() || message.len() != out.len() {
        return Err(WriteError::Length { said, wrote: out.len() });
    }
    Ok(out)
}

fn update(
    withdrawn: Vec<Ipv4UnicastAddress>,
    attributes: Vec<PathAttribute>,
    nlri: Vec<Ipv4UnicastAddress>,
) -> Result<Vec<u8>, WriteError> {
    checked(&BgpMessage::Update(BgpUpdateMessage::new(withdrawn, attributes, nlri)))
}

fn v4(net: ipnet::Ipv4Net) -> Result<Ipv4UnicastAddress, WriteError> {
    let net = Ipv4Unicast::from_net(net.trunc()).map_err(|_| WriteError::Codec)?;
    Ok(Ipv4UnicastAddress::new_no_path_id(net))
}

fn v6(net: ipnet::Ipv6Net) -> Result<Ipv6UnicastAddress, WriteError> {
    let net = Ipv6Unicast::from_net(net.trunc()).map_err(|_| WriteError::Codec)?;
    Ok(Ipv6UnicastAddress::new(None, net))
}

/// Announces a unicast route.
///
/// # Errors
/// [`WriteError`]; [`WriteError::Codec`] too when the next hop is of the other family.
pub fn announce_unicast(
    net: IpNet,
    next_hop: IpAddr,
    attributes: &Attributes,
) -> Result<Vec<u8>, WriteError> {
    match (net, next_hop) {
        (IpNet::V4(net), IpAddr::V4(next_hop)) => {
            update(vec![], attributes.write(Some(next_hop))?, vec![v4(net)?])
        }
        (IpNet::V6(net), IpAddr::V6(next_hop)) => {
            let value = PathAttributeValue::MpReach(MpReach::Ipv6Unicast {
                next_hop_global: next_hop,
                next_hop_local: None,
                nlri: vec![v6(net)?].into(),
            });
            update(vec![], reach_first(attribute(true, false, 0, value)?, attributes)?, vec![])
        }
        _ => Err(WriteError::Codec),
    }
}

/// Withdraws a unicast route.
///
/// # Errors
/// [`WriteError`].
pub fn withdraw_unicast(net: IpNet) -> Result<Vec<u8>, WriteError> {
    match net {
        IpNet::V4(net) => update(vec![v4(net)?], vec![], vec![]),
        IpNet::V6(net) => {
            let value = PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast {
                nlri: vec![v6(net)?].into(),
            });
            update(vec![], vec![attribute(true, false, 0, value)?], vec![])
        }
    }
}

/// Announces one FlowSpec rule; `nlri` with its length. The next hop is empty (RFC 8955 §4).
///
/// # Errors
/// [`WriteError`].
pub fn announce_flow(
    afi: Afi,
    nlri: &[u8],
    attributes: &Attributes,
) -> Result<Vec<u8>, WriteError> {
    let (code, safi) = Family::flowspec(afi).code();
    let [high, low] = code.to_be_bytes();
    // As a raw attribute: the codec's MP_REACH of an unknown family counts one octet too many.
    let mut value = vec![high, low, safi, 0, 0];
    value.extend_from_slice(nlri);
    update(vec![], reach_first(raw(false, 14, value)?, attributes)?, vec![])
}

/// MP_REACH_NLRI before everything else (RFC 7606 §5.1): a receiver that stumbles over a later
/// attribute then knows which routes to treat as withdrawn, and need not end the session.
fn reach_first(
    reach: PathAttribute,
    attributes: &Attributes,
) -> Result<Vec<PathAttribute>, WriteError> {
    let mut list = vec![reach];
    list.extend(attributes.write(None)?);
    Ok(list)
}

/// Withdraws one FlowSpec rule.
///
/// # Errors
/// [`WriteError`].
pub fn withdraw_flow(afi: Afi, nlri: &[u8]) -> Result<Vec<u8>, WriteError> {
    unreach(Family::flowspec(afi), nlri)
}

/// The mark that everything of a family has been announced (RFC 4724 §2).
///
/// # Errors
/// [`WriteError`].
pub fn end_of_rib(family: Family) -> Result<Vec<u8>, WriteError> {
    match family {
        Family::Ipv4Unicast => super::frame(kind::UPDATE, &[0; 4]),
        other => unreach(other, &[]),
    }
}

fn unreach(family: Family, nlri: &[u8]) -> Result<Vec<u8>, WriteError> {
    let (afi, safi) = family.code();
    let [high, low] = afi.to_be_bytes();
    let mut value = vec![high, low, safi];
    value.extend_from_slice(nlri);
    update(vec![], vec![raw(false, 15, value)?], vec![])
}
