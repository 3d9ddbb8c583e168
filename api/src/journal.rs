//! Audit entries of what was done before it could be written down. They wait in memory, are written in
//! order as soon as the state file takes them, and say so when that was late.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use weir_model::Millis;
use weir_store::audit::AuditEntry;
use weir_store::{Store, StoreError};

/// Entries that wait at most; of more, only the number is kept.
pub(crate) const WAITING_MAX: usize = 1024;

/// Entries written in one transaction at most.
const BATCH: usize = 64;

/// An entry that is written so long after it happened, milliseconds, is marked.
const LATE_MS: u64 = 2000;

/// How long an answer waits for its entry to be written: it is true without it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Waiting {
    entry: AuditEntry,
    /// Whether the state file has refused it.
    refused: bool,
    /// Who waits for it to be written.
    told: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Waiting>,
    /// Entries for which there was no place.
    lost: u64,
    /// Whether somebody is writing.
    busy: bool,
}

impl Queue {
    /// The state file takes nothing: whoever waits is hung up on.
    fn refuse(&mut self) {
        self.busy = false;
        for waiting in &mut self.entries {
            waiting.refused = true;
            waiting.told = None;
        }
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    queue: Mutex<Queue>,
}

impl Journal {
    /// Puts an entry in the queue. The receiver hears when it is written, and is hung up on when it is not.
    pub(crate) fn push(&self, entry: AuditEntry) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.with(|queue| {
            if queue.entries.len() < WAITING_MAX {
                queue.entries.push_back(Waiting { entry, refused: false, told: Some(tell) });
            } else {
                queue.lost += 1;
            }
        });
        told
    }

    /// Whether whoever asks is to write now: something waits, and nobody else writes.
    pub(crate) fn take_turn(&self) -> bool {
        self.with(|queue| {
            let mine = !queue.busy && !queue.entries.is_empty();
            queue.busy |= mine;
            mine
        })
    }

    /// How many entries wait.
    pub(crate) fn waiting(&self) -> usize {
        self.with(|queue| queue.entries.len())
    }

    /// The turn ends because the state file could not even be opened.
    pub(crate) fn refused(&self, error: StoreError) -> StoreError {
        self.with(Queue::refuse);
        error
    }

    /// Writes what waits, oldest first, until nothing is left or the state file refuses. For whoever
    /// [took the turn](Self::take_turn), which ends with it.
    pub(crate) fn write(&self, store: &mut Store, now: Millis) -> Result<(), StoreError> {
        loop {
            let (batch, lost) = self.with(|queue| {
                let entries = queue.entries.iter().take(BATCH);
                let batch: Vec<_> =
                    entries.map(|waiting| marked(&waiting.entry, waiting.refused, now)).collect();
                queue.busy = !batch.is_empty();
                (batch, queue.lost)
            });
            if batch.is_empty() {
                return Ok(());
            }
            let written = store.change(|change| {
                for entry in &batch {
                    change.audit(entry)?;
                }
                if lost > 0 {
                    change.audit(&gap(lost, now))?;
                }
                Ok(())
            });
            self.with(|queue| match &written {
                Ok(()) => {
                    queue.lost -= lost;
                    for waiting in queue.entries.drain(..batch.len()) {
                        // Whoever asked may have stopped waiting.
                        waiting.told.map(|told| told.send(()));
                    }
                }
                Err(_) => queue.refuse(),
            });
            written?;
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The entry as it is written now: one that is late says when it was written.
fn marked(entry: &AuditEntry, refused: bool, now: Millis) -> AuditEntry {
    let mut entry = entry.clone();
    if refused || now.since(entry.at) >= LATE_MS {
        let after = entry.after.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let after = match after {
            Some(Value::Object(mut fields)) => {
                fields.insert("written_late_at".to_owned(), json!(now));
                Value::Object(fields)
            }
            Some(other) => json!({"what": other, "written_late_at": now}),
            None => json!({"written_late_at": now}),
        };
        entry.after = Some(after.to_string());
    }
    entry
}

/// Says that entries are missing.
fn gap(lost: u64, now: Millis) -> AuditEntry {
    AuditEntry {
        at: now,
        who: "weir".to_owned(),
        via: "none".to_owned(),
        action: "audit.gap".to_owned(),
        target: "audit".to_owned(),
        after: Some(json!({"entries_lost": lost}).to_string()),
        ..AuditEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_fits_is_counted_and_the_log_says_so() {
        let journal = Journal::default();
        for n in 0..WAITING_MAX as u64 + 3 {
            let entry = AuditEntry { at: Millis(n), ..AuditEntry::default() };
            drop(journal.push(entry));
        }
        let mut store = Store::in_memory().unwrap();
        assert!(journal.take_turn() && !journal.take_turn(), "one writes at a time");
        journal.write(&mut store, Millis(5000)).unwrap();
        assert!(!journal.take_turn() && journal.waiting() == 0);
        let mut rows = store.audit_page(None, u32::MAX).unwrap();
        while let Some(before) = rows.last().map(|row| row.seq).filter(|seq| *seq > 1) {
            rows.extend(store.audit_page(Some(before), u32::MAX).unwrap());
        }
        assert_eq!(rows.len(), WAITING_MAX + 1);
        let gaps: Vec<_> = rows.iter().filter(|row| row.entry.action == "audit.gap").collect();
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].entry.after.as_deref(), Some("{\"entries_lost\":3}"));
        let late = |row: &&weir_store::audit::AuditRow| {
            row.entry.after.as_deref().is_some_and(|after| after.contains("written_late_at"))
        };
        assert_eq!(rows.iter().filter(late).count(), WAITING_MAX, "all of them are seconds old");
    }
}
