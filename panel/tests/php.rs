//! The panels' extensions, where PHP is installed: their own checks, and a signature of theirs judged by weir.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_model::Millis;
use weir_panel::config::Secret;
use weir_panel::owner::{Grant, embed};

fn integrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("integrations")
}

#[expect(clippy::print_stdout, reason = "a report of the test run")]
fn has_php(test: &str) -> bool {
    let found = Command::new("php").arg("--version").output().is_ok();
    if !found {
        println!("skip: {test}: php is not installed");
    }
    found
}

#[test]
fn the_extensions_pass_their_own_checks() {
    if !has_php("the_extensions_pass_their_own_checks") {
        return;
    }
    let out = Command::new(integrations().join("tests/run")).output().unwrap();
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success() && text.contains("ok"), "{text}");
}

#[test]
fn weir_believes_what_an_extension_signs() {
    if !has_php("weir_believes_what_an_extension_signs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new(integrations().join("build")).arg(folder.path()).output().unwrap();
    assert!(built.status.success());
    let key = "an embed key of some length";
    let now = Millis::from_secs(1_795_168_965);
    let out = Command::new("php")
        .arg(integrations().join("tests/run.php"))
        .arg(folder.path())
        .args(["sign", "https://shield.example.net", "main", key, "uuid", "11", "1795168965"])
        .output()
        .unwrap();
    let address = String::from_utf8(out.stdout).unwrap();
    let (base, token) = address.split_once("?t=").unwrap();
    assert_eq!(base, "https://shield.example.net/embed/main");
    let grant = embed::verify(token, "main", &Secret(key.into()), now);
    assert_eq!(grant, Ok(Grant::Server { panel: "main".into(), server: "uuid".into() }));
    assert!(embed::verify(token, "main", &Secret(key.into()), now + 300_000).is_err());
}
