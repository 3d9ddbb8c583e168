//! Sets of NetFlow v9 and IPFIX: templates, options and data.
//!
//! ```text
//! set  id: 0, 1 (v9) or 2, 3 (IPFIX) are templates and options templates, 256.. is data   16 bits
//!      length, these four octets included                                                 16 bits
//! ```

use std::ops::Range;

use weir_model::SamplingSource;

use super::flow::{Export, flows, plain_flow};
use super::{Context, Visit};
use crate::domain::DomainKey;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::fields::{
    Fields, LOAD, Places, Raw, SAMPLING, SECTION, Slot, TRAFFIC, number, section_place,
};
use crate::read::be16;
use crate::sampling::Scope;
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
    match cx.exporter.define(cx.domain, definition, dialect, cx.now) {
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
    if cx.exporter.pending.octets() == 0 {
        return;
    }
    let (now, correction) = (cx.now, cx.correction);
    let mut payload = vec![0; LOAD];
    while let Some(waiting) = cx.exporter.pending.take(domain, id, now, &mut payload) {
        let export = Export { domain, uptime: waiting.uptime, unix_ms: waiting.unix_ms };
        let set = Set { payload: &payload, start: LOAD, end: payload.len() };
        cx.now = waiting.arrived;
        let clock = &cx.exporter.domains.at(cx.domain).clock;
        cx.correction = clock.correction(waiting.unix_ms, cx.now);
        cx.visit.waited(true);
        data_set(cx, &export, id, set, &mut Found::default());
        cx.visit.waited(false);
        (cx.now, cx.correction) = (now, correction);
        payload.truncate(LOAD);
    }
}

fn data_set<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    id: u16,
    set: Set<'_>,
    found: &mut Found,
) {
    let Some(index) = cx.exporter.template(cx.domain, id, cx.now) else {
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
    } else if let Some(places) = &template.places {
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
    let sampling = Rate::new(cx, export, template).rate;
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
    let mut rate = Rate::new(cx, export, template);
    let mut raw = Raw::new(template.has);
    for (slot, place) in &template.sections {
        raw.put(*slot, *place);
    }
    let count = set.body().len() / template.record_len;
    let mut start = set.start;
    for _ in 0..count {
        let next = start + template.record_len;
        // The record with the eight octets before it: a field is what is left of the eight octets
        // that end with it, so no length needs a case of its own.
        let Some(window) = set.payload.get(start - LOAD..next) else { break };
        for op in &template.ops {
            let from = usize::from(op.end);
            if let Some(octets) = window.get(from..from + LOAD).and_then(<[u8]>::first_chunk) {
                let value = u64::from_be_bytes(*octets);
                raw.put(op.slot, value & MASKS[usize::from(op.len & 15)]);
            }
        }
        one_record(cx, export, template, &raw, &window[LOAD..], &mut rate);
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
    let mut rate = Rate::new(cx, export, template);
    let mut raw = Raw::new(template.has);
    let mut rest = set;
    let mut count = 0;
    while rest.len() >= template.record_len {
        raw.clear();
        let Some(len) = variable_record(&mut raw, &template.steps, rest) else {
            cx.fault(DecodeErrorKind::BadRecord);
            break;
        };
        let (record, after) = rest.split_at(len);
        rest = after;
        one_record(cx, export, template, &raw, record, &mut rate);
        count += 1;
    }
    count
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
    sampler: Option<u64>,
    per_record: bool,
}

impl Rate {
    fn new<V: Visit>(cx: &mut Context<'_, V>, export: &Export, template: &Template) -> Self {
        let domain = export.domain.domain;
        let (rate, source) = cx.exporter.sampling.resolve(domain, template.id, None, None);
        let per_record = template.has & (SAMPLING | Slot::Sampler.bit()) != 0;
        if !per_record && template.kind == Kind::Data && template.has & TRAFFIC != 0 {
            cx.applied(rate, source);
        }
        Self { rate, source, sampler: None, per_record }
    }

    #[inline]
    fn of<V: Visit>(
        &mut self,
        cx: &mut Context<'_, V>,
        export: &Export,
        template: &Template,
        raw: &Raw,
    ) -> u32 {
        if self.per_record {
            self.look_up(cx, export, template, raw);
        }
        self.rate
    }

    fn look_up<V: Visit>(
        &mut self,
        cx: &mut Context<'_, V>,
        export: &Export,
        template: &Template,
        raw: &Raw,
    ) {
        let sampler = raw.get(Slot::Sampler);
        let says = template.has & SAMPLING != 0;
        if says || sampler != self.sampler {
            self.sampler = sampler;
            let said = if says { raw.sampling().rate() } else { None };
            let domain = export.domain.domain;
            (self.rate, self.source) =
                cx.exporter.sampling.resolve(domain, template.id, sampler, said);
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
            let sampling = rate.of(cx, export, template, raw);
            flows(cx, export, raw, record, sampling);
        }
        Kind::Data => cx.not_traffic(),
        Kind::Options { .. } => option(cx, export.domain, raw),
    }
}

/// What an options record says about the exporter.
fn option<V: Visit>(cx: &mut Context<'_, V>, domain: DomainKey, raw: &Raw) {
    if let Some(rate) = raw.sampling().rate() {
        let template = raw.get(Slot::ScopeTemplate).and_then(|id| u16::try_from(id).ok());
        let scope = Scope { sampler: raw.get(Slot::Sampler), template };
        cx.exporter.sampling.learn(domain.domain, scope, rate);
        cx.visit.learned(domain, scope.sampler, scope.template, rate);
    }
    let (active, inactive) = (raw.u64(Slot::ActiveTimeout), raw.u64(Slot::InactiveTimeout));
    if let Some(timeouts) = cx.exporter.timeouts.said(active, inactive) {
        cx.visit.timeouts(cx.exporter.id, timeouts);
    }
    if raw.u64(Slot::Init) > 0 {
        cx.exporter.domains.at_mut(cx.domain).init_ms = raw.u64(Slot::Init);
    }
}
