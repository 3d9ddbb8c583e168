//! Which sampling rate a record was taken at.
//!
//! The order, the most trusted first: the operator's word, the sampler or selector that the record
//! names, an option scoped to its template, an option of its observation domain, the record or
//! datagram itself, the configured default. When nobody says, the record counts as it is and the
//! exporter is flagged: a guess would be as wrong as a silent 1.

use rustc_hash::FxHashMap;
use weir_model::SamplingSource;

use crate::checkpoint::SamplingCheckpoint;

/// A rate with where it comes from.
pub(crate) type Resolved = (u32, SamplingSource);

/// Most sampler ids remembered for one exporter.
const MAX_SAMPLERS: usize = 1024;
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

/// Where an option applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// samplerId (48) or selectorId (302).
    pub(crate) sampler: Option<u64>,
    /// templateId (145).
    pub(crate) template: Option<u16>,
}

/// Everything one exporter has said about its sampling, and what the operator says of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SamplingTable {
    pub(crate) operator: Option<u32>,
    pub(crate) fallback: Option<u32>,
    samplers: FxHashMap<u64, u32>,
    templates: FxHashMap<(u32, u16), u32>,
    domains: FxHashMap<u32, u32>,
}

impl SamplingTable {
    pub(crate) fn new(operator: Option<u32>, fallback: Option<u32>) -> Self {
        let set = |rate: Option<u32>| rate.filter(|n| *n > 0);
        Self { operator: set(operator), fallback: set(fallback), ..Self::default() }
    }

    /// Takes note of an option. Rates of samplers hold for the whole exporter: some routers send
    /// options in another domain, or from another port, than the data they speak of.
    pub(crate) fn learn(&mut self, domain: u32, scope: Scope, rate: u32) {
        match scope {
            Scope { sampler: Some(id), .. } => put(&mut self.samplers, id, rate),
            Scope { template: Some(id), .. } => put(&mut self.templates, (domain, id), rate),
            Scope { .. } => put(&mut self.domains, domain, rate),
        }
    }

    /// Everything learned, sorted.
    pub(crate) fn checkpoint(&self) -> Vec<SamplingCheckpoint> {
        let samplers = self.samplers.iter().map(|(id, rate)| (0, Some(*id), None, *rate));
        let templates =
            self.templates.iter().map(|((domain, id), rate)| (*domain, None, Some(*id), *rate));
        let domains = self.domains.iter().map(|(domain, rate)| (*domain, None, None, *rate));
        let mut all: Vec<_> = samplers
            .chain(templates)
            .chain(domains)
            .map(|(domain, sampler, template, rate)| SamplingCheckpoint {
                domain,
                sampler,
                template,
                rate,
            })
            .collect();
        all.sort();
        all
    }

    /// The rate of a record.
    pub(crate) fn resolve(
        &self,
        domain: u32,
        template: u16,
        sampler: Option<u64>,
        in_record: Option<u32>,
    ) -> Resolved {
        let own = |rate: Option<&u32>, source| rate.map(|n| (*n, source));
        self.operator
            .map(|n| (n, SamplingSource::Operator))
            .or_else(|| own(self.samplers.get(&sampler?), SamplingSource::Sampler))
            .or_else(|| own(self.templates.get(&(domain, template)), SamplingSource::Template))
            .or_else(|| own(self.domains.get(&domain), SamplingSource::Domain))
            .or_else(|| in_record.map(|n| (n, SamplingSource::Record)))
            .or_else(|| self.only_domain().map(|n| (n, SamplingSource::Domain)))
            .or_else(|| self.only_sampler(sampler).map(|n| (n, SamplingSource::Sampler)))
            .unwrap_or_else(|| self.last_resort())
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

    /// The one rate that all domains agree on: a router that speaks of its sampling in one domain
    /// and sends data in others.
    fn only_domain(&self) -> Option<u32> {
        agreed(self.domains.values())
    }

    /// The one rate that all samplers agree on, for records that name none.
    fn only_sampler(&self, named: Option<u64>) -> Option<u32> {
        if named.is_some_and(|id| id != 0) {
            return None;
        }
        agreed(self.samplers.values())
    }
}

fn agreed<'a>(mut rates: impl Iterator<Item = &'a u32>) -> Option<u32> {
    let first = *rates.next()?;
    rates.all(|rate| *rate == first).then_some(first)
}

/// Puts a rate into a table of bounded size.
fn put<K: std::hash::Hash + Eq>(table: &mut FxHashMap<K, u32>, key: K, rate: u32) {
    if table.len() < MAX_SAMPLERS || table.contains_key(&key) {
        table.insert(key, rate);
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
    fn the_most_trusted_word_wins() {
        let mut table = SamplingTable::new(None, Some(7));
        assert_eq!(table.resolve(1, 256, None, None), (7, SamplingSource::Default));
        assert_eq!(table.resolve(1, 256, None, Some(3)), (3, SamplingSource::Record));
        table.learn(1, Scope::default(), 100);
        assert_eq!(table.resolve(1, 256, None, Some(3)), (100, SamplingSource::Domain));
        table.learn(1, Scope { template: Some(256), sampler: None }, 200);
        assert_eq!(table.resolve(1, 256, None, None), (200, SamplingSource::Template));
        table.learn(9, Scope { sampler: Some(4), template: None }, 300);
        table.learn(9, Scope { sampler: Some(5), template: None }, 500);
        assert_eq!(table.resolve(1, 256, Some(4), None), (300, SamplingSource::Sampler));
        assert_eq!(table.resolve(1, 256, Some(5), None), (500, SamplingSource::Sampler));
        table.operator = Some(9);
        assert_eq!(table.resolve(1, 256, Some(4), None), (9, SamplingSource::Operator));
    }

    #[test]
    fn silence_is_unknown_and_counts_as_one() {
        let table = SamplingTable::new(Some(0), Some(0));
        assert_eq!(table.resolve(1, 256, Some(4), None), (1, SamplingSource::Unknown));
        assert_eq!(table.v5(0), (1, SamplingSource::Unknown));
        assert_eq!(table.v5(0x03e8), (1000, SamplingSource::Record));
        assert_eq!(table.v5(0x4064), (100, SamplingSource::Record));
        assert_eq!(table.v5(50_000), (50_000, SamplingSource::Record));
    }
}
