//! The network in which the scenarios happen, and the ways in which it is reported.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_model::{Direction, Family, Inventory, PrefixSet, Service};

use crate::background::{self, Game};
use crate::encode::template::SamplingStyle;
use crate::exporter::{AgentConfig, CacheConfig, CacheVersion, ExporterSpec, Kind};
use crate::rng::{Rng, whole};
use crate::scene::{Attack, Scene, Via};
use crate::source::{Locals, Peers, Port, Rate, SECOND_US, Source, Variant};
use crate::suite::Case;

/// How a case is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feed {
    /// sFlow, one packet in 64.
    Sflow64,
    /// sFlow, one packet in 1000.
    Sflow1000,
    /// NetFlow v5 of every packet, active timeout 60 s, inactive 15 s.
    NetflowV5,
    /// NetFlow v9 of every packet, active timeout 10 s, inactive 5 s.
    NetflowV9,
    /// IPFIX, one packet in 100, active timeout 60 s, inactive 15 s.
    Ipfix,
    /// IPFIX, one packet in 100, every flow exported after a second.
    IpfixSecond,
    /// sFlow of every packet.
    Sflow1,
    /// IPFIX, one packet in 100, active timeout 10 s, inactive 5 s, records without lengths.
    IpfixPlain,
    /// [`Feed::Sflow1000`] of what comes in only.
    Sflow1000In,
    /// [`Feed::Sflow1`] of what comes in only.
    Sflow1In,
    /// [`Feed::IpfixPlain`] of what comes in only.
    IpfixPlainIn,
}

impl Feed {
    /// Those of the suite's fixed cases.
    pub const ALL: [Self; 6] = [
        Self::Sflow64,
        Self::Sflow1000,
        Self::NetflowV5,
        Self::NetflowV9,
        Self::Ipfix,
        Self::IpfixSecond,
    ];

    /// Those of drawn worlds (see [`crate::world`]).
    pub const WORLDS: [Self; 6] = [
        Self::Sflow1000,
        Self::Sflow1,
        Self::IpfixPlain,
        Self::Sflow1000In,
        Self::Sflow1In,
        Self::IpfixPlainIn,
    ];

    /// Stable name.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Sflow64 => "sflow-64",
            Self::Sflow1000 => "sflow-1000",
            Self::NetflowV5 => "netflow-v5",
            Self::NetflowV9 => "netflow-v9",
            Self::Ipfix => "ipfix-100",
            Self::IpfixSecond => "ipfix-100-1s",
            Self::Sflow1 => "sflow-1",
            Self::IpfixPlain => "ipfix-100-10s",
            Self::Sflow1000In => "sflow-1000-in",
            Self::Sflow1In => "sflow-1-in",
            Self::IpfixPlainIn => "ipfix-100-10s-in",
        }
    }

    /// The feed of this name.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::WORLDS).find(|f| f.id() == id)
    }

    /// Whether every packet is reported.
    pub const fn sees_all(self) -> bool {
        matches!(self, Self::NetflowV5 | Self::NetflowV9 | Self::Sflow1 | Self::Sflow1In)
    }

    /// Whether only what comes in is reported.
    pub const fn inbound_only(self) -> bool {
        matches!(self, Self::Sflow1000In | Self::Sflow1In | Self::IpfixPlainIn)
    }

    /// Packets that ordinary sources send at once: well below the sampling interval, so that
    /// trains do not show in the samples.
    pub(crate) const fn train(self) -> u32 {
        match self {
            Self::Sflow64
            | Self::Ipfix
            | Self::IpfixSecond
            | Self::IpfixPlain
            | Self::IpfixPlainIn => 8,
            Self::Sflow1000 | Self::Sflow1000In => 32,
            Self::NetflowV5 | Self::NetflowV9 => 4,
            Self::Sflow1 | Self::Sflow1In => 1,
        }
    }

    /// Packets that an attack sends at once. A cache that sees every packet must see spoofed ones
    /// singly, or one flow would hold what are many.
    const fn attack_train(self) -> u32 {
        match self {
            Self::Sflow64 => 8,
            Self::Sflow1000 | Self::Sflow1000In => 32,
            Self::Ipfix | Self::IpfixSecond | Self::IpfixPlain | Self::IpfixPlainIn => 4,
            Self::NetflowV5 | Self::NetflowV9 | Self::Sflow1 | Self::Sflow1In => 1,
        }
    }

    /// An exporter of this kind.
    pub fn exporter(self, name: &str, last_octet: u8) -> ExporterSpec {
        let cache = |version, sampling, active_secs, inactive_secs| {
            Kind::Cache(CacheConfig {
                version,
                sampling,
                active_us: active_secs * SECOND_US,
                inactive_us: inactive_secs * SECOND_US,
                ..CacheConfig::default()
            })
        };
        let kind = match self {
            Self::Sflow64 => Kind::Sflow(AgentConfig { rate: 64, ..AgentConfig::default() }),
            Self::Sflow1000 | Self::Sflow1000In => Kind::Sflow(AgentConfig::default()),
            Self::Sflow1 | Self::Sflow1In => {
                Kind::Sflow(AgentConfig { rate: 1, ..AgentConfig::default() })
            }
            Self::IpfixPlain | Self::IpfixPlainIn => Kind::Cache(CacheConfig {
                version: CacheVersion::Ipfix(SamplingStyle::Selector),
                sampling: 100,
                active_us: 10 * SECOND_US,
                inactive_us: 5 * SECOND_US,
                extremes: false,
                ..CacheConfig::default()
            }),
            Self::NetflowV5 => cache(CacheVersion::V5, 1, 60, 15),
            Self::NetflowV9 => cache(CacheVersion::V9(SamplingStyle::None), 1, 10, 5),
            Self::Ipfix => cache(CacheVersion::Ipfix(SamplingStyle::Selector), 100, 60, 15),
            Self::IpfixSecond => cache(CacheVersion::Ipfix(SamplingStyle::Selector), 100, 1, 1),
        };
        ExporterSpec {
            name: name.to_owned(),
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last_octet)),
            kind,
            clock_skew_ms: 0,
            faults: Vec::new(),
            inbound_only: self.inbound_only(),
        }
    }
}

/// Seconds of ordinary traffic before anything happens: three times what a baseline needs, so that
/// an aged profile exists too.
const LEARNING_SECS: f64 = 960.0;

/// Servers of the base world: last octet, game, players.
const SERVERS: &[(u8, Game, f64)] = &[
    (7, Game::FiveM, 180.0),
    (8, Game::FiveM, 60.0),
    (10, Game::Minecraft, 200.0),
    (11, Game::Minecraft, 40.0),
    (20, Game::Rust, 200.0),
    (21, Game::Rust, 40.0),
    (30, Game::Source, 64.0),
    (40, Game::TeamSpeak, 120.0),
    (50, Game::Web, 100.0),
    (53, Game::Dns, 300.0),
];

/// A scene under construction.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scene: Scene,
    pub(crate) feed: Feed,
    /// When things begin to happen, seconds since the scene's start.
    pub(crate) t0: f64,
    /// End of the scene, seconds.
    pub(crate) end: f64,
    services: Vec<Service>,
    rng: Rng,
}

impl World {
    pub(crate) fn new(case: &Case, feed: Feed, seed: u64) -> Self {
        let name = format!("{}-{}-{seed}", case.id, feed.id());
        // The same seed gives different chances in different cases.
        let own = name.bytes().fold(seed, |s, b| crate::rng::mix(s ^ u64::from(b)));
        let mut rng = Rng::new(own);
        let t0 = LEARNING_SECS + 3.0 * rng.unit();
        let end = t0 + case.secs;
        let scene = Scene {
            name,
            seed: own,
            inventory: Inventory::default(),
            exporters: vec![feed.exporter("border-1", 1)],
            via: Via::One,
            sources: Vec::new(),
            crowds: Vec::new(),
            attacks: Vec::new(),
            duration_us: us(end),
            learning_us: us(LEARNING_SECS),
            tick_us: 20_000,
            train: feed.train(),
            link_bits_per_sec: 10_000_000_000,
        };
        let mut world = Self { scene, feed, t0, end, services: Vec::new(), rng };
        world.base();
        world
    }

    fn base(&mut self) {
        for (octet, game, players) in SERVERS {
            let players = players * self.around(1.0, 0.15);
            self.server(host(*octet), *game, &Rate::steady(0.0, self.end, players));
        }
        self.server(six(), Game::Minecraft, &Rate::steady(0.0, self.end, 80.0));
        // Two hundred small hosts that share one population of visitors.
        let small: Vec<IpAddr> = (1..=200).map(small_host).collect();
        let web = Source::new(
            "small hosts",
            Rate::steady(0.0, self.end, 2000.0),
            Peers::Sessions { packets_per_sec: 10.0, secs: 30.0, population: 50_000 },
            Locals::List(small),
            vec![
                Variant::tcp(Port::Session, Port::Fixed(443), (40, 52), 0x10).weighing(0.6),
                Variant::tcp(Port::Session, Port::Fixed(443), (200, 900), 0x18).weighing(0.35),
                Variant::tcp(Port::Session, Port::Fixed(443), (52, 60), 0x02).weighing(0.05),
            ],
        )
        .swinging(0.05);
        self.add(web);
        let all = (1..=254).map(host).collect();
        self.add(background::scan_noise(all, 0.0, self.end, 400.0));
    }

    /// Adds a server with its players, and declares its ports.
    pub(crate) fn server(&mut self, address: IpAddr, game: Game, players: &Rate) {
        let name = format!("{}-{}", game.name(), address);
        self.services.extend(game.services(address, &name));
        self.scene.sources.extend(background::server(game, address, players));
    }

    /// Takes a host's sources out again, for cases that give it other ones.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        self.scene.sources.retain(|s| s.locals != Locals::List(vec![address]));
        self.services.retain(|s| s.address != address);
    }

    /// Declares a port.
    pub(crate) fn declare(&mut self, address: IpAddr, protocol: u8, port: u16, game: &str) {
        self.services.push(Service {
            address,
            protocol,
            port,
            name: format!("{game}-{address}"),
            game: game.to_owned(),
        });
    }

    /// Adds ordinary traffic.
    pub(crate) fn add(&mut self, source: Source) {
        self.scene.sources.push(source);
    }

    /// Adds an attack's packets, `index` being what [`World::truth`] gave.
    pub(crate) fn attack(&mut self, index: u16, source: Source) {
        let mut source = source.attack(index);
        source.train = self.feed.attack_train();
        self.scene.sources.push(source);
    }

    /// Writes down an attack that begins `from` and ends `to` seconds after things begin.
    pub(crate) fn truth(
        &mut self,
        target: IpNet,
        from: f64,
        to: f64,
        families: &[Family],
        subtypes: &[&str],
    ) -> u16 {
        self.scene.attacks.push(Attack {
            target,
            direction: Direction::Inbound,
            start_us: us(self.t0 + from),
            end_us: us(self.t0 + to),
            families: families.to_vec(),
            subtypes: subtypes.iter().map(|&s| s.to_owned()).collect(),
            inseparable: false,
        });
        u16::try_from(self.scene.attacks.len() - 1).unwrap_or(0)
    }

    /// The last attack written down.
    pub(crate) fn last_truth(&mut self) -> &mut Attack {
        self.scene.attacks.last_mut().expect("an attack was written down")
    }

    /// A rate from `from` to `to` seconds after things begin, different for each seed.
    pub(crate) fn rate(&mut self, from: f64, to: f64, packets_per_sec: f64) -> Rate {
        let pps = self.around(packets_per_sec, 0.2);
        Rate::steady(self.t0 + from, self.t0 + to, pps)
    }

    /// A number near `value`, different for each seed.
    pub(crate) fn around(&mut self, value: f64, spread: f64) -> f64 {
        value * (1.0 + spread * (2.0 * self.rng.unit() - 1.0))
    }

    pub(crate) fn finish(mut self) -> Scene {
        let protected: PrefixSet = ["203.0.113.0/24", "198.18.0.0/22", "2001:db8:113::/48"]
            .iter()
            .filter_map(|net| net.parse::<IpNet>().ok())
            .collect();
        self.services.sort();
        self.scene.inventory = Inventory::new(protected, PrefixSet::default(), self.services);
        // Chance belongs to names, not to places in the list: give each source its own far ends.
        for (index, source) in self.scene.sources.iter_mut().enumerate() {
            if source.direction == Direction::Inbound && source.origin != crate::Origin::Benign {
                source.peers_seed ^= index as u64;
            }
        }
        self.scene
    }
}

pub(crate) fn us(secs: f64) -> u64 {
    whole(secs * SECOND_US as f64)
}

/// A host of 203.0.113.0/24.
pub(crate) const fn host(octet: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, octet))
}

/// One of the small hosts of 198.18.0.0/22.
pub(crate) const fn small_host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, number & 3, number))
}

/// The IPv6 server.
pub(crate) const fn six() -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10))
}
