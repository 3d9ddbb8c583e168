use std::net::IpAddr;

use weir_model::Millis;

use super::*;
use crate::listing::{Flavour, ServerState};
use weir_model::Secret;

const NOW: Millis = Millis::from_secs(1_795_168_965);

fn server(id: u64, owner: u64, subusers: &[u64]) -> ServerView {
    ServerView {
        id,
        uuid: format!("{id:08x}-0000-4000-8000-000000000000"),
        name: format!("server {id}"),
        state: ServerState::Normal,
        node: 1,
        owner,
        customer: None,
        subusers: subusers.to_vec(),
        game: "Rust".into(),
        family: None,
        game_why: String::new(),
    }
}

fn snapshot(panel: &str) -> PanelSnapshot {
    PanelSnapshot {
        panel: panel.into(),
        flavour: Flavour::Pelican,
        taken: NOW,
        nodes: vec![],
        servers: vec![
            server(1, 11, &[]),
            server(2, 12, &[11]),
            server(3, 12, &[]),
            server(4, 0, &[]),
        ],
        allocations: vec![],
        services: vec![],
        quiet: vec![],
        conflicts: 0,
        groups: vec![],
    }
}

fn address() -> IpAddr {
    "198.51.100.7".parse().unwrap()
}

#[test]
fn an_owner_sees_his_servers_and_no_others() {
    let grant = Grant::Customer { panel: "main".into(), user: 11 };
    let main = snapshot("main");
    let seen: Vec<u64> = grant.servers(&main).map(|s| s.id).collect();
    assert_eq!(seen, [1, 2], "his own and the shared one");
    assert!(grant.server(&main, "00000001").is_some());
    assert!(grant.server(&main, "00000003").is_none(), "another's looks like none");
    assert!(grant.server(&main, "99999999").is_none());
    assert_eq!(grant.servers(&snapshot("other")).count(), 0, "numbers repeat between panels");
    let nobody = Grant::Customer { panel: "main".into(), user: 0 };
    assert_eq!(nobody.servers(&main).count(), 0, "an unknown owner is not customer 0");
}

#[test]
fn a_server_that_was_taken_away_is_gone_at_once() {
    let grant = Grant::Customer { panel: "main".into(), user: 11 };
    let mut main = snapshot("main");
    main.servers[0].owner = 12;
    main.servers[1].subusers.clear();
    assert_eq!(grant.servers(&main).count(), 0);
}

#[test]
fn a_link_works_once_and_for_a_quarter_of_an_hour() {
    let mut links = Links::default();
    let mail = links.link("main", 11, " owner@example.org ", [1; 32], NOW);
    assert_eq!(mail.to, "owner@example.org");
    let session = links.open(mail.token.reveal(), [2; 32], NOW + 899_999).unwrap();
    assert_eq!(links.open(mail.token.reveal(), [3; 32], NOW + 1), None, "only once");
    let grant = links.grant(session.reveal(), NOW + 900_000).unwrap();
    assert_eq!(grant, Grant::Customer { panel: "main".into(), user: 11 });
    assert_eq!(links.grant(session.reveal(), NOW + 900_000 + SESSION_MS), None);
    links.close(session.reveal());
    assert_eq!(links.grant(session.reveal(), NOW + 900_000), None);
    let late = links.link("main", 11, "owner@example.org", [4; 32], NOW);
    assert_eq!(links.open(late.token.reveal(), [5; 32], NOW + 900_000), None, "too late");
    assert!(!format!("{links:?} {late:?}").contains(late.token.reveal()), "hashes only");
}

#[test]
fn links_are_limited_by_network_and_by_address() {
    let mut links = Links::default();
    for _ in 0..3 {
        assert!(links.may_ask(address(), "a@example.org", NOW));
    }
    assert!(!links.may_ask(address(), "A@example.org ", NOW), "three an hour for one address");
    assert!(links.may_ask(address(), "b@example.org", NOW));
    for i in 0..30 {
        let _ = links.may_ask(address(), &format!("{i}@example.org"), NOW);
    }
    assert!(!links.may_ask(address(), "new@example.org", NOW), "twenty an hour for a network");
    assert!(links.may_ask("2001:db8::1".parse().unwrap(), "new@example.org", NOW));
    assert!(links.may_ask(address(), "a@example.org", NOW + 3_600_000));
}

#[test]
fn a_shared_link_opens_one_server_until_it_is_revoked() {
    let mut links = Links::default();
    let main = snapshot("main");
    let uuid = main.servers[2].uuid.clone();
    let share = Share { panel: "main".into(), server: uuid.clone(), made: NOW, by: "staff".into() };
    let token = links.share(share, [7; 32]);
    let grant = links.grant(token.reveal(), NOW).unwrap();
    assert_eq!(grant.servers(&main).map(|s| s.id).collect::<Vec<_>>(), [3]);
    let kept = serde_json::to_string(links.shares()).unwrap();
    assert!(!kept.contains(token.reveal()));
    let mut restored = Links::restore(serde_json::from_str(&kept).unwrap());
    assert!(restored.grant(token.reveal(), NOW).is_some());
    assert_eq!(restored.revoke("main", &uuid), 1);
    assert_eq!(restored.grant(token.reveal(), NOW), None);
}

#[test]
fn an_embed_is_believed_only_as_signed_and_only_now() {
    let key = Secret::new("an embed key of some length");
    let check = |token: &str| embed::verify(token, "main", &key, NOW);
    let good = embed::sign("main", "uuid", 11, NOW.secs() + 300, &key);
    assert_eq!(check(&good), Ok(Grant::Server { panel: "main".into(), server: "uuid".into() }));
    let late = embed::sign("main", "uuid", 11, NOW.secs(), &key);
    assert_eq!(check(&late), Err(embed::Refused::Expired));
    let long = embed::sign("main", "uuid", 11, NOW.secs() + 3600, &key);
    assert_eq!(check(&long), Err(embed::Refused::Expired));
    let other = embed::sign("other", "uuid", 11, NOW.secs() + 60, &key);
    assert_eq!(check(&other), Err(embed::Refused::Panel));
    let forged = embed::sign("main", "uuid", 11, NOW.secs() + 60, &Secret::new("another key"));
    assert_eq!(check(&forged), Err(embed::Refused::Signature));
    let (payload, signature) = good.split_once('.').unwrap();
    assert_eq!(check(&format!("{payload}00.{signature}")), Err(embed::Refused::Signature));
    assert_eq!(check(&format!("{payload}.")), Err(embed::Refused::Signature));
    for text in ["", ".", "x", "zz.zz", &"a".repeat(5000)] {
        assert!(check(text).is_err(), "{text}");
    }
}

#[test]
fn a_hook_needs_the_whole_token() {
    let token = Secret::new("0123456789abcdefghij");
    let check = |header: Option<&str>, token| hook::authorized(header, token);
    assert!(check(Some("Bearer 0123456789abcdefghij"), Some(&token)));
    assert!(!check(Some("Bearer 0123456789abcdefghi"), Some(&token)));
    assert!(!check(Some("0123456789abcdefghij"), Some(&token)));
    assert!(!check(None, Some(&token)));
    assert!(!check(Some("Bearer "), None), "no token set: no hook is taken");
    assert!(!check(None, None));
}

struct Site {
    portal: Portal,
    world: World,
    chance: u8,
}

impl Site {
    fn new() -> Self {
        let door = Door {
            panel: "main".into(),
            url: "https://panel.example.net/sub".into(),
            hook_token: Some(Secret::new("0123456789abcdefghij")),
            embed_key: Some(Secret::new("an embed key of some length")),
        };
        let world = World { panels: vec![snapshot("main").into()], incidents: vec![] };
        let portal = Portal::new(vec![door], "https://shield.example.net/", Links::default());
        Self { portal, world, chance: 0 }
    }

    fn ask<'a>(
        &mut self,
        method: &'a str,
        target: &'a str,
        change: impl FnOnce(&mut Ask<'a>),
    ) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.chance += 1;
        let mut ask = Ask {
            method,
            path,
            query,
            cookie: None,
            authorization: None,
            origin: None,
            from: address(),
            body: b"",
            now: NOW,
            random: [self.chance; 32],
        };
        change(&mut ask);
        self.portal.answer(&ask, &self.world)
    }

    /// A session of this customer, as a cookie.
    fn log_in(&mut self, user: u64) -> String {
        let mail = self.portal.links().link("main", user, "a@example.org", [200; 32], NOW);
        let answer = self.ask("POST", &format!("/login/{}", mail.token.reveal()), |_| {});
        assert_eq!(answer.status, 303);
        let (_, cookie) = answer.headers.iter().find(|(n, _)| *n == "set-cookie").unwrap();
        assert!(cookie.contains("Secure; HttpOnly"));
        cookie.split(';').next().unwrap().to_owned()
    }
}

#[test]
fn owner_a_gets_404_for_the_server_of_owner_b_in_every_route() {
    let mut site = Site::new();
    let a = site.log_in(11);
    let theirs = site.world.panels[0].servers[2].uuid.clone();
    let own = site.world.panels[0].servers[0].uuid.clone();
    let nowhere = site.ask("GET", "/no/such/path", |_| {});
    for route in ["/servers/", "/api/servers/"] {
        let cookies = format!("other=1; {a}");
        let path = format!("{route}{own}");
        let mine = site.ask("GET", &path, |ask| ask.cookie = Some(&cookies));
        assert_eq!(mine.status, 200, "{route}");
        for uuid in [theirs.as_str(), "00000003", "99999999", "..", "%2e"] {
            let answer = site.ask("GET", &format!("{route}{uuid}"), |_| {});
            assert_eq!(answer, nowhere, "{route}{uuid} without a session");
        }
        let path = format!("{route}{theirs}");
        let answer = site.ask("GET", &path, |ask| ask.cookie = Some(&a));
        assert_eq!(answer, nowhere, "{route}");
    }
    let list = site.ask("GET", "/api/servers", |ask| ask.cookie = Some(&a)).body;
    assert!(list.contains(&own) && !list.contains(&theirs));
    // A session is no shared link, and an embed for one server opens no other.
    let token = a.split_once('=').unwrap().1;
    assert_eq!(site.ask("GET", &format!("/share/{token}"), |_| {}).status, 404);
    let key = Secret::new("an embed key of some length");
    let embed = embed::sign("main", &theirs, 12, NOW.secs() + 60, &key);
    let framed = site.ask("GET", &format!("/embed/main?t={embed}"), |_| {});
    assert_eq!(framed.status, 200);
    assert!(
        framed
            .headers
            .iter()
            .any(|(_, v)| v.ends_with("frame-ancestors https://panel.example.net"))
    );
    assert_eq!(site.ask("GET", &format!("/embed/other?t={embed}"), |_| {}).status, 404);
    assert_eq!(site.ask("GET", &format!("/embed/main?t={embed}00"), |_| {}).status, 404);
    // Sold: gone with the next request.
    let mut sold = snapshot("main");
    sold.servers[0].owner = 12;
    site.world.panels = vec![sold.into()];
    let path = format!("/servers/{own}");
    let answer = site.ask("GET", &path, |ask| ask.cookie = Some(&a));
    assert_eq!(answer.status, 404);
}

#[test]
fn nobody_learns_which_addresses_are_known() {
    let mut site = Site::new();
    let mut ask = |body: &'static [u8]| site.ask("POST", "/login", |ask| ask.body = body);
    let known = ask(b"email=owner11%40example.org");
    assert_eq!(known.effect, Some(Effect::LookUp("owner11@example.org".into())));
    let nonsense = ask(b"email=nobody");
    assert_eq!(
        (known.status, &known.body, &known.headers),
        (nonsense.status, &nonsense.body, &nonsense.headers)
    );
    assert_eq!(nonsense.effect, None);
    assert_eq!(ask(b"email=a%40b%0d%0aBcc%3a+c%40d").effect, None, "no header is smuggled in");
    assert_eq!(ask(b"email=%zz").effect, None);
    ask(b"email=x%40y");
    ask(b"email=x%40y");
    ask(b"email=x%40y");
    assert_eq!(ask(b"email=x%40y").effect, None, "limited, with the same answer");
}

#[test]
fn mail_scanners_do_not_use_a_link_up() {
    let mut site = Site::new();
    let mail = site.portal.links().link("main", 11, "a@example.org", [9; 32], NOW);
    let path = format!("/login/{}", mail.token.reveal());
    for _ in 0..3 {
        assert_eq!(site.ask("GET", &path, |_| {}).status, 200);
    }
    assert_eq!(
        site.ask("POST", &path, |ask| ask.origin = Some("https://evil.example")).status,
        403
    );
    assert_eq!(
        site.ask("POST", &path, |ask| ask.origin = Some("https://shield.example.net")).status,
        303
    );
    assert_eq!(site.ask("POST", &path, |_| {}).status, 404);
}

#[test]
fn a_hook_only_brings_the_next_poll_closer() {
    let mut site = Site::new();
    let mut post = |panel: &str, token: &str, body: &[u8]| {
        let header = format!("Bearer {token}");
        let target = format!("/hooks/pelican/{panel}");
        site.ask("POST", &target, |ask| {
            ask.authorization = Some(&header);
            ask.body = body;
        })
    };
    let good = post("main", "0123456789abcdefghij", b"{}");
    assert_eq!((good.status, good.effect), (202, Some(Effect::Hint("main".into()))));
    let wrong = post("main", "x", b"{}");
    assert_eq!((wrong.status, &wrong.effect), (401, &None));
    assert_eq!(
        post("other", "0123456789abcdefghij", b"{}"),
        wrong,
        "an unknown panel looks the same"
    );
    assert_eq!(post("main", "0123456789abcdefghij", &vec![b'x'; 256 * 1024 + 1]).status, 413);
}

#[test]
fn what_a_customer_typed_is_escaped() {
    let mut site = Site::new();
    let mut named = snapshot("main");
    named.servers[0].name = "<script>alert(1)</script>\"'&".into();
    site.world.panels = vec![named.into()];
    let cookie = site.log_in(11);
    let uuid = site.world.panels[0].servers[0].uuid.clone();
    for path in ["/servers".to_owned(), format!("/servers/{uuid}")] {
        let body = site.ask("GET", &path, |ask| ask.cookie = Some(&cookie)).body;
        assert!(!body.contains("<script") && body.contains("&lt;script"), "{path}");
    }
}
