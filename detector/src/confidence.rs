//! How sure a verdict is: a logistic model over the evidence, and how many independent groups of
//! evidence agree.

use crate::vectors::Traits;

/// What the model looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Grounds {
    /// Value over threshold, at least 1.
    pub(crate) ratio: f64,
    /// Share of the excess that the best rules cover, 0-1.
    pub(crate) coverage: f64,
    pub(crate) traits: Traits,
    /// Whether the host's own normal is known.
    pub(crate) known: bool,
    /// Whether the target is the sender.
    pub(crate) outbound: bool,
}

/// Coefficients of the model, in the order of [`features`].
const COEFFICIENTS: [f64; 11] = [-2.4, 0.9, 2.6, 2.4, 0.35, -4.5, 0.8, 0.5, -1.6, -4.0, 2.5];

fn features(e: &Grounds) -> [f64; 11] {
    let t = &e.traits;
    let on = |condition: bool| if condition { 1.0 } else { 0.0 };
    // A handful of senders over established connections is a transfer, not an attack; and of few
    // packets, each from another sender, nobody knows how many senders there are.
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let few = t.top3 > 0.6 || t.samples < 64 || t.sources < 40.0_f64.max(t.samples as f64);
    let transfer = t.established * on(few);
    // Nobody holds a conversation with forged senders. Servers do answer SYNs and queries.
    let service = t.on_service * (1.0 - e.coverage).max(0.5);
    let conversation =
        t.response.map_or(0.0, |r| (r / 0.3).clamp(0.0, 1.0)) * (t.established + service);
    [
        1.0,
        e.ratio.max(1.0).ln().min(3.0),
        e.coverage,
        t.standalone,
        t.sources.max(1.0).ln().min(7.0),
        transfer,
        t.one_length * on(t.one_length > 0.5),
        on(e.known),
        on(e.coverage < 0.4 && t.standalone < 0.5 && !e.outbound),
        conversation.min(1.0) * (1.0 - t.standalone),
        // Nobody answers what a bot sends.
        on(e.outbound && t.established < 0.2 && t.response.unwrap_or(0.0) < 0.1),
    ]
}

/// Confidence 0-100.
pub(crate) fn confidence(e: &Grounds) -> u8 {
    let z: f64 = features(e).iter().zip(COEFFICIENTS).map(|(x, c)| x * c).sum();
    let p = 1.0 / (1.0 + (-z).exp());
    // Without a single packet to look at nobody can be sure.
    // What no rule tells from normal traffic is nothing to drop by.
    let inseparable = e.coverage < 0.4 && e.traits.standalone < 0.5 && !e.outbound;
    let cap = match (e.traits.samples, inseparable) {
        (0, _) => 0.6,
        (_, true) => 0.69,
        _ => 1.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let percent = (p.min(cap) * 100.0).round() as u8;
    percent.min(99)
}

/// Independent groups of evidence that agree: volume (there is an alarm at all), form (a known
/// signature that needs no baseline), separability, and breadth of sources.
pub(crate) fn groups(e: &Grounds) -> u8 {
    let t = &e.traits;
    1 + u8::from(t.standalone >= 0.5)
        + u8::from(e.coverage >= 0.4 && (e.known || t.standalone >= 0.5))
        + u8::from(t.sources >= 300.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood() -> Grounds {
        Grounds {
            ratio: 10.0,
            coverage: 1.0,
            traits: Traits {
                sources: 20_000.0,
                top3: 0.01,
                standalone: 1.0,
                established: 0.0,
                on_service: 1.0,
                one_length: 1.0,
                samples: 300,
                ..Traits::default()
            },
            known: true,
            outbound: false,
        }
    }

    #[test]
    fn a_forged_syn_flood_is_certain_and_a_backup_is_not() {
        assert!(confidence(&flood()) >= 95);
        assert!(groups(&flood()) >= 3);
        let backup = Grounds {
            ratio: 3.0,
            coverage: 1.0,
            traits: Traits {
                sources: 1.0,
                top3: 1.0,
                standalone: 0.0,
                established: 1.0,
                on_service: 0.0,
                one_length: 0.9,
                response: Some(0.5),
                samples: 300,
                ..Traits::default()
            },
            known: true,
            outbound: false,
        };
        assert!(confidence(&backup) < 40, "{}", confidence(&backup));
    }

    #[test]
    fn an_inseparable_growth_stays_below_the_drop_band() {
        let wipe = Grounds {
            ratio: 2.0,
            coverage: 0.1,
            traits: Traits {
                sources: 900.0,
                top3: 0.01,
                on_service: 1.0,
                one_length: 0.1,
                samples: 300,
                ..Traits::default()
            },
            known: true,
            outbound: false,
        };
        assert!(confidence(&wipe) < 70, "{}", confidence(&wipe));
    }
}
