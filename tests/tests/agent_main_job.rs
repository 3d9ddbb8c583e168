//! The node's side of the main job with real parts only: an agent joins with a printed token, its own samples are
//! all that weir sees, weir decides by itself, and the node drops the attack before it reaches anything.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use weir_tests::lab::Lab;
use weir_tests::{agent_binary, capture, weir_binary};

const PROGRAMS: &[&str] = &["ip", "nft", "tcpreplay-edit", "curl"];

/// The ladder begins at 1 Mbit/s, because the attack is played at the speed of a test machine.
const WEIR: &str = r#"
[protect]
prefixes = ["10.10.10.10/32"]
[[protect.service]]
address = "10.10.10.10"
port = 25565
protocol = "tcp"
name = "lobby"
game = "Minecraft"
[collector]
listen = ["10.10.10.1:6343"]
[[collector.exporters]]
address = "10.10.10.10/32"
name = "node1"
[detector]
end_quiet_secs = 2
[mitigator]
mode = "auto"
[[mitigator.ladder]]
rung = "rate-limit"
above_bits_per_sec = 1000000
hold_secs = 1
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 2000000
hold_secs = 1
[agents]
listen = "10.10.10.1:8443"
sampling = 20
hand_over = "instead"
[api]
listen = "127.0.0.1:8080"
socket = ""
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
        let config = format!("{WEIR}[store]\npath = {:?}\n", self.outside.path("state.db"));
        let config = self.outside.write("weir.toml", &config);
        let config = config.to_str().unwrap();
        let weir = weir_binary();
        let weir = weir.to_str().unwrap();
        self.outside.spawn("weir", &[weir, "run", "--config", config]);
        self.outside.wait_for("weir is ready", 20, |lab| {
            lab.log("weir").contains("awaiting agents").then_some(())
        });
        let line = self.outside.run(&[weir, "agents", "--config", config, "--token"]);
        let token = line.split_whitespace().last().unwrap().to_owned();
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
    let incidents = pair.outside.run(&["curl", "-s", "http://127.0.0.1:8080/api/v1/incidents"]);
    assert!(incidents.contains("agent:node1"), "{incidents}");
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
