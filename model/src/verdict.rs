//! What the detector concludes.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Direction, Match, Millis, Pattern};

/// An incident's number: unique for the life of an installation, rising with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);

impl IncidentId {
    /// The next number after `last` for an incident that opens at `now`.
    pub fn next(now: Millis, last: Option<Self>) -> Self {
        let by_time = Self(now.0);
        last.map_or(by_time, |last| by_time.max(Self(last.0 + 1)))
    }
}

impl fmt::Display for IncidentId {
    /// Base 36, nine characters: short enough to say on the telephone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut text = [b'0'; 13];
        let mut rest = self.0;
        let mut at = text.len();
        while rest > 0 || at == text.len() {
            at -= 1;
            text[at] = DIGITS[usize::try_from(rest % 36).unwrap_or(0)];
            rest /= 36;
        }
        f.write_str(std::str::from_utf8(&text[at..]).unwrap_or_default())
    }
}

impl FromStr for IncidentId {
    type Err = std::num::ParseIntError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(s, 36).map(Self)
    }
}

impl Serialize for IncidentId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IncidentId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Packets and bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Rate {
    /// Packets a second.
    pub packets_per_sec: f64,
    /// Layer-3 bits a second.
    pub bits_per_sec: f64,
}

/// What kind of attack, in the broad terms that operators and status pages use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Family {
    /// UDP of any shape, amplification included.
    UdpFlood,
    /// TCP: SYN, SYN-ACK reflection, ACK, RST.
    SynFlood,
    /// TCP other than SYN: ACK, RST, odd flags.
    TcpFlood,
    /// Requests over full connections.
    HttpFlood,
    /// ICMP or ICMPv6.
    IcmpFlood,
    /// DNS queries or answers.
    DnsFlood,
    /// Fragments without their first parts.
    FragmentFlood,
    /// Two or more families of weight.
    MultiVector,
    /// None that weir can name.
    Unknown,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 9] = [
        Self::UdpFlood,
        Self::SynFlood,
        Self::TcpFlood,
        Self::HttpFlood,
        Self::IcmpFlood,
        Self::DnsFlood,
        Self::FragmentFlood,
        Self::MultiVector,
        Self::Unknown,
    ];

    /// Stable identifier: API, metrics label.
    pub const fn id(self) -> &'static str {
        match self {
            Self::UdpFlood => "udp-flood",
            Self::SynFlood => "syn-flood",
            Self::TcpFlood => "tcp-flood",
            Self::HttpFlood => "http-flood",
            Self::IcmpFlood => "icmp-flood",
            Self::DnsFlood => "dns-flood",
            Self::FragmentFlood => "fragment-flood",
            Self::MultiVector => "multi-vector",
            Self::Unknown => "unknown",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::UdpFlood => "UDP flood",
            Self::SynFlood => "SYN flood",
            Self::TcpFlood => "TCP flood",
            Self::HttpFlood => "HTTP flood",
            Self::IcmpFlood => "ICMP flood",
            Self::DnsFlood => "DNS flood",
            Self::FragmentFlood => "fragment flood",
            Self::MultiVector => "multi-vector attack",
            Self::Unknown => "unknown attack",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// What was measured against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Metric {
    /// Packets a second.
    PacketsPerSec,
    /// Bits a second.
    BitsPerSec,
    /// SYNs a second.
    SynsPerSec,
    /// UDP packets a second to ports that are no declared service.
    UdpOffServicePerSec,
    /// ICMP packets a second.
    IcmpPerSec,
    /// Later fragments a second.
    FragmentsPerSec,
    /// New sources a second.
    SourcesPerSec,
    /// Divergence of the traffic's shape from the aged profile.
    Shape,
    /// Cumulative sum above the aged mean.
    Cusum,
    /// Share of packets that fit a signature needing no baseline.
    Signature,
    /// A metric of an operator's own, which is named beside it.
    Own,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 11] = [
        Self::PacketsPerSec,
        Self::BitsPerSec,
        Self::SynsPerSec,
        Self::UdpOffServicePerSec,
        Self::IcmpPerSec,
        Self::FragmentsPerSec,
        Self::SourcesPerSec,
        Self::Shape,
        Self::Cusum,
        Self::Signature,
        Self::Own,
    ];

    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::PacketsPerSec => "packets-per-sec",
            Self::BitsPerSec => "bits-per-sec",
            Self::SynsPerSec => "syns-per-sec",
            Self::UdpOffServicePerSec => "udp-off-service-per-sec",
            Self::IcmpPerSec => "icmp-per-sec",
            Self::FragmentsPerSec => "fragments-per-sec",
            Self::SourcesPerSec => "sources-per-sec",
            Self::Shape => "shape",
            Self::Cusum => "cusum",
            Self::Signature => "signature",
            Self::Own => "own",
        }
    }
}

/// Which of an operator's own metrics was measured, and in what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OwnMeasure {
    /// Its name, as in the configuration.
    pub name: String,
    /// In what: `packets-per-sec` or `bits-per-sec`.
    pub unit: Metric,
    /// Which packets it counts.
    #[serde(rename = "match")]
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub packets: Pattern,
}

/// The one line behind a decision: why the alarm was raised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Reason {
    /// What was measured.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// What is normal: the p99 that the multiplier applies to; 0 when still learning.
    pub baseline: f64,
    /// Multiplier on the baseline.
    pub multiplier: f64,
    /// What the value was compared with.
    pub threshold: f64,
    /// Length of the window, milliseconds.
    pub window_ms: u64,
    /// Effective samples in the window.
    pub samples: f64,
    /// Effective sampling rate: one in so many packets.
    pub sampling: f64,
    /// Exporters that reported the traffic, by name.
    pub exporters: Vec<String>,
    /// The service port concerned, when the test was one of a service: protocol and port.
    pub service: Option<(u8, u16)>,
    /// The metric of an operator's own, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnMeasure>,
}

impl Reason {
    /// The name of what was measured.
    pub fn name(&self) -> &str {
        self.own.as_ref().map_or_else(|| self.metric.id(), |own| &own.name)
    }

    /// In what it was measured.
    pub fn unit(&self) -> Metric {
        self.own.as_ref().map_or(self.metric, |own| own.unit)
    }
}

/// Why a match must not be announced, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Hold {
    /// The target answers those who send what it matches: the traffic is wanted.
    Answered,
    /// Those who send what it matches are those who sent in normal times.
    Familiar,
    /// Too few packets were seen to say whether they are answered.
    Undecided,
    /// A second look must agree first.
    OneLook,
    /// Exporters show only what comes in, and nothing but the volume speaks for an attack.
    OneWay,
    /// Nothing is known of the target yet, and nothing but the volume speaks for an attack.
    Learning,
    /// A tunnel of a few senders: its protocol says nothing of what it carries.
    Tunnel,
    /// Connections opened to one port after another, too few to be a load: scanning.
    Scanning,
}

impl Hold {
    /// For people: what the rule waits for, or why it is refused.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Answered => "the target answers this traffic",
            Self::Familiar => "the senders are those of normal times",
            Self::Undecided => "not yet known whether the target answers this traffic",
            Self::OneLook => "waits for a second look to agree",
            Self::OneWay => "answers cannot be seen here, and volume alone proves nothing",
            Self::Learning => "the target is not known yet, and volume alone proves nothing",
            Self::Tunnel => "a tunnel of a few senders",
            Self::Scanning => "scanning of many ports, too little to be a load",
        }
    }

    /// Whether the traffic is known to be wanted: a rule in force that hits it does harm.
    pub const fn is_wanted(self) -> bool {
        matches!(self, Self::Answered | Self::Familiar)
    }
}

/// A match the detector would use, with what it would cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Candidate {
    /// Which packets.
    pub packets: Match,
    /// Of a target wider than a /24: the /24s that the excess goes to, and nothing need be done for the others.
    /// Empty where they are not told apart: then it is all of the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub parts: Vec<IpNet>,
    /// Share of the excess it covers, 0-1, measured on samples it was not fitted to.
    pub coverage: f64,
    /// Lower 95 % bound of `coverage`.
    pub coverage_low: f64,
    /// Share of the host's normal traffic it would hit, 0-1.
    pub collateral: f64,
    /// Upper 95 % bound of `collateral`.
    pub collateral_high: f64,
    /// What it matched in the last window.
    pub rate: Rate,
    /// Octets a second that the same match carries in normal times: rate limits start from it.
    pub normal_bytes_per_sec: f64,
    /// Why it must not be announced, or not yet.
    #[serde(default)]
    pub hold: Option<Hold>,
}

/// Traffic that looks like the target's own customers: declared services, sources or shapes seen
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Goodput {
    /// What of it arrives now and is not discarded.
    pub now: Rate,
    /// What of it arrives in normal times.
    pub normal: Rate,
    /// Samples that `normal` would yield in the window `now` was measured over: below about 15 a
    /// fall means nothing.
    pub expected_samples: f64,
}

/// One component of an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Vector {
    /// Family.
    pub family: Family,
    /// Identifier of the signature, such as `dns-amplification`.
    pub subtype: String,
    /// Share of the excess packets, 0-1.
    pub share: f64,
    /// Its rate.
    pub rate: Rate,
    /// Main source ports, most frequent first, at most 8.
    pub src_ports: Vec<u16>,
    /// Main destination ports, most frequent first, at most 8.
    pub dst_ports: Vec<u16>,
}

/// A value and its share of the excess: one row of a top-N.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TopEntry {
    /// The value as text.
    pub value: String,
    /// Share of the excess packets, 0-1.
    pub share: f64,
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Phase {
    /// First verdict.
    Opened,
    /// Goes on; numbers, vectors or candidates are new.
    Ongoing,
    /// The exporters that told of it are silent: nothing is known of it, and the rest is as it was last
    /// seen.
    Blind,
    /// Below the end condition since long enough.
    Ended,
}

/// What the detector concluded about one target at one instant. Carries all that the mitigator
/// needs, so that it never asks back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Verdict {
    /// The incident it belongs to.
    pub incident: IncidentId,
    /// Where the incident stands.
    pub phase: Phase,
    /// When it was concluded.
    pub at: Millis,
    /// The host (/32, /128) or prefix under attack.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub target: IpNet,
    /// Inbound, or outbound when the target itself attacks.
    pub direction: Direction,
    /// Family of the whole.
    pub family: Family,
    /// Its components, largest first.
    pub vectors: Vec<Vector>,
    /// 0-100: share of such verdicts that are attacks.
    pub confidence: u8,
    /// Independent groups of evidence that agree; an automatic drop needs two.
    pub evidence_groups: u8,
    /// Whether some set of matches tells the excess from normal traffic.
    pub separable: bool,
    /// Traffic towards the target now.
    pub rate: Rate,
    /// Highest since the incident opened.
    pub peak: Rate,
    /// Excess over the baseline now.
    pub excess: Rate,
    /// Traffic that routers say they discarded (IE 89 forwardingStatus, sFlow discards), on top of
    /// `rate`: keeps the attack alive, but does no harm any more.
    #[serde(default)]
    pub discarded: Rate,
    /// How the target's legitimate traffic fares; `None` when it cannot be told apart.
    #[serde(default)]
    pub legitimate: Option<Goodput>,
    /// Share of the packets arriving now that the target answers, 0-1: it serves them whatever else arrives. 0
    /// where answers are not seen.
    #[serde(default)]
    pub served: f64,
    /// Distinct sources of the excess, estimated.
    pub sources: f64,
    /// Why.
    pub reason: Reason,
    /// Best matches, in order of use; together they cover the excess.
    pub candidates: Vec<Candidate>,
    /// Top sources, for people.
    pub top_sources: Vec<TopEntry>,
    /// One sentence for people.
    pub summary: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_own_metric_is_told_by_name_and_unit() {
        let own = OwnMeasure {
            name: "sip".to_owned(),
            unit: Metric::BitsPerSec,
            packets: "udp dst port 5060".parse().unwrap(),
        };
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(text, r#"{"name":"sip","unit":"bits-per-sec","match":"proto 17 dport 5060"}"#);
        assert_eq!(serde_json::from_str::<OwnMeasure>(&text).unwrap(), own);
        // Of before there were any.
        let reason = r#"{"metric":"syns-per-sec","value":9.0,"baseline":1.0,"multiplier":3.0,"threshold":3.0,
            "window_ms":1000,"samples":20.0,"sampling":1.0,"exporters":[],"service":null}"#;
        let mut reason: Reason = serde_json::from_str(reason).unwrap();
        assert_eq!((reason.name(), reason.unit()), ("syns-per-sec", Metric::SynsPerSec));
        assert!(!serde_json::to_string(&reason).unwrap().contains("own"));
        reason.own = Some(own);
        assert_eq!((reason.name(), reason.unit()), ("sip", Metric::BitsPerSec));
    }

    #[test]
    fn incident_ids_are_short_and_come_back() {
        let id = IncidentId::next(Millis(1_795_168_965_120), None);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().len() <= 9);
        let next = IncidentId::next(Millis(1_795_168_965_120), Some(id));
        assert!(next > id);
        assert_eq!(IncidentId(0).to_string(), "0");
    }
}
