//! Attacks that the host answers: queries, and connections that are completed.

use weir_model::Family;

use super::Assault;
use crate::source::Port;
use crate::world::benign::{FAR, NEAR, Opens, goodbye, handshake};
use crate::world::crowd::{Crowd, Population, Step, Talk};

/// A question that needs no address of one's own, answered as far as the host bears it.
fn query(
    a: &mut Assault<'_>,
    name: &str,
    port: u16,
    question: (u16, u16),
    answer: (u16, u16),
    count: (u16, u16),
) {
    let forged = a.draw.chance(0.75);
    let from = if forged {
        Population::Forged
    } else {
        let size = a.draw.count(100, 10_000);
        a.draw.people(f64::from(size))
    };
    let share = if a.draw.chance(0.2) { 0.0 } else { a.bears(1.0) };
    let crowd = Crowd::new(name, 17, a.target.clone(), from)
        .ports(Port::Random(1024, u16::MAX), Port::Fixed(port))
        .arriving(a.rate.clone())
        .between(
            vec![
                Step::to_host((0, 0), question),
                Step::from_host((80, 900), answer).times(count.0, count.1).share(share),
            ],
            Vec::new(),
        );
    a.notes.push(format!(
        "port {port}, {}, answered {share:.2}",
        if forged { "forged" } else { "real senders" }
    ));
    a.add(crowd);
}

/// Source engine queries: each is answered with a challenge.
pub(crate) fn a2s(a: &mut Assault<'_>) {
    let port = a.port(17, &[27_015, 28_015]);
    query(a, "a2s-flood", port, (53, 53), (37, 37), (1, 1));
    a.names(&[Family::UdpFlood]);
}

/// QUIC Initials.
pub(crate) fn quic(a: &mut Assault<'_>) {
    let length = a.draw.pick(&[(1228, 1228), (1228, 1280), (1250, 1250), (1280, 1280)]);
    query(a, "quic-initial-flood", 443, length, (1228, 1280), (1, 3));
    a.names(&[Family::UdpFlood]);
}

/// Names asked of the host.
pub(crate) fn dns(a: &mut Assault<'_>) {
    let shortest = a.draw.short(56, 80);
    query(a, "dns-query-flood", 53, (shortest, shortest + 8), (90, 500), (1, 1));
    a.names(&[Family::DnsFlood, Family::UdpFlood]);
}

/// Registrations or calls.
pub(crate) fn sip(a: &mut Assault<'_>) {
    query(a, "sip-flood", 5060, (380, 640), (320, 520), (1, 1));
    a.names(&[Family::UdpFlood]);
}

fn bots(a: &mut Assault<'_>) -> Population {
    let size = a.draw.count(500, 30_000);
    a.notes.push(format!("{size} bots"));
    a.draw.people(f64::from(size))
}

/// Bots that complete handshakes and say nothing more.
pub(crate) fn connections(a: &mut Assault<'_>) {
    let port = a.port(6, &[443, 80]);
    let from = bots(a);
    let mut steps = handshake(Opens::Peer);
    if a.draw.chance(0.5) {
        steps.extend(goodbye(Opens::Peer));
    }
    // Two or four packets of each come in.
    let crowd = Crowd::new("connection-flood", 6, a.target.clone(), from)
        .ports(Port::Session, Port::Fixed(port))
        .arriving(a.rate.clone().times(0.33))
        .between(steps, Vec::new());
    a.inseparable = true;
    a.names(&[Family::TcpFlood, Family::SynFlood, Family::HttpFlood, Family::Unknown]);
    a.add(crowd);
}

/// Bots that ask for pages.
pub(crate) fn http(a: &mut Assault<'_>) {
    let port = a.port(6, &[443, 80]);
    let from = bots(a);
    let mut steps = handshake(Opens::Peer);
    let packets = a.draw.short(1, 12);
    steps.extend([
        Step::to_host((500, 4_000), (250, 700)).flags(0x18),
        Step::from_host(NEAR, (1500, 1500)).flags(0x10).times(1, packets),
        Step::to_host(FAR, (40, 52)).flags(0x10).times(1, packets / 2 + 1),
    ]);
    steps.extend(goodbye(Opens::Peer));
    let crowd = Crowd::new("http-flood", 6, a.target.clone(), from)
        .ports(Port::Session, Port::Fixed(port))
        .arriving(a.rate.clone().times(0.14))
        .between(steps, Vec::new());
    a.inseparable = true;
    a.names(&[Family::HttpFlood, Family::TcpFlood, Family::SynFlood, Family::Unknown]);
    a.add(crowd);
}

/// Bots that join a game and stay.
pub(crate) fn joins(a: &mut Assault<'_>) {
    let port = a.port(17, &[27_015, 30_120]);
    let from = bots(a);
    let each = a.draw.wide(5.0, 60.0);
    let length = a.draw.short(40, 200);
    let crowd = Crowd::new("bot-joins", 17, a.target.clone(), from)
        .ports(Port::Session, Port::Fixed(port))
        .present(a.rate.clone().times(1.0 / each), 120.0)
        .between(
            vec![
                Step::to_host((0, 0), (40, 80)),
                Step::from_host(NEAR, (40, 300)),
                Step::to_host(FAR, (40, 120)),
            ],
            Vec::new(),
        )
        .talking(
            Talk::new(each, a.draw.lengths(40, length)),
            Talk::new(each, a.draw.lengths(60, 900)),
        );
    a.inseparable = true;
    a.names(&[Family::UdpFlood, Family::Unknown]);
    a.add(crowd);
}
