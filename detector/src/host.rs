//! What is known of a protected host: 64 octets when it is quiet, windows, baselines and a profile
//! when it is not.

use std::net::IpAddr;

use weir_model::{Direction, Metric, Millis};

use crate::baseline::{Baseline, QUARANTINE_MAX, from_log, to_log};
use crate::config::Config;
use crate::evidence::Profile;
use crate::metric::{
    BITS, HOST_METRICS, METRICS, Significance, Test, floors, host_samples, values,
};
use crate::table::NONE;
use crate::window::{Cell, SLOTS_PER_SEC, Window, scan};

/// A protected host, however quiet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Packets lately: halved every 16 seconds.
    pub(crate) packets: u64,
    /// Sum of packets x rate^2, halved likewise.
    pub(crate) variance: u64,
    /// When last halved, in 16-second steps since the epoch.
    step: u32,
    /// Place of its [`Warm`], `NONE` when it has none.
    pub(crate) warm: u32,
    /// When it became known: second since the epoch.
    pub(crate) since: u32,
    /// Whether this slot has touched it already.
    pub(crate) touched: bool,
    pub(crate) address: IpAddr,
}

const _: () = assert!(size_of::<Idle>() <= 64, "a quiet host is one cache line");

impl Idle {
    pub(crate) const fn new(address: IpAddr, since: u32) -> Self {
        Self { packets: 0, variance: 0, step: 0, warm: NONE, since, touched: false, address }
    }

    /// Adds traffic; `step` is of the clock, not of the traffic, so that order does not show.
    pub(crate) fn add(&mut self, packets: u64, variance: u64, step: u32) {
        let halvings = step.saturating_sub(self.step).min(63);
        self.packets = (self.packets >> halvings).saturating_add(packets);
        self.variance = (self.variance >> halvings).saturating_add(variance);
        self.step = self.step.max(step);
    }
}

/// An alarm: one metric above its threshold for certain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Alarm {
    pub(crate) metric: Metric,
    /// Index of the metric of a host.
    pub(crate) index: usize,
    /// A second.
    pub(crate) value: f64,
    pub(crate) baseline: f64,
    pub(crate) threshold: f64,
    pub(crate) window_ms: u64,
    pub(crate) samples: f64,
    pub(crate) sampling: f64,
    pub(crate) service: Option<(u8, u16)>,
    pub(crate) direction: Direction,
}

/// A host worth watching in detail.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    pub(crate) address: IpAddr,
    pub(crate) window: Window<Cell>,
    pub(crate) baselines: [Baseline; METRICS],
    /// Closed seconds in quarantine, by second modulo its length.
    waiting: [[u8; METRICS]; QUARANTINE_MAX],
    /// Outbound packets of those seconds.
    waiting_out: [u8; QUARANTINE_MAX],
    /// Average of outbound packets a second over about five minutes.
    pub(crate) out_mean: f64,
    /// First second not yet closed.
    pub(crate) open_second: u64,
    /// First second not yet out of quarantine.
    entered: u64,
    pub(crate) thresholds: [f64; METRICS],
    pub(crate) profile: Profile,
    /// Second since which it is watched.
    pub(crate) since: u64,
    /// Until this second its traffic is under suspicion and must not become normal.
    pub(crate) suspect_until: u64,
    /// From this second on.
    pub(crate) suspect_from: u64,
    /// When baselines were last recomputed, seconds.
    recomputed: u64,
    /// Last second with traffic.
    pub(crate) last_traffic: u64,
    pub(crate) touched: bool,
}

impl Warm {
    pub(crate) fn new(address: IpAddr, since: u64, slot: u64, config: &Config) -> Self {
        let second = slot / SLOTS_PER_SEC;
        let mut warm = Self {
            address,
            window: Window::new(slot),
            baselines: std::array::from_fn(|_| Baseline::default()),
            waiting: [[0; METRICS]; QUARANTINE_MAX],
            waiting_out: [0; QUARANTINE_MAX],
            out_mean: 0.0,
            open_second: second,
            entered: second,
            thresholds: [f64::INFINITY; METRICS],
            profile: Profile::default(),
            since,
            suspect_until: 0,
            suspect_from: 0,
            recomputed: second,
            last_traffic: second,
            touched: false,
        };
        // It was quiet until now, which is a baseline too.
        let quiet = second.saturating_sub(since).min(300);
        for base in &mut warm.baselines {
            for _ in 0..quiet {
                base.feed(0);
            }
        }
        warm.set_thresholds(config, second);
        warm
    }

    /// Whether so little time has passed that only gross floods can be told.
    pub(crate) const fn learning(&self, config: &Config, second: u64) -> bool {
        second < self.since + config.learn_secs
    }

    /// Marks traffic from `second` on as suspect for a while.
    pub(crate) const fn suspect(&mut self, second: u64, until: u64) {
        if second > self.suspect_until {
            self.suspect_from = second;
        }
        if until > self.suspect_until {
            self.suspect_until = until;
        }
    }

    fn set_thresholds(&mut self, config: &Config, second: u64) {
        let learning = self.learning(config, second);
        let low = floors(if learning { &config.cold_floors } else { &config.floors });
        self.thresholds = std::array::from_fn(|i| low[i].max(config.multiplier * self.level(i)));
    }

    /// Closes seconds up to the watermark, lets those out of quarantine into the baselines, and
    /// recomputes every ten seconds.
    pub(crate) fn roll(&mut self, watermark: u64, now: u64, config: &Config) {
        let len = QUARANTINE_MAX as u64;
        // After a long silence the seconds in between were quiet, and 300 of them say it all.
        let first = watermark.saturating_sub(400);
        self.open_second = self.open_second.max(first);
        self.entered = self.entered.max(first);
        let delay = config.quarantine_secs.min(len - 1);
        while self.open_second < watermark {
            let second = self.open_second;
            let sum = self.window.second(second);
            let mut values = values(&sum);
            // Octets: a byte of logarithm reaches further.
            values[BITS] /= 8;
            self.waiting[index(second)] = values.map(to_log);
            self.waiting_out[index(second)] = to_log(u64::from(sum.out_packets));
            if values[0] > 0 {
                self.last_traffic = second;
            }
            self.open_second += 1;
            while self.entered + delay < self.open_second {
                self.enter();
            }
        }
        if now >= self.recomputed + 10 {
            let elapsed = now - self.recomputed;
            self.recomputed = now;
            self.recompute(elapsed, config);
            self.set_thresholds(config, now);
        }
        let attacked = now <= self.suspect_until;
        self.profile.tick(now / 60, attacked);
    }

    fn enter(&mut self) {
        let second = self.entered;
        self.entered += 1;
        if self.suspect_from <= second && second <= self.suspect_until {
            return;
        }
        let logs = self.waiting[index(second)];
        for (base, log) in self.baselines.iter_mut().zip(logs) {
            base.feed(log);
        }
        let out = from_log(self.waiting_out[index(second)]);
        self.out_mean += (out - self.out_mean) / f64::from(self.baselines[0].len()).max(1.0);
    }

    fn recompute(&mut self, elapsed: u64, config: &Config) {
        // A quarter more every ten minutes at most.
        #[expect(clippy::cast_precision_loss, reason = "seconds between two looks")]
        let growth = 1.25_f64.powf(elapsed as f64 / 600.0);
        let low = floors(&config.floors);
        for (i, base) in self.baselines.iter_mut().enumerate() {
            let unit = if i == BITS { 8.0 } else { 1.0 };
            base.recompute(low[i] / config.multiplier / unit, growth);
        }
    }

    /// Takes up what was known before a restart.
    pub(crate) fn restore(
        &mut self,
        baselines: Vec<Baseline>,
        profile: Profile,
        config: &Config,
        now: u64,
    ) {
        if let Ok(baselines) = baselines.try_into() {
            self.baselines = baselines;
        }
        self.profile = profile;
        self.set_thresholds(config, now);
    }

    /// The baseline of a metric in its own unit.
    pub(crate) fn level(&self, metric: usize) -> f64 {
        self.baselines[metric].level() * if metric == BITS { 8.0 } else { 1.0 }
    }

    /// Average of a metric over the last five minutes, in its own unit.
    pub(crate) fn mean(&self, metric: usize) -> f64 {
        self.baselines[metric].mean() * if metric == BITS { 8.0 } else { 1.0 }
    }

    /// Packets that went back for each one in excess over the last three seconds; `None` when the
    /// way back is not seen at all or nothing is in excess.
    pub(crate) fn response(&self) -> Option<f64> {
        let cell = self.window.seconds(self.window.head() / SLOTS_PER_SEC, 3);
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        let inbound = cell.total() as f64 - 3.0 * self.mean(0);
        let out = f64::from(cell.out_packets);
        if inbound <= 0.0 || (out <= 0.0 && self.out_mean <= 0.0) {
            return None;
        }
        Some(((out - 3.0 * self.out_mean) / inbound).max(0.0))
    }

    /// Whether any metric has been above its share of the threshold in the last three seconds.
    pub(crate) fn loud_now(&self, thresholds: &[f64; METRICS], ratio: f64) -> bool {
        let cell = self.window.seconds(self.window.head() / SLOTS_PER_SEC, 3);
        let second = self.window.last_slots(10);
        let above = |cell: &Cell, secs: f64| {
            values(cell).iter().zip(thresholds).any(|(value, threshold)| {
                #[expect(clippy::cast_precision_loss, reason = "a comparison, not an account")]
                let value = *value as f64;
                value > threshold * ratio * secs
            })
        };
        above(&cell, 3.0) || above(&second, 1.0)
    }

    /// Whether the newest second is near enough to a threshold to be worth a look: where any
    /// window is above, some second in it reaches half of it.
    pub(crate) fn worth_a_look(&self) -> bool {
        let head = self.window.head() / SLOTS_PER_SEC;
        let newest = values(&self.window.second(head));
        #[expect(clippy::cast_precision_loss, reason = "a comparison, not an account")]
        let near =
            |v: &[u64; METRICS]| v.iter().zip(self.thresholds).any(|(v, t)| *v as f64 > t * 0.35);
        near(&newest)
    }

    /// The first metric that is above its threshold for certain, in the order of [`HOST_METRICS`].
    pub(crate) fn alarm(&mut self, rule: Significance, short: bool) -> Option<Alarm> {
        let thresholds = self.thresholds;
        let levels: [f64; METRICS] = std::array::from_fn(|i| self.level(i));
        scan(&mut self.window, short, |cell, test: Test| {
            let values = values(cell);
            (0..METRICS).find_map(|i| {
                #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
                let value = values[i] as f64;
                let samples = host_samples(cell, &values, i);
                rule.above(value, thresholds[i], samples, test).then(|| {
                    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
                    let total = (values[0] as f64).max(1.0);
                    #[expect(clippy::cast_precision_loss, reason = "window lengths are small")]
                    let secs = test.ms as f64 / 1000.0;
                    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
                    let sampling = (cell.variance as f64 / total).max(1.0);
                    Alarm {
                        metric: HOST_METRICS[i],
                        index: i,
                        value: value / secs,
                        baseline: levels[i],
                        threshold: thresholds[i],
                        window_ms: test.ms,
                        samples,
                        sampling,
                        service: None,
                        direction: Direction::Inbound,
                    }
                })
            })
        })
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % QUARANTINE_MAX as u64).unwrap_or(0)
}

/// A baseline as an operator sees it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BaselineView {
    /// What is measured.
    pub metric: Metric,
    /// Packets or bits a second in the newest full second.
    pub now: f64,
    /// Average of the last five minutes.
    pub mean: f64,
    /// 99th percentile of the last five minutes.
    pub p99: f64,
    /// The percentile after its growth was bounded: what the multiplier applies to.
    pub level: f64,
    /// Threshold in force.
    pub threshold: f64,
    /// Where the threshold comes from: `floor`, `cold-start` or `baseline`.
    pub source: &'static str,
    /// Seconds in the window, at most 300.
    pub seconds: u16,
}

/// What is known of one host.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct HostView {
    /// The host.
    pub host: IpAddr,
    /// Whether it is watched in detail; when not, everything below is at rest.
    pub watched: bool,
    /// Watched since.
    pub since: Millis,
    /// Whether it is still too new for baselines of its own.
    pub learning: bool,
    /// Whether its traffic is kept out of the baselines at present.
    pub suspect: bool,
    /// Metrics with baselines and thresholds.
    pub baselines: Vec<BaselineView>,
}

impl Warm {
    pub(crate) fn view(&self, config: &Config, now: Millis) -> HostView {
        let second = now.secs();
        let learning = self.learning(config, second);
        let newest =
            values(&self.window.second((self.window.head() / SLOTS_PER_SEC).saturating_sub(1)));
        let low = floors(if learning { &config.cold_floors } else { &config.floors });
        let view = |i: usize| {
            let base = &self.baselines[i];
            let unit = if i == BITS { 8.0 } else { 1.0 };
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let now = newest[i] as f64;
            BaselineView {
                metric: HOST_METRICS[i],
                now,
                mean: self.mean(i),
                p99: base.p99() * unit,
                level: self.level(i),
                threshold: self.thresholds[i],
                source: if self.thresholds[i] > low[i] {
                    "baseline"
                } else if learning {
                    "cold-start"
                } else {
                    "floor"
                },
                seconds: base.len(),
            }
        };
        HostView {
            host: self.address,
            watched: true,
            since: Millis::from_secs(self.since),
            learning,
            suspect: second <= self.suspect_until,
            baselines: (0..METRICS).map(view).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_host_becomes_known_as_quiet() {
        let config = Config::default();
        let warm = Warm::new("203.0.113.7".parse().unwrap(), 1000, 20_000, &config);
        assert_eq!(warm.baselines[0].len(), 300);
        assert_eq!(warm.thresholds[0], config.floors.packets_per_sec);
        let young = Warm::new("203.0.113.7".parse().unwrap(), 1990, 20_000, &config);
        assert_eq!(young.thresholds[0], config.cold_floors.packets_per_sec);
    }
}
