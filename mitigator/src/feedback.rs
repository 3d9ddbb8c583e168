//! Did it help? Did it hurt? What the traffic does after an announcement of weir's.
//!
//! An exporter looks either behind the filter, and what is cut vanishes from its reports, or
//! before it, and everything stays in sight unless the router says what it discards (IE 89, sFlow
//! discards). Which of the two is learned. Until it is known, traffic that has not fallen proves
//! nothing: a rule that works must not be taken for one that does not, because the next step may
//! be a black hole.

use weir_model::{Goodput, Millis, Rung, Verdict};

use crate::config::{Config, Visibility};
use crate::memory::Memory;

/// Samples of legitimate traffic that must be expected before their absence means anything.
const SAMPLES_MIN: f64 = 15.0;
/// Samples that must be expected for its level before an announcement to be known: beside a flood fewer are
/// told apart, and a level misread is put right by what is asked of the silence after it.
const BEFORE_SAMPLES_MIN: f64 = 5.0;
/// Weight that a verdict's samples keep in the level at the next verdict, 0-1: about five count.
const LEVEL_KEEPS: f64 = 0.8;
/// Share of its normal level that legitimate traffic must have had before the announcement, 0-1:
/// what the attack had already crushed, the rule cannot have harmed.
const ALIVE_SHARE: f64 = 0.3;
/// What is left of it when a rule has harmed it, share of the level before, 0-1.
const HARMED_SHARE: f64 = 0.1;
/// Share of the excess that must be gone for a measure to count as effective, 0-1.
const EFFECTIVE: f64 = 0.5;
/// Share of the excess that rules must cut not to be useless, 0-1; less where less was promised of them: half
/// of that.
const USEFUL: f64 = 0.3;
/// Share of the excess that routers must say they discard for their silence about the rest to mean
/// something, 0-1: a few discards for other reasons are always there.
const TOLD: f64 = 0.1;
/// What falls so much later than a measure's effect was due has other reasons, milliseconds.
const PROMPT_MS: u64 = 3000;
/// Share of the excess that must be gone, or still be there, for several exporters together to
/// show which way each of them looks, 0-1.
const ALL_GONE: f64 = 0.8;
const NONE_GONE: f64 = 0.2;

/// How legitimate traffic fares, from several verdicts together: beside a strong flood one alone tells too
/// few samples of it apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Level {
    /// Expected samples, those of older verdicts for less.
    samples: f64,
    /// Layer-3 bits a second, times those samples.
    weighted: f64,
    /// In normal times, layer-3 bits a second.
    normal: f64,
}

impl Level {
    pub(crate) fn take(&mut self, verdict: &Verdict) {
        let Some(goodput) = verdict.legitimate.filter(|g| is_sound(g, f64::MIN_POSITIVE)) else {
            return;
        };
        let samples = goodput.expected_samples;
        self.samples = self.samples.mul_add(LEVEL_KEEPS, samples);
        self.weighted = self.weighted.mul_add(LEVEL_KEEPS, usual(&goodput) * samples);
        self.normal = goodput.normal.bits_per_sec;
    }

    /// Layer-3 bits a second, once enough has been seen of it.
    fn known(&self) -> Option<f64> {
        (self.samples >= BEFORE_SAMPLES_MIN).then(|| self.weighted / self.samples)
    }
}

/// One generation of measures under observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Watch {
    /// Measures decided at this time or later are the ones watched.
    pub(crate) from: Millis,
    /// When the first peer had it; nothing is judged before, and not while no router has it.
    pub(crate) on_wire: Option<Millis>,
    /// Since when nobody is waited for who could have it: before, traffic that does not fall proves
    /// nothing.
    pub(crate) whole: Option<Millis>,
    /// Excess before that, layer-3 bits a second: the highest seen.
    before: f64,
    /// Legitimate traffic before that.
    legitimate: Level,
    /// Verdicts in a row that saw legitimate traffic collapsed.
    collapsed: u8,
    /// Whether it once did its work: if the excess is back, the attack is another one.
    worked: bool,
    /// Whether the effect has been judged.
    pub(crate) settled: bool,
    /// Whether a fall would show which way the exporters look: not when the numbers from before
    /// the announcement are gone, and not when it comes late.
    telling: bool,
    /// Whether something was learned from it; one generation is one observation.
    taught: bool,
}

/// What is in force when its effect is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InForce {
    /// Largest share of the excess that the rules can still match by the verdict's own measure, 0-1.
    pub(crate) matched_max: f64,
    /// Share that they were said to match when they were chosen, 0-1.
    pub(crate) promised: f64,
    /// The step.
    pub(crate) rung: Option<Rung>,
}

/// Whether legitimate traffic suffers from a measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Harm {
    /// Not by this verdict.
    None,
    /// By this verdict alone.
    Suspected,
    /// By two in a row; what is left of it, 0-1.
    Sure(f64),
    /// The time in which a collapse is laid at the measure's door is over.
    Over,
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Too early, or nothing to see.
    Unknown,
    /// The traffic has fallen, or routers say that they discard it.
    Works,
    /// Nobody can tell: the exporters look before the filter, or may do so, and do not say what is
    /// discarded.
    Unseen,
    /// The traffic has not fallen in time; the share of the excess that is gone, 0-1.
    TooWeak(f64),
    /// The rules cut next to nothing and match next to nothing; the share gone, 0-1.
    Useless(f64),
    /// Legitimate traffic collapsed; what is left of it, 0-1.
    Harmful(f64),
}

impl Watch {
    /// `legitimate` is its level up to and with this verdict.
    pub(crate) fn new(verdict: &Verdict, legitimate: Level, from: Millis) -> Self {
        Self {
            from,
            on_wire: None,
            whole: Some(from),
            before: verdict.excess.bits_per_sec,
            legitimate,
            collapsed: 0,
            worked: false,
            settled: false,
            telling: true,
            taught: false,
        }
    }

    /// After a restart the numbers from before the announcement are gone: the peak stands in.
    pub(crate) fn resumed(verdict: &Verdict, from: Millis) -> Self {
        let before = verdict.peak.bits_per_sec;
        Self { before, telling: false, ..Self::new(verdict, Level::default(), from) }
    }

    /// The attack is back while its measures stand: from now on it shows what they do to it.
    pub(crate) fn again(verdict: &Verdict, from: Millis, now: Millis) -> Self {
        Self { on_wire: Some(now), ..Self::resumed(verdict, from) }
    }

    /// What is seen before the first peer has it still belongs to the time before.
    fn keep_before(&mut self, verdict: &Verdict) {
        self.before = self.before.max(verdict.excess.bits_per_sec);
        let mut level = self.legitimate;
        level.take(verdict);
        // It may be on the wire before the peer's report of it: its effect is not the time before.
        if level.known() >= self.legitimate.known() {
            self.legitimate = level;
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

    /// Judges by one verdict what is in force.
    pub(crate) fn judge(
        &mut self,
        verdict: &Verdict,
        InForce { matched_max, promised, rung }: InForce,
        memory: &Memory,
        config: &Config,
        now: Millis,
    ) -> Effect {
        let Some(on_wire) = self.on_wire else {
            self.keep_before(verdict);
            return Effect::Unknown;
        };
        // A black hole and a diversion do not claim to spare anybody in these reports.
        let spares = rung.is_some_and(Rung::filters);
        let exporters = &verdict.reason.exporters;
        // What is reported now was seen that much earlier.
        let lag = memory.lag_ms(exporters);
        let age = now.since(on_wire).saturating_sub(lag);
        if spares {
            match self.harm(verdict, memory, config, now) {
                Harm::Sure(left) => return Effect::Harmful(left),
                Harm::Suspected => return Effect::Unknown,
                Harm::None | Harm::Over => {}
            }
        }
        let due = config.feedback_ms(rung);
        if age < due || self.before <= 0.0 {
            return Effect::Unknown;
        }
        if age >= due.saturating_add(PROMPT_MS) {
            self.telling = false;
        }
        let gone = (1.0 - self.remains(verdict)).max(0.0);
        if gone >= EFFECTIVE {
            self.worked = true;
            return Effect::Works;
        }
        // What is still there may come in where a peer is away.
        let whole = self.whole.is_some_and(|at| now.since(at).saturating_sub(lag) >= due);
        if !whole {
            return Effect::Unknown;
        }
        let told = verdict.discarded.bits_per_sec >= TOLD * self.before;
        let seen = told || memory.visibility(config, exporters) == Some(Visibility::AfterFilter);
        let long = age >= config.rollback_secs.saturating_mul(1000);
        // Out of sight, only what the detector names as the attack can show that a rule misses it.
        let named = seen || !verdict.candidates.is_empty();
        let useful = USEFUL.min(promised / 2.0);
        let useless = gone < useful && matched_max < useful;
        if long && spares && !self.worked && named && useless {
            return Effect::Useless(gone);
        }
        match rung {
            // A mark protects nobody by itself: where nothing shows that it helps, the ladder goes on.
            Some(Rung::Mark) => Effect::TooWeak(gone),
            // The router that diverts sees the traffic come in, and come back: its sight of what it drops
            // says nothing of that, and the next step may be a black hole.
            Some(Rung::Redirect | Rung::Divert) => Effect::Unseen,
            _ if seen => Effect::TooWeak(gone),
            _ => Effect::Unseen,
        }
    }

    /// Whether legitimate traffic collapsed soon after the announcement.
    pub(crate) fn harm(
        &mut self,
        verdict: &Verdict,
        memory: &Memory,
        config: &Config,
        now: Millis,
    ) -> Harm {
        let Some(on_wire) = self.on_wire else {
            self.keep_before(verdict);
            return Harm::None;
        };
        let age = now.since(on_wire).saturating_sub(memory.lag_ms(&verdict.reason.exporters));
        if age > config.rollback_secs.saturating_mul(1000) {
            return Harm::Over;
        }
        let Some(left) = self.legitimate_left(verdict).filter(|_| age > 0) else {
            self.collapsed = 0;
            return Harm::None;
        };
        // One measurement may be off: what is legitimate is an estimate.
        self.collapsed = self.collapsed.saturating_add(1);
        if self.collapsed >= 2 { Harm::Sure(left) } else { Harm::Suspected }
    }

    /// What a judgement shows about the exporters, once a generation. `matched` is the share of
    /// the excess that the rules in force surely match, 0-1.
    pub(crate) fn lesson(
        &mut self,
        verdict: &Verdict,
        effect: Effect,
        matched: f64,
    ) -> Option<Visibility> {
        if self.taught {
            return None;
        }
        let several = verdict.reason.exporters.len() > 1;
        let remains = self.remains(verdict);
        let seen = match effect {
            Effect::Works if self.is_told(verdict) => Some(Visibility::BeforeFilter),
            Effect::Works => {
                let all = !several || remains <= 1.0 - ALL_GONE;
                (self.telling && all).then_some(Visibility::AfterFilter)
            }
            Effect::Unseen => {
                let all = !several || remains >= 1.0 - NONE_GONE;
                (matched >= EFFECTIVE && all).then_some(Visibility::BeforeFilter)
            }
            _ => None,
        };
        // A fall that shows nothing now will not show more later.
        self.taught = seen.is_some() || effect == Effect::Works;
        seen
    }

    /// What is left of the legitimate traffic, when that is a collapse that came with the rules.
    fn legitimate_left(&self, verdict: &Verdict) -> Option<f64> {
        let goodput = verdict.legitimate.filter(|g| is_sound(g, SAMPLES_MIN))?;
        let before = self.legitimate.known()?;
        if before <= ALIVE_SHARE * self.legitimate.normal || before <= 0.0 {
            return None;
        }
        let left = goodput.now.bits_per_sec / before;
        (left < HARMED_SHARE).then_some(left)
    }

    /// Whether routers say that they discard a good part of what there was.
    pub(crate) fn is_told(&self, verdict: &Verdict) -> bool {
        let discarded = verdict.discarded.bits_per_sec;
        discarded >= TOLD * self.before && discarded >= EFFECTIVE * verdict.excess.bits_per_sec
    }
}

/// Why a measure is taken back under which so much is left of legitimate traffic, 0-1.
pub(crate) fn starved(left: f64) -> String {
    format!("legitimate traffic fell to {:.0} %", left * 100.0)
}

/// Legitimate traffic now, and no more than is normal: what is above may well be the attack.
fn usual(goodput: &Goodput) -> f64 {
    goodput.now.bits_per_sec.min(goodput.normal.bits_per_sec)
}

fn is_sound(goodput: &Goodput, samples_min: f64) -> bool {
    goodput.expected_samples >= samples_min && goodput.now.bits_per_sec.is_finite()
}
