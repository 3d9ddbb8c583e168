//! A case on disk: what the collector hears, what is protected, and the truth.
//!
//! A directory holds four files, which any generator can write (`docs/scoring.md` has each field):
//!
//! | file | content |
//! |---|---|
//! | `input.pcap` | the export datagrams as they reach the collector (see [`crate::pcap`]) |
//! | `world.json` | a [`CaseWorld`] |
//! | `truth.jsonl` | a [`Truth`] a line; empty or not there when nothing is an attack |
//! | `mix.csv` | every packet that passed towards protected hosts, added up (see [`crate::mix`]); or `mix.csv.zst` |

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_model::{Direction, Family, Inventory, Millis, PrefixSet, Service};

use crate::exporter::Datagram;
use crate::mix::Mix;
use crate::scene::Scene;

/// One exporter of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseExporter {
    /// Address its datagrams come from.
    pub address: IpAddr,
    /// Name, for people.
    #[serde(default)]
    pub name: String,
    /// Rate that the operator would have to set because the exporter does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<u32>,
}

/// A declared service port of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseService {
    /// Protected address.
    pub address: IpAddr,
    /// IP protocol: 6 or 17, also written `tcp` or `udp`.
    #[serde(alias = "proto", deserialize_with = "protocol")]
    pub protocol: u8,
    /// Port.
    pub port: u16,
    /// Server's name.
    #[serde(default)]
    pub name: String,
    /// Game or application.
    #[serde(default)]
    pub game: String,
}

/// A protocol by number or name.
fn protocol<'de, D: serde::Deserializer<'de>>(input: D) -> Result<u8, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Name(String),
    }
    match Either::deserialize(input)? {
        Either::Number(number) => Ok(number),
        Either::Name(name) if name.eq_ignore_ascii_case("tcp") => Ok(6),
        Either::Name(name) if name.eq_ignore_ascii_case("udp") => Ok(17),
        Either::Name(name) => Err(serde::de::Error::custom(format!("protocol {name}"))),
    }
}

/// What is protected and how strong it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseWorld {
    /// Name of the case; reports begin with it.
    #[serde(default)]
    pub name: String,
    /// What it is about.
    #[serde(default)]
    pub title: String,
    /// Time 0 of the mix's seconds, milliseconds since the Unix epoch.
    pub epoch_ms: u64,
    /// Seconds that the case lasts.
    pub seconds: u64,
    /// Seconds at the start in which nothing is scored.
    #[serde(default)]
    pub learning_seconds: u64,
    /// Protected prefixes.
    pub protected: PrefixSet,
    /// Prefixes never to be touched.
    #[serde(default)]
    pub never_touch: PrefixSet,
    /// Declared service ports.
    #[serde(default)]
    pub services: Vec<CaseService>,
    /// Exporters.
    #[serde(default)]
    pub exporters: Vec<CaseExporter>,
    /// Capacity of the uplink, bits per second.
    #[serde(default = "default_link")]
    pub link_bits_per_sec: u64,
    /// A host bears this many times the highest benign second it has in the case...
    #[serde(default = "default_headroom")]
    pub host_headroom: f64,
    /// ... but at least this many packets per second...
    #[serde(default = "default_host_packets")]
    pub host_packets_per_sec: u64,
    /// ... and at least this many bits per second.
    #[serde(default = "default_host_bits")]
    pub host_bits_per_sec: u64,
}

/// The year 9999.
const EPOCH_MS_MAX: u64 = 253_402_300_799_000;
/// A month.
const SECONDS_MAX: u64 = crate::mix::SECONDS_MAX;
/// Where a host bears any load.
const HEADROOM_MAX: f64 = 1e9;
/// Attacks may go on, and be reported, so long after the end of a case.
const AFTER_MS: u64 = 3_600_000;

const fn default_link() -> u64 {
    10_000_000_000
}

const fn default_headroom() -> f64 {
    2.0
}

const fn default_host_packets() -> u64 {
    20_000
}

const fn default_host_bits() -> u64 {
    200_000_000
}

impl CaseWorld {
    /// The inventory to defend.
    pub fn inventory(&self) -> Inventory {
        let services = self
            .services
            .iter()
            .map(|s| Service {
                address: s.address,
                protocol: s.protocol,
                port: s.port,
                name: s.name.clone(),
                game: s.game.clone(),
            })
            .collect();
        Inventory::new(self.protected.clone(), self.never_touch.clone(), services)
    }

    /// Whether a case of these numbers can be played and scored.
    ///
    /// # Errors
    /// What is wrong, with the name of the field.
    pub fn check(&self) -> Result<(), String> {
        let limit = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}, not {least} to {most}"))
            }
        };
        limit("epoch_ms", self.epoch_ms, 0, EPOCH_MS_MAX)?;
        limit("seconds", self.seconds, 1, SECONDS_MAX)?;
        limit("learning_seconds", self.learning_seconds, 0, self.seconds)?;
        if !(0.0..=HEADROOM_MAX).contains(&self.host_headroom) {
            return Err(format!(
                "host_headroom is {}, not 0 to {HEADROOM_MAX}",
                self.host_headroom
            ));
        }
        if self.protected.iter().next().is_none() {
            return Err("protected is empty".to_owned());
        }
        for service in &self.services {
            limit("a service's port", service.port.into(), 1, u16::MAX.into())?;
            if !matches!(service.protocol, 6 | 17) {
                let number = service.protocol;
                return Err(format!("a service's protocol is {number}, not 6 or 17"));
            }
        }
        for exporter in &self.exporters {
            let sampling = exporter.sampling.unwrap_or(1);
            limit("an exporter's sampling", sampling.into(), 1, u32::MAX.into())?;
        }
        Ok(())
    }

    /// Time 0.
    pub const fn epoch(&self) -> Millis {
        Millis(self.epoch_ms)
    }
}

/// One attack as it really was. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Host or prefix under attack; the abused host when outbound.
    pub target: IpNet,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
    /// First attack packet.
    pub first_packet_ms: u64,
    /// First datagram that reports an attack packet; the first packet where not known.
    #[serde(default)]
    pub first_datagram_ms: Option<u64>,
    /// Last attack packet.
    pub end_ms: u64,
    /// Families that name it rightly; empty when any will do.
    #[serde(default)]
    pub families: Vec<Family>,
    /// Subtypes that name it rightly; empty when any will do.
    #[serde(default)]
    pub subtypes: Vec<String>,
    /// No filter can tell it from the players: an alert suffices.
    #[serde(default)]
    pub inseparable: bool,
}

impl Truth {
    /// Whether it can be the truth about a case in `world`.
    ///
    /// # Errors
    /// What is wrong, with the name of the field.
    pub fn check(&self, world: &CaseWorld) -> Result<(), String> {
        let end_ms = world.epoch_ms + world.seconds * 1000;
        let within = |name: &str, at: u64| {
            if (world.epoch_ms..=end_ms + AFTER_MS).contains(&at) {
                Ok(())
            } else {
                Err(format!("{name} is {at}, outside the case ({} to {end_ms})", world.epoch_ms))
            }
        };
        within("first_packet_ms", self.first_packet_ms)?;
        within("first_datagram_ms", self.first_report().0)?;
        within("end_ms", self.end_ms)?;
        if self.end_ms < self.first_packet_ms {
            return Err("end_ms is before first_packet_ms".to_owned());
        }
        Ok(())
    }

    /// When a collector could first know of it.
    pub fn first_report(&self) -> Millis {
        Millis(self.first_datagram_ms.unwrap_or(self.first_packet_ms))
    }
}

/// What a scene looks like as a case, with the time of its epoch on the exporters' clocks.
pub fn world_of(scene: &Scene, title: &str, epoch: Millis) -> CaseWorld {
    CaseWorld {
        name: scene.name.clone(),
        title: title.to_owned(),
        epoch_ms: epoch.0,
        seconds: scene.duration_us.div_ceil(1_000_000),
        learning_seconds: scene.learning_us / 1_000_000,
        protected: scene.inventory.protected.clone(),
        never_touch: scene.inventory.never_touch.clone(),
        services: scene
            .inventory
            .services
            .iter()
            .map(|s| CaseService {
                address: s.address,
                protocol: s.protocol,
                port: s.port,
                name: s.name.clone(),
                game: s.game.clone(),
            })
            .collect(),
        exporters: scene
            .exporters
            .iter()
            .map(|e| CaseExporter { address: e.address, name: e.name.clone(), sampling: None })
            .collect(),
        link_bits_per_sec: scene.link_bits_per_sec,
        host_headroom: default_headroom(),
        host_packets_per_sec: default_host_packets(),
        host_bits_per_sec: default_host_bits(),
    }
}

/// Plays a scene: datagrams go to `sink` in order of time, the truth and the mix come back.
///
/// # Errors
/// Whatever `sink` fails with.
pub fn play<E>(
    scene: &Scene,
    epoch: Millis,
    mut sink: impl FnMut(&Datagram) -> Result<(), E>,
) -> Result<(Vec<Truth>, Mix), E> {
    let mut stream = scene.stream(epoch);
    let mut mix = Mix::new(scene.learning_us / 1_000_000);
    let mut datagrams = VecDeque::new();
    let mut first_reports: Vec<u64> = Vec::new();
    while stream.tick(&mut datagrams) {
        for packet in stream.packets() {
            mix.add(packet);
        }
        for datagram in datagrams.drain(..) {
            if datagram.attack {
                first_reports.push(datagram.at_us);
            }
            sink(&datagram)?;
        }
    }
    mix.close();
    let truths = scene
        .attacks
        .iter()
        .map(|attack| {
            let first = first_reports.partition_point(|at| *at < attack.start_us);
            Truth {
                target: attack.target,
                direction: attack.direction,
                first_packet_ms: epoch.0 + attack.start_us / 1000,
                first_datagram_ms: first_reports.get(first).map(|us| epoch.0 + us / 1000),
                end_ms: epoch.0 + attack.end_us / 1000,
                families: attack.families.clone(),
                subtypes: attack.subtypes.clone(),
                inseparable: attack.inseparable,
            }
        })
        .collect();
    Ok((truths, mix))
}
