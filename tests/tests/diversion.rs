//! A diversion as networks have it: two routers, a filter beside them, and weir, which announces the attacked
//! prefix to the edge with the filter as next hop. What counts is the way that packets really take, and what
//! the player has of it.
//!
//! ```text
//! outside -- edge (BIRD, weir, exporter) ------- core -- server
//!              \------ filter (nftables) --------/
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it saw"
)]

use serde_json::Value;
use weir_tests::lab::{Lab, Side};
use weir_tests::{capture, play};

const PROGRAMS: &[&str] = &["ip", "tc", "nft", "tcpreplay", "pmacctd", "bird", "curl", "sysctl"];

/// The edge: what weir announces goes into the kernel, before the static route to the core.
const BIRD: &str = r"
log stderr all;
router id 10.0.0.30;
protocol device { }
protocol direct { ipv4; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol bgp weir {
  local 127.0.0.3 port 1790 as 65010;
  neighbor 127.0.0.1 as 65010;
  multihop;
  passive yes;
  strict bind yes;
  ipv4 { import all; export none; };
}
";

/// Beside [`play::CITY`].
const WEIR: &str = r#"
[detector]
end_quiet_secs = 2
[mitigator]
mode = "auto"
step_secs = 1
probe_secs = 0
[[mitigator.ladder]]
rung = "divert"
above_bits_per_sec = 1000000
hold_secs = 1
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "edge"
address = "127.0.0.3"
port = 1790
remote_as = 65010
families = ["ipv4-unicast"]
[bgp.peer.divert]
next_hop4 = "172.16.2.2"
communities = ["65010:9000"]
[api]
listen = "127.0.0.1:8080"
socket = "@SOCKET@"
loopback_readonly = true
"#;

/// A wire between the router and a side, or between two sides: `<name>0` on the first, `<name>1` on the second.
fn wire(lab: &Lab, sides: (Option<&Side>, &Side), name: &str, addresses: [&str; 2]) {
    let ends = [format!("{name}0"), format!("{name}1")];
    lab.run(&["ip", "link", "add", &ends[0], "type", "veth", "peer", "name", &ends[1]]);
    for (side, (end, address)) in [sides.0, Some(sides.1)].iter().zip(ends.iter().zip(addresses)) {
        if let Some(side) = side {
            lab.run(&["ip", "link", "set", end, "netns", side.namespace()]);
        }
        let run = |command: &[&str]| match side {
            Some(side) => lab.run_in(side, command),
            None => lab.run(command),
        };
        run(&["ip", "address", "add", address, "dev", end]);
        run(&["ip", "link", "set", end, "up"]);
        run(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
        run(&["sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0"]);
        run(&["sysctl", "-q", "-w", &format!("net.ipv4.conf.{end}.rp_filter=0")]);
    }
}

struct Network {
    lab: Lab,
    outside: Side,
    server: Side,
}

impl Network {
    fn start(test: &str) -> Option<Self> {
        let mut lab = Lab::new(test, PROGRAMS)?;
        let (outside, core) = (lab.side("out"), lab.side("core"));
        let (filter, server) = (lab.side("flt"), lab.side("srv"));
        wire(&lab, (None, &outside), "wan", ["198.51.100.1/24", "198.51.100.2/24"]);
        wire(&lab, (None, &core), "mid", ["172.16.1.1/24", "172.16.1.2/24"]);
        wire(&lab, (None, &filter), "flt", ["172.16.2.1/24", "172.16.2.2/24"]);
        wire(&lab, (Some(&filter), &core), "ret", ["172.16.3.1/24", "172.16.3.2/24"]);
        wire(&lab, (Some(&core), &server), "lan", ["10.10.10.1/24", "10.10.10.10/24"]);
        // Frames of the capture go to this address.
        lab.run(&["ip", "link", "set", "wan0", "address", "02:00:00:00:00:01"]);
        let net = "10.10.10.0/24";
        lab.run(&["ip", "route", "add", net, "via", "172.16.1.2", "metric", "200"]);
        for (side, gateway) in [
            (&outside, "198.51.100.1"),
            (&core, "172.16.1.1"),
            (&filter, "172.16.2.1"),
            (&server, "10.10.10.1"),
        ] {
            lab.run_in(side, &["ip", "route", "add", "default", "via", gateway]);
        }
        // The way back from the filter is a link of its own, in which the edge's route does not stand.
        lab.run_in(&filter, &["ip", "route", "add", net, "via", "172.16.3.2"]);
        let rules = "table ip filter { chain forward { type filter hook forward priority 0; \
            udp sport 123 counter drop; }; }";
        lab.run_in(&filter, &["nft", rules]);
        // What the attack fills: 20 Mbit/s to the core.
        lab.run(&[
            "tc", "qdisc", "add", "dev", "mid0", "root", "tbf", "rate", "20mbit", "burst", "64k",
            "limit", "128k",
        ]);
        play::start_bird(&mut lab, BIRD);
        play::start_weir(&mut lab, WEIR);
        play::start_exporter(&mut lab, "wan0");
        play::start_player(&mut lab, &server, &outside, env!("CARGO_BIN_EXE_player"));
        Some(Self { lab, outside, server })
    }

    /// Share of the player's datagrams that came back, over so many whole seconds from now on.
    fn goodput(&self, seconds: usize) -> f64 {
        play::goodput(&self.lab, play::seconds(&self.lab, seconds))
    }

    /// Where the edge sends what goes to the server.
    fn way(&self) -> String {
        let answer = self.lab.run(&["ip", "route", "get", "10.10.10.10"]);
        answer.split_whitespace().skip_while(|word| *word != "via").nth(1).unwrap().to_owned()
    }

    /// Octets sent by the attacker and the player, on to the core, on to the filter, and had by the server.
    fn counted(&self) -> [f64; 4] {
        [
            play::octets(&self.lab, Some(&self.outside), "wan1", "tx"),
            play::octets(&self.lab, None, "mid0", "tx"),
            play::octets(&self.lab, None, "flt0", "tx"),
            play::octets(&self.lab, Some(&self.server), "lan1", "rx"),
        ]
    }
}

#[test]
fn an_attacked_prefix_goes_through_the_filter_and_comes_back_clean() {
    let test = "an_attacked_prefix_goes_through_the_filter_and_comes_back_clean";
    let Some(mut world) = Network::start(test) else { return };
    assert_eq!(world.way(), "172.16.1.2");
    let before = world.goodput(2);
    let capture = capture::ntp_flood(&world.lab.path("attack.pcap"));
    let replay =
        ["tcpreplay", "-q", "-i", "wan1", "--loop=0", "--pps=10000", capture.to_str().unwrap()];
    let outside = world.outside.clone();
    let attack = world.lab.spawn_in(&outside, "tcpreplay", &replay);
    world.lab.wait_for("the way through the filter", 30, |_| {
        (world.way() == "172.16.2.2").then_some(())
    });
    let from = world.counted();
    let during = world.goodput(3);
    let to = world.counted();
    let url = "http://127.0.0.1:8080/api/v1/mitigations?state=active";
    let list: Value = serde_json::from_str(&world.lab.ask(&["curl", "-s", url])).unwrap();
    world.lab.kill(attack);
    world.lab.wait_for("the usual way", 40, |_| (world.way() == "172.16.1.2").then_some(()));
    let after = world.goodput(2);
    let [sent, core, filter, server] = [0, 1, 2, 3].map(|at: usize| to[at] - from[at]);
    println!(
        "goodput {before:.3} before, {during:.3} diverted, {after:.3} after; of {sent} octets {filter} went to \
         the filter, {core} to the core, {server} came to the server"
    );
    assert!(before >= 0.95, "before: {before}");
    assert!(during >= 0.95, "diverted: {during}\n{list:#}");
    assert!(after >= 0.95, "after: {after}");
    assert!(filter >= 0.9 * sent, "through the filter: {filter} of {sent}");
    assert!(core <= 0.1 * sent, "past the filter: {core} of {sent}");
    assert!(server <= 0.1 * sent, "to the server: {server} of {sent}");
    let mitigation = &list["mitigations"][0];
    assert_eq!(mitigation["rung"], "divert", "{list:#}");
    assert_eq!(mitigation["peers"], serde_json::json!(["edge"]), "{list:#}");
}
