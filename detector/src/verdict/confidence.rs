//! How sure a verdict is: a logistic model over the evidence, and how many independent groups of
//! evidence agree.
//!
//! The coefficients are not chosen by hand: `fit` of the test crate plays the scenario suite over some
//! feeds, takes what was judged ([`crate::Detector::take_judged`]) and prints them.

use weir_model::{Direction, Evidence, IncidentId, IpNet, Millis};

/// An alarm that was judged, or an open incident that was judged again.
#[derive(Clone, Debug)]
pub struct Judged {
    /// When.
    pub at: Millis,
    /// Host or prefix.
    pub target: IpNet,
    /// Which way.
    pub direction: Direction,
    /// The incident that it opened or belongs to; none when it was not convincing.
    pub incident: Option<IncidentId>,
    /// The numbers behind it, without histograms and flows.
    pub evidence: Evidence,
    /// Highest probability that could be told, 0-1: see [`cap`]; less where flow records alone can only
    /// raise a suspicion.
    pub cap: f64,
}

/// Number of features.
pub const FEATURES: usize = 13;

/// What the features are, in order.
pub const NAMES: [&str; FEATURES] = [
    "constant",
    "log of value over threshold",
    "share that rules cover",
    "share of a known attack",
    "log of sources",
    "transfer by few",
    "one length",
    "inseparable, answers not seen",
    "inseparable",
    "conversation",
    "sent without an answer",
    "sources seen before",
    "forged TTL",
];

/// Coefficients of the model, in the order of [`features`].
pub const COEFFICIENTS: [f64; FEATURES] =
    [-3.27, 2.19, 1.25, 2.52, 0.64, -6.59, 0.6, -2.18, -0.87, -5.37, 3.16, -0.81, 1.4];

/// Share of the excess from which it is answered on the whole, and the highest probability of an attack
/// that may then be told: nothing is done below 0.4.
pub(crate) const ANSWERED_MOST: f64 = 0.5;
const ANSWERED_CAP: f64 = 0.35;

/// Packets of the excess of which the target would have answered one at least, however few it answers: one
/// in fifty (99 %).
const UNANSWERED_MIN: u32 = 230;

/// Whether no rule tells the excess from normal traffic, and nothing else names it.
fn inseparable(e: &Evidence) -> bool {
    e.coverage < 0.4 && e.standalone < 0.5 && !e.outbound
}

/// What the model looks at.
pub fn features(e: &Evidence) -> [f64; FEATURES] {
    let on = |condition: bool| if condition { 1.0 } else { 0.0 };
    // A handful of senders over established connections is a transfer, not an attack; and of few
    // packets, each from another sender, nobody knows how many senders there are.
    let samples = f64::from(e.samples);
    let few = e.top3 > 0.6 || e.samples < 64 || e.sources < samples.max(40.0);
    // So many packets without one answer are no transfer.
    let unanswered = e.answered.is_some_and(|a| a <= 0.0) && e.samples >= UNANSWERED_MIN;
    let transfer = e.established * on(few && !unanswered);
    // Nobody holds a conversation with forged senders. Servers do answer SYNs and queries.
    let service = e.on_service * (1.0 - e.coverage).max(0.5);
    let conversation =
        e.response.map_or(0.0, |r| (r / 0.3).clamp(0.0, 1.0)) * (e.established + service);
    // Two-way traffic is one concept for every protocol and port: what counts is who is answered.
    let conversation = match e.answered {
        Some(answered) => conversation.max(answered),
        None => conversation,
    };
    [
        1.0,
        e.ratio.max(1.0).ln().min(3.0),
        e.coverage,
        e.standalone,
        e.sources.max(1.0).ln().min(7.0),
        transfer,
        e.one_length * on(e.one_length > 0.5),
        // Of what looks like more of the same, answers tell players from a flood.
        on(inseparable(e) && e.response.is_none()),
        on(inseparable(e)),
        conversation.min(1.0) * (1.0 - e.standalone),
        // Nobody answers what a bot sends. Where answers are not seen, nothing is known of them.
        on(e.outbound && e.established < 0.2 && e.response.is_some_and(|r| r < 0.1)),
        e.seen_before.unwrap_or(0.0) * (1.0 - e.standalone),
        e.ttl_odd.unwrap_or(0.0),
    ]
}

/// Probability of an attack by the model with these coefficients, 0-1.
pub fn probability(features: &[f64; FEATURES], coefficients: &[f64; FEATURES]) -> f64 {
    let z: f64 = features.iter().zip(coefficients).map(|(x, c)| x * c).sum();
    1.0 / (1.0 + (-z).exp())
}

/// Highest probability that may be told. Without a single packet to look at nobody can be sure; and
/// what no rule tells from normal traffic is nothing to drop by, however sure it is an attack.
pub fn cap(e: &Evidence) -> f64 {
    match (e.samples, inseparable(e)) {
        // What is answered is wanted until proven otherwise: an alert at most.
        _ if e.answered.is_some_and(|answered| answered >= ANSWERED_MOST) => ANSWERED_CAP,
        (0, _) => 0.6,
        (_, true) => 0.69,
        _ => 0.99,
    }
}

/// Confidence 0-100.
pub fn confidence(e: &Evidence) -> u8 {
    let p = probability(&features(e), &COEFFICIENTS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let percent = (p.min(cap(e)) * 100.0).round() as u8;
    percent
}

/// Independent groups of evidence that agree: volume (there is an alarm at all), form (a known
/// signature that needs no baseline), separability, and breadth of sources.
pub fn groups(e: &Evidence) -> u8 {
    1 + u8::from(e.standalone >= 0.5)
        + u8::from(e.coverage >= 0.4 && (e.known || e.standalone >= 0.5))
        + u8::from(e.sources >= 300.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood() -> Evidence {
        Evidence {
            ratio: 10.0,
            coverage: 1.0,
            sources: 20_000.0,
            top3: 0.01,
            standalone: 1.0,
            established: 0.0,
            on_service: 1.0,
            one_length: 1.0,
            samples: 300,
            known: true,
            ..Evidence::default()
        }
    }

    #[test]
    fn a_forged_syn_flood_is_certain_and_a_backup_is_not() {
        assert!(confidence(&flood()) >= 95);
        assert!(groups(&flood()) >= 3);
        let backup = Evidence {
            ratio: 3.0,
            coverage: 1.0,
            sources: 1.0,
            top3: 1.0,
            standalone: 0.0,
            established: 1.0,
            on_service: 0.0,
            one_length: 0.9,
            response: Some(0.5),
            samples: 300,
            known: true,
            ..Evidence::default()
        };
        assert!(confidence(&backup) < 40, "{}", confidence(&backup));
    }

    #[test]
    fn an_inseparable_growth_stays_below_the_drop_band() {
        let wipe = Evidence {
            ratio: 2.0,
            coverage: 0.1,
            sources: 900.0,
            top3: 0.01,
            on_service: 1.0,
            one_length: 0.1,
            samples: 300,
            known: true,
            ..Evidence::default()
        };
        assert!(confidence(&wipe) < 70, "{}", confidence(&wipe));
    }

    #[test]
    fn an_answer_that_nobody_could_see_is_no_silence() {
        let mut sent = Evidence {
            ratio: 2.0,
            sources: 1.0,
            top3: 1.0,
            samples: 300,
            known: true,
            outbound: true,
            ..Evidence::default()
        };
        let unseen = confidence(&sent);
        sent.response = Some(0.0);
        assert!(confidence(&sent) > unseen, "{unseen}");
    }

    #[test]
    fn one_sender_is_enough_for_a_flood_and_not_for_a_transfer() {
        let mut one = Evidence {
            ratio: 10.0,
            coverage: 0.98,
            sources: 1.0,
            top3: 1.0,
            one_length: 1.0,
            samples: 300,
            known: true,
            ..Evidence::default()
        };
        assert!(confidence(&one) >= 70, "{}", confidence(&one));
        // Established, and the answers unseen: many routers export only what comes in.
        one.established = 1.0;
        assert!(confidence(&one) < 40, "{}", confidence(&one));
    }
}
