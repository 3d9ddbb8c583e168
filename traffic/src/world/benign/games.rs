//! Games and voice: many players, small packets both ways, on ports that nobody may have declared.

use super::{ACK, FAR, NEAR, Opens, SYN, goodbye, handshake, segments};
use crate::source::{Port, Rate};
use crate::world::crowd::{Shape, Step, Talk};
use crate::world::draw::Place;

/// A game over UDP.
pub(crate) fn udp(p: &mut Place<'_>) {
    let known = [27_015, 28_015, 30_120, 7_777, 2_302, 9_000, 19_132];
    let port = if p.draw.chance(0.5) { p.draw.pick(&known) } else { p.draw.high_port() };
    p.declare(17, port, "game");
    let each = p.draw.wide(8.0, 70.0);
    let back = p.draw.wide(0.6, 3.0);
    let players = p.peak() / (each * back.max(1.0));
    let people = p.draw.wide(2.0, 40.0) * players + 20.0;
    let secs = p.draw.wide(120.0, 3000.0);
    let mut crowd = p
        .crowd("game-udp", 17, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .present(p.level.clone().times(1.0 / (each * back.max(1.0))), secs);
    let hello = (p.draw.short(33, 60), p.draw.short(60, 600));
    let welcome = (p.draw.short(40, 200), p.draw.short(200, 1300));
    crowd.opening = vec![
        Step::to_host((0, 0), hello),
        Step::from_host(NEAR, welcome).times(1, 3),
        Step::to_host(FAR, hello),
    ];
    let longest = p.draw.short(120, 600);
    crowd.inbound = Talk::new(each, p.draw.lengths(32, longest));
    let longest = p.draw.short(300, 1350);
    crowd.outbound = Talk::new(each * back, p.draw.lengths(50, longest));
    crowd.skew = p.draw.even(0.0, 0.6);
    crowd.swing = p.draw.even(0.0, 0.08);
    p.note(format!("port {port}, {players:.0} players of {each:.0} pkt/s"));
    p.add(crowd);
}

/// A game over TCP.
pub(crate) fn tcp(p: &mut Place<'_>) {
    let port = if p.draw.chance(0.5) { 25_565 } else { p.draw.high_port() };
    p.declare(6, port, "minecraft");
    let each = p.draw.wide(4.0, 25.0);
    let back = p.draw.wide(0.8, 2.5);
    let players = p.peak() / (each * back.max(1.0));
    let people = p.draw.wide(2.0, 30.0) * players + 20.0;
    let secs = p.draw.wide(60.0, 3000.0);
    let mut crowd = p
        .crowd("game-tcp", 6, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .present(p.level.clone().times(1.0 / (each * back.max(1.0))), secs)
        .between(handshake(Opens::Peer), goodbye(Opens::Peer));
    let mut toward = segments(p.draw.lengths(60, 300));
    toward.push(Shape::new(0.8, (40, 52)).flags(ACK));
    crowd.inbound = Talk::new(each, toward);
    crowd.outbound = Talk::new(each * back, segments(p.draw.lengths(60, 1500)));
    crowd.skew = p.draw.even(0.0, 0.5);
    crowd.swing = p.draw.even(0.0, 0.08);
    p.note(format!("port {port}, {players:.0} players"));
    p.add(crowd);
}

/// Server browsers: a query, a challenge, the query again with it, the answer.
pub(crate) fn browser(p: &mut Place<'_>) {
    let port = p.draw.pick(&[27_015, 27_016, 28_015, 2303]);
    p.declare(17, port, "source");
    let per_query = 2.0;
    let people = p.peak() * p.draw.wide(2.0, 60.0);
    let answer = (p.draw.short(120, 400), p.draw.short(400, 1400));
    let crowd = p
        .crowd("server-browser", 17, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .arriving(p.level.clone().times(1.0 / per_query))
        .between(
            vec![
                Step::to_host((0, 0), (53, 53)),
                Step::from_host(NEAR, (37, 37)),
                Step::to_host(FAR, (57, 57)),
                Step::from_host(NEAR, answer),
            ],
            Vec::new(),
        );
    p.add(crowd);
}

/// A voice server: what one says goes to all in the room.
pub(crate) fn voice(p: &mut Place<'_>) {
    let port = if p.draw.chance(0.5) { 9987 } else { p.draw.high_port() };
    p.declare(17, port, "voice");
    let each = p.draw.wide(10.0, 50.0);
    let back = p.draw.wide(1.0, 8.0);
    let members = p.peak() / (each * back);
    let people = p.draw.wide(1.5, 10.0) * members + 10.0;
    let mut crowd = p
        .crowd("voice", 17, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .present(p.level.clone().times(1.0 / (each * back)), 1200.0);
    let longest = p.draw.short(100, 220);
    crowd.opening = vec![
        Step::to_host((0, 0), (62, 62)),
        Step::from_host(NEAR, (48, 60)),
        Step::to_host(FAR, (60, 90)),
    ];
    crowd.inbound = Talk::new(each, p.draw.lengths(43, longest));
    crowd.outbound = Talk::new(each * back, p.draw.lengths(60, longest));
    crowd.skew = p.draw.even(0.5, 2.0);
    p.add(crowd);
}

/// A server crashes; its players knock until it is back, then all come at once.
pub(crate) fn reconnect(p: &mut Place<'_>) {
    let tcp = p.draw.chance(0.6);
    let port = p.draw.high_port();
    let protocol = if tcp { 6 } else { 17 };
    p.declare(protocol, port, "game");
    let each = p.draw.wide(4.0, 40.0);
    let players = (p.peak() / each).max(3.0);
    let (down, back) = (p.draw.wide(2.0, 40.0), p.draw.wide(0.5, 15.0));
    let again = p.at + down;
    let present = Rate::through(&[
        (0.0, players),
        (p.at, players),
        (p.at, 0.0),
        (again, 0.0),
        (again + back, players * 0.9),
        (p.end, players),
    ]);
    let people = p.draw.people(players * p.draw.wide(1.1, 4.0));
    let mut crowd = p
        .crowd("reconnect-rush", protocol, people.clone())
        .ports(Port::Session, Port::Fixed(port))
        .present(present, 1500.0);
    if tcp {
        crowd.opening = handshake(Opens::Peer);
        crowd.inbound = Talk::new(each, segments(p.draw.lengths(40, 300)));
        crowd.outbound = Talk::new(each, segments(p.draw.lengths(40, 1400)));
    } else {
        crowd.opening = vec![
            Step::to_host((0, 0), (40, 120)),
            Step::from_host(NEAR, (40, 400)),
            Step::to_host(FAR, (40, 200)),
        ];
        crowd.inbound = Talk::new(each, p.draw.lengths(40, 300));
        crowd.outbound = Talk::new(each, p.draw.lengths(40, 1200));
    }
    // Each client tries again every second or so; a closed port says so, a dead host says nothing.
    let knocks = Rate::steady(p.at + 0.3, again, players * p.draw.even(0.3, 1.5));
    let mut knock = p
        .crowd("knocks", protocol, people)
        .ports(Port::Session, Port::Fixed(port))
        .arriving(knocks);
    let closed = if p.draw.chance(0.5) { 1.0 } else { 0.0 };
    knock.opening = if tcp {
        vec![
            Step::to_host((0, 0), (52, 64)).flags(SYN),
            Step::from_host(NEAR, (40, 40)).flags(0x14).share(closed),
        ]
    } else {
        vec![
            Step::to_host((0, 0), (40, 120)),
            Step::from_host(NEAR, (68, 148)).icmp(3, 3).share(closed),
        ]
    };
    p.note(format!("port {port}/{protocol}, {players:.0} players, down {down:.0} s"));
    p.add(crowd);
    p.add(knock);
}
