//! What may be wanted is not cut, what nobody sees is not judged, and small packets are not counted in octets.

use weir_model::{Hold, MitigationState, Phase, Rate, Rung, Vector};

use super::*;

fn held(hold: Option<Hold>, at: Millis) -> Verdict {
    let mut verdict = attack(1, 3000.0, at);
    verdict.candidates[0].hold = hold;
    verdict
}

#[test]
fn a_rule_that_is_held_back_is_not_announced_and_nothing_harder_is_done() {
    for hold in [Hold::Answered, Hold::Undecided, Hold::OneWay, Hold::Learning, Hold::Tunnel] {
        let mut world = World::new(|c| c.link_limit_bits_per_sec = Some(1_000_000_000));
        world.attack_as(20, |at| held(Some(hold), at));
        assert_eq!(world.desired(), [""; 0], "{hold:?}");
        let told = world.mitigator.take_decisions();
        assert!(told.iter().any(|d| d.detail.contains(hold.why())), "{hold:?}: {told:?}");
    }
    let mut world = World::auto();
    world.attack_as(1, |at| held(Some(Hold::Undecided), at));
    world.attack_as(1, |at| held(None, at));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn nothing_is_black_holed_of_which_a_part_may_be_wanted() {
    let both = |hold, at| {
        let mut verdict = attack(1, 3000.0, at);
        verdict.candidates = vec![candidate(19, 0.4, 0.0), candidate(3283, 0.55, 0.0)];
        verdict.candidates[1].hold = hold;
        verdict
    };
    let mut world = World::auto();
    world.attack_as(2, |at| both(Some(Hold::Tunnel), at));
    world.announce_all();
    world.attack_as(20, |at| both(Some(Hold::Tunnel), at));
    assert_eq!(world.desired(), [limit_from(19, 300_000)]);
}

#[test]
fn a_rule_that_is_found_to_cut_answered_traffic_is_withdrawn_and_not_used_again() {
    let mut world = World::auto();
    world.attack_as(2, |at| held(None, at));
    world.announce_all();
    assert_eq!(world.desired().len(), 1);
    world.attack_as(1, |at| held(Some(Hold::Answered), at));
    assert_eq!(world.desired(), [""; 0]);
    assert_eq!(world.of(MitigationState::Withdrawn).len(), 1);
    assert!(world.actions().contains(&"roll-back".to_owned()));
    world.attack_as(20, |at| held(None, at));
    assert_eq!(world.desired(), [""; 0], "in this incident it stays away");
}

#[test]
fn a_rule_that_waited_for_a_second_look_joins_those_in_force() {
    let both = |hold, at| {
        let mut verdict = attack(1, 800.0, at);
        verdict.candidates = vec![candidate(500, 0.6, 0.0), candidate(4500, 0.38, 0.0)];
        verdict.candidates[1].hold = hold;
        verdict
    };
    let mut world = World::auto();
    world.attack_as(1, |at| both(Some(Hold::OneLook), at));
    assert_eq!(world.desired(), [limit_from(500, 300_000)]);
    world.attack_as(1, |at| both(None, at));
    assert_eq!(world.desired(), [limit_from(500, 300_000), limit_from(4500, 300_000)]);
}

#[test]
fn while_exporters_are_silent_what_is_in_force_stays_and_nothing_harder_follows() {
    let mut world = World::auto();
    world.attack(1, 3000.0, 2);
    world.announce_all();
    let before = world.desired();
    assert_eq!(before.len(), 1);
    world.attack_as(900, |at| Verdict { phase: Phase::Blind, ..attack(1, 3000.0, at) });
    assert_eq!(world.desired(), before, "longer than a measure lives");
    let told = world.actions();
    assert_eq!(told.iter().filter(|action| *action == "blind").count(), 1, "{told:?}");
    assert!(!told.contains(&"escalate".to_owned()), "{told:?}");
    world.end(1);
    world.wait(120);
    assert_eq!(world.desired(), [""; 0]);
}

/// 10,000 SYNs of 40 octets a second: 3.2 Mbit/s.
fn syns(confidence: u8, at: Millis) -> Verdict {
    let rate = Rate { packets_per_sec: 10_000.0, bits_per_sec: 3_200_000.0 };
    let mut verdict = attack(1, 3.2, at);
    (verdict.rate, verdict.excess, verdict.confidence) = (rate, rate, confidence);
    verdict.vectors = vec![Vector {
        family: Family::SynFlood,
        subtype: "syn-flood".into(),
        share: 1.0,
        rate,
        src_ports: Vec::new(),
        dst_ports: vec![25_565],
    }];
    verdict.candidates[0].rate = rate;
    verdict.candidates[0].normal_bytes_per_sec = 100.0;
    verdict
}

#[test]
fn a_syn_flood_is_dropped_rather_than_limited_to_thousands_of_syns() {
    let mut world = World::auto();
    world.attack_as(1, |at| syns(99, at));
    assert_eq!(world.desired(), [drop_from(123)]);
    // Where weir is not sure, and where drops are not allowed, so many packets pass.
    let mut world = World::auto();
    world.attack_as(1, |at| syns(60, at));
    assert_eq!(world.desired(), [limit_from(123, 40_000)]);
    // What is normal passes all the same.
    let mut world = World::auto();
    world.attack_as(1, |at| {
        let mut verdict = syns(60, at);
        verdict.candidates[0].normal_bytes_per_sec = 100_000.0;
        verdict
    });
    assert_eq!(world.desired(), [limit_from(123, 150_000)]);
}

#[test]
fn a_step_has_a_least_volume_in_syns() {
    let few = |at| {
        let mut verdict = syns(99, at);
        let rate = Rate { packets_per_sec: 900.0, bits_per_sec: 288_000.0 };
        (verdict.rate, verdict.vectors[0].rate) = (rate, rate);
        verdict
    };
    let mut world = World::auto();
    world.attack_as(3, few);
    assert_eq!(world.desired(), [""; 0]);
    let limits = Config::default().ladder;
    let of = |rung| limits.iter().find(|s| s.rung == rung).and_then(|s| s.above_syns_per_sec);
    assert_eq!([of(Rung::RateLimit), of(Rung::Rtbh)], [Some(1_000), None]);
}

#[test]
fn a_host_that_serves_many_still_is_not_put_into_a_black_hole_for_its_own_sake() {
    let flood = |served, at| Verdict { separable: false, served, ..attack(1, 3000.0, at) };
    let mut world = World::new(|c| c.rtbh_when_inseparable = true);
    world.attack_as(30, |at| flood(0.3, at));
    assert_eq!(world.desired(), [""; 0]);
    // Of a host that answers next to nobody a black hole takes little away.
    world.attack_as(30, |at| flood(0.02, at));
    assert_eq!(world.desired().len(), 1);
}
