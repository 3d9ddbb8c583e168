//! The synchronisation against a panel over real HTTP, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

mod stub;

use std::sync::Arc;
use std::time::Duration;

use stub::{Fault, KEY, Stub, StubServer};
use weir_model::Secret;
use weir_model::{Millis, PrefixSet};
use weir_panel::client::{Client, Timeouts};
use weir_panel::config::PanelConfig;
use weir_panel::{
    Action, Connection, Event, Flavour, Games, Listing, Names, PanelSnapshot, ServerState, Sync,
};

struct Driven {
    stub: Stub,
    client: Client,
    config: PanelConfig,
    sync: Sync,
    now: Millis,
    wake: Millis,
}

impl Driven {
    fn new(pelican: bool) -> Self {
        Self::with(pelican, |_| {})
    }

    fn with(pelican: bool, change: impl FnOnce(&mut PanelConfig)) -> Self {
        let stub = Stub::start(pelican);
        let mut config = PanelConfig::new("main", &stub.url(), KEY);
        change(&mut config);
        let short =
            Timeouts { connect: Duration::from_secs(2), total: Duration::from_millis(1500) };
        let client = Client::new(&stub.url(), Secret::new(KEY), short);
        let sync = Sync::new(&config, KEY, 7);
        let now = Millis::from_secs(1_795_168_965);
        let mut driven = Self { stub, client, config, sync, now, wake: now };
        driven.event(Event::Start(None));
        driven
    }

    fn event(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.sync.step(event, self.now) {
                match action {
                    Action::WakeAt(at) => self.wake = at,
                    Action::Apply(_) => {}
                    Action::Get { request, path } => events.push(match self.client.get(&path) {
                        Ok(reply) => Event::Reply { request, reply },
                        Err(failure) => Event::NoReply { request, failure },
                    }),
                }
            }
        }
    }

    /// Lets this much time pass.
    fn pass(&mut self, secs: u64) {
        let until = self.now + secs * 1000;
        while self.wake <= until {
            self.now = self.wake.max(self.now);
            self.wake = Millis(u64::MAX);
            self.event(Event::Wake);
        }
        self.now = until;
    }

    /// Lets one poll pass: no longer than a minute.
    fn poll(&mut self) {
        self.pass(60);
    }

    fn listing(&self) -> Arc<Listing> {
        Arc::clone(self.sync.listing().unwrap())
    }

    fn snapshot(&self) -> PanelSnapshot {
        let protected: PrefixSet = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        let games = Games::default();
        PanelSnapshot::build(&self.listing(), &self.config, &games, &protected, &Names::default())
    }

    fn ports(&self) -> Vec<String> {
        let services = self.snapshot().services;
        let games = services.iter().filter(|s| s.game != "Panel daemon");
        games
            .map(|s| format!("{}:{}/{} {} {}", s.address, s.port, s.protocol, s.game, s.name))
            .collect()
    }

    fn alarms(&self) -> Vec<String> {
        self.sync.status().alarms(self.now, 60_000)
    }
}

#[test]
fn both_kinds_of_panel_are_told_apart_and_listed() {
    for pelican in [false, true] {
        let mut driven = Driven::new(pelican);
        driven.stub.world().servers = vec![
            StubServer::new(1, "lobby", 1, "203.0.113.10", 25565),
            StubServer::new(2, "EU Main", 14, "203.0.113.10", 28015),
        ];
        driven.poll();
        let expected = if pelican { Flavour::Pelican } else { Flavour::Pterodactyl };
        assert_eq!(driven.sync.status().flavour, Some(expected));
        assert_eq!(driven.sync.status().connection, Connection::Ok);
        assert_eq!(driven.alarms(), Vec::<String>::new());
        assert_eq!(
            driven.ports(),
            ["203.0.113.10:25565/6 Minecraft Java lobby", "203.0.113.10:28015/17 Rust EU Main",]
        );
        let kept = serde_json::to_string(&*driven.listing()).unwrap();
        assert!(!kept.contains("not-a-real-secret"));
    }
}

#[test]
fn create_delete_move_transfer_and_suspend_are_mapped_within_one_poll() {
    for pelican in [false, true] {
        let mut driven = Driven::new(pelican);
        driven.stub.world().servers = vec![StubServer::new(1, "a", 1, "203.0.113.10", 25565)];
        driven.poll();
        let created = StubServer::new(2, "b", 21, "203.0.113.11", 2456);
        driven.stub.world().servers.push(created);
        driven.poll();
        assert_eq!(driven.ports().len(), 2, "created");
        // A port is added and the primary one moves, by bulk updates that fire no event.
        driven.stub.world().servers[1].allocations = vec![
            (200, "203.0.113.12".into(), None, 2600),
            (201, "203.0.113.12".into(), None, 2601),
        ];
        driven.poll();
        assert_eq!(
            driven.ports()[1..],
            ["203.0.113.12:2600/17 Valheim b", "203.0.113.12:2601/17 Valheim b (query)"]
        );
        // While it moves, both nodes hold allocations; then the old ones go.
        driven.stub.world().servers[1].allocations.push((300, "203.0.113.20".into(), None, 2600));
        driven.poll();
        assert!(driven.ports().contains(&"203.0.113.20:2600/17 Valheim b".to_owned()));
        driven.stub.world().servers[1].node = 2;
        driven.stub.world().servers[1].allocations = vec![(300, "203.0.113.20".into(), None, 2600)];
        driven.poll();
        assert_eq!(driven.ports()[1..], ["203.0.113.20:2600/17 Valheim b"]);
        assert_eq!(driven.snapshot().nodes[1].mapped, 1);
        driven.stub.world().servers[0].status = Some("suspended".into());
        driven.poll();
        assert_eq!(driven.listing().servers[0].state, ServerState::Suspended);
        assert_eq!(driven.snapshot().quiet.len(), 1, "mapped, but nothing is expected there");
        assert_eq!(driven.ports().len(), 2);
        driven.stub.world().servers.remove(0);
        driven.poll();
        assert_eq!(driven.ports(), ["203.0.113.20:2600/17 Valheim b"], "deleted");
    }
}

#[test]
fn whatever_a_panel_does_the_last_good_copy_stays_and_the_state_is_visible() {
    let faults = [
        (Fault::Down, Connection::Down, "no connection"),
        (Fault::Slow, Connection::Down, "in time"),
        (Fault::LyingTotal, Connection::Strange, "do not agree"),
        (Fault::Html, Connection::Strange, "web page"),
        (Fault::Login, Connection::Strange, "login"),
        (Fault::Elsewhere, Connection::Strange, "another address"),
        (Fault::Throttle(1), Connection::Throttled, "asking to wait"),
        (Fault::Status(500), Connection::Down, "status 500"),
        (Fault::Restless, Connection::Strange, "do not agree"),
        (Fault::Duplicates, Connection::Strange, "do not agree"),
        (Fault::DeniedInclude, Connection::Refused, "may not read allocations"),
        (Fault::DeniedNodes, Connection::Refused, "may not read nodes"),
        (Fault::WrongAddress, Connection::Refused, "from this address"),
        (Fault::HugeBody, Connection::Strange, "larger"),
    ];
    for (fault, connection, words) in faults {
        let mut driven = Driven::with(false, |c| c.page_size = 25);
        driven.stub.world().servers = (1..=60)
            .map(|i| StubServer::new(i, "s", 1, "203.0.113.10", 20_000 + i as u16))
            .collect();
        driven.poll();
        let good = driven.listing();
        driven.stub.world().fault = fault.clone();
        driven.pass(240);
        assert_eq!(driven.listing(), good, "{fault:?}");
        assert_eq!(driven.sync.status().connection, connection, "{fault:?}");
        let alarms = driven.alarms();
        assert!(alarms.iter().any(|a| a.contains(words)), "{fault:?}: {alarms:?}");
        // And it comes back by itself.
        driven.stub.world().fault = Fault::None;
        driven.pass(1_000);
        assert_eq!(driven.sync.status().connection, Connection::Ok, "{fault:?}");
        assert_eq!(driven.alarms(), Vec::<String>::new(), "{fault:?}");
    }
}

#[test]
fn a_key_without_eggs_still_maps_and_a_wrong_one_is_named() {
    let mut driven = Driven::new(true);
    driven.stub.world().servers = vec![StubServer::new(1, "a", 1, "203.0.113.10", 25565)];
    driven.stub.world().fault = Fault::DeniedEggs;
    driven.poll();
    assert_eq!(driven.ports().len(), 2, "an unknown game keeps both protocols");
    assert!(driven.alarms()[0].contains("may not read eggs"));
    driven.stub.world().fault = Fault::None;
    driven.pass(700);
    assert_eq!(driven.ports(), ["203.0.113.10:25565/6 Minecraft Java a"]);

    let mut driven = Driven::new(true);
    driven.client = Client::new(&driven.stub.url(), Secret::new("papp_wrong"), Timeouts::default());
    driven.poll();
    assert!(driven.alarms()[0].contains("does not know the key"));
}

#[test]
fn a_panel_of_100_000_servers_is_refused_after_one_request() {
    let mut driven = Driven::new(false);
    driven.stub.world().servers =
        (1..=100_000).map(|i| StubServer::new(i, "s", 1, "203.0.113.10", 1)).collect();
    driven.stub.world().fault = Fault::None;
    driven.client = Client::new(&driven.stub.url(), Secret::new(KEY), Timeouts::default());
    driven.pass(5);
    assert_eq!(driven.stub.world().requests.len(), 1);
    assert!(driven.alarms()[0].contains("more servers than weir takes"));
    assert!(driven.sync.listing().is_none());
}

#[test]
fn a_shrink_is_held_until_it_returns_or_is_accepted() {
    let mut driven = Driven::new(true);
    let all: Vec<StubServer> =
        (1..=20).map(|i| StubServer::new(i, "s", 1, "203.0.113.10", 20_000 + i as u16)).collect();
    driven.stub.world().servers = all.clone();
    driven.poll();
    // Ten vanish, one is new: the new one is taken, the ten are held.
    driven.stub.world().servers = all[..10].to_vec();
    driven.stub.world().servers.push(StubServer::new(99, "new", 1, "203.0.113.10", 30_000));
    driven.poll();
    assert_eq!(driven.ports().len(), 21);
    assert_eq!(driven.sync.status().held, 10);
    assert!(driven.alarms()[0].contains("10 ports vanished"));
    driven.stub.world().servers.extend(all[10..].iter().cloned());
    driven.poll();
    assert_eq!((driven.sync.status().held, driven.ports().len()), (0, 21));
    // An empty list is a broken key or a restored database, however small the panel.
    driven.stub.world().servers.clear();
    driven.poll();
    assert_eq!((driven.sync.status().held, driven.ports().len()), (21, 21));
    driven.event(Event::Accept);
    assert_eq!((driven.sync.status().held, driven.ports().len()), (0, 0));
    driven.poll();
    assert_eq!(driven.alarms(), Vec::<String>::new());
}

#[test]
fn a_hint_brings_the_next_poll_closer_but_not_too_close() {
    let mut driven = Driven::new(true);
    driven.poll();
    let before = driven.sync.status().passes;
    for _ in 0..1000 {
        driven.event(Event::Hint);
    }
    driven.pass(14);
    assert_eq!(driven.sync.status().passes, before + 1, "a burst costs one pass");
    for _ in 0..60 {
        driven.event(Event::Hint);
        driven.pass(1);
    }
    assert!(driven.sync.status().passes <= before + 8, "{}", driven.sync.status().passes);
}

#[test]
fn waiting_is_obeyed_and_a_quarter_of_the_limit_is_kept() {
    let mut driven = Driven::with(false, |c| c.page_size = 25);
    driven.stub.world().rate_limit = 40;
    driven.stub.world().servers =
        (1..=500).map(|i| StubServer::new(i, "s", 1, "203.0.113.10", 20_000 + i as u16)).collect();
    for _ in 0..10 {
        let before = driven.stub.world().requests.len();
        driven.pass(60);
        let sent = driven.stub.world().requests.len() - before;
        assert!(sent <= 20, "{sent} in a minute of 40 allowed, over a window's edge");
    }
    assert!(driven.sync.status().passes >= 1);
    driven.stub.world().fault = Fault::Throttle(300);
    driven.pass(120);
    let before = driven.stub.world().requests.len();
    driven.pass(170);
    assert_eq!(driven.stub.world().requests.len(), before, "Retry-After: 300");
}

#[test]
fn five_thousand_servers_are_listed_quickly_with_few_requests() {
    let mut driven = Driven::new(false);
    driven.stub.world().servers = (1..=5_000u64)
        .map(|i| {
            let mut s = StubServer::new(
                i,
                "server",
                1,
                &format!("203.0.113.{}", i % 250),
                10_000 + (i / 250) as u16,
            );
            s.allocations.push((i * 100 + 1, "203.0.113.9".into(), None, 20_000 + i as u16));
            s
        })
        .collect();
    driven.client = Client::new(&driven.stub.url(), Secret::new(KEY), Timeouts::default());
    let begin = std::time::Instant::now();
    driven.pass(10);
    let snapshot = driven.snapshot();
    let took = begin.elapsed();
    assert_eq!(snapshot.servers.len(), 5_000);
    assert_eq!(snapshot.allocations.len(), 10_000);
    let requests = driven.stub.world().requests.len();
    assert!(requests < 40, "{requests} requests");
    // A build for tests on a busy machine has more time.
    let bar = if cfg!(debug_assertions) { 60 } else { 10 };
    assert!(took.as_secs() < bar, "{took:?}");
    println!("5,000 servers: {requests} requests, {took:?}");
}
