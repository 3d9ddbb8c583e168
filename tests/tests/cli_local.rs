//! The commands that ask a running weir, over its local socket, as root or as the user it runs as.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weir_tests::process::{Weir, text, write_config};
use weir_tests::weir_binary;

#[test]
fn an_operator_on_the_machine_needs_no_password() {
    let weir = Weir::start("");
    let status = weir.json(&["status"]);
    assert_eq!(status["mode"], "observe");
    assert!(text(&weir.ask(&["status"])).contains("incidents   0 open"));
    let set = text(&weir.ask(&["mode", "approve"]));
    assert!(set.starts_with("approve, set by local:"), "{set}");
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
    assert!(text(&verdict).starts_with("intact: "), "{verdict:?}");
    let audit = text(&weir.ask(&["audit"]));
    for action in ["user.create", "token.create", "mitigation.add", "mode.set"] {
        assert!(audit.contains(action), "{audit}");
    }
}

#[test]
fn a_backup_of_a_running_weir_comes_back_once_it_is_stopped() {
    let weir = Weir::start("");
    weir.tell(&["user", "add", "eve", "--role", "owner"], "a long enough password\n");
    let file = weir.folder().join("weir.tar");
    let backup = weir.ask(&["backup", file.to_str().unwrap(), "--history"]);
    assert!(backup.status.success(), "{backup:?}");
    let again = weir.ask(&["backup", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "a file that is there is not overwritten");
    weir.ask(&["user", "add", "late", "--role", "readonly"]);

    let other = tempfile::tempdir().unwrap();
    let there = write_config(other.path(), "");
    let restore = |config: &Path| {
        Command::new(weir_binary())
            .args(["restore", file.to_str().unwrap(), "--config", config.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let running = restore(&weir.config());
    assert_eq!(running.status.code(), Some(1), "{running:?}");
    assert!(String::from_utf8_lossy(&running.stderr).contains("running"), "{running:?}");
    let elsewhere = restore(&there);
    assert!(elsewhere.status.success(), "{elsewhere:?}");
    assert!(other.path().join("history.db").is_file());
    let store = weir_store::Store::open(&other.path().join("state.db")).unwrap();
    let names: Vec<String> = store.users().unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["eve"]);
}

#[test]
fn a_threshold_set_by_hand_is_kept_and_given_back() {
    let weir = Weir::start("");
    let set = |weir: &Weir, value: &str| {
        weir.ask(&["baseline", "threshold", "203.0.113.7", "packets-per-sec", value])
    };
    let done = set(&weir, "77000");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(set(&weir, "0").status.code(), Some(2));
    let early = weir.ask(&["baseline", "freeze", "203.0.113.7"]);
    assert_eq!(early.status.code(), Some(1), "nothing is known yet: {early:?}");
    assert!(!weir.ask(&["baseline", "reset", "198.51.100.1"]).status.success());

    let weir = Weir::start_in(weir.kill(), "");
    let packets = |weir: &Weir| weir.json(&["baseline", "203.0.113.7"])[0].clone();
    let kept = packets(&weir);
    assert_eq!((&kept["source"], kept["threshold"].as_f64()), (&"operator".into(), Some(77_000.0)));
    assert!(set(&weir, "auto").status.success());
    assert_ne!(packets(&weir)["source"], "operator");
}

/// A thread that turns without work would take what the receivers need.
#[test]
fn an_idle_weir_hardly_turns() {
    let weir = Weir::start("");
    let begin = Instant::now();
    let before = weir.thread_times();
    let pause = Duration::from_millis(1500);
    weir.wait_for("pause", |_| (begin.elapsed() >= pause).then_some(()));
    for (name, taken) in weir.thread_times() {
        let taken = taken - before.get(&name).copied().unwrap_or_default().min(taken);
        assert!(taken < begin.elapsed() / 8, "{name} turned for {taken:?} while nothing came");
    }
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

#[test]
fn an_exclusion_holds_at_once_ends_by_itself_and_survives_a_restart() {
    let weir = Weir::start("");
    let add = |weir: &Weir| {
        weir.ask(&["mitigate", "add", "203.0.113.7/32", "--protocol", "17", "--sport", "53"])
    };
    let soon = weir::daemon::now() + 8000;
    let body = format!(
        r#"[{{"prefix": "203.0.113.7/32", "why": "its owner asked", "until": {}}}]"#,
        soon.0
    );
    let set = weir.api("PUT", "settings/exclusions", 0, &body);
    assert_eq!(set["version"], 1, "{set}");
    assert!(!add(&weir).status.success(), "an excluded host was mitigated");
    let wrong = weir.api("PUT", "settings/prefixes", 0, r#"["0.0.0.0/0"]"#);
    assert_eq!(wrong["status"], 422, "{wrong}");

    let weir = Weir::start_in(weir.kill(), "");
    assert!(!add(&weir).status.success(), "the exclusion was forgotten");
    weir.wait_for("the exclusion's end", |weir| add(weir).status.success().then_some(()));
    assert!(weir::daemon::now() >= soon, "it ended too early");
}

#[test]
fn groups_and_the_ladder_are_set_at_once_undone_and_kept() {
    let weir = Weir::start("");
    let set = |weir: &Weir, name: &str, value: &str| {
        weir.tell(&["settings", "set", name, "-"], &format!("{value}\n"))
    };
    let group = r#"[{"name": "acme", "prefixes": ["203.0.113.0/26"], "never": ["rtbh"]}]"#;
    let done = set(&weir, "groups", group);
    assert_eq!(text(&done).trim(), "groups: version 1", "{done:?}");
    let elsewhere = r#"[{"name": "acme", "prefixes": ["192.0.2.0/24"]}]"#;
    let warned = text(&set(&weir, "groups", elsewhere));
    assert!(
        warned.contains("warning: protect.group \"acme\": 192.0.2.0/24 lies in none"),
        "{warned}"
    );
    let wrong = set(&weir, "groups", r#"[{"name": "acme", "prefixes": []}]"#);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("it has no prefix"), "{wrong:?}");
    assert!(weir.ask(&["settings", "undo", "groups"]).status.success());
    let config = weir.api("GET", "config", 0, "")["text"].as_str().unwrap().to_owned();
    assert!(config.contains("203.0.113.0/26") && !config.contains("192.0.2.0/24"), "{config}");

    // The ladder of the core itself, a moment later.
    let ladder = |weir: &Weir| {
        let about = weir.api("GET", "about", 0, "");
        let steps = about["ladder"].as_array().unwrap().iter();
        steps.map(|step| step["rung"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let is = |weir: &Weir, wanted: &[&str]| {
        let what = format!("the ladder {wanted:?}");
        weir.wait_for(&what, |weir| (ladder(weir) == wanted).then_some(()));
    };
    let all = ["rate-limit", "drop", "rtbh", "scrub"];
    is(&weir, &all);
    let short = r#"[{"rung": "drop", "above_bits_per_sec": 5000000}]"#;
    assert!(set(&weir, "ladder", short).status.success());
    is(&weir, &["drop"]);
    let twice =
        r#"[{"rung": "drop", "above_bits_per_sec": 5}, {"rung": "drop", "above_bits_per_sec": 6}]"#;
    assert_eq!(set(&weir, "ladder", twice).status.code(), Some(1), "checked like the file");
    assert!(weir.ask(&["settings", "undo", "ladder"]).status.success());
    is(&weir, &all);
    assert!(weir.ask(&["settings", "undo", "ladder"]).status.success());
    is(&weir, &["drop"]);

    let weir = Weir::start_in(weir.kill(), "");
    is(&weir, &["drop"]);
    assert_eq!(weir.json(&["settings", "show", "groups"])["value"][0]["never"][0], "rtbh");
    assert!(weir.ask(&["settings", "clear", "ladder"]).status.success());
    is(&weir, &all);
    let audit = text(&weir.ask(&["audit"]));
    assert!(audit.contains("setting.undo") && audit.contains("setting.change"), "{audit}");
}

#[test]
fn a_peer_that_cannot_be_reached_is_explained() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let weir = Weir::start(&format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"edge\"\n\
         address = \"127.0.0.1\"\nport = {port}\nremote_as = 65020\n"
    ));
    let tested = weir.ask(&["bgp", "test", "edge"]);
    assert_eq!(tested.status.code(), Some(3), "{tested:?}");
    let said = text(&tested);
    assert!(said.contains("unreachable") && said.contains("refuses connections"), "{said}");
    assert_eq!(weir.ask(&["bgp", "test", "nobody"]).status.code(), Some(1));
}

#[test]
fn groups_are_added_changed_removed_and_what_counts_for_an_address_is_told() {
    let weir = Weir::start("");
    let set = |group: &str| weir.tell(&["group", "set", "-"], &format!("{group}\n"));
    let reseller = r#"{"name": "reseller", "prefixes": ["203.0.113.0/24"], "mode": "approve",
        "inbound": {"bits_per_sec": 5000000000}, "tags": {"queue": "noc"}}"#;
    assert_eq!(text(&set(reseller)).trim(), "groups: version 1");
    let both = r#"[{"name": "gentle", "never": ["rtbh"], "outbound": {"multiplier": 4}},
        {"name": "vpn", "prefixes": ["203.0.113.0/28"], "template": "gentle"}]"#;
    assert!(set(both).status.success());
    let wrong = set(r#"{"name": "vpn", "prefixes": ["203.0.113.0/28"], "template": "nobody"}"#);
    let why = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && why.contains("there is no such group"), "{why}");
    let told = |weir: &Weir| weir.json(&["policy", "203.0.113.7"]);
    let by = |view: &serde_json::Value, key: &str| {
        let all = view["values"].as_array().unwrap();
        let value = all.iter().find(|v| v["key"] == key).unwrap();
        format!("{} {}", value["value"], value["source"])
    };
    // The core takes groups a moment later.
    let view = weir.wait_for("the groups", |weir| {
        let view = told(weir);
        (view["groups"] == serde_json::json!(["vpn", "reseller"])).then_some(view)
    });
    assert_eq!(by(&view, "never"), r#"["rtbh"] "gentle""#);
    assert_eq!(by(&view, "inbound.bits_per_sec"), r#"5000000000.0 "reseller""#);
    assert_eq!(by(&view, "outbound.syns_per_sec"), r#"{"multiplier":4.0} "gentle""#);
    assert_eq!(by(&view, "inbound.syns_per_sec"), r#""auto" "everywhere""#);
    assert_eq!(by(&view, "tags.queue"), r#""noc" "reseller""#);
    let text_of = text(&weir.ask(&["policy", "203.0.113.7"]));
    assert!(text_of.contains("group  vpn < reseller"), "{text_of}");
    assert_eq!(weir.json(&["group"]).as_array().unwrap().len(), 3);
    assert_eq!(weir.ask(&["group", "remove", "gentle"]).status.code(), Some(1), "it is inherited");
    assert!(weir.ask(&["group", "remove", "reseller"]).status.success());
    let groups = |wanted: serde_json::Value| {
        weir.wait_for("other groups", |weir| (told(weir)["groups"] == wanted).then_some(()));
    };
    groups(serde_json::json!(["vpn"]));
    assert!(weir.ask(&["settings", "undo", "groups"]).status.success());
    groups(serde_json::json!(["vpn", "reseller"]));
    assert_eq!(weir.ask(&["group", "show", "nobody"]).status.code(), Some(1));
}
