//! The history in the hands of the daemon.

use super::*;
use weir_model::{Class, ClassVolume, HostSlice};

const HOST: &str = "203.0.113.7";

fn keeper() -> Keeper {
    Keeper::new(History::in_memory().unwrap())
}

fn second(at: u64, packets: u64) -> Second {
    let mut second = Second { second: at, ..Second::default() };
    second.hosts.add(&[seen(HOST.parse().unwrap(), packets)]);
    second
}

fn seen(host: IpAddr, packets: u64) -> HostSlice {
    let mut slice = HostSlice::empty(host, 0);
    slice.inbound[Class::Udp as usize] = ClassVolume { packets, bytes: packets * 100 };
    slice
}

fn series(keeper: &Keeper, step: Step, from: u64, to: u64) -> Vec<(u64, f64)> {
    keeper
        .series(
            HOST.parse::<IpAddr>().unwrap(),
            step,
            Millis::from_secs(from),
            Millis::from_secs(to),
        )
        .iter()
        .map(|point| (point.at.secs(), point.packets_per_sec))
        .collect()
}

#[test]
fn a_series_runs_from_the_file_into_memory_without_a_seam() {
    let mut keeper = keeper();
    let start = 60_000;
    for at in start..start + 600 {
        keeper.take(second(at, at - start + 1));
        keeper.write_until(keeper.second.saturating_sub(GRACE_SECS) / 60).unwrap();
    }
    let seconds = series(&keeper, Step::Second, start, start + 600);
    let expected: Vec<(u64, f64)> =
        (0..600).map(|n| (start + n, f64::from(u32::try_from(n + 1).unwrap()))).collect();
    assert_eq!(seconds, expected);
    let minutes = series(&keeper, Step::Minute, start, start + 600);
    assert_eq!(minutes.len(), 10);
    assert_eq!(minutes[9], (start + 540, 570.5));
    assert_eq!(keeper.busiest(5, true, &[])[0].now.packets_per_sec, 600.0);
    assert!(keeper.busiest(5, true, &["192.0.2.0/24".parse().unwrap()]).is_empty());
}

#[test]
fn a_long_flow_counts_in_every_second_it_lasted() {
    let mut keeper = keeper();
    keeper.take(second(60_100, 1));
    let flow = LongFlow {
        host: HOST.parse().unwrap(),
        outbound: false,
        class: Class::Udp,
        protocol: 17,
        service_port: 0,
        start: Millis::from_secs(60_090),
        end: Millis::from_secs(60_100),
        volume: ClassVolume { packets: 100, bytes: 1000 },
        variance: 0,
        metrics: 0,
    };
    let report = Second { second: 60_101, long: vec![flow], ..Second::default() };
    keeper.take(report);
    let found = series(&keeper, Step::Second, 60_090, 60_100);
    assert!(found.iter().all(|(_, packets)| (packets - 10.0).abs() < 0.001), "{found:?}");
}

fn long(start: u64, end: u64, volume: ClassVolume) -> LongFlow {
    LongFlow {
        host: HOST.parse().unwrap(),
        outbound: false,
        class: Class::Udp,
        protocol: 17,
        service_port: 0,
        start: Millis::from_secs(start),
        end: Millis::from_secs(end),
        volume,
        variance: 0,
        metrics: 0,
    }
}

/// Octets of a series of seconds.
fn octets(keeper: &mut Keeper, from: u64, to: u64) -> f64 {
    let net = IpNet::from(HOST.parse::<IpAddr>().unwrap());
    keeper.add_late(Some(net)).unwrap();
    let (from, to) = (Millis::from_secs(from), Millis::from_secs(to));
    let points = keeper.series(net, Step::Second, from, to);
    points.iter().map(|point| point.bits_per_sec / 8.0).sum()
}

#[test]
fn what_is_exported_after_its_minute_was_written_is_in_the_charts() {
    let mut keeper = keeper();
    let start = 60_000;
    let end = start + 1200;
    for at in start..end {
        keeper.take(second(at, 1));
        keeper.write_until(keeper.second.saturating_sub(GRACE_SECS) / 60).unwrap();
    }
    // Flows of 2, 5 and 15 minutes, and one from before this run, all exported now; 100 octets a
    // second came beside.
    for (minutes, packets) in [(2, 240), (5, 30), (15, 9000), (25, 1500)] {
        let volume = ClassVolume { packets, bytes: minutes * 60 * 1000 };
        let flow = long(end - minutes * 60, end, volume);
        keeper.take(Second { second: end, long: vec![flow], ..Second::default() });
    }
    let near = |a: f64, b: f64| (a - b).abs() <= b * 0.001;
    let of_15 = octets(&mut keeper, end - 900, end - 300);
    assert!(near(of_15, 600.0 * (2000.0 + 100.0)), "{of_15}");
    let of_5 = octets(&mut keeper, end - 300, end - 120);
    assert!(near(of_5, 180.0 * (3000.0 + 100.0)), "{of_5}");
    let before = octets(&mut keeper, start - 300, start);
    assert!(near(before, 300.0 * 1000.0), "{before}");
    let all = octets(&mut keeper, start - 300, end);
    assert!(near(all, 1000.0 * 60.0 * 47.0 + 1200.0 * 100.0), "{all}");
    // And in the roll-ups, of the prefix too.
    keeper.add_late(None).unwrap();
    let net: IpNet = "203.0.113.0/24".parse().unwrap();
    let (from, to) = (Millis::from_secs(start - 600), Millis::from_secs(end - 600));
    let tens = keeper.series(net, Step::TenMinutes, from, to);
    let bits: f64 = tens.iter().map(|point| point.bits_per_sec).sum();
    // What came late; a tenth of it came in time.
    assert!(bits * 600.0 / 8.0 >= 300_000.0, "{bits}");
    assert!(!keeper.late.iter().any(|((late, _), _)| *late == net));
}

/// A flow that is expected to go on, and what takes it back.
fn expected(start: u64, end: u64, settled: bool) -> Expectation {
    Expectation {
        host: HOST.parse().unwrap(),
        outbound: false,
        settled,
        start: Millis::from_secs(start),
        end: Millis::from_secs(end),
        volume: ClassVolume { packets: 100 * (end - start), bytes: 10_000 * (end - start) },
    }
}

#[test]
fn what_is_expected_is_shown_until_it_is_exported_or_does_not_come() {
    let mut keeper = keeper();
    let (start, end) = (60_000, 60_250);
    let (from, to) = (start + 60, start + 120);
    keeper.take(Second { expected: vec![expected(from, to, false)], ..second(start, 1) });
    for at in start + 1..end {
        keeper.take(second(at, 1));
        keeper.write_until(keeper.second.saturating_sub(GRACE_SECS) / 60).unwrap();
    }
    // The minute is written by now, and it stays in the chart.
    assert_eq!(keeper.minute * 60, to);
    assert_eq!(octets(&mut keeper, from, to), 606_000.0);
    assert_eq!(series(&keeper, Step::Minute, from, to), [(from, 101.0)]);
    keeper.take(Second {
        second: end,
        expected: vec![expected(from, to, true)],
        ..Second::default()
    });
    assert_eq!(octets(&mut keeper, from, to), 6000.0);
    assert_eq!(series(&keeper, Step::Minute, from, to), [(from, 1.0)]);
}

#[test]
fn what_was_expected_at_the_end_of_a_run_is_not_counted_twice_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let (start, end) = (60_000, 60_300);
    let opened = || History::open_or_begin(&path, Millis::from_secs(end)).unwrap().0;
    let mut first = Keeper::new(opened());
    for at in start..start + 120 {
        let expected = expected(at, at + 1, false);
        first.take(Second { expected: vec![expected], ..second(at, 1) });
    }
    first.write_until(first.second / 60 + 1).unwrap();
    drop(first);
    // The record of the flow comes to the next run, which did not expect it.
    let mut next = Keeper::new(opened());
    let volume = ClassVolume { packets: 30_000, bytes: 3_000_000 };
    next.take(second(end, 1));
    next.take(Second { second: end, long: vec![long(start, end, volume)], ..Second::default() });
    let all = octets(&mut next, start, start + 120);
    assert!((all - 120.0 * 10_100.0).abs() < 100.0, "{all}");
}

#[test]
fn memory_is_bounded_and_silent_hosts_are_forgotten() {
    let mut keeper = keeper();
    let mut many = Second { second: 60_000, ..Second::default() };
    for n in 0..u32::try_from(HOSTS_MAX + 100).unwrap() {
        many.hosts.add(&[seen(IpAddr::from(n.to_be_bytes()), 1)]);
    }
    keeper.take(many);
    assert_eq!(keeper.rings.len(), HOSTS_MAX);
    keeper.take(second(60_360, 1));
    assert_eq!(keeper.rings.len(), 0, "no room was left for the last one");
    keeper.take(second(60_361, 1));
    assert_eq!(keeper.rings.len(), 1);
}

#[test]
fn a_prefix_carries_what_its_hosts_carry_also_those_without_room() {
    let mut keeper = keeper();
    let mut crowd = Second { second: 60_000, ..Second::default() };
    for n in 0..u32::try_from(HOSTS_MAX).unwrap() {
        crowd.hosts.add(&[seen(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 1)]);
    }
    keeper.take(crowd);
    let start = 60_001;
    for at in start..start + 400 {
        let mut carpet = Second { second: at, ..Second::default() };
        for last in 0..100 {
            carpet.hosts.add(&[seen(IpAddr::from([203, 0, 113, last]), 2)]);
        }
        keeper.take(carpet);
        keeper.write_until(keeper.second.saturating_sub(GRACE_SECS) / 60).unwrap();
    }
    let net: IpNet = "203.0.113.0/24".parse().unwrap();
    let (from, to) = (Millis::from_secs(start), Millis::from_secs(start + 400));
    let seconds = keeper.series(net, Step::Second, from, to);
    assert_eq!(seconds.len(), 400, "from the file and from memory");
    assert!(seconds.iter().all(|p| p.packets_per_sec == 200.0), "{:?}", seconds.first());
    let other: IpNet = "198.51.100.0/24".parse().unwrap();
    assert!(keeper.series(other, Step::Second, from, to).is_empty());
    assert_eq!(keeper.prefixes.len(), 1, "the silent ones are forgotten");
}

#[test]
fn the_core_never_waits() {
    let (out, seconds) = bounded(1);
    let mut feed = Feed { out, present: Second::default() };
    for slot in 0..100 {
        let mut host = HostSlice::empty(HOST.parse().unwrap(), slot);
        host.inbound[0] = ClassVolume { packets: 1, bytes: 60 };
        feed.slice(&Slice { slot, hosts: vec![host], ..Slice::default() });
    }
    let first = seconds.try_recv().unwrap();
    assert_eq!(first.hosts.carried().next(), Some((HOST.parse().unwrap(), (10, 600))));
    assert!(seconds.try_recv().is_err());
}
