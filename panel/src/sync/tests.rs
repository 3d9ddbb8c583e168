use super::*;
use crate::listing::Listing;

const SERVERS: &str =
    include_str!("../../tests/fixtures/pterodactyl/servers_include_allocations.page1.json");

fn sync() -> Sync {
    let config = PanelConfig::new("main", "https://panel.example.net", "ptla_0123456789abcdef");
    Sync::new(&config, "ptla_0123456789abcdef", 1)
}

fn get(actions: &[Action]) -> (u64, String) {
    let found = actions.iter().find_map(|a| match a {
        Action::Get { request, path } => Some((*request, path.clone())),
        _ => None,
    });
    found.unwrap()
}

fn start(sync: &mut Sync, last_good: Option<Arc<Listing>>) -> (u64, String) {
    sync.step(Event::Start(last_good), Millis(0));
    get(&sync.step(Event::Wake, Millis(2_000)))
}

#[test]
fn the_last_good_listing_is_in_force_before_the_panel_answers() {
    let listing = Arc::new(Listing {
        flavour: Flavour::Pelican,
        taken: Millis(5),
        nodes: vec![],
        eggs: vec![],
        servers: vec![],
        users: vec![],
    });
    let mut sync = sync();
    let actions = sync.step(Event::Start(Some(Arc::clone(&listing))), Millis(10));
    assert!(actions.contains(&Action::Apply(listing)));
}

#[test]
fn an_answer_nobody_waits_for_is_ignored() {
    let mut sync = sync();
    let (request, path) = start(&mut sync, None);
    assert!(path.contains("sort=id") && path.contains("include=allocations&"), "{path}");
    let reply = Reply { status: 401, ..Reply::default() };
    assert_eq!(
        sync.step(Event::Reply { request: request + 1, reply: reply.clone() }, Millis(3_000)),
        []
    );
    let actions = sync.step(Event::Reply { request, reply: reply.clone() }, Millis(3_000));
    assert!(matches!(actions[..], [Action::WakeAt(_)]));
    assert_eq!(sync.status().connection, Connection::Refused);
    assert_eq!(sync.step(Event::Reply { request, reply }, Millis(3_000)), []);
}

#[test]
fn a_total_that_changes_on_the_way_begins_the_list_anew() {
    let mut sync = sync();
    let (request, _) = start(&mut sync, None);
    let reply =
        |body: &str| Reply { status: 200, body: body.as_bytes().to_vec(), ..Reply::default() };
    let actions = sync.step(Event::Reply { request, reply: reply(SERVERS) }, Millis(2_100));
    let (request, path) = get(&actions);
    assert!(path.ends_with("page=2"), "{path}");
    let other = SERVERS.replace("\"total\": 6", "\"total\": 7");
    let actions = sync.step(Event::Reply { request, reply: reply(&other) }, Millis(2_200));
    assert!(get(&actions).1.ends_with("page=1"));
    assert_eq!(sync.status().restarts, 1);
}

#[test]
fn another_programs_use_of_the_limit_is_left_to_it() {
    let mut sync = sync();
    let (request, _) = start(&mut sync, None);
    let reply = Reply {
        status: 200,
        rate_limit: Some(240),
        rate_remaining: Some(3),
        body: SERVERS.as_bytes().to_vec(),
        ..Reply::default()
    };
    let actions = sync.step(Event::Reply { request, reply }, Millis(2_100));
    assert_eq!(actions, [Action::WakeAt(Millis(62_100))]);
}

#[test]
fn a_failing_panel_is_asked_less_and_less_often() {
    let mut sync = sync();
    let mut now = Millis(0);
    let mut pauses = Vec::new();
    let mut actions = sync.step(Event::Start(None), now);
    for _ in 0..8 {
        let Some(Action::WakeAt(at)) = actions.last() else { panic!("{actions:?}") };
        pauses.push(at.since(now) / 1000);
        now = *at;
        let (request, _) = get(&sync.step(Event::Wake, now));
        actions = sync.step(Event::NoReply { request, failure: Failure::Timeout }, now);
    }
    assert!(pauses[1] >= 54 && pauses[1] <= 60, "{pauses:?}");
    assert!(pauses.iter().all(|p| *p <= 900), "{pauses:?}");
    assert!(pauses[7] > 800, "{pauses:?}");
    assert!(sync.page_size == 25, "smaller pages were tried");
}

#[test]
fn one_slow_spell_does_not_leave_a_large_panel_with_small_pages() {
    let mut sync = sync();
    sync.page_size = 25;
    let mut list: serde_json::Value = serde_json::from_str(SERVERS).unwrap();
    list["meta"]["pagination"]["total"] = 5000.into();
    list["meta"]["pagination"]["total_pages"] = 200.into();
    let body = serde_json::to_vec(&list).unwrap();
    let (mut request, mut path) = start(&mut sync, None);
    let mut now = Millis(3000);
    let mut asked = Vec::new();
    for _ in 0..20 {
        let number = |name: &str| -> u32 {
            let (_, rest) = path.split_once(&format!("{name}=")).unwrap();
            rest.split('&').next().unwrap().parse().unwrap()
        };
        asked.push((number("per_page"), number("&page")));
        let reply = Reply { status: 200, body: body.clone(), ..Reply::default() };
        let mut actions = sync.step(Event::Reply { request, reply }, now);
        while !actions.iter().any(|a| matches!(a, Action::Get { .. })) {
            let Some(Action::WakeAt(at)) = actions.last() else { panic!("{actions:?}") };
            now = *at;
            actions = sync.step(Event::Wake, now);
        }
        (request, path) = get(&actions);
    }
    // Each page begins where the one before it ended, whatever its size.
    let begins: Vec<u32> = asked.iter().map(|(size, page)| size * (page - 1)).collect();
    let ends: Vec<u32> = asked.iter().map(|(size, page)| size * page).collect();
    assert_eq!(begins[1..], ends[..19], "{asked:?}");
    assert_eq!(asked[0].0, 25);
    assert_eq!(asked[19].0, 100, "{asked:?}");
    // The next slow answer halves them again.
    sync.step(Event::NoReply { request, failure: Failure::Timeout }, now);
    assert_eq!(sync.page_size, 50);
}
