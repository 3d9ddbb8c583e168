//! What only takes away needs no disk: it is done first, and written down when that is possible.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use axum::http::StatusCode;
use common::{PASSWORD, START, World, ask, world_on};
use serde_json::{Value, json};
use weir_api::{Config, Records};
use weir_model::{Mode, Role, Snapshot};
use weir_store::Store;

/// Somebody else has the state file locked for writing, until this is dropped.
struct Lock {
    gate: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lock {
    fn of(state: &Path) -> Self {
        let (gate, wait) = mpsc::channel::<()>();
        let (has_it, locked) = mpsc::channel();
        let mut store = Store::open(state).unwrap();
        let thread = std::thread::spawn(move || {
            let held = store.change(|_| {
                has_it.send(()).unwrap();
                // Until the other end is gone.
                let _ = wait.recv();
                Ok(())
            });
            held.unwrap();
        });
        locked.recv().unwrap();
        Self { gate: Some(gate), thread: Some(thread) }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.gate.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// In automatic mode: less is a step down.
fn automatic(world: &World) {
    let now = world.snapshot.load_full();
    world.snapshot.store(std::sync::Arc::new(Snapshot { mode: Mode::Auto, ..(*now).clone() }));
}

/// The answer of `/readyz` once it has this status.
async fn ready_as(world: &World, status: StatusCode) -> common::Answer {
    let until = async {
        loop {
            let ready = ask("GET", "/readyz").send(world).await;
            if ready.status == status {
                return ready;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), until).await.expect("it changes")
}

async fn post(world: &World, cookie: &str, path: &str, body: Option<Value>) -> common::Answer {
    let ask = ask("POST", path).cookie(cookie);
    match body {
        Some(body) => ask.json(&body).send(world).await,
        None => ask.send(world).await,
    }
}

#[tokio::test]
async fn what_only_takes_away_is_done_while_the_state_file_is_locked_and_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let world = world_on(Config::default(), Records::open(&state).unwrap());
    automatic(&world);
    let cookie = world.owner().await;
    let brakes = [
        ("/api/v1/mitigations/7/withdraw", None),
        ("/api/v1/mitigations/withdraw-all", None),
        ("/api/v1/mode", Some(json!({"mode": "observe"}))),
        ("/api/v1/mode", Some(json!({"mode": "approve"}))),
        ("/api/v1/incidents/2/hold", Some(json!({"on": true}))),
        ("/api/v1/incidents/2/step-down", None),
    ];
    // Late enough that the session's use would be noted, too.
    world.pass(120);
    let lock = Lock::of(&state);
    for (path, body) in brakes.clone() {
        let done = post(&world, &cookie, path, body).await;
        assert_eq!(done.status, StatusCode::OK, "{path}: {}", done.text);
        assert_eq!(done.json()["recorded"], false, "{path}");
    }
    assert_eq!(world.asked.lock().unwrap().len(), brakes.len(), "the core has heard of each");
    // The database waits a while for a lock before it says no.
    let ready = ready_as(&world, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(ready.text.contains("its store fails: audit"), "{}", ready.text);
    let status = ask("GET", "/api/v1/status").local(true).send(&world).await.json();
    assert_eq!(status["store"][0]["part"], "audit");
    let metrics = ask("GET", "/metrics").local(true).send(&world).await.text;
    assert!(metrics.contains("weir_store_failing{part=\"audit\"} 1"), "{metrics}");
    // What adds something is not done unrecorded, and says what can be.
    let approve = post(&world, &cookie, "/api/v1/mitigations/8/approve", None).await;
    assert_eq!(approve.status, StatusCode::SERVICE_UNAVAILABLE, "{}", approve.text);
    assert!(approve.text.contains("withdraw-all"), "{}", approve.text);
    assert_eq!(world.asked.lock().unwrap().len(), brakes.len());
    let sign_in = world.login("root", PASSWORD).await;
    assert_eq!(sign_in.status, StatusCode::SERVICE_UNAVAILABLE, "{}", sign_in.text);
    drop(lock);
    world.pass(30);
    let last = post(&world, &cookie, "/api/v1/mitigations/9/withdraw", None).await;
    assert_eq!(last.json()["recorded"], true, "{}", last.text);
    ready_as(&world, StatusCode::OK).await;
    let log = ask("GET", "/api/v1/audit").cookie(&cookie).send(&world).await.json();
    let entries: Vec<&Value> = log["entries"].as_array().unwrap().iter().rev().collect();
    let late = entries.iter().filter(|entry| {
        entry["after"].to_string().contains(&format!("written_late_at\\\":{}", START + 150_000))
            || entry["after"]["written_late_at"] == START + 150_000
    });
    assert_eq!(late.count(), brakes.len(), "{log:#}");
    let actions: Vec<&str> = entries.iter().map(|e| e["action"].as_str().unwrap()).collect();
    let end = &actions[actions.len() - brakes.len() - 1..];
    assert_eq!(
        end,
        [
            "mitigation.withdraw",
            "mitigation.withdraw-all",
            "mode.set",
            "mode.set",
            "incident.hold",
            "incident.step-down",
            "mitigation.withdraw",
        ]
    );
    let chain = ask("GET", "/api/v1/audit/verify").cookie(&cookie).send(&world).await.json();
    assert_eq!(chain["whole"], true);
}

#[tokio::test]
async fn who_is_known_may_brake_while_the_state_file_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let world = world_on(Config::default(), Records::open(&state).unwrap());
    let cookie = world.owner().await;
    let token = world.token(Role::Analyst).await;
    drop(world);
    // No side file can be made where a link stands in its place.
    let side = folder.path().join("state.db-shm");
    let _ = std::fs::remove_file(&side);
    std::os::unix::fs::symlink("/nowhere/at/all", &side).unwrap();
    let opened = weir_store::Opened::at(&state, weir_model::Millis(START)).unwrap();
    let why = opened.stands_in.expect("the file cannot be opened");
    assert_eq!(opened.set_aside, Vec::<String>::new());
    let world = world_standing_in(&state, opened.store, why);
    let done = post(&world, &cookie, "/api/v1/mitigations/withdraw-all", None).await;
    assert_eq!((done.status, &done.json()["recorded"]), (StatusCode::OK, &json!(false)));
    let withdraw = ask("POST", "/api/v1/mitigations/7/withdraw").token(&token);
    assert_eq!(withdraw.send(&world).await.status, StatusCode::OK);
    assert_eq!(world.asked.lock().unwrap().len(), 2);
    let user = json!({"name": "bob", "password": PASSWORD, "role": "admin"});
    let refused = post(&world, &cookie, "/api/v1/users", Some(user.clone())).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text);
    std::fs::remove_file(&side).unwrap();
    let made = post(&world, &cookie, "/api/v1/users", Some(user)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let hold = post(&world, &cookie, "/api/v1/incidents/2/hold", Some(json!({"on": true}))).await;
    assert_eq!(hold.json()["recorded"], true);
    let store = Store::open(&state).unwrap();
    let kept = store.audit_page(None, 100).unwrap();
    let of = |action: &str| kept.iter().filter(|row| row.entry.action == action).count();
    assert_eq!(
        (of("mitigation.withdraw-all"), of("mitigation.withdraw"), of("incident.hold")),
        (1, 1, 1)
    );
}

fn world_standing_in(state: &Path, store: Store, why: String) -> World {
    common::world_again(Config::default(), Records::standing_in(state, store, why))
}

#[tokio::test]
async fn a_withdrawal_that_is_repeated_under_its_key_acts_once_without_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let world = world_on(Config::default(), Records::open(&state).unwrap());
    let cookie = world.owner().await;
    let _lock = Lock::of(&state);
    for _ in 0..2 {
        let path = "/api/v1/mitigations/7/withdraw";
        let done = ask("POST", path).cookie(&cookie).header("idempotency-key", "k").send(&world);
        let done = done.await;
        assert_eq!((done.status, &done.json()["mitigation"]), (StatusCode::OK, &json!(7)));
    }
    assert_eq!(world.asked.lock().unwrap().len(), 1);
    let other = ask("POST", "/api/v1/mitigations/8/withdraw").cookie(&cookie);
    let other = other.header("idempotency-key", "k").send(&world).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn the_file_decides_about_the_mode_again_when_told_so() {
    let world = common::world();
    let admin = world.token(Role::Admin).await;
    let analyst = world.token(Role::Analyst).await;
    let refused = ask("DELETE", "/api/v1/mode").token(&analyst).send(&world).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let done = ask("DELETE", "/api/v1/mode").token(&admin).send(&world).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    let asked = world.asked.lock().unwrap();
    assert!(matches!(asked[0], weir_model::Command::FollowFile { .. }), "{asked:?}");
}
