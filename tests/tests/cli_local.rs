//! The commands that ask a running weir, over its local socket, as root or as the user it runs as.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use weir_tests::weir_binary;

struct Weir {
    child: Child,
    folder: tempfile::TempDir,
}

impl Weir {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let child = Command::new(weir_binary())
            .args(["run", "--config", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let weir = Self { child, folder };
        let (_keep, pause) = std::sync::mpsc::channel::<()>();
        for _ in 0..300 {
            if weir.socket().exists() && weir.ask(&["mode"]).status.success() {
                return weir;
            }
            let _ = pause.recv_timeout(std::time::Duration::from_millis(100));
        }
        panic!("{}", std::fs::read_to_string(weir.folder.path().join("log")).unwrap());
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.tell(arguments, "")
    }

    fn tell(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(weir_binary())
            .args(arguments)
            .args(["--socket", self.socket().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let out = self.ask(&all);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {out:?}"))
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &Path) -> PathBuf {
    let path = folder.join("weir.toml");
    let text = format!(
        "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[collector]\nlisten = [\"127.0.0.1:0\"]\n\
         [api]\nlisten = \"127.0.0.1:0\"\nsocket = {:?}\n[store]\npath = {:?}\n",
        folder.join("api.sock"),
        folder.join("state.db")
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn an_operator_on_the_machine_needs_no_password() {
    let weir = Weir::start();
    let status = weir.json(&["status"]);
    assert_eq!(status["mode"], "observe");
    assert!(text(&weir.ask(&["status"])).contains("incidents   0 open"));
    assert_eq!(text(&weir.ask(&["mode", "approve"])).trim(), "approve");
    assert!(text(&weir.ask(&["incidents"])).starts_with("ID"));
    assert!(text(&weir.ask(&["incidents", "list", "--csv"])).starts_with("id,state,target"));

    let made = weir.tell(&["user", "add", "eve", "--role", "analyst"], "a long enough password\n");
    assert!(made.status.success(), "{made:?}");
    let short = weir.tell(&["user", "add", "bob", "--role", "analyst"], "short\n");
    assert_eq!(short.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&short.stderr).contains("12 characters"));
    assert_eq!(weir.json(&["user"])[0]["name"], "eve");

    let secret = text(&weir.ask(&["token", "create", "--name", "ci", "--role", "readonly"]));
    assert!(secret.starts_with("weir_") && secret.trim().len() == 69, "{secret}");
    assert_eq!(weir.json(&["token", "list"])[0]["name"], "ci");

    let added =
        weir.ask(&["mitigate", "add", "203.0.113.7/32", "--protocol", "17", "--sport", "53"]);
    assert!(added.status.success(), "{added:?}");
    let list = text(&weir.ask(&["mitigate"]));
    assert!(list.contains("203.0.113.7/32") && list.contains("sport 53"), "{list}");
    let outside = weir.ask(&["mitigate", "add", "198.51.100.1/32", "--blackhole"]);
    assert_eq!(outside.status.code(), Some(1), "{outside:?}");

    let verdict = weir.ask(&["audit", "verify"]);
    assert!(text(&verdict).starts_with("whole: "), "{verdict:?}");
    let audit = text(&weir.ask(&["audit"]));
    for action in ["user.create", "token.create", "mitigation.add", "mode.set"] {
        assert!(audit.contains(action), "{audit}");
    }
}

#[test]
fn a_backup_of_a_running_weir_comes_back_once_it_is_stopped() {
    let weir = Weir::start();
    weir.tell(&["user", "add", "eve", "--role", "owner"], "a long enough password\n");
    let file = weir.folder.path().join("weir.tar");
    let backup = weir.ask(&["backup", file.to_str().unwrap()]);
    assert!(backup.status.success(), "{backup:?}");
    let again = weir.ask(&["backup", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "a file that is there is not overwritten");
    weir.ask(&["user", "add", "late", "--role", "readonly"]);

    let other = tempfile::tempdir().unwrap();
    let there = config(other.path());
    let restore = |config: &Path| {
        Command::new(weir_binary())
            .args(["restore", file.to_str().unwrap(), "--config", config.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let running = restore(&weir.folder.path().join("weir.toml"));
    assert_eq!(running.status.code(), Some(1), "{running:?}");
    assert!(String::from_utf8_lossy(&running.stderr).contains("running"), "{running:?}");
    let elsewhere = restore(&there);
    assert!(elsewhere.status.success(), "{elsewhere:?}");
    let store = weir_store::Store::open(&other.path().join("state.db")).unwrap();
    let names: Vec<String> = store.users().unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["eve"]);
}

#[test]
fn a_weir_that_does_not_run_is_named() {
    let out = Command::new(weir_binary())
        .args(["status", "--socket", "/nonexistent/api.sock"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nonexistent/api.sock"));
}
