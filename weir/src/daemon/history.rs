//! What each host and each IPv4 /24 and IPv6 /48 carried, second by second: the last five minutes in memory, everything before in the
//! history file. A thread of its own, so that neither its arithmetic nor its disk delays a decision.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use tracing::{error, info, warn};
use weir_api::{Metrics, Question, Traffic};
use weir_model::{ClassVolume, Expectation, HostRate, IpNet, LongFlow, Millis, Rate, Slice};
use weir_store::Health;
use weir_store::health::Part;
use weir_store::history::{
    BLOCK_SECS, History, HostMinute, LateMinute, POINTS_MAX, Point, Retention, Step,
};

use super::sums::Sums;
use super::totals::Totals;
use super::{now, spawn as spawn_thread};

/// Seconds kept in memory.
const RING_SECS: usize = 300;

/// A minute is written once it is so many seconds past: most long flows are reported by then, and what is
/// reported later is added to what was written.
const GRACE_SECS: u64 = 120;

/// Minutes of hosts and prefixes that wait to be added to what was written: half a KB each. They are added
/// once a minute, when somebody asks, and when there are as many.
const LATE_MAX: usize = 32_768;

/// Hosts kept in memory at most: 2.4 KB each.
const HOSTS_MAX: usize = 20_000;

/// Prefixes kept in memory at most, as large each.
const PREFIXES_MAX: usize = 4096;

/// Seconds that may wait for this thread; more are lost to the charts.
const WAITING_MAX: usize = 8;

/// Questions that may wait.
const QUESTIONS_MAX: usize = 64;

/// Octets of history kept in memory while there is no file.
const IN_MEMORY_MAX: u64 = 64 << 20;

/// How often the file is swept.
const SWEEP: Duration = Duration::from_secs(600);

/// What the core saw in one second.
#[derive(Debug, Default)]
pub(crate) struct Second {
    /// Which, since the epoch.
    second: u64,
    /// Packets and octets towards each host.
    hosts: Sums,
    /// Flows too long for one second.
    long: Vec<LongFlow>,
    /// What those that go on are expected to carry until they are exported again.
    expected: Vec<Expectation>,
    /// Packets and octets towards all hosts.
    totals: Totals,
}

impl Second {
    fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.long.is_empty() && self.expected.is_empty()
    }
}

/// Where the core puts what it sees. Full means that a second is lost to the charts, never that the core
/// waits.
#[derive(Debug)]
pub(crate) struct Feed {
    out: Sender<Second>,
    present: Second,
}

impl Feed {
    pub(crate) fn slice(&mut self, slice: &Slice) {
        let second = Millis::from_slot(slice.slot).secs();
        if second > self.present.second {
            let full = std::mem::take(&mut self.present);
            self.present.second = second;
            if !full.is_empty() {
                match self.out.try_send(full) {
                    Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                }
            }
        }
        self.present.totals.take(&[], &slice.services);
        // In groups that stay in the cache: all hosts of a slice do not.
        for group in slice.hosts.chunks(Sums::GROUP) {
            self.present.totals.take(group, &[]);
            self.present.hosts.add(group);
        }
        self.present.long.extend(slice.long_flows.iter().filter(|flow| !flow.outbound));
        self.present.expected.extend(slice.expected.iter().filter(|flow| !flow.outbound));
    }
}

/// Packets and octets by second. Charts need no more digits than `f32` has.
#[derive(Clone, Debug)]
struct Columns {
    packets: [f32; RING_SECS],
    bytes: [f32; RING_SECS],
}

impl Columns {
    fn new() -> Box<Self> {
        Box::new(Self { packets: [0.0; RING_SECS], bytes: [0.0; RING_SECS] })
    }

    fn clear(&mut self, place: usize) {
        self.packets[place] = 0.0;
        self.bytes[place] = 0.0;
    }

    fn rate(&self, place: usize) -> Rate {
        Rate {
            // Taking back what was expected leaves a rounding.
            packets_per_sec: f64::from(self.packets[place].max(0.0)),
            bits_per_sec: f64::from(self.bytes[place].max(0.0)) * 8.0,
        }
    }
}

/// Whether an exporter has told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Exported,
    /// Of a flow that goes on. It is shown as long as it is in memory and never written: the record that
    /// the exporter owes brings it, also to the next run, which knows nothing of this one's expectations.
    Expected,
}

/// The last seconds of one host.
#[derive(Clone, Debug)]
struct Ring {
    exported: Box<Columns>,
    /// Where there is any: most hosts have none.
    expected: Option<Box<Columns>>,
    last: u64,
}

impl Ring {
    fn new(second: u64) -> Self {
        Self { exported: Columns::new(), expected: None, last: second }
    }

    /// Forgets what is older than the ring is long.
    fn turn(&mut self, second: u64) {
        let steps = second.saturating_sub(self.last).min(RING_SECS as u64);
        for step in 0..steps {
            let place = place(second - step);
            self.exported.clear(place);
            if let Some(expected) = &mut self.expected {
                expected.clear(place);
            }
        }
        self.last = self.last.max(second);
    }

    fn add(&mut self, second: u64, told: Told, packets: f32, bytes: f32) {
        if second <= self.last && self.last - second < RING_SECS as u64 {
            let columns = match told {
                Told::Exported => &mut self.exported,
                Told::Expected => self.expected.get_or_insert_with(Columns::new),
            };
            columns.packets[place(second)] += packets;
            columns.bytes[place(second)] += bytes;
        }
    }

    /// What is still expected of a second.
    fn expected(&self, second: u64) -> Rate {
        let expected = self.expected.as_deref();
        expected.map_or_else(Rate::default, |columns| columns.rate(place(second)))
    }

    /// All that is known of a second.
    fn rate(&self, second: u64) -> Rate {
        let (exported, expected) = (self.exported.rate(place(second)), self.expected(second));
        Rate {
            packets_per_sec: exported.packets_per_sec + expected.packets_per_sec,
            bits_per_sec: exported.bits_per_sec + expected.bits_per_sec,
        }
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % RING_SECS as u64).unwrap_or(0)
}

/// The thread's state.
struct Keeper {
    rings: HashMap<IpAddr, Ring, rustc_hash::FxBuildHasher>,
    /// Of the prefixes in which the detector looks for attacks on many hosts: they add up hosts for which
    /// there is no room in `rings`, too.
    prefixes: HashMap<IpNet, Ring, rustc_hash::FxBuildHasher>,
    /// Newest second seen.
    second: u64,
    /// Next minute to be written.
    minute: u64,
    /// What became known of minutes that were written, to be added to them.
    late: HashMap<(IpNet, u64), Late, rustc_hash::FxBuildHasher>,
    /// Late volume left out because too much waited, in seconds of a host or prefix.
    late_dropped: u64,
    history: History,
    /// The file that could not be opened.
    wanted: Option<PathBuf>,
    /// The last seconds of everything.
    totals: BTreeMap<u64, Totals>,
}

/// With a path, the history is in memory until the file there can be opened.
pub(crate) fn spawn(
    (history, wanted): (History, Option<PathBuf>),
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    failed: &Sender<String>,
) -> anyhow::Result<(Feed, Sender<Question>, JoinHandle<()>)> {
    let (out, seconds) = bounded(WAITING_MAX);
    let (ask, questions) = bounded(QUESTIONS_MAX);
    let (metrics, health) = (Arc::clone(metrics), Arc::clone(health));
    let thread = spawn_thread("history", failed, move || {
        let mut keeper = Keeper { wanted, ..Keeper::new(history) };
        keeper.run(&seconds, &questions, &metrics, &health);
    })?;
    Ok((Feed { out, present: Second::default() }, ask, thread))
}

impl Keeper {
    fn new(history: History) -> Self {
        let totals = BTreeMap::new();
        Self {
            rings: HashMap::default(),
            prefixes: HashMap::default(),
            second: 0,
            minute: 0,
            late: HashMap::default(),
            late_dropped: 0,
            history,
            wanted: None,
            totals,
        }
    }

    /// Ends when the core is gone, after a last write.
    fn run(
        &mut self,
        seconds: &Receiver<Second>,
        asked: &Receiver<Question>,
        metrics: &Metrics,
        health: &Health,
    ) {
        let sweep = crossbeam_channel::tick(SWEEP);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            metrics.store_errors.with_label_values::<&str>(&[]).inc();
            error!(%error, what, "the history file did not take it");
            // A minute of charts is not written again.
            health.refuses(Part::History, now(), error, 0);
        };
        loop {
            select! {
                recv(seconds) -> second => {
                    let Ok(second) = second else { break };
                    self.take(second);
                    let due = self.second.saturating_sub(GRACE_SECS) / 60;
                    match self.write_until(due) {
                        Ok(true) => health.takes(Part::History),
                        Ok(false) => {}
                        Err(error) => failed("minute", &error),
                    }
                }
                recv(asked) -> question => match question {
                    Ok(question) => {
                        // Whoever asks of one wants to see all of it.
                        if let Question::Series { net, .. } = &question
                            && let Err(error) = self.add_late(Some(*net))
                        {
                            failed("late", &error);
                        }
                        self.answer(question);
                    }
                    Err(_) => break,
                },
                recv(sweep) -> _ => {
                    self.try_file();
                    match self.history.sweep(now(), &self.retention()) {
                        Ok(0) => {}
                        Ok(gone) => info!(gone, "forgot old history"),
                        Err(error) => failed("sweep", &error),
                    }
                }
            }
        }
        if let Err(error) = self.write_until(self.second / 60) {
            failed("minute", &error);
        }
        if let Err(error) = self.add_late(None) {
            failed("late", &error);
        }
    }

    /// Opens the file that could not be opened; what was kept in memory meanwhile is gone.
    fn try_file(&mut self) {
        let Some(path) = &self.wanted else { return };
        if let Ok((history, _)) = History::open_or_begin(path, now()) {
            info!(path = %path.display(), "the history file is open");
            self.history = history;
            self.wanted = None;
        }
    }

    fn retention(&self) -> Retention {
        let all = Retention::default();
        let in_memory = self.wanted.is_some();
        Retention { bytes_max: if in_memory { IN_MEMORY_MAX } else { all.bytes_max }, ..all }
    }

    fn take(&mut self, second: Second) {
        self.second = self.second.max(second.second);
        if self.minute == 0 {
            self.minute = self.second / 60;
        }
        self.totals.entry(second.second).or_default().add(&second.totals);
        while self.totals.len() > RING_SECS {
            self.totals.pop_first();
        }
        for (host, (packets, bytes)) in second.hosts.carried() {
            let carried = (number(packets), number(bytes));
            self.add(host, second.second, Told::Exported, carried);
        }
        for flow in second.long {
            for (at, volume, _) in flow.by_second() {
                self.add_volume(flow.host, at, volume);
                if let Some(totals) = self.totals.get_mut(&at) {
                    totals.long(&flow, number(volume.packets), number(volume.bytes));
                }
            }
        }
        // A chart of the present shows them; what is exported later takes their place.
        for flow in second.expected {
            let sign = if flow.settled { -1.0 } else { 1.0 };
            for (at, volume) in flow.by_second() {
                let (packets, bytes) = (sign * number(volume.packets), sign * number(volume.bytes));
                self.add(flow.host, at, Told::Expected, (packets, bytes));
            }
        }
        if second.second.is_multiple_of(60) {
            let oldest = self.second.saturating_sub(RING_SECS as u64);
            self.rings.retain(|_, ring| ring.last >= oldest);
            self.prefixes.retain(|_, ring| ring.last >= oldest);
        }
    }

    fn add(&mut self, host: IpAddr, at: u64, told: Told, volume: (f32, f32)) {
        let newest = self.second;
        add(&mut self.prefixes, PREFIXES_MAX, whole_of(host), newest, at, told, volume);
        add(&mut self.rings, HOSTS_MAX, host, newest, at, told, volume);
    }

    fn add_volume(&mut self, host: IpAddr, at: u64, volume: ClassVolume) {
        let (packets, bytes) = (number(volume.packets), number(volume.bytes));
        let minute = at / 60;
        if minute >= self.minute && at + RING_SECS as u64 > self.second {
            self.add(host, at, Told::Exported, (packets, bytes));
            return;
        }
        // Written already, or before this run: what the file has is added to.
        let second = usize::try_from(at % 60).unwrap_or(0);
        for net in [IpNet::from(host), whole_of(host)] {
            if self.late.len() >= LATE_MAX && !self.late.contains_key(&(net, minute)) {
                self.late_dropped += 1;
                continue;
            }
            let late = self.late.entry((net, minute)).or_default();
            late.packets[second] += packets;
            late.bytes[second] += bytes;
        }
    }

    /// Adds to the file what became known late, of one host or prefix or of all.
    fn add_late(&mut self, of: Option<IpNet>) -> Result<(), weir_store::StoreError> {
        let wanted = |net: &IpNet| of.is_none_or(|of| of == *net);
        let known = self.late.extract_if(|(net, _), _| wanted(net));
        let mut late: Vec<LateMinute> =
            known.map(|((net, minute), late)| late.minute(net, minute)).collect();
        if late.is_empty() {
            return Ok(());
        }
        late.sort_by_key(|late| (late.start, late.net));
        self.history.add_late(&late)
    }

    /// Says whether there was anything to write.
    fn write_until(&mut self, end: u64) -> Result<bool, weir_store::StoreError> {
        let mut wrote = false;
        let due = self.minute < end || self.late.len() >= LATE_MAX;
        while self.minute < end {
            let minute = self.minute;
            self.minute += 1;
            let hosts = self.rings.iter().map(|(host, ring)| (IpNet::from(*host), ring));
            let prefixes = self.prefixes.iter().map(|(net, ring)| (*net, ring));
            let all = hosts.chain(prefixes);
            let mut hosts: Vec<HostMinute> =
                all.filter_map(|(net, ring)| block(net, ring, minute)).collect();
            hosts.sort_by_key(|block| block.net);
            if !hosts.is_empty() {
                self.history.put_minute(Millis::from_secs(minute * 60), &hosts)?;
                wrote = true;
            }
        }
        // After the minutes themselves: it adds to what is written of them.
        if due {
            self.add_late(None)?;
        }
        let dropped = std::mem::take(&mut self.late_dropped);
        if dropped > 0 {
            warn!(
                dropped,
                "charts lack traffic that was reported late: more than waits for the history file"
            );
        }
        Ok(wrote)
    }

    /// Whoever asked may have hung up.
    fn answer(&self, question: Question) {
        match question {
            Question::Busiest { limit, by_packets, within, reply } => {
                drop(reply.send(self.busiest(limit, by_packets, &within)));
            }
            Question::Series { net, step, from, to, reply } => {
                drop(reply.send(self.series(net, step, from, to)));
            }
            Question::Traffic { after, hosts, reply } => {
                let newer = self.totals.iter().filter(|(second, _)| **second > after.secs());
                let seconds = newer.map(|(second, totals)| totals.told(*second)).collect();
                let traffic = Traffic { seconds, top: self.busiest(hosts, false, &[]) };
                drop(reply.send(traffic));
            }
            // The core knows.
            Question::Baselines { .. } => {}
        }
    }

    fn busiest(&self, limit: usize, by_packets: bool, within: &[IpNet]) -> Vec<HostRate> {
        // The newest second that is complete.
        let second = self.second;
        let key = |rate: &Rate| if by_packets { rate.packets_per_sec } else { rate.bits_per_sec };
        let wanted =
            |host: &IpAddr| within.is_empty() || within.iter().any(|net| net.contains(host));
        let mut hosts: Vec<HostRate> = self
            .rings
            .iter()
            .filter(|(host, ring)| ring.last + 60 > second && wanted(host))
            .map(|(host, ring)| {
                let at = |second: u64| {
                    if second > ring.last { Rate::default() } else { ring.rate(second) }
                };
                let peak = (0..60)
                    .map(|ago| at(second.saturating_sub(ago)))
                    .max_by(|a, b| key(a).total_cmp(&key(b)))
                    .unwrap_or_default();
                HostRate { host: *host, now: at(second), peak }
            })
            .collect();
        hosts.sort_by(|a, b| key(&b.now).total_cmp(&key(&a.now)).then(a.host.cmp(&b.host)));
        hosts.truncate(limit);
        hosts
    }

    fn series(&self, net: impl Into<IpNet>, step: Step, from: Millis, to: Millis) -> Vec<Point> {
        let net = net.into();
        let points = self.history.series(net, step, from, to).unwrap_or_else(|error| {
            error!(%error, "the history file cannot be read");
            Vec::new()
        });
        // What is not written yet.
        let ring = if net.prefix_len() == net.max_prefix_len() {
            self.rings.get(&net.addr())
        } else {
            self.prefixes.get(&net)
        };
        let Some(ring) = ring else { return points };
        let oldest = (ring.last + 1).saturating_sub(RING_SECS as u64);
        let unwritten = self.minute * 60;
        let end = to.secs().min(self.second + 1);
        // What is written lacks what is still expected.
        let written = from.secs().max(oldest)..unwritten.min(end);
        let mut at: BTreeMap<Millis, Point> =
            points.into_iter().map(|point| (point.at, point)).collect();
        for (bucket, (_, sum)) in buckets(written, step, |second| ring.expected(second)) {
            if sum.packets_per_sec > 0.0 {
                let point = at.entry(bucket).or_insert_with(|| silent(bucket));
                add_rate(point, &mean(&sum, step.secs()));
            }
        }
        let newest = at.last_key_value().map(|(bucket, _)| *bucket);
        let now = from.secs().max(unwritten).max(oldest)..end;
        let rate =
            |second: u64| if second > ring.last { Rate::default() } else { ring.rate(second) };
        for (bucket, (seconds, sum)) in buckets(now, step, rate) {
            if Some(bucket) > newest {
                at.insert(bucket, mean(&sum, seconds));
            }
        }
        let most = usize::try_from(POINTS_MAX).unwrap_or(usize::MAX);
        at.into_values().take(most).collect()
    }
}

/// Rates added up by step of a chart, with how many seconds each step has of them.
fn buckets(
    seconds: Range<u64>,
    step: Step,
    rate: impl Fn(u64) -> Rate,
) -> BTreeMap<Millis, (u64, Point)> {
    let mut buckets = BTreeMap::new();
    for second in seconds {
        let bucket = Millis::from_secs(second / step.secs() * step.secs());
        let (seconds, sum) = buckets.entry(bucket).or_insert_with(|| (0, silent(bucket)));
        *seconds += 1;
        let rate = rate(second);
        sum.packets_per_sec += rate.packets_per_sec;
        sum.bits_per_sec += rate.bits_per_sec;
        sum.packets_per_sec_max = sum.packets_per_sec_max.max(rate.packets_per_sec);
        sum.bits_per_sec_max = sum.bits_per_sec_max.max(rate.bits_per_sec);
    }
    buckets
}

const fn silent(at: Millis) -> Point {
    Point {
        at,
        packets_per_sec: 0.0,
        packets_per_sec_max: 0.0,
        bits_per_sec: 0.0,
        bits_per_sec_max: 0.0,
    }
}

/// Of a sum over so many seconds.
#[expect(clippy::cast_precision_loss, reason = "seconds of a step")]
fn mean(sum: &Point, seconds: u64) -> Point {
    let seconds = seconds.max(1) as f64;
    Point {
        packets_per_sec: sum.packets_per_sec / seconds,
        bits_per_sec: sum.bits_per_sec / seconds,
        ..*sum
    }
}

/// The peaks of both are taken to fall together.
fn add_rate(to: &mut Point, more: &Point) {
    to.packets_per_sec += more.packets_per_sec;
    to.bits_per_sec += more.bits_per_sec;
    to.packets_per_sec_max += more.packets_per_sec_max;
    to.bits_per_sec_max += more.bits_per_sec_max;
}

/// The prefix that is kept as a whole around a host: where the detector looks for attacks on many hosts.
fn whole_of(host: IpAddr) -> IpNet {
    let len = if host.is_ipv4() { 24 } else { 48 };
    IpNet::new(host, len).unwrap_or_else(|_| IpNet::from(host)).trunc()
}

/// Adds to one ring, if there is one or room for one.
fn add<K: Eq + Hash>(
    rings: &mut HashMap<K, Ring, rustc_hash::FxBuildHasher>,
    max: usize,
    key: K,
    newest: u64,
    at: u64,
    told: Told,
    (packets, bytes): (f32, f32),
) {
    if rings.len() >= max && !rings.contains_key(&key) {
        return;
    }
    let ring = rings.entry(key).or_insert_with(|| Ring::new(newest));
    ring.turn(newest.max(at));
    ring.add(at, told, packets, bytes);
}

/// What became known late of one minute, second by second.
#[derive(Clone, Debug)]
struct Late {
    packets: [f32; BLOCK_SECS],
    bytes: [f32; BLOCK_SECS],
}

impl Default for Late {
    fn default() -> Self {
        Self { packets: [0.0; BLOCK_SECS], bytes: [0.0; BLOCK_SECS] }
    }
}

impl Late {
    fn minute(&self, net: IpNet, minute: u64) -> LateMinute {
        let start = Millis::from_secs(minute * 60);
        let mut late = LateMinute { start, net, packets: [0; BLOCK_SECS], bytes: [0; BLOCK_SECS] };
        wholes(&self.packets, &mut late.packets);
        wholes(&self.bytes, &mut late.bytes);
        late
    }
}

/// Whole numbers whose sums are those of the fractions: of a flow of one packet in ten seconds, one second in
/// ten has one.
fn wholes(values: &[f32], out: &mut [i64]) {
    let mut left = 0.0;
    for (value, out) in values.iter().zip(out) {
        left += f64::from(*value);
        // What adding up fractions has left is no packet less.
        let all = (left + (1.0 / 1024.0) * left.signum()).trunc();
        *out = whole(all);
        left -= all;
    }
}

/// A host's or prefix's minute; none when it was silent, or is no longer in the ring.
fn block(net: IpNet, ring: &Ring, minute: u64) -> Option<HostMinute> {
    let mut block = HostMinute { net, packets: [0; BLOCK_SECS], bytes: [0; BLOCK_SECS] };
    let first = minute * 60;
    if ring.last < first || ring.last - first >= RING_SECS as u64 {
        return None;
    }
    let exported = &*ring.exported;
    for (column, out) in
        [(&exported.packets, &mut block.packets), (&exported.bytes, &mut block.bytes)]
    {
        let known =
            |second: u64| if second <= ring.last { column[place(second)].max(0.0) } else { 0.0 };
        let values: [f32; BLOCK_SECS] = std::array::from_fn(|n| known(first + n as u64));
        let mut numbers = [0; BLOCK_SECS];
        wholes(&values, &mut numbers);
        *out = numbers.map(i64::unsigned_abs);
    }
    block.packets.iter().any(|packets| *packets > 0).then_some(block)
}

#[expect(clippy::cast_precision_loss, reason = "a chart, not an account")]
const fn number(value: u64) -> f32 {
    value as f32
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
const fn whole(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests;
