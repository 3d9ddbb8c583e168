//! What must outlive a restart: templates and sampling tables.
//!
//! Some routers send templates only when a card starts; a collector that forgets them is blind
//! until then. A checkpoint is plain data, sorted, so that the same state gives the same bytes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::DecodeErrorKind;
use crate::exporter::{DomainKey, Exporter};
use crate::sampling::{SamplingTable, Scope};
use crate::template::{Definition, Dialect, Kind};

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
    /// Its templates, by version, domain and number.
    pub templates: Vec<TemplateCheckpoint>,
    /// Sampling rates that its options told.
    pub sampling: Vec<SamplingCheckpoint>,
    /// systemInitTimeMilliseconds of its options, 0 when not said.
    pub init_ms: u64,
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
}

/// One sampling rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingCheckpoint {
    /// Observation domain or source id.
    pub domain: u32,
    /// The sampler or selector it belongs to.
    pub sampler: Option<u64>,
    /// The template it belongs to.
    pub template: Option<u16>,
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
                Ok(at) => {
                    let ours = &mut self.exporters[at];
                    ours.templates.retain(|t| !theirs.templates.iter().any(|n| n.same(t)));
                    ours.templates.append(&mut theirs.templates);
                    ours.templates.sort();
                    ours.sampling.retain(|s| !theirs.sampling.iter().any(|n| n.same(s)));
                    ours.sampling.append(&mut theirs.sampling);
                    ours.sampling.sort();
                    ours.init_ms = ours.init_ms.max(theirs.init_ms);
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

impl SamplingCheckpoint {
    fn same(&self, other: &Self) -> bool {
        let key = |s: &Self| (s.domain, s.sampler, s.template);
        key(self) == key(other)
    }
}

impl ExporterCheckpoint {
    pub(crate) fn of(exporter: &Exporter) -> Self {
        let mut templates: Vec<_> = exporter
            .templates()
            .map(|(key, template)| TemplateCheckpoint {
                version: key.version,
                domain: key.domain,
                options: matches!(template.kind, Kind::Options { .. }),
                definition: template.definition.clone(),
            })
            .collect();
        templates.sort();
        Self {
            address: exporter.address,
            templates,
            sampling: exporter.sampling.checkpoint(),
            init_ms: exporter.init_ms,
        }
    }

    /// Teaches an exporter what the checkpoint knows. A checkpoint is a file like any other: what
    /// makes no sense in it is passed over.
    pub(crate) fn restore(&self, exporter: &mut Exporter) {
        for template in &self.templates {
            let dialect = match template.version {
                9 => Dialect::V9,
                10 => Dialect::Ipfix,
                _ => continue,
            };
            let domain =
                DomainKey { version: template.version, domain: template.domain, session: 0 };
            let read = Definition::read(&template.definition, template.options, dialect);
            let defined = read
                .filter(|definition| definition.id >= 256 && !definition.is_withdrawal())
                .map(|definition| exporter.define(domain, &definition, dialect));
            if defined.is_none_or(|result| result.is_err()) {
                exporter.error(DecodeErrorKind::BadTemplate);
            }
        }
        exporter.sampling.restore(&self.sampling);
        exporter.init_ms = self.init_ms;
    }
}

impl SamplingTable {
    fn restore(&mut self, rates: &[SamplingCheckpoint]) {
        for said in rates.iter().filter(|said| said.rate > 0) {
            let scope = Scope { sampler: said.sampler, template: said.template };
            self.learn(said.domain, scope, said.rate);
        }
    }
}
