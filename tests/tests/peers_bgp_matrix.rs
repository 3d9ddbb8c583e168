//! weir's BGP speaker against real routers' software, read back with the routers' own tools.
//!
//! Each test is a namespace of its own with one or more daemons and `speak`, the speaker on a
//! leash (an example of `weir-bgp`), driven through a pipe.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_model::{
    Action, Filter, FlagMatch, FragmentMatch, Match, Measure, Observed, PeerState, PeerStatus,
    Range, Redirect,
};
use weir_tests::lab::{Lab, Pid, find_program};

// ---------------------------------------------------------------------------------- the speaker

/// The speaker in a laboratory.
struct Speaker {
    name: String,
    pid: Pid,
    pipe: File,
}

impl Speaker {
    /// Starts it with one peer for each of `peers`: JSON that is laid over the usual settings.
    fn start(lab: &mut Lab, name: &str, peers: &[Value]) -> Self {
        let own = std::env::current_exe().unwrap();
        let speak = own.parent().unwrap().parent().unwrap().join("examples/speak");
        assert!(speak.is_file(), "cargo build -p weir-bgp --example speak");
        let peers: Vec<Value> = peers
            .iter()
            .map(|extra| {
                let mut peer = json!({
                    "port": 1790, "remote_as": 65020, "local_address": "127.0.0.1",
                    "hold_time_secs": 30, "connect_retry_secs": 1,
                });
                for (key, value) in extra.as_object().unwrap() {
                    peer[key] = value.clone();
                }
                peer
            })
            .collect();
        let config = json!({
            "local_as": 65010, "router_id": "10.0.0.10", "listen": "127.0.0.1:1791", "peer": peers,
        });
        let config = lab.write(&format!("{name}.json"), &config.to_string());
        let fifo = lab.path(&format!("{name}.fifo"));
        lab.run(&["mkfifo", fifo.to_str().unwrap()]);
        // Opened for both ways, so that neither side waits for the other.
        let pipe = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let script = format!(
            "exec {} {} 203.0.113.0/24 2001:db8::/32 < {}",
            speak.display(),
            config.display(),
            fifo.display()
        );
        let pid = lab.spawn(name, &["sh", "-c", &script]);
        Self { name: name.to_owned(), pid, pipe }
    }

    fn want(&mut self, measures: &[Measure]) {
        let line = serde_json::to_string(measures).unwrap();
        writeln!(self.pipe, "{line}").unwrap();
    }

    fn say(&mut self, word: &str) {
        writeln!(self.pipe, "{word}").unwrap();
    }

    fn reports(&self, lab: &Lab) -> Vec<Observed> {
        lab.log(&self.name).lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    fn status(&self, lab: &Lab, peer: &str) -> Option<PeerStatus> {
        self.reports(lab).into_iter().rev().find_map(|report| match report {
            Observed::Peer(status) if status.name == peer => Some(status),
            _ => None,
        })
    }

    fn wait_established(&self, lab: &Lab, peer: &str) -> PeerStatus {
        lab.wait_for(&format!("session with {peer}"), 30, |lab| {
            self.status(lab, peer).filter(|s| s.state == PeerState::Established)
        })
    }
}

fn rule(dst: &str, action: Action, change: impl FnOnce(&mut Match)) -> Measure {
    let mut packets = Match::to(dst.parse().unwrap());
    change(&mut packets);
    Measure::FlowSpec(Filter { packets: packets.normalise(), action })
}

fn hole(net: &str) -> Measure {
    Measure::Blackhole(net.parse().unwrap())
}

fn range(from: u16, to: u16) -> Range {
    Range { from, to }
}

/// Every component and action that weir has words for, with how BIRD and GoBGP print it.
fn rules() -> Vec<(Measure, &'static str, &'static str)> {
    let udp = |m: &mut Match| m.protocols = vec![17];
    let rt = Action::Redirect(Redirect::RouteTarget { asn: 65010, value: 666 });
    let hop = |ip: &str| Action::Redirect(Redirect::NextHop(ip.parse().unwrap()));
    let limit = Action::RateLimit { bytes_per_sec: 125_000_000 };
    let tcp = |mask, set| {
        move |m: &mut Match| {
            m.protocols = vec![6];
            m.tcp_flags = vec![FlagMatch { mask, set }];
        }
    };
    vec![
        (
            rule("203.0.113.0/24", Action::Drop, |m| m.protocols = vec![47]),
            "flow4 { dst 203.0.113.0/24; proto 47; } 0x80060000, 0x0",
            "[destination: 203.0.113.0/24][protocol: ==gre] discard",
        ),
        (
            rule("203.0.113.1/32", Action::Drop, |m| {
                udp(m);
                m.src = Some("198.51.96.0/19".parse().unwrap());
                m.dst_ports = vec![Range::exact(25565), Range::exact(27015)];
                m.src_ports = vec![range(1, 1023)];
                m.lengths = vec![range(200, 1400)];
                m.dscps = vec![0, 46];
            }),
            "flow4 { dst 203.0.113.1/32; src 198.51.96.0/19; proto 17; dport 25565,27015; \
             sport 1..1023; length 200..1400; dscp 0,46; } 0x80060000, 0x0",
            "[destination: 203.0.113.1/32][source: 198.51.96.0/19][protocol: ==udp]\
             [destination-port: ==25565 ==27015][source-port: >=1&<=1023]\
             [packet-length: >=200&<=1400][dscp: ==0 ==46] discard",
        ),
        (
            rule("203.0.113.2/32", limit, tcp(0x12, 0x02)),
            "flow4 { dst 203.0.113.2/32; proto 6; tcp flags 0x2/0x2 && 0x0/0x10; } 0x80060000, 0x4cee6b28",
            "[destination: 203.0.113.2/32][protocol: ==tcp][tcp-flags: =S&!A] rate: 125000000.000000",
        ),
        (
            rule("203.0.113.3/32", Action::Drop, tcp(0x3f, 0)),
            "flow4 { dst 203.0.113.3/32; proto 6; tcp flags 0x0/0x3f; } 0x80060000, 0x0",
            "[destination: 203.0.113.3/32][protocol: ==tcp][tcp-flags: !FSRPAU] discard",
        ),
        (
            rule("203.0.113.4/32", Action::RateLimitPackets { packets_per_sec: 1000 }, |m| {
                m.protocols = vec![1];
                m.icmp_types = vec![8];
                m.icmp_codes = vec![0];
            }),
            "flow4 { dst 203.0.113.4/32; proto 1; icmp type 8; icmp code 0; } 0x800c0000, 0x447a0000",
            "[destination: 203.0.113.4/32][protocol: ==icmp][icmp-type: ==8][icmp-code: ==0] 3377700869373952",
        ),
        (
            rule("203.0.113.5/32", Action::Drop, |m| m.fragment = Some(FragmentMatch::IsFragment)),
            "flow4 { dst 203.0.113.5/32; fragment is_fragment; } 0x80060000, 0x0",
            "[destination: 203.0.113.5/32][fragment: =is-fragment] discard",
        ),
        (
            rule("203.0.113.6/32", Action::Drop, |m| m.fragment = Some(FragmentMatch::NotFragment)),
            "flow4 { dst 203.0.113.6/32; fragment 0x0/0x6; } 0x80060000, 0x0",
            "[destination: 203.0.113.6/32][fragment: !is-fragment+first-fragment] discard",
        ),
        (
            rule("203.0.113.7/32", Action::Drop, |m| m.fragment = Some(FragmentMatch::Last)),
            "flow4 { dst 203.0.113.7/32; fragment last_fragment; } 0x80060000, 0x0",
            "[destination: 203.0.113.7/32][fragment: =last-fragment] discard",
        ),
        (
            rule("203.0.113.8/32", rt, udp),
            "flow4 { dst 203.0.113.8/32; proto 17; } 0x8008fdf2, 0x29a",
            "[destination: 203.0.113.8/32][protocol: ==udp] redirect: 65010:666",
        ),
        (
            rule("203.0.113.9/32", hop("192.0.2.9"), udp),
            "flow4 { dst 203.0.113.9/32; proto 17; } 0x10c, 192.0.2.9",
            "[destination: 203.0.113.9/32][protocol: ==udp] 192.0.2.9:0",
        ),
        (
            rule("203.0.113.10/32", Action::Drop, |m| {
                udp(m);
                m.src_ports = vec![range(0, 52), range(1024, 65535)];
                m.lengths = vec![range(1400, 65535)];
            }),
            "flow4 { dst 203.0.113.10/32; proto 17; sport <= 52,>= 1024; length >= 1400; } 0x80060000, 0x0",
            "[destination: 203.0.113.10/32][protocol: ==udp][source-port: <=52 >=1024]\
             [packet-length: >=1400] discard",
        ),
        (
            rule("2001:db8:0:1::1/128", Action::Drop, |m| {
                udp(m);
                m.src = Some("2001:db8:ff00::/40".parse().unwrap());
                m.src_ports = vec![Range::exact(53)];
                m.lengths = vec![range(1200, 1500)];
            }),
            "flow6 { dst 2001:db8:0:1::1/128; src 2001:db8:ff00::/40; next header 17; sport 53; \
             length 1200..1500; } 0x80060000, 0x0",
            "[destination: 2001:db8:0:1::1/128/0][source: 2001:db8:ff00::/40/0][protocol: ==udp]\
             [source-port: ==53][packet-length: >=1200&<=1500] discard",
        ),
        (
            rule("2001:db8:0:1::/64", limit, tcp(0x02, 0x02)),
            "flow6 { dst 2001:db8:0:1::/64; next header 6; tcp flags 0x2/0x2; } 0x80060000, 0x4cee6b28",
            "[destination: 2001:db8:0:1::/64/0][protocol: ==tcp][tcp-flags: =S] rate: 125000000.000000",
        ),
        (
            rule("2001:db8:0:1::3/128", hop("2001:db8::9"), |m| {
                m.protocols = vec![58];
                m.icmp_types = vec![128];
            }),
            "flow6 { dst 2001:db8:0:1::3/128; next header 58; icmp type 128; } 00 0c 20 01 0d b8",
            "[destination: 2001:db8:0:1::3/128/0][protocol: ==58][icmp-type: ==128] 2001:db8::9:0",
        ),
        (
            rule("2001:db8:0:1::4/128", Action::Drop, |m| {
                m.fragment = Some(FragmentMatch::IsFragment);
            }),
            "flow6 { dst 2001:db8:0:1::4/128; fragment is_fragment; } 0x80060000, 0x0",
            "[destination: 2001:db8:0:1::4/128/0][fragment: =is-fragment] discard",
        ),
    ]
}

fn holes() -> [Measure; 2] {
    [hole("203.0.113.7/32"), hole("2001:db8:0:1::7/128")]
}

fn everything() -> Vec<Measure> {
    let mut list: Vec<Measure> = rules().into_iter().map(|(m, ..)| m).collect();
    list.extend(holes());
    list
}

/// `count` rules of many shapes, none like another.
fn many(count: u16) -> Vec<Measure> {
    (0..count)
        .map(|n| {
            let host = format!("203.0.113.{}/32", n % 250);
            rule(&host, Action::RateLimit { bytes_per_sec: 10_000 + u64::from(n) }, |m| {
                m.protocols = vec![if n % 3 == 0 { 6 } else { 17 }];
                m.dst_ports = vec![Range::exact(1024 + n)];
                if n % 2 == 0 {
                    m.src_ports = vec![range(n, n + 100)];
                }
                if n % 5 == 0 {
                    m.lengths = vec![range(n % 1000, 1500)];
                }
                if n % 7 == 0 {
                    m.fragment = Some(FragmentMatch::NotFragment);
                }
                if n % 3 == 0 {
                    m.tcp_flags = vec![FlagMatch { mask: 0x12, set: 0x02 }];
                }
            })
        })
        .collect()
}

// ------------------------------------------------------------------------------------- the peers

const BIRD: &str = r#"
log stderr all;
router id 10.0.0.30;
ipv4 table master4; ipv6 table master6; flow4 table flowtab4; flow6 table flowtab6;
protocol device { }
protocol bgp weir {
  local 127.0.0.3 port 1790 as 65020;
  neighbor 127.0.0.1 as 65010;
  multihop@MULTIHOP@; @EXTRA@
  passive yes; strict bind yes; hold time 30; keepalive time 10;
  ipv4 { import all; export none; @IPV4@ };
  ipv6 { import all; export none; };
  flow4 { table flowtab4; import all; export none; };
  flow6 { table flowtab6; import all; export none; };
}
"#;

fn start_bird(lab: &mut Lab, multihop: &str, extra: &str, ipv4: &str) -> Pid {
    let config =
        BIRD.replace("@MULTIHOP@", multihop).replace("@EXTRA@", extra).replace("@IPV4@", ipv4);
    let config = lab.write("bird.conf", &config);
    let control = lab.path("bird.ctl");
    lab.spawn(
        "bird",
        &["bird", "-f", "-c", config.to_str().unwrap(), "-s", control.to_str().unwrap()],
    )
}

fn birdc(lab: &Lab, command: &str) -> String {
    let control = lab.path("bird.ctl");
    let mut all = vec!["birdc", "-s", control.to_str().unwrap()];
    all.extend(command.split(' '));
    lab.ask(&all)
}

/// One line a route: the destination and all its attributes.
fn bird_routes(lab: &Lab) -> Vec<String> {
    let mut routes: Vec<String> = Vec::new();
    for table in ["master4", "master6", "flowtab4", "flowtab6"] {
        for line in birdc(lab, &format!("show route all table {table}")).lines() {
            if line.starts_with('\t') {
                if let Some(route) = routes.last_mut() {
                    route.push_str(&format!(" {}", line.trim()));
                }
            } else if line.contains("[weir ") {
                routes.push(line.to_owned());
            }
        }
    }
    routes
}

const GOBGP_FAMILIES: [&str; 4] = ["ipv4", "ipv6", "ipv4-flowspec", "ipv6-flowspec"];

fn start_gobgp(lab: &mut Lab, name: &str) -> Pid {
    let families: String = ["ipv4-unicast", "ipv6-unicast", "ipv4-flowspec", "ipv6-flowspec"]
        .iter()
        .map(|f| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{f}\"\n"
            )
        })
        .collect();
    let config = format!(
        "[global.config]\nas = 65020\nrouter-id = \"10.0.0.20\"\nport = 1790\n\
         local-address-list = [\"127.0.0.2\"]\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = \"127.0.0.1\"\npeer-as = 65010\n[neighbors.transport.config]\n\
         passive-mode = true\nlocal-address = \"127.0.0.2\"\n[neighbors.timers.config]\n\
         hold-time = 30\nkeepalive-interval = 10\n{families}"
    );
    let config = lab.write("gobgpd.toml", &config);
    let api = "127.0.0.2:50052";
    lab.spawn(
        name,
        &["gobgpd", "-f", config.to_str().unwrap(), "--api-hosts", api, "--pprof-disable"],
    )
}

fn gobgp(lab: &Lab, words: &[&str]) -> String {
    let mut all = vec!["gobgp", "--host", "127.0.0.2", "--port", "50052"];
    all.extend(words);
    lab.ask(&all)
}

fn gobgp_routes(lab: &Lab) -> Vec<String> {
    let tables = GOBGP_FAMILIES.map(|f| gobgp(lab, &["global", "rib", "-a", f]));
    tables
        .iter()
        .flat_map(|t| t.lines())
        .filter(|l| l.starts_with("*>"))
        .map(str::to_owned)
        .collect()
}

const FRR: &str = "frr defaults traditional
log stdout debugging
router bgp 65020
 bgp router-id 10.0.0.40
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 10 30
 neighbor 127.0.0.1 remote-as 65010
 neighbor 127.0.0.1 passive
 neighbor 127.0.0.1 disable-connected-check
 neighbor 127.0.0.1 ebgp-multihop 2
 neighbor 127.0.0.1 update-source 127.0.0.4
 address-family ipv4 unicast
  neighbor 127.0.0.1 activate
 address-family ipv6 unicast
  neighbor 127.0.0.1 activate
 address-family ipv4 flowspec
  neighbor 127.0.0.1 activate
 address-family ipv6 flowspec
  neighbor 127.0.0.1 activate
";

fn start_frr(lab: &mut Lab) -> Pid {
    let config = lab.write("frr.conf", FRR);
    let vty = lab.path("vty");
    std::fs::create_dir(&vty).unwrap();
    let pid_file = lab.path("frr.pid");
    let bgpd = find_program("bgpd").filter(|p| p.starts_with("/usr/lib/frr"));
    let bgpd = bgpd.unwrap_or_else(|| PathBuf::from("/usr/lib/frr/bgpd"));
    lab.spawn(
        "frr",
        &[
            bgpd.to_str().unwrap(),
            "-f",
            config.to_str().unwrap(),
            "-Z",
            "-S",
            "-n",
            "-p",
            "1790",
            "-l",
            "127.0.0.4",
            "-P",
            "0",
            "-i",
            pid_file.to_str().unwrap(),
            "--vty_socket",
            vty.to_str().unwrap(),
        ],
    )
}

fn vtysh(lab: &Lab, command: &str) -> String {
    let vty = lab.path("vty");
    lab.ask(&["vtysh", "--vty_socket", vty.to_str().unwrap(), "-d", "bgpd", "-c", command])
}

/// The numbers of routes that FRR shows for each family.
fn frr_counts(lab: &Lab) -> Vec<u64> {
    let summary: Value =
        serde_json::from_str(&vtysh(lab, "show bgp summary json")).unwrap_or_default();
    ["ipv4Unicast", "ipv6Unicast", "ipv4Flowspec", "ipv6Flowspec"]
        .iter()
        .map(|f| summary[f]["peers"]["127.0.0.1"]["pfxRcd"].as_u64().unwrap_or(0))
        .collect()
}

fn records(lab: &mut Lab) -> Pid {
    let file = lab.path("bgp.pcap");
    let pid = lab.spawn(
        "tshark",
        &[
            "tshark",
            "-q",
            "-i",
            "lo",
            "-f",
            "tcp port 1790 or tcp port 1791",
            "-w",
            file.to_str().unwrap(),
        ],
    );
    lab.wait_for("tshark to listen", 15, |lab| {
        lab.log("tshark").contains("Capturing").then_some(())
    });
    pid
}

/// Ends the recording and asks tshark what it finds malformed. Ends it only when an UPDATE is in
/// it: tshark writes late on a busy machine.
fn malformed(lab: &mut Lab, pid: Pid) -> String {
    let file = lab.path("bgp.pcap");
    let file = file.to_str().unwrap();
    let read = |lab: &Lab, filter: &str| {
        lab.ask(&["tshark", "-r", file, "-d", "tcp.port==1790,bgp", "-Y", filter])
    };
    lab.wait_for("an UPDATE in the recording", 20, |lab| {
        (!read(lab, "bgp.type == 2").is_empty()).then_some(())
    });
    lab.signal(pid, "INT");
    lab.wait_for_end(pid, 10);
    read(lab, "_ws.malformed")
}

// ------------------------------------------------------------------------------------- the tests

#[test]
fn bird_shows_every_rule_and_action() {
    let Some(mut lab) =
        Lab::new("bird_shows_every_rule_and_action", &["bird", "birdc", "tshark", "mkfifo"])
    else {
        return;
    };
    start_bird(&mut lab, "", "", "");
    let tshark = records(&mut lab);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "bird", "address": "127.0.0.3"})]);
    speaker.want(&everything());
    let count = everything().len();
    let routes =
        lab.wait_for("every route", 20, |lab| Some(bird_routes(lab)).filter(|r| r.len() == count));
    for (measure, expected, _) in rules() {
        let (words, action) = expected.split_once("} ").unwrap();
        let found = routes.iter().find(|r| r.contains(&format!("{words}}}")));
        let found = found.unwrap_or_else(|| panic!("{measure}: {words}\nin {routes:#?}"));
        assert!(found.contains(action), "{found} lacks {action}");
        assert!(found.contains("BGP.large_community: (65010, 2003134834, 0)"), "{found}");
    }
    for (net, hop) in [("203.0.113.7/32", "192.0.2.1"), ("2001:db8:0:1::7/128", "100::1")] {
        let found = routes.iter().find(|r| r.starts_with(net)).unwrap();
        assert!(found.contains(&format!("BGP.next_hop: {hop}")), "{found}");
        assert!(found.contains("BGP.community: (65535,666) (65535,65281)"), "{found}");
    }
    // Withdrawn one by one and all at once.
    speaker.want(&everything()[..3]);
    lab.wait_for("three routes", 10, |lab| (bird_routes(lab).len() == 3).then_some(()));
    speaker.want(&[]);
    lab.wait_for("no route", 10, |lab| bird_routes(lab).is_empty().then_some(()));
    assert_eq!(speaker.status(&lab, "bird").unwrap().flaps, 0);
    assert_eq!(malformed(&mut lab, tshark), "");
}

#[test]
fn gobgp_shows_every_rule_and_action_and_gets_them_again_after_its_restart() {
    let Some(mut lab) = Lab::new(
        "gobgp_shows_every_rule_and_action_and_gets_them_again_after_its_restart",
        &["gobgpd", "gobgp", "mkfifo"],
    ) else {
        return;
    };
    let daemon = start_gobgp(&mut lab, "gobgpd");
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "gobgp", "address": "127.0.0.2"})]);
    speaker.want(&everything());
    let count = everything().len();
    let all = |lab: &Lab| Some(gobgp_routes(lab)).filter(|r| r.len() == count);
    let routes = lab.wait_for("every route", 20, all);
    for (measure, _, expected) in rules() {
        let (words, action) = expected.split_once("] ").unwrap();
        let found = routes.iter().find(|r| r.contains(&format!(" {words}] ")));
        let found = found.unwrap_or_else(|| panic!("{measure}: {words}\nin {routes:#?}"));
        assert!(found.contains(action), "{found} lacks {action}");
    }
    assert!(
        routes.iter().any(|r| r.contains("203.0.113.7/32") && r.contains("blackhole, no-export"))
    );
    // kill -9, not a good-bye: it comes back empty.
    lab.kill(daemon);
    start_gobgp(&mut lab, "gobgpd-again");
    lab.wait_for("every route again", 40, all);
    speaker.say("withdraw");
    lab.wait_for("no route", 10, |lab| gobgp_routes(lab).is_empty().then_some(()));
}

#[test]
fn frr_takes_every_rule_without_a_reset() {
    let Some(mut lab) = Lab::new("frr_takes_every_rule_without_a_reset", &["vtysh", "mkfifo"])
    else {
        return;
    };
    start_frr(&mut lab);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "frr", "address": "127.0.0.4"})]);
    speaker.want(&everything());
    lab.wait_for("every route", 20, |lab| (frr_counts(lab) == [1, 1, 11, 4]).then_some(()));
    let text = vtysh(&lab, "show bgp ipv4 flowspec detail");
    for part in ["203.0.113.1/32", "FS:rate 125000000.000000", "FS:redirect VRF RT:65010:666"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let route = vtysh(&lab, "show bgp ipv4 unicast 203.0.113.7/32");
    assert!(route.contains("blackhole no-export"), "{route}");
    speaker.want(&many(1000));
    lab.wait_for("1000 rules", 20, |lab| (frr_counts(lab) == [0, 0, 1000, 0]).then_some(()));
    speaker.want(&[]);
    lab.wait_for("no rule", 20, |lab| (frr_counts(lab) == [0; 4]).then_some(()));
    let status = speaker.status(&lab, "frr").unwrap();
    assert_eq!(status.flaps, 0, "{status:?}\n{}", lab.logs());
}

const EXABGP: &str = r"
process sink { run @SINK@; encoder json; }
neighbor 127.0.0.1 {
  router-id 10.0.0.50; local-address 127.0.0.5; local-as 65020; peer-as 65010; hold-time 30;
  passive true; listen 1790;
  family { ipv4 unicast; ipv6 unicast; ipv4 flow; ipv6 flow; }
  api { processes [ sink ]; neighbor-changes; receive { parsed; update; } }
}
";

#[test]
fn exabgp_reads_every_rule() {
    let Some(mut lab) = Lab::new("exabgp_reads_every_rule", &["exabgp", "env", "mkfifo"]) else {
        return;
    };
    let received = lab.path("received.json");
    let sink = format!(
        "#!/usr/bin/python3\nimport sys\nwith open({:?}, 'a', buffering=1) as out:\n    \
         for line in sys.stdin:\n        out.write(line)\n",
        received.display().to_string()
    );
    let sink = lab.write("sink.py", &sink);
    lab.run(&["chmod", "755", sink.to_str().unwrap()]);
    let config = lab.write("exabgp.conf", &EXABGP.replace("@SINK@", sink.to_str().unwrap()));
    lab.spawn(
        "exabgp",
        &[
            "env",
            "exabgp.daemon.user=root",
            "exabgp.daemon.drop=false",
            "exabgp.api.cli=false",
            "exabgp.tcp.bind=",
            "exabgp",
            config.to_str().unwrap(),
        ],
    );
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "exabgp", "address": "127.0.0.5"})]);
    speaker.want(&everything());
    // Each rule is one UPDATE with one rule; ExaBGP prints the rule as it understood it.
    let flows = |lab: &Lab, part: &str| -> Vec<String> {
        let text = std::fs::read_to_string(lab.path("received.json")).unwrap_or_default();
        text.lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok())
            .map(|v| v["neighbor"]["message"]["update"][part].to_string())
            .filter(|t| t.contains("flow"))
            .collect()
    };
    let announced = lab
        .wait_for("every rule", 30, |lab| Some(flows(lab, "announce")).filter(|f| f.len() >= 15));
    for text in [
        "flow destination-ipv4 203.0.113.1/32 source-ipv4 198.51.96.0/19 protocol =udp \
         destination-port [ =25565 =27015 ] source-port [ >=1&<=1023 ] packet-length [ >=200&<=1400 ] dscp [ =0 =46 ]",
        "flow destination-ipv4 203.0.113.2/32 protocol =tcp tcp-flags [ =syn&!ack ]",
        "flow destination-ipv6 2001:db8:0:1::1/128/0",
    ] {
        assert!(announced.iter().any(|a| a.contains(text)), "{text}\nin {announced:#?}");
    }
    speaker.want(&[]);
    lab.wait_for("every withdrawal", 20, |lab| (flows(lab, "withdraw").len() >= 15).then_some(()));
    assert_eq!(speaker.status(&lab, "exabgp").unwrap().flaps, 0);
}

const OPENBGPD: &str = "AS 65020
router-id 10.0.0.60
fib-update no
listen on 127.0.0.6 port 1790
socket \"@SOCKET@\"
holdtime 30
neighbor 127.0.0.1 {
  remote-as 65010
  local-address 127.0.0.6
  passive
  multihop 2
  announce IPv4 unicast
  announce IPv6 unicast
  enforce neighbor-as yes
}
allow from any
deny to any
";

#[test]
fn openbgpd_gets_black_holes_and_no_family_it_did_not_ask_for() {
    let test = "openbgpd_gets_black_holes_and_no_family_it_did_not_ask_for";
    let Some(mut lab) = Lab::new(test, &["bgpctl", "mkfifo"]) else { return };
    let bgpd = PathBuf::from("/usr/sbin/bgpd");
    if !bgpd.is_file() {
        weir_tests::skip(test, "not installed: openbgpd");
        return;
    }
    // What its unprivileged half is locked into; the package makes it when the service starts.
    lab.run(&["mkdir", "-p", "/run/openbgpd"]);
    let socket = lab.path("bgpd.sock");
    let config = lab.write("bgpd.conf", &OPENBGPD.replace("@SOCKET@", socket.to_str().unwrap()));
    lab.run(&["chmod", "600", config.to_str().unwrap()]);
    lab.spawn("openbgpd", &[bgpd.to_str().unwrap(), "-d", "-v", "-f", config.to_str().unwrap()]);
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "openbgpd", "address": "127.0.0.6"})]);
    speaker.want(&everything());
    let rib = |lab: &Lab| {
        lab.ask(&["bgpctl", "-s", socket.to_str().unwrap(), "-j", "show", "rib", "detail"])
    };
    let text = lab.wait_for("both black holes", 30, |lab| {
        Some(rib(lab)).filter(|t| t.contains("203.0.113.7/32") && t.contains("2001:db8:0:1::7/128"))
    });
    assert!(text.contains("BLACKHOLE") && text.contains("NO_EXPORT"), "{text}");
    let status = speaker.wait_established(&lab, "openbgpd");
    assert_eq!(status.families, ["ipv4-unicast", "ipv6-unicast"]);
    let refused = speaker.reports(&lab);
    let refused = refused.iter().filter(|r| matches!(r, Observed::Refused { .. })).count();
    assert_eq!(refused, 15, "each rule is refused, once");
    speaker.want(&[]);
    lab.wait_for("no route", 10, |lab| (!rib(lab).contains("203.0.113.7/32")).then_some(()));
    assert_eq!(speaker.status(&lab, "openbgpd").unwrap().flaps, 0);
}

#[test]
fn graceful_restart_keeps_routes_until_the_next_end_of_rib() {
    let test = "graceful_restart_keeps_routes_until_the_next_end_of_rib";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    start_bird(&mut lab, "", "", "");
    let peer = json!({"name": "bird", "address": "127.0.0.3"});
    let mut first = Speaker::start(&mut lab, "first", std::slice::from_ref(&peer));
    first.want(&everything());
    let count = everything().len();
    lab.wait_for("every route", 20, |lab| (bird_routes(lab).len() == count).then_some(()));
    // kill -9: BIRD keeps all four families, as stale.
    lab.kill(first.pid);
    lab.wait_for("BIRD to see it", 10, |lab| {
        birdc(lab, "show protocols all weir")
            .contains("Neighbor graceful restart active")
            .then_some(())
    });
    assert_eq!(bird_routes(&lab).len(), count);
    // A new weir that does not know yet what it wants: the routes stay.
    let mut second = Speaker::start(&mut lab, "second", std::slice::from_ref(&peer));
    second.wait_established(&lab, "bird");
    assert_eq!(bird_routes(&lab).len(), count);
    second.want(&everything()[..3]);
    lab.wait_for("only what is still wanted", 10, |lab| {
        (bird_routes(lab).len() == 3).then_some(())
    });
    // Stopping with `hold` leaves them too.
    second.say("hold");
    lab.wait_for_end(second.pid, 10);
    assert_eq!(bird_routes(&lab).len(), 3);
    // Without graceful restart they go at once.
    let without = json!({"name": "bird", "address": "127.0.0.3", "graceful_restart_secs": 0});
    let mut third = Speaker::start(&mut lab, "third", &[without]);
    third.want(&everything()[..5]);
    lab.wait_for("five routes", 20, |lab| (bird_routes(lab).len() == 5).then_some(()));
    lab.kill(third.pid);
    lab.wait_for("none", 10, |lab| bird_routes(lab).is_empty().then_some(()));
}

/// BIRD with a key and GTSM, and a speaker with what `extra` makes of the right settings.
fn guarded(test: &str, extra: &Value) -> Option<(Lab, Speaker)> {
    let mut lab = Lab::new(test, &["bird", "birdc", "mkfifo"])?;
    start_bird(&mut lab, " 1", "ttl security on; password \"weir-s3cret\";", "");
    let mut peer = json!({
        "name": "bird", "address": "127.0.0.3", "ttl_security": true, "password": "weir-s3cret",
    });
    for (key, value) in extra.as_object().unwrap() {
        peer[key] = value.clone();
    }
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&holes());
    Some((lab, speaker))
}

#[test]
fn a_session_with_key_and_ttl_comes_up() {
    let test = "a_session_with_key_and_ttl_comes_up";
    let Some((lab, _speaker)) = guarded(test, &json!({})) else { return };
    lab.wait_for("both routes", 20, |lab| (bird_routes(lab).len() == 2).then_some(()));
}

#[test]
fn a_wrong_key_or_ttl_gets_no_session() {
    let test = "a_wrong_key_or_ttl_gets_no_session";
    for extra in
        [json!({"password": "guess"}), json!({"password": null}), json!({"ttl_security": false})]
    {
        let Some((lab, _speaker)) = guarded(test, &extra) else { return };
        // Three attempts' time; the right settings need less than one.
        let deadline = Instant::now() + Duration::from_secs(4);
        lab.wait_for("no session", 30, |lab| {
            assert!(!birdc(lab, "show protocols weir").contains("Established"), "{extra}");
            (Instant::now() > deadline).then_some(())
        });
    }
}

#[test]
fn a_full_peer_is_left_alone() {
    let test = "a_full_peer_is_left_alone";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "mkfifo"]) else { return };
    start_bird(&mut lab, "", "", "import limit 3 action restart;");
    let mut speaker =
        Speaker::start(&mut lab, "speak", &[json!({"name": "bird", "address": "127.0.0.3"})]);
    let holes: Vec<Measure> = (1..=5).map(|n| hole(&format!("203.0.113.{n}/32"))).collect();
    speaker.want(&holes);
    let status = lab.wait_for("the peer's NOTIFICATION", 20, |lab| {
        speaker.status(lab, "bird").filter(|s| s.flaps > 0)
    });
    assert_eq!(
        status.last_error.as_deref(),
        Some("peer sent NOTIFICATION 6/1 maximum number of prefixes reached")
    );
    // No flapping: the next attempt is the better part of a minute away.
    let deadline = Instant::now() + Duration::from_secs(8);
    lab.wait_for("quiet", 10, |lab| {
        assert_eq!(speaker.status(lab, "bird").unwrap().flaps, 1);
        (Instant::now() > deadline).then_some(())
    });
}

#[test]
fn a_peer_may_dial_and_may_ask_again() {
    let test = "a_peer_may_dial_and_may_ask_again";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "tshark", "mkfifo"]) else { return };
    let tshark = records(&mut lab);
    let config = BIRD
        .replace("@MULTIHOP@", "")
        .replace("@EXTRA@", "connect delay time 1; connect retry time 1;")
        .replace("@IPV4@", "")
        .replace("passive yes; ", "")
        .replace("neighbor 127.0.0.1 as", "neighbor 127.0.0.1 port 1791 as");
    let config = lab.write("bird.conf", &config);
    let control = lab.path("bird.ctl");
    lab.spawn(
        "bird",
        &["bird", "-f", "-c", config.to_str().unwrap(), "-s", control.to_str().unwrap()],
    );
    let peer = json!({"name": "bird", "address": "127.0.0.3", "passive": true});
    let mut speaker = Speaker::start(&mut lab, "speak", &[peer]);
    speaker.want(&everything());
    let count = everything().len();
    lab.wait_for("every route", 30, |lab| (bird_routes(lab).len() == count).then_some(()));
    let seen = |lab: &Lab| lab.log("speak").matches("\"announced\"").count();
    let before = lab.wait_for("every report", 5, |lab| Some(seen(lab)).filter(|n| *n >= count));
    birdc(&lab, "reload in weir");
    lab.wait_for("everything once more", 10, |lab| (seen(lab) >= before + count).then_some(()));
    assert_eq!(bird_routes(&lab).len(), count);
    assert_eq!(speaker.status(&lab, "bird").unwrap().flaps, 0);
    lab.signal(tshark, "INT");
}

#[test]
fn a_thousand_rules_come_and_go() {
    let test = "a_thousand_rules_come_and_go";
    let Some(mut lab) = Lab::new(test, &["bird", "birdc", "gobgpd", "gobgp", "mkfifo"]) else {
        return;
    };
    start_bird(&mut lab, "", "", "");
    start_gobgp(&mut lab, "gobgpd");
    let peers = [
        json!({"name": "bird", "address": "127.0.0.3"}),
        json!({"name": "gobgp", "address": "127.0.0.2"}),
    ];
    let mut speaker = Speaker::start(&mut lab, "speak", &peers);
    speaker.wait_established(&lab, "bird");
    speaker.wait_established(&lab, "gobgp");
    let started = Instant::now();
    speaker.want(&many(1000));
    lab.wait_for("1000 rules in BIRD", 20, |lab| {
        birdc(lab, "show route table flowtab4 count").contains("1000 of 1000").then_some(())
    });
    lab.wait_for("1000 rules in GoBGP", 20, |lab| {
        let table = gobgp(lab, &["global", "rib", "-a", "ipv4-flowspec"]);
        (table.lines().filter(|l| l.starts_with("*>")).count() == 1000).then_some(())
    });
    println!("1000 rules in two peers after {:?}", started.elapsed());
    speaker.want(&[]);
    lab.wait_for("none in BIRD", 20, |lab| {
        birdc(lab, "show route table flowtab4 count").contains("0 of 0").then_some(())
    });
    lab.wait_for("none in GoBGP", 20, |lab| {
        let table = gobgp(lab, &["global", "rib", "-a", "ipv4-flowspec"]);
        (table.lines().filter(|l| l.starts_with("*>")).count() == 0).then_some(())
    });
    for peer in ["bird", "gobgp"] {
        assert_eq!(speaker.status(&lab, peer).unwrap().flaps, 0);
    }
}
