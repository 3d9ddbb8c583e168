//! Sets of NetFlow v9 and IPFIX: templates, options and data.
//!
//! ```text
//! set  id: 0, 1 (v9) or 2, 3 (IPFIX) are templates and options templates, 256.. is data   16 bits
//!      length, these four octets included                                                 16 bits
//! ```

use weir_model::SamplingSource;

use super::flow::{Export, flows};
use super::{Context, Visit};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::exporter::DomainKey;
use crate::fields::{Raw, apply};
use crate::read::be16;
use crate::sampling::Scope;
use crate::template::{Definition, Dialect, Kind, Op, Template, VARIABLE};

/// What a walk over the sets of one message found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Data and option records, as IPFIX's sequence counts them.
    pub(super) records: u32,
    /// Some sets could not be read, so the sequence cannot be foretold.
    pub(super) unread: bool,
}

/// Reads sets until the message ends or a set's length makes no sense. What is wrong inside a
/// set is counted and costs that set only. `base` is the message's place in the datagram.
pub(super) fn sets<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    dialect: Dialect,
    body: &[u8],
    base: usize,
) -> (Found, Result<(), DecodeError>) {
    let mut found = Found::default();
    let mut at = 0;
    let result = loop {
        let rest = &body[at..];
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
            break Err(DecodeError::new(DecodeErrorKind::BadSetLength, base + at));
        }
        let Some(set) = rest.get(4..len) else {
            // A set that overruns the message: neither its length nor its content is believed.
            found.unread = true;
            break Err(DecodeError::new(DecodeErrorKind::Truncated, base + at));
        };
        one_set(cx, export, dialect, id, set, &mut found);
        at += len;
    };
    (found, result)
}

fn one_set<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    dialect: Dialect,
    id: u16,
    set: &[u8],
    found: &mut Found,
) {
    match (dialect, id) {
        (Dialect::V9, 0) | (Dialect::Ipfix, 2) => templates(cx, export, dialect, set, false),
        (Dialect::V9, 1) | (Dialect::Ipfix, 3) => templates(cx, export, dialect, set, true),
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
    while rest.len() >= 4 {
        let Some(definition) = Definition::read(rest, options, dialect) else {
            cx.exporter.error(DecodeErrorKind::BadTemplate);
            return;
        };
        rest = &rest[definition.bytes.len()..];
        if definition.is_withdrawal() && dialect == Dialect::Ipfix {
            cx.exporter.withdraw(export.domain, &definition);
        } else if definition.id < 256 || definition.is_withdrawal() {
            // Padding that looks like a definition, or nonsense.
            if definition.id != 0 {
                cx.exporter.error(DecodeErrorKind::BadTemplate);
            }
            return;
        } else if let Err(kind) = cx.exporter.define(export.domain, &definition, dialect) {
            cx.exporter.error(kind);
        }
    }
}

fn data_set<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    id: u16,
    set: &[u8],
    found: &mut Found,
) {
    let Some(index) = cx.exporter.template(export.domain, id) else {
        cx.exporter.unknown_templates = cx.exporter.unknown_templates.wrapping_add(1);
        found.unread = true;
        return;
    };
    // Taken out for the time of the set, so that records can be handed on while it is read.
    let template = cx.exporter.take_template(index);
    let count = if template.record_len == 0 {
        cx.exporter.error(DecodeErrorKind::BadTemplate);
        found.unread = true;
        0
    } else if template.variable {
        variable_records(cx, export, &template, set)
    } else {
        fixed_records(cx, export, &template, set)
    };
    match template.kind {
        Kind::Data => cx.data_records(count),
        Kind::Options { .. } => {
            cx.tally.option_records = cx.tally.option_records.wrapping_add(count as u64);
        }
    }
    found.records = found.records.wrapping_add(u32::try_from(count).unwrap_or(0));
    cx.exporter.put_template(index, template);
}

fn fixed_records<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    template: &Template,
    set: &[u8],
) -> usize {
    let mut rate = Rate::new(cx, export, template);
    let records = set.chunks_exact(template.record_len);
    let count = records.len();
    for record in records {
        let mut raw = Raw::default();
        for op in &template.ops {
            let from = usize::from(op.offset);
            if let Some(field) = record.get(from..from + usize::from(op.len)) {
                apply(&mut raw, op.target, field);
            }
        }
        one_record(cx, export, template, &raw, &mut rate);
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
    let mut rest = set;
    let mut count = 0;
    while rest.len() >= template.record_len {
        let mut raw = Raw::default();
        let Some(len) = variable_record(&mut raw, &template.ops, rest) else {
            cx.exporter.error(DecodeErrorKind::BadRecord);
            break;
        };
        rest = &rest[len..];
        one_record(cx, export, template, &raw, &mut rate);
        count += 1;
    }
    count
}

/// Reads one record with variable lengths; says how long it was, `None` when it overruns.
fn variable_record<'a>(raw: &mut Raw<'a>, ops: &[Op], rest: &'a [u8]) -> Option<usize> {
    let mut at = 0;
    for op in ops {
        let mut len = usize::from(op.len);
        if op.len == VARIABLE {
            // One octet, or 255 and then two (RFC 7011 §7). 0 is a length like any other.
            len = usize::from(*rest.get(at)?);
            at += 1;
            if len == 255 {
                len = usize::from(be16(rest, at)?);
                at += 2;
            }
        }
        let field = rest.get(at..at + len)?;
        if len > 0 {
            apply(raw, op.target, field);
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
        let (rate, source) =
            cx.exporter.sampling.resolve(export.domain.domain, template.id, None, None);
        let per_record = template.traits.sampler || template.traits.sampling;
        if !per_record && template.kind == Kind::Data {
            cx.exporter.applied(rate, source);
        }
        Self { rate, source, sampler: None, per_record }
    }

    fn of<V: Visit>(
        &mut self,
        cx: &mut Context<'_, V>,
        export: &Export,
        template: &Template,
        raw: &Raw<'_>,
    ) -> u32 {
        if !self.per_record {
            return self.rate;
        }
        if template.traits.sampling || raw.sampler != self.sampler {
            self.sampler = raw.sampler;
            let said = if template.traits.sampling { raw.sampling.rate() } else { None };
            (self.rate, self.source) =
                cx.exporter.sampling.resolve(export.domain.domain, template.id, raw.sampler, said);
        }
        cx.exporter.applied(self.rate, self.source);
        self.rate
    }
}

fn one_record<V: Visit>(
    cx: &mut Context<'_, V>,
    export: &Export,
    template: &Template,
    raw: &Raw<'_>,
    rate: &mut Rate,
) {
    match template.kind {
        Kind::Data if template.traits.traffic => {
            let sampling = rate.of(cx, export, template, raw);
            flows(cx, export, template.traits, raw, sampling);
        }
        Kind::Data => cx.tally.not_traffic = cx.tally.not_traffic.wrapping_add(1),
        Kind::Options { .. } => option(cx, export.domain, raw),
    }
}

/// What an options record says about the exporter.
fn option<V: Visit>(cx: &mut Context<'_, V>, domain: DomainKey, raw: &Raw<'_>) {
    if let Some(rate) = raw.sampling.rate() {
        let scope = Scope { sampler: raw.sampler, template: raw.template };
        cx.exporter.sampling.learn(domain.domain, scope, rate);
    }
    if raw.time.init > 0 {
        cx.exporter.init_ms = raw.time.init;
    }
}
