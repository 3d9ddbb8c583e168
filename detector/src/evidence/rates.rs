//! How much arrives, how much of it a rule matches, and what is left of what is wanted.

use weir_model::{Direction, Goodput, Match, Rate};

use crate::evidence::matching::hits;
use crate::watch::host::Warm;
use crate::watch::metric::{BITS, OUTBOUND, PACKETS, values};
use crate::watch::packets::Packet;
use crate::watch::series::Series;

/// What of the present a match holds for.
pub(crate) fn matched(now: &[Packet], rate: Rate, m: &Match) -> Rate {
    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    let volume = |p: &Packet| (f64::from(p.packets), p.bytes as f64);
    let (mut all, mut hit) = ((0.0, 0.0), (0.0, 0.0));
    for p in now {
        let (packets, bytes) = volume(p);
        all = (all.0 + packets, all.1 + bytes);
        if hits(m, p) {
            hit = (hit.0 + packets, hit.1 + bytes);
        }
    }
    if all.0 <= 0.0 {
        return Rate::default();
    }
    Rate {
        packets_per_sec: rate.packets_per_sec * hit.0 / all.0,
        bits_per_sec: rate.bits_per_sec * hit.1 / f64::max(all.1, 1.0),
    }
}

/// Packets a second that the packets kept of the present stand for.
pub(crate) fn evident(now: &[Packet], slot: u64) -> f64 {
    let from = now.iter().map(|p| p.slot).min().unwrap_or(slot);
    let packets: f64 = now.iter().map(|p| f64::from(p.packets)).sum();
    #[expect(clippy::cast_precision_loss, reason = "at most a hundred slots")]
    let slots = slot.saturating_sub(from).max(1) as f64;
    packets / slots * 10.0
}

/// The rate of the last second, or of the one of the last `back` in which it was highest: exports of
/// the newest may still be on their way.
pub(crate) fn present(series: &Series, way: Direction, back: u64) -> Rate {
    let window = &series.window;
    let at = match way {
        Direction::Inbound => 0,
        Direction::Outbound => OUTBOUND,
    };
    let newest = window.newest();
    let mut best = values(&window.last_slots(10));
    for b in 0..=back.min(30) {
        let second = values(&window.second(newest.saturating_sub(b)));
        for (best, value) in best.iter_mut().zip(second) {
            *best = (*best).max(value);
        }
    }
    rate_of(best[at + PACKETS], best[at + BITS], 1.0)
}

/// The rate of the window that alarmed, where that is shorter than a second: at its onset the last
/// second holds but a part of an attack.
pub(crate) fn burst(warm: &Warm, way: Direction, window_ms: u64) -> Rate {
    let slots = u32::try_from(window_ms / 100).unwrap_or(1).max(1);
    let values = values(&warm.series.window.last_slots(slots as usize));
    let at = match way {
        Direction::Inbound => 0,
        Direction::Outbound => OUTBOUND,
    };
    rate_of(values[at + PACKETS], values[at + BITS], f64::from(slots) / 10.0)
}

pub(crate) fn higher(a: Rate, b: Rate) -> Rate {
    Rate {
        packets_per_sec: a.packets_per_sec.max(b.packets_per_sec),
        bits_per_sec: a.bits_per_sec.max(b.bits_per_sec),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
pub(crate) fn rate_of(packets: u64, bits: u64, secs: f64) -> Rate {
    Rate { packets_per_sec: packets as f64 / secs, bits_per_sec: bits as f64 / secs }
}

/// What routers discarded in the last second.
pub(crate) fn discarded(warm: &Warm) -> Rate {
    let cell = warm.series.window.last_slots(10);
    rate_of(u64::from(cell.dropped), cell.dropped_bytes.saturating_mul(8), 1.0)
}

/// How many packets of equal weight would say as much as those kept of the present.
pub(crate) fn effective(now: &[Packet]) -> f64 {
    let (sum, squares) = now.iter().fold((0.0, 0.0), |(sum, squares), p| {
        let packets = f64::from(p.packets);
        (sum + packets, squares + packets * packets)
    });
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// What is left of the present without the excess, against what is normal; at most `seen` packets
/// a second tell one from the other. What is `silenced` nobody expects any more, and where nothing
/// arrives, one in `sampling` packets would be seen.
pub(crate) fn left(
    warm: &Warm,
    (rate, over): (Rate, Rate),
    seen: f64,
    silenced: Rate,
    sampling: f64,
) -> Goodput {
    let series = &warm.series;
    let cell = series.window.seconds(series.window.newest(), 3);
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    let own = cell.variance.checked_div(cell.total()).map(|own| own as f64);
    let sampling = own.unwrap_or(sampling).max(1.0);
    let normal = Rate {
        packets_per_sec: (series.mean(PACKETS) - silenced.packets_per_sec).max(0.0),
        bits_per_sec: (series.mean(BITS) - silenced.bits_per_sec).max(0.0),
    };
    let sampled = normal.packets_per_sec / sampling;
    // Beside a flood a thousand times as strong few packets of normal traffic are among those kept.
    let arrived = rate.packets_per_sec / sampling;
    let expected_samples = if arrived > seen { sampled * seen / arrived } else { sampled };
    Goodput {
        now: Rate {
            packets_per_sec: rate.packets_per_sec - over.packets_per_sec,
            bits_per_sec: rate.bits_per_sec - over.bits_per_sec,
        },
        normal,
        expected_samples,
    }
}
