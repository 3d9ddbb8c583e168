//! `kill -9` and a restart on the same state file: a living incident is announced again at once, a dead
//! one never.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir::daemon;
use weir::demo::{ROUTER_ASN, Router};
use weir_bgp::receiver::Event;
use weir_bgp::wire::Family;
use weir_mitigator::{Checkpoint, Sight, Victim};
use weir_tests::weir_binary;
use weir_traffic::Scene;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(40);

fn configuration(folder: &Path, port: u16) -> String {
    format!(
        r#"
[log]
format = "json"
[protect]
prefixes = ["203.0.113.0/24"]
[collector]
listen = ["127.0.0.1:0"]
[[collector.exporters]]
address = "127.0.0.0/8"
[detector]
end_quiet_secs = 3
[mitigator]
mode = "auto"
[[mitigator.ladder]]
rung = "rate-limit"
above_bits_per_sec = 100000000
hold_secs = 1
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 500000000
hold_secs = 1
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
        folder.join("state.db")
    )
}

/// A `weir run` and the address on which it takes flows.
struct Weir {
    child: Child,
    flows: SocketAddr,
}

impl Weir {
    #[expect(clippy::zombie_processes, reason = "Drop collects it")]
    fn start(folder: &Path, config: &Path, name: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let child = Command::new(weir_binary())
            .args(["run", "--config", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(ready) = lines.into_iter().find(|line| line["message"] == "ready") {
                let flows = ready["flows"].as_str().unwrap().trim_matches(['[', ']']);
                return Self { child, flows: flows.parse().unwrap() };
            }
            assert!(Instant::now() < deadline, "not ready: {text}");
            std::thread::yield_now();
        }
    }

    /// SIGKILL, as the kernel would when memory is short.
    fn kill(self) {
        drop(self);
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // Also when the test fails: nothing outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repeats the attack of the demonstration until it is stopped, to wherever weir listens now.
struct Attack {
    to: Arc<Mutex<SocketAddr>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Attack {
    fn start(to: SocketAddr) -> Self {
        let to = Arc::new(Mutex::new(to));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (to, stop) = (Arc::clone(&to), Arc::clone(&stop));
            move || send(&to, &stop)
        });
        Self { to, stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }
}

/// Eight seconds of attack over and over, from the sFlow exporter.
fn send(to: &Mutex<SocketAddr>, stop: &AtomicBool) {
    let (from_us, until_us) = (9_000_000, 17_000_000);
    let (_keep, pause) = std::sync::mpsc::channel::<()>();
    let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap();
    loop {
        let start = Instant::now();
        let scene = Scene::demo(1);
        let wanted = scene
            .stream(daemon::now() - from_us / 1000)
            .skip_while(|d| d.at_us < from_us)
            .take_while(|d| d.at_us < until_us)
            .filter(|d| d.exporter == 0);
        for datagram in wanted {
            let due = start + Duration::from_micros(datagram.at_us - from_us);
            // Nobody sends on it: a wait until the datagram is due.
            let _ = pause_until(&pause, due);
            if stop.load(Ordering::Acquire) {
                return;
            }
            // Refused while weir is dead.
            let _ = socket.send_to(&datagram.payload, *to.lock().unwrap());
        }
    }
}

fn pause_until(never: &std::sync::mpsc::Receiver<()>, due: Instant) -> bool {
    let wait = due.saturating_duration_since(Instant::now());
    wait.is_zero() || never.recv_timeout(wait).is_err()
}

fn wait_for(router: &Router, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = router.next(Duration::from_millis(100))
            && wanted(&event)
        {
            return event;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
    }
}

/// Keeps the list of what stands at the router.
fn note(standing: &mut BTreeSet<String>, event: &Event) {
    match event {
        Event::Announced(route) => {
            standing.insert(route.text.clone());
        }
        Event::Withdrawn(route) => {
            standing.remove(&route.text);
        }
        _ => {}
    }
}

#[test]
fn a_living_incident_is_announced_again_and_a_dead_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let router = Router::start().unwrap();
    let config = folder.path().join("weir.toml");
    std::fs::write(&config, configuration(folder.path(), router.port)).unwrap();

    let weir = Weir::start(folder.path(), &config, "first");
    wait_for(&router, "the first session", |e| matches!(e, Event::Up { .. }));
    let attack = Attack::start(weir.flows);
    let first = wait_for(&router, "the rule", |e| matches!(e, Event::Announced(_)));
    weir.kill();
    wait_for(&router, "the end of the session", |e| matches!(e, Event::Down(_)));

    // The router forgot everything. The new weir announces before it has seen a single flow: the
    // attack is still sent to the old address.
    let weir = Weir::start(folder.path(), &config, "second");
    let mut early_end = false;
    let again = wait_for(&router, "the rule after the restart", |e| {
        early_end |= matches!(e, Event::EndOfRib(Family::Ipv4FlowSpec));
        matches!(e, Event::Announced(_))
    });
    let target = |event: &Event| match event {
        Event::Announced(route) => route.measure.as_ref().unwrap().target(),
        other => panic!("{other:?}"),
    };
    assert_eq!(target(&first), target(&again));
    assert!(!early_end, "End-of-RIB came before the desired state: a peer would flush the rule");
    *attack.to.lock().unwrap() = weir.flows;
    // Longer than it takes to end an incident: the attack goes on, and the target has a rule; another one when
    // weir finds that the first cut too much.
    let mut standing = BTreeSet::new();
    note(&mut standing, &again);
    let alive = Instant::now() + Duration::from_secs(6);
    while Instant::now() < alive {
        if let Some(event) = router.next(Duration::from_millis(100)) {
            assert!(!matches!(event, Event::Down(_)), "{event:?}");
            note(&mut standing, &event);
        }
    }
    assert!(!standing.is_empty(), "the rule of a living incident was withdrawn");

    attack.stop();
    while !standing.is_empty() {
        let change = |e: &Event| matches!(e, Event::Announced(_) | Event::Withdrawn(_));
        let event = wait_for(&router, "the withdrawal", change);
        note(&mut standing, &event);
    }
    // The end is in the store when the next weir opens it, or the rule would come back.
    wait_for_closed(&folder.path().join("state.db"));
    weir.kill();
    let weir = Weir::start(folder.path(), &config, "third");
    wait_for(&router, "the end of table", |e| {
        assert!(!matches!(e, Event::Announced(_)), "a rule of a dead incident came back: {e:?}");
        matches!(e, Event::EndOfRib(Family::Ipv4FlowSpec))
    });
    let shown = show_last(folder.path());
    weir.kill();
    for line in ["  evidence    ", "  src-port    123 ", "  during      from "] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
}

/// What `weir incidents show` says of the last incident.
fn show_last(folder: &Path) -> String {
    let store = weir_store::Store::open(&folder.join("state.db")).unwrap();
    let last = store.recent_incidents(1).unwrap().remove(0).id.to_string();
    let socket = folder.join("api.sock");
    let shown = Command::new(weir_binary())
        .args(["incidents", "show", &last, "--socket", socket.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).unwrap()
}

/// What the mitigator remembers, as it stands in the state file.
fn memory(state: &Path) -> Checkpoint {
    let store = weir_store::Store::open(state).unwrap();
    let (_, body) = store.blob("mitigator-1").unwrap().expect("it was kept");
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn manual_rules_and_what_was_learned_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let victim = Victim { strikes: 2, ended: daemon::now(), rung: Some(weir_model::Rung::Drop) };
    let learned = Checkpoint {
        victims: vec![("203.0.113.7/32".parse().unwrap(), victim)],
        sights: [("border-1".to_owned(), Sight { fell: 2, stayed: 0 })].into_iter().collect(),
        ..Checkpoint::default()
    };
    let body = serde_json::to_vec(&learned).unwrap();
    weir_store::Store::open(&state).unwrap().put_blob("mitigator-1", daemon::now(), &body).unwrap();
    let router = Router::start().unwrap();
    let config = folder.path().join("weir.toml");
    std::fs::write(&config, configuration(folder.path(), router.port)).unwrap();

    let weir = Weir::start(folder.path(), &config, "first");
    wait_for(&router, "the first session", |e| matches!(e, Event::Up { .. }));
    let socket = folder.path().join("api.sock");
    let rule = ["203.0.113.9/32", "--protocol", "17", "--sport", "19", "--ttl", "600"];
    let added = Command::new(weir_binary())
        .args(["mitigate", "add"])
        .args(rule)
        .args(["--socket", socket.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let is_it = |event: &Event| match event {
        Event::Announced(route) => route.text.contains("203.0.113.9/32"),
        _ => false,
    };
    // Killed the moment the router has it: by then it is written.
    wait_for(&router, "the rule", is_it);
    weir.kill();
    wait_for(&router, "the end of the session", |e| matches!(e, Event::Down(_)));
    let kept = memory(&state);
    assert_eq!(kept.manual.len(), 1);
    assert_eq!(kept.victims, learned.victims);
    assert_eq!(kept.sights, learned.sights);

    let weir = Weir::start(folder.path(), &config, "second");
    wait_for(&router, "the rule after the restart", |e| {
        assert!(!matches!(e, Event::EndOfRib(Family::Ipv4FlowSpec)), "End-of-RIB came first");
        is_it(e)
    });
    weir.kill();
    assert_eq!(memory(&state).manual, kept.manual, "its time goes on from where it was");
}

/// Waits until the end of the incident is in the state file.
fn wait_for_closed(state: &Path) {
    let store = weir_store::Store::open(state).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    while !store.open_incidents().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the incident did not end");
        let _ = never.recv_timeout(Duration::from_millis(20));
    }
}
