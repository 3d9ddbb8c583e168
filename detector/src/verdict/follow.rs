//! From verdict to verdict until the end.

use std::sync::Arc;

use weir_model::{Direction, Goodput, IncidentId, IpNet, Match, Metric, Phase, Rate, Verdict};

use crate::Detector;
use crate::config::Config;
use crate::evidence::rates::{discarded, matched, present, rate_of};
use crate::verdict::incident::{Active, important};
use crate::verdict::judge::{LOOK_AGAIN_MS, LOOK_SOON_MS};
use crate::verdict::look::EVIDENCE_MIN;
use crate::watch::host::Warm;
use crate::watch::metric::{BITS, METRICS, OUTBOUND, PACKETS, values};
use crate::watch::series::Alarm;

/// How often evidence that changed is handed on to be kept, milliseconds.
const EVIDENCE_KEPT_MS: u64 = 10_000;

impl Detector {
    /// Follows open incidents: says what is new, ends what is over.
    pub(crate) fn follow(&mut self, out: &mut Vec<Verdict>) {
        let ids: Vec<IncidentId> = self.incidents.keys().copied().collect();
        for id in ids {
            let Some(mut active) = self.incidents.remove(&id) else { continue };
            if self.is_blind(&active) {
                self.blind(&mut active, out);
                self.incidents.insert(id, active);
                continue;
            }
            if self.over(&mut active) {
                self.by_target.remove(&(active.target, active.way()));
                self.evidence.extend(active.fresh(self.clock, 0));
                let told = self.watermark.secs();
                // What comes late of those seconds is no news to its prefix either.
                let own = self.warm_at(active.target);
                for at in own.into_iter().chain(self.around(active.target)) {
                    if let Some(Some(warm)) = self.warm.get_mut(at as usize) {
                        warm.told = warm.told.max(told);
                    }
                }
                out.extend(active.ended(self.clock));
                continue;
            }
            let again = if active.waits() { LOOK_SOON_MS } else { LOOK_AGAIN_MS };
            if self.clock.since(active.judged) >= again {
                active.judged = self.clock;
                self.judge_again(&mut active, out);
                self.evidence.extend(active.fresh(self.clock, EVIDENCE_KEPT_MS));
            }
            self.incidents.insert(active.id, active);
        }
    }

    /// Whether those who told of an incident are silent.
    fn is_blind(&self, active: &Active) -> bool {
        let silent = |id: &u16| self.liveness.is_silent(*id, active.begun, self.clock);
        active.carriers.iter().any(silent)
    }

    /// Once a second: nothing is known of the attack, so that what was said stays, and no silence counts.
    fn blind(&self, active: &mut Active, out: &mut Vec<Verdict>) {
        active.open_second = active.open_second.max(self.watermark.secs());
        active.quiet = 0;
        active.doubted = None;
        active.remains = None;
        if self.clock.since(active.said) < 1000 {
            return;
        }
        active.said = self.clock;
        if let Some(last) = &mut active.last {
            last.phase = Phase::Blind;
            last.at = self.clock;
            out.push(last.clone());
        }
    }

    fn judge_again(&mut self, active: &mut Active, out: &mut Vec<Verdict>) {
        let Some(at) = self.warm_at(active.target) else { return };
        let (now, way, back) = (self.clock, active.way(), self.back());
        self.suspect(at);
        let Some(warm) = self.warm[at as usize].as_deref_mut() else { return };
        // What is silent for longer than exports take is silent.
        warm.series.window.forward(now.slot().saturating_sub(back * 10 + 2));
        let inventory = Arc::clone(&self.inventory);
        let name = active.own.as_ref().map(|own| own.name.as_str());
        let own = name.and_then(|name| warm.own_of(&inventory, name));
        let limits = own_limits(active, &self.config);
        if !warm.series.loud_now(way, &active.limits, back)
            && !own.is_some_and(|own| own.loud_now(way, &limits, back))
        {
            // Between pulses there is nothing to be learned of the attack.
            self.still(active, out);
            return;
        }
        let again = own.and_then(|own| own.alarm(self.rule, way, true, self.sampling));
        if let Some(again) = again.filter(|again| again.ratio() >= active.alarm.ratio()) {
            active.alarm = Alarm { metric: Metric::Own, ..again };
        }
        if let Some(again) = warm.series.alarm(self.rule, way, true, self.sampling)
            && again.ratio() >= active.alarm.ratio()
        {
            (active.alarm, active.own) = (again, None);
        }
        let told: Vec<Match> = active
            .last
            .iter()
            .flat_map(|v| v.candidates.iter().map(|c| c.packets.clone()))
            .collect();
        let findings = self.look(at, &active.alarm, active.own.as_ref(), &told, active.begun);
        if active.target.prefix_len() < active.target.max_prefix_len() {
            self.suspect_hosts_of(active.target, findings.excess.packets.iter().map(|(p, _)| p));
        }
        // Too little to see by: what was said stays true.
        if findings.excess.packets.len() < EVIDENCE_MIN && active.last.is_some() {
            if findings.left_out > 0.0 {
                // What still comes in is left out: nothing of the attack is seen.
                active.doubted.get_or_insert(now);
            }
            self.still(active, out);
            return;
        }
        let mut verdict = self.verdict(active, findings, Phase::Ongoing);
        if active.gives_way(&verdict) {
            self.reopen(active, &mut verdict, out);
        }
        self.note(active, Some(active.id));
        active.weigh(&verdict);
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

    /// Ends an incident of what was nothing to act upon; the verdict on the attack opens its own.
    fn reopen(&mut self, active: &mut Active, verdict: &mut Verdict, out: &mut Vec<Verdict>) {
        self.evidence.extend(active.fresh(self.clock, 0));
        out.extend(active.ended(self.clock));
        let id = IncidentId::next(self.clock, self.last_id);
        self.last_id = Some(id);
        self.counters.incidents_opened += 1;
        *active = active.follows(id, &self.config, self.clock);
        self.by_target.insert((active.target, active.way()), id);
        (verdict.incident, verdict.phase) = (id, Phase::Opened);
    }

    /// Once a second: what was said stays true, only the rates are new.
    fn still(&self, active: &mut Active, out: &mut Vec<Verdict>) {
        if self.clock.since(active.said) < 1000 {
            return;
        }
        let way = active.way();
        let Some(warm) = self.warm_of(active.target) else { return };
        let Some(last) = &mut active.last else { return };
        active.said = self.clock;
        last.phase = Phase::Ongoing;
        last.at = self.clock;
        last.rate = present(&warm.series, way, self.back());
        let base = match way {
            Direction::Inbound => 0,
            Direction::Outbound => OUTBOUND,
        };
        let own = active.own.as_ref().and_then(|own| warm.own_of(&self.inventory, &own.name));
        let measured = own.unwrap_or(&warm.series);
        let now = present(measured, way, self.back());
        last.excess = Rate {
            packets_per_sec: (now.packets_per_sec - measured.mean(base + PACKETS)).max(0.0),
            bits_per_sec: (now.bits_per_sec - measured.mean(base + BITS)).max(0.0),
        };
        last.discarded = discarded(warm);
        // Also when the attack is gone: a rule may have cut the players with it.
        last.legitimate =
            last.legitimate.map(|_| self.goodput(warm, last.rate, last.excess, f64::INFINITY));
        let now = warm.profile.latest(self.clock.slot(), self.back() * 10);
        for candidate in &mut last.candidates {
            candidate.rate = matched(&now, last.rate, &candidate.packets);
        }
        out.push(last.clone());
    }

    /// How legitimate traffic towards a target fares that is not attacked, or no more; `None` when
    /// its normal is not known.
    pub fn legitimate(&self, target: IpNet) -> Option<Goodput> {
        let warm = self.warm_of(target).filter(|warm| warm.known())?;
        // Of what nobody sees nothing is known.
        if warm.carriers.iter().any(|id| self.liveness.fell_silent(*id, self.clock)) {
            return None;
        }
        let now = self.clock.secs();
        let mut best = [0; 2];
        // By the clock: the window of a target that has fallen silent ends with its last packet.
        for second in now.saturating_sub(self.back() + 1)..=now {
            let values = values(&warm.series.window.second(second));
            best = [best[0].max(values[PACKETS]), best[1].max(values[BITS])];
        }
        let rate = rate_of(best[0], best[1], 1.0);
        let over = Rate {
            packets_per_sec: (rate.packets_per_sec - warm.series.mean(PACKETS)).max(0.0),
            bits_per_sec: (rate.bits_per_sec - warm.series.mean(BITS)).max(0.0),
        };
        Some(self.goodput(warm, rate, over, f64::INFINITY))
    }

    /// Counts quiet seconds up to the watermark; whether they are enough.
    fn over(&self, active: &mut Active) -> bool {
        let watermark = self.watermark.secs();
        if active.open_second == 0 {
            // Taken over after a restart: what was before is not known, and the watermark may still
            // stand far back. Silence counts from now on.
            active.open_second = watermark.max(self.clock.secs());
        }
        active.open_second = active.open_second.max(watermark.saturating_sub(30));
        while active.open_second < watermark {
            let second = active.open_second;
            active.open_second += 1;
            active.quiet = if self.loud(active, second) { 0 } else { active.quiet + 1 };
        }
        let hold = self.config.end_quiet_secs;
        // Where exports lag, the next pulse may be in sight before the silence is known for sure.
        let again = || (watermark..=self.clock.secs()).any(|second| self.loud(active, second));
        active.quiet >= hold && !again()
            || active.doubted.is_some_and(|at| self.clock.since(at) >= hold * 1000)
            || active.has_faded(self.back(), self.clock)
    }

    /// Whether a second is above an incident's end condition.
    fn loud(&self, active: &Active, second: u64) -> bool {
        let of_target =
            |w: &Warm| w.series.loud_then(second, active.way(), &active.limits, active.smooth);
        self.warm_of(active.target).is_some_and(of_target)
            || self.service_loud(active, second)
            || self.own_loud(active, second)
    }

    /// Whether the operator's own metric whose alarm opened an incident is still above its end condition.
    fn own_loud(&self, active: &Active, second: u64) -> bool {
        let Some(own) = &active.own else { return false };
        let warm = self.warm_of(active.target);
        let series = warm.and_then(|warm| warm.own_of(&self.inventory, &own.name));
        let limits = own_limits(active, &self.config);
        series.is_some_and(|series| series.loud_then(second, active.way(), &limits, false))
    }

    /// Whether the service whose alarm opened an incident is still above its end condition.
    fn service_loud(&self, active: &Active, second: u64) -> bool {
        let Some((protocol, port)) = active.alarm.service else { return false };
        let key = (self.table.get(active.target.addr()), protocol, port);
        let limits = own_limits(active, &self.config);
        self.services
            .get(&key)
            .is_some_and(|s| s.series.loud_then(second, active.way(), &limits, false))
    }
}

/// Where an incident of a port or of an operator's own metric ends, for the series of that alone.
fn own_limits(active: &Active, config: &Config) -> [f64; METRICS] {
    let mut limits = [f64::INFINITY; METRICS];
    limits[active.alarm.index] = active.alarm.threshold * config.end_ratio;
    limits
}
