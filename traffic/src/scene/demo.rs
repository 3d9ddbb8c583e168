//! The demonstration: an evening on a game hosting network, and an attack on one of its servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_model::{Direction, Family, Inventory};

use crate::attack::{Reflector, reflection};
use crate::background::{self, Game};
use crate::encode::template::SamplingStyle;
use crate::exporter::{AgentConfig, CacheConfig, CacheVersion, ExporterSpec, Kind};
use crate::scene::{Attack, Scene, Via};
use crate::source::{Locals, Port, Rate, SECOND_US};

/// Players on the servers, by last octet of their address.
const SERVERS: &[(u8, Game, f64)] = &[
    (7, Game::FiveM, 180.0),
    (8, Game::FiveM, 60.0),
    (10, Game::Minecraft, 250.0),
    (11, Game::Minecraft, 40.0),
    (12, Game::Minecraft, 90.0),
    (20, Game::Rust, 220.0),
    (21, Game::Rust, 150.0),
    (30, Game::Source, 64.0),
    (40, Game::TeamSpeak, 120.0),
    (50, Game::Web, 100.0),
    (53, Game::Dns, 300.0),
];

/// NTP answers a second: 320,000 of 468 octets are 1.2 Gbit/s.
const ATTACK_PPS: f64 = 320_000.0;

impl Scene {
    /// The demonstration: eleven servers in 203.0.113.0/24 and one in 2001:db8:113::/48, eight
    /// quiet seconds, twelve seconds of NTP amplification (1.2 Gbit/s) on the FiveM server
    /// 203.0.113.7, then quiet again; sFlow 1:1000 from one border router, NetFlow v9 1:100 from
    /// another.
    pub fn demo(seed: u64) -> Self {
        Self::evening(seed, 8.0, 12.0, 50.0)
    }

    /// The demonstration with times of one's own, seconds: of peace, then of attack, of the whole. The
    /// attack is the last of [`Scene::sources`].
    pub fn evening(seed: u64, peace: f64, attack: f64, total: f64) -> Self {
        let everywhen = |players| Rate::steady(0.0, total, players);
        let mut services = Vec::new();
        let mut sources = Vec::new();
        for (octet, game, players) in SERVERS {
            let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, *octet));
            services.extend(game.services(address, &format!("{}-{octet}", game.name())));
            sources.extend(background::server(*game, address, &everywhen(*players)));
        }
        let six = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10));
        services.extend(Game::Minecraft.services(six, "minecraft-six"));
        sources.extend(background::server(Game::Minecraft, six, &everywhen(80.0)));
        let hosts = (1..=254).map(|o| IpAddr::V4(Ipv4Addr::new(203, 0, 113, o))).collect();
        sources.push(background::scan_noise(hosts, 0.0, total, 400.0));

        let victim = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
        sources.push(reflection(
            Reflector::Ntp,
            Locals::List(vec![victim]),
            &Port::Fixed(30120),
            Rate::steady(peace, peace + attack, ATTACK_PPS),
        ));
        let us = |secs: f64| crate::rng::whole(secs * SECOND_US as f64);
        let protected = ["203.0.113.0/24", "2001:db8:113::/48"]
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect();
        Self {
            name: "demo".to_owned(),
            seed,
            inventory: Inventory::new(protected, FromIterator::from_iter([]), services),
            exporters: exporters(),
            via: Via::One,
            sources,
            crowds: Vec::new(),
            attacks: vec![Attack {
                target: IpNet::from(victim),
                direction: Direction::Inbound,
                start_us: us(peace),
                end_us: us(peace + attack),
                families: vec![Family::UdpFlood],
                subtypes: vec![Reflector::Ntp.subtype().to_owned()],
                inseparable: false,
            }],
            duration_us: us(total),
            learning_us: us(peace),
            tick_us: 10_000,
            train: 4,
            link_bits_per_sec: 10_000_000_000,
        }
    }
}

fn exporters() -> Vec<ExporterSpec> {
    let spec = |name: &str, last, kind| ExporterSpec {
        name: name.to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
        kind,
        clock_skew_ms: 0,
        faults: Vec::new(),
        inbound_only: false,
    };
    let cache = CacheConfig {
        version: CacheVersion::V9(SamplingStyle::Domain),
        sampling: 100,
        active_us: SECOND_US,
        inactive_us: SECOND_US,
        flush_us: 100_000,
        ..CacheConfig::default()
    };
    vec![
        spec("border-1", 1, Kind::Sflow(AgentConfig::default())),
        spec("border-2", 2, Kind::Cache(cache)),
    ]
}
