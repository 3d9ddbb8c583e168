//! Plays a capture or a recording through shard and core in virtual time, as fast as they go.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use weir_collector::{LinkType, Registry, Shard};
use weir_config::Config;
use weir_model::{Decision, Incident, Inventory, Millis, Slice};

use crate::capture::{Capture, Datagrams, Frame, is_fragment};
use crate::{Core, Turn};

/// Frames looked at to tell flow exports from raw packets.
const PROBE_FRAMES: usize = 200;

/// What the frames of a capture are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Look at the first frames and see.
    #[default]
    Auto,
    /// Datagrams of exporters.
    Flows,
    /// The packets themselves; each is taken as one sample.
    Packets,
}

/// How to replay.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the frames are.
    pub kind: Kind,
    /// One in how many packets the capture holds, when the frames are packets; at least 1.
    pub sampling: u32,
    /// Virtual seconds that pass after the last frame, so that attacks can end.
    pub tail_secs: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Time of the first frame.
    pub start: Millis,
    /// Frames read.
    pub frames: u64,
    /// Flow records or packets counted.
    pub records: u64,
    /// Incidents in the order in which they opened, in their final form.
    pub incidents: Vec<Arc<Incident>>,
    /// Decisions in order.
    pub decisions: Vec<Decision>,
}

/// Plays a capture file. `progress` is told the octets read so far.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds nothing that weir understands.
pub fn capture(
    path: &Path,
    config: &Config,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<Outcome> {
    let kind = match options.kind {
        Kind::Auto => probe(path)?,
        known => known,
    };
    let mut capture = Capture::open(path)?;
    let mut player: Option<Player> = None;
    let mut read = 0;
    while let Some(frame) = capture.next_frame()? {
        read += 16 + frame.data.len() as u64;
        let player = player.get_or_insert_with(|| Player::new(config, frame.at));
        player.until(frame.at);
        player.frame(kind, &frame, options.sampling);
        progress(read.min(capture.size()));
    }
    let Some(mut player) = player else { bail!("{}: no packets", path.display()) };
    let end = player.now + options.tail_secs * 1000;
    player.until(end);
    Ok(player.finish())
}

/// Repeats a recording made by `weir run --record`.
///
/// # Errors
/// When the file cannot be read or a line is no recorded input.
pub fn recording(path: &Path, config: &Config) -> anyhow::Result<Outcome> {
    let file = std::fs::File::open(path).with_context(|| format!("{}", path.display()))?;
    let inventory = Arc::new(config.inventory());
    let mut core = Core::new(config, &inventory);
    let mut outcome =
        Outcome { start: Millis(0), frames: 0, records: 0, incidents: vec![], decisions: vec![] };
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let recorded: crate::daemon::Line = serde_json::from_str(&line)
            .with_context(|| format!("{}: line {}", path.display(), number + 1))?;
        if number == 0 {
            outcome.start = recorded.at;
        }
        outcome.frames += 1;
        core.replay(recorded.input, recorded.at, &mut |turn: Turn| {
            outcome.decisions.extend(turn.decisions);
        });
    }
    outcome.incidents = incidents(&core);
    Ok(outcome)
}

fn incidents(core: &Core) -> Vec<Arc<Incident>> {
    let mut incidents: Vec<Arc<Incident>> = core.mitigator().incidents().map(Arc::clone).collect();
    incidents.sort_by_key(|incident| incident.id);
    incidents
}

/// Most of the first UDP datagrams carry a version that fits their length: flow exports.
fn probe(path: &Path) -> anyhow::Result<Kind> {
    let mut capture = Capture::open(path)?;
    let (mut flows, mut others) = (0, 0);
    let mut datagrams = Datagrams::default();
    while let Some(frame) = capture.next_frame()?
        && flows + others < PROBE_FRAMES
    {
        match datagrams.take(frame.link, &frame.data) {
            Some(found) if looks_like_export(found.payload) => flows += 1,
            None if is_fragment(frame.link, &frame.data) => {}
            _ => others += 1,
        }
    }
    Ok(if flows > others { Kind::Flows } else { Kind::Packets })
}

fn looks_like_export(payload: &[u8]) -> bool {
    match payload {
        // NetFlow v5: 24 octets of header and 48 a record.
        [0, 5, hi, lo, ..] => {
            payload.len() >= 24 + 48 * usize::from(u16::from_be_bytes([*hi, *lo]))
        }
        [0, 9, ..] => payload.len() >= 20,
        [0, 10, hi, lo, ..] => usize::from(u16::from_be_bytes([*hi, *lo])) <= payload.len(),
        [0, 0, 0, 5, 0, 0, 0, 1 | 2, ..] => payload.len() >= 28,
        _ => false,
    }
}

/// A shard and a core under a virtual clock. Also what the scenario scorer and tests drive.
#[derive(Debug)]
pub struct Player {
    shard: Shard,
    core: Core,
    slice: Slice,
    start: Millis,
    now: Millis,
    slot: u64,
    frames: u64,
    datagrams: Datagrams,
    decisions: Vec<Decision>,
}

impl Player {
    /// Starts at `start`.
    pub fn new(config: &Config, start: Millis) -> Self {
        let inventory = Arc::new(config.inventory());
        let registry = Arc::new(Registry::default());
        // As the daemon has it: exporters count what passes uplinks.
        let collector =
            weir_collector::Config { exporters: config.exporters(), ..config.collector.clone() };
        Self {
            shard: Shard::new(0, &collector, Arc::clone(&inventory), registry),
            core: Core::new(config, &inventory),
            slice: Slice::default(),
            start,
            now: start,
            slot: start.slot(),
            frames: 0,
            datagrams: Datagrams::default(),
            decisions: Vec::new(),
        }
    }

    /// Lets time pass, sealing and judging every slot that ends.
    pub fn until(&mut self, at: Millis) {
        self.each_turn_until(at, |_, _| {});
    }

    /// As [`Self::until`], showing each turn with its time.
    pub fn each_turn_until(&mut self, at: Millis, mut turn_of: impl FnMut(Millis, &Turn)) {
        while self.slot < at.slot() {
            self.shard.seal(self.slot, &mut self.slice);
            self.core.slice(&self.slice);
            self.slot += 1;
            if self.slot.is_multiple_of(10) {
                self.core.exporters(0, self.shard.exporters());
            }
            let end = Millis::from_slot(self.slot);
            let turn = self.core.advance(end);
            turn_of(end, &turn);
            self.decisions.extend(turn.decisions);
        }
        self.now = self.now.max(at);
    }

    /// A flow datagram arrives now. Errors are counted by the shard.
    pub fn datagram(&mut self, from: SocketAddr, payload: &[u8]) {
        self.frames += 1;
        // The shard keeps what stood before the damage and counts the rest.
        let _ = self.shard.datagram(from, payload, self.now);
    }

    /// What is protected has changed.
    pub fn set_inventory(&mut self, inventory: &Arc<Inventory>) {
        self.shard.set_inventory(Arc::clone(inventory));
        self.core.set_inventory(inventory);
    }

    /// The core, to look at or command.
    pub const fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Now.
    pub const fn now(&self) -> Millis {
        self.now
    }

    fn frame(&mut self, kind: Kind, frame: &Frame, sampling: u32) {
        if kind == Kind::Flows {
            let mut datagrams = std::mem::take(&mut self.datagrams);
            if let Some(found) = datagrams.take(frame.link, &frame.data) {
                self.datagram(found.from, found.payload);
            }
            self.datagrams = datagrams;
            return;
        }
        self.frames += 1;
        if let Some(link) = LinkType::from_pcap(frame.link) {
            self.shard.packet(link, &frame.data, frame.wire_len, sampling.max(1), self.now);
        }
    }

    /// What came of it so far.
    pub fn finish(self) -> Outcome {
        Outcome {
            start: self.start,
            frames: self.frames,
            records: self.shard.counters().flows,
            incidents: incidents(&self.core),
            decisions: self.decisions,
        }
    }
}
