//! Sets of NetFlow v9 and IPFIX: templates, options and data.
//!
//! ```text
//! set  id: 0, 1 (v9) or 2, 3 (IPFIX) are templates and options templates, 256.. is data   16 bits
//!      length, these four octets included                                                 16 bits
//! ```

use std::ops::Range;

use weir_model::SamplingSource;

use super::flow::{Export, addresses, flows, plain_flow};
use super::packet::View;
use super::{Context, Visit};
use crate::config::Tunnel;
use crate::domain::DomainKey;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::fields::{
    Fields, LOAD, Places, Raw, SAMPLING, SECTION, SEVERAL, Slot, TRAFFIC, number, section_place,
};
use crate::names;
use crate::read::be16;
use crate::sampling::{Of, Scope};
use crate::template::{Definition, Dialect, Kind, Step, Template, VARIABLE};

/// What a walk over the sets of one message found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Data and option records, as IPFIX's sequence counts them.
    pub(super) records: u32,
    /// Some sets could not be read, so the sequence cannot be foretold.
    pub(super) unread: bool,
}

/// Reads the sets of the message that lies at `message` in `payload`, its header not included,
/// until it ends or a set's length makes no sense. What is wrong inside a set is counted and costs
/// that set only.
pub(super) fn sets<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    dialect: Dialect,
    payload: &[u8],
    message: Range<usize>,
) -> (Found, Result<(), DecodeError>) {
    let mut found = Found::default();
    let mut at = message.start;
    let end = message.end.min(payload.len());
    let result = loop {
        let rest = payload.get(at..end).unwrap_or_default();
        if rest.len() < 4 {
            break Ok(());
        }
        let (id, len) = (be16(rest, 0).unwrap_or(0), usize::from(be16(rest, 2).unwrap_or(0)));
        if id == 0 && len == 0 {
            // Datagrams of a fixed size, filled up with zeros (Palo Alto, Cisco ACI).
            break Ok(());
        }
        if len < 4 {
            found.unread = true;
            break Err(DecodeError::new(DecodeErrorKind::BadSetLength, at));
        }
        if len > rest.len() {
            // A set that overruns the message: neither its length nor its content is believed.
            found.unread = true;
            break Err(DecodeError::new(DecodeErrorKind::Truncated, at));
        }
        let set = Set { payload, start: at + 4, end: at + len };
        one_set(cx, export, dialect, id, set, &mut found);
        at += len;
    };
    (found, result)
}

/// A set's content, with what stands before it in the datagram.
#[derive(Clone, Copy)]
struct Set<'a> {
    payload: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Set<'a> {
    fn body(&self) -> &'a [u8] {
        self.payload.get(self.start..self.end).unwrap_or_default()
    }
}

/// What is left of eight octets by the length of the field that ends with them. A table, because
/// shifting by a variable takes three operations on processors without BMI2.
const MASKS: [u64; 16] = masks();

const fn masks() -> [u64; 16] {
    let mut masks = [u64::MAX; 16];
    let mut len = 0;
    while len < LOAD {
        masks[len] = (1 << (len * 8)) - 1;
        len += 1;
    }
    masks
}

fn one_set<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    dialect: Dialect,
    id: u16,
    set: Set<'_>,
    found: &mut Found,
) {
    match (dialect, id) {
        (Dialect::V9, 0) | (Dialect::Ipfix, 2) => templates(cx, export, dialect, set.body(), false),
        (Dialect::V9, 1) | (Dialect::Ipfix, 3) => templates(cx, export, dialect, set.body(), true),
        (_, 256..) => data_set(cx, export, id, set, found),
        // Reserved numbers: nothing is known about their content.
        _ => found.unread = true,
    }
}

fn templates<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    dialect: Dialect,
    set: &[u8],
    options: bool,
) {
    let mut rest = set;
    // Zeros fill the set up.
    while rest.len() >= 4 && rest.iter().any(|octet| *octet != 0) {
        let Some(definition) = Definition::read(rest, options, dialect) else {
            cx.fault(DecodeErrorKind::BadTemplate);
            return;
        };
        rest = &rest[definition.bytes.len()..];
        if definition.is_withdrawal() && dialect == Dialect::Ipfix {
            cx.exporter.withdraw(cx.domain, &definition);
            cx.visit.withdrawal(export.domain, definition.id);
        } else if definition.id < 256 || definition.is_empty() {
            // A number that no data set can have, or nothing in it; how long it is can be told.
            cx.fault(DecodeErrorKind::BadTemplate);
        } else {
            define(cx, export, &definition, dialect);
        }
    }
}

fn define<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    definition: &Definition<'_>,
    dialect: Dialect,
) {
    let from = (cx.port, cx.now);
    match cx.exporter.define(cx.domain, definition, dialect, from) {
        Ok(Some(changed)) => {
            cx.visit.template(export.domain, cx.exporter.templates.at(changed));
            catch_up(cx, export.domain, definition.id);
        }
        Ok(None) => {}
        Err(kind) => cx.fault(kind),
    }
}

/// Decodes what has waited for a template, as of the time it arrived.
fn catch_up<V: Visit>(cx: &mut Context<'_, V>, domain: DomainKey, id: u16) {
    let (now, correction) = (cx.now, cx.correction);
    let mut payload = Vec::new();
    while let Some(waiting) = cx.exporter.pending.take(domain, id, now) {
        payload.resize(LOAD, 0);
        payload.extend(&waiting.body);
        let export = Export { domain, uptime: waiting.uptime, unix_ms: waiting.unix_ms };
        let set = Set { payload: &payload, start: LOAD, end: payload.len() };
        cx.now = waiting.arrived;
        let clock = &cx.exporter.domains.at(cx.domain).clock;
        cx.correction = clock.correction(waiting.unix_ms, cx.now);
        cx.visit.waited(true);
        data_set(cx, &export, id, set, &mut Found::default());
        cx.visit.waited(false);
        (cx.now, cx.correction) = (now, correction);
        payload.clear();
    }
}

fn data_set<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    id: u16,
    set: Set<'_>,
    found: &mut Found,
) {
    let Some(index) = cx.template(id) else {
        cx.exporter.unknown_templates = cx.exporter.unknown_templates.wrapping_add(1);
        cx.exporter.undecoded_at = cx.now;
        cx.visit.unknown_template(export.domain, id, set.body().len());
        let time = (export.uptime, export.unix_ms);
        cx.exporter.pending.keep(export.domain, id, time, cx.now, set.body());
        found.unread = true;
        return;
    };
    // Taken out for the time of the set, so that records can be handed on while it is read.
    let template = cx.exporter.templates.take(index);
    let flows = cx.tally.flows;
    let count = if template.record_len == 0 {
        cx.fault(DecodeErrorKind::BadTemplate);
        found.unread = true;
        0
    } else if template.variable {
        variable_records(cx, export, &template, set.body())
    } else if let Some(places) = &template.places
        && cx.exporter.domains.at(cx.domain).sampling.interfaces.is_empty()
    {
        placed_records(cx, export, &template, places, set)
    } else {
        fixed_records(cx, export, &template, set)
    };
    match template.kind {
        Kind::Data => cx.data_records(count),
        Kind::Options { .. } => {
            cx.tally.option_records = cx.tally.option_records.wrapping_add(count as u64);
            cx.exporter.decoded_at = cx.now;
        }
    }
    found.records = found.records.wrapping_add(u32::try_from(count).unwrap_or(0));
    let options = matches!(template.kind, Kind::Options { .. });
    let good = cx.tally.flows != flows || (options && count > 0);
    cx.exporter.templates.put(index, template, good, cx.now);
}

/// Flow records that are all alike.
fn placed_records<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    template: &Template,
    places: &Places,
    set: Set<'_>,
) -> usize {
    let sampling = Rate::new(cx, template).rate;
    let count = set.body().len() / template.record_len;
    let mut start = set.start;
    for _ in 0..count {
        let next = start + template.record_len;
        let Some(window) = set.payload.get(start - LOAD..next) else { break };
        plain_flow(cx, export, &places.record(window), sampling);
        start = next;
    }
    count
}

/// Records that are all alike and are not plain flows.
fn fixed_records<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    template: &Template,
    set: Set<'_>,
) -> usize {
    let mut rate = Rate::new(cx, template);
    let mut reading = Reading::new(cx, template);
    let count = set.body().len() / template.record_len;
    let mut start = set.start;
    for _ in 0..count {
        let next = start + template.record_len;
        // The record with the eight octets before it: a field is what is left of the eight octets
        // that end with it, so no length needs a case of its own.
        let Some(window) = set.payload.get(start - LOAD..next) else { break };
        let raw = reading.fixed(cx.view, window);
        one_record(cx, export, template, raw, &window[LOAD..], &mut rate);
        start = next;
    }
    count
}

fn variable_records<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    template: &Template,
    set: &[u8],
) -> usize {
    let mut rate = Rate::new(cx, template);
    let mut reading = Reading::new(cx, template);
    let mut rest = set;
    let mut count = 0;
    while rest.len() >= template.record_len {
        let Some((len, raw)) = reading.variable(cx.view, rest) else {
            cx.fault(DecodeErrorKind::BadRecord);
            break;
        };
        let (record, after) = rest.split_at(len);
        rest = after;
        one_record(cx, export, template, raw, record, &mut rate);
        count += 1;
    }
    count
}

/// How the records of one set are read: as their outer header has them, or as the inner one if that counts
/// and there is one.
struct Reading<'a> {
    template: &'a Template,
    raw: Raw,
    inner: Option<(&'a Template, Raw)>,
}

impl<'a> Reading<'a> {
    fn new<V: Visit>(cx: &Context<'_, V>, template: &'a Template) -> Self {
        let inner = template.inner.as_deref().filter(|_| cx.view.tunnel == Tunnel::Inner);
        let raw = |template: &Template| {
            let mut raw = Raw::new(template.has);
            template.sections.iter().for_each(|(slot, place)| raw.put(*slot, *place));
            raw
        };
        Self { template, raw: raw(template), inner: inner.map(|inner| (inner, raw(inner))) }
    }

    /// Reads a record that `window` holds, with the eight octets before it.
    #[inline]
    fn fixed(&mut self, view: View<'_>, window: &[u8]) -> &Raw {
        fixed_record(&mut self.raw, self.template, window);
        if let Some((template, raw)) = &mut self.inner {
            fixed_record(raw, template, window);
        }
        self.which(view)
    }

    /// Reads the record that `rest` begins with; says how long it was, `None` when it overruns.
    fn variable(&mut self, view: View<'_>, rest: &[u8]) -> Option<(usize, &Raw)> {
        self.raw.clear();
        let len = variable_record(&mut self.raw, &self.template.steps, rest)?;
        if let Some((template, raw)) = &mut self.inner {
            raw.clear();
            variable_record(raw, &template.steps, rest)?;
        }
        Some((len, self.which(view)))
    }

    #[inline]
    fn which(&self, view: View<'_>) -> &Raw {
        let Some((_, inner)) = &self.inner else { return &self.raw };
        let outside = addresses(&self.raw);
        let inside = addresses(inner).is_some();
        let looks = outside.is_none_or(|(_, dst)| view.looks_inside(dst));
        if inside && looks { inner } else { &self.raw }
    }
}

/// Reads a record of fields that are all alike.
#[inline]
fn fixed_record(raw: &mut Raw, template: &Template, window: &[u8]) {
    if template.several {
        raw.forget(SEVERAL);
    }
    for op in &template.ops {
        let from = usize::from(op.end);
        if let Some(octets) = window.get(from..from + LOAD).and_then(<[u8]>::first_chunk) {
            let value = u64::from_be_bytes(*octets) & MASKS[usize::from(op.len & 15)];
            if template.several && SEVERAL >> op.slot & 1 == 1 {
                raw.put_one_of(op.slot, value);
            } else {
                raw.put(op.slot, value);
            }
        }
    }
}

/// Reads one record with variable lengths; says how long it was, `None` when it overruns.
fn variable_record(raw: &mut Raw, steps: &[Step], rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    for step in steps {
        let mut len = usize::from(step.len);
        if step.len == VARIABLE {
            // One octet, or 255 and then two (RFC 7011 §7). 0 is a length like any other.
            len = usize::from(*rest.get(at)?);
            at += 1;
            if len == 255 {
                len = usize::from(be16(rest, at)?);
                at += 2;
            }
        }
        let field = rest.get(at..at + len)?;
        let slot = step.slot as u8;
        match step.slot {
            Slot::Skip => {}
            section if section.bit() & SECTION != 0 => raw.put(slot, section_place(at, len)),
            Slot::Src6High | Slot::Dst6High => {
                if let Some((high, low)) = field.split_at_checked(8) {
                    raw.put(slot, number(high));
                    raw.put(slot + 1, number(low));
                }
            }
            several if several.bit() & SEVERAL != 0 => raw.put_one_of(slot, number(field)),
            _ => raw.put(slot, number(field)),
        }
        at += len;
    }
    Some(at)
}

/// The sampling rate of a set's records, resolved as seldom as the template allows.
struct Rate {
    rate: u32,
    source: SamplingSource,
    /// For which sampler and interface it was resolved last.
    asked: Option<(Option<u64>, u32)>,
    per_record: bool,
}

impl Rate {
    fn new<V: Visit>(cx: &mut Context<'_, V>, template: &Template) -> Self {
        let of = Of { template: template.id, ..Of::default() };
        let (rate, source) = cx.exporter.rate(cx.domain, of, cx.now);
        let per_record = template.has & (SAMPLING | Slot::Sampler.bit()) != 0
            || !cx.exporter.domains.at(cx.domain).sampling.interfaces.is_empty();
        if !per_record && template.kind == Kind::Data && template.has & TRAFFIC != 0 {
            cx.applied(rate, source);
        }
        Self { rate, source, asked: None, per_record }
    }

    #[inline]
    fn of<V: Visit>(&mut self, cx: &mut Context<'_, V>, template: &Template, raw: &Raw) -> u32 {
        if self.per_record {
            self.look_up(cx, template, raw);
        }
        self.rate
    }

    fn look_up<V: Visit>(&mut self, cx: &mut Context<'_, V>, template: &Template, raw: &Raw) {
        let of = Of {
            template: template.id,
            sampler: raw.get(Slot::Sampler),
            interface: raw.u32(Slot::InputIf),
            in_record: None,
        };
        let says = template.has & SAMPLING != 0;
        let asked = (of.sampler, of.interface);
        if says || self.asked != Some(asked) {
            self.asked = Some(asked);
            let in_record = if says { raw.sampling().rate() } else { None };
            (self.rate, self.source) = cx.exporter.rate(cx.domain, Of { in_record, ..of }, cx.now);
        }
        cx.applied(self.rate, self.source);
    }
}

#[inline]
fn one_record<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    template: &Template,
    raw: &Raw,
    record: &[u8],
    rate: &mut Rate,
) {
    match template.kind {
        Kind::Data if template.has & TRAFFIC != 0 => {
            let sampling = rate.of(cx, template, raw);
            flows(cx, export, raw, record, sampling);
        }
        Kind::Data => cx.not_traffic(),
        Kind::Options { .. } => {
            option(cx, export.domain, raw);
            if template.names {
                names::option(&mut cx.exporter.names, template, record);
            }
        }
    }
}

/// The domain that an option speaks of: the one that its scope names, else its own. Routers send the
/// options of all their line cards in one domain.
fn spoken_of<V: Visit>(cx: &mut Context<'_, V>, own: DomainKey, raw: &Raw) -> (DomainKey, u32) {
    let named = raw.get(Slot::ScopeDomain).and_then(|domain| u32::try_from(domain).ok());
    match named.filter(|domain| *domain != 0 && *domain != own.domain) {
        Some(domain) => {
            let key = DomainKey { domain, ..own };
            (key, cx.exporter.domain(key, cx.now))
        }
        None => (own, cx.domain),
    }
}

/// What an options record says about the exporter.
fn option<V: Visit>(cx: &mut Context<'_, V>, domain: DomainKey, raw: &Raw) {
    if let Some(rate) = raw.sampling().rate() {
        let template = raw.get(Slot::ScopeTemplate).and_then(|id| u16::try_from(id).ok());
        let interface = raw.get(Slot::ScopeInterface).and_then(|index| u32::try_from(index).ok());
        let scope = Scope {
            sampler: raw.get(Slot::Sampler),
            template,
            interface: interface.filter(|index| *index > 0),
        };
        let (of, place) = spoken_of(cx, domain, raw);
        if cx.exporter.hear(place, scope, rate, cx.now) {
            cx.visit.learned(of, scope, rate);
        }
    }
    let (active, inactive) = (raw.u64(Slot::ActiveTimeout), raw.u64(Slot::InactiveTimeout));
    if let Some(timeouts) = cx.exporter.timeouts.said(active, inactive) {
        cx.visit.timeouts(cx.exporter.id, timeouts);
    }
    if raw.u64(Slot::Init) > 0 {
        cx.exporter.domains.at_mut(cx.domain).init_ms = raw.u64(Slot::Init);
    }
}
