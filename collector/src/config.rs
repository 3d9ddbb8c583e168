//! Settings of the collector.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which routers are listened to, where, and how much memory they may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// UDP addresses to listen on. Every listener takes every protocol: the version is read from
    /// the datagram. `[::]` listens on IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// TCP addresses to listen on for IPFIX (RFC 7011 §10.4); none by default.
    pub listen_tcp: Vec<SocketAddr>,
    /// TCP addresses to listen on for IPFIX over TLS (RFC 7011 §11), as a rule port 4740; needs `tls`.
    pub listen_tls: Vec<SocketAddr>,
    /// Certificates for `listen_tls`.
    pub tls: Option<TlsConfig>,
    /// Who may send. A datagram from anybody else is counted and forgotten.
    pub exporters: Vec<ExporterConfig>,
    /// Other collectors that every accepted datagram is sent on to, unchanged, from weir's own address.
    pub replicate: Vec<ReplicateConfig>,
    /// Receive buffer to ask the kernel for, octets a socket. The kernel caps it at
    /// `net.core.rmem_max` unless weir may exceed it (`CAP_NET_ADMIN`).
    pub receive_buffer_bytes: u64,
    /// Sockets for each listener, with a receive thread each; the kernel spreads senders over them.
    pub sockets_per_listener: usize,
    /// Threads that process what one socket receives; 0: the receive thread does it. For an
    /// exporter that sends more than one core can process (millions of records a second): the
    /// kernel keeps a sender on one socket, so more sockets do not help there.
    pub workers_per_socket: u32,
    /// Addresses of tunnelled packets that count, in samples with packet headers: of the outer or
    /// the inner header.
    pub tunnel: Tunnel,
    /// Maximum number of exporters; more are refused and counted.
    pub max_exporters: usize,
    /// Maximum number of observation domains (source ids, sFlow sub-agents) of one exporter. Those
    /// that never brought a record are dropped first.
    pub max_domains: usize,
    /// Maximum number of templates of one exporter. Those that were never used are dropped first.
    pub max_templates: usize,
    /// Seconds after which weir forgets a template that its exporter used to repeat and no longer
    /// repeats, at least three times its longest interval; 0: never. A template that is sent only
    /// once, when a line card starts, is kept until its exporter restarts.
    pub template_lifetime_secs: u64,
    /// Speed of the fastest interface of any exporter, bits a second: records of more count as
    /// `implausible` and are not used for detection. If the speed of an interface is known, that
    /// applies.
    pub line_rate_bits_per_sec: u64,
    /// Most protected hosts (times slots of event time) in one slice of one shard.
    pub max_hosts_per_slice: usize,
    /// Most protected IPv6 hosts in one slice of one shard; more are added up by /64.
    pub max_ipv6_hosts_per_slice: usize,
    /// Most long flows in one slice of one shard.
    pub max_long_flows_per_slice: usize,
    /// Most records kept as evidence in one slice of one shard.
    pub max_samples_per_slice: usize,
    /// Most octets of data sets kept until their template comes, for one exporter.
    pub max_pending_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Self {
            listen: [2055, 4739, 6343].map(|port| SocketAddr::new(any, port)).to_vec(),
            listen_tcp: Vec::new(),
            listen_tls: Vec::new(),
            tls: None,
            exporters: Vec::new(),
            replicate: Vec::new(),
            receive_buffer_bytes: 16 << 20,
            sockets_per_listener: 1,
            workers_per_socket: 0,
            tunnel: Tunnel::Outer,
            max_exporters: 4096,
            max_domains: 1024,
            max_templates: 4096,
            template_lifetime_secs: 3600,
            // 1.6 Terabit Ethernet (IEEE 802.3dj) is the fastest there is.
            line_rate_bits_per_sec: 1_600_000_000_000,
            max_hosts_per_slice: 262_144,
            max_ipv6_hosts_per_slice: 65_536,
            max_long_flows_per_slice: 65_536,
            max_samples_per_slice: 16_384,
            max_pending_bytes: 65_536,
        }
    }
}

/// Sockets in all listeners at most: each has a thread and buffers of two megabytes.
const SOCKETS_MAX: usize = 64;

impl Config {
    /// Checks what the types cannot: the setting at fault, and why.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if !self.listen_tls.is_empty() && self.tls.is_none() {
            return Err("listen_tls needs collector.tls".to_owned());
        }
        let sockets = self.listen.len().saturating_mul(self.sockets_per_listener.max(1));
        if sockets + self.listen_tcp.len() + self.listen_tls.len() > SOCKETS_MAX {
            return Err(format!("sockets_per_listener: more than {SOCKETS_MAX} sockets in all"));
        }
        if self.workers_per_socket > 64 {
            return Err("workers_per_socket is outside 0-64".to_owned());
        }
        for exporter in &self.exporters {
            for (name, rate) in
                [("sampling", exporter.sampling), ("default_sampling", exporter.default_sampling)]
            {
                if rate == Some(0) {
                    let address = exporter.address;
                    return Err(format!("exporters \"{address}\": {name} must be at least 1"));
                }
            }
        }
        Ok(())
    }

    /// The entry for a sender: of those that hold its address, the longest prefix.
    pub fn exporter(&self, address: IpAddr) -> Option<&ExporterConfig> {
        self.exporters
            .iter()
            .filter(|e| e.address.contains(&address))
            .max_by_key(|e| e.address.prefix_len())
    }
}

/// A collector beside weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicateConfig {
    /// Address and port of the other collector.
    pub to: SocketAddr,
}

/// Certificates for IPFIX over TLS, all in PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// weir's certificate, with those between it and the authority that exporters know.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority whose certificate an exporter must show; without it, none has to.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A router or a range of routers that may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExporterConfig {
    /// Source address of its datagrams, or a prefix of such addresses.
    pub address: IpNet,
    /// Name of the exporter; its address if not set.
    #[serde(default)]
    pub name: Option<String>,
    /// Sampling rate 1:N that overrides what the router reports.
    #[serde(default)]
    pub sampling: Option<u32>,
    /// Sampling rate 1:N if the router reports none.
    #[serde(default)]
    pub default_sampling: Option<u32>,
    /// Whether its NetFlow and IPFIX records count octets of whole frames, Ethernet header
    /// included, in fields for layer-3 octets, as Open vSwitch does.
    #[serde(default)]
    pub counts_frames: bool,
    /// Speed of its fastest interface, bits a second; `collector.line_rate_bits_per_sec` if not
    /// set.
    #[serde(default)]
    pub line_rate_bits_per_sec: Option<u64>,
    /// Indexes of the interfaces that lead out of the network. If set, only records that touch one
    /// of them count, so that a packet seen by several routers counts once.
    #[serde(default)]
    pub external_interfaces: Vec<u32>,
    /// Indexes of the interfaces of which the traffic is counted: those of uplinks.
    #[serde(skip)]
    pub counted_interfaces: Vec<u32>,
    /// What its interfaces are called, by index, for exporters that do not say or say something else:
    /// `interface_names = { 3 = "transit-a" }`.
    #[serde(default, deserialize_with = "by_index", serialize_with = "by_text")]
    pub interface_names: BTreeMap<u32, String>,
}

fn by_text<S: Serializer>(names: &BTreeMap<u32, String>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(names.iter().map(|(index, name)| (index.to_string(), name)))
}

/// Keys of a table are texts in TOML.
fn by_index<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u32, String>, D::Error> {
    let table: BTreeMap<String, String> = BTreeMap::deserialize(from)?;
    let index = |(key, name): (String, String)| {
        let index = key.parse().map_err(|_| {
            D::Error::custom(format!("interface_names: {key} is no index of an interface"))
        })?;
        Ok((index, name))
    };
    table.into_iter().map(index).collect()
}

impl ExporterConfig {
    /// A router of which nothing but the address is known.
    pub fn new(address: IpNet) -> Self {
        Self {
            address,
            name: None,
            sampling: None,
            default_sampling: None,
            counts_frames: false,
            line_rate_bits_per_sec: None,
            external_interfaces: Vec::new(),
            interface_names: BTreeMap::new(),
            counted_interfaces: Vec::new(),
        }
    }
}

/// Which addresses of a tunnelled packet count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tunnel {
    /// Those of the tunnel: what the links carry and what FlowSpec rules match.
    #[default]
    Outer,
    /// Those inside: for operators whose customers sit behind an overlay.
    Inner,
}
