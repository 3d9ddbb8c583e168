//! `[protect]`: prefixes and services.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{Inventory, PrefixSet, Service};

/// What is watched and defended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// Prefixes whose hosts are watched, and outside of which nothing is ever announced.
    pub prefixes: PrefixSet,
    /// Parts of them for which nothing is ever announced: the monitoring host, the resolvers.
    pub never_touch: PrefixSet,
    /// Declared services, `[[protect.service]]`.
    #[serde(rename = "service")]
    pub services: Vec<ServiceConfig>,
}

/// Protocols of a declared service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceProtocol {
    /// TCP only.
    Tcp,
    /// UDP only.
    Udp,
    /// Both.
    Both,
}

impl ServiceProtocol {
    /// The protocol with this IP number.
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    const fn numbers(self) -> &'static [u8] {
        match self {
            Self::Tcp => &[6],
            Self::Udp => &[17],
            Self::Both => &[6, 17],
        }
    }
}

/// One `[[protect.service]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Protected address.
    pub address: IpAddr,
    /// Port, 1-65535.
    pub port: std::num::NonZeroU16,
    /// `tcp`, `udp` or `both`.
    pub protocol: ServiceProtocol,
    /// Server's name, for people.
    #[serde(default)]
    pub name: String,
    /// Game or application, for people and for priors.
    #[serde(default)]
    pub game: String,
}

impl Protect {
    /// The inventory this section describes.
    pub fn inventory(&self) -> Inventory {
        let services = self
            .services
            .iter()
            .flat_map(|service| {
                service.protocol.numbers().iter().map(|protocol| Service {
                    address: service.address,
                    protocol: *protocol,
                    port: service.port.get(),
                    name: service.name.clone(),
                    game: service.game.clone(),
                })
            })
            .collect();
        Inventory::new(self.prefixes.clone(), self.never_touch.clone(), services)
    }
}
