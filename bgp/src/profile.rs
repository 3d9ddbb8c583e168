//! What a router's software can take of FlowSpec, so that it is never sent what it drops in
//! silence, applies wrongly, or resets the session for.
//!
//! A profile says where its claims come from. What no source supports is left as the standards
//! have it.

use serde::{Deserialize, Serialize};
use weir_model::{Action, Filter, FlagMatch, FragmentMatch, IpNet, Match, Range, Redirect};

/// A peer's software by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Anything that the standards allow.
    #[default]
    Generic,
    /// What every router is known to take: destination, protocol, ports, IPv4 lengths, fragments,
    /// rate limits.
    Conservative,
    /// Junos.
    Juniper,
    /// Cisco IOS XR on ASR 9000.
    CiscoAsr9k,
    /// Cisco IOS XR on the 8000 series.
    Cisco8000,
    /// Arista EOS.
    Arista,
    /// Nokia SR OS.
    Nokia,
    /// Huawei NE8000.
    Huawei,
    /// Extreme SLX-OS.
    Extreme,
    /// BIRD 2.
    Bird,
    /// FRRouting.
    Frr,
    /// GoBGP.
    Gobgp,
    /// ExaBGP.
    Exabgp,
}

/// What a rule may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// FlowSpec rules held at most.
    pub max_rules: usize,
    /// IPv6 rules are taken.
    pub ipv6: bool,
    /// Component types taken besides the destination (RFC 8955 §4.2.2).
    pub components: &'static [u8],
    /// Ranges in all lists of a rule together that are no single value.
    pub max_ranges: usize,
    /// Values and ranges in one list.
    pub max_values: usize,
    /// Comparisons in one list: one for a value or an open range, two for any other range.
    pub max_terms: usize,
    /// TCP control bits that may be looked at.
    pub tcp_flags: u8,
    /// A TCP flag match may ask for bits to be off without asking for one to be on.
    pub tcp_flags_off_only: bool,
    /// Fragment matches taken.
    pub fragments: &'static [FragmentMatch],
    /// Ports are taken only with TCP or UDP as the protocol, flags only with TCP.
    pub strict_protocol: bool,
    /// Port 0 may be matched: elsewhere it stands for packets without ports.
    pub port_zero: bool,
    /// Largest packet length that may be named, octets.
    pub max_length: u16,
    /// Packet lengths are taken in IPv6 rules.
    pub ipv6_lengths: bool,
    /// Rate limits in packets are taken.
    pub rate_packets: bool,
    /// Redirection to a next hop is taken.
    pub redirect_next_hop: bool,
    /// Redirection to a route target with a 4-octet AS is taken.
    pub redirect_as4: bool,
    /// Marking with a DSCP is taken.
    pub mark: bool,
    /// Smallest rate limit that is not rounded to a drop, octets a second.
    pub min_rate_bytes: u64,
    /// Where these claims come from.
    pub source: &'static str,
}

/// Why a rule is not for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// No IPv6.
    #[error("takes no IPv6 rules")]
    Ipv6,
    /// A component that it does not take.
    #[error("takes no component of type {0}")]
    Component(u8),
    /// Too many ranges.
    #[error("takes {0} ranges in a rule at most")]
    Ranges(usize),
    /// Too many values in a list.
    #[error("takes {0} values in a list at most")]
    Values(usize),
    /// Too many comparisons in a list.
    #[error("takes {0} comparisons in a list at most")]
    Terms(usize),
    /// TCP control bits that it cannot look at.
    #[error("cannot match these TCP flags")]
    Flags,
    /// A fragment match that it does not take.
    #[error("cannot match fragments this way")]
    Fragment,
    /// Ports or flags without their protocol.
    #[error("takes ports and flags only with their protocol")]
    Protocol,
    /// Port 0.
    #[error("gives port 0 a meaning of its own")]
    PortZero,
    /// A packet length out of its range, or one of IPv6.
    #[error("cannot match these packet lengths")]
    Length,
    /// An action that it does not take.
    #[error("does not take this action")]
    Action,
    /// A rate below its granularity.
    #[error("would round a limit below {0} bytes/s down to a drop")]
    Rate(u64),
}

const ALL_FRAGMENTS: &[FragmentMatch] = &[
    FragmentMatch::IsFragment,
    FragmentMatch::NotFragment,
    FragmentMatch::First,
    FragmentMatch::Last,
];

const ALL_COMPONENTS: &[u8] = &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];

/// What RFC 8955 and 8956 allow, and a router of the usual size holds.
const STANDARD: Capabilities = Capabilities {
    max_rules: 10_000,
    ipv6: true,
    components: ALL_COMPONENTS,
    max_ranges: usize::MAX,
    max_values: usize::MAX,
    max_terms: usize::MAX,
    tcp_flags: 0xff,
    tcp_flags_off_only: true,
    fragments: ALL_FRAGMENTS,
    strict_protocol: false,
    port_zero: true,
    max_length: u16::MAX,
    ipv6_lengths: true,
    rate_packets: true,
    redirect_next_hop: true,
    redirect_as4: true,
    mark: true,
    min_rate_bytes: 1,
    source: "RFC 8955, RFC 8956",
};

const CONSERVATIVE: Capabilities = Capabilities {
    max_rules: 1_000,
    components: &[3, 5, 6, 10, 12],
    max_ranges: 2,
    max_values: 8,
    max_terms: 5,
    fragments: &[FragmentMatch::IsFragment],
    strict_protocol: true,
    port_zero: false,
    max_length: 9_600,
    ipv6_lengths: false,
    rate_packets: false,
    redirect_next_hop: false,
    mark: false,
    min_rate_bytes: 2_750,
    source: "the narrowest of all profiles here",
    ..STANDARD
};

impl Profile {
    /// What the peer takes.
    pub const fn capabilities(self) -> Capabilities {
        match self {
            Self::Generic => STANDARD,
            Self::Conservative => CONSERVATIVE,
            // A rate is shown in bits a second there; on the wire it is octets all the same.
            Self::Juniper => Capabilities {
                rate_packets: false,
                redirect_next_hop: false,
                source: "Junos documentation; packet rates and redirection to a next hop not \
                         found in it",
                ..STANDARD
            },
            Self::CiscoAsr9k => Capabilities {
                max_rules: 3_000,
                max_ranges: 5,
                rate_packets: false,
                source: "Cisco ASR 9000 routing configuration guide: 3000 rules per system, five \
                         multi-value ranges per rule",
                ..STANDARD
            },
            Self::Cisco8000 => Capabilities {
                ipv6_lengths: false,
                rate_packets: false,
                source: "Cisco 8000 BGP FlowSpec guide: IPv6 packet length needs a hardware \
                         profile and a reload",
                ..STANDARD
            },
            Self::Arista => Capabilities {
                source: "Arista TOI: RFC 5575 and 7674 from EOS 4.21.3F, no details; hence the \
                         conservative profile",
                ..CONSERVATIVE
            },
            Self::Nokia => Capabilities {
                components: &[2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13],
                port_zero: false,
                rate_packets: false,
                source: "Nokia SR OS documentation: packet length only in filters of that type, \
                         port 0 also matches later fragments",
                ..STANDARD
            },
            Self::Huawei => Capabilities {
                tcp_flags_off_only: false,
                fragments: &[
                    FragmentMatch::IsFragment,
                    FragmentMatch::NotFragment,
                    FragmentMatch::First,
                ],
                strict_protocol: true,
                max_length: 9_600,
                rate_packets: false,
                source: "Huawei NE8000 configuration precautions",
                ..STANDARD
            },
            Self::Extreme => Capabilities {
                ipv6: false,
                tcp_flags: 0x3f,
                fragments: &[FragmentMatch::IsFragment],
                rate_packets: false,
                redirect_next_hop: false,
                min_rate_bytes: 2_750,
                source: "Extreme SLX-OS documentation: IPv4 only, no ECE and CWR, rates in steps \
                         of 22 kbit/s and below that a drop",
                ..STANDARD
            },
            Self::Bird => Capabilities { source: "measured with BIRD 2.0.12", ..STANDARD },
            // A sixth comparison is answered with NOTIFICATION 3/9 and the end of the session.
            Self::Frr => {
                Capabilities { max_terms: 5, source: "measured with FRR 8.4.4", ..STANDARD }
            }
            Self::Gobgp => Capabilities { source: "measured with GoBGP 3.10", ..STANDARD },
            // A target with a 4-octet AS ends in its own endless recursion.
            Self::Exabgp => Capabilities {
                redirect_as4: false,
                source: "measured with ExaBGP 4.2.21",
                ..STANDARD
            },
        }
    }
}

impl Capabilities {
    /// Whether the peer takes a rule as it stands.
    ///
    /// # Errors
    /// [`Unsupported`] with the first thing that it does not take.
    pub fn check(&self, filter: &Filter) -> Result<(), Unsupported> {
        let packets = &filter.packets;
        if !self.ipv6 && matches!(packets.dst, IpNet::V6(_)) {
            return Err(Unsupported::Ipv6);
        }
        if let Some(code) = component_codes(packets).find(|c| !self.components.contains(c)) {
            return Err(Unsupported::Component(code));
        }
        self.check_lists(packets)?;
        self.check_bits(packets)?;
        self.check_protocol(packets)?;
        self.check_action(&filter.action)
    }

    fn check_lists(&self, packets: &Match) -> Result<(), Unsupported> {
        let lists = [&packets.dst_ports, &packets.src_ports, &packets.lengths];
        let ranges = lists.iter().flat_map(|l| l.iter()).filter(|r| r.from != r.to).count();
        if ranges > self.max_ranges {
            return Err(Unsupported::Ranges(self.max_ranges));
        }
        let bytes = [&packets.protocols, &packets.icmp_types, &packets.icmp_codes, &packets.dscps];
        let longest = lists.map(Vec::len).into_iter().chain(bytes.map(Vec::len)).max();
        if longest.unwrap_or(0) > self.max_values {
            return Err(Unsupported::Values(self.max_values));
        }
        let numbers = bytes.map(Vec::len).into_iter();
        let numbers = numbers.chain(lists.iter().map(|l| l.iter().map(terms).sum()));
        let bits = packets.tcp_flags.iter().map(flag_terms).sum();
        if numbers.chain([bits]).max().unwrap_or(0) > self.max_terms {
            return Err(Unsupported::Terms(self.max_terms));
        }
        let has_zero = |l: &[Range]| l.iter().any(|r| r.from == 0);
        if !self.port_zero && (has_zero(&packets.dst_ports) || has_zero(&packets.src_ports)) {
            return Err(Unsupported::PortZero);
        }
        // The top of an open range is not written, so it need not be within bounds.
        let fits =
            |r: &Range| r.from <= self.max_length && (r.to <= self.max_length || r.to == u16::MAX);
        let v6 = matches!(packets.dst, IpNet::V6(_));
        if !packets.lengths.is_empty()
            && ((v6 && !self.ipv6_lengths) || !packets.lengths.iter().all(fits))
        {
            return Err(Unsupported::Length);
        }
        Ok(())
    }

    fn check_bits(&self, packets: &Match) -> Result<(), Unsupported> {
        let takes = |mask: u8, set: u8| {
            mask & !self.tcp_flags == 0 && (set != 0 || self.tcp_flags_off_only)
        };
        if !packets.tcp_flags.iter().all(|f| takes(f.mask, f.set)) {
            return Err(Unsupported::Flags);
        }
        match packets.fragment {
            Some(wanted) if !self.fragments.contains(&wanted) => Err(Unsupported::Fragment),
            _ => Ok(()),
        }
    }

    fn check_protocol(&self, packets: &Match) -> Result<(), Unsupported> {
        let only = |allowed: &[u8]| {
            !packets.protocols.is_empty() && packets.protocols.iter().all(|p| allowed.contains(p))
        };
        let ports = !packets.dst_ports.is_empty() || !packets.src_ports.is_empty();
        let ports_fit = !ports || only(&[6, 17]);
        let flags_fit = packets.tcp_flags.is_empty() || only(&[6]);
        if self.strict_protocol && !(ports_fit && flags_fit) {
            return Err(Unsupported::Protocol);
        }
        Ok(())
    }

    fn check_action(&self, action: &Action) -> Result<(), Unsupported> {
        match action {
            Action::Drop => Ok(()),
            Action::Redirect(Redirect::RouteTarget { asn, .. })
                if self.redirect_as4 || u16::try_from(*asn).is_ok() =>
            {
                Ok(())
            }
            Action::RateLimit { bytes_per_sec } if *bytes_per_sec < self.min_rate_bytes => {
                Err(Unsupported::Rate(self.min_rate_bytes))
            }
            Action::RateLimit { .. } => Ok(()),
            Action::RateLimitPackets { .. } if self.rate_packets => Ok(()),
            Action::Redirect(Redirect::NextHop(_) | Redirect::Copy(_))
                if self.redirect_next_hop =>
            {
                Ok(())
            }
            Action::Mark { .. } if self.mark => Ok(()),
            Action::RateLimitPackets { .. } | Action::Redirect(_) | Action::Mark { .. } => {
                Err(Unsupported::Action)
            }
        }
    }
}

/// Comparisons that a range takes on the wire.
const fn terms(range: &Range) -> usize {
    match (range.from, range.to) {
        (from, to) if from == to => 1,
        (0, _) | (_, u16::MAX) => 1,
        _ => 2,
    }
}

/// Comparisons that a flag match takes on the wire: bits on, and bits off.
const fn flag_terms(flags: &FlagMatch) -> usize {
    let off = flags.mask & !flags.set;
    match (flags.set, off) {
        (0, _) | (_, 0) => 1,
        _ => 2,
    }
}

/// Component types of a match, without the destination.
fn component_codes(packets: &Match) -> impl Iterator<Item = u8> {
    [
        (packets.src.is_some(), 2),
        (!packets.protocols.is_empty(), 3),
        (!packets.dst_ports.is_empty(), 5),
        (!packets.src_ports.is_empty(), 6),
        (!packets.icmp_types.is_empty(), 7),
        (!packets.icmp_codes.is_empty(), 8),
        (!packets.tcp_flags.is_empty(), 9),
        (!packets.lengths.is_empty(), 10),
        (!packets.dscps.is_empty(), 11),
        (packets.fragment.is_some(), 12),
    ]
    .into_iter()
    .filter_map(|(present, code)| present.then_some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(change: impl FnOnce(&mut Match)) -> Filter {
        let mut packets = Match::to("203.0.113.7/32".parse().unwrap());
        packets.protocols = vec![17];
        packets.dst_ports = vec![Range::exact(27015)];
        change(&mut packets);
        Filter { packets, action: Action::Drop }
    }

    #[test]
    fn each_limit_is_named() {
        let check = |profile: Profile, filter: Filter, error| {
            assert_eq!(Profile::Generic.capabilities().check(&filter), Ok(()));
            assert_eq!(profile.capabilities().check(&filter), Err(error), "{profile:?} {filter}");
        };
        let six = |m: &mut Match| m.dst = "2001:db8::7/128".parse().unwrap();
        check(Profile::Extreme, filter(six), Unsupported::Ipv6);
        check(
            Profile::Cisco8000,
            filter(|m| {
                six(m);
                m.lengths = vec![Range::exact(100)];
            }),
            Unsupported::Length,
        );
        let ranges = |n: u16| (1..=n).map(|i| Range { from: i * 10, to: i * 10 + 5 }).collect();
        check(Profile::CiscoAsr9k, filter(|m| m.dst_ports = ranges(6)), Unsupported::Ranges(5));
        check(Profile::Conservative, filter(|m| m.dscps = vec![46]), Unsupported::Component(11));
        check(Profile::Nokia, filter(|m| m.lengths = ranges(1)), Unsupported::Component(10));
        check(
            Profile::Nokia,
            filter(|m| m.src_ports = vec![Range { from: 0, to: 9 }]),
            Unsupported::PortZero,
        );
        check(Profile::Huawei, filter(|m| m.protocols.clear()), Unsupported::Protocol);
        check(Profile::Huawei, filter(|m| m.protocols = vec![1, 17]), Unsupported::Protocol);
        check(
            Profile::Huawei,
            filter(|m| m.lengths = vec![Range { from: 100, to: 9_601 }]),
            Unsupported::Length,
        );
        check(
            Profile::Huawei,
            filter(|m| m.fragment = Some(FragmentMatch::Last)),
            Unsupported::Fragment,
        );
        let tcp = |mask, set| {
            filter(move |m| {
                m.protocols = vec![6];
                m.tcp_flags = vec![FlagMatch { mask, set }];
            })
        };
        let values = |n: u16| (1..=n).map(Range::exact).collect();
        let five = filter(|m| m.src_ports = values(5));
        assert_eq!(Profile::Frr.capabilities().check(&five), Ok(()));
        check(Profile::Frr, filter(|m| m.src_ports = values(6)), Unsupported::Terms(5));
        check(Profile::Frr, filter(|m| m.src_ports = ranges(3)), Unsupported::Terms(5));
        check(Profile::Huawei, tcp(0x3f, 0), Unsupported::Flags);
        check(Profile::Extreme, tcp(0x42, 0x02), Unsupported::Flags);
        let with = |action| Filter { action, ..filter(|_| {}) };
        let slow = Action::RateLimit { bytes_per_sec: 2_000 };
        check(Profile::Extreme, with(slow), Unsupported::Rate(2_750));
        let packets = Action::RateLimitPackets { packets_per_sec: 10 };
        check(Profile::Juniper, with(packets), Unsupported::Action);
        let target = |asn| with(Action::Redirect(Redirect::RouteTarget { asn, value: 7 }));
        check(Profile::Exabgp, target(4_200_000_001), Unsupported::Action);
        assert_eq!(Profile::Exabgp.capabilities().check(&target(65_010)), Ok(()));
        check(Profile::Conservative, with(Action::Mark { dscp: 8 }), Unsupported::Action);
    }

    #[test]
    fn what_the_conservative_profile_takes_everyone_takes() {
        let rule = filter(|m| m.lengths = vec![Range { from: 100, to: 1500 }]);
        assert_eq!(CONSERVATIVE.check(&rule), Ok(()));
        for profile in [
            Profile::Juniper,
            Profile::CiscoAsr9k,
            Profile::Cisco8000,
            Profile::Huawei,
            Profile::Extreme,
            Profile::Bird,
            Profile::Frr,
            Profile::Gobgp,
            Profile::Exabgp,
        ] {
            assert_eq!(profile.capabilities().check(&rule), Ok(()), "{profile:?}");
            assert!(!profile.capabilities().source.is_empty());
        }
    }
}
