//! The whole weir and real daemons.
//!
//! The router that takes rules is away as the attack begins, an upstream that takes black holes only is up:
//! absence is no refusal. And what people put in force by hand, read back from two routers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use weir_tests::lab::{BIRD, GOBGP, GOBGP_RULES, LOBBY, Lab};
use weir_tests::{capture, weir_binary};

const PROGRAMS: &[&str] =
    &["ip", "tcpreplay", "pmacctd", "gobgpd", "gobgp", "bird", "birdc", "curl"];

/// Each step is over after a second: whoever takes absence for a refusal black-holes at once.
const ATTACKED: &str = r#"
[protect]
prefixes = ["10.10.10.0/24"]
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "127.0.0.1/32"
name = "edge"
[mitigator]
mode = "auto"
@WAIT@
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 1000000
hold_secs = 1
[[mitigator.ladder]]
rung = "rtbh"
above_bits_per_sec = 1000000
hold_secs = 1
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "upstream"
address = "127.0.0.2"
port = 1790
remote_as = 65020
families = ["ipv4-unicast"]
[[bgp.peer]]
name = "edge"
address = "127.0.0.3"
port = 1790
remote_as = 65030
families = ["ipv4-unicast", "ipv4-flowspec"]
connect_retry_secs = 1
[api]
listen = "127.0.0.1:8080"
socket = ""
loopback_readonly = true
"#;

/// Both routers take rules; the edge diverts.
const BY_HAND: &str = r#"
[protect]
prefixes = ["203.0.113.0/24"]
[collector]
listen = ["127.0.0.1:2055"]
[[collector.exporters]]
address = "127.0.0.1/32"
[guard]
allow_redirect = true
[bgp]
local_as = 65010
router_id = "10.0.0.1"
[[bgp.peer]]
name = "upstream"
address = "127.0.0.2"
port = 1790
remote_as = 65020
families = ["ipv4-unicast", "ipv4-flowspec"]
connect_retry_secs = 1
[[bgp.peer]]
name = "edge"
address = "127.0.0.3"
port = 1790
remote_as = 65030
families = ["ipv4-unicast", "ipv4-flowspec"]
connect_retry_secs = 1
[bgp.peer.divert]
next_hop4 = "192.0.2.66"
communities = ["65010:9000"]
[api]
listen = "127.0.0.1:8080"
socket = "@SOCKET@"
loopback_readonly = true
"#;

fn start_gobgp(lab: &mut Lab, config: &str) {
    let config = lab.write("gobgpd.toml", config);
    let gobgp = ["gobgpd", "-f", config.to_str().unwrap(), "--api-hosts", "127.0.0.2:50052"];
    lab.spawn("gobgpd", &[&gobgp[..], &["--pprof-disable"]].concat());
}

fn start_bird(lab: &mut Lab) {
    let (bird, control) = (lab.write("bird.conf", BIRD), lab.path("bird.ctl"));
    lab.spawn(
        "bird",
        &["bird", "-f", "-c", bird.to_str().unwrap(), "-s", control.to_str().unwrap()],
    );
}

fn start_weir(lab: &mut Lab, config: &str) {
    let state = lab.path("state.db");
    let config = lab.write("weir.toml", &format!("{config}[store]\npath = {state:?}\n"));
    let weir = weir_binary();
    lab.spawn("weir", &[weir.to_str().unwrap(), "run", "--config", config.to_str().unwrap()]);
}

/// Whether the sessions are up.
fn sessions(lab: &Lab) -> Option<[bool; 2]> {
    let peers = get(lab, "peers");
    let up = |name: &str| {
        let mut list = peers["peers"].as_array()?.iter();
        Some(list.find(|p| p["name"] == name)?["state"] == "established")
    };
    Some([up("upstream")?, up("edge")?])
}

/// What BIRD has in a table, one line a route with its attributes.
fn edge_has(lab: &Lab, table: &str) -> Vec<String> {
    let control = lab.path("bird.ctl");
    let show = ["birdc", "-s", control.to_str().unwrap(), "show", "route", "all", "table", table];
    let mut routes: Vec<String> = Vec::new();
    for line in lab.ask(&show).lines() {
        match (line.strip_prefix('\t'), routes.last_mut()) {
            (Some(attribute), Some(route)) => route.push_str(&format!(" {}", attribute.trim())),
            (None, _) if line.contains("[weir ") => routes.push(line.to_owned()),
            _ => {}
        }
    }
    routes
}

/// What GoBGP has of a family, a line each.
fn upstream_has(lab: &Lab, family: &str) -> Vec<String> {
    let show = ["gobgp", "--host", "127.0.0.2", "--port", "50052", "global", "rib", "-a", family];
    lab.ask(&show).lines().filter(|l| l.starts_with("*>")).map(str::to_owned).collect()
}

/// The upstream's session is up, the edge is away, the attack goes on.
fn attacked(test: &str, wait: &str) -> Option<Lab> {
    let mut lab = Lab::new(test, PROGRAMS)?;
    lab.run(&["ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1"]);
    lab.run(&["ip", "link", "set", "wan0", "up"]);
    lab.run(&["ip", "link", "set", "wan1", "up"]);
    start_gobgp(&mut lab, GOBGP);
    start_weir(&mut lab, &format!("{}{LOBBY}", ATTACKED.replace("@WAIT@", wait)));
    lab.wait_for("the upstream's session", 30, |lab| {
        (sessions(lab) == Some([true, false])).then_some(())
    });
    let exporter = lab.write(
        "pmacctd.conf",
        "pcap_interface: wan1\nplugins: sfprobe\nsampling_rate: 8\nsfprobe_agentip: 127.0.0.1\n\
         sfprobe_receiver: 127.0.0.1:2055\naggregate: src_host, dst_host\n",
    );
    lab.spawn("exporter", &["pmacctd", "-f", exporter.to_str().unwrap()]);
    lab.wait_for("pmacctd", 10, |lab| lab.log("exporter").contains("wan1").then_some(()));
    let flood = capture::syn_flood(&lab.path("attack.pcap"));
    let play = ["tcpreplay", "-q", "-i", "wan0", "--loop=0", "--pps=20000"];
    lab.spawn("tcpreplay", &[&play[..], &[flood.to_str().unwrap()]].concat());
    Some(lab)
}

fn get(lab: &Lab, path: &str) -> Value {
    let url = format!("http://127.0.0.1:8080/api/v1/{path}");
    serde_json::from_str(&lab.ask(&["curl", "-s", &url])).unwrap_or_default()
}

/// Mitigations of a rung, whatever has become of them.
fn of_rung(lab: &Lab, rung: &str) -> usize {
    let list = get(lab, "mitigations");
    let list = list["mitigations"].as_array();
    list.map_or(0, |list| list.iter().filter(|m| m["rung"] == rung).count())
}

fn upstream_has_the_hole(lab: &Lab) -> bool {
    upstream_has(lab, "ipv4").iter().any(|route| route.contains("10.10.10.10/32"))
}

#[test]
fn no_black_hole_is_announced_because_the_router_for_rules_is_away() {
    let test = "no_black_hole_is_announced_because_the_router_for_rules_is_away";
    let Some(mut lab) = attacked(test, "") else { return };
    // Five times as long as the step lasts, with a rule that nobody has.
    lab.wait_for("five seconds of an incident", 40, |lab| {
        let incidents = get(lab, "incidents");
        let incident = &incidents["incidents"][0];
        let lasted = incident["verdict"]["at"].as_u64()? - incident["opened"].as_u64()?;
        (lasted >= 5_000 && of_rung(lab, "drop") > 0).then_some(())
    });
    assert_eq!(of_rung(&lab, "rtbh"), 0, "{:#}", get(&lab, "incidents"));
    assert!(!upstream_has_the_hole(&lab));
    start_bird(&mut lab);
    lab.wait_for("the rule at the edge", 30, |lab| {
        let rules = edge_has(lab, "flowtab4");
        rules.iter().any(|rule| rule.contains("dst 10.10.10.10/32")).then_some(())
    });
    assert_eq!(of_rung(&lab, "rtbh"), 0, "{:#}", get(&lab, "incidents"));
    assert!(!upstream_has_the_hole(&lab));
}

#[test]
fn a_black_hole_is_announced_where_weir_was_told_not_to_wait() {
    let test = "a_black_hole_is_announced_where_weir_was_told_not_to_wait";
    let Some(lab) = attacked(test, "peer_wait_secs = 1") else { return };
    lab.wait_for("the black hole", 40, |lab| upstream_has_the_hole(lab).then_some(()));
    assert!(of_rung(&lab, "drop") > 0);
}

#[test]
fn what_people_put_in_force_is_read_back_from_two_routers() {
    let test = "what_people_put_in_force_is_read_back_from_two_routers";
    let Some(mut lab) = Lab::new(test, &["ip", "gobgpd", "gobgp", "bird", "birdc", "curl"]) else {
        return;
    };
    start_gobgp(&mut lab, &format!("{GOBGP}{GOBGP_RULES}"));
    start_bird(&mut lab);
    let socket = lab.path("api.sock");
    let socket = socket.to_str().unwrap().to_owned();
    start_weir(&mut lab, &BY_HAND.replace("@SOCKET@", &socket));
    lab.wait_for("the sessions", 30, |lab| (sessions(lab) == Some([true, true])).then_some(()));
    let weir = weir_binary();
    let mitigate = |lab: &Lab, words: &str| -> String {
        let mut line = vec![weir.to_str().unwrap(), "mitigate"];
        line.extend(words.split(' '));
        line.extend(["--socket", &socket]);
        lab.ask(&line)
    };
    let number = |said: &str| said.trim().rsplit(' ').next().unwrap().to_owned();
    let rules = |lab: &Lab, edge: &[&str], upstream: &[&str]| {
        lab.wait_for(&format!("{edge:?} and {upstream:?}"), 15, |lab| {
            let (own, other) = (edge_has(lab, "flowtab4"), upstream_has(lab, "ipv4-flowspec"));
            let all = |has: &[String], parts: &[&str]| {
                has.len() == 1 && parts.iter().all(|part| has[0].contains(part))
            };
            (all(&own, edge) && all(&other, upstream)).then_some(())
        });
    };
    let add =
        "add 203.0.113.7/32 --protocol tcp --tcp-flags SYN/SYN+ACK --dport 443 --length 40-60";
    let id = number(&mitigate(&lab, &format!("{add} --rate-packets 500")));
    let syns = "tcp flags 0x2/0x2 && 0x0/0x10; length 40..60;";
    // 500 as an IEEE float, in packets; GoBGP shows the community as a number.
    rules(
        &lab,
        &[syns, "0x800c0000, 0x43fa0000"],
        &["[tcp-flags: =S&!A]", "[packet-length: >=40&<=60]"],
    );
    // In its place, one action after the other: the rule is never gone from either router.
    let replace = format!("replace {id} {}", add.strip_prefix("add ").unwrap());
    let dry = mitigate(&lab, &format!("{replace} --mark 8 --dry-run"));
    assert!(dry.contains("mark dscp 8") && dry.contains("- flowspec"), "{dry}");
    for (action, edge, upstream) in [
        ("--mark 8", "0x80090000, 0x8", "remark: 8"),
        ("--redirect 65010:666", "0x8008fdf2, 0x29a", "redirect: 65010:666"),
        ("--redirect 192.0.2.66", "0x10c, 192.0.2.66", "192.0.2.66:0"),
    ] {
        assert_eq!(number(&mitigate(&lab, &format!("{replace} {action}"))), id);
        rules(&lab, &[syns, edge], &["[tcp-flags: =S&!A]", upstream]);
    }
    mitigate(&lab, &format!("replace {id} 203.0.113.7/32 --protocol udp --fragment any --dscp 0"));
    rules(&lab, &["fragment is_fragment", "dscp 0;"], &["[fragment: =is-fragment]", "discard"]);
    let expires =
        |lab: &Lab| get(lab, "mitigations")["mitigations"][0]["expires"].as_u64().unwrap();
    let before = expires(&lab);
    mitigate(&lab, &format!("extend {id} --ttl 7200"));
    assert!(expires(&lab) > before + 3_600_000);
    // A diversion goes to who diverts, and to nobody else; what would go round goes nowhere.
    mitigate(&lab, "add 203.0.113.0/24 --divert");
    let route = lab.wait_for("the diversion", 15, |lab| edge_has(lab, "master4").pop());
    assert!(
        route.starts_with("203.0.113.0/24") && route.contains("BGP.next_hop: 192.0.2.66"),
        "{route}"
    );
    assert!(route.contains("BGP.community: (65010,9000)"), "{route}");
    assert_eq!(upstream_has(&lab, "ipv4"), [""; 0]);
    for loops in ["add 203.0.113.0/24 --redirect 203.0.113.9", "add 203.0.113.9/32 --divert"] {
        assert_eq!(mitigate(&lab, loops), "", "refused");
    }
    mitigate(&lab, "withdraw-all");
    lab.wait_for("an end", 15, |lab| {
        let left = [edge_has(lab, "flowtab4"), edge_has(lab, "master4")].concat();
        (left.is_empty() && upstream_has(lab, "ipv4-flowspec").is_empty()).then_some(())
    });
}
