//! A running weir beside a panel: read, steered and shared from the command line, in little memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../panel/tests/stub/mod.rs"]
mod stub;

use std::process::Command;

use serde_json::Value;
use stub::{KEY, Stub, StubServer};
use weir_tests::process::{Weir, text};

/// Memory that 5,000 servers may take.
const PANEL_KIB_MAX: u64 = 30 * 1024;

fn config(stub: &Stub) -> String {
    format!(
        "[[panel]]\nname = \"main\"\nurl = {:?}\nkey = {KEY:?}\ninterval = \"10s\"\n\
         hook_token = \"a-token-of-the-hook-long-enough\"\n\
         [owners]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://shield.example\"\n",
        stub.url()
    )
}

fn status(weir: &Weir) -> Option<Value> {
    let out = weir.with_config(&["panel", "status", "--json"]);
    serde_json::from_slice(&out.stdout).ok()
}

/// How many servers the state of the synchronisation names.
fn services(weir: &Weir, wanted: u64) -> Option<()> {
    (status(weir)?["services"].as_u64()? == wanted).then_some(())
}

#[test]
fn an_operator_accepts_what_vanished_and_shares_a_server() {
    let stub = Stub::start(true);
    let server = |n: u16| StubServer::new(u64::from(n), "s", 21, "203.0.113.10", 20_000 + n);
    stub.world().servers = (1..=8).map(server).collect();
    let config = config(&stub);
    let weir = Weir::start(&config);
    // One server is one UDP port; two nodes have two ports each.
    weir.wait_for("first listing", |weir| services(weir, 12));

    let uuid = stub.world().servers[0].uuid();
    let shared = weir.with_config(&["panel", "share", "main", &uuid]);
    let url = text(&shared);
    assert!(url.starts_with("https://shield.example/share/"), "{shared:?}");
    let none = weir.with_config(&["panel", "share", "main", "00000000-dead"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");

    stub.world().servers.truncate(2);
    let synced = weir.with_config(&["panel", "sync", "main"]);
    assert!(synced.status.success(), "{synced:?}");
    weir.wait_for("held ports", |weir| (status(weir)?["status"]["held"] == 6).then_some(()));
    assert!(services(&weir, 12).is_some(), "what is held is protected");
    let accepted = weir.with_config(&["panel", "accept", "main"]);
    assert!(accepted.status.success(), "{accepted:?}");
    weir.wait_for("the ports to go", |weir| services(weir, 6));
    let audit = text(&weir.ask(&["audit"]));
    for action in ["panel.share", "panel.sync", "panel.accept"] {
        assert!(audit.contains(action), "{audit}");
    }

    // A shared link outlives a crash, and can be taken back.
    let path = url.trim().trim_start_matches("https://shield.example").to_owned();
    let weir = Weir::start_in(weir.kill(), &config);
    weir.wait_for("the panel", |weir| services(weir, 6));
    weir.wait_for("the shared page", |weir| (page(weir, &path) == "200").then_some(()));
    let revoked = weir.with_config(&["panel", "share", "main", &uuid, "--revoke"]);
    assert_eq!(text(&revoked).trim(), "1 links revoked", "{revoked:?}");
    assert_eq!(page(&weir, &path), "404");
}

/// The status with which the owners' listener answers.
fn page(weir: &Weir, path: &str) -> String {
    let log = weir.log();
    let rest = log.split("\"owners\":\"Some(").nth(1).unwrap_or_else(|| panic!("{log}"));
    let url = format!("http://{}{path}", rest.split(')').next().unwrap());
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    text(&curl.output().unwrap())
}

#[test]
fn five_thousand_servers_take_little_memory() {
    let peak = |servers: u64| {
        let stub = Stub::start(false);
        let server = |i: u64| {
            let address = format!("203.0.113.{}", i % 250);
            StubServer::new(i, "server", 21, &address, 10_000 + u16::try_from(i / 250).unwrap())
        };
        stub.world().servers = (1..=servers).map(server).collect();
        let weir = Weir::start(&config(&stub));
        weir.wait_for("listing", |weir| services(weir, servers + 4));
        weir.peak_kib()
    };
    let (few, many) = (peak(1), peak(5_000));
    let panel = many.saturating_sub(few);
    println!("5,000 servers: {panel} KiB more than one ({many} and {few})");
    assert!(panel < PANEL_KIB_MAX, "{panel} KiB");
}
