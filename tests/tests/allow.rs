//! Allow lists that are read from a web server: what it says is taken, waits, or is refused; and is kept.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_tests::lab::Lab;
use weir_tests::process::Weir;
use weir_tests::weir_binary;

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
    let waiting = |weir: &Weir| {
        let told = weir.api("GET", "status", 0, "")["conditions"].clone();
        told.as_array().unwrap().iter().any(|told| told["kind"] == "allow-list-waits")
    };
    weir.wait_for("people to be told", |weir| waiting(weir).then_some(()));
    assert!(weir.ask(&["allow", "approve", "proxy"]).status.success());
    assert_eq!(list(&weir)["prefixes"], 9);
    weir.wait_for("that to be over", |weir| (!waiting(weir)).then_some(()));
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

const ORIGINS: &str = r#"
[store]
path = "@/state.db"
[api]
listen = "127.0.0.1:8080"
socket = "@/api.sock"
[protect]
prefixes = ["203.0.113.0/24"]
[collector]
listen = ["127.0.0.1:2055"]
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[bgp.rpki]
cache = "127.0.0.9:8282"
[[protect.allow]]
name = "network"
asns = [64500, 64501]
refresh_secs = 60
"#;

#[test]
fn what_rpki_lets_networks_originate_is_a_list() {
    let Some(mut lab) = Lab::new("allow_origins", &["stayrtr", "curl"]) else { return };
    let roa = |net: &str, asn: u32, max: u8| serde_json::json!({"prefix": net, "maxLength": max, "asn": format!("AS{asn}"), "ta": "test"});
    let roas = [
        roa("198.51.100.0/24", 64500, 24),
        // Lies in the first.
        roa("198.51.100.128/25", 64501, 25),
        roa("2001:db8:7::/48", 64501, 48),
        roa("192.0.2.0/24", 64999, 24),
    ];
    let cache = lab.write("vrps.json", &serde_json::json!({"roas": roas}).to_string());
    let bind = ["-bind", "127.0.0.9:8282", "-metrics.addr", "127.0.0.9:9847", "-checktime=false"];
    let cache = ["stayrtr", "-cache", cache.to_str().unwrap()];
    lab.spawn("stayrtr", &[&cache[..], &bind].concat());
    let folder = lab.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let file = lab.write("weir.toml", &ORIGINS.replace('@', &folder));
    let weir = weir_binary();
    lab.spawn("weir", &[weir.to_str().unwrap(), "run", "--config", file.to_str().unwrap()]);
    let socket = lab.path("api.sock");
    let url = "http://localhost/api/v1/allow";
    let ask = ["curl", "-s", "--unix-socket", socket.to_str().unwrap(), url];
    let list = lab.wait_for("the cache to have told", 40, |lab| {
        let all: Value = serde_json::from_str(&lab.ask(&ask)).ok()?;
        (all["lists"][0]["prefixes"] == 2).then(|| all["lists"][0].clone())
    });
    assert_eq!(list["source"], "RPKI: AS64500 AS64501");
    assert_eq!(list["first"], serde_json::json!(["198.51.100.0/24", "2001:db8:7::/48"]));
}
