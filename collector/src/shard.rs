//! One shard: exporters' state and the slice being filled, owned by one thread.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use weir_model::{ExporterId, ExporterStatus, FlowRecord, Inventory, Millis, Slice};

use crate::accumulate::{Accumulator, Overflow, Router, Share};
use crate::checkpoint::{Checkpoint, ExporterCheckpoint};
use crate::config::{Config, ExporterConfig};
use crate::decode::packet::{self, LinkType, View};
use crate::decode::{self, Context, Tally, Visit};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::exporter::Exporter;
use crate::registry::{Registry, Sender};
use crate::tap::{Both, Tap};
use crate::tenure::{Newcomers, Standing};
use crate::time::Timeouts;

/// Unlisted senders remembered by address.
const MAX_UNLISTED: usize = 32;
/// An exporter silent for longer does not hold the watermark back. Milliseconds.
const ACTIVE_MS: u64 = 120_000;
/// How often the learned lags are looked at anew. Milliseconds.
const WATERMARK_EVERY_MS: u64 = 1000;

/// What a shard has counted since it began. Plain data, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Datagrams seen, those of unlisted senders included.
    pub datagrams: u64,
    /// Octets of their payload.
    pub bytes: u64,
    /// Datagrams of senders in no `exporters` entry.
    pub unlisted: u64,
    /// The last unlisted senders, at most 32: whom an operator may want to add.
    pub unlisted_senders: Vec<UnlistedSender>,
    /// Errors by [`DecodeErrorKind`] index.
    pub errors: [u64; DecodeErrorKind::COUNT],
    /// The first datagram on which the decoder failed by a mistake of weir's: to be reported.
    pub failed_datagram: Option<Vec<u8>>,
    /// Data records of NetFlow and IPFIX, and sFlow flow samples.
    pub data_records: u64,
    /// Option records of NetFlow v9 and IPFIX.
    pub option_records: u64,
    /// sFlow flow samples.
    pub flow_samples: u64,
    /// sFlow counter samples.
    pub counter_samples: u64,
    /// sFlow discarded-packet samples.
    pub drop_samples: u64,
    /// Records and samples that were traffic and were added up.
    pub flows: u64,
    /// Records that tell of events, not of traffic.
    pub not_traffic: u64,
    /// Samples of packets that are not IP.
    pub not_ip: u64,
    /// Records of packets that other records had told of: not counted again. Those that another
    /// exporter told of are in `flows` as well.
    pub duplicates: u64,
    /// Records whose times were absurd and taken as their arrival.
    pub implausible_times: u64,
    /// Records that cannot be, and were not added up: more than packets hold or interfaces carry.
    #[serde(default)]
    pub implausible: u64,
    /// Data sets whose template is not known.
    pub unknown_templates: u64,
    /// Records not added up because the slice had no room for another host.
    pub hosts_over_limit: u64,
    /// Records added up for a network because the slice had no room for another host.
    pub hosts_merged: u64,
    /// Long flows that had no room in the slice.
    pub long_flows_over_limit: u64,
    /// Records lost because a worker that adds up could not keep up.
    pub queue_drops: u64,
    /// TCP connections not taken: from strangers, or too many.
    pub refused_connections: u64,
    /// Datagrams that the kernel dropped because the socket's buffer was full.
    pub socket_drops: u64,
    /// Datagrams sent on to other collectors, each to each.
    #[serde(default)]
    pub replicated: u64,
    /// Datagrams that another collector was not sent, for want of room or of a way.
    #[serde(default)]
    pub replicate_drops: u64,
    /// Receive buffer asked for, octets.
    pub receive_buffer_asked: u64,
    /// Receive buffer that the kernel gave, octets.
    pub receive_buffer_given: u64,
}

/// Sums over exporters.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    errors: [u64; DecodeErrorKind::COUNT],
    unknown_templates: u64,
    implausible: u64,
    duplicates: u64,
    implausible_times: u64,
}

impl Gone {
    fn add(&mut self, exporter: &Exporter) {
        for (sum, own) in self.errors.iter_mut().zip(&exporter.errors) {
            *sum = sum.saturating_add(*own);
        }
        self.unknown_templates += exporter.unknown_templates;
        self.implausible += exporter.implausible;
        self.duplicates += exporter.duplicates;
        self.implausible_times += exporter.implausible_times;
    }
}

/// A sender in no `exporters` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlistedSender {
    /// Its address.
    pub address: IpAddr,
    /// Datagrams it sent while remembered.
    pub datagrams: u64,
    /// When it last sent one.
    pub last_seen: Millis,
}

/// Decodes datagrams and adds them up. Has no clock and no socket: see [`crate::socket`].
#[derive(Debug)]
pub struct Shard {
    number: u16,
    config: Config,
    registry: Arc<Registry>,
    exporters: Vec<Exporter>,
    by_sender: FxHashMap<Sender, u32>,
    newcomers: Newcomers,
    free: Vec<u32>,
    next_serial: u32,
    /// What was counted of exporters that have been forgotten.
    gone: Gone,
    accumulator: Accumulator,
    /// Takes the accumulator's place when workers add up.
    router: Option<Router>,
    worker_overflow: Overflow,
    tap: Option<Tap>,
    inventory: Arc<Inventory>,
    tally: Tally,
    counters: Counters,
    lag_ms: u64,
    next_watermark: Millis,
    restored: Arc<Checkpoint>,
}

impl Shard {
    /// A shard with nothing seen. Shards of one collector share `registry`.
    pub fn new(
        shard: u16,
        config: &Config,
        inventory: Arc<Inventory>,
        registry: Arc<Registry>,
    ) -> Self {
        let mut accumulator = Accumulator::new(config, Arc::clone(&inventory));
        accumulator.leave_out(Arc::clone(registry.repeats()));
        Self {
            number: shard,
            config: config.clone(),
            registry,
            exporters: Vec::new(),
            by_sender: FxHashMap::default(),
            newcomers: Newcomers::default(),
            free: Vec::new(),
            next_serial: 0,
            gone: Gone::default(),
            accumulator,
            router: None,
            worker_overflow: Overflow::default(),
            tap: None,
            inventory,
            tally: Tally::default(),
            counters: Counters::default(),
            lag_ms: 0,
            next_watermark: Millis(0),
            restored: Arc::default(),
        }
    }

    /// Protects something else from now on. The slice being filled keeps what it has.
    pub fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        if let Some(router) = &mut self.router {
            router.set_protected(&inventory.protected);
        } else {
            self.accumulator.set_inventory(Arc::clone(&inventory));
        }
        self.inventory = inventory;
    }

    /// Listens to these from now on, and to nobody else.
    pub fn set_exporters(&mut self, exporters: &[ExporterConfig]) {
        exporters.clone_into(&mut self.config.exporters);
        for exporter in &mut self.exporters {
            let entry = self.config.exporter(exporter.sender.address);
            if entry.is_some_and(|e| !e.external_interfaces.is_empty()) {
                self.registry.repeats().settle(exporter.id);
            }
            exporter.set_entry(entry);
        }
    }

    /// An accumulator for a share of the hosts.
    pub(crate) fn worker_accumulator(&self, index: u32, of: u32) -> Accumulator {
        let inventory = Arc::clone(&self.inventory);
        let mut share = Accumulator::of_share(&self.config, inventory, Share { index, of });
        share.leave_out(Arc::clone(self.registry.repeats()));
        share
    }

    /// From now on records are sorted for so many workers instead of added up here.
    pub(crate) fn route(&mut self, workers: usize) {
        self.router = Some(Router::new(&self.inventory.protected, workers));
        // Gives back the index of hosts, which nobody uses here any more.
        self.accumulator = Accumulator::new(&self.config, Arc::default());
    }

    /// Records that wait for a worker.
    pub(crate) fn routed(&mut self, worker: usize) -> Option<&mut Vec<FlowRecord>> {
        self.router.as_mut()?.routed(worker)
    }

    /// Timeouts of exporters that the workers do not know of yet.
    pub(crate) fn take_timeouts(&mut self) -> Vec<(ExporterId, Timeouts)> {
        self.router.as_mut().map(Router::take_timeouts).unwrap_or_default()
    }

    pub(crate) fn set_worker_overflow(&mut self, overflow: Overflow) {
        self.worker_overflow = overflow;
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Gives the shard what an earlier run had learned. An exporter's part is used when the exporter
    /// is first heard, so that shards which never hear it do not hold it.
    pub fn restore(&mut self, checkpoint: Arc<Checkpoint>) {
        self.restored = checkpoint;
    }

    /// What must outlive a restart; exporters not heard yet keep what was restored for them.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        // Agents behind a relay send no templates.
        for exporter in self.known().filter(|exporter| exporter.sender.agent.is_none()) {
            let of = ExporterCheckpoint::of(exporter);
            if !(of.templates.is_empty() && of.sampling.is_empty()) {
                checkpoint.exporters.push(of);
            }
        }
        checkpoint.exporters.sort_by_key(|exporter| exporter.address);
        let mut all = Checkpoint::clone(&self.restored);
        all.exporters.retain(|e| checkpoint.exporter(e.address).is_none());
        all.merge(checkpoint);
        all
    }

    /// Takes in one datagram that came from `from` at `now`.
    ///
    /// # Errors
    /// Says what was wrong and where; what stood before that has counted. Errors are counted by
    /// exporter and kind as well, so a caller may drop them.
    pub fn datagram(
        &mut self,
        from: SocketAddr,
        payload: &[u8],
        now: Millis,
    ) -> Result<(), DecodeError> {
        self.message(from, 0, payload, now)
    }

    /// As [`Shard::datagram`], for a message of a connection unless `session` is 0.
    pub(crate) fn message(
        &mut self,
        from: SocketAddr,
        session: u32,
        payload: &[u8],
        now: Millis,
    ) -> Result<(), DecodeError> {
        let exporter = self.admit(from, payload, now)?;
        let exporter = &mut self.exporters[exporter as usize];
        let tally = &mut self.tally;
        let view = View { tunnel: self.config.tunnel, protected: &self.inventory.protected };
        let peer = (session, from.port());
        let named = exporter.sender.agent.unwrap_or(exporter.sender.address);
        let tap = self.tap.as_mut().and_then(|tap| tap.open(named));
        match (&mut self.router, tap) {
            (Some(visit), None) => {
                read(Context::new(exporter, tally, visit, now, view, peer), payload)
            }
            (Some(visit), Some(tap)) => {
                let visit = &mut Both { visit, tap };
                read(Context::new(exporter, tally, visit, now, view, peer), payload)
            }
            (None, tap) => {
                self.accumulator.arrive(now);
                let visit = &mut self.accumulator;
                let Some(tap) = tap else {
                    return read(Context::new(exporter, tally, visit, now, view, peer), payload);
                };
                let visit = &mut Both { visit, tap };
                read(Context::new(exporter, tally, visit, now, view, peer), payload)
            }
        }
    }

    /// Shows every record that is accepted to a tap, too.
    pub fn tap(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// Hands on what has gathered for the tap.
    pub(crate) fn flush_tap(&mut self) {
        if let Some(tap) = &mut self.tap {
            tap.flush();
        }
    }

    /// Takes note of a datagram on which decoding panicked.
    pub(crate) fn failed_on(&mut self, payload: &[u8]) {
        let count = &mut self.counters.errors[DecodeErrorKind::Internal as usize];
        *count = count.wrapping_add(1);
        self.counters.failed_datagram.get_or_insert_with(|| payload.to_vec());
    }

    /// Whether a connection from there may be taken; a stranger is counted as such.
    pub(crate) fn welcomes(&mut self, from: SocketAddr, now: Millis) -> bool {
        let address = from.ip().to_canonical();
        let listed = self.config.exporter(address).is_some();
        if !listed {
            self.refuse(address, now);
        }
        listed
    }

    /// Forgets what came by a connection that has ended.
    pub(crate) fn close(&mut self, from: SocketAddr, session: u32) {
        let sender = Sender { address: from.ip().to_canonical(), agent: None };
        if let Some(index) = self.by_sender.get(&sender) {
            self.exporters[*index as usize].close(session);
        }
    }

    /// Decodes a datagram as [`Shard::datagram`] does, templates and counters included, but shows
    /// the records instead of adding them up.
    ///
    /// # Errors
    /// As [`Shard::datagram`].
    pub fn records(
        &mut self,
        from: SocketAddr,
        payload: &[u8],
        now: Millis,
        see: impl FnMut(&FlowRecord),
    ) -> Result<(), DecodeError> {
        self.visit(from, payload, now, &mut See(see))
    }

    /// Decodes a datagram for somebody else than the accumulator.
    pub(crate) fn visit<V: Visit>(
        &mut self,
        from: SocketAddr,
        payload: &[u8],
        now: Millis,
        visit: &mut V,
    ) -> Result<(), DecodeError> {
        let exporter = self.admit(from, payload, now)?;
        let exporter = &mut self.exporters[exporter as usize];
        let tally = &mut self.tally;
        let view = View { tunnel: self.config.tunnel, protected: &self.inventory.protected };
        read(Context::new(exporter, tally, visit, now, view, (0, from.port())), payload)
    }

    /// Takes in a raw packet of a capture as one sample of rate `sampling`: `frame` is what was
    /// captured of `wire_len` octets.
    pub fn packet(
        &mut self,
        link: LinkType,
        frame: &[u8],
        wire_len: u32,
        sampling: u32,
        now: Millis,
    ) {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let Ok(exporter) = self.exporter(Sender { address, agent: None }, now) else { return };
        let exporter = &mut self.exporters[exporter as usize];
        if exporter.datagrams == 0 {
            "capture".clone_into(&mut exporter.name);
        }
        exporter.datagrams = exporter.datagrams.wrapping_add(1);
        exporter.last_seen = now;
        let mut record = FlowRecord::EMPTY;
        let view = View { tunnel: self.config.tunnel, protected: &self.inventory.protected };
        if packet::parse(link, frame, wire_len, view, &mut record).is_none() {
            self.tally.not_ip = self.tally.not_ip.wrapping_add(1);
            return;
        }
        let sampling = sampling.max(1);
        exporter.applied(sampling, weir_model::SamplingSource::Operator);
        record.sampling = sampling;
        (record.start, record.end) = (now, now);
        record.exporter = exporter.id;
        self.accumulator.arrive(now);
        let (tally, visit) = (&mut self.tally, &mut self.accumulator);
        let mut cx = Context::new(exporter, tally, visit, now, view, (0, 0));
        cx.data_records(1);
        cx.record(&record);
    }

    /// Fills `slice` with what came since the last seal and takes its vectors in exchange, so that
    /// recycled slices make sealing free of allocation. `slot` is the slot of arrival that ends.
    pub fn seal(&mut self, slot: u64, slice: &mut Slice) {
        self.accumulator.seal(slot, slice);
        let end = Millis::from_slot(slot.saturating_add(1));
        if end >= self.next_watermark || end + 2 * WATERMARK_EVERY_MS < self.next_watermark {
            self.next_watermark = end + WATERMARK_EVERY_MS;
            self.lag_ms = 0;
            for exporter in &mut self.exporters {
                let left_out = self.registry.repeats().take_left_out(exporter.id);
                exporter.duplicates = exporter.duplicates.wrapping_add(left_out);
                exporter.lag.decay(end);
                if end.since(exporter.last_seen) < ACTIVE_MS {
                    self.lag_ms = self.lag_ms.max(exporter.lag.percentile(99));
                }
            }
        }
        slice.shard = self.number;
        slice.slot = slot;
        slice.watermark = end - self.lag_ms;
        slice.lost_slices = 0;
    }

    /// The exporters seen by this shard that are listed, in the order of their first datagram.
    pub fn exporters(&self) -> Vec<ExporterStatus> {
        let learned = |exporter: &Exporter| self.registry.repeats().interfaces(exporter.id);
        let listed = self.known().filter(|exporter| exporter.listed);
        listed.map(|exporter| exporter.status(learned(exporter))).collect()
    }

    /// What this shard has counted.
    pub fn counters(&self) -> Counters {
        let mut overflow = self.accumulator.overflow();
        overflow.add(self.worker_overflow);
        let mut all = self.gone;
        self.known().for_each(|exporter| all.add(exporter));
        let mut errors = self.counters.errors;
        for (sum, own) in errors.iter_mut().zip(all.errors) {
            *sum = sum.saturating_add(own);
        }
        Counters {
            errors,
            data_records: self.tally.data_records,
            option_records: self.tally.option_records,
            flow_samples: self.tally.flow_samples,
            counter_samples: self.tally.counter_samples,
            drop_samples: self.tally.drop_samples,
            flows: self.tally.flows,
            not_traffic: self.tally.not_traffic,
            not_ip: self.tally.not_ip,
            unknown_templates: all.unknown_templates,
            implausible: all.implausible,
            duplicates: all.duplicates,
            implausible_times: all.implausible_times,
            hosts_over_limit: overflow.hosts,
            hosts_merged: overflow.ipv6_merged,
            long_flows_over_limit: overflow.long_flows,
            ..self.counters.clone()
        }
    }

    /// The exporters that are not forgotten.
    fn known(&self) -> impl Iterator<Item = &Exporter> {
        self.exporters.iter().filter(|exporter| exporter.serial > 0)
    }

    /// Counts a datagram and finds its exporter, if it is listed.
    fn admit(&mut self, from: SocketAddr, payload: &[u8], now: Millis) -> Result<u32, DecodeError> {
        self.counters.datagrams = self.counters.datagrams.wrapping_add(1);
        self.counters.bytes = self.counters.bytes.wrapping_add(payload.len() as u64);
        let sender = Sender { address: from.ip().to_canonical(), agent: None };
        let mut index = match self.by_sender.get(&sender) {
            Some(index) if self.exporters[*index as usize].listed => *index,
            found if found.is_some() || self.config.exporter(sender.address).is_none() => {
                self.refuse(sender.address, now);
                return Err(DecodeError::new(DecodeErrorKind::Unlisted, 0));
            }
            _ => self.exporter(sender, now)?,
        };
        if let Some(agent) = decode::sflow_agent(payload)
            && self.exporters[index as usize].agent != Some(agent)
        {
            index = self.agent(index, agent, now)?;
        }
        let exporter = &mut self.exporters[index as usize];
        if exporter.datagrams == 0 {
            exporter.decoded_at = now;
        }
        exporter.datagrams = exporter.datagrams.wrapping_add(1);
        exporter.last_seen = now;
        Ok(index)
    }

    /// The exporter that an sFlow agent is, behind the sender at `index`: a relay has several, and no
    /// interface, pool or sequence of one is another's.
    fn agent(&mut self, index: u32, agent: IpAddr, now: Millis) -> Result<u32, DecodeError> {
        let exporter = &mut self.exporters[index as usize];
        let address = exporter.sender.address;
        if exporter.agent.is_none() && self.registry.is_first_agent(address, agent) {
            exporter.agent = Some(agent);
            return Ok(index);
        }
        let index = self.exporter(Sender { address, agent: Some(agent) }, now)?;
        self.exporters[index as usize].agent = Some(agent);
        Ok(index)
    }

    fn exporter(&mut self, sender: Sender, now: Millis) -> Result<u32, DecodeError> {
        match self.by_sender.get(&sender) {
            Some(index) => Ok(*index),
            None => self.new_exporter(sender, now),
        }
    }

    #[cold]
    fn new_exporter(&mut self, sender: Sender, now: Millis) -> Result<u32, DecodeError> {
        let limit = self.config.max_exporters;
        let room = self.by_sender.len() < limit;
        let held = if room { self.registry.hold(sender, limit) } else { None };
        let held = held.or_else(|| {
            self.evict(now)?;
            self.registry.hold(sender, limit)
        });
        let Some(id) = held else {
            let kind = DecodeErrorKind::TooManyExporters;
            let count = &mut self.counters.errors[kind as usize];
            *count = count.wrapping_add(1);
            return Err(DecodeError::new(kind, 0));
        };
        let known_agent = sender.agent.and_then(|agent| self.config.exporter(agent));
        let entry = known_agent.or_else(|| self.config.exporter(sender.address));
        if entry.is_some_and(|e| !e.external_interfaces.is_empty()) {
            self.registry.repeats().settle(id);
        }
        let definitions = Arc::clone(self.registry.definition_octets());
        let mut exporter = Exporter::new(id, sender, entry, &self.config, definitions);
        if sender.agent.is_none()
            && let Some(known) = self.restored.exporter(sender.address)
        {
            known.restore(&mut exporter, now);
        }
        self.next_serial = self.next_serial.wrapping_add(1);
        exporter.serial = self.next_serial;
        let entry = exporter.serial;
        let index = match self.free.pop() {
            Some(index) => {
                self.exporters[index as usize] = exporter;
                index
            }
            None => {
                self.exporters.push(exporter);
                u32::try_from(self.exporters.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_sender.insert(sender, index);
        let exporters = &self.exporters;
        self.newcomers.add((index, entry), limit, |entry| standing(exporters, entry, now));
        Ok(index)
    }

    /// Forgets the exporter that has to give way, if there is one.
    fn evict(&mut self, now: Millis) -> Option<()> {
        let exporters = &self.exporters;
        let (index, _) = self.newcomers.evict(|entry| standing(exporters, entry, now))?;
        self.forget(index);
        Some(())
    }

    /// Forgets an exporter, as if it had never been heard.
    fn forget(&mut self, index: u32) {
        let exporter = &mut self.exporters[index as usize];
        let sender = exporter.sender;
        self.gone.add(exporter);
        exporter.leave();
        self.by_sender.remove(&sender);
        self.registry.release(sender);
        self.free.push(index);
    }

    /// Forgets all that was learned of whoever sends from this address: templates, rates, clocks,
    /// interfaces, and what an earlier run had handed down. The next datagram is the first one.
    pub fn forget_sender(&mut self, address: IpAddr) {
        let own = self.by_sender.iter().filter(|(sender, _)| sender.address == address);
        let mut own: Vec<u32> = own.map(|(_, index)| *index).collect();
        own.sort_unstable();
        for index in own {
            self.forget(index);
        }
        if self.restored.exporter(address).is_some() {
            let mut restored = Checkpoint::clone(&self.restored);
            restored.exporters.retain(|exporter| exporter.address != address);
            self.restored = Arc::new(restored);
        }
    }

    /// Remembers an unlisted sender, in place of the one longest silent when there is no room.
    #[cold]
    fn refuse(&mut self, address: IpAddr, now: Millis) {
        self.counters.unlisted = self.counters.unlisted.wrapping_add(1);
        let count = &mut self.counters.errors[DecodeErrorKind::Unlisted as usize];
        *count = count.wrapping_add(1);
        let senders = &mut self.counters.unlisted_senders;
        if let Some(sender) = senders.iter_mut().find(|s| s.address == address) {
            sender.datagrams = sender.datagrams.wrapping_add(1);
            sender.last_seen = now;
            return;
        }
        if senders.len() >= MAX_UNLISTED
            && let Some(oldest) = (0..senders.len()).min_by_key(|i| senders[*i].last_seen)
        {
            senders.swap_remove(oldest);
        }
        senders.push(UnlistedSender { address, datagrams: 1, last_seen: now });
    }

    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

fn standing(exporters: &[Exporter], (index, serial): (u32, u32), now: Millis) -> Standing {
    match exporters.get(index as usize) {
        Some(exporter) if exporter.serial == serial => exporter.tenure.standing(now),
        _ => Standing::Gone,
    }
}

fn read<V: Visit>(mut cx: Context<'_, V>, payload: &[u8]) -> Result<(), DecodeError> {
    let result = decode::datagram(&mut cx, payload);
    if let Err(error) = result {
        cx.exporter.error(error.kind);
    }
    result
}

struct See<F>(F);

impl<F: FnMut(&FlowRecord)> Visit for See<F> {
    fn record(&mut self, record: &FlowRecord) {
        (self.0)(record);
    }
}
