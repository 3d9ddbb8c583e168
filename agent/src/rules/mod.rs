//! A rule as a node understands it: FlowSpec's match, what the node does with the packets, and until when.
//!
//! The same [`Match`] stands in FlowSpec announcements, so node and routers agree on which packets are meant.
//! What a rule may contain is checked here once ([`Rule::check`]); backends only say what they cannot express.

mod order;

pub use order::{flowspec_order, sort};

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
pub use weir_model::PORT_PROTOCOLS;
use weir_model::{Action, Direction, Filter, IpNet, Match, Millis};

/// Longest rule identifier, octets.
pub const ID_LEN_MAX: usize = 48;

/// Most rules in one snapshot.
pub const RULES_MAX: usize = 1000;

/// The address of a prefix of one host.
pub(crate) fn host(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// All that an address sends, or the addresses of a prefix.
pub(crate) fn sent_by(source: IpNet) -> Match {
    let everywhere = match source {
        IpNet::V4(_) => IpNet::V4(Default::default()),
        IpNet::V6(_) => IpNet::V6(Default::default()),
    };
    Match { src: Some(source), ..Match::to(everywhere) }
}

/// What a node does with the packets of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeAction {
    /// Discard.
    Drop,
    /// Pass at most this many layer-3 octets a second. The kernel grants one more second's worth at the start.
    RateBytes {
        /// Octets a second, 1 to 2^40.
        bytes_per_sec: u64,
    },
    /// Pass at most this many packets a second.
    RatePackets {
        /// Packets a second, 1 to 2^32.
        packets_per_sec: u64,
    },
    /// Pass at most this many packets a second of each source, and never more than `cap_packets_per_sec` of all:
    /// a meter alone passes everything once spoofed sources have filled its table.
    PerSource {
        /// Packets a second of one source, 1 to 2^32.
        packets_per_sec: u64,
        /// Packets a source may send at once.
        burst: u32,
        /// Packets a second of all sources together, 1 to 2^32.
        cap_packets_per_sec: u64,
    },
    /// Answer SYNs with cookies in the host's stead; only completed handshakes reach the service.
    SynProxy {
        /// Maximum segment size that the service itself would announce.
        mss: u16,
        /// Window scale that the service itself would announce, 0-14.
        wscale: u8,
    },
    /// Pass, whatever later rules say.
    Accept,
}

impl NodeAction {
    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::RateBytes { .. } => "rate-bytes",
            Self::RatePackets { .. } => "rate-packets",
            Self::PerSource { .. } => "per-source",
            Self::SynProxy { .. } => "syn-proxy",
            Self::Accept => "accept",
        }
    }
}

/// One rule of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// Its identifier: up to [`ID_LEN_MAX`] of `a-z A-Z 0-9 - _ .`; stands in the kernel's rule comments.
    pub id: String,
    /// Towards the node's addresses, or from them.
    #[serde(default)]
    pub direction: Direction,
    /// Which packets. Outbound, `dst` is where they go and `src` must name whose they are.
    pub packets: Match,
    /// What is done.
    pub action: NodeAction,
    /// Pass sources that were seen in two-way conversations with the service before the action applies.
    #[serde(default)]
    pub spare_learned: bool,
    /// When it lapses, on the appliance's clock. `None`: stays when the appliance is gone.
    pub expires: Option<Millis>,
}

/// Why a rule cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Empty, too long, or characters that are not allowed.
    #[error(
        "identifier is empty, longer than {ID_LEN_MAX} or has other characters than a-z A-Z 0-9 - _ ."
    )]
    Identifier,
    /// A rate of nothing or beyond what a kernel counts.
    #[error("rate {0} is out of range")]
    Rate(u64),
    /// A value outside its range.
    #[error("{0} is out of range")]
    Value(&'static str),
    /// Components that no packet has together.
    #[error("no packet matches: {0}")]
    Contradiction(&'static str),
    /// An outbound rule that does not say whose packets.
    #[error("an outbound rule names the source it limits")]
    NoSource,
    /// What a node does not do.
    #[error("a node does not {0}")]
    NotHere(&'static str),
}

impl Rule {
    /// A rule from a filter of the ladder. Limits spare learned players: the cap is for strangers.
    ///
    /// # Errors
    /// [`RuleError::NotHere`] for redirects, which only routers do.
    pub fn from_filter(id: String, filter: &Filter, expires: Millis) -> Result<Self, RuleError> {
        let (action, spare_learned) = match filter.action {
            Action::Drop => (NodeAction::Drop, false),
            Action::RateLimit { bytes_per_sec } => (NodeAction::RateBytes { bytes_per_sec }, true),
            Action::RateLimitPackets { packets_per_sec } => {
                (NodeAction::RatePackets { packets_per_sec }, true)
            }
            Action::Redirect(_) => return Err(RuleError::NotHere("redirect traffic")),
            Action::Mark { .. } => return Err(RuleError::NotHere("mark packets")),
        };
        Ok(Self {
            id,
            direction: Direction::Inbound,
            packets: filter.packets.clone(),
            action,
            spare_learned,
            expires: Some(expires),
        })
    }

    /// Checks every number and name, so that backends may write them down unseen.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<(), RuleError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.id.is_empty() || self.id.len() > ID_LEN_MAX || !self.id.chars().all(plain) {
            return Err(RuleError::Identifier);
        }
        self.check_action()?;
        self.check_packets()?;
        if self.direction == Direction::Outbound && self.packets.src.is_none() {
            return Err(RuleError::NoSource);
        }
        Ok(())
    }

    fn check_action(&self) -> Result<(), RuleError> {
        const PACKETS_MAX: u64 = 1 << 32;
        const BYTES_MAX: u64 = 1 << 40;
        let within = |rate: u64, max: u64| {
            if (1..=max).contains(&rate) { Ok(()) } else { Err(RuleError::Rate(rate)) }
        };
        match self.action {
            NodeAction::Drop | NodeAction::Accept => Ok(()),
            NodeAction::RateBytes { bytes_per_sec } => within(bytes_per_sec, BYTES_MAX),
            NodeAction::RatePackets { packets_per_sec } => within(packets_per_sec, PACKETS_MAX),
            NodeAction::PerSource { packets_per_sec, burst, cap_packets_per_sec } => {
                within(packets_per_sec, PACKETS_MAX)?;
                within(cap_packets_per_sec, PACKETS_MAX)?;
                if burst == 0 { Err(RuleError::Value("burst")) } else { Ok(()) }
            }
            NodeAction::SynProxy { mss, wscale } => {
                if !(88..=9000).contains(&mss) {
                    return Err(RuleError::Value("mss"));
                }
                if wscale > 14 { Err(RuleError::Value("wscale")) } else { Ok(()) }
            }
        }
    }

    fn check_packets(&self) -> Result<(), RuleError> {
        let m = &self.packets;
        if m.src.is_some_and(|src| src.addr().is_ipv4() != m.dst.addr().is_ipv4()) {
            return Err(RuleError::Contradiction("source and destination of different families"));
        }
        let ranges = m.dst_ports.iter().chain(&m.src_ports).chain(&m.lengths);
        if ranges.into_iter().any(|r| r.from > r.to) {
            return Err(RuleError::Value("range"));
        }
        if m.dscps.iter().any(|d| *d > 63) {
            return Err(RuleError::Value("dscp"));
        }
        if m.tcp_flags.iter().any(|f| f.set & !f.mask != 0 || f.mask == 0) {
            return Err(RuleError::Value("tcp-flags"));
        }
        let ports = !m.dst_ports.is_empty() || !m.src_ports.is_empty();
        let icmp = !m.icmp_types.is_empty() || !m.icmp_codes.is_empty();
        let flags = !m.tcp_flags.is_empty();
        if icmp && (ports || flags) {
            return Err(RuleError::Contradiction("ICMP with ports or TCP flags"));
        }
        let names = |wanted: &[u8]| {
            m.protocols.is_empty() || m.protocols.iter().any(|p| wanted.contains(p))
        };
        if ports && !names(&PORT_PROTOCOLS) {
            return Err(RuleError::Contradiction("ports of a protocol without ports"));
        }
        if flags && !names(&[6]) {
            return Err(RuleError::Contradiction("TCP flags of another protocol"));
        }
        let icmp_number = if m.dst.addr().is_ipv4() { 1 } else { 58 };
        if icmp && !names(&[icmp_number]) {
            return Err(RuleError::Contradiction("ICMP types of another protocol"));
        }
        if matches!(self.action, NodeAction::SynProxy { .. })
            && (m.protocols != [6] || m.dst_ports.is_empty() || icmp || flags)
        {
            return Err(RuleError::Value("match of a syn-proxy: protocol 6 and destination ports"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use weir_model::{FlagMatch, Range};

    /// Everything to one host, dropped.
    pub(crate) fn rule() -> Rule {
        Rule {
            id: "r1".into(),
            direction: Direction::Inbound,
            packets: Match::to("203.0.113.7/32".parse().unwrap()),
            action: NodeAction::Drop,
            spare_learned: false,
            expires: None,
        }
    }

    #[test]
    fn what_cannot_be_written_down_safely_is_refused() {
        let check = |change: &dyn Fn(&mut Rule), wanted: Result<(), RuleError>| {
            let mut r = rule();
            change(&mut r);
            assert_eq!(r.check(), wanted, "{r:?}");
        };
        check(&|_| (), Ok(()));
        check(&|r| r.id = "a\"; drop".into(), Err(RuleError::Identifier));
        check(&|r| r.id = String::new(), Err(RuleError::Identifier));
        check(&|r| r.action = NodeAction::RateBytes { bytes_per_sec: 0 }, Err(RuleError::Rate(0)));
        check(&|r| r.packets.dscps = vec![64], Err(RuleError::Value("dscp")));
        check(
            &|r| r.packets.dst_ports = vec![Range { from: 9, to: 3 }],
            Err(RuleError::Value("range")),
        );
        check(
            &|r| r.packets.tcp_flags = vec![FlagMatch { mask: 2, set: 3 }],
            Err(RuleError::Value("tcp-flags")),
        );
        check(&|r| r.direction = Direction::Outbound, Err(RuleError::NoSource));
        check(
            &|r| r.packets.src = Some("2001:db8::/32".parse().unwrap()),
            Err(RuleError::Contradiction("source and destination of different families")),
        );
        check(
            &|r| {
                r.packets.protocols = vec![1];
                r.packets.dst_ports = vec![Range::exact(80)];
            },
            Err(RuleError::Contradiction("ports of a protocol without ports")),
        );
    }

    #[test]
    fn limits_of_the_ladder_spare_learned_players_and_drops_do_not() {
        let filter = |action| Filter { packets: rule().packets, action };
        let made = |action| Rule::from_filter("x".into(), &filter(action), Millis(9)).unwrap();
        assert!(made(Action::RateLimit { bytes_per_sec: 1 }).spare_learned);
        assert!(!made(Action::Drop).spare_learned);
        let redirect =
            Action::Redirect(weir_model::Redirect::NextHop("192.0.2.1".parse().unwrap()));
        assert!(Rule::from_filter("x".into(), &filter(redirect), Millis(9)).is_err());
    }
}
