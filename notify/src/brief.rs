//! What people need to know of an incident, in few words and of bounded length.

use serde::{Deserialize, Serialize};
use weir_model::{
    Condition, ConditionKind, Direction, Incident, IncidentId, IncidentState, Inventory, IpNet,
    Millis, MitigationState, Phase, Rung,
};

/// Longest text taken over from outside: a server's name, a group's name.
const NAME_MAX: usize = 80;

/// Longest sentence.
const SENTENCE_MAX: usize = 300;

/// Sources named at most.
const SOURCES_MAX: usize = 20;

/// Samples below which a fall of the customers' own traffic means nothing.
const GOODPUT_SAMPLES_MIN: f64 = 15.0;

/// How grave an incident is. Derived from impact, confidence and what is done, never chosen by hand.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Probably no attack, or one that is over.
    #[default]
    Info,
    /// An attack that is dealt with, or small.
    Warning,
    /// A sure attack of weight that nothing is done about, or that waits for a person.
    Error,
    /// Customers are cut off: by the attack, or by a black hole against it.
    Critical,
}

impl Severity {
    /// Stable identifier.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// How grave an incident is now.
    pub fn of(incident: &Incident) -> Self {
        let verdict = &incident.verdict;
        let in_force = incident.mitigations.iter().filter(|m| m.is_in_force());
        let hardest = in_force.map(|m| m.rung).max();
        if share_arriving(incident).is_some_and(|share| share < 0.5)
            || matches!(hardest, Some(Rung::Rtbh))
        {
            return Self::Critical;
        }
        let waits = incident.mitigations.iter().any(|m| m.state == MitigationState::Proposed);
        match (verdict.confidence, hardest) {
            (0..=59, _) => Self::Info,
            (85.., None) => Self::Error,
            _ if waits => Self::Error,
            _ => Self::Warning,
        }
    }
}

/// What is kept of an incident for as long as somebody is still to be told of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// Who is attacked: an address, or a prefix.
    pub target: String,
    /// Whose that is.
    pub group: String,
    /// Name of the server or service, as a panel or the configuration says.
    pub name: String,
    /// The target attacks others.
    pub outbound: bool,
    /// Identifier of the kind of attack.
    pub family: String,
    /// The same for people.
    pub family_title: String,
    /// Its components with their shares.
    pub vectors: String,
    /// 0-100.
    pub confidence: u8,
    /// How grave it is.
    pub severity: Severity,
    /// Highest packets and bits a second.
    pub peak: (f64, f64),
    /// Packets and bits a second now.
    pub rate: (f64, f64),
    /// Packets and bits a second in normal times; 0 when not known.
    pub normal: (f64, f64),
    /// First verdict.
    pub opened: Millis,
    /// End, if over.
    pub closed: Option<Millis>,
    /// What is done about it.
    pub done: String,
    /// Whether that works.
    pub works: String,
    /// What weir asks for.
    pub asks: String,
    /// Main sources. They may be forged.
    pub sources: Vec<String>,
    /// Detector's sentence.
    pub summary: String,
    /// The channels that its group names, and no others; absent: all.
    #[serde(default)]
    pub told: Option<Vec<String>>,
    /// It is no attack, but something else that is wrong, as the summary says.
    #[serde(default)]
    pub condition: bool,
}

impl Brief {
    /// What is known now; `before` is what was known.
    pub fn of(incident: &Incident, inventory: &Inventory, before: Option<&Self>) -> Self {
        let verdict = &incident.verdict;
        let over = incident.state == IncidentState::Closed;
        let normal = match before {
            // What was normal is best seen while the attack goes on.
            Some(before) if verdict.phase != Phase::Ongoing && before.normal.1 > 0.0 => {
                before.normal
            }
            _ => (
                (verdict.rate.packets_per_sec - verdict.excess.packets_per_sec).max(0.0),
                (verdict.rate.bits_per_sec - verdict.excess.bits_per_sec).max(0.0),
            ),
        };
        let vectors = verdict.vectors.iter().take(4).map(|vector| {
            format!("{} {:.0} %", vector.subtype, (vector.share * 100.0).clamp(0.0, 100.0))
        });
        let proposed =
            incident.mitigations.iter().filter(|m| m.state == MitigationState::Proposed).count();
        let asks = match proposed {
            0 => String::new(),
            1 => "1 measure waits for approval".to_owned(),
            many => format!("{many} measures wait for approval"),
        };
        let worst = before.map_or(Severity::Info, |before| before.severity);
        Self {
            target: target(verdict.target),
            group: clean(incident.group.as_deref().unwrap_or_default(), NAME_MAX),
            name: name(incident, inventory),
            outbound: verdict.direction == Direction::Outbound,
            family: verdict.family.id().to_owned(),
            family_title: verdict.family.title().to_owned(),
            vectors: clean(&vectors.collect::<Vec<_>>().join(", "), SENTENCE_MAX),
            confidence: verdict.confidence,
            // What is over stays as grave as it last was.
            severity: if over { worst } else { Severity::of(incident) },
            peak: (verdict.peak.packets_per_sec, verdict.peak.bits_per_sec),
            rate: (verdict.rate.packets_per_sec, verdict.rate.bits_per_sec),
            normal,
            opened: incident.opened,
            closed: incident.closed,
            done: clean(&incident.done().unwrap_or_default(), SENTENCE_MAX),
            works: if over { String::new() } else { works(incident) },
            asks: if over { String::new() } else { asks },
            sources: verdict
                .top_sources
                .iter()
                .take(SOURCES_MAX)
                .map(|source| clean(&source.value, NAME_MAX))
                .collect(),
            summary: clean(&verdict.summary, SENTENCE_MAX),
            told: meant(inventory, verdict.target),
            condition: false,
        }
    }

    /// Something that is wrong and no attack.
    pub(crate) fn of_condition(condition: &Condition, opened: Millis) -> Self {
        let severity = match condition.kind {
            ConditionKind::ExporterSilent | ConditionKind::TrafficVanished => Severity::Error,
            ConditionKind::UplinkFull
            | ConditionKind::TotalExceeded
            | ConditionKind::AllowListWaits => Severity::Warning,
        };
        Self {
            target: Self::subject(&condition.subject),
            family: condition.kind.id().to_owned(),
            family_title: condition.kind.title().to_owned(),
            severity,
            opened,
            confidence: 100,
            summary: clean(&condition.text, SENTENCE_MAX),
            condition: true,
            ..Self::default()
        }
    }

    /// How the subject of a condition is shown.
    pub(crate) fn subject(subject: &str) -> String {
        clean(subject, NAME_MAX)
    }

    /// What people would call news, beside numbers that always move.
    pub(crate) fn news(&self) -> (Severity, &str, &str, bool) {
        (self.severity, &self.done, &self.asks, self.closed.is_some())
    }
}

/// The channels that are told of attacks on a target, where its group, or one above it, names some.
pub fn meant(inventory: &Inventory, target: IpNet) -> Option<Vec<String>> {
    let policies = &inventory.policies;
    let said = policies.values(policies.at(target)?).notify?;
    Some(said.value.to_vec())
}

/// Of what is a group's, the channels that its group names.
pub(crate) fn meant_of(inventory: &Inventory, condition: &Condition) -> Option<Vec<String>> {
    let name = condition.group.as_ref()?;
    let policies = &inventory.policies;
    let at = policies.groups().iter().position(|group| group.name == *name)?;
    Some(policies.values(at).notify?.value.to_vec())
}

fn target(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.network().to_string()
    } else {
        net.to_string()
    }
}

/// The server's name; of several services on the address the one that is attacked, else their number.
fn name(incident: &Incident, inventory: &Inventory) -> String {
    let net = incident.verdict.target;
    if net.prefix_len() != net.max_prefix_len() {
        return String::new();
    }
    let here = || inventory.services.iter().filter(|service| service.address == net.network());
    let ports = incident.verdict.vectors.first().map_or(&[][..], |vector| &vector.dst_ports);
    let attacked = here().find(|service| ports.contains(&service.port));
    let name = match (attacked.or_else(|| here().next()), here().count()) {
        (Some(service), 1) => service.name.clone(),
        (Some(service), _) if attacked.is_some() => service.name.clone(),
        (Some(_), many) => format!("{many} services"),
        (None, _) => String::new(),
    };
    clean(&name, NAME_MAX)
}

/// Share of the target's own customers' traffic that arrives, where that can be told.
fn share_arriving(incident: &Incident) -> Option<f64> {
    let fares = incident.verdict.legitimate.as_ref()?;
    let known = fares.expected_samples >= GOODPUT_SAMPLES_MIN && fares.normal.packets_per_sec > 0.0;
    known.then(|| (fares.now.packets_per_sec / fares.normal.packets_per_sec).clamp(0.0, 1.0))
}

fn works(incident: &Incident) -> String {
    let verdict = &incident.verdict;
    let mut parts = Vec::new();
    if verdict.phase == Phase::Blind {
        parts.push("not known: the exporters are silent".to_owned());
    } else if incident.mitigations.iter().any(weir_model::Mitigation::is_in_force) {
        let peak = verdict.peak.bits_per_sec.max(1.0);
        let left = (verdict.rate.bits_per_sec / peak * 100.0).clamp(0.0, 100.0);
        parts.push(format!("traffic is at {left:.0} % of its peak"));
    }
    if let Some(share) = share_arriving(incident) {
        parts.push(format!("{:.0} % of the customers' own traffic arrives", share * 100.0));
    }
    parts.join("; ")
}

/// One line without anything that moves a cursor or turns the reading direction, and not longer than `max`
/// characters.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut out = String::new();
    for (length, c) in text.chars().filter(|c| !hidden(*c)).enumerate() {
        if length + 1 >= max {
            out.push('…');
            break;
        }
        out.push(if c.is_control() || c.is_whitespace() { ' ' } else { c });
    }
    out.trim().to_owned()
}

/// Bits a second for people.
pub(crate) fn bits(value: f64) -> String {
    scaled(value, "bit/s")
}

/// Packets a second for people.
pub(crate) fn packets(value: f64) -> String {
    scaled(value, "pkt/s")
}

fn scaled(value: f64, unit: &str) -> String {
    let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
    let (value, letter) = match value {
        v if v >= 1e12 => (v / 1e12, "T"),
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    if value < 10.0 && !letter.is_empty() {
        format!("{value:.1} {letter}{unit}")
    } else {
        format!("{value:.0} {letter}{unit}")
    }
}

/// A length of time for people.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Incidents by number, as they are known here.
pub(crate) type Briefs = std::collections::BTreeMap<IncidentId, Brief>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_one_short_line() {
        assert_eq!(clean("a\r\nb\tc", 80), "a  b c");
        assert_eq!(clean("evil\u{202e}txt.exe", 80), "eviltxt.exe");
        assert_eq!(clean(&"x".repeat(10_000), 80).chars().count(), 80);
        assert_eq!(clean("ok", 80), "ok");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(bits(4_210_000_000.0), "4.2 Gbit/s");
        assert_eq!(bits(80e6), "80 Mbit/s");
        assert_eq!((bits(f64::NAN), packets(12.0)), ("0 bit/s".to_owned(), "12 pkt/s".to_owned()));
        assert_eq!((span(59_999), span(61_000)), ("59 s".to_owned(), "1 min 1 s".to_owned()));
        assert_eq!(span(7_380_000), "2 h 3 min");
    }
}
