//! Questions and answers: names, time, monitoring, registrations, pings, and those who knock
//! everywhere.

use weir_model::Fragment;

use super::{FAR, NEAR, SYN};
use crate::source::Port;
use crate::world::crowd::Step;
use crate::world::draw::Place;

/// The host asks the world's name servers: each answer was asked for.
pub(crate) fn resolver(p: &mut Place<'_>) {
    let servers = p.draw.count(20, 6000);
    let few = p.draw.chance(0.3);
    let servers = if few { servers.min(4) } else { servers };
    let answers = (p.draw.short(80, 200), p.draw.short(300, 1480));
    let lost = p.draw.even(0.0, 0.15);
    let plain = p
        .crowd("dns-resolver", 17, p.draw.machines(servers))
        .ports(Port::Fixed(53), Port::Session)
        .arriving(p.level.clone().times(0.95))
        .between(
            vec![Step::from_host((0, 0), (56, 96)), Step::to_host(FAR, answers).share(1.0 - lost)],
            Vec::new(),
        );
    // Signed zones answer in two fragments.
    let long = p
        .crowd("dns-resolver-long", 17, p.draw.machines(servers))
        .ports(Port::Fixed(53), Port::Session)
        .arriving(p.level.clone().times(0.05 * p.draw.wide(0.1, 1.0)))
        .between(
            vec![
                Step::from_host((0, 0), (70, 110)),
                Step::to_host(FAR, (1500, 1500)).fragment(Fragment::First),
                Step::to_host((1, 30), (120, 1400)).fragment(Fragment::Later),
            ],
            Vec::new(),
        );
    p.note(format!("{servers} servers"));
    p.add(plain);
    p.add(long);
}

/// The host answers for zones of its own.
pub(crate) fn server(p: &mut Place<'_>) {
    p.declare(17, 53, "dns");
    let resolvers = p.draw.count(50, 30_000);
    let answers = (p.draw.short(90, 200), p.draw.short(250, 1400));
    let crowd = p
        .crowd("dns-server", 17, p.draw.machines(resolvers))
        .ports(Port::Session, Port::Fixed(53))
        .arriving(p.level.clone())
        .between(
            vec![Step::to_host((0, 0), (56, 100)), Step::from_host(NEAR, answers)],
            Vec::new(),
        );
    p.note(format!("{resolvers} resolvers"));
    p.add(crowd);
}

/// A time server.
pub(crate) fn time_server(p: &mut Place<'_>) {
    p.declare(17, 123, "ntp");
    let clients = p.draw.people(p.peak() * p.draw.wide(10.0, 200.0));
    let remote = if p.draw.chance(0.4) { Port::Fixed(123) } else { Port::Session };
    let crowd = p
        .crowd("time-server", 17, clients)
        .ports(remote, Port::Fixed(123))
        .arriving(p.level.clone())
        .between(
            vec![Step::to_host((0, 0), (76, 76)), Step::from_host(NEAR, (76, 76))],
            Vec::new(),
        );
    p.add(crowd);
}

/// The host asks devices how they are: SNMP, or another protocol that reflectors speak, too.
pub(crate) fn poller(p: &mut Place<'_>) {
    let (port, question, answer) = p.draw.pick(&[
        (161, (70, 110), (90, 1400)),
        (161, (70, 110), (90, 1400)),
        (623, (50, 80), (60, 120)),
        (47_808, (45, 60), (60, 300)),
        (27_015, (53, 57), (120, 1400)),
        (5683, (40, 80), (60, 600)),
    ]);
    let devices = p.draw.count(10, 8000);
    let crowd = p
        .crowd("poller", 17, p.draw.machines(devices))
        .ports(Port::Fixed(port), Port::Session)
        .arriving(p.level.clone())
        .between(
            vec![Step::from_host((0, 0), question), Step::to_host(FAR, answer).share(0.97)],
            Vec::new(),
        );
    p.note(format!("port {port}, {devices} devices"));
    p.add(crowd);
}

/// Pings, in and out, answered.
pub(crate) fn pings(p: &mut Place<'_>) {
    let monitors = p.draw.count(2, 400);
    let length = p.draw.pick(&[28, 60, 84, 84, 1028]);
    let echo = |icmp| {
        (
            vec![Step::to_host((0, 0), (length, length)), Step::from_host(NEAR, (length, length))],
            icmp,
        )
    };
    let (steps, icmp) = echo([(8, 0), (0, 0)]);
    let mut asked = p
        .crowd("pings", 1, p.draw.machines(monitors))
        .ports(Port::None, Port::None)
        .arriving(p.level.clone().times(0.6))
        .between(steps, Vec::new());
    asked.icmp = icmp;
    let mut asks = p
        .crowd("pings-out", 1, p.draw.machines(monitors))
        .ports(Port::None, Port::None)
        .arriving(p.level.clone().times(0.4))
        .between(
            vec![
                Step::from_host((0, 0), (length, length)),
                Step::to_host(FAR, (length, length)).share(0.95),
            ],
            Vec::new(),
        );
    asks.icmp = [(0, 0), (8, 0)];
    p.add(asked);
    p.add(asks);
}

/// Telephones register, are challenged, register again.
pub(crate) fn registrar(p: &mut Place<'_>) {
    p.declare(17, 5060, "voip");
    let phones = p.draw.people(p.peak() * p.draw.wide(10.0, 200.0));
    let remote = if p.draw.chance(0.5) { Port::Fixed(5060) } else { Port::Session };
    let crowd = p
        .crowd("sip-registrar", 17, phones)
        .ports(remote, Port::Fixed(5060))
        .arriving(p.level.clone().times(0.5))
        .between(
            vec![
                Step::to_host((0, 0), (380, 620)),
                Step::from_host(NEAR, (320, 520)),
                Step::to_host(FAR, (480, 760)),
                Step::from_host(NEAR, (300, 520)),
            ],
            Vec::new(),
        );
    p.add(crowd);
}

/// Scanners: a packet to a port, mostly refused or left without answer.
pub(crate) fn scans(p: &mut Place<'_>) {
    let scanners = p.draw.count(20, 3000);
    let ports = vec![22, 23, 80, 443, 445, 3389, 5060, 8080, 8443];
    let refused = p.draw.even(0.0, 0.8);
    let syn = p
        .crowd("scan-noise", 6, p.draw.machines(scanners))
        .ports(Port::Session, Port::OneOf(ports))
        .arriving(p.level.clone().times(0.75))
        .between(
            vec![
                Step::to_host((0, 0), (40, 44)).flags(SYN),
                Step::from_host(NEAR, (40, 40)).flags(0x14).share(refused),
            ],
            Vec::new(),
        );
    let udp = p
        .crowd("scan-noise-udp", 17, p.draw.machines(scanners))
        .ports(Port::Session, Port::OneOf(vec![53, 123, 161, 1900, 5060]))
        .arriving(p.level.clone().times(0.25))
        .between(
            vec![
                Step::to_host((0, 0), (29, 80)),
                Step::from_host(NEAR, (57, 108)).icmp(3, 3).share(refused * 0.5),
            ],
            Vec::new(),
        );
    p.add(syn);
    p.add(udp);
}
