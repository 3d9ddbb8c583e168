//! What the archive takes, in records per second and octets per record, and how quickly it answers.
//!
//! `cargo run --release -p weir-flows --example bench [RECORDS]`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::path::Path;
use std::time::{Duration, Instant};

use traffic::{Chance, EPOCH, flow};
use weir_flows::archive::{Archive, Shared};
use weir_flows::catalog::{Catalog, Keep};
use weir_flows::query::{Limits, answer};
use weir_model::{ArchivedFlow, FlowQuery};

/// Records a second that the times in the records stand for.
const PER_SEC: u64 = 50_000;
/// Records that come at once.
const BATCH: u64 = 512;

fn main() {
    let records: u64 = std::env::args().nth(1).map_or(4 << 20, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep { age_ms: u64::MAX, octets: u64::MAX, free: 0 };
    let shared = std::sync::Arc::new(Shared::new(Catalog::open(dir.path()).unwrap()));
    let mut archive = Archive::start(&shared, keep).unwrap();
    let (mut chance, mut log) = (Chance(1), Duration::ZERO);
    let mut wire = Vec::new();
    let mut sealing = Duration::ZERO;
    for first in (0..records).step_by(usize::try_from(BATCH).unwrap()) {
        wire.clear();
        (first..first + BATCH).for_each(|n| flow(&mut chance, n, PER_SEC).put(&mut wire));
        let began = Instant::now();
        archive.take(&wire);
        log += began.elapsed();
        if (first + BATCH).is_multiple_of(1 << 20) {
            // One after the other: each is measured alone.
            let began = Instant::now();
            while shared.catalog.now().iter().any(|entry| entry.is_log()) {
                std::thread::yield_now();
            }
            sealing += began.elapsed();
        }
    }
    let began = Instant::now();
    archive.stop();
    sealing += began.elapsed();
    let taken = shared.state().taken as f64;
    println!(
        "log      {:>6.2} M records/s, {} octets/record",
        taken / log.as_secs_f64() / 1e6,
        ArchivedFlow::OCTETS
    );
    let sealed = shared.catalog.octets() as f64 / taken;
    println!(
        "Parquet  {:>6.2} M records/s, {sealed:.1} octets/record",
        taken / sealing.as_secs_f64() / 1e6
    );
    println!("memory   {:>6} MB at most", memory());
    columns(dir.path());
    for threads in [1, 2] {
        ask(
            &shared,
            threads,
            "one host, its records",
            FlowQuery { filter: "host 203.0.113.77".into(), records: true, ..all() },
        );
        ask(
            &shared,
            threads,
            "one source",
            FlowQuery { filter: "src host 9.9.9.9".into(), ..all() },
        );
        ask(
            &shared,
            threads,
            "top src/24, UDP 53",
            FlowQuery { filter: "udp and src port 53".into(), by: vec!["src/24".into()], ..all() },
        );
        ask(&shared, threads, "top dst, all", FlowQuery { by: vec!["dst".into()], ..all() });
        ask(&shared, threads, "totals a minute", FlowQuery { every: Some(60), ..all() });
    }
}

fn all() -> FlowQuery {
    FlowQuery { from: Some(EPOCH), to: Some(EPOCH + 36_000_000), ..FlowQuery::default() }
}

fn ask(shared: &Shared, threads: usize, what: &str, query: FlowQuery) {
    let limits = Limits { time: Duration::from_secs(600), threads, ..Limits::default() };
    let began = Instant::now();
    let answer = answer(shared, &query, limits, 0, &|| false).unwrap();
    let secs = began.elapsed().as_secs_f64();
    println!(
        "{threads} threads, {what:<24} {:>8.1} ms, {:>9} of {:>9} records fit, {:>7.1} M records/s of the archive",
        secs * 1000.0,
        answer.total.records,
        answer.looked_at,
        shared.state().taken as f64 / secs / 1e6
    );
}

/// Octets a record of each column.
fn columns(dir: &Path) {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let (mut sums, mut rows) = (std::collections::BTreeMap::<String, i64>::new(), 0);
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
                for group in reader.metadata().row_groups() {
                    rows += group.num_rows();
                    for column in group.columns() {
                        *sums.entry(column.column_path().string()).or_default() +=
                            column.compressed_size();
                    }
                }
            }
        }
    }
    let parts: Vec<_> =
        sums.iter().map(|(name, sum)| format!("{name} {:.2}", *sum as f64 / rows as f64)).collect();
    println!("columns  {}", parts.join(", "));
}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
