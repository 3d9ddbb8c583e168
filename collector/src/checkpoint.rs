//! What must outlive a restart: templates and sampling tables.
//!
//! Some routers send templates only when a card starts; a collector that forgets them is blind
//! until then. A checkpoint is plain data, sorted, so that the same state gives the same bytes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_model::Millis;

use crate::domain::DomainKey;
use crate::epoch::Epochs;
use crate::error::DecodeErrorKind;
use crate::exporter::Exporter;
use crate::sampling::Scope;
use crate::template::{Definition, Dialect, Kind};
use crate::templates::TemplateAge;
use crate::tenure::Tenure;

/// Templates and sampling of all exporters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// By exporter address.
    pub exporters: Vec<ExporterCheckpoint>,
}

/// Templates and sampling of one exporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExporterCheckpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether this run has heard it: then what it has forgotten since is not known any more.
    #[serde(skip)]
    pub heard: bool,
    /// Its templates, by version, domain and number.
    pub templates: Vec<TemplateCheckpoint>,
    /// Sampling rates that its options told.
    pub sampling: Vec<SamplingCheckpoint>,
    /// What else is known of its domains, by version and domain.
    #[serde(default)]
    pub domains: Vec<DomainCheckpoint>,
    /// systemInitTimeMilliseconds of its options, by versions of weir that took it for the whole exporter's.
    #[serde(default, skip_serializing)]
    pub init_ms: u64,
}

/// One observation domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainCheckpoint {
    /// 9 or 10.
    pub version: u16,
    /// Observation domain or source id.
    pub domain: u32,
    /// systemInitTimeMilliseconds of its options, 0 when not said.
    pub init_ms: u64,
    /// Its uptime (version 9) or the sequence that was next (IPFIX), by which a restart shows; none when
    /// they tell nothing.
    pub stands: Option<u32>,
    /// As of then.
    pub at: Millis,
}

/// One template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateCheckpoint {
    /// 9 or 10.
    pub version: u16,
    /// Observation domain or source id.
    pub domain: u32,
    /// Whether it is an options template.
    pub options: bool,
    /// The template record as it came on the wire, number and count included.
    pub definition: Vec<u8>,
    /// When it last came.
    #[serde(default)]
    pub refreshed: Millis,
    /// Whether records were read by it for a while.
    #[serde(default)]
    pub used: bool,
}

/// One sampling rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingCheckpoint {
    /// 9 or 10; 0 by versions of weir that did not say.
    #[serde(default)]
    pub version: u16,
    /// Observation domain or source id.
    pub domain: u32,
    /// The sampler or selector it belongs to.
    pub sampler: Option<u64>,
    /// The template it belongs to.
    pub template: Option<u16>,
    /// The interface it belongs to.
    #[serde(default)]
    pub interface: Option<u32>,
    /// One in so many packets.
    pub rate: u32,
}

impl Checkpoint {
    /// Adds what another shard knows. Of an exporter that several shards have heard, each template
    /// and rate of the later one counts.
    pub fn merge(&mut self, other: Self) {
        for mut theirs in other.exporters {
            match self.exporters.binary_search_by_key(&theirs.address, |e| e.address) {
                Err(at) => self.exporters.insert(at, theirs),
                Ok(at) if theirs.heard != self.exporters[at].heard => {
                    if theirs.heard {
                        self.exporters[at] = theirs;
                    }
                }
                Ok(at) => {
                    let ours = &mut self.exporters[at];
                    ours.templates.retain(|t| !theirs.templates.iter().any(|n| n.same(t)));
                    ours.templates.append(&mut theirs.templates);
                    ours.templates.sort();
                    ours.sampling.retain(|s| !theirs.sampling.iter().any(|n| n.same(s)));
                    ours.sampling.append(&mut theirs.sampling);
                    ours.sampling.sort();
                    ours.domains.retain(|d| !theirs.domains.iter().any(|n| n.same(d)));
                    ours.domains.append(&mut theirs.domains);
                    ours.domains.sort();
                }
            }
        }
    }

    /// What it knows of an exporter.
    pub fn exporter(&self, address: IpAddr) -> Option<&ExporterCheckpoint> {
        self.exporters.iter().find(|exporter| exporter.address == address)
    }
}

impl TemplateCheckpoint {
    fn same(&self, other: &Self) -> bool {
        let id = |t: &Self| t.definition.first_chunk::<2>().copied();
        (self.version, self.domain, id(self)) == (other.version, other.domain, id(other))
    }
}

impl DomainCheckpoint {
    fn same(&self, other: &Self) -> bool {
        (self.version, self.domain) == (other.version, other.domain)
    }
}

impl SamplingCheckpoint {
    fn same(&self, other: &Self) -> bool {
        let key = |s: &Self| (s.version, s.domain, s.sampler, s.template, s.interface);
        key(self) == key(other)
    }
}

impl ExporterCheckpoint {
    pub(crate) fn of(exporter: &Exporter) -> Self {
        let lasting = |key: DomainKey| key.session == 0 && key.port == 0;
        let mut templates: Vec<_> = exporter
            .templates
            .iter()
            .map(|(domain, template, age)| (exporter.domains.at(domain).key, template, age))
            .filter(|(key, ..)| lasting(*key))
            .map(|(key, template, age)| TemplateCheckpoint {
                version: key.version,
                domain: key.domain,
                options: matches!(template.kind, Kind::Options { .. }),
                definition: template.definition.clone(),
                refreshed: age.refreshed,
                used: age.used,
            })
            .collect();
        templates.sort();
        let mut domains: Vec<_> = exporter
            .domains
            .iter()
            .filter(|domain| lasting(domain.key))
            .filter_map(|domain| {
                let standing = domain.epochs.standing();
                let (stands, at) = (standing.map(|s| s.0), standing.map_or(Millis(0), |s| s.1));
                let DomainKey { version, domain: number, .. } = domain.key;
                let init_ms = domain.init_ms;
                let known = init_ms > 0 || stands.is_some();
                known.then_some(DomainCheckpoint { version, domain: number, init_ms, stands, at })
            })
            .collect();
        domains.sort();
        let mut sampling: Vec<_> = exporter
            .domains
            .iter()
            .filter(|domain| lasting(domain.key))
            .flat_map(|domain| domain.sampling.iter().map(|said| (domain.key, said)))
            .map(|(key, (scope, rate))| {
                let Scope { sampler, template, interface } = scope;
                let DomainKey { version, domain, .. } = key;
                SamplingCheckpoint { version, domain, sampler, template, interface, rate }
            })
            .collect();
        sampling.sort();
        Self {
            address: exporter.sender.address,
            heard: true,
            templates,
            sampling,
            domains,
            init_ms: 0,
        }
    }

    /// Teaches an exporter what the checkpoint knows, at `now`. A checkpoint is a file like any other:
    /// what makes no sense in it is passed over.
    pub(crate) fn restore(&self, exporter: &mut Exporter, now: Millis) {
        // What was of use comes first, so that the rest cannot keep it out.
        for used in [true, false] {
            for template in self.templates.iter().filter(|template| template.used == used) {
                if template.restore(exporter, now).is_none() {
                    exporter.error(DecodeErrorKind::BadTemplate);
                }
            }
        }
        for said in self.sampling.iter().filter(|said| said.rate > 0) {
            said.restore(&self.templates, exporter, now);
        }
        for said in &self.domains {
            if let Some(place) = exporter.domains.find(DomainKey::new(said.version, said.domain)) {
                let domain = exporter.domains.at_mut(place);
                domain.init_ms = said.init_ms;
                if let Some(value) = said.stands {
                    domain.epochs = Epochs::restored(value, said.at);
                }
            }
        }
    }
}

impl TemplateCheckpoint {
    fn restore(&self, exporter: &mut Exporter, now: Millis) -> Option<()> {
        let dialect = match self.version {
            9 => Dialect::V9,
            10 => Dialect::Ipfix,
            _ => return Some(()),
        };
        let definition = Definition::read(&self.definition, self.options, dialect)?;
        if definition.id < 256 || definition.is_withdrawal() {
            return None;
        }
        let domain = exporter.domain(DomainKey::new(self.version, self.domain), now);
        let defined = exporter.define(domain, &definition, dialect, (0, now)).ok()?;
        if let Some(place) = defined {
            let age = TemplateAge { refreshed: self.refreshed, used: self.used };
            exporter.templates.restored(place, age, now);
            if self.used {
                exporter.domains.at_mut(domain).tenure = Tenure::restored(now);
            }
        }
        Some(())
    }
}

impl SamplingCheckpoint {
    /// A sampler without a version was taken for the whole exporter's.
    fn restore(&self, templates: &[TemplateCheckpoint], exporter: &mut Exporter, now: Millis) {
        let Self { sampler, template, interface, rate, .. } = *self;
        let scope = Scope { sampler, template, interface };
        let key = |version, domain| DomainKey::new(version, domain);
        if self.version != 0 {
            let domain = exporter.domain(key(self.version, self.domain), now);
            exporter.learn(domain, scope, rate, now);
            return;
        }
        for of in templates.iter().filter(|of| sampler.is_some() || of.domain == self.domain) {
            if let Some(domain) = exporter.domains.find(key(of.version, of.domain)) {
                exporter.learn(domain, scope, rate, now);
            }
        }
    }
}
