//! No credential leaves weir again: a mark stands in each setting that may hold one, and nothing that weir says
//! contains it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_tests::process::{Weir, text, write_config};
use weir_tests::weir_binary;

/// What every mark contains; what follows tells which it is.
const MARK: &str = "mArK3d";

/// Where nothing answers.
const NOWHERE: &str = "127.0.0.1:9";

fn mark(of: &str) -> String {
    format!("{MARK}-{of}-0123456789abcdef0123456789abcdef")
}

/// Every setting of the file that may hold a credential, and files that hold one.
fn settings(folder: &Path) -> String {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::write(&path, mark(name)).unwrap();
        path
    };
    let m = mark;
    format!(
        r#"
[log]
level = "debug"
[mitigator]
mode = "auto"
[[mitigator.webhook]]
name = "ops"
url = "http://me:{}@{NOWHERE}/{}?key={}#{}"
secret = "{}"
headers = {{ Authorization = "Bearer {}" }}
[[mitigator.webhook]]
name = "filed"
url = "http://{NOWHERE}"
secret_file = {:?}
[[mitigator.scrubber]]
name = "wash"
url = "http://{NOWHERE}/{}"
values = {{ account = "{}" }}
headers = {{ Authorization = "Bearer {}" }}
secret = "{}"
start = {{ method = "POST", path = "/{}", body = '{{"key":"{}"}}' }}
stop = {{ method = "POST", path = "/{}", body = '{{"key":"{}"}}' }}
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "edge"
address = "127.0.0.1"
port = 9
remote_as = 65010
password = "{}"
[[bgp.peer]]
name = "filed"
address = "127.0.0.2"
port = 9
remote_as = 65010
password_file = {:?}
[[panel]]
name = "main"
url = "http://{NOWHERE}"
key = "{}"
hook_token = "{}"
embed_key = "{}"
[[panel]]
name = "filed"
url = "http://{NOWHERE}/other"
key_file = {:?}
"#,
        m("hook-user"),
        m("hook-path"),
        m("hook-query"),
        m("hook-fragment"),
        m("hook-secret"),
        m("hook-header"),
        file("hook-file"),
        m("wash-path"),
        m("wash-value"),
        m("wash-header"),
        m("wash-secret"),
        m("start-path"),
        m("start-body"),
        m("stop-path"),
        m("stop-body"),
        &m("peer")[..40],
        file("peer-file"),
        m("panel-key"),
        m("panel-hook"),
        m("panel-embed"),
        file("panel-file"),
    )
}

/// Which marks are in it.
fn marks(said: &str) -> BTreeSet<String> {
    said.match_indices(MARK).map(|(at, _)| said[at..].chars().take(24).collect()).collect()
}

/// What the local socket answers, whatever it is.
fn get(weir: &Weir, path: &str) -> String {
    let socket = weir.folder().join("api.sock");
    let asked = ["-s", "--max-time", "10", &format!("http://localhost{path}"), "--unix-socket"];
    text(&Command::new("curl").args(asked).arg(socket).output().unwrap())
}

fn assert_silent(what: &str, said: &str) {
    assert!(!said.is_empty(), "{what} says nothing at all");
    assert_eq!(marks(said), BTreeSet::new(), "{what}: {said}");
}

fn both(output: &std::process::Output) -> String {
    text(output) + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn no_setting_that_is_a_credential_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &settings(folder.path()));
    let given = std::fs::read_to_string(&config).unwrap();
    assert_eq!(marks(&given).len(), 18, "{:?}", marks(&given));
    for more in [&[][..], &["--dump"]] {
        let checked = Command::new(weir_binary())
            .args(["check", "--config"])
            .arg(&config)
            .args(more)
            .output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert_silent("check", &both(&checked));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let recording = elsewhere.path().join("recording.jsonl");
    let weir = Weir::start_with(folder, &["--record", recording.to_str().unwrap()]);

    let channel = format!(
        r#"[{{"name":"chat","url":"http://me:{0}@{NOWHERE}/{0}","secret":"{0}","headers":{{"X-Key":"{0}"}}}}]"#,
        mark("channel")
    );
    weir.api("PUT", "settings/channels", 0, &channel);
    let made =
        weir.tell(&["user", "add", "eve", "--role", "owner"], &format!("{}\n", mark("password")));
    assert!(made.status.success(), "{made:?}");
    let token = text(&weir.ask(&["token", "create", "--name", "ci", "--role", "admin"]));
    // Something happens that webhooks, scrubber and peers are told of.
    for measure in [&["203.0.113.7/32", "--protocol", "17"][..], &["203.0.113.0/24", "--scrub"]] {
        let added = weir.ask(&[&["mitigate", "add"], measure].concat());
        assert_silent("mitigate add", &both(&added));
    }
    for name in ["ops", "chat"] {
        assert_silent("webhooks test", &both(&weir.ask(&["webhooks", "test", name])));
    }
    weir.wait_for("a delivery that waits", |weir| {
        let told: Value = weir.api("GET", "deliveries", 0, "");
        told["waiting"].as_u64().filter(|waiting| *waiting > 0)
    });
    weir.signal("HUP");
    weir.wait_for("a reload", |weir| weir.log().contains("was read again").then_some(()));

    let described = weir.api("GET", "openapi.json", 0, "");
    let mut asked = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        let stream = path.ends_with("/live") || path.ends_with("/backup");
        if methods.get("get").is_none() || path.contains('{') || stream {
            continue;
        }
        let said = get(&weir, path);
        assert_eq!(marks(&said), BTreeSet::new(), "{path}: {said}");
        assert!(!said.contains(token.trim()), "{path}: {said}");
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
    assert_silent("/metrics", &get(&weir, "/metrics"));
    for command in [
        &["status"][..],
        &["settings"],
        &["settings", "show", "channels"],
        &["settings", "diff"],
        &["settings", "adopt"],
        &["webhooks"],
        &["bgp"],
        &["audit"],
        &["user"],
        &["token", "list"],
    ] {
        let said = both(&weir.ask(command));
        assert_eq!(marks(&said), BTreeSet::new(), "{command:?}: {said}");
    }
    let backup = weir.folder().join("weir.tar");
    assert_silent("backup", &both(&weir.ask(&["backup", backup.to_str().unwrap()])));
    assert_silent("the log", &weir.log());
    assert!(!weir.log().contains(token.trim()), "{}", weir.log());
    // What it has recorded is all there once it has stopped.
    weir.stop();
    assert_silent("the recording", &std::fs::read_to_string(recording).unwrap());
}
