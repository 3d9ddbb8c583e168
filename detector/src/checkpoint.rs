//! What is kept over a restart: whole, or in parts of a hundredth each, so that writing down what a
//! million hosts are like neither holds the detector up nor takes as much memory again.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::{IncidentId, IpNet, Millis, OwnMetric};

use crate::watch::host::Warm;
use crate::watch::intake::{SWEEP, Service, ServiceKey, sweep_slot};
use crate::watch::own::Own;
use crate::watch::table::NONE;
use crate::watch::totals::Total;
use crate::watch::{baseline, packets, season};
use crate::{Detector, operator, saturate};

/// Parts of a checkpoint.
pub const PARTS: usize = SWEEP;

/// State worth keeping over a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When it was taken.
    pub at: Millis,
    /// Number of the last incident.
    pub last_id: Option<IncidentId>,
    /// When the detector began to watch, seconds since the epoch.
    since: u64,
    targets: Vec<TargetCheckpoint>,
    services: Vec<ServiceCheckpoint>,
    /// Last, so that a checkpoint of before there was any reads as one without.
    #[serde(default)]
    operators: Vec<operator::OperatorCheckpoint>,
    /// What metrics of an operator's own measured of hosts; likewise.
    #[serde(default)]
    own: Vec<OwnCheckpoint>,
    /// Since when they are measured, seconds since the epoch, by name and pattern.
    #[serde(default)]
    measured: Vec<(String, String, u64)>,
    /// Totals of groups; likewise.
    #[serde(default)]
    totals: Vec<TotalCheckpoint>,
}

/// What is kept of the total of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TotalCheckpoint {
    group: String,
    /// Which prefixes it is of, as a hash.
    extent: u64,
    since: u64,
    baselines: Vec<baseline::Baseline>,
    season: Option<Box<season::Season>>,
}

impl TotalCheckpoint {
    fn of(total: &Total) -> Self {
        Self {
            group: total.group.clone(),
            extent: total.extent,
            since: total.series.since,
            baselines: total.series.baselines.to_vec(),
            season: total.series.season.clone(),
        }
    }

    /// The part in which it is kept.
    fn part(total: &Total) -> usize {
        usize::try_from(total.extent % PARTS as u64).unwrap_or(0)
    }
}

/// What is kept of one metric of an operator's own on one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OwnCheckpoint {
    host: IpAddr,
    /// By name and pattern: numbers change with the settings.
    name: String,
    packets: String,
    since: u64,
    baselines: Vec<baseline::Baseline>,
    season: Option<Box<season::Season>>,
}

/// What is kept of one host or prefix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TargetCheckpoint {
    pub(crate) target: IpNet,
    since: u64,
    baselines: Vec<baseline::Baseline>,
    profile: packets::Profile,
    sent: packets::Profile,
    season: Option<Box<season::Season>>,
}

/// What is kept of one declared service.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServiceCheckpoint {
    host: IpAddr,
    protocol: u8,
    port: u16,
    since: u64,
    baselines: Vec<baseline::Baseline>,
    season: Option<Box<season::Season>>,
}

impl TargetCheckpoint {
    fn of(warm: &Warm) -> Self {
        Self {
            target: warm.target,
            since: warm.series.since,
            baselines: warm.series.baselines.to_vec(),
            profile: warm.profile.clone(),
            sent: warm.sent.clone(),
            season: warm.series.season.clone(),
        }
    }
}

impl ServiceCheckpoint {
    fn of(host: IpAddr, key: ServiceKey, service: &Service) -> Self {
        Self {
            host,
            protocol: key.1,
            port: key.2,
            since: service.series.since,
            baselines: service.series.baselines.to_vec(),
            season: service.series.season.clone(),
        }
    }
}

impl Checkpoint {
    /// The part in which a host is kept, below [`PARTS`].
    pub fn part_of(host: IpAddr) -> usize {
        sweep_slot(host)
    }

    /// Whether nothing is kept of any host, prefix, service or group.
    pub const fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.services.is_empty() && self.totals.is_empty()
    }

    /// Adds what another part holds. Of what both hold the other's is the one to be taken up.
    pub fn join(&mut self, part: Self) {
        self.at = self.at.max(part.at);
        self.last_id = self.last_id.max(part.last_id);
        self.since = if self.since == 0 { part.since } else { self.since.min(part.since) };
        self.targets.extend(part.targets);
        self.services.extend(part.services);
        self.operators.extend(part.operators);
        self.own.extend(part.own);
        self.totals.extend(part.totals);
        let known = |of: &(String, String, u64)| self.measured.contains(of);
        let new: Vec<_> = part.measured.into_iter().filter(|of| !known(of)).collect();
        self.measured.extend(new);
    }
}

impl Detector {
    /// What is worth keeping over a restart.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut all = self.checkpoint_head();
        (0..PARTS).for_each(|part| all.join(self.checkpoint_part(part)));
        all.targets.sort_by_key(|t| t.target);
        all.services.sort_by_key(|s| (s.host, s.protocol, s.port));
        all.own.sort_by(|a, b| (a.host, &a.name).cmp(&(b.host, &b.name)));
        all
    }

    /// What is worth keeping beside [`Detector::checkpoint_part`]: what operators have set.
    pub fn checkpoint_head(&self) -> Checkpoint {
        Checkpoint { operators: self.set_by_operators(), ..self.frame() }
    }

    /// What is worth keeping of the hosts, prefixes and services of one part below [`PARTS`].
    pub fn checkpoint_part(&self, part: usize) -> Checkpoint {
        let listed = self.sweep.get(part).into_iter().flatten();
        let warm = listed.filter_map(|at| self.warm.get(*at as usize)?.as_deref());
        let (mut targets, mut own) = (Vec::new(), Vec::new());
        for warm in warm {
            targets.push(TargetCheckpoint::of(warm));
            own.extend(warm.own.iter().filter_map(|own| self.own_checkpoint(warm, own)));
        }
        targets.sort_by_key(|t| t.target);
        own.sort_by(|a, b| (a.host, &a.name).cmp(&(b.host, &b.name)));
        let listed = self.sweep_services.get(part).into_iter().flatten();
        let mut services: Vec<ServiceCheckpoint> = listed
            .filter_map(|key| {
                let host = self.idle.get(key.0 as usize)?.address;
                Some(ServiceCheckpoint::of(host, *key, self.services.get(key)?))
            })
            .collect();
        services.sort_by_key(|s| (s.host, s.protocol, s.port));
        let totals = self.totals.list.iter().filter(|total| TotalCheckpoint::part(total) == part);
        let totals = totals.map(TotalCheckpoint::of).collect();
        Checkpoint { targets, services, own, totals, ..self.frame() }
    }

    fn own_checkpoint(&self, warm: &Warm, own: &Own) -> Option<OwnCheckpoint> {
        let metric = self.inventory.metrics.list().get(usize::from(own.metric))?;
        Some(OwnCheckpoint {
            host: warm.target.addr(),
            name: metric.name.clone(),
            packets: key_of(metric),
            since: own.series.since,
            baselines: own.series.baselines.to_vec(),
            season: own.series.season.clone(),
        })
    }

    /// What every part says.
    fn frame(&self) -> Checkpoint {
        Checkpoint {
            at: self.clock,
            last_id: self.last_id,
            since: self.since.unwrap_or(0),
            measured: self.measured(),
            ..Checkpoint::default()
        }
    }

    /// Takes a checkpoint up. Baselines older than a day are not used: the last five minutes of
    /// yesterday say nothing of now. What an operator froze or set holds until an operator changes it.
    pub fn restore(&mut self, checkpoint: Checkpoint, now: Millis) {
        self.clock = self.clock.max(now);
        self.last_id = self.last_id.max(checkpoint.last_id);
        let Checkpoint {
            mut targets, mut services, operators, mut own, measured, mut totals, ..
        } = checkpoint;
        let stale = now.since(checkpoint.at) > 86_400_000;
        operator::first_theirs(&mut targets, &operators, stale);
        if stale {
            services.clear();
            own.clear();
            totals.clear();
        } else {
            self.since = Some(checkpoint.since.min(now.secs()));
            self.measured_since(&measured, now.secs());
        }
        for kept in targets {
            let Some(at) = self.restored(kept.target, kept.since, now) else { continue };
            if let Some(warm) = self.warm[at as usize].as_deref_mut() {
                warm.restore(
                    kept.baselines,
                    (kept.profile, kept.sent),
                    kept.season,
                    &self.config,
                    now.secs(),
                );
            }
        }
        let config = self.config.clone();
        for kept in services {
            let of = (kept.host, kept.protocol, kept.port);
            if let Some(series) = self.service_series(of, kept.since, now.secs()) {
                series.restore(kept.baselines, kept.season, &config, now.secs());
            }
        }
        own.into_iter().for_each(|kept| self.restore_own(kept, now.secs()));
        self.begin_totals(now.secs());
        totals.into_iter().for_each(|kept| self.restore_total(kept, now.secs()));
        self.restore_operators(operators, now.secs());
    }

    /// Since when metrics of an operator's own are measured.
    fn measured(&self) -> Vec<(String, String, u64)> {
        let metrics = self.inventory.metrics.list().iter().zip(&self.owned.since);
        metrics
            .filter_map(|(metric, since)| Some((metric.name.clone(), key_of(metric), (*since)?)))
            .collect()
    }

    /// Takes up since when they are: one that is new, or of other packets, begins now.
    fn measured_since(&mut self, kept: &[(String, String, u64)], now: u64) {
        let Self { inventory, owned, .. } = self;
        for (metric, since) in inventory.metrics.list().iter().zip(&mut owned.since) {
            let packets = key_of(metric);
            let known = kept.iter().filter(|(name, of, _)| *name == metric.name && *of == packets);
            *since = Some(known.map(|(.., since)| *since).max().map_or(now, |at| at.min(now)));
        }
    }

    /// Takes up what was normal for a total, where it is still of the same prefixes.
    fn restore_total(&mut self, kept: TotalCheckpoint, now: u64) {
        let is_it = |total: &&mut Total| total.group == kept.group && total.extent == kept.extent;
        if let Some(total) = self.totals.list.iter_mut().find(is_it) {
            total.series.since = kept.since.min(now);
            total.series.restore(kept.baselines, kept.season, &self.config, now);
        }
    }

    fn restore_own(&mut self, kept: OwnCheckpoint, now: u64) {
        let metrics = self.inventory.metrics.list();
        let same = |own: &OwnMetric| own.name == kept.name && key_of(own) == kept.packets;
        let metric = metrics.iter().position(same).and_then(|at| u8::try_from(at).ok());
        let at = self.warm_at(kept.host.into());
        let Some((metric, at)) = metric.zip(at) else { return };
        let Some(place) = self.begin_own(at, metric, Some(kept.since.min(now))) else { return };
        if let Some(Some(warm)) = self.warm.get_mut(at as usize)
            && let Some(own) = warm.own.get_mut(place)
        {
            own.series.restore(kept.baselines, kept.season, &self.config, now);
        }
    }

    /// Has a host or prefix of before a restart watched again.
    fn restored(&mut self, target: IpNet, since: u64, now: Millis) -> Option<u32> {
        if target.prefix_len() < target.max_prefix_len() {
            // Prefixes come and go with the hosts in them.
            let known = self.inventory.protected.overlaps(target);
            return known.then(|| self.prefix(target, since)).filter(|at| *at != NONE);
        }
        let place = self.place(target.addr(), now.secs())?;
        self.idle[place as usize].since = saturate(since);
        self.warm_up(target.addr(), place);
        let at = Some(self.idle[place as usize].warm).filter(|at| *at != NONE)?;
        if let Some(warm) = self.warm[at as usize].as_deref_mut() {
            // Later than the detector's own, where an operator had it learn anew.
            warm.series.since = since;
        }
        Some(at)
    }
}

/// Which packets a metric of an operator's own counts, as text.
fn key_of(metric: &OwnMetric) -> String {
    format!("{:?} {}", metric.direction, metric.packets)
}
