//! What is protected.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::PrefixSet;

/// A port that players or customers use: has its own baseline, and no rule may hit it lightly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Service {
    /// Protected address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Port.
    pub port: u16,
    /// Server's name, for people.
    pub name: String,
    /// Game or application, for people and for priors.
    pub game: String,
}

/// Prefixes and service ports, as configured and as synchronised from panels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Prefixes whose hosts are watched and defended.
    pub protected: PrefixSet,
    /// Prefixes for which nothing is ever announced, though they may lie in protected ones.
    pub never_touch: PrefixSet,
    /// Declared service ports, sorted, without duplicates.
    pub services: Vec<Service>,
}

impl Inventory {
    /// Sorts services and removes duplicates.
    pub fn new(protected: PrefixSet, never_touch: PrefixSet, mut services: Vec<Service>) -> Self {
        services.sort();
        services.dedup_by_key(|s| (s.address, s.protocol, s.port));
        Self { protected, never_touch, services }
    }

    /// The declared services of one address.
    pub fn services_of(&self, address: IpAddr) -> &[Service] {
        let from = self.services.partition_point(|s| s.address < address);
        let len = self.services[from..].partition_point(|s| s.address == address);
        &self.services[from..from + len]
    }

    /// The declared service at a port.
    pub fn service(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Service> {
        self.services_of(address).iter().find(|s| s.protocol == protocol && s.port == port)
    }

    /// The protected prefix an address lies in.
    pub fn prefix_of(&self, address: IpAddr) -> Option<IpNet> {
        self.protected.covering(address)
    }
}
