//! An open incident: what was last said of it, and how long it has been quiet.

use weir_model::{
    Candidate, Direction, Evidence, Hold, IncidentId, IpNet, Match, Metric, Millis, OwnMeasure,
    Phase, Range, Rate, Verdict,
};

use crate::config::Config;
use crate::verdict::hold::Weighed;
use crate::watch::metric::{METRICS, PACKETS, SOURCES, floors, index_of};
use crate::watch::series::Alarm;

/// Times the average below which traffic of an odd shape has become normal again.
const SHAPE_END: f64 = 1.25;
/// Times the average from which it was looked at.
const SHAPE_BEGIN: f64 = 1.5;

/// Confidence from which an attack is sure, and below which what is left of it is doubtful.
const SURE: u8 = 70;
/// How long an incident has been an alert when what follows is another, milliseconds: at its onset an attack is
/// not sure at once.
const ALERT_MS: u64 = 10_000;
const DOUBTFUL: u8 = 40;
/// Share of an attack at its strongest that may remain when what is left is no longer it.
const REMAINS_MAX: f64 = 0.1;
/// How long that is so before it is over, milliseconds: a mitigation stays for longer.
const REMAINS_MS: u64 = 10_000;

/// How long traffic that was answered counts as such, milliseconds.
const ANSWERED_KEPT_MS: u64 = 20_000;
/// Protocols and ports kept of it.
const ANSWERED_MAX: usize = 16;

/// Protocols and destination ports of a rule.
type Way = (Vec<u8>, Vec<Range>);

/// One open incident.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) id: IncidentId,
    pub(crate) target: IpNet,
    /// The alarm as it was at its strongest.
    pub(crate) alarm: Alarm,
    /// The metric of an operator's own that it is of: no rule goes beyond what that means.
    pub(crate) own: Option<OwnMeasure>,
    /// Below these values it is quiet: of all metrics, as thresholds were when it opened.
    pub(crate) limits: [f64; METRICS],
    /// Exporters that carried it when it was last looked at.
    pub(crate) carriers: Vec<u16>,
    /// First second of which it has not been said yet what it explains.
    pub(crate) aside: u64,
    /// Whether single seconds vary too much to be judged one by one.
    pub(crate) smooth: bool,
    /// What was last said.
    pub(crate) last: Option<Verdict>,
    /// When it was last said.
    pub(crate) said: Millis,
    /// When it was last judged.
    pub(crate) judged: Millis,
    /// When it opened.
    pub(crate) begun: Millis,
    pub(crate) peak: Rate,
    /// First second not yet counted as quiet or not; 0 when it is not known from where to count.
    pub(crate) open_second: u64,
    /// Quiet seconds in a row.
    pub(crate) quiet: u64,
    /// The numbers behind the last verdict, without histograms and flows.
    pub(crate) numbers: Evidence,
    /// Highest probability that could be told of it, 0-1.
    pub(crate) cap: f64,
    /// What the verdicts rest on: of the attack at its strongest.
    pub(crate) evidence: Evidence,
    /// Largest excess so far, packets a second.
    strongest: f64,
    /// When evidence was last handed on to be kept.
    kept: Millis,
    /// Highest confidence so far, 0-100.
    pub(crate) surest: u8,
    /// Protocols and ports of rules that were found to cut answered traffic, and when last.
    answered: Vec<(Way, Millis)>,
    /// Since when what is left no longer looks like the attack that it was.
    pub(crate) doubted: Option<Millis>,
    /// Since when little is left, and without the sign that the attack showed.
    pub(crate) remains: Option<Millis>,
}

impl Active {
    pub(crate) fn new(
        id: IncidentId,
        target: IpNet,
        alarm: Alarm,
        thresholds: &[f64; METRICS],
        config: &Config,
        now: Millis,
    ) -> Self {
        let mut limits = *thresholds;
        let smooth = matches!(alarm.metric, Metric::Shape | Metric::Cusum);
        if smooth {
            limits[PACKETS] = alarm.threshold * (SHAPE_END / SHAPE_BEGIN);
        } else if alarm.index == SOURCES {
            // Those who came are not new any more, and go on: their volume tells when it is over.
            limits = limits.map(|limit| limit * config.end_ratio);
        } else if alarm.service.is_none() && alarm.metric != Metric::Own {
            limits[alarm.index] = alarm.threshold * config.end_ratio;
        }
        Self {
            id,
            target,
            alarm,
            own: None,
            limits,
            carriers: Vec::new(),
            aside: 0,
            smooth,
            last: None,
            said: now,
            judged: now,
            begun: now,
            peak: Rate::default(),
            open_second: 0,
            quiet: 0,
            numbers: Evidence::default(),
            cap: 1.0,
            evidence: Evidence::default(),
            strongest: 0.0,
            kept: Millis(0),
            surest: 0,
            answered: Vec::new(),
            doubted: None,
            remains: None,
        }
    }

    /// Compares a verdict with those before. An attack of which nobody is sure any more and that no
    /// rule finds is over, though the host may be busier than its threshold: with players.
    pub(crate) fn weigh(&mut self, verdict: &Verdict) {
        self.surest = self.surest.max(verdict.confidence);
        // Of a host whose normal traffic is not known no threshold tells the end. But of a small part of the attack,
        // without the sign that it showed, nobody would have said that it is one.
        let unknown = |c: &Candidate| c.hold == Some(Hold::Learning);
        let unsigned = !verdict.candidates.is_empty() && verdict.candidates.iter().all(unknown);
        let little = verdict.excess.packets_per_sec <= REMAINS_MAX * self.strongest;
        let remains = self.surest >= SURE && verdict.confidence < SURE && unsigned && little;
        self.remains = remains.then(|| self.remains.unwrap_or(verdict.at));
        let doubtful = self.surest >= SURE && verdict.confidence < DOUBTFUL && !verdict.separable;
        self.doubted = doubtful.then(|| self.doubted.unwrap_or(verdict.at));
    }

    /// Whether so much of an attack is gone that no more than ordinary traffic is left; exports may be so many
    /// seconds late.
    pub(crate) fn has_faded(&self, late_secs: u64, now: Millis) -> bool {
        self.remains.is_some_and(|at| now.since(at) >= REMAINS_MS + late_secs * 1000)
    }

    /// Whether a verdict tells of an attack where so far there was only something to be told, of another kind or
    /// for a while: that is another incident, and whoever was told of the first must hear of it.
    pub(crate) fn gives_way(&self, verdict: &Verdict) -> bool {
        let subtype = |v: &Verdict| v.vectors.first().map(|v| v.subtype.clone());
        self.surest < DOUBTFUL
            && verdict.confidence >= SURE
            && (verdict.at.since(self.begun) >= ALERT_MS
                || self.last.as_ref().is_some_and(|last| subtype(last) != subtype(verdict)))
    }

    /// The incident of such an attack.
    pub(crate) fn follows(&self, id: IncidentId, config: &Config, now: Millis) -> Self {
        let limits = &self.limits;
        Self {
            limits: *limits,
            own: self.own.clone(),
            carriers: self.carriers.clone(),
            numbers: self.numbers.clone(),
            evidence: self.evidence.clone(),
            cap: self.cap,
            strongest: self.strongest,
            open_second: self.open_second,
            ..Self::new(id, self.target, self.alarm, limits, config, now)
        }
    }

    /// Why a rule is held back, by this look and those before: what was answered a moment ago is not judged
    /// unanswered by the next sample, and without a sign of attack a second look must agree.
    pub(crate) fn weighed(
        &mut self,
        Weighed { hold, sign, .. }: Weighed,
        packets: &Match,
        confidence: u8,
        now: Millis,
    ) -> Option<Hold> {
        let way = (packets.protocols.clone(), packets.dst_ports.clone());
        self.answered.retain(|(_, at)| now.since(*at) < ANSWERED_KEPT_MS);
        if hold == Some(Hold::Answered) {
            self.answered.retain(|(known, _)| *known != way);
            self.answered.truncate(ANSWERED_MAX - 1);
            self.answered.push((way, now));
            return hold;
        }
        let was = self.answered.iter().any(|((protocols, ports), _)| {
            *protocols == way.0 && (ports.is_empty() || way.1.is_empty() || *ports == way.1)
        });
        match hold {
            None if sign => None,
            None if was => Some(Hold::Undecided),
            None if self.agrees(packets, confidence) => None,
            None => Some(Hold::OneLook),
            Some(_) => hold,
        }
    }

    /// Whether the look before this one found the same rule, and was as sure of an attack.
    fn agrees(&self, packets: &Match, confidence: u8) -> bool {
        let same =
            |c: &Candidate| c.packets == *packets && c.hold.is_none_or(|hold| !hold.is_wanted());
        confidence >= DOUBTFUL
            && self
                .last
                .as_ref()
                .is_some_and(|last| last.confidence >= DOUBTFUL && last.candidates.iter().any(same))
    }

    /// The parts of the target that a rule was meant for when it was last told.
    pub(crate) fn parts_of(&self, packets: &Match) -> &[IpNet] {
        let told = self.last.iter().flat_map(|last| &last.candidates);
        told.clone().find(|c| c.packets == *packets).map_or(&[], |c| &c.parts)
    }

    /// Whether a rule waits for another look, which is then due sooner.
    pub(crate) fn waits(&self) -> bool {
        let open = |c: &Candidate| matches!(c.hold, Some(Hold::OneLook | Hold::Undecided));
        self.last.as_ref().is_some_and(|last| last.candidates.iter().any(open))
    }

    /// Takes up what a verdict rests on. While an attack wanes little is left to be learned of it, and
    /// what shows then is no longer what it was.
    pub(crate) fn learn(&mut self, evidence: Evidence, excess_packets_per_sec: f64) {
        if excess_packets_per_sec * 2.0 >= self.strongest {
            self.strongest = self.strongest.max(excess_packets_per_sec);
            self.evidence = evidence;
        }
    }

    /// The evidence, when it has changed and was last handed on at least `after_ms` ago.
    pub(crate) fn fresh(&mut self, now: Millis, after_ms: u64) -> Option<(IncidentId, Evidence)> {
        let due = self.evidence.at > self.kept && now.since(self.kept) >= after_ms;
        due.then(|| {
            self.kept = now;
            (self.id, self.evidence.clone())
        })
    }

    /// An incident of before a restart.
    pub(crate) fn resumed(verdict: &Verdict, config: &Config) -> Self {
        let reason = &verdict.reason;
        let alarm = Alarm {
            metric: reason.metric,
            index: index_of(reason.unit(), verdict.direction),
            value: reason.value,
            baseline: reason.baseline,
            threshold: reason.threshold.max(1.0),
            window_ms: reason.window_ms,
            samples: reason.samples,
            sampling: reason.sampling,
            last: 0,
            service: reason.service,
            direction: verdict.direction,
            own: None,
            bare: false,
        };
        let single = verdict.target.prefix_len() == verdict.target.max_prefix_len();
        let low = if single { &config.floors } else { &config.prefix_floors };
        let mut active =
            Self::new(verdict.incident, verdict.target, alarm, &floors(low), config, verdict.at);
        active.own.clone_from(&reason.own);
        active.peak = verdict.peak;
        active.last = Some(verdict.clone());
        active.surest = verdict.confidence;
        active
    }

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

    /// Which way the attack goes.
    pub(crate) const fn way(&self) -> Direction {
        self.alarm.direction
    }
}

/// Whether two verdicts differ by so much that the second must not wait.
pub(crate) fn important(before: &Verdict, after: &Verdict) -> bool {
    let factor = |a: f64, b: f64| a > b * 2.0;
    before.family != after.family
        || before.separable != after.separable
        || matches(&before.candidates) != matches(&after.candidates)
        || holds(&before.candidates) != holds(&after.candidates)
        || parts(&before.candidates) != parts(&after.candidates)
        || factor(after.rate.packets_per_sec, before.rate.packets_per_sec)
        || factor(after.rate.bits_per_sec, before.rate.bits_per_sec)
}

fn holds(candidates: &[Candidate]) -> Vec<Option<Hold>> {
    candidates.iter().map(|c| c.hold).collect()
}

fn parts(candidates: &[Candidate]) -> Vec<&[IpNet]> {
    candidates.iter().map(|c| c.parts.as_slice()).collect()
}

fn matches(candidates: &[Candidate]) -> Vec<&Match> {
    candidates.iter().map(|c| &c.packets).collect()
}
