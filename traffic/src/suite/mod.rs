//! The scenario suite: attacks A1 to A26 and ordinary days B1 to B20, each in five kinds of export
//! and for any seed. A seed changes times, rates and addresses, never what a case is about.

mod attacks;
mod benign;
mod world;

pub use world::Feed;

use crate::scene::Scene;
use crate::suite::world::World;

/// One scenario of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// Short name, such as `A1` or `A8-ntp`.
    pub id: &'static str,
    /// What it is about, in a sentence without full stop.
    pub title: &'static str,
    /// Seconds from the end of learning to the end of the case, at most.
    pub secs: f64,
    build: fn(&mut World),
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("id", &self.id).field("title", &self.title).finish()
    }
}

impl Case {
    /// Whether nothing in it is an attack.
    pub fn is_benign(&self) -> bool {
        self.id.starts_with('B')
    }

    /// The scene of this case as `feed` shows it, for `seed`.
    pub fn scene(&self, feed: Feed, seed: u64) -> Scene {
        let mut world = World::new(self, feed, seed);
        (self.build)(&mut world);
        world.finish()
    }
}

/// All scenarios, attacks first.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    attacks::CASES.iter().chain(benign::CASES)
}

/// Floods of 200,000, 40,000 and 24,000 packets a second, to time verdicts by.
pub fn timed() -> impl Iterator<Item = &'static Case> {
    attacks::TIMED.iter()
}

/// The scenario of this id.
pub fn case(id: &str) -> Option<&'static Case> {
    cases().chain(timed()).find(|c| c.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use weir_model::Millis;

    use super::*;
    use crate::source::SECOND_US;

    /// Each case can be played, its attack packets lie within its truth and its hosts within what
    /// is protected.
    fn check(case: &Case, feed: Feed) {
        let scene = case.scene(feed, 1);
        assert_eq!(scene.attacks.is_empty(), case.is_benign(), "{}", case.id);
        let mut stream = scene.stream(Millis::from_secs(1_800_000_000));
        let (mut attack, mut datagrams) = (0u64, VecDeque::new());
        let protected = &scene.inventory.protected;
        // What happens while learning is the same all the time; the rest is the case.
        stream.skip_to(scene.learning_us.saturating_sub(2 * SECOND_US));
        let end = scene.duration_us.min(scene.learning_us + 35 * SECOND_US);
        while stream.now_us() < end {
            stream.tick(&mut datagrams);
            for packet in stream.packets() {
                assert!(protected.contains(packet.local()), "{}: {packet:?}", case.id);
                if let crate::Origin::Attack(index) = packet.origin {
                    attack += u64::from(packet.count);
                    let truth = &scene.attacks[usize::from(index)];
                    let target = match truth.direction {
                        weir_model::Direction::Inbound => packet.dst,
                        weir_model::Direction::Outbound => packet.src,
                    };
                    assert!(truth.target.contains(&target), "{}: {packet:?}", case.id);
                    assert!(
                        (truth.start_us..=truth.end_us).contains(&packet.at_us),
                        "{}: {packet:?} outside {truth:?}",
                        case.id
                    );
                }
            }
        }
        assert_eq!(attack > 1000, !case.is_benign(), "{}: {attack}", case.id);
        assert!(!datagrams.is_empty(), "{}", case.id);
    }

    #[test]
    fn every_case_plays_as_its_truth_says() {
        for case in cases().filter(|c| c.id != "B20") {
            check(case, Feed::Sflow1000);
        }
    }

    #[test]
    fn every_feed_plays() {
        for feed in Feed::ALL {
            check(case("A4").unwrap(), feed);
        }
    }
}
