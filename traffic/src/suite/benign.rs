//! Ordinary days B1 to B20 that simple detectors take for attacks.

use std::net::IpAddr;

use weir_model::Fragment;

use crate::background::{Game, scan_noise, transfer};
use crate::exporter::{Fault, FaultKind, Kind};
use crate::scene::Via;
use crate::source::{Locals, Peers, Port, Rate, SECOND_US, Source, Variant, public};
use crate::suite::Case;
use crate::suite::world::{World, host, us};

/// The cases.
pub(crate) const CASES: &[Case] = &[
    case("B1", "Rust wipe: 40 to 900 players in two minutes", 300.0, wipe),
    case("B2", "Minecraft release: a storm of server list pings", 240.0, ping_storm),
    case("B3", "flash crowd on a web host", 240.0, flash_crowd),
    case("B4-in", "backup to a protected host, 400 Mbit/s", 180.0, backup_in),
    case("B4-out", "backup from a protected host, 400 Mbit/s", 180.0, backup_out),
    case("B5", "a new server fills up", 300.0, new_server),
    case("B6", "speed test, 1 Gbit/s for 15 s", 120.0, speed_test),
    case("B7", "DNS resolver with large answers, four times its usual load", 180.0, resolver),
    case("B8", "a server downloads a game update", 180.0, update),
    case("B9", "an audio stream reported as one flow at its end", 180.0, audio),
    case("B10", "steady 200 Mbit/s with an active timeout of 60 s", 300.0, steady),
    case("B11", "a second router begins to report the same flows", 180.0, duplicate),
    case("B12", "exporter restarts with another sampling rate and late templates", 240.0, restart),
    case("B13", "VoIP registrations in a storm", 180.0, registrations),
    case("B14", "NTP server", 180.0, time_server),
    case("B15", "QUIC and WireGuard gateway, three times its usual load", 180.0, gateway),
    case("B16", "VPN whose packets are fragmented", 180.0, fragmenting_vpn),
    case("B17", "scans of the whole network", 180.0, scans),
    case("B18", "a cache refills from its origin, 600 Mbit/s", 180.0, refill),
    case("B19", "exporter's clock is 90 s ahead", 180.0, skew),
    case("B20", "300 idle and 1,000 busy hosts for a day", 86_400.0, day),
];

const fn case(id: &'static str, title: &'static str, secs: f64, build: fn(&mut World)) -> Case {
    Case { id, title, secs, build }
}

fn wipe(w: &mut World) {
    let address = host(20);
    w.remove(address);
    let (t, peak) = (w.t0, w.around(900.0, 0.2));
    let players = Rate::through(&[(0.0, 40.0), (t, 40.0), (t + 120.0, peak), (w.end, peak)]);
    w.server(address, Game::Rust, &players);
}

fn ping_storm(w: &mut World) {
    let rate = Rate::through(&[
        (w.t0, 200.0),
        (w.t0 + 20.0, w.around(9000.0, 0.2)),
        (w.t0 + 120.0, 6000.0),
        (w.end, 500.0),
    ]);
    let shape = |length, flags, weight| {
        Variant::tcp(Port::Session, Port::Fixed(25565), length, flags).weighing(weight)
    };
    let variants = vec![
        shape((52, 52), 0x02, 0.06),
        shape((60, 60), 0x02, 0.06),
        shape((64, 64), 0x02, 0.03),
        shape((40, 52), 0x10, 0.45),
        shape((60, 120), 0x18, 0.25),
        shape((40, 52), 0x11, 0.15),
    ];
    let peers = Peers::Sessions { packets_per_sec: 8.0, secs: 1.0, population: 100_000 };
    let locals = Locals::List(vec![host(10)]);
    let pings = Source::new("pings", rate, peers, locals, variants);
    let answers = pings
        .answered(1.2, vec![Variant::tcp(Port::Session, Port::Fixed(25565), (40, 1500), 0x18)]);
    w.add(pings);
    w.add(answers);
}

fn flash_crowd(w: &mut World) {
    let address = host(50);
    w.remove(address);
    let (t, peak) = (w.t0, w.around(1800.0, 0.2));
    let clients = Rate::through(&[(0.0, 100.0), (t, 100.0), (t + 60.0, peak), (w.end, peak)]);
    w.server(address, Game::Web, &clients);
}

/// The far end of a transfer.
fn elsewhere(number: u64) -> IpAddr {
    public(number, false)
}

fn backup_in(w: &mut World) {
    let rate = w.rate(0.0, 120.0, 33_000.0);
    for source in transfer("backup", elsewhere(1), host(8), 22, rate) {
        w.add(source);
    }
}

fn backup_out(w: &mut World) {
    let rate = w.rate(0.0, 120.0, 33_000.0);
    for mut source in transfer("backup", elsewhere(2), host(8), 22, rate) {
        // The heavy direction is the way out.
        source.direction = match source.direction {
            weir_model::Direction::Inbound => weir_model::Direction::Outbound,
            weir_model::Direction::Outbound => weir_model::Direction::Inbound,
        };
        w.add(source);
    }
}

fn new_server(w: &mut World) {
    let address = host(98);
    let peak = w.around(300.0, 0.2);
    let players = Rate::through(&[(w.t0, 0.0), (w.t0 + 180.0, peak), (w.end, peak)]);
    w.server(address, Game::FiveM, &players);
}

fn speed_test(w: &mut World) {
    let rate = w.rate(0.0, 15.0, 83_000.0);
    for source in transfer("speed test", elsewhere(3), host(11), 8080, rate) {
        w.add(source);
    }
}

fn resolver(w: &mut World) {
    let base = 800.0;
    let t = w.t0;
    let peak = w.around(4.0 * base, 0.1);
    let rate = Rate::through(&[(0.0, base), (t, base), (t + 20.0, peak), (w.end, peak)]);
    let locals = Locals::List(vec![host(53)]);
    let answer = |length| Variant::udp(Port::Fixed(53), Port::Random(1024, u16::MAX), length);
    let variants = vec![
        answer((90, 500)).weighing(0.6),
        answer((501, 1400)).weighing(0.3),
        Variant { fragment: Fragment::First, ..answer((1500, 1500)) }.weighing(0.05),
        Variant::later_fragment(17, (200, 1400)).weighing(0.05),
    ];
    let answers = Source::new("upstream answers", rate, Peers::Hosts(300), locals, variants);
    let queries = answers
        .answered(1.0, vec![Variant::udp(Port::Fixed(53), Port::Random(1024, u16::MAX), (60, 90))]);
    w.add(answers);
    w.add(queries);
}

fn update(w: &mut World) {
    for (number, port) in [(4, 443), (5, 80), (6, 27030)] {
        let rate = w.rate(0.0, 120.0, 2800.0);
        for source in transfer(&format!("update {port}"), elsewhere(number), host(21), port, rate) {
            w.add(source);
        }
    }
}

fn audio(w: &mut World) {
    let end = w.t0 + 60.0;
    let shape = Variant::udp(Port::Fixed(8000), Port::Fixed(8000), (172, 172));
    let peers = Peers::List(vec![elsewhere(7)]);
    let rate = Rate::steady(0.0, end, 1500.0);
    w.add(Source::new("audio", rate, peers, Locals::List(vec![host(40)]), vec![shape]));
    if let Kind::Cache(cache) = &mut w.scene.exporters[0].kind {
        cache.active_us = 24 * 3600 * SECOND_US;
    }
}

fn steady(w: &mut World) {
    let rate = Rate::steady(0.0, w.end, 16_667.0);
    for source in transfer("steady transfer", elsewhere(8), host(8), 443, rate) {
        w.add(source);
    }
}

fn duplicate(w: &mut World) {
    w.scene.via = Via::All;
    let mut second = w.feed.exporter("border-2", 2);
    let to_us = us(w.t0);
    second.faults.push(Fault { from_us: 0, to_us, what: FaultKind::Loss(1.0) });
    w.scene.exporters.push(second);
}

fn restart(w: &mut World) {
    let from_us = us(w.t0);
    let to_us = from_us + 20 * SECOND_US;
    let exporter = &mut w.scene.exporters[0];
    let rate = if exporter.sampling() == 1 { 1 } else { exporter.sampling() / 4 };
    exporter.faults.extend([
        Fault { from_us, to_us, what: FaultKind::Restart },
        Fault { from_us, to_us, what: FaultKind::Sampling(rate) },
        Fault { from_us, to_us, what: FaultKind::NoTemplates },
    ]);
}

fn registrations(w: &mut World) {
    w.declare(host(41), 17, 5060, "voip");
    let (t, peak) = (w.t0, w.around(9000.0, 0.2));
    let rate = Rate::through(&[
        (0.0, 600.0),
        (t, 600.0),
        (t + 3.0, peak),
        (t + 60.0, peak / 2.0),
        (w.end, 600.0),
    ]);
    let peers = Peers::Sessions { packets_per_sec: 1.0, secs: 120.0, population: 10_000 };
    let shape = Variant::udp(Port::Fixed(5060), Port::Fixed(5060), (380, 620));
    let locals = Locals::List(vec![host(41)]);
    let storm = Source::new("registrations", rate, peers, locals, vec![shape]);
    let answer = Variant::udp(Port::Fixed(5060), Port::Fixed(5060), (300, 520));
    let answers = storm.answered(1.0, vec![answer]);
    w.add(storm);
    w.add(answers);
}

fn time_server(w: &mut World) {
    w.declare(host(123), 17, 123, "ntp");
    let base = w.around(3000.0, 0.2);
    let (t, end) = (w.t0, w.end);
    // Clients ask at full hours.
    let rate = Rate::through(&[
        (0.0, base),
        (t, base),
        (t + 1.0, 4.0 * base),
        (t + 10.0, 2.0 * base),
        (end, base),
    ]);
    let shape = |remote| Variant::udp(remote, Port::Fixed(123), (76, 76));
    let variants = vec![
        shape(Port::Fixed(123)).weighing(0.4),
        shape(Port::Random(1024, u16::MAX)).weighing(0.6),
    ];
    let locals = Locals::List(vec![host(123)]);
    let asks = Source::new("time queries", rate, Peers::Hosts(40_000), locals, variants.clone());
    let answers = asks.answered(1.0, variants);
    w.add(asks);
    w.add(answers);
}

fn gateway(w: &mut World) {
    let address = host(60);
    for port in [443, 51_820, 4500] {
        w.declare(address, 17, port, "vpn");
        let base = 2000.0;
        let peak = w.around(3.0 * base, 0.1);
        let t = w.t0;
        let rate = Rate::through(&[(0.0, base), (t, base), (t + 30.0, peak), (w.end, peak)]);
        let shape = |length, weight| {
            Variant::udp(Port::Session, Port::Fixed(port), length).weighing(weight)
        };
        let variants = vec![shape((80, 200), 0.4), shape((1200, 1452), 0.6)];
        let peers = Peers::Sessions { packets_per_sec: 150.0, secs: 900.0, population: 500 };
        let locals = Locals::List(vec![address]);
        let inbound = Source::new(&format!("tunnel {port}"), rate, peers, locals, variants.clone());
        let back = inbound.answered(1.0, variants);
        w.add(inbound);
        w.add(back);
    }
}

fn fragmenting_vpn(w: &mut World) {
    let address = host(61);
    w.declare(address, 17, 1194, "vpn");
    let (t, peak) = (w.t0, w.around(5000.0, 0.1));
    let rate = Rate::through(&[(0.0, 1500.0), (t, 1500.0), (t + 30.0, peak), (w.end, peak)]);
    let udp = Variant::udp(Port::Session, Port::Fixed(1194), (1500, 1500));
    let variants = vec![
        Variant { fragment: Fragment::First, ..udp.clone() },
        Variant::later_fragment(17, (60, 120)),
        Variant { length: (80, 300), ..udp },
    ];
    let peers = Peers::Sessions { packets_per_sec: 300.0, secs: 900.0, population: 20 };
    let locals = Locals::List(vec![address]);
    let inbound = Source::new("fragmenting vpn", rate, peers, locals, variants.clone());
    let back = inbound.answered(1.0, variants);
    w.add(inbound);
    w.add(back);
}

fn scans(w: &mut World) {
    let all: Vec<IpAddr> = (0..=255).map(host).collect();
    let rate = w.around(8000.0, 0.2);
    w.add(scan_noise(all, w.t0, w.t0 + 60.0, rate));
}

fn refill(w: &mut World) {
    let rate = w.rate(0.0, 60.0, 50_000.0);
    let shape = Variant::tcp(Port::Fixed(443), Port::Session, (1500, 1500), 0x10);
    let peers = Peers::List((10..30).map(elsewhere).collect());
    let locals = Locals::List(vec![host(50)]);
    let inbound = Source::new("refill", rate, peers, locals, vec![shape]);
    let acks =
        inbound.answered(0.5, vec![Variant::tcp(Port::Fixed(443), Port::Session, (40, 52), 0x10)]);
    w.add(inbound);
    w.add(acks);
}

fn skew(w: &mut World) {
    for exporter in &mut w.scene.exporters {
        exporter.clock_skew_ms = 90_000;
    }
}

/// A day's load by hour, relative to its mean.
const DAY: [f64; 25] = [
    0.7, 0.5, 0.4, 0.3, 0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8,
    2.0, 2.0, 1.8, 1.4, 1.0, 0.7,
];

fn day(w: &mut World) {
    // A day of a thousand packets in ten thousand is drawn coarsely; seconds are fine enough.
    w.scene.tick_us = 500_000;
    w.scene.train = 500;
    let Ok(net) = "198.18.0.0/22".parse::<ipnet::IpNet>() else { return };
    let busy: Vec<IpAddr> = net.hosts().take(1000).collect();
    // Hosts of 1 to 300 packets a second, in ten groups.
    for (group, hosts) in busy.chunks(100).enumerate() {
        let each = 300.0 / f64::from(1u32 << group);
        let points: Vec<(f64, f64)> = DAY
            .iter()
            .enumerate()
            .map(|(hour, load)| (hour as f64 * 3600.0, load * each * 100.0))
            .chain([(w.end, each * 70.0)])
            .collect();
        let shape = |length, weight| {
            Variant::udp(Port::Session, Port::Fixed(27015), length).weighing(weight)
        };
        let variants = vec![shape((60, 200), 0.8), shape((201, 1200), 0.2)];
        let peers = Peers::Sessions { packets_per_sec: 25.0, secs: 1800.0, population: 20_000 };
        let inbound = Source::new(
            &format!("busy {group}"),
            Rate::through(&points),
            peers,
            Locals::List(hosts.to_vec()),
            variants.clone(),
        )
        .swinging(0.05);
        let back = inbound.answered(1.0, variants);
        w.add(inbound);
        w.add(back);
    }
}
