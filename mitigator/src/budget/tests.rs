#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers that the tests choose"
)]

use std::collections::BTreeSet;

use ipnet::IpNet;
use weir_model::{Action, Filter, Match, Measure, Range};

use super::{Choice, STAYS, Wanted, choose, swaps_a_minute};

/// xorshift64*: the same worlds on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

fn rule(dst: &str, port: u16, action: Action) -> Measure {
    let mut packets = Match::to(dst.parse().unwrap());
    packets.protocols = vec![17];
    packets.src_ports = vec![Range::exact(port)];
    Measure::FlowSpec(Filter { packets, action })
}

fn host(number: u64, port: u16) -> Measure {
    rule(&format!("198.18.{}.{}/32", number / 256, number % 256), port, Action::Drop)
}

fn wanted<'a>(rules: &'a [(Measure, u64)], fresh: bool) -> Vec<Wanted<'a>> {
    let one = |(measure, value): &'a (Measure, u64)| Wanted {
        measure,
        value: *value,
        fresh,
        joins: true,
    };
    rules.iter().map(one).collect()
}

fn cold(rules: &[(Measure, u64)], room: usize) -> Choice {
    choose(&wanted(rules, true), room, &BTreeSet::new(), 0, &|_| true)
}

fn saved(rules: &[(Measure, u64)], choice: &Choice) -> u64 {
    choice.entries.iter().flat_map(|(_, parts)| parts).map(|i| rules[*i].1).sum()
}

fn names(choice: &Choice) -> Vec<String> {
    choice.entries.iter().map(|(m, _)| m.target().to_string()).collect()
}

/// Hosts of a /28 behind two routers, rules for some of their prefixes, distinct.
fn world(seed: u64) -> (Vec<(Measure, u64)>, usize) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut rules: Vec<(Measure, u64)> = Vec::new();
    for _ in 0..3 + chance.below(9) {
        let len = [32, 32, 32, 31, 30][chance.below(5) as usize];
        let net: IpNet = format!("198.18.0.{}/{len}", chance.below(8)).parse().unwrap();
        let port = [123, 53][chance.below(2) as usize];
        let action = match chance.below(4) {
            0 => Action::RateLimit { bytes_per_sec: 1_000_000 },
            _ => Action::Drop,
        };
        let measure = rule(&net.trunc().to_string(), port, action);
        // Few big ones and many small ones, as attacks are.
        let value = (1 + chance.below(1000)).pow(2);
        if rules.iter().all(|(m, _)| *m != measure) {
            rules.push((measure, value));
        }
    }
    let room = 1 + chance.below(5) as usize;
    (rules, room)
}

/// The best of all sets of entries, tried one by one. What is an entry is found by addresses, not by a tree.
fn exact(rules: &[(Measure, u64)], room: usize) -> u64 {
    let parts = |m: &Measure| {
        let Measure::FlowSpec(f) = m else { unreachable!() };
        (f.packets.src_ports.clone(), f.action, f.packets.dst)
    };
    let mut entries: Vec<Measure> = rules.iter().map(|(m, _)| m.clone()).collect();
    for port in [123, 53] {
        for (len, number) in [(31u8, 4u8), (30, 2), (29, 1)] {
            for at in 0..number {
                let first = u16::from(at) << (32 - len);
                let entry = rule(&format!("198.18.0.{first}/{len}"), port, Action::Drop);
                let (ports, action, net) = parts(&entry);
                let is_hit = |address: &IpNet| {
                    rules.iter().map(|(m, _)| parts(m)).any(|(p, a, dst)| {
                        p == ports && a == action && net.contains(&dst) && dst.contains(address)
                    })
                };
                if net.subnets(32).unwrap().all(|address| is_hit(&address)) {
                    entries.push(entry);
                }
            }
        }
    }
    entries.sort();
    entries.dedup();
    // Which rules each entry stands for, as bits.
    let stands_for: Vec<u32> = entries
        .iter()
        .map(|entry| {
            let (ports, action, net) = parts(entry);
            let is_in = |m: &Measure| {
                let (p, a, dst) = parts(m);
                // Who shares a limit takes of it.
                let within = if a == Action::Drop { net.contains(&dst) } else { net == dst };
                p == ports && a == action && within
            };
            rules.iter().enumerate().filter(|(_, (m, _))| is_in(m)).map(|(i, _)| 1 << i).sum()
        })
        .collect();
    fn try_all(left: &[u32], room: usize, had: u32, rules: &[(Measure, u64)]) -> u64 {
        let value = |had: u32| -> u64 {
            rules.iter().enumerate().filter(|(i, _)| had & (1 << i) != 0).map(|(_, r)| r.1).sum()
        };
        match left {
            [] => value(had),
            _ if room == 0 => value(had),
            [first, rest @ ..] => {
                let without = try_all(rest, room, had, rules);
                if had | first == had {
                    return without;
                }
                without.max(try_all(rest, room - 1, had | first, rules))
            }
        }
    }
    try_all(&stands_for, room, 0, rules)
}

#[test]
fn no_other_choice_of_entries_saves_more() {
    let (mut gap_max, mut shared, mut short) = (0.0f64, 0, 0);
    for seed in 1..=500 {
        let (rules, room) = world(seed);
        let choice = cold(&rules, room);
        assert!(choice.entries.len() <= room, "seed {seed}");
        let (best, got) = (exact(&rules, room), saved(&rules, &choice));
        assert!(got <= best, "seed {seed}: {got} of {best}, more than there is");
        let gap = 1.0 - got as f64 / best as f64;
        assert!(gap <= 0.03, "seed {seed}: {got} of {best}");
        gap_max = gap_max.max(gap);
        shared += usize::from(choice.entries.iter().any(|(_, parts)| parts.len() > 1));
        short += usize::from(rules.len() > room);
        let mut all: Vec<usize> = choice.entries.iter().flat_map(|(_, p)| p.clone()).collect();
        all.extend(&choice.left_out);
        all.sort_unstable();
        assert_eq!(all, (0..rules.len()).collect::<Vec<_>>(), "seed {seed}: each rule once");
        assert_eq!(cold(&rules, room), choice, "seed {seed}: the same again");
    }
    println!(
        "500 worlds, {short} without room for all, {shared} with shared entries: largest gap {gap_max}"
    );
    assert!(shared > 100 && short > 300);
}

#[test]
fn entries_are_shared_where_together_they_are_exactly_a_prefix() {
    let check = |rules: &[(&str, Action, u64)], room: usize, expected: &[&str]| {
        let rules: Vec<(Measure, u64)> =
            rules.iter().map(|(dst, action, value)| (rule(dst, 123, *action), *value)).collect();
        assert_eq!(names(&cold(&rules, room)), expected, "{rules:?}");
    };
    let drop = Action::Drop;
    let limit = Action::RateLimit { bytes_per_sec: 1_000_000 };
    let four = [("198.18.0.4/32", drop, 5), ("198.18.0.5/32", drop, 5), ("198.18.0.9/32", drop, 7)];
    check(&four, 3, &["198.18.0.4/32", "198.18.0.5/32", "198.18.0.9/32"]);
    check(&four, 2, &["198.18.0.4/31", "198.18.0.9/32"]);
    check(&four, 1, &["198.18.0.4/31"]);
    // .5 and .6 are neighbours of two prefixes; .4 and .7 were never attacked.
    check(&[("198.18.0.5/32", drop, 5), ("198.18.0.6/32", drop, 6)], 1, &["198.18.0.6/32"]);
    check(&[("198.18.0.4/32", limit, 5), ("198.18.0.5/32", limit, 6)], 1, &["198.18.0.5/32"]);
    check(&[("198.18.0.4/32", drop, 5), ("198.18.0.5/32", limit, 6)], 1, &["198.18.0.5/32"]);
    check(&[("198.18.0.0/30", drop, 5), ("198.18.0.1/32", drop, 9)], 1, &["198.18.0.0/30"]);
    check(&[("2001:db8::/128", drop, 5), ("2001:db8::1/128", drop, 9)], 1, &["2001:db8::/127"]);
    check(&[("198.18.0.4/32", drop, 5)], 0, &[]);
}

#[test]
fn an_entry_that_is_not_allowed_is_not_shared() {
    let rules = [(host(4, 123), 5), (host(5, 123), 6)];
    let choice = choose(&wanted(&rules, true), 1, &BTreeSet::new(), 0, &|_| false);
    assert_eq!((names(&choice), choice.left_out), (vec!["198.18.0.5/32".into()], vec![0]));
}

#[test]
fn what_is_in_force_stays_unless_another_is_worth_clearly_more() {
    let check = |value: u64, fresh: bool, swaps: usize, expected: &str| {
        let rules = [(host(4, 123), 100), (host(9, 53), value)];
        let in_force = [rules[0].0.clone()].into();
        let choice = choose(&wanted(&rules, fresh), 1, &in_force, swaps, &|_| true);
        assert_eq!(names(&choice), [expected], "{value} {fresh} {swaps}");
    };
    check(99 + 100 / STAYS, true, 1, "198.18.0.4/32");
    check(101 + 100 / STAYS, true, 0, "198.18.0.9/32");
    check(500, false, 0, "198.18.0.4/32");
    check(500, false, 1, "198.18.0.9/32");
}

/// 200 attacks whose strength goes up and down by 40 % from second to second and wanders beside that.
#[test]
fn few_entries_change_in_a_minute_while_attacks_go_up_and_down() {
    const ROOM: usize = 64;
    let mut chance = Chance(7);
    let mut base: Vec<f64> = (0..200).map(|i| 1e9 / f64::from(i + 1)).collect();
    let mut in_force: BTreeSet<Measure> = BTreeSet::new();
    let mut changes: Vec<usize> = Vec::new();
    let mut swapped: Vec<usize> = Vec::new();
    let mut naive: Vec<usize> = Vec::new();
    let mut naively: BTreeSet<usize> = BTreeSet::new();
    let (mut got, mut best) = (0, 0);
    for second in 0..1800 {
        let mut rules = Vec::new();
        for (i, value) in base.iter_mut().enumerate() {
            let mut around = |part: f64| 1.0 + part * (chance.below(2001) as f64 / 1000.0 - 1.0);
            *value = (*value * around(0.02)).clamp(1e6, 1e9);
            // No two are neighbours.
            rules.push((host(i as u64 * 2, 123), (*value * around(0.4)) as u64));
        }
        let recent: usize = swapped.iter().rev().take(59).sum();
        let swaps = swaps_a_minute(ROOM).saturating_sub(recent);
        let choice = choose(&wanted(&rules, second == 0), ROOM, &in_force, swaps, &|_| true);
        let next: BTreeSet<Measure> = choice.entries.iter().map(|(m, _)| m.clone()).collect();
        assert_eq!(next.len(), ROOM);
        changes.push(next.difference(&in_force).count());
        swapped.push(choice.swaps);
        got += saved(&rules, &choice);
        let mut order: Vec<usize> = (0..rules.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(rules[*i].1));
        let top: BTreeSet<usize> = order[..ROOM].iter().copied().collect();
        best += top.iter().map(|i| rules[*i].1).sum::<u64>();
        naive.push(top.difference(&naively).count());
        (in_force, naively) = (next, top);
    }
    let worst = |changes: &[usize]| changes[1..].windows(60).map(|w| w.iter().sum::<usize>()).max();
    let (most, naive) = (worst(&changes).unwrap(), worst(&naive).unwrap());
    let share = got as f64 / best as f64;
    println!(
        "entries changed in any minute: {most} of {ROOM} at most, {naive} without inertia; saved {share:.3} of the best"
    );
    assert!(most * 10 <= ROOM, "{most} changes in a minute");
    assert!(share >= 0.93, "{share}");
}

#[test]
fn an_attack_that_begins_need_not_wait() {
    let rules: Vec<(Measure, u64)> = (0..20).map(|i| (host(i * 2, 123), 100 + i)).collect();
    let in_force: BTreeSet<Measure> = rules[..10].iter().map(|(m, _)| m.clone()).collect();
    let mut wanted = wanted(&rules, false);
    for w in &mut wanted[15..] {
        (w.fresh, w.value) = (true, 1000);
    }
    let choice = choose(&wanted, 10, &in_force, 0, &|_| true);
    let taken: BTreeSet<usize> =
        choice.entries.iter().flat_map(|(_, parts)| parts.clone()).collect();
    assert_eq!(taken, [5, 6, 7, 8, 9, 15, 16, 17, 18, 19].into());
    assert_eq!(choice.swaps, 0);
}

#[test]
fn shared_entries_stay_shared_until_there_is_clearly_room() {
    let rules: Vec<(Measure, u64)> = (0..20).map(|i| (host(i, 123), 100)).collect();
    let first = cold(&rules, 10);
    assert!(first.left_out.is_empty());
    let in_force: BTreeSet<Measure> = first.entries.iter().map(|(m, _)| m.clone()).collect();
    let again = choose(&wanted(&rules, false), 20, &in_force, 0, &|_| true);
    assert_eq!(again.entries, first.entries, "twenty would just fit");
    let roomy = choose(&wanted(&rules, false), 23, &in_force, 0, &|_| true);
    assert_eq!(roomy.entries.len(), 20);
}

#[test]
fn eight_thousand_entries_are_chosen_of_ten_thousand_rules() {
    let rules: Vec<(Measure, u64)> =
        (0..10_000u64).map(|i| (host(i * 2, 123), 1 + i * 7919 % 10_007)).collect();
    let choice = cold(&rules, 8000);
    let mut values: Vec<u64> = rules.iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    assert_eq!(saved(&rules, &choice), values[2000..].iter().sum::<u64>());
}
