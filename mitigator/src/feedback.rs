//! Did it help? Did it hurt? What the traffic does after an announcement of weir's.
//!
//! An exporter looks either behind the filter, and what is cut vanishes from its reports, or
//! before it, and everything stays in sight unless the router says what it discards (IE 89, sFlow
//! discards). Which of the two is learned; until then traffic that has not fallen counts as a
//! measure that does not work.

use weir_model::{Goodput, Millis, Rung, Verdict};

use crate::config::{Config, Visibility};
use crate::memory::Memory;

/// Samples of legitimate traffic that must be expected before their absence means anything.
const SAMPLES_MIN: f64 = 15.0;
/// Share of its normal level that legitimate traffic must have had before the announcement, 0-1:
/// what the attack had already crushed, the rule cannot have harmed.
const ALIVE_SHARE: f64 = 0.3;
/// What is left of it when a rule has harmed it, share of the level before, 0-1.
const HARMED_SHARE: f64 = 0.1;
/// Share of the excess that must be gone for a measure to count as effective, 0-1.
const EFFECTIVE: f64 = 0.5;
/// Share of the excess that a rule must cut not to be useless, 0-1.
const USEFUL: f64 = 0.3;

/// One generation of measures under observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Watch {
    /// Measures decided at this time or later are the ones watched.
    pub(crate) from: Millis,
    /// When the first peer had it; nothing is judged before.
    pub(crate) on_wire: Option<Millis>,
    /// Excess before that, layer-3 bits a second: the highest seen.
    before: f64,
    /// Legitimate traffic before that, layer-3 bits a second.
    legitimate: Option<f64>,
    /// Legitimate traffic in normal times, layer-3 bits a second.
    normal: f64,
    /// Verdicts in a row that saw legitimate traffic collapsed.
    collapsed: u8,
    /// Whether it once did its work: if the excess is back, the attack is another one.
    worked: bool,
    /// Whether the effect has been judged.
    pub(crate) settled: bool,
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Too early, or nothing to see.
    Unknown,
    /// The traffic has fallen, or routers say that they discard it.
    Works,
    /// Nobody can tell: the exporters look before the filter and do not say what is discarded.
    Unseen,
    /// The traffic has not fallen in time; the share of the excess that is gone, 0-1.
    TooWeak(f64),
    /// The rules cut next to nothing and match next to nothing; the share gone, 0-1.
    Useless(f64),
    /// Legitimate traffic collapsed; what is left of it, 0-1.
    Harmful(f64),
}

impl Watch {
    pub(crate) fn new(verdict: &Verdict, from: Millis) -> Self {
        let goodput = verdict.legitimate.filter(is_sound);
        Self {
            from,
            on_wire: None,
            before: verdict.excess.bits_per_sec,
            legitimate: goodput.map(|g| usual(&g)),
            normal: goodput.map_or(0.0, |g| g.normal.bits_per_sec),
            collapsed: 0,
            worked: false,
            settled: false,
        }
    }

    /// After a restart the numbers from before the announcement are gone: the peak stands in.
    pub(crate) fn resumed(verdict: &Verdict, from: Millis) -> Self {
        Self { before: verdict.peak.bits_per_sec, legitimate: None, ..Self::new(verdict, from) }
    }

    /// What is seen before the first peer has it still belongs to the time before.
    fn keep_before(&mut self, verdict: &Verdict) {
        self.before = self.before.max(verdict.excess.bits_per_sec);
        if let Some(goodput) = verdict.legitimate.filter(is_sound) {
            let now = usual(&goodput);
            self.legitimate = Some(self.legitimate.map_or(now, |before| before.max(now)));
            self.normal = goodput.normal.bits_per_sec;
        }
    }

    /// Share of the excess that remains, 0 and up.
    fn remains(&self, verdict: &Verdict) -> f64 {
        if self.before > 0.0 { verdict.excess.bits_per_sec / self.before } else { 0.0 }
    }

    /// Whether less than half of the excess is left.
    pub(crate) fn has_fallen(&self, verdict: &Verdict) -> bool {
        self.before > 0.0 && self.remains(verdict) < EFFECTIVE
    }

    /// Judges by one verdict. `matched_now` is the share of the excess that the rules in force
    /// still match by the verdict's own measure, 0-1; `rung` is the step in force.
    pub(crate) fn judge(
        &mut self,
        verdict: &Verdict,
        (matched_now, rung): (f64, Option<Rung>),
        memory: &Memory,
        config: &Config,
        now: Millis,
    ) -> Effect {
        let Some(on_wire) = self.on_wire else {
            self.keep_before(verdict);
            return Effect::Unknown;
        };
        // A black hole and a diversion do not claim to spare anybody in these reports.
        let spares = matches!(rung, Some(Rung::RateLimit | Rung::Drop));
        let exporters = &verdict.reason.exporters;
        // What is reported now was seen that much earlier.
        let lag = memory.lag_ms(exporters);
        let age = now.since(on_wire).saturating_sub(lag);
        if spares
            && age > 0
            && age <= config.rollback_secs.saturating_mul(1000)
            && let Some(left) = self.legitimate_left(verdict)
        {
            // One measurement may be off: what is legitimate is an estimate.
            self.collapsed = self.collapsed.saturating_add(1);
            return if self.collapsed >= 2 { Effect::Harmful(left) } else { Effect::Unknown };
        }
        self.collapsed = 0;
        let feedback_secs = match rung {
            Some(Rung::Scrub) => config.scrub_feedback_secs,
            _ => config.feedback_secs,
        };
        if age < feedback_secs.saturating_mul(1000) || self.before <= 0.0 {
            return Effect::Unknown;
        }
        let gone = (1.0 - self.remains(verdict)).max(0.0);
        if gone >= EFFECTIVE {
            self.worked = true;
            return Effect::Works;
        }
        if memory.visibility(config, exporters) == Some(Visibility::BeforeFilter)
            && verdict.discarded.bits_per_sec <= 0.0
        {
            return Effect::Unseen;
        }
        let long = age >= config.rollback_secs.saturating_mul(1000);
        if long && spares && !self.worked && gone < USEFUL && matched_now < USEFUL {
            return Effect::Useless(gone);
        }
        Effect::TooWeak(gone)
    }

    /// What is left of the legitimate traffic, when that is a collapse that came with the rules.
    fn legitimate_left(&self, verdict: &Verdict) -> Option<f64> {
        let goodput = verdict.legitimate.filter(is_sound)?;
        let before = self.legitimate?;
        if before <= ALIVE_SHARE * self.normal || before <= 0.0 {
            return None;
        }
        let left = goodput.now.bits_per_sec / before;
        (left < HARMED_SHARE).then_some(left)
    }

    /// Which way the exporters look, by how a measure that works showed itself.
    pub(crate) fn shows(&self, verdict: &Verdict) -> Visibility {
        let visible = verdict.excess.bits_per_sec;
        let discarded = verdict.discarded.bits_per_sec;
        if discarded > 0.0 && discarded >= EFFECTIVE * visible {
            Visibility::BeforeFilter
        } else {
            Visibility::AfterFilter
        }
    }
}

/// Legitimate traffic now, and no more than is normal: what is above may well be the attack.
fn usual(goodput: &Goodput) -> f64 {
    goodput.now.bits_per_sec.min(goodput.normal.bits_per_sec)
}

fn is_sound(goodput: &Goodput) -> bool {
    goodput.expected_samples >= SAMPLES_MIN && goodput.now.bits_per_sec.is_finite()
}
