//! The speaker against the receiver, over real TCP on loopback.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_bgp::config::{Config, PeerConfig};
use weir_bgp::guard::{self, Admitted, Guard};
use weir_bgp::receiver::{self, Event};
use weir_bgp::speaker::{self, Stop};
use weir_bgp::wire::Family;
use weir_model::{
    Action, DesiredState, Filter, Inventory, Match, Measure, Millis, Mitigation, MitigationId,
    MitigationState, Observed, Originator, PeerState, PrefixSet, Range, Rung,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn rule(dst: &str, port: u16, action: Action) -> Measure {
    let mut packets = Match::to(dst.parse().unwrap());
    packets.protocols = vec![17];
    packets.dst_ports = vec![Range::exact(port)];
    Measure::FlowSpec(Filter { packets, action })
}

/// What the guard lets through of `measures`: all of it.
fn desired(mut measures: Vec<Measure>) -> Admitted {
    measures.sort();
    let now = Millis(1_000);
    let mitigations = measures
        .into_iter()
        .map(|measure| Mitigation {
            id: MitigationId(1),
            originator: Originator::Operator("test".into()),
            measure,
            rung: Rung::Drop,
            state: MitigationState::Active,
            since: now,
            expires: now + 60_000,
            ended: None,
            peers: Vec::new(),
            note: String::new(),
            worth: 0,
        })
        .collect();
    let protected =
        ["203.0.113.0/24", "2001:db8::/48"].iter().map(|p| p.parse().unwrap()).collect();
    let inventory = Inventory::new(protected, PrefixSet::default(), Vec::new());
    let mut guard = Guard::new(guard::Config::default(), Arc::new(inventory));
    let admitted = guard.admit(&DesiredState { generation: 1, mitigations }, now);
    assert_eq!(admitted.refused(), []);
    admitted
}

/// A receiver, and a speaker that dials it.
struct Bench {
    events: mpsc::Receiver<Event>,
    observed: mpsc::Receiver<Observed>,
    desired: watch::Sender<Admitted>,
    stop: watch::Sender<Stop>,
    speaker: JoinHandle<Result<(), speaker::SpeakerError>>,
    receiver: JoinHandle<std::io::Result<()>>,
}

async fn receiver(
    listener: TcpListener,
) -> (mpsc::Receiver<Event>, JoinHandle<std::io::Result<()>>) {
    let (sender, events) = mpsc::channel(64);
    let task = tokio::spawn(receiver::serve(listener, 65020, Ipv4Addr::new(10, 0, 0, 2), sender));
    (events, task)
}

async fn bench(first: Admitted) -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
    let mut peer = PeerConfig::new("edge", "127.0.0.1".parse().unwrap(), 65020);
    peer.port = listener.local_addr().unwrap().port();
    peer.connect_retry_secs = 1;
    config.peers.push(peer);
    let (events, receiver) = receiver(listener).await;
    let (desired, desired_out) = watch::channel(first);
    let (stop, stop_out) = watch::channel(Stop::Run);
    let (observed_in, observed) = mpsc::channel(64);
    let speaker = tokio::spawn(speaker::run(config, desired_out, observed_in, stop_out));
    Bench { events, observed, desired, stop, speaker, receiver }
}

impl Bench {
    async fn event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap()
    }

    /// The next event of the receiver in a line.
    async fn line(&mut self) -> String {
        match self.event().await {
            Event::Up { asn, families } => format!("up AS{asn} {families:?}"),
            Event::Announced(r) => format!("+ {}", r.text),
            Event::Withdrawn(r) => format!("- {}", r.text),
            Event::EndOfRib(family) => format!("end-of-rib {family}"),
            Event::Unreadable(why) => format!("unreadable {why}"),
            Event::Down(why) => format!("down {why}"),
        }
    }

    /// What the speaker reports next, its own state left out.
    async fn report(&mut self) -> Observed {
        loop {
            let report =
                tokio::time::timeout(PATIENCE, self.observed.recv()).await.unwrap().unwrap();
            if !matches!(report, Observed::Peer(_)) {
                return report;
            }
        }
    }
}

const UP: &str = "up AS65010 {Ipv4Unicast, Ipv6Unicast, Ipv4FlowSpec, Ipv6FlowSpec}";

#[tokio::test]
async fn routes_are_announced_replaced_and_withdrawn() {
    let hole = Measure::Blackhole("203.0.113.7/32".parse().unwrap());
    let limit = rule("203.0.113.9/32", 27015, Action::RateLimit { bytes_per_sec: 125_000 });
    let mut bench = bench(desired(vec![hole.clone(), limit.clone()])).await;
    assert_eq!(bench.line().await, UP);
    assert_eq!(bench.line().await, "+ blackhole 203.0.113.7/32");
    assert_eq!(
        bench.line().await,
        "+ flowspec dst 203.0.113.9/32 proto 17 dport 27015 rate-limit 125000 bytes/s"
    );
    for family in Family::ALL {
        assert_eq!(bench.line().await, format!("end-of-rib {family}"));
    }
    for expected in [hole, limit] {
        let Observed::Announced { peer, measure, .. } = bench.report().await else { panic!() };
        assert_eq!((peer.as_str(), measure), ("edge", expected));
    }
    let drop = rule("203.0.113.9/32", 27015, Action::Drop);
    let hole6 = Measure::Blackhole("2001:db8::7/128".parse().unwrap());
    bench.desired.send(desired(vec![drop, hole6])).unwrap();
    assert_eq!(bench.line().await, "+ blackhole 2001:db8::7/128");
    assert_eq!(bench.line().await, "+ flowspec dst 203.0.113.9/32 proto 17 dport 27015 drop");
    assert_eq!(bench.line().await, "- blackhole 203.0.113.7/32");
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(match bench.report().await {
            Observed::Announced { measure, .. } => format!("+ {measure}"),
            Observed::Withdrawn { measure, .. } => format!("- {measure}"),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(
        kinds,
        [
            "+ blackhole 2001:db8::7/128",
            "- flowspec dst 203.0.113.9/32 proto 17 dport 27015 rate-limit 125000 bytes/s",
            "+ flowspec dst 203.0.113.9/32 proto 17 dport 27015 drop",
            "- blackhole 203.0.113.7/32",
        ]
    );
    bench.stop.send(Stop::Withdraw).unwrap();
    assert_eq!(bench.line().await, "- blackhole 2001:db8::7/128");
    assert_eq!(bench.line().await, "- flowspec dst 203.0.113.9/32 proto 17 dport 27015 drop");
    assert_eq!(
        bench.line().await,
        "down peer sent NOTIFICATION 6/2 administrative shutdown: weir stops"
    );
    bench.speaker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_that_drops_takes_its_routes_with_it() {
    let hole = Measure::Blackhole("203.0.113.7/32".parse().unwrap());
    let mut bench = bench(desired(vec![hole])).await;
    assert_eq!(bench.line().await, UP);
    assert_eq!(bench.line().await, "+ blackhole 203.0.113.7/32");
    // The receiver's task dies with its connection; the speaker sees the session go.
    bench.receiver.abort();
    loop {
        match tokio::time::timeout(PATIENCE, bench.observed.recv()).await.unwrap().unwrap() {
            Observed::Withdrawn { measure, .. } => {
                assert_eq!(measure.to_string(), "blackhole 203.0.113.7/32");
                break;
            }
            Observed::Announced { .. } | Observed::Peer(_) => {}
            other @ Observed::Refused { .. } => panic!("{other:?}"),
        }
    }
    loop {
        let report = tokio::time::timeout(PATIENCE, bench.observed.recv()).await.unwrap().unwrap();
        if let Observed::Peer(status) = report {
            assert_eq!(status.flaps, 1);
            assert_ne!(status.state, PeerState::Established);
            assert!(status.last_error.is_some());
            break;
        }
    }
}

#[tokio::test]
async fn stopping_with_hold_says_nothing() {
    let hole = Measure::Blackhole("203.0.113.7/32".parse().unwrap());
    let mut bench = bench(desired(vec![hole])).await;
    assert_eq!(bench.line().await, UP);
    assert_eq!(bench.line().await, "+ blackhole 203.0.113.7/32");
    for family in Family::ALL {
        assert_eq!(bench.line().await, format!("end-of-rib {family}"));
    }
    bench.stop.send(Stop::Hold).unwrap();
    assert_eq!(bench.line().await, "down the peer closed the connection");
    bench.speaker.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_end_of_rib_before_the_first_desired_state() {
    let mut bench = bench(Admitted::default()).await;
    assert_eq!(bench.line().await, UP);
    // Had an End-of-RIB been sent before, it would come first.
    let hole = Measure::Blackhole("203.0.113.7/32".parse().unwrap());
    bench.desired.send(desired(vec![hole])).unwrap();
    assert_eq!(bench.line().await, "+ blackhole 203.0.113.7/32");
    assert_eq!(bench.line().await, "end-of-rib ipv4-unicast");
}
