//! What is in these datagrams: templates, sampling and its source, records, errors with offsets.
//!
//! Behind `weir inspect`. The same decoder as the receive path does the reading; an [`Inspector`]
//! only listens to it. Each [`Line`] is one line of JSON.

mod names;
mod oracle;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use weir_model::{ExporterStatus, FlowProtocol, FlowRecord, Inventory, Millis, SamplingSource};

use crate::config::{Config, ExporterConfig};
use crate::decode::Visit;
use crate::domain::DomainKey;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::registry::Registry;
use crate::sampling::Scope;
use crate::shard::Shard;
use crate::template::{Kind, Template};

pub use oracle::{Oracle, Reading};

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Line {
    /// A datagram begins.
    Datagram {
        /// Its number, from 1.
        number: u64,
        /// Who sent it.
        from: SocketAddr,
        /// When it arrived.
        at: Millis,
        /// Octets of payload.
        octets: usize,
    },
    /// A template that is new or has changed.
    Template {
        /// The datagram it came in.
        datagram: u64,
        /// NetFlow or IPFIX version.
        version: u16,
        /// Observation domain or source id.
        domain: u32,
        /// Its number.
        id: u16,
        /// Scope fields of an options template; absent for a data template.
        scopes: Option<u16>,
        /// Octets of a record; absent when they vary.
        record_octets: Option<usize>,
        /// Its fields, in order.
        fields: Vec<TemplateField>,
    },
    /// A template was taken back.
    Withdrawal {
        /// The datagram it came in.
        datagram: u64,
        /// Observation domain.
        domain: u32,
        /// The template, or 2 or 3 for all of a kind.
        id: u16,
    },
    /// An option told a sampling rate.
    Sampling {
        /// The datagram it came in.
        datagram: u64,
        /// Observation domain or source id.
        domain: u32,
        /// The sampler or selector it speaks of, if any.
        sampler: Option<u64>,
        /// The template it speaks of, if any.
        template: Option<u16>,
        /// The interface it speaks of, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        interface: Option<u32>,
        /// One in so many packets.
        rate: u32,
    },
    /// A flow or packet sample.
    Record {
        /// The datagram it came in.
        datagram: u64,
        /// Where its sampling rate comes from.
        sampling_source: SamplingSource,
        /// What it says.
        #[serde(flatten)]
        record: FlowRecord,
    },
    /// A data set whose template has not come.
    UnknownTemplate {
        /// The datagram it came in.
        datagram: u64,
        /// Observation domain or source id.
        domain: u32,
        /// The template it needs.
        id: u16,
        /// Octets of data.
        octets: usize,
    },
    /// Something could not be read.
    Error {
        /// The datagram it came in.
        datagram: u64,
        /// What was wrong.
        error: DecodeErrorKind,
        /// Octets into the datagram; absent when only the set is known to be damaged.
        offset: Option<u32>,
        /// In words.
        text: String,
    },
    /// What another parser makes of the datagram.
    Oracle {
        /// The datagram it came in.
        datagram: u64,
        /// Its reading.
        #[serde(flatten)]
        reading: Reading,
    },
    /// An exporter, at the end.
    Exporter {
        /// Its state.
        #[serde(flatten)]
        status: ExporterStatus,
    },
    /// What there was in all: the last line.
    Summary(Summary),
}

/// A field of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplateField {
    /// The information element's number, with the enterprise before a slash if it has one.
    pub element: String,
    /// Its name, where weir reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// Octets; absent when the record says.
    pub octets: Option<u16>,
}

/// Numbers of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Datagrams read.
    pub datagrams: u64,
    /// Data records, and sFlow flow samples.
    pub data_records: u64,
    /// Option records.
    pub option_records: u64,
    /// sFlow flow samples.
    pub flow_samples: u64,
    /// sFlow counter samples.
    pub counter_samples: u64,
    /// Errors of any kind.
    pub errors: u64,
}

/// Reads datagrams and tells what is in them.
#[derive(Debug)]
pub struct Inspector {
    shard: Shard,
    oracle: Option<Oracle>,
    number: u64,
}

impl Inspector {
    /// An inspector that has seen nothing and listens to everybody. `config` gives the sampling
    /// rates that an operator has set; `oracle` adds what other parsers make of each datagram.
    pub fn new(config: &Config, oracle: bool) -> Self {
        let mut config = config.clone();
        // What comes before its template is told as that, not as records later on.
        config.max_pending_bytes = 0;
        let anybody = [IpNet::from(IpAddr::from([0; 4])), IpNet::from(IpAddr::from([0; 16]))];
        for net in anybody {
            let address = IpNet::new(net.addr(), 0).unwrap_or(net);
            config.exporters.push(ExporterConfig::new(address));
        }
        let shard =
            Shard::new(0, &config, Arc::new(Inventory::default()), Arc::new(Registry::default()));
        Self { shard, oracle: oracle.then(Oracle::default), number: 0 }
    }

    /// Reads one datagram and hands each finding to `tell`.
    pub fn datagram(
        &mut self,
        from: SocketAddr,
        payload: &[u8],
        now: Millis,
        mut tell: impl FnMut(Line),
    ) {
        self.number += 1;
        let datagram = self.number;
        tell(Line::Datagram { number: datagram, from, at: now, octets: payload.len() });
        let mut listener = Listener { datagram, source: SamplingSource::Unknown, tell: &mut tell };
        let result = self.shard.visit(from, payload, now, &mut listener);
        if let Err(DecodeError { kind, offset }) = result {
            tell(Line::Error {
                datagram,
                error: kind,
                offset: Some(offset),
                text: kind.to_string(),
            });
        }
        if let Some(oracle) = &mut self.oracle {
            let reading = oracle.read(from, payload);
            tell(Line::Oracle { datagram, reading });
        }
    }

    /// What there was in all.
    pub fn summary(&self) -> Summary {
        let counters = self.shard.counters();
        Summary {
            datagrams: counters.datagrams,
            data_records: counters.data_records,
            option_records: counters.option_records,
            flow_samples: counters.flow_samples,
            counter_samples: counters.counter_samples,
            errors: counters.errors.iter().sum(),
        }
    }

    /// The exporters and the summary: the lines after the last datagram.
    pub fn finish(&self) -> Vec<Line> {
        let mut lines: Vec<Line> =
            self.shard.exporters().into_iter().map(|status| Line::Exporter { status }).collect();
        lines.push(Line::Summary(self.summary()));
        lines
    }
}

/// Turns what the decoder comes across into lines.
struct Listener<'a, F> {
    datagram: u64,
    source: SamplingSource,
    tell: &'a mut F,
}

impl<F: FnMut(Line)> Visit for Listener<'_, F> {
    fn record(&mut self, record: &FlowRecord) {
        let (datagram, sampling_source) = (self.datagram, self.source);
        (self.tell)(Line::Record { datagram, sampling_source, record: *record });
    }

    fn resolved(&mut self, _rate: u32, source: SamplingSource) {
        self.source = source;
    }

    fn template(&mut self, domain: DomainKey, template: &Template) {
        let fields = template.fields.iter().map(names::field).collect();
        let scopes = match template.kind {
            Kind::Data => None,
            Kind::Options { scopes } => Some(scopes),
        };
        (self.tell)(Line::Template {
            datagram: self.datagram,
            version: domain.version,
            domain: domain.domain,
            id: template.id,
            scopes,
            record_octets: (!template.variable).then_some(template.record_len),
            fields,
        });
    }

    fn withdrawal(&mut self, domain: DomainKey, id: u16) {
        (self.tell)(Line::Withdrawal { datagram: self.datagram, domain: domain.domain, id });
    }

    fn learned(&mut self, domain: DomainKey, scope: Scope, rate: u32) {
        let (datagram, domain) = (self.datagram, domain.domain);
        let Scope { sampler, template, interface } = scope;
        (self.tell)(Line::Sampling { datagram, domain, sampler, template, interface, rate });
    }

    fn unknown_template(&mut self, domain: DomainKey, id: u16, octets: usize) {
        let (datagram, domain) = (self.datagram, domain.domain);
        (self.tell)(Line::UnknownTemplate { datagram, domain, id, octets });
    }

    fn fault(&mut self, error: DecodeErrorKind) {
        let text = error.to_string();
        (self.tell)(Line::Error { datagram: self.datagram, error, offset: None, text });
    }
}

/// The protocol that a datagram's first octets claim.
pub fn protocol_of(payload: &[u8]) -> Option<FlowProtocol> {
    match payload {
        [0, 5, ..] => Some(FlowProtocol::NetflowV5),
        [0, 9, ..] => Some(FlowProtocol::NetflowV9),
        [0, 10, ..] => Some(FlowProtocol::Ipfix),
        [0, 0, 0, 5, ..] => Some(FlowProtocol::Sflow),
        _ => None,
    }
}
