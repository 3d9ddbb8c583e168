//! OPEN and its capabilities (RFC 4271 §4.2, RFC 5492, RFC 9072).

use std::net::Ipv4Addr;

use netgauze_bgp_pkt::capabilities::{
    BgpCapability, FourOctetAsCapability, GracefulRestartAddressFamily, GracefulRestartCapability,
    LongLivedGracefulRestartAddressFamily, LongLivedGracefulRestartCapability,
    MultiProtocolExtensionsCapability,
};
use netgauze_bgp_pkt::open::{BgpOpenMessage, BgpOpenMessageParameter};
use netgauze_iana::address_family::AddressType;

use super::{Families, Family, Notification, WriteError, codes, update};

/// AS number that stands for one of four octets (RFC 6793).
pub(super) const AS_TRANS: u16 = 23456;

/// What weir says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSettings {
    /// AS number.
    pub asn: u32,
    /// Proposed hold time, seconds.
    pub hold_secs: u16,
    /// BGP identifier.
    pub id: Ipv4Addr,
    /// Families offered.
    pub families: Families,
    /// Graceful restart: for how long the peer keeps routes when the session drops, seconds,
    /// 1-4095 (RFC 4724); `None` leaves the capability out.
    pub restart_secs: Option<u16>,
    /// weir has just restarted: the R bit. The F bit of each family is always set, so that the
    /// peer keeps what it has until weir's End-of-RIB.
    pub restarting: bool,
    /// Long-lived graceful restart (RFC 9494), seconds, 24 bits.
    pub long_lived_secs: Option<u32>,
}

impl OpenSettings {
    /// The message.
    ///
    /// # Errors
    /// [`WriteError`] when the codec writes another length than it announces.
    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        let types: Vec<AddressType> = self.families.iter().map(address_type).collect();
        let mut capabilities: Vec<BgpCapability> = types
            .iter()
            .map(|t| {
                BgpCapability::MultiProtocolExtensions(MultiProtocolExtensionsCapability::new(*t))
            })
            .collect();
        capabilities.push(BgpCapability::RouteRefresh);
        capabilities.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(self.asn)));
        if let Some(secs) = self.restart_secs {
            let families: Vec<_> =
                types.iter().map(|t| GracefulRestartAddressFamily::new(true, *t)).collect();
            capabilities.push(BgpCapability::GracefulRestartCapability(
                // The N bit (RFC 8538): a hold timer that runs out on a full link, which an attack
                // makes likely, leaves the routes where they are. Where weir wants them gone it
                // says Hard Reset.
                GracefulRestartCapability::new(self.restarting, true, secs.min(4095), families),
            ));
            if let Some(secs) = self.long_lived_secs {
                let secs = secs.min(LongLivedGracefulRestartAddressFamily::MAX_STALE_TIME);
                let families: Vec<_> = types
                    .iter()
                    .map(|t| LongLivedGracefulRestartAddressFamily::new(true, *t, secs))
                    .collect();
                capabilities.push(BgpCapability::LongLivedGracefulRestart(
                    LongLivedGracefulRestartCapability::new(families),
                ));
            }
        }
        let message = netgauze_bgp_pkt::BgpMessage::Open(BgpOpenMessage::new(
            u16::try_from(self.asn).unwrap_or(AS_TRANS),
            self.hold_secs,
            self.id,
            vec![BgpOpenMessageParameter::new_capabilities(capabilities)],
        ));
        update::checked(&message)
    }
}

const fn address_type(family: Family) -> AddressType {
    match family {
        Family::Ipv4Unicast => AddressType::Ipv4Unicast,
        Family::Ipv6Unicast => AddressType::Ipv6Unicast,
        Family::Ipv4FlowSpec => AddressType::Ipv4FlowSpec,
        Family::Ipv6FlowSpec => AddressType::Ipv6FlowSpec,
    }
}

/// The peer's graceful-restart capability (RFC 4724).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// It has just restarted.
    pub restarting: bool,
    /// Routes are kept when a NOTIFICATION ends the session, unless that is a Hard Reset (N bit,
    /// RFC 8538).
    pub notification: bool,
    /// For how long it asks us to keep its routes, seconds.
    pub time_secs: u16,
    /// Families for which it keeps routes.
    pub families: Families,
}

/// What the peer says of itself. Capabilities that weir has no use for are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// AS number, four octets where the peer has that capability.
    pub asn: u32,
    /// It speaks four-octet AS numbers.
    pub as4: bool,
    /// Proposed hold time, seconds; 0 or at least 3.
    pub hold_secs: u16,
    /// BGP identifier, not 0.
    pub id: Ipv4Addr,
    /// Families it offers, of those that weir knows.
    pub families: Families,
    /// It takes ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Its graceful-restart capability.
    pub graceful_restart: Option<GracefulRestart>,
    /// It keeps routes long after they are stale (RFC 9494).
    pub long_lived: bool,
}

impl Open {
    /// ```text
    /// | version (1) | AS (2) | hold time (2) | identifier (4) | parameters' length (1) | ...
    /// ```
    pub(super) fn read(body: &[u8]) -> Result<Self, Notification> {
        let error = |subcode| Notification::new(codes::OPEN, subcode);
        let (fixed, params) = body.split_first_chunk::<10>().ok_or_else(|| error(0))?;
        let [version, as_high, as_low, hold_high, hold_low, a, b, c, d, params_len] = *fixed;
        if version != 4 {
            return Err(Notification { code: codes::OPEN, subcode: 1, data: vec![0, 4] });
        }
        let hold_secs = u16::from_be_bytes([hold_high, hold_low]);
        if matches!(hold_secs, 1 | 2) {
            return Err(error(6));
        }
        let id = Ipv4Addr::new(a, b, c, d);
        if id.is_unspecified() {
            return Err(error(3));
        }
        let mut open = Self {
            asn: u32::from(u16::from_be_bytes([as_high, as_low])),
            as4: false,
            hold_secs,
            id,
            families: Families::default(),
            route_refresh: false,
            graceful_restart: None,
            long_lived: false,
        };
        let multiprotocol = open.read_parameters(params_len, params).ok_or_else(|| error(0))?;
        if !multiprotocol {
            // Without the capability a speaker does IPv4 unicast only (RFC 4760 §8).
            open.families.insert(Family::Ipv4Unicast);
        }
        if open.asn == 0 {
            return Err(error(2));
        }
        Ok(open)
    }

    /// Reads optional parameters, short or extended (RFC 9072: length 255, type 255, then a
    /// length of two octets each). `None` when they end within one; else whether there was any
    /// multiprotocol capability.
    fn read_parameters(&mut self, length: u8, params: &[u8]) -> Option<bool> {
        let (extended, mut rest) = match (length, params) {
            (1.., [255, high, low, tail @ ..]) => {
                (true, tail.get(..usize::from(u16::from_be_bytes([*high, *low])))?)
            }
            _ => (false, params.get(..usize::from(length))?),
        };
        let mut multiprotocol = false;
        while let [kind, tail @ ..] = rest {
            let (length, tail) = if extended {
                let (length, tail) = tail.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), tail)
            } else {
                let (length, tail) = tail.split_first()?;
                (usize::from(*length), tail)
            };
            let (value, tail) = tail.split_at_checked(length)?;
            rest = tail;
            if *kind == 2 {
                multiprotocol |= self.read_capabilities(value);
            }
        }
        Some(multiprotocol)
    }

    /// A capability with a length that is not its own loses only itself.
    fn read_capabilities(&mut self, mut rest: &[u8]) -> bool {
        let mut multiprotocol = false;
        while let [code, length, tail @ ..] = rest {
            let Some((value, tail)) = tail.split_at_checked(usize::from(*length)) else { break };
            rest = tail;
            match (code, value) {
                (1, [high, low, _, safi]) => {
                    multiprotocol = true;
                    if let Some(family) = Family::of(u16::from_be_bytes([*high, *low]), *safi) {
                        self.families.insert(family);
                    }
                }
                (2 | 128, _) => self.route_refresh = true,
                (64, [high, low, families @ ..]) => {
                    self.graceful_restart = Some(GracefulRestart {
                        restarting: high & 0x80 != 0,
                        notification: high & 0x40 != 0,
                        time_secs: u16::from_be_bytes([high & 0x0f, *low]),
                        families: families
                            .chunks_exact(4)
                            .filter_map(|f| Family::of(u16::from_be_bytes([f[0], f[1]]), f[2]))
                            .collect(),
                    });
                }
                (65, [a, b, c, d]) => {
                    self.as4 = true;
                    self.asn = u32::from_be_bytes([*a, *b, *c, *d]);
                }
                (71, _) => self.long_lived = true,
                _ => {}
            }
        }
        multiprotocol
    }
}
