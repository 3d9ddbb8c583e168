//! Which node gets what.

use std::net::IpAddr;
use std::sync::Arc;

use super::reports::{EPOCH_AHEAD_SECS, TEST_MS};
use super::*;
use crate::protocol::{Join, Joined, NodeStats, Report, RuleReport, Verifier, read_rules};
use weir_model::{
    Action, Direction, Family, Filter, FlagMatch, Incident, IncidentId, IncidentState, Match,
    Measure, Metric, MitigationId, MitigationState, Originator, Phase, Range, Rate, Reason, Rung,
    Service, TopEntry, Vector, Verdict,
};

const NOW: Millis = Millis(1_795_000_000_000);

const NODE: &str = "203.0.113.7";

fn desire(controller: &mut Controller, mitigations: &[Mitigation], now: Millis) -> Vec<String> {
    let common = Common::default();
    let situation = Situation {
        mitigations,
        incidents: &[],
        services: &[],
        common: &common,
        alone: true,
        restrained: &[],
    };
    controller.desire(&situation, now)
}

fn joined() -> (Controller, Joined) {
    let mut controller = Controller::new(State::default(), NOW).unwrap();
    let addresses = vec![IpNet::from(NODE.parse::<IpAddr>().unwrap())];
    let ticket = Ticket { addresses, ..Ticket::until(NOW + 1000) };
    controller.add_token("t1", ticket, NOW);
    let join = Join {
        token: "t1".into(),
        name: "node1".into(),
        agent: "0".into(),
        addresses: vec![NODE.parse().unwrap()],
        replace: false,
    };
    let joined = controller.join(&join, "secret", NOW).unwrap();
    assert_eq!(controller.join(&join, "secret", NOW), Err(JoinError::Token), "used once");
    (controller, joined)
}

impl PartialEq for Joined {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

fn mitigation(id: u64, dst: &str) -> Mitigation {
    let packets = Match::to(dst.parse().unwrap());
    Mitigation {
        id: MitigationId(id),
        originator: Originator::Incident(IncidentId(5)),
        measure: Measure::FlowSpec(Filter { packets, action: Action::Drop }),
        rung: Rung::Drop,
        state: MitigationState::Active,
        since: NOW,
        expires: NOW + 60_000,
        ended: None,
        peers: Vec::new(),
        note: String::new(),
        worth: 0,
    }
}

fn report(controller: &Controller, epoch: u64, version: u64) -> Report {
    let _ = controller;
    Report {
        node: "node1".into(),
        agent: "0".into(),
        at: NOW,
        epoch,
        version,
        addresses: Vec::new(),
        skew_ms: 0,
        not_taken: None,
        apply_ms: 0,
        level: "normal".into(),
        abilities: Vec::new(),
        neighbours: Vec::new(),
        rules: Vec::new(),
        services: Vec::new(),
        containers: Vec::new(),
        stats: NodeStats::default(),
        events: Vec::new(),
        test: None,
    }
}

#[test]
fn a_node_gets_its_own_rules_and_no_others() {
    let (mut controller, joined) = joined();
    let mut verifier = Verifier::new(&joined.signing_key, "node1", None).unwrap();
    let theirs = [mitigation(1, "203.0.113.7/32"), mitigation(2, "203.0.113.8/32")];
    assert_eq!(desire(&mut controller, &theirs, NOW), ["node1"]);
    assert!(desire(&mut controller, &theirs, NOW).is_empty());
    let body = verifier.take(&controller.snapshot("node1", NOW).unwrap(), NOW).unwrap();
    let Body::Snapshot(snapshot) = body else { panic!("{body:?}") };
    let (rules, bad) = read_rules(&snapshot.rules);
    assert_eq!(bad, []);
    assert_eq!(rules.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["m1"]);
    assert_eq!(snapshot.incident, Some(IncidentId(5)));
    assert!(verifier.take(&controller.lease("node1", NOW + 1).unwrap(), NOW + 1).is_ok());
    assert_eq!(controller.authenticate("secret").unwrap().node, "node1");
    assert_eq!(controller.authenticate("Secret"), Err(Stranger::Unknown));
}

/// Lets a node in that says it has these addresses, and comes up.
fn join(controller: &mut Controller, name: &str, ticket: Ticket, addresses: &[&str]) -> Report {
    controller.add_token(name, ticket, NOW);
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let join = Join {
        token: name.into(),
        name: name.into(),
        agent: "0".into(),
        addresses: addresses.clone(),
        replace: false,
    };
    controller.join(&join, name, NOW).unwrap();
    let mut said = report(controller, 0, 0);
    said.addresses = addresses;
    said.abilities = vec!["nft".into()];
    controller.report(name, said.clone(), NOW);
    said
}

fn addresses(controller: &Controller, name: &str) -> Vec<String> {
    controller.nodes()[name].addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn addresses_follow_what_the_node_reports() {
    let mut controller = Controller::new(State::default(), NOW).unwrap();
    let ticket = Ticket::until(NOW + 1);
    let mut said = join(&mut controller, "a", ticket, &["203.0.113.7", "172.17.0.1"]);
    let late = [mitigation(1, "203.0.113.8/32")];
    assert!(desire(&mut controller, &late, NOW).is_empty());
    said.addresses = vec!["203.0.113.8".parse().unwrap(), "172.17.0.1".parse().unwrap()];
    assert!(controller.report("a", said.clone(), NOW + 1), "word of it is passed on at once");
    assert_eq!(addresses(&controller, "a"), ["172.17.0.1", "203.0.113.8"]);
    assert_eq!(desire(&mut controller, &late, NOW), ["a"], "a new address gets its rules");
    let told: Vec<&str> = controller.nodes()["a"].events.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(told, ["it has 203.0.113.8 now", "it no longer has 203.0.113.7"]);
    // An agent that does not say keeps what it had.
    said.addresses = Vec::new();
    controller.report("a", said.clone(), NOW + 2);
    assert_eq!(addresses(&controller, "a").len(), 2);
    // Many are all there, and too many are told.
    said.addresses = (0..5000_u32).map(|n| IpAddr::V4((0xcb00_0000 + n).into())).collect();
    controller.report("a", said, NOW + 3);
    assert_eq!(addresses(&controller, "a").len(), ADDRESSES_MAX);
    let last = controller.nodes()["a"].events.last().unwrap();
    assert!(last.text.contains("904 addresses more"), "{}", last.text);
}

#[test]
fn an_address_is_another_nodes_and_routers_wait_for_none_that_only_says_so() {
    let mut controller = Controller::new(State::default(), NOW).unwrap();
    let unbound = || Ticket::until(NOW + 1);
    join(&mut controller, "good", unbound(), &["203.0.113.20", "172.17.0.1"]);
    let claims = ["203.0.113.7", "203.0.113.20", "172.17.0.1"];
    let mut evil = join(&mut controller, "evil", unbound(), &claims);
    assert_eq!(addresses(&controller, "evil"), ["172.17.0.1", "203.0.113.7"]);
    let withheld = &controller.nodes()["evil"].withheld[0];
    assert_eq!(
        (withheld.address, withheld.why.as_str()),
        ("203.0.113.20".parse().unwrap(), "node good has it")
    );
    // It says that the rule is in force, of an address that the operator never named.
    let m = mitigation(1, "203.0.113.7/32");
    desire(&mut controller, std::slice::from_ref(&m), NOW);
    evil.rules = vec![RuleReport {
        id: "m1".into(),
        state: RuleState::Applied,
        why: None,
        dropped: crate::enforcer::Count::default(),
        passed: crate::enforcer::Count::default(),
    }];
    controller.report("evil", evil, NOW);
    assert!(!controller.defends(&m, NOW), "routers get it");
    // The operator's word gives the address to another, and takes it from whoever claimed it.
    let own = Ticket { addresses: vec!["203.0.113.0/28".parse().unwrap()], ..unbound() };
    let named = ["203.0.113.7", "203.0.113.99"];
    join(&mut controller, "named", own, &named);
    assert_eq!(addresses(&controller, "named"), ["203.0.113.7"], "what the token names");
    assert_eq!(addresses(&controller, "evil"), ["172.17.0.1"]);
    assert!(desire(&mut controller, &[m], NOW).contains(&"evil".to_owned()), "its rule leaves");
}

#[test]
fn a_token_for_a_name_lets_no_other_in() {
    let mut controller = Controller::new(State::default(), NOW).unwrap();
    let ticket = Ticket { name: Some("node7".into()), ..Ticket::until(NOW + 1) };
    controller.add_token("t", ticket, NOW);
    let mut asked = Join {
        token: "t".into(),
        name: "node8".into(),
        agent: "0".into(),
        addresses: Vec::new(),
        replace: false,
    };
    assert_eq!(controller.join(&asked, "b", NOW), Err(JoinError::NotThisName));
    asked.name = "node7".into();
    assert!(controller.join(&asked, "b", NOW).is_ok(), "it was not used up");
    // As tokens were stored before they had names.
    let old: Ticket = serde_json::from_str("1795000000000").unwrap();
    assert_eq!(old, Ticket::until(NOW));
}

#[test]
fn what_one_node_reports_is_no_others_version_and_is_bounded() {
    let mut controller = Controller::new(State::default(), NOW).unwrap();
    let mut said = join(&mut controller, "evil", Ticket::until(NOW + 1), &[]);
    join(&mut controller, "good", Ticket::until(NOW + 1), &[]);
    let before = controller.etag("good");
    for epoch in [u64::MAX, 1 << 63, NOW.secs() + EPOCH_AHEAD_SECS + 1] {
        (said.epoch, said.version) = (epoch, u64::MAX);
        assert!(!controller.report("evil", said.clone(), NOW), "no such epoch");
    }
    let years = NOW.secs() + EPOCH_AHEAD_SECS;
    (said.epoch, said.version) = (years, 5);
    assert!(controller.report("evil", said.clone(), NOW));
    let own = controller.etag("evil").unwrap();
    assert!(own.starts_with(&format!("\"{}.", years + 1)), "{own}");
    assert_eq!(controller.etag("good"), before, "another's epoch is its own");
    // Tests come one at a time, and texts have an end.
    (said.epoch, said.version) = (0, 0);
    said.level = "x".repeat(100_000);
    for n in 0..100 {
        said.test = Some(format!("test-{n}"));
        controller.report("evil", said.clone(), NOW + n);
    }
    let node = &controller.nodes()["evil"];
    assert_eq!(node.wanted.rules.len(), 1);
    assert_eq!(node.report.as_ref().unwrap().level.len(), 512);
    assert!(!controller.was_told("evil", IncidentId(5)));
}

#[test]
fn a_limit_from_a_live_estimate_stays_while_the_incident_does() {
    let mut blur = verdict(Family::UdpFlood, Direction::Inbound);
    blur.separable = false;
    let (mut controller, _) = joined();
    let mut versions = Vec::new();
    let mut limit = |excess: f64| {
        blur.excess.packets_per_sec = excess;
        controller_rules(&mut controller, &[], blur.clone(), true);
        let node = &controller.nodes()["node1"];
        versions.push(node.version);
        match node.wanted.rules[0].action {
            NodeAction::RatePackets { packets_per_sec } => packets_per_sec,
            other => panic!("{other:?}"),
        }
    };
    // What is normal is estimated anew each second: 815, 234, 255, 248, 206 and 468 packets a second.
    let limits = [49_600.0, 49_766.0, 49_745.0, 49_752.0, 49_794.0, 49_532.0].map(&mut limit);
    assert_eq!(limits, [800; 6]);
    assert_eq!(limit(40_000.0), 20_000, "another order of size is another limit");
    versions.dedup();
    assert_eq!(versions.len(), 2, "{versions:?}");
}

#[test]
fn a_name_that_is_up_is_taken_only_on_demand_and_both_are_told() {
    let (mut controller, _) = joined();
    let first = controller.authenticate("secret").unwrap();
    controller.add_token("t2", Ticket::until(NOW + 200_000), NOW);
    let mut join = Join {
        token: "t2".into(),
        name: "node1".into(),
        agent: "0".into(),
        addresses: Vec::new(),
        replace: false,
    };
    assert_eq!(controller.join(&join, "other", NOW + 1), Err(JoinError::Up), "about to come up");
    let said = report(&controller, 0, 0);
    controller.report("node1", said, NOW + 100_000);
    assert_eq!(controller.join(&join, "other", NOW + 120_000), Err(JoinError::Up));
    assert!(controller.holds(&first));
    // The token was not used up by the refusals.
    join.replace = true;
    controller.join(&join, "other", NOW + 120_000).unwrap();
    assert!(!controller.holds(&first));
    assert_eq!(controller.authenticate("secret"), Err(Stranger::Replaced));
    assert_eq!(controller.authenticate("other").unwrap().node, "node1");
    let event = &controller.nodes()["node1"].events[0];
    assert_eq!(event.kind, "replaced");
    assert!(event.text.contains("20 s ago"), "{}", event.text);
    // One that is away is set up again without a word more.
    controller.add_token("t3", Ticket::until(NOW + 400_000), NOW);
    let again = Join { token: "t3".into(), replace: false, ..join };
    controller.join(&again, "third", NOW + 120_000 + AWAY_MS).unwrap();
}

#[test]
fn a_state_from_a_backup_starts_a_new_epoch() {
    let (controller, joined) = joined();
    let old = controller.state().clone();
    let mut verifier = Verifier::new(&joined.signing_key, "node1", None).unwrap();
    let mut controller = Controller::new(old.clone(), NOW).unwrap();
    for n in 0..3 {
        let theirs = [mitigation(n, "203.0.113.7/32")];
        desire(&mut controller, &theirs, NOW);
    }
    verifier.take(&controller.snapshot("node1", NOW).unwrap(), NOW).unwrap();
    let (epoch, version) = verifier.version().unwrap();
    let mut restored = Controller::new(old, NOW + 5000).unwrap();
    let envelope = restored.snapshot("node1", NOW + 5000).unwrap();
    assert!(matches!(verifier.take(&envelope, NOW + 5000), Err(Refused::Version { .. })));
    let report = report(&restored, epoch, version);
    assert!(restored.report("node1", report, NOW + 5000));
    let envelope = restored.snapshot("node1", NOW + 5000).unwrap();
    assert!(verifier.take(&envelope, NOW + 5000).is_ok());
}

#[test]
fn a_test_rule_comes_and_goes() {
    let (mut controller, _) = joined();
    let mut asked = report(&controller, 0, 0);
    asked.test = Some("test-1".into());
    assert!(controller.report("node1", asked, NOW));
    assert_eq!(controller.nodes()["node1"].wanted.rules[0].id, "test-1");
    assert!(desire(&mut controller, &[], NOW).is_empty());
    assert_eq!(desire(&mut controller, &[], NOW + TEST_MS), ["node1"]);
    assert!(controller.nodes()["node1"].wanted.rules.is_empty());
}

/// A verdict as the detector gives it, in the parts that matter here.
fn verdict(family: Family, direction: Direction) -> Verdict {
    let rate =
        |packets_per_sec: f64| Rate { packets_per_sec, bits_per_sec: packets_per_sec * 800.0 };
    Verdict {
        served: 0.0,
        incident: IncidentId(5),
        phase: Phase::Ongoing,
        at: NOW,
        target: IpNet::from(NODE.parse::<IpAddr>().unwrap()),
        direction,
        family,
        vectors: Vec::new(),
        confidence: 90,
        evidence_groups: 3,
        separable: true,
        rate: rate(50_000.0),
        peak: rate(50_000.0),
        excess: rate(48_000.0),
        discarded: Rate::default(),
        legitimate: None,
        sources: 40_000.0,
        reason: Reason {
            metric: Metric::PacketsPerSec,
            value: 50_000.0,
            baseline: 2000.0,
            multiplier: 3.0,
            threshold: 6000.0,
            window_ms: 1000,
            samples: 100.0,
            sampling: 1.0,
            exporters: Vec::new(),
            service: None,
            own: None,
        },
        candidates: Vec::new(),
        top_sources: Vec::new(),
        summary: String::new(),
    }
}

fn incident(verdict: Verdict) -> Arc<Incident> {
    Arc::new(Incident {
        id: verdict.incident,
        state: IncidentState::Open,
        opened: NOW,
        closed: None,
        verdict,
        rung: None,
        reached: None,
        held: false,
        group: None,
        mitigations: Vec::new(),
        timeline: Vec::new(),
    })
}

/// Rules that the node gets, as words.
fn rules(mitigations: &[Mitigation], verdict: Verdict, alone: bool) -> Vec<(String, &'static str)> {
    let (mut controller, _) = joined();
    controller_rules(&mut controller, mitigations, verdict, alone)
}

fn controller_rules(
    controller: &mut Controller,
    mitigations: &[Mitigation],
    verdict: Verdict,
    alone: bool,
) -> Vec<(String, &'static str)> {
    restrained_rules(controller, mitigations, verdict, alone, &[])
}

fn restrained_rules(
    controller: &mut Controller,
    mitigations: &[Mitigation],
    verdict: Verdict,
    alone: bool,
    restrained: &[IncidentId],
) -> Vec<(String, &'static str)> {
    let common = Common::default();
    let service = |protocol, port| Service {
        address: NODE.parse().unwrap(),
        protocol,
        port,
        name: String::new(),
        game: String::new(),
    };
    let services = [service(6, 25565), service(17, 27015)];
    let incidents = [incident(verdict)];
    let situation = Situation {
        mitigations,
        incidents: &incidents,
        services: &services,
        common: &common,
        alone,
        restrained,
    };
    controller.desire(&situation, NOW);
    let rules = &controller.nodes()["node1"].wanted.rules;
    assert!(rules.iter().all(|r| r.check().is_ok()), "{rules:?}");
    rules.iter().map(|r| (r.id.clone(), r.action.id())).collect()
}

fn limit(action: Action, ports: &[Range], flags: &[FlagMatch]) -> Mitigation {
    let mut m = mitigation(1, "203.0.113.7/32");
    let Measure::FlowSpec(filter) = &mut m.measure else { panic!() };
    filter.action = action;
    filter.packets.dst_ports = ports.to_vec();
    filter.packets.tcp_flags = flags.to_vec();
    if !flags.is_empty() {
        filter.packets.protocols = vec![6];
    }
    m
}

fn named(list: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    list.iter().map(|(id, action)| ((*id).to_owned(), *action)).collect()
}

#[test]
fn a_syn_flood_is_answered_with_cookies_where_a_service_listens() {
    const SYN: FlagMatch = FlagMatch { mask: 0x12, set: 0x02 };
    let flood = || verdict(Family::SynFlood, Direction::Inbound);
    let all = limit(Action::Drop, &[], &[SYN]);
    assert_eq!(rules(&[all], flood(), true), named(&[("m1.syn", "syn-proxy"), ("m1", "drop")]));
    let one = limit(Action::Drop, &[Range::exact(25565)], &[SYN]);
    assert_eq!(rules(std::slice::from_ref(&one), flood(), true), named(&[("m1.syn", "syn-proxy")]));
    let some = limit(Action::Drop, &[Range { from: 25560, to: 25570 }], &[SYN]);
    let both = rules(&[some], flood(), false);
    assert_eq!(both.len(), 2, "{both:?}");
    // ACKs need no cookies, and neither does a service that the attack does not meet.
    let ack = limit(Action::Drop, &[], &[FlagMatch { mask: 0x10, set: 0x10 }]);
    assert_eq!(rules(&[ack], flood(), true), named(&[("m1", "drop")]));
    let (mut controller, _) = joined();
    let mut told = report(&controller, 0, 0);
    told.rules = vec![RuleReport {
        id: "m1.syn".into(),
        state: RuleState::Refused,
        why: None,
        dropped: crate::enforcer::Count::default(),
        passed: crate::enforcer::Count::default(),
    }];
    controller.report("node1", told, NOW);
    let rules = controller_rules(&mut controller, &[one], flood(), true);
    assert_eq!(rules, named(&[("m1", "drop")]), "a node that cannot gets the ladder's rule");
}

#[test]
fn few_heavy_sources_are_metered_each() {
    let mut few = verdict(Family::UdpFlood, Direction::Inbound);
    few.sources = 30.0;
    let by_bytes = limit(Action::RateLimit { bytes_per_sec: 1_000_000 }, &[], &[]);
    assert_eq!(rules(&[by_bytes], few.clone(), true), named(&[("m1.src", "per-source")]));
    let by_packets = limit(Action::RateLimitPackets { packets_per_sec: 9000 }, &[], &[]);
    few.sources = 40_000.0;
    assert_eq!(rules(&[by_packets], few, true), named(&[("m1", "rate-packets")]));
}

#[test]
fn what_no_match_tells_apart_is_left_to_the_players_that_the_node_knows() {
    let mut blur = verdict(Family::UdpFlood, Direction::Inbound);
    blur.separable = false;
    assert_eq!(rules(&[], blur.clone(), true), named(&[("i5.known", "rate-packets")]));
    assert_eq!(rules(&[], blur.clone(), false), [], "only an operator may say so");
    let (mut controller, _) = joined();
    let id = incident(blur.clone()).id;
    let restrained = restrained_rules(&mut controller, &[], blur, true, &[id]);
    assert_eq!(restrained, [], "its group does not want it");
}

#[test]
fn a_server_that_attacks_is_limited_at_home_and_its_services_go_on() {
    let mut out = verdict(Family::UdpFlood, Direction::Outbound);
    let wanted = named(&[("i5.answers17", "accept"), ("i5.out", "rate-packets")]);
    assert_eq!(rules(&[], out.clone(), true), wanted);
    assert_eq!(rules(&[], out.clone(), false), []);
    out.vectors = vec![Vector {
        family: Family::UdpFlood,
        subtype: String::new(),
        share: 1.0,
        rate: out.rate,
        src_ports: vec![27015],
        dst_ports: Vec::new(),
    }];
    let wanted = named(&[("i5.out", "rate-packets")]);
    assert_eq!(rules(&[], out, true), wanted, "the attack leaves by the service's own port");
}

#[test]
fn sources_that_complete_connections_are_blocked_by_name_and_nobody_of_ours() {
    let mut flood = verdict(Family::HttpFlood, Direction::Inbound);
    let top = |value: &str, share| TopEntry { value: value.into(), share };
    flood.top_sources = vec![
        top("192.0.2.9", 0.4),
        top("192.0.2.10", 0.001),
        top(NODE, 0.3),
        top("2001:db8::9", 0.2),
    ];
    let (mut controller, _) = joined();
    controller_rules(&mut controller, &[], flood.clone(), true);
    let (blocked, _) = controller.decisions(NOW);
    let blocked: Vec<String> = blocked.iter().map(|b| b.source.to_string()).collect();
    assert_eq!(blocked, ["192.0.2.9/32", "2001:db8::9/128"]);
    flood.family = Family::UdpFlood;
    controller_rules(&mut controller, &[], flood, true);
    let (blocked, gone) = controller.decisions(NOW);
    assert_eq!((blocked.len(), gone.len()), (0, 2), "a flood may bear any sender's name");
}

#[test]
fn routers_wait_only_for_a_node_that_does_its_work() {
    let (mut controller, _) = joined();
    let m = mitigation(1, "203.0.113.7/32");
    assert!(!controller.defends(&m, NOW), "it has said nothing yet");
    let mut told = report(&controller, 0, 0);
    told.abilities = vec!["nft".into()];
    controller.report("node1", told.clone(), NOW);
    assert!(controller.defends(&m, NOW + 1000), "it is about to");
    assert!(!controller.defends(&m, NOW + 3000), "it did not");
    let rule = |id: &str, state| RuleReport {
        id: id.into(),
        state,
        why: None,
        dropped: crate::enforcer::Count::default(),
        passed: crate::enforcer::Count::default(),
    };
    told.rules = vec![rule("m11", RuleState::Refused), rule("m1.syn", RuleState::Applied)];
    controller.report("node1", told.clone(), NOW);
    assert!(!controller.defends(&m, NOW + 3000), "it was given no such rule");
    desire(&mut controller, std::slice::from_ref(&m), NOW);
    told.rules = vec![rule("m11", RuleState::Refused), rule("m1", RuleState::Applied)];
    controller.report("node1", told.clone(), NOW);
    assert!(controller.defends(&m, NOW + 3000));
    assert!(!controller.defends(&m, NOW + AWAY_MS), "away");
    assert!(!controller.defends(&mitigation(1, "203.0.113.0/24"), NOW), "not one host");
    let policy = |hand_over| Policy { hand_over, wait_ms: 5000, link_bits_per_sec: 1_000_000_000 };
    let verdict = verdict(Family::UdpFlood, Direction::Inbound);
    let holds = |hand_over, after, defended| {
        policy(hand_over).holds_back(&m, Some(&verdict), defended, NOW + after)
    };
    assert!(!holds(HandOver::Beside, 0, true));
    assert!(holds(HandOver::Before, 4999, true) && !holds(HandOver::Before, 5000, true));
    assert!(holds(HandOver::Instead, 60_000, true) && !holds(HandOver::Instead, 0, false));
    let mut flood = verdict.clone();
    flood.rate.bits_per_sec = 2e9;
    assert!(!policy(HandOver::Instead).holds_back(&m, Some(&flood), true, NOW), "more than a link");
    let mut hand = m.clone();
    hand.originator = Originator::Operator("anna".into());
    assert!(!policy(HandOver::Instead).holds_back(&hand, None, true, NOW));
}
