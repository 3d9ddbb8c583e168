//! The templates of one exporter, those of all its domains in one table.
//!
//! Whatever comes costs what its octets allow: a template is found, replaced and taken back by its
//! key, and who has to give way for it is at the front of a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use weir_model::Millis;

use crate::domain::{Domain, Domains, OVERFLOW};
use crate::error::DecodeErrorKind;
use crate::template::{Definition, Dialect, Kind, Template};
use crate::tenure::{Newcomers, Standing, Tenure};

/// Most octets of template definitions of one exporter: a thousand templates of 250 fields. What
/// is made of them takes about three times as much.
const MAX_DEFINITION_OCTETS: usize = 1 << 20;
/// Most octets of definitions of all exporters: four kilobytes of each of the most there can be. A
/// sender that may forge the addresses of many exporters must not have a megabyte of each.
const MAX_ALL_DEFINITION_OCTETS: usize = 16 << 20;
/// Repetitions closer together are one burst, at the start of a card perhaps. Milliseconds.
const HABIT_MS: u64 = 30_000;
/// Repetitions that make a habit.
const HABIT: u8 = 3;

/// What is known of a template beside what it says.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Told apart from what had its place before; 0 when free.
    serial: u32,
    domain: u32,
    id: u16,
    options: bool,
    octets: usize,
    /// The port that it came from, 0 when not known.
    port: u16,
    tenure: Tenure,
    /// When it last came, and the longest it took to come again.
    refreshed: Millis,
    longest_ms: u64,
    refreshes: u8,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Templates {
    list: Vec<Template>,
    records: Vec<Record>,
    free: Vec<u32>,
    newcomers: Newcomers,
    next_serial: u32,
    /// Of all templates known.
    octets: usize,
    /// Of all exporters' templates, in all shards.
    all_octets: Arc<AtomicUsize>,
    count: usize,
    limit: usize,
    lifetime_ms: u64,
}

impl Drop for Templates {
    fn drop(&mut self) {
        self.all_octets.fetch_sub(self.octets, Relaxed);
    }
}

impl Templates {
    pub(crate) fn new(limit: usize, lifetime_ms: u64, all_octets: Arc<AtomicUsize>) -> Self {
        Self {
            list: Vec::new(),
            records: Vec::new(),
            free: Vec::new(),
            newcomers: Newcomers::default(),
            next_serial: 1,
            octets: 0,
            all_octets,
            count: 0,
            limit,
            lifetime_ms,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Remembers a template of a domain. Says where it is if it is new or has changed.
    pub(crate) fn define(
        &mut self,
        domains: &mut Domains,
        domain: u32,
        definition: &Definition<'_>,
        dialect: Dialect,
        (port, now): (u16, Millis),
    ) -> Result<Option<u32>, DecodeErrorKind> {
        if domain == OVERFLOW {
            return Err(DecodeErrorKind::TooManyTemplates);
        }
        let options = matches!(definition.kind, Kind::Options { .. });
        let known = find(domains.at(domain), definition.id);
        if let Some(index) = known {
            let template = &self.list[index as usize];
            if template.kind == definition.kind && template.definition == definition.bytes {
                let record = &mut self.records[index as usize];
                record.repeated(now);
                record.port = port;
                return Ok(None);
            }
            self.remove(domains, index);
        }
        let octets = definition.bytes.len();
        self.make_room(domains, octets, now)?;
        let record = Record {
            serial: self.next_serial,
            domain,
            id: definition.id,
            options,
            octets,
            port,
            refreshed: now,
            ..Record::default()
        };
        self.next_serial = self.next_serial.wrapping_add(1).max(1);
        let template = definition.compile(dialect);
        let index = match self.free.pop() {
            Some(index) => {
                self.list[index as usize] = template;
                self.records[index as usize] = record;
                index
            }
            None => {
                self.list.push(template);
                self.records.push(record);
                u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.count += 1;
        domains.at_mut(domain).templates[usize::from(options)].insert(definition.id, index);
        let records = &self.records;
        let entry = (index, record.serial);
        self.newcomers.add(entry, self.limit, |entry| standing(records, entry, now));
        Ok(Some(index))
    }

    /// Sees to it that a definition of so many octets finds room, at the cost of those that brought
    /// nothing.
    fn make_room(
        &mut self,
        domains: &mut Domains,
        octets: usize,
        now: Millis,
    ) -> Result<(), DecodeErrorKind> {
        // Each that gives way was paid for by the datagram that brought it.
        while self.count >= self.limit || !self.hold(octets) {
            let records = &self.records;
            let Some((index, _)) = self.newcomers.evict(|entry| standing(records, entry, now))
            else {
                return Err(DecodeErrorKind::TooManyTemplates);
            };
            self.remove(domains, index);
        }
        Ok(())
    }

    /// There are so many octets more of definitions, if all exporters' have room.
    fn hold(&mut self, octets: usize) -> bool {
        if self.octets + octets > MAX_DEFINITION_OCTETS {
            return false;
        }
        let held = self.all_octets.fetch_update(Relaxed, Relaxed, |all| {
            Some(all + octets).filter(|all| *all <= MAX_ALL_DEFINITION_OCTETS)
        });
        if held.is_ok() {
            self.octets += octets;
        }
        held.is_ok()
    }

    /// Forgets one template.
    fn remove(&mut self, domains: &mut Domains, index: u32) {
        let record = self.records[index as usize];
        domains.at_mut(record.domain).templates[usize::from(record.options)].remove(&record.id);
        self.release(index);
    }

    /// Gives a place back whose domain does not know of it any more.
    fn release(&mut self, index: u32) {
        let record = std::mem::take(&mut self.records[index as usize]);
        if record.serial == 0 {
            return;
        }
        self.list[index as usize] = Template::default();
        self.free.push(index);
        self.octets -= record.octets;
        self.all_octets.fetch_sub(record.octets, Relaxed);
        self.count -= 1;
    }

    /// Forgets a template, or all of one kind when the number is that of the set (RFC 7011 §8.1).
    pub(crate) fn withdraw(&mut self, domains: &mut Domains, domain: u32, of: &Definition<'_>) {
        let options = usize::from(matches!(of.kind, Kind::Options { .. }));
        if of.id >= 256 {
            if let Some(index) = find(domains.at(domain), of.id) {
                self.remove(domains, index);
            }
            return;
        }
        for (_, index) in domains.at_mut(domain).templates[options].drain() {
            self.release(index);
        }
    }

    /// Forgets all templates of a domain.
    pub(crate) fn forget(&mut self, domain: &mut Domain) {
        for kind in &mut domain.templates {
            for (_, index) in kind.drain() {
                self.release(index);
            }
        }
    }

    /// Forgets the templates of a domain that came before `began`.
    pub(crate) fn forget_older(&mut self, domains: &mut Domains, domain: u32, began: Millis) {
        let mut kinds = std::mem::take(&mut domains.at_mut(domain).templates);
        for kind in &mut kinds {
            kind.retain(|_, index| {
                let stays = self.records[*index as usize].refreshed >= began;
                if !stays {
                    self.release(*index);
                }
                stays
            });
        }
        domains.at_mut(domain).templates = kinds;
    }

    /// The port from which a template came that a definition from another port changes.
    pub(crate) fn redefined(
        &self,
        domains: &Domains,
        domain: u32,
        new: &Definition<'_>,
        port: u16,
    ) -> Option<u16> {
        let index = find(domains.at(domain), new.id)?;
        let (template, record) = (&self.list[index as usize], &self.records[index as usize]);
        let same = template.kind == new.kind && template.definition == new.bytes;
        let other = record.port != 0 && record.port != port;
        (!same && other && record.tenure.is_good() | (record.refreshes == 0)).then_some(record.port)
    }

    /// Moves a template to another domain.
    pub(crate) fn move_to(&mut self, domains: &mut Domains, from: u32, id: u16, to: u32) {
        let Some(index) = find(domains.at(from), id) else { return };
        let record = &mut self.records[index as usize];
        let options = usize::from(record.options);
        record.domain = to;
        domains.at_mut(from).templates[options].remove(&id);
        for kind in 0..2 {
            if let Some(replaced) = domains.at_mut(to).templates[kind].insert(id, index)
                && replaced != index
            {
                self.release(replaced);
            }
            if kind != options {
                domains.at_mut(to).templates[kind].remove(&id);
            }
        }
    }

    /// Whether a template came at `began` or later.
    pub(crate) fn is_since(&self, index: u32, began: Millis) -> bool {
        self.records[index as usize].refreshed >= began
    }

    /// Where a template is; none if it has not come, or its exporter repeats it no longer.
    #[inline]
    pub(crate) fn find(
        &mut self,
        domains: &mut Domains,
        domain: u32,
        id: u16,
        now: Millis,
    ) -> Option<u32> {
        let index = find(domains.at(domain), id)?;
        if self.records[index as usize].expired(self.lifetime_ms, now) {
            self.remove(domains, index);
            return None;
        }
        Some(index)
    }

    /// All templates, with the places of their domains, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Template, TemplateAge)> {
        let known = self.records.iter().zip(&self.list).filter(|(record, _)| record.serial > 0);
        known.map(|(record, template)| {
            let age = TemplateAge { refreshed: record.refreshed, used: record.tenure.is_proven() };
            (record.domain, template, age)
        })
    }

    /// The template at a place that was named.
    pub(crate) fn at(&self, index: u32) -> &Template {
        &self.list[index as usize]
    }

    /// Lends a template out; [`Templates::put`] brings it back.
    pub(crate) fn take(&mut self, index: u32) -> Template {
        std::mem::take(&mut self.list[index as usize])
    }

    /// Brings a template back; `good` when it was of use.
    pub(crate) fn put(&mut self, index: u32, template: Template, good: bool, now: Millis) {
        self.list[index as usize] = template;
        if good {
            self.records[index as usize].tenure.good(now);
        }
    }

    /// Says how a template stands that an earlier run knew.
    pub(crate) fn restored(&mut self, index: u32, age: TemplateAge, now: Millis) {
        let record = &mut self.records[index as usize];
        record.refreshed = age.refreshed;
        if age.used {
            record.tenure = Tenure::restored(now);
        }
    }
}

/// How old a template is and whether it was of use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TemplateAge {
    pub(crate) refreshed: Millis,
    pub(crate) used: bool,
}

fn find(domain: &Domain, id: u16) -> Option<u32> {
    let [data, options] = &domain.templates;
    data.get(&id).or_else(|| options.get(&id)).copied()
}

fn standing(records: &[Record], (index, serial): (u32, u32), now: Millis) -> Standing {
    match records.get(index as usize) {
        Some(record) if record.serial == serial => record.tenure.standing(now),
        _ => Standing::Gone,
    }
}

impl Record {
    /// It came again.
    fn repeated(&mut self, now: Millis) {
        let interval = now.since(self.refreshed);
        if interval >= HABIT_MS {
            self.longest_ms = self.longest_ms.max(interval);
            self.refreshes = self.refreshes.saturating_add(1);
        }
        self.refreshed = now;
    }

    /// Whether its exporter, that used to repeat it, has stopped (RFC 7011 §8.4, RFC 3954 §9). One that
    /// sends templates only when a card starts never had the habit.
    #[inline]
    fn expired(&self, lifetime_ms: u64, now: Millis) -> bool {
        let age = now.since(self.refreshed);
        age > lifetime_ms
            && lifetime_ms > 0
            && self.refreshes >= HABIT
            && age > self.longest_ms.saturating_mul(3)
    }
}
