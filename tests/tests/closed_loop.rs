//! The loop closed with real parts: an attacker and a player outside, a router that forwards to a game
//! server, exports what it sees, speaks BGP with weir and drops what weir's FlowSpec says. What counts is
//! what the player has of it: before, during and after.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it saw"
)]

use serde_json::Value;
use weir_tests::lab::{Lab, Pid, Side};
use weir_tests::{capture, play};

const PROGRAMS: &[&str] = &["ip", "tc", "nft", "tcpreplay", "pmacctd", "bird", "birdc", "curl"];

const BIRD: &str = r#"
log stderr all;
router id 10.0.0.30;
ipv4 table master4;
flow4 table flowtab4;
protocol device { }
protocol bgp weir {
  local 127.0.0.3 port 1790 as 65020;
  neighbor 127.0.0.1 as 65010;
  multihop;
  passive yes;
  strict bind yes;
  ipv4 { import all; export none; };
  flow4 { table flowtab4; import all; export none; };
}
"#;

/// Beside [`play::CITY`].
const WEIR: &str = r#"
[detector]
end_quiet_secs = 4
[mitigator]
mode = "@MODE@"
[[mitigator.ladder]]
rung = "rate-limit"
above_bits_per_sec = 1000000
hold_secs = 12
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 2000000
hold_secs = 12
[[mitigator.ladder]]
rung = "rtbh"
above_bits_per_sec = 4000000
hold_secs = 12
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "edge"
address = "127.0.0.3"
port = 1790
remote_as = 65020
families = ["ipv4-unicast", "ipv4-flowspec"]
[api]
listen = "127.0.0.1:8080"
socket = "@SOCKET@"
loopback_readonly = true
"#;

/// The laboratory: outside - router - server.
struct Loop {
    lab: Lab,
    outside: Side,
    server: Side,
    /// Names of the player's log and of the filter's.
    attack: Option<Pid>,
}

impl Loop {
    /// Everything up, the player playing. `tap` is the router's interface that the exporter listens on:
    /// before the filter or behind it.
    fn start(test: &str, mode: &str, tap: &str) -> Option<Self> {
        let mut lab = Lab::new(test, PROGRAMS)?;
        let (outside, server) = (lab.side("out"), lab.side("srv"));
        wire(&lab, &outside, "wan", ["198.51.100.1/24", "198.51.100.2/24"]);
        wire(&lab, &server, "lan", ["10.10.10.1/24", "10.10.10.10/24"]);
        // Frames of the capture go to this address.
        lab.run(&["ip", "link", "set", "wan0", "address", "02:00:00:00:00:01"]);
        lab.run(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
        lab.run(&["sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0"]);
        lab.run(&["sysctl", "-q", "-w", "net.ipv4.conf.wan0.rp_filter=0"]);
        // What the attack fills: a link of 20 Mbit/s to the server.
        lab.run(&[
            "tc", "qdisc", "add", "dev", "lan0", "root", "tbf", "rate", "20mbit", "burst", "64k",
            "limit", "128k",
        ]);
        let control = play::start_bird(&mut lab, BIRD);
        lab.spawn("filter", &[env!("CARGO_BIN_EXE_flowspec_nft"), &control]);
        play::start_weir(&mut lab, &WEIR.replace("@MODE@", mode));
        play::start_exporter(&mut lab, tap);
        play::start_player(&mut lab, &server, &outside, env!("CARGO_BIN_EXE_player"));
        Some(Self { lab, outside, server, attack: None })
    }

    /// NTP answers, 468 octets each: about 37 Mbit/s.
    fn attack(&mut self) {
        let capture = capture::ntp_flood(&self.lab.path("attack.pcap"));
        let capture = capture.to_str().unwrap().to_owned();
        let replay = ["tcpreplay", "-q", "-i", "wan1", "--loop=0", "--pps=10000", &capture];
        self.attack = Some(self.lab.spawn_in(&self.outside, "tcpreplay", &replay));
    }

    fn end_attack(&mut self) {
        if let Some(pid) = self.attack.take() {
            self.lab.kill(pid);
        }
    }

    /// Waits for so many more seconds of play; the numbers of the seconds.
    fn seconds(&self, more: usize) -> std::ops::Range<usize> {
        play::seconds(&self.lab, more)
    }

    /// Share of the player's datagrams that came back in these seconds.
    fn goodput(&self, seconds: std::ops::Range<usize>) -> f64 {
        play::goodput(&self.lab, seconds)
    }

    /// Octets that have reached the server's interface.
    fn arrived(&self) -> f64 {
        play::octets(&self.lab, Some(&self.server), "lan1", "rx")
    }

    /// Octets that the attack has put on the wire.
    fn attacked(&self) -> f64 {
        play::octets(&self.lab, Some(&self.outside), "wan1", "tx")
    }

    fn has_rules(&self) -> bool {
        let log = self.lab.log("filter");
        let last = log.lines().rfind(|line| line.starts_with("rules "));
        last.is_some_and(|line| !line.starts_with("rules 0 "))
    }

    fn wait_for_rules(&self, there: bool, secs: u64) {
        let what = if there { "a rule in nftables" } else { "an empty nftables" };
        self.lab.wait_for(what, secs, |_| (self.has_rules() == there).then_some(()));
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:8080{path}");
        serde_json::from_str(&self.lab.ask(&["curl", "-s", &url])).unwrap_or_default()
    }

    fn weir(&self, arguments: &[&str]) -> String {
        let (binary, socket) = (weir_tests::weir_binary(), self.lab.path("api.sock"));
        let mut command = vec![binary.to_str().unwrap()];
        command.extend(arguments);
        command.extend(["--socket", socket.to_str().unwrap()]);
        self.lab.run(&command)
    }
}

/// A wire between the router and a side: `<name>0` here, `<name>1` there.
fn wire(lab: &Lab, side: &Side, name: &str, addresses: [&str; 2]) {
    let (here, there) = (format!("{name}0"), format!("{name}1"));
    lab.run(&["ip", "link", "add", &here, "type", "veth", "peer", "name", &there]);
    lab.run(&["ip", "link", "set", &there, "netns", side.namespace()]);
    lab.run(&["ip", "address", "add", addresses[0], "dev", &here]);
    lab.run(&["ip", "link", "set", &here, "up"]);
    lab.run_in(side, &["ip", "link", "set", "lo", "up"]);
    lab.run_in(side, &["ip", "address", "add", addresses[1], "dev", &there]);
    lab.run_in(side, &["ip", "link", "set", &there, "up"]);
    let gateway = addresses[0].split('/').next().unwrap();
    lab.run_in(side, &["ip", "route", "add", "default", "via", gateway]);
}

/// An attack is cut and the player stays, whichever side of the filter the exporter is on.
fn attack_is_cut(test: &str, tap: &str) {
    let Some(mut world) = Loop::start(test, "auto", tap) else { return };
    let before = world.goodput(world.seconds(4));
    let began = play::told(&world.lab);
    world.attack();
    world.wait_for_rules(true, 30);
    let (arrived, attacked) = (world.arrived(), world.attacked());
    let under_rule = world.seconds(6);
    let through = (world.arrived() - arrived) / (world.attacked() - attacked);
    let during = world.goodput(under_rule.clone());
    let whole = world.goodput(began..under_rule.end);
    let rules = world.get("/api/v1/mitigations?state=active");
    world.end_attack();
    let after = world.goodput(world.seconds(4));
    println!(
        "goodput {before:.3} before, {during:.3} under the rule, {after:.3} after; \
         {whole:.3} from the attack's first second on; {:.1} % of what was sent came through",
        through * 100.0
    );
    assert!(before >= 0.95, "before: {before}");
    assert!(during >= 0.95, "under the rule: {during}\n{rules:#}");
    assert!(after >= 0.95, "after: {after}");
    // The player's own traffic is about a hundredth of what is sent.
    assert!(through <= 0.1, "{through} came through\n{rules:#}\n{}", world.lab.log("filter"));
    for rule in rules["mitigations"].as_array().unwrap() {
        let rung = rule["rung"].as_str().unwrap();
        assert!(rung == "rate-limit" || rung == "drop", "{rule:#}");
    }
    world.wait_for_rules(false, 60);
}

#[test]
fn an_attack_is_cut_and_the_player_stays_seen_before_the_filter() {
    attack_is_cut("an_attack_is_cut_and_the_player_stays_seen_before_the_filter", "wan0");
}

#[test]
fn an_attack_is_cut_and_the_player_stays_seen_behind_the_filter() {
    attack_is_cut("an_attack_is_cut_and_the_player_stays_seen_behind_the_filter", "lan0");
}

#[test]
fn a_harmful_rule_by_hand_is_rolled_back() {
    let test = "a_harmful_rule_by_hand_is_rolled_back";
    let Some(mut world) = Loop::start(test, "approve", "lan0") else { return };
    world.lab.run(&["tc", "qdisc", "del", "dev", "lan0", "root"]);
    let before = world.goodput(world.seconds(3));
    world.attack();
    let proposal = |world: &Loop, secs| {
        world.lab.wait_for("a proposal", secs, |_| {
            world.get("/api/v1/mitigations?state=proposed")["mitigations"][0]["id"].as_u64()
        })
    };
    proposal(&world, 30);
    // Two seconds on, what is the player's is told apart; somebody in a hurry drops all UDP.
    world.seconds(1);
    let add = ["mitigate", "add", "10.10.10.10/32", "--protocol", "17"];
    let dry = world.weir(&[&add[..], &["--dry-run"]].concat());
    assert!(dry.contains("may affect city"), "{dry}");
    world.weir(&add);
    world.wait_for_rules(true, 10);
    world.wait_for_rules(false, 30);
    let list = world.get("/api/v1/mitigations?state=withdrawn");
    let note = list["mitigations"][0]["note"].as_str().unwrap();
    assert!(note.starts_with("rolled back: legitimate traffic fell"), "{list:#}");
    // What weir proposes cuts the attack and not the player.
    let id = proposal(&world, 20);
    world.weir(&["mitigate", "approve", &id.to_string()]);
    world.wait_for_rules(true, 10);
    let after = world.goodput(world.seconds(3));
    println!("goodput {before:.3} before, {after:.3} with weir's own rule");
    assert!(before >= 0.95 && after >= 0.95, "{before} before, {after} after");
}
