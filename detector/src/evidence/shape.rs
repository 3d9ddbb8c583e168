//! Traffic of another shape than usual: floods that no volume threshold sees.

use weir_model::Direction;

use crate::config::Config;
use crate::watch::hash::FastMap;
use crate::watch::host::Warm;
use crate::watch::metric::{PACKETS, Significance, Test, part_samples};
use crate::watch::packets::{NOW_SLOTS, Packet};
use crate::watch::series::Alarm;
use crate::watch::window::SLOTS_PER_SEC;

/// Jensen-Shannon divergence (bits, 0-1) from which two shapes differ.
const DIVERGENCE_MIN: f64 = 0.2;
/// Times the average from which a growth is looked at.
const GROWTH_MIN: f64 = 1.5;
/// Fewest packets on either side.
const PACKETS_MIN: usize = 40;
/// Seconds looked at.
const SECONDS: usize = 10;

/// Divergence of what arrives from what is normal, by protocol and length in steps of 64 octets.
pub(crate) fn divergence(now: &[Packet], normal: &[(Packet, f64)]) -> f64 {
    let bin = |p: &Packet| u32::from(p.protocol) << 16 | u32::from(p.length() / 64);
    let mut bins: FastMap<u32, (f64, f64)> = FastMap::default();
    for p in now {
        bins.entry(bin(p)).or_default().0 += f64::from(p.packets);
    }
    for (p, weight) in normal {
        bins.entry(bin(p)).or_default().1 += weight;
    }
    let mut shares: Vec<(u32, (f64, f64))> = bins.into_iter().collect();
    // A sum's last digits depend on its order.
    shares.sort_by_key(|s| s.0);
    let (total_now, total_normal) =
        shares.iter().fold((0.0, 0.0), |sum, (_, (a, b))| (sum.0 + a, sum.1 + b));
    if total_now <= 0.0 || total_normal <= 0.0 {
        return 0.0;
    }
    let part = |p: f64, mean: f64| if p > 0.0 { p * (p / mean).log2() } else { 0.0 };
    shares
        .iter()
        .map(|(_, (a, b))| {
            let (a, b) = (a / total_now, b / total_normal);
            let mean = f64::midpoint(a, b);
            f64::midpoint(part(a, mean), part(b, mean))
        })
        .sum()
}

/// An alarm when the last ten seconds are both more and of another shape than usual.
#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
pub(crate) fn alarm(
    warm: &Warm,
    config: &Config,
    rule: Significance,
    slot: u64,
    back: u64,
) -> Option<Alarm> {
    let series = &warm.series;
    // Where exports lag the newest seconds are never all there.
    let lag = if back > 2 { back } else { 0 };
    let last = series.window.newest().saturating_sub(lag);
    let sum = series.window.seconds(last, SECONDS);
    let (total, mean) = (sum.total(), series.mean(PACKETS));
    let least = (mean * GROWTH_MIN * series.lenience()).max(config.shape_floor_packets_per_sec);
    let threshold = series.growth(least);
    let samples = part_samples(total, total, sum.variance);
    let test = Test { ms: SECONDS as u64 * 1000, guard: 1.0 };
    if mean <= 0.0 || !rule.above(total as f64, threshold, samples, test) {
        return None;
    }
    let now = warm.profile.latest(slot, NOW_SLOTS + lag * SLOTS_PER_SEC);
    let normal = warm.profile.normal();
    if now.len() < PACKETS_MIN
        || normal.len() < PACKETS_MIN
        || divergence(&now, &normal) < DIVERGENCE_MIN
    {
        return None;
    }
    Some(Alarm {
        metric: weir_model::Metric::Shape,
        index: PACKETS,
        value: total as f64 / SECONDS as f64,
        baseline: mean,
        threshold,
        window_ms: test.ms,
        samples,
        sampling: sum.variance as f64 / (total as f64).max(1.0),
        last,
        service: None,
        direction: Direction::Inbound,
        own: None,
        bare: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};

    #[test]
    fn the_same_shape_diverges_little_and_another_much() {
        let players: Vec<Packet> = (0..200_u32)
            .map(|i| {
                inbound(&sample(i, 5000, 17, 28_015, 60 + u16::try_from(i * 37 % 300).unwrap()), 1)
            })
            .collect();
        let normal: Vec<(Packet, f64)> = players.iter().map(|p| (*p, 1.0)).collect();
        assert!(divergence(&players[..60], &normal) < 0.05);
        let mut mixed = players[..60].to_vec();
        mixed.extend((0..60).map(|i| inbound(&sample(i, 5000, 17, 28_015, 540), 1)));
        assert!(divergence(&mixed, &normal) > 0.2);
        assert_eq!(divergence(&[], &normal), 0.0);
    }
}
