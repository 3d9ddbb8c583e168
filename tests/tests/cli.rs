//! The command line: what an operator sees when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

use weir_tests::weir_binary;

fn weir(arguments: &[&str]) -> Output {
    Command::new(weir_binary()).args(arguments).output().unwrap()
}

fn check(text: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    std::fs::write(&path, text).unwrap();
    let mut all = vec!["check", "--config", path.to_str().unwrap()];
    all.extend(arguments);
    let out = weir(&all);
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_code_2() {
    let (code, text) = check("[protect]\nprefixes = [\"203.0.113.0/24\"]\nprefxies = []\n", &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("prefxies") && text.contains("line 3"), "{text}");
}

#[test]
fn a_peer_without_prefixes_is_an_error() {
    let (code, text) = check(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"a\"\n\
         address = \"192.0.2.1\"\nremote_as = 65010\n",
        &[],
    );
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("protect.prefixes is empty"), "{text}");
}

#[test]
fn the_dump_shows_defaults_and_is_a_configuration_itself() {
    let (code, text) = check("[protect]\nprefixes = [\"203.0.113.0/24\"]\n", &["--dump"]);
    assert_eq!(code, Some(0), "{text}");
    let toml = &text[..text.find("weir: warning").unwrap_or(text.len())];
    assert!(toml.contains("mode = \"observe\""), "{toml}");
    let (code, text) = check(toml, &[]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn the_shipped_file_is_good() {
    let shipped = include_str!("../../docs/weir.toml");
    let (code, text) = check(shipped, &[]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_missing_file_is_named() {
    let out = weir(&["run", "--config", "/nonexistent/weir.toml"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nonexistent/weir.toml"));
}

#[test]
fn a_file_that_is_no_capture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pcap");
    std::fs::write(&path, b"hello, this is no capture at all").unwrap();
    let out = weir(&["replay", path.to_str().unwrap(), "--protect", "203.0.113.0/24"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("x.pcap"));
}
