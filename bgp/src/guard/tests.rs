use std::collections::BTreeSet;

use super::*;
use weir_model::{AllowAlarms, AllowList, AllowLists, Range, Rung};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn inventory() -> Arc<Inventory> {
    Arc::new(Inventory::new(
        vec![net("203.0.113.0/24"), net("198.51.0.0/16"), net("2001:db8::/32")].into(),
        vec![net("203.0.113.1/32"), net("198.51.100.0/24")].into(),
        Vec::new(),
    ))
}

fn guard(config: Config) -> Guard {
    Guard::new(config, inventory())
}

fn mitigation(id: u64, measure: Measure) -> Mitigation {
    Mitigation {
        id: MitigationId(id),
        originator: Originator::Incident(IncidentId(id / 100)),
        rung: Rung::Drop,
        measure,
        state: MitigationState::Active,
        since: Millis(id),
        expires: Millis::from_secs(300),
        ended: None,
        peers: Vec::new(),
        note: String::new(),
        worth: 0,
    }
}

fn udp(dst: &str, action: Action) -> Measure {
    let mut packets = Match::to(net(dst));
    packets.protocols = vec![17];
    Measure::FlowSpec(Filter { packets, action })
}

fn everything(dst: &str, action: Action) -> Measure {
    Measure::FlowSpec(Filter { packets: Match::to(net(dst)), action })
}

fn desired(mitigations: Vec<Mitigation>) -> DesiredState {
    DesiredState { generation: 1, mitigations: mitigations.into() }
}

#[test]
fn each_measure_is_judged_by_where_it_points_and_what_it_does() {
    let guard = guard(Config::default());
    let check = |measure: Measure, expected: Result<(), &str>| {
        let got = guard.judge_measure(&measure).map_err(Refusal::id);
        assert_eq!(got, expected, "{measure}");
    };
    check(Measure::Blackhole(net("203.0.113.7/32")), Ok(()));
    check(Measure::Blackhole(net("2001:db8::7/128")), Ok(()));
    check(Measure::Blackhole(net("203.0.113.2/31")), Err("too-wide"));
    check(Measure::Blackhole(net("2001:db8::/127")), Err("too-wide"));
    check(Measure::Blackhole(net("192.0.2.7/32")), Err("not-protected"));
    check(Measure::Blackhole(net("203.0.113.1/32")), Err("never-touch"));
    check(Measure::Scrub(net("203.0.113.0/24")), Err("never-touch"));
    check(Measure::Scrub(net("198.51.0.0/24")), Ok(()));
    check(Measure::Scrub(net("198.51.0.0/23")), Err("too-wide"));
    check(udp("198.51.2.0/24", Action::Drop), Ok(()));
    check(udp("198.51.2.0/23", Action::Drop), Err("too-wide"));
    check(udp("198.51.2.7/24", Action::Drop), Err("malformed"));
    check(udp("0.0.0.0/0", Action::Drop), Err("not-protected"));
    check(udp("2001:db8:1::/48", Action::Drop), Ok(()));
    check(udp("2001:db8::/47", Action::Drop), Err("too-wide"));
    check(everything("198.51.2.0/24", Action::Drop), Err("too-wide"));
    check(everything("198.51.2.7/32", Action::Drop), Ok(()));
    check(everything("198.51.2.0/24", Action::RateLimit { bytes_per_sec: 1000 }), Err("too-wide"));
    check(everything("198.51.2.0/24", Action::RateLimit { bytes_per_sec: 1_000_000 }), Ok(()));
    check(udp("198.51.2.7/32", Action::RateLimit { bytes_per_sec: 0 }), Err("malformed"));
    let elsewhere = Redirect::RouteTarget { asn: 64512, value: 1 };
    check(udp("198.51.2.7/32", Action::Redirect(elsewhere)), Err("redirect"));
    check(udp("198.51.2.7/32", Action::Mark { dscp: 8 }), Ok(()));
    check(udp("198.51.2.7/32", Action::Mark { dscp: 64 }), Err("malformed"));
    check(Measure::Divert(net("198.51.2.0/24")), Ok(()));
    check(Measure::Divert(net("198.51.2.0/23")), Err("too-wide"));
    check(Measure::Divert(net("198.51.2.0/25")), Err("too-long"));
    check(Measure::Divert(net("2001:db8:1::/48")), Ok(()));
    check(Measure::Divert(net("2001:db8:1::/49")), Err("too-long"));
    check(Measure::Divert(net("192.0.2.0/24")), Err("not-protected"));
    check(Measure::Divert(net("203.0.113.0/24")), Err("never-touch"));
}

#[test]
fn no_rule_names_a_source_of_an_allow_list_in_whatever_action_and_state() {
    let web = AllowList {
        name: "web".parse().unwrap(),
        prefixes: vec![net("192.0.2.0/25"), net("2001:db8:ffff::/48")].into(),
        protocols: vec![6],
        ports: vec![Range::exact(80), Range::exact(443)],
        source_ports: Vec::new(),
        groups: Vec::new(),
        alarms: AllowAlarms::Count,
        waits: None,
    };
    let allow = Arc::new(AllowLists::from(vec![web]));
    let listed = Arc::new(Inventory::clone(&inventory()).allowing(allow));
    let mut guard = Guard::new(Config { allow_redirect: true, ..Config::default() }, listed);
    let rule = |src: &str, protocols: &[u8], port: Option<u16>| {
        let dst = if src.contains(':') { "2001:db8::7/128" } else { "203.0.113.7/32" };
        Match {
            src: Some(net(src)),
            protocols: protocols.to_vec(),
            dst_ports: port.map(Range::exact).into_iter().collect(),
            ..Match::to(net(dst))
        }
    };
    let check = |packets: Match, allowed: bool| {
        let hop = Redirect::NextHop(match packets.dst {
            IpNet::V4(_) => "192.0.2.200".parse().unwrap(),
            IpNet::V6(_) => "2001:db8:9::9".parse().unwrap(),
        });
        let limit = Action::RateLimit { bytes_per_sec: 1_000_000 };
        for action in [Action::Drop, limit, Action::Mark { dscp: 8 }, Action::Redirect(hop)] {
            let measure = Measure::FlowSpec(Filter { packets: packets.clone(), action });
            let got = guard.judge_measure(&measure).map_err(Refusal::id);
            assert_eq!(got, if allowed { Ok(()) } else { Err("allow-list") }, "{measure}");
        }
    };
    check(rule("192.0.2.7/32", &[], None), false);
    check(rule("192.0.2.0/24", &[6], None), false);
    check(rule("192.0.2.7/32", &[6], Some(443)), false);
    check(rule("2001:db8:ffff:1::/64", &[6], Some(80)), false);
    // Narrowed so that it meets nothing of the list.
    check(rule("192.0.2.128/25", &[], None), true);
    check(rule("192.0.2.7/32", &[17], None), true);
    check(rule("192.0.2.7/32", &[6], Some(25)), true);
    check(rule("2001:db8:fffe::/48", &[6], Some(80)), true);
    // Without a source it names nobody, and a black hole is a matter of the ladder.
    check(Match { protocols: vec![6], ..Match::to(net("203.0.113.7/32")) }, true);
    assert_eq!(guard.judge_measure(&Measure::Blackhole(net("203.0.113.7/32"))), Ok(()));

    let filter = Filter { packets: rule("192.0.2.7/32", &[6], None), action: Action::Drop };
    let hit = mitigation(100, Measure::FlowSpec(filter));
    let told = guard.would_admit(&desired(Vec::new()), &hit, Millis(0)).unwrap_err().to_string();
    assert!(told.contains("192.0.2.7/32") && told.contains("allow list web"), "{told}");
    // A rule in force goes when a list comes to hold its source, and comes back with it.
    let wished = desired(vec![hit]);
    assert!(guard.admit(&wished, Millis(0)).mitigations().is_empty());
    guard.set_inventory(inventory());
    assert_eq!(guard.admit(&wished, Millis(0)).mitigations().len(), 1);
}

#[test]
fn a_redirection_leads_elsewhere() {
    let guard = guard(Config { allow_redirect: true, ..Config::default() });
    let check = |dst: &str, to: Redirect, expected: Result<(), &str>| {
        let got = guard.judge_measure(&udp(dst, Action::Redirect(to))).map_err(Refusal::id);
        assert_eq!(got, expected, "{dst} {to}");
    };
    let target = |asn, value| Redirect::RouteTarget { asn, value };
    let hop = |ip: &str| Redirect::NextHop(ip.parse().unwrap());
    let copy = |ip: &str| Redirect::Copy(ip.parse().unwrap());
    check("198.51.2.7/32", target(64512, 70_000), Ok(()));
    check("198.51.2.7/32", target(4_200_000_001, 65_535), Ok(()));
    check("198.51.2.7/32", target(4_200_000_001, 65_536), Err("malformed"));
    check("198.51.2.7/32", hop("192.0.2.9"), Ok(()));
    check("198.51.2.7/32", copy("192.0.2.9"), Ok(()));
    check("198.51.2.0/24", hop("198.51.2.9"), Err("malformed"));
    check("198.51.2.0/24", copy("198.51.2.9"), Err("malformed"));
    check("198.51.2.7/32", hop("0.0.0.0"), Err("malformed"));
    check("198.51.2.7/32", hop("224.0.0.5"), Err("malformed"));
    check("198.51.2.7/32", hop("2001:db8::9"), Err("malformed"));
}

#[test]
fn a_black_hole_in_disguise_is_held_to_the_limits_of_black_holes() {
    let guard = guard(Config::default());
    let mut packets = Match::to(net("198.51.2.0/24"));
    packets.dst_ports = vec![Range { from: 0, to: 65535 }];
    packets.lengths = vec![Range { from: 0, to: 9000 }];
    packets.src = Some(net("0.0.0.0/0"));
    let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
    assert!(discards_everything(&measure));
    assert_eq!(guard.judge_measure(&measure).map_err(Refusal::id), Err("too-wide"));
}

#[test]
fn a_list_of_what_every_packet_has_is_no_restriction() {
    let guard = guard(Config::default());
    let judged = |change: &dyn Fn(&mut Match)| {
        let mut packets = Match::to(net("198.51.2.0/24"));
        change(&mut packets);
        let measure =
            Measure::FlowSpec(Filter { packets: packets.normalise(), action: Action::Drop });
        (discards_everything(&measure), guard.judge_measure(&measure).map_err(Refusal::id))
    };
    let range = |from, to| Range { from, to };
    let spellings: [&dyn Fn(&mut Match); 14] = [
        &|m| m.dscps = (0..64).collect(),
        &|m| m.dscps = vec![0],
        &|m| m.protocols = (0..=255).collect(),
        &|m| m.protocols = vec![1, 6, 17],
        &|m| m.src = Some(net("0.0.0.0/1")),
        &|m| m.src = Some(net("128.0.0.0/1")),
        &|m| m.src = Some(net("64.0.0.0/7")),
        &|m| m.lengths = vec![range(21, 65535)],
        &|m| m.lengths = vec![range(0, 700), range(702, 1500)],
        &|m| m.dst_ports = vec![range(1024, 65535)],
        &|m| m.src_ports = vec![range(0, 122), range(124, 65535)],
        &|m| m.fragment = Some(FragmentMatch::NotFragment),
        &|m| m.tcp_flags = vec![weir_model::FlagMatch { mask: 0, set: 0 }],
        &|m| {
            m.protocols = vec![6, 17];
            m.dscps = vec![0];
            m.fragment = Some(FragmentMatch::NotFragment);
        },
    ];
    for (at, change) in spellings.iter().enumerate() {
        assert_eq!(judged(*change), (true, Err("too-wide")), "spelling {at}");
    }
    let restrictions: [&dyn Fn(&mut Match); 8] = [
        &|m| m.protocols = vec![17],
        &|m| m.protocols = vec![1, 47],
        &|m| m.src = Some(net("10.0.0.0/8")),
        &|m| m.lengths = vec![range(468, 468)],
        &|m| m.lengths = vec![range(1000, 65535)],
        &|m| m.src_ports = vec![range(0, 1023)],
        &|m| m.dscps = vec![46],
        &|m| m.fragment = Some(FragmentMatch::IsFragment),
    ];
    for (at, change) in restrictions.iter().enumerate() {
        assert_eq!(judged(*change), (false, Ok(())), "restriction {at}");
    }
    let limit = |action| discards_everything(&everything("198.51.2.0/24", action));
    assert!(limit(Action::RateLimit { bytes_per_sec: NEAR_DROP_BYTES_PER_SEC }));
    assert!(limit(Action::RateLimitPackets { packets_per_sec: NEAR_DROP_PACKETS_PER_SEC }));
    assert!(!limit(Action::RateLimit { bytes_per_sec: NEAR_DROP_BYTES_PER_SEC + 1 }));
}

#[test]
fn matches_that_no_router_could_install_are_malformed() {
    let guard = guard(Config::default());
    let check = |change: fn(&mut Match)| {
        let mut packets = Match::to(net("203.0.113.7/32"));
        packets.protocols = vec![6];
        change(&mut packets);
        let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
        assert_eq!(guard.judge_measure(&measure).map_err(Refusal::id), Err("malformed"));
    };
    check(|m| m.src = Some(net("2001:db8::/32")));
    check(|m| m.dst_ports = vec![Range { from: 9, to: 8 }]);
    check(|m| m.tcp_flags = vec![weir_model::FlagMatch { mask: 0x02, set: 0x12 }]);
    check(|m| m.dscps = vec![64]);
    check(|m| m.dst_ports = vec![Range { from: 0, to: 9 }, Range { from: 10, to: u16::MAX }]);
    check(|m| m.src = Some(net("192.0.2.1/24")));
}

#[test]
fn a_state_without_owner_or_time_is_refused() {
    let mut guard = guard(Config::default());
    let now = Millis::from_secs(10);
    let mut check = |change: fn(&mut Mitigation), expected: &str| {
        let mut m = mitigation(1, udp("203.0.113.7/32", Action::Drop));
        change(&mut m);
        let admitted = guard.admit(&desired(vec![m]), now);
        assert!(admitted.mitigations().is_empty());
        assert_eq!(admitted.refused()[0].1.id(), expected);
    };
    check(|m| m.originator = Originator::Operator(" ".into()), "no-originator");
    check(|m| m.state = MitigationState::Proposed, "not-active");
    check(|m| m.state = MitigationState::Simulated, "not-active");
    check(|m| m.ended = Some(Millis(1)), "not-active");
    check(|m| m.expires = Millis::from_secs(10), "expired");
    check(|m| m.expires = Millis::from_secs(90_000), "ttl-too-long");
}

#[test]
fn caps_hold_and_what_is_in_force_goes_first() {
    let config =
        Config { max_per_incident: 2, max_total: 3, max_rtbh_total: 1, ..Config::default() };
    let mut guard = guard(config);
    let now = Millis::from_secs(1);
    let host = |n: u64| format!("198.51.2.{n}/32");
    let rule = |id: u64, n: u64| mitigation(id, udp(&host(n), Action::Drop));
    let hole = |id: u64, n: u64| mitigation(id, Measure::Blackhole(net(&host(n))));
    let ids = |a: &Admitted| a.mitigations().iter().map(|m| m.id.0).collect::<BTreeSet<_>>();
    let why = |a: &Admitted| a.refused().iter().map(|(i, r)| (i.0, r.id())).collect::<Vec<_>>();

    let first = guard.admit(&desired(vec![rule(201, 1), rule(202, 2), rule(203, 3)]), now);
    assert_eq!(ids(&first), [201, 202].into());
    assert_eq!(why(&first), [(203, "incident-cap")]);

    // Older decisions arrive, but what is in force keeps its place.
    let wishes = vec![hole(101, 9), hole(102, 8), rule(201, 1), rule(202, 2)];
    let second = guard.admit(&desired(wishes), now);
    assert_eq!(ids(&second), [101, 201, 202].into());
    assert_eq!(why(&second), [(102, "total-cap")]);

    let third = guard.admit(&desired(vec![hole(101, 9), hole(102, 8)]), now);
    assert_eq!(ids(&third), [101].into());
    assert_eq!(why(&third), [(102, "rtbh-cap")]);
}

#[test]
fn new_measures_are_limited_per_minute_and_withdrawals_are_not() {
    let mut guard = guard(Config { max_changes_per_min: 2, ..Config::default() });
    let rule = |id: u64| mitigation(id, udp(&format!("198.51.2.{id}/32"), Action::Drop));
    let at = Millis::from_secs;
    let resumed = guard.admit(&desired((1..=5).map(rule).collect()), at(1));
    assert_eq!(resumed.mitigations().len(), 5, "the first state resumes what was in force");
    assert_eq!(guard.admit(&desired(Vec::new()), at(2)).mitigations().len(), 0);

    let limited = guard.admit(&desired((11..=15).map(rule).collect()), at(3));
    assert_eq!(limited.mitigations().len(), 2);
    assert!(limited.refused().iter().all(|(_, r)| r.id() == "change-rate" && r.is_passing()));
    let wish = desired((11..=15).map(rule).collect());
    assert_eq!(guard.admit(&wish, at(62)).mitigations().len(), 2);
    assert_eq!(guard.admit(&wish, at(63)).mitigations().len(), 4);
    // Set back, the clock does not shut the door for longer than a minute.
    assert_eq!(guard.admit(&wish, at(4)).mitigations().len(), 4);
    assert_eq!(guard.admit(&wish, at(64)).mitigations().len(), 5);
}

#[test]
fn the_generation_rises_only_with_the_content() {
    let mut guard = guard(Config::default());
    assert_eq!(Admitted::default().generation(), 0);
    let wish = desired(vec![mitigation(1, Measure::Blackhole(net("203.0.113.7/32")))]);
    assert_eq!(guard.admit(&desired(Vec::new()), Millis(1)).generation(), 1);
    assert_eq!(guard.admit(&wish, Millis(2)).generation(), 2);
    assert_eq!(guard.admit(&wish, Millis(3)).generation(), 2);
    guard.set_inventory(Arc::new(Inventory::default()));
    let gone = guard.admit(&wish, Millis(4));
    assert_eq!((gone.generation(), gone.mitigations().len()), (3, 0));
}

#[test]
fn a_rule_on_certain_source_ports_may_be_wider_than_one_that_says_less() {
    let inventory =
        Inventory::new(vec![net("198.18.0.0/15")].into(), Vec::<IpNet>::new().into(), Vec::new());
    let guard = Guard::new(Config::default(), Arc::new(inventory));
    let rule = |dst: &str, change: fn(&mut Match)| {
        let mut packets = Match::to(net(dst));
        packets.protocols = vec![17];
        change(&mut packets);
        let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
        guard.judge_measure(&measure).map_err(Refusal::id)
    };
    assert_eq!(rule("198.18.0.0/16", |m| m.src_ports = vec![Range::exact(123)]), Ok(()));
    assert_eq!(rule("198.18.0.0/15", |m| m.src_ports = vec![Range::exact(123)]), Err("too-wide"));
    assert_eq!(rule("198.18.0.0/20", |_| {}), Err("too-wide"));
    // A list of nearly every port says nothing.
    let all = |m: &mut Match| m.src_ports = vec![Range { from: 1, to: 65_535 }];
    assert_eq!(rule("198.18.0.0/20", all), Err("too-wide"));
}
