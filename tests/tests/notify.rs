//! Webhooks and scrubbing services, in the shape they see on the wire: a stub HTTP server takes what a
//! running weir sends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use weir_model::signature;
use weir_tests::process::{Weir, text};

/// A request as it came.
#[derive(Clone, Debug)]
struct Heard {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// An HTTP server that takes everything, but refuses what is posted to `/flaky` the first two times.
#[derive(Clone)]
struct Stub {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl Stub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            refuses: Arc::default(),
        };
        let own = stub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.answer(stream));
            }
        });
        stub
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |n: &String| n.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let flaky = line.starts_with("POST /flaky ");
        let heard = Heard {
            line: line.trim().trim_end_matches(" HTTP/1.1").to_owned(),
            headers,
            body: String::from_utf8(body).unwrap(),
        };
        let earlier = {
            let mut list = self.heard.lock().unwrap();
            list.push(heard);
            list.iter().filter(|h| h.line == "POST /flaky").count()
        };
        let refuses = self.refuses.load(std::sync::atomic::Ordering::SeqCst);
        let status = if refuses || flaky && earlier <= 2 { "503 Busy" } else { "200 OK" };
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
        let _ = reader.into_inner().write_all(answer.as_bytes());
    }

    /// Whether everything is refused for now.
    fn refuse(&self, on: bool) {
        self.refuses.store(on, std::sync::atomic::Ordering::SeqCst);
    }

    /// Numbers of all deliveries so far.
    fn numbers(&self) -> Vec<String> {
        let list = self.heard.lock().unwrap();
        list.iter().filter_map(|h| h.headers.get("x-weir-delivery").cloned()).collect()
    }

    /// Requests to a path so far, beginning with this.
    fn to(&self, line: &str) -> Vec<Heard> {
        let list = self.heard.lock().unwrap();
        list.iter().filter(|h| h.line.starts_with(line)).cloned().collect()
    }
}

fn configuration(stub: &Stub, secret: &str) -> String {
    let base = format!("http://{}", stub.address);
    format!(
        r#"
[notify]
allow_loopback = true
[mitigator]
mode = "approve"
[[mitigator.webhook]]
name = "ops"
url = "{base}/ops"
secret_file = {secret:?}
events = ["announce", "withdraw", "test"]
headers = {{ "X-Team" = "night shift" }}
[[mitigator.webhook]]
name = "flaky"
url = "{base}/flaky"
events = ["test"]
[[mitigator.webhook]]
name = "dead"
url = "http://127.0.0.1:1/"
events = ["test"]
[[mitigator.scrubber]]
name = "own"
url = "{base}/generic"
secret = "hunter2"
[[mitigator.scrubber]]
name = "mt"
url = "{base}/client/v4"
template = "cloudflare-magic-transit"
values = {{ account = "a1", prefix_id = "p1", "bgp_prefix_id@203.0.113.0/24" = "b24", bgp_prefix_id = "none" }}
headers = {{ Authorization = "Bearer token" }}
[[mitigator.scrubber]]
name = "ovh-relay"
url = "{base}/ovh/v1"
template = "ovh"
[[mitigator.scrubber]]
name = "radware-relay"
url = "{base}/radware"
template = "radware"
[[mitigator.scrubber]]
name = "f5-relay"
url = "{base}/f5"
template = "f5"
[[mitigator.scrubber]]
name = "odd"
url = "{base}/odd"
start = {{ method = "PUT", path = "/diversions/${{address}}", body = '{{"length":"${{len}}"}}' }}
stop = {{ method = "DELETE", path = "/diversions/${{address}}" }}
"#
    )
}

#[test]
fn webhooks_are_signed_tried_again_and_logged() {
    let keys = tempfile::tempdir().unwrap();
    let secret = keys.path().join("secret");
    std::fs::write(&secret, "open sesame\n").unwrap();
    let stub = Stub::start();
    let weir = Weir::start(&configuration(&stub, secret.to_str().unwrap()));

    let added =
        weir.ask(&["mitigate", "add", "203.0.113.7/32", "--protocol", "17", "--sport", "19"]);
    assert!(added.status.success(), "{added:?}");
    let heard = weir.wait_for("the message", |_| stub.to("POST /ops").pop());
    assert_eq!(heard.headers["x-weir-signature"], signature(b"open sesame", heard.body.as_bytes()));
    assert_eq!(heard.headers["x-weir-event"], "announce");
    assert_eq!(heard.headers["x-team"], "night shift");
    assert_eq!(heard.headers["content-type"], "application/json");
    let message: Value = serde_json::from_str(&heard.body).unwrap();
    assert_eq!(message["target"], "203.0.113.7/32");
    assert!(message["detail"].as_str().unwrap().contains("sport 19"), "{message}");
    assert!(message["at_ms"].as_u64().is_some() && message["delivery"].as_u64().is_some());

    for name in ["ops", "flaky", "dead"] {
        assert!(weir.ask(&["webhooks", "test", name]).status.success(), "{name}");
    }
    assert_eq!(weir.ask(&["webhooks", "test", "nobody"]).status.code(), Some(1));
    let log = weir.wait_for("the third try", |weir| {
        let log = weir.json(&["webhooks"]);
        let of = |name: &str| log.as_array()?.iter().find(|d| d["to"] == name).cloned();
        Some((of("flaky")?, of("ops")?))
    });
    assert_eq!((&log.0["tries"], &log.0["taken"]), (&Value::from(3), &Value::from(true)));
    assert_eq!((&log.1["event"], &log.1["outcome"]), (&Value::from("test"), &"status 200".into()));
    assert_eq!(stub.to("POST /flaky").len(), 3, "two refusals, then taken");
    // One that nobody answers at has its tries still to come, and holds up nobody.
    assert!(log.0["to"] != "dead");

    // What was still to be told is told after a crash, under the same number; new ones get new numbers.
    let before = stub.to("POST /ops").len();
    let known: Vec<String> = stub.numbers();
    let config = configuration(&stub, secret.to_str().unwrap());
    stub.refuse(true);
    assert!(weir.ask(&["webhooks", "test", "ops"]).status.success());
    let refused = weir.wait_for("a refusal", |_| stub.to("POST /ops").into_iter().nth(before));
    weir.wait_for("the state file", |weir| {
        let store = weir_store::Store::open(&weir.folder().join("state.db")).unwrap();
        let body = String::from_utf8(store.blob("notify-1").unwrap()?.1).unwrap();
        body.contains("\"tries\":1").then_some(())
    });
    let folder = weir.kill();
    stub.refuse(false);
    let weir = Weir::start_in(folder, &config);
    let again =
        weir.wait_for("the same message", |_| stub.to("POST /ops").into_iter().nth(before + 1));
    assert_eq!(again.headers["x-weir-delivery"], refused.headers["x-weir-delivery"]);
    assert_eq!(again.body, refused.body);
    assert!(weir.ask(&["webhooks", "test", "ops"]).status.success());
    let new = weir.wait_for("a new message", |_| stub.to("POST /ops").into_iter().nth(before + 2));
    assert!(!known.contains(&new.headers["x-weir-delivery"]), "numbers go on over restarts");
}

#[test]
fn scrubbing_services_are_asked_in_their_own_form_to_start_and_to_stop() {
    let keys = tempfile::tempdir().unwrap();
    let secret = keys.path().join("secret");
    std::fs::write(&secret, "open sesame").unwrap();
    let stub = Stub::start();
    let config = configuration(&stub, secret.to_str().unwrap());
    let weir = Weir::start(&config);
    let dry = weir.json(&["mitigate", "add", "203.0.113.0/24", "--scrub", "--dry-run"]);
    assert_eq!(dry["adds"][0]["scrub"], "203.0.113.0/24", "{dry}");
    assert!(stub.to("").is_empty(), "a dry run asks nobody");

    let added = weir.json(&["mitigate", "add", "203.0.113.0/24", "--scrub"]);
    let id = added["mitigation"].as_u64().unwrap().to_string();
    let one = |line: &str| {
        let heard = weir.wait_for(line, |_| stub.to(line).pop());
        assert_eq!(stub.to(line).len(), 1, "{line}: asked once");
        heard
    };
    let generic = one("POST /generic");
    assert_eq!(generic.headers["x-weir-signature"], signature(b"hunter2", generic.body.as_bytes()));
    let message: Value = serde_json::from_str(&generic.body).unwrap();
    assert_eq!(
        (&message["action"], &message["prefix"]),
        (&"start".into(), &"203.0.113.0/24".into())
    );
    assert_eq!(message["mitigation"], id.as_str());
    let path = "/client/v4/accounts/a1/addressing/prefixes/p1/bgp/prefixes/b24";
    let magic = one(&format!("PATCH {path}"));
    assert_eq!(magic.body, r#"{"on_demand":{"advertised":true}}"#);
    assert_eq!(magic.headers["authorization"], "Bearer token");
    assert!(!magic.headers.contains_key("x-weir-signature"));
    let ovh = one("POST /ovh/v1/ip/203.0.113.0%2F24/mitigation");
    assert_eq!(ovh.body, r#"{"ipOnMitigation":"203.0.113.0"}"#);
    for line in ["POST /radware", "POST /f5"] {
        let message: Value = serde_json::from_str(&one(line).body).unwrap();
        assert_eq!(message["action"], "start", "{line}");
    }
    assert_eq!(one("PUT /odd/diversions/203.0.113.0").body, r#"{"length":"24"}"#);
    // Who has it is shown where routers are shown.
    weir.wait_for("all services", |weir| {
        let list = weir.json(&["mitigate"]);
        (list[0]["peers"].as_array()?.len() == 6).then_some(())
    });

    // What was diverted is known after a crash, and is stopped when nobody wants it any more.
    let folder = weir.kill();
    stub.heard.lock().unwrap().clear();
    let weir = Weir::start_in(folder, &config);
    weir.wait_for("the start after the crash", |_| stub.to("POST /generic").pop());
    let withdrawn = weir.ask(&["mitigate", "withdraw", &id]);
    assert!(withdrawn.status.success(), "{withdrawn:?}");
    for line in [
        &format!("PATCH {path}"),
        "DELETE /ovh/v1/ip/203.0.113.0%2F24/mitigation/203.0.113.0",
        "DELETE /odd/diversions/203.0.113.0",
    ] {
        weir.wait_for(line, |_| stub.to(line).pop().filter(|h| !h.body.contains("true")));
    }
    let stop = weir.wait_for("the stop", |_| {
        stub.to("POST /generic").into_iter().find(|h| h.body.contains("stop"))
    });
    assert!(stop.body.contains("203.0.113.0/24"));

    // Stopping weir withdraws what is diverted, as it withdraws routes.
    weir.json(&["mitigate", "add", "203.0.113.8/32", "--scrub"]);
    weir.wait_for("the start", |_| stub.to("PUT /odd/diversions/203.0.113.8").pop());
    weir.stop();
    assert_eq!(stub.to("DELETE /odd/diversions/203.0.113.8").len(), 1);
}

#[test]
fn channels_are_set_while_weir_runs_and_their_credentials_never_come_back() {
    let keys = tempfile::tempdir().unwrap();
    let secret = keys.path().join("secret");
    std::fs::write(&secret, "open sesame").unwrap();
    let stub = Stub::start();
    let weir = Weir::start(&configuration(&stub, secret.to_str().unwrap()));
    let set = |weir: &Weir, value: &Value| {
        let out = weir.tell(&["settings", "set", "channels", "-"], &value.to_string());
        (out.status.success(), format!("{}{}", text(&out), String::from_utf8_lossy(&out.stderr)))
    };
    let test = |weir: &Weir, name: &str| weir.ask(&["webhooks", "test", name]).status.success();
    assert!(!test(&weir, "night"), "there is none yet");

    let url = format!("http://{}/night/t0ken", stub.address);
    let night = json!({"name": "night", "url": url, "secret": "hunter2",
        "headers": {"Authorization": "Bearer s3cret"}, "events": ["announce"]});
    let (done, said) = set(&weir, &json!([night]));
    assert!(done, "{said}");
    assert!(!said.contains("hunter2") && !said.contains("t0ken"), "{said}");
    assert!(test(&weir, "night"));
    let heard = weir.wait_for("the test message", |_| stub.to("POST /night/t0ken").pop());
    assert_eq!(heard.headers["x-weir-signature"], signature(b"hunter2", heard.body.as_bytes()));
    assert_eq!(heard.headers["authorization"], "Bearer s3cret");

    // Shown beside the file's, which stay as they are, and without what must stay secret.
    let shown = weir.json(&["settings", "show", "channels"]);
    assert_eq!(shown["value"][0]["secret_set"], true, "{shown}");
    assert_eq!(shown["value"][0]["headers_set"], json!(["Authorization"]));
    assert_eq!(shown["file"][0]["name"], "ops");
    let audit = weir.json(&["audit"]).to_string();
    for place in [shown.to_string(), audit, weir.log()] {
        for credential in ["t0ken", "hunter2", "s3cret", "open sesame"] {
            assert!(!place.contains(credential), "{place}");
        }
    }
    let twice = json!([{"name": "ops", "url": url}]);
    assert!(!set(&weir, &twice).0, "the file has one of that name");
    let elsewhere = json!([{"name": "night", "url": "http://127.0.0.1:1/"}]);
    assert!(!set(&weir, &elsewhere).0, "credentials do not follow to another address");

    // As shown, but switched off: it hears of nothing, and a test reaches it with what it had.
    let mut off = shown["value"].clone();
    off[0]["enabled"] = false.into();
    assert!(set(&weir, &off).0);
    let rule = ["mitigate", "add", "203.0.113.7/32", "--protocol", "17", "--sport", "19"];
    assert!(weir.ask(&rule).status.success());
    weir.wait_for("what the file's hears", |_| stub.to("POST /ops").pop());
    assert_eq!(stub.to("POST /night").len(), 1, "it is switched off");

    // They outlive the process, and can be taken back.
    let config = configuration(&stub, secret.to_str().unwrap());
    let weir = Weir::start_in(weir.kill(), &config);
    assert!(test(&weir, "night"));
    let again = weir.wait_for("another test", |_| stub.to("POST /night/t0ken").into_iter().nth(1));
    assert_eq!(again.headers["authorization"], "Bearer s3cret");
    assert!(weir.ask(&["settings", "clear", "channels"]).status.success());
    assert!(!test(&weir, "night"), "it is gone");
    assert!(test(&weir, "ops"), "the file's stay");
}
