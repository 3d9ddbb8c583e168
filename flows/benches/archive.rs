//! What the archive costs: `cargo bench -p weir-flows`.
//!
//! One line per figure: name, value, unit, bar. Addresses, ports and sizes are as good as random, which is the
//! worst case for both compression and sorting.

#![allow(dead_code, reason = "of the traffic only a part")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::print_stdout, reason = "a benchmark prints")]
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::sync::Arc;
use std::time::Instant;

use traffic::{Chance, EPOCH, flow};
use weir_flows::archive::{Archive, LOG_ROWS, Shared};
use weir_flows::catalog::{Catalog, Keep};
use weir_flows::query::{Limits, answer};
use weir_model::{ArchivedFlow, FlowQuery};

/// Files: of a million records each.
const FILES: u64 = 16;
/// Records of a batch, as weir sends them.
const BATCH: usize = 512;

/// Seconds that this process has spent on cores, all threads.
fn spent() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let ticks = |at: usize| after.split_whitespace().nth(at).unwrap().parse::<f64>().unwrap();
    // Fields 14 and 15: user and system time, in hundredths of a second.
    (ticks(11) + ticks(12)) / 100.0
}

/// A million records, a minute of them, in their wire form.
fn minute(file: u64) -> Vec<u8> {
    let mut chance = Chance(file + 1);
    let mut wire = Vec::new();
    for number in 0..LOG_ROWS {
        let mut flow = flow(&mut chance, number, 60_000);
        flow.start += file * 60_000;
        flow.end += file * 60_000;
        flow.put(&mut wire);
    }
    wire
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep { age_ms: u64::MAX, octets: u64::MAX, free: 0 };
    let shared = Arc::new(Shared::new(Catalog::open(dir.path()).unwrap()));
    let (mut cpu, mut wall) = (0.0, 0.0);
    for file in 0..FILES {
        // A run for each file, so that every log is sealed within the time measured.
        let wire = minute(file);
        let (began, before) = (Instant::now(), spent());
        let mut archive = Archive::start(&shared, keep).unwrap();
        wire.chunks(BATCH * ArchivedFlow::OCTETS).for_each(|batch| archive.take(batch));
        archive.stop();
        wall += began.elapsed().as_secs_f64();
        cpu += spent() - before;
    }
    let records = (FILES * LOG_ROWS) as f64;
    assert_eq!(shared.state().taken, FILES * LOG_ROWS);
    println!(
        "taken in and sealed, per second of a core  {:7.2} M records   (bar >= 1)",
        records / cpu / 1e6
    );
    println!("taken in and sealed, per second            {:7.2} M records", records / wall / 1e6);
    let octets = shared.catalog.octets() as f64 / records;
    println!("octets of a record                         {octets:7.2}             (bar <= 12)");
    let host = host(&shared);
    for (name, filter, by) in [
        ("one host", format!("host {host}"), vec!["src-port"]),
        ("one port", "udp and src port 53".to_owned(), vec!["src/24"]),
        ("top 10 of all, by protocol", String::new(), vec!["proto"]),
        ("top 10 of all, by destination", String::new(), vec!["dst"]),
    ] {
        ask(&shared, name, &filter, &by, records);
    }
}

/// A host that is there.
fn host(shared: &Shared) -> String {
    let query = FlowQuery { by: vec!["dst".to_owned()], top: Some(1), ..window() };
    let answer =
        answer(shared, &query, Limits { groups: usize::MAX, ..Limits::default() }, 0, &|| false);
    answer.unwrap().groups[0].key[0].clone()
}

fn window() -> FlowQuery {
    FlowQuery { from: Some(EPOCH), to: Some(EPOCH + FILES * 60_000), ..FlowQuery::default() }
}

fn ask(shared: &Shared, name: &str, filter: &str, by: &[&str], records: f64) {
    let by = by.iter().map(|&by| by.to_owned()).collect();
    let query = FlowQuery { filter: filter.to_owned(), by, ..window() };
    let limits = Limits { groups: usize::MAX, ..Limits::default() };
    let began = Instant::now();
    let answer = answer(shared, &query, limits, 0, &|| false).unwrap();
    let took = began.elapsed().as_secs_f64();
    println!(
        "{name:42} {:7.1} ms          {:.1} M records looked at, {:.2} ns each of the archive",
        took * 1e3,
        answer.looked_at as f64 / 1e6,
        took * 1e9 / records,
    );
}
