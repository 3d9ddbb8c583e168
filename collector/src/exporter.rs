//! What a shard remembers of one exporter.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use weir_model::{
    DropCount, ExporterId, ExporterStatus, ExporterTrouble, FlowProtocol, InterfaceRole,
    InterfaceStatus, Millis, SamplingSource,
};

use crate::bounds::Bounds;
use crate::config::{Config, ExporterConfig};
use crate::connections::Connections;
use crate::domain::{Domain, DomainKey, Domains, OVERFLOW};
use crate::error::DecodeErrorKind;
use crate::links::Links;
use crate::names::Names;
use crate::pending::Pending;
use crate::registry::Sender;
use crate::roles::Roles;
use crate::sampling::{Of, Resolved, SamplingTable, Scope};
use crate::source::Sources;
use crate::template::{Definition, Dialect};
use crate::templates::Templates;
use crate::tenure::Tenure;
use crate::time::{Lag, LearnedTimeouts};

/// Octets of an Ethernet header, to bring layer-2 counts down to layer 3.
pub(crate) const ETHERNET_HEADER: u64 = 14;
/// A clock is said to be off beyond this. Milliseconds.
const CLOCK_OFF_MS: u64 = 5000;
/// A trouble is shown for so long after it was last seen. Milliseconds.
const TROUBLE_SHOWN_MS: u64 = 600_000;
/// Of an exporter that sends for so long, and nothing can be read, that is said. Milliseconds.
const UNREAD_MS: u64 = 60_000;
/// Interfaces shown of one exporter.
const MAX_INTERFACES: usize = 256;

/// One exporter's state in one shard.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) id: ExporterId,
    pub(crate) sender: Sender,
    /// Told apart from what had its place before; 0 when forgotten.
    pub(crate) serial: u32,
    pub(crate) name: String,
    /// Whether it may still send: an operator may have taken it out of the list.
    pub(crate) listed: bool,
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
    pub(crate) links: Links,
    /// Octets of each packet that its records count and that are no part of the IP packet.
    pub(crate) overhead: u64,
    pub(crate) pending: Pending,
    pub(crate) lag: Lag,
    pub(crate) timeouts: LearnedTimeouts,
    /// What of it cannot be, and is not counted, and when there was some last.
    pub(crate) implausible: u64,
    pub(crate) implausible_at: Millis,
    /// When something of it could be read last, at first when it was heard; and when something could
    /// not.
    pub(crate) decoded_at: Millis,
    pub(crate) undecoded_at: Millis,
    /// When two words on its sampling rate last contradicted each other.
    pub(crate) disputed_at: Millis,
    /// The last rate that was too far from what is known to be believed at once, and when.
    pub(crate) doubted: (u32, Millis),
    /// What the exporter calls its interfaces.
    pub(crate) names: Names,
    /// Several senders were told apart by their ports.
    pub(crate) shared_address: bool,
    /// Some domains are those of one port only.
    by_port: bool,
    pub(crate) bounds: Bounds,
    pub(crate) tenure: Tenure,
    /// The sFlow agent it is, where several share an address, or the first one heard.
    pub(crate) agent: Option<IpAddr>,
    pub(crate) connections: Connections,
    pub(crate) domains: Domains,
    pub(crate) templates: Templates,
    applied: (u32, SamplingSource),
}

/// What people call an exporter: an agent behind a relay by the relay's name and its own address, unless
/// it has an entry of its own.
fn name(sender: Sender, entry: Option<&ExporterConfig>) -> String {
    let named = entry.and_then(|e| Some((e.address, e.name.clone()?)));
    match (named, sender.agent) {
        (Some((of, name)), Some(agent))
            if of.contains(&agent) && of.prefix_len() == of.max_prefix_len() =>
        {
            name
        }
        (Some((_, name)), Some(agent)) => format!("{name} ({agent})"),
        (Some((_, name)), None) => name,
        (None, agent) => agent.unwrap_or(sender.address).to_string(),
    }
}

impl Exporter {
    pub(crate) fn new(
        id: ExporterId,
        sender: Sender,
        entry: Option<&ExporterConfig>,
        config: &Config,
        all_definition_octets: Arc<AtomicUsize>,
    ) -> Self {
        let name = name(sender, entry);
        let operator = entry.and_then(|e| e.sampling);
        let fallback = entry.and_then(|e| e.default_sampling);
        Self {
            id,
            sender,
            serial: 0,
            name,
            listed: true,
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
            links: Links::new(entry.map_or(&[], |e| &e.counted_interfaces)),
            pending: Pending::new(config.max_pending_bytes),
            lag: Lag::default(),
            timeouts: LearnedTimeouts::default(),
            applied: (1, SamplingSource::Unknown),
            implausible: 0,
            implausible_at: Millis(0),
            decoded_at: Millis(0),
            undecoded_at: Millis(0),
            disputed_at: Millis(0),
            doubted: (0, Millis(0)),
            names: entry.map_or_else(Names::default, |e| Names::new(&e.interface_names)),
            shared_address: false,
            by_port: false,
            bounds: Bounds::new(entry, config),
            tenure: Tenure::default(),
            agent: None,
            connections: Connections::default(),
            domains: Domains::new(config.max_domains),
            templates: Templates::new(
                config.max_templates,
                config.template_lifetime_secs.saturating_mul(1000),
                all_definition_octets,
            ),
        }
    }

    /// Gives back what it holds: it has been forgotten.
    pub(crate) fn leave(&mut self) {
        let nothing = Config { max_pending_bytes: 0, ..Config::default() };
        let octets = Arc::default();
        *self = Self::new(self.id, self.sender, None, &nothing, octets);
    }

    /// The place of the domain that a message is of.
    #[inline]
    pub(crate) fn domain(&mut self, key: DomainKey, now: Millis) -> u32 {
        match self.domains.find(key) {
            Some(domain) => domain,
            None => self.new_domain(key, now),
        }
    }

    #[cold]
    fn new_domain(&mut self, key: DomainKey, now: Millis) -> u32 {
        let (index, gone) = self.domains.make(key, now);
        if let Some(gone) = gone {
            self.undo(gone);
        }
        index
    }

    /// Gives back what a domain held that has been forgotten.
    fn undo(&mut self, mut gone: Domain) {
        self.templates.forget(&mut gone);
        self.sampling.forget(&gone.sampling);
    }

    /// Takes note of an option on sampling that speaks of a domain.
    pub(crate) fn hear(&mut self, domain: u32, scope: Scope, rate: u32, now: Millis) -> bool {
        if domain == OVERFLOW {
            return false;
        }
        let believed =
            self.sampling.hear(&mut self.domains.at_mut(domain).sampling, scope, rate, now);
        if !believed {
            self.doubted = (rate, now);
        }
        believed
    }

    /// Takes over what was believed before a restart of weir.
    pub(crate) fn learn(&mut self, domain: u32, scope: Scope, rate: u32, now: Millis) {
        if domain != OVERFLOW {
            self.sampling.learn(&mut self.domains.at_mut(domain).sampling, scope, rate);
            self.sampling.said_at(now);
        }
    }

    /// The rate of a record of a domain; that two words on it contradict each other is noted.
    pub(crate) fn rate(&mut self, domain: u32, of: Of, now: Millis) -> Resolved {
        let (rate, disputed) = self.sampling.resolve(&self.domains.at(domain).sampling, of);
        if disputed {
            self.disputed_at = now;
        }
        rate
    }

    /// Takes what the operator says of it now; what it has said itself stays.
    pub(crate) fn set_entry(&mut self, entry: Option<&ExporterConfig>) {
        self.listed = entry.is_some();
        let Some(entry) = entry else { return };
        self.name = name(self.sender, Some(entry));
        self.sampling.operator = entry.sampling;
        self.sampling.fallback = entry.default_sampling;
        self.overhead = if entry.counts_frames { ETHERNET_HEADER } else { 0 };
        self.roles.set_external(&entry.external_interfaces);
        self.names.set(&entry.interface_names);
        self.links.set(&entry.counted_interfaces);
    }

    /// Whether each of its records counts, as it is, and nothing else is to be noted of it.
    #[inline]
    pub(crate) fn takes_all(&self) -> bool {
        self.roles.all_count() && self.overhead == 0 && self.links.is_empty()
    }

    /// Remembers a template. Says where it is if it is new or has changed.
    pub(crate) fn define(
        &mut self,
        domain: u32,
        definition: &Definition<'_>,
        dialect: Dialect,
        (port, now): (u16, Millis),
    ) -> Result<Option<u32>, DecodeErrorKind> {
        self.keep_apart(domain, definition, port, now);
        self.templates.define(&mut self.domains, domain, definition, dialect, (port, now))
    }

    /// Another port defines a number anew: a router that has moved, or a second sender with the same
    /// address and domain. In case of the latter, what the first port has said goes on to hold for it.
    fn keep_apart(&mut self, domain: u32, new: &Definition<'_>, port: u16, now: Millis) {
        let key = self.domains.at(domain).key;
        if domain == OVERFLOW || key.port != 0 || key.session != 0 || port == 0 {
            return;
        }
        let domains = &self.domains;
        let Some(of) = self.templates.redefined(domains, domain, new, port) else { return };
        let own = self.domain(DomainKey { port: of, ..key }, now);
        // The place of a forgotten domain may have been this one's.
        if own != OVERFLOW && self.domains.at(domain).key == key {
            self.templates.move_to(&mut self.domains, domain, new.id, own);
            self.by_port = true;
        }
    }

    /// The domain of a port that shares address and number with another one's, if there is such.
    #[inline]
    pub(crate) fn domain_of_port(&mut self, key: DomainKey, port: u16) -> Option<u32> {
        if !self.by_port {
            return None;
        }
        let own = self.domains.find(DomainKey { port, ..key })?;
        self.shared_address = true;
        Some(own)
    }

    /// Forgets a template, or all of one kind when the number is that of the set (RFC 7011 §8.1).
    pub(crate) fn withdraw(&mut self, domain: u32, definition: &Definition<'_>) {
        self.templates.withdraw(&mut self.domains, domain, definition);
    }

    /// Forgets what came by a connection that has ended.
    pub(crate) fn close(&mut self, session: u32) {
        for index in self.domains.of_session(session) {
            let gone = self.domains.remove(index);
            self.undo(gone);
        }
    }

    /// Where a template is.
    #[inline]
    pub(crate) fn template(&mut self, domain: u32, id: u16, now: Millis) -> Option<u32> {
        self.templates.find(&mut self.domains, domain, id, now)
    }

    /// A domain has restarted: templates that are older than `began` are another life's.
    pub(crate) fn restarted(&mut self, domain: u32, began: Millis) {
        self.templates.forget_older(&mut self.domains, domain, began);
    }

    /// Counts an error of this exporter.
    pub(crate) fn error(&mut self, kind: DecodeErrorKind) {
        self.undecoded_at = self.last_seen;
        let count = &mut self.errors[kind as usize];
        *count = count.saturating_add(1);
    }

    /// Takes note of the sampling rate last used.
    pub(crate) fn applied(&mut self, rate: u32, source: SamplingSource) {
        self.applied = (rate, source);
    }

    /// Follows a domain's sequence numbers: see [`crate::domain::Domain::sequence`].
    pub(crate) fn sequence(&mut self, domain: u32, sequence: u32, advance: u32) {
        if domain != OVERFLOW {
            let missing = self.domains.at_mut(domain).sequence(sequence, advance);
            self.lost = self.lost.saturating_add_signed(missing);
        }
    }

    /// As an operator sees it; `learned` is what all shards know of its interfaces.
    pub(crate) fn status(&self, learned: Vec<InterfaceStatus>) -> ExporterStatus {
        let lately = self.lately(self.doubted.1);
        ExporterStatus {
            id: self.id,
            address: self.sender.address,
            agent: self.agent,
            name: self.name.clone(),
            protocol: self.protocol,
            last_seen: self.last_seen,
            datagrams: self.datagrams,
            records: self.records,
            decode_errors: self.errors.iter().sum(),
            unknown_templates: self.unknown_templates,
            lost: self.lost,
            templates: u32::try_from(self.templates.len()).unwrap_or(u32::MAX),
            sampling: self.applied.0,
            sampling_source: self.applied.1,
            lag_ms: self.lag.percentile(99),
            lag_p50_ms: self.lag.percentile(50),
            active_timeout_ms: u64::from(self.timeouts.known().active_ms),
            duplicates: self.duplicates,
            drops: self.drops(),
            sampling_doubted: if lately { self.doubted.0 } else { 0 },
            clock_skew_ms: self.domains.skew_ms(),
            troubles: self.troubles(),
            interfaces: self.interfaces(learned),
            links: self.links.counts(),
        }
    }

    /// What is wrong with what it sends, as of its last datagram.
    fn troubles(&self) -> Vec<ExporterTrouble> {
        let lately = |at: Millis| self.lately(at);
        let unread = self.undecoded_at.since(self.decoded_at) >= UNREAD_MS;
        let skew = self.domains.skew_ms().unsigned_abs();
        let all = [
            (ExporterTrouble::NothingDecoded, unread),
            (ExporterTrouble::ClockOff, skew > CLOCK_OFF_MS),
            (ExporterTrouble::Implausible, lately(self.implausible_at)),
            (ExporterTrouble::SamplingDisputed, lately(self.disputed_at)),
            (ExporterTrouble::SamplingUnconfirmed, lately(self.doubted.1)),
            (ExporterTrouble::CountersDiffer, self.sources.differ()),
            (ExporterTrouble::SharedAddress, self.shared_address),
        ];
        all.into_iter().filter(|(_, is)| *is).map(|(trouble, _)| trouble).collect()
    }

    fn lately(&self, at: Millis) -> bool {
        at > Millis(0) && self.last_seen.since(at) < TROUBLE_SHOWN_MS
    }

    /// As [`Exporter::sequence`], for version 9.
    pub(crate) fn sequence_v9(&mut self, domain: u32, sequence: u32, records: Option<u32>) {
        if domain != OVERFLOW {
            let missing = self.domains.at_mut(domain).sequence_v9(sequence, records);
            self.lost = self.lost.saturating_add_signed(missing);
        }
    }

    /// Takes note of something that cannot be.
    #[cold]
    pub(crate) fn implausible(&mut self, now: Millis) {
        self.implausible = self.implausible.wrapping_add(1);
        self.implausible_at = now;
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
        // Of interfaces of which nothing but the name is known, as many as there is room for.
        for (index, name) in self.names.iter() {
            if all.len() >= MAX_INTERFACES && !all.contains_key(&index) {
                continue;
            }
            let known = all
                .entry(index)
                .or_insert_with(|| InterfaceStatus { index, ..InterfaceStatus::default() });
            name.tell(known);
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
            ("implausible", self.implausible),
        ];
        let all = errors.chain(others).filter(|(_, count)| *count > 0);
        all.map(|(reason, count)| DropCount { reason: reason.to_owned(), count }).collect()
    }
}
