//! Slice -> Verdict: what is normal for each protected host, what exceeds it, what that is made
//! of, and the narrowest matches that cover it and spare the rest.
//!
//! A pure state machine: time comes in with the slices and with [`Detector::advance`]; the same
//! input gives the same verdicts, byte for byte, however it was spread over shards.
//!
//! ```text
//! Slice --> window (0.1 s .. 30 s) --> alarm --> excess --> vectors, rules, confidence --> Verdict
//!             |                          ^
//!             +--> quarantine --> baseline
//! ```

mod checkpoint;
mod config;
mod evidence;
mod operator;
#[cfg(test)]
mod tests;
mod verdict;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{
    Direction, Evidence, Expectation, ExporterStatus, Incident, IncidentId, IncidentState,
    Inventory, IpNet, Millis, SLICE_MS, Verdict,
};

pub use checkpoint::{Checkpoint, PARTS};
pub use config::{Capabilities, Config, Floors};
pub use evidence::signature;
pub use verdict::confidence;
pub use watch::host::{BaselineView, HostView};
pub use watch::memory::Memory;

use verdict::incident::Active;
use watch::cell::saturate;
use watch::hash::FastMap;
use watch::host::{Idle, Warm};
use watch::intake::{ColdCells, Pending, SWEEP, Service, ServiceKey};
use watch::metric::{OUTBOUND, Significance};
use watch::own::Owned;
use watch::series::{Alarm, Kind};
use watch::silent::{Liveness, carriers};
use watch::table::{NONE, Table};
use watch::totals::Totals;
use watch::two_way::TwoWay;
use watch::vanished::Vanished;
use watch::window::SLOTS_PER_SEC;
use watch::{foreknown, metric, pool, rules, wide};

/// Counters of what the detector did and what it could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Host cells added up.
    pub cells: u64,
    /// Cells that came too late for any window.
    pub late: u64,
    /// Hosts not known because a limit was hit.
    pub hosts_refused: u64,
    /// Hosts not watched in detail because `warm_hosts_max` was hit.
    pub warm_refused: u64,
    /// Hosts of whose normal traffic no packets were kept because `profiles_max` was hit.
    pub profiles_refused: u64,
    /// Prefixes not watched because `prefixes_max` was hit.
    pub prefixes_refused: u64,
    /// What metrics of an operator's own counted of hosts for which there was no room.
    #[serde(default)]
    pub metrics_refused: u64,
    /// Samples left out because a slot had too many.
    pub samples_refused: u64,
    /// Windows above a threshold.
    pub alarms: u64,
    /// Alarms that evidence did not support.
    pub alarms_unconvincing: u64,
    /// Alarms put off to the next slot because too many were to be looked at.
    pub alarms_deferred: u64,
    /// Alarms that were no more than answered traffic of allow lists that are left out.
    pub alarms_left_out: u64,
    /// Alarms for which `incidents_max` left no room.
    pub incidents_refused: u64,
    /// Incidents opened.
    pub incidents_opened: u64,
    /// Slices lost before they reached the detector.
    pub slices_lost: u64,
}

/// A host or prefix near a threshold: what, its place, and the alarm where one is known already.
type Near = (IpNet, u32, Option<Alarm>);

/// The detector.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    rule: Significance,
    inventory: Arc<Inventory>,
    /// What groups say, made ready.
    rules: rules::RuleBook,
    table: Table,
    idle: Vec<Idle>,
    warm: Vec<Option<Box<Warm>>>,
    free: Vec<u32>,
    /// Watched hosts by the slot of a ten-second round in which they are looked after.
    sweep: Vec<Vec<u32>>,
    /// Declared services likewise.
    sweep_services: Vec<Vec<ServiceKey>>,
    /// What is normal for hosts of a kind.
    pool: pool::Pool,
    /// Hosts and prefixes of which packets are kept.
    profiles: usize,
    /// Quiet hosts that became busy in this slot, some of them several times.
    busy: Vec<u32>,
    /// Watched hosts and prefixes touched in this slot.
    touched_warm: Vec<u32>,
    touched_services: Vec<ServiceKey>,
    cold: ColdCells,
    pending: Vec<Pending>,
    /// How often a slot has had a host's packets of each content hash.
    alike: FastMap<u64, u32>,
    expected: Vec<Expectation>,
    /// Hosts of which something was told in this slot that had waited for its template.
    waited: Vec<(IpAddr, Millis)>,
    prefixes: FastMap<IpNet, u32>,
    /// Prefixes wider than those, in which carpets show that are thin anywhere else.
    wide: Vec<wide::Wide>,
    /// Place at which idle hosts are looked for that give way to new ones.
    hand: usize,
    services: FastMap<ServiceKey, Box<Service>>,
    /// What metrics of an operator's own need beside their series, which stand with their hosts.
    owned: Owned,
    /// Totals of groups.
    totals: Totals,
    /// Services whose traffic has vanished.
    vanished: Vanished,
    /// What came near a threshold in this slot, with the alarm where one is known already.
    alarmed: Vec<Near>,
    /// Of those what was put off to the next slot, longest waiting first.
    deferred: Vec<Near>,
    incidents: BTreeMap<IncidentId, Active>,
    by_target: BTreeMap<(IpNet, Direction), IncidentId>,
    /// Evidence to be kept, of the last advance.
    evidence: Vec<(IncidentId, Evidence)>,
    /// What was judged since it was last asked for, where somebody asks.
    judged: Option<Vec<confidence::Judged>>,
    /// Packets and variance of this slot, for the average sampling rate.
    seen: (u64, u64),
    /// Whether exporters show what protected hosts send.
    two_way: TwoWay,
    sampling: f64,
    exporters: Vec<String>,
    /// When exporters last spoke.
    liveness: Liveness,
    last_id: Option<IncidentId>,
    /// Clock of the last slot; 0 before the first.
    clock: Millis,
    watermark: Millis,
    /// Smallest watermark of the slices since the last advance.
    next_watermark: Option<Millis>,
    /// When watching began.
    since: Option<u64>,
    counters: Counters,
}

impl Detector {
    /// A detector that knows nothing yet.
    pub fn new(config: Config, inventory: Arc<Inventory>) -> Self {
        let rule = Significance::of(&config);
        Self {
            table: Table::new(&inventory.protected),
            config,
            rule,
            rules: rules::RuleBook::new(&inventory.policies),
            owned: Owned::new(&inventory),
            inventory,
            idle: Vec::new(),
            warm: Vec::new(),
            free: Vec::new(),
            sweep: vec![Vec::new(); SWEEP],
            sweep_services: vec![Vec::new(); SWEEP],
            pool: pool::Pool::default(),
            profiles: 0,
            busy: Vec::new(),
            touched_warm: Vec::new(),
            touched_services: Vec::new(),
            cold: ColdCells::default(),
            pending: Vec::new(),
            alike: FastMap::default(),
            expected: Vec::new(),
            waited: Vec::new(),
            prefixes: FastMap::default(),
            wide: Vec::new(),
            hand: 0,
            services: FastMap::default(),
            totals: Totals::default(),
            vanished: Vanished::default(),
            alarmed: Vec::new(),
            deferred: Vec::new(),
            incidents: BTreeMap::new(),
            by_target: BTreeMap::new(),
            evidence: Vec::new(),
            judged: None,
            seen: (0, 0),
            two_way: TwoWay::default(),
            sampling: 1.0,
            exporters: Vec::new(),
            liveness: Liveness::default(),
            last_id: None,
            clock: Millis(0),
            watermark: Millis(0),
            next_watermark: None,
            since: None,
            counters: Counters::default(),
        }
    }

    /// What happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends a slot: call once per 100 ms after its slices. Appends what is to be said.
    pub fn advance(&mut self, now: Millis, out: &mut Vec<Verdict>) {
        self.evidence.clear();
        self.clock = self.clock.max(now);
        self.since.get_or_insert_with(|| now.secs());
        for since in &mut self.owned.since {
            since.get_or_insert_with(|| now.secs());
        }
        if let Some(watermark) = self.next_watermark.take() {
            self.watermark = self.watermark.max(watermark.min(now));
        }
        // Silence is news as well: without any slice nothing is still to come after a while.
        self.watermark = self.watermark.max(now - 90_000);
        self.tally();
        self.wake();
        self.expect();
        self.disregard();
        self.keep_samples();
        self.set_aside();
        self.tend_totals();
        let mut touched = std::mem::take(&mut self.touched_warm);
        self.tend_all(&touched);
        self.tend_services();
        self.sweep();
        self.sweep_services();
        self.judge_alarms(out);
        self.follow(out);
        self.thin(&touched);
        touched.clear();
        self.touched_warm = touched;
    }

    /// Keeps the average sampling rate of what comes in, for what goes out.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    fn tally(&mut self) {
        let (packets, variance) = std::mem::take(&mut self.seen);
        self.two_way.tally(packets);
        if packets > 0 {
            let now = (variance as f64 / packets as f64).max(1.0);
            self.sampling += (now - self.sampling) * 0.1;
        }
    }

    /// Looks after watched hosts and prefixes that were touched.
    fn tend_all(&mut self, touched: &[u32]) {
        let (watermark, now, slot) = (self.watermark.secs(), self.clock.secs(), self.clock.slot());
        let back = self.back();
        for (n, &at) in touched.iter().enumerate() {
            self.fetch_ahead(touched, n);
            let Some(warm) = self.warm[at as usize].as_deref_mut() else { continue };
            warm.touched = false;
            if warm.series.due(watermark, now) {
                warm.roll(watermark, now, &self.config);
            }
            let mut loud = warm.series.worth_a_look();
            if !warm.own.is_empty() {
                loud |= warm.tend_own(now);
            }
            // A shape is compared once a second, where there is one to compare with.
            let compare = warm.compared < now
                && warm.known()
                && warm.series.kind == Kind::Host
                && !warm.series.learning(&self.config, now);
            let mut odd = None;
            if compare {
                warm.compared = now;
                odd = evidence::shape::alarm(warm, &self.config, self.rule, slot, back)
                    .or_else(|| warm.series.ramp(&self.config));
            }
            if loud || odd.is_some() {
                warm.series.window.refine();
                self.alarmed.push((warm.target, at, odd));
            } else {
                warm.series.window.take_oldest();
            }
        }
    }

    /// Has the watched hosts fetched whose turn it is soon: first where they are, then themselves.
    #[inline]
    fn fetch_ahead(&self, touched: &[u32], n: usize) {
        if let Some(&at) = touched.get(n + 16) {
            self.fetch_place(at);
        }
        if let Some(&at) = touched.get(n + 8) {
            self.fetch_series(at);
        }
    }

    /// Looks after services that were touched, and puts their alarms to their hosts.
    fn tend_services(&mut self) {
        let (watermark, now) = (self.watermark.secs(), self.clock.secs());
        for (host, key) in self.take_touched_services() {
            let Some(service) = self.services.get_mut(&key) else { continue };
            let series = &mut service.series;
            series.roll(watermark, now, &self.config);
            let short = !series.learning(&self.config, now);
            let loud = series.worth_a_look();
            if loud {
                series.window.refine();
            } else if !series.suspected(now) {
                series.window.coarsen();
            }
            if loud
                && let Some(mut alarm) = series
                    .alarm(self.rule, Direction::Inbound, short, self.sampling)
                    .or_else(|| {
                        series.bare_alarm(
                            &self.config,
                            now,
                            self.rule,
                            Direction::Inbound,
                            self.sampling,
                        )
                    })
            {
                alarm.service = Some((key.1, key.2));
                let at = self.idle[key.0 as usize].warm;
                if at != NONE {
                    self.alarmed.push((IpNet::from(host), at, Some(alarm)));
                }
            }
            series.window.take_oldest();
        }
    }

    /// Looks after a hundredth of all watched hosts; forgets those that fell silent.
    fn sweep(&mut self) {
        let (watermark, now, slot) = (self.watermark.secs(), self.clock.secs(), self.clock.slot());
        let round = usize::try_from(self.clock.slot() % SWEEP as u64).unwrap_or(0);
        let mut list = std::mem::take(&mut self.sweep[round]);
        list.retain(|&at| {
            let Some(warm) = self.warm[at as usize].as_deref_mut() else { return false };
            warm.roll(watermark, now, &self.config);
            let rate = warm.series.mean(metric::PACKETS);
            if !warm.detailed && rate >= self.config.profile_packets_per_sec {
                warm.detailed = self.profiles < self.config.profiles_max;
                self.profiles += usize::from(warm.detailed);
                self.counters.profiles_refused += u64::from(!warm.detailed);
            }
            // What a silent exporter does not tell must not become normal.
            warm.carried_by(carriers(warm.profile.present()));
            if warm.carriers.iter().any(|id| self.liveness.fell_silent(*id, self.clock)) {
                warm.suspect(now + SWEEP as u64 / SLOTS_PER_SEC + 1);
            }
            warm.rest(slot, now);
            if warm.series.kind == Kind::Host {
                let mean = (warm.series.mean(metric::PACKETS), warm.series.mean(OUTBOUND));
                // A host just met that sends nothing may be one of thousands that an attack made up.
                if mean.1 > 0.0 || warm.known() {
                    self.two_way.vote(mean.0, mean.1);
                }
                let rules = warm.series.rules.as_deref();
                let kinds = pool::kinds(&self.inventory, warm.target, rules);
                if warm.series.learning(&self.config, now) {
                    warm.series.borrowed = self.pool.normal(kinds);
                    warm.series.set_thresholds(&self.config, now);
                } else if !warm.series.suspected(now) {
                    self.pool.count(kinds, &warm.series, now);
                }
            }
            let silent = warm.series.last_traffic + 600 < watermark && !warm.touched;
            let place = self.table.get(warm.target.addr());
            // A host that left what is protected, and came back since, is another one.
            let here = self.idle.get(place as usize).is_some_and(|idle| idle.warm == at);
            let busy = warm.series.kind == Kind::Prefix
                || (here && warm.series.set_by_operator())
                || warm.series.suspected(now)
                || [Direction::Inbound, Direction::Outbound]
                    .iter()
                    .any(|way| self.by_target.contains_key(&(warm.target, *way)));
            if !silent || busy {
                return true;
            }
            if here {
                self.idle[place as usize].warm = NONE;
            }
            self.profiles -= usize::from(warm.detailed);
            self.owned.series -= warm.own.len();
            self.warm[at as usize] = None;
            self.free.push(at);
            false
        });
        self.sweep[round] = list;
        if round + 1 == SWEEP {
            self.two_way.count();
        }
    }

    /// Looks after a hundredth of all services: the seconds of one that fell silent must enter its
    /// baseline before its window forgets them.
    fn sweep_services(&mut self) {
        let (watermark, now) = (self.watermark.secs(), self.clock.secs());
        let round = usize::try_from(self.clock.slot() % SWEEP as u64).unwrap_or(0);
        let mut list = std::mem::take(&mut self.sweep_services[round]);
        list.retain(|key| {
            let Some(service) = self.services.get_mut(key) else { return false };
            service.series.roll(watermark, now, &self.config);
            true
        });
        self.look_for_vanished(&list);
        self.sweep_services[round] = list;
    }

    /// What the verdicts on an open incident rest on, as it was when the attack was at its strongest.
    pub fn evidence(&self, incident: IncidentId) -> Option<&Evidence> {
        self.incidents.get(&incident).map(|active| &active.evidence)
    }

    /// Evidence of the last advance that is worth keeping: of incidents that opened, of those in
    /// which it changed, every ten seconds at most, and of those that ended.
    pub fn take_evidence(&mut self) -> Vec<(IncidentId, Evidence)> {
        std::mem::take(&mut self.evidence)
    }

    /// What was judged since the last call, whether it became an incident or not: to fit and check the
    /// confidence model by. Kept from the first call on.
    pub fn take_judged(&mut self) -> Vec<confidence::Judged> {
        self.judged.replace(Vec::new()).unwrap_or_default()
    }

    /// Names of exporters by their number, and when they last spoke.
    pub fn exporters(&mut self, exporters: &[ExporterStatus]) {
        self.liveness.take(exporters);
        for exporter in exporters {
            let at = usize::from(exporter.id.0);
            if self.exporters.len() <= at {
                self.exporters.resize(at + 1, String::new());
            }
            if self.exporters[at] != exporter.name {
                self.exporters[at].clone_from(&exporter.name);
            }
        }
    }

    /// After a restart: open incidents go on under their numbers and end by the ordinary rule.
    pub fn resume(&mut self, incidents: &[Arc<Incident>]) {
        for incident in incidents {
            self.last_id = self.last_id.max(Some(incident.id));
            if incident.state != IncidentState::Open {
                continue;
            }
            let active = Active::resumed(&incident.verdict, &self.config);
            self.by_target.insert((active.target, active.alarm.direction), incident.id);
            self.incidents.insert(incident.id, active);
        }
    }

    /// Replaces what is protected. Hosts that stay keep what is known of them.
    pub fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        let mut table = Table::new(&inventory.protected);
        for (place, idle) in (0_u32..).zip(&self.idle) {
            if inventory.protected.contains(idle.address) {
                table.set(idle.address, place);
            }
        }
        self.table = table;
        let idle = &self.idle;
        self.services.retain(|(place, protocol, port), _| {
            inventory.service(idle[*place as usize].address, *protocol, *port).is_some()
        });
        self.touched_services.clear();
        for round in &mut self.sweep_services {
            round.retain(|key| self.services.contains_key(key));
        }
        let before = std::mem::replace(&mut self.inventory, inventory);
        self.rewiden();
        self.foretell(&before);
        self.regroup(&before);
        self.remeasure(&before);
        if self.since.is_some() && *before.policies != *self.inventory.policies {
            self.retotal(self.clock.secs());
        }
    }

    /// Tells all that is watched what its group says now, where groups have changed.
    fn regroup(&mut self, before: &Inventory) {
        let policies = Arc::clone(&self.inventory.policies);
        if *before.policies == *policies {
            return;
        }
        self.rules = rules::RuleBook::new(&policies);
        let (now, Self { rules, config, warm, services, idle, .. }) = (self.clock.secs(), self);
        for warm in warm.iter_mut().filter_map(Option::as_deref_mut) {
            warm.series.heed(rules.of(&policies, warm.target), config, now);
        }
        for (key, service) in services {
            let host = IpNet::from(idle[key.0 as usize].address);
            service.series.heed(rules.of(&policies, host), config, now);
        }
    }

    /// What a host's or prefix's group says.
    pub(crate) fn rules_of(&self, target: IpNet) -> Option<Arc<rules::Rules>> {
        self.rules.of(&self.inventory.policies, target)
    }

    /// Whether a declared port of a host has been seen and has a baseline of its own.
    pub fn watches_service(&self, host: IpAddr, protocol: u8, port: u16) -> bool {
        self.services.contains_key(&(self.table.get(host), protocol, port))
    }

    /// What is known of a host, if it was ever seen.
    pub fn host_view(&self, host: IpAddr) -> Option<HostView> {
        let place = self.table.get(host);
        let idle = self.idle.get(place as usize)?;
        let warm = self.warm.get(idle.warm as usize).and_then(Option::as_deref);
        Some(warm.map_or_else(
            || HostView {
                host,
                watched: false,
                since: Millis::from_secs(u64::from(idle.since)),
                learning: self.clock.secs() < u64::from(idle.since) + self.config.learn_secs,
                suspect: false,
                frozen: false,
                baselines: Vec::new(),
            },
            |warm| warm.view(&self.inventory, &self.config, self.clock),
        ))
    }
}

const _: () = assert!(SWEEP as u64 * SLICE_MS == 10_000, "baselines are due every ten seconds");
