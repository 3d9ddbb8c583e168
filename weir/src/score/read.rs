//! Cases as they lie on disk: read, checked, played.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use weir_config::Config;
use weir_traffic::case::{CaseWorld, Truth};
use weir_traffic::mix::Mix;
use weir_traffic::score::{self, CaseScore, Event, What};

use super::{Defender, config_for};
use crate::capture::{Capture, Datagrams};

/// Most lines of a file of truths or events.
const LINES_MAX: usize = 20_000;
/// Longest line of such a file, octets.
const LINE_MAX: u64 = 65_536;
/// Most other defenders of a case.
const OTHERS_MAX: usize = 16;
/// Datagrams may come so long after a case's end: what flow caches still held.
const TAIL_MS: u64 = 3_600_000;

/// A case read from its directory.
#[derive(Debug)]
pub struct Case {
    /// Where it lies.
    pub dir: PathBuf,
    /// `world.json`.
    pub world: CaseWorld,
    /// `truth.jsonl`.
    pub truths: Vec<Truth>,
    /// `mix.csv` or `mix.csv.zst`.
    pub mix: Mix,
}

/// A defender of a case beside weir.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// Its name, from the name of its file.
    pub name: String,
    /// What it said and did, in order of time.
    pub events: Vec<Event>,
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// One JSON object a line, each of which `check` finds no fault with; empty lines are skipped.
fn lines<T: serde::de::DeserializeOwned>(
    path: &Path,
    check: impl Fn(&T) -> Result<(), String>,
) -> anyhow::Result<Vec<T>> {
    let mut list = Vec::new();
    let mut file = open(path)?;
    let mut line = String::new();
    for number in 1usize.. {
        let context = || format!("{}: line {number}", path.display());
        line.clear();
        let read = file.by_ref().take(LINE_MAX).read_line(&mut line).with_context(context)?;
        if read == 0 {
            break;
        }
        ensure!((read as u64) < LINE_MAX, "{}: longer than {LINE_MAX} octets", context());
        if line.trim().is_empty() {
            continue;
        }
        ensure!(list.len() < LINES_MAX, "{}: more than {LINES_MAX} objects", context());
        let object = serde_json::from_str(&line).with_context(context)?;
        check(&object).map_err(anyhow::Error::msg).with_context(context)?;
        list.push(object);
    }
    Ok(list)
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// When one of its files is missing or makes no sense, with its name and line.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let world = Self::world(dir)?;
        let path = dir.join("truth.jsonl");
        let truths = if path.exists() {
            lines(&path, |truth: &Truth| truth.check(&world))?
        } else {
            Vec::new()
        };
        Ok(Self { dir: dir.to_owned(), mix: mix(dir)?, world, truths })
    }

    /// Reads what is protected in a case, and for how long.
    ///
    /// # Errors
    /// When `world.json` is missing or makes no sense.
    pub fn world(dir: &Path) -> anyhow::Result<CaseWorld> {
        let path = dir.join("world.json");
        let name = || format!("{}", path.display());
        let mut world: CaseWorld = serde_json::from_reader(open(&path)?).with_context(name)?;
        world.check().map_err(anyhow::Error::msg).with_context(name)?;
        if world.name.is_empty() {
            let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            world.name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        Ok(world)
    }

    /// The cases in a directory: itself, or its sub-directories by name.
    ///
    /// # Errors
    /// When it cannot be read or holds none.
    pub fn find(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
        if dir.join("world.json").exists() {
            return Ok(vec![dir.to_owned()]);
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
            let path = entry?.path();
            if path.join("world.json").exists() {
                found.push(path);
            }
        }
        if found.is_empty() {
            bail!("{}: no case (a directory with world.json)", dir.display());
        }
        found.sort();
        Ok(found)
    }

    /// What weir says and does when it hears the case.
    ///
    /// # Errors
    /// When `input.pcap` cannot be read, or when its times are not those of the case.
    pub fn play(&self, config: &Config) -> anyhow::Result<Vec<Event>> {
        let name = || format!("{}", self.dir.join("world.json").display());
        let config = config_for(&self.world, config).with_context(name)?;
        let path = self.dir.join("input.pcap");
        let mut capture = Capture::open(&path)?;
        let end = self.world.epoch() + self.world.seconds * 1000;
        let mut defender: Option<Defender> = None;
        let mut datagrams = Datagrams::default();
        for number in 1u64.. {
            let name = || format!("{}: packet {number}", path.display());
            let Some(frame) = capture.next_frame().with_context(name)? else { break };
            let times = self.world.epoch() - TAIL_MS..=end + TAIL_MS;
            ensure!(
                times.contains(&frame.at),
                "{}: its time, {} ms, is not within the case ({} to {} ms)",
                name(),
                frame.at.0,
                self.world.epoch_ms,
                end.0
            );
            let defender = defender.get_or_insert_with(|| Defender::new(&config, frame.at));
            if let Some(found) = datagrams.take(frame.link, &frame.data) {
                defender.datagram(frame.at, found.from, found.payload);
            }
        }
        let Some(mut defender) = defender else {
            bail!("{}: no packets in it", path.display());
        };
        defender.until(end.max(defender.player.now()));
        Ok(defender.events)
    }

    /// Events that another defender wrote, one a line, in order of time.
    ///
    /// # Errors
    /// When the file cannot be read or a line is no [`Event`].
    pub fn events(path: &Path) -> anyhow::Result<Vec<Event>> {
        let mut events: Vec<Event> = lines(path, |event: &Event| match event.what {
            What::Detect { confidence: 101.., .. } => Err("confidence above 100".to_owned()),
            _ => Ok(()),
        })?;
        events.sort_by_key(|e| e.t_ms);
        Ok(events)
    }

    /// The other defenders that left their events in the case's directory, by name:
    /// `events.NAME.jsonl`.
    ///
    /// # Errors
    /// When one of these files cannot be read or makes no sense.
    pub fn others(&self) -> anyhow::Result<Vec<Other>> {
        let dir = || format!("{}", self.dir.display());
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.dir).with_context(dir)? {
            let file = entry?.file_name();
            let name =
                file.to_str().and_then(|f| f.strip_prefix("events.")?.strip_suffix(".jsonl"));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if let Some(name) = name.filter(|n| !n.is_empty() && n.chars().all(plain)) {
                let events = Self::events(&self.dir.join(&file))?;
                others.push(Other { name: name.to_owned(), events });
            }
            ensure!(
                others.len() <= OTHERS_MAX,
                "{}: more than {OTHERS_MAX} other defenders",
                dir()
            );
        }
        others.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(others)
    }

    /// Scores events on this case.
    pub fn score(&self, events: &[Event]) -> CaseScore {
        score::score(&self.world, &self.truths, &self.mix, events)
    }
}

/// Reads `mix.csv`, or `mix.csv.zst` where that is not there.
fn mix(dir: &Path) -> anyhow::Result<Mix> {
    let plain = dir.join("mix.csv");
    let packed = dir.join("mix.csv.zst");
    if plain.exists() || !packed.exists() {
        return Mix::read(open(&plain)?).with_context(|| format!("{}", plain.display()));
    }
    let name = || format!("{}", packed.display());
    let decoder = ruzstd::decoding::StreamingDecoder::new(open(&packed)?).with_context(name)?;
    Mix::read(BufReader::with_capacity(1 << 20, decoder)).with_context(name)
}
