use weir_model::{Filter, IncidentId, Match, Millis, MitigationId, MitigationState, Rung};

use super::*;
use crate::profile::Profile;

fn mitigation(measure: Measure, incident: u64) -> Mitigation {
    Mitigation {
        id: MitigationId(1),
        originator: Originator::Incident(IncidentId(incident)),
        measure,
        rung: Rung::Drop,
        state: MitigationState::Active,
        since: Millis(0),
        expires: Millis(0),
        ended: None,
        peers: Vec::new(),
        note: String::new(),
    }
}

fn rule(host: u8, action: Action) -> Measure {
    let packets = Match::to_host([203, 0, 113, host].into());
    Measure::FlowSpec(Filter { packets, action })
}

fn hole(net: &str) -> Measure {
    Measure::Blackhole(net.parse().unwrap())
}

fn table(families: Families, max_rules: usize) -> AdjRibOut {
    AdjRibOut::new(families, Capabilities { max_rules, ..Profile::Generic.capabilities() })
}

fn list(mut measures: Vec<Measure>) -> Vec<Mitigation> {
    measures.sort();
    measures.into_iter().map(|m| mitigation(m, 7)).collect()
}

fn drain(rib: &mut AdjRibOut) -> Vec<String> {
    drain_at(rib, Millis(0))
}

fn drain_at(rib: &mut AdjRibOut, now: Millis) -> Vec<String> {
    std::iter::from_fn(|| rib.next_change(now))
        .map(|change| match change {
            Change::Announce { route, replaces: None, .. } => format!("+ {}", route.measure),
            Change::Announce { route, replaces: Some(old), .. } => {
                format!("{old} -> {}", route.measure)
            }
            Change::Withdraw { route, .. } => format!("- {}", route.measure),
            Change::EndOfRib(family) => format!("end {family}"),
        })
        .collect()
}

const LIMIT: Action = Action::RateLimit { bytes_per_sec: 1000 };

#[test]
fn nothing_is_written_without_a_session() {
    let mut rib = table(Families::ALL, 100);
    assert_eq!(rib.want(&list(vec![hole("203.0.113.7/32")])), []);
    assert_eq!(drain(&mut rib), [""; 0]);
    rib.up([Family::Ipv4Unicast].into_iter().collect());
    assert_eq!(drain(&mut rib), ["+ blackhole 203.0.113.7/32", "end ipv4-unicast"]);
    let ended = rib.down(Millis(0), Blame::Nothing, &[]);
    assert_eq!(ended, Ended { gone: vec![hole("203.0.113.7/32")], banned: vec![] });
    assert_eq!(drain(&mut rib), [""; 0]);
}

#[test]
fn the_end_of_rib_waits_for_the_first_desired_state() {
    let mut rib = table(Families::ALL, 100);
    rib.up([Family::Ipv4FlowSpec].into_iter().collect());
    assert_eq!(drain(&mut rib), [""; 0]);
    rib.want(&[]);
    assert_eq!(drain(&mut rib), ["end ipv4-flowspec"]);
}

#[test]
fn only_changes_are_written() {
    let mut rib = table(Families::ALL, 100);
    rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT), hole("203.0.113.9/32")]));
    rib.up(Families::ALL);
    assert_eq!(drain(&mut rib).len(), 3 + 4);
    rib.want(&list(vec![rule(1, LIMIT), rule(2, Action::Drop), rule(3, LIMIT)]));
    assert_eq!(
        drain(&mut rib),
        [
            "flowspec dst 203.0.113.2/32 rate-limit 1000 bytes/s -> flowspec dst 203.0.113.2/32 drop",
            "+ flowspec dst 203.0.113.3/32 rate-limit 1000 bytes/s",
            "- blackhole 203.0.113.9/32",
        ]
    );
    // There and back again before it is written: nothing.
    rib.want(&list(vec![]));
    rib.want(&list(vec![rule(1, LIMIT), rule(2, Action::Drop), rule(3, LIMIT)]));
    assert_eq!(drain(&mut rib), [""; 0]);
}

#[test]
fn of_two_actions_on_the_same_packets_the_stricter_one_counts() {
    let mut rib = table(Families::ALL, 100);
    rib.up([Family::Ipv4FlowSpec].into_iter().collect());
    rib.want(&list(vec![rule(1, LIMIT), rule(1, Action::Drop)]));
    assert_eq!(drain(&mut rib), ["+ flowspec dst 203.0.113.1/32 drop", "end ipv4-flowspec"]);
    rib.want(&list(vec![rule(1, LIMIT)]));
    assert_eq!(drain(&mut rib).len(), 1);
    assert_eq!(rib.announced(), 1);
}

#[test]
fn another_incident_marks_the_route_anew() {
    let mut rib = table(Families::ALL, 100);
    rib.up([Family::Ipv4FlowSpec].into_iter().collect());
    rib.want(&[mitigation(rule(1, LIMIT), 7)]);
    drain(&mut rib);
    rib.want(&[mitigation(rule(1, LIMIT), 8)]);
    assert_eq!(drain(&mut rib).len(), 1);
}

#[test]
fn what_the_peer_does_not_speak_is_refused_once() {
    let mut rib = table([Family::Ipv4FlowSpec].into_iter().collect(), 100);
    let want = list(vec![rule(1, LIMIT), hole("203.0.113.9/32")]);
    let refused = rib.want(&want);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].measure, hole("203.0.113.9/32"));
    assert_eq!(refused[0].why, "family ipv4-unicast is not configured for this peer");
    assert_eq!(rib.want(&want), []);
    let refused = rib.up([Family::Ipv6FlowSpec].into_iter().collect());
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].why, "the peer does not speak ipv4-flowspec");
}

#[test]
fn a_full_peer_is_relieved_first() {
    let mut rib = table(Families::ALL, 2);
    rib.up([Family::Ipv4FlowSpec].into_iter().collect());
    rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT)]));
    drain(&mut rib);
    rib.want(&list(vec![rule(2, LIMIT), rule(3, LIMIT)]));
    assert_eq!(
        drain(&mut rib),
        [
            "- flowspec dst 203.0.113.1/32 rate-limit 1000 bytes/s",
            "+ flowspec dst 203.0.113.3/32 rate-limit 1000 bytes/s",
        ]
    );
}

#[test]
fn a_rule_too_many_waits_for_room() {
    let mut rib = table(Families::ALL, 1);
    rib.up([Family::Ipv4FlowSpec].into_iter().collect());
    let refused = rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT)]));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].why, "the peer holds 1 rules at most");
    assert_eq!(drain(&mut rib).len(), 2);
    assert!(rib.is_settled());
    rib.want(&list(vec![rule(2, LIMIT)]));
    assert_eq!(
        drain(&mut rib),
        [
            "- flowspec dst 203.0.113.1/32 rate-limit 1000 bytes/s",
            "+ flowspec dst 203.0.113.2/32 rate-limit 1000 bytes/s",
        ]
    );
}

#[test]
fn a_refresh_says_it_again() {
    let mut rib = table(Families::ALL, 100);
    rib.up(Families::ALL);
    rib.want(&list(vec![rule(1, LIMIT), hole("203.0.113.9/32")]));
    drain(&mut rib);
    rib.refresh(Family::Ipv4FlowSpec);
    assert_eq!(
        drain(&mut rib),
        ["+ flowspec dst 203.0.113.1/32 rate-limit 1000 bytes/s", "end ipv4-flowspec"]
    );
}

/// Whatever happens in between: once drained, what was written adds up to what is wanted.
#[test]
fn what_is_written_adds_up_to_what_is_wanted() {
    for seed in 1..=3_000_u64 {
        let mut random = seed;
        let mut next = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            u8::try_from(random % n).unwrap()
        };
        let mut rib = table(Families::ALL, 1000);
        let mut peer: BTreeMap<RouteKey, Measure> = BTreeMap::new();
        let mut wanted = Vec::new();
        for _ in 0..40 {
            match next(8) {
                0 => {
                    rib.up(Families::ALL);
                    peer.clear();
                }
                1 => {
                    rib.down(Millis(0), Blame::Nothing, &[]);
                    peer.clear();
                }
                2 => rib.refresh(Family::Ipv4FlowSpec),
                3..=5 => {
                    wanted = (0..next(6))
                        .map(|_| match next(3) {
                            0 => rule(next(4), LIMIT),
                            1 => rule(next(4), Action::Drop),
                            _ => Measure::Blackhole(
                                format!("203.0.113.{}/32", next(4)).parse().unwrap(),
                            ),
                        })
                        .collect();
                    wanted.sort();
                    wanted.dedup();
                    rib.want(&list(wanted.clone()));
                }
                _ => {
                    for _ in 0..next(4) {
                        if let Some(change) = rib.next_change(Millis(0)) {
                            apply(&mut peer, change);
                        }
                    }
                }
            }
        }
        if rib.session.is_none() {
            rib.up(Families::ALL);
            peer.clear();
        }
        while let Some(change) = rib.next_change(Millis(0)) {
            apply(&mut peer, change);
        }
        let mut expected = BTreeMap::new();
        for measure in &wanted {
            let key = RouteKey::of(measure).unwrap().unwrap();
            let entry = expected.entry(key).or_insert_with(|| measure.clone());
            if strictness(measure) < strictness(entry) {
                *entry = measure.clone();
            }
        }
        assert_eq!(peer, expected, "seed {seed}");
        assert!(rib.is_settled());
    }
}

fn apply(peer: &mut BTreeMap<RouteKey, Measure>, change: Change) {
    match change {
        Change::Announce { key, route, .. } => {
            peer.insert(key, route.measure);
        }
        Change::Withdraw { key, .. } => {
            assert!(peer.remove(&key).is_some());
        }
        Change::EndOfRib(_) => {}
    }
}

const SECOND: u64 = 1_000;

#[test]
fn a_lone_rule_that_ends_the_session_is_not_sent_again() {
    let mut rib = table(Families::ALL, 100);
    rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT)]));
    rib.up(Families::ALL);
    drain_at(&mut rib, Millis(0));
    rib.prove(Millis(6 * SECOND));
    rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT), rule(3, LIMIT)]));
    drain_at(&mut rib, Millis(7 * SECOND));
    let ended = rib.down(Millis(8 * SECOND), Blame::Update, &[]);
    assert_eq!(ended.gone.len(), 3);
    assert_eq!(ended.banned, [Refusal { measure: rule(3, LIMIT), why: BANNED.into() }]);
    rib.up(Families::ALL);
    assert_eq!(drain_at(&mut rib, Millis(70 * SECOND)).len(), 2 + 4);
    // Neither with another action.
    let refused = rib.want(&list(vec![rule(1, LIMIT), rule(3, Action::Drop)]));
    assert_eq!(refused[0].why, BANNED);
    assert_eq!(drain(&mut rib), ["- flowspec dst 203.0.113.2/32 rate-limit 1000 bytes/s"]);
    // But in a day's time.
    rib.down(Millis(80 * SECOND), Blame::Nothing, &[]);
    rib.prove(Millis(25 * 3_600 * SECOND));
    rib.up(Families::ALL);
    assert_eq!(drain(&mut rib).len(), 2 + 4);
}

#[test]
fn a_peer_that_names_the_rule_is_believed() {
    let mut rib = table(Families::ALL, 100);
    rib.want(&list((1..50).map(|h| rule(h, LIMIT)).collect()));
    rib.up(Families::ALL);
    drain(&mut rib);
    let data = [0x80, 14, 12, 0, 1, 133, 0, 0, 6, 1, 32, 203, 0, 113, 9];
    let ended = rib.down(Millis(100), Blame::Update, &data);
    assert_eq!(ended.banned[0].measure, rule(9, LIMIT));
}

#[test]
fn a_broken_connection_alone_convicts_nobody() {
    let mut rib = table(Families::ALL, 100);
    rib.want(&list(vec![rule(1, LIMIT)]));
    for round in [0, 1] {
        rib.up(Families::ALL);
        drain_at(&mut rib, Millis(round * 100 * SECOND));
        let ended = rib.down(Millis(round * 100 * SECOND + 10), Blame::Silent, &[]);
        assert_eq!(ended.banned, []);
    }
    // After one such end all comes back at once, however much was new.
    let mut many = table(Families::ALL, 100);
    many.want(&list((1..60).map(|h| rule(h, LIMIT)).collect()));
    for round in [0, 1] {
        many.up(Families::ALL);
        assert_eq!(drain_at(&mut many, Millis(round)).len(), 59 + 4);
        if round == 0 {
            assert_eq!(many.down(Millis(round), Blame::Silent, &[]).banned, []);
        }
    }
    // A connection that breaks long after the last route says nothing at all.
    rib.want(&list(vec![rule(2, LIMIT)]));
    for round in 10..14 {
        let start = Millis(round * 100 * SECOND);
        rib.up(Families::ALL);
        drain_at(&mut rib, start);
        rib.prove(start + 6 * SECOND);
        assert_eq!(rib.down(start + 60 * SECOND, Blame::Silent, &[]).banned, []);
    }
}

/// A peer that resets for one rule of many: all others arrive in the end, after few resets.
#[test]
fn the_guilty_one_of_many_is_found() {
    for guilty in [1_u16, 500, 999] {
        let rule = |n: u16| {
            let mut packets = Match::to_host([203, 0, 113, 7].into());
            packets.dst_ports = vec![weir_model::Range::exact(n)];
            Measure::FlowSpec(Filter { packets, action: Action::Drop })
        };
        let mut rib = table(Families::ALL, 2_000);
        rib.want(&list((0..1000).map(rule).collect()));
        let mut now = Millis(0);
        let mut resets = 0;
        rib.up(Families::ALL);
        loop {
            rib.prove(now);
            let mut reset = false;
            while let Some(change) = rib.next_change(now) {
                if let Change::Announce { route, .. } = change {
                    reset |= route.measure == rule(guilty);
                }
            }
            if reset {
                resets += 1;
                now = now + 60 * SECOND;
                rib.down(now, Blame::Update, &[]);
                rib.up(Families::ALL);
            } else if let Some(at) = rib.deadline() {
                now = at;
            } else {
                break;
            }
        }
        assert_eq!(rib.announced(), 999);
        assert!(resets <= 4, "{resets} resets");
        assert!(now < Millis(600 * SECOND), "{now}");
    }
}
