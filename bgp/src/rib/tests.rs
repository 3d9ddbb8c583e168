use weir_model::{
    Action, Filter, IncidentId, Match, Millis, MitigationId, MitigationState, Originator, Rung,
};

use super::*;
use crate::profile::{Capabilities, Profile};
use crate::reach::Hops;

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
        worth: 0,
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
    let capabilities = Capabilities { max_rules, ..Profile::Generic.capabilities() };
    AdjRibOut::new(Reach {
        divert: Hops { v4: Some([192, 0, 2, 9].into()), v6: None },
        ..Reach::new(families, capabilities)
    })
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
    rib.up(Millis(0), [Family::Ipv4Unicast].into_iter().collect());
    assert_eq!(drain(&mut rib), ["+ blackhole 203.0.113.7/32", "end ipv4-unicast"]);
    let ended = rib.down(Millis(0), Blame::Nothing, &[]);
    assert_eq!(ended, Ended { gone: vec![hole("203.0.113.7/32")], ..Ended::default() });
    assert_eq!(drain(&mut rib), [""; 0]);
}

#[test]
fn the_end_of_rib_waits_for_the_first_desired_state() {
    let mut rib = table(Families::ALL, 100);
    rib.up(Millis(0), [Family::Ipv4FlowSpec].into_iter().collect());
    assert_eq!(drain(&mut rib), [""; 0]);
    rib.want(&[]);
    assert_eq!(drain(&mut rib), ["end ipv4-flowspec"]);
}

#[test]
fn only_changes_are_written() {
    let mut rib = table(Families::ALL, 100);
    rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT), hole("203.0.113.9/32")]));
    rib.up(Millis(0), Families::ALL);
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
    rib.up(Millis(0), [Family::Ipv4FlowSpec].into_iter().collect());
    rib.want(&list(vec![rule(1, LIMIT), rule(1, Action::Drop)]));
    assert_eq!(drain(&mut rib), ["+ flowspec dst 203.0.113.1/32 drop", "end ipv4-flowspec"]);
    rib.want(&list(vec![rule(1, LIMIT)]));
    assert_eq!(drain(&mut rib).len(), 1);
    assert_eq!(rib.announced(), 1);
}

#[test]
fn a_prefix_is_diverted_where_the_peer_has_a_next_hop_for_it() {
    let divert = |net: &str| Measure::Divert(net.parse().unwrap());
    let mut rib = table(Families::ALL, 100);
    rib.up(Millis(0), [Family::Ipv4Unicast].into_iter().collect());
    let refused = rib.want(&list(vec![divert("2001:db8::/48"), divert("192.0.2.0/24")]));
    let why: Vec<&str> = refused.iter().map(|r| r.why.as_str()).collect();
    let own = "its next hop 192.0.2.9 lies in the prefix itself";
    assert_eq!(why, [own, "the peer does not divert (bgp.peer.divert)"]);
    rib.want(&list(vec![divert("203.0.113.0/24")]));
    assert_eq!(drain(&mut rib), ["+ divert 203.0.113.0/24", "end ipv4-unicast"]);
    // The same prefix is one route: what is to be discarded is not sent on.
    rib.want(&list(vec![divert("203.0.113.0/24"), hole("203.0.113.0/24")]));
    assert_eq!(drain(&mut rib), ["divert 203.0.113.0/24 -> blackhole 203.0.113.0/24"]);
    rib.want(&list(vec![divert("203.0.113.0/24")]));
    assert_eq!(drain(&mut rib), ["blackhole 203.0.113.0/24 -> divert 203.0.113.0/24"]);
    rib.want(&[]);
    assert_eq!(drain(&mut rib), ["- divert 203.0.113.0/24"]);
}

#[test]
fn another_incident_marks_the_route_anew() {
    let mut rib = table(Families::ALL, 100);
    rib.up(Millis(0), [Family::Ipv4FlowSpec].into_iter().collect());
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
    let refused = rib.up(Millis(0), [Family::Ipv6FlowSpec].into_iter().collect());
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].why, "the peer does not speak ipv4-flowspec");
}

#[test]
fn a_full_peer_is_relieved_first() {
    let mut rib = table(Families::ALL, 2);
    rib.up(Millis(0), [Family::Ipv4FlowSpec].into_iter().collect());
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
    rib.up(Millis(0), [Family::Ipv4FlowSpec].into_iter().collect());
    let refused = rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT)]));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].why, "the peer holds 1 rules at most");
    assert_eq!(drain(&mut rib).len(), 2);
    assert!(rib.is_settled(Millis(0)));
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
    rib.up(Millis(0), Families::ALL);
    rib.want(&list(vec![rule(1, LIMIT), hole("203.0.113.9/32")]));
    drain(&mut rib);
    rib.refresh(Family::Ipv4FlowSpec);
    assert_eq!(
        drain(&mut rib),
        ["+ flowspec dst 203.0.113.1/32 rate-limit 1000 bytes/s", "end ipv4-flowspec"]
    );
}

/// What is to be said again is said also when something else is compared before that.
#[test]
fn what_is_written_in_other_words_is_written_again_and_nothing_else() {
    let mut rib = table(Families::ALL, 100);
    rib.up(Millis(0), Families::ALL);
    rib.want(&list(vec![rule(1, LIMIT), hole("203.0.113.9/32")]));
    drain(&mut rib);
    rib.write_again(|key, _| matches!(key, RouteKey::Unicast(_)));
    rib.want(&list(vec![rule(1, LIMIT), rule(2, LIMIT), hole("203.0.113.9/32")]));
    rib.compare_all();
    let rules = "+ flowspec dst 203.0.113.2/32 rate-limit 1000 bytes/s";
    assert_eq!(drain(&mut rib), ["+ blackhole 203.0.113.9/32", rules]);
    assert_eq!(drain(&mut rib), [""; 0]);
    // What is withdrawn meanwhile is not said again.
    rib.write_again(|_, _| true);
    rib.want(&[]);
    assert_eq!(drain(&mut rib).len(), 3);
}

#[test]
fn a_peer_that_takes_other_steps_gets_and_loses_what_differs() {
    let mut rib = table(Families::ALL, 100);
    rib.up(Millis(0), Families::ALL);
    rib.want(&list(vec![rule(1, LIMIT), hole("203.0.113.9/32")]));
    drain(&mut rib);
    let all = rib.reach.clone();
    let narrow = |steps: &[Rung], max_rules| {
        let capabilities = Capabilities { max_rules, ..all.capabilities };
        Reach { steps: steps.to_vec(), capabilities, ..all.clone() }
    };
    let refused = rib.set_reach(narrow(&[Rung::RateLimit], 100));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].why.contains("does not take rtbh"), "{refused:?}");
    assert_eq!(drain(&mut rib), ["- blackhole 203.0.113.9/32"]);
    assert_eq!(rib.set_reach(narrow(&[Rung::RateLimit], 100)), []);
    assert_eq!(rib.set_reach(all.clone()), []);
    assert_eq!(drain(&mut rib), ["+ blackhole 203.0.113.9/32"]);
    // Less room: what is worth least goes, and comes back with the room.
    assert_eq!(rib.set_reach(narrow(&Rung::ALL, 0)).len(), 1);
    assert_eq!(drain(&mut rib), ["- flowspec dst 203.0.113.1/32 rate-limit 1000 bytes/s"]);
    rib.set_reach(all);
    assert_eq!(drain(&mut rib), ["+ flowspec dst 203.0.113.1/32 rate-limit 1000 bytes/s"]);
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
                    rib.up(Millis(0), Families::ALL);
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
            rib.up(Millis(0), Families::ALL);
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
        assert!(rib.is_settled(Millis(0)));
    }
}

#[test]
fn a_peer_gets_no_more_routes_than_it_is_said_to_take() {
    let capabilities = Profile::Generic.capabilities();
    let reach = Reach { max_routes: 2, ..Reach::new(Families::ALL, capabilities) };
    let mut rib = AdjRibOut::new(reach);
    rib.up(Millis(0), Families::ALL);
    let worth = |last: u8, worth: u64| Mitigation {
        worth,
        ..mitigation(hole(&format!("203.0.113.{last}/32")), 7)
    };
    let refused =
        rib.want(&[worth(1, 1_000_000), worth(2, 5_000_000_000), worth(3, 9_000_000_000)]);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].measure, hole("203.0.113.1/32"));
    assert_eq!(refused[0].why, "the peer takes 2 black holes and diversions at most");
    let mut peer = BTreeMap::new();
    let most = |rib: &mut AdjRibOut, peer: &mut BTreeMap<RouteKey, Measure>| {
        while let Some(change) = rib.next_change(Millis(0)) {
            apply(peer, change);
            assert!(peer.len() <= 2, "never more than it takes, not even for a moment");
        }
    };
    most(&mut rib, &mut peer);
    assert!(!peer.values().any(|m| *m == hole("203.0.113.1/32")));
    // What goes makes room for what was left out, and rules do not count.
    rib.want(&list(vec![hole("203.0.113.1/32"), hole("203.0.113.3/32")]));
    most(&mut rib, &mut peer);
    let held: Vec<&Measure> = peer.values().collect();
    assert_eq!(held, [&hole("203.0.113.1/32"), &hole("203.0.113.3/32")]);
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

mod conclusions;
