//! A look at a target's packets, and the verdict on them.

use std::borrow::Cow;
use std::sync::Arc;

use weir_model::{
    AllowAlarms, AllowList, Candidate, Direction, Evidence, FragmentMatch, Goodput, Hold,
    Inventory, IpNet, Match, Metric, Millis, OwnMeasure, Phase, Rate, Reason, Service, Verdict,
};

use crate::config::Capabilities;
use crate::evidence::answers::{Answers, answering, are_refusals};
use crate::evidence::connections::Usual;
use crate::evidence::excused::Excused;
use crate::evidence::exhibit;
use crate::evidence::matching::means;
use crate::evidence::rates::{
    burst, discarded, effective, evident, higher, left, matched, present,
};
use crate::evidence::reach;
use crate::evidence::signature::Packets;
use crate::evidence::signs::is_reflector;
use crate::evidence::vectors::{
    Excess, Part, Traits, excess_of, family, parts, top_sources, traits, vectors,
};
use crate::verdict::confidence::{ANSWERED_MOST, cap, confidence, groups};
use crate::verdict::hold::{
    Knowledge, NO_INCIDENT, VOLUME_ALONE, Weighed, held_cap, hold, is_unsettled, is_volume_alone,
};
use crate::verdict::incident::Active;
use crate::verdict::summary;
use crate::verdict::synthesis::{Found, Input, Rule, measure, synthesise};
use crate::watch::host::Warm;
use crate::watch::metric::{BITS, OUTBOUND, PACKETS, is_bits};
use crate::watch::packets::{NOW_SLOTS_MAX, Packet};
use crate::watch::series::{Alarm, Series};
use crate::watch::silent::carriers;
use crate::watch::window::SLOTS_PER_SEC;
use crate::{Detector, foreknown};

/// Share of the excess that rules must cover for it to be separable.
const SEPARABLE_COVERAGE: f64 = 0.4;
/// Share that rules to drop by cover from which nothing wider is sought, and what wider ones must cover beyond
/// them to be taken.
const MOST_COVERAGE: f64 = 0.7;
const WIDER_GAIN: f64 = 0.2;
/// Rules told before stay when they cover this share, or this much less than new ones would.
const KEEP_COVERAGE: f64 = 0.97;
const KEEP_MARGIN: f64 = 0.03;
/// How far back one looks for answers, slots.
const RECENT_SLOTS: u64 = 100;
/// Rules told before that are looked at again.
const TOLD_MAX: usize = 12;
/// Fewest packets on which evidence is worth anything.
pub(crate) const EVIDENCE_MIN: usize = 16;
/// Confidence in an HTTP flood that only flow records tell of.
const SUSPECTED: u8 = 60;
/// Share of the volume behind an alarm that the packets looked at must stand for.
const TELLING: f64 = 0.2;
/// Share of a signature that needs no baseline from which an excess is known by more than its volume.
const KNOWN_BY_FORM: f64 = 0.5;
/// Questions from which a target is known to ask a service.
const ASKED_MIN: usize = 2;
/// Longest time for which flow caches are waited for, seconds: a direction may be exported later than
/// the other by one active timeout.
const SETTLING_SECS_MAX: u64 = 12;
/// Packets that come in for each refusal from which a target does nothing but refuse them.
const CAME_MIN: f64 = 0.8;
/// Answers a packet from which an exchange is none with forged senders or reflectors.
const ANSWERED_MAX: f64 = 0.3;

/// What the packets say.
#[derive(Default)]
pub(crate) struct Findings {
    /// Packets of the present.
    now: Vec<Packet>,
    pub(crate) excess: Excess,
    normal: Vec<(Packet, f64)>,
    traits: Traits,
    pub(crate) parts: Vec<Part>,
    found: Found,
    /// Share of the excess that rules may cover: all but what allow lists excuse, 0-1.
    open: f64,
    /// What of the alarm's value is left out because of allow lists, a second.
    pub(crate) left_out: f64,
    /// For each rule found, what speaks for and against it.
    holds: Vec<Weighed>,
    /// Highest probability of an attack that these allow, 0-1.
    held_cap: f64,
    /// Whether one may soon know more of it.
    pub(crate) unsettled: bool,
    /// Of what a target sends: share that leaves from ports on which something comes in, 0-1.
    pub(crate) replies: f64,
    /// Whether what a target sends is refusals.
    pub(crate) refusals: bool,
    /// Whether that is all it does: they are no more than what comes in. Of whoever is scanned or flooded it is.
    pub(crate) only_refuses: bool,
    /// Share of the excess that the target answers; `None` when too little was seen.
    answered: Option<f64>,
    /// Share of all that arrives that it answers, 0-1.
    served: f64,
    rate: Rate,
}

impl Findings {
    /// Whether the packets stand for a fair share of what was counted, and the excess among them for a
    /// fair share of what is too much. What was exported late may have left none, and what came in the
    /// meantime is something else.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    pub(crate) fn tells_of(&self, alarm: &Alarm) -> bool {
        let bits = is_bits(alarm.index);
        let volume = |p: &Packet| if bits { p.bytes as f64 * 8.0 } else { f64::from(p.packets) };
        let seen: f64 = self.now.iter().map(volume).sum();
        let secs = alarm.window_ms as f64 / 1000.0;
        let share = if bits { self.excess.share_bytes } else { self.excess.share };
        let grown = (alarm.value - self.left_out - alarm.baseline).max(0.0);
        self.now.is_empty()
            || seen >= TELLING * alarm.value * secs && seen * share >= TELLING * grown * secs
    }

    /// Whether what needs no baseline to be told is above the threshold by itself, and nobody answers
    /// it.
    pub(crate) fn stands_alone(&self, alarm: &Alarm) -> bool {
        self.excess.packets.len() >= EVIDENCE_MIN
            && alarm.value * self.traits.standalone >= alarm.threshold
            && self.traits.response.is_none_or(|r| r < ANSWERED_MAX)
    }
}

impl Detector {
    /// Looks at a target's packets of the present against its normal ones. Rules `told` before stay
    /// while they do nearly as well as the best new ones, so that what routers are told does not
    /// change with every sample.
    /// `begun` is when the incident opened. Of the operator's `own` metric only the packets that it means are in
    /// excess, and no rule goes beyond them.
    pub(crate) fn look(
        &mut self,
        at: u32,
        alarm: &Alarm,
        own: Option<&OwnMeasure>,
        told: &[Match],
        begun: Millis,
    ) -> Findings {
        let slot = self.clock.slot();
        let back = self.back();
        let inventory = Arc::clone(&self.inventory);
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return Findings::default() };
        let way = alarm.direction;
        let services = services_of(&inventory, warm.target);
        // Of the present only the window that alarmed, when that is enough to see by; but as much
        // as exports lag, or what is seen depends on who exported last.
        let lag = if back > 2 { (back + 3) * SLOTS_PER_SEC } else { 0 };
        let slots = (alarm.window_ms / 100).max(lag).clamp(2, NOW_SLOTS_MAX);
        let (now, span) = latest(warm, way, slot, slots);
        let mut rate = present(&warm.series, way, back);
        if told.is_empty() && alarm.window_ms < 1000 {
            rate = higher(rate, burst(warm, way, alarm.window_ms));
        }
        let normal = warm.profile_of(way).normal();
        let index = match way {
            Direction::Inbound => PACKETS,
            Direction::Outbound => OUTBOUND,
        };
        let own = own.map(|own| (own.packets.towards(warm.target), &own.name));
        let (usual_packets, set) = {
            let measured = match &own {
                None => Some(&warm.series),
                Some((_, name)) => warm.own_of(&inventory, name),
            };
            let source = |s: &Series| s.source(alarm.index, &self.config, self.clock.secs());
            let set = matches!(measured.map(source), Some("operator" | "group"));
            (measured.map_or(0.0, |series| series.mean(index)), set)
        };
        let own = own.map(|(own, _)| own);
        // Where exports lag both ways are known only as far back as the alarm's window: of the newest
        // seconds one way may be in and the other still to come.
        let newest = warm.series.window.newest();
        let (last, seconds) = match back {
            0..=2 => (newest, u32::try_from(alarm.window_ms / 1000).unwrap_or(3)),
            _ => (newest.saturating_sub(back / 2), u32::try_from(back).unwrap_or(90)),
        };
        let learning = warm.series.learning(&self.config, self.clock.secs());
        let young = learning || warm.is_new(&self.config, self.clock.secs());
        let mean = (!learning || warm.known())
            .then(|| (warm.series.mean(PACKETS), warm.series.mean(OUTBOUND)));
        let visible = self.two_way.sees(mean);
        // What comes in is exported wherever anything is.
        let visible = visible || way == Direction::Outbound;
        let other = warm.profile_of(way.other());
        let usual: Vec<Packet> = other.normal().into_iter().map(|(p, _)| p).collect();
        // Both ways as far back: what is counted of one is held against the other.
        let recently = slots.max(RECENT_SLOTS + lag);
        let sent = other.latest(slot, recently);
        // What any attack brings about is no response to it.
        let answering = match way {
            Direction::Inbound => (answering(sent.iter()), answering(usual.iter())),
            Direction::Outbound => (1.0, 1.0),
        };
        // Of a part of the traffic it is not known how much goes back.
        let response =
            if own.is_some() { None } else { warm.series.response(way, last, seconds, answering) };
        let answers = Answers::new(sent, usual, visible);
        let excused = Excused::new(&inventory.allow, &now, &answers);
        let groups = leaving(&inventory, warm.target);
        let leaves = |list: &AllowList| leaves_out(list, &groups);
        let mut left = LeftOut::default();
        let level = evident(&now, slot).min(rate.packets_per_sec);
        let excess = if inventory.allow.lists().iter().any(leaves) {
            let is_left = |p: &Packet| excused.holds(p, &answers, leaves);
            let was_left = |p: &Packet| excused.held(p, leaves);
            let all = shares(now.iter().map(|p| (p, f64::from(p.packets))), is_left);
            left = LeftOut::of(&now, &normal, own.as_ref(), is_left, was_left);
            let rest: Vec<Packet> = now.iter().filter(|p| !is_left(p)).copied().collect();
            let normal: Vec<(Packet, f64)> =
                normal.iter().filter(|(p, _)| !was_left(p)).copied().collect();
            let usual_packets = usual_packets * (1.0 - left.usual.0);
            let level = level * (1.0 - all.0);
            let rest = excess_of(own.as_ref(), &rest, level, &normal, usual_packets, &services);
            rest.of_whole(1.0 - all.0, 1.0 - all.1)
        } else {
            excess_of(own.as_ref(), &now, level, &normal, usual_packets, &services)
        };
        let left_out = left.of_alarm(alarm, set);
        let parts = parts(&excess);
        let strange = estranged(&excess, &excused);
        let seen_before = exhibit::seen_before(&strange.packets, &normal);
        let answered = answers.of_excess(&strange);
        let mut traits = Traits { response, seen_before, ..traits(&excess, &parts, &services) };
        traits.standalone = unasked(&parts, &traits, &answers, answered);
        let recent = warm.profile_of(way).latest(slot, recently);
        let senders = excused.estranged(&now);
        let known = Knowledge {
            answers: &answers,
            now: &senders,
            recent: &excused.estranged(&recent),
            normal: &normal,
            learning: young,
            single: warm.target.prefix_len() == warm.target.max_prefix_len(),
            response,
            usual: Usual {
                packets_per_sec: mean.map_or(0.0, |(_, outbound)| outbound),
                secs: seconds_of(recently),
            },
            secs: seconds_of(span),
            bears: (self.config.floors.syns_per_sec, self.config.floors.packets_per_sec),
            settling: back > 2 && self.clock.since(begun) < back.min(SETTLING_SECS_MAX) * 1000,
        };
        let present: Vec<(Packet, f64)> =
            answers.answered(&senders).map(|p| (*p, f64::from(p.packets))).collect();
        let arriving: f64 = now.iter().map(|p| f64::from(p.packets)).sum();
        let served = present.iter().map(|(_, w)| w).sum::<f64>() / arriving.max(1.0);
        let (unexcused, open) = unexcused(&excess.packets, &excused, &answers);
        let spared: Vec<bool> = if excused.is_idle() {
            Vec::new()
        } else {
            let past = normal.iter().map(|(p, _)| excused.held(p, |_| true));
            past.chain(present.iter().map(|(p, _)| excused.holds(p, &answers, |_| true))).collect()
        };
        // What a host sends is stopped at the host, not by rules in routers.
        let (found, holds) = if way == Direction::Inbound && excess.packets.len() >= EVIDENCE_MIN {
            let input = Input {
                target: warm.target,
                excess: &unexcused,
                normal: &normal,
                answered: &present,
                excused: &spared,
                allow: &inventory.allow,
                services: &services,
                collateral_max: self.config.collateral_max,
                rules_max: self.config.rules_max,
                capabilities: &self.config.capabilities,
            };
            let (mut found, holds) =
                weighed(&input, told, &known, self.config.collateral_max_rate_limit, own.as_ref());
            found.of_whole(open);
            (found, holds)
        } else {
            (Found::default(), Vec::new())
        };
        let rules: Vec<(Weighed, f64)> =
            holds.iter().copied().zip(found.rules.iter().map(|rule| rule.coverage)).collect();
        let new = young && !warm.known();
        let held_cap = held_cap(&rules, new).min(bound(&rules, new, answered, traits.standalone));
        // Of the first packets few answers are seen, however many there are.
        let unsettled = new && visible && is_unsettled(&rules);
        let refusals = way == Direction::Outbound && are_refusals(&excess.packets);
        let only_refuses = refusals && response.is_some_and(|came| came >= CAME_MIN);
        // What is refused may be exported after the refusals.
        let unsettled = unsettled || refusals && back > 2;
        let replies = match way {
            Direction::Inbound => 0.0,
            Direction::Outbound => answers.on_same_ports(&excess.packets),
        };
        Findings {
            now,
            excess,
            normal,
            traits,
            parts,
            found,
            open,
            left_out,
            holds,
            held_cap,
            unsettled,
            replies,
            refusals,
            only_refuses,
            answered,
            served,
            rate,
        }
    }

    /// Puts findings into words.
    pub(crate) fn verdict(&self, active: &mut Active, findings: Findings, phase: Phase) -> Verdict {
        let Findings {
            now,
            excess,
            normal,
            traits,
            parts,
            found,
            open,
            holds,
            answered,
            served,
            rate,
            ..
        } = findings;
        let warm = self.warm_of(active.target);
        let way = active.way();
        let carriers = carriers(excess.packets.iter().map(|(p, _)| p));
        if !carriers.is_empty() {
            active.carriers = carriers;
        }
        active.peak.packets_per_sec = active.peak.packets_per_sec.max(rate.packets_per_sec);
        active.peak.bits_per_sec = active.peak.bits_per_sec.max(rate.bits_per_sec);
        let over = Rate {
            packets_per_sec: rate.packets_per_sec * excess.share,
            bits_per_sec: rate.bits_per_sec * excess.share_bytes,
        };
        let normal_bytes = warm.map_or(0.0, |w| w.series.mean(BITS) / 8.0);
        let evidence = Evidence {
            at: self.clock,
            ratio: active.alarm.ratio(),
            coverage: found.coverage,
            known: warm.is_some_and(Warm::known),
            outbound: way == Direction::Outbound,
            answered,
            ..numbers(&traits)
        };
        let held = findings.held_cap;
        let confidence = confidence(&evidence).min(suspicion(&parts)).min(percent(held));
        let candidates: Vec<Candidate> = found
            .rules
            .into_iter()
            .zip(holds)
            .map(|(rule, weighed)| Candidate {
                parts: reach::parts(
                    active.target,
                    &rule.packets,
                    &excess.packets,
                    active.parts_of(&rule.packets),
                ),
                hold: active.weighed(weighed, &rule.packets, confidence, self.clock),
                rate: matched(&now, rate, &rule.packets),
                normal_bytes_per_sec: normal_bytes * rule.normal_bytes,
                packets: rule.packets,
                coverage: rule.coverage,
                coverage_low: rule.coverage_low,
                collateral: rule.collateral,
                collateral_high: rule.collateral_high,
            })
            .collect();
        let mut verdict = Verdict {
            incident: active.id,
            phase,
            at: self.clock,
            target: active.target,
            direction: way,
            family: family(&parts),
            vectors: vectors(&parts, over),
            confidence,
            evidence_groups: groups(&evidence),
            separable: separable(&candidates, found.coverage, open),
            rate,
            peak: active.peak,
            excess: over,
            discarded: warm.map_or_else(Rate::default, discarded),
            legitimate: warm
                .filter(|_| evidence.known && way == Direction::Inbound)
                .map(|w| self.goodput(w, rate, over, effective(&now))),
            served,
            sources: traits.sources,
            reason: Reason { own: active.own.clone(), ..self.reason(&active.alarm, &excess) },
            candidates,
            top_sources: top_sources(&excess),
            summary: String::new(),
        };
        active.cap = cap(&evidence).min(f64::from(suspicion(&parts)) / 100.0).min(held);
        active.numbers = evidence.clone();
        active.learn(kept(evidence, &excess, &normal), over.packets_per_sec);
        let lengths = summary::lengths(&parts, &excess);
        verdict.summary = summary::sentence(&verdict, &active.numbers, lengths, &self.inventory);
        verdict
    }

    /// How legitimate traffic fares, of which at most `seen` packets a second are told from the excess.
    pub(crate) fn goodput(&self, warm: &Warm, rate: Rate, over: Rate, seen: f64) -> Goodput {
        left(warm, (rate, over), seen, self.silenced(warm.target), self.sampling)
    }

    fn reason(&self, alarm: &Alarm, excess: &Excess) -> Reason {
        let mut ids: Vec<u16> = excess.packets.iter().map(|(p, _)| p.exporter).collect();
        ids.sort_unstable();
        ids.dedup();
        let name = |id: u16| {
            self.exporters
                .get(usize::from(id))
                .filter(|n| !n.is_empty())
                .cloned()
                .unwrap_or_else(|| format!("exporter {id}"))
        };
        Reason {
            metric: alarm.metric,
            value: alarm.value,
            baseline: alarm.baseline,
            multiplier: self.config.multiplier,
            threshold: alarm.threshold,
            window_ms: alarm.window_ms,
            samples: alarm.samples,
            sampling: alarm.sampling,
            exporters: ids.into_iter().map(name).collect(),
            service: alarm.service,
            own: None,
        }
    }
}

/// The packets of the present, and how many slots it spans: three seconds at least where a shorter window
/// has few.
fn latest(warm: &mut Warm, way: Direction, slot: u64, slots: u64) -> (Vec<Packet>, u64) {
    let now = warm.profile_of(way).latest(slot, slots);
    if now.len() >= 4 * EVIDENCE_MIN {
        return (now, slots);
    }
    let longer = slots.max(30);
    (warm.profile_of(way).latest(slot, longer), longer)
}

/// Highest probability of an attack that the excess as a whole allows, 0-1, whatever its rules say: a host just
/// met that answers most of it is not told of, and volume by itself is no certainty.
fn bound(rules: &[(Weighed, f64)], new: bool, answered: Option<f64>, standalone: f64) -> f64 {
    if new && answered.is_some_and(|share| share >= ANSWERED_MOST) {
        NO_INCIDENT
    } else if is_volume_alone(rules) && standalone < KNOWN_BY_FORM {
        VOLUME_ALONE
    } else {
        1.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few minutes at most")]
fn seconds_of(slots: u64) -> f64 {
    slots as f64 / SLOTS_PER_SEC as f64
}

/// Groups of a target, with those above them, as far as any list asks for them.
fn leaving(inventory: &Inventory, target: IpNet) -> Vec<&str> {
    let asked = inventory.allow.lists().iter().any(|list| !list.groups.is_empty());
    let at = inventory.policies.at(target).filter(|_| asked);
    at.map(|at| inventory.policies.names(at).collect()).unwrap_or_default()
}

/// Whether a list's volume is left out of alarms for whoever belongs to these groups.
fn leaves_out(list: &AllowList, groups: &[&str]) -> bool {
    list.alarms == AllowAlarms::LeaveOut
        && (list.groups.is_empty() || list.groups.iter().any(|own| groups.contains(&own.as_str())))
}

/// Shares of traffic that are left out of alarms, of packets and of octets.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    /// Of what comes in now.
    now: (f64, f64),
    /// Of what is normal.
    usual: (f64, f64),
}

impl LeftOut {
    /// Of all, or of what an operator's `own` metric means.
    fn of(
        now: &[Packet],
        normal: &[(Packet, f64)],
        own: Option<&Match>,
        is_left_now: impl Fn(&Packet) -> bool,
        was_left: impl Fn(&Packet) -> bool,
    ) -> Self {
        let meant = |p: &Packet| own.is_none_or(|own| means(own, p));
        let now = now.iter().filter(|p| meant(p)).map(|p| (p, f64::from(p.packets)));
        let normal = normal.iter().filter(|(p, _)| meant(p)).map(|(p, w)| (p, *w));
        Self { now: shares(now, is_left_now), usual: shares(normal, was_left) }
    }

    /// What of an alarm's value is left out, a second: of what is learned only what is more than usual, for the
    /// usual is in the threshold; of a threshold that somebody has set, all.
    fn of_alarm(&self, alarm: &Alarm, set: bool) -> f64 {
        let (now, usual) = match alarm.metric {
            Metric::PacketsPerSec => (self.now.0, self.usual.0),
            Metric::BitsPerSec => (self.now.1, self.usual.1),
            _ => return 0.0,
        };
        let usual = if set { 0.0 } else { usual * alarm.baseline };
        (now * alarm.value - usual).max(0.0)
    }
}

/// The share of packets, and of their octets, for which something holds.
fn shares<'p>(
    packets: impl Iterator<Item = (&'p Packet, f64)>,
    holds: impl Fn(&Packet) -> bool,
) -> (f64, f64) {
    let (mut all, mut held) = ((0.0, 0.0), (0.0, 0.0));
    for (p, weight) in packets {
        let octets = weight * f64::from(p.length());
        all = (all.0 + weight, all.1 + octets);
        if holds(p) {
            held = (held.0 + weight, held.1 + octets);
        }
    }
    (held.0 / f64::max(all.0, f64::MIN_POSITIVE), held.1 / f64::max(all.1, f64::MIN_POSITIVE))
}

/// The excess with its packets estranged ([`Excused::estranged`]).
fn estranged<'e>(excess: &'e Excess, excused: &Excused<'_>) -> Cow<'e, Excess> {
    let packets: Vec<Packet> = excess.packets.iter().map(|(p, _)| *p).collect();
    match excused.estranged(&packets) {
        Cow::Borrowed(_) => Cow::Borrowed(excess),
        Cow::Owned(strange) => {
            let mut own = excess.clone();
            own.packets.iter_mut().zip(strange).for_each(|((p, _), strange)| *p = strange);
            Cow::Owned(own)
        }
    }
}

/// Excess that no allow list excuses, and its share of all.
fn unexcused<'e>(
    excess: &'e [(Packet, f64)],
    excused: &Excused<'_>,
    answers: &Answers,
) -> (Cow<'e, [(Packet, f64)]>, f64) {
    if excused.is_idle() {
        return (Cow::Borrowed(excess), 1.0);
    }
    let weight = |list: &[(Packet, f64)]| list.iter().map(|(_, w)| w).sum::<f64>() + 0.0;
    let rest: Vec<(Packet, f64)> =
        excess.iter().filter(|(p, _)| !excused.holds(p, answers, |_| true)).copied().collect();
    let share = weight(&rest) / weight(excess).max(f64::MIN_POSITIVE);
    (Cow::Owned(rest), share)
}

/// Whether rules that may be used, now or later, tell the excess from what is wanted; `open` is the share of it
/// that rules may cover.
fn separable(candidates: &[Candidate], coverage: f64, open: f64) -> bool {
    let refused: f64 =
        candidates.iter().filter(|c| c.hold.is_some_and(Hold::is_wanted)).map(|c| c.coverage).sum();
    open > 0.0 && coverage - refused >= SEPARABLE_COVERAGE * open
}

/// The share of the excess that fits a signature which needs no baseline, less what the target asked for
/// or answers: a port number is no proof.
fn unasked(parts: &[Part], traits: &Traits, answers: &Answers, answered: Option<f64>) -> f64 {
    // Where questions cannot be seen, what many hosts ask for every day may have been asked for.
    let asked =
        |port: u16| answers.asked(17, port) >= ASKED_MIN || !answers.visible && !is_reflector(port);
    let wanted: f64 = parts
        .iter()
        .filter(|part| part.signature.standalone)
        .filter(|part| match part.signature.packets {
            Packets::AnswersFrom(ports) => ports.iter().any(|port| asked(*port)),
            _ => false,
        })
        .map(|part| part.share)
        .sum();
    let left = (traits.standalone - wanted).max(0.0);
    left * (1.0 - answered.unwrap_or(0.0))
}

/// The declared services within a target that run, one for each protocol and port.
fn services_of(inventory: &Inventory, target: IpNet) -> Vec<Service> {
    if target.prefix_len() == target.max_prefix_len() {
        let declared = inventory.services_of(target.addr()).iter();
        return declared.filter(|s| foreknown::runs(inventory, s)).cloned().collect();
    }
    let all = &inventory.services;
    let from = all.partition_point(|s| s.address < target.network());
    let to = all.partition_point(|s| s.address <= target.broadcast());
    let running = all[from..to].iter().filter(|s| foreknown::runs(inventory, s));
    let mut within: Vec<Service> = running.cloned().collect();
    within.sort_by_key(|s| (s.protocol, s.port));
    within.dedup_by_key(|s| (s.protocol, s.port));
    within
}

/// Rules for the excess: those told before while they do nearly as well as the best new ones, else
/// new ones that may be dropped by, else ones that may only limit.
fn choose(
    mut input: Input<'_>,
    told: &[Match],
    collateral_max_rate_limit: f64,
    own: Option<&Match>,
) -> Found {
    let strict = input.collateral_max;
    let kept = measure(&input, told);
    let allowed = kept.collateral <= strict;
    if allowed && kept.coverage >= KEEP_COVERAGE {
        return kept;
    }
    let found = search(&input, own);
    if allowed && !told.is_empty() && kept.coverage + KEEP_MARGIN >= found.coverage {
        return kept;
    }
    if found.coverage >= MOST_COVERAGE {
        return found;
    }
    input.collateral_max = collateral_max_rate_limit;
    if kept.collateral <= input.collateral_max && kept.coverage >= KEEP_COVERAGE - KEEP_MARGIN {
        return kept;
    }
    let wider = search(&input, own);
    // Slices of a flood, each harmless by itself, leave most of it; what may only be limited covers it whole.
    let better = wider.coverage >= found.coverage + WIDER_GAIN;
    let first = found.coverage < SEPARABLE_COVERAGE && wider.coverage >= SEPARABLE_COVERAGE;
    if better || first { wider } else { found }
}

/// Rules for the excess; of an operator's own metric none that goes beyond what it means. Where what was found
/// covers much less than all of that would, and all of it spares what is wanted, it is that.
fn search(input: &Input<'_>, own: Option<&Match>) -> Found {
    let found = synthesise(input);
    let Some(own) = own else { return found };
    if !can_say(own, input.capabilities) {
        return Found::default();
    }
    // What narrows a rule to the match may give it a source, and that may be of an allow list.
    let allowed = |rule: &Match| input.allow.named_by(rule).is_none();
    let mut rules: Vec<Match> = Vec::new();
    for rule in found.rules.iter().filter_map(|rule| own.meet(&rule.packets)) {
        if allowed(&rule) && !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let narrowed = measure(input, &rules);
    if !allowed(own) {
        return narrowed;
    }
    let whole = measure(input, std::slice::from_ref(own));
    let spares = whole.collateral <= input.collateral_max;
    if spares && whole.coverage >= narrowed.coverage + WIDER_GAIN { whole } else { narrowed }
}

/// Whether routers can match all that a match says.
fn can_say(m: &Match, can: &Capabilities) -> bool {
    (m.lengths.is_empty() || can.lengths)
        && m.tcp_flags.iter().all(|flags| flags.mask & !can.tcp_flags == 0)
        && (m.src.is_none() || can.sources)
        && match m.fragment {
            None => true,
            Some(FragmentMatch::IsFragment | FragmentMatch::NotFragment) => can.fragments,
            Some(FragmentMatch::First | FragmentMatch::Last) => false,
        }
}

/// Rules for the excess, each with why it must not be announced. Rules told before that are now known to
/// cut what is wanted come last, and cover nothing: whoever has them in force must hear of it.
fn weighed(
    input: &Input<'_>,
    told: &[Match],
    known: &Knowledge<'_>,
    collateral_max_rate_limit: f64,
    own: Option<&Match>,
) -> (Found, Vec<Weighed>) {
    let wanted = |m: &&Match| hold(m, known).hold.is_some_and(Hold::is_wanted);
    // Those that came last were refused before, and whoever had them has heard of it.
    let told = &told[..told.len().min(TOLD_MAX)];
    // Of those that a list has come to speak of since, the guard tells whoever has them in force.
    let told: Vec<Match> =
        told.iter().filter(|m| input.allow.named_by(m).is_none()).cloned().collect();
    let (refused, told): (Vec<&Match>, Vec<&Match>) = told.iter().partition(wanted);
    let mut told: Vec<Match> = told.into_iter().cloned().collect();
    told.retain(|m| own.is_none_or(|own| own.meet(m).as_ref() == Some(m)));
    let mut found = choose(input.clone(), &told, collateral_max_rate_limit, own);
    for m in refused {
        if found.rules.iter().all(|rule| rule.packets != *m) {
            let measured = measure(input, std::slice::from_ref(m)).rules;
            found.rules.extend(measured.into_iter().map(|rule| Rule { coverage: 0.0, ..rule }));
        }
    }
    let holds = found.rules.iter().map(|rule| hold(&rule.packets, known)).collect();
    (found, holds)
}

/// Highest confidence that flow records allow: they show no requests.
fn suspicion(parts: &[Part]) -> u8 {
    if parts.first().is_some_and(|p| p.signature.id == "http-flood") { SUSPECTED } else { 100 }
}

/// What the traits come to as numbers behind a verdict.
fn numbers(t: &Traits) -> Evidence {
    Evidence {
        samples: u32::try_from(t.samples).unwrap_or(u32::MAX),
        standalone: t.standalone,
        established: t.established,
        on_service: t.on_service,
        one_length: t.one_length,
        top3: t.top3,
        sources: t.sources,
        response: t.response,
        seen_before: t.seen_before,
        ttl_bits: t.ttl_bits,
        ttl_odd: t.ttl_odd,
        ..Evidence::default()
    }
}

/// The evidence as an incident keeps it.
fn kept(numbers: Evidence, excess: &Excess, normal: &[(Packet, f64)]) -> Evidence {
    Evidence {
        histograms: exhibit::histograms(&excess.packets, normal),
        flows_before: exhibit::flows(normal),
        flows_during: exhibit::flows(&excess.packets),
        ..numbers
    }
}

/// A probability as confidence, 0-100.
fn percent(probability: f64) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let percent = (probability.clamp(0.0, 1.0) * 100.0).round() as u8;
    percent
}
