//! Groups as a tree: which one an address belongs to, and what counts for it by whose word.
//!
//! A value is the word of the first that says it: the group itself, its template, that one's template, then
//! its parent with templates, and so on up. Pure, and bounded whatever the groups say of each other.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::THRESHOLDS;
use crate::{Direction, HostClass, Learning, Least, Mode, PolicyGroup, Rung, TOTALS, Threshold};

/// Groups above a group at most.
pub const PARENTS_MAX: usize = 16;

/// Templates of a group at most, one inheriting from the next.
pub const TEMPLATES_MAX: usize = 4;

/// A value with the group or template that says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said<'a, T> {
    /// What counts.
    pub value: T,
    /// Whose word it is.
    pub by: &'a PolicyGroup,
}

/// What counts for the hosts of a group; what nobody says is as everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyValues<'a> {
    /// The group and those above it.
    pub path: Vec<&'a PolicyGroup>,
    /// The furthest weir goes by itself.
    pub mode: Option<Said<'a, Mode>>,
    /// Steps that weir never takes by itself.
    pub never: Option<Said<'a, &'a [Rung]>>,
    /// Whether baselines follow.
    pub learning: Option<Said<'a, Learning>>,
    /// What its hosts are.
    pub class: Option<Said<'a, HostClass>>,
    /// Multipliers of learned thresholds, inbound and outbound.
    pub multipliers: [Option<Said<'a, f64>>; 2],
    /// Thresholds in the order of [`THRESHOLDS`].
    pub thresholds: [Option<Said<'a, Threshold>>; 12],
    /// What at least comes to each declared service.
    pub service_least: Option<Said<'a, Least>>,
    /// What at least comes to all hosts of a group, and of which.
    pub total_least: Option<Said<'a, Least>>,
    /// Channels that are told.
    pub notify: Option<Said<'a, &'a [String]>>,
    /// Whatever else belongs to it.
    pub tags: BTreeMap<&'a str, Said<'a, &'a str>>,
}

/// A group whose total is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totalled {
    /// Its place among the groups.
    pub group: usize,
    /// The place among those watched of the next above it.
    pub above: Option<usize>,
    /// Its prefixes and those of the groups below it, sorted.
    pub prefixes: Vec<IpNet>,
}

/// All groups, with what look-ups need. In its serialised form a list of groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<PolicyGroup>", into = "Vec<PolicyGroup>")]
pub struct Policies {
    groups: Vec<PolicyGroup>,
    /// Prefixes with their groups, sorted.
    nets: Vec<(IpNet, u32)>,
    /// Lengths that occur, longest first, of IPv4 and of IPv6.
    lengths: [Vec<u8>; 2],
    /// Of each group its parent and its template.
    above: Vec<[Option<u32>; 2]>,
}

impl PartialEq for Policies {
    fn eq(&self, other: &Self) -> bool {
        // Mostly the very same: inventories share them.
        std::ptr::eq(self, other) || self.groups == other.groups
    }
}

impl From<Vec<PolicyGroup>> for Policies {
    fn from(groups: Vec<PolicyGroup>) -> Self {
        let mut nets: Vec<(IpNet, u32)> = (0..)
            .zip(&groups)
            .flat_map(|(at, group)| group.prefixes.iter().map(move |net| (net, at)))
            .collect();
        nets.sort_unstable();
        let mut lengths = [Vec::new(), Vec::new()];
        for family in [0, 1] {
            let mut seen = [false; 129];
            for (net, _) in
                nets.iter().filter(|(net, _)| usize::from(net.addr().is_ipv6()) == family)
            {
                seen[usize::from(net.prefix_len())] = true;
            }
            lengths[family] = (0..=128).rev().filter(|len| seen[usize::from(*len)]).collect();
        }
        let mut policies = Self { groups, nets, lengths, above: Vec::new() };
        policies.above = policies.links();
        policies
    }
}

impl From<Policies> for Vec<PolicyGroup> {
    fn from(policies: Policies) -> Self {
        policies.groups
    }
}

impl Policies {
    /// The groups, in their order.
    pub fn groups(&self) -> &[PolicyGroup] {
        &self.groups
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The place of the group with the longest prefix that holds a target whole.
    pub fn at(&self, target: IpNet) -> Option<usize> {
        self.around(target).next().map(|(_, at)| at)
    }

    /// The group with the longest prefix that holds a target whole.
    pub fn group(&self, target: IpNet) -> Option<&PolicyGroup> {
        self.groups.get(self.at(target)?)
    }

    /// Groups that have a prefix inside `target`, or the same.
    pub fn inside(&self, target: IpNet) -> impl Iterator<Item = usize> {
        let from = self.nets.partition_point(|(net, _)| *net < target.trunc());
        let nets = self.nets[from..].iter();
        nets.take_while(move |(net, _)| target.contains(&net.addr()))
            .filter(move |(net, _)| target.contains(net))
            .map(|(_, at)| *at as usize)
    }

    /// What counts for the group at a place.
    pub fn values(&self, at: usize) -> PolicyValues<'_> {
        let mut values = PolicyValues {
            path: self.path(at).map(|at| &self.groups[at]).collect(),
            mode: None,
            never: None,
            learning: None,
            class: None,
            multipliers: [None; 2],
            thresholds: [None; 12],
            service_least: self.service_least(at),
            total_least: self.nearest_total_least(at),
            notify: None,
            tags: BTreeMap::new(),
        };
        for by in self.path(at).flat_map(|at| self.templates(at)).map(|at| &self.groups[at]) {
            values.hear(by);
        }
        values
    }

    /// Names of the group at a place and of those above it.
    pub fn names(&self, at: usize) -> impl Iterator<Item = &str> {
        self.path(at).map(|at| self.groups[at].name.as_str())
    }

    /// Thresholds of the total of the group at a place, in the order of [`TOTALS`]: its own, then those of its
    /// templates. None where nobody says any.
    pub fn total(&self, at: usize) -> Option<[Option<Said<'_, Threshold>>; 4]> {
        let mut all = [None; TOTALS.len()];
        for by in self.templates(at).map(|at| &self.groups[at]) {
            let Some(total) = &by.total else { continue };
            for (index, kept) in all.iter_mut().enumerate() {
                let said = || total.threshold(index).map(|value| Said { value, by });
                *kept = kept.or_else(said);
            }
        }
        let watched = all.iter().any(Option::is_some) || self.total_least(at).is_some();
        watched.then_some(all)
    }

    /// What at least comes to all hosts of the group at a place: its own word, then that of its templates.
    pub fn total_least(&self, at: usize) -> Option<Least> {
        let said = self.templates(at).map(|at| &self.groups[at]);
        said.filter_map(|by| by.total.as_ref()?.least_bits_per_sec).next()
    }

    /// The same of the group at a place or the nearest one above it of which that is said, with that group.
    fn nearest_total_least(&self, at: usize) -> Option<Said<'_, Least>> {
        let said = |at: usize| Some(Said { value: self.total_least(at)?, by: &self.groups[at] });
        self.path(at).find_map(said)
    }

    /// What at least comes to each declared service of the group at a place, and by whose word.
    pub fn service_least(&self, at: usize) -> Option<Said<'_, Least>> {
        let said = self.path(at).flat_map(|at| self.templates(at)).map(|at| &self.groups[at]);
        said.filter_map(|by| Some(Said { value: by.service_least_bits_per_sec?, by })).next()
    }

    /// Groups whose totals are watched, those above others first, each with the place among them of the next
    /// above it, and with the prefixes whose hosts it is of. Templates have no hosts.
    pub fn totals(&self) -> Vec<Totalled> {
        let mut all: Vec<Totalled> = (0..self.groups.len())
            .filter(|at| self.total(*at).is_some())
            .map(|group| Totalled { group, above: None, prefixes: Vec::new() })
            .collect();
        if all.is_empty() {
            return all;
        }
        let places: BTreeMap<usize, usize> =
            all.iter().zip(0..).map(|(t, at)| (t.group, at)).collect();
        for (net, group) in &self.nets {
            for above in self.path(*group as usize) {
                if let Some(at) = places.get(&above) {
                    all[*at].prefixes.push(*net);
                }
            }
        }
        all.retain(|total| !total.prefixes.is_empty());
        all.sort_by_cached_key(|total| (self.path(total.group).count(), total.group));
        let places: BTreeMap<usize, usize> =
            all.iter().zip(0..).map(|(t, at)| (t.group, at)).collect();
        for total in &mut all {
            total.above = self.path(total.group).skip(1).find_map(|at| places.get(&at).copied());
        }
        all
    }

    /// The first group that inherits from itself, or from more groups or templates than may be; its name.
    pub fn circle(&self) -> Option<&str> {
        let goes_on =
            |at: Option<usize>, link: usize| at.is_some_and(|at| self.above[at][link].is_some());
        let turns = |at: &usize| {
            goes_on(self.path(*at).nth(PARENTS_MAX), 0)
                || goes_on(self.templates(*at).nth(TEMPLATES_MAX), 1)
        };
        (0..self.groups.len()).find(turns).map(|at| self.groups[at].name.as_str())
    }

    /// The group at a place and those above it.
    pub fn path(&self, at: usize) -> impl Iterator<Item = usize> {
        let up = |at: &usize| self.above[*at][0].map(|up| up as usize);
        std::iter::successors(Some(at), up).take(PARENTS_MAX + 1)
    }

    /// A group and its templates.
    fn templates(&self, at: usize) -> impl Iterator<Item = usize> {
        let next = |at: &usize| self.above[*at][1].map(|next| next as usize);
        std::iter::successors(Some(at), next).take(TEMPLATES_MAX + 1)
    }

    /// Prefixes that hold a target whole, longest first, with their groups.
    fn around(&self, target: IpNet) -> impl Iterator<Item = (IpNet, usize)> {
        let lengths = &self.lengths[usize::from(target.addr().is_ipv6())];
        lengths.iter().filter(move |len| **len <= target.prefix_len()).filter_map(move |len| {
            let net = IpNet::new(target.addr(), *len).ok()?.trunc();
            let at = self.nets.binary_search_by(|(own, _)| own.cmp(&net)).ok()?;
            Some((net, self.nets[at].1 as usize))
        })
    }

    fn links(&self) -> Vec<[Option<u32>; 2]> {
        let names: BTreeMap<&str, u32> =
            self.groups.iter().zip(0..).map(|(group, at)| (group.name.as_str(), at)).collect();
        let named = |name: &Option<String>| names.get(name.as_deref()?).copied();
        let link = |(at, group): (usize, &PolicyGroup)| {
            let parent = match &group.parent {
                None => self.holder(at).and_then(|at| u32::try_from(at).ok()),
                given => named(given),
            };
            [parent, named(&group.template)]
        };
        self.groups.iter().enumerate().map(link).collect()
    }

    /// The smallest other group that holds all prefixes of the one at a place; of one with prefixes of both
    /// families, all of those in which the other has any.
    fn holder(&self, at: usize) -> Option<usize> {
        let prefixes = &self.groups[at].prefixes;
        let holds = |other: &usize| {
            let other = &self.groups[*other].prefixes;
            let has = |v6: bool| other.iter().any(|net| net.addr().is_ipv6() == v6);
            let (v4, v6) = (has(false), has(true));
            let counts = |net: &IpNet| if net.addr().is_ipv6() { v6 } else { v4 };
            prefixes.iter().filter(counts).all(|net| other.covering_net(net).is_some())
        };
        [false, true].into_iter().find_map(|v6| {
            let first = prefixes.iter().find(|net| net.addr().is_ipv6() == v6)?;
            let mut around = self.around(first).map(|(_, at)| at).filter(|other| *other != at);
            around.find(holds)
        })
    }
}

impl<'a> PolicyValues<'a> {
    /// Takes what nobody has said before.
    fn hear(&mut self, by: &'a PolicyGroup) {
        fn first<'a, T>(kept: &mut Option<Said<'a, T>>, value: Option<T>, by: &'a PolicyGroup) {
            if kept.is_none() {
                *kept = value.map(|value| Said { value, by });
            }
        }
        first(&mut self.mode, by.mode, by);
        first(&mut self.never, by.never.as_deref(), by);
        first(&mut self.learning, by.learning, by);
        first(&mut self.class, by.class, by);
        first(&mut self.notify, by.notify.as_deref(), by);
        for (kept, way) in
            self.multipliers.iter_mut().zip([Direction::Inbound, Direction::Outbound])
        {
            first(kept, by.multiplier(way), by);
        }
        for (index, kept) in self.thresholds.iter_mut().enumerate() {
            first(kept, by.threshold(index), by);
        }
        for (name, value) in &by.tags {
            self.tags.entry(name).or_insert(Said { value: value.as_str(), by });
        }
    }

    /// The multiplier of the threshold at a place, with whose word it is; none where a value is set.
    pub fn times(&self, index: usize) -> Option<Said<'a, f64>> {
        let way = usize::from(THRESHOLDS[index].0 == Direction::Outbound);
        match self.thresholds[index] {
            Some(Said { value: Threshold::Within(bounds), by }) => match bounds.multiplier {
                Some(value) => Some(Said { value, by }),
                None => self.multipliers[way],
            },
            Some(_) => None,
            None => self.multipliers[way],
        }
    }
}

#[cfg(test)]
mod tests;
