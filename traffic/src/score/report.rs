//! Many cases together.

use serde::Serialize;

use crate::score::{AttackScore, CaseScore, GoodputRow};

/// Totals over cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Cases.
    pub cases: usize,
    /// Attacks in them.
    pub attacks: usize,
    /// Share of attacks that were detected.
    pub recall: f64,
    /// Share of incidents that were attacks.
    pub precision: f64,
    /// Share of detected attacks given a wrong family.
    pub wrong_family: f64,
    /// Share of detected attacks given a wrong subtype.
    pub wrong_subtype: f64,
    /// From the first attack datagram to the incident, milliseconds: median, 95 %, worst.
    pub delay_flow_ms: Quantiles,
    /// From the first attack datagram to the announcement, milliseconds.
    pub delay_announce_ms: Quantiles,
    /// Of attacks that a filter can cut: median, 5 %, worst.
    pub coverage: Quantiles,
    /// Of attacks that a filter can cut: median, 95 %, worst.
    pub collateral: Quantiles,
    /// Milliseconds from the attack's end to the last withdrawal.
    pub withdraw_ms: Quantiles,
    /// Most measures at once.
    pub rules_max: usize,
    /// Most flaps in a case.
    pub flaps_max: usize,
    /// Measures left standing after the attack.
    pub left_standing: usize,
    /// Incidents of no attack, in benign cases and others.
    pub false_incidents: usize,
    /// Announcements for what was not under attack.
    pub false_announcements: usize,
    /// The same, for a million protected hosts and a day.
    pub false_announcements_per_million_host_days: f64,
    /// Attack cases in which no more goodput was kept than by null-routing.
    pub not_above_rtbh: usize,
    /// Goodput kept, by the defender and by those it is measured by.
    pub goodput: KeptRows,
    /// Mean points of attack cases.
    pub attack_points: f64,
    /// Mean points of benign cases.
    pub benign_points: f64,
    /// 60 % attack points, 40 % benign points, less ten for each false announcement.
    pub points: f64,
    /// Mean square error of confidence as a probability.
    pub brier: f64,
    /// Expected calibration error over ten bins.
    pub calibration_error: f64,
}

/// Goodput that one defender kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Mean share of benign octets that reached their hosts in attack cases, 0-1; 1 without any.
    pub attacked: f64,
    /// The same in benign cases.
    pub benign: f64,
    /// Points as the defender's, false announcements left aside.
    pub points: f64,
}

/// Goodput of the defender and of those it is measured by, as [`crate::score::GoodputRow`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KeptRows {
    /// The defender.
    pub tool: Kept,
    /// Nobody.
    pub none: Kept,
    /// Always null-routing.
    pub rtbh: Kept,
    /// Dropping exactly the attack.
    pub oracle: Kept,
}

/// Three points of a distribution; all zero when there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are no worse.
    pub median: f64,
    /// One in twenty is worse.
    pub p95: f64,
    /// The worst.
    pub worst: f64,
}

impl Quantiles {
    /// Of values where small is good.
    fn small_is_good(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = values.len().saturating_sub(1);
            let index = crate::rng::whole(share * last as f64 + 0.5);
            values.get(usize::try_from(index).unwrap_or(last)).copied().unwrap_or(0.0)
        };
        Self { median: at(0.5), p95: at(0.95), worst: at(1.0) }
    }

    /// Of values where large is good.
    fn large_is_good(values: Vec<f64>) -> Self {
        let turned = Self::small_is_good(values.into_iter().map(|v| -v).collect());
        Self { median: -turned.median, p95: -turned.p95, worst: -turned.worst }
    }
}

fn ratio(part: usize, whole: usize, empty: f64) -> f64 {
    if whole == 0 { empty } else { part as f64 / whole as f64 }
}

fn mean(values: impl Iterator<Item = f64>, empty: f64) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    if count == 0 { empty } else { sum / count as f64 }
}

/// Goodput of one row over all cases.
fn kept(cases: &[CaseScore], row: fn(&GoodputRow) -> f64) -> Kept {
    let of = |benign: bool, value: &dyn Fn(&GoodputRow) -> f64, empty: f64| {
        let cases = cases.iter().filter(|c| c.attacks.is_empty() == benign);
        mean(cases.map(|c| value(&c.goodput)), empty)
    };
    let points = |benign| {
        of(benign, &|g| crate::score::points(GoodputRow { tool: row(g), ..*g }, benign), 100.0)
    };
    Kept {
        attacked: of(false, &row, 1.0),
        benign: of(true, &row, 1.0),
        points: 0.6 * points(false) + 0.4 * points(true),
    }
}

/// Adds cases up.
pub fn summarise(cases: &[CaseScore]) -> Summary {
    let attacks: Vec<&AttackScore> = cases.iter().flat_map(|c| &c.attacks).collect();
    let detected = || attacks.iter().filter(|a| a.delay_flow_ms.is_some());
    let cut = || attacks.iter().filter(|a| !a.alert_suffices);
    let of = |get: fn(&AttackScore) -> Option<u64>| {
        let values = attacks.iter().filter_map(|a| get(a)).map(|ms| ms as f64).collect();
        Quantiles::small_is_good(values)
    };
    let confidences: Vec<(u8, bool)> = cases.iter().flat_map(|c| c.confidences.clone()).collect();
    let true_incidents = confidences.iter().filter(|c| c.1).count();
    let false_announcements = cases.iter().map(|c| c.false_announcements).sum();
    let host_days: f64 = cases.iter().map(|c| c.hosts as f64 * c.seconds as f64 / 86_400.0).sum();
    let (attack_cases, benign_cases): (Vec<&CaseScore>, Vec<&CaseScore>) =
        cases.iter().partition(|c| !c.attacks.is_empty());
    let attack_points = mean(attack_cases.iter().map(|c| c.points), 100.0);
    let benign_points = mean(benign_cases.iter().map(|c| c.points), 100.0);
    let penalty = 10.0 * false_announcements as f64;
    Summary {
        cases: cases.len(),
        attacks: attacks.len(),
        recall: ratio(detected().count(), attacks.len(), 1.0),
        precision: ratio(true_incidents, confidences.len(), 1.0),
        wrong_family: ratio(detected().filter(|a| a.wrong_family).count(), detected().count(), 0.0),
        wrong_subtype: ratio(
            detected().filter(|a| a.wrong_subtype).count(),
            detected().count(),
            0.0,
        ),
        delay_flow_ms: of(|a| a.delay_flow_ms),
        delay_announce_ms: of(|a| a.delay_announce_ms),
        coverage: Quantiles::large_is_good(cut().filter_map(|a| a.coverage).collect()),
        collateral: Quantiles::small_is_good(cut().map(|a| a.collateral).collect()),
        withdraw_ms: of(|a| a.withdraw_ms),
        rules_max: attacks.iter().map(|a| a.rules).max().unwrap_or(0),
        flaps_max: cases.iter().map(|c| c.flaps).max().unwrap_or(0),
        left_standing: cases.iter().map(|c| c.left_standing).sum(),
        false_incidents: cases.iter().map(|c| c.false_incidents).sum(),
        false_announcements,
        false_announcements_per_million_host_days: if host_days > 0.0 {
            false_announcements as f64 / host_days * 1e6
        } else {
            0.0
        },
        not_above_rtbh: attack_cases
            .iter()
            .filter(|c| c.goodput.tool <= c.goodput.rtbh && c.goodput.rtbh < 1.0)
            .count(),
        goodput: KeptRows {
            tool: kept(cases, |g| g.tool),
            none: kept(cases, |g| g.none),
            rtbh: kept(cases, |g| g.rtbh),
            oracle: kept(cases, |g| g.oracle),
        },
        attack_points,
        benign_points,
        points: 0.6 * attack_points + 0.4 * benign_points - penalty,
        brier: brier(&confidences),
        calibration_error: calibration_error(&confidences),
    }
}

fn brier(confidences: &[(u8, bool)]) -> f64 {
    if confidences.is_empty() {
        return 0.0;
    }
    let sum: f64 = confidences
        .iter()
        .map(|(c, attack)| (f64::from(*c) / 100.0 - f64::from(u8::from(*attack))).powi(2))
        .sum();
    sum / confidences.len() as f64
}

/// Mean distance between what was said and what was so, over ten bins weighed by their size.
fn calibration_error(confidences: &[(u8, bool)]) -> f64 {
    let mut bins = [(0usize, 0.0, 0.0); 10];
    for (confidence, attack) in confidences {
        let bin = &mut bins[usize::from(confidence / 10).min(9)];
        bin.0 += 1;
        bin.1 += f64::from(*confidence) / 100.0;
        bin.2 += f64::from(u8::from(*attack));
    }
    let gaps: f64 = bins.iter().map(|(_, said, was)| (said - was).abs()).sum();
    if confidences.is_empty() { 0.0 } else { gaps / confidences.len() as f64 }
}
