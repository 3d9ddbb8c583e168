//! Which packets a rule means, and what it does with them, in FlowSpec's terms (RFC 8955, 8956).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Protocols by name (IANA protocol numbers), each number's usual name first.
pub const PROTOCOLS: [(&str, u8); 13] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("icmpv6", 58),
    ("ospf", 89),
    ("sctp", 132),
    ("udplite", 136),
];

/// Protocols with ports where FlowSpec looks for them (RFC 8955 §4.2.2.4), and those that share the layout.
pub const PORT_PROTOCOLS: [u8; 5] = [6, 17, 33, 132, 136];

/// An inclusive range of numbers; a single value has equal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Range {
    /// Smallest value matched.
    pub from: u16,
    /// Largest value matched, at least `from`.
    pub to: u16,
}

impl Range {
    /// Exactly `value`.
    pub const fn exact(value: u16) -> Self {
        Self { from: value, to: value }
    }

    /// Whether `value` lies inside.
    pub const fn contains(self, value: u16) -> bool {
        self.from <= value && value <= self.to
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{}", self.from)
        } else {
            write!(f, "{}-{}", self.from, self.to)
        }
    }
}

/// TCP control bits: of those in `mask`, exactly those in `set` are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlagMatch {
    /// Bits looked at.
    pub mask: u8,
    /// Bits that must be on; a subset of `mask`.
    pub set: u8,
}

/// Fragmentation (RFC 8955 §4.2.2.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum FragmentMatch {
    /// Any fragment: what every router understands.
    IsFragment,
    /// Not a fragment.
    NotFragment,
    /// Offset 0 and more to follow.
    First,
    /// The last one.
    Last,
}

/// Which packets. Every list is an "or", an empty list matches anything, the components are
/// and-ed. Lists are sorted without duplicates; [`Match::normalise`] sees to it, so that equal
/// meanings compare equal and every weir derives the same NLRI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Match {
    /// Destination prefix; a rule always has one.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub dst: IpNet,
    /// Source prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub src: Option<IpNet>,
    /// IP protocols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<u8>,
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst_ports: Vec<Range>,
    /// Source ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub src_ports: Vec<Range>,
    /// ICMP types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp_types: Vec<u8>,
    /// ICMP codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub icmp_codes: Vec<u8>,
    /// TCP control bits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_flags: Vec<FlagMatch>,
    /// Layer-3 packet lengths, octets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<Range>,
    /// DSCP values, 0-63.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dscps: Vec<u8>,
    /// Fragmentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<FragmentMatch>,
}

impl Match {
    /// Everything towards `dst`.
    pub const fn to(dst: IpNet) -> Self {
        Self {
            dst,
            src: None,
            protocols: Vec::new(),
            dst_ports: Vec::new(),
            src_ports: Vec::new(),
            icmp_types: Vec::new(),
            icmp_codes: Vec::new(),
            tcp_flags: Vec::new(),
            lengths: Vec::new(),
            dscps: Vec::new(),
            fragment: None,
        }
    }

    /// Everything towards one host.
    pub fn to_host(host: IpAddr) -> Self {
        Self::to(IpNet::from(host))
    }

    /// Sorts the lists, joins ranges that touch, and clears host bits.
    #[must_use]
    pub fn normalise(mut self) -> Self {
        self.dst = self.dst.trunc();
        self.src = self.src.map(|n| n.trunc());
        for list in [&mut self.dst_ports, &mut self.src_ports, &mut self.lengths] {
            join(list);
        }
        for list in
            [&mut self.protocols, &mut self.icmp_types, &mut self.icmp_codes, &mut self.dscps]
        {
            list.sort_unstable();
            list.dedup();
        }
        self.tcp_flags.sort_unstable();
        self.tcp_flags.dedup();
        self
    }

    /// Number of components, without the destination.
    pub fn components(&self) -> usize {
        [
            self.src.is_some(),
            !self.protocols.is_empty(),
            !self.dst_ports.is_empty(),
            !self.src_ports.is_empty(),
            !self.icmp_types.is_empty(),
            !self.icmp_codes.is_empty(),
            !self.tcp_flags.is_empty(),
            !self.lengths.is_empty(),
            !self.dscps.is_empty(),
            self.fragment.is_some(),
        ]
        .iter()
        .filter(|c| **c)
        .count()
    }
}

fn join(list: &mut Vec<Range>) {
    list.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(list.len());
    for range in list.drain(..) {
        match joined.last_mut() {
            Some(last) if u32::from(range.from) <= u32::from(last.to) + 1 => {
                last.to = last.to.max(range.to);
            }
            _ => joined.push(range),
        }
    }
    *list = joined;
}

/// Writes one `name a,b` component when the list is not empty.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i == 0 {
            write!(f, " {name} {item}")?;
        } else {
            write!(f, ",{item}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Match {
    /// One line an operator can read: `dst 203.0.113.7/32 proto 17 sport 53 length 1400-1500`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dst {}", self.dst)?;
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        list(f, "proto", &self.protocols)?;
        list(f, "dport", &self.dst_ports)?;
        list(f, "sport", &self.src_ports)?;
        list(f, "icmp-type", &self.icmp_types)?;
        list(f, "icmp-code", &self.icmp_codes)?;
        list(f, "tcp-flags", &self.tcp_flags)?;
        list(f, "length", &self.lengths)?;
        list(f, "dscp", &self.dscps)?;
        match self.fragment {
            None => Ok(()),
            Some(FragmentMatch::IsFragment) => f.write_str(" fragment"),
            Some(FragmentMatch::NotFragment) => f.write_str(" not-fragment"),
            Some(FragmentMatch::First) => f.write_str(" first-fragment"),
            Some(FragmentMatch::Last) => f.write_str(" last-fragment"),
        }
    }
}

/// The TCP control bits, lowest first.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// TCP flags that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagsError(String);

impl std::error::Error for FlagsError {}

impl fmt::Display for FlagsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let help = "such as SYN, SYN+ACK or SYN/SYN+ACK (flags that are on, of those looked at)";
        write!(f, "{:?} is no match of TCP flags {help}", self.0)
    }
}

impl FromStr for FlagMatch {
    type Err = FlagsError;

    /// As [`Display`](fmt::Display) writes it; without the bits looked at, those that are on.
    fn from_str(text: &str) -> Result<Self, FlagsError> {
        let bits = |names: &str| {
            let named = |name: &str| FLAGS.iter().position(|own| own.eq_ignore_ascii_case(name));
            match names {
                "none" => Some(0),
                names => names.split('+').try_fold(0, |bits, name| Some(bits | 1 << named(name)?)),
            }
        };
        let (set, mask) = text.split_once('/').unwrap_or((text, text));
        match (bits(set), bits(mask)) {
            (Some(set), Some(mask)) if mask != 0 && set & !mask == 0 => Ok(Self { mask, set }),
            _ => Err(FlagsError(text.to_owned())),
        }
    }
}

impl fmt::Display for FlagMatch {
    /// `SYN/SYN+ACK`: the bits set, of the bits looked at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, bits: u8| {
            let mut first = true;
            for (_, name) in FLAGS.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1) {
                if !first {
                    f.write_str("+")?;
                }
                first = false;
                f.write_str(name)?;
            }
            if first { f.write_str("none") } else { Ok(()) }
        };
        write(f, self.set)?;
        f.write_str("/")?;
        write(f, self.mask)
    }
}

/// Where redirected packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redirect {
    /// The routing table with this route target (RFC 8955 §7.4).
    RouteTarget {
        /// AS; above 65535 it takes 4 octets.
        asn: u32,
        /// Value; at most 65535 after a 4-octet AS.
        value: u32,
    },
    /// The next hop (draft-ietf-idr-flowspec-redirect-ip).
    NextHop(IpAddr),
    /// A copy to the next hop; the packets themselves go on (the draft's C bit).
    Copy(IpAddr),
}

/// Neither a route target nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a route target such as 65010:666 nor an address")]
pub struct RedirectError;

impl FromStr for Redirect {
    type Err = RedirectError;

    /// A route target, or a next hop.
    fn from_str(text: &str) -> Result<Self, RedirectError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::NextHop(address));
        }
        let target = text.split_once(':').and_then(|(asn, value)| {
            Some(Self::RouteTarget { asn: asn.parse().ok()?, value: value.parse().ok()? })
        });
        target.ok_or(RedirectError)
    }
}

impl fmt::Display for Redirect {
    /// `65010:666`, `192.0.2.9`, `copy 192.0.2.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RouteTarget { asn, value } => write!(f, "{asn}:{value}"),
            Self::NextHop(ip) => write!(f, "{ip}"),
            Self::Copy(ip) => write!(f, "copy {ip}"),
        }
    }
}

/// What is done with the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Action {
    /// Pass at most this many octets a second.
    RateLimit {
        /// Octets a second, above 0.
        bytes_per_sec: u64,
    },
    /// Pass at most this many packets a second.
    RateLimitPackets {
        /// Packets a second, above 0.
        packets_per_sec: u64,
    },
    /// Discard.
    Drop,
    /// Send elsewhere.
    Redirect(Redirect),
    /// Set the DSCP, and pass (RFC 8955 §7.5).
    Mark {
        /// DSCP, 0-63.
        dscp: u8,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimit { bytes_per_sec } => write!(f, "rate-limit {bytes_per_sec} bytes/s"),
            Self::RateLimitPackets { packets_per_sec } => {
                write!(f, "rate-limit {packets_per_sec} packets/s")
            }
            Self::Drop => f.write_str("drop"),
            Self::Redirect(to) => write!(f, "redirect {to}"),
            Self::Mark { dscp } => write!(f, "mark dscp {dscp}"),
        }
    }
}

/// Packets, and what to do with them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Filter {
    /// Which packets.
    pub packets: Match,
    /// What is done.
    pub action: Action,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.packets, self.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalising_sorts_and_joins() {
        let mut m = Match::to("203.0.113.7/24".parse().unwrap());
        m.protocols = vec![17, 6, 17];
        m.dst_ports = vec![Range { from: 20, to: 30 }, Range::exact(7), Range { from: 31, to: 40 }];
        m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 0x02 }];
        m.fragment = Some(FragmentMatch::IsFragment);
        assert_eq!(
            m.normalise().to_string(),
            "dst 203.0.113.0/24 proto 6,17 dport 7,20-40 tcp-flags SYN/SYN+ACK fragment"
        );
    }

    #[test]
    fn flags_are_read_as_they_are_written() {
        for text in ["SYN/SYN+ACK", "none/FIN+SYN+RST+PSH+ACK+URG", "SYN+ACK/SYN+ACK"] {
            assert_eq!(text.parse::<FlagMatch>().unwrap().to_string(), text);
        }
        assert_eq!("syn".parse(), Ok(FlagMatch { mask: 0x02, set: 0x02 }));
        for text in ["", "SIN", "SYN/ACK", "none", "none/none", "SYN/", "SYN/SYN/ACK"] {
            assert!(text.parse::<FlagMatch>().is_err(), "{text}");
        }
    }

    #[test]
    fn joining_stops_at_the_top_port() {
        let mut list = vec![Range::exact(65535), Range { from: 65000, to: 65534 }];
        join(&mut list);
        assert_eq!(list, [Range { from: 65000, to: 65535 }]);
    }
}
