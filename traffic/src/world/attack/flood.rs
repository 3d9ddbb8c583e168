//! Floods by volume: forged or by bots, on ports in use and on any.

use weir_model::{Family, Fragment};

use super::Assault;
use crate::source::{Locals, Port};
use crate::world::crowd::{Crowd, Growth, Population, Shape, Step, Talk};

/// Forged senders, or a botnet in the access networks of the world.
fn senders(a: &mut Assault<'_>, forged: f64) -> Population {
    if a.draw.chance(forged) {
        a.notes.push("forged".to_owned());
        return Population::Forged;
    }
    let size = a.draw.count(200, 60_000);
    a.notes.push(format!("{size} bots"));
    a.draw.people(f64::from(size))
}

fn local(a: &Assault<'_>, protocol: u8, random: f64, otherwise: &[u16]) -> Port {
    if a.draw.chance(random) {
        Port::Random(1, u16::MAX)
    } else {
        Port::Fixed(a.port(protocol, otherwise))
    }
}

fn add(
    a: &mut Assault<'_>,
    name: &str,
    protocol: u8,
    from: Population,
    to: Port,
    steps: Vec<Step>,
) {
    let forged = from == Population::Forged;
    let mut crowd = Crowd::new(name, protocol, a.target.clone(), from)
        .ports(Port::Random(1024, u16::MAX), to)
        .arriving(a.rate.clone())
        .between(steps, Vec::new());
    if forged && a.draw.chance(0.7) {
        // Generators write what they like there.
        crowd.ttl = (30, 245);
    }
    a.add(crowd);
}

/// SYNs, answered with SYN-ACKs where the port is open and the host bears it.
pub(crate) fn syn(a: &mut Assault<'_>) {
    let from = senders(a, 0.75);
    let to = local(a, 6, 0.2, &[80, 443, 22]);
    let length = a.draw.pick(&[(40, 40), (40, 40), (44, 44), (60, 60), (52, 64), (48, 48)]);
    let flags = a.draw.pick(&[0x02, 0x02, 0x02, 0x02, 0xc2]);
    let open = matches!(to, Port::Fixed(_)) && a.draw.chance(0.7);
    let share = if open { a.bears(1.0) } else { 0.0 };
    let answer = if a.draw.chance(0.8) { 0x12 } else { 0x14 };
    let steps = vec![
        Step::to_host((0, 0), length).flags(flags),
        Step::from_host((80, 900), (40, 60)).flags(answer).share(share),
    ];
    a.notes.push(format!("length {}-{}, answered {share:.2}", length.0, length.1));
    a.names(&[Family::SynFlood, Family::TcpFlood]);
    add(a, "syn-flood", 6, from, to, steps);
}

/// ACK, RST, FIN, PSH or nonsense.
pub(crate) fn flags(a: &mut Assault<'_>) {
    let from = senders(a, 0.7);
    let to = local(a, 6, 0.2, &[80, 443]);
    let flags = a.draw.pick(&[0x10, 0x10, 0x04, 0x11, 0x18, 0x00, 0x29, 0x14]);
    let length = a.draw.pick(&[(40, 40), (40, 40), (52, 52), (40, 1400), (1400, 1500)]);
    let resets = if flags & 0x04 == 0 { a.bears(1.0) * a.draw.even(0.0, 1.0) } else { 0.0 };
    let steps = vec![
        Step::to_host((0, 0), length).flags(flags),
        Step::from_host((80, 900), (40, 40)).flags(0x04).share(resets),
    ];
    a.notes.push(format!("flags {flags:#04x}, {resets:.2} reset"));
    a.names(&[Family::TcpFlood, Family::SynFlood]);
    add(a, "tcp-flags-flood", 6, from, to, steps);
}

/// UDP to a port in use.
pub(crate) fn udp_port(a: &mut Assault<'_>) {
    let from = senders(a, 0.5);
    let to = local(a, 17, 0.0, &[80, 443, 53, 123, 3074]);
    let a1 = a.draw.short(29, 1400);
    let b1 = if a.draw.chance(0.5) { a1 } else { a.draw.short(29, 1500) };
    a.notes.push(format!("length {}-{}", a1.min(b1), a1.max(b1)));
    a.names(&[Family::UdpFlood]);
    add(a, "udp-flood", 17, from, to, vec![Step::to_host((0, 0), (a1.min(b1), a1.max(b1)))]);
}

/// UDP to all ports; closed ones say so as often as the host's limit allows.
pub(crate) fn udp_random(a: &mut Assault<'_>) {
    let from = senders(a, 0.5);
    let a1 = a.draw.short(29, 1400);
    let b1 = if a.draw.chance(0.5) { a1 } else { a.draw.short(29, 1500) };
    let said = (1000.0 / a.rate.highest().max(1000.0)) * a.draw.pick(&[0.0, 1.0]);
    let steps = vec![
        Step::to_host((0, 0), (a1.min(b1), a1.max(b1))),
        Step::from_host((80, 900), (56, 148)).icmp(3, 3).share(said),
    ];
    a.names(&[Family::UdpFlood]);
    add(a, "udp-random-ports", 17, from, Port::Random(1, u16::MAX), steps);
}

/// Parts of packets that never become whole.
pub(crate) fn fragments(a: &mut Assault<'_>) {
    let from = senders(a, 0.5);
    let longest = a.draw.short(200, 1500);
    let protocol = a.draw.pick(&[17, 17, 1]);
    let first = a.draw.chance(0.3);
    let mut steps = vec![Step::to_host((0, 0), (60, longest)).fragment(Fragment::Later)];
    if first {
        steps.insert(0, Step::to_host((0, 0), (1500, 1500)).fragment(Fragment::First));
        a.rate = a.rate.clone().times(0.5);
    }
    a.names(&[Family::FragmentFlood, Family::UdpFlood, Family::IcmpFlood]);
    add(a, "fragment-flood", protocol, from, Port::Random(1, u16::MAX), steps);
}

/// Echo requests that the host answers, or other messages that it does not.
pub(crate) fn icmp(a: &mut Assault<'_>) {
    let from = senders(a, 0.5);
    let (kind, code, back) = a.draw.pick(&[(8, 0, 1.0), (8, 0, 0.0), (3, 3, 0.0), (13, 0, 0.0)]);
    let a1 = a.draw.short(28, 1480);
    let share = back * a.bears(1.0);
    let steps =
        vec![Step::to_host((0, 0), (a1, a1)), Step::from_host((80, 500), (a1, a1)).share(share)];
    a.notes.push(format!("type {kind}, length {a1}, answered {share:.2}"));
    a.names(&[Family::IcmpFlood]);
    add(a, "icmp-flood", 1, from, Port::None, steps);
    if let Some(last) = a.crowds.last_mut() {
        last.icmp = [(kind, code), (0, 0)];
    }
}

/// GRE, ESP, or a protocol that nobody knows.
pub(crate) fn other(a: &mut Assault<'_>) {
    let from = senders(a, 0.4);
    let protocol = a.draw.pick(&[47, 47, 50, 4, 41, 132, 255, 0]);
    let a1 = a.draw.short(40, 1480);
    let b1 = if a.draw.chance(0.6) { a1 } else { a.draw.short(40, 1480) };
    a.notes.push(format!("protocol {protocol}"));
    a.names(&[Family::Unknown, Family::UdpFlood]);
    let steps = vec![Step::to_host((0, 0), (a1.min(b1), a1.max(b1)))];
    add(a, "other-protocol-flood", protocol, from, Port::None, steps);
}

/// A handful of rented machines with all they have.
pub(crate) fn few(a: &mut Assault<'_>) {
    let number = a.draw.count(1, 40);
    let protocol = a.draw.pick(&[17, 17, 6]);
    let from = a.draw.machines(number);
    let to = local(a, protocol, 0.3, &[80, 443]);
    let length = a.draw.pick(&[(1400, 1500), (1000, 1000), (29, 29), (512, 1400)]);
    let flags = if protocol == 6 { a.draw.pick(&[0x02, 0x10, 0x18]) } else { 0 };
    a.notes.push(format!("{number} senders, protocol {protocol}, flags {flags:#04x}"));
    a.names(&[Family::UdpFlood, Family::TcpFlood, Family::SynFlood, Family::Unknown]);
    let shape = vec![Shape::new(1.0, length).flags(flags)];
    let random = matches!(to, Port::Random(..));
    let crowd = Crowd::new("few-senders", protocol, a.target.clone(), from);
    let crowd = if random {
        let step = Step::to_host((0, 0), length).flags(flags);
        crowd.arriving(a.rate.clone()).between(vec![step], Vec::new())
    } else {
        crowd.load(number, a.rate.clone(), 1e6).talking(Talk::new(1.0, shape), Talk::default())
    };
    a.add(crowd.ports(Port::Random(1024, u16::MAX), to));
}

/// What the players send, by others: replayed to the port that has most, unanswered.
pub(crate) fn imitation(a: &mut Assault<'_>) {
    let model = a
        .imitated
        .iter()
        .filter(|c| !c.inbound.shapes.is_empty() && matches!(c.growth, Growth::Present { .. }))
        .max_by(|x, y| x.inbound_at(0).total_cmp(&y.inbound_at(0)))
        .cloned();
    let Some(model) = model else {
        udp_port(a);
        return;
    };
    let from = senders(a, 0.3);
    let target: Locals = a.target.clone();
    let each = model.inbound.packets_per_sec.max(1.0);
    let mut crowd = Crowd::new("imitation", model.protocol, target, from)
        .ports(Port::Session, model.local)
        .present(a.rate.clone().times(1.0 / each), 600.0)
        .talking(Talk::new(each, model.inbound.shapes), Talk::default());
    crowd.skew = model.skew;
    a.inseparable = true;
    a.names(&[Family::UdpFlood, Family::TcpFlood, Family::Unknown]);
    a.add(crowd);
}
