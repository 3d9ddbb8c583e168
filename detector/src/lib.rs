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

mod baseline;
mod confidence;
mod config;
mod evidence;
mod hash;
mod host;
mod incident;
mod judge;
mod metric;
mod prior;
pub mod signature;
mod summary;
mod synthesis;
mod table;
#[cfg(test)]
mod tests;
mod vectors;
mod window;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{
    Direction, ExporterStatus, Incident, IncidentId, IncidentState, Inventory, LongFlow, Millis,
    SLICE_MS, Sample, Slice, Verdict,
};

pub use config::{Config, Floors};
pub use host::{BaselineView, HostView};

use evidence::Packet;
use host::{Idle, Warm};
use incident::Active;
use metric::Significance;
use table::{NONE, Table};
use window::{Cell, SLOTS_PER_SEC, saturate};

/// Cells of quiet hosts kept until the slot's end, so that a host that wakes up loses none.
const COLD_CELLS_MAX: usize = 1 << 20;
/// Samples looked at in one slot.
const SAMPLES_MAX: usize = 1 << 16;
/// Slots in which all watched hosts are looked after once, however quiet.
const SWEEP: usize = 100;

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
    /// Samples left out because a slot had too many.
    pub samples_refused: u64,
    /// Windows above a threshold.
    pub alarms: u64,
    /// Alarms that evidence did not support.
    pub alarms_unconvincing: u64,
    /// Alarms for which `incidents_max` left no room.
    pub incidents_refused: u64,
    /// Incidents opened.
    pub incidents_opened: u64,
    /// Slices lost before they reached the detector.
    pub slices_lost: u64,
}

/// State worth keeping over a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When it was taken.
    pub at: Millis,
    /// Number of the last incident.
    pub last_id: Option<IncidentId>,
    /// When the detector began to watch, seconds since the epoch.
    since: u64,
    hosts: Vec<HostCheckpoint>,
}

/// What is kept of one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct HostCheckpoint {
    host: IpAddr,
    since: u64,
    baselines: Vec<baseline::Baseline>,
    profile: evidence::Profile,
}

/// A sample on its way to its host's profile.
#[derive(Debug)]
struct Pending {
    host: u32,
    packet: Packet,
}

/// The detector.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    rule: Significance,
    inventory: Arc<Inventory>,
    table: Table,
    idle: Vec<Idle>,
    warm: Vec<Option<Box<Warm>>>,
    free: Vec<u32>,
    /// Watched hosts by the slot of a ten-second round in which they are looked after.
    sweep: Vec<Vec<u32>>,
    /// Hosts touched in this slot, quiet and watched.
    touched_idle: Vec<u32>,
    touched_warm: Vec<u32>,
    cold: Vec<(u32, u64, Cell)>,
    pending: Vec<Pending>,
    incidents: BTreeMap<IncidentId, Active>,
    by_host: BTreeMap<IpAddr, IncidentId>,
    exporters: Vec<String>,
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
        let rule =
            Significance { min_samples: config.min_samples, ln_tail: config.tail.max(1e-300).ln() };
        Self {
            table: Table::new(&inventory.protected),
            config,
            rule,
            inventory,
            idle: Vec::new(),
            warm: Vec::new(),
            free: Vec::new(),
            sweep: vec![Vec::new(); SWEEP],
            touched_idle: Vec::new(),
            touched_warm: Vec::new(),
            cold: Vec::new(),
            pending: Vec::new(),
            incidents: BTreeMap::new(),
            by_host: BTreeMap::new(),
            exporters: Vec::new(),
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

    /// Takes what one shard saw in a slot; any number per slot, in any order.
    pub fn slice(&mut self, slice: &Slice) {
        self.counters.slices_lost += u64::from(slice.lost_slices);
        let lowest = self.next_watermark.map_or(slice.watermark, |w| w.min(slice.watermark));
        self.next_watermark = Some(lowest);
        let arrival = Millis::from_slot(slice.slot).secs();
        self.since.get_or_insert(arrival);
        for host in &slice.hosts {
            let cell = Cell::of_host(host);
            self.cell(host.host, host.slot.min(slice.slot), arrival, &cell);
        }
        for service in &slice.services {
            if service.protocol == 17 {
                let cell =
                    Cell { service_udp: saturate(service.inbound.packets), ..Cell::default() };
                self.cell(service.host, service.slot.min(slice.slot), arrival, &cell);
            }
        }
        for flow in &slice.long_flows {
            self.long_flow(flow, slice.slot, arrival);
        }
        for sample in &slice.samples {
            self.sample(sample, slice.slot, arrival);
        }
    }

    /// The place of a host, made when it is protected and there is room.
    fn place(&mut self, address: IpAddr, arrival: u64) -> Option<u32> {
        let place = self.table.get(address);
        if place != NONE {
            return Some(place);
        }
        if !self.inventory.protected.contains(address) {
            return None;
        }
        let dense = self.table.is_dense(address);
        if !dense && self.table.sparse_len() >= self.config.ipv6_hosts_max {
            self.counters.hosts_refused += 1;
            return None;
        }
        let place = u32::try_from(self.idle.len()).ok().filter(|p| *p != NONE)?;
        // A host that was silent until now has been watched all the same.
        let since = self.since.unwrap_or(arrival);
        self.idle.push(Idle::new(address, saturate(since)));
        self.table.set(address, place);
        Some(place)
    }

    fn cell(&mut self, address: IpAddr, slot: u64, arrival: u64, cell: &Cell) {
        self.counters.cells += 1;
        let Some(place) = self.place(address, arrival) else { return };
        let idle = &mut self.idle[place as usize];
        if idle.warm != NONE {
            if let Some(warm) = self.warm[idle.warm as usize].as_deref_mut() {
                if !warm.window.add(slot, cell) {
                    self.counters.late += 1;
                }
                if !warm.touched {
                    warm.touched = true;
                    self.touched_warm.push(idle.warm);
                }
            }
            return;
        }
        let packets = cell.total() + u64::from(cell.out_packets);
        idle.add(packets, cell.variance, saturate(arrival / 16));
        if !idle.touched {
            idle.touched = true;
            self.touched_idle.push(place);
        }
        if self.cold.len() < COLD_CELLS_MAX {
            self.cold.push((place, slot, *cell));
        }
    }

    /// Spreads a long flow over its seconds.
    fn long_flow(&mut self, flow: &LongFlow, slot: u64, arrival: u64) {
        let last = flow.end.slot().min(slot) / SLOTS_PER_SEC;
        let first = (flow.start.slot() / SLOTS_PER_SEC).min(last);
        let seconds = last - first + 1;
        // What is older than the windows need not be written at all.
        for second in first.max(last.saturating_sub(40))..=last {
            let mut cell = Cell { variance: flow.variance / seconds, ..Cell::default() };
            let packets = saturate(flow.volume.packets / seconds);
            if flow.outbound {
                cell.variance = 0;
                cell.out_packets = packets;
                cell.out_bytes = flow.volume.bytes / seconds;
            } else {
                cell.packets[flow.class as usize] = packets;
                cell.bytes = flow.volume.bytes / seconds;
                if flow.protocol == 17 && flow.service_port != 0 {
                    cell.service_udp = packets;
                }
            }
            self.cell(flow.host, second * SLOTS_PER_SEC, arrival, &cell);
        }
    }

    fn sample(&mut self, sample: &Sample, slot: u64, arrival: u64) {
        if !Packet::counts(sample) || !self.inventory.protected.contains(sample.record.dst) {
            return;
        }
        let Some(host) = self.place(sample.record.dst, arrival) else { return };
        if self.pending.len() >= SAMPLES_MAX {
            self.counters.samples_refused += 1;
            return;
        }
        self.pending.push(Pending { host, packet: Packet::new(sample, slot) });
    }

    /// Ends a slot: call once per 100 ms after its slices. Appends what is to be said.
    pub fn advance(&mut self, now: Millis, out: &mut Vec<Verdict>) {
        self.clock = self.clock.max(now);
        self.since.get_or_insert_with(|| now.secs());
        if let Some(watermark) = self.next_watermark.take() {
            self.watermark = self.watermark.max(watermark.min(now));
        }
        // Silence is news as well: without any slice nothing is still to come after a while.
        self.watermark = self.watermark.max(now - 90_000);
        self.wake();
        self.keep_samples();
        let mut touched = std::mem::take(&mut self.touched_warm);
        let mut alarmed: Vec<(IpAddr, u32)> = Vec::new();
        for &place in &touched {
            if self.tend(place) {
                alarmed.push((
                    self.warm[place as usize]
                        .as_ref()
                        .map_or_else(|| IpAddr::from([0; 4]), |w| w.address),
                    place,
                ));
            }
        }
        touched.clear();
        self.touched_warm = touched;
        self.sweep();
        alarmed.sort_unstable();
        for (_, place) in alarmed {
            self.alarm(place, out);
        }
        self.follow(out);
    }

    /// Gives windows and baselines to quiet hosts that became busy.
    fn wake(&mut self) {
        let mut touched = std::mem::take(&mut self.touched_idle);
        let mut woken: Vec<(IpAddr, u32)> = Vec::new();
        for &place in &touched {
            let idle = &mut self.idle[place as usize];
            idle.touched = false;
            let busy = idle.packets >= self.config.warm_packets_per_sec.saturating_mul(16);
            // Three samples at the least: one sampled packet alone is no business.
            let samples = metric::part_samples(idle.packets, idle.packets, idle.variance);
            if busy && (samples >= 3.0 || idle.variance == 0) {
                woken.push((idle.address, place));
            }
        }
        touched.clear();
        self.touched_idle = touched;
        woken.sort_unstable();
        for (address, place) in woken {
            self.warm_up(address, place);
        }
        let mut cold = std::mem::take(&mut self.cold);
        for (place, slot, cell) in cold.drain(..) {
            let at = self.idle[place as usize].warm;
            if at != NONE
                && let Some(warm) = self.warm[at as usize].as_deref_mut()
            {
                warm.window.add(slot, &cell);
                if !warm.touched {
                    warm.touched = true;
                    self.touched_warm.push(at);
                }
            }
        }
        self.cold = cold;
    }

    fn warm_up(&mut self, address: IpAddr, place: u32) {
        let used = self.warm.len() - self.free.len();
        if used >= self.config.warm_hosts_max {
            self.counters.warm_refused += 1;
            return;
        }
        let since = u64::from(self.idle[place as usize].since);
        let warm = Box::new(Warm::new(address, since, self.clock.slot(), &self.config));
        let at = match self.free.pop() {
            Some(at) => {
                self.warm[at as usize] = Some(warm);
                at
            }
            None => {
                let Ok(at) = u32::try_from(self.warm.len()) else { return };
                self.warm.push(Some(warm));
                at
            }
        };
        self.idle[place as usize].warm = at;
        self.sweep[sweep_slot(address)].push(at);
    }

    /// Hands samples to the profiles of watched hosts, in an order of content.
    fn keep_samples(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let now = self.clock.secs();
        for Pending { host, packet } in pending.drain(..) {
            let at = self.idle[host as usize].warm;
            if at != NONE
                && let Some(warm) = self.warm[at as usize].as_deref_mut()
            {
                let attacked = now <= warm.suspect_until;
                warm.profile.push(packet, attacked);
            }
        }
        self.pending = pending;
    }

    /// Looks after a watched host that was touched; whether it needs judging.
    fn tend(&mut self, place: u32) -> bool {
        let (watermark, now) = (self.watermark.secs(), self.clock.secs());
        let Some(warm) = self.warm[place as usize].as_deref_mut() else { return false };
        warm.touched = false;
        if warm.open_second < watermark {
            warm.roll(watermark, now, &self.config);
        }
        !self.by_host.contains_key(&warm.address) && warm.worth_a_look()
    }

    /// Looks after a hundredth of all watched hosts; forgets those that fell silent.
    fn sweep(&mut self) {
        let (watermark, now) = (self.watermark.secs(), self.clock.secs());
        let round = usize::try_from(self.clock.slot() % SWEEP as u64).unwrap_or(0);
        let mut list = std::mem::take(&mut self.sweep[round]);
        list.retain(|&at| {
            let Some(warm) = self.warm[at as usize].as_deref_mut() else { return false };
            warm.roll(watermark, now, &self.config);
            let silent = warm.last_traffic + 600 < watermark && !warm.touched;
            let busy = self.by_host.contains_key(&warm.address) || now <= warm.suspect_until;
            if !silent || busy {
                return true;
            }
            let place = self.table.get(warm.address);
            if place != NONE {
                self.idle[place as usize].warm = NONE;
            }
            self.warm[at as usize] = None;
            self.free.push(at);
            false
        });
        self.sweep[round] = list;
    }

    /// Names of exporters by their number.
    pub fn exporters(&mut self, exporters: &[ExporterStatus]) {
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
            let verdict = incident.verdict.clone();
            let host = verdict.target.addr();
            let reason = &verdict.reason;
            let index = metric::HOST_METRICS.iter().position(|m| *m == reason.metric).unwrap_or(0);
            let mut thresholds = metric::floors(&self.config.floors);
            thresholds[index] = reason.threshold.max(1.0);
            self.by_host.insert(host, incident.id);
            self.incidents.insert(
                incident.id,
                Active {
                    id: incident.id,
                    host,
                    target: verdict.target,
                    alarm: host::Alarm {
                        metric: reason.metric,
                        index,
                        value: reason.value,
                        baseline: reason.baseline,
                        threshold: reason.threshold,
                        window_ms: reason.window_ms,
                        samples: reason.samples,
                        sampling: reason.sampling,
                        service: reason.service,
                        direction: Direction::Inbound,
                    },
                    thresholds,
                    peak: verdict.peak,
                    said: verdict.at,
                    judged: verdict.at,
                    last: Some(verdict),
                    open_second: 0,
                    quiet: 0,
                },
            );
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
        self.inventory = inventory;
    }

    /// What is worth keeping over a restart.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut hosts: Vec<HostCheckpoint> = self
            .warm
            .iter()
            .flatten()
            .map(|warm| HostCheckpoint {
                host: warm.address,
                since: warm.since,
                baselines: warm.baselines.to_vec(),
                profile: warm.profile.clone(),
            })
            .collect();
        hosts.sort_by_key(|h| h.host);
        Checkpoint { at: self.clock, last_id: self.last_id, since: self.since.unwrap_or(0), hosts }
    }

    /// Takes a checkpoint up. Baselines older than a day are not used: the last five minutes of
    /// yesterday say nothing of now.
    pub fn restore(&mut self, checkpoint: Checkpoint, now: Millis) {
        self.clock = self.clock.max(now);
        self.last_id = self.last_id.max(checkpoint.last_id);
        if now.since(checkpoint.at) > 86_400_000 {
            return;
        }
        self.since = Some(checkpoint.since.min(now.secs()));
        for kept in checkpoint.hosts {
            let Some(place) = self.place(kept.host, now.secs()) else { continue };
            self.idle[place as usize].since = saturate(kept.since);
            self.warm_up(kept.host, place);
            let at = self.idle[place as usize].warm;
            if at == NONE {
                continue;
            }
            if let Some(warm) = self.warm[at as usize].as_deref_mut() {
                warm.restore(kept.baselines, kept.profile, &self.config, now.secs());
            }
        }
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
                baselines: Vec::new(),
            },
            |warm| warm.view(&self.config, self.clock),
        ))
    }
}

/// The slot of a ten-second round in which a host is looked after: by its address, so that it does
/// not depend on when it was first seen.
fn sweep_slot(address: IpAddr) -> usize {
    let wide = match address {
        IpAddr::V4(a) => u64::from(u32::from(a)),
        IpAddr::V6(a) => {
            let a = u128::from(a);
            #[expect(clippy::cast_possible_truncation, reason = "halves of an address")]
            let folded = (a >> 64) as u64 ^ a as u64;
            folded
        }
    };
    usize::try_from(hash::mix(0, wide) % SWEEP as u64).unwrap_or(0)
}

const _: () = assert!(SWEEP as u64 * SLICE_MS == 10_000, "baselines are due every ten seconds");
