//! The schema, as a list of steps: step n leads from `user_version` n to n + 1. Steps are only ever
//! appended.

use rusqlite::Connection;

use crate::StoreError;

const STEPS: &[&str] = &["
    CREATE TABLE incidents (
        id INTEGER PRIMARY KEY,
        open INTEGER NOT NULL,
        opened_ms INTEGER NOT NULL,
        closed_ms INTEGER,
        target TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX incidents_open ON incidents (id) WHERE open;
    CREATE INDEX incidents_target ON incidents (target, id);
    CREATE TABLE blobs (
        name TEXT PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        body BLOB NOT NULL
    ) WITHOUT ROWID;
"];

pub(crate) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, step) in (1_i64..).zip(STEPS) {
        if version > found {
            // One transaction a step: a kill between two leaves a file that the next start completes.
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {step} PRAGMA user_version = {version}; COMMIT;"
            ))?;
        }
    }
    Ok(())
}
