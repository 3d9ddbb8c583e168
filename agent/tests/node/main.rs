//! The agent on a real kernel: attacker, node and container are namespaces, the rules are nft's.
//!
//! One program, so that laboratories share what they build from.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backends;
mod bars;
mod containers;
#[allow(unreachable_pub, dead_code, reason = "shared with the other tests, used in part")]
#[path = "../../../tests/src/lab.rs"]
mod lab;
mod live;
mod packet;
mod ring;
mod rules;
mod trust;
mod world;

use std::io::Write as _;

/// Reports that a test did not run, and why; `tests/run` prints the list at its end.
#[expect(clippy::print_stderr, reason = "a report of the test run")]
fn skip(test: &str, why: &str) {
    eprintln!("skip: {test}: {why}");
    if let Some(path) = std::env::var_os("WEIR_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The list is for people; a test does not fail for it.
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}
