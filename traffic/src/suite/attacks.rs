//! Attacks A1 to A26.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_model::{Direction, Family, Fragment};

use crate::attack::{Reflector, reflection, syn_flood, udp_flood};
use crate::background::{self, Game};
use crate::exporter::{Fault, FaultKind};
use crate::source::{Locals, Peers, Port, Rate, Source, Variant};
use crate::suite::Case;
use crate::suite::world::{World, host, six, us};

/// Seconds that most attacks last.
const LAST: f64 = 60.0;
/// Seconds after most attacks, in which they must be seen to end.
const AFTER: f64 = 130.0;

const UDP: &[Family] = &[Family::UdpFlood];
const SYN: &[Family] = &[Family::SynFlood];
const TCP: &[Family] = &[Family::TcpFlood, Family::SynFlood];

/// The cases.
pub(crate) const CASES: &[Case] = &[
    case("A1", "SYN flood in pulses on a Minecraft port", LAST + AFTER, syn_pulses),
    case(
        "A2",
        "SYNs with odd flags on a FiveM port, slow onset, then a jump",
        LAST + AFTER,
        syn_odd,
    ),
    case("A3", "SYN-ACK reflection", LAST + AFTER, syn_ack),
    case("A4", "BACnet and DHDiscover amplification on a FiveM port", LAST + AFTER, bacnet),
    case("A5", "ISAKMP and NAT-T amplification", LAST + AFTER, isakmp),
    case("A6", "SNMP amplification with backscatter", LAST + AFTER, snmp),
    case("A7", "large fragmented DNS answers on a web host", LAST + AFTER, dns_fragments),
    case("A8-ntp", "NTP amplification", LAST + AFTER, ntp),
    case("A8-memcached", "memcached amplification", LAST + AFTER, memcached),
    case("A8-ssdp", "SSDP amplification", LAST + AFTER, ssdp),
    case("A8-cldap", "CLDAP amplification", LAST + AFTER, cldap),
    case("A8-chargen", "CharGEN amplification", LAST + AFTER, chargen),
    case("A9", "UDP flood on random ports", LAST + AFTER, udp_random),
    case("A10", "UDP flood on the game port that imitates the players", LAST + AFTER, imitation),
    case("A11", "large ICMP echo flood", LAST + AFTER, icmp),
    case("A12", "GRE flood", LAST + AFTER, gre),
    case("A13-ack", "ACK flood", LAST + AFTER, ack),
    case("A13-rst", "RST flood", LAST + AFTER, rst),
    case("A14", "DNS query flood", LAST + AFTER, dns_queries),
    case("A15", "HTTP flood over full connections", LAST + AFTER, http),
    case("A16-24", "carpet bombing of a /24", LAST + AFTER, carpet_24),
    case("A16-22", "carpet bombing of a /22, a quarter at a time", LAST + AFTER, carpet_22),
    case("A17", "pulses of 5 s each minute with another vector each", 200.0 + AFTER, pulse_wave),
    case("A18", "slow ramp that doubles each 15 s", 135.0 + AFTER, ramp),
    case("A19", "low flood, twice the normal rate", 150.0 + AFTER, low),
    case("A20", "three vectors at once", LAST + AFTER, multi_vector),
    case("A21-bot", "a protected host floods others", LAST + AFTER, outbound_bot),
    case(
        "A21-memcached",
        "a protected host is abused as an amplifier",
        LAST + AFTER,
        outbound_abuse,
    ),
    case("A22", "attack on a host 20 s after it appeared", LAST + AFTER, new_host),
    case("A23", "attack during a wipe day", LAST + AFTER, wipe_day),
    case("A24", "IPv6 flood with fragment headers", LAST + AFTER, ipv6),
    case("A25", "two hosts behind one link that fills up", LAST + AFTER, two_hosts),
    case("A26", "a third of the exports is lost during the attack", LAST + AFTER, lossy),
];

/// Floods of known strength, to time verdicts by: so many times 20,000 packets a second.
pub(crate) const TIMED: &[Case] = &[
    case("T10", "UDP flood of ten times 20,000 packets a second", 30.0, ten_times),
    case("T2", "UDP flood of twice 20,000 packets a second", 30.0, twice),
    case("T1.2", "UDP flood of 1.2 times 20,000 packets a second", 30.0, a_little_more),
];

const fn case(id: &'static str, title: &'static str, secs: f64, build: fn(&mut World)) -> Case {
    Case { id, title, secs, build }
}

const fn at(address: IpAddr) -> Host {
    Host(address)
}

/// One host as an attack's near end and as its target.
struct Host(IpAddr);

impl Host {
    fn locals(&self) -> Locals {
        Locals::List(vec![self.0])
    }

    fn net(&self) -> IpNet {
        IpNet::from(self.0)
    }
}

/// A reflection of `pps` packets a second on a port of a host.
fn reflect(w: &mut World, kind: Reflector, octet: u8, port: Port, pps: f64, subtypes: &[&str]) {
    let victim = at(host(octet));
    let families: &[Family] = match kind {
        Reflector::Dns => &[Family::DnsFlood, Family::UdpFlood, Family::FragmentFlood],
        Reflector::Cldap => &[Family::UdpFlood, Family::FragmentFlood],
        _ => UDP,
    };
    let index = w.truth(victim.net(), 0.0, LAST, families, subtypes);
    let rate = w.rate(0.0, LAST, pps);
    w.attack(index, reflection(kind, victim.locals(), &port, rate));
}

fn syn_pulses(w: &mut World) {
    let victim = at(host(10));
    let index = w.truth(victim.net(), 0.0, LAST, SYN, &["syn-flood"]);
    // Packets in seconds 0 to 4 of the capture in the StopDDoS collection, then again.
    let mut points = Vec::new();
    let scale = w.around(1.2, 0.2);
    for round in 0..12 {
        for (second, pps) in [23_620.0, 675.0, 0.0, 10_193.0, 2_551.0].into_iter().enumerate() {
            let from = w.t0 + f64::from(round) * 5.0 + second as f64;
            points.extend([(from, pps * scale), (from + 1.0, pps * scale)]);
        }
    }
    w.attack(index, syn_flood(victim.locals(), Port::Fixed(25565), Rate::through(&points)));
}

fn syn_odd(w: &mut World) {
    let victim = at(host(7));
    let index = w.truth(victim.net(), 0.0, LAST, SYN, &["syn-flood", "tcp-odd-flags"]);
    let jump = w.around(60_000.0, 0.2);
    let t = w.t0;
    let rate = Rate::through(&[(t, 500.0), (t + 20.0, 1500.0), (t + 20.0, jump), (t + LAST, jump)]);
    let mut source = syn_flood(victim.locals(), Port::Fixed(30120), rate);
    for variant in &mut source.variants {
        variant.tcp_flags = 0xc2; // SYN, ECE, CWR
    }
    w.attack(index, source);
}

fn syn_ack(w: &mut World) {
    let victim = at(host(21));
    let index = w.truth(victim.net(), 0.0, LAST, TCP, &["syn-ack-reflection"]);
    let rate = w.rate(0.0, LAST, 120_000.0);
    let shape = |port, weight| {
        Variant::tcp(Port::Fixed(port), Port::Random(1024, u16::MAX), (44, 52), 0x12)
            .weighing(weight)
    };
    let variants = vec![shape(80, 0.4), shape(443, 0.5), shape(22, 0.1)];
    let source =
        Source::new("syn-ack-reflection", rate, Peers::Hosts(20_000), victim.locals(), variants);
    w.attack(index, source);
}

fn bacnet(w: &mut World) {
    let subtypes = ["bacnet-amplification", "dhdiscover-amplification"];
    reflect(w, Reflector::BacnetDhdiscover, 7, Port::Fixed(30120), 90_000.0, &subtypes);
}

fn isakmp(w: &mut World) {
    let subtypes = ["isakmp-amplification"];
    reflect(w, Reflector::Isakmp, 20, Port::Fixed(28015), 100_000.0, &subtypes);
}

fn snmp(w: &mut World) {
    reflect(w, Reflector::Snmp, 30, Port::Fixed(27015), 100_000.0, &["snmp-amplification"]);
}

fn dns_fragments(w: &mut World) {
    let subtypes = ["dns-amplification", "fragment-flood"];
    reflect(w, Reflector::Dns, 50, Port::Random(1024, u16::MAX), 120_000.0, &subtypes);
}

fn ntp(w: &mut World) {
    reflect(w, Reflector::Ntp, 7, Port::Fixed(30120), 320_000.0, &["ntp-amplification"]);
}

fn memcached(w: &mut World) {
    reflect(w, Reflector::Memcached, 10, Port::Fixed(80), 180_000.0, &["memcached-amplification"]);
}

fn ssdp(w: &mut World) {
    reflect(w, Reflector::Ssdp, 40, Port::Fixed(9987), 150_000.0, &["ssdp-amplification"]);
}

fn cldap(w: &mut World) {
    let subtypes = ["cldap-amplification", "fragment-flood"];
    reflect(w, Reflector::Cldap, 21, Port::Random(1024, u16::MAX), 120_000.0, &subtypes);
}

fn chargen(w: &mut World) {
    let port = Port::Random(1024, u16::MAX);
    reflect(w, Reflector::Chargen, 11, port, 90_000.0, &["chargen-amplification"]);
}

fn udp_random(w: &mut World) {
    let victim = at(host(20));
    let index = w.truth(victim.net(), 0.0, LAST, UDP, &["udp-flood"]);
    let rate = w.rate(0.0, LAST, 150_000.0);
    let port = Port::Random(1, u16::MAX);
    w.attack(index, udp_flood(victim.locals(), port, (40, 1400), 5000, rate));
}

fn imitation(w: &mut World) {
    let victim = host(20);
    let index = w.truth(IpNet::from(victim), 0.0, LAST, UDP, &[]);
    w.last_truth().inseparable = true;
    let rate = w.rate(0.0, LAST, 120_000.0);
    let variants = background::server(Game::Rust, victim, &rate)[0].variants.clone();
    let locals = Locals::List(vec![victim]);
    w.attack(index, Source::new("imitation", rate, Peers::Hosts(4000), locals, variants));
}

fn icmp(w: &mut World) {
    let victim = at(host(8));
    let index = w.truth(victim.net(), 0.0, LAST, &[Family::IcmpFlood], &["icmp-echo-flood"]);
    let rate = w.rate(0.0, LAST, 60_000.0);
    let variants = vec![Variant::icmp(8, 0, (1000, 1480))];
    let source = Source::new("icmp-flood", rate, Peers::Hosts(3000), victim.locals(), variants);
    w.attack(index, source);
}

fn gre(w: &mut World) {
    let victim = at(host(30));
    let families = [Family::Unknown, Family::UdpFlood];
    let index = w.truth(victim.net(), 0.0, LAST, &families, &["gre-flood"]);
    let rate = w.rate(0.0, LAST, 80_000.0);
    let shape = Variant { protocol: 47, ..Variant::udp(Port::None, Port::None, (530, 560)) };
    let source = Source::new("gre-flood", rate, Peers::Hosts(8000), victim.locals(), vec![shape]);
    w.attack(index, source);
}

fn tcp_flags_flood(w: &mut World, octet: u8, port: u16, flags: u8, name: &str, pps: f64) {
    let victim = at(host(octet));
    let index = w.truth(victim.net(), 0.0, LAST, TCP, &[name]);
    let rate = w.rate(0.0, LAST, pps);
    let shape = Variant::tcp(Port::Random(1024, u16::MAX), Port::Fixed(port), (40, 40), flags);
    let source =
        Source::new(name, rate, Peers::Spoofed, victim.locals(), vec![shape.with_ttl(30, 240)]);
    w.attack(index, source);
}

fn ack(w: &mut World) {
    tcp_flags_flood(w, 10, 25565, 0x10, "ack-flood", 150_000.0);
}

fn rst(w: &mut World) {
    tcp_flags_flood(w, 11, 25565, 0x04, "rst-flood", 100_000.0);
}

fn dns_queries(w: &mut World) {
    let victim = at(host(53));
    let families = [Family::DnsFlood, Family::UdpFlood];
    let index = w.truth(victim.net(), 0.0, LAST, &families, &["dns-query-flood", "udp-flood"]);
    let rate = w.rate(0.0, LAST, 100_000.0);
    // Random labels of one length under one name.
    let shape = Variant::udp(Port::Random(1024, u16::MAX), Port::Fixed(53), (93, 95));
    let source = Source::new("dns-query-flood", rate, Peers::Spoofed, victim.locals(), vec![shape]);
    w.attack(index, source);
}

fn http(w: &mut World) {
    let victim = host(50);
    let families = [Family::HttpFlood, Family::TcpFlood, Family::SynFlood, Family::Unknown];
    let index = w.truth(IpNet::from(victim), 0.0, LAST, &families, &[]);
    w.last_truth().inseparable = true;
    let rate = w.rate(0.0, LAST, 60_000.0);
    let shape = |length, flags, weight| {
        Variant::tcp(Port::Session, Port::Fixed(443), length, flags).weighing(weight)
    };
    let variants = vec![
        shape((60, 60), 0x02, 0.12),
        shape((40, 52), 0x10, 0.5),
        shape((250, 700), 0x18, 0.26),
        shape((40, 52), 0x11, 0.12),
    ];
    let peers = Peers::Sessions { packets_per_sec: 8.0, secs: 1.0, population: 8000 };
    w.attack(index, Source::new("http-flood", rate, peers, Locals::List(vec![victim]), variants));
}

fn carpet(w: &mut World, net: &str, from: f64, to: f64, pps: f64, index: u16) {
    let Ok(net) = net.parse::<IpNet>() else { return };
    let rate = w.rate(from, to, pps);
    let source = udp_flood(Locals::Net(net), Port::Random(1, u16::MAX), (700, 1400), 5000, rate);
    w.attack(index, source);
}

fn carpet_24(w: &mut World) {
    let Ok(net) = "203.0.113.0/24".parse() else { return };
    let index = w.truth(net, 0.0, LAST, UDP, &["udp-flood"]);
    // 256 hosts at 20 Mbit/s each.
    carpet(w, "203.0.113.0/24", 0.0, LAST, 600_000.0, index);
}

fn carpet_22(w: &mut World) {
    let Ok(net) = "198.18.0.0/22".parse() else { return };
    let index = w.truth(net, 0.0, LAST, UDP, &["udp-flood"]);
    for quarter in 0..4u8 {
        let from = f64::from(quarter) * 15.0;
        carpet(w, &format!("198.18.{quarter}.0/24"), from, from + 15.0, 400_000.0, index);
    }
}

fn pulse_wave(w: &mut World) {
    let victim = at(host(7));
    let families = [Family::UdpFlood, Family::SynFlood, Family::MultiVector];
    let index = w.truth(victim.net(), 0.0, 185.0, &families, &[]);
    let pulse = |w: &mut World, start: f64| w.rate(start, start + 5.0, 200_000.0);
    let port = Port::Fixed(30120);
    let rate = pulse(w, 0.0);
    w.attack(index, reflection(Reflector::Ntp, victim.locals(), &port, rate));
    let rate = pulse(w, 60.0);
    w.attack(index, syn_flood(victim.locals(), port.clone(), rate));
    let rate = pulse(w, 120.0);
    w.attack(index, reflection(Reflector::Ssdp, victim.locals(), &port, rate));
    let rate = pulse(w, 180.0);
    w.attack(index, reflection(Reflector::Ntp, victim.locals(), &port, rate));
}

fn ramp(w: &mut World) {
    let victim = at(host(20));
    let index = w.truth(victim.net(), 0.0, 135.0, UDP, &["udp-flood"]);
    let rate = Rate::geometric(w.t0, w.t0 + 135.0, 500.0, 256_000.0);
    w.attack(index, udp_flood(victim.locals(), Port::Fixed(28015), (1000, 1000), 3000, rate));
}

fn low(w: &mut World) {
    let victim = at(host(21));
    let index = w.truth(victim.net(), 0.0, 150.0, UDP, &["udp-flood"]);
    let rate = w.rate(0.0, 150.0, 6000.0);
    w.attack(index, udp_flood(victim.locals(), Port::Fixed(28015), (540, 540), 300, rate));
}

fn multi_vector(w: &mut World) {
    let victim = at(host(7));
    let index = w.truth(victim.net(), 0.0, LAST, &[Family::MultiVector], &[]);
    let port = Port::Fixed(30120);
    let rate = w.rate(0.0, LAST, 100_000.0);
    w.attack(index, reflection(Reflector::Ntp, victim.locals(), &port, rate));
    let rate = w.rate(0.0, LAST, 100_000.0);
    w.attack(index, syn_flood(victim.locals(), port, rate));
    let rate = w.rate(0.0, LAST, 60_000.0);
    let icmp = vec![Variant::icmp(8, 0, (1000, 1480))];
    w.attack(index, Source::new("icmp", rate, Peers::Hosts(3000), victim.locals(), icmp));
}

/// Attack packets of a protected host.
fn outbound(w: &mut World, index: u16, mut source: Source) {
    source.direction = Direction::Outbound;
    w.last_truth().direction = Direction::Outbound;
    w.attack(index, source);
}

fn outbound_bot(w: &mut World) {
    let bot = at(host(8));
    let index = w.truth(bot.net(), 0.0, LAST, UDP, &[]);
    // 300 Mbit/s to one address elsewhere.
    let rate = w.rate(0.0, LAST, 37_000.0);
    let shape = Variant::udp(Port::Random(1, u16::MAX), Port::Session, (1000, 1028));
    let peers = Peers::List(vec![crate::source::public(4711, false)]);
    outbound(w, index, Source::new("bot", rate, peers, bot.locals(), vec![shape]));
}

fn outbound_abuse(w: &mut World) {
    let server = at(host(11));
    let families = [Family::UdpFlood, Family::Unknown];
    let index = w.truth(server.net(), 0.0, LAST, &families, &[]);
    let rate = w.rate(0.0, LAST, 60_000.0);
    let shape = Variant::udp(Port::Random(1024, u16::MAX), Port::Fixed(11211), (1428, 1428));
    let peers = Peers::List((0..5).map(|i| crate::source::public(815 + i, false)).collect());
    outbound(w, index, Source::new("abused memcached", rate, peers, server.locals(), vec![shape]));
}

fn new_host(w: &mut World) {
    let fresh = host(99);
    let players = Rate::through(&[(w.t0, 0.0), (w.t0 + 20.0, 20.0), (w.end, 20.0)]);
    w.server(fresh, Game::FiveM, &players);
    let victim = at(fresh);
    let index = w.truth(victim.net(), 20.0, LAST, UDP, &["ntp-amplification"]);
    let rate = w.rate(20.0, LAST, 200_000.0);
    w.attack(index, reflection(Reflector::Ntp, victim.locals(), &Port::Fixed(30120), rate));
}

fn wipe_day(w: &mut World) {
    let address = host(20);
    w.remove(address);
    let t = w.t0;
    let players = Rate::through(&[(0.0, 40.0), (t - 120.0, 40.0), (t, 600.0), (w.end, 700.0)]);
    w.server(address, Game::Rust, &players);
    let victim = at(address);
    let index = w.truth(victim.net(), 0.0, LAST, UDP, &["ssdp-amplification"]);
    let rate = w.rate(0.0, LAST, 150_000.0);
    w.attack(index, reflection(Reflector::Ssdp, victim.locals(), &Port::Fixed(28015), rate));
}

fn ipv6(w: &mut World) {
    let victim = at(six());
    let families = [Family::UdpFlood, Family::FragmentFlood];
    let index = w.truth(victim.net(), 0.0, LAST, &families, &["udp-flood", "fragment-flood"]);
    let rate = w.rate(0.0, LAST, 120_000.0);
    let udp = Variant::udp(Port::Random(1024, u16::MAX), Port::Random(1, u16::MAX), (1400, 1400));
    let variants = vec![
        Variant { fragment: Fragment::First, ..udp.clone() },
        Variant::later_fragment(17, (900, 1400)),
        udp,
    ];
    let source = Source::new("udp6", rate, Peers::Hosts(4000), victim.locals(), variants);
    w.attack(index, source);
}

fn two_hosts(w: &mut World) {
    for (octet, pps) in [(10, 600_000.0), (30, 600_000.0)] {
        let victim = at(host(octet));
        let index = w.truth(victim.net(), 0.0, LAST, UDP, &["memcached-amplification"]);
        let rate = w.rate(0.0, LAST, pps);
        let port = Port::Random(1024, u16::MAX);
        w.attack(index, reflection(Reflector::Memcached, victim.locals(), &port, rate));
    }
}

fn lossy(w: &mut World) {
    ntp(w);
    let (from_us, to_us) = (us(w.t0), us(w.t0 + LAST));
    w.scene.exporters[0].faults.push(Fault { from_us, to_us, what: FaultKind::Loss(0.3) });
}

/// A flood on the voice port, which carries 1,800 packets a second in normal times.
fn timed(w: &mut World, packets_per_sec: f64) {
    let victim = at(host(40));
    let index = w.truth(victim.net(), 0.0, 20.0, UDP, &[]);
    let rate = Rate::steady(w.t0, w.t0 + 20.0, packets_per_sec);
    w.attack(index, udp_flood(victim.locals(), Port::Fixed(9987), (700, 900), 5000, rate));
}

fn ten_times(w: &mut World) {
    timed(w, 200_000.0);
}

fn twice(w: &mut World) {
    timed(w, 40_000.0);
}

fn a_little_more(w: &mut World) {
    timed(w, 24_000.0);
}
