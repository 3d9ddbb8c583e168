//! Did it help, did it hurt: the loop closed over the traffic.

use weir_model::{Goodput, IncidentId, MitigationState, Observed, Rate, Rung, Verdict};

use super::{World, attack, candidate, drop_from, limit_from};
use crate::Visibility;

fn bits(mbps: f64) -> Rate {
    Rate { packets_per_sec: mbps * 125.0, bits_per_sec: mbps * 1e6 }
}

fn goodput(now: f64) -> Option<Goodput> {
    Some(Goodput { now: bits(now), normal: bits(10.0), expected_samples: 100.0 })
}

/// One verdict a second; the peer reports at once; what is on the wire is given to `traffic`.
fn run(world: &mut World, secs: u64, traffic: impl Fn(&[String], Verdict) -> Verdict) {
    for _ in 0..secs {
        let in_force = world.desired();
        let verdict = traffic(&in_force, attack(1, 3000.0, world.now));
        world.mitigator.verdict(&verdict, world.now);
        world.mitigator.advance(world.now);
        world.announce_all();
        world.wait(1);
    }
}

fn left_over(mut v: Verdict, mbps: f64) -> Verdict {
    v.rate = bits(mbps);
    v.excess = bits(mbps * 0.98);
    v
}

#[test]
fn traffic_that_does_not_fall_moves_the_incident_up() {
    let mut world = World::seeing();
    run(&mut world, 5, |_, v| v);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    run(&mut world, 2, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)]);
    run(&mut world, 6, |_, v| v);
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
}

#[test]
fn traffic_that_falls_keeps_the_gentlest_step() {
    let mut world = World::auto();
    run(&mut world, 120, |in_force, v| if in_force.is_empty() { v } else { left_over(v, 60.0) });
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    assert_eq!(world.of(MitigationState::Withdrawn).len(), 0);
}

#[test]
fn a_step_that_the_volume_does_not_allow_is_not_taken() {
    let mut world = World::seeing();
    run(&mut world, 60, |_, v| left_over(v, 450.0));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let stays = world.actions().iter().filter(|a| *a == "stay").count();
    assert_eq!(stays, 1, "said once");
}

#[test]
fn nothing_is_judged_before_a_peer_has_it() {
    let mut world = World::auto();
    world.attack(1, 3000.0, 60);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn a_router_whose_session_is_lost_is_no_reason_for_a_harder_step() {
    let mut world = World::seeing();
    run(&mut world, 8, |in_force, v| if in_force.is_empty() { v } else { left_over(v, 60.0) });
    let measure = world.mitigator.desired().mitigations[0].measure.clone();
    let gone = Observed::Withdrawn { peer: "edge1".into(), measure, at: world.now };
    world.mitigator.observed(&gone);
    world.attack(1, 3000.0, 60);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    // Back again, it has its five seconds like any other.
    run(&mut world, 7, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn a_late_exporter_is_waited_for() {
    let mut world = World::seeing();
    let mut late = status("edge1");
    late.lag_ms = 60_000;
    world.mitigator.exporters(&[late]);
    run(&mut world, 63, |_, v| v);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    run(&mut world, 4, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn what_the_router_says_it_discards_counts_as_gone() {
    let mut world = World::auto();
    let discards = |in_force: &[String], mut v: Verdict| {
        if !in_force.is_empty() {
            v = left_over(v, 100.0);
            v.discarded = bits(2900.0);
        }
        v
    };
    run(&mut world, 60, discards);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    let sight = world.mitigator.checkpoint().sights["edge1"];
    assert_eq!((sight.fell, sight.stayed), (0, 1), "learned: it samples before the filter");
}

#[test]
fn an_exporter_known_to_sample_before_the_filter_proves_nothing() {
    let mut world = World::new(|c| {
        c.exporter_visibility.insert("edge1".into(), Visibility::BeforeFilter);
    });
    run(&mut world, 60, |_, v| v);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn until_it_is_known_what_an_exporter_sees_nothing_is_proved() {
    // The exporter samples before the filter, and nobody has told weir.
    let mut world = World::auto();
    run(&mut world, 300, |_, v| v);
    assert_eq!(world.desired(), [limit_from(123, 300_000)], "no step on such proof");
    assert_eq!(world.actions(), ["open", "announce"]);
    let sight = world.mitigator.checkpoint().sights["edge1"];
    assert_eq!((sight.fell, sight.stayed), (0, 1), "one generation is one observation");
    // A few stray discards do not make the rest count.
    let mut world = World::auto();
    run(&mut world, 60, |_, mut v| {
        v.discarded = bits(3.0);
        v
    });
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    // A router that says what it discards, and says it of a fifth only, has proved something.
    let mut world = World::auto();
    run(&mut world, 8, |_, mut v| {
        v.discarded = bits(600.0);
        v
    });
    assert_eq!(world.desired(), [drop_from(123)]);
}

#[test]
fn what_an_exporter_sees_is_learned_from_prompt_falls_and_from_what_comes_back() {
    let falls = |in_force: &[String], v| if in_force.is_empty() { v } else { left_over(v, 60.0) };
    let fell = |world: &World| world.mitigator.checkpoint().sights.get("edge1").map(|s| s.fell);
    let mut world = World::auto();
    run(&mut world, 10, falls);
    assert_eq!(fell(&world), Some(1));
    world.end(1);
    world.wait(35);
    assert_eq!(world.desired(), [""; 0], "a last look");
    run(&mut world, 1, falls);
    assert_eq!(fell(&world), Some(2), "withdrawn, and it is back");
    // Now that it is known, a rule that does nothing leads on.
    run(&mut world, 7, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)]);

    // An attack that ends long after the rule came shows nothing.
    let mut world = World::auto();
    world.attack_as(1, |at| Verdict {
        candidates: Vec::new(),
        separable: false,
        ..attack(1, 3000.0, at)
    });
    run(&mut world, 30, |_, mut v| {
        v.candidates[0].packets.lengths = vec![weir_model::Range { from: 400, to: 500 }];
        v
    });
    run(&mut world, 10, |_, v| left_over(v, 60.0));
    assert_eq!(fell(&world), Some(0));
}

#[test]
fn pulses_under_a_standing_rule_show_that_filtered_traffic_stays_in_sight() {
    let mut world = World::auto();
    for _ in 0..3 {
        // Each is over just when the rule should begin to show.
        run(&mut world, 4, |_, v| v);
        run(&mut world, 6, |_, v| left_over(v, 0.0));
        world.end(1);
        world.wait(20);
    }
    run(&mut world, 60, |_, v| v);
    assert_eq!(world.desired(), [limit_from(123, 300_000)], "and no harder step is taken");
}

#[test]
fn when_not_even_a_black_hole_shows_weir_goes_back_to_the_rule() {
    let mut world = World::seeing();
    run(&mut world, 13, |_, v| v);
    assert_eq!(world.desired(), ["blackhole 203.0.113.7/32"]);
    run(&mut world, 8, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)]);
    run(&mut world, 200, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)], "and does not come back to it");
    // The next victim behind the same exporter is not black-holed on such proof.
    world.attack_as(60, |at| Verdict { incident: IncidentId(9), ..attack(9, 3000.0, at) });
    assert!(!world.desired().iter().any(|m| m.starts_with("blackhole")));
}

#[test]
fn a_rule_that_starves_the_players_is_rolled_back_and_the_second_best_tried() {
    let mut world = World::auto();
    let starves = limit_from(123, 300_000);
    let traffic = |in_force: &[String], mut v: Verdict| {
        v.candidates.push(candidate(53, 0.8, 0.002));
        v.candidates[1].normal_bytes_per_sec = 0.0;
        v.legitimate = goodput(if in_force.contains(&starves) { 0.5 } else { 9.0 });
        if !in_force.is_empty() {
            v = left_over(v, 60.0);
        }
        v
    };
    // Only the first candidate at first: the second is for later.
    run(&mut world, 1, |in_force, v| {
        let mut v = traffic(in_force, v);
        v.candidates.truncate(1);
        v
    });
    assert!(world.desired().contains(&starves));
    run(&mut world, 1, traffic);
    assert!(world.desired().contains(&starves), "one measurement may be off");
    run(&mut world, 1, traffic);
    assert_eq!(world.desired(), [""; 0], "withdrawn at the second");
    run(&mut world, 4, traffic);
    assert_eq!(world.desired(), [limit_from(53, 130_000)], "with the next generation");
    run(&mut world, 60, traffic);
    assert_eq!(world.desired(), [limit_from(53, 130_000)]);
    assert!(world.actions().iter().any(|a| a == "roll-back"));
    // A restart within the day does not make it try again.
    world.end(1);
    world.wait(60);
    world.restart(|_| {});
    world.wait(3600);
    run(&mut world, 3, traffic);
    assert!(!world.desired().contains(&starves));
}

/// All UDP towards the victim dropped by hand, by somebody in a hurry; how the rule reads.
fn drop_udp(world: &mut World) -> String {
    let by_hand = weir_model::Measure::FlowSpec(weir_model::Filter {
        packets: weir_model::Match {
            protocols: vec![17],
            ..weir_model::Match::to(super::net(super::VICTIM))
        },
        action: weir_model::Action::Drop,
    });
    let starves = by_hand.to_string();
    let add = weir_model::Command::Add { measure: by_hand, ttl_secs: 600, by: "eve".into() };
    world.command(&add).unwrap();
    assert_eq!(world.desired(), std::slice::from_ref(&starves));
    starves
}

/// As many seconds without a verdict; what is asked of the players meanwhile is answered with this.
/// Yields how often it was asked.
fn after_attack(world: &mut World, secs: u64, legitimate: Goodput) -> usize {
    let mut asked = 0;
    for _ in 0..secs * 10 {
        for (incident, target) in world.mitigator.observed_after(world.now) {
            assert_eq!(target, super::net(super::VICTIM));
            world.mitigator.fares(incident, legitimate, world.now);
            asked += 1;
        }
        world.mitigator.advance(world.now);
        world.announce_all();
        world.now = world.now + 100;
    }
    asked
}

fn players(world: &mut World, secs: u64) {
    run(world, secs, |_, mut v| {
        v.legitimate = goodput(9.0);
        v
    });
}

#[test]
fn a_manual_rule_that_starves_the_players_is_rolled_back() {
    let mut world = World::new(|c| c.mode = weir_model::Mode::Approve);
    players(&mut world, 5);
    let starves = drop_udp(&mut world);
    let starving = |in_force: &[String], mut v: Verdict| {
        v.legitimate = goodput(if in_force.contains(&starves) { 0.2 } else { 9.0 });
        v
    };
    run(&mut world, 2, starving);
    assert_eq!(world.desired(), std::slice::from_ref(&starves), "one measurement may be off");
    run(&mut world, 2, starving);
    assert_eq!(world.desired(), [""; 0]);
    assert!(world.actions().contains(&"roll-back".to_owned()));
    let note = &world.of(MitigationState::Withdrawn)[0].note;
    assert!(note.starts_with("rolled back: legitimate traffic fell to 2 %"), "{note}");
    assert!(world.mitigator.manual_watches.is_empty());
}

#[test]
fn a_manual_rule_whose_attack_is_over_before_the_verdict_is_rolled_back_all_the_same() {
    // The peer may have it before the end of the attack or after it.
    for at_once in [true, false] {
        let mut world = World::new(|c| c.mode = weir_model::Mode::Approve);
        players(&mut world, 5);
        let starves = drop_udp(&mut world);
        if at_once {
            world.announce_all();
        }
        // It drops what is seen of the attack as well.
        world.end(1);
        let incident = world.mitigator.incidents().next().unwrap();
        assert_eq!(incident.state, weir_model::IncidentState::Closed);
        after_attack(&mut world, 1, goodput(0.2).unwrap());
        assert_eq!(world.desired(), std::slice::from_ref(&starves), "one measurement may be off");
        after_attack(&mut world, 2, goodput(0.2).unwrap());
        assert_eq!(world.desired(), [""; 0]);
        let decisions = world.mitigator.take_decisions();
        let why = decisions.iter().find(|d| d.action == "roll-back").unwrap();
        assert_eq!(why.detail, format!("{starves}: legitimate traffic fell to 2 %"));
        let withdrawn = world.of(MitigationState::Withdrawn);
        assert_eq!(withdrawn[0].note, "rolled back: legitimate traffic fell to 2 %");
        assert_eq!(after_attack(&mut world, 5, goodput(0.2).unwrap()), 0, "nothing is left to see");
    }
}

#[test]
fn a_rule_is_observed_after_the_attack_for_a_time_only() {
    let mut world = World::new(|c| c.mode = weir_model::Mode::Approve);
    players(&mut world, 5);
    let harmless = drop_udp(&mut world);
    world.announce_all();
    world.end(1);
    let asked = after_attack(&mut world, 60, goodput(9.0).unwrap());
    assert!((10..=11).contains(&asked), "once a second, for ten seconds: {asked}");
    // Players who leave later are not its fault.
    assert_eq!(after_attack(&mut world, 60, goodput(0.0).unwrap()), 0);
    assert_eq!(world.desired(), [harmless]);
    assert!(world.mitigator.manual_watches.is_empty());
}

#[test]
fn weirs_own_rule_is_observed_to_the_end_as_well() {
    let mut world = World::auto();
    players(&mut world, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.announce_all();
    world.end(1);
    after_attack(&mut world, 3, goodput(0.2).unwrap());
    assert_eq!(world.desired(), [""; 0], "not held for the players to starve");
    assert!(world.actions().contains(&"roll-back".to_owned()));
    // The attack is back while weir still looks: the rule is known to do harm.
    players(&mut world, 10);
    assert!(!world.desired().contains(&limit_from(123, 300_000)));
}

#[test]
fn a_collapse_that_the_attack_brought_is_not_laid_at_the_rules_door() {
    let mut world = World::auto();
    let check = |world: &mut World, legitimate: Option<Goodput>, after: Option<Goodput>| {
        run(world, 15, |in_force, mut v| {
            v.legitimate = if in_force.is_empty() { legitimate } else { after };
            if in_force.is_empty() { v } else { left_over(v, 60.0) }
        });
        assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    };
    check(&mut world, goodput(2.0), goodput(0.1));
    check(&mut World::auto(), None, goodput(0.1));
    let few = |now| goodput(now).map(|g| Goodput { expected_samples: 5.0, ..g });
    check(&mut World::auto(), few(9.0), few(0.0));
}

#[test]
fn players_who_leave_much_later_are_not_the_rules_fault() {
    let mut world = World::auto();
    let good = |in_force: &[String], mut v: Verdict| {
        v.legitimate = goodput(9.0);
        if in_force.is_empty() { v } else { left_over(v, 60.0) }
    };
    run(&mut world, 13, good);
    run(&mut world, 20, |in_force, v| {
        let mut v = good(in_force, v);
        v.legitimate = goodput(0.0);
        v
    });
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn a_rule_that_cuts_nothing_is_withdrawn() {
    let mut world = World::seeing_with(|c| c.ladder.truncate(1));
    // The excess is something else by now, and the detector has no better match to offer.
    run(&mut world, 1, |_, v| v);
    assert_eq!(world.desired().len(), 1);
    run(&mut world, 20, |_, mut v| {
        v.candidates.clear();
        v.separable = false;
        v
    });
    assert_eq!(world.desired(), [""; 0]);
    assert!(world.actions().iter().any(|a| a == "roll-back"));
    // The attack turns to what the rule matches: then it is worth another try.
    run(&mut world, 2, |_, v| v);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn a_vector_that_changes_gets_a_rule_beside_the_old_one() {
    let mut world = World::auto();
    run(&mut world, 20, |in_force, v| if in_force.is_empty() { v } else { left_over(v, 60.0) });
    let second = limit_from(389, 300_000);
    run(&mut world, 20, |in_force, mut v| {
        v.candidates = vec![candidate(389, 0.95, 0.001)];
        if in_force.contains(&second) { left_over(v, 60.0) } else { v }
    });
    assert_eq!(world.desired(), [limit_from(123, 300_000), second]);
}

#[test]
fn the_watch_goes_on_after_a_restart() {
    let mut world = World::seeing();
    run(&mut world, 3, |_, v| v);
    world.restart(|_| {});
    world.mitigator.advance(world.now);
    run(&mut world, 8, |_, v| v);
    assert_eq!(world.desired(), [drop_from(123)]);
    let rung = world.mitigator.incidents().next().unwrap().rung;
    assert_eq!(rung, Some(Rung::Drop));
}

#[test]
fn an_effect_seen_is_learned_and_reports_stay_bounded() {
    let mut world = World::auto();
    run(&mut world, 10, |in_force, v| if in_force.is_empty() { v } else { left_over(v, 60.0) });
    assert_eq!(world.mitigator.checkpoint().sights["edge1"].fell, 1);
    let peer = |i: u32| {
        Observed::Peer(weir_model::PeerStatus {
            name: format!("peer{i}"),
            address: "192.0.2.1".parse().unwrap(),
            asn: 64512,
            state: weir_model::PeerState::Established,
            since: world.now,
            families: Vec::new(),
            announced: 0,
            flaps: 0,
            failures: 0,
            last_error: None,
            kept_back: 0,
            rpki: None,
            standing: weir_model::PeerStanding::default(),
            bfd: None,
        })
    };
    let reports: Vec<Observed> = (0..5000).map(peer).collect();
    for report in &reports {
        world.mitigator.observed(report);
    }
    assert_eq!(world.mitigator.peers.known(), crate::peers::PEERS_MAX);
}

pub(super) fn status(name: &str) -> weir_model::ExporterStatus {
    weir_model::ExporterStatus {
        id: weir_model::ExporterId(0),
        address: "192.0.2.1".parse().unwrap(),
        agent: None,
        name: name.into(),
        protocol: None,
        last_seen: weir_model::Millis(0),
        datagrams: 0,
        records: 0,
        decode_errors: 0,
        unknown_templates: 0,
        lost: 0,
        templates: 0,
        sampling: 1,
        sampling_source: weir_model::SamplingSource::Operator,
        lag_ms: 0,
        lag_p50_ms: 0,
        active_timeout_ms: 0,
        duplicates: 0,
        sampling_doubted: 0,
        drops: Vec::new(),
        clock_skew_ms: 0,
        troubles: Vec::new(),
        interfaces: Vec::new(),
        links: Vec::new(),
    }
}

#[test]
fn a_rule_is_useless_only_against_what_it_promised() {
    // One vector of several: a quarter of the excess was promised, and the rest is still there.
    let part = |_: &[String], mut v: Verdict| {
        v.candidates = vec![candidate(123, 0.25, 0.001)];
        v
    };
    let mut world = World::seeing_with(|c| c.ladder.truncate(1));
    run(&mut world, 30, part);
    assert_eq!(world.desired().len(), 1, "{:?}", world.actions());
    assert!(!world.actions().iter().any(|a| a == "roll-back"));
}
