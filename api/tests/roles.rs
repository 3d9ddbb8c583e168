//! Every route against every role: the table of routes says what each asks for, and whoever asks gets
//! exactly that.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use axum::http::StatusCode;
use common::{ask, world};
use serde_json::json;
use weir_api::Permission;
use weir_model::Role;

/// A request that passes the extractors before it: names are filled in, bodies are empty objects.
fn path(template: &str) -> String {
    // Nobody is to remove the tokens that the test itself goes on to use.
    let id = if template.contains("/tokens/") { "99" } else { "2" };
    let prefix = template.replace("{address}", "203.0.113.0").replace("{length}", "24");
    prefix.replace("{host}", "203.0.113.7").replace("{name}", "exclusions").replace("{id}", id)
}

fn refused(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN
}

#[tokio::test]
async fn every_role_gets_what_it_may_and_nothing_else() {
    let world = world();
    world.owner().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((role, world.token(role).await));
    }
    let mut checked = 0;
    for endpoint in weir_api::endpoints() {
        if endpoint.path == "/api/v1/live" {
            // Answers for as long as it is listened to; tests of its own.
            continue;
        }
        for (role, secret) in &tokens {
            world.pass(10);
            let answer = ask(endpoint.method, &path(&endpoint.path))
                .token(secret)
                .json(&json!({}))
                .send(&world)
                .await;
            let may = match endpoint.requirement.permission {
                Some(permission) => permission.of_role(*role),
                None => true,
            };
            let what = format!(
                "{} {} as {role}: {} {}",
                endpoint.method, endpoint.path, answer.status, answer.text
            );
            assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
            if may {
                // What concerns one's own account needs a password besides a token.
                let own = endpoint.path.starts_with("/api/v1/me");
                assert!(!refused(answer.status) || own, "{what}");
            } else {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
            }
            checked += 1;
        }
    }
    assert!(checked > 200, "{checked}");
}

#[tokio::test]
async fn nobody_gets_anything_that_is_not_public() {
    let world = world();
    for endpoint in weir_api::endpoints() {
        world.pass(10);
        let answer =
            ask(endpoint.method, &path(&endpoint.path)).json(&json!({})).send(&world).await;
        let what = format!("{} {}: {}", endpoint.method, endpoint.path, answer.text);
        if endpoint.requirement.public {
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
        } else {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
    let public: Vec<String> = weir_api::endpoints()
        .into_iter()
        .filter(|endpoint| endpoint.requirement.public)
        .map(|endpoint| format!("{} {}", endpoint.method, endpoint.path))
        .collect();
    // Whoever adds a public route says so here.
    assert_eq!(
        public,
        [
            "GET /api/v1/setup",
            "POST /api/v1/setup",
            "POST /api/v1/login",
            "GET /status",
            "GET /status.json",
            "GET /",
            "GET /weir.svg",
            "GET /assets/{file}",
            "GET /healthz",
            "GET /readyz",
            "GET /api/v1/openapi.json",
        ]
    );
}

#[tokio::test]
async fn a_tenant_sees_its_own_and_nothing_else() {
    let world = world();
    let secret = world.token(Role::Tenant).await;
    let list = ask("GET", "/api/v1/incidents").token(&secret).send(&world).await.json();
    let ids: Vec<&str> =
        list["incidents"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["2"]);
    let status = |path: &'static str| {
        let secret = secret.clone();
        let world = &world;
        async move { ask("GET", path).token(&secret).send(world).await.status }
    };
    assert_eq!(status("/api/v1/incidents/2").await, StatusCode::OK);
    assert_eq!(status("/api/v1/incidents/1").await, StatusCode::NOT_FOUND);
    assert_eq!(status("/api/v1/hosts/198.51.100.1").await, StatusCode::NOT_FOUND);
    let wider = ask("GET", "/api/v1/incidents?target=0.0.0.0/0").token(&secret).send(&world).await;
    assert_eq!(wider.json()["incidents"].as_array().unwrap().len(), 1);
    let other = ask("GET", "/api/v1/incidents?target=198.51.100.0/24").token(&secret);
    assert_eq!(other.send(&world).await.json()["incidents"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn scopes_expiry_and_networks_narrow_a_token() {
    let world = world();
    let make = |body: serde_json::Value| {
        let world = &world;
        async move {
            let made = ask("POST", "/api/v1/tokens").local(true).json(&body).send(world).await;
            assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
            made.json()["secret"].as_str().unwrap().to_owned()
        }
    };
    let end = common::START + 60_000;
    let narrow = make(json!({"name": "n", "role": "admin", "scopes": ["incidents:read"],
        "networks": ["192.0.2.0/28"], "expires": end}))
    .await;
    let get = |path: &'static str, from: &'static str| {
        let (world, narrow) = (&world, narrow.clone());
        async move { ask("GET", path).token(&narrow).from(from).send(world).await.status }
    };
    assert_eq!(get("/api/v1/incidents", "192.0.2.9").await, StatusCode::OK);
    assert_eq!(get("/api/v1/users", "192.0.2.9").await, StatusCode::FORBIDDEN);
    assert_eq!(get("/api/v1/incidents", "192.0.2.99").await, StatusCode::UNAUTHORIZED);
    world.pass(61);
    assert_eq!(get("/api/v1/incidents", "192.0.2.9").await, StatusCode::UNAUTHORIZED);
    let body = json!({"name": "x", "role": "readonly", "scopes": ["accounts:write"]});
    let wide = ask("POST", "/api/v1/tokens").local(true).json(&body).send(&world).await;
    assert_eq!(wide.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn nobody_makes_more_of_themselves() {
    let world = world();
    world.owner().await;
    let admin = world.token(Role::Admin).await;
    let body = json!({"name": "x", "role": "owner"});
    let token = ask("POST", "/api/v1/tokens").token(&admin).json(&body).send(&world).await;
    assert_eq!(token.status, StatusCode::FORBIDDEN);
    let body = json!({"name": "x", "role": "owner", "password": common::PASSWORD});
    let user = ask("POST", "/api/v1/users").token(&admin).json(&body).send(&world).await;
    assert_eq!(user.status, StatusCode::FORBIDDEN);
    let change = ask("PATCH", "/api/v1/users/root").token(&admin).json(&json!({"disabled": true}));
    assert_eq!(change.send(&world).await.status, StatusCode::FORBIDDEN);
    let last = ask("DELETE", "/api/v1/users/root").local(true).send(&world).await;
    assert_eq!(last.status, StatusCode::CONFLICT, "the last owner stays");
    assert!(Permission::ManageAccounts.of_role(Role::Admin));
}
