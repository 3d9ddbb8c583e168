//! Backups come back whole, and are refused when damaged, newer, or over a running weir.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use weir_model::{Millis, Role};
use weir_store::accounts::User;
use weir_store::backup::{self, Manifest};
use weir_store::history::{BLOCK_SECS, History, HostMinute, Step};
use weir_store::{Store, StoreError};

fn user(name: &str) -> User {
    User {
        name: name.into(),
        role: Role::Owner,
        prefixes: vec![],
        password: String::new(),
        totp: None,
        totp_step: 0,
        disabled: false,
        created: Millis(1),
    }
}

struct Made {
    dir: tempfile::TempDir,
    archive: PathBuf,
    manifest: Manifest,
}

fn made() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("old.db")).unwrap();
    store.change(|change| change.add_user(&user("eve"))).unwrap();
    let mut history = History::open(&dir.path().join("old-history.db")).unwrap();
    let minute = HostMinute {
        net: "203.0.113.7/32".parse().unwrap(),
        packets: [5; BLOCK_SECS],
        bytes: [500; BLOCK_SECS],
    };
    history.put_minute(Millis(0), &[minute]).unwrap();
    let archive = dir.path().join("weir.backup");
    let out = std::fs::File::create(&archive).unwrap();
    let manifest =
        backup::create(&store, Some(&history), dir.path(), "0.1.0", Millis(9), out).unwrap();
    Made { dir, archive, manifest }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("old"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_backup_comes_back_whole() {
    let made = made();
    let (state, history) = (made.dir.path().join("state.db"), made.dir.path().join("history.db"));
    let restored = backup::restore(&made.archive, &state, Some(&history)).unwrap();
    assert_eq!(restored, made.manifest);
    assert_eq!(Store::open(&state).unwrap().users().unwrap(), [user("eve")]);
    let series = History::open(&history)
        .unwrap()
        .series(
            "203.0.113.7".parse::<std::net::IpAddr>().unwrap(),
            Step::Minute,
            Millis(0),
            Millis(60_000),
        )
        .unwrap();
    assert_eq!(series[0].bits_per_sec, 4000.0);
}

#[test]
fn nothing_is_left_behind_and_the_old_file_is_kept() {
    let made = made();
    let state = made.dir.path().join("state.db");
    drop(Store::open(&state).unwrap());
    backup::restore(&made.archive, &state, None).unwrap();
    assert_eq!(names(made.dir.path()), ["state.db", "state.db.before-restore", "weir.backup"]);
}

#[test]
fn a_running_weir_keeps_its_files() {
    let made = made();
    let state = made.dir.path().join("state.db");
    let store = Store::open(&state).unwrap();
    let refused = backup::restore(&made.archive, &state, None);
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert!(store.users().unwrap().is_empty());
}

#[test]
fn damage_and_newer_backups_are_refused() {
    let made = made();
    let state = made.dir.path().join("state.db");
    let whole = std::fs::read(&made.archive).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&made.archive, bytes).unwrap();
        let outcome = backup::restore(&made.archive, &state, None).unwrap_err();
        assert!(!state.exists(), "{outcome}");
        assert_eq!(names(made.dir.path()), ["weir.backup"], "{outcome}");
        outcome
    };
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(matches!(refused(&flipped), StoreError::Backup(_)));
    assert!(matches!(refused(&whole[..whole.len() / 2]), StoreError::Backup(_)));
    refused(b"");
    refused(b"not an archive at all");
    let newer = String::from_utf8_lossy(&whole[..1024])
        .replace(&format!("\"schema\": {}", made.manifest.schema), "\"schema\": 9")
        .into_bytes();
    let newer = [&newer, &whole[1024..]].concat();
    assert!(matches!(refused(&newer), StoreError::Newer { found: 9, .. }));
}

#[test]
fn a_backup_that_names_other_paths_is_refused() {
    let made = made();
    let manifest = Manifest {
        files: vec![backup::BackupFile {
            name: "../../evil".into(),
            bytes: 0,
            sha256: String::new(),
        }],
        ..made.manifest.clone()
    };
    let text = serde_json::to_vec(&manifest).unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(&made.archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(text.len()).unwrap());
    tar.append_data(&mut header, "manifest.json", text.as_slice()).unwrap();
    tar.finish().unwrap();
    let state = made.dir.path().join("state.db");
    let refused = backup::restore(&made.archive, &state, None);
    assert!(matches!(refused, Err(StoreError::Backup(_))), "{refused:?}");
}
