//! `[[protect.allow]]`: lists of far ends that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use weir_model::{
    ALLOW_LISTS_MAX, ALLOW_PREFIXES_MAX, AllowAlarms, AllowList, AllowLists, AllowName, IpNet,
    PrefixSet, Range, is_url,
};

use crate::{Config, ServiceProtocol, Warning};

/// Shortest prefixes that can be on a list: wider ones are no list but the Internet.
const MIN_LEN4: u8 = 8;
const MIN_LEN6: u8 = 16;

/// Ports or ranges of ports of an entry at most.
const PORTS_MAX: usize = 64;

/// Autonomous systems of an entry at most.
const ASNS_MAX: usize = 64;

/// A port or a range of ports, as a number or as text: `443`, `"8000-8100"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct PortRange(pub Range);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(u16),
    Text(String),
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (from.trim().parse(), to.trim().parse()) {
            (Ok(from), Ok(to)) if from <= to => Ok(Self(Range { from, to })),
            _ => Err(format!("{text:?} is neither a port nor a range of ports such as 8000-8100")),
        }
    }
}

impl TryFrom<Written> for PortRange {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::One(port) => Ok(Self(Range::exact(port))),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<PortRange> for Written {
    fn from(PortRange(range): PortRange) -> Self {
        if range.from == range.to { Self::One(range.from) } else { Self::Text(range.to_string()) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a list comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowSource {
    /// A file.
    File(PathBuf),
    /// Addresses of one list, all of them together.
    Urls(Vec<String>),
    /// What RPKI lets these autonomous systems originate.
    Origins(Vec<u32>),
}

impl fmt::Display for AllowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Urls(urls) => f.write_str(&urls.join(" ")),
            Self::Origins(asns) => {
                let asns: Vec<String> = asns.iter().map(|asn| format!("AS{asn}")).collect();
                write!(f, "RPKI: {}", asns.join(" "))
            }
        }
    }
}

/// One `[[protect.allow]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowConfig {
    /// Its name: 1-32 letters, digits, `.`, `-` and `_`.
    pub name: AllowName,
    /// Addresses of the far ends, none wider than a /8 (IPv6: /16).
    #[serde(default, skip_serializing_if = "PrefixSet::is_empty")]
    pub prefixes: PrefixSet,
    /// File with more of them, one prefix or address a line, `#` and `;` begin comments; or JSON, of which every text
    /// that is a prefix counts. A change of more than a fifth waits for approval (`weir allow`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The same from a web server, `https://...` (`http://` on this machine only); not together with `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A list that somebody publishes, by its name in `profiles/allow.toml`: `bunny`, `clicky`, `cloudflare`, `fastly`,
    /// `gcore`. In place of `file` and `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Numbers of autonomous systems: all prefixes that RPKI lets them originate, from the cache of `[bgp.rpki]`. In
    /// place of `file`, `url` and `set`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asns: Vec<u32>,
    /// How often `file`, `url`, `set` or `asns` is read, seconds, 60-604800.
    #[serde(default = "refresh_secs")]
    pub refresh_secs: u64,
    /// The protocol that they speak: `tcp`, `udp` or `both`; any unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ServiceProtocol>,
    /// Ports of protected hosts that they speak to, such as `443` or `"8000-8100"`; any unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// Ports of theirs that they speak from, where protected hosts ask them; any unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<PortRange>,
    /// Groups for whose hosts `alarms` holds, with those that inherit from them; all hosts unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What its volume is to alarms: `count`, or `leave-out`, with which what the host answers of it raises none.
    /// Uplinks always count it.
    #[serde(default)]
    pub alarms: AllowAlarms,
}

const fn refresh_secs() -> u64 {
    3600
}

impl AllowConfig {
    /// Where more of it is read.
    pub fn source(&self) -> Option<AllowSource> {
        if let Some(path) = &self.file {
            return Some(AllowSource::File(path.clone()));
        }
        if !self.asns.is_empty() {
            return Some(AllowSource::Origins(self.asns.clone()));
        }
        let set = || crate::allow_sets::urls_of(self.set.as_ref()?);
        self.url.clone().map(|url| vec![url]).or_else(set).map(AllowSource::Urls)
    }

    /// What it is for, in words; empty when for everything.
    pub fn what(&self) -> String {
        let list = |name: &str, ports: &[PortRange]| {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            if ports.is_empty() { String::new() } else { format!(" {name} {}", ports.join(",")) }
        };
        let protocol = match self.protocol {
            None => "",
            Some(ServiceProtocol::Tcp) => "tcp",
            Some(ServiceProtocol::Udp) => "udp",
            Some(ServiceProtocol::Both) => "tcp,udp",
        };
        format!("{protocol}{}{}", list("dport", &self.ports), list("sport", &self.source_ports))
    }

    /// The list in force when it holds these prefixes.
    fn list(&self, prefixes: PrefixSet) -> AllowList {
        let ranges = |ports: &[PortRange]| ports.iter().map(|PortRange(range)| *range).collect();
        AllowList {
            name: self.name,
            prefixes,
            protocols: self.protocol.map(|p| p.numbers().to_vec()).unwrap_or_default(),
            ports: ranges(&self.ports),
            source_ports: ranges(&self.source_ports),
            groups: self.groups.clone(),
            alarms: self.alarms,
            waits: None,
        }
    }

    fn check(&self) -> Result<(), String> {
        let sources =
            [self.file.is_some(), self.url.is_some(), self.set.is_some(), !self.asns.is_empty()];
        let sources = sources.into_iter().filter(|there| *there).count();
        if self.prefixes.is_empty() && sources == 0 {
            return Err("it has no prefixes, no file, no url, no set and no asns".to_owned());
        }
        if sources > 1 {
            return Err("of file, url, set and asns only one".to_owned());
        }
        if let Some(set) = self.set.as_ref().filter(|set| crate::allow_sets::urls_of(set).is_none())
        {
            return Err(format!("set: {set:?} is none of {}", crate::allow_sets::names()));
        }
        if self.asns.len() > ASNS_MAX || self.asns.contains(&0) {
            return Err(format!("asns: 1 to {ASNS_MAX} numbers, none of them 0"));
        }
        if let Some(url) = &self.url {
            check_url(url)?;
        }
        if !(60..=604_800).contains(&self.refresh_secs) {
            return Err(format!("refresh_secs = {} is outside 60-604800", self.refresh_secs));
        }
        check_prefixes(&self.prefixes)?;
        if !self.groups.is_empty() && self.alarms == AllowAlarms::Count {
            return Err("groups say for whom alarms = \"leave-out\" holds".to_owned());
        }
        let ports = [("ports", &self.ports), ("source_ports", &self.source_ports)];
        for (name, list) in ports.into_iter().filter(|(_, list)| !list.is_empty()) {
            if self.protocol.is_none() {
                return Err(format!("{name} need a protocol"));
            }
            if list.len() > PORTS_MAX {
                return Err(format!("at most {PORTS_MAX} {name}"));
            }
        }
        Ok(())
    }
}

/// Whether nobody on the way can change what an address answers.
fn check_url(url: &str) -> Result<(), String> {
    let here = || {
        let host = url.strip_prefix("http://")?.split(['/', '?', '#']).next()?;
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        Some(name.parse::<IpAddr>().ok()?.is_loopback())
    };
    if !is_url(url) || !(url.starts_with("https://") || here() == Some(true)) {
        return Err("url: must be https://..., or http:// on a loopback address".to_owned());
    }
    Ok(())
}

/// Whether all prefixes are narrow enough to be those of somebody.
///
/// # Errors
/// In words, with the first that is not.
pub fn check_prefixes(prefixes: &PrefixSet) -> Result<(), String> {
    let least = |net: &IpNet| if net.addr().is_ipv4() { MIN_LEN4 } else { MIN_LEN6 };
    match prefixes.iter().find(|net| net.prefix_len() < least(net)) {
        Some(net) => Err(format!("{net} is wider than a /{MIN_LEN4} (IPv6: /{MIN_LEN6})")),
        None => Ok(()),
    }
}

/// Whether lists have names of their own and are few enough; what is wrong, each beginning with its key.
/// `rpki` says whether there is a cache of what autonomous systems originate.
pub(crate) fn check(lists: &[AllowConfig], rpki: bool) -> Vec<String> {
    let mut errors = Vec::new();
    let mut names = BTreeSet::new();
    for list in lists {
        if !names.insert(list.name) {
            errors.push(format!("protect.allow: {:?} stands twice", list.name));
        }
        if let Err(why) = list.check() {
            errors.push(format!("protect.allow {:?}: {why}", list.name));
        } else if !rpki && !list.asns.is_empty() {
            errors.push(format!(
                "protect.allow {:?}: asns need the RPKI cache of [bgp.rpki]",
                list.name
            ));
        }
    }
    if lists.len() > ALLOW_LISTS_MAX {
        errors.push(format!("protect.allow: at most {ALLOW_LISTS_MAX} lists"));
    }
    if lists.iter().map(|list| list.prefixes.len()).sum::<usize>() > ALLOW_PREFIXES_MAX {
        errors.push(format!("protect.allow: at most {ALLOW_PREFIXES_MAX} prefixes in all lists"));
    }
    errors
}

/// Groups that lists name and the configuration does not.
pub(crate) fn warnings(config: &Config) -> Vec<Warning> {
    let known: BTreeSet<&str> = config.protect.groups.iter().map(|g| g.name.as_str()).collect();
    let mut warnings = Vec::new();
    for list in &config.protect.allow {
        for group in list.groups.iter().filter(|group| !known.contains(group.as_str())) {
            let name = list.name;
            warnings
                .push(Warning(format!("protect.allow {name:?}: {group:?} is no protect.group")));
        }
    }
    warnings
}

/// The lists in force, with what was read of each beside what the configuration says.
pub fn in_force(lists: &[AllowConfig], read: &BTreeMap<AllowName, PrefixSet>) -> AllowLists {
    let whole = |list: &AllowConfig| match read.get(&list.name) {
        Some(more) => list.list(list.prefixes.iter().chain(more.iter()).collect()),
        None => list.list(list.prefixes.clone()),
    };
    AllowLists::from(lists.iter().map(whole).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(allow: &str) -> Result<Config, String> {
        let text =
            format!("[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[protect.allow]]\n{allow}");
        crate::parse(&text).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_read_and_dumped() {
        let text = "name = \"web\"\nprefixes = [\"198.51.100.7/24\", \"2001:db8:1::/48\"]\n\
            protocol = \"tcp\"\nports = [443, \"8000-8100\"]\n";
        let config = parse(text).unwrap();
        let lists = in_force(&config.protect.allow, &BTreeMap::new());
        let list = &lists.lists()[0];
        assert_eq!((lists.prefixes(), list.protocols.as_slice()), (2, &[6_u8][..]));
        let ports: Vec<String> = list.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["443", "8000-8100"]);
        let dumped = crate::dump(&config).unwrap();
        assert_eq!(crate::read_dump(&dumped).unwrap().protect, config.protect);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let check = |text: &str, part: &str| {
            let why = parse(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        };
        let own = "name = \"web\"\nprefixes = [\"198.51.100.0/24\"]\n";
        parse(own).unwrap();
        check("name = \"web\"\n", "it has no prefixes");
        check("name = \"web\"\nasns = [64500]\n", "asns need the RPKI cache");
        check("name = \"web\"\nasns = [0]\n", "none of them 0");
        check("name = \"web\"\nset = \"nobody\"\n", "is none of bunny, clicky, cloudflare");
        check("name = \"web\"\nset = \"fastly\"\nasns = [64500]\n", "only one");
        let set = parse("name = \"web\"\nset = \"cloudflare\"\n").unwrap();
        let source = set.protect.allow[0].source().unwrap().to_string();
        assert_eq!(source, "https://www.cloudflare.com/ips-v4 https://www.cloudflare.com/ips-v6");
        let rpki = "name = \"web\"\nasns = [64500, 64501]\n[bgp]\nlocal_as = 65010\n\
            router_id = \"10.0.0.1\"\n[bgp.rpki]\ncache = \"192.0.2.1:323\"\n";
        let source = parse(rpki).unwrap().protect.allow[0].source().unwrap().to_string();
        assert_eq!(source, "RPKI: AS64500 AS64501");
        check("name = \"web\"\nurl = \"http://lists.example/v4\"\n", "must be https");
        check("name = \"web\"\nurl = \"http://127.0.0.1:80@lists.example/\"\n", "must be https");
        check("name = \"web\"\nurl = \"ftp://127.0.0.1/v4\"\n", "must be https");
        parse("name = \"web\"\nurl = \"http://127.0.0.1:8000/v4\"\n").unwrap();
        parse("name = \"web\"\nurl = \"https://lists.example/v4\"\n").unwrap();
        let both = "name = \"web\"\nurl = \"https://lists.example/v4\"\nfile = \"/x\"\n";
        check(both, "only one");
        check("name = \"web\"\nfile = \"/x\"\nrefresh_secs = 59\n", "outside 60-604800");
        check("name = \"a b\"\nprefixes = [\"198.51.100.0/24\"]\n", "a name has");
        check("name = \"web\"\nprefixes = [\"0.0.0.0/1\"]\n", "wider than a /8");
        check("name = \"web\"\nprefixes = [\"2000::/3\"]\n", "IPv6: /16");
        check(&format!("{own}ports = [443]\n"), "ports need a protocol");
        check(&format!("{own}protocol = \"tcp\"\nports = [\"90-80\"]\n"), "neither a port");
        check(&format!("{own}[[protect.allow]]\n{own}"), "stands twice");
    }
}
