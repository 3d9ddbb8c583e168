//! Whose word a message is, behind one exporter's address.
//!
//! An exporter speaks for several observation domains (line cards, virtual routers, processes), each
//! with a clock, a sequence and numbers of templates of its own; an sFlow agent for several sub-agents,
//! version 5 for several engines. What one of them says governs its own records and nobody else's.

use rustc_hash::FxHashMap;
use weir_model::Millis;

use crate::epoch::Epochs;
use crate::sampling::Said;
use crate::tenure::{Newcomers, Standing, Tenure};
use crate::time::Clock;

/// The sFlow "version" in a [`DomainKey`].
pub(crate) const SFLOW: u16 = 5 << 8;
/// How far an uptime goes back when a datagram is overtaken. Milliseconds.
const OVERTAKEN_MS: u32 = 10_000;
/// A gap beyond this is a restart of the exporter, not a loss.
const MAX_GAP: u32 = 1_000_000;
/// How far back a number may lie to be that of an overtaken datagram.
const MAX_BEHIND: u32 = 4096;
/// Datagrams in a row that may lie behind before it is a restart.
const MAX_BEHIND_RUN: u8 = 4;

/// An observation domain (IPFIX), source id (version 9), engine (version 5) or sub-agent (sFlow).
/// Numbers of templates are scoped by it, and not by the sender's port: routers change that, and send
/// options from another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DomainKey {
    pub(crate) version: u16,
    /// The sender's port, where two senders turned out to share address and domain; else 0.
    pub(crate) port: u16,
    pub(crate) domain: u32,
    /// The connection, for IPFIX over TCP; 0 for datagrams.
    pub(crate) session: u32,
}

impl DomainKey {
    /// That of a datagram.
    pub(crate) const fn new(version: u16, domain: u32) -> Self {
        Self { version, port: 0, domain, session: 0 }
    }
}

/// A stream of sequence numbers.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    expected: u32,
    behind: u8,
}

/// How a version 9 exporter counts: datagrams (RFC 3954 §5.1), or records as some do (softflowd 0.9.9).
#[derive(Clone, Copy, Debug, Default)]
struct Counting {
    /// What would come next if it counts records; none when those of the last message are not known.
    by_records: Option<u32>,
    /// How often only one of the two was right: records above 0, datagrams below.
    votes: i8,
}

/// So many votes for records are believed.
const BY_RECORDS: i8 = 3;

/// What is known of one domain.
#[derive(Debug, Default)]
pub(crate) struct Domain {
    pub(crate) key: DomainKey,
    /// Told apart from what had its place before.
    pub(crate) serial: u32,
    pub(crate) clock: Clock,
    /// systemInitTimeMilliseconds from the options, 0 when not said.
    pub(crate) init_ms: u64,
    pub(crate) tenure: Tenure,
    /// Its lives, by which a restart shows.
    pub(crate) epochs: Epochs,
    pub(crate) sampling: Said,
    /// Where its templates are, by number: those of data, and those of options.
    pub(crate) templates: [FxHashMap<u16, u32>; 2],
    sequence: Option<Sequence>,
    counting: Counting,
    /// Milliseconds since its start by its last datagram, and how often it has started; sFlow only.
    uptime: u32,
    pub(crate) life: u32,
}

impl Domain {
    /// Follows its sequence numbers: this datagram carries `sequence` and the next one must carry
    /// `sequence + advance`. Says how many are missing, less those that came late after all.
    pub(crate) fn sequence(&mut self, sequence: u32, advance: u32) -> i64 {
        let next = sequence.wrapping_add(advance);
        let Some(known) = &mut self.sequence else {
            self.sequence = Some(Sequence { expected: next, behind: 0 });
            return 0;
        };
        let gap = sequence.wrapping_sub(known.expected);
        if gap > u32::MAX - MAX_BEHIND && known.behind < MAX_BEHIND_RUN {
            // An older datagram, overtaken on the way: it was counted as lost when the newer one
            // came, and must not turn the expectation back. Several in a row are a restart.
            known.behind += 1;
            return -i64::from(advance);
        }
        *known = Sequence { expected: next, behind: 0 };
        if gap < MAX_GAP { i64::from(gap) } else { 0 }
    }

    /// Takes note of an sFlow sub-agent's uptime. It has begun anew when that is back by more than
    /// datagrams overtake each other.
    pub(crate) fn life(&mut self, uptime: u32) {
        let before = std::mem::replace(&mut self.uptime, uptime);
        if before.saturating_sub(uptime) > OVERTAKEN_MS {
            self.life = self.life.wrapping_add(1);
        }
    }

    /// As [`Domain::sequence`] for version 9, of a datagram with so many records, if they could be read.
    pub(crate) fn sequence_v9(&mut self, sequence: u32, records: Option<u32>) -> i64 {
        let by_records = self.counting.by_records == Some(sequence);
        let by_datagrams = self.sequence.is_some_and(|known| known.expected == sequence);
        if by_records != by_datagrams {
            let vote = if by_records { 1 } else { -1 };
            self.counting.votes = (self.counting.votes + vote).clamp(-8, 8);
        }
        let counts_records = self.counting.votes >= BY_RECORDS;
        self.counting.by_records = records.map(|records| sequence.wrapping_add(records));
        if counts_records && let Some(records) = records {
            if by_records {
                // Whatever was expected before it was known how it counts.
                self.sequence = None;
            }
            return self.sequence(sequence, records);
        }
        if counts_records {
            self.sequence_unknown();
            return 0;
        }
        let missing = self.sequence(sequence, 1);
        // It goes on exactly where records leave off: no loss, whatever is believed yet.
        if by_records { 0 } else { missing }
    }

    /// The next number cannot be foretold: the next datagram begins it anew.
    pub(crate) fn sequence_unknown(&mut self) {
        self.sequence = None;
    }
}

/// The domains of one exporter.
#[derive(Debug)]
pub(crate) struct Domains {
    /// The first is for all that find no room: their records count, but teach nothing that lasts.
    list: Vec<Domain>,
    by_key: FxHashMap<DomainKey, u32>,
    free: Vec<u32>,
    newcomers: Newcomers,
    last: (DomainKey, u32),
    next_serial: u32,
    limit: usize,
}

/// The place of the domain for all that find no room.
pub(crate) const OVERFLOW: u32 = 0;

impl Domains {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            list: vec![Domain::default()],
            by_key: FxHashMap::default(),
            free: Vec::new(),
            newcomers: Newcomers::default(),
            last: (DomainKey::default(), OVERFLOW),
            next_serial: 1,
            limit,
        }
    }

    /// The place of a domain that is known.
    #[inline]
    pub(crate) fn find(&mut self, key: DomainKey) -> Option<u32> {
        if self.last.0 == key {
            return Some(self.last.1);
        }
        let index = *self.by_key.get(&key)?;
        self.last = (key, index);
        Some(index)
    }

    /// Makes a place for a domain, [`OVERFLOW`] when there is none. The one that had to give way for it
    /// comes back, to be undone.
    pub(crate) fn make(&mut self, key: DomainKey, now: Millis) -> (u32, Option<Domain>) {
        let mut gone = None;
        if self.by_key.len() >= self.limit {
            let list = &self.list;
            let Some((index, _)) = self.newcomers.evict(|entry| standing(list, entry, now)) else {
                return (OVERFLOW, None);
            };
            gone = Some(self.remove(index));
        }
        let domain = Domain { key, serial: self.next_serial, ..Domain::default() };
        self.next_serial = self.next_serial.wrapping_add(1).max(1);
        let entry_serial = domain.serial;
        let index = match self.free.pop() {
            Some(index) => {
                self.list[index as usize] = domain;
                index
            }
            None => {
                self.list.push(domain);
                u32::try_from(self.list.len() - 1).unwrap_or(OVERFLOW)
            }
        };
        self.by_key.insert(key, index);
        let list = &self.list;
        self.newcomers.add((index, entry_serial), self.limit, |entry| standing(list, entry, now));
        self.last = (key, index);
        (index, gone)
    }

    /// Forgets a domain; what it knew comes back, to be undone.
    pub(crate) fn remove(&mut self, index: u32) -> Domain {
        let gone = std::mem::take(&mut self.list[index as usize]);
        self.by_key.remove(&gone.key);
        self.free.push(index);
        self.last = (DomainKey::default(), OVERFLOW);
        gone
    }

    #[inline]
    pub(crate) fn at(&self, index: u32) -> &Domain {
        &self.list[index as usize]
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut Domain {
        &mut self.list[index as usize]
    }

    /// Places of the domains of a connection.
    pub(crate) fn of_session(&self, session: u32) -> Vec<u32> {
        let of = self.by_key.iter().filter(|(key, _)| key.session == session);
        of.map(|(_, index)| *index).collect()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.list.iter().filter(|domain| domain.serial > 0)
    }

    /// Clock minus ours of the domain that is furthest off, of those that brought good records.
    /// Milliseconds.
    pub(crate) fn skew_ms(&self) -> i64 {
        let skews = self.iter().filter(|domain| domain.tenure.is_good());
        skews.map(|domain| domain.clock.skew_ms()).max_by_key(|skew| skew.abs()).unwrap_or(0)
    }
}

fn standing(list: &[Domain], (index, serial): (u32, u32), now: Millis) -> Standing {
    match list.get(index as usize) {
        Some(domain) if domain.serial == serial => domain.tenure.standing(now),
        _ => Standing::Gone,
    }
}
