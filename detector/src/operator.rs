//! What operators say of a host's baselines: freeze, thaw, reset, or a threshold of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{BaselineChange, CommandError, Direction, IpNet, Metric};

use crate::checkpoint::TargetCheckpoint;
use crate::watch::host::Warm;
use crate::watch::metric::{HOST_METRICS, Significance, direction, settable};
use crate::watch::series::{Kind, Series};
use crate::watch::table::NONE;
use crate::{Config, Detector};

/// What an operator has set of a host, kept over a restart however long it takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OperatorCheckpoint {
    pub(crate) host: IpAddr,
    frozen: bool,
    /// Thresholds, a second. By name: places of metrics may change from version to version.
    thresholds: Vec<(Metric, Direction, f64)>,
}

impl OperatorCheckpoint {
    fn of(warm: &Warm) -> Self {
        let series = &warm.series;
        let named = |(at, value): &(usize, f64)| (HOST_METRICS[*at], direction(*at), *value);
        Self {
            host: warm.target.addr(),
            frozen: series.frozen,
            thresholds: series.fixed.iter().map(named).collect(),
        }
    }
}

/// Replaces what an operator set for one metric.
fn fix(series: &mut Series, index: usize, threshold: Option<f64>) {
    series.fixed.retain(|(fixed, _)| *fixed != index);
    series.fixed.extend(threshold.map(|value| (index, value)));
}

impl Series {
    /// Whether an operator has set anything.
    pub(crate) fn set_by_operator(&self) -> bool {
        self.frozen || !self.fixed.is_empty()
    }
}

impl Detector {
    /// Takes other settings, and with them thresholds of all that is watched. `quarantine_secs` stays: there
    /// is room for so many seconds.
    pub fn set_config(&mut self, config: Config) {
        self.config = Config { quarantine_secs: self.config.quarantine_secs, ..config };
        self.rule = Significance::of(&self.config);
        let now = self.clock.secs();
        for warm in self.warm.iter_mut().filter_map(Option::as_deref_mut) {
            warm.series.set_thresholds(&self.config, now);
        }
        for service in self.services.values_mut() {
            service.series.set_thresholds(&self.config, now);
        }
        self.heed_own();
        if self.since.is_some() {
            self.retotal(now);
        }
    }

    /// The series of a host, which is watched in detail from now on.
    fn series_of(&mut self, host: IpAddr) -> Result<&mut Series, CommandError> {
        if !self.inventory.protected.contains(host) {
            return Err(CommandError::NotFound);
        }
        let full = || CommandError::Conflict("there is no room to watch one more host".to_owned());
        let place = self.place(host, self.clock.secs()).ok_or_else(full)?;
        if self.idle[place as usize].warm == NONE {
            self.warm_up(host, place);
        }
        let at = self.idle[place as usize].warm;
        let warm = self.warm.get_mut(at as usize).and_then(Option::as_deref_mut);
        warm.map(|warm| &mut warm.series).ok_or_else(full)
    }

    /// Carries out what an operator wants of a host's baselines. Those of its services and its prefix are
    /// left alone.
    ///
    /// # Errors
    /// [`CommandError`]: the host is not protected; nobody can set a threshold for the metric; or the
    /// change would leave the host without anything that is normal for it, and every busy second an
    /// alarm: a baseline cannot be frozen before it is known, nor reset while it is frozen.
    pub fn change_baseline(
        &mut self,
        host: IpAddr,
        change: BaselineChange,
    ) -> Result<(), CommandError> {
        let conflict = |why: &str| Err(CommandError::Conflict(why.to_owned()));
        let (config, now) = (self.config.clone(), self.clock.secs());
        let series = self.series_of(host)?;
        match change {
            BaselineChange::Freeze if series.learning(&config, now) => {
                return conflict("the host is still too new to have a baseline of its own");
            }
            BaselineChange::Freeze => series.frozen = true,
            BaselineChange::Thaw => series.frozen = false,
            BaselineChange::Reset if series.frozen => {
                return conflict("the baseline is frozen: thaw it first");
            }
            BaselineChange::Reset => series.reset(&config, now),
            BaselineChange::Threshold { metric, direction, value } => {
                let index = settable(metric, direction).ok_or_else(|| {
                    let way = if direction == Direction::Inbound { "inbound" } else { "outbound" };
                    let metric = metric.id();
                    CommandError::Refused(format!("{metric}: has no threshold to set {way}"))
                })?;
                #[expect(clippy::cast_precision_loss, reason = "thresholds are far below 2^52")]
                fix(series, index, value.map(|value| value.get() as f64));
                series.set_thresholds(&config, now);
            }
        }
        Ok(())
    }

    /// What operators have set, by host.
    pub(crate) fn set_by_operators(&self) -> Vec<OperatorCheckpoint> {
        let warm = (0_u32..).zip(&self.warm).filter_map(|(at, warm)| Some((at, warm.as_deref()?)));
        let mut all: Vec<OperatorCheckpoint> = warm
            .filter(|(at, warm)| self.held(*at, warm))
            .map(|(_, warm)| OperatorCheckpoint::of(warm))
            .collect();
        all.sort_by_key(|kept| kept.host);
        all
    }

    /// Whether an operator has set something of a host that is still protected.
    fn held(&self, at: u32, warm: &Warm) -> bool {
        let idle = || self.idle.get(self.table.get(warm.target.addr()) as usize);
        warm.series.kind == Kind::Host
            && warm.series.set_by_operator()
            && idle().is_some_and(|idle| idle.warm == at)
    }

    /// Takes up what operators had set.
    pub(crate) fn restore_operators(&mut self, kept: Vec<OperatorCheckpoint>, now: u64) {
        let config = self.config.clone();
        for OperatorCheckpoint { host, frozen, thresholds } in kept {
            // No longer protected, or no room.
            let Ok(series) = self.series_of(host) else { continue };
            // What stands still must be known.
            series.frozen = frozen && !series.learning(&config, now);
            for (metric, direction, value) in thresholds {
                let index = settable(metric, direction);
                if let Some(index) = index.filter(|_| value.is_finite() && value > 0.0) {
                    fix(series, index, Some(value));
                }
            }
            series.set_thresholds(&config, now);
        }
    }
}

/// Brings hosts that an operator has set to the front, so that there is room for them. Of a `stale`
/// checkpoint only frozen baselines are left, for those do not age.
pub(crate) fn first_theirs(
    targets: &mut Vec<TargetCheckpoint>,
    kept: &[OperatorCheckpoint],
    stale: bool,
) {
    let kept: BTreeMap<IpNet, bool> = kept.iter().map(|k| (k.host.into(), k.frozen)).collect();
    if stale {
        targets.retain(|target| kept.get(&target.target) == Some(&true));
    }
    targets.sort_by_key(|target| !kept.contains_key(&target.target));
}
