//! `weir check` passes exactly what `weir run` starts with: over a table of configurations, each tried
//! with both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use weir_tests::process::write_config;
use weir_tests::weir_binary;

/// A peer that is never reached, with more settings.
fn peer(more: &str) -> String {
    format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"edge\"\n\
         address = \"127.0.0.1\"\nport = 1\nremote_as = 65010\n{more}\n"
    )
}

/// Additions to a good configuration, and whether it is good with them.
fn table() -> Vec<(String, bool)> {
    let files = "[[mitigator.webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:1\"\n";
    let tls = "[collector.tls]\ncert = \"/nonexistent/c\"\nkey = \"/nonexistent/k\"\n";
    vec![
        (String::new(), true),
        (peer(""), true),
        (peer("hold_time_secs = 2"), false),
        (peer("hold_time_secs = 0"), true),
        (peer("families = []"), false),
        (peer("next_hop4 = \"0.0.0.0\""), false),
        (peer("passive = true"), false),
        (peer("local_as = 0"), false),
        (peer("connect_retry_secs = 0"), false),
        (peer("password_file = \"/nonexistent/key\""), false),
        (peer("").replace("remote_as = 65010", "remote_as = 0"), false),
        (peer("").replace("router_id = \"10.0.0.1\"", "router_id = \"0.0.0.0\""), false),
        ("[log]\nlevel = \"verbose\"\n".to_owned(), false),
        ("[log]\nlevel = \"info,weir_bgp=debug\"\n".to_owned(), true),
        (files.to_owned(), true),
        (format!("{files}secret_file = \"/nonexistent/key\"\n"), false),
        ("[api.tls]\nalways = true\n".to_owned(), true),
        ("[api.tls]\ncert = \"/nonexistent/c\"\nkey = \"/nonexistent/k\"\n".to_owned(), false),
        ("[api.tls]\ncert = \"/nonexistent/c\"\n".to_owned(), false),
        (tls.to_owned(), true),
        ("[detector]\nmultiplier = 0.0\n".to_owned(), false),
        ("[detector]\nend_ratio = 2.0\n".to_owned(), false),
        ("[guard]\nmax_width4 = 7\n".to_owned(), false),
        ("[mitigator]\nttl_secs = 1\n".to_owned(), false),
        ("[owners]\nlisten = \"0.0.0.0:0\"\npublic_url = \"https://x.example\"\n".to_owned(), false),
        ("[agents]\nlisten = \"127.0.0.1:0\"\n".to_owned(), true),
        ("[agents]\nwait_secs = 0\n".to_owned(), false),
        (
            "[[panel]]\nname = \"main\"\nurl = \"http://127.0.0.1:1\"\nkey_file = \"/nonexistent/key\"\n"
                .to_owned(),
            false,
        ),
    ]
}

/// Whether weir becomes ready with this file; it is ended at once.
fn runs(path: &std::path::Path) -> (bool, String) {
    let mut child = Command::new(weir_binary())
        .args(["run", "--config"])
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    let mut ready = false;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        // A thread that ends by itself right after the start ends weir: no case here says so any more.
        ready |= line.contains("\"ready\"");
        log.push_str(&line);
        log.push('\n');
        if ready {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    (ready, log)
}

#[test]
fn check_passes_exactly_what_run_starts_with() {
    for (more, good) in table() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_config(folder.path(), &more);
        let checked = Command::new(weir_binary()).args(["check", "--config"]).arg(&path).output();
        let checked = checked.unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(if good { 0 } else { 2 }), "{more}: {said}");
        if !good {
            assert!(said.starts_with(&format!("{}:", path.display())), "{more}: {said}");
        }
        let (ran, log) = runs(&path);
        assert_eq!(ran, good, "{more}: {log}");
    }
}
