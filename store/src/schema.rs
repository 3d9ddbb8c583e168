//! The schema, as a list of steps: step n leads from `user_version` n to n + 1. Steps are only ever
//! appended.

use rusqlite::Connection;

use crate::StoreError;

const STEPS: &[&str] = &[
    "
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
",
    // What lists filter and search by stands beside the body, so that a search reads no evidence. The
    // body goes into a table of its own: SQLite reads a row's overflow pages only when asked for the
    // column, but still walks past the first 4 KiB of each; 10,000 bodies made a search take seconds.
    "
    CREATE TABLE incident_bodies (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
    INSERT INTO incident_bodies SELECT id, body FROM incidents;
    CREATE TABLE incident_rows (
        id INTEGER PRIMARY KEY,
        open INTEGER NOT NULL,
        opened_ms INTEGER NOT NULL,
        closed_ms INTEGER,
        target TEXT NOT NULL,
        family TEXT NOT NULL,
        words TEXT NOT NULL
    );
    INSERT INTO incident_rows
        SELECT id, open, opened_ms, closed_ms, target,
            coalesce(body ->> '$.verdict.family', ''),
            lower(target || ' ' || coalesce(body ->> '$.verdict.family', '') || ' '
                || coalesce(body ->> '$.verdict.summary', ''))
        FROM incidents;
    DROP TABLE incidents;
    ALTER TABLE incident_rows RENAME TO incidents;
    CREATE INDEX incidents_open ON incidents (id) WHERE open;
    CREATE INDEX incidents_target ON incidents (target, id);
    CREATE INDEX incidents_family ON incidents (family, id);
    CREATE TABLE users (
        name TEXT PRIMARY KEY COLLATE NOCASE,
        role TEXT NOT NULL,
        prefixes TEXT NOT NULL,
        password TEXT NOT NULL,
        totp TEXT,
        totp_step INTEGER NOT NULL DEFAULT 0,
        disabled INTEGER NOT NULL DEFAULT 0,
        created_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE sessions (
        hash BLOB PRIMARY KEY,
        id INTEGER NOT NULL UNIQUE,
        user TEXT NOT NULL COLLATE NOCASE REFERENCES users (name) ON DELETE CASCADE,
        created_ms INTEGER NOT NULL,
        seen_ms INTEGER NOT NULL,
        address TEXT NOT NULL,
        agent TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX sessions_user ON sessions (user);
    CREATE TABLE tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT,
        prefixes TEXT NOT NULL,
        networks TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        expires_ms INTEGER,
        used_ms INTEGER
    );
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        via TEXT NOT NULL,
        address TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        before TEXT,
        after TEXT,
        hash BLOB NOT NULL
    );
    CREATE TRIGGER audit_is_append_only_1 BEFORE UPDATE ON audit
        BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_is_append_only_2 BEFORE DELETE ON audit
        BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        incident INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX notes_incident ON notes (incident, id);
    CREATE TABLE feedback (
        incident INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        kind TEXT NOT NULL,
        comment TEXT NOT NULL
    );
    CREATE TABLE settings (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        body TEXT
    ) WITHOUT ROWID;
    CREATE TABLE answers (
        who TEXT NOT NULL,
        key TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        request BLOB NOT NULL,
        status INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (who, key)
    ) WITHOUT ROWID;
    CREATE INDEX answers_at ON answers (at_ms);
",
    "CREATE TABLE evidence (incident INTEGER PRIMARY KEY, body TEXT NOT NULL);",
    // What undoing the last change brings back; nothing when that is the configuration file.
    "ALTER TABLE settings ADD COLUMN before TEXT;",
    // Records that could not be read when weir started: out of the way, and not lost.
    "CREATE TABLE set_aside (
        id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, what TEXT NOT NULL, why TEXT NOT NULL, body BLOB
    );",
];

/// Newest schema version this build knows.
pub(crate) fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Schema version of an open file.
pub(crate) fn found(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

pub(crate) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    steps(connection, STEPS)
}

/// Applies the steps the file lacks, each in a transaction of its own: a kill between two leaves a file
/// that the next start completes.
pub(crate) fn steps(connection: &Connection, steps: &[&str]) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let at_first = found(connection)?;
    if at_first > known {
        return Err(StoreError::Newer { found: at_first, known });
    }
    for (version, step) in (1_i64..).zip(steps) {
        if version <= at_first {
            continue;
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        // Another connection may have been faster while this one waited for the lock.
        let outcome = found(connection).and_then(|now| {
            if now < version {
                connection.execute_batch(step)?;
                connection.pragma_update(None, "user_version", version)?;
            }
            Ok(connection.execute_batch("COMMIT")?)
        });
        if outcome.is_err() {
            let _ = connection.execute_batch("ROLLBACK");
            return outcome;
        }
    }
    Ok(())
}
