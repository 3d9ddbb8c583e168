//! The node's side of the main job with real parts only: an agent joins with a printed token, its own samples are
//! all that weir sees, weir decides by itself, and the node drops the attack before it reaches anything.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use weir_tests::lab::{LADDER, LOBBY, Lab};
use weir_tests::{agent_binary, capture, weir_binary};

const PROGRAMS: &[&str] = &["ip", "nft", "tcpreplay-edit", "curl", "tshark"];

/// Beside [`LOBBY`] and [`LADDER`].
const WEIR: &str = r#"
[protect]
prefixes = ["10.10.10.10/32"]
[collector]
listen = ["10.10.10.1:6343"]
[[collector.exporters]]
address = "10.10.10.10/32"
name = "node1"
[detector]
end_quiet_secs = 2
[mitigator]
mode = "auto"
[agents]
listen = "10.10.10.1:8443"
sampling = 20
hand_over = "instead"
[api]
listen = "127.0.0.1:8080"
socket = "@SOCKET@"
loopback_readonly = true
"#;

/// Appliance and attackers on one side, the node on the other.
struct Pair {
    outside: Lab,
    node: Lab,
}

impl Pair {
    fn new(test: &str) -> Option<Self> {
        let outside = Lab::new(test, PROGRAMS)?;
        let node = Lab::new(test, &[])?;
        outside.run(&[
            "ip",
            "link",
            "add",
            "va0",
            "type",
            "veth",
            "peer",
            "name",
            "vn0",
            "netns",
            node.namespace(),
        ]);
        outside.run(&["ip", "addr", "add", "10.10.10.1/24", "dev", "va0"]);
        node.run(&["ip", "addr", "add", "10.10.10.10/24", "dev", "vn0"]);
        outside.run(&["ip", "link", "set", "va0", "up"]);
        node.run(&["ip", "link", "set", "vn0", "up"]);
        node.run(&["ip", "route", "add", "default", "via", "10.10.10.1"]);
        let mut pair = Self { outside, node };
        pair.start();
        Some(pair)
    }

    /// As the manual says: a token from the appliance, join, run.
    fn start(&mut self) {
        let socket = self.outside.path("api.sock");
        let config = WEIR.replace("@SOCKET@", socket.to_str().unwrap());
        let config =
            format!("{config}{LOBBY}{LADDER}[store]\npath = {:?}\n", self.outside.path("state.db"));
        let config = self.outside.write("weir.toml", &config);
        let config = config.to_str().unwrap();
        let weir = weir_binary();
        let weir = weir.to_str().unwrap();
        self.outside.spawn("weir", &[weir, "run", "--config", config]);
        self.outside.wait_for("weir is ready", 20, |lab| {
            lab.log("weir").contains("awaiting agents").then_some(())
        });
        let socket = socket.to_str().unwrap();
        let body = r#"{"name": "node1", "addresses": ["10.10.10.10/32"]}"#;
        let url = "http://weir/api/v1/agents/tokens";
        let made = self.outside.run(&["curl", "-sS", "-d", body, "--unix-socket", socket, url]);
        let made: Value = serde_json::from_str(&made).unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        assert_eq!(made["port"], 8443);
        let (state, run) = (self.node.path("state"), self.node.path("run"));
        self.node
            .write("agent.toml", &format!("state = {state:?}\nrun = {run:?}\nlearn = \"off\"\n"));
        self.agent(&["join", "https://10.10.10.1:8443", &token, "--name", "node1"]);
        let agent = agent_binary();
        let agent = agent.to_str().unwrap();
        self.node.spawn("agent", &[agent, "--config", "agent.toml", "run"]);
        self.node.wait_for("the link", 15, |_| {
            self.ask(&["status"]).contains("(connected)").then_some(())
        });
    }

    /// The API as root on the appliance has it.
    fn operator(&self, method: &str, path: &str) -> String {
        let socket = self.outside.path("api.sock");
        let url = format!("http://weir/api/v1{path}");
        let socket = socket.to_str().unwrap();
        self.outside.run(&["curl", "-sS", "-X", method, "--unix-socket", socket, &url])
    }

    fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.operator("GET", path)).unwrap()
    }

    fn agent(&self, command: &[&str]) -> String {
        let agent = agent_binary();
        self.node.run(&[&[agent.to_str().unwrap(), "--config", "agent.toml"], command].concat())
    }

    fn ask(&self, command: &[&str]) -> String {
        let agent = agent_binary();
        self.node.ask(&[&[agent.to_str().unwrap(), "--config", "agent.toml"], command].concat())
    }

    /// Plays a capture to the node for some seconds, above what a host may carry that weir has just met.
    fn attack(&mut self, capture: &std::path::Path, loops: u32) {
        let mac = self.node.run(&["cat", "/sys/class/net/vn0/address"]);
        let (mac, loops) = (format!("--enet-dmac={}", mac.trim()), format!("--loop={loops}"));
        let file = capture.to_str().unwrap();
        self.outside.spawn(
            "attack",
            &["tcpreplay-edit", "-q", "-i", "va0", "--pps=60000", &loops, &mac, file],
        );
    }
}

/// Packets that a kind of rule has dropped, as `weir-agent rules` says.
fn dropped(rules: &str) -> u64 {
    let lines = rules.lines().filter(|l| l.contains(" applied: "));
    let counts =
        lines.filter_map(|l| l.split(" applied: ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// What the appliance shows of the node, and the packets that the node kept.
fn shown_to_operators(pair: &Pair) {
    let node = pair.outside.wait_for("the node's report", 15, |_| {
        let node = pair.get("/agents/node1");
        let rules = node["rules"].as_array()?;
        let drops =
            |r: &Value| r["state"] == "applied" && r["dropped_packets"].as_u64() > Some(1000);
        rules.iter().any(drops).then_some(node)
    });
    assert_eq!(node["agent"]["connected"], true, "{node:#}");
    pair.outside.wait_for("the node among the metrics", 15, |lab| {
        let metrics = lab.ask(&["curl", "-s", "http://127.0.0.1:8080/metrics"]);
        let lines = [
            "weir_agent_up{node=\"node1\"} 1",
            "weir_agent_rules{node=\"node1\",state=\"applied\"}",
            "weir_agent_level{level=\"normal\",node=\"node1\"}",
        ];
        lines.iter().all(|line| metrics.contains(line)).then_some(())
    });
    let incident = pair.get("/incidents")["incidents"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/incidents/{incident}/captures");
    pair.outside.wait_for("the node's capture", 30, |_| {
        (pair.get(&path)["captures"][0]["node"] == "node1").then_some(())
    });
    let (socket, file) = (pair.outside.path("api.sock"), pair.outside.path("attack.pcapng"));
    let url = format!("http://weir/api/v1{path}/node1");
    let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
    pair.outside.run(&["curl", "-sSf", "-o", file, "--unix-socket", socket, &url]);
    // Packets of before the attack come first: `-c` would count them, too.
    let seen = pair.outside.run(&["tshark", "-r", file, "-Y", "udp.srcport == 123"]);
    assert!(seen.lines().count() >= 100, "{seen}");
}

#[test]
fn an_attack_that_only_the_node_sees_is_dropped_on_the_node() {
    let Some(mut pair) = Pair::new("agent main job") else { return };
    let capture = capture::ntp_flood(&pair.outside.path("attack.pcap"));
    pair.attack(&capture, 120);
    let rules = pair.node.wait_for("a rule that drops", 30, |_| {
        let rules = pair.ask(&["rules"]);
        (dropped(&rules) > 1000).then_some(rules)
    });
    eprintln!("{rules}");
    pair.outside.wait_for("the node among those that have the rule", 15, |_| {
        pair.operator("GET", "/incidents").contains("agent:node1").then_some(())
    });
    shown_to_operators(&pair);
    pair.node.wait_for("the end of the rule", 40, |_| {
        pair.ask(&["rules"]).contains("no rules").then_some(())
    });
}

#[test]
fn a_syn_flood_on_a_service_is_answered_with_cookies() {
    let Some(mut pair) = Pair::new("agent main job, SYN cookies") else { return };
    let capture = capture::syn_flood(&pair.outside.path("attack.pcap"));
    pair.attack(&capture, 12);
    let rules = pair.node.wait_for("the cookies", 30, |_| {
        let rules = pair.ask(&["rules"]);
        rules.contains(".syn applied").then_some(rules)
    });
    eprintln!("{rules}");
    let table = pair.node.run(&["nft", "list", "table", "inet", "weir"]);
    assert!(table.contains("synproxy mss 1460 wscale 7"), "{table}");
}
