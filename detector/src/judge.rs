//! From an alarm to a verdict.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_model::{
    Candidate, Direction, Evidence, Goodput, Hold, IncidentId, IpNet, Match, Metric, Millis, Phase,
    Rate, Reason, Service, Verdict,
};

use crate::answers::Answers;
use crate::confidence::{Judged, cap, confidence, groups};
use crate::evidence::{NOW_SLOTS, NOW_SLOTS_MAX, Packet};
use crate::hold::{Knowledge, hold};
use crate::host::Warm;
use crate::incident::Active;
use crate::metric::{BITS, OUTBOUND, PACKETS, is_bits, values};
use crate::series::Alarm;
use crate::signature::Packets;
use crate::silent::carriers;
use crate::synthesis::{Found, Input, Rule, hits, measure, synthesise};
use crate::vectors::{
    Excess, Part, Traits, excess, family, parts, spread, top_sources, traits, vectors,
};
use crate::window::SLOTS_PER_SEC;
use crate::{Detector, Near, exhibit, foreknown, summary};

/// Share of the excess that rules must cover for it to be separable.
const SEPARABLE_COVERAGE: f64 = 0.4;
/// Rules told before stay when they cover this share, or this much less than new ones would.
const KEEP_COVERAGE: f64 = 0.97;
const KEEP_MARGIN: f64 = 0.03;
/// Rules told before that are looked at again.
const TOLD_MAX: usize = 12;
/// Fewest packets on which evidence is worth anything.
pub(crate) const EVIDENCE_MIN: usize = 16;
/// Targets of which the packets are looked at in one slot, a fraction of a millisecond each: where all
/// networks are near their thresholds at once, as after a start under full load, they take turns.
const LOOKS_MAX: usize = 64;
/// How long what was judged waits for the next look, milliseconds.
pub(crate) const LOOK_AGAIN_MS: u64 = 500;
/// The same while a rule waits for a second look, or for packets enough to say who is answered.
pub(crate) const LOOK_SOON_MS: u64 = 200;
/// Confidence in an HTTP flood that only flow records tell of.
const SUSPECTED: u8 = 60;
/// Confidence that an alarm needs which no volume threshold backs.
const ODD_CONFIDENCE: u8 = 40;
/// Hosts, counted by their share of a prefix's excess, from which the prefix is the target.
const EFFECTIVE_HOSTS_MIN: f64 = 8.0;
/// The same of the /24s in a wider prefix.
const EFFECTIVE_PARTS_MIN: f64 = 2.5;

/// Share of a growth that no volume threshold backs which the excess must make up.
const GROWN_MIN: f64 = 0.5;
/// Share of the volume behind an alarm that the packets looked at must stand for.
const TELLING: f64 = 0.2;
/// Questions from which a target is known to ask a service.
const ASKED_MIN: usize = 2;
/// Longest time for which flow caches are waited for, seconds: a direction may be exported later than
/// the other by one active timeout.
const SETTLING_SECS_MAX: u64 = 12;
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
    /// For each rule found, why it must not be announced, and whether a sign of attack backs it.
    holds: Vec<(Option<Hold>, bool)>,
    /// Share of the excess that the target answers; `None` when too little was seen.
    answered: Option<f64>,
    rate: Rate,
}

impl Findings {
    /// Whether the packets stand for a fair share of what was counted, and the excess among them for a
    /// fair share of what is too much. What was exported late may have left none, and what came in the
    /// meantime is something else.
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    fn tells_of(&self, alarm: &Alarm) -> bool {
        let bits = is_bits(alarm.index);
        let volume = |p: &Packet| if bits { p.bytes as f64 * 8.0 } else { f64::from(p.packets) };
        let seen: f64 = self.now.iter().map(volume).sum();
        let secs = alarm.window_ms as f64 / 1000.0;
        let share = if bits { self.excess.share_bytes } else { self.excess.share };
        let grown = (alarm.value - alarm.baseline).max(0.0);
        self.now.is_empty()
            || seen >= TELLING * alarm.value * secs && seen * share >= TELLING * grown * secs
    }

    /// Whether what needs no baseline to be told is above the threshold by itself, and nobody answers
    /// it.
    fn stands_alone(&self, alarm: &Alarm) -> bool {
        self.excess.packets.len() >= EVIDENCE_MIN
            && alarm.value * self.traits.standalone >= alarm.threshold
            && self.traits.response.is_none_or(|r| r < ANSWERED_MAX)
    }
}

impl Detector {
    /// Judges what came near a threshold in this slot, in the order of addresses.
    pub(crate) fn judge_alarms(&mut self, out: &mut Vec<Verdict>) {
        let mut alarmed = std::mem::take(&mut self.alarmed);
        // Prefixes before the hosts in them: a carpet is one incident.
        alarmed.sort_by_key(|(target, _, odd)| (*target, odd.is_some()));
        let mut queue = self.queue(&mut alarmed);
        // Wider ones last: hosts and /24s that are attacked explain them, and are met more narrowly.
        queue.sort_by_key(|(target, ..)| is_wide(*target));
        self.alarmed = alarmed;
        let mut looks = LOOKS_MAX;
        for (target, at, odd) in queue.drain(..) {
            if looks == 0 {
                self.counters.alarms_deferred += 1;
                self.deferred.push((target, at, odd));
                continue;
            }
            for way in [Direction::Inbound, Direction::Outbound] {
                let known = odd.filter(|o| o.direction == way);
                looks = looks.saturating_sub(usize::from(self.judge_alarm(at, way, known, out)));
            }
            if let Some(Some(warm)) = self.warm.get_mut(at as usize) {
                warm.series.window.take_oldest();
            }
        }
    }

    /// What is to be judged in this slot: first what was put off in the slot before and is still watched, then
    /// what came near a threshold since and does not wait already.
    fn queue(&mut self, alarmed: &mut Vec<Near>) -> Vec<Near> {
        let mut queue = std::mem::take(&mut self.deferred);
        queue.retain(|(target, at, _)| {
            self.warm[*at as usize].as_deref().is_some_and(|warm| warm.target == *target)
        });
        let waiting: BTreeSet<u32> =
            queue.iter().filter(|(.., odd)| odd.is_none()).map(|(_, at, _)| *at).collect();
        queue.extend(
            alarmed.drain(..).filter(|(_, at, odd)| odd.is_some() || !waiting.contains(at)),
        );
        queue
    }

    /// Whether it took a look at the packets.
    fn judge_alarm(
        &mut self,
        at: u32,
        way: Direction,
        known: Option<Alarm>,
        out: &mut Vec<Verdict>,
    ) -> bool {
        let now = self.clock;
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return false };
        let target = warm.target;
        if self.by_target.contains_key(&(target, way)) || now < warm.look_after {
            return false;
        }
        let known_well = !warm.series.learning(&self.config, now.secs());
        // Of a wider prefix nothing is said before its own normal is known and a second has passed: what is
        // attacked within it is found sooner, and met more narrowly.
        if is_wide(target) && !known_well {
            return false;
        }
        let short = known_well && !is_wide(target);
        let volume = warm.series.alarm(self.rule, way, short, self.sampling);
        let bare =
            || warm.series.bare_alarm(&self.config, now.secs(), self.rule, way, self.sampling);
        let Some(alarm) = volume.or(known).or_else(bare) else { return false };
        // A window that reaches back into an incident that is over would tell of it again.
        if alarm.first() <= warm.told || self.explained(target, &alarm) {
            return false;
        }
        self.counters.alarms += 1;
        let findings = self.look(at, &alarm, &[], now);
        let telling = findings.tells_of(&alarm);
        if !telling
            || !self.plausible(target, &findings)
            || alarm.bare && !findings.stands_alone(&alarm)
        {
            self.unconvinced(at);
            return true;
        }
        if self.incidents.len() >= self.config.incidents_max {
            self.counters.incidents_refused += 1;
            return true;
        }
        let id = IncidentId::next(now, self.last_id);
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return true };
        let thresholds = warm.series.thresholds;
        let mut active = Active::new(id, target, alarm, &thresholds, &self.config, now);
        let verdict = self.verdict(&mut active, findings, Phase::Opened);
        let odd = matches!(alarm.metric, Metric::Shape | Metric::Cusum | Metric::SourcesPerSec);
        // What was found must be what grew.
        let it = || {
            let grown = alarm.value - alarm.baseline;
            verdict.separable && verdict.excess.packets_per_sec >= GROWN_MIN * grown
        };
        let sound = !odd || it();
        let enough = if odd { ODD_CONFIDENCE } else { self.config.report_confidence };
        let convincing = sound && verdict.confidence >= enough;
        if sound {
            self.note(&active, convincing.then_some(id));
        }
        if !convincing {
            self.unconvinced(at);
            return true;
        }
        self.suspect(at);
        self.counters.incidents_opened += 1;
        self.last_id = Some(id);
        // Quiet seconds before it began say nothing of its end.
        active.open_second = self.watermark.secs().max(alarm.last).max(1);
        active.weigh(&verdict);
        active.last = Some(verdict.clone());
        self.merge(&verdict, out);
        out.push(verdict);
        self.evidence.extend(active.fresh(now, 0));
        self.by_target.insert((target, way), id);
        self.incidents.insert(id, active);
        self.take_back(target);
        true
    }

    /// Keeps a target's traffic, and that of its services, out of what is normal: for a minute from now
    /// on, and from when the seconds began that are still in quarantine.
    pub(crate) fn suspect(&mut self, at: u32) {
        let until = self.clock.secs() + 60;
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return };
        warm.series.suspect(until);
        let target = warm.target;
        if target.prefix_len() < target.max_prefix_len() {
            warm.carpet_until = until;
            return;
        }
        let place = self.table.get(target.addr());
        for declared in self.inventory.services_of(target.addr()) {
            let key = (place, declared.protocol, declared.port);
            if let Some(service) = self.services.get_mut(&key) {
                service.series.suspect(until);
            }
        }
    }

    /// Whether a prefix is above its threshold only because hosts in it are attacked, which have
    /// incidents of their own.
    fn explained(&self, target: IpNet, alarm: &Alarm) -> bool {
        let inside = |a: &&Active| {
            a.target != target && target.contains(&a.target) && a.way() == alarm.direction
        };
        // What they carry now: of the highest of an hour ago nothing may be left.
        let own: f64 = self
            .incidents
            .values()
            .filter(inside)
            .filter(|a| {
                !self
                    .incidents
                    .values()
                    .any(|b| b.target != a.target && inside(&b) && b.target.contains(&a.target))
            })
            .filter_map(|a| self.warm_of(a.target))
            .map(|warm| warm.series.value_of(alarm))
            .sum();
        own > 0.0 && alarm.value - own < alarm.threshold
    }

    /// Notes what was judged, for whoever asked.
    pub(crate) fn note(&mut self, active: &Active, incident: Option<IncidentId>) {
        if let Some(judged) = &mut self.judged {
            judged.push(Judged {
                at: self.clock,
                target: active.target,
                direction: active.way(),
                incident,
                evidence: active.numbers.clone(),
                cap: active.cap,
            });
        }
    }

    fn unconvinced(&mut self, at: u32) {
        self.counters.alarms_unconvincing += 1;
        if let Some(warm) = self.warm[at as usize].as_deref_mut() {
            warm.look_after = self.clock + LOOK_AGAIN_MS;
        }
    }

    /// Whether findings speak of this target: a prefix is attacked when many of its hosts are, a
    /// host when its prefix is not attacked in the same way already.
    fn plausible(&self, target: IpNet, findings: &Findings) -> bool {
        let subtype = findings.parts.first().map(|p| p.signature.id);
        let same = |v: &Verdict| v.vectors.first().map(|v| v.subtype.as_str()) == subtype;
        let covered = self
            .incidents
            .values()
            .filter(|a| a.way() == Direction::Inbound && a.target != target)
            .filter(|a| a.target.contains(&target))
            .any(|a| a.last.as_ref().is_some_and(same));
        if covered {
            return false;
        }
        if target.prefix_len() == target.max_prefix_len() {
            return true;
        }
        let (hosts, effective) = spread(&findings.excess, |p| p.local);
        let wide = is_wide(target);
        // A wider prefix is attacked when several of its parts are; IPv6 keeps too little of the address
        // to tell them apart.
        let parts = !wide
            || target.addr().is_ipv6()
            || spread(&findings.excess, |p| p.local >> 8).1 >= EFFECTIVE_PARTS_MIN;
        hosts >= self.config.prefix_hosts_min && effective >= EFFECTIVE_HOSTS_MIN && parts
    }

    /// Ends incidents of hosts that are part of a prefix's.
    fn merge(&mut self, verdict: &Verdict, out: &mut Vec<Verdict>) {
        if verdict.target.prefix_len() == verdict.target.max_prefix_len() {
            return;
        }
        let subtype = |v: &Verdict| v.vectors.first().map(|v| v.subtype.clone());
        let part: Vec<IncidentId> = self
            .incidents
            .values()
            .filter(|a| a.way() == verdict.direction && verdict.target.contains(&a.target))
            .filter(|a| a.last.as_ref().is_some_and(|v| subtype(v) == subtype(verdict)))
            .map(|a| a.id)
            .collect();
        for id in part {
            if let Some(mut active) = self.incidents.remove(&id) {
                self.evidence.extend(active.fresh(self.clock, 0));
                self.by_target.remove(&(active.target, active.way()));
                out.extend(active.ended(self.clock));
            }
        }
    }

    /// Looks at a target's packets of the present against its normal ones. Rules `told` before stay
    /// while they do nearly as well as the best new ones, so that what routers are told does not
    /// change with every sample.
    /// `begun` is when the incident opened.
    pub(crate) fn look(
        &mut self,
        at: u32,
        alarm: &Alarm,
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
        let mut now = warm.profile_of(way).latest(slot, slots);
        if now.len() < 4 * EVIDENCE_MIN {
            now = warm.profile_of(way).latest(slot, slots.max(30));
        }
        let mut rate = present(warm, way, back);
        if told.is_empty() && alarm.window_ms < 1000 {
            rate = higher(rate, burst(warm, way, alarm.window_ms));
        }
        let normal = warm.profile_of(way).normal();
        let mean = warm.series.mean(match way {
            Direction::Inbound => PACKETS,
            Direction::Outbound => OUTBOUND,
        });
        let level = evident(&now, slot).min(rate.packets_per_sec);
        let excess = excess(&now, level, &normal, mean, &services);
        let parts = parts(&excess);
        // Where exports lag both ways are known only as far back as the alarm's window: of the newest
        // seconds one way may be in and the other still to come.
        let newest = warm.series.window.newest();
        let (last, seconds) = match back {
            0..=2 => (newest, u32::try_from(alarm.window_ms / 1000).unwrap_or(3)),
            _ => (newest.saturating_sub(back / 2), u32::try_from(back).unwrap_or(90)),
        };
        let response = warm.series.response(way, last, seconds);
        let seen_before = exhibit::seen_before(&excess.packets, &normal);
        let learning = warm.series.learning(&self.config, self.clock.secs());
        let mean = (!learning || warm.known())
            .then(|| (warm.series.mean(PACKETS), warm.series.mean(OUTBOUND)));
        let visible = self.two_way.sees(mean);
        // What comes in is exported wherever anything is.
        let visible = visible || way == Direction::Outbound;
        let other = warm.profile_of(way.other());
        let usual = other.normal().into_iter().map(|(p, _)| p).collect();
        let answers = Answers::new(other.latest(slot, slots.max(NOW_SLOTS + lag)), usual, visible);
        let answered = answers.of_excess(&excess);
        let mut traits = Traits { response, seen_before, ..traits(&excess, &parts, &services) };
        traits.standalone = unasked(&parts, &traits, &answers, answered);
        let known = Knowledge {
            answers: &answers,
            now: &now,
            normal: &normal,
            learning,
            single: warm.target.prefix_len() == warm.target.max_prefix_len(),
            settling: back > 2 && self.clock.since(begun) < back.min(SETTLING_SECS_MAX) * 1000,
        };
        let present: Vec<(Packet, f64)> =
            answers.answered(&now).map(|p| (*p, f64::from(p.packets))).collect();
        // What a host sends is stopped at the host, not by rules in routers.
        let (found, holds) = if way == Direction::Inbound && excess.packets.len() >= EVIDENCE_MIN {
            let input = Input {
                target: warm.target,
                excess: &excess.packets,
                normal: &normal,
                answered: &present,
                services: &services,
                collateral_max: self.config.collateral_max,
                rules_max: self.config.rules_max,
                capabilities: &self.config.capabilities,
            };
            weighed(&input, told, &known, self.config.collateral_max_rate_limit)
        } else {
            (Found::default(), Vec::new())
        };
        Findings { now, excess, normal, traits, parts, found, holds, answered, rate }
    }

    /// Seconds by which exports lag: the newest ones are not complete.
    pub(crate) fn back(&self) -> u64 {
        self.clock.secs().saturating_sub(self.watermark.secs()).clamp(1, 90)
    }

    /// Puts findings into words.
    pub(crate) fn verdict(&self, active: &mut Active, findings: Findings, phase: Phase) -> Verdict {
        let Findings { now, excess, normal, traits, parts, found, holds, answered, rate } =
            findings;
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
        let confidence = confidence(&evidence).min(suspicion(&parts));
        let candidates: Vec<Candidate> = found
            .rules
            .into_iter()
            .zip(holds)
            .map(|(rule, (hold, sign))| Candidate {
                hold: active.weighed(hold, sign, &rule.packets, confidence, self.clock),
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
            separable: separable(&candidates, found.coverage),
            rate,
            peak: active.peak,
            excess: over,
            discarded: warm.map_or_else(Rate::default, discarded),
            legitimate: warm
                .filter(|_| evidence.known && way == Direction::Inbound)
                .map(|w| self.goodput(w, rate, over, effective(&now))),
            sources: traits.sources,
            reason: self.reason(&active.alarm, &excess),
            candidates,
            top_sources: top_sources(&excess),
            summary: String::new(),
        };
        active.cap = cap(&evidence).min(f64::from(suspicion(&parts)) / 100.0);
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
        }
    }

    /// What is known of a target.
    pub(crate) fn warm_of(&self, target: IpNet) -> Option<&Warm> {
        self.warm.get(self.warm_at(target)? as usize)?.as_deref()
    }

    /// Place of a watched target.
    pub(crate) fn warm_at(&self, target: IpNet) -> Option<u32> {
        if target.prefix_len() < target.max_prefix_len() {
            return self.prefixes.get(&target).copied();
        }
        let idle = self.idle.get(self.table.get(target.addr()) as usize)?;
        (idle.warm != crate::table::NONE).then_some(idle.warm)
    }
}

/// Whether a prefix is wider than those in which carpets are looked for first.
fn is_wide(target: IpNet) -> bool {
    target.prefix_len() < crate::table::carpet(target.addr()).prefix_len()
}

/// Whether rules that may be used, now or later, tell the excess from what is wanted.
fn separable(candidates: &[Candidate], coverage: f64) -> bool {
    let refused: f64 =
        candidates.iter().filter(|c| c.hold.is_some_and(Hold::is_wanted)).map(|c| c.coverage).sum();
    coverage - refused >= SEPARABLE_COVERAGE
}

/// The share of the excess that fits a signature which needs no baseline, less what the target asked for
/// or answers: a port number is no proof.
fn unasked(parts: &[Part], traits: &Traits, answers: &Answers, answered: Option<f64>) -> f64 {
    let asked = |port: u16| answers.asked(17, port) >= ASKED_MIN;
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
fn services_of(inventory: &weir_model::Inventory, target: IpNet) -> Vec<Service> {
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
fn choose(mut input: Input<'_>, told: &[Match], collateral_max_rate_limit: f64) -> Found {
    let strict = input.collateral_max;
    let kept = measure(&input, told);
    let allowed = kept.collateral <= strict;
    if allowed && kept.coverage >= KEEP_COVERAGE {
        return kept;
    }
    let found = synthesise(&input);
    if allowed && !told.is_empty() && kept.coverage + KEEP_MARGIN >= found.coverage {
        return kept;
    }
    if found.coverage >= SEPARABLE_COVERAGE {
        return found;
    }
    input.collateral_max = collateral_max_rate_limit;
    if kept.collateral <= input.collateral_max && kept.coverage >= KEEP_COVERAGE - KEEP_MARGIN {
        return kept;
    }
    let wider = synthesise(&input);
    if wider.coverage >= SEPARABLE_COVERAGE { wider } else { found }
}

/// Rules for the excess, each with why it must not be announced. Rules told before that are now known to
/// cut what is wanted come last, and cover nothing: whoever has them in force must hear of it.
fn weighed(
    input: &Input<'_>,
    told: &[Match],
    known: &Knowledge<'_>,
    collateral_max_rate_limit: f64,
) -> (Found, Vec<(Option<Hold>, bool)>) {
    let wanted = |m: &&Match| hold(m, known).0.is_some_and(Hold::is_wanted);
    // Those that came last were refused before, and whoever had them has heard of it.
    let told = &told[..told.len().min(TOLD_MAX)];
    let (refused, told): (Vec<&Match>, Vec<&Match>) = told.iter().partition(wanted);
    let told: Vec<Match> = told.into_iter().cloned().collect();
    let mut found = choose(input.clone(), &told, collateral_max_rate_limit);
    for m in refused {
        if found.rules.iter().all(|rule| rule.packets != *m) {
            let measured = measure(input, std::slice::from_ref(m)).rules;
            found.rules.extend(measured.into_iter().map(|rule| Rule { coverage: 0.0, ..rule }));
        }
    }
    let holds = found.rules.iter().map(|rule| hold(&rule.packets, known)).collect();
    (found, holds)
}

/// What of the present a match holds for.
pub(crate) fn matched(now: &[Packet], rate: Rate, m: &Match) -> Rate {
    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    let volume = |p: &Packet| (f64::from(p.packets), p.bytes as f64);
    let (mut all, mut hit) = ((0.0, 0.0), (0.0, 0.0));
    for p in now {
        let (packets, bytes) = volume(p);
        all = (all.0 + packets, all.1 + bytes);
        if hits(m, p) {
            hit = (hit.0 + packets, hit.1 + bytes);
        }
    }
    if all.0 <= 0.0 {
        return Rate::default();
    }
    Rate {
        packets_per_sec: rate.packets_per_sec * hit.0 / all.0,
        bits_per_sec: rate.bits_per_sec * hit.1 / f64::max(all.1, 1.0),
    }
}

/// Packets a second that the packets kept of the present stand for.
fn evident(now: &[Packet], slot: u64) -> f64 {
    let from = now.iter().map(|p| p.slot).min().unwrap_or(slot);
    let packets: f64 = now.iter().map(|p| f64::from(p.packets)).sum();
    #[expect(clippy::cast_precision_loss, reason = "at most a hundred slots")]
    let slots = slot.saturating_sub(from).max(1) as f64;
    packets / slots * 10.0
}

/// The rate of the last second, or of the one of the last `back` in which it was highest: exports of
/// the newest may still be on their way.
pub(crate) fn present(warm: &Warm, way: Direction, back: u64) -> Rate {
    let window = &warm.series.window;
    let at = match way {
        Direction::Inbound => 0,
        Direction::Outbound => OUTBOUND,
    };
    let newest = window.newest();
    let mut best = values(&window.last_slots(10));
    for b in 0..=back.min(30) {
        let second = values(&window.second(newest.saturating_sub(b)));
        for (best, value) in best.iter_mut().zip(second) {
            *best = (*best).max(value);
        }
    }
    rate_of(best[at + PACKETS], best[at + BITS], 1.0)
}

/// The rate of the window that alarmed, where that is shorter than a second: at its onset the last
/// second holds but a part of an attack.
fn burst(warm: &Warm, way: Direction, window_ms: u64) -> Rate {
    let slots = u32::try_from(window_ms / 100).unwrap_or(1).max(1);
    let values = values(&warm.series.window.last_slots(slots as usize));
    let at = match way {
        Direction::Inbound => 0,
        Direction::Outbound => OUTBOUND,
    };
    rate_of(values[at + PACKETS], values[at + BITS], f64::from(slots) / 10.0)
}

fn higher(a: Rate, b: Rate) -> Rate {
    Rate {
        packets_per_sec: a.packets_per_sec.max(b.packets_per_sec),
        bits_per_sec: a.bits_per_sec.max(b.bits_per_sec),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
pub(crate) fn rate_of(packets: u64, bits: u64, secs: f64) -> Rate {
    Rate { packets_per_sec: packets as f64 / secs, bits_per_sec: bits as f64 / secs }
}

/// What routers discarded in the last second.
pub(crate) fn discarded(warm: &Warm) -> Rate {
    let cell = warm.series.window.last_slots(10);
    rate_of(u64::from(cell.dropped), cell.dropped_bytes.saturating_mul(8), 1.0)
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

/// How many packets of equal weight would say as much as those kept of the present.
fn effective(now: &[Packet]) -> f64 {
    let (sum, squares) = now.iter().fold((0.0, 0.0), |(sum, squares), p| {
        let packets = f64::from(p.packets);
        (sum + packets, squares + packets * packets)
    });
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// What is left of the present without the excess, against what is normal; at most `seen` packets
/// a second tell one from the other. What is `silenced` nobody expects any more, and where nothing
/// arrives, one in `sampling` packets would be seen.
fn left(
    warm: &Warm,
    (rate, over): (Rate, Rate),
    seen: f64,
    silenced: Rate,
    sampling: f64,
) -> Goodput {
    let series = &warm.series;
    let cell = series.window.seconds(series.window.newest(), 3);
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    let own = cell.variance.checked_div(cell.total()).map(|own| own as f64);
    let sampling = own.unwrap_or(sampling).max(1.0);
    let normal = Rate {
        packets_per_sec: (series.mean(PACKETS) - silenced.packets_per_sec).max(0.0),
        bits_per_sec: (series.mean(BITS) - silenced.bits_per_sec).max(0.0),
    };
    let sampled = normal.packets_per_sec / sampling;
    // Beside a flood a thousand times as strong few packets of normal traffic are among those kept.
    let arrived = rate.packets_per_sec / sampling;
    let expected_samples = if arrived > seen { sampled * seen / arrived } else { sampled };
    Goodput {
        now: Rate {
            packets_per_sec: rate.packets_per_sec - over.packets_per_sec,
            bits_per_sec: rate.bits_per_sec - over.bits_per_sec,
        },
        normal,
        expected_samples,
    }
}
