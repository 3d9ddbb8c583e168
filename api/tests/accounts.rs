//! Two people change one account at the same time: what others decide about it stands, whatever its owner was
//! about to change.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use axum::http::StatusCode;
use common::{PASSWORD, World, ask, world};
use serde_json::{Value, json};
use weir_model::Role;

const NEW: &str = "another horse battery";
const RESET: &str = "a third horse battery";

/// What others do to the account.
const BY_OTHERS: [(&str, &str); 6] = [
    ("PATCH", r#"{"disabled": true}"#),
    ("PATCH", r#"{"role": "readonly"}"#),
    ("PATCH", r#"{"disabled": true, "role": "readonly"}"#),
    ("PATCH", r#"{"password": "a third horse battery"}"#),
    ("PATCH", r#"{"totp": false}"#),
    ("DELETE", ""),
];

async fn others(world: &World, method: &str, body: &str) -> common::Answer {
    let ask = ask(method, "/api/v1/users/bob").local(true);
    match serde_json::from_str::<Value>(body) {
        Ok(body) => ask.json(&body).send(world).await,
        Err(_) => ask.send(world).await,
    }
}

#[tokio::test]
async fn what_others_decide_about_an_account_stands() {
    let own: [(&str, &str, Value); 2] = [
        ("POST", "/api/v1/me/password", json!({"current": PASSWORD, "new": NEW})),
        ("DELETE", "/api/v1/me/totp", json!({"password": PASSWORD})),
    ];
    for (own_method, path, own_body) in &own {
        for (method, body) in BY_OTHERS {
            let case = format!("{own_method} {path} while {method} {body}");
            let world = world();
            let bob = json!({"name": "bob", "password": PASSWORD, "role": "admin"});
            let made = ask("POST", "/api/v1/users").local(true).json(&bob).send(&world).await;
            assert_eq!(made.status, StatusCode::CREATED, "{case}");
            let cookie = world.login("bob", PASSWORD).await.cookie();
            // Bob's request is first, and is still hashing when the other is done.
            let asks = ask(own_method, path).cookie(&cookie).json(own_body).send(&world);
            let (asked, decided) = tokio::join!(asks, others(&world, method, body));
            assert!(decided.status.is_success(), "{case}: {}", decided.text);
            // What hashes a password itself may come second; everything else is decided first.
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND];
            let first = body.contains("password") && asked.status.is_success();
            let fits = first || refused.contains(&asked.status);
            assert!(fits, "{case}: {} {}", asked.status, asked.text);
            let users = ask("GET", "/api/v1/users").local(true).send(&world).await.json();
            let users = users["users"].as_array().unwrap();
            let bob = users.iter().find(|user| user["name"] == "bob");
            if method == "DELETE" {
                assert_eq!(bob, None, "{case}");
                continue;
            }
            let bob = bob.unwrap();
            assert_eq!(bob["disabled"], body.contains("disabled"), "{case}");
            let role = if body.contains("readonly") { Role::Readonly } else { Role::Admin };
            assert_eq!(bob["role"], json!(role), "{case}");
            let password = if body.contains("password") { RESET } else { PASSWORD };
            let expected = if body.contains("disabled") { 401 } else { 200 };
            assert_eq!(world.login("bob", password).await.status.as_u16(), expected, "{case}");
            assert_eq!(world.login("bob", NEW).await.status, StatusCode::UNAUTHORIZED, "{case}");
        }
    }
}

#[tokio::test]
async fn two_own_changes_at_the_same_time_leave_one_password() {
    let world = world();
    let cookie = world.owner().await;
    let change = |new: &'static str| {
        let body = json!({"current": PASSWORD, "new": new});
        ask("POST", "/api/v1/me/password").cookie(&cookie).json(&body).send(&world)
    };
    let (first, second) = tokio::join!(change(NEW), change(RESET));
    let done = [first.status, second.status];
    assert_eq!(done.iter().filter(|status| status.is_success()).count(), 1, "{done:?}");
    let in_force = if first.status.is_success() { NEW } else { RESET };
    assert_eq!(world.login("root", in_force).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_ends_with_the_account_that_made_it() {
    let world = world();
    let _ = world.owner().await;
    let bob = json!({"name": "bob", "password": PASSWORD, "role": "admin"});
    ask("POST", "/api/v1/users").local(true).json(&bob).send(&world).await;
    let cookie = world.login("bob", PASSWORD).await.cookie();
    let token = |role: &str| json!({"name": format!("ci-{role}"), "role": role});
    let make = ask("POST", "/api/v1/tokens").cookie(&cookie).json(&token("admin"));
    let made = make.send(&world).await.json();
    assert_eq!(made["token"]["created_by"], "bob");
    let admin = made["secret"].as_str().unwrap().to_owned();
    // One made with it is bob's as well.
    let make = ask("POST", "/api/v1/tokens").token(&admin).json(&token("readonly"));
    let made = make.send(&world).await.json();
    assert_eq!(made["token"]["created_by"], "bob");
    let readonly = made["secret"].as_str().unwrap().to_owned();
    let status = async |secret: &str| {
        ask("GET", "/api/v1/status").token(secret).send(&world).await.status.as_u16()
    };
    let change = async |body: Value| {
        let done = ask("PATCH", "/api/v1/users/bob").local(true).json(&body).send(&world).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    };
    assert_eq!((status(&admin).await, status(&readonly).await), (200, 200));
    change(json!({"role": "analyst"})).await;
    assert_eq!(
        (status(&admin).await, status(&readonly).await),
        (401, 200),
        "it outranks its maker"
    );
    change(json!({"disabled": true})).await;
    assert_eq!((status(&admin).await, status(&readonly).await), (401, 401));
    change(json!({"disabled": false, "role": "admin"})).await;
    assert_eq!((status(&admin).await, status(&readonly).await), (200, 200));
    ask("DELETE", "/api/v1/users/bob").local(true).send(&world).await;
    assert_eq!((status(&admin).await, status(&readonly).await), (401, 401));
}

#[tokio::test]
async fn strangers_do_not_keep_the_owner_out_from_where_he_signs_in() {
    let world = world();
    let _ = world.owner().await;
    let sign_in = async |from: &str, password: &str| {
        let body = json!({"name": "root", "password": password});
        let ask = ask("POST", "/api/v1/login").from(from).json(&body);
        ask.send(&world).await.status.as_u16()
    };
    assert_eq!(sign_in("2001:db8:1::7", PASSWORD).await, 200);
    for n in 0..8 {
        sign_in(&format!("198.51.100.{n}"), "wrong password").await;
    }
    assert_eq!(sign_in("198.51.100.99", PASSWORD).await, 429, "a stranger waits");
    assert_eq!(sign_in("2001:db8:1::8", PASSWORD).await, 200, "the same /64 is known");
}
