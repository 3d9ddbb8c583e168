//! What survives a restart. The only crate that names the database.
//!
//! SQLite in WAL mode, one file, written by one thread. A record is acknowledged when its
//! transaction is committed; `kill -9` at any moment loses none of those. Bodies are JSON, so that
//! an operator can read them with `sqlite3`; columns beside them are what lists filter by.
//! Read [`Store`] first.

mod error;
mod schema;

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use weir_model::{Incident, IncidentId, IncidentState, Millis};

pub use error::StoreError;

/// An open state file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens or creates the file and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer weir wrote the file, [`StoreError::Database`] when it cannot be
    /// opened, locked or migrated.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::prepare(Connection::open(path)?)
    }

    /// A store that is gone when dropped.
    ///
    /// # Errors
    /// [`StoreError::Database`] when SQLite cannot be initialised.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(connection: Connection) -> Result<Self, StoreError> {
        // FULL: a committed incident survives a power cut too; the store writes a few times a second at
        // most, so its fsync costs nothing that matters.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        schema::migrate(&connection)?;
        Ok(Self { connection })
    }

    /// Writes incidents in one transaction; a known one is replaced.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`]; then nothing of the batch is written.
    pub fn put_incidents(&mut self, incidents: &[Arc<Incident>]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO incidents (id, open, opened_ms, closed_ms, target, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET open = excluded.open, closed_ms = excluded.closed_ms,
                     target = excluded.target, body = excluded.body",
            )?;
            for incident in incidents {
                put.execute(params![
                    to_sql(incident.id.0),
                    incident.state == IncidentState::Open,
                    to_sql(incident.opened.0),
                    incident.closed.map(|at| to_sql(at.0)),
                    incident.verdict.target.to_string(),
                    serde_json::to_string(incident.as_ref())?,
                ])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Incidents that had not ended when the last weir stopped, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn open_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        self.bodies("SELECT body FROM incidents WHERE open ORDER BY id", [])
    }

    /// The newest incidents, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn recent_incidents(&self, limit: u32) -> Result<Vec<Incident>, StoreError> {
        self.bodies("SELECT body FROM incidents ORDER BY id DESC LIMIT ?1", [limit])
    }

    /// The highest incident number ever given out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn last_incident(&self) -> Result<Option<IncidentId>, StoreError> {
        let id: Option<i64> =
            self.connection.query_row("SELECT max(id) FROM incidents", [], |row| row.get(0))?;
        Ok(id.and_then(|id| u64::try_from(id).ok()).map(IncidentId))
    }

    /// Keeps a named blob, such as a checkpoint of the baselines.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn put_blob(&mut self, name: &str, at: Millis, body: &[u8]) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO blobs (name, at_ms, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body",
            params![name, to_sql(at.0), body],
        )?;
        Ok(())
    }

    /// A named blob and when it was kept.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn blob(&self, name: &str) -> Result<Option<(Millis, Vec<u8>)>, StoreError> {
        let row = self
            .connection
            .query_row("SELECT at_ms, body FROM blobs WHERE name = ?1", [name], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(row.map(|(at, body)| (Millis(u64::try_from(at).unwrap_or(0)), body)))
    }

    /// Forgets incidents that ended before `before`; returns how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn forget_before(&mut self, before: Millis) -> Result<usize, StoreError> {
        let gone = self.connection.execute(
            "DELETE FROM incidents WHERE NOT open AND closed_ms < ?1",
            [to_sql(before.0)],
        )?;
        Ok(gone)
    }

    fn bodies<P: rusqlite::Params>(
        &self,
        query: &str,
        params: P,
    ) -> Result<Vec<Incident>, StoreError> {
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params, |row| row.get::<_, String>(0))?;
        rows.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }
}

/// SQLite integers are signed; ids and times of weir stay below 2^63 for 292 million years.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::{Direction, Family, Metric, Phase, Rate, Reason, Verdict};

    fn incident(id: u64, state: IncidentState) -> Arc<Incident> {
        let at = Millis(id);
        Arc::new(Incident {
            id: IncidentId(id),
            state,
            opened: at,
            closed: (state == IncidentState::Closed).then_some(at + 5),
            verdict: Verdict {
                incident: IncidentId(id),
                phase: Phase::Opened,
                at,
                target: "203.0.113.7/32".parse().unwrap(),
                direction: Direction::Inbound,
                family: Family::SynFlood,
                vectors: vec![],
                confidence: 90,
                evidence_groups: 2,
                separable: true,
                rate: Rate::default(),
                peak: Rate::default(),
                excess: Rate::default(),
                discarded: Rate::default(),
                legitimate: None,
                sources: 10.0,
                reason: Reason {
                    metric: Metric::SynsPerSec,
                    value: 1.0,
                    baseline: 0.5,
                    multiplier: 3.0,
                    threshold: 0.9,
                    window_ms: 1000,
                    samples: 100.0,
                    sampling: 1.0,
                    exporters: vec!["edge1".into()],
                    service: None,
                },
                candidates: vec![],
                top_sources: vec![],
                summary: "a flood".into(),
            },
            rung: None,
            held: false,
            mitigations: vec![],
            timeline: vec![],
        })
    }

    #[test]
    fn incidents_come_back_whole_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let open = incident(7, IncidentState::Open);
        let mut store = Store::open(&path).unwrap();
        store.put_incidents(&[incident(5, IncidentState::Closed), open.clone()]).unwrap();
        // Not dropped in order: what counts is the committed transaction.
        std::mem::forget(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.open_incidents().unwrap(), [open.as_ref().clone()]);
        assert_eq!(store.recent_incidents(10).unwrap().len(), 2);
        assert_eq!(store.last_incident().unwrap(), Some(IncidentId(7)));
    }

    #[test]
    fn a_closed_incident_is_no_longer_open_and_can_be_forgotten() {
        let mut store = Store::in_memory().unwrap();
        store.put_incidents(&[incident(7, IncidentState::Open)]).unwrap();
        store.put_incidents(&[incident(7, IncidentState::Closed)]).unwrap();
        assert!(store.open_incidents().unwrap().is_empty());
        assert_eq!(store.forget_before(Millis(12)).unwrap(), 0);
        assert_eq!(store.forget_before(Millis(13)).unwrap(), 1);
    }

    #[test]
    fn blobs_are_replaced() {
        let mut store = Store::in_memory().unwrap();
        assert_eq!(store.blob("baselines").unwrap(), None);
        store.put_blob("baselines", Millis(1), b"a").unwrap();
        store.put_blob("baselines", Millis(2), b"b").unwrap();
        assert_eq!(store.blob("baselines").unwrap(), Some((Millis(2), b"b".to_vec())));
    }

    #[test]
    fn a_file_of_a_newer_weir_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", 9999).unwrap();
        drop(raw);
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 9999, .. })));
    }
}
