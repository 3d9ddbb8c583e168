//! Rules for which routers have room: what is left out, what shares an entry, and who has what of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use weir_bgp::guard::{route, sort_by_route};
use weir_model::{Measure, Millis, Mitigation, MitigationId, Originator, Verdict};

use crate::budget::{BY_HAND, Choice, VALUE_MAX, Wanted, choose, fit_all, swaps_a_minute};
use crate::entry::{Entry, Life};
use crate::{Config, Mitigator, as_wish};

/// How the note of a rule begins for which no router has room.
pub const LEFT_OUT: &str = "left out: ";
/// What stands between that and the note it had.
const NOTE_END: &str = " | ";

const MINUTE_MS: u64 = 60_000;

/// How long an attack has just begun, milliseconds.
const FRESH_MS: u64 = 60_000;

/// Packets a second of which a host loses half of what its players send, beside what its link takes.
const HALF_LOST_PACKETS_PER_SEC: f64 = 100_000.0;

/// Traffic of players that a host has at least: what nobody has met plays, too. Bits a second.
const GOODPUT_MIN: f64 = 1e6;

/// Times that a rule counts for less once its attack seems over.
const OVER: u64 = 10;

/// What was chosen last, and what routers have of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    /// Rules that share an entry, by that entry: as chosen, and as still on the wire.
    shared: BTreeMap<Measure, Vec<Measure>>,
    /// Shared entries that a peer refused.
    unfit: BTreeSet<Measure>,
    /// Who has which rule, shared or not.
    wire: BTreeMap<Measure, BTreeSet<String>>,
    /// What is left out, and since when.
    left_out: BTreeMap<MitigationId, Millis>,
    /// When entries drove out others within the last minute.
    swapped: VecDeque<Millis>,
    looked: Millis,
}

/// What is wanted, as far as there is room.
pub(crate) struct Fitted {
    pub(crate) list: Vec<Mitigation>,
    shared: BTreeMap<Measure, Vec<Measure>>,
    left_out: BTreeSet<MitigationId>,
    swaps: usize,
    room: usize,
}

impl Budget {
    /// Whether another choice may be better although nothing was decided: once a second.
    pub(crate) fn is_due(&self, now: Millis) -> bool {
        !self.left_out.is_empty() && now.since(self.looked) >= 1000
    }

    /// A peer has an entry from now on, or no longer. Yields the rules for which that makes it so.
    pub(crate) fn heard(&mut self, measure: &Measure, peer: &str, has: bool) -> Vec<Measure> {
        if !matches!(measure, Measure::FlowSpec(_)) {
            return vec![measure.clone()];
        }
        if has {
            self.wire.entry(measure.clone()).or_default().insert(peer.to_owned());
        } else if let Some(peers) = self.wire.get_mut(measure) {
            peers.remove(peer);
            if peers.is_empty() {
                self.wire.remove(measure);
            }
        }
        let mut rules = self.shared.get(measure).cloned().unwrap_or_default();
        if !rules.contains(measure) {
            rules.push(measure.clone());
        }
        rules.retain(|rule| self.has(rule, peer) == has);
        rules
    }

    fn has(&self, rule: &Measure, peer: &str) -> bool {
        let on_wire = |m: &Measure| self.wire.get(m).is_some_and(|peers| peers.contains(peer));
        on_wire(rule)
            || self.shared.iter().any(|(entry, rules)| rules.contains(rule) && on_wire(entry))
    }

    /// A peer does not take an entry. Whether it is one that rules share, which are then given alone.
    pub(crate) fn refused(&mut self, measure: &Measure) -> bool {
        let shared = self.shared.get(measure).is_some_and(|rules| !rules.contains(measure));
        if shared {
            self.unfit.insert(measure.clone());
        }
        shared
    }
}

impl Mitigator {
    /// Rules for which no router has room now.
    pub fn left_out(&self) -> usize {
        self.budget.left_out.len()
    }

    /// Fits what is wanted into what routers hold. `None` where there is room for all of it.
    pub(crate) fn fit(&self, list: &[&Mitigation], now: Millis) -> Option<Fitted> {
        let room = self.peers.rules_room()?;
        let is_rule = |m: &&&Mitigation| matches!(m.measure, Measure::FlowSpec(_));
        let rules: Vec<&Mitigation> = list.iter().filter(is_rule).copied().collect();
        if fit_all(rules.len(), room, !self.budget.shared.is_empty()) {
            return None;
        }
        let wanted: Vec<Wanted<'_>> = rules.iter().map(|m| self.weigh(m, now)).collect();
        let in_force: BTreeSet<Measure> = if self.desired.generation == 0 {
            // After a restart: what was not left out before it.
            let held = rules.iter().filter(|m| !m.note.starts_with(LEFT_OUT));
            held.map(|m| m.measure.clone()).collect()
        } else {
            let held = self.desired.mitigations.iter().map(|m| &m.measure);
            held.filter(|m| matches!(m, Measure::FlowSpec(_))).cloned().collect()
        };
        let recent = self.budget.swapped.iter().filter(|at| now.since(**at) < MINUTE_MS).count();
        let allowed = |entry: &Measure| {
            !self.budget.unfit.contains(entry)
                && self.guard.judge_measure(entry).is_ok()
                && !self.memory.is_harmful(&route(entry), now)
                && self.peers.carry(entry).is_ok()
        };
        let swaps = swaps_a_minute(room).saturating_sub(recent);
        let choice = choose(&wanted, room, &in_force, swaps, &allowed);
        Some(fitted(list, &rules, choice, room))
    }

    fn weigh<'a>(&self, m: &'a Mitigation, now: Millis) -> Wanted<'a> {
        let measure = &m.measure;
        let entry = match m.originator {
            Originator::Incident(id) => self.entries.get(&id),
            Originator::Operator(_) => None,
        };
        let Some(entry) = entry else {
            return Wanted { measure, value: BY_HAND, fresh: true, joins: false };
        };
        let value = self.saves(entry, m).clamp(1, VALUE_MAX);
        let fresh = now.since(entry.incident.opened) < FRESH_MS;
        Wanted { measure, value, fresh, joins: true }
    }

    /// Bits a second of players' traffic that a rule saves.
    fn saves(&self, entry: &Entry, m: &Mitigation) -> u64 {
        let verdict = &entry.incident.verdict;
        #[expect(clippy::cast_precision_loss, reason = "worth is clamped to 1e15")]
        let chosen = m.worth as f64;
        let is_out = self.budget.left_out.contains_key(&m.id);
        let cut = match entry.measured.get(&m.id) {
            // What is not cut shows what there is to cut.
            Some(planned) if is_out => planned.coverage * verdict.excess.bits_per_sec,
            _ => chosen,
        };
        let value = goodput_saved(verdict, cut, is_out, &self.config);
        if entry.life == Life::Alive { value } else { value / OVER }
    }

    /// Whether all rules of an incident have been left out for so long that nothing is to be expected of them.
    pub(crate) fn has_no_room(&self, entry: &Entry, now: Millis) -> bool {
        let patience = self.config.feedback_secs.saturating_mul(1000);
        let is_out = |m: &Mitigation| {
            self.budget.left_out.get(&m.id).is_some_and(|since| now.since(*since) >= patience)
        };
        !self.budget.left_out.is_empty() && entry.has_live() && entry.live().all(is_out)
    }

    /// Keeps what was chosen, and says of each rule when it is left out and when no longer.
    pub(crate) fn keep_choice(&mut self, fitted: Option<Fitted>, now: Millis) {
        let budget = &mut self.budget;
        budget.looked = now;
        let (shared, out, room) = match fitted {
            None => (BTreeMap::new(), BTreeSet::new(), 0),
            Some(Fitted { shared, left_out, swaps, room, .. }) => {
                budget.swapped.extend(std::iter::repeat_n(now, swaps));
                (shared, left_out, room)
            }
        };
        budget.swapped.retain(|at| now.since(*at) < MINUTE_MS);
        let wire = &budget.wire;
        budget.shared.retain(|entry, _| wire.contains_key(entry));
        budget.shared.extend(shared);
        let started = self.desired.generation > 0;
        if started && budget.left_out.keys().eq(out.iter()) {
            return;
        }
        let before = std::mem::take(&mut budget.left_out);
        let since = |id: &MitigationId| (*id, before.get(id).copied().unwrap_or(now));
        budget.left_out = out.iter().map(since).collect();
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.values_mut() {
            let moved = |m: &&Mitigation| out.contains(&m.id) != m.note.starts_with(LEFT_OUT);
            let moved: Vec<MitigationId> = entry.live().filter(moved).map(|m| m.id).collect();
            for id in moved {
                self.tell_room(entry, id, out.contains(&id).then_some(room), now);
            }
        }
        self.entries = entries;
    }

    fn tell_room(&mut self, entry: &mut Entry, id: MitigationId, out: Option<usize>, now: Millis) {
        let saves = entry.live().find(|m| m.id == id).map_or(0, |m| self.saves(entry, m));
        let incident = Arc::make_mut(&mut entry.incident);
        let Some(m) = incident.mitigations.iter_mut().find(|m| m.id == id) else { return };
        own_note(m);
        let (action, text) = match out {
            Some(room) => {
                let text = format!(
                    "{LEFT_OUT}no router holds more than {room} rules, and others save more than \
                     the {:.1} Mbit/s of players' traffic of this one",
                    rough_mbps(saves)
                );
                m.note = format!("{text}{NOTE_END}{}", m.note);
                ("defer", text)
            }
            None => ("announce", "there is room for it now".to_owned()),
        };
        let detail = format!("{}: {text}", m.measure);
        self.ledger.record(&mut entry.incident, action, detail, now);
    }
}

/// Takes from a note that there was no room.
fn own_note(m: &mut Mitigation) {
    let rest = m.note.strip_prefix(LEFT_OUT).and_then(|note| note.split_once(NOTE_END));
    if let Some((_, note)) = rest {
        m.note = note.to_owned();
    }
}

/// What leaves for the guard: the entries in the place of the rules they stand for.
fn fitted(list: &[&Mitigation], rules: &[&Mitigation], choice: Choice, room: usize) -> Fitted {
    let left_out = choice.left_out.iter().map(|i| rules[*i].id).collect();
    let others = list.iter().filter(|m| !matches!(m.measure, Measure::FlowSpec(_)));
    let mut fitting: Vec<Mitigation> = others.map(|m| as_wish(m)).collect();
    let mut shared = BTreeMap::new();
    for (measure, places) in choice.entries {
        let parts: Vec<&Mitigation> = places.iter().map(|i| rules[*i]).collect();
        // The oldest speaks for all, unless one of them is the entry.
        let own = parts.iter().find(|m| m.measure == measure);
        let Some(speaks) = own.or_else(|| parts.iter().min_by_key(|m| m.id)) else { continue };
        let mut entry = as_wish(speaks);
        if parts.len() > 1 {
            entry.note = format!("stands for {} rules: {}", parts.len(), speaks.note);
            entry.worth = parts.iter().map(|m| m.worth).sum();
            entry.expires = parts.iter().map(|m| m.expires).max().unwrap_or(entry.expires);
            let of_it = parts.iter().map(|m| m.measure.clone()).collect();
            shared.insert(measure.clone(), of_it);
        }
        entry.measure = measure;
        fitting.push(entry);
    }
    let list = sort_by_route(fitting, |m| &m.measure);
    Fitted { list, shared, left_out, swaps: choice.swaps, room }
}

/// Bits a second of what players send that is lost without a rule that cuts so much, and not with it.
///
/// A host whose link is filled to half by an attack loses a third of it, and more and more with each further
/// packet: what is lost is excess / (excess + limit), of bits or of packets, whichever is more. A rule has the
/// part of it that it cuts.
fn goodput_saved(verdict: &Verdict, cut: f64, arrives: bool, config: &Config) -> u64 {
    let known = verdict.legitimate.map(|goodput| goodput.normal.bits_per_sec);
    let now = verdict.rate.bits_per_sec - verdict.excess.bits_per_sec;
    let goodput = known.unwrap_or(now).max(GOODPUT_MIN);
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    let host = config.host_limit_bits_per_sec as f64;
    // What is cut is no longer in the excess.
    let bits = verdict.excess.bits_per_sec.max(cut).max(1.0);
    let seen = if arrives { verdict.excess } else { verdict.peak };
    let packets = seen.packets_per_sec.max(0.0);
    let lost = (bits / (bits + host)).max(packets / (packets + HALF_LOST_PACKETS_PER_SEC));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0-1e12; a NaN becomes 0"
    )]
    let saved = (goodput * lost * (cut / bits)).clamp(0.0, 1e12) as u64;
    saved
}

fn rough_mbps(bits_per_sec: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 1e13")]
    let bits = bits_per_sec as f64;
    bits / 1e6
}
