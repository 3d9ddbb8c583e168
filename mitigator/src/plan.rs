//! What to do about one verdict: the first step of the ladder whose predicted residual fits.
//!
//! Pure arithmetic on a verdict; nothing here knows what is in force.

use weir_bgp::guard::{Guard, Refusal};
use weir_model::{
    Action, Candidate, Direction, Filter, Hold, Match, Measure, Policy, Redirect, Rung, Verdict,
};

use crate::carve::pieces;
use crate::config::{Config, RungConfig};
use crate::links::Links;

/// Share of the excess that a match must cover to be tried again after it had cut next to nothing,
/// 0-1.
const USEFUL_AGAIN: f64 = 0.5;

/// Pieces that one match on a prefix may be cut into, to spare never-touch hosts and to be no wider than
/// the guard allows: sixteen are a /20 in /24s.
const PIECES_MAX: usize = 16;

/// Share of the excess from which it matters that rules for it are held back, 0-1.
const HELD_MIN: f64 = 0.05;
/// Times the least rate limit that a verdict must leave of which weir is not sure.
const CAREFUL_FLOOR: u64 = 10;
/// Average length of packets that are small, octets: shorter than an IP header is no length.
const SMALL_MIN: f64 = 20.0;
const SMALL_MAX: f64 = 100.0;

/// One measure, with what the detector measured of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    pub(crate) measure: Measure,
    /// Share of the excess it covers, 0-1.
    pub(crate) coverage: f64,
    /// Share of the target's normal traffic it hits, 0-1.
    pub(crate) collateral: f64,
    /// Octets a second the same match carries in normal times.
    pub(crate) normal_bytes_per_sec: f64,
}

/// The choice for one verdict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Index into the ladder and the step there; `None` means an alert only.
    pub(crate) step: Option<(usize, Rung)>,
    /// What is to be in force.
    pub(crate) measures: Vec<Planned>,
    /// Layer-3 bits a second that are expected to remain.
    pub(crate) residual_bits_per_sec: f64,
    /// Why this and nothing else, for people.
    pub(crate) why: String,
}

impl Plan {
    fn alert(verdict: &Verdict, why: String) -> Self {
        Self {
            step: None,
            measures: Vec::new(),
            residual_bits_per_sec: verdict.rate.bits_per_sec,
            why,
        }
    }

    /// Share of the excess that the measures cover together, 0-1.
    pub(crate) fn coverage(&self) -> f64 {
        self.measures.iter().map(|p| p.coverage).sum::<f64>().min(1.0)
    }
}

/// What the choice depends on beside the verdict.
pub(crate) struct Situation<'a> {
    pub(crate) config: &'a Config,
    pub(crate) guard: &'a Guard,
    /// Steps below this index are no longer considered.
    pub(crate) from_step: usize,
    /// Steps from this index on are closed.
    pub(crate) end_step: Option<usize>,
    /// What groups say of the target.
    pub(crate) policy: &'a Policy,
    /// Whether FlowSpec rules have had their time in this incident: before that, a black hole is
    /// only for links in danger.
    pub(crate) rules_tried: bool,
    /// Steps that are not for this plan.
    pub(crate) without: Option<Rung>,
    /// Whether a rule of this incident was found to cut what the target answers: a black hole would cut
    /// that, too.
    pub(crate) wanted: bool,
    /// Layer-3 bits a second that other incidents leave on the links: a sum over all of them.
    pub(crate) others_bits_per_sec: &'a dyn Fn() -> f64,
    /// Uplinks, as exporters tell of them.
    pub(crate) links: &'a Links,
    /// Measures that must not be used: harmful before, withdrawn by an operator, refused by peers.
    pub(crate) is_banned: &'a dyn Fn(&Measure) -> bool,
    /// Measures that were tried and cut next to nothing.
    pub(crate) is_useless: &'a dyn Fn(&Measure) -> bool,
    /// Whether the traffic takes another way now, by the step that is in force.
    pub(crate) diverted: bool,
    /// Whether routers have no room for the rules that are wanted.
    pub(crate) no_room: bool,
    /// Whether any peer could have a measure; why not.
    pub(crate) carry: &'a dyn Fn(&Measure) -> Result<(), String>,
}

/// Chooses.
pub(crate) fn plan(verdict: &Verdict, situation: &Situation<'_>) -> Plan {
    let config = situation.config;
    if verdict.direction == Direction::Outbound {
        let why = "the target itself attacks: nothing is announced against one's own host";
        return Plan::alert(verdict, why.into());
    }
    // First, for it says more than the confidence that follows from it.
    if let Some(hold) = all_held(verdict) {
        return Plan::alert(verdict, hold.why().into());
    }
    if verdict.confidence < config.rate_limit_confidence {
        let why =
            format!("confidence {} is below {}", verdict.confidence, config.rate_limit_confidence);
        return Plan::alert(verdict, why);
    }
    let mut best: Option<Plan> = None;
    let mut reasons: Vec<String> = Vec::new();
    for (index, step) in config.ladder.iter().enumerate().skip(situation.from_step) {
        let measures = allowed(index, step, verdict, situation)
            .and_then(|()| measures_of(step, verdict, situation))
            .and_then(|measures| match &best {
                Some(rules) if step.rung == Rung::Rtbh => {
                    rules_first(rules, verdict, situation).map(|()| measures)
                }
                _ => Ok(measures),
            });
        let measures = match measures {
            Ok(measures) => measures,
            Err(why) => {
                reasons.push(format!("{}: {why}", step.rung));
                continue;
            }
        };
        let residual = residual_bits_per_sec(verdict, step.rung, &measures);
        let links = links_fit(verdict, situation, step.rung, residual);
        let fits = fits_host(verdict, config, residual) && links.is_ok();
        let plan = Plan {
            step: Some((index, step.rung)),
            measures,
            residual_bits_per_sec: residual,
            why: format!(
                "{}{} leaves {:.0} of {:.0} Mbit/s{}",
                if situation.no_room { "routers have no room for its rules; " } else { "" },
                step.rung,
                residual / 1e6,
                verdict.rate.bits_per_sec / 1e6,
                match (fits, links) {
                    (true, _) => String::new(),
                    (false, Err(Some(uplink))) => format!(", more than fits uplink {uplink}"),
                    (false, _) => ", more than fits".to_owned(),
                }
            ),
        };
        if fits {
            return plan;
        }
        // Nothing may fit; then the step that leaves least, and of equals the gentler one.
        if best.as_ref().is_none_or(|b| residual < b.residual_bits_per_sec * 0.9) {
            best = Some(plan);
        }
    }
    best.unwrap_or_else(|| Plan::alert(verdict, reasons.join("; ")))
}

/// Why nothing is done yet, or at all: the rules that tell the excess are all held back. Then nothing
/// harder is done either, which would cut the same traffic and more.
fn all_held(verdict: &Verdict) -> Option<Hold> {
    let all = !verdict.candidates.is_empty() && verdict.candidates.iter().all(|c| c.hold.is_some());
    all.then(|| verdict.candidates.iter().find_map(|c| c.hold)).flatten()
}

/// Share of what arrives that a target answers from which it copes: a black hole, unless links need it, would
/// end what the attack did not.
const SERVED_MIN: f64 = 0.1;

/// Why a fair share of the excess may be wanted: a black hole would cut that with the rest.
fn partly_held(verdict: &Verdict) -> Option<Hold> {
    let held = verdict.candidates.iter().filter(|c| c.hold.is_some());
    let share: f64 = held.clone().map(|c| c.coverage).sum();
    held.filter_map(|c| c.hold).next().filter(|_| share >= HELD_MIN)
}

fn allowed(
    index: usize,
    step: &RungConfig,
    verdict: &Verdict,
    situation: &Situation<'_>,
) -> Result<(), String> {
    if situation.without == Some(step.rung) {
        Err("waits for approval".into())
    } else if situation.wanted && step.rung == Rung::Rtbh {
        Err(Hold::Answered.why().into())
    } else if step.rung == Rung::Rtbh
        && let Some(hold) = partly_held(verdict)
    {
        Err(format!("part of it may be wanted: {}", hold.why()))
    } else if step.rung == Rung::Rtbh && situation.diverted {
        Err("what is diverted cannot be measured here: a black hole is a person's decision".into())
    } else if step.rung == Rung::Rtbh
        && verdict.served >= SERVED_MIN
        && links_fit(verdict, situation, Rung::Drop, verdict.rate.bits_per_sec).is_ok()
    {
        Err(format!("the target still answers {:.0} % of what arrives", verdict.served * 100.0))
    } else if situation.end_step.is_some_and(|end| index >= end) {
        Err("closed by an operator".into())
    } else if let Some(group) = situation.policy.forbids(step.rung) {
        Err(format!("never for group {group}"))
    } else if !step.allows(verdict) {
        Err("not allowed at this volume".into())
    } else {
        Ok(())
    }
}

/// A black hole finishes the attack for the victim. Where rules can do something they come first,
/// and what they leave is measured before it is thrown away with everything else; only links that
/// others depend on cannot wait for that.
fn rules_first(rules: &Plan, verdict: &Verdict, situation: &Situation<'_>) -> Result<(), String> {
    let rung = rules.step.map_or(Rung::Drop, |(_, rung)| rung);
    let link = links_fit(verdict, situation, rung, rules.residual_bits_per_sec);
    // What is left by a step that sends only a part another way is measured first, too.
    let is_gentler = !matches!(rung, Rung::Rtbh | Rung::Scrub);
    if is_gentler && link.is_ok() && !situation.rules_tried {
        let left = verdict.rate.bits_per_sec - rules.residual_bits_per_sec;
        return Err(format!("rules that cut {:.0} Mbit/s come first", left / 1e6));
    }
    Ok(())
}

/// Whether a host can take so much.
pub(crate) fn fits_host(verdict: &Verdict, config: &Config, residual: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    let host = config.host_limit_bits_per_sec as f64;
    // A host whose normal traffic is above the configured limit can evidently take it.
    let normal = (verdict.rate.bits_per_sec - verdict.excess.bits_per_sec).max(0.0);
    residual <= host.max(2.0 * normal)
}

/// Whether the links can take what a step leaves; if not, the uplink that cannot, where it is one.
///
/// Of an uplink it is known what it carries. Rules may be in force before it or behind it: what they promise
/// counts until they have had their time, and then what is measured. A black hole, a diverting route and a
/// scrubbing service work before it.
fn links_fit<'a>(
    verdict: &Verdict,
    situation: &Situation<'a>,
    rung: Rung,
    residual: f64,
) -> Result<(), Option<&'a str>> {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    let link = situation.config.link_limit_bits_per_sec.map(|l| l as f64);
    if link.is_some_and(|link| residual + (situation.others_bits_per_sec)() > link) {
        return Err(None);
    }
    let promised = !situation.rules_tried && !situation.no_room
        || matches!(rung, Rung::Divert | Rung::Rtbh | Rung::Scrub);
    let relief = if promised { verdict.rate.bits_per_sec - residual } else { 0.0 };
    situation.links.in_danger(verdict, relief).map_or(Ok(()), |uplink| Err(Some(uplink)))
}

fn residual_bits_per_sec(verdict: &Verdict, rung: Rung, measures: &[Planned]) -> f64 {
    if matches!(rung, Rung::Divert | Rung::Rtbh | Rung::Scrub) {
        return 0.0;
    }
    let copies = |p: &Planned| matches!(&p.measure, Measure::FlowSpec(f) if matches!(f.action, Action::Redirect(Redirect::Copy(_))));
    // What is only copied arrives all the same.
    if measures.iter().all(copies) {
        return verdict.rate.bits_per_sec;
    }
    let covered: f64 = measures.iter().map(|p| p.coverage).sum::<f64>().min(1.0);
    let passed: f64 = measures
        .iter()
        .map(|p| match &p.measure {
            Measure::FlowSpec(Filter { action: Action::RateLimit { bytes_per_sec }, .. }) => {
                #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
                let bits = *bytes_per_sec as f64 * 8.0;
                bits
            }
            _ => 0.0,
        })
        .sum();
    let here = verdict.rate.bits_per_sec;
    let cut = (covered * verdict.excess.bits_per_sec).min(here);
    (here - cut + passed.min(cut)).max(0.0)
}

fn measures_of(
    step: &RungConfig,
    verdict: &Verdict,
    situation: &Situation<'_>,
) -> Result<Vec<Planned>, String> {
    let (config, rung) = (situation.config, step.rung);
    let sure = verdict.confidence >= config.full_confidence
        && verdict.evidence_groups >= config.drop_evidence_groups;
    if !matches!(rung, Rung::Mark | Rung::RateLimit) && !sure {
        return Err(format!(
            "needs confidence {} and {} groups of evidence, has {} and {}",
            config.full_confidence,
            config.drop_evidence_groups,
            verdict.confidence,
            verdict.evidence_groups
        ));
    }
    match rung {
        Rung::Mark => {
            let dscp = step.dscp.unwrap_or_default();
            let limit = config.rate_limit_collateral_max;
            filters(verdict, situation, limit, |_| Action::Mark { dscp })
        }
        Rung::Redirect => redirect(step, verdict, situation),
        Rung::Divert => divert(step, verdict, situation),
        Rung::RateLimit => {
            let careful = verdict.confidence < config.full_confidence;
            let limit = if careful {
                config.drop_collateral_max.min(config.rate_limit_collateral_max)
            } else {
                config.rate_limit_collateral_max
            };
            let drop = sure && situation.policy.forbids(Rung::Drop).is_none();
            filters(verdict, situation, limit, |c| rate_limit(config, c, careful, drop))
        }
        Rung::Drop => filters(verdict, situation, config.drop_collateral_max, |_| Action::Drop),
        Rung::Rtbh if !verdict.separable && !config.rtbh_when_inseparable => {
            Err("cannot be told from normal traffic (rtbh_when_inseparable is off)".into())
        }
        Rung::Rtbh => whole(Measure::Blackhole(verdict.target), verdict, situation),
        Rung::Scrub if config.scrubbers.is_empty() => Err("no scrubber is configured".into()),
        Rung::Scrub => whole(Measure::Scrub(verdict.target), verdict, situation),
    }
}

fn whole(
    measure: Measure,
    verdict: &Verdict,
    situation: &Situation<'_>,
) -> Result<Vec<Planned>, String> {
    if (situation.is_banned)(&measure) {
        return Err("not to be used again in this incident".into());
    }
    situation.guard.judge_measure(&measure).map_err(|refusal| refusal.to_string())?;
    (situation.carry)(&measure)?;
    let normal = (verdict.rate.bits_per_sec - verdict.excess.bits_per_sec).max(0.0) / 8.0;
    let collateral = if matches!(measure, Measure::Blackhole(_)) { 1.0 } else { 0.0 };
    Ok(vec![Planned { measure, coverage: 1.0, collateral, normal_bytes_per_sec: normal }])
}

/// What is sent to a filter, which hands back what is clean: collateral is nobody's loss.
fn redirect(
    step: &RungConfig,
    verdict: &Verdict,
    situation: &Situation<'_>,
) -> Result<Vec<Planned>, String> {
    let target = verdict.target;
    let Some(to) = step.place(target) else {
        return Err("no place is configured for this family (to4, to6)".into());
    };
    let action = Action::Redirect(to);
    if !step.whole && verdict.separable {
        let mut planned = filters(verdict, situation, f64::INFINITY, |_| action)?;
        planned.iter_mut().for_each(|p| p.collateral = 0.0);
        return Ok(planned);
    }
    let all = Filter { packets: Match::to(target), action };
    let mut planned = whole(Measure::FlowSpec(all), verdict, situation)?;
    planned.iter_mut().for_each(|p| p.collateral = 0.0);
    Ok(planned)
}

/// The prefix around the target, or the target itself where it is wider, in pieces no wider than the guard
/// allows.
fn divert(
    step: &RungConfig,
    verdict: &Verdict,
    situation: &Situation<'_>,
) -> Result<Vec<Planned>, String> {
    let measure = Measure::Divert(step.covering(verdict.target));
    let list = match situation.guard.judge_measure(&measure) {
        Err(Refusal::TooWide { .. }) => pieces(&measure, &[], situation.guard, PIECES_MAX),
        Ok(()) => Ok(vec![measure]),
        Err(refusal) => Err(refusal),
    };
    let list = list.map_err(|refusal| refusal.to_string())?;
    let share = 1.0 / f64::from(u32::try_from(list.len()).unwrap_or(u32::MAX));
    let mut planned = Vec::new();
    for measure in list {
        for piece in whole(measure, verdict, situation)? {
            let normal_bytes_per_sec = piece.normal_bytes_per_sec * share;
            planned.push(Planned { coverage: share, normal_bytes_per_sec, ..piece });
        }
    }
    Ok(planned)
}

/// Takes candidates in the detector's order while their collateral together stays below the limit.
fn filters(
    verdict: &Verdict,
    situation: &Situation<'_>,
    collateral_max: f64,
    action: impl Fn(&Candidate) -> Action,
) -> Result<Vec<Planned>, String> {
    if !verdict.separable {
        return Err("cannot be told from normal traffic".into());
    }
    let mut chosen: Vec<Planned> = Vec::new();
    let mut collateral = 0.0;
    let mut why = "no candidate".to_owned();
    for candidate in &verdict.candidates {
        let room = situation.config.max_rules_per_incident.saturating_sub(chosen.len());
        if room == 0 {
            break;
        }
        if let Some(hold) = candidate.hold {
            hold.why().clone_into(&mut why);
            continue;
        }
        let packets = candidate.packets.clone().normalise();
        if !verdict.target.contains(&packets.dst) {
            why = format!("{} is outside the target", packets.dst);
            continue;
        }
        // A share that is no number is a bug of its maker, and never a reason to filter.
        let share = candidate.collateral;
        if !(share.is_finite() && collateral + share.max(0.0) <= collateral_max) {
            why = format!("collateral {:.2} % is too much", share * 100.0);
            continue;
        }
        let measure = Measure::FlowSpec(Filter { packets, action: action(candidate) });
        // A prefix under attack may be met in a few more pieces than a host has rules, and only where it is
        // attacked.
        let most = room.max(PIECES_MAX);
        let mut pieces = match pieces(&measure, &candidate.parts, situation.guard, most) {
            Ok(pieces) => pieces,
            Err(refusal) => {
                why = refusal.to_string();
                continue;
            }
        };
        if let Some(Err(reason)) = pieces.first().map(situation.carry) {
            why = reason;
            continue;
        }
        pieces.retain(|piece| !(situation.is_banned)(piece));
        if pieces.is_empty() {
            why = "not to be used again in this incident".into();
            continue;
        }
        pieces.retain(|piece| candidate.coverage >= USEFUL_AGAIN || !(situation.is_useless)(piece));
        if pieces.is_empty() {
            why = "cut next to nothing before".into();
            continue;
        }
        collateral += share.max(0.0);
        chosen.extend(shares(pieces, candidate));
    }
    if chosen.is_empty() { Err(why) } else { Ok(chosen) }
}

/// The pieces of one candidate, each with its part of the candidate's numbers by its number of
/// addresses.
fn shares(pieces: Vec<Measure>, candidate: &Candidate) -> impl Iterator<Item = Planned> {
    let size = |m: &Measure| {
        let net = m.target();
        2f64.powi(i32::from(net.max_prefix_len() - net.prefix_len()))
    };
    let total: f64 = pieces.iter().map(size).sum();
    let coverage = candidate.coverage.clamp(0.0, 1.0);
    let collateral = candidate.collateral.max(0.0);
    let normal_bytes_per_sec = candidate.normal_bytes_per_sec.max(0.0);
    pieces.into_iter().map(move |measure| {
        let part = size(&measure) / total;
        Planned {
            measure,
            coverage: coverage * part,
            collateral: collateral * part,
            normal_bytes_per_sec: normal_bytes_per_sec * part,
        }
    })
}

/// The gentlest action on what a match holds for. Of small packets an octet limit passes more than a
/// server's backlog takes: they are dropped where that is allowed, else limited by their length.
fn rate_limit(config: &Config, candidate: &Candidate, careful: bool, drop: bool) -> Action {
    let mut bytes_per_sec = rate_limit_bytes(config, candidate.normal_bytes_per_sec);
    if careful {
        let least = config.rate_limit_floor_bytes_per_sec.saturating_mul(CAREFUL_FLOOR);
        bytes_per_sec = bytes_per_sec.max(least);
    }
    let length = candidate.rate.bits_per_sec / 8.0 / candidate.rate.packets_per_sec.max(1.0);
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    let (passed, packets) = (bytes_per_sec as f64 / length, config.rate_limit_packets_max as f64);
    let normal = candidate.normal_bytes_per_sec * config.rate_limit_factor;
    if !(SMALL_MIN..SMALL_MAX).contains(&length) || passed <= packets {
        return Action::RateLimit { bytes_per_sec };
    }
    if drop && candidate.collateral <= config.drop_collateral_max {
        return Action::Drop;
    }
    Action::RateLimit { bytes_per_sec: two_digits((packets * length).max(normal)) }
}

/// The limit for a match that carries so much in normal times: rounded up to two digits, so that
/// a baseline that breathes does not make a new rule each time.
pub(crate) fn rate_limit_bytes(config: &Config, normal_bytes_per_sec: f64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    let floor = config.rate_limit_floor_bytes_per_sec as f64;
    // The larger of a number and none is the number.
    two_digits((normal_bytes_per_sec * config.rate_limit_factor).max(floor))
}

/// Rounded up to two digits, octets a second.
fn two_digits(bytes_per_sec: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1-1e15; a NaN becomes 0 and then 1"
    )]
    let wanted = (bytes_per_sec.clamp(1.0, 1e15).ceil() as u64).max(1);
    let mut unit = 1;
    while wanted / unit >= 100 {
        unit *= 10;
    }
    wanted.div_ceil(unit) * unit
}
