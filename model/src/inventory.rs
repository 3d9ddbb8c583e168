//! What is protected.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{AllowLists, Mode, OwnMetric, OwnMetrics, Policies, PolicyGroup, PrefixSet, Rung};

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

/// Hosts that belong together: a node of a panel, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostGroup {
    /// `panel/node`, or `panel`.
    pub name: String,
    /// Its addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

/// What groups say of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The furthest weir goes by itself.
    pub mode: Mode,
    /// The group that says so; nobody when it is as far as everywhere.
    pub mode_of: Option<String>,
    /// Steps that are not taken, each with the group that forbids it.
    pub never: Vec<(Rung, String)>,
    /// Channels that are told; all when nobody says.
    pub notify: Option<Vec<String>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { mode: Mode::Auto, mode_of: None, never: Vec::new(), notify: None }
    }
}

impl Policy {
    /// The group that forbids a step.
    pub fn forbids(&self, rung: Rung) -> Option<&str> {
        self.never.iter().find(|(own, _)| *own == rung).map(|(_, group)| group.as_str())
    }
}

/// What is known beforehand of a service port's traffic, for as long as it is in the inventory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Expected {
    /// Protected address.
    pub address: IpAddr,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Port.
    pub port: u16,
    /// What is to be expected.
    pub traffic: ExpectedTraffic,
    /// Why, for people: `suspended`, `wipe`.
    pub why: String,
}

/// What is to be expected of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedTraffic {
    /// None: the server does not run. Nothing is learnt from its silence.
    Silence,
    /// Much more than usual: players return all at once.
    Surge,
}

/// What a host of the operator's own is to weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Part {
    /// The machine that weir runs on.
    Weir,
    /// An exporter.
    Exporter,
    /// A BGP peer.
    Peer,
    /// A next hop of diversions: what comes back from there must not be cut.
    NextHop,
    /// The RPKI cache.
    RpkiCache,
    /// A resolver of this machine.
    Resolver,
}

impl Part {
    /// In words, with an article.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Weir => "weir itself",
            Self::Exporter => "an exporter",
            Self::Peer => "a BGP peer",
            Self::NextHop => "a next hop of diversions",
            Self::RpkiCache => "the RPKI cache",
            Self::Resolver => "a resolver",
        }
    }
}

/// A host without which weir would lose sight or hands: not touched unless an operator says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Infrastructure {
    /// Its address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
    /// What it is.
    pub part: Part,
    /// Its name, or the setting that names it.
    pub name: String,
}

/// Prefixes and service ports, as configured and as synchronised from panels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Prefixes whose hosts are watched and defended.
    pub protected: PrefixSet,
    /// Prefixes for which nothing is ever announced, though they may lie in protected ones.
    pub never_touch: PrefixSet,
    /// Protected hosts that weir itself depends on, sorted; they stand in `never_touch`, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infrastructure: Vec<Infrastructure>,
    /// Declared service ports, sorted, without duplicates.
    pub services: Vec<Service>,
    /// Hosts that belong together, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<HostGroup>,
    /// What is known beforehand, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<Expected>,
    /// What operators have put together.
    #[serde(default, skip_serializing_if = "no_policies")]
    pub policies: Arc<Policies>,
    /// Far ends whose packets no rule may name.
    #[serde(default, skip_serializing_if = "no_allow_lists")]
    pub allow: Arc<AllowLists>,
    /// What operators have measured of every host.
    #[serde(default, skip_serializing_if = "no_metrics")]
    pub metrics: Arc<OwnMetrics>,
}

fn no_allow_lists(allow: &Arc<AllowLists>) -> bool {
    allow.is_empty()
}

fn no_metrics(metrics: &Arc<OwnMetrics>) -> bool {
    metrics.is_empty()
}

fn no_policies(policies: &Arc<Policies>) -> bool {
    policies.is_empty()
}

impl Inventory {
    /// Sorts services and removes duplicates.
    pub fn new(protected: PrefixSet, never_touch: PrefixSet, mut services: Vec<Service>) -> Self {
        services.sort();
        services.dedup_by_key(|s| (s.address, s.protocol, s.port));
        Self { protected, never_touch, services, ..Self::default() }
    }

    /// The same with groups of hosts, and with what is known beforehand.
    #[must_use]
    pub fn with(mut self, mut groups: Vec<HostGroup>, mut expected: Vec<Expected>) -> Self {
        groups.sort();
        expected.sort();
        (self.groups, self.expected) = (groups, expected);
        self
    }

    /// The same, sparing what weir depends on as far as it is protected and `touchable` does not hold it. A
    /// node that exports flows and runs declared services is there for them: it is defended.
    #[must_use]
    pub fn sparing(
        mut self,
        mut infrastructure: Vec<Infrastructure>,
        touchable: &PrefixSet,
    ) -> Self {
        infrastructure.retain(|own| {
            let spared = self.never_touch.contains(own.address);
            let serves = own.part == Part::Exporter && !self.services_of(own.address).is_empty();
            let meant = spared || serves || touchable.contains(own.address);
            self.protected.contains(own.address) && !meant
        });
        infrastructure.sort();
        infrastructure.dedup_by_key(|own| own.address);
        if !infrastructure.is_empty() {
            let own = infrastructure.iter().map(|own| IpNet::from(own.address));
            self.never_touch = self.never_touch.iter().chain(own).collect();
        }
        self.infrastructure = infrastructure;
        self
    }

    /// The first host that weir depends on in a prefix.
    pub fn infrastructure_in(&self, net: IpNet) -> Option<&Infrastructure> {
        self.infrastructure.iter().find(|own| net.contains(&own.address))
    }

    /// The same with what operators have put together.
    #[must_use]
    pub fn grouped(self, policies: Vec<PolicyGroup>) -> Self {
        self.under(Arc::new(Policies::from(policies)))
    }

    /// The same with policies made before.
    #[must_use]
    pub fn under(mut self, policies: Arc<Policies>) -> Self {
        self.policies = policies;
        self
    }

    /// The same with allow lists.
    #[must_use]
    pub fn allowing(mut self, allow: Arc<AllowLists>) -> Self {
        self.allow = allow;
        self
    }

    /// The same with metrics of an operator's own.
    #[must_use]
    pub fn measuring(mut self, metrics: &[OwnMetric]) -> Self {
        self.metrics = Arc::new(OwnMetrics::from(metrics.to_vec()));
        self
    }

    /// The group that holds a target whole: an operator's with the longest prefix, or the first of a
    /// panel's by name.
    pub fn group_of(&self, target: IpNet) -> Option<&str> {
        let declared = self.policies.group(target).map(|group| group.name.as_str());
        declared.or_else(|| self.panel_group(target))
    }

    /// What groups say of a target. A prefix is held to the strictest of those in it as well: what is
    /// done about it is done to them.
    pub fn policy_of(&self, target: IpNet) -> Policy {
        let mut policy = Policy::default();
        let mut hear = |at: usize, whole: bool| {
            let values = self.policies.values(at);
            if let Some(mode) = values.mode.filter(|mode| mode.value < policy.mode) {
                (policy.mode, policy.mode_of) = (mode.value, Some(mode.by.name.clone()));
            }
            if let Some(never) = values.never {
                let forbidden = never.value.iter().map(|rung| (*rung, never.by.name.clone()));
                policy.never.extend(forbidden);
            }
            if whole {
                policy.notify = values.notify.map(|notify| notify.value.to_vec());
            }
        };
        let whole = self.policies.at(target);
        if let Some(at) = whole {
            hear(at, true);
        }
        // One by one: of a host there is none but the one that holds it.
        let mut inside: Vec<usize> = self.policies.inside(target).collect();
        inside.sort_unstable();
        inside.dedup();
        inside.into_iter().filter(|at| Some(*at) != whole).for_each(|at| hear(at, false));
        policy
    }

    fn panel_group(&self, target: IpNet) -> Option<&str> {
        let holds = |group: &&HostGroup| {
            if target.prefix_len() == target.max_prefix_len() {
                return group.addresses.binary_search(&target.addr()).is_ok();
            }
            let mut protected = self.groups.iter().flat_map(|g| &g.addresses);
            let inside = |address: &IpAddr| target.contains(address);
            // A prefix belongs to the only group with hosts in it.
            group.addresses.iter().any(inside)
                && protected.all(|a| !inside(a) || group.addresses.binary_search(a).is_ok())
        };
        self.groups.iter().find(holds).map(|group| group.name.as_str())
    }

    /// What is known beforehand of a service port.
    pub fn expected_of(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Expected> {
        let key = |e: &Expected| (e.address, e.protocol, e.port);
        let at = self.expected.partition_point(|e| key(e) < (address, protocol, port));
        self.expected.get(at).filter(|e| key(e) == (address, protocol, port))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let group = |name: &str, addresses: &[&str]| HostGroup {
            name: name.to_owned(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let groups = vec![
            group("main/b", &["203.0.113.64", "203.0.113.65"]),
            group("main/a", &["203.0.113.7"]),
        ];
        let expected = vec![Expected {
            address: "203.0.113.7".parse().unwrap(),
            protocol: 17,
            port: 28015,
            traffic: ExpectedTraffic::Surge,
            why: "wipe".to_owned(),
        }];
        Inventory::default().with(groups, expected)
    }

    #[test]
    fn a_target_belongs_to_the_group_that_has_all_hosts_in_it() {
        let inventory = inventory();
        let group = |target: &str| inventory.group_of(target.parse().unwrap());
        assert_eq!(group("203.0.113.7/32"), Some("main/a"));
        assert_eq!(group("203.0.113.8/32"), None);
        assert_eq!(group("203.0.113.64/26"), Some("main/b"));
        assert_eq!(group("203.0.113.0/24"), None, "two groups are in it");
    }

    #[test]
    fn the_longest_prefix_of_a_group_counts_and_a_prefix_is_held_to_the_strictest_in_it() {
        let group = |name: &str, prefix: &str, mode, never: Option<&[Rung]>| PolicyGroup {
            name: name.to_owned(),
            prefixes: FromIterator::from_iter([prefix.parse().unwrap()]),
            mode,
            never: never.map(<[Rung]>::to_vec),
            ..PolicyGroup::default()
        };
        let inventory = inventory().grouped(vec![
            group("acme", "203.0.113.0/24", Some(Mode::Approve), Some(&[Rung::Drop])),
            group("vip", "203.0.113.64/26", None, Some(&[Rung::Rtbh])),
            group("lab", "203.0.113.128/25", Some(Mode::Observe), None),
        ]);
        let check = |target: &str, name: Option<&str>, mode, black_hole: Option<&str>| {
            let target = target.parse().unwrap();
            let policy = inventory.policy_of(target);
            let found = (inventory.group_of(target), policy.mode, policy.forbids(Rung::Rtbh));
            assert_eq!(found, (name, mode, black_hole), "{target}");
        };
        check("203.0.113.7/32", Some("acme"), Mode::Approve, None);
        check("203.0.113.64/32", Some("vip"), Mode::Approve, Some("vip"));
        let vip = inventory.policy_of("203.0.113.64/32".parse().unwrap());
        assert_eq!((vip.mode_of.as_deref(), vip.forbids(Rung::Drop)), (Some("acme"), None));
        check("203.0.113.0/24", Some("acme"), Mode::Observe, Some("vip"));
        check("203.0.112.0/22", None, Mode::Observe, Some("vip"));
        check("198.51.100.1/32", None, Mode::Auto, None);
    }

    #[test]
    fn what_is_expected_is_found_by_its_port() {
        let inventory = inventory();
        let host = "203.0.113.7".parse().unwrap();
        assert_eq!(inventory.expected_of(host, 17, 28015).unwrap().why, "wipe");
        assert_eq!(inventory.expected_of(host, 6, 28015), None);
        assert_eq!(inventory.expected_of(host, 17, 28016), None);
    }
}
