//! Packets in words: `udp dst port 5060`, or as weir prints rules: `proto 17 dport 5060`. The words that
//! flow filters have for protocols, ports and prefixes mean the same here; what a rule of a router cannot
//! say (`or`, `not`) has none.
//!
//! ```text
//! pattern = test { [ "and" ] test }
//! test    = PROTOCOL | "proto" PROTOCOLS | ( "dport" | "sport" ) RANGES | ( "dst" | "src" ) "port" RANGES
//!         | "src" [ "net" | "host" ] PREFIX | "length" RANGES | "tcp-flags" FLAGS
//!         | ( "icmp-type" | "icmp-code" | "dscp" ) NUMBERS
//!         | "fragment" | "not-fragment" | "first-fragment" | "last-fragment"
//! ```
//! Lists are separated by commas, ranges are `1000-1500`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::{
    FlagMatch, FlowRecord, Fragment, FragmentMatch, Match, PORT_PROTOCOLS, PROTOCOLS, Range,
};

/// Longest text of a pattern, octets.
const TEXT_MAX: usize = 512;
/// Entries of a list at most.
const LIST_MAX: usize = 32;

/// Which packets, whoever they go to: a [`Match`] without its destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Match);

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A word that is not understood, and what is expected.
    #[error("at {0:?}: {1}")]
    Word(String, String),
    /// The whole makes no sense.
    #[error("{0}")]
    Whole(String),
}

/// Any destination.
const ANYWHERE: IpNet = IpNet::V4(match Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0) {
    Ok(net) => net,
    Err(_) => panic!("a length of 0 fits"),
});

impl Pattern {
    /// The same as a match of what goes to `dst`.
    #[must_use]
    pub fn towards(&self, dst: IpNet) -> Match {
        Match { dst, ..self.0.clone() }
    }

    /// The same in a form that is quick to test records with.
    pub fn compile(&self) -> Compiled {
        Compiled::new(&self.0)
    }

    /// Its components; the destination says nothing.
    pub const fn components(&self) -> &Match {
        &self.0
    }
}

impl fmt::Display for Pattern {
    /// As weir prints rules: `proto 17 dport 5060`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let prefix = format!("dst {} ", self.0.dst);
        f.write_str(text.strip_prefix(&prefix).unwrap_or(&text))
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let whole = |what: &str| Err(PatternError::Whole(what.to_owned()));
        if text.len() > TEXT_MAX {
            return whole("longer than 512 octets");
        }
        let mut words = Words(text.split_whitespace());
        let mut m = Match::to(ANYWHERE);
        while let Some(word) = words.0.next() {
            words.test(word, &mut m)?;
        }
        let m = m.normalise();
        if m.components() == 0 {
            return whole("it says nothing: use such as udp dst port 5060");
        }
        sound(&m).map_err(|what| PatternError::Whole(what.to_owned()))?;
        Ok(Self(m))
    }
}

/// Whether a packet can be all of it.
fn sound(m: &Match) -> Result<(), &'static str> {
    let all = |of: &[u8]| !m.protocols.is_empty() && m.protocols.iter().all(|p| of.contains(p));
    let ports = !m.dst_ports.is_empty() || !m.src_ports.is_empty();
    if ports && !all(&PORT_PROTOCOLS) {
        return Err("ports need protocols that have any: add tcp or udp");
    }
    if !m.tcp_flags.is_empty() && m.protocols != [6] {
        return Err("tcp-flags need tcp");
    }
    let icmp = !m.icmp_types.is_empty() || !m.icmp_codes.is_empty();
    if icmp && !all(&[1, 58]) {
        return Err("icmp-type and icmp-code need icmp or icmpv6");
    }
    if m.dscps.iter().any(|dscp| *dscp > 63) {
        return Err("a DSCP is within 0-63");
    }
    Ok(())
}

struct Words<'a>(std::str::SplitWhitespace<'a>);

fn wrong<T>(word: &str, what: impl Into<String>) -> Result<T, PatternError> {
    Err(PatternError::Word(word.to_owned(), what.into()))
}

impl<'a> Words<'a> {
    fn next(&mut self, after: &str) -> Result<&'a str, PatternError> {
        self.0.next().map_or_else(|| wrong(after, "something is missing behind it"), Ok)
    }

    /// One test, of which the first word is read.
    fn test(&mut self, word: &str, m: &mut Match) -> Result<(), PatternError> {
        let lower = word.to_ascii_lowercase();
        if let Some(number) = protocol(&lower) {
            // A second one is none that a packet can have as well: a list is.
            return once(&mut m.protocols, vec![number], word);
        }
        match lower.as_str() {
            "and" => {}
            "proto" | "protocol" => {
                let list = self.list(word, |text| {
                    protocol(&text.to_ascii_lowercase()).or_else(|| text.parse().ok())
                })?;
                once(&mut m.protocols, list, word)?;
            }
            "dport" => once(&mut m.dst_ports, self.ranges(word)?, word)?,
            "sport" => once(&mut m.src_ports, self.ranges(word)?, word)?,
            "src" | "dst" => self.side(&lower, m)?,
            "port" => return wrong(word, "say src port or dst port"),
            "length" => once(&mut m.lengths, self.ranges(word)?, word)?,
            "tcp-flags" => {
                let list = self.list(word, |text| text.parse::<FlagMatch>().ok())?;
                once(&mut m.tcp_flags, list, word)?;
            }
            "icmp-type" => once(&mut m.icmp_types, self.list(word, |t| t.parse().ok())?, word)?,
            "icmp-code" => once(&mut m.icmp_codes, self.list(word, |t| t.parse().ok())?, word)?,
            "dscp" => once(&mut m.dscps, self.list(word, |t| t.parse().ok())?, word)?,
            "fragment" => fragment(m, FragmentMatch::IsFragment, word)?,
            "not-fragment" => fragment(m, FragmentMatch::NotFragment, word)?,
            "first-fragment" => fragment(m, FragmentMatch::First, word)?,
            "last-fragment" => fragment(m, FragmentMatch::Last, word)?,
            "or" | "not" | "||" | "!" => {
                return wrong(
                    word,
                    "a rule of a router cannot say this: use lists, or two metrics",
                );
            }
            _ => {
                return wrong(
                    word,
                    "expected a protocol, src or dst port, src PREFIX, length, tcp-flags, icmp-type, \
                     icmp-code or fragment",
                );
            }
        }
        Ok(())
    }

    /// What stands behind `src` or `dst`.
    fn side(&mut self, side: &str, m: &mut Match) -> Result<(), PatternError> {
        let word = self.next(side)?;
        let source = side == "src";
        let mut net = word;
        match word.to_ascii_lowercase().as_str() {
            "port" => {
                let ranges = self.ranges(word)?;
                let list = if source { &mut m.src_ports } else { &mut m.dst_ports };
                return once(list, ranges, side);
            }
            "net" | "host" => net = self.next(word)?,
            _ => {}
        }
        if !source {
            return wrong(
                side,
                "no destination: groups say of which hosts; use dst port for ports",
            );
        }
        let found = net.parse().ok().or_else(|| net.parse().ok().map(|a: IpAddr| IpNet::from(a)));
        let Some(found) = found else {
            return wrong(net, "expected port, or a prefix like 198.51.100.0/24");
        };
        if m.src.replace(found).is_some() {
            return wrong(side, "stands twice");
        }
        Ok(())
    }

    fn ranges(&mut self, after: &str) -> Result<Vec<Range>, PatternError> {
        self.list(after, |text| {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            let range = Range { from: from.parse().ok()?, to: to.parse().ok()? };
            (range.from <= range.to).then_some(range)
        })
    }

    /// A list separated by commas; space may follow a comma.
    fn list<T>(
        &mut self,
        after: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, PatternError> {
        let mut list = Vec::new();
        loop {
            let word = self.next(after)?;
            for part in word.trim_end_matches(',').split(',') {
                let Some(one) = read(part) else {
                    return wrong(part, format!("no value of {after}"));
                };
                list.push(one);
            }
            if list.len() > LIST_MAX {
                return wrong(after, format!("at most {LIST_MAX} values"));
            }
            if !word.ends_with(',') {
                return Ok(list);
            }
        }
    }
}

/// A protocol by its name.
fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn once<T>(list: &mut Vec<T>, found: Vec<T>, word: &str) -> Result<(), PatternError> {
    if !list.is_empty() {
        return wrong(word, "stands twice: use a list separated by commas");
    }
    *list = found;
    Ok(())
}

fn fragment(m: &mut Match, found: FragmentMatch, word: &str) -> Result<(), PatternError> {
    if m.fragment.replace(found).is_some() {
        return wrong(word, "stands twice");
    }
    Ok(())
}

/// A [`Pattern`] made ready: what it does not say costs nothing, and the protocol, which most records
/// fail, is looked at first.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Bit by protocol.
    protocols: [u64; 4],
    src: Option<IpNet>,
    dst_ports: Box<[Range]>,
    src_ports: Box<[Range]>,
    lengths: Box<[Range]>,
    flags: Box<[FlagMatch]>,
    icmp_types: Box<[u8]>,
    icmp_codes: Box<[u8]>,
    fragment: Option<FragmentMatch>,
}

impl Compiled {
    fn new(m: &Match) -> Self {
        let mut protocols = [if m.protocols.is_empty() { u64::MAX } else { 0 }; 4];
        for protocol in &m.protocols {
            protocols[usize::from(protocol / 64)] |= 1 << (protocol % 64);
        }
        Self {
            protocols,
            src: m.src,
            dst_ports: m.dst_ports.as_slice().into(),
            src_ports: m.src_ports.as_slice().into(),
            lengths: m.lengths.as_slice().into(),
            flags: m.tcp_flags.as_slice().into(),
            icmp_types: m.icmp_types.as_slice().into(),
            icmp_codes: m.icmp_codes.as_slice().into(),
            fragment: m.fragment,
        }
    }

    /// Whether a record's packets are meant. Their length is the average; of flags and fragments what
    /// can be told of a single packet counts.
    #[inline]
    pub fn holds(&self, record: &FlowRecord) -> bool {
        let protocol = record.protocol;
        self.protocols[usize::from(protocol / 64)] >> (protocol % 64) & 1 == 1
            && any(&self.dst_ports, record.dst_port)
            && any(&self.src_ports, record.src_port)
            && self.rest(record)
    }

    #[inline]
    fn rest(&self, record: &FlowRecord) -> bool {
        let flag = |flag: &FlagMatch| {
            record.single_flags() & flag.mask == flag.set && !record.lacks_tcp_header()
        };
        (self.lengths.is_empty() || any(&self.lengths, record.length()))
            && (self.flags.is_empty() || self.flags.iter().any(flag))
            && (self.icmp_types.is_empty() || self.icmp_types.contains(&record.icmp_type))
            && (self.icmp_codes.is_empty() || self.icmp_codes.contains(&record.icmp_code))
            && self.src.is_none_or(|net| net.contains(&record.src))
            && self.fragment.is_none_or(|wanted| is(wanted, record.likely_fragment()))
    }
}

#[inline]
fn any(ranges: &[Range], value: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(value))
}

/// Whether a fragment is one that is meant, as far as records tell (RFC 8955 §4.2.2.12: IsF is not the first).
fn is(wanted: FragmentMatch, found: Fragment) -> bool {
    match wanted {
        FragmentMatch::IsFragment | FragmentMatch::Last => found == Fragment::Later,
        FragmentMatch::NotFragment => found == Fragment::None,
        FragmentMatch::First => found == Fragment::First,
    }
}

impl Match {
    /// The packets that both mean; none where no packet can be both.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        Some(
            Self {
                dst: narrower(self.dst, other.dst)?,
                src: match (self.src, other.src) {
                    (Some(a), Some(b)) => Some(narrower(a, b)?),
                    (a, b) => a.or(b),
                },
                protocols: both(&self.protocols, &other.protocols)?,
                dst_ports: overlap(&self.dst_ports, &other.dst_ports)?,
                src_ports: overlap(&self.src_ports, &other.src_ports)?,
                icmp_types: both(&self.icmp_types, &other.icmp_types)?,
                icmp_codes: both(&self.icmp_codes, &other.icmp_codes)?,
                tcp_flags: flags(&self.tcp_flags, &other.tcp_flags)?,
                lengths: overlap(&self.lengths, &other.lengths)?,
                dscps: both(&self.dscps, &other.dscps)?,
                fragment: match (self.fragment, other.fragment) {
                    (Some(a), Some(b)) => Some(part(a, b)?),
                    (a, b) => a.or(b),
                },
            }
            .normalise(),
        )
    }
}

fn narrower(a: IpNet, b: IpNet) -> Option<IpNet> {
    match (a.contains(&b), b.contains(&a)) {
        (true, _) => Some(b),
        (_, true) => Some(a),
        _ => None,
    }
}

/// What is in both lists, where an empty one is everything.
fn both(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    match (a, b) {
        ([], all) | (all, []) => Some(all.to_vec()),
        _ => Some(a.iter().filter(|v| b.contains(v)).copied().collect())
            .filter(|l: &Vec<_>| !l.is_empty()),
    }
}

fn overlap(a: &[Range], b: &[Range]) -> Option<Vec<Range>> {
    if a.is_empty() || b.is_empty() {
        return Some(if a.is_empty() { b } else { a }.to_vec());
    }
    let common = a
        .iter()
        .flat_map(|a| b.iter().map(|b| Range { from: a.from.max(b.from), to: a.to.min(b.to) }));
    Some(common.filter(|r| r.from <= r.to).collect()).filter(|l: &Vec<_>| !l.is_empty())
}

fn flags(a: &[FlagMatch], b: &[FlagMatch]) -> Option<Vec<FlagMatch>> {
    if a.is_empty() || b.is_empty() {
        return Some(if a.is_empty() { b } else { a }.to_vec());
    }
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let agree = pairs.filter(|(a, b)| a.set & b.mask == b.set & a.mask);
    let common = agree.map(|(a, b)| FlagMatch { mask: a.mask | b.mask, set: a.set | b.set });
    Some(common.collect()).filter(|l: &Vec<_>| !l.is_empty())
}

fn part(a: FragmentMatch, b: FragmentMatch) -> Option<FragmentMatch> {
    use FragmentMatch::{IsFragment, Last};
    match (a, b) {
        (a, b) if a == b => Some(a),
        (IsFragment, Last) | (Last, IsFragment) => Some(Last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_in_words_and_printed_as_rules_are() {
        let check = |text: &str, shown: &str| {
            let pattern: Pattern = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(pattern.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(pattern), "{shown}");
        };
        check("udp dst port 5060", "proto 17 dport 5060");
        check("UDP and dport 5060-5061, 5080", "proto 17 dport 5060-5061,5080");
        check("tcp dport 5061", "proto 6 dport 5061");
        check("proto udp,tcp src port 53", "proto 6,17 sport 53");
        check("proto 17 src 198.51.100.7/24", "src 198.51.100.0/24 proto 17");
        check("src host 2001:db8::1 gre", "src 2001:db8::1/128 proto 47");
        check(
            "tcp tcp-flags SYN/SYN+ACK,RST length 40-60",
            "proto 6 tcp-flags RST/RST,SYN/SYN+ACK length 40-60",
        );
        check("icmp icmp-type 8 icmp-code 0", "proto 1 icmp-type 8 icmp-code 0");
        check("icmpv6 icmp-type 128,129", "proto 58 icmp-type 128,129");
        check("udp fragment", "proto 17 fragment");
        check("udp length 1000-1499,1500", "proto 17 length 1000-1500");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, error: &str| {
            let found = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(found.contains(error), "{text}: {found}");
        };
        check("", "it says nothing");
        check("and", "it says nothing");
        check("dport 5060", "add tcp or udp");
        check("icmp dport 7", "add tcp or udp");
        check("proto 6,1 dport 7", "add tcp or udp");
        check("udp tcp-flags SYN", "tcp-flags need tcp");
        check("tcp icmp-type 8", "need icmp or icmpv6");
        check("udp dport 70000", r#"at "70000": no value of dport"#);
        check("udp dport 9-8", r#"at "9-8": no value of dport"#);
        check("udp dport", r#"at "dport": something is missing behind it"#);
        check("udp dport 1,", r#"at "dport": something is missing behind it"#);
        check("udp port 5060", "say src port or dst port");
        check("udp dst 203.0.113.7", "no destination");
        check("udp dst net 203.0.113.0/24", "no destination");
        check("udp src banana", r#"at "banana": expected port, or a prefix"#);
        check("udp or tcp", "a rule of a router cannot say this");
        check("not udp", "a rule of a router cannot say this");
        check("udp tcp", "stands twice");
        check("udp dport 1 dst port 2", "stands twice");
        check("fragment first-fragment", "stands twice");
        check("sip", r#"at "sip": expected a protocol"#);
        check("udp dscp 64", "a DSCP is within 0-63");
        check(&format!("udp dport {}", ["1"; 40].join(",")), "at most 32 values");
        check(&"x".repeat(600), "longer than 512");
    }

    #[test]
    fn what_meets_is_in_both() {
        let meet = |a: &str, b: &str| {
            let of = |text: &str| text.parse::<Pattern>().unwrap().towards(ANYWHERE);
            let (a, b) = (of(a), of(b));
            assert_eq!(a.meet(&b), b.meet(&a));
            a.meet(&b).map(|m| Pattern(m).to_string())
        };
        let check = |a, b, both: Option<&str>| assert_eq!(meet(a, b).as_deref(), both, "{a} / {b}");
        check("udp dport 5060", "udp length 400-500", Some("proto 17 dport 5060 length 400-500"));
        check(
            "udp dport 5060",
            "udp dport 1000-9000 sport 53",
            Some("proto 17 dport 5060 sport 53"),
        );
        check("udp dport 5060", "tcp", None);
        check("udp dport 5060", "udp dport 53", None);
        check("proto 6,17", "udp fragment", Some("proto 17 fragment"));
        check("udp fragment", "udp first-fragment", None);
        check("udp fragment", "udp last-fragment", Some("proto 17 last-fragment"));
        check("udp fragment", "udp not-fragment", None);
        check(
            "udp src 198.51.100.0/24",
            "udp src 198.51.100.128/25",
            Some("src 198.51.100.128/25 proto 17"),
        );
        check("udp src 198.51.100.0/24", "udp src 192.0.2.0/24", None);
        check(
            "tcp tcp-flags SYN/SYN+ACK",
            "tcp tcp-flags none/RST",
            Some("proto 6 tcp-flags SYN/SYN+RST+ACK"),
        );
        check("tcp tcp-flags SYN/SYN+ACK", "tcp tcp-flags SYN+ACK", None);
        check("icmp icmp-type 8,0", "icmp icmp-type 8", Some("proto 1 icmp-type 8"));
    }

    #[test]
    fn nothing_makes_the_parser_panic() {
        const WORDS: [&str; 16] = [
            "udp",
            "dport",
            "5060",
            "1-",
            "-",
            ",",
            "1,,2",
            "src",
            "net",
            "10.0.0.0/8",
            "tcp-flags",
            "SYN/",
            "and",
            "fragment",
            "proto",
            "\u{e9}",
        ];
        let mut seed = 1_u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..seed % 7 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(WORDS[(seed >> 16) as usize % WORDS.len()]);
                text.push_str(if seed & 64 == 0 { " " } else { "" });
            }
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if let Ok(pattern) = text.parse::<Pattern>() {
                assert_eq!(pattern.to_string().parse(), Ok(pattern), "{text}");
            }
        }
    }
}
