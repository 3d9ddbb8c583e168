//! Small calculations of the search.

use weir_model::Range;

/// The most frequent values by weight, at most `n`, each with at least 2 % of the whole.
pub(super) fn top<V: Copy + Ord>(items: impl Iterator<Item = (V, f64)>, n: usize) -> Vec<V> {
    let mut all: Vec<(V, f64)> = items.collect();
    all.sort_by_key(|a| a.0);
    let total: f64 = all.iter().map(|a| a.1).sum();
    let mut sums: Vec<(V, f64)> = Vec::new();
    for (value, weight) in all {
        match sums.last_mut() {
            Some(last) if last.0 == value => last.1 += weight,
            _ => sums.push((value, weight)),
        }
    }
    sums.retain(|s| s.1 >= total * 0.02);
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    sums.into_iter().take(n).map(|s| s.0).collect()
}

/// Ports 1-65535 without `ports`, as ranges.
pub(super) fn complement(mut ports: Vec<u16>) -> Vec<Range> {
    ports.sort_unstable();
    ports.dedup();
    let mut ranges = Vec::new();
    let mut from: u32 = 1;
    for port in ports {
        if let (Ok(from), Some(to)) = (u16::try_from(from), port.checked_sub(1))
            && from <= to
        {
            ranges.push(Range { from, to });
        }
        from = u32::from(port) + 1;
    }
    if let Ok(from) = u16::try_from(from) {
        ranges.push(Range { from, to: u16::MAX });
    }
    ranges
}

/// Wilson score interval at 95 % for a share of `n` effective observations.
pub(super) fn wilson(share: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.96;
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}
