//! `[protect]`: prefixes and services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{
    Direction, Inventory, IpNet, LABEL_MAX, MULTIPLIERS, PARENTS_MAX, Policies, PolicyGroup,
    PrefixSet, Rung, Service, TEMPLATES_MAX, TOTALS_MAX, is_multiplier,
};

use crate::allow::{self, AllowConfig};

/// Groups at most.
pub const GROUPS_MAX: usize = 20_000;

/// Prefixes of all groups at most.
pub const GROUP_PREFIXES_MAX: usize = 50_000;

/// Channels and tags of a group at most.
const LABELS_MAX: usize = 16;

/// What is watched and defended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// Prefixes whose hosts are watched, and outside of which nothing is ever announced.
    pub prefixes: PrefixSet,
    /// Parts of them for which nothing is ever announced: the monitoring host, the resolvers.
    pub never_touch: PrefixSet,
    /// Addresses for which weir may announce though it depends on them itself: its own, those of exporters, BGP
    /// peers, next hops of diversions, the RPKI cache and resolvers are not touched otherwise.
    #[serde(skip_serializing_if = "PrefixSet::is_empty")]
    pub touchable: PrefixSet,
    /// Prefixes in which all of `prefixes` must lie, also those that operators set while weir runs: a stolen
    /// session cannot have weir announce anything outside of them. Without it, any network no wider than a /8
    /// (IPv6: /16).
    #[serde(skip_serializing_if = "PrefixSet::is_empty")]
    pub ceiling: PrefixSet,
    /// Customers and whatever else belongs together, as a tree, `[[protect.group]]`: a group's name stands on
    /// its incidents and is searched for.
    #[serde(rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<PolicyGroup>,
    /// Far ends that are wanted, `[[protect.allow]]`: proxies of content networks, speed tests, monitoring, one's
    /// own filters. No rule names them, and what of them is answered counts as wanted.
    #[serde(rename = "allow", skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowConfig>,
    /// Declared services, `[[protect.service]]`.
    #[serde(rename = "service")]
    pub services: Vec<ServiceConfig>,
}

fn check_group(group: &PolicyGroup) -> Result<(), String> {
    let name = group.name.trim();
    if name.is_empty() || name.len() != group.name.len() {
        return Err("a group needs a name without space around it".to_owned());
    }
    if !is_label(&group.name) {
        return Err(
            "a group's name has 1-64 characters, none of them control characters".to_owned()
        );
    }
    if group.prefixes.iter().any(|net| net.prefix_len() == 0) {
        return Err("the whole Internet is no group".to_owned());
    }
    if group.never.iter().flatten().any(|rung| *rung == Rung::RateLimit) {
        return Err("never: without its gentlest step a ladder begins with a harder one; use mode"
            .to_owned());
    }
    for way in [Direction::Inbound, Direction::Outbound] {
        if group.multiplier(way).is_some_and(|times| !is_multiplier(times)) {
            return Err(MULTIPLIERS.to_owned());
        }
    }
    let channels = group.notify.as_deref().unwrap_or_default();
    if channels.len() > LABELS_MAX || !channels.iter().all(|name| is_label(name)) {
        return Err(format!("notify: at most {LABELS_MAX} names of channels"));
    }
    let tags = &group.tags;
    if tags.len() > LABELS_MAX || !tags.iter().all(|(name, tag)| is_label(name) && is_label(tag)) {
        return Err(format!(
            "tags: at most {LABELS_MAX}, names and values of 1-{LABEL_MAX} characters"
        ));
    }
    Ok(())
}

fn is_label(text: &str) -> bool {
    (1..=LABEL_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
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

/// Whether groups have names and prefixes of their own, inherit from groups that there are, and are few
/// enough.
pub(crate) fn check_groups(groups: &[PolicyGroup]) -> Result<(), String> {
    if groups.len() > GROUPS_MAX {
        return Err(format!("at most {GROUPS_MAX} groups"));
    }
    if groups.iter().map(|group| group.prefixes.len()).sum::<usize>() > GROUP_PREFIXES_MAX {
        return Err(format!("at most {GROUP_PREFIXES_MAX} prefixes in all groups"));
    }
    let (mut names, mut nets) = (BTreeMap::new(), BTreeMap::new());
    for group in groups {
        let name = &group.name;
        check_group(group).map_err(|why| format!("{name:?}: {why}"))?;
        if names.insert(name.as_str(), group).is_some() {
            return Err(format!("{name:?} stands twice"));
        }
        for net in group.prefixes.iter() {
            if let Some(other) = nets.insert(net, name) {
                return Err(format!("{net} is in {other:?} and in {name:?}"));
            }
        }
    }
    let heirs: BTreeSet<&str> = groups
        .iter()
        .flat_map(|g| [&g.parent, &g.template])
        .flatten()
        .map(String::as_str)
        .collect();
    for group in groups {
        let name = &group.name;
        let find = |of: &Option<String>, what| match of.as_deref().map(|of| (of, names.get(of))) {
            Some((of, None)) => Err(format!("{name:?}: {what} {of:?}: there is no such group")),
            Some((_, found)) => Ok(found.copied()),
            None => Ok(None),
        };
        find(&group.parent, "parent")?;
        if find(&group.template, "template")?.is_some_and(|of| !of.prefixes.is_empty()) {
            return Err(format!("{name:?}: its template has prefixes: use parent"));
        }
    }
    // Last: a link that leads nowhere leaves another group without heirs.
    let idle = |g: &&PolicyGroup| g.prefixes.is_empty() && !heirs.contains(g.name.as_str());
    if let Some(PolicyGroup { name, .. }) = groups.iter().find(idle) {
        return Err(format!("{name:?}: it has no prefix, and no group inherits from it"));
    }
    let policies = Policies::from(groups.to_vec());
    if let Some(name) = policies.circle() {
        return Err(format!(
            "{name:?}: it inherits from itself, or over more than {PARENTS_MAX} groups or \
             {TEMPLATES_MAX} templates"
        ));
    }
    if policies.totals().len() > TOTALS_MAX {
        return Err(format!("total: at most {TOTALS_MAX} groups with one"));
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

    pub(crate) const fn numbers(self) -> &'static [u8] {
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
            .grouped(self.groups.clone())
            .allowing(Arc::new(allow::in_force(&self.allow, &BTreeMap::new())))
    }
}
