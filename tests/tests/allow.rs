//! Allow lists that are read from a web server: what it says is taken, waits, or is refused; and is kept.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_tests::process::Weir;

/// A web server that gives everybody the same answer.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let given = Arc::clone(&answer);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                let answer = given.lock().unwrap().clone();
                // Whoever has read enough hangs up.
                let _ = stream.write_all(&answer);
            }
        });
        Self { address, answer }
    }

    fn says(&self, status: &str, body: &str) {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        *self.answer.lock().unwrap() = [head.as_bytes(), body.as_bytes()].concat();
    }

    fn lists(&self, prefixes: u32) {
        let mut body = "# proxies\n".to_owned();
        (0..prefixes).for_each(|n| writeln!(body, "198.51.{n}.0/24").unwrap());
        self.says("200 OK", &body);
    }
}

fn section(server: &Server) -> String {
    format!(
        "[[protect.allow]]\nname = \"proxy\"\nurl = \"http://{}/v4\"\nprotocol = \"tcp\"\nports = [443]\n",
        server.address
    )
}

fn list(weir: &Weir) -> Value {
    weir.api("GET", "allow", 0, "")["lists"][0].clone()
}

/// Reads the list again, and waits until it stands as it should.
fn until(weir: &Weir, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    assert!(weir.ask(&["allow", "refresh", "proxy"]).status.success());
    weir.wait_for(what, |weir| Some(list(weir)).filter(|list| holds(list)))
}

/// What weir says to a rule by hand that names a source.
fn rule(weir: &Weir, source: &str) -> String {
    let out = weir.ask(&[
        "mitigate",
        "add",
        "203.0.113.7/32",
        "--protocol",
        "6",
        "--src",
        source,
        "--dry-run",
    ]);
    String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout)
}

#[test]
fn a_list_from_a_web_server_is_taken_waits_for_approval_and_outlives_a_restart() {
    let server = Server::start();
    server.lists(20);
    let weir = Weir::start(&section(&server));
    until(&weir, "the list", |list| list["prefixes"] == 20);
    assert!(
        rule(&weir, "198.51.7.9/32").contains("allow list proxy"),
        "{}",
        rule(&weir, "198.51.7.9/32")
    );
    assert!(!rule(&weir, "198.51.30.9/32").contains("allow list"));

    // A fifth less goes by itself, more of it waits.
    server.lists(16);
    until(&weir, "a small change", |list| list["prefixes"] == 16);
    server.lists(9);
    let waits = until(&weir, "a large change", |list| !list["pending"].is_null());
    assert_eq!((&waits["prefixes"], &waits["pending"]["removed_count"]), (&16.into(), &7.into()));
    assert!(rule(&weir, "198.51.12.9/32").contains("allow list proxy"));
    let metrics = weir.api("GET", "status", 0, "");
    assert!(metrics.is_object());
    assert!(weir.ask(&["allow", "approve", "proxy"]).status.success());
    assert_eq!(list(&weir)["prefixes"], 9);
    assert!(!rule(&weir, "198.51.12.9/32").contains("allow list"));
    assert!(!weir.ask(&["allow", "approve", "proxy"]).status.success(), "nothing waits any more");
    let audit = weir.json(&["audit", "list"]).to_string();
    assert!(audit.contains("allow.approve"), "{audit}");

    // What is no list changes nothing.
    let huge = format!("#{}\n198.51.0.0/24\n", "x".repeat(5 << 20));
    for (status, body, part) in [
        ("200 OK", "<html>sign in</html>", "line 1"),
        ("200 OK", "", "no prefix"),
        ("200 OK", "0.0.0.0/0\n", "wider than"),
        ("200 OK", huge.as_str(), "longer than"),
        ("302 Found\r\nLocation: http://169.254.169.254/", "198.51.0.0/24\n", "not followed"),
        ("500 Oops", "198.51.0.0/24\n", "status 500"),
    ] {
        server.says(status, body);
        let failed = until(&weir, part, |list| list["error"].as_str().unwrap().contains(part));
        assert_eq!((&failed["prefixes"], &failed["pending"]), (&9.into(), &Value::Null), "{part}");
    }

    // Without the server, and killed in the middle of everything: it starts with what it had.
    server.lists(40);
    until(&weir, "another change", |list| !list["pending"].is_null());
    server.says("503 Gone", "");
    let weir = Weir::start_on(weir.kill());
    weir.wait_for("the socket", |weir| weir.ask(&["status"]).status.code());
    let kept = list(&weir);
    assert_eq!((&kept["prefixes"], &kept["pending"]["prefixes"]), (&9.into(), &40.into()));
    assert!(rule(&weir, "198.51.7.9/32").contains("allow list proxy"));
    assert!(weir.ask(&["allow", "reject", "proxy"]).status.success());
    assert_eq!(list(&weir)["pending"], Value::Null);
}
