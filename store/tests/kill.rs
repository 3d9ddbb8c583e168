//! A writer killed at any moment loses nothing it acknowledged. The writer is this same test binary,
//! started again as a child that reports each commit on its standard output.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use weir_model::Millis;
use weir_store::Store;
use weir_store::audit::{AuditEntry, Chain};

const FILE: &str = "WEIR_KILL_TEST_FILE";

/// Not a check of its own: does nothing unless it is the child.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let mut store = Store::open(path.as_ref()).unwrap();
    let mut out = std::io::stdout();
    loop {
        let entry = AuditEntry { at: Millis(1), who: "x".repeat(300), ..AuditEntry::default() };
        let seq = store.change(|change| change.audit(&entry)).unwrap();
        writeln!(out, "\ncommitted {seq}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut acknowledged = 0;
    for round in 1..=8_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut commits = 0;
        for line in lines {
            let Some(seq) = line.strip_prefix("committed ") else { continue };
            acknowledged = seq.parse().unwrap();
            commits += 1;
            if commits == round * 7 {
                // SIGKILL, while the child is in the middle of its next write.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = Store::open(&path).unwrap();
        match store.verify_audit().unwrap() {
            Chain::Whole { entries, .. } => {
                assert!(entries >= acknowledged, "{entries} of {acknowledged} in round {round}");
            }
            Chain::Broken { seq } => panic!("broken at {seq} in round {round}"),
        }
    }
    assert!(acknowledged >= 8 * 7);
}
