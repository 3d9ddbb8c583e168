//! Worlds drawn by seed, played through the whole decision path.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use weir_config::Config;
use weir_tests::worlds::{self, Played};
use weir_traffic::suite::Feed;
use weir_traffic::world::Side;

/// Worlds of each side and feed that every run plays.
const WORLDS: u64 = 4;
/// Their first seed.
const FIRST: u64 = 9_000;

/// Plays some worlds and prints what failed, which a failing test shows.
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
fn play(feed: Feed, side: Side) -> Vec<Played> {
    let config = Config::default();
    let played: Vec<Played> =
        (FIRST..FIRST + WORLDS).map(|seed| worlds::run(seed, feed, side, &config)).collect();
    for line in played.iter().filter_map(|world| world.failure(feed)) {
        println!("{line}");
    }
    println!("{}", worlds::figures(feed, side, &played));
    played
}

/// What holds of any defender: the oracle loses nothing, and nothing is found that is not there to
/// be scored.
fn sound(played: &[Played], side: Side) {
    for world in played {
        let goodput = world.score.goodput;
        assert!(goodput.oracle >= goodput.none, "seed {}: {goodput:?}", world.seed);
        assert!(goodput.oracle > 0.99, "seed {}: {goodput:?}", world.seed);
        assert_eq!(world.score.attacks.len(), usize::from(side == Side::Attack));
        assert!(world.losses.whole.octets > 0.0, "seed {} has no traffic", world.seed);
        assert!(world.losses.ruled.cut <= world.losses.whole.cut + 1.0);
        if side == Side::Benign {
            assert!(goodput.none > 0.999, "seed {}: {goodput:?}", world.seed);
        }
    }
}

#[test]
fn worlds_are_played_and_counted() {
    for side in Side::ALL {
        sound(&play(Feed::Sflow1000, side), side);
    }
}

#[test]
fn every_feed_of_worlds_plays() {
    let config = Config::default();
    for feed in Feed::WORLDS {
        let world = worlds::run(FIRST, feed, Side::Attack, &config);
        sound(&[world], Side::Attack);
    }
}

#[test]
fn a_world_gives_the_same_events_again() {
    let config = Config::default();
    let first = worlds::run(FIRST + 1, Feed::Sflow1000, Side::Attack, &config);
    let again = worlds::run(FIRST + 1, Feed::Sflow1000, Side::Attack, &config);
    assert_eq!(first.events, again.events);
    assert_eq!(first.decisions, again.decisions);
    assert_eq!(first.losses, again.losses);
}
