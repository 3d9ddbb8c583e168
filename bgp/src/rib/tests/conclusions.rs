//! What ends of sessions are taken to mean, in virtual time, against peers with a mind of their own.

use std::collections::BTreeSet;

use super::*;

const SECOND: u64 = 1_000;

/// A rule of its own for each number.
fn numbered(n: u16) -> Measure {
    let mut packets = Match::to_host([203, 0, 113, 7].into());
    packets.dst_ports = vec![weir_model::Range::exact(n)];
    Measure::FlowSpec(Filter { packets, action: Action::Drop })
}

/// What a peer does with what it is sent.
struct Peer {
    /// It resets the session for these, with 3/9.
    poison: BTreeSet<Measure>,
    /// It crashes without a word over these.
    deadly: BTreeSet<Measure>,
    /// Routes that it takes, and whether it names the number.
    limit: Option<(usize, bool)>,
    /// How long it takes to answer, milliseconds.
    answers_ms: u64,
    has: BTreeSet<Measure>,
}

impl Peer {
    fn good() -> Self {
        Self {
            poison: BTreeSet::new(),
            deadly: BTreeSet::new(),
            limit: None,
            answers_ms: 5,
            has: BTreeSet::new(),
        }
    }

    /// Takes one change; why it ends the session, if it does.
    fn take(&mut self, change: &Change) -> Option<(Blame, Vec<u8>)> {
        match change {
            Change::EndOfRib(_) => None,
            Change::Withdraw { route, .. } => {
                self.has.remove(&route.measure);
                None
            }
            Change::Announce { route, replaces, .. } => {
                if let Some(old) = replaces {
                    self.has.remove(old);
                }
                self.has.insert(route.measure.clone());
                if self.poison.contains(&route.measure) {
                    return Some((Blame::Update, Vec::new()));
                }
                if self.deadly.contains(&route.measure) {
                    return Some((Blame::Silent, Vec::new()));
                }
                let (limit, names) = self.limit?;
                let data = if names {
                    let mut data = vec![0, 1, 133];
                    data.extend(u32::try_from(limit).unwrap().to_be_bytes());
                    data
                } else {
                    Vec::new()
                };
                (self.has.len() > limit).then_some((Blame::TooMuch, data))
            }
        }
    }
}

/// A table and its peer, and what became of them.
struct World {
    rib: AdjRibOut,
    peer: Peer,
    now: Millis,
    resets: usize,
    /// Milliseconds in which the peer did not have this measure, since it was first wanted.
    missed: BTreeMap<Measure, u64>,
    refused: Vec<Refusal>,
}

impl World {
    fn new(peer: Peer, measures: Vec<Measure>) -> Self {
        // Looking at each of a thousand at every step takes longer than it is worth.
        let looked_at = measures.iter().take(150);
        let missed = looked_at.map(|m| (m.clone(), 0)).collect();
        let mut world = Self {
            rib: table(Families::ALL, 5_000),
            peer,
            now: Millis(SECOND),
            resets: 0,
            missed,
            refused: Vec::new(),
        };
        world.refused = world.rib.want(&list(measures));
        world.rib.up(world.now, Families::ALL);
        world
    }

    fn want(&mut self, measures: Vec<Measure>) {
        for measure in measures.iter().take(150) {
            self.missed.entry(measure.clone()).or_insert(0);
        }
        self.missed.retain(|m, _| measures.contains(m));
        let refused = self.rib.want(&list(measures));
        self.refused.extend(refused);
    }

    /// Steps of 100 ms; after a reset the session is back half a second later.
    fn run(&mut self, secs: u64) {
        let until = self.now + secs * SECOND;
        while self.now < until {
            let refused = self.rib.tick(self.now, true);
            self.refused.extend(refused);
            let mut end = None;
            while let Some(change) = self.rib.next_change(self.now) {
                // What was written behind the culprit is written, too: the answer comes later.
                let why = self.peer.take(&change);
                end = end.or(why);
            }
            if let Some((blame, data)) = end {
                self.pass(self.peer.answers_ms);
                self.break_session(blame, &data);
            }
            self.pass(100);
        }
    }

    fn break_session(&mut self, blame: Blame, data: &[u8]) {
        self.resets += 1;
        self.peer.has.clear();
        let ended = self.rib.down(self.now, blame, data);
        self.refused.extend(ended.banned);
        self.refused.extend(ended.left_out);
        self.pass(500);
        self.rib.up(self.now, Families::ALL);
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        for (measure, missed) in &mut self.missed {
            if !self.peer.has.contains(measure) {
                *missed += ms;
            }
        }
    }

    fn banned(&self) -> Vec<Measure> {
        self.rib.standing().banned.into_iter().map(|d| d.measure).collect()
    }

    fn suspected(&self) -> usize {
        self.rib.standing().suspected.len()
    }
}

#[test]
fn one_poison_rule_of_twenty_costs_the_others_seconds() {
    for guilty in [0, 7, 19] {
        let peer = Peer { poison: [numbered(guilty)].into(), ..Peer::good() };
        let mut measures: Vec<Measure> = (0..20).map(numbered).collect();
        measures.push(hole("203.0.113.9/32"));
        let mut world = World::new(peer, measures);
        world.run(30);
        assert_eq!(world.banned(), [numbered(guilty)]);
        assert_eq!(world.peer.has.len(), 20);
        assert!(world.resets <= 3, "{} resets", world.resets);
        let hole = world.missed[&hole("203.0.113.9/32")];
        assert!(hole <= 2_000, "the black hole was missing for {hole} ms");
        world.missed.remove(&numbered(guilty));
        let worst = world.missed.values().max().unwrap();
        assert!(*worst <= 25_000, "{worst} ms");
        assert_eq!(world.refused.len(), 1);
    }
}

#[test]
fn what_was_proven_stays_while_the_culprit_is_looked_for() {
    let peer = Peer { poison: [numbered(105)].into(), ..Peer::good() };
    let mut world = World::new(peer, (0..50).map(numbered).collect());
    world.run(10);
    let before = world.missed[&numbered(3)];
    world.want((0..120).map(numbered).collect());
    world.run(40);
    assert_eq!(world.banned(), [numbered(105)]);
    let away = world.missed[&numbered(3)] - before;
    assert!(away <= 2_500, "{away} ms in {} resets", world.resets);
    assert_eq!(world.peer.has.len(), 119);
}

/// A peer that resets for one rule of many: all others arrive in the end, after few resets.
#[test]
fn the_guilty_one_of_many_is_found() {
    for (guilty, answers_ms) in [(1, 5), (500, 5), (999, 5), (500, 700)] {
        let peer = Peer { poison: [numbered(guilty)].into(), answers_ms, ..Peer::good() };
        let mut world = World::new(peer, (0..1000).map(numbered).collect());
        world.run(120);
        assert_eq!(world.banned(), [numbered(guilty)]);
        assert_eq!(world.rib.announced(), 999);
        assert!(world.resets <= 4, "{} resets", world.resets);
    }
}

#[test]
fn two_guilty_ones_are_found() {
    let peer = Peer { poison: [numbered(3), numbered(77)].into(), ..Peer::good() };
    let mut world = World::new(peer, (0..100).map(numbered).collect());
    world.run(120);
    assert_eq!(world.banned(), [numbered(3), numbered(77)]);
    assert_eq!(world.rib.announced(), 98);
}

#[test]
fn a_new_rule_does_not_wait_for_the_search_to_end() {
    let peer = Peer { poison: [numbered(999)].into(), ..Peer::good() };
    let mut world = World::new(peer, (0..1000).map(numbered).collect());
    world.run(3);
    assert!(world.suspected() > 100);
    world.want((0..1001).map(numbered).collect());
    world.run(4);
    assert!(world.peer.has.contains(&numbered(1000)));
}

#[test]
fn a_peer_that_names_the_rule_is_believed() {
    let mut rib = table(Families::ALL, 100);
    rib.want(&list((1..50).map(|h| rule(h, LIMIT)).collect()));
    rib.up(Millis(0), Families::ALL);
    drain(&mut rib);
    let data = [0x80, 14, 12, 0, 1, 133, 0, 0, 6, 1, 32, 203, 0, 113, 9];
    let ended = rib.down(Millis(100), Blame::Update, &data);
    assert_eq!(ended.banned[0].measure, rule(9, LIMIT));
    assert!(ended.understood);
}

#[test]
fn a_ban_is_short_grows_with_each_offence_and_fades() {
    let peer = Peer { poison: [rule(3, LIMIT)].into(), ..Peer::good() };
    let mut world = World::new(peer, vec![rule(1, LIMIT), rule(3, LIMIT)]);
    let mut lengths = Vec::new();
    for _ in 0..3 {
        world.run(30);
        let ban = world.rib.standing().banned[0].sentence.clone();
        lengths.push(ban.until.since(ban.since) / 60_000);
        assert!(ban.why.starts_with("the peer ended the session over it"), "{}", ban.why);
        world.now = ban.until;
    }
    assert_eq!(lengths, [15, 30, 60]);
    // Mended meanwhile: it is sent, and after a day without an offence the next ban is short again.
    world.peer.poison.clear();
    world.run(30);
    assert_eq!(world.banned(), []);
    assert!(world.peer.has.contains(&rule(3, LIMIT)));
    world.now = world.now + 25 * 3_600 * SECOND;
    world.rib.tick(world.now, true);
    // A proven one that offends takes two: the first proves nothing.
    world.peer.poison.insert(rule(3, Action::Drop));
    world.want(vec![rule(1, LIMIT), rule(3, Action::Drop)]);
    world.run(30);
    let ban = world.rib.standing().banned[0].sentence.clone();
    assert_eq!((ban.until.since(ban.since) / 60_000, ban.offences), (15, 1));
}

#[test]
fn a_banned_rule_is_refused_and_may_be_lifted() {
    let peer = Peer { poison: [rule(3, LIMIT)].into(), ..Peer::good() };
    let mut world = World::new(peer, vec![rule(3, LIMIT)]);
    world.run(2);
    let why = "not sent for now: the peer ended the session over it";
    assert_eq!(world.refused, [Refusal { measure: rule(3, LIMIT), why: why.into() }]);
    // Neither with another action.
    world.want(vec![rule(3, Action::Drop)]);
    assert_eq!(world.refused[1].measure, rule(3, Action::Drop));
    world.run(2);
    assert_eq!(world.rib.announced(), 0);
    assert!(!world.rib.lift(Some(&rule(4, LIMIT))));
    assert!(world.rib.lift(Some(&rule(3, LIMIT))));
    world.run(2);
    assert_eq!(world.rib.announced(), 1);
}

#[test]
fn broken_connections_convict_nobody() {
    // As often as it may be, at whatever time after the rule came: a router that is killed.
    for delay in [0, 1, 4, 6, 12, 60] {
        let mut world = World::new(Peer::good(), vec![rule(1, LIMIT)]);
        for round in 0..30 {
            world.run(delay);
            world.break_session(Blame::Silent, &[]);
            assert_eq!(world.banned(), [], "round {round} of {delay} s");
            assert_eq!(world.refused, []);
        }
        world.run(60);
        assert!(world.peer.has.contains(&rule(1, LIMIT)), "{delay}");
        assert_eq!(world.suspected(), 0);
    }
    // Two of them do not even delay anything, however much was new.
    let mut many = World::new(Peer::good(), (0..60).map(numbered).collect());
    for _ in 0..2 {
        many.run(1);
        many.break_session(Blame::Silent, &[]);
    }
    many.run(1);
    assert_eq!(many.peer.has.len(), 60);
}

#[test]
fn a_rule_that_was_proven_once_is_never_held_against_by_silence() {
    let mut world = World::new(Peer::good(), vec![rule(1, LIMIT)]);
    world.run(6);
    for _ in 0..50 {
        // Another rate is no other rule.
        world.want(vec![rule(1, Action::RateLimit { bytes_per_sec: 7_000 })]);
        world.break_session(Blame::Silent, &[]);
        world.run(1);
        assert_eq!(world.peer.has.len(), 1);
        assert!(world.rib.standing() == Standing::default());
        // Neither when it is wanted anew.
        world.want(vec![]);
        world.run(1);
        world.want(vec![rule(1, LIMIT)]);
        world.run(1);
    }
}

#[test]
fn a_pattern_that_a_control_lacks_bans_the_rule_alone() {
    let peer = Peer { deadly: [numbered(5)].into(), ..Peer::good() };
    let mut world =
        World::new(peer, (0..8).map(numbered).chain([hole("203.0.113.9/32")]).collect());
    world.run(240);
    assert_eq!(world.banned(), [numbered(5)]);
    let why = &world.rib.standing().banned[0].sentence.why;
    assert_eq!(why, "sessions break without a word with it and live without it");
    assert_eq!(world.peer.has.len(), 8);
    assert!(world.resets <= 8, "{}", world.resets);
    let missed = world.missed[&hole("203.0.113.9/32")];
    assert!(missed <= 8_000, "{missed} ms in {} resets", world.resets);
}

#[test]
fn suspicion_is_shown_and_fades() {
    let peer = Peer { deadly: [numbered(5)].into(), ..Peer::good() };
    let mut world = World::new(peer, vec![numbered(5), numbered(6)]);
    world.run(3);
    assert_eq!(world.suspected(), 2);
    assert!(world.rib.standing().suspected[0].sentence.why.contains("held back"));
    // The peer goes away for good.
    world.rib.down(world.now, Blame::Nothing, &[]);
    world.rib.tick(world.now + 3_600 * SECOND, false);
    assert_eq!(world.suspected(), 0);
}

#[test]
fn one_route_too_many_is_learned() {
    // Three are held; a fourth comes.
    let peer = Peer { limit: Some((3, false)), ..Peer::good() };
    let holes = |n: u8| (1..=n).map(|i| hole(&format!("203.0.113.{i}/32"))).collect::<Vec<_>>();
    let mut world = World::new(peer, holes(3));
    world.run(5);
    world.want(holes(4));
    world.run(5);
    assert_eq!(world.resets, 1);
    assert_eq!(world.peer.has.len(), 3);
    assert_eq!(world.refused.len(), 1);
    assert_eq!(world.refused[0].why, "the peer takes 3 routes of ipv4-unicast at most");
    world.run(3_600);
    assert_eq!(world.resets, 1, "not tried again and again");
    // Room for another one when one goes.
    world.want(holes(4)[1..].to_vec());
    world.run(1);
    assert_eq!(world.peer.has.len(), 3);
    assert_eq!(world.resets, 1);
    // A day later it may be more.
    world.peer.limit = Some((10, false));
    world.now = world.now + 24 * 3_600 * SECOND;
    world.want(holes(8));
    world.run(30);
    assert_eq!(world.peer.has.len(), 8);
}

#[test]
fn a_limit_that_was_never_held_is_found_with_one_more_reset_at_most() {
    for (limit, wanted, least) in
        [(10, 11, 10), (10, 1000, 8), (1, 2, 1), (100, 500, 64), (1, 50, 1)]
    {
        let peer = Peer { limit: Some((limit, false)), ..Peer::good() };
        let mut world = World::new(peer, (0..wanted).map(numbered).collect());
        world.run(60);
        assert!(world.resets <= 2, "{} resets for {limit}", world.resets);
        let has = world.peer.has.len();
        assert!((least..=limit).contains(&has), "{has} of {limit}");
        let left: BTreeSet<Measure> = world.refused.iter().map(|r| r.measure.clone()).collect();
        assert!(left.len() >= usize::from(wanted) - limit, "the ladder is told");
    }
}

#[test]
fn a_limit_that_the_peer_names_is_taken_at_its_word() {
    let peer = Peer { limit: Some((10, true)), ..Peer::good() };
    let mut world = World::new(peer, (0..50).map(numbered).collect());
    world.run(10);
    assert_eq!((world.resets, world.peer.has.len()), (1, 10));
    let limit = world.rib.standing().limits[0];
    assert_eq!((limit.family, limit.routes, limit.said), (Family::Ipv4FlowSpec, 10, true));
}

#[test]
fn where_there_is_no_room_for_all_the_most_useful_stay() {
    let worth = |n: u16, worth: u64| Mitigation { worth, ..mitigation(numbered(n), 7) };
    let mut rib = table(Families::ALL, 3);
    rib.up(Millis(0), [Family::Ipv4FlowSpec].into_iter().collect());
    let mut wanted: Vec<Mitigation> = (0..6).map(|n| worth(n, 1 << n)).collect();
    wanted.sort_by(|a, b| a.measure.cmp(&b.measure));
    let refused: BTreeSet<Measure> = rib.want(&wanted).into_iter().map(|r| r.measure).collect();
    assert_eq!(refused, (0..3).map(numbered).collect());
    drain(&mut rib);
    assert_eq!(rib.on_wire().count(), 3);
    // About as useful is not worth a change; much more useful is; an operator's word counts most.
    wanted.push(worth(10, 11));
    wanted.push(worth(11, 1 << 20));
    let by_hand = Originator::Operator("eve".into());
    wanted.push(Mitigation { originator: by_hand, ..mitigation(numbered(12), 0) });
    wanted.sort_by(|a, b| a.measure.cmp(&b.measure));
    rib.want(&wanted);
    drain(&mut rib);
    let on_wire: BTreeSet<Measure> = rib.on_wire().cloned().collect();
    assert_eq!(on_wire, [5, 11, 12].into_iter().map(numbered).collect());
    assert_eq!(rib.kept_back().count(), 6);
}

#[test]
fn what_was_concluded_is_kept_over_a_restart() {
    let peer = Peer { poison: [numbered(7)].into(), ..Peer::good() };
    let mut world = World::new(peer, (0..20).map(numbered).collect());
    world.run(40);
    let standing = world.rib.standing();
    let proven: Vec<Measure> = world.rib.on_wire().cloned().collect();
    assert_eq!((standing.banned.len(), proven.len()), (1, 19));
    let mut again = World::new(world.peer, Vec::new());
    again.rib = table(Families::ALL, 5_000);
    again.now = world.now;
    again.rib.restore(world.now, standing.clone(), &proven);
    again.want((0..20).map(numbered).collect());
    again.peer.has.clear();
    again.rib.up(again.now, Families::ALL);
    assert_eq!(again.rib.standing(), standing);
    assert_eq!(again.refused.len(), 1);
    again.run(1);
    assert_eq!((again.resets, again.peer.has.len()), (0, 19));
    // Proven is proven: silence says nothing about it.
    for _ in 0..10 {
        again.break_session(Blame::Silent, &[]);
        again.run(1);
    }
    assert_eq!(again.peer.has.len(), 19);
}

/// Whatever peers do, once they do nothing more: everything that is wanted and not banned or
/// without room is there.
#[test]
fn no_peer_gets_the_table_stuck() {
    for seed in 1..=150_u64 {
        let mut random = seed;
        let mut next = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut world = World::new(Peer::good(), (0..12).map(numbered).collect());
        for _ in 0..20 {
            match next(6) {
                0 => world.peer.poison = [numbered(u16::try_from(next(20)).unwrap())].into(),
                1 => world.peer.deadly = [numbered(u16::try_from(next(20)).unwrap())].into(),
                2 => {
                    let limit = usize::try_from(next(15)).unwrap() + 1;
                    world.peer.limit = Some((limit, next(2) == 0));
                }
                3 => {
                    let blame = [Blame::Silent, Blame::Nothing, Blame::Update, Blame::TooMuch];
                    world.break_session(blame[usize::try_from(next(4)).unwrap()], &[]);
                }
                4 => {
                    let from = u16::try_from(next(10)).unwrap();
                    world.want((from..from + 10).map(numbered).collect());
                }
                _ => world.run(next(20)),
            }
        }
        world.peer.poison.clear();
        world.peer.deadly.clear();
        world.peer.limit = None;
        world.run(300);
        let kept_back = world.rib.kept_back().count();
        assert_eq!(world.peer.has.len() + kept_back, world.missed.len(), "seed {seed}");
        // Who has no room cannot be tried either.
        let left_out: Vec<&Measure> = world.rib.kept_back().map(|(m, _)| m).collect();
        for doubt in world.rib.standing().suspected {
            assert!(left_out.contains(&&doubt.measure), "seed {seed}: {doubt:?}");
        }
        // And everything fades.
        for _ in 0..4 {
            world.now = world.now + 24 * 3_600 * SECOND;
            world.run(60);
        }
        assert_eq!(world.peer.has.len(), world.missed.len(), "seed {seed}");
        assert_eq!(world.rib.standing(), Standing::default(), "seed {seed}");
    }
}
