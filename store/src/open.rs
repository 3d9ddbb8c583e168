//! Opening the state file whatever it is like: full, read-only or locked disk, damaged file, damaged row. A
//! weir that does not start protects nobody.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, params};
use weir_model::{Incident, Millis};

use crate::{Store, StoreError, from_sql, to_sql};

/// What is needed of a file that cannot be written, and how much of it: the rest is looked up when it can be
/// opened again.
const NEEDED: &[(&str, &str)] = &[
    ("users", "true"),
    ("sessions", "true"),
    ("tokens", "true"),
    ("settings", "true"),
    ("blobs", "true"),
    ("incidents", "open OR id IN (SELECT id FROM src.incidents ORDER BY id DESC LIMIT 100)"),
    (
        "incident_bodies",
        "id IN (SELECT id FROM src.incidents WHERE open)
         OR id IN (SELECT id FROM src.incidents ORDER BY id DESC LIMIT 100)",
    ),
];

/// A state file, opened somehow.
#[derive(Debug)]
pub struct Opened {
    /// The file, or what could be read of it, in memory.
    pub store: Store,
    /// Why it is in memory and nothing can be written; the file is to be tried again.
    pub stands_in: Option<String>,
    /// What was set aside and where, a line each.
    pub set_aside: Vec<String>,
}

impl Opened {
    /// Opens the file. One that is no database any more is set aside and begun anew; of one that cannot be
    /// written, what is needed is read into memory.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer weir wrote the file, [`StoreError::Io`] when there is none and its
    /// folder is not there or not ours: a mistake in the configuration, not a failure of the disk.
    pub fn at(path: &Path, now: Millis) -> Result<Self, StoreError> {
        let there = std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        match Store::open(path) {
            Ok(store) => Ok(Self { store, stands_in: None, set_aside: Vec::new() }),
            Err(error @ StoreError::Newer { .. }) => Err(error),
            Err(error) if !there && error.is_a_mistake() => Err(error),
            Err(error) if error.is_damage() => Self::anew(path, &error, now),
            Err(error) => Self::stand_in(path, &error),
        }
    }

    fn anew(path: &Path, error: &StoreError, now: Millis) -> Result<Self, StoreError> {
        let Ok(aside) = set_aside(path, now) else { return Self::stand_in(path, error) };
        let line = format!(
            "{} is damaged ({error}) and was set aside as {}; weir begins a new one. Accounts, settings and \
             measures are in it: weir restore puts a backup in its place",
            path.display(),
            aside.display()
        );
        match Store::open(path) {
            Ok(store) => Ok(Self { store, stands_in: None, set_aside: vec![line] }),
            Err(error) => {
                let mut opened = Self::stand_in(path, &error)?;
                opened.set_aside.insert(0, line);
                Ok(opened)
            }
        }
    }

    fn stand_in(path: &Path, error: &StoreError) -> Result<Self, StoreError> {
        let (store, unread) = Store::copy_of(path)?;
        let set_aside =
            unread.into_iter().map(|what| format!("{}: {what}", path.display())).collect();
        Ok(Self { store, stands_in: Some(error.to_string()), set_aside })
    }
}

impl StoreError {
    /// Whether the file is no database, or a damaged one.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ))
    }

    /// Whether the folder is not there or not ours.
    fn is_a_mistake(&self) -> bool {
        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        matches!(self, Self::Io { error, .. }
            if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied))
    }
}

/// Renames a database with its side files; says how it is called now.
pub(crate) fn set_aside(path: &Path, now: Millis) -> Result<PathBuf, StoreError> {
    let named = |suffix: &str, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("{suffix}{end}"));
        PathBuf::from(name)
    };
    let aside = format!(".damaged-{}", now.secs());
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (named(suffix, ""), named(suffix, &aside));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io { what: from.display().to_string(), error });
            }
            _ => {}
        }
    }
    Ok(named("", &aside))
}

impl Store {
    /// What is needed of a file that cannot be written, in memory; and what of it could not be read.
    fn copy_of(path: &Path) -> Result<(Self, Vec<String>), StoreError> {
        let store = Self::in_memory()?;
        let connection = &store.connection;
        // Rows are taken as they are; what refers to what was checked when they were written.
        connection.pragma_update(None, "foreign_keys", false)?;
        let attached = attach(connection, path);
        let mut unread = Vec::new();
        match attached {
            Ok(()) => {
                for (table, which) in NEEDED {
                    if let Err(error) = copy(connection, table, which) {
                        unread.push(format!("{table} cannot be read: {error}"));
                    }
                }
                let _ = connection.execute_batch("DETACH src");
            }
            Err(error) if path.exists() => {
                unread.push(format!("nothing of it can be read: {error}"))
            }
            Err(_) => {}
        }
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok((store, unread))
    }

    /// Moves what cannot be understood out of the way, so that nothing trips over it again: bodies of open
    /// incidents that are none. Says what and where, a line each.
    pub fn set_aside_incidents(&mut self, now: Millis) -> Vec<String> {
        let ids = self.unreadable_incidents().unwrap_or_default();
        let mut lines = Vec::new();
        for (id, why) in ids {
            let moved = self.change(|change| {
                let (from, incident) = (&change.transaction, format!("incident {id}"));
                from.execute(
                    "INSERT INTO set_aside (at_ms, what, why, body)
                     SELECT ?2, ?3, ?4, body FROM incident_bodies WHERE id = ?1",
                    params![id, to_sql(now.0), incident, why],
                )?;
                from.execute("DELETE FROM incident_bodies WHERE id = ?1", [id])?;
                from.execute("DELETE FROM incidents WHERE id = ?1", [id])?;
                Ok(())
            });
            lines.push(match moved {
                Ok(()) => {
                    format!("incident {id} cannot be read ({why}): now in the table set_aside")
                }
                Err(error) => {
                    format!("incident {id} cannot be read ({why}): left where it is ({error})")
                }
            });
        }
        lines
    }

    fn unreadable_incidents(&self) -> Result<Vec<(i64, String)>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT id, body FROM incidents LEFT JOIN incident_bodies USING (id) WHERE open",
        )?;
        let mut rows = statement.query([])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            // A body that is missing altogether, or no text.
            let body = row.get::<_, String>(1).map_err(|error| error.to_string());
            let read = body.and_then(|body| {
                serde_json::from_str::<Incident>(&body).map(drop).map_err(|error| error.to_string())
            });
            if let Err(why) = read {
                ids.push((row.get(0)?, why));
            }
        }
        Ok(ids)
    }

    /// Moves a blob that cannot be understood out of the way of the next one of its name.
    ///
    /// # Errors
    /// [`StoreError::Database`]; then it stays where it is.
    pub fn set_aside_blob(&mut self, name: &str, why: &str, now: Millis) -> Result<(), StoreError> {
        self.change(|change| {
            change.transaction.execute(
                "INSERT INTO set_aside (at_ms, what, why, body)
                 SELECT ?2, name, ?3, body FROM blobs WHERE name = ?1",
                params![name, to_sql(now.0), why],
            )?;
            change.transaction.execute("DELETE FROM blobs WHERE name = ?1", [name])?;
            Ok(())
        })
    }

    /// How many records were set aside because they could not be read.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_aside(&self) -> Result<u64, StoreError> {
        let count = self
            .connection
            .query_row("SELECT count(*) FROM set_aside", [], |row| row.get::<_, i64>(0))?;
        Ok(from_sql(count))
    }
}

/// Makes the file readable as `src`. The lock of a single reader needs no side file, which a full disk would
/// have no room for; where even that is refused, the file is read as it is, without what stands in its log.
fn attach(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let plain = path.to_string_lossy().into_owned();
    let escaped: String = plain
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let mut last = Ok(());
    for name in [format!("file:{escaped}?mode=rw"), format!("file:{escaped}?immutable=1")] {
        last = (|| {
            // Before the file is attached, which reads it already.
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
            connection.execute("ATTACH DATABASE ?1 AS src", [&name])?;
            connection.query_row("SELECT count(*) FROM src.sqlite_schema", [], |_| Ok(()))?;
            Ok(())
        })();
        if last.is_ok() {
            break;
        }
        let _ = connection.execute_batch("DETACH src");
    }
    last
}

fn copy(connection: &Connection, table: &str, which: &str) -> Result<(), StoreError> {
    // A file of an earlier version lacks columns.
    let mut columns = connection.prepare(
        "SELECT name FROM pragma_table_info(?1, 'main')
         WHERE name IN (SELECT name FROM pragma_table_info(?1, 'src'))",
    )?;
    let columns: Vec<String> =
        columns.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Err(StoreError::Unopened("the table is not there".to_owned()));
    }
    let columns = columns.join(", ");
    connection.execute(
        &format!(
            "INSERT OR IGNORE INTO main.{table} ({columns})
             SELECT {columns} FROM src.{table} WHERE {which}"
        ),
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_is_no_database_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, [7; 10_000]).unwrap();
        let opened = Opened::at(&path, NOW).unwrap();
        assert!(opened.stands_in.is_none());
        assert_eq!(opened.set_aside.len(), 1, "{:?}", opened.set_aside);
        assert!(
            opened.set_aside[0].contains("state.db.damaged-1800000000"),
            "{:?}",
            opened.set_aside
        );
        assert!(names(folder.path()).contains(&"state.db.damaged-1800000000".to_owned()));
        assert_eq!(opened.store.owners().unwrap(), 0);
    }

    #[test]
    fn a_mistake_in_the_configuration_is_none_of_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("not/there/state.db");
        assert!(matches!(Opened::at(&nowhere, NOW), Err(StoreError::Io { .. })));
        let path = folder.path().join("state.db");
        let store = Store::open(&path).unwrap();
        store.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        assert!(matches!(Opened::at(&path, NOW), Err(StoreError::Newer { .. })));
    }

    #[test]
    fn of_a_file_that_cannot_be_opened_what_is_needed_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut store = Store::open(&path).unwrap();
        store.change(|change| change.put_setting("prefixes", 0, NOW, "eve", Some("[]"))).unwrap();
        store.put_blob("mitigator-1", NOW, b"{}").unwrap();
        drop(store);
        // No side file can be made where a link stands in its place.
        let side = folder.path().join("state.db-shm");
        std::os::unix::fs::symlink("/nowhere/at/all", &side).unwrap();
        let opened = Opened::at(&path, NOW).unwrap();
        assert!(opened.stands_in.is_some());
        assert_eq!(opened.set_aside, [""; 0]);
        assert_eq!(opened.store.settings().unwrap().len(), 1);
        assert!(opened.store.blob("mitigator-1").unwrap().is_some());
        std::fs::remove_file(&side).unwrap();
        assert!(Opened::at(&path, NOW).unwrap().stands_in.is_none(), "it is let go again");
    }

    #[test]
    fn an_incident_that_cannot_be_read_is_moved_out_of_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut store = Store::open(&path).unwrap();
        store
            .connection
            .execute_batch(
                "INSERT INTO incident_bodies VALUES (77, '{nonsense'), (78, x'ff00');
                 INSERT INTO incidents VALUES
                     (77, 1, 1, NULL, '203.0.113.7/32', 'udp-flood', 'x'),
                     (78, 1, 1, NULL, '203.0.113.7/32', 'udp-flood', 'x'),
                     (79, 1, 1, NULL, '203.0.113.7/32', 'udp-flood', 'x');",
            )
            .unwrap();
        assert!(store.open_incidents().unwrap().is_empty());
        assert!(store.incidents(&crate::IncidentFilter::default(), 10).unwrap().is_empty());
        let lines = store.set_aside_incidents(NOW);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("incident 77 cannot be read"), "{lines:?}");
        assert!(store.set_aside_incidents(NOW).is_empty());
        assert_eq!(store.set_aside().unwrap(), 2, "of the third there is no body");
    }
}
