use std::net::Ipv4Addr;

use super::*;
use crate::wire::{Families, Open};

fn settings() -> Settings {
    Settings {
        open: OpenSettings {
            asn: 65010,
            hold_secs: 90,
            id: Ipv4Addr::new(10, 0, 0, 10),
            families: Families::ALL,
            restart_secs: Some(120),
            restarting: true,
            long_lived_secs: None,
        },
        remote_as: 65020,
        passive: false,
        retry_ms: 5_000,
        retry_max_ms: 120_000,
        seed: 7,
    }
}

fn open() -> Open {
    Open {
        asn: 65020,
        as4: true,
        hold_secs: 30,
        id: Ipv4Addr::new(10, 0, 0, 20),
        families: [Family::Ipv4Unicast, Family::Ipv4FlowSpec].into_iter().collect(),
        route_refresh: true,
        graceful_restart: None,
        long_lived: false,
    }
}

/// A machine, and what it did, in words.
struct Bench {
    peer: Peer,
    now: Millis,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let mut bench = Self { peer: Peer::new(settings), now: Millis(0) };
        bench.take(Input::Start);
        bench
    }

    fn take(&mut self, input: Input) -> String {
        let mut out = Vec::new();
        self.peer.handle(self.now, input, &mut out);
        out.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn message(&mut self, role: Role, message: Message) -> String {
        self.take(Input::Message(role, message))
    }

    /// Lets time pass to the next deadline.
    fn wait(&mut self) -> String {
        self.now = self.peer.deadline().unwrap();
        self.take(Input::Tick)
    }

    fn established(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.take(Input::Connected);
        bench.message(Role::Active, Message::Open(open()));
        assert!(bench.message(Role::Active, Message::Keepalive).starts_with("up"));
        bench
    }
}

fn word(output: &Output) -> String {
    match output {
        Output::Send(role, octets) => {
            let kind = match octets[18] {
                1 => "OPEN".to_owned(),
                3 => format!("NOTIFICATION {}/{}", octets[19], octets[20]),
                4 => "KEEPALIVE".to_owned(),
                kind => format!("type {kind}"),
            };
            format!("send {kind} on {role:?}")
        }
        Output::Up(role, n) => format!("up on {role:?} hold {} {:?}", n.hold_secs, n.families),
        Output::Down(why) => format!("down: {why}"),
        Output::Failed(why) => format!("failed: {why}"),
        Output::Close(role) => format!("close {role:?}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn a_session_comes_up_and_stays() {
    let mut bench = Bench { peer: Peer::new(settings()), now: Millis(0) };
    assert_eq!(bench.take(Input::Start), "dial");
    assert_eq!(bench.peer.state(), PeerState::Connect);
    assert_eq!(bench.take(Input::Connected), "send OPEN on Active");
    assert_eq!(bench.peer.state(), PeerState::OpenSent);
    assert_eq!(bench.message(Role::Active, Message::Open(open())), "send KEEPALIVE on Active");
    assert_eq!(bench.peer.state(), PeerState::OpenConfirm);
    assert_eq!(
        bench.message(Role::Active, Message::Keepalive),
        "up on Active hold 30 {Ipv4Unicast, Ipv4FlowSpec}"
    );
    assert_eq!(bench.peer.state(), PeerState::Established);
    // A third of the hold time, less jitter.
    let next = bench.peer.deadline().unwrap().0;
    assert!((7_500..=10_000).contains(&next), "{next}");
    for _ in 0..100 {
        let said = bench.wait();
        assert_eq!(said, "send KEEPALIVE on Active");
        bench.message(Role::Active, Message::Update(vec![0; 4]));
    }
    assert!(bench.now.0 > 750_000);
}

#[test]
fn silence_ends_the_session() {
    let mut bench = Bench::established(settings());
    let mut said = String::new();
    while said.is_empty() || said.starts_with("send KEEPALIVE") {
        said = bench.wait();
    }
    assert_eq!(
        said,
        "send NOTIFICATION 4/0 on Active, close Active, down: sent NOTIFICATION 4/0 hold timer expired"
    );
    assert_eq!(bench.now, Millis(30_000));
    assert_eq!(bench.peer.state(), PeerState::Active);
}

#[test]
fn without_hold_time_nothing_expires() {
    let mut bench = Bench::new(settings());
    bench.take(Input::Connected);
    bench.message(Role::Active, Message::Open(Open { hold_secs: 0, ..open() }));
    bench.message(Role::Active, Message::Keepalive);
    assert_eq!(bench.peer.deadline(), None);
}

#[test]
fn a_silent_peer_is_given_four_minutes_for_its_open() {
    let mut bench = Bench::new(settings());
    bench.take(Input::Connected);
    assert!(bench.wait().starts_with("send NOTIFICATION 4/0"));
    assert_eq!(bench.now, Millis(240_000));
}

#[test]
fn an_open_that_does_not_fit_is_answered() {
    let check = |open: Open, answer: &str| {
        let mut bench = Bench::new(settings());
        bench.take(Input::Connected);
        let said = bench.message(Role::Active, Message::Open(open));
        assert!(said.starts_with(&format!("send NOTIFICATION {answer} on Active")), "{said}");
    };
    check(Open { asn: 65021, ..open() }, "2/2");
    let mut internal = settings();
    internal.remote_as = 65010;
    let mut bench = Bench::new(internal);
    bench.take(Input::Connected);
    let same = Open { asn: 65010, id: Ipv4Addr::new(10, 0, 0, 10), ..open() };
    assert!(bench.message(Role::Active, Message::Open(same)).contains("2/3"));
}

#[test]
fn messages_out_of_place_are_errors() {
    let check = |setup: fn(&mut Bench), message: Message, answer: &str| {
        let mut bench = Bench::new(settings());
        bench.take(Input::Connected);
        setup(&mut bench);
        let said = bench.message(Role::Active, message);
        assert!(said.starts_with(&format!("send NOTIFICATION {answer} ")), "{said}");
    };
    let confirm = |b: &mut Bench| drop(b.message(Role::Active, Message::Open(open())));
    let establish = |b: &mut Bench| {
        b.message(Role::Active, Message::Open(open()));
        b.message(Role::Active, Message::Keepalive);
    };
    check(|_| {}, Message::Keepalive, "5/1");
    check(confirm, Message::Update(Vec::new()), "5/2");
    check(establish, Message::Open(open()), "5/3");
}

#[test]
fn waits_grow_and_stay_bounded() {
    let mut bench = Bench::new(settings());
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = bench.now;
        bench.take(Input::ConnectFailed);
        assert_eq!(bench.wait(), "dial");
        waits.push(bench.now.since(before));
    }
    for (wait, full) in waits.iter().zip([5_000, 10_000, 20_000, 40_000, 80_000, 120_000, 120_000])
    {
        assert!((full * 3 / 4..=full).contains(wait), "{waits:?}");
    }
}

#[test]
fn a_connection_that_hangs_is_given_up() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.wait(), "stopdialling, failed: no answer within 20 s");
    assert_eq!(bench.now, Millis(20_000));
    assert_eq!(bench.wait(), "dial");
}

#[test]
fn a_stable_session_forgets_failures() {
    let mut bench = Bench::new(settings());
    for _ in 0..6 {
        bench.take(Input::ConnectFailed);
        bench.wait();
    }
    bench.take(Input::Connected);
    bench.message(Role::Active, Message::Open(open()));
    bench.message(Role::Active, Message::Keepalive);
    bench.now = bench.now + 61_000;
    bench.take(Input::Closed(Role::Active, "reset".into()));
    let wait = bench.peer.deadline().unwrap().since(bench.now);
    assert!((3_750..=5_000).contains(&wait), "{wait}");
}

#[test]
fn a_peer_that_has_too_much_is_left_alone_until_it_is_known_how_much() {
    for subcode in [cease::MAX_PREFIXES, cease::RESOURCES] {
        let refusal = Notification::new(codes::CEASE, subcode);
        let mut bench = Bench::established(settings());
        let said = bench.message(Role::Active, Message::Notification(refusal.clone()));
        assert_eq!(said, format!("close Active, down: peer sent NOTIFICATION {refusal}"));
        let wait = bench.peer.deadline().unwrap().since(bench.now);
        assert!((45_000..=60_000).contains(&wait), "{wait}");
        assert_eq!(bench.take(Input::Accepted), "refuse");
        bench.peer.learned(bench.now);
        let wait = bench.peer.deadline().unwrap().since(bench.now);
        assert!((375..=500).contains(&wait), "{wait}");
        assert_eq!(bench.wait(), "dial");
    }
}

#[test]
fn after_an_offence_the_session_is_back_at_once_and_damped() {
    let mut bench = Bench::established(settings());
    let offended = |bench: &mut Bench| {
        bench.message(Role::Active, Message::Notification(Notification::new(codes::UPDATE, 9)));
        assert_eq!(bench.take(Input::Accepted), "refuse");
        let wait = bench.peer.deadline().unwrap().since(bench.now);
        assert_eq!(bench.wait(), "dial");
        bench.take(Input::Connected);
        bench.message(Role::Active, Message::Open(open()));
        bench.message(Role::Active, Message::Keepalive);
        wait
    };
    for full in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        let wait = offended(&mut bench);
        assert!((full * 3 / 4..=full).contains(&wait), "{wait} of {full}");
    }
    // What it took offence at is found, or the session has lived for a minute.
    bench.message(Role::Active, Message::Notification(Notification::new(codes::UPDATE, 9)));
    bench.peer.pardon(bench.now);
    let wait = bench.peer.deadline().unwrap().since(bench.now);
    assert!(wait <= 500, "{wait}");
}

#[test]
fn a_peer_that_measures_wait_for_is_called_every_few_seconds() {
    let mut bench = Bench::new(settings());
    for _ in 0..8 {
        bench.take(Input::ConnectFailed);
        bench.wait();
    }
    bench.take(Input::ConnectFailed);
    assert!(bench.peer.deadline().unwrap().since(bench.now) > 60_000);
    bench.peer.set_urgent(bench.now, true);
    for _ in 0..20 {
        let before = bench.now;
        assert_eq!(bench.wait(), "dial");
        assert!(bench.now.since(before) <= 2_000);
        // Nobody answers: the kernel's own attempts grow too rare.
        let before = bench.now;
        assert_eq!(bench.wait(), "stopdialling, failed: no answer within 4 s");
        assert_eq!(bench.now.since(before), 4_000);
    }
    bench.peer.set_urgent(bench.now, false);
    bench.wait();
    bench.take(Input::ConnectFailed);
    assert!(bench.peer.deadline().unwrap().since(bench.now) > 60_000);
}

/// Both sides dialled; both OPENs are out.
fn collision(own: [u8; 4], own_as: u32, peer: [u8; 4], first: Role) -> (Bench, String) {
    let mut settings = settings();
    settings.open.id = own.into();
    settings.open.asn = own_as;
    let mut bench = Bench::new(settings);
    assert_eq!(bench.take(Input::Connected), "send OPEN on Active");
    assert_eq!(bench.take(Input::Accepted), "send OPEN on Passive");
    let hello = Open { id: peer.into(), ..open() };
    assert!(bench.message(first, Message::Open(hello.clone())).contains("KEEPALIVE"));
    let said = bench.message(first.other(), Message::Open(hello));
    (bench, said)
}

#[test]
fn of_two_connections_the_higher_identifier_keeps_its_own() {
    let (low, high) = ([10, 0, 0, 1], [10, 0, 0, 99]);
    let check = |own, own_as, peer, kept: Role| {
        for first in [Role::Active, Role::Passive] {
            let (mut bench, said) = collision(own, own_as, peer, first);
            let lost = kept.other();
            assert!(
                said.contains(&format!("send NOTIFICATION 6/7 on {lost:?}, close {lost:?}")),
                "{said}"
            );
            let up = bench.message(kept, Message::Keepalive);
            assert!(up.starts_with(&format!("up on {kept:?}")), "{up}");
            assert_eq!(bench.message(lost, Message::Keepalive), "");
        }
    };
    check(low, 65010, high, Role::Passive);
    check(high, 65010, low, Role::Active);
    // RFC 6286: of equal identifiers the higher AS.
    check(low, 65010, low, Role::Passive);
    check(low, 65030, low, Role::Active);
}

#[test]
fn an_established_session_beats_a_second_connection() {
    let mut bench = Bench::established(settings());
    assert_eq!(bench.take(Input::Accepted), "send OPEN on Passive");
    let said = bench.message(Role::Passive, Message::Open(open()));
    assert!(said.starts_with("send NOTIFICATION 6/7 on Passive, close Passive"), "{said}");
    assert_eq!(bench.peer.established(), Some(Role::Active));
    assert!(bench.wait().starts_with("send KEEPALIVE on Active"));
}

#[test]
fn a_restarted_peer_replaces_its_dead_session() {
    let graceful = || Open {
        graceful_restart: Some(GracefulRestart {
            restarting: true,
            notification: false,
            time_secs: 120,
            families: Families::ALL,
        }),
        ..open()
    };
    let mut bench = Bench::new(settings());
    bench.take(Input::Connected);
    bench.message(Role::Active, Message::Open(graceful()));
    bench.message(Role::Active, Message::Keepalive);
    bench.now = Millis(15_000);
    bench.take(Input::Accepted);
    let said = bench.message(Role::Passive, Message::Open(graceful()));
    assert_eq!(
        said,
        "send NOTIFICATION 6/7 on Active, close Active, \
         down: sent NOTIFICATION 6/7 connection collision resolution, send KEEPALIVE on Passive"
    );
    assert!(bench.message(Role::Passive, Message::Keepalive).starts_with("up on Passive"));
}

#[test]
fn a_passive_peer_waits_to_be_called() {
    let mut passive = settings();
    passive.passive = true;
    let mut bench = Bench { peer: Peer::new(passive), now: Millis(0) };
    assert_eq!(bench.take(Input::Accepted), "refuse");
    assert_eq!(bench.take(Input::Start), "");
    assert_eq!(bench.peer.state(), PeerState::Active);
    assert_eq!(bench.take(Input::Accepted), "send OPEN on Passive");
    assert_eq!(bench.take(Input::Accepted), "refuse");
    assert_eq!(bench.message(Role::Passive, Message::Open(open())), "send KEEPALIVE on Passive");
    assert!(bench.message(Role::Passive, Message::Keepalive).starts_with("up on Passive"));
    bench.take(Input::Closed(Role::Passive, "reset".into()));
    assert_eq!(bench.peer.deadline(), None);
    assert_eq!(bench.take(Input::Accepted), "send OPEN on Passive");
}

#[test]
fn dialling_stops_when_the_peer_was_faster() {
    let mut bench = Bench::new(settings());
    bench.take(Input::Accepted);
    bench.message(Role::Passive, Message::Open(open()));
    assert_eq!(
        bench.message(Role::Passive, Message::Keepalive),
        "stopdialling, up on Passive hold 30 {Ipv4Unicast, Ipv4FlowSpec}"
    );
    assert_eq!(bench.take(Input::Connected), "close Active");
}

#[test]
fn a_refresh_is_passed_on_for_agreed_families_only() {
    let mut bench = Bench::established(settings());
    let refresh = |f| Message::RouteRefresh(f);
    assert_eq!(
        bench.message(Role::Active, refresh(Some(Family::Ipv4FlowSpec))),
        "refresh(ipv4flowspec)"
    );
    assert_eq!(bench.message(Role::Active, refresh(Some(Family::Ipv6Unicast))), "");
    assert_eq!(bench.message(Role::Active, refresh(None)), "");
}

#[test]
fn stopping_speaks_or_keeps_silent() {
    let mut bench = Bench::established(settings());
    let said = bench.take(Input::Stop(Some(Notification::shutdown("bye"))));
    assert_eq!(
        said,
        "send NOTIFICATION 6/2 on Active, close Active, \
         down: sent NOTIFICATION 6/2 administrative shutdown: bye"
    );
    assert_eq!(bench.peer.deadline(), None);
    let mut bench = Bench::established(settings());
    assert_eq!(
        bench.take(Input::Stop(None)),
        "close Active, down: stopped, routes left to the peer's graceful restart"
    );
}

/// Any order of events at any time: no panic, never two sessions, always a way on.
#[test]
fn no_order_of_events_gets_it_stuck() {
    for seed in 1..=2_000_u64 {
        let mut random = seed;
        let mut next = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut bench = Bench { peer: Peer::new(Settings { seed, ..settings() }), now: Millis(0) };
        bench.take(Input::Start);
        let mut up = 0_i32;
        for _ in 0..200 {
            let role = if next(2) == 0 { Role::Active } else { Role::Passive };
            let input = match next(12) {
                0 => Input::Connected,
                1 => Input::ConnectFailed,
                2 => Input::Accepted,
                3 | 4 => Input::Message(role, Message::Open(open())),
                5 | 6 => Input::Message(role, Message::Keepalive),
                7 => Input::Message(role, Message::Update(Vec::new())),
                8 => Input::Message(role, Message::Notification(Notification::new(3, 9))),
                9 => Input::Malformed(role, Notification::new(1, 2)),
                10 => Input::Closed(role, "gone".into()),
                _ => {
                    bench.now = bench.now + next(40_000);
                    Input::Tick
                }
            };
            let mut out = Vec::new();
            bench.peer.handle(bench.now, input, &mut out);
            for output in &out {
                up += match output {
                    Output::Up(..) => 1,
                    Output::Down(_) => -1,
                    _ => 0,
                };
                assert!((0..=1).contains(&up), "seed {seed}");
            }
            assert_eq!(bench.peer.established().is_some(), up == 1, "seed {seed}");
            let waits = bench.peer.deadline().is_some();
            assert!(waits || up == 1, "seed {seed}: nothing to wait for");
        }
    }
}
