//! Section `[mitigator]`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_model::{IpNet, LadderStep, Mode, Redirect, Rung, Verdict, WebhookConfig, WebhookError};

use crate::scrub::ScrubberConfig;

/// 26 hours, the longest hold: attacks on a victim tend to come back at the same time of day.
const DAY_AND_SOME: f64 = 93_600.0;

/// Webhooks, and scrubbing services, at most: each has threads of its own.
const RECEIVERS_MAX: f64 = 16.0;

/// What is diverted around a target, unless configured: what is longer is carried by nobody beyond the own
/// network.
const DIVERT_LEN4: u8 = 24;
const DIVERT_LEN6: u8 = 48;

/// One step of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RungConfig {
    /// What is done on this step.
    pub rung: Rung,
    /// Allowed when the traffic towards the target reaches this many layer-3 bits a second.
    pub above_bits_per_sec: u64,
    /// Also allowed from this many packets a second, for floods of small packets; off when absent.
    #[serde(default)]
    pub above_packets_per_sec: Option<u64>,
    /// Also allowed from this many SYNs a second in a SYN flood: a few thousand of them, hardly a
    /// megabit, fill a server's backlog; off when absent.
    #[serde(default)]
    pub above_syns_per_sec: Option<u64>,
    /// How long the step is kept after the attack has ended, seconds.
    #[serde(default = "RungConfig::default_hold_secs")]
    pub hold_secs: u64,
    /// `mark`: the DSCP that the attack's packets get, 0-63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// `redirect`: where IPv4 packets go: the route target of a VRF (`"64512:9"`, also with a 4-octet AS) or a
    /// next hop. Without it the step is not for IPv4.
    #[serde(default, with = "place", skip_serializing_if = "Option::is_none")]
    pub to4: Option<Redirect>,
    /// `redirect`: the same of IPv6.
    #[serde(default, with = "place", skip_serializing_if = "Option::is_none")]
    pub to6: Option<Redirect>,
    /// `redirect`: the next hop gets a copy and the packets themselves go on: for looking closer, it
    /// relieves nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy: bool,
    /// `redirect`: everything that goes to the target, and not only what rules tell apart as the attack: a
    /// filter that answers SYNs itself has to see whole connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// `divert`: length of the IPv4 prefix around the target that is diverted, 8-32; 24 if not set. It must
    /// lie in a protected prefix, and `guard.divert_max_len4` allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len4: Option<u8>,
    /// `divert`: the same of IPv6, 16-128; 48 if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len6: Option<u8>,
}

/// Where packets are redirected to, as operators write it.
mod place {
    use serde::{Deserialize, Deserializer, Serializer};
    use weir_model::Redirect;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        to: &Option<Redirect>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match to {
            Some(to) => serializer.collect_str(to),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Redirect>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

impl RungConfig {
    const fn default_hold_secs() -> u64 {
        30
    }

    /// Whether this step is allowed against an attack of this volume.
    pub fn allows(&self, verdict: &Verdict) -> bool {
        self.shown().allows(verdict)
    }

    /// A step from so many bits a second on, with nothing else said of it.
    pub const fn new(rung: Rung, above_bits_per_sec: u64) -> Self {
        Self {
            rung,
            above_bits_per_sec,
            above_packets_per_sec: None,
            above_syns_per_sec: None,
            hold_secs: Self::default_hold_secs(),
            dscp: None,
            to4: None,
            to6: None,
            copy: false,
            whole: false,
            len4: None,
            len6: None,
        }
    }

    /// Where packets to a destination are redirected to.
    pub(crate) fn place(&self, dst: IpNet) -> Option<Redirect> {
        let to = match dst {
            IpNet::V4(_) => self.to4,
            IpNet::V6(_) => self.to6,
        };
        to.map(|to| match to {
            Redirect::NextHop(hop) if self.copy => Redirect::Copy(hop),
            to => to,
        })
    }

    /// The prefix that is diverted when this is attacked.
    pub(crate) fn covering(&self, target: IpNet) -> IpNet {
        let len = match target {
            IpNet::V4(_) => self.len4.unwrap_or(DIVERT_LEN4),
            IpNet::V6(_) => self.len6.unwrap_or(DIVERT_LEN6),
        };
        let len = len.min(target.prefix_len());
        IpNet::new(target.addr(), len).map_or(target, |net| net.trunc())
    }

    /// What a step says that is not for it, or lacks.
    fn check(&self) -> Result<(), &'static str> {
        let redirects = self.to4.is_some() || self.to6.is_some() || self.copy || self.whole;
        let diverts = self.len4.is_some() || self.len6.is_some();
        let targets = [self.to4, self.to6];
        let mut hops = targets.iter().flatten();
        match self.rung {
            Rung::Mark if self.dscp.is_none_or(|dscp| dscp > 63) => Err("mark needs dscp, 0-63"),
            Rung::Redirect if self.to4.is_none() && self.to6.is_none() => {
                Err("redirect needs to4 or to6")
            }
            Rung::Redirect if self.copy && hops.any(|to| !matches!(to, Redirect::NextHop(_))) => {
                Err("copy needs a next hop: a VRF gets packets, not copies")
            }
            Rung::Divert
                if self.len4.is_some_and(|len| !(8..=32).contains(&len))
                    || self.len6.is_some_and(|len| !(16..=128).contains(&len)) =>
            {
                Err("len4 is 8-32, len6 16-128")
            }
            rung if self.dscp.is_some() && rung != Rung::Mark => Err("dscp is for mark"),
            rung if redirects && rung != Rung::Redirect => {
                Err("to4, to6, copy and whole are for redirect")
            }
            rung if diverts && rung != Rung::Divert => Err("len4 and len6 are for divert"),
            _ => Ok(()),
        }
    }

    fn how(&self) -> Option<String> {
        match self.rung {
            Rung::Mark => self.dscp.map(|dscp| format!("DSCP {dscp}")),
            Rung::Redirect => {
                let to: Vec<String> =
                    [self.to4, self.to6].iter().flatten().map(ToString::to_string).collect();
                let copy = if self.copy { "copy to " } else { "to " };
                Some(format!("{copy}{}", to.join(", ")))
            }
            Rung::Divert => {
                let (len4, len6) =
                    (self.len4.unwrap_or(DIVERT_LEN4), self.len6.unwrap_or(DIVERT_LEN6));
                Some(format!("the /{len4} (IPv6 /{len6}) around the target"))
            }
            _ => None,
        }
    }

    /// The step as it is shown.
    pub fn shown(&self) -> LadderStep {
        LadderStep {
            rung: self.rung,
            above_bits_per_sec: self.above_bits_per_sec,
            above_packets_per_sec: self.above_packets_per_sec,
            above_syns_per_sec: self.above_syns_per_sec,
            hold_secs: self.hold_secs,
            how: self.how(),
        }
    }
}

/// What an exporter still sees of traffic that its router filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// It samples before the filter: filtered traffic stays in sight.
    BeforeFilter,
    /// It samples after the filter: filtered traffic vanishes.
    AfterFilter,
}

/// When to act, how far, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Mitigation mode: report only, ask for approval, or announce by itself.
    pub mode: Mode,
    /// The steps in the order in which they are tried. Thresholds are the *highest* step allowed
    /// at a volume; the first step whose predicted residual fits is taken.
    pub ladder: Vec<RungConfig>,
    /// A mitigation expires this many seconds after the last sign of the attack; it is renewed
    /// while the attack lasts.
    pub ttl_secs: u64,
    /// Minimum time between two changes of the rules of one incident, seconds.
    pub step_secs: u64,
    /// Below this confidence weir only alerts, 0-100.
    pub rate_limit_confidence: u8,
    /// From this confidence on all steps of the ladder are allowed, 0-100.
    pub full_confidence: u8,
    /// Independent groups of evidence that steps harder than a rate limit need.
    pub drop_evidence_groups: u8,
    /// Largest share of the target's normal traffic that a drop may hit, 0-1; also that of a rate
    /// limit below `full_confidence`.
    pub drop_collateral_max: f64,
    /// Largest share of the target's normal traffic that a rate limit may hit, 0-1.
    pub rate_limit_collateral_max: f64,
    /// Rate limits pass this multiple of the normal traffic of the match.
    pub rate_limit_factor: f64,
    /// Lowest rate limit, octets a second; ten times as much below `full_confidence`, so that a
    /// wrong verdict leaves a service usable.
    pub rate_limit_floor_bytes_per_sec: u64,
    /// Where packets are small, an octet limit is a generous one: one that would pass more than so many
    /// packets a second of a flood becomes a drop where a drop is allowed, else a limit of so many
    /// packets of the flood's average length. More is passed only where more is normal.
    pub rate_limit_packets_max: u64,
    /// Traffic that a host can take, layer-3 bits a second: a step suffices if it leaves no more.
    pub host_limit_bits_per_sec: u64,
    /// Traffic that the protected links can take together, layer-3 bits a second; unknown if not
    /// set. Where uplinks are configured (`[[uplink]]`), each has a limit of its own beside this one.
    pub link_limit_bits_per_sec: Option<u64>,
    /// Seconds without a datagram after which people are told that a listed exporter is silent; three times its
    /// active timeout where that is longer. 0: never.
    pub silent_exporter_secs: u64,
    /// Whether a flood that no filter can separate from normal traffic may be black-holed where the
    /// ladder allows it. This takes the target offline: off by default.
    pub rtbh_when_inseparable: bool,
    /// Whether a black hole needs the approval of two people, in every mode; so does a rule that comes to the
    /// same, such as a drop of all that a host gets.
    pub two_person_rtbh: bool,
    /// Seconds after the first peer has a mitigation within which traffic must have fallen;
    /// otherwise the next step is taken.
    pub feedback_secs: u64,
    /// Seconds to wait for a BGP peer whose session is down before the ladder continues without it;
    /// not set: as long as the attack lasts.
    pub peer_wait_secs: Option<u64>,
    /// Seconds after the first peer has a rule during which a collapse of legitimate traffic is
    /// attributed to it; after them, a rule that cuts almost nothing is withdrawn.
    pub rollback_secs: u64,
    /// Seconds for which a rule that did harm is not used again.
    pub harmful_secs: u64,
    /// What exporters see of filtered traffic, by name; learned for those not listed.
    pub exporter_visibility: BTreeMap<String, Visibility>,
    /// Seconds after the last mitigation of an incident was withdrawn during which weir can
    /// announce it again at once.
    pub probe_secs: u64,
    /// An attack within this many seconds of the last withdrawal makes a repeat victim.
    pub repeat_secs: u64,
    /// How long rules are kept after the end of the first, second, ... attack on a repeat victim,
    /// seconds; the last holds for all that follow. Black holes and diversions keep their own.
    pub repeat_holds_secs: Vec<u64>,
    /// Maximum duration of an operator's hold, seconds.
    pub hold_max_secs: u64,
    /// Scrubbing services; without one the ladder's scrub step is passed over.
    #[serde(rename = "scrubber")]
    pub scrubbers: Vec<ScrubberConfig>,
    /// Seconds after a scrubbing service has accepted, or a peer has a diverting route, before the effect is
    /// judged: diverting takes minutes.
    pub scrub_feedback_secs: u64,
    /// Receivers of signed messages about decisions.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<WebhookConfig>,
    /// FlowSpec rules for one incident at a time.
    pub max_rules_per_incident: usize,
    /// Maximum number of incidents in memory, open and closed.
    pub max_incidents: usize,
}

impl Default for Config {
    fn default() -> Self {
        let rung = |rung, above_bits_per_sec, hold_secs| RungConfig {
            // A flood of 40-octet SYNs stops a server long before it fills a link: 100,000 a second
            // are 32 Mbit/s. A black hole is for links, so packets alone never allow one.
            above_packets_per_sec: match rung {
                Rung::RateLimit => Some(20_000),
                Rung::Drop => Some(100_000),
                _ => None,
            },
            above_syns_per_sec: match rung {
                Rung::RateLimit => Some(1_000),
                Rung::Drop => Some(20_000),
                _ => None,
            },
            hold_secs,
            ..RungConfig::new(rung, above_bits_per_sec)
        };
        Self {
            mode: Mode::Observe,
            ladder: vec![
                rung(Rung::RateLimit, 100_000_000, 30),
                rung(Rung::Drop, 500_000_000, 30),
                rung(Rung::Rtbh, 2_000_000_000, 60),
                rung(Rung::Scrub, 5_000_000_000, 300),
            ],
            ttl_secs: 300,
            step_secs: 5,
            rate_limit_confidence: 40,
            full_confidence: 70,
            drop_evidence_groups: 2,
            drop_collateral_max: 0.01,
            rate_limit_collateral_max: 0.05,
            rate_limit_factor: 1.5,
            rate_limit_floor_bytes_per_sec: 125_000,
            rate_limit_packets_max: 1_000,
            host_limit_bits_per_sec: 1_000_000_000,
            link_limit_bits_per_sec: None,
            silent_exporter_secs: 120,
            rtbh_when_inseparable: false,
            two_person_rtbh: false,
            feedback_secs: 5,
            peer_wait_secs: None,
            rollback_secs: 10,
            harmful_secs: 86_400,
            exporter_visibility: BTreeMap::new(),
            probe_secs: 10,
            repeat_secs: 900,
            repeat_holds_secs: vec![900, 3600, 14_400, 93_600],
            hold_max_secs: 86_400,
            scrubbers: Vec::new(),
            scrub_feedback_secs: 600,
            webhooks: Vec::new(),
            max_rules_per_incident: 4,
            max_incidents: 500,
        }
    }
}

/// What is wrong with a [`Config`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A step stands twice in the ladder.
    #[error("ladder: {0} stands twice")]
    RungTwice(Rung),
    /// A step lacks what it needs, or has what is for another.
    #[error("ladder: {0}: {1}")]
    Rung(Rung, &'static str),
    /// A webhook or scrubber makes no sense.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A number is out of its range.
    #[error("{field} = {value} is outside {from}-{to}")]
    OutOfRange {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: f64,
        /// Smallest legal value.
        from: f64,
        /// Largest legal value.
        to: f64,
    },
}

fn unique<'a>(names: &mut BTreeSet<&'a str>, name: &'a str) -> Result<(), WebhookError> {
    if names.insert(name) { Ok(()) } else { Err(WebhookError::Name(name.to_owned())) }
}

impl Config {
    /// Checks every setting against its range.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (i, step) in self.ladder.iter().enumerate() {
            if self.ladder[..i].iter().any(|s| s.rung == step.rung) {
                return Err(ConfigError::RungTwice(step.rung));
            }
            step.check().map_err(|why| ConfigError::Rung(step.rung, why))?;
        }
        let mut names = BTreeSet::new();
        for hook in &self.webhooks {
            hook.check()?;
            unique(&mut names, &hook.name)?;
        }
        for scrubber in &self.scrubbers {
            scrubber.check()?;
            unique(&mut names, &scrubber.name)?;
        }
        let holds = self.ladder.iter().map(|s| &s.hold_secs).chain(&self.repeat_holds_secs);
        #[expect(clippy::cast_precision_loss, reason = "the ranges end far below 2^52")]
        let holds = holds.map(|secs| ("hold_secs", *secs as f64, 0.0, DAY_AND_SOME));
        self.numbers().into_iter().chain(holds).try_for_each(|(field, value, from, to)| {
            if (from..=to).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange { field, value, from, to })
            }
        })
    }

    /// Every number with its range.
    #[expect(clippy::cast_precision_loss, reason = "the ranges end far below 2^52")]
    fn numbers(&self) -> [(&'static str, f64, f64, f64); 22] {
        const MONTH: f64 = 2_592_000.0;
        [
            ("ttl_secs", self.ttl_secs as f64, 10.0, 3600.0),
            ("step_secs", self.step_secs as f64, 1.0, 60.0),
            ("feedback_secs", self.feedback_secs as f64, 1.0, 600.0),
            ("peer_wait_secs", self.peer_wait_secs.unwrap_or(60) as f64, 1.0, DAY_AND_SOME),
            ("rollback_secs", self.rollback_secs as f64, 1.0, 600.0),
            ("scrub_feedback_secs", self.scrub_feedback_secs as f64, 1.0, 7200.0),
            ("harmful_secs", self.harmful_secs as f64, 0.0, MONTH),
            ("probe_secs", self.probe_secs as f64, 0.0, 600.0),
            ("repeat_secs", self.repeat_secs as f64, 0.0, DAY_AND_SOME),
            ("hold_max_secs", self.hold_max_secs as f64, 1.0, MONTH),
            ("drop_collateral_max", self.drop_collateral_max, 0.0, 1.0),
            ("rate_limit_collateral_max", self.rate_limit_collateral_max, 0.0, 1.0),
            ("rate_limit_factor", self.rate_limit_factor, 1.0, 100.0),
            ("rate_limit_confidence", f64::from(self.rate_limit_confidence), 1.0, 100.0),
            ("full_confidence", f64::from(self.full_confidence), 1.0, 100.0),
            ("drop_evidence_groups", f64::from(self.drop_evidence_groups), 0.0, 16.0),
            ("host_limit_bits_per_sec", self.host_limit_bits_per_sec as f64, 1.0, 1e15),
            ("rate_limit_packets_max", self.rate_limit_packets_max as f64, 1.0, 1e9),
            ("max_rules_per_incident", self.max_rules_per_incident as f64, 1.0, 64.0),
            ("max_incidents", self.max_incidents as f64, 1.0, 100_000.0),
            ("webhook (number)", self.webhooks.len() as f64, 0.0, RECEIVERS_MAX),
            ("scrubber (number)", self.scrubbers.len() as f64, 0.0, RECEIVERS_MAX),
        ]
    }

    /// A step's index in the ladder.
    pub(crate) fn step_of(&self, rung: Rung) -> Option<usize> {
        self.ladder.iter().position(|step| step.rung == rung)
    }

    /// How long a step is kept after the end of an attack that is the so-manieth in a row,
    /// milliseconds.
    pub(crate) fn hold_ms(&self, rung: Rung, strikes: u32) -> u64 {
        let step = self.step_of(rung).map(|index| &self.ladder[index]);
        let own = step.map_or_else(RungConfig::default_hold_secs, |s| s.hold_secs);
        let last = self.repeat_holds_secs.len().saturating_sub(1);
        let repeated = usize::try_from(strikes)
            .ok()
            .and_then(|strikes| strikes.checked_sub(1))
            .and_then(|index| self.repeat_holds_secs.get(index.min(last)))
            .copied();
        let secs = match rung {
            Rung::Mark | Rung::RateLimit | Rung::Drop => repeated.map_or(own, |secs| secs.max(own)),
            // A black hole that outlives its attack finishes the attacker's work.
            Rung::Redirect | Rung::Divert | Rung::Rtbh | Rung::Scrub => own,
        };
        secs.saturating_mul(1000)
    }

    pub(crate) const fn ttl_ms(&self) -> u64 {
        self.ttl_secs.saturating_mul(1000)
    }

    /// How long after an announcement its effect is judged, milliseconds.
    pub(crate) const fn feedback_ms(&self, rung: Option<Rung>) -> u64 {
        let secs = match rung {
            Some(Rung::Divert | Rung::Scrub) => self.scrub_feedback_secs,
            _ => self.feedback_secs,
        };
        secs.saturating_mul(1000)
    }

    pub(crate) const fn step_ms(&self) -> u64 {
        self.step_secs.saturating_mul(1000)
    }
}
