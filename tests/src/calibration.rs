//! How the confidence model is fitted to the scenario suite, and how well it then holds.
//!
//! What is judged of one target in one case, over and over while an attack lasts, is one
//! observation: it is told with the highest confidence that any look at it gave, so that is what
//! must be right.

use std::collections::BTreeMap;

use weir_detector::confidence::{FEATURES, Judged, features, probability};
use weir_model::Direction;
use weir_traffic::case::Truth;

/// How firmly the coefficients are held to [`PRIOR`]: the weight of half their squared distance, in
/// observations.
const RIDGE: f64 = 0.2;
/// Rounds in which each observation is represented by its surest look.
const ROUNDS: usize = 12;
/// Passes over the coefficients in a round.
const PASSES: usize = 100;

/// Which way each feature may count, +1, -1 or 0 for either: what is known beforehand is not left to
/// the chances of a few hundred observations.
const SIGNS: [f64; FEATURES] =
    [0.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 1.0];

/// What is believed before any observation. The suite has few attacks by single senders and few
/// ordinary days that are told from attacks by one feature alone: of those a fit by nothing but
/// likelihood would say anything.
const PRIOR: [f64; FEATURES] =
    [-2.4, 0.9, 2.6, 2.4, 0.35, -4.5, 0.8, -1.6, -1.6, -4.0, 2.5, -0.5, 1.0];

/// One look at a target.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What the model looks at.
    pub features: [f64; FEATURES],
    /// Highest probability that may be told.
    pub cap: f64,
}

/// All looks at one target in one case.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Case, target and direction, for people.
    pub name: String,
    /// Whether it was an attack.
    pub attack: bool,
    /// Whether it is as an exporter tells it that shows only what comes in.
    pub one_way: bool,
    /// What was seen, in order of time, not empty.
    pub looks: Vec<Look>,
}

impl Observation {
    /// The surest look and what would be told of it, 0-100.
    fn surest(&self, coefficients: &[f64; FEATURES]) -> (&Look, f64) {
        let told = |look: &Look| probability(&look.features, coefficients).min(look.cap);
        let best =
            self.looks.iter().map(|look| (look, told(look))).max_by(|a, b| a.1.total_cmp(&b.1));
        let (look, told) = best.expect("an observation has a look");
        (look, (told * 100.0).round())
    }
}

/// Whether `judged` is of one of the attacks: as the score has it.
fn of_attack(judged: &Judged, truths: &[Truth]) -> bool {
    truths.iter().any(|truth| {
        truth.direction == judged.direction
            && (truth.target.contains(&judged.target) || judged.target.contains(&truth.target))
            && judged.at.0 >= truth.first_packet_ms
            && judged.at.0 <= truth.end_ms + 30_000
    })
}

/// Adds up what was judged in one case, once as it was and once without the answers: many routers
/// export only what comes in. What belongs to an incident is an attack if the incident is; what
/// belongs to none, if one was going on.
pub fn observations(case: &str, judged: &[Judged], truths: &[Truth]) -> Vec<Observation> {
    let mut incidents = BTreeMap::new();
    let mut found: BTreeMap<_, Vec<Look>> = BTreeMap::new();
    for look in judged {
        let now = of_attack(look, truths);
        let attack = look.incident.map_or(now, |id| *incidents.entry(id).or_insert(now));
        let inbound = look.direction == Direction::Inbound;
        for one_way in [false, true].into_iter().take(1 + usize::from(inbound)) {
            let mut evidence = look.evidence.clone();
            evidence.response = evidence.response.filter(|_| !one_way);
            let key = (one_way, look.target, look.direction, attack);
            let look = Look { features: features(&evidence), cap: look.cap };
            found.entry(key).or_default().push(look);
        }
    }
    found
        .into_iter()
        .map(|((one_way, target, direction, attack), looks)| Observation {
            name: format!("{case} {target} {direction:?}"),
            attack,
            one_way,
            looks,
        })
        .collect()
}

/// Coefficients of the largest penalised likelihood, each in the direction that it may have.
pub fn fit(observations: &[Observation]) -> [f64; FEATURES] {
    let mut coefficients = PRIOR;
    for _ in 0..ROUNDS {
        let rows: Vec<([f64; FEATURES], f64)> = observations
            .iter()
            .map(|o| (o.surest(&coefficients).0.features, f64::from(u8::from(o.attack))))
            .collect();
        for _ in 0..PASSES {
            for index in 0..FEATURES {
                coefficients[index] = step(&rows, &coefficients, index);
            }
        }
    }
    coefficients
}

/// One coefficient's Newton step, the others standing still.
fn step(rows: &[([f64; FEATURES], f64)], coefficients: &[f64; FEATURES], index: usize) -> f64 {
    let mut slope = RIDGE * (PRIOR[index] - coefficients[index]);
    let mut curve = RIDGE;
    for (row, attack) in rows {
        let p = probability(row, coefficients);
        slope += (attack - p) * row[index];
        curve += p * (1.0 - p) * row[index] * row[index];
    }
    // Where the likelihood is flat a whole step would go astray.
    let next = coefficients[index] + (slope / curve).clamp(-0.5, 0.5);
    match SIGNS[index] {
        0.0 => next,
        sign => (next * sign).max(0.0) * sign,
    }
}

/// A row of the reliability table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Observations told of with a confidence in this bin.
    pub count: usize,
    /// Their mean confidence, 0-1.
    pub said: f64,
    /// Share of them that were attacks, 0-1.
    pub was: f64,
}

/// Ten bins of confidence, of what would be told with at least `least` of 100.
pub fn reliability(
    observations: &[Observation],
    coefficients: &[f64; FEATURES],
    least: f64,
) -> [Bin; 10] {
    let mut bins = [Bin::default(); 10];
    for observation in observations {
        let told = observation.surest(coefficients).1;
        if told < least {
            continue;
        }
        let at = (0..9).find(|i| told < f64::from(*i + 1) * 10.0).unwrap_or(9);
        let bin = &mut bins[usize::try_from(at).unwrap_or(9)];
        bin.count += 1;
        bin.said += told / 100.0;
        bin.was += f64::from(u8::from(observation.attack));
    }
    for bin in bins.iter_mut().filter(|b| b.count > 0) {
        bin.said /= bin.count as f64;
        bin.was /= bin.count as f64;
    }
    bins
}

/// Mean distance between what was said and what was so, weighed by the size of the bins.
pub fn calibration_error(bins: &[Bin]) -> f64 {
    let all: usize = bins.iter().map(|b| b.count).sum();
    let gaps: f64 = bins.iter().map(|b| (b.said - b.was).abs() * b.count as f64).sum();
    if all == 0 { 0.0 } else { gaps / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observations whose probability is known, told by two features.
    fn drawn(count: u32) -> Vec<Observation> {
        let mut state = 7_u32;
        let mut chance = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1_u32 << 24)
        };
        (0..count)
            .map(|i| {
                let mut features = [0.0; FEATURES];
                (features[0], features[2], features[5]) = (1.0, chance(), chance());
                let p = probability(&features, &truth());
                Observation {
                    name: i.to_string(),
                    attack: chance() < p,
                    one_way: false,
                    looks: vec![Look { features, cap: 1.0 }],
                }
            })
            .collect()
    }

    fn truth() -> [f64; FEATURES] {
        let mut truth = [0.0; FEATURES];
        (truth[0], truth[2], truth[5]) = (-1.0, 5.0, -3.0);
        truth
    }

    #[test]
    fn a_fit_finds_what_observations_were_drawn_by() {
        let observations = drawn(2000);
        let found = fit(&observations);
        for (index, found) in found.into_iter().enumerate() {
            // Of what no observation tells, what was believed before stands.
            let expected = if matches!(index, 0 | 2 | 5) { truth()[index] } else { PRIOR[index] };
            assert!((found - expected).abs() < 0.5, "{index}: {found} for {expected}");
        }
        let error = calibration_error(&reliability(&observations, &found, 0.0));
        assert!(error < 0.03, "{error}");
        let mut bold = [0.0; FEATURES];
        bold[0] = 3.0;
        let wrong = calibration_error(&reliability(&observations, &bold, 0.0));
        assert!(wrong > 0.2, "{wrong}");
    }

    #[test]
    fn no_feature_counts_the_wrong_way() {
        let mut observations = drawn(500);
        observations.iter_mut().for_each(|o| o.attack = !o.attack);
        let found = fit(&observations);
        assert_eq!((found[2], found[5]), (0.0, 0.0));
    }
}
