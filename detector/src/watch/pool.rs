//! What is normal for hosts of a kind: of the same game or class, or in the same prefix. Stands in for a
//! host's own baseline while it is too new to have one.

use weir_model::{Inventory, IpNet};

use crate::watch::baseline::{from_log, to_log};
use crate::watch::hash::{FastMap, mix};
use crate::watch::metric::{BITS, PACKETS};
use crate::watch::rules::Rules;
use crate::watch::series::Series;
use crate::watch::table::carpet;

/// Most kinds known at once.
const KINDS_MAX: usize = 1 << 16;
/// Fewest hosts that make a kind.
const HOSTS_MIN: u32 = 5;
/// How often what was counted comes into force, seconds.
const ROUND_SECS: u64 = 60;
/// Share of the hosts of a kind that stay below what is taken for normal, percent.
const RANK: u32 = 90;

/// Hosts by the logarithm of their level.
type Counts = FastMap<u8, u32>;

/// Levels of one kind: packets and octets a second.
#[derive(Clone, Debug, Default)]
struct Kind {
    counts: [Counts; 2],
}

/// Levels of all kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    counting: FastMap<u64, Kind>,
    /// In force: packets and bits a second.
    ready: FastMap<u64, [f64; 2]>,
    round: u64,
}

/// A kind's number: of a game or a prefix.
fn number(text: &[u8]) -> u64 {
    text.chunks(8).fold(text.len() as u64, |hash, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        mix(hash, u64::from_le_bytes(word))
    })
}

/// The kinds that a host belongs to, the narrower first: its game, the class that its group names, its
/// prefix.
pub(crate) fn kinds(
    inventory: &Inventory,
    target: IpNet,
    rules: Option<&Rules>,
) -> [Option<u64>; 3] {
    let services = inventory.services_of(target.addr());
    let game = services.first().filter(|s| !s.game.is_empty()).map(|s| number(s.game.as_bytes()));
    // Apart from a game of the same name.
    let class = rules.and_then(|rules| rules.class).map(|c| mix(1, number(c.id().as_bytes())));
    [game, class, Some(number(carpet(target.addr()).to_string().as_bytes()))]
}

impl Pool {
    /// Counts a host whose own baseline is known.
    pub(crate) fn count(&mut self, kinds: [Option<u64>; 3], series: &Series, second: u64) {
        if second / ROUND_SECS != self.round {
            self.round = second / ROUND_SECS;
            self.close();
        }
        for kind in kinds.into_iter().flatten() {
            if self.counting.len() >= KINDS_MAX && !self.counting.contains_key(&kind) {
                continue;
            }
            let counts = &mut self.counting.entry(kind).or_default().counts;
            for (counts, index) in counts.iter_mut().zip([PACKETS, BITS]) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and `as` saturates"
                )]
                let level = series.level(index) as u64;
                *counts.entry(to_log(level)).or_default() += 1;
            }
        }
    }

    fn close(&mut self) {
        self.ready = std::mem::take(&mut self.counting)
            .into_iter()
            .filter_map(|(kind, counted)| {
                Some((kind, [rank(&counted.counts[0])?, rank(&counted.counts[1])?]))
            })
            .collect();
    }

    /// Packets and bits a second that are normal for the first of `kinds` that is known.
    pub(crate) fn normal(&self, kinds: [Option<u64>; 3]) -> Option<[f64; 2]> {
        kinds.into_iter().flatten().find_map(|kind| self.ready.get(&kind).copied())
    }
}

/// The level that most hosts stay below; none when there are too few. Each host is counted six times
/// a round.
fn rank(counts: &Counts) -> Option<f64> {
    let mut sorted: Vec<(u8, u32)> = counts.iter().map(|(log, n)| (*log, *n)).collect();
    sorted.sort_unstable();
    let all: u32 = sorted.iter().map(|c| c.1).sum();
    if all < 5 * HOSTS_MIN {
        return None;
    }
    let mut below = 0;
    sorted.into_iter().find_map(|(log, n)| {
        below += n;
        (below * 100 >= all * RANK).then(|| from_log(log))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::watch::cell::Cell;
    use crate::watch::series;

    #[test]
    fn a_new_host_borrows_from_its_kind() {
        let config = Config::default();
        let mut pool = Pool::default();
        let kind = [None, None, Some(7)];
        let mut series = Series::new(series::Kind::Host, 0, 10_000, &config);
        for second in 1000..1100 {
            let mut cell = Cell { bytes: 1_000_000, ..Cell::default() };
            cell.packets[4] = 5000;
            series.window.add(second * 10, &cell);
            series.roll(second, second, &config);
        }
        for _ in 0..30 {
            pool.count(kind, &series, 1100);
        }
        assert_eq!(pool.normal(kind), None, "not before the round is over");
        pool.count(kind, &series, 1200);
        let [packets, bits] = pool.normal(kind).unwrap();
        assert!((4500.0..5500.0).contains(&packets), "{packets}");
        assert!((7.0e6..9.0e6).contains(&bits), "{bits}");
        assert_eq!(pool.normal([Some(8), None, None]), None);
        assert_ne!(number(b"rust"), number(b"minecraft"));
    }

    #[test]
    fn hosts_of_a_class_are_of_a_kind_wherever_they_are() {
        let group = weir_model::PolicyGroup {
            class: Some(weir_model::HostClass::Vpn),
            ..weir_model::PolicyGroup::default()
        };
        let rules = Rules::of(&vec![group].into()).remove(0);
        let kinds = |target: &str, rules: &Option<std::sync::Arc<Rules>>| {
            kinds(&Inventory::default(), target.parse().unwrap(), rules.as_deref())
        };
        let (one, other) = (kinds("203.0.113.7/32", &rules), kinds("198.51.100.1/32", &rules));
        assert_eq!((one[0], one[1]), (None, other[1]));
        assert!(one[1].is_some() && one[2] != other[2]);
        assert_eq!(kinds("203.0.113.7/32", &None), [None, None, one[2]]);
    }
}
