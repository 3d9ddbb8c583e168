//! Allow lists: far ends that are wanted, whose packets no rule may name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Match, Millis, PrefixSet, Range};

/// Allow lists at most.
pub const ALLOW_LISTS_MAX: usize = 64;

/// Prefixes of all allow lists at most.
pub const ALLOW_PREFIXES_MAX: usize = 65_536;

/// Longest name of an allow list, octets.
const NAME_MAX: usize = 32;

/// Protocols that have ports.
const PORTED: [u8; 2] = [6, 17];

/// The name of an allow list: 1-32 letters, digits, `.`, `-` and `_`, the first a letter or a digit. Held in
/// place, so that a refusal that names a list can be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AllowName {
    octets: [u8; NAME_MAX],
    len: u8,
}

/// Not the name of an allow list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: a name has 1-{NAME_MAX} letters, digits, '.', '-' or '_', and begins with a letter or a digit"
)]
pub struct AllowNameError(String);

impl AllowName {
    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.octets[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for AllowName {
    type Err = AllowNameError;

    fn from_str(text: &str) -> Result<Self, AllowNameError> {
        let wrong = || AllowNameError(text.chars().take(2 * NAME_MAX).collect());
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let begins = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if !begins || text.len() > NAME_MAX || !text.bytes().all(plain) {
            return Err(wrong());
        }
        let mut octets = [0; NAME_MAX];
        octets[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { octets, len: u8::try_from(text.len()).map_err(|_| wrong())? })
    }
}

impl TryFrom<String> for AllowName {
    type Error = AllowNameError;

    fn try_from(text: String) -> Result<Self, AllowNameError> {
        text.parse()
    }
}

impl From<AllowName> for String {
    fn from(name: AllowName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for AllowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AllowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Whether the volume of an allow list counts for alarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum AllowAlarms {
    /// It counts like any other.
    #[default]
    Count,
    /// What of it is answered is left out of what is too much.
    LeaveOut,
}

/// Packets of the present, seen from the protected host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// The far address, IPv4 mapped into IPv6.
    pub address: u128,
    /// IP protocol.
    pub protocol: u8,
    /// Port of the protected host, and of the far end; none of a fragment without a header.
    pub ports: Option<(u16, u16)>,
}

/// One allow list in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowList {
    /// Its name.
    pub name: AllowName,
    /// Addresses of far ends.
    pub prefixes: PrefixSet,
    /// IP protocols; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<u8>,
    /// Ports of protected hosts; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Range>,
    /// Ports of far ends; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<Range>,
    /// Groups for whose alarms `alarms` says something; everybody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether its volume counts for alarms.
    #[serde(default)]
    pub alarms: AllowAlarms,
    /// Since when a change of it waits for a person's approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Millis>,
}

impl AllowList {
    /// Whether some packet of a far end of the list could be one that the match means, addresses aside.
    fn meets(&self, m: &Match) -> bool {
        let spoken: &[u8] = if !m.protocols.is_empty() {
            &m.protocols
        } else if !m.tcp_flags.is_empty() {
            &[6]
        } else if !m.icmp_types.is_empty() || !m.icmp_codes.is_empty() {
            &[1, 58]
        } else if !m.dst_ports.is_empty() || !m.src_ports.is_empty() {
            &PORTED
        } else {
            &[]
        };
        let protocol = spoken.is_empty()
            || self.protocols.is_empty()
            || spoken.iter().any(|p| self.protocols.contains(p));
        let share = |a: &[Range], b: &[Range]| {
            let meet = |x: &Range| b.iter().any(|y| x.from <= y.to && y.from <= x.to);
            a.is_empty() || b.is_empty() || a.iter().any(meet)
        };
        protocol && share(&self.ports, &m.dst_ports) && share(&self.source_ports, &m.src_ports)
    }

    /// Whether a far end speaks what the list names, its address aside.
    fn speaks(&self, far: &FarEnd) -> bool {
        let any = |list: &[Range], port: u16| {
            list.is_empty() || list.iter().any(|range| range.contains(port))
        };
        (self.protocols.is_empty() || self.protocols.contains(&far.protocol))
            && far.ports.is_none_or(|(own, remote)| {
                any(&self.ports, own) && any(&self.source_ports, remote)
            })
    }
}

/// First and last address, IPv4 mapped into IPv6.
type Span = (u128, u128);

/// All allow lists in force, ready to be asked: looking an address up takes a search a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<AllowList>", into = "Vec<AllowList>")]
pub struct AllowLists {
    lists: Vec<AllowList>,
    /// Of each list what its prefixes hold: sorted, apart from each other.
    spans: Vec<Vec<Span>>,
}

impl AllowLists {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The lists, in the order in which they were given.
    pub fn lists(&self) -> &[AllowList] {
        &self.lists
    }

    /// A change of a list waits since then, or none does.
    pub fn wait(&mut self, name: AllowName, since: Option<Millis>) {
        for list in self.lists.iter_mut().filter(|list| list.name == name) {
            list.waits = since;
        }
    }

    /// Prefixes of all lists.
    pub fn prefixes(&self) -> usize {
        self.lists.iter().map(|list| list.prefixes.len()).sum()
    }

    /// The first list of which a match names a far end: its source shares an address with the list, and
    /// nothing else in it keeps them apart. A match without a source names nobody.
    pub fn named_by(&self, m: &Match) -> Option<&AllowList> {
        let source = span(m.src.filter(|_| !self.is_empty())?);
        let all = self.lists.iter().zip(&self.spans);
        all.filter(|(list, spans)| meets(spans, source) && list.meets(m)).map(|(l, _)| l).next()
    }

    /// Whether a prefix shares an address with any list.
    pub fn overlaps(&self, net: IpNet) -> bool {
        self.spans.iter().any(|spans| meets(spans, span(net)))
    }

    /// The first list for which `which` holds that has a far end.
    pub fn of(&self, far: &FarEnd, which: impl Fn(&AllowList) -> bool) -> Option<&AllowList> {
        let at = (far.address, far.address);
        let all = self.lists.iter().zip(&self.spans);
        all.filter(|(list, spans)| list.speaks(far) && which(list) && meets(spans, at))
            .map(|(list, _)| list)
            .next()
    }
}

impl From<Vec<AllowList>> for AllowLists {
    fn from(lists: Vec<AllowList>) -> Self {
        let spans = lists.iter().map(|list| join(list.prefixes.iter().map(span))).collect();
        Self { lists, spans }
    }
}

impl From<AllowLists> for Vec<AllowList> {
    fn from(all: AllowLists) -> Self {
        all.lists
    }
}

/// How much of what two sets of prefixes hold they do not share, of what the first holds; counted once by
/// prefixes and once by addresses of each family, whichever is more. 0 when they hold the same.
#[expect(clippy::cast_precision_loss, reason = "a share, not an account")]
pub fn changed_share(before: &PrefixSet, after: &PrefixSet) -> f64 {
    let (old, new): (Vec<IpNet>, Vec<IpNet>) = (before.iter().collect(), after.iter().collect());
    let gone = old.iter().filter(|net| new.binary_search(net).is_err()).count();
    let come = new.iter().filter(|net| old.binary_search(net).is_err()).count();
    let mut worst = if gone + come == 0 { 0.0 } else { (gone + come) as f64 / old.len() as f64 };
    for v4 in [true, false] {
        let of = |nets: &[IpNet]| {
            let own = nets.iter().filter(|net| matches!(net, IpNet::V4(_)) == v4);
            join(own.copied().map(span))
        };
        let (old, new) = (of(&old), of(&new));
        let sum = |spans: &[Span]| {
            spans.iter().map(|(from, to)| (to - from) as f64 + 1.0).sum::<f64>() + 0.0
        };
        let both = join(old.iter().chain(&new).copied());
        let differ = 2.0 * sum(&both) - sum(&old) - sum(&new);
        if differ > 0.0 {
            worst = f64::max(worst, differ / sum(&old));
        }
    }
    worst
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn span(net: IpNet) -> Span {
    (wide(net.network()), wide(net.broadcast()))
}

/// Sorted, and joined where they touch.
fn join(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut all: Vec<Span> = spans.collect();
    all.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(all.len());
    for (from, to) in all {
        match joined.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// Whether one of the joined spans shares an address with another span.
fn meets(spans: &[Span], (from, to): Span) -> bool {
    let at = spans.partition_point(|own| own.1 < from);
    spans.get(at).is_some_and(|own| own.0 <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str, prefixes: &[&str]) -> AllowList {
        AllowList {
            name: name.parse().unwrap(),
            prefixes: prefixes.iter().map(|net| net.parse::<IpNet>().unwrap()).collect(),
            protocols: Vec::new(),
            ports: Vec::new(),
            source_ports: Vec::new(),
            groups: Vec::new(),
            alarms: AllowAlarms::Count,
            waits: None,
        }
    }

    fn rule(src: &str) -> Match {
        let dst = if src.contains(':') { "2001:db8::7/128" } else { "203.0.113.7/32" };
        Match { src: Some(src.parse().unwrap()), ..Match::to(dst.parse().unwrap()) }
    }

    #[test]
    fn a_rule_names_a_list_when_nothing_in_it_keeps_them_apart() {
        let web = AllowList {
            protocols: vec![6],
            ports: vec![Range::exact(80), Range::exact(443)],
            ..list("web", &["198.51.100.0/24", "198.51.101.0/25", "2001:db8:1::/48"])
        };
        let asked = AllowList {
            protocols: vec![17],
            source_ports: vec![Range::exact(53)],
            ..list("resolver", &["192.0.2.53/32"])
        };
        let lists = AllowLists::from(vec![web, asked, list("all", &["192.0.2.128/25"])]);
        let check = |m: Match, name: Option<&str>| {
            assert_eq!(lists.named_by(&m).map(|list| list.name.as_str()), name, "{m}");
        };
        check(Match::to("203.0.113.7/32".parse().unwrap()), None);
        check(rule("198.51.100.7/32"), Some("web"));
        check(rule("198.51.0.0/16"), Some("web"));
        check(rule("198.51.101.128/25"), None);
        check(rule("0.0.0.0/0"), Some("web"));
        check(rule("2001:db8:1::7/128"), Some("web"));
        check(rule("2001:db8:2::/48"), None);
        check(rule("192.0.2.53/32"), Some("resolver"));
        check(rule("192.0.2.200/32"), Some("all"));
        check(Match { protocols: vec![17], ..rule("198.51.100.0/24") }, None);
        check(Match { protocols: vec![6, 17], ..rule("198.51.100.0/24") }, Some("web"));
        check(Match { icmp_types: vec![8], ..rule("198.51.100.0/24") }, None);
        check(Match { dst_ports: vec![Range::exact(25)], ..rule("198.51.100.0/24") }, None);
        let ports = vec![Range { from: 100, to: 500 }];
        check(Match { dst_ports: ports.clone(), ..rule("198.51.100.0/24") }, Some("web"));
        check(Match { src_ports: ports, ..rule("192.0.2.53/32") }, None);
        let fragment = Some(crate::FragmentMatch::IsFragment);
        check(Match { fragment, ..rule("198.51.100.0/24") }, Some("web"));
    }

    #[test]
    fn a_far_end_is_found_by_address_protocol_and_ports() {
        let web = AllowList {
            protocols: vec![6],
            ports: vec![Range::exact(443)],
            ..list("web", &["198.51.100.0/24", "2001:db8:1::/48"])
        };
        let lists = AllowLists::from(vec![web]);
        let check = |address: &str, protocol, ports, held: bool| {
            let far = FarEnd { address: wide(address.parse().unwrap()), protocol, ports };
            assert_eq!(lists.of(&far, |_| true).is_some(), held, "{address} {protocol} {ports:?}");
        };
        check("198.51.100.0", 6, Some((443, 50_000)), true);
        check("198.51.100.255", 6, Some((443, 50_000)), true);
        check("198.51.101.0", 6, Some((443, 50_000)), false);
        check("198.51.99.255", 6, Some((443, 50_000)), false);
        check("2001:db8:1::9", 6, Some((443, 1)), true);
        check("198.51.100.7", 6, Some((25, 50_000)), false);
        check("198.51.100.7", 17, Some((443, 50_000)), false);
        check("198.51.100.7", 6, None, true);
    }

    #[test]
    fn a_change_is_told_by_prefixes_and_by_addresses() {
        let set = |nets: &[&str]| nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        let check = |before: &[&str], after: &[&str], share: f64| {
            let found = changed_share(&set(before), &set(after));
            assert!((found - share).abs() < 1e-6 || found == share, "{before:?} {after:?} {found}");
        };
        let ten: Vec<String> = (0..10).map(|n| format!("10.{n}.0.0/24")).collect();
        let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
        check(&ten, &ten, 0.0);
        check(&ten, &ten[1..], 0.1);
        check(&ten, &[], 1.0);
        // One prefix more, and more addresses than all others have.
        check(&ten, &[&ten[..], &["11.0.0.0/16"]].concat(), 25.6);
        // The same addresses, spelled otherwise.
        check(&["10.0.0.0/24"], &["10.0.0.0/25", "10.0.0.128/25"], 3.0);
        check(&["10.0.0.0/24"], &["10.0.0.0/24", "2001:db8::/32"], f64::INFINITY);
        check(&[], &["10.0.0.0/24"], f64::INFINITY);
        check(&ten, &[&ten[..], &["2001:db8::/32"]].concat(), f64::INFINITY);
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["cloudflare", "a", "own_filter-2.v4"] {
            assert_eq!(name.parse::<AllowName>().unwrap().to_string(), name);
        }
        for name in ["", ".", "..", "-a", "a b", "a/b", "\u{e4}", &"x".repeat(33)] {
            assert!(name.parse::<AllowName>().is_err(), "{name}");
        }
        let lists = AllowLists::from(vec![list("web", &["198.51.100.0/24"])]);
        let text = serde_json::to_string(&lists).unwrap();
        assert_eq!(serde_json::from_str::<AllowLists>(&text).unwrap(), lists);
    }
}
