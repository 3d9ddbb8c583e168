//! What a rule does, as extended communities (RFC 8955 §7, RFC 8956 §6).
//!
//! ```text
//! | type (1) | sub-type (1) | value (6) |
//! 0x80 06  traffic-rate-bytes    AS (2)      | IEEE float (4), octets a second
//! 0x80 0c  traffic-rate-packets  AS (2)      | IEEE float (4), packets a second
//! 0x80 07  traffic-action        0 (5)       | ... S T
//! 0x80 08  rt-redirect           AS (2)      | value (4)
//! 0x81 08  rt-redirect           IPv4 (4)    | value (2)
//! 0x82 08  rt-redirect           AS (4)      | value (2)
//! 0x80 09  traffic-marking       0 (5)       | DSCP
//! 0x01 0c  redirect-to-IPv4      IPv4 (4)    | ... C (2) draft-ietf-idr-flowspec-redirect-ip
//! 0x00 0c  redirect-to-IPv6      IPv6 (16)   | ... C (2) in attribute 25
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{Action, Redirect};

/// An extended community as it stands on the wire (RFC 4360).
pub type ExtendedCommunity = [u8; 8];

/// An IPv6-address-specific extended community (RFC 5701).
pub type Community6 = [u8; 20];

/// Why octets are not an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Not a FlowSpec action.
    #[error("not a FlowSpec action")]
    Unknown,
    /// A rate that is negative or not a number.
    #[error("rate is negative or not a number")]
    Rate,
}

/// Everything a FlowSpec community can ask for: more than [`Action`] can.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrafficAction {
    /// At most so many octets a second; 0 discards.
    RateBytes {
        /// Informative AS, its low 16 bits.
        asn: u16,
        /// Octets a second, not negative.
        rate: f32,
    },
    /// At most so many packets a second; 0 discards.
    RatePackets {
        /// Informative AS, its low 16 bits.
        asn: u16,
        /// Packets a second, not negative.
        rate: f32,
    },
    /// Sampling, and whether later rules are looked at.
    Control {
        /// Sample and log.
        sample: bool,
        /// The wire bit T: on means that evaluation of later rules goes on (RFC 8955 §7.3).
        go_on: bool,
    },
    /// Into the routing table with a 2-octet-AS route target.
    RedirectAs2 {
        /// AS.
        asn: u16,
        /// Value.
        value: u32,
    },
    /// Into the routing table with an IPv4-address route target.
    RedirectIpv4 {
        /// Address.
        address: Ipv4Addr,
        /// Value.
        value: u16,
    },
    /// Into the routing table with a 4-octet-AS route target.
    RedirectAs4 {
        /// AS.
        asn: u32,
        /// Value.
        value: u16,
    },
    /// To an IPv4 next hop.
    RedirectNextHop(Ipv4Addr),
    /// A copy to an IPv4 next hop.
    CopyNextHop(Ipv4Addr),
    /// Set the DSCP.
    Mark(
        /// DSCP, 0-63.
        u8,
    ),
}

impl TrafficAction {
    /// The community of this action.
    pub fn encode(self) -> ExtendedCommunity {
        match self {
            Self::RateBytes { asn, rate } => rate_community(0x06, asn, rate),
            Self::RatePackets { asn, rate } => rate_community(0x0c, asn, rate),
            Self::Control { sample, go_on } => {
                [0x80, 0x07, 0, 0, 0, 0, 0, u8::from(sample) << 1 | u8::from(go_on)]
            }
            Self::RedirectAs2 { asn, value } => {
                let (a, v) = (asn.to_be_bytes(), value.to_be_bytes());
                [0x80, 0x08, a[0], a[1], v[0], v[1], v[2], v[3]]
            }
            Self::RedirectIpv4 { address, value } => {
                let (a, v) = (address.octets(), value.to_be_bytes());
                [0x81, 0x08, a[0], a[1], a[2], a[3], v[0], v[1]]
            }
            Self::RedirectAs4 { asn, value } => {
                let (a, v) = (asn.to_be_bytes(), value.to_be_bytes());
                [0x82, 0x08, a[0], a[1], a[2], a[3], v[0], v[1]]
            }
            Self::RedirectNextHop(address) => {
                let a = address.octets();
                [0x01, 0x0c, a[0], a[1], a[2], a[3], 0, 0]
            }
            Self::CopyNextHop(address) => {
                let a = address.octets();
                [0x01, 0x0c, a[0], a[1], a[2], a[3], 0, COPY]
            }
            Self::Mark(dscp) => [0x80, 0x09, 0, 0, 0, 0, 0, dscp & 63],
        }
    }

    /// The action of a community.
    ///
    /// # Errors
    /// [`ActionError::Unknown`] for other communities, [`ActionError::Rate`] for impossible rates.
    pub fn decode(community: ExtendedCommunity) -> Result<Self, ActionError> {
        let [kind, sub, a, b, c, d, e, f] = community;
        let rate = || {
            let rate = f32::from_be_bytes([c, d, e, f]);
            // RFC 8955 §7.1: NaN and infinities are invalid, negative values too.
            if rate.is_finite() && rate >= 0.0 { Ok(rate) } else { Err(ActionError::Rate) }
        };
        let asn = u16::from_be_bytes([a, b]);
        match (kind, sub) {
            (0x80, 0x06) => Ok(Self::RateBytes { asn, rate: rate()? }),
            (0x80, 0x0c) => Ok(Self::RatePackets { asn, rate: rate()? }),
            (0x80, 0x07) => Ok(Self::Control { sample: f & 2 != 0, go_on: f & 1 != 0 }),
            (0x80, 0x08) => Ok(Self::RedirectAs2 { asn, value: u32::from_be_bytes([c, d, e, f]) }),
            (0x81, 0x08) => Ok(Self::RedirectIpv4 {
                address: Ipv4Addr::new(a, b, c, d),
                value: u16::from_be_bytes([e, f]),
            }),
            (0x82, 0x08) => Ok(Self::RedirectAs4 {
                asn: u32::from_be_bytes([a, b, c, d]),
                value: u16::from_be_bytes([e, f]),
            }),
            (0x80, 0x09) => Ok(Self::Mark(f & 63)),
            (0x01, 0x0c) if f & COPY != 0 => Ok(Self::CopyNextHop(Ipv4Addr::new(a, b, c, d))),
            (0x01, 0x0c) => Ok(Self::RedirectNextHop(Ipv4Addr::new(a, b, c, d))),
            _ => Err(ActionError::Unknown),
        }
    }

    /// The same in weir's own words, if it has them.
    pub fn to_action(self) -> Option<Action> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite and not negative by construction; larger than u64 saturates"
        )]
        let whole = |rate: f32| rate as u64;
        match self {
            Self::RateBytes { rate, .. } | Self::RatePackets { rate, .. } if rate < 1.0 => {
                Some(Action::Drop)
            }
            Self::RateBytes { rate, .. } => Some(Action::RateLimit { bytes_per_sec: whole(rate) }),
            Self::RatePackets { rate, .. } => {
                Some(Action::RateLimitPackets { packets_per_sec: whole(rate) })
            }
            Self::RedirectAs2 { asn, value } => {
                Some(Action::Redirect(Redirect::RouteTarget { asn: asn.into(), value }))
            }
            Self::RedirectAs4 { asn, value } => {
                Some(Action::Redirect(Redirect::RouteTarget { asn, value: value.into() }))
            }
            Self::RedirectNextHop(address) => {
                Some(Action::Redirect(Redirect::NextHop(address.into())))
            }
            Self::CopyNextHop(address) => Some(Action::Redirect(Redirect::Copy(address.into()))),
            Self::Mark(dscp) => Some(Action::Mark { dscp }),
            Self::Control { .. } | Self::RedirectIpv4 { .. } => None,
        }
    }
}

fn rate_community(sub: u8, asn: u16, rate: f32) -> ExtendedCommunity {
    let (a, r) = (asn.to_be_bytes(), rate.to_be_bytes());
    [0x80, sub, a[0], a[1], r[0], r[1], r[2], r[3]]
}

/// The communities of an action: at most one of either kind.
///
/// The AS of a rate is informative; 0 is what every receiver takes.
pub fn communities(action: &Action) -> (Option<ExtendedCommunity>, Option<Community6>) {
    #[expect(clippy::cast_precision_loss, reason = "the wire carries 24 significant bits")]
    let rate = |whole: u64| whole as f32;
    let traffic = match *action {
        Action::Drop => TrafficAction::RateBytes { asn: 0, rate: 0.0 },
        // A limit of 0 would read as discard: that has its own word.
        Action::RateLimit { bytes_per_sec } => {
            TrafficAction::RateBytes { asn: 0, rate: rate(bytes_per_sec.max(1)) }
        }
        Action::RateLimitPackets { packets_per_sec } => {
            TrafficAction::RatePackets { asn: 0, rate: rate(packets_per_sec.max(1)) }
        }
        Action::Redirect(Redirect::RouteTarget { asn, value }) => route_target(asn, value),
        Action::Redirect(Redirect::NextHop(IpAddr::V4(address))) => {
            TrafficAction::RedirectNextHop(address)
        }
        Action::Redirect(Redirect::Copy(IpAddr::V4(address))) => {
            TrafficAction::CopyNextHop(address)
        }
        Action::Redirect(Redirect::NextHop(IpAddr::V6(address))) => {
            return (None, Some(redirect6(address, 0)));
        }
        Action::Redirect(Redirect::Copy(IpAddr::V6(address))) => {
            return (None, Some(redirect6(address, COPY)));
        }
        Action::Mark { dscp } => TrafficAction::Mark(dscp),
    };
    (Some(traffic.encode()), None)
}

/// The draft's C bit: packets go on, a copy of them is sent.
const COPY: u8 = 1;

fn redirect6(address: Ipv6Addr, flags: u8) -> Community6 {
    let mut community = [0; 20];
    community[1] = 0x0c;
    community[2..18].copy_from_slice(&address.octets());
    community[19] = flags;
    community
}

/// The 2-octet form where the AS fits. The guard lets no value pass that the form cannot hold.
fn route_target(asn: u32, value: u32) -> TrafficAction {
    match u16::try_from(asn) {
        Ok(asn) => TrafficAction::RedirectAs2 { asn, value },
        Err(_) => {
            TrafficAction::RedirectAs4 { asn, value: u16::try_from(value).unwrap_or(u16::MAX) }
        }
    }
}
