//! Traffic that has vanished: of declared services, and of groups as a whole, where a group says that people are told.
//!
//! It is no attack. What is normal is the average of the last minutes, so that players who leave one by one are no
//! alarm; and it must show in enough samples that chance alone does not hide it.

use std::collections::BTreeMap;

use weir_model::{Absence, IpNet, Least};

use crate::Detector;
use crate::watch::intake::ServiceKey;
use crate::watch::metric::{BITS, PACKETS, values};
use crate::watch::series::Series;
use crate::watch::totals::si;

/// Of what is normal, the share below which traffic counts as vanished where no least is set.
const SHARE: f64 = 0.05;

/// Of what normally carries less nothing is said, bits a second.
const LEARNED_MIN: f64 = 1e6;

/// Seconds over which a rate is told: windows of quiet ones hold few more.
const TOLD_SECS: usize = 10;

/// Samples in that time that what is normal must make.
const SAMPLES_MIN: f64 = 20.0;

/// How long after a start nothing is said, seconds: caches of routers tell late.
const SETTLED_SECS: u64 = 180;

/// How long what is back is still told of as such, seconds: people are told after a minute.
const BACK_SECS: u64 = 120;

/// For how long what is away is kept from becoming normal with each look, seconds.
const UNTIL_SECS: u64 = 60;

/// After how long a level that was learned is forgotten, seconds: what is so for a day is normal.
const RELEARNED_SECS: u64 = 86_400;

/// Services of a group that are told of one by one; further ones are told of together.
const ALONE_MAX: usize = 10;

/// Something whose traffic has vanished.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    since: u64,
    /// What at least should come, bits a second.
    least: f64,
    /// What normally comes, where the least is learned.
    normal: Option<f64>,
    /// What comes now.
    now: f64,
    /// Since when it is back.
    back: Option<u64>,
}

/// The present of something that may have vanished.
struct Present {
    /// Bits a second.
    now: f64,
    /// What at least should come and what normally does, as far as that is known.
    least: Option<(f64, Option<f64>)>,
}

impl Gone {
    /// Whether it is a failure still, which must not become normal: what is so for a day is normal.
    const fn is_failure(&self, second: u64) -> bool {
        self.back.is_none() && second < self.since + RELEARNED_SECS
    }

    fn sentence(&self) -> String {
        let than = match self.normal {
            Some(normal) => format!("5 % of what is normal ({}bit/s)", si(normal)),
            None => format!("least_bits_per_sec ({}bit/s)", si(self.least)),
        };
        format!("inbound {}bit/s, below {than}; no attack by itself", si(self.now))
    }
}

/// Takes one look; whether it has vanished, if that can be said.
fn follow(gone: &mut Option<Gone>, present: &Present, second: u64) -> Option<bool> {
    let Present { now, least } = *present;
    let Some(was) = gone else {
        let (least, normal) = least?;
        if now < least {
            *gone = Some(Gone { since: second, least, normal, now, back: None });
        }
        return Some(now < least);
    };
    was.now = now;
    if now >= 2.0 * was.least {
        let back = *was.back.get_or_insert(second);
        if second >= back + BACK_SECS {
            *gone = None;
        }
        return Some(false);
    }
    if now >= was.least {
        return None;
    }
    was.back = None;
    if was.normal.is_some() && !was.is_failure(second) {
        // Until the level has followed.
        if least.is_none_or(|(least, _)| now >= least) {
            *gone = None;
        }
        return Some(false);
    }
    Some(true)
}

/// A service that has vanished.
#[derive(Debug)]
struct GoneService {
    gone: Option<Gone>,
    told: Option<bool>,
    group: String,
    name: String,
    /// Whether it is told of by itself.
    alone: bool,
}

/// Services that have vanished, and what is needed to find them.
#[derive(Debug, Default)]
pub(crate) struct Vanished {
    /// Whether any group wants to be told of its services.
    pub(crate) wanted: bool,
    /// The second in which weir began to look.
    began: Option<u64>,
    services: BTreeMap<ServiceKey, GoneService>,
}

impl Detector {
    /// What a series carries now, held against what it should.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    fn present(&self, series: &Series, least: Least) -> Present {
        let last = self.watermark.secs().saturating_sub(1);
        let sum = values(&series.window.seconds(last, TOLD_SECS));
        let now = sum[BITS] as f64 / TOLD_SECS as f64;
        let normal = series.baselines[BITS].mean() * 8.0;
        let samples = series.baselines[PACKETS].mean() * TOLD_SECS as f64 / self.sampling.max(1.0);
        let known = !series.learning(&self.config, self.clock.secs());
        let least = match least {
            Least::Off => None,
            Least::Fixed(least) => known.then_some((least, None)),
            Least::Auto => (known && normal >= LEARNED_MIN && samples >= SAMPLES_MIN)
                .then_some((SHARE * normal, Some(normal))),
        };
        Present { now, least }
    }

    /// Whether too little has been seen since the start to say what has vanished.
    pub(crate) fn has_just_begun(&mut self) -> bool {
        let now = self.clock.secs();
        now < *self.vanished.began.get_or_insert(now) + SETTLED_SECS
    }

    /// Looks at services whose seconds have just been closed.
    pub(crate) fn look_for_vanished(&mut self, keys: &[ServiceKey]) {
        if !self.vanished.wanted {
            self.vanished.services.clear();
            return;
        }
        // Of what a silent exporter does not tell nothing can be said either.
        let unclear = self.has_just_begun() || self.liveness.any_fell_silent(self.clock);
        for key in keys {
            let address = self.idle[key.0 as usize].address;
            let policies = &self.inventory.policies;
            let said = policies.at(address.into()).and_then(|at| policies.service_least(at));
            let service = self.inventory.service(address, key.1, key.2);
            let both = said.zip(service).filter(|(said, _)| said.value != Least::Off);
            let Some((said, service)) = both else {
                self.vanished.services.remove(key);
                continue;
            };
            // weir itself may keep it off: rules and black holes have their own words for that.
            let attacked = self.incidents.values().any(|active| active.target.contains(&address));
            if unclear || attacked {
                if let Some(known) = self.vanished.services.get_mut(key) {
                    known.told = None;
                }
                continue;
            }
            let Some(found) = self.services.get(key) else { continue };
            let (present, now) = (self.present(&found.series, said.value), self.clock.secs());
            let (group, name) = (said.by.name.clone(), service.name.clone());
            let all = &mut self.vanished.services;
            let others = all.iter().filter(|(at, of)| *at != key && of.group == group && of.alone);
            let alone = others.count() < ALONE_MAX;
            let known = all.remove(key);
            let (mut gone, alone) = known.map_or((None, alone), |known| (known.gone, known.alone));
            let told = follow(&mut gone, &present, now);
            let Some(away) = &gone else { continue };
            if let Some(found) = self.services.get_mut(key).filter(|_| away.is_failure(now)) {
                // A failure is not normal, and a restart must not take it for that.
                found.series.suspect(now + UNTIL_SECS);
            }
            all.insert(*key, GoneService { gone, told, group, name, alone });
        }
    }

    /// Looks at a total whose second has just been closed; `unclear` when nothing can be said now.
    pub(crate) fn look_at_total(&mut self, at: usize, unclear: bool) {
        let Some(least) = self.totals.list[at].least else {
            self.totals.list[at].vanished = (None, None);
            return;
        };
        if unclear {
            self.totals.list[at].vanished.1 = None;
            return;
        }
        let present = self.present(&self.totals.list[at].series, least);
        let now = self.clock.secs();
        let total = &mut self.totals.list[at];
        let (gone, told) = &mut total.vanished;
        *told = follow(gone, &present, now);
        if gone.as_ref().is_some_and(|gone| gone.is_failure(now)) {
            // A failure is not normal.
            total.series.suspect(now + UNTIL_SECS);
        }
    }

    /// Groups that are watched for it, and services that have vanished.
    pub fn absences(&self) -> Vec<Absence> {
        let text = |gone: &Option<Gone>| gone.as_ref().map_or_else(String::new, Gone::sentence);
        let groups = self.totals.list.iter().filter(|total| total.least.is_some());
        let mut all: Vec<Absence> = groups
            .map(|total| Absence {
                subject: format!("group {}", total.group),
                group: total.group.clone(),
                vanished: total.vanished.1,
                text: text(&total.vanished.0),
            })
            .collect();
        let mut together: BTreeMap<&str, (usize, Option<bool>)> = BTreeMap::new();
        for (key, service) in &self.vanished.services {
            if !service.alone {
                let sum = together.entry(&service.group).or_insert((0, Some(false)));
                sum.0 += usize::from(service.told != Some(false));
                // One that is gone says that some are.
                sum.1 = match (sum.1, service.told) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (None, _) | (_, None) => None,
                    _ => Some(false),
                };
                continue;
            }
            all.push(Absence {
                subject: self.spelled(key, &service.name),
                group: service.group.clone(),
                vanished: service.told,
                text: text(&service.gone),
            });
        }
        all.extend(together.into_iter().map(|(group, (count, vanished))| Absence {
            subject: format!("further services of group {group}"),
            group: group.to_owned(),
            vanished,
            text: format!("next to nothing comes to {count} more of its services"),
        }));
        all
    }

    fn spelled(&self, (place, protocol, port): &ServiceKey, name: &str) -> String {
        let target = IpNet::from(self.idle[*place as usize].address);
        let protocol = match protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => other.to_string(),
        };
        let name = if name.is_empty() { String::new() } else { format!("{name}, ") };
        format!("service {name}{} {protocol} {port}", target.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_away_for_a_day_is_normal_and_what_is_set_is_not() {
        let away = |least| Present { now: 0.0, least };
        let mut gone = None;
        let level = Some((1e6, Some(2e7)));
        assert_eq!(follow(&mut gone, &away(level), 1000), Some(true));
        assert_eq!(follow(&mut gone, &away(level), 1000 + RELEARNED_SECS - 1), Some(true));
        assert!(gone.as_ref().unwrap().is_failure(1000 + RELEARNED_SECS - 1));
        // From here on it is learned, and while the level is what it was nothing begins anew.
        for second in 0..600 {
            assert_eq!(
                follow(&mut gone, &away(level), 1000 + RELEARNED_SECS + second),
                Some(false)
            );
            assert!(!gone.as_ref().unwrap().is_failure(1000 + RELEARNED_SECS + second));
        }
        assert_eq!(follow(&mut gone, &away(None), 1600 + RELEARNED_SECS), Some(false));
        assert!(gone.is_none());

        let set = Some((1e6, None));
        follow(&mut gone, &away(set), 1000);
        assert_eq!(follow(&mut gone, &away(set), 1000 + 2 * RELEARNED_SECS), Some(true));
    }

    #[test]
    fn between_the_limits_it_stays_as_it_was() {
        let mut gone = None;
        let level = Some((1e6, Some(2e7)));
        let at = |now| Present { now, least: level };
        assert_eq!(follow(&mut gone, &at(1.5e6), 10), Some(false));
        follow(&mut gone, &at(0.5e6), 20);
        assert_eq!(follow(&mut gone, &at(1.5e6), 30), None);
        assert_eq!(follow(&mut gone, &at(2.5e6), 40), Some(false));
        assert_eq!(follow(&mut gone, &at(2.5e6), 40 + BACK_SECS), Some(false));
        assert!(gone.is_none());
    }
}
