//! The core's thread: waits, feeds [`Core`], and hands on what it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use tokio::sync::watch;
use tracing::{info, warn};
use weir_api::Metrics;
use weir_bgp::guard::Admitted;
use weir_collector::Counters;
use weir_detector::Checkpoint;
use weir_model::{
    Command, Evidence, Incident, IncidentId, IncidentState, Intake, Millis, SLICE_MS, Slice,
    Snapshot, Unlisted,
};

use super::baselines::{HEAD, Turns, Written};
use super::channels::{Control, SliceQueue};
use super::heard::Heard;
use super::history::Feed;
use super::marker::Marker;
use super::notify::{News, Notify};
use super::recorder::Recorder;
use super::store_thread::Work;
use super::{metrics, now};
use crate::core::{Input, Tuning};
use crate::{Core, Turn, logging};

/// How long after a slot's end the core waits for the slowest shard.
const STRAGGLER_MS: u64 = 60;

/// How often the mitigator's memory is looked at for changes that no command made.
const MEMORY_MS: u64 = 10_000;

/// Unlisted senders named in the log at most; the counter goes on.
const UNLISTED_NAMED_MAX: usize = 64;

/// How often everybody is shown a new snapshot when nothing is decided.
const PUBLISH_MS: u64 = 1000;

/// Incidents that wait for a store that is slow, at most; the oldest give way.
const UNSAVED_MAX: usize = 10_000;

/// Their evidence, likewise.
const UNKEPT_MAX: usize = 1000;

/// How long a measure waits to be written before it is announced all the same.
const COMMIT_PATIENCE: Duration = Duration::from_millis(15);

/// How long the core waits for the store at the end.
const STORE_FAREWELL: Duration = Duration::from_secs(2);

/// How long the core waits for a slow store before it goes on.
const STORE_PATIENCE: Duration = Duration::from_millis(5);

pub(crate) struct CoreThread {
    pub(crate) core: Core,
    pub(crate) queue: SliceQueue,
    pub(crate) control: Receiver<Control>,
    pub(crate) desired: watch::Sender<Admitted>,
    pub(crate) store: Sender<Work>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shards: usize,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) history: Feed,
    pub(crate) notify: Notify,
    /// What the state file holds of the detector.
    pub(crate) written: Written,
    /// Where the mode is kept beside the state file.
    pub(crate) marker: Marker,
}

/// What the loop keeps between turns.
struct State {
    /// The slot whose slices are being collected, and how many shards have delivered.
    slot: u64,
    delivered: usize,
    /// The last instant given to the core: never goes back, whatever the clock does.
    judged: Millis,
    published: Millis,
    counters: BTreeMap<u16, Counters>,
    /// Incidents the store has not taken yet, the newest form of each.
    unsaved: BTreeMap<IncidentId, Arc<Incident>>,
    /// Their evidence, likewise.
    unkept: BTreeMap<IncidentId, Evidence>,
    /// Which of the baselines are kept next.
    turns: Turns,
    /// What was last kept of the mitigator's memory, and when it was looked at.
    memory: weir_mitigator::Checkpoint,
    remembered: Millis,
    /// Templates and sampling of all shards.
    /// By shard, as each last told it.
    templates: BTreeMap<u16, weir_collector::Checkpoint>,
    /// What the log has said of exporters.
    heard: Heard,
    /// Unlisted senders that the log has named.
    named: BTreeSet<IpAddr>,
    /// Peers that have series in the metrics.
    shown: BTreeSet<String>,
}

impl CoreThread {
    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let start = now();
        let mut state = State {
            slot: start.slot(),
            delivered: 0,
            judged: start,
            published: Millis(0),
            counters: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            unkept: BTreeMap::new(),
            turns: Turns::new(self.written, start),
            memory: self.core.mitigator().checkpoint(),
            remembered: start,
            templates: BTreeMap::new(),
            heard: Heard::default(),
            named: BTreeSet::new(),
            shown: BTreeSet::new(),
        };
        self.settle(&mut state, start);
        let slices = self.queue.rx.clone();
        loop {
            select! {
                recv(slices) -> slice => {
                    if let Ok(slice) = slice {
                        self.slice(&mut state, slice);
                    }
                }
                recv(self.control) -> message => match message {
                    Ok(Control::Stop) | Err(_) => break,
                    Ok(message) => self.control(&mut state, message),
                },
                default(Duration::from_millis(self.until_overdue(&state))) => {
                    self.judge(&mut state);
                }
            }
        }
        while let Ok(slice) = slices.try_recv() {
            self.slice(&mut state, slice);
        }
        self.judge(&mut state);
        self.publish(&mut state);
        self.save(&mut state, STORE_FAREWELL, None);
        self.remember(&mut state, STORE_FAREWELL, None);
        let at = state.judged;
        state.turns.all(self.core.detector(), |piece| {
            self.keep(Work::Baselines(at, piece, None), STORE_FAREWELL)
        });
    }

    /// Milliseconds until the slot being collected must be judged without the stragglers.
    fn until_overdue(&self, state: &State) -> u64 {
        let due = Millis::from_slot(state.slot + 1) + STRAGGLER_MS;
        due.since(now()).clamp(1, 2 * SLICE_MS)
    }

    fn slice(&mut self, state: &mut State, slice: Box<Slice>) {
        self.queue.taken(&slice);
        if slice.slot > state.slot {
            // The shards went on; what is missing of the old slot comes late and counts then.
            if state.delivered > 0 {
                self.judge(state);
            }
            state.slot = slice.slot;
            state.delivered = 0;
        }
        self.core.slice(&slice);
        self.history.slice(&slice);
        if slice.slot == state.slot {
            state.delivered += 1;
        }
        match &mut self.recorder {
            None => self.queue.recycle(slice),
            Some(recorder) => recorder.write(state.judged, Input::Slice(slice)),
        }
        if state.delivered >= self.shards {
            self.judge(state);
        }
    }

    fn control(&mut self, state: &mut State, message: Control) {
        match message {
            Control::Request(request) => {
                let at = state.judged;
                let at_once = request.command.only_takes_away(self.core.mitigator().mode());
                let word = self.core.mitigator().word().clone();
                let outcome = self.core.command(&request.command, at);
                info!(command = ?request.command, ok = outcome.is_ok(), "command");
                self.record(at, || Input::Command(Box::new(request.command.clone())));
                // Decide at once: an operator does not wait for the next slot.
                let mut turn = self.core.advance(at);
                self.record(at, || Input::Advance);
                if at_once && let Some(desired) = turn.desired.take() {
                    // What only takes away is written afterwards: no disk may stand in its way.
                    self.announce(desired);
                }
                let said = self.core.mitigator().word();
                let kept = (*said != word).then(|| self.marker.put(said.clone()));
                // A manual measure is written before it is announced, like any other.
                let (committed, wait) = bounded(1);
                match &request.command {
                    Command::Baseline { host, .. } if outcome.is_ok() => {
                        let (part, this) = (Checkpoint::part_of(*host), &*self);
                        state.turns.change(self.core.detector(), part, move |piece| {
                            // The head is the last.
                            let committed = (piece.name == HEAD).then(|| committed.clone());
                            this.keep(Work::Baselines(at, piece, committed), STORE_PATIENCE)
                        });
                    }
                    _ => self.remember(state, STORE_PATIENCE, Some(committed)),
                }
                await_commit(&wait);
                if let Some(kept) = kept {
                    // The answer is true without it: a disk that hangs is not waited for.
                    let _ = kept.recv_timeout(COMMIT_PATIENCE);
                }
                self.carry_out(state, turn);
                self.publish(state);
                // The asker may have hung up.
                let _ = request.reply.send(outcome);
            }
            Control::Observed(observed) => {
                if self.core.concludes(&observed) {
                    // It cost a session to learn: kept at once, before weir may be killed.
                    state.remembered = Millis(0);
                }
                self.core.observed(&observed);
                self.record(state.judged, || Input::Observed(observed));
            }
            Control::Health { shard, exporters, counters } => {
                name_unlisted(state, &counters);
                state.heard.tell(&exporters);
                state.counters.insert(shard, *counters);
                self.core.exporters(shard, exporters.clone());
                self.record(state.judged, || Input::Exporters { shard, exporters });
            }
            Control::Learned(shard, checkpoint) => {
                state.templates.insert(shard, *checkpoint);
                let mut all = weir_collector::Checkpoint::default();
                state.templates.values().for_each(|own| all.merge(own.clone()));
                self.keep(Work::Templates(state.judged, Box::new(all)), STORE_PATIENCE);
            }
            Control::Inventory(inventory) => {
                self.core.set_inventory(&inventory);
                self.record(state.judged, || Input::Inventory(inventory));
            }
            Control::Ladder(ladder) => {
                self.core.set_ladder(ladder.clone());
                self.record(state.judged, || Input::Ladder(ladder));
            }
            Control::Tuned(tuning) => {
                self.core.tune(Tuning::clone(&tuning), state.judged);
                self.record(state.judged, || Input::Tuned(tuning));
            }
            Control::Baselines { host, reply } => {
                // The asker may have hung up.
                let _ = reply.send(self.core.baselines(host));
            }
            Control::DryRun { command, reply } => {
                // The asker may have hung up.
                let _ = reply.send(self.core.mitigator().dry_run(&command, state.judged));
            }
            Control::Stop => {}
        }
    }

    /// The slot is complete, or overdue: judge it and begin the next.
    fn judge(&mut self, state: &mut State) {
        let end = Millis::from_slot(state.slot + 1);
        state.slot += 1;
        state.delivered = 0;
        state.judged = state.judged.max(end);
        let turn = self.core.advance(state.judged);
        let decided = !turn.decisions.is_empty();
        self.record(state.judged, || Input::Advance);
        self.carry_out(state, turn);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a latency")]
        self.metrics.verdict_seconds.observe(now().since(end) as f64 / 1000.0);
        // A decision is shown at once: the router must not know it before the API does.
        if decided || state.judged.since(state.published) >= PUBLISH_MS {
            self.publish(state);
        }
        let at = state.judged;
        state.turns.take(self.core.detector(), at, |piece| {
            self.keep(Work::Baselines(at, piece, None), STORE_PATIENCE)
        });
        if state.judged.since(state.remembered) >= MEMORY_MS {
            self.remember(state, STORE_PATIENCE, None);
        }
    }

    /// Keeps what the mitigator remembers beside incidents, if it has changed.
    fn remember(&self, state: &mut State, patience: Duration, committed: Option<Sender<()>>) {
        state.remembered = state.judged;
        let memory = self.core.mitigator().checkpoint();
        if memory != state.memory {
            let work = Work::Memory(state.judged, Box::new(memory.clone()), committed);
            if self.keep(work, patience) {
                state.memory = memory;
            }
        }
    }

    fn keep(&self, work: Work, patience: Duration) -> bool {
        let taken = self.store.send_timeout(work, patience).is_ok();
        if !taken {
            self.metrics.store_errors.with_label_values::<&str>(&[]).inc();
            warn!("the store is slow; a checkpoint was left out");
        }
        taken
    }

    /// What the store gave back is desired before anything arrives.
    fn settle(&mut self, state: &mut State, at: Millis) {
        let turn = self.core.advance(at);
        self.record(at, || Input::Advance);
        self.carry_out(state, turn);
        self.publish(state);
    }

    fn carry_out(&mut self, state: &mut State, turn: Turn) {
        for decision in &turn.decisions {
            logging::decision(decision);
            self.metrics.decisions.with_label_values(&[decision.action.as_str()]).inc();
        }
        self.tell(&turn);
        for incident in turn.changed {
            if incident.state == IncidentState::Open && incident.opened == state.judged {
                let family = incident.verdict.family.id();
                self.metrics.incidents_opened.with_label_values(&[family]).inc();
            }
            state.unsaved.insert(incident.id, incident);
        }
        while state.unsaved.len() > UNSAVED_MAX {
            state.unsaved.pop_first();
        }
        state.unkept.extend(turn.evidence);
        while state.unkept.len() > UNKEPT_MAX {
            state.unkept.pop_first();
        }
        match turn.desired {
            None => self.save(state, STORE_PATIENCE, None),
            Some(desired) => {
                // Written before it is announced: a weir that is killed with a rule on the wire
                // knows of it when it comes back. A slow store delays the rule only so long.
                let (committed, wait) = bounded(1);
                self.save(state, STORE_PATIENCE, Some(committed));
                await_commit(&wait);
                self.announce(desired);
            }
        }
        self.keep_evidence(state);
    }

    fn announce(&self, desired: Admitted) {
        // Fails only when the BGP thread is gone, which ends the process.
        let _ = self.desired.send(desired);
        self.notify.nudge();
    }

    /// Tells whoever is to be told of decisions.
    fn tell(&self, turn: &Turn) {
        if turn.decisions.is_empty() || !self.notify.has_hooks() {
            return;
        }
        let about = |id| turn.changed.iter().find(|incident| incident.id == id).map(Arc::clone);
        let news = turn
            .decisions
            .iter()
            .map(|d| News { decision: d.clone(), incident: d.incident.and_then(about) })
            .collect();
        self.notify.decisions(news);
    }

    /// After the incidents, which a measure may wait for.
    fn keep_evidence(&self, state: &mut State) {
        if state.unkept.is_empty() {
            return;
        }
        let batch = state.unkept.iter().map(|(id, evidence)| (*id, evidence.clone())).collect();
        // A store that is busy is asked again in the next turn.
        if self.store.try_send(Work::Evidence(batch)).is_ok() {
            state.unkept.clear();
        }
    }

    fn save(&mut self, state: &mut State, patience: Duration, committed: Option<Sender<()>>) {
        if state.unsaved.is_empty() {
            return;
        }
        let batch: Vec<Arc<Incident>> = state.unsaved.values().cloned().collect();
        match self.store.send_timeout(Work::Incidents(batch, committed), patience) {
            Ok(()) => state.unsaved.clear(),
            Err(_) => {
                self.metrics.store_errors.with_label_values::<&str>(&[]).inc();
                warn!(waiting = state.unsaved.len(), "the store is slow; decisions go on");
            }
        }
    }

    fn publish(&mut self, state: &mut State) {
        let mut snapshot = self.core.snapshot(state.judged);
        snapshot.intake = intake(&state.counters, self.queue.lost());
        let snapshot = Arc::new(snapshot);
        let detector = self.core.detector().counters();
        let (counters, lost) = (&state.counters, self.queue.lost());
        metrics::update(&self.metrics, &snapshot, counters, &detector, lost, &mut state.shown);
        self.snapshot.store(snapshot);
        state.published = state.judged;
    }

    fn record(&mut self, at: Millis, input: impl FnOnce() -> Input) {
        if let Some(recorder) = &mut self.recorder {
            recorder.write(at, input());
        }
    }
}

/// Waits until something is written, but not for ever; a sender that is gone wrote nothing.
fn await_commit(wait: &Receiver<()>) {
    if wait.recv_timeout(COMMIT_PATIENCE) == Err(RecvTimeoutError::Timeout) {
        warn!("the store is slow; the measure goes out before it is written");
    }
}

/// What all shards together lose or refuse.
fn intake(counters: &BTreeMap<u16, Counters>, lost_slices: u64) -> Intake {
    let mut senders: BTreeMap<IpAddr, Unlisted> = BTreeMap::new();
    for sender in counters.values().flat_map(|c| &c.unlisted_senders) {
        let (address, last_seen) = (sender.address, sender.last_seen);
        let known = senders.entry(address).or_insert(Unlisted { address, datagrams: 0, last_seen });
        known.datagrams = known.datagrams.saturating_add(sender.datagrams);
        known.last_seen = known.last_seen.max(last_seen);
    }
    Intake {
        socket_drops: counters.values().map(|c| c.socket_drops).sum(),
        lost_slices,
        unlisted: senders.into_values().collect(),
    }
}

/// Tells the operator whom to add to `collector.exporters`, once an address.
fn name_unlisted(state: &mut State, counters: &Counters) {
    for sender in &counters.unlisted_senders {
        if state.named.len() < UNLISTED_NAMED_MAX && state.named.insert(sender.address) {
            warn!(
                address = %sender.address,
                "flow datagrams of an unlisted exporter are refused; add it to collector.exporters"
            );
        }
    }
}
