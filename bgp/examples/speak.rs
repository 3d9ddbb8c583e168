//! A speaker on a leash, to try weir's BGP against a router by hand or from a script.
//!
//! `speak CONFIG.json PREFIX...` takes the `[bgp]` section as JSON and the protected prefixes.
//! Each line of standard input is the whole desired state, a JSON array of measures, or `hold`
//! or `withdraw` to end; the end of the input holds. What the speaker reports comes out as JSON
//! lines. `speak --test CONFIG.json` tests each peer instead, and writes what was found.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for tests"
)]

use std::io::BufRead;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use weir_bgp::config::Config;
use weir_bgp::guard::{self, Admitted, Guard};
use weir_bgp::speaker::{self, Stop};
use weir_model::{
    DesiredState, Inventory, Measure, Millis, Mitigation, MitigationId, MitigationState, Observed,
    Originator, PrefixSet, Rung,
};

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut args = std::env::args().skip(1).peekable();
    let test = args.next_if_eq("--test").is_some();
    let file = args.next().expect("usage: speak CONFIG.json PREFIX...");
    let config: Config = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    if test {
        return probe(&config);
    }
    let protected = args.map(|p| p.parse().unwrap()).collect();
    let (desired, desired_out) = watch::channel(Admitted::default());
    let (stop, stop_out) = watch::channel(Stop::Run);
    let (observed, mut reports) = mpsc::channel::<Observed>(1024);
    std::thread::spawn(move || read(protected, &desired, &stop));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let printer = tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                println!("{}", serde_json::to_string(&report).unwrap());
            }
        });
        speaker::run(config, desired_out, observed, stop_out).await.unwrap();
        printer.await.unwrap();
    });
}

fn probe(config: &Config) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for peer in &config.peers {
        let found = runtime.block_on(speaker::probe(config, peer));
        println!("{}", serde_json::to_string(&found).unwrap());
    }
}

fn read(protected: PrefixSet, desired: &watch::Sender<Admitted>, stop: &watch::Sender<Stop>) {
    let inventory = Inventory::new(protected, PrefixSet::default(), Vec::new());
    let limits = guard::Config {
        max_per_incident: 100_000,
        max_total: 100_000,
        max_rtbh_total: 100_000,
        max_changes_per_min: 100_000,
        allow_redirect: true,
        ..guard::Config::default()
    };
    let mut guard = Guard::new(limits, Arc::new(inventory));
    let mut generation = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        match line.trim() {
            "hold" => break,
            "withdraw" => {
                stop.send_replace(Stop::Withdraw);
                return;
            }
            state => {
                let mut measures: Vec<Measure> = serde_json::from_str(state).unwrap();
                measures.sort();
                generation += 1;
                let admitted = guard.admit(&wanted(generation, measures), now());
                for (id, why) in admitted.refused() {
                    eprintln!("guard refuses {id}: {why}");
                }
                desired.send_replace(admitted);
            }
        }
    }
    stop.send_replace(Stop::Hold);
}

fn wanted(generation: u64, measures: Vec<Measure>) -> DesiredState {
    let mitigations = measures.into_iter().zip(1..).map(|(measure, id)| Mitigation {
        id: MitigationId(id),
        originator: Originator::Operator("speak".into()),
        measure,
        rung: Rung::Drop,
        state: MitigationState::Active,
        since: now(),
        expires: now() + 3_600_000,
        ended: None,
        peers: Vec::new(),
        note: String::new(),
        worth: 0,
    });
    DesiredState { generation, mitigations: mitigations.collect() }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis(since.as_millis().try_into().unwrap())
}
