//! `cargo bench -p weir-collector --bench decode`: nanoseconds a record, beside the oracles.
//!
//! One line for each figure: name, value, unit, bar. 256 different datagrams a case, the median of
//! seven rounds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark tells and may panic")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures for people"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::*;
use weir_model::{Direction, Inventory, Millis, OwnMetric, Slice, Threshold};

const DATAGRAMS: u32 = 256;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(40);

/// Time of the processor, not of the wall: the machine may be shared.
fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).unwrap().into()
}

/// Nanoseconds a record.
fn measure(records_per_datagram: usize, datagrams: &[Vec<u8>], mut f: impl FnMut(&[u8])) -> f64 {
    let rounds = (0..ROUNDS)
        .map(|_| {
            let begin = cpu_time();
            let mut count = 0;
            while cpu_time() - begin < ROUND {
                for datagram in datagrams {
                    f(black_box(datagram));
                }
                count += datagrams.len();
            }
            (cpu_time() - begin).as_nanos() as f64 / (count * records_per_datagram) as f64
        })
        .collect();
    median(rounds)
}

/// What the oracles took where the bars were set, ns a record or sample: machines differ, and one that is
/// busy differs from itself, but decoders slow down alike.
const REFERENCE: [(&str, f64); 4] =
    [("v5", 5.2), ("v9_20_fields", 357.0), ("ipfix_20_fields", 379.0), ("sflow_128", 134.0)];

/// Our time beside an oracle's of the same run: as it would be where the bars were set, and as a ratio.
fn beside(name: &str, ours: f64, oracle: f64, unit: &str, bars: (&str, &str)) {
    if let Some((_, reference)) = REFERENCE.iter().find(|(of, _)| *of == name) {
        line(&format!("decode_{name}_at_reference"), ours * reference / oracle, unit, bars.0);
    }
    line(&format!("oracle_{name}"), oracle / ours, "times", bars.1);
}

fn line(name: &str, value: f64, unit: &str, bar: &str) {
    println!("{name} {value:.2} {unit} {bar}");
}

/// Spreads numbers as hosts and ports of real traffic would be spread.
fn scramble(n: u32) -> u32 {
    n.wrapping_mul(0x9e37_79b1) ^ (n.wrapping_mul(0x85eb_ca6b) >> 15)
}

fn protected(n: u32) -> [u8; 4] {
    [10, 0, (n >> 8 & 255) as u8, (n & 255) as u8]
}

fn v5_cases() -> Vec<Vec<u8>> {
    (0..DATAGRAMS)
        .map(|d| {
            let record = |r| {
                let n = scramble(d * 30 + r);
                let up = 1_000_000 - n % 50;
                v5_record(n.to_be_bytes(), protected(n >> 7), (n >> 3) as u16, up, up)
            };
            v5(1_000_000, 100, d * 30, &(0..30).map(record).collect::<Vec<_>>())
        })
        .collect()
}

const FIELDS: [(u16, u16); 20] = [
    (8, 4),
    (12, 4),
    (15, 4),
    (10, 4),
    (14, 4),
    (2, 4),
    (1, 4),
    (22, 4),
    (21, 4),
    (7, 2),
    (11, 2),
    (6, 1),
    (4, 1),
    (5, 1),
    (16, 4),
    (17, 4),
    (9, 1),
    (13, 1),
    (61, 1),
    (89, 1),
];

fn flow_record(n: u32, ipfix: bool) -> Vec<u8> {
    let head = bytes().u32(n).raw(&protected(n >> 7)).u32(0).u32(1).u32(2).u32(10).u32(1000);
    let times = if ipfix {
        head.u64(1_699_999_999_900).u64(1_699_999_999_990)
    } else {
        head.u32(999_900).u32(999_990)
    };
    let rest = times.u16(53).u16((n >> 3) as u16).u8(0).u8(17).u8(0).u32(1).u32(2);
    rest.u8(24).u8(24).u8(0).u8(64).0
}

fn v9_cases() -> (Vec<u8>, Vec<Vec<u8>>) {
    let define = v9(1_000_000, 0, 1, &[set(0, &template(256, &iana(&FIELDS)))]);
    let data = (0..DATAGRAMS).map(|d| {
        let records: Vec<u8> =
            (0..24).flat_map(|r| flow_record(scramble(d * 24 + r), false)).collect();
        v9(1_000_000, d + 1, 1, &[set(256, &records)])
    });
    (define, data.collect())
}

fn ipfix_cases() -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut fields = FIELDS;
    (fields[7], fields[8]) = ((152, 8), (153, 8));
    let define = ipfix(0, 1, &[set(2, &template(256, &iana(&fields)))]);
    let data = (0..DATAGRAMS).map(|d| {
        let records: Vec<u8> =
            (0..20).flat_map(|r| flow_record(scramble(d * 20 + r), true)).collect();
        ipfix(d * 20, 1, &[set(256, &records)])
    });
    (define, data.collect())
}

fn sflow_cases() -> Vec<Vec<u8>> {
    (0..DATAGRAMS)
        .map(|d| {
            let sample = |s| {
                let n = scramble(d * 7 + s);
                let packet = ipv4(17, n.to_be_bytes(), protected(n >> 7), &udp(53, 9, &[0; 86]));
                let header = raw_header(1, 1000, &ethernet(0x0800, &packet));
                flow_sample(d * 7 + s, 1000, (d * 7 + s) * 1000, &[header])
            };
            sflow(d, &(0..7).map(sample).collect::<Vec<_>>())
        })
        .collect()
}

fn netflow_oracle(define: Option<&[u8]>, records: usize, datagrams: &[Vec<u8>]) -> f64 {
    let mut parser = netflow_parser::NetflowParser::default();
    if let Some(define) = define {
        let _ = black_box(parser.parse_bytes(define));
    }
    measure(records, datagrams, |d| {
        let _ = black_box(parser.parse_bytes(d));
    })
}

fn wide() -> Arc<Inventory> {
    let net: ipnet::IpNet = "10.0.0.0/16".parse().unwrap();
    Inventory::new([net].into_iter().collect(), Default::default(), vec![]).into()
}

fn bench_shard(inventory: &Arc<Inventory>) -> weir_collector::Shard {
    weir_collector::Shard::new(0, &config(), Arc::clone(inventory), Default::default())
}

/// Decoding alone, then decoding with adding up.
fn ours(define: Option<&[u8]>, records: usize, datagrams: &[Vec<u8>]) -> (f64, f64) {
    let (mut shard, router) = (bench_shard(&wide()), router());
    if let Some(define) = define {
        shard.datagram(router, define, NOW).unwrap();
    }
    let decode = measure(records, datagrams, |d| {
        let result = shard.records(router, d, NOW, |record| {
            black_box(record);
        });
        result.unwrap();
    });
    (decode, whole(&wide(), define, records, datagrams))
}

/// Decoding with adding up.
fn whole(
    inventory: &Arc<Inventory>,
    define: Option<&[u8]>,
    records: usize,
    datagrams: &[Vec<u8>],
) -> f64 {
    let (mut shard, router) = (bench_shard(inventory), router());
    if let Some(define) = define {
        shard.datagram(router, define, NOW).unwrap();
    }
    let mut slice = Slice::default();
    let (mut count, mut now) = (0_usize, NOW);
    // As many records as 100 ms bring at five million a second, then the next slice.
    let per_slice = 500_000 / records;
    measure(records, datagrams, |d| {
        shard.datagram(router, d, now).unwrap();
        count += 1;
        if count.is_multiple_of(per_slice) {
            shard.seal(now.slot(), &mut slice);
            now = Millis(now.0 + 100);
        }
    })
}

fn bench_v5() {
    let v5 = v5_cases();
    let (decode, whole) = ours(None, 30, &v5);
    line("decode_v5", decode, "ns/record", "<=4");
    line("decode_and_add_v5", whole, "ns/record", "-");
    let oracle = netflow_oracle(None, 30, &v5);
    beside("v5", decode, oracle, "ns/record", ("<=4", "-"));
}

fn bench_v9() {
    let (define, v9) = v9_cases();
    let (decode, whole) = ours(Some(&define), 24, &v9);
    line("decode_v9_20_fields", decode, "ns/record", "<=25");
    line("decode_and_add_v9", whole, "ns/record", "-");
    let oracle = netflow_oracle(Some(&define), 24, &v9);
    beside("v9_20_fields", decode, oracle, "ns/record", ("<=25", ">=12"));
}

fn bench_ipfix() {
    let (define, ipfix) = ipfix_cases();
    let (decode, whole) = ours(Some(&define), 20, &ipfix);
    line("decode_ipfix_20_fields", decode, "ns/record", "<=25");
    line("decode_and_add_ipfix", whole, "ns/record", "-");
    let oracle = netflow_oracle(Some(&define), 20, &ipfix);
    beside("ipfix_20_fields", decode, oracle, "ns/record", ("<=25", ">=12"));
}

/// What 16 metrics of an operator's own add to a record: those that no record of the case means, and those that
/// every record means.
fn bench_own() {
    let v5 = v5_cases();
    let took = |condition: &str| {
        let metric = |at: usize| OwnMetric {
            name: format!("m{at}"),
            packets: condition.replace('#', &(5060 + at).to_string()).parse().unwrap(),
            direction: Direction::Inbound,
            packets_per_sec: Some(Threshold::Auto),
            bits_per_sec: None,
            groups: Vec::new(),
        };
        let metrics: Vec<OwnMetric> = (0..16).map(metric).collect();
        whole(&Arc::new(wide().as_ref().clone().measuring(&metrics)), None, 30, &v5)
    };
    let without = whole(&wide(), None, 30, &v5);
    line("decode_and_add_v5_without_own_metrics", without, "ns/record", "-");
    line("with_16_of_other_ports", took("tcp dst port #"), "ns/record", "-");
    line("with_16_of_every_record", took("udp"), "ns/record", "-");
}

fn bench_sflow() {
    let sflow = sflow_cases();
    let (decode, whole) = ours(None, 7, &sflow);
    line("decode_sflow_128", decode, "ns/sample", "<=20");
    line("decode_and_add_sflow", whole, "ns/sample", "-");
    let oracle = measure(7, &sflow, |d| {
        black_box(sflow_parser::parse_datagram(d).unwrap());
    });
    beside("sflow_128", decode, oracle, "ns/sample", ("<=20", ">=6"));
}

/// Datagrams a shard takes in a second of the wall's clock, each of so many shards on a thread of its
/// own: what a second core brings when exporters are several.
fn rate_of_shards(shards: usize, datagrams: &[Vec<u8>]) -> f64 {
    let run = || {
        let (mut shard, mut slice, mut now) = (bench_shard(&wide()), Slice::default(), NOW);
        let begin = Instant::now();
        let mut count = 0_usize;
        while begin.elapsed() < 4 * ROUND {
            for datagram in datagrams {
                shard.datagram(router(), datagram, now).unwrap();
            }
            count += datagrams.len();
            if count.is_multiple_of(datagrams.len() * 64) {
                shard.seal(now.slot(), &mut slice);
                now = Millis(now.0 + 100);
            }
        }
        count as f64 / begin.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shards).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// What a second core brings to work that shares nothing, not even memory: the most that this machine
/// allows.
fn rate_of_cores(cores: usize) -> f64 {
    let run = || {
        let begin = Instant::now();
        let (mut count, mut x) = (0_u64, 1_u32);
        while begin.elapsed() < 4 * ROUND {
            for _ in 0..10_000 {
                x = black_box(scramble(x));
            }
            count += 1;
        }
        count as f64 / begin.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn bench_cores() {
    let machine = (0..ROUNDS).map(|_| rate_of_cores(2) / rate_of_cores(1)).collect();
    line("two_cores_machine", median(machine), "times", "-");
    for (name, datagrams) in [("v5", v5_cases()), ("sflow", sflow_cases())] {
        let ratios = (0..ROUNDS)
            .map(|_| rate_of_shards(2, &datagrams) / rate_of_shards(1, &datagrams))
            .collect();
        line(&format!("two_cores_{name}"), median(ratios), "times", ">=1.7");
    }
}

/// All cases, or those named: `-- v5 sflow`.
fn main() {
    let cases: [(&str, fn()); 6] = [
        ("v5", bench_v5),
        ("v9", bench_v9),
        ("ipfix", bench_ipfix),
        ("sflow", bench_sflow),
        ("own", bench_own),
        ("cores", bench_cores),
    ];
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, case) in cases {
        if named.is_empty() || named.iter().any(|n| n == name) {
            case();
        }
    }
}
