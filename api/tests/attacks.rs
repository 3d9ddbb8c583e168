//! What someone hostile tries.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use axum::http::StatusCode;
use common::{PASSWORD, ask, world, world_with};
use serde_json::json;
use weir_api::Config;
use weir_model::Role;

#[tokio::test]
async fn the_first_account_needs_the_code_and_there_is_one_first_account() {
    let world = world();
    let body = json!({"code": "WRONG", "name": "eve", "password": PASSWORD});
    let wrong = ask("POST", "/api/v1/setup").json(&body).send(&world).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let cookie = world.owner().await;
    assert!(cookie.starts_with("__Host-weir="), "{cookie}");
    let me = ask("GET", "/api/v1/me").cookie(&cookie).send(&world).await.json();
    assert_eq!((me["name"].as_str(), me["role"].as_str()), (Some("root"), Some("owner")));
    let body = json!({"code": world.code, "name": "eve", "password": PASSWORD});
    let again = ask("POST", "/api/v1/setup").json(&body).send(&world).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_planted_session_is_worth_nothing() {
    let world = world();
    world.owner().await;
    let planted = "__Host-weir=".to_owned() + &"a".repeat(64);
    let body = json!({"name": "root", "password": PASSWORD});
    let login = ask("POST", "/api/v1/login").cookie(&planted).json(&body).send(&world).await;
    assert_eq!(login.status, StatusCode::OK);
    assert_ne!(login.cookie(), planted);
    let old = ask("GET", "/api/v1/me").cookie(&planted).send(&world).await;
    assert_eq!(old.status, StatusCode::UNAUTHORIZED);
    let set = login.headers["set-cookie"].to_str().unwrap();
    for flag in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(set.contains(flag), "{set}");
    }
    assert!(!set.contains("Domain"), "{set}");
}

#[tokio::test]
async fn another_site_cannot_act_through_a_browser() {
    let world = world();
    let cookie = world.owner().await;
    let hold =
        || ask("POST", "/api/v1/incidents/2/hold").cookie(&cookie).json(&json!({"on": true}));
    let refused = [
        hold().not_from_the_page(),
        hold().header("origin", "https://evil.example"),
        hold().header("origin", "null"),
        hold().header("sec-fetch-site", "cross-site"),
        hold().header("sec-fetch-site", "same-site"),
    ];
    for attempt in refused {
        assert_eq!(attempt.send(&world).await.status, StatusCode::FORBIDDEN);
    }
    assert!(world.asked.lock().unwrap().is_empty());
    let own =
        hold().header("origin", "https://weir.example").header("sec-fetch-site", "same-origin");
    assert_eq!(own.send(&world).await.status, StatusCode::OK);
    let login = ask("POST", "/api/v1/login").header("origin", "https://evil.example");
    let login = login.json(&json!({"name": "root", "password": PASSWORD})).send(&world).await;
    assert_eq!(login.status, StatusCode::FORBIDDEN, "signing in under a name of their choice");
    let read = ask("GET", "/api/v1/incidents").cookie(&cookie).not_from_the_page();
    let read = read.header("sec-fetch-site", "cross-site").send(&world).await;
    assert_eq!(read.status, StatusCode::OK, "links work");
    assert!(read.headers.get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_right_password_gets_in_afterwards() {
    let world = world();
    world.owner().await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(world.login("root", "wrong wrong wrong").await.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    let right = world.login("root", PASSWORD).await;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(right.headers.contains_key("retry-after"));
    world.pass(2);
    assert_eq!(world.login("root", PASSWORD).await.status, StatusCode::OK);
    let nobody = world.login("nobody", "wrong wrong wrong").await;
    let known = world.login("root", "wrong wrong wrong").await;
    assert_eq!(nobody.text, known.text, "names are not given away");
}

#[tokio::test]
async fn guessed_tokens_wait_too() {
    let world = world();
    let secret = world.token(Role::Readonly).await;
    for n in 0..5 {
        let guess = ask("GET", "/api/v1/me").token(&format!("weir_{n:064}")).send(&world).await;
        assert_eq!(guess.status, StatusCode::UNAUTHORIZED);
    }
    let more = ask("GET", "/api/v1/me").token(&format!("weir_{:064}", 5)).send(&world).await;
    assert_eq!(more.status, StatusCode::TOO_MANY_REQUESTS);
    // Whoever holds a right one is not locked out by a neighbour who guesses.
    let right = ask("GET", "/api/v1/me").token(&secret).send(&world).await;
    assert_eq!(right.status, StatusCode::OK);
}

#[tokio::test]
async fn sessions_end_when_idle_when_old_and_with_the_password() {
    let config = Config { session_idle_secs: 600, session_max_secs: 3600, ..Config::default() };
    let world = world_with(config);
    let cookie = world.owner().await;
    let status = |cookie: String| {
        let world = &world;
        async move { ask("GET", "/api/v1/me").cookie(&cookie).send(world).await.status }
    };
    for _ in 0..7 {
        world.pass(500);
        assert_eq!(status(cookie.clone()).await, StatusCode::OK);
    }
    world.pass(200);
    assert_eq!(status(cookie).await, StatusCode::UNAUTHORIZED, "older than an hour");
    let cookie = world.login("root", PASSWORD).await.cookie();
    world.pass(600);
    assert_eq!(status(cookie).await, StatusCode::UNAUTHORIZED, "idle");
    let (a, b) = (
        world.login("root", PASSWORD).await.cookie(),
        world.login("root", PASSWORD).await.cookie(),
    );
    let body = json!({"current": PASSWORD, "new": "another long password"});
    let change = ask("POST", "/api/v1/me/password").cookie(&a).json(&body).send(&world).await;
    assert_eq!(change.status, StatusCode::NO_CONTENT, "{}", change.text);
    assert_eq!(status(a.clone()).await, StatusCode::OK);
    assert_eq!(status(b).await, StatusCode::UNAUTHORIZED);
    let out = ask("POST", "/api/v1/logout").cookie(&a).send(&world).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(status(a).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn bodies_names_and_paths_are_bounded() {
    let world = world();
    let token = world.token(Role::Owner).await;
    let big = vec![b' '; weir_api::BODY_MAX + 1];
    let answer = ask("POST", "/api/v1/mitigations").token(&token).raw(big).send(&world).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    for path in [
        "/api/v1/settings/..%2f..%2fetc%2fpasswd",
        "/api/v1/settings/../../../etc/passwd",
        "/api/v1/users/..",
        "/api/v1/hosts/..%2f",
        "/api/v1/incidents/%00",
        "/api/v1/incidents/zzzzzzzzzzzzzzzzzzzzzz",
        "//etc/passwd",
    ] {
        let answer = ask("GET", path).token(&token).send(&world).await;
        let found = answer.status.as_u16();
        assert!([404, 405].contains(&found), "{path}: {found} {}", answer.text);
    }
    let long = format!("/api/v1/incidents?search={}", "x".repeat(200));
    assert_eq!(ask("GET", &long).token(&token).send(&world).await.status, StatusCode::BAD_REQUEST);
    let deep = "[".repeat(60_000).into_bytes();
    let answer = ask("PUT", "/api/v1/settings/ladder").token(&token).header("if-match", "\"0\"");
    let answer = answer.raw(deep).send(&world).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
}

#[tokio::test]
async fn one_client_in_a_loop_is_slowed_down() {
    let world = world();
    let mut refused = 0;
    for _ in 0..600 {
        let answer = ask("GET", "/healthz").send(&world).await;
        refused += usize::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(refused, 200);
    let other = ask("GET", "/healthz").from("192.0.2.200").send(&world).await;
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn plain_http_is_for_loopback_and_named_proxies() {
    let proxy = "192.0.2.1".parse().unwrap();
    let world = world_with(Config { trusted_proxies: vec![proxy], ..Config::default() });
    let stranger = ask("GET", "/healthz").plain().send(&world).await;
    assert_eq!(stranger.status, StatusCode::MISDIRECTED_REQUEST);
    let behind = ask("GET", "/healthz").plain().from("192.0.2.1").send(&world).await;
    assert_eq!(behind.status, StatusCode::OK);
    // The back-off is the client's, not the proxy's; what clients claim themselves does not count.
    for n in 0..6 {
        let claim = format!("10.0.0.{n}, 198.51.100.5");
        let guess = ask("GET", "/api/v1/me").plain().from("192.0.2.1");
        guess.header("x-forwarded-for", &claim).token("weir_x").send(&world).await;
    }
    let same = ask("GET", "/api/v1/me").plain().from("192.0.2.1").token("weir_x");
    let same = same.header("x-forwarded-for", "198.51.100.5").send(&world).await;
    assert_eq!(same.status, StatusCode::TOO_MANY_REQUESTS);
    let other = ask("GET", "/api/v1/me").plain().from("192.0.2.1").token("weir_x");
    let other = other.header("x-forwarded-for", "198.51.100.6").send(&world).await;
    assert_eq!(other.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_reader_on_loopback_is_let_in_only_when_configured_and_only_to_read() {
    let local =
        |method: &str, path: &str| ask(method, path).plain().from("127.0.0.1").not_from_the_page();
    let closed = world();
    let answer = local("GET", "/api/v1/incidents").send(&closed).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(local("GET", "/metrics").send(&closed).await.status, StatusCode::OK);
    assert_eq!(ask("GET", "/metrics").send(&closed).await.status, StatusCode::UNAUTHORIZED);

    let open = world_with(Config { loopback_readonly: true, ..Config::default() });
    // The Host header is weir.example here: a page that made its name resolve to 127.0.0.1.
    let rebound = local("GET", "/api/v1/incidents").send(&open).await;
    assert_eq!(rebound.status, StatusCode::UNAUTHORIZED);
    let here = |method: &str, path: &str| local(method, path).host("127.0.0.1:8080");
    let read = here("GET", "/api/v1/incidents").send(&open).await;
    assert_eq!(read.status, StatusCode::OK);
    let proxied = here("GET", "/api/v1/incidents").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(proxied.send(&open).await.status, StatusCode::UNAUTHORIZED);
    for (method, path) in [
        ("POST", "/api/v1/mitigations/1/approve"),
        ("GET", "/api/v1/audit"),
        ("GET", "/api/v1/users"),
        ("GET", "/api/v1/backup"),
        ("GET", "/api/v1/me/sessions"),
    ] {
        let answer = here(method, path).send(&open).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}

#[tokio::test]
async fn strangers_on_the_local_socket_are_turned_away() {
    let world = world();
    assert_eq!(ask("GET", "/api/v1/me").local(true).send(&world).await.status, StatusCode::OK);
    let stranger = ask("GET", "/api/v1/me").local(false).send(&world).await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let world = world();
    for path in ["/healthz", "/nowhere", "/api/v1/me"] {
        let answer = ask("GET", path).send(&world).await;
        let csp = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(csp.starts_with("default-src 'none'"), "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert!(answer.headers.contains_key("strict-transport-security"));
    }
}
