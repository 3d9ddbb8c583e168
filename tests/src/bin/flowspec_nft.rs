//! The forwarding plane of the laboratory's router: `flowspec_nft BIRD_CONTROL_SOCKET`.
//!
//! Looks at BIRD's tables ten times a second and makes nftables do what they say. One line a change.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use weir_tests::nft::ruleset;

fn main() {
    let socket = std::env::args().nth(1).expect("BIRD's control socket");
    let show = |table: &str| {
        let out = Command::new("birdc")
            .args(["-s", &socket, "show", "route", "all", "table", table])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let mut present = String::new();
    let (_keep, never) = mpsc::channel::<()>();
    loop {
        let (text, unknown) = ruleset(&(show("flowtab4") + &show("master4")));
        if text != present {
            let mut nft =
                Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let taken = nft.wait().unwrap().success();
            let rules = text.lines().filter(|line| line.contains("drop")).count();
            println!("rules {rules} taken {taken}\n{text}{}", unknown.join("\n"));
            present = text;
        }
        let _ = never.recv_timeout(Duration::from_millis(100));
    }
}
