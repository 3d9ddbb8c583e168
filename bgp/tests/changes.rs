//! A running speaker that is given another configuration, against receivers on loopback.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_bgp::config::{Config, PeerConfig};
use weir_bgp::guard::{self, Admitted, Guard};
use weir_bgp::receiver::{self, Event};
use weir_bgp::speaker::{Listening, Prepared, Speaker, SpeakerError, Stop};
use weir_model::{
    Action, DesiredState, Filter, Inventory, Match, Measure, Millis, Mitigation, MitigationId,
    MitigationState, Observed, Originator, PrefixSet, Rung,
};

const PATIENCE: Duration = Duration::from_secs(20);
const HOLE: &str = "blackhole 203.0.113.7/32";
const RULE: &str = "flowspec dst 203.0.113.9/32 drop";

/// A black hole and a rule.
fn desired() -> Admitted {
    let rule = Filter { packets: Match::to_host([203, 0, 113, 9].into()), action: Action::Drop };
    let measures = [Measure::FlowSpec(rule), Measure::Blackhole("203.0.113.7/32".parse().unwrap())];
    let mut mitigations: Vec<Mitigation> = measures
        .into_iter()
        .map(|measure| Mitigation {
            id: MitigationId(1),
            originator: Originator::Operator("test".into()),
            rung: measure.rung(),
            measure,
            state: MitigationState::Active,
            since: Millis(1_000),
            expires: Millis(61_000),
            ended: None,
            peers: Vec::new(),
            note: String::new(),
            worth: 0,
        })
        .collect();
    mitigations.sort_by(|a, b| a.measure.cmp(&b.measure));
    let protected: PrefixSet = [("203.0.113.0/24").parse().unwrap()].into_iter().collect();
    let inventory = Inventory::new(protected, PrefixSet::default(), Vec::new());
    let mut guard = Guard::new(guard::Config::default(), Arc::new(inventory));
    guard.admit(&DesiredState { generation: 1, mitigations: mitigations.into() }, Millis(1_000))
}

/// A router: what happens there.
struct Router {
    port: u16,
    events: mpsc::Receiver<Event>,
}

impl Router {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, events) = mpsc::channel(64);
        tokio::spawn(receiver::serve(listener, 65020, Ipv4Addr::new(10, 0, 0, 2), sender));
        Self { port, events }
    }

    async fn line(&mut self) -> String {
        match tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap() {
            Event::Up { .. } => "up".to_owned(),
            Event::Announced(r) => format!("+ {}", r.text),
            Event::Withdrawn(r) => format!("- {}", r.text),
            Event::EndOfRib(_) => "end".to_owned(),
            Event::Unreadable(why) => format!("unreadable {why}"),
            Event::Down(why) => format!("down {why}"),
        }
    }

    async fn says(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line().await, *line, "of {lines:?}");
        }
    }

    /// Nothing has happened so far.
    fn is_quiet(&mut self) {
        assert!(self.events.try_recv().is_err());
    }
}

struct Bench {
    config: Config,
    changes: mpsc::Sender<Prepared>,
    observed: mpsc::Receiver<Observed>,
    listening: Listening,
    stop: watch::Sender<Stop>,
    _desired: watch::Sender<Admitted>,
    speaker: JoinHandle<Result<(), SpeakerError>>,
}

impl Bench {
    fn start(config: Config) -> Self {
        let (first, listening) =
            Prepared::new(Some(config.clone()), &Listening::default()).unwrap();
        let (changes, changed) = mpsc::channel(4);
        let (_desired, desired_out) = watch::channel(desired());
        let (stop, stopping) = watch::channel(Stop::Run);
        let (sender, observed) = mpsc::channel(64);
        let speaker = Speaker::new(first).with_changes(changed);
        let speaker = tokio::spawn(speaker.run(desired_out, sender, stopping));
        let listening = listening.unwrap_or_default();
        Self { config, changes, observed, listening, stop, _desired, speaker }
    }

    async fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        let (next, listening) = Prepared::new(Some(self.config.clone()), &self.listening).unwrap();
        self.listening = listening.unwrap_or_else(|| std::mem::take(&mut self.listening));
        self.changes.send(next).await.unwrap();
    }

    /// The next thing reported of a peer but its state.
    async fn report(&mut self, of: &str) -> String {
        loop {
            let report = tokio::time::timeout(PATIENCE, self.observed.recv()).await.unwrap();
            let (peer, text) = match report.unwrap() {
                Observed::Peer(_) => continue,
                Observed::Announced { peer, measure, .. } => (peer, format!("+ {measure}")),
                Observed::Withdrawn { peer, measure, .. } => (peer, format!("- {measure}")),
                Observed::Refused { peer, measure, .. } => (peer, format!("! {measure}")),
            };
            if peer == of {
                return text;
            }
        }
    }
}

fn peer(name: &str, router: &Router) -> PeerConfig {
    let mut peer = PeerConfig::new(name, "127.0.0.1".parse().unwrap(), 65020);
    peer.port = router.port;
    peer.connect_retry_secs = 1;
    peer
}

fn config(peers: Vec<PeerConfig>) -> Config {
    let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
    config.peers = peers;
    config
}

const FIRST: [&str; 7] = [
    "up",
    "+ blackhole 203.0.113.7/32",
    "+ flowspec dst 203.0.113.9/32 drop",
    "end",
    "end",
    "end",
    "end",
];

#[tokio::test]
async fn another_policy_is_written_into_the_session_that_is_there() {
    let mut router = Router::start().await;
    let mut bench = Bench::start(config(vec![peer("edge", &router)]));
    router.says(&FIRST).await;
    // Of black holes alone.
    bench.change(|c| c.peers[0].local_pref = 300).await;
    bench.change(|c| c.peers[0].flowspec_communities = vec!["65010:7".parse().unwrap()]).await;
    // Neither of these is written anywhere.
    bench.change(|c| c.peers[0].connect_retry_secs = 2).await;
    bench.change(|c| c.peers[0].max_routes = Some(7)).await;
    bench.change(|c| c.peers[0].steps = Some(vec![Rung::Rtbh])).await;
    let lines: Vec<String> = {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != &format!("- {RULE}")) {
            lines.push(router.line().await);
        }
        lines
    };
    // Changes may be taken together: what stands at the end is what counts, and that no line is of more.
    assert!(lines.len() <= 3 && !lines.iter().any(|l| l.starts_with("down")), "{lines:?}");
    bench.change(|c| c.peers[0].steps = None).await;
    router.says(&[&format!("+ {RULE}")]).await;
    bench.stop.send(Stop::Withdraw).unwrap();
    bench.speaker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_ends_only_where_it_takes_another_one() {
    let (mut one, mut two) = (Router::start().await, Router::start().await);
    let mut bench = Bench::start(config(vec![peer("one", &one), peer("two", &two)]));
    one.says(&FIRST).await;
    two.says(&FIRST).await;
    bench.change(|c| c.peers[0].hold_time_secs = 30).await;
    assert!(one.line().await.starts_with("down "), "the parameters of the session have changed");
    one.says(&FIRST).await;
    two.is_quiet();
    // What the first session had is reported gone and there again.
    let mut reports = Vec::new();
    for _ in 0..6 {
        reports.push(bench.report("one").await);
    }
    let (hole, rule) = (format!("+ {HOLE}"), format!("+ {RULE}"));
    assert_eq!(reports[4..], [hole, rule], "{reports:?}");
    bench.stop.send(Stop::Hold).unwrap();
    bench.speaker.await.unwrap().unwrap();
}

#[tokio::test]
async fn peers_come_and_go() {
    let (mut one, mut two) = (Router::start().await, Router::start().await);
    let mut bench = Bench::start(config(vec![peer("one", &one)]));
    one.says(&FIRST).await;
    let added = peer("two", &two);
    bench.change(|c| c.peers.push(added)).await;
    two.says(&FIRST).await;
    one.is_quiet();
    bench.change(|c| drop(c.peers.remove(0))).await;
    one.says(&[&format!("- {HOLE}"), &format!("- {RULE}")]).await;
    let down = one.line().await;
    assert!(down.contains("6/3"), "{down}");
    two.is_quiet();
    // Another name for the same neighbour waits until the first one has left.
    bench.change(|c| c.peers[0].name = "three".to_owned()).await;
    two.says(&[&format!("- {HOLE}"), &format!("- {RULE}")]).await;
    assert!(two.line().await.starts_with("down "));
    two.says(&FIRST).await;
    // Nothing is left to speak to, and the speaker goes on.
    bench.change(|c| c.peers.clear()).await;
    two.says(&[&format!("- {HOLE}"), &format!("- {RULE}")]).await;
    assert!(two.line().await.contains("6/3"));
    let again = peer("one", &one);
    bench.change(|c| c.peers.push(again)).await;
    one.says(&FIRST).await;
    bench.stop.send(Stop::Withdraw).unwrap();
    bench.speaker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_address_is_bound_before_the_old_one_is_closed() {
    let router = Router::start().await;
    let mut first = config(vec![peer("edge", &router)]);
    first.listen = Some("127.0.0.1:0".parse().unwrap());
    let mut bench = Bench::start(first);
    let old = bench.listening.local_addr().unwrap();
    let takes = |at: SocketAddr| std::net::TcpStream::connect(at).is_ok();
    assert!(takes(old));
    // Taken by somebody else: nothing changes.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wrong = bench.config.clone();
    wrong.listen = Some(other.local_addr().unwrap());
    let refused = Prepared::new(Some(wrong), &bench.listening);
    assert!(matches!(refused, Err(SpeakerError::Bind { .. })));
    assert!(takes(old));
    // Wider, at the same port: both are there for a moment.
    bench.change(|c| c.listen = Some(SocketAddr::from(([0, 0, 0, 0], old.port())))).await;
    let wide = bench.listening.local_addr().unwrap();
    assert_eq!(wide.to_string(), format!("0.0.0.0:{}", old.port()));
    assert!(takes(old));
    // And the port is nobody else's afterwards.
    assert!(std::net::TcpListener::bind(old).is_err());
    bench.change(|c| c.listen = None).await;
    tokio::time::timeout(PATIENCE, async {
        while takes(old) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    bench.stop.send(Stop::Withdraw).unwrap();
    bench.speaker.await.unwrap().unwrap();
}
