//! From an alarm to an incident.

use std::collections::BTreeSet;

use weir_model::{Direction, IncidentId, IpNet, Metric, OwnMeasure, Phase, Verdict};

use crate::evidence::vectors::spread;
use crate::verdict::confidence::Judged;
use crate::verdict::incident::Active;
use crate::verdict::look::Findings;
use crate::watch::host::Warm;
use crate::watch::own::measure_of;
use crate::watch::series::Alarm;
use crate::{Detector, Near};

/// Targets of which the packets are looked at in one slot, a fraction of a millisecond each: where all
/// networks are near their thresholds at once, as after a start under full load, they take turns.
const LOOKS_MAX: usize = 64;
/// How long what was judged waits for the next look, milliseconds.
pub(crate) const LOOK_AGAIN_MS: u64 = 500;
/// The same while a rule waits for a second look, or for packets enough to say who is answered.
pub(crate) const LOOK_SOON_MS: u64 = 200;
/// Confidence that an alarm needs which no volume threshold backs.
const ODD_CONFIDENCE: u8 = 40;
/// Hosts, counted by their share of a prefix's excess, from which the prefix is the target.
const EFFECTIVE_HOSTS_MIN: f64 = 8.0;
/// The same of the /24s in a wider prefix.
const EFFECTIVE_PARTS_MIN: f64 = 2.5;
/// Share of what a target sends that leaves from ports on which something comes in, from which it replies.
const REPLIES_MIN: f64 = 0.8;
/// How long one waits for answers of a target of which nothing is known yet, milliseconds.
const UNSETTLED_MS: u64 = 5000;
/// Share of a growth that no volume threshold backs which the excess must make up.
const GROWN_MIN: f64 = 0.5;

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
                for own in &mut warm.own {
                    own.series.window.take_oldest();
                }
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
        let own = warm.own_alarm(&self.config, self.rule, way, now.secs(), self.sampling);
        // Of two that are crossed the one that is crossed by more tells what it is.
        let Some(alarm) = more(volume.or(known).or_else(bare), own) else { return false };
        // A window that reaches back into an incident that is over would tell of it again.
        if alarm.first() <= warm.told || self.explained(target, &alarm) {
            return false;
        }
        self.counters.alarms += 1;
        let own = self.own_measure(&alarm);
        let findings = self.look(at, &alarm, own.as_ref(), &[], now);
        if findings.left_out > 0.0 && alarm.value - findings.left_out < alarm.threshold {
            self.counters.alarms_left_out += 1;
            self.unconvinced(at);
            return true;
        }
        let telling = findings.tells_of(&alarm);
        // What a target answers to those who attack it is the same attack.
        let reply = findings.only_refuses
            || way == Direction::Outbound
                && (findings.refusals || findings.replies >= REPLIES_MIN)
                && self.by_target.contains_key(&(target, Direction::Inbound));
        if !telling
            || reply
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
        let unsettled = findings.unsettled;
        let mut active = Active::new(id, target, alarm, &thresholds, &self.config, now);
        active.own = own;
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
        // Of a host just met single looks see too little: they must agree for a while.
        let convincing = match (convincing, unsettled) {
            (true, true) => !self.waits(at),
            (true, false) => true,
            (false, _) => {
                self.settle(at);
                false
            }
        };
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
        warm.suspect(until);
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

    /// The metric of an operator's own that an alarm is of.
    fn own_measure(&self, alarm: &Alarm) -> Option<OwnMeasure> {
        let metric = self.inventory.metrics.list().get(usize::from(alarm.own?))?;
        Some(measure_of(metric, alarm.index))
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

    /// Whether it is too early to tell of a target of which nothing is known yet.
    fn waits(&mut self, at: u32) -> bool {
        let now = self.clock;
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return false };
        let going_on = warm.unsettled.filter(|(_, last)| now.since(*last) < UNSETTLED_MS);
        let first = going_on.map_or(now, |(first, _)| first);
        warm.unsettled = Some((first, now));
        now.since(first) < UNSETTLED_MS
    }

    /// Forgets what waits where a look has found nothing to tell.
    fn settle(&mut self, at: u32) {
        if let Some(warm) = self.warm[at as usize].as_deref_mut() {
            warm.unsettled = None;
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

    /// Seconds by which exports lag: the newest ones are not complete.
    pub(crate) fn back(&self) -> u64 {
        self.clock.secs().saturating_sub(self.watermark.secs()).clamp(1, 90)
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
        (idle.warm != crate::watch::table::NONE).then_some(idle.warm)
    }
}

/// The alarm that is further above its threshold; of equals the second, which is the operator's own.
fn more(first: Option<Alarm>, second: Option<Alarm>) -> Option<Alarm> {
    match (first, second) {
        (Some(first), Some(second)) if first.ratio() > second.ratio() => Some(first),
        (first, second) => second.or(first),
    }
}

/// Whether a prefix is wider than those in which carpets are looked for first.
fn is_wide(target: IpNet) -> bool {
    target.prefix_len() < crate::watch::table::carpet(target.addr()).prefix_len()
}
