//! Whole lives in virtual time. One [`World`] drives the public API only.

mod away;
mod budget;
mod divert;
mod feedback;
mod manual;
mod people;
mod policy;
mod preview;
mod repeat;
mod scope;
mod stance;
mod uplinks;
mod wanted;

use std::sync::Arc;

use weir_model::{
    Action, Candidate, Command, CommandError, Direction, Family, Filter, IncidentId, IncidentState,
    Inventory, IpNet, Match, Measure, Metric, Millis, Mitigation, MitigationState, Mode, Observed,
    Phase, Range, Rate, Reason, Rung, Verdict,
};

use crate::{Config, GuardConfig, Mitigator};

pub(crate) const VICTIM: &str = "203.0.113.7/32";

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn inventory() -> Arc<Inventory> {
    Arc::new(Inventory::new(
        vec![net("203.0.113.0/24"), net("2001:db8::/32")].into(),
        vec![net("203.0.113.1/32")].into(),
        Vec::new(),
    ))
}

/// NTP reflection and whatever else, by source port.
pub(crate) fn candidate(src_port: u16, coverage: f64, collateral: f64) -> Candidate {
    let mut packets = Match::to(net(VICTIM));
    packets.protocols = vec![17];
    packets.src_ports = vec![Range::exact(src_port)];
    Candidate {
        packets,
        parts: Vec::new(),
        coverage,
        coverage_low: coverage * 0.95,
        collateral,
        collateral_high: collateral + 0.01,
        rate: Rate::default(),
        normal_bytes_per_sec: 200_000.0,
        hold: None,
    }
}

/// A clear attack of so many Mbit/s: confidence 90, two groups, one candidate that covers 97 %.
pub(crate) fn attack(id: u64, mbps: f64, at: Millis) -> Verdict {
    let rate = |share: f64| Rate {
        packets_per_sec: mbps * 1e6 / 8000.0 * share,
        bits_per_sec: mbps * 1e6 * share,
    };
    Verdict {
        served: 0.0,
        incident: IncidentId(id),
        phase: Phase::Ongoing,
        at,
        target: net(VICTIM),
        direction: Direction::Inbound,
        family: Family::UdpFlood,
        vectors: Vec::new(),
        confidence: 90,
        evidence_groups: 2,
        separable: true,
        rate: rate(1.0),
        peak: rate(1.0),
        excess: rate(0.98),
        discarded: Rate::default(),
        legitimate: None,
        sources: 500.0,
        reason: Reason {
            metric: Metric::BitsPerSec,
            value: mbps * 1e6,
            baseline: 1e7,
            multiplier: 3.0,
            threshold: 3e7,
            window_ms: 1000,
            samples: 400.0,
            sampling: 1000.0,
            exporters: vec!["edge1".into()],
            service: None,
            own: None,
        },
        candidates: vec![candidate(123, 0.97, 0.001)],
        top_sources: Vec::new(),
        summary: "UDP flood".into(),
    }
}

pub(crate) struct World {
    pub(crate) mitigator: Mitigator,
    pub(crate) now: Millis,
}

impl World {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { mode: Mode::Auto, ..Config::default() };
        change(&mut config);
        config.check().unwrap();
        let mitigator = Mitigator::new(config, GuardConfig::default(), inventory());
        Self { mitigator, now: Millis::from_secs(1_000_000) }
    }

    pub(crate) fn auto() -> Self {
        Self::new(|_| {})
    }

    /// As [`World::auto`], after `edge1` has shown that filtered traffic vanishes from its reports.
    pub(crate) fn seeing() -> Self {
        Self::seeing_with(|_| {})
    }

    pub(crate) fn seeing_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::new(change);
        let sight = crate::Sight { fell: 2, stayed: 0 };
        let sights = [("edge1".to_owned(), sight)].into_iter().collect();
        let checkpoint = crate::Checkpoint { sights, ..crate::Checkpoint::default() };
        world.mitigator.restore_checkpoint(checkpoint, world.now);
        world
    }

    /// Time passes in steps of 100 ms, long times in steps of a second.
    pub(crate) fn wait(&mut self, secs: u64) {
        let step = if secs <= 60 { 100 } else { 1000 };
        for _ in 0..secs * 1000 / step {
            self.now = self.now + step;
            self.mitigator.advance(self.now);
        }
    }

    /// Attack `id` at `mbps` for so long, a verdict a second.
    pub(crate) fn attack(&mut self, id: u64, mbps: f64, secs: u64) {
        self.attack_as(secs, |at| attack(id, mbps, at));
    }

    pub(crate) fn attack_as(&mut self, secs: u64, verdict: impl Fn(Millis) -> Verdict) {
        for _ in 0..secs {
            self.mitigator.verdict(&verdict(self.now), self.now);
            self.mitigator.advance(self.now);
            self.wait(1);
        }
    }

    pub(crate) fn end(&mut self, id: u64) {
        let over = Verdict { phase: Phase::Ended, ..attack(id, 1.0, self.now) };
        self.mitigator.verdict(&over, self.now);
        self.mitigator.advance(self.now);
    }

    /// Every peer reports what it got.
    pub(crate) fn announce_all(&mut self) {
        for m in self.mitigator.desired().mitigations.iter() {
            let measure = m.measure.clone();
            let seen = Observed::Announced { peer: "edge1".into(), measure, at: self.now };
            self.mitigator.observed(&seen);
        }
    }

    pub(crate) fn command(&mut self, command: &Command) -> Result<Option<u64>, CommandError> {
        let id = self.mitigator.command(command, self.now)?;
        self.mitigator.advance(self.now);
        Ok(id.map(|id| id.0))
    }

    /// What is in force, a line each.
    pub(crate) fn desired(&self) -> Vec<String> {
        self.mitigator.desired().mitigations.iter().map(|m| m.measure.to_string()).collect()
    }

    pub(crate) fn of(&self, state: MitigationState) -> Vec<Mitigation> {
        self.mitigator.mitigations().filter(|m| m.state == state).cloned().collect()
    }

    pub(crate) fn actions(&mut self) -> Vec<String> {
        self.mitigator.take_decisions().into_iter().map(|d| d.action).collect()
    }

    pub(crate) fn restart(&mut self, change: impl FnOnce(&mut Config)) {
        let stored: Vec<_> = self.mitigator.incidents().map(|i| (**i).clone()).collect();
        let checkpoint = self.mitigator.checkpoint();
        let now = self.now;
        *self = Self { now, ..Self::new(change) };
        self.mitigator.restore_checkpoint(checkpoint, now);
        self.mitigator.restore(stored, now);
    }
}

pub(crate) fn drop_from(src_port: u16) -> String {
    format!("flowspec dst {VICTIM} proto 17 sport {src_port} drop")
}

pub(crate) fn limit_from(src_port: u16, bytes: u64) -> String {
    format!("flowspec dst {VICTIM} proto 17 sport {src_port} rate-limit {bytes} bytes/s")
}

#[test]
fn the_rung_follows_volume_confidence_and_separability() {
    type Change = fn(&mut Verdict);
    let check = |mbps: f64, change: Change, expected: &[String]| {
        let mut world = World::auto();
        let mut verdict = attack(1, mbps, world.now);
        change(&mut verdict);
        world.mitigator.verdict(&verdict, world.now);
        world.mitigator.advance(world.now);
        assert_eq!(world.desired(), expected, "{mbps} Mbit/s: {:?}", world.actions());
        assert_eq!(world.mitigator.incidents().count(), 1, "an incident exists in any case");
    };
    let limit = [limit_from(123, 300_000)];
    check(99.0, |_| {}, &[]);
    check(101.0, |_| {}, &limit);
    check(3000.0, |_| {}, &limit);
    check(300.0, |v| v.confidence = 39, &[]);
    // Of what weir is not sure, ten times the least limit is left.
    check(300.0, |v| v.confidence = 40, &[limit_from(123, 1_250_000)]);
    check(300.0, |v| (v.confidence, v.candidates[0].collateral) = (69, 0.02), &[]);
    check(300.0, |v| v.candidates[0].collateral = 0.05, &limit);
    check(300.0, |v| v.candidates[0].collateral = 0.051, &[]);
    check(300.0, |v| v.candidates[0].collateral = f64::NAN, &[]);
    check(300.0, |v| v.separable = false, &[]);
    check(3000.0, |v| v.separable = false, &[]);
    check(300.0, |v| v.direction = Direction::Outbound, &[]);
    check(300.0, |v| v.candidates[0].packets.dst = net("203.0.113.8/32"), &[]);
    // Half of 3 Gbit/s left by the rules is more than the host can take; but rules come first.
    check(3000.0, |v| v.candidates[0].coverage = 0.5, &limit);
    check(1900.0, |v| v.candidates[0].coverage = 0.4, &limit);
    check(3000.0, |v| (v.candidates[0].coverage, v.evidence_groups) = (0.5, 1), &limit);
    // A baseline of nothing still leaves room for a player or two.
    check(300.0, |v| v.candidates[0].normal_bytes_per_sec = 0.0, &[limit_from(123, 130_000)]);
}

#[test]
fn a_black_hole_comes_after_rules_unless_the_link_is_in_danger() {
    let half = |at| {
        let mut v = attack(1, 3000.0, at);
        v.candidates[0].coverage = 0.5;
        v
    };
    let mut world = World::auto();
    world.attack_as(1, half);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.announce_all();
    world.attack_as(6, half);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);

    let mut world = World::new(|c| c.link_limit_bits_per_sec = Some(1_400_000_000));
    world.attack_as(1, half);
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
    let mut world = World::new(|c| c.link_limit_bits_per_sec = Some(1_600_000_000));
    world.attack_as(1, half);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn an_inseparable_flood_is_black_holed_only_where_the_operator_wants_it() {
    let mut world = World::new(|c| c.rtbh_when_inseparable = true);
    let verdict = |mbps, at| Verdict { separable: false, ..attack(1, mbps, at) };
    world.attack_as(3, |at| verdict(1900.0, at));
    assert_eq!(world.desired(), [""; 0]);
    world.attack_as(1, |at| verdict(2100.0, at));
    assert_eq!(world.desired(), [format!("blackhole {VICTIM}")]);
}

#[test]
fn scrubbing_may_stand_before_the_black_hole() {
    let mut world = World::new(|c| {
        c.ladder.swap(2, 3);
        c.ladder[2].above_bits_per_sec = 1_000_000_000;
        c.scrubbers = vec![scrubber()];
    });
    let half = |at| {
        let mut v = attack(1, 3000.0, at);
        v.candidates[0].coverage = 0.5;
        v
    };
    world.attack_as(1, half);
    assert_eq!(world.desired(), [format!("scrub {VICTIM}")]);
    // The service says no: the best rules, then.
    let (measure, at) = (Measure::Scrub(net(VICTIM)), world.now);
    let peer = scrubber().peer();
    let why = "status 403".to_owned();
    world.mitigator.observed(&Observed::Refused { peer, measure, at, why });
    world.attack_as(5, half);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

fn scrubber() -> crate::scrub::ScrubberConfig {
    serde_json::from_str(r#"{"name":"clean","url":"https://scrub.example"}"#).unwrap()
}

#[test]
fn without_a_scrubber_the_step_is_passed_over() {
    let mut world = World::new(|c| c.ladder.swap(2, 3));
    world.attack_as(1, |at| {
        let mut v = attack(1, 9000.0, at);
        v.candidates[0].coverage = 0.5;
        v
    });
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn rules_stay_beside_scrubbing() {
    let mut world = World::new(|c| c.scrubbers = vec![scrubber()]);
    world.attack(1, 9000.0, 1);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.attack_as(6, |at| {
        let mut v = attack(1, 9000.0, at);
        v.candidates[0].coverage = 0.1;
        v.confidence = 80;
        v
    });
    assert_eq!(world.desired(), [limit_from(123, 300_000), format!("scrub {VICTIM}")]);
    world.end(1);
    world.wait(301);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    world.wait(31);
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn a_rule_lives_as_long_as_the_attack_and_its_hold() {
    let mut world = World::auto();
    world.attack(1, 300.0, 700);
    assert_eq!(world.desired().len(), 1);
    assert_eq!(world.of(MitigationState::Withdrawn).len(), 0, "no flap in 700 s");
    world.end(1);
    world.wait(29);
    assert_eq!(world.desired().len(), 1);
    world.wait(2);
    assert_eq!(world.desired().len(), 0);
    assert_eq!(
        world.mitigator.incidents().next().unwrap().state,
        IncidentState::Open,
        "a last look"
    );
    world.wait(10);
    let incident = Arc::clone(world.mitigator.incidents().next().unwrap());
    assert_eq!((incident.state, incident.rung), (IncidentState::Closed, None));
    assert_eq!(world.actions(), ["open", "announce", "end", "withdraw"]);
}

#[test]
fn without_verdicts_a_measure_lapses_within_its_time_to_live() {
    let mut world = World::auto();
    world.attack(1, 300.0, 100);
    world.wait(299);
    world.wait(2);
    assert_eq!(world.desired().len(), 0);
    assert_eq!(world.mitigator.incidents().next().unwrap().state, IncidentState::Closed);
}

#[test]
fn rules_change_at_most_every_five_seconds() {
    let mut world = World::auto();
    let started = world.now;
    let mut last = (world.mitigator.desired().generation, world.now);
    for i in 0..600 {
        // Another vector each second, and all of the traffic still there.
        let mut verdict = attack(1, 300.0, world.now);
        verdict.candidates = vec![candidate(1000 + i, 0.97, 0.001)];
        world.mitigator.verdict(&verdict, world.now);
        world.wait(1);
        let generation = world.mitigator.desired().generation;
        if generation != last.0 {
            let since = world.now.since(last.1);
            assert!(since >= 4900 || last.1 == started, "changed after {since} ms");
            last = (generation, world.now);
        }
        let in_force = world.desired().len();
        assert!((1..=8).contains(&in_force), "{in_force} rules");
    }
}

#[test]
fn leftovers_of_a_filtered_attack_do_not_replace_its_rules() {
    let mut world = World::auto();
    world.attack(1, 800.0, 3);
    let before = world.desired();
    world.attack_as(60, |at| {
        let mut left = attack(1, 120.0, at);
        left.candidates = vec![candidate(9999, 0.9, 0.0)];
        left
    });
    assert_eq!(world.desired(), before);
}

#[test]
fn observe_only_says_what_it_would_do() {
    let mut world = World::new(|c| c.mode = Mode::Observe);
    world.attack(1, 300.0, 10);
    assert_eq!(world.desired().len(), 0);
    assert_eq!(world.of(MitigationState::Simulated).len(), 1);
    world.end(1);
    world.wait(40);
    assert_eq!(world.of(MitigationState::Simulated).len(), 0);
    assert_eq!(world.actions(), ["open", "simulate", "end", "withdraw"]);
}

#[test]
fn a_proposal_waits_for_its_approval() {
    let mut world = World::new(|c| c.mode = Mode::Approve);
    world.attack(1, 300.0, 10);
    assert_eq!(world.desired().len(), 0);
    let proposed = world.of(MitigationState::Proposed);
    let approve = Command::Approve { mitigation: proposed[0].id, by: "eve".into() };
    assert_eq!(world.command(&approve), Ok(Some(proposed[0].id.0)));
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
    assert!(matches!(world.command(&approve), Err(CommandError::Conflict(_))));
    world.attack(1, 300.0, 400);
    assert_eq!(world.desired().len(), 1, "an approved rule is renewed");
    world.end(1);
    world.wait(40);
    assert_eq!(world.desired().len(), 0);
}

#[test]
fn changing_the_mode_moves_a_living_incident_over() {
    let mut world = World::new(|c| c.mode = Mode::Observe);
    world.attack(1, 300.0, 10);
    let mode = |mode| Command::SetMode { mode, by: "eve".into() };
    world.command(&mode(Mode::Auto)).unwrap();
    world.attack(1, 300.0, 1);
    assert_eq!(world.desired().len(), 1);
    world.command(&mode(Mode::Approve)).unwrap();
    world.attack(1, 300.0, 1);
    assert_eq!(world.desired().len(), 1, "what is in force stays");
    world.command(&Command::Panic { by: "eve".into() }).unwrap();
    assert_eq!(world.desired().len(), 0);
    assert_eq!(world.mitigator.mode(), Mode::Observe);
    world.attack(1, 300.0, 60);
    assert_eq!(world.desired().len(), 0);
}

#[test]
fn what_an_operator_withdrew_stays_away_in_this_incident_even_after_a_restart() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    let id = world.of(MitigationState::Active)[0].id;
    world.command(&Command::Withdraw { mitigation: id, by: "eve".into() }).unwrap();
    world.attack(1, 3000.0, 20);
    assert_eq!(world.desired(), [""; 0]);
    world.restart(|_| {});
    world.attack(1, 300.0, 20);
    assert_eq!(world.desired(), [""; 0]);
    world.attack(2, 300.0, 1);
    assert_eq!(world.desired().len(), 1, "another incident may");
}

#[test]
fn a_held_incident_stays_where_it_stands() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    let hold = |on| Command::Hold { incident: IncidentId(1), on, by: "eve".into() };
    world.command(&hold(true)).unwrap();
    world.end(1);
    world.wait(1000);
    assert_eq!(world.desired().len(), 1);
    world.command(&hold(false)).unwrap();
    world.wait(31);
    assert_eq!(world.desired().len(), 0);
}

#[test]
fn a_manual_rule_passes_the_same_guard() {
    let mut world = World::auto();
    let add = |text: &str| Command::Add {
        measure: Measure::Blackhole(net(text)),
        ttl_secs: 60,
        by: "eve".into(),
    };
    assert!(matches!(world.command(&add("192.0.2.1/32")), Err(CommandError::Refused(_))));
    assert!(matches!(world.command(&add("203.0.113.1/32")), Err(CommandError::Refused(_))));
    assert!(matches!(world.command(&add("203.0.113.0/24")), Err(CommandError::Refused(_))));
    let id = world.command(&add("203.0.113.9/32")).unwrap().unwrap();
    assert!(matches!(world.command(&add("203.0.113.9/32")), Err(CommandError::Conflict(_))));
    assert_eq!(world.desired(), ["blackhole 203.0.113.9/32"]);
    world.wait(61);
    assert_eq!(world.desired(), [""; 0]);
    let id = weir_model::MitigationId(id);
    let withdraw = Command::Withdraw { mitigation: id, by: "eve".into() };
    assert!(matches!(world.command(&withdraw), Err(CommandError::Conflict(_))));
}

#[test]
fn an_operators_rule_stands_in_for_an_incidents_with_the_same_match() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    let packets = candidate(123, 1.0, 0.0).packets;
    let measure = Measure::FlowSpec(Filter { packets, action: Action::Drop });
    world.command(&Command::Add { measure, ttl_secs: 60, by: "eve".into() }).unwrap();
    assert_eq!(world.desired(), [drop_from(123)]);
    world.attack(1, 300.0, 61);
    assert_eq!(world.desired(), [limit_from(123, 300_000)]);
}

#[test]
fn after_a_restart_the_living_are_desired_at_once_and_the_dead_stay_dead() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    world.attack(2, 300.0, 1);
    world.end(2);
    world.wait(40);
    world.restart(|_| {});
    world.mitigator.advance(world.now);
    assert_eq!(world.desired().len(), 1, "in force before the first verdict");
    world.attack(1, 300.0, 400);
    assert_eq!(world.desired().len(), 1);
    world.now = world.now + 301_000;
    world.restart(|_| {});
    let first = world.mitigator.advance(world.now).unwrap();
    assert_eq!((first.generation(), first.mitigations().len()), (1, 0));
    world.wait(1);
    assert!(world.mitigator.incidents().all(|i| i.state == IncidentState::Closed));
}

#[test]
fn observe_mode_after_a_restart_withdraws_what_auto_announced() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    world.restart(|c| c.mode = Mode::Observe);
    world.attack(1, 300.0, 3);
    assert_eq!(world.desired(), [""; 0]);
    assert_eq!(world.of(MitigationState::Simulated).len(), 1);
}

#[test]
fn a_rule_that_every_peer_refuses_gives_way_to_the_next() {
    let mut world = World::auto();
    let verdict = |at| {
        let mut v = attack(1, 300.0, at);
        v.candidates.push(candidate(53, 0.9, 0.0));
        v.candidates[0].coverage = 0.98;
        v
    };
    world.attack_as(1, |at| Verdict { candidates: vec![candidate(123, 0.97, 0.0)], ..verdict(at) });
    let measure = world.mitigator.desired().mitigations[0].measure.clone();
    let why = "length not supported".to_owned();
    let at = world.now;
    world.mitigator.observed(&Observed::Refused { peer: "edge1".into(), measure, at, why });
    world.attack_as(5, verdict);
    assert_eq!(world.desired(), [limit_from(53, 300_000)]);
}

#[test]
fn peers_are_listed_while_they_have_it() {
    let mut world = World::auto();
    world.attack(1, 300.0, 1);
    world.announce_all();
    assert_eq!(world.of(MitigationState::Active)[0].peers, ["edge1"]);
    let generation = world.mitigator.desired().generation;
    world.wait(1);
    assert_eq!(world.mitigator.desired().generation, generation, "a report changes no wish");
    let measure = world.mitigator.desired().mitigations[0].measure.clone();
    let gone = Observed::Withdrawn { peer: "edge1".into(), measure, at: world.now };
    world.mitigator.observed(&gone);
    assert_eq!(world.of(MitigationState::Active)[0].peers, [""; 0]);
}

#[test]
fn incidents_and_timelines_are_bounded() {
    let mut world = World::new(|c| c.max_incidents = 5);
    for id in 1..=20 {
        world.mitigator.verdict(&attack(id, 50.0, world.now), world.now);
    }
    let ids = |w: &World| w.mitigator.incidents().map(|i| i.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&world), [1, 2, 3, 4, 5]);
    world.mitigator.verdict(&attack(21, 300.0, world.now), world.now);
    assert_eq!(ids(&world), [2, 3, 4, 5, 21], "something can be done about the new one");
    for i in 0..1000 {
        let mut v = attack(5, 50.0, world.now);
        v.family = if i % 2 == 0 { Family::IcmpFlood } else { Family::UdpFlood };
        world.mitigator.verdict(&v, world.now);
    }
    let longest = world.mitigator.incidents().map(|i| i.timeline.len()).max().unwrap();
    assert_eq!(longest, crate::TIMELINE_MAX);
    let kept = world.mitigator.incidents().nth(3).unwrap();
    assert_eq!(kept.timeline[0].kind, "open");
}

#[test]
fn incidents_under_mitigation_are_never_pushed_out() {
    let mut world = World::new(|c| c.max_incidents = 3);
    for id in 1..=5 {
        world.mitigator.verdict(&attack(id, 300.0, world.now), world.now);
    }
    let ids: Vec<u64> = world.mitigator.incidents().map(|i| i.id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(world.mitigator.losses(), (0, 2));
}

#[test]
fn an_inventory_that_no_longer_covers_a_target_withdraws_its_rules() {
    let mut world = World::auto();
    world.attack(1, 300.0, 1);
    world.mitigator.set_inventory(Arc::default());
    world.wait(1);
    assert_eq!(world.desired(), [""; 0]);
    assert_eq!(world.of(MitigationState::Refused).len(), 1);
}

#[test]
fn a_clock_set_back_leaves_nothing_in_force_beyond_its_time() {
    let mut world = World::auto();
    world.attack(1, 300.0, 10);
    world.now = world.now - 86_400_000;
    world.wait(301);
    assert_eq!(world.desired(), [""; 0]);
}

#[test]
fn every_decision_carries_its_reason() {
    let mut world = World::auto();
    world.attack(1, 300.0, 3);
    world.end(1);
    world.wait(60);
    for decision in world.mitigator.take_decisions() {
        assert_eq!(decision.incident, Some(IncidentId(1)));
        assert_eq!(decision.reason.unwrap().exporters, ["edge1"]);
        assert!(!decision.detail.is_empty());
    }
    let rung = |w: &World| w.mitigator.incidents().next().unwrap().mitigations[0].rung;
    assert_eq!(rung(&world), Rung::RateLimit);
}

#[test]
fn what_is_done_is_told_in_the_sentence_for_people() {
    let told = |world: &World| world.mitigator.incidents().next().unwrap().told();
    let mut world = World::auto();
    world.attack_as(1, |at| Verdict { separable: false, ..attack(1, 300.0, at) });
    assert_eq!(told(&world), "UDP flood; nothing is done about it");
    world.attack(1, 300.0, 1);
    assert_eq!(told(&world), "UDP flood; to be limited by 1 rule, which no peer has yet");
    let reached = |world: &World| world.mitigator.incidents().next().unwrap().reached;
    assert_eq!(reached(&world), None);
    world.announce_all();
    assert_eq!(told(&world), "UDP flood; limited by 1 rule");
    assert_eq!(reached(&world), Some(Rung::RateLimit));
    world.end(1);
    assert_eq!(told(&world), "UDP flood; limited by 1 rule", "held");
    world.wait(60);
    assert_eq!(told(&world), "UDP flood");
    assert_eq!(reached(&world), Some(Rung::RateLimit), "what was is not forgotten");
    for (mode, done) in
        [(Mode::Observe, "would be limited by 1 rule"), (Mode::Approve, "1 proposed")]
    {
        let mut world = World::new(|c| c.mode = mode);
        world.attack(1, 300.0, 1);
        assert_eq!(told(&world), format!("UDP flood; {done}"));
        assert_eq!(reached(&world), None);
    }
}
