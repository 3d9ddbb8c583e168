//! The scenario suite against its bars: what weir sees, names, cuts and spares.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use weir::score::{Case, heading, rows, totals};
use weir_config::Config;
use weir_tests::scenario::{self, Outcome};
use weir_traffic::score::{CaseScore, Summary, summarise};
use weir_traffic::suite::{self, Feed};

/// Plays cases and prints their table, which a failing test shows.
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
fn play(feed: Feed, wanted: impl Fn(&suite::Case) -> bool) -> (Vec<CaseScore>, Summary) {
    println!("{}", heading());
    let config = Config::default();
    let scores: Vec<CaseScore> = suite::cases()
        .filter(|case| wanted(case))
        .map(|case| {
            let Outcome { score, .. } = scenario::run(case, feed, 1, &config);
            println!("{}", rows(&score));
            score
        })
        .collect();
    let total = summarise(&scores);
    println!("{}", totals(&total));
    (scores, total)
}

#[test]
fn attacks_are_seen_named_and_cut() {
    let (_, total) = play(Feed::Sflow1000, |case| !case.is_benign());
    assert!(total.recall >= 0.95, "recall {}", total.recall);
    // Over all kinds of attack; how fast floods of known strength are seen is tested below.
    assert!(total.delay_flow_ms.median <= 300.0, "{:?}", total.delay_flow_ms);
    assert!(total.wrong_family <= 0.05, "wrong family {}", total.wrong_family);
    assert!(total.coverage.median >= 0.95, "{:?}", total.coverage);
    assert!(total.collateral.median <= 0.005, "{:?}", total.collateral);
    assert!(total.collateral.worst <= 0.05, "{:?}", total.collateral);
    assert!(total.flaps_max <= 1, "{} flaps", total.flaps_max);
    assert_eq!(total.false_announcements, 0);
    assert_eq!(total.not_above_rtbh, 0);
}

#[test]
fn ordinary_days_stay_ordinary() {
    let (scores, total) = play(Feed::Sflow1000, |case| case.is_benign() && case.id != "B20");
    let loud: Vec<&str> =
        scores.iter().filter(|s| s.false_announcements > 0).map(|s| s.case.as_str()).collect();
    assert!(loud.is_empty(), "announced on ordinary days: {loud:?}");
    assert!(total.benign_points > 99.9, "{}", total.benign_points);
}

/// Flow caches report late and in lumps; ordinary lumps must not look like attacks.
#[test]
fn flow_caches_neither_hide_attacks_nor_invent_them() {
    for feed in [Feed::NetflowV5, Feed::Ipfix] {
        let cases = ["A8-ntp", "B4-out", "B9", "B10", "B12", "B19"];
        let (_, total) = play(feed, |case| cases.contains(&case.id));
        assert!(total.recall >= 0.99, "{}: recall {}", feed.id(), total.recall);
        assert_eq!(total.false_announcements, 0, "{}", feed.id());
    }
}

#[test]
fn the_same_case_gives_the_same_events() {
    let case = suite::case("A20").unwrap();
    let config = Config::default();
    let first = scenario::run(case, Feed::Sflow1000, 7, &config);
    let again = scenario::run(case, Feed::Sflow1000, 7, &config);
    assert!(!first.events.is_empty());
    assert_eq!(first.events, again.events);
    assert_eq!(first.decisions, again.decisions);
}

#[test]
fn a_case_on_disk_scores_as_in_memory() {
    let case = suite::case("A4").unwrap();
    let config = Config::default();
    let folder = tempfile::tempdir().unwrap();
    scenario::write(case, Feed::Sflow1000, 3, folder.path()).unwrap();
    let dirs = Case::find(folder.path()).unwrap();
    assert_eq!(dirs.len(), 1);
    let read = Case::read(&dirs[0]).unwrap();
    let events = read.play(&config).unwrap();
    let memory = scenario::run(case, Feed::Sflow1000, 3, &config);
    let disk = read.score(&events);
    assert_eq!(disk.attacks.len(), 1);
    assert_eq!(disk.attacks, memory.score.attacks);
    assert_eq!(disk.goodput, memory.score.goodput);
}

/// Milliseconds from the first attack datagram to the verdict, over seeds and two kinds of export.
fn delays(id: &str) -> Vec<u64> {
    let case = suite::case(id).unwrap();
    let config = Config::default();
    let mut delays: Vec<u64> = [Feed::Sflow64, Feed::IpfixSecond]
        .into_iter()
        .flat_map(|feed| (1..=5).map(move |seed| (feed, seed)))
        .map(|(feed, seed)| {
            let outcome = scenario::run(case, feed, seed, &config);
            outcome.score.attacks[0].delay_flow_ms.expect("a flood of this size is seen")
        })
        .collect();
    delays.sort_unstable();
    delays
}

#[test]
fn verdicts_come_in_time() {
    let strong = delays("T10");
    assert!(strong[strong.len() / 2] <= 200, "ten times: {strong:?}");
    assert!(strong[strong.len() - 1] <= 400, "ten times: {strong:?}");
    let twice = delays("T2");
    assert!(twice[twice.len() / 2] <= 700, "twice: {twice:?}");
    let little = delays("T1.2");
    assert!(little[little.len() / 2] <= 1500, "1.2 times: {little:?}");
}
