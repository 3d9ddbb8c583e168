//! An open incident: what was last said of it, and how long it has been quiet.

use std::net::IpAddr;

use weir_model::{Candidate, IncidentId, IpNet, Millis, Phase, Rate, Verdict};

use crate::host::Alarm;

/// One open incident.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) id: IncidentId,
    pub(crate) host: IpAddr,
    pub(crate) target: IpNet,
    /// The alarm as it was at its strongest.
    pub(crate) alarm: Alarm,
    /// Thresholds when it opened: they end it, too.
    pub(crate) thresholds: [f64; crate::metric::METRICS],
    /// What was last said.
    pub(crate) last: Option<Verdict>,
    /// When it was last said.
    pub(crate) said: Millis,
    /// When it was last judged.
    pub(crate) judged: Millis,
    pub(crate) peak: Rate,
    /// First second not yet counted as quiet or not.
    pub(crate) open_second: u64,
    /// Quiet seconds in a row.
    pub(crate) quiet: u64,
}

/// Whether two verdicts differ by so much that the second must not wait.
pub(crate) fn important(before: &Verdict, after: &Verdict) -> bool {
    let factor = |a: f64, b: f64| a > b * 2.0;
    before.family != after.family
        || before.separable != after.separable
        || matches(&before.candidates) != matches(&after.candidates)
        || factor(after.rate.packets_per_sec, before.rate.packets_per_sec)
        || factor(after.rate.bits_per_sec, before.rate.bits_per_sec)
}

fn matches(candidates: &[Candidate]) -> Vec<&weir_model::Match> {
    candidates.iter().map(|c| &c.packets).collect()
}

impl Active {
    /// The last word on it.
    pub(crate) fn ended(&self, at: Millis) -> Option<Verdict> {
        let mut verdict = self.last.clone()?;
        verdict.phase = Phase::Ended;
        verdict.at = at;
        verdict.rate = Rate::default();
        verdict.excess = Rate::default();
        for candidate in &mut verdict.candidates {
            candidate.rate = Rate::default();
        }
        Some(verdict)
    }
}
