//! The panels' extensions, where PHP is installed: their own checks, and a signature of theirs judged by weir.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_model::Millis;
use weir_model::Secret;
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
    let grant = embed::verify(token, "main", &Secret::new(key), now);
    assert_eq!(grant, Ok(Grant::Server { panel: "main".into(), server: "uuid".into() }));
    assert!(embed::verify(token, "main", &Secret::new(key), now + 300_000).is_err());
}

#[test]
fn a_method_that_a_panel_adds_to_an_interface_is_found() {
    if !has_php("a_method_that_a_panel_adds_to_an_interface_is_found") {
        return;
    }
    let panel = tempfile::tempdir().unwrap();
    let folder = panel.path().join("app/Contracts/Plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let compare = |methods: &[&str]| {
        let methods: Vec<String> =
            methods.iter().map(|m| format!("public function {m}(array $data = []);")).collect();
        let text = format!("<?php interface HasPluginSettings {{ {} }}", methods.join("\n"));
        std::fs::write(folder.join("HasPluginSettings.php"), text).unwrap();
        let program = integrations().join("tests/compare");
        let out = Command::new("php").arg(program).arg(panel.path()).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let known = ["getSettingsFormData", "getSettingsForm", "saveSettings"];
    let (good, text) = compare(&known);
    assert!(good, "{text}");
    let (good, text) = compare(&[&known[..], &["getSettingsTabs"]].concat());
    assert!(!good && text.contains("getSettingsTabs(): missing in contracts.php"), "{text}");
    let (good, text) = compare(&known[1..]);
    assert!(!good && text.contains("getSettingsFormData(): no longer in the panel"), "{text}");
}
