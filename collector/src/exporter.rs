//! What a shard remembers of one exporter.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustc_hash::FxHashMap;
use weir_model::{
    DropCount, ExporterId, ExporterStatus, FlowProtocol, InterfaceRole, InterfaceStatus, Millis,
    SamplingSource,
};

use crate::config::{Config, ExporterConfig};
use crate::error::DecodeErrorKind;
use crate::pending::Pending;
use crate::roles::Roles;
use crate::sampling::SamplingTable;
use crate::source::Sources;
use crate::template::{Definition, Dialect, Kind, Template};
use crate::time::{Clock, Lag, LearnedTimeouts};

/// An observation domain (IPFIX) or source id (version 9). Numbers of templates are scoped by it,
/// and not by the sender's port: routers change that, and send options from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DomainKey {
    pub(crate) version: u16,
    pub(crate) domain: u32,
    /// The connection, for IPFIX over TCP; 0 for datagrams.
    pub(crate) session: u32,
}

/// Octets of an Ethernet header, to bring layer-2 counts down to layer 3.
pub(crate) const ETHERNET_HEADER: u64 = 14;
/// Interfaces shown of one exporter.
const MAX_INTERFACES: usize = 256;
/// Streams of sequence numbers remembered for one exporter.
const MAX_STREAMS: usize = 256;
/// A gap beyond this is a restart of the exporter, not a loss.
const MAX_GAP: u32 = 1_000_000;

/// Most octets of template definitions of one exporter: a thousand templates of 250 fields. What
/// is made of them takes about three times as much.
const MAX_DEFINITION_OCTETS: usize = 1 << 20;
/// Most octets of definitions of all exporters: four kilobytes of each of the most there can be. A
/// sender that may forge the addresses of many exporters must not have a megabyte of each.
const MAX_ALL_DEFINITION_OCTETS: usize = 16 << 20;
/// How far back a number may lie to be that of an overtaken datagram.
const MAX_BEHIND: u32 = 4096;
/// Datagrams in a row that may lie behind before it is a restart.
const MAX_BEHIND_RUN: u8 = 4;

/// A stream of sequence numbers.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    expected: u32,
    behind: u8,
}

/// One exporter's state in one shard.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) id: ExporterId,
    pub(crate) address: IpAddr,
    pub(crate) name: String,
    pub(crate) protocol: Option<FlowProtocol>,
    pub(crate) last_seen: Millis,
    pub(crate) datagrams: u64,
    pub(crate) records: u64,
    pub(crate) errors: [u64; DecodeErrorKind::COUNT],
    pub(crate) unknown_templates: u64,
    pub(crate) implausible_times: u64,
    pub(crate) lost: u64,
    /// Records of packets that other records had told of.
    pub(crate) duplicates: u64,
    /// Records that tell of events, not of traffic.
    pub(crate) not_traffic: u64,
    /// Samples of packets that are not IP.
    pub(crate) not_ip: u64,
    pub(crate) sampling: SamplingTable,
    pub(crate) sources: Sources,
    pub(crate) roles: Roles,
    /// Octets of each packet that its records count and that are no part of the IP packet.
    pub(crate) overhead: u64,
    pub(crate) pending: Pending,
    pub(crate) clock: Clock,
    pub(crate) lag: Lag,
    pub(crate) timeouts: LearnedTimeouts,
    /// systemInitTimeMilliseconds from the options, 0 when not said.
    pub(crate) init_ms: u64,
    applied: (u32, SamplingSource),
    sequences: FxHashMap<(u16, u64), Sequence>,
    domains: FxHashMap<DomainKey, u32>,
    by_key: FxHashMap<(DomainKey, u16), usize>,
    templates: Vec<Template>,
    /// Of all templates known.
    definition_octets: usize,
    /// Of all exporters' templates, in all shards.
    all_definition_octets: Arc<AtomicUsize>,
    max_domains: usize,
    max_templates: usize,
}

impl Exporter {
    pub(crate) fn new(
        id: ExporterId,
        address: IpAddr,
        entry: Option<&ExporterConfig>,
        config: &Config,
        all_definition_octets: Arc<AtomicUsize>,
    ) -> Self {
        let name = entry.and_then(|e| e.name.clone()).unwrap_or_else(|| address.to_string());
        let operator = entry.and_then(|e| e.sampling);
        let fallback = entry.and_then(|e| e.default_sampling);
        Self {
            id,
            address,
            name,
            protocol: None,
            last_seen: Millis(0),
            datagrams: 0,
            records: 0,
            errors: [0; DecodeErrorKind::COUNT],
            unknown_templates: 0,
            implausible_times: 0,
            lost: 0,
            duplicates: 0,
            not_traffic: 0,
            not_ip: 0,
            sampling: SamplingTable::new(operator, fallback),
            sources: Sources::default(),
            overhead: entry.filter(|e| e.counts_frames).map_or(0, |_| ETHERNET_HEADER),
            roles: Roles::new(entry.map_or(&[], |e| &e.external_interfaces)),
            pending: Pending::new(config.max_pending_bytes),
            clock: Clock::default(),
            lag: Lag::default(),
            timeouts: LearnedTimeouts::default(),
            applied: (1, SamplingSource::Unknown),
            init_ms: 0,
            sequences: FxHashMap::default(),
            domains: FxHashMap::default(),
            by_key: FxHashMap::default(),
            templates: Vec::new(),
            definition_octets: 0,
            all_definition_octets,
            max_domains: config.max_domains,
            max_templates: config.max_templates,
        }
    }

    /// Remembers a template. Says where it is if it is new or has changed.
    pub(crate) fn define(
        &mut self,
        domain: DomainKey,
        definition: &Definition<'_>,
        dialect: Dialect,
    ) -> Result<Option<usize>, DecodeErrorKind> {
        let known = self.template(domain, definition.id);
        let replaced = known.map_or(0, |index| self.templates[index].definition.len());
        let octets = self.definition_octets - replaced + definition.bytes.len();
        if let Some(index) = known {
            let template = &self.templates[index];
            if template.kind == definition.kind && template.definition == definition.bytes {
                return Ok(None);
            }
        }
        if octets > MAX_DEFINITION_OCTETS {
            return Err(DecodeErrorKind::TooManyTemplates);
        }
        if let Some(index) = known {
            self.hold(octets)?;
            self.templates[index] = definition.compile(dialect);
            return Ok(Some(index));
        }
        let new_domain = !self.domains.contains_key(&domain);
        if self.by_key.len() >= self.max_templates
            || (new_domain && self.domains.len() >= self.max_domains)
        {
            return Err(DecodeErrorKind::TooManyTemplates);
        }
        self.hold(octets)?;
        *self.domains.entry(domain).or_insert(0) += 1;
        // A withdrawn template leaves its place to the next new one.
        let index = match self.templates.iter().position(|t| t.id == 0) {
            Some(index) => index,
            None => {
                self.templates.push(Template::default());
                self.templates.len() - 1
            }
        };
        self.templates[index] = definition.compile(dialect);
        self.by_key.insert((domain, definition.id), index);
        Ok(Some(index))
    }

    /// From now on there are so many octets of definitions, if all exporters' have room.
    fn hold(&mut self, octets: usize) -> Result<(), DecodeErrorKind> {
        let before = std::mem::replace(&mut self.definition_octets, octets);
        let held = self.all_definition_octets.fetch_update(Relaxed, Relaxed, |all| {
            let all = (all + octets).saturating_sub(before);
            (octets <= before || all <= MAX_ALL_DEFINITION_OCTETS).then_some(all)
        });
        if held.is_err() {
            self.definition_octets = before;
            return Err(DecodeErrorKind::TooManyTemplates);
        }
        Ok(())
    }

    /// Forgets a template, or all of one kind when the number is that of the set (RFC 7011 §8.1).
    pub(crate) fn withdraw(&mut self, domain: DomainKey, definition: &Definition<'_>) {
        let all = definition.id < 256;
        let options = matches!(definition.kind, Kind::Options { .. });
        let (templates, mut octets) = (&mut self.templates, self.definition_octets);
        let mut gone = 0;
        self.by_key.retain(|(of, id), index| {
            let is_options = matches!(templates[*index].kind, Kind::Options { .. });
            let named = *id == definition.id || (all && is_options == options);
            if *of != domain || !named {
                return true;
            }
            octets -= templates[*index].definition.len();
            templates[*index] = Template::default();
            gone += 1;
            false
        });
        // There is always room for less.
        let _ = self.hold(octets);
        if let Some(count) = self.domains.get_mut(&domain) {
            *count -= gone.min(*count);
            if *count == 0 {
                self.domains.remove(&domain);
            }
        }
    }

    /// Forgets what came by a connection that has ended.
    pub(crate) fn close(&mut self, session: u32) {
        let (templates, mut octets) = (&mut self.templates, self.definition_octets);
        self.by_key.retain(|(domain, _), index| {
            let gone = domain.session == session;
            if gone {
                octets -= templates[*index].definition.len();
                templates[*index] = Template::default();
            }
            !gone
        });
        // There is always room for less.
        let _ = self.hold(octets);
        self.domains.retain(|domain, _| domain.session != session);
        self.sequences.retain(|(_, stream), _| stream >> 32 != u64::from(session));
    }

    /// Where a template is.
    #[inline]
    pub(crate) fn template(&self, domain: DomainKey, id: u16) -> Option<usize> {
        self.by_key.get(&(domain, id)).copied()
    }

    /// All templates with their domains, in no order; not those that go with a connection.
    pub(crate) fn templates(&self) -> impl Iterator<Item = (DomainKey, &Template)> {
        let lasting = self.by_key.iter().filter(|((domain, _), _)| domain.session == 0);
        lasting.map(|((domain, _), index)| (*domain, &self.templates[*index]))
    }

    /// The template at a place that [`Exporter::template`] or [`Exporter::define`] named.
    pub(crate) fn at(&self, index: usize) -> &Template {
        &self.templates[index]
    }

    /// Lends a template out; [`Exporter::put_template`] brings it back.
    pub(crate) fn take_template(&mut self, index: usize) -> Template {
        std::mem::take(&mut self.templates[index])
    }

    pub(crate) fn put_template(&mut self, index: usize, template: Template) {
        self.templates[index] = template;
    }

    /// A stream's next number cannot be foretold: the next datagram begins it anew.
    pub(crate) fn sequence_unknown(&mut self, version: u16, stream: u64) {
        self.sequences.remove(&(version, stream));
    }

    /// Counts an error of this exporter.
    pub(crate) fn error(&mut self, kind: DecodeErrorKind) {
        let count = &mut self.errors[kind as usize];
        *count = count.saturating_add(1);
    }

    /// Takes note of the sampling rate last used.
    pub(crate) fn applied(&mut self, rate: u32, source: SamplingSource) {
        self.applied = (rate, source);
    }

    /// Follows a stream of sequence numbers: this datagram carries `sequence` and the next one
    /// must carry `sequence + advance`. Version 5 and IPFIX count records, 9 and sFlow datagrams.
    pub(crate) fn sequence(&mut self, version: u16, stream: u64, sequence: u32, advance: u32) {
        let next = sequence.wrapping_add(advance);
        if self.sequences.len() >= MAX_STREAMS && !self.sequences.contains_key(&(version, stream)) {
            return;
        }
        let stream = self.sequences.entry((version, stream));
        let Entry::Occupied(mut known) = stream else {
            stream.or_insert(Sequence { expected: next, behind: 0 });
            return;
        };
        let known = known.get_mut();
        let gap = sequence.wrapping_sub(known.expected);
        if gap > u32::MAX - MAX_BEHIND && known.behind < MAX_BEHIND_RUN {
            // An older datagram, overtaken on the way: it was counted as lost when the newer one
            // came, and must not turn the expectation back. Several in a row are a restart.
            known.behind += 1;
            self.lost = self.lost.saturating_sub(u64::from(advance));
            return;
        }
        if gap < MAX_GAP {
            self.lost = self.lost.saturating_add(u64::from(gap));
        }
        *known = Sequence { expected: next, behind: 0 };
    }

    /// As an operator sees it; `learned` is what all shards know of its interfaces.
    pub(crate) fn status(&self, learned: Vec<InterfaceStatus>) -> ExporterStatus {
        ExporterStatus {
            id: self.id,
            address: self.address,
            name: self.name.clone(),
            protocol: self.protocol,
            last_seen: self.last_seen,
            datagrams: self.datagrams,
            records: self.records,
            decode_errors: self.errors.iter().sum(),
            unknown_templates: self.unknown_templates,
            lost: self.lost,
            templates: u32::try_from(self.by_key.len()).unwrap_or(u32::MAX),
            sampling: self.applied.0,
            sampling_source: self.applied.1,
            lag_ms: self.lag.percentile(99),
            lag_p50_ms: self.lag.percentile(50),
            active_timeout_ms: u64::from(self.timeouts.known().active_ms),
            duplicates: self.duplicates,
            drops: self.drops(),
            clock_skew_ms: self.clock.skew_ms(),
            interfaces: self.interfaces(learned),
        }
    }

    /// What is known of its interfaces: what was learned, what the operator says, and its counters.
    fn interfaces(&self, learned: Vec<InterfaceStatus>) -> Vec<InterfaceStatus> {
        let named = self.roles.external().iter().map(|index| InterfaceStatus {
            index: *index,
            role: InterfaceRole::SetExternal,
            ..InterfaceStatus::default()
        });
        let mut all: BTreeMap<u32, InterfaceStatus> = BTreeMap::new();
        for status in learned.into_iter().chain(named).chain(self.sources.interfaces()) {
            let known = all.entry(status.index).or_insert_with(|| InterfaceStatus {
                index: status.index,
                ..InterfaceStatus::default()
            });
            known.add(status);
        }
        all.into_values().take(MAX_INTERFACES).collect()
    }

    fn drops(&self) -> Vec<DropCount> {
        let errors = DecodeErrorKind::ALL.iter().zip(self.errors).map(|(kind, n)| (kind.id(), n));
        let others = [
            ("unknown-template", self.unknown_templates),
            ("duplicate", self.duplicates),
            ("not-ip", self.not_ip),
            ("not-traffic", self.not_traffic),
        ];
        let all = errors.chain(others).filter(|(_, count)| *count > 0);
        all.map(|(reason, count)| DropCount { reason: reason.to_owned(), count }).collect()
    }
}
