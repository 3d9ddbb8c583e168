//! Traffic over time of one host, prefix or service port: windows, baselines, thresholds, alarms.

use std::sync::Arc;

use weir_model::{Class, Direction, ExpectedTraffic, Learning, Metric};

use crate::config::Config;
use crate::watch::baseline::{Baseline, QUARANTINE_MAX, to_log};
use crate::watch::calm::{Calm, whole};
use crate::watch::cell::Cell;
use crate::watch::cusum::{self, Cusum};
use crate::watch::foreknown::SURGE;
use crate::watch::metric::{
    BITS, HOST_METRICS, METRICS, OUTBOUND, PACKETS, SOURCES, Significance, Test, direction, floors,
    is_bits, part_samples, samples, values,
};
use crate::watch::rules::Rules;
use crate::watch::season::Season;
use crate::watch::window::{SLOTS_PER_SEC, Window, scan};

/// An alarm: one metric above its threshold for certain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Alarm {
    pub(crate) metric: Metric,
    /// Index of the metric.
    pub(crate) index: usize,
    /// A second.
    pub(crate) value: f64,
    pub(crate) baseline: f64,
    pub(crate) threshold: f64,
    pub(crate) window_ms: u64,
    pub(crate) samples: f64,
    pub(crate) sampling: f64,
    /// Last second of the window.
    pub(crate) last: u64,
    pub(crate) service: Option<(u8, u16)>,
    pub(crate) direction: Direction,
    /// Number of the operator's own metric, when it is one.
    pub(crate) own: Option<u8>,
    /// Only what needs no baseline can follow from it.
    pub(crate) bare: bool,
}

impl Alarm {
    /// First second of the window.
    pub(crate) const fn first(&self) -> u64 {
        (self.last + 1).saturating_sub(self.window_ms.div_ceil(1000))
    }

    /// Value over threshold.
    pub(crate) fn ratio(&self) -> f64 {
        self.value / self.threshold.max(1.0)
    }
}

/// Share of the fortnight's highest that a threshold keeps.
const HIGHEST_SHARE: f64 = 0.8;

/// Share of its thresholds from which a second is worth a look: where any window is above, some second
/// in it reaches half of it.
const NEAR: f64 = 0.35;

/// Times the average from which a ramp is looked at.
const RAMP_MIN: f64 = 1.25;

/// Share of the usual proportion of both ways that makes a conversation, and what it counts as in
/// answers for each packet.
const PROPORTION: f64 = 0.8;
const ANSWERED: f64 = 0.3;

/// Times the least threshold of a port from which a new one is looked at.
const NEW_SERVICE: f64 = 5.0;

/// What a series is of: floors differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Host,
    Prefix,
    Service,
    /// What a metric of an operator's own measures of a host, or the total of a group.
    Own,
}

/// Smallest thresholds.
fn lowest(kind: Kind, learning: bool, config: &Config) -> [f64; METRICS] {
    match kind {
        Kind::Host if learning => floors(&config.cold_floors),
        Kind::Host => floors(&config.floors),
        Kind::Prefix => {
            let cold = if learning { 3.0 } else { 1.0 };
            floors(&config.prefix_floors).map(|f| f * cold)
        }
        Kind::Service => {
            let mut low = [f64::INFINITY; METRICS];
            let gross = if learning { NEW_SERVICE } else { 1.0 };
            low[PACKETS] = config.service_floor_packets_per_sec * gross;
            low[BITS] = config.service_floor_bits_per_sec * gross;
            low
        }
        // It says so itself.
        Kind::Own => [f64::INFINITY; METRICS],
    }
}

/// Of some seconds, what is set aside of each metric.
type Aside = Vec<(u64, [u64; METRICS])>;

/// Traffic over time.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) kind: Kind,
    pub(crate) window: Window,
    pub(crate) baselines: [Baseline; METRICS],
    pub(crate) thresholds: [f64; METRICS],
    /// Closed seconds in quarantine, by second modulo their number.
    pub(crate) waiting: Box<[[u8; METRICS]]>,
    /// First second not yet closed.
    open_second: u64,
    /// First second not yet out of quarantine.
    entered: u64,
    /// When baselines were last recomputed, seconds.
    recomputed: u64,
    /// Last second with traffic.
    pub(crate) last_traffic: u64,
    /// What is normal for hosts of its kind, packets and bits a second, while it is new.
    pub(crate) borrowed: Option<[f64; 2]>,
    /// Packets above the average, added up.
    pub(crate) cusum: Cusum,
    /// Second since which it is watched.
    pub(crate) since: u64,
    /// Second since which it has windows: until then it was quiet. 0 when it is known from before a restart.
    begun: u64,
    /// From this second until the next one its traffic is under suspicion and must not become
    /// normal.
    suspect_from: u64,
    suspect_until: u64,
    /// What was normal in hours and days past, once there is an hour to remember.
    pub(crate) season: Option<Box<Season>>,
    /// Thresholds set by an operator, by index.
    pub(crate) fixed: Vec<(usize, f64)>,
    /// Whether an operator has the baselines stand still.
    pub(crate) frozen: bool,
    /// What its group says, where that is anything.
    pub(crate) rules: Option<Arc<Rules>>,
    /// What incidents explain of the seconds that are not yet out of quarantine.
    aside: Option<Box<Aside>>,
    /// What is known beforehand of its traffic.
    pub(crate) foreknown: Option<ExpectedTraffic>,
    /// Share of its thresholds from which a second is worth a look.
    near: f64,
    /// What a second must exceed for any metric to be that near.
    calm: Calm,
}

impl Series {
    pub(crate) fn new(kind: Kind, since: u64, slot: u64, config: &Config) -> Self {
        let second = slot / SLOTS_PER_SEC;
        let quiet = u16::try_from(second.saturating_sub(since)).unwrap_or(u16::MAX);
        let mut series = Self {
            kind,
            window: Window::new(slot),
            // It was quiet until now, which is a baseline too.
            baselines: std::array::from_fn(|_| Baseline::quiet(quiet)),
            thresholds: [f64::INFINITY; METRICS],
            waiting: vec![[0; METRICS]; quarantine(config) + 1].into_boxed_slice(),
            open_second: second,
            entered: second,
            recomputed: second,
            last_traffic: second,
            borrowed: None,
            cusum: Cusum::default(),
            since,
            begun: second,
            suspect_from: 0,
            suspect_until: 0,
            season: None,
            fixed: Vec::new(),
            frozen: false,
            rules: None,
            aside: None,
            foreknown: None,
            near: NEAR,
            calm: Calm::default(),
        };
        series.set_thresholds(config, second);
        series
    }

    /// Whether so little time has passed that only gross floods can be told.
    pub(crate) const fn learning(&self, config: &Config, second: u64) -> bool {
        second < self.since + config.learn_secs
    }

    /// Marks traffic as suspect until a second: with it what is still in quarantine, for an attack may
    /// have begun before it was found.
    pub(crate) fn suspect(&mut self, until: u64) {
        let from = self.entered;
        if from > self.suspect_until {
            self.suspect_from = from;
        }
        self.suspect_from = self.suspect_from.min(from);
        self.suspect_until = self.suspect_until.max(until);
    }

    /// Whether its traffic is under suspicion.
    pub(crate) const fn suspected(&self, second: u64) -> bool {
        second <= self.suspect_until
    }

    /// Whether its baselines stand still by an operator's or its group's word: the group's waits until
    /// there is something to stand still, also where a host was quiet until now.
    pub(crate) fn still(&self, config: &Config, second: u64) -> bool {
        let frozen = self.rules.as_ref().is_some_and(|rules| rules.learning == Learning::Frozen);
        let known = second >= self.begun + config.learn_secs && !self.learning(config, second);
        self.frozen || frozen && known
    }

    /// Takes what its group says.
    pub(crate) fn heed(&mut self, rules: Option<Arc<Rules>>, config: &Config, second: u64) {
        self.rules = rules;
        self.set_thresholds(config, second);
    }

    /// Smallest thresholds.
    fn lowest(&self, learning: bool, config: &Config) -> [f64; METRICS] {
        match self.rules.as_ref().and_then(|rules| rules.least.as_deref()) {
            Some(least) => least.map(|least| if learning { NEW_SERVICE * least } else { least }),
            None => lowest(self.kind, learning, config),
        }
    }

    /// Thresholds without what groups and operators say of them.
    fn learned(&self, config: &Config, second: u64) -> [f64; METRICS] {
        let learning = self.learning(config, second);
        let mut low = self.lowest(learning, config);
        if let Some(borrowed) = self.borrowed.filter(|_| learning) {
            // Of a new host only gross floods can be told, unless others of its kind are known.
            let known = lowest(self.kind, false, config);
            for (index, level) in [PACKETS, BITS].into_iter().zip(borrowed) {
                low[index] =
                    (config.multiplier * level).clamp(known[index], low[index].max(known[index]));
            }
        }
        let mut thresholds = self.above_normal(low, config, second);
        for index in [PACKETS, BITS] {
            thresholds[index] *= self.lenience();
        }
        thresholds
    }

    pub(crate) fn set_thresholds(&mut self, config: &Config, second: u64) {
        let mut thresholds = self.learned(config, second);
        self.overrule(&mut thresholds, self.learning(config, second));
        self.thresholds = thresholds;
        let strict = self.strict(config, second);
        let ratio = |(t, s): (&f64, f64)| if t.is_finite() { t / s.max(1.0) } else { 1.0 };
        let most =
            strict.map_or(1.0, |s| self.thresholds.iter().zip(s).map(ratio).fold(1.0, f64::max));
        self.near = NEAR / most;
        self.calm = Calm::of(&self.thresholds, self.near);
    }

    /// Puts the words of its group above what is learned, and an operator's above both.
    fn overrule(&self, thresholds: &mut [f64; METRICS], new: bool) {
        if let Some(rules) = &self.rules {
            for (index, threshold) in thresholds.iter_mut().enumerate() {
                *threshold = rules.threshold(self.kind, index, *threshold, new);
            }
        }
        for (index, threshold) in &self.fixed {
            thresholds[*index] = *threshold;
        }
    }

    /// Volume from which a change of shape or a ramp is an alarm: `least`, unless its group says more.
    pub(crate) fn growth(&self, least: f64) -> f64 {
        self.rules.as_ref().map_or(least, |rules| rules.growth(least))
    }

    /// Times its usual volume that are tolerated because a rush was foretold.
    pub(crate) const fn lenience(&self) -> f64 {
        match self.foreknown {
            Some(ExpectedTraffic::Surge) => SURGE,
            _ => 1.0,
        }
    }

    /// Whether nobody is expected to use it.
    const fn silent(&self) -> bool {
        matches!(self.foreknown, Some(ExpectedTraffic::Silence))
    }

    /// Thresholds for what needs no baseline to be told, where those in force tolerate more: while it
    /// is new, and in a rush.
    fn strict(&self, config: &Config, second: u64) -> Option<[f64; METRICS]> {
        let more = self.learning(config, second) || self.lenience() > 1.0;
        more.then(|| {
            let mut strict = self.above_normal(self.lowest(false, config), config, second);
            if self.learning(config, second) {
                // To a host just met everybody is new.
                strict[SOURCES] = f64::INFINITY;
            }
            self.overrule(&mut strict, self.learning(config, second));
            strict
        })
    }

    /// The higher of `low` and what is normal, with room above.
    fn above_normal(&self, low: [f64; METRICS], config: &Config, second: u64) -> [f64; METRICS] {
        if self.silent() {
            return low;
        }
        let mut normal: [f64; METRICS] = std::array::from_fn(|i| self.level(i));
        let mut highest = [0.0; METRICS];
        if let Some(season) = &self.season {
            let (then, most) = (season.normal(second), season.highest());
            for (at, index) in [PACKETS, BITS].into_iter().enumerate() {
                let unit = if is_bits(index) { 8.0 } else { 1.0 };
                normal[index] = normal[index].max(then[at] * unit);
                highest[index] = most[at] * unit;
            }
        }
        std::array::from_fn(|i| {
            low[i].max(config.multiplier * normal[i]).max(HIGHEST_SHARE * highest[i])
        })
    }

    /// Forgets what is normal and learns anew.
    pub(crate) fn reset(&mut self, config: &Config, second: u64) {
        self.baselines = std::array::from_fn(|_| Baseline::default());
        // What is in quarantine is of the time before as well.
        self.entered = self.open_second;
        self.season = None;
        (self.since, self.begun) = (second, second);
        self.set_thresholds(config, second);
    }

    /// Takes up what was normal before a restart.
    pub(crate) fn restore(
        &mut self,
        baselines: Vec<Baseline>,
        season: Option<Box<Season>>,
        config: &Config,
        now: u64,
    ) {
        if let Ok(baselines) = baselines.try_into() {
            self.baselines = baselines;
            self.begun = 0;
        }
        self.season = season.filter(|s| s.is_sound());
        self.set_thresholds(config, now);
    }

    /// Where a threshold comes from.
    pub(crate) fn source(&self, index: usize, config: &Config, second: u64) -> &'static str {
        let learning = self.learning(config, second);
        let learned = self.unruled(config, second);
        let group = || self.rules.as_ref()?.source(index, learned[index], learning);
        if self.fixed.iter().any(|(fixed, _)| *fixed == index) {
            "operator"
        } else if let Some(source) = group() {
            source
        } else if learned[index] > self.lowest(learning, config)[index] {
            "baseline"
        } else if learning && self.borrowed.is_some() {
            "others-of-its-kind"
        } else if learning {
            "cold-start"
        } else {
            "floor"
        }
    }

    /// The threshold that people are shown: where none is in force, what it would be.
    pub(crate) fn shown(&self, index: usize, config: &Config, second: u64) -> f64 {
        match &self.rules {
            Some(rules) if self.thresholds[index].is_infinite() => {
                let learned = self.unruled(config, second)[index];
                rules.shown(index, learned, self.learning(config, second))
            }
            _ => self.thresholds[index],
        }
    }

    /// Thresholds in force but for what its group says.
    fn unruled(&self, config: &Config, second: u64) -> [f64; METRICS] {
        if self.rules.is_some() { self.learned(config, second) } else { self.thresholds }
    }

    /// Whether there is a second to close or a baseline to recompute.
    pub(crate) const fn due(&self, watermark: u64, now: u64) -> bool {
        self.open_second < watermark || now >= self.recomputed + 10
    }

    /// Closes seconds up to the watermark, lets those out of quarantine into the baselines, and
    /// recomputes every ten seconds.
    pub(crate) fn roll(&mut self, watermark: u64, now: u64, config: &Config) {
        // After a long silence the seconds in between were quiet, and 300 of them say it all.
        let first = watermark.saturating_sub(400);
        self.open_second = self.open_second.max(first);
        self.entered = self.entered.max(first);
        let delay = quarantine(config) as u64;
        let (low, still) = (self.low(config), self.still(config, now) || self.silent());
        while self.open_second < watermark {
            let second = self.open_second;
            let values = values(&self.window.second(second));
            if values[PACKETS] > 0 || values[OUTBOUND] > 0 {
                self.last_traffic = second;
            }
            self.close(second, values);
            // While the average is being learned nothing can be added up against it.
            let known = self.kind == Kind::Host && !self.learning(config, second);
            if known && second % cusum::STEP == cusum::STEP - 1 {
                self.add_up(second);
            }
            self.open_second += 1;
            while self.entered + delay < self.open_second {
                self.enter(&low, still);
            }
        }
        if now >= self.recomputed + 10 {
            let elapsed = now - self.recomputed;
            self.recomputed = now;
            self.recompute(elapsed, now, config);
            self.set_thresholds(config, now);
        }
    }

    /// Puts a second in quarantine, without what incidents explain of it.
    fn close(&mut self, second: u64, mut values: [u64; METRICS]) {
        let aside = self.aside.iter().flat_map(|list| list.iter());
        for (_, explained) in aside.filter(|(of, _)| *of == second) {
            for (value, explained) in values.iter_mut().zip(explained) {
                *value = value.saturating_sub(*explained);
            }
        }
        // Octets: a byte of logarithm reaches further.
        values[BITS] /= 8;
        values[OUTBOUND + BITS] /= 8;
        let at = self.index(second);
        self.waiting[at] = values.map(to_log);
    }

    /// Leaves out of a second what an incident explains of it, also where the second is closed already.
    pub(crate) fn set_aside(&mut self, second: u64, explained: &[u64; METRICS]) {
        if second < self.entered || explained.iter().all(|value| *value == 0) {
            return;
        }
        let entered = self.entered;
        let list = self.aside.get_or_insert_default();
        list.retain(|(of, _)| *of >= entered);
        match list.iter_mut().find(|(of, _)| *of == second) {
            Some((_, sum)) => {
                for (sum, more) in sum.iter_mut().zip(explained) {
                    *sum = sum.saturating_add(*more);
                }
            }
            None => list.push((second, *explained)),
        }
        let values = values(&self.window.second(second));
        // What its window has forgotten cannot be told apart any more.
        if second < self.open_second && values[PACKETS] > 0 {
            self.close(second, values);
        }
    }

    /// The value a second of a metric over an alarm's window.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    pub(crate) fn value_of(&self, alarm: &Alarm) -> f64 {
        let slots = usize::try_from(alarm.window_ms / 100).unwrap_or(1).max(1);
        let cell = if slots < 10 {
            self.window.last_slots(slots)
        } else {
            self.window.seconds(alarm.last, slots / 10)
        };
        values(&cell)[alarm.index] as f64 * 1000.0 / alarm.window_ms.max(100) as f64
    }

    /// Ten seconds more for the cumulative sum.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    fn add_up(&mut self, second: u64) {
        let sum = self.window.seconds(second, usize::try_from(cusum::STEP).unwrap_or(1));
        let expected = self.mean(PACKETS) * cusum::STEP as f64;
        self.cusum.step(sum.total() as f64, expected, sum.variance as f64);
    }

    /// An alarm when the packets above the average have added up to more than chance allows; the
    /// sum begins anew.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    pub(crate) fn ramp(&mut self, config: &Config) -> Option<Alarm> {
        let (value, mean) = (self.cusum.value(), self.mean(PACKETS));
        if value <= cusum::LIMIT || mean <= 0.0 {
            return None;
        }
        self.cusum.restart();
        let seconds = usize::try_from(cusum::STEP).unwrap_or(1);
        // The sum is of seconds whose exports are in.
        let last = self.open_second.saturating_sub(1);
        let sum = self.window.seconds(last, seconds);
        let rate = sum.total() as f64 / cusum::STEP as f64;
        let threshold = self
            .growth((mean * RAMP_MIN * self.lenience()).max(config.shape_floor_packets_per_sec));
        (rate > threshold).then(|| Alarm {
            metric: Metric::Cusum,
            index: PACKETS,
            value: rate,
            baseline: mean,
            threshold,
            window_ms: cusum::STEP * 1000,
            samples: part_samples(sum.total(), sum.total(), sum.variance),
            sampling: (sum.variance as f64 / (sum.total() as f64).max(1.0)).max(1.0),
            last,
            service: None,
            direction: Direction::Inbound,
            own: None,
            bare: false,
        })
    }

    /// The most of each metric that moves no threshold, with room to spare.
    fn low(&self, config: &Config) -> [u8; METRICS] {
        let low = self.lowest(false, config);
        std::array::from_fn(|i| {
            let unit = if is_bits(i) { 8.0 } else { 1.0 };
            to_log(whole(low[i] / config.multiplier.max(1.0) / unit / 2.0))
        })
    }

    /// Where a second waits.
    fn index(&self, second: u64) -> usize {
        usize::try_from(second % self.waiting.len() as u64).unwrap_or(0)
    }

    fn enter(&mut self, low: &[u8; METRICS], still: bool) {
        let second = self.entered;
        self.entered += 1;
        if still || (self.suspect_from <= second && second <= self.suspect_until) {
            return;
        }
        let logs = self.waiting[self.index(second)];
        for ((base, log), low) in self.baselines.iter_mut().zip(logs).zip(low) {
            base.feed(log, *low);
        }
    }

    fn recompute(&mut self, elapsed: u64, now: u64, config: &Config) {
        if self.still(config, now) || self.silent() {
            return;
        }
        // A quarter more every ten minutes at most, except for what weeks past have shown.
        #[expect(clippy::cast_precision_loss, reason = "seconds between two looks")]
        let growth = 1.25_f64.powf(elapsed as f64 / 600.0);
        let low = self.lowest(false, config);
        let then = self.season.as_ref().map_or([0.0; 2], |s| s.normal(now));
        for (i, base) in self.baselines.iter_mut().enumerate() {
            let unit = if is_bits(i) { 8.0 } else { 1.0 };
            let known = then.get(i).copied().unwrap_or(0.0);
            base.recompute((low[i] / config.multiplier / unit).max(known), growth);
        }
        if !self.suspected(now) && now >= self.since + 3600 {
            let season = self.season.get_or_insert_with(|| Box::new(Season::new(now)));
            season.note(now, [self.baselines[PACKETS].level(), self.baselines[BITS].level()]);
        }
    }

    /// The baseline of a metric in its own unit.
    pub(crate) fn level(&self, metric: usize) -> f64 {
        self.baselines[metric].level() * if is_bits(metric) { 8.0 } else { 1.0 }
    }

    /// Average of a metric over the last five minutes, in its own unit.
    pub(crate) fn mean(&self, metric: usize) -> f64 {
        self.baselines[metric].mean() * if is_bits(metric) { 8.0 } else { 1.0 }
    }

    /// Packets that went the other way for each one in excess over the `seconds` up to `last`;
    /// `None` when the other way is not seen at all or nothing is in excess. `answering` are the shares of what
    /// goes the other way that answer anybody, now and usually, 0-1.
    pub(crate) fn response(
        &self,
        way: Direction,
        last: u64,
        seconds: u32,
        answering: (f64, f64),
    ) -> Option<f64> {
        let seconds = seconds.max(3);
        let cell = self.window.seconds(last, seconds as usize);
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        let (inbound, outbound) = (cell.total() as f64, f64::from(cell.out_packets));
        let secs = f64::from(seconds);
        let (mean_in, mean_out) = (secs * self.mean(PACKETS), secs * self.mean(OUTBOUND));
        let (this, this_mean, other, other_mean) = match way {
            Direction::Inbound => (inbound, mean_in, outbound, mean_out),
            Direction::Outbound => (outbound, mean_out, inbound, mean_in),
        };
        if this <= this_mean || (other <= 0.0 && other_mean <= 0.0) {
            return None;
        }
        let (now, usually) = answering;
        let excess = ((other * now - other_mean * usually) / (this - this_mean)).max(0.0);
        // A server that sends more because more ask keeps its usual proportion, even where the
        // averages have followed one way further than the other.
        let usual = other * this_mean >= PROPORTION * this * other_mean;
        let talks = way == Direction::Outbound && this_mean > 0.0 && other_mean > 0.0 && usual;
        Some(if talks { excess.max(ANSWERED) } else { excess })
    }

    /// Whether any metric that looks `way` is above `limits` now: in the last second by slots, or
    /// in one of the last `back` seconds.
    pub(crate) fn loud_now(&self, way: Direction, limits: &[f64; METRICS], back: u64) -> bool {
        let newest = self.window.newest();
        above(&self.window.last_slots(10), 1.0, way, limits)
            || (0..=back.min(30))
                .any(|b| above(&self.window.second(newest.saturating_sub(b)), 1.0, way, limits))
    }

    /// Whether a second is above `limits` in any metric that looks `way`, on average with those
    /// just before it when `smooth`; what the router discarded counts.
    pub(crate) fn loud_then(
        &self,
        second: u64,
        way: Direction,
        limits: &[f64; METRICS],
        smooth: bool,
    ) -> bool {
        let (seconds, secs) = if smooth { (10, 10.0) } else { (1, 1.0) };
        let mut cell = self.window.seconds(second, seconds);
        let other = &mut cell.packets[Class::Other as usize];
        *other = other.saturating_add(cell.dropped);
        above(&cell, secs, way, limits)
    }

    /// Whether a second written to since the last look is near enough to a threshold to be worth
    /// one: where any window is above, some second in it reaches half of it.
    pub(crate) fn worth_a_look(&self) -> bool {
        let near = |second: u64| {
            let cell = self.window.second(second);
            if self.calm.holds(&cell) {
                return false;
            }
            let values = values(&cell);
            #[expect(clippy::cast_precision_loss, reason = "a comparison, not an account")]
            let near = |(v, t): (&u64, f64)| *v as f64 > t * self.near;
            values.iter().zip(self.thresholds).any(near)
        };
        (self.window.oldest()..=self.window.newest()).any(near)
    }

    /// The first metric that looks `way` and is above its threshold for certain, in the order of
    /// [`HOST_METRICS`]. `short`: windows below a second count as well.
    pub(crate) fn alarm(
        &self,
        rule: Significance,
        way: Direction,
        short: bool,
        sampling: f64,
    ) -> Option<Alarm> {
        self.alarm_at(&self.thresholds, rule, way, short, sampling)
    }

    /// The same for thresholds that tolerate no more than usual, where those in force do: only what
    /// needs no baseline can follow from it. Whole seconds are soon enough.
    pub(crate) fn bare_alarm(
        &self,
        config: &Config,
        second: u64,
        rule: Significance,
        way: Direction,
        sampling: f64,
    ) -> Option<Alarm> {
        let strict = self.strict(config, second)?;
        let alarm = self.alarm_at(&strict, rule, way, false, sampling)?;
        Some(Alarm { bare: true, ..alarm })
    }

    fn alarm_at(
        &self,
        thresholds: &[f64; METRICS],
        rule: Significance,
        way: Direction,
        short: bool,
        sampling: f64,
    ) -> Option<Alarm> {
        let levels: [f64; METRICS] = std::array::from_fn(|i| self.level(i));
        let range = match way {
            Direction::Inbound => 0..OUTBOUND,
            Direction::Outbound => OUTBOUND..METRICS,
        };
        scan(&self.window, short, |cell, test: Test, last| {
            let values = values(cell);
            range.clone().find_map(|i| {
                #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
                let value = values[i] as f64;
                let samples = samples(cell, &values, i, sampling);
                if !rule.above(value, thresholds[i], samples, test) {
                    return None;
                }
                #[expect(clippy::cast_precision_loss, reason = "window lengths are small")]
                let secs = test.ms as f64 / 1000.0;
                #[expect(clippy::cast_precision_loss, reason = "a statistic")]
                let rate = match cell.total() {
                    0 => sampling,
                    total => cell.variance as f64 / total as f64,
                };
                Some(Alarm {
                    metric: HOST_METRICS[i],
                    index: i,
                    value: value / secs,
                    baseline: levels[i],
                    threshold: thresholds[i],
                    window_ms: test.ms,
                    samples,
                    sampling: rate.max(1.0),
                    last,
                    service: None,
                    direction: way,
                    own: None,
                    bare: false,
                })
            })
        })
    }
}

/// Whether a sum over `secs` is above `limits` in any metric that looks `way`.
fn above(cell: &Cell, secs: f64, way: Direction, limits: &[f64; METRICS]) -> bool {
    values(cell).iter().zip(limits).enumerate().any(|(i, (value, limit))| {
        #[expect(clippy::cast_precision_loss, reason = "a comparison, not an account")]
        let value = *value as f64;
        direction(i) == way && value > limit * secs
    })
}

/// Seconds that wait before they may enter a baseline.
fn quarantine(config: &Config) -> usize {
    usize::try_from(config.quarantine_secs).unwrap_or(QUARANTINE_MAX).min(QUARANTINE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::cell::saturate;

    #[test]
    fn an_operator_has_the_last_word() {
        let config = Config::default();
        let mut series = Series::new(Kind::Host, 1000, 20_000, &config);
        series.fixed.push((PACKETS, 1234.0));
        series.frozen = true;
        series.set_thresholds(&config, 2000);
        assert_eq!(series.thresholds[PACKETS], 1234.0);
        assert_eq!(series.source(PACKETS, &config, 2000), "operator");
        series.window.add(20_010, &Cell { bytes: 1 << 40, ..Cell::default() });
        series.roll(2100, 2100, &config);
        assert_eq!(series.level(BITS), 0.0);
        series.reset(&config, 2100);
        assert!(series.learning(&config, 2200));
    }

    #[test]
    fn what_is_calm_is_near_no_threshold() {
        let config = Config::default();
        let series = Series::new(Kind::Host, 1000, 20_000, &config);
        let near = |cell: &Cell| {
            let mut series = series.clone();
            series.window.add(20_010, cell);
            series.worth_a_look()
        };
        for (index, metric) in HOST_METRICS.into_iter().enumerate() {
            let unit = if is_bits(index) { 8.0 } else { 1.0 };
            let much = whole(series.thresholds[index] * NEAR / unit) + 2;
            let mut cell = Cell::default();
            match index {
                BITS => cell.bytes = much,
                SOURCES => cell.new_sources = saturate(much),
                at if at == OUTBOUND + BITS => cell.out_bytes = much,
                at if at == METRICS - 1 => cell.out_syn = saturate(much),
                at if at >= OUTBOUND => cell.out_packets = saturate(much),
                _ => {
                    let class = match metric {
                        Metric::SynsPerSec => Class::TcpSyn,
                        Metric::IcmpPerSec => Class::Icmp,
                        Metric::FragmentsPerSec => Class::Fragment,
                        Metric::UdpOffServicePerSec => Class::Udp,
                        Metric::Signature if index == 6 => Class::TcpRst,
                        Metric::Signature => Class::Other,
                        _ => Class::TcpOther,
                    };
                    cell.packets[class as usize] = saturate(much);
                }
            }
            assert!(near(&cell), "{index}");
            assert!(!series.calm.holds(&cell), "{index}");
        }
        assert!(!near(&Cell { packets: [10; Class::COUNT], ..Cell::default() }));
    }

    #[test]
    fn a_quiet_host_becomes_known_as_quiet() {
        let config = Config::default();
        let known = Series::new(Kind::Host, 1000, 20_000, &config);
        assert_eq!(known.baselines[0].len(), 300);
        assert_eq!(known.thresholds[0], config.floors.packets_per_sec);
        let young = Series::new(Kind::Host, 1990, 20_000, &config);
        assert_eq!(young.thresholds[0], config.cold_floors.packets_per_sec);
    }
}
