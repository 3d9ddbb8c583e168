//! Conferences, telephony, video: steady streams, some of which hardly anything answers.

use super::{FAR, NEAR};
use crate::source::Port;
use crate::world::crowd::{Shape, Step, Talk};
use crate::world::draw::Place;

/// A conference server that hands on what each sends to all others.
pub(crate) fn conference(p: &mut Place<'_>) {
    let one_port = p.draw.chance(0.5);
    let port = p.draw.pick(&[3478, 10_000, 443, 7882]);
    if one_port {
        p.declare(17, port, "conference");
    } else {
        p.note("a port a participant".to_owned());
    }
    let local = if one_port { Port::Fixed(port) } else { Port::Random(40_000, 60_000) };
    let each = p.draw.wide(20.0, 250.0);
    let back = p.draw.wide(1.0, 8.0);
    let members = p.peak() / (each * back);
    let people = members * p.draw.wide(1.2, 6.0) + 4.0;
    let video = p.draw.even(0.2, 0.9);
    let media =
        |audio: (u16, u16)| vec![Shape::new(video, (900, 1250)), Shape::new(1.0 - video, audio)];
    let number = p.level.clone().times(1.0 / (each * back));
    let mut crowd = p.crowd("conference", 17, p.draw.people(people)).ports(Port::Session, local);
    crowd = if members < 3.0 {
        crowd.load(3, p.level.clone().times(1.0 / back), 900.0)
    } else {
        crowd.present(number, 900.0)
    };
    let times = if members < 3.0 { 1.0 } else { each };
    let crowd = crowd
        .between(
            vec![
                Step::to_host((0, 0), (48, 128)).times(1, 3),
                Step::from_host(NEAR, (60, 132)).times(1, 3),
                Step::to_host(FAR, (150, 900)).times(1, 2),
            ],
            Vec::new(),
        )
        .talking(Talk::new(times, media((80, 180))), Talk::new(times * back, media((80, 180))));
    p.note(format!("{members:.0} members"));
    p.add(crowd);
}

/// Calls: a port for each, as much one way as the other.
pub(crate) fn voip(p: &mut Place<'_>) {
    let each = p.draw.pick(&[50.0, 50.0, 33.3, 100.0]);
    let calls = p.level.clone().times(1.0 / each);
    // A trunk has one far end; subscribers are many.
    let people = if p.draw.chance(0.4) {
        let trunks = p.draw.count(1, 4);
        p.draw.machines(trunks)
    } else {
        let size = p.peak() / each * p.draw.wide(2.0, 20.0);
        p.draw.people(size)
    };
    let length = p.draw.pick(&[60, 200, 200, 214, 172]);
    let shapes = || vec![Shape::new(1.0, (length, length)), Shape::new(0.01, (80, 140))];
    let crowd = p
        .crowd("voip", 17, people)
        .ports(Port::Random(10_000, 30_000), Port::Random(10_000, 20_000))
        .present(calls, p.draw.wide(30.0, 400.0))
        .talking(Talk::new(each, shapes()), Talk::new(each * p.draw.wide(0.5, 1.0), shapes()));
    p.note(format!("length {length}"));
    p.add(crowd);
}

/// Video into the host: SRT and RIST are answered by a few reports, plain RTP by nothing.
pub(crate) fn stream(p: &mut Place<'_>) {
    let senders = p.draw.count(1, 30);
    let port =
        if p.draw.chance(0.4) { p.draw.pick(&[9000, 5004, 1234]) } else { p.draw.high_port() };
    p.declare(17, port, "video");
    let back = p.draw.pick(&[0.0, 0.004, 0.02, 0.05]);
    let length = p.draw.pick(&[1344, 1356, 1360, 1316 + 28 + 12]);
    let crowd = p
        .crowd("stream-in", 17, p.draw.machines(senders))
        .ports(Port::Session, Port::Fixed(port))
        .load(senders, p.level.clone(), 1e6)
        .talking(
            Talk::new(1.0, vec![Shape::new(0.98, (length, length)), Shape::new(0.02, (60, 1300))]),
            Talk::new(back, vec![Shape::new(1.0, (44, 72))]),
        );
    p.note(format!("{senders} senders, answered {back}"));
    p.add(crowd);
}

/// A TURN relay: each client on one port, its peers on ports of the relay.
pub(crate) fn turn(p: &mut Place<'_>) {
    p.declare(17, 3478, "turn");
    let each = p.draw.wide(20.0, 150.0);
    let clients = p.peak() / each;
    let secs = p.draw.wide(30.0, 900.0);
    for (name, local) in
        [("turn-relay", Port::Fixed(3478)), ("relayed", Port::Random(49_152, 65_535))]
    {
        let people = p.draw.people(clients * p.draw.wide(1.5, 10.0) + 4.0);
        let shapes = p.draw.lengths(60, 1250);
        let crowd = p
            .crowd(name, 17, people)
            .ports(Port::Session, local)
            .present(p.level.clone().times(0.5 / each), secs)
            .between(
                vec![Step::to_host((0, 0), (48, 128)), Step::from_host(NEAR, (60, 132))],
                Vec::new(),
            )
            .talking(Talk::new(each, shapes.clone()), Talk::new(each, shapes));
        p.add(crowd);
    }
}
