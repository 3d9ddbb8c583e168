//! Datagram to [`FlowRecord`]s.
//!
//! The version is read from the datagram, so any protocol may come to any port. What is damaged
//! loses itself only: everything decoded before it, and every sound set beside it, counts.

mod flow;
pub(crate) mod ipfix;
mod netflow_v5;
mod netflow_v9;
pub(crate) mod packet;
mod set;
mod sflow;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_model::{ExporterId, FlowRecord, Forwarding, Millis, SamplingSource};

use crate::bounds::Claim;
use crate::domain::{DomainKey, OVERFLOW};
use crate::epoch::{Heard, Mark};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::exporter::Exporter;
use crate::read::{be16, be32, be128};
use crate::sampling::Scope;
use crate::template::Template;
use crate::time::{self, Cut, FlowTime, MAX_AGE_MS, MAX_DURATION_MS, Timeouts, uptime_age};
use packet::View;

/// What decoding yields, as it goes. Only records matter to the receive path; the rest is for
/// people who look on.
pub(crate) trait Visit {
    /// A record or packet sample that is traffic.
    fn record(&mut self, record: &FlowRecord);

    /// A record made where it will stay: written field by field and then copied whole, it would
    /// have to wait for its own small stores.
    #[inline]
    fn make(&mut self, new: impl FnOnce() -> FlowRecord) {
        self.record(&new());
    }

    /// As [`Visit::make`], when `fill` finds that there is a record: it gets one of no meaning.
    #[inline]
    fn make_if(&mut self, fill: impl FnOnce(&mut FlowRecord) -> bool) {
        let mut record = FlowRecord::EMPTY;
        if fill(&mut record) {
            self.record(&record);
        }
    }

    /// Whether the records that follow have waited for their template.
    #[inline]
    fn waited(&mut self, _waited: bool) {}

    /// The sampling rate of the records that follow.
    #[inline]
    fn resolved(&mut self, _rate: u32, _source: SamplingSource) {}

    /// An exporter's timeouts are known, or have changed.
    #[inline]
    fn timeouts(&mut self, _exporter: ExporterId, _timeouts: Timeouts) {}

    /// A template that is new or has changed.
    #[inline]
    fn template(&mut self, _domain: DomainKey, _template: &Template) {}

    /// A template was taken back.
    #[inline]
    fn withdrawal(&mut self, _domain: DomainKey, _id: u16) {}

    /// An option told a sampling rate.
    #[inline]
    fn learned(&mut self, _domain: DomainKey, _scope: Scope, _rate: u32) {}

    /// A data set whose template has not come.
    #[inline]
    fn unknown_template(&mut self, _domain: DomainKey, _id: u16, _octets: usize) {}

    /// Something inside a set or sample could not be read.
    #[inline]
    fn fault(&mut self, _kind: DecodeErrorKind) {}
}

/// What was in the datagrams so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) data_records: u64,
    pub(crate) option_records: u64,
    pub(crate) flow_samples: u64,
    pub(crate) counter_samples: u64,
    pub(crate) drop_samples: u64,
    pub(crate) flows: u64,
    pub(crate) not_ip: u64,
    pub(crate) not_traffic: u64,
}

/// Flows longer than this are handed on as such, milliseconds.
pub(crate) const LONG_FLOW_MS: u64 = 1000;

/// One record in so many shows the lag as well as all.
pub(crate) const LAG_EVERY: usize = 16;

/// Everything a decoder works with.
#[derive(Debug)]
pub(crate) struct Context<'a, V> {
    pub(crate) exporter: &'a mut Exporter,
    pub(crate) tally: &'a mut Tally,
    pub(crate) visit: &'a mut V,
    pub(crate) now: Millis,
    pub(crate) view: View<'a>,
    /// The connection, for IPFIX over TCP; 0 for datagrams.
    pub(crate) session: u32,
    /// Where the exporter keeps what it knows of the domain that speaks.
    pub(crate) domain: u32,
    /// Where it keeps what it knows of the domain of that number, whatever the port.
    pub(crate) any_port: u32,
    /// The sender's port.
    pub(crate) port: u16,
    /// Set when the message seems to be of another life of its domain than the one that is known, which
    /// began then: what is older does not tell how to read it.
    pub(crate) doubtful: Option<Millis>,
    /// By how much that domain's clock is off, in this message. Milliseconds.
    pub(crate) correction: i64,
    /// What is cut off of the flow whose times were last asked for.
    pub(crate) cut: Cut,
}

impl<'a, V: Visit> Context<'a, V> {
    /// For one message of `session`.
    pub(crate) fn new(
        exporter: &'a mut Exporter,
        tally: &'a mut Tally,
        visit: &'a mut V,
        now: Millis,
        view: View<'a>,
        (session, port): (u32, u16),
    ) -> Self {
        Self {
            exporter,
            tally,
            visit,
            now,
            view,
            session,
            domain: OVERFLOW,
            any_port: OVERFLOW,
            port,
            doubtful: None,
            correction: 0,
            cut: Cut::default(),
        }
    }
}

impl<V: Visit> Context<'_, V> {
    /// What a domain says from here on is its own. `unix_ms` is the export time in its header, when there
    /// is one.
    #[inline]
    pub(crate) fn speaks(&mut self, key: DomainKey, unix_ms: Option<u64>) {
        self.any_port = self.exporter.domain(key, self.now);
        let own = self.exporter.domain_of_port(key, self.port);
        self.domain = own.unwrap_or(self.any_port);
        self.doubtful = None;
        if let Some(unix_ms) = unix_ms {
            let clock = &mut self.exporter.domains.at_mut(self.domain).clock;
            clock.exported(unix_ms, self.now);
            self.correction = clock.correction(unix_ms, self.now);
        }
    }

    /// Takes note of where the domain that speaks stands.
    #[inline]
    pub(crate) fn stands(&mut self, mark: Mark) {
        if self.domain == OVERFLOW {
            return;
        }
        match self.exporter.domains.at_mut(self.domain).epochs.heard(mark, self.now) {
            Heard::Known => {}
            Heard::Doubtful(began) => self.doubtful = Some(began),
            Heard::Restarted(began) => self.exporter.restarted(self.domain, began),
        }
    }

    /// Where the template of a data set is, if it tells how to read this message.
    #[inline]
    pub(crate) fn template(&mut self, id: u16) -> Option<u32> {
        let mut found = self.exporter.template(self.domain, id, self.now);
        if found.is_none() && self.domain != self.any_port {
            found = self.exporter.template(self.any_port, id, self.now);
        }
        let began = self.doubtful.unwrap_or_default();
        found.filter(|index| self.exporter.templates.is_since(*index, began))
    }

    /// Hands a record on.
    #[inline]
    pub(crate) fn record(&mut self, record: &FlowRecord) {
        if self.admit(record.input_if, record.output_if, record.start, record.end) {
            let bytes = record.bytes.saturating_mul(u64::from(record.sampling));
            self.carried(record.input_if, record.output_if, bytes, || record.forwarding);
            self.visit.record(record);
        }
    }

    /// Whether a record of so many packets and octets, before scaling, can be true; counts it if not. The whole
    /// claim is asked for where a first look does not tell.
    #[inline]
    pub(crate) fn possible(
        &mut self,
        (packets, bytes): (u64, u64),
        sampling: u32,
        input_if: u32,
        claim: impl FnOnce(Cut) -> Claim,
    ) -> bool {
        self.exporter.bounds.surely(packets, bytes, sampling)
            || self.doubtful(claim(self.cut), input_if)
    }

    #[cold]
    fn doubtful(&mut self, claim: Claim, input_if: u32) -> bool {
        let speed_bps = self.exporter.sources.speed_bps(input_if);
        let possible = self.exporter.bounds.possible(claim, speed_bps);
        if !possible {
            self.exporter.implausible(self.now);
        }
        possible
    }

    /// Whether a record counts, and takes note of it if so.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        input_if: u32,
        output_if: u32,
        start: Millis,
        end: Millis,
    ) -> bool {
        if !self.exporter.roles.counts(input_if, output_if) {
            self.duplicate();
            return false;
        }
        self.counted(start);
        self.lasted(start, end);
        true
    }

    /// Takes note of what the links between which a record's packets went have carried: octets, multiplied
    /// by the sampling rate.
    #[inline]
    pub(crate) fn carried(
        &mut self,
        input_if: u32,
        output_if: u32,
        bytes: u64,
        forwarding: impl FnOnce() -> Forwarding,
    ) {
        if !self.exporter.links.is_empty() {
            let dropped = forwarding() == Forwarding::Dropped;
            self.exporter.links.add(input_if, output_if, bytes, dropped);
        }
    }

    /// Takes note of a record that counts and began at `start`.
    #[inline]
    pub(crate) fn counted(&mut self, start: Millis) {
        if self.tally.flows.is_multiple_of(LAG_EVERY as u64) {
            self.exporter.lag.add(self.now.since(start));
        }
        self.tally.flows = self.tally.flows.wrapping_add(1);
    }

    /// Takes note of a run of records that all count, at most [`LAG_EVERY`], one of which began at
    /// `start`.
    pub(crate) fn admitted(&mut self, records: usize, start: Millis) {
        self.tally.flows = self.tally.flows.wrapping_add(records as u64);
        self.exporter.lag.add(self.now.since(start));
    }

    /// Takes note of whether the domain that spoke brought anything, when there were so many flows before.
    #[inline]
    pub(crate) fn was_good(&mut self, flows: u64) {
        if self.tally.flows != flows && self.domain != OVERFLOW {
            self.exporter.domains.at_mut(self.domain).tenure.good(self.now);
        }
    }

    /// Takes note of how long a record lasted.
    #[inline]
    pub(crate) fn lasted(&mut self, start: Millis, end: Millis) {
        if end.since(start) > LONG_FLOW_MS {
            self.long_flow(end.since(start));
        }
    }

    /// Long flows show when an exporter speaks of running ones.
    #[cold]
    fn long_flow(&mut self, duration: u64) {
        if let Some(timeouts) = self.exporter.timeouts.lasted(duration, self.now) {
            self.visit.timeouts(self.exporter.id, timeouts);
        }
    }

    /// Counts a record that tells of packets which another record has told of.
    pub(crate) fn duplicate(&mut self) {
        self.exporter.duplicates = self.exporter.duplicates.wrapping_add(1);
    }

    /// Counts a record that tells of an event, not of traffic.
    pub(crate) fn not_traffic(&mut self) {
        self.tally.not_traffic = self.tally.not_traffic.wrapping_add(1);
        self.exporter.not_traffic = self.exporter.not_traffic.wrapping_add(1);
    }

    /// Counts a sample of a packet that is not IP.
    pub(crate) fn not_ip(&mut self) {
        self.tally.not_ip = self.tally.not_ip.wrapping_add(1);
        self.exporter.not_ip = self.exporter.not_ip.wrapping_add(1);
    }

    /// Takes note of the sampling rate of the records that follow.
    #[inline]
    pub(crate) fn applied(&mut self, rate: u32, source: SamplingSource) {
        self.exporter.applied(rate, source);
        self.visit.resolved(rate, source);
    }

    /// Counts what could not be read inside a set or sample; the rest of the datagram goes on.
    #[cold]
    pub(crate) fn fault(&mut self, kind: DecodeErrorKind) {
        self.exporter.error(kind);
        self.visit.fault(kind);
    }

    /// Counts records read from the wire, whether or not they were traffic.
    pub(crate) fn data_records(&mut self, count: usize) {
        let count = count as u64;
        self.exporter.decoded_at = self.now;
        self.exporter.records = self.exporter.records.wrapping_add(count);
        self.tally.data_records = self.tally.data_records.wrapping_add(count);
    }

    /// First and last packet on weir's clock, of a record that tells both by its exporter's uptime.
    #[inline]
    pub(crate) fn event_by_uptime(
        &mut self,
        uptime: u32,
        first: u32,
        last: u32,
    ) -> (Millis, Millis) {
        let (age, duration) = (uptime.wrapping_sub(last), last.wrapping_sub(first));
        if let (0..=MAX_AGE_MS, 0..=MAX_DURATION_MS) = (u64::from(age), u64::from(duration)) {
            let end = self.now - u64::from(age);
            self.cut = Cut::default();
            return (end - u64::from(duration), end);
        }
        let (end, duration) = (uptime_age(uptime, last), uptime_age(last, first));
        self.event(FlowTime::Age { end, duration })
    }

    /// First and last packet on weir's clock.
    #[inline]
    pub(crate) fn event(&mut self, time: FlowTime) -> (Millis, Millis) {
        let (start, end, implausible, cut) = time::event(time, self.correction, self.now);
        self.cut = cut;
        if implausible {
            self.exporter.implausible_times = self.exporter.implausible_times.wrapping_add(1);
        }
        (start, end)
    }
}

/// The agent that an sFlow datagram names; none of any other protocol.
#[inline]
pub(crate) fn sflow_agent(payload: &[u8]) -> Option<IpAddr> {
    match (be32(payload, 0)?, be32(payload, 4)?) {
        (5, 1) => Some(IpAddr::V4(Ipv4Addr::from_bits(be32(payload, 8)?))),
        (5, 2) => Some(IpAddr::V6(Ipv6Addr::from_bits(be128(payload, 8)?))),
        _ => None,
    }
}

/// Decodes one datagram of whatever protocol.
pub(crate) fn datagram<V: Visit>(
    cx: &mut Context<'_, V>,
    payload: &[u8],
) -> Result<(), DecodeError> {
    let flows = cx.tally.flows;
    let result = match (be16(payload, 0), be32(payload, 0)) {
        (Some(5), _) => netflow_v5::decode(cx, payload),
        (Some(9), _) => netflow_v9::decode(cx, payload),
        (Some(10), _) => ipfix::decode(cx, payload),
        (_, Some(5)) => sflow::decode(cx, payload),
        (None, _) => Err(DecodeError::new(DecodeErrorKind::ShortHeader, payload.len())),
        _ => Err(DecodeError::new(DecodeErrorKind::UnknownVersion, 0)),
    };
    if cx.tally.flows != flows {
        cx.exporter.tenure.good(cx.now);
    }
    result
}

/// Average layer-3 octets of a packet.
#[inline]
pub(crate) fn average_length(packets: u64, bytes: u64) -> u16 {
    // Almost always both fit in 32 bits, and a division of those takes half as long.
    let average = match (u32::try_from(packets), u32::try_from(bytes)) {
        (Ok(packets), Ok(bytes)) => bytes.checked_div(packets).map(u64::from),
        _ => bytes.checked_div(packets),
    };
    average.map_or(0, |n| u16::try_from(n).unwrap_or(u16::MAX))
}

/// ICMP has no ports: exporters put type and code into the destination port.
#[inline]
pub(crate) fn split_icmp(record: &mut FlowRecord) {
    if matches!(record.protocol, 1 | 58) {
        let [kind, code] = record.dst_port.to_be_bytes();
        (record.icmp_type, record.icmp_code) = (kind, code);
        (record.src_port, record.dst_port) = (0, 0);
    }
}
