//! Each kind of rule on packets of both families.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use weir_agent::enforcer::Enforcer as _;
use weir_agent::enforcer::nft::Nft;
use weir_agent::enforcer::{Applied, Blocked, Program, RuleCount};
use weir_agent::protocol::Service;
use weir_agent::rules::{NodeAction, Rule};
use weir_model::{Direction, FragmentMatch, Match, Range};

use crate::packet::Packet;
use crate::world::{NODE4, NODE6, PLAYER4, PLAYER6, PORT, World, inside, ip, now};

pub(crate) fn rule(id: &str, dst: &str, action: NodeAction) -> Rule {
    Rule {
        id: id.into(),
        direction: Direction::Inbound,
        packets: Match::to_host(ip(dst)),
        action,
        spare_learned: false,
        expires: Some(now() + 60_000),
    }
}

pub(crate) fn udp_rule(id: &str, dst: &str, action: NodeAction) -> Rule {
    let mut rule = rule(id, dst, action);
    rule.packets.protocols = vec![17];
    rule.packets.dst_ports = vec![Range::exact(PORT)];
    rule
}

pub(crate) fn program(rules: Vec<Rule>) -> Program {
    let service = |a: &str| Service { address: ip(a), protocol: 17, port: PORT };
    Program {
        version: (1, 1),
        rules,
        lease_until: now() + 60_000,
        services: vec![service(NODE4), service(NODE6)],
        ..Program::default()
    }
}

pub(crate) fn apply(world: &World, program: &Program) -> Applied {
    inside(&world.node, || Nft::open().unwrap().apply(program, now(), false).unwrap())
}

fn counts(world: &World, program: &Program) -> Vec<RuleCount> {
    inside(&world.node, || Nft::open().unwrap().rule_counts(program).unwrap())
}

/// The n-th of many attackers.
pub(crate) fn attacker(dst: &str, n: u32) -> IpAddr {
    match ip(dst) {
        IpAddr::V4(_) => IpAddr::from((0x0a00_0000 + n % 50_000).to_be_bytes()),
        IpAddr::V6(_) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            octets[12..].copy_from_slice(&n.to_be_bytes());
            IpAddr::from(octets)
        }
    }
}

fn flood(world: &World, dst: &str, count: u32, millis: u64) {
    let over = Duration::from_millis(millis);
    world.flood(count, over, |n| Packet::udp(attacker(dst, n), ip(dst), PORT));
}

#[test]
fn drop_hits_the_attack_before_nat_in_both_families_and_spares_the_rest() {
    let Some(world) = World::new("agent drop") else { return };
    let families = [(NODE4, PLAYER4), (NODE6, PLAYER6)];
    for (node, player) in families {
        let socket = world.player(player);
        assert_eq!(World::play(&socket, node, 5), 5, "{node}");
        flood(&world, node, 100, 50);
        assert_eq!(
            world.take_settled(),
            100,
            "the attack arrives when nothing is in force: {node}"
        );
    }
    let mut rules = Vec::new();
    for (i, (node, _)) in families.iter().enumerate() {
        let mut r = udp_rule(&format!("drop{i}"), node, NodeAction::Drop);
        r.packets.src_ports = vec![Range::exact(40_000)];
        rules.push(r);
    }
    let program = program(rules);
    let applied = apply(&world, &program);
    assert_eq!(applied.refused, []);
    assert_eq!(applied.rules, ["drop0", "drop1"]);
    for (node, player) in families {
        let socket = world.player(player);
        flood(&world, node, 500, 100);
        assert_eq!(World::play(&socket, node, 5), 5, "{node}");
        assert_eq!(world.take_settled(), 0, "{node}");
    }
    for count in counts(&world, &program) {
        assert_eq!(count.dropped.packets, 500, "{count:?}");
    }
    let services = inside(&world.node, || Nft::open().unwrap().service_counts().unwrap());
    assert_eq!(services.len(), 2);
    for s in services {
        // Counted from the first application on: 500 of the attack, 5 of the player, who was answered.
        assert_eq!((s.received.packets, s.answered.packets), (505, 5), "{s:?}");
    }
}

#[test]
fn a_rate_is_kept_within_a_tenth() {
    let Some(world) = World::new("agent rate") else { return };
    let rate = NodeAction::RatePackets { packets_per_sec: 1000 };
    apply(&world, &program(vec![udp_rule("r", NODE4, rate), udp_rule("r6", NODE6, rate)]));
    for node in [NODE4, NODE6] {
        flood(&world, node, 20_000, 2000);
        let passed = world.take_settled();
        assert!((1900..=2300).contains(&passed), "{node}: {passed} in two seconds at 1000/s");
    }
}

#[test]
fn a_meter_holds_each_source_and_its_cap_holds_all() {
    let Some(world) = World::new("agent per-source") else { return };
    let meter = NodeAction::PerSource { packets_per_sec: 10, burst: 10, cap_packets_per_sec: 500 };
    let applied = apply(&world, &program(vec![udp_rule("m", NODE4, meter)]));
    assert_eq!(applied.refused, []);
    let over = Duration::from_millis(1000);
    world.flood(2000, over, |_| Packet::udp(ip("10.9.9.9"), ip(NODE4), PORT));
    let one = world.take_settled();
    assert!((15..=30).contains(&one), "one source: {one}");
    flood(&world, NODE4, 20_000, 1000);
    let all = world.take_settled();
    assert!((450..=620).contains(&all), "spoofed sources: {all}");
}

#[test]
fn a_learned_player_is_answered_under_a_flood_that_exhausts_the_cap() {
    let Some(world) = World::new("agent learned") else { return };
    let mut limit = udp_rule("l", NODE4, NodeAction::RatePackets { packets_per_sec: 50 });
    limit.spare_learned = true;
    let mut wanted = program(Vec::new());
    wanted.learn = true;
    apply(&world, &wanted);
    let socket = world.player(PLAYER4);
    // The kernel calls a UDP conversation assured when it has gone both ways for two seconds.
    let learned = world.node.wait_for("the player is learned", 10, |_| {
        World::play(&socket, NODE4, 3);
        let n = inside(&world.node, || Nft::open().unwrap().learned().unwrap());
        (n > 0).then_some(n)
    });
    assert_eq!(learned, 1);
    wanted.rules = vec![limit];
    wanted.version = (1, 2);
    apply(&world, &wanted);
    let (known, stranger) = std::thread::scope(|scope| {
        let attack = scope.spawn(|| flood(&world, NODE4, 40_000, 2000));
        let known = World::play(&socket, NODE4, 40);
        let other = world.player("198.51.100.1");
        let stranger = World::play(&other, NODE4, 5);
        attack.join().unwrap();
        (known, stranger)
    });
    assert_eq!(known, 40, "the player that the node knows");
    assert!(stranger <= 2, "a stranger shares the cap with the attack: {stranger}");
}

#[test]
fn fragments_are_seen_as_fragments() {
    let Some(world) = World::new("agent fragments") else { return };
    let mut fragments = rule("f", NODE4, NodeAction::Drop);
    fragments.packets.fragment = Some(FragmentMatch::IsFragment);
    let mut first = rule("first", NODE4, NodeAction::Accept);
    first.packets.fragment = Some(FragmentMatch::First);
    let program = program(vec![first, fragments]);
    apply(&world, &program);
    let over = Duration::from_millis(50);
    let make =
        |fragment| move |n| Packet { fragment, ..Packet::udp(attacker(NODE4, n), ip(NODE4), PORT) };
    world.flood(100, over, make(0x2000));
    world.flood(300, over, make(0x2008));
    world.flood(200, over, make(0x0010));
    world.flood(50, over, make(0));
    let counts = counts(&world, &program);
    assert_eq!(counts[0].passed.packets, 100, "{counts:?}");
    assert_eq!(counts[1].dropped.packets, 500, "{counts:?}");
}

#[test]
fn blocked_sources_and_prefixes_are_out_and_management_never_is() {
    let Some(world) = World::new("agent blocked") else { return };
    let mut wanted = program(Vec::new());
    let until = now() + 60_000;
    let blocked = |s: &str| Blocked { source: s.parse().unwrap(), until };
    wanted.blocked =
        vec![blocked("198.51.100.9/32"), blocked("fd00:1::9/128"), blocked("10.0.0.0/8")];
    apply(&world, &wanted);
    for (node, player) in [(NODE4, PLAYER4), (NODE6, PLAYER6)] {
        assert_eq!(World::play(&world.player(player), node, 2), 0, "{node}");
    }
    flood(&world, NODE4, 100, 20);
    assert_eq!(world.take_settled(), 0);
    wanted.management = vec!["198.51.100.0/28".parse().unwrap(), "fd00:1::9/128".parse().unwrap()];
    wanted.rules = vec![rule("all", NODE4, NodeAction::Drop)];
    apply(&world, &wanted);
    for (node, player) in [(NODE4, PLAYER4), (NODE6, PLAYER6)] {
        assert_eq!(World::play(&world.player(player), node, 5), 5, "{node}");
    }
}

#[test]
fn a_rule_that_nft_refuses_costs_only_itself() {
    let Some(world) = World::new("agent refusal") else { return };
    let mut wide = rule("wide", NODE4, NodeAction::Drop);
    wide.packets.dst = "198.0.0.0/7".parse().unwrap();
    let mut ports = rule("ports", NODE4, NodeAction::SynProxy { mss: 1460, wscale: 7 });
    ports.packets.protocols = vec![6];
    ports.packets.dst_ports = vec![Range { from: 1, to: 1000 }];
    let good = udp_rule("good", NODE4, NodeAction::Drop);
    let applied = apply(&world, &program(vec![wide, good, ports]));
    let refused: Vec<&str> = applied.refused.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!((applied.rules, refused), (vec!["good".to_owned()], vec!["wide", "ports"]));
}

#[test]
fn syn_cookies_let_players_in_and_keep_the_connection_table_empty() {
    let Some(world) = World::new("agent syn-proxy") else { return };
    let listener = inside(&world.container, || TcpListener::bind("0.0.0.0:25565").unwrap());
    std::thread::spawn(move || {
        // Ends with the test's process.
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"hello");
        }
    });
    let join = || {
        let mut stream = inside(&world.outside, || TcpStream::connect((NODE4, 25565))).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).ok()
    };
    assert_eq!(join(), Some(()));
    let mut rule = rule("syn", NODE4, NodeAction::SynProxy { mss: 1460, wscale: 7 });
    rule.packets.protocols = vec![6];
    rule.packets.dst_ports = vec![Range::exact(25565)];
    assert_eq!(apply(&world, &program(vec![rule])).refused, []);
    let loose = world.node.run(&["sysctl", "-n", "net.netfilter.nf_conntrack_tcp_loose"]);
    assert_eq!(loose.trim(), "0", "the agent sees to it");
    let joined = std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let over = Duration::from_millis(1500);
            world.flood(20_000, over, |n| {
                Packet::syn(attacker(NODE4, n), ip(NODE4), 25565, u16::try_from(1024 + n).unwrap())
            });
        });
        let joined = (0..20).filter(|_| join().is_some()).count();
        attack.join().unwrap();
        joined
    });
    let entries: u32 = world
        .node
        .run(&["sysctl", "-n", "net.netfilter.nf_conntrack_count"])
        .trim()
        .parse()
        .unwrap();
    assert_eq!(joined, 20);
    assert!(entries < 1000, "{entries} entries after 20,000 SYNs");
    // Whoever clears, after a restart too, puts the host's setting back.
    inside(&world.node, || Nft::open().unwrap().clear().unwrap());
    let loose = world.node.run(&["sysctl", "-n", "net.netfilter.nf_conntrack_tcp_loose"]);
    assert_eq!(loose.trim(), "1", "as it was");
}

#[test]
fn the_counters_of_a_rule_go_on_when_its_limit_changes() {
    let Some(world) = World::new("agent counters") else { return };
    let limited = |packets_per_sec| {
        program(vec![udp_rule("r", NODE4, NodeAction::RatePackets { packets_per_sec })])
    };
    let dropped = |program: &Program| counts(&world, program)[0].dropped.packets;
    let first = limited(100);
    apply(&world, &first);
    flood(&world, NODE4, 1000, 200);
    world.settled();
    let before = dropped(&first);
    assert!(before > 800, "{before}");
    let second = limited(400);
    apply(&world, &second);
    assert_eq!(dropped(&second), before);
    flood(&world, NODE4, 1000, 200);
    world.settled();
    assert!(dropped(&second) > before + 500, "{}", dropped(&second));
    apply(&world, &program(Vec::new()));
    let table = world.node.run(&["nft", "list", "counters"]);
    assert!(!table.contains("counter c_"), "{table}");
}
