//! What each resource promises: pages, exports, repetition, versions, the audit log, the live stream.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use axum::http::StatusCode;
use common::{World, ask, incident, world, world_on};
use serde_json::{Value, json};
use weir_api::{Config, Records};
use weir_model::{
    BaselineChange, Command, Direction, Evidence, IncidentId, Measure, Metric, Millis, Mitigation,
    MitigationId, MitigationState, Originator, Role, Rung, Snapshot, Spared,
};

fn ids(list: &Value) -> Vec<String> {
    let list = list["incidents"].as_array().unwrap();
    list.iter().map(|incident| incident["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let world = world();
    let incidents = (1..=7).rev().map(|n| Arc::new(incident(n, "203.0.113.7/32"))).collect();
    world.snapshot.store(Arc::new(Snapshot { incidents, ..Snapshot::default() }));
    let token = world.token(Role::Readonly).await;
    let mut seen = Vec::new();
    let mut path = "/api/v1/incidents?limit=3".to_owned();
    for _ in 0..5 {
        let page = ask("GET", &path).token(&token).send(&world).await.json();
        seen.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/incidents?limit=3&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["7", "6", "5", "4", "3", "2", "1"]);
    let search = ask("GET", "/api/v1/incidents?search=FLOOD&family=udp-flood").token(&token);
    assert_eq!(ids(&search.send(&world).await.json()).len(), 7);
    let none = ask("GET", "/api/v1/incidents?search=nowhere").token(&token).send(&world).await;
    assert!(ids(&none.json()).is_empty());
}

#[tokio::test]
async fn the_file_is_read_again_and_a_broken_one_is_refused_with_its_place() {
    let world = world();
    let owner = world.token(Role::Owner).await;
    let reload = |body: Value| ask("POST", "/api/v1/reload").token(&owner).json(&body);
    let tried = reload(json!({"check": true})).send(&world).await;
    assert_eq!((tried.status, &tried.json()["check"]), (StatusCode::OK, &json!(true)));
    assert_eq!(reload(json!({})).send(&world).await.status, StatusCode::OK);
    *world.settings.broken.lock().unwrap() = true;
    let refused = reload(json!({})).send(&world).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("weir.toml:3:1"), "{}", refused.text);
    let analyst = world.token(Role::Analyst).await;
    let no = ask("POST", "/api/v1/reload").token(&analyst).json(&json!({})).send(&world).await;
    assert_eq!(no.status, StatusCode::FORBIDDEN);
    let list = ask("GET", "/api/v1/settings").token(&owner).send(&world).await.json();
    let hides = |name: &str| {
        let all = list["settings"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name).unwrap()["not_in_force"].clone()
    };
    assert_eq!((hides("prefixes"), hides("groups")), (json!(["198.51.100.0/24"]), json!([])));
    let audit = ask("GET", "/api/v1/audit").token(&owner).send(&world).await;
    assert_eq!(audit.text.matches("config.reload").count(), 2, "a check leaves no trace");
}

#[tokio::test]
async fn an_incident_comes_with_its_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let world = world_on(Config::default(), Records::open(&state).unwrap());
    let token = world.token(Role::Readonly).await;
    let page = || ask("GET", "/api/v1/incidents/2").token(&token).send(&world);
    assert_eq!(page().await.json()["evidence"], Value::Null);
    let evidence = Evidence { samples: 300, coverage: 0.99, ..Evidence::default() };
    let mut store = weir_store::Store::open(&state).unwrap();
    store.put_evidence(&[(IncidentId(2), evidence.clone())]).unwrap();
    assert_eq!(page().await.json()["evidence"], json!(evidence));
}

#[tokio::test]
async fn exports_are_files() {
    let world = world();
    let token = world.token(Role::Readonly).await;
    let csv = ask("GET", "/api/v1/incidents/export").token(&token).send(&world).await;
    assert_eq!(csv.status, StatusCode::OK, "{}", csv.text);
    assert!(csv.headers["content-disposition"].to_str().unwrap().contains("incidents.csv"));
    let lines: Vec<&str> = csv.text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("2,open,203.0.113.7/32,udp-flood,"), "{}", lines[1]);
    let all = ask("GET", "/api/v1/incidents/export?format=json").token(&token).send(&world).await;
    assert_eq!(all.json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_repeated_request_acts_once() {
    let world = world();
    let token = world.token(Role::Analyst).await;
    let approve = |id: u64, key: &'static str| {
        let (world, token) = (&world, token.clone());
        async move {
            let path = format!("/api/v1/mitigations/{id}/approve");
            ask("POST", &path).token(&token).header("idempotency-key", key).send(world).await
        }
    };
    let first = approve(7, "a").await;
    assert_eq!(first.json(), json!({"mitigation": 7, "recorded": true}));
    let again = approve(7, "a").await;
    assert_eq!((again.status, again.json()), (first.status, first.json()));
    assert_eq!(world.asked.lock().unwrap().len(), 1);
    assert_eq!(approve(8, "a").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(approve(8, "b").await.status, StatusCode::OK);
    assert_eq!(world.asked.lock().unwrap().len(), 2);
    // What the core refused may be tried again under the same key.
    for _ in 0..2 {
        let path = "/api/v1/mitigations/404/withdraw";
        let refused = ask("POST", path).token(&token).header("idempotency-key", "c");
        assert_eq!(refused.send(&world).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(world.asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn whoever_approves_is_a_person_also_behind_a_token() {
    let world = world();
    let cookie = world.owner().await;
    let wish = json!({"name": "ci", "role": "admin"});
    let made = ask("POST", "/api/v1/tokens").cookie(&cookie).json(&wish).send(&world).await;
    let token = made.json()["secret"].as_str().unwrap().to_owned();
    let hole = json!({"measure": {"blackhole": "203.0.113.9/32"}, "ttl_secs": 60});
    for path in ["/api/v1/mitigations", "/api/v1/mitigations/7/approve"] {
        for as_token in [false, true] {
            let asks = ask("POST", path).json(&hole);
            let asks = if as_token { asks.token(&token) } else { asks.cookie(&cookie) };
            let answer = asks.send(&world).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        }
    }
    let by = |command: &Command| match command {
        Command::Add { by, .. } | Command::Approve { by, .. } => by.clone(),
        other => panic!("{other:?}"),
    };
    let asked: Vec<String> = world.asked.lock().unwrap().iter().map(by).collect();
    assert_eq!(asked, ["root"; 4]);
    let audit = ask("GET", "/api/v1/audit").cookie(&cookie).send(&world).await;
    assert!(audit.text.contains("token:ci"), "what they used stands there: {}", audit.text);
}

#[tokio::test]
async fn a_mitigation_by_hand_is_changed() {
    let world = world();
    let token = world.token(Role::Admin).await;
    let patch = |body: Value| {
        let (world, token) = (&world, token.clone());
        async move {
            ask("PATCH", "/api/v1/mitigations/7").token(&token).json(&body).send(world).await.status
        }
    };
    for nothing in [json!({}), json!({"ttl_secs": 0}), json!({"expires": 5})] {
        assert!(patch(nothing.clone()).await.is_client_error(), "{nothing}");
    }
    assert!(world.asked.lock().unwrap().is_empty());
    assert_eq!(patch(json!({"ttl_secs": 60})).await, StatusCode::OK);
    assert_eq!(patch(json!({"measure": {"divert": "203.0.113.0/24"}})).await, StatusCode::OK);
    let asked = world.asked.lock().unwrap();
    let Command::Change { mitigation, measure: None, ttl_secs: Some(60), by } = &asked[0] else {
        panic!("{asked:?}");
    };
    assert_eq!((mitigation.0, by.as_str()), (7, "token:admin"));
    let Command::Change { measure: Some(measure), ttl_secs: None, .. } = &asked[1] else {
        panic!("{asked:?}");
    };
    assert_eq!(measure.to_string(), "divert 203.0.113.0/24");
}

#[tokio::test]
async fn commands_carry_the_name_of_who_asked_and_stand_in_the_audit_log() {
    let world = world();
    let token = world.token(Role::Admin).await;
    let hold = ask("POST", "/api/v1/incidents/2/hold").token(&token).json(&json!({"on": true}));
    assert_eq!(hold.send(&world).await.status, StatusCode::OK);
    let refused = ask("POST", "/api/v1/mitigations/404/withdraw").token(&token).send(&world).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    match &world.asked.lock().unwrap()[0] {
        Command::Hold { by, on: true, .. } => assert_eq!(by, "token:admin"),
        other => panic!("{other:?}"),
    }
    let log = ask("GET", "/api/v1/audit").token(&token).send(&world).await.json();
    let actions: Vec<&str> =
        log["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["mitigation.withdraw.refused", "mitigation.withdraw", "incident.hold", "token.create"]
    );
    let verdict = ask("GET", "/api/v1/audit/verify").token(&token).send(&world).await.json();
    assert_eq!((verdict["whole"].as_bool(), verdict["entries"].as_u64()), (Some(true), Some(4)));
    assert!(!log.to_string().contains("weir_"), "no secret is in the log");
}

#[tokio::test]
async fn a_setting_is_changed_by_whoever_read_its_last_version() {
    let world = world();
    let token = world.token(Role::Admin).await;
    let path = "/api/v1/settings/exclusions";
    let read = ask("GET", path).token(&token).send(&world).await;
    let tag = read.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, "\"0\"");
    let put = |tag: Option<String>| {
        let (world, token) = (&world, token.clone());
        async move {
            let ask = ask("PUT", path).token(&token).json(&json!([{"why": "scanner"}]));
            let ask = match &tag {
                Some(tag) => ask.header("if-match", tag),
                None => ask,
            };
            ask.send(world).await
        }
    };
    assert_eq!(put(None).await.status, StatusCode::PRECONDITION_REQUIRED);
    let changed = put(Some(tag.clone())).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    assert_eq!(changed.headers["etag"], "\"1\"");
    assert_eq!(put(Some(tag)).await.status, StatusCode::PRECONDITION_FAILED);
    let removed = ask("DELETE", path).token(&token).header("if-match", "\"1\"").send(&world).await;
    assert_eq!(removed.json()["value"], Value::Null);
}

/// Wakes whoever waits, instead of polling what was to be polled.
#[derive(Default)]
struct Woken(tokio::sync::Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Follows a change of a setting until it is written, and no further: what is left of it is still to run.
async fn until_written(world: &World, mut change: Pin<&mut impl Future>) {
    let (open, gate) = std::sync::mpsc::channel();
    *world.settings.gate.lock().unwrap() = Some(gate);
    let mut open = Some(open);
    while open.is_some() {
        // Each step is woken by itself: a late call of the one before says nothing of this one.
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let step = change.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(step.is_pending(), "it cannot be written before the gate is open");
        if world.settings.gate.lock().unwrap().is_none() {
            open = None;
        }
        woken.0.notified().await;
    }
}

/// With a single thread that may block.
fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(1).enable_all().build().unwrap().block_on(test);
}

#[test]
fn of_two_changes_of_a_setting_the_one_written_last_is_in_force() {
    run(async {
        let (first, second) = (json!([{"name": "first"}]), json!([{"name": "second"}]));
        let world = world();
        let token = world.token(Role::Admin).await;
        let put = |tag: &str, value: &Value| {
            let ask = ask("PUT", "/api/v1/settings/groups").token(&token).header("if-match", tag);
            ask.json(value).send(&world)
        };
        let mut slow = Box::pin(put("\"0\"", &first));
        until_written(&world, slow.as_mut()).await;
        assert_eq!(put("\"1\"", &second).await.status, StatusCode::OK);
        assert_eq!(slow.await.status, StatusCode::OK);
        assert_eq!(*world.settings.applied.lock().unwrap(), [Some(first), Some(second)]);
    });
}

#[test]
fn a_setting_that_is_written_is_in_force_though_whoever_changed_it_has_gone() {
    run(async {
        let value = json!([{"name": "acme"}]);
        let world = world();
        let token = world.token(Role::Admin).await;
        let put = ask("PUT", "/api/v1/settings/groups").token(&token).header("if-match", "\"0\"");
        let mut gone = Box::pin(put.json(&value).send(&world));
        until_written(&world, gone.as_mut()).await;
        drop(gone);
        assert_eq!(*world.settings.applied.lock().unwrap(), [Some(value)]);
    });
}

#[tokio::test]
async fn the_last_change_of_a_setting_is_undone_and_done_again() {
    let world = world();
    let token = world.token(Role::Admin).await;
    let path = "/api/v1/settings/groups";
    let send = |method: &'static str, path: String, version: u64, value: Value| {
        let (world, token) = (&world, token.clone());
        async move {
            let tag = format!("\"{version}\"");
            let ask = ask(method, &path).token(&token).header("if-match", &tag).json(&value);
            ask.send(world).await
        }
    };
    let undo = |version| send("POST", format!("{path}/undo"), version, Value::Null);
    assert_eq!(undo(0).await.status, StatusCode::CONFLICT, "nothing was changed");
    let acme = json!([{"name": "acme"}]);
    let first = send("PUT", path.into(), 0, acme.clone()).await.json();
    assert_eq!((&first["can_undo"], &first["before"]), (&json!(true), &Value::Null));
    let both = json!([{"name": "acme"}, {"name": "other"}]);
    send("PUT", path.into(), 1, both.clone()).await;
    assert_eq!(undo(1).await.status, StatusCode::PRECONDITION_FAILED, "somebody was faster");
    let undone = undo(2).await.json();
    assert_eq!(
        (&undone["value"], &undone["before"], &undone["version"]),
        (&acme, &both, &json!(3))
    );
    let again = undo(3).await.json();
    assert_eq!((&again["value"], &again["before"]), (&both, &acme));
    let log = ask("GET", "/api/v1/audit").token(&token).send(&world).await.json();
    let newest = &log["entries"][0];
    assert_eq!(newest["action"], "setting.undo");
    assert_eq!(newest["before"], acme.to_string());
    assert_eq!(newest["after"], both.to_string());
    // What is undone is checked like any other value, and what is probably not meant is said.
    let nine = json!(vec![0; 9]);
    let warned = send("PUT", path.into(), 4, nine).await.json();
    assert_eq!(warned["warnings"], json!(["nearly too long"]));
    let refused = send("PUT", path.into(), 5, json!(vec![0; 10])).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn exclusions_tell_what_they_have_kept_weir_from() {
    let world = world();
    let token = world.token(Role::Readonly).await;
    let spared = Spared { prefix: "203.0.113.9/32".parse().unwrap(), attacks: 3, last: Millis(5) };
    world.snapshot.store(Arc::new(Snapshot { spared: vec![spared], ..Snapshot::default() }));
    let list = ask("GET", "/api/v1/settings").token(&token).send(&world).await.json();
    let of = |name: &str| {
        let list = list["settings"].as_array().unwrap();
        list.iter().find(|s| s["name"] == name).unwrap()["spared"].clone()
    };
    let told = json!([{"prefix": "203.0.113.9/32", "attacks": 3, "last": 5}]);
    assert_eq!((of("exclusions"), of("prefixes")), (told, Value::Null));
}

#[tokio::test]
async fn a_peer_is_tested_by_name_and_that_is_audited() {
    let world = world();
    let token = world.token(Role::Admin).await;
    let found = ask("POST", "/api/v1/peers/edge/test").token(&token).send(&world).await;
    assert_eq!(found.status, StatusCode::OK, "{}", found.text);
    assert_eq!(
        (&found.json()["stage"], &found.json()["good"]),
        (&json!("accepted"), &json!(false))
    );
    let nobody = ask("POST", "/api/v1/peers/nobody/test").token(&token).send(&world).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let analyst = world.token(Role::Analyst).await;
    let refused = ask("POST", "/api/v1/peers/edge/test").token(&analyst).send(&world).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let log = ask("GET", "/api/v1/audit").token(&token).send(&world).await.json();
    let tests = log["entries"].as_array().unwrap().iter().filter(|e| e["action"] == "peer.test");
    assert_eq!(tests.count(), 2, "{log}");
}

#[tokio::test]
async fn a_prefixes_series_is_for_whoever_may_see_all_of_it() {
    let world = world();
    let status = |token: String, path: &'static str| {
        let world = &world;
        async move { ask("GET", path).token(&token).send(world).await.status }
    };
    let (tenant, reader) = (world.token(Role::Tenant).await, world.token(Role::Readonly).await);
    // Nobody answers here: what is let through ends there.
    let through = StatusCode::NOT_IMPLEMENTED;
    assert_eq!(status(tenant.clone(), "/api/v1/prefixes/203.0.113.0/24/series").await, through);
    let other = "/api/v1/prefixes/198.51.100.0/24/series";
    assert_eq!(status(tenant, other).await, StatusCode::NOT_FOUND);
    assert_eq!(status(reader.clone(), other).await, through);
    assert_eq!(status(reader.clone(), "/api/v1/prefixes/2001:db8::/48/series").await, through);
    for wrong in [
        "/api/v1/prefixes/203.0.113.0/25/series",
        "/api/v1/prefixes/203.0.113.1/24/series",
        "/api/v1/prefixes/2001:db8::/24/series",
        "/api/v1/prefixes/203.0.113.0/200/series",
    ] {
        assert_eq!(status(reader.clone(), wrong).await, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let word = status(reader, "/api/v1/prefixes/word/24/series").await;
    assert_eq!(word, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn notes_and_false_alarms_stay_with_their_incident() {
    let world = world();
    let token = world.token(Role::Analyst).await;
    let note =
        ask("POST", "/api/v1/incidents/2/notes").token(&token).json(&json!({"text": " hi "}));
    assert_eq!(note.send(&world).await.status, StatusCode::OK);
    let body = json!({"kind": "false-positive", "comment": "a backup"});
    let said = ask("PUT", "/api/v1/incidents/2/feedback").token(&token).json(&body);
    let said = said.send(&world).await.json();
    assert_eq!(said["exclusion"]["packets"][0]["dst"], "203.0.113.7/32");
    let page = ask("GET", "/api/v1/incidents/2").token(&token).send(&world).await.json();
    assert_eq!(page["notes"][0]["text"], "hi");
    assert_eq!(page["feedback"]["kind"], "false-positive");
    assert_eq!(page["verdict"]["family"], "udp-flood");
    let tenant = world.token(Role::Tenant).await;
    let page = ask("GET", "/api/v1/incidents/2").token(&tenant).send(&world).await.json();
    assert_eq!(page["notes"].as_array().unwrap().len(), 0, "not for customers");
    let absent =
        ask("POST", "/api/v1/incidents/99/notes").token(&token).json(&json!({"text": "x"}));
    assert_eq!(absent.send(&world).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_backup_is_a_tar_for_owners_alone() {
    let world = world();
    let admin = world.token(Role::Admin).await;
    let refused = ask("GET", "/api/v1/backup").token(&admin).send(&world).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let owner = world.token(Role::Owner).await;
    let backup = ask("GET", "/api/v1/backup").token(&owner).send(&world).await;
    assert_eq!(backup.status, StatusCode::OK, "{}", backup.text);
    assert!(backup.text.starts_with("manifest.json"));
    assert!(backup.text.contains("SQLite format 3"));
}

#[tokio::test]
async fn the_status_page_is_off_until_wanted_and_hides_addresses() {
    let world = world();
    assert_eq!(ask("GET", "/status").send(&world).await.status, StatusCode::NOT_FOUND);
    let mut config = Config::default();
    config.status_page.enabled = true;
    config.status_page.title = "<b>".to_owned();
    let world = common::world_with(config.clone());
    let page = ask("GET", "/status").send(&world).await;
    assert!(page.text.contains("An attack goes on") && page.text.contains("&lt;b&gt;"));
    let data = ask("GET", "/status.json").send(&world).await;
    assert!(!page.text.contains("203.0.113.7") && !data.text.contains("203.0.113.7"));
    assert_eq!(data.headers["cache-control"], "public, max-age=30");
    config.status_page.addresses = true;
    let open = common::world_with(config);
    assert!(ask("GET", "/status").send(&open).await.text.contains("203.0.113.7"));
}

#[tokio::test]
async fn what_is_filtered_is_told_from_the_ledger_alone() {
    let mut config = Config::default();
    config.status_page.enabled = true;
    let world = common::world_with(config);
    let token = world.token(Role::Readonly).await;
    let told = async |state: MitigationState, peers: &[&str], ended: bool| {
        let mut attack = incident(2, "203.0.113.7/32");
        // The step stands whether or not anything of it is announced: simulated, proposed, wanted.
        attack.rung = (!ended).then_some(Rung::Drop);
        attack.reached = (!peers.is_empty() || ended).then_some(Rung::Drop);
        attack.closed = ended.then_some(attack.opened);
        attack.mitigations = vec![Mitigation {
            id: MitigationId(1),
            originator: Originator::Incident(attack.id),
            measure: Measure::Blackhole(attack.verdict.target),
            rung: Rung::Drop,
            state,
            since: attack.opened,
            expires: attack.opened,
            ended: None,
            peers: peers.iter().map(|&p| p.to_owned()).collect(),
            note: String::new(),
            worth: 0,
        }];
        let incidents = vec![Arc::new(attack)];
        world.snapshot.store(Arc::new(Snapshot { incidents, ..Snapshot::default() }));
        let page = ask("GET", "/status").send(&world).await.text;
        let data = ask("GET", "/status.json").send(&world).await.json();
        let csv = ask("GET", "/api/v1/incidents/export").token(&token).send(&world).await.text;
        let filtered = page.contains("being filtered");
        assert_eq!(data["incidents"][0]["mitigated"], filtered);
        (filtered, csv.contains(",drop,"))
    };
    assert_eq!(told(MitigationState::Simulated, &[], false).await, (false, false));
    assert_eq!(told(MitigationState::Proposed, &[], false).await, (false, false));
    assert_eq!(told(MitigationState::Active, &[], false).await, (false, false));
    assert_eq!(told(MitigationState::Active, &["edge"], false).await, (true, true));
    assert_eq!(told(MitigationState::Withdrawn, &[], true).await, (false, true));
    // What a customer's server sends is nobody's business on this page.
    let mut outbound = incident(3, "203.0.113.7/32");
    outbound.verdict.direction = Direction::Outbound;
    let incidents = vec![Arc::new(outbound)];
    world.snapshot.store(Arc::new(Snapshot { incidents, ..Snapshot::default() }));
    let page = ask("GET", "/status").send(&world).await.text;
    assert!(page.contains("No attack at present"), "{page}");
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_a_code_counts_once() {
    let world = world();
    let cookie = world.owner().await;
    let again = json!({"password": common::PASSWORD});
    let begin = ask("POST", "/api/v1/me/totp").cookie(&cookie).json(&again).send(&world).await;
    let secret = begin.json()["secret"].as_str().unwrap().to_owned();
    let code = |world: &World| {
        let secret = totp_rs::Secret::try_from_base32(&secret).unwrap();
        let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
        let secs = Millis(world.clock.load(std::sync::atomic::Ordering::Relaxed)).secs();
        totp.generate(secs).to_string()
    };
    let proof = json!({"secret": secret, "code": code(&world), "password": common::PASSWORD});
    let on = ask("PUT", "/api/v1/me/totp").cookie(&cookie).json(&proof).send(&world).await;
    assert_eq!(on.status, StatusCode::NO_CONTENT, "{}", on.text);
    let without = world.login("root", common::PASSWORD).await;
    assert_eq!(without.status, StatusCode::FORBIDDEN);
    let login = |code: String| {
        let world = &world;
        async move {
            let body = json!({"name": "root", "password": common::PASSWORD, "totp": code});
            ask("POST", "/api/v1/login").json(&body).send(world).await.status
        }
    };
    assert_eq!(login(code(&world)).await, StatusCode::UNAUTHORIZED, "spent when it was set up");
    world.pass(30);
    let fresh = code(&world);
    assert_eq!(login(fresh.clone()).await, StatusCode::OK);
    assert_eq!(login(fresh).await, StatusCode::UNAUTHORIZED, "a code counts once");
}

#[tokio::test]
async fn a_panel_is_read_steered_and_shared() {
    let world = world();
    let (reads, writes) = (world.token(Role::Readonly).await, world.token(Role::Admin).await);
    let list = ask("GET", "/api/v1/panels").token(&reads).send(&world).await.json();
    assert_eq!(list["panels"][0]["held"], 3);
    let first = ask("GET", "/api/v1/panels/main/servers").token(&reads).send(&world).await.json();
    assert_eq!(first["servers"].as_array().unwrap().len(), 500);
    let path = format!("/api/v1/panels/main/servers?after={}", first["next"]);
    let second = ask("GET", &path).token(&reads).send(&world).await.json();
    assert_eq!((second["servers"].as_array().unwrap().len(), &second["next"]), (100, &Value::Null));
    let found = ask("GET", "/api/v1/panels/main/servers?search=Lobby%20599").token(&reads);
    assert_eq!(found.send(&world).await.json()["servers"].as_array().unwrap().len(), 1);
    let order = |panel: &str, token: &str, order: &str| {
        let request = ask("POST", &format!("/api/v1/panels/{panel}"));
        request.token(token).json(&json!({ "order": order }))
    };
    let status = order("main", &writes, "accept").send(&world).await.status;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(order("other", &writes, "sync").send(&world).await.status, StatusCode::NOT_FOUND);
    assert_eq!(order("main", &reads, "sync").send(&world).await.status, StatusCode::FORBIDDEN);
    let share = json!({"server": "00000000-0000-4000-8000-000000000001"});
    let made = ask("POST", "/api/v1/panels/main/shares").token(&writes).json(&share);
    let made = made.send(&world).await;
    assert_eq!((made.status, made.json()["url"].is_string()), (StatusCode::CREATED, true));
}

#[tokio::test]
async fn steps_go_to_the_core_and_a_dry_run_does_not() {
    let world = world();
    let token = world.token(Role::Analyst).await;
    for (path, command) in [
        ("skip", Command::Skip { incident: IncidentId(2), by: "analyst".into() }),
        ("step-down", Command::StepDown { incident: IncidentId(2), by: "analyst".into() }),
    ] {
        let path = format!("/api/v1/incidents/2/{path}");
        let done = ask("POST", &path).token(&token).send(&world).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
        let asked = world.asked.lock().unwrap().pop();
        match (&asked, &command) {
            (Some(Command::Skip { incident, .. }), Command::Skip { incident: wanted, .. })
            | (
                Some(Command::StepDown { incident, .. }),
                Command::StepDown { incident: wanted, .. },
            ) => {
                assert_eq!(incident, wanted);
            }
            other => panic!("{other:?}"),
        }
    }
    let measure = json!({"blackhole": "203.0.113.7/32"});
    let trial = json!({"add": {"measure": measure, "ttl_secs": 60}});
    let dry = ask("POST", "/api/v1/dry-run").token(&token).json(&trial).send(&world).await;
    assert_eq!(dry.status, StatusCode::OK, "{}", dry.text);
    assert_eq!(dry.json()["adds"], json!([measure]));
    let refused = ask("POST", "/api/v1/dry-run").token(&token).json(&json!({"skip": "2"}));
    assert_eq!(refused.send(&world).await.status, StatusCode::CONFLICT);
    let missing = ask("POST", "/api/v1/dry-run").token(&token).json(&json!({"withdraw": 7}));
    assert_eq!(missing.send(&world).await.status, StatusCode::NOT_FOUND);
    assert!(world.asked.lock().unwrap().is_empty(), "a dry run asks the core nothing");
}

#[tokio::test]
async fn webhooks_are_tested_by_name_and_their_log_is_shown() {
    let world = world();
    let owner = world.token(Role::Admin).await;
    let queued = ask("POST", "/api/v1/webhooks/ops/test").token(&owner).send(&world).await;
    assert_eq!(queued.json()["delivery"], 7, "{}", queued.text);
    let nobody = ask("POST", "/api/v1/webhooks/nobody/test").token(&owner).send(&world).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let log = ask("GET", "/api/v1/deliveries").token(&owner).send(&world).await;
    assert_eq!(log.json(), json!({"deliveries": [], "waiting": 0, "dropped": 0, "stuck": []}));
}

#[tokio::test]
async fn what_a_setting_hides_stays_when_it_is_left_out() {
    let world = world();
    let owner = world.token(Role::Admin).await;
    let put = |version: u64, value: Value| {
        let (world, owner) = (&world, owner.clone());
        async move {
            ask("PUT", "/api/v1/settings/channels")
                .token(&owner)
                .header("if-match", &format!("\"{version}\""))
                .json(&value)
                .send(world)
                .await
        }
    };
    let first = put(0, json!([{"secret": "hunter2"}])).await;
    assert_eq!((first.status, &first.json()["value"]), (StatusCode::OK, &json!(1)));
    let kept = put(1, json!([])).await;
    assert_eq!((&kept.json()["version"], &kept.json()["value"]), (&json!(2), &json!(1)));
    assert_eq!(kept.headers["etag"], "\"2\"");
    let list = ask("GET", "/api/v1/settings").token(&owner).send(&world).await;
    let audit = ask("GET", "/api/v1/audit").token(&owner).send(&world).await;
    for answer in [first, kept, list, audit] {
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_change_of_baselines_goes_to_the_core_under_the_name_of_who_asked() {
    let world = world();
    let (acts, reads) = (world.token(Role::Analyst).await, world.token(Role::Readonly).await);
    let change = |token: &str, body: Value| {
        ask("POST", "/api/v1/hosts/203.0.113.7/baseline").token(token).json(&body)
    };
    let threshold = |value: Value| {
        json!({"action": "threshold", "metric": "packets-per-sec", "direction": "outbound",
            "value": value})
    };
    let set = |value| BaselineChange::Threshold {
        metric: Metric::PacketsPerSec,
        direction: Direction::Outbound,
        value: NonZeroU64::new(value),
    };
    for (body, wanted) in [
        (json!({"action": "freeze"}), BaselineChange::Freeze),
        (json!({"action": "thaw"}), BaselineChange::Thaw),
        (json!({"action": "reset"}), BaselineChange::Reset),
        (threshold(json!(50_000)), set(50_000)),
        (threshold(Value::Null), set(0)),
    ] {
        let done = change(&acts, body).send(&world).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
        let host = "203.0.113.7".parse().unwrap();
        let wanted = Command::Baseline { host, change: wanted, by: "token:analyst".into() };
        assert_eq!(world.asked.lock().unwrap().pop(), Some(wanted));
    }
    let forgotten = json!({"action": "threshold", "metric": "packets-per-sec"});
    for body in [threshold(json!(0)), threshold(json!(-1)), threshold(json!("many")), forgotten] {
        let refused = change(&acts, body.clone()).send(&world).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {}", refused.text);
    }
    let looks = change(&reads, json!({"action": "freeze"})).send(&world).await;
    assert_eq!(looks.status, StatusCode::FORBIDDEN);
    assert!(world.asked.lock().unwrap().is_empty());
    let admin = world.token(Role::Admin).await;
    let log = ask("GET", "/api/v1/audit").token(&admin).send(&world).await.json();
    let entries = log["entries"].as_array().unwrap();
    let frozen = entries.iter().find(|entry| entry["action"] == "baseline.freeze").unwrap();
    assert_eq!(frozen["target"], "203.0.113.7");
}

#[tokio::test]
async fn channels_are_shown_tested_resent_and_muted_by_who_may() {
    let world = world();
    let (owner, analyst) = (world.token(Role::Admin).await, world.token(Role::Analyst).await);
    let post = |path: &str, token: &str, body: Value| {
        ask("POST", &format!("/api/v1/notify/{path}")).token(token).json(&body)
    };
    let list = ask("GET", "/api/v1/notify").token(&analyst).send(&world).await;
    assert_eq!(list.json(), json!({"channels": [], "dead": [], "mutes": []}));
    for (path, body) in [
        ("channels/ops/test", json!({})),
        ("dead/7/resend", json!({})),
        ("mute", json!({"channel": "ops", "secs": 60})),
    ] {
        let refused = post(path, &analyst, body.clone()).send(&world).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        let done = post(path, &owner, body).send(&world).await;
        assert_eq!(done.status, StatusCode::OK, "{path}: {}", done.text);
    }
    for (path, body) in [
        ("channels/nobody/test", json!({})),
        ("dead/8/resend", json!({})),
        ("mute", json!({"channel": "nobody", "secs": 60})),
    ] {
        let missing = post(path, &owner, body).send(&world).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{path}");
    }
    let long = post("mute", &owner, json!({"secs": 100_000_000})).send(&world).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
    let audit = ask("GET", "/api/v1/audit").token(&owner).send(&world).await;
    for action in ["notify.test", "notify.resend", "notify.mute"] {
        assert!(audit.text.contains(action), "{action}");
    }
}
