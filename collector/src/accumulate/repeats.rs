//! Packets that two routers report count once.
//!
//! A packet that enters the network by one router and passes another is in the records of both. With
//! sampling the two have different packets of a flow, so no record can be matched with another; what
//! can be told is this:
//!
//! * Flows that send many packets are seen by every router on their path. An interface nearly all of
//!   whose flows come from another router's interface as well *repeats* that one. Flows that two
//!   edges share between them (by ECMP, say) are seen by one of them each, and repeat nothing.
//! * A repeating interface's traffic is matched, host by host, with what the others told: only as
//!   much as these have counted is left out. Traffic that reached the interface past the routers that
//!   report, a flood above all, counts: the sum is about the larger of the two views, never less than
//!   two thirds of it.
//!
//! What is learned is shared by all shards: the routers of one network send to several sockets.
//! Everything is of fixed size and atomic; a race between shards costs a sighting, nothing else.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use weir_model::{ExporterId, FlowRecord, InterfaceRole, InterfaceStatus};

use super::hash::{address_hash, flow_hash, mix};

/// Interfaces remembered, a power of two that fits a flow's entry; those beyond always count.
const LINKS: usize = 2048;
/// Places looked at for an interface.
const PROBES: usize = 16;
/// Flows followed at a time.
const FLOWS: usize = 8192;
/// One flow in so many is looked at, by its ports: every router chooses the same, without a hash.
const EVERY: u16 = 4;
/// Exporters for which repeated records are counted.
const EXPORTERS: usize = 4096;
/// Balances of hosts, by a hash of their address.
const HOSTS: usize = 1 << 16;

/// Seconds of one step of a flow's age.
const STEP_SECS: u64 = 8;
/// Steps after which it is known who sees a flow: two minutes, so that routers with an active timeout
/// of a minute have spoken.
const RIPE_STEPS: u64 = 16;
/// Packets seen of a flow without which its absence elsewhere may be chance.
const TELLING: u64 = 8;
/// Telling flows that make a judgement.
const JUDGED: u32 = 24;
/// Flows remembered of an interface: beyond, all counts are halved.
const REMEMBERED: u32 = 192;
/// Per cent of an interface's flows that others must have to begin to repeat, and to go on.
const BEGIN_PERCENT: u32 = 80;
const GO_ON_PERCENT: u32 = 60;

/// Flows looked at of an interface, of either side: beyond, both counts are halved.
const ROLE_REMEMBERED: u32 = 1 << 20;

/// A balance halves in so many seconds.
const HALF_LIFE_SECS: u64 = 16;
/// What is told of a host may be left out elsewhere so many halves: routers draw different samples.
const HALVES: u64 = 3;
/// Packets that may be left out before anything was told, times the rate of sampling.
const IN_ADVANCE: u64 = 4;
/// Unit of balances, octets, so that 40 bits hold a second of any link.
const UNIT: u64 = 64;

/// What is known of all exporters' interfaces; empty until there are two exporters.
#[derive(Debug)]
pub(crate) struct Repeats {
    tables: OnceLock<Tables>,
    /// Exporters whose external interfaces the operator has named, a bit each.
    settled: [AtomicU64; EXPORTERS / 64],
}

impl Default for Repeats {
    fn default() -> Self {
        Self { tables: OnceLock::new(), settled: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

#[derive(Debug)]
struct Tables {
    /// Interfaces by exporter and index, open addressing.
    links: Box<[Link]>,
    /// Followed flows: see [`Sighting`].
    flows: Box<[AtomicU64]>,
    /// What may be left out of each host's traffic: 40 bits of units with a bias, 24 of seconds.
    balances: Box<[AtomicU64]>,
    /// Records left out, by exporter, until the shard asks.
    left_out: Box<[AtomicU64]>,
    /// Whether any interface repeats: until then no balance is kept.
    any: AtomicBool,
}

/// One interface by which an exporter's packets come in.
#[derive(Debug, Default)]
struct Link {
    /// Exporter and index with the top bit set; 0 for none.
    key: AtomicU64,
    /// Telling flows that nobody else, or only who repeats it, sees.
    alone: AtomicU32,
    /// Telling flows that one sees who does not repeat it.
    covered: AtomicU32,
    /// Telling flows that anybody else sees.
    shared: AtomicU32,
    repeats: AtomicBool,
    /// The operator has named this exporter's external interfaces: its records are never left out.
    settled: AtomicBool,
    /// Flows looked at whose source is not protected, and whose is.
    from_outside: AtomicU32,
    from_inside: AtomicU32,
    /// The interface that it repeated last, by its key.
    of: AtomicU64,
}

fn atomics(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Repeats {
    /// There are several exporters: begins to compare them.
    pub(crate) fn begin(&self) {
        self.tables.get_or_init(|| Tables {
            links: (0..LINKS).map(|_| Link::default()).collect(),
            flows: atomics(FLOWS),
            balances: atomics(HOSTS),
            left_out: atomics(EXPORTERS),
            any: AtomicBool::new(false),
        });
    }

    /// The operator has named an exporter's external interfaces: what it tells of these counts.
    pub(crate) fn settle(&self, exporter: ExporterId) {
        if let Some(word) = self.settled.get(usize::from(exporter.0) / 64) {
            word.fetch_or(1 << (exporter.0 % 64), Relaxed);
        }
    }

    /// An exporter has been forgotten: its number is somebody else's from now on.
    pub(crate) fn forget(&self, exporter: ExporterId) {
        if let Some(word) = self.settled.get(usize::from(exporter.0) / 64) {
            word.fetch_and(!(1 << (exporter.0 % 64)), Relaxed);
        }
        let Some(tables) = self.tables.get() else { return };
        for link in &tables.links {
            if of_key(link.key.load(Relaxed)).is_some_and(|(id, _)| id == exporter) {
                link.clear();
            }
        }
    }

    fn is_settled(&self, exporter: ExporterId) -> bool {
        let word = self.settled.get(usize::from(exporter.0) / 64);
        word.is_some_and(|word| word.load(Relaxed) >> (exporter.0 % 64) & 1 == 1)
    }

    /// Records of an exporter left out since the last time.
    pub(crate) fn take_left_out(&self, exporter: ExporterId) -> u64 {
        let count = self.tables.get().and_then(|t| t.left_out.get(usize::from(exporter.0)));
        count.map_or(0, |count| count.swap(0, Relaxed))
    }

    /// What has been learned of an exporter's interfaces, by index.
    pub(crate) fn interfaces(&self, exporter: ExporterId) -> Vec<InterfaceStatus> {
        let Some(tables) = self.tables.get() else { return Vec::new() };
        let mut out: Vec<_> = tables
            .links
            .iter()
            .filter(|link| of_key(link.key.load(Relaxed)).is_some_and(|(id, _)| id == exporter))
            .map(Link::status)
            .collect();
        out.sort_by_key(|status| status.index);
        out
    }
}

/// Exporter and interface of a key.
fn of_key(key: u64) -> Option<(ExporterId, u32)> {
    let exporter = u16::try_from(key >> 32 & 0xffff).ok().map(ExporterId)?;
    (key != 0).then_some((exporter, u32::try_from(key & 0xffff_ffff).unwrap_or(0)))
}

impl Link {
    fn clear(&self) {
        for count in
            [&self.alone, &self.covered, &self.shared, &self.from_outside, &self.from_inside]
        {
            count.store(0, Relaxed);
        }
        self.repeats.store(false, Relaxed);
        self.settled.store(false, Relaxed);
        self.of.store(0, Relaxed);
        self.key.store(0, Relaxed);
    }

    fn judged(&self) -> Option<u32> {
        let (alone, covered) = (self.alone.load(Relaxed), self.covered.load(Relaxed));
        (alone + covered >= JUDGED).then(|| covered * 100 / (alone + covered))
    }

    /// Whether most of its flows are seen elsewhere, whoever repeats whom.
    fn is_shared(&self) -> Option<bool> {
        let all = self.alone.load(Relaxed) + self.covered.load(Relaxed);
        (all >= JUDGED).then(|| self.shared.load(Relaxed) * 100 >= all * BEGIN_PERCENT)
    }

    /// Of two that see the same flows, the one with the lower rank counts.
    fn rank(&self) -> (bool, u64) {
        (!self.settled.load(Relaxed), self.key.load(Relaxed))
    }

    /// Takes note of a telling flow that `other` has seen as well, or nobody.
    fn flow(&self, other: Option<&Self>) {
        let covered = other.is_some_and(|other| {
            other.rank() < self.rank() || other.is_shared().is_some_and(|shared| !shared)
        });
        let count = if covered { &self.covered } else { &self.alone };
        count.fetch_add(1, Relaxed);
        if let Some(other) = other {
            self.shared.fetch_add(1, Relaxed);
            if covered {
                self.of.store(other.key.load(Relaxed), Relaxed);
            }
        }
        if self.alone.load(Relaxed) + self.covered.load(Relaxed) >= REMEMBERED {
            for count in [&self.alone, &self.covered, &self.shared] {
                count.store(count.load(Relaxed) / 2, Relaxed);
            }
        }
        let needed = if self.repeats.load(Relaxed) { GO_ON_PERCENT } else { BEGIN_PERCENT };
        let repeats = self.judged().is_some_and(|percent| percent >= needed);
        self.repeats.store(repeats && !self.settled.load(Relaxed), Relaxed);
    }

    fn status(&self) -> InterfaceStatus {
        let (outside, inside) = (self.from_outside.load(Relaxed), self.from_inside.load(Relaxed));
        let role = match outside.cmp(&inside) {
            _ if outside + inside < JUDGED => InterfaceRole::Unknown,
            std::cmp::Ordering::Greater => InterfaceRole::External,
            _ => InterfaceRole::Internal,
        };
        let (_, index) = of_key(self.key.load(Relaxed)).unwrap_or_default();
        let repeats = self.repeats.load(Relaxed).then(|| of_key(self.of.load(Relaxed))).flatten();
        InterfaceStatus {
            index,
            role,
            repeats: repeats.map(|(exporter, _)| exporter),
            ..InterfaceStatus::default()
        }
    }
}

/// Who has seen a followed flow, in one word: a tag of 14 bits, the step in which it began (8), two
/// interfaces (11 each), and packets that each has seen (10 each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    tag: u64,
    step: u64,
    by: [u64; 2],
    packets: [u64; 2],
}

impl Sighting {
    const LINK: u64 = LINKS as u64 - 1;
    const MANY: u64 = 1023;

    fn read(word: u64) -> Self {
        Self {
            tag: word >> 50,
            step: word >> 42 & 0xff,
            by: [word >> 31 & Self::LINK, word >> 20 & Self::LINK],
            packets: [word >> 10 & Self::MANY, word & Self::MANY],
        }
    }

    fn word(self) -> u64 {
        self.tag << 50
            | self.step << 42
            | self.by[0] << 31
            | self.by[1] << 20
            | self.packets[0] << 10
            | self.packets[1]
    }

    fn age(self, step: u64) -> u64 {
        step.wrapping_sub(self.step) & 0xff
    }

    fn all(self) -> u64 {
        self.packets[0] + self.packets[1]
    }
}

/// Looks at one accumulator's records for all that are learned together.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    repeats: Arc<Repeats>,
    /// The interface last looked up.
    last: (u64, Option<usize>),
}

impl Watch {
    pub(crate) fn new(repeats: Arc<Repeats>) -> Self {
        Self { repeats, last: (0, None) }
    }

    /// Whether a record only repeats what another exporter told of these packets. `host` is its
    /// protected end, `from_inside` whether its source is protected, `secs` when it came.
    #[inline]
    pub(crate) fn leaves_out(
        &mut self,
        record: &FlowRecord,
        host: IpAddr,
        from_inside: bool,
        secs: u64,
    ) -> bool {
        let Some(tables) = self.repeats.tables.get() else { return false };
        let looked_at = (record.src_port ^ record.dst_port).is_multiple_of(EVERY);
        if !looked_at && !tables.any.load(Relaxed) {
            return false;
        }
        let key = 1 << 63 | u64::from(record.exporter.0) << 32 | u64::from(record.input_if);
        let moved = |link: usize| tables.links[link].key.load(Relaxed) != key;
        if self.last.0 != key || self.last.1.is_some_and(moved) {
            self.last = (key, tables.link(key));
            if let Some(link) = self.last.1 {
                let settled = self.repeats.is_settled(record.exporter);
                tables.links[link].settled.store(settled, Relaxed);
            }
        }
        let Some(link) = self.last.1 else { return false };
        if looked_at {
            tables.look(link, record, from_inside, secs);
        }
        tables.any.load(Relaxed) && tables.matched(link, record, address_hash(host), secs)
    }
}

impl Tables {
    /// Where an interface is, made if need be; none when there is no room.
    fn link(&self, key: u64) -> Option<usize> {
        let start = usize::try_from(mix(key) % LINKS as u64).unwrap_or(0);
        (0..PROBES).map(|n| (start + n) % LINKS).find(|at| {
            let place = &self.links[*at].key;
            match place.load(Relaxed) {
                0 => match place.compare_exchange(0, key, Relaxed, Relaxed) {
                    Ok(_) => true,
                    Err(taken) => taken == key,
                },
                taken => taken == key,
            }
        })
    }

    /// Takes note of who sees a flow.
    fn look(&self, link: usize, record: &FlowRecord, from_inside: bool, secs: u64) {
        let hash = flow_hash(record.src, record.dst, (record.src_port, record.dst_port));
        let own = &self.links[link];
        let side = if from_inside { &own.from_inside } else { &own.from_outside };
        if side.fetch_add(1, Relaxed) >= ROLE_REMEMBERED {
            own.from_inside.store(own.from_inside.load(Relaxed) / 2, Relaxed);
            own.from_outside.store(own.from_outside.load(Relaxed) / 2, Relaxed);
        }
        let Some(place) = self.flows.get(usize::try_from(hash % FLOWS as u64).unwrap_or(0)) else {
            return;
        };
        let (word, step) = (place.load(Relaxed), secs / STEP_SECS);
        let (tag, seen) = (hash >> 48 & 0x3fff, Sighting::read(word));
        let ripe = seen.age(step) >= RIPE_STEPS;
        let link = link as u64;
        let packets = record.packets.min(Sighting::MANY);
        let fresh = Sighting { tag, step: step & 0xff, by: [link, link], packets: [packets, 0] };
        let next = if word == 0 {
            fresh
        } else if ripe {
            self.ripened(seen);
            fresh
        } else if seen.tag == tag {
            seen.and(link, packets)
        } else if seen.all() < 2 && seen.age(step) > 0 {
            // A flow of which nothing more has come makes room.
            fresh
        } else {
            return;
        };
        // Somebody else's sighting at the same moment wins.
        let _ = place.compare_exchange(word, next.word(), Relaxed, Relaxed);
    }

    /// A flow has been followed for long enough.
    fn ripened(&self, seen: Sighting) {
        if seen.all() < TELLING {
            return;
        }
        let link = |n: usize| &self.links[usize::try_from(seen.by[n]).unwrap_or(0) % LINKS];
        if seen.packets[1] == 0 {
            link(0).flow(None);
        } else {
            link(0).flow(Some(link(1)));
            link(1).flow(Some(link(0)));
        }
        let any = self.links.iter().any(|link| link.repeats.load(Relaxed));
        self.any.store(any, Relaxed);
    }

    /// Whether what a repeating interface tells of a host has been told; what others tell is noted.
    fn matched(&self, link: usize, record: &FlowRecord, host: u64, secs: u64) -> bool {
        // A balance is kept above a bias, so that a little may be left out in advance.
        const BIAS: u64 = 1 << 39;
        const SECS: u64 = (1 << 24) - 1;
        let place = &self.balances[usize::try_from(host >> 16).unwrap_or(0) % HOSTS];
        let word = place.load(Relaxed);
        let (mut balance, at) = (word >> 24, word & SECS);
        if word == 0 {
            balance = BIAS;
        }
        let passed = (secs & SECS).wrapping_sub(at) & SECS;
        // Another shard may be a second ahead.
        let (passed, at) = if passed > SECS / 2 { (0, at) } else { (passed, secs & SECS) };
        let decayed = |amount: u64| {
            let halvings = u32::try_from(passed / HALF_LIFE_SECS).unwrap_or(u32::MAX);
            let whole = amount.checked_shr(halvings).unwrap_or(0);
            // Between two halvings by a straight line.
            whole - whole * (passed % HALF_LIFE_SECS) / (2 * HALF_LIFE_SECS)
        };
        balance = if balance >= BIAS {
            BIAS + decayed(balance - BIAS)
        } else {
            BIAS - decayed(BIAS - balance)
        };
        let told = record.scaled_bytes() / UNIT;
        let repeats = self.links[link].repeats.load(Relaxed);
        let lowest = BIAS.saturating_sub(IN_ADVANCE * u64::from(record.sampling) * 1500 / UNIT);
        let left_out = repeats && balance.saturating_sub(told) >= lowest;
        if left_out {
            balance -= told;
            if let Some(count) = self.left_out.get(usize::from(record.exporter.0)) {
                count.fetch_add(1, Relaxed);
            }
        } else if !repeats {
            balance = balance.saturating_add(told * HALVES / 2).min((1 << 40) - 1);
        }
        // As above: a lost race is a lost record's worth.
        let _ = place.compare_exchange(word, balance << 24 | at, Relaxed, Relaxed);
        left_out
    }
}

impl Sighting {
    /// Seen by an interface as well; a third one finds no room, and is covered by either.
    fn and(mut self, link: u64, packets: u64) -> Self {
        let add = |own: &mut u64| *own = (*own + packets).min(Self::MANY);
        if self.by[0] == link {
            add(&mut self.packets[0]);
        } else if self.packets[1] == 0 || self.by[1] == link {
            self.by[1] = link;
            add(&mut self.packets[1]);
        }
        self
    }
}
