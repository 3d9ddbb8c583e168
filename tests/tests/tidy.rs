//! Properties of the code base itself.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which workspace crates each crate may name: the arrows of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("weir-model", &[]),
    ("weir-collector", &["weir-model"]),
    ("weir-detector", &["weir-model"]),
    ("weir-bgp", &["weir-model"]),
    ("weir-store", &["weir-model"]),
    ("weir-api", &["weir-model", "weir-store"]),
    ("weir-traffic", &["weir-model"]),
    ("weir-panel", &["weir-model"]),
    ("weir-agent", &["weir-model"]),
    ("weir-flows", &["weir-model"]),
    ("weir-mitigator", &["weir-model", "weir-bgp"]),
    ("weir-notify", &["weir-model"]),
    (
        "weir-config",
        &[
            "weir-model",
            "weir-agent",
            "weir-collector",
            "weir-detector",
            "weir-mitigator",
            "weir-notify",
            "weir-bgp",
            "weir-api",
            "weir-store",
            "weir-panel",
        ],
    ),
];

/// The stages of the detector, from the first to the last: none names a later one.
const DETECTOR_STAGES: &[&str] = &["watch", "evidence", "verdict"];

/// Crates in which nothing asks the time, waits, or starts a thread.
const PURE: &[&str] = &["model", "detector", "mitigator", "traffic"];

/// The same for parts of crates that have sockets elsewhere.
const PURE_PARTS: &[&str] = &[
    "bgp/src/flowspec",
    "bgp/src/wire",
    "bgp/src/fsm",
    "bgp/src/guard.rs",
    "bgp/src/rib.rs",
    "collector/src/decode",
    "collector/src/shard.rs",
    "notify/src/brief.rs",
    "notify/src/desk.rs",
    "notify/src/message.rs",
    "notify/src/outbox.rs",
    "notify/src/service.rs",
    "notify/src/talk.rs",
    "notify/src/template.rs",
    "panel/src/games.rs",
    "panel/src/mapping.rs",
    "panel/src/parse",
    "panel/src/parse.rs",
    "panel/src/role.rs",
    "panel/src/snapshot.rs",
    "panel/src/sync",
    "panel/src/sync.rs",
    "weir/src/core.rs",
];

/// What an impure line looks like.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "thread::spawn",
    "thread::sleep",
    "tokio::",
    "std::net::UdpSocket",
    "std::net::Tcp",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    for (name, allowed) in ARROWS {
        let package = packages.iter().find(|p| p["name"] == *name).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            let normal = dependency["kind"].is_null();
            assert!(
                !normal || !target.starts_with("weir") || allowed.contains(&target),
                "{name} may not use {target}"
            );
        }
    }
    let known: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(
            known.contains(&name) || ["weir", "weir-tests"].contains(&name),
            "{name} has no arrows: add it to ARROWS and to ARCHITECTURE.md"
        );
    }
}

#[test]
fn the_detector_s_stages_name_no_later_one() {
    let mut looked_at = 0;
    for (at, stage) in DETECTOR_STAGES.iter().enumerate() {
        for path in rust_files(&root().join("detector/src").join(stage)) {
            looked_at += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for later in &DETECTOR_STAGES[at + 1..] {
                assert!(
                    !text.contains(&format!("crate::{later}")),
                    "{} names {later}",
                    path.display()
                );
            }
        }
    }
    assert!(looked_at > 40, "only {looked_at} files");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package["name"]);
    }
}

#[test]
fn pure_crates_ban_clocks_and_threads() {
    for name in PURE {
        let text = std::fs::read_to_string(root().join(name).join("clippy.toml")).unwrap();
        for banned in ["Instant::now", "SystemTime::now", "thread::sleep", "thread::spawn"] {
            assert!(text.contains(banned), "{name}/clippy.toml does not ban {banned}");
        }
    }
}

#[test]
fn pure_parts_have_no_clock_socket_or_thread() {
    let mut looked_at = 0;
    for part in PURE_PARTS {
        for file in rust_files(&root().join(part)) {
            looked_at += 1;
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.trim_start();
                if code.starts_with("//") {
                    continue;
                }
                for word in IMPURE {
                    assert!(!code.contains(word), "{}:{}: {word}", file.display(), number + 1);
                }
            }
        }
    }
    assert!(looked_at > 10, "the list of pure parts is out of date");
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_undone() {
    for file in rust_files(&root()) {
        if file.ends_with("tidy.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["#[ignore", "todo!(", "unimplemented!(", "dbg!("] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn only_the_store_names_the_database() {
    for file in rust_files(&root()) {
        if file.starts_with(root().join("store")) || file.ends_with("tidy.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("rusqlite"), "{}", file.display());
    }
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}
