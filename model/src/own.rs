//! Metrics of an operator's own: packets that a pattern means, measured of every host beside what weir
//! measures anyway.

use serde::{Deserialize, Serialize};

use crate::pattern::Compiled;
use crate::{Direction, FragmentMatch, IpNet, Metric, Pattern, Policies, Threshold};

/// Metrics of one's own at most: a record's are told as bits of one number.
pub const OWN_METRICS_MAX: usize = 16;

/// Characters of a metric's name at most.
const NAME_MAX: usize = 32;

/// A metric of an operator's own, `[[detector.metric]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnMetric {
    /// Name on incidents, 1-32 characters of a-z, 0-9 and -, beginning with a letter; unique.
    pub name: String,
    /// Which packets, as one condition that a rule of a router can say: `udp dst port 5060`, `tcp src port 80
    /// tcp-flags SYN+ACK`, `udp src 198.51.100.0/24 length 1000-1500`. Lists are separated by commas.
    #[serde(rename = "match")]
    pub packets: Pattern,
    /// `inbound`: of what comes to a host; `outbound`: of what it sends.
    #[serde(default)]
    pub direction: Direction,
    /// From how many packets a second on they are an attack: a number, `"auto"` (learned), `"off"` (only
    /// measured) or a table of `multiplier`, `floor` and `ceiling`, as for groups. A learned threshold is never
    /// below `floor`, by default `detector.service_floor_packets_per_sec`. A number is at least
    /// `detector.warm_packets_per_sec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_per_sec: Option<Threshold>,
    /// The same in layer-3 bits a second; by default at least `detector.service_floor_bits_per_sec`. A number
    /// is at least 12,000 times `detector.warm_packets_per_sec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_sec: Option<Threshold>,
    /// Names of the groups for whose hosts it is measured, with those below them; all hosts when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl OwnMetric {
    /// What is wrong with it, where `least` is `detector.warm_packets_per_sec`.
    fn check(&self, least: u64) -> Result<(), String> {
        let name = &self.name;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.len() > NAME_MAX
            || !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.chars().all(letters)
        {
            return Err(format!(
                "a name has 1-{NAME_MAX} characters of a-z, 0-9 and -, the first a letter"
            ));
        }
        if Metric::ALL.iter().any(|metric| metric.id() == name) {
            return Err("weir has a metric of this name".to_owned());
        }
        let m = self.packets.components();
        if !m.dscps.is_empty() {
            return Err("match: flow records do not tell the DSCP".to_owned());
        }
        if m.fragment == Some(FragmentMatch::Last) {
            return Err("match: flow records do not tell the last fragment from others".to_owned());
        }
        if m.src.is_some() && self.direction == Direction::Outbound {
            return Err("match: the source of what a host sends is the host; use groups".to_owned());
        }
        #[expect(clippy::cast_precision_loss, reason = "a setting")]
        let least = least as f64;
        let limits = [
            ("packets_per_sec", self.packets_per_sec, least),
            // As many packets of the usual longest.
            ("bits_per_sec", self.bits_per_sec, least * 12_000.0),
        ];
        if limits.iter().all(|(_, threshold, _)| threshold.is_none()) {
            return Err("it needs packets_per_sec or bits_per_sec".to_owned());
        }
        for (key, threshold, least) in limits {
            if matches!(threshold, Some(Threshold::Fixed(value)) if value < least) {
                return Err(format!(
                    "{key}: at least {least}: hosts are watched from detector.warm_packets_per_sec on"
                ));
            }
        }
        Ok(())
    }
}

/// Metrics of an operator's own. In their serialised form a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<OwnMetric>", into = "Vec<OwnMetric>")]
pub struct OwnMetrics {
    list: Vec<OwnMetric>,
    key: u64,
}

impl PartialEq for OwnMetrics {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl From<Vec<OwnMetric>> for OwnMetrics {
    fn from(mut list: Vec<OwnMetric>) -> Self {
        list.truncate(OWN_METRICS_MAX);
        let key = key_of(&list);
        Self { list, key }
    }
}

impl From<OwnMetrics> for Vec<OwnMetric> {
    fn from(metrics: OwnMetrics) -> Self {
        metrics.list
    }
}

/// FNV-1a over what decides which packets are counted under which number, above 0.
fn key_of(list: &[OwnMetric]) -> u64 {
    let mut key = 0xcbf2_9ce4_8422_2325_u64;
    for metric in list {
        let text = format!("{}|{}|{:?}\n", metric.name, metric.packets, metric.direction);
        for octet in text.bytes() {
            key = (key ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    key.max(1)
}

impl OwnMetrics {
    /// The metrics in the order of their numbers, at most [`OWN_METRICS_MAX`].
    pub fn list(&self) -> &[OwnMetric] {
        &self.list
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A number for names, patterns and directions in their order: what was counted by others carries another.
    /// 0 when there is none.
    pub const fn key(&self) -> u64 {
        if self.list.is_empty() { 0 } else { self.key }
    }

    /// Patterns of one direction made ready, with the bits of their numbers.
    pub fn compile(&self, way: Direction) -> Vec<(u16, Compiled)> {
        let own = self.list.iter().enumerate().filter(|(_, metric)| metric.direction == way);
        own.map(|(at, metric)| (1 << at, metric.packets.compile())).collect()
    }

    /// Which metrics are measured of a target's hosts, as bits, with the group by which each is; none where
    /// it is measured everywhere.
    pub fn of<'a>(
        &'a self,
        policies: &'a Policies,
        target: IpNet,
    ) -> impl Iterator<Item = (usize, &'a OwnMetric, Option<&'a str>)> {
        let path: Vec<&str> = if self.list.iter().all(|metric| metric.groups.is_empty()) {
            Vec::new()
        } else {
            policies.at(target).into_iter().flat_map(|at| policies.names(at)).collect()
        };
        self.list.iter().enumerate().filter_map(move |(at, metric)| {
            if metric.groups.is_empty() {
                return Some((at, metric, None));
            }
            let by = path.iter().find(|name| metric.groups.iter().any(|group| group == *name));
            by.map(|name| (at, metric, Some(*name)))
        })
    }
}

/// Whether metrics of one's own can be measured, where `least` is `detector.warm_packets_per_sec`.
///
/// # Errors
/// In words, beginning with the metric's name.
pub fn check_own(list: &[OwnMetric], least: u64) -> Result<(), String> {
    if list.len() > OWN_METRICS_MAX {
        return Err(format!("at most {OWN_METRICS_MAX} metrics"));
    }
    for (at, metric) in list.iter().enumerate() {
        let name = &metric.name;
        metric.check(least).map_err(|why| format!("{name:?}: {why}"))?;
        if list[..at].iter().any(|other| other.name == *name) {
            return Err(format!("{name:?}: stands twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyGroup;

    fn metric(name: &str) -> OwnMetric {
        OwnMetric {
            name: name.to_owned(),
            packets: "udp dst port 5060".parse().unwrap(),
            direction: Direction::Inbound,
            packets_per_sec: Some(Threshold::Auto),
            bits_per_sec: None,
            groups: Vec::new(),
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let check = |change: &dyn Fn(&mut OwnMetric), error: &str| {
            let mut own = metric("sip");
            change(&mut own);
            let found = check_own(&[own], 100);
            match error {
                "" => assert_eq!(found, Ok(())),
                _ => assert!(found.clone().unwrap_err().contains(error), "{error}: {found:?}"),
            }
        };
        check(&|_| {}, "");
        for name in ["", "Sip", "9p", "si p", "packets-per-sec", &"x".repeat(33)] {
            let error = if name == "packets-per-sec" { "of this name" } else { "a name has" };
            check(&|own| own.name = name.to_owned(), error);
        }
        check(&|own| own.packets = "udp dscp 46".parse().unwrap(), "do not tell the DSCP");
        check(&|own| own.packets = "udp last-fragment".parse().unwrap(), "the last fragment");
        check(&|own| own.packets_per_sec = None, "needs packets_per_sec or bits_per_sec");
        check(
            &|own| own.packets_per_sec = Some(Threshold::Fixed(99.0)),
            "packets_per_sec: at least 100",
        );
        check(
            &|own| own.bits_per_sec = Some(Threshold::Fixed(1e6)),
            "bits_per_sec: at least 1200000",
        );
        let src = |own: &mut OwnMetric| own.packets = "udp src 192.0.2.0/24".parse().unwrap();
        check(&src, "");
        check(
            &|own| {
                src(own);
                own.direction = Direction::Outbound;
            },
            "use groups",
        );
        assert!(check_own(&[metric("a"), metric("a")], 100).unwrap_err().contains("stands twice"));
        let many: Vec<OwnMetric> = (0..17).map(|i| metric(&format!("m{i}"))).collect();
        assert!(check_own(&many, 100).unwrap_err().contains("at most 16"));
    }

    #[test]
    fn a_metric_belongs_to_its_groups_and_those_below_them() {
        let group = |name: &str, net: &str| PolicyGroup {
            name: name.to_owned(),
            prefixes: FromIterator::from_iter([net.parse().unwrap()]),
            ..PolicyGroup::default()
        };
        let policies = Policies::from(vec![
            group("voice", "203.0.113.0/24"),
            group("acme", "203.0.113.0/28"),
            group("web", "198.51.100.0/24"),
        ]);
        let voice = OwnMetric { groups: vec!["voice".to_owned()], ..metric("sip") };
        let metrics = OwnMetrics::from(vec![metric("all"), voice]);
        let of = |host: &str| {
            let all = metrics.of(&policies, host.parse().unwrap());
            all.map(|(at, _, by)| (at, by.map(str::to_owned))).collect::<Vec<_>>()
        };
        let voice = Some("voice".to_owned());
        assert_eq!(of("203.0.113.7/32"), [(0, None), (1, voice.clone())]);
        assert_eq!(of("203.0.113.77/32"), [(0, None), (1, voice)]);
        assert_eq!(of("198.51.100.7/32"), [(0, None)]);
        assert_eq!(of("192.0.2.1/32"), [(0, None)]);
    }

    #[test]
    fn the_key_is_of_what_is_counted() {
        let key = |list: Vec<OwnMetric>| OwnMetrics::from(list).key();
        assert_eq!(key(Vec::new()), 0);
        let one = key(vec![metric("sip")]);
        let other = OwnMetric { packets_per_sec: Some(Threshold::Fixed(5e3)), ..metric("sip") };
        assert_eq!(key(vec![other]), one, "thresholds do not count");
        let other = OwnMetric { direction: Direction::Outbound, ..metric("sip") };
        assert_ne!(key(vec![other]), one);
        assert_ne!(key(vec![metric("a"), metric("b")]), key(vec![metric("b"), metric("a")]));
    }
}
