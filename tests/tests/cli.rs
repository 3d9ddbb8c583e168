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
    assert!(text.contains("/weir.toml:3:1: unknown field `prefxies`"), "{text}");
    assert_eq!(text.matches("prefxies").count(), 1, "said once: {text}");
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
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(": warning: ")).collect();
    let toml = lines.join("\n");
    assert!(toml.contains("mode = \"observe\""), "{toml}");
    let (code, text) = check(&toml, &[]);
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

#[test]
fn every_command_says_what_it_does_itself() {
    let help = weir(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(!help.contains("Options of every command"), "{help}");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines: Vec<&str> = commands.take_while(|line| !line.is_empty()).collect();
    let names: Vec<&str> = lines
        .iter()
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let mut sentences = std::collections::BTreeSet::new();
    for name in names {
        let own = weir(&[name, "--help"]);
        let first = String::from_utf8(own.stdout).unwrap();
        let first = first.lines().next().unwrap_or_default().to_owned();
        assert!(!first.is_empty() && sentences.insert(first.clone()), "{name}: {first:?}");
    }
}

#[test]
fn a_mode_that_does_not_exist_is_refused_with_those_that_do() {
    let out = weir(&["mode", "bogus"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("bogus") && said.contains("observe, approve, auto, file"), "{said}");
}

#[test]
fn init_writes_what_check_accepts_and_never_over_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("etc/weir.toml");
    let file = path.to_str().unwrap();
    let init = |more: &[&str]| {
        let all = ["init", "--config", file, "--prefixes", "203.0.113.0/24,2001:db8::/48"];
        weir(&[&all, more].concat())
    };
    let flags = ["--exporters", "edge1=203.0.113.1", "--peer", "203.0.113.1,65020,65010"];
    let flags = [&flags[..], &["--router-id", "203.0.113.9", "--mode", "approve"]].concat();
    let out = init(&flags);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && said.contains("systemctl enable --now weir"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let checked = weir(&["check", "--config", file]);
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(String::from_utf8(checked.stderr).unwrap(), "", "not even a warning");
    let written = std::fs::read_to_string(&path).unwrap();
    for part in
        ["remote_as = 65020", "local_as = 65010", "\"203.0.113.9/32\"", "mode = \"approve\""]
    {
        assert!(written.contains(part), "{part}: {written}");
    }

    let again = init(&[]);
    assert!(!again.status.success(), "{again:?}");
    assert!(String::from_utf8(again.stderr).unwrap().contains("--force"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
    assert!(init(&["--force"]).status.success());
    assert_eq!(std::fs::read_to_string(folder.path().join("etc/weir.toml.bak")).unwrap(), written);

    // What the package put there is nobody's yet.
    std::fs::write(&path, include_str!("../../packaging/weir.toml")).unwrap();
    assert!(init(&[]).status.success());
    let nobody = weir(&["init", "--config", "/nonexistent/weir.toml"]);
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("--prefixes"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    std::fs::write(&path, "[protect]\nprefixes = [\"203.0.113.0/24\"]\n").unwrap();
    let mut child = Command::new(weir_binary())
        .args(["check", "--dump", "--config", path.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !said.contains("panicked"), "{out:?}");
}
