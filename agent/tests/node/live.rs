//! The agent's program on a node, an appliance outside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_agent::controller::{Common, Situation};
use weir_agent::protocol::{Block, RuleState, fingerprint};
use weir_agent::server::Server;
use weir_model::{
    Action, Direction, Family, Filter, Incident, IncidentId, IncidentState, Match, Measure, Metric,
    Millis, Mitigation, MitigationId, MitigationState, Originator, Phase, Range, Rate, Reason,
    Rung, Service, Verdict,
};

use crate::lab::Pid;
use crate::packet::Packet;
use crate::rules::attacker;
use crate::world::{NODE4, NODE6, PLAYER4, PORT, World, inside, ip, now};

/// A dev build on a busy machine is held to what shows a blunder, a release build to the promise.
pub(crate) const RELEASE: bool = !cfg!(debug_assertions);

/// The appliance and the agent that has joined it.
pub(crate) struct Live {
    pub(crate) world: World,
    pub(crate) server: Arc<Server>,
    pub(crate) agent: Pid,
    pub(crate) common: Common,
    pub(crate) incidents: Vec<Arc<Incident>>,
    serving: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    address: SocketAddr,
}

impl Live {
    pub(crate) fn new(test: &str, more: &str) -> Option<Self> {
        Self::run_by(test, more, &[])
    }

    /// The same, with a program before the agent's that changes what surrounds it.
    pub(crate) fn run_by(test: &str, more: &str, by: &[&str]) -> Option<Self> {
        let mut world = World::new(test)?;
        std::fs::create_dir(world.outside.path("appliance")).unwrap();
        let (server, serving, stop, address) = appliance(&world, "198.51.100.1:0".parse().unwrap());
        let token = server.token(None, &[], now()).unwrap().to_string();
        let state = world.node.path("state");
        let run = world.node.path("run");
        let config = format!(
            "state = {state:?}\nrun = {run:?}\nlearn = \"off\"\ninterfaces = [\"vn0\"]\n{more}\n"
        );
        world.node.write("agent.toml", &config);
        let url = format!("https://{address}");
        world.node.run(&[AGENT, "--config", "agent.toml", "join", &url, &token, "--name", "node1"]);
        let run = [by, &[AGENT, "--config", "agent.toml", "run"]].concat();
        let agent = world.node.spawn("agent", &run);
        let live = Self {
            world,
            server,
            agent,
            common: Common::default(),
            incidents: Vec::new(),
            serving: Some(serving),
            stop,
            address,
        };
        live.wait_report("the first report", |_| true);
        Some(live)
    }

    pub(crate) fn want(&self, mitigations: &[Mitigation]) {
        let service = |a: &str| Service {
            address: ip(a),
            protocol: 17,
            port: PORT,
            name: String::new(),
            game: String::new(),
        };
        let services = [service(NODE4), service(NODE6)];
        let situation = Situation {
            mitigations,
            incidents: &self.incidents,
            services: &services,
            common: &self.common,
            alone: true,
            restrained: &[],
        };
        self.server.controller().desire(&situation, now());
        self.server.publish().unwrap();
    }

    /// Waits until the node has the latest version in force.
    pub(crate) fn want_and_wait(&self, mitigations: &[Mitigation]) {
        self.want(mitigations);
        let version = self.server.controller().nodes()["node1"].version;
        self.wait_report("the version", |r| r.version == version);
    }

    pub(crate) fn wait_report(
        &self,
        what: &str,
        good: impl Fn(&weir_agent::protocol::Report) -> bool,
    ) {
        self.world.node.wait_for(what, 15, |_| {
            let controller = self.server.controller();
            controller.nodes().get("node1")?.report.as_ref().filter(|r| good(r)).map(|_| ())
        });
    }

    pub(crate) fn wait_event(&self, kind: &str) -> String {
        self.world.node.wait_for(kind, 15, |_| {
            let controller = self.server.controller();
            let events = &controller.nodes().get("node1")?.events;
            events.iter().find(|e| e.kind == kind).map(|e| e.text.clone())
        })
    }

    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.world.node.ask(&[&[AGENT, "--config", "agent.toml"], command].concat())
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) const fn program(&self) -> &'static str {
        AGENT
    }

    /// The appliance goes away without a word.
    pub(crate) fn appliance_dies(&mut self) {
        self.stop.send_replace(true);
        self.serving.take().unwrap().join().unwrap();
    }

    pub(crate) fn appliance_returns(&mut self) {
        let (server, serving, stop, _) = appliance(&self.world, self.address);
        self.server = server;
        self.serving = Some(serving);
        self.stop = stop;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

const AGENT: &str = env!("CARGO_BIN_EXE_weir-agent");

type Appliance = (Arc<Server>, JoinHandle<()>, watch::Sender<bool>, SocketAddr);

fn appliance(world: &World, at: SocketAddr) -> Appliance {
    let server = Server::open(&world.outside.path("appliance"), now()).unwrap();
    let listener = inside(&world.outside, || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(128).unwrap();
        std::net::TcpListener::from(socket)
    });
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (stop, stopping) = watch::channel(false);
    let shared = server.clone();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            shared.serve(listener, stopping).await;
        });
        // Connections end with the runtime, as they do when a program is killed.
        runtime.shutdown_background();
    });
    (server, serving, stop, address)
}

/// Drops what comes from the attackers' port.
pub(crate) fn mitigation(id: u64, dst: &str, millis: u64) -> Mitigation {
    let mut packets = Match::to_host(ip(dst));
    packets.protocols = vec![17];
    packets.src_ports = vec![Range::exact(40_000)];
    Mitigation {
        id: MitigationId(id),
        originator: Originator::Incident(IncidentId(7)),
        measure: Measure::FlowSpec(Filter { packets, action: Action::Drop }),
        rung: Rung::Drop,
        state: MitigationState::Active,
        since: now(),
        expires: now() + millis,
        ended: None,
        peers: Vec::new(),
        note: String::new(),
        worth: 0,
    }
}

/// An attack that the node's own address sends, or that no match tells from players.
pub(crate) fn incident(direction: Direction) -> Arc<Incident> {
    let rate = |n: f64| Rate { packets_per_sec: n, bits_per_sec: n * 800.0 };
    let verdict = Verdict {
        served: 0.0,
        incident: IncidentId(7),
        phase: Phase::Ongoing,
        at: now(),
        target: ip(NODE4).into(),
        direction,
        family: Family::UdpFlood,
        vectors: Vec::new(),
        confidence: 90,
        evidence_groups: 3,
        separable: false,
        rate: rate(2000.0),
        peak: rate(2000.0),
        excess: rate(1990.0),
        discarded: Rate::default(),
        legitimate: None,
        sources: 1.0,
        reason: Reason {
            metric: Metric::PacketsPerSec,
            value: 2000.0,
            baseline: 10.0,
            multiplier: 3.0,
            threshold: 100.0,
            window_ms: 1000,
            samples: 100.0,
            sampling: 1.0,
            exporters: Vec::new(),
            service: None,
            own: None,
        },
        candidates: Vec::new(),
        top_sources: Vec::new(),
        summary: String::new(),
    };
    Arc::new(Incident {
        id: verdict.incident,
        state: IncidentState::Open,
        opened: now(),
        closed: None,
        verdict,
        rung: None,
        reached: None,
        held: false,
        group: None,
        mitigations: Vec::new(),
        timeline: Vec::new(),
    })
}

pub(crate) fn attack(world: &World, count: u32) -> u64 {
    let over = Duration::from_millis(u64::from(count) / 20);
    world.flood(count, over, |n| Packet::udp(attacker(NODE4, n), ip(NODE4), PORT));
    world.take_settled()
}

#[test]
fn a_decision_of_the_appliance_drops_the_attack_and_its_end_lets_it_in() {
    let Some(live) = Live::new("agent live", "") else { return };
    assert_eq!(attack(&live.world, 200), 200);
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    assert_eq!(attack(&live.world, 200), 0);
    live.wait_report("the rule's counter", |r| {
        r.rules.iter().any(|r| r.state == RuleState::Applied && r.dropped.packets == 200)
    });
    let player = live.world.player(PLAYER4);
    assert_eq!(World::play(&player, NODE4, 5), 5);
    let status = live.ask(&["status"]);
    assert!(status.contains("connected") && status.contains("m1 applied"), "{status}");
    assert!(live.ask(&["test"]).contains("in force after"), "{}", live.world.node.logs());
    live.want_and_wait(&[]);
    assert_eq!(attack(&live.world, 200), 200);
    assert!(!live.ask(&["status"]).contains("m1"));
}

#[test]
fn the_kernel_ends_rules_when_the_agent_is_killed() {
    let Some(mut live) = Live::new("agent kill -9", "") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 4000)]);
    let end = Instant::now() + Duration::from_millis(4000);
    live.world.node.kill(live.agent);
    assert_eq!(attack(&live.world, 100), 0, "still in force");
    let passed = live.world.node.wait_for("the rule's end", 10, |_| {
        let passed = attack(&live.world, 20);
        (passed > 0).then(|| Instant::now().saturating_duration_since(end))
    });
    assert!(passed < Duration::from_secs(2), "{passed:?} late");
}

#[test]
fn a_flushed_table_is_back_within_a_second() {
    let Some(live) = Live::new("agent flush", "") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    for command in [
        &["nft", "flush", "ruleset"][..],
        &["nft", "delete", "table", "inet", "weir"],
        &["nft", "flush", "chain", "inet", "weir", "pre"],
        &["nft", "flush", "map", "inet", "weir", "disp4"],
    ] {
        let start = Instant::now();
        live.world.node.run(command);
        live.world.node.wait_for("the rules are back", 5, |node| {
            let table = node.ask(&["nft", "list", "table", "inet", "weir"]);
            (table.contains("vmap @disp4") && table.contains("198.51.100.2 timeout")).then_some(())
        });
        let bar = Duration::from_secs(if RELEASE { 1 } else { 4 });
        assert!(start.elapsed() < bar, "{command:?}: {:?}", start.elapsed());
    }
    assert!(live.wait_event("repaired").contains("changed table weir"));
}

/// In a container of LXC, Proxmox or systemd-nspawn the agent's children have other numbers than the kernel names.
#[test]
fn an_agent_in_a_pid_namespace_does_not_repair_what_it_did_itself() {
    let by = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let Some(live) = Live::run_by("agent pid namespace", "", &by) else { return };
    for id in 1..=3 {
        live.want_and_wait(&[mitigation(id, NODE4, 60_000)]);
    }
    live.world.node.run(&["nft", "flush", "chain", "inet", "weir", "pre"]);
    assert!(live.wait_event("repaired").contains("changed table weir"));
    // There and back once more: whatever its repair had set off has been told by now.
    assert!(live.ask(&["test"]).contains("in force after"), "{}", live.world.node.logs());
    live.want_and_wait(&[]);
    let controller = live.server.controller();
    let events = &controller.nodes()["node1"].events;
    let repairs = events.iter().filter(|e| e.kind == "repaired").count();
    assert_eq!(repairs, 1, "{events:?}");
    let table = live.world.node.run(&["nft", "list", "table", "inet", "weir"]);
    assert!(!table.contains("chain by_"), "{table}");
}

#[test]
fn an_address_that_comes_later_gets_its_rules() {
    let Some(live) = Live::new("agent late address", "") else { return };
    let late = "198.51.100.3";
    live.want_and_wait(&[mitigation(1, late, 60_000)]);
    assert!(live.ask(&["rules"]).contains("no rules"));
    live.world.node.run(&["ip", "addr", "add", "198.51.100.3/24", "dev", "vn0"]);
    assert!(live.wait_event("addresses").contains("198.51.100.3"));
    live.want(&[mitigation(1, late, 60_000)]);
    live.world
        .node
        .wait_for("the rule", 15, |_| live.ask(&["rules"]).contains("m1 applied").then_some(()));
    live.world.node.run(&["ip", "addr", "del", "198.51.100.3/24", "dev", "vn0"]);
    live.world.node.wait_for("that it is gone", 15, |_| {
        let controller = live.server.controller();
        let gone = |a: &std::net::IpAddr| a.to_string() != late;
        controller.nodes()["node1"].addresses.iter().all(gone).then_some(())
    });
}

#[test]
fn who_leaves_takes_everything_along() {
    let Some(mut live) = Live::new("agent leave", "") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 60_000), mitigation(2, NODE4, 60_000)]);
    assert_eq!(attack(&live.world, 50), 0);
    let said = live.ask(&["leave"]);
    assert!(said.contains("has left"), "{said}");
    assert_eq!(live.world.node.wait_for_end(live.agent, 10), Some(0));
    let tables = live.world.node.ask(&["nft", "list", "tables"]);
    assert!(!tables.contains("inet weir"), "{tables}");
    assert_eq!(attack(&live.world, 50), 50);
    assert!(live.server.controller().nodes().is_empty());
    // Nothing to start again for: the service manager is told so.
    let again = live.world.node.spawn("again", &[AGENT, "--config", "agent.toml", "run"]);
    assert_eq!(live.world.node.wait_for_end(again, 10), Some(78));
}

#[test]
fn staged_rules_wait_for_the_administrator_and_a_flush_holds() {
    let Some(live) = Live::new("agent staged", "apply = \"staged\"") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    assert_eq!(attack(&live.world, 50), 50);
    assert!(live.ask(&["rules"]).contains("m1 staged"));
    assert!(live.ask(&["rules", "--apply"]).contains("m1 applied"));
    assert_eq!(attack(&live.world, 50), 0);
    live.ask(&["flush"]);
    // The test's NAT went with nothing: only weir's own table is touched.
    assert_eq!(attack(&live.world, 50), 50);
    live.ask(&["flush", "--resume"]);
    assert_eq!(attack(&live.world, 50), 0);
}

#[test]
fn an_appliance_that_dies_is_missed_only_until_it_returns() {
    let Some(mut live) = Live::new("agent appliance dies", "") else { return };
    live.want_and_wait(&[mitigation(1, NODE4, 60_000)]);
    live.appliance_dies();
    live.world.node.wait_for("the agent notices", 10, |_| {
        live.ask(&["status"]).contains("down:").then_some(())
    });
    assert_eq!(attack(&live.world, 100), 0, "the lease holds");
    // Something happens meanwhile, and is told later.
    live.world.node.run(&["nft", "flush", "chain", "inet", "weir", "pre"]);
    live.appliance_returns();
    assert!(live.wait_event("repaired").contains("weir"));
    live.want_and_wait(&[mitigation(2, NODE4, 60_000)]);
    assert!(live.ask(&["rules"]).contains("m2 applied"));
}

#[test]
fn an_attack_is_dropped_within_150_ms_of_the_decision() {
    let Some(live) = Live::new("agent time to drop", "") else { return };
    let player = live.world.player(PLAYER4);
    let mut times = Vec::new();
    for round in 0..20 {
        live.want_and_wait(&[]);
        let mut filter = mitigation(round, NODE4, 60_000);
        if let Measure::FlowSpec(f) = &mut filter.measure {
            f.packets.src_ports = Vec::new();
        }
        // The player is the probe: the first question without an answer was dropped.
        player.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(World::play(&player, NODE4, 1), 1);
        let start = Instant::now();
        live.want(&[filter]);
        while World::play(&player, NODE4, 1) == 1 {
            assert!(start.elapsed() < Duration::from_secs(2), "never dropped");
        }
        times.push(start.elapsed());
    }
    times.sort();
    let (median, p95) = (times[10], times[18]);
    eprintln!("decision to first dropped packet: median {median:?}, p95 {p95:?}");
    let bar = Duration::from_millis(if RELEASE { 150 } else { 1500 });
    assert!(p95 < bar, "{times:?}");
}

#[test]
fn a_bouncer_reads_what_is_blocked() {
    let Some(mut live) = Live::new("agent decisions", "") else { return };
    let until = now() + 60_000;
    live.common.blocked = vec![
        Block { source: "203.0.113.9/32".parse().unwrap(), until },
        Block { source: "2001:db8:bad::/48".parse().unwrap(), until: Millis(until.0) },
    ];
    live.want(&[]);
    live.server.add_bouncer("key-of-a-bouncer");
    assert_ne!(fingerprint(b"a"), fingerprint(b"b"));
    let url = format!("https://{}/v1/decisions/stream?startup=true", live.address);
    let get = |key: &str| {
        let header = format!("X-Api-Key: {key}");
        live.world.node.ask(&["curl", "-sk", "-w", " %{http_code}", "-H", &header, &url])
    };
    assert!(get("wrong").ends_with(" 403"), "{}", get("wrong"));
    let answer = get("key-of-a-bouncer");
    let text = answer.strip_suffix(" 200").unwrap_or_else(|| panic!("{answer}"));
    let answer: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(answer["new"][0]["value"], "203.0.113.9");
    assert_eq!(answer["new"][0]["scope"], "Ip");
    assert_eq!(answer["new"][1]["scope"], "Range");
    live.common.blocked.remove(0);
    live.want(&[]);
    let text = get("key-of-a-bouncer");
    let answer: serde_json::Value =
        serde_json::from_str(text.strip_suffix(" 200").unwrap()).unwrap();
    assert_eq!(answer["deleted"][0]["value"], "203.0.113.9");
}

#[test]
fn an_idle_agent_costs_next_to_nothing() {
    const SECS: u64 = 30;
    let Some(live) = Live::new("agent idle", "") else { return };
    live.want_and_wait(&[]);
    let process = live.world.node.process_id(live.agent);
    // Nanoseconds on a processor: ticks of 10 ms are too coarse for a tenth of a percent.
    let worked = || {
        let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap();
        let nanos = text.split(' ').next().unwrap().parse().unwrap();
        Duration::from_nanos(nanos)
    };
    let (before, start) = (worked(), Instant::now());
    let spent = live.world.node.wait_for("half a minute", 2 * SECS, |_| {
        (start.elapsed() >= Duration::from_secs(SECS)).then(|| worked() - before)
    });
    let share = spent.as_secs_f64() / start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    eprintln!("idle: {:.4} % of a core, {kib} KiB resident", share * 100.0);
    // The bar is a tenth of a percent, for the program that is shipped. A build for tests is several
    // times slower and shares its processor with other tests: there only a busy loop would show.
    let bar = if RELEASE { 0.001 } else { 0.005 };
    assert!(share <= bar, "{:.4} % of a core", share * 100.0);
    assert!(kib <= 15 * 1024, "{kib} KiB");
}
