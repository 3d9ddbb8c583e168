//! From an alarm to a verdict, and from verdict to verdict until the end.

use std::net::IpAddr;

use weir_model::{
    Candidate, Direction, Goodput, IncidentId, IpNet, Match, Phase, Rate, Reason, Verdict,
};

use crate::confidence::{Evidence, confidence, groups};
use crate::evidence::Packet;
use crate::host::{Alarm, Warm};
use crate::incident::{Active, important};
use crate::metric::{BITS, METRICS, PACKETS, values};
use crate::synthesis::{Found, Input, hits, measure, synthesise};
use crate::table::NONE;
use crate::vectors::{Excess, Traits, excess, family, parts, top_sources, traits, vectors};
use crate::window::SLOTS_PER_SEC;
use crate::{Config, Detector, summary};

/// Share of the excess that rules must cover for it to be separable, and the collateral up to
/// which they may.
const SEPARABLE_COVERAGE: f64 = 0.4;
/// Rules told before stay when they cover this share, or this much less than new ones would.
const KEEP_COVERAGE: f64 = 0.97;
const KEEP_MARGIN: f64 = 0.03;
/// Fewest packets on which evidence is worth anything.
const EVIDENCE_MIN: usize = 16;
/// How long an alarm that did not convince waits for the next look, milliseconds.
const LOOK_AGAIN_MS: u64 = 500;

/// What the packets say.
struct Findings {
    /// Packets of the present.
    now: Vec<Packet>,
    excess: Excess,
    traits: Traits,
    parts: Vec<crate::vectors::Part>,
    found: Found,
    rate: Rate,
}

#[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
fn rate_of(packets: u64, bits: u64, secs: f64) -> Rate {
    Rate { packets_per_sec: packets as f64 / secs, bits_per_sec: bits as f64 / secs }
}

impl Detector {
    fn warm_of(&self, host: IpAddr) -> Option<&Warm> {
        let idle = self.idle.get(self.table.get(host) as usize)?;
        self.warm.get(idle.warm as usize)?.as_deref()
    }

    /// Place of a watched host.
    fn warm_at(&self, host: IpAddr) -> Option<u32> {
        let at = self.idle.get(self.table.get(host) as usize)?.warm;
        (at != NONE).then_some(at)
    }

    /// Judges a watched host that came near a threshold, and opens an incident if need be.
    pub(crate) fn alarm(&mut self, at: u32, out: &mut Vec<Verdict>) {
        let (rule, now) = (self.rule, self.clock);
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return };
        let short = !warm.learning(&self.config, now.secs());
        let Some(alarm) = warm.alarm(rule, short) else { return };
        self.counters.alarms += 1;
        let from = now.secs().saturating_sub(alarm.window_ms.div_ceil(1000));
        warm.suspect(from, now.secs() + 60);
        let host = warm.address;
        let findings = self.look(at, &alarm, &[]);
        if self.incidents.len() >= self.config.incidents_max {
            self.counters.incidents_refused += 1;
            return;
        }
        let id = IncidentId::next(now, self.last_id);
        let thresholds = self.warm[at as usize].as_ref().map_or([0.0; METRICS], |w| w.thresholds);
        let mut active = Active {
            id,
            host,
            target: IpNet::from(host),
            alarm,
            thresholds,
            last: None,
            said: now,
            judged: now,
            peak: Rate::default(),
            open_second: self.watermark.secs(),
            quiet: 0,
        };
        let verdict = self.verdict(&mut active, findings, Phase::Opened);
        if verdict.confidence < self.config.report_confidence {
            self.counters.alarms_unconvincing += 1;
            return;
        }
        self.counters.incidents_opened += 1;
        self.last_id = Some(id);
        active.last = Some(verdict.clone());
        out.push(verdict);
        self.by_host.insert(host, id);
        self.incidents.insert(id, active);
    }

    /// Looks at a host's packets of the present against its normal ones. Rules `told` before stay
    /// while they do nearly as well as the best new ones, so that what routers are told does not
    /// change with every sample.
    fn look(&mut self, at: u32, alarm: &Alarm, told: &[Match]) -> Findings {
        let slot = self.clock.slot();
        let inventory = std::sync::Arc::clone(&self.inventory);
        let Some(warm) = self.warm[at as usize].as_deref_mut() else {
            return Findings {
                now: Vec::new(),
                excess: Excess::default(),
                traits: Traits::default(),
                parts: Vec::new(),
                found: Found::default(),
                rate: Rate::default(),
            };
        };
        let services = inventory.services_of(warm.address);
        let all = warm.profile.now(slot);
        // Of the present only the window that alarmed, when that is enough to see by.
        let slots = (alarm.window_ms / 100).clamp(2, crate::evidence::NOW_SLOTS);
        let recent: Vec<_> = all.iter().filter(|p| p.slot + slots > slot).copied().collect();
        let now = if recent.len() >= 4 * EVIDENCE_MIN { recent } else { all };
        let rate = present(warm);
        let normal = warm.profile.normal();
        let level = match alarm.index {
            BITS | PACKETS => rate.packets_per_sec,
            _ => rate.packets_per_sec.max(alarm.value),
        };
        let excess = excess(&now, level, &normal, warm.mean(PACKETS), services);
        let parts = parts(&excess);
        let traits = Traits { response: warm.response(), ..traits(&excess, &parts, services) };
        let found = if excess.packets.len() >= EVIDENCE_MIN {
            let input = Input {
                target: IpNet::from(warm.address),
                excess: &excess.packets,
                normal: &normal,
                services,
                collateral_max: self.config.collateral_max,
                rules_max: self.config.rules_max,
            };
            choose(input, told, self.config.collateral_max_rate_limit)
        } else {
            Found::default()
        };
        Findings { now, excess, traits, parts, found, rate }
    }

    /// Puts findings into words.
    fn verdict(&self, active: &mut Active, findings: Findings, phase: Phase) -> Verdict {
        let Findings { now, excess, traits, parts, found, rate } = findings;
        let warm = self.warm_of(active.host);
        active.peak.packets_per_sec = active.peak.packets_per_sec.max(rate.packets_per_sec);
        active.peak.bits_per_sec = active.peak.bits_per_sec.max(rate.bits_per_sec);
        let over = Rate {
            packets_per_sec: rate.packets_per_sec * excess.share,
            bits_per_sec: rate.bits_per_sec * excess.share_bytes,
        };
        let normal_bytes = warm.map_or(0.0, |w| w.mean(BITS) / 8.0);
        let evidence = Evidence {
            ratio: active.alarm.value / active.alarm.threshold.max(1.0),
            coverage: found.coverage,
            traits,
            known: warm.is_some_and(|w| w.profile.minutes >= 2),
        };
        let candidates: Vec<Candidate> = found
            .rules
            .into_iter()
            .map(|rule| Candidate {
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
            direction: Direction::Inbound,
            family: family(&parts),
            vectors: vectors(&parts, over),
            confidence: confidence(&evidence),
            evidence_groups: groups(&evidence),
            separable: found.coverage >= SEPARABLE_COVERAGE,
            rate,
            peak: active.peak,
            excess: over,
            discarded: warm.map_or_else(Rate::default, discarded),
            legitimate: warm.filter(|_| evidence.known).map(|w| goodput(w, rate, over)),
            sources: traits.sources,
            reason: self.reason(&active.alarm, &excess),
            candidates,
            top_sources: top_sources(&excess),
            summary: String::new(),
        };
        verdict.summary = summary::sentence(&verdict, &self.inventory);
        verdict
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

    /// Follows open incidents: says what is new, ends what is over.
    pub(crate) fn follow(&mut self, out: &mut Vec<Verdict>) {
        let ids: Vec<IncidentId> = self.incidents.keys().copied().collect();
        for id in ids {
            let Some(mut active) = self.incidents.remove(&id) else { continue };
            if self.over(&mut active) {
                self.by_host.remove(&active.host);
                out.extend(active.ended(self.clock));
                continue;
            }
            if self.clock.since(active.judged) >= LOOK_AGAIN_MS {
                active.judged = self.clock;
                self.judge_again(&mut active, out);
            }
            self.incidents.insert(id, active);
        }
    }

    fn judge_again(&mut self, active: &mut Active, out: &mut Vec<Verdict>) {
        let Some(at) = self.warm_at(active.host) else { return };
        let (rule, now) = (self.rule, self.clock);
        let lag = now.since(self.watermark).min(90_000);
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return };
        warm.suspect(now.secs(), now.secs() + 60);
        // What is silent for longer than exports take is silent.
        warm.window.forward(now.slot().saturating_sub(lag / 100 + 2));
        if !warm.loud_now(&active.thresholds, self.config.end_ratio) {
            // Between pulses there is nothing to be learned of the attack.
            self.still(active, out);
            return;
        }
        if let Some(again) = warm.alarm(rule, true)
            && again.value / again.threshold.max(1.0)
                >= active.alarm.value / active.alarm.threshold.max(1.0)
        {
            active.alarm = again;
        }
        let told: Vec<Match> = active
            .last
            .iter()
            .flat_map(|v| v.candidates.iter().map(|c| c.packets.clone()))
            .collect();
        let findings = self.look(at, &active.alarm, &told);
        if findings.excess.packets.len() < EVIDENCE_MIN && active.last.is_some() {
            self.still(active, out);
            return;
        }
        let verdict = self.verdict(active, findings, Phase::Ongoing);
        if let Some(last) = &active.last
            && now.since(active.said) < 1000
            && !important(last, &verdict)
        {
            return;
        }
        active.said = now;
        active.last = Some(verdict.clone());
        out.push(verdict);
    }

    /// Once a second: what was said stays true, only the rates are new.
    fn still(&self, active: &mut Active, out: &mut Vec<Verdict>) {
        if self.clock.since(active.said) < 1000 {
            return;
        }
        let Some(warm) = self.warm_of(active.host) else { return };
        let Some(last) = &mut active.last else { return };
        active.said = self.clock;
        last.phase = Phase::Ongoing;
        last.at = self.clock;
        last.rate = present(warm);
        last.excess = Rate {
            packets_per_sec: (last.rate.packets_per_sec - warm.mean(PACKETS)).max(0.0),
            bits_per_sec: (last.rate.bits_per_sec - warm.mean(BITS)).max(0.0),
        };
        last.discarded = discarded(warm);
        let now = warm.profile.latest(self.clock.slot());
        for candidate in &mut last.candidates {
            candidate.rate = matched(&now, last.rate, &candidate.packets);
        }
        out.push(last.clone());
    }

    /// Counts quiet seconds up to the watermark; whether they are enough.
    fn over(&self, active: &mut Active) -> bool {
        let watermark = self.watermark.secs();
        if active.open_second == 0 {
            // Taken over after a restart: what was before is not known.
            active.open_second = watermark;
        }
        active.open_second = active.open_second.max(watermark.saturating_sub(30));
        while active.open_second < watermark {
            let second = active.open_second;
            active.open_second += 1;
            let loud =
                self.warm_of(active.host).is_some_and(|w| loud(w, second, active, &self.config));
            active.quiet = if loud { 0 } else { active.quiet + 1 };
        }
        active.quiet >= self.config.end_quiet_secs
    }
}

/// Whether a second is above the end condition in any metric; what the router dropped counts.
fn loud(warm: &Warm, second: u64, active: &Active, config: &Config) -> bool {
    let cell = warm.window.second(second);
    let mut values = values(&cell);
    values[PACKETS] = values[PACKETS].saturating_add(u64::from(cell.dropped));
    values.iter().zip(active.thresholds).enumerate().any(|(i, (value, threshold))| {
        #[expect(clippy::cast_precision_loss, reason = "a comparison, not an account")]
        let value = *value as f64;
        let ratio = if i == active.alarm.index { config.end_ratio } else { 1.0 };
        value > threshold * ratio
    })
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

/// What of the present a match holds for.
fn matched(now: &[Packet], rate: Rate, m: &Match) -> Rate {
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

/// The rate of the last second, or of the one before where that is higher (exports of the newest
/// may still be on their way).
fn present(warm: &Warm) -> Rate {
    let last = values(&warm.window.last_slots(10));
    let before =
        values(&warm.window.second((warm.window.head() / SLOTS_PER_SEC).saturating_sub(1)));
    rate_of(last[PACKETS].max(before[PACKETS]), last[BITS].max(before[BITS]), 1.0)
}

/// What routers discarded in the last second.
fn discarded(warm: &Warm) -> Rate {
    let cell = warm.window.last_slots(10);
    rate_of(u64::from(cell.dropped), cell.dropped_bytes.saturating_mul(8), 1.0)
}

/// What is left of the present without the excess, against what is normal.
fn goodput(warm: &Warm, rate: Rate, over: Rate) -> Goodput {
    let cell = warm.window.seconds(warm.window.head() / SLOTS_PER_SEC, 3);
    let [packets, ..] = values(&cell);
    let sampling = cell.variance.checked_div(packets).unwrap_or(1).max(1);
    let normal = Rate { packets_per_sec: warm.mean(PACKETS), bits_per_sec: warm.mean(BITS) };
    #[expect(clippy::cast_precision_loss, reason = "a statistic, not an account")]
    let expected_samples = normal.packets_per_sec / sampling as f64;
    Goodput {
        now: Rate {
            packets_per_sec: rate.packets_per_sec - over.packets_per_sec,
            bits_per_sec: rate.bits_per_sec - over.bits_per_sec,
        },
        normal,
        expected_samples,
    }
}
