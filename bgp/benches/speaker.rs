//! How fast a decision passes the guard and reaches the wire, and how much a session bears.
//!
//! The speaker against the receiver over loopback, in one process on one runtime each:
//! `cargo bench -p weir-bgp --bench speaker`. Exits with 1 when a bar is missed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::exit,
    missing_docs,
    reason = "a benchmark"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use weir_bgp::config::{Config, PeerConfig};
use weir_bgp::flowspec::{self, Afi};
use weir_bgp::guard::{self, Admitted, Guard};
use weir_bgp::receiver::{self, Event};
use weir_bgp::speaker::{self, Stop};
use weir_bgp::wire::Family;
use weir_model::{
    Action, DesiredState, Filter, Inventory, Match, Measure, Millis, Mitigation, MitigationId,
    MitigationState, Observed, Originator, PrefixSet, Range, Rung,
};

/// Rules that stand while single changes are timed.
const STANDING: u32 = 1_000;

fn mitigation(n: u32, action: Action) -> Mitigation {
    let [_, _, high, low] = n.to_be_bytes();
    let mut packets = Match::to_host([10, 0, high, low].into());
    packets.protocols = vec![17];
    packets.dst_ports = vec![Range::exact(27015)];
    packets.src_ports = vec![Range { from: 1, to: 1023 }];
    Mitigation {
        id: MitigationId(u64::from(n) + 1),
        originator: Originator::Operator("bench".into()),
        measure: Measure::FlowSpec(Filter { packets, action }),
        rung: Rung::Drop,
        state: MitigationState::Active,
        since: Millis(1_000),
        expires: Millis(61_000),
        ended: None,
        peers: Vec::new(),
        note: String::new(),
        worth: 0,
    }
}

struct Bench {
    guard: Guard,
    generation: u64,
    desired: watch::Sender<Admitted>,
    stop: watch::Sender<Stop>,
    events: mpsc::Receiver<Event>,
}

impl Bench {
    /// What the guard makes of it: beforehand, so that the speaker alone is timed.
    fn admit(&mut self, mut mitigations: Vec<Mitigation>) -> Admitted {
        mitigations.sort_by(|a, b| a.measure.cmp(&b.measure));
        self.generation += 1;
        let state = DesiredState { generation: self.generation, mitigations: mitigations.into() };
        let admitted = self.guard.admit(&state, Millis(1_000));
        assert!(admitted.refused().is_empty(), "{:?}", admitted.refused().first());
        admitted
    }

    fn send(&mut self, mitigations: Vec<Mitigation>) {
        let admitted = self.admit(mitigations);
        self.desired.send_replace(admitted);
    }

    fn wait(&mut self, what: impl Fn(&Event) -> bool) {
        loop {
            let event = self.events.blocking_recv().expect("the receiver runs");
            assert!(!matches!(event, Event::Down(_)), "{event:?}");
            if what(&event) {
                return;
            }
        }
    }
}

fn start() -> Bench {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (port_in, port_out) = std::sync::mpsc::channel();
    let (event_in, events) = mpsc::channel(65_536);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            port_in.send(listener.local_addr().unwrap().port()).unwrap();
            receiver::serve(listener, 65020, Ipv4Addr::new(10, 0, 0, 2), event_in).await.unwrap();
        });
    });
    let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
    let mut peer = PeerConfig::new("edge", "127.0.0.1".parse().unwrap(), 65020);
    peer.port = port_out.recv().unwrap();
    peer.max_rules = Some(100_000);
    config.peers.push(peer);
    let (desired, desired_out) = watch::channel(Admitted::default());
    let (stop, stop_out) = watch::channel(Stop::Run);
    let (observed, mut reports) = mpsc::channel::<Observed>(1024);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let sink = tokio::spawn(async move { while reports.recv().await.is_some() {} });
            speaker::run(config, desired_out, observed, stop_out).await.unwrap();
            sink.await.unwrap();
        });
    });
    let protected: PrefixSet = ["10.0.0.0/8"].iter().map(|p| p.parse().unwrap()).collect();
    let limits = guard::Config {
        max_per_incident: 100_000,
        max_total: 100_000,
        max_changes_per_min: 100_000,
        ..guard::Config::default()
    };
    let inventory = Inventory::new(protected, PrefixSet::default(), Vec::new());
    let guard = Guard::new(limits, Arc::new(inventory));
    Bench { guard, generation: 0, desired, stop, events }
}

fn check(name: &str, measured: Duration, bar: Duration) -> bool {
    let verdict = if measured <= bar { "met" } else { "MISSED" };
    println!("{name}: {measured:?} (bar {bar:?}): {verdict}");
    measured <= bar
}

fn main() {
    let mut met = true;
    // 10,000 rules at once, from the first admitted state to the End-of-RIB.
    let mut bench = start();
    bench.wait(|e| matches!(e, Event::Up { .. }));
    let rules: Vec<_> = (0..10_000).map(|n| mitigation(n, Action::Drop)).collect();
    let started = Instant::now();
    bench.send(rules);
    bench.wait(|e| matches!(e, Event::EndOfRib(Family::Ipv4FlowSpec)));
    met &= check("10,000 rules announced", started.elapsed(), Duration::from_secs(2));
    bench.stop.send_replace(Stop::Hold);

    // One change at a time on top of standing rules, from the desired state through the guard to
    // the receiver.
    let mut bench = start();
    bench.wait(|e| matches!(e, Event::Up { .. }));
    let standing: Vec<_> = (0..STANDING).map(|n| mitigation(n, Action::Drop)).collect();
    bench.send(standing.clone());
    bench.wait(|e| matches!(e, Event::EndOfRib(Family::Ipv6FlowSpec)));
    let mut admissions = Vec::new();
    let mut latencies = Vec::new();
    for n in 0..2_000 {
        let mut wanted = standing.clone();
        wanted.push(mitigation(STANDING + n, Action::Drop));
        let started = Instant::now();
        let admitted = bench.admit(wanted);
        admissions.push(started.elapsed());
        bench.desired.send_replace(admitted);
        bench.wait(|e| matches!(e, Event::Announced(_)));
        latencies.push(started.elapsed());
    }
    let percentile = |list: &mut Vec<Duration>, share: usize| {
        list.sort();
        list[list.len() * share / 100]
    };
    println!(
        "one more rule beside {STANDING}: guard p50 {:?} p99 {:?}, guard and wire p50 {:?}",
        percentile(&mut admissions, 50),
        percentile(&mut admissions, 99),
        percentile(&mut latencies, 50)
    );
    let p99 = percentile(&mut latencies, 99);
    met &= check("verdict to UPDATE read by the peer, p99", p99, Duration::from_millis(20));

    // 1,000 changes a second for five seconds; the session must live and end up right.
    let states: Vec<Admitted> = (0..200_u32)
        .map(|n| {
            let mut wanted = standing.clone();
            let rate = Action::RateLimit { bytes_per_sec: u64::from(n) + 20_000 };
            wanted.push(mitigation(STANDING + n % 100, rate));
            bench.admit(wanted)
        })
        .collect();
    let pause = Duration::from_millis(1);
    let started = Instant::now();
    for (n, state) in (0..5_000_u32).zip(states.iter().cycle()) {
        bench.desired.send_replace(state.clone());
        let next = pause * (n + 1);
        std::thread::park_timeout(next.saturating_sub(started.elapsed()));
    }
    let rate = 5_000.0 / started.elapsed().as_secs_f64();
    bench.send(Vec::new());
    let mut left = true;
    while left {
        let Event::Withdrawn(last) = bench.events.blocking_recv().unwrap() else { continue };
        left = !last.text.contains("10.0.3.231/32");
    }
    println!("{rate:.0} changes/s for five seconds: the session held");
    bench.stop.send_replace(Stop::Withdraw);

    // The guard by itself, over a full table.
    let mut bench = start();
    let rules: Vec<_> = (0..10_000).map(|n| mitigation(n, Action::Drop)).collect();
    let started = Instant::now();
    bench.admit(rules.clone());
    println!("admit 10,000 rules: {:?}", started.elapsed());
    let started = Instant::now();
    bench.admit(rules);
    println!("admit the same again: {:?}", started.elapsed());
    bench.stop.send_replace(Stop::Hold);

    // The codec by itself.
    let packets = match mitigation(0, Action::Drop).measure {
        Measure::FlowSpec(filter) => filter.packets,
        other => unreachable!("{other}"),
    };
    let nlri = flowspec::encode(&packets).unwrap();
    let rounds = 200_000_u32;
    let started = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(flowspec::encode(std::hint::black_box(&packets)).unwrap());
    }
    println!("encode a rule: {:?}", started.elapsed() / rounds);
    let started = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(flowspec::decode(Afi::Ipv4, std::hint::black_box(&nlri)).unwrap());
    }
    println!("decode a rule: {:?}", started.elapsed() / rounds);
    if !met {
        std::process::exit(1);
    }
}
