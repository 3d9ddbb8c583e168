//! The configuration file read again while weir runs: by SIGHUP, and by `weir reload`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use weir::demo::{ROUTER_ASN, Router};
use weir_bgp::receiver::Event;
use weir_tests::process::{Weir, text, write_config};

/// Lines of the log that hold all of these words.
fn said(weir: &Weir, words: &[&str]) -> usize {
    weir.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn hup(weir: &Weir, more: &str) {
    write_config(weir.folder(), more);
    weir.signal("HUP");
}

fn config(weir: &Weir) -> String {
    let shown = weir.api("GET", "config", 0, "");
    shown["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_hangup_puts_in_force_what_can_change_and_names_the_rest() {
    let weir = Weir::start("");
    hup(
        &weir,
        "keep_days = 30\n[log]\nlevel = \"debug\"\nformat = \"text\"\n[detector]\nmultiplier = 4.0\n[guard]\nmax_total = 17\n\
         [[collector.exporters]]\naddress = \"192.0.2.1/32\"\nname = \"edge1\"\n\
         [[mitigator.ladder]]\nrung = \"drop\"\nabove_bits_per_sec = 5000000\n",
    );
    weir.wait_for("the reload", |weir| {
        (said(weir, &["the configuration file was read again", "detector.multiplier"]) == 1)
            .then_some(())
    });
    assert_eq!(said(&weir, &["needs a restart: log.format"]), 1, "{}", weir.log());
    let shown = config(&weir);
    for line in ["multiplier = 4.0", "max_total = 17", "name = \"edge1\"", "level = \"debug\""] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(
        shown.contains("keep_days = 30") && shown.contains("format = \"auto\""),
        "what needs a restart is not shown as in force: {shown}"
    );
    // The core's own view, a moment later.
    weir.wait_for("the exporter", |weir| {
        let exporters = weir.json(&["exporters"]);
        (exporters[0]["name"] == "edge1" && exporters[0]["last_seen"] == 0).then_some(())
    });
    let about = |weir: &Weir| weir.api("GET", "about", 0, "");
    weir.wait_for("the ladder", |weir| {
        (about(weir)["ladder"].as_array().unwrap().len() == 1).then_some(())
    });
    // Again: nothing has changed but what still waits.
    weir.signal("HUP");
    weir.wait_for("another reload", |weir| {
        (said(weir, &["the configuration file was read again", "nothing"]) == 1).then_some(())
    });
    assert_eq!(said(&weir, &["needs a restart: log.format"]), 2);
    // And back: an exporter that is gone is nobody's silence.
    hup(&weir, "");
    weir.wait_for("an empty list", |weir| {
        weir.json(&["exporters"]).as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn a_metric_of_ones_own_is_measured_from_the_reload_on() {
    let weir = Weir::start("");
    let policy = |weir: &Weir| text(&weir.ask(&["policy", "203.0.113.7"]));
    assert!(!policy(&weir).contains("metric."));
    let metric = "[[detector.metric]]\nname = \"sip\"\nmatch = \"udp dst port 5060\"\n\
        packets_per_sec = 5_000\n";
    hup(&weir, metric);
    weir.wait_for("the reload", |weir| {
        (said(weir, &["the configuration file was read again", "detector.metric"]) == 1)
            .then_some(())
    });
    let shown = weir.wait_for("the metric", |weir| {
        Some(policy(weir)).filter(|shown| shown.contains("metric.sip.packets_per_sec"))
    });
    assert!(shown.contains("proto 17 dport 5060") && shown.contains("5.00 k"), "{shown}");
    assert!(config(&weir).contains("[[detector.metric]]"));
    hup(&weir, "");
    weir.wait_for("no metric", |weir| (!policy(weir).contains("metric.")).then_some(()));
}

#[test]
fn a_broken_file_changes_nothing_and_is_loudly_reported() {
    let weir = Weir::start("[detector]\nmultiplier = 4.0\n");
    let before = config(&weir);
    hup(&weir, "[detector]\nmultiplier = 5.0\n[log]\nlevel = \"verbose\"\n");
    let file = std::fs::read_to_string(weir.config()).unwrap();
    let line = file.lines().position(|line| line.starts_with("level")).unwrap() + 1;
    let place = format!("weir.toml:{line}:1");
    weir.wait_for("the report", |weir| {
        (said(weir, &["ERROR", "the configuration file cannot be used", &place, "verbose"]) == 1)
            .then_some(())
    });
    assert_eq!(config(&weir), before);
    let refused = weir.ask(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&place), "{refused:?}");
    assert!(weir.ask(&["mode"]).status.success(), "weir runs on");
    std::fs::remove_file(weir.config()).unwrap();
    let gone = weir.ask(&["reload"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("No such file"), "{gone:?}");
    write_config(weir.folder(), "[detector]\nmultiplier = 5.0\n");
    let done = weir.ask(&["reload"]);
    assert!(text(&done).contains("detector.multiplier: 4.0 -> 5.0"), "{done:?}");
    assert_ne!(config(&weir), before);
    let audit = text(&weir.ask(&["audit"]));
    assert!(audit.contains("config.reload"), "{audit}");
}

#[test]
fn a_setting_that_hides_the_file_is_told_of() {
    let weir = Weir::start("");
    let set = weir.tell(&["settings", "set", "prefixes", "-"], "[\"203.0.113.0/24\"]\n");
    assert!(set.status.success(), "{set:?}");
    assert_eq!(said(&weir, &["in the file, not in force"]), 0);
    // Another prefix in the file.
    let file = std::fs::read_to_string(weir.config()).unwrap();
    let more = file.replace("[\"203.0.113.0/24\"]", "[\"203.0.113.0/24\", \"198.51.100.0/24\"]");
    std::fs::write(weir.config(), &more).unwrap();
    let tried = text(&weir.ask(&["reload", "--check"]));
    assert!(tried.contains("would change:\n  protect.prefixes: "), "{tried}");
    assert!(tried.contains("in the file, not in force: prefixes 198.51.100.0/24"), "{tried}");
    assert_eq!(said(&weir, &["read again"]), 0, "a check is no reload");
    assert!(weir.ask(&["reload"]).status.success());
    assert_eq!(said(&weir, &["WARN", "in the file, not in force", "198.51.100.0/24"]), 1);
    let listed = text(&weir.ask(&["settings"]));
    assert!(listed.contains("198.51.100.0/24"), "{listed}");
    let folder = weir.kill();
    let weir = Weir::start_on(folder);
    assert_eq!(said(&weir, &["WARN", "in the file, not in force", "198.51.100.0/24"]), 1);
    assert!(weir.ask(&["settings", "clear", "prefixes"]).status.success());
    assert!(config(&weir).contains("198.51.100.0/24"), "the file decides again");
}

#[test]
fn a_session_and_its_measure_outlive_a_reload() {
    let router = Router::start().unwrap();
    let peer = format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"border\"\n\
         address = \"127.0.0.1\"\nport = {}\nremote_as = {ROUTER_ASN}\n",
        router.port
    );
    let weir = Weir::start(&peer);
    let mut seen = Vec::new();
    let mut wait = |what: &str, wanted: fn(&Event) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(event) = router.next(Duration::from_millis(100)) {
                seen.push(event.clone());
                if wanted(&event) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "no {what}: {seen:?}");
        }
    };
    wait("session", |event| matches!(event, Event::Up { .. }));
    for host in ["203.0.113.7/32", "203.0.113.8/32"] {
        let added = weir.ask(&["mitigate", "add", host, "--protocol", "17", "--sport", "53"]);
        assert!(added.status.success(), "{added:?}");
        wait("rule", |event| matches!(event, Event::Announced(_)));
    }
    hup(&weir, &format!("[detector]\nmultiplier = 4.0\n[mitigator]\nttl_secs = 60\n{peer}"));
    weir.wait_for("the reload", |weir| {
        (said(weir, &["read again", "ttl_secs"]) == 1).then_some(())
    });
    // What is no longer allowed is told of beforehand, and goes; the rest stays.
    let file = std::fs::read_to_string(weir.config()).unwrap();
    let narrower = file.replace("[\"203.0.113.0/24\"]", "[\"203.0.113.0/29\"]");
    std::fs::write(weir.config(), narrower).unwrap();
    let tried = text(&weir.ask(&["reload", "--check"]));
    assert!(tried.contains("! ") && tried.contains("203.0.113.8/32"), "{tried}");
    assert!(!tried.contains("203.0.113.7/32"), "{tried}");
    assert!(weir.ask(&["reload"]).status.success());
    wait("withdrawal", |event| matches!(event, Event::Withdrawn(_)));
    let (mut down, mut gone) = (0, Vec::new());
    for event in &seen {
        match event {
            Event::Down(_) => down += 1,
            Event::Withdrawn(route) => gone.push(route.text.clone()),
            _ => {}
        }
    }
    assert_eq!(down, 0, "{seen:?}");
    assert!(gone.len() == 1 && gone[0].contains("203.0.113.8/32"), "{gone:?}");
}

/// What the pages for owners that were opened last answer to a request for nothing that there is.
fn owners_answer(weir: &Weir) -> String {
    let log = weir.log();
    let line = log.lines().rfind(|line| line.contains("pages for owners")).unwrap();
    let address: String = line
        .split_once("127.0.0.1:")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
        .unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{address}")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn whole_sections_come_and_go() {
    let router = Router::start().unwrap();
    let weir = Weir::start("");
    std::fs::write(weir.folder().join("panel.key"), "ptla_0123456789abcdef").unwrap();
    let sections = format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"border\"\n\
         address = \"127.0.0.1\"\nport = {}\nremote_as = {ROUTER_ASN}\n[agents]\nlisten = \"127.0.0.1:0\"\n\
         [[panel]]\nname = \"main\"\nurl = \"http://127.0.0.1:9\"\nkey_file = {:?}\n\
         [owners]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://shield.example.net\"\n",
        router.port,
        weir.folder().join("panel.key")
    );
    let wait = |what: &str, wanted: fn(&Event) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !router.next(Duration::from_millis(100)).is_some_and(|event| wanted(&event)) {
            assert!(Instant::now() < deadline, "no {what}: {}", weir.log());
        }
    };
    let added =
        weir.ask(&["mitigate", "add", "203.0.113.7/32", "--protocol", "17", "--sport", "53"]);
    assert!(added.status.success(), "{added:?}");
    for _ in 0..2 {
        write_config(weir.folder(), &sections);
        let done = weir.ask(&["reload"]);
        assert!(done.status.success(), "{done:?}");
        wait("rule", |event| matches!(event, Event::Announced(_)));
        assert_eq!(weir.api("GET", "agents", 0, "")["configured"], true);
        assert_eq!(weir.api("GET", "panels", 0, "")["panels"][0]["name"], "main");
        assert_eq!(owners_answer(&weir).split(' ').nth(1), Some("404"));
        write_config(weir.folder(), "");
        let tried = text(&weir.ask(&["reload", "--check"]));
        assert!(tried.contains("! the session with border ends"), "{tried}");
        assert!(weir.ask(&["reload"]).status.success());
        wait("withdrawal", |event| matches!(event, Event::Withdrawn(_)));
        wait("end", |event| matches!(event, Event::Down(_)));
        assert_eq!(weir.api("GET", "agents", 0, "")["configured"], false);
        weir.wait_for("nobody to speak to", |weir| {
            weir.api("GET", "peers", 0, "")["peers"].as_array().unwrap().is_empty().then_some(())
        });
        assert_eq!(weir.api("GET", "panels", 0, "")["panels"].as_array().map(Vec::len), Some(0));
    }
}
