//! History: series, roll-ups, retention.

use super::*;

fn minute(host: &str, packets: u64) -> HostMinute {
    HostMinute {
        net: host.parse::<IpAddr>().unwrap().into(),
        packets: [packets; BLOCK_SECS],
        bytes: [packets * 100; BLOCK_SECS],
    }
}

const HOST: &str = "203.0.113.7";

#[test]
fn roll_ups_keep_the_mean_and_the_busiest_second() {
    let mut history = History::in_memory().unwrap();
    let start = 1_795_168_800; // a whole hour
    for n in 0..20 {
        let mut load = minute(HOST, 10);
        load.packets[5] = 1000 + n;
        history.put_minute(Millis::from_secs(start + n * 60), &[load, minute("::1", 1)]).unwrap();
    }
    let host: IpAddr = HOST.parse().unwrap();
    let series = |step, from, to| {
        history.series(host, step, Millis::from_secs(from), Millis::from_secs(to)).unwrap()
    };
    let seconds = series(Step::Second, start + 3, start + 8);
    let values: Vec<f64> = seconds.iter().map(|p| p.packets_per_sec).collect();
    assert_eq!(values, [10.0, 10.0, 1000.0, 10.0, 10.0]);
    assert_eq!(series(Step::Minute, start, start + 7200).len(), 20);
    let tens = series(Step::TenMinutes, start, start + 7200);
    assert_eq!(tens.len(), 2);
    assert_eq!(tens[1].packets_per_sec_max, 1019.0);
    let hour = series(Step::Hour, start, start + 3600);
    assert_eq!(hour.len(), 1);
    assert_eq!(hour[0].bits_per_sec, 8000.0);
    assert!((hour[0].packets_per_sec - 26.6).abs() < 0.1, "{}", hour[0].packets_per_sec);
}

#[test]
fn a_minute_written_twice_counts_once() {
    let mut history = History::in_memory().unwrap();
    for _ in 0..2 {
        history.put_minute(Millis::from_secs(600), &[minute(HOST, 10)]).unwrap();
    }
    let host: IpAddr = HOST.parse().unwrap();
    let hour = history.series(host, Step::Hour, Millis(0), Millis::from_secs(3600)).unwrap();
    assert_eq!(hour[0].packets_per_sec, 10.0);
}

#[test]
fn what_comes_late_is_added_in_every_step_and_taken_back() {
    let mut history = History::in_memory().unwrap();
    let start = 1_795_168_800; // a whole hour
    history.put_minute(Millis::from_secs(start), &[minute(HOST, 10)]).unwrap();
    let late = |n: u64, packets: i64| LateMinute {
        start: Millis::from_secs(start + n * 60),
        net: HOST.parse::<IpAddr>().unwrap().into(),
        packets: [packets; BLOCK_SECS],
        bytes: [packets * 100; BLOCK_SECS],
    };
    // To a minute that was written, and to one in which nothing was seen.
    history.add_late(&[late(0, 5), late(1, 5), late(30, 90)]).unwrap();
    let series = |history: &History, step: Step| -> Vec<(f64, f64)> {
        let host: IpAddr = HOST.parse().unwrap();
        let (from, to) = (Millis::from_secs(start), Millis::from_secs(start + 3600));
        let points = history.series(host, step, from, to).unwrap();
        points.iter().map(|p| (p.packets_per_sec, p.packets_per_sec_max)).collect()
    };
    assert_eq!(series(&history, Step::Second)[59..61], [(15.0, 15.0), (5.0, 5.0)]);
    assert_eq!(series(&history, Step::Minute), [(15.0, 15.0), (5.0, 5.0), (90.0, 90.0)]);
    assert_eq!(series(&history, Step::TenMinutes), [(10.0, 15.0), (90.0, 90.0)]);
    let hour = series(&history, Step::Hour)[0];
    assert_eq!((hour.0.round(), hour.1), (37.0, 90.0));
    // What did not come after all: the peak goes with it, and nothing goes below 0.
    history.add_late(&[late(30, -90), late(1, -7)]).unwrap();
    assert_eq!(series(&history, Step::Minute), [(15.0, 15.0), (0.0, 0.0), (0.0, 0.0)]);
    assert_eq!(series(&history, Step::Hour)[0], (5.0, 15.0));
}

#[test]
fn what_is_old_goes_and_the_file_stays_within_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let mut history = History::open(&path).unwrap();
    let hosts: Vec<HostMinute> =
        (0..200).map(|n| minute(&format!("203.0.113.{}", n % 200), 1000 * n)).collect();
    for n in 0..60 {
        history.put_minute(Millis::from_secs(n * 60), &hosts).unwrap();
    }
    let now = Millis::from_secs(3 * 3600);
    let keep = Retention { second_hours: 3, ..Retention::default() };
    assert_eq!(history.sweep(now, &keep).unwrap(), 0);
    let full = history.bytes().unwrap();
    let keep = Retention { bytes_max: full / 2, ..keep };
    history.sweep(now, &keep).unwrap();
    assert!(history.bytes().unwrap() <= full / 2);
    // The roll-ups are still there: the finest went first.
    let host: IpAddr = "203.0.113.9".parse().unwrap();
    let hour = history.series(host, Step::Hour, Millis(0), now).unwrap();
    assert_eq!(hour.len(), 1);
    drop(history);
    assert!(std::fs::metadata(&path).unwrap().len() <= full);
}

#[test]
fn a_prefix_is_no_host_and_no_other_prefix() {
    let mut history = History::in_memory().unwrap();
    let of = |net: &str, packets| HostMinute { net: net.parse().unwrap(), ..minute(HOST, packets) };
    let nets = ["203.0.113.0/24", "203.0.113.0/25", "203.0.113.0/32", "2001:db8::/48"];
    let minutes: Vec<HostMinute> = (1..).zip(nets).map(|(n, net)| of(net, n)).collect();
    history.put_minute(Millis::from_secs(600), &minutes).unwrap();
    for (n, net) in (1..).zip(nets) {
        let net: IpNet = net.parse().unwrap();
        let hour = history.series(net, Step::Hour, Millis(0), Millis::from_secs(3600)).unwrap();
        assert_eq!(hour[0].packets_per_sec, f64::from(n), "{net}");
    }
}
