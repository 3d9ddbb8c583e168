//! Web, HTTP/3, mail: short and long connections, opened by clients or by the host.

use super::{ACK, FAR, NEAR, Opens, PUSH, acks, bulk, goodbye, handshake, segments};
use crate::source::{Port, Rate};
use crate::world::crowd::{Crowd, Shape, Step, Talk};
use crate::world::draw::Place;

/// One exchange over TCP: a request, so many packets of answer, their ACKs.
fn exchange(opens: Opens, request: (u16, u16), packets: (u16, u16), size: u16) -> Vec<Step> {
    let mut steps = handshake(opens);
    steps.extend([
        opens.asks((500, 4_000), request).flags(PUSH),
        opens.answers((800, 40_000), (size, size)).flags(ACK).times(packets.0, packets.1),
        opens.asks((5_000, 60_000), (40, 52)).flags(ACK).times(packets.0 / 2, packets.1 / 2 + 1),
    ]);
    steps.extend(goodbye(opens));
    steps
}

/// How many packets of answer: few for interfaces, many for pages.
fn answer_packets(p: &mut Place<'_>) -> (u16, u16) {
    let from = p.draw.short(1, 12);
    (from, from + p.draw.short(0, 40))
}

/// A web server over TCP.
pub(crate) fn tcp(p: &mut Place<'_>) {
    let port = p.draw.pick(&[443, 443, 80, 8080, 8443]);
    p.declare(6, port, "web");
    let packets = answer_packets(p);
    let each = f64::from(packets.0 + packets.1) / 2.0 + 2.0;
    let people = p.peak() / each * p.draw.wide(5.0, 200.0);
    let steps = exchange(Opens::Peer, (180, 900), packets, 1500);
    let crowd = p
        .crowd("web-tcp", 6, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .arriving(p.level.clone().times(1.0 / each))
        .between(steps, Vec::new());
    p.note(format!("port {port}, {:.0} connections/s", p.peak() / each));
    p.add(crowd);
}

/// The opening of a QUIC connection (RFC 9000 §14.1: the client's Initial fills 1,200 octets).
fn quic_opening(opens: Opens) -> Vec<Step> {
    let (first, second) = match opens {
        Opens::Peer => (NEAR, FAR),
        Opens::Host => (FAR, NEAR),
    };
    vec![
        opens.asks((0, 0), (1228, 1280)),
        opens.answers(first, (1228, 1280)).times(2, 4),
        opens.asks(second, (1228, 1280)),
        opens.asks((200, 3_000), (60, 120)).times(1, 2),
    ]
}

/// HTTP/3 with short connections.
pub(crate) fn http3(p: &mut Place<'_>) {
    let port = p.draw.pick(&[443, 443, 443, 8443]);
    p.declare(17, port, "http3");
    let packets = answer_packets(p);
    let each = f64::from(packets.0 + packets.1) / 2.0 + 3.0;
    let people = p.peak() / each * p.draw.wide(5.0, 100.0);
    let mut steps = quic_opening(Opens::Peer);
    steps.extend([
        Step::to_host((500, 5_000), (90, 700)),
        Step::from_host((800, 30_000), (1228, 1400)).times(packets.0, packets.1),
        Step::to_host((2_000, 50_000), (42, 60)).times(packets.0 / 3 + 1, packets.1 / 3 + 1),
    ]);
    let crowd = p
        .crowd("http3", 17, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .arriving(p.level.clone().times(1.0 / each))
        .between(steps, Vec::new());
    p.note(format!("port {port}, {:.0} connections/s", p.peak() / each));
    p.add(crowd);
}

/// HTTP/3 with connections that last: downloads from the host or uploads to it.
pub(crate) fn http3_long(p: &mut Place<'_>) {
    p.declare(17, 443, "http3");
    let each = p.draw.wide(30.0, 1500.0);
    let number = p.peak() / each;
    let people = p.draw.people((number * p.draw.wide(1.5, 20.0)).max(4.0));
    let upload = p.draw.chance(0.35);
    let secs = p.draw.wide(10.0, 300.0);
    let big = vec![Shape::new(0.9, (1320, 1420)), Shape::new(0.1, (60, 1319))];
    let small = vec![Shape::new(1.0, (42, 62))];
    let ratio = p.draw.wide(0.05, 0.5);
    let (inbound, outbound) = if upload {
        (Talk::new(1.0, big), Talk::new(ratio, small))
    } else {
        (Talk::new(ratio, small), Talk::new(1.0, big))
    };
    let crowd = if number < 30.0 {
        let count = p.draw.count(1, 30);
        p.crowd("http3-long", 17, people).load(count, p.level.clone(), secs)
    } else {
        let mut talk = p.crowd("http3-long", 17, people);
        talk = talk.present(p.level.clone().times(1.0 / each), secs);
        talk
    };
    let times = if number < 30.0 { 1.0 } else { each };
    let scaled = |t: Talk| Talk::new(t.packets_per_sec * times, t.shapes);
    let crowd = crowd
        .ports(Port::Session, Port::Fixed(443))
        .between(quic_opening(Opens::Peer), Vec::new())
        .talking(scaled(inbound), scaled(outbound));
    p.note(if upload { "upload".to_owned() } else { "download".to_owned() });
    p.add(crowd);
}

/// Many connections that say little: web sockets, push, chat.
pub(crate) fn websocket(p: &mut Place<'_>) {
    let port = p.draw.pick(&[443, 8883, 5222, 9001]);
    p.declare(6, port, "push");
    let each = p.draw.wide(0.2, 4.0);
    let number = p.level.clone().times(1.0 / each);
    let people = p.peak() / each * p.draw.wide(1.2, 6.0);
    let mut crowd = p
        .crowd("websocket", 6, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .present(number, p.draw.wide(30.0, 1800.0))
        .between(handshake(Opens::Peer), goodbye(Opens::Peer));
    crowd.inbound = Talk::new(each, segments(p.draw.lengths(40, 400)));
    crowd.outbound = Talk::new(each * p.draw.wide(0.5, 1.0), segments(p.draw.lengths(40, 900)));
    p.add(crowd);
}

/// Mail, in and out.
pub(crate) fn mail(p: &mut Place<'_>) {
    p.declare(6, 25, "mail");
    let packets = p.draw.short(4, 60);
    let each = f64::from(packets) + 8.0;
    let servers = p.draw.count(30, 4000);
    for opens in [Opens::Peer, Opens::Host] {
        let mut steps = handshake(opens);
        steps.extend([
            opens.answers((20_000, 200_000), (80, 160)).flags(PUSH),
            opens.asks((5_000, 60_000), (60, 140)).flags(PUSH).times(3, 5),
            opens.answers((5_000, 60_000), (60, 140)).flags(PUSH).times(3, 5),
            opens.asks((5_000, 90_000), (900, 1500)).flags(ACK).times(1, packets),
            opens.answers((5_000, 60_000), (40, 52)).flags(ACK).times(1, packets / 2 + 1),
        ]);
        steps.extend(goodbye(opens));
        let (remote, local) = match opens {
            Opens::Peer => (Port::Session, Port::Fixed(25)),
            Opens::Host => (Port::Fixed(25), Port::Session),
        };
        let crowd = p
            .crowd("mail", 6, p.draw.machines(servers))
            .ports(remote, local)
            .arriving(p.level.clone().times(0.5 / each))
            .between(steps, Vec::new());
        p.add(crowd);
    }
}

/// The host fetches from many servers.
pub(crate) fn crawler(p: &mut Place<'_>) {
    let packets = answer_packets(p);
    let each = f64::from(packets.0 + packets.1) / 2.0 + 2.0;
    let servers = p.draw.count(200, 40_000);
    let ports = p.draw.pick(&[[443, 443], [443, 80], [80, 8080]]);
    let steps = exchange(Opens::Host, (180, 500), packets, 1500);
    let crowd = p
        .crowd("crawler", 6, p.draw.machines(servers))
        .ports(Port::OneOf(ports.to_vec()), Port::Session)
        .arriving(p.level.clone().times(1.0 / each))
        .between(steps, Vec::new());
    p.note(format!("{servers} servers"));
    p.add(crowd);
}

/// A proxy: clients on one side, a few origins on the other.
pub(crate) fn proxy(p: &mut Place<'_>) {
    let level = p.level.clone();
    p.level = level.clone().times(0.5);
    if p.draw.chance(0.5) {
        tcp(p)
    } else {
        http3(p)
    }
    let origins = p.draw.count(1, 12);
    let number = p.draw.count(4, 200);
    let (inbound, outbound) = (Talk::new(1.0, bulk(p.draw)), Talk::new(0.5, acks()));
    let crowd: Crowd = p
        .crowd("origin", 6, p.draw.machines(origins))
        .ports(Port::Fixed(443), Port::Session)
        .load(number, level.clone().times(0.5), 60.0)
        .between(handshake(Opens::Host), goodbye(Opens::Host))
        .talking(inbound, outbound);
    p.level = level;
    p.note(format!("{origins} origins"));
    p.add(crowd);
}

/// Everybody logs in at once.
pub(crate) fn logins(p: &mut Place<'_>) {
    let port = p.draw.pick(&[443, 3724, 5222, 10_443]);
    p.declare(6, port, "login");
    let each = 10.0;
    let mut steps = handshake(Opens::Peer);
    steps.extend([
        Step::to_host((500, 3_000), (180, 620)).flags(PUSH),
        Step::from_host(NEAR, (1300, 1500)).flags(ACK).times(1, 4),
        Step::to_host(FAR, (40, 160)).flags(PUSH).times(2, 4),
        Step::from_host(NEAR, (60, 400)).flags(PUSH).times(1, 3),
    ]);
    steps.extend(goodbye(Opens::Peer));
    let share = p.draw.even(0.5, 1.0);
    let people = p.peak() / each * p.draw.wide(20.0, 400.0);
    let mut rate: Rate = p.level.clone().times(share / each);
    if p.draw.chance(0.3) {
        // A storm has its queue: the server takes so many and lets the rest wait.
        rate = rate.times(0.7);
    }
    let crowd = p
        .crowd("login-storm", 6, p.draw.people(people))
        .ports(Port::Session, Port::Fixed(port))
        .arriving(rate)
        .between(steps, Vec::new());
    p.add(crowd);
}
