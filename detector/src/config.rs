//! What an operator can set about detection.

use serde::{Deserialize, Serialize};
use weir_model::{OwnMetric, check_own};

/// Smallest thresholds per metric: traffic below is never an attack, whatever the baseline says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Floors {
    /// All packets, packets a second.
    pub packets_per_sec: f64,
    /// All traffic, layer-3 bits a second.
    pub bits_per_sec: f64,
    /// TCP SYNs without ACK, packets a second.
    pub syns_per_sec: f64,
    /// UDP to ports that are no declared service, packets a second.
    pub udp_off_service_per_sec: f64,
    /// ICMP and ICMPv6, packets a second.
    pub icmp_per_sec: f64,
    /// Fragments after the first, packets a second.
    pub fragments_per_sec: f64,
    /// TCP SYN-ACKs and RSTs, packets a second: reflections.
    pub tcp_replies_per_sec: f64,
    /// Protocols other than TCP, UDP and ICMP (GRE, ESP, ...), packets a second.
    pub other_per_sec: f64,
    /// Sources that a host has not met in the last five to ten minutes, a second, as they are reported:
    /// of sampled traffic only those that are sampled. Such an alarm must be separable.
    pub new_sources_per_sec: f64,
    /// All packets that a protected host sends, packets a second.
    pub outbound_packets_per_sec: f64,
    /// All traffic that a protected host sends, layer-3 bits a second.
    pub outbound_bits_per_sec: f64,
    /// SYNs that a protected host sends, packets a second.
    pub outbound_syns_per_sec: f64,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            packets_per_sec: 20_000.0,
            bits_per_sec: 200_000_000.0,
            syns_per_sec: 3_000.0,
            udp_off_service_per_sec: 10_000.0,
            icmp_per_sec: 3_000.0,
            fragments_per_sec: 3_000.0,
            tcp_replies_per_sec: 5_000.0,
            other_per_sec: 10_000.0,
            new_sources_per_sec: 200.0,
            outbound_packets_per_sec: 20_000.0,
            outbound_bits_per_sec: 200_000_000.0,
            outbound_syns_per_sec: 2_000.0,
        }
    }
}

impl Floors {
    /// Thresholds while nothing is known of a host yet: only gross floods cross them.
    const fn cold() -> Self {
        Self {
            packets_per_sec: 50_000.0,
            bits_per_sec: 500_000_000.0,
            syns_per_sec: 10_000.0,
            udp_off_service_per_sec: 30_000.0,
            icmp_per_sec: 10_000.0,
            fragments_per_sec: 10_000.0,
            tcp_replies_per_sec: 15_000.0,
            other_per_sec: 30_000.0,
            // To a host just met everybody is new: this is never.
            new_sources_per_sec: 1_000_000_000.0,
            outbound_packets_per_sec: 50_000.0,
            outbound_bits_per_sec: 500_000_000.0,
            outbound_syns_per_sec: 10_000.0,
        }
    }

    /// Thresholds of a whole /24 or /48.
    const fn prefix() -> Self {
        Self {
            packets_per_sec: 60_000.0,
            bits_per_sec: 600_000_000.0,
            syns_per_sec: 20_000.0,
            udp_off_service_per_sec: 40_000.0,
            icmp_per_sec: 20_000.0,
            fragments_per_sec: 20_000.0,
            tcp_replies_per_sec: 30_000.0,
            other_per_sec: 40_000.0,
            new_sources_per_sec: f64::INFINITY,
            // What a prefix sends is looked at host by host.
            outbound_packets_per_sec: f64::INFINITY,
            outbound_bits_per_sec: f64::INFINITY,
            outbound_syns_per_sec: f64::INFINITY,
        }
    }
}

/// What the weakest of the routers that take rules can match (RFC 8955 §4.2.2): nothing else is
/// asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// Packet length, exact and in ranges.
    pub lengths: bool,
    /// TCP control bits that can be looked at, as a mask of the low octet; many routers lack ECE
    /// and CWR.
    pub tcp_flags: u8,
    /// The is-fragment bit.
    pub fragments: bool,
    /// Source prefixes beside a destination.
    pub sources: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { lengths: true, tcp_flags: 0x3f, fragments: true, sources: true }
    }
}

/// Settings of the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A threshold is this many times the baseline (p99 of the last `window_samples` seconds).
    pub multiplier: f64,
    /// Smallest thresholds of a host.
    pub floors: Floors,
    /// Thresholds of a host during its first `learn_secs`.
    pub cold_floors: Floors,
    /// Smallest thresholds of a whole IPv4 /24 or IPv6 /48, where carpet attacks show.
    pub prefix_floors: Floors,
    /// Fewest hosts of a prefix that share an attack on the prefix.
    pub prefix_hosts_min: usize,
    /// Traffic of another shape than usual is an alarm from this many packets a second on.
    pub shape_floor_packets_per_sec: f64,
    /// Smallest threshold of a declared service port, packets a second.
    pub service_floor_packets_per_sec: f64,
    /// Smallest threshold of a declared service port, bits a second.
    pub service_floor_bits_per_sec: f64,
    /// Seconds watched before a host's own baseline counts.
    pub learn_secs: u64,
    /// Seconds that must pass before a second may enter the baseline, so that a slow attack does
    /// not become normal.
    pub quarantine_secs: u64,
    /// Fewest effective samples for an alarm.
    pub min_samples: f64,
    /// Largest probability that traffic at the threshold shows what was seen: false alarms per
    /// test.
    pub tail: f64,
    /// An incident is quiet below this share of its threshold, 0-1.
    pub end_ratio: f64,
    /// Quiet seconds after which an incident ends, counted when nothing older can still arrive.
    pub end_quiet_secs: u64,
    /// Verdicts below this confidence (0-100) open no incident.
    pub report_confidence: u8,
    /// Largest share of normal traffic that a drop rule may hit, 0-1.
    pub collateral_max: f64,
    /// Largest share of normal traffic that a rate limit may hit, 0-1: used when no rule below
    /// `collateral_max` tells the attack.
    pub collateral_max_rate_limit: f64,
    /// Rules that one incident may ask for.
    pub rules_max: usize,
    /// What routers can match.
    pub capabilities: Capabilities,
    /// Hosts above this many packets a second are watched in detail.
    pub warm_packets_per_sec: u64,
    /// Of prefixes, of hosts with declared services, and of others above this many packets a
    /// second, packets are kept to know what is normal for them.
    pub profile_packets_per_sec: f64,
    /// Hosts and prefixes of which packets are kept at once, about 30 KB each.
    pub profiles_max: usize,
    /// Hosts watched in detail at once; more are counted and left to the prefix tests.
    pub warm_hosts_max: usize,
    /// Prefixes (/24, /48) watched at once.
    pub prefixes_max: usize,
    /// IPv6 hosts known at once.
    pub ipv6_hosts_max: usize,
    /// Open incidents at once.
    pub incidents_max: usize,
    /// Metrics of your own, `[[detector.metric]]`: packets that a condition means are measured of every host that
    /// is watched in detail. At most 16.
    #[serde(rename = "metric", skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<OwnMetric>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            multiplier: 3.0,
            floors: Floors::default(),
            cold_floors: Floors::cold(),
            prefix_floors: Floors::prefix(),
            prefix_hosts_min: 16,
            shape_floor_packets_per_sec: 2_000.0,
            service_floor_packets_per_sec: 10_000.0,
            service_floor_bits_per_sec: 100_000_000.0,
            learn_secs: 300,
            quarantine_secs: 30,
            min_samples: 15.0,
            tail: 1e-9,
            end_ratio: 0.7,
            end_quiet_secs: 30,
            report_confidence: 15,
            collateral_max: 0.01,
            collateral_max_rate_limit: 0.05,
            rules_max: 4,
            capabilities: Capabilities::default(),
            warm_packets_per_sec: 100,
            profile_packets_per_sec: 1_000.0,
            profiles_max: 16_384,
            warm_hosts_max: 200_000,
            prefixes_max: 65_536,
            ipv6_hosts_max: 1_000_000,
            incidents_max: 1_000,
            metrics: Vec::new(),
        }
    }
}

impl Config {
    /// Checks every number against its range: the setting at fault, and why.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        const ANY: f64 = f64::INFINITY;
        let numbers = [
            ("multiplier", self.multiplier, 1.0, 1000.0),
            ("shape_floor_packets_per_sec", self.shape_floor_packets_per_sec, 0.0, ANY),
            ("service_floor_packets_per_sec", self.service_floor_packets_per_sec, 1.0, ANY),
            ("service_floor_bits_per_sec", self.service_floor_bits_per_sec, 1.0, ANY),
            ("min_samples", self.min_samples, 1.0, 1e6),
            ("tail", self.tail, 1e-300, 0.5),
            ("end_ratio", self.end_ratio, 0.0, 1.0),
            ("report_confidence", f64::from(self.report_confidence), 0.0, 100.0),
            ("collateral_max", self.collateral_max, 0.0, 1.0),
            ("collateral_max_rate_limit", self.collateral_max_rate_limit, 0.0, 1.0),
            ("profile_packets_per_sec", self.profile_packets_per_sec, 0.0, ANY),
        ];
        let floors = [
            ("floors", &self.floors),
            ("cold_floors", &self.cold_floors),
            ("prefix_floors", &self.prefix_floors),
        ];
        let floors = floors.iter().flat_map(|(table, floors)| {
            floors.all().map(|(name, value)| (format!("{table}.{name}"), value, 1.0, ANY))
        });
        let numbers = numbers.map(|(name, value, from, to)| (name.to_owned(), value, from, to));
        for (name, value, from, to) in numbers.into_iter().chain(floors) {
            // NaN is in no range.
            if !(from..=to).contains(&value) {
                return Err(format!("{name} = {value} is outside {from}-{to}"));
            }
        }
        if !(1..=64).contains(&self.rules_max) {
            return Err(format!("rules_max = {} is outside 1-64", self.rules_max));
        }
        check_own(&self.metrics, self.warm_packets_per_sec).map_err(|why| format!("metric {why}"))
    }
}

impl Floors {
    /// Every floor with its name.
    const fn all(&self) -> [(&'static str, f64); 12] {
        [
            ("packets_per_sec", self.packets_per_sec),
            ("bits_per_sec", self.bits_per_sec),
            ("syns_per_sec", self.syns_per_sec),
            ("udp_off_service_per_sec", self.udp_off_service_per_sec),
            ("icmp_per_sec", self.icmp_per_sec),
            ("fragments_per_sec", self.fragments_per_sec),
            ("tcp_replies_per_sec", self.tcp_replies_per_sec),
            ("other_per_sec", self.other_per_sec),
            ("new_sources_per_sec", self.new_sources_per_sec),
            ("outbound_packets_per_sec", self.outbound_packets_per_sec),
            ("outbound_bits_per_sec", self.outbound_bits_per_sec),
            ("outbound_syns_per_sec", self.outbound_syns_per_sec),
        ]
    }
}
