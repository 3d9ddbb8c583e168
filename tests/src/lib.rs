//! What the tests share: laboratories of network namespaces, and the corpus.
//!
//! Test files stand in `tests/tests/`. Helpers panic: a test that cannot be set up has failed, unless
//! what it needs is not on the machine, which is reported as a skip by name.

pub mod bench;
pub mod calibration;
pub mod capture;
pub mod corpus;
pub mod fastnetmon;
pub mod lab;
pub mod load;
pub mod nft;
pub mod play;
pub mod process;
pub mod reference;
pub mod rival;
pub mod scenario;
pub mod seed;
pub mod text;
pub mod worlds;

use std::io::Write as _;

/// Reports that a test, or a part of it, did not run, and why. `tests/run` prints the list at its end.
#[expect(clippy::print_stderr, reason = "a report of the test run")]
pub fn skip(test: &str, why: &str) {
    eprintln!("skip: {test}: {why}");
    if let Some(path) = std::env::var_os("WEIR_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The list is for people; a test does not fail for it.
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}

/// The `weir` binary beside the test's own: `cargo test --workspace` has built it.
///
/// # Panics
/// When it is not there: build the workspace, not this crate alone.
pub fn weir_binary() -> std::path::PathBuf {
    binary("weir")
}

/// The agent's binary beside the test's own, as [`weir_binary`].
///
/// # Panics
/// When it is not there: build the workspace, not this crate alone.
pub fn agent_binary() -> std::path::PathBuf {
    binary("weir-agent")
}

/// The archive's binary beside the test's own, as [`weir_binary`].
///
/// # Panics
/// When it is not there: build the workspace, not this crate alone.
pub fn flows_binary() -> std::path::PathBuf {
    binary("weir-flows")
}

/// The binary for mirror ports beside the test's own, as [`weir_binary`].
///
/// # Panics
/// When it is not there: build the workspace, not this crate alone.
pub fn mirror_binary() -> std::path::PathBuf {
    binary("weir-mirror")
}

fn binary(name: &str) -> std::path::PathBuf {
    let own = std::env::current_exe().expect("a test has a file");
    let folder = own.parent().and_then(std::path::Path::parent).expect("target/<profile>/deps");
    let binary = folder.join(name);
    assert!(binary.is_file(), "{} is not built: cargo build --workspace", binary.display());
    binary
}
