//! What groups say of thresholds and learning, made ready for the hosts in them: looked up once when a host is
//! first watched and when groups change, never for a record.

use std::sync::Arc;

use weir_model::{
    Direction, HostClass, IpNet, Learning, OwnMetric, Policies, PolicyValues, Said, Threshold,
};

use crate::config::Config;
use crate::watch::metric::{METRICS, PACKETS, SOURCES};
use crate::watch::series::Kind;

/// What counts for one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// What is learned times the first, at least the second, at most the third.
    Learned(f64, f64, f64),
    Fixed(f64),
    Off,
}

const AUTO: Rule = Rule::Learned(1.0, 0.0, f64::INFINITY);

/// What counts for the hosts of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    at: [Rule; METRICS],
    pub(crate) learning: Learning,
    pub(crate) class: Option<HostClass>,
    /// Smallest thresholds of a metric of an operator's own.
    pub(crate) least: Option<Box<[f64; METRICS]>>,
}

impl Rules {
    /// Of each group, what counts for its hosts; nothing where that is what counts for all.
    pub(crate) fn of(policies: &Policies) -> Vec<Option<Arc<Self>>> {
        let of = |at| {
            let values = policies.values(at);
            let times = |index| values.times(index).map_or(1.0, |said| said.value);
            let rule = |index: usize| match values.thresholds[index].map(|said| said.value) {
                Some(Threshold::Auto) => AUTO,
                Some(Threshold::Off) => Rule::Off,
                Some(Threshold::Fixed(value)) => Rule::Fixed(value),
                Some(Threshold::Within(bounds)) => Rule::Learned(
                    times(index),
                    bounds.floor.unwrap_or(0.0),
                    bounds.ceiling.unwrap_or(f64::INFINITY),
                ),
                None => Rule::Learned(times(index), 0.0, f64::INFINITY),
            };
            let said = |learning: Said<'_, Learning>| learning.value;
            let rules = Self {
                at: std::array::from_fn(rule),
                learning: values.learning.map_or(Learning::On, said),
                class: values.class.map(|said| said.value),
                least: None,
            };
            (rules != Self::none()).then(|| Arc::new(rules))
        };
        (0..policies.groups().len()).map(of).collect()
    }

    const fn none() -> Self {
        Self { at: [AUTO; METRICS], learning: Learning::On, class: None, least: None }
    }

    /// What counts for a metric of an operator's own, whose packets and bits have these indices, for hosts of
    /// which their group says `values`.
    pub(crate) fn own(
        metric: &OwnMetric,
        values: Option<&PolicyValues<'_>>,
        indices: [usize; 2],
        config: &Config,
    ) -> Self {
        let way = usize::from(metric.direction == Direction::Outbound);
        let times = values.and_then(|v| v.multipliers[way]).map_or(1.0, |said| said.value);
        let floors = [config.service_floor_packets_per_sec, config.service_floor_bits_per_sec];
        let thresholds = [metric.packets_per_sec, metric.bits_per_sec];
        let (mut at, mut least) = ([Rule::Off; METRICS], [f64::INFINITY; METRICS]);
        for ((index, floor), threshold) in indices.into_iter().zip(floors).zip(thresholds) {
            (at[index], least[index]) = match threshold {
                None => (Rule::Off, f64::INFINITY),
                Some(Threshold::Off) => (Rule::Off, floor),
                Some(Threshold::Auto) => (Rule::Learned(times, 0.0, f64::INFINITY), floor),
                Some(Threshold::Fixed(value)) => (Rule::Fixed(value), value),
                Some(Threshold::Within(bounds)) => (
                    Rule::Learned(
                        bounds.multiplier.unwrap_or(times),
                        0.0,
                        bounds.ceiling.unwrap_or(f64::INFINITY),
                    ),
                    bounds.floor.unwrap_or(floor),
                ),
            };
        }
        let learning = values.and_then(|v| v.learning).map_or(Learning::On, |said| said.value);
        Self { at, learning, class: None, least: Some(Box::new(least)) }
    }

    /// What counts for the total of a group, of which these are said of the metrics of these indices.
    pub(crate) fn total(
        said: [Option<Said<'_, Threshold>>; 4],
        learning: Option<Said<'_, Learning>>,
        indices: [usize; 4],
        config: &Config,
    ) -> Self {
        let (packets, bits) =
            (config.prefix_floors.packets_per_sec, config.prefix_floors.bits_per_sec);
        let (mut at, mut least) = ([Rule::Off; METRICS], [f64::INFINITY; METRICS]);
        for ((index, floor), said) in
            indices.into_iter().zip([packets, bits, packets, bits]).zip(said)
        {
            (at[index], least[index]) = match said.map(|said| said.value) {
                None => (Rule::Off, f64::INFINITY),
                Some(Threshold::Off) => (Rule::Off, floor),
                Some(Threshold::Auto) => (AUTO, floor),
                Some(Threshold::Fixed(value)) => (Rule::Fixed(value), value),
                Some(Threshold::Within(bounds)) => (
                    Rule::Learned(
                        bounds.multiplier.unwrap_or(1.0),
                        0.0,
                        bounds.ceiling.unwrap_or(f64::INFINITY),
                    ),
                    bounds.floor.unwrap_or(floor),
                ),
            };
        }
        let learning = learning.map_or(Learning::On, |said| said.value);
        Self { at, learning, class: None, least: Some(Box::new(least)) }
    }

    /// The threshold of a metric where `learned` is that without groups. What is set for a host is the least
    /// for its ports and prefixes: none of them is anomalous below it.
    pub(crate) fn threshold(&self, kind: Kind, index: usize, learned: f64, new: bool) -> f64 {
        let (rule, mute) = (self.at[index], self.learning == Learning::ObserveOnly);
        match (rule, kind) {
            (Rule::Off, _) => f64::INFINITY,
            // To a host just met everybody is new.
            _ if index == SOURCES && new => learned,
            (Rule::Fixed(value), Kind::Host | Kind::Own) => value,
            _ if mute => f64::INFINITY,
            (Rule::Fixed(value), _) => learned.max(value),
            (Rule::Learned(times, floor, ceiling), Kind::Host | Kind::Own) => {
                (learned * times).max(floor).min(ceiling)
            }
            (Rule::Learned(times, floor, _), _) => (learned * times).max(floor),
        }
    }

    /// The least volume from which a change of shape or a ramp is an alarm, where it is `least` without
    /// groups.
    pub(crate) fn growth(&self, least: f64) -> f64 {
        self.threshold(Kind::Service, PACKETS, least, false)
    }

    /// Whose word a threshold is, where it is a group's.
    pub(crate) fn source(&self, index: usize, learned: f64, new: bool) -> Option<&'static str> {
        match self.at[index] {
            Rule::Off => Some("group-off"),
            Rule::Fixed(_) if !(index == SOURCES && new) => Some("group"),
            _ if self.learning == Learning::ObserveOnly => Some("group-observe-only"),
            #[expect(clippy::float_cmp, reason = "it is the same number when nothing changed it")]
            _ => (self.threshold(Kind::Host, index, learned, new) != learned).then_some("group"),
        }
    }

    /// The threshold that people are shown of a metric: where none is in force, what it would be.
    pub(crate) fn shown(&self, index: usize, learned: f64, new: bool) -> f64 {
        let value = self.threshold(Kind::Host, index, learned, new);
        if value.is_finite() {
            return value;
        }
        let Rule::Learned(times, floor, ceiling) = self.at[index] else { return learned };
        (learned * times).max(floor).min(ceiling)
    }
}

/// What groups say, by group.
#[derive(Debug, Default)]
pub(crate) struct RuleBook(Vec<Option<Arc<Rules>>>);

impl RuleBook {
    pub(crate) fn new(policies: &Policies) -> Self {
        Self(Rules::of(policies))
    }

    /// What counts for a host or prefix.
    pub(crate) fn of(&self, policies: &Policies, target: IpNet) -> Option<Arc<Rules>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(policies.at(target)?)?.clone()
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{Bounds, Direction, Inbound, Outbound, PolicyGroup, THRESHOLDS};

    use super::*;
    use crate::watch::metric::{BITS, HOST_METRICS, OUTBOUND, direction};

    #[test]
    fn thresholds_of_groups_are_those_of_hosts() {
        for (index, (way, name)) in THRESHOLDS.into_iter().enumerate() {
            assert_eq!(way, direction(index), "{name}");
            let metric = HOST_METRICS[index].id().replace('-', "_");
            // Two have no name of their own.
            let known = metric == "signature" || name.ends_with(&metric);
            assert!(known, "{name}: {metric}");
        }
    }

    fn rules(group: PolicyGroup) -> Arc<Rules> {
        Rules::of(&Policies::from(vec![group])).remove(0).unwrap()
    }

    #[test]
    fn a_threshold_is_learned_within_bounds_or_set_or_none() {
        let within =
            |multiplier, floor, ceiling| Threshold::Within(Bounds { multiplier, floor, ceiling });
        let check = |times, threshold, [host, port]: [f64; 2], source: Option<&str>| {
            let inbound = Inbound {
                multiplier: times,
                bits_per_sec: threshold,
                // So that there is something to say at all.
                icmp_per_sec: Some(Threshold::Off),
                ..Inbound::default()
            };
            let rules =
                rules(PolicyGroup { inbound: Some(Box::new(inbound)), ..PolicyGroup::default() });
            let of = |kind| rules.threshold(kind, BITS, 100.0, false);
            assert_eq!([of(Kind::Host), of(Kind::Service)], [host, port], "{threshold:?}");
            assert_eq!(of(Kind::Prefix), port, "{threshold:?}");
            assert_eq!(rules.source(BITS, 100.0, false), source, "{threshold:?}");
            assert_eq!(rules.threshold(Kind::Host, OUTBOUND, 100.0, false), 100.0);
        };
        const NEVER: f64 = f64::INFINITY;
        check(None, None, [100.0, 100.0], None);
        check(Some(4.0), None, [400.0, 400.0], Some("group"));
        check(Some(4.0), Some(Threshold::Auto), [100.0, 100.0], None);
        check(Some(4.0), Some(Threshold::Off), [NEVER, NEVER], Some("group-off"));
        check(Some(4.0), Some(Threshold::Fixed(70.0)), [70.0, 100.0], Some("group"));
        check(None, Some(Threshold::Fixed(700.0)), [700.0, 700.0], Some("group"));
        check(Some(4.0), Some(within(None, None, Some(300.0))), [300.0, 400.0], Some("group"));
        check(Some(4.0), Some(within(Some(2.0), None, None)), [200.0, 200.0], Some("group"));
        check(None, Some(within(None, Some(150.0), None)), [150.0, 150.0], Some("group"));
        check(None, Some(within(None, Some(50.0), Some(150.0))), [100.0, 100.0], None);
    }

    #[test]
    fn what_is_only_observed_alarms_by_what_is_set_alone() {
        let outbound =
            Outbound { packets_per_sec: Some(Threshold::Fixed(50.0)), ..Outbound::default() };
        let inbound = Inbound { multiplier: Some(2.0), ..Inbound::default() };
        let rules = rules(PolicyGroup {
            learning: Some(Learning::ObserveOnly),
            inbound: Some(Box::new(inbound)),
            outbound: Some(Box::new(outbound)),
            ..PolicyGroup::default()
        });
        assert_eq!(rules.threshold(Kind::Host, BITS, 100.0, false), f64::INFINITY);
        assert_eq!(rules.shown(BITS, 100.0, false), 200.0);
        assert_eq!(rules.source(BITS, 100.0, false), Some("group-observe-only"));
        assert_eq!(rules.threshold(Kind::Host, OUTBOUND, 100.0, false), 50.0);
        assert_eq!(rules.threshold(Kind::Prefix, OUTBOUND, 100.0, false), f64::INFINITY);
        assert_eq!(rules.growth(100.0), f64::INFINITY);
        assert_eq!(
            Rules::of(&Policies::from(vec![PolicyGroup { mode: None, ..PolicyGroup::default() }])),
            [None]
        );
        assert_eq!(THRESHOLDS[OUTBOUND].0, Direction::Outbound);
    }
}
