//! Bulk: backups, updates, cache fills, speed tests, file sharing.

use super::{FAR, NEAR, Opens, acks, bulk, goodbye, handshake, segments};
use crate::source::Port;
use crate::world::crowd::{Shape, Step, Talk};
use crate::world::draw::Place;

/// TCP between the host and a few others, in or out.
pub(crate) fn backup(p: &mut Place<'_>) {
    let peers = p.draw.count(1, 4);
    let number = peers * p.draw.count(1, 12);
    let port = p.draw.pick(&[22, 873, 443, 9102, 8007]);
    let inward = p.draw.chance(0.5);
    let opens = if p.draw.chance(0.5) { Opens::Peer } else { Opens::Host };
    let (remote, local) = match opens {
        Opens::Peer => (Port::Session, Port::Fixed(port)),
        Opens::Host => (Port::Fixed(port), Port::Session),
    };
    let ratio = p.draw.even(0.1, 0.5);
    let (heavy, light) = (bulk(p.draw), acks());
    let (inbound, outbound) = if inward {
        (Talk::new(1.0, heavy), Talk::new(ratio, light))
    } else {
        (Talk::new(ratio, light), Talk::new(1.0, heavy))
    };
    let crowd = p
        .crowd("backup", 6, p.draw.machines(peers))
        .ports(remote, local)
        .load(number, p.level.clone(), 300.0)
        .between(handshake(opens), goodbye(opens))
        .talking(inbound, outbound);
    p.note(format!("{peers} peers, port {port}, {}", if inward { "in" } else { "out" }));
    p.add(crowd);
}

/// Bulk over UDP: UDT, Aspera, QUIC, WireGuard between two machines.
pub(crate) fn udp(p: &mut Place<'_>) {
    let peers = p.draw.count(1, 3);
    let port = if p.draw.chance(0.5) {
        p.draw.pick(&[33_001, 443, 51_820, 4433])
    } else {
        p.draw.high_port()
    };
    let inward = p.draw.chance(0.7);
    let asks = p.draw.chance(0.5);
    let (remote, local) = if asks {
        (Port::Fixed(port), Port::Session)
    } else {
        p.declare(17, port, "transfer");
        (Port::Session, Port::Fixed(port))
    };
    let ratio = p.draw.wide(0.005, 0.5);
    let full = p.draw.short(1320, 1500);
    let heavy = vec![Shape::new(0.98, (full, full)), Shape::new(0.02, (60, full))];
    let light = vec![Shape::new(1.0, (44, 96))];
    let (inbound, outbound) = if inward {
        (Talk::new(1.0, heavy), Talk::new(ratio, light))
    } else {
        (Talk::new(ratio, light), Talk::new(1.0, heavy))
    };
    let number = peers * p.draw.count(1, 4);
    let crowd = p
        .crowd("udp-transfer", 17, p.draw.machines(peers))
        .ports(remote, local)
        .load(number, p.level.clone(), 600.0)
        .talking(inbound, outbound);
    p.note(format!(
        "{peers} peers, port {port}, {}, answered {ratio:.3}",
        if inward { "in" } else { "out" }
    ));
    p.add(crowd);
}

/// The host asks for what it gets: downloads over TCP or QUIC from some servers.
fn download(p: &mut Place<'_>, name: &str, servers: u32, number: u32) {
    let quic = p.draw.chance(0.5);
    let port = if quic { 443 } else { p.draw.pick(&[443, 80, 8080, 27_030]) };
    let ratio = p.draw.wide(0.05, 0.5);
    let secs = p.draw.wide(5.0, 300.0);
    let crowd = p
        .crowd(name, if quic { 17 } else { 6 }, p.draw.machines(servers))
        .ports(Port::Fixed(port), Port::Session)
        .load(number, p.level.clone(), secs);
    let crowd = if quic {
        let full = p.draw.short(1270, 1480);
        crowd
            .between(
                vec![
                    Step::from_host((0, 0), (1228, 1280)),
                    Step::to_host(FAR, (1228, 1280)).times(2, 4),
                    Step::from_host(NEAR, (60, 300)).times(1, 3),
                ],
                Vec::new(),
            )
            .talking(
                Talk::new(1.0, vec![Shape::new(0.97, (full, full)), Shape::new(0.03, (60, full))]),
                Talk::new(ratio, vec![Shape::new(1.0, (42, 70))]),
            )
    } else {
        crowd
            .between(handshake(Opens::Host), goodbye(Opens::Host))
            .talking(Talk::new(1.0, bulk(p.draw)), Talk::new(ratio, acks()))
    };
    let over = if quic { "quic" } else { "tcp" };
    p.note(format!("{over} {port}, {servers} servers, {number} connections"));
    p.add(crowd);
}

/// Everything on the host updates itself.
pub(crate) fn update(p: &mut Place<'_>) {
    let servers = p.draw.count(1, 60);
    let number = servers * p.draw.count(1, 8);
    download(p, "update-day", servers, number);
}

/// A cache that fills from its origins.
pub(crate) fn cache_fill(p: &mut Place<'_>) {
    let servers = p.draw.count(1, 8);
    let number = p.draw.count(2, 400);
    download(p, "cache-fill", servers, number);
}

/// A few seconds as fast as it goes.
pub(crate) fn speed_test(p: &mut Place<'_>) {
    let number = p.draw.count(1, 32);
    let secs = p.draw.even(8.0, 25.0);
    let peak = p.peak();
    p.level = crate::source::Rate::steady(p.at, p.at + secs, peak);
    match p.draw.pick(&[1, 2, 3]) {
        1 => download(p, "speed-test", 1, number),
        2 => backup(p),
        _ => udp(p),
    }
    p.note("speed test".to_owned());
}

/// File sharing over uTP: one port of the host, many peers with one of their own each.
pub(crate) fn bittorrent(p: &mut Place<'_>) {
    let port = p.draw.high_port();
    p.note(format!("port {port}"));
    let inward = p.draw.chance(0.6);
    let each = p.draw.wide(10.0, 150.0);
    let number = p.level.clone().times(1.0 / each);
    let people = p.peak() / each * p.draw.wide(2.0, 30.0) + 20.0;
    let ratio = p.draw.wide(0.3, 1.0);
    let heavy = vec![Shape::new(0.8, (1400, 1480)), Shape::new(0.2, (48, 400))];
    let light = vec![Shape::new(0.9, (48, 62)), Shape::new(0.1, (62, 1480))];
    let (inbound, outbound) = if inward {
        (Talk::new(each, heavy), Talk::new(each * ratio, light))
    } else {
        (Talk::new(each * ratio, light), Talk::new(each, heavy))
    };
    let mut crowd = p
        .crowd("bittorrent", 17, p.draw.people(people))
        .ports(Port::Random(6881, 60_000), Port::Fixed(port))
        .present(number, p.draw.wide(10.0, 180.0))
        .between(
            vec![
                Step::from_host((0, 0), (48, 48)),
                Step::to_host(FAR, (48, 48)),
                Step::from_host(NEAR, (116, 116)),
            ],
            Vec::new(),
        )
        .talking(inbound, outbound);
    crowd.skew = p.draw.even(0.5, 2.5);
    // The distributed hash table: strangers ask and are answered, and the other way round.
    let dht = p
        .crowd("dht", 17, p.draw.people(people * 10.0))
        .ports(Port::Random(6881, 60_000), Port::Fixed(port))
        .arriving(p.level.clone().times(p.draw.wide(0.01, 0.2)))
        .between(
            vec![Step::to_host((0, 0), (110, 160)), Step::from_host(NEAR, (120, 320))],
            Vec::new(),
        );
    p.add(crowd);
    p.add(dht);
}

/// A database and its replicas.
pub(crate) fn replication(p: &mut Place<'_>) {
    let peers = p.draw.count(1, 6);
    let port = p.draw.pick(&[3306, 5432, 27_017, 6379]);
    p.declare(6, port, "database");
    let (a, b) = (segments(p.draw.lengths(60, 1500)), segments(p.draw.lengths(40, 400)));
    let crowd = p
        .crowd("replication", 6, p.draw.machines(peers))
        .ports(Port::Session, Port::Fixed(port))
        .load(peers * p.draw.count(1, 20), p.level.clone(), 600.0)
        .between(handshake(Opens::Peer), goodbye(Opens::Peer))
        .talking(Talk::new(1.0, a), Talk::new(p.draw.wide(0.3, 1.0), b));
    p.add(crowd);
}
