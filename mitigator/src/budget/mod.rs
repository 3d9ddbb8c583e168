//! Which rules are in force where routers hold fewer entries than there are rules.
//!
//! Pure. Rules that differ in nothing but neighbouring destinations can share one entry: together they are
//! exactly the covering prefix, so that no packet is hit that none of them hits. What can be chosen is
//! therefore a forest, and the best choice of `room` entries is found exactly, by dynamic programming on a
//! balanced binary tree of it: O(rules × room) steps, O(rules × log rules) memory.

mod forest;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use weir_model::Measure;

use forest::Forest;

/// What an entry in force counts for beside its value, as a part of that: another takes its place only where
/// it is worth more than a quarter more.
const STAYS: u64 = 4;

/// Entries that may give way to others in a minute, one in so many, while no attack begins or ends.
const SWAPS: usize = 10;

/// The most that a rule counts for, so that sums of thousands do not overflow.
pub(crate) const VALUE_MAX: u64 = 1_000_000_000_000;

/// What an operator's rule counts for: more than any of an incident.
pub(crate) const BY_HAND: u64 = 10 * VALUE_MAX;

/// A rule that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) measure: &'a Measure,
    /// Bits a second of players' traffic that it saves.
    pub(crate) value: u64,
    /// Whether its attack has just begun: it need not wait until entries may change.
    pub(crate) fresh: bool,
    /// Whether it may share an entry.
    pub(crate) joins: bool,
}

/// What routers are to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Each entry with the rules it stands for, by their places in what was wanted.
    pub(crate) entries: Vec<(Measure, Vec<usize>)>,
    /// Rules for which there is no room, by their places.
    pub(crate) left_out: Vec<usize>,
    /// Entries that drove out another although no attack began.
    pub(crate) swaps: usize,
}

/// Whether there is room for so many rules without a choice. What shares entries goes on doing so until there is
/// clearly room: each change touches routers.
pub(crate) fn fit_all(rules: usize, room: usize, shared: bool) -> bool {
    let enough = if shared { room - room / SWAPS } else { room };
    rules <= enough
}

/// How many entries may give way to others in a minute.
pub(crate) fn swaps_a_minute(room: usize) -> usize {
    (room / SWAPS).max(1)
}

/// Chooses at most `room` entries. `in_force` is what routers hold now, `swaps` how many of those may give way
/// to something else now, `allowed` whether an entry may be wider than each of its rules.
pub(crate) fn choose(
    wanted: &[Wanted<'_>],
    room: usize,
    in_force: &BTreeSet<Measure>,
    swaps: usize,
    allowed: &dyn Fn(&Measure) -> bool,
) -> Choice {
    let rules: BTreeSet<&Measure> = wanted.iter().map(|w| w.measure).collect();
    let shared = || in_force.iter().any(|m| !rules.contains(m));
    if wanted.len() <= room && fit_all(wanted.len(), room, shared()) {
        let alone = |(i, w): (usize, &Wanted<'_>)| (w.measure.clone(), vec![i]);
        let entries = wanted.iter().enumerate().map(alone).collect();
        return Choice { entries, ..Choice::default() };
    }
    let forest = Forest::of(wanted, allowed);
    let mut entries = forest.best(wanted, room, |measure, _, value| {
        Some(if in_force.contains(measure) { value + value / STAYS } else { value })
    });
    let is_new = |(measure, rules): &&(Measure, Vec<usize>)| {
        !in_force.contains(measure) && !rules.iter().any(|i| wanted[*i].fresh)
    };
    let stand = forest.measures().filter(|m| in_force.contains(*m)).count();
    debug_assert!(
        stand >= rules.iter().filter(|m| in_force.contains(**m)).count(),
        "every rule has a node"
    );
    let free = room.saturating_sub(stand);
    let mut new: Vec<_> = entries.iter().filter(is_new).cloned().collect();
    if new.len() > free + swaps {
        // The most useful ones now, the others when the minute allows.
        let value = |rules: &[usize]| rules.iter().map(|i| wanted[*i].value).sum::<u64>();
        new.sort_by(|(a, of_a), (b, of_b)| value(of_b).cmp(&value(of_a)).then_with(|| a.cmp(b)));
        new.truncate(free + swaps);
        let admitted: BTreeSet<Measure> = new.into_iter().map(|(measure, _)| measure).collect();
        entries = forest.best(wanted, room, |measure, fresh, value| {
            if in_force.contains(measure) {
                Some(value + value / STAYS)
            } else {
                (fresh || admitted.contains(measure)).then_some(value)
            }
        });
    }
    let swaps = entries.iter().filter(is_new).count().saturating_sub(free);
    let mut held = vec![false; wanted.len()];
    for i in entries.iter().flat_map(|(_, rules)| rules) {
        held[*i] = true;
    }
    let left_out = (0..wanted.len()).filter(|i| !held[*i]).collect();
    Choice { entries, left_out, swaps }
}
