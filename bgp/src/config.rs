//! The `[bgp]` section.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use weir_model::{Rung, Secret};

use crate::adapter::AdapterConfig;
use crate::bfd;
use crate::profile::{Capabilities, Profile};
use crate::reach::{Hops, KnownPeer, Lengths, Reach};
use crate::rpki;
use crate::wire::{Family, LargeCommunity};

/// weir as a BGP speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// AS number of weir, 1-4294967294. Within the operator's own AS routers take FlowSpec
    /// without further ado; from another AS they validate it (RFC 8955 §6, RFC 9117).
    pub local_as: u32,
    /// BGP identifier, unique in the AS: an IPv4 address of this machine.
    pub router_id: Ipv4Addr,
    /// Where peers may dial; without it weir only dials.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// What is done with the routes when weir stops.
    #[serde(default)]
    pub on_stop: OnStop,
    /// File with more entries of the form of `profiles/upstreams.toml`, for `upstream`; they go before those built
    /// in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstreams: Option<PathBuf>,
    /// Where to ask who may originate which prefix.
    #[serde(default)]
    pub rpki: Option<rpki::Config>,
    /// The peers, under `[[bgp.peer]]`.
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerConfig>,
    /// Other BGP daemons that weir drives, under `[[bgp.adapter]]`.
    #[serde(default, rename = "adapter")]
    pub adapters: Vec<AdapterConfig>,
}

/// What is done with the routes when weir stops in good order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStop {
    /// Withdraw everything and close with Cease: nothing stays in force without a watcher.
    #[default]
    Withdraw,
    /// Close without a word: peers with graceful restart keep the routes for its time.
    Hold,
}

/// One BGP peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Name in logs, metrics and reports; unique.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Its AS number.
    pub remote_as: u32,
    /// weir's AS number towards this peer, if another than `local_as`.
    #[serde(default)]
    pub local_as: Option<u32>,
    /// Address to dial from.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Wait for the peer to dial, never dial.
    #[serde(default)]
    pub passive: bool,
    /// Families offered; the session carries those that the peer offers too.
    #[serde(default = "default_families")]
    pub families: Vec<Family>,
    /// Proposed hold time, seconds: 0 or 3-65535.
    #[serde(default = "default_hold")]
    pub hold_time_secs: u16,
    /// First wait before dialling again, seconds, 1-120; it doubles up to 120.
    #[serde(default = "default_retry")]
    pub connect_retry_secs: u16,
    /// TCP MD5 password (RFC 2385), 1-80 octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File that holds the TCP MD5 password; surrounding white space is left out.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Take and send packets with TTL 255 only (GTSM, RFC 5082): the peer is on the same link.
    #[serde(default)]
    pub ttl_security: bool,
    /// BFD with the peer, which is on the same link: a peer that is dead is noticed within a second, where the hold
    /// time takes a minute and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<bfd::Config>,
    /// Next hop of IPv4 black-hole routes: an address that the peer discards.
    #[serde(default = "default_next_hop4")]
    pub next_hop4: Ipv4Addr,
    /// Next hop of IPv6 black-hole routes: an address that the peer discards (RFC 6666).
    #[serde(default = "default_next_hop6")]
    pub next_hop6: Ipv6Addr,
    /// Communities of black-hole routes: `65535:666` or `blackhole` (RFC 7999), `AS:value`,
    /// `AS:value:value` (large), `rt:AS:value`, `ext:` and 16 hexadecimal digits (extended).
    #[serde(default = "default_communities")]
    pub communities: Vec<Community>,
    /// Communities of FlowSpec rules, besides the action's.
    #[serde(default)]
    pub flowspec_communities: Vec<Community>,
    /// Add NO_EXPORT to black-hole routes: they stay in the peer's AS (RFC 7999 §3.2). Switch it
    /// off for a peer that is to pass them on to its upstreams.
    #[serde(default = "yes")]
    pub no_export: bool,
    /// Add NO_ADVERTISE to black-hole routes: they stay in the peer itself.
    #[serde(default)]
    pub no_advertise: bool,
    /// Mark every route with the large community `local_as:2003134834:incident`, by which weir
    /// and the operator know weir's own.
    #[serde(default = "yes")]
    pub mark: bool,
    /// LOCAL_PREF of black-hole routes within one AS.
    #[serde(default = "default_local_pref")]
    pub local_pref: u32,
    /// How traffic is diverted by this peer; without it the peer gets no diversions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divert: Option<Divert>,
    /// What the peer is: `edge` (one of the own routers), `transit`, `ixp`, `scrubber` or `filter`. Transits and
    /// exchanges take black holes, scrubbers diversions, filters rules, unless `steps` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Steps of the ladder that the peer takes, `mark`, `rate-limit`, `drop`, `redirect`, `divert`, `rtbh`; those
    /// of its role if not set, and all without a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Rung>>,
    /// Whose customer one is to this peer: an entry of `profiles/upstreams.toml` or `bgp.upstreams`. It says
    /// communities, next hops and lengths of black holes where this peer does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Shortest IPv4 prefix that the peer takes as a black hole, 0-32; any if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole_min_len4: Option<u8>,
    /// Longest IPv4 prefix that the peer takes as a black hole, 0-32; any if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole_max_len4: Option<u8>,
    /// Shortest IPv6 prefix that the peer takes as a black hole, 0-128; any if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole_min_len6: Option<u8>,
    /// Longest IPv6 prefix that the peer takes as a black hole, 0-128; any if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole_max_len6: Option<u8>,
    /// Communities of black holes for a prefix that is no single host; those of `communities` if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covering_communities: Vec<Community>,
    /// Unicast routes, black holes and diversions together, that the peer takes from weir, 1-100000; no limit
    /// but the peer's own if not set. Of more, the most useful are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_routes: Option<u32>,
    /// What the peer's software can take.
    #[serde(default)]
    pub profile: Profile,
    /// FlowSpec rules that the peer holds at most, 1-100000, if not what its profile says.
    #[serde(default)]
    pub max_rules: Option<u32>,
    /// What is done with a measure whose destination another AS originates, as far as
    /// `[bgp.rpki]` knows.
    #[serde(default)]
    pub rpki: rpki::Policy,
    /// For how long the peer is asked to keep the routes when weir is gone, seconds, 0-4095; 0
    /// leaves graceful restart out (RFC 4724).
    #[serde(default = "default_restart")]
    pub graceful_restart_secs: u16,
    /// For how long the peer is asked to keep stale routes after that, seconds, 0-16777215; 0
    /// leaves long-lived graceful restart out (RFC 9494).
    #[serde(default)]
    pub long_lived_restart_secs: u32,
}

/// What a peer is to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// One of the own routers.
    Edge,
    /// A network that carries traffic from everywhere.
    Transit,
    /// The route server of an exchange.
    Ixp,
    /// A scrubbing network, on premises or elsewhere.
    Scrubber,
    /// A machine that applies rules and carries no routes.
    Filter,
}

impl Role {
    /// Steps that such a peer takes unless it is configured otherwise.
    fn steps(self) -> Vec<Rung> {
        match self {
            Self::Edge => Rung::ALL.to_vec(),
            Self::Transit | Self::Ixp => vec![Rung::Rtbh],
            Self::Scrubber => vec![Rung::Divert],
            Self::Filter => vec![Rung::Mark, Rung::RateLimit, Rung::Drop, Rung::Redirect],
        }
    }
}

/// Diverting routes to a peer, under `[bgp.peer.divert]`: the prefix with another next hop, or with
/// communities by which the peer sends its traffic another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divert {
    /// Next hop of diverted IPv4 prefixes: the filter, or a tunnel to it. Without it no IPv4 prefix
    /// is diverted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop4: Option<Ipv4Addr>,
    /// Next hop of diverted IPv6 prefixes. Without it no IPv6 prefix is diverted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop6: Option<Ipv6Addr>,
    /// Communities of diverting routes, written as those of black holes. `blackhole` is refused.
    #[serde(default)]
    pub communities: Vec<Community>,
    /// LOCAL_PREF of diverting routes within one AS.
    #[serde(default = "default_local_pref")]
    pub local_pref: u32,
    /// Add NO_EXPORT: the diversion stays in the peer's AS.
    #[serde(default)]
    pub no_export: bool,
}

impl Divert {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.next_hop4.is_none() && self.next_hop6.is_none() {
            return Err(("divert", "has neither next_hop4 nor next_hop6".into()));
        }
        if self.communities.contains(&Community::BLACKHOLE) {
            let why = "communities has blackhole: what is to be diverted would be discarded";
            return Err(("divert", why.into()));
        }
        let hop4 = self.next_hop4.unwrap_or_else(default_next_hop4);
        let hop6 = self.next_hop6.unwrap_or_else(default_next_hop6);
        check_next_hops(hop4, hop6).map_err(|(field, why)| ("divert", format!("{field}: {why}")))
    }
}

/// What a network or an exchange takes as a black hole, as it has published it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its name, for `bgp.peer.upstream`.
    pub name: String,
    /// Its AS number, 0 for one that has several.
    pub asn: u32,
    /// Where it says so.
    pub source: String,
    /// When that was read, `2026-12-01`.
    pub read: String,
    /// Communities of black holes.
    pub communities: Vec<Community>,
    /// Next hop of IPv4 black holes, where the community alone does not do.
    #[serde(default)]
    pub next_hop4: Option<Ipv4Addr>,
    /// The same of IPv6.
    #[serde(default)]
    pub next_hop6: Option<Ipv6Addr>,
    /// Shortest IPv4 black hole.
    #[serde(default)]
    pub min_len4: Option<u8>,
    /// Longest IPv4 black hole.
    #[serde(default)]
    pub max_len4: Option<u8>,
    /// Shortest IPv6 black hole.
    #[serde(default)]
    pub min_len6: Option<u8>,
    /// Longest IPv6 black hole.
    #[serde(default)]
    pub max_len6: Option<u8>,
    /// What else a customer has to know.
    #[serde(default)]
    pub note: String,
}

impl Upstream {
    /// Whether it is another network than the one a peer belongs to. Of route servers of exchanges it cannot be
    /// told: they have AS numbers of their own.
    pub fn is_another(&self, peer: &PeerConfig) -> bool {
        self.asn != 0 && self.asn != peer.remote_as && peer.role != Some(Role::Ixp)
    }
}

impl PeerConfig {
    /// Takes what the upstream says where this peer says nothing of its own.
    pub fn take(&mut self, upstream: &Upstream) {
        if self.communities == default_communities() {
            self.communities.clone_from(&upstream.communities);
        }
        if let Some(hop) = upstream.next_hop4.filter(|_| self.next_hop4 == default_next_hop4()) {
            self.next_hop4 = hop;
        }
        if let Some(hop) = upstream.next_hop6.filter(|_| self.next_hop6 == default_next_hop6()) {
            self.next_hop6 = hop;
        }
        self.blackhole_min_len4 = self.blackhole_min_len4.or(upstream.min_len4);
        self.blackhole_max_len4 = self.blackhole_max_len4.or(upstream.max_len4);
        self.blackhole_min_len6 = self.blackhole_min_len6.or(upstream.min_len6);
        self.blackhole_max_len6 = self.blackhole_max_len6.or(upstream.max_len6);
    }
}

const fn default_port() -> u16 {
    179
}

fn default_families() -> Vec<Family> {
    Family::ALL.to_vec()
}

const fn default_hold() -> u16 {
    90
}

const fn default_retry() -> u16 {
    5
}

pub(crate) const fn default_next_hop4() -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 1)
}

pub(crate) const fn default_next_hop6() -> Ipv6Addr {
    Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)
}

fn default_communities() -> Vec<Community> {
    vec![Community::BLACKHOLE]
}

/// What a black-hole route carries where nothing adds a scope to it.
pub(crate) fn blackhole_communities() -> Vec<Community> {
    vec![Community::BLACKHOLE, Community::NO_EXPORT]
}

const fn default_local_pref() -> u32 {
    200
}

const fn default_restart() -> u16 {
    120
}

const fn yes() -> bool {
    true
}

/// What is wrong with the section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{peer}{field}: {why}")]
pub struct ConfigError {
    /// `peer "name": `, or nothing.
    pub peer: String,
    /// Field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl PeerConfig {
    /// A peer with every setting at its default.
    pub fn new(name: &str, address: IpAddr, remote_as: u32) -> Self {
        Self {
            name: name.to_owned(),
            address,
            port: default_port(),
            remote_as,
            local_as: None,
            local_address: None,
            passive: false,
            families: default_families(),
            hold_time_secs: default_hold(),
            connect_retry_secs: default_retry(),
            password: None,
            password_file: None,
            ttl_security: false,
            bfd: None,
            next_hop4: default_next_hop4(),
            next_hop6: default_next_hop6(),
            communities: default_communities(),
            flowspec_communities: Vec::new(),
            no_export: true,
            no_advertise: false,
            mark: true,
            local_pref: default_local_pref(),
            divert: None,
            role: None,
            steps: None,
            upstream: None,
            blackhole_min_len4: None,
            blackhole_max_len4: None,
            blackhole_min_len6: None,
            blackhole_max_len6: None,
            covering_communities: Vec::new(),
            max_routes: None,
            profile: Profile::default(),
            max_rules: None,
            rpki: rpki::Policy::Refuse,
            graceful_restart_secs: default_restart(),
            long_lived_restart_secs: 0,
        }
    }

    /// What the peer takes: its profile, with the operator's own limit.
    pub fn capabilities(&self) -> Capabilities {
        let profile = self.profile.capabilities();
        let limit = self.max_rules.and_then(|n| usize::try_from(n).ok());
        Capabilities { max_rules: limit.unwrap_or(profile.max_rules), ..profile }
    }

    /// Whether it takes another session to go on as `next` says: everything but what is said of single
    /// routes, which ones the peer takes, and when it is dialled again.
    pub(crate) fn needs_another_session(&self, next: &Self) -> bool {
        let same_session = Self {
            name: next.name.clone(),
            // Compared where it is known what holds without it.
            local_as: next.local_as,
            connect_retry_secs: next.connect_retry_secs,
            // What the file says counts, and it stands in `password` by now.
            password_file: next.password_file.clone(),
            bfd: next.bfd,
            next_hop4: next.next_hop4,
            next_hop6: next.next_hop6,
            communities: next.communities.clone(),
            flowspec_communities: next.flowspec_communities.clone(),
            no_export: next.no_export,
            no_advertise: next.no_advertise,
            mark: next.mark,
            local_pref: next.local_pref,
            divert: next.divert.clone(),
            role: next.role,
            steps: next.steps.clone(),
            upstream: next.upstream.clone(),
            blackhole_min_len4: next.blackhole_min_len4,
            blackhole_max_len4: next.blackhole_max_len4,
            blackhole_min_len6: next.blackhole_min_len6,
            blackhole_max_len6: next.blackhole_max_len6,
            covering_communities: next.covering_communities.clone(),
            max_routes: next.max_routes,
            profile: next.profile,
            max_rules: next.max_rules,
            rpki: next.rpki,
            ..self.clone()
        };
        same_session != *next
    }

    /// What it can be given at all.
    pub fn reach(&self) -> Reach {
        let families = self.families.iter().copied().collect();
        let divert = self.divert.as_ref();
        let divert = divert.map_or(Hops::NONE, |d| Hops { v4: d.next_hop4, v6: d.next_hop6 });
        let steps = self.steps.clone().or_else(|| self.role.map(Role::steps));
        let lengths =
            |min: Option<u8>, max: Option<u8>, all| (min.unwrap_or(0), max.unwrap_or(all));
        let black_holes = Lengths {
            v4: lengths(self.blackhole_min_len4, self.blackhole_max_len4, 32),
            v6: lengths(self.blackhole_min_len6, self.blackhole_max_len6, 128),
        };
        let limit = self.max_routes.and_then(|n| usize::try_from(n).ok());
        Reach {
            divert,
            steps: steps.unwrap_or_else(|| Rung::ALL.to_vec()),
            black_holes,
            max_routes: limit.unwrap_or(usize::MAX),
            ..Reach::new(families, self.capabilities())
        }
    }

    /// What it takes has to be something that weir can give it.
    fn check_scope(&self) -> Result<(), (&'static str, String)> {
        let reach = self.reach();
        let Lengths { v4, v6 } = reach.black_holes;
        if v4.0 > v4.1 || v4.1 > 32 {
            return Err(("blackhole_min_len4", format!("/{} to /{} is no range", v4.0, v4.1)));
        }
        if v6.0 > v6.1 || v6.1 > 128 {
            return Err(("blackhole_min_len6", format!("/{} to /{} is no range", v6.0, v6.1)));
        }
        if reach.steps.is_empty() {
            return Err(("steps", "is empty: the peer would get nothing".into()));
        }
        if self.steps.is_some() && reach.steps.contains(&Rung::Scrub) {
            return Err(("steps", "scrub is a service's, not a peer's".into()));
        }
        if self.role == Some(Role::Scrubber) && self.steps.is_none() && self.divert.is_none() {
            return Err(("role", "a scrubber needs divert: it would get nothing".into()));
        }
        if self.divert.is_some() && !reach.steps.contains(&Rung::Divert) {
            // Traffic comes from there: what is diverted to it comes back as it is.
            return Err(("divert", "the peer does not take divert (steps, role)".into()));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.name.is_empty() {
            return Err(("name", "is empty".into()));
        }
        if matches!(self.remote_as, 0 | 23456 | u32::MAX) {
            return Err(("remote_as", format!("{} is not an AS number", self.remote_as)));
        }
        if matches!(self.local_as, Some(0 | 23456 | u32::MAX)) {
            return Err(("local_as", "is not an AS number".into()));
        }
        if matches!(self.hold_time_secs, 1 | 2) {
            return Err(("hold_time_secs", "must be 0 or at least 3".into()));
        }
        if !(1..=120).contains(&self.connect_retry_secs) {
            return Err(("connect_retry_secs", "must be 1-120".into()));
        }
        if self.max_rules.is_some_and(|n| !(1..=100_000).contains(&n)) {
            return Err(("max_rules", "must be 1-100000".into()));
        }
        if self.max_routes.is_some_and(|n| !(1..=100_000).contains(&n)) {
            return Err(("max_routes", "must be 1-100000".into()));
        }
        self.check_scope()?;
        if self.address.is_unspecified() || self.address.is_multicast() {
            return Err(("address", format!("{} is nobody's", self.address)));
        }
        if self.port == 0 {
            return Err(("port", "must be 1-65535".into()));
        }
        if self.families.is_empty() {
            return Err(("families", "is empty: the peer would get nothing".into()));
        }
        if self.graceful_restart_secs > 4095 {
            return Err(("graceful_restart_secs", "must be 0-4095".into()));
        }
        if self.long_lived_restart_secs > 0x00ff_ffff {
            return Err(("long_lived_restart_secs", "must be 0-16777215".into()));
        }
        check_next_hops(self.next_hop4, self.next_hop6)?;
        self.divert.as_ref().map_or(Ok(()), Divert::check)?;
        self.bfd.as_ref().map_or(Ok(()), bfd::Config::check)?;
        if self.local_address.is_some_and(|l| l.is_ipv4() != self.address.is_ipv4()) {
            return Err(("local_address", "is of another family than address".into()));
        }
        if self.password.is_some() && self.password_file.is_some() {
            return Err(("password", "password_file is set too".into()));
        }
        if self.password.as_ref().is_some_and(|p| !(1..=80).contains(&p.expose().len())) {
            return Err(("password", "must be 1-80 octets".into()));
        }
        Ok(())
    }
}

impl Config {
    /// A speaker without peers.
    pub const fn new(local_as: u32, router_id: Ipv4Addr) -> Self {
        Self {
            local_as,
            router_id,
            listen: None,
            on_stop: OnStop::Withdraw,
            upstreams: None,
            rpki: None,
            peers: Vec::new(),
            adapters: Vec::new(),
        }
    }

    /// Every peer and every daemon, and what each can be given at all.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        let peers = self.peers.iter().map(|p| (&p.name, p.reach()));
        let all = peers.chain(self.adapters.iter().map(|a| (&a.name, a.reach())));
        all.map(|(name, reach)| KnownPeer { name: name.clone(), reach }).collect()
    }

    /// weir's AS number towards a peer.
    pub(crate) fn local_as_of(&self, peer: &PeerConfig) -> u32 {
        peer.local_as.unwrap_or(self.local_as)
    }

    /// Names of the peers whose sessions end, or are opened anew, when `next` takes this one's place; files
    /// with passwords are not looked into.
    pub fn sessions_that_end(&self, next: Option<&Self>) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        for peer in &self.peers {
            let after = next.and_then(|next| {
                let own = next.peers.iter().find(|own| own.name == peer.name)?;
                Some((next, own))
            });
            match after {
                None => all.push((peer.name.clone(), false)),
                Some((next, own)) => {
                    let same = (self.local_as_of(peer), self.router_id)
                        == (next.local_as_of(own), next.router_id)
                        && peer.password_file == own.password_file
                        && !peer.needs_another_session(own);
                    if !same {
                        all.push((peer.name.clone(), true));
                    }
                }
            }
        }
        all
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] with the first field at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let global =
            |field, why: &str| Err(ConfigError { peer: String::new(), field, why: why.to_owned() });
        if matches!(self.local_as, 0 | 23456 | u32::MAX) {
            return global("local_as", "is not an AS number");
        }
        if self.router_id.is_unspecified() {
            return global("router_id", "must not be 0.0.0.0");
        }
        if self.rpki.as_ref().is_some_and(|rpki| rpki.cache.port() == 0) {
            return global("rpki.cache", "has port 0");
        }
        for (i, peer) in self.peers.iter().enumerate() {
            let of = |(field, why)| ConfigError {
                peer: format!("peer \"{}\": ", peer.name),
                field,
                why,
            };
            peer.check().map_err(of)?;
            if peer.passive && self.listen.is_none() {
                return Err(of(("passive", "bgp.listen is not set: nobody could dial".into())));
            }
            if peer.long_lived_restart_secs > 0 && peer.graceful_restart_secs == 0 {
                // RFC 9494 §4.1: the one means nothing without the other.
                let why = "needs graceful_restart_secs";
                return Err(of(("long_lived_restart_secs", why.into())));
            }
            let before = &self.peers[..i];
            if before.iter().any(|p| p.name == peer.name) {
                return Err(of(("name", "is taken".into())));
            }
            if before.iter().any(|p| (p.address, p.port) == (peer.address, peer.port)) {
                return Err(of(("address", "is another peer's".into())));
            }
            if peer.bfd.is_some() && before.iter().any(|p| p.address == peer.address) {
                return Err(of(("bfd", "the address is another peer's too".into())));
            }
        }
        for (i, adapter) in self.adapters.iter().enumerate() {
            let of = |(field, why): (&'static str, String)| ConfigError {
                peer: format!("adapter \"{}\": ", adapter.name),
                field,
                why,
            };
            adapter.check().map_err(of)?;
            let taken = self.adapters[..i].iter().map(|a| &a.name);
            if taken.chain(self.peers.iter().map(|p| &p.name)).any(|n| *n == adapter.name) {
                return Err(of(("name", "is taken".into())));
            }
        }
        Ok(())
    }
}

/// What every receiver drops or treats as withdrawn (RFC 4271 §6.3, RFC 4760 §3): the route would
/// be shown as announced and be in force nowhere.
pub(crate) fn check_next_hops(
    next_hop4: Ipv4Addr,
    next_hop6: Ipv6Addr,
) -> Result<(), (&'static str, String)> {
    let v4 = next_hop4.is_loopback()
        || next_hop4.octets()[0] == 0
        || next_hop4.is_multicast()
        || next_hop4.octets()[0] >= 240;
    // A link-local address alone names no next hop, and one of IPv4 in IPv6 form none of IPv6.
    let v6 = next_hop6.is_loopback()
        || next_hop6.is_unspecified()
        || next_hop6.is_multicast()
        || next_hop6.is_unicast_link_local()
        || next_hop6.to_ipv4_mapped().is_some();
    match (v4, v6) {
        (true, _) => Err(("next_hop4", format!("receivers drop routes to {next_hop4}"))),
        (_, true) => Err(("next_hop6", format!("receivers drop routes to {next_hop6}"))),
        _ => Ok(()),
    }
}

/// A community of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 4360.
    Extended([u8; 8]),
    /// RFC 8092.
    Large(LargeCommunity),
}

impl Community {
    /// BLACKHOLE (RFC 7999).
    pub const BLACKHOLE: Self = Self::Standard(0xffff_029a);
    /// NO_EXPORT (RFC 1997).
    pub const NO_EXPORT: Self = Self::Standard(0xffff_ff01);
    /// NO_ADVERTISE (RFC 1997).
    pub const NO_ADVERTISE: Self = Self::Standard(0xffff_ff02);
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(value) => write!(f, "{}:{}", value >> 16, value & 0xffff),
            Self::Extended(octets) => {
                f.write_str("ext:")?;
                octets.iter().try_for_each(|o| write!(f, "{o:02x}"))
            }
            Self::Large(c) => write!(f, "{}:{}:{}", c.asn, c.first, c.second),
        }
    }
}

/// A community that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "community {0:?} is none of blackhole, no-export, no-advertise, AS:value, AS:value:value, \
     rt:AS:value, ext:<16 hexadecimal digits>"
)]
pub struct CommunityError(String);

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        match text {
            "blackhole" => return Ok(Self::BLACKHOLE),
            "no-export" => return Ok(Self::NO_EXPORT),
            "no-advertise" => return Ok(Self::NO_ADVERTISE),
            _ => {}
        }
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = match parts[..] {
            ["ext", digits] if digits.len() == 16 => {
                u64::from_str_radix(digits, 16).map(|v| Self::Extended(v.to_be_bytes())).ok()
            }
            ["rt", asn, value] => route_target(asn, value),
            [high, low] => high
                .parse::<u16>()
                .ok()
                .zip(low.parse::<u16>().ok())
                .map(|(high, low)| Self::Standard(u32::from(high) << 16 | u32::from(low))),
            [asn, first, second] => (|| {
                Some(Self::Large(LargeCommunity {
                    asn: asn.parse().ok()?,
                    first: first.parse().ok()?,
                    second: second.parse().ok()?,
                }))
            })(),
            _ => None,
        };
        parsed.ok_or_else(|| CommunityError(text.to_owned()))
    }
}

/// Route target of a 2-octet AS, else of a 4-octet AS (RFC 4360 §4, RFC 5668).
fn route_target(asn: &str, value: &str) -> Option<Community> {
    let asn: u32 = asn.parse().ok()?;
    let mut octets = [0; 8];
    octets[1] = 2;
    if let Ok(asn) = u16::try_from(asn) {
        octets[2..4].copy_from_slice(&asn.to_be_bytes());
        octets[4..].copy_from_slice(&value.parse::<u32>().ok()?.to_be_bytes());
    } else {
        octets[0] = 2;
        octets[2..6].copy_from_slice(&asn.to_be_bytes());
        octets[6..].copy_from_slice(&value.parse::<u16>().ok()?.to_be_bytes());
    }
    Some(Community::Extended(octets))
}

impl Serialize for Community {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Community {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_needs_name_address_and_as() {
        let json = r#"{"local_as": 65010, "router_id": "10.0.0.1",
            "peer": [{"name": "edge", "address": "192.0.2.9", "remote_as": 65010}]}"#;
        let config: Config = serde_json::from_str(json).unwrap();
        let mut expected = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
        expected.peers.push(PeerConfig::new("edge", "192.0.2.9".parse().unwrap(), 65010));
        assert_eq!(config, expected);
        assert_eq!(config.validate(), Ok(()));
        let unknown = json.replace("remote_as", "remote_az");
        assert!(serde_json::from_str::<Config>(&unknown).is_err());
    }

    #[test]
    fn faults_name_their_field() {
        let check = |change: fn(&mut Config), text: &str| {
            let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
            let peer = PeerConfig::new("edge", "192.0.2.9".parse().unwrap(), 65010);
            config.peers = vec![peer.clone(), PeerConfig { name: "b".into(), port: 180, ..peer }];
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), text);
        };
        check(|c| c.local_as = 0, "local_as: is not an AS number");
        check(
            |c| c.peers[0].hold_time_secs = 2,
            "peer \"edge\": hold_time_secs: must be 0 or at least 3",
        );
        check(|c| c.peers[1].name = "edge".into(), "peer \"edge\": name: is taken");
        check(|c| c.peers[1].port = 179, "peer \"b\": address: is another peer's");
        check(
            |c| c.peers[0].passive = true,
            "peer \"edge\": passive: bgp.listen is not set: nobody could dial",
        );
        check(
            |c| c.peers[0].families.clear(),
            "peer \"edge\": families: is empty: the peer would get nothing",
        );
        check(
            |c| {
                c.peers[0].password = Some(Secret::new("a"));
                c.peers[0].password_file = Some("/run/key".into());
            },
            "peer \"edge\": password: password_file is set too",
        );
    }

    #[test]
    fn a_next_hop_that_receivers_drop_is_refused() {
        let drops4 = |hop: &str| {
            let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
            let mut peer = PeerConfig::new("edge", "192.0.2.9".parse().unwrap(), 65010);
            match hop.parse().unwrap() {
                IpAddr::V4(hop) => peer.next_hop4 = hop,
                IpAddr::V6(hop) => peer.next_hop6 = hop,
            }
            config.peers.push(peer);
            let field = if hop.contains(':') { "next_hop6" } else { "next_hop4" };
            let refused = config.validate().is_err_and(|error| error.field == field);
            assert_eq!(refused, config.validate().is_err());
            refused
        };
        for hop in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1"]
        {
            assert!(drops4(hop), "{hop}");
        }
        for hop in ["ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
            assert!(drops4(hop), "{hop}");
        }
        for hop in ["192.0.2.1", "10.0.0.1", "100::1", "2001:db8::1"] {
            assert!(!drops4(hop), "{hop}");
        }
    }

    #[test]
    fn a_diversion_needs_a_next_hop_and_discards_nothing() {
        let check = |divert: &str, expected: Result<(), &str>| {
            let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
            let mut peer = PeerConfig::new("edge", "192.0.2.9".parse().unwrap(), 65010);
            peer.divert = Some(serde_json::from_str(divert).unwrap());
            config.peers.push(peer);
            let found =
                config.validate().map_err(|error| format!("{}: {}", error.field, error.why));
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e));
        };
        check(r#"{"next_hop4": "192.0.2.9", "communities": ["65010:100"]}"#, Ok(()));
        check(r#"{"next_hop6": "2001:db8::9"}"#, Ok(()));
        check("{}", Err("divert: has neither next_hop4 nor next_hop6"));
        check(
            r#"{"next_hop4": "127.0.0.1"}"#,
            Err("divert: next_hop4: receivers drop routes to 127.0.0.1"),
        );
        check(
            r#"{"next_hop4": "192.0.2.9", "communities": ["blackhole"]}"#,
            Err("divert: communities has blackhole: what is to be diverted would be discarded"),
        );
    }

    #[test]
    fn a_role_says_which_steps_a_peer_takes() {
        let check = |more: &str, expected: Result<&[&str], &str>| {
            let json =
                format!(r#"{{"name": "a", "address": "192.0.2.9", "remote_as": 65010{more}}}"#);
            let peer: PeerConfig = serde_json::from_str(&json).unwrap();
            let mut config = Config::new(65010, Ipv4Addr::new(10, 0, 0, 1));
            config.peers.push(peer.clone());
            let valid = config.validate().map_err(|e| format!("{}: {}", e.field, e.why));
            let measures = [
                (
                    "rule",
                    r#"{"flow-spec": {"packets": {"dst": "203.0.113.7/32"}, "action": "drop"}}"#,
                ),
                ("/32", r#"{"blackhole": "203.0.113.7/32"}"#),
                ("/24", r#"{"blackhole": "203.0.113.0/24"}"#),
                ("way", r#"{"divert": "203.0.113.0/24"}"#),
            ];
            let takes = |json: &str| {
                let measure: weir_model::Measure = serde_json::from_str(json).unwrap();
                peer.reach().route(&measure).is_ok()
            };
            let taken = measures.iter().filter(|(_, json)| takes(json)).map(|(name, _)| *name);
            let got = valid.map(|()| taken.collect::<Vec<_>>());
            assert_eq!(got, expected.map(<[_]>::to_vec).map_err(str::to_owned), "{more}");
        };
        let divert = r#", "divert": {"next_hop4": "192.0.2.66"}"#;
        let with = |more: &str| format!("{more}{divert}");
        check("", Ok(&["rule", "/32", "/24"]));
        check(&with(r#", "role": "edge""#), Ok(&["rule", "/32", "/24", "way"]));
        check(r#", "role": "transit""#, Ok(&["/32", "/24"]));
        check(r#", "role": "ixp", "blackhole_min_len4": 32"#, Ok(&["/32"]));
        check(r#", "role": "transit", "steps": ["drop", "rtbh"]"#, Ok(&["rule", "/32", "/24"]));
        check(&with(r#", "role": "scrubber""#), Ok(&["way"]));
        check(r#", "role": "filter""#, Ok(&["rule"]));
        check(r#", "blackhole_max_len4": 24"#, Ok(&["rule", "/24"]));
        let wrong = "the peer does not take divert (steps, role)";
        check(&with(r#", "role": "transit""#), Err(&format!("divert: {wrong}")));
        let empty = "a scrubber needs divert: it would get nothing";
        check(r#", "role": "scrubber""#, Err(&format!("role: {empty}")));
        check(r#", "steps": []"#, Err("steps: is empty: the peer would get nothing"));
        check(r#", "steps": ["scrub"]"#, Err("steps: scrub is a service's, not a peer's"));
        check(r#", "blackhole_min_len4": 33"#, Err("blackhole_min_len4: /33 to /32 is no range"));
        check(r#", "max_routes": 0"#, Err("max_routes: must be 1-100000"));
    }

    #[test]
    fn communities_are_read_as_operators_write_them() {
        let check = |text: &str, shown: &str| {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), shown);
        };
        check("blackhole", "65535:666");
        check("65010:666", "65010:666");
        check("4200000001:1:2", "4200000001:1:2");
        check("rt:65010:666", "ext:0002fdf20000029a");
        check("rt:4200000001:6", "ext:0202fa56ea010006");
        check("ext:8006000000000000", "ext:8006000000000000");
        for text in ["", "65536:1", "1:2:3:4", "ext:80", "rt:65010:x"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let mut peer = PeerConfig::new("edge", "192.0.2.9".parse().unwrap(), 65010);
        peer.password = Some(Secret::new("hunter2"));
        assert!(!format!("{peer:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&peer).unwrap().contains("hunter2"));
    }
}
