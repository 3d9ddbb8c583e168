//! Detector and mitigator in line: slices, reports and commands in, desired state and decisions out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_bgp::guard::Admitted;
use weir_bgp::reach::KnownPeer;
use weir_collector::ExporterConfig;
use weir_config::Config;
use weir_detector::Detector;
use weir_mitigator::{Mitigator, RungConfig, Told, UplinkConfig};
use weir_model::{
    Command, CommandError, Decision, Evidence, ExporterId, ExporterStatus, GroupTotal,
    HostBaseline, HostBaselines, Incident, IncidentId, Intake, Inventory, Millis, Mitigation,
    MitigationId, Observed, PeerStatus, SamplingSource, Slice, Snapshot, Verdict,
};

/// Incidents that a snapshot shows at most.
pub const SNAPSHOT_INCIDENTS_MAX: usize = 500;

/// Mitigations that a snapshot shows at most.
pub const SNAPSHOT_MITIGATIONS_MAX: usize = 2000;

/// Everything that can happen to the core, in the form in which it is recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// What the last run left: open incidents, and what the detector had learned.
    Restored {
        /// Open incidents, oldest first.
        incidents: Vec<Incident>,
        /// Baselines, if there was a checkpoint.
        baselines: Option<Box<weir_detector::Checkpoint>>,
        /// Manual measures, repeat victims and what exporters were seen to show, likewise.
        #[serde(default)]
        memory: Option<Box<weir_mitigator::Checkpoint>>,
    },
    /// A shard sealed a slice.
    Slice(Box<Slice>),
    /// A shard reports its exporters.
    Exporters {
        /// Which shard.
        shard: u16,
        /// Their health.
        exporters: Vec<ExporterStatus>,
    },
    /// An actuator reports.
    Observed(Box<Observed>),
    /// An operator asks.
    Command(Box<Command>),
    /// What is protected has changed.
    Inventory(Arc<Inventory>),
    /// The ladder has changed.
    Ladder(Vec<RungConfig>),
    /// The configuration file was read again: settings as TOML, for JSON has no infinity.
    Tuned(Box<Tuning>),
    /// A slot ended: judge and decide.
    Advance,
}

/// What came of one [`Core::advance`].
#[derive(Debug, Default)]
pub struct Turn {
    /// The state to converge on, when it changed.
    pub desired: Option<Admitted>,
    /// Decisions taken, in order.
    pub decisions: Vec<Decision>,
    /// Incidents that changed, for the store.
    pub changed: Vec<Arc<Incident>>,
    /// Evidence behind incidents, for the store.
    pub evidence: Vec<(IncidentId, Evidence)>,
}

/// The single writer of every decision.
#[derive(Debug)]
pub struct Core {
    detector: Detector,
    mitigator: Mitigator,
    verdicts: Vec<Verdict>,
    exporters: BTreeMap<u16, Vec<ExporterStatus>>,
    peers: BTreeMap<String, PeerStatus>,
    /// Peers that a file read again no longer has, whose last words may still come.
    gone: BTreeSet<String>,
    inventory: Arc<Inventory>,
    /// Who may send: of those who never did there is a row, too.
    listed: Vec<ExporterConfig>,
    /// The second in which uplinks and totals were last looked at.
    looked: u64,
    /// Totals of groups, as they were then.
    totals: Vec<GroupTotal>,
}

/// Settings that change while weir runs and that are the core's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Tuning {
    detector: weir_detector::Config,
    mitigator: weir_mitigator::Config,
    guard: weir_mitigator::GuardConfig,
    exporters: Vec<ExporterConfig>,
    uplinks: Vec<UplinkConfig>,
    /// Which peers there are and what each can be given.
    bgp: Option<weir_bgp::config::Config>,
    /// Whether nodes with an agent take rules, too.
    nodes: bool,
}

impl Tuning {
    /// Those of a configuration. What has a way of its own, and what holds credentials, is left out.
    pub fn of(config: &Config) -> Self {
        Self {
            detector: config.detector.clone(),
            mitigator: weir_mitigator::Config {
                ladder: Vec::new(),
                webhooks: Vec::new(),
                scrubbers: Vec::new(),
                ..config.mitigator.clone()
            },
            guard: config.guard.clone(),
            exporters: config.collector.exporters.clone(),
            uplinks: config.links(),
            bgp: config.bgp.clone().map(without_passwords),
            nodes: config.agents.is_some(),
        }
    }

    fn peers(&self) -> Vec<KnownPeer> {
        self.bgp.as_ref().map(weir_bgp::config::Config::known_peers).unwrap_or_default()
    }
}

fn without_passwords(mut bgp: weir_bgp::config::Config) -> weir_bgp::config::Config {
    bgp.peers.iter_mut().for_each(|peer| peer.password = None);
    bgp
}

impl From<Tuning> for String {
    fn from(tuning: Tuning) -> Self {
        let exporters = tuning.exporters;
        let config = Config {
            detector: tuning.detector,
            mitigator: tuning.mitigator,
            guard: tuning.guard,
            collector: weir_collector::Config { exporters, ..Default::default() },
            uplinks: tuning.uplinks,
            bgp: tuning.bgp,
            agents: tuning.nodes.then(Default::default),
            ..Config::default()
        };
        // Every section of the configuration has a TOML form: `weir check --dump` prints it.
        weir_config::dump(&config).unwrap_or_default()
    }
}

impl TryFrom<String> for Tuning {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        weir_config::read_dump(&text).map(|config| Self::of(&config)).map_err(|e| e.to_string())
    }
}

impl Core {
    /// Builds the core; binds nothing.
    pub fn new(config: &Config, inventory: &Arc<Inventory>) -> Self {
        let mut mitigator =
            Mitigator::new(config.mitigator.clone(), config.guard.clone(), Arc::clone(inventory));
        let peers = config.bgp.as_ref().map(weir_bgp::config::Config::known_peers);
        mitigator.set_peers(peers.unwrap_or_default(), config.agents.is_some());
        mitigator.set_uplinks(&config.links());
        Self {
            detector: Detector::new(config.detector.clone(), Arc::clone(inventory)),
            mitigator,
            verdicts: Vec::new(),
            exporters: BTreeMap::new(),
            peers: BTreeMap::new(),
            gone: BTreeSet::new(),
            inventory: Arc::clone(inventory),
            listed: config.collector.exporters.clone(),
            looked: 0,
            totals: Vec::new(),
        }
    }

    /// Takes back what the last run left open: still wanted measures are desired at once, and the
    /// incidents go on under their numbers until the detector sees them end.
    pub fn restore(
        &mut self,
        incidents: Vec<Incident>,
        baselines: Option<weir_detector::Checkpoint>,
        memory: Option<weir_mitigator::Checkpoint>,
        now: Millis,
    ) {
        if let Some(baselines) = baselines {
            self.detector.restore(baselines, now);
        }
        if let Some(memory) = memory {
            self.mitigator.restore_checkpoint(memory, now);
        }
        self.mitigator.restore(incidents, now);
        let open: Vec<Arc<Incident>> = self
            .mitigator
            .incidents()
            .filter(|incident| incident.closed.is_none())
            .map(Arc::clone)
            .collect();
        self.detector.resume(&open);
    }

    /// What is protected has changed.
    pub fn set_inventory(&mut self, inventory: &Arc<Inventory>) {
        self.detector.set_inventory(Arc::clone(inventory));
        self.mitigator.set_inventory(Arc::clone(inventory));
        self.inventory = Arc::clone(inventory);
    }

    /// The ladder has changed.
    pub fn set_ladder(&mut self, ladder: Vec<RungConfig>) {
        self.mitigator.set_ladder(ladder);
    }

    /// The configuration file was read again. Its mode counts where it has changed, but never above the brake.
    pub fn tune(&mut self, tuning: Tuning, now: Millis) {
        let peers = tuning.peers();
        self.mitigator.set_file_mode(tuning.mitigator.mode, now);
        self.detector.set_config(tuning.detector);
        self.mitigator.set_config(tuning.mitigator, tuning.guard);
        self.mitigator.set_uplinks(&tuning.uplinks);
        self.gone.extend(self.peers.keys().cloned());
        for peer in &peers {
            self.gone.remove(&peer.name);
        }
        self.peers.retain(|name, _| !self.gone.contains(name));
        self.mitigator.set_peers(peers, tuning.nodes);
        self.listed = tuning.exporters;
    }

    /// A shard sealed a slice.
    pub fn slice(&mut self, slice: &Slice) {
        self.detector.slice(slice);
    }

    /// A shard reports its exporters.
    pub fn exporters(&mut self, shard: u16, exporters: Vec<ExporterStatus>) {
        self.detector.exporters(&exporters);
        self.mitigator.exporters(&exporters);
        self.exporters.insert(shard, exporters);
    }

    /// Whether a report says that something else was concluded about a peer than before: a rule that it
    /// rejects, a limit, or that this is over.
    pub fn concludes(&self, observed: &Observed) -> bool {
        let Observed::Peer(status) = observed else { return false };
        match self.peers.get(&status.name) {
            Some(known) => known.standing != status.standing,
            None => !status.standing.is_clear(),
        }
    }

    /// An actuator reports.
    pub fn observed(&mut self, observed: &Observed) {
        if let Observed::Peer(status) = observed {
            if self.gone.contains(&status.name) {
                return;
            }
            self.peers.insert(status.name.clone(), status.clone());
        }
        self.mitigator.observed(observed);
    }

    /// An operator asks.
    ///
    /// # Errors
    /// As detector and mitigator say: unknown, in conflict, or refused.
    pub fn command(
        &mut self,
        command: &Command,
        now: Millis,
    ) -> Result<Option<MitigationId>, CommandError> {
        match command {
            Command::Baseline { host, change, .. } => {
                self.detector.change_baseline(*host, *change).map(|()| None)
            }
            _ => self.mitigator.command(command, now),
        }
    }

    /// Applies a recorded input; what [`Self::advance`] yields is handed to `out`.
    pub fn replay(&mut self, input: Input, now: Millis, out: &mut impl FnMut(Turn)) {
        match input {
            Input::Restored { incidents, baselines, memory } => {
                self.restore(incidents, baselines.map(|b| *b), memory.map(|m| *m), now);
            }
            Input::Slice(slice) => self.slice(&slice),
            Input::Exporters { shard, exporters } => self.exporters(shard, exporters),
            Input::Observed(observed) => self.observed(&observed),
            // The outcome went to the operator who asked; the state change is what is replayed.
            Input::Command(command) => drop(self.command(&command, now)),
            Input::Inventory(inventory) => self.set_inventory(&inventory),
            Input::Ladder(ladder) => self.set_ladder(ladder),
            Input::Tuned(tuning) => self.tune(*tuning, now),
            Input::Advance => out(self.advance(now)),
        }
    }

    /// The slot that ended at `now` is complete: judge, decide, and say what changed.
    pub fn advance(&mut self, now: Millis) -> Turn {
        self.verdicts.clear();
        self.detector.advance(now, &mut self.verdicts);
        for verdict in &self.verdicts {
            self.mitigator.verdict(verdict, now);
        }
        for (incident, target) in self.mitigator.observed_after(now) {
            if let Some(legitimate) = self.detector.legitimate(target) {
                self.mitigator.fares(incident, legitimate, now);
            }
        }
        if now.secs() != self.looked {
            self.looked = now.secs();
            let exporters = self.exporter_table();
            self.totals = self.detector.totals();
            let absences = self.detector.absences();
            let told = Told { exporters: &exporters, totals: &self.totals, absences: &absences };
            self.mitigator.look(told, now);
        }
        let desired = self.mitigator.advance(now);
        Turn {
            desired,
            decisions: self.mitigator.take_decisions(),
            changed: self.mitigator.take_changed(),
            evidence: self.detector.take_evidence(),
        }
    }

    /// Verdicts of the last [`Self::advance`].
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// The detector, for views of hosts and checkpoints.
    pub const fn detector(&self) -> &Detector {
        &self.detector
    }

    /// The mitigator, for views of incidents and the ledger.
    pub const fn mitigator(&self) -> &Mitigator {
        &self.mitigator
    }

    /// A host's baselines and thresholds, if it was ever seen.
    pub fn baselines(&self, host: IpAddr) -> Option<HostBaselines> {
        let view = self.detector.host_view(host)?;
        let baselines = view.baselines.into_iter().map(|base| HostBaseline {
            metric: base.metric,
            direction: base.direction,
            now: base.now,
            mean: base.mean,
            p99: base.p99,
            level: base.level,
            threshold: base.threshold,
            source: base.source.to_owned(),
            seconds: base.seconds,
            own: base.own,
        });
        Some(HostBaselines {
            host: view.host,
            watched: view.watched,
            since: view.since,
            learning: view.learning,
            suspect: view.suspect,
            frozen: view.frozen,
            baselines: baselines.collect(),
        })
    }

    /// What everybody may see.
    pub fn snapshot(&self, now: Millis) -> Snapshot {
        let mut incidents: Vec<Arc<Incident>> =
            self.mitigator.incidents().map(Arc::clone).collect();
        incidents.sort_by_key(|incident| std::cmp::Reverse(incident.id));
        incidents.truncate(SNAPSHOT_INCIDENTS_MAX);
        let outlook = |i: &Arc<Incident>| Some((i.id, self.mitigator.outlook(i.id)?));
        let outlooks = incidents.iter().filter_map(outlook).collect();
        let mut mitigations: Vec<Mitigation> = self.mitigator.mitigations().cloned().collect();
        mitigations.sort_by_key(|m| std::cmp::Reverse(m.id));
        mitigations.truncate(SNAPSHOT_MITIGATIONS_MAX);
        Snapshot {
            at: now,
            mode: self.mitigator.mode(),
            stance: self.mitigator.stance().cloned(),
            outlooks,
            incidents,
            mitigations,
            desired: self.mitigator.desired().as_ref().clone(),
            exporters: self.exporter_table(),
            peers: self.peers.values().cloned().collect(),
            inventory: Arc::clone(&self.inventory),
            ladder: self.mitigator.ladder().iter().map(RungConfig::shown).collect(),
            spared: self.mitigator.spared().copied().collect(),
            intake: Intake::default(),
            uplinks: self.mitigator.links().uplinks(),
            conditions: self.mitigator.links().conditions(now),
            totals: self.totals.clone(),
        }
    }

    /// One row an exporter: what its sockets saw, added up.
    fn exporter_table(&self) -> Vec<ExporterStatus> {
        let mut table: BTreeMap<ExporterId, ExporterStatus> = BTreeMap::new();
        for status in self.exporters.values().flatten() {
            match table.get_mut(&status.id) {
                Some(row) => merge(row, status),
                None => {
                    table.insert(status.id, status.clone());
                }
            }
        }
        let mut table: Vec<ExporterStatus> = table.into_values().collect();
        // Numbers from the end: those in use are given from the beginning.
        for (entry, number) in self.listed.iter().zip((0..=u16::MAX).rev()) {
            if !table.iter().any(|row| entry.address.contains(&row.address)) {
                table.push(unheard(entry, ExporterId(number)));
            }
        }
        table
    }
}

/// An exporter that is listed and has never sent anything.
fn unheard(entry: &ExporterConfig, id: ExporterId) -> ExporterStatus {
    let address = entry.address.addr();
    let alone = entry.address.prefix_len() == entry.address.max_prefix_len();
    let text = if alone { address.to_string() } else { entry.address.to_string() };
    ExporterStatus {
        id,
        address,
        name: entry.name.clone().unwrap_or(text),
        protocol: None,
        last_seen: Millis(0),
        datagrams: 0,
        records: 0,
        decode_errors: 0,
        unknown_templates: 0,
        lost: 0,
        templates: 0,
        sampling: 0,
        // Nothing is counted too low of one that sends nothing.
        sampling_source: SamplingSource::Default,
        lag_ms: 0,
        lag_p50_ms: 0,
        active_timeout_ms: 0,
        duplicates: 0,
        sampling_doubted: 0,
        drops: Vec::new(),
        clock_skew_ms: 0,
        interfaces: Vec::new(),
        links: Vec::new(),
        agent: None,
        troubles: Vec::new(),
    }
}

fn merge(row: &mut ExporterStatus, other: &ExporterStatus) {
    if other.last_seen > row.last_seen {
        row.protocol = other.protocol;
        row.sampling = other.sampling;
        row.sampling_source = other.sampling_source;
        row.clock_skew_ms = other.clock_skew_ms;
        row.last_seen = other.last_seen;
    }
    row.datagrams += other.datagrams;
    row.records += other.records;
    row.decode_errors += other.decode_errors;
    row.unknown_templates += other.unknown_templates;
    row.lost += other.lost;
    row.templates = row.templates.max(other.templates);
    row.lag_ms = row.lag_ms.max(other.lag_ms);
    row.lag_p50_ms = row.lag_p50_ms.max(other.lag_p50_ms);
    row.active_timeout_ms = row.active_timeout_ms.max(other.active_timeout_ms);
    row.duplicates += other.duplicates;
    row.sampling_doubted = row.sampling_doubted.max(other.sampling_doubted);
    for count in &other.links {
        match row.links.iter_mut().find(|own| own.index == count.index) {
            Some(own) => {
                own.in_bytes = own.in_bytes.wrapping_add(count.in_bytes);
                own.out_bytes = own.out_bytes.wrapping_add(count.out_bytes);
            }
            None => row.links.push(*count),
        }
    }
    for trouble in &other.troubles {
        if let Err(at) = row.troubles.binary_search(trouble) {
            row.troubles.insert(at, *trouble);
        }
    }
    for interface in &other.interfaces {
        match row.interfaces.binary_search_by_key(&interface.index, |own| own.index) {
            Ok(at) => row.interfaces[at].add(interface.clone()),
            Err(at) => row.interfaces.insert(at, interface.clone()),
        }
    }
    for drop in &other.drops {
        match row.drops.iter_mut().find(|own| own.reason == drop.reason) {
            Some(own) => own.count += drop.count,
            None => row.drops.push(drop.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    mod aftermath;
    mod groups;

    use std::num::NonZeroU64;

    use weir_model::{BaselineChange, Direction, Metric};

    use super::*;

    #[test]
    fn settings_read_again_are_replayed_as_they_were() {
        let mut config = Config::default();
        config.detector.multiplier = 4.5;
        config.mitigator.ttl_secs = 60;
        config.guard.max_total = 7;
        config.collector.exporters.push(ExporterConfig::new("192.0.2.1/32".parse().unwrap()));
        let mut bgp = weir_bgp::config::Config::new(65010, [10, 0, 0, 1].into());
        let address = [192, 0, 2, 9].into();
        bgp.peers.push(weir_bgp::config::PeerConfig::new("edge", address, 65010));
        config.bgp = Some(bgp);
        let tuning = Tuning::of(&config);
        // Thresholds of prefixes are infinite, which JSON cannot say.
        assert!(tuning.detector.prefix_floors.outbound_bits_per_sec.is_infinite());
        let line = serde_json::to_string(&Input::Tuned(Box::new(tuning.clone()))).unwrap();
        let Input::Tuned(back) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(*back, tuning);
        let inventory = Arc::new(Inventory::default());
        let mut core = Core::new(&Config::default(), &inventory);
        core.replay(Input::Tuned(back), Millis(0), &mut |_| {});
        assert_eq!(core.mitigator().guard().config().max_total, 7);
        let exporters = core.snapshot(Millis(0)).exporters;
        assert_eq!((exporters.len(), exporters[0].last_seen), (1, Millis(0)), "never heard");
    }

    #[test]
    fn a_file_that_is_read_again_sets_the_mode_but_never_lifts_the_brake() {
        let config = Config::default();
        let inventory = Arc::new(Inventory::default());
        let now = Millis::from_secs(1_800_000_000);
        let mut auto = config.clone();
        auto.mitigator.mode = weir_model::Mode::Auto;
        let mut free = Core::new(&config, &inventory);
        free.tune(Tuning::of(&auto), now);
        assert_eq!(free.mitigator().mode(), weir_model::Mode::Auto);
        let mut braked = Core::new(&config, &inventory);
        braked.command(&Command::Panic { by: "eve".into() }, now).unwrap();
        braked.tune(Tuning::of(&auto), now);
        assert_eq!(braked.mitigator().mode(), weir_model::Mode::Observe);
    }

    #[test]
    fn a_change_of_baselines_is_replayed_to_the_same_state() {
        const START: Millis = Millis::from_secs(1_800_000_000);
        let mut config = Config::default();
        config.protect.prefixes = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        let protected = config.protect.prefixes.clone();
        let inventory = Arc::new(Inventory::new(protected, Vec::new().into(), Vec::new()));
        let host: IpAddr = "203.0.113.7".parse().unwrap();
        let threshold = BaselineChange::Threshold {
            metric: Metric::BitsPerSec,
            direction: Direction::Inbound,
            value: NonZeroU64::new(5_000_000),
        };
        let ask = |host, change| Command::Baseline { host, change, by: "eve".into() };
        let (mut live, mut played) =
            (Core::new(&config, &inventory), Core::new(&config, &inventory));
        let mut replay = |input: &Input, at| {
            let line = serde_json::to_string(input).unwrap();
            played.replay(serde_json::from_str(&line).unwrap(), at, &mut |_| {});
        };
        live.advance(START);
        replay(&Input::Advance, START);
        let later = START + 600_000;
        live.advance(later);
        replay(&Input::Advance, later);
        for change in [threshold, BaselineChange::Freeze] {
            let command = ask(host, change);
            assert_eq!(live.command(&command, later), Ok(None));
            replay(&Input::Command(Box::new(command)), later);
        }
        let outside = ask("198.51.100.1".parse().unwrap(), BaselineChange::Freeze);
        assert_eq!(live.command(&outside, later), Err(CommandError::NotFound));
        let view = live.baselines(host).unwrap();
        assert!(view.frozen);
        let bits = &view.baselines[1];
        assert_eq!((bits.threshold, bits.source.as_str()), (5_000_000.0, "operator"));
        assert_eq!(played.baselines(host), Some(view));
        let kept = |core: &Core| serde_json::to_string(&core.detector().checkpoint()).unwrap();
        assert_eq!(kept(&live), kept(&played));
    }
}
