//! The brake on a disk that takes nothing, over `kill -9` and a restart; and starts from whatever the last
//! weir left behind.
//!
//! The full disk is a limit on the size of files, set while weir runs: it needs no privilege, and what is
//! written in place still fits.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir::demo::{ROUTER_ASN, Router};
use weir_bgp::receiver::Event;
use weir_bgp::wire::Family;
use weir_tests::{skip, weir_binary};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(40);

/// One page: what is written in place fits, what a log of the database would add does not.
const FULL: &str = "4096";

const RULE: &str = "203.0.113.9/32";

fn configuration(folder: &Path, port: u16, mode: &str) -> String {
    format!(
        r#"
[log]
format = "json"
[protect]
prefixes = ["203.0.113.0/24"]
[collector]
listen = ["127.0.0.1:0"]
[mitigator]
mode = "{mode}"
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "border"
address = "127.0.0.1"
port = {port}
remote_as = {ROUTER_ASN}
[api]
listen = "127.0.0.1:0"
socket = {:?}
[store]
path = {:?}
"#,
        folder.join("api.sock"),
        folder.join("state/state.db")
    )
}

/// A `weir run` whose log goes to a pipe: a full disk does not silence it.
struct Weir<'a> {
    child: Child,
    folder: &'a Path,
    log: Arc<Mutex<Vec<Value>>>,
}

impl<'a> Weir<'a> {
    /// With `full`, no file may grow from the first instruction on.
    fn start(folder: &'a Path, full: bool) -> Self {
        let limit =
            if full { format!("prlimit --pid $$ --fsize={FULL}: && ") } else { String::new() };
        // What would end a process that writes too much is an error to it instead, as a full disk is.
        Self::start_after(folder, Command::new("sh"), &format!("trap '' XFSZ; {limit}"))
    }

    /// Starts it in a shell, after some commands.
    fn start_after(folder: &'a Path, mut shell: Command, first: &str) -> Self {
        let mut child = shell
            .arg("-c")
            .arg(format!("{first}exec \"$0\" run --config \"$1\""))
            .arg(weir_binary())
            .arg(folder.join("weir.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap().push(line);
            }
        });
        let weir = Self { child, folder, log };
        weir.wait("ready", || weir.said("ready").is_some());
        weir
    }

    fn full(&self, full: bool) {
        let limit = if full { format!("--fsize={FULL}:") } else { "--fsize=unlimited:".to_owned() };
        let pid = self.child.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
        assert!(set.success());
    }

    /// The first line of the log that contains this.
    fn said(&self, what: &str) -> Option<String> {
        let log = self.log.lock().unwrap();
        log.iter().map(Value::to_string).find(|line| line.contains(what))
    }

    fn wait(&self, what: &str, mut there: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let (_keep, pause) = std::sync::mpsc::channel::<()>();
        while !there() {
            assert!(Instant::now() < deadline, "no {what}: {:#?}", self.log.lock().unwrap());
            let _ = pause.recv_timeout(Duration::from_millis(50));
        }
    }

    fn ask(&self, words: &[&str]) -> Output {
        let socket = self.folder.join("api.sock");
        Command::new(weir_binary()).args(words).arg("--socket").arg(socket).output().unwrap()
    }

    fn told(&self, words: &[&str]) -> String {
        let out = self.ask(words);
        assert!(out.status.success(), "{words:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn status(&self) -> (Option<i32>, String) {
        let out = self.ask(&["status"]);
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Weir<'_> {
    fn drop(&mut self) {
        // SIGKILL, also when the test fails: nothing outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(router: &Router, what: &str, mut is_it: impl FnMut(&Event) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = router.next(left.max(Duration::from_millis(1)));
        let event = event.unwrap_or_else(|| panic!("{what} did not come"));
        if is_it(&event) {
            return;
        }
    }
}

fn is_rule(event: &Event) -> bool {
    matches!(event, Event::Announced(route) if route.text.contains(RULE))
}

/// The table ends without the rule.
fn nothing_comes_back(router: &Router) {
    wait_for(router, "the end of the table", |event| {
        assert!(!is_rule(event), "the brake let it through: {event:?}");
        matches!(event, Event::EndOfRib(Family::Ipv4FlowSpec))
    });
}

#[test]
fn the_brake_works_on_a_full_disk_and_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let router = Router::start().unwrap();
    std::fs::write(folder.join("weir.toml"), configuration(folder, router.port, "auto")).unwrap();
    let weir = Weir::start(folder, false);
    wait_for(&router, "the session", |event| matches!(event, Event::Up { .. }));
    weir.told(&["mitigate", "add", RULE, "--protocol", "17", "--sport", "19", "--ttl", "3600"]);
    wait_for(&router, "the rule", is_rule);

    weir.full(true);
    let done = weir.told(&["mitigate", "withdraw-all"]);
    assert!(done.contains("not saved yet"), "{done}");
    wait_for(&router, "the withdrawal", |event| matches!(event, Event::Withdrawn(_)));
    let add = weir.ask(&["mitigate", "add", RULE, "--protocol", "17", "--sport", "53"]);
    assert!(!add.status.success(), "what adds something is not done unrecorded: {add:?}");
    let (code, status) = weir.status();
    assert_eq!(code, Some(3), "{status}");
    assert!(status.contains("audit log cannot be written"), "{status}");
    assert!(status.contains("mode observe, brake set by local:"), "{status}");
    drop(weir);
    wait_for(&router, "the end of the session", |event| matches!(event, Event::Down(_)));

    // The state file never heard of it: it still has the rule, and the configuration says auto.
    let weir = Weir::start(folder, true);
    nothing_comes_back(&router);
    assert!(weir.said("observe since the brake was set by local:").is_some(), "{:?}", weir.log);
    assert!(weir.told(&["mode"]).starts_with("observe, brake set by local:"));
    assert_eq!(weir.status().0, Some(3));

    // Room again: what waited is written, and one command lifts the brake.
    weir.full(false);
    weir.wait("state file that takes something", || !weir.status().1.contains("does not take"));
    assert_eq!(weir.told(&["mode", "auto"]).trim(), "auto");
    weir.wait("peace", || weir.status().0 == Some(0));
    weir.told(&["audit", "verify"]);
    drop(weir);
    let weir = Weir::start(folder, false);
    assert_eq!(weir.told(&["mode"]).trim(), "auto", "what was lifted stays lifted");
}

#[test]
fn what_waited_is_written_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let router = Router::start().unwrap();
    std::fs::write(folder.join("weir.toml"), configuration(folder, router.port, "auto")).unwrap();
    let weir = Weir::start(folder, false);
    wait_for(&router, "the session", |event| matches!(event, Event::Up { .. }));
    weir.told(&["mitigate", "add", RULE, "--protocol", "17", "--sport", "19", "--ttl", "3600"]);
    wait_for(&router, "the rule", is_rule);
    weir.full(true);
    weir.told(&["mode", "observe"]);
    weir.told(&["mitigate", "withdraw-all"]);
    weir.full(false);
    weir.wait("audit log", || {
        let log = weir.told(&["audit", "--json"]);
        log.contains("mitigation.withdraw-all") && log.contains("written_late_at")
    });
    weir.wait("word in the state file", || {
        let store = weir_store::Store::open(&folder.join("state/state.db")).unwrap();
        let kept = store.blob("mitigator-1").unwrap();
        kept.is_some_and(|(_, body)| String::from_utf8_lossy(&body).contains("\"brake\":true"))
    });
}

#[test]
fn weir_starts_from_whatever_the_last_one_left() {
    type Damage = fn(&Path);
    let cases: &[(&str, Damage, bool, &str)] = &[
        ("no side file can be made", |_| {}, true, "the state file cannot be opened"),
        (
            "a memory that cannot be read",
            |state| {
                let mut store = weir_store::Store::open(state).unwrap();
                store.put_blob("mitigator-1", weir_model::Millis(1), b"{{{").unwrap();
            },
            false,
            "set aside in the table set_aside",
        ),
        (
            "a history that is no database",
            |state| std::fs::write(state.with_file_name("history.db"), [7; 50_000]).unwrap(),
            false,
            "the history file is damaged",
        ),
        (
            "a state file that is no database",
            |state| std::fs::write(state, [7; 50_000]).unwrap(),
            false,
            "was set aside as",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let state = folder.join("state/state.db");
    let router = Router::start().unwrap();
    std::fs::write(folder.join("weir.toml"), configuration(folder, router.port, "auto")).unwrap();
    let weir = Weir::start(folder, false);
    wait_for(&router, "the session", |event| matches!(event, Event::Up { .. }));
    weir.told(&["mitigate", "add", RULE, "--protocol", "17", "--sport", "19", "--ttl", "3600"]);
    wait_for(&router, "the rule", is_rule);
    weir.stop();
    let kept = std::fs::read(&state).unwrap();
    for (name, damage, full, said) in cases {
        std::fs::write(&state, &kept).unwrap();
        damage(&state);
        while router.next(Duration::from_millis(1)).is_some() {}
        let weir = Weir::start(folder, *full);
        assert!(weir.said(said).is_some(), "{name}: {:#?}", weir.log.lock().unwrap());
        wait_for(&router, name, |event| {
            is_rule(event) || matches!(event, Event::EndOfRib(Family::Ipv4FlowSpec))
        });
        // It can be told what to do.
        let add = ["mitigate", "withdraw-all"];
        weir.told(&add);
        weir.full(false);
        weir.told(&["mode", "auto"]);
        weir.stop();
    }
    let left: Vec<String> = std::fs::read_dir(state.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".damaged-"))
        .collect();
    assert!(left.iter().any(|name| name.starts_with("history.db.damaged-")), "{left:?}");
    assert!(left.iter().any(|name| name.starts_with("state.db.damaged-")), "{left:?}");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told_of_at_once() {
    let unshared = Command::new("unshare").args(["-m", "true"]).status();
    if !unshared.is_ok_and(|status| status.success()) {
        skip("a_disk_that_is_full_at_the_start_is_told_of_at_once", "a disk of its own needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let router = Router::start().unwrap();
    std::fs::write(folder.join("weir.toml"), configuration(folder, router.port, "auto")).unwrap();
    Weir::start(folder, false).stop();
    // A small disk with the same files, on which there is just room to open them.
    let (state, kept) = (folder.join("state"), folder.join("kept"));
    std::fs::rename(&state, &kept).unwrap();
    std::fs::create_dir(&state).unwrap();
    let fill = format!(
        "mount -t tmpfs -o size=4m none {0} && cp {1}/* {0}/ && {{ head -c 8M /dev/zero > {0}/fill; \
         truncate -s -40k {0}/fill; }} 2> {2} && ",
        state.display(),
        kept.display(),
        folder.join("filled").display(),
    );
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh"]);
    let weir = Weir::start_after(folder, shell, &fill);
    let (code, status) = weir.status();
    assert!(code == Some(3) && status.contains("disk is full"), "{code:?} {status}");
}
