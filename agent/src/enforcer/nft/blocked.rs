//! Blocked sources: sets that may hold a hundred thousand elements.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use weir_model::Millis;

use super::packets::is_v4;
use super::script::{Present, Script};
use super::skeleton::TABLE;
use crate::enforcer::{Blocked, Program, written};

/// An element with less time left than this is not deleted but left to its end, milliseconds.
const LEAVING_MS: u64 = 2000;

/// Adds and removes only what differs: a hundred thousand sources take most of a second to write down.
pub(super) fn blocked(script: &mut Script, program: &Program, present: &Present, now: Millis) {
    let mut wanted = program.blocked.clone();
    wanted.sort_unstable();
    wanted.dedup_by_key(|b| b.source);
    let had = present.blocked.as_deref().unwrap_or_default();
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let (mut old, mut want) = (had.iter().peekable(), wanted.iter().peekable());
    loop {
        let order = match (old.peek(), want.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.source.cmp(&b.source),
        };
        let (o, w) = match order {
            Ordering::Less => (old.next(), None),
            Ordering::Greater => (None, want.next()),
            Ordering::Equal => (old.next(), want.next()),
        };
        let same = matches!((o, w), (Some(o), Some(w)) if o.until == w.until);
        if !same {
            // What is about to leave by itself may be gone already, and deleting it would fail.
            gone.extend(o.filter(|o| o.until.since(now) > LEAVING_MS));
            new.extend(w);
        }
    }
    let of = |b: &Blocked| {
        let host = b.source.prefix_len() == b.source.max_prefix_len();
        match (is_v4(b.source), host) {
            (true, true) => "blk4",
            (false, true) => "blk6",
            (true, false) => "blkn4",
            (false, false) => "blkn6",
        }
    };
    elements(script, "delete", gone.iter().map(|b| (of(b), written(b.source))));
    let ends = |b: &&Blocked| b.until > now;
    let timed = |b: &Blocked| {
        let secs = b.until.since(now).div_ceil(1000);
        (of(b), format!("{} timeout {secs}s", written(b.source)))
    };
    elements(script, "add", new.into_iter().filter(ends).map(timed));
}

/// Elements of several sets, a thousand a line.
fn elements(script: &mut Script, verb: &str, list: impl Iterator<Item = (&'static str, String)>) {
    const AT_ONCE: usize = 1000;
    let mut sets: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (set, element) in list {
        sets.entry(set).or_default().push(element);
    }
    for (set, elements) in sets {
        for chunk in elements.chunks(AT_ONCE) {
            script.add(&format!("{verb} element inet {TABLE} {set} {{ {} }}", chunk.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_795_000_000_000);

    fn block(source: &str, secs: u64) -> Blocked {
        Blocked { source: source.parse().unwrap(), until: NOW + secs * 1000 }
    }

    #[test]
    fn only_what_differs_is_written() {
        let check = |had: Option<Vec<Blocked>>, wanted: Vec<Blocked>, lines: &[&str]| {
            let program = Program { blocked: wanted, ..Program::default() };
            let present = Present { blocked: had, ..Present::default() };
            let mut script = Script::default();
            blocked(&mut script, &program, &present, NOW);
            assert_eq!(script.text.lines().collect::<Vec<_>>(), lines);
        };
        let (a, b) = (block("192.0.2.1/32", 60), block("192.0.2.2/32", 60));
        let net = block("2001:db8::/48", 60);
        let all = [
            "add element inet weir blk4 { 192.0.2.1 timeout 60s, 192.0.2.2 timeout 60s }",
            "add element inet weir blkn6 { 2001:db8::/48 timeout 60s }",
        ];
        check(None, vec![b, a, net, a], &all);
        check(Some(vec![a, b, net]), vec![a, b, net], &[]);
        let longer = block("192.0.2.2/32", 90);
        check(
            Some(vec![a, b]),
            vec![longer],
            &[
                "delete element inet weir blk4 { 192.0.2.1, 192.0.2.2 }",
                "add element inet weir blk4 { 192.0.2.2 timeout 90s }",
            ],
        );
        check(Some(vec![block("192.0.2.1/32", 1)]), Vec::new(), &[]);
        check(None, vec![block("192.0.2.1/32", 0)], &[]);
    }
}
