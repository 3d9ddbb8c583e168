//! `[protect]`: prefixes and services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{Inventory, IpNet, Mode, PolicyGroup, PrefixSet, Rung, Service};

use crate::settings::PREFIXES_MAX;

/// Groups at most.
pub const GROUPS_MAX: usize = 1000;

/// Characters of a group's name at most.
const NAME_MAX: usize = 64;

/// What is watched and defended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// Prefixes whose hosts are watched, and outside of which nothing is ever announced.
    pub prefixes: PrefixSet,
    /// Parts of them for which nothing is ever announced: the monitoring host, the resolvers.
    pub never_touch: PrefixSet,
    /// Prefixes in which all of `prefixes` must lie, also those that operators set while weir runs: a stolen
    /// session cannot have weir announce anything outside of them. Without it, any network no wider than a /8
    /// (IPv6: /16).
    #[serde(skip_serializing_if = "PrefixSet::is_empty")]
    pub ceiling: PrefixSet,
    /// Customers and whatever else belongs together, `[[protect.group]]`.
    #[serde(rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupConfig>,
    /// Declared services, `[[protect.service]]`.
    #[serde(rename = "service")]
    pub services: Vec<ServiceConfig>,
}

/// One `[[protect.group]]`: its name stands on its incidents and is searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Name, for people, 1-64 characters; unique.
    pub name: String,
    /// What belongs to it, at least one prefix. Of groups that hold an address the one with the longest
    /// prefix counts.
    pub prefixes: PrefixSet,
    /// The furthest weir goes by itself for it: `observe`, `approve` or `auto`. It never goes further than
    /// `mitigator.mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Steps of the ladder that weir never takes for it by itself: `drop`, `rtbh`, `scrub`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<Rung>,
}

impl GroupConfig {
    fn check(&self) -> Result<(), &'static str> {
        let name = self.name.trim();
        if name.is_empty() || name.len() != self.name.len() {
            return Err("a group needs a name without space around it");
        }
        if self.name.chars().count() > NAME_MAX || self.name.chars().any(char::is_control) {
            return Err("a group's name has 1-64 characters, none of them control characters");
        }
        if self.prefixes.is_empty() {
            return Err("it has no prefix");
        }
        if self.prefixes.iter().any(|net| net.prefix_len() == 0) {
            return Err("the whole Internet is no group");
        }
        if self.never.contains(&Rung::RateLimit) {
            return Err(
                "never: without its gentlest step a ladder begins with a harder one; use mode",
            );
        }
        Ok(())
    }
}

/// Shortest prefix that can be somebody's network: two halves of the Internet are the Internet.
const OWN_MIN_LEN4: u8 = 8;
const OWN_MIN_LEN6: u8 = 16;

impl Protect {
    /// What stands in `prefixes` and may not.
    pub(crate) fn beyond(&self) -> Vec<String> {
        let too_wide = |net: &IpNet| match net {
            IpNet::V4(net) => net.prefix_len() < OWN_MIN_LEN4,
            IpNet::V6(net) => net.prefix_len() < OWN_MIN_LEN6,
        };
        let judge = |net: IpNet| {
            if net.prefix_len() == 0 {
                Some(format!("protect.prefixes {net}: the whole Internet cannot be protected"))
            } else if too_wide(&net) {
                Some(format!(
                    "protect.prefixes {net}: wider than any network (/{OWN_MIN_LEN4}, IPv6 /{OWN_MIN_LEN6})"
                ))
            } else if !self.ceiling.is_empty() && self.ceiling.covering_net(net).is_none() {
                Some(format!("protect.prefixes {net} lies in none of protect.ceiling"))
            } else {
                None
            }
        };
        self.prefixes.iter().filter_map(judge).collect()
    }
}

/// Whether groups have names and prefixes of their own, and are few enough.
pub(crate) fn check_groups(groups: &[GroupConfig]) -> Result<(), String> {
    if groups.len() > GROUPS_MAX {
        return Err(format!("at most {GROUPS_MAX} groups"));
    }
    if groups.iter().map(|group| group.prefixes.len()).sum::<usize>() > PREFIXES_MAX {
        return Err(format!("at most {PREFIXES_MAX} prefixes in all groups"));
    }
    let (mut names, mut nets) = (BTreeSet::new(), BTreeMap::new());
    for group in groups {
        let name = &group.name;
        group.check().map_err(|why| format!("{name:?}: {why}"))?;
        if !names.insert(name.as_str()) {
            return Err(format!("{name:?} stands twice"));
        }
        for net in group.prefixes.iter() {
            if let Some(other) = nets.insert(net, name) {
                return Err(format!("{net} is in {other:?} and in {name:?}"));
            }
        }
    }
    Ok(())
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
        let group = |group: &GroupConfig| PolicyGroup {
            name: group.name.clone(),
            prefixes: group.prefixes.clone(),
            mode: group.mode,
            never: group.never.clone(),
        };
        Inventory::new(self.prefixes.clone(), self.never_touch.clone(), services)
            .grouped(self.groups.iter().map(group).collect())
    }
}
