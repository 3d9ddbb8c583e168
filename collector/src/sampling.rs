//! Which sampling rate a record was taken at.
//!
//! The order, the most trusted first: the operator's word, the sampler or selector that the record
//! names, an option scoped to its interface or its template, the record itself if it says more than 1,
//! an option of its observation domain, what the exporter's other domains agree on, the configured
//! default. When nobody says, the record counts as it is and the
//! exporter is flagged: a guess would be as wrong as a silent 1.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use weir_model::{Millis, SamplingSource};

/// A rate with where it comes from.
pub(crate) type Resolved = (u32, SamplingSource);

/// Most rates remembered for one exporter.
const MAX_RATES: usize = 4096;
/// A new word on a rate that differs from what is known by more than so many times is believed once it has
/// been said again ...
pub(crate) const JUMP: u32 = 16;
/// ... so much later, and nothing else in between. Milliseconds.
const CONFIRM_MS: u64 = 60_000;
/// Largest rate that is believed at its first word: no router takes fewer without being asked to.
pub(crate) const FIRST_MAX: u32 = 65_536;
/// So long after its first word an exporter has said what it has to say: routers tell their samplers one
/// after the other. Milliseconds.
const SETTLED_MS: u64 = 600_000;
/// Words of one domain that wait to be said again, of scopes that it has not spoken of before.
const MAX_DOUBTS: usize = 64;
/// Largest rate believed. RouterOS v6 sends 1 as 16777216: such values are turned round.
pub(crate) const MAX_RATE: u32 = 10_000_000;

/// What an options record or a data record says about sampling (RFC 5477 §8, RFC 3954 §8).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SamplingFields {
    /// samplingInterval (34) or samplerRandomInterval (50).
    pub(crate) interval: Option<u64>,
    /// selectorAlgorithm (304), or samplerMode (49) which does not tell them apart.
    pub(crate) algorithm: Option<u64>,
    /// samplingPacketInterval (305).
    pub(crate) packet_interval: Option<u64>,
    /// samplingPacketSpace (306).
    pub(crate) packet_space: Option<u64>,
    /// samplingSize (309).
    pub(crate) size: Option<u64>,
    /// samplingPopulation (310).
    pub(crate) population: Option<u64>,
    /// samplingProbability (311), from 0 to 1.
    pub(crate) probability: Option<f64>,
}

impl SamplingFields {
    /// One in how many packets, if these fields say so.
    pub(crate) fn rate(&self) -> Option<u32> {
        let interval = self.interval.map(plausible_order).filter(|n| *n > 0);
        let n_of_n = match (self.size, self.population) {
            (Some(size), Some(population)) if size > 0 && population >= size => {
                Some(div_round(population, size))
            }
            _ => None,
        };
        let count_based = match (self.packet_interval, self.packet_space) {
            (Some(take), Some(skip)) if take > 0 => {
                Some(div_round(take.saturating_add(skip), take))
            }
            _ => None,
        };
        let probability = self.probability.and_then(|p| {
            (p > 0.0 && p <= 1.0).then(|| (1.0 / p).round()).map(|n| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "saturates; limited by MAX_RATE below"
                )]
                let n = n as u64;
                n
            })
        });
        // 305 without a space is an interval with exporters that mean "one in 305"; a 1 there says
        // nothing, since Cisco XR sends it beside the true 309/310 and also without them.
        let lone = match self.packet_interval {
            Some(n) if self.packet_space.is_none() && n > 1 => Some(n),
            _ => None,
        };
        let by_algorithm = match self.algorithm {
            Some(1) => count_based,
            Some(3) => n_of_n,
            Some(4..=7) => probability,
            _ => None,
        };
        let rate = by_algorithm
            .or(n_of_n)
            .or(count_based)
            .or(interval)
            .or(probability)
            .or(lone)
            .filter(|n| (1..=u64::from(MAX_RATE)).contains(n))?;
        u32::try_from(rate).ok()
    }
}

/// Turns an interval round that is absurd as it stands and sensible with its octets reversed.
fn plausible_order(n: u64) -> u64 {
    match u32::try_from(n) {
        Ok(n32) if n32 > MAX_RATE && n32.swap_bytes() <= MAX_RATE => u64::from(n32.swap_bytes()),
        _ => n,
    }
}

fn div_round(a: u64, b: u64) -> u64 {
    a.saturating_add(b / 2) / b.max(1)
}

/// Where an option applies, within the domain it speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// samplerId (48) or selectorId (302).
    pub(crate) sampler: Option<u64>,
    /// templateId (145).
    pub(crate) template: Option<u16>,
    /// An interface's index.
    pub(crate) interface: Option<u32>,
}

/// What a record says that bears on its rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Of {
    pub(crate) template: u16,
    pub(crate) sampler: Option<u64>,
    pub(crate) interface: u32,
    /// The rate that it states itself.
    pub(crate) in_record: Option<u32>,
}

/// What one observation domain has said about its sampling. Numbers of samplers are unique within the
/// domain (RFC 5477 §8.2.1), and an option holds for exactly what it is scoped to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) domain: Option<u32>,
    pub(crate) samplers: FxHashMap<u64, u32>,
    pub(crate) templates: FxHashMap<u16, u32>,
    pub(crate) interfaces: FxHashMap<u32, u32>,
    /// Words that are too far from what is known to be believed at once, and since when they stand.
    doubts: FxHashMap<Scope, (u32, Millis)>,
    /// Of a rate that has changed within the last minute: what stood before, and since when it changes.
    anchors: FxHashMap<Scope, (u32, Millis)>,
    /// What was known before a word that had been doubted was believed: a return to it needs no proof.
    former: FxHashMap<Scope, u32>,
}

/// How many say each rate: what they agree on is told without asking each.
#[derive(Clone, Debug, Default)]
struct Votes(BTreeMap<u32, u32>);

impl Votes {
    fn change(&mut self, before: Option<u32>, now: Option<u32>) {
        if let Some(rate) = before
            && let Some(votes) = self.0.get_mut(&rate)
        {
            *votes -= 1;
            if *votes == 0 {
                self.0.remove(&rate);
            }
        }
        if let Some(rate) = now {
            *self.0.entry(rate).or_insert(0) += 1;
        }
    }

    fn agreed(&self) -> Option<u32> {
        let (rate, _) = self.0.first_key_value()?;
        (self.0.len() == 1).then_some(*rate)
    }
}

/// What the operator says of an exporter's sampling, and what its domains agree on: the word of another
/// domain counts only for one that says nothing itself. Some routers speak of their sampling in one
/// domain and send data in others.
#[derive(Clone, Debug, Default)]
pub(crate) struct SamplingTable {
    pub(crate) operator: Option<u32>,
    pub(crate) fallback: Option<u32>,
    domains: Votes,
    samplers: Votes,
    by_sampler: FxHashMap<u64, Votes>,
    /// Rates of all domains.
    count: usize,
    /// When the first word came.
    first: Option<Millis>,
}

impl SamplingTable {
    pub(crate) fn new(operator: Option<u32>, fallback: Option<u32>) -> Self {
        let set = |rate: Option<u32>| rate.filter(|n| *n > 0);
        Self { operator: set(operator), fallback: set(fallback), ..Self::default() }
    }

    /// Takes note of an option that speaks of the domain which said `said`. Says whether it is believed:
    /// one datagram does not multiply what an exporter says by a million.
    pub(crate) fn hear(&mut self, said: &mut Said, scope: Scope, rate: u32, now: Millis) -> bool {
        let scope = scope.narrowest();
        self.first.get_or_insert(now);
        if !self.jumps(said, scope, rate, now) {
            said.doubts.remove(&scope);
            said.stood(scope, rate, now);
            self.learn(said, scope, rate);
            return true;
        }
        let since = match said.doubts.get(&scope) {
            Some((doubted, since)) if *doubted == rate => *since,
            _ => now,
        };
        if now.since(since) < CONFIRM_MS {
            said.doubt(scope, rate, since);
            return false;
        }
        said.doubts.remove(&scope);
        if let Some(known) = said.of(scope) {
            said.former.insert(scope, known);
            said.anchors.remove(&scope);
        }
        self.learn(said, scope, rate);
        true
    }

    /// Whether a word is too far from what is known to be believed at once.
    fn jumps(&self, said: &Said, scope: Scope, rate: u32, now: Millis) -> bool {
        let settled = self.first.is_some_and(|first| now.since(first) >= SETTLED_MS);
        let far = |known: u32| rate.max(known) / JUMP > rate.min(known);
        if let Some(known) = said.of(scope) {
            // Against what has stood: three words of one datagram are no three steps.
            let known = match said.anchors.get(&scope) {
                Some((stood, since)) if now.since(*since) < CONFIRM_MS => *stood,
                _ => known,
            };
            return far(known) && said.former.get(&scope) != Some(&rate);
        }
        let of = Of {
            template: scope.template.unwrap_or(0),
            sampler: scope.sampler,
            interface: scope.interface.unwrap_or(0),
            in_record: None,
        };
        let ((known, source), _) = self.resolve(said, of);
        let is_known = !matches!(
            source,
            SamplingSource::Unknown | SamplingSource::Default | SamplingSource::Operator
        );
        if !(settled && is_known) {
            return rate > FIRST_MAX;
        }
        // The first word of a domain that was silent bears on what all others agree on.
        if said.is_empty() { known != rate } else { far(known) }
    }

    /// It has said something by `now`.
    pub(crate) fn said_at(&mut self, now: Millis) {
        self.first.get_or_insert(now);
    }

    /// The same, whatever was known.
    pub(crate) fn learn(&mut self, said: &mut Said, scope: Scope, rate: u32) {
        let known = match scope {
            Scope { sampler: Some(id), .. } => said.samplers.contains_key(&id),
            Scope { template: Some(id), .. } => said.templates.contains_key(&id),
            Scope { interface: Some(index), .. } => said.interfaces.contains_key(&index),
            Scope { .. } => said.domain.is_some(),
        };
        if !known && self.count >= MAX_RATES {
            return;
        }
        self.count += usize::from(!known);
        match scope {
            Scope { sampler: Some(id), .. } => {
                let before = said.samplers.insert(id, rate);
                self.samplers.change(before, Some(rate));
                self.by_sampler.entry(id).or_default().change(before, Some(rate));
            }
            Scope { template: Some(id), .. } => {
                said.templates.insert(id, rate);
            }
            Scope { interface: Some(index), .. } => {
                said.interfaces.insert(index, rate);
            }
            Scope { .. } => {
                let before = said.domain.replace(rate);
                self.domains.change(before, Some(rate));
            }
        }
    }

    /// Forgets what a domain has said.
    pub(crate) fn forget(&mut self, said: &Said) {
        self.count -= said.len();
        self.domains.change(said.domain, None);
        for (id, rate) in &said.samplers {
            self.samplers.change(Some(*rate), None);
            if let Some(votes) = self.by_sampler.get_mut(id) {
                votes.change(Some(*rate), None);
                if votes.0.is_empty() {
                    self.by_sampler.remove(id);
                }
            }
        }
    }

    /// The rate of a record, and whether two words on it contradict each other.
    pub(crate) fn resolve(&self, said: &Said, of: Of) -> (Resolved, bool) {
        let own = |rate: Option<&u32>, source| rate.map(|n| (*n, source));
        // A record's own word, unless it is none: 0, or the 1 that exporters write who leave it out.
        let stated = of.in_record.filter(|rate| *rate > 1);
        let rate = self
            .operator
            .map(|n| (n, SamplingSource::Operator))
            .or_else(|| own(said.samplers.get(&of.sampler?), SamplingSource::Sampler))
            .or_else(|| own(said.interfaces.get(&of.interface), SamplingSource::Interface))
            .or_else(|| own(said.templates.get(&of.template), SamplingSource::Template))
            .or_else(|| stated.map(|n| (n, SamplingSource::Record)))
            .or_else(|| own(said.domain.as_ref(), SamplingSource::Domain))
            .or_else(|| self.elsewhere(of.sampler))
            .or_else(|| of.in_record.map(|n| (n, SamplingSource::Record)))
            .unwrap_or_else(|| self.last_resort());
        let disputed = self.operator.is_none()
            && stated.is_some_and(|n| said.domain.is_some_and(|of_domain| of_domain != n));
        (rate, disputed)
    }

    /// What the other domains agree on.
    fn elsewhere(&self, sampler: Option<u64>) -> Option<Resolved> {
        let named = sampler.filter(|id| *id != 0);
        let of_sampler = match named {
            Some(id) => self.by_sampler.get(&id).and_then(Votes::agreed),
            None => None,
        };
        of_sampler
            .map(|n| (n, SamplingSource::Sampler))
            .or_else(|| self.domains.agreed().map(|n| (n, SamplingSource::Domain)))
            .or_else(|| {
                let agreed = self.samplers.agreed().filter(|_| named.is_none());
                agreed.map(|n| (n, SamplingSource::Sampler))
            })
    }

    /// The rate of a version 5 datagram: two bits of mode and fourteen of interval, except that
    /// Juniper sends mode 0 with an interval, and intervals beyond 14 bits in all sixteen.
    pub(crate) fn v5(&self, header: u16) -> Resolved {
        let interval = if header >> 14 == 3 { header } else { header & 0x3fff };
        let record = (interval > 0).then_some(u32::from(interval));
        self.simple(record, SamplingSource::Record)
    }

    /// The rate of a protocol that carries it in each datagram.
    pub(crate) fn simple(&self, said: Option<u32>, source: SamplingSource) -> Resolved {
        self.operator
            .map(|n| (n, SamplingSource::Operator))
            .or_else(|| said.map(|n| (n, source)))
            .unwrap_or_else(|| self.last_resort())
    }

    fn last_resort(&self) -> Resolved {
        self.fallback.map_or((1, SamplingSource::Unknown), |n| (n, SamplingSource::Default))
    }
}

impl Scope {
    /// As rates are kept: by the narrowest thing that an option names.
    fn narrowest(self) -> Self {
        match self {
            Self { sampler: sampler @ Some(_), .. } => Self { sampler, ..Self::default() },
            Self { template: template @ Some(_), .. } => Self { template, ..Self::default() },
            Self { interface, .. } => Self { interface, ..Self::default() },
        }
    }
}

impl Said {
    /// Takes note of what stood before a word that is believed at once.
    fn stood(&mut self, scope: Scope, rate: u32, now: Millis) {
        let Some(known) = self.of(scope).filter(|known| *known != rate) else { return };
        let anchor = self.anchors.entry(scope).or_insert((known, now));
        if now.since(anchor.1) >= CONFIRM_MS {
            *anchor = (known, now);
        }
    }

    /// Takes note of a word that is not believed yet. What is known may always be doubted; of what was never
    /// heard of, the longest in doubt gives way.
    fn doubt(&mut self, scope: Scope, rate: u32, since: Millis) {
        if self.of(scope).is_none() && !self.doubts.contains_key(&scope) {
            let strange = self.doubts.iter().filter(|(scope, _)| self.of(**scope).is_none());
            let strange: Vec<(Scope, Millis)> =
                strange.map(|(scope, (_, at))| (*scope, *at)).collect();
            if strange.len() >= MAX_DOUBTS
                && let Some((oldest, _)) = strange.iter().min_by_key(|(_, at)| *at)
            {
                self.doubts.remove(oldest);
            }
        }
        self.doubts.insert(scope, (rate, since));
    }

    /// What it has said of exactly this scope.
    fn of(&self, scope: Scope) -> Option<u32> {
        match scope {
            Scope { sampler: Some(id), .. } => self.samplers.get(&id).copied(),
            Scope { template: Some(id), .. } => self.templates.get(&id).copied(),
            Scope { interface: Some(index), .. } => self.interfaces.get(&index).copied(),
            Scope { .. } => self.domain,
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rates that is.
    fn len(&self) -> usize {
        let scoped = self.samplers.len() + self.templates.len() + self.interfaces.len();
        scoped + usize::from(self.domain.is_some())
    }

    /// All of them, each with what it is scoped to, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Scope, u32)> {
        let none = Scope::default();
        let samplers = self
            .samplers
            .iter()
            .map(move |(id, rate)| (Scope { sampler: Some(*id), ..none }, *rate));
        let templates = self
            .templates
            .iter()
            .map(move |(id, rate)| (Scope { template: Some(*id), ..none }, *rate));
        let interfaces = self
            .interfaces
            .iter()
            .map(move |(index, rate)| (Scope { interface: Some(*index), ..none }, *rate));
        let domain = self.domain.map(|rate| (none, rate));
        samplers.chain(templates).chain(interfaces).chain(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(f: impl FnOnce(&mut SamplingFields)) -> Option<u32> {
        let mut fields = SamplingFields::default();
        f(&mut fields);
        fields.rate()
    }

    #[test]
    fn rates_as_routers_announce_them() {
        // Cisco XR: random n-out-of-N beside a misleading 305.
        let xr = fields(|f| {
            f.algorithm = Some(3);
            f.packet_interval = Some(1);
            f.size = Some(1);
            f.population = Some(256);
        });
        assert_eq!(xr, Some(256));
        // Cisco XR without 309/310: not said.
        assert_eq!(fields(|f| (f.algorithm, f.packet_interval) = (Some(3), Some(1))), None);
        // Nokia: one taken, 999 passed over.
        let nokia = fields(|f| {
            f.algorithm = Some(1);
            f.packet_interval = Some(1);
            f.packet_space = Some(999);
        });
        assert_eq!(nokia, Some(1000));
        assert_eq!(fields(|f| f.interval = Some(2048)), Some(2048));
        assert_eq!(fields(|f| f.interval = Some(0)), None);
        // RouterOS 6 sends 1 with its octets reversed.
        assert_eq!(fields(|f| f.interval = Some(16_777_216)), Some(1));
        let flow = fields(|f| (f.algorithm, f.probability) = (Some(4), Some(0.001)));
        assert_eq!(flow, Some(1000));
    }

    #[test]
    fn a_word_far_from_what_is_known_must_be_said_again() {
        let mut table = SamplingTable::new(None, None);
        let (mut said, scope) = (Said::default(), Scope::default());
        let at = |secs: u64| Millis::from_secs(1_700_000_000 + secs);
        let plain = Of { template: 256, ..Of::default() };
        // A first word is believed, unless no router says such a thing.
        assert!(!table.hear(&mut said, scope, 10_000_000, at(0)));
        assert!(table.hear(&mut said, scope, 1000, at(1)));
        // So is another rate that a router is likely to be set to.
        assert!(table.hear(&mut said, scope, 10_000, at(2)));
        assert!(table.hear(&mut said, scope, 1000, at(3)));
        // Forged ones, and the router's own word in between: nothing changes.
        for n in 1..100 {
            assert!(!table.hear(&mut said, scope, 10_000_000, at(n * 30)));
            assert!(table.hear(&mut said, scope, 1000, at(n * 30 + 15)));
        }
        assert_eq!(table.resolve(&said, plain).0, (1000, SamplingSource::Domain));
        // The router is set to another rate: it says so once more.
        assert!(!table.hear(&mut said, scope, 32, at(4000)));
        assert!(!table.hear(&mut said, scope, 32, at(4030)));
        assert!(table.hear(&mut said, scope, 32, at(4060)));
        assert_eq!(table.resolve(&said, plain).0, (32, SamplingSource::Domain));
        // What had been known needs no proof.
        assert!(table.hear(&mut said, scope, 1000, at(4070)));
    }

    #[test]
    fn the_first_word_of_a_domain_does_not_end_what_the_others_agree_on() {
        let mut table = SamplingTable::new(None, None);
        let at = |secs: u64| Millis::from_secs(1_700_000_000 + secs);
        let (mut one, mut late, silent) = (Said::default(), Said::default(), Said::default());
        let (scope, plain) = (Scope::default(), Of { template: 256, ..Of::default() });
        assert!(table.hear(&mut one, scope, 1000, at(0)));
        assert!(!table.hear(&mut late, scope, 8000, at(700)));
        assert_eq!(table.resolve(&silent, plain).0, (1000, SamplingSource::Domain));
        // Narrower scopes neither, once the exporter has said what it has to say.
        let interface = Scope { interface: Some(9), ..scope };
        assert!(!table.hear(&mut one, interface, 60_000, at(700)));
        // A line card that was put in says so again.
        assert!(table.hear(&mut late, scope, 8000, at(800)));
        assert_eq!(table.resolve(&silent, plain).0, (1, SamplingSource::Unknown));
    }

    #[test]
    fn the_most_trusted_word_wins() {
        let mut table = SamplingTable::new(None, Some(7));
        let mut said = Said::default();
        let plain = Of { template: 256, ..Of::default() };
        let record = |rate| Of { in_record: Some(rate), ..plain };
        let sampler = |id| Of { sampler: Some(id), ..plain };
        let scoped = Scope::default();
        assert_eq!(table.resolve(&said, plain).0, (7, SamplingSource::Default));
        assert_eq!(table.resolve(&said, record(3)).0, (3, SamplingSource::Record));
        assert_eq!(table.resolve(&said, record(1)).0, (1, SamplingSource::Record));
        table.learn(&mut said, scoped, 100);
        // A record's own word is the more specific one; that there are two is told.
        assert_eq!(table.resolve(&said, record(3)), ((3, SamplingSource::Record), true));
        assert_eq!(table.resolve(&said, record(1)), ((100, SamplingSource::Domain), false));
        assert_eq!(table.resolve(&said, record(100)), ((100, SamplingSource::Record), false));
        table.learn(&mut said, Scope { template: Some(256), ..scoped }, 200);
        assert_eq!(table.resolve(&said, plain).0, (200, SamplingSource::Template));
        table.learn(&mut said, Scope { interface: Some(9), ..scoped }, 50);
        let by_interface = Of { interface: 9, ..plain };
        assert_eq!(table.resolve(&said, by_interface).0, (50, SamplingSource::Interface));
        assert_eq!(table.resolve(&said, plain).0, (200, SamplingSource::Template));
        table.learn(&mut said, Scope { sampler: Some(4), ..scoped }, 300);
        table.learn(&mut said, Scope { sampler: Some(5), ..scoped }, 500);
        assert_eq!(table.resolve(&said, sampler(4)).0, (300, SamplingSource::Sampler));
        assert_eq!(table.resolve(&said, sampler(5)).0, (500, SamplingSource::Sampler));
        table.operator = Some(9);
        assert_eq!(table.resolve(&said, sampler(4)).0, (9, SamplingSource::Operator));
    }

    #[test]
    fn another_domains_word_counts_for_one_that_says_nothing() {
        let mut table = SamplingTable::new(None, None);
        let (mut one, mut two, silent) = (Said::default(), Said::default(), Said::default());
        let scope = Scope { sampler: Some(1), ..Scope::default() };
        let of = Of { template: 256, sampler: Some(1), ..Of::default() };
        table.learn(&mut one, scope, 100);
        assert_eq!(table.resolve(&silent, of).0, (100, SamplingSource::Sampler));
        // A 1 in the record is what exporters write who leave the rate to their options.
        let left_out = Of { template: 256, in_record: Some(1), ..Of::default() };
        assert_eq!(table.resolve(&silent, left_out).0, (100, SamplingSource::Sampler));
        assert_eq!(table.resolve(&one, left_out).0, (100, SamplingSource::Sampler));
        table.learn(&mut two, scope, 10_000);
        assert_eq!(table.resolve(&one, of).0, (100, SamplingSource::Sampler));
        assert_eq!(table.resolve(&two, of).0, (10_000, SamplingSource::Sampler));
        // They do not agree.
        assert_eq!(table.resolve(&silent, of).0, (1, SamplingSource::Unknown));
        table.forget(&two);
        assert_eq!(table.resolve(&silent, of).0, (100, SamplingSource::Sampler));
        table.forget(&one);
        assert_eq!(table.resolve(&silent, of).0, (1, SamplingSource::Unknown));
        assert_eq!((table.count, table.by_sampler.len()), (0, 0));
    }

    #[test]
    fn silence_is_unknown_and_counts_as_one() {
        let table = SamplingTable::new(Some(0), Some(0));
        let of = Of { template: 256, sampler: Some(4), ..Of::default() };
        assert_eq!(table.resolve(&Said::default(), of).0, (1, SamplingSource::Unknown));
        assert_eq!(table.v5(0), (1, SamplingSource::Unknown));
        assert_eq!(table.v5(0x03e8), (1000, SamplingSource::Record));
        assert_eq!(table.v5(0x4064), (100, SamplingSource::Record));
        assert_eq!(table.v5(50_000), (50_000, SamplingSource::Record));
    }

    #[test]
    fn one_datagram_is_no_ladder() {
        let (mut table, mut said) = (SamplingTable::default(), Said::default());
        let scope = Scope { sampler: Some(1), ..Scope::default() };
        let at = |secs: u64| Millis(1_000_000 + secs * 1000);
        assert!(table.hear(&mut said, scope, 1000, at(0)));
        assert!(table.hear(&mut said, scope, 16_000, at(100)));
        assert!(!table.hear(&mut said, scope, 250_000, at(100)));
        // Not by a scope that names more of the same either.
        let wordy = Scope { interface: Some(7), ..scope };
        assert!(!table.hear(&mut said, wordy, 250_000, at(101)));
        assert!(table.hear(&mut said, scope, 16_000, at(102)));
        assert!(!table.hear(&mut said, wordy, 300_000, at(170)));
        // What has stood for a minute may be changed from there.
        assert!(table.hear(&mut said, scope, 64_000, at(171)));
    }

    #[test]
    fn made_up_scopes_keep_no_router_from_changing_its_rate() {
        let (mut table, mut said) = (SamplingTable::default(), Said::default());
        let of = |index: u32| Scope { interface: Some(index), ..Scope::default() };
        let at = |secs: u64| Millis(1_000_000 + secs * 1000);
        assert!(table.hear(&mut said, of(1), 10, at(0)));
        for index in 0..1000 {
            assert!(!table.hear(&mut said, of(1000 + index), MAX_RATE, at(10)));
        }
        assert!(said.doubts.len() <= MAX_DOUBTS);
        assert!(!table.hear(&mut said, of(1), 10_000, at(20)));
        assert!(table.hear(&mut said, of(1), 10_000, at(90)));
    }
}
