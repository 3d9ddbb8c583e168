//! The main job with real parts only: tcpreplay plays an attack over a veth pair, a real exporter
//! reports it, weir decides by itself, and GoBGP and BIRD show the rule in their own tables.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_tests::lab::{BIRD, GOBGP, GOBGP_RULES, LADDER, LOBBY, Lab};
use weir_tests::{corpus, weir_binary};

const PROGRAMS: &[&str] =
    &["ip", "tcpreplay", "pmacctd", "softflowd", "gobgpd", "gobgp", "bird", "birdc", "curl"];

/// Beside [`LOBBY`] and [`LADDER`].
const WEIR: &str = r#"
[protect]
prefixes = ["10.10.10.0/24"]
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "127.0.0.1/32"
name = "edge"
[detector]
end_quiet_secs = 6
[mitigator]
mode = "auto"
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "gobgp"
address = "127.0.0.2"
port = 1790
remote_as = 65020
families = ["ipv4-unicast", "ipv4-flowspec"]
[[bgp.peer]]
name = "bird"
address = "127.0.0.3"
port = 1790
remote_as = 65030
families = ["ipv4-unicast", "ipv4-flowspec"]
[api]
listen = "127.0.0.1:8080"
socket = ""
loopback_readonly = true
"#;

/// The attack: a real capture when the corpus is there, else one of the same shape made here.
fn attack(test: &str, lab: &Lab) -> PathBuf {
    corpus::file(test, "attacks/tcp-syn-flood-spoofed-25565.pcap")
        .unwrap_or_else(|| weir_tests::capture::syn_flood(&lab.path("attack.pcap")))
}

/// Everything up to the moment at which the attack begins; then the checks.
fn main_job(test: &str, exporter: fn(&mut Lab)) {
    let Some(mut lab) = Lab::new(test, PROGRAMS) else { return };
    lab.run(&["ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1"]);
    lab.run(&["ip", "link", "set", "wan0", "up"]);
    lab.run(&["ip", "link", "set", "wan1", "up"]);
    start_peers(&mut lab);
    let config = format!("{WEIR}{LOBBY}{LADDER}[store]\npath = {:?}\n", lab.path("state.db"));
    let config = lab.write("weir.toml", &config);
    start_weir(&mut lab, &config);
    exporter(&mut lab);
    let capture = attack(test, &lab);
    lab.spawn(
        "tcpreplay",
        &["tcpreplay", "-q", "-i", "wan0", "--loop=10", "--pps=20000", capture.to_str().unwrap()],
    );

    let gobgp = lab.wait_for("the rule in GoBGP", 40, |lab| some_rules(gobgp_rules(lab)));
    let bird = lab.wait_for("the rule in BIRD", 10, |lab| some_rules(bird_rules(lab)));
    for rule in &gobgp {
        assert_eq!(rule.dst, "10.10.10.10/32", "{rule:?}");
        assert!(rule.covers_port(25565), "{rule:?}");
        assert_eq!(rule.protocols, [6], "{rule:?}");
    }
    for rule in &bird {
        assert!(rule.contains("dst 10.10.10.10/32"), "{rule}");
        assert!(!rule.contains("dport") || rule.contains("25565"), "{rule}");
        assert!(rule.contains("proto = 6") || rule.contains("proto 6"), "{rule}");
    }
    let incidents = lab.run(&["curl", "-s", "http://127.0.0.1:8080/api/v1/incidents"]);
    let incidents: Value = serde_json::from_str(&incidents).unwrap();
    assert_eq!(incidents["incidents"][0]["verdict"]["family"], "syn-flood", "{incidents}");

    lab.wait_for("the withdrawal in GoBGP", 60, |lab| gobgp_rules(lab).is_empty().then_some(()));
    lab.wait_for("the withdrawal in BIRD", 5, |lab| bird_rules(lab).is_empty().then_some(()));
}

fn some_rules<T>(rules: Vec<T>) -> Option<Vec<T>> {
    (!rules.is_empty()).then_some(rules)
}

fn start_peers(lab: &mut Lab) {
    let gobgp = lab.write("gobgpd.toml", &format!("{GOBGP}{GOBGP_RULES}"));
    lab.spawn(
        "gobgpd",
        &[
            "gobgpd",
            "-f",
            gobgp.to_str().unwrap(),
            "--api-hosts",
            "127.0.0.2:50052",
            "--pprof-disable",
        ],
    );
    let bird = lab.write("bird.conf", BIRD);
    let control = lab.path("bird.ctl");
    lab.spawn(
        "bird",
        &["bird", "-f", "-c", bird.to_str().unwrap(), "-s", control.to_str().unwrap()],
    );
}

fn start_weir(lab: &mut Lab, config: &Path) {
    let binary = weir_binary();
    lab.spawn("weir", &[binary.to_str().unwrap(), "run", "--config", config.to_str().unwrap()]);
    lab.wait_for("both sessions", 30, |lab| {
        let peers = lab.ask(&["curl", "-s", "http://127.0.0.1:8080/api/v1/peers"]);
        (peers.matches("\"established\"").count() == 2).then_some(())
    });
}

#[derive(Debug)]
struct Rule {
    dst: String,
    protocols: Vec<u64>,
    ports: Vec<(u64, u64)>,
}

impl Rule {
    /// Operators: 1 equal, 2 greater, 4 less (RFC 8955 §4.2.1.1); pairs of bounds come in order.
    fn covers_port(&self, port: u64) -> bool {
        let mut above = None;
        self.ports.is_empty()
            || self.ports.iter().any(|(op, value)| match op & 7 {
                1 => *value == port,
                3 => {
                    above = Some(port >= *value);
                    false
                }
                5 => above.take().unwrap_or(true) && port <= *value,
                _ => false,
            })
    }
}

/// The FlowSpec rules in GoBGP's table, as its own tool prints them.
fn gobgp_rules(lab: &Lab) -> Vec<Rule> {
    let text = lab.ask(&[
        "gobgp",
        "--host",
        "127.0.0.2",
        "--port",
        "50052",
        "global",
        "rib",
        "-a",
        "ipv4-flowspec",
        "-j",
    ]);
    let Ok(Value::Object(table)) = serde_json::from_str(&text) else { return Vec::new() };
    let rule = |path: &Value| {
        let mut rule = Rule { dst: String::new(), protocols: vec![], ports: vec![] };
        for component in path["nlri"]["value"].as_array().unwrap() {
            let items = || component["value"].as_array().unwrap().iter();
            let number = |item: &Value, key: &str| item[key].as_u64().unwrap_or_default();
            match component["type"].as_u64() {
                Some(1) => rule.dst = component["value"]["prefix"].as_str().unwrap().to_owned(),
                Some(3) => rule.protocols = items().map(|i| number(i, "value")).collect(),
                Some(5) => {
                    rule.ports = items().map(|i| (number(i, "op"), number(i, "value"))).collect();
                }
                _ => {}
            }
        }
        rule
    };
    table.values().filter_map(|paths| paths.as_array()?.first().map(rule)).collect()
}

/// The FlowSpec rules in BIRD's table, a line each.
fn bird_rules(lab: &Lab) -> Vec<String> {
    let control = lab.path("bird.ctl");
    let show = ["show", "route", "table", "flowtab4"];
    let mut command = vec!["birdc", "-s", control.to_str().unwrap()];
    command.extend(show);
    let text = lab.ask(&command);
    text.lines().filter(|line| line.contains("flow4 {")).map(str::to_owned).collect()
}

#[test]
fn a_rule_reaches_both_routers_from_sflow() {
    main_job("a_rule_reaches_both_routers_from_sflow", |lab| {
        let config = lab.write(
            "pmacctd.conf",
            "pcap_interface: wan1\nplugins: sfprobe\nsampling_rate: 8\nsfprobe_agentip: 127.0.0.1\n\
             sfprobe_receiver: 127.0.0.1:2055\naggregate: src_host, dst_host\n",
        );
        lab.spawn("exporter", &["pmacctd", "-f", config.to_str().unwrap()]);
        lab.wait_for("pmacctd", 10, |lab| lab.log("exporter").contains("wan1").then_some(()));
    });
}

fn softflowd(lab: &mut Lab, version: &str) {
    let (pid, control) = (lab.path("softflowd.pid"), lab.path("softflowd.ctl"));
    let (pid, control) = (pid.to_str().unwrap().to_owned(), control.to_str().unwrap().to_owned());
    let timeouts = ["-t", "maxlife=2", "-t", "expint=1", "-t", "general=1", "-t", "tcp=1"];
    let mut command = vec!["softflowd", "-i", "wan1", "-n", "127.0.0.1:2055", "-v", version];
    command.extend(["-d", "-m", "200000", "-p", &pid, "-c", &control]);
    command.extend(timeouts);
    lab.spawn("exporter", &command);
    lab.wait_for("softflowd", 10, |lab| lab.path("softflowd.ctl").exists().then_some(()));
}

#[test]
fn a_rule_reaches_both_routers_from_netflow_v9() {
    main_job("a_rule_reaches_both_routers_from_netflow_v9", |lab| softflowd(lab, "9"));
}

#[test]
fn a_rule_reaches_both_routers_from_ipfix() {
    main_job("a_rule_reaches_both_routers_from_ipfix", |lab| softflowd(lab, "10"));
}
