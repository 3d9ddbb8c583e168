//! Reflection: answers to questions that the target never asked.

use weir_model::{Family, Fragment};

use super::Assault;
use crate::source::Port;
use crate::world::crowd::{Crowd, Population, Step};

/// A protocol to reflect by: source port, shortest and longest answer, share in fragments.
type Reflector = (&'static str, u16, (u16, u16), f64);

const REFLECTORS: &[Reflector] = &[
    ("ntp", 123, (468, 468), 0.0),
    ("dns", 53, (900, 1500), 0.5),
    ("ssdp", 1900, (290, 420), 0.0),
    ("cldap", 389, (1300, 1500), 0.5),
    ("memcached", 11_211, (1400, 1428), 0.0),
    ("chargen", 19, (600, 1400), 0.0),
    ("snmp", 161, (200, 1400), 0.1),
    ("bacnet", 47_808, (60, 360), 0.0),
    ("dhdiscover", 37_810, (400, 720), 0.0),
    ("isakmp", 500, (120, 420), 0.0),
    ("qotd", 17, (80, 540), 0.0),
    ("rpcbind", 111, (90, 520), 0.0),
    ("netbios", 137, (180, 270), 0.0),
    ("mssql", 1434, (150, 640), 0.0),
    ("ws-discovery", 3702, (600, 1480), 0.2),
    ("arms", 3283, (1030, 1060), 0.0),
    ("coap", 5683, (200, 1100), 0.0),
    ("ubiquiti", 10_001, (150, 240), 0.0),
    ("stun", 3478, (90, 140), 0.0),
    ("steam", 27_015, (200, 1400), 0.0),
    ("quake", 27_960, (400, 1300), 0.0),
    ("plex", 32_414, (280, 340), 0.0),
    ("openvpn", 1194, (42, 100), 0.0),
    ("sip", 5060, (320, 600), 0.0),
    ("tp240", 10_074, (200, 1100), 0.0),
    ("quic", 443, (1200, 1280), 0.0),
    ("l2tp", 1701, (60, 160), 0.0),
    ("tftp", 69, (516, 544), 0.0),
];

fn reflect(a: &mut Assault<'_>, share: f64) {
    let (name, port, (from, to), fragments) = a.draw.pick(REFLECTORS);
    let hosts = a.draw.count(60, 20_000);
    // One length, or all that there are.
    let length = if a.draw.chance(0.3) {
        let one = a.draw.short(from, to);
        (one, one)
    } else {
        (from, to)
    };
    let local = if a.draw.chance(0.5) {
        Port::Random(1024, u16::MAX)
    } else {
        Port::Fixed(a.port(17, &[80, 443, 53, 3074]))
    };
    let spread = Population::Members { size: hosts, nets: hosts, seed: a.draw.bits() };
    let mut opening = vec![Step::to_host((0, 0), length)];
    let rate = a.rate.clone().times(share);
    let mut rate = rate;
    if fragments > 0.0 && a.draw.chance(0.7) {
        opening = vec![
            Step::to_host((0, 0), (1500, 1500)).fragment(Fragment::First),
            Step::to_host((0, 20), (400, 1500)).fragment(Fragment::Later).times(1, 2),
        ];
        rate = rate.times(0.4);
        a.names(&[Family::FragmentFlood]);
    }
    let crowd = Crowd::new(&format!("{name}-reflection"), 17, a.target.clone(), spread)
        .ports(Port::Fixed(port), local)
        .arriving(rate)
        .between(opening, Vec::new());
    a.notes.push(format!("{name}, {hosts} reflectors, {}-{} octets", length.0, length.1));
    a.names(&[Family::UdpFlood]);
    if port == 53 {
        a.names(&[Family::DnsFlood]);
    }
    a.add(crowd);
}

/// One protocol.
pub(crate) fn amplification(a: &mut Assault<'_>) {
    reflect(a, 1.0);
}

/// Two or three at once.
pub(crate) fn mixed(a: &mut Assault<'_>) {
    let number = a.draw.count(2, 3);
    for _ in 0..number {
        reflect(a, 1.0 / f64::from(number));
    }
    a.names(&[Family::MultiVector]);
}

/// SYN-ACKs of servers that were sent SYNs in the target's name; it resets some.
pub(crate) fn syn_ack(a: &mut Assault<'_>) {
    let hosts = a.draw.count(500, 60_000);
    let ports = a.draw.pick(&[[443, 80, 22], [443, 443, 80], [179, 179, 23], [25, 110, 143]]);
    let resets = a.bears(1.0) * a.draw.pick(&[0.0, 0.5, 1.0]);
    let local = if a.draw.chance(0.5) {
        Port::Random(1024, u16::MAX)
    } else {
        Port::Fixed(a.port(6, &[80, 443]))
    };
    let spread = Population::Members { size: hosts, nets: hosts, seed: a.draw.bits() };
    let crowd = Crowd::new("syn-ack-reflection", 6, a.target.clone(), spread)
        .ports(Port::OneOf(ports.to_vec()), local)
        .arriving(a.rate.clone())
        .between(
            vec![
                Step::to_host((0, 0), (44, 60)).flags(0x12),
                Step::from_host((100, 900), (40, 40)).flags(0x04).share(resets),
            ],
            Vec::new(),
        );
    a.notes.push(format!("{hosts} servers, {resets:.2} reset"));
    a.names(&[Family::TcpFlood, Family::SynFlood]);
    a.add(crowd);
}

/// Middleboxes that answer a SYN with a page that blocks.
pub(crate) fn middlebox(a: &mut Assault<'_>) {
    let hosts = a.draw.count(100, 5000);
    let longest = a.draw.short(500, 1500);
    let local = Port::Random(1024, u16::MAX);
    let spread = Population::Members { size: hosts, nets: hosts / 2 + 1, seed: a.draw.bits() };
    let crowd = Crowd::new("middlebox-reflection", 6, a.target.clone(), spread)
        .ports(Port::OneOf(vec![80, 443]), local)
        .arriving(a.rate.clone().times(0.5))
        .between(
            vec![
                Step::to_host((0, 0), (40, 60)).flags(0x14),
                Step::to_host((0, 400), (200, longest)).flags(0x18),
            ],
            Vec::new(),
        );
    a.notes.push(format!("{hosts} middleboxes"));
    a.names(&[Family::TcpFlood]);
    a.add(crowd);
}

/// Random names under the target's zone, by real resolvers.
pub(crate) fn water_torture(a: &mut Assault<'_>) {
    let resolvers = a.draw.count(300, 8000);
    let answered = a.bears(0.9);
    let length = a.draw.short(64, 95);
    let spread = Population::Members { size: resolvers, nets: resolvers, seed: a.draw.bits() };
    let crowd = Crowd::new("water-torture", 17, a.target.clone(), spread)
        .ports(Port::Session, Port::Fixed(53))
        .arriving(a.rate.clone())
        .between(
            vec![
                Step::to_host((0, 0), (length, length + 6)),
                Step::from_host((100, 900), (120, 180)).share(answered),
            ],
            Vec::new(),
        );
    a.notes.push(format!("{resolvers} resolvers, {answered:.2} answered"));
    a.names(&[Family::DnsFlood, Family::UdpFlood]);
    a.add(crowd);
}
