//! What outlives an incident: victims that are attacked again and again, rules that did harm, and
//! which exporters still show traffic that a router already filters.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_bgp::guard::route;
use weir_model::{Measure, Millis, Mitigation, PeerStanding, Rung, Spared};

use crate::config::{Config, Visibility};
use crate::stance::Word;

/// Victims remembered; the longest at peace give way.
pub const VICTIMS_MAX: usize = 4096;
/// Harmful matches remembered; the ones that lapse first give way.
pub const HARMFUL_MAX: usize = 1024;
/// Exporters of which visibility is remembered.
pub const EXPORTERS_MAX: usize = 4096;
/// Never-touch prefixes of which attacks are counted; those longest at peace give way.
pub const SPARED_MAX: usize = 4096;

/// A target that was defended before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Attacks in a row that came back soon after the last one.
    pub strikes: u32,
    /// When the last measure was withdrawn.
    pub ended: Millis,
    /// Step of the ladder that was needed; the first when absent.
    #[serde(default)]
    pub rung: Option<Rung>,
}

/// What was seen of an exporter after measures of weir's were on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// Times the traffic fell: it looks behind the filter.
    pub fell: u32,
    /// Times filtered traffic stayed in sight: it looks before the filter.
    pub stayed: u32,
}

/// Falls before an exporter is believed to look behind the filter: one may be an attack that ended
/// by itself, and to believe it wrongly takes a rule that works for one that does not.
const FELL_MIN: u32 = 2;

impl Sight {
    const fn class(self) -> Option<Visibility> {
        if self.stayed > self.fell {
            Some(Visibility::BeforeFilter)
        } else if self.fell >= FELL_MIN {
            Some(Visibility::AfterFilter)
        } else {
            None
        }
    }
}

/// What is worth keeping over a restart beside the incidents themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Measures put in force by hand.
    pub manual: Vec<Mitigation>,
    /// Who approved a measure that needs a second person, by the measure's number.
    pub approvals: BTreeMap<u64, String>,
    /// Victims.
    pub victims: Vec<(IpNet, Victim)>,
    /// Routes that did harm, and until when they are not used again.
    pub harmful: Vec<(Measure, Millis)>,
    /// Exporters.
    pub sights: BTreeMap<String, Sight>,
    /// Never-touch prefixes that have kept weir from something.
    pub spared: Vec<Spared>,
    /// What was concluded about BGP peers, where it is anything.
    pub peers: BTreeMap<String, PeerStanding>,
    /// What a person said about the mode.
    pub word: Word,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    victims: BTreeMap<IpNet, Victim>,
    harmful: BTreeMap<Measure, Millis>,
    sights: BTreeMap<String, Sight>,
    /// Export lag by exporter, milliseconds.
    lags: BTreeMap<String, u64>,
    spared: BTreeMap<IpNet, Spared>,
}

impl Memory {
    /// Which attack in a row on this target begins now, and the step that the last one needed.
    pub(crate) fn strikes(
        &self,
        config: &Config,
        target: IpNet,
        now: Millis,
    ) -> (u32, Option<Rung>) {
        match self.victims.get(&target) {
            Some(v) if now.since(v.ended) <= config.repeat_secs.saturating_mul(1000) => {
                (v.strikes.saturating_add(1), v.rung)
            }
            _ => (0, None),
        }
    }

    pub(crate) fn defended(
        &mut self,
        target: IpNet,
        strikes: u32,
        rung: Option<Rung>,
        now: Millis,
    ) {
        let victims = &mut self.victims;
        if victims.len() >= VICTIMS_MAX && !victims.contains_key(&target) {
            let oldest = victims.iter().min_by_key(|(_, v)| v.ended).map(|(net, _)| *net);
            oldest.map(|net| victims.remove(&net));
        }
        victims.insert(target, Victim { strikes, ended: now, rung });
    }

    pub(crate) fn harmed(&mut self, measure: &Measure, until: Millis) {
        let harmful = &mut self.harmful;
        if harmful.len() >= HARMFUL_MAX {
            let first = harmful.iter().min_by_key(|(_, until)| **until).map(|(m, _)| m.clone());
            first.map(|measure| harmful.remove(&measure));
        }
        harmful.insert(route(measure), until);
    }

    pub(crate) fn is_harmful(&self, route: &Measure, now: Millis) -> bool {
        self.harmful.get(route).is_some_and(|until| now < *until)
    }

    /// Forgets what no longer matters, and keeps a clock that was set back from making it matter
    /// longer than it should.
    pub(crate) fn tick(&mut self, config: &Config, now: Millis) {
        let latest = now + config.harmful_secs.saturating_mul(1000);
        self.harmful.retain(|_, until| {
            *until = (*until).min(latest);
            now < *until
        });
        let repeat = config.repeat_secs.saturating_mul(1000);
        self.victims.retain(|_, v| {
            v.ended = v.ended.min(now);
            now.since(v.ended) <= repeat
        });
    }

    /// Whether filtered traffic stays in sight of these exporters; `None` when nobody knows yet.
    /// One that looks before the filter is enough: its traffic is in the sum.
    pub(crate) fn visibility(&self, config: &Config, exporters: &[String]) -> Option<Visibility> {
        let class = |name: &String| {
            let set = config.exporter_visibility.get(name).copied();
            set.or_else(|| self.sights.get(name).and_then(|s| s.class()))
        };
        let classes: Vec<_> = exporters.iter().map(class).collect();
        if classes.contains(&Some(Visibility::BeforeFilter)) {
            Some(Visibility::BeforeFilter)
        } else if !classes.is_empty() && classes.iter().all(Option::is_some) {
            Some(Visibility::AfterFilter)
        } else {
            None
        }
    }

    pub(crate) fn saw(&mut self, exporters: &[String], seen: Visibility) {
        for name in exporters {
            let room = self.sights.len() < EXPORTERS_MAX || self.sights.contains_key(name);
            if !room {
                continue;
            }
            let sight = self.sights.entry(name.clone()).or_default();
            let (up, down) = match seen {
                Visibility::AfterFilter => (&mut sight.fell, &mut sight.stayed),
                Visibility::BeforeFilter => (&mut sight.stayed, &mut sight.fell),
            };
            // Short memories: a router that is set up anew is believed after a few times.
            *up = up.saturating_add(1).min(8);
            *down = down.saturating_sub(1);
        }
    }

    /// What was believed of these exporters led to a step that showed as little as the one before:
    /// they look before the filter.
    pub(crate) fn was_wrong(&mut self, exporters: &[String]) {
        for name in exporters {
            if let Some(sight) = self.sights.get_mut(name) {
                sight.fell = 0;
            }
        }
        self.saw(exporters, Visibility::BeforeFilter);
    }

    pub(crate) fn set_lag(&mut self, exporter: &str, lag_ms: u64) {
        if self.lags.len() < EXPORTERS_MAX || self.lags.contains_key(exporter) {
            self.lags.insert(exporter.to_owned(), lag_ms);
        }
    }

    /// How late the slowest of these exporters is, milliseconds.
    pub(crate) fn lag_ms(&self, exporters: &[String]) -> u64 {
        exporters.iter().filter_map(|name| self.lags.get(name)).copied().max().unwrap_or(0)
    }

    /// An attack hits a never-touch prefix; `newly` when it is seen there for the first time.
    pub(crate) fn spare(&mut self, prefix: IpNet, newly: bool, now: Millis) {
        if self.spared.len() >= SPARED_MAX && !self.spared.contains_key(&prefix) {
            let oldest = self.spared.values().min_by_key(|s| (s.last, s.prefix)).map(|s| s.prefix);
            oldest.map(|prefix| self.spared.remove(&prefix));
        }
        let spared = self.spared.entry(prefix).or_insert(Spared { prefix, attacks: 0, last: now });
        spared.attacks = spared.attacks.saturating_add(u64::from(newly));
        spared.last = now;
    }

    /// What never-touch prefixes have kept weir from, sorted.
    pub(crate) fn spared(&self) -> impl Iterator<Item = &Spared> {
        self.spared.values()
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            victims: self.victims.iter().map(|(net, v)| (*net, *v)).collect(),
            harmful: self.harmful.iter().map(|(m, until)| (m.clone(), *until)).collect(),
            sights: self.sights.clone(),
            spared: self.spared.values().copied().collect(),
            ..Checkpoint::default()
        }
    }

    pub(crate) fn restore(&mut self, checkpoint: &Checkpoint) {
        self.victims = checkpoint.victims.iter().take(VICTIMS_MAX).copied().collect();
        self.harmful = checkpoint.harmful.iter().take(HARMFUL_MAX).cloned().collect();
        let sights = checkpoint.sights.iter().take(EXPORTERS_MAX);
        self.sights = sights.map(|(name, sight)| (name.clone(), *sight)).collect();
        let spared = checkpoint.spared.iter().take(SPARED_MAX);
        self.spared = spared.map(|s| (s.prefix, *s)).collect();
    }
}
