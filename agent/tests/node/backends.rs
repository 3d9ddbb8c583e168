//! The backends beside nftables, each on a real kernel.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use weir_agent::enforcer::shaper::Shaper;
use weir_agent::enforcer::{self, Backend, Blocked, EnforceError, Enforcer, Program};
use weir_agent::rules::NodeAction;
use weir_model::{Direction, FragmentMatch, Match, Range};

use crate::packet::Packet;
use crate::rules::{attacker, program, rule, udp_rule};
use crate::world::{NODE4, NODE6, PLAYER4, PLAYER6, PORT, World, inside, ip, now};

fn open(world: &World, backend: Backend) -> Box<dyn Enforcer> {
    inside(&world.node, || enforcer::open(backend).unwrap())
}

fn flood(world: &World, dst: &str, count: u32) {
    let over = Duration::from_millis(u64::from(count) / 10);
    world.flood(count, over, |n| Packet::udp(attacker(dst, n), ip(dst), PORT));
}

/// Drops of both families, a limit, and what iptables cannot express.
fn iptables_program() -> Program {
    let mut rules = Vec::new();
    for (id, node) in [("drop4", NODE4), ("drop6", NODE6)] {
        let mut r = udp_rule(id, node, NodeAction::Drop);
        r.packets.src_ports = vec![Range::exact(40_000)];
        rules.push(r);
    }
    let mut fragments = rule("fragments", NODE4, NodeAction::Drop);
    fragments.packets.fragment = Some(FragmentMatch::IsFragment);
    let mut lengths = rule("lengths", NODE4, NodeAction::Drop);
    lengths.packets.lengths = vec![Range::exact(60)];
    let mut cookies = rule("cookies", NODE4, NodeAction::SynProxy { mss: 1460, wscale: 7 });
    cookies.packets.protocols = vec![6];
    cookies.packets.dst_ports = vec![Range::exact(25565)];
    rules.extend([fragments, lengths, cookies]);
    program(rules)
}

fn iptables(test: &str, backend: Backend) {
    let Some(world) = World::new(test) else { return };
    if ["iptables", "ipset"].iter().any(|p| crate::lab::find_program(p).is_none()) {
        crate::skip(test, "not installed: iptables, ipset");
        return;
    }
    if backend == Backend::DockerUser {
        for program in ["iptables", "ip6tables"] {
            world.node.run(&[program, "-N", "DOCKER-USER"]);
            world.node.run(&[program, "-A", "FORWARD", "-j", "DOCKER-USER"]);
        }
    }
    let mut enforcer = open(&world, backend);
    let wanted = iptables_program();
    let applied = inside(&world.node, || enforcer.apply(&wanted, now(), false).unwrap());
    assert_eq!(applied.rules, ["drop4", "drop6"]);
    let refused: Vec<&str> = applied.refused.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!(refused, ["fragments", "lengths", "cookies"], "{:?}", applied.refused);
    for (node, player) in [(NODE4, PLAYER4), (NODE6, PLAYER6)] {
        flood(&world, node, 300);
        assert_eq!(World::play(&world.player(player), node, 5), 5, "{node}");
        assert_eq!(world.take_settled(), 0, "{node}");
    }
    // A new version keeps what was counted.
    inside(&world.node, || enforcer.renew(&wanted, now()).unwrap());
    let counts = inside(&world.node, || enforcer.rule_counts(&wanted).unwrap());
    let dropped: Vec<u64> = counts.iter().map(|c| c.dropped.packets).collect();
    assert_eq!(dropped, [300, 300], "{counts:?}");
    // Somebody flushes everything.
    let table = if backend == Backend::DockerUser { "filter" } else { "raw" };
    world.node.run(&["iptables", "-t", table, "-F"]);
    let gone = inside(&world.node, || enforcer.rule_counts(&wanted));
    assert!(matches!(gone, Err(EnforceError::Gone)), "{gone:?}");
    if backend == Backend::DockerUser {
        world.node.run(&["iptables", "-A", "FORWARD", "-j", "DOCKER-USER"]);
    }
    let mut short = udp_rule("limit", NODE4, NodeAction::RatePackets { packets_per_sec: 100 });
    short.expires = Some(now() + 3000);
    let blocked = Blocked { source: "203.0.113.0/24".parse().unwrap(), until: now() + 60_000 };
    let next = Program { blocked: vec![blocked], ..program(vec![short]) };
    let applied = inside(&world.node, || enforcer.apply(&next, now(), true).unwrap());
    assert_eq!((applied.rules.as_slice(), applied.refused.len()), (&["limit".to_owned()][..], 0));
    flood(&world, NODE4, 1000);
    let passed = world.take_settled();
    assert!((10..=60).contains(&passed), "{passed} of 1000 at 100 a second in a tenth of one");
    world.flood(50, Duration::from_millis(5), |_| Packet::udp(ip("203.0.113.9"), ip(NODE4), PORT));
    let end = Instant::now();
    world.node.wait_for("the kernel's own end of the rule", 10, |_| {
        flood(&world, NODE4, 100);
        (world.take_settled() == 100).then_some(())
    });
    assert!(end.elapsed() < Duration::from_secs(8));
    inside(&world.node, || enforcer.clear().unwrap());
    let left = world.node.run(&["iptables-save"]) + &world.node.run(&["ip6tables-save"]);
    assert!(!left.contains("WEIR"), "{left}");
    assert_eq!(world.node.run(&["ipset", "list", "-n"]).trim(), "");
}

#[test]
fn iptables_drops_before_nat_what_it_can_express() {
    iptables("agent iptables", Backend::Iptables);
}

#[test]
fn docker_user_knows_what_packets_were_sent_to_before_nat() {
    iptables("agent DOCKER-USER", Backend::DockerUser);
}

#[test]
fn a_black_hole_is_for_what_is_routed_and_for_sources_that_are_looked_up() {
    let Some(world) = World::new("agent route") else { return };
    world.outside.run(&["ip", "route", "add", "172.18.0.0/16", "via", NODE4]);
    world.node.run(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]);
    let ask = |from: &str, to: &str| World::play(&world.player(from), to, 2);
    assert_eq!(ask(PLAYER4, NODE4), 2);
    let mut enforcer = open(&world, Backend::Route);
    let host = rule("host", "172.18.0.2", NodeAction::Drop);
    let own = rule("own", NODE4, NodeAction::Drop);
    let narrow = udp_rule("narrow", "172.18.0.2", NodeAction::Drop);
    let wanted = program(vec![host, own, narrow]);
    let applied = inside(&world.node, || enforcer.apply(&wanted, now(), false).unwrap());
    let refused: Vec<&str> = applied.refused.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!((applied.rules, refused), (vec!["host".to_owned()], vec!["own", "narrow"]));
    assert_eq!(ask(PLAYER4, NODE4), 0, "the container is behind the black hole");
    let blocked = Blocked { source: "198.51.100.9/32".parse().unwrap(), until: now() + 60_000 };
    let wanted = Program { blocked: vec![blocked], ..program(Vec::new()) };
    inside(&world.node, || enforcer.apply(&wanted, now(), false).unwrap());
    assert_eq!(ask(PLAYER4, NODE4), 0, "blocked");
    // A new agent takes away what a dead one has left.
    drop(open(&world, Backend::Route));
    assert_eq!(ask(PLAYER4, NODE4), 2);
}

#[test]
fn what_is_sent_above_a_limit_in_octets_waits_in_a_queue() {
    let Some(world) = World::new("agent shaping") else { return };
    if crate::lab::find_program("tc").is_none() {
        crate::skip("agent shaping", "not installed: tc");
        return;
    }
    let mut limit = rule("out", "0.0.0.0", NodeAction::RateBytes { bytes_per_sec: 100_000 });
    limit.direction = Direction::Outbound;
    limit.packets = Match::to("0.0.0.0/0".parse().unwrap());
    limit.packets.src = Some(ip(NODE4).into());
    limit.packets.protocols = vec![17];
    let mut ranges = limit.clone();
    ranges.id = "ranges".into();
    ranges.packets.src_ports = vec![Range { from: 1, to: 1000 }];
    let mut shaper = inside(&world.node, || Shaper::open("vn0").unwrap());
    let refused = inside(&world.node, || shaper.apply(&[&limit, &ranges]).unwrap());
    assert_eq!(refused.iter().map(|r| r.rule.as_str()).collect::<Vec<_>>(), ["ranges"]);
    let sink = inside(&world.outside, || UdpSocket::bind("198.51.100.1:9000").unwrap());
    sink.set_nonblocking(true).unwrap();
    let from = inside(&world.node, || UdpSocket::bind((NODE4, 0)).unwrap());
    let start = Instant::now();
    let mut buffer = [0; 2048];
    let (mut sent, mut octets) = (0_u64, 0);
    while start.elapsed() < Duration::from_secs(2) {
        // A megabyte a second, ten times what may leave.
        while u128::from(sent) * 1000 < start.elapsed().as_micros() {
            let _ = from.send_to(&[0; 972], "198.51.100.1:9000");
            sent += 1;
        }
        while let Ok(length) = sink.recv(&mut buffer) {
            octets += length + 28;
        }
        std::hint::spin_loop();
    }
    // The queue's own burst comes on top.
    assert!((150_000..=300_000).contains(&octets), "{octets} octets of {sent} packets");
    inside(&world.node, || shaper.clear().unwrap());
    let left = world.node.run(&["tc", "qdisc", "show", "dev", "vn0"]);
    assert!(!left.contains("htb"), "{left}");
    world.node.run(&[
        "tc", "qdisc", "add", "dev", "vn0", "root", "tbf", "rate", "1gbit", "burst", "64kb",
        "latency", "50ms",
    ]);
    let foreign = inside(&world.node, || Shaper::open("vn0"));
    assert!(foreign.is_err(), "a queue of somebody else's stays");
}
