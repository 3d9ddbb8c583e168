//! A transfer exported once a minute reads as what it is, in every second.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may panic"
)]

mod support;

use std::collections::BTreeMap;

use support::*;
use weir_collector::Shard;
use weir_model::{Millis, Slice};

const SRC: [u8; 4] = [198, 51, 100, 1];
const DST: [u8; 4] = [203, 0, 113, 9];
/// 200 Mbit/s.
const BYTES_PER_SEC: u64 = 25_000_000;
const SAMPLING: u64 = 1000;

/// What slices say of the one host towards which the traffic goes, as their readers add it up.
struct World {
    shard: Shard,
    now: Millis,
    slice: Slice,
    exported: BTreeMap<u64, i64>,
    expected: BTreeMap<u64, i64>,
}

impl World {
    fn new() -> Self {
        Self {
            shard: shard(&config()),
            now: NOW,
            slice: Slice::default(),
            exported: BTreeMap::new(),
            expected: BTreeMap::new(),
        }
    }

    /// Lets time pass to `at`, calling `look` at the end of each second with the bytes read for it.
    fn until(&mut self, at: Millis, mut look: impl FnMut(u64, i64)) {
        while self.now.slot() < at.slot() {
            self.shard.seal(self.now.slot(), &mut self.slice);
            for flow in &self.slice.long_flows {
                for (second, volume, _) in flow.by_second() {
                    *self.exported.entry(second).or_default() += volume.bytes as i64;
                }
            }
            for expected in &self.slice.expected {
                for (second, volume) in expected.by_second() {
                    let bytes = volume.bytes as i64;
                    let more = if expected.settled { -bytes } else { bytes };
                    *self.expected.entry(second).or_default() += more;
                }
            }
            self.now = Millis::from_slot(self.now.slot() + 1);
            if self.now.0.is_multiple_of(1000) {
                let second = self.now.secs() - 1;
                look(second, self.reading(second));
            }
        }
    }

    fn reading(&self, second: u64) -> i64 {
        let of = |sums: &BTreeMap<u64, i64>| sums.get(&second).copied().unwrap_or(0);
        of(&self.exported) + of(&self.expected)
    }

    /// The transfer's record of `[start, end]`, in milliseconds since [`NOW`], arrives now.
    fn export(&mut self, start: u64, end: u64, flags: u8) {
        let bytes_sampled = BYTES_PER_SEC * (end - start) / 1000 / SAMPLING;
        let fields = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 1), (1, 8), (2, 8)];
        let times = [(152, 8), (153, 8)];
        let record = bytes().raw(&SRC).raw(&DST).u16(443).u16(50_000).u8(6).u8(flags);
        let record = record.u64(bytes_sampled).u64(bytes_sampled / 1500);
        let record = record.u64(NOW.0 + start).u64(NOW.0 + end).0;
        let sampling = [(34, 4), (36, 2)];
        let options =
            set(3, &options_template(300, 1, &iana(&[&[(149, 4)], &sampling[..1]].concat())));
        let sets = [
            options,
            set(300, &bytes().u32(1).u32(SAMPLING as u32).0),
            set(2, &template(256, &iana(&[&fields[..], &times[..]].concat()))),
            set(256, &record),
        ];
        let secs = u32::try_from(self.now.secs()).unwrap();
        self.shard.datagram(router(), &ipfix_at(secs, 0, 1, &sets), self.now).unwrap();
    }
}

fn assert_steady(second: u64, bytes: i64) {
    let ratio = bytes as f64 / BYTES_PER_SEC as f64;
    assert!((0.9..=1.1).contains(&ratio), "second {second} reads {ratio} of the true rate");
}

/// Plays six minutes of the transfer; records come `lag` milliseconds after their end.
fn steady(lag: u64, cut_at: impl Fn(u64) -> u64) {
    let mut world = World::new();
    let first = NOW.secs();
    let mut start = 300;
    let mut seen = 0;
    for minute in 0..6 {
        let end = cut_at(minute);
        world.until(NOW + end + lag, |second, bytes| {
            if minute > 0 {
                assert_steady(second - first, bytes);
                seen += 1;
            } else {
                assert_eq!(bytes, 0, "nothing is known before the first export");
            }
        });
        world.export(start, end, 0x18);
        start = end;
    }
    assert!(seen >= 300, "{seen} seconds");
    // In hindsight as well, and with nothing expected any more where records speak.
    world.until(world.now + 200, |_, _| {});
    for second in first + 1..(NOW + start).secs() - 1 {
        assert_steady(second - first, world.exported[&second]);
        assert!(world.expected.get(&second).copied().unwrap_or(0).abs() < 100, "{second}");
    }
}

#[test]
fn a_minute_of_200_megabits_reads_200_megabits_in_every_second() {
    for lag in [0, 120, 900, 2400] {
        steady(lag, |minute| 60_300 + minute * 60_000);
    }
}

#[test]
fn exports_that_come_a_little_early_or_late_change_nothing() {
    let jitter = [0, 800, 100, 1900, 400, 1200];
    steady(700, |minute| 60_300 + minute * 60_500 + jitter[minute as usize]);
}

#[test]
fn a_flow_that_has_ended_is_expected_no_longer() {
    // Its last record says so by a flag, comes late, or is so short that the flow must have ended.
    for (flags, end, lag) in [(0x19, 60_300, 100), (0x18, 60_300, 15_000), (0x18, 20_000, 100)] {
        let mut world = World::new();
        // The exporter is known to have a timeout of a minute.
        world.until(NOW + 60_400, |_, _| {});
        world.export(300, 60_300, 0x19);
        world.until(NOW + 120_300 + lag, |second, bytes| {
            assert!(bytes < 100 || second == NOW.secs() + 60, "{bytes} in {second}");
        });
        world.export(60_300, 60_000 + end, flags);
        world.until(NOW + 300_000, |second, bytes| {
            assert!(bytes < 100 || second < NOW.secs() + 122, "{bytes} in {second}");
        });
    }
}

#[test]
fn a_short_last_record_ends_a_flow() {
    for (flags, last) in [(0x18, 60_800), (0x19, 61_200), (0x10, 60_301)] {
        let mut world = World::new();
        world.until(NOW + 60_400, |_, _| {});
        world.export(300, 60_300, 0x10);
        world.until(NOW + 65_000, |second, bytes| {
            assert!(bytes > 0 || second <= NOW.secs(), "expected to go on in {second}");
        });
        // Told late, as a flow that fell silent is.
        world.export(60_300, last, flags);
        world.until(NOW + 300_000, |second, bytes| {
            assert!(bytes < 100 || second < NOW.secs() + 62, "{bytes} in {second}");
        });
        let left: i64 = world.expected.values().map(|bytes| bytes.abs()).sum();
        assert!(left < 1000, "{left} octets are still expected");
    }
}

#[test]
fn what_never_came_is_taken_back() {
    let mut world = World::new();
    world.until(NOW + 60_400, |_, _| {});
    world.export(300, 60_300, 0x10);
    let mut held = 0;
    world.until(NOW + 300_000, |_, bytes| held += u64::from(bytes > 0));
    // A timeout and a little more.
    assert!((60..75).contains(&held), "{held} seconds");
    let left: i64 = world.expected.values().map(|bytes| bytes.abs()).sum();
    assert!(left < 1000, "{left} octets are still expected");
}

#[test]
fn an_option_says_the_timeout() {
    let mut world = World::new();
    let fields = iana(&[(149, 4), (36, 2), (37, 2)]);
    let option = bytes().u32(1).u16(120).u16(15).0;
    let sets = [set(3, &options_template(400, 1, &fields)), set(400, &option)];
    world.shard.datagram(router(), &ipfix(0, 1, &sets), NOW).unwrap();
    // Half of the timeout: it ended by itself, whatever it looks like.
    world.until(NOW + 60_400, |_, _| {});
    world.export(300, 60_300, 0x10);
    world.until(NOW + 70_000, |second, bytes| {
        assert!(bytes < 100 || second <= NOW.secs() + 60, "{bytes}");
    });
}
