//! What live long flows are expected to carry until their exporter speaks of them again.
//!
//! A router with an active timeout of a minute speaks of a running transfer once a minute: what it
//! carries at present is known only in hindsight. A flow that was cut by the timeout goes on, as
//! far as anybody can tell, at the rate it had, and its next record is due one timeout later. Until
//! then its level is expected, second by second; the record that comes settles it, and so does one
//! that fails to.

use std::collections::HashMap;
use std::net::IpAddr;

use weir_model::{ClassVolume, Expectation, ExporterId, FlowRecord, Millis, SLICE_MS, tcp_flags};

use super::hash::flow_hash;
use crate::time::Timeouts;

/// Which flow: who speaks of it, where it came in, and which of its ends is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    protocol: u8,
    exporter: ExporterId,
    input_if: u32,
    outbound: bool,
}

impl Key {
    fn of(record: &FlowRecord, outbound: bool) -> Self {
        Self {
            src: record.src,
            dst: record.dst,
            ports: (record.src_port, record.dst_port),
            protocol: record.protocol,
            exporter: record.exporter,
            input_if: record.input_if,
            outbound,
        }
    }
}

/// A flow that goes on.
#[derive(Clone, Copy, Debug)]
struct Live {
    key: Key,
    /// Last packet of its last record: from here on it is expected ...
    end: Millis,
    /// ... and has been, until here.
    until: Millis,
    /// When its next record should have come.
    due: Millis,
    /// Of its last record.
    volume: ClassVolume,
    /// How long that was, milliseconds.
    duration: u64,
}

/// The live long flows of one accumulator.
#[derive(Debug, Default)]
pub(super) struct Expected {
    live: Vec<Live>,
    /// Keys come from the network: the standard library's keyed hash; nothing iterates over it.
    by_key: HashMap<Key, usize>,
    /// By number of the exporter.
    timeouts: Vec<Timeouts>,
    out: Vec<Expectation>,
    limit: usize,
    /// How many live flows fall to each place of a hash: nearly all short records are found here to
    /// be of none, for a load instead of a look-up. Empty while there are none.
    following: Vec<u16>,
}

/// Places in `following`.
const PLACES: usize = 1 << 15;

/// Where a flow falls.
#[inline]
fn place(src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> usize {
    usize::try_from(flow_hash(src, dst, ports)).unwrap_or(0) % PLACES
}

impl Expected {
    /// Follows `limit` flows at most: those beyond are not expected, only seen in hindsight.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes note of an exporter's timeouts.
    pub(super) fn timeouts(&mut self, exporter: ExporterId, timeouts: Timeouts) {
        let index = usize::from(exporter.0);
        if self.timeouts.len() <= index {
            self.timeouts.resize(index + 1, Timeouts::default());
        }
        self.timeouts[index] = timeouts;
    }

    /// Whether a record may be of a flow that is followed; certain if not.
    #[inline]
    pub(super) fn may_follow(&self, record: &FlowRecord) -> bool {
        !self.live.is_empty() && {
            let ports = (record.src_port, record.dst_port);
            self.following.get(place(record.src, record.dst, ports)).is_some_and(|n| *n > 0)
        }
    }

    /// A short record came in `slot`: if its flow is followed, what was expected of it ends.
    pub(super) fn exported_short(
        &mut self,
        record: &FlowRecord,
        volume: ClassVolume,
        outbound: bool,
        slot: u64,
    ) {
        if self.by_key.contains_key(&Key::of(record, outbound)) {
            self.exported(record, volume, outbound, slot);
        }
    }

    /// A long flow's record of scaled `volume` came in `slot`.
    pub(super) fn exported(
        &mut self,
        record: &FlowRecord,
        volume: ClassVolume,
        outbound: bool,
        slot: u64,
    ) {
        let key = Key::of(record, outbound);
        let known = self.by_key.get(&key).copied();
        if let Some(index) = known {
            if record.end < self.live[index].end {
                // Overtaken on its way by a later one, which holds.
                return;
            }
            self.settle(index);
        }
        let timeouts = self.timeouts.get(usize::from(record.exporter.0)).copied();
        let now = Millis::from_slot(slot);
        let active = timeouts.unwrap_or_default().goes_on(record, now);
        let (Some(active), true) = (active, self.live.len() < self.limit || known.is_some()) else {
            if let Some(index) = known {
                self.forget(index);
            }
            return;
        };
        let live = Live {
            key,
            end: record.end,
            until: record.end,
            due: record.end + active + active / 10 + Timeouts::PROMPT_MS,
            volume,
            duration: record.end.since(record.start),
        };
        let index = match known {
            Some(index) => {
                self.live[index] = live;
                index
            }
            None => {
                self.by_key.insert(key, self.live.len());
                self.count(place(key.src, key.dst, key.ports), u16::saturating_add);
                self.live.push(live);
                self.live.len() - 1
            }
        };
        self.expect(index, Millis::from_secs(now.secs()));
    }

    /// Ends a slot: with each second, every live flow is expected in it.
    pub(super) fn seal(&mut self, slot: u64, into: &mut Vec<Expectation>) {
        let end = Millis::from_slot(slot.saturating_add(1));
        if end.0.is_multiple_of(1000) {
            for index in (0..self.live.len()).rev() {
                if end > self.live[index].due {
                    self.settle(index);
                    self.forget(index);
                } else {
                    self.expect(index, end);
                }
            }
        }
        into.clear();
        std::mem::swap(into, &mut self.out);
    }

    /// Expects a flow until `until`.
    fn expect(&mut self, index: usize, until: Millis) {
        let live = &mut self.live[index];
        if until > live.until {
            let volume = live.volume_since_export(until, live.until);
            let from = std::mem::replace(&mut live.until, until);
            self.out.push(live.expectation(from, until, volume, false));
        }
    }

    /// Takes back all that was expected of a flow.
    fn settle(&mut self, index: usize) {
        let live = &self.live[index];
        if live.until > live.end {
            let volume = live.volume_since_export(live.until, live.end);
            self.out.push(live.expectation(live.end, live.until, volume, true));
        }
    }

    fn count(&mut self, place: usize, change: fn(u16, u16) -> u16) {
        if self.following.is_empty() {
            self.following = vec![0; PLACES];
        }
        // A place that is full stays so: its records are looked up, needlessly at worst.
        if let Some(count) = self.following.get_mut(place).filter(|n| **n < u16::MAX) {
            *count = change(*count, 1);
        }
    }

    fn forget(&mut self, index: usize) {
        let gone = self.live.swap_remove(index);
        self.by_key.remove(&gone.key);
        let Key { src, dst, ports, .. } = gone.key;
        self.count(place(src, dst, ports), u16::saturating_sub);
        if let Some(moved) = self.live.get(index) {
            self.by_key.insert(moved.key, index);
        }
    }
}

impl Live {
    /// What it carries from `from` to `to`, both after its last record, at that record's rate.
    fn volume_since_export(&self, to: Millis, from: Millis) -> ClassVolume {
        let until = |total: u64, at: Millis| {
            let share = u128::from(total) * u128::from(at.since(self.end));
            u64::try_from(share / u128::from(self.duration.max(1))).unwrap_or(u64::MAX)
        };
        let of = |total: u64| until(total, to) - until(total, from);
        ClassVolume { packets: of(self.volume.packets), bytes: of(self.volume.bytes) }
    }

    fn expectation(
        &self,
        start: Millis,
        end: Millis,
        volume: ClassVolume,
        settled: bool,
    ) -> Expectation {
        let outbound = self.key.outbound;
        let host = if outbound { self.key.src } else { self.key.dst };
        Expectation { host, outbound, settled, start, end, volume }
    }
}

impl Timeouts {
    /// Whether a flow goes on after this record, which came at `now`: it lasted about as long as the
    /// timeout, its end was told at once (a flow that fell silent is told after the inactive
    /// timeout), and no TCP flag ended it. The active timeout if so.
    fn goes_on(self, record: &FlowRecord, now: Millis) -> Option<u64> {
        let active = u64::from(self.active_ms);
        let duration = record.end.since(record.start);
        let ended = record.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0;
        let mut prompt = Self::PROMPT_MS.max(active / 10);
        if self.inactive_ms > 0 {
            prompt = prompt.min(u64::from(self.inactive_ms) * 3 / 4);
        }
        let told_at_once = now.since(record.end) <= prompt.max(SLICE_MS);
        (active > 0 && duration >= active / 5 * 4 && !ended && told_at_once).then_some(active)
    }
}
