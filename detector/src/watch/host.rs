//! What is known of a protected host: 64 octets when it is quiet; series and profiles when not. A
//! prefix in which carpet attacks are looked for is kept the same way.

use std::net::IpAddr;

use weir_model::{Direction, Inventory, IpNet, Metric, Millis, OwnMeasure};

use crate::config::Config;
use crate::watch::baseline::Baseline;
use crate::watch::cell::Cell;
use crate::watch::expected::Expected;
use crate::watch::familiar::Familiar;
use crate::watch::metric::{
    BITS, HOST_METRICS, METRICS, OUTBOUND, PACKETS, direction, is_bits, values,
};
use crate::watch::own::Own;
use crate::watch::packets::{Packet, Profile};
use crate::watch::season::Season;
use crate::watch::series::{Kind, Series};
use crate::watch::table::NONE;
use crate::watch::window::SLOTS_PER_SEC;

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
    /// Place of its prefix's [`Warm`], `NONE` when there was no room.
    pub(crate) prefix: u32,
    /// When it was first seen: second since the epoch.
    pub(crate) since: u32,
    pub(crate) address: IpAddr,
}

const _: () = assert!(size_of::<Idle>() <= 64, "a quiet host is one cache line");

impl Idle {
    pub(crate) const fn new(address: IpAddr, since: u32, prefix: u32) -> Self {
        Self { packets: 0, variance: 0, step: 0, warm: NONE, prefix, since, address }
    }

    /// When it last had traffic, in 16-second steps since the epoch.
    pub(crate) const fn step(&self) -> u32 {
        self.step
    }

    /// Adds traffic; `step` is of the clock, not of the traffic, so that order does not show.
    pub(crate) fn add(&mut self, packets: u64, variance: u64, step: u32) {
        let halvings = step.saturating_sub(self.step).min(63);
        self.packets = (self.packets >> halvings).saturating_add(packets);
        self.variance = (self.variance >> halvings).saturating_add(variance);
        self.step = self.step.max(step);
    }
}

/// A host or prefix worth watching in detail.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    pub(crate) target: IpNet,
    pub(crate) series: Series,
    /// What comes in.
    pub(crate) profile: Profile,
    /// What goes out.
    pub(crate) sent: Profile,
    /// What its long flows are expected to carry, where it has any.
    pub(crate) expected: Option<Box<Expected>>,
    /// Whom it has met lately, where packets are kept of it.
    pub(crate) familiar: Option<Box<Familiar>>,
    pub(crate) touched: bool,
    /// Whether packets are kept of what is normal for it.
    pub(crate) detailed: bool,
    /// Second in which its shape was last compared.
    pub(crate) compared: u64,
    /// Seconds up to this one belong to an incident that is over, or were told of by what had waited for its
    /// template: late exports of them are no news.
    pub(crate) told: u64,
    /// No alarm is judged before this instant.
    pub(crate) look_after: Millis,
    /// Since when, and when last, it was too early to tell: nothing was known of it yet.
    pub(crate) unsettled: Option<(Millis, Millis)>,
    /// Of a /24 or /48, its place among the wider prefixes.
    pub(crate) wide: u32,
    /// When it was first seen, seconds since the epoch: later than it is watched if it was silent until then.
    pub(crate) met: u64,
    /// Of a /24 or /48, the total that all its hosts are part of.
    pub(crate) total: u32,
    /// Of a prefix: until this second its hosts' traffic is part of an attack on it.
    pub(crate) carpet_until: u64,
    /// Exporters that carry its traffic, as far as was last seen.
    pub(crate) carriers: Vec<u16>,
    /// What metrics of an operator's own measure of it, by their numbers.
    pub(crate) own: Vec<Own>,
    /// Numbers of those that are not measured of it, as bits, as far as was asked.
    pub(crate) not_own: u16,
}

impl Warm {
    pub(crate) fn new(target: IpNet, kind: Kind, since: u64, slot: u64, config: &Config) -> Self {
        Self {
            target,
            series: Series::new(kind, since, slot, config),
            profile: Profile::default(),
            sent: Profile::default(),
            expected: None,
            familiar: None,
            touched: false,
            detailed: false,
            compared: 0,
            told: 0,
            look_after: Millis(0),
            unsettled: None,
            wide: NONE,
            met: since,
            total: NONE,
            carpet_until: 0,
            carriers: Vec::new(),
            own: Vec::new(),
            not_own: 0,
        }
    }

    /// Closes seconds and moves the profiles on.
    pub(crate) fn roll(&mut self, watermark: u64, now: u64, config: &Config) {
        self.series.roll(watermark, now, config);
        self.own.iter_mut().for_each(|own| own.series.roll(watermark, now, config));
        let suspected = self.series.suspected(now);
        // The present lasts until exports of it are in.
        let horizon = (now.saturating_sub(watermark) + 3) * SLOTS_PER_SEC;
        self.profile.set_horizon(horizon);
        self.sent.set_horizon(horizon);
        self.profile.tick(now / 60, suspected);
        self.sent.tick(now / 60, suspected);
    }

    /// Notes which exporters carry its traffic, while there is any.
    pub(crate) fn carried_by(&mut self, carriers: Vec<u16>) {
        if !carriers.is_empty() {
            self.carriers = carriers;
            self.carriers.shrink_to_fit();
        }
    }

    /// Gives back memory that is not needed while nothing happens.
    pub(crate) fn rest(&mut self, slot: u64, now: u64) {
        self.profile.rest(slot);
        self.sent.rest(slot);
        if !self.series.suspected(now) && !self.series.worth_a_look() {
            self.series.window.coarsen();
        }
    }

    /// The profile of one way.
    pub(crate) const fn profile_of(&mut self, way: Direction) -> &mut Profile {
        match way {
            Direction::Inbound => &mut self.profile,
            Direction::Outbound => &mut self.sent,
        }
    }

    /// Counts the source of what comes in if it is new to a host of which packets are kept. It counts for
    /// the newest second, so that neither the order of packets nor that of shards shows.
    pub(crate) fn meet(&mut self, packet: &Packet) {
        let inbound = packet.direction == Direction::Inbound;
        if !self.detailed || !inbound || self.series.kind != Kind::Host {
            return;
        }
        let second = packet.slot / SLOTS_PER_SEC;
        let familiar = self.familiar.get_or_insert_with(|| Box::new(Familiar::new(second)));
        if familiar.meet(packet.src, second) {
            let window = &mut self.series.window;
            window.add_second(window.newest(), &Cell { new_sources: 1, ..Cell::default() });
        }
    }

    /// Whether it was first seen so short a while ago that what it carries may be what it is for: that it was
    /// silent before is known, and says nothing of what is wanted.
    pub(crate) const fn is_new(&self, config: &Config, second: u64) -> bool {
        second < self.met + config.learn_secs
    }

    /// Whether its own normal is known.
    pub(crate) const fn known(&self) -> bool {
        self.profile.minutes >= 2
    }

    /// Takes up what was known before a restart.
    pub(crate) fn restore(
        &mut self,
        baselines: Vec<Baseline>,
        profiles: (Profile, Profile),
        season: Option<Box<Season>>,
        config: &Config,
        now: u64,
    ) {
        (self.profile, self.sent) = profiles;
        self.series.restore(baselines, season, config, now);
    }
}

/// A baseline as an operator sees it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BaselineView {
    /// What is measured.
    pub metric: Metric,
    /// Towards or from the host.
    pub direction: Direction,
    /// Packets or bits a second in the newest full second.
    pub now: f64,
    /// Average of the last five minutes.
    pub mean: f64,
    /// 99th percentile of the last five minutes.
    pub p99: f64,
    /// The percentile after its growth was bounded: what the multiplier applies to.
    pub level: f64,
    /// Threshold in force; where its group has it off, what it would be.
    pub threshold: f64,
    /// Where the threshold comes from: `floor`, `cold-start`, `others-of-its-kind` (hosts of the
    /// same game or prefix, while it is new), `baseline` (the window, the hour of the week or the
    /// last fortnight), `operator`, or its group: `group`, `group-off` or `group-observe-only` where none
    /// is in force. Of a metric of an operator's own also `metric`, set with it, and `metric-off`.
    pub source: &'static str,
    /// Seconds in the window, at most 300.
    pub seconds: u16,
    /// The metric of an operator's own, when it is one.
    pub own: Option<OwnMeasure>,
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
    /// Whether its baselines stand still by an operator's or its group's word.
    pub frozen: bool,
    /// Metrics with baselines and thresholds.
    pub baselines: Vec<BaselineView>,
}

impl Series {
    /// A metric of its own as an operator sees it, but for the present.
    pub(crate) fn view(&self, i: usize, config: &Config, second: u64) -> BaselineView {
        let base = &self.baselines[i];
        BaselineView {
            metric: Metric::Own,
            direction: direction(i),
            now: 0.0,
            mean: self.mean(i),
            p99: base.p99() * if is_bits(i) { 8.0 } else { 1.0 },
            level: self.level(i),
            threshold: self.shown(i, config, second),
            source: self.source(i, config, second),
            seconds: base.len(),
            own: None,
        }
    }
}

impl Warm {
    /// Values of a second, with what is expected in it of flows not exported yet.
    fn reading(&self, second: u64) -> [u64; METRICS] {
        let mut sums = values(&self.series.window.second(second));
        if let Some(expected) = &self.expected {
            let at = [PACKETS, BITS, OUTBOUND + PACKETS, OUTBOUND + BITS];
            for (index, more) in at.into_iter().zip(expected.second(second)) {
                sums[index] = sums[index].saturating_add(more);
            }
        }
        sums
    }

    pub(crate) fn view(&self, inventory: &Inventory, config: &Config, now: Millis) -> HostView {
        let series = &self.series;
        let second = now.secs();
        let newest = self.reading(second.saturating_sub(1));
        let view = |i: usize| {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let now = newest[i] as f64;
            BaselineView { metric: HOST_METRICS[i], now, ..series.view(i, config, second) }
        };
        let own = self.own_views(inventory, config, second);
        HostView {
            host: self.target.addr(),
            watched: true,
            since: Millis::from_secs(series.since),
            learning: series.learning(config, second),
            suspect: series.suspected(second),
            frozen: series.still(config, second),
            baselines: (0..METRICS).map(view).chain(own).collect(),
        }
    }
}
