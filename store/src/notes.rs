//! What operators say about incidents, settings they change at run time, and answers already given.

use rusqlite::{OptionalExtension as _, params};
use weir_model::{IncidentId, Millis};

use crate::accounts::SecretHash;
use crate::{Change, Store, StoreError, from_sql, to_sql};

/// Notes that one incident takes at most.
pub const NOTES_MAX: u64 = 500;

/// A request under an idempotency key is answered within this time, or never, milliseconds.
pub const UNANSWERED_MS: u64 = 2 * 60 * 1000;

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its number.
    pub id: u64,
    /// When.
    pub at: Millis,
    /// Who.
    pub who: String,
    /// What.
    pub text: String,
}

/// An operator's word on whether an incident was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// When.
    pub at: Millis,
    /// Who.
    pub who: String,
    /// `attack` or `false-positive`.
    pub kind: String,
    /// Why.
    pub comment: String,
}

/// A setting changed at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Rises with every change, removal included; 0 when never changed.
    pub version: u64,
    /// When changed.
    pub at: Millis,
    /// By whom.
    pub who: String,
    /// Its value as JSON; `None` when the configuration file decides again.
    pub body: Option<String>,
    /// Its value before the last change, likewise.
    pub before: Option<String>,
}

/// An answer given under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Hash of the request it answered.
    pub request: SecretHash,
    /// HTTP status; 0 while the first request is still at work.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Store {
    /// An incident's notes, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn notes(&self, incident: IncidentId) -> Result<Vec<Note>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at_ms, who, text FROM notes WHERE incident = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([to_sql(incident.0)], |row| {
            Ok(Note {
                id: from_sql(row.get(0)?),
                at: Millis(from_sql(row.get(1)?)),
                who: row.get(2)?,
                text: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was said about an incident.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn feedback(&self, incident: IncidentId) -> Result<Option<Feedback>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT at_ms, who, kind, comment FROM feedback WHERE incident = ?1")?
            .query_row([to_sql(incident.0)], |row| {
                Ok(Feedback {
                    at: Millis(from_sql(row.get(0)?)),
                    who: row.get(1)?,
                    kind: row.get(2)?,
                    comment: row.get(3)?,
                })
            })
            .optional()?)
    }

    /// Settings changed at run time, by name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, version, at_ms, who, body, before FROM settings ORDER BY name",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Setting {
                name: row.get(0)?,
                version: from_sql(row.get(1)?),
                at: Millis(from_sql(row.get(2)?)),
                who: row.get(3)?,
                body: row.get(4)?,
                before: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Adds a note.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the incident has [`NOTES_MAX`] already.
    pub fn add_note(
        &self,
        incident: IncidentId,
        at: Millis,
        who: &str,
        text: &str,
    ) -> Result<u64, StoreError> {
        let id = to_sql(incident.0);
        let count: i64 = self.transaction.query_row(
            "SELECT count(*) FROM notes WHERE incident = ?1",
            [id],
            |row| row.get(0),
        )?;
        if from_sql(count) >= NOTES_MAX {
            return Err(StoreError::Conflict(format!("an incident takes {NOTES_MAX} notes")));
        }
        self.transaction.execute(
            "INSERT INTO notes (incident, at_ms, who, text) VALUES (?1, ?2, ?3, ?4)",
            params![id, to_sql(at.0), who, text],
        )?;
        Ok(from_sql(self.transaction.last_insert_rowid()))
    }

    /// Says whether an incident was one; the last word counts.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn put_feedback(
        &self,
        incident: IncidentId,
        feedback: &Feedback,
    ) -> Result<(), StoreError> {
        self.transaction.execute(
            "INSERT INTO feedback (incident, at_ms, who, kind, comment) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (incident) DO UPDATE SET at_ms = excluded.at_ms, who = excluded.who,
                 kind = excluded.kind, comment = excluded.comment",
            params![
                to_sql(incident.0),
                to_sql(feedback.at.0),
                feedback.who,
                feedback.kind,
                feedback.comment
            ],
        )?;
        Ok(())
    }

    /// Changes a setting that still has `version`, 0 for one never changed; returns the new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else was faster.
    pub fn put_setting(
        &self,
        name: &str,
        version: u64,
        at: Millis,
        who: &str,
        body: Option<&str>,
    ) -> Result<u64, StoreError> {
        let found: Option<i64> = self
            .transaction
            .query_row("SELECT version FROM settings WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        let found = found.map_or(0, from_sql);
        if found != version {
            return Err(StoreError::Conflict(format!("{name} has version {found} by now")));
        }
        self.transaction.execute(
            "INSERT INTO settings (name, version, at_ms, who, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET version = excluded.version, at_ms = excluded.at_ms,
                 who = excluded.who, before = settings.body, body = excluded.body",
            params![name, to_sql(version + 1), to_sql(at.0), who, body],
        )?;
        Ok(version + 1)
    }

    /// Takes an idempotency key, or says what was answered under it; answers from before `forget` are
    /// forgotten.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn claim_answer(
        &self,
        who: &str,
        key: &str,
        request: &SecretHash,
        at: Millis,
        forget: Millis,
    ) -> Result<Option<Answer>, StoreError> {
        // A request that was never answered died with its process; its key may be used again.
        self.transaction.execute(
            "DELETE FROM answers WHERE at_ms < ?1 OR (status = 0 AND at_ms < ?2)",
            [to_sql(forget.0), to_sql(at.0.saturating_sub(UNANSWERED_MS))],
        )?;
        let known = self
            .transaction
            .query_row(
                "SELECT request, status, body FROM answers WHERE who = ?1 AND key = ?2",
                [who, key],
                |row| Ok(Answer { request: row.get(0)?, status: row.get(1)?, body: row.get(2)? }),
            )
            .optional()?;
        if known.is_none() {
            self.transaction.execute(
                "INSERT INTO answers (who, key, at_ms, request, status, body)
                 VALUES (?1, ?2, ?3, ?4, 0, x'')",
                params![who, key, to_sql(at.0), request],
            )?;
        }
        Ok(known)
    }

    /// Keeps the answer given under a key that was taken.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn put_answer(
        &self,
        who: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        self.transaction.execute(
            "UPDATE answers SET status = ?3, body = ?4 WHERE who = ?1 AND key = ?2",
            params![who, key, status, body],
        )?;
        Ok(())
    }

    /// Gives a key back whose request failed before it changed anything.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn drop_answer(&self, who: &str, key: &str) -> Result<(), StoreError> {
        self.transaction.execute("DELETE FROM answers WHERE who = ?1 AND key = ?2", [who, key])?;
        Ok(())
    }
}
