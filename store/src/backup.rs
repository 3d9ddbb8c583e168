//! One file that holds everything: a tar of `manifest.json` and the database files, each a consistent
//! copy taken while weir runs.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weir_model::Millis;

use crate::{Store, StoreError, history::History, schema};

/// Largest manifest read, octets.
const MANIFEST_MAX: u64 = 64 * 1024;

const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.db";
const HISTORY: &str = "history.db";

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of the archive, 1.
    pub format: u32,
    /// Version of the weir that made it.
    pub weir: String,
    /// When it was made.
    pub at: Millis,
    /// Schema of the state file.
    pub schema: i64,
    /// The files, in the order in which they follow.
    pub files: Vec<BackupFile>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Its name: `state.db` or `history.db`.
    pub name: String,
    /// Octets.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Writes a backup to `out`. Copies are made in `scratch`, a folder of the same disk, and removed.
///
/// # Errors
/// [`StoreError::Database`] or [`StoreError::Io`].
pub fn create(
    store: &Store,
    history: Option<&History>,
    scratch: &Path,
    weir: &str,
    at: Millis,
    out: impl Write,
) -> Result<Manifest, StoreError> {
    let mut copies = vec![(STATE, Copy::of(&store.connection, scratch, STATE)?)];
    if let Some(history) = history {
        copies.push((HISTORY, Copy::of(history.connection(), scratch, HISTORY)?));
    }
    let files = copies
        .iter()
        .map(|(name, copy)| {
            let (bytes, sha256) = digest(&copy.path)?;
            Ok(BackupFile { name: (*name).to_owned(), bytes, sha256 })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    let schema = schema::found(&store.connection)?;
    let manifest = Manifest { format: 1, weir: weir.to_owned(), at, schema, files };
    let text = serde_json::to_vec_pretty(&manifest)?;
    let mut archive = tar::Builder::new(out);
    let failed = |error| StoreError::Io { what: "backup".to_owned(), error };
    append(&mut archive, MANIFEST, &mut text.as_slice(), to_len(text.len()), at).map_err(failed)?;
    for ((name, copy), file) in copies.iter().zip(&manifest.files) {
        let mut body = File::open(&copy.path).map_err(failed)?;
        append(&mut archive, name, &mut body, file.bytes, at).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
    Ok(manifest)
}

/// Puts a backup in the place of the state file, and of the history file when both are given. What was
/// there stays beside it as `<name>.before-restore`.
///
/// # Errors
/// [`StoreError::Newer`] when a newer weir made it, [`StoreError::Backup`] when it is damaged,
/// [`StoreError::Conflict`] when a weir runs on these files; then nothing is changed.
pub fn restore(
    archive: &Path,
    state: &Path,
    history: Option<&Path>,
) -> Result<Manifest, StoreError> {
    let io = |what: &Path| {
        let what = what.display().to_string();
        move |error| StoreError::Io { what, error }
    };
    let mut tar = tar::Archive::new(File::open(archive).map_err(io(archive))?);
    let mut entries = tar.entries().map_err(io(archive))?;
    let mut next = |expected: &str| -> Result<_, StoreError> {
        let entry = entries.next().transpose().map_err(io(archive))?;
        let entry = entry.ok_or_else(|| damaged(&format!("{expected} is missing")))?;
        let name = entry.path().map_err(io(archive))?.into_owned();
        if name != Path::new(expected) {
            return Err(damaged(&format!("{expected} expected, {} found", name.display())));
        }
        Ok(entry)
    };
    let mut text = Vec::new();
    next(MANIFEST)?.take(MANIFEST_MAX).read_to_end(&mut text).map_err(io(archive))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(&format!("manifest: {error}")))?;
    if manifest.format != 1 || manifest.schema > schema::known() {
        return Err(StoreError::Newer { found: manifest.schema, known: schema::known() });
    }
    let mut ready = Vec::new();
    for file in &manifest.files {
        let place = match file.name.as_str() {
            STATE => Some(state),
            HISTORY => history,
            other => return Err(damaged(&format!("unknown file {other}"))),
        };
        let mut entry = next(&file.name)?;
        if let Some(place) = place {
            let copy = Copy { path: beside(place, "restoring") };
            unpack(&mut entry, file, &copy.path)?;
            ready.push((place, copy));
        }
    }
    if !ready.iter().any(|(place, _)| *place == state) {
        return Err(damaged("state.db is missing"));
    }
    for (place, _) in &ready {
        release(place)?;
    }
    for (place, copy) in ready {
        if place.exists() {
            let old = beside(place, "before-restore");
            std::fs::rename(place, &old).map_err(io(place))?;
        }
        std::fs::rename(&copy.path, place).map_err(io(place))?;
        std::mem::forget(copy);
    }
    Ok(manifest)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Backup(what.to_owned())
}

/// A file that is removed when no longer needed.
struct Copy {
    path: PathBuf,
}

/// How the names of copies begin.
const COPY: &str = ".backup-";

/// Removes the copies of backups that a weir was killed over: each is as large as the history. No other weir
/// may work in this folder.
pub fn forget_unfinished(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(COPY) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Copy {
    fn of(connection: &Connection, scratch: &Path, name: &str) -> Result<Self, StoreError> {
        // Each backup has copies of its own: several may be taken at the same time.
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let (weir, taken) = (std::process::id(), TAKEN.fetch_add(1, Ordering::Relaxed));
        let copy = Self { path: scratch.join(format!("{COPY}{weir}-{taken}-{name}")) };
        // VACUUM INTO refuses a file that is there; one can only be left by a killed backup.
        let _ = std::fs::remove_file(&copy.path);
        crate::create_private(&copy.path)?;
        connection.execute("VACUUM INTO ?1", [copy.path.to_string_lossy()])?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    body: &mut impl Read,
    len: u64,
    at: Millis,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o600);
    header.set_mtime(at.secs());
    archive.append_data(&mut header, name, body)
}

/// Writes one file of the archive and checks that it is what the manifest says, and a database.
fn unpack(from: &mut impl Read, file: &BackupFile, to: &Path) -> Result<(), StoreError> {
    let io = |error| StoreError::Io { what: to.display().to_string(), error };
    let _ = std::fs::remove_file(to);
    crate::create_private(to)?;
    let mut out = File::options().write(true).open(to).map_err(io)?;
    std::io::copy(&mut from.take(file.bytes), &mut out).map_err(io)?;
    out.sync_all().map_err(io)?;
    let (bytes, sha256) = digest(to)?;
    if bytes != file.bytes || sha256 != file.sha256 {
        return Err(damaged(&format!("{} is not what its manifest says", file.name)));
    }
    let verdict: String =
        Connection::open(to)?.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        return Err(damaged(&format!("{}: {verdict}", file.name)));
    }
    Ok(())
}

/// Folds the side files into the database. SQLite refuses that while another process has it open.
fn release(place: &Path) -> Result<(), StoreError> {
    if !place.exists() {
        return Ok(());
    }
    let connection = Connection::open(place)?;
    let mode = connection
        .pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0));
    match mode {
        Ok(mode) if mode == "delete" => Ok(()),
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::NotADatabase =>
        {
            Ok(())
        }
        _ => Err(StoreError::Conflict(format!("{} is in use: stop weir first", place.display()))),
    }
}

fn beside(place: &Path, suffix: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn digest(path: &Path) -> Result<(u64, String), StoreError> {
    let io = |error| StoreError::Io { what: path.display().to_string(), error };
    let mut file = File::open(path).map_err(io)?;
    let (mut sum, mut bytes) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        sum.update(&buffer[..read]);
        bytes += to_len(read);
    }
    let hex = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, hex))
}

fn to_len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn two_backups_at_a_time_do_not_take_each_other_s_copies() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join(STATE)).unwrap();
        let copy = || Copy::of(&store.connection, folder.path(), STATE).unwrap();
        let (first, second) = (copy(), copy());
        assert!(first.path != second.path && first.path.exists() && second.path.exists());
        drop(second);
        assert!(digest(&first.path).is_ok());
    }

    #[test]
    fn copies_of_a_killed_backup_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join(STATE)).unwrap();
        let left = Copy::of(&store.connection, folder.path(), HISTORY).unwrap();
        std::mem::forget(left);
        forget_unfinished(folder.path());
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(names.iter().all(|name| name.starts_with(STATE)), "{names:?}");
        assert!(names.contains(&STATE.to_owned()), "{names:?}");
    }
}
