//! What happened while nobody could be told, on disk: a restart loses none of it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::protocol::Event;

/// Most events kept; the oldest go first.
const EVENTS_MAX: usize = 2000;

/// A bounded list of events that is also a file, one JSON line each.
#[derive(Debug)]
pub struct EventRing {
    path: PathBuf,
    events: VecDeque<Event>,
    /// Lines in the file, which also holds those that fell out.
    lines: usize,
    /// Events that fell out unsent.
    pub lost: u64,
}

impl EventRing {
    /// Opens the ring in a folder. Lines that are none are skipped: a crash may leave half of one.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("events.jsonl");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut ring = Self { path, events: VecDeque::new(), lines: 0, lost: 0 };
        for event in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            ring.keep(event);
        }
        ring.lines = text.lines().count();
        ring
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When it could not be written; it is kept in memory all the same.
    pub fn push(&mut self, event: Event) -> io::Result<()> {
        let line = serde_json::to_string(&event)?;
        self.keep(event);
        if self.lines >= 2 * EVENTS_MAX {
            return self.rewrite();
        }
        self.lines += 1;
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(file, "{line}")
    }

    /// The oldest events, at most `max`.
    pub fn oldest(&self, max: usize) -> Vec<Event> {
        self.events.iter().take(max).cloned().collect()
    }

    /// Forgets the `count` oldest: the appliance has them.
    ///
    /// # Errors
    /// When the file could not be written; they will be sent twice after a restart.
    pub fn forget(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.events.drain(..count.min(self.events.len()));
        self.rewrite()
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = io::BufWriter::new(File::create(&fresh)?);
        for event in &self.events {
            writeln!(file, "{}", serde_json::to_string(event)?)?;
        }
        file.flush()?;
        self.lines = self.events.len();
        std::fs::rename(fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::Millis;

    #[test]
    fn the_newest_survive_a_restart_and_what_was_sent_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let event = |n: u64| Event { at: Millis(n), kind: "test".into(), text: String::new() };
        let mut ring = EventRing::open(folder.path());
        for n in 0..5000 {
            ring.push(event(n)).unwrap();
        }
        assert_eq!(ring.lost, 3000);
        let mut ring = EventRing::open(folder.path());
        assert_eq!(ring.oldest(1), [event(3000)]);
        ring.forget(1999).unwrap();
        let ring = EventRing::open(folder.path());
        assert_eq!(ring.oldest(9), [event(4999)]);
    }
}
