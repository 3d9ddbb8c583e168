//! A question, read and carried out over the files.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use weir_model::{
    ArchivedFlow, FlowAnswer, FlowGroup, FlowOrder, FlowPoint, FlowQuery, FlowSums, address_of,
    bits_of,
};

use crate::archive::Shared;
use crate::catalog::Entry;
use crate::columns::{Column, Columns};
use crate::file::Reader;
use crate::filter::{Filter, FilterError, PROTOCOLS};
use crate::log;

/// Dimensions of one question.
const BY_MAX: usize = 4;
/// Rows of one answer.
const TOP_MAX: u32 = 10_000;
/// Steps of one time series.
const STEPS_MAX: u64 = 10_000;
/// Points in one answer.
const POINTS_MAX: usize = 200_000;

/// What a question may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time.
    pub time: Duration,
    /// Groups, and steps of groups, kept in memory: some 200 octets each.
    pub groups: usize,
    /// Threads.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(20), groups: 1_000_000, threads: 2 }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The filter is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The question is.
    #[error("{0}")]
    Wrong(String),
    /// It costs too much.
    #[error("{0}")]
    Limit(String),
    /// Others ask.
    #[error("{0}")]
    Busy(&'static str),
    /// Whoever asked has gone.
    #[error("nobody waits for the answer")]
    Cancelled,
    /// A file cannot be read.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What is grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    /// A column as it is.
    Plain(Column),
    /// An address, cut to so many bits of IPv4 and of IPv6.
    Net(Column, u8, u8),
}

impl Dimension {
    fn parse(text: &str) -> Result<Self, QueryError> {
        let wrong = || {
            QueryError::Wrong(format!(
                "{text:?} is no dimension: src, dst, src/24, dst/24/48, src-port, dst-port, proto, flags, exporter, in-if, out-if"
            ))
        };
        let mut parts = text.split('/');
        let column = match parts.next().unwrap_or_default() {
            "src" => Column::Src,
            "dst" => Column::Dst,
            "src-port" => Column::SrcPort,
            "dst-port" => Column::DstPort,
            "proto" => Column::Protocol,
            "flags" => Column::TcpFlags,
            "exporter" => Column::Exporter,
            "in-if" => Column::InIf,
            "out-if" => Column::OutIf,
            _ => return Err(wrong()),
        };
        let lengths: Result<Vec<u8>, _> = parts.map(str::parse).collect();
        match (column, lengths.map_err(|_| wrong())?.as_slice()) {
            (_, []) => Ok(Self::Plain(column)),
            (Column::Src | Column::Dst, [v4 @ 0..=32]) => Ok(Self::Net(column, *v4, 48)),
            (Column::Src | Column::Dst, [v4 @ 0..=32, v6 @ 0..=128]) => {
                Ok(Self::Net(column, *v4, *v6))
            }
            _ => Err(wrong()),
        }
    }

    const fn column(self) -> Column {
        match self {
            Self::Plain(column) | Self::Net(column, ..) => column,
        }
    }

    fn key(self, columns: &Columns, row: usize) -> u128 {
        let value = columns.at(self.column(), row);
        match self {
            Self::Plain(_) => value,
            Self::Net(_, v4, v6) => {
                // Mapped IPv4 has 96 bits before its own.
                let keep = if is_v4(value) { 96 + u32::from(v4) } else { u32::from(v6) };
                value & u128::MAX.checked_shl(128 - keep).unwrap_or(0)
            }
        }
    }

    fn text(self, value: u128) -> String {
        match self {
            Self::Net(_, v4, v6) => {
                let len = if is_v4(value) { v4 } else { v6 };
                format!("{}/{len}", address_of(value))
            }
            Self::Plain(column) if column.is_address() => address_of(value).to_string(),
            Self::Plain(Column::Protocol) => PROTOCOLS
                .iter()
                .find(|(_, number)| u128::from(*number) == value)
                .map_or_else(|| value.to_string(), |(name, _)| (*name).to_owned()),
            Self::Plain(Column::TcpFlags) => {
                let set = "FSRPAUEC".chars().enumerate().filter(|(bit, _)| value >> bit & 1 == 1);
                let set: String = set.map(|(_, letter)| letter).collect();
                if set.is_empty() { "-".to_owned() } else { set }
            }
            Self::Plain(_) => value.to_string(),
        }
    }
}

fn is_v4(bits: u128) -> bool {
    bits >> 32 == bits_of(IpAddr::from([0, 0, 0, 0])) >> 32
}

/// A question that makes sense.
#[derive(Clone, Debug)]
struct Plan {
    /// Filter and time.
    whole: Filter,
    from: u64,
    to: u64,
    by: Vec<Dimension>,
    top: usize,
    order: FlowOrder,
    step_ms: u64,
    records: bool,
    /// Columns that decide whether a row fits.
    first: Vec<Column>,
    /// Columns of rows that do.
    then: Vec<Column>,
}

impl Plan {
    fn new(query: &FlowQuery, now: u64) -> Result<Self, QueryError> {
        let wrong = |text: &str| QueryError::Wrong(text.to_owned());
        let to = query.to.unwrap_or(now);
        let from = query.from.unwrap_or_else(|| to.saturating_sub(3_600_000));
        if from >= to {
            return Err(wrong("from must be before to"));
        }
        if query.by.len() > BY_MAX {
            return Err(QueryError::Wrong(format!("at most {BY_MAX} dimensions")));
        }
        let top = query.top.unwrap_or(10);
        if !(1..=TOP_MAX).contains(&top) {
            return Err(QueryError::Wrong(format!("top is 1 to {TOP_MAX}")));
        }
        let step_ms = match query.every {
            Some(0) => return Err(wrong("every is at least 1 second")),
            Some(secs) => u64::from(secs) * 1000,
            None => 0,
        };
        if (to - from).checked_div(step_ms).is_some_and(|steps| steps >= STEPS_MAX) {
            return Err(QueryError::Limit(format!(
                "a time series of more than {STEPS_MAX} steps: ask for longer steps or less time"
            )));
        }
        if query.records && (step_ms > 0 || !query.by.is_empty()) {
            return Err(wrong("records go with neither dimensions nor a time series"));
        }
        let filter = Filter::parse(&query.filter)?;
        let by = query.by.iter().map(|d| Dimension::parse(d)).collect::<Result<Vec<_>, _>>()?;
        let time = Filter::Within(Column::End, from.into(), (to - 1).into());
        let whole = Filter::All(vec![time, filter]);
        let mut first = Vec::new();
        whole.columns(&mut first);
        let mut then = vec![Column::Octets, Column::Packets, Column::Sampling, Column::Thinned];
        then.extend(by.iter().map(|dimension| dimension.column()));
        if query.records {
            then = Column::ALL.to_vec();
        }
        let (order, top) = (query.order, usize::try_from(top).unwrap_or(1));
        let records = query.records;
        Ok(Self { whole, from, to, by, top, order, step_ms, records, first, then })
    }
}

type Key = [u128; BY_MAX];

#[derive(Debug, Default)]
struct Group {
    sums: FlowSums,
    steps: BTreeMap<u64, FlowSums>,
}

/// What one thread has found.
#[derive(Debug, Default)]
struct Found {
    groups: HashMap<Key, Group>,
    total: FlowSums,
    /// The earliest, latest on top.
    records: BinaryHeap<ArchivedFlow>,
    thinned: u32,
    looked_at: u64,
    unread: u64,
}

/// What all threads of a question look at.
struct Run<'a> {
    plan: &'a Plan,
    entries: &'a [std::sync::Arc<Entry>],
    next: AtomicUsize,
    groups: AtomicUsize,
    limits: Limits,
    began: Instant,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    stop: AtomicBool,
}

/// Carries a question out. `cancelled` says whether nobody waits any more.
///
/// # Errors
/// When the question is wrong, costs more than the limits, or a file cannot be read.
pub fn answer(
    shared: &Shared,
    query: &FlowQuery,
    limits: Limits,
    now: u64,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<FlowAnswer, QueryError> {
    let plan = Plan::new(query, now)?;
    let mut entries = shared.catalog.now();
    entries.retain(|entry| {
        entry.ends.is_none_or(|(first, last)| first < plan.to && plan.from <= last)
    });
    let run = Run {
        plan: &plan,
        entries: &entries,
        next: AtomicUsize::new(0),
        groups: AtomicUsize::new(0),
        limits,
        began: Instant::now(),
        cancelled,
        stop: AtomicBool::new(false),
    };
    let all = Mutex::new(Found::default());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..limits.threads.clamp(1, entries.len().max(1)) {
            scope.spawn(|| {
                let mut found = Found::default();
                let outcome = run.work(&mut found);
                // The others end at their next look.
                run.stop.fetch_or(outcome.is_err(), Ordering::Relaxed);
                match outcome {
                    Ok(()) => {
                        merge(&plan, &mut all.lock().unwrap_or_else(PoisonError::into_inner), found)
                    }
                    Err(error) => {
                        let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        first.get_or_insert(error);
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let found = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut answer = shown(&plan, found)?;
    answer.took_ms = u64::try_from(run.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    answer.archive = shared.state();
    Ok(answer)
}

fn merge(plan: &Plan, all: &mut Found, own: Found) {
    all.total.add(own.total);
    all.thinned = all.thinned.max(own.thinned);
    all.looked_at += own.looked_at;
    all.unread += own.unread;
    for (key, group) in own.groups {
        let into = all.groups.entry(key).or_default();
        into.sums.add(group.sums);
        for (at, sums) in group.steps {
            into.steps.entry(at).or_default().add(sums);
        }
    }
    all.records.extend(own.records);
    while all.records.len() > plan.top {
        all.records.pop();
    }
}

impl Run<'_> {
    fn work(&self, found: &mut Found) -> Result<(), QueryError> {
        while let Some(entry) = self.entries.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let outcome =
                if entry.is_log() { self.log(entry, found) } else { self.file(entry, found) };
            match outcome {
                // The oldest went while it was its turn: the archive begins later now.
                Err(QueryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                // One damaged file is no reason to hide the others.
                Err(QueryError::Io(error)) => {
                    entry.unreadable(&error);
                    found.unread += 1;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn look(&self) -> Result<(), QueryError> {
        if self.stop.load(Ordering::Relaxed) || (self.cancelled)() {
            return Err(QueryError::Cancelled);
        }
        if self.began.elapsed() > self.limits.time {
            return Err(QueryError::Limit(format!(
                "more than {} s: narrow the time or the filter",
                self.limits.time.as_secs_f64()
            )));
        }
        Ok(())
    }

    fn log(&self, entry: &Entry, found: &mut Found) -> Result<(), QueryError> {
        let mut stopped = Ok(());
        let read = log::read(&entry.path, |flows| {
            stopped = self.look().and_then(|()| {
                let columns = Columns::of(flows);
                let fits = self.fitting(&columns);
                self.add(&columns, &fits, found)
            });
            if stopped.is_ok() { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
        });
        stopped?;
        Ok(read?)
    }

    fn file(&self, entry: &Entry, found: &mut Found) -> Result<(), QueryError> {
        let reader = Reader::open(&entry.path)?;
        for group in 0..reader.groups() {
            self.look()?;
            if !self.plan.whole.possible(&reader.bounds(group)).0 {
                continue;
            }
            let mut columns = Columns::default();
            reader.read(group, &self.plan.first, &mut columns)?;
            let fits = self.fitting(&columns);
            if fits.contains(&true) {
                self.look()?;
                reader.read(group, &self.plan.then, &mut columns)?;
                self.add(&columns, &fits, found)?;
            } else {
                found.looked_at += columns.rows as u64;
            }
        }
        Ok(())
    }

    fn fitting(&self, columns: &Columns) -> Vec<bool> {
        let mut fits = vec![true; columns.rows];
        columns.keep(&self.plan.whole, &mut fits);
        fits
    }

    fn add(&self, columns: &Columns, fits: &[bool], found: &mut Found) -> Result<(), QueryError> {
        let plan = self.plan;
        found.looked_at += columns.rows as u64;
        for (row, _) in fits.iter().enumerate().filter(|(_, fits)| **fits) {
            let factor = columns.factor(row);
            let sums = FlowSums {
                octets: columns.number(Column::Octets, row).saturating_mul(factor),
                packets: columns.number(Column::Packets, row).saturating_mul(factor),
                records: 1,
            };
            found.total.add(sums);
            let thinned = u32::try_from(columns.number(Column::Thinned, row)).unwrap_or(u32::MAX);
            found.thinned = found.thinned.max(thinned);
            if plan.records {
                let flow = columns.flow(row);
                if found.records.len() < plan.top {
                    found.records.push(flow);
                } else if found.records.peek().is_some_and(|last| flow < *last) {
                    found.records.pop();
                    found.records.push(flow);
                }
                continue;
            }
            let mut key = [0; BY_MAX];
            for (slot, dimension) in key.iter_mut().zip(&plan.by) {
                *slot = dimension.key(columns, row);
            }
            let mut more = 0;
            let group = found.groups.entry(key).or_insert_with(|| {
                more += 1;
                Group::default()
            });
            group.sums.add(sums);
            let since = columns.number(Column::End, row).saturating_sub(plan.from);
            if let Some(step) = since.checked_div(plan.step_ms) {
                let step =
                    group.steps.entry(plan.from + step * plan.step_ms).or_insert_with(|| {
                        more += 1;
                        FlowSums::default()
                    });
                step.add(sums);
            }
            if more > 0 && self.groups.fetch_add(more, Ordering::Relaxed) >= self.limits.groups {
                return Err(QueryError::Limit(format!(
                    "more than {} groups and steps: narrow the filter, or group by less, or by networks such as src/24",
                    self.limits.groups
                )));
            }
        }
        Ok(())
    }
}

fn shown(plan: &Plan, found: Found) -> Result<FlowAnswer, QueryError> {
    let groups_all = found.groups.len() as u64;
    let measure = |sums: &FlowSums| match plan.order {
        FlowOrder::Octets => sums.octets,
        FlowOrder::Packets => sums.packets,
        FlowOrder::Records => sums.records,
    };
    let mut groups: Vec<(Key, Group)> = found.groups.into_iter().collect();
    // The key decides between equals, so that the same question has the same answer.
    groups.sort_unstable_by(|(a, first), (b, second)| {
        measure(&second.sums).cmp(&measure(&first.sums)).then_with(|| a.cmp(b))
    });
    groups.truncate(plan.top);
    if groups.iter().map(|(_, group)| group.steps.len()).sum::<usize>() > POINTS_MAX {
        return Err(QueryError::Limit(format!(
            "more than {POINTS_MAX} points: ask for longer steps, or fewer groups"
        )));
    }
    let shown = |(key, group): (Key, Group)| FlowGroup {
        key: plan.by.iter().zip(key).map(|(dimension, value)| dimension.text(value)).collect(),
        sums: group.sums,
        p95_bits_per_sec: (plan.step_ms > 0).then(|| p95(plan, &group.steps)),
        series: group.steps.into_iter().map(|(at, sums)| FlowPoint { at, sums }).collect(),
    };
    Ok(FlowAnswer {
        from: plan.from,
        to: plan.to,
        total: found.total,
        groups: groups.into_iter().map(shown).collect(),
        groups_all,
        records: found.records.into_sorted_vec(),
        thinned: found.thinned,
        looked_at: found.looked_at,
        unread: found.unread,
        ..FlowAnswer::default()
    })
}

/// The nearest-rank 95th percentile of a series' rates.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
fn p95(plan: &Plan, steps: &BTreeMap<u64, FlowSums>) -> f64 {
    let all = usize::try_from((plan.to - plan.from).div_ceil(plan.step_ms)).unwrap_or(usize::MAX);
    let mut octets: Vec<u64> = steps.values().map(|sums| sums.octets).collect();
    octets.sort_unstable_by(|a, b| b.cmp(a));
    // So many steps may lie above.
    let above = all - (all * 95).div_ceil(100);
    let octets = octets.get(above).copied().unwrap_or(0);
    octets as f64 * 8000.0 / plan.step_ms as f64
}
