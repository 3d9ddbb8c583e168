//! Metrics of an operator's own: beside the series of a watched host, one for each metric that it has
//! traffic of, with a baseline of its own. Without such metrics nothing of this is looked at.

use std::net::IpAddr;
use std::sync::Arc;

use weir_model::{
    ClassVolume, Direction, Inventory, IpNet, LongFlow, Metric, MetricSlice, OwnMeasure, OwnMetric,
    Slice, Threshold,
};

use crate::Detector;
use crate::config::Config;
use crate::watch::cell::{Cell, saturate};
use crate::watch::hash::FastMap;
use crate::watch::host::{BaselineView, Warm};
use crate::watch::intake::{Time, add};
use crate::watch::metric::{BITS, OUTBOUND, PACKETS, Significance, is_bits, values};
use crate::watch::rules::Rules;
use crate::watch::series::{Alarm, Kind, Series};
use crate::watch::table::NONE;
use crate::watch::window::SLOTS_PER_SEC;

/// Series of such metrics at most, about 3 KB each.
const SERIES_MAX: usize = 1 << 16;

/// What one metric measures of one host.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// Its number.
    pub(crate) metric: u8,
    pub(crate) series: Series,
}

/// What is kept of all of them.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    /// Since when each is measured, seconds; none before the first slot.
    pub(crate) since: Vec<Option<u64>>,
    /// What counts for the hosts of a group, by metric and place of the group.
    rules: FastMap<(u8, u32), Arc<Rules>>,
    /// Series there are.
    pub(crate) series: usize,
}

impl Owned {
    pub(crate) fn new(inventory: &Inventory) -> Self {
        Self { since: vec![None; inventory.metrics.list().len()], ..Self::default() }
    }
}

/// Indices of what a metric measures in its direction, packets and bits.
const fn indices(way: Direction) -> [usize; 2] {
    match way {
        Direction::Inbound => [PACKETS, BITS],
        Direction::Outbound => [OUTBOUND + PACKETS, OUTBOUND + BITS],
    }
}

/// Metrics that mean a long flow, by number.
fn numbers(bits: u16) -> impl Iterator<Item = u8> {
    (0..16).filter(move |metric| bits >> metric & 1 == 1)
}

/// Whether two definitions count the same packets under the same name.
fn same(a: &OwnMetric, b: &OwnMetric) -> bool {
    a.name == b.name && a.packets == b.packets && a.direction == b.direction
}

fn cell_of(way: Direction, volume: ClassVolume, variance: u64) -> Cell {
    let packets = saturate(volume.packets);
    let mut cell = Cell::default();
    match way {
        Direction::Inbound => {
            cell.packets[weir_model::Class::TcpOther as usize] = packets;
            (cell.bytes, cell.variance) = (volume.bytes, variance);
        }
        Direction::Outbound => (cell.out_packets, cell.out_bytes) = (packets, volume.bytes),
    }
    cell
}

/// Name and unit of what was measured.
pub(crate) fn measure_of(metric: &OwnMetric, index: usize) -> OwnMeasure {
    OwnMeasure {
        name: metric.name.clone(),
        unit: if is_bits(index) { Metric::BitsPerSec } else { Metric::PacketsPerSec },
        packets: metric.packets.clone(),
    }
}

impl Warm {
    /// Keeps its traffic out of what is normal until a second.
    pub(crate) fn suspect(&mut self, until: u64) {
        self.series.suspect(until);
        self.own.iter_mut().for_each(|own| own.series.suspect(until));
    }

    /// Whether one of its own metrics is near a threshold; the rest gives back what it does not need.
    pub(crate) fn tend_own(&mut self, now: u64) -> bool {
        let mut loud = false;
        for Own { series, .. } in &mut self.own {
            if series.worth_a_look() {
                series.window.refine();
                loud = true;
                continue;
            }
            if !series.suspected(now) {
                series.window.coarsen();
            }
            series.window.take_oldest();
        }
        loud
    }

    /// The alarm of that one of its own metrics which is furthest above its threshold.
    pub(crate) fn own_alarm(
        &self,
        config: &Config,
        rule: Significance,
        way: Direction,
        second: u64,
        sampling: f64,
    ) -> Option<Alarm> {
        let mut most: Option<Alarm> = None;
        for Own { metric, series } in &self.own {
            let short = !series.learning(config, second);
            let found = series
                .alarm(rule, way, short, sampling)
                .or_else(|| series.bare_alarm(config, second, rule, way, sampling));
            let Some(found) = found else { continue };
            if most.is_none_or(|most| found.ratio() > most.ratio()) {
                most = Some(Alarm { metric: Metric::Own, own: Some(*metric), ..found });
            }
        }
        most
    }

    /// The series of a metric by its name.
    pub(crate) fn own_of(&self, inventory: &Inventory, name: &str) -> Option<&Series> {
        let at = inventory.metrics.list().iter().position(|metric| metric.name == name)?;
        self.own.iter().find(|own| usize::from(own.metric) == at).map(|own| &own.series)
    }

    /// Its own metrics as an operator sees them.
    pub(crate) fn own_views(
        &self,
        inventory: &Inventory,
        config: &Config,
        second: u64,
    ) -> Vec<BaselineView> {
        let mut views = Vec::new();
        for Own { metric, series } in &self.own {
            let Some(of) = inventory.metrics.list().get(usize::from(*metric)) else { continue };
            let newest = values(&series.window.second(second.saturating_sub(1)));
            for (index, threshold) in
                indices(of.direction).into_iter().zip([of.packets_per_sec, of.bits_per_sec])
            {
                let Some(threshold) = threshold else { continue };
                #[expect(clippy::cast_precision_loss, reason = "for people")]
                let now = newest[index] as f64;
                views.push(BaselineView {
                    own: Some(measure_of(of, index)),
                    now,
                    source: match threshold {
                        Threshold::Fixed(_) => "metric",
                        Threshold::Off => "metric-off",
                        _ => series.source(index, config, second),
                    },
                    ..series.view(index, config, second)
                });
            }
        }
        views
    }
}

impl Detector {
    /// Adds what a slice has of metrics of an operator's own, where it was counted by those in force.
    pub(crate) fn own_metrics(&mut self, slice: &Slice) {
        if slice.metrics_key != self.inventory.metrics.key() {
            return;
        }
        for MetricSlice { host, metric, slot, volume, variance } in &slice.metrics {
            let time = Time::of(*slot, slice.slot);
            self.own_cell(*host, *metric, time, *volume, *variance);
        }
        let newest = slice.slot / SLOTS_PER_SEC;
        for flow in slice.long_flows.iter().filter(|flow| flow.metrics != 0) {
            self.own_long(flow, newest);
        }
    }

    fn own_long(&mut self, flow: &LongFlow, newest: u64) {
        for (second, volume, variance) in flow.by_second() {
            // What is older than the windows need not be written at all.
            if second + 128 >= newest {
                for metric in numbers(flow.metrics) {
                    self.own_cell(
                        flow.host,
                        metric,
                        Time::Second(second.min(newest)),
                        volume,
                        variance,
                    );
                }
            }
        }
    }

    fn own_cell(
        &mut self,
        host: IpAddr,
        metric: u8,
        time: Time,
        volume: ClassVolume,
        variance: u64,
    ) {
        let Some(idle) = self.idle.get(self.table.get(host) as usize) else { return };
        let at = idle.warm;
        let Some(way) =
            self.inventory.metrics.list().get(usize::from(metric)).map(|own| own.direction)
        else {
            return;
        };
        let Some(Some(warm)) = self.warm.get_mut(at as usize) else { return };
        let known = warm.own.iter().position(|own| own.metric == metric);
        let Some(known) = known.or_else(|| self.begin_own(at, metric, None)) else { return };
        if let Some(Some(warm)) = self.warm.get_mut(at as usize)
            && let Some(own) = warm.own.get_mut(known)
        {
            add(&mut own.series, time, &cell_of(way, volume, variance));
        }
    }

    /// Begins to measure a metric of a host that is watched, and says where; none where it is not to be
    /// measured there, or there is no room. `since` is when it was first measured, when that is known.
    pub(crate) fn begin_own(&mut self, at: u32, metric: u8, since: Option<u64>) -> Option<usize> {
        let inventory = Arc::clone(&self.inventory);
        let warm = self.warm.get_mut(at as usize)?.as_deref_mut()?;
        let bit = 1_u16.checked_shl(u32::from(metric))?;
        if warm.not_own & bit != 0 {
            return None;
        }
        let number = usize::from(metric);
        let mut all = inventory.metrics.of(&inventory.policies, warm.target);
        if !all.any(|(at, ..)| at == number) {
            warm.not_own |= bit;
            return None;
        }
        if self.owned.series >= SERIES_MAX {
            self.counters.metrics_refused += 1;
            return None;
        }
        let slot = self.clock.slot();
        // A metric is not measured for longer than it exists, nor a host.
        let measured = self.owned.since.get(number).copied().flatten();
        let measured = measured.unwrap_or(slot / SLOTS_PER_SEC);
        let since = since.unwrap_or_else(|| warm.series.since.max(measured));
        let target = warm.target;
        let rules = self.own_rules(metric, target);
        let mut series = Series::new(Kind::Own, since, slot, &self.config);
        series.heed(rules, &self.config, slot / SLOTS_PER_SEC);
        let warm = self.warm.get_mut(at as usize)?.as_deref_mut()?;
        // In the order of their numbers, so that the order of arrival does not show.
        let place = warm.own.partition_point(|own| own.metric < metric);
        warm.own.insert(place, Own { metric, series });
        self.owned.series += 1;
        Some(place)
    }

    /// What counts for a metric of a host.
    fn own_rules(&mut self, metric: u8, target: IpNet) -> Option<Arc<Rules>> {
        let Self { inventory, config, owned, .. } = self;
        let of = inventory.metrics.list().get(usize::from(metric))?;
        let group = inventory.policies.at(target);
        let place = group.and_then(|at| u32::try_from(at).ok()).unwrap_or(NONE);
        let rules = owned.rules.entry((metric, place)).or_insert_with(|| {
            let values = group.map(|at| inventory.policies.values(at));
            Arc::new(Rules::own(of, values.as_ref(), indices(of.direction), config))
        });
        Some(Arc::clone(rules))
    }

    /// Tells all series of such metrics what counts for them now: settings have changed.
    pub(crate) fn heed_own(&mut self) {
        self.owned.rules.clear();
        let now = self.clock.secs();
        for at in 0..self.warm.len() {
            let Some(warm) = self.warm[at].as_deref() else { continue };
            let target = warm.target;
            for place in 0..warm.own.len() {
                let metric = self.warm[at].as_deref().map_or(0, |warm| warm.own[place].metric);
                let rules = self.own_rules(metric, target);
                if let Some(warm) = self.warm[at].as_deref_mut() {
                    warm.own[place].series.heed(rules, &self.config, now);
                }
            }
        }
    }

    /// Measures other metrics from now on, or of other hosts. What is the same as before keeps what is known
    /// of it.
    pub(crate) fn remeasure(&mut self, before: &Inventory) {
        let inventory = Arc::clone(&self.inventory);
        let regrouped = *before.policies != *inventory.policies;
        let (old, new) = (before.metrics.list(), inventory.metrics.list());
        let changed = before.metrics != inventory.metrics;
        if !changed && (!regrouped || new.is_empty()) {
            return;
        }
        let now = self.since.map(|_| self.clock.secs());
        let number = |own: u8| {
            let was = old.get(usize::from(own))?;
            new.iter().position(|is| same(was, is)).and_then(|at| u8::try_from(at).ok())
        };
        let since = |is: &OwnMetric| {
            let at = old.iter().position(|was| same(was, is))?;
            // Of hosts that are in its groups only now nothing was measured.
            let stays = old[at].groups == is.groups && (is.groups.is_empty() || !regrouped);
            stays.then(|| self.owned.since.get(at).copied().flatten()).flatten()
        };
        self.owned.since = new.iter().map(|is| since(is).or(now)).collect();
        let mut left = 0;
        for warm in self.warm.iter_mut().filter_map(Option::as_deref_mut) {
            warm.not_own = 0;
            if warm.own.is_empty() {
                continue;
            }
            let here = inventory.metrics.of(&inventory.policies, warm.target);
            let here: Vec<usize> = here.map(|(at, ..)| at).collect();
            warm.own.retain_mut(|own| {
                let Some(is) = number(own.metric) else { return false };
                own.metric = is;
                here.contains(&usize::from(is))
            });
            warm.own.sort_by_key(|own| own.metric);
            left += warm.own.len();
        }
        self.owned.series = left;
        self.heed_own();
    }
}
