//! Totals of groups: what all hosts of a group carry together, those of the groups below it included.
//!
//! As with wider prefixes, traffic of the present is gathered a slot at a time and handed up, so that a record costs
//! the same however deep the tree is. A total is no attack: no rule follows from it, and it opens no incident; but
//! what incidents explain of it never becomes its normal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weir_model::{
    Direction, GroupTotal, IpNet, Least, Metric, Policies, PolicyGroup, TOTALS, Threshold,
    TotalMeasure, Totalled,
};

use crate::Detector;
use crate::watch::cell::Cell;
use crate::watch::hash::mix;
use crate::watch::intake::{SWEEP, Time, add};
use crate::watch::metric::{BITS, METRICS, OUTBOUND, PACKETS, is_bits, values};
use crate::watch::rules::Rules;
use crate::watch::series::{Alarm, Kind, Series};
use crate::watch::table::{NONE, carpet};
use crate::watch::vanished::Gone;
use crate::watch::window::SLOTS_PER_SEC;

/// Of a prefix whose hosts are of several totals: each is looked up by itself.
pub(crate) const MIXED: u32 = NONE - 1;

/// How long a total keeps its normal while it is above its threshold, seconds: what is so for a day is normal.
const RELEARNED_SECS: u64 = 86_400;

/// Seconds over which what a total carries is told.
const TOLD_SECS: usize = 10;

/// Indices of metrics in the order of [`TOTALS`].
const INDICES: [usize; TOTALS.len()] = [PACKETS, BITS, OUTBOUND + PACKETS, OUTBOUND + BITS];

/// The total of one group.
#[derive(Debug)]
pub(crate) struct Total {
    pub(crate) group: String,
    /// Which prefixes it is of, as a hash.
    pub(crate) extent: u64,
    /// Place of the next above it, [`NONE`] of the highest.
    up: u32,
    pub(crate) series: Series,
    thresholds: [Option<Threshold>; TOTALS.len()],
    /// What has been gathered, and of which slot.
    slot: u64,
    cell: Cell,
    /// Above a threshold: since when, and the alarm as it was last seen.
    above: Option<(u64, Alarm)>,
    /// As it was told last.
    told: Option<bool>,
    /// Open incidents of its hosts.
    incidents: usize,
    /// What at least should come to it, where people are told when it does not.
    pub(crate) least: Option<Least>,
    /// Its traffic as it vanished, and whether it has, if that can be said.
    pub(crate) vanished: (Option<Gone>, Option<bool>),
}

/// What open incidents explain of a total.
#[derive(Clone, Copy, Debug, Default)]
struct Explained {
    incidents: usize,
    /// A second.
    values: [f64; METRICS],
}

/// The totals of all groups that have one.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Those above others first.
    pub(crate) list: Vec<Total>,
    /// Of each group the nearest total, its own or one above it.
    of: Vec<u32>,
    /// Whether they are as groups say: not before the first second.
    current: bool,
    /// Second in which they were last looked at.
    looked: u64,
}

impl Totals {
    /// The nearest total of the group that a target belongs to.
    fn at(&self, policies: &Policies, target: IpNet) -> u32 {
        let group = policies.at(target);
        group.and_then(|group| self.of.get(group)).copied().unwrap_or(NONE)
    }

    /// The nearest total of all hosts of a prefix, if it is the same of all.
    fn of_prefix(&self, policies: &Policies, net: IpNet) -> u32 {
        let at = self.at(policies, net);
        let differs = |group: usize| self.of.get(group).copied().unwrap_or(NONE) != at;
        if policies.inside(net).any(differs) { MIXED } else { at }
    }

    /// Places of a total and those above it.
    fn up(&self, at: u32) -> impl Iterator<Item = usize> {
        let total =
            |at: u32| (at != NONE && (at as usize) < self.list.len()).then_some(at as usize);
        std::iter::successors(total(at), move |at| total(self.list[*at].up))
    }
}

fn hash_of(prefixes: &[IpNet]) -> u64 {
    prefixes.iter().fold(0, |hash, net| {
        let address = match net.addr() {
            IpAddr::V4(address) => u128::from(u32::from(address)) | 1 << 64,
            IpAddr::V6(address) => u128::from(address),
        };
        #[expect(clippy::cast_possible_truncation, reason = "two halves")]
        let halves = [(address >> 64) as u64, address as u64, u64::from(net.prefix_len())];
        halves.into_iter().fold(hash, mix)
    })
}

impl Detector {
    /// Makes the totals that groups say, from the first second on. One of the same group with the same prefixes
    /// keeps what is known of it.
    pub(crate) fn retotal(&mut self, second: u64) {
        self.flush_totals();
        let policies = Arc::clone(&self.inventory.policies);
        let all = policies.totals();
        let mut known: BTreeMap<(String, u64), Total> = std::mem::take(&mut self.totals.list)
            .into_iter()
            .map(|total| ((total.group.clone(), total.extent), total))
            .collect();
        // Silent until now is known of what weir has watched for as long as it runs.
        let since = if self.totals.current { second } else { self.since.unwrap_or(second) };
        let made = |Totalled { group, above, prefixes }: &Totalled| {
            let name = policies.groups()[*group].name.clone();
            let extent = hash_of(prefixes);
            let said = policies.total(*group).unwrap_or_default();
            let rules = Rules::total(said, policies.values(*group).learning, INDICES, &self.config);
            let mut total = known.remove(&(name.clone(), extent)).unwrap_or_else(|| {
                let slot = second * SLOTS_PER_SEC;
                Total {
                    group: name,
                    extent,
                    up: NONE,
                    series: Series::new(Kind::Own, since, slot, &self.config),
                    thresholds: [None; TOTALS.len()],
                    slot: 0,
                    cell: Cell::default(),
                    above: None,
                    told: None,
                    incidents: 0,
                    least: None,
                    vanished: (None, None),
                }
            });
            total.least = policies.total_least(*group);
            total.up = above.and_then(|at| u32::try_from(at).ok()).unwrap_or(NONE);
            total.thresholds = said.map(|said| said.map(|said| said.value));
            total.series.heed(Some(Arc::new(rules)), &self.config, second);
            total
        };
        self.totals.list = all.iter().map(made).collect();
        let place = |group: usize| all.iter().position(|total| total.group == group);
        let of = |group: usize| {
            policies.path(group).find_map(place).and_then(|at| u32::try_from(at).ok())
        };
        self.totals.of = match all.len() {
            0 => Vec::new(),
            _ => (0..policies.groups().len()).map(|group| of(group).unwrap_or(NONE)).collect(),
        };
        self.totals.current = true;
        let says = |group: &PolicyGroup| group.service_least_bits_per_sec.is_some();
        self.vanished.wanted = policies.groups().iter().any(says);
        for at in 0..self.warm.len() {
            if let Some(warm) =
                self.warm[at].as_deref_mut().filter(|warm| warm.series.kind == Kind::Prefix)
            {
                warm.total = self.totals.of_prefix(&policies, warm.target);
            }
        }
    }

    /// The nearest total of a prefix that is watched from now on.
    pub(crate) fn total_of_prefix(&self, net: IpNet) -> u32 {
        if self.totals.list.is_empty() || carpet(net.addr()) != net {
            return NONE;
        }
        self.totals.of_prefix(&self.inventory.policies, net)
    }

    /// Makes totals where there are none yet.
    pub(crate) fn begin_totals(&mut self, second: u64) {
        if !self.totals.current {
            self.retotal(second);
        }
    }

    /// Adds traffic of a host, whose prefix has this place, to the totals it is part of.
    #[inline]
    pub(crate) fn add_total(&mut self, host: IpAddr, prefix: u32, time: Time, cell: &Cell) {
        if self.totals.list.is_empty() {
            return;
        }
        let known =
            self.warm.get(prefix as usize).and_then(Option::as_deref).map(|warm| warm.total);
        let at = match known {
            Some(at) if at != MIXED => at,
            _ => self.totals.at(&self.inventory.policies, host.into()),
        };
        self.gather(at, time, cell);
    }

    fn gather(&mut self, at: u32, time: Time, cell: &Cell) {
        let Time::Slot(slot) = time else {
            let places: Vec<usize> = self.totals.up(at).collect();
            for place in places {
                add(&mut self.totals.list[place].series, time, cell);
            }
            return;
        };
        let Some(total) = self.totals.list.get_mut(at as usize) else { return };
        if total.slot == slot {
            total.cell.add(cell);
            return;
        }
        let (before, sum) = (total.slot, std::mem::replace(&mut total.cell, *cell));
        total.slot = slot;
        self.hand_up_total(at, before, &sum);
    }

    fn hand_up_total(&mut self, at: u32, slot: u64, sum: &Cell) {
        let Some(total) = self.totals.list.get_mut(at as usize) else { return };
        if *sum == Cell::default() {
            return;
        }
        add(&mut total.series, Time::Slot(slot), sum);
        let up = total.up;
        self.gather(up, Time::Slot(slot), sum);
    }

    /// Hands on all that was gathered: at the end of a slice.
    pub(crate) fn flush_totals(&mut self) {
        // Those above others stand before them.
        for at in (0..self.totals.list.len()).rev() {
            let Total { slot, cell, .. } = &mut self.totals.list[at];
            let (slot, sum) = (*slot, std::mem::take(cell));
            self.hand_up_total(u32::try_from(at).unwrap_or(NONE), slot, &sum);
        }
    }

    /// Sets aside what an incident explains of the totals that its target is part of; where a target is of
    /// several, each keeps its normal.
    pub(crate) fn set_aside_of_totals(
        &mut self,
        target: IpNet,
        explained: &[(u64, [u64; METRICS])],
    ) {
        if self.totals.list.is_empty() {
            return;
        }
        let policies = &self.inventory.policies;
        let places: Vec<usize> = self.totals.up(self.totals.at(policies, target)).collect();
        let inside: Vec<u32> =
            policies.inside(target).filter_map(|at| self.totals.of.get(at).copied()).collect();
        for at in &places {
            for (second, values) in explained {
                self.totals.list[*at].series.set_aside(*second, values);
            }
        }
        let until = self.clock.secs() + 60;
        for at in inside {
            if let Some(total) =
                self.totals.list.get_mut(at as usize).filter(|_| !places.contains(&(at as usize)))
            {
                total.series.suspect(until);
            }
        }
    }

    /// Closes the seconds of totals and, once a second, looks whether one is above its threshold.
    pub(crate) fn tend_totals(&mut self) {
        let (watermark, now) = (self.watermark.secs(), self.clock.secs());
        self.begin_totals(now);
        if self.totals.list.is_empty() || now == self.totals.looked {
            return;
        }
        self.totals.looked = now;
        let blind = self.liveness.any_fell_silent(self.clock);
        let unclear = blind || self.has_just_begun();
        let counts = self.incidents_of_totals();
        for (at, incidents) in counts.into_iter().enumerate() {
            let total = &mut self.totals.list[at];
            total.incidents = incidents.incidents;
            if blind {
                // What a silent exporter does not tell is not normal.
                total.series.suspect(now + SWEEP as u64 / 10 + 1);
            }
            total.series.roll(watermark, now, &self.config);
            self.look_at_total(at, unclear);
            let alarm = self.total_alarm(at, &incidents);
            let total = &mut self.totals.list[at];
            total.series.window.take_oldest();
            let calm = is_calm(&total.series, watermark, self.config.end_ratio);
            total.told = match alarm {
                Some(alarm) => {
                    let since = total.above.map_or(now, |(since, _)| since);
                    total.above = Some((since, alarm));
                    Some(true)
                }
                None if blind => None,
                None if calm => Some(false),
                None => None,
            };
            match total.above {
                Some(_) if total.told == Some(false) => total.above = None,
                Some((since, _)) if now < since + RELEARNED_SECS => total.series.suspect(now + 60),
                _ => {}
            }
        }
    }

    /// Of each total the open incidents of its hosts and prefixes, without those within others.
    fn incidents_of_totals(&self) -> Vec<Explained> {
        let mut all = vec![Explained::default(); self.totals.list.len()];
        let mut targets: Vec<IpNet> = self.incidents.values().map(|active| active.target).collect();
        targets.sort_by_key(|net| (net.prefix_len(), *net));
        targets.dedup();
        let mut kept = BTreeSet::new();
        for target in targets {
            let wider = |len: u8| {
                IpNet::new(target.addr(), len).is_ok_and(|net| kept.contains(&net.trunc()))
            };
            if (0..target.prefix_len()).any(wider) {
                continue;
            }
            kept.insert(target);
            let places: Vec<usize> =
                self.totals.up(self.totals.at(&self.inventory.policies, target)).collect();
            if places.is_empty() {
                continue;
            }
            let most = self.explained_lately(target);
            for place in places {
                all[place].incidents += 1;
                for (sum, more) in all[place].values.iter_mut().zip(most) {
                    *sum += more;
                }
            }
        }
        all
    }

    /// The most that an incident explains of a second of the last ten.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    fn explained_lately(&self, target: IpNet) -> [f64; METRICS] {
        let now = self.clock.secs();
        let mut most = [0_u64; METRICS];
        for second in now.saturating_sub(TOLD_SECS as u64)..=now {
            for (most, value) in most.iter_mut().zip(self.explained_in(target, second)) {
                *most = value.max(*most);
            }
        }
        most.map(|value| value as f64)
    }

    /// The alarm of a total that is furthest above its threshold. Above one that was learned it is not when incidents
    /// explain it: of those people are told.
    fn total_alarm(&self, at: usize, explained: &Explained) -> Option<Alarm> {
        let total = &self.totals.list[at];
        if !total.series.worth_a_look() {
            return None;
        }
        let mut most: Option<Alarm> = None;
        for way in [Direction::Inbound, Direction::Outbound] {
            let Some(found) = total.series.alarm(self.rule, way, false, self.sampling) else {
                continue;
            };
            let place = INDICES.iter().position(|index| *index == found.index);
            let set =
                place.is_some_and(|at| matches!(total.thresholds[at], Some(Threshold::Fixed(_))));
            if !set && found.value - explained.values[found.index] < found.threshold {
                continue;
            }
            if most.is_none_or(|most| found.ratio() > most.ratio()) {
                most = Some(found);
            }
        }
        most
    }

    /// Totals of groups, as they were last looked at.
    pub fn totals(&self) -> Vec<GroupTotal> {
        let second = self.clock.secs();
        let told = |total: &Total| {
            let series = &total.series;
            let measured = TOTALS.into_iter().zip(INDICES).zip(total.thresholds);
            let measures = measured.filter_map(|(((direction, _), index), threshold)| {
                let threshold = threshold?;
                let limit = series.thresholds[index];
                Some(TotalMeasure {
                    direction,
                    metric: metric_of(index),
                    now: rate(series, self.watermark.secs(), index),
                    level: series.level(index),
                    threshold: limit.is_finite().then_some(limit),
                    source: match threshold {
                        Threshold::Off => "group-off",
                        _ => series.source(index, &self.config, second),
                    }
                    .to_owned(),
                })
            });
            GroupTotal {
                group: total.group.clone(),
                learning: series.learning(&self.config, second),
                measures: measures.collect(),
                above: total.told,
                text: total
                    .above
                    .map_or_else(String::new, |(_, alarm)| sentence(&alarm, total.incidents)),
            }
        };
        self.totals.list.iter().map(told).collect()
    }
}

const fn metric_of(index: usize) -> Metric {
    if is_bits(index) { Metric::BitsPerSec } else { Metric::PacketsPerSec }
}

/// What a series carried in the last seconds that are closed, a second.
#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
fn rate(series: &Series, watermark: u64, index: usize) -> f64 {
    let sum = values(&series.window.seconds(watermark.saturating_sub(1), TOLD_SECS));
    sum[index] as f64 / TOLD_SECS as f64
}

/// Whether what is watched is well below its thresholds.
fn is_calm(series: &Series, watermark: u64, share: f64) -> bool {
    INDICES.iter().all(|index| rate(series, watermark, *index) < share * series.thresholds[*index])
}

fn sentence(alarm: &Alarm, incidents: usize) -> String {
    let unit = if is_bits(alarm.index) { "bit/s" } else { "pkt/s" };
    let way = match alarm.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    let known = match incidents {
        0 => "no incident of its hosts is open".to_owned(),
        1 => "one incident of its hosts is open".to_owned(),
        n => format!("{n} incidents of its hosts are open"),
    };
    format!(
        "{way} {}{unit} in total, threshold {}{unit}, normally {}{unit}; {known}; an alert only: rules are derived for \
         hosts and prefixes, not for a total",
        si(alarm.value),
        si(alarm.threshold),
        si(alarm.baseline)
    )
}

/// A number with its prefix, for a unit to follow.
pub(crate) fn si(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1} G", v / 1e9),
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e3 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.0} "),
    }
}
