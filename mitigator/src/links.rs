//! Uplinks: what they carry, whether they are full, and what has fallen silent.
//!
//! A pure state machine, looked at once a second with what exporters have told. What is wrong is no attack: it
//! ends no incident and begins none. But a full uplink is what the ladder's harder steps are for.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use weir_model::{
    Absence, AllowLists, Condition, ConditionKind, Conditions, Direction, ExporterStatus,
    GroupTotal, LinkCount, Millis, Threshold, UplinkStatus, Verdict,
};

/// Uplinks at most.
pub const UPLINKS_MAX: usize = 64;

/// Interfaces of one uplink at most.
pub const INTERFACES_MAX: usize = 32;

/// Seconds over which a rate is told.
const WINDOW_SECS: usize = 10;

/// How long an uplink is full before people are told, seconds.
const FULL_SECS: u64 = 10;

/// How long it carries nearly nothing before that, seconds.
const VANISHED_SECS: u64 = 60;

/// How long something must be well again before it is over, seconds.
const WELL_SECS: u64 = 60;

/// Of what is normal, the share below which traffic counts as vanished where no least is set.
const VANISHED_SHARE: f64 = 0.05;

/// How long traffic is watched before its level counts as known, seconds.
const LEARNED_SECS: u64 = 600;

/// Of a link that normally carries less, nothing is learned, bits a second.
const LEARNED_MIN: f64 = 1e6;

/// Time in which the learned level follows, seconds.
const FOLLOWS_SECS: f64 = 3600.0;

/// Times the learned level from which an uplink's total is too much, where nothing else is said.
const EXCEEDED_TIMES: f64 = 3.0;

/// How long a total is above its threshold before people are told, seconds.
const EXCEEDED_SECS: u64 = 10;

/// After how long what counts as vanished is learned as normal, seconds.
const RELEARNED_SECS: u64 = 86_400;

/// Share of the capacity that an attack must have to be what fills the link.
const ATTACK_SHARE: f64 = 0.1;

/// How long after a start nothing is said to be well, milliseconds: what was wrong may still be.
const SETTLED_MS: u64 = 300_000;

/// An exporter that was silent for so long says nothing of its links, milliseconds.
const TELLS_MS: u64 = 20_000;

/// A link out of the network: what it can carry, and when people are told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// Its name.
    pub name: String,
    /// Name of the exporter whose interfaces it is made of, or its address where it has no name.
    pub exporter: String,
    /// Indexes of its interfaces there (SNMP ifIndex), 1-32.
    pub interfaces: Vec<u32>,
    /// What it carries at most in each direction, bits a second.
    pub capacity_bits_per_sec: u64,
    /// Percent of the capacity from which it counts as full and people are told, 1-100.
    #[serde(default = "alarm_percent")]
    pub alarm_percent: f64,
    /// Percent of the capacity above which its other users are in danger, 1-100: an attack that fills it
    /// beyond that, and that rules do not keep off it, may be black-holed where the ladder allows it.
    #[serde(default = "limit_percent")]
    pub limit_percent: f64,
    /// Incoming traffic below which it counts as vanished, bits a second; 0: never. If not set, a twentieth of
    /// what came in over the last hours, from 1 Mbit/s on.
    #[serde(default)]
    pub least_bits_per_sec: Option<u64>,
    /// From where on people are told of all incoming traffic, layer-3 bits a second over ten seconds: a commit, or
    /// `"auto"`, three times what normally comes in. If not set, of `alarm_percent` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_bits_per_sec: Option<Threshold>,
    /// The same of outgoing traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_bits_per_sec: Option<Threshold>,
}

const fn alarm_percent() -> f64 {
    80.0
}

const fn limit_percent() -> f64 {
    95.0
}

impl UplinkConfig {
    /// Checks what can be told without the others.
    ///
    /// # Errors
    /// In words, beginning with the key.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err("name is empty or longer than 64 octets".to_owned());
        }
        if !(1..=INTERFACES_MAX).contains(&self.interfaces.len()) || self.interfaces.contains(&0) {
            return Err(format!("interfaces: 1 to {INTERFACES_MAX} indexes, none of them 0"));
        }
        if self.capacity_bits_per_sec == 0 {
            return Err("capacity_bits_per_sec is 0".to_owned());
        }
        for (name, percent) in
            [("alarm_percent", self.alarm_percent), ("limit_percent", self.limit_percent)]
        {
            if !(1.0..=100.0).contains(&percent) {
                return Err(format!("{name} = {percent} is outside 1-100"));
            }
        }
        Ok(())
    }

    fn bits(&self, percent: f64) -> f64 {
        float(self.capacity_bits_per_sec) * percent / 100.0
    }
}

/// What is seen of one uplink.
#[derive(Clone, Debug, Default)]
struct Uplink {
    /// Counts of its interfaces when last looked at, by exporter.
    before: BTreeMap<(u16, u32), LinkCount>,
    /// Octets in and out, a second each, the newest last.
    seconds: VecDeque<[f64; 2]>,
    /// Whether the exporter tells of it.
    known: bool,
    /// What normally comes in and goes out, bits a second, and how long that was watched.
    normal: [f64; 2],
    watched: u64,
    /// For how long its total has been above a threshold, seconds.
    exceeded_secs: u64,
    /// For how long next to nothing has come in, seconds.
    vanished_secs: u64,
}

impl Uplink {
    /// What passed in the last seconds, a second, in bits.
    fn rate(&self, secs: usize) -> [f64; 2] {
        let last = self.seconds.iter().rev().take(secs);
        let count = last.len().max(1);
        let sum = last.fold([0.0, 0.0], |sum, second| [sum[0] + second[0], sum[1] + second[1]]);
        sum.map(|octets| octets * 8.0 / float(count as u64))
    }

    fn take(
        &mut self,
        config: &UplinkConfig,
        exporters: &[ExporterStatus],
        secs: u64,
        now: Millis,
    ) {
        let mut octets = [0.0, 0.0];
        self.known = false;
        for exporter in exporters.iter().filter(|e| e.name == config.exporter) {
            self.known |= now.since(exporter.last_seen) < TELLS_MS;
            for count in exporter.links.iter().filter(|c| config.interfaces.contains(&c.index)) {
                let before = self.before.insert((exporter.id.0, count.index), *count);
                // Counted before anybody looked; or anew, after it was forgotten.
                let Some(before) = before else { continue };
                octets[0] += float(count.in_bytes.saturating_sub(before.in_bytes));
                octets[1] += float(count.out_bytes.saturating_sub(before.out_bytes));
            }
        }
        let share = octets.map(|octets| octets / float(secs.max(1)));
        for _ in 0..secs.min(WINDOW_SECS as u64) {
            if self.seconds.len() >= WINDOW_SECS {
                self.seconds.pop_front();
            }
            self.seconds.push_back(share);
        }
    }

    /// What counts as vanished, if that is known.
    fn least(&self, config: &UplinkConfig) -> Option<f64> {
        match config.least_bits_per_sec {
            Some(0) => None,
            Some(least) => Some(float(least)),
            None => (self.watched >= LEARNED_SECS && self.normal[0] >= LEARNED_MIN)
                .then_some(self.normal[0] * VANISHED_SHARE),
        }
    }

    /// From where on a direction's total is too much, and whether that is learned; none where nobody is to be told,
    /// or it is not known yet.
    fn most(&self, config: &UplinkConfig, way: usize) -> Option<(f64, bool)> {
        let said = [config.inbound_bits_per_sec, config.outbound_bits_per_sec][way]?;
        let known = self.watched >= LEARNED_SECS;
        let learned = |times: Option<f64>| {
            let level = self.normal[way].max(LEARNED_MIN);
            known.then(|| level * times.unwrap_or(EXCEEDED_TIMES))
        };
        match said {
            Threshold::Off => None,
            Threshold::Fixed(value) => Some((value, false)),
            Threshold::Auto => Some((learned(None)?, true)),
            Threshold::Within(bounds) => {
                let (floor, ceiling) =
                    (bounds.floor.unwrap_or(0.0), bounds.ceiling.unwrap_or(f64::INFINITY));
                Some((learned(bounds.multiplier)?.max(floor).min(ceiling), true))
            }
        }
    }

    /// Whether a direction is above what is too much, and in words by how much: of two the one that is above its
    /// threshold by more. Nothing while none is known.
    fn exceeded(&self, config: &UplinkConfig) -> (Option<bool>, String) {
        let rate = self.rate(WINDOW_SECS);
        let both = [Direction::Inbound, Direction::Outbound].into_iter().zip(rate).enumerate();
        let known = both.filter_map(|(way, (direction, rate))| {
            let (most, learned) = self.most(config, way)?;
            Some((rate / most, direction, rate, most, learned, self.normal[way]))
        });
        let Some((ratio, direction, rate, most, learned, normal)) =
            known.max_by(|a, b| a.0.total_cmp(&b.0))
        else {
            return (None, String::new());
        };
        let way = if direction == Direction::Inbound { "inbound" } else { "outbound" };
        let from = if learned {
            format!("learned, normally {}", bits(normal))
        } else {
            "as set".to_owned()
        };
        let is_above = if ratio >= 1.0 { Some(true) } else { (ratio < 0.95).then_some(false) };
        let text = format!(
            "{way} {} in total, threshold {} ({from}); an alert only: no rule follows from an uplink's total",
            bits(rate),
            bits(most)
        );
        (is_above, text)
    }

    /// What an attack adds is not normal, nor is a failure; but what is so for a day is. `attacks` is what open
    /// incidents explain of what comes in, bits a second.
    fn learn(&mut self, secs: u64, vanished: bool, exceeded: bool, attacks: f64) {
        let last =
            |secs_before: u64, holds| if holds { secs_before.saturating_add(secs) } else { 0 };
        self.vanished_secs = last(self.vanished_secs, vanished);
        self.exceeded_secs = last(self.exceeded_secs, exceeded);
        if vanished && self.vanished_secs < RELEARNED_SECS
            || exceeded && self.exceeded_secs < RELEARNED_SECS
        {
            return;
        }
        let known = self.watched >= LEARNED_SECS;
        self.watched = self.watched.saturating_add(secs);
        let share = float(secs) / FOLLOWS_SECS.min(float(self.watched.max(1)));
        let [inbound, outbound] = self.rate(1);
        for (normal, now) in self.normal.iter_mut().zip([(inbound - attacks).max(0.0), outbound]) {
            let now = if known { now.min((2.0 * *normal).max(LEARNED_MIN)) } else { now };
            *normal += (now - *normal) * share.min(1.0);
        }
    }
}

/// Something that may be wrong: since when it is, or since when it is well again.
#[derive(Clone, Debug)]
struct Watched {
    /// When it became so, without a pause since.
    bad_since: Option<Millis>,
    well_since: Option<Millis>,
    condition: Option<Condition>,
}

/// One thing that is looked at.
struct Seen {
    kind: ConditionKind,
    subject: String,
    group: Option<String>,
    /// Whether it is wrong; none while nothing can be said, or between two limits: it stays as it was.
    is_bad: Option<bool>,
    /// How long it is wrong before people are told, seconds; of 0, it is over as soon as it is well.
    patience: u64,
    text: String,
}

/// What others tell of the present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// Every exporter that is listed.
    pub exporters: &'a [ExporterStatus],
    /// Totals of groups.
    pub totals: &'a [GroupTotal],
    /// Traffic of groups and services that may have vanished.
    pub absences: &'a [Absence],
}

/// Uplinks and exporters, watched.
#[derive(Clone, Debug, Default)]
pub struct Links {
    config: Vec<UplinkConfig>,
    silent_ms: u64,
    uplinks: Vec<Uplink>,
    watched: BTreeMap<(ConditionKind, String), Watched>,
    /// Of what nothing can be said now.
    unknown: Vec<(ConditionKind, String)>,
    started: Option<Millis>,
    looked: Option<Millis>,
}

impl Links {
    /// Watches these; what is known of one that stays is kept.
    pub fn set(&mut self, config: &[UplinkConfig], silent_secs: u64) {
        // Moved to other interfaces it is another one.
        let place = |c: &UplinkConfig| (c.name.clone(), c.exporter.clone(), c.interfaces.clone());
        let known: BTreeMap<_, Uplink> =
            self.config.iter().map(place).zip(self.uplinks.drain(..)).collect();
        self.uplinks =
            config.iter().map(|c| known.get(&place(c)).cloned().unwrap_or_default()).collect();
        self.config = config.to_vec();
        self.silent_ms = silent_secs.saturating_mul(1000);
    }

    /// Looks once a second; what has begun, and what is over. `attacks` is what open incidents explain of what comes
    /// in, bits a second, by exporter.
    pub fn look(
        &mut self,
        told: Told<'_>,
        allow: &AllowLists,
        attacks: &BTreeMap<String, f64>,
        now: Millis,
    ) -> Vec<(Condition, bool)> {
        let started = *self.started.get_or_insert(now);
        let looked = self.looked.replace(now).unwrap_or(now);
        let secs = now.secs().saturating_sub(looked.secs());
        if secs == 0 && started != now {
            self.looked = Some(looked);
            return Vec::new();
        }
        let mut seen = self.silence(told.exporters, started, now);
        seen.extend(self.of_uplinks(told.exporters, secs, attacks, now));
        seen.extend(others(told, allow));
        let unknown = seen.iter().filter(|seen| seen.is_bad.is_none());
        self.unknown = unknown.map(|seen| (seen.kind, seen.subject.clone())).collect();
        self.judge(seen, now)
    }

    /// Exporters that send nothing.
    fn silence(&self, exporters: &[ExporterStatus], started: Millis, now: Millis) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for exporter in exporters {
            *names.entry(&exporter.name).or_default() += 1;
        }
        for exporter in exporters.iter().filter(|_| self.silent_ms > 0) {
            let last = exporter.last_seen.max(started);
            // Records of long flows come as late as the cache holds them.
            let patience = self.silent_ms.max(3 * exporter.active_timeout_ms.min(600_000));
            let silent = now.since(last) >= patience;
            // Not heard since weir began, and not for long enough to say so.
            let silent = (silent || exporter.last_seen > started).then_some(silent);
            let text = match exporter.last_seen {
                Millis(0) => "nothing was ever received from it".to_owned(),
                at => format!("nothing was received from it since {at}"),
            };
            // Of those listed by a prefix, several may share a name.
            let name = match names.get(exporter.name.as_str()) {
                Some(2..) => format!("{} ({})", exporter.name, exporter.address),
                _ => exporter.name.clone(),
            };
            seen.push(Seen {
                kind: ConditionKind::ExporterSilent,
                subject: name,
                group: None,
                is_bad: silent,
                patience: 0,
                text,
            });
        }
        seen
    }

    /// Uplinks that are full, carry next to nothing, or more than is meant.
    fn of_uplinks(
        &mut self,
        exporters: &[ExporterStatus],
        secs: u64,
        attacks: &BTreeMap<String, f64>,
        now: Millis,
    ) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut add = |kind, subject: &str, is_bad, patience, text| {
            let subject = subject.to_owned();
            seen.push(Seen { kind, subject, group: None, is_bad, patience, text });
        };
        for (config, uplink) in self.config.iter().zip(&mut self.uplinks) {
            uplink.take(config, exporters, secs, now);
            let [inbound, outbound] = uplink.rate(WINDOW_SECS);
            let fuller = inbound.max(outbound);
            let alarm = config.bits(config.alarm_percent);
            let is_known = uplink.known.then_some(());
            // Between the two limits it stays as it was.
            let full = is_known.and_then(|()| {
                if fuller >= alarm { Some(true) } else { (fuller < alarm * 0.95).then_some(false) }
            });
            let way = if inbound >= outbound { "inbound" } else { "outbound" };
            let capacity = bits(float(config.capacity_bits_per_sec));
            let percent = fuller / float(config.capacity_bits_per_sec) * 100.0;
            let text = format!("{way} {} of {capacity} ({percent:.0} %)", bits(fuller));
            add(ConditionKind::UplinkFull, &config.name, full, FULL_SECS, text);
            let least = uplink.least(config);
            let vanished = is_known.and_then(|()| match least {
                // Never, or not known yet.
                None => (config.least_bits_per_sec == Some(0)).then_some(false),
                Some(least) if inbound < least => Some(true),
                Some(least) => (inbound >= least * 2.0).then_some(false),
            });
            let normal = match config.least_bits_per_sec {
                Some(_) => "least_bits_per_sec",
                None => "5 % of normal",
            };
            let text = format!(
                "inbound {}, below {normal} ({})",
                bits(inbound),
                bits(least.unwrap_or(0.0))
            );
            add(ConditionKind::TrafficVanished, &config.name, vanished, VANISHED_SECS, text);
            let (exceeded, text) = uplink.exceeded(config);
            let none_set =
                config.inbound_bits_per_sec.is_none() && config.outbound_bits_per_sec.is_none();
            if !none_set {
                let exceeded = is_known.and(exceeded);
                let subject = format!("uplink {}", config.name);
                add(ConditionKind::TotalExceeded, &subject, exceeded, EXCEEDED_SECS, text);
            }
            if is_known.is_some() {
                let attacks = attacks.get(&config.exporter).copied().unwrap_or(0.0);
                uplink.learn(secs, vanished == Some(true), exceeded == Some(true), attacks);
            }
        }
        seen
    }

    fn judge(&mut self, seen: Vec<Seen>, now: Millis) -> Vec<(Condition, bool)> {
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.watched);
        for Seen { kind, subject, group, is_bad, patience, text } in seen {
            let key = (kind, subject);
            let nothing = Watched { bad_since: None, well_since: None, condition: None };
            let mut watched = before.remove(&key).unwrap_or(nothing);
            match is_bad {
                Some(true) => {
                    watched.well_since = None;
                    let since = *watched.bad_since.get_or_insert(now);
                    if watched.condition.is_none() && now.since(since) >= patience * 1000 {
                        let subject = key.1.clone();
                        let condition = Condition { kind, subject, since, text, group };
                        changes.push((condition.clone(), true));
                        watched.condition = Some(condition);
                    }
                }
                Some(false) => {
                    watched.bad_since = None;
                    let since = *watched.well_since.get_or_insert(now);
                    // An exporter that is back is back; a rate may only have been back for a moment.
                    let wait = if patience == 0 { 0 } else { WELL_SECS * 1000 };
                    if now.since(since) >= wait
                        && let Some(condition) = watched.condition.take()
                    {
                        changes.push((condition, false));
                    }
                }
                // Not known: it stays as it is, and no time counts.
                None => (watched.bad_since, watched.well_since) = (None, None),
            }
            if watched.bad_since.is_some()
                || watched.condition.is_some()
                || watched.well_since.is_some()
            {
                self.watched.insert(key, watched);
            }
        }
        // What nobody watches any more.
        changes.extend(before.into_values().filter_map(|w| w.condition).map(|c| (c, false)));
        changes
    }

    /// What is wrong now.
    pub fn conditions(&self, now: Millis) -> Conditions {
        Conditions {
            now: self.watched.values().filter_map(|w| w.condition.clone()).collect(),
            settled: self.started.is_some_and(|started| now.since(started) >= SETTLED_MS),
            unknown: self.unknown.clone(),
        }
    }

    /// What uplinks carry.
    pub fn uplinks(&self) -> Vec<UplinkStatus> {
        let shown = |(config, uplink): (&UplinkConfig, &Uplink)| {
            let [inbound_bits_per_sec, outbound_bits_per_sec] = uplink.rate(WINDOW_SECS);
            UplinkStatus {
                name: config.name.clone(),
                exporter: config.exporter.clone(),
                capacity_bits_per_sec: config.capacity_bits_per_sec,
                inbound_bits_per_sec,
                outbound_bits_per_sec,
                known: uplink.known,
            }
        };
        self.config.iter().zip(&self.uplinks).map(shown).collect()
    }

    /// The uplink that is beyond its limit although `relief` bits a second of the attack are taken off it: of
    /// those by which the attack may come in.
    pub(crate) fn in_danger(&self, verdict: &Verdict, relief: f64) -> Option<&str> {
        let by = |config: &UplinkConfig| verdict.reason.exporters.contains(&config.exporter);
        self.config.iter().zip(&self.uplinks).find_map(|(config, uplink)| {
            let share = verdict.rate.bits_per_sec >= config.bits(ATTACK_SHARE * 100.0);
            let [inbound, _] = uplink.rate(WINDOW_SECS / 2);
            let over = inbound - relief > config.bits(config.limit_percent);
            (by(config) && uplink.known && share && over).then_some(config.name.as_str())
        })
    }
}

/// What others watch: totals of groups, traffic that vanishes, allow lists.
fn others(told: Told<'_>, allow: &AllowLists) -> Vec<Seen> {
    let totals = told.totals.iter().map(|total| Seen {
        kind: ConditionKind::TotalExceeded,
        subject: format!("group {}", total.group),
        group: Some(total.group.clone()),
        is_bad: total.above,
        patience: EXCEEDED_SECS,
        text: total.text.clone(),
    });
    let absences = told.absences.iter().map(|absence| Seen {
        kind: ConditionKind::TrafficVanished,
        subject: absence.subject.clone(),
        group: Some(absence.group.clone()),
        is_bad: absence.vanished,
        patience: VANISHED_SECS,
        text: absence.text.clone(),
    });
    let waits = allow.lists().iter().filter_map(|list| {
        list.waits.map(|since| Seen {
            kind: ConditionKind::AllowListWaits,
            subject: format!("allow list {}", list.name),
            group: None,
            is_bad: Some(true),
            patience: 0,
            text: format!(
                "changed by more than a fifth at {since}, and is as before until somebody decides: weir allow show {}",
                list.name
            ),
        })
    });
    totals.chain(absences).chain(waits).collect()
}

#[expect(clippy::cast_precision_loss, reason = "rates, not accounts")]
const fn float(value: u64) -> f64 {
    value as f64
}

fn bits(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1} Gbit/s", v / 1e9),
        v if v >= 1e6 => format!("{:.0} Mbit/s", v / 1e6),
        v => format!("{:.0} kbit/s", v / 1e3),
    }
}

#[cfg(test)]
mod tests;
